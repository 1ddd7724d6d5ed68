//! Views, pieces of tensors, and tensors put together.

use super::call::{Call, Results, many, one, sizes, wrap};
use super::pointwise::broadcast;
use super::tensor::{Tensor, count};
use super::{Error, bad, budget};
use crate::DType;
use crate::infer::promote::{to_complex, to_real};

/// Sizes with one -1 worked out.
fn inferred(numel: usize, shape: &[i64]) -> Result<Vec<usize>, Error> {
    let known: Vec<i64> = shape.iter().copied().filter(|&n| n != -1).collect();
    let product = count(&sizes(&known)?)?;
    if product == 0 && known.len() < shape.len() {
        return Err(bad(format!("any size would do for -1 in {shape:?}, for there are no elements")));
    }
    let rest = numel.checked_div(product).unwrap_or(0) as i64;
    sizes(&shape.iter().map(|&n| if n == -1 { rest } else { n }).collect::<Vec<_>>())
}

/// `view`, `reshape`: a view where strides allow it.
pub(super) fn view(c: &Call) -> Results {
    let t = c.first()?;
    let name = ["size", "shape"].into_iter().find(|n| c.given(n)).unwrap_or("size");
    one(t.reshape(&inferred(t.numel(), &c.ints(name)?)?)?)
}

/// As [`view`], but never a view.
pub(super) fn reshape_copy(c: &Call) -> Results {
    let t = c.first()?;
    one(t.reshape(&inferred(t.numel(), &c.ints("size")?)?)?.copy()?)
}

pub(super) fn view_like(c: &Call) -> Results {
    one(c.first()?.reshape(c.tensor("other")?.shape())?)
}

/// The bytes as elements of another type; along the last dimension where sizes differ.
pub(super) fn view_dtype(c: &Call) -> Results {
    let t = c.first()?;
    let d = c.dtype("dtype").ok_or_else(|| bad("no type"))?;
    let (from, to) = (t.dtype().size(), d.size());
    if from == to {
        return one(t.view_as(d, t.shape().to_vec(), t.strides().to_vec(), t.offset())?);
    }
    let (mut shape, mut strides) = (t.shape().to_vec(), t.strides().to_vec());
    let (Some(n), Some(1)) = (shape.last_mut(), strides.pop()) else { return Err(bad("the last dimension is not contiguous")) };
    let scaled = |x: usize| (x.checked_mul(from).filter(|b| b % to == 0)).map(|b| b / to).ok_or_else(|| bad("sizes do not divide"));
    *n = scaled(*n)?;
    let mut strides = strides.into_iter().map(scaled).collect::<Result<Vec<_>, _>>()?;
    strides.push(1);
    one(t.view_as(d, shape, strides, scaled(t.offset())?)?)
}

pub(super) fn flatten(c: &Call) -> Results {
    let t = c.first()?;
    if t.rank() == 0 {
        return one(t.reshape(&[1])?);
    }
    let (first, last) = (c.axis("start_dim", t.rank())?, c.axis("end_dim", t.rank())?);
    one(if first == last { t } else { t.merge(first, last + 1)? })
}

pub(super) fn ravel(c: &Call) -> Results {
    let t = c.first()?;
    one(t.reshape(&[t.numel()])?)
}

pub(super) fn unflatten(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let inner = inferred(t.size(axis), &c.ints("sizes")?)?;
    let mut shape = t.shape().to_vec();
    if axis >= shape.len() {
        return Err(bad("a scalar has no dimension to unflatten"));
    }
    shape.splice(axis..=axis, inner);
    one(t.reshape(&shape)?)
}

pub(super) fn permute(c: &Call) -> Results {
    let t = c.first()?;
    let name = ["dims", "permutation"].into_iter().find(|n| c.given(n)).unwrap_or("dims");
    one(t.permute(&c.axes(name, t.rank())?)?)
}

pub(super) fn transpose(c: &Call) -> Results {
    let t = c.first()?;
    let axes = c.schema.args.iter().skip(1).map(|a| c.axis(&a.name, t.rank())).collect::<Result<Vec<_>, _>>()?;
    let [a, b] = axes.as_slice() else { return Err(bad("two dimensions")) };
    one(t.transpose(*a, *b)?)
}

pub(super) fn t(c: &Call) -> Results {
    let t = c.first()?;
    one(if t.rank() == 2 { t.transpose(0, 1)? } else { t })
}

pub(super) fn all_reversed(c: &Call) -> Results {
    let t = c.first()?;
    one(t.permute(&(0..t.rank()).rev().collect::<Vec<_>>())?)
}

pub(super) fn matrix_transpose(c: &Call) -> Results {
    let t = c.first()?;
    let Some(first) = t.rank().checked_sub(2) else { return Err(bad("of a tensor that is no matrix")) };
    one(t.transpose(first, first + 1)?)
}

pub(super) fn movedim(c: &Call) -> Results {
    let t = c.first()?;
    let (from, to) = (c.axes("source", t.rank())?, c.axes("destination", t.rank())?);
    let mut rest = (0..t.rank()).filter(|a| !from.contains(a));
    let pick = |at: usize| to.iter().position(|&d| d == at).and_then(|i| from.get(i).copied());
    let order: Vec<usize> = (0..t.rank()).filter_map(|at| pick(at).or_else(|| rest.next())).collect();
    one(t.permute(&order)?)
}

pub(super) fn unsqueeze(c: &Call) -> Results {
    let t = c.first()?;
    one(t.unsqueeze(c.axis("dim", t.rank() + 1)?)?)
}

pub(super) fn squeeze(c: &Call) -> Results {
    let t = c.first()?;
    let mut axes = if c.given("dim") { c.axes("dim", t.rank())? } else { (0..t.rank()).collect() };
    axes.sort_unstable();
    one(axes.into_iter().rev().try_fold(t, |t, axis| t.squeeze(axis))?)
}

/// Sizes for `expand`, -1 keeping those that are there.
pub(super) fn expand(c: &Call) -> Results {
    let t = c.first()?;
    let asked = c.ints("size")?;
    let skip = asked.len().saturating_sub(t.rank());
    let keep = |(i, &n): (usize, &i64)| if n == -1 && i >= skip { t.size(i - skip) as i64 } else { n };
    one(t.expand(&sizes(&asked.iter().enumerate().map(keep).collect::<Vec<_>>())?)?)
}

pub(super) fn expand_as(c: &Call) -> Results {
    one(c.first()?.expand(c.tensor("other")?.shape())?)
}

pub(super) fn broadcast_tensors(c: &Call) -> Results {
    let all = c.tensors("tensors")?;
    let shape = broadcast(&all.iter().map(Tensor::shape).collect::<Vec<_>>())?;
    many(all.iter().map(|t| t.expand(&shape)).collect::<Result<Vec<_>, _>>()?)
}

/// A position clamped to `0..=n` after negative ones were counted from the end.
pub(super) fn clamped(at: i64, n: usize) -> usize {
    let n = n as i64;
    (if at < 0 { at.saturating_add(n) } else { at }).clamp(0, n) as usize
}

/// Start, length and step of a slice.
pub(super) fn range(c: &Call, n: usize) -> Result<(usize, usize, usize), Error> {
    let step = usize::try_from(c.int_or("step", 1)?).ok().filter(|&s| s > 0).ok_or_else(|| bad("the step must be positive"))?;
    let (start, end) = (clamped(c.int_or("start", 0)?, n), clamped(c.int_or("end", i64::MAX)?, n));
    Ok((start, end.saturating_sub(start).div_ceil(step), step))
}

pub(super) fn slice(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let (start, length, step) = range(c, t.size(axis))?;
    one(t.slice(axis, start, length, step)?)
}

pub(super) fn narrow(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let start = c.int("start")?;
    let start = if start < 0 { start.saturating_add(t.size(axis) as i64) } else { start };
    let start = usize::try_from(start).map_err(|_| bad("the start lies before the dimension"))?;
    one(t.slice(axis, start, c.size("length")?, 1)?)
}

/// A position that must exist; negative ones count from the end.
pub(super) fn position(at: i64, n: usize) -> Result<usize, Error> {
    let wrapped = if at < 0 { at.saturating_add(n as i64) } else { at };
    usize::try_from(wrapped).ok().filter(|&i| i < n).ok_or_else(|| bad(format!("index {at} of a dimension of size {n}")))
}

pub(super) fn select(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    one(t.select(axis, position(c.int("index")?, t.size(axis))?)?)
}

/// What a view of a piece counts as, in elements.
const HANDLE: usize = 16;

/// Pieces of these lengths, which must make up the dimension.
fn pieces(t: &Tensor, axis: usize, lengths: &[usize]) -> Results {
    if lengths.iter().fold(0usize, |n, l| n.saturating_add(*l)) != t.size(axis) {
        return Err(bad(format!("pieces {lengths:?} of a dimension of size {}", t.size(axis))));
    }
    budget::spend(lengths.len().saturating_mul(HANDLE))?;
    let mut start = 0;
    let mut all = Vec::new();
    for &n in lengths {
        all.push(t.slice(axis, start, n, 1)?);
        start += n;
    }
    many(all)
}

/// Lengths of pieces of `size`, the last one smaller.
fn even(n: usize, size: usize) -> Vec<usize> {
    if n == 0 {
        return vec![0];
    }
    (0..n.div_ceil(size.max(1))).map(|i| size.min(n - i * size)).collect()
}

pub(super) fn split(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let size = c.size("split_size")?;
    if size == 0 && t.size(axis) > 0 {
        return Err(bad("pieces of size 0"));
    }
    pieces(&t, axis, &even(t.size(axis), size))
}

pub(super) fn split_sizes(c: &Call) -> Results {
    let t = c.first()?;
    let name = ["split_sizes", "split_size"].into_iter().find(|n| c.given(n)).unwrap_or("split_sizes");
    pieces(&t, c.axis("dim", t.rank())?, &c.sizes(name)?)
}

pub(super) fn chunk(c: &Call) -> Results {
    let t = c.first()?;
    let (axis, n) = (c.axis("dim", t.rank())?, c.size("chunks")?);
    if n == 0 || n > (1 << 20) {
        return Err(bad(format!("{n} chunks")));
    }
    if t.size(axis) == 0 {
        return pieces(&t, axis, &vec![0; n]);
    }
    pieces(&t, axis, &even(t.size(axis), t.size(axis).div_ceil(n)))
}

pub(super) fn tensor_split(c: &Call) -> Results {
    let t = c.first()?;
    let (axis, n) = (c.axis("dim", t.rank())?, c.size("sections")?);
    if n == 0 || n > (1 << 20) {
        return Err(bad(format!("{n} sections")));
    }
    let (each, more) = (t.size(axis) / n, t.size(axis) % n);
    pieces(&t, axis, &(0..n).map(|i| each + usize::from(i < more)).collect::<Vec<_>>())
}

pub(super) fn tensor_split_at(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let n = t.size(axis);
    let mut bounds: Vec<usize> = c.ints("indices")?.into_iter().map(|i| clamped(i, n)).collect();
    bounds.push(n);
    let mut start = 0;
    let mut all = Vec::new();
    for end in bounds {
        all.push(t.slice(axis, start.min(end), end.saturating_sub(start), 1)?);
        start = end;
    }
    many(all)
}

pub(super) fn unbind(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    budget::spend(t.size(axis).saturating_mul(HANDLE))?;
    many((0..t.size(axis)).map(|i| t.select(axis, i)).collect::<Result<Vec<_>, _>>()?)
}

/// The first elements in memory; what would have to be added is zero here.
pub(super) fn resize(c: &Call) -> Results {
    let (t, shape) = (c.first()?, c.sizes("size")?);
    let n = super::tensor::count(&shape)?;
    let t = t.copy()?;
    let kept = t.reshape(&[t.numel()])?.slice(0, 0, t.numel().min(n), 1)?;
    one(super::resample::padded(&kept, 0, 0, n.saturating_sub(t.numel()) as i64, &super::resample::Fill::Value(0.0))?.reshape(&shape)?)
}

pub(super) fn as_strided(c: &Call) -> Results {
    let t = c.first()?;
    let offset = c.maybe_int("storage_offset")?.map_or(Ok(t.offset()), |n| usize::try_from(n).map_err(|_| bad("a negative offset")))?;
    one(t.view(c.sizes("size")?, c.sizes("stride")?, offset)?)
}

/// Windows of a dimension, as a view with a new last dimension.
pub(super) fn windows(t: &Tensor, axis: usize, size: usize, step: usize) -> Result<Tensor, Error> {
    if size > t.size(axis) || step == 0 {
        return Err(bad(format!("windows of {size}, {step} apart, of a dimension of size {}", t.size(axis))));
    }
    let (mut shape, mut strides) = (t.shape().to_vec(), t.strides().to_vec());
    let stride = strides.get(axis).copied().unwrap_or(1);
    if let (Some(n), Some(s)) = (shape.get_mut(axis), strides.get_mut(axis)) {
        (*n, *s) = ((*n - size) / step + 1, stride.saturating_mul(step));
    }
    shape.push(size);
    strides.push(stride);
    t.view(shape, strides, t.offset())
}

pub(super) fn unfold(c: &Call) -> Results {
    let t = c.first()?;
    one(windows(&t, c.axis("dimension", t.rank())?, c.size("size")?, c.size("step")?)?)
}

/// A diagonal as a view whose last dimension it is.
pub(super) fn diagonal_of(t: &Tensor, offset: i64, a: usize, b: usize) -> Result<Tensor, Error> {
    if a == b || a.max(b) >= t.rank() {
        return Err(bad(format!("a diagonal of dimensions {a} and {b} of a tensor of rank {}", t.rank())));
    }
    let (rows, columns) = (t.size(a) as i64, t.size(b) as i64);
    let n = if offset >= 0 { rows.min(columns.saturating_sub(offset)) } else { rows.saturating_add(offset).min(columns) }.max(0) as usize;
    let stride = |axis: usize| t.strides().get(axis).copied().unwrap_or(0);
    let skip = if n == 0 { 0 } else { (offset.unsigned_abs() as usize).saturating_mul(stride(if offset >= 0 { b } else { a })) };
    let keep = |of: &[usize]| of.iter().enumerate().filter(|(i, _)| *i != a && *i != b).map(|(_, n)| *n).collect::<Vec<_>>();
    let (mut shape, mut strides) = (keep(t.shape()), keep(t.strides()));
    shape.push(n);
    strides.push(stride(a) + stride(b));
    t.view(shape, strides, t.offset().saturating_add(skip))
}

pub(super) fn diagonal(c: &Call) -> Results {
    let t = c.first()?;
    one(diagonal_of(&t, c.int("offset")?, c.axis("dim1", t.rank())?, c.axis("dim2", t.rank())?)?)
}

/// A tensor of zeros with the values on a diagonal of two new dimensions.
fn embedded(t: &Tensor, offset: i64, dim1: i64, dim2: i64) -> Result<Tensor, Error> {
    let (a, b) = (wrap(dim1, t.rank() + 1)?, wrap(dim2, t.rank() + 1)?);
    let (Some(n), Ok(skip)) = (t.shape().last(), usize::try_from(offset.unsigned_abs())) else { return Err(bad("of a scalar")) };
    let mut shape = t.shape().to_vec();
    shape.pop();
    for axis in [a.min(b), a.max(b)] {
        shape.insert(axis.min(shape.len()), n.saturating_add(skip));
    }
    let out = Tensor::full(t.dtype(), &shape, 0i64)?;
    diagonal_of(&out, offset, a, b)?.write(t)?;
    Ok(out)
}

pub(super) fn diag_embed(c: &Call) -> Results {
    one(embedded(&c.first()?, c.int("offset")?, c.int("dim1")?, c.int("dim2")?)?)
}

pub(super) fn diag(c: &Call) -> Results {
    let t = c.first()?;
    let offset = c.int("diagonal")?;
    one(if t.rank() == 1 { embedded(&t, offset, 0, 1)? } else { diagonal_of(&t, offset, 0, 1)?.copy()? })
}

/// The tensor so many times along each dimension.
fn repeated(t: &Tensor, times: &[usize]) -> Result<Tensor, Error> {
    let rank = times.len().max(t.rank());
    let pad = |of: &[usize]| [vec![1; rank - of.len()], of.to_vec()].concat();
    let (shape, times) = (pad(t.shape()), pad(times));
    let interleave = |a: &[usize], b: &[usize]| a.iter().zip(b).flat_map(|(a, b)| [*a, *b]).collect::<Vec<_>>();
    let wide = t.reshape(&interleave(&vec![1; rank], &shape))?.expand(&interleave(&times, &shape))?;
    wide.reshape(&times.iter().zip(&shape).map(|(a, b)| a.saturating_mul(*b)).collect::<Vec<_>>())?.copy()
}

pub(super) fn repeat(c: &Call) -> Results {
    let times = c.sizes("repeats")?;
    let t = c.first()?;
    if times.len() < t.rank() {
        return Err(bad("fewer repeats than dimensions"));
    }
    one(repeated(&t, &times)?)
}

pub(super) fn tile(c: &Call) -> Results {
    one(repeated(&c.first()?, &c.sizes("dims")?)?)
}

/// Every position so many times; flattened where no dimension is named.
pub(super) fn repeat_interleave(c: &Call) -> Results {
    let t = c.first()?;
    let (t, axis) = if c.given("dim") { (t.clone(), c.axis("dim", t.rank())?) } else { (t.reshape(&[t.numel()])?, 0) };
    let repeats = c.tensor("repeats")?;
    let times = if repeats.numel() == 1 { repeats.reshape(&[])?.expand(&[t.size(axis)])? } else { repeats };
    one(super::indexing::take(&t, axis, &interleaved(&times)?)?)
}

/// `repeat_interleave` of positions themselves.
pub(super) fn repeat_positions(c: &Call) -> Results {
    let times = c.tensor("repeats")?;
    one(interleaved(&times)?.cast(times.dtype())?)
}

fn interleaved(times: &Tensor) -> Result<Tensor, Error> {
    let mut at = Vec::new();
    for (i, n) in times.to::<i64>().into_iter().enumerate() {
        let n = usize::try_from(n).map_err(|_| bad("a negative number of repeats"))?;
        count(&[n.saturating_add(at.len())])?;
        at.extend(std::iter::repeat_n(i as i64, n));
    }
    Tensor::of(DType::Int64, &[at.len()], at)
}

/// Positions `f(i, n)` of a dimension of size `n`.
fn rearranged(t: &Tensor, axis: usize, f: impl Fn(i64, i64) -> i64) -> Result<Tensor, Error> {
    let n = t.size(axis);
    super::indexing::take(t, axis, &Tensor::of(DType::Int64, &[n], (0..n as i64).map(|i| f(i, n as i64)))?)
}

/// The dimensions in reverse order of positions.
pub(super) fn flipped(t: &Tensor, axes: &[usize]) -> Result<Tensor, Error> {
    axes.iter().filter(|_| t.rank() > 0).try_fold(t.copy()?, |t, &axis| rearranged(&t, axis, |i, n| n - 1 - i))
}

pub(super) fn flip(c: &Call) -> Results {
    let t = c.first()?;
    one(flipped(&t, &c.axes("dims", t.rank())?)?)
}

pub(super) fn flip_axis(c: &Call, axis: usize) -> Results {
    one(flipped(&c.first()?, &[axis])?)
}

pub(super) fn roll(c: &Call) -> Results {
    let t = c.first()?;
    let (shifts, axes) = (c.ints("shifts")?, c.ints("dims")?);
    if axes.is_empty() {
        let [shift] = shifts.as_slice() else { return Err(bad("one shift for a flat roll")) };
        return one(rearranged(&t.reshape(&[t.numel()])?, 0, |i, n| i.wrapping_sub(*shift).rem_euclid(n))?.reshape(t.shape())?);
    }
    let mut out = t.copy()?;
    for (shift, axis) in shifts.iter().zip(axes) {
        out = rearranged(&out, wrap(axis, t.rank())?, |i, n| i.wrapping_sub(*shift).rem_euclid(n))?;
    }
    one(out)
}

pub(super) fn rot90(c: &Call) -> Results {
    let t = c.first()?;
    let axes = c.axes("dims", t.rank())?;
    let [a, b] = axes.as_slice() else { return Err(bad("two dimensions")) };
    one(match c.int("k")?.rem_euclid(4) {
        1 => flipped(&t, &[*b])?.transpose(*a, *b)?.copy()?,
        2 => flipped(&t, &[*a, *b])?,
        3 => flipped(&t, &[*a])?.transpose(*a, *b)?.copy()?,
        _ => t.copy()?,
    })
}

/// Complex numbers as pairs in a new last dimension.
pub(super) fn as_real(t: &Tensor) -> Result<Tensor, Error> {
    if !t.dtype().is_complex() {
        return Err(bad("of real numbers"));
    }
    let shape = [t.shape(), &[2]].concat();
    let strides = t.strides().iter().map(|s| s * 2).chain([1]).collect();
    t.view_as(to_real(t.dtype()), shape, strides, t.offset() * 2)
}

pub(super) fn view_as_real(c: &Call) -> Results {
    one(as_real(&c.first()?)?)
}

pub(super) fn view_as_complex(c: &Call) -> Results {
    let t = c.first()?;
    let (Some((2, shape)), Some((1, strides))) = (t.shape().split_last(), t.strides().split_last()) else {
        return Err(bad("the last dimension does not hold pairs"));
    };
    one(t.view_as(to_complex(t.dtype()), shape.to_vec(), strides.iter().map(|s| s / 2).collect(), t.offset() / 2)?)
}

/// Keeps elements by the number of their column less that of their row.
pub(super) fn triangle(c: &Call, upper: bool) -> Results {
    let t = c.first()?;
    let k = c.int("diagonal")?;
    let [.., _, columns] = t.shape() else { return Err(bad("of a tensor that is no matrix")) };
    let rows = t.size(t.nth_last(2)?);
    let (size, columns) = (t.dtype().size(), *columns);
    let mut bytes = t.bytes();
    for (i, element) in bytes.chunks_exact_mut(size).enumerate() {
        let d = (i % columns.max(1)) as i64 - (i / columns.max(1) % rows.max(1)) as i64;
        if if upper { d < k } else { d > k } {
            element.fill(0);
        }
    }
    one(Tensor::new(t.dtype(), t.shape(), bytes)?)
}

pub(super) fn diagflat(c: &Call) -> Results {
    let t = c.first()?;
    one(embedded(&t.reshape(&[t.numel()])?, c.int("offset")?, 0, 1)?)
}

/// One value written over the diagonal.
pub(super) fn fill_diagonal(c: &Call) -> Results {
    let t = c.first()?;
    if c.flag("wrap") && t.rank() == 2 && t.size(0) > t.size(1) {
        return Err(Error::new(crate::error::ErrorKind::Unsupported, "a diagonal that wraps"));
    }
    diagonal_of(&t, 0, 0, 1)?.write(&c.number("fill_value")?.tensor(t.dtype())?)?;
    one(t)
}

/// Matrices along a diagonal.
pub(super) fn block_diag(c: &Call) -> Results {
    let list = c.tensors("tensors")?;
    let matrices = list.iter().map(|t| match t.rank() {
        2 => Ok(t.clone()),
        _ => t.reshape(&[1, t.numel()]),
    });
    let matrices = matrices.collect::<Result<Vec<_>, Error>>()?;
    let total = |axis: usize| matrices.iter().map(|m| m.size(axis)).sum::<usize>();
    let d = matrices.first().map_or(DType::Float32, Tensor::dtype);
    let out = Tensor::full(d, &[total(0), total(1)], 0i64)?;
    let (mut row, mut column) = (0, 0);
    for m in &matrices {
        out.slice(0, row, m.size(0), 1)?.slice(1, column, m.size(1), 1)?.write(m)?;
        (row, column) = (row + m.size(0), column + m.size(1));
    }
    one(out.copy()?)
}

/// All as long as the longest, stacked.
pub(super) fn pad_sequence(c: &Call) -> Results {
    let list = c.tensors("sequences")?;
    let longest = list.iter().map(|t| t.size(0)).max().unwrap_or(0);
    let left = c.text("padding_side") == Some("left");
    let mut parts = Vec::new();
    for t in &list {
        let shape = [&[longest], t.shape().get(1..).unwrap_or(&[])].concat();
        let out = Tensor::full(t.dtype(), &shape, c.float("padding_value")?)?;
        out.slice(0, if left { longest - t.size(0) } else { 0 }, t.size(0), 1)?.write(t)?;
        parts.push(out);
    }
    one(super::joins::stack_of(&parts, usize::from(!c.flag("batch_first")))?)
}
