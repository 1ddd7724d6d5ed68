//! Operators that read or write where an index says.
//!
//! Those that write come down to `index_copy` or `scatter_add` along one axis, over a view of the tensor if several axes are
//! indexed. Where an index names a place twice, torch leaves open which value stays; here it is the last.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, Type};
use etx_ir::op;
use etx_ir::sym::{Dim, Expr, Func};

use super::pen::Pen;
use crate::calls::{args, ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;
type Value = std::result::Result<Option<Arg>, Error>;

/// `x[indices] = values`, or `+=`. Source: torch.Tensor.index_put_.
pub(super) fn index_put(site: &mut Site<'_>) -> Result {
    let Some(t) = site.operand(0).cloned() else { return Ok(None) };
    let accumulate = site.arg("accumulate").as_bool().unwrap_or(false);
    let (x, values) = (site.nth(0).clone(), site.nth(2).clone());
    let Some(list) = site.nth(1).as_list().map(<[Arg]>::to_vec) else { return Ok(None) };
    let mut given: Vec<(usize, Arg)> = list.into_iter().enumerate().filter(|(_, a)| !matches!(a, Arg::None)).collect();
    let mut p = Pen(site);
    if let [(0, mask)] = given.as_slice()
        && matches!(p.ty(mask)?.dtype, DType::Bool)
    {
        return masked(p, &x, &mask.clone(), &values, accumulate);
    }
    for (_, index) in &mut given {
        if !p.ty(index)?.dtype.is_int() {
            return Ok(None);
        }
        *index = p.cast(index, DType::Int64)?;
    }
    let Some((first, index)) = given.first().cloned() else { return Ok(None) };
    // One vector along one axis is a copy along that axis, which a cache can do in place.
    if let ([_], 1, false) = (given.as_slice(), p.ty(&index)?.rank(), accumulate) {
        let mut shape = t.shape.clone();
        let Some(d) = shape.get_mut(first) else { return Ok(None) };
        *d = p.ty(&index)?.numel();
        let Some(source) = expanded(&mut p, &values, &shape)? else { return Ok(None) };
        let source = p.cast(&source, t.dtype)?;
        let y = p.call(op!("aten.index_copy.default"), vec![x, Arg::Int(first as i64), index, source])?;
        return p.done(y);
    }
    let axes: Vec<usize> = given.iter().map(|(a, _)| *a).collect();
    let adjacent = axes.windows(2).all(|w| matches!(w, [a, b] if a + 1 == *b));
    let rest: Vec<usize> = (0..t.rank()).filter(|a| !axes.contains(a)).collect();
    let Some(at) = place(&mut p, &t.shape, &given)? else { return Ok(None) };
    let at_shape = p.ty(&at)?.shape;
    let rest_shape: Vec<Dim> = rest.iter().filter_map(|&a| t.shape.get(a).cloned()).collect();
    // Values have the shape that reading with the same index would give; bring the index axes to the front.
    let before = if adjacent { first.min(rest.len()) } else { 0 };
    let mut shape: Vec<Dim> = rest_shape.iter().take(before).cloned().collect();
    shape.extend(at_shape.iter().cloned());
    shape.extend(rest_shape.iter().skip(before).cloned());
    let Some(source) = expanded(&mut p, &values, &shape)? else { return Ok(None) };
    let mut order: Vec<usize> = (before..before + at_shape.len()).collect();
    order.extend((0..before).chain(before + at_shape.len()..shape.len()));
    let source = p.permute(&source, &order)?;
    let source = p.cast(&source, t.dtype)?;
    let count = Dim::product(&at_shape);
    let mut flat: Vec<Dim> = vec![count.clone()];
    flat.extend(rest_shape.iter().cloned());
    let (Some(source), Some(at)) = (p.view(&source, &flat)?, p.view(&at, &[count])?) else { return Ok(None) };
    let mut front = axes.clone();
    front.extend(&rest);
    let moved = p.permute(&x, &front)?;
    let moved_shape = p.ty(&moved)?.shape;
    let mut joined = vec![Dim::product(axes.iter().filter_map(|&a| t.shape.get(a)))];
    joined.extend(rest_shape);
    let Some(table) = p.view(&moved, &joined)? else { return Ok(None) };
    let written = if accumulate {
        let Some(spread) = along_rows(&mut p, &at, &flat)? else { return Ok(None) };
        p.call(op!("aten.scatter_add.default"), vec![table, Arg::Int(0), spread, source])?
    } else {
        p.call(op!("aten.index_copy.default"), vec![table, Arg::Int(0), at, source])?
    };
    let Some(y) = p.view(&written, &moved_shape)? else { return Ok(None) };
    let mut back = vec![0; front.len()];
    for (i, &a) in front.iter().enumerate() {
        if let Some(b) = back.get_mut(a) {
            *b = i;
        }
    }
    let y = p.permute(&y, &back)?;
    p.done(y)
}

/// The place that indices of several axes name among all combinations of those axes.
fn place(p: &mut Pen<'_, '_>, shape: &[Dim], given: &[(usize, Arg)]) -> Value {
    let mut at: Option<Arg> = None;
    for (axis, index) in given {
        let Some(n) = shape.get(*axis).and_then(Dim::as_int) else { return Ok(None) };
        let low = p.call(op!("aten.lt.Scalar"), vec![index.clone(), Arg::Int(0)])?;
        let up = p.add(index, n)?;
        let index = p.select(&low, &up, index)?;
        at = Some(match at {
            None => index,
            Some(before) => {
                let scaled = p.mul(&before, n)?;
                p.add(&scaled, &index)?
            }
        });
    }
    Ok(at)
}

/// `x[i, :, j]`: the indexed axes seen as one, which a single index picks from. Adjacent axes stay where they are, others come to the
/// front. Source: torch's advanced indexing, which is NumPy's.
pub(super) fn index(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(list)) = (site.operand(0).cloned(), site.nth(1).as_list().map(<[Arg]>::to_vec)) else { return Ok(None) };
    let x = site.nth(0).clone();
    let mut given: Vec<(usize, Arg)> = list.into_iter().enumerate().filter(|(_, a)| !matches!(a, Arg::None)).collect();
    let mut p = Pen(site);
    for (_, index) in &mut given {
        if !p.ty(index)?.dtype.is_int() {
            return Ok(None);
        }
        *index = p.cast(index, DType::Int64)?;
    }
    let axes: Vec<usize> = given.iter().map(|(a, _)| *a).collect();
    let &[first, _, ..] = axes.as_slice() else { return Ok(None) };
    let adjacent = axes.windows(2).all(|w| matches!(w, [a, b] if a + 1 == *b));
    let Some(at) = place(&mut p, &t.shape, &given)? else { return Ok(None) };
    let rest: Vec<usize> = (0..t.rank()).filter(|a| !axes.contains(a)).collect();
    let before = if adjacent { first } else { 0 };
    let moved = if adjacent { x } else { p.permute(&x, &[axes.as_slice(), rest.as_slice()].concat())? };
    let mut joined: Vec<Dim> = rest.iter().filter_map(|&a| t.shape.get(a).cloned()).collect();
    joined.insert(before.min(joined.len()), Dim::product(axes.iter().filter_map(|&a| t.shape.get(a))));
    let Some(table) = p.view(&moved, &joined)? else { return Ok(None) };
    let mut indices = vec![Arg::None; before];
    indices.push(at);
    let y = p.call(op!("aten.index.Tensor"), vec![table, Arg::List(indices)])?;
    p.done(y)
}

/// Where a mask is true, one value (or values that broadcast over all of it).
fn masked(mut p: Pen<'_, '_>, x: &Arg, mask: &Arg, values: &Arg, accumulate: bool) -> Result {
    let (t, m, v) = (p.ty(x)?, p.ty(mask)?, p.ty(values)?);
    // More than one value means one for each place the mask has, which has no shape of its own.
    if v.numel() != Dim::Int(1) || m.shape.len() > t.shape.len() {
        return Ok(None);
    }
    let mut shape = m.shape.clone();
    shape.extend(t.shape.iter().skip(m.shape.len()).map(|_| Dim::Int(1)));
    let Some(mask) = p.view(mask, &shape)? else { return Ok(None) };
    let Some(value) = p.view(values, &[])? else { return Ok(None) };
    let value = p.cast(&value, t.dtype)?;
    let new = if accumulate { p.add(x, &value)? } else { value };
    let y = p.select(&mask, &new, x)?;
    p.done(y)
}

/// The tensor (or number) broadcast to a shape.
fn expanded(p: &mut Pen<'_, '_>, x: &Arg, shape: &[Dim]) -> Value {
    if p.ty(x)?.shape == shape {
        return Ok(Some(x.clone()));
    }
    let Some(sizes) = p.0.sizes(shape) else { return Ok(None) };
    p.call(op!("aten.expand.default"), vec![x.clone(), sizes]).map(Some)
}

/// A vector of row numbers, repeated along every other axis of `shape`.
fn along_rows(p: &mut Pen<'_, '_>, rows: &Arg, shape: &[Dim]) -> Value {
    let mut column = vec![Dim::Int(1); shape.len()];
    if let (Some(c), Some(n)) = (column.first_mut(), shape.first()) {
        *c = n.clone();
    }
    match p.view(rows, &column)? {
        Some(rows) => expanded(p, &rows, shape),
        None => Ok(None),
    }
}

/// One value at rows that an index names. Source: torch.Tensor.index_fill.
pub(super) fn index_fill(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(index)) = (site.operand(0).cloned(), site.operand(2).cloned()) else { return Ok(None) };
    let Some(dim) = site.nth(1).as_int().and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    let (x, at, value) = (site.nth(0).clone(), site.nth(2).clone(), site.nth(3).clone());
    let mut p = Pen(site);
    let mut shape = t.shape.clone();
    let Some(d) = shape.get_mut(dim) else { return Ok(None) };
    *d = index.numel();
    let source = match &value {
        Arg::Value(_) => {
            let v = p.cast(&value, t.dtype)?;
            expanded(&mut p, &v, &shape)?
        }
        _ => match p.0.sizes(&shape) {
            Some(sizes) => Some(p.call(op!("aten.full.default"), vec![sizes, value, Arg::DType(t.dtype)])?),
            None => None,
        },
    };
    let Some(source) = source else { return Ok(None) };
    let y = p.call(op!("aten.index_copy.default"), vec![x, Arg::Int(dim as i64), at, source])?;
    p.done(y)
}

/// Rows added where an index says. Source: torch.Tensor.index_add.
pub(super) fn index_add(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(source)) = (site.operand(0).cloned(), site.operand(3).cloned()) else { return Ok(None) };
    let Some(dim) = site.nth(1).as_int().and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    if t.rank() == 0 || source.rank() != t.rank() {
        return Ok(None);
    }
    let (x, at, mut src) = (site.nth(0).clone(), site.nth(2).clone(), site.nth(3).clone());
    let alpha = site.arg("alpha").as_float();
    let mut p = Pen(site);
    if let Some(alpha) = alpha.filter(|a| *a != 1.0) {
        src = p.mul(&src, alpha)?;
    }
    let mut column = vec![Dim::Int(1); t.rank()];
    let (Some(c), Some(n)) = (column.get_mut(dim), source.shape.get(dim)) else { return Ok(None) };
    *c = n.clone();
    let at = p.cast(&at, DType::Int64)?;
    let Some(at) = p.view(&at, &column)? else { return Ok(None) };
    let Some(at) = expanded(&mut p, &at, &source.shape)? else { return Ok(None) };
    let y = p.call(op!("aten.scatter_add.default"), vec![x, Arg::Int(dim as i64), at, src])?;
    p.done(y)
}

/// Elements written along an axis, one index each. Source: torch.Tensor.scatter.
pub(super) fn scatter(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(index)) = (site.operand(0).cloned(), site.operand(2).cloned()) else { return Ok(None) };
    let Some(dim) = site.nth(1).as_int().and_then(|d| wrap(d, t.rank())) else { return Ok(None) };
    let (sizes, counts) = (t.shape.clone(), index.shape.clone());
    if index.shape.contains(&Dim::Int(0)) {
        // Nothing is written.
        return Ok(Some(Patch::Values(vec![site.nth(0).clone()])));
    }
    if t.rank() == 0 || index.rank() == 0 {
        return with_axes(site);
    }
    if sizes.contains(&Dim::Int(0)) {
        return Ok(None);
    }
    let (Some(lengths), Some(widths)) = (counts.iter().map(|n| site.size(n)).collect(), sizes.iter().map(|n| site.size(n)).collect())
    else {
        return Ok(None);
    };
    let (lengths, widths): (Vec<Arg>, Vec<Arg>) = (lengths, widths);
    let (x, at, value) = (site.nth(0).clone(), site.nth(2).clone(), site.nth(3).clone());
    let mut p = Pen(site);
    let mut source = match &value {
        Arg::Value(_) => value,
        _ => p.call(op!("aten.full.default"), vec![Arg::List(lengths.clone()), value, Arg::DType(t.dtype)])?,
    };
    // Only as much of the source as there are indices.
    for (axis, (n, length)) in counts.iter().zip(&lengths).enumerate() {
        if p.ty(&source)?.shape.get(axis) != Some(n) {
            source = p.slice(&source, axis, Arg::Int(0), length.clone())?;
        }
    }
    // The place of every element in the tensor taken flat: its own coordinates, but along `dim` what the index says.
    let mut place: Option<Arg> = None;
    for (axis, (width, length)) in widths.iter().zip(&lengths).enumerate() {
        let coordinate = if axis == dim {
            let at = p.cast(&at, DType::Int64)?;
            let low = p.call(op!("aten.lt.Scalar"), vec![at.clone(), Arg::Int(0)])?;
            let up = p.add(&at, width)?;
            p.select(&low, &up, &at)?
        } else {
            let ramp = p.call(op!("aten.arange.start_step"), vec![Arg::Int(0), length.clone(), Arg::Int(1), Arg::DType(DType::Int64)])?;
            let mut shape = vec![Dim::Int(1); sizes.len()];
            if let (Some(d), Some(n)) = (shape.get_mut(axis), counts.get(axis)) {
                *d = n.clone();
            }
            let Some(ramp) = p.view(&ramp, &shape)? else { return Ok(None) };
            ramp
        };
        place = Some(match place {
            None => coordinate,
            Some(before) => {
                let scaled = p.mul(&before, width)?;
                p.add(&scaled, &coordinate)?
            }
        });
    }
    let Some(place) = place else { return Ok(None) };
    let Some(place) = expanded(&mut p, &place, &counts)? else { return Ok(None) };
    let (count, total) = (Dim::product(&counts), Dim::product(&sizes));
    let source = p.cast(&source, t.dtype)?;
    let (Some(place), Some(source), Some(flat)) =
        (p.view(&place, std::slice::from_ref(&count))?, p.view(&source, std::slice::from_ref(&count))?, p.view(&x, &[total])?)
    else {
        return Ok(None);
    };
    let y = p.call(op!("aten.index_copy.default"), vec![flat, Arg::Int(0), place, source])?;
    let Some(y) = p.view(&y, &t.shape)? else { return Ok(None) };
    p.done(y)
}

/// Of a scalar, or by one: with an axis, which the result loses again. Source: torch.gather.
pub(super) fn gather(site: &mut Site<'_>) -> Result {
    match (site.operand(0).map(|t| t.rank()), site.operand(2).map(|t| t.rank())) {
        (Some(0 | 1), Some(0 | 1)) => with_axes(site),
        _ => Ok(None),
    }
}

/// The same call with every scalar among the tensors as a vector of one element.
pub(super) fn with_axes(site: &mut Site<'_>) -> Result {
    let (op, list, Some(to)) = (site.op(), site.node().args.clone(), site.result().cloned()) else { return Ok(None) };
    let mut p = Pen(site);
    let (mut raised, mut all) = (false, Vec::new());
    for a in list {
        let scalar = p.0.tensor(&a).is_some_and(|t| t.rank() == 0);
        raised |= scalar;
        all.push(if scalar { p.unsqueeze(&a, 0)? } else { a });
    }
    if !raised {
        return Ok(None);
    }
    let y = p.call(op, all)?;
    match p.view(&y, &to.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// Channels into space. Source: torch.nn.PixelShuffle.
pub(super) fn pixel_shuffle(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(to), Some(r)) = (site.operand(0).cloned(), site.result().cloned(), site.nth(1).as_int()) else { return Ok(None) };
    let lead = t.rank().saturating_sub(3);
    let (Some([_, h, w]), Some([c, ..])) = (t.shape.get(lead..), to.shape.get(lead..)) else { return Ok(None) };
    let mut split: Vec<Dim> = t.shape.iter().take(lead).cloned().collect();
    split.extend([c.clone(), Dim::Int(r), Dim::Int(r), h.clone(), w.clone()]);
    let mut order: Vec<usize> = (0..lead).collect();
    order.extend([lead, lead + 3, lead + 1, lead + 4, lead + 2]);
    rearranged(site, &split, &order, &to.shape)
}

/// Space into channels. Source: torch.nn.PixelUnshuffle.
pub(super) fn pixel_unshuffle(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(to), Some(r)) = (site.operand(0).cloned(), site.result().cloned(), site.nth(1).as_int()) else { return Ok(None) };
    let lead = t.rank().saturating_sub(3);
    let (Some([c, ..]), Some([_, h, w])) = (t.shape.get(lead..), to.shape.get(lead..)) else { return Ok(None) };
    let mut split: Vec<Dim> = t.shape.iter().take(lead).cloned().collect();
    split.extend([c.clone(), h.clone(), Dim::Int(r), w.clone(), Dim::Int(r)]);
    let mut order: Vec<usize> = (0..lead).collect();
    order.extend([lead, lead + 2, lead + 4, lead + 1, lead + 3]);
    rearranged(site, &split, &order, &to.shape)
}

fn rearranged(site: &mut Site<'_>, split: &[Dim], order: &[usize], to: &[Dim]) -> Result {
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let Some(y) = p.view(&x, split)? else { return Ok(None) };
    let y = p.permute(&y, order)?;
    let Some(y) = p.view(&y, to)? else { return Ok(None) };
    p.done(y)
}

/// Where elements are not 0: the positions of those that are 0 are sorted behind all others. Source: torch.nonzero_static.
pub(super) fn nonzero_static(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(size), Some(fill)) = (site.operand(0).cloned(), site.arg("size").as_int(), site.arg("fill_value").as_int()) else {
        return Ok(None);
    };
    let full = op!("aten.full.default");
    if size < 0 || t.dtype.is_complex() {
        return Ok(None);
    }
    if t.rank() == 0 || t.shape.contains(&Dim::Int(0)) {
        let shape = ints([size, t.rank() as i64]);
        return Ok(Some(Patch::Call(full, args(full, [shape, Arg::Int(fill)], &[("dtype", DType::Int64.into())]))));
    }
    let count = t.numel();
    let (Some(end), Some(sizes)) = (site.size(&count), site.sizes(&t.shape).and_then(|a| a.as_list().map(<[Arg]>::to_vec))) else {
        return Ok(None);
    };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let set = if t.dtype == DType::Bool { x } else { p.call(op!("aten.ne.Scalar"), vec![x, Arg::Int(0)])? };
    let Some(set) = p.view(&set, &[count])? else { return Ok(None) };
    let places = p.call(op!("aten.arange.start_step"), vec![Arg::Int(0), end.clone(), Arg::Int(1), Arg::DType(DType::Int64)])?;
    let behind = p.add(&places, &NOWHERE)?;
    let places = p.select(&set, &places, &behind)?;
    let sorted = p.0.call_all(op!("aten.sort.default"), vec![places, Arg::Int(0), Arg::Bool(false)])?;
    let Some(sorted) = sorted.first().map(|&v| Arg::Value(v)) else { return Ok(None) };
    // As many as there may be places, and then as many as are asked for.
    let padded = p.call(op!("aten.constant_pad_nd.default"), vec![sorted, ints([0, size]), NOWHERE])?;
    let first = p.slice(&padded, 0, Arg::Int(0), Arg::Int(size))?;
    let there = p.call(op!("aten.lt.Scalar"), vec![first.clone(), NOWHERE])?;
    let (mut rest, mut columns) = (first, Vec::new());
    for (n, arg) in t.shape.iter().zip(&sizes).rev() {
        // Places are divided by sizes, which may be 0 when there are none.
        let n = if p.0.ranges().bounds(n).min.is_none_or(|n| n < 1) {
            let most = Expr::call(Func::Max, vec![n.clone(), Expr::Int(1)]);
            p.0.call_as(op!("torch.sym_max"), vec![arg.clone(), Arg::Int(1)], Type::Int(most))
        } else {
            arg.clone()
        };
        let place = p.call(op!("aten.remainder.Tensor"), vec![rest.clone(), n.clone()])?;
        rest = p.call(op!("aten.div.Tensor_mode"), vec![rest, n.clone(), Arg::Str("floor".into())])?;
        let place = p.select(&there, &place, fill)?;
        columns.push(p.unsqueeze(&place, 1)?);
    }
    columns.reverse();
    let y = p.call(op!("aten.cat.default"), vec![Arg::List(columns), Arg::Int(1)])?;
    p.done(y)
}

/// Beyond every place in a tensor, places added.
const NOWHERE: Arg = Arg::Int(1 << 40);
