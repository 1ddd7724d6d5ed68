//! Tensors read as the memory that they lie in. Only those whose elements lie in order, which is known of no view.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::{Dim, Expr};

use super::diagonal::ramp;
use super::expr::Ex;
use super::pen::Pen;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// Whether the operand lies in memory as its sizes say: it is no view, or only another shape of what is none.
fn in_order(site: &Site<'_>) -> bool {
    let Some(mut v) = site.value(0).filter(|_| site.operand(0).is_some_and(|t| t.strides.is_none())) else { return false };
    while let Some(made) = site.graph().producer(v).map(|n| site.graph().node(n)).filter(|n| n.op.is_view()) {
        match made.args.first().and_then(Arg::as_value) {
            Some(from) if made.op == op!("aten.view.default") && site.graph().tensor(from).is_some_and(|t| t.strides.is_none()) => v = from,
            _ => return false,
        }
    }
    true
}

/// The number of every element that the sizes and strides of the call name, one after the other, and how many these are.
fn places(p: &mut Pen<'_, '_>, shape: &[Dim]) -> std::result::Result<Option<(Arg, Dim)>, Error> {
    let Some(strides) = p.0.arg("stride").as_list().map(<[Arg]>::to_vec) else { return Ok(None) };
    let offset = match p.0.arg("storage_offset").clone() {
        Arg::None => Arg::Int(0),
        a => a,
    };
    if strides.len() != shape.len() {
        return Ok(None);
    }
    let count = Dim::product(shape);
    let mut sum: Option<Ex> = None;
    for (axis, (n, stride)) in shape.iter().zip(&strides).enumerate() {
        let Some(steps) = ramp(p, n, axis, shape.len())? else { return Ok(None) };
        let part = Ex::from(steps) * Ex::from(stride);
        sum = Some(sum.map_or(part.clone(), |s| s + part));
    }
    let at = match sum {
        Some(sum) => p.write(&(sum + Ex::from(offset)))?,
        None => p.call(op!("aten.full.default"), vec![Arg::List(Vec::new()), offset, Arg::DType(DType::Int64)])?,
    };
    Ok(p.view(&at, std::slice::from_ref(&count))?.map(|at| (at, count)))
}

/// The elements looked up by number. Source: torch.as_strided.
pub(super) fn as_strided(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    if !in_order(site) {
        return Ok(None);
    }
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let Some((at, _)) = places(&mut p, &to.shape)? else { return Ok(None) };
    let Some(flat) = p.view(&x, &[t.numel()])? else { return Ok(None) };
    let y = p.call(op!("aten.index_select.default"), vec![flat, Arg::Int(0), at])?;
    match p.view(&y, &to.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// The elements written by number. Source: torch.as_strided_scatter.
pub(super) fn as_strided_scatter(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(from)) = (site.operand(0).cloned(), site.operand(1).cloned()) else { return Ok(None) };
    if !in_order(site) {
        return Ok(None);
    }
    let mut p = Pen(site);
    let [x, source] = [0, 1].map(|i| p.0.nth(i).clone());
    let Some((at, count)) = places(&mut p, &from.shape)? else { return Ok(None) };
    let (Some(flat), Some(source)) = (p.view(&x, &[t.numel()])?, p.view(&source, &[count])?) else { return Ok(None) };
    let source = p.cast(&source, t.dtype)?;
    let y = p.call(op!("aten.index_copy.default"), vec![flat, Arg::Int(0), at, source])?;
    match p.view(&y, &t.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// The first elements, as many as asked for; more than there are would be left undefined. Source: torch.Tensor.resize_.
pub(super) fn resize(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let (have, want): (Expr, Expr) = (t.numel(), to.numel());
    if !in_order(site) || (have != want && site.ranges().at_most(&want, &have) != Some(true)) {
        return Ok(None);
    }
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let Some(mut flat) = p.view(&x, std::slice::from_ref(&have))? else { return Ok(None) };
    if have != want {
        let Some(end) = p.0.size(&want) else { return Ok(None) };
        flat = p.slice(&flat, 0, Arg::Int(0), end)?;
    }
    match p.view(&flat, &to.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}
