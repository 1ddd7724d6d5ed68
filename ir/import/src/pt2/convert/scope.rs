//! One graph of a program: its inputs, calls and outputs. Nested graphs are scopes of their own.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::model::{self, Argument, SymScalar};
use super::super::source::Sources;
use super::super::subclass::{Parts, Wrapped};
use super::arguments::Use;
use super::findings::Findings;
use super::{argument_name, types};
use etx_ir::DType;
use etx_ir::graph::{Graph, Source, TensorType, Type, ValueId};
use etx_ir::op;
use etx_ir::op::{Kind, OpId};
use etx_ir::sym::{Expr, Symbol};

/// What a name of the program stands for.
#[derive(Clone)]
pub(super) enum Named {
    Value(ValueId),
    /// A weight that was taken apart.
    Parts(Arc<Parts>),
}

impl Named {
    pub(super) fn value(&self) -> Option<ValueId> {
        match self {
            Named::Value(v) => Some(*v),
            Named::Parts(_) => None,
        }
    }

    pub(super) fn parts(&self) -> Option<&Arc<Parts>> {
        match self {
            Named::Value(_) => None,
            Named::Parts(p) => Some(p),
        }
    }
}

pub(super) type Names<'a> = HashMap<&'a str, Named>;

/// What an input of a graph becomes.
#[derive(Clone)]
pub(super) enum Given<'a> {
    /// An input, or none if it is a literal.
    One(&'a Argument),
    /// An input for each tensor in a wrapped weight, which is stored under the name `fqn`.
    Parts { name: &'a Argument, fqn: Arc<str>, wrapped: Arc<Wrapped> },
}

pub(super) struct Scope<'a, 'f> {
    pub(super) json: &'a model::Graph,
    pub(super) major: i64,
    pub(super) graph: Graph,
    pub(super) names: Names<'a>,
    pub(super) found: &'f mut Findings,
    sources: Sources<'a>,
}

impl<'a, 'f> Scope<'a, 'f> {
    pub(super) fn new(json: &'a model::Graph, major: i64, found: &'f mut Findings) -> Self {
        Self { json, major, graph: Graph::new(), names: HashMap::new(), found, sources: Sources::default() }
    }

    /// The graph, and what the names in it stand for.
    pub(super) fn build(mut self, inputs: &[Given<'a>]) -> (Graph, Names<'a>) {
        for given in inputs {
            match given {
                Given::One(arg) => {
                    let Some(name) = argument_name(arg) else { continue };
                    let ty = self.ty(arg, name);
                    let v = self.graph.add_input(name, ty);
                    self.define(name, Named::Value(v));
                }
                Given::Parts { name: arg, fqn, wrapped } => {
                    let Some(name) = argument_name(arg) else { continue };
                    if let Type::Tensor(t) = self.ty(arg, name)
                        && let Err(e) = super::fits(&t, wrapped.dtype, &wrapped.shape)
                    {
                        self.found.weight(fqn, e);
                    }
                    // `p_` for a parameter, `b_` for a buffer.
                    let prefix = name.split('_').next().unwrap_or("p");
                    let inner = |i| format!("{prefix}_{}", Wrapped::inner_name(fqn, i).replace('.', "_"));
                    let parts = Parts::add_inputs(&mut self.graph, fqn.clone(), wrapped.clone(), inner);
                    self.define(name, Named::Parts(Arc::new(parts)));
                }
            }
        }
        for (i, node) in self.json.nodes.iter().enumerate() {
            self.node(i, node);
        }
        let place = Use::new("the outputs", &None);
        let outputs = self.json.outputs.iter().map(|a| self.argument(a, &place, None)).collect();
        self.graph.set_outputs(outputs);
        (self.graph, self.names)
    }

    fn define(&mut self, name: &'a str, named: Named) {
        if self.names.insert(name, named).is_some() {
            self.found.broken(format!("value {name:?} is defined twice"));
        }
    }

    fn node(&mut self, index: usize, node: &'a model::Node) {
        let numbered;
        let place = match &node.name {
            Some(name) => name.as_str(),
            None => {
                numbered = format!("nodes[{index}]");
                &numbered
            }
        };
        let source = self.sources.get(&node.metadata);
        let Some(op) = OpId::lookup(&node.target) else {
            self.found.unknown(&node.target, source);
            // Its results exist all the same, or every later use would be reported, too.
            for name in node.outputs.iter().flat_map(output_names) {
                let v = self.graph.add_input(name, Type::None);
                self.names.insert(name, Named::Value(v));
            }
            return;
        };
        if self.takes_apart(op, node, place, &source) {
            return;
        }
        let args = self.arguments(op, node, place, &source);
        // Results by name: the program's, or one made up for what it does not name.
        let mut outputs: Vec<(Cow<'a, str>, Type)> = Vec::new();
        for (i, out) in node.outputs.iter().enumerate() {
            let unnamed = || Cow::Owned(format!("{place}_result_{i}"));
            match out {
                Argument::AsTensors(list) => outputs.extend(list.iter().map(|n| (Cow::Borrowed(n.name.as_str()), self.ty(out, &n.name)))),
                // What returns nothing has this for a result, or none.
                Argument::AsNone(_) if op.schema().returns.is_empty() && op.schema().kind != Kind::HigherOrder => {}
                Argument::AsNone(_) => outputs.push((unnamed(), Type::None)),
                Argument::AsInt(n) => outputs.push((unnamed(), Type::Int(Expr::Int(*n)))),
                other => match argument_name(other) {
                    Some(n) => outputs.push((Cow::Borrowed(n), self.ty(other, n))),
                    None => self.found.broken(format!("{place}: result {i} is of no known kind")),
                },
            }
        }
        let name = node.name.as_deref().or(outputs.first().map(|(n, _)| n.as_ref())).unwrap_or("call");
        let id = self.graph.append(op, args, name, outputs.iter().map(|(n, t)| (n.as_ref(), t.clone())).collect(), source);
        let values = self.graph.node(id).outputs.clone();
        for ((name, _), v) in outputs.into_iter().zip(values) {
            if let Cow::Borrowed(name) = name {
                self.define(name, Named::Value(v));
            }
        }
    }

    /// Calls on a weight that was taken apart which leave no call behind. Returns whether `node` is one.
    fn takes_apart(&mut self, op: OpId, node: &'a model::Node, place: &str, source: &Option<Arc<Source>>) -> bool {
        let Some(Argument::AsTensor(weight)) = node.inputs.first().map(|i| &i.arg) else { return false };
        let Some(Named::Parts(parts)) = self.names.get(weight.name.as_str()).cloned() else { return false };
        let fqn = parts.fqn.clone();
        let given = |name: &str| node.inputs.iter().find(|i| i.name == name).map(|i| &i.arg);
        let result = match op {
            ACCESS => {
                let field = match given("attr").or(node.inputs.get(1).map(|i| &i.arg)) {
                    Some(Argument::AsString(s)) => s.as_str(),
                    _ => "",
                };
                match parts.field(field) {
                    Some(v) => Named::Value(v),
                    None => {
                        self.found.broken(format!("{place}: a {} has no tensor {field:?}", parts.wrapped.class.name));
                        return true;
                    }
                }
            }
            DETACH | ALIAS => Named::Parts(parts),
            ASSERT => return true,
            TO_COPY | TO_DTYPE | TO_LAYOUT | TO_DEVICE if parts.casts() => {
                let dtype = match given("dtype") {
                    Some(Argument::AsScalarType(n) | Argument::AsInt(n)) => types::dtype(*n, self.major),
                    _ => None,
                };
                match dtype.unwrap_or(parts.wrapped.dtype) {
                    same if same == parts.wrapped.dtype && op != TO_COPY => Named::Parts(parts),
                    dtype => match self.dequantised(&parts, Some(dtype), source) {
                        Some(v) => Named::Value(v),
                        None => return true,
                    },
                }
            }
            _ => return false,
        };
        let [Argument::AsTensor(out)] = node.outputs.as_slice() else {
            self.found.broken(format!("{place}: it has not one tensor as its result"));
            return true;
        };
        if let Named::Value(v) = result {
            let recorded = self.tensor_type(&out.name);
            if let Some((a, b)) = recorded.as_ref().zip(self.graph.tensor(v)).filter(|(a, b)| !a.same_as(b)) {
                let what = format!("{place}: {}{:?} in the graph but {}{:?} in the weight {fqn:?}", a.dtype, a.shape, b.dtype, b.shape);
                self.found.broken(what);
            }
        }
        self.define(&out.name, result);
        true
    }

    /// The plain tensor that a weight stands for.
    pub(super) fn dequantised(&mut self, parts: &Parts, dtype: Option<DType>, source: &Option<Arc<Source>>) -> Option<ValueId> {
        match parts.dequantise(&mut self.graph, dtype, source.clone()) {
            Ok(v) => Some(v),
            Err(e) => {
                self.found.weight(&parts.fqn, e);
                None
            }
        }
    }

    fn ty(&mut self, arg: &Argument, name: &str) -> Type {
        let json = self.json;
        match arg {
            Argument::AsTensor(_) | Argument::AsTensors(_) => return self.tensor_type(name).map_or(Type::None, Type::Tensor),
            Argument::AsSymInt(_) => return Type::Int(self.scalar(&json.sym_int_values, name)),
            Argument::AsSymFloat(_) => return Type::Float(self.scalar(&json.sym_float_values, name)),
            Argument::AsSymBool(_) => return Type::Bool(self.scalar(&json.sym_bool_values, name)),
            Argument::AsCustomObj(_) => return Type::Opaque(json.custom_obj_values.get(name).map_or("", |o| o.class_fqn.as_str()).into()),
            _ => {}
        }
        Type::None
    }

    fn tensor_type(&mut self, name: &str) -> Option<TensorType> {
        let t = match self.json.tensor_values.get(name) {
            Some(meta) => types::tensor_type(meta, self.major),
            None => Err("it has no entry in tensor_values".to_owned()),
        };
        t.map_err(|e| self.found.broken(format!("tensor {name:?}: {e}"))).ok()
    }

    fn scalar(&mut self, map: &BTreeMap<String, SymScalar>, name: &str) -> Expr {
        match map.get(name).map(types::scalar) {
            Some(Ok(e)) => e,
            Some(Err(e)) => {
                self.found.broken(format!("value {name:?}: {e}"));
                Expr::Int(0)
            }
            // Nothing is known of it but that it exists; its own name serves as its symbol.
            None => Symbol::new(name).map_or(Expr::Int(0), Expr::Sym),
        }
    }
}

const ACCESS: OpId = op!("export.access_subclass_inner_tensor.default");
const DETACH: OpId = op!("aten.detach.default");
const ALIAS: OpId = op!("aten.alias.default");
const ASSERT: OpId = op!("aten._assert_tensor_metadata.default");
const TO_COPY: OpId = op!("aten._to_copy.default");
const TO_DTYPE: OpId = op!("aten.to.dtype");
const TO_LAYOUT: OpId = op!("aten.to.dtype_layout");
const TO_DEVICE: OpId = op!("aten.to.device");

fn output_names(arg: &Argument) -> Vec<&str> {
    match arg {
        Argument::AsTensors(list) => list.iter().map(|n| n.name.as_str()).collect(),
        other => argument_name(other).into_iter().collect(),
    }
}
