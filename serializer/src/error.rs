//! The one error type of this crate: what is wrong, where in the file, and on the way to what.

use std::borrow::Cow;
use std::fmt;

use etx_ir::error::shortened;

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused (open, read, write, rename); [`std::error::Error::source`] is its answer.
    Io,
    /// The bytes are not this kind of file.
    BadMagic,
    /// A version or a variant of the format this crate does not know.
    Unsupported,
    /// An offset, a length or an index leaves what it points into.
    OutOfRange,
    /// The bytes contradict the format.
    Malformed,
    /// A field that the format requires is absent.
    Missing,
    /// The input asks for more work or memory than its size justifies.
    Limit,
    /// Well formed, but against a rule of the format: wrong element type, impossible plan, mismatched count.
    Invalid,
    /// A name that must be unique occurs twice with different meanings.
    Duplicate,
    /// No method, key or entry of that name.
    NotFound,
    /// The bytes of a weight could not be produced.
    Weights,
}

impl ErrorKind {
    const fn text(self) -> &'static str {
        match self {
            ErrorKind::Io => "input/output failed",
            ErrorKind::BadMagic => "not this kind of file",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::OutOfRange => "out of range",
            ErrorKind::Malformed => "malformed",
            ErrorKind::Missing => "missing",
            ErrorKind::Limit => "limit exceeded",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Duplicate => "duplicate",
            ErrorKind::NotFound => "not found",
            ErrorKind::Weights => "weights unavailable",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Why bytes could not be read or written.
///
/// One word wide. Prints as `outer: inner: message (at byte 0x1c)`; the offset is absolute in the outermost file. One
/// error may stand for several found together ([`Error::problems`]).
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    offset: Option<u64>,
    /// Innermost first.
    context: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Found together with this one.
    others: Vec<Error>,
    help: Option<Cow<'static, str>>,
}

impl Error {
    /// An error without a place. Add one with [`Error::at`].
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let message = match message.into() {
            Cow::Owned(text) => Cow::Owned(shortened(text)),
            fixed => fixed,
        };
        Error(Box::new(Inner { kind, message, offset: None, context: Vec::new(), source: None, others: Vec::new(), help: None }))
    }

    /// Sets the absolute byte offset, unless a more precise one is known already.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Adds what was being read or written, outermost last.
    #[must_use]
    pub fn within(mut self, what: impl Into<String>) -> Self {
        self.0.context.push(what.into());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what the reader should do about it, unless that is said already.
    #[must_use]
    pub fn help(mut self, help: impl Into<Cow<'static, str>>) -> Self {
        self.0.help.get_or_insert(help.into());
        self
    }

    /// What to do about it, where something can be done.
    pub fn remedy(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// An operating system error while doing `what` (for example ``cannot create `a/b.pte` ``).
    #[cold]
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Error::new(ErrorKind::Io, what.into()).because(source)
    }

    /// One error that stands for all of `errors`, in order; `None` when there are none.
    pub fn all(errors: impl IntoIterator<Item = Error>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        first.0.others.extend(errors);
        Some(first)
    }

    /// What went wrong (of the first problem).
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Absolute byte offset in the outermost file, where there is one.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The bare message, without place and context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What was being read or written, innermost first.
    pub fn context(&self) -> &[String] {
        &self.0.context
    }

    /// This problem and all others found together with it.
    pub fn problems(&self) -> impl Iterator<Item = &Error> {
        std::iter::once(self).chain(&self.0.others)
    }

    fn fmt_one(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in self.0.context.iter().rev() {
            write!(f, "{what}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(offset) = self.0.offset {
            write!(f, " (at byte {offset:#x})")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

/// A file that could not be mapped, or a weight that could not be read or derived.
impl From<etx_ir::error::Error> for Error {
    #[cold]
    fn from(e: etx_ir::error::Error) -> Self {
        let (kind, message) = match e.kind() {
            etx_ir::error::ErrorKind::Io => (ErrorKind::Io, "cannot read"),
            _ => (ErrorKind::Weights, "cannot produce its bytes"),
        };
        let help = e.remedy().map(str::to_owned);
        let bare = e.sentences().collect::<Vec<_>>().join("; ");
        help.into_iter().fold(Error::new(kind, message).because(bare), Error::help)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.others.is_empty() {
            self.fmt_one(f)?;
        } else {
            write!(f, "{} problems:", self.0.others.len() + 1)?;
            for problem in self.problems() {
                f.write_str("\n  ")?;
                problem.fmt_one(f)?;
            }
        }
        match &self.0.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, ErrorKind};

    #[test]
    fn prints_context_outermost_first_and_keeps_the_innermost_offset() {
        let e = Error::new(ErrorKind::OutOfRange, "4 bytes wanted, 2 left").at(0x1c).within("segment 2").within("a.pte");
        assert_eq!(e.at(7).to_string(), "a.pte: segment 2: 4 bytes wanted, 2 left (at byte 0x1c)");
    }

    #[test]
    fn several_problems_are_one_error() {
        let list = (0..3).map(|i| Error::new(ErrorKind::Invalid, format!("number {i}")).at(i));
        let e = Error::all(list).unwrap();
        assert_eq!(e.problems().count(), 3);
        assert_eq!(e.to_string(), "3 problems:\n  number 0 (at byte 0x0)\n  number 1 (at byte 0x1)\n  number 2 (at byte 0x2)");
        assert!(Error::all([]).is_none());
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
