//! Operators that work element by element.

use super::call::{Call, Number, Operand, Results, one, promoted};
use super::element::{Complex, Element, round};
use super::functions;
use super::tensor::Tensor;
use super::{Error, bad};
use crate::DType;
use crate::infer::promote::{to_complex, to_float, to_real};

/// Broadcasts shapes: aligned at the end, a 1 gives way.
pub(super) fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>, Error> {
    let mut out = vec![1; shapes.iter().map(|s| s.len()).max().unwrap_or(0)];
    for shape in shapes {
        let skip = out.len() - shape.len();
        for (have, &n) in out.iter_mut().skip(skip).zip(*shape) {
            match (*have, n) {
                (_, 1) => {}
                (1, _) => *have = n,
                (h, n) if h == n => {}
                _ => return Err(bad(format!("shapes {shapes:?} do not broadcast"))),
            }
        }
    }
    Ok(out)
}

/// Applies `f` to each element.
pub(super) fn map<T: Element, R: Element>(t: &Tensor, dtype: DType, f: impl Fn(T) -> R) -> Result<Tensor, Error> {
    Tensor::of(dtype, t.shape(), t.to::<T>().into_iter().map(f))
}

/// Applies `f` to each pair of elements, broadcast; both are converted to `compute` before.
pub(super) fn zip<T: Element, R: Element>(
    compute: DType,
    dtype: DType,
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(T, T) -> R,
) -> Result<Tensor, Error> {
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let read = |t: &Tensor| Ok::<_, Error>(t.cast(compute)?.expand(&shape)?.to::<T>());
    Tensor::of(dtype, &shape, read(a)?.into_iter().zip(read(b)?).map(|(a, b)| f(a, b)))
}

/// Applies `f` to each triple of elements, broadcast.
fn zip3(compute: DType, [a, b, c]: [&Tensor; 3], f: impl Fn(f64, f64, f64) -> f64) -> Result<Tensor, Error> {
    let shape = broadcast(&[a.shape(), b.shape(), c.shape()])?;
    let read = |t: &Tensor| Ok::<_, Error>(t.cast(compute)?.expand(&shape)?.to::<f64>());
    let (a, b, c) = (read(a)?, read(b)?, read(c)?);
    Tensor::of(compute, &shape, a.into_iter().zip(b).zip(c).map(|((a, b), c)| f(a, b, c)))
}

/// A function of floats; integers become `f32` first.
pub(super) fn float(c: &Call, f: fn(f64) -> f64) -> Results {
    let t = c.first()?;
    let dtype = to_float(t.dtype());
    if dtype.is_complex() {
        return Err(bad("of complex numbers"));
    }
    one(map(&t.cast(dtype)?, dtype, f)?)
}

/// A function of floats with some numbers as parameters, in the order of the schema. To halves they are `f32`, unless they are `rounded` to
/// the tensor's type.
pub(super) fn float_with<const N: usize>(c: &Call, rounded: bool, f: fn(f64, [f64; N]) -> f64) -> Results {
    let t = c.first()?;
    let dtype = to_float(t.dtype());
    let mut parameters = [0.0; N];
    let names = c.schema.args.iter().skip(1).map(|a| a.name.as_str());
    for (p, name) in parameters.iter_mut().zip(names) {
        *p = round(if dtype.size() < 4 && !rounded { DType::Float32 } else { dtype }, c.float(name)?);
    }
    one(map(&t.cast(dtype)?, dtype, |x| f(x, parameters))?)
}

/// A function that keeps the element type.
pub(super) fn same(c: &Call, float: fn(f64) -> f64, int: fn(i64) -> i64) -> Results {
    let t = c.first()?;
    match t.dtype() {
        d if d.is_complex() => one(map(&t, d, |z: Complex| [float(z[0]), float(z[1])])?),
        d if d.is_float() => one(map(&t, d, float)?),
        d => one(map(&t, d, int)?),
    }
}

/// A question about each element.
pub(super) fn test(c: &Call, float: fn(f64) -> bool, int: bool) -> Results {
    let t = c.first()?;
    match t.dtype() {
        d if d.is_float() || d.is_complex() => one(map(&t, DType::Bool, float)?),
        _ => one(Tensor::full(DType::Bool, t.shape(), int)?),
    }
}

/// `abs`: of a complex number its modulus.
pub(super) fn abs(c: &Call) -> Results {
    let t = c.first()?;
    match t.dtype() {
        d if d.is_complex() => one(map(&t, to_real(d), |[a, b]: Complex| a.hypot(b))?),
        d if d.is_float() => one(map(&t, d, f64::abs)?),
        d => one(map(&t, d, i64::wrapping_abs)?),
    }
}

/// `exp` and its kin, of complex numbers too.
pub(super) fn analytic(c: &Call, real: fn(f64) -> f64, complex: fn(Complex) -> Complex) -> Results {
    let t = c.first()?;
    if t.dtype().is_complex() { one(map(&t, t.dtype(), complex)?) } else { float(c, real) }
}

pub(super) fn square(c: &Call) -> Results {
    let t = c.first()?;
    match t.dtype() {
        d if d.is_complex() => one(map(&t, d, |z: Complex| super::arithmetic::times(z, z))?),
        // Unlike a product of booleans, a power of one is a whole number.
        DType::Bool => one(t.cast(DType::Int64)?),
        _ => same(c, |x| x * x, |n| n.wrapping_mul(n)),
    }
}

pub(super) fn signbit(c: &Call) -> Results {
    let t = c.first()?;
    if t.dtype().is_float() { one(map(&t, DType::Bool, f64::is_sign_negative)?) } else { one(map(&t, DType::Bool, |n: i64| n < 0)?) }
}

pub(super) fn conjugate(c: &Call) -> Results {
    let t = c.first()?;
    one(if t.dtype().is_complex() { map(&t, t.dtype(), |[a, b]: Complex| [a, -b])? } else { t })
}

/// `log(x / (1 - x))`, `x` clamped if there is an `eps`.
pub(super) fn logit(c: &Call) -> Results {
    let t = c.first()?;
    let (d, eps) = (to_float(t.dtype()), c.maybe_float("eps")?);
    one(map(&t.cast(d)?, d, |x: f64| {
        let x = eps.map_or(x, |e| {
            if x < e {
                e
            } else if x > 1.0 - e {
                1.0 - e
            } else {
                x
            }
        });
        (x / (1.0 - x)).ln()
    })?)
}

pub(super) fn threshold(c: &Call) -> Results {
    let t = c.first()?;
    if t.dtype().is_float() {
        return float_with(c, true, functions::threshold);
    }
    let (threshold, value) = (c.number("threshold")?.int(), c.number("value")?.int());
    one(map(&t, t.dtype(), |n: i64| if n <= threshold { value } else { n })?)
}

/// Whether two values are equal up to a tolerance.
pub(super) fn is_close(c: &Call) -> Results {
    let (a, b) = (c.first()?, c.tensor("other")?);
    let (rtol, atol, nan) = (c.float("rtol")?, c.float("atol")?, c.flag("equal_nan"));
    one(zip(a.dtype(), DType::Bool, &a, &b, |a: f64, b: f64| {
        a == b || (nan && a.is_nan() && b.is_nan()) || (b.is_finite() && (a - b).abs() <= atol + rtol * b.abs())
    })?)
}

/// The real (0) or imaginary part of each complex number, as a view.
pub(super) fn part(c: &Call, at: usize) -> Results {
    let t = c.first()?;
    if !t.dtype().is_complex() {
        return if at == 0 { one(t) } else { Err(bad("the imaginary part of a real tensor")) };
    }
    one(super::views::as_real(&t)?.select(t.rank(), at)?)
}

pub(super) fn angle(c: &Call) -> Results {
    let t = c.first()?;
    match t.dtype() {
        d if d.is_complex() => one(map(&t, to_real(d), |[a, b]: Complex| b.atan2(a))?),
        d => one(map(&t, to_float(d), |x: f64| {
            if x.is_nan() {
                x
            } else if x < 0.0 {
                std::f64::consts::PI
            } else {
                0.0
            }
        })?),
    }
}

pub(super) fn logical_not(c: &Call) -> Results {
    one(map(&c.first()?, DType::Bool, |x: bool| !x)?)
}

pub(super) fn bitwise_not(c: &Call) -> Results {
    let t = c.first()?;
    match t.dtype() {
        DType::Bool => logical_not(c),
        d if d.is_int() => one(map(&t, d, |n: i64| !n)?),
        d => Err(bad(format!("of {d}"))),
    }
}

/// The identity; `clone`, `contiguous` and the like copy, which the caller cannot tell but by writing.
pub(super) fn copy(c: &Call) -> Results {
    one(c.first()?.copy()?)
}

/// `contiguous`: a copy only where there is something to do.
pub(super) fn contiguous(c: &Call) -> Results {
    let t = c.first()?;
    one(if t.is_row_major() { t } else { t.copy()? })
}

/// What shares its argument's memory.
pub(super) fn itself(c: &Call) -> Results {
    one(c.first()?)
}

/// Picks elements of two operands, in their common type.
pub(super) fn select(condition: &Tensor, a: &Operand, b: &Operand) -> Result<Tensor, Error> {
    let dtype = promoted(&[a.clone(), b.clone()])?;
    let (a, b) = (a.tensor()?.cast(dtype)?, b.tensor()?.cast(dtype)?);
    let shape = broadcast(&[condition.shape(), a.shape(), b.shape()])?;
    let (mut bytes, size) = (b.expand(&shape)?.bytes(), dtype.size());
    let from = a.expand(&shape)?.bytes();
    for ((to, from), yes) in bytes.chunks_exact_mut(size).zip(from.chunks_exact(size)).zip(condition.expand(&shape)?.to::<bool>()) {
        if yes {
            to.copy_from_slice(from);
        }
    }
    Tensor::new(dtype, &shape, bytes)
}

pub(super) fn choose(c: &Call) -> Results {
    let names: Vec<&str> = c.schema.args.iter().map(|a| a.name.as_str()).collect();
    let [condition, a, b, ..] = names.as_slice() else { return Err(bad("three arguments")) };
    one(select(&c.tensor(condition)?, &c.operand(a)?, &c.operand(b)?)?)
}

/// The value, which does not take part in promotion, where the mask is true.
pub(super) fn masked_fill(c: &Call) -> Results {
    let (t, mask) = (c.first()?, c.tensor("mask")?);
    let value = c.number("value")?.wide()?.cast(t.dtype())?;
    one(select(&mask, &value.into(), &t.into())?)
}

/// `fill`: the value everywhere.
pub(super) fn fill(c: &Call) -> Results {
    let t = c.first()?;
    one(c.number("value")?.wide()?.cast(t.dtype())?.expand(t.shape())?.copy()?)
}

pub(super) fn zero(c: &Call) -> Results {
    let t = c.first()?;
    one(Tensor::full(t.dtype(), t.shape(), 0i64)?)
}

/// `copy`: the source, broadcast and converted to what it overwrites.
pub(super) fn written(c: &Call) -> Results {
    let t = c.first()?;
    one(c.tensor("src")?.expand(t.shape())?.cast(t.dtype())?)
}

/// Bounds, either of which may be absent; NaN anywhere gives NaN, and the upper bound wins.
pub(super) fn clamp(c: &Call, lower: &str, upper: &str) -> Results {
    let bound = |name: &str| if name.is_empty() { Ok(None) } else { c.maybe_operand(name) };
    let (low, high) = (bound(lower)?, bound(upper)?);
    let t = c.first()?;
    let all: Vec<Operand> = [Some(t.clone().into()), low.clone(), high.clone()].into_iter().flatten().collect();
    let d = promoted(&all)?;
    let mut out = t.cast(d)?;
    for (bound, up) in [(low, true), (high, false)] {
        let Some(b) = bound else { continue };
        let b = match (b, d.int_range()) {
            // Unlike in arithmetic, a number beyond the type does not wrap: it bounds nothing, or there is nothing between the bounds.
            (Operand::Number(Number::Int(n)), Some(range)) if !range.contains(&n) => {
                if up == (n > 0) {
                    return Err(bad(format!("a bound of {n} for {d}")));
                }
                continue;
            }
            (b, _) => b.tensor()?,
        };
        out = match (d.is_float(), up) {
            (true, true) => zip(d, d, &out, &b, functions::maximum)?,
            (true, false) => zip(d, d, &out, &b, functions::minimum)?,
            (false, true) => zip(d, d, &out, &b, i64::max)?,
            (false, false) => zip(d, d, &out, &b, i64::min)?,
        };
    }
    one(out)
}

/// `self + value a b` and `self + value a / b`
pub(super) fn add_product(c: &Call, f: fn(f64, f64) -> f64, int: fn(i64, i64) -> i64) -> Results {
    let all = [c.first()?, c.tensor("tensor1")?, c.tensor("tensor2")?];
    let value = c.number("value")?;
    let d = promoted(&all.clone().map(Operand::from))?;
    let [t, a, b] = all;
    if d.is_float() {
        let k = value.float();
        return one(zip3(d, [&t, &a, &b], |t, a, b| t + k * f(a, b))?);
    }
    let k = value.int();
    let inner = zip(d, d, &a, &b, int)?;
    one(zip(d, d, &t, &inner, |t: i64, x: i64| t.wrapping_add(k.wrapping_mul(x)))?)
}

pub(super) fn lerp(c: &Call) -> Results {
    let (a, b, w) = (c.first()?, c.tensor("end")?, c.operand("weight")?.tensor()?);
    let d = a.dtype();
    let f = |a: f64, b: f64, w: f64| if w.abs() < 0.5 { a + w * (b - a) } else { b - (b - a) * (1.0 - w) };
    let wide = if d.size() < 4 { DType::Float32 } else { d };
    one(zip3(wide, [&a, &b, &w], f)?.cast(d)?)
}

/// `complex` and `polar`
pub(super) fn complex(c: &Call, f: fn(f64, f64) -> Complex) -> Results {
    let [a, b] = c.operands()?;
    let (a, b) = (a.tensor()?, b.tensor()?);
    one(zip(a.dtype(), to_complex(a.dtype()), &a, &b, f)?)
}

/// `max(0, x) + weight min(0, x)`, a weight for each channel (dimension 1) or one for all.
pub(super) fn prelu(c: &Call) -> Results {
    let (t, w) = (c.first()?, c.tensor("weight")?);
    let channels = if w.numel() == 1 { w.reshape(&[])? } else { per_channel(&w, t.rank())? };
    one(zip(t.dtype(), t.dtype(), &t, &channels, |x: f64, w| if x > 0.0 { x } else { w * x })?)
}

/// A value for each channel in the shape that broadcasts over dimension 1.
pub(super) fn per_channel(t: &Tensor, rank: usize) -> Result<Tensor, Error> {
    let mut shape = vec![1; rank.max(1)];
    if let Some(n) = shape.get_mut(usize::from(rank > 1)) {
        *n = t.numel();
    }
    t.reshape(&shape)
}

/// The first half of a dimension times the sigmoid of the second.
pub(super) fn glu(c: &Call) -> Results {
    let t = c.first()?;
    let axis = c.axis("dim", t.rank())?;
    let half = t.size(axis) / 2;
    if t.rank() == 0 || t.size(axis) % 2 == 1 {
        return Err(super::bad(format!("halves of a dimension of size {}", t.size(axis))));
    }
    let (a, b) = (t.slice(axis, 0, half, 1)?, t.slice(axis, half, half, 1)?);
    one(zip(t.dtype(), t.dtype(), &a, &b, |a: f64, b: f64| a * functions::sigmoid(b))?)
}

pub(super) fn gelu(c: &Call) -> Results {
    let t = c.first()?;
    let d = t.dtype();
    // The sum that cancels is rounded as torch rounds it.
    let wide = if d == DType::Float64 { d } else { DType::Float32 };
    one(match c.text("approximate") {
        Some("tanh") => map(&t, d, |x: f64| {
            let inner = 0.797_884_560_802_865_4 * (x + 0.044715 * x * x * x);
            0.5 * x * round(wide, 1.0 + round(wide, inner.tanh()))
        })?,
        _ => map(&t, d, |x: f64| 0.5 * x * round(wide, 1.0 + round(wide, libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))))?,
    })
}

/// Rounds to so many decimals.
pub(super) fn round_decimals(c: &Call) -> Results {
    let (t, n) = (c.first()?, c.int("decimals")?);
    if !t.dtype().is_float() {
        return one(t.copy()?);
    }
    let wide = if t.dtype().size() < 4 { DType::Float32 } else { t.dtype() };
    let power = 10f64.powi(i32::try_from(n.unsigned_abs()).unwrap_or(i32::MAX));
    one(map(&t, t.dtype(), |x: f64| {
        if n < 0 { round(wide, x / power).round_ties_even() * power } else { round(wide, x * power).round_ties_even() / power }
    })?)
}

/// NaN and infinities by numbers, by default 0 and the largest.
pub(super) fn nan_to_num(c: &Call) -> Results {
    let t = c.first()?;
    if !t.dtype().is_float() {
        return one(t.copy()?);
    }
    let largest = functions::largest(t.dtype());
    let (nan, up, down) = (c.float_or("nan", 0.0)?, c.float_or("posinf", largest)?, c.float_or("neginf", -largest)?);
    one(map(&t, t.dtype(), |x: f64| match x {
        x if x.is_nan() => nan,
        f64::INFINITY => up,
        f64::NEG_INFINITY => down,
        x => x,
    })?)
}

/// Element-wise losses with their `reduction` (0 none, 1 mean, 2 sum).
pub(super) fn loss(c: &Call, f: fn(f64, f64, f64) -> f64, parameter: &str) -> Results {
    let (a, b) = (c.first()?, c.tensor("target")?);
    let p = if parameter.is_empty() { 0.0 } else { c.float(parameter)? };
    let d = promoted(&[a.clone().into(), b.clone().into()])?;
    let all = zip(d, d, &a, &b, |a, b| f(a, b, p))?;
    let sum: f64 = all.to::<f64>().iter().sum();
    one(match c.int("reduction")? {
        0 => all,
        1 => Tensor::scalar(d, sum / all.numel() as f64)?,
        _ => Tensor::scalar(d, sum)?,
    })
}

/// Rounded to steps of a scale within limits, as they are stored in a few bits; a scale for all or one a channel.
pub(super) fn fake_quantize(c: &Call, channels: bool) -> Results {
    let t = c.first()?;
    let (low, high) = (c.float("quant_min")?, c.float("quant_max")?);
    if low > high {
        return Err(bad(format!("codes from {low} to {high}")));
    }
    let (scale, zero) = if channels {
        let axis = c.axis("axis", t.rank())?;
        let along = |t: Tensor, rank: usize| (0..rank).filter(|a| *a != axis).try_fold(t, |t, a| t.unsqueeze(a));
        (along(c.tensor("scale")?, t.rank())?, along(c.tensor("zero_point")?, t.rank())?)
    } else {
        (Tensor::scalar(DType::Float32, c.float("scale")?)?, Tensor::scalar(DType::Int64, c.int("zero_point")?)?)
    };
    let step = |x: f64, scale: f64, zero: f64| {
        let inverse = f64::from(1.0 / scale as f32);
        let code = functions::clamp(f64::from((x * inverse) as f32).round_ties_even() + zero, low, high);
        (code - zero) * scale
    };
    one(zip3(DType::Float64, [&t, &scale, &zero], step)?.cast(t.dtype())?)
}

/// Random in training only, where it has no answer to compare with.
pub(super) fn rrelu(c: &Call) -> Results {
    if c.flag("training") {
        return super::create::random(c);
    }
    let slope = (c.float("lower")? + c.float("upper")?) / 2.0;
    let t = c.first()?;
    one(map(&t, t.dtype(), |x: f64| if x >= 0.0 { x } else { x * slope })?)
}
