//! Whether two programs are the same, and if not, where they first differ.

use super::print::{print_data, print_type};
use crate::graph::{Arg, Graph, Node};
use crate::program::{InputKind, Method, Program};

/// Where two programs first differ, or `None` if they are the same: everything but the numbers that ids happen to have.
///
/// Values are the same if they have the same name; weights if they are described the same, as [`super::print`] does. A
/// nan is the same as itself.
pub fn difference(a: &Program, b: &Program) -> Option<String> {
    if a.methods.len() != b.methods.len() || a.weights().len() != b.weights().len() {
        let count = |p: &Program| format!("{} methods, {} weights", p.methods.len(), p.weights().len());
        return Some(format!("{} against {}", count(a), count(b)));
    }
    for (i, (x, y)) in a.weights().iter().zip(b.weights()).enumerate() {
        if x.name != y.name || print_data(&x.data) != print_data(&y.data) {
            return Some(format!("weight @{i}: {} {} against {} {}", x.name, print_data(&x.data), y.name, print_data(&y.data)));
        }
    }
    a.methods.iter().zip(&b.methods).find_map(|(x, y)| method(x, y).map(|what| format!("method {}: {what}", x.name)))
}

fn method(a: &Method, b: &Method) -> Option<String> {
    let same = [
        ("name", a.name == b.name),
        ("dialect", a.dialect == b.dialect),
        ("in_spec", a.in_spec == b.in_spec),
        ("out_spec", a.out_spec == b.out_spec),
        ("ranges", a.ranges == b.ranges),
        ("guards", a.guards == b.guards),
        ("number of inputs", a.inputs.len() == b.inputs.len()),
        ("output kinds", a.outputs == b.outputs),
    ];
    if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
        return Some(format!("{what} differs"));
    }
    for (i, (x, y)) in a.inputs.iter().zip(&b.inputs).enumerate() {
        let name = |g: &Graph, v: Option<_>| v.map(|v| g.value(v).name.clone());
        if name(&a.graph, x.value) != name(&b.graph, y.value) || !input_kind(a, &x.kind, b, &y.kind) {
            return Some(format!("input {i}: {x:?} against {y:?}"));
        }
    }
    graph(&a.graph, &b.graph)
}

fn input_kind(ma: &Method, a: &InputKind, mb: &Method, b: &InputKind) -> bool {
    match (a, b) {
        (InputKind::Literal { name: n, value: x }, InputKind::Literal { name: m, value: y }) => n == m && arg(&ma.graph, x, &mb.graph, y),
        (InputKind::Parameter(x), InputKind::Parameter(y)) | (InputKind::Constant(x), InputKind::Constant(y)) => x == y,
        (InputKind::Buffer { weight: x, persistent: p }, InputKind::Buffer { weight: y, persistent: q }) => x == y && p == q,
        (InputKind::Object { name: n, class: c }, InputKind::Object { name: m, class: d }) => n == m && c == d,
        (InputKind::User, InputKind::User) | (InputKind::Token, InputKind::Token) => true,
        _ => false,
    }
}

fn graph(a: &Graph, b: &Graph) -> Option<String> {
    if a.inputs().len() != b.inputs().len() || a.len() != b.len() || a.outputs().len() != b.outputs().len() {
        let count = |g: &Graph| format!("{} inputs, {} calls, {} outputs", g.inputs().len(), g.len(), g.outputs().len());
        return Some(format!("{} against {}", count(a), count(b)));
    }
    let mut inputs = a.inputs().iter().zip(b.inputs());
    if let Some((x, y)) = inputs.find(|(x, y)| a.value(**x).name != b.value(**y).name || a.ty(**x) != b.ty(**y)) {
        return Some(format!(
            "input {} : {} against {} : {}",
            a.value(*x).name,
            print_type(a.ty(*x)),
            b.value(*y).name,
            print_type(b.ty(*y))
        ));
    }
    for ((_, x), (_, y)) in a.nodes().zip(b.nodes()) {
        if let Some(what) = node(a, x, b, y) {
            return Some(format!("call {}: {what}", x.name));
        }
    }
    let outputs = a.outputs().iter().zip(b.outputs()).position(|(x, y)| !arg(a, x, b, y));
    outputs.map(|i| format!("output {i} differs"))
}

fn node(ga: &Graph, a: &Node, gb: &Graph, b: &Node) -> Option<String> {
    if a.name != b.name || a.op != b.op {
        return Some(format!("{} against {} named {}", a.op, b.op, b.name));
    }
    if a.source.as_deref() != b.source.as_deref() {
        return Some(format!("source {:?} against {:?}", a.source, b.source));
    }
    let outputs =
        |g: &Graph, n: &Node| n.outputs.iter().map(|&v| format!("{} : {}", g.value(v).name, print_type(g.ty(v)))).collect::<Vec<_>>();
    if outputs(ga, a) != outputs(gb, b) {
        return Some(format!("results {:?} against {:?}", outputs(ga, a), outputs(gb, b)));
    }
    if a.args.len() != b.args.len() {
        return Some(format!("{} arguments against {}", a.args.len(), b.args.len()));
    }
    let position = a.args.iter().zip(&b.args).position(|(x, y)| !arg(ga, x, gb, y));
    position.map(|i| format!("argument {i} differs"))
}

fn arg(ga: &Graph, a: &Arg, gb: &Graph, b: &Arg) -> bool {
    match (a, b) {
        (Arg::Value(x), Arg::Value(y)) => ga.value(*x).name == gb.value(*y).name,
        (Arg::List(x), Arg::List(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| arg(ga, x, gb, y)),
        (Arg::Dict(x), Arg::Dict(y)) => x.len() == y.len() && x.iter().zip(y).all(|((k, x), (l, y))| k == l && arg(ga, x, gb, y)),
        (Arg::Graph(x), Arg::Graph(y)) => graph(x, y).is_none(),
        (a, b) => a == b,
    }
}
