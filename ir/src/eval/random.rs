//! Random numbers, by the definitions of their distributions. Which come differs at every call; that they keep torch's laws is
//! what can be asked of them, and of what etx makes of such a program.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::call::{Call, Results, many, one};
use super::pointwise::{broadcast, map, zip};
use super::tensor::{Tensor, count};
use super::{Error, bad};
use crate::DType;

/// 64 random bits. Source: G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number generators", 2014.
fn bits() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    static STATE: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one("start of the sequence")));
    let mut z = STATE.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform in [0, 1), in steps that the type holds exactly, so that nothing is rounded up to 1.
fn uniform(dtype: DType) -> f64 {
    let kept = match dtype {
        DType::BFloat16 => 8,
        DType::Float16 => 11,
        DType::Float64 => 53,
        _ => 24,
    };
    (bits() >> (64 - kept)) as f64 / (1u64 << kept) as f64
}

/// Uniform in (0, 1].
fn above_zero() -> f64 {
    1.0 - uniform(DType::Float64)
}

/// Normal with mean 0 and deviation 1. Source: G. Box and M. Muller, 1958.
fn gaussian() -> f64 {
    (-2.0 * above_zero().ln()).sqrt() * (std::f64::consts::TAU * uniform(DType::Float64)).cos()
}

/// Draws for every element of the result: of `size`, else as the first tensor; of `dtype`, else that tensor's type, else this.
fn each(c: &Call, dtype: DType, draw: impl Fn(DType) -> f64) -> Results {
    let like = if c.given("size") { None } else { Some(c.first()?) };
    let shape = match &like {
        Some(t) => t.shape().to_vec(),
        None => c.sizes("size")?,
    };
    let dtype = c.dtype("dtype").or(like.map(|t| t.dtype())).unwrap_or(dtype);
    let n = count(&shape)?;
    one(Tensor::of(dtype, &shape, (0..n).map(|_| draw(dtype)))?)
}

pub(super) fn rand(c: &Call) -> Results {
    each(c, DType::Float32, uniform)
}

pub(super) fn randn(c: &Call) -> Results {
    each(c, DType::Float32, |_| gaussian())
}

/// Whole numbers from the lower bound (0 where there is none) to below the upper one.
pub(super) fn randint(c: &Call) -> Results {
    let bound = |names: [&str; 2]| names.into_iter().find(|n| c.given(n)).map(|n| c.int(n)).transpose();
    let low = bound(["low", "from"])?.unwrap_or(0);
    let high = bound(["high", "to"])?.ok_or_else(|| bad("without an upper bound"))?;
    let range = high.checked_sub(low).filter(|&n| n > 0).ok_or_else(|| bad(format!("from {low} to {high}")))? as u64;
    each(c, DType::Int64, |_| (low + (bits() % range) as i64) as f64)
}

/// The numbers below `n` in any order, each order as likely. Source: R. Durstenfeld, "Algorithm 235: Random permutation", 1964.
pub(super) fn randperm(c: &Call) -> Results {
    let n = c.size("n")?;
    count(&[n])?;
    let mut all: Vec<i64> = (0..n as i64).collect();
    for i in (1..n).rev() {
        all.swap(i, (bits() % (i as u64 + 1)) as usize);
    }
    one(Tensor::of(c.dtype("dtype").unwrap_or(DType::Int64), &[n], all)?)
}

/// Mean and deviation, each a number or a tensor; in the sizes asked for, in those of the tensor that is filled, or broadcast.
fn around(c: &Call, last: fn(f64) -> f64) -> Results {
    let (mean, std) = (c.tensor("mean")?, c.tensor("std")?);
    let (shape, dtype) = if c.given("size") {
        (c.sizes("size")?, c.dtype("dtype").unwrap_or(DType::Float32))
    } else if c.given("self") {
        (c.first()?.shape().to_vec(), c.first()?.dtype())
    } else {
        (broadcast(&[mean.shape(), std.shape()])?, if c.operand("mean")?.is_scalar() { std.dtype() } else { mean.dtype() })
    };
    let n = count(&shape)?;
    let z = Tensor::of(DType::Float64, &shape, (0..n).map(|_| gaussian()))?;
    let wide = zip(DType::Float64, DType::Float64, &z, &std, |z: f64, s| z * s)?;
    let moved = zip(DType::Float64, DType::Float64, &wide, &mean, |x: f64, m| last(x + m))?;
    one(moved.cast(dtype)?)
}

pub(super) fn normal(c: &Call) -> Results {
    around(c, |x| x)
}

pub(super) fn log_normal(c: &Call) -> Results {
    around(c, f64::exp)
}

pub(super) fn between(c: &Call) -> Results {
    let (from, to) = (c.float("from")?, c.float("to")?);
    each(c, DType::Float32, |d| from + (to - from) * uniform(d))
}

pub(super) fn exponential(c: &Call) -> Results {
    let rate = c.float("lambd")?;
    each(c, DType::Float32, |_| -above_zero().ln() / rate)
}

/// How many throws it takes until the first success.
pub(super) fn geometric(c: &Call) -> Results {
    let p = c.float("p")?;
    each(c, DType::Float32, |_| (above_zero().ln() / (-p).ln_1p()).ceil().max(1.0))
}

pub(super) fn cauchy(c: &Call) -> Results {
    let (median, sigma) = (c.float("median")?, c.float("sigma")?);
    each(c, DType::Float32, |_| median + sigma * (std::f64::consts::PI * (above_zero() - 0.5)).tan())
}

/// 1 with a probability that is the tensor itself, or given beside it.
pub(super) fn bernoulli(c: &Call) -> Results {
    let t = c.first()?;
    let p = if c.given("p") { c.tensor("p")? } else { t.clone() };
    let p = p.cast(DType::Float64)?.expand(t.shape())?;
    one(map(&p, t.dtype(), |p: f64| uniform(DType::Float64) < p)?)
}

/// Places of a row, drawn in proportion to its weights; where none may come twice, a place that came weighs nothing.
pub(super) fn multinomial(c: &Call) -> Results {
    let (t, n, again) = (c.first()?, c.size("num_samples")?, c.flag("replacement"));
    let (width, rows) = match *t.shape() {
        [width] => (width, 1),
        [rows, width] => (width, rows),
        _ => return Err(bad("weights must be a row or rows")),
    };
    if n == 0 || (!again && n > width) {
        return Err(bad(format!("{n} of {width} places")));
    }
    crate::budget::work(count(&[rows, n])?, width)?;
    let mut places: Vec<i64> = Vec::new();
    for row in t.to::<f64>().chunks(width.max(1)).take(rows) {
        let mut weights = row.to_vec();
        for _ in 0..n {
            let mut left = uniform(DType::Float64) * weights.iter().sum::<f64>();
            let drawn = weights.iter().position(|w| {
                left -= w;
                left < 0.0
            });
            let drawn = drawn.ok_or_else(|| bad("too few places have a weight"))?;
            if let (false, Some(w)) = (again, weights.get_mut(drawn)) {
                *w = 0.0;
            }
            places.push(drawn as i64);
        }
    }
    let shape = if t.rank() == 1 { vec![n] } else { vec![rows, n] };
    one(Tensor::of(DType::Int64, &shape, places)?)
}

/// The probability of dropout, where it drops at all.
fn dropping(c: &Call) -> Result<Option<f64>, Error> {
    let p = c.float("p")?;
    if !(0.0..=1.0).contains(&p) {
        return Err(bad(format!("a probability of {p}")));
    }
    // `native_dropout` trains if nothing is said.
    let train = c.flag("train") || !c.given("train");
    Ok((train && p > 0.0).then_some(p))
}

/// Which elements are kept: each by chance; whole channels where features are dropped.
fn kept(c: &Call, t: &Tensor, p: f64) -> Result<Tensor, Error> {
    let features = c.op.schema().name.starts_with("feature");
    let shape: Vec<usize> = t.shape().iter().enumerate().map(|(i, &n)| if features && i > 1 { 1 } else { n }).collect();
    let n = count(&shape)?;
    Tensor::of(DType::Bool, &shape, (0..n).map(|_| uniform(DType::Float64) >= p))?.expand(t.shape())
}

/// What is kept of a tensor, grown so that the mean stays.
pub(super) fn dropped(t: &Tensor, kept: &Tensor, p: f64) -> Result<Tensor, Error> {
    let grown = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    zip(DType::Float64, t.dtype(), t, kept, |x: f64, k| x * k * grown)
}

/// Nothing falls away at inference.
pub(super) fn dropout(c: &Call) -> Results {
    let t = c.first()?;
    one(match dropping(c)? {
        Some(p) => dropped(&t, &kept(c, &t, p)?, p)?,
        None => t,
    })
}

/// With the mask.
pub(super) fn native_dropout(c: &Call) -> Results {
    let t = c.first()?;
    many(match dropping(c)? {
        Some(p) => {
            let kept = kept(c, &t, p)?;
            [dropped(&t, &kept, p)?, kept.copy()?]
        }
        None => [t.clone(), Tensor::full(DType::Bool, t.shape(), true)?],
    })
}

/// What falls away becomes the least value of SELU; then all is scaled to keep mean and variance. Source: torch.nn.AlphaDropout.
pub(super) fn alpha_dropout(c: &Call) -> Results {
    let t = c.first()?;
    let Some(p) = dropping(c)? else { return one(t) };
    let least = -1.758_099_340_847_376_6_f64;
    let scale = if p < 1.0 { 1.0 / ((least * least * p + 1.0) * (1.0 - p)).sqrt() } else { 0.0 };
    let kept = kept(c, &t, p)?;
    one(zip(DType::Float64, t.dtype(), &t, &kept, |x: f64, k| scale * (if k != 0.0 { x } else { least } - least * p))?)
}

/// Attention's weights after dropout.
pub(super) fn thinned(weights: &Tensor, p: f64) -> Result<Tensor, Error> {
    let n = weights.numel();
    let kept = Tensor::of(DType::Bool, weights.shape(), (0..n).map(|_| uniform(DType::Float64) >= p))?;
    dropped(weights, &kept, p)
}
