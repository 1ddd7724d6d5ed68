//! Random numbers, from random bits without a seed: they differ at every call.

use etx_ir::DType;
use etx_ir::sym::Expr;
use etx_mlx::{Instr, IntOrVid, Tid};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.rand.default", rand, "RandomBits, Remainder, AsType, Multiply"),
    Operator::new("aten.randint.default", randint, "RandomBits, AsType, Remainder").when("the bound is beyond 32 bits"),
];

/// 32 random bits for each element of the result. The instruction makes no tensor without elements: along axes that may have none it
/// makes one more, which is cut off.
fn bits<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Tid> {
    let shape = &call.out_ty(0)?.shape;
    let drawn: Vec<Expr> = shape.iter().map(|d| if cx.may_be_zero(d) { d.plus(&Expr::Int(1)) } else { d.clone() }).collect();
    let sizes: Vec<IntOrVid> = cx.dims(&drawn)?;
    let mut x = cx.temp(|out| Instr::RandomBits { out, shape: sizes, seed: None, width: 4 });
    for (axis, d) in shape.iter().enumerate().filter(|(axis, d)| drawn.get(*axis) != Some(*d)) {
        let (all, stop) = (x, cx.int(d)?);
        x = cx.temp(|out| Instr::Slice { x: all, out, axis: (axis as i64).into(), start: 0.into(), stop, step: 1 });
    }
    Ok(x)
}

/// Uniform in [0, 1): as many bits as the mantissa holds, so that nothing is rounded, up to 1 least of all; torch's own
/// numbers are as fine.
fn rand<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let dtype = call.out_ty(0)?.dtype;
    let kept = match dtype {
        DType::Float32 => 24,
        DType::Float16 => 11,
        DType::BFloat16 => 8,
        other => return Err(call.refuse("dtype", &format!("random numbers of {} are not made", other.name()))),
    };
    let (a, b) = (bits(cx, &call)?, cx.integer(1 << kept, DType::UInt32)?);
    let x = cx.temp(|out| Instr::Remainder { a, b, out });
    let (a, b) = (cx.cast(x, dtype)?, cx.scalar((-f64::from(kept)).exp2(), dtype)?);
    cx.define(call.out(0)?, |out| Instr::Multiply { a, b, out })
}

/// Integers from 0 to below the bound: 32 random bits modulo it. Source: torch.randint, which does so too.
fn randint<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let high = call.int("high")?;
    if !(1..=1 << 32).contains(&high) {
        return Err(call.refuse("high", "must be from 1 to 2^32"));
    }
    let random = bits(cx, &call)?;
    let mut x = cx.cast(random, DType::Int64)?;
    if high < 1 << 32 {
        let (a, b) = (x, cx.integer(high, DType::Int64)?);
        x = cx.temp(|out| Instr::Remainder { a, b, out });
    }
    let x = cx.cast(x, call.out_ty(0)?.dtype)?;
    cx.bind(call.out(0)?, x)
}
