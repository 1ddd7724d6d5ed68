//! Reductions of the elements that a mask selects. How many there are is known only when the program runs; what comes out of a
//! reduction has a known size nevertheless.

use std::collections::HashMap;

use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Arg, Node, Type, ValueId};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Expr;

use super::pen::Pen;
use crate::calls::{CAST, args, as_ints, cast, ints, wrap};
use crate::rewrite::{Patch, Rule, Site};

/// Reduces all elements where a program reduces those that a mask selects.
///
/// `x[mask].sum()` becomes `where(mask, x, 0).sum()`, whatever is computed element by element, or row by row, between the selection
/// and the reduction. The number of selected elements becomes the sum of the mask. Nothing is done about selections that are used
/// otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReduceSelections;

/// Longest chain of calls between a selection and its reduction.
const MAX_DEPTH: u32 = 64;

impl Rule for ReduceSelections {
    fn name(&self) -> &'static str {
        "reduce-selections"
    }

    fn law(&self) -> &'static str {
        "a reduction of what a mask selects is one of all elements, of which the others change nothing"
    }

    fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
        let reduction = by_op!(site.op(), {
            "aten.sum.dim_IntList" => true,
            "aten.mean.dim" => true,
            "aten.amax.default" | "aten.amin.default" => true,
            "aten.any.dims" | "aten.all.dims" => true,
            "aten.prod.default" => true,
            "aten.var.correction" | "aten.std.correction" => true,
            "aten.sym_size.int" => true,
            _ => false,
        });
        // Only sizes that data decide make a selection.
        if !reduction || !site.operand(0).is_some_and(|t| t.shape.iter().any(is_unbacked)) {
            return Ok(None);
        }
        let mut seen = HashMap::new();
        let Some(v) = site.value(0) else { return Ok(None) };
        if site.op() == op!("aten.sym_size.int") && site.nth(1).as_int() == Some(0) {
            let places = [op!("aten.nonzero.default"), op!("aten.argwhere.default")];
            let of = places.into_iter().find_map(|op| site.made_by(site.nth(0), op)).and_then(|n| n.args.first()).cloned();
            if let Some(of) = of {
                let set = site.call(op!("aten.ne.Scalar"), vec![of, Arg::Int(0)])?;
                return count(site, Arg::Value(set));
            }
        }
        match of(site, v, &mut seen, 0).and_then(|all| all.map_or(Ok(None), |all| reduce(site, &all))) {
            // No shape rule takes all elements where it took some: the selection stays.
            Err(e) if matches!(e.kind(), ErrorKind::Shape | ErrorKind::Unsupported) => Ok(None),
            done => done,
        }
    }
}

/// A size that data decide.
fn is_unbacked(size: &Expr) -> bool {
    matches!(size, Expr::Sym(s) if s.name().starts_with('u'))
}

/// What stands for a value of which one axis is what a mask selects: all elements, with the axes of the mask in the place of that one.
#[derive(Clone)]
struct All {
    value: Arg,
    mask: Arg,
    /// Axes of the mask.
    axes: usize,
    /// The first of them, which is also the axis that stands for them in the value.
    axis: usize,
}

impl All {
    /// Axes of the value as those of all elements.
    fn axes_of(&self, dims: impl IntoIterator<Item = usize>) -> Vec<i64> {
        let each = dims.into_iter().flat_map(|d| match d {
            d if d < self.axis => d..d + 1,
            d if d == self.axis => d..d + self.axes,
            d => d + self.axes - 1..d + self.axes,
        });
        each.map(|d| d as i64).collect()
    }
}

type Found = Result<Option<All>, Error>;

/// All elements of what a value has some of.
fn of(site: &mut Site<'_>, v: ValueId, seen: &mut HashMap<ValueId, Option<All>>, depth: u32) -> Found {
    if let Some(found) = seen.get(&v) {
        return Ok(found.clone());
    }
    let Some(node) = site.graph().producer(v).filter(|_| depth < MAX_DEPTH) else { return Ok(None) };
    let node = site.graph().node(node).clone();
    let argument = |name: &str| node.op.schema().position(name).and_then(|i| node.args.get(i)).cloned().unwrap_or(Arg::None);
    let found = by_op!(node.op, {
        "aten.index.Tensor" => by_mask(site, &argument("self"), &argument("indices")),
        "aten.masked_select.default" => masked_select(site, argument("self"), argument("mask"))?,
        "aten.linear.default" | "aten.layer_norm.default" | "aten.rms_norm.default" | "aten._softmax.default" | "aten._log_softmax.default" | "aten.softmax.int" | "aten.log_softmax.int" => {
            by_rows(site, node.op, &node.args, seen, depth)?
        },
        "aten.sum.dim_IntList" | "aten.mean.dim" | "aten.amax.default" | "aten.amin.default" => {
            reduced_rows(site, node.op, &node.args, seen, depth)?
        },
        "aten.unsqueeze.default" => with_axis(site, &node.args, seen, depth)?,
        "aten.squeeze.dims" => without_axes(site, &node.args, seen, depth)?,
        "aten.gather.default" => gathered(site, &node.args, seen, depth)?,
        _ => by_elements(site, &node, seen, depth)?,
    });
    seen.insert(v, found.clone());
    Ok(found)
}

/// What is computed element by element of values that one mask selects.
fn by_elements(site: &mut Site<'_>, node: &Node, seen: &mut HashMap<ValueId, Option<All>>, depth: u32) -> Found {
    let &[result] = node.outputs.as_slice() else { return Ok(None) };
    if node.op != CAST && !node.op.schema().traits.pointwise {
        return Ok(None);
    }
    let rank = site.graph().tensor(result).map_or(0, |t| t.rank());
    let mut list = node.args.clone();
    let mut like: Option<All> = None;
    // Axes of the other operands, which may only be broadcast along what is selected.
    let mut widest = 0;
    for arg in &mut list {
        let Some(t) = site.tensor(arg).cloned() else {
            if matches!(arg, Arg::List(_)) {
                return Ok(None);
            }
            continue;
        };
        if !t.shape.iter().any(is_unbacked) {
            widest = widest.max(t.rank());
            continue;
        }
        let Some(v) = arg.as_value() else { return Ok(None) };
        let Some(all) = of(site, v, seen, depth + 1)? else { return Ok(None) };
        let same = like.as_ref().is_none_or(|l| (l.axis, l.axes, &l.mask) == (all.axis, all.axes, &all.mask));
        if t.rank() != rank || !same {
            return Ok(None);
        }
        *arg = all.value.clone();
        like = Some(all);
    }
    match like {
        Some(all) if widest < rank - all.axis => Ok(Some(All { value: Arg::Value(site.call(node.op, list)?), ..all })),
        _ => Ok(None),
    }
}

/// `x[:, mask]`: one mask after axes that are taken whole.
fn by_mask(site: &Site<'_>, x: &Arg, indices: &Arg) -> Option<All> {
    let indices = indices.as_list()?;
    let axis = indices.iter().position(|i| *i != Arg::None)?;
    let mask = indices.get(axis)?;
    let (of, by) = (site.tensor(x)?, site.tensor(mask)?);
    let one = indices.iter().skip(axis + 1).all(|i| *i == Arg::None);
    let fits = of.shape.get(axis..axis + by.rank())? == by.shape;
    (by.dtype == DType::Bool && by.rank() > 0 && one && fits).then(|| All { value: x.clone(), mask: mask.clone(), axes: by.rank(), axis })
}

/// `torch.masked_select`: tensor and mask are broadcast to each other.
fn masked_select(site: &mut Site<'_>, x: Arg, mask: Arg) -> Found {
    let (Some(of), Some(by)) = (site.tensor(&x).cloned(), site.tensor(&mask).cloned()) else { return Ok(None) };
    if by.dtype != DType::Bool {
        return Ok(None);
    }
    let (mut value, mut mask) = (x, mask);
    if of.shape != by.shape {
        // Whatever takes both has their common sizes.
        let both = site.call(op!("aten.where.self"), vec![mask.clone(), value.clone(), value.clone()])?;
        let Some(shape) = site.graph().tensor(both).map(|t| t.shape.clone()) else { return Ok(None) };
        let Some(sizes) = site.sizes(&shape) else { return Ok(None) };
        let expand = op!("aten.expand.default");
        value = Arg::Value(site.call(expand, args(expand, [value, sizes.clone()], &[]))?);
        mask = Arg::Value(site.call(expand, args(expand, [mask, sizes], &[]))?);
    }
    let axes = site.tensor(&mask).map_or(0, |t| t.rank());
    Ok((axes > 0).then_some(All { value, mask, axes, axis: 0 }))
}

/// What is computed for each row, along axes behind the selected one, or along another axis.
fn by_rows(site: &mut Site<'_>, op: OpId, list: &[Arg], seen: &mut HashMap<ValueId, Option<All>>, depth: u32) -> Found {
    let Some(x) = list.first().and_then(Arg::as_value) else { return Ok(None) };
    let rank = site.graph().tensor(x).map_or(0, |t| t.rank());
    let Some(all) = of(site, x, seen, depth + 1)? else { return Ok(None) };
    let mut list = list.to_vec();
    match op.schema().position("dim") {
        Some(at) => {
            let along = list.get(at).and_then(Arg::as_int).and_then(|d| wrap(d, rank)).filter(|&d| d != all.axis);
            let (Some(along), Some(dim)) = (along, list.get_mut(at)) else { return Ok(None) };
            let Some(&axis) = all.axes_of([along]).first() else { return Ok(None) };
            *dim = Arg::Int(axis);
        }
        None => {
            // A layer: its features are the last axis, or as many as are listed.
            let listed = op.schema().position("normalized_shape").and_then(|at| list.get(at));
            let features = listed.map_or(Some(1), |l| l.as_list().map(<[Arg]>::len));
            if features.is_none_or(|n| all.axis + n >= rank) {
                return Ok(None);
            }
        }
    }
    if let Some(first) = list.first_mut() {
        *first = all.value.clone();
    }
    Ok(Some(All { value: Arg::Value(site.call(op, list)?), ..all }))
}

/// A reduction along other axes than the selected one.
fn reduced_rows(site: &mut Site<'_>, op: OpId, list: &[Arg], seen: &mut HashMap<ValueId, Option<All>>, depth: u32) -> Found {
    let Some(x) = list.first().and_then(Arg::as_value) else { return Ok(None) };
    let rank = site.graph().tensor(x).map_or(0, |t| t.rank());
    let Some(all) = of(site, x, seen, depth + 1)? else { return Ok(None) };
    let Some(dims) = list.get(1).and_then(as_ints).and_then(|dims| dims.iter().map(|&d| wrap(d, rank)).collect::<Option<Vec<_>>>()) else {
        return Ok(None);
    };
    if dims.is_empty() || dims.contains(&all.axis) {
        return Ok(None);
    }
    let mut list = list.to_vec();
    let keep = list.get(2).and_then(Arg::as_bool) == Some(true);
    if let [x, over, ..] = list.as_mut_slice() {
        (*x, *over) = (all.value.clone(), ints(all.axes_of(dims.iter().copied())));
    }
    let axis = if keep { all.axis } else { all.axis - dims.iter().filter(|&&d| d < all.axis).count() };
    Ok(Some(All { value: Arg::Value(site.call(op, list)?), axis, ..all }))
}

/// An axis of size 1, put in.
fn with_axis(site: &mut Site<'_>, list: &[Arg], seen: &mut HashMap<ValueId, Option<All>>, depth: u32) -> Found {
    let [Arg::Value(x), Arg::Int(dim)] = *list else { return Ok(None) };
    let rank = site.graph().tensor(x).map_or(0, |t| t.rank());
    let (Some(all), Some(dim)) = (of(site, x, seen, depth + 1)?, wrap(dim, rank + 1)) else { return Ok(None) };
    let (at, axis) = if dim <= all.axis { (dim, all.axis + 1) } else { (dim + all.axes - 1, all.axis) };
    let value = site.call(op!("aten.unsqueeze.default"), vec![all.value.clone(), Arg::Int(at as i64)])?;
    Ok(Some(All { value: Arg::Value(value), axis, ..all }))
}

/// Axes of size 1, taken away.
fn without_axes(site: &mut Site<'_>, list: &[Arg], seen: &mut HashMap<ValueId, Option<All>>, depth: u32) -> Found {
    let [Arg::Value(x), dims] = list else { return Ok(None) };
    let Some(shape) = site.graph().tensor(*x).map(|t| t.shape.clone()) else { return Ok(None) };
    let dims: Option<Vec<usize>> = as_ints(dims).and_then(|dims| dims.into_iter().map(|d| wrap(d, shape.len())).collect());
    let (Some(all), Some(dims)) = (of(site, *x, seen, depth + 1)?, dims) else { return Ok(None) };
    // Others stay, whatever is listed.
    if dims.iter().any(|&d| d == all.axis || shape.get(d) != Some(&Expr::Int(1))) {
        return Ok(None);
    }
    let axis = all.axis - dims.iter().filter(|&&d| d < all.axis).count();
    let value = site.call(op!("aten.squeeze.dims"), vec![all.value.clone(), ints(all.axes_of(dims))])?;
    Ok(Some(All { value: Arg::Value(value), axis, ..all }))
}

/// Elements of each row by an index that was selected alike. Where nothing is selected, the index may be none of the row's.
fn gathered(site: &mut Site<'_>, list: &[Arg], seen: &mut HashMap<ValueId, Option<All>>, depth: u32) -> Found {
    let [Arg::Value(x), Arg::Int(dim), Arg::Value(index), ..] = *list else { return Ok(None) };
    let (Some(from), Some(at)) = (of(site, x, seen, depth + 1)?, of(site, index, seen, depth + 1)?) else { return Ok(None) };
    let (rank, ranks) = (site.graph().tensor(x).map_or(0, |t| t.rank()), site.graph().tensor(index).map_or(0, |t| t.rank()));
    let along = wrap(dim, rank).filter(|&d| d != from.axis);
    let (Some(along), true) = (along, rank == ranks && (from.axis, from.axes, &from.mask) == (at.axis, at.axes, &at.mask)) else {
        return Ok(None);
    };
    let mut p = Pen(site);
    let mask = over(&mut p, &at)?;
    let index = p.select(&mask, &at.value, 0i64)?;
    let dims = from.axes_of([along]);
    let Some(&dim) = dims.first() else { return Ok(None) };
    let value = p.call(op!("aten.gather.default"), vec![from.value.clone(), Arg::Int(dim), index])?;
    Ok(Some(All { value, ..from }))
}

/// The mask over the axes that it selects from.
fn over(p: &mut Pen<'_, '_>, all: &All) -> Result<Arg, Error> {
    let mut mask = all.mask.clone();
    for _ in all.axis + all.axes..p.ty(&all.value)?.rank() {
        let rank = p.ty(&mask)?.rank();
        mask = p.unsqueeze(&mask, rank)?;
    }
    Ok(mask)
}

/// The reduction of all elements, or their number.
fn reduce(site: &mut Site<'_>, all: &All) -> Result<Option<Patch>, Error> {
    let (rank, op) = (site.operand(0).map_or(0, |t| t.rank()), site.op());
    if op == op!("aten.sym_size.int") {
        let ty = site.node().outputs.first().map(|&v| site.graph().ty(v));
        let along = site.nth(1).as_int().and_then(|d| wrap(d, rank));
        return if matches!(ty, Some(Type::Int(_))) && along == Some(all.axis) { count(site, all.mask.clone()) } else { Ok(None) };
    }
    let dims = match site.arg("dim") {
        Arg::None => Some((0..rank).collect()),
        list => as_ints(list).and_then(|dims| dims.into_iter().map(|d| wrap(d, rank)).collect::<Option<Vec<usize>>>()),
    };
    let Some(dims) = dims.filter(|dims| dims.contains(&all.axis)) else { return Ok(None) };
    if site.arg("keepdim").as_bool() == Some(true) || *site.arg("dtype") != Arg::None {
        return Ok(None);
    }
    let reduced: Vec<usize> = all.axes_of(dims).into_iter().map(|d| d as usize).collect();
    let (correction, root) = (site.arg("correction").as_float().unwrap_or(1.0), op == op!("aten.std.correction"));
    let mut p = Pen(site);
    let t = p.ty(&all.value)?;
    let mask = over(&mut p, all)?;
    let sum = op!("aten.sum.dim_IntList");
    let logical = is_op!(op, "aten.any.dims" | "aten.all.dims") || (op == sum && t.dtype == DType::Bool);
    if !logical && !t.dtype.is_float() && !t.dtype.is_int() {
        return Ok(None);
    }
    let y = by_op!(op, {
        "aten.any.dims" | "aten.all.dims" => {
            let any = op == op!("aten.any.dims");
            let each = if any { all.value.clone() } else { p.not(&all.value)? };
            let seen = p.call(op!("aten.logical_and.default"), vec![mask.clone(), each])?;
            let found = p.reduce(op!("aten.any.dims"), &seen, &reduced, false)?;
            if any { found } else { p.not(&found)? }
        },
        "aten.sum.dim_IntList" if t.dtype == DType::Bool => {
            let counted = p.call(op!("aten.logical_and.default"), vec![mask, all.value.clone()])?;
            p.reduce(sum, &counted, &reduced, false)?
        },
        "aten.sum.dim_IntList" => {
            let kept = p.select(&mask, &all.value, 0i64)?;
            p.reduce(sum, &kept, &reduced, false)?
        },
        "aten.prod.default" => {
            let kept = p.select(&mask, &all.value, 1i64)?;
            p.call(op, vec![kept])?
        },
        "aten.amax.default" | "aten.amin.default" => {
            let Some(least) = extreme(t.dtype, op == op!("aten.amax.default")) else { return Ok(None) };
            let kept = p.call(op!("aten.where.self"), vec![mask, all.value.clone(), least])?;
            p.reduce(op, &kept, &reduced, false)?
        },
        "aten.mean.dim" | "aten.var.correction" | "aten.std.correction" => {
            let (x, count) = (p.wide(&all.value)?, counted(&mut p, &mask, &t.shape, &reduced)?);
            let Some(count) = count else { return Ok(None) };
            let kept = p.select(&mask, &x, 0.0)?;
            let total = p.reduce(sum, &kept, &reduced, true)?;
            let mean = p.div(&total, &count)?;
            if op == op!("aten.mean.dim") {
                p.call(op!("aten.squeeze.dims"), vec![mean, ints(reduced.iter().map(|&d| d as i64))])?
            } else {
                let off = p.sub(&x, &mean)?;
                let off = p.square(&off)?;
                let kept = p.select(&mask, &off, 0.0)?;
                let total = p.reduce(sum, &kept, &reduced, true)?;
                let free = p.sub(&count, correction)?;
                let free = p.clamp(&free, Some(0.0), None)?;
                let var = p.div(&total, &free)?;
                let var = p.call(op!("aten.squeeze.dims"), vec![var, ints(reduced.iter().map(|&d| d as i64))])?;
                if root { p.sqrt(&var)? } else { var }
            }
        },
        _ => return Ok(None),
    });
    p.done(y)
}

/// How many elements of a mask are true, instead of the size that is asked for.
fn count(site: &mut Site<'_>, mask: Arg) -> Result<Option<Patch>, Error> {
    let Some(ty) = site.node().outputs.first().map(|&v| site.graph().ty(v).clone()) else { return Ok(None) };
    let (sum, axes) = (op!("aten.sum.dim_IntList"), site.tensor(&mask).map_or(0, |t| t.rank() as i64));
    let count = site.call(sum, args(sum, [mask, ints(0..axes)], &[]))?;
    Ok(Some(Patch::Values(vec![site.call_as(op!("aten.item.default"), vec![Arg::Value(count)], ty)])))
}

/// How many elements are reduced to one, as `f32`; axes that are reduced have size 1.
fn counted(p: &mut Pen<'_, '_>, mask: &Arg, shape: &[Expr], over: &[usize]) -> Result<Option<Arg>, Error> {
    let by = p.ty(mask)?;
    // The mask has no axes before those that it selects from.
    let before = shape.len().saturating_sub(by.rank());
    let own = |d: usize| d.checked_sub(before).filter(|&m| by.shape.get(m) == shape.get(d));
    let mine: Vec<usize> = over.iter().filter_map(|&d| own(d)).collect();
    // Along other axes each counts as often as they are long.
    let others = over.iter().filter(|&&d| own(d).is_none()).map(|&d| shape.get(d).and_then(Expr::as_int)).product::<Option<i64>>();
    let Some(times) = others else { return Ok(None) };
    let count = p.reduce(op!("aten.sum.dim_IntList"), mask, &mine, true)?;
    let count = p.call(CAST, cast(count, DType::Float32))?;
    Ok(Some(if times == 1 { count } else { p.mul(&count, times as f64)? }))
}

/// What never is the largest, or the smallest.
fn extreme(dtype: DType, largest: bool) -> Option<Arg> {
    if dtype.is_float() {
        return Some(Arg::Float(if largest { f64::NEG_INFINITY } else { f64::INFINITY }));
    }
    let (min, max) = match dtype {
        DType::UInt8 => (0, i64::from(u8::MAX)),
        DType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DType::Int64 => (i64::MIN, i64::MAX),
        _ => return None,
    };
    Some(Arg::Int(if largest { min } else { max }))
}
