//! Element-wise calls.

use etx_ir::DType;
use etx_ir::graph::{Arg, TensorType, Type};
use etx_ir::op;
use etx_ir::op::OpId;

use crate::calls::{CAST, args, cast};
use crate::rewrite::{Patch, Site};

/// Division by its rounding: none has its own operator.
pub(super) fn division(site: &mut Site<'_>) -> Option<Patch> {
    let (a, b) = (site.nth(0).clone(), site.nth(1).clone());
    let mode = by_op!(site.op(), {
        "aten.floor_divide.default" | "aten.floor_divide.Scalar" => Arg::from("floor"),
        _ => site.arg("rounding_mode").clone(),
    });
    Some(match mode {
        Arg::None => Patch::Call(op!("aten.div.Tensor"), vec![a, b]),
        mode => Patch::Call(op!("aten.div.Tensor_mode"), vec![a, b, mode]),
    })
}

/// `rsub(a, b, alpha)` is `b - alpha * a`.
pub(super) fn rsub(site: &mut Site<'_>) -> Option<Patch> {
    Some(Patch::Call(op!("aten.sub.Tensor"), vec![site.nth(1).clone(), site.nth(0).clone(), site.nth(2).clone()]))
}

/// `alpha` as the integer 1 where it is one, so that equal calls look equal.
pub(super) fn alpha(site: &mut Site<'_>) -> Option<Patch> {
    let mut list = site.node().args.clone();
    if let Some(alpha @ Arg::Float(_)) = list.get_mut(2)
        && alpha.as_float() == Some(1.0)
    {
        *alpha = Arg::Int(1);
    }
    Some(Patch::Call(site.op(), list))
}

pub(super) fn shift_left(site: &mut Site<'_>) -> Option<Patch> {
    shift(site, op!("aten.bitwise_left_shift.Tensor"))
}

pub(super) fn shift_right(site: &mut Site<'_>) -> Option<Patch> {
    shift(site, op!("aten.bitwise_right_shift.Tensor"))
}

/// Python's operators scale floats by powers of two, which the bitwise ones refuse.
fn shift(site: &mut Site<'_>, to: OpId) -> Option<Patch> {
    let whole = site.result()?.dtype.is_int();
    whole.then(|| Patch::Call(to, site.node().args.clone()))
}

/// `masked_fill(x, mask, value)` is `where(mask, value, x)`.
pub(super) fn masked_fill(site: &mut Site<'_>) -> Option<Patch> {
    let (x, mask, mut value) = (site.nth(0).clone(), site.nth(1).clone(), site.nth(2).clone());
    let to = site.result()?.dtype;
    if site.tensor(&mask)?.dtype != DType::Bool || site.tensor(&x)?.dtype != to {
        return None;
    }
    if let Some(t) = site.tensor(&value).cloned() {
        if t.dtype != to {
            value = site.call_as(CAST, cast(value, to), Type::Tensor(TensorType::new(to, t.shape)));
        }
    } else if !fits(&value, to) {
        // A size joins as a number does.
        let size = value.as_value().is_some_and(|v| matches!(site.graph().ty(v), Type::Int(_)));
        if !size || to == DType::Bool {
            return None;
        }
    }
    Some(Patch::Call(op!("aten.where.self"), vec![mask, value, x]))
}

/// Whether a number joins tensors of this element type without changing it.
fn fits(number: &Arg, dtype: DType) -> bool {
    match number {
        Arg::Bool(_) => true,
        Arg::Int(_) => dtype != DType::Bool,
        Arg::Float(_) => dtype.is_float() || dtype.is_complex(),
        _ => false,
    }
}

/// Powers that have an operator of their own, which are those that torch computes in that way too.
pub(super) fn pow(site: &mut Site<'_>) -> Option<Patch> {
    let (base, exponent) = (site.nth(0).clone(), site.nth(1).clone());
    let float = site.result()?.dtype.is_float();
    if site.tensor(&base).is_none() {
        return Some(Patch::Call(op!("aten.pow.Scalar"), vec![base, exponent]));
    }
    let same = site.tensor(&base)?.dtype == site.result()?.dtype;
    let to = match exponent.as_float() {
        None => return None,
        Some(2.0) if same => op!("aten.square.default"),
        Some(0.5) if float && same => op!("aten.sqrt.default"),
        Some(-0.5) if float && same => op!("aten.rsqrt.default"),
        Some(-1.0) if float && same => op!("aten.reciprocal.default"),
        Some(_) => return Some(Patch::Call(op!("aten.pow.Tensor_Scalar"), vec![base, exponent])),
    };
    Some(Patch::Call(to, vec![base]))
}

pub(super) fn bitwise_not(site: &mut Site<'_>) -> Option<Patch> {
    let bool = site.operand(0)?.dtype == DType::Bool;
    bool.then(|| Patch::Call(op!("aten.logical_not.default"), vec![site.nth(0).clone()]))
}

/// Limits on one or both sides.
pub(super) fn clamp(site: &mut Site<'_>) -> Option<Patch> {
    let (x, limit) = (site.nth(0).clone(), site.nth(1).clone());
    let (op, min, max) = by_op!(site.op(), {
        "aten.clamp_min.default" => (op!("aten.clamp.default"), limit, Arg::None),
        "aten.clamp_max.default" => (op!("aten.clamp.default"), Arg::None, limit),
        "aten.clamp_min.Tensor" => (op!("aten.clamp.Tensor"), limit, Arg::None),
        "aten.clamp_max.Tensor" => (op!("aten.clamp.Tensor"), Arg::None, limit),
        // Integer tensors keep `hardtanh`: its limits are cast, clamp's promote.
        "aten.hardtanh.default" if !site.result()?.dtype.is_float() => return None,
        "aten.relu6.default" if !site.result()?.dtype.is_float() => (op!("aten.clamp.default"), Arg::Int(0), Arg::Int(6)),
        "aten.relu6.default" => (op!("aten.clamp.default"), Arg::Float(0.0), Arg::Float(6.0)),
        _ => (op!("aten.clamp.default"), limit, site.nth(2).clone()),
    });
    Some(Patch::Call(op, vec![x, min, max]))
}

pub(super) fn prims_add(site: &mut Site<'_>) -> Option<Patch> {
    let to = op!("aten.add.Tensor");
    Some(Patch::Call(to, args(to, site.node().args.iter().take(2).cloned(), &[])))
}

pub(super) fn prims_sub(site: &mut Site<'_>) -> Option<Patch> {
    let to = op!("aten.sub.Tensor");
    Some(Patch::Call(to, args(to, site.node().args.iter().take(2).cloned(), &[])))
}

/// The primitive divides integers towards zero, ATen's operator exactly.
pub(super) fn prims_div(site: &mut Site<'_>) -> Option<Patch> {
    let (a, b) = (site.nth(0).clone(), site.nth(1).clone());
    Some(if site.result()?.dtype.is_float() {
        Patch::Call(op!("aten.div.Tensor"), vec![a, b])
    } else {
        Patch::Call(op!("aten.div.Tensor_mode"), vec![a, b, Arg::from("trunc")])
    })
}
