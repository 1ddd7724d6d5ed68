//! What a `.pte` says, as plain data: the `executorch_flatbuffer` schema (version 0), declared once.
//!
//! Names of tables and fields are those of the format. *Index* without more means: into [`ExecutionPlan::values`].
//! Slots and tags are documented in `pte-format.md` §2; which fields may be absent in §1.8. Reader and writer of this module's types are derived by
//! the private module `codec`; what the fields must mean together is checked by `check`.

use etx_ir::DType;

use super::codec::{
    Builder, Field, FlatTable, Offset, Presence, TABLE_BOUND, codes, prepare_field, read_field, tables, unions, write_table,
};
use crate::error::{Error, ErrorKind, Result};
use crate::flat::Table;

tables! {
    /// The root: all methods, and where the bulk data lies.
    Program {
        /// Version of the schema; only 0 exists.
        0 version: u32, Omitted;
        /// The methods. Upstream looks them up by name, first match.
        1 execution_plan: Vec<ExecutionPlan>, Required;
        /// Constants of old files. Always empty today.
        2 constant_buffer: Vec<Buffer>, Kept;
        /// Delegate payloads kept inside the program.
        3 backend_delegate_data: Vec<BackendDelegateInlineData>, Kept;
        /// Parts of the segment area.
        4 segments: Vec<DataSegment>, Kept;
        /// Constants of graphs (not of delegates). `offsets[0]` stands for "no constant".
        5 constant_segment: SubsegmentOffsets, Required;
        /// Initial values of planned tensors; at most one entry. `offsets[0]` stands for "none".
        6 mutable_data_segments: Vec<SubsegmentOffsets>, Omitted;
        /// Data that delegates ask for by key.
        7 named_data: Vec<NamedData>, Omitted;
    }

    /// One method.
    ExecutionPlan {
        /// Its name.
        0 name: String, Required;
        /// How its arguments and results are nested.
        1 container_meta_type: Option<ContainerMetadata>, Omitted;
        /// Everything instructions refer to.
        2 values: Vec<EValue>, Required;
        /// Indices of the user's inputs.
        3 inputs: Vec<i32>, Required;
        /// Indices of the results; an index may occur twice, or be that of an input.
        4 outputs: Vec<i32>, Required;
        /// Run one after the other; one is usual.
        5 chains: Vec<Chain>, Required;
        /// Kernels that instructions refer to.
        6 operators: Vec<Operator>, Kept;
        /// Delegates that instructions refer to, one entry for each call.
        7 delegates: Vec<BackendDelegate>, Required;
        /// Bytes of each memory area; number 0 is unused.
        8 non_const_buffer_sizes: Vec<i64>, Required;
        /// Where areas live that are not in CPU memory.
        9 non_const_buffer_device: Vec<NonConstBufferDevice>, Omitted;
    }

    /// Pytree specifications as torch prints them (JSON).
    ContainerMetadata {
        /// Of the arguments; empty for constant methods.
        0 encoded_inp_str: String, Kept;
        /// Of the result.
        1 encoded_out_str: String, Kept;
    }

    /// A tensor value.
    Tensor {
        /// Element type, ExecuTorch's number; see [`Tensor::dtype`].
        0 scalar_type: i8, Omitted;
        /// Must be 0.
        1 storage_offset: i32, Omitted;
        /// Sizes; upper bounds where they may vary.
        2 sizes: Vec<i32>, Required;
        /// Dimensions from outermost to innermost in memory.
        3 dim_order: Vec<u8>, Required;
        /// Copied from tracing, without meaning at run time.
        4 requires_grad: bool, Omitted;
        /// Which constant (or initial value) it is; 0 for none.
        5 data_buffer_idx: u32, Omitted;
        /// Its place in a memory area, if it is planned.
        6 allocation_info: Option<AllocationDetails>, Omitted;
        /// Without meaning.
        7 layout: i8, Omitted;
        /// Whether sizes may vary.
        8 shape_dynamism: TensorShapeDynamism, Omitted;
        /// More about tensors with a name.
        9 extra_tensor_info: Option<ExtraTensorInfo>, Omitted;
    }

    /// A place in a memory area.
    AllocationDetails {
        /// Which area, from 1.
        0 memory_id: u32, Omitted;
        /// Low half of the offset in bytes.
        1 memory_offset_low: u32, Omitted;
        /// High half of the offset in bytes.
        2 memory_offset_high: u32, Omitted;
    }

    /// Name and device of a tensor.
    ExtraTensorInfo {
        /// Ignored by the runtime, which always takes 0.
        0 mutable_data_segments_idx: u64, Omitted;
        /// Name of the weight or buffer.
        1 fully_qualified_name: String, Omitted;
        /// Whether the bytes are in this file.
        2 location: TensorDataLocation, Omitted;
        /// Kind of memory.
        3 device_type: DeviceType, Omitted;
        /// Which of several devices.
        4 device_index: i8, Omitted;
    }

    /// A memory area that is not in CPU memory.
    NonConstBufferDevice {
        /// Which area.
        0 buffer_idx: i32, Omitted;
        /// Kind of memory.
        1 device_type: DeviceType, Omitted;
        /// Which of several devices.
        2 device_index: i8, Omitted;
    }

    /// A kernel, by name.
    Operator {
        /// For example `aten::add`.
        0 name: String, Required;
        /// For example `out`; may be empty.
        1 overload: String, Kept;
    }

    /// Calls a kernel.
    KernelCall {
        /// Into [`ExecutionPlan::operators`].
        0 op_index: i32, Omitted;
        /// Indices of the arguments, in schema order, then of the results.
        1 args: Vec<i32>, Required;
    }

    /// Calls a delegate.
    DelegateCall {
        /// Into [`ExecutionPlan::delegates`].
        0 delegate_index: i32, Omitted;
        /// Indices of its inputs, then of its outputs.
        1 args: Vec<i32>, Required;
    }

    /// Makes one value another name of the same tensor.
    MoveCall {
        /// Index.
        0 move_from: i32, Omitted;
        /// Index.
        1 move_to: i32, Omitted;
    }

    /// Continues elsewhere when a condition is false.
    JumpFalseCall {
        /// Index of a Bool or of a boolean tensor (false if any element is).
        0 cond_value_index: i32, Omitted;
        /// Instruction number in the same chain; its length means the end.
        1 destination_instruction: i32, Omitted;
    }

    /// Frees the memory of an unplanned tensor.
    FreeCall {
        /// Index.
        0 value_index: i32, Omitted;
    }

    /// Where an instruction came from.
    Frame {
        /// Source file.
        0 filename: String, Omitted;
        /// Line in it.
        1 lineno: i32, Omitted;
        /// Function.
        2 name: String, Omitted;
        /// Source text.
        3 context: String, Omitted;
    }

    /// A call stack.
    FrameList {
        /// Its frames.
        0 items: Vec<Frame>, Kept;
    }

    /// Instructions in order.
    Chain {
        /// Always empty.
        0 inputs: Vec<i32>, Kept;
        /// Always empty.
        1 outputs: Vec<i32>, Kept;
        /// What to do.
        2 instructions: Vec<Instruction>, Required;
        /// Either empty or one entry an instruction.
        3 stacktrace: Vec<FrameList>, Omitted;
    }

    /// Where a delegate's payload is.
    BackendDelegateDataReference {
        /// In which list.
        0 location: DataLocation, Omitted;
        /// Into [`Program::segments`] or [`Program::backend_delegate_data`].
        1 index: u32, Omitted;
    }

    /// An option for a backend.
    CompileSpec {
        /// Its name.
        0 key: String, Required;
        /// Its value.
        1 value: Vec<u8>, Kept;
    }

    /// One delegate.
    BackendDelegate {
        /// Name of the backend, for example `MLXBackend`.
        0 id: String, Required;
        /// Its payload.
        1 processed: BackendDelegateDataReference, Required;
        /// Options.
        2 compile_specs: Vec<CompileSpec>, Kept;
    }

    /// Bytes of a constant, in old files.
    Buffer {
        /// The bytes.
        0 storage: Vec<u8>, Kept;
    }

    /// A delegate's payload inside the program.
    BackendDelegateInlineData {
        /// The bytes.
        0 data: Vec<u8>, Kept;
    }

    /// A part of the segment area.
    DataSegment {
        /// First byte, from the start of the area.
        0 offset: u64, Omitted;
        /// Number of bytes.
        1 size: u64, Omitted;
    }

    /// Things one behind the other in one segment.
    SubsegmentOffsets {
        /// Into [`Program::segments`].
        0 segment_index: u32, Omitted;
        /// Where each begins, in bytes from the start of the segment.
        1 offsets: Vec<u64>, Required;
    }

    /// A key and what it stands for.
    NamedData {
        /// The key.
        0 key: String, Required;
        /// Into [`Program::segments`]; several keys may share one.
        1 segment_index: u32, Omitted;
    }
}

unions! {
    /// A value of a plan.
    EValue {
        empty {
            /// Nothing (`None`).
            1 Null;
        }
        field {
            /// An integer.
            2 Int(int_val: i64, Omitted);
            /// A truth value.
            3 Bool(bool_val: bool, Omitted);
            /// A number. Always written, since -0.0 would be taken for the default.
            4 Double(double_val: f64, Kept);
            /// A text.
            6 String(string_val: String, Kept);
            /// Indices of Int values, not the integers themselves.
            7 IntList(items: Vec<i64>, Required);
            /// Numbers.
            8 DoubleList(items: Vec<f64>, Required);
            /// Truth values.
            9 BoolList(items: Vec<bool>, Required);
            /// Indices of tensors that come earlier.
            10 TensorList(items: Vec<i32>, Required);
            /// The same, with -1 for `None`.
            11 OptionalTensorList(items: Vec<i32>, Required);
        }
        table {
            /// A tensor.
            5 Tensor;
        }
    }

    /// One step of a chain.
    Instruction {
        empty {}
        field {}
        table {
            /// Call a kernel.
            1 KernelCall;
            /// Call a delegate.
            2 DelegateCall;
            /// Rebind a value.
            3 MoveCall;
            /// Jump.
            4 JumpFalseCall;
            /// Free a tensor.
            5 FreeCall;
        }
    }
}

codes! {
    /// Whether a tensor's sizes may vary between runs.
    TensorShapeDynamism {
        /// No.
        0 Static;
        /// Yes, up to the sizes given.
        1 DynamicBound;
        /// Yes, without bound. No runtime supports it.
        2 DynamicUnbound;
    }

    /// Where a tensor's bytes are.
    TensorDataLocation {
        /// In this file, if anywhere.
        0 Segment;
        /// In a `.ptd` file, under the tensor's name.
        1 External;
    }

    /// Where a delegate's payload is.
    DataLocation {
        /// In [`Program::backend_delegate_data`].
        0 Inline;
        /// In [`Program::segments`].
        1 Segment;
    }

    /// Kinds of memory.
    DeviceType {
        /// Ordinary memory.
        0 Cpu;
        /// Memory of an NVIDIA device.
        1 Cuda;
    }
}

impl Tensor {
    /// Element type, where etx has one (the quantised and bit types of c10 have none).
    pub fn dtype(&self) -> Option<DType> {
        DType::from_et_code(self.scalar_type)
    }

    /// Bytes of one element, also for types without a [`DType`]; `None` for numbers that no runtime accepts.
    ///
    /// The accepted numbers are those of `pte-format.md` §2: 0 to 29. (c10 has more.)
    pub fn element_size(&self) -> Option<u64> {
        match self.scalar_type {
            12 | 13 | 16..=21 => Some(1),
            14 => Some(4),
            22 => Some(2),
            code @ 0..=29 => DType::from_et_code(code).map(|t| t.size() as u64),
            _ => None,
        }
    }

    /// Bytes it takes at the sizes given; `None` for impossible sizes or an unknown type.
    pub fn byte_len(&self) -> Option<u64> {
        self.sizes.iter().try_fold(self.element_size()?, |n, &size| n.checked_mul(u64::try_from(size).ok()?))
    }

    /// Whether the bytes are in a `.ptd` file.
    pub fn is_external(&self) -> bool {
        self.extra_tensor_info.as_ref().is_some_and(|extra| extra.location == TensorDataLocation::External)
    }

    /// Whether it is a constant of the graph whose bytes are in the constant segment.
    pub fn is_constant(&self) -> bool {
        !self.is_external() && self.allocation_info.is_none() && self.data_buffer_idx != 0
    }
}

impl AllocationDetails {
    /// Bytes from the start of the area.
    pub fn offset(&self) -> u64 {
        u64::from(self.memory_offset_high) << 32 | u64::from(self.memory_offset_low)
    }

    /// The place `offset` bytes into area `memory_id`.
    pub fn new(memory_id: u32, offset: u64) -> Self {
        AllocationDetails { memory_id, memory_offset_low: offset as u32, memory_offset_high: (offset >> 32) as u32 }
    }
}

impl Operator {
    /// Under what name runtimes look the kernel up: `name`, or `name.overload`.
    pub fn full_name(&self) -> String {
        if self.overload.is_empty() { self.name.clone() } else { format!("{}.{}", self.name, self.overload) }
    }
}

impl EValue {
    /// What kind of value it is, in the format's word.
    pub fn kind(&self) -> &'static str {
        match self {
            EValue::Null => "Null",
            EValue::Int(_) => "Int",
            EValue::Bool(_) => "Bool",
            EValue::Double(_) => "Double",
            EValue::String(_) => "String",
            EValue::IntList(_) => "IntList",
            EValue::DoubleList(_) => "DoubleList",
            EValue::BoolList(_) => "BoolList",
            EValue::TensorList(_) => "TensorList",
            EValue::OptionalTensorList(_) => "OptionalTensorList",
            EValue::Tensor(_) => "Tensor",
        }
    }

    /// Whether it is one of the list kinds, which can be neither input nor output.
    pub fn is_list(&self) -> bool {
        matches!(
            self,
            EValue::IntList(_) | EValue::DoubleList(_) | EValue::BoolList(_) | EValue::TensorList(_) | EValue::OptionalTensorList(_)
        )
    }
}
