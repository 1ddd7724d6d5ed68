//! Derivatives of what takes parts of a tensor: the parts, put where they were taken from, nothing elsewhere.

use etx_ir::DType;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::super::diagonal::ramp;
use super::super::expr::Ex;
use super::super::pen::Pen;
use super::{Result, zeros};
use crate::calls::wrap;
use crate::rewrite::Site;

/// Source: torch.narrow, x[a:b], x[i], torch.diagonal.
pub(in crate::decompose) fn part(site: &mut Site<'_>) -> Result {
    let Some(to) = site.result().cloned() else { return Ok(None) };
    let writer = by_op!(site.op(), {
        "aten.slice_backward.default" => op!("aten.slice_scatter.default"),
        "aten.select_backward.default" => op!("aten.select_scatter.default"),
        _ => op!("aten.diagonal_scatter.default"),
    });
    let list = site.node().args.clone();
    let Some((g, how)) = list.split_first().and_then(|(g, rest)| Some((g.clone(), rest.get(1..)?.to_vec()))) else { return Ok(None) };
    let mut p = Pen(site);
    let Some(zero) = zeros(&mut p, &to.shape)? else { return Ok(None) };
    let mut all = vec![zero, g];
    all.extend(how);
    let y = p.call(writer, all)?;
    p.done(y)
}

/// Windows added up where they overlap. Source: torch.Tensor.unfold.
pub(in crate::decompose) fn unfold(site: &mut Site<'_>) -> Result {
    let (Some(g), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let (Some(size), Some(step)) = (site.arg("size").as_int(), site.arg("step").as_int()) else { return Ok(None) };
    let Some(dim) = site.arg("dim").as_int().and_then(|d| wrap(d, to.rank())).filter(|_| to.rank() > 0) else { return Ok(None) };
    let Some(windows) = g.shape.get(dim).cloned() else { return Ok(None) };
    let last = to.rank();
    let grad = site.nth(0).clone();
    let mut p = Pen(site);
    // The window beside its number, both as one.
    let order: Vec<usize> = (0..=dim).chain([last]).chain(dim + 1..last).collect();
    let grad = p.permute(&grad, &order)?;
    let mut shape = to.shape.clone();
    let count = windows.times(&Dim::Int(size));
    let Some(n) = shape.get_mut(dim) else { return Ok(None) };
    *n = count.clone();
    let Some(grad) = p.view(&grad, &shape)? else { return Ok(None) };
    let (Some(first), Some(within)) = (ramp(&mut p, &windows, 0, 2)?, ramp(&mut p, &Dim::Int(size), 1, 2)?) else { return Ok(None) };
    let at = p.write(&(Ex::from(first) * step + Ex::from(within)))?;
    let (Some(at), Some(zero)) = (p.view(&at, &[count])?, zeros(&mut p, &to.shape)?) else { return Ok(None) };
    let y = p.call(op!("aten.index_add.default"), vec![zero, Arg::Int(dim as i64), at, grad])?;
    p.done(y)
}

/// Rows added up by the index that they were looked up with; over how often it occurs, if asked. Source: torch.nn.Embedding.
pub(in crate::decompose) fn embedding(site: &mut Site<'_>) -> Result {
    let (Some(g), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let (Some(padding), Some(frequent)) = (site.arg("padding_idx").as_int(), site.arg("scale_grad_by_freq").as_bool()) else {
        return Ok(None);
    };
    let ([rows, width], Some(index)) = (to.shape.as_slice(), site.operand(1).cloned()) else { return Ok(None) };
    if g.shape.last() != Some(width) {
        return Ok(None);
    }
    let count = index.numel();
    let mut p = Pen(site);
    let (at, grad) = (p.0.nth(1).clone(), p.wide(&p.0.nth(0).clone())?);
    let (Some(at), Some(grad)) = (p.view(&at, std::slice::from_ref(&count))?, p.view(&grad, &[count.clone(), width.clone()])?) else {
        return Ok(None);
    };
    let at = p.cast(&at, DType::Int64)?;
    let mut each = Ex::from(grad);
    let Some(sizes) = p.0.sizes(&[rows.clone(), width.clone()]) else { return Ok(None) };
    if frequent {
        let (Some(number), Some(ones)) = (p.0.sizes(std::slice::from_ref(rows)), p.0.sizes(std::slice::from_ref(&count))) else {
            return Ok(None);
        };
        let none = p.call(op!("aten.full.default"), vec![number, Arg::Float(0.0), Arg::DType(DType::Float32)])?;
        let one = p.call(op!("aten.full.default"), vec![ones, Arg::Float(1.0), Arg::DType(DType::Float32)])?;
        let often = p.call(op!("aten.index_add.default"), vec![none, Arg::Int(0), at.clone(), one])?;
        let often = p.call(op!("aten.index_select.default"), vec![often, Arg::Int(0), at.clone()])?;
        each = each / Ex::from(often).unsqueeze(1i64);
    }
    if padding >= 0 {
        each = Ex::from(&at).eq(padding).unsqueeze(1i64).then(0.0, each);
    }
    let each = p.write(&each)?;
    let dtype = p.ty(&each)?.dtype;
    let none = p.call(op!("aten.full.default"), vec![sizes, Arg::Float(0.0), Arg::DType(dtype)])?;
    let y = p.call(op!("aten.index_add.default"), vec![none, Arg::Int(0), at, each])?;
    p.done(y)
}

/// What was put where the mask is set, in the order in which it was taken. Source: torch.Tensor.masked_scatter.
pub(in crate::decompose) fn masked_scatter(site: &mut Site<'_>) -> Result {
    let (Some(g), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let mut p = Pen(site);
    let (grad, mask) = (p.0.nth(0).clone(), p.0.nth(1).clone());
    let (count, room) = (g.numel(), to.numel());
    let Some(sizes) = p.0.sizes(&g.shape) else { return Ok(None) };
    let mask = if p.ty(&mask)?.shape == g.shape { mask } else { p.call(op!("aten.expand.default"), vec![mask, sizes])? };
    let Some(last) = room.as_int().filter(|&n| n > 0).map(|n| n - 1) else { return Ok(None) };
    let (Some(grad), Some(mask)) = (p.view(&grad, std::slice::from_ref(&count))?, p.view(&mask, std::slice::from_ref(&count))?) else {
        return Ok(None);
    };
    let before = p.call(op!("aten.cumsum.default"), vec![mask.clone(), Arg::Int(0)])?;
    let at = p.write(&Ex::call(op!("aten.clamp.default"), vec![Ex::from(before) - 1i64, 0i64.into(), last.into()]))?;
    let each = p.write(&Ex::from(mask).then(grad, 0.0))?;
    let Some(none) = zeros(&mut p, &[room])? else { return Ok(None) };
    let y = p.call(op!("aten.index_add.default"), vec![none, Arg::Int(0), at, each])?;
    match p.view(&y, &to.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}
