//! Taking operators apart that the backend refuses: the pass. The formulas are in the modules below, by family.

mod activation;
mod arrange;
mod attention;
mod backward;
mod boxes;
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
mod loops;
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
use etx_ir::graph::{Arg, NodeId, TensorType};
use etx_ir::op::OpId;
use etx_ir::program::{Method, Program};

use crate::driver::{Context, Declined, Pass};
use crate::effects::removable;
use crate::fold::Constants;
use crate::rewrite::{Patch, Site, Sweep};
pub use selections::ReduceSelections;
use table::Needs;

/// A formula: what stands for the call instead, if it applies to its arguments. Why it does not is an error ([`no`]), or follows from what
/// the table says that it needs.
pub(crate) type Formula = fn(&mut Site<'_>) -> Result<Option<Patch>, Error>;

static TABLE: LazyLock<HashMap<OpId, (Formula, Needs)>> = LazyLock::new(|| {
    let mut map = HashMap::new();
    for (ops, formula, needs) in table::TABLE {
        for op in *ops {
            map.insert(*op, (*formula, *needs));
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
/// A formula that does not apply says why, and the report has it ([`Declined`]). Loops that are not written out stay as they are, and what
/// their bodies hold is taken apart like the rest.
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

/// Bodies in bodies are never nested more deeply than this.
const MAX_DEPTH: usize = 8;

impl Pass for Decompose<'_> {
    fn name(&self) -> &'static str {
        "decompose"
    }

    fn law(&self) -> &'static str {
        "a call goes only if the backend refuses it and a formula with torch's result applies; what stays refused has none"
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        let (program, method) = cx.parts();
        let (changes, declined) = self.apart(program, method, 0)?;
        cx.changed(changes);
        cx.declined(declined);
        Ok(())
    }
}

/// A formula that does not apply says so with this.
pub(super) fn no<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(ErrorKind::Unsupported, reason))
}

/// As [`no`], with what to do about it.
pub(super) fn no_but<T>(reason: impl Into<String>, remedy: &str) -> Result<T, Error> {
    Err(Error::new(ErrorKind::Unsupported, reason).help(remedy))
}

/// The arguments of a call, for people.
fn operands(site: &Site<'_>) -> String {
    let sizes = |t: &TensorType| t.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let shown = |a: &Arg| site.tensor(a).map(|t| format!("{}[{}]", t.dtype, sizes(t)));
    let all = site.node().args.iter().flat_map(|a| a.as_list().map_or_else(|| vec![a], |list| list.iter().collect()));
    let tensors: Vec<String> = all.filter_map(shown).take(8).collect();
    if tensors.is_empty() { "no tensors".to_owned() } else { tensors.join(", ") }
}

impl Decompose<'_> {
    /// Takes calls apart until nothing that is refused has a formula: first those of the graph itself, then those of the
    /// loops that are left in it. Gives the number of changes, and why the formulas of what is left do not apply.
    fn apart(&self, program: &Program, method: &mut Method, depth: usize) -> Result<(u64, Vec<Declined>), Error> {
        let (mut changes, mut declined) = (0, Vec::new());
        for _ in 0..MAX_ROUNDS {
            let (mut now, outer) = self.round(program, method, &|op| TABLE.get(&op).copied())?;
            declined = outer;
            if now == 0 && depth < MAX_DEPTH {
                let (inner, why) = self.bodies(program, method, depth)?;
                now = inner;
                declined.extend(why);
            }
            if now == 0 && method.graph.nodes().any(|(_, n)| loops::last_resort(n.op).is_some()) {
                // A loop that cannot be run as one may still be written out.
                now = self.round(program, method, &|op| Some((loops::last_resort(op)?, table::SIZES)))?.0;
            }
            if now == 0 {
                break;
            }
            changes += now;
        }
        Ok((changes, declined))
    }

    /// Offers each call that the backend refuses to its formula, once.
    fn round(
        &self,
        program: &Program,
        method: &mut Method,
        formula: &dyn Fn(OpId) -> Option<(Formula, Needs)>,
    ) -> Result<(u64, Vec<Declined>), Error> {
        let accepted = (self.accepts)(program, method);
        let constants = Constants::new(program, method);
        let mut declined = Vec::new();
        let mut sweep = Sweep::new(&method.graph, "decompose");
        let mut at = method.graph.nodes().next().map(|(id, _)| id);
        while let Some(node) = at {
            // What a formula wrote in this round is asked about in the next.
            let refused = accepted.get(node.index()) == Some(&false);
            let call = method.graph.node(node);
            let formula = formula(call.op).filter(|_| refused && removable(call));
            let mut why = None;
            at = sweep.step(&mut method.graph, &method.ranges, &constants, node, &mut |site| {
                let Some((formula, needs)) = formula else { return Ok(None) };
                let done = formula(site);
                if let Ok(None) = done {
                    why = Some(Error::new(ErrorKind::Unsupported, format!("{needs}; here are {}", operands(site))));
                }
                // Operands that no shape rule accepts in the formula: it does not apply, either.
                done.or_else(|e| match e.kind() {
                    ErrorKind::Shape | ErrorKind::Unsupported => {
                        why = Some(e);
                        Ok(None)
                    }
                    _ => Err(e),
                })
            })?;
            if let Some(e) = why {
                declined.push(Declined {
                    method: method.name.to_string(),
                    node: method.graph.node(node).name.to_string(),
                    reason: e.findings().join("; "),
                    remedy: e.remedy().unwrap_or_default().to_owned(),
                });
            }
        }
        Ok((sweep.changes(), declined))
    }

    /// Takes apart what the bodies of loops hold.
    fn bodies(&self, program: &Program, method: &mut Method, depth: usize) -> Result<(u64, Vec<Declined>), Error> {
        let (mut changes, mut declined) = (0, Vec::new());
        let loops: Vec<NodeId> = method.graph.nodes().filter(|(_, n)| loops::last_resort(n.op).is_some()).map(|(id, _)| id).collect();
        for node in loops {
            let mut args = method.graph.node(node).args.clone();
            let given = args.last().and_then(Arg::as_list).map(<[Arg]>::to_vec).unwrap_or_default();
            let mut here = 0;
            for arg in &mut args {
                let Arg::Graph(body) = arg else { continue };
                let mut inner = loops::as_method(method, body, &given);
                let (n, why) = self.apart(program, &mut inner, depth + 1)?;
                declined.extend(why.into_iter().map(|d| Declined {
                    method: method.name.to_string(),
                    node: method.graph.node(node).name.to_string(),
                    reason: format!("in its body, {}: {}", d.node, d.reason),
                    remedy: d.remedy,
                }));
                here += n;
                **body = inner.graph;
            }
            if here > 0 {
                method.graph.set_args(node, args);
            }
            changes += here;
        }
        Ok((changes, declined))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::table::TABLE;

    #[test]
    fn every_operator_has_one_formula() {
        let mut seen = BTreeSet::new();
        for op in TABLE.iter().flat_map(|(ops, ..)| *ops) {
            assert!(seen.insert(op.target()), "{op} stands twice");
        }
    }

    #[test]
    fn every_formula_says_what_it_needs() {
        for (ops, _, needs) in TABLE {
            assert!(needs.starts_with("its formula needs ") && needs.len() > 30, "{}", ops.first().map_or("", |op| op.target()));
        }
    }
}
