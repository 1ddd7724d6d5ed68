//! From delegates and the method around them to what the writer takes.

use std::collections::{BTreeMap, HashMap};

use etx_ir::graph::{Arg, TensorType, Type, ValueId};
use etx_ir::program::{InputKind, Method, OutputKind, Program, WeightId};
use etx_ir::sym::Expr;
use etx_partitioner::backend::{Delegate, Payload};
use etx_serializer::emit;

use crate::lower::{Error, SeparateState, Unbounded};

/// Sizes of the inputs that have no upper bound, each once.
pub(crate) fn unbounded(method: &Method) -> Vec<Unbounded> {
    let mut found: Vec<Unbounded> = Vec::new();
    for &input in method.graph.inputs() {
        let Some(t) = method.graph.tensor(input) else { continue };
        for (dim, size) in t.shape.iter().enumerate() {
            size.visit_symbols(&mut |s| {
                let symbol = s.to_string();
                if method.ranges.of(s).max.is_none() && found.iter().all(|f| f.symbol != symbol) {
                    let input = method.graph.value(input).name.to_string();
                    found.push(Unbounded { method: method.name.to_string(), input, dim, symbol });
                }
            });
        }
    }
    found
}

/// State that a method writes to and other methods have, too.
pub(crate) fn separate_state(program: &Program) -> Vec<SeparateState> {
    let mut found = BTreeMap::<WeightId, (Vec<String>, Vec<String>)>::new();
    for method in &program.methods {
        for (i, input) in method.inputs.iter().enumerate() {
            let weight = match input.kind {
                InputKind::Buffer { weight, .. } | InputKind::Parameter(weight) => weight,
                _ => continue,
            };
            let written = method.outputs.iter().any(|o| matches!(o, OutputKind::StateMutation(n) if *n as usize == i));
            let (writers, readers) = found.entry(weight).or_default();
            if written { writers } else { readers }.push(method.name.to_string());
        }
    }
    let apart = found.into_iter().filter(|(_, (writers, readers))| !writers.is_empty() && writers.len() + readers.len() > 1);
    apart.map(|(weight, (writers, readers))| SeparateState { name: program.weight(weight).name.to_string(), writers, readers }).collect()
}

/// Describes one method, all of whose nodes are in delegates; sizes without an upper bound are taken to be at most `max_size`.
pub(crate) fn method(program: &Program, method: &Method, delegates: &[Delegate], max_size: u32) -> Result<emit::Method, Error> {
    let mut results = HashMap::new();
    for (delegate, d) in delegates.iter().enumerate() {
        for (output, &v) in d.outputs.iter().enumerate() {
            results.entry(v).or_insert((delegate, output));
        }
    }
    let mut wiring = Wiring { program, method, results, constants: Vec::new(), max_size: max_size.into() };
    let mut inputs = Vec::new();
    for input in &method.inputs {
        match &input.kind {
            InputKind::User => inputs.push(wiring.input(input.value)?),
            InputKind::Literal { value, .. } => inputs.push(match value {
                Arg::Int(n) => emit::Input::Int(*n),
                Arg::Float(x) => emit::Input::Float(*x),
                Arg::Bool(b) => emit::Input::Bool(*b),
                _ => emit::Input::Null,
            }),
            _ => {}
        }
    }
    let mut described = Vec::new();
    for delegate in delegates {
        let payload = match &delegate.payload {
            Payload::Mlx(p) => etx_serializer::mlx::encode(p)?,
            Payload::Bytes(b) => b.clone(),
        };
        described.push(emit::Delegate {
            backend: delegate.backend.to_owned(),
            compile_specs: Vec::new(),
            payload,
            inputs: delegate.inputs.iter().map(|&v| wiring.operand(v)).collect::<Result<_, _>>()?,
            outputs: delegate.outputs.iter().map(|&v| wiring.output(v)).collect::<Result<_, _>>()?,
        });
    }
    let (mut outputs, mut mutations) = (Vec::new(), Vec::new());
    for (arg, kind) in method.graph.outputs().iter().zip(&method.outputs) {
        match kind {
            OutputKind::User => outputs.push(wiring.arg(arg)?),
            OutputKind::InputMutation(i) => {
                mutations.push(emit::Mutation { input: wiring.user_input(*i as usize), value: wiring.arg(arg)? })
            }
            OutputKind::StateMutation(_) | OutputKind::Token => {}
        }
    }
    Ok(emit::Method {
        name: method.name.to_string(),
        inputs,
        constants: wiring.constants,
        delegates: described,
        mutations,
        outputs,
        encoded_inp_str: method.in_spec.to_string(),
        encoded_out_str: method.out_spec.to_string(),
    })
}

struct Wiring<'a> {
    program: &'a Program,
    method: &'a Method,
    /// What delegates give: which, and at which place.
    results: HashMap<ValueId, (usize, usize)>,
    constants: Vec<etx_ir::weights::TensorData>,
    max_size: i64,
}

impl Wiring<'_> {
    /// Number of a method input among those that the caller passes.
    fn user_input(&self, at: usize) -> usize {
        let passed = |k: &InputKind| matches!(k, InputKind::User | InputKind::Literal { .. });
        self.method.inputs.iter().take(at).filter(|i| passed(&i.kind)).count()
    }

    fn input(&self, value: Option<ValueId>) -> Result<emit::Input, Error> {
        Ok(match value.map(|v| self.method.graph.ty(v)) {
            Some(Type::Tensor(t)) => emit::Input::Tensor(self.spec(t)?),
            // Left open at export. The runtime of ExecuTorch cannot take any but the value in the file; etx's can.
            Some(Type::Int(_)) => emit::Input::Int(0),
            Some(Type::Float(_)) => emit::Input::Float(0.0),
            Some(Type::Bool(_)) => emit::Input::Bool(false),
            _ => emit::Input::Null,
        })
    }

    fn output(&self, v: ValueId) -> Result<emit::DelegateOutput, Error> {
        match self.method.graph.ty(v) {
            Type::Tensor(t) => Ok(emit::DelegateOutput::Tensor(self.spec(t)?)),
            _ => Ok(emit::DelegateOutput::Int),
        }
    }

    fn spec(&self, t: &TensorType) -> Result<emit::TensorSpec, Error> {
        let mut sizes = Vec::new();
        let mut dynamic = false;
        for d in &t.shape {
            dynamic |= d.as_int().is_none();
            sizes.push(self.upper_bound(d));
        }
        Ok(if dynamic { emit::TensorSpec::up_to(t.dtype, sizes) } else { emit::TensorSpec::fixed(t.dtype, sizes) })
    }

    /// The largest size, with unbounded symbols at `max_size`.
    fn upper_bound(&self, d: &Expr) -> u64 {
        let bounds = self.method.ranges.bounds(d);
        let most = bounds.max.or_else(|| {
            let mut capped = self.method.ranges.clone();
            d.visit_symbols(&mut |s| {
                let mut r = capped.of(s);
                r.max = r.max.or(Some(self.max_size.max(r.min.unwrap_or(0))));
                capped.0.insert(s.clone(), r);
            });
            capped.bounds(d).max
        });
        u64::try_from(most.unwrap_or(self.max_size).max(0)).unwrap_or(0)
    }

    fn arg(&mut self, arg: &Arg) -> Result<emit::Value, Error> {
        Ok(match arg {
            Arg::Value(v) => self.value(*v)?,
            Arg::Int(n) => emit::Value::Int(*n),
            Arg::Float(x) => emit::Value::Float(*x),
            Arg::Bool(b) => emit::Value::Bool(*b),
            _ => emit::Value::None,
        })
    }

    /// A value that the caller gets: from a delegate if one gives it.
    fn value(&mut self, v: ValueId) -> Result<emit::Value, Error> {
        if let Some(&(delegate, output)) = self.results.get(&v) {
            return Ok(emit::Value::Result { delegate, output });
        }
        match self.given(v) {
            Some(value) => Ok(value),
            None => Err(Error::internal(format!("value %{} is computed by no delegate", self.method.graph.value(v).name))),
        }
    }

    /// A value that a delegate gets. What the caller gives comes from the caller, even if the delegate also returns it (as new state that
    /// is returned, too).
    fn operand(&mut self, v: ValueId) -> Result<emit::Value, Error> {
        match self.given(v) {
            Some(value) => Ok(value),
            None => self.value(v),
        }
    }

    /// An input of the method.
    fn given(&mut self, v: ValueId) -> Option<emit::Value> {
        let at = self.method.input_of(v)?;
        match &self.method.inputs[at].kind {
            InputKind::User => Some(emit::Value::Input(self.user_input(at))),
            kind => {
                self.constants.push(self.program.weight(kind.weight()?).data.clone());
                Some(emit::Value::Constant(self.constants.len() - 1))
            }
        }
    }
}
