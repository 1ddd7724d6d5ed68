//! Sorting, searching, and what runs along a dimension.

use std::cmp::Ordering;

use super::call::{Call, Results, many, one};
use super::element::{Element, round};
use super::functions::logaddexp;
use super::reduce::groups;
use super::tensor::Tensor;
use super::{Error, bad, budget};
use crate::DType;
use crate::infer::promote::to_sum;

/// How many lines a tensor has along an axis, also where they are empty.
pub(super) fn line_count(t: &Tensor, axis: usize) -> usize {
    t.shape().iter().enumerate().filter(|(a, _)| *a != axis).fold(1, |n, (_, d)| n.saturating_mul(*d))
}

/// Applies `f` to every line of a tensor along an axis; the lines it gives replace them and may have another length.
pub(super) fn lines<T: Element, R: Element>(t: &Tensor, axis: usize, dtype: DType, f: impl Fn(&[T]) -> Vec<R>) -> Result<Tensor, Error> {
    if t.rank() == 0 {
        return Tensor::of(dtype, &[], f(&t.to::<T>()));
    }
    let g = groups::<T>(t, &[axis], false)?;
    let made: Vec<Vec<R>> = g.lists.iter().map(|l| f(l)).collect();
    let length = made.first().map_or_else(|| f(&vec![T::default(); t.size(axis)]).len(), Vec::len);
    let last = Tensor::of(dtype, &[&g.shape[..], &[length]].concat(), made.into_iter().flatten())?;
    let mut order: Vec<usize> = (0..t.rank() - 1).collect();
    order.insert(axis.min(order.len()), t.rank() - 1);
    last.permute(&order)?.copy()
}

/// NaN is larger than anything.
fn float_order(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Positions in sorted order; equal values stay as they are.
fn sorted_positions<T: Copy>(x: &[T], order: fn(&T, &T) -> Ordering, descending: bool) -> Vec<i64> {
    let mut at: Vec<(usize, T)> = x.iter().copied().enumerate().collect();
    at.sort_by(|(_, a), (_, b)| if descending { order(b, a) } else { order(a, b) });
    at.into_iter().map(|(i, _)| i as i64).collect()
}

/// Positions along the axis that sort it.
pub(super) fn order_of(t: &Tensor, axis: usize, descending: bool, most: usize) -> Result<Tensor, Error> {
    let cut = |mut v: Vec<i64>| {
        v.truncate(most);
        v
    };
    if t.dtype().is_float() {
        lines(t, axis, DType::Int64, |x: &[f64]| cut(sorted_positions(x, float_order, descending)))
    } else {
        lines(t, axis, DType::Int64, |x: &[i64]| cut(sorted_positions(x, i64::cmp, descending)))
    }
}

pub(super) fn sort(c: &Call) -> Results {
    let t = c.first()?;
    let axis = if c.given("dim") { c.axis("dim", t.rank())? } else { 0 };
    let at = order_of(&t, axis, c.flag("descending"), usize::MAX)?;
    many([super::indexing::gather_along(&t, axis, &at)?, at])
}

/// Sorted along the first dimension.
pub(super) fn msort(c: &Call) -> Results {
    let t = c.first()?;
    one(super::indexing::gather_along(&t, 0, &order_of(&t, 0, false, usize::MAX)?)?)
}

pub(super) fn argsort(c: &Call) -> Results {
    let t = c.first()?;
    one(order_of(&t, c.axis("dim", t.rank())?, c.flag("descending"), usize::MAX)?)
}

pub(super) fn topk(c: &Call) -> Results {
    let t = c.first()?;
    let (axis, k) = (c.axis("dim", t.rank())?, c.size("k")?);
    if k > t.size(axis) {
        return Err(bad(format!("{k} of {} values", t.size(axis))));
    }
    let at = order_of(&t, axis, c.flag("largest"), k)?;
    many([super::indexing::gather_along(&t, axis, &at)?, at])
}

/// The value that so many come before in order, and where it is.
fn ranked(t: &Tensor, axis: usize, keep: bool, rank: impl Fn(&[f64]) -> usize) -> Result<[Tensor; 2], Error> {
    let pick = lines(t, axis, DType::Int64, |x: &[f64]| {
        let order = sorted_positions(x, float_order, false);
        vec![order.get(rank(x)).copied().unwrap_or(0)]
    })?;
    let values = super::indexing::gather_along(t, axis, &pick)?;
    if keep { Ok([values, pick]) } else { Ok([values.squeeze(axis)?, pick.squeeze(axis)?]) }
}

/// The lower of the two middle values; NaN if there is one, unless it is left out of account.
fn median_rank(x: &[f64], skip_nan: bool) -> usize {
    let nan = x.iter().filter(|x| x.is_nan()).count();
    if nan > 0 && !skip_nan { x.len() - nan } else { (x.len() - nan).saturating_sub(1) / 2 }
}

pub(super) fn median(c: &Call, skip_nan: bool) -> Results {
    let t = c.first()?;
    if c.given("dim") {
        let axis = c.axis("dim", t.rank())?;
        if t.rank() > 0 && t.size(axis) == 0 {
            return Err(bad("the median of nothing"));
        }
        return many(ranked(&t, axis, c.flag("keepdim"), |x| median_rank(x, skip_nan))?);
    }
    let [value, _] = ranked(&t.reshape(&[t.numel()])?, 0, false, |x| median_rank(x, skip_nan))?;
    one(value)
}

pub(super) fn kth_value(c: &Call) -> Results {
    let t = c.first()?;
    let (axis, k) = (c.axis("dim", t.rank())?, c.size("k")?);
    if k == 0 || k > t.size(axis) {
        return Err(bad(format!("value {k} of {}", t.size(axis))));
    }
    many(ranked(&t, axis, c.flag("keepdim"), |_| k - 1)?)
}

/// Running sums and products.
pub(super) fn running(c: &Call, float: fn(f64, f64) -> f64, int: fn(i64, i64) -> i64, unit: i8) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let d = c.dtype("dtype").unwrap_or(to_sum(t.dtype()));
    let t = t.cast(d)?;
    one(if d.is_float() {
        lines(&t, axis, d, |x: &[f64]| {
            x.iter()
                .scan(f64::from(unit), |s, x| {
                    *s = float(*s, *x);
                    Some(*s)
                })
                .collect()
        })?
    } else {
        lines(&t, axis, d, |x: &[i64]| {
            x.iter()
                .scan(i64::from(unit), |s, x| {
                    *s = int(*s, *x);
                    Some(*s)
                })
                .collect()
        })?
    })
}

pub(super) fn log_cum_sum_exp(c: &Call) -> Results {
    let t = c.first()?;
    let (axis, d) = (c.axis("dim", t.rank())?, t.dtype());
    one(lines(&t, axis, d, |x: &[f64]| {
        x.iter()
            .scan(f64::NEG_INFINITY, |s, x| {
                *s = round(if d.size() < 4 { DType::Float32 } else { d }, logaddexp(*s, *x));
                Some(*s)
            })
            .collect()
    })?)
}

/// Running extremes with their positions, the last of equal ones.
pub(super) fn running_extreme(c: &Call, largest: bool) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let at = lines(&t, axis, DType::Int64, |x: &[f64]| {
        let mut best: Option<(usize, f64)> = None;
        let step = |(i, &v): (usize, &f64)| {
            if best.is_none_or(|(_, b)| v.is_nan() || if largest { v >= b } else { v <= b }) {
                best = Some((i, v));
            }
            best.map_or(0, |(i, _)| i as i64)
        };
        x.iter().enumerate().map(step).collect()
    })?;
    many([super::indexing::gather_along(&t, axis, &at)?, at])
}

/// Differences of neighbours, `n` times over.
pub(super) fn diff(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let parts = [c.maybe_tensor("prepend")?, Some(t), c.maybe_tensor("append")?];
    let mut t = super::joins::cat_of(&parts.into_iter().flatten().collect::<Vec<_>>(), axis)?;
    for _ in 0..c.size("n")? {
        if t.size(axis) == 0 {
            break;
        }
        let n = t.size(axis).saturating_sub(1);
        let (after, before) = (t.slice(axis, t.size(axis) - n, n, 1)?, t.slice(axis, 0, n, 1)?);
        let d = t.dtype();
        t = match d {
            DType::Bool => super::pointwise::zip(d, d, &after, &before, |a: bool, b| a != b)?,
            d if d.is_float() => super::pointwise::zip(d, d, &after, &before, |a: f64, b| a - b)?,
            d => super::pointwise::zip(d, d, &after, &before, i64::wrapping_sub)?,
        };
    }
    one(t)
}

/// How many boundaries a value comes after; with `right`, equal ones count.
fn bucket(x: f64, boundaries: &[f64], right: bool) -> i64 {
    let before = |b: &f64| if right { float_order(b, &x) != Ordering::Greater } else { float_order(b, &x) == Ordering::Less };
    boundaries.partition_point(before) as i64
}

fn index_type(c: &Call) -> DType {
    if c.flag("out_int32") { DType::Int32 } else { DType::Int64 }
}

pub(super) fn bucketize(c: &Call) -> Results {
    let (t, boundaries) = (c.first()?, c.tensor("boundaries")?.to::<f64>());
    let right = c.flag("right");
    one(super::pointwise::map(&t, index_type(c), |x: f64| bucket(x, &boundaries, right))?)
}

/// A sorted sequence for all, or one for each line of values.
pub(super) fn searchsorted(c: &Call) -> Results {
    let (sorted, t) = (c.tensor("sorted_sequence")?, c.tensor("self")?);
    let right = c.flag("right") || c.text("side") == Some("right");
    let (n, all) = (sorted.shape().last().copied().unwrap_or(0), sorted.to::<f64>());
    let per_line = if sorted.rank() > 1 { t.shape().last().copied().unwrap_or(1) } else { t.numel() };
    let at = |(i, x): (usize, f64)| {
        let line = i / per_line.max(1);
        bucket(x, all.get(line * n..(line + 1) * n).unwrap_or(&[]), right)
    };
    let values = t.to::<f64>().into_iter().enumerate().map(at).collect::<Vec<_>>();
    one(Tensor::of(index_type(c), t.shape(), values)?)
}

/// Whether an element is among the test elements.
pub(super) fn isin(c: &Call) -> Results {
    let [elements, tests] = c.operands()?;
    let (elements, tests) = (elements.tensor()?, tests.tensor()?.to::<f64>());
    budget::work(elements.numel(), tests.len())?;
    let invert = c.flag("invert");
    one(super::pointwise::map(&elements, DType::Bool, |x: f64| tests.contains(&x) != invert)?)
}

/// How often each number occurs, or the sum of its weights.
pub(super) fn bincount(c: &Call) -> Results {
    let values = c.first()?.to::<i64>();
    let n = values.iter().max().map_or(0, |m| m.saturating_add(1)).max(c.int("minlength")?);
    let n = usize::try_from(n).map_err(|_| bad("negative values"))?;
    super::tensor::count(&[n])?;
    let mut sums = vec![0.0; n];
    let weights = c.maybe_tensor("weights")?;
    let given = weights.as_ref().map(Tensor::to::<f64>);
    for (i, v) in values.iter().enumerate() {
        let place = usize::try_from(*v).ok().and_then(|v| sums.get_mut(v)).ok_or_else(|| bad("negative values"))?;
        *place += given.as_ref().and_then(|g| g.get(i)).copied().unwrap_or(1.0);
    }
    let d = match weights.map(|w| w.dtype()) {
        None => DType::Int64,
        Some(DType::Float32) => DType::Float32,
        Some(_) => DType::Float64,
    };
    one(Tensor::of(d, &[n], sums)?)
}

/// How many values lie in each of equal parts of a range, ends included.
pub(super) fn histc(c: &Call) -> Results {
    let t = c.first()?;
    let (values, bins) = (t.to::<f64>(), c.size("bins")?);
    let (mut low, mut high) = (c.float("min")?, c.float("max")?);
    if low == high {
        (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
        (low, high) = if low < high { (low, high) } else { (low - 1.0, low + 1.0) };
    }
    budget::work(super::tensor::count(&[bins])?, values.len())?;
    let edge = |i: usize| round(t.dtype(), low + (high - low) * i as f64 / bins as f64);
    let within = |i: usize| move |x: &&f64| edge(i) <= **x && (**x < edge(i + 1) || i + 1 == bins && **x <= high);
    let counts = (0..bins).map(|i| values.iter().filter(within(i)).count() as f64);
    one(Tensor::of(t.dtype(), &[bins], counts)?)
}

/// Values that occur, sorted, with their positions and counts.
pub(super) fn unique(c: &Call) -> Results {
    let t = c.first()?;
    let rows: Vec<[f64; 1]> = t.to::<f64>().into_iter().map(|x| [x]).collect();
    let groups = Groups::new(&rows, true);
    let values = Tensor::of(t.dtype(), &[groups.first.len()], groups.first.iter().filter_map(|&i| rows.get(i)).map(|r| r[0]))?;
    groups.results(values, t.shape())
}

/// As [`unique`], without counts.
pub(super) fn unique_pair(c: &Call) -> Results {
    let mut results = unique(c)?;
    results.truncate(2);
    Ok(results)
}

/// Slices of a dimension that occur, sorted; only what stands side by side is one where they are not sorted.
pub(super) fn unique_slices(c: &Call) -> Results {
    slices(c, true)
}

/// Runs of equal slices of a dimension, or of equal elements.
pub(super) fn unique_runs(c: &Call) -> Results {
    slices(c, false)
}

fn slices(c: &Call, sort: bool) -> Results {
    let given = c.first()?;
    let whole = !c.given("dim");
    let t = if whole { given.reshape(&[given.numel()])? } else { given.clone() };
    let axis = if whole { 0 } else { c.axis("dim", t.rank())? };
    let front = t.transpose(0, axis)?;
    let n = front.size(0);
    let width = front.numel() / n.max(1);
    let all = front.to::<f64>();
    let rows: Vec<&[f64]> = (0..n).map(|i| all.get(i * width..(i + 1) * width).unwrap_or(&[])).collect();
    let groups = Groups::new(&rows, sort);
    let mut shape = front.shape().to_vec();
    if let Some(d) = shape.first_mut() {
        *d = groups.first.len();
    }
    let picked = groups.first.iter().filter_map(|&i| rows.get(i)).flat_map(|r| r.iter().copied());
    let values = Tensor::of(t.dtype(), &shape, picked)?.transpose(0, axis)?.copy()?;
    groups.results(values, if whole { given.shape() } else { std::slice::from_ref(&n) })
}

/// Equal rows: the first of each kind, which kind each row is of, and how many there are of each.
struct Groups {
    first: Vec<usize>,
    inverse: Vec<i64>,
    counts: Vec<i64>,
}

impl Groups {
    fn new(rows: &[impl AsRef<[f64]>], sort: bool) -> Self {
        let row = |i: usize| rows.get(i).map_or(&[][..], AsRef::as_ref);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        if sort {
            let by = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| float_order(x, y)).find(|o| o.is_ne());
            order.sort_by(|a, b| by(row(*a), row(*b)).unwrap_or(std::cmp::Ordering::Equal));
        }
        let mut groups = Groups { first: Vec::new(), inverse: vec![0; rows.len()], counts: Vec::new() };
        for i in order {
            match (groups.first.last(), groups.counts.last_mut()) {
                // Not a number is equal to none.
                (Some(&f), Some(count)) if row(f) == row(i) => *count += 1,
                _ => {
                    groups.first.push(i);
                    groups.counts.push(1);
                }
            }
            if let Some(slot) = groups.inverse.get_mut(i) {
                *slot = groups.first.len() as i64 - 1;
            }
        }
        groups
    }

    fn results(self, values: Tensor, shape: &[usize]) -> Results {
        let counts = Tensor::of(DType::Int64, &[self.counts.len()], self.counts)?;
        many([values, Tensor::of(DType::Int64, shape, self.inverse)?, counts])
    }
}

/// The smallest of the most frequent, and its last position.
pub(super) fn mode(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let g = super::reduce::groups::<f64>(&t, if t.rank() == 0 { &[] } else { std::slice::from_ref(&axis) }, c.flag("keepdim"))?;
    budget::work(t.numel(), g.lists.first().map_or(0, Vec::len))?;
    let often = |x: &[f64], v: f64| x.iter().filter(|y| **y == v).count();
    let best = |x: &Vec<f64>| {
        let most = x.iter().map(|v| often(x, *v)).max().unwrap_or(0);
        let value = x.iter().copied().filter(|v| often(x, *v) == most).fold(f64::INFINITY, f64::min);
        (value, x.iter().rposition(|v| *v == value).unwrap_or(0) as i64)
    };
    let all: Vec<(f64, i64)> = g.lists.iter().map(best).collect();
    many([Tensor::of(t.dtype(), &g.shape, all.iter().map(|b| b.0))?, Tensor::of(DType::Int64, &g.shape, all.iter().map(|b| b.1))?])
}
