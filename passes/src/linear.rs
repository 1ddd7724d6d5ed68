//! Finds linear layers that were exported as products of matrices.

use std::collections::BTreeSet;

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, ValueId};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::program::OutputKind;

use crate::calls::{CAST, args, as_ints, ints};
use crate::driver::{Context, Pass};
use crate::rewrite::{Patch, Rule, Site};
use crate::rms_norm::only_used_here;

const LINEAR: OpId = op!("aten.linear.default");
const MM: OpId = op!("aten.mm.default");
const PERMUTE: OpId = op!("aten.permute.default");
const DEQUANTISE: OpId = op!("torchao.dequantize_affine.default");

/// What changes how a scale is written, not which number belongs to which row.
const WRITTEN: [OpId; 4] = [CAST, op!("aten.view.default"), op!("aten.reshape.default"), op!("aten.squeeze.dims")];

/// Makes `aten.linear` of products with a turned matrix, which is what decomposed programs have instead:
///
/// ```text
/// x @ w.t()                             linear(x, w)
/// addmm(b, x, w.t())                    linear(x, w, b)
/// (x @ q.t().to(x.dtype)) * s           linear(x, dequantize_affine(q, s))
/// ```
///
/// The last one is how torchao's weights of 8 bits are used, one scale a row or one for all: `q` is a stored matrix of `int8`, `s` a
/// stored scale. torch rounds the product to the type of `x` before it is scaled; here it is rounded once.
#[derive(Clone, Copy, Debug, Default)]
pub struct FindLinear;

impl Pass for FindLinear {
    fn name(&self) -> &'static str {
        "find-linear"
    }

    fn law(&self) -> &'static str {
        "products of floats with a transposed matrix become aten.linear; those with stored int8, scaled by row, take the scale with them"
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        let method = cx.method();
        let stored = method
            .inputs
            .iter()
            .enumerate()
            .filter(|(i, input)| input.kind.weight().is_some() && !method.outputs.contains(&OutputKind::StateMutation(*i as u32)));
        let stored = stored.filter_map(|(_, input)| input.value).collect();
        cx.sweep(&Linear { stored })
    }
}

struct Linear {
    /// Weights that nothing writes to.
    stored: BTreeSet<ValueId>,
}

impl Rule for Linear {
    fn name(&self) -> &'static str {
        Pass::name(&FindLinear)
    }

    fn law(&self) -> &'static str {
        Pass::law(&FindLinear)
    }

    fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
        let op = site.op();
        if op == op!("aten.mul.Tensor") {
            let (a, b) = (site.nth(0).clone(), site.nth(1).clone());
            let found = self.scaled(site, &a, &b).or_else(|| self.scaled(site, &b, &a));
            let Some(Scaled { x, codes, block, scale }) = found else { return Ok(None) };
            let Some(dtype) = site.result().map(|t| t.dtype) else { return Ok(None) };
            let call = [codes, ints(block), scale, Arg::None, Arg::DType(DType::Int8), Arg::Int(-128), Arg::Int(127), Arg::DType(dtype)];
            let w = site.call(DEQUANTISE, args(DEQUANTISE, call, &[]))?;
            return Ok(Some(Patch::Call(LINEAR, args(LINEAR, [x, Arg::Value(w)], &[]))));
        }
        let (x, w, bias) = match op {
            _ if op == MM || op == op!("aten.matmul.default") => (site.nth(0), site.nth(1), Arg::None),
            _ if op == op!("aten.addmm.default") => {
                let ones = ["alpha", "beta"].iter().all(|n| site.arg(n).as_float() == Some(1.0));
                let vector =
                    site.operand(0).is_some_and(|b| b.rank() == 1 && site.result().is_some_and(|y| y.shape.last() == b.shape.last()));
                if !ones || !vector {
                    return Ok(None);
                }
                (site.nth(1), site.nth(2), site.nth(0).clone())
            }
            _ => return Ok(None),
        };
        let fits = site.tensor(x).is_some_and(|t| t.dtype.is_float() && t.rank() >= 2);
        let Some(w) = turned(site, w).filter(|_| fits) else { return Ok(None) };
        Ok(Some(Patch::Call(LINEAR, args(LINEAR, [x.clone(), w, bias], &[]))))
    }
}

/// What a matrix is the transpose of.
fn turned(site: &Site<'_>, w: &Arg) -> Option<Arg> {
    let [from, dims] = site.made_by(w, PERMUTE)?.args.as_slice() else { return None };
    (as_ints(dims)? == [1, 0]).then(|| from.clone())
}

struct Scaled {
    x: Arg,
    codes: Arg,
    block: [i64; 2],
    scale: Arg,
}

impl Linear {
    fn is_stored(&self, arg: &Arg) -> bool {
        arg.as_value().is_some_and(|v| self.stored.contains(&v))
    }

    /// The head is `product * scale`.
    fn scaled(&self, site: &Site<'_>, product: &Arg, scale: &Arg) -> Option<Scaled> {
        let [x, w] = only_used_here(site, product, MM)?.args.as_slice() else { return None };
        let cast = |arg: &Arg| site.made_by(arg, CAST).and_then(|c| c.args.first().cloned());
        // The cast may stand before or after the transposition.
        let codes = cast(w).and_then(|c| turned(site, &c)).or_else(|| turned(site, w).and_then(|t| cast(&t)))?;
        let t = site.tensor(&codes)?;
        let [rows, columns] = t.static_shape()?[..] else { return None };
        if t.dtype != DType::Int8 || !self.is_stored(&codes) || !site.tensor(x)?.dtype.is_float() {
            return None;
        }
        let shape = site.tensor(scale)?.static_shape()?;
        let mut stored = scale;
        while let Some(node) = WRITTEN.into_iter().find_map(|op| site.made_by(stored, op)) {
            stored = node.args.first()?;
        }
        let factor = site.tensor(stored)?;
        let count = factor.static_shape()?.iter().product::<i64>();
        let by_row = count == rows && shape == [rows];
        let same = site.tensor(product)?.dtype == site.result()?.dtype;
        let fits = same && factor.dtype.is_float() && self.is_stored(stored) && (by_row || count == 1 && shape.len() <= 2);
        fits.then(|| Scaled { x: x.clone(), codes, block: [if by_row { 1 } else { rows }, columns], scale: stored.clone() })
    }
}
