//! What the runner says at the end: a table for people, JSON for machines, from the same results.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::case::Case;
use crate::check::{Outcome, Stage, Variant};

/// The result of one case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// Group and name.
    pub case: String,
    /// Reason in the list of known failures, if it stands there.
    pub known: Option<String>,
    /// Each form it was tried in.
    pub outcomes: Vec<Outcome>,
    /// The reference's file: instructions and bytes.
    pub reference: Option<Size>,
    group: String,
}

/// Size of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// MLX instructions.
    pub instructions: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Counts over some cases.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Cases tried.
    pub cases: usize,
    /// Cases without any failure.
    pub passed: usize,
    /// Cases that fail and are listed.
    pub known: usize,
    /// Cases that fail and are not listed.
    pub failed: usize,
    /// First failing stage of each failing variant, listed or not.
    pub stages: BTreeMap<String, usize>,
    /// Cases whose sizes can be compared: lowered by etx, with a reference.
    pub compared: usize,
    /// Our files over those cases.
    pub etx: Size,
    /// The reference's files over those cases.
    pub reference: Size,
    /// Cases in which etx has more instructions than the reference.
    pub more_instructions: Vec<String>,
}

impl CaseResult {
    /// Put the outcomes of a case beside its reference.
    pub fn new(case: &Case, outcomes: Vec<Outcome>, known: Option<String>) -> Self {
        CaseResult {
            case: case.id(),
            known,
            outcomes,
            reference: case.reference.as_ref().map(|r| Size { instructions: r.instructions.values().sum(), bytes: r.bytes }),
            group: case.group.clone(),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_variants<const N: usize>(case: &str, variants: [(Variant, bool); N]) -> Self {
        let outcomes = variants.map(|(variant, fails)| {
            let mut outcome = Outcome::new(variant);
            if fails {
                outcome.fail(Stage::Run, "it failed");
            }
            outcome
        });
        let group = case.split('/').next().unwrap_or_default().to_owned();
        CaseResult { case: case.to_owned(), known: None, outcomes: outcomes.into(), reference: None, group }
    }

    #[cfg(test)]
    pub(crate) fn of_instructions(case: &str, ours: u64, theirs: u64) -> Self {
        let mut result = Self::of_variants(case, [(Variant::Program, false)]);
        for outcome in &mut result.outcomes {
            outcome.instructions.insert("AddNode".into(), ours);
            outcome.bytes = Some(100);
        }
        result.reference = Some(Size { instructions: theirs, bytes: 90 });
        result
    }

    /// Whether no variant failed.
    pub fn passed(&self) -> bool {
        self.outcomes.iter().all(|o| o.failures.is_empty())
    }

    /// The failures of the given variants, a line each.
    pub fn failures(&self, of: impl Fn(Variant) -> bool) -> Vec<String> {
        self.outcomes
            .iter()
            .filter(|o| of(o.variant))
            .flat_map(|o| o.failures.iter().map(|f| format!("{} {}: {}", o.variant.name(), f.stage.name(), f.message)))
            .collect()
    }

    /// Instructions of etx's file and of the reference's, where etx has more.
    pub fn more_instructions(&self) -> Option<(u64, u64)> {
        let (ours, theirs) = (self.size()?.instructions, self.reference?.instructions);
        (ours > theirs).then_some((ours, theirs))
    }

    fn size(&self) -> Option<Size> {
        let program = self.outcomes.iter().find(|o| o.variant == Variant::Program)?;
        Some(Size { instructions: program.instructions.values().sum(), bytes: program.bytes? })
    }
}

/// Count over results.
pub fn totals<'a>(results: impl IntoIterator<Item = &'a CaseResult>) -> Totals {
    let mut t = Totals::default();
    for result in results {
        t.cases += 1;
        match (result.passed(), &result.known) {
            (true, _) => t.passed += 1,
            (false, Some(_)) => t.known += 1,
            (false, None) => t.failed += 1,
        }
        for outcome in &result.outcomes {
            if let Some(stage) = outcome.failures.iter().map(|f| f.stage).min() {
                let of = if outcome.variant == Variant::Reference { "reference " } else { "" };
                *t.stages.entry(format!("{of}{}", stage.name())).or_default() += 1;
            }
        }
        if let (Some(ours), Some(theirs)) = (result.size(), result.reference) {
            t.compared += 1;
            t.etx.instructions += ours.instructions;
            t.etx.bytes += ours.bytes;
            t.reference.instructions += theirs.instructions;
            t.reference.bytes += theirs.bytes;
            if let Some((ours, theirs)) = result.more_instructions() {
                t.more_instructions.push(format!("{} {ours} > {theirs}", result.case));
            }
        }
    }
    t
}

/// The table: a row a group, and all together.
pub fn table(results: &[CaseResult]) -> String {
    let mut groups: BTreeMap<&str, Vec<&CaseResult>> = BTreeMap::new();
    for result in results {
        groups.entry(&result.group).or_default().push(result);
    }
    let mut rows: Vec<(&str, Totals)> = groups.into_iter().map(|(name, of)| (name, totals(of))).collect();
    let all = totals(results);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<10} {:>6} {:>7} {:>6} {:>7}   {:>24}   {:>24}",
        "group", "cases", "passed", "known", "failed", "instructions etx/ref", "bytes etx/ref"
    );
    rows.push(("all", all.clone()));
    for (name, t) in &rows {
        let _ = writeln!(
            out,
            "{name:<10} {:>6} {:>7} {:>6} {:>7}   {:>24}   {:>24}",
            t.cases,
            t.passed,
            t.known,
            t.failed,
            format!("{}/{}", t.etx.instructions, t.reference.instructions),
            format!("{}/{}", t.etx.bytes, t.reference.bytes),
        );
    }
    if !all.stages.is_empty() {
        let order = |name: &str| Stage::ALL.iter().position(|s| name.ends_with(s.name()));
        let mut stages: Vec<_> = all.stages.iter().collect();
        stages.sort_by_key(|(name, _)| (name.starts_with("reference "), order(name)));
        let stages: Vec<String> = stages.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let _ = writeln!(out, "failing forms of cases, by first stage: {}", stages.join(", "));
    }
    if !all.more_instructions.is_empty() {
        let shown = all.more_instructions.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            out,
            "more instructions than the reference in {} of {} cases: {shown}{}",
            all.more_instructions.len(),
            all.compared,
            if all.more_instructions.len() > 10 { ", …" } else { "" }
        );
    }
    out
}

/// The results as JSON text.
pub fn json(results: &[CaseResult]) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Document<'a> {
        totals: Totals,
        cases: &'a [CaseResult],
    }
    serde_json::to_string_pretty(&Document { totals: totals(results), cases: results })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &str, known: bool, failures: &[Stage], instructions: u64) -> CaseResult {
        let mut outcome = Outcome::new(Variant::Program);
        failures.iter().for_each(|&stage| outcome.fail(stage, "m"));
        outcome.instructions.insert("AddNode".into(), instructions);
        outcome.bytes = Some(100);
        CaseResult {
            known: known.then(|| "why".into()),
            outcomes: vec![outcome],
            reference: Some(Size { instructions: 5, bytes: 90 }),
            ..CaseResult::of_variants(&format!("g/{name}"), [])
        }
    }

    #[test]
    fn counts_and_table() {
        let results =
            [result("a", false, &[], 4), result("b", true, &[Stage::Compare, Stage::Partitions], 5), result("c", false, &[Stage::Run], 6)];
        let t = totals(&results);
        assert_eq!((t.cases, t.passed, t.known, t.failed), (3, 1, 1, 1));
        assert_eq!((t.etx.instructions, t.reference.instructions), (15, 15));
        assert_eq!(t.more_instructions, ["g/c 6 > 5"]);
        let table = table(&results);
        assert!(table.contains("by first stage: partitions 1, run 1"), "{table}");
        assert_eq!(results[1].failures(|_| true)[0], "program compare: m");
        assert!(json(&results).unwrap().contains("\"stage\": \"compare\""));
    }
}
