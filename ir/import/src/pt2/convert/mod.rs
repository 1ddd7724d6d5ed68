//! From the JSON of an exported program to a [`Method`].
//!
//! Everything that is wrong is collected before giving up, so that one run tells all.

mod arguments;
mod findings;
mod scope;
pub(super) mod types;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::model::{self, Argument, InputSpec, OutputSpec, SymArgument};
use super::saved::Stored;
use super::stores::WeightSource;
use super::subclass::Wrapped;
use etx_ir::DType;
use etx_ir::conditions::Guard;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Arg, Graph, TensorType};
use etx_ir::program::{Dialect, Input, InputKind, Method, OutputKind, Program, WeightId};
use etx_ir::sym::{Expr, Range, Ranges};
use etx_ir::weights::TensorData;
use findings::Findings;
use scope::{Given, Named, Names, Scope};

/// Adds a program's only graph to `program` as a method.
///
/// # Errors
/// What is wrong, all findings of one kind at once.
pub(super) fn method(program: &mut Program, name: &str, json: model::ExportedProgram, weights: &dyn WeightSource) -> Result<(), Error> {
    let dialect = dialect(&json)?;
    let (signature, source) = (&json.graph_module.signature, &json.graph_module.graph);
    if signature.input_specs.len() != source.inputs.len() || signature.output_specs.len() != source.outputs.len() {
        let counts = [signature.input_specs.len(), signature.output_specs.len(), source.inputs.len(), source.outputs.len()];
        let [a, b, c, d] = counts;
        return Err(Error::new(ErrorKind::Format, format!("the signature has {a} inputs and {b} outputs, the graph {c} and {d}")));
    }
    let mut found = Findings::default();
    let mut slots = slots(&json, weights, &mut found);
    order_parts(&mut slots);
    let given: Vec<Given> = slots.iter().map(|s| s.given.clone()).collect();
    let (graph, names) = Scope::new(source, json.schema_version.major, &mut found).build(&given);
    let mut inputs = Inputs {
        program,
        graph: &graph,
        names: &names,
        found: &mut found,
        list: Vec::new(),
        state: HashMap::new(),
        stored: HashMap::new(),
    };
    slots.into_iter().for_each(|slot| inputs.add(slot));
    let outputs = inputs.output_kinds(&signature.output_specs);
    let inputs = inputs.list;
    found.finish()?;
    let root = json.graph_module.module_call_graph.iter().find(|m| m.fqn.is_empty()).and_then(|m| m.signature.as_ref());
    let (in_spec, out_spec) = root.map_or(("", ""), |s| (&s.in_spec, &s.out_spec));
    let ranges = ranges(&json.range_constraints);
    let guards = json.guards_code.iter().flatten().map(|text| Guard::read(text, &graph, &inputs)).collect();
    let method =
        Method { name: name.into(), graph, inputs, outputs, ranges, guards, dialect, in_spec: in_spec.into(), out_spec: out_spec.into() };
    program.methods.push(method);
    Ok(())
}

fn dialect(json: &model::ExportedProgram) -> Result<Dialect, Error> {
    let dialects: Vec<&str> = json.verifiers.iter().map(String::as_str).chain(json.dialect.as_deref()).collect();
    if let Some(other) = dialects.iter().find(|d| !matches!(**d, "TRAINING" | "ATEN" | "EDGE" | "")) {
        return Err(Error::new(ErrorKind::Version, format!("dialect {other:?}; TRAINING, ATEN and EDGE are read")));
    }
    // Schema 7 programs are functional whatever they are called; TRAINING came with 8.
    Ok(if dialects.contains(&"TRAINING") { Dialect::Training } else { Dialect::Functional })
}

fn ranges(constraints: &BTreeMap<String, model::RangeConstraint>) -> Ranges {
    let mut ranges = Ranges::default();
    for (key, r) in constraints {
        let (min, max) = (r.min_val.as_ref().and_then(|b| b.0), r.max_val.as_ref().and_then(|b| b.0));
        // Keys such as `2*s0` follow from the range of the symbol itself.
        if let Ok(Expr::Sym(s)) = Expr::parse(key) {
            ranges.0.insert(s, Range { min, max: max.filter(|&m| m < i64::MAX / 2) });
        }
    }
    ranges
}

/// An input of the program on its way to be one of the method.
struct Slot<'a> {
    spec: &'a InputSpec,
    given: Given<'a>,
    /// Its data if it is a weight; `None` if there is something wrong with them.
    stored: Option<Stored>,
}

/// The name under which a weight is stored, and whether in the state dict.
fn weight_name(spec: &InputSpec) -> Option<(&str, bool)> {
    match spec {
        InputSpec::Parameter { parameter_name: n } => Some((n, true)),
        InputSpec::Buffer { buffer_name: n, persistent } => Some((n, *persistent)),
        InputSpec::TensorConstant { tensor_constant_name: n } => Some((n, false)),
        _ => None,
    }
}

/// The inputs with what is stored for them.
fn slots<'a>(json: &'a model::ExportedProgram, weights: &dyn WeightSource, found: &mut Findings) -> Vec<Slot<'a>> {
    let (signature, graph) = (&json.graph_module.signature, &json.graph_module.graph);
    // Looked at only if there is a pickled weight.
    let mut used: Option<HashSet<&str>> = None;
    let mut slots = Vec::with_capacity(graph.inputs.len());
    for (spec, arg) in signature.input_specs.iter().zip(&graph.inputs) {
        let mut slot = Slot { spec, given: Given::One(arg), stored: None };
        if let Some((fqn, persistent)) = weight_name(spec) {
            if weights.is_pickled(fqn, persistent) {
                let used = used.get_or_insert_with(|| used_names(graph));
                // torch keeps a second, dead copy of tied weights.
                if argument_name(arg).is_some_and(|n| !used.contains(n)) {
                    continue;
                }
            }
            match weights.weight(fqn, persistent) {
                Ok(Stored::Wrapped(w)) => {
                    slot.given = Given::Parts { name: arg, fqn: fqn.into(), wrapped: Arc::new(w.clone()) };
                    slot.stored = Some(Stored::Wrapped(w));
                }
                Ok(plain) => slot.stored = Some(plain),
                Err(e) => found.weight(fqn, e),
            }
        }
        slots.push(slot);
    }
    slots
}

/// Moves the parts of parameters behind all other parameters of their module and of the modules inside it: torch makes the
/// parts a module of their own, the last one inside.
fn order_parts(slots: &mut [Slot]) {
    let parameter = |s: &Slot| match s.spec {
        InputSpec::Parameter { parameter_name } => Some((parameter_name.clone(), matches!(s.given, Given::Parts { .. }))),
        _ => None,
    };
    let module = |fqn: &str| fqn.rsplit_once('.').map_or(String::new(), |(m, _)| format!("{m}."));
    for at in (0..slots.len()).rev() {
        let Some((fqn, true)) = slots.get(at).and_then(parameter) else { continue };
        let own = module(&fqn);
        let passes = |s: &&Slot| parameter(s).is_some_and(|(n, parts)| n.starts_with(&own) && !(parts && module(&n) == own));
        let behind = slots.iter().skip(at + 1).take_while(passes).count();
        if let Some(run) = slots.get_mut(at..=at + behind) {
            run.rotate_left(1);
        }
    }
}

/// Names of values that anything in the graph uses.
fn used_names(graph: &model::Graph) -> HashSet<&str> {
    let mut used = HashSet::new();
    let arguments = graph.nodes.iter().flat_map(|n| n.inputs.iter().map(|i| &i.arg)).chain(&graph.outputs);
    arguments.for_each(|a| arguments::names(a, &mut |name| _ = used.insert(name)));
    used
}

struct Inputs<'a, 'p> {
    program: &'p mut Program,
    graph: &'a Graph,
    names: &'a Names<'a>,
    found: &'a mut Findings,
    list: Vec<Input>,
    /// Which input holds the parameter or buffer of this name.
    state: HashMap<&'a str, usize>,
    stored: HashMap<String, WeightId>,
}

impl<'a> Inputs<'a, '_> {
    fn add(&mut self, slot: Slot<'a>) {
        let (arg, stored) = match slot.given {
            Given::One(arg) => (arg, slot.stored),
            Given::Parts { name, .. } => return self.add_parts(slot.spec, name, slot.stored),
        };
        let value = argument_name(arg).and_then(|n| self.names.get(n)).and_then(Named::value);
        let kind = match slot.spec {
            InputSpec::UserInput(_) => match literal(arg) {
                Some(value) => InputKind::Literal { name: "".into(), value },
                None => InputKind::User,
            },
            InputSpec::ConstantInput { name } => {
                InputKind::Literal { name: name.as_str().into(), value: literal(arg).unwrap_or(Arg::None) }
            }
            InputSpec::Token(_) => InputKind::Token,
            InputSpec::CustomObj { custom_obj_name } => {
                let class = match arg {
                    Argument::AsCustomObj(o) => o.class_fqn.as_str(),
                    _ => "",
                };
                InputKind::Object { name: custom_obj_name.as_str().into(), class: class.into() }
            }
            weight => {
                let Some((fqn, _)) = weight_name(weight) else { return };
                self.state.insert(fqn, self.list.len());
                // What is wrong with it has been said.
                let Some(Stored::Plain(data)) = stored else { return };
                let fitting = match value.and_then(|v| self.graph.tensor(v)) {
                    Some(t) => fits(t, data.dtype(), data.shape()),
                    None => Err(Error::new(ErrorKind::Weight, "not a tensor in the graph")),
                };
                match fitting {
                    Ok(()) => weight_kind(weight, self.weight(fqn, data)),
                    Err(e) => return self.found.weight(fqn, e),
                }
            }
        };
        self.list.push(Input { value, kind });
    }

    fn add_parts(&mut self, spec: &InputSpec, name: &Argument, stored: Option<Stored>) {
        let parts = argument_name(name).and_then(|n| self.names.get(n)).and_then(Named::parts);
        let (Some((fqn, _)), Some(parts), Some(Stored::Wrapped(wrapped))) = (weight_name(spec), parts, stored) else { return };
        for (i, (value, (_, data))) in parts.values().zip(wrapped.tensors).enumerate() {
            let weight = self.weight(&Wrapped::inner_name(fqn, i), data);
            self.list.push(Input { value: Some(value), kind: weight_kind(spec, weight) });
        }
    }

    /// The weight of this name: one, however many inputs it has.
    fn weight(&mut self, fqn: &str, data: TensorData) -> WeightId {
        *self.stored.entry(fqn.to_owned()).or_insert_with(|| self.program.add_weight(fqn, data))
    }

    /// What the outputs stand for.
    fn output_kinds(&mut self, specs: &[OutputSpec]) -> Vec<OutputKind> {
        let mut kinds = Vec::with_capacity(specs.len());
        for spec in specs {
            let target = match spec {
                // A training step gives its loss and gradients as others give results.
                OutputSpec::UserOutput(_)
                | OutputSpec::LossOutput(_)
                | OutputSpec::GradientToParameter(_)
                | OutputSpec::GradientToUserInput(_) => Ok(OutputKind::User),
                OutputSpec::Token(_) => Ok(OutputKind::Token),
                OutputSpec::BufferMutation { buffer_name: n } | OutputSpec::ParameterMutation { parameter_name: n } => self
                    .state
                    .get(n.as_str())
                    .map(|&i| OutputKind::StateMutation(i as u32))
                    .ok_or_else(|| format!("mutation of unknown state {n:?}")),
                OutputSpec::UserInputMutation { user_input_name: n } => {
                    let value = self.names.get(n.as_str()).and_then(Named::value);
                    let input = value.and_then(|v| self.list.iter().position(|i| i.value == Some(v)));
                    input.map(|i| OutputKind::InputMutation(i as u32)).ok_or_else(|| format!("mutation of unknown input {n:?}"))
                }
            };
            match target {
                Ok(kind) => kinds.push(kind),
                // The inputs are not all there when something is wrong with the weights.
                Err(_) if self.found.any_weight() => {}
                Err(e) => self.found.broken(e),
            }
        }
        kinds
    }
}

fn weight_kind(spec: &InputSpec, weight: WeightId) -> InputKind {
    match spec {
        InputSpec::Buffer { persistent, .. } => InputKind::Buffer { weight, persistent: *persistent },
        InputSpec::TensorConstant { .. } => InputKind::Constant(weight),
        _ => InputKind::Parameter(weight),
    }
}

/// Whether what is stored is what the graph says it is.
fn fits(t: &TensorType, dtype: DType, shape: &[u64]) -> Result<(), Error> {
    let sizes: Option<Vec<u64>> = t.shape.iter().map(|d| d.as_int().and_then(|n| u64::try_from(n).ok())).collect();
    if t.dtype == dtype && sizes.as_deref() == Some(shape) {
        return Ok(());
    }
    let what = format!("{}{:?} in the graph but {dtype}{shape:?} where it is stored", t.dtype, t.shape);
    Err(Error::new(ErrorKind::Weight, what).help("graph and weights are of different exports; export both again together"))
}

fn argument_name(arg: &Argument) -> Option<&str> {
    match arg {
        Argument::AsTensor(n) => Some(&n.name),
        Argument::AsSymInt(SymArgument::AsName(n))
        | Argument::AsSymFloat(SymArgument::AsName(n))
        | Argument::AsSymBool(SymArgument::AsName(n)) => Some(n),
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
