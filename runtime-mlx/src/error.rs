//! The one error type of this room.

use std::fmt;

use etx_ir::error::shortened;

/// Result of anything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong; match on this, print the [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Shapes do not fit each other or the operation.
    Shape,
    /// An element type that the operation does not take.
    DType,
    /// An index, axis, slot or chain out of range.
    Range,
    /// A slot was read before anything was written to it.
    Unset,
    /// A result would be larger than the limit, or a size computation overflows.
    Limit,
    /// A valid request that this runtime cannot serve.
    Unsupported,
    /// The caller's arguments do not fit the method.
    Argument,
    /// The sizes or numbers of a call are not those for which the program was exported.
    Condition,
    /// The file or a program in it is malformed.
    Format,
    /// The operating system refused to read the file.
    Io,
}

/// What went wrong, where. The text starts with the outermost place (method, chain, instruction).
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    /// Innermost place first.
    places: Vec<String>,
    help: Option<String>,
}

impl Error {
    /// An error of a kind, described for a person.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: shortened(message.into()), places: Vec::new(), help: None }))
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The same error, known to have happened inside `place`.
    #[must_use]
    pub fn within(mut self, place: impl Into<String>) -> Self {
        self.0.places.push(shortened(place.into()));
        self
    }

    /// Adds what the reader should do about it, unless that is said already.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help.get_or_insert(help.into());
        self
    }

    /// What to do about it, where something can be done.
    pub fn remedy(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    pub(crate) fn shape(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Shape, message)
    }

    pub(crate) fn dtype(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::DType, message)
    }

    pub(crate) fn range(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Range, message)
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Limit, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn format(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Format, message)
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Argument, message)
    }

    pub(crate) fn condition(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Condition, message)
    }

    pub(crate) fn unset(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unset, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.0.places.iter().rev() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.message)?;
        match &self.0.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {self})", self.0.kind)
    }
}

impl std::error::Error for Error {}
