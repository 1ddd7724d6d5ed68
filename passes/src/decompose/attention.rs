//! Attention and softmax.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::expr::Ex;
use super::pen::Pen;
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
    let causal = site.arg("is_causal").as_bool() == Some(true);
    let (mask, scale) = (site.arg("attn_mask").clone(), site.arg("scale").as_float());
    let mut p = Pen(site);
    let [q, k, v] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    let (tq, tk) = (p.ty(&q)?, p.ty(&k)?);
    let rank = tq.rank();
    if rank < 2 || tk.rank() != rank {
        return Ok(None);
    }
    let Some(size) = tq.shape.last().and_then(Dim::as_int) else { return Ok(None) };
    let scale = scale.unwrap_or(1.0 / (size as f64).sqrt());
    let (mut k, mut v) = (k, v);
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
    let [q, k, v] = [p.wide(&q)?, p.wide(&k)?, p.wide(&v)?];
    let kt = p.transpose(&k)?;
    let scaled = p.mul(&q, scale)?;
    let mut scores = p.matmul(&scaled, &kt)?;
    let mut hidden = false;
    if causal {
        let (Some(rows), Some(columns)) = (length(&mut p, &tq, rank - 2), length(&mut p, &tk, rank - 2)) else { return Ok(None) };
        let column = p.unsqueeze(&rows, 1)?;
        let seen = p.ge(&column, &columns)?;
        scores = p.select(&seen, &scores, f64::NEG_INFINITY)?;
    } else if mask != Arg::None {
        scores = if p.ty(&mask)?.dtype == DType::Bool {
            hidden = true;
            p.select(&mask, &scores, f64::NEG_INFINITY)?
        } else {
            hidden = true;
            let mask = p.wide(&mask)?;
            p.add(&scores, &mask)?
        };
    }
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
