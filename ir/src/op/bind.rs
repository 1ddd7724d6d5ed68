//! Puts the arguments of a call into the places its schema has for them.

use std::fmt;

use super::schema::{ArgType, Schema};

/// How an argument was given, by torch's export number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArgKind {
    /// Not recorded (0; files of schema 7 and older).
    Unknown,
    /// By position (1).
    Positional,
    /// By name (2).
    Keyword,
}

impl ArgKind {
    /// The kind of this export number.
    pub const fn from_pt2_code(code: i64) -> Option<ArgKind> {
        match code {
            0 => Some(ArgKind::Unknown),
            1 => Some(ArgKind::Positional),
            2 => Some(ArgKind::Keyword),
            _ => None,
        }
    }
}

/// The arguments of a call, one place for each of the schema's.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound<A> {
    /// As many as the schema has arguments, in its order. What is `None` has a default in the schema.
    pub args: Vec<Option<A>>,
    /// What a variadic operator got beyond them, in order, with names as given (empty for unnamed ones).
    pub extra: Vec<(String, ArgKind, A)>,
}

/// One thing that is wrong with the arguments of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindProblem {
    /// No argument has this name.
    Unknown(String),
    /// The argument was given twice.
    Duplicate(String),
    /// The argument was not given and has no default.
    Missing(String, ArgType),
    /// More unnamed arguments than there are places; how many there are.
    TooMany(usize),
}

/// All that is wrong with the arguments of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindError {
    /// Target of the operator.
    pub op: &'static str,
    /// The problems, in the order of the call, missing arguments last.
    pub problems: Vec<BindProblem>,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call of {}: ", self.op)?;
        for (i, problem) in self.problems.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "; " })?;
            match problem {
                BindProblem::Unknown(name) => write!(f, "unknown argument `{name}`")?,
                BindProblem::Duplicate(name) => write!(f, "argument `{name}` is given twice")?,
                BindProblem::Missing(name, ty) => write!(f, "argument `{name}` ({ty}) is missing")?,
                BindProblem::TooMany(places) => write!(f, "more than {places} positional arguments")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for BindError {}

/// Binds the arguments of a call to the schema.
///
/// Each argument comes with its name (empty if it has none), the way it was given, and a payload that is only moved. A
/// name decides alone, whatever the kind: files disagree with themselves about it. Unnamed arguments take the places
/// from the left, after the last one taken by position. Defaults are not filled in: that is the caller's, who knows how
/// to make a payload. Types are not checked.
///
/// # Errors
/// Unknown, repeated and missing arguments, all of them at once.
pub fn bind<A, N: AsRef<str>>(schema: &'static Schema, args: impl IntoIterator<Item = (N, ArgKind, A)>) -> Result<Bound<A>, BindError> {
    let mut bound = Bound { args: schema.args.iter().map(|_| None).collect::<Vec<Option<A>>>(), extra: Vec::new() };
    let mut problems = Vec::new();
    let places = schema.args.iter().take_while(|a| !a.kw_only).count();
    let (mut next, mut too_many) = (0, false);
    for (name, kind, payload) in args {
        let name = name.as_ref();
        let unnamed = name.is_empty() && kind != ArgKind::Keyword;
        let place = if unnamed { Some(next).filter(|n| *n < places) } else { schema.position(name) };
        match place.and_then(|p| Some((p, bound.args.get_mut(p)?, schema.args.get(p)?))) {
            Some((_, Some(_), spec)) => problems.push(BindProblem::Duplicate(spec.name.clone())),
            Some((place, slot, _)) => {
                *slot = Some(payload);
                if place < places && kind != ArgKind::Keyword {
                    next = next.max(place + 1);
                }
            }
            None if schema.traits.variadic => bound.extra.push((name.to_owned(), kind, payload)),
            None if unnamed => too_many = true,
            None => problems.push(BindProblem::Unknown(name.to_owned())),
        }
    }
    if too_many {
        problems.push(BindProblem::TooMany(places));
    }
    for (spec, slot) in schema.args.iter().zip(&bound.args) {
        if slot.is_none() && spec.default.is_none() {
            problems.push(BindProblem::Missing(spec.name.clone(), spec.ty.clone()));
        }
    }
    if problems.is_empty() { Ok(bound) } else { Err(BindError { op: &schema.target, problems }) }
}
