//! Elements picked by tensors of positions, and written at them.

use super::cx::{Cx, Inferred, one, tensor};
use super::pointwise::keep;
use super::views::sliced;
use crate::DType;
use crate::error::Error;
use crate::graph::{Arg, TensorType};
use crate::sym::Expr;

fn is_mask(t: &TensorType) -> bool {
    matches!(t.dtype, DType::Bool | DType::UInt8)
}

/// Fails unless these are positions.
fn positions(c: &Cx, t: &TensorType) -> Result<(), Error> {
    if matches!(t.dtype, DType::Int64 | DType::Int32) { Ok(()) } else { Err(c.fail(format!("positions of {}, need i64 or i32", t.dtype))) }
}

/// `table[indices]` for whole rows.
pub(super) fn embedding(c: &Cx) -> Inferred {
    let (table, indices) = (c.tensor("weight")?, c.tensor("indices")?);
    positions(c, indices)?;
    match table.shape.as_slice() {
        [_, row @ ..] if row.len() == 1 => one(table.dtype, [indices.shape.as_slice(), row].concat()),
        _ => Err(c.fail(format!("table of rank {}, need 2", table.rank()))),
    }
}

/// The gradient of the above.
pub(super) fn embedding_backward(c: &Cx) -> Inferred {
    let grad = c.tensor(0)?;
    one(grad.dtype, std::iter::once(c.size("num_weights")?).chain(grad.shape.last().cloned()).collect())
}

/// Picks along a dimension by a tensor of the result's shape.
pub(super) fn gather(c: &Cx) -> Inferred {
    let (t, index) = (c.tensor(0)?, c.tensor("index")?);
    let axis = c.axis("dim", t.rank())?;
    positions(c, index)?;
    same_rank(c, t, index)?;
    within(c, index, t, Some(axis))?;
    one(t.dtype, index.shape.clone())
}

/// Fails if an index is larger than the tensor in a dimension other than `but`.
fn within(c: &Cx, index: &TensorType, t: &TensorType, but: Option<usize>) -> Result<(), Error> {
    for (i, (n, m)) in t.shape.iter().zip(&index.shape).enumerate() {
        if Some(i) != but && c.ranges.at_most(m, n) == Some(false) {
            return Err(c.fail(format!("index of size {m} in dimension {i} of size {n}")));
        }
    }
    Ok(())
}

fn same_rank(c: &Cx, t: &TensorType, other: &TensorType) -> Result<(), Error> {
    // A scalar counts as a vector of one element.
    if t.rank().max(1) == other.rank().max(1) { Ok(()) } else { Err(c.fail(format!("ranks {} and {} differ", t.rank(), other.rank()))) }
}

/// `take_along_dim`: the other dimensions broadcast; without a dimension both are flattened.
pub(super) fn take_along(c: &Cx) -> Inferred {
    let (t, index) = (c.tensor(0)?, c.tensor("indices")?);
    if !c.given("dim") {
        return one(t.dtype, vec![index.numel()]);
    }
    let axis = c.axis("dim", t.rank())?;
    same_rank(c, t, index)?;
    let mut other = t.shape.clone();
    let Some((slot, n)) = other.get_mut(axis).zip(index.shape.get(axis)) else { return keep(c) };
    *slot = n.clone();
    one(t.dtype, c.broadcast([other.as_slice(), &index.shape])?)
}

/// The flattened tensor at these positions.
pub(super) fn take(c: &Cx) -> Inferred {
    one(c.tensor(0)?.dtype, c.tensor(1)?.shape.clone())
}

/// Whole slices along a dimension.
pub(super) fn index_select(c: &Cx) -> Inferred {
    let (t, index) = (c.tensor(0)?, c.tensor("index")?);
    positions(c, index)?;
    if index.rank() > 1 {
        return Err(c.fail(format!("index of rank {}, need 0 or 1", index.rank())));
    }
    let axis = c.axis("dim", t.rank())?;
    let mut shape = t.shape.clone();
    if let Some(n) = shape.get_mut(axis) {
        *n = index.numel();
    }
    one(t.dtype, shape)
}

/// `self[indices]`: as numpy's advanced indexing. A mask stands for the positions where it is true, as many as only
/// the data tell.
pub(super) fn index(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    one(t.dtype, indexed_shape(c, t)?)
}

fn indexed_shape(c: &Cx, t: &TensorType) -> Result<Vec<Expr>, Error> {
    let list = c.arg("indices").as_list().ok_or_else(|| c.fail("`indices` must be a list"))?;
    // For each dimension of `t`: the shape of its positions, or none.
    let mut by: Vec<Option<Vec<Expr>>> = Vec::new();
    for (i, arg) in list.iter().enumerate() {
        match (arg, c.as_tensor(arg)) {
            (Arg::None, _) => by.push(None),
            (_, Some(mask)) if is_mask(mask) => {
                for (a, b) in mask.shape.iter().zip(t.shape.iter().skip(by.len())) {
                    c.same(a, b, "sizes of mask and tensor")?;
                }
                if mask.rank() == 0 {
                    return Err(c.unsupported("a mask without dimensions"));
                }
                by.extend(std::iter::repeat_n(Some(vec![c.fresh(i)]), mask.rank()));
            }
            (_, Some(index)) => {
                positions(c, index)?;
                by.push(Some(index.shape.clone()));
            }
            _ => return Err(c.fail("`indices` must be tensors")),
        }
    }
    if by.len() > t.rank() {
        return Err(c.fail(format!("{} indices for a tensor of rank {}", by.len(), t.rank())));
    }
    by.resize(t.rank(), None);
    let picked = c.broadcast(by.iter().flatten().map(Vec::as_slice))?;
    let indexed: Vec<usize> = by.iter().enumerate().filter(|(_, b)| b.is_some()).map(|(i, _)| i).collect();
    let (Some(first), Some(last)) = (indexed.first(), indexed.last()) else { return Ok(t.shape.clone()) };
    // Indices side by side leave their result in place; apart, it comes first.
    let at = if last - first + 1 == indexed.len() { *first } else { 0 };
    let mut shape: Vec<Expr> = t.shape.iter().zip(&by).filter(|(_, b)| b.is_none()).map(|(n, _)| n.clone()).collect();
    let tail = shape.split_off(at);
    shape.extend(picked);
    shape.extend(tail);
    Ok(shape)
}

/// `self` with values written at `indices`, to whose shape they must broadcast.
pub(super) fn index_put(c: &Cx) -> Inferred {
    let (t, values) = (c.tensor(0)?, c.tensor("values")?);
    c.same_dtype(t, values)?;
    let into = indexed_shape(c, t)?;
    if c.broadcast([into.as_slice(), &values.shape])?.len() > into.len() && values.rank() > into.len() {
        return Err(c.fail(format!("values {:?} do not broadcast to {into:?}", values.shape)));
    }
    keep(c)
}

/// `self` with slices of `source` copied or added at positions of a dimension.
pub(super) fn index_write(c: &Cx) -> Inferred {
    let (t, index, source) = (c.tensor(0)?, c.tensor("index")?, c.tensor("source")?);
    let axis = c.axis("dim", t.rank())?;
    positions(c, index)?;
    c.same_dtype(t, source)?;
    if source.rank() > 0 && t.rank() > 0 {
        same_rank(c, t, source)?;
    }
    for (i, (n, m)) in t.shape.iter().zip(&source.shape).enumerate() {
        c.same(if i == axis { index.shape.first().unwrap_or(m) } else { n }, m, "sizes")?;
    }
    keep(c)
}

/// `self` with values scattered along a dimension.
pub(super) fn scatter(c: &Cx) -> Inferred {
    let (t, index) = (c.tensor(0)?, c.tensor("index")?);
    let axis = c.axis("dim", t.rank())?;
    positions(c, index)?;
    same_rank(c, t, index)?;
    within(c, index, t, Some(axis))?;
    if let Some(src) = c.as_tensor(c.arg("src")) {
        c.same_dtype(t, src)?;
        same_rank(c, t, src)?;
        within(c, index, src, None)?;
    }
    keep(c)
}

/// `self` with a slice of a dimension replaced.
pub(super) fn slice_scatter(c: &Cx) -> Inferred {
    let (t, src) = (c.tensor(0)?, c.tensor(1)?);
    let (axis, length) = sliced(c, t)?;
    let mut expect = t.shape.clone();
    expect.splice(axis..=axis, [length]);
    replaced(c, t, src, &expect)
}

/// `self` with one position of a dimension replaced.
pub(super) fn select_scatter(c: &Cx) -> Inferred {
    let (t, src) = (c.tensor(0)?, c.tensor(1)?);
    let axis = c.axis("dim", t.rank())?;
    let mut expect = t.shape.clone();
    if expect.is_empty() {
        return Err(c.fail("a scalar has no dimensions"));
    }
    expect.remove(axis);
    replaced(c, t, src, &expect)
}

fn replaced(c: &Cx, t: &TensorType, src: &TensorType, expect: &[Expr]) -> Inferred {
    if src.rank() != expect.len() {
        return Err(c.fail(format!("{:?} for a part of shape {expect:?}", src.shape)));
    }
    for (a, b) in expect.iter().zip(&src.shape) {
        c.same(a, b, "sizes")?;
    }
    one(t.dtype, t.shape.clone())
}

/// The positions that are not zero, one a row; their number is in the data.
pub(super) fn nonzero(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    one(DType::Int64, vec![c.fresh(0), (t.rank() as i64).into()])
}

/// The same with a number of rows that is given.
pub(super) fn nonzero_static(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    one(DType::Int64, vec![c.size("size")?, (t.rank() as i64).into()])
}

/// The positions that are not zero, one result a dimension.
pub(super) fn nonzero_each(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    Ok((0..t.rank().max(1)).map(|_| tensor(DType::Int64, vec![c.fresh(0)])).collect())
}

/// The elements that a mask picks.
pub(super) fn masked_select(c: &Cx) -> Inferred {
    let (t, mask) = (c.tensor(0)?, c.tensor(1)?);
    c.broadcast([t.shape.as_slice(), &mask.shape])?;
    one(t.dtype, vec![c.fresh(0)])
}

/// A new last dimension of classes.
pub(super) fn one_hot(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let classes = match c.int("num_classes")? {
        -1 => c.fresh(0),
        n @ 1.. => Expr::Int(n),
        n => return Err(c.fail(format!("{n} classes"))),
    };
    one(DType::Int64, t.shape.iter().cloned().chain([classes]).collect())
}
