//! What became of every node, for people and for machines.

use std::collections::BTreeMap;
use std::fmt;

use etx_ir::DType;
use etx_ir::graph::{Graph, NodeId};
use serde::Serialize;

use crate::backend::{Delegate, Payload};
use crate::causes::causes;
use crate::cluster::Division;

/// What became of a method.
#[derive(Clone, Debug, Serialize)]
pub struct MethodReport {
    /// Its name.
    pub method: String,
    /// Number of partitions.
    pub partitions: usize,
    /// Nodes that the backend runs.
    pub delegated: usize,
    /// Nodes that disappeared into others.
    pub absorbed: usize,
    /// Nodes that the backend does not run, in order; of those that compute in `f64`, one for each place where that begins.
    pub refused: Vec<RefusedNode>,
    /// How many instructions of each kind the delegates have, by name.
    pub instructions: BTreeMap<String, u64>,
    /// Where random numbers are drawn, others at every call: `file:line` of the model's source, or the node where that is
    /// unknown. Told by the instructions; those that take a seed are not among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub random: Vec<String>,
}

/// A node that the backend does not run.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedNode {
    /// Name of the node.
    pub node: String,
    /// Operator.
    pub op: String,
    /// Why.
    pub reason: String,
    /// What would help; empty where nothing is known.
    pub remedy: String,
    /// Line of the model's source, as `file:line`; empty if unknown.
    pub source: String,
    /// Dotted path of the module it is in; empty if unknown.
    pub module: String,
}

impl MethodReport {
    /// The report on a method that was divided like this, and made into these delegates.
    pub fn new(method: &str, graph: &Graph, division: &Division, delegates: &[Delegate]) -> Self {
        let mut instructions = BTreeMap::new();
        for delegate in delegates {
            if let Payload::Mlx(program) = &delegate.payload {
                for instr in program.chains.iter().flatten() {
                    *instructions.entry(instr.spec().wire_name.to_owned()).or_insert(0) += 1;
                }
            }
        }
        Self {
            method: method.to_owned(),
            partitions: division.partitions.len(),
            delegated: division.partitions.iter().map(Vec::len).sum(),
            absorbed: division.absorbed.len(),
            refused: causes(graph, &division.refused).iter().map(|(id, why)| RefusedNode::new(graph, *id, why)).collect(),
            instructions,
            random: draws(graph, delegates),
        }
    }
}

/// The lines that draw random numbers, each once, in order.
fn draws(graph: &Graph, delegates: &[Delegate]) -> Vec<String> {
    let mut places: Vec<String> = Vec::new();
    for &id in delegates.iter().flat_map(|d| &d.draws) {
        let node = graph.node(id);
        let place = node.source.as_ref().map_or_else(|| node.name.to_string(), ToString::to_string);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// What helps where the refusal knows nothing better.
fn usual_remedy(graph: &Graph, id: NodeId) -> &'static str {
    let node = graph.node(id);
    let mut complex = false;
    let mut look = |v| complex |= graph.tensor(v).is_some_and(|t| matches!(t.dtype, DType::Complex64 | DType::Complex128));
    node.outputs.iter().copied().for_each(&mut look);
    node.args.iter().for_each(|arg| arg.visit(&mut look));
    if complex {
        "take and give complex numbers as two real ones: torch.view_as_real(y) of a result, torch.view_as_complex(x) of an input"
    } else {
        "write it with other operators (`etx ops` lists them), or leave it to the program around"
    }
}

impl RefusedNode {
    fn new(graph: &Graph, id: NodeId, why: &crate::backend::Refusal) -> Self {
        let node = graph.node(id);
        Self {
            node: node.name.to_string(),
            op: node.op.target().to_owned(),
            reason: why.reason.clone(),
            remedy: if why.remedy.is_empty() { usual_remedy(graph, id).to_owned() } else { why.remedy.clone() },
            source: node.source.as_ref().map_or_else(String::new, ToString::to_string),
            module: node.source.as_ref().map_or_else(String::new, |s| s.module.to_string()),
        }
    }
}

impl fmt::Display for RefusedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.node, self.op)?;
        if !self.source.is_empty() {
            write!(f, ", {}", self.source)?;
        }
        if !self.module.is_empty() {
            write!(f, " in {}", self.module)?;
        }
        write!(f, "): {}", self.reason)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, " — {}", self.remedy) }
    }
}
