//! Normalisation, softmax, recurrent layers.

use super::cx::{Cx, Inferred, one, tensor};
use crate::DType;
use crate::error::Error;
use crate::graph::TensorType;
use crate::sym::Expr;

/// Softmax and its logarithm: the operand's type or `dtype`.
pub(super) fn softmax(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    c.axis("dim", t.rank())?;
    let dtype = if c.flag("half_to_float") { DType::Float32 } else { c.dtype("dtype").unwrap_or(t.dtype) };
    one(dtype, t.shape.clone())
}

/// Checks that the last dimensions are those normalised over; gives the shape with 1 in their place.
fn normalised(c: &Cx, t: &TensorType) -> Result<Vec<Expr>, Error> {
    let over = c.sizes("normalized_shape")?;
    let lead = t.rank().checked_sub(over.len()).filter(|_| !over.is_empty());
    let lead = lead.ok_or_else(|| c.fail(format!("{} normalised dimensions of a tensor of rank {}", over.len(), t.rank())))?;
    let (kept, last) = t.shape.split_at(lead);
    for (have, n) in last.iter().zip(&over) {
        c.same(have, n, "normalised sizes")?;
    }
    Ok(kept.iter().cloned().chain(over.iter().map(|_| Expr::Int(1))).collect())
}

/// Normalisation over the last dimensions.
pub(super) fn layer_norm(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    normalised(c, t)?;
    one(t.dtype, t.shape.clone())
}

/// The type of statistics: that of the operand, but of single precision when the weights are (mixed precision).
fn statistics(c: &Cx, t: &TensorType) -> Result<DType, Error> {
    for name in ["weight", "bias"] {
        if let Some(w) = c.maybe_tensor(name)? {
            return Ok(if w.dtype == t.dtype { t.dtype } else { DType::Float32 });
        }
    }
    Ok(t.dtype)
}

/// Normalisation over the last dimensions, mean and reciprocal deviation.
pub(super) fn native_layer_norm(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (kept, dtype) = (normalised(c, t)?, statistics(c, t)?);
    Ok(vec![tensor(t.dtype, t.shape.clone()), tensor(dtype, kept.clone()), tensor(dtype, kept)])
}

/// RMS normalisation and the reciprocal root, which is computed in single precision at least.
pub(super) fn fused_rms_norm(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let wide = if t.dtype == DType::Float64 { t.dtype } else { DType::Float32 };
    Ok(vec![tensor(t.dtype, t.shape.clone()), tensor(wide, normalised(c, t)?)])
}

/// Normalisation of groups of channels.
pub(super) fn group_norm(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let groups = c.int("num_groups")?;
    match t.shape.get(1).map(|channels| channels.modulo(&groups.into()).as_int()) {
        None => Err(c.fail(format!("input of rank {}, need 2 or more", t.rank()))),
        Some(Some(1..)) => Err(c.fail(format!("channels do not divide into {groups} groups"))),
        _ => one(t.dtype, t.shape.clone()),
    }
}

/// Normalisation of groups of channels, mean and reciprocal deviation.
pub(super) fn native_group_norm(c: &Cx) -> Inferred {
    let (t, dtype) = (c.tensor(0)?, statistics(c, c.tensor(0)?)?);
    let kept = vec![c.size("N")?, c.size("group")?];
    Ok(vec![tensor(t.dtype, t.shape.clone()), tensor(dtype, kept.clone()), tensor(dtype, kept)])
}

fn channels(c: &Cx, t: &TensorType) -> Result<Expr, Error> {
    let n = t.shape.get(1).cloned().ok_or_else(|| c.fail(format!("input of rank {}, need 2 or more", t.rank())))?;
    for name in ["weight", "bias", "running_mean", "running_var"] {
        if let Some(w) = c.maybe_tensor(name)? {
            let [size] = w.shape.as_slice() else { return Err(c.fail(format!("`{name}` must be a vector"))) };
            c.same(&n, size, "channels")?;
        }
    }
    Ok(n)
}

/// Normalisation of channels.
pub(super) fn batch_norm(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    channels(c, t)?;
    one(t.dtype, t.shape.clone())
}

/// Normalisation of channels with the statistics it used, of which there are none outside of training, and for the
/// functional form the running statistics.
pub(super) fn batch_norm_with_statistics(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let n = channels(c, t)?;
    let training = c.schema.position("training").is_some() && c.flag("training");
    let weight = c.maybe_tensor("weight")?.or(c.maybe_tensor("running_mean")?);
    let dtype = weight.map_or(t.dtype, |w| w.dtype);
    let saved = tensor(dtype, vec![if training { n } else { Expr::Int(0) }]);
    let mut results = vec![tensor(t.dtype, t.shape.clone()), saved.clone(), saved];
    if c.schema.returns.len() == 5 {
        for name in ["running_mean", "running_var"] {
            let stats = c.tensor(name)?;
            results.push(tensor(stats.dtype, stats.shape.clone()));
        }
    }
    Ok(results)
}

/// Cosine similarity: a dimension of the broadcast operands goes.
pub(super) fn similarity(c: &Cx) -> Inferred {
    let mut shape = c.broadcast([c.tensor(0)?.shape.as_slice(), &c.tensor(1)?.shape])?;
    let axis = c.axis("dim", shape.len())?;
    if !shape.is_empty() {
        shape.remove(axis);
    }
    one(super::promote::to_float(c.promoted(&[c.operand(0)?, c.operand(1)?])?), shape)
}

/// A recurrent layer over a sequence: outputs, then the last state of each kind (`lstm` has two, in a list).
pub(super) fn recurrent(c: &Cx) -> Inferred {
    let x = c.tensor(0)?;
    let states = if c.arg("hx").as_list().is_some() { c.tensors("hx")? } else { vec![c.tensor("hx")?] };
    let features = states.first().and_then(|h| h.shape.last()).ok_or_else(|| c.fail("states without features"))?;
    let directions = Expr::Int(if c.flag("bidirectional") { 2 } else { 1 });
    let Some((_, steps)) = x.shape.split_last() else { return Err(c.fail("a scalar is no sequence")) };
    let out = tensor(x.dtype, steps.iter().cloned().chain([features.times(&directions)]).collect());
    Ok(std::iter::once(out).chain(states.iter().map(|s| tensor(s.dtype, s.shape.clone()))).collect())
}

/// One step of a recurrent layer: the new state of each kind.
pub(super) fn recurrent_cell(c: &Cx) -> Inferred {
    let states = if c.arg("hx").as_list().is_some() { c.tensors("hx")? } else { vec![c.tensor("hx")?] };
    Ok(states.iter().map(|s| tensor(s.dtype, s.shape.clone())).collect())
}
