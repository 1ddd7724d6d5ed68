//! Random numbers, all of them out of `rand` (uniform in [0, 1), as fine as the mantissa) and `randint` of 32 bits.
//!
//! They follow torch's distributions; which numbers come differs at every call, as it does between torch's own devices.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::expr::Ex;
use super::pen::Pen;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// What a draw is in steps of: the fineness of a uniform number in `f32`.
const STEP: f64 = 1.0 / (1 << 24) as f64;
/// One more than the largest of the integers that `randint` makes of all its bits.
const ALL_BITS: i64 = 1 << 32;

/// Uniform in [0, 1). `None` if the sizes cannot be told at run time.
fn uniform(p: &mut Pen<'_, '_>, shape: &[Dim], dtype: DType) -> Option<Ex> {
    let sizes = p.0.sizes(shape)?;
    Some(Ex::call(op!("aten.rand.default"), vec![sizes.into(), Arg::DType(dtype).into()]))
}

/// Uniform in (0, 1): without the bounds, whose logarithms are nothing to divide by. Half a step stands for 0; added to the largest
/// number it would be rounded up to 1.
fn inside(p: &mut Pen<'_, '_>, shape: &[Dim]) -> Option<Ex> {
    Some(uniform(p, shape, DType::Float32)?.at_least(STEP / 2.0))
}

/// Normal with mean 0 and deviation 1: `sqrt(-2 log(u)) * cos(2π v)`. Source: G. Box and M. Muller, "A note on the generation
/// of random normal deviates", 1958, as in torch.randn.
fn gaussian(p: &mut Pen<'_, '_>, shape: &[Dim]) -> Option<Ex> {
    let (u, v) = (inside(p, shape)?, uniform(p, shape, DType::Float32)?);
    Some((u.log() * -2.0).sqrt() * (v * std::f64::consts::TAU).cos())
}

/// True with this probability, in the shape of the result.
fn chance(p: &mut Pen<'_, '_>, shape: &[Dim], probability: impl Into<Ex>) -> Option<Ex> {
    Some(uniform(p, shape, DType::Float32)?.lt(probability))
}

/// A formula of the shape of the result.
fn drawn(site: &mut Site<'_>, f: impl FnOnce(&mut Pen<'_, '_>, &[Dim]) -> Option<Ex>) -> Result {
    let Some(shape) = site.result().map(|t| t.shape.clone()) else { return Ok(None) };
    let mut p = Pen(site);
    match f(&mut p, &shape) {
        Some(e) => p.ends(&e),
        None => Ok(None),
    }
}

/// A number or a value of the call.
fn nth(p: &Pen<'_, '_>, i: usize) -> Ex {
    p.0.nth(i).into()
}

/// `rand` of the sizes of the result, in its element type.
pub(super) fn rand(site: &mut Site<'_>) -> Result {
    drawn(site, |p, shape| {
        let dtype = p.0.result()?.dtype;
        uniform(p, shape, dtype)
    })
}

/// See [`gaussian`].
pub(super) fn randn(site: &mut Site<'_>) -> Result {
    drawn(site, gaussian)
}

/// `mean + std * randn`. Source: torch.normal.
pub(super) fn normal(site: &mut Site<'_>) -> Result {
    // After the tensor that is filled, if there is one.
    let first = usize::from(site.op() == op!("aten.normal_functional.default"));
    drawn(site, |p, shape| {
        let (mean, std) = (nth(p, first), nth(p, first + 1));
        Some(gaussian(p, shape)? * std + mean)
    })
}

/// `exp(mean + std * randn)`. Source: torch.Tensor.log_normal_.
pub(super) fn log_normal(site: &mut Site<'_>) -> Result {
    drawn(site, |p, shape| {
        let (mean, std) = (nth(p, 1), nth(p, 2));
        Some((gaussian(p, shape)? * std + mean).exp())
    })
}

/// `from + (to - from) * rand`. Source: torch.Tensor.uniform_.
pub(super) fn between(site: &mut Site<'_>) -> Result {
    let (Some(from), Some(to)) = (site.nth(1).as_float(), site.nth(2).as_float()) else { return Ok(None) };
    drawn(site, |p, shape| {
        let dtype = p.0.result()?.dtype;
        Some(uniform(p, shape, dtype)? * (to - from) + from)
    })
}

/// `-log(u) / rate`. Source: torch.Tensor.exponential_.
pub(super) fn exponential(site: &mut Site<'_>) -> Result {
    let Some(rate) = site.nth(1).as_float() else { return Ok(None) };
    drawn(site, |p, shape| Some(-inside(p, shape)?.log() / rate))
}

/// `ceil(log(u) / log(1 - p))`. Source: torch.Tensor.geometric_.
pub(super) fn geometric(site: &mut Site<'_>) -> Result {
    let Some(chance) = site.nth(1).as_float() else { return Ok(None) };
    drawn(site, |p, shape| Some(-(-(inside(p, shape)?.log() / (-chance).ln_1p())).floor()))
}

/// `median + sigma * tan(π (u - 1/2))`. Source: torch.Tensor.cauchy_.
pub(super) fn cauchy(site: &mut Site<'_>) -> Result {
    let (Some(median), Some(sigma)) = (site.nth(1).as_float(), site.nth(2).as_float()) else { return Ok(None) };
    drawn(site, |p, shape| {
        let angle = (inside(p, shape)? - 0.5) * std::f64::consts::PI;
        Some(angle.sin() / angle.cos() * sigma + median)
    })
}

/// `rand < p`, where p is the tensor itself, a number or another tensor. Source: torch.bernoulli.
pub(super) fn bernoulli(site: &mut Site<'_>) -> Result {
    let at = usize::from(site.op() != op!("aten.bernoulli.default"));
    drawn(site, |p, shape| {
        let probability = nth(p, at);
        chance(p, shape, probability)
    })
}

/// `low + randint(high - low)`; bounds that are known at run time only through the remainder of 32 random bits, as torch does
/// it for all. Source: torch.randint.
pub(super) fn randint(site: &mut Site<'_>) -> Result {
    // Where bounds stand: before sizes, after a tensor; torch's names for the lower one.
    let at = |name: &str| site.op().schema().position(name).map(|i| site.nth(i).clone());
    let low = at("low").or_else(|| at("from")).unwrap_or(Arg::Int(0));
    let Some(high) = at("high").or_else(|| at("to")) else { return Ok(None) };
    let whole = op!("aten.randint.default");
    if site.op() == whole && high.as_int().is_some() {
        return Ok(None);
    }
    drawn(site, |p, shape| {
        let sizes: Ex = p.0.sizes(shape)?.into();
        let draw = |high: i64| Ex::call(whole, vec![high.into(), sizes.clone(), Arg::DType(DType::Int64).into()]);
        match (low.as_int(), high.as_int()) {
            (Some(low), Some(high)) => Some(draw(high.checked_sub(low)?) + low),
            (Some(0), None) => Some(draw(ALL_BITS).remainder(high)),
            _ => None,
        }
    })
}

/// The order of random integers. Source: torch.randperm.
pub(super) fn randperm(site: &mut Site<'_>) -> Result {
    drawn(site, |p, shape| {
        let sizes = p.0.sizes(shape)?;
        let keys = Ex::call(op!("aten.randint.default"), vec![ALL_BITS.into(), sizes.into(), Arg::DType(DType::Int64).into()]);
        Some(Ex::call(op!("aten.argsort.default"), vec![keys, 0i64.into(), Arg::Bool(false).into()]))
    })
}

/// The places of the largest `weight / exponential`: each is drawn in proportion to its weight, without one twice; where it
/// may be twice, each by itself. Source: torch.multinomial; P. Efraimidis and P. Spirakis, "Weighted random sampling with a
/// reservoir", 2006.
pub(super) fn multinomial(site: &mut Site<'_>) -> Result {
    let (Some(weights), Some(count)) = (site.operand(0).cloned(), site.nth(1).as_int()) else { return Ok(None) };
    let again = site.nth(2).as_bool() == Some(true) && count > 1;
    drawn(site, |p, shape| {
        let (mut w, mut of) = (nth(p, 0).cast(DType::Float32), weights.shape.clone());
        if again {
            let at = of.len().checked_sub(1)?;
            of.insert(at, shape.last()?.clone());
            w = w.unsqueeze(at as i64);
        }
        let scores = w / -inside(p, &of)?.log();
        if again || count == 1 {
            return Some(Ex::call(op!("aten.argmax.default"), vec![scores, (-1i64).into(), Arg::Bool(!again).into()]));
        }
        let order = Ex::call(op!("aten.argsort.default"), vec![scores, (-1i64).into(), Arg::Bool(true).into()]);
        Some(Ex::call(op!("aten.slice.Tensor"), vec![order, (-1i64).into(), 0i64.into(), count.into(), 1i64.into()]))
    })
}

/// What is left of the elements, grown by what falls away: `x * bernoulli(1 - p) / (1 - p)`; of whole channels at a time where
/// features are dropped. Source: torch.nn.Dropout, torch.nn.Dropout2d.
pub(super) fn dropout(site: &mut Site<'_>) -> Result {
    let Some(p) = site.arg("p").as_float() else { return Ok(None) };
    let grown = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    kept(site, |x, kept, dtype| x * (kept.cast(dtype) * grown))
}

/// As dropout, but what falls away becomes the least that SELU gives, and all is scaled so that mean and variance stay.
/// Source: G. Klambauer et al., "Self-normalizing neural networks", 2017; torch.nn.AlphaDropout.
pub(super) fn alpha_dropout(site: &mut Site<'_>) -> Result {
    const ALPHA: f64 = 1.758_099_340_847_376_6;
    let Some(p) = site.arg("p").as_float() else { return Ok(None) };
    let scale = if p < 1.0 { 1.0 / ((ALPHA * ALPHA * p + 1.0) * (1.0 - p)).sqrt() } else { 0.0 };
    kept(site, |x, kept, dtype| {
        let kept = kept.cast(dtype);
        x * &kept * scale + ((kept - 1.0) * (ALPHA * scale) + ALPHA * scale * p)
    })
}

/// The operand, which of its elements are kept, and its element type, put together; and which were kept, where that is a result.
fn kept(site: &mut Site<'_>, f: impl FnOnce(Ex, Ex, DType) -> Ex) -> Result {
    let (Some(p), Some(t)) = (site.arg("p").as_float(), site.result().cloned()) else { return Ok(None) };
    if !(0.0..=1.0).contains(&p) || site.arg("train").as_bool() == Some(false) {
        return Ok(None);
    }
    let mut shape = t.shape.clone();
    if site.op().schema().name.starts_with("feature") {
        shape.iter_mut().skip(2).for_each(|d| *d = Dim::Int(1));
    }
    let also_which = site.node().outputs.len() > 1;
    let mut pen = Pen(site);
    let Some(kept) = chance(&mut pen, &shape, 1.0 - p) else { return Ok(None) };
    let kept = pen.write(&kept)?;
    let y = f(nth(&pen, 0), (&kept).into(), t.dtype);
    let y = pen.write(&y)?;
    Ok(Some(Patch::Values(if also_which { vec![y, kept] } else { vec![y] })))
}
