//! Diagonals, and what is made from nothing but positions.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::expr::Ex;
use super::pen::Pen;
use super::{no, no_but};
use crate::calls::wrap;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;
type Value = std::result::Result<Option<Arg>, Error>;

/// 0 to `n - 1` along an axis of `rank`, of 64 bits.
pub(super) fn ramp(p: &mut Pen<'_, '_>, n: &Dim, axis: usize, rank: usize) -> Value {
    let Some(end) = p.0.size(n) else { return Ok(None) };
    let ramp = p.call(op!("aten.arange.start_step"), vec![Arg::Int(0), end, Arg::Int(1), Arg::DType(DType::Int64)])?;
    if rank == 1 {
        return Ok(Some(ramp));
    }
    let shape: Vec<Dim> = (0..rank).map(|d| if d == axis { n.clone() } else { Dim::Int(1) }).collect();
    p.view(&ramp, &shape)
}

/// Every `columns + 1`-th element of the matrix taken flat.
fn on_diagonal(p: &mut Pen<'_, '_>, offset: i64, first: usize, second: usize) -> Value {
    let x = p.0.nth(0).clone();
    let t = p.ty(&x)?;
    let size = |d: usize| t.shape.get(d).and_then(Dim::as_int);
    let (Some(rows), Some(columns)) = (size(first), size(second)) else { return looked_up(p, &x, offset, first, second) };
    let count = if offset >= 0 { rows.min(columns - offset) } else { columns.min(rows + offset) };
    if first == second {
        return no("a diagonal takes two dimensions");
    }
    let mut order: Vec<usize> = (0..t.rank()).filter(|&d| d != first && d != second).collect();
    let mut shape: Vec<Dim> = order.iter().filter_map(|&d| t.shape.get(d).cloned()).collect();
    order.extend([first, second]);
    let axis = shape.len() as i64;
    shape.push(Dim::Int(rows * columns));
    let x = p.permute(&x, &order)?;
    let Some(flat) = p.view(&x, &shape)? else { return Ok(None) };
    let start = if offset >= 0 { offset } else { -offset * columns };
    let (start, end, step) = if count < 1 { (0, 0, 1) } else { (start, start + (count - 1) * (columns + 1) + 1, columns + 1) };
    p.call(op!("aten.slice.Tensor"), vec![flat, Arg::Int(axis), Arg::Int(start), Arg::Int(end), Arg::Int(step)]).map(Some)
}

/// The diagonal of a matrix whose size is known only at run time: of each row that has one, the element in its place.
fn looked_up(p: &mut Pen<'_, '_>, x: &Arg, offset: i64, first: usize, second: usize) -> Value {
    let t = p.ty(x)?;
    let (Some(rows), Some(columns)) = (t.shape.get(first), t.shape.get(second)) else { return Ok(None) };
    if first == second {
        return no("a diagonal takes two dimensions");
    }
    let (rows, columns) = (rows.minus(&Dim::Int((-offset).max(0))), columns.minus(&Dim::Int(offset.max(0))));
    let ranges = p.0.ranges();
    if [&rows, &columns].iter().any(|n| ranges.bounds(n).min.is_none_or(|n| n < 0)) {
        return no_but(
            format!("the diagonal at {offset} may lie outside of the matrix"),
            "give the sizes a lower bound in dynamic_shapes, so that there always is one",
        );
    }
    let count = match (ranges.at_most(&rows, &columns), ranges.at_most(&columns, &rows)) {
        (Some(true), _) => rows,
        (_, Some(true)) => columns,
        _ => return of_either_side(p, x, offset, first, second, [&rows, &columns]),
    };
    let mut order: Vec<usize> = (0..t.rank()).filter(|&d| d != first && d != second).collect();
    let mut shape: Vec<Dim> = order.iter().filter_map(|&d| t.shape.get(d).cloned()).collect();
    order.extend([first, second]);
    let row = shape.len();
    shape.extend([count.clone(), Dim::Int(1)]);
    let from = (-offset).max(0);
    let (Some(end), Some(sizes)) = (p.0.size(&count.plus(&Dim::Int(from))), p.0.sizes(&shape)) else { return Ok(None) };
    let x = p.permute(x, &order)?;
    let x = p.slice(&x, row, Arg::Int(from), end)?;
    let Some(place) = ramp(p, &count, row, row + 2)? else { return Ok(None) };
    let place = p.write(&(Ex::from(place) + offset.max(0)))?;
    let place = p.call(op!("aten.expand.default"), vec![place, sizes])?;
    let y = p.call(op!("aten.gather.default"), vec![x, Arg::Int(row as i64 + 1), place])?;
    p.squeeze(&y, row + 1).map(Some)
}

/// The diagonal where only the program sees which side ends it: both sides are cut to the shorter one, then row and column go together.
fn of_either_side(p: &mut Pen<'_, '_>, x: &Arg, offset: i64, first: usize, second: usize, [rows, columns]: [&Dim; 2]) -> Value {
    let (down, across) = ((-offset).max(0), offset.max(0));
    let (Some(last_row), Some(last_column)) = (p.0.size(&columns.plus(&Dim::Int(down))), p.0.size(&rows.plus(&Dim::Int(across)))) else {
        return no("which side of the matrix is the shorter one cannot be computed from the sizes of the inputs");
    };
    let rank = p.ty(x)?.rank();
    // A slice ends with the tensor, however far it is to go.
    let x = p.slice(x, first, Arg::Int(down), last_row)?;
    let x = p.slice(&x, second, Arg::Int(across), last_column)?;
    let order: Vec<usize> = (0..rank).filter(|&d| d != first && d != second).chain([first, second]).collect();
    let x = p.permute(&x, &order)?;
    let row = rank - 2;
    let count = p.call(op!("aten.sym_size.int"), vec![x.clone(), Arg::Int(row as i64)])?;
    let lead: Vec<Dim> = p.ty(&x)?.shape.iter().take(row).cloned().collect();
    let Some(Arg::List(mut sizes)) = p.0.sizes(&lead) else { return no("its sizes cannot be computed from those of the inputs") };
    sizes.extend([count.clone(), Arg::Int(1)]);
    let place = p.call(op!("aten.arange.start_step"), vec![Arg::Int(0), count, Arg::Int(1), Arg::DType(DType::Int64)])?;
    let place = p.unsqueeze(&place, 1)?;
    let place = p.call(op!("aten.expand.default"), vec![place, Arg::List(sizes)])?;
    let y = p.call(op!("aten.gather.default"), vec![x, Arg::Int(row as i64 + 1), place])?;
    p.squeeze(&y, row + 1).map(Some)
}

fn axes(site: &Site<'_>, rank: usize) -> Option<(i64, usize, usize)> {
    let axis = |name: &str| site.arg(name).as_int().and_then(|d| wrap(d, rank));
    Some((site.arg("offset").as_int()?, axis("dim1")?, axis("dim2")?))
}

/// Source: torch.diagonal.
pub(super) fn diagonal(site: &mut Site<'_>) -> Result {
    let Some((offset, first, second)) = site.operand(0).and_then(|t| axes(site, t.rank())) else { return Ok(None) };
    let mut p = Pen(site);
    match on_diagonal(&mut p, offset, first, second)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// The sum of the diagonal. Source: torch.trace.
pub(super) fn trace(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    match on_diagonal(&mut p, 0, 0, 1)? {
        Some(d) => p.ends(&Ex::from(d).sum(&[0], false)),
        None => Ok(None),
    }
}

/// Where the column is `offset` more than the row.
fn mask(p: &mut Pen<'_, '_>, rows: &Dim, columns: &Dim, offset: i64) -> Value {
    let (Some(row), Some(column)) = (ramp(p, rows, 0, 2)?, ramp(p, columns, 1, 2)?) else { return Ok(None) };
    let row = Ex::from(row);
    let row = if offset == 0 { row } else { row + offset };
    p.write(&row.eq(column)).map(Some)
}

/// The last dimension as a diagonal of two. Source: torch.diag_embed.
fn embedded(p: &mut Pen<'_, '_>, x: &Arg, offset: i64) -> Value {
    let t = p.ty(x)?;
    let (Some(n), Some(last)) = (t.shape.last().cloned(), t.rank().checked_sub(1)) else { return Ok(None) };
    let size = n.plus(&Dim::Int(offset.abs()));
    let Some(mask) = mask(p, &size, &size, offset)? else { return Ok(None) };
    let mut x = x.clone();
    if offset != 0 {
        x = p.call(op!("aten.constant_pad_nd.default"), vec![x, crate::calls::ints([0, offset.abs()]), Arg::Int(0)])?;
    }
    // Rows hold the element above the main diagonal, columns below it.
    let x = p.unsqueeze(&x, if offset >= 0 { last + 1 } else { last })?;
    let zero = if t.dtype.is_float() { Ex::from(0.0) } else { Ex::from(0i64) };
    p.write(&Ex::from(mask).then(x, zero)).map(Some)
}

/// Source: torch.diag_embed.
pub(super) fn diag_embed(site: &mut Site<'_>) -> Result {
    let Some((offset, first, second)) = site.result().and_then(|t| axes(site, t.rank())) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    if first == second || p.ty(&x)?.dtype == DType::Bool {
        return Ok(None);
    }
    let Some(y) = embedded(&mut p, &x, if first < second { offset } else { -offset })? else { return Ok(None) };
    let rank = p.ty(&y)?.rank();
    let (low, high) = (first.min(second), first.max(second));
    let mut others = 0..rank.saturating_sub(2);
    let order: Vec<usize> = (0..rank)
        .map(|d| match d {
            d if d == low => rank - 2,
            d if d == high => rank - 1,
            _ => others.next().unwrap_or(0),
        })
        .collect();
    let y = p.permute(&y, &order)?;
    p.done(y)
}

/// A matrix of a vector, the diagonal of a matrix. Source: torch.diag.
pub(super) fn diag(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(offset)) = (site.operand(0).cloned(), site.arg("diagonal").as_int()) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let y = match t.rank() {
        1 => embedded(&mut p, &x, offset)?,
        2 => on_diagonal(&mut p, offset, 0, 1)?,
        _ => None,
    };
    match y {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// A matrix of everything. Source: torch.diagflat.
pub(super) fn diagflat(site: &mut Site<'_>) -> Result {
    let Some(offset) = site.arg("offset").as_int() else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let n = p.ty(&x)?.numel();
    let Some(flat) = p.view(&x, &[n])? else { return Ok(None) };
    match embedded(&mut p, &flat, offset)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// One value on the diagonal. Source: torch.Tensor.fill_diagonal_.
pub(super) fn fill_diagonal(site: &mut Site<'_>) -> Result {
    let (Some(t), fill) = (site.operand(0).cloned(), site.nth(1).clone()) else { return Ok(None) };
    let [rows, columns] = t.shape.as_slice() else { return Ok(None) };
    let wraps = site.arg("wrap").as_bool() == Some(true);
    if wraps && rows.as_int().zip(columns.as_int()).is_none_or(|(r, c)| r > c) {
        return Ok(None);
    }
    let mut p = Pen(site);
    let Some(mask) = mask(&mut p, rows, columns, 0)? else { return Ok(None) };
    let y = p.write(&Ex::from(mask).then(fill, p.0.nth(0)))?;
    let y = p.cast(&y, t.dtype)?;
    Ok(Some(Patch::Values(p.0.node().outputs.iter().map(|_| y.clone()).collect())))
}

/// A diagonal written into a matrix: where the column is as much more than the row as it is offset, the element for the row (or the
/// column), else what was there. Source: torch.diagonal_scatter.
pub(super) fn diagonal_scatter(site: &mut Site<'_>) -> Result {
    let Some(t) = site.operand(0).cloned() else { return Ok(None) };
    let Some((offset, first, second)) = axes(site, t.rank()) else { return Ok(None) };
    let (Some(rows), Some(columns)) = (t.shape.get(first).cloned(), t.shape.get(second).cloned()) else { return Ok(None) };
    if first == second {
        return no("a diagonal takes two dimensions");
    }
    let mut p = Pen(site);
    let (x, src) = (p.0.nth(0).clone(), p.0.nth(1).clone());
    let Some(count) = p.ty(&src)?.shape.last().cloned() else { return no("there is no diagonal to write") };
    let (down, across) = ((-offset).max(0), offset.max(0));
    if count.as_int() == Some(0) {
        return p.done(x);
    }
    // The two dimensions last, as those of the diagonal are.
    let order: Vec<usize> = (0..t.rank()).filter(|&d| d != first && d != second).chain([first, second]).collect();
    let in_place = order.iter().enumerate().all(|(i, &d)| i == d);
    let x = if in_place { x } else { p.permute(&x, &order)? };
    let last = t.rank() - 2;
    let src = p.cast(&src, t.dtype)?;
    let spread = match (rows.as_int(), count.as_int()) {
        _ if down == 0 && p.0.ranges().equal(&count, &rows) == Some(true) => p.unsqueeze(&src, last + 1)?,
        _ if across == 0 && p.0.ranges().equal(&count, &columns) == Some(true) => p.unsqueeze(&src, last)?,
        (Some(rows), Some(count)) => {
            let pads = crate::calls::ints([down, rows - down - count]);
            let src = p.call(op!("aten.constant_pad_nd.default"), vec![src, pads, Arg::Int(0)])?;
            p.unsqueeze(&src, last + 1)?
        }
        _ if p.0.ranges().bounds(&count).min.is_none_or(|n| n < 1) => {
            return no_but(
                "the diagonal that is written may have no elements",
                "give the sizes a lower bound in dynamic_shapes, so that there always is one",
            );
        }
        _ => {
            // Rows beyond the diagonal take its last element, and are masked.
            let length = p.call(op!("aten.sym_size.int"), vec![src.clone(), Arg::Int(last as i64)])?;
            let furthest = p.call(op!("aten.full.default"), vec![Arg::List(Vec::new()), length, Arg::DType(DType::Int64)])?;
            let Some(row) = ramp(&mut p, &rows, 0, 1)? else {
                return no("the number of rows cannot be computed from the sizes of the inputs");
            };
            let row = Ex::from(row) - down;
            let row = Ex::call(op!("aten.clamp.default"), vec![row, 0i64.into(), Arg::None.into()]);
            let row = p.write(&row.min(Ex::from(furthest) - 1i64))?;
            let src = p.call(op!("aten.index_select.default"), vec![src, Arg::Int(last as i64), row])?;
            p.unsqueeze(&src, last + 1)?
        }
    };
    let Some(mask) = mask(&mut p, &rows, &columns, offset)? else {
        return no("the sizes of the matrix cannot be computed from those of the inputs");
    };
    let y = p.write(&Ex::from(mask).then(spread, &x))?;
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, &d)| back.get_mut(d).into_iter().for_each(|b| *b = i));
    let y = if in_place { y } else { p.permute(&y, &back)? };
    p.done(y)
}

/// Ones on the diagonal. Source: torch.eye.
pub(super) fn eye(site: &mut Site<'_>) -> Result {
    let Some(t) = site.result().cloned() else { return Ok(None) };
    let [rows, columns] = t.shape.as_slice() else { return Ok(None) };
    let mut p = Pen(site);
    match mask(&mut p, rows, columns, 0)? {
        Some(mask) => p.done(mask),
        None => Ok(None),
    }
}

/// `base` to evenly spaced powers. Source: torch.logspace.
pub(super) fn logspace(site: &mut Site<'_>) -> Result {
    let (Some(base), Some(t)) = (site.arg("base").as_float(), site.result().cloned()) else { return Ok(None) };
    let [start, end, steps] = [0, 1, 2].map(|i| site.nth(i).clone());
    if t.dtype != DType::Float32 {
        return Ok(None);
    }
    let mut p = Pen(site);
    let powers = p.call(op!("aten.linspace.default"), vec![start, end, steps, Arg::DType(t.dtype)])?;
    p.ends(&Ex::from(powers).power_of(base))
}

/// `Σ wᵢ · cos(2πin / N)`. Sources: torch.hann_window, torch.hamming_window, torch.blackman_window.
fn window(site: &mut Site<'_>, weights: &[f64]) -> Result {
    let (Some(n), Some(t)) = (site.nth(0).as_int().filter(|&n| n > 1), site.result().cloned()) else { return Ok(None) };
    let periodic = site.arg("periodic").as_bool() != Some(false);
    if t.dtype != DType::Float32 {
        return Ok(None);
    }
    let turn = 2.0 * std::f64::consts::PI / if periodic { n } else { n - 1 } as f64;
    let mut p = Pen(site);
    let ramp = p.call(op!("aten.arange.start_step"), vec![Arg::Int(0), Arg::Int(n), Arg::Int(1), Arg::DType(t.dtype)])?;
    let ramp = Ex::from(ramp);
    let mut y: Option<Ex> = None;
    for (i, &w) in weights.iter().enumerate().skip(1) {
        let wave = (&ramp * (turn * i as f64)).cos() * w;
        y = Some(match y {
            None => wave + weights.first().copied().unwrap_or(0.0),
            Some(y) => y + wave,
        });
    }
    match y {
        Some(y) => p.ends(&y),
        None => Ok(None),
    }
}

pub(super) fn hann(site: &mut Site<'_>) -> Result {
    window(site, &[0.5, -0.5])
}

pub(super) fn hamming(site: &mut Site<'_>) -> Result {
    let named = |name: &str, default: f64| site.arg(name).as_float().unwrap_or(default);
    let weights = [named("alpha", 0.54), -named("beta", 0.46)];
    window(site, &weights)
}

pub(super) fn blackman(site: &mut Site<'_>) -> Result {
    window(site, &[0.42, -0.5, 0.08])
}
