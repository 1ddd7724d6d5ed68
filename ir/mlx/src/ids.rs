//! Names for things inside an MLX program: tensors, scalar values, and operands that may be either.

/// A tensor of the program, by its global number.
///
/// Numbers are dense over five spaces in this order: constants, inputs, outputs, mutable buffers, temps; see
/// [`Program::space_of`](super::Program::space_of).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid(pub u32);

/// A scalar value of the program, by its number in the one pool of values.
///
/// A value holds an `i32`, an `f32` or a `bool` at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vid(pub u32);

/// An integer known when the program is written, or a value computed when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IntOrVid {
    /// A literal; runtimes clamp it to the range of `i32` (so `i64::MAX` means "to the end").
    Int(i64),
    /// A value.
    Vid(Vid),
}

/// A number known when the program is written, or a value computed when it runs.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum FloatOrVid {
    /// A literal; runtimes narrow it to `f32`.
    Float(f64),
    /// A value of any kind.
    Vid(Vid),
}

/// A value or a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VidOrTid {
    /// A value.
    Vid(Vid),
    /// A tensor.
    Tid(Tid),
}

/// An integer literal, a value or a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IntOrVidOrTid {
    /// A literal.
    Int(i64),
    /// A value.
    Vid(Vid),
    /// A tensor.
    Tid(Tid),
}

/// A slot that an instruction touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SlotRef {
    /// A tensor.
    Tensor(Tid),
    /// A value.
    Value(Vid),
}

/// What an instruction does to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// The slot must hold something before.
    Read,
    /// The slot holds something new afterwards.
    Write,
}

macro_rules! from {
    ($($from:ty => $to:ident::$variant:ident;)*) => {
        $(impl From<$from> for $to {
            fn from(x: $from) -> Self { $to::$variant(x) }
        })*
    };
}

from! {
    i64 => IntOrVid::Int;
    Vid => IntOrVid::Vid;
    f64 => FloatOrVid::Float;
    Vid => FloatOrVid::Vid;
    Vid => VidOrTid::Vid;
    Tid => VidOrTid::Tid;
    i64 => IntOrVidOrTid::Int;
    Vid => IntOrVidOrTid::Vid;
    Tid => IntOrVidOrTid::Tid;
    Tid => SlotRef::Tensor;
    Vid => SlotRef::Value;
}
