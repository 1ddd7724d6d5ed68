//! Which values constants decide, which of them are wanted, and what they are.

use std::collections::{BTreeSet, HashMap};

use etx_ir::eval::{self, Tensor, Value};
use etx_ir::graph::{Arg, Graph, Node, NodeId, Type, ValueId};
use etx_ir::op;
use etx_ir::op::Kind;
use etx_ir::program::{Method, OutputKind};
use etx_ir::sym::{Expr, Symbol};

use super::symbols::{Bindings, visit};
use super::{Limits, is_foreign, places};
use crate::driver::Context;

/// What there is to compute in a method.
pub(super) struct Survey {
    /// By value: whether constants alone decide it.
    constant: Vec<bool>,
    /// By node: whether a result is asked for.
    needed: Vec<bool>,
    /// Nodes whose results are put in their place, in order.
    pub(super) roots: Vec<NodeId>,
    /// Symbols that inputs have.
    pub(super) given: BTreeSet<Symbol>,
    /// Symbols that calls introduce.
    pub(super) introduced: BTreeSet<Symbol>,
}

/// Inputs of a method that hold the same bytes at every call, by position.
pub(super) fn fixed_inputs(method: &Method) -> impl Iterator<Item = (usize, ValueId)> + '_ {
    let written: BTreeSet<u32> =
        method.outputs.iter().filter_map(|o| if let OutputKind::StateMutation(i) = o { Some(*i) } else { None }).collect();
    let inputs = method.inputs.iter().enumerate().filter(|(_, i)| i.kind.weight().is_some());
    inputs.filter_map(move |(n, i)| Some((n, i.value?)).filter(|_| u32::try_from(n).is_ok_and(|n| !written.contains(&n))))
}

/// Whether the call is one of those that may be computed now.
fn computable(node: &Node) -> bool {
    let op = node.op;
    // Strides are lost in what is computed.
    let strided = is_op!(op, "aten.as_strided.default" | "aten.as_strided_copy.default" | "aten.as_strided_scatter.default");
    // These are multiplied as they are.
    let packed = op.target().starts_with("torchao.dequantize") && op != op!("torchao.dequantize_affine_float8_non_decomposed.default");
    !op.is_unknown() && !packed && op.schema().kind != Kind::HigherOrder && op.is_pure() && !strided && eval::knows(op)
}

/// An integer that the type tells.
fn literal(ty: &Type) -> Option<Value> {
    match ty {
        Type::Int(e) => e.as_int().map(Value::Int),
        Type::Bool(Expr::Bool(b)) => Some(Value::Bool(*b)),
        _ => None,
    }
}

impl Survey {
    /// `None` if there is nothing of interest: so it is for most programs, and found out in one look.
    pub(super) fn new(cx: &Context<'_>) -> Option<Self> {
        let graph = cx.graph();
        let foreign = |v: &ValueId| graph.tensor(*v).is_some_and(|t| is_foreign(t.dtype));
        let (given, introduced) = super::symbols(graph);
        let any = !introduced.is_empty()
            || graph.inputs().iter().any(foreign)
            || graph.nodes().any(|(_, n)| n.outputs.iter().any(foreign) || places::may_matter(graph, n));
        if !any {
            return None;
        }
        let mut survey = Self {
            constant: vec![false; graph.value_bound()],
            needed: vec![false; graph.node_bound()],
            roots: Vec::new(),
            given,
            introduced,
        };
        for (_, v) in fixed_inputs(cx.method()) {
            survey.mark(v);
        }
        for (_, node) in graph.nodes() {
            let all = computable(node) && operands(node).iter().all(|v| survey.is_constant(*v));
            for &v in &node.outputs {
                if all || literal(graph.ty(v)).is_some() {
                    survey.mark(v);
                }
            }
        }
        for (id, node) in graph.nodes() {
            if node.outputs.iter().any(|v| survey.is_wanted(graph, *v)) && computable(node) {
                survey.roots.push(id);
            }
        }
        survey.need(graph);
        Some(survey)
    }

    fn mark(&mut self, v: ValueId) {
        if let Some(c) = self.constant.get_mut(v.index()) {
            *c = true;
        }
    }

    pub(super) fn is_constant(&self, v: ValueId) -> bool {
        self.constant.get(v.index()).copied().unwrap_or(false)
    }

    pub(super) fn is_needed(&self, id: NodeId) -> bool {
        self.needed.get(id.index()).copied().unwrap_or(false)
    }

    /// Whether the value is to be replaced by what it is.
    pub(super) fn is_wanted(&self, graph: &Graph, v: ValueId) -> bool {
        let (Some(producer), value) = (graph.producer(v), graph.value(v)) else { return false };
        if value.use_count() == 0 || !self.is_constant(v) {
            return false;
        }
        let mut sized = false;
        // All results of a call whose size is among what it finds.
        for &o in &graph.node(producer).outputs {
            visit(graph.ty(o), &mut |s| sized |= self.introduced.contains(s));
        }
        let Some(t) = graph.tensor(v) else { return sized };
        if is_foreign(t.dtype) {
            // The last of a chain.
            let leaves = |u: &NodeId| graph.node(*u).outputs.iter().any(|o| !self.is_constant(*o));
            return value.output_uses() > 0 || value.users().iter().any(leaves);
        }
        sized || operands(graph.node(producer)).iter().any(|o| graph.tensor(*o).is_some_and(|t| is_foreign(t.dtype)))
    }

    /// Marks all calls that lead to the roots, and to what stands where a call cannot have it.
    fn need(&mut self, graph: &Graph) {
        let mut todo: Vec<ValueId> = Vec::new();
        for &id in &self.roots {
            todo.extend(graph.node(id).outputs.iter().take(1));
        }
        for (_, node) in graph.nodes() {
            todo.extend(places::wanted(graph, node).filter(|v| self.is_constant(*v)));
        }
        while let Some(v) = todo.pop() {
            let Some(producer) = graph.producer(v).filter(|_| literal(graph.ty(v)).is_none()) else { continue };
            if let Some(needed) = self.needed.get_mut(producer.index())
                && !std::mem::replace(needed, true)
            {
                todo.extend(operands(graph.node(producer)));
            }
        }
    }
}

fn operands(node: &Node) -> Vec<ValueId> {
    let mut all = Vec::new();
    node.args.iter().for_each(|a| a.visit(&mut |v| all.push(v)));
    all
}

/// Values that were computed.
pub(super) struct Known {
    values: HashMap<ValueId, Value>,
    /// Constants that may be read, by value.
    inputs: HashMap<ValueId, usize>,
    limits: Limits,
    held: u64,
}

impl Known {
    pub(super) fn new(cx: &Context<'_>, survey: &Survey, limits: Limits) -> Self {
        let inputs = fixed_inputs(cx.method()).filter(|(_, v)| survey.is_constant(*v)).map(|(n, v)| (v, n)).collect();
        let mut known = Self { values: HashMap::new(), inputs, limits, held: 0 };
        // What calls look at of constants that are inputs themselves.
        for (_, node) in cx.graph().nodes() {
            for v in places::wanted(cx.graph(), node) {
                known.read(cx, v);
            }
        }
        known
    }

    pub(super) fn get(&self, v: ValueId) -> Option<&Value> {
        self.values.get(&v)
    }

    pub(super) fn tensor(&self, v: ValueId) -> Option<&Tensor> {
        match self.get(v)? {
            Value::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// Reads a constant, if it is one that may be read.
    fn read(&mut self, cx: &Context<'_>, v: ValueId) {
        if self.values.contains_key(&v) {
            return;
        }
        if let Some(n) = literal(cx.graph().ty(v)) {
            self.values.insert(v, n);
        } else if let Some(&n) = self.inputs.get(&v)
            && let Some(data) = cx.weight(n).filter(|d| d.byte_len() <= self.limits.read && !d.is_costly())
            && self.held.saturating_add(data.byte_len()) <= self.limits.held
            && let Ok(t) = Tensor::read(data)
        {
            self.held += data.byte_len();
            self.values.insert(v, Value::Tensor(t));
        }
    }

    /// Computes a call, as far as limits allow. What torch would refuse is left to be refused where it is.
    pub(super) fn compute(&mut self, cx: &Context<'_>, id: NodeId, bindings: &mut Bindings<'_>) {
        let (graph, node) = (cx.graph(), cx.graph().node(id));
        if !computable(node) || node.outputs.iter().all(|v| literal(graph.ty(*v)).is_some()) {
            return;
        }
        let large = |v: &ValueId| graph.tensor(*v).is_some_and(|t| bytes_at_most(t).is_some_and(|n| n > self.limits.value));
        if self.held > self.limits.held || node.outputs.iter().any(large) || is_laborious(graph, node) {
            return;
        }
        for v in operands(node) {
            self.read(cx, v);
        }
        let Ok(results) = eval::call(node.op, &node.args, &|v| self.values.get(&v).cloned()) else { return };
        let present: Vec<ValueId> = node.outputs.iter().copied().filter(|v| *graph.ty(*v) != Type::None).collect();
        let outputs = if results.len() == node.outputs.len() { node.outputs.clone() } else { present };
        if results.len() != outputs.len() {
            return;
        }
        for (v, value) in outputs.into_iter().zip(results) {
            if bindings.see(graph.ty(v), &value) {
                if let Value::Tensor(t) = &value {
                    self.held += (t.shape().iter().product::<usize>() * t.dtype().size()) as u64;
                }
                self.values.insert(v, value);
            }
        }
    }
}

/// Whether the call multiplies matrices that are too large to be multiplied by the reference evaluation.
fn is_laborious(graph: &Graph, node: &Node) -> bool {
    const PRODUCTS: u64 = 1 << 42;
    let product = is_op!(
        node.op,
        "aten.mm.default"
            | "aten.bmm.default"
            | "aten.matmul.default"
            | "aten.linear.default"
            | "aten.addmm.default"
            | "aten.einsum.default"
            | "aten.convolution.default"
    );
    let bytes = |v: ValueId| graph.tensor(v).and_then(bytes_at_most).unwrap_or(u64::MAX);
    product && operands(node).into_iter().map(bytes).fold(1u64, u64::saturating_mul) > PRODUCTS
}

/// The bytes of a tensor; `None` where symbols decide.
fn bytes_at_most(t: &etx_ir::graph::TensorType) -> Option<u64> {
    let n = t.shape.iter().try_fold(1u64, |n, d| Some(n.saturating_mul(u64::try_from(d.as_int()?).ok()?)))?;
    Some(n.saturating_mul(t.dtype.size() as u64))
}

/// Whether the argument is a tensor of positions or a mask that is known.
pub(super) fn tensor_of<'k>(known: &'k Known, arg: &Arg) -> Option<&'k Tensor> {
    known.tensor(arg.as_value()?)
}
