//! From delegates and the method around them to what the writer takes.

use std::collections::{BTreeMap, HashMap};

use etx_emit as emit;
use etx_ir::conditions::{self, Conditions};
use etx_ir::graph::{Arg, TensorType, Type, ValueId};
use etx_ir::program::{InputKind, Method, OutputKind, Program, WeightId};
use etx_ir::sym::{Expr, Ranges, Symbol};
use etx_ir::weights::TensorData;
use etx_partitioner::backend::{Delegate, Payload};
use etx_serializer::pte::NamedBlob;

use crate::lower::{Error, Fixed, SeparateState, Unbounded};

/// What the inputs of a method must satisfy, to be stored beside it.
pub(crate) fn conditions(method: &Method, max_size: u32) -> Result<Option<NamedBlob>, Error> {
    let Some(conditions) = Conditions::of(method, max_size.into()) else { return Ok(None) };
    let text = conditions.to_text().into_bytes();
    let data = TensorData::inline(etx_ir::DType::UInt8, vec![text.len() as u64], text)?;
    Ok(Some(NamedBlob { key: conditions::key(&method.name), data, alignment: 1 }))
}

/// Integers, numbers and booleans among the inputs, of which the runtime of ExecuTorch takes one value only.
pub(crate) fn fixed(method: &Method) -> Vec<Fixed> {
    let given = method.inputs.iter().filter(|i| matches!(i.kind, InputKind::User | InputKind::Literal { .. }));
    let fixed = given.enumerate().filter_map(|(number, input)| {
        let (value, open) = match &input.kind {
            InputKind::Literal { value: Arg::Int(n), .. } => (n.to_string(), false),
            InputKind::Literal { value: Arg::Float(x), .. } => (format!("{x:?}"), false),
            InputKind::Literal { value: Arg::Bool(b), .. } => (b.to_string(), false),
            _ => match method.graph.ty(input.value?) {
                Type::Int(e) => (placeholder(method, e).to_string(), true),
                Type::Float(_) => ("0.0".to_owned(), true),
                Type::Bool(_) => ("false".to_owned(), true),
                _ => return None,
            },
        };
        let name = match &input.kind {
            InputKind::Literal { name, .. } => name.to_string(),
            _ => input.value.map_or_else(String::new, |v| method.graph.value(v).name.to_string()),
        };
        let input = if name.is_empty() { format!("input_{number}") } else { name };
        Some(Fixed { method: method.name.to_string(), input, value, open })
    });
    fixed.collect()
}

/// What a file says in the place of an integer that is left open: the value in its range that is closest to 0.
fn placeholder(method: &Method, e: &Expr) -> i64 {
    let range = method.ranges.bounds(e);
    0.max(range.min.unwrap_or(0)).min(range.max.unwrap_or(i64::MAX))
}

/// Sizes of the inputs that have no upper bound, each once, with what planning for `max_size` of them costs.
pub(crate) fn unbounded(program: &Program, method: &Method, delegates: &[Delegate], max_size: u32) -> Result<Vec<Unbounded>, Error> {
    let mut found = open_sizes(method);
    if delegates.is_empty() {
        return Ok(found);
    }
    let max_size = max_size.into();
    let capped = capped(method, max_size);
    let planned = |ranges: Ranges| -> Result<u64, Error> {
        Ok(emit::planned_bytes(describe(program, method, delegates, ranges, max_size, &|_| Ok(Vec::new()))?)?)
    };
    let all = if found.is_empty() { 0 } else { planned(capped.clone())? };
    for open in &mut found {
        // Half as many elements tell what one costs.
        let mut fewer = capped.clone();
        let Some(range) = Symbol::new(&open.symbol).and_then(|s| fewer.0.get_mut(&s)) else { continue };
        let most = range.max.unwrap_or(0);
        let half = (most / 2).max(range.min.unwrap_or(0));
        range.max = Some(half);
        open.planned_for = u64::try_from(most).unwrap_or(0);
        open.planned_bytes = all;
        let saved = all.saturating_sub(planned(fewer)?);
        open.bytes_per_element = saved.checked_div(u64::try_from(most.saturating_sub(half)).unwrap_or(0)).unwrap_or(0);
    }
    Ok(found)
}

/// The bounds of a method's symbols, with `max_size` where there is no upper bound.
fn capped(method: &Method, max_size: i64) -> Ranges {
    let mut capped = method.ranges.clone();
    for &input in method.graph.inputs() {
        let Some(t) = method.graph.tensor(input) else { continue };
        for d in &t.shape {
            d.visit_symbols(&mut |s| cap(&mut capped, s, max_size));
        }
    }
    capped
}

/// Gives a symbol an upper bound if it has none.
fn cap(ranges: &mut Ranges, s: &Symbol, max_size: i64) {
    let mut range = ranges.of(s);
    range.max = range.max.or(Some(max_size.max(range.min.unwrap_or(0))));
    ranges.0.insert(s.clone(), range);
}

fn open_sizes(method: &Method) -> Vec<Unbounded> {
    let mut found: Vec<Unbounded> = Vec::new();
    for &input in method.graph.inputs() {
        let Some(t) = method.graph.tensor(input) else { continue };
        for (dim, size) in t.shape.iter().enumerate() {
            size.visit_symbols(&mut |s| {
                let symbol = s.to_string();
                if method.ranges.of(s).max.is_none() && found.iter().all(|f| f.symbol != symbol) {
                    let input = method.graph.value(input).name.to_string();
                    let method = method.name.to_string();
                    found.push(Unbounded { method, input, dim, symbol, planned_for: 0, planned_bytes: 0, bytes_per_element: 0 });
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
    let max_size = max_size.into();
    describe(program, method, delegates, capped(method, max_size), max_size, &|payload| match payload {
        Payload::Mlx(p) => Ok(etx_serializer::mlx::encode(p)?),
        Payload::Bytes(b) => Ok(b.clone()),
    })
}

/// As [`method`], with given bounds of symbols.
fn describe(
    program: &Program,
    method: &Method,
    delegates: &[Delegate],
    ranges: Ranges,
    max_size: i64,
    encode: &dyn Fn(&Payload) -> Result<Vec<u8>, Error>,
) -> Result<emit::Method, Error> {
    let mut results = HashMap::new();
    for (delegate, d) in delegates.iter().enumerate() {
        for (output, &v) in d.outputs.iter().enumerate() {
            results.entry(v).or_insert((delegate, output));
        }
    }
    let mut wiring = Wiring { program, method, results, constants: Vec::new(), ranges, max_size };
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
        described.push(emit::Delegate {
            backend: delegate.backend.to_owned(),
            compile_specs: Vec::new(),
            payload: encode(&delegate.payload)?,
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
    constants: Vec<TensorData>,
    /// Bounds of the symbols, upper ones of sizes included.
    ranges: Ranges,
    /// Upper bound of sizes that only the program itself knows.
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
            Some(Type::Int(e)) => emit::Input::Int(placeholder(self.method, e)),
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
        let most = self.ranges.bounds(d).max.or_else(|| {
            let mut capped = self.ranges.clone();
            d.visit_symbols(&mut |s| cap(&mut capped, s, self.max_size));
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
