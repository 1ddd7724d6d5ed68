//! Activation functions.

use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::expr::Ex;
use super::pen::Pen;
use super::several::{several, wanted};
use crate::calls::wrap;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// `x * sigmoid(x)`. Source: torch.nn.SiLU.
pub(super) fn silu(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let s = p.sigmoid(&x)?;
    let y = p.mul(&x, &s)?;
    p.done(y)
}

/// `x * Φ(x)`, or its approximation by tanh. Source: torch.nn.GELU.
pub(super) fn gelu(site: &mut Site<'_>) -> Result {
    let tanh = matches!(site.arg("approximate"), Arg::Str(s) if &**s == "tanh");
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let phi = if tanh {
        let cube = {
            let square = p.square(&x)?;
            p.mul(&square, &x)?
        };
        let small = p.mul(&cube, 0.044_715)?;
        let inner = p.add(&x, &small)?;
        let scaled = p.mul(&inner, (2.0 / std::f64::consts::PI).sqrt())?;
        p.tanh(&scaled)?
    } else {
        let scaled = p.mul(&x, std::f64::consts::FRAC_1_SQRT_2)?;
        p.erf(&scaled)?
    };
    let one_more = p.add(&phi, 1.0)?;
    let half = p.mul(&x, 0.5)?;
    let y = p.mul(&half, &one_more)?;
    p.done(y)
}

/// `max(x, 0)`. Source: torch.nn.ReLU.
pub(super) fn relu(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let y = p.clamp(&x, Some(0.0), None)?;
    p.done(y)
}

/// The logarithm of the sigmoid, and `exp(-|x|)`, which the derivative on a processor is computed from. Source: torch.nn.LogSigmoid.
pub(super) fn log_sigmoid_forward(site: &mut Site<'_>) -> Result {
    let want = [wanted(site, 0), wanted(site, 1)];
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let y = if want[0] { p.call(op!("aten.log_sigmoid.default"), vec![x.clone()])? } else { Arg::None };
    let size = p.wide(&x)?;
    let buffer = if want[1] { p.write(&(-Ex::from(size).abs()).exp())? } else { Arg::None };
    several(&mut p, vec![y, buffer])
}

/// `x > 0 ? x : slope * x`. Source: torch.nn.LeakyReLU.
pub(super) fn leaky_relu(site: &mut Site<'_>) -> Result {
    let Some(slope) = site.arg("negative_slope").as_float() else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let low = p.mul(&x, slope)?;
    let above = p.gt(&x, 0i64)?;
    let y = p.select(&above, &x, &low)?;
    p.done(y)
}

/// `min(max(x + 3, 0), 6) / 6`. Source: torch.nn.Hardsigmoid.
pub(super) fn hardsigmoid(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let shifted = p.add(&x, 3.0)?;
    let cut = p.clamp(&shifted, Some(0.0), Some(6.0))?;
    let y = p.div(&cut, 6.0)?;
    p.done(y)
}

/// `x * min(max(x + 3, 0), 6) / 6`. Source: torch.nn.Hardswish.
pub(super) fn hardswish(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let shifted = p.add(&x, 3.0)?;
    let cut = p.clamp(&shifted, Some(0.0), Some(6.0))?;
    let product = p.mul(&x, &cut)?;
    let y = p.div(&product, 6.0)?;
    p.done(y)
}

/// `β·x > threshold ? x : log1p(exp(β·x)) / β`. Source: torch.nn.Softplus.
pub(super) fn softplus(site: &mut Site<'_>) -> Result {
    let (Some(beta), Some(threshold)) = (site.arg("beta").as_float(), site.arg("threshold").as_float()) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let scaled = p.mul(&x, beta)?;
    let grown = p.exp(&scaled)?;
    let log = p.log1p(&grown)?;
    let soft = p.div(&log, beta)?;
    let linear = p.gt(&scaled, threshold)?;
    let y = p.select(&linear, &x, &soft)?;
    p.done(y)
}

/// `x * tanh(softplus(x))`. Source: torch.nn.Mish.
pub(super) fn mish(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let soft = p.call(op!("aten.softplus.default"), vec![x.clone()])?;
    let t = p.tanh(&soft)?;
    let y = p.mul(&x, &t)?;
    p.done(y)
}

/// `scale * (x > 0 ? x : alpha * expm1(input_scale * x))`. Source: torch.nn.ELU.
pub(super) fn elu(site: &mut Site<'_>) -> Result {
    let [Some(alpha), Some(scale), Some(input_scale)] = ["alpha", "scale", "input_scale"].map(|n| site.arg(n).as_float()) else {
        return Ok(None);
    };
    let y = exponential(site, alpha * scale, scale, input_scale)?;
    Pen(site).done(y)
}

/// `elu` with fixed constants. Source: torch.nn.SELU.
pub(super) fn selu(site: &mut Site<'_>) -> Result {
    let (alpha, scale) = (1.673_263_242_354_377_2, 1.050_700_987_355_480_5);
    let y = exponential(site, alpha * scale, scale, 1.0)?;
    Pen(site).done(y)
}

/// `x > 0 ? x : alpha * expm1(x / alpha)`. Source: torch.nn.CELU.
pub(super) fn celu(site: &mut Site<'_>) -> Result {
    let Some(alpha) = site.arg("alpha").as_float() else { return Ok(None) };
    let y = exponential(site, alpha, 1.0, 1.0 / alpha)?;
    Pen(site).done(y)
}

/// `x > 0 ? above * x : below * expm1(inner * x)`.
fn exponential(site: &mut Site<'_>, below: f64, above: f64, inner: f64) -> std::result::Result<Arg, Error> {
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let scaled = if inner == 1.0 { x.clone() } else { p.mul(&x, inner)? };
    let grown = p.expm1(&scaled)?;
    let low = p.mul(&grown, below)?;
    let high = if above == 1.0 { x.clone() } else { p.mul(&x, above)? };
    let positive = p.gt(&x, 0i64)?;
    p.select(&positive, &high, &low)
}

/// `a * sigmoid(b)` of the two halves. Source: torch.nn.GLU.
pub(super) fn glu(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let t = p.ty(&x)?;
    let Some(dim) = p.0.nth(1).as_int().and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    let Some(n) = t.shape.get(dim).cloned() else { return Ok(None) };
    let (Some(half), Some(end)) = (p.0.size(&n.floor_div(&Dim::Int(2))), p.0.size(&n)) else { return Ok(None) };
    let a = p.slice(&x, dim, Arg::Int(0), half.clone())?;
    let b = p.slice(&x, dim, half, end)?;
    let (a, b) = (p.wide(&a)?, p.wide(&b)?);
    let gate = p.sigmoid(&b)?;
    let y = p.mul(&a, &gate)?;
    p.done(y)
}

/// `min(0, x) - log1p(exp(-abs(x)))`. Source: torch.nn.LogSigmoid, in its stable form.
pub(super) fn log_sigmoid(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let low = p.clamp(&x, None, Some(0.0))?;
    let size = p.abs(&x)?;
    let negative = p.neg(&size)?;
    let small = p.exp(&negative)?;
    let log = p.log1p(&small)?;
    let y = p.sub(&low, &log)?;
    p.done(y)
}

/// `x <= threshold ? value : x`. Source: torch.nn.Threshold.
pub(super) fn threshold(site: &mut Site<'_>) -> Result {
    let (Some(limit), Some(value)) = (site.arg("threshold").as_float(), site.arg("value").as_float()) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let low = p.le(&x, limit)?;
    let y = p.select(&low, value, &x)?;
    p.done(y)
}

/// `x > 0 ? x : weight * x`, the weight along dimension 1. Source: torch.nn.PReLU.
pub(super) fn prelu(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let (x, w) = (p.0.nth(0).clone(), p.0.nth(1).clone());
    let (rank, channels) = (p.ty(&x)?.rank(), p.ty(&w)?.numel());
    let shape: Vec<Dim> = (0..rank).map(|d| if d == 1 || rank == 1 { channels.clone() } else { Dim::Int(1) }).collect();
    let Some(w) = p.view(&w, &shape)? else { return Ok(None) };
    let low = p.mul(&w, &x)?;
    let above = p.gt(&x, 0i64)?;
    let y = p.select(&above, &x, &low)?;
    p.done(y)
}

/// `self + value * (a * b)`. Source: torch.addcmul.
pub(super) fn addcmul(site: &mut Site<'_>) -> Result {
    combined(site, op!("aten.mul.Tensor"))
}

/// `self + value * (a / b)`. Source: torch.addcdiv.
pub(super) fn addcdiv(site: &mut Site<'_>) -> Result {
    combined(site, op!("aten.div.Tensor"))
}

fn combined(site: &mut Site<'_>, op: etx_ir::op::OpId) -> Result {
    let value = site.arg("value").clone();
    let mut p = Pen(site);
    let [base, a, b] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    let inner = p.call(op, vec![a, b])?;
    let y = p.call(op!("aten.add.Tensor"), vec![base, inner, value])?;
    p.done(y)
}

/// `start + weight * (end - start)`, from the nearer end. Source: torch.lerp and its decomposition.
pub(super) fn lerp(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let [start, end, weight] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    let span = p.sub(&end, &start)?;
    let forward = {
        let part = p.mul(&weight, &span)?;
        p.add(&start, &part)?
    };
    let y = match weight.as_float() {
        Some(w) if w.abs() < 0.5 => forward,
        Some(w) => {
            let part = p.mul(&span, w - 1.0)?;
            p.add(&end, &part)?
        }
        None => {
            let back = p.sub(&weight, 1.0)?;
            let part = p.mul(&back, &span)?;
            let backward = p.add(&end, &part)?;
            let size = p.abs(&weight)?;
            let near = p.call(op!("aten.lt.Tensor"), vec![size, Arg::Float(0.5)])?;
            p.select(&near, &forward, &backward)?
        }
    };
    p.done(y)
}
