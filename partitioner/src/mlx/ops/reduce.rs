//! Reductions and scans.

use etx_ir::DType;
use etx_ir::graph::ValueId;
use etx_ir::sym::Expr;
use etx_mlx::{FloatOrVid, Instr, Tid};

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
        |cx, call| arg(cx, call, false),
        "Argmax; Max, Equal, NotEqual, LogicalOr and Argmax of floats that may be NaN",
    ),
    Operator::new(
        "aten.argmin.default",
        |cx, call| arg(cx, call, true),
        "Argmin; Min, Equal, NotEqual, LogicalOr and Argmax of floats that may be NaN",
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
    // Sums of integers go to 64 bits, and wrap there.
    let x = if from != to { cx.cast(x, to)? } else { x };
    // Two terms are rounded once either way.
    let axes = call.axes("dim", call.ty("self")?.rank())?;
    if at_most(cx, call, &axes, 2)? { Ok(x) } else { cx.widened(x) }
}

/// Whether a result has no more terms than this. MLX adds halves up in their own type, rounding at every step, torch in single precision:
/// more terms than a step or two are widened before.
fn at_most(cx: &Cx<'_>, call: &Call<'_>, axes: &[usize], most: i64) -> Res<bool> {
    let shape = &call.ty("self")?.shape;
    let terms = Expr::product(axes.iter().filter_map(|&axis| shape.get(axis)));
    Ok(cx.method.ranges.bounds(&terms).max.is_some_and(|n| n <= most))
}

fn exponents<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Tid> {
    let shape = &call.ty("self")?.shape;
    let axes = call.axes("dim", shape.len())?;
    let x = cx.tensor(call.value("self")?)?;
    let x = cx.cast(x, call.out_ty(0)?.dtype)?;
    // Along the last axis alone MLX sums in single precision.
    let x = if axes.as_slice() == [shape.len().wrapping_sub(1)] { x } else { cx.widened(x)? };
    if shape.is_empty() { Ok(x) } else { never_empty(cx, x, shape, &axes) }
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
    let x = if at_most(cx, &call, &call.axes("dim", call.ty("self")?.rank())?, 1)? { x } else { cx.widened(x)? };
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

fn arg<'a>(cx: &mut Cx<'a>, call: Call<'a>, least: bool) -> Res {
    let mut x = nonempty(cx, &call)?;
    let (t, to) = (call.ty("self")?, call.out_ty(0)?);
    if to.shape.iter().any(|d| d.as_int() == Some(0)) {
        // Of no rows, which MLX refuses to look for.
        let shape = cx.dims(&to.shape)?;
        return cx.define(call.out(0)?, |out| Instr::Full { out, shape, v: FloatOrVid::Float(0.0), scalar_type: DType::Int32 });
    }
    let named = t.rank() > 0 && !call.is_none("dim");
    let (axis, keepdims) = if named { (call.axis("dim", t.rank())?, call.flag("keepdim")?) } else { (0, false) };
    if t.rank() == 0 || !named && t.rank() > 1 {
        let from = x;
        x = cx.temp(|out| Instr::Reshape { x: from, out, shape: vec![(-1).into()] });
    }
    let terms = if named { t.shape.get(axis).cloned() } else { Some(Expr::product(&t.shape)) };
    let (x, axis) = (if terms == Some(Expr::Int(1)) { x } else { candidates(cx, &call, x, axis as i32, least)? }, axis as i32);
    // Of candidates, the first that is one.
    let least = least && cx.dtype(x) != DType::Bool;
    let make = |out| if least { Instr::Argmin { x, out, axis, keepdims } } else { Instr::Argmax { x, out, axis, keepdims } };
    if t.rank() > 0 && !named && call.flag("keepdim")? {
        let flat = cx.temp(make);
        let shape = vec![1.into(); t.rank()];
        return cx.define(call.out(0)?, |out| Instr::Reshape { x: flat, out, shape });
    }
    cx.define(call.out(0)?, make)
}

/// Which elements along the axis are as extreme as any, or NaN: MLX passes over NaN when it looks for an extreme, and torch takes the first
/// one. Where there is none for sure, the elements themselves.
fn candidates<'a>(cx: &mut Cx<'a>, call: &Call<'a>, x: Tid, axis: i32, least: bool) -> Res<Tid> {
    let v = call.value("self")?;
    let whole = |v: ValueId| call.graph.tensor(v).is_some_and(|t| !t.dtype.is_float());
    let cast = call.graph.producer(v).map(|id| Call::new(call.graph, id)).filter(|c| c.node.op.target() == "aten._to_copy.default");
    if whole(v) || cast.is_some_and(|c| c.value("self").is_ok_and(whole)) {
        return Ok(x);
    }
    let axes = Some(vec![axis]);
    let extreme =
        cx.temp(|out| if least { Instr::Min { x, out, axes, keepdims: true } } else { Instr::Max { x, out, axes, keepdims: true } });
    let a = cx.temp(|out| Instr::Equal { a: x, b: extreme, out });
    let b = cx.temp(|out| Instr::NotEqual { a: x, b: x, out });
    Ok(cx.temp(|out| Instr::LogicalOr { a, b, out }))
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
