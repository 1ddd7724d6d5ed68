//! Tensors put together.

use super::call::{Call, Results, many, one, promoted};
use super::tensor::{Tensor, count};
use super::{Error, bad};

/// Tensors one after the other along a dimension. Flat empty ones are left out, whatever the others' rank.
pub(super) fn cat_of(all: &[Tensor], axis: usize) -> Result<Tensor, Error> {
    let dtype = promoted(&all.iter().cloned().map(Into::into).collect::<Vec<_>>())?;
    let used: Vec<&Tensor> = all.iter().filter(|t| t.shape() != [0]).collect();
    let Some(first) = used.first() else { return Tensor::new(dtype, &[0], Vec::new()) };
    let mut shape = first.shape().to_vec();
    let n = used.iter().fold(0usize, |n, t| n.saturating_add(t.size(axis)));
    *shape.get_mut(axis).ok_or_else(|| bad("scalars cannot be put one after the other"))? = n;
    let out = Tensor::new(dtype, &shape, vec![0; count(&shape)? * dtype.size()])?;
    let mut start = 0;
    for t in &used {
        let place = out.slice(axis, start, t.size(axis), 1)?;
        if place.shape() != t.shape() {
            return Err(bad(format!("shapes {:?} and {:?} do not fit together", first.shape(), t.shape())));
        }
        place.write(t)?;
        start += t.size(axis);
    }
    out.copy()
}

pub(super) fn cat(c: &Call) -> Results {
    let all = c.tensors("tensors")?;
    let rank = all.iter().map(Tensor::rank).max().unwrap_or(0);
    one(cat_of(&all, c.axis("dim", rank)?)?)
}

/// Tensors one after the other along a new dimension.
pub(super) fn stack_of(all: &[Tensor], axis: usize) -> Result<Tensor, Error> {
    cat_of(&all.iter().map(|t| t.unsqueeze(axis)).collect::<Result<Vec<_>, _>>()?, axis)
}

pub(super) fn stack(c: &Call) -> Results {
    let all = c.tensors("tensors")?;
    let first = all.first().ok_or_else(|| bad("nothing to stack"))?;
    one(stack_of(&all, c.axis("dim", first.rank() + 1)?)?)
}

/// A tensor of at least so many dimensions.
pub(super) fn at_least(t: &Tensor, rank: usize) -> Result<Tensor, Error> {
    match (rank, t.shape()) {
        (2, [n]) => t.reshape(&[1, *n]),
        (3, [n]) => t.reshape(&[1, *n, 1]),
        (3, [n, m]) => t.reshape(&[*n, *m, 1]),
        (_, []) => t.reshape(&vec![1; rank]),
        _ => Ok(t.clone()),
    }
}

/// `atleast_2d` and the like, of one tensor or of several.
pub(super) fn raise(c: &Call, rank: usize) -> Results {
    if c.given("tensors") {
        return many(c.tensors("tensors")?.iter().map(|t| at_least(t, rank)).collect::<Result<Vec<_>, _>>()?);
    }
    one(at_least(&c.first()?, rank)?)
}

/// `hstack` and the like: raised to a rank, then one after the other.
pub(super) fn stacked(c: &Call, rank: usize, axis: fn(usize) -> usize) -> Results {
    let all = c.tensors("tensors")?.iter().map(|t| at_least(t, rank)).collect::<Result<Vec<_>, _>>()?;
    one(cat_of(&all, axis(all.first().map_or(0, Tensor::rank)))?)
}

/// Vectors as columns beside matrices.
pub(super) fn column_stack(c: &Call) -> Results {
    let column = |t: &Tensor| if t.rank() < 2 { t.reshape(&[t.numel(), 1]) } else { Ok(t.clone()) };
    one(cat_of(&c.tensors("tensors")?.iter().map(column).collect::<Result<Vec<_>, _>>()?, 1)?)
}

pub(super) fn meshgrid(c: &Call) -> Results {
    let all = c.tensors("tensors")?;
    let xy = c.text("indexing") == Some("xy") && all.len() > 1;
    let mut shape: Vec<usize> = all.iter().map(Tensor::numel).collect();
    let mut axes: Vec<usize> = (0..all.len()).collect();
    if xy {
        shape.swap(0, 1);
        axes.swap(0, 1);
    }
    let grid = |(t, axis): (&Tensor, usize)| {
        let mut one = vec![1; shape.len()];
        if let Some(n) = one.get_mut(axis) {
            *n = t.numel();
        }
        t.reshape(&one)?.expand(&shape)
    };
    many(all.iter().zip(axes).map(grid).collect::<Result<Vec<_>, _>>()?)
}

/// Every choice of `r` elements of a vector, in order.
pub(super) fn combinations(c: &Call) -> Results {
    let (t, r, again) = (c.first()?, c.size("r")?, c.flag("with_replacement"));
    let n = t.numel() as i64;
    let mut rows: Vec<Vec<i64>> = vec![Vec::new()];
    for _ in 0..r {
        if rows.is_empty() {
            break;
        }
        // As many as there can be after this round, and what they hold.
        count(&[rows.len(), t.numel(), r])?;
        let next = |row: Vec<i64>| {
            let from = row.last().map_or(0, |k| k + i64::from(!again));
            (from..n).map(move |k| row.iter().copied().chain([k]).collect::<Vec<_>>())
        };
        rows = rows.into_iter().flat_map(next).collect();
    }
    let all = rows.len();
    let at = Tensor::of(crate::DType::Int64, &[count(&[all, r])?], rows.into_iter().flatten())?;
    one(super::indexing::take(&t, 0, &at)?.reshape(&[all, r])?)
}
