//! Attention and softmax.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::expr::Ex;
use super::pen::Pen;
use super::several::{several, wanted};
use crate::calls::{args, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// `exp(x - max) / sum(exp(x - max))`. Source: torch.nn.Softmax, in its stable form.
pub(super) fn softmax(site: &mut Site<'_>) -> Result {
    let Some(dim) = site.nth(1).as_int().zip(site.operand(0)).and_then(|(d, t)| wrap(d, t.rank())) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let max = p.reduce(op!("aten.amax.default"), &x, &[dim], true)?;
    let shifted = p.sub(&x, &max)?;
    let grown = p.exp(&shifted)?;
    let sum = p.reduce(op!("aten.sum.dim_IntList"), &grown, &[dim], true)?;
    let y = p.div(&grown, &sum)?;
    p.done(y)
}

/// `x - max - log(sum(exp(x - max)))`. Source: torch.nn.LogSoftmax, in its stable form.
pub(super) fn log_softmax(site: &mut Site<'_>) -> Result {
    let Some(dim) = site.nth(1).as_int().zip(site.operand(0)).and_then(|(d, t)| wrap(d, t.rank())) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let max = p.reduce(op!("aten.amax.default"), &x, &[dim], true)?;
    let shifted = p.sub(&x, &max)?;
    let grown = p.exp(&shifted)?;
    let sum = p.reduce(op!("aten.sum.dim_IntList"), &grown, &[dim], true)?;
    let log = p.log(&sum)?;
    let y = p.sub(&shifted, &log)?;
    p.done(y)
}

/// `softmax(q @ kᵀ * scale + mask) @ v`, rows without a single key zero. Source: the reference implementation in the
/// documentation of torch.nn.functional.scaled_dot_product_attention; half types in `f32`, as torch's math path does.
/// Dropout falls on the weights.
pub(super) fn attention(site: &mut Site<'_>) -> Result {
    let Some(dropout) = site.arg("dropout_p").as_float() else { return Ok(None) };
    let mut p = Pen(site);
    let [q, mut k, mut v] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    let (tq, tk) = (p.ty(&q)?, p.ty(&k)?);
    let rank = tq.rank();
    if rank < 2 || tk.rank() != rank {
        return Ok(None);
    }
    if rank >= 3
        && let (Some(hq), Some(hk)) = (tq.shape.get(rank - 3).and_then(Dim::as_int), tk.shape.get(rank - 3).and_then(Dim::as_int))
        && p.0.arg("enable_gqa").as_bool() == Some(true)
        && hq != hk
    {
        if hk == 0 || hq % hk != 0 {
            return Ok(None);
        }
        for x in [&mut k, &mut v] {
            let repeat = op!("aten.repeat_interleave.self_int");
            *x = p.call(repeat, vec![x.clone(), Arg::Int(hq / hk), Arg::Int(rank as i64 - 3)])?;
        }
    }
    let v = p.wide(&v)?;
    let Some(scores) = scores(&mut p, &q, &k)? else { return Ok(None) };
    let hidden = p.0.arg("is_causal").as_bool() != Some(true) && *p.0.arg("attn_mask") != Arg::None;
    let soft = op!("aten._softmax.default");
    let mut weights = p.call(soft, vec![scores.clone(), Arg::Int(rank as i64 - 1), Arg::Bool(false)])?;
    if hidden {
        let nothing = p.eq(&scores, f64::NEG_INFINITY)?;
        let all = p.reduce(op!("aten.all.dims"), &nothing, &[p.ty(&scores)?.rank() - 1], true)?;
        weights = p.select(&all, 0.0, &weights)?;
    }
    if dropout != 0.0 {
        weights = p.call(op!("aten.dropout.default"), vec![weights, Arg::Float(dropout), Arg::Bool(true)])?;
    }
    let y = p.matmul(&weights, &v)?;
    p.done(y)
}

/// The scale that products of queries and keys get.
pub(super) fn scale(p: &Pen<'_, '_>, q: &Arg) -> std::result::Result<Option<f64>, Error> {
    let size = p.ty(q)?.shape.last().and_then(Dim::as_int);
    Ok(p.0.arg("scale").as_float().or(size.map(|n| 1.0 / (n as f64).sqrt())))
}

/// `q @ kᵀ * scale + mask`, what is hidden at minus infinity; in single precision at least.
pub(super) fn scores(p: &mut Pen<'_, '_>, q: &Arg, k: &Arg) -> std::result::Result<Option<Arg>, Error> {
    let (causal, mask) = (p.0.arg("is_causal").as_bool() == Some(true), p.0.arg("attn_mask").clone());
    let (tq, tk) = (p.ty(q)?, p.ty(k)?);
    let (Some(scale), Some(row)) = (scale(p, q)?, tq.rank().checked_sub(2)) else { return Ok(None) };
    let [q, k] = [p.wide(q)?, p.wide(k)?];
    let kt = p.transpose(&k)?;
    let scaled = p.mul(&q, scale)?;
    let scores = p.matmul(&scaled, &kt)?;
    if causal {
        let (Some(rows), Some(columns)) = (length(p, &tq, row), length(p, &tk, row)) else { return Ok(None) };
        let column = p.unsqueeze(&rows, 1)?;
        let seen = p.ge(&column, &columns)?;
        return p.select(&seen, &scores, f64::NEG_INFINITY).map(Some);
    }
    if mask == Arg::None {
        return Ok(Some(scores));
    }
    if p.ty(&mask)?.dtype == DType::Bool {
        return p.select(&mask, &scores, f64::NEG_INFINITY).map(Some);
    }
    let mask = p.wide(&mask)?;
    p.add(&scores, &mask).map(Some)
}

/// Attention and, of every query, the logarithm of the sum of its weights, which derivatives are computed from. Source:
/// torch.nn.functional.scaled_dot_product_attention, of which this is one implementation.
pub(super) fn attention_with_sums(site: &mut Site<'_>) -> Result {
    if site.arg("dropout_p").as_float() != Some(0.0) {
        return Ok(None);
    }
    let attend = op!("aten.scaled_dot_product_attention.default");
    let names = ["query", "key", "value", "attn_mask", "is_causal", "scale"];
    let given: Vec<(&str, Arg)> = names.into_iter().map(|n| (n, site.arg(n).clone())).collect();
    let [q, k] = [0, 1].map(|i| site.nth(i).clone());
    let want = [wanted(site, 0), wanted(site, 1)];
    let mut p = Pen(site);
    let y = if want[0] { p.call(attend, args(attend, [], &given))? } else { Arg::None };
    let mut sums = Arg::None;
    if want[1] {
        let Some(scores) = scores(&mut p, &q, &k)? else { return Ok(None) };
        let last = p.ty(&scores)?.rank() - 1;
        sums = p.reduce(op!("aten.logsumexp.default"), &scores, &[last], false)?;
    }
    several(&mut p, vec![y, sums])
}

/// 0, 1, 2, … as many as the tensor has places along the dimension.
fn length(p: &mut Pen<'_, '_>, t: &etx_ir::graph::TensorType, dim: usize) -> Option<Arg> {
    let n = p.0.size(t.shape.get(dim)?)?;
    let arange = op!("aten.arange.start_step");
    let list = args(arange, [Arg::Int(0), n, Arg::Int(1)], &[("dtype", Arg::DType(DType::Int64))]);
    p.call(arange, list).ok()
}

/// Zero where nothing is left to attend to. Source: torch.ops.aten._safe_softmax, which attention falls apart into.
pub(super) fn safe_softmax(site: &mut Site<'_>) -> Result {
    let Some(dim) = site.nth(1).as_int().zip(site.operand(0)).and_then(|(d, t)| crate::calls::wrap(d, t.rank())) else { return Ok(None) };
    let Some(dtype) = site.result().map(|t| t.dtype) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.cast(&p.0.nth(0).clone(), dtype)?;
    let all = p.0.operand(0).is_some_and(|t| t.rank() > 0).then_some(dim);
    let empty = Ex::from(&x).eq(f64::NEG_INFINITY).reduce(op!("aten.all.dims"), all.as_slice(), true);
    let y = Ex::call(op!("aten._softmax.default"), vec![Ex::from(&x), (dim as i64).into(), Arg::Bool(false).into()]);
    p.ends(&empty.then(0.0, y))
}
