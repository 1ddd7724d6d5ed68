//! Lists of what is known and has a reason: failures (`known_failures.txt`), and cases of which etx makes more instructions than the
//! reference (`more_instructions.txt`).
//!
//! One entry a line, `GROUP/NAME [VARIANT…]  # reason`. `*` in the name stands for any characters. With variants (`program`,
//! `functional`, `reference`) only those may fail, and must; the list of instructions has none.

use crate::check::Variant;
use crate::report::CaseResult;

/// The failures.
pub const FAILURES: &str = "known_failures.txt";
/// The cases with more instructions.
pub const MORE_INSTRUCTIONS: &str = "more_instructions.txt";

/// One line of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The list.
    pub file: &'static str,
    /// Line number, from 1.
    pub line: usize,
    /// Case name, possibly with `*`.
    pub pattern: String,
    /// What of the case fails; empty for all of it taken together.
    pub variants: Vec<Variant>,
    /// Why.
    pub reason: String,
}

impl Entry {
    /// Whether the entry speaks of this case.
    pub fn covers(&self, case: &str) -> bool {
        matches(&self.pattern, case)
    }

    /// A complaint about the entry.
    fn complain(&self, what: impl std::fmt::Display) -> String {
        format!("{}:{}: `{}` {what}", self.file, self.line, self.pattern)
    }

    /// The group of cases that the pattern names.
    pub fn group(&self) -> &str {
        self.pattern.split('/').next().unwrap_or_default()
    }
}

/// Read a list; every entry must have a reason.
pub fn parse(file: &'static str, text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let bad = |why: &str| format!("{file}:{number}: {why}: {line}");
        let (words, reason) = match line.split_once('#') {
            Some((words, reason)) => (words.trim(), reason.trim()),
            None => (line.trim(), ""),
        };
        let mut words = words.split_whitespace();
        let Some(pattern) = words.next() else { continue };
        if reason.is_empty() {
            return Err(bad("an entry needs a reason, after '#'"));
        }
        let variants = words
            .map(|w| Variant::from_name(w).ok_or_else(|| bad("expected program, functional or reference after the name")))
            .collect::<Result<Vec<_>, _>>()?;
        if file == MORE_INSTRUCTIONS && !variants.is_empty() {
            return Err(bad("only the program's instructions are counted"));
        }
        entries.push(Entry { file, line: number, pattern: pattern.to_owned(), variants, reason: reason.to_owned() });
    }
    Ok(entries)
}

/// What a case's result means given the entries that speak of it: an unlisted failure is wrong, and so is a listed one that does not
/// happen any more.
pub fn judge(result: &CaseResult, listed: &[Entry]) -> Result<(), String> {
    let excused = |variant| listed.iter().any(|e| e.variants.is_empty() || e.variants.contains(&variant));
    let mut wrong = result.failures(|variant| !excused(variant));
    for entry in listed {
        let gone: Vec<&str> = if entry.variants.is_empty() {
            result.passed().then_some("the case").into_iter().collect()
        } else {
            entry.variants.iter().filter(|v| result.failures(|w| w == **v).is_empty()).map(|v| v.name()).collect()
        };
        if !gone.is_empty() {
            let passes = gone.join(" and ");
            wrong.push(entry.complain(format_args!("is listed ({}), but {passes} passes: remove it from the list", entry.reason)));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// More instructions than the reference need a listed reason, and a listed case must have more.
pub fn judge_instructions(result: &CaseResult, listed: &[Entry]) -> Result<(), String> {
    match (result.more_instructions(), listed) {
        (Some((ours, theirs)), []) => {
            Err(format!("{ours} instructions, the reference has {theirs}: make fewer, or give the reason in {MORE_INSTRUCTIONS}"))
        }
        (None, [entry, ..]) if result.passed() => {
            Err(entry.complain(format_args!("is listed ({}), but {} has no more instructions: remove it", entry.reason, result.case)))
        }
        _ => Ok(()),
    }
}

/// Entries that name no case. Only those count whose group is here as a whole: the folders of the others may simply be absent.
pub fn stale(entries: &[Entry], cases: &[String], whole_group: impl Fn(&str) -> bool) -> Result<(), String> {
    let stale: Vec<String> = entries
        .iter()
        .filter(|e| whole_group(e.group()) && !cases.iter().any(|case| e.covers(case)))
        .map(|e| e.complain("names no case"))
        .collect();
    if stale.is_empty() { Ok(()) } else { Err(stale.join("\n")) }
}

/// Whether `name` is `pattern` with every `*` replaced by some characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(head) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = left.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_any_characters() {
        assert!(matches("ops/metal_kernel_*", "ops/metal_kernel_4096"));
        assert!(matches("ops/*_x*_y", "ops/a_x_b_y"));
        assert!(matches("ops/a", "ops/a"));
        assert!(!matches("ops/a", "ops/ab"));
        assert!(!matches("ops/*a*b", "ops/ba"));
        assert!(!matches("ops/ab*ab", "ops/ab"));
    }

    #[test]
    fn entries_have_reasons_and_variants() {
        let list = parse(FAILURES, "# heading\n\nops/a  # why\nmodels/b/* reference functional # because\n").unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[1].variants, [Variant::Reference, Variant::Functional]);
        assert_eq!((list[1].line, list[1].group()), (4, "models"));
        assert!(parse(FAILURES, "ops/a").unwrap_err().contains("needs a reason"));
        assert!(parse(FAILURES, "ops/a refrence # x").unwrap_err().contains(":1:"));
    }

    /// A result in which the given variants fail, of a case with all three.
    fn result(failing: &[Variant]) -> CaseResult {
        CaseResult::of_variants("ops/a", Variant::ALL.map(|v| (v, failing.contains(&v))))
    }

    #[test]
    fn only_listed_failures_are_excused() {
        let all = parse(FAILURES, "ops/a # why").unwrap();
        let one = parse(FAILURES, "ops/a reference # why").unwrap();
        assert_eq!(judge(&result(&[]), &[]), Ok(()));
        assert!(judge(&result(&[Variant::Program]), &[]).is_err());
        assert_eq!(judge(&result(&[Variant::Program]), &all), Ok(()));
        assert_eq!(judge(&result(&[Variant::Reference]), &one), Ok(()));
        let both = judge(&result(&[Variant::Reference, Variant::Program]), &one).unwrap_err();
        assert!(both.starts_with("program run:") && !both.contains("reference run"), "{both}");
    }

    #[test]
    fn a_listed_case_that_passes_fails_the_run() {
        for list in ["ops/a # why", "ops/* reference # why"] {
            let gone = judge(&result(&[]), &parse(FAILURES, list).unwrap()).unwrap_err();
            assert!(gone.contains("remove it from the list"), "{gone}");
        }
    }

    #[test]
    fn more_instructions_need_a_reason_and_a_reason_needs_more() {
        let listed = parse(MORE_INSTRUCTIONS, "ops/* # exact").unwrap();
        let of = |ours, theirs| CaseResult::of_instructions("ops/a", ours, theirs);
        assert_eq!(judge_instructions(&of(3, 3), &[]), Ok(()));
        assert!(judge_instructions(&of(4, 3), &[]).unwrap_err().starts_with("4 instructions, the reference has 3"));
        assert_eq!(judge_instructions(&of(4, 3), &listed), Ok(()));
        assert!(judge_instructions(&of(3, 3), &listed).unwrap_err().starts_with("more_instructions.txt:1: `ops/*`"));
        assert!(parse(MORE_INSTRUCTIONS, "ops/a reference # x").is_err());
    }

    #[test]
    fn entries_of_absent_collections_are_not_stale() {
        let entries = parse(FAILURES, "ops/a # x\nmodels/b # y").unwrap();
        let stale = stale(&entries, &["ops/c".to_owned()], |group| group == "ops").unwrap_err();
        assert_eq!(stale, "known_failures.txt:1: `ops/a` names no case");
    }

    #[test]
    fn the_committed_lists_are_well_formed() {
        for (file, text) in
            [(FAILURES, include_str!("../known_failures.txt")), (MORE_INSTRUCTIONS, include_str!("../more_instructions.txt"))]
        {
            let list = parse(file, text).unwrap();
            for (i, entry) in list.iter().enumerate() {
                assert!(
                    !list[..i].iter().any(|e| e.pattern == entry.pattern && e.variants == entry.variants),
                    "listed twice: {}",
                    entry.pattern
                );
            }
        }
    }
}
