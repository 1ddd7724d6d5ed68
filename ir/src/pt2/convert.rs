//! From the JSON of an exported program to a [`Method`].
//!
//! Everything that is wrong is collected before giving up, so that one run tells all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::model::{self, Argument, InputSpec, OutputSpec, SymArgument, SymScalar, TensorMeta};
use crate::DType;
use crate::error::{Error, ErrorKind};
use crate::graph::{Arg, Graph, Source, TensorType, Type, ValueId};
use crate::op::{ArgKind, ArgType, OpId, bind};
use crate::program::{Dialect, Input, InputKind, Method, OutputKind, Program, WeightId};
use crate::sym::{Expr, Range, Ranges, Symbol};
use crate::weights::TensorData;

/// Where weights come from.
pub(super) trait WeightSource {
    /// The tensor stored under this state-dict name, as the placeholder's type says it is.
    fn weight(&self, fqn: &str, persistent: bool) -> Result<TensorData, Error>;
}

/// At most this many findings of one kind are listed.
const MAX_LISTED: usize = 50;

#[derive(Default)]
struct Findings {
    unknown: BTreeMap<String, (usize, Option<Arc<Source>>)>,
    broken: Vec<String>,
    weights: Vec<Error>,
}

impl Findings {
    fn broken(&mut self, what: String) {
        if self.broken.len() < MAX_LISTED {
            self.broken.push(what);
        }
    }

    fn finish(self) -> Result<(), Error> {
        if !self.unknown.is_empty() {
            let list = self
                .unknown
                .into_iter()
                .map(|(target, (n, source))| {
                    let at = source.map_or_else(String::new, |s| format!(", first at {s}"));
                    format!("unknown operator {target}, {n} call{}{at}", if n == 1 { "" } else { "s" })
                })
                .collect();
            return Err(Error::many(ErrorKind::UnknownOperator, list)
                .help("declare operators of your own with `OpId::register` (library) before loading, or decompose them before exporting"));
        }
        if !self.broken.is_empty() {
            return Err(Error::many(ErrorKind::Format, self.broken));
        }
        match self.weights.first() {
            None => Ok(()),
            // A missing file or a wrong size is one kind; what to do is the same for all of them.
            Some(first) => {
                let findings = self.weights.iter().take(MAX_LISTED).flat_map(|e| e.findings().to_vec()).collect();
                let help = first.to_string();
                let e = Error::many(first.kind(), findings);
                Err(match help.split_once("\nhelp: ") {
                    Some((_, help)) => e.help(help),
                    None => e,
                })
            }
        }
    }
}

pub(super) fn method(program: &mut Program, name: &str, json: model::ExportedProgram, weights: &dyn WeightSource) -> Result<(), Error> {
    let mut found = Findings::default();
    let major = json.schema_version.major;
    let dialects: Vec<&str> = json.verifiers.iter().map(String::as_str).chain(json.dialect.as_deref()).collect();
    if let Some(other) = dialects.iter().find(|d| !matches!(**d, "TRAINING" | "ATEN" | "EDGE" | "")) {
        return Err(Error::new(ErrorKind::Version, format!("unknown dialect {other:?}")));
    }
    // Schema 7 programs are functional whatever they are called; TRAINING came with 8.
    let dialect = if dialects.contains(&"TRAINING") { Dialect::Training } else { Dialect::Functional };
    let signature = json.graph_module.signature;
    let source = json.graph_module.graph;
    if signature.input_specs.len() != source.inputs.len() || signature.output_specs.len() != source.outputs.len() {
        return Err(Error::new(
            ErrorKind::Format,
            format!(
                "the signature has {} inputs and {} outputs, the graph {} and {}",
                signature.input_specs.len(),
                signature.output_specs.len(),
                source.inputs.len(),
                source.outputs.len()
            ),
        ));
    }
    let mut scope = Scope::new(&source, major, &mut found);
    let graph = scope.build(&source);
    let names = std::mem::take(&mut scope.names);
    let mut stored: BTreeMap<String, WeightId> = BTreeMap::new();
    let mut inputs = Vec::new();
    for (spec, arg) in signature.input_specs.iter().zip(&source.inputs) {
        let value = argument_name(arg).and_then(|n| names.get(n)).copied();
        let mut weight = |fqn: &str, persistent: bool| {
            let data = weights.weight(fqn, persistent).and_then(|data| match value.and_then(|v| graph.tensor(v)) {
                Some(t) => fits(fqn, t, data),
                None => Err(Error::new(ErrorKind::Format, format!("{fqn:?} is not a tensor in the graph"))),
            });
            match data {
                Ok(data) => *stored.entry(fqn.to_owned()).or_insert_with(|| program.add_weight(fqn, data)),
                Err(e) => {
                    found.weights.push(e);
                    WeightId(0)
                }
            }
        };
        let kind = match spec {
            InputSpec::UserInput(_) => match literal(arg) {
                Some(value) => InputKind::Literal { name: "".into(), value },
                None => InputKind::User,
            },
            InputSpec::ConstantInput { name } => {
                InputKind::Literal { name: name.as_str().into(), value: literal(arg).unwrap_or(Arg::None) }
            }
            InputSpec::Parameter { parameter_name } => InputKind::Parameter(weight(parameter_name, true)),
            InputSpec::Buffer { buffer_name, persistent } => {
                InputKind::Buffer { weight: weight(buffer_name, *persistent), persistent: *persistent }
            }
            InputSpec::TensorConstant { tensor_constant_name } => InputKind::Constant(weight(tensor_constant_name, false)),
            InputSpec::Token(_) => InputKind::Token,
            InputSpec::CustomObj { custom_obj_name } => {
                InputKind::Object { name: custom_obj_name.as_str().into(), class: "".into() }
            }
        };
        inputs.push(Input { value, kind });
    }
    let outputs = output_kinds(&signature.output_specs, &inputs, &graph, program, &names, &mut found);
    let mut ranges = Ranges::default();
    for (key, r) in &json.range_constraints {
        let (min, max) = (r.min_val.as_ref().and_then(|b| b.0), r.max_val.as_ref().and_then(|b| b.0));
        // Keys such as `2*s0` follow from the range of the symbol itself.
        if let Ok(Expr::Sym(s)) = Expr::parse(key) {
            ranges.0.insert(s, Range { min, max: max.filter(|&m| m < i64::MAX / 2) });
        }
    }
    let root = json.graph_module.module_call_graph.into_iter().find(|m| m.fqn.is_empty()).and_then(|m| m.signature);
    let (in_spec, out_spec) = root.map_or_else(Default::default, |s| (s.in_spec, s.out_spec));
    found.finish()?;
    let method = Method {
        name: name.into(),
        graph,
        inputs,
        outputs,
        ranges,
        dialect,
        in_spec: in_spec.into(),
        out_spec: out_spec.into(),
    };
    program.methods.push(method);
    Ok(())
}

/// The stored tensor, checked against what the graph says it is.
fn fits(fqn: &str, t: &TensorType, data: TensorData) -> Result<TensorData, Error> {
    let shape: Option<Vec<u64>> = t.shape.iter().map(|d| d.as_int().and_then(|n| u64::try_from(n).ok())).collect();
    if t.dtype == data.dtype() && shape.as_deref() == Some(data.shape()) {
        return Ok(data);
    }
    Err(Error::new(
        ErrorKind::Weight,
        format!("{fqn:?} is {}{:?} in the graph but {}{:?} where it is stored", t.dtype, t.shape, data.dtype(), data.shape()),
    )
    .help("graph and weights are of different exports; export both again together"))
}

fn output_kinds(
    specs: &[OutputSpec],
    inputs: &[Input],
    graph: &Graph,
    program: &Program,
    names: &HashMap<String, ValueId>,
    found: &mut Findings,
) -> Vec<OutputKind> {
    let state = |fqn: &str| {
        inputs.iter().position(|i| i.kind.weight().is_some_and(|w| program.weights().get(w.index()).is_some_and(|w| &*w.name == fqn)))
    };
    let _ = graph;
    let mut kinds = Vec::new();
    for spec in specs {
        let target = match spec {
            OutputSpec::UserOutput(_) => Ok(OutputKind::User),
            OutputSpec::Token(_) => Ok(OutputKind::Token),
            OutputSpec::BufferMutation { buffer_name: n } | OutputSpec::ParameterMutation { parameter_name: n } => {
                state(n).map(|i| OutputKind::StateMutation(i as u32)).ok_or_else(|| format!("mutation of unknown state {n:?}"))
            }
            OutputSpec::UserInputMutation { user_input_name: n } => names
                .get(n)
                .and_then(|v| inputs.iter().position(|i| i.value == Some(*v)))
                .map(|i| OutputKind::InputMutation(i as u32))
                .ok_or_else(|| format!("mutation of unknown input {n:?}")),
            OutputSpec::LossOutput(_) | OutputSpec::GradientToParameter(_) | OutputSpec::GradientToUserInput(_) => {
                Err("the program returns a loss or gradients; only inference programs are lowered".to_owned())
            }
        };
        kinds.push(target.unwrap_or_else(|e| {
            // A missing weight has been reported by itself.
            if found.weights.is_empty() {
                found.broken(e);
            }
            OutputKind::User
        }));
    }
    kinds
}

fn argument_name(arg: &Argument) -> Option<&str> {
    match arg {
        Argument::AsTensor(n) => Some(&n.name),
        Argument::AsSymInt(SymArgument::AsName(n)) | Argument::AsSymFloat(SymArgument::AsName(n)) | Argument::AsSymBool(SymArgument::AsName(n)) => Some(n),
        Argument::AsCustomObj(o) => Some(&o.name),
        _ => None,
    }
}

/// The literal that an input was fixed to.
fn literal(arg: &Argument) -> Option<Arg> {
    Some(match arg {
        Argument::AsNone(_) => Arg::None,
        Argument::AsInt(n) => Arg::Int(*n),
        Argument::AsFloat(x) => Arg::Float(x.0),
        Argument::AsBool(b) => Arg::Bool(*b),
        Argument::AsString(s) => Arg::Str(s.as_str().into()),
        _ => return None,
    })
}

struct Scope<'a> {
    json: &'a model::Graph,
    major: i64,
    names: HashMap<String, ValueId>,
    found: &'a mut Findings,
    sources: HashMap<String, Arc<Source>>,
}

impl<'a> Scope<'a> {
    fn new(json: &'a model::Graph, major: i64, found: &'a mut Findings) -> Self {
        Self { json, major, names: HashMap::new(), found, sources: HashMap::new() }
    }

    fn build(&mut self, json: &model::Graph) -> Graph {
        let mut graph = Graph::new();
        for arg in &json.inputs {
            let Some(name) = argument_name(arg) else { continue };
            let ty = self.ty(arg, name);
            let v = graph.add_input(name, ty);
            self.define(name, v);
        }
        for (i, node) in json.nodes.iter().enumerate() {
            self.node(&mut graph, i, node);
        }
        let outputs = json.outputs.iter().map(|a| self.argument(a, "the outputs", None)).collect();
        graph.set_outputs(outputs);
        graph
    }

    fn define(&mut self, name: &str, v: ValueId) {
        if self.names.insert(name.to_owned(), v).is_some() {
            self.found.broken(format!("value {name:?} is defined twice"));
        }
    }

    fn node(&mut self, graph: &mut Graph, index: usize, node: &model::Node) {
        let place = node.name.clone().unwrap_or_else(|| format!("nodes[{index}]"));
        let source = self.source(&node.metadata);
        let Some(op) = OpId::lookup(&node.target) else {
            let entry = self.found.unknown.entry(node.target.clone()).or_insert((0, source.clone()));
            entry.0 += 1;
            // Its results exist all the same, or every later use would be reported too.
            for name in node.outputs.iter().flat_map(output_names) {
                let v = graph.add_input(name, Type::None);
                self.names.insert(name.to_owned(), v);
            }
            return;
        };
        let args = self.arguments(op, node, &place);
        let mut outputs: Vec<(String, Type)> = Vec::new();
        for (i, out) in node.outputs.iter().enumerate() {
            match out {
                Argument::AsTensors(list) => {
                    for n in list {
                        outputs.push((n.name.clone(), self.ty(out, &n.name)));
                    }
                }
                Argument::AsNone(_) => outputs.push((format!("{place}_none_{i}"), Type::None)),
                Argument::AsInt(n) => outputs.push((format!("{place}_{i}"), Type::Int(Expr::Int(*n)))),
                other => match argument_name(other) {
                    Some(n) => outputs.push((n.to_owned(), self.ty(other, n))),
                    None => self.found.broken(format!("{place}: result {i} is of no known kind")),
                },
            }
        }
        let named = outputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        let fallback = outputs.first().map_or("call", |(n, _)| n.as_str());
        let id = graph.append(op, args, node.name.as_deref().unwrap_or(fallback), named, source);
        let ids = graph.node(id).outputs.clone();
        for ((name, ty), v) in outputs.iter().zip(ids) {
            if *ty != Type::None {
                self.define(name, v);
            }
        }
    }

    fn arguments(&mut self, op: OpId, node: &model::Node, place: &str) -> Vec<Arg> {
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
        let mut args = Vec::with_capacity(bound.args.len());
        for (spec, given) in schema.args.iter().zip(bound.args) {
            args.push(match given {
                Some(arg) => spread(self.argument(arg, place, Some(&spec.ty)), &spec.ty),
                None => spec.default.as_ref().map_or(Arg::None, Arg::from),
            });
        }
        // What a variadic operator got beyond its schema: unnamed arguments in order, named ones as one dictionary last.
        let mut named = Vec::new();
        for (name, _, arg) in bound.extra {
            let arg = self.argument(arg, place, None);
            if name.is_empty() { args.push(arg) } else { named.push((Arc::from(name), arg)) }
        }
        if !named.is_empty() {
            args.push(Arg::Dict(named));
        }
        args
    }

    fn value(&mut self, name: &str, place: &str) -> Arg {
        match self.names.get(name) {
            Some(&v) => Arg::Value(v),
            None => {
                self.found.broken(format!("{place} uses {name:?}, which nothing before it defines"));
                Arg::None
            }
        }
    }

    fn sym(&mut self, a: &SymArgument, place: &str) -> Arg {
        match a {
            SymArgument::AsName(n) => self.value(n, place),
            SymArgument::AsInt(n) => Arg::Int(*n),
            SymArgument::AsFloat(x) => Arg::Float(x.0),
            SymArgument::AsBool(b) => Arg::Bool(*b),
        }
    }

    fn argument(&mut self, arg: &Argument, place: &str, ty: Option<&ArgType>) -> Arg {
        match arg {
            Argument::AsNone(_) => Arg::None,
            Argument::AsTensor(n) => self.value(&n.name, place),
            Argument::AsTensors(list) => Arg::List(list.iter().map(|n| self.value(&n.name, place)).collect()),
            Argument::AsOptionalTensor(t) => self.optional(t, place),
            Argument::AsOptionalTensors(list) => Arg::List(list.iter().map(|t| self.optional(t, place)).collect()),
            Argument::AsNestedTensors(lists) => {
                Arg::List(lists.iter().map(|l| Arg::List(l.iter().map(|n| self.value(&n.name, place)).collect())).collect())
            }
            // A whole number given for a float argument: one spelling for one value.
            Argument::AsInt(n) if ty.is_some_and(|t| matches!(t.required(), ArgType::Float | ArgType::SymFloat)) => Arg::Float(*n as f64),
            Argument::AsInt(n) if ty.is_some_and(|t| *t.required() == ArgType::ScalarType) => self.dtype(*n, place),
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
            Argument::AsSymInt(s) | Argument::AsSymFloat(s) | Argument::AsSymBool(s) => self.sym(s, place),
            Argument::AsSymInts(list) | Argument::AsSymFloats(list) | Argument::AsSymBools(list) => {
                Arg::List(list.iter().map(|s| self.sym(s, place)).collect())
            }
            Argument::AsScalarType(n) => self.dtype(*n, place),
            Argument::AsLayout(n) => self.small(*n, place, "layout").map_or(Arg::None, Arg::Layout),
            Argument::AsMemoryFormat(n) => self.small(*n, place, "memory format").map_or(Arg::None, Arg::MemoryFormat),
            Argument::AsDevice(d) => {
                Arg::Device(d.index.map_or_else(|| d.kind.clone(), |i| format!("{}:{i}", d.kind)).into())
            }
            Argument::AsGraph(g) => {
                let mut inner = Scope { json: &g.graph, major: self.major, names: HashMap::new(), found: self.found, sources: HashMap::new() };
                Arg::Graph(Box::new(inner.build(&g.graph)))
            }
            Argument::AsCustomObj(o) => self.value(&o.name, place),
            Argument::AsOperator(target) => match OpId::lookup(target) {
                Some(op) => Arg::Op(op),
                None => {
                    self.found.unknown.entry(target.clone()).or_insert((0, None)).0 += 1;
                    Arg::None
                }
            },
            Argument::AsStringToArgument(map) => {
                Arg::Dict(map.iter().map(|(k, a)| (Arc::from(k.as_str()), self.argument(a, place, None))).collect())
            }
        }
    }

    fn optional(&mut self, t: &model::OptionalTensor, place: &str) -> Arg {
        match t {
            model::OptionalTensor::AsTensor(n) => self.value(&n.name, place),
            model::OptionalTensor::AsNone(_) => Arg::None,
        }
    }

    fn small(&mut self, n: i64, place: &str, what: &str) -> Option<u8> {
        let small = u8::try_from(n).ok().filter(|&n| n <= 7);
        if small.is_none() {
            self.found.broken(format!("{place}: {n} is no {what}"));
        }
        small
    }

    fn dtype(&mut self, n: i64, place: &str) -> Arg {
        match DType::from_pt2_code(legacy_dtype(n, self.major)) {
            Some(t) => Arg::DType(t),
            None => {
                self.found.broken(format!("{place}: {n} is no element type"));
                Arg::None
            }
        }
    }

    fn ty(&mut self, arg: &Argument, name: &str) -> Type {
        let json = self.json;
        match arg {
            Argument::AsTensor(_) | Argument::AsTensors(_) => match json.tensor_values.get(name) {
                Some(meta) => match tensor_type(meta, self.major) {
                    Ok(t) => return Type::Tensor(t),
                    Err(e) => self.found.broken(format!("{name}: {e}")),
                },
                None => self.found.broken(format!("tensor {name:?} has no entry in tensor_values")),
            },
            Argument::AsSymInt(_) => return Type::Int(self.scalar(&json.sym_int_values, name)),
            Argument::AsSymFloat(_) => return Type::Float(self.scalar(&json.sym_float_values, name)),
            Argument::AsSymBool(_) => return Type::Bool(self.scalar(&json.sym_bool_values, name)),
            Argument::AsCustomObj(_) => {
                return Type::Opaque(json.custom_obj_values.get(name).map_or("", |o| o.class_fqn.as_str()).into());
            }
            _ => {}
        }
        Type::None
    }

    fn scalar(&mut self, map: &BTreeMap<String, SymScalar>, name: &str) -> Expr {
        match map.get(name).map(dim) {
            Some(Ok(e)) => e,
            Some(Err(e)) => {
                self.found.broken(format!("{name}: {e}"));
                Expr::Int(0)
            }
            // Nothing is known of it but that it exists; its own name serves as its symbol.
            None => Symbol::new(name).map_or(Expr::Int(0), Expr::Sym),
        }
    }

    fn source(&mut self, meta: &model::Metadata) -> Option<Arc<Source>> {
        let (file, line, function) = innermost_frame(meta.stack_trace.as_deref()?)?;
        let module = meta.nn_module_stack.as_deref().map_or("", module_path);
        let key = format!("{file}\0{line}\0{function}\0{module}");
        Some(
            self.sources
                .entry(key)
                .or_insert_with(|| Arc::new(Source { file: file.into(), line, function: function.into(), module: module.into() }))
                .clone(),
        )
    }
}

/// A scalar for a list of fixed length stands for that many equal elements.
fn spread(arg: Arg, ty: &ArgType) -> Arg {
    match (ty.required(), &arg) {
        (ArgType::List(_, Some(n)), Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) | Arg::Value(_)) => {
            Arg::List(std::iter::repeat_n(arg, *n as usize).collect())
        }
        _ => arg,
    }
}

fn output_names(arg: &Argument) -> Vec<&str> {
    match arg {
        Argument::AsTensors(list) => list.iter().map(|n| n.name.as_str()).collect(),
        other => argument_name(other).into_iter().collect(),
    }
}

/// ExecuTorch's own files (schema 5) number the newer types differently (`pt2-format.md` §1.6).
pub(super) fn legacy_dtype(n: i64, major: i64) -> i64 {
    match (major, n) {
        (..=5, 14) => 28,
        (..=5, 15) => 30,
        (..=5, 16) => 29,
        _ => n,
    }
}

fn dim(s: &SymScalar) -> Result<Expr, String> {
    match s {
        SymScalar::AsInt(n) => Ok(Expr::Int(*n)),
        SymScalar::AsBool(b) => Ok(Expr::Bool(*b)),
        SymScalar::AsFloat(x) => Ok(Expr::Float(x.0.to_bits())),
        SymScalar::AsExpr(e) => Expr::parse(&e.expr_str),
    }
}

/// The type that a tensor's metadata gives.
pub(super) fn tensor_type(meta: &TensorMeta, major: i64) -> Result<TensorType, String> {
    let dtype = DType::from_pt2_code(legacy_dtype(meta.dtype, major)).ok_or_else(|| format!("{} is no element type", meta.dtype))?;
    let shape: Vec<Expr> = meta.sizes.iter().map(dim).collect::<Result<_, _>>()?;
    if let Some(n) = shape.iter().filter_map(Expr::as_int).find(|&n| n < 0) {
        return Err(format!("negative size {n}"));
    }
    let strides: Vec<Expr> = meta.strides.iter().map(dim).collect::<Result<_, _>>()?;
    let strides = (strides.len() == shape.len() && !row_major(&shape, &strides)).then_some(strides);
    Ok(TensorType { dtype, shape, strides })
}

/// Whether these are the strides of a row-major tensor; the stride of a dimension of size 1 does not matter.
fn row_major(shape: &[Expr], strides: &[Expr]) -> bool {
    if shape.contains(&Expr::Int(0)) {
        return true;
    }
    let mut expect = Expr::Int(1);
    for (n, s) in shape.iter().zip(strides).rev() {
        if *n == Expr::Int(1) {
            continue;
        }
        // torch writes Max(1, s) where a size could be zero.
        let plain = |e: &Expr| match e {
            Expr::Call(crate::sym::Func::Max, args) => match &args[..] {
                [Expr::Int(1), rest] => rest.clone(),
                _ => e.clone(),
            },
            _ => e.clone(),
        };
        if plain(s) != plain(&expect) {
            return false;
        }
        expect = expect.times(n);
    }
    true
}

/// File, line and function of the innermost frame of a Python stack trace, preferring the model's code to torch's own.
fn innermost_frame(trace: &str) -> Option<(&str, u32, &str)> {
    let frames = trace.lines().filter_map(|l| {
        let rest = l.trim_start().strip_prefix("File \"")?;
        let (file, rest) = rest.split_once("\", line ")?;
        let (line, function) = rest.split_once(", in ")?;
        Some((file, line.trim().parse().ok()?, function.trim()))
    });
    let mut last = None;
    for frame in frames {
        if !frame.0.contains("torch/fx/") && !frame.0.contains("/torch/nn/") && !frame.0.contains("/torch/_") {
            last = Some(frame);
        }
    }
    last
}

/// The dotted module path of the last entry of an `nn_module_stack`: entries `key,fqn,type` joined by `;`.
fn module_path(stack: &str) -> &str {
    let last = stack.rsplit(';').find(|e| !e.starts_with("_empty_nn_module_stack")).unwrap_or("");
    last.split(',').nth(1).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_own_line_is_named() {
        let trace = "  File \"train.py\", line 7, in main\n    m(x)\n  File \"/x/torch/nn/modules/linear.py\", line 9, in forward\n    y";
        assert_eq!(innermost_frame(trace), Some(("train.py", 7, "main")));
        assert_eq!(innermost_frame("no frames"), None);
    }

    #[test]
    fn module_paths_come_from_the_last_entry() {
        assert_eq!(module_path("L__self__,,M;L__self___l,l,torch.nn.Linear[a,b]"), "l");
        assert_eq!(module_path(""), "");
    }

    #[test]
    fn row_major_strides_are_recognised_under_symbols() {
        let e = |s: &str| Expr::parse(s).unwrap();
        assert!(row_major(&[e("2"), e("s0"), e("4")], &[e("4*s0"), e("4"), e("1")]));
        assert!(row_major(&[e("2"), e("s0")], &[e("Max(1, s0)"), e("1")]));
        assert!(!row_major(&[e("2"), e("3")], &[e("1"), e("2")]));
        assert!(row_major(&[e("1"), e("3")], &[e("77"), e("1")]));
    }
}
