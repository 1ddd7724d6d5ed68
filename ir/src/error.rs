//! The error of this crate: what kind, where, and what to do.

use std::fmt;

/// What went wrong, for callers that match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused.
    Io,
    /// The file is not of any accepted kind, is cut short, or contradicts itself.
    Format,
    /// The file is of a version that is not supported.
    Version,
    /// The program uses operators that are not known.
    UnknownOperator,
    /// A weight is missing or does not fit its description.
    Weight,
    /// The program is not well formed (see the `verify` module).
    Invalid,
    /// The input is legal but not supported.
    Unsupported,
    /// No shape rule accepts these operands.
    Shape,
    /// A call failed while the program was evaluated: an index out of range, sizes that do not fit, a failed assertion.
    Evaluation,
    /// etx contradicts itself.
    Bug,
}

/// Longest line of a message; what is longer quotes a file.
const MOST_OF_A_LINE: usize = 1000;

/// The text with lines of a length that people read: of longer ones the beginning and the end are kept. Messages quote names and
/// numbers of files, and a file can hold a name of a megabyte.
#[must_use]
pub fn shortened(text: String) -> String {
    // In bytes, which no character is shorter than.
    if text.len() <= MOST_OF_A_LINE {
        return text;
    }
    let line = |line: &str| {
        let count = line.chars().count();
        if count <= MOST_OF_A_LINE {
            return line.to_owned();
        }
        let (head, tail) = (MOST_OF_A_LINE * 3 / 4, MOST_OF_A_LINE / 5);
        let mut short: String = line.chars().take(head).collect();
        short.push_str(&format!(" … ({} characters left out) … ", count - head - tail));
        short.extend(line.chars().skip(count - tail));
        short
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// An error with all the findings that belong to it, each complete in itself.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    findings: Vec<String>,
    context: Vec<String>,
    help: Option<String>,
}

impl Error {
    /// An error of one finding: a sentence saying what and where.
    #[cold]
    pub fn new(kind: ErrorKind, finding: impl Into<String>) -> Self {
        Self::many(kind, vec![finding.into()])
    }

    /// An error of several findings that were collected before stopping.
    #[cold]
    pub fn many(kind: ErrorKind, findings: Vec<String>) -> Self {
        let findings = findings.into_iter().map(shortened).collect();
        Self(Box::new(Inner { kind, findings, context: Vec::new(), help: None }))
    }

    /// Adds what the reader should do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Adds where it happened, outermost last.
    #[must_use]
    pub fn within(mut self, place: impl Into<String>) -> Self {
        self.0.context.push(shortened(place.into()));
        self
    }

    /// The same error, found where only a mistake of etx can have put it.
    #[must_use]
    pub fn into_bug(mut self) -> Self {
        self.0.kind = ErrorKind::Bug;
        self.help("this is a bug in etx; please report it")
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The findings, in the order of the program.
    pub fn findings(&self) -> &[String] {
        &self.0.findings
    }

    /// What to do about it, where something can be done.
    pub fn remedy(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The findings with the places they were made in: each is complete in itself.
    pub fn sentences(&self) -> impl Iterator<Item = String> + '_ {
        let place: String = self.0.context.iter().rev().map(|c| format!("{c}: ")).collect();
        self.0.findings.iter().map(move |f| format!("{place}{f}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.0.context.iter().rev() {
            write!(f, "{place}: ")?;
        }
        match self.0.findings.as_slice() {
            [one] => f.write_str(one)?,
            many => {
                write!(f, "{} problems", many.len())?;
                for finding in many {
                    write!(f, "\n  {finding}")?;
                }
            }
        }
        match &self.0.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_quotes_a_file_is_cut_and_lists_are_not() {
        let long = format!("names {:?}: wrong", "é".repeat(500_000));
        let e = Error::new(ErrorKind::Format, long.clone()).within(long);
        let text = e.to_string();
        assert!(text.len() < 5000 && text.starts_with("names") && text.ends_with(": wrong") && text.contains("left out"), "{text}");
        let list = vec!["a finding"; 1000].join("\n");
        assert_eq!(shortened(list.clone()), list);
    }
}
