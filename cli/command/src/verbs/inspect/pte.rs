//! What is in a `.pte`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use etx::ir::conditions;
use etx::ir::weights::MappedFile;
use etx::mlx::BACKEND;
use etx::serializer::mlx;
use etx::serializer::pte::PteFile;
use etx::serializer::pte::model::{BackendDelegate, EValue, ExecutionPlan, Instruction, TensorShapeDynamism};
use serde::Serialize;
use serde_json::Value as Json;

use super::super::{Bytes, Count, Failure, Shape};
use super::print_counts;

#[derive(Serialize)]
pub(super) struct Summary {
    /// Bytes of the program with its header.
    program_bytes: u64,
    segments: usize,
    /// Tensors that delegates ask for by key.
    named_data: usize,
    /// Bytes of those, shared ones counted once.
    named_data_bytes: u64,
    methods: Vec<Method>,
}

#[derive(Serialize)]
struct Method {
    name: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// What it returns, if it always returns the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    constant: Option<Vec<Json>>,
    /// Bytes of memory areas that the runtime plans.
    planned_bytes: i64,
    /// What must hold of its inputs, beyond what the plan says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<String>,
    delegates: Vec<Delegate>,
    /// Calls of portable kernels, by name.
    kernels: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Delegate {
    backend: String,
    payload_bytes: u64,
    /// What is in the payload, if the backend is known.
    #[serde(flatten)]
    mlx: Option<MlxProgram>,
}

#[derive(Serialize)]
struct MlxProgram {
    constants: u32,
    buffers: u32,
    temps: u32,
    /// By name.
    instructions: BTreeMap<String, u64>,
}

pub(super) fn summarise(file: MappedFile) -> Result<Summary, Failure> {
    let pte = PteFile::of(file)?;
    let program = pte.program();
    let mut used: Vec<u32> = program.named_data.iter().map(|d| d.segment_index).collect();
    used.sort_unstable();
    used.dedup();
    Ok(Summary {
        program_bytes: pte.header().map_or(pte.bytes().len() as u64, |h| h.program_size),
        segments: program.segments.len(),
        named_data: program.named_data.len(),
        named_data_bytes: used.iter().filter_map(|&i| Some(pte.segment(i)?.len())).sum(),
        methods: pte.methods().iter().map(|plan| method(&pte, plan)).collect::<Result<_, _>>()?,
    })
}

fn method(pte: &PteFile, plan: &ExecutionPlan) -> Result<Method, Failure> {
    let value = |&i: &i32| usize::try_from(i).ok().and_then(|i| plan.values.get(i)).map_or_else(String::new, show);
    let mut kernels = BTreeMap::new();
    for instruction in plan.chains.iter().flat_map(|c| &c.instructions) {
        if let Instruction::KernelCall(call) = instruction
            && let Some(operator) = usize::try_from(call.op_index).ok().and_then(|i| plan.operators.get(i))
        {
            *kernels.entry(operator.full_name()).or_insert(0) += 1;
        }
    }
    Ok(Method {
        name: plan.name.clone(),
        inputs: plan.inputs.iter().map(value).collect(),
        outputs: plan.outputs.iter().map(value).collect(),
        constant: constant(plan),
        planned_bytes: plan.non_const_buffer_sizes.iter().fold(0, |a, &b| a.saturating_add(b)),
        conditions: conditions_of(pte, &plan.name),
        delegates: plan.delegates.iter().map(|d| delegate(pte, d)).collect::<Result<_, _>>()?,
        kernels,
    })
}

/// The lines of the conditions that the file has for a method, but for the one that names the format.
fn conditions_of(pte: &PteFile, method: &str) -> Vec<String> {
    let text = pte.named_data(&conditions::key(method)).and_then(|w| std::str::from_utf8(w.bytes()).ok()).unwrap_or_default();
    text.lines().skip(1).map(str::to_owned).collect()
}

/// The results of a method that computes nothing, if all are plain values.
fn constant(plan: &ExecutionPlan) -> Option<Vec<Json>> {
    if !plan.inputs.is_empty() || plan.chains.iter().any(|c| !c.instructions.is_empty()) {
        return None;
    }
    let value = |&i: &i32| match plan.values.get(usize::try_from(i).ok()?)? {
        EValue::Int(n) => Some(Json::from(*n)),
        EValue::Double(x) => Some(Json::from(*x)),
        EValue::Bool(b) => Some(Json::from(*b)),
        EValue::String(s) => Some(Json::from(s.as_str())),
        _ => None,
    };
    plan.outputs.iter().map(value).collect()
}

fn delegate(pte: &PteFile, delegate: &BackendDelegate) -> Result<Delegate, Failure> {
    let payload = pte.payload(delegate)?;
    let mut mlx = None;
    if delegate.id == BACKEND {
        let program = mlx::decode_window(payload)?;
        let mut instructions = BTreeMap::new();
        for instr in program.chains.iter().flatten() {
            *instructions.entry(instr.spec().wire_name.to_owned()).or_insert(0) += 1;
        }
        let (constants, buffers, temps) = (program.num_constants, program.num_mutable_buffers, program.num_temps);
        mlx = Some(MlxProgram { constants, buffers, temps, instructions });
    }
    Ok(Delegate { backend: delegate.id.clone(), payload_bytes: payload.len(), mlx })
}

fn show(value: &EValue) -> String {
    match value {
        EValue::Tensor(t) => {
            let sizes: Vec<u64> = t.sizes.iter().map(|&s| u64::try_from(s).unwrap_or(0)).collect();
            Shape { dtype: t.dtype(), sizes: &sizes, dynamic: t.shape_dynamism != TensorShapeDynamism::Static }.to_string()
        }
        other => other.kind().to_lowercase(),
    }
}

impl Summary {
    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "program: {}, {}", Bytes(self.program_bytes), Count(self.segments, "segment"))?;
        writeln!(out, "named data: {}, {}", Count(self.named_data, "key"), Bytes(self.named_data_bytes))?;
        for m in &self.methods {
            if let Some(values) = &m.constant {
                let list: Vec<String> = values.iter().map(Json::to_string).collect();
                writeln!(out, "constant {:?}: {}", m.name, list.join(", "))?;
                continue;
            }
            writeln!(out, "method {:?} ({}) -> ({})", m.name, m.inputs.join(", "), m.outputs.join(", "))?;
            writeln!(out, "  {} planned", Bytes(u64::try_from(m.planned_bytes).unwrap_or(0)))?;
            for line in &m.conditions {
                writeln!(out, "  condition: {line}")?;
            }
            for (i, d) in m.delegates.iter().enumerate() {
                writeln!(out, "  delegate {i}: {}, {}", d.backend, Bytes(d.payload_bytes))?;
                if let Some(p) = &d.mlx {
                    let count = |n: u32, what| Count(usize::try_from(n).unwrap_or(usize::MAX), what);
                    writeln!(out, "  {}, {}, {}", count(p.constants, "constant"), count(p.buffers, "buffer"), count(p.temps, "temp"))?;
                    let all: u64 = p.instructions.values().sum();
                    print_counts(&Count(usize::try_from(all).unwrap_or(usize::MAX), "instruction").to_string(), &p.instructions, out)?;
                }
            }
            print_counts("kernels", &m.kernels, out)?;
        }
        Ok(())
    }
}
