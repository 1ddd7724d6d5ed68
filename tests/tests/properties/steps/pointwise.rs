//! What works element by element.

use etx::ir::DType;
use etx::ir::args;
use etx::ir::graph::Arg;

use super::{Made, float, number, operand, partner, scalar};
use crate::make::{Fill, Maker};

pub(super) fn function(m: &mut Maker) -> Made {
    const SMOOTH: &[&str] = &[
        "exp", "sigmoid", "tanh", "erf", "erfc", "gelu", "silu", "sin", "cos", "atan", "asinh", "expm1", "mish", "exp2", "sinc", "deg2rad",
        "rad2deg",
    ];
    // Near their poles these are steep: only of exact values.
    const STEEP: &[&str] = &[
        "log",
        "log1p",
        "sqrt",
        "rsqrt",
        "reciprocal",
        "tan",
        "log2",
        "log10",
        "acos",
        "asin",
        "atanh",
        "acosh",
        "sinh",
        "cosh",
        "logit",
        "erfinv",
    ];
    const EXACT: &[&str] = &["neg", "abs", "relu", "square", "clone", "hardtanh", "leaky_relu", "relu6", "positive", "nan_to_num"];
    // Of whole numbers these are floats.
    const OF_INTEGERS: &[&str] =
        &["exp", "sigmoid", "tanh", "sin", "sqrt", "reciprocal", "rsqrt", "log", "erf", "atan", "exp2", "expm1", "abs"];
    let (names, kind) = m.rng.of(&[(SMOOTH, 0), (STEEP, 1), (EXACT, 2), (OF_INTEGERS, 3)]);
    let name = m.rng.of(names);
    let k = match kind {
        0 => m.pick(|t, _| float(t)),
        1 => m.pick(|t, e| float(t) && e),
        2 => m.pick(|t, _| number(t)),
        _ => m.pick(|t, e| !float(t) && e),
    }?;
    Some((m.call(&format!("aten.{name}.default"), args![k.id])?, kind == 2 && k.exact))
}

pub(super) fn activation(m: &mut Maker) -> Made {
    let k = m.pick(|t, _| float(t))?;
    let name = m.rng.of(&[
        "elu",
        "softplus",
        "celu",
        "selu",
        "hardswish",
        "hardsigmoid",
        "log_sigmoid",
        "glu",
        "prelu",
        "threshold",
        "leaky_relu",
        "hardtanh",
        "gelu",
        "softshrink",
        "hardshrink",
        "dropout",
    ]);
    let target = format!("aten.{name}.default");
    let values = match name {
        "glu" => {
            let (_, axis) = m.axis(k.id)?;
            m.call(&target, args![k.id, axis])?
        }
        "prelu" => {
            let dtype = m.ty(k.id).dtype;
            let n = m.ty(k.id).shape.get(1).cloned().unwrap_or_else(|| 1.into());
            let sizes = vec![if m.rng.one_in(2) { 1.into() } else { n }];
            let weight = m.fresh(dtype, sizes);
            m.call(&target, args![k.id, weight])?
        }
        "threshold" if k.exact => m.call(&target, args![k.id, 0.5, 2.0])?,
        "threshold" => return None,
        "leaky_relu" => m.call(&target, args![k.id, 0.25])?,
        "elu" | "celu" => m.call(&target, args![k.id, 0.5])?,
        "softplus" => m.call(&target, args![k.id, 2, 1])?,
        "hardtanh" => m.call(&target, args![k.id, -0.5, 1.5])?,
        "softshrink" | "hardshrink" if !k.exact => return None,
        "gelu" => m.call_with(&target, args![k.id], [("approximate", Arg::Str("tanh".into()))])?,
        "dropout" => m.call(&target, args![k.id, 0.5, false])?,
        _ => m.call(&target, args![k.id])?,
    };
    Some((values, false))
}

pub(super) fn rounding(m: &mut Maker) -> Made {
    if m.rng.one_in(4) {
        let k = m.pick(|t, e| number(t) && e)?;
        let name = m.rng.of(&["floor", "ceil", "trunc", "round", "sign"]);
        return Some((m.call(&format!("aten.{name}.default"), args![k.id])?, true));
    }
    let k = m.pick(|t, e| float(t) && e)?;
    let name = m.rng.of(&["floor", "ceil", "trunc", "round", "sign", "frac", "fix"]);
    Some((m.call(&format!("aten.{name}.default"), args![k.id])?, true))
}

pub(super) fn arithmetic(m: &mut Maker) -> Made {
    let name = m.rng.of(&["add", "sub", "mul", "rsub"]);
    let a = if m.rng.one_in(6) { m.pick(|_, _| true)? } else { operand(m, number) };
    let dtype = m.ty(a.id).dtype;
    if name == "rsub" || m.rng.one_in(3) {
        let x = scalar(m, dtype);
        let target = if m.rng.one_in(2) || name == "rsub" { format!("aten.{name}.Scalar") } else { format!("aten.{name}.Tensor") };
        let mut arguments = vec![a.id.into(), x];
        if name != "mul" && m.rng.one_in(4) {
            arguments.push(m.rng.of(&[2i64, 3, -1]).into());
        }
        return Some((m.call(&target, arguments)?, a.exact));
    }
    let other = if m.rng.one_in(3) { m.dtype() } else { dtype };
    let b = partner(m, a.id, other);
    let mut arguments = args![a.id, b.id];
    if name != "mul" && m.rng.one_in(4) {
        let both = dtype.is_float() || m.ty(b.id).dtype.is_float();
        arguments.push(if both && m.rng.one_in(2) { Arg::Float(0.5) } else { Arg::Int(m.rng.of(&[2, -1])) });
    }
    Some((m.call(&format!("aten.{name}.Tensor"), arguments)?, a.exact && b.exact))
}

pub(super) fn pair(m: &mut Maker) -> Made {
    let a = operand(m, number);
    let dtype = m.ty(a.id).dtype;
    let other = if m.rng.one_in(4) { m.dtype() } else { dtype };
    let b = partner(m, a.id, other);
    let exact = a.exact && b.exact;
    let name = m.rng.of(&[
        "maximum.default",
        "minimum.default",
        "max.other",
        "min.other",
        "fmax.default",
        "fmin.default",
        "atan2.default",
        "hypot.default",
        "copysign.Tensor",
        "logaddexp.default",
        "xlogy.Tensor",
        "heaviside.default",
        "gcd.default",
        "ldexp.Tensor",
    ]);
    let values = match name {
        // Where the result jumps, both must be what they are.
        "atan2.default" | "copysign.Tensor" | "xlogy.Tensor" | "heaviside.default" if !exact => return None,
        // Of integers torch has none.
        "hypot.default" if !dtype.is_float() && !m.ty(b.id).dtype.is_float() => return None,
        _ => m.call(&format!("aten.{name}"), args![a.id, b.id])?,
    };
    let rounded = matches!(name, "atan2.default" | "hypot.default" | "logaddexp.default" | "xlogy.Tensor");
    Some((values, exact && !rounded))
}

pub(super) fn division(m: &mut Maker) -> Made {
    let a = m.pick(|t, e| number(t) && e)?;
    let dtype = m.ty(a.id).dtype;
    let target =
        m.rng.of(&["aten.div.Tensor", "aten.floor_divide.default", "aten.remainder.Tensor", "aten.fmod.Tensor", "aten.div.Tensor_mode"]);
    let moded = target.ends_with("mode");
    let mode = m.rng.of(&["floor", "trunc"]);
    let b = if m.rng.one_in(2) {
        let n = m.rng.of(&[-3i64, 2, 4, 5]);
        let fractional = dtype.is_float() || m.rng.one_in(4);
        if fractional { Arg::Float(n as f64 / 2.0) } else { Arg::Int(n) }
    } else {
        let other = if m.rng.one_in(4) && !m.wild { m.dtype() } else { dtype };
        let b = partner(m, a.id, other);
        if !b.exact {
            return None;
        }
        Arg::Value(b.id)
    };
    if moded {
        return Some((m.call_with(target, vec![a.id.into(), b], [("rounding_mode", Arg::Str(mode.into()))])?, true));
    }
    // A quotient is rounded, and what rounds it again may tell one last bit from another.
    let exact = target != "aten.div.Tensor";
    Some((m.call(target, vec![a.id.into(), b])?, exact))
}

pub(super) fn power(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| number(t))?;
    let dtype = m.ty(a.id).dtype;
    match m.rng.below(4) {
        0 | 1 => {
            let n = m.rng.of(&[0i64, 1, 2, 3]);
            Some((m.call("aten.pow.Tensor_Scalar", args![a.id, n])?, a.exact && n < 3))
        }
        // Halves are raised to powers where others have their roots taken, which differ at negative infinity.
        2 if a.exact && !(m.wild && dtype == DType::Float16) => {
            let x = m.rng.of(&[0.5, -1.0, -0.5, 1.5]);
            Some((m.call("aten.pow.Tensor_Scalar", args![a.id, x])?, false))
        }
        2 => None,
        _ => {
            let shape = m.ty(a.id).shape.clone();
            let signed = dtype.is_int() && dtype != DType::UInt8;
            let exponents = m.input(dtype, shape, if signed { Fill::Signed(3) } else { Fill::Below(3) });
            Some((m.call("aten.pow.Tensor_Tensor", args![a.id, exponents])?, !dtype.is_float() && a.exact))
        }
    }
}

pub(super) fn comparison(m: &mut Maker) -> Made {
    let a = m.pick(|_, e| e)?;
    let name = m.rng.of(&["eq", "ne", "lt", "le", "gt", "ge"]);
    let dtype = m.ty(a.id).dtype;
    if m.rng.one_in(2) {
        let x = scalar(m, dtype);
        return Some((m.call(&format!("aten.{name}.Scalar"), vec![a.id.into(), x])?, true));
    }
    let other = if m.rng.one_in(4) { m.dtype() } else { dtype };
    let b = partner(m, a.id, other);
    if !b.exact {
        return None;
    }
    Some((m.call(&format!("aten.{name}.Tensor"), args![a.id, b.id])?, true))
}

pub(super) fn test(m: &mut Maker) -> Made {
    let a = m.pick(|_, e| e)?;
    let name = m.rng.of(&["isnan", "isinf", "isfinite", "signbit", "isposinf", "isneginf"]);
    Some((m.call(&format!("aten.{name}.default"), args![a.id])?, true))
}

pub(super) fn logic(m: &mut Maker) -> Made {
    let a = m.pick(|_, e| e)?;
    if m.rng.one_in(3) {
        return Some((m.call("aten.logical_not.default", args![a.id])?, true));
    }
    let dtype = if m.rng.one_in(4) { m.dtype() } else { m.ty(a.id).dtype };
    let b = partner(m, a.id, dtype);
    let name = m.rng.of(&["and", "or", "xor"]);
    if !b.exact {
        return None;
    }
    Some((m.call(&format!("aten.logical_{name}.default"), args![a.id, b.id])?, true))
}

pub(super) fn bits(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| !float(t))?;
    let dtype = m.ty(a.id).dtype;
    match m.rng.below(5) {
        0 => Some((m.call("aten.bitwise_not.default", args![a.id])?, true)),
        1 if dtype != DType::Bool => {
            let shape = m.ty(a.id).shape.clone();
            let by = m.input(dtype, shape, crate::make::Fill::Below(6));
            let side = m.rng.of(&["left", "right"]);
            Some((m.call(&format!("aten.bitwise_{side}_shift.Tensor"), args![a.id, by])?, true))
        }
        2 => {
            let n = m.rng.of(&[1i64, 3, -2]);
            let target = m.rng.of(&["aten.bitwise_and.Scalar", "aten.bitwise_or.Scalar", "aten.bitwise_xor.Scalar", "aten.__and__.Scalar"]);
            Some((m.call(target, args![a.id, n])?, true))
        }
        _ => {
            let other = if m.rng.one_in(4) { m.dtype() } else { dtype };
            let b = partner(m, a.id, other);
            let name = m.rng.of(&["and", "or", "xor"]);
            Some((m.call(&format!("aten.bitwise_{name}.Tensor"), args![a.id, b.id])?, true))
        }
    }
}

pub(super) fn choice(m: &mut Maker) -> Made {
    let a = operand(m, |_| true);
    let dtype = m.ty(a.id).dtype;
    let mask = partner(m, a.id, DType::Bool);
    let x = scalar(m, dtype);
    match m.rng.below(6) {
        0 => Some((m.call("aten.masked_fill.Scalar", vec![a.id.into(), mask.id.into(), x])?, a.exact)),
        1 => {
            let value = m.fresh(dtype, Vec::new());
            Some((m.call("aten.masked_fill.Tensor", args![a.id, mask.id, value])?, a.exact))
        }
        2 => Some((m.call("aten.where.ScalarOther", vec![mask.id.into(), a.id.into(), x])?, a.exact)),
        3 => Some((m.call("aten.where.ScalarSelf", vec![mask.id.into(), x, a.id.into()])?, a.exact)),
        4 => {
            let y = scalar(m, dtype);
            Some((m.call("aten.where.Scalar", vec![mask.id.into(), x, y])?, true))
        }
        _ => {
            let other = if m.rng.one_in(4) { m.dtype() } else { dtype };
            let b = partner(m, a.id, other);
            Some((m.call("aten.where.self", args![mask.id, a.id, b.id])?, a.exact && b.exact))
        }
    }
}

pub(super) fn clamp(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| number(t))?;
    let dtype = m.ty(a.id).dtype;
    let bound = |m: &mut Maker| scalar(m, dtype);
    let (low, high) = (bound(m), bound(m));
    match m.rng.below(6) {
        0 => Some((m.call("aten.clamp.default", vec![a.id.into(), Arg::None, high])?, a.exact)),
        1 => Some((m.call("aten.clamp.default", vec![a.id.into(), low])?, a.exact)),
        2 => {
            let target = m.rng.of(&["aten.clamp_min.default", "aten.clamp_max.default"]);
            Some((m.call(target, vec![a.id.into(), low])?, a.exact))
        }
        3 => {
            let (low, high) = (partner(m, a.id, dtype), partner(m, a.id, dtype));
            let list = if m.rng.one_in(2) { args![a.id, low.id, high.id] } else { args![a.id, None::<i64>, high.id] };
            Some((m.call("aten.clamp.Tensor", list)?, a.exact && low.exact && high.exact))
        }
        _ => Some((m.call("aten.clamp.default", vec![a.id.into(), low, high])?, a.exact)),
    }
}

/// Three operands.
pub(super) fn mixture(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| float(t))?;
    let dtype = m.ty(a.id).dtype;
    let (b, c) = (partner(m, a.id, dtype), partner(m, a.id, dtype));
    let values = match m.rng.below(4) {
        0 => m.call_with("aten.addcmul.default", args![a.id, b.id, c.id], [("value", 0.5.into())])?,
        1 if c.exact => m.call_with("aten.addcdiv.default", args![a.id, b.id, c.id], [("value", 2.into())])?,
        1 => return None,
        2 => m.call("aten.lerp.Scalar", args![a.id, b.id, 0.25])?,
        _ => m.call("aten.lerp.Tensor", args![a.id, b.id, c.id])?,
    };
    Some((values, false))
}

pub(super) fn cast(m: &mut Maker) -> Made {
    let mut a = m.pick(|_, e| e)?;
    let mut values = Vec::new();
    // Chains of them, since those are collapsed.
    for _ in 0..m.rng.between(1, 3) {
        let to = m.dtype();
        values = match m.rng.below(3) {
            0 => m.call("aten.to.dtype", args![a.id, to])?,
            1 => {
                let like = m.pick(|_, _| true)?;
                m.call("aten.type_as.default", args![a.id, like.id])?
            }
            _ => m.call_with("aten._to_copy.default", args![a.id], [("dtype", to.into())])?,
        };
        a.id = *values.first()?;
    }
    Some((values, true))
}
