//! Reductions.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Dim;

use super::expr::of_one;
use super::pen::Pen;
use crate::calls::{args, as_ints, ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

fn reduced(site: &Site<'_>) -> Option<(Vec<usize>, bool)> {
    let rank = site.operand(0)?.rank();
    let dims = as_ints(site.arg("dim"))?.into_iter().map(|d| wrap(d, rank)).collect::<Option<_>>()?;
    Some((dims, site.arg("keepdim").as_bool() == Some(true)))
}

/// `sum((x - mean)²) / (n - correction)`. Source: torch.var.
fn spread(site: &mut Site<'_>) -> std::result::Result<Option<Arg>, Error> {
    let (Some((dims, keep)), Some(correction)) = (reduced(site), site.arg("correction").as_float()) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let t = p.ty(&x)?;
    let count: Option<i64> = dims.iter().map(|&d| t.shape.get(d).and_then(Dim::as_int)).product();
    let Some(count) = count.filter(|_| !t.dtype.is_complex()) else { return Ok(None) };
    let mean = p.reduce(op!("aten.mean.dim"), &x, &dims, true)?;
    let centred = p.sub(&x, &mean)?;
    let squares = p.square(&centred)?;
    let sum = p.reduce(op!("aten.sum.dim_IntList"), &squares, &dims, keep)?;
    // As torch: never less than nothing, so that too small a sample gives infinity or NaN.
    p.div(&sum, (count as f64 - correction).max(0.0)).map(Some)
}

/// Source: torch.var.
pub(super) fn var(site: &mut Site<'_>) -> Result {
    match spread(site)? {
        Some(v) => Pen(site).done(v),
        None => Ok(None),
    }
}

/// The square root of the variance. Source: torch.std.
pub(super) fn std(site: &mut Site<'_>) -> Result {
    match spread(site)? {
        Some(v) => {
            let mut p = Pen(site);
            let y = p.sqrt(&v)?;
            p.done(y)
        }
        None => Ok(None),
    }
}

/// `log(sum(exp(x - m))) + m` with `m` the largest, infinities taken as 0. Source: torch.logsumexp and its decomposition.
pub(super) fn logsumexp(site: &mut Site<'_>) -> Result {
    let Some((dims, keep)) = reduced(site) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    if !p.ty(&x)?.dtype.is_float() {
        return Ok(None);
    }
    let max = p.reduce(op!("aten.amax.default"), &x, &dims, true)?;
    let size = p.abs(&max)?;
    let infinite = p.eq(&size, f64::INFINITY)?;
    let max = p.select(&infinite, 0.0, &max)?;
    let shifted = p.sub(&x, &max)?;
    let grown = p.exp(&shifted)?;
    let sum = p.reduce(op!("aten.sum.dim_IntList"), &grown, &dims, true)?;
    let log = p.log(&sum)?;
    let mut y = p.add(&log, &max)?;
    if !keep {
        y = p.call(op!("aten.squeeze.dims"), vec![y, crate::calls::ints(dims.iter().map(|&d| d as i64))])?;
    }
    p.done(y)
}

/// How many values reach each edge, less how many reach the next one. Source: torch.histc.
///
/// Without a range, it is that of the values.
pub(super) fn histc(site: &mut Site<'_>) -> Result {
    let (low, high) = (site.arg("min").as_float(), site.arg("max").as_float());
    let (Some(low), Some(high), Some(bins)) = (low, high, site.arg("bins").as_int()) else { return Ok(None) };
    let Some(t) = site.operand(0).cloned() else { return Ok(None) };
    if low > high || bins < 1 || !t.dtype.is_float() {
        return Ok(None);
    }
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let dtype = p.ty(&x)?.dtype;
    let (edges, high) = if low < high {
        let linspace = op!("aten.linspace.default");
        let edges = args(linspace, [low.into(), high.into(), Arg::Int(bins + 1)], &[("dtype", dtype.into())]);
        (p.call(linspace, edges)?, Arg::Float(high))
    } else {
        // Of nothing there is no range; the reduction says so.
        if t.shape.iter().any(|n| p.0.ranges().bounds(n).min.is_none_or(|n| n < 1)) {
            return Ok(None);
        }
        edges_of_values(&mut p, &x, bins)?
    };
    let Some(x) = p.view(&x, &[t.numel(), Dim::Int(1)])? else { return Ok(None) };
    let lower = p.slice(&edges, 0, Arg::Int(0), Arg::Int(bins))?;
    let (reaches, within) = (p.ge(&x, &lower)?, p.le(&x, &high)?);
    let counted = p.call(op!("aten.logical_and.default"), vec![reaches, within])?;
    let sum = p.reduce(op!("aten.sum.dim_IntList"), &counted, &[0], false)?;
    let next = p.slice(&sum, 0, Arg::Int(1), Arg::Int(bins))?;
    let next = p.call(op!("aten.constant_pad_nd.default"), vec![next, ints([0, 1]), Arg::Int(0)])?;
    let y = p.sub(&sum, &next)?;
    p.done(y)
}

/// The edges of bins between the least and the greatest value, and the last of them; around a value that is the only one they are 2
/// apart. Steps are counted from the end that is closer. Source: torch.histc, torch.linspace.
fn edges_of_values(p: &mut Pen<'_, '_>, x: &Arg, bins: i64) -> std::result::Result<(Arg, Arg), Error> {
    let (rank, dtype) = (p.ty(x)?.rank(), p.ty(x)?.dtype);
    let all: Vec<usize> = (0..rank).collect();
    let (low, high) = (p.reduce(op!("aten.amin.default"), x, &all, false)?, p.reduce(op!("aten.amax.default"), x, &all, false)?);
    let equal = p.eq(&low, &high)?;
    let apart = p.cast(&equal, dtype)?;
    let (low, high) = (p.sub(&low, &apart)?, p.add(&high, &apart)?);
    let width = p.sub(&high, &low)?;
    let step = p.div(&width, bins as f64)?;
    let arange = op!("aten.arange.start_step");
    let places = p.call(arange, args(arange, [Arg::Int(0), Arg::Int(bins + 1), Arg::Int(1)], &[("dtype", dtype.into())]))?;
    let up = p.mul(&places, &step)?;
    let up = p.add(&up, &low)?;
    let left = p.call(op!("aten.rsub.Scalar"), vec![places.clone(), Arg::Float(bins as f64)])?;
    let down = p.mul(&left, &step)?;
    let down = p.sub(&high, &down)?;
    let early = p.call(op!("aten.lt.Scalar"), vec![places, Arg::Int((bins + 1) / 2)])?;
    Ok((p.select(&early, &up, &down)?, high))
}

/// `sum(x) / n`. Source: torch.mean.
pub(super) fn mean(site: &mut Site<'_>) -> Result {
    let Some((dims, keep)) = reduced(site) else { return Ok(None) };
    if *site.arg("dtype") != Arg::None {
        return Ok(None);
    }
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let t = p.ty(&x)?;
    let Some(count) = dims.iter().map(|&d| t.shape.get(d).and_then(Dim::as_int)).product::<Option<i64>>() else { return Ok(None) };
    let sum = p.reduce(op!("aten.sum.dim_IntList"), &x, &dims, keep)?;
    let y = p.div(&sum, count as f64)?;
    p.done(y)
}

/// `not any(not x)`. Source: torch.all.
pub(super) fn all(site: &mut Site<'_>) -> Result {
    let Some((dims, keep)) = reduced(site) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let none = p.not(&x)?;
    let any = p.reduce(op!("aten.any.dims"), &none, &dims, keep)?;
    let y = p.not(&any)?;
    p.done(y)
}

/// The variance and the mean. Source: torch.var_mean.
pub(super) fn var_mean(site: &mut Site<'_>) -> Result {
    with_mean(site, op!("aten.var.correction"))
}

/// Source: torch.std_mean.
pub(super) fn std_mean(site: &mut Site<'_>) -> Result {
    with_mean(site, op!("aten.std.correction"))
}

fn with_mean(site: &mut Site<'_>, spread: OpId) -> Result {
    let (Some(dims), keep) = (listed(site), site.arg("keepdim").as_bool() == Some(true)) else { return Ok(None) };
    let unbiased = site.op().schema().position("unbiased").map(|_| site.arg("unbiased").as_bool() != Some(false));
    let correction = match (unbiased, site.arg("correction")) {
        (Some(yes), _) => Arg::Int(i64::from(yes)),
        (None, Arg::None) => Arg::Int(1),
        (None, given) => given.clone(),
    };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let list = crate::calls::ints(dims.iter().map(|&d| d as i64));
    let v = p.call(spread, vec![x.clone(), list, correction, Arg::Bool(keep)])?;
    let mean = p.reduce(op!("aten.mean.dim"), &x, &dims, keep)?;
    Ok(Some(Patch::Values(vec![v, mean])))
}

/// The dimensions listed, each from 0; all where none are.
fn listed(site: &Site<'_>) -> Option<Vec<usize>> {
    let rank = site.operand(0)?.rank();
    let dims = match site.arg("dim") {
        Arg::None => vec![],
        list => as_ints(list)?,
    };
    if dims.is_empty() || rank == 0 { Some((0..rank).collect()) } else { dims.into_iter().map(|d| wrap(d, rank)).collect() }
}

/// How many are not zero. Source: torch.count_nonzero.
pub(super) fn count_nonzero(site: &mut Site<'_>) -> Result {
    let Some(dims) = listed(site) else { return Ok(None) };
    of_one(site, |x| x.ne(0i64).cast(DType::Int64).sum(&dims, false))
}

/// The sum of what is a number. Source: torch.nansum.
pub(super) fn nansum(site: &mut Site<'_>) -> Result {
    let (Some(dims), keep) = (listed(site), site.arg("keepdim").as_bool() == Some(true)) else { return Ok(None) };
    let float = site.operand(0).is_some_and(|t| t.dtype.is_float());
    of_one(site, |x| if float { x.is_nan().then(0.0, &x).sum(&dims, keep) } else { x.sum(&dims, keep) })
}

/// The mean of what is a number. Source: torch.nanmean.
pub(super) fn nanmean(site: &mut Site<'_>) -> Result {
    let (Some(dims), keep) = (listed(site), site.arg("keepdim").as_bool() == Some(true)) else { return Ok(None) };
    of_one(site, |x| x.is_nan().then(0.0, &x).sum(&dims, keep) / x.eq(&x).cast(DType::Float32).sum(&dims, keep))
}
