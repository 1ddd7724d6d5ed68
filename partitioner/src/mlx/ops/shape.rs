//! Operators that move elements without computing.

use etx_ir::graph::Arg;
use etx_ir::sym::Expr;
use etx_mlx::{Instr, IntOrVid, Tid};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.view.default", reshape, "Reshape"),
    Operator::new("aten.reshape.default", reshape, "Reshape"),
    Operator::new("aten.flatten.using_ints", reshape, "Reshape"),
    Operator::new("aten.unflatten.int", reshape, "Reshape"),
    Operator::new("aten.permute.default", permute, "Transpose"),
    Operator::new("aten.transpose.int", transpose, "Transpose"),
    Operator::new("aten.t.default", transpose_matrix, "Transpose"),
    Operator::new("aten.unsqueeze.default", unsqueeze, "ExpandDims"),
    Operator::new("aten.squeeze.default", squeeze, "Squeeze"),
    Operator::new("aten.squeeze.dim", squeeze, "Squeeze"),
    Operator::new("aten.squeeze.dims", squeeze, "Squeeze"),
    Operator::new("aten.expand.default", expand, "BroadcastTo"),
    Operator::new("aten.repeat.default", repeat, "Tile"),
    Operator::new("aten.repeat_interleave.self_int", repeat_interleave, "Repeat"),
    Operator::new("aten.cat.default", cat, "Concatenate"),
    Operator::new("aten.stack.default", stack, "Stack"),
    Operator::new("aten.split_with_sizes.default", split_with_sizes, "Split"),
    Operator::new("aten.split.Tensor", split, "Split"),
    Operator::new("aten.chunk.default", split, "Split"),
    Operator::new("aten.unbind.int", unbind, "Take for each"),
    Operator::new("aten.slice.Tensor", slice, "Slice").when("step is not positive"),
    Operator::new("aten.narrow.default", narrow, "Slice"),
    Operator::new("aten.select.int", select, "Take"),
    Operator::new("aten.slice_scatter.default", slice_scatter, "SliceUpdate").when("step is not positive").updating("self"),
    Operator::new("aten.select_scatter.default", select_scatter, "ExpandDims, SliceUpdate").updating("self"),
    Operator::new("aten.constant_pad_nd.default", pad, "Slice where negative, Pad"),
    Operator::new("aten.roll.default", roll, "Roll"),
    Operator::new("aten.flip.default", flip, "Flip"),
    Operator::new("aten.clone.default", same, "nothing"),
    Operator::new("aten.alias.default", same, "nothing"),
    Operator::new("aten.contiguous.default", same, "nothing"),
    Operator::new("aten.detach.default", same, "nothing"),
    Operator::new("aten.lift_fresh_copy.default", same, "nothing"),
];

pub(super) fn same<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    cx.bind(call.out(0)?, x)
}

/// Reads off what the result's type says; `-1` and the like are settled there.
fn reshape<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let (from, to) = (call.ty("self")?, call.out_ty(0)?);
    if from.dtype != to.dtype {
        return Err(call.refuse("self", "bits seen as another type"));
    }
    if from.shape == to.shape {
        return cx.bind(call.out(0)?, x);
    }
    let shape = cx.reshape_dims(&to.shape)?;
    cx.define(call.out(0)?, |out| Instr::Reshape { x, out, shape })
}

fn permuted<'a>(cx: &mut Cx<'a>, call: Call<'a>, perm: &[usize]) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let t = transposed(cx, x, perm);
    cx.bind(call.out(0)?, t)
}

/// `x` with its axes in this order; computed once for a constant.
pub(super) fn transposed(cx: &mut Cx<'_>, x: Tid, perm: &[usize]) -> Tid {
    if perm.iter().enumerate().all(|(i, &p)| i == p) {
        return x;
    }
    let perm: Vec<i32> = perm.iter().map(|&p| p as i32).collect();
    cx.once(x, &format!("transpose {perm:?}"), |out| Instr::Transpose { x, out, perm })
}

fn permute<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let rank = call.ty("self")?.rank();
    let dims = call.ints("dims")?;
    let perm: Vec<usize> = dims.iter().map(|&d| if d < 0 { d + rank as i64 } else { d } as usize).collect();
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(call.refuse("dims", "not a permutation of the axes"));
    }
    permuted(cx, call, &perm)
}

fn transpose<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let rank = call.ty("self")?.rank();
    let mut perm: Vec<usize> = (0..rank).collect();
    if rank > 0 {
        perm.swap(call.axis("dim0", rank)?, call.axis("dim1", rank)?);
    }
    permuted(cx, call, &perm)
}

fn transpose_matrix<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let perm: &[usize] = if call.ty("self")?.rank() == 2 { &[1, 0] } else { &[0] };
    permuted(cx, call, &perm[..call.ty("self")?.rank()])
}

fn unsqueeze<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let axis = call.axis("dim", call.ty("self")?.rank() + 1)? as i32;
    cx.define(call.out(0)?, |out| Instr::ExpandDims { x, out, axis })
}

fn squeeze<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let t = call.ty("self")?;
    let asked = if call.node.op.schema().position("dim").is_some() {
        if call.arg("dim").as_list().is_some_and(<[Arg]>::is_empty) { vec![] } else { call.axes("dim", t.rank())? }
    } else {
        (0..t.rank()).collect()
    };
    // What torch removed is what was 1 at export; a size that only may be 1 stays.
    let dims: Vec<i32> = asked.into_iter().filter(|&a| t.shape[a] == Expr::Int(1)).map(|a| a as i32).collect();
    if dims.len() + call.out_ty(0)?.rank() != t.rank() {
        return Err(call.refuse("self", "which axes have size 1 is not known"));
    }
    if dims.is_empty() {
        return cx.bind(call.out(0)?, x);
    }
    cx.define(call.out(0)?, |out| Instr::Squeeze { x, out, dims: Some(dims) })
}

fn expand<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let (from, to) = (call.ty("self")?, call.out_ty(0)?);
    if from.shape == to.shape {
        return cx.bind(call.out(0)?, x);
    }
    let shape = broadcast_dims(cx, &from.shape, &to.shape)?;
    cx.define(call.out(0)?, |out| Instr::BroadcastTo { x, out, shape })
}

/// Sizes for `BroadcastTo`: where the operand has the size already, `-1` copies it.
pub(super) fn broadcast_dims(cx: &mut Cx<'_>, from: &[Expr], to: &[Expr]) -> Res<Vec<IntOrVid>> {
    let lead = to.len().saturating_sub(from.len());
    let mut dims = Vec::with_capacity(to.len());
    for (i, d) in to.iter().enumerate() {
        let kept = i >= lead && from.get(i - lead) == Some(d) && d.as_int().is_none();
        dims.push(if kept { IntOrVid::Int(-1) } else { cx.int(d)? });
    }
    Ok(dims)
}

fn repeat<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let reps = cx.dims(&call.exprs("repeats")?)?;
    cx.define(call.out(0)?, |out| Instr::Tile { x, out, reps })
}

fn repeat_interleave<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let mut x = cx.tensor(call.value("self")?)?;
    let rank = call.ty("self")?.rank();
    let repeats = cx.int_arg(&call, "repeats")?;
    let axis = if call.is_none("dim") {
        // Without an axis the tensor is taken flat.
        if rank != 1 {
            x = cx.temp(|out| Instr::Reshape { x, out, shape: vec![(-1).into()] });
        }
        0
    } else {
        call.axis("dim", rank)? as i32
    };
    let to = &call.out_ty(0)?.shape;
    if to.contains(&Expr::Int(0)) {
        return super::create::nothing(cx, &call);
    }
    let repeated = repeated(cx, x, to, repeats, axis as usize)?;
    cx.bind(call.out(0)?, repeated)
}

/// Each element so many times along an axis, which makes the shape `to`.
pub(super) fn repeated(cx: &mut Cx<'_>, x: Tid, to: &[Expr], repeats: IntOrVid, axis: usize) -> Res<Tid> {
    if to.iter().all(|d| !cx.may_be_zero(d)) {
        return Ok(cx.temp(|out| Instr::Repeat { x, out, repeats, axis: axis as i32 }));
    }
    // The instruction makes no tensor without elements.
    let each = cx.temp(|out| Instr::ExpandDims { x, out, axis: axis as i32 + 1 });
    let mut shape = vec![IntOrVid::Int(-1); to.len()];
    shape.insert(axis + 1, repeats);
    let all = cx.temp(|out| Instr::BroadcastTo { x: each, out, shape });
    let shape = cx.reshape_dims(to)?;
    Ok(cx.temp(|out| Instr::Reshape { x: all, out, shape }))
}

/// The tensors of a list as the result's type, without the legacy empty vectors that `cat` lets pass.
fn joined<'a>(cx: &mut Cx<'a>, call: &Call<'a>, skip_empty: bool) -> Res<Vec<Tid>> {
    let to = call.out_ty(0)?;
    let mut tensors = Vec::new();
    for v in call.values("tensors")? {
        let t = call.graph.tensor(v).ok_or_else(|| call.refuse("tensors", "must be tensors"))?;
        if skip_empty && t.shape == [Expr::Int(0)] && to.rank() != 1 {
            continue;
        }
        let x = cx.tensor(v)?;
        tensors.push(cx.cast(x, to.dtype)?);
    }
    Ok(tensors)
}

fn cat<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let tensors = joined(cx, &call, true)?;
    let axis = call.axis("dim", call.out_ty(0)?.rank())? as i32;
    match tensors.as_slice() {
        [] => Err(call.refuse("tensors", "nothing to join")),
        [one] => cx.bind(call.out(0)?, *one),
        _ => cx.define(call.out(0)?, |out| Instr::Concatenate { tensors, out, axis }),
    }
}

fn stack<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let tensors = joined(cx, &call, false)?;
    let axis = call.axis("dim", call.out_ty(0)?.rank())? as i32;
    cx.define(call.out(0)?, |out| Instr::Stack { tensors, out, axis })
}

/// The pieces have the sizes of the results.
fn pieces<'a>(cx: &mut Cx<'a>, call: &Call<'a>, axis: usize) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let n = call.node.outputs.len();
    let mut sizes = Vec::with_capacity(n);
    for i in 0..n {
        let t = call.out_ty(i)?;
        let d = t.shape.get(axis).ok_or_else(|| Refusal::new("a piece has fewer axes than the whole"))?;
        sizes.push(cx.int(d)?);
    }
    if n == 1 {
        return cx.bind(call.out(0)?, x);
    }
    let used: Vec<usize> = (0..n).filter(|&i| call.is_used(i)).collect();
    if let ([i], Some(fixed)) = (used.as_slice(), fixed(&sizes)) {
        // One piece alone is a slice.
        let start: i64 = fixed[..*i].iter().sum();
        let stop = start + fixed[*i];
        return cx.define(call.out(*i)?, |out| Instr::Slice {
            x,
            out,
            axis: (axis as i64).into(),
            start: start.into(),
            stop: stop.into(),
            step: 1,
        });
    }
    let outs: Vec<Tid> = (0..n).map(|_| cx.fresh()).collect();
    cx.push(Instr::Split { x, outs: outs.clone(), sizes, axis: axis as i32 });
    for (i, t) in outs.into_iter().enumerate() {
        cx.bind(call.out(i)?, t)?;
    }
    Ok(())
}

fn fixed(sizes: &[IntOrVid]) -> Option<Vec<i64>> {
    sizes.iter().map(|s| if let IntOrVid::Int(n) = s { Some(*n) } else { None }).collect()
}

fn split_with_sizes<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let axis = call.axis("dim", call.ty("self")?.rank())?;
    pieces(cx, &call, axis)
}

fn split<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let axis = call.axis("dim", call.ty("self")?.rank())?;
    pieces(cx, &call, axis)
}

fn unbind<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let axis = call.axis("dim", call.ty("self")?.rank())? as i32;
    for i in 0..call.node.outputs.len() {
        if call.is_used(i) {
            cx.define(call.out(i)?, |out| Instr::Take { x, out, index: (i as i64).into(), axis })?;
        }
    }
    Ok(())
}

/// A bound of a slice; MLX clamps it as torch does.
fn bound<'a>(cx: &mut Cx<'a>, call: &Call<'a>, name: &str, default: i64) -> Res<IntOrVid> {
    if call.is_none(name) { Ok(default.into()) } else { cx.int_arg(call, name) }
}

fn step(call: &Call<'_>) -> Res<i32> {
    let step = call.int_or("step", 1)?;
    i32::try_from(step).ok().filter(|&s| s > 0).ok_or_else(|| call.refuse("step", "must be positive"))
}

fn slice<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let (from, to) = (call.ty("self")?, call.out_ty(0)?);
    if from.rank() == 0 {
        return Err(call.refuse("self", "a scalar cannot be sliced"));
    }
    let axis = call.axis("dim", from.rank())?;
    let step = step(&call)?;
    if from.shape == to.shape && step == 1 {
        return cx.bind(call.out(0)?, x);
    }
    let start = bound(cx, &call, "start", 0)?;
    let stop = bound(cx, &call, "end", i64::MAX)?;
    cx.define(call.out(0)?, |out| Instr::Slice { x, out, axis: (axis as i64).into(), start, stop, step })
}

fn narrow<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let t = call.ty("self")?;
    let axis = call.axis("dim", t.rank())?;
    let mut from = call.expr("start")?;
    if from.as_int().is_some_and(|n| n < 0) {
        from = from.plus(&t.shape[axis]);
    }
    let to = from.plus(&call.expr("length")?);
    let (start, stop) = (cx.int(&from)?, cx.int(&to)?);
    cx.define(call.out(0)?, |out| Instr::Slice { x, out, axis: (axis as i64).into(), start, stop, step: 1 })
}

fn select<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let axis = call.axis("dim", call.ty("self")?.rank())? as i32;
    let index = match cx.int_arg(&call, "index")? {
        IntOrVid::Int(n) => n.into(),
        IntOrVid::Vid(v) => v.into(),
    };
    cx.define(call.out(0)?, |out| Instr::Take { x, out, index, axis })
}

fn slice_scatter<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let t = call.ty("self")?;
    let axis = call.axis("dim", t.rank())? as i64;
    let step = step(&call)?;
    let update = cx.tensor(call.value("src")?)?;
    let update = cx.cast(update, t.dtype)?;
    let start = bound(cx, &call, "start", 0)?;
    let stop = bound(cx, &call, "end", i64::MAX)?;
    cx.update(call.value("self")?, call.out(0)?, |dst, out| Instr::SliceUpdate { dst, update, out, axis: axis.into(), start, stop, step })
}

fn select_scatter<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let t = call.ty("self")?;
    let axis = call.axis("dim", t.rank())?;
    let mut index = call.expr("index")?;
    if index.as_int().is_some_and(|n| n < 0) {
        index = index.plus(&t.shape[axis]);
    }
    let src = cx.tensor(call.value("src")?)?;
    let src = cx.cast(src, t.dtype)?;
    let update = cx.temp(|out| Instr::ExpandDims { x: src, out, axis: axis as i32 });
    let (start, stop) = (cx.int(&index)?, cx.int(&index.plus(&Expr::Int(1)))?);
    cx.update(call.value("self")?, call.out(0)?, |dst, out| Instr::SliceUpdate {
        dst,
        update,
        out,
        axis: (axis as i64).into(),
        start,
        stop,
        step: 1,
    })
}

fn pad<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let mut x = cx.tensor(call.value("self")?)?;
    let t = call.ty("self")?;
    let value = call.float_or("value", 0.0)?;
    let pads = call.exprs("pad")?;
    if pads.len() % 2 == 1 || pads.len() > 2 * t.rank() {
        return Err(call.refuse("pad", "must be pairs, at most one an axis"));
    }
    // torch lists pairs from the last axis on.
    let mut widths = vec![IntOrVid::Int(0); 2 * t.rank()];
    for (i, pair) in pads.chunks_exact(2).enumerate() {
        let axis = t.rank() - 1 - i;
        let cut = |e: &Expr| e.as_int().map_or(0, |n| n.min(0));
        let (front, back) = (cut(&pair[0]), cut(&pair[1]));
        if front < 0 || back < 0 {
            // A negative pad takes elements away.
            let stop = if back < 0 { cx.int(&t.shape[axis].plus(&Expr::Int(back)))? } else { i64::MAX.into() };
            let from = x;
            x = cx.temp(|out| Instr::Slice { x: from, out, axis: (axis as i64).into(), start: (-front).into(), stop, step: 1 });
        }
        for (k, e) in pair.iter().enumerate() {
            widths[2 * axis + k] = match e.as_int() {
                Some(n) => n.max(0).into(),
                None if cx.method.ranges.bounds(e).min.is_some_and(|n| n >= 0) => cx.int(e)?,
                None => return Err(call.refuse("pad", "whether a symbolic pad is negative is not known")),
            };
        }
    }
    if widths.iter().all(|w| *w == IntOrVid::Int(0)) {
        return cx.bind(call.out(0)?, x);
    }
    if t.dtype.is_int() && f64::from(value as f32) != value {
        // The instruction carries a single, which has no place for the integer: pad by zero what is so much less.
        let b = match call.arg("value") {
            Arg::Int(n) => cx.integer(*n, t.dtype)?,
            _ => cx.scalar(value.trunc(), t.dtype)?,
        };
        let less = cx.temp(|out| Instr::Subtract { a: x, b, out });
        let padded = cx.temp(|out| Instr::Pad { x: less, out, pad_width: widths, mode: "constant".to_owned(), constant_value: 0.0 });
        return cx.define(call.out(0)?, |out| Instr::Add { a: padded, b, out });
    }
    cx.define(call.out(0)?, |out| Instr::Pad { x, out, pad_width: widths, mode: "constant".to_owned(), constant_value: value as f32 })
}

fn roll<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let t = call.ty("self")?;
    let shift = cx.dims(&call.exprs("shifts")?)?;
    let dims = call.ints("dims")?;
    if dims.is_empty() && t.rank() != 1 {
        // Without axes the tensor is rolled flat.
        let flat = cx.temp(|out| Instr::Reshape { x, out, shape: vec![(-1).into()] });
        let rolled = cx.temp(|out| Instr::Roll { x: flat, out, shift, axes: vec![0] });
        let shape = cx.reshape_dims(&t.shape)?;
        return cx.define(call.out(0)?, |out| Instr::Reshape { x: rolled, out, shape });
    }
    let axes = if dims.is_empty() { vec![0] } else { wrapped(&call, &dims, t.rank())? };
    if axes.len() != shift.len() {
        return Err(call.refuse("dims", "as many as there are shifts"));
    }
    cx.define(call.out(0)?, |out| Instr::Roll { x, out, shift, axes })
}

fn flip<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let axes = wrapped(&call, &call.ints("dims")?, call.ty("self")?.rank())?;
    if axes.is_empty() {
        return cx.bind(call.out(0)?, x);
    }
    cx.define(call.out(0)?, |out| Instr::Flip { x, out, axes })
}

fn wrapped(call: &Call<'_>, dims: &[i64], rank: usize) -> Res<Vec<i32>> {
    let n = rank as i64;
    dims.iter().map(|&d| if (-n..n).contains(&d) { Ok(d.rem_euclid(n) as i32) } else { Err(call.refuse("dims", "no such axis")) }).collect()
}
