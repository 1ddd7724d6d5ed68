//! What sorts, and what runs along a dimension.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Dim;

use super::diagonal::ramp;
use super::expr::Ex;
use super::pen::Pen;
use crate::calls::{args, ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;
type Value = std::result::Result<Option<Arg>, Error>;

/// Value and position of the `k`-th smallest, counted from 0; `poisoned` if NaN counts as every place's answer.
fn ranked(site: &mut Site<'_>, dim: usize, k: &Dim, keep: bool, poisoned: bool) -> Result {
    let Some(at) = site.size(k) else { return Ok(None) };
    let used: Vec<bool> = site.node().outputs.iter().map(|&v| site.graph().value(v).use_count() > 0).collect();
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let sorted = p.0.call_all(op!("aten.sort.default"), vec![x.clone(), Arg::Int(dim as i64), Arg::Bool(false)])?;
    let mut results = Vec::new();
    for (v, used) in sorted.into_iter().zip(used) {
        if !used {
            results.push(Arg::None);
            continue;
        }
        let part = p.call(op!("aten.select.int"), vec![Arg::Value(v), Arg::Int(dim as i64), at.clone()])?;
        results.push(if keep { p.unsqueeze(&part, dim)? } else { part });
    }
    let [value, position] = results.as_mut_slice() else { return Ok(None) };
    if poisoned && p.ty(&x)?.dtype.is_float() {
        let bad = p.write(&Ex::from(&x).is_nan())?;
        let any = p.reduce(op!("aten.any.dims"), &bad, &[dim], keep)?;
        if *position != Arg::None {
            let marks = p.cast(&bad, DType::Int32)?;
            let first = p.call(op!("aten.argmax.default"), vec![marks, Arg::Int(dim as i64), Arg::Bool(keep)])?;
            *position = p.select(&any, &first, &position.clone())?;
        }
        if *value != Arg::None {
            *value = p.write(&Ex::from(&any).then(f64::NAN, &*value))?;
        }
    }
    Ok(Some(Patch::Values(results)))
}

fn length(site: &Site<'_>) -> Option<(usize, Dim)> {
    let t = site.operand(0)?;
    let dim = wrap(site.arg("dim").as_int()?, t.rank())?;
    // A scalar has no axis to sort.
    Some((dim, t.shape.get(dim).filter(|n| n.as_int() != Some(0))?.clone()))
}

/// The lower one of two places in the middle.
fn middle(n: &Dim) -> Dim {
    n.minus(&Dim::Int(1)).floor_div(&Dim::Int(2))
}

fn keepdim(site: &Site<'_>) -> bool {
    site.arg("keepdim").as_bool() == Some(true)
}

/// The smallest of those that occur most often, and its last place: every element compared with every other. Source: torch.mode.
pub(super) fn mode(site: &mut Site<'_>) -> Result {
    let Some((dim, n)) = length(site) else { return Ok(None) };
    let (Some(t), keep) = (site.operand(0).cloned(), keepdim(site)) else { return Ok(None) };
    let Some(all) = t.static_shape().and_then(|s| s.iter().product::<i64>().checked_mul(n.as_int()?)) else { return Ok(None) };
    if all > 1 << 24 || t.rank() == 0 {
        return Ok(None);
    }
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let (down, across) = (p.unsqueeze(&x, dim)?, p.unsqueeze(&x, dim + 1)?);
    let often = Ex::from(down).eq(across).cast(DType::Int64).sum(&[dim + 1], false);
    let often = Ex::from(p.write(&often)?);
    let top = Ex::from(p.write(&often.eq(often.reduce(op!("aten.amax.default"), &[dim], true)))?);
    let largest = match t.dtype {
        d if d.is_float() => Ex::from(f64::INFINITY),
        DType::Bool => return Ok(None),
        d => match d.int_range() {
            Some(r) => Ex::from(*r.end()),
            None => Ex::from(i64::MAX),
        },
    };
    let value = top.then(&x, largest).reduce(op!("aten.amin.default"), &[dim], true);
    let value = Ex::from(p.write(&value)?);
    let Some(places) = ramp(&mut p, &n, dim, t.rank())? else { return Ok(None) };
    let place = value.eq(&x).then(places, -1i64).reduce(op!("aten.amax.default"), &[dim], true);
    let mut results = Vec::new();
    for e in [value, place] {
        let y = p.write(&e)?;
        results.push(if keep { y } else { p.squeeze(&y, dim)? });
    }
    if let Some(first) = results.first_mut() {
        *first = p.cast(&first.clone(), t.dtype)?;
    }
    Ok(Some(Patch::Values(results)))
}

/// Source: torch.kthvalue.
pub(super) fn kthvalue(site: &mut Site<'_>) -> Result {
    let (Some((dim, n)), Some(k)) = (length(site), site.arg("k").as_int()) else { return Ok(None) };
    if k < 1 || site.ranges().bounds(&n).min.is_none_or(|n| n < k) {
        return Ok(None);
    }
    let keep = keepdim(site);
    ranked(site, dim, &Dim::Int(k - 1), keep, false)
}

/// The lower one of two in the middle. Source: torch.median.
pub(super) fn median(site: &mut Site<'_>) -> Result {
    let Some((dim, n)) = length(site) else { return Ok(None) };
    let keep = keepdim(site);
    ranked(site, dim, &middle(&n), keep, true)
}

/// The same among those that are numbers: NaN sorts last. Source: torch.nanmedian.
pub(super) fn nanmedian(site: &mut Site<'_>) -> Result {
    let Some((dim, n)) = length(site) else { return Ok(None) };
    let (keep, x) = (keepdim(site), site.nth(0).clone());
    if site.operand(0).is_none_or(|t| !t.dtype.is_float()) {
        return ranked(site, dim, &middle(&n), keep, false);
    }
    let mut p = Pen(site);
    let numbers = Ex::from(&x).eq(&x).cast(DType::Int64).sum(&[dim], true);
    let middle = Ex::call(op!("aten.div.Tensor_mode"), vec![numbers - 1i64, 2i64.into(), Arg::from("floor").into()]);
    let middle = p.write(&Ex::call(op!("aten.clamp.default"), vec![middle, 0i64.into(), Arg::None.into()]))?;
    let sorted = p.0.call_all(op!("aten.sort.default"), vec![x, Arg::Int(dim as i64), Arg::Bool(false)])?;
    let mut results = Vec::new();
    for v in sorted {
        let one = p.call(op!("aten.gather.default"), vec![Arg::Value(v), Arg::Int(dim as i64), middle.clone()])?;
        results.push(if keep { one } else { p.squeeze(&one, dim)? });
    }
    Ok(Some(Patch::Values(results)))
}

/// The median of everything. Source: torch.median.
pub(super) fn median_of_all(site: &mut Site<'_>) -> Result {
    of_all(site, op!("aten.median.dim"))
}

/// Source: torch.nanmedian.
pub(super) fn nanmedian_of_all(site: &mut Site<'_>) -> Result {
    of_all(site, op!("aten.nanmedian.dim"))
}

fn of_all(site: &mut Site<'_>, op: OpId) -> Result {
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let n = p.ty(&x)?.numel();
    if n.as_int() == Some(0) {
        return Ok(None);
    }
    let Some(flat) = p.view(&x, &[n])? else { return Ok(None) };
    let both = p.0.call_all(op, vec![flat, Arg::Int(0), Arg::Bool(false)])?;
    match both.first() {
        Some(&v) => p.done(Arg::Value(v)),
        None => Ok(None),
    }
}

/// Between the two ranks around `q · (n - 1)`; NaN where one is. Source: torch.quantile.
pub(super) fn quantile(site: &mut Site<'_>) -> Result {
    between_ranks(site, false)
}

/// The same among those that are numbers. Source: torch.nanquantile.
pub(super) fn nanquantile(site: &mut Site<'_>) -> Result {
    between_ranks(site, true)
}

/// Ranks are numbers when the length is, and computed by the program where it is not, or where they differ from row to row. Several
/// of them are a first axis of the result.
fn between_ranks(site: &mut Site<'_>, numbers_only: bool) -> Result {
    let (Some(t), Arg::Str(way), q) = (site.operand(0).cloned(), site.arg("interpolation").clone(), site.arg("q").clone()) else {
        return Ok(None);
    };
    let dim = match site.arg("dim") {
        Arg::None => None,
        d => match d.as_int().and_then(|d| wrap(d, t.rank())) {
            Some(d) => Some(d),
            None => return Ok(None),
        },
    };
    if t.dtype != DType::Float32 || !["linear", "midpoint", "lower", "higher", "nearest"].contains(&&*way) {
        return Ok(None);
    }
    let Some(shape) = site.result().map(|t| t.shape.clone()) else { return Ok(None) };
    let mut p = Pen(site);
    let mut x = p.0.nth(0).clone();
    match dim.filter(|_| t.rank() > 0) {
        None => {
            let Some(flat) = p.view(&x, &[t.numel()])? else { return Ok(None) };
            x = flat;
        }
        Some(d) => {
            let order: Vec<usize> = (0..t.rank()).filter(|&a| a != d).chain([d]).collect();
            x = p.permute(&x, &order)?;
        }
    }
    let t = p.ty(&x)?;
    let Some(last) = t.rank().checked_sub(1) else { return Ok(None) };
    let Some(n) = t.shape.get(last).filter(|n| n.as_int() != Some(0)).cloned() else { return Ok(None) };
    let sorted = p.0.call_all(op!("aten.sort.default"), vec![x.clone(), Arg::Int(last as i64), Arg::Bool(false)])?;
    let Some(&sorted) = sorted.first() else { return Ok(None) };
    let y = match (q.as_float(), n.as_int()) {
        (Some(q), Some(n)) if !numbers_only => {
            let rank = q * (n - 1) as f64;
            let (below, above) = (rank.floor(), rank.ceil());
            let mut one = |k: f64| p.slice(&Arg::Value(sorted), last, Arg::Int(k as i64), Arg::Int(k as i64 + 1)).map(Ex::from);
            match &*way {
                "lower" => one(below)?,
                "higher" => one(above)?,
                "nearest" => one(rank.round_ties_even())?,
                "midpoint" if below != above => Ex::call(op!("aten.lerp.Scalar"), vec![one(below)?, one(above)?, 0.5.into()]),
                _ => Ex::call(op!("aten.lerp.Scalar"), vec![one(below)?, one(above)?, (rank - below).into()]),
            }
        }
        _ => {
            let of_row = |d: Dim| t.shape.iter().take(last).cloned().chain([d]).collect::<Vec<_>>();
            let count = if numbers_only {
                Ex::from(&x).eq(&x).cast(DType::Float32).sum(&[last], true)
            } else {
                let Some(n) = p.0.size(&n) else { return Ok(None) };
                Ex::call(op!("aten.full.default"), vec![Arg::List(Vec::new()).into(), n.into(), Arg::DType(DType::Float32).into()])
            };
            let several = p.0.tensor(&q).map_or(Dim::Int(1), |t| t.numel());
            let rank = ((count - 1.0) * &Ex::from(q)).at_least(0.0);
            let rank = p.write(&rank)?;
            let Some(sizes) = p.0.sizes(&of_row(several)) else { return Ok(None) };
            let rank = Ex::call(op!("aten.expand.default"), vec![rank.into(), sizes.into()]);
            let at = |place: Ex| {
                Ex::call(op!("aten.gather.default"), vec![Arg::Value(sorted).into(), (last as i64).into(), place.cast(DType::Int64)])
            };
            let (low, high) = (at(rank.floor()), at(-(-&rank).floor()));
            match &*way {
                "lower" => low,
                "higher" => high,
                "nearest" => at(rank.round()),
                "midpoint" => Ex::call(op!("aten.lerp.Scalar"), vec![low, high, 0.5.into()]),
                _ => Ex::call(op!("aten.lerp.Tensor"), vec![low, high, &rank - rank.floor()]),
            }
        }
    };
    let y = if numbers_only { y } else { Ex::from(&x).is_nan().reduce(op!("aten.any.dims"), &[last], true).then(f64::NAN, y) };
    let mut y = p.write(&y)?;
    if p.0.tensor(p.0.arg("q")).is_some_and(|q| q.rank() == 1) {
        let order: Vec<usize> = std::iter::once(last).chain(0..last).collect();
        y = p.permute(&y, &order)?;
    }
    match p.view(&y, &shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// Sorted along the first dimension. Source: torch.msort.
pub(super) fn msort(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let both = p.0.call_all(op!("aten.sort.default"), vec![x, Arg::Int(0), Arg::Bool(false)])?;
    match both.first() {
        Some(&v) => p.done(Arg::Value(v)),
        None => Ok(None),
    }
}

/// What stands before the first element of a running operation: a number that changes nothing, or the first element itself.
#[derive(Clone, Copy)]
enum Before {
    Number(f64),
    First,
}

/// What everything so far comes to under an associative operation: after each step, that of twice as many elements. Source: Hillis
/// and Steele, "Data parallel algorithms". As many steps as the longest axis takes; those beyond its length change nothing.
fn running(p: &mut Pen<'_, '_>, mut x: Arg, dim: usize, op: OpId, before: Before) -> Value {
    let t = p.ty(&x)?;
    if t.rank() == 0 {
        return Ok(Some(x));
    }
    let Some(n) = t.shape.get(dim).cloned() else { return Ok(None) };
    let range = p.0.ranges().bounds(&n);
    let (Some(most), Some(end)) = (range.max, p.0.size(&n)) else { return Ok(None) };
    if matches!(before, Before::First) && range.min.is_none_or(|n| n < 1) {
        return Ok(None);
    }
    let mut reach = 1;
    while reach < most {
        let moved = match before {
            Before::Number(c) => {
                let pad = ints((dim + 1..t.rank()).flat_map(|_| [0, 0]).chain([reach, 0]));
                p.call(op!("aten.constant_pad_nd.default"), vec![x.clone(), pad, Arg::Float(c)])?
            }
            Before::First => {
                let first = p.slice(&x, dim, Arg::Int(0), Arg::Int(1))?;
                let shape: Vec<Dim> = t.shape.iter().enumerate().map(|(d, n)| if d == dim { Dim::Int(reach) } else { n.clone() }).collect();
                let Some(sizes) = p.0.sizes(&shape) else { return Ok(None) };
                let first = p.call(op!("aten.expand.default"), vec![first, sizes])?;
                p.call(op!("aten.cat.default"), vec![Arg::List(vec![first, x.clone()]), Arg::Int(dim as i64)])?
            }
        };
        let moved = p.slice(&moved, dim, Arg::Int(0), end.clone())?;
        x = p.call(op, args(op, [x, moved], &[]))?;
        reach *= 2;
    }
    Ok(Some(x))
}

fn axis(site: &Site<'_>) -> Option<usize> {
    wrap(site.arg("dim").as_int()?, site.operand(0)?.rank())
}

/// Source: torch.cumprod.
pub(super) fn cumprod(site: &mut Site<'_>) -> Result {
    let Some(dim) = axis(site) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.operand(0)?;
    let x = p.write(&x)?;
    match running(&mut p, x, dim, op!("aten.mul.Tensor"), Before::Number(1.0))? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// Source: torch.logcumsumexp.
pub(super) fn logcumsumexp(site: &mut Site<'_>) -> Result {
    let Some(dim) = axis(site) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.operand(0)?;
    let x = p.write(&x)?;
    match running(&mut p, x, dim, op!("aten.logaddexp.default"), Before::Number(f64::NEG_INFINITY))? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// Source: torch.cummax.
pub(super) fn cummax(site: &mut Site<'_>) -> Result {
    extreme(site, op!("aten.maximum.default"), f64::NEG_INFINITY)
}

/// Source: torch.cummin.
pub(super) fn cummin(site: &mut Site<'_>) -> Result {
    extreme(site, op!("aten.minimum.default"), f64::INFINITY)
}

/// Running extremes, and where they stand: the last place that equals the one so far.
fn extreme(site: &mut Site<'_>, op: OpId, least: f64) -> Result {
    let (Some(dim), Some(t)) = (axis(site), site.operand(0).cloned()) else { return Ok(None) };
    let placed = site.node().outputs.get(1).is_some_and(|&v| site.graph().value(v).use_count() > 0);
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let before = if t.dtype.is_float() { Before::Number(least) } else { Before::First };
    let Some(y) = running(&mut p, x.clone(), dim, op, before)? else { return Ok(None) };
    let mut results = vec![y.clone(), Arg::None];
    if placed {
        let Some(n) = t.shape.get(dim) else { return Ok(None) };
        let Some(ramp) = ramp(&mut p, n, dim, t.rank())? else { return Ok(None) };
        let x = Ex::from(x);
        let mut new = x.eq(&y);
        if t.dtype.is_float() {
            new = new.or(x.is_nan());
        }
        let at = p.write(&new.then(ramp, -1i64))?;
        let Some(at) = running(&mut p, at, dim, op!("aten.maximum.default"), Before::Number(-1.0))? else { return Ok(None) };
        results[1] = at;
    }
    Ok(Some(Patch::Values(results)))
}

/// Each element minus the one before. Source: torch.diff.
pub(super) fn diff(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(times)) = (site.operand(0).cloned(), site.arg("n").as_int()) else { return Ok(None) };
    let Some(dim) = site.arg("dim").as_int().and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    let ends = [site.arg("prepend").clone(), site.nth(0).clone(), site.arg("append").clone()];
    let parts: Vec<Arg> = ends.into_iter().filter(|a| *a != Arg::None).collect();
    if t.rank() == 0 || !(1..=16).contains(&times) {
        return Ok(None);
    }
    let minus = if t.dtype == DType::Bool { op!("aten.logical_xor.default") } else { op!("aten.sub.Tensor") };
    let mut p = Pen(site);
    let mut x = match parts.as_slice() {
        [one] => one.clone(),
        _ => p.call(op!("aten.cat.default"), vec![Arg::List(parts), Arg::Int(dim as i64)])?,
    };
    for _ in 0..times {
        let Some(n) = p.ty(&x)?.shape.get(dim).cloned() else { return Ok(None) };
        let (Some(end), Some(last)) = (p.0.size(&n), p.0.size(&n.minus(&Dim::Int(1)))) else { return Ok(None) };
        let (after, before) = (p.slice(&x, dim, Arg::Int(1), end)?, p.slice(&x, dim, Arg::Int(0), last)?);
        x = p.call(minus, args(minus, [after, before], &[]))?;
    }
    p.done(x)
}

/// The largest and where it stands. Source: torch.max.
pub(super) fn max(site: &mut Site<'_>) -> Result {
    with_place(site, op!("aten.amax.default"), op!("aten.argmax.default"))
}

/// Source: torch.min.
pub(super) fn min(site: &mut Site<'_>) -> Result {
    with_place(site, op!("aten.amin.default"), op!("aten.argmin.default"))
}

fn with_place(site: &mut Site<'_>, value: OpId, place: OpId) -> Result {
    let (Some(dim), keep) = (axis(site), keepdim(site)) else { return Ok(None) };
    let x = site.nth(0).clone();
    let mut p = Pen(site);
    let dims = if p.ty(&x)?.rank() == 0 { vec![] } else { vec![dim] };
    let y = p.reduce(value, &x, &dims, keep)?;
    let at = p.call(place, vec![x, Arg::Int(dim as i64), Arg::Bool(keep)])?;
    Ok(Some(Patch::Values(vec![y, at])))
}

/// Both ends. Source: torch.aminmax.
pub(super) fn aminmax(site: &mut Site<'_>) -> Result {
    let Some(rank) = site.operand(0).map(|t| t.rank()) else { return Ok(None) };
    let dims: Vec<usize> = match site.arg("dim") {
        Arg::None => (0..rank).collect(),
        d => match d.as_int().and_then(|d| wrap(d, rank)) {
            Some(d) if rank > 0 => vec![d],
            Some(_) => vec![],
            None => return Ok(None),
        },
    };
    let keep = keepdim(site);
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let (low, high) = (p.reduce(op!("aten.amin.default"), &x, &dims, keep)?, p.reduce(op!("aten.amax.default"), &x, &dims, keep)?);
    Ok(Some(Patch::Values(vec![low, high])))
}

/// How many boundaries lie below each number. Source: torch.bucketize.
pub(super) fn bucketize(site: &mut Site<'_>) -> Result {
    let right = site.arg("right").as_bool() == Some(true);
    let (x, bounds) = (site.nth(0).clone(), site.nth(1).clone());
    sought(site, &bounds, &x, right)
}

/// The same in each row of a sorted sequence. Source: torch.searchsorted.
pub(super) fn searchsorted(site: &mut Site<'_>) -> Result {
    if *site.arg("sorter") != Arg::None {
        return Ok(None);
    }
    let right = site.arg("right").as_bool() == Some(true) || matches!(site.arg("side"), Arg::Str(s) if &**s == "right");
    let (bounds, x) = (site.nth(0).clone(), site.nth(1).clone());
    sought(site, &bounds, &x, right)
}

fn sought(site: &mut Site<'_>, bounds: &Arg, x: &Arg, right: bool) -> Result {
    let mut p = Pen(site);
    let rows = p.ty(bounds)?.rank();
    // A number is sought in one row; rows beside each other each have numbers of their own.
    let (sorted, x) = match p.0.tensor(x).map(|t| t.rank()) {
        None if rows == 1 => (Ex::from(bounds), Ex::from(x)),
        Some(rank) if rows == 1 => (Ex::from(bounds), Ex::from(x).unsqueeze(rank as i64)),
        Some(rank) if rows == rank && rank > 0 => (Ex::from(bounds).unsqueeze(rank as i64 - 1), Ex::from(x).unsqueeze(rank as i64)),
        _ => return Ok(None),
    };
    // NaN lies behind everything.
    let below = if right { sorted.gt(x).not() } else { sorted.ge(x).not() };
    let below = p.write(&below)?;
    let Some(last) = p.ty(&below)?.rank().checked_sub(1) else { return Ok(None) };
    p.ends(&Ex::from(below).sum(&[last], false))
}

/// Whether an element is among the others. Source: torch.isin.
pub(super) fn isin(site: &mut Site<'_>) -> Result {
    let invert = site.arg("invert").as_bool() == Some(true);
    let (x, among) = (site.nth(0).clone(), site.nth(1).clone());
    let mut p = Pen(site);
    let Some(rank) = p.0.tensor(&x).map(|t| t.rank()) else { return Ok(None) };
    let found = match p.0.tensor(&among).map(|t| t.numel()) {
        None => Ex::from(x).eq(among),
        Some(n) => {
            let Some(flat) = p.view(&among, &[n])? else { return Ok(None) };
            Ex::from(x).unsqueeze(rank as i64).eq(flat).reduce(op!("aten.any.dims"), &[rank], false)
        }
    };
    p.ends(&if invert { found.not() } else { found })
}
