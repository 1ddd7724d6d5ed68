//! Programs and files with something wrong in them, from loading to running: an error or a result, never a panic.
//!
//! The readers have tests of their own, byte by byte. What is changed here is often still a program, if a strange one, which then meets the
//! passes, the backend, the writer and the engine. `ETX_DAMAGE=N` makes N changes of each kind to each case, by default 12.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etx_tests::case::{Case, Step};
use etx_tests::driver::{self, File};
use fastrand::Rng;
use serde_json::Value;

/// Cases of our own whose programs need no weights, small ones of many kinds.
const CASES: &[&str] = &[
    "aliased_outputs",
    "attention_causal_lengths",
    "attention_hidden_queries",
    "booleans",
    "broadcasting",
    "cast_chains",
    "conditional",
    "data_dependent_slice",
    "floor_division_signs",
    "gather_rows",
    "in_place_on_views",
    "index_beside_dynamic",
    "index_forms",
    "integer_with_fractional_scalar",
    "matmul_ranks",
    "negative_axes",
    "negative_padding",
    "orders",
    "pooling_dynamic_batch",
    "reductions_over_everything",
    "symbolic_arithmetic",
    "symbolic_int_input",
    "two_symbols",
    "user_input_mutation",
    "zero_size_dynamic",
];

/// No change makes a program that takes this long, whatever else the machine does.
const LONGEST: Duration = Duration::from_secs(30);

fn rounds() -> u64 {
    let Ok(text) = std::env::var("ETX_DAMAGE") else { return 12 };
    text.parse().unwrap_or_else(|e| panic!("ETX_DAMAGE={text}: {e}"))
}

fn case(name: &str) -> (Case, Vec<Step>, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    let case = Case::read(&folder).unwrap_or_else(|e| panic!("{e}"));
    let steps = case.steps().unwrap_or_else(|e| panic!("{e}")).remove("forward").unwrap_or_else(|| panic!("{name} has no forward"));
    let program = case.methods.get("forward").map(|m| case.file(&m.program)).unwrap_or_else(|| panic!("{name} has no forward"));
    (case, steps, program)
}

/// A file of its own for each test and case.
fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("damage-{}-{name}", std::process::id()))
}

/// Loads and calls what may be a file; what comes of it is not looked at.
fn run(path: &Path, steps: &[Step]) -> Result<(), String> {
    let mut method = File::open(path)?.load("forward", None)?;
    for step in steps {
        method.call(&step.inputs)?;
    }
    Ok(())
}

/// Tries something; says what it panicked with, or that it took too long.
fn harmless(attempt: impl FnOnce()) -> Result<(), String> {
    let start = Instant::now();
    if let Err(payload) = catch_unwind(AssertUnwindSafe(attempt)) {
        let text = payload.downcast_ref::<String>().cloned().or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        return Err(format!("panic: {}", text.unwrap_or_default()));
    }
    let took = start.elapsed();
    if took > LONGEST { Err(format!("it took {took:?}")) } else { Ok(()) }
}

/// The graph of an archive: torch stores it as it is.
fn graph(program: &Path) -> Value {
    let bytes = std::fs::read(program).unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let key = b"{\"graph_module\"";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap_or_else(|| panic!("{}: no graph", program.display()));
    let mut values = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter();
    values.next().and_then(Result::ok).unwrap_or_else(|| panic!("{}: no graph", program.display()))
}

/// All values below one, as the ways to them.
fn places(value: &Value, here: &mut Vec<String>, all: &mut Vec<String>) {
    all.push(here.iter().map(|k| format!("/{}", k.replace('~', "~0").replace('/', "~1"))).collect());
    let mut below = |key: String, v: &Value| {
        here.push(key);
        places(v, here, all);
        here.pop();
    };
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| below(i.to_string(), v)),
        Value::Object(items) => items.iter().for_each(|(k, v)| below(k.clone(), v)),
        _ => {}
    }
}

/// Changes one value somewhere in the graph; says where.
fn change(graph: &mut Value, rng: &mut Rng) -> String {
    let mut all = Vec::new();
    places(graph, &mut Vec::new(), &mut all);
    let (at, other) = (all[rng.usize(..all.len())].clone(), all[rng.usize(..all.len())].clone());
    let other = graph.pointer(&other).cloned().unwrap_or_default();
    let Some(value) = graph.pointer_mut(&at) else { return at };
    *value = match std::mem::take(value) {
        // Nothing in between: a tensor of a few gigabytes is no error, only slow.
        Value::Number(n) => match rng.u8(..8) {
            0 => i64::MAX.into(),
            1 => i64::MIN.into(),
            2 => (1i64 << 40).into(),
            3 => Value::from(0.5),
            _ => Value::from(n.as_i64().unwrap_or(0).wrapping_add(rng.i64(-3..=3))),
        },
        Value::Bool(b) => Value::Bool(!b),
        Value::String(s) => {
            if other.is_string() {
                other
            } else {
                Value::String(s.chars().rev().collect())
            }
        }
        Value::Array(mut items) if !items.is_empty() => {
            let (i, j) = (rng.usize(..items.len()), rng.usize(..items.len()));
            match rng.u8(..3) {
                0 => drop(items.remove(i)),
                1 => items.swap(i, j),
                _ => items.insert(i, items[j].clone()),
            }
            Value::Array(items)
        }
        Value::Object(mut items) if !items.is_empty() && rng.bool() => {
            let key = items.keys().nth(rng.usize(..items.len())).cloned().unwrap_or_default();
            items.remove(&key);
            Value::Object(items)
        }
        _ => other,
    };
    at
}

#[test]
fn a_changed_graph_does_no_harm() {
    let mut wrong = Vec::new();
    let (mut loaded, mut ran) = (0, 0);
    for name in CASES {
        let (_, steps, program) = case(name);
        let graph = graph(&program);
        let (json, pte) = (scratch(&format!("{name}.json")), scratch(&format!("{name}.pte")));
        for seed in 0..rounds() {
            let (mut rng, mut graph) = (Rng::with_seed(seed), graph.clone());
            let changes: Vec<String> = (0..rng.usize(1..3)).map(|_| change(&mut graph, &mut rng)).collect();
            std::fs::write(&json, graph.to_string()).unwrap_or_else(|e| panic!("{e}"));
            let done = harmless(|| {
                if driver::lower(&[("forward".to_owned(), json.clone())], &pte).is_ok() {
                    loaded += 1;
                    ran += u32::from(run(&pte, &steps).is_ok());
                }
            });
            wrong.extend(done.err().map(|why| format!("{name}, seed {seed}, {changes:?}: {why}")));
        }
        for path in [json, pte] {
            // Left behind, it only costs space until the target folder is cleaned.
            let _ = std::fs::remove_file(path);
        }
    }
    println!("{loaded} changed graphs were lowered, {ran} of them ran");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ran > 0, "no change left a program");
}

#[test]
fn a_changed_file_does_no_harm() {
    let mut wrong = Vec::new();
    let (mut opened, mut ran) = (0, 0);
    for name in CASES {
        let (_, steps, program) = case(name);
        let (whole, pte) = (scratch(&format!("{name}.whole.pte")), scratch(&format!("{name}.changed.pte")));
        driver::lower(&[("forward".to_owned(), program)], &whole).unwrap_or_else(|e| panic!("{name}: {e}"));
        let bytes = std::fs::read(&whole).unwrap_or_else(|e| panic!("{e}"));
        for seed in 0..rounds() * 4 {
            let (mut rng, mut changed) = (Rng::with_seed(seed), bytes.clone());
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..changed.len());
                match rng.u8(..8) {
                    0 => changed.truncate(at.max(1)),
                    1 => changed[at] = 0xff,
                    2 => changed[at] = 0,
                    3 => {
                        // A number or an offset.
                        let at = at & !3;
                        let n = [0u32, 1, 4, 0x8000_0000, u32::MAX][rng.usize(..5)];
                        changed.iter_mut().skip(at).zip(n.to_le_bytes()).for_each(|(b, n)| *b = n);
                    }
                    4 => changed.swap(at, 0),
                    _ => changed[at] = changed[at].wrapping_add(rng.u8(..)),
                }
            }
            std::fs::write(&pte, changed).unwrap_or_else(|e| panic!("{e}"));
            let done = harmless(|| {
                let done = run(&pte, &steps);
                opened += u32::from(File::open(&pte).is_ok());
                ran += u32::from(done.is_ok());
            });
            wrong.extend(done.err().map(|why| format!("{name}, seed {seed}: {why}")));
        }
        for path in [whole, pte] {
            let _ = std::fs::remove_file(path);
        }
    }
    println!("{opened} changed files opened, {ran} of them ran");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ran > 0, "no change left a program");
}
