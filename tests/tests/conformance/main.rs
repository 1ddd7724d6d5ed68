//! The conformance runner: one test a case.
//!
//! Cases: `tests/fixtures` always, and every folder named in `ETX_CASES` (separated like `PATH`), searched recursively.
//! `cargo test -p etx-tests --test conformance -- [--json FILE] [FILTER] [other test options]`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use etx_tests::case::{self, Case};
use etx_tests::check::check;
use etx_tests::known::{self, Entry};
use etx_tests::report::{self, CaseResult};
use libtest_mimic::{Arguments, Failed, Trial};

/// The lists of what is known and has a reason.
#[derive(Clone)]
struct Lists {
    failures: Vec<Entry>,
    instructions: Vec<Entry>,
}

impl Lists {
    fn read() -> Result<Self, String> {
        Ok(Self {
            failures: known::parse(known::FAILURES, include_str!("../../known_failures.txt"))?,
            instructions: known::parse(known::MORE_INSTRUCTIONS, include_str!("../../more_instructions.txt"))?,
        })
    }

    /// What they say of one case.
    fn of(&self, id: &str) -> Self {
        let of = |entries: &[Entry]| entries.iter().filter(|e| e.covers(id)).cloned().collect();
        Self { failures: of(&self.failures), instructions: of(&self.instructions) }
    }
}

type Results = Arc<Mutex<Vec<CaseResult>>>;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("conformance: {e}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let mut args: Vec<String> = std::env::args().collect();
    let json = take_json(&mut args)?;
    let args = Arguments::from_iter(args);

    let lists = Lists::read()?;
    let roots = case::roots();
    let results = Results::default();
    let mut trials = Vec::new();
    let mut ids = Vec::new();
    for root in &roots {
        for folder in case::find(root)? {
            let case = Case::read(&folder)?;
            ids.push(case.id());
            trials.push(trial(case, &lists, &results));
        }
    }
    trials.push(stale_entries("known_failures", &lists.failures, &ids, &roots));
    trials.push(stale_entries("more_instructions", &lists.instructions, &ids, &roots));

    let conclusion = libtest_mimic::run(&args, trials);
    let mut results = std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner));
    if !args.list && !results.is_empty() {
        results.sort_by(|a, b| a.case.cmp(&b.case));
        print!("{}", report::table(&results));
        if let Some(path) = json {
            let text = report::json(&results).map_err(|e| e.to_string())?;
            std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(conclusion.exit_code())
}

/// Take `--json FILE` or `--json=FILE` out of the arguments, which libtest-mimic does not know.
fn take_json(args: &mut Vec<String>) -> Result<Option<PathBuf>, String> {
    let Some(at) = args.iter().position(|a| a == "--json" || a.starts_with("--json=")) else {
        return Ok(None);
    };
    let option = args.remove(at);
    match option.strip_prefix("--json=") {
        Some(path) => Ok(Some(path.into())),
        None if at < args.len() => Ok(Some(args.remove(at).into())),
        None => Err("--json needs a file".to_owned()),
    }
}

fn trial(case: Case, lists: &Lists, results: &Results) -> Trial {
    let id = case.id();
    let listed = lists.of(&id);
    let results = Arc::clone(results);
    Trial::test(id.clone(), move || {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{}", std::process::id(), id.replace('/', "-")));
        let outcomes = check(&case, &scratch);
        let reason = listed.failures.first().map(|e| e.reason.clone());
        let result = CaseResult::new(&case, outcomes, reason);
        let verdict = known::judge(&result, &listed.failures);
        let verdict = verdict.and(known::judge_instructions(&result, &listed.instructions)).map_err(Failed::from);
        results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        verdict
    })
}

/// An entry that names no case is stale.
fn stale_entries(list: &str, entries: &[Entry], ids: &[String], roots: &[PathBuf]) -> Trial {
    let whole_group = |group: &str| group == "fixtures" || roots.iter().any(|root| root.join(group).is_dir());
    let verdict = known::stale(entries, ids, whole_group).map_err(Failed::from);
    Trial::test(list, move || verdict)
}
