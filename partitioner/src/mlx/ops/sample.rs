//! Sampling of a token from logits.
//!
//! A temperature of zero or less takes the most likely token. Otherwise the logits are divided by it, cut to the `top_k`
//! largest and to the smallest set whose probability exceeds `top_p`, and the Gumbel trick picks one. The random bits and
//! every step of the arithmetic are those of the reference (`mlx-ops.md` §2.15), so equal seeds give equal tokens.

use etx_ir::DType;
use etx_mlx::{Instr, IntOrVid, Tid};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;

pub(super) const OPERATORS: &[Operator] =
    &[Operator::new("mlx.sample.default", sample, "If over RandomBits, Sort, Softmax, Cumsum, Argmax and the like")
        .when("the vocabulary is symbolic")];

fn sample<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let logits = cx.tensor(call.value("logits")?)?;
    let ty = call.ty("logits")?;
    let vocabulary =
        ty.shape.last().and_then(etx_ir::sym::Expr::as_int).ok_or_else(|| call.refuse("logits", "the vocabulary must be known"))?;
    let temperature = cx.tensor(call.value("temperature")?)?;
    let (top_k, top_p) = (cx.tensor(call.value("top_k")?)?, cx.tensor(call.value("top_p")?)?);
    let shape = cx.dims(&ty.shape)?;
    let zero = cx.scalar(0.0, cx.dtype(temperature))?;
    let warm = cx.temp(|out| Instr::Greater { a: temperature, b: zero, out });
    let cond = cx.item(warm)?;
    let seed = if call.is_none("seed") {
        None
    } else {
        let x = cx.tensor(call.value("seed")?)?;
        Some(cx.item(x)?)
    };
    let result = cx.fresh_of(DType::UInt32);
    let then_chain_idx = cx.in_chain(|cx| {
        let bits = cx.temp(|out| Instr::RandomBits { out, shape, seed, width: 4 });
        let noise = gumbel(cx, bits)?;
        let scores = cx.cast(logits, DType::Float32)?;
        let scores = cx.temp(|out| Instr::Divide { a: scores, b: temperature, out });
        let scores = keep_top_k(cx, scores, top_k, vocabulary)?;
        let scores = keep_top_p(cx, scores, top_p)?;
        let x = cx.temp(|out| Instr::Add { a: scores, b: noise, out });
        cx.push(Instr::Argmax { x, out: result, axis: -1, keepdims: false });
        Ok(())
    })?;
    let else_chain_idx = cx.in_chain(|cx| {
        cx.push(Instr::Argmax { x: logits, out: result, axis: -1, keepdims: false });
        Ok(())
    })?;
    cx.push(Instr::If { cond: cond.into(), then_chain_idx, else_chain_idx });
    cx.bind(call.out(0)?, result)
}

/// `-log(-log(u))` for uniform `u` below 1.
fn gumbel(cx: &mut Cx<'_>, bits: Tid) -> Res<Tid> {
    let number = cx.cast(bits, DType::Float32)?;
    let (most, below_one) = (cx.scalar(4_294_967_295.0, DType::Float32)?, cx.scalar(f64::from(0.999_999_94_f32), DType::Float32)?);
    let u = cx.temp(|out| Instr::Divide { a: number, b: most, out });
    let mut x = cx.temp(|out| Instr::Minimum { a: u, b: below_one, out });
    for _ in 0..2 {
        let from = x;
        let log = cx.temp(|out| Instr::Log { x: from, out });
        x = cx.temp(|out| Instr::Neg { x: log, out });
    }
    Ok(x)
}

/// Elements in falling order.
fn falling(cx: &mut Cx<'_>, x: Tid) -> Tid {
    let turned = cx.temp(|out| Instr::Neg { x, out });
    let sorted = cx.temp(|out| Instr::Sort { x: turned, out, axis: -1 });
    cx.temp(|out| Instr::Neg { x: sorted, out })
}

/// Minus infinity for what `drop` says.
fn without(cx: &mut Cx<'_>, drop: Tid, y: Tid) -> Res<Tid> {
    let x = cx.scalar(f64::NEG_INFINITY, DType::Float32)?;
    Ok(cx.temp(|out| Instr::Where { condition: drop, x, y, out }))
}

fn keep_top_k(cx: &mut Cx<'_>, scores: Tid, top_k: Tid, vocabulary: i64) -> Res<Tid> {
    let most = cx.scalar(vocabulary as f64, DType::Int64)?;
    let k = cx.temp(|out| Instr::Minimum { a: top_k, b: most, out });
    let (count, last) = (cx.item(k)?, cx.fresh_value());
    cx.push(Instr::SubtractInt { a: count.into(), b: IntOrVid::Int(1), out: last });
    let sorted = falling(cx, scores);
    let kth = cx.temp(|out| Instr::Take { x: sorted, out, index: last.into(), axis: -1 });
    let kth = cx.temp(|out| Instr::ExpandDims { x: kth, out, axis: -1 });
    let drop = cx.temp(|out| Instr::Less { a: scores, b: kth, out });
    without(cx, drop, scores)
}

fn keep_top_p(cx: &mut Cx<'_>, scores: Tid, top_p: Tid) -> Res<Tid> {
    let p = cx.temp(|out| Instr::Softmax { x: scores, out, axis: -1, precise: false });
    let sorted = falling(cx, p);
    let total = cx.temp(|out| Instr::Cumsum { x: sorted, out, axis: -1, reverse: false, inclusive: true });
    let before = cx.temp(|out| Instr::Subtract { a: total, b: sorted, out });
    let beyond = cx.temp(|out| Instr::Greater { a: before, b: top_p, out });
    let never = cx.scalar(f64::INFINITY, DType::Float32)?;
    let kept = cx.temp(|out| Instr::Where { condition: beyond, x: never, y: sorted, out });
    let threshold = cx.temp(|out| Instr::Min { x: kept, out, axes: Some(vec![-1]), keepdims: true });
    let drop = cx.temp(|out| Instr::Less { a: p, b: threshold, out });
    without(cx, drop, scores)
}
