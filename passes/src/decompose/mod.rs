//! Taking operators apart that the backend refuses: the pass. The formulas are in the modules below, by family.

mod activation;
mod arrange;
mod attention;
mod backward;
mod cache;
mod calculus;
mod complex;
mod diagonal;
mod expr;
mod fourier;
mod image;
mod index;
mod lengths;
mod linear;
mod lookup;
mod loss;
mod norm;
mod order;
mod pen;
mod pointwise;
mod products;
mod quantise;
mod random;
mod reduce;
mod selections;
mod several;
mod shape;
mod special;
mod spectral;
mod storage;
mod table;
mod turbo;

use std::collections::HashMap;
use std::sync::LazyLock;

use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::NodeId;
use etx_ir::op::OpId;
use etx_ir::program::{Method, Program};

use crate::driver::{Context, Pass};
use crate::effects::removable;
use crate::fold::Constants;
use crate::rewrite::{Patch, Site, Sweep};
pub use selections::ReduceSelections;

/// A formula: what stands for the call instead, if it applies to its arguments.
pub(crate) type Formula = fn(&mut Site<'_>) -> Result<Option<Patch>, Error>;

static TABLE: LazyLock<HashMap<OpId, Formula>> = LazyLock::new(|| {
    let mut map = HashMap::new();
    for (ops, formula) in table::TABLE {
        for op in *ops {
            map.insert(*op, *formula);
        }
    }
    map
});

/// Whether an operator has a formula (which may still not apply to a given call).
pub fn has_formula(op: OpId) -> bool {
    TABLE.contains_key(&op)
}

/// What the backend says of each node of a method, by node index.
pub type Verdicts<'a> = dyn Fn(&Program, &Method) -> Vec<bool> + 'a;

/// Takes operators apart that the backend refuses.
///
/// One table (`table.rs`) gives operators formulas over simpler ones. A formula is applied to a call only if the backend
/// refuses that call: the question is asked for each call, so a refused convolution leaves the others as they are. What a
/// formula wrote is asked about again, until nothing that is refused has a formula.
///
/// Formulas give eager PyTorch's results. Half types are computed in `f32` and rounded once at the end where torch does so.
pub struct Decompose<'a> {
    accepts: Box<Verdicts<'a>>,
}

impl<'a> Decompose<'a> {
    /// Takes apart what `accepts` says no to. It is asked about a whole method at a time, so that it can look at what
    /// surrounds a call, and once a round, so that asking stays linear in the number of calls.
    pub fn new(accepts: impl Fn(&Program, &Method) -> Vec<bool> + 'a) -> Self {
        Self { accepts: Box::new(accepts) }
    }
}

/// Formulas over formulas are never nested more deeply than this.
const MAX_ROUNDS: usize = 16;

impl Pass for Decompose<'_> {
    fn name(&self) -> &'static str {
        "decompose"
    }

    fn law(&self) -> &'static str {
        "a call goes only if the backend refuses it and a formula with torch's result applies; what stays refused has none"
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        for _ in 0..MAX_ROUNDS {
            let accepted = (self.accepts)(cx.program(), cx.method());
            let constants = cx.constants();
            let mut sweep = Sweep::new(&cx.method().graph, "decompose");
            let mut at = cx.graph().nodes().next().map(|(id, _)| id);
            while let Some(node) = at {
                // What a formula wrote in this round is asked about in the next.
                let refused = accepted.get(node.index()) == Some(&false);
                let formula = TABLE.get(&cx.graph().node(node).op).filter(|_| refused && removable(cx.graph().node(node)));
                at = self.step(cx, &constants, &mut sweep, node, formula)?;
            }
            cx.changed(sweep.changes());
            if sweep.changes() == 0 {
                break;
            }
        }
        Ok(())
    }
}

impl Decompose<'_> {
    /// Goes past a call, or applies its formula and gives the first call that this wrote.
    fn step(
        &self,
        cx: &mut Context<'_>,
        constants: &Constants,
        sweep: &mut Sweep,
        node: NodeId,
        formula: Option<&Formula>,
    ) -> Result<Option<NodeId>, Error> {
        let method = cx.edit();
        sweep.step(&mut method.graph, &method.ranges, constants, node, &mut |site| match formula {
            // Operands that no shape rule accepts in the formula: it does not apply, and the backend's refusal stands.
            Some(formula) => formula(site).or_else(|e| match e.kind() {
                ErrorKind::Shape | ErrorKind::Unsupported => Ok(None),
                _ => Err(e),
            }),
            None => Ok(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::table::TABLE;

    #[test]
    fn every_operator_has_one_formula() {
        let mut seen = BTreeSet::new();
        for op in TABLE.iter().flat_map(|(ops, _)| *ops) {
            assert!(seen.insert(op.target()), "{op} stands twice");
        }
    }
}
