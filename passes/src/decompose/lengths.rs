//! Norms of vectors and matrices, and distances.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;

use super::expr::Ex;
use super::pen::Pen;
use crate::calls::{as_ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// `(Σ|x|ᵖ)^(1/p)`; the limits of it for 0 and both infinities. Source: torch.linalg.vector_norm.
pub(super) fn norm(x: &Ex, order: f64, dims: &[usize], keep: bool) -> Ex {
    let size = x.abs();
    if order == f64::INFINITY {
        size.reduce(op!("aten.amax.default"), dims, keep)
    } else if order == f64::NEG_INFINITY {
        size.reduce(op!("aten.amin.default"), dims, keep)
    } else if order == 0.0 {
        x.ne(0i64).cast(DType::Float32).sum(dims, keep)
    } else if order == 1.0 {
        size.sum(dims, keep)
    } else if order == 2.0 {
        x.square().sum(dims, keep).sqrt()
    } else {
        size.pow(order).sum(dims, keep).pow(order.recip())
    }
}

/// The dimensions listed, each from 0; all where none are.
fn dims(site: &Site<'_>) -> Option<Vec<usize>> {
    let rank = site.operand(0)?.rank();
    match site.arg("dim") {
        Arg::None => Some((0..rank).collect()),
        list => {
            let list = as_ints(list)?;
            if list.is_empty() || rank == 0 { Some((0..rank).collect()) } else { list.into_iter().map(|d| wrap(d, rank)).collect() }
        }
    }
}

fn real(site: &Site<'_>) -> bool {
    site.operand(0).is_some_and(|t| !t.dtype.is_complex())
}

fn vector(site: &mut Site<'_>, order: f64, dims: &[usize]) -> Result {
    let keep = site.arg("keepdim").as_bool() == Some(true);
    if !real(site) {
        return Ok(None);
    }
    let mut p = Pen(site);
    let x = p.operand(0)?;
    p.ends(&norm(&x, order, dims, keep))
}

/// Source: torch.linalg.vector_norm.
pub(super) fn vector_norm(site: &mut Site<'_>) -> Result {
    let (Some(order), Some(dims)) = (site.arg("ord").as_float(), dims(site)) else { return Ok(None) };
    vector(site, order, &dims)
}

/// Source: torch.norm.
pub(super) fn old_norm(site: &mut Site<'_>) -> Result {
    let order = match site.arg("p") {
        Arg::None => Some(2.0),
        p => p.as_float(),
    };
    let (Some(order), Some(dims)) = (order, dims(site)) else { return Ok(None) };
    vector(site, order, &dims)
}

/// Of vectors, unless an order and two dimensions ask for that of matrices. Source: torch.linalg.norm.
pub(super) fn any_norm(site: &mut Site<'_>) -> Result {
    let (Some(dims), Some(rank)) = (dims(site), site.operand(0).map(|t| t.rank())) else { return Ok(None) };
    match site.arg("ord") {
        Arg::None => vector(site, 2.0, &dims),
        order => match order.as_float() {
            Some(order) if dims.len() == 2 && (*site.arg("dim") != Arg::None || rank == 2) => of_matrix(site, order, &dims),
            Some(order) if dims.len() == 1 => vector(site, order, &dims),
            _ => Ok(None),
        },
    }
}

/// Source: torch.linalg.matrix_norm.
pub(super) fn matrix_norm(site: &mut Site<'_>) -> Result {
    let Some(dims) = dims(site) else { return Ok(None) };
    match site.arg("ord") {
        Arg::Str(word) if &**word == "fro" => vector(site, 2.0, &dims),
        order => match order.as_float() {
            Some(order) => of_matrix(site, order, &dims),
            None => Ok(None),
        },
    }
}

/// The largest or smallest sum along columns (1) or rows (infinity).
fn of_matrix(site: &mut Site<'_>, order: f64, dims: &[usize]) -> Result {
    let &[rows, columns] = dims else { return Ok(None) };
    let (summed, left) = match order.abs() {
        1.0 => (rows, columns),
        f64::INFINITY => (columns, rows),
        // Singular values are out of reach.
        _ => return Ok(None),
    };
    if !real(site) || rows == columns {
        return Ok(None);
    }
    let keep = site.arg("keepdim").as_bool() == Some(true);
    let mut p = Pen(site);
    let x = p.operand(0)?;
    let sums = x.abs().sum(&[summed], true);
    let op = if order > 0.0 { op!("aten.amax.default") } else { op!("aten.amin.default") };
    let y = sums.reduce(op, &[left], true);
    if keep {
        return p.ends(&y);
    }
    let (y, shape) = (p.write(&y)?, p.0.result().map(|t| t.shape.clone()).unwrap_or_default());
    match p.view(&y, &shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// The norm of the difference. Source: torch.dist.
pub(super) fn dist(site: &mut Site<'_>) -> Result {
    let (Some(order), Some(_)) = (site.arg("p").as_float(), site.result().filter(|t| t.dtype.is_float())) else { return Ok(None) };
    let mut p = Pen(site);
    let (x, y) = (p.operand(0)?, p.operand(1)?);
    let apart = p.write(&(x - y))?;
    let all: Vec<usize> = (0..p.ty(&apart)?.rank()).collect();
    p.ends(&norm(&Ex::from(apart), order, &all, false))
}

/// The norm of `x - y + eps` along the last dimension. Source: torch.nn.PairwiseDistance.
pub(super) fn pairwise_distance(site: &mut Site<'_>) -> Result {
    let (Some(order), Some(eps)) = (site.arg("p").as_float(), site.arg("eps").as_float()) else { return Ok(None) };
    let keep = site.arg("keepdim").as_bool() == Some(true);
    let mut p = Pen(site);
    let (x, y) = (p.operand(0)?, p.operand(1)?);
    let apart = p.write(&(x - y + eps))?;
    let Some(last) = p.ty(&apart)?.rank().checked_sub(1) else { return Ok(None) };
    p.ends(&norm(&Ex::from(apart), order, &[last], keep))
}

/// `Σ a·b` of vectors scaled to length 1, lengths no less than eps. Source: torch.nn.CosineSimilarity.
pub(super) fn cosine_similarity(site: &mut Site<'_>) -> Result {
    let (Some(dim), Some(eps)) = (site.arg("dim").as_int(), site.arg("eps").as_float()) else { return Ok(None) };
    let rank = [0, 1].map(|i| site.operand(i).map_or(0, |t| t.rank())).into_iter().max().unwrap_or(0);
    let Some(dim) = wrap(dim, rank) else { return Ok(None) };
    let mut p = Pen(site);
    let mut unit = Vec::new();
    for i in 0..2 {
        let x = p.operand(i)?;
        // Counted from the end, as broadcasting does.
        let Some(at) = (dim + p.0.operand(i).map_or(0, |t| t.rank())).checked_sub(rank) else { return Ok(None) };
        unit.push(&x / norm(&x, 2.0, &[at], true).at_least(eps));
    }
    let [a, b] = unit.as_slice() else { return Ok(None) };
    p.ends(&(a * b).sum(&[dim], false))
}

/// Every row of one against every row of the other. Source: torch.cdist.
pub(super) fn cdist(site: &mut Site<'_>) -> Result {
    let (Some(order), Some(a), Some(b)) = (site.arg("p").as_float(), site.operand(0).cloned(), site.operand(1).cloned()) else {
        return Ok(None);
    };
    let (Some(m), Some(n)) = (a.rank().checked_sub(1), b.rank().checked_sub(2)) else { return Ok(None) };
    let mut p = Pen(site);
    let (x, y) = (p.operand(0)?, p.operand(1)?);
    let apart = p.write(&(x.unsqueeze(m as i64) - y.unsqueeze(n as i64)))?;
    let Some(last) = p.ty(&apart)?.rank().checked_sub(1) else { return Ok(None) };
    p.ends(&norm(&Ex::from(apart), order, &[last], false))
}

/// Every row against those after it: two lists of rows, known now. Source: torch.nn.functional.pdist.
pub(super) fn pdist(site: &mut Site<'_>) -> Result {
    let (Some(order), Some(t)) = (site.arg("p").as_float(), site.operand(0).cloned()) else { return Ok(None) };
    let Some(rows) = t.shape.first().and_then(|n| n.as_int()).filter(|_| t.rank() == 2) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.operand(0)?;
    let x = p.write(&x)?;
    if rows == 2 {
        let (a, b) = (p.slice(&x, 0, Arg::Int(0), Arg::Int(1))?, p.slice(&x, 0, Arg::Int(1), Arg::Int(2))?);
        return p.ends(&norm(&(Ex::from(a) - Ex::from(b)), order, &[1], false));
    }
    let pairs = p.call(op!("aten.triu_indices.default"), vec![Arg::Int(rows), Arg::Int(rows), Arg::Int(1)])?;
    let mut side = |i: i64| {
        let rows = p.call(op!("aten.select.int"), vec![pairs.clone(), Arg::Int(0), Arg::Int(i)])?;
        p.call(op!("aten.index_select.default"), vec![x.clone(), Arg::Int(0), rows])
    };
    let (a, b) = (side(0)?, side(1)?);
    p.ends(&norm(&(Ex::from(a) - Ex::from(b)), order, &[1], false))
}

/// Slices along a dimension that are longer than `maxnorm` made as long. Source: torch.renorm.
pub(super) fn renorm(site: &mut Site<'_>) -> Result {
    let (Some(order), Some(max), Some(rank)) =
        (site.arg("p").as_float(), site.arg("maxnorm").as_float(), site.operand(0).map(|t| t.rank()))
    else {
        return Ok(None);
    };
    let Some(dim) = site.arg("dim").as_int().and_then(|d| wrap(d, rank)) else { return Ok(None) };
    let others: Vec<usize> = (0..rank).filter(|&d| d != dim).collect();
    let mut p = Pen(site);
    let x = p.operand(0)?;
    let size = norm(&x, order, &others, true);
    let scale = size.gt(max).then((&size + 1e-7).reciprocal() * max, 1.0);
    p.ends(&(x * scale))
}

/// `g · v / |v|`, the length over all dimensions but one. Source: torch.nn.utils.parametrizations.weight_norm.
pub(super) fn weight_norm(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(dim)) = (site.operand(0).cloned(), site.arg("dim").as_int()) else { return Ok(None) };
    // -1 is the length of all of it.
    let kept = if dim == -1 { None } else { wrap(dim, t.rank()) };
    let others: Vec<usize> = (0..t.rank()).filter(|d| Some(*d) != kept).collect();
    let outputs = site.node().outputs.clone();
    let mut p = Pen(site);
    let (v, g) = (p.operand(0)?, p.operand(1)?);
    let size = norm(&v, 2.0, &others, true);
    let y = p.write(&(v * (g / &size)))?;
    match outputs.as_slice() {
        [_] => p.done(y),
        [_, lengths] => {
            let y = p.cast(&y, t.dtype)?;
            let lengths = if p.0.graph().value(*lengths).use_count() > 0 { p.write(&size)? } else { Arg::None };
            Ok(Some(Patch::Values(vec![y, lengths])))
        }
        _ => Ok(None),
    }
}

/// The sum of products along a dimension. Source: torch.linalg.vecdot.
pub(super) fn vecdot(site: &mut Site<'_>) -> Result {
    let (Some(dim), Some(shape)) = (site.arg("dim").as_int(), site.result().map(|t| t.shape.len() + 1)) else { return Ok(None) };
    let Some(dim) = wrap(dim, shape).filter(|_| real(site)) else { return Ok(None) };
    let mut p = Pen(site);
    let (x, y) = (p.operand(0)?, p.operand(1)?);
    p.ends(&(x * y).sum(&[dim], false))
}
