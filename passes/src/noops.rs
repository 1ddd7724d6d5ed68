//! Removes calls that change nothing.

use etx_ir::error::Error;
use etx_ir::graph::Arg;

use crate::rewrite::{Patch, Rule, Site};

/// Removes calls whose result is their operand: same type in and out, and an operator that under this condition is the
/// identity. Types are compared as expressions, so this is right for symbolic sizes.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveNoops;

impl Rule for RemoveNoops {
    fn name(&self) -> &'static str {
        "remove-noops"
    }

    fn law(&self) -> &'static str {
        "a call goes if its result has the type of its operand and every element of it; nothing is assumed of symbols"
    }

    fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
        if let Some(only) = only_part(site) {
            return Ok(Some(Patch::value(only)));
        }
        let Some(x) = site.value(0) else { return Ok(None) };
        let (Some(from), Some(to)) = (site.graph().tensor(x), site.result()) else { return Ok(None) };
        if !from.same_as(to) || site.node().outputs.len() != 1 {
            return Ok(None);
        }
        let one = |a: &Arg| a.as_float() == Some(1.0);
        let zero = |a: &Arg| a.as_float() == Some(0.0);
        let whole = !from.dtype.is_float() && !from.dtype.is_complex();
        let identity = by_op!(site.op(), {
            "aten.view.default" | "aten.squeeze.dims" | "aten.expand.default" => true,
            "aten._to_copy.default" => true,
            "aten.permute.default" => site.arg("dims").as_list().is_some_and(in_order),
            // Some elements of as many, in order, are all of them.
            "aten.slice.Tensor" => site.arg("step").as_int() == Some(1),
            "aten.repeat.default" => site.arg("repeats").as_list().is_some_and(|r| r.iter().all(|n| n.as_int() == Some(1))),
            "aten.mul.Tensor" | "aten.div.Tensor" => one(site.arg("other")),
            // -0 + 0 is 0, so floats keep their addition; -0 - 0 is -0.
            "aten.sub.Tensor" => zero(site.arg("other")),
            "aten.add.Tensor" => whole && zero(site.arg("other")),
            "aten.pow.Tensor_Scalar" => one(site.arg("exponent")),
            _ => false,
        });
        Ok(identity.then(|| Patch::value(x)))
    }
}

fn in_order(dims: &[Arg]) -> bool {
    dims.iter().enumerate().all(|(i, d)| d.as_int() == Some(i as i64))
}

/// The operand of a concatenation of one, or of a split into one.
fn only_part(site: &Site<'_>) -> Option<Arg> {
    let whole = by_op!(site.op(), {
        "aten.cat.default" => match site.nth(0).as_list()? {
            [one] => one,
            _ => return None,
        },
        "aten.split_with_sizes.default" if site.node().outputs.len() == 1 => site.nth(0),
        _ => return None,
    });
    site.tensor(whole)?.same_as(site.result()?).then(|| whole.clone())
}
