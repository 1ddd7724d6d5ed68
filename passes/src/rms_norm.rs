//! Finds RMS normalisations that were exported as arithmetic.

use etx_ir::error::Error;
use etx_ir::graph::{Arg, Node, Type, ValueId};
use etx_ir::op;
use etx_ir::op::OpId;

use crate::calls::{CAST, args, as_ints, ints, wrap};
use crate::rewrite::{Patch, Rule, Site};

const MUL: OpId = op!("aten.mul.Tensor");
const RMS_NORM: OpId = op!("aten.rms_norm.default");

/// Makes `aten.rms_norm` of `x * rsqrt(mean(x², last dim) + eps)`, with the weight where torch rounds after it.
///
/// Two forms are taken, as Hugging Face's models have them:
///
/// ```text
/// plain   h = x                 y = h * rsqrt(mean(h^2, -1, keepdim) + eps)                    y * w     becomes  rms_norm(x, w)
/// casted  h = x.to(f32)         y = (h * rsqrt(mean(h^2, -1, keepdim) + eps)).to(x.dtype)                becomes  rms_norm(x)
/// ```
///
/// Checked: the mean is over the last dimension alone and keeps it; what is squared, what is multiplied, and what the
/// casted form casts is one and the same value; `eps` is a number; a weight has one dimension, the last one's size,
/// and the element type of the result; every value in between has no other use.
///
/// Numbers: torch computes `aten.rms_norm` of half types in `f32` and rounds once, after the weight. The casted form
/// rounds before a weight, which stays a product of its own: MLX's kernel does that, and the backend gives it the weight.
/// The plain form in `f32` is the operator's own definition.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseRmsNorm;

impl Rule for FuseRmsNorm {
    fn name(&self) -> &'static str {
        "fuse-rms-norm"
    }

    fn law(&self) -> &'static str {
        "x * rsqrt(mean(x^2 over the last dim, kept) + eps) becomes aten.rms_norm, with the weight that comes before rounding; any other axis, operand or weight is left"
    }

    fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
        let found = match site.op() {
            MUL => {
                let (a, b) = (site.nth(0), site.nth(1));
                plain(site, a, b).or_else(|| plain(site, b, a))
            }
            CAST => casted(site),
            _ => None,
        };
        let Some(Match { x, weight, size, eps }) = found else { return Ok(None) };
        let call = args(RMS_NORM, [Arg::Value(x), ints([size]), weight, Arg::Float(eps)], &[]);
        Ok(Some(Patch::Call(RMS_NORM, call)))
    }
}

struct Match {
    x: ValueId,
    weight: Arg,
    size: i64,
    eps: f64,
}

/// The call that makes a value that nothing else uses.
pub(crate) fn only_used_here<'s>(site: &'s Site<'_>, arg: &Arg, op: OpId) -> Option<&'s Node> {
    let v = arg.as_value()?;
    (site.graph().value(v).use_count() == 1).then(|| site.made_by(arg, op))?
}

/// The value that `product` normalises, and epsilon.
fn normalised(site: &Site<'_>, product: &Arg) -> Option<(ValueId, f64)> {
    let product = only_used_here(site, product, MUL)?;
    let [left, right] = product.args.as_slice() else { return None };
    root(site, left, right).or_else(|| root(site, right, left))
}

/// The head is `normed * weight`.
fn plain(site: &Site<'_>, normed: &Arg, weight: &Arg) -> Option<Match> {
    let w = site.tensor(weight)?;
    let [size] = w.static_shape()?[..] else { return None };
    let (x, eps) = normalised(site, normed)?;
    let t = site.graph().tensor(x)?;
    let fits = t.same_as(site.result()?) && w.dtype == t.dtype && t.dtype.is_float() && t.shape.last()?.as_int() == Some(size);
    fits.then(|| Match { x, weight: weight.clone(), size, eps })
}

/// The head is the cast back to the type of what was cast to `f32` in front.
fn casted(site: &Site<'_>) -> Option<Match> {
    let (h, eps) = normalised(site, site.nth(0))?;
    let x = site.made_by(&Arg::Value(h), CAST)?.args.first()?.as_value()?;
    let (wide, t) = (site.graph().tensor(h)?, site.graph().tensor(x)?);
    let size = t.shape.last()?.as_int()?;
    let fits = t.same_as(site.result()?) && t.dtype.is_float() && wide.shape == t.shape && wide.dtype == etx_ir::DType::Float32;
    fits.then_some(Match { x, weight: Arg::None, size, eps })
}

/// `h` and `eps`, if `scale` is `rsqrt(mean(h^2, last, keepdim) + eps)`.
fn root(site: &Site<'_>, h: &Arg, scale: &Arg) -> Option<(ValueId, f64)> {
    let h = h.as_value()?;
    let rsqrt = only_used_here(site, scale, op!("aten.rsqrt.default"))?;
    let sum = only_used_here(site, rsqrt.args.first()?, op!("aten.add.Tensor"))?;
    let [mean, eps, alpha] = sum.args.as_slice() else { return None };
    let eps = eps.as_float().filter(|_| alpha.as_float() == Some(1.0))?;
    let mean = only_used_here(site, mean, op!("aten.mean.dim"))?;
    let [square, dims, keepdim, dtype] = mean.args.as_slice() else { return None };
    let rank = site.graph().tensor(h)?.rank();
    let [dim] = as_ints(dims)?[..] else { return None };
    if rank == 0 || wrap(dim, rank)? != rank - 1 || keepdim.as_bool() != Some(true) || *dtype != Arg::None {
        return None;
    }
    let squared = square.as_value().filter(|&v| site.graph().value(v).use_count() == 1)?;
    let square = site.graph().node(site.graph().producer(squared)?);
    let same = |a: &Arg| a.as_value() == Some(h);
    let is_square = match square.args.as_slice() {
        [a] => square.op == op!("aten.square.default") && same(a),
        [a, b] if square.op == MUL => same(a) && same(b),
        [a, n] => square.op == op!("aten.pow.Tensor_Scalar") && same(a) && n.as_float() == Some(2.0),
        _ => false,
    };
    let kept = matches!((site.graph().ty(squared), site.graph().ty(h)), (Type::Tensor(a), Type::Tensor(b)) if a.same_as(b));
    (is_square && kept).then_some((h, eps))
}
