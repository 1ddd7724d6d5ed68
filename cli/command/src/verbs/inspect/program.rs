//! What is in a program that is not lowered yet.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use etx::ir::graph::Arg;
use etx::ir::program::{Dialect, InputKind, Method, OutputKind, Program};
use etx::ir::text::print_type;
use serde::Serialize;

use super::super::{Bytes, Count};
use super::print_counts;

#[derive(Serialize)]
pub(super) struct Summary {
    methods: Vec<MethodSummary>,
    /// Tensors of all methods together.
    weights: usize,
    /// Their bytes, those of tied tensors counted once.
    weight_bytes: u64,
    /// Their elements by type, counted likewise.
    elements: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct MethodSummary {
    name: String,
    dialect: &'static str,
    inputs: Vec<Named>,
    outputs: Vec<Named>,
    symbols: Vec<Symbol>,
    parameters: usize,
    buffers: usize,
    constants: usize,
    /// Buffers that the method changes: its state. Unknown in the training dialect, which does not declare them.
    mutated: Option<usize>,
    nodes: usize,
    operators: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Named {
    name: String,
    #[serde(rename = "type")]
    ty: String,
}

#[derive(Serialize)]
struct Symbol {
    name: String,
    min: Option<i64>,
    max: Option<i64>,
}

pub(super) fn summarise(program: &Program) -> Summary {
    let mut seen = BTreeSet::new();
    let mut elements = BTreeMap::new();
    let mut weight_bytes = 0;
    for weight in program.weights() {
        if seen.insert(weight.data.identity()) {
            weight_bytes += weight.data.byte_len();
            *elements.entry(weight.data.dtype().name()).or_insert(0) += weight.data.numel();
        }
    }
    Summary { methods: program.methods.iter().map(method).collect(), weights: program.weights().len(), weight_bytes, elements }
}

fn method(method: &Method) -> MethodSummary {
    let graph = &method.graph;
    let count = |f: fn(&InputKind) -> bool| method.inputs.iter().filter(|i| f(&i.kind)).count();
    let named = |v| Named { name: graph.value(v).name.to_string(), ty: print_type(graph.ty(v)) };
    let inputs = method.inputs.iter().filter_map(|input| match (&input.kind, input.value) {
        (InputKind::User, Some(v)) => Some(named(v)),
        (InputKind::Literal { name, .. }, _) => Some(Named { name: name.to_string(), ty: "fixed at export".to_owned() }),
        _ => None,
    });
    let results = graph.outputs().iter().zip(&method.outputs).filter(|(_, kind)| matches!(kind, OutputKind::User));
    let outputs = results.map(|(arg, _)| match arg {
        Arg::Value(v) => named(*v),
        _ => Named { name: String::new(), ty: "a constant".to_owned() },
    });
    let mut operators = BTreeMap::new();
    for (_, node) in graph.nodes() {
        *operators.entry(node.op.target().to_owned()).or_insert(0) += 1;
    }
    let symbols = method.ranges.0.iter().map(|(symbol, range)| Symbol { name: symbol.name().to_owned(), min: range.min, max: range.max });
    MethodSummary {
        name: method.name.to_string(),
        dialect: method.dialect.name(),
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        symbols: symbols.collect(),
        parameters: count(|k| matches!(k, InputKind::Parameter(_))),
        buffers: count(|k| matches!(k, InputKind::Buffer { .. })),
        constants: count(|k| matches!(k, InputKind::Constant(_))),
        mutated: (method.dialect == Dialect::Functional)
            .then(|| method.outputs.iter().filter(|k| matches!(k, OutputKind::StateMutation(_))).count()),
        nodes: graph.len(),
        operators,
    }
}

impl Summary {
    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "weights: {}, {}", Count(self.weights, "tensor"), Bytes(self.weight_bytes))?;
        self.elements.iter().try_for_each(|(dtype, n)| write!(out, ", {n} {dtype}"))?;
        writeln!(out)?;
        for m in &self.methods {
            writeln!(out, "method {:?} ({} dialect):", m.name, m.dialect)?;
            m.inputs.iter().enumerate().try_for_each(|(i, x)| writeln!(out, "  input {i}: {} {}", x.name, x.ty))?;
            m.outputs.iter().enumerate().try_for_each(|(i, x)| writeln!(out, "  output {i}: {} {}", x.name, x.ty))?;
            for s in &m.symbols {
                let bound = |b: Option<i64>| b.map_or_else(String::new, |b| b.to_string());
                writeln!(out, "  symbol {}: {}..{}", s.name, bound(s.min), bound(s.max))?;
            }
            let state = m.mutated.map_or_else(String::new, |n| format!(" ({n} of them state)"));
            let [parameters, buffers, constants] =
                [(m.parameters, "parameter"), (m.buffers, "buffer"), (m.constants, "constant")].map(|(n, what)| Count(n, what));
            writeln!(out, "  {parameters}, {buffers}{state}, {constants}")?;
            print_counts(&Count(m.nodes, "node").to_string(), &m.operators, out)?;
        }
        Ok(())
    }
}
