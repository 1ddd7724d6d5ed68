use etx_ir::program::Program;
use etx_ir::text::{self, NoFiles};

use super::*;

/// Verdicts of a backend that runs everything but `exp`.
fn verdicts(program: &Program) -> Vec<Option<Verdict>> {
    let graph = &program.methods[0].graph;
    let mut all = vec![None; graph.node_bound()];
    for (id, node) in graph.nodes() {
        let outside = node.op.target().starts_with("aten.exp.");
        all[id.index()] = Some(if outside { Verdict::No(Refusal::new("not here")) } else { Verdict::Yes(graph.operands(id)) });
    }
    all
}

fn divided(body: &str) -> (Program, Division) {
    let text = format!("etir 1\nmethod \"forward\" functional {{\n  input %x : f32[2] = user\n{body}\n}}\n");
    let program = text::parse(&text, &mut NoFiles).unwrap();
    let division = divide(&program.methods[0], &verdicts(&program));
    (program, division)
}

fn names(program: &Program, nodes: &[NodeId]) -> Vec<String> {
    nodes.iter().map(|&id| program.methods[0].graph.node(id).name.to_string()).collect()
}

#[test]
fn what_lies_beside_a_refused_node_stays_in_one_partition() {
    let (p, d) = divided(
        "  %a : f32[2] = aten.relu.default(%x)
           %e : f32[2] = aten.exp.default(%x)
           %b : f32[2] = aten.neg.default(%a)
           %c : f32[2] = aten.sin.default(%x)
           return %b, %c, %e",
    );
    assert_eq!(d.partitions.len(), 1);
    assert_eq!(names(&p, &d.partitions[0]), ["a", "b", "c"]);
    assert_eq!(d.refused.len(), 1);
}

#[test]
fn a_refused_node_in_between_costs_one_partition_and_no_more() {
    // a -> e -> b, and a -> c -> b: c goes with either side, never into a third partition.
    let (p, d) = divided(
        "  %a : f32[2] = aten.relu.default(%x)
           %e : f32[2] = aten.exp.default(%a)
           %c : f32[2] = aten.sin.default(%a)
           %b : f32[2] = aten.add.Tensor(%e, %c)
           return %b",
    );
    assert_eq!(d.partitions.len(), 2);
    assert_eq!(names(&p, &d.partitions[0]), ["a", "c"]);
    assert_eq!(names(&p, &d.partitions[1]), ["b"]);
    let graph = &p.methods[0].graph;
    let handed: Vec<&str> = d.outputs[0].iter().map(|&v| &*graph.value(v).name).collect();
    assert_eq!(handed, ["a", "c"]);
}

#[test]
fn refused_nodes_in_a_row_cost_nothing_extra() {
    let (_, d) = divided(
        "  %e : f32[2] = aten.exp.default(%x)
           %f : f32[2] = aten.exp.default(%e)
           %b : f32[2] = aten.neg.default(%f)
           return %b",
    );
    assert_eq!(d.partitions.len(), 1);
    assert_eq!(d.refused.len(), 2);
}

#[test]
fn what_nothing_needs_is_in_no_partition_and_not_refused() {
    let (p, d) = divided(
        "  %e : f32[2] = aten.exp.default(%x)
           %b : f32[2] = aten.neg.default(%x)
           return %b",
    );
    assert_eq!(d.refused.len(), 0);
    assert_eq!(names(&p, &d.absorbed), ["e"]);
}
