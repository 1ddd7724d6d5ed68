//! Reading and writing where indices say, beyond what `index.rs` brings down to copies along an axis.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::diagonal::ramp;
use super::expr::Ex;
use super::index::with_axes;
use super::pen::Pen;
use crate::calls::{ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;
type Value = std::result::Result<Option<Arg>, Error>;

/// Of the tensor taken flat. Source: torch.take.
pub(super) fn take(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let (x, at) = (p.0.nth(0).clone(), p.0.nth(1).clone());
    let n = p.ty(&x)?.numel();
    let Some(flat) = p.view(&x, &[n])? else { return Ok(None) };
    let y = p.call(op!("aten.index.Tensor"), vec![flat, Arg::List(vec![at])])?;
    p.done(y)
}

/// Without a dimension, of the tensor taken flat. Source: torch.take_along_dim.
pub(super) fn take_along_dim(site: &mut Site<'_>) -> Result {
    if *site.arg("dim") != Arg::None {
        return Ok(None);
    }
    let mut p = Pen(site);
    let (x, at) = (p.0.nth(0).clone(), p.0.nth(1).clone());
    let (n, m) = (p.ty(&x)?.numel(), p.ty(&at)?.numel());
    let (Some(x), Some(at)) = (p.view(&x, &[n])?, p.view(&at, &[m])?) else { return Ok(None) };
    let y = p.call(op!("aten.index.Tensor"), vec![x, Arg::List(vec![at])])?;
    p.done(y)
}

/// Into the tensor taken flat. Source: torch.Tensor.put_.
pub(super) fn put(site: &mut Site<'_>) -> Result {
    let Some(t) = site.operand(0).cloned() else { return Ok(None) };
    let accumulate = site.arg("accumulate").clone();
    let mut p = Pen(site);
    let [x, at, values] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    let m = p.ty(&at)?.numel();
    let (Some(flat), Some(at), Some(values)) =
        (p.view(&x, &[t.numel()])?, p.view(&at, std::slice::from_ref(&m))?, p.view(&values, std::slice::from_ref(&m))?)
    else {
        return Ok(None);
    };
    let y = p.call(op!("aten.index_put.default"), vec![flat, Arg::List(vec![at]), values, accumulate])?;
    match p.view(&y, &t.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// The source's elements one after another where the mask is true: each is the as many-th as true ones came before. Source:
/// torch.Tensor.masked_scatter_.
pub(super) fn masked_scatter(site: &mut Site<'_>) -> Result {
    // The tensor is broadcast too.
    let Some(t) = site.result().cloned() else { return Ok(None) };
    let mut p = Pen(site);
    let [x, mask, source] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    let from = p.ty(&source)?.numel();
    if from == Dim::Int(0) {
        // There is nothing to write, so the mask is nowhere set.
        let Some(sizes) = p.0.sizes(&t.shape) else { return Ok(None) };
        let y = p.call(op!("aten.expand.default"), vec![x, sizes])?;
        return p.done(y);
    }
    let Some(last) = from.as_int().filter(|&n| n > 0).map(|n| n - 1) else { return Ok(None) };
    let Some(sizes) = p.0.sizes(&t.shape) else { return Ok(None) };
    let mask = if p.ty(&mask)?.shape == t.shape { mask } else { p.call(op!("aten.expand.default"), vec![mask, sizes])? };
    let (Some(flat), Some(source)) = (p.view(&mask, &[t.numel()])?, p.view(&source, &[from])?) else { return Ok(None) };
    let before = p.call(op!("aten.cumsum.default"), vec![flat, Arg::Int(0)])?;
    let at = Ex::call(op!("aten.clamp.default"), vec![Ex::from(before) - 1i64, 0i64.into(), last.into()]);
    let at = p.write(&at)?;
    let found = p.call(op!("aten.index_select.default"), vec![source, Arg::Int(0), at])?;
    let Some(found) = p.view(&found, &t.shape)? else { return Ok(None) };
    let found = p.cast(&found, t.dtype)?;
    p.ends(&Ex::from(mask).then(found, x))
}

/// One where the class stands. Source: torch.nn.functional.one_hot.
pub(super) fn one_hot(site: &mut Site<'_>) -> Result {
    let (Some(rank), Some(n)) = (site.operand(0).map(|t| t.rank()), site.nth(1).as_int().filter(|&n| n > 0)) else { return Ok(None) };
    let mut p = Pen(site);
    let x = Ex::from(p.0.nth(0)).unsqueeze(rank as i64);
    match ramp(&mut p, &Dim::Int(n), 0, 1)? {
        Some(classes) => p.ends(&x.eq(classes)),
        None => Ok(None),
    }
}

/// For each of `n` places the element before which as many repetitions end.
fn repeated(p: &mut Pen<'_, '_>, repeats: Arg, n: &Dim) -> std::result::Result<Option<Ex>, Error> {
    let ends = p.call(op!("aten.cumsum.default"), vec![repeats, Arg::Int(0)])?;
    Ok(ramp(p, n, 0, 2)?.map(|places| Ex::from(ends).le(places).sum(&[1], false)))
}

/// As many places as were said. Source: torch.repeat_interleave.
pub(super) fn repeat_places(site: &mut Site<'_>) -> Result {
    let (Some(to), repeats) = (site.result().cloned(), site.nth(0).clone()) else { return Ok(None) };
    let Some(n) = to.shape.first().filter(|_| *site.arg("output_size") != Arg::None) else { return Ok(None) };
    let mut p = Pen(site);
    match repeated(&mut p, repeats, n)? {
        Some(at) => p.ends(&at),
        None => Ok(None),
    }
}

/// Each place of the result comes from the element before which as many repetitions end. Source: torch.repeat_interleave.
pub(super) fn repeat_interleave(site: &mut Site<'_>) -> Result {
    let (Some(mut t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let (mut x, repeats) = (site.nth(0).clone(), site.nth(1).clone());
    if *site.arg("output_size") == Arg::None {
        return Ok(None);
    }
    let dim = site.arg("dim").clone();
    let mut p = Pen(site);
    if dim == Arg::None {
        let Some(flat) = p.view(&x, &[t.numel()])? else { return Ok(None) };
        x = flat;
        t = p.ty(&x)?;
    }
    let Some(dim) = dim.as_int().or(Some(0)).and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    let (Some(n), Some(m)) = (to.shape.get(dim).cloned(), t.shape.get(dim).cloned()) else { return Ok(None) };
    let Some(sizes) = p.0.sizes(&[m]) else { return Ok(None) };
    let repeats = p.call(op!("aten.expand.default"), vec![repeats, sizes])?;
    let Some(at) = repeated(&mut p, repeats, &n)? else { return Ok(None) };
    let at = p.write(&at)?;
    let y = p.call(op!("aten.index_select.default"), vec![x, Arg::Int(dim as i64), at])?;
    p.done(y)
}

/// Sums, means or largest of rows in bags. A matrix says which row is in which bag. Source: torch.nn.EmbeddingBag.
pub(super) fn embedding_bag(site: &mut Site<'_>) -> Result {
    let outputs = site.node().outputs.clone();
    if outputs.iter().skip(1).any(|&v| site.graph().value(v).use_count() > 0) {
        return Ok(None);
    }
    let (Some(mode), Some(table)) = (site.arg("mode").as_int(), site.operand(0).cloned()) else { return Ok(None) };
    let padding = site.arg("padding_idx").as_int().and_then(|i| {
        let rows = table.shape.first().and_then(Dim::as_int);
        if i < 0 { rows.map(|n| i + n).filter(|_| site.op() == op!("aten.embedding_bag.padding_idx")) } else { Some(i) }
    });
    let (weights, ended) = (site.arg("per_sample_weights").clone(), site.arg("include_last_offset").as_bool() == Some(true));
    let mut p = Pen(site);
    let [table, indices, offsets] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    let (n, Some(m)) = (p.ty(&indices)?.numel(), p.ty(&offsets)?.numel().as_int()) else { return Ok(None) };
    if p.ty(&indices)?.rank() != 1 || m < 1 {
        return Ok(None);
    }
    let Some(places) = ramp(&mut p, &n, 0, 1)? else { return Ok(None) };
    let bags = if ended { m - 1 } else { m };
    let first = p.slice(&offsets, 0, Arg::Int(0), Arg::Int(bags))?;
    let next = p.slice(&offsets, 0, Arg::Int(1), Arg::Int(m))?;
    // The last bag goes to the end, unless the end is among the offsets.
    let next = if ended {
        next
    } else {
        let Some(end) = p.0.size(&n) else { return Ok(None) };
        let dtype = p.ty(&next)?.dtype;
        let end = p.call(op!("aten.full.default"), vec![ints([1]), end, Arg::DType(dtype)])?;
        p.call(op!("aten.cat.default"), vec![Arg::List(vec![next, end]), Arg::Int(0)])?
    };
    let mut member = Ex::from(&places).ge(Ex::from(first).unsqueeze(1i64)).and(Ex::from(&places).lt(Ex::from(next).unsqueeze(1i64)));
    if let Some(padding) = padding {
        member = member.and(Ex::from(&indices).ne(padding));
    }
    let member = Ex::from(p.write(&member)?);
    let rows = p.call(op!("aten.embedding.default"), vec![table, indices])?;
    let mut rows = Ex::from(p.wide(&rows)?);
    if weights != Arg::None {
        rows = rows * Ex::from(weights).unsqueeze(1i64);
    }
    let number = member.cast(DType::Float32);
    let y = match mode {
        0 | 1 => {
            let sums = Ex::call(op!("aten.mm.default"), vec![number.clone(), rows]);
            if mode == 0 { sums } else { sums / number.sum(&[1], true).at_least(1.0) }
        }
        2 => {
            let each = member.unsqueeze(2i64).then(rows.unsqueeze(0i64), f64::NEG_INFINITY).reduce(op!("aten.amax.default"), &[1], false);
            // A bag of nothing is zero.
            member.reduce(op!("aten.any.dims"), &[1], true).then(each, 0.0)
        }
        _ => return Ok(None),
    };
    let Some(dtype) = p.0.result().map(|t| t.dtype) else { return Ok(None) };
    let y = p.write(&y)?;
    let mut values = vec![p.cast(&y, dtype)?];
    values.resize(outputs.len(), Arg::None);
    Ok(Some(Patch::Values(values)))
}

/// How elements that meet are joined.
#[derive(Clone, Copy, PartialEq)]
enum Join {
    Sum,
    Product,
    Mean,
    Largest,
    Smallest,
}

fn join(word: &Arg) -> Option<Join> {
    let Arg::Str(word) = word else { return None };
    Some(match &**word {
        "sum" | "add" => Join::Sum,
        "prod" | "multiply" => Join::Product,
        "mean" => Join::Mean,
        "amax" => Join::Largest,
        "amin" => Join::Smallest,
        _ => return None,
    })
}

/// More comparisons of places than this take more memory than a scatter is worth.
const MOST_COMPARISONS: i64 = 1 << 24;

/// Source: torch.Tensor.scatter_reduce_.
pub(super) fn scatter_reduce(site: &mut Site<'_>) -> Result {
    let (Some(how), own) = (join(site.arg("reduce")), site.arg("include_self").as_bool() != Some(false)) else { return Ok(None) };
    let (x, at, source) = (site.nth(0).clone(), site.nth(2).clone(), site.nth(3).clone());
    reduced(site, x, at, source, how, own)
}

/// A number instead of a source. Source: torch.Tensor.scatter_ with `reduce`.
pub(super) fn scatter_value(site: &mut Site<'_>) -> Result {
    let (Some(how), Some(t), Some(index)) = (join(site.arg("reduce")), site.operand(0).cloned(), site.operand(2).cloned()) else {
        return Ok(None);
    };
    let (x, at, value) = (site.nth(0).clone(), site.nth(2).clone(), site.nth(3).clone());
    let Some(sizes) = site.sizes(&index.shape) else { return Ok(None) };
    let source = Pen(site).call(op!("aten.full.default"), vec![sizes, value, Arg::DType(t.dtype)])?;
    reduced(site, x, at, source, how, true)
}

/// Whole rows. Source: torch.Tensor.index_reduce_.
pub(super) fn index_reduce(site: &mut Site<'_>) -> Result {
    let (Some(how), own) = (join(site.arg("reduce")), site.arg("include_self").as_bool() != Some(false)) else { return Ok(None) };
    let (Some(t), Some(from)) = (site.operand(0).cloned(), site.operand(3).cloned()) else { return Ok(None) };
    let Some(dim) = site.nth(1).as_int().and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    let (x, at, source) = (site.nth(0).clone(), site.nth(2).clone(), site.nth(3).clone());
    let mut p = Pen(site);
    let n = p.ty(&at)?.numel();
    let shape: Vec<Dim> = (0..t.rank()).map(|d| if d == dim { n.clone() } else { Dim::Int(1) }).collect();
    let (Some(at), Some(sizes)) = (p.view(&at, &shape)?, p.0.sizes(&from.shape)) else { return Ok(None) };
    let at = p.call(op!("aten.expand.default"), vec![at, sizes])?;
    reduced(site, x, at, source, how, own)
}

/// Sums are added where they belong; for the others every place looks at every source along the dimension.
fn reduced(site: &mut Site<'_>, x: Arg, at: Arg, source: Arg, how: Join, own: bool) -> Result {
    let (Some(t), Some(index)) = (site.tensor(&x).cloned(), site.tensor(&at).cloned()) else { return Ok(None) };
    let Some(dim) = site.nth(1).as_int().and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    let mut p = Pen(site);
    if t.rank() == 0 || index.rank() == 0 {
        return with_axes(p.0);
    }
    if t.dtype == DType::Bool {
        return Ok(None);
    }
    if how == Join::Sum && own {
        let y = p.call(op!("aten.scatter_add.default"), vec![x, Arg::Int(dim as i64), at, source])?;
        return p.done(y);
    }
    let (sizes, counts) = (t.shape.clone(), index.shape.clone());
    if matches!(how, Join::Sum | Join::Mean) {
        return summed(&mut p, [x, at, source], dim, how, own);
    }
    let most = |n: &Dim| n.as_int().or_else(|| p.0.ranges().bounds(n).max);
    let comparisons = counts.iter().chain(sizes.get(dim)).try_fold(1i64, |all, n| all.checked_mul(most(n)?));
    if comparisons.is_none_or(|n| n > MOST_COMPARISONS) {
        return Ok(None);
    }
    let Some(ends) = p.0.sizes(&counts).and_then(|a| a.as_list().map(<[Arg]>::to_vec)) else { return Ok(None) };
    let end = |axis: usize| ends.get(axis).cloned().unwrap_or(Arg::None);
    // Only the part of the tensor that has an index, and of the source as much.
    let (mut part, mut from) = (x.clone(), source);
    for (axis, (n, count)) in sizes.iter().zip(&counts).enumerate() {
        if axis != dim && n != count {
            part = p.slice(&part, axis, Arg::Int(0), end(axis))?;
        }
        if p.ty(&from)?.shape.get(axis) != Some(count) {
            from = p.slice(&from, axis, Arg::Int(0), end(axis))?;
        }
    }
    let Some(written) = joined(&mut p, &part, &at, &from, dim, how, own)? else { return Ok(None) };
    // Back to where the part was cut from, from the innermost cut out.
    let mut y = written;
    let cut: Vec<usize> = (0..sizes.len()).filter(|&a| a != dim && sizes.get(a) != counts.get(a)).collect();
    for (i, &axis) in cut.iter().enumerate().rev() {
        let mut around = x.clone();
        for &outer in cut.get(..i).unwrap_or_default() {
            around = p.slice(&around, outer, Arg::Int(0), end(outer))?;
        }
        let end = end(axis);
        y = p.call(op!("aten.slice_scatter.default"), vec![around, y, Arg::Int(axis as i64), Arg::Int(0), end, Arg::Int(1)])?;
    }
    p.done(y)
}

/// Sums and means: added where they belong, to nothing where the tensor does not count, and counted.
fn summed(p: &mut Pen<'_, '_>, [x, at, source]: [Arg; 3], dim: usize, how: Join, own: bool) -> Result {
    let (t, index) = (p.ty(&x)?, p.ty(&at)?);
    let wide = match t.dtype {
        DType::Float16 | DType::BFloat16 => DType::Float32,
        other => other,
    };
    let (Some(sizes), Some(lengths)) = (p.0.sizes(&t.shape), p.0.sizes(&index.shape)) else { return Ok(None) };
    let add = op!("aten.scatter_add.default");
    let axis = Arg::Int(dim as i64);
    let zero = p.call(op!("aten.full.default"), vec![sizes, Arg::Int(0), Arg::DType(DType::Int64)])?;
    let one = p.call(op!("aten.full.default"), vec![lengths, Arg::Int(1), Arg::DType(DType::Int64)])?;
    let count = Ex::from(p.call(add, vec![zero, axis.clone(), at.clone(), one])?);
    let float = t.dtype.is_float();
    let zero = if float { Ex::from(0.0) } else { Ex::from(0i64) };
    let onto = if own { Ex::from(&x) } else { count.gt(0i64).then(zero, &x) };
    let (onto, source) = (p.write(&onto.cast(wide))?, p.cast(&source, wide)?);
    let sum = Ex::from(p.call(add, vec![onto, axis, at, source])?);
    let count = if own { count + 1i64 } else { Ex::call(op!("aten.clamp.default"), vec![count, 1i64.into(), Arg::None.into()]) };
    p.ends(&match how {
        Join::Mean if float => sum / count,
        Join::Mean => Ex::call(op!("aten.div.Tensor_mode"), vec![sum, count, Arg::from("floor").into()]),
        _ => sum,
    })
}

fn joined(p: &mut Pen<'_, '_>, x: &Arg, at: &Arg, from: &Arg, dim: usize, how: Join, own: bool) -> Value {
    let t = p.ty(x)?;
    let Some(n) = t.shape.get(dim).cloned() else { return Ok(None) };
    // [.., place, source, ..]
    let Some(places) = ramp(p, &n, dim, t.rank() + 1)? else { return Ok(None) };
    let at = Ex::from(at);
    let hit = Ex::from(p.write(&at.unsqueeze(dim as i64).eq(places))?);
    let float = t.dtype.is_float();
    let wide = match t.dtype {
        DType::Float16 | DType::BFloat16 => DType::Float32,
        other => other,
    };
    let number = |v: f64| if float { Ex::from(v) } else { Ex::from(v as i64) };
    let extreme = |low: bool| match t.dtype {
        d if d.is_float() => Some(Ex::from(if low { f64::INFINITY } else { f64::NEG_INFINITY })),
        DType::UInt8 => Some(Ex::from(if low { 255i64 } else { 0 })),
        DType::Int8 => Some(Ex::from(if low { 127i64 } else { -128 })),
        DType::Int32 => Some(Ex::from(i64::from(if low { i32::MAX } else { i32::MIN }))),
        DType::Int64 => Some(Ex::from(if low { i64::MAX } else { i64::MIN })),
        _ => None,
    };
    let (x, from) = (Ex::from(x).cast(wide), Ex::from(from).cast(wide).unsqueeze(dim as i64));
    let any = hit.reduce(op!("aten.any.dims"), &[dim + 1], false);
    let Some(neutral) = (match how {
        // These are added.
        Join::Sum | Join::Mean => None,
        Join::Product => Some(number(1.0)),
        Join::Largest => extreme(false),
        Join::Smallest => extreme(true),
    }) else {
        return Ok(None);
    };
    let each = hit.then(from, neutral);
    let y = match how {
        Join::Sum | Join::Mean => return Ok(None),
        Join::Product => {
            // A product has one dimension.
            let product = Ex::call(op!("aten.prod.dim_int"), vec![each, (dim as i64 + 1).into(), Arg::Bool(false).into()]);
            if own { product * &x } else { product }
        }
        Join::Largest => {
            let largest = each.reduce(op!("aten.amax.default"), &[dim + 1], false);
            if own { largest.max(&x) } else { largest }
        }
        Join::Smallest => {
            let smallest = each.reduce(op!("aten.amin.default"), &[dim + 1], false);
            if own { smallest.min(&x) } else { smallest }
        }
    };
    // Where nothing came the tensor stays.
    let y = if own { y } else { any.then(y, &x) };
    let y = p.write(&y)?;
    p.cast(&y, t.dtype).map(Some)
}

/// The part that has indices added to, and put back. Source: torch.Tensor.scatter_add_.
pub(super) fn scatter_add(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(index)) = (site.operand(0).cloned(), site.operand(2).cloned()) else { return Ok(None) };
    let Some(dim) = site.nth(1).as_int().and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    let [x, at, source] = [0, 2, 3].map(|i| site.nth(i).clone());
    if t.rank() == 0 || index.rank() == 0 {
        return with_axes(site);
    }
    // One axis at a time; the inner call comes back here for the next.
    let Some(axis) = (0..t.rank()).find(|&a| a != dim && t.shape.get(a) != index.shape.get(a)) else { return Ok(None) };
    let mut p = Pen(site);
    let Some(end) = index.shape.get(axis).cloned().and_then(|n| p.0.size(&n)) else { return Ok(None) };
    let part = p.slice(&x, axis, Arg::Int(0), end.clone())?;
    let y = p.call(op!("aten.scatter_add.default"), vec![part, Arg::Int(dim as i64), at, source])?;
    let y = p.call(op!("aten.slice_scatter.default"), vec![x, y, Arg::Int(axis as i64), Arg::Int(0), end, Arg::Int(1)])?;
    p.done(y)
}
