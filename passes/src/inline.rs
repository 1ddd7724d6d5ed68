//! Puts the bodies of wrappers where the wrappers stand.

use std::collections::HashMap;

use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Arg, Graph, NodeId, Type, ValueId};
use etx_ir::op;
use etx_ir::op::{ArgType, OpId};
use etx_ir::program::Dialect;
use etx_ir::sym::Ranges;
use etx_ir::{DType, infer};

use crate::calls::{CAST, cast};
use crate::driver::{Context, Pass};
use crate::rewrite::{nested, place};

/// Inlines `wrap_with_set_grad_enabled`, `wrap_with_autocast`, `hints_wrapper`, `strict_mode` and `invoke_subgraph`.
///
/// Inside an autocast region the recorded element types are what counts: a call whose recorded result is of another
/// floating-point type than its operands give gets its floating-point operands cast (`pt2-format.md` §5.8).
/// The markers of `torch.vmap` are left as they are; whoever lowers the program refuses them.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineWrappers;

impl Pass for InlineWrappers {
    fn name(&self) -> &'static str {
        "inline-wrappers"
    }

    fn law(&self) -> &'static str {
        "bodies of no_grad, autocast and hint regions stand in their place; recorded element types hold, by casts where autocast made them"
    }

    fn dialect(&self) -> Option<Dialect> {
        None
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        let method = cx.edit();
        let changes = inline_all(&mut method.graph, &method.ranges)?;
        cx.changed(changes);
        Ok(())
    }
}

/// Position of the body among the arguments of a wrapper.
fn body_at(op: OpId) -> Option<usize> {
    Some(by_op!(op, {
        "higher_order.wrap_with_set_grad_enabled" => 1,
        "higher_order.wrap_with_autocast" => 4,
        "higher_order.hints_wrapper" | "higher_order.strict_mode" | "higher_order.invoke_subgraph" => 0,
        _ => return None,
    }))
}

fn inline_all(graph: &mut Graph, ranges: &Ranges) -> Result<u64, Error> {
    let mut changes = 0;
    let mut at = graph.nodes().next().map(|(id, _)| id);
    while let Some(node) = at {
        changes += nested(graph, node, &mut |body| inline_all(body, ranges))?;
        at = match body_at(graph.node(node).op) {
            Some(i) => {
                changes += 1;
                inline(graph, ranges, node, i).map_err(|e| e.within(place(graph, node)))?
            }
            None => graph.next(node),
        };
    }
    Ok(changes)
}

/// What the body's inputs stand for.
fn operands(graph: &Graph, node: NodeId, body_at: usize) -> Vec<Arg> {
    let args = &graph.node(node).args;
    let rest = args.get(body_at + 1..).unwrap_or(&[]);
    match (graph.node(node).op.schema().name.as_str(), rest) {
        // One list of arguments, then what concerns only the hints.
        ("hints_wrapper" | "strict_mode", [Arg::List(list), ..]) => list.clone(),
        ("invoke_subgraph", [_identifier, list @ ..]) => list.to_vec(),
        _ => rest.to_vec(),
    }
}

/// Returns the node to go on with: the first that was inlined.
fn inline(graph: &mut Graph, ranges: &Ranges, node: NodeId, at: usize) -> Result<Option<NodeId>, Error> {
    let wrong = |what: String| Error::new(ErrorKind::Invalid, what);
    let given = operands(graph, node, at);
    let Some(Arg::Graph(body)) = graph.node(node).args.get(at).cloned() else {
        return Err(wrong("the wrapper has no body".to_owned()));
    };
    if given.len() != body.inputs().len() || graph.node(node).outputs.len() != body.outputs().len() {
        return Err(wrong(format!(
            "the body takes {} values and gives {}, the call gives {} and takes {}",
            body.inputs().len(),
            body.outputs().len(),
            given.len(),
            graph.node(node).outputs.len()
        )));
    }
    let autocast = graph.node(node).op == op!("higher_order.wrap_with_autocast");
    let mut map: HashMap<ValueId, Arg> = body.inputs().iter().copied().zip(given).collect();
    let mut first = None;
    for (_, inner) in body.nodes() {
        let mut args = inner.args.clone();
        args.iter_mut().for_each(|a| a.rewrite(&mut |v| map.get(&v).cloned().unwrap_or(Arg::None)));
        let outputs: Vec<(&str, Type)> = inner.outputs.iter().map(|&v| (&*body.value(v).name, body.ty(v).clone())).collect();
        if autocast {
            cast_operands(graph, ranges, node, inner.op, &mut args, &outputs, &mut first);
        }
        let id = graph.insert(Some(node), inner.op, args, &inner.name, outputs, inner.source.clone());
        first = first.or(Some(id));
        let results = graph.node(id).outputs.clone();
        map.extend(inner.outputs.iter().copied().zip(results.into_iter().map(Arg::Value)));
    }
    let mut results = body.outputs().to_vec();
    results.iter_mut().for_each(|a| a.rewrite(&mut |v| map.get(&v).cloned().unwrap_or(Arg::None)));
    for (old, new) in graph.node(node).outputs.clone().into_iter().zip(results) {
        graph.replace_uses_with(old, &new);
    }
    let next = graph.next(node);
    graph.remove(node);
    Ok(first.or(next))
}

/// Casts floating-point operands to the type of the recorded result, if the call gives it then and not without.
fn cast_operands(
    graph: &mut Graph,
    ranges: &Ranges,
    at: NodeId,
    op: OpId,
    args: &mut [Arg],
    outputs: &[(&str, Type)],
    first: &mut Option<NodeId>,
) {
    let float = |ty: &Type| ty.as_tensor().map(|t| t.dtype).filter(|t| t.is_float());
    let Some(wanted) = outputs.first().and_then(|(_, ty)| float(ty)) else { return };
    // A call that names its element type has it for that reason.
    if op.schema().args.iter().zip(args.iter()).any(|(spec, given)| *spec.ty.required() == ArgType::ScalarType && *given != Arg::None) {
        return;
    }
    let gives = |graph: &Graph, args: &[Arg]| -> Option<DType> { infer::infer(graph, ranges, op, args).ok()?.first().and_then(float) };
    let differ = {
        let mut any = false;
        args.iter().for_each(|a| a.visit(&mut |v| any |= float(graph.ty(v)).is_some_and(|t| t != wanted)));
        any
    };
    if !differ || gives(graph, args) == Some(wanted) {
        return;
    }
    let source = graph.node(at).source.clone();
    for a in args {
        a.rewrite(&mut |v| {
            let Type::Tensor(t) = graph.ty(v) else { return Arg::Value(v) };
            if !t.dtype.is_float() || t.dtype == wanted {
                return Arg::Value(v);
            }
            let ty = Type::Tensor(etx_ir::graph::TensorType::new(wanted, t.shape.clone()));
            let id = graph.insert(Some(at), CAST, cast(v, wanted), "autocast", vec![("autocast", ty)], source.clone());
            *first = first.or(Some(id));
            graph.node(id).outputs.first().map_or(Arg::Value(v), |&v| Arg::Value(v))
        });
    }
}
