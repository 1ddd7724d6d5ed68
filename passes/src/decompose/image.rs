//! Sampling of images at computed places, and pooling that says where.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::diagonal::ramp;
use super::expr::Ex;
use super::no;
use super::pen::Pen;
use crate::calls::{args, as_ints, ints};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;
type Value = std::result::Result<Option<Arg>, Error>;

/// `theta` times the corner of every pixel, or its middle. Source: torch.nn.functional.affine_grid.
pub(super) fn affine_grid(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let aligned = site.arg("align_corners").as_bool() == Some(true);
    let (Some(batch), Some(axes)) = (t.shape.first().cloned(), to.rank().checked_sub(2)) else { return Ok(None) };
    let mut p = Pen(site);
    let theta = p.operand(0)?;
    let theta = p.write(&theta)?;
    let column = |p: &mut Pen<'_, '_>, i: usize| -> Value {
        let c = p.call(op!("aten.select.int"), vec![theta.clone(), Arg::Int(2), Arg::Int(i as i64)])?;
        let mut shape = vec![Dim::Int(1); axes + 2];
        if let (Some(first), Some(n)) = (shape.first_mut(), Some(batch.clone())) {
            *first = n;
        }
        if let Some(last) = shape.last_mut() {
            *last = Dim::Int(axes as i64);
        }
        p.view(&c, &shape)
    };
    let Some(mut y) = column(&mut p, axes)?.map(Ex::from) else { return Ok(None) };
    for i in 0..axes {
        // The first coordinate runs along the last axis.
        let axis = axes - i;
        let Some(n) = to.shape.get(axis).and_then(Dim::as_int) else { return Ok(None) };
        let (Some(places), Some(c)) = (ramp(&mut p, &Dim::Int(n), axis, axes + 2)?, column(&mut p, i)?) else { return Ok(None) };
        let places = Ex::from(places).cast(DType::Float32);
        let at = match (aligned, n) {
            (_, 1) => places * 0.0,
            (true, n) => places * (2.0 / (n - 1) as f64) - 1.0,
            (false, n) => places * (2.0 / n as f64) + (1.0 / n as f64 - 1.0),
        };
        y = y + at * c;
    }
    p.ends(&y)
}

/// What lies outside an image.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Outside {
    Zeros,
    Border,
    Reflection,
}

/// One axis of the image that is sampled.
pub(super) struct Axis {
    /// Its size, if it is known now; else as a number that the program computes.
    known: Option<i64>,
    size: Ex,
    /// Elements between neighbours.
    step: Ex,
    aligned: bool,
    outside: Outside,
}

impl Axis {
    /// One of a known size, outside of which is nothing.
    pub(super) fn of_size(n: i64, step: i64) -> Self {
        Axis { known: Some(n), size: Ex::from(n as f64), step: Ex::from(step), aligned: false, outside: Outside::Zeros }
    }

    /// The two pixels around a place, by how near they are.
    pub(super) fn linear(&self, at: &Ex) -> Vec<Tap> {
        let low = at.floor();
        let within = at - &low;
        vec![Tap::new(self, low.clone(), Some(-&within + 1.0)), Tap::new(self, &low + 1.0, Some(within))]
    }

    /// From -1…1 to pixels.
    fn pixel(&self, x: &Ex) -> Ex {
        match self.known {
            Some(n) if self.aligned => (x + 1.0) * ((n - 1) as f64 / 2.0),
            Some(n) => ((x + 1.0) * n as f64 - 1.0) * 0.5,
            None if self.aligned => (x + 1.0) * ((&self.size - 1.0) * 0.5),
            None => ((x + 1.0) * &self.size - 1.0) * 0.5,
        }
    }

    /// The last place.
    fn last(&self) -> Ex {
        self.known.map_or_else(|| &self.size - 1.0, |n| Ex::from((n - 1) as f64))
    }

    fn clamped(&self, at: &Ex) -> Ex {
        self.known.map_or_else(|| at.at_least(0.0).min(self.last()), |n| at.clamp(0.0, (n - 1) as f64))
    }

    /// Brought inside, as far as the mode asks.
    fn inside(&self, at: &Ex) -> Ex {
        match self.outside {
            Outside::Zeros => at.clone(),
            Outside::Border => self.clamped(at),
            Outside::Reflection => {
                let low = if self.aligned { 0.0 } else { -0.5 };
                let far = (at - low).abs();
                let (rest, turns, span) = match self.known {
                    Some(1) if self.aligned => return at * 0.0,
                    Some(n) => {
                        let span = if self.aligned { n - 1 } else { n } as f64;
                        (far.remainder(span), (&far * (1.0 / span)).floor(), Ex::from(span + low))
                    }
                    None => {
                        let span = if self.aligned { self.last() } else { self.size.clone() };
                        (far.remainder(&span), (&far / &span).floor(), span + low)
                    }
                };
                self.clamped(&turns.remainder(2.0).eq(0i64).then(&rest + low, -&rest + span))
            }
        }
    }
}

/// A place along an axis: where it is, what it weighs, and whether it is in the image.
pub(super) struct Tap {
    at: Ex,
    weight: Option<Ex>,
    valid: Option<Ex>,
}

impl Tap {
    fn new(axis: &Axis, at: Ex, weight: Option<Ex>) -> Tap {
        let valid = (axis.outside == Outside::Zeros).then(|| at.ge(0i64).and(at.le(axis.last())));
        // A place that is no number must not become an index.
        let at = at.eq(&at).then(&at, 0.0);
        Tap { at: axis.clamped(&at).cast(DType::Int64) * &axis.step, weight, valid }
    }
}

/// `((a + 2)x - (a + 3))x² + 1` within 1 of the place, `a(x³ - 5x² + 8x - 4)` up to 2, with a = -0.75. Source: cubic convolution.
pub(super) fn cubic(x: &Ex, near: bool) -> Ex {
    let a = -0.75;
    let x = x.abs();
    if near { x.polynomial(&[a + 2.0, -(a + 3.0), 0.0, 1.0]) } else { x.polynomial(&[a, -5.0 * a, 8.0 * a, -4.0 * a]) }
}

/// The image between pixels, at places that a grid names. Source: torch.nn.functional.grid_sample.
pub(super) fn grid_sample(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let (Some(mode), Some(padding)) = (site.arg("interpolation_mode").as_int(), site.arg("padding_mode").as_int()) else { return Ok(None) };
    let aligned = site.arg("align_corners").as_bool() == Some(true);
    let outside = match padding {
        0 => Outside::Zeros,
        1 => Outside::Border,
        2 => Outside::Reflection,
        _ => return Ok(None),
    };
    let [batch, channels, spatial @ ..] = t.shape.as_slice() else { return Ok(None) };
    // Reflection in an image of one pixel has no period.
    let least = if outside == Outside::Reflection && aligned { 2 } else { 1 };
    let small = |n: &Dim| n.as_int().map_or_else(|| site.ranges().bounds(n).min.is_none_or(|n| n < least), |n| n < 1);
    if spatial.iter().any(small) {
        return Ok(None);
    }
    let places: Vec<Dim> = to.shape.iter().skip(2).cloned().collect();
    let mut p = Pen(site);
    let grid = p.operand(1)?;
    let grid = p.write(&grid)?;
    let mut taps = Vec::new();
    for (d, n) in spatial.iter().enumerate() {
        let (Some(size), Some(step)) = (p.0.size(n), p.0.size(&Dim::product(spatial.iter().skip(d + 1)))) else { return Ok(None) };
        let size = match n.as_int() {
            Some(n) => Ex::from(n as f64),
            None => Ex::from(p.call(op!("aten.full.default"), vec![Arg::List(Vec::new()), size, Arg::DType(DType::Float32)])?),
        };
        let axis = Axis { known: n.as_int(), size, step: Ex::from(step), aligned, outside };
        let x = p.call(op!("aten.select.int"), vec![grid.clone(), Arg::Int(-1), Arg::Int((spatial.len() - 1 - d) as i64)])?;
        let at = axis.pixel(&Ex::from(x));
        taps.push(match mode {
            1 => vec![Tap::new(&axis, axis.inside(&at).round(), None)],
            2 => {
                let low = at.floor();
                let within = &at - &low;
                (-1..=2)
                    .map(|i| {
                        let weight = cubic(&(&within - f64::from(i)), i == 0 || i == 1);
                        Tap::new(&axis, axis.inside(&(&low + f64::from(i))), Some(weight))
                    })
                    .collect()
            }
            0 => axis.linear(&axis.inside(&at)),
            _ => return Ok(None),
        });
    }
    let x = p.operand(0)?;
    let x = p.write(&x)?;
    let Some(flat) = p.view(&x, &[batch.clone(), channels.clone(), Dim::product(spatial)])? else { return Ok(None) };
    let y = between(&mut p, &flat, &taps, [batch, channels], &places)?;
    p.ends(&y)
}

/// The sum of what the taps along each axis name, by their weights. `flat` is `[batch, channels, pixels]`, the taps are at
/// `[batch, places…]`, the result is `[batch, channels, places…]`.
pub(super) fn between(
    p: &mut Pen<'_, '_>,
    flat: &Arg,
    taps: &[Vec<Tap>],
    [batch, channels]: [&Dim; 2],
    places: &[Dim],
) -> std::result::Result<Ex, Error> {
    let shape: Vec<Dim> = [batch, channels].into_iter().chain(places).cloned().collect();
    let count = Dim::product(places);
    let mut sum: Option<Ex> = None;
    let corners: usize = taps.iter().map(Vec::len).product();
    for mut corner in 0..corners {
        let (mut at, mut weight, mut valid): (Option<Ex>, Option<Ex>, Option<Ex>) = (None, None, None);
        for axis in taps {
            let Some(tap) = axis.get(corner % axis.len().max(1)) else { return no("there is nothing to look at") };
            corner /= axis.len().max(1);
            at = Some(at.map_or_else(|| tap.at.clone(), |a| a + &tap.at));
            weight = match (weight, &tap.weight) {
                (Some(a), Some(b)) => Some(a * b),
                (a, b) => a.or_else(|| b.clone()),
            };
            valid = match (valid, &tap.valid) {
                (Some(a), Some(b)) => Some(a.and(b)),
                (a, b) => a.or_else(|| b.clone()),
            };
        }
        let Some(at) = at else { return no("the image has no axes") };
        // What every corner has in common is written once: the parts are shared, the calls on them are equal and merged later.
        let at = p.write(&at)?;
        let (Some(at), Some(all)) =
            (p.view(&at, &[batch.clone(), Dim::Int(1), count.clone()])?, p.0.sizes(&[batch.clone(), channels.clone(), count.clone()]))
        else {
            return no("the number of places cannot be computed from the sizes of the inputs");
        };
        let at = p.call(op!("aten.expand.default"), vec![at, all])?;
        let value = p.call(op!("aten.gather.default"), vec![flat.clone(), Arg::Int(2), at])?;
        let Some(value) = p.view(&value, &shape)? else { return no("its sizes cannot be computed from those of the inputs") };
        let mut value = Ex::from(value);
        if let Some(w) = weight {
            value = value * w.unsqueeze(1i64);
        }
        if let Some(v) = valid {
            value = v.unsqueeze(1i64).then(value, 0.0);
        }
        sum = Some(match sum {
            None => value,
            Some(s) => Ex::from(p.write(&s)?) + value,
        });
    }
    sum.map_or_else(|| no("there is nothing to look at"), Ok)
}

fn per_axis(arg: &Arg, n: usize) -> Option<Vec<i64>> {
    match as_ints(arg)?.as_slice() {
        [one] => Some(vec![*one; n]),
        all if all.len() == n => Some(all.to_vec()),
        _ => None,
    }
}

/// The largest of every window and where it stands in the image: windows unfolded and taken flat, the position in the window turned
/// into one in the image by a table. Source: torch.nn.MaxPool1d, 2d, 3d with `return_indices`.
pub(super) fn max_pool(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let n = by_op!(site.op(), {
        "aten.max_pool1d_with_indices.default" => 1,
        "aten.max_pool2d_with_indices.default" => 2,
        _ => 3,
    });
    let Some(kernel) = per_axis(site.arg("kernel_size"), n) else { return Ok(None) };
    let named = |name: &str, default: &[i64]| match site.arg(name) {
        Arg::List(l) if l.is_empty() => Some(default.to_vec()),
        Arg::None => Some(default.to_vec()),
        a => per_axis(a, n),
    };
    let (Some(stride), Some(padding), Some(dilation)) =
        (named("stride", &kernel), named("padding", &vec![0; n]), named("dilation", &vec![1; n]))
    else {
        return Ok(None);
    };
    let Some(lead) = t.rank().checked_sub(n) else { return Ok(None) };
    let known = |shape: &[Dim]| shape.iter().skip(lead).map(Dim::as_int).collect::<Option<Vec<_>>>();
    let (Some(size), Some(out)) = (known(&t.shape), known(&to.shape)) else { return Ok(None) };
    if !t.dtype.is_float() {
        return Ok(None);
    }
    let mut p = Pen(site);
    let mut x = p.0.nth(0).clone();
    let each = || kernel.iter().zip(&stride).zip(&padding).zip(&dilation).zip(size.iter().zip(&out));
    let mut pads = Vec::new();
    for ((((k, s), before), d), (n, o)) in each() {
        pads.push([*before, ((o - 1) * s + (k - 1) * d + 1 - n - before).max(0)]);
    }
    pads.reverse();
    if pads.iter().flatten().any(|&n| n > 0) {
        x = p.call(op!("aten.constant_pad_nd.default"), vec![x, ints(pads.concat()), Arg::Float(f64::NEG_INFINITY)])?;
    }
    let rank = t.rank();
    // Positions in the image: of the first element of each window, and from there of each element of the window.
    let (mut first, mut within): (Option<Ex>, Option<Ex>) = (None, None);
    for (i, ((((&k, &s), &before), &d), (_, &o))) in each().enumerate() {
        let reach = (k - 1) * d + 1;
        x = p.call(op!("aten.unfold.default"), vec![x, Arg::Int((lead + i) as i64), Arg::Int(reach), Arg::Int(s)])?;
        x = p.slice(&x, lead + i, Arg::Int(0), Arg::Int(o))?;
        x = p.call(op!("aten.slice.Tensor"), vec![x, Arg::Int((rank + i) as i64), Arg::Int(0), Arg::Int(reach), Arg::Int(d)])?;
        let step: i64 = size.iter().skip(i + 1).product();
        let (Some(windows), Some(elements)) = (ramp(&mut p, &Dim::Int(o), i, n)?, ramp(&mut p, &Dim::Int(k), i, n)?) else {
            return Ok(None);
        };
        let (windows, elements) = (Ex::from(windows) * (s * step) - before * step, Ex::from(elements) * (d * step));
        first = Some(first.map_or_else(|| windows.clone(), |f| f + &windows));
        within = Some(within.map_or_else(|| elements.clone(), |f| f + &elements));
    }
    let (Some(first), Some(within)) = (first, within) else { return Ok(None) };
    let count = Dim::Int(kernel.iter().product());
    let mut shape: Vec<Dim> = to.shape.clone();
    shape.push(count.clone());
    let Some(flat) = p.view(&x, &shape)? else { return Ok(None) };
    let values = p.reduce(op!("aten.amax.default"), &flat, &[rank], false)?;
    let at = p.call(op!("aten.argmax.default"), vec![flat, Arg::Int(rank as i64), Arg::Bool(false)])?;
    let within = p.write(&within)?;
    let Some(table) = p.view(&within, &[count])? else { return Ok(None) };
    let at = p.call(op!("aten.index.Tensor"), vec![table, Arg::List(vec![at])])?;
    let at = p.write(&(Ex::from(at) + first))?;
    Ok(Some(Patch::Values(vec![values, at])))
}

/// Windows of different sizes, from `i·n/m` rounded down to `(i + 1)·n/m` rounded up, all made as wide as the widest by their last element,
/// which comes after itself and so is never the first. Source: torch.nn.AdaptiveMaxPool1d, 2d, 3d with `return_indices`.
fn uneven_max_pool(site: &mut Site<'_>, n: usize) -> Result {
    let (Some(t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let Some(lead) = t.rank().checked_sub(n) else { return Ok(None) };
    if !t.dtype.is_float() {
        return Ok(None);
    }
    let mut p = Pen(site);
    let mut x = p.0.nth(0).clone();
    let mut place: Option<Ex> = None;
    let mut wide = Vec::new();
    for (i, (have, parts)) in t.shape.iter().zip(&to.shape).skip(lead).enumerate() {
        let (Some(have), Some(parts)) = (have.as_int(), parts.as_int().filter(|n| *n > 0)) else { return Ok(None) };
        let start = |k: i64| k * have / parts;
        let end = |k: i64| ((k + 1) * have + parts - 1) / parts;
        let Some(reach) = (0..parts).map(|k| end(k) - start(k)).max().filter(|n| *n > 0) else { return Ok(None) };
        let axes = 2 * n;
        let (Some(window), Some(within)) = (ramp(&mut p, &Dim::Int(parts), i, axes)?, ramp(&mut p, &Dim::Int(reach), n + i, axes)?) else {
            return Ok(None);
        };
        let divided = |x: Ex| Ex::call(op!("aten.floor_divide.default"), vec![x, Ex::from(parts)]);
        let window = Ex::from(window);
        let (first, last) = (divided(&window * have), divided((&window + 1i64) * have + (parts - 1)) - 1i64);
        let at = (first + Ex::from(within)).min(last);
        let step: i64 = t.shape.iter().skip(lead + i + 1).filter_map(Dim::as_int).product();
        place = Some(place.map_or_else(|| &at * step, |p| p + &at * step));
        wide.push(reach);
    }
    let (Some(place), taps) = (place, wide.iter().product::<i64>()) else { return Ok(None) };
    let outer: Vec<Dim> = t.shape.iter().take(lead).cloned().collect();
    let spots: Vec<Dim> = to.shape.iter().skip(lead).cloned().collect();
    let table = p.write(&place)?;
    let Some(table) = p.view(&table, &[Dim::product(&spots).times(&Dim::Int(taps))])? else { return Ok(None) };
    let mut flat = outer.clone();
    flat.push(Dim::product(t.shape.iter().skip(lead)));
    let Some(pixels) = p.view(&x, &flat)? else { return Ok(None) };
    x = p.call(op!("aten.index_select.default"), vec![pixels, Arg::Int(lead as i64), table.clone()])?;
    let mut shape = to.shape.clone();
    shape.push(Dim::Int(taps));
    let Some(seen) = p.view(&x, &shape)? else { return Ok(None) };
    let rank = t.rank();
    let values = p.reduce(op!("aten.amax.default"), &seen, &[rank], false)?;
    let at = p.call(op!("aten.argmax.default"), vec![seen, Arg::Int(rank as i64), Arg::Bool(false)])?;
    // The row of the table that belongs to each place.
    let Some(rows) = ramp(&mut p, &Dim::product(&spots), 0, 1)? else { return Ok(None) };
    let rows = p.write(&(Ex::from(rows) * taps))?;
    let mut row_shape = vec![Dim::Int(1); lead];
    row_shape.extend(spots);
    let Some(rows) = p.view(&rows, &row_shape)? else { return Ok(None) };
    let at = p.write(&(Ex::from(at) + Ex::from(rows)))?;
    let at = p.call(op!("aten.index.Tensor"), vec![table, Arg::List(vec![at])])?;
    Ok(Some(Patch::Values(vec![values, at])))
}

/// Windows of equal size side by side. Source: torch.nn.AdaptiveMaxPool1d, 2d, 3d with `return_indices`.
pub(super) fn adaptive_max_pool(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let (axes, op) = by_op!(site.op(), {
        "aten.adaptive_max_pool1d.default" => (1, op!("aten.max_pool1d_with_indices.default")),
        "aten.adaptive_max_pool2d.default" => (2, op!("aten.max_pool2d_with_indices.default")),
        _ => (3, op!("aten.max_pool3d_with_indices.default")),
    });
    let Some(lead) = t.rank().checked_sub(axes) else { return Ok(None) };
    let mut kernel = Vec::new();
    for (n, o) in t.shape.iter().zip(&to.shape).skip(lead) {
        match (n.as_int(), o.as_int()) {
            (Some(n), Some(o)) if o > 0 && n % o == 0 => kernel.push(n / o),
            _ => return uneven_max_pool(site, axes),
        }
    }
    let x = site.nth(0).clone();
    Ok(Some(Patch::Call(op, args(op, [x, ints(kernel.clone()), ints(kernel)], &[]))))
}

/// Back to the places that the pooling named, zeros elsewhere. Source: torch.nn.MaxUnpool2d, 3d.
pub(super) fn max_unpool(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let n = by_op!(site.op(), {
        "aten.max_unpool2d.default" => 2,
        _ => 3,
    });
    let Some(lead) = t.rank().checked_sub(n) else { return Ok(None) };
    let flat = |shape: &[Dim]| {
        let (outer, inner) = shape.split_at_checked(lead)?;
        Some(outer.iter().cloned().chain([Dim::product(inner)]).collect::<Vec<_>>())
    };
    let (Some(from), Some(into)) = (flat(&t.shape), flat(&to.shape)) else { return Ok(None) };
    let mut p = Pen(site);
    let (x, at) = (p.0.nth(0).clone(), p.0.nth(1).clone());
    let (Some(x), Some(at), Some(sizes)) = (p.view(&x, &from)?, p.view(&at, &from)?, p.0.sizes(&into)) else { return Ok(None) };
    let zero = p.call(op!("aten.full.default"), vec![sizes, Arg::Float(0.0), Arg::DType(t.dtype)])?;
    let y = p.call(op!("aten.scatter.src"), vec![zero, Arg::Int(lead as i64), at, x])?;
    match p.view(&y, &to.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}
