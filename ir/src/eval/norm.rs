//! Softmax and normalisation. Statistics are exact to `f64`; a result is rounded once.

use super::call::{Call, Results, many, one};
use super::functions::{epsilon, maximum};
use super::order::lines;
use super::pointwise::{per_channel, zip};
use super::reduce::{add_up, groups, moments};
use super::tensor::Tensor;
use super::{Error, bad};
use crate::DType;

/// Softmax, or its logarithm, along an axis.
pub(super) fn softmax_of(t: &Tensor, axis: usize, log: bool) -> Result<Tensor, Error> {
    lines(t, axis, t.dtype(), |x: &[f64]| {
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, maximum);
        let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
        x.iter().map(|x| if log { x - largest - sum.ln() } else { (x - largest).exp() / sum }).collect()
    })
}

pub(super) fn softmax(c: &Call, log: bool) -> Results {
    let t = c.first()?;
    let d = if c.flag("half_to_float") { DType::Float32 } else { c.dtype("dtype").unwrap_or(t.dtype()) };
    if !d.is_float() {
        return Err(bad(format!("of {d}")));
    }
    let t = t.cast(d)?;
    one(softmax_of(&t, c.axis("dim", t.rank())?, log)?)
}

/// Softmax in which a line of nothing but -inf gives zeros.
pub(super) fn safe_softmax(c: &Call) -> Results {
    let t = c.first()?;
    let t = t.cast(c.dtype("dtype").unwrap_or(t.dtype()))?;
    one(lines(&t, c.axis("dim", t.rank())?, t.dtype(), |x: &[f64]| {
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, maximum);
        if largest == f64::NEG_INFINITY {
            return vec![0.0; x.len()];
        }
        let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
        x.iter().map(|x| (x - largest).exp() / sum).collect()
    })?)
}

/// A tensor in double precision, on its way to being rounded.
pub(super) fn wide(t: &Tensor) -> Result<Tensor, Error> {
    t.cast(DType::Float64)
}

pub(super) fn combine(a: &Tensor, b: &Tensor, f: impl Fn(f64, f64) -> f64) -> Result<Tensor, Error> {
    zip(DType::Float64, DType::Float64, a, b, f)
}

/// `x weight + bias`, in double precision.
fn affine(mut x: Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Tensor, Error> {
    if let Some(w) = weight {
        x = combine(&x, w, |x, w| x * w)?;
    }
    match bias {
        Some(b) => combine(&x, b, |x, b| x + b),
        None => Ok(x),
    }
}

/// Mean and reciprocal deviation over the axes, kept, in double precision.
fn statistics(t: &Tensor, axes: &[usize], eps: f64) -> Result<[Tensor; 2], Error> {
    let g = groups::<f64>(t, axes, true)?;
    let all: Vec<(f64, f64)> = g.lists.iter().map(|l| moments(l, 0.0)).collect();
    let of = |f: fn(f64, f64, f64) -> f64| Tensor::of(DType::Float64, &g.shape, all.iter().map(|(m, v)| f(*m, *v, eps)));
    Ok([of(|m, _, _| m)?, of(|_, v, eps| 1.0 / (v + eps).sqrt())?])
}

/// `(x - mean) rstd`
fn centred(t: &Tensor, mean: &Tensor, rstd: &Tensor) -> Result<Tensor, Error> {
    combine(&combine(&wide(t)?, mean, |x, m| x - m)?, rstd, |x, r| x * r)
}

/// The dimensions normalised over: the last ones.
fn last(c: &Call, t: &Tensor) -> Result<Vec<usize>, Error> {
    let over = c.sizes("normalized_shape")?;
    let first = t.rank().checked_sub(over.len()).filter(|&f| t.shape().get(f..) == Some(&over[..]));
    first.map(|f| (f..t.rank()).collect()).ok_or_else(|| bad(format!("normalised over {over:?}, shape {:?}", t.shape())))
}

/// The type in which statistics are returned.
fn statistics_type(c: &Call, t: &Tensor) -> Result<DType, Error> {
    for name in ["weight", "bias"] {
        if let Some(w) = c.maybe_tensor(name)? {
            return Ok(if w.dtype() == t.dtype() { t.dtype() } else { DType::Float32 });
        }
    }
    Ok(t.dtype())
}

pub(super) fn layer_norm(c: &Call) -> Results {
    let t = c.first()?;
    let [mean, rstd] = statistics(&t, &last(c, &t)?, c.float("eps")?)?;
    let out = affine(centred(&t, &mean, &rstd)?, c.maybe_tensor("weight")?.as_ref(), c.maybe_tensor("bias")?.as_ref())?;
    let out = out.cast(t.dtype())?;
    if c.schema.returns.len() == 1 {
        return one(out);
    }
    let d = statistics_type(c, &t)?;
    many([out, mean.cast(d)?, rstd.cast(d)?])
}

/// `x / sqrt(mean(x²) + eps)`, times the weight; without `eps` the distance of 1 to the next value of the type computed in.
pub(super) fn rms_norm(c: &Call) -> Results {
    let t = c.first()?;
    let eps = match c.maybe_float("eps")? {
        Some(eps) => eps,
        None => epsilon(if t.dtype() == DType::Float64 { DType::Float64 } else { DType::Float32 }),
    };
    let g = groups::<f64>(&t, &last(c, &t)?, true)?;
    let root = |x: &Vec<f64>| 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps).sqrt();
    let rstd = Tensor::of(DType::Float64, &g.shape, g.lists.iter().map(root))?;
    let out = affine(combine(&wide(&t)?, &rstd, |x, r| x * r)?, c.maybe_tensor("weight")?.as_ref(), None)?.cast(t.dtype())?;
    if c.schema.returns.len() == 1 {
        return one(out);
    }
    many([out, rstd.cast(if t.dtype() == DType::Float64 { DType::Float64 } else { DType::Float32 })?])
}

pub(super) fn group_norm(c: &Call) -> Results {
    let t = c.first()?;
    let name = ["num_groups", "group"].into_iter().find(|n| c.given(n)).unwrap_or("group");
    let n = c.size(name)?;
    let [batch, channels, ..] = t.shape() else { return Err(bad("an input without channels")) };
    if n == 0 || channels % n != 0 {
        return Err(bad(format!("{channels} channels in {n} groups")));
    }
    let grouped = t.reshape(&[*batch, n, t.numel() / (batch * n).max(1)])?;
    let [mean, rstd] = statistics(&grouped, &[2], c.float("eps")?)?;
    let plain = centred(&grouped, &mean, &rstd)?.reshape(t.shape())?;
    let of_channel = |name: &str| c.maybe_tensor(name)?.map(|w| per_channel(&w, t.rank())).transpose();
    let out = affine(plain, of_channel("weight")?.as_ref(), of_channel("bias")?.as_ref())?.cast(t.dtype())?;
    if c.schema.returns.len() == 1 {
        return one(out);
    }
    let d = statistics_type(c, &t)?;
    many([out, mean.squeeze(2)?.cast(d)?, rstd.squeeze(2)?.cast(d)?])
}

/// What normalising the channels came to.
struct Normalised {
    out: Tensor,
    mean: Tensor,
    rstd: Tensor,
    /// New running mean and variance, where there are running ones and statistics were taken from the input.
    running: Option<[Tensor; 2]>,
}

/// Batch normalisation, with the statistics of the input or the running ones.
fn batch_norm_of(c: &Call, t: &Tensor, training: bool) -> Result<Normalised, Error> {
    let (rank, eps) = (t.rank(), c.float("eps")?);
    if rank < 2 {
        return Err(bad("an input without channels"));
    }
    let axes: Vec<usize> = (0..rank).filter(|&a| a != 1).collect();
    let [running_mean, running_var] = [c.maybe_tensor("running_mean")?, c.maybe_tensor("running_var")?];
    let mut running = None;
    let (mean, rstd) = if training {
        let g = groups::<f64>(t, &axes, false)?;
        let all: Vec<(f64, f64)> = g.lists.iter().map(|l| moments(l, 0.0)).collect();
        if let (Some(m), Some(v)) = (&running_mean, &running_var) {
            let momentum = c.float("momentum")?;
            let n = t.numel() as f64 / t.size(1) as f64;
            let old = |t: &Tensor, new: Vec<f64>| {
                Tensor::of(t.dtype(), t.shape(), t.to::<f64>().iter().zip(new).map(|(old, new)| (1.0 - momentum) * old + momentum * new))
            };
            let (means, unbiased) = (all.iter().map(|(m, _)| *m).collect(), all.iter().map(|(_, v)| v * n / (n - 1.0)).collect());
            running = Some([old(m, means)?, old(v, unbiased)?]);
        }
        let of = |f: fn((f64, f64), f64) -> f64| Tensor::of(DType::Float64, &g.shape, all.iter().map(|x| f(*x, eps)));
        (of(|(m, _), _| m)?, of(|(_, v), eps| 1.0 / (v + eps).sqrt())?)
    } else {
        let (Some(m), Some(v)) = (&running_mean, &running_var) else { return Err(bad("no running statistics")) };
        (wide(m)?, super::pointwise::map(v, DType::Float64, |v: f64| 1.0 / (v + eps).sqrt())?)
    };
    let plain = centred(t, &per_channel(&mean, rank)?, &per_channel(&rstd, rank)?)?;
    let of_channel = |name: &str| c.maybe_tensor(name)?.map(|w| per_channel(&w, rank)).transpose();
    let out = affine(plain, of_channel("weight")?.as_ref(), of_channel("bias")?.as_ref())?.cast(t.dtype())?;
    Ok(Normalised { out, mean, rstd, running })
}

/// Writes new running statistics where the old ones are.
fn update(c: &Call, running: Option<[Tensor; 2]>) -> Result<(), Error> {
    for (name, new) in ["running_mean", "running_var"].into_iter().zip(running.into_iter().flatten()) {
        c.tensor(name)?.write(&new)?;
    }
    Ok(())
}

pub(super) fn batch_norm(c: &Call) -> Results {
    let t = c.first()?;
    let n = batch_norm_of(c, &t, c.flag("training"))?;
    update(c, n.running)?;
    one(n.out)
}

/// The forms that return the statistics they used, and the functional one that returns the running statistics too.
pub(super) fn batch_norm_with_statistics(c: &Call, training: Option<bool>, functional: bool) -> Results {
    let t = c.first()?;
    let training = training.unwrap_or_else(|| c.flag("training"));
    let n = batch_norm_of(c, &t, training)?;
    let d = c.maybe_tensor("weight")?.or(c.maybe_tensor("running_mean")?).map_or(t.dtype(), |w| w.dtype());
    let saved = |t: &Tensor| if training { t.cast(d) } else { Tensor::new(d, &[0], Vec::new()) };
    let mut all = vec![n.out, saved(&n.mean)?, saved(&n.rstd)?];
    if matches!(c.schema.returns.len(), 4 | 6) {
        // What one of torch's libraries keeps for itself.
        all.push(Tensor::new(DType::UInt8, &[0], Vec::new())?);
    }
    if functional {
        all.extend(match n.running {
            Some(new) => new,
            None => [c.tensor("running_mean")?.copy()?, c.tensor("running_var")?.copy()?],
        });
    } else {
        update(c, n.running)?;
    }
    many(all)
}

/// Every instance by itself, or all with the running statistics.
pub(super) fn instance_norm(c: &Call) -> Results {
    let t = c.first()?;
    if !c.flag("use_input_stats") {
        return one(batch_norm_of(c, &t, false)?.out);
    }
    let axes: Vec<usize> = (2..t.rank()).collect();
    let [mean, rstd] = statistics(&t, &axes, c.float("eps")?)?;
    let of_channel = |name: &str| c.maybe_tensor(name)?.map(|w| per_channel(&w, t.rank())).transpose();
    let out = affine(centred(&t, &mean, &rstd)?, of_channel("weight")?.as_ref(), of_channel("bias")?.as_ref())?.cast(t.dtype())?;
    if let (Some(m), Some(v)) = (c.maybe_tensor("running_mean")?, c.maybe_tensor("running_var")?) {
        // Running statistics follow the average over instances.
        let (momentum, n) = (c.float("momentum")?, axes.iter().map(|&a| t.size(a)).product::<usize>() as f64);
        let g = groups::<f64>(&t, &axes, false)?;
        let (batch, channels) = (t.size(0), t.size(1));
        let all: Vec<(f64, f64)> = g.lists.iter().map(|l| moments(l, 0.0)).collect();
        let average = |channel: usize, f: fn(&(f64, f64)) -> f64| {
            all.iter().skip(channel).step_by(channels.max(1)).map(f).sum::<f64>() / batch as f64
        };
        let mix = |old: &Tensor, new: Vec<f64>| {
            Tensor::of(old.dtype(), old.shape(), old.to::<f64>().iter().zip(new).map(|(o, n)| (1.0 - momentum) * o + momentum * n))
        };
        m.write(&mix(&m, (0..channels).map(|k| average(k, |x| x.0)).collect())?)?;
        v.write(&mix(&v, (0..channels).map(|k| average(k, |x| x.1) * n / (n - 1.0)).collect())?)?;
    }
    one(out)
}

/// The cosine of the angle between lines.
pub(super) fn similarity(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    let d = crate::infer::promote::to_float(super::call::promoted(&[a.clone(), b.clone()])?);
    let (a, b) = (a.tensor()?, b.tensor()?);
    let shape = super::pointwise::broadcast(&[a.shape(), b.shape()])?;
    let axis = [c.axis("dim", shape.len())?];
    let eps = c.float("eps")?;
    let (a, b) = (groups::<f64>(&a.expand(&shape)?, &axis, false)?, groups::<f64>(&b.expand(&shape)?, &axis, false)?);
    let norm = |x: &[f64]| add_up(&x.iter().map(|x| x * x).collect::<Vec<_>>()).sqrt().max(eps);
    let cosine = |(x, y): (&Vec<f64>, &Vec<f64>)| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>() / (norm(x) * norm(y));
    one(Tensor::of(d, &a.shape, a.lists.iter().zip(&b.lists).map(cosine))?)
}

/// Lines scaled down to a norm that they exceed.
pub(super) fn renorm(c: &Call) -> Results {
    let t = c.first()?;
    let (p, most, axis) = (c.float("p")?, c.float("maxnorm")?, c.axis("dim", t.rank())?);
    let rest: Vec<usize> = (0..t.rank()).filter(|&a| a != axis).collect();
    let g = groups::<f64>(&t, &rest, true)?;
    let factor = |x: &Vec<f64>| {
        let norm = super::reduce::norm_of(x, p);
        if norm > most { most / (norm + 1e-7) } else { 1.0 }
    };
    let factors = Tensor::of(DType::Float64, &g.shape, g.lists.iter().map(factor))?;
    one(combine(&wide(&t)?, &factors, |x, f| x * f)?.cast(t.dtype())?)
}

/// `g v / |v|`, the length over all dimensions but one.
pub(super) fn weight_norm(c: &Call) -> Results {
    let (v, g) = (c.tensor("v")?, c.tensor("g")?);
    let dim = c.int("dim")?;
    let kept = if dim == -1 { None } else { Some(c.axis("dim", v.rank())?) };
    let axes: Vec<usize> = (0..v.rank()).filter(|a| Some(*a) != kept).collect();
    let lengths = super::reduce::fold(&v, &axes, true, DType::Float64, |x: &[f64]| super::reduce::norm_of(x, 2.0))?;
    let out = combine(&combine(&wide(&v)?, &g, |v, g| v * g)?, &lengths, |x, n| x / n)?.cast(v.dtype())?;
    if c.schema.returns.len() == 1 { one(out) } else { many([out, lengths.cast(g.dtype())?]) }
}
