//! Operators that make tensors out of sizes and numbers.

use etx_ir::DType;
use etx_ir::graph::{Arg, Type};
use etx_ir::sym::Expr;
use etx_ir::weights::TensorData;
use etx_mlx::{FloatOrVid, Instr, IntOrVid, Tid};

use super::super::call::{Call, Res, makes};
use super::super::cx::Cx;
use super::Operator;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.full.default", |cx, call| full(cx, call, "fill_value"), "Full"),
    Operator::new("aten.full_like.default", |cx, call| full(cx, call, "fill_value"), "Full"),
    Operator::new("aten.new_full.default", |cx, call| full(cx, call, "fill_value"), "Full"),
    Operator::new("aten.scalar_tensor.default", |cx, call| full(cx, call, "s"), "a constant, or Full"),
    Operator::new("aten.zeros.default", |cx, call| filled(cx, call, 0.0), "Full"),
    Operator::new("aten.zeros_like.default", |cx, call| filled(cx, call, 0.0), "Full"),
    Operator::new("aten.new_zeros.default", |cx, call| filled(cx, call, 0.0), "Full"),
    Operator::new("aten.ones.default", |cx, call| filled(cx, call, 1.0), "Full"),
    Operator::new("aten.ones_like.default", |cx, call| filled(cx, call, 1.0), "Full"),
    Operator::new("aten.new_ones.default", |cx, call| filled(cx, call, 1.0), "Full"),
    Operator::new("aten.arange.default", arange, "ARange").when("bounds are fractional and not known at export"),
    Operator::new("aten.arange.start", arange, "ARange").when("bounds are fractional and not known at export"),
    Operator::new("aten.arange.start_step", arange, "ARange").when("bounds are fractional and not known at export"),
    Operator::new("aten.linspace.default", linspace, "a constant"),
    Operator::new("aten.tril.default", |cx, call| triangle(cx, call, |x, out, k| Instr::Tril { x, out, k }), "Tril"),
    Operator::new("aten.triu.default", |cx, call| triangle(cx, call, |x, out, k| Instr::Triu { x, out, k }), "Triu"),
];

fn filled<'a>(cx: &mut Cx<'a>, call: Call<'a>, value: f64) -> Res {
    fill(cx, call, &Arg::Float(value))
}

fn full<'a>(cx: &mut Cx<'a>, call: Call<'a>, name: &str) -> Res {
    fill(cx, call, call.arg(name))
}

fn fill<'a>(cx: &mut Cx<'a>, call: Call<'a>, value: &Arg) -> Res {
    let to = call.out_ty(0)?;
    // Among integers a number is cut to a whole one.
    let whole = value.as_float().filter(|_| to.dtype.is_int()).map(f64::trunc);
    let value = &whole.filter(|_| !matches!(value, Arg::Int(_))).map_or_else(|| value.clone(), Arg::Float);
    let number = value.as_float();
    let v: FloatOrVid = match value {
        Arg::Value(v) => match call.graph.ty(*v) {
            Type::Int(e) => match cx.int(e)? {
                IntOrVid::Int(n) => (n as f64).into(),
                IntOrVid::Vid(v) => v.into(),
            },
            Type::Float(_) => {
                let x = super::elementwise::as_type(cx, &call, value, to.dtype)?;
                let shape = cx.dims(&to.shape)?;
                return cx.define(call.out(0)?, |out| Instr::BroadcastTo { x, out, shape });
            }
            _ => return Err(Refusal::new("the fill value must be a number")),
        },
        _ => number.ok_or_else(|| Refusal::new("the fill value must be a number"))?.into(),
    };
    // The instruction carries a single; integers that it cannot hold come as a constant. So do scalars, and what fills shapes
    // of size zero, known or not, which the runtime refuses to make.
    let exact = match value {
        Arg::Int(n) if to.dtype.is_int() => {
            let held = to.dtype.int_range().is_none_or(|r| r.contains(n));
            held && f64::from(*n as f32) as i64 == *n && n.unsigned_abs() < 1 << 53
        }
        Arg::Int(_) => true,
        _ => number.is_none_or(|x| !to.dtype.is_int() || f64::from(x as f32) == x),
    };
    if to.shape.contains(&Expr::Int(0)) {
        return nothing(cx, &call);
    }
    let perhaps_empty = to.shape.iter().any(|d| cx.may_be_zero(d));
    if let Some(x) = number
        && (to.rank() == 0 || !exact || perhaps_empty)
    {
        let scalar = match value {
            Arg::Int(n) if to.dtype.is_int() => cx.integer(*n, to.dtype)?,
            _ => cx.scalar(x, to.dtype)?,
        };
        if to.rank() == 0 {
            return cx.bind(call.out(0)?, scalar);
        }
        let shape = cx.dims(&to.shape)?;
        return cx.define(call.out(0)?, |out| Instr::BroadcastTo { x: scalar, out, shape });
    }
    let shape = cx.dims(&to.shape)?;
    let scalar_type = to.dtype;
    super::super::cx::accepted(scalar_type)?;
    if perhaps_empty {
        let x = cx.temp(|out| Instr::Full { out, shape: vec![], v, scalar_type });
        return cx.define(call.out(0)?, |out| Instr::BroadcastTo { x, out, shape });
    }
    cx.define(call.out(0)?, |out| Instr::Full { out, shape, v, scalar_type })
}

/// A result that has no elements, whatever else is symbolic of its shape.
pub(super) fn nothing<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res {
    let to = call.out_ty(0)?;
    let sizes = to.shape.iter().map(|d| d.as_int().map_or(1, |n| n.unsigned_abs())).collect();
    let data = TensorData::inline(to.dtype, sizes, Vec::new()).map_err(|e| Refusal::new(e.to_string()))?;
    let x = cx.constant("_empty", data)?;
    if to.static_shape().is_some() {
        return cx.bind(call.out(0)?, x);
    }
    let shape = cx.dims(&to.shape)?;
    cx.define(call.out(0)?, |out| Instr::BroadcastTo { x, out, shape })
}

fn arange<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let to = call.out_ty(0)?;
    let whole = |name: &str, default: i64| -> Option<Expr> {
        match call.arg(name) {
            Arg::None => Some(Expr::Int(default)),
            Arg::Float(x) if x.fract() == 0.0 && x.abs() < 1e9 => Some(Expr::Int(*x as i64)),
            other => call.expr_of(other),
        }
    };
    let (start, end, step) = (whole("start", 0), whole("end", 0), whole("step", 1));
    let (Some(start), Some(end), Some(step)) = (start, end, step) else {
        return fractional(cx, call);
    };
    if step == Expr::Int(0) {
        return Err(call.refuse("step", "must not be zero"));
    }
    if to.shape == [Expr::Int(0)] {
        return nothing(cx, &call);
    }
    let perhaps_empty = to.shape.iter().any(|d| cx.may_be_zero(d));
    // The instruction counts in 32 bits; a range beyond them is one from zero, moved.
    let wide = |e: &Expr| e.as_int().is_some_and(|n| i32::try_from(n).is_err());
    if wide(&start) || wide(&end) {
        let from = start.as_int().ok_or_else(|| call.refuse("start", "a symbolic start with an end beyond 32 bits"))?;
        let a = range(cx, (&Expr::Int(0), &end.minus(&start), &step), to.dtype, perhaps_empty)?;
        let b = super::elementwise::as_type(cx, &call, &Arg::Int(from), to.dtype)?;
        return cx.define(call.out(0)?, |out| Instr::Add { a, b, out });
    }
    let numbers = range(cx, (&start, &end, &step), to.dtype, perhaps_empty)?;
    cx.bind(call.out(0)?, numbers)
}

/// A range of integers. The runtime makes no empty one: what may be that begins a step earlier and loses its first number. It counts in
/// the type itself, which gets stuck where that has no room for the next number: such a range is one of integers, cast.
fn range(cx: &mut Cx<'_>, (start, end, step): (&Expr, &Expr, &Expr), dtype: DType, perhaps_empty: bool) -> Res<Tid> {
    let exact = match dtype {
        DType::Float16 => 1 << 11,
        DType::BFloat16 => 1 << 8,
        DType::Float32 => 1 << 24,
        _ => u64::MAX,
    };
    // Nobody asks for so many numbers that f32 has no room, unless he writes them down.
    let fits = |e: &Expr| e.as_int().map_or(exact > 1 << 11, |n| n.unsigned_abs() <= exact);
    let counted = if fits(&start.minus(step)) && fits(&end.plus(step)) { dtype } else { DType::Int32 };
    let (stop, by) = (cx.int(end)?, cx.int(step)?);
    let start = if perhaps_empty { cx.int(&start.minus(step))? } else { cx.int(start)? };
    let x = cx.temp(|out| Instr::ARange { out, start, stop, step: by, scalar_type: Some(counted) });
    let x = cx.cast(x, dtype)?;
    if !perhaps_empty {
        return Ok(x);
    }
    Ok(cx.temp(|out| Instr::Slice { x, out, axis: 0.into(), start: 1.into(), stop: i64::MAX.into(), step: 1 }))
}

/// Fractional bounds: the instruction takes whole ones, so the numbers become a constant, or multiples of the step from the start.
fn fractional<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let to = call.out_ty(0)?;
    let (start, step) = (call.float_or("start", 0.0)?, call.float_or("step", 1.0)?);
    let n = match to.static_shape().as_deref() {
        Some([n]) => *n,
        _ if to.dtype.is_float() => {
            let t = DType::Float32;
            let count = to.shape.first().cloned().unwrap_or(Expr::Int(0));
            let perhaps_empty = cx.may_be_zero(&count);
            let a = range(cx, (&Expr::Int(0), &count, &Expr::Int(1)), t, perhaps_empty)?;
            let b = cx.scalar(step, t)?;
            let a = cx.temp(|out| Instr::Multiply { a, b, out });
            let b = cx.scalar(start, t)?;
            return cx.define(call.out(0)?, |out| Instr::Add { a, b, out });
        }
        _ => return Err(call.refuse("dtype", "integers between fractional bounds of a symbolic range")),
    };
    makes(n, 1)?;
    let mut bytes = Vec::new();
    for i in 0..n {
        let x = start + i as f64 * step;
        bytes.extend(super::super::consts::element(x, to.dtype).ok_or_else(|| call.refuse("dtype", "of fractional numbers"))?);
    }
    let data = TensorData::inline(to.dtype, vec![n as u64], bytes).map_err(|e| Refusal::new(e.to_string()))?;
    let t = cx.constant("_arange", data)?;
    cx.bind(call.out(0)?, t)
}

/// From both ends to the middle, as torch counts it.
fn linspace<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let to = call.out_ty(0)?;
    let (start, end, steps) = (call.float("start")?, call.float("end")?, call.int("steps")?);
    let step = if steps > 1 { (end - start) / (steps - 1) as f64 } else { 0.0 };
    makes(steps, 1)?;
    let mut bytes = Vec::new();
    for i in 0..steps {
        let x = if i < steps / 2 || steps == 1 { start + step * i as f64 } else { end - step * (steps - 1 - i) as f64 };
        let x = if to.dtype.is_int() { x.trunc() } else { x };
        bytes.extend(super::super::consts::element(x, to.dtype).ok_or_else(|| call.refuse("dtype", "cannot hold the numbers"))?);
    }
    let data = TensorData::inline(to.dtype, vec![steps as u64], bytes).map_err(|e| Refusal::new(e.to_string()))?;
    let t = cx.constant("_linspace", data)?;
    cx.bind(call.out(0)?, t)
}

fn triangle<'a>(cx: &mut Cx<'a>, call: Call<'a>, make: fn(Tid, Tid, i32) -> Instr) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    if call.ty("self")?.rank() < 2 {
        return Err(call.refuse("self", "needs at least two axes"));
    }
    let k = i32::try_from(call.int_or("diagonal", 0)?).map_err(|_| call.refuse("diagonal", "beyond 32 bits"))?;
    cx.define(call.out(0)?, |out| make(x, out, k))
}
