//! Operators that arrange data.

use etx_ir::error::Error;
use etx_ir::graph::{Arg, Type};
use etx_ir::op;
use etx_ir::sym::{Dim, Expr};

use super::pen::Pen;
use crate::calls::wrap;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// Each part with a dimension of its own, then concatenated. Source: torch.stack.
pub(super) fn stack(site: &mut Site<'_>) -> Result {
    let Some(parts) = site.nth(0).as_list().map(<[Arg]>::to_vec) else { return Ok(None) };
    let Some(dim) = site.nth(1).as_int().zip(site.result()).and_then(|(d, t)| wrap(d, t.rank())) else { return Ok(None) };
    let mut p = Pen(site);
    let mut list = Vec::with_capacity(parts.len());
    for part in parts {
        list.push(p.unsqueeze(&part, dim)?);
    }
    let y = p.call(op!("aten.cat.default"), vec![Arg::List(list), Arg::Int(dim as i64)])?;
    p.done(y)
}

/// A slice for each part that is used. Source: torch.split.
pub(super) fn split_with_sizes(site: &mut Site<'_>) -> Result {
    let Some(dim) = site.nth(2).as_int().zip(site.operand(0)).and_then(|(d, t)| wrap(d, t.rank())) else { return Ok(None) };
    let x = site.nth(0).clone();
    let mut at = Expr::Int(0);
    let mut values = Vec::new();
    for v in site.node().outputs.clone() {
        let ty = site.graph().ty(v).clone();
        let Some(n) = ty.as_tensor().and_then(|t| t.shape.get(dim)).cloned() else { return Ok(None) };
        let end = at.plus(&n);
        let value = if site.graph().value(v).use_count() > 0 {
            let (Some(from), Some(to)) = (site.size(&at), site.size(&end)) else { return Ok(None) };
            site.call_as(op!("aten.slice.Tensor"), vec![x.clone(), Arg::Int(dim as i64), from, to, Arg::Int(1)], ty)
        } else {
            Arg::None
        };
        values.push(value);
        at = end;
    }
    Ok(Some(Patch::Values(values)))
}

/// A dimension of the repetitions, broadcast and merged. Source: torch.repeat_interleave.
pub(super) fn repeat_interleave(site: &mut Site<'_>) -> Result {
    let (Some(n), Some(t)) = (site.nth(1).as_int(), site.operand(0).cloned()) else { return Ok(None) };
    let Some(dim) = site.nth(2).as_int().and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let y = p.unsqueeze(&x, dim + 1)?;
    let sizes = (0..=t.rank()).map(|d| Arg::Int(if d == dim + 1 { n } else { -1 })).collect();
    let y = p.call(op!("aten.expand.default"), vec![y, Arg::List(sizes)])?;
    let mut shape = t.shape.clone();
    if let Some(d) = shape.get_mut(dim) {
        *d = d.times(&Dim::Int(n));
    }
    let Some(y) = p.view(&y, &shape)? else { return Ok(None) };
    p.done(y)
}

/// Slices changed places. Source: torch.roll.
pub(super) fn roll(site: &mut Site<'_>) -> Result {
    let (Some(shifts), Some(dims), Some(t)) =
        (crate::calls::as_ints(site.nth(1)), crate::calls::as_ints(site.nth(2)), site.operand(0).cloned())
    else {
        return Ok(None);
    };
    if shifts.len() != dims.len() {
        return Ok(None);
    }
    let mut p = Pen(site);
    let mut y = p.0.nth(0).clone();
    for (shift, d) in shifts.into_iter().zip(dims) {
        let Some(d) = wrap(d, t.rank()) else { return Ok(None) };
        let Some(n) = t.shape.get(d).and_then(Dim::as_int) else { return Ok(None) };
        let start = if n == 0 { 0 } else { (-shift).rem_euclid(n) };
        if start == 0 {
            continue;
        }
        let tail = p.slice(&y, d, Arg::Int(start), Arg::Int(n))?;
        let head = p.slice(&y, d, Arg::Int(0), Arg::Int(start))?;
        y = p.call(op!("aten.cat.default"), vec![Arg::List(vec![tail, head]), Arg::Int(d as i64)])?;
    }
    p.done(y)
}

/// A slice of one, without its dimension. Source: torch.select.
pub(super) fn select(site: &mut Site<'_>) -> Result {
    let Some(dim) = site.nth(1).as_int().zip(site.operand(0)).and_then(|(d, t)| wrap(d, t.rank())) else { return Ok(None) };
    let index = site.nth(2).clone();
    let e = match &index {
        Arg::Value(v) => match site.graph().ty(*v) {
            Type::Int(e) => e.clone(),
            _ => return Ok(None),
        },
        other => match other.as_int() {
            // The end of a slice from -1 is no number.
            Some(n) if n >= 0 => Expr::Int(n),
            _ => return Ok(None),
        },
    };
    let Some(end) = site.size(&e.plus(&Expr::Int(1))) else { return Ok(None) };
    let (Some(mut one), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    // The index is within the dimension, or torch fails; so there is exactly one element.
    if let Some(n) = one.shape.get_mut(dim) {
        *n = Dim::Int(1);
    }
    let slice = vec![site.nth(0).clone(), Arg::Int(dim as i64), index, end, Arg::Int(1)];
    let part = site.call_as(op!("aten.slice.Tensor"), slice, Type::Tensor(one));
    let squeeze = vec![part, crate::calls::ints([dim as i64])];
    Ok(Some(Patch::Values(vec![site.call_as(op!("aten.squeeze.dims"), squeeze, Type::Tensor(to))])))
}
