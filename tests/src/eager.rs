//! Programs evaluated as they are, without lowering: what every lowered program is compared with must itself agree with PyTorch.

use std::collections::BTreeMap;
use std::time::Instant;

use etx::import::pt2;
use etx::ir::DType;
use etx::ir::conditions::{Conditions, Given};
use etx::ir::eval::{self, Evaluator};
use etx::ir::graph::Type;
use etx::ir::program::{InputKind, Method, Program};

use crate::case::{Case, Kind, Step, Value};
use crate::check::{Outcome, Stage, Variant, agree};
use crate::driver::TYPES;
use crate::tensor::Tensor;

/// Evaluate a case in each form that its programs have.
pub fn evaluate(case: &Case) -> Vec<Outcome> {
    let calls = case.steps();
    let functional = case.methods.values().any(|m| m.functional_program.is_some());
    let variants = [Some(Variant::Program), functional.then_some(Variant::Functional)];
    let outcome = |variant| {
        let mut outcome = Outcome::new(variant);
        match &calls {
            Ok(calls) => run(case, calls, &mut outcome),
            Err(e) => outcome.fail(Stage::Case, e),
        }
        outcome
    };
    variants.into_iter().flatten().map(outcome).collect()
}

fn run(case: &Case, calls: &BTreeMap<String, Vec<Step>>, outcome: &mut Outcome) {
    for (name, steps) in calls {
        let Some(entry) = case.methods.get(name) else { continue };
        let functional = entry.functional_program.as_ref().filter(|_| outcome.variant == Variant::Functional);
        let program = match pt2::load(case.file(functional.unwrap_or(&entry.program))) {
            Ok(program) => program,
            Err(e) => {
                outcome.fail(Stage::Open, format!("{name}: {e}"));
                continue;
            }
        };
        let Some(method) = program.methods.first() else {
            outcome.fail(Stage::Open, format!("{name}: a program without methods"));
            continue;
        };
        let mut evaluator = Evaluator::new(&program, method);
        if let Some(dtype) = case.cache_dtype().and_then(DType::from_et_code) {
            evaluator.hold_caches_in(dtype);
        }
        // The evaluator takes any call; of those that may be refused, only what the program was exported for counts.
        let conditions = if case.or_refused { Conditions::of(method, i64::MAX) } else { None };
        for (number, step) in steps.iter().enumerate() {
            if conditions.as_ref().is_some_and(|c| c.check(&step.inputs.iter().map(given).collect::<Vec<_>>()).is_err()) {
                continue;
            }
            let place = format!("{name}, call {number}");
            let start = Instant::now();
            let outputs = call(&mut evaluator, method, step);
            outcome.run_seconds += start.elapsed().as_secs_f64();
            match outputs {
                Ok(outputs) => agree(case, &place, &outputs, &step.expected, outcome),
                Err(e) => {
                    outcome.fail(Stage::Run, format!("{place}: {e}"));
                    break; // the state is not what the next call expects
                }
            }
        }
    }
}

fn given(value: &Value) -> Given<'_> {
    match (value.kind, &value.tensor) {
        (Kind::Int, Some(t)) => t.bytes.as_slice().try_into().map_or(Given::Other, |b| Given::Number(i64::from_le_bytes(b))),
        (Kind::Tensor, Some(t)) => Given::Sizes(&t.shape),
        _ => Given::Other,
    }
}

/// One call. As from ExecuTorch's runtime, tensors of the caller's that the program writes to come before its own results.
fn call(evaluator: &mut Evaluator<'_>, method: &Method, step: &Step) -> Result<Vec<Value>, String> {
    let Answer { outputs, inputs } = answer(evaluator, method, &step.inputs)?;
    if outputs.len() >= step.expected.len() {
        return Ok(outputs);
    }
    let written = inputs.into_iter().zip(&step.inputs).filter(|(after, before)| after.tensor.is_some() && after.tensor != before.tensor);
    Ok(written.map(|(after, _)| after).chain(outputs).collect())
}

/// What a call leaves behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What the program returned.
    pub outputs: Vec<Value>,
    /// What its inputs hold afterwards.
    pub inputs: Vec<Value>,
}

fn answer(evaluator: &mut Evaluator<'_>, method: &Method, inputs: &[Value]) -> Result<Answer, String> {
    let taken = method.inputs.iter().filter(|i| matches!(i.kind, InputKind::User | InputKind::Literal { .. }));
    let types = taken.map(|i| i.value.map(|v| method.graph.ty(v)));
    let inputs = inputs.iter().zip(types).map(|(v, ty)| argument(v, ty)).collect::<Result<Vec<_>, String>>()?;
    let outputs = evaluator.call(&inputs).map_err(|e| e.to_string())?;
    let read = |all: &[eval::Value]| all.iter().map(result).collect::<Result<Vec<_>, String>>();
    Ok(Answer { outputs: read(&outputs)?, inputs: read(&inputs)? })
}

/// Evaluate calls of the only method of a program, in order, on one state.
///
/// # Errors
/// What the evaluator says of the first call that fails.
pub fn calls(program: &Program, calls: &[Vec<Value>]) -> Result<Vec<Answer>, String> {
    let method = program.methods.first().ok_or("a program without methods")?;
    let mut evaluator = Evaluator::new(program, method);
    calls.iter().map(|inputs| answer(&mut evaluator, method, inputs)).collect()
}

/// A value as the evaluator takes it; what the file stores as a tensor may be a number to the program.
fn argument(value: &Value, ty: Option<&Type>) -> Result<eval::Value, String> {
    let Some(t) = &value.tensor else { return Ok(eval::Value::None) };
    let bytes = || t.bytes.as_slice().try_into().map_err(|_| format!("a {:?} of {} bytes", value.kind, t.bytes.len()));
    Ok(match (value.kind, ty) {
        (Kind::None, _) => eval::Value::None,
        (Kind::Int, _) | (_, Some(Type::Int(_))) => eval::Value::Int(i64::from_le_bytes(bytes()?)),
        (Kind::Float, _) | (_, Some(Type::Float(_))) => eval::Value::Float(f64::from_le_bytes(bytes()?)),
        (Kind::Bool, _) | (_, Some(Type::Bool(_))) => eval::Value::Bool(t.bytes != [0]),
        (Kind::Tensor, _) => {
            let (_, dtype) = TYPES.iter().find(|(s, _)| *s == t.dtype).ok_or_else(|| format!("no tensors of {:?}", t.dtype))?;
            eval::Value::Tensor(eval::Tensor::new(*dtype, &t.shape, t.bytes.clone()).map_err(|e| e.to_string())?)
        }
    })
}

fn result(value: &eval::Value) -> Result<Value, String> {
    use safetensors::Dtype;
    let scalar = |kind, dtype, bytes: Vec<u8>| Value { kind, tensor: Some(Tensor { dtype, shape: Vec::new(), bytes }) };
    Ok(match value {
        eval::Value::None => Value { kind: Kind::None, tensor: None },
        eval::Value::Int(n) => scalar(Kind::Int, Dtype::I64, n.to_le_bytes().to_vec()),
        eval::Value::Float(x) => scalar(Kind::Float, Dtype::F64, x.to_le_bytes().to_vec()),
        eval::Value::Bool(b) => scalar(Kind::Bool, Dtype::BOOL, vec![u8::from(*b)]),
        eval::Value::Tensor(t) => {
            let (dtype, _) = TYPES.iter().find(|(_, d)| *d == t.dtype()).ok_or_else(|| format!("the program returned {}", t.dtype()))?;
            Value { kind: Kind::Tensor, tensor: Some(Tensor { dtype: *dtype, shape: t.shape().to_vec(), bytes: t.bytes() }) }
        }
    })
}
