//! The rules a program must obey beyond being well-formed FlatBuffers; the reader and the writer ask the same ones.
//!
//! They are those of upstream's loader (`pte-format.md` §8) plus what it forgets to check and then crashes on: numbers of
//! operators and delegates, jump targets, element types of lists, inputs and outputs, ranges of segments. Everything found
//! is reported together, up to [`MAX_PROBLEMS`].
//!
//! Allowed on purpose: several keys or delegates for one segment, segments that overlap (they are only read), repeated
//! outputs, outputs that are inputs or constants, several chains, segments of size zero, any value in area 0, overlapping
//! or unaligned memory plans.

use std::collections::BTreeMap;

use super::model::{
    AllocationDetails, BackendDelegate, DataLocation, EValue, ExecutionPlan, Instruction, Program, Tensor, TensorShapeDynamism,
};
use crate::error::{Error, ErrorKind};

/// How many problems are collected before giving up.
pub(crate) const MAX_PROBLEMS: usize = 50;
/// Most dimensions a tensor may have; upstream's limit.
pub(crate) const MAX_RANK: usize = 16;
/// Most bytes of `name.overload` of a kernel; upstream's limit.
pub(crate) const MAX_OPERATOR_NAME: usize = 99;
/// Most tables upstream verifies (its Python tools always do); the writer refuses more.
pub(crate) const MAX_TABLES: u64 = 1_000_000;

/// A part of the program that a problem can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Program,
    Segment(usize),
    NamedData(usize),
    Plan(usize),
    Value(usize, usize),
    Operator(usize, usize),
    Delegate(usize, usize),
    Instruction { plan: usize, chain: usize, index: usize },
}

impl Place {
    fn describe(self, program: &Program) -> String {
        let method = |plan: usize| match program.execution_plan.get(plan) {
            Some(p) => format!("method `{}`", p.name),
            None => format!("method {plan}"),
        };
        match self {
            Place::Program => "program".to_owned(),
            Place::Segment(i) => format!("segment {i}"),
            Place::NamedData(i) => match program.named_data.get(i) {
                Some(data) => format!("named data `{}`", data.key),
                None => format!("named data {i}"),
            },
            Place::Plan(p) => method(p),
            Place::Value(p, i) => format!("{}: value {i}", method(p)),
            Place::Operator(p, i) => format!("{}: operator {i}", method(p)),
            Place::Delegate(p, i) => format!("{}: delegate {i}", method(p)),
            Place::Instruction { plan, chain: 0, index } => format!("{}: instruction {index}", method(plan)),
            Place::Instruction { plan, chain, index } => format!("{}: chain {chain}: instruction {index}", method(plan)),
        }
    }
}

/// Checks `program`, whose segments lie in an area of `area` bytes. `locate` gives the absolute offset of a place, where
/// there is a file.
pub(crate) fn check(program: &Program, area: u64, locate: &dyn Fn(Place) -> Option<u64>) -> Result<(), Error> {
    let mut c = Checker { program, locate, problems: Vec::new() };
    c.segments(area);
    c.named_data();
    let mut names = BTreeMap::new();
    for (p, plan) in program.execution_plan.iter().enumerate() {
        if let Some(first) = names.insert(&plan.name, p) {
            c.no(Place::Plan(p), ErrorKind::Duplicate, format!("has the name of method number {first}"));
        }
        c.plan(p, plan);
        if c.problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    Error::all(c.problems).map_or(Ok(()), Err)
}

struct Checker<'a> {
    program: &'a Program,
    locate: &'a dyn Fn(Place) -> Option<u64>,
    problems: Vec<Error>,
}

/// Plan, chain and number of an instruction.
type At = (usize, usize, usize);

impl Checker<'_> {
    fn no(&mut self, place: Place, kind: ErrorKind, message: String) {
        if self.problems.len() < MAX_PROBLEMS {
            let mut e = Error::new(kind, message).within(place.describe(self.program));
            if let Some(offset) = (self.locate)(place) {
                e = e.at(offset);
            }
            self.problems.push(e);
        }
    }

    /// Size of segment `index`, with a complaint when there is none.
    fn segment_size(&mut self, place: Place, index: u32, what: &str) -> Option<u64> {
        let segments = &self.program.segments;
        let size = segments.get(index as usize).map(|s| s.size);
        if size.is_none() {
            let count = segments.len();
            self.no(place, ErrorKind::OutOfRange, format!("{what} is in segment {index} of {count}"));
        }
        size
    }

    fn segments(&mut self, area: u64) {
        let program = self.program;
        if program.version != 0 {
            let text = format!("version {} of the schema; only 0 is known", program.version);
            self.no(Place::Program, ErrorKind::Unsupported, text);
        }
        for (i, s) in program.segments.iter().enumerate() {
            if s.offset.checked_add(s.size).is_none_or(|end| end > area) {
                let text = format!("{} bytes at {} of the segment area, which has {area}", s.size, s.offset);
                self.no(Place::Segment(i), ErrorKind::OutOfRange, text);
            }
        }
        if !program.constant_buffer.is_empty() {
            let text = "constants inside the program (`constant_buffer`), which no runtime reads any more; export it again";
            self.no(Place::Program, ErrorKind::Unsupported, text.to_owned());
        }
        let constants = &program.constant_segment;
        match constants.offsets.len() {
            0 => self.no(Place::Program, ErrorKind::Missing, "`constant_segment` has no offsets; at least [0] is required".to_owned()),
            // Without constants the segment need not exist.
            1 => {}
            _ => {
                self.segment_size(Place::Program, constants.segment_index, "the constants' data");
            }
        }
        if program.mutable_data_segments.len() > 1 {
            let text = format!("{} entries in `mutable_data_segments`; at most one is used", program.mutable_data_segments.len());
            self.no(Place::Program, ErrorKind::Invalid, text);
        }
        for state in &program.mutable_data_segments {
            self.segment_size(Place::Program, state.segment_index, "the initial state");
        }
    }

    fn named_data(&mut self) {
        let mut keys = BTreeMap::new();
        for (i, data) in self.program.named_data.iter().enumerate() {
            if let Some(first) = keys.insert(&data.key, i) {
                self.no(Place::NamedData(i), ErrorKind::Duplicate, format!("the key is that of entry {first}, too"));
            }
            self.segment_size(Place::NamedData(i), data.segment_index, "the data");
        }
    }

    fn plan(&mut self, p: usize, plan: &ExecutionPlan) {
        for (area, &size) in plan.non_const_buffer_sizes.iter().enumerate().skip(1) {
            if size < 0 {
                self.no(Place::Plan(p), ErrorKind::Invalid, format!("memory area {area} has {size} bytes"));
            }
        }
        for device in &plan.non_const_buffer_device {
            if usize::try_from(device.buffer_idx).ok().is_none_or(|i| i >= plan.non_const_buffer_sizes.len()) {
                self.no(Place::Plan(p), ErrorKind::OutOfRange, format!("a device for memory area {}", device.buffer_idx));
            }
        }
        for (i, value) in plan.values.iter().enumerate() {
            self.value(p, i, plan, value);
        }
        for (list, what) in [(&plan.inputs, "input"), (&plan.outputs, "output")] {
            for (n, &index) in list.iter().enumerate() {
                match get(&plan.values, i64::from(index)) {
                    None => self.no(Place::Plan(p), ErrorKind::OutOfRange, format!("{what} {n} is value {index} of {}", plan.values.len())),
                    Some(v) if v.is_list() => {
                        self.no(Place::Plan(p), ErrorKind::Invalid, format!("{what} {n} is a {}, which cannot be one", v.kind()));
                    }
                    Some(_) => {}
                }
            }
        }
        for (i, op) in plan.operators.iter().enumerate() {
            let len = op.full_name().len();
            if op.name.is_empty() || len > MAX_OPERATOR_NAME {
                let text = format!("a name of {len} bytes; 1 to {MAX_OPERATOR_NAME} are possible");
                self.no(Place::Operator(p, i), ErrorKind::Invalid, text);
            }
        }
        for (i, delegate) in plan.delegates.iter().enumerate() {
            self.delegate(Place::Delegate(p, i), delegate);
        }
        if plan.chains.is_empty() {
            self.no(Place::Plan(p), ErrorKind::Missing, "has no chain of instructions; at least an empty one is required".to_owned());
        }
        for (c, chain) in plan.chains.iter().enumerate() {
            for (i, instruction) in chain.instructions.iter().enumerate() {
                self.instruction((p, c, i), plan, chain.instructions.len(), instruction);
            }
        }
    }

    fn delegate(&mut self, place: Place, delegate: &BackendDelegate) {
        if delegate.id.is_empty() {
            self.no(place, ErrorKind::Missing, "the backend has no name".to_owned());
        }
        let index = delegate.processed.index;
        match delegate.processed.location {
            DataLocation::Segment => {
                self.segment_size(place, index, "the payload");
            }
            DataLocation::Inline => {
                let count = self.program.backend_delegate_data.len();
                if index as usize >= count {
                    self.no(place, ErrorKind::OutOfRange, format!("the payload is inline data {index} of {count}"));
                }
            }
        }
    }

    fn value(&mut self, p: usize, i: usize, plan: &ExecutionPlan, value: &EValue) {
        let place = Place::Value(p, i);
        match value {
            EValue::Tensor(t) => self.tensor(place, plan, t),
            EValue::IntList(items) => {
                for &item in items {
                    if !matches!(get(&plan.values, item), Some(EValue::Int(_))) {
                        self.no(place, ErrorKind::Invalid, format!("a list of Int values names value {item}, which is none"));
                    }
                }
            }
            EValue::TensorList(items) | EValue::OptionalTensorList(items) => {
                let optional = matches!(value, EValue::OptionalTensorList(_));
                for &item in items {
                    // The runtime builds values in order, so members must exist before the list.
                    let ok = match get(&plan.values, i64::from(item)) {
                        Some(EValue::Tensor(_)) => (item as usize) < i,
                        Some(EValue::Null) => optional && (item as usize) < i,
                        Some(_) => false,
                        None => optional && item == -1,
                    };
                    if !ok {
                        let text = format!("a {} names value {item}, which is not an earlier tensor", value.kind());
                        self.no(place, ErrorKind::Invalid, text);
                    }
                }
            }
            EValue::Null
            | EValue::Int(_)
            | EValue::Bool(_)
            | EValue::Double(_)
            | EValue::String(_)
            | EValue::DoubleList(_)
            | EValue::BoolList(_) => {}
        }
    }

    fn tensor(&mut self, place: Place, plan: &ExecutionPlan, t: &Tensor) {
        let rank = t.sizes.len();
        if rank > MAX_RANK {
            self.no(place, ErrorKind::Unsupported, format!("{rank} dimensions; at most {MAX_RANK} are possible"));
            return;
        }
        let mut seen = [false; MAX_RANK];
        let permutation = t.dim_order.len() == rank
            && t.dim_order
                .iter()
                .all(|&d| usize::from(d) < rank && seen.get_mut(usize::from(d)).is_some_and(|s| !std::mem::replace(s, true)));
        if !permutation {
            self.no(place, ErrorKind::Invalid, format!("dimension order {:?} of a tensor with {rank} dimensions", t.dim_order));
        }
        if t.storage_offset != 0 {
            self.no(place, ErrorKind::Unsupported, format!("storage offset {}; only 0 is possible", t.storage_offset));
        }
        if t.shape_dynamism == TensorShapeDynamism::DynamicUnbound {
            self.no(place, ErrorKind::Unsupported, "sizes without upper bound, which no runtime supports".to_owned());
        }
        if t.element_size().is_none() {
            self.no(place, ErrorKind::Unsupported, format!("element type {}", t.scalar_type));
            return;
        }
        let Some(bytes) = t.byte_len() else {
            self.no(place, ErrorKind::Invalid, format!("sizes {:?}", t.sizes));
            return;
        };
        self.storage(place, plan, t, bytes);
    }

    /// The states of `pte-format.md` §3.9.
    fn storage(&mut self, place: Place, plan: &ExecutionPlan, t: &Tensor, bytes: u64) {
        if let Some(at) = &t.allocation_info {
            self.allocation(place, plan, at, bytes);
        }
        if t.is_external() {
            if t.extra_tensor_info.as_ref().is_none_or(|extra| extra.fully_qualified_name.is_empty()) {
                self.no(place, ErrorKind::Missing, "its data is in another file, but it has no name to find it by".to_owned());
            }
            return;
        }
        if t.data_buffer_idx == 0 {
            return;
        }
        let planned = t.allocation_info.is_some();
        let (what, table) = if planned {
            ("initial value", self.program.mutable_data_segments.first())
        } else {
            ("constant", Some(&self.program.constant_segment))
        };
        let idx = t.data_buffer_idx;
        let Some((offset, segment)) = table.and_then(|s| Some((*s.offsets.get(idx as usize)?, s.segment_index))) else {
            let count = table.map_or(0, |s| s.offsets.len());
            self.no(place, ErrorKind::OutOfRange, format!("{what} number {idx} of {count}"));
            return;
        };
        let size = self.segment_size(place, segment, what).unwrap_or(u64::MAX);
        if offset.checked_add(bytes).is_none_or(|end| end > size) {
            let text = format!("{what} of {bytes} bytes at {offset} of a segment of {size}");
            self.no(place, ErrorKind::OutOfRange, text);
        }
    }

    fn allocation(&mut self, place: Place, plan: &ExecutionPlan, at: &AllocationDetails, bytes: u64) {
        let areas = &plan.non_const_buffer_sizes;
        let size = match areas.get(at.memory_id as usize) {
            Some(&size) if at.memory_id > 0 => u64::try_from(size).unwrap_or(0),
            _ => {
                let text = format!("memory area {}; there are 1 to {}", at.memory_id, areas.len().saturating_sub(1));
                self.no(place, ErrorKind::OutOfRange, text);
                return;
            }
        };
        if at.offset().checked_add(bytes).is_none_or(|end| end > size) {
            let text = format!("{bytes} bytes at {} of memory area {}, which has {size}", at.offset(), at.memory_id);
            self.no(place, ErrorKind::OutOfRange, text);
        }
    }

    fn instruction(&mut self, at: At, plan: &ExecutionPlan, count: usize, instruction: &Instruction) {
        match instruction {
            Instruction::KernelCall(call) => {
                self.number(at, "operator", call.op_index, plan.operators.len());
                self.arguments(at, plan, &call.args);
            }
            Instruction::DelegateCall(call) => {
                self.number(at, "delegate", call.delegate_index, plan.delegates.len());
                self.arguments(at, plan, &call.args);
            }
            Instruction::MoveCall(call) => self.arguments(at, plan, &[call.move_from, call.move_to]),
            Instruction::FreeCall(call) => self.arguments(at, plan, &[call.value_index]),
            Instruction::JumpFalseCall(call) => {
                // One past the last ends the chain.
                self.number(at, "destination", call.destination_instruction, count + 1);
                self.arguments(at, plan, &[call.cond_value_index]);
                let condition = match get(&plan.values, i64::from(call.cond_value_index)) {
                    Some(EValue::Tensor(t)) => t.dtype() == Some(etx_ir::DType::Bool),
                    Some(EValue::Bool(_)) | None => true,
                    Some(_) => false,
                };
                if !condition {
                    self.bad_instruction(at, ErrorKind::Invalid, "the condition is neither Bool nor a boolean tensor".to_owned());
                }
            }
        }
    }

    fn arguments(&mut self, at: At, plan: &ExecutionPlan, args: &[i32]) {
        for &arg in args {
            self.number(at, "value", arg, plan.values.len());
        }
    }

    fn number(&mut self, at: At, what: &str, number: i32, count: usize) {
        if usize::try_from(number).ok().is_none_or(|n| n >= count) {
            self.bad_instruction(at, ErrorKind::OutOfRange, format!("{what} {number} of {count}"));
        }
    }

    fn bad_instruction(&mut self, (plan, chain, index): At, kind: ErrorKind, message: String) {
        self.no(Place::Instruction { plan, chain, index }, kind, message);
    }
}

fn get(values: &[EValue], index: i64) -> Option<&EValue> {
    values.get(usize::try_from(index).ok()?)
}
