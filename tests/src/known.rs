//! The list of failures known for now: `known_failures.txt`.
//!
//! One entry a line, `GROUP/NAME [VARIANT…]  # reason`. `*` in the name stands for any characters. With variants (`program`,
//! `functional`, `reference`) only those may fail, and must.

use crate::check::Variant;
use crate::report::CaseResult;

/// One line of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
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

    /// The group of cases that the pattern names.
    pub fn group(&self) -> &str {
        self.pattern.split('/').next().unwrap_or_default()
    }
}

/// Read the list; every entry must have a reason.
pub fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let bad = |why: &str| format!("known_failures.txt:{number}: {why}: {line}");
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
            .collect::<Result<_, _>>()?;
        entries.push(Entry { line: number, pattern: pattern.to_owned(), variants, reason: reason.to_owned() });
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
            wrong.push(format!(
                "known_failures.txt:{}: `{}` is listed ({}), but {} passes: remove it from the list",
                entry.line,
                entry.pattern,
                entry.reason,
                gone.join(" and ")
            ));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Entries that name no case. Only those count whose group is here as a whole: the folders of the others may simply be absent.
pub fn stale(entries: &[Entry], cases: &[String], whole_group: impl Fn(&str) -> bool) -> Result<(), String> {
    let stale: Vec<String> = entries
        .iter()
        .filter(|e| whole_group(e.group()) && !cases.iter().any(|case| e.covers(case)))
        .map(|e| format!("known_failures.txt:{}: `{}` names no case", e.line, e.pattern))
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
        let list = parse("# heading\n\nops/a  # why\nmodels/b/* reference functional # because\n").unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[1].variants, [Variant::Reference, Variant::Functional]);
        assert_eq!((list[1].line, list[1].group()), (4, "models"));
        assert!(parse("ops/a").unwrap_err().contains("needs a reason"));
        assert!(parse("ops/a refrence # x").unwrap_err().contains(":1:"));
    }

    /// A result in which the given variants fail, of a case with all three.
    fn result(failing: &[Variant]) -> CaseResult {
        CaseResult::of_variants("ops/a", Variant::ALL.map(|v| (v, failing.contains(&v))))
    }

    #[test]
    fn only_listed_failures_are_excused() {
        let all = parse("ops/a # why").unwrap();
        let one = parse("ops/a reference # why").unwrap();
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
            let gone = judge(&result(&[]), &parse(list).unwrap()).unwrap_err();
            assert!(gone.contains("remove it from the list"), "{gone}");
        }
    }

    #[test]
    fn entries_of_absent_collections_are_not_stale() {
        let entries = parse("ops/a # x\nmodels/b # y").unwrap();
        let stale = stale(&entries, &["ops/c".to_owned()], |group| group == "ops").unwrap_err();
        assert_eq!(stale, "known_failures.txt:1: `ops/a` names no case");
    }

    #[test]
    fn the_committed_list_is_well_formed() {
        let list = parse(include_str!("../known_failures.txt")).unwrap();
        for (i, entry) in list.iter().enumerate() {
            assert!(
                !list[..i].iter().any(|e| e.pattern == entry.pattern && e.variants == entry.variants),
                "listed twice: {}",
                entry.pattern
            );
        }
    }
}
