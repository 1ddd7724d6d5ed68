//! Fourier transforms, by their definition.

use super::call::{Call, Results, one};
use super::element::Complex;
use super::order::{line_count, lines};
use super::resample::{Fill, padded};
use super::tensor::Tensor;
use super::views::windows;
use super::{Error, bad};
use crate::DType;
use crate::infer::promote::{to_complex, to_real};

/// The transform of a line: `sum x[k] exp(∓2πi jk/n)`.
fn transform(x: &[Complex], forward: bool) -> Vec<Complex> {
    let n = x.len();
    let turn = if forward { -2.0 } else { 2.0 } * std::f64::consts::PI / n as f64;
    let at = |j: usize| {
        x.iter().enumerate().fold([0.0, 0.0], |s, (k, z)| {
            // Whole turns come off first: large angles lose digits.
            let (sin, cos) = (turn * ((j * k) % n) as f64).sin_cos();
            [s[0] + z[0] * cos - z[1] * sin, s[1] + z[0] * sin + z[1] * cos]
        })
    };
    (0..n).map(at).collect()
}

/// What divides the sums: 0 nothing, 1 the root of the number, 2 the number.
fn scale(normalization: i64, n: usize) -> f64 {
    match normalization {
        1 => 1.0 / (n as f64).sqrt(),
        2 => 1.0 / n as f64,
        _ => 1.0,
    }
}

fn along(t: &Tensor, axes: &[usize], forward: bool, d: DType) -> Result<Tensor, Error> {
    axes.iter().try_for_each(|&axis| crate::budget::work(t.numel().max(t.size(axis)), t.size(axis)))?;
    axes.iter()
        .try_fold(t.cast(DType::Complex128)?, |t, &axis| lines(&t, axis, DType::Complex128, |x: &[Complex]| transform(x, forward)))?
        .cast(d)
}

fn scaled(t: &Tensor, by: f64) -> Result<Tensor, Error> {
    super::pointwise::map(t, t.dtype(), |z: Complex| [z[0] * by, z[1] * by])
}

/// `_fft_c2c`, `_fft_r2c` (of whose last axis half is kept if `onesided`) and `_fft_c2r`.
pub(super) fn fft(c: &Call) -> Results {
    let t = c.first()?;
    let axes = c.axes("dim", t.rank())?;
    let Some(&last) = axes.last() else { return Err(bad("no dimensions")) };
    let factor = |t: &Tensor| scale(c.int("normalization").unwrap_or(0), axes.iter().map(|&a| t.size(a)).product());
    match c.schema.name.as_str() {
        "_fft_r2c" => {
            let all = scaled(&along(&t, &axes, true, to_complex(t.dtype()))?, factor(&t))?;
            one(if c.flag("onesided") { all.slice(last, 0, t.size(last) / 2 + 1, 1)?.copy()? } else { all })
        }
        "_fft_c2c" => one(scaled(&along(&t, &axes, c.flag("forward"), t.dtype())?, factor(&t))?),
        _ => {
            let n = c.size("last_dim_size")?;
            let rest: Vec<usize> = axes.iter().copied().filter(|&a| a != last).collect();
            let full = real_along(&along(&t, &rest, false, DType::Complex128)?, last, n)?;
            let by = factor(&full);
            one(super::pointwise::map(&full, to_real(t.dtype()), |x: f64| x * by)?)
        }
    }
}

/// Real numbers from half of their spectrum along an axis: the other half mirrors it.
fn real_along(half: &Tensor, axis: usize, n: usize) -> Result<Tensor, Error> {
    let count = super::tensor::count(&[line_count(half, axis), n])?;
    crate::budget::work(count.max(n), n)?;
    let full = lines(half, axis, DType::Complex128, |x: &[Complex]| {
        let at = |k: usize| {
            if k <= n / 2 { x.get(k).copied().unwrap_or_default() } else { x.get(n - k).map_or([0.0; 2], |z| [z[0], -z[1]]) }
        };
        transform(&(0..n).map(at).collect::<Vec<_>>(), false)
    })?;
    super::pointwise::map(&full, DType::Float64, |z: Complex| z[0])
}

/// The transforms of torch.fft: by length or lengths, dimension or dimensions, and the name of a scale.
pub(super) fn named(c: &Call) -> Results {
    let t = c.first()?;
    let name = c.schema.name.trim_start_matches("fft_").to_owned();
    let (kind, several) = match name.strip_suffix('2').or(name.strip_suffix('n')) {
        Some(kind) => (kind, true),
        None => (name.as_str(), false),
    };
    let lengths = if several { "s" } else { "n" };
    let given = if c.given(lengths) { Some(c.ints(lengths)?) } else { None };
    let axes = match &given {
        _ if c.given("dim") => c.axes("dim", t.rank())?,
        Some(s) => (t.rank().checked_sub(s.len()).ok_or_else(|| bad("more lengths than dimensions"))?..t.rank()).collect(),
        None => (0..t.rank()).collect(),
    };
    let Some((&last, _)) = axes.split_last() else { return Err(bad("no dimensions")) };
    let (from_half, hermitian) = (kind == "irfft" || kind == "hfft", kind.ends_with("hfft"));
    let forward = !kind.starts_with('i');
    let mut x = if hermitian && from_half { super::pointwise::map(&t, t.dtype(), |[re, im]: Complex| [re, -im])? } else { t.clone() };
    let mut count = 1i64;
    let mut end = 0;
    for (i, &axis) in axes.iter().enumerate() {
        let there = x.size(axis) as i64;
        let half = from_half && axis == last;
        let n = given.as_ref().and_then(|s| s.get(i).copied()).filter(|n| *n >= 0).unwrap_or(if half { 2 * (there - 1) } else { there });
        let kept = if half { n / 2 + 1 } else { n };
        if n < 1 {
            return Err(bad(format!("a transform of {n} elements")));
        }
        x = padded(&x, axis, 0, kept - there, &Fill::Value(0.0))?;
        (count, end) = (count.saturating_mul(n), n as usize);
    }
    let by = match (c.text("norm").unwrap_or("backward"), forward) {
        ("ortho", _) => (count as f64).sqrt().recip(),
        ("backward", true) | ("forward", false) => 1.0,
        _ => (count as f64).recip(),
    };
    if from_half {
        let rest: Vec<usize> = axes.iter().copied().filter(|&a| a != last).collect();
        let y = real_along(&along(&x, &rest, forward && !hermitian, DType::Complex128)?, last, end)?;
        return one(super::pointwise::map(&y, to_real(t.dtype()), |x: f64| x * by)?);
    }
    let mut y = scaled(&along(&x, &axes, forward, to_complex(t.dtype()))?, by)?;
    if kind == "rfft" || kind == "ihfft" {
        y = y.slice(last, 0, end / 2 + 1, 1)?.copy()?;
    }
    one(y)
}

/// The frequencies of the bins of a transform.
pub(super) fn frequencies(c: &Call) -> Results {
    let (n, d) = (c.int("n")?, c.float("d")?);
    super::tensor::count(&[c.size("n")?])?;
    let half = c.schema.name == "fft_rfftfreq";
    let bins = (0..if half { n / 2 + 1 } else { n }).map(|k| if half || k < (n + 1) / 2 { k } else { k - n });
    let dtype = c.dtype("dtype").unwrap_or(DType::Float32);
    let bins: Vec<f64> = bins.map(|k| k as f64 / (n as f64 * d)).collect();
    one(Tensor::of(dtype, &[bins.len()], bins)?)
}

/// Frequency 0 into the middle, or back.
pub(super) fn shifted(c: &Call) -> Results {
    let t = c.first()?;
    let axes = if c.given("dim") { c.axes("dim", t.rank())? } else { (0..t.rank()).collect() };
    let back = c.schema.name == "fft_ifftshift";
    let turned = axes.into_iter().try_fold(t.cast(DType::Complex128)?, |x, axis| {
        let by = if back { x.size(axis) / 2 } else { x.size(axis).div_ceil(2) };
        lines(&x, axis, DType::Complex128, |x: &[Complex]| {
            let mut x = x.to_vec();
            let by = by.min(x.len());
            x.rotate_left(by);
            x
        })
    })?;
    one(turned.cast(t.dtype())?)
}

/// `istft`: each frame transformed back and weighed, added up, divided by what the squares of the weights add up to.
pub(super) fn istft(c: &Call) -> Results {
    let t = c.first()?;
    let n = c.size("n_fft")?;
    let hop = if c.given("hop_length") { c.size("hop_length")? } else { n / 4 };
    let size = if c.given("win_length") { c.size("win_length")? } else { n };
    let [bins, frames] = [2, 1].map(|back| t.rank().checked_sub(back).map_or(0, |a| t.size(a)));
    if hop == 0 || hop > size || size > n || frames == 0 || t.rank() < 2 || c.flag("return_complex") {
        return Err(bad("no frames, a step longer than the window or that longer than the transform, or complex results"));
    }
    let axis = t.rank() - 2;
    let half = if c.given("onesided") { c.flag("onesided") } else { bins != n };
    if bins != if half { n / 2 + 1 } else { n } {
        return Err(bad(format!("{bins} frequencies of a transform of {n}")));
    }
    let y = if half {
        real_along(&t.cast(DType::Complex128)?, axis, n)?
    } else {
        super::pointwise::map(&along(&t, &[axis], false, DType::Complex128)?, DType::Float64, |z: Complex| z[0])?
    };
    let by = scale(if c.flag("normalized") { 1 } else { 2 }, n);
    let window = match c.maybe_tensor("window")? {
        Some(w) => w.to::<f64>(),
        None => vec![1.0; size],
    };
    let left = (n - size) / 2;
    let weight = |i: usize| i.checked_sub(left).and_then(|i| window.get(i)).copied().unwrap_or(0.0);
    let from = if c.flag("center") { n / 2 } else { 0 };
    let whole = n + hop * (frames - 1);
    let to = if c.given("length") { from.saturating_add(c.size("length")?) } else { whole.saturating_sub(from) };
    let count = to.checked_sub(from).ok_or_else(|| bad("a signal of less than nothing"))?;
    let all = y.copy()?.to::<f64>();
    let shape: Vec<usize> = t.shape().iter().take(axis).copied().chain([count]).collect();
    super::tensor::count(&shape)?;
    super::tensor::count(&[whole])?;
    crate::budget::work(whole, frames)?;
    let mut weights = vec![0.0; whole];
    for start in (0..frames).map(|f| f * hop) {
        weights.iter_mut().skip(start).take(n).enumerate().for_each(|(i, w)| *w += weight(i) * weight(i));
    }
    if weights.iter().take(to).skip(from).any(|w| *w < 1e-11) {
        return Err(bad("windows that leave out elements"));
    }
    let mut out = Vec::new();
    for lines in all.chunks_exact((n * frames).max(1)) {
        let mut sum = vec![0.0; whole];
        for (i, line) in lines.chunks_exact(frames).enumerate() {
            for (f, x) in line.iter().enumerate() {
                if let Some(s) = sum.get_mut(f * hop + i) {
                    *s += x * by * weight(i);
                }
            }
        }
        let inside = sum.iter().zip(&weights).map(|(s, w)| s / w).skip(from).take(count);
        out.extend(inside.chain(std::iter::repeat(0.0)).take(count));
    }
    one(Tensor::of(to_real(t.dtype()), &shape, out)?)
}

/// `stft`: frames of the last dimension, times the window, transformed: `[batch, frequencies, frames]`.
pub(super) fn stft(c: &Call) -> Results {
    let t = c.first()?;
    let n = c.size("n_fft")?;
    let hop = c.maybe_int("hop_length")?.map_or(Ok(n / 4), |h| usize::try_from(h).map_err(|_| bad("a negative hop")))?;
    let length = c.maybe_int("win_length")?.map_or(Ok(n), |h| usize::try_from(h).map_err(|_| bad("a negative window")))?;
    let flat = t.rank() == 1;
    let mut x = if flat { t.unsqueeze(0)? } else { t.clone() };
    if c.flag("center") {
        let fill = match c.text("pad_mode") {
            Some("constant") => Fill::Value(0.0),
            Some("replicate") => Fill::Replicate,
            Some("circular") => Fill::Circular,
            _ => Fill::Reflect,
        };
        x = padded(&x, 1, (n / 2) as i64, (n / 2) as i64, &fill)?;
    }
    let window = match c.maybe_tensor("window")? {
        Some(w) => w.cast(DType::Float64)?,
        None => Tensor::full(DType::Float64, &[length], 1i64)?,
    };
    let left = n.checked_sub(length).ok_or_else(|| bad("a window longer than the transform"))? / 2;
    let window = padded(&window, 0, left as i64, (n - length - left) as i64, &Fill::Value(0.0))?;
    let frames = windows(&x, 1, n, hop)?;
    let d = to_complex(t.dtype());
    let weighed = if frames.dtype().is_complex() {
        super::pointwise::zip(DType::Complex128, DType::Complex128, &frames, &window, super::arithmetic::times)?
    } else {
        super::pointwise::zip(DType::Float64, DType::Float64, &frames, &window, |a: f64, b| a * b)?
    };
    let mut out = along(&weighed, &[2], true, d)?;
    let onesided = if c.given("onesided") { c.flag("onesided") } else { !t.dtype().is_complex() };
    if onesided {
        out = out.slice(2, 0, n / 2 + 1, 1)?;
    }
    if c.flag("normalized") {
        out = scaled(&out, scale(1, n))?;
    }
    let mut out = out.transpose(1, 2)?.copy()?;
    if flat {
        out = out.squeeze(0)?;
    }
    one(if c.given("return_complex") && !c.flag("return_complex") { super::views::as_real(&out)? } else { out })
}
