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

/// One convolution a group, of its channels with its filters, their results next to each other. Source: torch.nn.Conv3d.
pub(super) fn groups(site: &mut Site<'_>) -> Result {
    let op = site.op();
    let schema = op.schema();
    let at = |name: &str| schema.position(name);
    let (Some(groups_at), Some(input_at), Some(weight_at), Some(bias_at)) = (at("groups"), at("input"), at("weight"), at("bias")) else {
        return Ok(None);
    };
    let args = site.node().args.clone();
    let Some(groups) = site.nth(groups_at).as_int().filter(|n| *n > 1) else { return Ok(None) };
    let mut p = Pen(site);
    let part = |p: &mut Pen<'_, '_>, x: &Arg, axis: usize, group: i64| -> std::result::Result<Option<Arg>, Error> {
        let Some(n) = p.ty(x)?.shape.get(axis).and_then(Dim::as_int).filter(|n| n % groups == 0) else { return Ok(None) };
        let n = n / groups;
        p.slice(x, axis, Arg::Int(group * n), Arg::Int((group + 1) * n)).map(Some)
    };
    let [Some(input), Some(weight), Some(bias)] = [input_at, weight_at, bias_at].map(|i| args.get(i)) else { return Ok(None) };
    let Some(channels) = p.ty(input)?.rank().checked_sub(p.ty(weight)?.rank() - 1) else { return Ok(None) };
    let mut results = Vec::new();
    for group in 0..groups {
        let mut list = args.clone();
        for (i, x, axis) in [(input_at, input, channels), (weight_at, weight, 0), (bias_at, bias, 0)] {
            if *x == Arg::None {
                continue;
            }
            let (Some(slot), Some(x)) = (list.get_mut(i), part(&mut p, x, axis, group)?) else { return Ok(None) };
            *slot = x;
        }
        if let Some(n) = list.get_mut(groups_at) {
            *n = Arg::Int(1);
        }
        results.push(p.call(op, list)?);
    }
    let y = p.call(op!("aten.cat.default"), vec![Arg::List(results), Arg::Int(channels as i64)])?;
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
