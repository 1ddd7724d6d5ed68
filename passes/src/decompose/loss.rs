//! Losses: element by element, then none, the mean or the sum of them.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::expr::Ex;
use super::lengths;
use super::pen::Pen;
use crate::calls::wrap;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;
type Value = std::result::Result<Option<Arg>, Error>;

fn number(site: &Site<'_>, name: &str) -> Option<f64> {
    site.arg(name).as_float()
}

/// All of it, its mean or its sum, as `reduction` says.
fn reduced(p: &mut Pen<'_, '_>, each: &Ex) -> Result {
    let x = p.write(each)?;
    let dims: Vec<usize> = (0..p.ty(&x)?.rank()).collect();
    let y = match p.0.arg("reduction").as_int() {
        Some(0) => x,
        Some(1) => p.reduce(op!("aten.mean.dim"), &x, &dims, false)?,
        Some(2) => p.reduce(op!("aten.sum.dim_IntList"), &x, &dims, false)?,
        _ => return Ok(None),
    };
    p.done(y)
}

fn of_pair(site: &mut Site<'_>, f: impl FnOnce(Ex, Ex) -> Ex) -> Result {
    let mut p = Pen(site);
    let (x, y) = (p.operand(0)?, p.operand(1)?);
    reduced(&mut p, &f(x, y))
}

/// `(x - y)²`. Source: torch.nn.MSELoss.
pub(super) fn mse(site: &mut Site<'_>) -> Result {
    of_pair(site, |x, y| (x - y).square())
}

/// `|x - y|`. Source: torch.nn.L1Loss.
pub(super) fn l1(site: &mut Site<'_>) -> Result {
    of_pair(site, |x, y| (x - y).abs())
}

/// A parabola near 0, lines from beta on. Source: torch.nn.SmoothL1Loss.
pub(super) fn smooth_l1(site: &mut Site<'_>) -> Result {
    let Some(beta) = number(site, "beta") else { return Ok(None) };
    of_pair(site, |x, y| {
        let d = (x - y).abs();
        if beta == 0.0 { d } else { d.lt(beta).then(d.square() * (0.5 / beta), &d - 0.5 * beta) }
    })
}

/// Source: torch.nn.HuberLoss.
pub(super) fn huber(site: &mut Site<'_>) -> Result {
    let Some(delta) = number(site, "delta") else { return Ok(None) };
    of_pair(site, |x, y| {
        let d = (x - y).abs();
        d.le(delta).then(d.square() * 0.5, (&d - 0.5 * delta) * delta)
    })
}

/// `-(y·log x + (1 - y)·log(1 - x))`, logarithms no lower than -100. Source: torch.nn.BCELoss.
pub(super) fn binary_cross_entropy(site: &mut Site<'_>) -> Result {
    let weight = site.arg("weight").clone();
    of_pair(site, |x, y| {
        let loss = (&y - 1.0) * (-&x).log1p().at_least(-100.0) - y * x.log().at_least(-100.0);
        if weight == Arg::None { loss } else { loss * weight }
    })
}

/// The same of `sigmoid(x)`, in its stable form. Source: torch.nn.BCEWithLogitsLoss.
pub(super) fn binary_cross_entropy_with_logits(site: &mut Site<'_>) -> Result {
    let (weight, positive) = (site.arg("weight").clone(), site.arg("pos_weight").clone());
    of_pair(site, |x, y| {
        let mut log = (-x.abs()).exp().log1p() + (-&x).at_least(0.0);
        if positive != Arg::None {
            log = ((Ex::from(positive) - 1.0) * &y + 1.0) * log;
        }
        let loss = (-y + 1.0) * x + log;
        if weight == Arg::None { loss } else { loss * weight }
    })
}

/// `y·(log y - x)`. Source: torch.nn.KLDivLoss.
pub(super) fn kl_div(site: &mut Site<'_>) -> Result {
    let log = site.arg("log_target").as_bool() == Some(true);
    of_pair(site, |x, y| if log { y.exp() * (&y - x) } else { y.eq(0i64).then(0.0, &y * y.log()) - &y * x })
}

/// `exp(x) - y·x`. Source: torch.nn.PoissonNLLLoss.
pub(super) fn poisson_nll(site: &mut Site<'_>) -> Result {
    let Some(eps) = number(site, "eps") else { return Ok(None) };
    let (log, full) = (site.arg("log_input").as_bool() == Some(true), site.arg("full").as_bool() == Some(true));
    of_pair(site, |x, y| {
        let loss = if log { x.exp() - &y * &x } else { &x - &y * (&x + eps).log() };
        if !full {
            return loss;
        }
        let stirling = &y * y.log() - &y + (&y * (2.0 * std::f64::consts::PI)).log() * 0.5;
        loss + y.le(1i64).then(0.0, stirling)
    })
}

/// `log(1 + exp(-y·x))`. Source: torch.nn.SoftMarginLoss.
pub(super) fn soft_margin(site: &mut Site<'_>) -> Result {
    of_pair(site, |x, y| (-(x * y)).exp().log1p())
}

/// `x` where y is 1, `max(0, margin - x)` where it is -1. Source: torch.nn.HingeEmbeddingLoss.
pub(super) fn hinge_embedding(site: &mut Site<'_>) -> Result {
    let Some(margin) = number(site, "margin") else { return Ok(None) };
    of_pair(site, |x, y| y.ne(1i64).then((-&x + margin).at_least(0.0), 0.0) + y.ne(-1i64).then(&x, 0.0))
}

/// `max(0, -y·(a - b) + margin)`. Source: torch.nn.MarginRankingLoss.
pub(super) fn margin_ranking(site: &mut Site<'_>) -> Result {
    let Some(margin) = number(site, "margin") else { return Ok(None) };
    let mut p = Pen(site);
    let (a, b, y) = (p.operand(0)?, p.operand(1)?, p.operand(2)?);
    reduced(&mut p, &(-y * (a - b) + margin).at_least(0.0))
}

/// By the cosine of the angle between vectors. Source: torch.nn.CosineEmbeddingLoss.
pub(super) fn cosine_embedding(site: &mut Site<'_>) -> Result {
    let (Some(margin), Some(rank)) = (number(site, "margin"), site.operand(0).map(|t| t.rank())) else { return Ok(None) };
    let Some(dim) = rank.checked_sub(1) else { return Ok(None) };
    let mut p = Pen(site);
    let (a, b, y) = (p.operand(0)?, p.operand(1)?, p.operand(2)?);
    let square = |x: &Ex| x.square().sum(&[dim], false) + 1e-12;
    let cosine = (&a * &b).sum(&[dim], false) / (square(&a) * square(&b)).sqrt();
    let loss = y.eq(1i64).then(-&cosine + 1.0, 0.0) + y.eq(-1i64).then((&cosine - margin).at_least(0.0), 0.0);
    reduced(&mut p, &loss)
}

/// `max(0, d(a, p) - d(a, n) + margin)`. Source: torch.nn.TripletMarginLoss.
pub(super) fn triplet_margin(site: &mut Site<'_>) -> Result {
    let Some(margin) = number(site, "margin") else { return Ok(None) };
    let (Some(order), Some(eps)) = (number(site, "p"), number(site, "eps")) else { return Ok(None) };
    let swap = site.arg("swap").as_bool() == Some(true);
    let rank = [0, 1, 2].map(|i| site.operand(i).map_or(0, |t| t.rank())).into_iter().max().unwrap_or(0);
    let Some(last) = rank.checked_sub(1) else { return Ok(None) };
    let mut p = Pen(site);
    let (a, b, c) = (p.operand(0)?, p.operand(1)?, p.operand(2)?);
    let apart = |x: &Ex, y: &Ex| lengths::norm(&(x - y + eps), order, &[last], false);
    let mut far = apart(&a, &c);
    if swap {
        far = far.min(apart(&b, &c));
    }
    reduced(&mut p, &(apart(&a, &b) - far + margin).at_least(0.0))
}

/// Which class each target names: its place among the classes, whether it counts, and the weight it has.
struct Targets {
    classes: usize,
    safe: Arg,
    counts: Arg,
    weight: Option<Arg>,
}

/// Classes stand in dimension 1, in dimension 0 of a single sample.
fn targets(p: &mut Pen<'_, '_>) -> std::result::Result<Option<Targets>, Error> {
    let (target, weight) = (p.0.nth(1).clone(), p.0.arg("weight").clone());
    let (Some(rank), Some(ignored)) = (p.0.operand(0).map(|t| t.rank()), p.0.arg("ignore_index").as_int()) else { return Ok(None) };
    if rank == 0 || p.ty(&target)?.dtype.is_float() || p.ty(&target)?.rank() + 1 != rank {
        return Ok(None);
    }
    let t = Ex::from(&target);
    let counts = p.write(&t.ne(ignored))?;
    let safe = p.select(&counts, &target, 0i64)?;
    let safe = p.cast(&safe, DType::Int64)?;
    let weight = if weight == Arg::None {
        None
    } else {
        let w = p.call(op!("aten.index.Tensor"), vec![weight, Arg::List(vec![safe.clone()])])?;
        Some(p.select(&counts, &w, 0.0)?)
    };
    Ok(Some(Targets { classes: usize::from(rank > 1), safe, counts, weight }))
}

/// Minus the entry of `x` that each target names, weighted; 0 where the target does not count.
fn picked(p: &mut Pen<'_, '_>, x: &Arg, t: &Targets) -> std::result::Result<Arg, Error> {
    let at = p.unsqueeze(&t.safe, t.classes)?;
    let one = p.call(op!("aten.gather.default"), vec![x.clone(), Arg::Int(t.classes as i64), at])?;
    let one = p.squeeze(&one, t.classes)?;
    let mut loss = -Ex::from(one);
    if let Some(w) = &t.weight {
        loss = loss * w;
    }
    p.write(&Ex::from(&t.counts).then(loss, 0.0))
}

/// The weights of all targets together.
fn total(p: &mut Pen<'_, '_>, t: &Targets) -> std::result::Result<Arg, Error> {
    let each = match &t.weight {
        Some(w) => w.clone(),
        None => p.cast(&t.counts, DType::Float32)?,
    };
    let dims: Vec<usize> = (0..p.ty(&each)?.rank()).collect();
    p.reduce(op!("aten.sum.dim_IntList"), &each, &dims, false)
}

/// The loss, reduced; the mean is one over the weights.
fn over_targets(p: &mut Pen<'_, '_>, each: &Arg, t: &Targets) -> Value {
    let dims: Vec<usize> = (0..p.ty(each)?.rank()).collect();
    match p.0.arg("reduction").as_int() {
        Some(0) => Ok(Some(each.clone())),
        Some(2) => p.reduce(op!("aten.sum.dim_IntList"), each, &dims, false).map(Some),
        Some(1) => {
            let sum = p.reduce(op!("aten.sum.dim_IntList"), each, &dims, false)?;
            let total = total(p, t)?;
            p.div(&sum, &total).map(Some)
        }
        _ => Ok(None),
    }
}

/// Source: torch.nn.NLLLoss.
pub(super) fn nll(site: &mut Site<'_>) -> Result {
    let outputs = site.node().outputs.clone();
    let mut p = Pen(site);
    let x = p.operand(0)?;
    let (x, Some(t)) = (p.write(&x)?, targets(&mut p)?) else { return Ok(None) };
    let each = picked(&mut p, &x, &t)?;
    let Some(y) = over_targets(&mut p, &each, &t)? else { return Ok(None) };
    let Some(dtype) = p.0.result().map(|t| t.dtype) else { return Ok(None) };
    let mut values = vec![p.cast(&y, dtype)?];
    if let [_, weight] = outputs.as_slice() {
        // Without a reduction torch leaves the sum of weights at zero.
        let used = p.0.graph().value(*weight).use_count() > 0;
        if used && p.0.arg("reduction").as_int() == Some(0) {
            return Ok(None);
        }
        values.push(if used {
            let sum = total(&mut p, &t)?;
            p.cast(&sum, dtype)?
        } else {
            Arg::None
        });
    }
    Ok(Some(Patch::Values(values)))
}

/// Source: torch.nn.CrossEntropyLoss.
pub(super) fn cross_entropy(site: &mut Site<'_>) -> Result {
    let (Some(smooth), Some(t)) = (number(site, "label_smoothing"), site.operand(0).cloned()) else { return Ok(None) };
    let dim = usize::from(t.rank() > 1);
    let Some(classes) = t.shape.get(dim).and_then(Dim::as_int).map(|n| n as f64) else { return Ok(None) };
    let (target, weight) = (site.nth(1).clone(), site.arg("weight").clone());
    let mut p = Pen(site);
    let x = p.operand(0)?;
    let x = p.write(&x)?;
    let log = p.call(op!("aten._log_softmax.default"), vec![x, Arg::Int(dim as i64), Arg::Bool(false)])?;
    // A weight along the classes.
    let along = match &weight {
        Arg::None => None,
        w => {
            let shape: Vec<Dim> = (0..t.rank()).map(|d| if d == dim { Dim::Int(classes as i64) } else { Dim::Int(1) }).collect();
            match p.view(w, &shape)? {
                Some(w) => Some(w),
                None => return Ok(None),
            }
        }
    };
    let weighted = match &along {
        Some(w) => p.mul(&log, w)?,
        None => log.clone(),
    };
    if p.ty(&target)?.dtype.is_float() {
        let mut y = Ex::from(&target);
        if smooth > 0.0 {
            y = y * (1.0 - smooth) + smooth / classes;
        }
        let each = p.write(&-(Ex::from(&weighted) * y).sum(&[dim], false))?;
        let dims: Vec<usize> = (0..p.ty(&each)?.rank()).collect();
        let y = match p.0.arg("reduction").as_int() {
            Some(0) => each,
            Some(1) => p.reduce(op!("aten.mean.dim"), &each, &dims, false)?,
            Some(2) => p.reduce(op!("aten.sum.dim_IntList"), &each, &dims, false)?,
            _ => return Ok(None),
        };
        return p.done(y);
    }
    let Some(t) = targets(&mut p)? else { return Ok(None) };
    let each = picked(&mut p, &log, &t)?;
    let Some(mut y) = over_targets(&mut p, &each, &t)? else { return Ok(None) };
    if smooth > 0.0 {
        let spread = Ex::from(&t.counts).then(-Ex::from(&weighted).sum(&[dim], false), 0.0);
        let spread = p.write(&spread)?;
        let Some(spread) = over_targets(&mut p, &spread, &t)? else { return Ok(None) };
        y = p.write(&(Ex::from(&y) * (1.0 - smooth) + Ex::from(&spread) * (smooth / classes)))?;
    }
    p.done(y)
}

/// The pairs of classes whose distance to the right one is too small. Source: torch.nn.MultiMarginLoss.
pub(super) fn multi_margin(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(margin), Some(power)) = (site.operand(0).cloned(), number(site, "margin"), number(site, "p")) else {
        return Ok(None);
    };
    let Some(classes) = wrap(-1, t.rank()).and_then(|d| t.shape.get(d)).and_then(Dim::as_int) else { return Ok(None) };
    if t.rank() != 2 || site.arg("weight") != &Arg::None {
        return Ok(None);
    }
    let mut p = Pen(site);
    let x = p.operand(0)?;
    let (x, target) = (p.write(&x)?, p.0.nth(1).clone());
    let at = p.unsqueeze(&target, 1)?;
    let right = p.call(op!("aten.gather.default"), vec![x.clone(), Arg::Int(1), at.clone()])?;
    let ramp = p.call(op!("aten.arange.start_step"), vec![Arg::Int(0), Arg::Int(classes), Arg::Int(1), Arg::DType(DType::Int64)])?;
    let mut wrong = (Ex::from(&x) - Ex::from(&right) + margin).at_least(0.0);
    if power != 1.0 {
        wrong = wrong.pow(power);
    }
    let each = Ex::from(ramp).ne(at).then(wrong, 0.0).sum(&[1], false) * (1.0 / classes as f64);
    reduced(&mut p, &each)
}
