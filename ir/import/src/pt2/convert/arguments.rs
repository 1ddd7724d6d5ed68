//! Arguments of calls, brought into the places their schemas have for them.

use std::sync::Arc;

use super::super::model::{self, Argument, SymArgument};
use super::super::subclass::Parts;
use super::scope::{Given, Named, Scope};
use super::types;
use etx_ir::DType;
use etx_ir::graph::{Arg, Source};
use etx_ir::op;
use etx_ir::op::{ArgKind, ArgType, OpId, bind};

/// Where an argument is used.
pub(super) struct Use<'u> {
    /// The call, for messages.
    place: &'u str,
    /// Its source line.
    source: &'u Option<Arc<Source>>,
    /// The element type that weights become which follow their use.
    cast: Option<DType>,
    /// The operands that a call passes to its graphs, those with parts as such; `None` if no operand has parts.
    operands: Option<Vec<Option<Arc<Parts>>>>,
}

impl<'u> Use<'u> {
    pub(super) fn new(place: &'u str, source: &'u Option<Arc<Source>>) -> Self {
        Self { place, source, cast: None, operands: None }
    }
}

impl<'a> Scope<'a, '_> {
    /// The arguments of a call: one for each of the schema, defaults filled in.
    pub(super) fn arguments(&mut self, op: OpId, node: &'a model::Node, place: &str, source: &Option<Arc<Source>>) -> Vec<Arg> {
        let schema = op.schema();
        let mut given = Vec::with_capacity(node.inputs.len());
        for (i, input) in node.inputs.iter().enumerate() {
            match ArgKind::from_pt2_code(input.kind) {
                Some(kind) => given.push((input.name.as_str(), kind, &input.arg)),
                None => self.found.broken(format!("{place}: input {i} is of unknown kind {}", input.kind)),
            }
        }
        let bound = match bind(schema, given) {
            Ok(bound) => bound,
            Err(e) => {
                self.found.broken(format!("{place}: {e}"));
                return Vec::new();
            }
        };
        let mut used = Use::new(place, source);
        if op == op!("aten.linear.default") {
            used.cast = bound.args.first().and_then(|input| self.dtype_of((*input)?));
        }
        used.operands = self.operands(node);
        let mut args = Vec::with_capacity(bound.args.len());
        for (spec, given) in schema.args.iter().zip(bound.args) {
            args.push(match given {
                Some(arg) => repeated(self.argument(arg, &used, Some(&spec.ty)), &spec.ty),
                None => spec.default.as_ref().map_or(Arg::None, Arg::from),
            });
        }
        // What a variadic operator got beyond its schema: unnamed arguments in order, named ones as one dictionary last.
        let mut named = Vec::new();
        for (name, _, arg) in bound.extra {
            match (self.spread(arg, &used), name.is_empty()) {
                (Some(values), _) => args.extend(values),
                (None, true) => args.push(self.argument(arg, &used, None)),
                (None, false) => named.push((Arc::from(name), self.argument(arg, &used, None))),
            }
        }
        if !named.is_empty() {
            args.push(Arg::Dict(named));
        }
        args
    }

    /// The element type of the tensor that an argument is.
    fn dtype_of(&self, arg: &Argument) -> Option<DType> {
        let Argument::AsTensor(n) = arg else { return None };
        let v = self.names.get(n.name.as_str())?.value()?;
        self.graph.tensor(v).map(|t| t.dtype)
    }

    /// What a higher-order operator passes to its graphs, if there is a weight with parts among it: everything after the
    /// last graph, lists spread out. That is the order of the inputs of all its graphs.
    fn operands(&self, node: &model::Node) -> Option<Vec<Option<Arc<Parts>>>> {
        let graph = node.inputs.iter().rposition(|i| matches!(i.arg, Argument::AsGraph(_)))?;
        let parts = |name: &str| self.names.get(name).and_then(Named::parts).cloned();
        let mut operands = Vec::new();
        for input in node.inputs.iter().skip(graph + 1).filter(|i| i.name.is_empty()) {
            match &input.arg {
                Argument::AsTensor(n) => operands.push(parts(&n.name)),
                Argument::AsTensors(list) => operands.extend(list.iter().map(|n| parts(&n.name))),
                Argument::AsSymInts(list) => operands.extend(list.iter().map(|_| None)),
                Argument::AsInts(list) => operands.extend(list.iter().map(|_| None)),
                Argument::AsStringToArgument(_) => {}
                _ => operands.push(None),
            }
        }
        operands.iter().any(Option::is_some).then_some(operands)
    }

    /// The values that an operand of a higher-order operator becomes which is a weight with parts.
    fn spread(&self, arg: &Argument, used: &Use) -> Option<Vec<Arg>> {
        used.operands.as_ref()?;
        match arg {
            Argument::AsTensor(n) => Some(self.names.get(n.name.as_str())?.parts()?.values().map(Arg::Value).collect()),
            _ => None,
        }
    }

    fn value(&mut self, name: &str, used: &Use) -> Arg {
        match self.names.get(name).cloned() {
            Some(Named::Value(v)) => Arg::Value(v),
            Some(Named::Parts(parts)) => {
                let cast = used.cast.filter(|_| parts.follows_use());
                self.dequantised(&parts, cast, used.source).map_or(Arg::None, Arg::Value)
            }
            None => {
                self.found.broken(format!("{} uses {name:?}, which nothing before it defines", used.place));
                Arg::None
            }
        }
    }

    fn values(&mut self, list: &[model::Name], used: &Use) -> Arg {
        let mut values = Vec::with_capacity(list.len());
        for n in list {
            match self.names.get(n.name.as_str()).and_then(Named::parts) {
                Some(parts) if used.operands.is_some() => values.extend(parts.values().map(Arg::Value)),
                _ => values.push(self.value(&n.name, used)),
            }
        }
        Arg::List(values)
    }

    fn sym(&mut self, a: &SymArgument, used: &Use) -> Arg {
        match a {
            SymArgument::AsName(n) => self.value(n, used),
            SymArgument::AsInt(n) => Arg::Int(*n),
            SymArgument::AsFloat(x) => Arg::Float(x.0),
            SymArgument::AsBool(b) => Arg::Bool(*b),
        }
    }

    /// An argument, given for a place of type `ty` if there is one.
    pub(super) fn argument(&mut self, arg: &'a Argument, used: &Use, ty: Option<&ArgType>) -> Arg {
        let ty = ty.map(ArgType::required);
        match arg {
            Argument::AsNone(_) => Arg::None,
            Argument::AsTensor(n) => self.value(&n.name, used),
            Argument::AsTensors(list) => self.values(list, used),
            Argument::AsOptionalTensor(t) => self.optional(t, used),
            Argument::AsOptionalTensors(list) => Arg::List(list.iter().map(|t| self.optional(t, used)).collect()),
            Argument::AsNestedTensors(lists) => Arg::List(lists.iter().map(|l| self.values(l, used)).collect()),
            // A whole number given for a float argument: one spelling for one value.
            Argument::AsInt(n) if matches!(ty, Some(ArgType::Float | ArgType::SymFloat)) => Arg::Float(*n as f64),
            Argument::AsInt(n) if ty == Some(&ArgType::ScalarType) => self.dtype(*n, used),
            Argument::AsInt(n) => Arg::Int(*n),
            Argument::AsInts(list) => list.clone().into(),
            Argument::AsIntLists(lists) => Arg::List(lists.iter().map(|l| l.clone().into()).collect()),
            Argument::AsFloat(x) => Arg::Float(x.0),
            Argument::AsFloats(list) => Arg::List(list.iter().map(|x| Arg::Float(x.0)).collect()),
            Argument::AsFloatLists(lists) => {
                Arg::List(lists.iter().map(|l| Arg::List(l.iter().map(|x| Arg::Float(x.0)).collect())).collect())
            }
            Argument::AsBool(b) => Arg::Bool(*b),
            Argument::AsBools(list) => list.clone().into(),
            Argument::AsString(s) => Arg::Str(s.as_str().into()),
            Argument::AsStrings(list) => Arg::List(list.iter().map(|s| Arg::Str(s.as_str().into())).collect()),
            Argument::AsComplex(c) => Arg::Complex(c.real.0, c.imag.0),
            Argument::AsSymInt(s) | Argument::AsSymFloat(s) | Argument::AsSymBool(s) => self.sym(s, used),
            Argument::AsSymInts(list) | Argument::AsSymFloats(list) | Argument::AsSymBools(list) => {
                Arg::List(list.iter().map(|s| self.sym(s, used)).collect())
            }
            Argument::AsScalarType(n) => self.dtype(*n, used),
            Argument::AsLayout(n) => self.small(*n, used, "layout").map_or(Arg::None, Arg::Layout),
            Argument::AsMemoryFormat(n) => self.small(*n, used, "memory format").map_or(Arg::None, Arg::MemoryFormat),
            Argument::AsDevice(d) => Arg::Device(d.index.map_or_else(|| d.kind.clone(), |i| format!("{}:{i}", d.kind)).into()),
            Argument::AsGraph(g) => {
                let inputs = self.graph_inputs(&g.graph, used);
                Arg::Graph(Box::new(Scope::new(&g.graph, self.major, self.found).build(&inputs).0))
            }
            Argument::AsCustomObj(o) => self.value(&o.name, used),
            Argument::AsOperator(target) => match OpId::lookup(target) {
                Some(op) => Arg::Op(op),
                None => {
                    self.found.unknown(target, used.source.clone());
                    Arg::None
                }
            },
            Argument::AsStringToArgument(map) => {
                Arg::Dict(map.iter().map(|(k, a)| (Arc::from(k.as_str()), self.argument(a, used, None))).collect())
            }
        }
    }

    /// The inputs of a nested graph: those for which the call passes a weight with parts become its parts, too.
    fn graph_inputs(&mut self, graph: &'a model::Graph, used: &Use) -> Vec<Given<'a>> {
        let Some(operands) = &used.operands else { return graph.inputs.iter().map(Given::One).collect() };
        if operands.len() != graph.inputs.len() {
            self.found.broken(format!("{} passes {} operands to a graph of {} inputs", used.place, operands.len(), graph.inputs.len()));
        }
        let given = graph.inputs.iter().zip(operands).map(|(name, parts)| match parts {
            Some(p) => Given::Parts { name, fqn: p.fqn.clone(), wrapped: p.wrapped.clone() },
            None => Given::One(name),
        });
        given.collect()
    }

    fn optional(&mut self, t: &model::OptionalTensor, used: &Use) -> Arg {
        match t {
            model::OptionalTensor::AsTensor(n) => self.value(&n.name, used),
            model::OptionalTensor::AsNone(_) => Arg::None,
        }
    }

    fn small(&mut self, n: i64, used: &Use, what: &str) -> Option<u8> {
        let small = u8::try_from(n).ok().filter(|&n| n <= 7);
        if small.is_none() {
            self.found.broken(format!("{}: {n} is no {what}", used.place));
        }
        small
    }

    fn dtype(&mut self, n: i64, used: &Use) -> Arg {
        match types::dtype(n, self.major) {
            Some(t) => Arg::DType(t),
            None => {
                self.found.broken(format!("{}: {n} is no element type", used.place));
                Arg::None
            }
        }
    }
}

/// A scalar for a list of fixed length stands for that many equal elements.
fn repeated(arg: Arg, ty: &ArgType) -> Arg {
    match (ty.required(), &arg) {
        (ArgType::List(_, Some(n)), Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) | Arg::Value(_)) => {
            Arg::List(std::iter::repeat_n(arg, *n as usize).collect())
        }
        _ => arg,
    }
}

/// Calls `f` with every name that an argument uses in the scope it stands in.
pub(super) fn names<'a>(arg: &'a Argument, f: &mut dyn FnMut(&'a str)) {
    let optional = |t: &'a model::OptionalTensor| match t {
        model::OptionalTensor::AsTensor(n) => Some(n.name.as_str()),
        model::OptionalTensor::AsNone(_) => None,
    };
    match arg {
        Argument::AsTensors(list) => list.iter().for_each(|n| f(&n.name)),
        Argument::AsNestedTensors(lists) => lists.iter().flatten().for_each(|n| f(&n.name)),
        Argument::AsOptionalTensor(t) => optional(t).into_iter().for_each(f),
        Argument::AsOptionalTensors(list) => list.iter().filter_map(optional).for_each(f),
        Argument::AsSymInts(list) | Argument::AsSymFloats(list) | Argument::AsSymBools(list) => {
            for s in list {
                if let SymArgument::AsName(n) = s {
                    f(n);
                }
            }
        }
        Argument::AsStringToArgument(map) => map.values().for_each(|a| names(a, f)),
        other => super::argument_name(other).into_iter().for_each(f),
    }
}
