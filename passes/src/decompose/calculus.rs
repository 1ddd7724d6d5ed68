//! Integrals, derivatives and powers of what is sampled along a dimension.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::diagonal::ramp;
use super::expr::Ex;
use super::pen::Pen;
use crate::calls::{as_ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// Neighbours along a dimension: all but the last, all but the first.
fn neighbours(p: &mut Pen<'_, '_>, x: &Arg, dim: usize) -> std::result::Result<Option<[Arg; 2]>, Error> {
    let t = p.ty(x)?;
    let Some(n) = t.shape.get(dim) else { return Ok(None) };
    if p.0.ranges().bounds(n).min.is_none_or(|n| n < 1) {
        return Ok(None);
    }
    let (Some(end), Some(less)) = (p.0.size(n), p.0.size(&n.minus(&Dim::Int(1)))) else { return Ok(None) };
    Ok(Some([p.slice(x, dim, Arg::Int(0), less)?, p.slice(x, dim, Arg::Int(1), end)?]))
}

/// The areas between neighbours: half of their sum times their distance; and the dimension.
fn areas(site: &mut Site<'_>) -> std::result::Result<Option<(Arg, usize)>, Error> {
    let Some(t) = site.operand(0).cloned() else { return Ok(None) };
    let Some(dim) = site.arg("dim").as_int().and_then(|d| wrap(d, t.rank())).filter(|_| t.rank() > 0) else { return Ok(None) };
    let (step, at) = (site.arg("dx").as_float(), site.arg("x").clone());
    let mut p = Pen(site);
    let y = p.operand(0)?;
    let y = p.write(&y)?;
    let Some([a, b]) = neighbours(&mut p, &y, dim)? else { return Ok(None) };
    let sum = Ex::from(a) + Ex::from(b);
    let area = match step {
        Some(step) => sum * (0.5 * step),
        None => {
            let have = p.ty(&at)?;
            let at = if have.rank() == 1 && t.rank() > 1 {
                let shape: Vec<Dim> = (0..t.rank()).map(|d| if d == dim { have.numel() } else { Dim::Int(1) }).collect();
                let Some(at) = p.view(&at, &shape)? else { return Ok(None) };
                at
            } else if have.rank() == t.rank() {
                at
            } else {
                return Ok(None);
            };
            let Some([a, b]) = neighbours(&mut p, &at, dim)? else { return Ok(None) };
            sum * (Ex::from(b) - Ex::from(a)) * 0.5
        }
    };
    Ok(Some((p.write(&area)?, dim)))
}

/// Source: torch.trapezoid.
pub(super) fn trapezoid(site: &mut Site<'_>) -> Result {
    match areas(site)? {
        Some((area, dim)) => Pen(site).ends(&Ex::from(area).sum(&[dim], false)),
        None => Ok(None),
    }
}

/// Source: torch.cumulative_trapezoid.
pub(super) fn cumulative_trapezoid(site: &mut Site<'_>) -> Result {
    match areas(site)? {
        Some((area, dim)) => {
            let mut p = Pen(site);
            let y = p.call(op!("aten.cumsum.default"), vec![area, Arg::Int(dim as i64)])?;
            p.done(y)
        }
        None => Ok(None),
    }
}

/// Differences over two steps, at the ends over one, or over two of second order. Source: torch.gradient, for even distances.
pub(super) fn gradient(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(order)) = (site.operand(0).cloned(), site.arg("edge_order").as_int()) else { return Ok(None) };
    let dims: Option<Vec<usize>> = match site.arg("dim") {
        Arg::None => Some((0..t.rank()).collect()),
        list => as_ints(list).and_then(|l| l.into_iter().map(|d| wrap(d, t.rank())).collect()),
    };
    let Some(dims) = dims.filter(|_| t.rank() > 0) else { return Ok(None) };
    let steps: Option<Vec<f64>> = match site.arg("spacing") {
        Arg::None => Some(vec![1.0; dims.len()]),
        Arg::List(l) => l.iter().map(Arg::as_float).collect(),
        a => a.as_float().map(|h| vec![h; dims.len()]),
    };
    let Some(steps) = steps.filter(|s| s.len() == dims.len()) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.operand(0)?;
    let x = p.write(&x)?;
    let mut results = Vec::new();
    for (&dim, h) in dims.iter().zip(steps) {
        let Some(n) = t.shape.get(dim).and_then(Dim::as_int).filter(|n| *n > order) else { return Ok(None) };
        let mut at = |from: i64, to: i64| p.slice(&x, dim, Arg::Int(from), Arg::Int(to)).map(Ex::from);
        let inner = (at(2, n)? - at(0, n - 2)?) * (0.5 / h);
        let (first, last) = if order == 2 {
            (
                (at(0, 1)? * -1.5 + at(1, 2)? * 2.0 - at(2, 3)? * 0.5) * (1.0 / h),
                (at(n - 1, n)? * 1.5 - at(n - 2, n - 1)? * 2.0 + at(n - 3, n - 2)? * 0.5) * (1.0 / h),
            )
        } else {
            ((at(1, 2)? - at(0, 1)?) * (1.0 / h), (at(n - 1, n)? - at(n - 2, n - 1)?) * (1.0 / h))
        };
        let parts = vec![p.write(&first)?, p.write(&inner)?, p.write(&last)?];
        let y = p.call(op!("aten.cat.default"), vec![Arg::List(parts), Arg::Int(dim as i64)])?;
        results.push(p.cast(&y, t.dtype)?);
    }
    Ok(Some(Patch::Values(results)))
}

/// Powers side by side, the highest first unless they increase. Source: torch.vander, torch.linalg.vander.
pub(super) fn vander(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let falls = site.op() == op!("aten.vander.default") && site.arg("increasing").as_bool() != Some(true);
    let Some(n) = to.shape.last().and_then(Dim::as_int) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.operand(0)?.unsqueeze(t.rank() as i64);
    let Some(powers) = ramp(&mut p, &Dim::Int(n), 0, 1)? else { return Ok(None) };
    let powers = if falls { -Ex::from(powers) + (n - 1) } else { Ex::from(powers) };
    let powers = if to.dtype.is_float() { powers.cast(DType::Float32) } else { powers };
    p.ends(&Ex::call(op!("aten.pow.Tensor_Tensor"), vec![x, powers]))
}
