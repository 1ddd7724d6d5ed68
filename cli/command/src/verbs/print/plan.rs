//! Execution plans as text. Values are `%n` by their number in the plan; MLX programs print as [`etx::mlx`] does.

use std::io::{self, Write};

use etx::serializer::mlx;
use etx::serializer::pte::PteFile;
use etx::serializer::pte::model::{BackendDelegate, Chain, DataLocation, EValue, ExecutionPlan, Instruction, Tensor, TensorShapeDynamism};

use super::super::{Failure, Shape};

/// Prints the file, or one of its methods.
pub(super) fn print(pte: &PteFile, only: Option<&str>, out: &mut dyn Write) -> Result<(), Failure> {
    let program = pte.program();
    writeln!(out, "pte version {}: {} bytes", program.version, pte.bytes().len())?;
    let area = pte.header().map_or(0, |h| h.segment_base_offset);
    for (i, segment) in program.segments.iter().enumerate() {
        writeln!(out, "segment {i}: {} bytes at {}", segment.size, area.saturating_add(segment.offset))?;
    }
    for named in &program.named_data {
        writeln!(out, "data {:?}: segment {}", named.key, named.segment_index)?;
    }
    for plan in pte.methods().iter().filter(|p| only.is_none_or(|name| p.name == name)) {
        method(plan, out)?;
        for (i, delegate) in plan.delegates.iter().enumerate() {
            writeln!(out, "\ndelegate {i} of {:?}:", plan.name)?;
            payload(pte, delegate, out).map_err(|e| e.within(format_args!("method {:?}, delegate {i}", plan.name)))?;
        }
    }
    Ok(())
}

fn payload(pte: &PteFile, delegate: &BackendDelegate, out: &mut dyn Write) -> Result<(), Failure> {
    let bytes = pte.payload(delegate)?;
    if delegate.id == etx::mlx::BACKEND {
        write!(out, "{}", mlx::decode_window(bytes)?)?;
    } else {
        writeln!(out, "{} bytes for {}", bytes.len(), delegate.id)?;
    }
    Ok(())
}

fn method(plan: &ExecutionPlan, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nmethod {:?} ({}) -> ({})", plan.name, numbers(&plan.inputs), numbers(&plan.outputs))?;
    for (i, value) in plan.values.iter().enumerate() {
        writeln!(out, "  %{i}: {}", show(value))?;
    }
    for (i, size) in plan.non_const_buffer_sizes.iter().enumerate().skip(1) {
        writeln!(out, "  memory {i}: {size} bytes")?;
    }
    for (i, delegate) in plan.delegates.iter().enumerate() {
        let place = match delegate.processed.location {
            DataLocation::Inline => "inline data",
            DataLocation::Segment => "segment",
        };
        write!(out, "  delegate {i}: {} in {place} {}", delegate.id, delegate.processed.index)?;
        for spec in &delegate.compile_specs {
            write!(out, ", {} = \"{}\"", spec.key, spec.value.escape_ascii())?;
        }
        writeln!(out)?;
    }
    for (i, chain) in plan.chains.iter().enumerate() {
        writeln!(out, "  chain {i}:")?;
        instructions(plan, chain, out)?;
    }
    Ok(())
}

fn instructions(plan: &ExecutionPlan, chain: &Chain, out: &mut dyn Write) -> io::Result<()> {
    for (i, instruction) in chain.instructions.iter().enumerate() {
        write!(out, "    {i}: ")?;
        match instruction {
            Instruction::KernelCall(call) => {
                let operator = usize::try_from(call.op_index).ok().and_then(|at| plan.operators.get(at));
                let name = operator.map_or_else(|| format!("kernel {}", call.op_index), |o| o.full_name());
                writeln!(out, "{name}({})", numbers(&call.args))
            }
            Instruction::DelegateCall(call) => writeln!(out, "delegate {}({})", call.delegate_index, numbers(&call.args)),
            Instruction::MoveCall(call) => writeln!(out, "%{} = %{}", call.move_to, call.move_from),
            Instruction::JumpFalseCall(call) => writeln!(out, "unless %{} go to {}", call.cond_value_index, call.destination_instruction),
            Instruction::FreeCall(call) => writeln!(out, "free %{}", call.value_index),
        }?;
    }
    Ok(())
}

fn numbers(values: &[i32]) -> String {
    values.iter().map(|v| format!("%{v}")).collect::<Vec<_>>().join(", ")
}

fn show(value: &EValue) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    match value {
        EValue::Null => "None".to_owned(),
        EValue::Int(x) => format!("int {x}"),
        EValue::Bool(x) => format!("bool {x}"),
        EValue::Double(x) => format!("float {x:?}"),
        EValue::String(x) => format!("string {x:?}"),
        EValue::IntList(x) => format!("ints {}", list(x.iter().map(|v| format!("%{v}")).collect())),
        EValue::DoubleList(x) => format!("floats {x:?}"),
        EValue::BoolList(x) => format!("bools {x:?}"),
        EValue::TensorList(x) => format!("tensors [{}]", numbers(x)),
        EValue::OptionalTensorList(x) => {
            format!("tensors {}", list(x.iter().map(|&v| if v < 0 { "None".to_owned() } else { format!("%{v}") }).collect()))
        }
        EValue::Tensor(t) => tensor(t),
    }
}

fn tensor(t: &Tensor) -> String {
    let sizes: Vec<u64> = t.sizes.iter().map(|&s| u64::try_from(s).unwrap_or(0)).collect();
    let mut text = Shape { dtype: t.dtype(), sizes: &sizes, dynamic: t.shape_dynamism != TensorShapeDynamism::Static }.to_string();
    if t.dtype().is_none() {
        text.push_str(&format!(" of scalar type {}", t.scalar_type));
    }
    if !t.dim_order.iter().zip(0u8..).all(|(&axis, i)| axis == i) {
        text.push_str(&format!(" dim_order {:?}", t.dim_order));
    }
    if t.is_constant() {
        text.push_str(&format!(" constant {}", t.data_buffer_idx));
    } else if t.data_buffer_idx != 0 {
        text.push_str(&format!(" starts as {}", t.data_buffer_idx));
    }
    if let Some(place) = &t.allocation_info {
        text.push_str(&format!(" in memory {} at {}", place.memory_id, place.offset()));
    }
    if let Some(extra) = t.extra_tensor_info.as_ref().filter(|e| !e.fully_qualified_name.is_empty()) {
        text.push_str(&format!(" {:?}", extra.fully_qualified_name));
    }
    text
}
