//! Arithmetic, comparison and logic of two operands, in their common type.

use super::call::{Call, Number, Operand, Results, one, promoted};
use super::element::{Complex, round};
use super::pointwise::{map, zip};
use super::tensor::Tensor;
use super::{Error, bad};
use crate::DType;
use crate::infer::promote::to_float;

/// The type in which a scalar factor or divisor takes part: torch multiplies and divides halves by an `f32` one.
fn wide_scalar(b: &Operand, compute: DType) -> Result<Tensor, Error> {
    let t = b.tensor()?;
    if b.is_scalar() && compute.size() < 4 && compute.is_float() { t.cast(DType::Float32) } else { t.cast(compute) }
}

/// A function of two operands in their common type.
pub(super) fn binary(operands: &[Operand; 2], float: fn(f64, f64) -> f64, int: fn(i64, i64) -> i64) -> Result<Tensor, Error> {
    let compute = promoted(operands)?;
    let (a, b) = (operands[0].tensor()?, operands[1].tensor()?);
    match compute {
        d if d.is_complex() => Err(bad("of complex numbers")),
        d if d.is_float() => zip(d, d, &a, &b, float),
        d => zip(d, d, &a, &b, int),
    }
}

/// As [`binary`], for a call.
pub(super) fn pair(c: &Call, float: fn(f64, f64) -> f64, int: fn(i64, i64) -> i64) -> Results {
    one(binary(&c.operands()?, float, int)?)
}

/// A function of two floats; integers become `f32`.
pub(super) fn float_pair(c: &Call, f: fn(f64, f64) -> f64) -> Results {
    let operands = c.operands()?;
    let d = to_float(promoted(&operands)?);
    one(zip(d, d, &operands[0].tensor()?, &operands[1].tensor()?, f)?)
}

/// `a + alpha b`
pub(super) fn add_scaled([a, b]: [Operand; 2], alpha: Number) -> Result<Tensor, Error> {
    let compute = promoted(&[a.clone(), b.clone()])?;
    let (a, b) = (a.tensor()?, b.tensor()?);
    match compute {
        d if d.is_complex() => {
            let k = alpha.float();
            zip(d, d, &a, &b, |a: Complex, b: Complex| [a[0] + k * b[0], a[1] + k * b[1]])
        }
        d if d.is_float() => {
            let k = round(d, alpha.float());
            zip(d, d, &a, &b, |a: f64, b| a + k * b)
        }
        d => {
            // Of truth values it is one, too.
            let k = if d == DType::Bool { i64::from(alpha.int() != 0) } else { alpha.int() };
            zip(d, d, &a, &b, |a: i64, b| a.wrapping_add(k.wrapping_mul(b)))
        }
    }
}

fn alpha(c: &Call) -> Result<Number, Error> {
    if c.given("alpha") { c.number("alpha") } else { Ok(Number::Int(1)) }
}

fn negated(n: Number) -> Number {
    match n {
        Number::Float(x) => Number::Float(-x),
        Number::Complex([a, b]) => Number::Complex([-a, -b]),
        n => Number::Int(n.int().wrapping_neg()),
    }
}

pub(super) fn add(c: &Call) -> Results {
    one(add_scaled(c.operands()?, alpha(c)?)?)
}

pub(super) fn sub(c: &Call) -> Results {
    one(add_scaled(c.operands()?, negated(alpha(c)?))?)
}

pub(super) fn rsub(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    one(add_scaled([b, a], negated(alpha(c)?))?)
}

pub(super) fn times(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

fn divided(a: Complex, b: Complex) -> Complex {
    let n = b[0] * b[0] + b[1] * b[1];
    let [re, im] = times(a, [b[0], -b[1]]);
    [re / n, im / n]
}

/// `a b`
pub(super) fn product([a, b]: [Operand; 2]) -> Result<Tensor, Error> {
    let compute = promoted(&[a.clone(), b.clone()])?;
    match compute {
        d if d.is_complex() => zip(d, d, &a.tensor()?, &b.tensor()?, times),
        d if d.is_float() => scaled(d, &a, &b, |a, b| a * b),
        d => zip(d, d, &a.tensor()?, &b.tensor()?, i64::wrapping_mul),
    }
}

/// A function of floats whose second operand is not rounded to a half where it is a scalar.
fn scaled(d: DType, a: &Operand, b: &Operand, f: impl Fn(f64, f64) -> f64) -> Result<Tensor, Error> {
    let (a, b) = (a.tensor()?.cast(d)?, wide_scalar(b, d)?);
    let widest = if b.dtype() == d { d } else { DType::Float32 };
    zip(widest, d, &a, &b, f)
}

pub(super) fn mul(c: &Call) -> Results {
    one(product(c.operands()?)?)
}

/// `a / b`
pub(super) fn quotient([a, b]: [Operand; 2]) -> Result<Tensor, Error> {
    match to_float(promoted(&[a.clone(), b.clone()])?) {
        d if d.is_complex() => zip(d, d, &a.tensor()?, &b.tensor()?, divided),
        d => scaled(d, &a, &b, |a, b| a / b),
    }
}

pub(super) fn div(c: &Call) -> Results {
    one(quotient(c.operands()?)?)
}

/// Division with `rounding_mode`.
pub(super) fn div_mode(c: &Call) -> Results {
    match c.text("rounding_mode") {
        None => div(c),
        Some("floor") => floor_divide(c),
        Some("trunc") => {
            let [a, b] = c.operands()?;
            let d = promoted(&[a.clone(), b.clone()])?;
            if d.is_float() {
                return one(scaled(d, &a, &b, |a, b| round(if d.size() < 4 { DType::Float32 } else { d }, a / b).trunc())?);
            }
            let (a, b) = (a.tensor()?, b.tensor()?);
            no_zero(&b, d)?;
            one(zip(d, d, &a, &b, |a: i64, b: i64| a.wrapping_div(b))?)
        }
        Some(other) => Err(bad(format!("rounding mode {other:?}"))),
    }
}

/// Integers have no quotient by zero, nor by what is zero in the type that is computed in.
fn no_zero(b: &Tensor, compute: DType) -> Result<(), Error> {
    if compute.is_complex() {
        return Err(bad("of complex numbers"));
    }
    if !compute.is_float() && b.cast(compute)?.to::<i64>().contains(&0) {
        return Err(bad("division of integers by zero"));
    }
    Ok(())
}

/// Floor division of floats as Python has it: exact even where the quotient rounds up to an integer.
fn floor_quotient(d: DType, a: f64, b: f64) -> f64 {
    if b == 0.0 {
        return a / b;
    }
    let remainder = a % b;
    let mut q = round(d, round(d, a - remainder) / b);
    if remainder != 0.0 && (b < 0.0) != (remainder < 0.0) {
        q -= 1.0;
    }
    if q == 0.0 {
        return 0f64.copysign(a / b);
    }
    let floor = q.floor();
    if q - floor > 0.5 { floor + 1.0 } else { floor }
}

pub(super) fn floor_divide(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    let d = promoted(&[a.clone(), b.clone()])?;
    if d.is_float() {
        let wide = if d.size() < 4 { DType::Float32 } else { d };
        return one(scaled(d, &a, &b, |a, b| floor_quotient(wide, a, b))?);
    }
    let (a, b) = (a.tensor()?, b.tensor()?);
    no_zero(&b, d)?;
    one(zip(d, d, &a, &b, |a: i64, b: i64| {
        let q = a.wrapping_div(b);
        if a.wrapping_rem(b) != 0 && (a < 0) != (b < 0) { q - 1 } else { q }
    })?)
}

/// The remainder with the divisor's sign.
pub(super) fn remainder(c: &Call) -> Results {
    let operands = c.operands()?;
    no_zero(&operands[1].tensor()?, promoted(&operands)?)?;
    one(binary(
        &operands,
        |a, b| {
            let r = a % b;
            if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
        },
        |a, b| {
            let r = a.wrapping_rem(b);
            if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
        },
    )?)
}

/// The remainder with the dividend's sign.
pub(super) fn fmod(c: &Call) -> Results {
    let operands = c.operands()?;
    no_zero(&operands[1].tensor()?, promoted(&operands)?)?;
    one(binary(&operands, |a, b| a % b, i64::wrapping_rem)?)
}

/// Powers of integers wrap; negative ones are 0 but of 1 and -1.
fn int_power(a: i64, n: i64) -> i64 {
    match n {
        n if n >= 0 => {
            let (mut out, mut base, mut n) = (1i64, a, n);
            while n > 0 {
                if n & 1 == 1 {
                    out = out.wrapping_mul(base);
                }
                base = base.wrapping_mul(base);
                n >>= 1;
            }
            out
        }
        n => match a {
            1 => 1,
            -1 if n % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        },
    }
}

pub(super) fn pow(c: &Call) -> Results {
    let operands = c.operands()?;
    if let (Operand::Number(n), d) = (&operands[1], promoted(&operands)?) {
        if n.float() < 0.0 && !d.is_float() && !d.is_complex() {
            return Err(bad("integers to a negative integer power"));
        }
        if d == DType::BFloat16 && n.float() == 3.0 {
            // torch multiplies twice, rounding in between.
            return one(map(&operands[0].tensor()?.cast(d)?, d, |x: f64| round(d, x * x) * x)?);
        }
    }
    if promoted(&operands)?.is_complex() {
        let Operand::Number(Number::Int(2)) = &operands[1] else { return Err(bad("of complex numbers")) };
        let z = operands[0].tensor()?;
        return one(zip(z.dtype(), z.dtype(), &z, &z, times)?);
    }
    // torch takes roots for these, which differ from powers at negative zero and infinity; powers of halves it computes as such.
    match (&operands[1], promoted(&operands)?) {
        (Operand::Number(n), d) if d != DType::Float16 && n.float() == 0.5 => return one(binary(&operands, |x, _| x.sqrt(), int_power)?),
        (Operand::Number(n), d) if d != DType::Float16 && n.float() == -0.5 => {
            return one(binary(&operands, |x, _| 1.0 / x.sqrt(), int_power)?);
        }
        _ => {}
    }
    one(binary(&operands, f64::powf, int_power)?)
}

/// In double precision, whatever the operands.
pub(super) fn float_power(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    one(zip(DType::Float64, DType::Float64, &a.tensor()?, &b.tensor()?, f64::powf)?)
}

/// The cross product of vectors along a dimension of size 3, by default the first.
pub(super) fn cross(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    let d = promoted(&[a.clone(), b.clone()])?;
    let shape = super::pointwise::broadcast(&[a.tensor()?.shape(), b.tensor()?.shape()])?;
    let axis = match c.maybe_int("dim")? {
        Some(dim) => super::call::wrap(dim, shape.len())?,
        None => shape.iter().position(|n| *n == 3).ok_or_else(|| bad("no dimension of size 3"))?,
    };
    let at = |t: &Operand, i: usize| t.tensor()?.cast(d)?.expand(&shape)?.select(axis, i % 3);
    let part = |i: usize| {
        let product = |i: usize, j: usize| product([at(&a, i)?.into(), at(&b, j)?.into()]);
        add_scaled([product(i + 1, i + 2)?.into(), product(i + 2, i + 1)?.into()], Number::Int(-1))
    };
    one(super::joins::stack_of(&[part(0)?, part(1)?, part(2)?], axis)?)
}

pub(super) fn bits(c: &Call, f: fn(i64, i64) -> i64) -> Results {
    let operands = c.operands()?;
    match promoted(&operands)? {
        d if d.is_float() || d.is_complex() => Err(bad(format!("of {d}"))),
        _ => one(binary(&operands, |_, _| f64::NAN, f)?),
    }
}

pub(super) fn shift_left(a: i64, n: i64) -> i64 {
    u32::try_from(n).ok().and_then(|n| a.checked_shl(n)).unwrap_or(0)
}

pub(super) fn shift_right(a: i64, n: i64) -> i64 {
    a >> u32::try_from(n).unwrap_or(63).min(63)
}

/// `a < b` and the like.
pub(super) fn compare(c: &Call, float: fn(&f64, &f64) -> bool, int: fn(&i64, &i64) -> bool) -> Results {
    let operands = c.operands()?;
    let (a, b) = (operands[0].tensor()?, operands[1].tensor()?);
    one(match promoted(&operands)? {
        d if d.is_complex() => {
            zip(d, DType::Bool, &a, &b, |a: Complex, b| float(&a[0], &b[0]) == float(&a[1], &b[1]) && float(&a[0], &b[0]))?
        }
        d if d.is_float() => zip(d, DType::Bool, &a, &b, |a, b| float(&a, &b))?,
        d => zip(d, DType::Bool, &a, &b, |a, b| int(&a, &b))?,
    })
}

pub(super) fn logical(c: &Call, f: fn(bool, bool) -> bool) -> Results {
    let [a, b] = c.operands()?;
    let truth = |o: &Operand| map(&o.tensor()?, DType::Bool, |x: bool| x);
    one(zip(DType::Bool, DType::Bool, &truth(&a)?, &truth(&b)?, f)?)
}

/// The arc tangent written to the tensor that is given for it.
pub(super) fn into_out(c: &Call) -> Results {
    let out = c.tensor("out")?;
    match float_pair(c, f64::atan2)?.as_slice() {
        [super::Value::Tensor(t)] => out.write(t)?,
        _ => return Err(bad("no result")),
    }
    one(out)
}
