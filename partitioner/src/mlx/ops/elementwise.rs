//! Elementwise operators.

use etx_ir::DType;
use etx_ir::graph::{Arg, Type, ValueId};
use etx_mlx::{FloatOrVid, Instr, Tid};

use super::super::call::{Call, Res};
use super::super::consts::holds;
use super::super::cx::Cx;
use super::Operator;
use crate::backend::Refusal;

/// `Node(x) -> out` on the operand as it is.
macro_rules! unary {
    ($target:literal => $instr:ident) => {
        Operator::new(
            $target,
            |cx, call| {
                let x = operand(cx, &call, "self")?;
                cx.define(call.out(0)?, |out| Instr::$instr { x, out })
            },
            stringify!($instr),
        )
    };
}

/// `Node(x) -> out` where integers are left alone: rounding them changes nothing.
macro_rules! rounding {
    ($target:literal => $instr:ident) => {
        Operator::new(
            $target,
            |cx, call| {
                let x = cx.tensor(call.value("self")?)?;
                if call.ty("self")?.dtype.is_float() {
                    cx.define(call.out(0)?, |out| Instr::$instr { x, out })
                } else {
                    cx.bind(call.out(0)?, x)
                }
            },
            stringify!($instr),
        )
    };
}

/// `Node(a, b) -> out` after both operands are of the type that torch computes in.
macro_rules! binary {
    ($target:literal => $instr:ident) => {
        Operator::new(
            $target,
            |cx, call| {
                let (a, b) = operands(cx, &call)?;
                cx.define(call.out(0)?, |out| Instr::$instr { a, b, out })
            },
            stringify!($instr),
        )
    };
}

/// Like `binary`, for operators that take truth values.
macro_rules! logical {
    ($target:literal => $instr:ident) => {
        Operator::new(
            $target,
            |cx, call| {
                let (a, b) = (cx.tensor(call.value("self")?)?, cx.tensor(call.value("other")?)?);
                let (a, b) = (cx.cast(a, DType::Bool)?, cx.cast(b, DType::Bool)?);
                cx.define(call.out(0)?, |out| Instr::$instr { a, b, out })
            },
            stringify!($instr),
        )
    };
}

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.silu.default", silu, "Silu; AsType around it for halves"),
    unary!("aten.sigmoid.default" => Sigmoid),
    unary!("aten.tanh.default" => Tanh),
    unary!("aten.rsqrt.default" => Rsqrt),
    unary!("aten.sqrt.default" => Sqrt),
    unary!("aten.square.default" => Square),
    unary!("aten.exp.default" => Exp),
    unary!("aten.expm1.default" => Expm1),
    unary!("aten.sin.default" => Sin),
    unary!("aten.cos.default" => Cos),
    unary!("aten.tan.default" => Tan),
    unary!("aten.asin.default" => Arcsin),
    unary!("aten.acos.default" => Arccos),
    unary!("aten.atan.default" => Arctan),
    unary!("aten.sinh.default" => Sinh),
    unary!("aten.cosh.default" => Cosh),
    unary!("aten.asinh.default" => Arcsinh),
    unary!("aten.acosh.default" => Arccosh),
    unary!("aten.atanh.default" => Arctanh),
    unary!("aten.log.default" => Log),
    unary!("aten.log2.default" => Log2),
    unary!("aten.log10.default" => Log10),
    unary!("aten.log1p.default" => Log1p),
    unary!("aten.erf.default" => Erf),
    unary!("aten.reciprocal.default" => Reciprocal),
    unary!("aten.abs.default" => Abs),
    unary!("aten.neg.default" => Neg),
    unary!("aten.sign.default" => Sign),
    unary!("aten.logical_not.default" => LogicalNot),
    rounding!("aten.floor.default" => Floor),
    rounding!("aten.ceil.default" => Ceil),
    rounding!("aten.trunc.default" => Trunc),
    Operator::new("aten.round.default", |cx, call| round(cx, call, 0), "Round"),
    Operator::new(
        "aten.round.decimals",
        |cx, call| {
            let decimals = call.int("decimals")?;
            round(cx, call, decimals)
        },
        "Round",
    ),
    Operator::new("aten.isnan.default", isnan, "NotEqual(x, x)"),
    Operator::new("aten.isinf.default", isinf, "Abs, Equal"),
    Operator::new("aten.bitwise_not.default", bitwise_not, "LogicalNot or BitwiseInvert").when("element type is neither bool nor integer"),
    Operator::new("aten.gelu.default", gelu, "Gelu; AsType around it for halves"),
    Operator::new("aten.relu.default", relu, "Maximum"),
    Operator::new("aten.leaky_relu.default", leaky_relu, "Maximum or GreaterEqual, Multiply, Where"),
    Operator::new("aten.hardtanh.default", |cx, call| clip(cx, call, "min_val", "max_val"), "Clip"),
    Operator::new("aten.clamp.default", |cx, call| clip(cx, call, "min", "max"), "Clip"),
    Operator::new("aten.clamp.Tensor", |cx, call| clip(cx, call, "min", "max"), "Clip"),
    Operator::new("aten.add.Tensor", |cx, call| scaled(cx, call, |a, b, out| Instr::Add { a, b, out }), "Multiply by alpha if given, Add"),
    Operator::new(
        "aten.sub.Tensor",
        |cx, call| scaled(cx, call, |a, b, out| Instr::Subtract { a, b, out }),
        "Multiply by alpha if given, Subtract",
    ),
    Operator::new("aten.mul.Tensor", multiply, "Multiply; RMSNorm with the weight of a normalisation before it"),
    Operator::new("aten.div.Tensor", divide, "Divide"),
    Operator::new("aten.div.Tensor_mode", divide_mode, "Divide, then Floor or Trunc").when("integers with rounding_mode trunc of 64 bits"),
    Operator::new(
        "aten.floor_divide.default",
        |cx, call| floor_divide(cx, &call),
        "FloorDivide; for integers Divide and a correction by Remainder",
    ),
    Operator::new("aten.remainder.Tensor", |cx, call| remainder(cx, &call), "Remainder"),
    binary!("aten.maximum.default" => Maximum),
    binary!("aten.minimum.default" => Minimum),
    Operator::new("aten.atan2.default", atan2, "Atan2"),
    binary!("aten.logaddexp.default" => LogAddExp),
    Operator::new("aten.pow.Tensor_Tensor", |cx, call| power(cx, &call), "Power"),
    Operator::new("aten.pow.Tensor_Scalar", |cx, call| power(cx, &call), "Power, or Square, Sqrt, Rsqrt, Reciprocal"),
    Operator::new("aten.pow.Scalar", |cx, call| power(cx, &call), "Power"),
    binary!("aten.bitwise_and.Tensor" => BitwiseAnd),
    binary!("aten.bitwise_or.Tensor" => BitwiseOr),
    binary!("aten.bitwise_xor.Tensor" => BitwiseXor),
    logical!("aten.logical_and.default" => LogicalAnd),
    logical!("aten.logical_or.default" => LogicalOr),
    logical!("aten.logical_xor.default" => NotEqual),
    binary!("aten.lt.Tensor" => Less),
    binary!("aten.le.Tensor" => LessEqual),
    binary!("aten.gt.Tensor" => Greater),
    binary!("aten.ge.Tensor" => GreaterEqual),
    binary!("aten.eq.Tensor" => Equal),
    binary!("aten.ne.Tensor" => NotEqual),
    binary!("aten.lt.Scalar" => Less),
    binary!("aten.le.Scalar" => LessEqual),
    binary!("aten.gt.Scalar" => Greater),
    binary!("aten.ge.Scalar" => GreaterEqual),
    binary!("aten.eq.Scalar" => Equal),
    binary!("aten.ne.Scalar" => NotEqual),
    Operator::new("aten.where.self", where_self, "Where"),
    Operator::new("aten._to_copy.default", to_copy, "AsType"),
];

/// A tensor operand of a unary operator, as the type that torch computes in: integers as floats where the result is one.
fn operand<'a>(cx: &mut Cx<'a>, call: &Call<'a>, name: &str) -> Res<Tid> {
    let x = cx.tensor(call.value(name)?)?;
    let (from, to) = (call.ty(name)?.dtype, call.out_ty(0)?.dtype);
    if from == DType::Bool && call.node.op.target() == "aten.neg.default" {
        return Err(call.refuse(name, "a truth value has no negative"));
    }
    if to.is_float() && !from.is_float() { cx.cast(x, to) } else { Ok(x) }
}

/// An operand that is a tensor, a number or a symbolic scalar, as type `t`.
pub(super) fn as_type<'a>(cx: &mut Cx<'a>, call: &Call<'a>, arg: &Arg, t: DType) -> Res<Tid> {
    match arg {
        Arg::Value(v) => value_as_type(cx, call, *v, t),
        Arg::Int(n) if t.is_int() => cx.integer(*n, t),
        Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) => cx.scalar(arg.as_float().unwrap_or(0.0), t),
        _ => Err(Refusal::new("an operand is neither a tensor nor a number")),
    }
}

fn value_as_type<'a>(cx: &mut Cx<'a>, call: &Call<'a>, v: ValueId, t: DType) -> Res<Tid> {
    match call.graph.ty(v) {
        Type::Tensor(ty) if ty.dtype == DType::Float64 && ty.rank() == 0 => {
            // Scalars in double precision are how Python's floats arrive; what they meet decides their type.
            match cx.weight(v).and_then(|(name, data)| Some((name, super::super::consts::cast_small(data, t)?))) {
                Some((name, data)) => {
                    cx.depends(v);
                    cx.constant(&format!("{name}_{t}"), data)
                }
                None => cx.tensor(v),
            }
        }
        Type::Tensor(_) => {
            let x = cx.tensor(v)?;
            cx.cast(x, t)
        }
        Type::Int(_) if let Some(whole) = element_behind(call, v) => {
            // A number that was taken out of a tensor stays in it: all its bits count.
            let (mut x, shape) = (cx.tensor(whole)?, vec![]);
            if call.graph.tensor(whole).is_some_and(|ty| ty.rank() > 0) {
                let own = x;
                x = cx.temp(|out| Instr::Reshape { x: own, out, shape });
            }
            cx.cast(x, t)
        }
        Type::Int(e) => {
            // Through a float: exact up to 2^24, far beyond any size.
            let v = match cx.int(e)? {
                etx_mlx::IntOrVid::Int(n) => FloatOrVid::Float(n as f64),
                etx_mlx::IntOrVid::Vid(v) => FloatOrVid::Vid(v),
            };
            Ok(cx.temp(|out| Instr::Full { out, shape: vec![], v, scalar_type: t }))
        }
        Type::Float(e) => {
            let x = cx.float(e)?;
            cx.cast(x, t)
        }
        _ => Err(Refusal::new(format!("%{} is neither a tensor nor a number", call.graph.value(v).name))),
    }
}

/// The tensor whose only element a number is.
fn element_behind(call: &Call<'_>, number: ValueId) -> Option<ValueId> {
    let made = Call::new(call.graph, call.graph.producer(number)?);
    if super::takes_out(made.node.op) { made.value("self").ok() } else { None }
}

/// Both operands as the type that torch computes in.
fn operands<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<(Tid, Tid)> {
    let t = call.common_type(&["self", "other"])?;
    // A comparison or a product of integers with a fractional number is one of floats.
    both(cx, call, "self", "other", t)
}

fn both<'a>(cx: &mut Cx<'a>, call: &Call<'a>, a: &str, b: &str, t: DType) -> Res<(Tid, Tid)> {
    let x = as_type(cx, call, call.arg(a), t).map_err(|e| Refusal::new(format!("{a}: {e}")))?;
    let y = as_type(cx, call, call.arg(b), t).map_err(|e| Refusal::new(format!("{b}: {e}")))?;
    Ok((x, y))
}

/// Dividend and divisor as type `t`, halves in single precision: rounded first, a quotient may reach the next whole number. Numbers and
/// scalar tensors are not even rounded to halves.
fn both_widened<'a>(cx: &mut Cx<'a>, call: &Call<'a>, t: DType) -> Res<(Tid, Tid)> {
    if !matches!(t, DType::Float16 | DType::BFloat16) {
        return both(cx, call, "self", "other", t);
    }
    let mut wide = |name: &str| {
        let scalar = call.ty(name).map_or(true, |ty| ty.rank() == 0);
        let x =
            as_type(cx, call, call.arg(name), if scalar { DType::Float32 } else { t }).map_err(|e| Refusal::new(format!("{name}: {e}")))?;
        cx.widened(x)
    };
    Ok((wide("self")?, wide("other")?))
}

fn round<'a>(cx: &mut Cx<'a>, call: Call<'a>, decimals: i64) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    if !call.ty("self")?.dtype.is_float() {
        return cx.bind(call.out(0)?, x);
    }
    let decimals = i32::try_from(decimals).map_err(|_| call.refuse("decimals", "beyond 32 bits"))?;
    // The factor of ten makes halves round twice more.
    let x = if decimals == 0 { x } else { cx.widened(x)? };
    cx.define(call.out(0)?, |out| Instr::Round { x, out, decimals })
}

fn isnan<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    cx.define(call.out(0)?, |out| Instr::NotEqual { a: x, b: x, out })
}

fn isinf<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let t = call.ty("self")?.dtype;
    if !t.is_float() {
        // No integer is infinite, and none differs from itself.
        return cx.define(call.out(0)?, |out| Instr::NotEqual { a: x, b: x, out });
    }
    let a = cx.temp(|out| Instr::Abs { x, out });
    let b = cx.scalar(f64::INFINITY, t)?;
    cx.define(call.out(0)?, |out| Instr::Equal { a, b, out })
}

fn bitwise_not<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    match call.ty("self")?.dtype {
        DType::Bool => cx.define(call.out(0)?, |out| Instr::LogicalNot { x, out }),
        t if t.is_int() => cx.define(call.out(0)?, |out| Instr::BitwiseInvert { x, out }),
        _ => Err(call.refuse("self", "bits of a float have no complement")),
    }
}

fn multiply<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    if super::norm::weighted_rms_norm(cx, &call)? {
        return Ok(());
    }
    let t = call.common_type(&["self", "other"])?;
    let (a, b) = with_factor(cx, &call, t)?;
    cx.define(call.out(0)?, |out| Instr::Multiply { a, b, out })
}

/// The operands of a product or quotient. Where the first one is of halves, torch's kernels read a second one that is a number, or
/// a scalar tensor of a wider type, in single precision, and round the result once; sums and the like they read in halves.
fn with_factor<'a>(cx: &mut Cx<'a>, call: &Call<'a>, t: DType) -> Res<(Tid, Tid)> {
    let a = as_type(cx, call, call.arg("self"), t)?;
    let other = call.arg("other");
    let lossy = match other {
        Arg::Value(v) => match call.graph.ty(*v) {
            Type::Tensor(ty) => ty.rank() == 0 && matches!(ty.dtype, DType::Float32 | DType::Float64),
            _ => true,
        },
        _ => other.as_float().is_some_and(|x| !holds(x, t)),
    };
    let half = matches!(t, DType::Float16 | DType::BFloat16);
    let b = as_type(cx, call, other, if half && lossy { DType::Float32 } else { t })?;
    Ok((a, b))
}

/// The instruction rounds what it computes on the way; torch computes halves in single precision and rounds once.
fn silu<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = operand(cx, &call, "self")?;
    let x = cx.widened(x)?;
    cx.define(call.out(0)?, |out| Instr::Silu { x, out })
}

/// In single precision for halves, as [`silu`].
fn gelu<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let x = cx.widened(x)?;
    let approximate = if call.is_none("approximate") { "none" } else { call.str("approximate")? }.to_owned();
    cx.define(call.out(0)?, |out| Instr::Gelu { x, out, approximate })
}

fn relu<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let a = cx.tensor(call.value("self")?)?;
    let b = cx.scalar(0.0, call.ty("self")?.dtype)?;
    cx.define(call.out(0)?, |out| Instr::Maximum { a, b, out })
}

fn leaky_relu<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let t = call.ty("self")?.dtype;
    let slope = call.float_or("negative_slope", 0.01)?;
    // As the number that a product is with.
    let a = cx.scalar(slope, if holds(slope, t) { t } else { DType::Float32 })?;
    let scaled = cx.temp(|out| Instr::Multiply { a, b: x, out });
    let scaled = cx.cast(scaled, t)?;
    if slope > 0.0 && slope <= 1.0 {
        // Below zero the flatter line is the higher one, above it the steeper one.
        return cx.define(call.out(0)?, |out| Instr::Maximum { a: x, b: scaled, out });
    }
    let b = cx.scalar(0.0, t)?;
    let condition = cx.temp(|out| Instr::GreaterEqual { a: x, b, out });
    cx.define(call.out(0)?, |out| Instr::Where { condition, x, y: scaled, out })
}

fn clip<'a>(cx: &mut Cx<'a>, call: Call<'a>, min: &str, max: &str) -> Res {
    let mut names = vec!["self"];
    names.extend([min, max].into_iter().filter(|n| !call.is_none(n)));
    // The declared type is that of operand and bounds together; a fractional bound makes integers floats.
    let t = call.common_type(&names)?;
    let x = as_type(cx, &call, call.arg("self"), t)?;
    // Unlike in arithmetic, numbers beyond the type do not wrap: they bound nothing.
    let within = |arg: &Arg| match arg {
        Arg::Int(n) => Arg::Int(t.int_range().map_or(*n, |r| (*n).clamp(*r.start(), *r.end()))),
        other => other.clone(),
    };
    let mut bound = |name: &str| if call.is_none(name) { Ok(None) } else { as_type(cx, &call, &within(call.arg(name)), t).map(Some) };
    let (a_min, a_max) = (bound(min)?, bound(max)?);
    cx.define(call.out(0)?, |out| Instr::Clip { x, out, a_min, a_max })
}

/// `a ± alpha * b`.
fn scaled<'a>(cx: &mut Cx<'a>, call: Call<'a>, make: fn(Tid, Tid, Tid) -> Instr) -> Res {
    let (a, mut b) = operands(cx, &call)?;
    let alpha = call.arg("alpha").clone();
    if !matches!(alpha, Arg::None) && alpha.as_float() != Some(1.0) {
        let t = cx.dtype(b);
        let alpha = as_type(cx, &call, &alpha, t).map_err(|e| Refusal::new(format!("alpha: {e}")))?;
        b = cx.temp(|out| Instr::Multiply { a: alpha, b, out });
    }
    cx.define(call.out(0)?, |out| make(a, b, out))
}

/// True division: of integers it is one of floats.
fn divide<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let (a, b) = with_factor(cx, &call, call.out_ty(0)?.dtype)?;
    cx.define(call.out(0)?, |out| Instr::Divide { a, b, out })
}

fn divide_mode<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    match call.arg("rounding_mode") {
        Arg::None => divide(cx, call),
        Arg::Str(mode) if &**mode == "floor" => floor_divide(cx, &call),
        Arg::Str(mode) if &**mode == "trunc" => {
            let t = call.common_type(&["self", "other"])?;
            let (a, b) = both_widened(cx, &call, t)?;
            if t.is_float() {
                let x = cx.temp(|out| Instr::Divide { a, b, out });
                return cx.define(call.out(0)?, |out| Instr::Trunc { x, out });
            }
            // The floor, plus one where signs differ and something is left over.
            let floor = exact_floor_divide(cx, a, b, t)?;
            let rest = cx.temp(|out| Instr::Remainder { a, b, out });
            let zero = cx.scalar(0.0, t)?;
            let left = cx.temp(|out| Instr::NotEqual { a: rest, b: zero, out });
            let (x, y) = (cx.temp(|out| Instr::Less { a, b: zero, out }), cx.temp(|out| Instr::Less { a: b, b: zero, out }));
            let differ = cx.temp(|out| Instr::NotEqual { a: x, b: y, out });
            let up = cx.temp(|out| Instr::LogicalAnd { a: left, b: differ, out });
            let up = cx.cast(up, t)?;
            cx.define(call.out(0)?, |out| Instr::Add { a: floor, b: up, out })
        }
        _ => Err(call.refuse("rounding_mode", "unknown")),
    }
}

fn floor_divide<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res {
    let t = call.common_type(&["self", "other"])?;
    let (a, b) = both_widened(cx, call, t)?;
    if t.is_float() {
        let by = call.arg("other").as_float().filter(|b| b.is_finite() && *b != 0.0);
        return floor_divide_floats(cx, call, a, b, by.is_some());
    }
    let q = exact_floor_divide(cx, a, b, t)?;
    cx.bind(call.out(0)?, q)
}

/// Floor division of floats, exact where the quotient rounds up to a whole number (1 // 0.1 is 9), which MLX's is not: what the
/// remainder leaves is divided. By 0, whose remainder is no number, the quotient itself is what torch gives; by infinity its stand-in
/// is the largest number. `plain` says that the divisor is neither. Source: c10/util/generic_math.h.
fn floor_divide_floats<'a>(cx: &mut Cx<'a>, call: &Call<'a>, a: Tid, b: Tid, plain: bool) -> Res {
    let (divisor, mut b) = (b, b);
    if !plain {
        let (low, high) = (cx.scalar(f32::MIN.into(), DType::Float32)?, cx.scalar(f32::MAX.into(), DType::Float32)?);
        b = cx.temp(|out| Instr::Clip { x: divisor, out, a_min: Some(low), a_max: Some(high) });
    }
    let rest = cx.temp(|out| Instr::Remainder { a, b, out });
    let reached = cx.temp(|out| Instr::Subtract { a, b: rest, out });
    let near = cx.temp(|out| Instr::Divide { a: reached, b, out });
    if plain {
        return cx.define(call.out(0)?, |out| Instr::Round { x: near, out, decimals: 0 });
    }
    let y = cx.temp(|out| Instr::Round { x: near, out, decimals: 0 });
    let x = cx.temp(|out| Instr::Divide { a, b: divisor, out });
    let zero = cx.scalar(0.0, DType::Float32)?;
    let condition = cx.temp(|out| Instr::Equal { a: divisor, b: zero, out });
    cx.define(call.out(0)?, |out| Instr::Where { condition, x, y, out })
}

/// Floor division of integers. MLX divides integers as singles and leaves a fraction behind. Quotients of 8 bits are exact
/// so; others are divided once more by what they have missed, which the remainder tells. Right for all 32-bit integers over
/// divisors above -2^31, and for 64-bit ones up to quotients of 2^46. Nothing overflows that does not wrap back.
fn exact_floor_divide(cx: &mut Cx<'_>, a: Tid, b: Tid, t: DType) -> Res<Tid> {
    let near = cx.temp(|out| Instr::Divide { a, b, out });
    if t.size() == 1 {
        let floor = cx.temp(|out| Instr::Floor { x: near, out });
        return cx.cast(floor, t);
    }
    let near = cx.cast(near, t)?;
    let reached = cx.temp(|out| Instr::Multiply { a: near, b, out });
    let missed = cx.temp(|out| Instr::Subtract { a, b: reached, out });
    let rest = cx.temp(|out| Instr::Remainder { a, b, out });
    let missed = cx.temp(|out| Instr::Subtract { a: missed, b: rest, out });
    let more = cx.temp(|out| Instr::Divide { a: missed, b, out });
    let more = cx.temp(|out| Instr::Round { x: more, out, decimals: 0 });
    let more = cx.cast(more, t)?;
    Ok(cx.temp(|out| Instr::Add { a: near, b: more, out }))
}

fn remainder<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res {
    let (a, b) = operands(cx, call)?;
    cx.define(call.out(0)?, |out| Instr::Remainder { a, b, out })
}

fn atan2<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let (a, b) = both(cx, &call, "self", "other", call.out_ty(0)?.dtype)?;
    cx.define(call.out(0)?, |out| Instr::Atan2 { a, b, out })
}

fn power<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res {
    let t = call.common_type(&["self", "exponent"])?;
    let exponent = call.arg("exponent").as_float();
    if let (Some(e), Arg::Value(_)) = (exponent, call.arg("self")) {
        let x = as_type(cx, call, call.arg("self"), t)?;
        if e == 2.0 {
            return cx.define(call.out(0)?, |out| Instr::Square { x, out });
        }
        if e == 1.0 {
            return cx.bind(call.out(0)?, x);
        }
        if t.is_float() && e == 0.5 {
            return cx.define(call.out(0)?, |out| Instr::Sqrt { x, out });
        }
        if t.is_float() && e == -0.5 {
            return cx.define(call.out(0)?, |out| Instr::Rsqrt { x, out });
        }
        if t.is_float() && e == -1.0 {
            return cx.define(call.out(0)?, |out| Instr::Reciprocal { x, out });
        }
    }
    let (a, b) = both(cx, call, "self", "exponent", t)?;
    if matches!(t, DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64) && may_be_negative(cx, call, b) {
        return integer_power(cx, call, a, b, t);
    }
    cx.define(call.out(0)?, |out| Instr::Power { a, b, out })
}

/// Whether an exponent of integers may be negative.
fn may_be_negative<'a>(cx: &Cx<'a>, call: &Call<'a>, b: Tid) -> bool {
    if let Some(numbers) = cx.constant_of(b).and_then(|(_, data)| super::super::consts::numbers(data)) {
        return numbers.iter().any(|n| *n < 0.0);
    }
    if let Some(e) = call.expr_of(call.arg("exponent")) {
        return cx.method.ranges.bounds(&e).min.is_none_or(|n| n < 0);
    }
    // Casts of what has no sign.
    !call.ty("exponent").is_ok_and(|t| matches!(t.dtype, DType::Bool | DType::UInt8))
}

/// A power of integers whose exponent may be negative, which no backend of MLX is to see: its CPU backend never comes back from one. To
/// a negative power 1 is 1, -1 is itself or 1, and all others are 0.
fn integer_power<'a>(cx: &mut Cx<'a>, call: &Call<'a>, a: Tid, b: Tid, t: DType) -> Res {
    let (zero, one) = (cx.integer(0, t)?, cx.integer(1, t)?);
    let odd = cx.temp(|out| Instr::BitwiseAnd { a: b, b: one, out });
    let base = call.arg("self").as_float();
    if base.is_some_and(|base| base.abs() == 1.0) {
        return cx.define(call.out(0)?, |out| Instr::Power { a, b: odd, out });
    }
    let negative = cx.temp(|out| Instr::Less { a: b, b: zero, out });
    let b = cx.temp(|out| Instr::Where { condition: negative, x: odd, y: b, out });
    let power = cx.temp(|out| Instr::Power { a, b, out });
    let mut condition = negative;
    if base.is_none() {
        let size = cx.temp(|out| Instr::Abs { x: a, out });
        let other = cx.temp(|out| Instr::NotEqual { a: size, b: one, out });
        condition = cx.temp(|out| Instr::LogicalAnd { a: negative, b: other, out });
    }
    cx.define(call.out(0)?, |out| Instr::Where { condition, x: zero, y: power, out })
}

fn where_self<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let condition = cx.tensor(call.value("condition")?)?;
    let t = call.common_type(&["self", "other"])?;
    let (x, y) = both(cx, &call, "self", "other", t)?;
    cx.define(call.out(0)?, |out| Instr::Where { condition, x, y, out })
}

fn to_copy<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let to = call.out_ty(0)?.dtype;
    let x = cx.cast(x, to)?;
    cx.bind(call.out(0)?, x)
}
