//! Derivatives of functions of single elements.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use etx_ir::graph::Arg;
use etx_ir::op;

use super::super::expr::{Ex, of_two};
use super::super::pen::Pen;
use super::{Result, several, wanted};
use crate::calls::wrap;
use crate::rewrite::Site;

fn number(site: &Site<'_>, name: &str) -> Option<f64> {
    site.arg(name).as_float()
}

fn sigmoid(x: &Ex) -> Ex {
    Ex::call(op!("aten.sigmoid.default"), vec![x.clone()])
}

fn tanh(x: &Ex) -> Ex {
    Ex::call(op!("aten.tanh.default"), vec![x.clone()])
}

/// Nothing up to the threshold. Source: torch.nn.Threshold.
pub(in crate::decompose) fn threshold(site: &mut Site<'_>) -> Result {
    let Some(limit) = number(site, "threshold") else { return Ok(None) };
    of_two(site, |g, x| x.le(limit).then(0.0, g))
}

/// `Φ(x) + x·φ(x)`, or the derivative of its approximation by tanh. Source: torch.nn.GELU.
pub(in crate::decompose) fn gelu(site: &mut Site<'_>) -> Result {
    let approximate = matches!(site.arg("approximate"), Arg::Str(s) if &**s == "tanh");
    of_two(site, |g, x| {
        let slope = if approximate {
            let (k, cube) = ((2.0 / PI).sqrt(), 0.044_715);
            let square = x.square();
            let t = tanh(&((&square * cube + 1.0) * &x * k));
            let inner = (square * (3.0 * cube) + 1.0) * k;
            (&t + 1.0) * 0.5 + x * 0.5 * (-t.square() + 1.0) * inner
        } else {
            let density = (x.square() * -0.5).exp() * (0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI);
            ((&x * FRAC_1_SQRT_2).erf() + 1.0) * 0.5 + x * density
        };
        g * slope
    })
}

/// `s·(1 + x·(1 - s))` with `s` its sigmoid. Source: torch.nn.SiLU.
pub(in crate::decompose) fn silu(site: &mut Site<'_>) -> Result {
    of_two(site, |g, x| {
        let s = sigmoid(&x);
        g * (&s * (x * (-&s + 1.0) + 1.0))
    })
}

/// `y·(1 - y)` of the result. Source: torch.nn.Sigmoid.
pub(in crate::decompose) fn of_sigmoid(site: &mut Site<'_>) -> Result {
    of_two(site, |g, y| g * ((-&y + 1.0) * y))
}

/// `1 - y²` of the result. Source: torch.nn.Tanh.
pub(in crate::decompose) fn of_tanh(site: &mut Site<'_>) -> Result {
    of_two(site, |g, y| g * (-y.square() + 1.0))
}

/// Only between the limits. Source: torch.nn.Hardtanh.
pub(in crate::decompose) fn hardtanh(site: &mut Site<'_>) -> Result {
    let (Some(low), Some(high)) = (number(site, "min_val"), number(site, "max_val")) else { return Ok(None) };
    of_two(site, |g, x| x.le(low).or(x.ge(high)).then(0.0, g))
}

/// 0 to -3, `x/3 + 1/2` to 3, then 1. Source: torch.nn.Hardswish.
pub(in crate::decompose) fn hardswish(site: &mut Site<'_>) -> Result {
    of_two(site, |g, x| x.le(-3.0).then(0.0, x.lt(3.0).then(&g * (&x * (1.0 / 3.0) + 0.5), g)))
}

/// A sixth between -3 and 3. Source: torch.nn.Hardsigmoid.
pub(in crate::decompose) fn hardsigmoid(site: &mut Site<'_>) -> Result {
    of_two(site, |g, x| x.gt(-3.0).and(x.lt(3.0)).then(g * (1.0 / 6.0), 0.0))
}

/// Source: torch.nn.LeakyReLU.
pub(in crate::decompose) fn leaky_relu(site: &mut Site<'_>) -> Result {
    let Some(slope) = number(site, "negative_slope") else { return Ok(None) };
    of_two(site, |g, x| x.gt(0i64).then(&g, &g * slope))
}

/// Source: torch.nn.ELU, by its input or by its result.
pub(in crate::decompose) fn elu(site: &mut Site<'_>) -> Result {
    let (Some(alpha), Some(scale), Some(input)) = (number(site, "alpha"), number(site, "scale"), number(site, "input_scale")) else {
        return Ok(None);
    };
    let (Some(of_result), Some(at)) = (site.arg("is_result").as_bool(), site.op().schema().position("self_or_result")) else {
        return Ok(None);
    };
    let mut p = Pen(site);
    let (g, x) = (p.operand(0)?, p.operand(at)?);
    let below = if of_result { (&x + alpha * scale) * input } else { (&x * input).exp() * (input * alpha * scale) };
    p.ends(&(x.le(0i64).then(&g * below, &g * scale)))
}

/// The sigmoid of `β·x`; 1 beyond the threshold. Source: torch.nn.Softplus.
pub(in crate::decompose) fn softplus(site: &mut Site<'_>) -> Result {
    let (Some(beta), Some(limit)) = (number(site, "beta"), number(site, "threshold")) else { return Ok(None) };
    of_two(site, |g, x| {
        let scaled = x * beta;
        scaled.gt(limit).then(&g, &g * sigmoid(&scaled))
    })
}

/// The sigmoid of `-x`. Source: torch.nn.LogSigmoid.
pub(in crate::decompose) fn log_sigmoid(site: &mut Site<'_>) -> Result {
    of_two(site, |g, x| g * sigmoid(&-x))
}

/// `t + x·s·(1 - t²)` with `t` the tanh of softplus and `s` the sigmoid. Source: torch.nn.Mish.
pub(in crate::decompose) fn mish(site: &mut Site<'_>) -> Result {
    of_two(site, |g, x| {
        let t = tanh(&Ex::call(op!("aten.softplus.default"), vec![x.clone()]));
        let s = sigmoid(&x);
        g * (&t + x * s * (-t.square() + 1.0))
    })
}

/// Nothing within lambda of 0. Source: torch.nn.Hardshrink, Softshrink.
pub(in crate::decompose) fn shrink(site: &mut Site<'_>) -> Result {
    let Some(limit) = number(site, "lambd") else { return Ok(None) };
    of_two(site, |g, x| x.abs().le(limit).then(0.0, g))
}

/// `1 / (x·(1 - x))`; with `eps`, nothing beyond it. Source: torch.logit.
pub(in crate::decompose) fn logit(site: &mut Site<'_>) -> Result {
    let eps = number(site, "eps");
    of_two(site, |g, x| {
        let (low, high, beyond) = eps.map_or((0.0, 1.0, f64::NAN), |e| (e, 1.0 - e, 0.0));
        let slope = &g / ((-&x + 1.0) * &x);
        x.lt(low).or(x.gt(high)).then(beyond, slope)
    })
}

/// Both halves of what was gated. Source: torch.nn.GLU.
pub(in crate::decompose) fn glu(site: &mut Site<'_>) -> Result {
    let Some(t) = site.operand(1).cloned() else { return Ok(None) };
    let Some(dim) = site.arg("dim").as_int().and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    let Some(n) = t.shape.get(dim).and_then(etx_ir::sym::Dim::as_int) else { return Ok(None) };
    let mut p = Pen(site);
    let (g, x) = (p.operand(0)?, p.operand(1)?);
    let x = p.write(&x)?;
    let (a, b) = (p.slice(&x, dim, Arg::Int(0), Arg::Int(n / 2))?, p.slice(&x, dim, Arg::Int(n / 2), Arg::Int(n))?);
    let s = sigmoid(&Ex::from(b));
    let through = g * &s;
    let (first, second) = (p.write(&through)?, p.write(&(&through * (-s + 1.0) * Ex::from(a)))?);
    let y = p.call(op!("aten.cat.default"), vec![Arg::List(vec![first, second]), Arg::Int(dim as i64)])?;
    p.done(y)
}

/// To the input and, before it is added up, to the slope. Source: torch.nn.PReLU.
pub(in crate::decompose) fn prelu(site: &mut Site<'_>) -> Result {
    let both = [wanted(site, 0), wanted(site, 1)];
    let mut p = Pen(site);
    let (g, x, w) = (p.operand(0)?, p.operand(1)?, p.operand(2)?);
    let above = x.gt(0i64);
    let input = if both[0] { p.write(&above.then(&g, w * &g))? } else { Arg::None };
    let slope = if both[1] { p.write(&above.then(0.0, x * g))? } else { Arg::None };
    several(&mut p, vec![input, slope])
}

/// Source: torch.nn.Dropout, of the mask that it gave.
pub(in crate::decompose) fn dropout(site: &mut Site<'_>) -> Result {
    let Some(scale) = number(site, "scale") else { return Ok(None) };
    of_two(site, |g, mask| g * (mask * scale))
}

/// `y·(g - Σ g·y)` of the result. Source: torch.softmax.
pub(in crate::decompose) fn softmax(site: &mut Site<'_>) -> Result {
    let Some(dim) = line(site) else { return Ok(None) };
    of_two(site, |g, y| {
        let product = g * &y;
        &product - &y * product.sum(&dim, true)
    })
}

/// `g - exp(y)·Σ g` of the result. Source: torch.log_softmax.
pub(in crate::decompose) fn log_softmax(site: &mut Site<'_>) -> Result {
    let Some(dim) = line(site) else { return Ok(None) };
    of_two(site, |g, y| &g - y.exp() * g.sum(&dim, true))
}

/// The dimension that was normalised; a scalar has none.
fn line(site: &Site<'_>) -> Option<Vec<usize>> {
    let rank = site.operand(0)?.rank();
    let dim = wrap(site.arg("dim").as_int()?, rank)?;
    Some(if rank == 0 { Vec::new() } else { vec![dim] })
}
