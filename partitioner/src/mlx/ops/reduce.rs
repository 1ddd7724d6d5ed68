//! Reductions and scans.

use etx_ir::DType;
use etx_mlx::{Instr, Tid};
use etx_ir::sym::Expr;

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;
use super::norm::never_empty;
use crate::backend::Refusal;

/// A reduction over axes: `dim` and `keepdim` where the operator has them, everything otherwise.
macro_rules! over_axes {
    ($target:literal => $instr:ident, $prepare:expr) => {
        Operator::new(
            $target,
            |cx, call| {
                let x = $prepare(cx, &call)?;
                let Some((axes, keepdims)) = reduced(&call)? else { return cx.bind(call.out(0)?, x) };
                cx.define(call.out(0)?, |out| Instr::$instr { x, out, axes, keepdims })
            },
            stringify!($instr),
        )
    };
}

pub(super) const OPERATORS: &[Operator] = &[
    over_axes!("aten.sum.default" => Sum, accumulated),
    over_axes!("aten.sum.dim_IntList" => Sum, accumulated),
    over_axes!("aten.mean.default" => Mean, accumulated),
    over_axes!("aten.mean.dim" => Mean, accumulated),
    over_axes!("aten.prod.default" => Prod, accumulated),
    over_axes!("aten.prod.dim_int" => Prod, accumulated),
    over_axes!("aten.amax.default" => Max, nonempty),
    over_axes!("aten.amin.default" => Min, nonempty),
    over_axes!("aten.max.default" => Max, nonempty),
    over_axes!("aten.min.default" => Min, nonempty),
    over_axes!("aten.any.default" => Any, plain),
    over_axes!("aten.any.dim" => Any, plain),
    over_axes!("aten.any.dims" => Any, plain),
    over_axes!("aten.all.default" => All, plain),
    over_axes!("aten.all.dim" => All, plain),
    over_axes!("aten.all.dims" => All, plain),
    over_axes!("aten.logsumexp.default" => LogSumExp, exponents),
    Operator::new(
        "aten.var.correction",
        |cx, call| spread(cx, call, |x, out, axes, keepdims, ddof| Instr::Var { x, out, axes, keepdims, ddof }),
        "Var",
    )
    .when("correction is not a whole number, or may leave nothing"),
    Operator::new(
        "aten.std.correction",
        |cx, call| spread(cx, call, |x, out, axes, keepdims, ddof| Instr::Std { x, out, axes, keepdims, ddof }),
        "Std",
    )
    .when("correction is not a whole number, or may leave nothing"),
    Operator::new(
        "aten.var.dim",
        |cx, call| spread(cx, call, |x, out, axes, keepdims, ddof| Instr::Var { x, out, axes, keepdims, ddof }),
        "Var",
    ),
    Operator::new(
        "aten.std.dim",
        |cx, call| spread(cx, call, |x, out, axes, keepdims, ddof| Instr::Std { x, out, axes, keepdims, ddof }),
        "Std",
    ),
    Operator::new(
        "aten.argmax.default",
        |cx, call| arg(cx, call, |x, out, axis, keepdims| Instr::Argmax { x, out, axis, keepdims }),
        "Argmax",
    ),
    Operator::new(
        "aten.argmin.default",
        |cx, call| arg(cx, call, |x, out, axis, keepdims| Instr::Argmin { x, out, axis, keepdims }),
        "Argmin",
    ),
    Operator::new("aten.cumsum.default", cumsum, "Cumsum"),
];

/// Axes and keepdims; `None` if nothing is reduced (a scalar with its axes kept).
fn reduced(call: &Call<'_>) -> Res<Option<(Option<Vec<i32>>, bool)>> {
    let rank = call.ty("self")?.rank();
    if rank == 0 {
        return Ok(None);
    }
    let axes = call.axes("dim", rank)?;
    let keepdims = call.flag("keepdim")?;
    // Always by name: for some reductions no axes means all of them, for others none.
    Ok(Some((Some(axes.into_iter().map(|a| a as i32).collect()), keepdims)))
}

/// The operand as the type that torch accumulates in: the `dtype` argument, or the result's.
fn accumulated<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Tid> {
    let x = cx.tensor(call.value("self")?)?;
    let to = call.out_ty(0)?.dtype;
    let from = call.ty("self")?.dtype;
    // Sums of integers go to 64 bits, and wrap there; floats accumulate in their own type unless told otherwise.
    if from != to { cx.cast(x, to) } else { Ok(x) }
}

fn exponents<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Tid> {
    let x = accumulated(cx, call)?;
    let shape = &call.ty("self")?.shape;
    if shape.is_empty() { Ok(x) } else { never_empty(cx, x, shape, &call.axes("dim", shape.len())?) }
}

fn plain<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Tid> {
    cx.tensor(call.value("self")?)
}

/// Extremes of nothing do not exist; torch says so at export unless a size is symbolic.
fn nonempty<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Tid> {
    let t = call.ty("self")?;
    if t.shape.iter().any(|d| d.as_int() == Some(0)) && call.out_ty(0)?.shape.iter().all(|d| d.as_int() != Some(0)) {
        return Err(call.refuse("self", "an empty tensor has no extreme"));
    }
    plain(cx, call)
}

fn spread<'a>(cx: &mut Cx<'a>, call: Call<'a>, make: fn(Tid, Tid, Option<Vec<i32>>, bool, i32) -> Instr) -> Res {
    let ddof = if call.node.op.schema().position("unbiased").is_some() {
        i32::from(call.is_none("unbiased") || call.flag("unbiased")?)
    } else {
        let correction = call.float_or("correction", 1.0)?;
        if correction.fract() != 0.0 || correction.abs() > 1e6 {
            return Err(call.refuse("correction", "MLX takes whole numbers only"));
        }
        correction as i32
    };
    let x = plain(cx, &call)?;
    let (axes, keepdims) = reduced(&call)?.unwrap_or((None, false));
    let shape = &call.ty("self")?.shape;
    let counted = axes.iter().flatten().filter_map(|&a| shape.get(usize::try_from(a).ok()?));
    let least = cx.method.ranges.bounds(&Expr::product(counted)).min.unwrap_or(0);
    // Where two or more elements are taken away and nothing is left, torch divides by zero and MLX gives NaN.
    if ddof >= 2 && least <= ddof.into() {
        return Err(call.refuse("self", "MLX has no variance of as few elements as the correction takes away"));
    }
    cx.define(call.out(0)?, |out| make(x, out, axes, keepdims, ddof))
}

fn arg<'a>(cx: &mut Cx<'a>, call: Call<'a>, make: fn(Tid, Tid, i32, bool) -> Instr) -> Res {
    let mut x = nonempty(cx, &call)?;
    let t = call.ty("self")?;
    if t.rank() == 0 {
        let x = cx.temp(|out| Instr::Reshape { x, out, shape: vec![1.into()] });
        return cx.define(call.out(0)?, |out| make(x, out, 0, false));
    }
    if !call.is_none("dim") {
        let axis = call.axis("dim", t.rank())? as i32;
        let keepdims = call.flag("keepdim")?;
        return cx.define(call.out(0)?, |out| make(x, out, axis, keepdims));
    }
    if t.rank() > 1 {
        x = cx.temp(|out| Instr::Reshape { x, out, shape: vec![(-1).into()] });
    }
    if call.flag("keepdim")? {
        let flat = cx.temp(|out| make(x, out, 0, false));
        let shape = vec![1.into(); t.rank()];
        return cx.define(call.out(0)?, |out| Instr::Reshape { x: flat, out, shape });
    }
    cx.define(call.out(0)?, |out| make(x, out, 0, false))
}

fn cumsum<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = accumulated(cx, &call)?;
    let rank = call.ty("self")?.rank();
    if rank == 0 {
        return cx.bind(call.out(0)?, x);
    }
    let axis = call.axis("dim", rank)? as i32;
    if cx.dtype(x) == DType::Bool {
        return Err(Refusal::new("sums of truth values are integers"));
    }
    cx.define(call.out(0)?, |out| Instr::Cumsum { x, out, axis, reverse: false, inclusive: true })
}
