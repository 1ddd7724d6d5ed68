//! Bodies of higher-order operators against the calls that run them.

use crate::graph::{Arg, Graph, Node, Type};
use crate::infer::agree_in_size;
use crate::op;
use crate::sym::Ranges;

/// What a body returns.
enum Returns {
    /// The results of the call.
    Results,
    /// One value, a condition.
    Condition,
    /// New values of what is carried.
    Carried,
}

/// One body: operator, the argument that holds it, the arguments whose values it takes (`…` for those beyond the
/// schema), what it returns. As exported programs call them (`pt2-format.md` §2.12).
const BODIES: &[(&str, &str, &[&str], Returns)] = &[
    ("associative_scan", "combine_graph", &["xs", "xs", "additional"], Returns::Results),
    ("cond", "false_graph", &["operands"], Returns::Results),
    ("cond", "true_graph", &["operands"], Returns::Results),
    ("invoke_subgraph", "body_graph", &["…"], Returns::Results),
    ("map", "body_graph", &["xs", "additional"], Returns::Results),
    ("map_impl", "body_graph", &["xs", "additional"], Returns::Results),
    ("run_const_graph", "const_graph", &["operands"], Returns::Results),
    ("scan", "combine_graph", &["init", "xs", "additional"], Returns::Results),
    ("strict_mode", "body_graph", &["operands"], Returns::Results),
    ("while_loop", "body_graph", &["carried", "additional"], Returns::Carried),
    ("while_loop", "cond_graph", &["carried", "additional"], Returns::Condition),
    ("wrap_with_autocast", "body_graph", &["…"], Returns::Results),
    ("wrap_with_set_grad_enabled", "body_graph", &["…"], Returns::Results),
];

/// Whether operators in the body of a call compute in other element types than those of their arguments.
pub(super) fn autocasts(node: &Node) -> bool {
    let enabled = node.op.schema().position("enabled").and_then(|i| node.args.get(i));
    node.op == op!("higher_order.wrap_with_autocast") && enabled != Some(&Arg::Bool(false))
}

/// Whether the body of this operator runs once, on the operands as they are, and its results are those of the call.
fn whole(name: &str) -> bool {
    matches!(name, "invoke_subgraph" | "run_const_graph" | "strict_mode" | "wrap_with_autocast" | "wrap_with_set_grad_enabled")
}

/// What is wrong with the bodies of a call.
pub(super) fn problems(graph: &Graph, ranges: &Ranges, node: &Node) -> Vec<String> {
    let schema = node.op.schema();
    let arg = |name: &str| schema.position(name).and_then(|i| node.args.get(i));
    let mut found = Vec::new();
    for (_, body, operands, returns) in BODIES.iter().filter(|(op, ..)| *op == schema.name) {
        let Some(Arg::Graph(inner)) = arg(body) else { continue };
        let mut passed: Vec<&Arg> = Vec::new();
        for name in *operands {
            match (*name, arg(name)) {
                ("…", _) => passed.extend(node.args.get(schema.args.len()..).unwrap_or(&[])),
                (_, Some(Arg::List(items))) => passed.extend(items),
                _ => {}
            }
        }
        if inner.inputs().len() != passed.len() {
            found.push(format!("`{body}` takes {} values, the call passes {}", inner.inputs().len(), passed.len()));
        }
        for (&v, given) in inner.inputs().iter().zip(passed) {
            let given = given.as_value().filter(|g| g.index() < graph.value_bound()).map(|g| graph.ty(g));
            if let (Type::Tensor(want), Some(Type::Tensor(given))) = (inner.ty(v), given) {
                if want.dtype != given.dtype {
                    found.push(format!("`{body}` takes %{} as {}, the call passes {}", inner.value(v).name, want.dtype, given.dtype));
                } else if whole(schema.name.as_str()) && !agree_in_size(ranges, want, given) {
                    let (name, want) = (&inner.value(v).name, &want.shape);
                    found.push(format!("`{body}` takes %{name} of size {want:?}, the call passes {:?}", given.shape));
                }
            }
        }
        let wanted = match returns {
            Returns::Results => node.outputs.len(),
            Returns::Condition => 1,
            Returns::Carried => arg("carried").and_then(Arg::as_list).map_or(0, <[Arg]>::len),
        };
        if inner.outputs().len() != wanted {
            found.push(format!("`{body}` returns {} values, the call needs {wanted}", inner.outputs().len()));
        } else if whole(schema.name.as_str()) {
            for (given, &v) in inner.outputs().iter().zip(&node.outputs) {
                let given = given.as_value().filter(|g| g.index() < inner.value_bound()).map(|g| inner.ty(g));
                if let (Some(Type::Tensor(given)), Type::Tensor(want)) = (given, graph.ty(v))
                    && !agree_in_size(ranges, want, given)
                {
                    let (name, want) = (&graph.value(v).name, &want.shape);
                    found.push(format!("`{body}` returns {:?} for %{name}, which is of size {want:?}", given.shape));
                }
            }
        }
    }
    found
}
