//! Divides a method into the fewest partitions that a backend can run.
//!
//! A partition must be convex: no path may leave it and come back, or it could not run in one piece. Give every node a
//! level: that of its latest input, one more whenever a path enters the backend again after a node outside of it. Nodes
//! of the backend on one level form a convex set, and a chain of dependencies that enters the backend `n` times needs at
//! least `n` partitions, so one partition a level is the fewest there can be. One pass over nodes and edges finds it.

use etx_ir::graph::{NodeId, ValueId};
use etx_ir::op::OpId;
use etx_ir::program::{Method, OutputKind};

use crate::backend::{Refusal, Verdict};

/// Who runs what.
#[derive(Clone, Debug, Default)]
pub struct Division {
    /// Nodes of each partition, in order.
    pub partitions: Vec<Vec<NodeId>>,
    /// Values that each partition must hand out, in order.
    pub outputs: Vec<Vec<ValueId>>,
    /// Nodes that the backend does not run although something needs them, in order, with the reason.
    pub refused: Vec<(NodeId, Refusal)>,
    /// Nodes that disappear into others, such as the dequantisation that a quantised product does itself.
    pub absorbed: Vec<NodeId>,
}

/// Divides the method by the backend's verdicts (by node index).
pub fn divide(method: &Method, verdicts: &[Option<Verdict>]) -> Division {
    let graph = &method.graph;
    let order = graph.order();
    // What each node reads: what its verdict says if the backend runs it, otherwise its operands.
    let reads = |id: NodeId| match verdicts.get(id.index()) {
        Some(Some(Verdict::Yes(reads))) => reads.clone(),
        _ => graph.operands(id),
    };
    let mut needed = vec![false; graph.value_bound()];
    let mut wanted = vec![false; graph.node_bound()];
    graph.outputs().iter().for_each(|a| a.visit(&mut |v| needed[v.index()] = true));
    for &id in order.iter().rev() {
        let node = graph.node(id);
        if node.outputs.iter().any(|v| needed[v.index()]) || has_effect(node.op) {
            wanted[id.index()] = true;
            reads(id).into_iter().for_each(|v| needed[v.index()] = true);
        }
    }
    let mut division = Division::default();
    let mut level = vec![0u32; graph.value_bound()];
    // Whether the value at its level comes out of the backend: going on outside then costs a level on the way back in.
    let mut inside = vec![false; graph.value_bound()];
    let mut home = vec![None; graph.node_bound()];
    for &id in &order {
        let node = graph.node(id);
        if !wanted[id.index()] {
            division.absorbed.push(id);
            continue;
        }
        let runs = matches!(verdicts.get(id.index()), Some(Some(Verdict::Yes(_))));
        let at = reads(id).into_iter().map(|v| level[v.index()] + u32::from(!runs && inside[v.index()])).max().unwrap_or(0);
        if runs {
            home[id.index()] = Some(at);
        } else if let Some(Some(Verdict::No(refusal))) = verdicts.get(id.index()) {
            division.refused.push((id, refusal.clone()));
        }
        for v in &node.outputs {
            level[v.index()] = at;
            inside[v.index()] = runs;
        }
    }
    // Levels without a node of the backend (only possible at the ends) make no partition.
    let mut used: Vec<u32> = home.iter().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    let index = |l: u32| used.binary_search(&l).unwrap_or(0);
    division.partitions = vec![Vec::new(); used.len()];
    division.outputs = vec![Vec::new(); used.len()];
    let mut handed = vec![false; graph.value_bound()];
    graph.outputs().iter().for_each(|a| a.visit(&mut |v| handed[v.index()] = true));
    for &id in order.iter().filter(|id| wanted[id.index()]) {
        for v in reads(id) {
            let from = graph.producer(v).and_then(|p| home[p.index()]);
            handed[v.index()] |= from.is_some() && from != home[id.index()];
        }
    }
    // What no node computes but the state needs is up to the first partition: new contents that are an input or a weight
    // as a whole, and old contents that are returned.
    let state = |i: &u32| method.inputs.get(*i as usize).and_then(|input| input.value);
    let mutated: Vec<ValueId> =
        method.outputs.iter().filter_map(|k| if let OutputKind::StateMutation(i) = k { state(i) } else { None }).collect();
    for (out, kind) in graph.outputs().iter().zip(&method.outputs) {
        if let Some(v) = out.as_value()
            && graph.producer(v).is_none()
            && match kind {
                OutputKind::StateMutation(i) => state(i) != Some(v),
                _ => mutated.contains(&v),
            }
        {
            if division.partitions.is_empty() {
                division.partitions.push(Vec::new());
                division.outputs.push(Vec::new());
            }
            if !division.outputs[0].contains(&v) {
                division.outputs[0].push(v);
            }
        }
    }
    for &id in &order {
        if let Some(at) = home[id.index()] {
            let at = index(at);
            division.partitions[at].push(id);
            division.outputs[at].extend(graph.node(id).outputs.iter().filter(|v| handed[v.index()]));
        }
    }
    division
}

/// Whether the call does something beside computing its results.
fn has_effect(op: OpId) -> bool {
    op.has_side_effects() || op.mutates()
}

#[cfg(test)]
mod tests;
