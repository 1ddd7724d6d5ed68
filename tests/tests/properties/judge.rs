//! Whether what lowering makes of a program computes what the program says, and the smallest program for which it does not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use etx::ir::graph::{Arg, Def, Type, ValueId};
use etx::ir::text;
use etx_tests::case::{Kind, Value};
use etx_tests::compare::{Limit, compare};
use etx_tests::driver::{self, File, Refused, Trouble};
use etx_tests::eager::Answer;
use safetensors::Dtype;

use crate::make::{CALLS, Case, Source};

/// What became of a program.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// The lowered program agrees in both calls.
    Agrees,
    /// The backend said no to these.
    Refused(Vec<Refused>),
    /// It differs or fails, and how.
    Differs(String),
}

/// A file name of its own for each program.
fn scratch() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("property-{}-{n}.pte", std::process::id()))
}

/// Lowers the program that returns these values, runs it, compares with its evaluation.
pub(crate) fn judge(case: &Case, outputs: &[ValueId]) -> Verdict {
    let expected = match case.evaluate(outputs) {
        Ok(expected) => expected,
        // A program that is not valid in itself says nothing about lowering; only shrinking makes one.
        Err(_) => return Verdict::Agrees,
    };
    let path = scratch();
    let attempt = catch_unwind(AssertUnwindSafe(|| lowered(case, outputs, &path, &expected)));
    // Left behind, the file only costs space until the target folder is cleaned.
    let _ = std::fs::remove_file(&path);
    attempt.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned().or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Verdict::Differs(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn lowered(case: &Case, outputs: &[ValueId], path: &std::path::Path, expected: &[Answer]) -> Verdict {
    match driver::lower_program(case.program(outputs), path) {
        Ok(_) => {}
        Err(Trouble::Refused(why)) => return Verdict::Refused(why),
        Err(Trouble::Failed(why)) => return Verdict::Differs(format!("lowering fails: {why}")),
    }
    let mut method = match File::open(path).and_then(|f| f.load("forward", None)) {
        Ok(method) => method,
        Err(e) => return Verdict::Differs(format!("opening fails: {e}")),
    };
    for (call, expected) in (0..CALLS).zip(expected) {
        match method.call(&case.arguments(call)) {
            // The delegate takes no such input, whatever the program does with it.
            Err(e) if e.what.contains("the delegate refuses inputs of shape") && case.arguments(call).iter().any(empty_inside) => {}
            Err(e) => return Verdict::Differs(format!("call {call} fails: {e}")),
            Ok(found) => {
                if let Some(why) = difference(case, outputs, &found, expected, &case.arguments(call)) {
                    return Verdict::Differs(format!("call {call}, {why}"));
                }
            }
        }
    }
    Verdict::Agrees
}

/// Whether an axis other than the first has no elements.
fn empty_inside(value: &Value) -> bool {
    value.tensor.as_ref().is_some_and(|t| t.shape.iter().skip(1).any(|&n| n == 0))
}

/// How far floats may be off, by the coarsest type that any value of the program has.
fn limit(case: &Case) -> Limit {
    let mut limit = 1e-4;
    for (_, node) in case.graph.nodes() {
        let values = node.outputs.iter().copied().chain(case.graph.inputs().iter().copied());
        for t in values.filter_map(|v| case.graph.tensor(v)) {
            limit = f64::max(
                limit,
                match t.dtype {
                    etx::ir::DType::BFloat16 => 0.06,
                    etx::ir::DType::Float16 => 0.01,
                    _ => 0.0,
                },
            );
        }
    }
    Limit::Elementwise { rtol: limit, atol: limit }
}

fn difference(case: &Case, outputs: &[ValueId], found: &[Value], expected: &Answer, before: &[Value]) -> Option<String> {
    let Some(written) = found.len().checked_sub(outputs.len()) else {
        return Some(format!("{} outputs, expected {}", found.len(), outputs.len()));
    };
    let differs = |f: &Value, e: &Value| match (&f.tensor, &e.tensor) {
        (Some(f), Some(e)) => compare(f, e, limit(case)).err(),
        _ => Some("a value that is no tensor".to_owned()),
    };
    // What the program wrote to comes first, in order of the inputs. A write may leave an input as it was.
    let (changed, results) = found.split_at(written);
    let mut changed = changed.iter().peekable();
    let same = |(after, before): &(&Value, &Value)| after == before;
    let all_change = written == expected.inputs.iter().zip(before).filter(|pair| !same(pair)).count();
    for (i, pair) in expected.inputs.iter().zip(before).enumerate() {
        let after = pair.0;
        match changed.peek().map(|f| differs(f, after)) {
            _ if all_change && same(&pair) => {}
            Some(None) => drop(changed.next()),
            _ if same(&pair) => {}
            Some(Some(why)) => return Some(format!("input {i} after the call: {why}")),
            None => return Some(format!("input {i} is not written to")),
        }
    }
    if changed.peek().is_some() {
        return Some("more inputs written to than there should be".to_owned());
    }
    for ((f, e), v) in results.iter().zip(&expected.outputs).zip(outputs) {
        if let Some(why) = differs(f, e) {
            return Some(format!("{}: {why}", case.graph.value(*v).name));
        }
    }
    None
}

/// Values that calls of the graph define, in order.
fn defined(case: &Case) -> Vec<ValueId> {
    let of = |(_, n): (_, &etx::ir::graph::Node)| n.outputs.clone();
    case.graph.nodes().flat_map(of).filter(|v| case.graph.tensor(*v).is_some()).collect()
}

/// The smallest program found that still differs: fewer outputs, fewer calls, values in place of what computes them.
pub(crate) fn shrink(case: &Case, outputs: &[ValueId]) -> (Case, Vec<ValueId>, String) {
    let wrong = |c: &Case, o: &[ValueId]| match judge(c, o) {
        Verdict::Differs(why) => Some(why),
        _ => None,
    };
    let (mut case, mut outputs) = (case.clone(), outputs.to_vec());
    let mut why = wrong(&case, &outputs).unwrap_or_default();
    // The first value, on its own, that is wrong.
    for v in defined(&case) {
        if let Some(w) = wrong(&case, &[v]) {
            (outputs, why) = (vec![v], w);
            break;
        }
    }
    let pruned = case.clone().pruned(&outputs);
    if let Some(w) = wrong(&pruned, &outputs) {
        (case, why) = (pruned, w);
    }
    loop {
        let smaller = defined(&case).into_iter().rev().filter(|v| !outputs.contains(v)).find_map(|v| {
            let cut = cut(&case, v)?.pruned(&outputs);
            let w = (cut.graph.len() < case.graph.len()).then(|| wrong(&cut, &outputs)).flatten()?;
            Some((cut, w))
        });
        let smaller = smaller.or_else(|| {
            case.graph.order().into_iter().rev().find_map(|id| {
                let mut without = case.clone();
                let unused =
                    without.graph.node(id).outputs.iter().all(|v| without.graph.value(*v).users().is_empty() && !outputs.contains(v));
                if !unused {
                    return None;
                }
                without.graph.set_outputs(Vec::new());
                without.graph.remove(id);
                let without = without.pruned(&outputs);
                let w = wrong(&without, &outputs)?;
                Some((without, w))
            })
        });
        match smaller {
            Some((c, w)) => (case, why) = (c, w),
            None => return (case, outputs, why),
        }
    }
}

/// The program without the calls that were refused: their results are given. `None` if there is no telling which calls of the program
/// those are, or if nothing is left.
pub(crate) fn without(case: &Case, outputs: &[ValueId], refused: &[Refused]) -> Option<(Case, Vec<ValueId>)> {
    let named = |v: &ValueId| {
        let def = &case.graph.value(*v).def;
        matches!(def, Def::Node(n, _) if refused.iter().any(|r| *case.graph.node(*n).name == *r.node))
    };
    let values: Vec<ValueId> = defined(case).into_iter().filter(named).collect();
    let outputs: Vec<ValueId> = outputs.iter().copied().filter(|v| !values.contains(v)).collect();
    if values.is_empty() || outputs.is_empty() {
        return None;
    }
    let mut case = case.clone();
    for v in values {
        case = cut(&case, v)?;
    }
    Some((case.pruned(&outputs), outputs))
}

/// The value as an input that holds what it had.
fn cut(case: &Case, v: ValueId) -> Option<Case> {
    let held = case.evaluate(&[v]).ok()?;
    let mut tensors = held.into_iter().map(|call| call.outputs.into_iter().next()?.tensor);
    let (first, second) = (tensors.next()??, tensors.next()??);
    let mut case = case.clone();
    let ty: Type = case.graph.ty(v).clone();
    case.graph.set_outputs(Vec::new());
    let input = case.graph.add_input("cut", ty);
    case.sources.push(Source::Given([first, second]));
    case.graph.replace_uses_with(v, &Arg::Value(input));
    // What only the value's own call reads goes with it.
    matches!(case.graph.value(v).def, Def::Node(..)).then_some(case)
}

/// The program and what it was given, as text.
pub(crate) fn shown(case: &Case, outputs: &[ValueId]) -> String {
    let mut out = text::print(&case.program(outputs));
    for call in 0..CALLS {
        for (i, value) in case.arguments(call).iter().enumerate() {
            if let (Kind::Tensor, Some(t)) = (value.kind, &value.tensor) {
                let numbers = if t.dtype == Dtype::BOOL { format!("{:?}", t.bytes) } else { format!("{:?}", t.elements()) };
                let numbers: String = numbers.chars().take(600).collect();
                out.push_str(&format!("# call {call}, input {i}: {:?} {numbers}\n", t.shape));
            }
        }
    }
    out
}
