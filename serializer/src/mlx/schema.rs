//! Slot ids of the tables around the instructions (`MLXGraph` and its parts), and the constants of the container.

/// Bytes before the FlatBuffer.
pub(super) const HEADER: usize = 24;

/// Bytes 4 to 8 of the header.
pub(super) const MAGIC: [u8; 4] = *b"MLX0";

/// The payload is padded to a multiple of this.
pub(super) const ALIGN: usize = 16;

/// The only version of the schema.
pub(super) const VERSION: u32 = 1;

/// `MLXGraph`, the root.
pub(super) mod graph {
    /// String; absent or empty means 1.
    pub(crate) const VERSION: u16 = 0;
    /// `u32`.
    pub(crate) const NUM_CONSTANTS: u16 = 1;
    /// `u32`.
    pub(crate) const NUM_INPUTS: u16 = 2;
    /// `u32`.
    pub(crate) const NUM_OUTPUTS: u16 = 3;
    /// `u32`.
    pub(crate) const NUM_MUTABLE_BUFFERS: u16 = 4;
    /// `u32`.
    pub(crate) const NUM_TEMPS: u16 = 5;
    /// `u32`.
    pub(crate) const NUM_VALUES: u16 = 6;
    /// `[InstructionChain]`, required.
    pub(crate) const CHAINS: u16 = 7;
    /// `u32`.
    pub(crate) const MAIN_CHAIN: u16 = 8;
    /// `i32`, -1 without init chain.
    pub(crate) const INIT_CHAIN: u16 = 9;
    /// `[SlotVariant]`.
    pub(crate) const INPUT_MAP: u16 = 10;
    /// `[SlotVariant]`.
    pub(crate) const OUTPUT_MAP: u16 = 11;
    /// `[SlotVariant]`.
    pub(crate) const MUTABLE_BUFFER_MAP: u16 = 12;
    /// `[NamedSlot]`.
    pub(crate) const NAMED_SLOTS: u16 = 13;
    /// `[TensorMeta]`.
    pub(crate) const TENSOR_META: u16 = 14;
}

/// `InstructionChain`.
pub(super) mod chain {
    /// `[Instruction]`, required.
    pub(crate) const INSTRUCTIONS: u16 = 0;
}

/// `Instruction`.
pub(super) mod instruction {
    /// Union `OpNode`; the value is in the next slot.
    pub(crate) const OP: u16 = 0;
}

/// `SlotVariant`.
pub(super) mod slot {
    /// `u32`, a tensor or a value by `TYPE`.
    pub(crate) const INDEX: u16 = 0;
    /// `i8`, one of the following.
    pub(crate) const TYPE: u16 = 1;
    pub(crate) const TENSOR: i8 = 0;
    pub(crate) const INT: i8 = 1;
    pub(crate) const FLOAT: i8 = 2;
    pub(crate) const BOOL: i8 = 3;
}

/// `NamedSlot`.
pub(super) mod named {
    /// String, required.
    pub(crate) const NAME: u16 = 0;
    /// `SlotVariant`, required.
    pub(crate) const SLOT: u16 = 1;
}

/// `TensorMeta`.
pub(super) mod meta {
    /// `[ShapeDim]`, required.
    pub(crate) const SHAPE: u16 = 0;
    /// `i8`.
    pub(crate) const DTYPE: u16 = 1;
    /// `[u8]`.
    pub(crate) const DIM_ORDER: u16 = 2;
}

/// `ShapeDim`.
pub(super) mod dim {
    /// `i32` = -1: dynamic.
    pub(crate) const VALUE: u16 = 0;
    /// `i32`.
    pub(crate) const MIN: u16 = 1;
    /// `i32` = -1: unbounded.
    pub(crate) const MAX: u16 = 2;
}

/// `IntOrVid` and `FloatOrVid`; the literal is `i64` and `f64`.
pub(super) mod literal_or_vid {
    pub(crate) const LITERAL: u16 = 0;
    /// `Vid`.
    pub(crate) const VID: u16 = 1;
    /// `bool`.
    pub(crate) const IS_VID: u16 = 2;
}

/// `VidOrTid`.
pub(super) mod vid_or_tid {
    /// `Vid`.
    pub(crate) const VID: u16 = 0;
    /// `Tid`.
    pub(crate) const TID: u16 = 1;
    /// `bool`.
    pub(crate) const IS_VID: u16 = 2;
}

/// `IntOrVidOrTid`.
pub(super) mod int_or_vid_or_tid {
    /// `i64`.
    pub(crate) const LITERAL: u16 = 0;
    /// `Vid`.
    pub(crate) const VID: u16 = 1;
    /// `Tid`.
    pub(crate) const TID: u16 = 2;
    /// `u8`, one of the following.
    pub(crate) const KIND: u16 = 3;
    pub(crate) const IS_LITERAL: u8 = 0;
    pub(crate) const IS_VID: u8 = 1;
    pub(crate) const IS_TID: u8 = 2;
}
