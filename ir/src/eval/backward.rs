//! Derivatives: what comes from above times what the forward operator does to it, worked out element by element.

use super::call::{Call, Results, many, one, promoted};
use super::functions as f;
use super::norm::{combine, wide};
use super::order::lines;
use super::pointwise::{per_channel, zip};
use super::reduce::{add_up, fold};
use super::tensor::Tensor;
use super::{Error, bad};
use crate::DType;

/// The two tensors that a derivative of single elements is made of.
fn pair(c: &Call) -> Result<[Tensor; 2], Error> {
    let names = ["self_or_result", "output", "self", "mask"];
    let second = names.into_iter().find(|n| c.schema.position(n).is_some()).ok_or_else(|| bad("no second tensor"))?;
    Ok([c.first()?, c.tensor(second)?])
}

/// `f(gradient, element, parameters)`; those that are absent are NaN.
pub(super) fn each<const N: usize>(c: &Call, parameters: [&str; N], f: fn(f64, f64, [f64; N]) -> f64) -> Results {
    let [g, x] = pair(c)?;
    let d = promoted(&[g.clone().into(), x.clone().into()])?;
    let mut p = [f64::NAN; N];
    for (slot, name) in p.iter_mut().zip(parameters) {
        *slot = c.float_or(name, f64::NAN)?;
    }
    one(zip(d, d, &g, &x, |g, x| f(g, x, p))?)
}

pub(super) fn gelu(c: &Call) -> Results {
    let slope = if c.text("approximate") == Some("tanh") {
        |g: f64, x: f64, _: [f64; 0]| {
            let k = (2.0 / std::f64::consts::PI).sqrt();
            let t = (k * (x + 0.044_715 * x * x * x)).tanh();
            g * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * k * (1.0 + 3.0 * 0.044_715 * x * x))
        }
    } else {
        |g: f64, x: f64, _: [f64; 0]| g * (f::ndtr(x) + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt())
    };
    each(c, [], slope)
}

pub(super) fn glu(c: &Call) -> Results {
    let (g, x) = (c.tensor("grad_output")?, c.tensor("self")?);
    let axis = c.axis("dim", x.rank())?;
    let half = x.size(axis) / 2;
    let (a, b) = (x.slice(axis, 0, half, 1)?, x.slice(axis, half, half, 1)?);
    let through = combine(&g, &b, |g, b| g * f::sigmoid(b))?;
    let gate = combine(&combine(&g, &a, |g, a| g * a)?, &b, |ga, b| ga * f::sigmoid(b) * (1.0 - f::sigmoid(b)))?;
    one(super::joins::cat_of(&[through, gate], axis)?.cast(x.dtype())?)
}

pub(super) fn prelu(c: &Call) -> Results {
    let (g, x, w) = (c.tensor("grad_output")?, c.tensor("self")?, c.tensor("weight")?);
    let scaled = combine(&g, &w, |g, w| g * w)?;
    let input = Tensor::of(
        x.dtype(),
        x.shape(),
        x.to::<f64>().into_iter().zip(g.to::<f64>()).zip(scaled.to::<f64>()).map(|((x, g), s)| if x > 0.0 { g } else { s }),
    )?;
    many([input, zip(x.dtype(), x.dtype(), &g, &x, |g: f64, x: f64| if x > 0.0 { 0.0 } else { x * g })?])
}

/// Softmax or its logarithm, by the result.
pub(super) fn softmax(c: &Call, log: bool) -> Results {
    let (g, y) = (c.tensor("grad_output")?, c.tensor("output")?);
    let axis = c.axis("dim", y.rank())?;
    let sum = |t: &Tensor| lines(t, axis, DType::Float64, |x: &[f64]| vec![add_up(x); x.len()]);
    let out = if log {
        combine(&wide(&g)?, &combine(&wide(&y)?, &sum(&wide(&g)?)?, |y, s| y.exp() * s)?, |g, part| g - part)?
    } else {
        let product = combine(&g, &y, |g, y| g * y)?;
        combine(&product, &combine(&y, &sum(&product)?, |y, s| y * s)?, |p, part| p - part)?
    };
    one(out.cast(c.dtype("input_dtype").unwrap_or(y.dtype()))?)
}

/// Losses of elements side by side; over their number where the mean was taken.
pub(super) fn loss(c: &Call, parameter: &str, f: fn(f64, f64, f64) -> f64) -> Results {
    let (x, y) = (c.tensor("self")?, c.tensor("target")?);
    let p = c.float_or(parameter, f64::NAN)?;
    let slope = combine(&x, &y, |x, y| f(x, y, p))?;
    let slope = match c.maybe_tensor("weight")? {
        Some(w) => combine(&slope, &w, |s, w| s * w)?,
        None => slope,
    };
    let n = if c.int("reduction")? == 1 { x.numel() as f64 } else { 1.0 };
    one(combine(&c.tensor("grad_output")?, &slope, |g, s| g * s / n)?.cast(x.dtype())?)
}

pub(super) fn nll(c: &Call) -> Results {
    let (g, x, target) = (c.tensor("grad_output")?, c.tensor("self")?, c.tensor("target")?);
    let axis = usize::from(x.rank() > 1);
    let (classes, inner) = (x.size(axis), x.shape().iter().skip(axis + 1).product::<usize>());
    let weights = c.maybe_tensor("weight")?.map(|w| w.to::<f64>());
    let (ignored, reduction) = (c.int("ignore_index")?, c.int("reduction")?);
    let (grads, total) = (g.to::<f64>(), c.tensor("total_weight")?.item::<f64>()?);
    let mut out = vec![0.0; x.numel()];
    for (i, k) in target.to::<i64>().into_iter().enumerate().filter(|(_, k)| *k != ignored) {
        let k = usize::try_from(k).ok().filter(|k| *k < classes).ok_or_else(|| bad("a target that is no class"))?;
        let above = grads.get(if reduction == 0 { i } else { 0 }).copied().unwrap_or(0.0);
        let weight = weights.as_ref().map_or(1.0, |w| w.get(k).copied().unwrap_or(0.0));
        let share = if reduction == 1 { above / total } else { above };
        if let Some(slot) = out.get_mut(i / inner.max(1) * classes * inner + k * inner + i % inner.max(1)) {
            *slot = -weight * share;
        }
    }
    one(Tensor::of(x.dtype(), x.shape(), out)?)
}

/// To what was normalised over the axes: `r (g - mean(g) - n mean(g n))`; about nothing, the first mean is left out.
fn normalised(g: &Tensor, n: &Tensor, rstd: &Tensor, axes: &[usize], centred: bool) -> Result<Tensor, Error> {
    let mean = |t: &Tensor| fold(t, axes, true, DType::Float64, |x: &[f64]| add_up(x) / x.len() as f64);
    let part = combine(n, &mean(&combine(g, n, |g, n| g * n)?)?, |n, m| n * m)?;
    let rest = combine(g, &part, |g, p| g - p)?;
    let rest = if centred { combine(&rest, &mean(g)?, |r, m| r - m)? } else { rest };
    combine(&rest, rstd, |x, r| x * r)
}

fn normal(x: &Tensor, mean: Option<&Tensor>, rstd: &Tensor) -> Result<Tensor, Error> {
    let centred = match mean {
        Some(m) => combine(x, m, |x, m| x - m)?,
        None => wide(x)?,
    };
    combine(&centred, rstd, |x, r| x * r)
}

fn summed(t: &Tensor, axes: &[usize]) -> Result<Tensor, Error> {
    fold(t, axes, false, DType::Float64, add_up)
}

fn weighted(g: &Tensor, weight: Option<&Tensor>) -> Result<Tensor, Error> {
    match weight {
        Some(w) => combine(g, w, |g, w| g * w),
        None => wide(g),
    }
}

/// Results that the mask asks for.
fn masked(c: &Call, results: impl IntoIterator<Item = Tensor>) -> Results {
    let mask = match c.arg("output_mask").and_then(|a| a.as_list()) {
        Some(list) => list.iter().map(|a| a.as_int() != Some(0)).collect(),
        None => vec![true; 3],
    };
    let value = |(t, wanted): (Tensor, bool)| if wanted { super::Value::Tensor(t) } else { super::Value::None };
    Ok(results.into_iter().zip(mask).map(value).collect())
}

/// The normalisations over the last axes; `centred` those that have a mean and a bias.
pub(super) fn last_axes(c: &Call, centred: bool) -> Results {
    let (g, x, rstd, weight) = (c.tensor("grad_out")?, c.tensor("input")?, c.tensor("rstd")?, c.maybe_tensor("weight")?);
    let mean = if centred { Some(c.tensor("mean")?) } else { None };
    let lead = x.rank().checked_sub(c.ints("normalized_shape")?.len()).ok_or_else(|| bad("more sizes than dimensions"))?;
    let (outer, inner): (Vec<usize>, Vec<usize>) = ((0..lead).collect(), (lead..x.rank()).collect());
    let n = normal(&x, mean.as_ref(), &rstd)?;
    let d = weight.as_ref().map_or(x.dtype(), Tensor::dtype);
    let input = normalised(&weighted(&g, weight.as_ref())?, &n, &rstd, &inner, centred)?.cast(x.dtype())?;
    let scale = summed(&combine(&g, &n, |g, n| g * n)?, &outer)?.cast(d)?;
    let shift = if centred { Some(summed(&wide(&g)?, &outer)?.cast(d)?) } else { None };
    masked(c, [input, scale].into_iter().chain(shift))
}

pub(super) fn group_norm(c: &Call) -> Results {
    let (g, x, groups) = (c.tensor("grad_out")?, c.tensor("input")?, c.size("group")?);
    let [batch, channels, rest @ ..] = x.shape() else { return Err(bad("an input without channels")) };
    if groups == 0 || channels % groups != 0 {
        return Err(bad(format!("{channels} channels in {groups} groups")));
    }
    let split = [*batch, groups, channels / groups, rest.iter().product()];
    let weight = c.maybe_tensor("weight")?.map(|w| w.reshape(&[1, groups, channels / groups, 1])).transpose()?;
    let statistic = |name: &str| c.tensor(name)?.reshape(&[*batch, groups, 1, 1]);
    let (grouped, rstd) = (g.reshape(&split)?, statistic("rstd")?);
    let n = normal(&x.reshape(&split)?, Some(&statistic("mean")?), &rstd)?;
    let input = normalised(&weighted(&grouped, weight.as_ref())?, &n, &rstd, &[2, 3], true)?.reshape(x.shape())?.cast(x.dtype())?;
    let scale = summed(&combine(&grouped, &n, |g, n| g * n)?, &[0, 3])?.reshape(&[*channels])?.cast(x.dtype())?;
    masked(c, [input, scale, summed(&wide(&grouped)?, &[0, 3])?.reshape(&[*channels])?.cast(x.dtype())?])
}

pub(super) fn batch_norm(c: &Call) -> Results {
    let (g, x) = (c.tensor("grad_out")?, c.tensor("input")?);
    let axes: Vec<usize> = (0..x.rank()).filter(|&a| a != 1).collect();
    let training = c.flag(if c.schema.position("train").is_some() { "train" } else { "update" });
    let given = c.maybe_tensor("weight")?;
    let d = given.as_ref().map_or(x.dtype(), Tensor::dtype);
    let weight = given.map(|w| per_channel(&w, x.rank())).transpose()?;
    let (mean, rstd) = if training {
        let name = if c.schema.position("save_invstd").is_some() { "save_invstd" } else { "save_var" };
        (c.tensor("save_mean")?, c.tensor(name)?)
    } else {
        let eps = c.float("eps")?;
        (c.tensor("running_mean")?, super::pointwise::map(&c.tensor("running_var")?, DType::Float64, |v: f64| 1.0 / (v + eps).sqrt())?)
    };
    let (mean, rstd) = (per_channel(&mean, x.rank())?, per_channel(&rstd, x.rank())?);
    let n = normal(&x, Some(&mean), &rstd)?;
    let above = weighted(&g, weight.as_ref())?;
    let input = if training { normalised(&above, &n, &rstd, &axes, true)? } else { combine(&above, &rstd, |g, r| g * r)? };
    let scale = summed(&combine(&g, &n, |g, n| g * n)?, &axes)?.cast(d)?;
    // Whatever is asked for, torch's shape rule has all three.
    many([input.cast(x.dtype())?, scale, summed(&wide(&g)?, &axes)?.cast(d)?])
}

/// To queries, keys and values, by the result and the logarithms of the sums.
pub(super) fn attention(c: &Call) -> Results {
    use super::matrix::{scores, wide_product};
    if c.float_or("dropout_p", 0.0)? > 0.0 {
        return Err(bad("dropout draws random numbers"));
    }
    let (g, q, k, v) = (c.tensor("grad_out")?, c.tensor("query")?, c.tensor("key")?, c.tensor("value")?);
    let (last, row) = (q.nth_last(1)?, q.nth_last(2)?);
    // Heads of keys that serve several of queries are repeated; what comes to them from each is added up.
    let (many_heads, few) = if row == 0 { (1, 1) } else { (q.size(row - 1), k.size(row - 1)) };
    let times = if few > 0 && many_heads % few == 0 { many_heads / few } else { 1 };
    let repeated = |t: &Tensor| {
        let at = Tensor::of(DType::Int64, &[many_heads], (0..many_heads).map(|h| (h / times) as i64))?;
        if times == 1 { Ok(t.clone()) } else { super::indexing::take(t, row - 1, &at) }
    };
    let together = |t: Tensor, like: &Tensor| {
        let mut shape = like.shape().to_vec();
        shape.insert(row.min(shape.len()), times);
        if times == 1 { t.cast(like.dtype()) } else { fold(&t.reshape(&shape)?, &[row], false, like.dtype(), add_up) }
    };
    let (k_all, v_all) = (repeated(&k)?, repeated(&v)?);
    let scale = c.float_or("scale", 1.0 / (q.size(last) as f64).sqrt())?;
    // torch's own decomposition of the forward operator, which export applies, gives the weights themselves in this place.
    let sums = c.tensor("logsumexp")?;
    let weights = if sums.rank() == q.rank() { wide(&sums)? } else { combine(&scores(c)?, &sums.unsqueeze(last)?, |s, l| (s - l).exp())? };
    let turned = |t: &Tensor| t.transpose(row, last);
    let above = wide_product(&wide(&g)?, &turned(&wide(&v_all)?)?)?;
    let total = fold(&combine(&g, &c.tensor("out")?, |g, o| g * o)?, &[last], true, DType::Float64, add_up)?;
    let inner = combine(&combine(&above, &total, |a, t| a - t)?, &weights, |a, w| a * w)?;
    let scaled = super::pointwise::map(&inner, DType::Float64, |x: f64| x * scale)?;
    many([
        wide_product(&scaled, &wide(&k_all)?)?.cast(q.dtype())?,
        together(wide_product(&turned(&scaled)?, &wide(&q)?)?, &k)?,
        together(wide_product(&turned(&weights)?, &wide(&g)?)?, &v)?,
    ])
}

/// Parts put back where they were taken from: `place` finds them in a tensor of nothing.
pub(super) fn part(c: &Call, place: fn(&Call, &Tensor) -> Result<Tensor, Error>) -> Results {
    let g = c.first()?;
    let out = Tensor::full(g.dtype(), &c.sizes("input_sizes")?, 0.0)?;
    place(c, &out)?.write(&g)?;
    one(out)
}

/// Each element added to those at the numbers that `at` gives for it, in a tensor of nothing.
pub(super) fn added(g: &Tensor, shape: &[usize], at: impl Fn(usize) -> Option<usize>) -> Result<Tensor, Error> {
    let mut out = vec![0.0; super::tensor::count(shape)?];
    for (i, v) in g.to::<f64>().into_iter().enumerate() {
        if let Some(sum) = at(i).and_then(|k| out.get_mut(k)) {
            *sum += v;
        }
    }
    Tensor::of(g.dtype(), shape, out)
}

/// Windows added up where they overlap: the numbers of the elements, unfolded, say where.
pub(super) fn unfold(c: &Call) -> Results {
    let (g, shape) = (c.first()?, c.sizes("input_sizes")?);
    let numbers = Tensor::of(DType::Int64, &shape, 0..super::tensor::count(&shape)? as i64)?;
    let axis = c.axis("dim", shape.len())?;
    let at = super::views::windows(&numbers, axis, c.size("size")?, c.size("step")?)?.to::<i64>();
    one(added(&g, &shape, |i| at.get(i).and_then(|&n| usize::try_from(n).ok()))?)
}

pub(super) fn embedding(c: &Call) -> Results {
    let (g, rows) = (c.tensor("grad_output")?, c.size("num_weights")?);
    let (index, padding) = (c.tensor("indices")?.to::<i64>(), c.int("padding_idx")?);
    let width = g.shape().last().copied().unwrap_or(1);
    let often = |n: i64| if c.flag("scale_grad_by_freq") { index.iter().filter(|k| **k == n).count() as f64 } else { 1.0 };
    crate::budget::work(index.len(), index.len())?;
    let shares: Vec<f64> = index.iter().map(|&n| 1.0 / often(n)).collect();
    let each = g.to::<f64>().into_iter().enumerate().map(|(i, v)| v * shares.get(i / width.max(1)).copied().unwrap_or(0.0));
    let scaled = Tensor::of(DType::Float64, g.shape(), each)?;
    let at = |i: usize| {
        let row = index.get(i / width).copied().filter(|n| *n != padding)?;
        usize::try_from(row).ok().filter(|n| *n < rows).map(|n| n * width + i % width)
    };
    one(added(&scaled, &[rows, width], at)?.cast(g.dtype())?)
}

pub(super) fn masked_scatter(c: &Call) -> Results {
    let (g, shape) = (c.tensor("grad_output")?, c.sizes("sizes")?);
    let mask = c.tensor("mask")?.expand(g.shape())?.to::<bool>();
    let taken = g.to::<f64>().into_iter().zip(mask).filter_map(|(v, m)| m.then_some(v));
    let n = super::tensor::count(&shape)?;
    one(Tensor::of(g.dtype(), &shape, taken.chain(std::iter::repeat(0.0)).take(n))?)
}
