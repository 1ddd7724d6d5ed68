//! Fourier transforms, by their definition.

use super::call::{Call, Results, one};
use super::element::Complex;
use super::order::lines;
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
            // The other half of the last axis mirrors the one given.
            let n = c.size("last_dim_size")?;
            let rest: Vec<usize> = axes.iter().copied().filter(|&a| a != last).collect();
            let half = along(&t, &rest, false, DType::Complex128)?;
            let full = lines(&half, last, DType::Complex128, |x: &[Complex]| {
                let at = |k: usize| {
                    if k <= n / 2 { x.get(k).copied().unwrap_or_default() } else { x.get(n - k).map_or([0.0; 2], |z| [z[0], -z[1]]) }
                };
                transform(&(0..n).map(at).collect::<Vec<_>>(), false)
            })?;
            let by = factor(&full);
            one(super::pointwise::map(&full, to_real(t.dtype()), |z: Complex| z[0] * by)?)
        }
    }
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
