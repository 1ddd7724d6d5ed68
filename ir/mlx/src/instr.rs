//! From the table to code: the [`Instr`] enum and everything that can be said about instructions in general.

use std::fmt;

use super::field::{FieldSpec, FieldValue, Presence};
use super::table::{INSTRUCTIONS, Instr};

/// One instruction, as the table declares it.
#[derive(Clone, Copy, Debug)]
pub struct InstrSpec {
    /// Type number in the union `OpNode`: the position in the table, from 1.
    pub id: u8,
    /// Name: the variant of [`Instr`].
    pub name: &'static str,
    /// Name of the FlatBuffer table.
    pub wire_name: &'static str,
    /// What the instruction computes.
    pub doc: &'static str,
    /// Fields in the order of their wire ids.
    pub fields: &'static [FieldSpec],
}

impl InstrSpec {
    /// The instruction with this type number, if there is one.
    pub fn from_id(id: u8) -> Option<&'static InstrSpec> {
        INSTRUCTIONS.get(usize::from(id).checked_sub(1)?)
    }

    /// The instruction with this name (of [`Instr`], without `Node`), if there is one.
    pub fn from_name(name: &str) -> Option<&'static InstrSpec> {
        INSTRUCTIONS.iter().find(|spec| spec.name == name)
    }
}

/// Why [`Instr::from_fields`] cannot make an instruction.
#[derive(Clone, Copy, Debug)]
pub enum FieldError {
    /// No instruction has this number.
    UnknownInstruction(u8),
    /// The field must be present.
    Missing(&'static FieldSpec),
    /// The value given is not of the kind of the field.
    WrongKind(&'static FieldSpec),
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldError::UnknownInstruction(id) => {
                write!(f, "instruction type {id} is unknown (the last one known is {})", INSTRUCTIONS.len())
            }
            FieldError::Missing(field) => write!(f, "required field `{}` is missing", field.name),
            FieldError::WrongKind(field) => write!(f, "field `{}` must be of kind {:?}", field.name, field.kind),
        }
    }
}

impl std::error::Error for FieldError {}

impl Instr {
    /// Its entry in the table.
    pub fn spec(&self) -> &'static InstrSpec {
        // The ids are those of the table (checked when it is compiled), so this never indexes outside.
        &INSTRUCTIONS[usize::from(self.id()) - 1]
    }

    /// Name: the variant.
    pub fn name(&self) -> &'static str {
        self.spec().name
    }

    /// Every field with its value, `None` if absent, in the order of wire ids. Defaults count as present.
    pub fn fields(&self) -> impl Iterator<Item = (&'static FieldSpec, Option<FieldValue<'_>>)> {
        self.spec().fields.iter().zip(self.field_values())
    }

    /// The chains it runs, as the file states them.
    pub fn calls(&self) -> impl Iterator<Item = i64> + use<> {
        let calls = match *self {
            Instr::If { then_chain_idx, else_chain_idx, .. } => [Some(i64::from(then_chain_idx)), Some(i64::from(else_chain_idx))],
            Instr::Scan { body_chain_idx, .. } => [Some(i64::from(body_chain_idx)), None],
            _ => [None, None],
        };
        calls.into_iter().flatten()
    }
}

/// A field of an instruction that is being made: the value the source gives, else what absence means.
pub(super) fn make_field<'a, T: super::field::Field, E: From<FieldError>>(
    specs: &mut std::slice::Iter<'static, FieldSpec>,
    source: &mut impl FnMut(&'static FieldSpec) -> Result<Option<FieldValue<'a>>, E>,
) -> Result<T, E> {
    let Some(spec) = specs.next() else { return Err(FieldError::UnknownInstruction(0).into()) };
    let value = match (source(spec)?, spec.presence) {
        (None, Presence::Default(default)) => Some(FieldValue::Scalar(default)),
        (value, _) => value,
    };
    match value {
        Some(value) => T::set(value).ok_or_else(|| FieldError::WrongKind(spec).into()),
        None => T::absent().ok_or_else(|| FieldError::Missing(spec).into()),
    }
}
