//! Operators that read and write positions which tensors give.
//!
//! Writes use one device: a tensor that numbers the elements of the target is indexed as the target is, which gives the number
//! of the element that each value goes to.

use super::call::{Call, Number, Operand, Results, many, one};
use super::element::round;
use super::functions::{maximum, minimum};
use super::pointwise::broadcast;
use super::tensor::{Tensor, count};
use super::views::{diagonal_of, position, range};
use super::{Error, bad};
use crate::DType;

/// The row-major numbers of the elements of a shape.
fn numbers(shape: &[usize]) -> Result<Tensor, Error> {
    Tensor::of(DType::Int64, shape, 0..count(shape)? as i64)
}

/// Elements of a row-major tensor by number.
fn picked(t: &Tensor, shape: &[usize], numbers: &[usize]) -> Result<Tensor, Error> {
    let (bytes, size) = (t.bytes(), t.dtype().size());
    let mut out = Vec::with_capacity(numbers.len() * size);
    for &n in numbers {
        out.extend_from_slice(bytes.get(n * size..(n + 1) * size).ok_or_else(|| bad("an index out of range"))?);
    }
    Tensor::new(t.dtype(), shape, out)
}

/// Whether negative indices count from the end.
#[derive(Clone, Copy, PartialEq)]
enum Negative {
    Wraps,
    Fails,
}

fn checked(index: &Tensor, n: usize, negative: Negative) -> Result<Vec<usize>, Error> {
    if index.dtype().is_float() || index.dtype() == DType::Bool {
        return Err(bad(format!("indices of type {}", index.dtype())));
    }
    let one = |i: i64| if i < 0 && negative == Negative::Fails { Err(bad(format!("negative index {i}"))) } else { position(i, n) };
    index.to::<i64>().into_iter().map(one).collect()
}

/// The axis replaced by the dimensions of the index: `take` along it.
fn take_with(t: &Tensor, axis: usize, index: &Tensor, negative: Negative) -> Result<Tensor, Error> {
    let t = if t.rank() == 0 { t.reshape(&[1])? } else { t.clone() };
    let (n, at) = (t.size(axis), checked(index, t.size(axis), negative)?);
    let (outer, rest) = t.shape().split_at(axis.min(t.rank()));
    let inner = rest.get(1..).unwrap_or(&[]);
    let (rows, run) = (outer.iter().product::<usize>(), inner.iter().product::<usize>());
    let shape = [outer, index.shape(), inner].concat();
    count(&shape)?;
    let numbers = (0..rows).flat_map(|r| at.iter().flat_map(move |i| (0..run).map(move |k| (r * n + i) * run + k)));
    picked(&t, &shape, &numbers.collect::<Vec<_>>())
}

/// The positions `index` of an axis; negative ones count from the end.
pub(super) fn take(t: &Tensor, axis: usize, index: &Tensor) -> Result<Tensor, Error> {
    take_with(t, axis, index, Negative::Wraps)
}

/// Element by element, the one whose position along the axis the index gives. Other dimensions of the index may be smaller.
pub(super) fn gather_along(t: &Tensor, axis: usize, index: &Tensor) -> Result<Tensor, Error> {
    if index.numel() == 0 {
        return Tensor::new(t.dtype(), index.shape(), Vec::new());
    }
    if t.rank().max(1) != index.rank().max(1) {
        return Err(bad(format!("an index of rank {} for a tensor of rank {}", index.rank(), t.rank())));
    }
    let (source, shape) = (if t.rank() == 0 { t.reshape(&[1])? } else { t.clone() }, index.shape().to_vec());
    let index = if index.rank() == 0 { index.reshape(&[1])? } else { index.clone() };
    let strides = super::tensor::row_major(source.shape());
    let at = checked(&index, source.size(axis), Negative::Fails)?;
    let mut numbers = Vec::with_capacity(at.len());
    for (i, &along) in at.iter().enumerate() {
        let (mut rest, mut number) = (i, 0);
        for (d, (&n, &stride)) in index.shape().iter().zip(&strides).enumerate().rev() {
            let here = if d == axis { along } else { rest % n };
            if here >= source.size(d) {
                return Err(bad(format!("an index of shape {:?} for a tensor of shape {:?}", index.shape(), source.shape())));
            }
            number += here * stride;
            rest /= n;
        }
        numbers.push(number);
    }
    picked(&source, &shape, &numbers)
}

/// Indexing with tensors, `x[a, :, b]`: the indexed dimensions become those that the indices broadcast to, in the place of the first if
/// they stand together, else in front. A mask of booleans indexes as many dimensions as it has.
fn index_of(t: &Tensor, indices: &[Option<Tensor>]) -> Result<Tensor, Error> {
    let mut by_axis: Vec<Option<Tensor>> = Vec::new();
    for index in indices {
        match index {
            Some(mask) if matches!(mask.dtype(), DType::Bool | DType::UInt8) => {
                if t.shape().get(by_axis.len()..by_axis.len() + mask.rank()) != Some(mask.shape()) {
                    return Err(bad(format!("a mask of shape {:?} for a tensor of shape {:?}", mask.shape(), t.shape())));
                }
                if mask.rank() == 0 {
                    return Err(bad("a mask without dimensions"));
                }
                by_axis.extend(nonzero_of(mask)?.into_iter().map(Some));
            }
            other => by_axis.push(other.clone()),
        }
    }
    if by_axis.len() > t.rank() {
        return Err(bad(format!("{} indices for a tensor of rank {}", by_axis.len(), t.rank())));
    }
    by_axis.resize(t.rank(), None);
    let indexed: Vec<usize> = (0..t.rank()).filter(|&a| matches!(by_axis.get(a), Some(Some(_)))).collect();
    let (Some(&first), Some(&last)) = (indexed.first(), indexed.last()) else { return t.copy() };
    let together = last - first + 1 == indexed.len();
    let place = if together { first } else { 0 };
    let kept: Vec<usize> = (0..t.rank()).filter(|a| !indexed.contains(a)).collect();
    let (before, after) = kept.split_at(place);
    let moved = t.permute(&[before, &indexed[..], after].concat())?.merge(place, place + indexed.len())?;
    let given: Vec<&Tensor> = by_axis.iter().flatten().collect();
    let shape = broadcast(&given.iter().map(|i| i.shape()).collect::<Vec<_>>())?;
    let mut linear = vec![0usize; count(&shape)?];
    for (index, &axis) in given.iter().zip(&indexed) {
        let n = t.size(axis);
        for (number, at) in linear.iter_mut().zip(checked(&index.expand(&shape)?, n, Negative::Wraps)?) {
            *number = *number * n + at;
        }
    }
    take(&moved, place, &Tensor::of(DType::Int64, &shape, linear.into_iter().map(|n| n as i64))?)
}

pub(super) fn index(c: &Call) -> Results {
    one(index_of(&c.first()?, &c.maybe_tensors("indices")?)?)
}

/// How a value joins what is there.
#[derive(Clone, Copy)]
enum Join {
    Replace,
    Add,
    Multiply,
    Largest,
    Least,
}

/// A copy with values written to numbered elements, in order.
fn written(t: &Tensor, numbers: &Tensor, values: &Tensor, join: Join) -> Result<Tensor, Error> {
    let d = t.dtype();
    let out = t.copy()?;
    let values = values.expand(numbers.shape())?.cast(d)?;
    let numbers = numbers.to::<i64>();
    let flat = out.reshape(&[out.numel()])?;
    if d.is_float() {
        let mut have = flat.to::<f64>();
        for (n, v) in numbers.iter().zip(values.to::<f64>()) {
            if let Some(x) = have.get_mut(*n as usize) {
                *x = match join {
                    Join::Replace => v,
                    Join::Add => round(d, *x + v),
                    Join::Multiply => round(d, *x * v),
                    Join::Largest => maximum(*x, v),
                    Join::Least => minimum(*x, v),
                };
            }
        }
        return Tensor::of(d, t.shape(), have);
    }
    let mut have = flat.to::<i64>();
    for (n, v) in numbers.iter().zip(values.to::<i64>()) {
        if let Some(x) = have.get_mut(*n as usize) {
            *x = match join {
                Join::Replace => v,
                Join::Add => x.wrapping_add(v),
                Join::Multiply => x.wrapping_mul(v),
                Join::Largest => v.max(*x),
                Join::Least => v.min(*x),
            };
        }
    }
    Tensor::of(d, t.shape(), have)
}

fn join(accumulate: bool) -> Join {
    if accumulate { Join::Add } else { Join::Replace }
}

pub(super) fn index_put(c: &Call) -> Results {
    let t = c.first()?;
    let at = index_of(&numbers(t.shape())?, &c.maybe_tensors("indices")?)?;
    one(written(&t, &at, &c.tensor("values")?, join(c.flag("accumulate")))?)
}

/// `index_copy`, `index_add`, `index_fill`: whole positions of a dimension.
pub(super) fn index_write(c: &Call, source: &str, add: bool) -> Results {
    let t = c.first()?;
    let index = c.tensor("index")?;
    let at = take(&numbers(t.shape())?, c.axis("dim", t.rank())?, &index.reshape(&[index.numel()])?)?.reshape_like(&t)?;
    let mut value = match c.operand(source)? {
        Operand::Tensor(v) => v,
        Operand::Number(n) => n.wide()?,
    };
    if add && c.given("alpha") && c.number("alpha")? != Number::Int(1) {
        value = super::arithmetic::product([value.into(), Operand::Number(c.number("alpha")?)])?;
    }
    one(written(&t, &at, &value, join(add))?)
}

impl Tensor {
    /// Without the dimension that a scalar was given.
    fn reshape_like(&self, t: &Tensor) -> Result<Tensor, Error> {
        if t.rank() == 0 && self.numel() == 1 { self.reshape(&[]) } else { Ok(self.clone()) }
    }
}

fn reduction(c: &Call) -> Result<Option<Join>, Error> {
    Ok(Some(match c.text("reduce") {
        None => return Ok(None),
        Some("add" | "sum" | "mean") => Join::Add,
        Some("multiply" | "prod") => Join::Multiply,
        Some("amax") => Join::Largest,
        Some("amin") => Join::Least,
        Some(other) => return Err(bad(format!("reduction {other:?}"))),
    }))
}

/// The numbers of the elements that `scatter` writes to, and the values.
fn scattered(c: &Call, t: &Tensor) -> Result<(Tensor, Tensor), Error> {
    let (axis, index) = (c.axis("dim", t.rank())?, c.tensor("index")?);
    let at = gather_along(&numbers(t.shape())?, axis, &index)?;
    let name = ["src", "value"].into_iter().find(|n| c.given(n)).unwrap_or("src");
    let values = match c.operand(name)? {
        Operand::Number(n) => n.wide()?,
        Operand::Tensor(v) if v.rank() == 0 => v,
        // The source may be larger than the index.
        Operand::Tensor(v) => index.shape().iter().enumerate().try_fold(v, |v, (d, &n)| v.slice(d, 0, n, 1))?,
    };
    Ok((at, values))
}

pub(super) fn scatter(c: &Call) -> Results {
    let t = c.first()?;
    let (at, values) = scattered(c, &t)?;
    one(written(&t, &at, &values, reduction(c)?.unwrap_or(Join::Replace))?)
}

pub(super) fn scatter_add(c: &Call) -> Results {
    let t = c.first()?;
    let (at, values) = scattered(c, &t)?;
    one(written(&t, &at, &values, Join::Add)?)
}

/// `scatter_reduce`: what is there may be left out of account, and means count.
pub(super) fn scatter_reduce(c: &Call) -> Results {
    let t = c.first()?;
    let (at, values) = scattered(c, &t)?;
    joined(c, &t, &at, &values)
}

fn joined(c: &Call, t: &Tensor, at: &Tensor, values: &Tensor) -> Results {
    let how = reduction(c)?.ok_or_else(|| bad("no reduction"))?;
    let mut start = t.clone();
    let include = c.flag("include_self");
    if !include {
        let unit = match how {
            Join::Multiply => Tensor::scalar(t.dtype(), 1i64)?,
            Join::Largest if t.dtype().is_float() => Tensor::scalar(t.dtype(), f64::NEG_INFINITY)?,
            Join::Least if t.dtype().is_float() => Tensor::scalar(t.dtype(), f64::INFINITY)?,
            Join::Largest => Tensor::scalar(t.dtype(), i64::MIN)?,
            Join::Least => Tensor::scalar(t.dtype(), i64::MAX)?,
            _ => Tensor::scalar(t.dtype(), 0i64)?,
        };
        start = written(t, at, &unit, Join::Replace)?;
    }
    let mut out = written(&start, at, values, how)?;
    if c.text("reduce") == Some("mean") {
        let counts = Tensor::full(DType::Int64, t.shape(), i64::from(include))?;
        let counts = written(&counts, at, &Tensor::scalar(DType::Int64, 1i64)?, Join::Add)?;
        let counts = super::pointwise::map(&counts, DType::Int64, |n: i64| n.max(1))?;
        out = match t.dtype() {
            d if d.is_float() => super::pointwise::zip(d, d, &out, &counts, |a: f64, b| a / b)?,
            d => super::pointwise::zip(DType::Int64, d, &out, &counts, |a: i64, b| a.div_euclid(b))?,
        };
    }
    one(out)
}

/// A copy, part of which (a view of it) is overwritten.
fn overwritten(t: &Tensor, source: &Tensor, part: impl Fn(&Tensor) -> Result<Tensor, Error>) -> Results {
    let out = t.copy()?;
    part(&out)?.write(source)?;
    // A new handle: the result counts as fresh.
    one(out.copy()?)
}

pub(super) fn slice_scatter(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let (start, length, step) = range(c, t.size(axis))?;
    overwritten(&t, &c.tensor("src")?, |t| t.slice(axis, start, length, step))
}

pub(super) fn select_scatter(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let at = position(c.int("index")?, t.size(axis))?;
    overwritten(&t, &c.tensor("src")?, |t| t.select(axis, at))
}

pub(super) fn diagonal_scatter(c: &Call) -> Results {
    let t = c.first()?;
    let (offset, a, b) = (c.int("offset")?, c.axis("dim1", t.rank())?, c.axis("dim2", t.rank())?);
    overwritten(&t, &c.tensor("src")?, |t| diagonal_of(t, offset, a, b))
}

pub(super) fn as_strided_scatter(c: &Call) -> Results {
    let t = c.first()?;
    let offset = usize::try_from(c.int_or("storage_offset", 0)?).map_err(|_| bad("a negative offset"))?;
    let (shape, strides) = (c.sizes("size")?, c.sizes("stride")?);
    overwritten(&t, &c.tensor("src")?, |t| t.view(shape.clone(), strides.clone(), offset))
}

pub(super) fn embedding(c: &Call) -> Results {
    let (table, indices) = (c.tensor("weight")?, c.tensor("indices")?);
    one(take_with(&table, 0, &indices, Negative::Fails)?)
}

pub(super) fn index_select(c: &Call) -> Results {
    let (t, index) = (c.first()?, c.tensor("index")?);
    let taken = take_with(&t, c.axis("dim", t.rank())?, &index.reshape(&[index.numel()])?, Negative::Fails)?;
    one(taken.reshape_like(&t)?)
}

pub(super) fn gather(c: &Call) -> Results {
    let t = c.first()?;
    one(gather_along(&t, c.axis("dim", t.rank())?, &c.tensor("index")?)?)
}

/// As `gather`, broadcasting; without a dimension in the flattened tensor.
pub(super) fn take_along(c: &Call) -> Results {
    let (t, index) = (c.first()?, c.tensor("indices")?);
    if !c.given("dim") {
        return one(take(&t.reshape(&[t.numel()])?, 0, &index.reshape(&[index.numel()])?)?);
    }
    let axis = c.axis("dim", t.rank())?;
    let whole = |of: &Tensor, like: &Tensor| {
        let mut shape = like.shape().to_vec();
        if let Some(n) = shape.get_mut(axis) {
            *n = of.size(axis);
        }
        shape
    };
    let (a, b) = (broadcast(&[t.shape(), &whole(&t, &index)])?, broadcast(&[index.shape(), &whole(&index, &t)])?);
    let n = t.size(axis) as i64;
    let wrapped = super::pointwise::map(&index.expand(&b)?, DType::Int64, |i: i64| i.checked_rem_euclid(n).unwrap_or(0))?;
    one(gather_along(&t.expand(&a)?, axis, &wrapped)?)
}

/// Elements of the flattened tensor.
pub(super) fn take_flat(c: &Call) -> Results {
    let t = c.first()?;
    one(take(&t.reshape(&[t.numel()])?, 0, &c.tensor("index")?)?)
}

/// `put`: elements of the flattened tensor overwritten.
pub(super) fn put(c: &Call) -> Results {
    let (t, index) = (c.first()?, c.tensor("index")?);
    let at = take(&numbers(&[t.numel()])?, 0, &index)?;
    one(written(&t, &at, &c.tensor("source")?.reshape(index.shape())?, join(c.flag("accumulate")))?)
}

/// For each dimension, the indices of the elements that are not zero.
fn nonzero_of(t: &Tensor) -> Result<Vec<Tensor>, Error> {
    let mut found: Vec<Vec<i64>> = vec![Vec::new(); t.rank()];
    for (i, _) in t.to::<bool>().iter().enumerate().filter(|(_, x)| **x) {
        let mut rest = i;
        for (list, &n) in found.iter_mut().zip(t.shape()).rev() {
            list.push((rest % n) as i64);
            rest /= n;
        }
    }
    found.into_iter().map(|l| Tensor::of(DType::Int64, &[l.len()], l)).collect()
}

pub(super) fn nonzero(c: &Call) -> Results {
    let t = c.first()?;
    let columns = nonzero_of(&t)?;
    if columns.is_empty() {
        let n = usize::from(t.item::<bool>()?);
        return one(Tensor::new(DType::Int64, &[n, 0], Vec::new())?);
    }
    one(super::joins::stack_of(&columns, 1)?)
}

/// `nonzero` cut or filled up to a number of rows.
pub(super) fn nonzero_static(c: &Call) -> Results {
    let t = c.first()?;
    let (n, fill) = (c.size("size")?, c.int("fill_value")?);
    let columns = nonzero_of(&t)?;
    let out = Tensor::full(DType::Int64, &[n, columns.len()], fill)?;
    for (i, column) in columns.iter().enumerate() {
        let rows = column.numel().min(n);
        out.select(1, i)?.slice(0, 0, rows, 1)?.write(&column.slice(0, 0, rows, 1)?)?;
    }
    one(out.copy()?)
}

pub(super) fn nonzero_each(c: &Call) -> Results {
    many(nonzero_of(&c.first()?)?)
}

pub(super) fn masked_select(c: &Call) -> Results {
    let (t, mask) = (c.first()?, c.tensor("mask")?);
    let shape = broadcast(&[t.shape(), mask.shape()])?;
    let at: Vec<usize> = mask.expand(&shape)?.to::<bool>().iter().enumerate().filter(|(_, x)| **x).map(|(i, _)| i).collect();
    one(picked(&t.expand(&shape)?, &[at.len()], &at)?)
}

/// Elements where the mask is true, replaced by those of the source in order.
pub(super) fn masked_scatter(c: &Call) -> Results {
    let (t, mask, source) = (c.first()?, c.tensor("mask")?, c.tensor("source")?);
    let shape = broadcast(&[t.shape(), mask.shape()])?;
    let at: Vec<i64> = mask.expand(&shape)?.to::<bool>().iter().enumerate().filter(|(_, x)| **x).map(|(i, _)| i as i64).collect();
    let values = source.reshape(&[source.numel()])?.slice(0, 0, at.len(), 1)?;
    let n = at.len();
    one(written(&t.expand(&shape)?.copy()?, &Tensor::of(DType::Int64, &[n], at)?, &values, Join::Replace)?)
}

pub(super) fn one_hot(c: &Call) -> Results {
    let t = c.first()?;
    let values = t.to::<i64>();
    let classes = match c.int("num_classes")? {
        -1 => values.iter().max().map_or(0, |m| m.saturating_add(1)),
        n => n,
    };
    if values.iter().any(|v| !(0..classes).contains(v)) {
        return Err(bad(format!("a class outside of 0..{classes}")));
    }
    let n = usize::try_from(classes).map_err(|_| bad("a negative number of classes"))?;
    let shape = [t.shape(), &[n]].concat();
    count(&shape)?;
    one(Tensor::of(DType::Int64, &shape, values.iter().flat_map(|v| (0..classes).map(move |k| i64::from(*v == k))))?)
}

/// Sums, means or maxima of table rows: bags of a flat list of indices between offsets, or rows of a matrix of indices.
pub(super) fn embedding_bag(c: &Call) -> Results {
    let (table, indices) = (c.tensor("weight")?, c.tensor("indices")?.to::<i64>());
    let mut starts: Vec<i64> = c.tensor("offsets")?.to::<i64>();
    let last = if c.flag("include_last_offset") { starts.pop() } else { None }.unwrap_or(indices.len() as i64);
    let weights = c.maybe_tensor("per_sample_weights")?.map(|w| w.to::<f64>());
    let (padding, mode, width) = (c.int_or("padding_idx", -1)?, c.int("mode")?, table.size(1));
    count(&[starts.len(), width])?;
    let rows = table.to::<f64>();
    let (mut out, mut bag_of, mut sizes) = (Vec::new(), vec![0i64; indices.len()], Vec::new());
    for (bag, &start) in starts.iter().enumerate() {
        let end = starts.get(bag + 1).copied().unwrap_or(last);
        let mut sum: Option<Vec<f64>> = None;
        let mut used = 0i64;
        for i in start.max(0) as usize..end.max(0) as usize {
            let index = indices.get(i).copied().ok_or_else(|| bad("an offset out of range"))?;
            if let Some(b) = bag_of.get_mut(i) {
                *b = bag as i64;
            }
            if index == padding {
                continue;
            }
            let at = position(index, table.size(0))?;
            let weight = weights.as_ref().and_then(|w| w.get(i)).copied().unwrap_or(1.0);
            let row = rows.get(at * width..(at + 1) * width).unwrap_or(&[]).iter().map(|x| x * weight);
            sum = Some(match sum {
                None => row.collect(),
                Some(s) => s.into_iter().zip(row).map(|(s, x)| if mode == 2 { maximum(s, x) } else { s + x }).collect(),
            });
            used += 1;
        }
        let divisor = if mode == 1 { used.max(1) as f64 } else { 1.0 };
        out.extend(sum.unwrap_or_else(|| vec![0.0; width]).into_iter().map(|x| x / divisor));
        sizes.push(used);
    }
    let bags = starts.len();
    many([
        Tensor::of(table.dtype(), &[bags, width], out)?,
        Tensor::of(DType::Int64, &[bag_of.len()], bag_of)?,
        Tensor::of(DType::Int64, &[bags], sizes.clone())?,
        Tensor::of(DType::Int64, &[bags], sizes)?,
    ])
}

/// `scatter_reduce` of whole positions of a dimension.
pub(super) fn index_reduce(c: &Call) -> Results {
    let t = c.first()?;
    let index = c.tensor("index")?;
    let at = take(&numbers(t.shape())?, c.axis("dim", t.rank())?, &index.reshape(&[index.numel()])?)?.reshape_like(&t)?;
    joined(c, &t, &at, &c.tensor("source")?)
}

/// Back to the places that pooling named, zeros elsewhere.
pub(super) fn max_unpool(c: &Call, dims: usize) -> Results {
    let (t, index) = (c.first()?, c.tensor("indices")?);
    let lead = t.rank().checked_sub(dims).ok_or_else(|| bad("too few dimensions"))?;
    let outer: usize = t.shape().iter().take(lead).product();
    let inner = count(&c.sizes("output_size")?)?;
    let shape = [t.shape().get(..lead).unwrap_or(&[]), &c.sizes("output_size")?].concat();
    let flat = Tensor::full(t.dtype(), &[outer, inner], 0i64)?;
    let windows = t.numel().checked_div(outer).unwrap_or(0);
    let at = gather_along(&numbers(&[outer, inner])?, 1, &index.reshape(&[outer, windows])?)?;
    one(written(&flat, &at, &t.reshape(&[outer, windows])?, Join::Replace)?.reshape(&shape)?)
}
