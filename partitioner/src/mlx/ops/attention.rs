//! Attention, rotary embeddings and caches.

mod mask;

use etx_ir::DType;
use etx_ir::graph::{Arg, ValueId};
use etx_ir::sym::Expr;
use etx_mlx::{Instr, IntOrVid, Tid, VidOrTid};
use half::{bf16, f16};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;
use super::norm::never_empty;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new(
        "aten.scaled_dot_product_attention.default",
        sdpa,
        "Sdpa; Max, NotEqual (Any) and Where for a mask that may hide every key",
    )
    .when("dropout, or sizes that do not match"),
    Operator::new(
        "mlx.custom_sdpa.default",
        custom_sdpa,
        "Slice, Slice, Sdpa; Max, NotEqual (Any) and Where for a mask that may hide every key",
    )
    .when("dropout"),
    Operator::new("mlx.rope.default", rope, "Rope").when("frequencies are not one axis"),
    Operator::new("mlx.kv_cache_update.default_functional", kv_cache_update, "SliceUpdate").updating("cache"),
    Operator::new("kvcache.update_and_attend.default", update_and_attend, "UpdateAndAttend"),
];

/// `1/sqrt(D)` unless a scale is given.
fn scale(call: &Call<'_>, head: &Expr) -> Res<f32> {
    if !call.is_none("scale") {
        return Ok(call.float("scale")? as f32);
    }
    let d = head.as_int().filter(|&d| d > 0).ok_or_else(|| Refusal::new("the size of a head must be known at export"))?;
    Ok((1.0 / (d as f64).sqrt()) as f32)
}

fn no_dropout(call: &Call<'_>) -> Res {
    if call.float_or("dropout_p", 0.0)? == 0.0 {
        return Ok(());
    }
    Err(call.refuse("dropout_p", "MLX attends without dropout").remedy("export the model in eval mode"))
}

/// Keys or values without the repetition over query heads that torch wants and MLX does by itself.
///
/// Recognised are `repeat_interleave(x, n, 1)`, `unsqueeze(x, 2)` expanded and brought back to four axes, and a single head expanded.
fn unrepeated(call: &Call<'_>, v: ValueId) -> Option<(ValueId, i64)> {
    let graph = call.graph;
    let made = |v: ValueId| graph.producer(v).map(|id| Call::new(graph, id));
    let c = made(v)?;
    match c.node.op.target() {
        "aten.repeat_interleave.self_int" => {
            let x = c.value("self").ok()?;
            (graph.tensor(x)?.rank() == 4 && c.axis("dim", 4).ok()? == 1).then_some(())?;
            Some((x, c.int("repeats").ok()?))
        }
        "aten.expand.default" => {
            let x = c.value("self").ok()?;
            let (from, to) = (graph.tensor(x)?, c.out_ty(0).ok()?);
            (from.rank() == 4 && to.rank() == 4 && from.shape[1].as_int()? == 1).then_some(())?;
            let mut expect = from.shape.clone();
            expect[1] = to.shape[1].clone();
            (expect == to.shape).then_some((x, to.shape[1].as_int()?))
        }
        "aten.view.default" | "aten.reshape.default" | "aten.squeeze.dims" => {
            let expand = made(c.value("self").ok()?)?;
            let unsqueeze = (expand.node.op.target() == "aten.expand.default").then(|| made(expand.value("self").ok()?))??;
            (unsqueeze.node.op.target() == "aten.unsqueeze.default").then_some(())?;
            let x = unsqueeze.value("self").ok()?;
            let (from, wide, to) = (graph.tensor(x)?, expand.out_ty(0).ok()?, c.out_ty(0).ok()?);
            (from.rank() == 4 && wide.rank() == 5 && unsqueeze.axis("dim", 5).ok()? == 2).then_some(())?;
            let n = wide.shape[2].as_int()?;
            let mut expect = from.shape.clone();
            expect[1] = expect[1].times(&Expr::Int(n));
            (expect == to.shape).then_some((x, n))
        }
        _ => None,
    }
}

fn sdpa<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    no_dropout(&call)?;
    let (qv, mut kv, mut vv) = (call.value("query")?, call.value("key")?, call.value("value")?);
    if let (Some((k, n)), Some((v, m))) = (unrepeated(&call, kv), unrepeated(&call, vv))
        && n == m
    {
        (kv, vv) = (k, v);
    }
    let ty = |v: ValueId, name: &str| call.graph.tensor(v).ok_or_else(|| call.refuse(name, "must be a tensor"));
    let (qt, kt, vt) = (ty(qv, "query")?, ty(kv, "key")?, ty(vv, "value")?);
    let rank = qt.rank();
    if !(2..=4).contains(&rank) || kt.rank() != rank || vt.rank() != rank {
        return Err(call.refuse("query", "query, key and value must have two to four axes, all the same number"));
    }
    if !qt.dtype.is_float() {
        return Err(call.refuse("query", "must be floating-point"));
    }
    let ranges = &cx.method.ranges;
    let is = |a: &Expr, b: &Expr| ranges.equal(a, b) == Some(true);
    if rank == 4 {
        if !is(&qt.shape[0], &kt.shape[0]) || !is(&qt.shape[0], &vt.shape[0]) {
            return Err(call.refuse("key", "batches that broadcast"));
        }
        let heads = |e: &Expr| e.as_int().filter(|&n| n > 0);
        match (heads(&qt.shape[1]), heads(&kt.shape[1]), heads(&vt.shape[1])) {
            (Some(q), Some(k), Some(v)) if k == v && q % k == 0 => {}
            _ => return Err(call.refuse("key", "the number of query heads must be a multiple of that of key and value heads")),
        }
    }
    let (l, s) = (qt.shape[rank - 2].clone(), kt.shape[rank - 2].clone());
    let causal = call.flag("is_causal")?;
    let square = is(&l, &s);
    if causal && !square && ranges.at_most(&l, &s) != Some(true) {
        return Err(call.refuse("key", "whether there are as many keys as queries is not known"));
    }
    let scale = scale(&call, &qt.shape[rank - 1])?;
    let mut qkv = [cx.tensor(qv)?, cx.tensor(kv)?, cx.tensor(vv)?];
    let mut given = None;
    if !call.is_none("attn_mask") {
        if causal {
            return Err(call.refuse("attn_mask", "a mask and is_causal exclude each other"));
        }
        let t = call.ty("attn_mask")?;
        if t.rank() > 4 {
            return Err(call.refuse("attn_mask", "more than four axes"));
        }
        given = Some(cx.tensor(call.value("attn_mask")?)?);
    }
    for t in &mut qkv {
        for _ in rank..4 {
            let x = *t;
            *t = cx.temp(|out| Instr::ExpandDims { x, out, axis: 0 });
        }
    }
    // A mask of a lower rank lines up with the last axes either way.
    if causal && !square {
        // torch aligns the mask with the first keys, MLX with the last: drop the keys that no query sees.
        let stop = cx.int(&l)?;
        for t in &mut qkv[1..] {
            let x = *t;
            *t = cx.temp(|out| Instr::Slice { x, out, axis: 2.into(), start: 0.into(), stop, step: 1 });
        }
    }
    let [q, k, v] = qkv;
    let mask = given.map(|mask| narrowed(cx, &call, mask, qt.dtype)).transpose()?;
    let mut x = cx.temp(|out| Instr::Sdpa { q, k, v, out, scale, mask, causal });
    if let Some(mask) = given {
        x = shown(cx, &call, x, mask)?;
    }
    if rank == 4 {
        return cx.bind(call.out(0)?, x);
    }
    let dims = Some((0..4 - rank as i32).collect());
    cx.define(call.out(0)?, |out| Instr::Squeeze { x, out, dims })
}

/// Zeros in place of what a query gets from which the mask hides every key, as torch has it; MLX gives NaN, or the mean of all values.
fn shown<'a>(cx: &mut Cx<'a>, call: &Call<'a>, x: Tid, mask: Tid) -> Res<Tid> {
    let t = call.ty("attn_mask")?;
    let (rank, dtype) = (t.rank(), cx.dtype(mask));
    let most = mask::row_maximum(cx, call, call.arg("attn_mask"));
    let never = if dtype == DType::Bool { most >= 1.0 } else { most > f64::NEG_INFINITY };
    if rank == 0 || never {
        return Ok(x);
    }
    let condition = if dtype == DType::Bool {
        cx.once(mask, "any", |out| Instr::Any { x: mask, out, axes: Some(vec![-1]), keepdims: true })
    } else {
        let rows = never_empty(cx, mask, &t.shape, &[rank - 1])?;
        let most = cx.once(rows, "most of rows", |out| Instr::Max { x: rows, out, axes: Some(vec![-1]), keepdims: true });
        let hidden = cx.scalar(f64::NEG_INFINITY, dtype)?;
        cx.once(most, "not hidden", |out| Instr::NotEqual { a: most, b: hidden, out })
    };
    let zero = cx.scalar(0.0, call.out_ty(0)?.dtype)?;
    Ok(cx.temp(|out| Instr::Where { condition, x, y: zero, out }))
}

/// The mask as MLX takes it, whose type may not be wider than that of the result. Where all of a row is below what the narrower type has,
/// its numbers stay numbers: hidden is only what is minus infinity.
fn narrowed<'a>(cx: &mut Cx<'a>, call: &Call<'a>, mask: Tid, to: DType) -> Res<Tid> {
    let lowest = match to {
        DType::Float16 => f16::MIN.into(),
        DType::BFloat16 => bf16::MIN.into(),
        _ => return Ok(mask),
    };
    if cx.dtype(mask) != DType::Float32 {
        return Ok(mask);
    }
    let cast = cx.cast(mask, to)?;
    if mask::row_maximum(cx, call, call.arg("attn_mask")) >= lowest {
        return Ok(cast);
    }
    let b = cx.scalar(lowest, to)?;
    Ok(cx.once(cast, "not below", |out| Instr::Maximum { a: cast, b, out }))
}

/// Position after the last one written: `start + length`.
fn stop_after<'a>(cx: &mut Cx<'a>, call: &Call<'a>, length: &Expr) -> Res<(IntOrVid, IntOrVid)> {
    let start = call.expr("start_pos")?;
    let stop = start.plus(length);
    Ok((cx.int(&start)?, cx.int(&stop)?))
}

fn custom_sdpa<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    no_dropout(&call)?;
    let (qt, kt) = (call.ty("query")?, call.ty("key")?);
    if qt.rank() != 4 || kt.rank() != 4 {
        return Err(call.refuse("query", "must have four axes"));
    }
    let (_, stop) = stop_after(cx, &call, &qt.shape[2])?;
    let causal = call.flag("is_causal")?;
    let mask = if call.is_none("attn_mask") { None } else { Some(cx.tensor(call.value("attn_mask")?)?) };
    if causal && mask.is_some() {
        return Err(call.refuse("attn_mask", "a mask and is_causal exclude each other"));
    }
    let scale = scale(&call, &qt.shape[3])?;
    let given = mask;
    let mask = given.map(|mask| narrowed(cx, &call, mask, qt.dtype)).transpose()?;
    let q = cx.tensor(call.value("query")?)?;
    let mut part = |name: &str| -> Res<Tid> {
        let v = call.value(name)?;
        let x = cx.tensor(v)?;
        // All of it: nothing to cut off.
        if call.graph.tensor(v).is_some_and(|t| call.expr("start_pos").is_ok_and(|s| t.shape[2] == s.plus(&qt.shape[2]))) {
            return Ok(x);
        }
        Ok(cx.temp(|out| Instr::Slice { x, out, axis: 2.into(), start: 0.into(), stop, step: 1 }))
    };
    let (k, v) = (part("key")?, part("value")?);
    let mut x = cx.temp(|out| Instr::Sdpa { q, k, v, out, scale, mask, causal });
    if let Some(mask) = given {
        x = shown(cx, &call, x, mask)?;
    }
    cx.bind(call.out(0)?, x)
}

fn rope<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("x")?)?;
    let dims = i32::try_from(call.int("dims")?).map_err(|_| call.refuse("dims", "beyond 32 bits"))?;
    let offset = match call.arg("pos") {
        Arg::Value(v) if call.graph.tensor(*v).is_some() => VidOrTid::Tid(cx.tensor(*v)?),
        _ => match cx.int_arg(&call, "pos")? {
            IntOrVid::Vid(v) => VidOrTid::Vid(v),
            // A position that is a number comes as a constant.
            IntOrVid::Int(n) => VidOrTid::Tid(cx.scalar(n as f64, DType::Int32)?),
        },
    };
    let freqs = if call.is_none("freqs") {
        None
    } else {
        if call.ty("freqs")?.rank() != 1 {
            return Err(call.refuse("freqs", "must be one frequency for each pair"));
        }
        Some(cx.tensor(call.value("freqs")?)?)
    };
    let traditional = call.flag("traditional")?;
    let base = call.float_or("base", 500_000.0)? as f32;
    let scale = call.float_or("scale", 1.0)? as f32;
    cx.define(call.out(0)?, |out| Instr::Rope { x, out, dims, offset, freqs, traditional, base, scale })
}

/// Writes new keys or values behind `start_pos`; with a ring, the part beyond its end at its beginning.
fn kv_cache_update<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let (cache, new) = (call.value("cache")?, call.value("new_values")?);
    let (ct, nt) = (call.ty("cache")?, call.ty("new_values")?);
    if ct.rank() != 4 || nt.rank() != 4 {
        return Err(call.refuse("cache", "must be [batch, heads, positions, head size]"));
    }
    // Only the new cache means anything; the operator's own result is a placeholder.
    if call.is_used(0) {
        return Err(Refusal::new("the operator's own result carries nothing and must not be used"));
    }
    let result = call.out(call.node.outputs.len().saturating_sub(1))?;
    let length = nt.shape[2].clone();
    let update = cx.tensor(new)?;
    let update = cx.cast(update, ct.dtype)?;
    let axis: IntOrVid = 2.into();
    let ring = call.int_or("ring_size", 0)?;
    if ring <= 0 {
        let (start, stop) = stop_after(cx, &call, &length)?;
        return cx.update(cache, result, |dst, out| Instr::SliceUpdate { dst, update, out, axis, start, stop, step: 1 });
    }
    let start = call.expr("start_pos")?;
    let at = start.modulo(&Expr::Int(ring));
    let room = Expr::Int(ring).minus(&at);
    let (at_v, room_v) = (cx.int(&at)?, cx.int(&room)?);
    let first = cx.temp(|out| Instr::Slice { x: update, out, axis, start: 0.into(), stop: room_v, step: 1 });
    // How many fitted is known from what was cut off.
    let fitted = cx.fresh_value();
    cx.push(Instr::SymSize { a: first, dim: 2, out: fitted });
    let total = cx.int(&length)?;
    let rest = cx.temp(|out| Instr::Slice { x: update, out, axis, start: fitted.into(), stop: total, step: 1 });
    let (end, minus, left) = (cx.fresh_value(), cx.fresh_value(), cx.fresh_value());
    cx.push(Instr::AddInt { a: at_v, b: fitted.into(), out: end });
    cx.push(Instr::MultiplyInt { a: fitted.into(), b: (-1).into(), out: minus });
    cx.push(Instr::AddInt { a: total, b: minus.into(), out: left });
    cx.update_twice(
        cache,
        result,
        |dst, out| Instr::SliceUpdate { dst, update: first, out, axis, start: at_v, stop: end.into(), step: 1 },
        |dst, out| Instr::SliceUpdate { dst, update: rest, out, axis, start: 0.into(), stop: left.into(), step: 1 },
    )
}

fn update_and_attend<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let (q, k, v) = (cx.tensor(call.value("q")?)?, cx.tensor(call.value("k")?)?, cx.tensor(call.value("v")?)?);
    if let ([batch, _, _, key], [_, _, _, value]) = (&call.ty("k")?.shape[..], &call.ty("v")?.shape[..])
        && (batch.as_int().is_some_and(|n| n != 1) || key != value)
    {
        return Err(call.refuse("k", "the runtime's cache holds one sequence, whose keys and values are of one width"));
    }
    let position = cx.tensor(call.value("position")?)?;
    let layer_id = i32::try_from(call.int("layer_id")?).map_err(|_| call.refuse("layer_id", "beyond 32 bits"))?;
    let scale = call.float("scale")? as f32;
    let out_dtype = match call.arg("out_dtype") {
        Arg::DType(t) => Some(*t),
        _ => None,
    };
    cx.define(call.out(0)?, |out| Instr::UpdateAndAttend {
        q,
        k,
        v,
        position,
        out,
        layer_id: Some(layer_id),
        scale: Some(scale),
        out_dtype,
    })
}
