//! Calls on inputs that take a mask or counts which are constants: written with positions instead, whose number is known.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::eval::{self, Tensor, Value};
use etx_ir::graph::{Arg, Graph, Node, NodeId, TensorType, ValueId};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Dim;

use super::known::{Known, tensor_of};
use super::{Change, Operand};
use crate::calls::{CAST, args, cast, wrap};
use crate::driver::Context;

/// What a call does with the constant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Index,
    IndexPut,
    MaskedSelect,
    Repeat,
    /// A scalar among tensors that decide the type.
    Scalar,
}

fn form(op: OpId) -> Option<Form> {
    by_op!(op, {
        "aten.index.Tensor" | "aten._unsafe_index.Tensor" => Some(Form::Index),
        "aten.index_put.default" | "aten._unsafe_index_put.default" => Some(Form::IndexPut),
        "aten.masked_select.default" => Some(Form::MaskedSelect),
        "aten.repeat_interleave.self_Tensor" => Some(Form::Repeat),
        _ => op.is_pointwise().then_some(Form::Scalar),
    })
}

fn is_mask(dtype: DType) -> bool {
    matches!(dtype, DType::Bool | DType::UInt8)
}

/// The constants that the call would be written with, were they known.
pub(super) fn wanted<'g>(graph: &'g Graph, node: &'g Node) -> impl Iterator<Item = ValueId> + 'g {
    let form = form(node.op);
    let masks = node.args.get(1).and_then(Arg::as_list).unwrap_or(&[]).iter().filter_map(Arg::as_value);
    let masks = masks.filter(|v| graph.tensor(*v).is_some_and(|t| is_mask(t.dtype)));
    let second = node.args.get(1).and_then(Arg::as_value);
    let scalars = node.args.iter().filter_map(Arg::as_value).filter(move |v| is_scalar(graph, node, *v));
    masks
        .filter(move |_| matches!(form, Some(Form::Index | Form::IndexPut)))
        .chain(second.filter(|_| matches!(form, Some(Form::MaskedSelect | Form::Repeat))))
        .chain(scalars.filter(move |_| form == Some(Form::Scalar)))
}

/// Whether the call may be of interest, whatever is known.
pub(super) fn may_matter(graph: &Graph, node: &Node) -> bool {
    wanted(graph, node).next().is_some()
}

/// Whether this is a scalar tensor of `f64` beside a tensor of a narrower float with dimensions, which decides what the call computes
/// in: torch converts the scalar first.
fn is_scalar(graph: &Graph, node: &Node, v: ValueId) -> bool {
    let tensors = || node.args.iter().filter_map(Arg::as_value).filter_map(|v| graph.tensor(v));
    let scalar = |t: &TensorType| t.dtype == DType::Float64 && t.rank() == 0;
    graph.tensor(v).is_some_and(scalar)
        && tensors().any(|t| t.rank() > 0 && t.dtype.is_float() && t.dtype != DType::Float64)
        && tensors().all(|t| scalar(t) || t.dtype != DType::Float64 && !t.dtype.is_complex())
}

/// The call with positions where it has a constant mask or constant counts.
pub(super) fn rewritten(cx: &Context<'_>, id: NodeId, known: &Known) -> Result<Option<Change>, Error> {
    let (graph, node) = (cx.graph(), cx.graph().node(id));
    // What is computed whole has no need of it.
    if !may_matter(graph, node) || node.outputs.iter().any(|v| known.get(*v).is_some()) {
        return Ok(None);
    }
    Ok(match form(node.op) {
        Some(Form::Index) => indexed(node, known),
        Some(Form::IndexPut) => put(graph, node, known),
        Some(Form::MaskedSelect) => selected(graph, node, known),
        Some(Form::Repeat) => repeated(graph, node, known),
        Some(Form::Scalar) => scalars(graph, node, known),
        None => None,
    })
}

/// What a call of one tensor and literals gives.
fn evaluated(op: OpId, args: &[Arg], x: &Tensor) -> Option<Vec<Tensor>> {
    let found = eval::call(op, args, &|_| Some(Value::Tensor(x.clone()))).ok()?;
    found.into_iter().map(|v| if let Value::Tensor(t) = v { Some(t) } else { None }).collect()
}

/// One tensor of positions for each dimension of a mask.
fn positions(arg: &Arg, mask: &Tensor) -> Option<Vec<Operand>> {
    let found = evaluated(op!("aten.nonzero_numpy.default"), std::slice::from_ref(arg), mask)?;
    Some(found.into_iter().map(Operand::New).collect())
}

/// A list of indices with masks written as positions; `None` if there is no mask that is known.
fn indices(list: &Arg, known: &Known) -> Option<Vec<Operand>> {
    let mut all = Vec::new();
    let mut any = false;
    for a in list.as_list()? {
        match tensor_of(known, a).filter(|t| is_mask(t.dtype()) && !t.shape().is_empty()) {
            Some(mask) => {
                any = true;
                all.extend(positions(a, mask)?);
            }
            None => all.push(Operand::Arg(a.clone())),
        }
    }
    any.then_some(all)
}

fn indexed(node: &Node, known: &Known) -> Option<Change> {
    let [x, list] = node.args.as_slice() else { return None };
    let list = indices(list, known)?;
    Some(Change { op: op!("aten.index.Tensor"), args: vec![Operand::Arg(x.clone()), Operand::List(list)], flat: false })
}

fn put(graph: &Graph, node: &Node, known: &Known) -> Option<Change> {
    let [x, list, values, rest @ ..] = node.args.as_slice() else { return None };
    // One value where a mask of the first dimensions is true is a choice by it.
    let single = graph.tensor(values.as_value()?)?.numel() == Dim::Int(1);
    if single && matches!(list.as_list()?, [Arg::Value(_)]) {
        return None;
    }
    let list = indices(list, known)?;
    let mut args = vec![Operand::Arg(x.clone()), Operand::List(list), Operand::Arg(values.clone())];
    args.extend(rest.iter().cloned().map(Operand::Arg));
    Some(Change { op: op!("aten.index_put.default"), args, flat: false })
}

/// The elements of the last dimensions, which the mask is for; where it is broadcast, of the shape that the two have together.
fn selected(graph: &Graph, node: &Node, known: &Known) -> Option<Change> {
    let (x, arg) = (node.args.first()?, node.args.get(1)?);
    let mask = tensor_of(known, arg)?;
    let shape = &graph.tensor(x.as_value()?)?.shape;
    let same = |d: &Dim, n: usize| d.as_int() == i64::try_from(n).ok();
    let outer = shape.len().checked_sub(mask.shape().len()).filter(|_| !mask.shape().is_empty());
    if let Some(outer) = outer.filter(|o| shape.iter().skip(*o).zip(mask.shape()).all(|(d, &n)| same(d, n))) {
        let mut list: Vec<Operand> = (0..outer).map(|_| Operand::Arg(Arg::None)).collect();
        list.extend(positions(arg, mask)?);
        return Some(Change { op: op!("aten.index.Tensor"), args: vec![Operand::Arg(x.clone()), Operand::List(list)], flat: true });
    }
    let mut sizes: Vec<i64> = shape.iter().map(Dim::as_int).collect::<Option<_>>()?;
    let missing = mask.shape().len().saturating_sub(sizes.len());
    sizes.splice(0..0, std::iter::repeat_n(1, missing));
    for (n, &m) in sizes.iter_mut().rev().zip(mask.shape().iter().rev()) {
        *n = if *n == 1 { i64::try_from(m).ok()? } else { *n };
    }
    let whole = crate::calls::ints(sizes.iter().copied());
    let wide = evaluated(op!("aten.expand.default"), &[arg.clone(), whole, Arg::Bool(false)], mask)?.pop()?;
    let list = if sizes.is_empty() { return None } else { positions(arg, &wide)? };
    let x = Operand::Expanded(x.clone(), sizes);
    Some(Change { op: op!("aten.index.Tensor"), args: vec![x, Operand::List(list)], flat: true })
}

/// Rows as often as a constant says.
fn repeated(graph: &Graph, node: &Node, known: &Known) -> Option<Change> {
    let [x, arg, rest @ ..] = node.args.as_slice() else { return None };
    let (t, counts) = (graph.tensor(x.as_value()?)?, tensor_of(known, arg)?);
    // Without a dimension, of the tensor taken flat.
    let (from, dim, rows) = match rest.first() {
        Some(Arg::Int(d)) => {
            let dim = wrap(*d, t.rank())?;
            (Operand::Arg(x.clone()), dim, t.shape.get(dim)?.clone())
        }
        _ => (Operand::Flat(x.clone()), 0, t.numel()),
    };
    let one = counts.shape().iter().product::<usize>() == 1;
    if one && rows != Dim::Int(1) {
        let times = counts.bytes();
        let times = match counts.dtype() {
            DType::Int64 => i64::from_le_bytes(times.try_into().ok()?),
            DType::Int32 => i32::from_le_bytes(times.try_into().ok()?).into(),
            _ => return None,
        };
        let op = op!("aten.repeat_interleave.self_int");
        let rest = args(op, [Arg::None, Arg::Int(times), Arg::Int(dim as i64)], &[]).into_iter().skip(1).map(Operand::Arg);
        return Some(Change { op, args: std::iter::once(from).chain(rest).collect(), flat: false });
    }
    if rows.as_int() != i64::try_from(*counts.shape().first()?).ok() {
        return None;
    }
    let op = op!("aten.repeat_interleave.Tensor");
    let places = evaluated(op, &args(op, [arg.clone()], &[]), counts)?.pop()?;
    let args = vec![from, Operand::Arg(Arg::Int(dim as i64)), Operand::New(places)];
    Some(Change { op: op!("aten.index_select.default"), args, flat: false })
}

/// Scalars of `f64` as what torch converts them to.
fn scalars(graph: &Graph, node: &Node, known: &Known) -> Option<Change> {
    let mut any = false;
    let mut list = Vec::new();
    for a in &node.args {
        let scalar = a.as_value().filter(|v| is_scalar(graph, node, *v)).and_then(|v| known.tensor(v));
        match scalar.and_then(|t| single(a, t)) {
            Some(t) => {
                any = true;
                list.push(Operand::New(t));
            }
            None => list.push(Operand::Arg(a.clone())),
        }
    }
    any.then_some(Change { op: node.op, args: list, flat: false })
}

fn single(arg: &Arg, t: &Tensor) -> Option<Tensor> {
    evaluated(CAST, &cast(arg.clone(), DType::Float32), t)?.pop()
}
