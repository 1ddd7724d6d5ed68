//! Gathering, scattering, sorting.

use etx_ir::DType;
use etx_ir::graph::{Arg, ValueId};
use etx_ir::sym::Expr;
use etx_mlx::{Instr, IntOrVid, Tid};

use super::super::call::{Call, Res, describe};
use super::super::cx::Cx;
use super::Operator;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.embedding.default", embedding, "Take, or Take of codes and Dequantize"),
    Operator::new("aten.index_select.default", index_select, "Take"),
    Operator::new("aten.gather.default", gather, "TakeAlongAxis")
        .when("the index is smaller than the tensor on another axis and a size is symbolic"),
    Operator::new("aten.take_along_dim.default", gather, "TakeAlongAxis"),
    Operator::new("aten.index.Tensor", index, "Take, or Gather and Reshape").when("an index is a mask"),
    Operator::new("aten.scatter_add.default", scatter_add, "ScatterAdd"),
    Operator::new("aten.index_copy.default", index_copy, "IndexCopy").updating("self"),
    Operator::new("aten.sort.default", sort, "Sort, Argsort"),
    Operator::new("aten.sort.stable", sort, "Sort, Argsort"),
    Operator::new("aten.argsort.default", argsort, "Argsort"),
    Operator::new("aten.argsort.stable", argsort, "Argsort"),
    Operator::new("aten.topk.default", topk, "Argsort, Slice, TakeAlongAxis, or Sort, Slice; of NaN and +inf in one row the first"),
];

/// A tensor of indices; MLX takes any integers, and so does torch, but for masks.
fn indices<'a>(cx: &mut Cx<'a>, call: &Call<'a>, v: ValueId) -> Res<Tid> {
    match call.graph.tensor(v) {
        Some(t) if t.dtype.is_int() && t.dtype != DType::UInt8 => cx.tensor(v),
        _ => {
            let what = format!("{} is a mask, whose result has no size known at export", describe(call.graph, v));
            Err(Refusal::new(what).remedy("keep a result of fixed size (torch.where), or reduce what is selected (sum, mean, amax)"))
        }
    }
}

fn embedding<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let index = indices(cx, &call, call.value("indices")?)?;
    // A single row would be a vector, which MLX does not dequantise.
    if call.ty("indices")?.rank() > 0
        && let Some(Ok(q)) = super::quant::dequantised(cx, &call, call.value("weight")?)
        && q.is_plain()
    {
        let to = call.out_ty(0)?;
        let rows = q.rows(cx, index, to.dtype, &to.shape)?;
        return cx.bind(call.out(0)?, rows);
    }
    let x = cx.tensor(call.value("weight")?)?;
    cx.define(call.out(0)?, |out| Instr::Take { x, out, index: index.into(), axis: 0 })
}

fn index_select<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let mut x = cx.tensor(call.value("self")?)?;
    let rank = call.ty("self")?.rank();
    let index = indices(cx, &call, call.value("index")?)?;
    if rank == 0 {
        x = cx.temp(|out| Instr::Reshape { x, out, shape: vec![1.into()] });
        let taken = cx.temp(|out| Instr::Take { x, out, index: index.into(), axis: 0 });
        return cx.define(call.out(0)?, |out| Instr::Reshape { x: taken, out, shape: vec![] });
    }
    let axis = call.axis("dim", rank)? as i32;
    // A single index keeps the axis it picks from.
    let index = if call.ty("index")?.rank() == 0 { cx.temp(|out| Instr::Reshape { x: index, out, shape: vec![1.into()] }) } else { index };
    cx.define(call.out(0)?, |out| Instr::Take { x, out, index: index.into(), axis })
}

fn gather<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let along = call.node.op.target() == "aten.take_along_dim.default";
    let name = if along { "indices" } else { "index" };
    let mut x = cx.tensor(call.value("self")?)?;
    let index = indices(cx, &call, call.value(name)?)?;
    let (from, at) = (call.ty("self")?, call.ty(name)?);
    if from.rank() == 0 || at.rank() != from.rank() {
        if from.rank() == 0 && at.rank() == 0 {
            return cx.bind(call.out(0)?, x);
        }
        return Err(call.refuse(name, "needs as many axes as the tensor"));
    }
    let axis = if along && call.is_none("dim") { return Err(call.refuse("dim", "must be given")) } else { call.axis("dim", from.rank())? };
    // Elsewhere an index may be shorter than the tensor; what lies beyond it is not looked at.
    if !along {
        for a in (0..from.rank()).filter(|&a| a != axis && from.shape[a] != at.shape[a]) {
            let stop = cx.int(&at.shape[a])?;
            let whole = x;
            x = cx.temp(|out| Instr::Slice { x: whole, out, axis: (a as i64).into(), start: 0.into(), stop, step: 1 });
        }
    }
    cx.define(call.out(0)?, |out| Instr::TakeAlongAxis { x, indices: index, out, axis: axis as i32 })
}

/// `x[i, :, j]` and the like. Adjacent indices leave their axes where they are; separated ones bring them to the front.
fn index<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let mut x = cx.tensor(call.value("self")?)?;
    let ty = call.ty("self")?;
    let mut given: Vec<(usize, ValueId)> = Vec::new();
    for (axis, arg) in call.arg("indices").as_list().unwrap_or(&[]).iter().enumerate() {
        match arg {
            Arg::None => {}
            Arg::Value(v) => given.push((axis, *v)),
            _ => return Err(call.refuse("indices", "must be tensors")),
        }
    }
    let mut tids = Vec::new();
    for &(_, v) in &given {
        tids.push(indices(cx, &call, v)?);
    }
    if let ([(axis, _)], [t]) = (given.as_slice(), tids.as_slice()) {
        let (axis, index) = (*axis as i32, (*t).into());
        return cx.define(call.out(0)?, |out| Instr::Take { x, out, index, axis });
    }
    if given.is_empty() {
        return cx.bind(call.out(0)?, x);
    }
    if call.out_ty(0)?.shape.contains(&Expr::Int(0)) {
        // The instruction cuts no boxes without elements.
        return super::create::nothing(cx, &call);
    }
    let axes: Vec<usize> = given.iter().map(|(a, _)| *a).collect();
    let adjacent = axes.windows(2).all(|w| w[1] == w[0] + 1);
    let others: Vec<usize> = (0..ty.rank()).filter(|a| !axes.contains(a)).collect();
    let mut slice_sizes = Vec::new();
    for (a, d) in ty.shape.iter().enumerate() {
        if axes.contains(&a) {
            slice_sizes.push(1);
        } else {
            let n = d.as_int().and_then(|n| i32::try_from(n).ok());
            slice_sizes.push(n.ok_or_else(|| {
                call.refuse("self", &format!("the size of axis {a}, which no index picks from, must be known at export"))
            })?);
        }
    }
    let index_rank = given.iter().filter_map(|(_, v)| call.graph.tensor(*v)).map(|t| t.rank()).max().unwrap_or(0);
    let gathered = {
        let axes = axes.iter().map(|&a| a as i32).collect();
        let source = x;
        cx.temp(|out| Instr::Gather { x: source, indices: tids, out, axes, slice_sizes })
    };
    // Gathered: index axes first, then every axis, those picked from with size 1.
    let to = call.out_ty(0)?;
    let front = if adjacent { axes[0] } else { 0 };
    x = gathered;
    if front > 0 && others.iter().any(|&a| a < front) {
        // Drop the ones, then bring the axes before the first index back to the front.
        let ones: Vec<i32> = axes.iter().map(|&a| (index_rank + a) as i32).collect();
        let flat = cx.temp(|out| Instr::Squeeze { x: gathered, out, dims: Some(ones) });
        let mut perm: Vec<usize> = (index_rank..index_rank + front).collect();
        perm.extend(0..index_rank);
        perm.extend(index_rank + front..index_rank + others.len());
        let t = super::shape::transposed(cx, flat, &perm);
        return cx.bind(call.out(0)?, t);
    }
    let shape = cx.reshape_dims(&to.shape)?;
    cx.define(call.out(0)?, |out| Instr::Reshape { x, out, shape })
}

fn scatter_add<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let index = indices(cx, &call, call.value("index")?)?;
    let mut updates = cx.tensor(call.value("src")?)?;
    let (ty, at, src) = (call.ty("self")?, call.ty("index")?, call.ty("src")?);
    let axis = call.axis("dim", ty.rank())?;
    if ty.rank() == 0 {
        return Err(call.refuse("self", "a scalar has nothing to scatter into"));
    }
    // Only as much of the source as the index has places for.
    for a in 0..src.rank() {
        if src.shape[a] != at.shape[a] {
            let stop = cx.int(&at.shape[a])?;
            let whole = updates;
            updates = cx.temp(|out| Instr::Slice { x: whole, out, axis: (a as i64).into(), start: 0.into(), stop, step: 1 });
        }
    }
    if (0..ty.rank()).any(|a| a != axis && at.shape[a] != ty.shape[a]) {
        return Err(call.refuse("index", "must span the tensor on every other axis"));
    }
    cx.define(call.out(0)?, |out| Instr::ScatterAdd { x, indices: index, updates, out, axis: axis as i32 })
}

fn index_copy<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let ty = call.ty("self")?;
    if ty.rank() == 0 {
        return Err(call.refuse("self", "a scalar has nothing to copy into"));
    }
    let axis = call.axis("dim", ty.rank())? as i32;
    let mut indices = cx.tensor(call.value("index")?)?;
    // The instruction reads 64-bit positions, one axis of them.
    indices = cx.cast(indices, DType::Int64)?;
    if call.ty("index")?.rank() == 0 {
        let at = indices;
        indices = cx.temp(|out| Instr::Reshape { x: at, out, shape: vec![1.into()] });
    }
    let update = cx.tensor(call.value("source")?)?;
    let update = cx.cast(update, ty.dtype)?;
    cx.update(call.value("self")?, call.out(0)?, |dst, out| Instr::IndexCopy { dst, update, indices, out, axis })
}

/// Indices of the order, ascending or descending.
///
/// MLX sorts upwards only. Downwards, keys are turned around in a way that keeps equal elements in their order where
/// torch promises that: floats and signed integers by their negative, others by flipping twice.
fn order<'a>(cx: &mut Cx<'a>, call: &Call<'a>, x: Tid, axis: i32, descending: bool) -> Res<Tid> {
    if !descending {
        return Ok(cx.temp(|out| Instr::Argsort { x, out, axis }));
    }
    let key = downward_key(cx, call, x)?;
    Ok(cx.temp(|out| Instr::Argsort { x: key, out, axis }))
}

/// A key that ascends where `x` descends.
fn downward_key<'a>(cx: &mut Cx<'a>, call: &Call<'a>, x: Tid) -> Res<Tid> {
    match call.ty("self")?.dtype {
        // NaN counts as largest: it goes first when descending, so its key must be the smallest.
        t if t.is_float() => {
            let nan = cx.temp(|out| Instr::NotEqual { a: x, b: x, out });
            let low = cx.scalar(f64::NEG_INFINITY, t)?;
            let negative = cx.temp(|out| Instr::Neg { x, out });
            Ok(cx.temp(|out| Instr::Where { condition: nan, x: low, y: negative, out }))
        }
        DType::Bool => Ok(cx.temp(|out| Instr::LogicalNot { x, out })),
        // The complement orders integers the other way round and cannot overflow.
        _ => Ok(cx.temp(|out| Instr::BitwiseInvert { x, out })),
    }
}

fn sort<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let ty = call.ty("self")?;
    if ty.rank() == 0 {
        cx.bind(call.out(0)?, x)?;
        let zero = cx.scalar(0.0, DType::Int64)?;
        return cx.bind(call.out(1)?, zero);
    }
    let axis = call.axis("dim", ty.rank())? as i32;
    let descending = call.flag("descending")?;
    if descending && !call.is_used(1) {
        let sorted = cx.temp(|out| Instr::Sort { x, out, axis });
        return cx.define(call.out(0)?, |out| backwards(sorted, out, axis, i64::MIN.into()));
    }
    if descending || (call.is_used(0) && call.is_used(1)) {
        let at = order(cx, &call, x, axis, descending)?;
        if call.is_used(0) {
            cx.define(call.out(0)?, |out| Instr::TakeAlongAxis { x, indices: at, out, axis })?;
        }
        return if call.is_used(1) { cx.bind(call.out(1)?, at) } else { Ok(()) };
    }
    if call.is_used(1) {
        return cx.define(call.out(1)?, |out| Instr::Argsort { x, out, axis });
    }
    cx.define(call.out(0)?, |out| Instr::Sort { x, out, axis })
}

fn argsort<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let ty = call.ty("self")?;
    if ty.rank() == 0 {
        let zero = cx.scalar(0.0, DType::Int64)?;
        return cx.bind(call.out(0)?, zero);
    }
    let axis = call.axis("dim", ty.rank())? as i32;
    let at = order(cx, &call, x, axis, call.flag("descending")?)?;
    cx.bind(call.out(0)?, at)
}

/// From the last element down to the one after `stop`.
fn backwards(x: Tid, out: Tid, axis: i32, stop: IntOrVid) -> Instr {
    Instr::Slice { x, out, axis: i64::from(axis).into(), start: (-1).into(), stop, step: -1 }
}

fn topk<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let ty = call.ty("self")?;
    if ty.rank() == 0 {
        cx.bind(call.out(0)?, x)?;
        let zero = cx.scalar(0.0, DType::Int64)?;
        return cx.bind(call.out(1)?, zero);
    }
    let axis = if call.is_none("dim") { ty.rank() - 1 } else { call.axis("dim", ty.rank())? };
    let largest = call.is_none("largest") || call.flag("largest")?;
    let k: Expr = call.expr("k")?;
    let stop: IntOrVid = cx.int(&k)?;
    if largest && !call.is_used(1) {
        // The last of the rising order, from behind; NaN counts as largest in both.
        let past = cx.int(&k.plus(&Expr::Int(1)).times(&Expr::Int(-1)))?;
        let sorted = cx.temp(|out| Instr::Sort { x, out, axis: axis as i32 });
        return cx.define(call.out(0)?, |out| backwards(sorted, out, axis as i32, past));
    }
    let at = order(cx, &call, x, axis as i32, largest)?;
    let axis_arg: IntOrVid = (axis as i64).into();
    let indices = cx.temp(|out| Instr::Slice { x: at, out, axis: axis_arg, start: 0.into(), stop, step: 1 });
    if call.is_used(0) {
        cx.define(call.out(0)?, |out| Instr::TakeAlongAxis { x, indices, out, axis: axis as i32 })?;
    }
    if call.is_used(1) { cx.bind(call.out(1)?, indices) } else { Ok(()) }
}
