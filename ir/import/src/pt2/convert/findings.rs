//! What is wrong with a program, collected so that one run tells all.

use std::collections::BTreeMap;
use std::sync::Arc;

use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::Source;

/// At most this many findings of one kind are listed.
const MAX_LISTED: usize = 50;

/// What is wrong, by kind: each kind has its own remedy, so an error is of one kind only.
#[derive(Default)]
pub(super) struct Findings {
    unknown: BTreeMap<String, (usize, Option<Arc<Source>>)>,
    broken: Listed<String>,
    weights: Listed<(String, Error)>,
}

struct Listed<T> {
    first: Vec<T>,
    count: usize,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { first: Vec::new(), count: 0 }
    }
}

impl<T> Listed<T> {
    fn add(&mut self, item: T) {
        self.count += 1;
        if self.first.len() < MAX_LISTED {
            self.first.push(item);
        }
    }

    fn lines(&self, line: impl Fn(&T) -> Vec<String>) -> Vec<String> {
        let mut lines: Vec<String> = self.first.iter().flat_map(line).collect();
        if self.count > self.first.len() {
            lines.push(format!("and {} more", self.count - self.first.len()));
        }
        lines
    }
}

impl Findings {
    /// A call of an operator that is not known.
    pub(super) fn unknown(&mut self, target: &str, source: Option<Arc<Source>>) {
        match self.unknown.get_mut(target) {
            Some((n, _)) => *n += 1,
            None => _ = self.unknown.insert(target.to_owned(), (1, source)),
        }
    }

    /// Something that contradicts the format.
    pub(super) fn broken(&mut self, what: String) {
        self.broken.add(what);
    }

    /// A weight that is missing or does not fit.
    pub(super) fn weight(&mut self, fqn: &str, e: Error) {
        self.weights.add((fqn.to_owned(), e));
    }

    /// Whether a weight was found missing or not to fit.
    pub(super) fn any_weight(&self) -> bool {
        self.weights.count > 0
    }

    /// The error, if anything is wrong.
    pub(super) fn finish(self) -> Result<(), Error> {
        if !self.unknown.is_empty() {
            let mut all = Listed::default();
            self.unknown.iter().for_each(|u| all.add(u));
            let lines = all.lines(|(target, (n, source))| {
                let at = source.as_ref().map_or_else(String::new, |s| format!(", first at {s}"));
                vec![format!("unknown operator {target}, {n} call{}{at}", if *n == 1 { "" } else { "s" })]
            });
            let torchs = |target: &String| target.starts_with("torch.ops.aten.") || target.starts_with("torch._");
            return Err(Error::many(ErrorKind::UnknownOperator, lines).help(if self.unknown.keys().any(torchs) {
                "save `exported_program.run_decompositions({})` instead of `exported_program`: it takes such operators apart; where torch \
                 refuses that, export with strict=True"
            } else {
                "declare operators of your own with `OpId::register` (library) before loading, or decompose them before exporting"
            }));
        }
        if self.broken.count > 0 {
            return Err(Error::many(ErrorKind::Format, self.broken.lines(|what| vec![what.clone()])));
        }
        let Some((_, first)) = self.weights.first.first() else { return Ok(()) };
        let help = first.remedy().map(str::to_owned);
        // Weights are missing, or do not fit, for one reason as a rule; what to do is said once.
        let e = Error::many(first.kind(), self.weights.lines(|(fqn, e)| e.sentences().map(|s| format!("weight {fqn:?}: {s}")).collect()));
        Err(match help {
            Some(help) => e.help(help),
            None => e,
        })
    }
}
