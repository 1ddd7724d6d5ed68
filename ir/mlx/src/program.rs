//! The program: slots, chains of instructions, and the maps that tie slots to the outside.

use super::ids::{SlotRef, Tid, Vid};
use super::table::Instr;
use etx_ir::DType;

/// A program of the MLX delegate: one partition of one method.
///
/// Tensors are numbered through five spaces: constants, inputs, outputs, mutable buffers, temps. Constants come from
/// named data, inputs and outputs from the caller; mutable buffers start as zeros and keep their contents between
/// calls; temps and values live for one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// Tensors in the constant space.
    pub num_constants: u32,
    /// Tensors in the input space.
    pub num_inputs: u32,
    /// Tensors in the output space.
    pub num_outputs: u32,
    /// Tensors in the mutable-buffer space.
    pub num_mutable_buffers: u32,
    /// Tensors in the temp space.
    pub num_temps: u32,
    /// Scalar values.
    pub num_values: u32,
    /// Lists of instructions: the main chain, perhaps an init chain, and those that `If` and `Scan` run.
    pub chains: Vec<Vec<Instr>>,
    /// The chain that every call runs.
    pub main_chain: u32,
    /// The chain that runs once, when the program is loaded; the only one that may write constants.
    pub init_chain: Option<u32>,
    /// Where the caller's inputs go, in order.
    pub input_map: Vec<Slot>,
    /// Where the caller's outputs come from, in order.
    pub output_map: Vec<Slot>,
    /// The slots of the mutable buffers.
    pub mutable_buffer_map: Vec<Slot>,
    /// Names of slots. For a constant, the name is the key of its bytes in the named data.
    pub named_slots: Vec<NamedSlot>,
    /// Dtype and shape of every tensor but the temps, by number.
    pub tensor_meta: Vec<TensorMeta>,
}

/// A slot with what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// A tensor.
    Tensor(Tid),
    /// A value that is an integer.
    Int(Vid),
    /// A value that is a number.
    Float(Vid),
    /// A value that is a truth value.
    Bool(Vid),
}

impl Slot {
    /// The slot, whatever it holds.
    pub fn slot_ref(self) -> SlotRef {
        match self {
            Slot::Tensor(tensor) => SlotRef::Tensor(tensor),
            Slot::Int(value) | Slot::Float(value) | Slot::Bool(value) => SlotRef::Value(value),
        }
    }
}

/// A slot and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSlot {
    /// The name; unique in the program.
    pub name: String,
    /// The slot.
    pub slot: Slot,
}

/// Dtype and shape of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMeta {
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: Vec<ShapeDim>,
    /// Axes from outermost to innermost in storage; absent for row-major scalars.
    pub dim_order: Option<Vec<u8>>,
}

/// The size of one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShapeDim {
    /// Known when the program is written.
    Static(u32),
    /// Known when the program runs.
    Dynamic {
        /// Smallest size.
        min: u32,
        /// Largest size, if bounded.
        max: Option<u32>,
    },
}

impl ShapeDim {
    /// The size, if it is known.
    pub fn as_static(self) -> Option<u32> {
        match self {
            ShapeDim::Static(size) => Some(size),
            ShapeDim::Dynamic { .. } => None,
        }
    }
}

/// The five kinds of tensors, in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// From named data; written only by the init chain.
    Constant,
    /// From the caller; never written.
    Input,
    /// For the caller.
    Output,
    /// Kept between calls.
    MutableBuffer,
    /// Within a call.
    Temp,
}

impl Space {
    /// All spaces, in order.
    pub const ALL: [Space; 5] = [Space::Constant, Space::Input, Space::Output, Space::MutableBuffer, Space::Temp];
}

impl Program {
    /// The number of tensors in a space.
    pub fn len_of(&self, space: Space) -> u32 {
        match space {
            Space::Constant => self.num_constants,
            Space::Input => self.num_inputs,
            Space::Output => self.num_outputs,
            Space::MutableBuffer => self.num_mutable_buffers,
            Space::Temp => self.num_temps,
        }
    }

    /// The number of tensors in all spaces.
    pub fn num_tensors(&self) -> u64 {
        Space::ALL.iter().map(|&space| u64::from(self.len_of(space))).sum()
    }

    /// The number of tensors that have a [`TensorMeta`]: all but the temps.
    pub fn num_declared(&self) -> u64 {
        self.num_tensors() - u64::from(self.num_temps)
    }

    /// The space of a tensor and its number there; `None` if the program has no such tensor.
    pub fn space_of(&self, tensor: Tid) -> Option<(Space, u32)> {
        let mut index = tensor.0;
        for space in Space::ALL {
            match index.checked_sub(self.len_of(space)) {
                None => return Some((space, index)),
                Some(rest) => index = rest,
            }
        }
        None
    }

    /// The tensor with number `index` in `space`; `None` if there is none.
    pub fn tensor_in(&self, space: Space, index: u32) -> Option<Tid> {
        if index >= self.len_of(space) {
            return None;
        }
        let before: u64 = Space::ALL.iter().take_while(|&&s| s != space).map(|&s| u64::from(self.len_of(s))).sum();
        u32::try_from(before + u64::from(index)).ok().map(Tid)
    }

    /// The index of the chain that an instruction calls `number`; `None` if there is no such chain.
    pub(super) fn chain(&self, number: i64) -> Option<usize> {
        usize::try_from(number).ok().filter(|&chain| chain < self.chains.len())
    }

    /// Dtype and shape of a tensor; `None` for temps.
    pub fn meta(&self, tensor: Tid) -> Option<&TensorMeta> {
        self.tensor_meta.get(usize::try_from(tensor.0).ok()?)
    }

    /// Whether instructions and declared tensors may have this dtype.
    ///
    /// The set that the delegate's runtime accepts; its compiler never emits `i16`.
    pub fn accepts(dtype: DType) -> bool {
        use DType::{BFloat16, Bool, Float16, Float32, Int8, Int16, Int32, Int64, UInt8, UInt32};
        matches!(dtype, Float16 | Float32 | BFloat16 | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt32 | Bool)
    }
}
