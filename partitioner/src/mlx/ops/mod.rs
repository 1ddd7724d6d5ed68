//! Lowerings, one file a family, all of them found through one table.

mod attention;
mod conv;
mod create;
mod elementwise;
mod index;
mod linalg;
mod loops;
mod moe;
mod norm;
mod pool;
mod quant;
mod random;
mod recurrent;
mod reduce;
mod refused;
mod resample;
mod sample;
mod shape;
mod spectral;
mod symbolic;

use std::collections::HashMap;
use std::sync::LazyLock;

use etx_ir::graph::ValueId;
use etx_ir::op::OpId;

use super::call::{Call, Res};
use super::cx::Cx;
use crate::backend::Refusal;

/// Lowers one call: emits instructions and binds the results, or refuses.
pub(crate) type Lower = for<'a> fn(&mut Cx<'a>, Call<'a>) -> Res;

/// An operator that the backend lowers.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    /// Canonical target.
    pub target: &'static str,
    /// What it becomes, in instructions.
    pub becomes: &'static str,
    /// When it is refused; empty for never (beyond element types that MLX lacks).
    pub conditions: &'static str,
    /// Argument that the operator gives a new state of, where it may be updated in place.
    updates: Option<&'static str>,
    lower: Lower,
}

impl Operator {
    const fn new(target: &'static str, lower: Lower, becomes: &'static str) -> Self {
        Self { target, becomes, conditions: "", updates: None, lower }
    }

    /// Adds when it is refused.
    const fn when(mut self, conditions: &'static str) -> Self {
        self.conditions = conditions;
        self
    }

    /// Says which argument may be updated in place.
    const fn updating(mut self, arg: &'static str) -> Self {
        self.updates = Some(arg);
        self
    }
}

/// Every operator that the backend lowers, family by family.
pub fn operators() -> impl Iterator<Item = &'static Operator> {
    [
        elementwise::OPERATORS,
        reduce::OPERATORS,
        shape::OPERATORS,
        index::OPERATORS,
        create::OPERATORS,
        linalg::OPERATORS,
        norm::OPERATORS,
        conv::OPERATORS,
        pool::OPERATORS,
        quant::OPERATORS,
        moe::OPERATORS,
        sample::OPERATORS,
        random::OPERATORS,
        recurrent::OPERATORS,
        loops::OPERATORS,
        spectral::OPERATORS,
        attention::OPERATORS,
        symbolic::OPERATORS,
    ]
    .into_iter()
    .chain(resample::OPERATORS.iter().copied())
    .flatten()
}

static BY_OP: LazyLock<HashMap<OpId, &'static Operator>> =
    LazyLock::new(|| operators().filter_map(|o| Some((OpId::lookup(o.target)?, o))).collect());

/// Why the backend refuses an operator for good, and what to do instead, where that is known; other operators without a
/// lowering have none yet.
pub fn refusal(op: OpId) -> Option<(&'static str, &'static str)> {
    refused::refusal(op.target())
}

/// Lowers the call.
pub(crate) fn lower<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    match BY_OP.get(&call.node.op) {
        Some(o) => (o.lower)(cx, call),
        None => Err(match refusal(call.node.op) {
            Some((reason, remedy)) => Refusal::new(reason).remedy(remedy).of_operator(),
            None => Refusal::new(format!("no lowering for {}", call.node.op.target())).of_operator(),
        }),
    }
}

/// The operand whose next state result `v` of the call is, if the operator is an update.
pub(crate) fn updated_operand(call: &Call<'_>, v: ValueId) -> Option<ValueId> {
    let name = BY_OP.get(&call.node.op)?.updates?;
    // The new state is the last result.
    (call.node.outputs.last() == Some(&v)).then(|| call.arg(name).as_value()).flatten()
}

/// Whether the operator takes a number out of a tensor.
pub(crate) fn takes_out(op: OpId) -> bool {
    matches!(op.target(), "aten.item.default" | "aten._local_scalar_dense.default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_known_operator_and_stands_once() {
        let mut seen = std::collections::BTreeSet::new();
        for o in operators() {
            assert!(OpId::lookup(o.target).is_some_and(|op| op.target() == o.target), "{} is not a canonical target", o.target);
            assert!(seen.insert(o.target), "{} stands twice", o.target);
            if let Some(arg) = o.updates {
                assert!(OpId::of(o.target).schema().position(arg).is_some() || o.target.ends_with("_functional"), "{}", o.target);
            }
        }
    }
}
