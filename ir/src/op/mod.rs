//! Operators: what a call may name, which arguments it takes, what it does to them.
//!
//! An [`OpId`] is a small number for a known operator; [`OpId::schema`] has its signature. Operators are known from two
//! files beside this one, `aten.schema` (written from torch's registry by `tools/gen_schemas.py`) and `custom.schema` (kept
//! by hand: torchao, `quantized_decomposed`, MLX, ExecuTorch's, Python's scalar functions, higher-order operators), and
//! from [`OpId::register`]. One line declares one operator:
//!
//! ```text
//! aten.index_copy_.default(Tensor(a!) self, int dim, Tensor index, Tensor source) -> Tensor(a!)
//! aten.rand.default(SymInt[] size, *, ScalarType? dtype=None, …) -> Tensor ; core random out_without_options=out
//! _operator.add(Scalar a, Scalar b) -> Scalar ; function
//! higher_order.cond(Any pred, Graph true_graph, Graph false_graph, Any[] operands) -> Any ; hop
//! ```
//!
//! The target first, as programs spell it, then arguments and returns in torch's schema notation: `(a!)` marks what is
//! written to, `(a)` what is shared with the result of the same letter, `*` starts the arguments given by name only.
//! Defaults of element types, layouts and memory formats are c10's numbers. After ` ; ` come words for what a signature
//! does not show; [`Traits`] explains each. The files are sorted by target, each by itself.
//!
//! The index over both files is made when etx is compiled; a line is read when its operator is first asked about.
//!
//! ```
//! use etx_ir::op::{OpId, bind, ArgKind};
//!
//! let add = OpId::lookup("torch.ops.aten.add.Tensor").ok_or("unknown operator")?;
//! assert_eq!(add, etx_ir::op!("aten.add.Tensor"));
//! let call = [("self", ArgKind::Positional, "x"), ("other", ArgKind::Positional, "y")];
//! assert_eq!(bind(add.schema(), call)?.args, [Some("x"), Some("y"), None]);
//! let update = etx_ir::op!("mlx.kv_cache_update.default");
//! let twin = update.functional().ok_or("nothing is written")?;
//! assert_eq!(twin.target(), "mlx.kv_cache_update.default_functional");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bind;
mod effects;
pub(crate) mod families;
mod parse;
mod registry;
mod schema;
mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use crate::error::Error;

pub use bind::{ArgKind, BindError, BindProblem, Bound, bind};
pub use effects::TrainingMutation;
pub use schema::{ArgSpec, ArgType, Kind, Literal, OutVariant, ReturnSpec, Schema, Traits};

/// Marks an operator that was added by [`OpId::register`].
const ADDED: u32 = 1 << 31;
/// Marks the made-up functional twin of an operator.
const FUNCTIONAL: u32 = 1 << 30;
/// What the target of such a twin ends in.
const FUNCTIONAL_SUFFIX: &str = "_functional";

/// What stands before the canonical target in files. All of them name the same operators.
const PREFIXES: [&str; 5] = [
    "torch.ops.",
    "executorch.exir.dialects.edge.ops.",
    "executorch.exir.dialects.edge._ops.",
    "executorch.exir.dialects.backend.ops.",
    "executorch.exir.dialects.backend._ops.",
];

/// An operator. Equal ids, equal operators.
///
/// The order is that of the schema files; added operators follow in the order they were added, which may depend on
/// threads. Sort by [`OpId::target`] what is shown to people.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(u32);

/// The [`OpId`](crate::op::OpId) of a built-in operator, by its canonical target. Found when compiled: a misspelt target does not compile.
///
/// ```
/// const MM: etx_ir::op::OpId = etx_ir::op!("aten.mm.default"); // can be matched against
/// assert_eq!(MM.target(), "aten.mm.default");
/// ```
/// ```compile_fail
/// let typo = etx_ir::op!("aten.mn.default");
/// ```
#[macro_export]
macro_rules! op {
    ($target:literal) => {
        const {
            let id = $crate::op::OpId::of($target);
            assert!(!id.is_unknown(), concat!("no built-in operator is called ", $target));
            id
        }
    };
}

impl OpId {
    /// No operator: different from every other id, takes anything, is never pure. What [`OpId::of`] gives for a target
    /// that is not built in; no program contains it.
    pub const UNKNOWN: OpId = OpId(u32::MAX);

    /// The built-in operator with this canonical target, or [`OpId::UNKNOWN`]. For targets in source code, prefer
    /// [`op!`](crate::op!), which is checked when compiled; for targets in files, [`OpId::lookup`].
    pub const fn of(target: &str) -> OpId {
        let bytes = target.as_bytes();
        if let Some(index) = table::find(bytes) {
            return OpId(index);
        }
        match split_functional(target) {
            Some(base) => match table::find(base) {
                Some(index) if table::mutates(index) => OpId(index | FUNCTIONAL),
                _ => OpId::UNKNOWN,
            },
            None => OpId::UNKNOWN,
        }
    }

    /// The operator that a file names so: canonical (`aten.add.Tensor`, `_operator.add`, `higher_order.cond`), with one
    /// of the prefixes of torch or ExecuTorch (`torch.ops.…`, `executorch.exir.dialects.edge.ops.…`), or in schema
    /// notation (`aten::add.Tensor`, `aten::relu`). `None` if it is neither built in nor added.
    pub fn lookup(target: &str) -> Option<OpId> {
        let canonical = canonical(target);
        let found = OpId::of(&canonical);
        if !found.is_unknown() {
            return Some(found);
        }
        if let Some(index) = registry::find(&canonical) {
            return Some(OpId(index | ADDED));
        }
        let base = canonical.strip_suffix(FUNCTIONAL_SUFFIX).and_then(registry::find).map(|index| OpId(index | ADDED))?;
        base.mutates().then_some(OpId(base.0 | FUNCTIONAL))
    }

    /// Makes an operator known for the rest of the process, by its schema line: torch's notation
    /// (`my_ops::scale(Tensor x, float factor=1.0) -> Tensor`) or that of the schema files. An operator that is known
    /// with the same schema stays as it is.
    ///
    /// # Errors
    /// A malformed line, with the byte where reading stopped, or an operator that is known with another schema.
    pub fn register(schema_line: &str) -> Result<OpId, Error> {
        Ok(match registry::register(schema_line)? {
            registry::Registered::BuiltIn(index) => OpId(index),
            registry::Registered::Added(index) => OpId(index | ADDED),
        })
    }

    /// The built-in operators, in the order of the schema files.
    pub fn all() -> impl Iterator<Item = OpId> {
        (0..table::LEN as u32).map(OpId)
    }

    /// Whether this is [`OpId::UNKNOWN`].
    pub const fn is_unknown(self) -> bool {
        self.0 == u32::MAX
    }

    /// Canonical target, such as `aten.add.Tensor`. Takes no time for built-in operators.
    pub fn target(self) -> &'static str {
        if self.0 & (ADDED | FUNCTIONAL) == 0 { table::target(self.0) } else { &self.schema().target }
    }

    /// Signature and effects.
    pub fn schema(self) -> &'static Schema {
        let index = self.0 & !(ADDED | FUNCTIONAL);
        match (self.0 & ADDED != 0, self.0 & FUNCTIONAL != 0) {
            _ if self.is_unknown() => registry::unknown(),
            (false, false) => table::schema(index),
            (false, true) => table::functional(index),
            (true, false) => registry::schema(index),
            (true, true) => registry::functional(index),
        }
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.target())
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.target())
    }
}

/// A target without prefix, and out of schema notation.
fn canonical(target: &str) -> Cow<'_, str> {
    let bare = PREFIXES.iter().find_map(|prefix| target.strip_prefix(prefix)).unwrap_or(target);
    match bare.split_once("::") {
        Some((ns, name)) if name.contains('.') => Cow::Owned(format!("{ns}.{name}")),
        Some((ns, name)) => Cow::Owned(format!("{ns}.{name}.default")),
        None => Cow::Borrowed(bare),
    }
}

/// The target of the operator that a made-up functional twin belongs to.
const fn split_functional(target: &str) -> Option<&[u8]> {
    let (target, suffix) = (target.as_bytes(), FUNCTIONAL_SUFFIX.as_bytes());
    if target.len() <= suffix.len() {
        return None;
    }
    let (base, end) = target.split_at(target.len() - suffix.len());
    let mut i = 0;
    while i < suffix.len() {
        if end[i] != suffix[i] {
            return None;
        }
        i += 1;
    }
    Some(base)
}
