//! Loops over slices of `f32` that several kernels share, compiled for the widest vectors of the processor.

use pulp::Arch;

/// Partial sums kept side by side: enough for four vectors of 16.
const LANES: usize = 64;

/// Runs a loop compiled for the processor at hand.
macro_rules! vectorised {
    ($body:expr) => {
        Arch::new().dispatch(
            #[inline(always)]
            || $body,
        )
    };
}

/// Folds `terms(v)` with `join`, in an order that depends on the length alone.
#[inline(always)]
fn fold(values: &[f32], start: f32, step: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (body, rest) = values.as_chunks::<LANES>();
    for chunk in body {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = step(*lane, *v);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane = step(*lane, *v);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}

/// Sum of the values.
pub(super) fn sum(values: &[f32]) -> f32 {
    vectorised!(fold(values, 0.0, |s, v| s + v, |a, b| a + b))
}

/// Sum of the squares of the distances from `centre`.
pub(super) fn sum_squares(values: &[f32], centre: f32) -> f32 {
    vectorised!(fold(values, 0.0, |s, v| s + (v - centre) * (v - centre), |a, b| a + b))
}

/// The largest value that is a number; negative infinity if there is none.
pub(super) fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    vectorised!(fold(values, f32::NEG_INFINITY, larger, larger))
}

/// The largest magnitude that is a number; 0 if there is none.
pub(super) fn peak(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    vectorised!(fold(values, 0.0, |m, v| larger(m, v.abs()), larger))
}

/// The integers nearest to `v·factor`, within `-top` and `top`.
pub(super) fn to_integers(values: &[f32], factor: f32, top: f32, out: &mut [i32]) {
    vectorised!(for (o, v) in out.iter_mut().zip(values) {
        *o = (v * factor).clamp(-top, top).round_ties_even() as i32;
    });
}

/// `v = (v - centre)·factor`.
pub(super) fn normalise(values: &mut [f32], centre: f32, factor: f32) {
    vectorised!(values.iter_mut().for_each(|v| *v = (*v - centre) * factor));
}

/// `v = v·scale + shift`.
pub(super) fn scale_and_shift(values: &mut [f32], scale: f32, shift: f32) {
    vectorised!(values.iter_mut().for_each(|v| *v = *v * scale + shift));
}

/// `v *= w`, element by element.
pub(super) fn multiply(values: &mut [f32], by: &[f32]) {
    vectorised!(values.iter_mut().zip(by).for_each(|(v, w)| *v *= w));
}

/// `v += w·factor`, element by element.
pub(super) fn add_scaled(values: &mut [f32], w: &[f32], factor: f32) {
    vectorised!(values.iter_mut().zip(w).for_each(|(v, w)| *v += w * factor));
}

/// Sum of the products. For use inside other loops compiled for the processor.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const WIDTH: usize = 16;
    let mut lanes = [0f32; WIDTH];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<WIDTH>(), b.as_chunks::<WIDTH>());
    for (a, b) in a.iter().zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// `sums += a·b`, element by element.
pub(super) fn add_products(sums: &mut [f32], a: &[f32], b: &[f32]) {
    vectorised!(sums.iter_mut().zip(a.iter().zip(b)).for_each(|(s, (a, b))| *s += a * b));
}

/// Turns values into `exp(v - shift)` and returns their sum.
pub(super) fn exponentials(values: &mut [f32], shift: f32) -> f32 {
    vectorised!({
        values.iter_mut().for_each(|v| *v = exp(*v - shift));
        fold(values, 0.0, |s, v| s + v, |a, b| a + b)
    })
}

/// Turns values into the softmax over them: NaN everywhere if there is a NaN, an infinity, or nothing finite.
pub(super) fn softmax(values: &mut [f32]) {
    let peak = largest(values);
    let total = exponentials(values, peak);
    vectorised!(values.iter_mut().for_each(|v| *v /= total));
}

/// `e^x` within two units in the last place, without branches so that loops over it vectorise. The polynomial is that
/// of Cephes' `expf` (S. Moshier), on |r| ≤ ln(2)/2.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Added and taken away again, this rounds to an integer, which also stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln(2) in two parts; products of the first with small integers are exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Beyond these the result is infinity or zero; NaN passes both comparisons by.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = x - k * LN2_HIGH - k * LN2_LOW;
    let mut p = 1.987_569_1e-4f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    // 2^k in two factors: neither overflows, and the product may be subnormal.
    let power = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let scale = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
    let half = power >> 1;
    p * scale(half) * scale(power.wrapping_sub(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_right_to_two_units() {
        let mut x = -110.0f32;
        while x < 95.0 {
            let (got, want) = (exp(x), f64::from(x).exp());
            let nearest = want as f32;
            let unit = (f32::from_bits(nearest.to_bits() + 1) - nearest).abs();
            assert!(got == nearest || f64::from((got - nearest).abs()) <= 2.0 * f64::from(unit), "exp({x}) = {got}, not {want}");
            x += 0.013_7;
        }
        assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(f32::INFINITY)), (1.0, 0.0, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn folds_equal_plain_loops_at_every_length() {
        for n in [0usize, 1, 15, 63, 64, 65, 200] {
            let v: Vec<f32> = (0..n).map(|i| ((i * 37) % 23) as f32 - 11.0).collect();
            assert_eq!(sum(&v), v.iter().sum::<f32>());
            assert_eq!(sum_squares(&v, 2.0), v.iter().map(|v| (v - 2.0) * (v - 2.0)).sum::<f32>());
            assert_eq!(largest(&v), v.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }

    #[test]
    fn softmax_of_special_rows() {
        let run = |mut v: Vec<f32>| {
            softmax(&mut v);
            v
        };
        assert_eq!(run(vec![1000.0, 1000.0]), [0.5, 0.5]);
        assert_eq!(run(vec![f32::NEG_INFINITY, 3.0]), [0.0, 1.0]);
        for row in [vec![f32::NEG_INFINITY; 3], vec![1.0, f32::NAN], vec![f32::INFINITY, 1.0]] {
            assert!(run(row).iter().any(|v| v.is_nan()));
        }
    }
}
