//! The same elements in another shape: views, pieces, repetitions, rearrangements.
//!
//! Strides are not inferred: whether a result shares memory is a matter of the operator, not of the type.

use super::cx::{Cx, Inferred, one, tensor};
use super::dims::{self, quotient};
use crate::DType;
use crate::error::Error;
use crate::graph::{Arg, TensorType, Type};
use crate::sym::Expr;

/// Fills in the size that is given as -1 and checks that the number of elements stays.
fn reshaped(c: &Cx, of: &[Expr], mut sizes: Vec<Expr>) -> Result<Vec<Expr>, Error> {
    let minus_one = Expr::Int(-1);
    let mut open = sizes.iter().enumerate().filter(|(_, n)| **n == minus_one).map(|(i, _)| i);
    let (first, second) = (open.next(), open.next());
    if second.is_some() {
        return Err(c.fail("more than one size is -1"));
    }
    if let Some(n) = sizes.iter().find(|n| **n != minus_one && c.ranges.at_most(n, &minus_one) == Some(true)) {
        return Err(c.fail(format!("negative size {n}")));
    }
    if let Some(at) = first {
        sizes.remove(at);
        let n = quotient(c, of, &sizes)?;
        sizes.insert(at, n);
    }
    let (before, after) = (Expr::product(of), Expr::product(&sizes));
    if c.ranges.equal(&before, &after) == Some(false) {
        return Err(c.fail(format!("{before} elements do not make {sizes:?}")));
    }
    Ok(sizes)
}

/// `view`, `reshape` and their kin.
pub(super) fn view(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    one(t.dtype, reshaped(c, &t.shape, c.sizes(1)?)?)
}

/// The shape of another tensor.
pub(super) fn view_as(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    one(t.dtype, reshaped(c, &t.shape, c.tensor(1)?.shape.clone())?)
}

/// The same bytes as another element type.
pub(super) fn view_dtype(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let to = c.dtype("dtype").ok_or_else(|| c.fail("no `dtype`"))?;
    let (from_size, to_size) = (t.dtype.size() as i64, to.size() as i64);
    let mut shape = t.shape.clone();
    if from_size != to_size {
        let n = shape.last_mut().ok_or_else(|| c.fail(format!("a scalar of {} as {to}", t.dtype)))?;
        let bytes = n.times(&from_size.into());
        if bytes.modulo(&to_size.into()).as_int().is_some_and(|r| r != 0) {
            return Err(c.fail(format!("{bytes} bytes a row are not whole elements of {to}")));
        }
        *n = bytes.floor_div(&to_size.into());
    }
    one(to, shape)
}

/// `flatten(start, end)`.
pub(super) fn flatten(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (start, end) = (c.axis("start_dim", t.rank())?, c.axis("end_dim", t.rank())?);
    if t.rank() == 0 {
        return one(t.dtype, vec![Expr::Int(1)]);
    }
    let (head, middle, tail) = match (t.shape.get(..start), t.shape.get(start..=end), t.shape.get(end + 1..)) {
        (Some(h), Some(m), Some(t)) if start <= end => (h, m, t),
        _ => return Err(c.fail(format!("dimension {start} is after {end}"))),
    };
    one(t.dtype, [head, &[Expr::product(middle)], tail].concat())
}

/// All elements in a row.
pub(super) fn ravel(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    one(t.dtype, vec![t.numel()])
}

/// One dimension becomes several.
pub(super) fn unflatten(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let n = size_at(c, t, axis)?;
    let parts = reshaped(c, &[n], c.sizes("sizes")?)?;
    let mut shape = t.shape.clone();
    shape.splice(axis..=axis, parts);
    one(t.dtype, shape)
}

fn size_at(c: &Cx, t: &TensorType, axis: usize) -> Result<Expr, Error> {
    t.shape.get(axis).cloned().ok_or_else(|| c.fail(format!("dimension {axis} of a scalar")))
}

/// The dimensions of `t` in this order.
fn reordered(c: &Cx, t: &TensorType, order: &[usize]) -> Inferred {
    if order.len() != t.rank() {
        return Err(c.fail(format!("{} dimensions for a tensor of rank {}", order.len(), t.rank())));
    }
    one(t.dtype, order.iter().map(|&i| size_at(c, t, i)).collect::<Result<_, _>>()?)
}

/// `permute`.
pub(super) fn permute(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    reordered(c, t, &c.axes(1, t.rank())?)
}

/// Two dimensions exchanged; on a scalar, nothing happens.
pub(super) fn transpose(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (a, b) = (c.axis(1, t.rank())?, c.axis(2, t.rank())?);
    let mut shape = t.shape.clone();
    if t.rank() > 0 {
        shape.swap(a, b);
    }
    one(t.dtype, shape)
}

/// The transpose of a matrix; vectors and scalars stay.
pub(super) fn t(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    c.rank(t, &[0, 1, 2], "tensor")?;
    all_reversed(c)
}

/// All dimensions in reverse.
pub(super) fn all_reversed(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    one(t.dtype, t.shape.iter().rev().cloned().collect())
}

/// The last two dimensions exchanged.
pub(super) fn matrix_transpose(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let mut shape = t.shape.clone();
    let [.., a, b] = shape.as_mut_slice() else { return Err(c.fail("need 2 or more dimensions")) };
    std::mem::swap(a, b);
    one(t.dtype, shape)
}

/// `movedim(source, destination)`: the others keep their order.
pub(super) fn movedim(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (from, to) = (c.axes(1, t.rank())?, c.axes(2, t.rank())?);
    if from.len() != to.len() {
        return Err(c.fail("as many destinations as sources are needed"));
    }
    let mut others = (0..t.rank()).filter(|i| !from.contains(i));
    let order: Vec<usize> = (0..t.rank())
        .filter_map(|i| match to.iter().position(|&d| d == i) {
            Some(k) => from.get(k).copied(),
            None => others.next(),
        })
        .collect();
    reordered(c, t, &order)
}

/// A dimension of size 1 is inserted.
pub(super) fn unsqueeze(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank() + 1)?;
    let mut shape = t.shape.clone();
    shape.insert(axis, Expr::Int(1));
    one(t.dtype, shape)
}

/// Dimensions of size 1 go: all, or those named. A symbolic size is taken not to be 1, as torch takes it.
pub(super) fn squeeze(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let named = if c.schema.position("dim").is_some() { Some(c.axes("dim", t.rank())?) } else { None };
    let stays = |i: usize, n: &Expr| *n != Expr::Int(1) || named.as_ref().is_some_and(|axes| !axes.contains(&i));
    one(t.dtype, t.shape.iter().enumerate().filter(|(i, n)| stays(*i, n)).map(|(_, n)| n.clone()).collect())
}

/// `expand`, to sizes of which -1 keeps what is there.
pub(super) fn expand(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    expanded(c, t, c.sizes(1)?)
}

/// The shape of another tensor.
pub(super) fn expand_as(c: &Cx) -> Inferred {
    expanded(c, c.tensor(0)?, c.tensor(1)?.shape.clone())
}

fn expanded(c: &Cx, t: &TensorType, mut sizes: Vec<Expr>) -> Inferred {
    let Some(added) = sizes.len().checked_sub(t.rank()) else {
        return Err(c.fail(format!("{} sizes for a tensor of rank {}", sizes.len(), t.rank())));
    };
    for (i, size) in sizes.iter_mut().enumerate() {
        let have = i.checked_sub(added).and_then(|i| t.shape.get(i));
        match (&*size, have) {
            (Expr::Int(-1), Some(have)) => *size = have.clone(),
            (Expr::Int(..=-1), _) => return Err(c.fail(format!("size {size} of a new dimension"))),
            (_, None | Some(Expr::Int(1))) => {}
            (_, Some(have)) => {
                if c.ranges.equal(have, size) == Some(false) && c.ranges.equal(have, &Expr::Int(1)) == Some(false) {
                    return Err(c.fail(format!("size {have} does not expand to {size}")));
                }
            }
        }
    }
    one(t.dtype, sizes)
}

/// Tensors expanded to one shape.
pub(super) fn broadcast_tensors(c: &Cx) -> Inferred {
    let all = c.tensors(0)?;
    let shape = c.broadcast(all.iter().map(|t| t.shape.as_slice()))?;
    Ok(all.iter().map(|t| tensor(t.dtype, shape.clone())).collect())
}

/// `slice(dim, start, end, step)`.
pub(super) fn slice(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (axis, length) = sliced(c, t)?;
    let mut shape = t.shape.clone();
    shape.splice(axis..=axis, [length]);
    one(t.dtype, shape)
}

/// Dimension and size of what `dim`, `start`, `end` and `step` cut out of `t`.
pub(super) fn sliced(c: &Cx, t: &TensorType) -> Result<(usize, Expr), Error> {
    let axis = c.axis("dim", t.rank())?;
    let n = size_at(c, t, axis)?;
    let (start, end) = (c.maybe_size("start")?, c.maybe_size("end")?);
    let (_, length) = dims::slice(c, &n, start.as_ref(), end.as_ref(), &c.size("step")?)?;
    Ok((axis, length))
}

/// `narrow(dim, start, length)`.
pub(super) fn narrow(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let (n, length) = (size_at(c, t, axis)?, c.size("length")?);
    let mut end = length.clone();
    if let Some(start) = c.as_size(c.arg("start")).filter(|s| c.ranges.at_most(s, &Expr::Int(-1)) != Some(true)) {
        end = start.plus(&length);
    }
    if c.ranges.at_most(&end, &n) == Some(false) {
        return Err(c.fail(format!("elements up to {end} of {n}")));
    }
    let mut shape = t.shape.clone();
    shape.splice(axis..=axis, [length]);
    one(t.dtype, shape)
}

/// One position of a dimension.
pub(super) fn select(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let n = size_at(c, t, axis)?;
    let index = c.size("index")?;
    let behind = c.ranges.at_most(&n, &index) == Some(true);
    if behind || c.ranges.at_most(&index.plus(&n), &Expr::Int(-1)) == Some(true) {
        return Err(c.fail(format!("position {index} of {n}")));
    }
    let mut shape = t.shape.clone();
    shape.remove(axis);
    one(t.dtype, shape)
}

/// Pieces of these sizes along the dimension.
fn pieces(c: &Cx, t: &TensorType, axis: usize, sizes: impl IntoIterator<Item = Expr>) -> Inferred {
    size_at(c, t, axis)?;
    let piece = |n: Expr| {
        let mut shape = t.shape.clone();
        shape.splice(axis..=axis, [n]);
        tensor(t.dtype, shape)
    };
    Ok(sizes.into_iter().map(piece).collect())
}

/// More pieces than this are refused: a list of results costs memory that the program did not pay for.
const MAX_PIECES: i64 = 1 << 16;

/// `ceil(n / size)` pieces of `size`, the last one smaller; at least one.
fn equal_pieces(c: &Cx, t: &TensorType, axis: usize, n: i64, size: i64) -> Inferred {
    let count = if size == 0 { 1 } else { n / size + i64::from(n % size != 0) };
    if size < 0 || (size == 0 && n != 0) || count > MAX_PIECES {
        return Err(c.fail(format!("{n} in pieces of {size}")));
    }
    let last = n - size * (count.max(1) - 1);
    let sizes = std::iter::repeat_n(size, count.max(1) as usize - 1).chain([last]);
    pieces(c, t, axis, sizes.map(Expr::Int))
}

/// The size of the dimension to be divided, which decides the number of results and so must be known.
fn known_size(c: &Cx, t: &TensorType, axis: usize) -> Result<i64, Error> {
    let n = size_at(c, t, axis)?;
    n.as_int().ok_or_else(|| c.unsupported(format!("the number of pieces depends on the size {n}")))
}

/// `split(size, dim)`.
pub(super) fn split(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    equal_pieces(c, t, axis, known_size(c, t, axis)?, c.int("split_size")?)
}

/// `split_with_sizes(sizes, dim)`, whose sizes must add up.
pub(super) fn split_sizes(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let sizes = c.sizes(1)?;
    c.same(&Expr::sum(&sizes), &size_at(c, t, axis)?, "sum of the sizes")?;
    pieces(c, t, axis, sizes)
}

/// `chunk(count, dim)`: equal pieces, so there may be fewer than asked for.
pub(super) fn chunk(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let count = c.int("chunks")?;
    if !(1..=MAX_PIECES).contains(&count) {
        return Err(c.fail(format!("{count} chunks")));
    }
    let n = size_at(c, t, axis)?;
    match n.as_int() {
        // An empty dimension gives as many empty chunks as asked for.
        Some(0) => pieces(c, t, axis, std::iter::repeat_n(Expr::Int(0), count as usize)),
        Some(n) => equal_pieces(c, t, axis, n, n / count + i64::from(n % count != 0)),
        None => {
            let size = n.plus(&(count - 1).into()).floor_div(&count.into());
            if size.times(&count.into()) != n {
                return Err(c.unsupported(format!("the number of chunks depends on the size {n}")));
            }
            pieces(c, t, axis, std::iter::repeat_n(size, count as usize))
        }
    }
}

/// `tensor_split(sections, dim)`: pieces that differ by at most one, the larger ones first.
pub(super) fn tensor_split(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let (n, count) = (known_size(c, t, axis)?, c.int("sections")?);
    if !(1..=MAX_PIECES).contains(&count) {
        return Err(c.fail(format!("{count} sections")));
    }
    pieces(c, t, axis, (0..count).map(|i| Expr::Int(n / count + i64::from(i < n % count))))
}

/// `tensor_split(indices, dim)`: cut at these positions.
pub(super) fn tensor_split_at(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let n = size_at(c, t, axis)?;
    let mut from = Expr::Int(0);
    let mut sizes = Vec::new();
    for at in c.sizes("indices")?.into_iter().map(Some).chain([None]) {
        let (_, length) = dims::slice(c, &n, Some(&from), at.as_ref(), &Expr::Int(1))?;
        sizes.push(length);
        from = at.unwrap_or_else(|| n.clone());
    }
    pieces(c, t, axis, sizes)
}

/// All positions of a dimension, one result each.
pub(super) fn unbind(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let n = known_size(c, t, axis)?;
    if n > MAX_PIECES {
        return Err(c.fail(format!("{n} results")));
    }
    let mut shape = t.shape.clone();
    shape.remove(axis);
    Ok((0..n).map(|_| tensor(t.dtype, shape.clone())).collect())
}

/// Any sizes over the same storage.
pub(super) fn as_strided(c: &Cx) -> Inferred {
    one(c.tensor(0)?.dtype, c.sizes("size")?)
}

/// Windows along a dimension, their elements as last dimension.
pub(super) fn unfold(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dimension", t.rank())?;
    let (size, step) = (c.size("size")?, c.size("step")?);
    let mut shape = t.shape.clone();
    match shape.get_mut(axis) {
        Some(n) => *n = dims::windows(c, n, &Expr::Int(0), &size, &step, &Expr::Int(1))?,
        None if c.ranges.at_most(&size, &Expr::Int(1)) == Some(false) => return Err(c.fail(format!("windows of {size} over a scalar"))),
        None => {}
    }
    shape.push(size);
    one(t.dtype, shape)
}

/// A diagonal of two dimensions, as last dimension.
pub(super) fn diagonal(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (a, b) = (c.axis("dim1", t.rank())?, c.axis("dim2", t.rank())?);
    if a == b {
        return Err(c.fail(format!("the diagonal of dimension {a} with itself")));
    }
    let offset = c.int("offset")?;
    let (mut rows, mut columns) = (size_at(c, t, a)?, size_at(c, t, b)?);
    let skip = Expr::Int(offset.checked_abs().ok_or_else(|| c.fail("offset out of range"))?);
    if offset < 0 {
        rows = rows.minus(&skip)
    } else {
        columns = columns.minus(&skip)
    }
    let length = dims::at_least(c.ranges, &dims::smaller(c.ranges, &rows, &columns), 0);
    let others = t.shape.iter().enumerate().filter(|(i, _)| *i != a && *i != b).map(|(_, n)| n.clone());
    one(t.dtype, others.chain([length]).collect())
}

/// `diag`: a vector becomes a matrix, a matrix its diagonal.
pub(super) fn diag(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let offset = c.int("diagonal")?;
    let skip = Expr::Int(offset.checked_abs().ok_or_else(|| c.fail("offset out of range"))?);
    match t.shape.as_slice() {
        [n] => one(t.dtype, vec![n.plus(&skip); 2]),
        [rows, columns] => {
            let (rows, columns) = if offset < 0 { (rows.minus(&skip), columns.clone()) } else { (rows.clone(), columns.minus(&skip)) };
            one(t.dtype, vec![dims::at_least(c.ranges, &dims::smaller(c.ranges, &rows, &columns), 0)])
        }
        _ => Err(c.fail("need a vector or a matrix")),
    }
}

/// A last dimension becomes the diagonal of two new ones.
pub(super) fn diag_embed(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (a, b) = (c.axis("dim1", t.rank() + 1)?, c.axis("dim2", t.rank() + 1)?);
    let Some((n, rest)) = t.shape.split_last().filter(|_| a != b) else { return Err(c.fail("need two different dimensions")) };
    let skip = c.int("offset")?.checked_abs().ok_or_else(|| c.fail("offset out of range"))?;
    let mut shape = rest.to_vec();
    for axis in [a.min(b), a.max(b)] {
        shape.insert(axis, n.plus(&skip.into()));
    }
    one(t.dtype, shape)
}

/// Sizes multiplied, aligned at the end, new dimensions in front.
fn repeated(c: &Cx, t: &TensorType, times: &[Expr]) -> Inferred {
    if let Some(n) = times.iter().find(|n| c.ranges.at_most(n, &Expr::Int(-1)) == Some(true)) {
        return Err(c.fail(format!("repeated {n} times")));
    }
    let rank = t.rank().max(times.len());
    let one_more = Expr::Int(1);
    let at = |of: &[Expr], i: usize| i.checked_sub(rank - of.len()).and_then(|i| of.get(i)).unwrap_or(&one_more).clone();
    one(t.dtype, (0..rank).map(|i| at(&t.shape, i).times(&at(times, i))).collect())
}

/// `repeat(times)`: one number for each dimension at least.
pub(super) fn repeat(c: &Cx) -> Inferred {
    let (t, times) = (c.tensor(0)?, c.sizes(1)?);
    if times.len() < t.rank() {
        return Err(c.fail(format!("{} numbers for a tensor of rank {}", times.len(), t.rank())));
    }
    repeated(c, t, &times)
}

/// `tile(times)`: missing numbers in front are 1.
pub(super) fn tile(c: &Cx) -> Inferred {
    repeated(c, c.tensor(0)?, &c.sizes(1)?)
}

/// Each element several times, along a dimension or flattened.
pub(super) fn repeat_interleave(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (axis, mut shape) = match c.given("dim") {
        true => (c.axis("dim", t.rank())?, t.shape.clone()),
        false => (0, vec![t.numel()]),
    };
    let n = shape.get_mut(axis).ok_or_else(|| c.fail("dimension of a scalar"))?;
    *n = match (c.maybe_size("output_size")?, c.maybe_tensor("repeats")) {
        (Some(n), _) => n,
        (None, Ok(Some(_))) => c.fresh(0),
        _ => n.times(&c.size("repeats")?),
    };
    one(t.dtype, shape)
}

/// Which element each repetition is of.
pub(super) fn repeat_places(c: &Cx) -> Inferred {
    let n = c.maybe_size("output_size")?.unwrap_or_else(|| c.fresh(0));
    one(c.tensor(0)?.dtype, vec![n])
}

/// The shape stays, elements move along dimensions.
pub(super) fn moved(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    c.axes("dims", t.rank())?;
    one(t.dtype, t.shape.clone())
}

/// `roll(shifts, dims)`, of the flattened tensor when no dimensions are given.
pub(super) fn roll(c: &Cx) -> Inferred {
    let (shifts, dims) = (c.sizes("shifts")?.len(), c.ints("dims")?.len());
    if shifts != dims && !(dims == 0 && shifts == 1) {
        return Err(c.fail(format!("{shifts} shifts for {dims} dimensions")));
    }
    // A dimension may be named twice: it is rolled twice.
    let t = c.tensor(0)?;
    for axis in c.ints("dims")? {
        c.wrap(axis, t.rank())?;
    }
    one(t.dtype, t.shape.clone())
}

/// A quarter turn of two dimensions, `k` times.
pub(super) fn rot90(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let mut shape = t.shape.clone();
    let [a, b] = c.axes("dims", t.rank())?.try_into().map_err(|_| c.fail("need two dimensions"))?;
    if c.int("k")? % 2 != 0 && shape.len() > a.max(b) {
        shape.swap(a, b);
    }
    one(t.dtype, shape)
}

/// Complex numbers as pairs.
pub(super) fn as_real(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    if !t.dtype.is_complex() {
        return Err(c.fail("need complex numbers"));
    }
    one(super::promote::to_real(t.dtype), t.shape.iter().cloned().chain([Expr::Int(2)]).collect())
}

/// Pairs as complex numbers.
pub(super) fn as_complex(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    match t.shape.split_last() {
        Some((last, rest)) if matches!(t.dtype, DType::Float16 | DType::Float32 | DType::Float64) => {
            c.same(last, &Expr::Int(2), "sizes of the last dimension")?;
            one(super::promote::to_complex(t.dtype), rest.to_vec())
        }
        _ => Err(c.fail("need pairs of floats")),
    }
}

/// Tensors one after the other along a dimension.
pub(super) fn cat(c: &Cx) -> Inferred {
    let all = c.tensors(0)?;
    joined(c, &all, c.arg("dim").as_int().unwrap_or(0))
}

/// As torch joins: vectors without elements are left out whatever the rank of the others.
fn joined(c: &Cx, all: &[&TensorType], dim: i64) -> Inferred {
    let operands: Vec<_> = all.iter().map(|t| super::promote::Operand::Tensor(t)).collect();
    let dtype = c.promoted(&operands)?;
    let mut real = all.iter().filter(|t| t.shape != [Expr::Int(0)]);
    let Some(first) = real.next() else {
        return if all.is_empty() { Err(c.fail("no tensors")) } else { one(dtype, vec![Expr::Int(0)]) };
    };
    if first.rank() == 0 {
        return Err(c.fail("scalars cannot be joined"));
    }
    let axis = c.wrap(dim, first.rank())?;
    let mut shape = first.shape.clone();
    for t in real {
        if t.rank() != shape.len() {
            return Err(c.fail(format!("ranks {} and {} differ", shape.len(), t.rank())));
        }
        for (i, (have, n)) in shape.iter_mut().zip(&t.shape).enumerate() {
            *have = if i == axis { have.plus(n) } else { c.same(have, n, "sizes")? };
        }
    }
    one(dtype, shape)
}

/// Tensors of one shape along a new dimension.
pub(super) fn stack(c: &Cx) -> Inferred {
    let all = c.tensors(0)?;
    let Some(first) = all.first() else { return Err(c.fail("no tensors")) };
    let axis = c.axis("dim", first.rank() + 1)?;
    let wide: Vec<TensorType> = all
        .iter()
        .map(|t| {
            let mut shape = t.shape.clone();
            if shape.len() == first.rank() {
                shape.insert(axis, Expr::Int(1));
            }
            TensorType::new(t.dtype, shape)
        })
        .collect();
    joined(c, &wide.iter().collect::<Vec<_>>(), axis as i64)
}

/// `hstack`, `vstack`, `dstack`, `column_stack`: joined along a dimension after raising to a rank.
pub(super) fn stacked(c: &Cx, raise: fn(&[Expr]) -> Vec<Expr>, axis: fn(usize) -> i64) -> Inferred {
    let raised: Vec<TensorType> = c.tensors(0)?.iter().map(|t| TensorType::new(t.dtype, raise(&t.shape))).collect();
    let rank = raised.first().map_or(0, TensorType::rank);
    joined(c, &raised.iter().collect::<Vec<_>>(), axis(rank))
}

/// At least one dimension.
pub(super) fn at_least_1d(shape: &[Expr]) -> Vec<Expr> {
    if shape.is_empty() { vec![Expr::Int(1)] } else { shape.to_vec() }
}

/// At least two dimensions, new ones in front.
pub(super) fn at_least_2d(shape: &[Expr]) -> Vec<Expr> {
    let mut shape = at_least_1d(shape);
    if shape.len() == 1 {
        shape.insert(0, Expr::Int(1));
    }
    shape
}

/// At least three dimensions, as torch adds them.
pub(super) fn at_least_3d(shape: &[Expr]) -> Vec<Expr> {
    let mut shape = at_least_2d(shape);
    if shape.len() == 2 {
        shape.push(Expr::Int(1));
    }
    shape
}

/// Vectors as columns.
pub(super) fn columns(shape: &[Expr]) -> Vec<Expr> {
    if shape.len() > 1 { shape.to_vec() } else { vec![at_least_1d(shape).swap_remove(0), Expr::Int(1)] }
}

/// A rank raised.
pub(super) fn raise(c: &Cx, to: fn(&[Expr]) -> Vec<Expr>) -> Inferred {
    if let Arg::List(_) = c.arg(0) {
        return Ok(c.tensors(0)?.iter().map(|t| tensor(t.dtype, to(&t.shape))).collect());
    }
    let t = c.tensor(0)?;
    one(t.dtype, to(&t.shape))
}

/// Coordinate grids: one result for each vector.
pub(super) fn meshgrid(c: &Cx) -> Inferred {
    let all = c.tensors(0)?;
    let mut shape: Vec<Expr> = all.iter().map(|t| t.numel()).collect();
    if c.text("indexing") == Some("xy") && shape.len() > 1 {
        shape.swap(0, 1);
    }
    Ok(all.iter().map(|t| Type::Tensor(TensorType::new(t.dtype, shape.clone()))).collect())
}
