//! From a description of tables to a reader and a writer of them.
//!
//! [`tables!`], [`unions!`] and [`codes!`] take the schema as it is written down in [`model`](super::model) and derive the
//! struct, the reading and the writing, so the two directions cannot disagree.

use flatbuffers::{FlatBufferBuilder, Push, UnionWIPOffset, WIPOffset};

use crate::error::{Error, ErrorKind, Result};
use crate::flat::Table;
use crate::window::Scalar;

/// When a field must be there, and when it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Absent is an error; always written.
    Required,
    /// Absent means zero or empty; always written, as upstream's emitter does and its loader sometimes demands.
    Kept,
    /// Absent means zero or empty, which is not written.
    Omitted,
}

/// Something written into the buffer already, to be referred to.
pub(crate) type Offset = WIPOffset<UnionWIPOffset>;

/// The buffer being written, back to front; counts tables, for which upstream's verifier has a limit.
#[derive(Default)]
pub(crate) struct Builder {
    inner: FlatBufferBuilder<'static>,
    tables: u64,
}

impl Builder {
    fn table(&mut self, fields: impl FnOnce(&mut FlatBufferBuilder<'static>)) -> Offset {
        let start = self.inner.start_table();
        fields(&mut self.inner);
        self.tables += 1;
        self.inner.end_table(start).as_union_value()
    }

    fn vector<T: Push<Output: 'static> + Copy>(&mut self, items: &[T]) -> Offset {
        self.inner.create_vector(items).as_union_value()
    }
}

/// Encodes `root` with a file identifier: the buffer, and how many tables it has.
///
/// # Errors
/// [`ErrorKind::Limit`] when it might not stay below the 2 GiB that FlatBuffers offsets reach.
pub(crate) fn encode(root: &impl FlatTable, identifier: &str) -> Result<(Vec<u8>, u64)> {
    let bound = root.table_bound();
    if bound >= i32::MAX as u64 {
        return Err(Error::new(
            ErrorKind::Limit,
            format!("the program without its segments may take {bound} bytes; FlatBuffers ends at 2 GiB"),
        ));
    }
    let mut b = Builder::default();
    let root = root.to_table(&mut b);
    b.inner.finish(root, Some(identifier));
    Ok((b.inner.finished_data().to_vec(), b.tables))
}

/// A value that fills a table of its own.
pub(crate) trait FlatTable: Sized {
    fn from_table(t: Table<'_, '_>) -> Result<Self>;
    fn to_table(&self, b: &mut Builder) -> Offset;
    /// At least the bytes it takes when written.
    fn table_bound(&self) -> u64;
}

/// A value that fills one slot of a table.
pub(crate) trait Field: Default + PartialEq {
    /// What is left to put into the slot once everything it refers to is written.
    type Ready: Push + Copy;
    fn read(t: &Table<'_, '_>, slot: u16) -> Result<Option<Self>>;
    /// `None` when the slot stays empty.
    fn prepare(&self, b: &mut Builder) -> Option<Self::Ready>;
    fn bound(&self) -> u64;
}

pub(crate) fn read_field<F: Field>(t: &Table<'_, '_>, slot: u16, name: &'static str, presence: Presence) -> Result<F> {
    match F::read(t, slot).map_err(|e| e.within(name))? {
        Some(value) => Ok(value),
        None if presence == Presence::Required => t.require(None, name),
        None => Ok(F::default()),
    }
}

pub(crate) fn prepare_field<F: Field>(value: &F, presence: Presence, b: &mut Builder) -> Option<F::Ready> {
    if presence == Presence::Omitted && *value == F::default() {
        return None;
    }
    value.prepare(b)
}

/// The slots of one table being written.
pub(crate) struct Slots<'b>(&'b mut FlatBufferBuilder<'static>);

impl Slots<'_> {
    pub(crate) fn put<R: Push + Copy>(&mut self, slot: u16, ready: Option<R>) {
        if let Some(ready) = ready {
            // A vtable starts with two u16 of its own.
            self.0.push_slot_always(4 + 2 * slot, ready);
        }
    }
}

pub(crate) fn write_table(b: &mut Builder, fields: impl FnOnce(&mut Slots<'_>)) -> Offset {
    b.table(|inner| fields(&mut Slots(inner)))
}

/// Vtable, its distance, alignment: more than any table has beside its fields.
pub(crate) const TABLE_BOUND: u64 = 64;
/// An offset, a length, alignment, a terminator.
const VECTOR_BOUND: u64 = 24;

macro_rules! scalar_fields {
    ($($ty:ty),*) => { $(
        impl Field for $ty {
            type Ready = $ty;
            fn read(t: &Table<'_, '_>, slot: u16) -> Result<Option<Self>> {
                t.optional(slot)
            }
            fn prepare(&self, _: &mut Builder) -> Option<$ty> {
                Some(*self)
            }
            fn bound(&self) -> u64 {
                16
            }
        }
        impl Field for Vec<$ty> {
            type Ready = Offset;
            fn read(t: &Table<'_, '_>, slot: u16) -> Result<Option<Self>> {
                t.scalars(slot)
            }
            fn prepare(&self, b: &mut Builder) -> Option<Offset> {
                Some(b.vector(self))
            }
            fn bound(&self) -> u64 {
                VECTOR_BOUND + self.len() as u64 * <$ty as Scalar>::SIZE as u64
            }
        }
    )* };
}
scalar_fields!(bool, u8, i8, u32, i32, u64, i64, f64);

impl Field for String {
    type Ready = Offset;
    fn read(t: &Table<'_, '_>, slot: u16) -> Result<Option<Self>> {
        Ok(t.string(slot)?.map(str::to_owned))
    }
    fn prepare(&self, b: &mut Builder) -> Option<Offset> {
        Some(b.inner.create_string(self).as_union_value())
    }
    fn bound(&self) -> u64 {
        VECTOR_BOUND + self.len() as u64
    }
}

impl<T: FlatTable + Default + PartialEq> Field for T {
    type Ready = Offset;
    fn read(t: &Table<'_, '_>, slot: u16) -> Result<Option<Self>> {
        t.table(slot)?.map(T::from_table).transpose()
    }
    fn prepare(&self, b: &mut Builder) -> Option<Offset> {
        Some(self.to_table(b))
    }
    fn bound(&self) -> u64 {
        self.table_bound()
    }
}

impl<T: FlatTable + PartialEq> Field for Option<T> {
    type Ready = Offset;
    fn read(t: &Table<'_, '_>, slot: u16) -> Result<Option<Self>> {
        Ok(t.table(slot)?.map(T::from_table).transpose()?.map(Some))
    }
    fn prepare(&self, b: &mut Builder) -> Option<Offset> {
        self.as_ref().map(|value| value.to_table(b))
    }
    fn bound(&self) -> u64 {
        self.as_ref().map_or(0, T::table_bound)
    }
}

impl<T: FlatTable + PartialEq> Field for Vec<T> {
    type Ready = Offset;
    fn read(t: &Table<'_, '_>, slot: u16) -> Result<Option<Self>> {
        let Some(tables) = t.tables(slot)? else { return Ok(None) };
        let one = |(i, t)| T::from_table(t).map_err(|e: Error| e.within(format!("#{i}")));
        tables.into_iter().enumerate().map(one).collect::<Result<_>>().map(Some)
    }
    fn prepare(&self, b: &mut Builder) -> Option<Offset> {
        let offsets: Vec<Offset> = self.iter().map(|item| item.to_table(b)).collect();
        Some(b.vector(&offsets))
    }
    fn bound(&self) -> u64 {
        VECTOR_BOUND + self.iter().map(|item| 4 + item.table_bound()).sum::<u64>()
    }
}

/// Declares tables: `slot field: type, presence;`.
macro_rules! tables {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$fdoc:meta])* $slot:literal $field:ident: $ty:ty, $presence:ident; )* } )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name { $( $(#[$fdoc])* pub $field: $ty, )* }

        impl FlatTable for $name {
            fn from_table(t: Table<'_, '_>) -> Result<Self> {
                Ok($name { $( $field: read_field(&t, $slot, stringify!($field), Presence::$presence)?, )* })
            }
            fn to_table(&self, b: &mut Builder) -> Offset {
                $( let $field = prepare_field(&self.$field, Presence::$presence, b); )*
                write_table(b, |slots| { $( slots.put($slot, $field); )* })
            }
            fn table_bound(&self) -> u64 {
                TABLE_BOUND $( + 2 + Field::bound(&self.$field) )*
            }
        }
    )* };
}
pub(crate) use tables;

/// Declares tables that hold nothing but a union (slot 0 its tag, slot 1 its value): alternatives without a payload, those
/// whose table has one field, and those with a table declared elsewhere.
macro_rules! unions {
    ($(
        $(#[$doc:meta])* $name:ident {
            empty { $( $(#[$edoc:meta])* $etag:literal $empty:ident; )* }
            field { $( $(#[$sdoc:meta])* $stag:literal $single:ident($field:ident: $ty:ty, $presence:ident); )* }
            table { $( $(#[$tdoc:meta])* $ttag:literal $table:ident; )* }
        }
    )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $( $(#[$edoc])* $empty, )*
            $( $(#[$sdoc])* $single($ty), )*
            $( $(#[$tdoc])* $table($table), )*
        }

        impl FlatTable for $name {
            fn from_table(t: Table<'_, '_>) -> Result<Self> {
                let tag = t.scalar(0, 0u8)?;
                // Upstream's loader, too, does not ask for the payload of an alternative that has none.
                $( if tag == $etag { return Ok($name::$empty); } )*
                let Some((_, value)) = t.union(0)? else {
                    return Err(Error::new(ErrorKind::Missing, "the union is empty").at(t.offset()));
                };
                match tag {
                    $( $stag => read_field(&value, 0, stringify!($field), Presence::$presence)
                        .map($name::$single).map_err(|e| e.within(stringify!($single))), )*
                    $( $ttag => $table::from_table(value).map($name::$table).map_err(|e| e.within(stringify!($table))), )*
                    other => {
                        let text = format!("{} of unknown type {other}", stringify!($name));
                        Err(Error::new(ErrorKind::Unsupported, text).at(t.offset()))
                    }
                }
            }
            fn to_table(&self, b: &mut Builder) -> Offset {
                let (tag, value): (u8, Offset) = match self {
                    $( $name::$empty => ($etag, write_table(b, |_| ())), )*
                    $( $name::$single(value) => {
                        let ready = prepare_field(value, Presence::$presence, b);
                        ($stag, write_table(b, |slots| slots.put(0, ready)))
                    } )*
                    $( $name::$table(value) => ($ttag, value.to_table(b)), )*
                };
                write_table(b, |slots| {
                    slots.put(0, Some(tag));
                    slots.put(1, Some(value));
                })
            }
            fn table_bound(&self) -> u64 {
                2 * TABLE_BOUND + match self {
                    $( $name::$empty => 0, )*
                    $( $name::$single(value) => Field::bound(value), )*
                    $( $name::$table(value) => value.table_bound(), )*
                }
            }
        }
    )* };
}
pub(crate) use unions;

/// Declares enumerations stored in one signed byte; the first alternative is the default.
macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$vdoc:meta])* $code:literal $variant:ident; )* } )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$vdoc])* $variant = $code, )* }

        impl Default for $name {
            fn default() -> Self {
                let [first, ..] = [$( $name::$variant ),*];
                first
            }
        }

        impl Field for $name {
            type Ready = i8;
            fn read(t: &Table<'_, '_>, slot: u16) -> Result<Option<Self>> {
                match t.optional::<i8>(slot)? {
                    None => Ok(None),
                    $( Some($code) => Ok(Some($name::$variant)), )*
                    Some(other) => {
                        let text = format!("unknown {} {other}", stringify!($name));
                        Err(Error::new(ErrorKind::Unsupported, text).at(t.offset()))
                    }
                }
            }
            fn prepare(&self, _: &mut Builder) -> Option<i8> {
                Some(*self as i8)
            }
            fn bound(&self) -> u64 {
                1
            }
        }
    )* };
}
pub(crate) use codes;
