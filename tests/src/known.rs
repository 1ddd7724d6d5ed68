//! The list of failures known for now: `known_failures.txt`.
//!
//! One entry a line, `GROUP/NAME [VARIANT…]  # reason`. `*` in the name stands for any characters. With variants (`program`,
//! `functional`, `reference`) only those may fail, and must.

use crate::check::Variant;

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
