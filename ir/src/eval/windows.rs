//! Convolutions, pooling, and what else slides a window over the last dimensions.

use super::call::{Call, Results, many, one};
use super::tensor::{Tensor, count};
use super::{Error, bad, budget};
use crate::DType;

/// What a window sees at one of its positions.
#[derive(Clone, Copy)]
pub(super) enum Seen {
    /// The element of this number.
    Element(usize),
    /// Padding.
    Padding,
    /// Beyond the padding, where rounding up made room for one more window.
    Nothing,
}

/// A window over some dimensions, all lists being of their number.
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    stride: Vec<usize>,
    padding: Vec<usize>,
    dilation: Vec<usize>,
}

/// A list of `n` from one that may have a single element (or none: then `otherwise`).
fn spread(mut list: Vec<usize>, n: usize, otherwise: &[usize]) -> Result<Vec<usize>, Error> {
    if list.is_empty() {
        list = otherwise.to_vec();
    }
    match list.as_slice() {
        [one] => Ok(vec![*one; n]),
        all if all.len() == n => Ok(list),
        _ => Err(bad(format!("{list:?} for {n} dimensions"))),
    }
}

impl Window {
    pub(super) fn read(c: &Call, kernel: Vec<usize>, stride: &[usize]) -> Result<Self, Error> {
        let n = kernel.len();
        let list = |name: &str, otherwise: &[usize]| spread(if c.given(name) { c.sizes(name)? } else { Vec::new() }, n, otherwise);
        let window = Self { stride: list("stride", stride)?, padding: list("padding", &[0])?, dilation: list("dilation", &[1])?, kernel };
        if window.stride.contains(&0) || window.dilation.contains(&0) || window.kernel.contains(&0) {
            return Err(bad("a window without extent or motion"));
        }
        Ok(window)
    }

    /// How far a window reaches along a dimension.
    fn reach(&self, axis: usize) -> usize {
        let at = |of: &[usize]| of.get(axis).copied().unwrap_or(1);
        at(&self.dilation).saturating_mul(at(&self.kernel).saturating_sub(1)).saturating_add(1)
    }

    /// How many places the window has over these sizes.
    fn places(&self, sizes: &[usize], ceil: bool) -> Result<Vec<usize>, Error> {
        let place = |axis: usize, n: usize| -> Option<usize> {
            let (stride, padding) = (*self.stride.get(axis)?, *self.padding.get(axis)?);
            let free = n.checked_add(padding.checked_mul(2)?)?.checked_sub(self.reach(axis))?;
            let places = if ceil { free.div_ceil(stride) } else { free / stride } + 1;
            // The last window must start in the input or the padding before it.
            Some(if ceil && (places - 1) * stride >= n + padding { places - 1 } else { places })
        };
        let all = sizes.iter().enumerate().map(|(i, &n)| place(i, n)).collect::<Option<Vec<_>>>();
        all.ok_or_else(|| bad(format!("a window of {:?} does not fit into {sizes:?}", self.kernel)))
    }

    /// What the window sees: for each place, for each position in the window.
    pub(super) fn seen(&self, sizes: &[usize], places: &[usize]) -> Result<Vec<Vec<Seen>>, Error> {
        let (windows, positions) = (count(places)?, count(&self.kernel)?);
        count(&[windows, positions])?;
        let one = |place: usize, position: usize| {
            let (mut place, mut position) = (place, position);
            let (mut number, mut stride, mut seen) = (0usize, 1usize, Seen::Element(0));
            for (axis, &n) in sizes.iter().enumerate().rev() {
                let at = |of: &[usize]| of.get(axis).copied().unwrap_or(1);
                let shifted = (place % at(places)) * at(&self.stride) + (position % at(&self.kernel)) * at(&self.dilation);
                place /= at(places);
                position /= at(&self.kernel);
                match shifted.checked_sub(at(&self.padding)) {
                    Some(i) if i < n => number += i * stride,
                    Some(i) if i >= n + at(&self.padding) => seen = Seen::Nothing,
                    _ if !matches!(seen, Seen::Nothing) => seen = Seen::Padding,
                    _ => {}
                }
                stride *= n;
            }
            if let Seen::Element(_) = seen { Seen::Element(number) } else { seen }
        };
        Ok((0..windows).map(|w| (0..positions).map(|p| one(w, p)).collect()).collect())
    }
}

/// `a [rows, inner] × b [inner, columns]`
fn product(a: &[f64], b: &[f64], inner: usize, columns: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for row in a.chunks(inner.max(1)) {
        let mut sums = vec![0.0; columns];
        for (x, line) in row.iter().zip(b.chunks(columns.max(1))) {
            for (sum, y) in sums.iter_mut().zip(line) {
                *sum += x * y;
            }
        }
        out.extend(sums);
    }
    out
}

/// What a convolution is told besides its tensors.
struct Convolution {
    window: Window,
    groups: usize,
    /// Of a transposed one: how much larger the result is made.
    output_padding: Option<Vec<usize>>,
}

fn convolve(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, how: &Convolution) -> Result<Tensor, Error> {
    let (window, groups, n) = (&how.window, how.groups, how.window.kernel.len());
    let wrong = || bad(format!("input {:?}, weight {:?}, {groups} groups", x.shape(), weight.shape()));
    if x.rank() == n + 1 {
        return convolve(&x.unsqueeze(0)?, weight, bias, how)?.squeeze(0);
    }
    let ([batch, channels, sizes @ ..], [first, second, ..]) = (x.shape(), weight.shape()) else { return Err(wrong()) };
    if sizes.len() != n || groups == 0 || channels % groups != 0 || first % groups != 0 || x.dtype() != weight.dtype() {
        return Err(wrong());
    }
    let (inputs, values, weights) = (channels / groups, x.to::<f64>(), weight.to::<f64>());
    let pixels: usize = sizes.iter().product();
    let taps = count(&window.kernel)?;
    let (outputs, places);
    let mut out = Vec::new();
    if let Some(more) = &how.output_padding {
        if first != channels {
            return Err(wrong());
        }
        (outputs, places) = (*second, larger(window, sizes, more)?);
        let seen = window.seen(&places, sizes)?;
        let area = count(&places)?;
        budget::work(count(&[batch * groups, outputs, taps, pixels])?, inputs)?;
        count(&[*batch, outputs * groups, area])?;
        for (b, g) in (0..*batch).flat_map(|b| (0..groups).map(move |g| (b, g))) {
            // [outputs · taps, inputs] × [inputs, pixels], each product added where the window sees it.
            let x = values.get((b * channels + g * inputs) * pixels..).unwrap_or(&[]);
            let w = weights.get(g * inputs * outputs * taps..(g + 1) * inputs * outputs * taps).unwrap_or(&[]);
            let transposed: Vec<f64> =
                (0..outputs * taps).flat_map(|r| w.iter().skip(r).step_by((outputs * taps).max(1))).copied().collect();
            let columns = product(&transposed, x.get(..inputs * pixels).unwrap_or(&[]), inputs, pixels);
            let mut plane = vec![0.0; outputs * area];
            for (row, line) in columns.chunks(pixels.max(1)).enumerate() {
                for (pixel, v) in line.iter().enumerate() {
                    if let Some(Seen::Element(at)) = seen.get(pixel).and_then(|s| s.get(row % taps))
                        && let Some(sum) = plane.get_mut(row / taps * area + at)
                    {
                        *sum += v;
                    }
                }
            }
            out.extend(plane);
        }
    } else {
        if *second != inputs {
            return Err(wrong());
        }
        (outputs, places) = (first / groups, window.places(sizes, false)?);
        let seen = window.seen(sizes, &places)?;
        count(&[inputs, taps, seen.len()])?;
        budget::work(count(&[*batch, *first, seen.len()])?, inputs * taps)?;
        for (b, g) in (0..*batch).flat_map(|b| (0..groups).map(move |g| (b, g))) {
            // [outputs, inputs · taps] × [inputs · taps, places]
            let mut columns = Vec::new();
            for i in 0..inputs {
                let plane = values.get((b * channels + g * inputs + i) * pixels..).unwrap_or(&[]);
                for tap in 0..taps {
                    columns.extend(seen.iter().map(|s| match s.get(tap) {
                        Some(Seen::Element(at)) => plane.get(*at).copied().unwrap_or(0.0),
                        _ => 0.0,
                    }));
                }
            }
            let w = weights.get(g * outputs * inputs * taps..(g + 1) * outputs * inputs * taps).unwrap_or(&[]);
            out.extend(product(w, &columns, inputs * taps, seen.len()));
        }
    }
    let shape = [&[*batch, outputs * groups][..], &places].concat();
    if let Some(bias) = bias {
        let (bias, area) = (bias.to::<f64>(), places.iter().product::<usize>());
        for (i, v) in out.iter_mut().enumerate() {
            *v += bias.get(i / area.max(1) % (outputs * groups)).copied().unwrap_or(0.0);
        }
    }
    Tensor::of(x.dtype(), &shape, out)
}

/// The sizes that a transposed convolution makes.
fn larger(window: &Window, sizes: &[usize], more: &[usize]) -> Result<Vec<usize>, Error> {
    let one = |(axis, &n): (usize, &usize)| {
        let at = |of: &[usize]| of.get(axis).copied().unwrap_or(0);
        let wide = n.checked_sub(1)?.checked_mul(at(&window.stride))?.checked_add(window.reach(axis))?.checked_add(at(more))?;
        wide.checked_sub(at(&window.padding).checked_mul(2)?)
    };
    sizes.iter().enumerate().map(one).collect::<Option<Vec<_>>>().ok_or_else(|| bad("more padding than there is output"))
}

pub(super) fn convolution(c: &Call) -> Results {
    let (x, weight) = (c.first()?, c.tensor("weight")?);
    let kernel = weight.shape().get(2..).unwrap_or(&[]).to_vec();
    let n = kernel.len();
    let transposed = c.flag("transposed") || c.schema.name.starts_with("conv_transpose");
    let mut x = if c.given("input") { c.tensor("input")? } else { x };
    let window = match c.text("padding") {
        None => Window::read(c, kernel, &[1])?,
        Some(mode) => {
            let dilation = spread(c.sizes("dilation")?, n, &[1])?;
            let stride = spread(c.sizes("stride")?, n, &[1])?;
            if mode == "same" {
                // One more at the end where the sum is odd.
                for (i, (k, d)) in kernel.iter().zip(&dilation).enumerate() {
                    let total = d.saturating_mul(k.saturating_sub(1));
                    let axis = x.nth_last(n)? + i;
                    x = super::resample::padded(
                        &x,
                        axis,
                        (total / 2) as i64,
                        (total - total / 2) as i64,
                        &super::resample::Fill::Value(0.0),
                    )?;
                }
            } else if mode != "valid" {
                return Err(bad(format!("padding {mode:?}")));
            }
            Window { padding: vec![0; n], kernel, stride, dilation }
        }
    };
    let output_padding = if transposed {
        Some(spread(if c.given("output_padding") { c.sizes("output_padding")? } else { Vec::new() }, n, &[0])?)
    } else {
        None
    };
    let how = Convolution { window, groups: c.size("groups")?, output_padding };
    one(convolve(&x, &weight, c.maybe_tensor("bias")?.as_ref(), &how)?)
}

/// Reduces what each window sees in each plane of the last `n` dimensions.
fn pooled<R: super::element::Element>(
    t: &Tensor,
    places: &[usize],
    windows: &[Vec<Seen>],
    dtype: DType,
    f: impl Fn(&[f64], &[Seen]) -> R,
) -> Result<Tensor, Error> {
    let outer = t.shape().get(..t.nth_last(places.len())?).unwrap_or(&[]);
    let area: usize = t.shape().iter().skip(outer.len()).product();
    let outer_count = outer.iter().product::<usize>();
    budget::work(outer_count, windows.iter().map(Vec::len).fold(0, usize::saturating_add))?;
    count(&[outer, places].concat())?;
    let values = t.to::<f64>();
    let planes = values.chunks(area.max(1));
    Tensor::of(dtype, &[outer, places].concat(), planes.flat_map(|plane| windows.iter().map(|w| f(plane, w)).collect::<Vec<_>>()))
}

/// The first of the largest elements seen, NaN above all.
fn largest(plane: &[f64], window: &[Seen]) -> (f64, i64) {
    let mut best = (f64::NEG_INFINITY, -1);
    for seen in window {
        if let Seen::Element(at) = seen
            && let Some(&v) = plane.get(*at)
            && (best.1 < 0 || v > best.0 || (v.is_nan() && !best.0.is_nan()))
        {
            best = (v, *at as i64);
        }
    }
    best
}

/// Kernel, places and what is seen of a pooling over the last `n` dimensions.
pub(super) fn pooling(c: &Call, t: &Tensor, n: usize) -> Result<(Vec<usize>, Vec<Vec<Seen>>), Error> {
    let kernel = spread(c.sizes("kernel_size")?, n, &[])?;
    let window = Window::read(c, kernel.clone(), &kernel)?;
    let sizes = t.shape().get(t.rank().wrapping_sub(n)..).ok_or_else(|| bad(format!("pooling {n} dimensions of {:?}", t.shape())))?;
    if sizes.contains(&0) {
        return Err(bad("pooling of nothing"));
    }
    let places = window.places(sizes, c.flag("ceil_mode"))?;
    let seen = window.seen(sizes, &places)?;
    Ok((places, seen))
}

pub(super) fn max_pool(c: &Call, n: usize, with_positions: bool) -> Results {
    let t = c.first()?;
    let (places, seen) = pooling(c, &t, n)?;
    let values = pooled(&t, &places, &seen, t.dtype(), |p, w| largest(p, w).0)?;
    if !with_positions {
        return one(values);
    }
    many([values, pooled(&t, &places, &seen, DType::Int64, |p, w| largest(p, w).1)?])
}

pub(super) fn avg_pool(c: &Call, n: usize) -> Results {
    let t = c.first()?;
    let (places, seen) = pooling(c, &t, n)?;
    let (padding_counts, divisor) = (c.flag("count_include_pad"), c.maybe_float("divisor_override")?);
    one(pooled(&t, &places, &seen, t.dtype(), |plane, window| {
        let (mut sum, mut number) = (0.0, 0.0);
        for seen in window {
            match seen {
                Seen::Element(at) => {
                    sum += plane.get(*at).copied().unwrap_or(0.0);
                    number += 1.0;
                }
                Seen::Padding if padding_counts => number += 1.0,
                _ => {}
            }
        }
        sum / divisor.unwrap_or(number)
    })?)
}

/// Windows that divide the input into so many parts, overlapping where they do not come out even.
pub(super) fn parts(t: &Tensor, places: &[usize]) -> Result<Vec<Vec<Seen>>, Error> {
    let n = places.len();
    let sizes = t.shape().get(t.rank().wrapping_sub(n)..).ok_or_else(|| bad(format!("pooling {n} dimensions of {:?}", t.shape())))?;
    if sizes.contains(&0) {
        return Err(bad("pooling of nothing"));
    }
    budget::spend(count(places)?.saturating_mul(8))?;
    let windows = (0..count(places)?).map(|place| {
        let (mut rest, mut numbers, mut stride) = (place, vec![0], 1);
        for (&n, &parts) in sizes.iter().zip(places).rev() {
            let i = rest % parts;
            rest /= parts;
            let (start, end) = (i * n / parts, ((i + 1) * n).div_ceil(parts));
            numbers = (start..end).flat_map(|at| numbers.iter().map(move |x| x + at * stride).collect::<Vec<_>>()).collect();
            stride *= n;
        }
        numbers.into_iter().map(Seen::Element).collect()
    });
    Ok(windows.collect())
}

fn adaptive(c: &Call, t: &Tensor, n: usize) -> Result<(Vec<usize>, Vec<Vec<Seen>>), Error> {
    let places = spread(c.sizes("output_size")?, n, &[])?;
    let windows = parts(t, &places)?;
    Ok((places, windows))
}

pub(super) fn adaptive_avg(c: &Call, n: usize) -> Results {
    let t = c.first()?;
    let (places, seen) = adaptive(c, &t, n)?;
    one(pooled(&t, &places, &seen, t.dtype(), |plane, window| {
        let sum: f64 = window.iter().map(|s| if let Seen::Element(at) = s { plane.get(*at).copied().unwrap_or(0.0) } else { 0.0 }).sum();
        sum / window.len() as f64
    })?)
}

pub(super) fn adaptive_max(c: &Call, n: usize) -> Results {
    let t = c.first()?;
    let (places, seen) = adaptive(c, &t, n)?;
    many([
        pooled(&t, &places, &seen, t.dtype(), |p, w| largest(p, w).0)?,
        pooled(&t, &places, &seen, DType::Int64, |p, w| largest(p, w).1)?,
    ])
}

/// Windows as columns: `[batch, channels · positions, places]`.
pub(super) fn im2col(c: &Call) -> Results {
    let t = c.first()?;
    let window = Window::read(c, spread(c.sizes("kernel_size")?, 2, &[])?, &[1])?;
    let unbatched = t.rank() == 3;
    let t = if unbatched { t.unsqueeze(0)? } else { t };
    let [batch, channels, sizes @ ..] = t.shape() else { return Err(bad("no image")) };
    let places = window.places(sizes, false)?;
    let seen = window.seen(sizes, &places)?;
    count(&[*batch, *channels, window.kernel.iter().product(), seen.len()])?;
    let (taps, area, values) = (window.kernel.iter().product::<usize>(), sizes.iter().product::<usize>(), t.to::<f64>());
    let mut out = Vec::new();
    for plane in values.chunks(area.max(1)) {
        for tap in 0..taps {
            out.extend(seen.iter().map(|s| match s.get(tap) {
                Some(Seen::Element(at)) => plane.get(*at).copied().unwrap_or(0.0),
                _ => 0.0,
            }));
        }
    }
    let t = Tensor::of(t.dtype(), &[*batch, channels * taps, seen.len()], out)?;
    one(if unbatched { t.squeeze(0)? } else { t })
}

/// Columns added up where their windows lie.
pub(super) fn col2im(c: &Call) -> Results {
    let t = c.first()?;
    let window = Window::read(c, spread(c.sizes("kernel_size")?, 2, &[])?, &[1])?;
    let sizes = spread(c.sizes("output_size")?, 2, &[])?;
    let unbatched = t.rank() == 2;
    let t = if unbatched { t.unsqueeze(0)? } else { t };
    let [batch, rows, columns] = t.shape() else { return Err(bad("no columns")) };
    let seen = window.seen(&sizes, &window.places(&sizes, false)?)?;
    let (taps, area) = (window.kernel.iter().product::<usize>(), count(&sizes)?);
    if seen.len() != *columns || rows % taps != 0 {
        return Err(bad(format!("{rows} rows of {columns} for windows of {taps} at {} places", seen.len())));
    }
    let mut out = vec![0.0; count(&[batch * rows / taps, area])?];
    for (row, line) in t.to::<f64>().chunks((*columns).max(1)).enumerate() {
        for (place, v) in line.iter().enumerate() {
            if let Some(Seen::Element(at)) = seen.get(place).and_then(|s| s.get(row % taps))
                && let Some(sum) = out.get_mut(row / taps * area + at)
            {
                *sum += v;
            }
        }
    }
    let t = Tensor::of(t.dtype(), &[&[*batch, rows / taps][..], &sizes].concat(), out)?;
    one(if unbatched { t.squeeze(0)? } else { t })
}
