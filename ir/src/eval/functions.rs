//! Functions of a number.

use half::{bf16, f16};

use super::element::Complex;
use crate::DType;

/// The larger; NaN if either is.
pub(super) fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The smaller; NaN if either is.
pub(super) fn minimum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// The largest finite value of a float type.
pub(super) fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::Float16 => f16::MAX.to_f64(),
        DType::BFloat16 => bf16::MAX.to_f64(),
        DType::Float32 => f64::from(f32::MAX),
        DType::Float8E4M3 => 448.0,
        DType::Float8E5M2 => 57344.0,
        _ => f64::MAX,
    }
}

/// The distance from 1 to the next value of a float type.
pub(super) fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::Float16 => f16::EPSILON.to_f64(),
        DType::BFloat16 => bf16::EPSILON.to_f64(),
        DType::Float32 => f64::from(f32::EPSILON),
        _ => f64::EPSILON,
    }
}

/// The smallest normal value of a float type.
pub(super) fn tiny(dtype: DType) -> f64 {
    match dtype {
        DType::Float16 => f16::MIN_POSITIVE.to_f64(),
        DType::Float32 | DType::BFloat16 => f64::from(f32::MIN_POSITIVE),
        _ => f64::MIN_POSITIVE,
    }
}

/// -1, 0, 1 or NaN.
pub(super) fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        // torch gives 0 for NaN.
        0.0
    }
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

pub(super) fn mish(x: f64) -> f64 {
    x * if x > 20.0 { x } else { x.exp().ln_1p() }.tanh()
}

pub(super) fn softplus(x: f64, [beta, threshold]: [f64; 2]) -> f64 {
    if beta * x > threshold { x } else { (beta * x).exp().ln_1p() / beta }
}

pub(super) fn hardsigmoid(x: f64) -> f64 {
    minimum(maximum(x + 3.0, 0.0), 6.0) / 6.0
}

pub(super) fn hardswish(x: f64) -> f64 {
    x * minimum(maximum(x + 3.0, 0.0), 6.0) / 6.0
}

pub(super) fn relu(x: f64) -> f64 {
    maximum(x, 0.0)
}

pub(super) fn relu6(x: f64) -> f64 {
    minimum(maximum(x, 0.0), 6.0)
}

pub(super) fn elu(x: f64, [alpha, scale, input_scale]: [f64; 3]) -> f64 {
    // As torch has it, NaN is not below 0.
    if x <= 0.0 { (x * input_scale).exp_m1() * alpha * scale } else { x * scale }
}

pub(super) fn selu(x: f64) -> f64 {
    elu(x, [1.673_263_242_354_377_2, 1.050_700_987_355_480_5, 1.0])
}

pub(super) fn celu(x: f64, [alpha]: [f64; 1]) -> f64 {
    elu(x, [alpha, 1.0, 1.0 / alpha])
}

pub(super) fn softshrink(x: f64, [lambda]: [f64; 1]) -> f64 {
    if x > lambda {
        x - lambda
    } else if x < -lambda {
        x + lambda
    } else {
        // NaN stays.
        x * 0.0
    }
}

pub(super) fn hardshrink(x: f64, [lambda]: [f64; 1]) -> f64 {
    if x >= -lambda && x <= lambda { 0.0 } else { x }
}

pub(super) fn threshold(x: f64, [threshold, value]: [f64; 2]) -> f64 {
    if x <= threshold { value } else { x }
}

pub(super) fn leaky_relu(x: f64, [slope]: [f64; 1]) -> f64 {
    if x > 0.0 { x } else { x * slope }
}

pub(super) fn frac(x: f64) -> f64 {
    x - x.trunc()
}

pub(super) fn sinc(x: f64) -> f64 {
    let y = std::f64::consts::PI * x;
    if x == 0.0 { 1.0 } else { y.sin() / y }
}

pub(super) fn rsqrt(x: f64) -> f64 {
    1.0 / x.sqrt()
}

pub(super) fn entropy(x: f64) -> f64 {
    if x > 0.0 {
        -x * x.ln()
    } else if x == 0.0 {
        0.0
    } else if x < 0.0 {
        f64::NEG_INFINITY
    } else {
        x
    }
}

pub(super) fn logaddexp(a: f64, b: f64) -> f64 {
    if a == b && a.is_infinite() { a } else { a.max(b) + (-(a - b).abs()).exp().ln_1p() }
}

pub(super) fn logaddexp2(a: f64, b: f64) -> f64 {
    if a == b && a.is_infinite() { a } else { a.max(b) + (-(a - b).abs()).exp2().ln_1p() / std::f64::consts::LN_2 }
}

pub(super) fn xlogy(x: f64, y: f64) -> f64 {
    if y.is_nan() {
        f64::NAN
    } else if x == 0.0 {
        0.0
    } else {
        x * y.ln()
    }
}

/// Quantile of the normal distribution function of `erf`: a rational first guess, then Newton's steps.
pub(super) fn erfinv(y: f64) -> f64 {
    if y.abs() >= 1.0 || y.is_nan() {
        return if y.abs() == 1.0 { f64::INFINITY.copysign(y) } else { f64::NAN };
    }
    // Winitzki's approximation.
    let a = 0.147;
    let l = (1.0 - y * y).ln();
    let b = 2.0 / (std::f64::consts::PI * a) + l / 2.0;
    let mut x = ((b * b - l / a).sqrt() - b).sqrt().copysign(y);
    for _ in 0..4 {
        // In the tails the complement keeps its digits.
        let error = match x {
            1.0.. => (1.0 - y) - libm::erfc(x),
            ..=-1.0 => libm::erfc(-x) - (1.0 + y),
            _ => libm::erf(x) - y,
        };
        let slope = std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp();
        if slope == 0.0 {
            break;
        }
        x -= error / slope;
    }
    x
}

/// The logarithmic derivative of the gamma function.
pub(super) fn digamma(x: f64) -> f64 {
    if x == 0.0 {
        return f64::NEG_INFINITY.copysign(-x);
    }
    if x < 0.0 {
        if x == x.floor() {
            return f64::NAN;
        }
        return digamma(1.0 - x) - std::f64::consts::PI / (std::f64::consts::PI * x).tan();
    }
    let (mut x, mut sum) = (x, 0.0);
    while x < 10.0 {
        sum -= 1.0 / x;
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    // Bernoulli numbers over 2n.
    let series = y * (1.0 / 12.0 - y * (1.0 / 120.0 - y * (1.0 / 252.0 - y * (1.0 / 240.0 - y * (1.0 / 132.0 - y * 691.0 / 32760.0)))));
    sum + x.ln() - 0.5 / x - series
}

pub(super) fn lgamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// The modified Bessel function of the first kind of order 0 or 1, times `e^-|x|`: its power series, far out its expansion in `1/x`.
pub(super) fn bessel(order: u8, x: f64) -> f64 {
    let (n, size) = (f64::from(order), x.abs());
    if size.is_infinite() {
        return 0.0;
    }
    let sign = if order == 1 { x.signum() } else { 1.0 };
    if size > 50.0 {
        let (mut term, mut sum) = (1.0, 1.0);
        for k in 1..12 {
            let odd = f64::from(2 * k - 1);
            term *= -(4.0 * n * n - odd * odd) / (8.0 * f64::from(k) * size);
            sum += term;
        }
        return sign * sum / (2.0 * std::f64::consts::PI * size).sqrt();
    }
    let mut term = if order == 1 { size / 2.0 } else { 1.0 };
    let mut sum = term;
    for k in 1..200 {
        term *= size * size / 4.0 / (f64::from(k) * (f64::from(k) + n));
        sum += term;
    }
    sign * sum * (-size).exp()
}

/// The standard normal distribution function.
pub(super) fn ndtr(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

pub(super) fn heaviside(x: f64, at_zero: f64) -> f64 {
    if x == 0.0 { at_zero } else { f64::from(u8::from(x > 0.0)) }
}

pub(super) fn copysign(a: f64, b: f64) -> f64 {
    a.copysign(b)
}

/// `x` brought between two bounds, whatever they are: where they cross the upper one wins, and what is not a number bounds nothing.
pub(super) fn clamp(x: f64, low: f64, high: f64) -> f64 {
    if x.is_nan() { x } else { x.max(low).min(high) }
}

pub(super) fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a as i64
}

pub(super) fn lcm(a: i64, b: i64) -> i64 {
    match gcd(a, b) {
        0 => 0,
        g => (a / g).wrapping_mul(b).wrapping_abs(),
    }
}

pub(super) fn exp(z: Complex) -> Complex {
    let r = z[0].exp();
    [r * z[1].cos(), r * z[1].sin()]
}

pub(super) fn log(z: Complex) -> Complex {
    [z[0].hypot(z[1]).ln(), z[1].atan2(z[0])]
}

pub(super) fn sqrt(z: Complex) -> Complex {
    let r = z[0].hypot(z[1]);
    [((r + z[0]) / 2.0).sqrt(), ((r - z[0]) / 2.0).sqrt().copysign(z[1])]
}

pub(super) fn reciprocal(z: Complex) -> Complex {
    let n = z[0] * z[0] + z[1] * z[1];
    [z[0] / n, -z[1] / n]
}

/// `e^(x²) erfc(x)`, by a continued fraction where the product would be of nothing and infinity.
pub(super) fn erfcx(x: f64) -> f64 {
    if x < 5.0 {
        return (x * x).exp() * libm::erfc(x);
    }
    let mut below = x;
    for k in (1..=60).rev() {
        below = x + f64::from(k) / 2.0 / below;
    }
    1.0 / (below * std::f64::consts::PI.sqrt())
}

pub(super) fn log_ndtr(x: f64) -> f64 {
    let t = x * std::f64::consts::FRAC_1_SQRT_2;
    if x < -1.0 { (erfcx(-t) / 2.0).ln() - t * t } else { (-libm::erfc(t) / 2.0).ln_1p() }
}
