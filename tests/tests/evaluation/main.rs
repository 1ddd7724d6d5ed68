//! Every case evaluated without lowering it, in every form that it has, compared with eager PyTorch within the case's limits.
//!
//! Cases as for `conformance`: `tests/fixtures` always, and every folder named in `ETX_CASES`.

use std::process::ExitCode;

use etx_tests::case::{self, Case};
use etx_tests::check::{Outcome, Stage};
use etx_tests::eager::evaluate;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    match trials() {
        Ok(trials) => libtest_mimic::run(&Arguments::from_args(), trials).exit_code(),
        Err(e) => {
            eprintln!("evaluation: {e}");
            ExitCode::from(2)
        }
    }
}

fn trials() -> Result<Vec<Trial>, String> {
    let mut trials = Vec::new();
    for root in case::roots() {
        for folder in case::find(&root)? {
            let case = Case::read(&folder)?;
            trials.push(Trial::test(case.id(), move || verdict(&case)));
        }
    }
    Ok(trials)
}

fn verdict(case: &Case) -> Result<(), Failed> {
    let outcomes = evaluate(case);
    // What draws random numbers has no answer; that it says so is all there is to ask.
    let refused = |o: &Outcome| o.failures.iter().all(|f| f.stage == Stage::Run && f.message.ends_with("draws random numbers"));
    // Nor has an operator that nobody declared.
    let undeclared = |o: &Outcome| o.failures.iter().all(|f| f.stage == Stage::Open && f.message.contains(": unknown operator "));
    let bad: Vec<String> = outcomes
        .iter()
        .filter(|o| (case.compare || !refused(o)) && !undeclared(o))
        .flat_map(|o| o.failures.iter().map(|f| format!("{}: {}: {}", o.variant.name(), f.stage.name(), f.message)))
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(bad.join("\n").into()) }
}
