//! What an operator does besides returning values, and its relatives that do it differently.
//!
//! Everything follows from the schema, its words, and torch's naming rules (`add_` writes where `add` returns,
//! `view_copy` copies where `view` shares). The two tables below are what those rules do not cover.

use super::schema::{Kind, ReturnSpec, Schema, Traits};
use super::{FUNCTIONAL, OpId, table};

/// In-place operators whose functional form has another overload or name. Arguments agree, position by position.
const INPLACE: &[(&str, &str)] = &[
    ("aten.bernoulli_.float", "aten.bernoulli.p"),
    ("aten.float_power_.Scalar", "aten.float_power.Tensor_Scalar"),
    ("aten.float_power_.Tensor", "aten.float_power.Tensor_Tensor"),
    ("aten.floor_divide_.Tensor", "aten.floor_divide.default"),
    ("aten.ldexp_.default", "aten.ldexp.Tensor"),
    ("aten.normal_.default", "aten.normal_functional.default"),
    ("aten.pow_.Scalar", "aten.pow.Tensor_Scalar"),
    ("aten.pow_.Tensor", "aten.pow.Tensor_Tensor"),
    ("aten.transpose_.default", "aten.transpose.int"),
];

/// Operators that write to arguments although their schema does not say so, if a flag of the call is set.
const TRAINING: &[(&str, TrainingMutation)] = &[
    ("aten._batch_norm_impl_index.default", RUNNING_STATS),
    ("aten.batch_norm.default", RUNNING_STATS),
    ("aten.instance_norm.default", TrainingMutation { flag: "use_input_stats", ..RUNNING_STATS }),
    ("aten.native_batch_norm.default", RUNNING_STATS),
];

const RUNNING_STATS: TrainingMutation = TrainingMutation { flag: "training", args: &["running_mean", "running_var"] };

/// A mutation that the schema hides: with `flag` true, the call updates `args` in place where they are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingMutation {
    /// Name of the boolean argument that decides.
    pub flag: &'static str,
    /// Names of the (optional) arguments written to.
    pub args: &'static [&'static str],
}

impl OpId {
    /// Whether the schema says that a call writes to an argument. See also [`OpId::training_mutation`].
    pub fn mutates(self) -> bool {
        self.schema().args.iter().any(|a| a.mutated)
    }

    /// The mutation that happens in training only and that the schema hides, as with `aten.batch_norm`.
    pub fn training_mutation(self) -> Option<TrainingMutation> {
        let target = self.target();
        TRAINING.iter().find(|(t, _)| *t == target).map(|(_, m)| *m)
    }

    /// Whether a result shares memory with an argument that is not written to, or (`reshape`, `contiguous`, `to`) may
    /// share it. Which argument is in [`ReturnSpec::alias_of`].
    pub fn is_view(self) -> bool {
        self.schema().returns.iter().any(|r| !r.mutated && !r.alias_of.is_empty())
    }

    /// Whether a call changes sizes or strides of its first argument, as `transpose_` does.
    pub fn is_inplace_view(self) -> bool {
        self.schema().traits.inplace_view
    }

    /// Whether a call draws random numbers: equal calls then differ.
    pub fn is_random(self) -> bool {
        self.schema().traits.random
    }

    /// Whether a call does something besides its results and mutations: fails on a condition, prints, changes state that
    /// is no argument. Such a call stays although nobody uses its results, and in its place.
    pub fn has_side_effects(self) -> bool {
        self.schema().traits.effect
    }

    /// Whether equal arguments give equal results and nothing else happens, so that calls may be merged, moved and
    /// dropped. Never so for higher-order operators, which depends on their bodies.
    pub fn is_pure(self) -> bool {
        let traits = &self.schema().traits;
        let quiet = !traits.random && !traits.effect && !self.mutates() && self.training_mutation().is_none();
        quiet && self.schema().kind != Kind::HigherOrder
    }

    /// Whether it belongs to the core ATen operator set (torch's tag).
    pub fn is_core(self) -> bool {
        self.schema().traits.core
    }

    /// Whether each output element depends only on the input elements at its own position (torch's tag).
    pub fn is_pointwise(self) -> bool {
        self.schema().traits.pointwise
    }

    /// The operator whose results the one of this target writes to tensors that the caller gives
    /// ([`Traits::out`](super::Traits::out)): `aten::add.out` is of `aten.add.Tensor`.
    pub fn of_out_variant(target: &str) -> Option<OpId> {
        let target = super::canonical(target);
        let (base, overload) = target.rsplit_once('.')?;
        let mut related = OpId::all().filter(|op| op.target().strip_prefix(base).is_some_and(|rest| rest.starts_with('.')));
        related.find(|op| op.schema().traits.out.as_ref().is_some_and(|out| out.overload == overload))
    }

    /// The operator that returns what this one writes to its first argument: `aten.add_.Tensor` → `aten.add.Tensor`,
    /// `aten.copy_.default` → `aten.copy.default`. It takes the same arguments, position by position.
    pub fn inplace_to_functional(self) -> Option<OpId> {
        let schema = self.schema();
        if !schema.args.first()?.mutated || schema.mutated_args().count() != 1 {
            return None;
        }
        if let Some((_, to)) = INPLACE.iter().find(|(from, _)| *from == schema.target) {
            return OpId::lookup(to);
        }
        let name = match schema.name.strip_prefix("__i") {
            Some(rest) => format!("__{rest}"),
            None => schema.name.strip_suffix('_')?.to_owned(),
        };
        let to = OpId::lookup(&format!("{}.{name}.{}", schema.ns, schema.overload))?;
        (!to.mutates() && to.schema().same_arguments(schema)).then_some(to)
    }

    /// The operator that copies where this one returns a view: `aten.view.default` → `aten.view_copy.default`.
    pub fn view_to_copy(self) -> Option<OpId> {
        let schema = self.schema();
        let to = OpId::lookup(&format!("{}.{}_copy.{}", schema.ns, schema.name, schema.overload))?;
        (self.is_view() && !to.is_view() && to.schema().same_arguments(schema)).then_some(to)
    }

    /// The operator that returns a view where this one copies: `aten.view_copy.default` → `aten.view.default`.
    pub fn copy_to_view(self) -> Option<OpId> {
        let schema = self.schema();
        let from = OpId::lookup(&format!("{}.{}.{}", schema.ns, schema.name.strip_suffix("_copy")?, schema.overload))?;
        (from.view_to_copy() == Some(self)).then_some(from)
    }

    /// The operator that returns what this one writes: the results of this one, as fresh values, then the new value of
    /// each mutated argument in argument order. Arguments are the same, none written to. `None` if nothing is written.
    ///
    /// torch's own where there is one (`aten._native_batch_norm_legit_functional.default`), else a made-up twin whose
    /// target is this one's with `_functional` after it: `mlx.kv_cache_update.default_functional`. For plain in-place
    /// operators [`OpId::inplace_to_functional`] is the better known form.
    pub fn functional(self) -> Option<OpId> {
        let schema = self.schema();
        if !self.mutates() {
            return None;
        }
        let derived = OpId(self.0 | FUNCTIONAL);
        let twin = table::find(format!("{}.{}_functional.{}", schema.ns, schema.name, schema.overload).as_bytes()).map(OpId);
        let same = |twin: &OpId| {
            let (a, b) = (twin.schema(), derived.schema());
            a.same_arguments(b) && a.returns.iter().map(|r| &r.ty).eq(b.returns.iter().map(|r| &r.ty)) && !twin.mutates()
        };
        Some(twin.filter(same).unwrap_or(derived))
    }

    /// The operator whose [made-up functional twin](OpId::functional) this is.
    pub fn functional_of(self) -> Option<OpId> {
        (!self.is_unknown() && self.0 & FUNCTIONAL != 0).then_some(OpId(self.0 & !FUNCTIONAL))
    }
}

/// Schema of the made-up functional twin.
pub(super) fn functional_schema(schema: &Schema) -> Schema {
    let mut twin = schema.clone();
    let suffix = super::FUNCTIONAL_SUFFIX;
    twin.target.push_str(suffix);
    match twin.kind {
        Kind::Operator => twin.overload.push_str(suffix),
        Kind::Function | Kind::HigherOrder => twin.name.push_str(suffix),
    }
    for arg in &mut twin.args {
        (arg.mutated, arg.alias_set) = (false, None);
    }
    for ret in &mut twin.returns {
        (ret.mutated, ret.alias_of) = (false, Vec::new());
    }
    let new_values = schema.args.iter().filter(|a| a.mutated);
    twin.returns.extend(new_values.map(|a| ReturnSpec {
        ty: a.ty.clone(),
        name: Some(format!("{}_out", a.name)),
        alias_of: Vec::new(),
        mutated: false,
    }));
    twin.traits = Traits { core: false, inplace_view: false, out: None, ..twin.traits };
    twin
}
