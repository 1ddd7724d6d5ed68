//! Rust types of the elements, one for each [`DType`] that kernels compute with.

use bytemuck::{Pod, Zeroable};
use etx_ir::DType;
use half::{bf16, f16};

/// A boolean element: one byte, zero is false and anything else is true (files may hold any byte).
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Bool(u8);

impl Bool {
    /// The value as Rust's own type.
    pub const fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for Bool {
    fn from(value: bool) -> Self {
        Bool(u8::from(value))
    }
}

impl PartialEq for Bool {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl PartialOrd for Bool {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.get().partial_cmp(&other.get())
    }
}

/// A Rust type that is the element type of tensors of one [`DType`].
pub trait Elem: Pod + Send + Sync + PartialEq + PartialOrd + std::fmt::Debug {
    /// The element type this is.
    const DTYPE: DType;
}

macro_rules! elems {
    ($($rust:ty => $dtype:ident),*) => { $(impl Elem for $rust { const DTYPE: DType = DType::$dtype; })* };
}

elems! {
    Bool => Bool, u8 => UInt8, i8 => Int8, i16 => Int16, u16 => UInt16, i32 => Int32, u32 => UInt32, i64 => Int64,
    u64 => UInt64, f16 => Float16, bf16 => BFloat16, f32 => Float32, f64 => Float64
}
