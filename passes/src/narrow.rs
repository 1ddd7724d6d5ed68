//! Computes in `f32` what a program computes in `f64`: on request only, for results differ.

use std::sync::{Arc, Mutex, PoisonError};

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, Graph, NodeId, Type, ValueId};
use etx_ir::program::{InputKind, OutputKind};

use crate::driver::{Context, Pass};
use crate::evaluate::cast_when_written;
use crate::rewrite::nested;

/// The type that stands for a type of double precision.
fn single(dtype: DType) -> Option<DType> {
    match dtype {
        DType::Float64 => Some(DType::Float32),
        DType::Complex128 => Some(DType::Complex64),
        _ => None,
    }
}

/// What became of the `f64` of one method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// The method.
    pub method: String,
    /// Where `f64` began: lines of the model's source, or calls where that is unknown, each once.
    pub places: Vec<String>,
    /// Names of inputs that are `f32` now.
    pub inputs: Vec<String>,
    /// Numbers of results that are `f32` now.
    pub outputs: Vec<usize>,
}

/// Makes `f32` of every `f64` (and single complex numbers of double ones): types of values, of inputs and of results, constants and state.
///
/// Constants are rounded once, after what could be computed of them in `f64`. A finite number that `f32` does not have becomes its largest:
/// what stands for infinity in a mask is none. Clones share what they found.
#[derive(Clone, Debug, Default)]
pub struct F64AsF32 {
    found: Arc<Mutex<Vec<Narrowed>>>,
}

impl F64AsF32 {
    /// What was found in each method that had any `f64`.
    pub fn found(&self) -> Vec<Narrowed> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Pass for F64AsF32 {
    fn name(&self) -> &'static str {
        "f64-as-f32"
    }

    fn law(&self) -> &'static str {
        "what is f64 becomes f32, inputs and results too; nothing else changes"
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        let found = survey(cx);
        let changed = narrow(&mut cx.edit().graph)?;
        if changed == 0 {
            return Ok(());
        }
        for n in 0..cx.method().inputs.len() {
            if let Some(data) = cx.weight(n)
                && let Some(to) = single(data.dtype())
            {
                let data = cast_when_written(data, to)?;
                cx.replace_weight(n, data);
            }
        }
        cx.changed(changed);
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(found);
        Ok(())
    }
}

fn is_double(graph: &Graph, v: ValueId) -> bool {
    graph.tensor(v).is_some_and(|t| single(t.dtype).is_some())
}

/// Where `f64` comes from, and where it would be seen from outside.
fn survey(cx: &Context<'_>) -> Narrowed {
    let (method, graph) = (cx.method(), cx.graph());
    let mut found = Narrowed { method: method.name.to_string(), ..Narrowed::default() };
    for input in &method.inputs {
        if let (InputKind::User, Some(v)) = (&input.kind, input.value)
            && is_double(graph, v)
        {
            found.inputs.push(graph.value(v).name.to_string());
        }
    }
    let results = graph.outputs().iter().zip(&method.outputs).filter(|(_, k)| matches!(k, OutputKind::User));
    found.outputs = results.enumerate().filter(|(_, (a, _))| a.as_value().is_some_and(|v| is_double(graph, v))).map(|(i, _)| i).collect();
    let given: Vec<ValueId> = graph.inputs().iter().copied().filter(|v| is_double(graph, *v)).collect();
    for (id, node) in graph.nodes() {
        let operands = graph.operands(id);
        let begins = node.outputs.iter().any(|v| is_double(graph, *v)) && !operands.iter().any(|v| is_double(graph, *v));
        if begins || operands.iter().any(|v| given.contains(v)) {
            let place = node.source.as_ref().map_or_else(|| node.name.to_string(), ToString::to_string);
            if !found.places.contains(&place) {
                found.places.push(place);
            }
        }
    }
    found
}

/// Goes over a graph and those nested in it.
fn narrow(graph: &mut Graph) -> Result<u64, Error> {
    let nodes = graph.order();
    let results = nodes.iter().flat_map(|&n| graph.node(n).outputs.iter().copied());
    let values: Vec<ValueId> = graph.inputs().iter().copied().chain(results).collect();
    let mut changes = 0;
    for &id in &nodes {
        changes += arguments(graph, id);
        changes += nested(graph, id, &mut |body| narrow(body))?;
    }
    for v in values {
        if let Some(t) = graph.tensor(v)
            && let Some(to) = single(t.dtype)
        {
            let mut t = t.clone();
            t.dtype = to;
            graph.set_type(v, Type::Tensor(t));
            changes += 1;
        }
    }
    Ok(changes)
}

/// Literals of a call: element types, and numbers beside `f64`.
fn arguments(graph: &mut Graph, id: NodeId) -> u64 {
    let node = graph.node(id);
    let beside = node.outputs.iter().chain(&graph.operands(id)).any(|v| is_double(graph, *v));
    let mut args = node.args.clone();
    args.iter_mut().for_each(|a| literal(a, beside));
    if args == node.args {
        return 0;
    }
    graph.set_args(id, args);
    1
}

fn literal(arg: &mut Arg, beside: bool) {
    const LARGEST: f64 = f32::MAX as f64;
    match arg {
        Arg::DType(t) => *t = single(*t).unwrap_or(*t),
        Arg::Float(x) if beside && x.is_finite() => *x = x.clamp(-LARGEST, LARGEST),
        Arg::List(items) => items.iter_mut().for_each(|a| literal(a, beside)),
        _ => {}
    }
}
