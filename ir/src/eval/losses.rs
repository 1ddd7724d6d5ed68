//! Losses, and distances that they are made of. Sums are exact to `f64` and rounded once.

use super::call::{Call, Results, many, one, promoted};
use super::functions::xlogy;
use super::pointwise::broadcast;
use super::reduce::{groups, norm_of};
use super::tensor::Tensor;
use super::{Error, bad};
use crate::DType;
use crate::infer::promote::to_float;

/// All, the mean or the sum, as `reduction` says.
fn reduced(c: &Call, d: DType, shape: &[usize], each: Vec<f64>) -> Results {
    let sum: f64 = each.iter().sum();
    one(match c.int("reduction")? {
        0 => Tensor::of(d, shape, each)?,
        1 => Tensor::scalar(d, sum / each.len() as f64)?,
        _ => Tensor::scalar(d, sum)?,
    })
}

/// Operands side by side: the type of the result, its shape, and for each operand what belongs to each element of it.
struct Operands<T> {
    dtype: DType,
    shape: Vec<usize>,
    lists: Vec<Vec<T>>,
}

/// The operands of these names, broadcast; those that are not given are ones.
fn operands(c: &Call, names: &[&str]) -> Result<Operands<f64>, Error> {
    let tensors = names.iter().map(|n| c.maybe_tensor(n)).collect::<Result<Vec<_>, _>>()?;
    let shapes: Vec<&[usize]> = tensors.iter().flatten().map(Tensor::shape).collect();
    let shape = broadcast(&shapes)?;
    let given: Vec<_> = tensors.iter().flatten().map(|t| t.clone().into()).collect();
    let dtype = to_float(promoted(&given)?);
    let n = super::tensor::count(&shape)?;
    let list = |t: &Option<Tensor>| match t {
        Some(t) => Ok(t.expand(&shape)?.to::<f64>()),
        None => Ok(vec![1.0; n]),
    };
    let lists = tensors.iter().map(list).collect::<Result<Vec<_>, Error>>()?;
    Ok(Operands { dtype, shape, lists })
}

/// A loss of elements side by side.
pub(super) fn each<const N: usize>(c: &Call, names: [&str; N], f: impl Fn([f64; N]) -> f64) -> Results {
    let Operands { dtype: d, shape, lists } = operands(c, &names)?;
    let n = lists.first().map_or(0, Vec::len);
    let at = |i: usize| std::array::from_fn(|k| lists.get(k).and_then(|l| l.get(i)).copied().unwrap_or(0.0));
    reduced(c, d, &shape, (0..n).map(|i| f(at(i))).collect())
}

pub(super) fn binary_cross_entropy(c: &Call) -> Results {
    let log = |x: f64| x.ln().max(-100.0);
    each(c, ["self", "target", "weight"], |[x, y, w]| -w * (y * log(x) + (1.0 - y) * log(1.0 - x)))
}

pub(super) fn binary_cross_entropy_with_logits(c: &Call) -> Results {
    each(c, ["self", "target", "weight", "pos_weight"], |[x, y, w, p]| {
        // -log(sigmoid(x)) and -log(1 - sigmoid(x)).
        let (one, zero) = ((-x).max(0.0) + (-x.abs()).exp().ln_1p(), x.max(0.0) + (-x.abs()).exp().ln_1p());
        w * (p * y * one + (1.0 - y) * zero)
    })
}

pub(super) fn kl_div(c: &Call) -> Results {
    let log = c.flag("log_target");
    each(c, ["self", "target"], |[x, y]| if log { y.exp() * (y - x) } else { xlogy(y, y) - y * x })
}

pub(super) fn poisson_nll(c: &Call) -> Results {
    let (log, full, eps) = (c.flag("log_input"), c.flag("full"), c.float("eps")?);
    each(c, ["input", "target"], |[x, y]| {
        let loss = if log { x.exp() - y * x } else { x - y * (x + eps).ln() };
        loss + if full && y > 1.0 { y * y.ln() - y + 0.5 * (2.0 * std::f64::consts::PI * y).ln() } else { 0.0 }
    })
}

pub(super) fn hinge_embedding(c: &Call) -> Results {
    let margin = c.float("margin")?;
    each(c, ["self", "target"], |[x, y]| (if y == 1.0 { 0.0 } else { (margin - x).max(0.0) }) + if y == -1.0 { 0.0 } else { x })
}

pub(super) fn margin_ranking(c: &Call) -> Results {
    let margin = c.float("margin")?;
    each(c, ["input1", "input2", "target"], |[a, b, y]| (margin - y * (a - b)).max(0.0))
}

/// Rows of the operands of these names, broadcast, and the shape without them.
fn rows(c: &Call, names: &[&str]) -> Result<Operands<Vec<f64>>, Error> {
    let Operands { dtype, shape, lists } = operands(c, names)?;
    let (Some(&n), Some(outer)) = (shape.last(), shape.split_last().map(|(_, o)| o.to_vec())) else { return Err(bad("no rows")) };
    let count = outer.iter().product();
    let cut = |l: Vec<f64>| if n == 0 { vec![Vec::new(); count] } else { l.chunks(n).map(<[f64]>::to_vec).collect() };
    Ok(Operands { dtype, shape: outer, lists: lists.into_iter().map(cut).collect() })
}

fn apart(a: &[f64], b: &[f64], p: f64, eps: f64) -> f64 {
    norm_of(&a.iter().zip(b).map(|(a, b)| a - b + eps).collect::<Vec<_>>(), p)
}

/// The norm of a difference of rows.
pub(super) fn pairwise_distance(c: &Call) -> Results {
    let (p, eps) = (c.float("p")?, c.float("eps")?);
    let Operands { dtype: d, mut shape, lists } = rows(c, &["x1", "x2"])?;
    let [a, b] = lists.as_slice() else { return Err(bad("two operands")) };
    if c.flag("keepdim") {
        shape.push(1);
    }
    one(Tensor::of(d, &shape, a.iter().zip(b).map(|(a, b)| apart(a, b, p, eps)))?)
}

pub(super) fn triplet_margin(c: &Call) -> Results {
    let (margin, p, eps, swap) = (c.float("margin")?, c.float("p")?, c.float("eps")?, c.flag("swap"));
    let Operands { dtype: d, shape, lists } = rows(c, &["anchor", "positive", "negative"])?;
    let [a, b, far] = lists.as_slice() else { return Err(bad("three operands")) };
    let loss = |((a, b), n): ((&Vec<f64>, &Vec<f64>), &Vec<f64>)| {
        let away = apart(a, n, p, eps);
        let away = if swap { away.min(apart(b, n, p, eps)) } else { away };
        (margin + apart(a, b, p, eps) - away).max(0.0)
    };
    reduced(c, d, &shape, a.iter().zip(b).zip(far).map(loss).collect())
}

pub(super) fn cosine_embedding(c: &Call) -> Results {
    let margin = c.float("margin")?;
    let Operands { dtype: d, shape, lists } = rows(c, &["input1", "input2"])?;
    let y = c.tensor("target")?.expand(&shape)?.to::<f64>();
    let [a, b] = lists.as_slice() else { return Err(bad("two operands")) };
    let loss = |((a, b), y): ((&Vec<f64>, &Vec<f64>), f64)| {
        let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let cosine = product(a, b) / ((product(a, a) + 1e-12) * (product(b, b) + 1e-12)).sqrt();
        if y == 1.0 { 1.0 - cosine } else { (cosine - margin).max(0.0) }
    };
    reduced(c, d, &shape, a.iter().zip(b).zip(y).map(loss).collect())
}

/// One list of classes for each sample, and the shape of the samples. Classes stand in dimension 1, in dimension 0 of a single sample.
fn classes(t: &Tensor) -> Result<(Vec<Vec<f64>>, Vec<usize>), Error> {
    let g = groups::<f64>(t, &[usize::from(t.rank() > 1)], false)?;
    Ok((g.lists, g.shape))
}

/// `-w · x[target]` and the weights that count; the mean is one over them.
fn picked(c: &Call, x: &[Vec<f64>], shape: &[usize], d: DType, smooth: f64) -> Result<[Tensor; 2], Error> {
    let targets = c.tensor("target")?.to::<i64>();
    let weights = c.maybe_tensor("weight")?.map(|w| w.to::<f64>());
    let (ignored, reduction) = (c.int("ignore_index")?, c.int("reduction")?);
    let weight = |k: usize| weights.as_ref().map_or(1.0, |w| w.get(k).copied().unwrap_or(0.0));
    let (mut each, mut total) = (Vec::new(), 0.0);
    for (row, &target) in x.iter().zip(&targets) {
        if target == ignored {
            each.push(0.0);
            continue;
        }
        let k = usize::try_from(target).ok().filter(|&k| k < row.len()).ok_or_else(|| bad("a target that is no class"))?;
        let spread: f64 = row.iter().enumerate().map(|(k, x)| -weight(k) * x).sum();
        each.push((1.0 - smooth) * -weight(k) * row.get(k).copied().unwrap_or(0.0) + smooth * spread / row.len() as f64);
        total += weight(k);
    }
    let sum: f64 = each.iter().sum();
    let loss = match reduction {
        0 => Tensor::of(d, shape, each)?,
        1 => Tensor::scalar(d, sum / total)?,
        _ => Tensor::scalar(d, sum)?,
    };
    Ok([loss, Tensor::scalar(d, if reduction == 0 { 0.0 } else { total })?])
}

/// Minus what each target names.
pub(super) fn nll(c: &Call, with_weight: bool) -> Results {
    let t = c.first()?;
    let (x, shape) = classes(&t)?;
    let [loss, weight] = picked(c, &x, &shape, t.dtype(), 0.0)?;
    if with_weight { many([loss, weight]) } else { one(loss) }
}

/// The same of the logarithm of a softmax; targets are classes or their probabilities.
pub(super) fn cross_entropy(c: &Call) -> Results {
    let (t, target) = (c.first()?, c.tensor("target")?);
    let smooth = c.float("label_smoothing")?;
    let (mut x, shape) = classes(&t)?;
    for row in &mut x {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - most).exp()).sum();
        row.iter_mut().for_each(|v| *v -= most + sum.ln());
    }
    if !target.dtype().is_float() {
        let [loss, _] = picked(c, &x, &shape, t.dtype(), smooth)?;
        return one(loss);
    }
    let (y, _) = classes(&target)?;
    let weights = c.maybe_tensor("weight")?.map(|w| w.to::<f64>());
    let weight = |k: usize| weights.as_ref().map_or(1.0, |w| w.get(k).copied().unwrap_or(0.0));
    let loss = |(x, y): (&Vec<f64>, &Vec<f64>)| {
        let n = x.len() as f64;
        x.iter().zip(y).enumerate().map(|(k, (x, y))| -weight(k) * x * (y * (1.0 - smooth) + smooth / n)).sum()
    };
    reduced(c, t.dtype(), &shape, x.iter().zip(&y).map(loss).collect())
}

/// The classes whose distance to the right one is too small.
pub(super) fn multi_margin(c: &Call) -> Results {
    let (t, targets) = (c.first()?, c.tensor("target")?.to::<i64>());
    let (p, margin) = (c.float("p")?, c.float("margin")?);
    let weights = c.maybe_tensor("weight")?.map(|w| w.to::<f64>());
    let (x, shape) = classes(&t)?;
    let mut each = Vec::new();
    for (row, &target) in x.iter().zip(&targets) {
        let k = usize::try_from(target).ok().filter(|&k| k < row.len()).ok_or_else(|| bad("a target that is no class"))?;
        let right = row.get(k).copied().unwrap_or(0.0);
        let weight = weights.as_ref().and_then(|w| w.get(k)).copied().unwrap_or(1.0);
        let wrong = row.iter().enumerate().filter(|(j, _)| *j != k).map(|(_, x)| (margin - right + x).max(0.0).powf(p));
        each.push(weight * wrong.sum::<f64>() / row.len() as f64);
    }
    reduced(c, t.dtype(), &shape, each)
}
