//! Operators that a user adds while the program runs.

use std::collections::BTreeMap;
use std::sync::{OnceLock, PoisonError, RwLock};

use crate::error::{Error, ErrorKind};

use super::schema::{Kind, Schema, Traits};
use super::{effects, parse};

/// Most operators that can be added: ids of added ones and of built-in ones share 32 bits with two marks.
const MAX: usize = 1 << 24;

struct Entry {
    schema: Schema,
    functional: OnceLock<Schema>,
}

/// Entries live as long as the process, so that what is read from them needs no lock.
struct Registry {
    entries: Vec<&'static Entry>,
    by_target: BTreeMap<&'static str, u32>,
}

static REGISTRY: RwLock<Registry> = RwLock::new(Registry { entries: Vec::new(), by_target: BTreeMap::new() });

/// Stands where there is no operator; see [`super::OpId::UNKNOWN`].
pub(super) fn unknown() -> &'static Schema {
    static UNKNOWN: OnceLock<Schema> = OnceLock::new();
    UNKNOWN.get_or_init(|| Schema {
        target: "unknown".to_owned(),
        ns: String::new(),
        name: "unknown".to_owned(),
        overload: String::new(),
        args: Vec::new(),
        returns: Vec::new(),
        kind: Kind::Function,
        traits: Traits { effect: true, variadic: true, ..Traits::default() },
    })
}

/// Adds an operator, or finds the one that is there with the same schema.
pub(super) fn register(line: &str) -> Result<Registered, Error> {
    let schema = parse::parse(line)?;
    let conflict = |known: &Schema| {
        Error::new(ErrorKind::Invalid, format!("operator {} is known with another schema: {known}", schema.target))
            .help("register it under another name, or with this schema")
    };
    if let Some(index) = super::table::find(schema.target.as_bytes()) {
        let known = super::table::schema(index);
        return if *known == schema { Ok(Registered::BuiltIn(index)) } else { Err(conflict(known)) };
    }
    if super::split_functional(&schema.target).is_some() {
        return Err(Error::new(ErrorKind::Invalid, format!("the overload of {} ends in the reserved `_functional`", schema.target)));
    }
    let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
    if let Some((index, entry)) =
        registry.by_target.get(schema.target.as_str()).and_then(|i| Some((*i, registry.entries.get(*i as usize)?)))
    {
        return if entry.schema == schema { Ok(Registered::Added(index)) } else { Err(conflict(&entry.schema)) };
    }
    let index = u32::try_from(registry.entries.len()).ok().filter(|n| (*n as usize) < MAX);
    let index = index.ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("more than {MAX} operators")))?;
    let entry: &'static Entry = Box::leak(Box::new(Entry { schema, functional: OnceLock::new() }));
    registry.entries.push(entry);
    registry.by_target.insert(&entry.schema.target, index);
    Ok(Registered::Added(index))
}

/// Where a registered operator was found.
pub(super) enum Registered {
    BuiltIn(u32),
    Added(u32),
}

/// Position of an added operator.
pub(super) fn find(target: &str) -> Option<u32> {
    REGISTRY.read().unwrap_or_else(PoisonError::into_inner).by_target.get(target).copied()
}

fn entry(index: u32) -> Option<&'static Entry> {
    REGISTRY.read().unwrap_or_else(PoisonError::into_inner).entries.get(index as usize).copied()
}

/// The schema of an added operator.
pub(super) fn schema(index: u32) -> &'static Schema {
    entry(index).map_or_else(unknown, |e| &e.schema)
}

/// The schema of an added operator's functional variant.
pub(super) fn functional(index: u32) -> &'static Schema {
    entry(index).map_or_else(unknown, |e| e.functional.get_or_init(|| effects::functional_schema(&e.schema)))
}
