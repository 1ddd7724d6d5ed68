//! What an instruction field can be: its kinds, its presence on the wire, and its value seen uniformly.
//!
//! The codec and the printer know only this module and the table, never a particular instruction.

use std::borrow::Cow;

use super::ids::{Access, FloatOrVid, IntOrVid, IntOrVidOrTid, SlotRef, Tid, Vid, VidOrTid};
use etx_ir::DType;

/// Whether a field may be left out, and what that means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Presence {
    /// Must be there.
    Required,
    /// May be absent, which is different from every value.
    Optional,
    /// Absent means this value.
    Default(Scalar),
}

/// A plain number (or truth value, or dtype) that belongs to the instruction itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// 32-bit signed integer.
    I32(i32),
    /// 32-bit unsigned integer.
    U32(u32),
    /// 64-bit unsigned integer.
    U64(u64),
    /// Single-precision number.
    F32(f32),
    /// Truth value.
    Bool(bool),
    /// Element type, written as ExecuTorch's number.
    DType(DType),
}

impl Scalar {
    /// Equality bit by bit: NaN equals itself, and -0.0 is not 0.0.
    ///
    /// A default may only be elided on this condition, else a program would not read back as it was written.
    pub fn same(self, other: Scalar) -> bool {
        match (self, other) {
            (Scalar::F32(a), Scalar::F32(b)) => a.to_bits() == b.to_bits(),
            _ => self == other,
        }
    }
}

/// One field of an instruction, as the table declares it.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// Name, here and in the FlatBuffer schema.
    pub name: &'static str,
    /// Position in the FlatBuffer table: the wire id.
    pub id: u16,
    /// What it holds.
    pub kind: FieldKind,
    /// Whether it may be absent.
    pub presence: Presence,
    /// What the instruction does to the slots in it.
    pub access: Access,
}

impl FieldSpec {
    pub(super) const fn of<T: Field>(name: &'static str) -> Self {
        FieldSpec { name, id: 0, kind: T::KIND, presence: T::PRESENCE, access: access_of(name) }
    }

    pub(super) const fn or_default(mut self, value: Scalar) -> Self {
        self.presence = Presence::Default(value);
        self
    }
}

/// Gives fields their wire ids: the position in the table entry.
pub(super) const fn numbered<const N: usize>(mut fields: [FieldSpec; N]) -> [FieldSpec; N] {
    let mut id = 0;
    while id < N {
        fields[id].id = id as u16;
        id += 1;
    }
    fields
}

/// A slot field is written exactly if it has one of these names; the table keeps to that.
pub(super) const fn access_of(name: &str) -> Access {
    match name.as_bytes() {
        b"out" | b"outs" | b"outputs" | b"sliced" => Access::Write,
        _ => Access::Read,
    }
}

/// A default as the table writes it, typed by the field.
pub(super) struct Literal<T>(pub(super) T);

macro_rules! scalars {
    ($($ty:ty => $variant:ident, absent $absent:expr;)*) => {
        $(
            impl Literal<$ty> {
                pub(super) const fn scalar(self) -> Scalar { Scalar::$variant(self.0) }
            }

            impl Field for $ty {
                const KIND: FieldKind = FieldKind::$variant;
                const PRESENCE: Presence = Presence::Default(Literal::<$ty>($absent).scalar());
                fn get(&self) -> Option<FieldValue<'_>> { Some(FieldValue::Scalar(Scalar::$variant(*self))) }
                fn set(value: FieldValue<'_>) -> Option<Self> {
                    match value { FieldValue::Scalar(Scalar::$variant(x)) => Some(x), _ => None }
                }
            }
        )*
    };
}

macro_rules! kinds {
    (
        plain { $($(#[$sdoc:meta])* $scalar:ident,)* }
        values { $($(#[$vdoc:meta])* $value:ident($vty:ty),)* }
        lists { $($(#[$ldoc:meta])* $list:ident([$lty:ty]),)* }
    ) => {
        /// What a field holds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FieldKind {
            $($(#[$sdoc])* $scalar,)*
            $($(#[$vdoc])* $value,)*
            $($(#[$ldoc])* $list,)*
        }

        /// The value of a field that is present.
        #[derive(Clone, Debug, PartialEq)]
        pub enum FieldValue<'a> {
            /// A plain number.
            Scalar(Scalar),
            /// Text.
            Str(Cow<'a, str>),
            $($(#[$vdoc])* $value($vty),)*
            $($(#[$ldoc])* $list(Cow<'a, [$lty]>),)*
        }

        impl FieldValue<'_> {
            /// How many elements a list has; 1 for everything else.
            #[allow(clippy::len_without_is_empty, reason = "emptiness is a question for lists only")]
            pub fn len(&self) -> usize {
                match self { $(FieldValue::$list(x) => x.len(),)* _ => 1 }
            }
        }

        $(impl Field for $vty {
            const KIND: FieldKind = FieldKind::$value;
            const PRESENCE: Presence = Presence::Required;
            fn get(&self) -> Option<FieldValue<'_>> { Some(FieldValue::$value(*self)) }
            fn set(value: FieldValue<'_>) -> Option<Self> {
                match value { FieldValue::$value(x) => Some(x), _ => None }
            }
            fn visit(&self, f: &mut dyn FnMut(SlotRef)) { Slots::visit(self, f); }
            fn map(&mut self, map: &mut SlotMap<'_>) { Slots::map(self, map); }
        })*

        $(impl Field for Vec<$lty> {
            const KIND: FieldKind = FieldKind::$list;
            const PRESENCE: Presence = Presence::Required;
            fn get(&self) -> Option<FieldValue<'_>> { Some(FieldValue::$list(Cow::Borrowed(self))) }
            fn set(value: FieldValue<'_>) -> Option<Self> {
                match value { FieldValue::$list(x) => Some(x.into_owned()), _ => None }
            }
            fn visit(&self, f: &mut dyn FnMut(SlotRef)) { self.iter().for_each(|x| Slots::visit(x, f)); }
            fn map(&mut self, map: &mut SlotMap<'_>) { self.iter_mut().for_each(|x| Slots::map(x, map)); }
        })*
    };
}

kinds! {
    plain {
        /// 32-bit signed integer.
        I32,
        /// 32-bit unsigned integer.
        U32,
        /// 64-bit unsigned integer.
        U64,
        /// Single-precision number.
        F32,
        /// Truth value.
        Bool,
        /// Element type.
        DType,
        /// Text.
        Str,
    }
    values {
        /// A tensor.
        Tid(Tid),
        /// A value.
        Vid(Vid),
        /// An integer or a value.
        IntOrVid(IntOrVid),
        /// A number or a value.
        FloatOrVid(FloatOrVid),
        /// A value or a tensor.
        VidOrTid(VidOrTid),
        /// An integer, a value or a tensor.
        IntOrVidOrTid(IntOrVidOrTid),
    }
    lists {
        /// Tensors.
        Tids([Tid]),
        /// Integers or values.
        IntOrVids([IntOrVid]),
        /// 32-bit integers.
        I32s([i32]),
        /// 8-bit integers.
        I8s([i8]),
        /// Element types.
        DTypes([DType]),
        /// Texts.
        Strs([String]),
    }
}

scalars! {
    i32 => I32, absent 0;
    u32 => U32, absent 0;
    u64 => U64, absent 0;
    f32 => F32, absent 0.0;
    bool => Bool, absent false;
    DType => DType, absent DType::UInt8;
}

/// A Rust type that an instruction field can have.
pub(super) trait Field: Sized {
    /// What it holds.
    const KIND: FieldKind;
    /// Whether it may be absent (before the table states a default of its own).
    const PRESENCE: Presence;
    /// The value, if present.
    fn get(&self) -> Option<FieldValue<'_>>;
    /// The field from a value that is present; `None` if the value is of another kind.
    fn set(value: FieldValue<'_>) -> Option<Self>;
    /// The field when there is no value; `None` if it may not be absent.
    fn absent() -> Option<Self> {
        None
    }
    /// Every slot in it, in order.
    fn visit(&self, _: &mut dyn FnMut(SlotRef)) {}
    /// Renames every slot in it.
    fn map(&mut self, _: &mut SlotMap<'_>) {}
}

impl Field for String {
    const KIND: FieldKind = FieldKind::Str;
    const PRESENCE: Presence = Presence::Required;
    fn get(&self) -> Option<FieldValue<'_>> {
        Some(FieldValue::Str(Cow::Borrowed(self)))
    }
    fn set(value: FieldValue<'_>) -> Option<Self> {
        match value {
            FieldValue::Str(x) => Some(x.into_owned()),
            _ => None,
        }
    }
}

impl<T: Field> Field for Option<T> {
    const KIND: FieldKind = T::KIND;
    const PRESENCE: Presence = Presence::Optional;
    fn get(&self) -> Option<FieldValue<'_>> {
        self.as_ref().and_then(T::get)
    }
    fn set(value: FieldValue<'_>) -> Option<Self> {
        T::set(value).map(Some)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
    fn visit(&self, f: &mut dyn FnMut(SlotRef)) {
        self.iter().for_each(|x| x.visit(f));
    }
    fn map(&mut self, map: &mut SlotMap<'_>) {
        self.iter_mut().for_each(|x| x.map(map));
    }
}

/// New names for slots.
pub(super) struct SlotMap<'a> {
    /// For tensors.
    pub(super) tensor: &'a mut dyn FnMut(Tid) -> Tid,
    /// For values.
    pub(super) value: &'a mut dyn FnMut(Vid) -> Vid,
}

/// The slots inside one element.
trait Slots {
    fn visit(&self, _: &mut dyn FnMut(SlotRef)) {}
    fn map(&mut self, _: &mut SlotMap<'_>) {}
}

impl Slots for i32 {}
impl Slots for i8 {}
impl Slots for DType {}
impl Slots for String {}

impl Slots for Tid {
    fn visit(&self, f: &mut dyn FnMut(SlotRef)) {
        f(SlotRef::Tensor(*self));
    }
    fn map(&mut self, map: &mut SlotMap<'_>) {
        *self = (map.tensor)(*self);
    }
}

impl Slots for Vid {
    fn visit(&self, f: &mut dyn FnMut(SlotRef)) {
        f(SlotRef::Value(*self));
    }
    fn map(&mut self, map: &mut SlotMap<'_>) {
        *self = (map.value)(*self);
    }
}

macro_rules! slots_of_choice {
    ($($ty:ident { $($slot:ident)* };)*) => {
        $(impl Slots for $ty {
            fn visit(&self, f: &mut dyn FnMut(SlotRef)) {
                match self { $($ty::$slot(x) => Slots::visit(x, f),)* #[allow(unreachable_patterns, reason = "no literal")] _ => {} }
            }
            fn map(&mut self, map: &mut SlotMap<'_>) {
                match self { $($ty::$slot(x) => Slots::map(x, map),)* #[allow(unreachable_patterns, reason = "no literal")] _ => {} }
            }
        })*
    };
}

slots_of_choice! {
    IntOrVid { Vid };
    FloatOrVid { Vid };
    VidOrTid { Vid Tid };
    IntOrVidOrTid { Vid Tid };
}
