//! Removes what nobody uses.

use etx_ir::error::Error;
use etx_ir::graph::{Arg, Graph};
use etx_ir::program::{Dialect, InputKind, Method, OutputKind};
use etx_ir::sym::Dim;

use crate::driver::{Context, Pass};
use crate::effects::removable;
use crate::rewrite::nested;

/// Removes calls whose results are not used, and parameters, buffers and constants that nothing reads.
///
/// What stays: calls with an effect ([`removable`]), inputs that the caller gives, states that the method writes (unless
/// they have no elements).
#[derive(Clone, Copy, Debug, Default)]
pub struct Dce;

impl Pass for Dce {
    fn name(&self) -> &'static str {
        "dce"
    }

    fn law(&self) -> &'static str {
        "unused calls and unused weights go; effects, user inputs and mutated state stay"
    }

    fn dialect(&self) -> Option<Dialect> {
        None
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        let states = empty_states(cx.edit());
        let calls = calls(&mut cx.edit().graph)?;
        let inputs = unused_inputs(cx);
        cx.changed(states + calls + inputs);
        Ok(())
    }
}

/// State without elements is never another: what is written to it need not be.
fn empty_states(method: &mut Method) -> u64 {
    let empty = |(out, kind): (&Arg, &OutputKind)| {
        let t = out.as_value().and_then(|v| method.graph.tensor(v));
        matches!(kind, OutputKind::StateMutation(_)) && t.is_some_and(|t| t.shape.contains(&Dim::Int(0)))
    };
    let keep: Vec<bool> = method.graph.outputs().iter().zip(&method.outputs).map(|o| !empty(o)).collect();
    let removed = keep.iter().filter(|k| !**k).count();
    if removed > 0 {
        let kept = method.graph.outputs().iter().zip(&keep).filter(|(_, k)| **k).map(|(a, _)| a.clone()).collect();
        method.graph.set_outputs(kept);
        let mut keep = keep.into_iter();
        method.outputs.retain(|_| keep.next().unwrap_or(true));
    }
    removed as u64
}

fn calls(graph: &mut Graph) -> Result<u64, Error> {
    let mut removed = 0;
    for node in graph.order().into_iter().rev() {
        removed += nested(graph, node, &mut calls)?;
        let used = graph.node(node).outputs.iter().any(|&v| graph.value(v).use_count() > 0);
        if !used && removable(graph.node(node)) {
            graph.remove(node);
            removed += 1;
        }
    }
    Ok(removed)
}

fn unused_inputs(cx: &mut Context<'_>) -> u64 {
    let method = cx.edit();
    let mut written = vec![false; method.inputs.len()];
    for kind in &method.outputs {
        if let OutputKind::StateMutation(i) | OutputKind::InputMutation(i) = kind
            && let Some(w) = written.get_mut(*i as usize)
        {
            *w = true;
        }
    }
    let keep: Vec<bool> = method
        .inputs
        .iter()
        .zip(&written)
        .map(|(input, &written)| match (&input.kind, input.value) {
            (InputKind::Parameter(_) | InputKind::Buffer { .. } | InputKind::Constant(_), Some(v)) => {
                written || method.graph.value(v).use_count() > 0
            }
            _ => true,
        })
        .collect();
    let removed = keep.iter().filter(|k| !**k).count();
    if removed == 0 {
        return 0;
    }
    let in_graph: Vec<bool> = method.inputs.iter().zip(&keep).filter(|(i, _)| i.value.is_some()).map(|(_, &k)| k).collect();
    method.graph.retain_inputs(&in_graph);
    let mut at = 0;
    let moved: Vec<u32> = keep
        .iter()
        .map(|&k| {
            let here = at;
            at += u32::from(k);
            here
        })
        .collect();
    for kind in &mut method.outputs {
        if let OutputKind::StateMutation(i) | OutputKind::InputMutation(i) = kind
            && let Some(&to) = moved.get(*i as usize)
        {
            *i = to;
        }
    }
    let mut keep = keep.into_iter();
    method.inputs.retain(|_| keep.next().unwrap_or(true));
    removed as u64
}
