//! Computes at compile time what no program could say: sizes that the values of constants decide, and constants of types that
//! MLX lacks.

mod described;
mod known;
mod places;
mod symbols;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::eval::{Tensor, Value};
use etx_ir::graph::{Arg, Graph, NodeId, TensorType, Type, ValueId};
use etx_ir::op;
use etx_ir::op::{Kind, OpId};
use etx_ir::sym::{Dim, Symbol};
use etx_ir::weights::TensorData;

use crate::calls::{args, ints};
use crate::driver::{Context, Pass};
use crate::rewrite::remove_dead;
pub(crate) use described::cast_when_written;
use known::{Known, Survey};
use symbols::Bindings;

/// Element types of tensors that exist in programs and not in MLX, and whose values become others' when they are cast. (Complex numbers
/// are pairs to it, but for those of `f64`.)
pub(crate) fn is_foreign(dtype: DType) -> bool {
    dtype == DType::Float64 || dtype == DType::Complex128 || is_small_float(dtype) || matches!(dtype, DType::UInt16 | DType::UInt64)
}

fn is_small_float(dtype: DType) -> bool {
    use DType::{Float8E4M3, Float8E4M3Fnuz, Float8E5M2, Float8E5M2Fnuz, Float8E8M0};
    matches!(dtype, Float8E4M3 | Float8E4M3Fnuz | Float8E5M2 | Float8E5M2Fnuz | Float8E8M0)
}

/// How much is read and made while a program is rewritten.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Constants of more bytes than this are not read where a description of what becomes of them will do.
    described: u64,
    /// Constants of more bytes than this are never read.
    read: u64,
    /// No value is computed that has more bytes than this.
    value: u64,
    /// So many bytes are held at a time.
    held: u64,
}

const LIMITS: Limits = Limits { described: 64 << 10, read: 16 << 20, value: 64 << 20, held: 256 << 20 };

/// Replaces what a backend could not run, where constants alone decide it, by the answer.
///
/// Two kinds of calls are computed. Those whose sizes the values of constants decide: `nonzero` of a buffer, its elements taken out as
/// numbers, a mask as index; the symbols that stood for these sizes become numbers. And those on types that MLX lacks, `f64` above
/// all: what is cast back from them becomes a constant, computed in them. Large weights that are only cast, scaled
/// and viewed stay descriptions, and are cast when the file is written.
///
/// A buffer that the method writes to is no constant.
#[derive(Clone, Copy, Debug)]
pub struct EvaluateConstants {
    limits: Limits,
}

impl Default for EvaluateConstants {
    fn default() -> Self {
        Self { limits: LIMITS }
    }
}

impl Pass for EvaluateConstants {
    fn name(&self) -> &'static str {
        "evaluate-constants"
    }

    fn law(&self) -> &'static str {
        "sizes that values of constants decide are numbers; what constants of types without MLX's support are cast to is a constant; at most 16 MiB of a constant are read"
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        described::run(cx, &self.limits)?;
        let Some(survey) = Survey::new(cx) else { return Ok(()) };
        let mut known = Known::new(cx, &survey, self.limits);
        let mut bindings = Bindings::new(&survey.given, &survey.introduced);
        for id in cx.graph().order() {
            if survey.is_needed(id) {
                known.compute(cx, id, &mut bindings);
            }
            if let Some(change) = places::rewritten(cx, id, &known)? {
                apply(cx, id, change, &mut bindings)?;
            }
        }
        for &id in &survey.roots {
            replace(cx, id, &survey, &known);
        }
        bindings.infer(cx);
        bindings.apply(cx)
    }
}

/// A call in the place of another.
struct Change {
    op: OpId,
    args: Vec<Operand>,
    /// A view of the result as a vector.
    flat: bool,
}

/// An argument of such a call: one that exists, or a constant that is added.
enum Operand {
    Arg(Arg),
    New(Tensor),
    /// The tensor as a vector.
    Flat(Arg),
    /// The tensor broadcast to these sizes.
    Expanded(Arg, Vec<i64>),
    List(Vec<Operand>),
}

fn apply(cx: &mut Context<'_>, id: NodeId, change: Change, bindings: &mut Bindings) -> Result<(), Error> {
    let [v] = cx.graph().node(id).outputs[..] else { return Ok(()) };
    let name = cx.graph().value(v).name.to_string();
    let mut list = Vec::new();
    for operand in change.args {
        list.push(argument(cx, id, &name, operand)?);
    }
    let Ok(types) = etx_ir::infer::infer(cx.graph(), cx.ranges(), change.op, &list) else { return Ok(()) };
    let [Type::Tensor(found)] = types.as_slice() else { return Ok(()) };
    let mut shape = found.shape.clone();
    if change.flat {
        shape = vec![found.numel()];
    }
    let Some(declared) = cx.graph().tensor(v) else { return Ok(()) };
    let declared = declared.shape.clone();
    declared.iter().zip(&shape).for_each(|(d, n)| bindings.bind(d, n));
    let before = cx.graph().operands(id);
    let graph = &mut cx.edit().graph;
    if change.flat {
        let picked = insert(graph, id, change.op, list, &name, Type::Tensor(found.clone()));
        graph.set_call(id, op!("aten.view.default"), vec![picked, ints([-1])]);
    } else {
        graph.set_call(id, change.op, list);
    }
    remove_dead(graph, before.into_iter().filter_map(|v| graph.producer(v)).collect());
    cx.changed(1);
    Ok(())
}

fn argument(cx: &mut Context<'_>, at: NodeId, name: &str, operand: Operand) -> Result<Arg, Error> {
    Ok(match operand {
        Operand::Arg(a) => a,
        Operand::New(t) => Arg::Value(cx.add_constant(name, data(&t)?)),
        Operand::Flat(x) => {
            let Some(t) = x.as_value().and_then(|v| cx.graph().tensor(v)) else { return Ok(x) };
            let ty = Type::Tensor(TensorType::new(t.dtype, vec![t.numel()]));
            insert(&mut cx.edit().graph, at, op!("aten.view.default"), vec![x, ints([-1])], name, ty)
        }
        Operand::Expanded(x, sizes) => {
            let Some(t) = x.as_value().and_then(|v| cx.graph().tensor(v)) else { return Ok(x) };
            let ty = Type::Tensor(TensorType::new(t.dtype, sizes.iter().map(|&n| Dim::Int(n)).collect()));
            let list = args(op!("aten.expand.default"), [x, ints(sizes)], &[]);
            insert(&mut cx.edit().graph, at, op!("aten.expand.default"), list, name, ty)
        }
        Operand::List(items) => Arg::List(items.into_iter().map(|o| argument(cx, at, name, o)).collect::<Result<_, _>>()?),
    })
}

fn data(t: &Tensor) -> Result<TensorData, Error> {
    TensorData::inline(t.dtype(), t.shape().iter().map(|&n| n as u64).collect(), t.bytes())
}

/// Puts what was computed in the place of a call's results.
fn replace(cx: &mut Context<'_>, id: NodeId, survey: &Survey, known: &Known) {
    if !cx.graph().contains(id) {
        return;
    }
    for v in cx.graph().node(id).outputs.clone() {
        let Some(value) = known.get(v).filter(|_| cx.graph().value(v).use_count() > 0) else { continue };
        let new = match value {
            Value::Int(n) => Arg::Int(*n),
            Value::Float(x) => Arg::Float(*x),
            Value::Bool(b) => Arg::Bool(*b),
            Value::Tensor(t) if survey.is_wanted(cx.graph(), v) => match constant(cx, id, v, t) {
                Some(v) => Arg::Value(v),
                None => continue,
            },
            _ => continue,
        };
        cx.edit().graph.replace_uses_with(v, &new);
        cx.changed(1);
    }
    remove_dead(&mut cx.edit().graph, vec![id]);
}

/// The tensor as a value of the graph: a constant, or the call that fills it where all elements are equal.
fn constant(cx: &mut Context<'_>, at: NodeId, v: ValueId, t: &Tensor) -> Option<ValueId> {
    let name = cx.graph().value(v).name.to_string();
    match uniform(t) {
        Some(element) => {
            let sizes = ints(t.shape().iter().map(|&n| n as i64));
            let list = args(op!("aten.full.default"), [sizes, element], &[("dtype", Arg::DType(t.dtype()))]);
            let shape = t.shape().iter().map(|&n| Dim::Int(n as i64)).collect();
            let ty = Type::Tensor(TensorType::new(t.dtype(), shape));
            insert(&mut cx.edit().graph, at, op!("aten.full.default"), list, &name, ty).as_value()
        }
        None => Some(cx.add_constant(&name, data(t).ok()?)),
    }
}

/// Writes a call of one result before another.
fn insert(graph: &mut Graph, at: NodeId, op: OpId, args: Vec<Arg>, name: &str, ty: Type) -> Arg {
    let source = graph.node(at).source.clone();
    let node = graph.insert(Some(at), op, args, name, vec![(name, ty)], source);
    graph.node(node).outputs.first().map_or(Arg::None, |&v| Arg::Value(v))
}

/// The number that fills a tensor of other than one element.
fn uniform(t: &Tensor) -> Option<Arg> {
    let (bytes, size) = (t.bytes(), t.dtype().size());
    let first = bytes.get(..size);
    if bytes.len() == size || is_foreign(t.dtype()) || bytes.chunks_exact(size).any(|e| Some(e) != first) {
        return None;
    }
    let one = TensorData::inline(t.dtype(), vec![], first.map_or_else(|| vec![0; size], <[u8]>::to_vec)).ok()?;
    crate::fold::number(&one)
}

/// Symbols that inputs have, and those that calls introduce.
fn symbols(graph: &Graph) -> (BTreeSet<Symbol>, BTreeSet<Symbol>) {
    let mut given = BTreeSet::new();
    for &v in graph.inputs() {
        symbols::visit(graph.ty(v), &mut |s| {
            given.insert(s.clone());
        });
    }
    let mut introduced = BTreeSet::new();
    for (_, node) in graph.nodes() {
        let schema = node.op.schema();
        let may = schema.traits.data || schema.traits.dynamic || schema.kind == Kind::HigherOrder;
        for &v in node.outputs.iter().filter(|v| may || graph.tensor(**v).is_none()) {
            symbols::visit(graph.ty(v), &mut |s| {
                if !given.contains(s) {
                    introduced.insert(s.clone());
                }
            });
        }
    }
    (given, introduced)
}
