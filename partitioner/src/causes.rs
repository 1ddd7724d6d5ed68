//! What stands behind refusals: a whole region of a program that computes in `f64` is one cause, and gets one message.

use std::collections::{BTreeMap, HashMap};

use etx_ir::DType;
use etx_ir::graph::{Graph, NodeId, ValueId};

use crate::backend::Refusal;

/// So many places are named.
const NAMED: usize = 3;

fn is_double(graph: &Graph, v: ValueId) -> bool {
    graph.tensor(v).is_some_and(|t| matches!(t.dtype, DType::Float64 | DType::Complex128))
}

/// The refusals, those of calls that `f64` connects as one: of the call where it begins, saying where else and what leaves it.
pub(crate) fn causes(graph: &Graph, refused: &[(NodeId, Refusal)]) -> Vec<(NodeId, Refusal)> {
    // A region goes by the first of its calls.
    let mut region: HashMap<ValueId, usize> = HashMap::new();
    let mut joined: Vec<usize> = (0..refused.len()).collect();
    let mut touches = vec![false; refused.len()];
    for (i, (id, _)) in refused.iter().enumerate() {
        for v in graph.operands(*id).into_iter().chain(graph.node(*id).outputs.iter().copied()).filter(|v| is_double(graph, *v)) {
            if let Some(t) = touches.get_mut(i) {
                *t = true;
            }
            let other = *region.entry(v).or_insert(i);
            let (a, b) = (find(&joined, other), find(&joined, i));
            if let Some(slot) = joined.get_mut(a.max(b)) {
                *slot = a.min(b);
            }
        }
    }
    let mut regions: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
    for (i, (id, _)) in refused.iter().enumerate() {
        regions.entry(find(&joined, i)).or_default().push(*id);
    }
    let mut all = Vec::new();
    for (first, nodes) in regions {
        let Some((id, why)) = refused.get(first) else { continue };
        match touches.get(first) {
            Some(true) => all.push(double(graph, *id, &nodes)),
            _ => all.push((*id, why.clone())),
        }
    }
    all
}

/// The first call of the region that a call is in.
fn find(joined: &[usize], mut i: usize) -> usize {
    while let Some(&next) = joined.get(i).filter(|n| **n != i) {
        i = next;
    }
    i
}

/// One message for calls that compute in `f64`.
fn double(graph: &Graph, first: NodeId, nodes: &[NodeId]) -> (NodeId, Refusal) {
    let mut begins = Vec::new();
    let mut given = Vec::new();
    let mut leaves = Vec::new();
    for &id in nodes {
        let node = graph.node(id);
        let operands: Vec<ValueId> = graph.operands(id).into_iter().filter(|v| is_double(graph, *v)).collect();
        if operands.is_empty() {
            begins.push(id);
        }
        for v in operands.into_iter().filter(|v| graph.producer(*v).is_none()) {
            let name = format!("%{}", graph.value(v).name);
            if !given.contains(&name) {
                given.push(name);
            }
        }
        let (inside, outside): (Vec<ValueId>, Vec<ValueId>) = node.outputs.iter().partition(|v| is_double(graph, **v));
        if !outside.is_empty() && inside.is_empty() {
            leaves.push(place(graph, id));
        }
        leaves.extend(inside.iter().filter(|v| graph.value(**v).output_uses() > 0).map(|v| format!("%{}, a result", graph.value(*v).name)));
    }
    let at = begins.first().copied().unwrap_or(first);
    let mut also: Vec<String> = begins.iter().skip(1).map(|id| place(graph, *id)).collect();
    also.extend(given);
    let mut reason = match begins.is_empty() {
        true => format!("it computes in f64 because of {}", listed(&also)),
        false if also.is_empty() => "f64 begins here".to_owned(),
        false => format!("f64 begins here, with {}", listed(&also)),
    };
    if nodes.len() > 1 {
        reason.push_str(&format!("; {} calls compute in it", nodes.len()));
    }
    match leaves.is_empty() {
        true => {}
        false => reason.push_str(&format!("; what leaves it: {}", listed(&leaves))),
    }
    reason.push_str("; MLX has no f64");
    let remedy = "lower with --f64-as-f32, which computes it in f32, or export the model in float32";
    (at, Refusal::new(reason).remedy(remedy))
}

/// A call, and its line.
fn place(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    match &node.source {
        Some(source) => format!("{} ({source})", node.name),
        None => node.name.to_string(),
    }
}

fn listed(all: &[String]) -> String {
    let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > NAMED { format!("{named} and {} more", all.len() - NAMED) } else { named }
}

#[cfg(test)]
mod tests {
    use etx_ir::text::{self, NoFiles};

    use crate::backend::Backend;
    use crate::cluster::divide;
    use crate::mlx::Mlx;
    use crate::report::MethodReport;

    fn refusals(body: &str) -> Vec<String> {
        let source = format!("etir 1\nfile $model \"model.py\"\nmethod \"forward\" functional {{\n{body}\n}}");
        let program = text::parse(&source, &mut NoFiles).unwrap();
        let method = &program.methods[0];
        let division = divide(method, &Mlx::new().verdicts(&program, method));
        MethodReport::new("forward", &method.graph, &division, &[]).refused.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_region_of_doubles_is_one_refusal_where_it_begins() {
        let refused = refusals(
            "input %x : f32[2] = user
             input %w : f64[2] = user
             %a : f64[2] = aten._to_copy.default(%x, dtype=f64) at $model:7
             %b : f64[2] = aten.exp.default(%a) at $model:8
             %c : f64[2] = aten.mul.Tensor(%b, %w) at $model:9
             %d : f32[2] = aten._to_copy.default(%c, dtype=f32) at $model:10
             %n : i64[u0, 1] = aten.nonzero.default(%x)
             %e : f64[2] = aten._to_copy.default(%x, dtype=f64) at $model:12
             return %d, %n, %e",
        );
        let [region, nonzero, other] = refused.as_slice() else { panic!("{refused:?}") };
        assert!(region.starts_with("a (aten._to_copy.default, model.py:7): f64 begins here, with %w; 4 calls compute in it;"), "{region}");
        assert!(region.contains("what leaves it: d (model.py:10); MLX has no f64 — lower with --f64-as-f32"), "{region}");
        assert!(nonzero.starts_with("n (aten.nonzero.default)"), "{nonzero}");
        assert!(other.contains("f64 begins here; what leaves it: %e, a result;"), "{other}");
    }
}
