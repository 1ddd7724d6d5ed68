//! Normalisations and softmax.

use etx_ir::DType;
use etx_ir::graph::ValueId;
use etx_ir::sym::{Dim, Expr};
use etx_ir::weights::TensorData;
use etx_mlx::{Instr, IntOrVid, Tid};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::super::derive::batch_norm_line;
use super::Operator;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.rms_norm.default", rms_norm, "RMSNorm; AsType for halves with weights").when("more than one axis is normalised"),
    Operator::new("aten.layer_norm.default", layer_norm, "LayerNorm").when("normalised sizes are symbolic"),
    Operator::new("aten.native_layer_norm.default", layer_norm, "LayerNorm").when("mean or rstd is used"),
    Operator::new("aten.native_group_norm.default", native_group_norm, "Reshape, LayerNorm, Reshape, Multiply, Add")
        .when("mean or rstd is used"),
    Operator::new("aten.group_norm.default", group_norm, "Reshape, LayerNorm, Reshape, Multiply, Add"),
    Operator::new("aten.batch_norm.default", batch_norm, "Multiply, Add; more where statistics are no weights")
        .when("training, or no statistics"),
    Operator::new("aten._native_batch_norm_legit_no_training.default", batch_norm, "Multiply, Add; more where statistics are no weights")
        .when("mean or rstd is used"),
    Operator::new("aten._softmax.default", softmax, "Softmax"),
    Operator::new("aten._log_softmax.default", log_softmax, "LogSumExp, Subtract"),
];

fn optional<'a>(cx: &mut Cx<'a>, call: &Call<'a>, name: &str) -> Res<Option<Tid>> {
    if call.is_none(name) { Ok(None) } else { cx.tensor(call.value(name)?).map(Some) }
}

/// The half-precision value behind a cast to single precision. The instruction computes in single precision whatever it
/// is given, and its result is single if the weight is.
fn before_cast(call: &Call<'_>) -> Res<ValueId> {
    let v = call.value("input")?;
    let single = |name: &str| !call.is_none(name) && call.ty(name).is_ok_and(|t| t.dtype == DType::Float32);
    let made = call.graph.producer(v).map(|id| Call::new(call.graph, id)).filter(|c| c.node.op.target() == "aten._to_copy.default");
    match made {
        Some(cast) if single("weight") && single("input") && matches!(cast.ty("self")?.dtype, DType::Float16 | DType::BFloat16) => {
            cast.value("self")
        }
        _ => Ok(v),
    }
}

fn rms_norm<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(before_cast(&call)?)?;
    if call.exprs("normalized_shape")?.len() != 1 {
        return Err(call.refuse("normalized_shape", "MLX normalises the last axis only"));
    }
    if !call.ty("input")?.dtype.is_float() {
        return Err(call.refuse("input", "must be floating-point"));
    }
    let mut weight = optional(cx, &call, "weight")?;
    if let Some(w) = &mut weight {
        // torch rounds once, after the weight; MLX before it, to the type that comes out. So that is to be the wider one.
        *w = cx.widened(*w)?;
    }
    let eps = rms_epsilon(&call)?;
    cx.define(call.out(0)?, |out| Instr::RMSNorm { x, weight, out, eps })
}

/// Without one torch takes the epsilon of the type it computes in, which is single precision for halves.
fn rms_epsilon(call: &Call<'_>) -> Res<f32> {
    Ok(call.float_or("eps", f64::from(f32::EPSILON))? as f32)
}

/// A product with the weight of a normalisation that has none of its own: what the instruction computes, which rounds before the
/// weight. Says whether the call is one.
pub(super) fn weighted_rms_norm<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<bool> {
    let out = call.out_ty(0)?;
    for (normal, weight) in [("self", "other"), ("other", "self")] {
        let (Ok(v), Ok(w)) = (call.value(normal), call.value(weight)) else { continue };
        let (Ok(t), Ok(w_type)) = (call.ty(normal), call.ty(weight)) else { continue };
        let Some(made) = call.graph.producer(v).map(|id| Call::new(call.graph, id)) else { continue };
        let alone = made.node.op.target() == "aten.rms_norm.default" && made.is_none("weight") && call.graph.value(v).use_count() == 1;
        if alone
            && t.same_as(out)
            && w_type.dtype == t.dtype
            && w_type.shape.as_slice() == t.shape.last().map_or(&[][..], std::slice::from_ref)
        {
            let (x, weight, eps) = (cx.tensor(made.value("input")?)?, Some(cx.tensor(w)?), rms_epsilon(&made)?);
            cx.define(call.out(0)?, |out| Instr::RMSNorm { x, weight, out, eps })?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Over the last axes, which are taken as one.
fn layer_norm<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    if call.is_used(1) || call.is_used(2) {
        return Err(call.refuse("input", "mean and rstd are not among MLX's results"));
    }
    let mut x = cx.tensor(call.value("input")?)?;
    let ty = call.ty("input")?;
    let eps = call.float_or("eps", 1e-5)? as f32;
    let (mut weight, mut bias) = (optional(cx, &call, "weight")?, optional(cx, &call, "bias")?);
    let normalised = call.exprs("normalized_shape")?.len();
    if normalised == 1 {
        return cx.define(call.out(0)?, |out| Instr::LayerNorm { x, out, weight, bias, eps });
    }
    let lead = ty.rank().saturating_sub(normalised);
    // Written out: what is left over cannot be inferred where there are no rows.
    let mut flat = ty.shape[..lead].to_vec();
    flat.push(Expr::product(&ty.shape[lead..]));
    let (whole, flat) = (x, cx.reshape_dims(&flat)?);
    x = cx.temp(|out| Instr::Reshape { x: whole, out, shape: flat });
    for t in [&mut weight, &mut bias].into_iter().flatten() {
        let from = *t;
        *t = cx.once(from, "flat", |out| Instr::Reshape { x: from, out, shape: vec![(-1).into()] });
    }
    let normal = cx.temp(|out| Instr::LayerNorm { x, out, weight, bias, eps });
    let shape = cx.reshape_dims(&ty.shape)?;
    cx.define(call.out(0)?, |out| Instr::Reshape { x: normal, out, shape })
}

/// A vector over channels, shaped to meet `[N, C, …]`: when the program is made, if it is a constant.
fn per_channel(cx: &mut Cx<'_>, t: Tid, rank: usize) -> Res<Tid> {
    if let Some((name, data)) = cx.constant_of(t)
        && let [channels] = *data.shape()
    {
        let mut sizes = vec![1, channels];
        sizes.extend(std::iter::repeat_n(1, rank.saturating_sub(2)));
        let shaped = data.reinterpret(data.dtype(), sizes).map_err(|e| Refusal::new(e.to_string()))?;
        let name = name.to_owned();
        return cx.constant(&name, shaped);
    }
    let mut shape = vec![IntOrVid::Int(1), IntOrVid::Int(-1)];
    shape.extend(std::iter::repeat_n(IntOrVid::Int(1), rank.saturating_sub(2)));
    Ok(cx.once(t, &format!("channels of {rank}"), |out| Instr::Reshape { x: t, out, shape }))
}

fn native_group_norm<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    if call.is_used(1) || call.is_used(2) {
        return Err(call.refuse("input", "mean and rstd are not among MLX's results"));
    }
    groups(cx, call, "group")
}

fn group_norm<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    groups(cx, call, "num_groups")
}

fn groups<'a>(cx: &mut Cx<'a>, call: Call<'a>, name: &str) -> Res {
    let x = cx.tensor(call.value("input")?)?;
    let ty = call.ty("input")?;
    let eps = call.float_or("eps", 1e-5)? as f32;
    if ty.rank() < 2 {
        return Err(call.refuse("input", "needs a batch and channels"));
    }
    let groups = call.int(name)?;
    let n = cx.int(&ty.shape[0].times(&Expr::Int(groups)))?;
    // Where there may be no rows, MLX cannot tell what is left for a row.
    let row = match ty.shape[1].as_int().and_then(|channels| channels.checked_div(groups)) {
        Some(channels) if cx.may_be_zero(&ty.shape[0]) => {
            let row = ty.shape[2..].iter().fold(Expr::Int(channels), |row, n| row.times(n));
            cx.int(&row)?
        }
        _ => (-1).into(),
    };
    let grouped = cx.temp(|out| Instr::Reshape { x, out, shape: vec![n, row] });
    let normal = cx.temp(|out| Instr::LayerNorm { x: grouped, out, weight: None, bias: None, eps });
    let shape = cx.reshape_dims(&ty.shape)?;
    let (weight, bias) = (optional(cx, &call, "weight")?, optional(cx, &call, "bias")?);
    let mut y = cx.temp(|out| Instr::Reshape { x: normal, out, shape });
    if let Some(w) = weight {
        let (a, b) = (y, per_channel(cx, w, ty.rank())?);
        y = cx.temp(|out| Instr::Multiply { a, b, out });
    }
    if let Some(w) = bias {
        let (a, b) = (y, per_channel(cx, w, ty.rank())?);
        y = cx.temp(|out| Instr::Add { a, b, out });
    }
    cx.bind(call.out(0)?, y)
}

/// Scale and shift of a batch norm whose statistics and parameters are all weights: torch, too, multiplies by one number
/// and adds another, both in single precision.
fn folded<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Option<(Tid, Tid)>> {
    let mut parts = Vec::new();
    for name in ["running_mean", "running_var", "weight", "bias"] {
        if call.is_none(name) {
            parts.push(None);
            continue;
        }
        let v = call.value(name)?;
        match cx.weight(v) {
            Some((_, data)) => parts.push(Some((v, data))),
            None => return Ok(None),
        }
    }
    let [Some(mean), Some(var), weight, bias] = parts[..] else { return Ok(None) };
    for (v, _) in [Some(mean), Some(var), weight, bias].into_iter().flatten() {
        cx.depends(v);
    }
    let eps = call.float_or("eps", 1e-5)?;
    let rank = call.ty("input")?.rank();
    let data = |p: Option<(ValueId, &TensorData)>| p.map(|(_, d)| d.clone());
    let name = cx.weight(var.0).map_or("batch_norm", |(n, _)| n).to_owned();
    let (scale, shift) = batch_norm_line(mean.1, var.1, data(weight), data(bias), eps, rank).map_err(|e| Refusal::new(e.to_string()))?;
    Ok(Some((cx.constant(&format!("{name}_scale"), scale)?, cx.constant(&format!("{name}_shift"), shift)?)))
}

/// `(x - mean) * rsqrt(var + eps) * weight + bias`, a channel at a time.
fn batch_norm<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    if call.is_used(1) || call.is_used(2) {
        return Err(call.refuse("input", "mean and rstd are not among MLX's results"));
    }
    if call.flag("training")? || call.is_none("running_mean") || call.is_none("running_var") {
        return Err(call.refuse("training", "statistics of the batch").remedy("export the model in eval mode"));
    }
    let x = cx.tensor(call.value("input")?)?;
    let ty = call.ty("input")?;
    if let Some((scale, shift)) = folded(cx, &call)? {
        let scaled = cx.temp(|out| Instr::Multiply { a: x, b: scale, out });
        return cx.define(call.out(0)?, |out| Instr::Add { a: scaled, b: shift, out });
    }
    let (mean, var) = (cx.tensor(call.value("running_mean")?)?, cx.tensor(call.value("running_var")?)?);
    let (weight, bias) = (optional(cx, &call, "weight")?, optional(cx, &call, "bias")?);
    // torch computes halves in single precision and rounds once: statistics that are single make all after them so.
    let (mean, var) = (cx.cast(mean, DType::Float32)?, cx.cast(var, DType::Float32)?);
    let eps = cx.scalar(call.float_or("eps", 1e-5)?, cx.dtype(var))?;
    let variance = cx.temp(|out| Instr::Add { a: var, b: eps, out });
    let mut scale = cx.temp(|out| Instr::Rsqrt { x: variance, out });
    if let Some(b) = weight {
        let a = scale;
        scale = cx.temp(|out| Instr::Multiply { a, b, out });
    }
    let (b, scale) = (per_channel(cx, mean, ty.rank())?, per_channel(cx, scale, ty.rank())?);
    let centred = cx.temp(|out| Instr::Subtract { a: x, b, out });
    let mut y = cx.temp(|out| Instr::Multiply { a: centred, b: scale, out });
    if let Some(w) = bias {
        let (a, b) = (y, per_channel(cx, w, ty.rank())?);
        y = cx.temp(|out| Instr::Add { a, b, out });
    }
    cx.bind(call.out(0)?, y)
}

fn softmax<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let to = call.out_ty(0)?;
    let x = cx.cast(x, to.dtype)?;
    if to.rank() == 0 {
        // Of one element: 1, whatever it is, but NaN stays NaN.
        let zero = cx.temp(|out| Instr::Subtract { a: x, b: x, out });
        return cx.define(call.out(0)?, |out| Instr::Exp { x: zero, out });
    }
    let axis = call.axis("dim", to.rank())? as i32;
    // torch sums halves in single precision.
    cx.define(call.out(0)?, |out| Instr::Softmax { x, out, axis, precise: to.dtype.size() < 4 })
}

fn log_softmax<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let to = call.out_ty(0)?;
    let x = cx.cast(x, to.dtype)?;
    // The sum of exponentials is rounded in the type it is computed in; torch rounds halves once, at the end.
    let x = cx.widened(x)?;
    if to.rank() == 0 {
        return cx.define(call.out(0)?, |out| Instr::Subtract { a: x, b: x, out });
    }
    let axis = call.axis("dim", to.rank())?;
    let whole = never_empty(cx, x, &to.shape, &[axis])?;
    let total = cx.temp(|out| Instr::LogSumExp { x: whole, out, axes: Some(vec![axis as i32]), keepdims: true });
    cx.define(call.out(0)?, |out| Instr::Subtract { a: x, b: total, out })
}

/// The slot with one more element along those of `axes` that may have none: it adds nothing to a sum of exponentials, which MLX cannot
/// take of nothing.
pub(super) fn never_empty(cx: &mut Cx<'_>, x: Tid, shape: &[Dim], axes: &[usize]) -> Res<Tid> {
    let axes: Vec<usize> = axes.iter().copied().filter(|&axis| cx.may_be_zero(&shape[axis])).collect();
    if axes.is_empty() {
        return Ok(x);
    }
    let mut pad_width = vec![IntOrVid::Int(0); 2 * shape.len()];
    axes.iter().for_each(|axis| pad_width[2 * axis + 1] = IntOrVid::Int(1));
    Ok(cx.temp(|out| Instr::Pad { x, out, pad_width, mode: "constant".to_owned(), constant_value: f32::NEG_INFINITY }))
}
