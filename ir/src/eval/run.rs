//! Runs graphs and methods.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::call::{Argument, Call, Results};
use super::higher::autocasted;
use super::table::{Found, find};
use super::tensor::Tensor;
use super::{Error, Session, Value, bad, budget};
use crate::DType;
use crate::error::ErrorKind;
use crate::graph::{Arg, Graph, Node, Type, ValueId};
use crate::op::OpId;
use crate::program::{InputKind, Method, OutputKind, Program};

/// Runs a method of a program; see the [module page](super).
pub struct Evaluator<'p> {
    program: &'p Program,
    method: &'p Method,
    session: Session,
    /// Tensors of the program that are in memory, by input: those in use, and those that were written to.
    held: RefCell<BTreeMap<usize, Tensor>>,
}

/// The values of a graph while it runs.
struct Frame<'a> {
    values: Vec<Option<Value>>,
    /// Gives the values that nobody put there: the program's tensors.
    tensors: &'a dyn Fn(ValueId) -> Option<Result<Value, Error>>,
}

impl Frame<'_> {
    fn get(&mut self, v: ValueId) -> Result<Value, Error> {
        let slot = self.values.get_mut(v.index()).ok_or_else(|| bad("a value of another graph"))?;
        if slot.is_none() {
            *slot = (self.tensors)(v).transpose()?;
        }
        slot.clone().ok_or_else(|| bad("a value that is not there yet"))
    }

    fn argument<'g>(&mut self, arg: &'g Arg) -> Result<Argument<'g>, Error> {
        argument(arg, &mut |v| self.get(v))
    }
}

/// An argument with the values that `get` gives put in.
fn argument<'g>(arg: &'g Arg, get: &mut dyn FnMut(ValueId) -> Result<Value, Error>) -> Result<Argument<'g>, Error> {
    Ok(match arg {
        Arg::None => Argument::Value(Value::None),
        Arg::Value(v) => Argument::Value(get(*v)?),
        Arg::Int(n) => Argument::Value(Value::Int(*n)),
        Arg::Float(x) => Argument::Value(Value::Float(*x)),
        Arg::Bool(b) => Argument::Value(Value::Bool(*b)),
        Arg::Complex(a, b) => Argument::Complex([*a, *b]),
        Arg::Str(s) => Argument::Str(s.clone()),
        Arg::DType(d) => Argument::DType(*d),
        Arg::MemoryFormat(_) | Arg::Layout(_) | Arg::Device(_) => Argument::Ignored,
        Arg::List(items) => Argument::List(items.iter().map(|a| argument(a, get)).collect::<Result<_, _>>()?),
        Arg::Dict(items) => Argument::Dict(items.iter().map(|(k, a)| Ok((k.clone(), argument(a, get)?))).collect::<Result<_, Error>>()?),
        Arg::Op(op) => Argument::Op(*op),
        Arg::Graph(g) => Argument::Graph(g),
    })
}

/// Calls one operator with its arguments in the order of its schema; `value` gives the values among them. It may make some
/// four million elements, intermediate ones among them.
///
/// # Errors
/// [`ErrorKind::Evaluation`] for a value that is not there, an operator that is not known, what torch would refuse, and what would
/// take more memory or time than that.
pub fn call(op: OpId, args: &[Arg], value: &dyn Fn(ValueId) -> Option<Value>) -> Result<Vec<Value>, Error> {
    call_within(op, args, value, budget::CALL)
}

/// As [`call`], with another number of elements.
///
/// # Errors
/// As [`call`].
pub fn call_within(op: OpId, args: &[Arg], value: &dyn Fn(ValueId) -> Option<Value>, elements: u64) -> Result<Vec<Value>, Error> {
    let mut get = |v| value(v).ok_or_else(|| bad("a value that is not there yet"));
    let args = args.iter().map(|a| argument(a, &mut get)).collect::<Result<Vec<_>, _>>()?;
    budget::within(elements, || Session::default().call(op, args))
}

/// For each node in order the values that nothing reads after it.
fn last_uses(graph: &Graph) -> Vec<Vec<ValueId>> {
    let mut seen = vec![false; graph.value_bound()];
    let mut mark = |v: ValueId, list: Option<&mut Vec<ValueId>>| {
        if let Some(s) = seen.get_mut(v.index())
            && !std::mem::replace(s, true)
            && let Some(list) = list
        {
            list.push(v);
        }
    };
    graph.outputs().iter().for_each(|a| a.visit(&mut |v| mark(v, None)));
    let mut all: Vec<Vec<ValueId>> = Vec::new();
    for (_, node) in graph.nodes().collect::<Vec<_>>().into_iter().rev() {
        let mut list = Vec::new();
        node.outputs.iter().for_each(|v| mark(*v, Some(&mut list)));
        node.args.iter().for_each(|a| a.visit(&mut |v| mark(v, Some(&mut list))));
        all.push(list);
    }
    all.reverse();
    all
}

/// Fails if a value is not what the graph says it is.
fn check(ty: &Type, value: &Value) -> Result<(), Error> {
    let fits = match (ty, value) {
        (Type::Tensor(t), Value::Tensor(v)) => {
            let size = |(n, m): (&crate::sym::Dim, &usize)| n.as_int().is_none_or(|n| n == *m as i64);
            t.dtype == v.dtype() && t.rank() == v.rank() && t.shape.iter().zip(v.shape()).all(size)
        }
        (Type::Int(_), Value::Int(_)) | (Type::Float(_), Value::Float(_)) | (Type::Bool(_), Value::Bool(_)) => true,
        (Type::None | Type::Opaque(_), _) => true,
        // Python takes a boolean for an integer.
        (Type::Int(_), Value::Bool(_)) | (Type::Float(_), Value::Int(_) | Value::Bool(_)) => true,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let expected = match ty {
        Type::Tensor(t) => format!("{}{:?}", t.dtype, t.shape),
        other => format!("{other:?}"),
    };
    let found = match value {
        Value::Tensor(t) => format!("{}{:?}", t.dtype(), t.shape()),
        other => format!("{other:?}"),
    };
    Err(bad(format!("is {found}, the program says {expected}")))
}

/// Puts the results of a node where its outputs are. Absent results may be left out.
fn assign(graph: &Graph, node: &Node, results: Vec<Value>, frame: &mut Frame) -> Result<(), Error> {
    let present = |v: &&ValueId| *graph.ty(**v) != Type::None;
    let outputs: Vec<ValueId> = match results.len() {
        n if n == node.outputs.len() => node.outputs.clone(),
        n if n == node.outputs.iter().filter(present).count() => node.outputs.iter().filter(present).copied().collect(),
        n => return Err(bad(format!("gives {n} results, the program takes {}", node.outputs.len()))),
    };
    for (v, mut value) in outputs.into_iter().zip(results) {
        if let Value::Tensor(t) = &mut value {
            lay_out(graph, node, v, t)?;
        }
        // What nobody reads depends on which kernel computed the rest.
        if graph.value(v).use_count() > 0 {
            check(graph.ty(v), &value).map_err(|e| e.within(format!("result {}", graph.value(v).name)))?;
        }
        if let Some(slot) = frame.values.get_mut(v.index()) {
            *slot = Some(value);
        }
    }
    Ok(())
}

/// Puts a new tensor into the memory order that the exporter recorded: rules give row-major ones, and `as_strided` reads memory as it
/// lies. A view keeps the memory of what it is of, unless the call asks for a memory format.
fn lay_out(graph: &Graph, node: &Node, v: ValueId, t: &mut Tensor) -> Result<(), Error> {
    let Some(recorded) = graph.tensor(v).and_then(|ty| ty.strides.as_ref()) else { return Ok(()) };
    let strides: Option<Vec<usize>> = recorded.iter().map(|s| s.as_int().and_then(|s| usize::try_from(s).ok())).collect();
    let Some(strides) = strides.filter(|s| s.len() == t.rank() && s != t.strides()) else { return Ok(()) };
    let asked = node.args.iter().any(|a| matches!(a, Arg::MemoryFormat(_)));
    if t.is_alone() || asked {
        *t = t.laid_out(&strides)?;
    }
    Ok(())
}

impl Session {
    /// Calls an operator.
    pub(super) fn call(&self, op: OpId, args: Vec<Argument>) -> Results {
        let args = match self.autocast.get() {
            Some(d) => autocasted(&op.schema().name, args, d)?,
            None => args,
        };
        match find(op) {
            Some(Found::Rule(rule)) => rule(&Call::new(op, args, self)),
            // What `add` returns is written where `add_` works.
            Some(Found::InPlace(functional)) => {
                let target = args.first().and_then(Argument::as_tensor).cloned().ok_or_else(|| bad("nothing to write to"))?;
                match self.call(functional, args)?.as_slice() {
                    [Value::Tensor(new)] if new.shape() == target.shape() => target.write(new)?,
                    _ => return Err(bad("the result does not fit in place")),
                }
                Ok(vec![Value::Tensor(target)])
            }
            Some(Found::Same(other)) => self.call(other, args),
            Some(Found::Copied(view)) => self.call(view, args)?.iter().map(Value::copied).collect(),
            Some(Found::Functional(base)) => {
                let mut args = Call::new(base, args, self).args;
                let mut written = Vec::new();
                for i in base.schema().mutated_args() {
                    if let Some(Argument::Value(v)) = args.get_mut(i) {
                        *v = v.copied()?;
                        written.push(v.clone());
                    }
                }
                let mut results = self.call(base, args)?;
                results.extend(written);
                Ok(results)
            }
            None => Err(Error::new(ErrorKind::Unsupported, format!("the evaluator has no rule for {op}"))),
        }
    }

    /// Runs a graph.
    pub(super) fn run(&self, graph: &Graph, inputs: Vec<Value>) -> Results {
        if inputs.len() != graph.inputs().len() {
            return Err(bad(format!("a body of {} inputs got {}", graph.inputs().len(), inputs.len())));
        }
        let mut values = vec![None; graph.value_bound()];
        for (v, value) in graph.inputs().iter().zip(inputs) {
            if let Some(slot) = values.get_mut(v.index()) {
                *slot = Some(value);
            }
        }
        self.run_frame(graph, &mut Frame { values, tensors: &|_| None }, &mut |_| ())
    }

    /// Runs a graph whose inputs are in the frame; `dropped` hears of every value that is no longer needed.
    fn run_frame(&self, graph: &Graph, frame: &mut Frame, dropped: &mut dyn FnMut(ValueId)) -> Results {
        for ((_, node), done) in graph.nodes().zip(last_uses(graph)) {
            let mut step = || -> Result<(), Error> {
                let args = node.args.iter().map(|a| frame.argument(a)).collect::<Result<Vec<_>, _>>()?;
                let results = self.call(node.op, args)?;
                assign(graph, node, results, frame)
            };
            step().map_err(|e| e.within(place(node)))?;
            for v in done {
                if let Some(slot) = frame.values.get_mut(v.index()) {
                    *slot = None;
                }
                dropped(v);
            }
        }
        let output = |a: &Arg| match frame.argument(a)? {
            Argument::Value(v) => Ok(v),
            _ => Ok(Value::None),
        };
        graph.outputs().iter().map(output).collect()
    }
}

/// Where a node is, for messages.
fn place(node: &Node) -> String {
    match &node.source {
        Some(source) => format!("{} ({} at {source})", node.name, node.op),
        None => format!("{} ({})", node.name, node.op),
    }
}

impl<'p> Evaluator<'p> {
    /// An evaluator of a method, its buffers as they are in the program. Nothing is read yet.
    pub fn new(program: &'p Program, method: &'p Method) -> Self {
        Self { program, method, session: Session::default(), held: RefCell::default() }
    }

    /// Forgets what calls wrote to buffers and caches.
    pub fn reset(&mut self) {
        self.session.caches.take();
        self.held.take();
    }

    /// Makes the caches that the runtime holds (`kvcache.update_and_attend`) keep keys and values in this type, whatever comes in.
    pub fn hold_caches_in(&mut self, dtype: DType) {
        self.session.cache_type.set(Some(dtype));
    }

    /// The tensor behind an input of the program's.
    fn tensor(&self, input: usize, value: ValueId) -> Result<Tensor, Error> {
        if let Some(t) = self.held.borrow().get(&input) {
            return Ok(t.clone());
        }
        let weight = self.method.inputs.get(input).and_then(|i| i.kind.weight()).ok_or_else(|| bad("an input without a tensor"))?;
        let weight = self.program.weight(weight);
        let place = |e: Error| e.within(weight.name.to_string());
        let mut t = Tensor::read(&weight.data).map_err(place)?;
        check(self.method.graph.ty(value), &Value::Tensor(t.clone())).map_err(place)?;
        if let Some(strides) = self.method.graph.tensor(value).and_then(|t| t.strides.as_ref())
            && let Some(strides) = strides.iter().map(|s| s.as_int().and_then(|s| usize::try_from(s).ok())).collect::<Option<Vec<_>>>()
        {
            t = t.laid_out(&strides).map_err(place)?;
        }
        self.held.borrow_mut().insert(input, t.clone());
        Ok(t)
    }

    /// Makes a call. `inputs` has one value for every argument of the Python call in order: user inputs, and also those that export fixed,
    /// whose values are ignored. Gives what the Python call would return, flattened.
    ///
    /// Tensors given may be written to where the program does that, and what is returned may share storage with them and with the program's
    /// buffers, as in PyTorch.
    ///
    /// # Errors
    /// [`ErrorKind::Evaluation`] where PyTorch would raise: inputs of other types or sizes than the program takes, an index out of range, a
    /// failed assertion. [`ErrorKind::Unsupported`] for an operator without a rule, which is named, and for random ones. What reading weights may
    /// fail with. After an error, buffers are in an unspecified state; see [`Evaluator::reset`].
    pub fn call(&mut self, inputs: &[Value]) -> Results {
        let graph = &self.method.graph;
        let mut values = vec![None; graph.value_bound()];
        let mut given = inputs.iter();
        let mut input_of = BTreeMap::new();
        for (i, input) in self.method.inputs.iter().enumerate() {
            let next = match input.kind {
                InputKind::User | InputKind::Literal { .. } => {
                    Some(given.next().ok_or_else(|| bad(format!("got only {} inputs", inputs.len())))?)
                }
                InputKind::Token | InputKind::Object { .. } => Some(&Value::None),
                _ => None,
            };
            let Some(v) = input.value else { continue };
            match next {
                Some(value) => {
                    check(graph.ty(v), value).map_err(|e| e.within(format!("input {}", graph.value(v).name)))?;
                    if let Some(slot) = values.get_mut(v.index()) {
                        *slot = Some(value.clone());
                    }
                }
                None => {
                    input_of.insert(v, i);
                }
            }
        }
        if given.next().is_some() {
            return Err(bad(format!("got {} inputs, more than the method takes", inputs.len())));
        }
        let read = |v: ValueId| input_of.get(&v).map(|i| self.tensor(*i, v).map(Value::Tensor));
        let mut release = |v: ValueId| {
            let mut held = self.held.borrow_mut();
            if let Some(i) = input_of.get(&v)
                && held.get(i).is_some_and(|t| !t.written() && t.is_alone())
            {
                held.remove(i);
            }
        };
        let results = self.session.run_frame(graph, &mut Frame { values, tensors: &read }, &mut release)?;
        self.held.borrow_mut().retain(|_, t| t.written());
        self.finish(results, inputs)
    }

    /// Takes new values of state and inputs out of the results.
    fn finish(&self, results: Vec<Value>, inputs: &[Value]) -> Results {
        // All are copied before any is written: one's new value may be another's old one.
        let mut written = Vec::new();
        let mut returned = Vec::new();
        for (kind, value) in self.method.outputs.iter().zip(results) {
            match kind {
                OutputKind::User => returned.push(value),
                OutputKind::StateMutation(i) => written.push((*i as usize, value.copied()?, true)),
                OutputKind::InputMutation(i) => written.push((*i as usize, value.copied()?, false)),
                OutputKind::Token => {}
            }
        }
        for (input, value, state) in written {
            let Value::Tensor(new) = value else { return Err(bad("a new state that is no tensor")) };
            if state {
                // Counts as written: it outlives the call.
                new.write(&new)?;
                self.held.borrow_mut().insert(input, new);
                continue;
            }
            let takes = |k: &InputKind| matches!(k, InputKind::User | InputKind::Literal { .. });
            let number = self.method.inputs.iter().take(input).filter(|i| takes(&i.kind)).count();
            match inputs.get(number) {
                Some(Value::Tensor(t)) => t.write(&new)?,
                _ => return Err(bad(format!("input {number} is no tensor and cannot be written to"))),
            }
        }
        Ok(returned)
    }
}
