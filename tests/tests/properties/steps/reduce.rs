//! Reductions, and what runs along a dimension.

use etx::ir::DType;
use etx::ir::args;
use etx::ir::graph::Arg;

use super::{Made, axes, float, number};
use crate::make::Maker;

pub(super) fn total(m: &mut Maker) -> Made {
    let name = m.rng.of(&["sum", "sum", "mean", "logsumexp", "prod", "count_nonzero", "nansum"]);
    let a = m.pick(|t, e| match name {
        "mean" | "logsumexp" | "nansum" => float(t),
        "count_nonzero" => e,
        _ => true,
    })?;
    let whole = !float(m.ty(a.id));
    let (axes, keep) = (axes(m, a.id), m.rng.one_in(2));
    let dtype = if m.rng.one_in(5) { Some(m.dtype()) } else { None };
    let dtype = dtype.filter(|t| t.is_float() || a.exact && whole && *t != DType::Bool);
    let named: Vec<(&str, Arg)> = dtype.map(|t| ("dtype", t.into())).into_iter().collect();
    let whole = whole && dtype.is_none_or(|t| !t.is_float());
    let values = match name {
        "sum" | "mean" if m.rng.one_in(3) => m.call_with(&format!("aten.{name}.default"), args![a.id], named)?,
        "sum" => m.call_with("aten.sum.dim_IntList", args![a.id, axes, keep], named)?,
        "nansum" => m.call("aten.nansum.default", args![a.id, axes, keep])?,
        "mean" => m.call_with(
            "aten.mean.dim",
            args![a.id, axes, keep],
            named.into_iter().filter(|(_, t)| matches!(t, Arg::DType(t) if t.is_float())),
        )?,
        "logsumexp" => m.call("aten.logsumexp.default", args![a.id, axes, keep])?,
        "count_nonzero" => m.call("aten.count_nonzero.dim_IntList", args![a.id, axes])?,
        _ if m.rng.one_in(3) => m.call_with("aten.prod.default", args![a.id], named)?,
        _ => {
            let (_, axis) = m.axis(a.id)?;
            m.call_with("aten.prod.dim_int", args![a.id, axis, keep], named)?
        }
    };
    Some((values, whole || name == "count_nonzero"))
}

pub(super) fn extreme(m: &mut Maker) -> Made {
    let name = m.rng.of(&["amax", "amin", "argmax", "argmin", "max", "min", "aminmax"]);
    let a = m.pick(|t, e| (number(t) || name.starts_with("am")) && (e || name.starts_with("am")))?;
    let keep = m.rng.one_in(2);
    let values = match name {
        "amax" | "amin" => {
            let axes = axes(m, a.id);
            m.call(&format!("aten.{name}.default"), args![a.id, axes, keep])?
        }
        "argmax" | "argmin" if m.rng.one_in(3) => m.call(&format!("aten.{name}.default"), args![a.id])?,
        "argmax" | "argmin" => {
            let (_, axis) = m.axis(a.id)?;
            m.call(&format!("aten.{name}.default"), args![a.id, axis, keep])?
        }
        "aminmax" => {
            let (_, axis) = m.axis(a.id)?;
            m.call_with("aten.aminmax.default", args![a.id], [("dim", axis.into()), ("keepdim", keep.into())])?
        }
        _ if m.rng.one_in(2) => m.call(&format!("aten.{name}.default"), args![a.id])?,
        _ => {
            let (_, axis) = m.axis(a.id)?;
            m.call(&format!("aten.{name}.dim"), args![a.id, axis, keep])?
        }
    };
    Some((values, a.exact))
}

pub(super) fn truth(m: &mut Maker) -> Made {
    let a = m.pick(|_, e| e)?;
    let name = m.rng.of(&["any", "all"]);
    let keep = m.rng.one_in(2);
    let values = match m.rng.below(3) {
        0 => m.call(&format!("aten.{name}.default"), args![a.id])?,
        1 => {
            let axes = axes(m, a.id);
            m.call(&format!("aten.{name}.dims"), args![a.id, axes, keep])?
        }
        _ => {
            let (_, axis) = m.axis(a.id)?;
            m.call(&format!("aten.{name}.dim"), args![a.id, axis, keep])?
        }
    };
    Some((values, true))
}

pub(super) fn spread(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| float(t))?;
    let (name, axes, keep) = (m.rng.of(&["var", "std", "var_mean", "std_mean"]), axes(m, a.id), m.rng.one_in(2));
    let values = match m.rng.below(3) {
        0 => m.call(&format!("aten.{name}.default"), args![a.id, keep])?,
        1 => m.call(&format!("aten.{name}.dim"), args![a.id, axes, false, keep])?,
        _ => {
            let correction = m.rng.of(&[0i64, 1, 2]);
            let named = [("correction", correction.into()), ("keepdim", keep.into())];
            m.call_with(&format!("aten.{name}.correction"), args![a.id, axes], named)?
        }
    };
    Some((values, false))
}

pub(super) fn softmax(m: &mut Maker) -> Made {
    // With infinity among them, all are NaN in torch, and only some in MLX.
    let a = m.pick(|t, _| float(t)).filter(|_| !m.wild)?;
    let axis = m.axis(a.id).map_or(0, |(_, axis)| axis);
    let target = m.rng.of(&["aten.softmax.int", "aten.log_softmax.int"]);
    let list = if m.rng.one_in(4) { args![a.id, axis, DType::Float32] } else { args![a.id, axis] };
    Some((m.call(target, list)?, false))
}

pub(super) fn running(m: &mut Maker) -> Made {
    let name = m.rng.of(&["cumsum", "cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "diff"]);
    let a = m.pick(|t, e| match name {
        "logcumsumexp" => float(t),
        "cummax" | "cummin" => number(t) && e,
        "diff" => number(t),
        _ => true,
    })?;
    let axis = m.axis(a.id).map_or(0, |(_, axis)| axis);
    let whole = !float(m.ty(a.id));
    let values = match name {
        "diff" => m.call("aten.diff.default", args![a.id, 1, axis])?,
        "cumsum" | "cumprod" if m.rng.one_in(4) => {
            let dtype = m.rng.of(&[DType::Float32, DType::Float32, DType::BFloat16]);
            let values = m.call_with(&format!("aten.{name}.default"), args![a.id, axis], [("dtype", dtype.into())])?;
            return Some((values, false));
        }
        _ => m.call(&format!("aten.{name}.default"), args![a.id, axis])?,
    };
    // Where values are equal, the position is the last one: of these, too.
    Some((values, whole || matches!(name, "cummax" | "cummin")))
}

pub(super) fn order(m: &mut Maker) -> Made {
    let a = m.pick(|t, e| number(t) && e && t.rank() > 0)?;
    let (axis, number) = m.axis(a.id)?;
    let descending = m.rng.one_in(2);
    // Where values are equal, positions are anybody's guess: only values are looked at.
    let values = match m.rng.below(4) {
        0 => m.call("aten.sort.default", args![a.id, number, descending])?,
        1 => {
            let named = [("stable", true.into()), ("dim", number.into()), ("descending", descending.into())];
            m.call_with("aten.sort.stable", args![a.id], named)?
        }
        2 => m.call("aten.median.dim", args![a.id, number, descending])?,
        _ => {
            let n = m.ty(a.id).shape.get(axis)?.as_int().filter(|n| *n > 0)?;
            let k = m.rng.between(1, n);
            m.call("aten.topk.default", args![a.id, k, number, descending])?
        }
    };
    Some((values.into_iter().take(1).collect(), true))
}

pub(super) fn length(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| float(t))?;
    let (axes, keep) = (axes(m, a.id), m.rng.one_in(2));
    let p = m.rng.of(&[2.0, 1.0, 0.0, f64::INFINITY, 3.0]);
    if p == 0.0 && !a.exact {
        return None;
    }
    Some((m.call("aten.linalg_vector_norm.default", args![a.id, p, axes, keep])?, false))
}
