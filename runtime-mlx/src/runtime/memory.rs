//! Memory that values of a plan share upstream, and do not share here, where every value has a tensor of its own.

use std::collections::{BTreeMap, BTreeSet};

use etx_serializer::pte::model::{EValue, ExecutionPlan, Instruction};

use super::kernels::{Kernel, Kernels};
use super::{fetch, put};
use crate::error::Result;
use crate::value::Value;

/// What upstream would see through shared memory and this runtime would not: views of a tensor that are used after a kernel
/// wrote to the tensor, or to another view of it.
pub(super) fn stale_views(plan: &ExecutionPlan, kernels: &Kernels) -> Vec<String> {
    let views: Vec<(i32, i32)> = kernels.iter().flatten().flatten().filter_map(Kernel::view).collect();
    let mut stale = Vec::new();
    for (chain, kernels) in plan.chains.iter().zip(kernels) {
        for (at, written) in kernels.iter().enumerate().filter_map(|(at, k)| Some((at, k.as_ref()?.written()?))) {
            // A view is defined after what it is of, so one pass finds views of views.
            let mut aliases = BTreeSet::from([written]);
            for &(of, view) in views.iter().rev().chain(&views) {
                if aliases.contains(&of) || aliases.contains(&view) {
                    aliases.extend([of, view]);
                }
            }
            aliases.remove(&written);
            let later = chain.instructions.iter().skip(at + 1).flat_map(|instruction| match instruction {
                Instruction::KernelCall(call) => &call.args[..],
                Instruction::DelegateCall(call) => &call.args,
                Instruction::MoveCall(call) => std::slice::from_ref(&call.move_from),
                Instruction::JumpFalseCall(call) => std::slice::from_ref(&call.cond_value_index),
                Instruction::FreeCall(_) => &[],
            });
            if let Some(alias) = later.chain(&plan.outputs).find(|index| aliases.contains(index)) {
                stale.push(format!("a kernel that writes to value {written}, of which value {alias} is a view that is used later"));
            }
        }
    }
    stale
}

/// What an instruction takes and what it defines. `inputs` tells how many of a delegate's arguments go in.
fn uses(instruction: &Instruction, kernel: Option<&Kernel>, inputs: &dyn Fn(usize) -> Option<usize>) -> (Vec<i32>, Vec<i32>) {
    match instruction {
        Instruction::KernelCall(_) => kernel.map_or_else(Default::default, |k| (k.taken(), k.defined().to_vec())),
        Instruction::DelegateCall(call) => {
            let first = usize::try_from(call.delegate_index).ok().and_then(inputs).unwrap_or(0).min(call.args.len());
            let (taken, defined) = call.args.split_at(first);
            (taken.to_vec(), defined.to_vec())
        }
        Instruction::MoveCall(call) => (vec![call.move_from], vec![call.move_to]),
        Instruction::JumpFalseCall(call) => (vec![call.cond_value_index], Vec::new()),
        Instruction::FreeCall(_) => Default::default(),
    }
}

/// How the values of a plan come about.
pub(super) struct Memory {
    /// Values that kernels write to in place and that nothing else defines: buffers, which keep what they hold from call to
    /// call.
    pub(super) buffers: Vec<usize>,
    /// Before each instruction of each chain: views to make, value and of which.
    before: Vec<Vec<Vec<(i32, i32)>>>,
    /// The same before the results are taken.
    last: Vec<(i32, i32)>,
}

impl Memory {
    /// Upstream leaves out instructions that only change sizes: the result is a value that nothing defines, planned at the
    /// place of what it views. So a value that nothing defines is a view of whatever was defined last at its place.
    pub(super) fn new(plan: &ExecutionPlan, kernels: &Kernels, inputs: &dyn Fn(usize) -> Option<usize>) -> Self {
        let uses: Vec<Vec<(Vec<i32>, Vec<i32>)>> = plan
            .chains
            .iter()
            .zip(kernels)
            .map(|(chain, kernels)| chain.instructions.iter().zip(kernels).map(|(i, k)| uses(i, k.as_ref(), inputs)).collect())
            .collect();
        let mut defined: BTreeSet<i32> = plan.inputs.iter().copied().collect();
        defined.extend(uses.iter().flatten().flat_map(|(_, defined)| defined));
        let written = kernels.iter().flatten().flatten().filter_map(Kernel::written);
        let buffers: BTreeSet<i32> = written.filter(|to| !defined.contains(to)).collect();

        let place = |value: i32| match usize::try_from(value).ok().and_then(|v| plan.values.get(v)) {
            Some(EValue::Tensor(t)) if t.data_buffer_idx == 0 => t.allocation_info.as_ref().map(|a| (a.memory_id, a.offset())),
            _ => None,
        };
        let mut holds: BTreeMap<(u32, u64), i32> = BTreeMap::new();
        let views = |holds: &BTreeMap<(u32, u64), i32>, taken: &[i32]| {
            let undefined = taken.iter().filter(|v| !defined.contains(v) && !buffers.contains(v));
            undefined.filter_map(|&v| Some((v, *holds.get(&place(v)?)?))).collect::<Vec<_>>()
        };
        let define = |holds: &mut BTreeMap<(u32, u64), i32>, values: &[i32]| {
            holds.extend(values.iter().filter_map(|&v| Some((place(v)?, v))));
        };
        define(&mut holds, &plan.inputs);
        let mut before = Vec::new();
        for chain in &uses {
            let mut of_chain = Vec::new();
            for (taken, defined) in chain {
                of_chain.push(views(&holds, taken));
                define(&mut holds, defined);
            }
            before.push(of_chain);
        }
        let last = views(&holds, &plan.outputs);
        Memory { buffers: buffers.into_iter().filter_map(|to| usize::try_from(to).ok()).collect(), before, last }
    }

    /// Makes the views that an instruction takes.
    pub(super) fn prepare(&self, plan: &ExecutionPlan, chain: usize, at: usize, values: &mut [Option<Value>]) -> Result<()> {
        let views = self.before.get(chain).and_then(|c| c.get(at));
        views.into_iter().flatten().try_for_each(|view| make(plan, *view, values))
    }

    /// Makes the views that are results.
    pub(super) fn finish(&self, plan: &ExecutionPlan, values: &mut [Option<Value>]) -> Result<()> {
        self.last.iter().try_for_each(|view| make(plan, *view, values))
    }
}

fn make(plan: &ExecutionPlan, (view, of): (i32, i32), values: &mut [Option<Value>]) -> Result<()> {
    if let (Some(EValue::Tensor(planned)), Value::Tensor(whole)) =
        (usize::try_from(view).ok().and_then(|v| plan.values.get(v)), fetch(values, of)?)
    {
        let sizes: Vec<usize> = planned.sizes.iter().map(|&n| n.unsigned_abs() as usize).collect();
        let seen = whole.reshape(&sizes)?;
        put(values, view, Value::Tensor(seen))?;
    }
    Ok(())
}
