//! Reductions: sums, extrema, moments, norms. Sums are exact to `f64` and rounded once.

use super::call::{Call, Number, Results, many, one};
use super::element::{Element, round};
use super::functions::{maximum, minimum};
use super::tensor::Tensor;
use super::{Error, bad};
use crate::DType;
use crate::infer::promote::{to_float, to_real, to_sum};

/// What is reduced: a list of values for each element of the result, and the result's shape.
pub(super) struct Groups<T> {
    pub(super) lists: Vec<Vec<T>>,
    pub(super) shape: Vec<usize>,
}

/// Gathers what reducing the axes brings together.
pub(super) fn groups<T: Element>(t: &Tensor, axes: &[usize], keep: bool) -> Result<Groups<T>, Error> {
    let kept: Vec<usize> = (0..t.rank()).filter(|a| !axes.contains(a)).collect();
    let reduced: Vec<usize> = (0..t.rank()).filter(|a| axes.contains(a)).collect();
    let values = t.permute(&[&kept[..], &reduced[..]].concat())?.to::<T>();
    let size = |of: &[usize]| of.iter().map(|&a| t.size(a)).product::<usize>();
    let (outer, inner) = (size(&kept), size(&reduced));
    let lists = if inner == 0 { vec![Vec::new(); outer] } else { values.chunks(inner).map(<[T]>::to_vec).collect() };
    let dim = |(a, &n): (usize, &usize)| if !axes.contains(&a) { Some(n) } else { keep.then_some(1) };
    Ok(Groups { lists, shape: t.shape().iter().enumerate().filter_map(dim).collect() })
}

/// Reduces the axes with `f`.
pub(super) fn fold<T: Element, R: Element>(
    t: &Tensor,
    axes: &[usize],
    keep: bool,
    dtype: DType,
    f: impl Fn(&[T]) -> R,
) -> Result<Tensor, Error> {
    let g = groups::<T>(t, axes, keep)?;
    Tensor::of(dtype, &g.shape, g.lists.iter().map(|l| f(l)))
}

/// The dimensions that `dim` names: absent or empty, all.
pub(super) fn axes(c: &Call, rank: usize) -> Result<Vec<usize>, Error> {
    let all = || (0..rank).collect();
    if !c.given("dim") {
        return Ok(all());
    }
    let axes = c.axes("dim", rank)?;
    Ok(if axes.is_empty() { all() } else { axes })
}

pub(super) fn add_up(x: &[f64]) -> f64 {
    x.iter().sum()
}

/// Sums and products, whole numbers in 64 bits.
pub(super) fn total(c: &Call, float: fn(&[f64]) -> f64, int: fn(&[i64]) -> i64) -> Results {
    let t = c.first()?;
    let d = c.dtype("dtype").unwrap_or(to_sum(t.dtype()));
    let (t, axes, keep) = (t.cast(d)?, axes(c, t.rank())?, c.flag("keepdim"));
    if d.is_complex() {
        return one(fold(&t, &axes, keep, d, |z: &[[f64; 2]]| z.iter().fold([0.0, 0.0], |s, z| [s[0] + z[0], s[1] + z[1]]))?);
    }
    one(if d.is_float() { fold(&t, &axes, keep, d, float)? } else { fold(&t, &axes, keep, d, int)? })
}

pub(super) fn int_sum(x: &[i64]) -> i64 {
    x.iter().fold(0, |s, x| s.wrapping_add(*x))
}

pub(super) fn int_product(x: &[i64]) -> i64 {
    x.iter().fold(1, |s, x| s.wrapping_mul(*x))
}

/// The sum of the diagonal.
pub(super) fn trace(c: &Call) -> Results {
    let t = c.first()?;
    let d = to_sum(t.dtype());
    let diagonal = super::views::diagonal_of(&t, 0, 0, 1)?;
    one(if d.is_float() { fold(&diagonal, &[0], false, d, add_up)? } else { fold(&diagonal, &[0], false, d, int_sum)? })
}

/// `mean`, or with `nan` left out of account.
pub(super) fn mean(c: &Call, skip_nan: bool) -> Results {
    let t = c.first()?;
    let d = c.dtype("dtype").unwrap_or(t.dtype());
    if d.is_complex() && !skip_nan {
        let mean = |z: &[[f64; 2]]| z.iter().fold([0.0, 0.0], |s, z| [s[0] + z[0], s[1] + z[1]]).map(|s| s / z.len() as f64);
        return one(fold(&t.cast(d)?, &axes(c, t.rank())?, c.flag("keepdim"), d, mean)?);
    }
    if !d.is_float() {
        return Err(bad(format!("the mean of {d}")));
    }
    let f = |x: &[f64]| {
        let used: Vec<f64> = x.iter().copied().filter(|x| !(skip_nan && x.is_nan())).collect();
        add_up(&used) / used.len() as f64
    };
    one(fold(&t.cast(d)?, &axes(c, t.rank())?, c.flag("keepdim"), d, f)?)
}

/// Position of the first value that no other goes before, NaN first of all.
fn first_best<T: Copy>(x: &[T], before: impl Fn(T, T) -> bool) -> Option<usize> {
    let mut best = None;
    for (i, &v) in x.iter().enumerate() {
        if best.is_none_or(|(_, b)| before(v, b)) {
            best = Some((i, v));
        }
    }
    best.map(|(i, _)| i)
}

/// Whether `a` goes before `b` when the largest (or least) is looked for.
fn float_before(largest: bool) -> impl Fn(f64, f64) -> bool {
    move |a, b| !b.is_nan() && (a.is_nan() || if largest { a > b } else { a < b })
}

fn int_before(largest: bool) -> impl Fn(i64, i64) -> bool {
    move |a, b| if largest { a > b } else { a < b }
}

/// Extreme values and where they are.
fn extremum(t: &Tensor, axes: &[usize], keep: bool, largest: bool) -> Result<[Tensor; 2], Error> {
    fn with<T: Element>(t: &Tensor, axes: &[usize], keep: bool, before: impl Fn(T, T) -> bool) -> Result<[Tensor; 2], Error> {
        let g = groups::<T>(t, axes, keep)?;
        let at: Option<Vec<usize>> = g.lists.iter().map(|l| first_best(l, &before)).collect();
        let at = at.ok_or_else(|| bad("the extreme of nothing"))?;
        let values = g.lists.iter().zip(&at).filter_map(|(l, &i)| l.get(i).copied());
        Ok([Tensor::of(t.dtype(), &g.shape, values)?, Tensor::of(DType::Int64, &g.shape, at.iter().map(|&i| i as i64))?])
    }
    // Even where no line is looked at.
    if axes.iter().any(|&a| t.size(a) == 0) {
        return Err(bad("the extreme of nothing"));
    }
    if t.dtype().is_float() { with(t, axes, keep, float_before(largest)) } else { with(t, axes, keep, int_before(largest)) }
}

/// `amax`, `max` of everything and their kin.
pub(super) fn extreme(c: &Call, largest: bool) -> Results {
    let t = c.first()?;
    let [values, _] = extremum(&t, &axes(c, t.rank())?, c.flag("keepdim"), largest)?;
    one(values)
}

/// `max.dim`: values and positions.
pub(super) fn extreme_with_position(c: &Call, largest: bool) -> Results {
    let t = c.first()?;
    many(extremum(&t, &[c.axis("dim", t.rank())?], c.flag("keepdim"), largest)?)
}

/// `argmax`: positions along a dimension, or in the flattened tensor.
pub(super) fn position(c: &Call, largest: bool) -> Results {
    let t = c.first()?;
    let keep = c.flag("keepdim");
    if c.given("dim") {
        let [_, at] = extremum(&t, &[c.axis("dim", t.rank())?], keep, largest)?;
        return one(at);
    }
    let [_, at] = extremum(&t, &(0..t.rank()).collect::<Vec<_>>(), keep, largest)?;
    one(at)
}

pub(super) fn both_extremes(c: &Call) -> Results {
    let t = c.first()?;
    let (axes, keep) = (axes(c, t.rank())?, c.flag("keepdim"));
    let [low, _] = extremum(&t, &axes, keep, false)?;
    let [high, _] = extremum(&t, &axes, keep, true)?;
    many([low, high])
}

/// `any` and `all`; of bytes they are bytes.
pub(super) fn truth(c: &Call, all: bool) -> Results {
    let t = c.first()?;
    let d = if t.dtype() == DType::UInt8 { DType::UInt8 } else { DType::Bool };
    // Unlike elsewhere, a list of no dimensions reduces none.
    let none = c.schema.overload == "dims" && c.given("dim") && c.ints("dim")?.is_empty();
    let axes = if none { Vec::new() } else { axes(c, t.rank())? };
    one(fold(&t, &axes, c.flag("keepdim"), d, |x: &[bool]| if all { x.iter().all(|x| *x) } else { x.iter().any(|x| *x) })?)
}

pub(super) fn count_nonzero(c: &Call) -> Results {
    let t = c.first()?;
    one(fold(&t, &axes(c, t.rank())?, false, DType::Int64, |x: &[bool]| x.iter().filter(|x| **x).count() as i64)?)
}

/// Mean and variance of values; the divisor is their number less `correction`.
pub(super) fn moments(x: &[f64], correction: f64) -> (f64, f64) {
    let mean = add_up(x) / x.len() as f64;
    let squares: f64 = x.iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, squares / (x.len() as f64 - correction).max(0.0))
}

fn correction(c: &Call) -> Result<f64, Error> {
    if c.given("unbiased") {
        return Ok(if c.flag("unbiased") { 1.0 } else { 0.0 });
    }
    c.float_or("correction", 1.0)
}

/// `var` and `std`, and with the mean beside.
pub(super) fn spread(c: &Call, root: bool, with_mean: bool) -> Results {
    let t = c.first()?;
    let d = to_real(t.dtype());
    if !t.dtype().is_float() {
        return Err(bad(format!("the variance of {d}")));
    }
    let (axes, keep, correction) = (axes(c, t.rank())?, c.flag("keepdim"), correction(c)?);
    let spread = fold(&t, &axes, keep, d, |x: &[f64]| {
        let (_, variance) = moments(x, correction);
        if root { variance.sqrt() } else { variance }
    })?;
    if !with_mean {
        return one(spread);
    }
    many([spread, fold(&t, &axes, keep, d, |x: &[f64]| moments(x, 0.0).0)?])
}

/// `log(sum(exp(x)))`, as torch composes it of operators that round.
pub(super) fn log_sum_exp(t: &Tensor, axes: &[usize], keep: bool) -> Result<Tensor, Error> {
    let d = to_float(t.dtype());
    fold(&t.cast(d)?, axes, keep, d, |x: &[f64]| {
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, maximum);
        let shift = if largest.is_infinite() { 0.0 } else { largest };
        let sum: f64 = x.iter().map(|x| round(d, (x - shift).exp())).sum();
        round(d, round(d, sum).ln()) + shift
    })
}

pub(super) fn logsumexp(c: &Call) -> Results {
    let t = c.first()?;
    one(log_sum_exp(&t, &axes(c, t.rank())?, c.flag("keepdim"))?)
}

/// The norm of a list of values.
pub(super) fn norm_of(x: &[f64], p: f64) -> f64 {
    let magnitudes = x.iter().map(|x| x.abs());
    match p {
        f64::INFINITY => magnitudes.fold(0.0, maximum),
        f64::NEG_INFINITY => magnitudes.fold(f64::INFINITY, minimum),
        0.0 => magnitudes.filter(|x| *x != 0.0).count() as f64,
        1.0 => magnitudes.sum(),
        2.0 => magnitudes.map(|x| x * x).sum::<f64>().sqrt(),
        p => magnitudes.map(|x| x.powf(p)).sum::<f64>().powf(1.0 / p),
    }
}

/// Norms of vectors along the axes, in a type.
///
/// # Errors
/// When there is nothing to measure and the order has no value for that.
fn norms(t: &Tensor, axes: &[usize], keep: bool, d: DType, p: f64) -> Result<Tensor, Error> {
    if axes.iter().any(|&a| t.size(a) == 0) && (p < 0.0 || p == f64::INFINITY) {
        return Err(bad(format!("the norm of order {p} of no elements")));
    }
    fold(t, axes, keep, d, |x: &[f64]| norm_of(x, p))
}

/// Vector norms; the order's argument has several names.
pub(super) fn norm(c: &Call) -> Results {
    let t = c.first()?;
    let p = match ["ord", "p"].into_iter().find(|n| c.given(n)) {
        Some(name) => c.float(name)?,
        None => 2.0,
    };
    let d = c.dtype("dtype").unwrap_or(t.dtype());
    let (axes, keep) = (axes(c, t.rank())?, c.flag("keepdim"));
    if t.dtype().is_complex() {
        let modulus = super::pointwise::map(&t, to_real(d), |[a, b]: [f64; 2]| a.hypot(b))?;
        return one(norms(&modulus, &axes, keep, to_real(d), p)?);
    }
    one(norms(&t.cast(d)?, &axes, keep, d, p)?)
}

/// The norm of a difference.
pub(super) fn dist(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    let difference = super::arithmetic::add_scaled([a, b], Number::Int(-1))?;
    let all: Vec<usize> = (0..difference.rank()).collect();
    let p = c.float_or("p", 2.0)?;
    one(norms(&difference, &all, false, difference.dtype(), p)?)
}

/// Norms of vectors, or of matrices where the order and two dimensions ask for them.
pub(super) fn any_norm(c: &Call, matrix: bool) -> Results {
    let t = c.first()?;
    let axes = axes(c, t.rank())?;
    let fro = c.text("ord") == Some("fro") || !c.given("ord");
    let matrix = matrix || (axes.len() == 2 && (c.given("dim") || t.rank() == 2));
    if fro || !matrix {
        let p = if fro { 2.0 } else { c.float("ord")? };
        return one(norms(&t, &axes, c.flag("keepdim"), c.dtype("dtype").unwrap_or(t.dtype()), p)?);
    }
    let (order, &[rows, columns]) = (c.float("ord")?, axes.as_slice()) else { return Err(bad("two dimensions")) };
    let (summed, left) = match order.abs() {
        1.0 => (rows, columns),
        f64::INFINITY => (columns, rows),
        _ => return Err(Error::new(crate::error::ErrorKind::Unsupported, "norms of singular values")),
    };
    let sums = fold(&t, &[summed], true, DType::Float64, |x: &[f64]| norm_of(x, 1.0))?;
    let of = |x: &[f64]| if order > 0.0 { x.iter().copied().fold(0.0, maximum) } else { x.iter().copied().fold(f64::INFINITY, minimum) };
    let kept = fold(&sums, &[left], true, t.dtype(), of)?;
    let shape: Vec<usize> = (0..t.rank()).filter(|a| c.flag("keepdim") || !axes.contains(a)).map(|a| kept.size(a)).collect();
    one(kept.reshape(&shape)?)
}

/// Between the two ranks around `q (n - 1)`; NaN where one is, unless only numbers count. A vector of ranks is a first axis.
pub(super) fn quantile(c: &Call, numbers_only: bool) -> Results {
    let t = c.first()?;
    let keep = c.flag("keepdim");
    let axes = if c.given("dim") { vec![c.axis("dim", t.rank())?] } else { (0..t.rank()).collect() };
    let way = c.text("interpolation").unwrap_or("linear").to_owned();
    let at_rank = |q: f64| {
        fold(&t, &axes, keep, t.dtype(), |x: &[f64]| {
            let mut sorted: Vec<f64> = x.iter().copied().filter(|v| !v.is_nan()).collect();
            if sorted.is_empty() || (!numbers_only && sorted.len() < x.len()) {
                return f64::NAN;
            }
            sorted.sort_by(f64::total_cmp);
            let at = |k: f64| sorted.get(k as usize).copied().unwrap_or(f64::NAN);
            let rank = q * (sorted.len() as f64 - 1.0);
            let (low, high) = (at(rank.floor()), at(rank.ceil()));
            match way.as_str() {
                "lower" => low,
                "higher" => high,
                "nearest" => at(rank.round_ties_even()),
                "midpoint" => (low + high) / 2.0,
                _ => low + (high - low) * (rank - rank.floor()),
            }
        })
    };
    if c.schema.overload == "scalar" {
        return one(at_rank(c.float("q")?)?);
    }
    let q = c.tensor("q")?;
    let each = q.to::<f64>().into_iter().map(at_rank).collect::<Result<Vec<_>, _>>()?;
    let rest = each.first().map_or_else(|| t.shape().to_vec(), |x| x.shape().to_vec());
    let shape: Vec<usize> = q.shape().iter().copied().chain(rest).collect();
    one(Tensor::of(t.dtype(), &shape, each.iter().flat_map(|x| x.to::<f64>()))?)
}
