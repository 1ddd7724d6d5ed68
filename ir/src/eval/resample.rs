//! Padding, and images in other sizes.

use super::call::{Call, Results, one};
use super::element::round;
use super::functions::clamp;
use super::order::lines;
use super::tensor::Tensor;
use super::{Error, bad, budget};
use crate::DType;

/// What stands outside.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fill {
    Value(f64),
    Reflect,
    Replicate,
    Circular,
}

/// A dimension with so many positions before and after; negative numbers cut off.
pub(super) fn padded(t: &Tensor, axis: usize, before: i64, after: i64, fill: &Fill) -> Result<Tensor, Error> {
    let n = t.size(axis) as i64;
    if before.unsigned_abs().max(after.unsigned_abs()) > 1 << 40 {
        return Err(bad(format!("padding {before}, {after}")));
    }
    let length = n.saturating_add(before).saturating_add(after);
    let length = usize::try_from(length).map_err(|_| bad(format!("padding {before}, {after} of a dimension of size {n}")))?;
    super::tensor::count(&[length, t.numel() / t.size(axis).max(1)])?;
    let limit = match fill {
        Fill::Reflect => n - 1,
        Fill::Circular => n,
        _ => i64::MAX,
    };
    if before.max(after) > limit || (n == 0 && !matches!(fill, Fill::Value(_))) {
        return Err(bad(format!("padding {before}, {after} of a dimension of size {n}")));
    }
    if let Fill::Value(v) = fill {
        let mut shape = t.shape().to_vec();
        if let Some(s) = shape.get_mut(axis) {
            *s = length;
        }
        let out = Tensor::full(t.dtype(), &shape, *v)?;
        let (from, to) = ((-before).max(0), before.max(0));
        let kept = (n + before.min(0) + after.min(0)).max(0) as usize;
        out.slice(axis, to as usize, kept, 1)?.write(&t.slice(axis, from as usize, kept, 1)?)?;
        return out.copy();
    }
    let place = |i: i64| match fill {
        Fill::Replicate => i.clamp(0, n - 1),
        Fill::Circular => i.rem_euclid(n),
        _ => (n - 1 - (n - 1 - i.abs()).abs()).max(0),
    };
    super::indexing::take(t, axis, &Tensor::of(DType::Int64, &[length], (0..length as i64).map(|i| place(i - before)))?)
}

/// Pairs of numbers, for the last dimension first.
pub(super) fn pad_with(c: &Call, t: &Tensor, fill: &Fill) -> Results {
    let name = ["pad", "padding"].into_iter().find(|n| c.given(n)).unwrap_or("pad");
    let pads = c.ints(name)?;
    if pads.len() % 2 != 0 || pads.len() / 2 > t.rank() {
        return Err(bad(format!("padding {pads:?} of a tensor of rank {}", t.rank())));
    }
    let rank = t.rank();
    let pairs = pads.chunks(2).enumerate().filter_map(|(i, p)| Some((rank - 1 - i, *p.first()?, *p.get(1)?)));
    one(pairs.into_iter().try_fold(t.copy()?, |t, (axis, before, after)| padded(&t, axis, before, after, fill))?)
}

pub(super) fn pad(c: &Call) -> Results {
    let fill = match c.text("mode") {
        None | Some("constant") => Fill::Value(c.float_or("value", 0.0)?),
        Some("reflect") => Fill::Reflect,
        Some("replicate") => Fill::Replicate,
        Some("circular") => Fill::Circular,
        Some(other) => return Err(bad(format!("mode {other:?}"))),
    };
    pad_with(c, &c.first()?, &fill)
}

pub(super) fn reflect(c: &Call) -> Results {
    pad_with(c, &c.first()?, &Fill::Reflect)
}

pub(super) fn replicate(c: &Call) -> Results {
    pad_with(c, &c.first()?, &Fill::Replicate)
}

/// How values between elements come about.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Method {
    Nearest,
    NearestExact,
    Linear,
    Cubic,
    /// Linear and cubic over as many elements as one result covers.
    LinearSmooth,
    CubicSmooth,
}

/// The cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        a * (((x - 5.0) * x + 8.0) * x - 4.0)
    } else {
        0.0
    }
}

/// Which elements make result number `i` of a dimension, with their weights.
pub(super) fn sources(i: usize, n: usize, scale: f64, aligned: bool, method: Method) -> Vec<(usize, f64)> {
    let last = n.saturating_sub(1);
    let clamp = |at: f64| clamp(at, 0.0, last as f64) as usize;
    let i = i as f64;
    // torch computes positions in `f32`.
    let f32 = |x: f64| round(DType::Float32, x);
    let centre = if aligned { scale * i } else { scale * (i + 0.5) - 0.5 };
    match method {
        Method::Nearest => vec![(clamp(f32(i * f32(scale)).floor()), 1.0)],
        Method::NearestExact => vec![(clamp(f32((i + 0.5) * f32(scale)).floor()), 1.0)],
        Method::Linear => {
            let at = if aligned { centre } else { centre.max(0.0) };
            let (low, part) = (at.floor(), at - at.floor());
            vec![(clamp(low), 1.0 - part), (clamp(low + 1.0), part)]
        }
        Method::Cubic => {
            let (low, part) = (centre.floor(), centre - centre.floor());
            (-1..3).map(|k| (clamp(low + f64::from(k)), cubic(f64::from(k) - part, -0.75))).collect()
        }
        Method::LinearSmooth | Method::CubicSmooth => {
            let half = if method == Method::LinearSmooth { 1.0 } else { 2.0 };
            let (wide, centre) = (scale.max(1.0), scale * (i + 0.5));
            let (from, to) = ((centre - half * wide + 0.5).max(0.0) as usize, ((centre + half * wide + 0.5) as usize).min(n));
            let weigh = |at: usize| {
                let x = (at as f64 - centre + 0.5) / wide;
                if method == Method::LinearSmooth { (1.0 - x.abs()).max(0.0) } else { cubic(x, -0.5) }
            };
            let total: f64 = (from..to).map(weigh).sum();
            (from..to).map(|at| (at, weigh(at) / total)).collect()
        }
    }
}

/// How far results are apart in a dimension of `have` elements.
pub(super) fn step(have: usize, size: usize, factor: Option<f64>, aligned: bool) -> f64 {
    match factor {
        _ if aligned => (have - 1) as f64 / (size.max(2) - 1) as f64,
        Some(f) if f > 0.0 => 1.0 / f,
        _ => have as f64 / size as f64,
    }
}

/// Counts the sources of so many results; smooth ones may be all elements.
pub(super) fn covered(size: usize, have: usize, method: Method) -> Result<(), Error> {
    let smooth = matches!(method, Method::LinearSmooth | Method::CubicSmooth);
    budget::spend(size.saturating_mul(if smooth { have } else { 4 }))
}

/// The factors of the last `n` dimensions, where they are given.
pub(super) fn factors(c: &Call, n: usize) -> Result<Vec<Option<f64>>, Error> {
    Ok(match c.maybe_floats("scale_factors")? {
        Some(f) => f.into_iter().map(Some).collect(),
        None if n == 1 => vec![c.maybe_float("scales")?],
        None => ["scales_d", "scales_h", "scales_w"].into_iter().skip(3 - n.min(3)).map(|s| c.maybe_float(s)).collect::<Result<_, _>>()?,
    })
}

/// The last `n` dimensions in another size; sizes and factors as torch gives them in either overload.
pub(super) fn upsample(c: &Call, n: usize, method: Method) -> Results {
    let t = c.first()?;
    let first = t.rank().checked_sub(n).ok_or_else(|| bad("too few dimensions"))?;
    let factors = factors(c, n)?;
    let scaled = |(i, f): (usize, &Option<f64>)| f.map_or(0, |f| (t.size(first + i) as f64 * f).floor() as usize);
    let sizes = if c.given("output_size") { c.sizes("output_size")? } else { factors.iter().enumerate().map(scaled).collect() };
    if sizes.len() != n {
        return Err(bad(format!("sizes {sizes:?} for {n} dimensions")));
    }
    super::tensor::count(&t.shape().iter().take(first).chain(&sizes).copied().collect::<Vec<_>>())?;
    let aligned = c.flag("align_corners");
    let small = matches!(*sizes, [h, w] if h.saturating_add(w) <= 128);
    let integers = t.dtype();
    // Between the dimensions nothing is rounded.
    let mut out = t.cast(DType::Float64)?;
    for (i, &size) in sizes.iter().enumerate() {
        let have = t.size(first + i);
        if have == 0 {
            return Err(bad("an image without extent"));
        }
        let scale = match factors.get(i).copied().flatten() {
            // The kernel for small images takes elements as they lie, whatever the factor says.
            _ if small && !aligned && method == Method::Nearest && (size == have || size == 2 * have) => have as f64 / size as f64,
            factor => step(have, size, factor, aligned),
        };
        covered(size, have, method)?;
        let weights: Vec<_> = (0..size).map(|k| sources(k, have, scale, aligned, method)).collect();
        out = lines(&out, first + i, DType::Float64, |line: &[f64]| {
            let value = |w: &Vec<(usize, f64)>| match w.as_slice() {
                // As it is, infinite or not.
                [(at, _)] => line.get(*at).copied().unwrap_or(0.0),
                all => all.iter().map(|(at, w)| line.get(*at).copied().unwrap_or(0.0) * w).sum(),
            };
            weights.iter().map(value).collect()
        })?;
    }
    one(out.cast(integers)?)
}

/// Blocks of channels as pixels.
pub(super) fn pixel_shuffle(c: &Call) -> Results {
    let (t, r) = (c.first()?, c.size("upscale_factor")?);
    let [outer @ .., channels, h, w] = t.shape() else { return Err(bad("no image")) };
    if r == 0 || channels % (r * r) != 0 {
        return Err(bad(format!("{channels} channels in blocks of {r}²")));
    }
    let k = outer.len();
    let split = t.reshape(&[outer, &[channels / (r * r), r, r, *h, *w]].concat())?;
    let order: Vec<usize> = (0..k).chain([k, k + 3, k + 1, k + 4, k + 2]).collect();
    one(split.permute(&order)?.reshape(&[outer, &[channels / (r * r), h * r, w * r]].concat())?.copy()?)
}

/// Pixels as blocks of channels.
pub(super) fn pixel_unshuffle(c: &Call) -> Results {
    let (t, r) = (c.first()?, c.size("downscale_factor")?);
    let [outer @ .., channels, h, w] = t.shape() else { return Err(bad("no image")) };
    if r == 0 || h % r != 0 || w % r != 0 {
        return Err(bad(format!("an image of {h}×{w} in blocks of {r}")));
    }
    let k = outer.len();
    let split = t.reshape(&[outer, &[*channels, h / r, r, w / r, r]].concat())?;
    let order: Vec<usize> = (0..k).chain([k, k + 2, k + 4, k + 1, k + 3]).collect();
    one(split.permute(&order)?.reshape(&[outer, &[channels.saturating_mul(r * r), h / r, w / r]].concat())?.copy()?)
}

pub(super) fn channel_shuffle(c: &Call) -> Results {
    let (t, g) = (c.first()?, c.size("groups")?);
    let [batch, channels, rest @ ..] = t.shape() else { return Err(bad("no channels")) };
    if g == 0 || channels % g != 0 {
        return Err(bad(format!("{channels} channels in {g} groups")));
    }
    let split = t.reshape(&[&[*batch, g, channels / g], rest].concat())?;
    one(split.transpose(1, 2)?.reshape(t.shape())?.copy()?)
}

/// A position in `[-1, 1]` as one in pixels, brought inside as the padding mode asks.
fn pixel(x: f64, n: usize, aligned: bool, padding: i64) -> f64 {
    let last = n as f64 - 1.0;
    let at = unnormalised(x, n, aligned);
    match padding {
        1 => clamp(at, 0.0, last),
        2 => reflected(at, n, aligned),
        _ => at,
    }
}

fn unnormalised(x: f64, n: usize, aligned: bool) -> f64 {
    if aligned { (x + 1.0) / 2.0 * (n as f64 - 1.0) } else { ((x + 1.0) * n as f64 - 1.0) / 2.0 }
}

fn reflected(at: f64, n: usize, aligned: bool) -> f64 {
    let (low, span) = if aligned { (0.0, n as f64 - 1.0) } else { (-0.5, n as f64) };
    if span == 0.0 {
        return 0.0;
    }
    let d = (at - low).abs();
    let rest = d % span;
    let at = if (d / span).floor() % 2.0 == 0.0 { rest + low } else { span - rest + low };
    clamp(at, 0.0, n as f64 - 1.0)
}

/// `grid_sampler`: linear (0), nearest (1), bicubic (2, images only); outside zeros (0), the border (1), reflection (2). The grid names
/// the last dimension first.
pub(super) fn grid_sample(c: &Call) -> Results {
    let (t, grid) = (c.tensor("input")?, c.tensor("grid")?);
    let (mode, padding, aligned) = (c.int("interpolation_mode")?, c.int("padding_mode")?, c.flag("align_corners"));
    let ([batch, channels, sizes @ ..], [_, places @ .., k]) = (t.shape(), grid.shape()) else { return Err(bad("no image")) };
    if *k != sizes.len() || places.len() != sizes.len() || (mode == 2 && sizes.len() != 2) {
        return Err(bad("a grid of another number of dimensions"));
    }
    if sizes.len() > 3 || sizes.contains(&0) {
        return Err(bad(format!("an image of sizes {sizes:?}")));
    }
    super::tensor::count(&[&[*batch, *channels], places].concat())?;
    let (values, at) = (t.to::<f64>(), grid.to::<f64>());
    let (plane, count) = (sizes.iter().product::<usize>(), places.iter().product::<usize>());
    let mut out: Vec<f64> = Vec::new();
    for image in 0..batch * channels {
        let pixels = values.get(image * plane..(image + 1) * plane).unwrap_or(&[]);
        let pixel_at = |place: &[f64]| {
            let mut index = 0;
            for (x, &n) in place.iter().zip(sizes) {
                if !(0.0..n as f64).contains(x) {
                    return 0.0;
                }
                index = index * n + *x as usize;
            }
            pixels.get(index).copied().unwrap_or(0.0)
        };
        for i in 0..count {
            let first = ((image / channels.max(&1)) * count + i) * k;
            // From the first dimension on.
            let raw: Vec<f64> = (0..*k).rev().map(|d| at.get(first + d).copied().unwrap_or(0.0)).collect();
            let place: Vec<f64> = raw.iter().zip(sizes).map(|(x, n)| pixel(*x, *n, aligned, padding)).collect();
            // Neighbours along each dimension: where they are, and what they weigh.
            let taps: Vec<Vec<(f64, f64)>> = match mode {
                1 => place.iter().map(|x| vec![(x.round_ties_even(), 1.0)]).collect(),
                2 => raw.iter().zip(sizes).map(|(x, n)| cubic_taps(unnormalised(*x, *n, aligned), *n, aligned, padding)).collect(),
                _ => place.iter().map(|x| vec![(x.floor(), 1.0 - (x - x.floor())), (x.floor() + 1.0, x - x.floor())]).collect(),
            };
            let mut corners: Vec<(Vec<f64>, f64)> = vec![(Vec::new(), 1.0)];
            for axis in &taps {
                let next =
                    |(place, w): &(Vec<f64>, f64)| axis.iter().map(|(x, v)| ([&place[..], &[*x]].concat(), w * v)).collect::<Vec<_>>();
                corners = corners.iter().flat_map(next).collect();
            }
            out.push(corners.iter().map(|(place, w)| pixel_at(place) * w).sum());
        }
    }
    one(Tensor::of(t.dtype(), &[&[*batch, *channels], places].concat(), out)?)
}

/// Four neighbours, each brought inside by itself.
fn cubic_taps(x: f64, n: usize, aligned: bool, padding: i64) -> Vec<(f64, f64)> {
    let low = x.floor();
    let bring = |v: f64| match padding {
        1 => clamp(v, 0.0, n as f64 - 1.0),
        2 => reflected(v, n, aligned),
        _ => v,
    };
    (-1..3).map(|i| (bring(low + f64::from(i)), cubic(f64::from(i) - (x - low), -0.75))).collect()
}

/// `theta` times the places of all pixels.
pub(super) fn affine_grid(c: &Call) -> Results {
    let (theta, size, aligned) = (c.tensor("theta")?, c.sizes("size")?, c.flag("align_corners"));
    let (Some(&batch), Some(sizes)) = (size.first(), size.get(2..)) else { return Err(bad("no image")) };
    let (k, values) = (sizes.len(), theta.to::<f64>());
    super::tensor::count(&[&[batch], sizes, &[k]].concat())?;
    let mut out: Vec<f64> = Vec::new();
    for b in 0..batch {
        for i in 0..sizes.iter().product::<usize>() {
            let (mut rest, mut place) = (i, Vec::new());
            // The last dimension is the first coordinate.
            for &n in sizes.iter().rev() {
                let x = (rest % n) as f64;
                rest /= n;
                place.push(match (aligned, n) {
                    (_, 1) => 0.0,
                    (true, n) => 2.0 * x / (n as f64 - 1.0) - 1.0,
                    (false, n) => (2.0 * x + 1.0) / n as f64 - 1.0,
                });
            }
            place.push(1.0);
            for row in 0..k {
                let weight = |j: usize| values.get((b * k + row) * (k + 1) + j).copied().unwrap_or(0.0);
                out.push(place.iter().enumerate().map(|(j, x)| weight(j) * x).sum());
            }
        }
    }
    one(Tensor::of(theta.dtype(), &[&[batch], sizes, &[k]].concat(), out)?)
}
