//! Derivatives of convolutions, pooling, resampling and padding: every element of the result gives back to the elements it was made of.

use super::backward::added;
use super::call::{Call, Results, one};
use super::order::{line_count, lines};
use super::resample::{Fill, Method, covered, factors, pad_with, sources, step};
use super::tensor::{Tensor, count};
use super::windows::{Seen, Window, parts, pooling};
use super::{Error, Value, bad, budget};
use crate::DType;

/// To input, weight and bias. Of the two images that a convolution relates, the windows lie over the larger one, the input or, of a
/// transposed convolution, the output; the weight is `[channels of the smaller, channels of the larger in a group, …]` in both.
pub(super) fn convolution(c: &Call) -> Results {
    let (g, x, weight) = (c.tensor("grad_output")?, c.tensor("input")?, c.tensor("weight")?);
    let (transposed, groups) = (c.flag("transposed"), c.size("groups")?);
    let window = Window::read(c, weight.shape().get(2..).unwrap_or(&[]).to_vec(), &[1])?;
    let (small, large) = if transposed { (&x, &g) } else { (&g, &x) };
    let wrong = || bad(format!("gradient {:?}, input {:?}, weight {:?}, {groups} groups", g.shape(), x.shape(), weight.shape()));
    let ([batch, down, places @ ..], [_, across, sizes @ ..]) = (small.shape(), large.shape()) else { return Err(wrong()) };
    if groups == 0 || down % groups != 0 || across % groups != 0 || weight.shape().get(..2) != Some(&[*down, across / groups]) {
        return Err(wrong());
    }
    let seen = window.seen(sizes, places)?;
    let (area, pixels, taps) = (count(places)?, count(sizes)?, count(&window.kernel)?);
    budget::work((batch * down).saturating_mul(across / groups), seen.len().saturating_mul(taps))?;
    let (s, l, w) = (small.to::<f64>(), large.to::<f64>(), weight.to::<f64>());
    let at = |of: &[f64], i: usize| of.get(i).copied().unwrap_or(0.0);
    let (mut to_input, mut to_weight) = (vec![0.0; x.numel()], vec![0.0; w.len()]);
    for (b, from) in (0..*batch).flat_map(|b| (0..*down).map(move |from| (b, from))) {
        for inner in 0..across / groups {
            let to = from / (down / groups) * (across / groups) + inner;
            for (place, window) in seen.iter().enumerate() {
                for (tap, seen) in window.iter().enumerate() {
                    let Seen::Element(pixel) = seen else { continue };
                    let low = (b * down + from) * area + place;
                    let high = (b * across + to) * pixels + pixel;
                    let weight = (from * (across / groups) + inner) * taps + tap;
                    if let Some(sum) = to_weight.get_mut(weight) {
                        *sum += at(&s, low) * at(&l, high);
                    }
                    let (sum, above) = if transposed { (low, at(&l, high)) } else { (high, at(&s, low)) };
                    if let Some(sum) = to_input.get_mut(sum) {
                        *sum += above * at(&w, weight);
                    }
                }
            }
        }
    }
    let others: Vec<usize> = (0..g.rank()).filter(|&a| a != 1).collect();
    let bias = super::reduce::fold(&g, &others, false, g.dtype(), super::reduce::add_up)?;
    let all = [Tensor::of(x.dtype(), x.shape(), to_input)?, Tensor::of(weight.dtype(), weight.shape(), to_weight)?, bias];
    let mask = c.ints("output_mask")?;
    Ok(all.into_iter().zip(mask).map(|(t, wanted)| if wanted != 0 { Value::Tensor(t) } else { Value::None }).collect())
}

/// Every window's share, given to each element that it saw.
fn shared(g: &Tensor, like: &Tensor, windows: &[Vec<Seen>], divisor: impl Fn(&[Seen]) -> f64, n: usize) -> Result<Tensor, Error> {
    let area: usize = like.shape().iter().skip(like.nth_last(n)?).product();
    let mut out = vec![0.0; like.numel()];
    for (i, v) in g.to::<f64>().into_iter().enumerate() {
        let Some(window) = windows.get(i % windows.len().max(1)) else { continue };
        for seen in window {
            if let Seen::Element(at) = seen
                && let Some(sum) = out.get_mut(i / windows.len() * area + at)
            {
                *sum += v / divisor(window);
            }
        }
    }
    Tensor::of(like.dtype(), like.shape(), out)
}

pub(super) fn average(c: &Call, n: usize) -> Results {
    let (g, like) = (c.tensor("grad_output")?, c.tensor("self")?);
    let (_, seen) = pooling(c, &like, n)?;
    let (padding_counts, divisor) = (c.flag("count_include_pad"), c.maybe_float("divisor_override")?);
    let counts = |s: &&Seen| matches!(s, Seen::Element(_)) || (padding_counts && matches!(s, Seen::Padding));
    one(shared(&g, &like, &seen, |w| divisor.unwrap_or(w.iter().filter(counts).count() as f64), n)?)
}

pub(super) fn adaptive_average(c: &Call, n: usize) -> Results {
    let (g, like) = (c.tensor("grad_output")?, c.tensor("self")?);
    let windows = parts(&like, g.shape().get(g.nth_last(n)?..).unwrap_or(&[]))?;
    one(shared(&g, &like, &windows, |w| w.len() as f64, n)?)
}

/// Each to the element whose number in its plane `indices` has.
pub(super) fn largest(c: &Call, n: usize) -> Results {
    let (g, like) = (c.tensor("grad_output")?, c.tensor("self")?);
    let index = c.tensor("indices")?.to::<i64>();
    let area = |t: &Tensor| Ok::<usize, Error>(t.shape().iter().skip(t.nth_last(n)?).product());
    let (from, to) = (area(&g)?, area(&like)?);
    let place = |i: usize| Some(i / from * to + usize::try_from(*index.get(i)?).ok().filter(|k| *k < to)?);
    one(added(&g, like.shape(), place)?)
}

/// The numbers of the elements, padded, say where each part of the gradient belongs.
pub(super) fn padded(c: &Call, fill: &Fill) -> Results {
    let (g, like) = (c.tensor("grad_output")?, c.tensor("self")?);
    let numbers = Tensor::of(DType::Int64, like.shape(), 0..like.numel() as i64)?;
    let padded = pad_with(c, &numbers, fill)?;
    let [Value::Tensor(places)] = padded.as_slice() else { return Err(bad("no padding")) };
    let places = places.to::<i64>();
    one(added(&g, like.shape(), |i| places.get(i).and_then(|&n| usize::try_from(n).ok()))?)
}

pub(super) fn upsample(c: &Call, n: usize, method: Method) -> Results {
    let (g, shape) = (c.first()?, c.sizes("input_size")?);
    let first = g.nth_last(n)?;
    let (aligned, factors) = (c.flag("align_corners"), factors(c, n)?);
    let mut out = g.cast(DType::Float64)?;
    for i in 0..n {
        let (size, have) = (g.size(first + i), shape.get(first + i).copied().unwrap_or(0));
        if have == 0 {
            return Err(bad("an image without extent"));
        }
        let scale = step(have, size, factors.get(i).copied().flatten(), aligned);
        count(&[line_count(&out, first + i), have])?;
        covered(size, have, method)?;
        let weights: Vec<_> = (0..size).map(|k| sources(k, have, scale, aligned, method)).collect();
        out = lines(&out, first + i, DType::Float64, |line: &[f64]| {
            let mut sums = vec![0.0; have];
            for (v, from) in line.iter().zip(&weights) {
                for (at, w) in from {
                    if let Some(sum) = sums.get_mut(*at) {
                        *sum += v * w;
                    }
                }
            }
            sums
        })?;
    }
    one(out.cast(g.dtype())?)
}
