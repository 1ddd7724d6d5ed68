//! One case through lower, write, open, run and compare, in every form it comes in.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::case::{Case, Step, Value};
use crate::compare::compare;
use crate::driver::{self, File, Lowered};

/// A form in which a case is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The program as exported, lowered by etx.
    Program,
    /// Its functional form, lowered by etx.
    Functional,
    /// The reference's file, opened and run by etx.
    Reference,
}

impl Variant {
    /// All of them.
    pub const ALL: [Variant; 3] = [Variant::Program, Variant::Functional, Variant::Reference];

    /// Its name in lists and results.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Program => "program",
            Variant::Functional => "functional",
            Variant::Reference => "reference",
        }
    }

    /// The variant of that name.
    pub fn from_name(name: &str) -> Option<Variant> {
        Variant::ALL.into_iter().find(|v| v.name() == name)
    }
}

/// Where a case failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The case itself is not readable.
    Case,
    /// No file came out of lowering.
    Lower,
    /// More partitions than the reference.
    Partitions,
    /// Something refused that the reference delegates.
    Refused,
    /// A larger file than the reference's, of a model.
    Size,
    /// A quantised constant of other bytes than the reference's.
    Constants,
    /// A method takes or returns something else than the reference's.
    Signature,
    /// The file could not be opened, or a method not loaded.
    Open,
    /// A call failed.
    Run,
    /// An output differs.
    Compare,
    /// etx panicked.
    Panic,
}

impl Stage {
    /// All of them, in the order they come.
    pub const ALL: [Stage; 11] = [
        Stage::Case,
        Stage::Lower,
        Stage::Partitions,
        Stage::Refused,
        Stage::Size,
        Stage::Constants,
        Stage::Signature,
        Stage::Open,
        Stage::Run,
        Stage::Compare,
        Stage::Panic,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Case => "case",
            Stage::Lower => "lower",
            Stage::Partitions => "partitions",
            Stage::Refused => "refused",
            Stage::Size => "size",
            Stage::Constants => "constants",
            Stage::Signature => "signature",
            Stage::Open => "open",
            Stage::Run => "run",
            Stage::Compare => "compare",
            Stage::Panic => "panic",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// Where it came up.
    pub stage: Stage,
    /// What, for people.
    pub message: String,
}

/// What became of one variant of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which.
    pub variant: Variant,
    /// Everything found wrong; empty if it passed.
    pub failures: Vec<Failure>,
    /// Partitions per method.
    pub partitions: BTreeMap<String, usize>,
    /// MLX instructions, all methods together.
    pub instructions: BTreeMap<String, u64>,
    /// Size of the file, if there is one.
    pub bytes: Option<u64>,
    /// Largest absolute error of any output that agreed.
    pub largest_error: f64,
    /// Seconds to lower and write.
    pub lower_seconds: f64,
    /// Seconds of all calls.
    pub run_seconds: f64,
}

impl Outcome {
    pub(crate) fn new(variant: Variant) -> Self {
        Outcome {
            variant,
            failures: Vec::new(),
            partitions: BTreeMap::new(),
            instructions: BTreeMap::new(),
            bytes: None,
            largest_error: 0.0,
            lower_seconds: 0.0,
            run_seconds: 0.0,
        }
    }

    pub(crate) fn fail(&mut self, stage: Stage, message: impl Into<String>) {
        self.failures.push(Failure { stage, message: message.into() });
    }
}

/// Try a case in every form it has. Files are written into `scratch`, a folder of its own, and removed with it.
pub fn check(case: &Case, scratch: &Path) -> Vec<Outcome> {
    let calls = case.steps();
    let outcomes = Variant::ALL
        .into_iter()
        .filter_map(|variant| {
            let applies = match variant {
                Variant::Program => true,
                Variant::Functional => case.methods.values().any(|m| m.functional_program.is_some()),
                Variant::Reference => case.reference.as_ref().is_some_and(|r| r.file.is_some()),
            };
            applies.then(|| {
                let mut outcome = Outcome::new(variant);
                match &calls {
                    Ok(calls) => guarded(case, calls, scratch, &mut outcome),
                    Err(e) => outcome.fail(Stage::Case, e),
                }
                outcome
            })
        })
        .collect();
    // Left behind, the files only cost space until the target folder is cleaned.
    let _ = std::fs::remove_dir_all(scratch);
    outcomes
}

/// A panic is a failure of this variant, not of the runner.
fn guarded(case: &Case, calls: &BTreeMap<String, Vec<Step>>, scratch: &Path, outcome: &mut Outcome) {
    let attempt = AssertUnwindSafe(|| {
        if let Some(path) = file_of(case, scratch, outcome) {
            outcome.bytes = std::fs::metadata(&path).ok().map(|m| m.len());
            no_larger(case, outcome);
            same_constants(case, &path, outcome);
            same_signature(case, &path, outcome);
            run(case, calls, &path, outcome);
        }
    });
    if let Err(payload) = catch_unwind(attempt) {
        let text = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a text".to_owned());
        outcome.fail(Stage::Panic, text);
    }
}

/// The `.pte` to run: written now, or the reference's.
fn file_of(case: &Case, scratch: &Path, outcome: &mut Outcome) -> Option<PathBuf> {
    if outcome.variant == Variant::Reference {
        return case.reference.as_ref().and_then(|r| r.file.as_ref()).map(|file| case.file(file));
    }
    let functional = outcome.variant == Variant::Functional;
    let programs: Vec<(String, PathBuf)> = case
        .methods
        .iter()
        .map(|(name, method)| {
            let functional = method.functional_program.as_ref().filter(|_| functional);
            (name.clone(), case.file(functional.unwrap_or(&method.program)))
        })
        .collect();
    let out = scratch.join(format!("{}.pte", outcome.variant.name()));
    if let Err(e) = std::fs::create_dir_all(scratch) {
        outcome.fail(Stage::Case, format!("{}: {e}", scratch.display()));
        return None;
    }
    let start = Instant::now();
    match driver::lower(&programs, &out) {
        Ok(lowered) => {
            outcome.lower_seconds = start.elapsed().as_secs_f64();
            against_reference(case, &lowered, outcome);
            outcome.partitions = lowered.partitions;
            outcome.instructions = lowered.instructions;
            Some(out)
        }
        Err(e) => {
            outcome.fail(Stage::Lower, e);
            None
        }
    }
}

/// No more partitions than the reference, nothing refused that the reference delegates.
fn against_reference(case: &Case, lowered: &Lowered, outcome: &mut Outcome) {
    for method in case.methods.keys() {
        let made = lowered.partitions.get(method).copied().unwrap_or(0);
        if let Some(limit) = case.partition_limit(method)
            && made > limit
        {
            outcome.fail(Stage::Partitions, format!("{method}: {made} partitions, at most {limit} allowed"));
        }
    }
    for refused in &lowered.refused {
        let name = bare(&refused.op);
        let allowed = case
            .reference
            .as_ref()
            .and_then(|r| r.undelegated.get(&refused.method))
            .is_some_and(|ops| ops.keys().any(|op| bare(op) == name));
        if !allowed {
            outcome.fail(Stage::Refused, format!("{}: {} refused: {}", refused.method, refused.op, refused.why));
        }
    }
}

/// Files of models are no larger than the reference's. (In the small cases it is the program that counts, not the weights.)
fn no_larger(case: &Case, outcome: &mut Outcome) {
    if let (Some(bytes), Some(limit)) = (outcome.bytes, case.reference.as_ref().map(|r| r.bytes))
        && outcome.variant != Variant::Reference
        && case.group == "models"
        && bytes > limit
    {
        outcome.fail(Stage::Size, format!("{bytes} bytes, the reference's file has {limit}"));
    }
}

/// Constants of models that both files name have the same bytes, and packed weights of the reference are in both.
fn same_constants(case: &Case, path: &Path, outcome: &mut Outcome) {
    let Some(reference) = case.reference.as_ref().and_then(|r| r.file.as_ref()) else { return };
    if outcome.variant == Variant::Reference || case.group != "models" {
        return;
    }
    match (driver::stored(path), driver::stored(&case.file(reference))) {
        (Ok(ours), Ok(theirs)) => {
            for (name, bytes) in &theirs {
                match ours.get(name) {
                    Some(ours) if ours != bytes => outcome.fail(Stage::Constants, format!("{name} is not as the reference packs it")),
                    None if name.ends_with("_to_packed") => outcome.fail(Stage::Constants, format!("{name} is not there")),
                    _ => {}
                }
            }
        }
        (Err(e), _) | (_, Err(e)) => outcome.fail(Stage::Constants, e),
    }
}

/// Every method takes and returns what the reference's does, nested alike.
fn same_signature(case: &Case, path: &Path, outcome: &mut Outcome) {
    let Some(reference) = case.reference.as_ref().and_then(|r| r.file.as_ref()) else { return };
    if outcome.variant == Variant::Reference {
        return;
    }
    match (driver::signatures(path), driver::signatures(&case.file(reference))) {
        (Ok(ours), Ok(theirs)) => {
            for (method, theirs) in &theirs {
                let Some(ours) = ours.get(method) else { continue };
                for (what, (ours, theirs)) in ["arguments nest", "results nest", "inputs", "outputs"].iter().zip(ours.iter().zip(theirs)) {
                    if ours != theirs {
                        outcome.fail(Stage::Signature, format!("{method}: {what}: {ours}; the reference has {theirs}"));
                    }
                }
            }
        }
        (Err(e), _) | (_, Err(e)) => outcome.fail(Stage::Signature, e),
    }
}

/// `namespace.operator` of any spelling: `aten::permute_copy`, `aten.permute.default` and `aten.permute_copy.out` are one.
fn bare(op: &str) -> String {
    let op = op.strip_prefix("torch.ops.").unwrap_or(op).replace("::", ".");
    let mut parts = op.split('.');
    let namespace = parts.next().unwrap_or_default();
    let name = parts.next().unwrap_or_default();
    let name = name.strip_suffix("_copy").unwrap_or(name);
    let name = if name.ends_with("__") { name } else { name.trim_end_matches('_') };
    format!("{namespace}.{name}")
}

/// Every method of the file: all calls in order on one loaded method.
fn run(case: &Case, calls: &BTreeMap<String, Vec<Step>>, path: &Path, outcome: &mut Outcome) {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) => return outcome.fail(Stage::Open, e),
    };
    for (method, steps) in calls {
        let mut loaded = match file.load(method, case.cache_dtype()) {
            Ok(loaded) => loaded,
            Err(e) => {
                outcome.fail(Stage::Open, format!("{method}: {e}"));
                continue;
            }
        };
        for (number, step) in steps.iter().enumerate() {
            let start = Instant::now();
            let outputs = loaded.call(&step.inputs);
            outcome.run_seconds += start.elapsed().as_secs_f64();
            let place = format!("{method}, call {number}");
            match outputs {
                Ok(outputs) => agree(case, &place, &outputs, &step.expected, outcome),
                // Nothing was computed: the state is what it was.
                Err(e) if e.condition && case.or_refused => {}
                Err(e) => {
                    outcome.fail(Stage::Run, format!("{place}: {}", e.what));
                    break; // the state is not what the next call expects
                }
            }
        }
    }
}

/// Compare the outputs of one call with the expected ones.
pub(crate) fn agree(case: &Case, place: &str, got: &[Value], expected: &[Value], outcome: &mut Outcome) {
    // A case that does not list the kinds of its outputs has those that are values.
    let values = got.iter().filter(|v| v.tensor.is_some() || got.len() == expected.len());
    let got: Vec<&Value> = values.collect();
    if got.len() != expected.len() {
        return outcome.fail(Stage::Compare, format!("{place}: {} outputs, expected {}", got.len(), expected.len()));
    }
    let Some(limit) = case.limit() else { return };
    for (number, (got, expected)) in got.iter().zip(expected).enumerate() {
        let verdict = match (&got.tensor, &expected.tensor) {
            (Some(g), Some(e)) if case.compare => compare(g, e, limit),
            // Random results still have a type and a shape.
            (Some(g), Some(e)) if g.dtype == e.dtype && g.shape == e.shape => Ok(0.0),
            (Some(g), Some(e)) => Err(format!("{:?} {:?}, expected {:?} {:?}", g.dtype, g.shape, e.dtype, e.shape)),
            (None, None) => Ok(0.0),
            (Some(_), None) => Err("a value, expected None".to_owned()),
            (None, Some(_)) => Err("None, expected a value".to_owned()),
        };
        match verdict {
            Ok(error) => outcome.largest_error = outcome.largest_error.max(error),
            Err(why) => outcome.fail(Stage::Compare, format!("{place}, output {number}: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_an_operator_are_one() {
        for spelling in ["aten::permute_copy", "aten.permute.default", "torch.ops.aten.permute_copy.out"] {
            assert_eq!(bare(spelling), "aten.permute");
        }
        assert_eq!(bare("aten.add_.Tensor"), "aten.add");
        assert_eq!(bare("aten.__and__.Tensor"), "aten.__and__");
        assert_ne!(bare("aten::index"), bare("aten::index_put"));
    }
}
