//! Python's numbers: arithmetic on sizes and on what was read out of tensors.

use super::call::{Call, Number, Results};
use super::{Error, Value, bad};

fn number(c: &Call, at: usize) -> Result<Number, Error> {
    c.number(c.schema.args.get(at).map_or("", |a| a.name.as_str()))
}

fn pair(c: &Call) -> Result<(Number, Number), Error> {
    Ok((number(c, 0)?, number(c, 1)?))
}

fn overflow() -> Error {
    bad("the result does not fit 64 bits")
}

/// Integers are mathematical here: what does not fit is an error.
fn arithmetic(c: &Call, int: fn(i64, i64) -> Option<i64>, float: fn(f64, f64) -> f64) -> Results {
    Ok(vec![match pair(c)? {
        (a @ (Number::Float(_) | Number::Complex(_)), b) | (a, b @ (Number::Float(_) | Number::Complex(_))) => {
            Value::Float(float(a.float(), b.float()))
        }
        (a, b) => Value::Int(int(a.int(), b.int()).ok_or_else(overflow)?),
    }])
}

pub(super) fn add(c: &Call) -> Results {
    arithmetic(c, i64::checked_add, |a, b| a + b)
}

pub(super) fn sub(c: &Call) -> Results {
    arithmetic(c, i64::checked_sub, |a, b| a - b)
}

pub(super) fn mul(c: &Call) -> Results {
    arithmetic(c, i64::checked_mul, |a, b| a * b)
}

/// Python's `//`, rounded down.
pub(super) fn floor_div(a: i64, b: i64) -> Option<i64> {
    let q = a.checked_div(b)?;
    Some(if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q })
}

/// Python's `%`, with the sign of the divisor.
pub(super) fn modulo(a: i64, b: i64) -> Option<i64> {
    let r = a.checked_rem(b)?;
    Some(if r != 0 && (r < 0) != (b < 0) { r + b } else { r })
}

pub(super) fn floordiv(c: &Call) -> Results {
    arithmetic(c, floor_div, |a, b| (a / b).floor())
}

pub(super) fn rem(c: &Call) -> Results {
    arithmetic(c, modulo, |a, b| a - b * (a / b).floor())
}

pub(super) fn pow(c: &Call) -> Results {
    match pair(c)? {
        (Number::Int(a), Number::Int(b)) if b < 0 => Ok(vec![Value::Float((a as f64).powf(b as f64))]),
        _ => arithmetic(c, |a, b| a.checked_pow(u32::try_from(b).ok()?), f64::powf),
    }
}

pub(super) fn truediv(c: &Call) -> Results {
    let (a, b) = pair(c)?;
    if b.float() == 0.0 {
        return Err(bad("division by zero"));
    }
    Ok(vec![Value::Float(a.float() / b.float())])
}

pub(super) fn max(c: &Call) -> Results {
    arithmetic(c, |a, b| Some(a.max(b)), f64::max)
}

pub(super) fn min(c: &Call) -> Results {
    arithmetic(c, |a, b| Some(a.min(b)), f64::min)
}

pub(super) fn shift_left(c: &Call) -> Results {
    arithmetic(c, |a, b| a.checked_mul(1i64.checked_shl(u32::try_from(b).ok()?)?), |_, _| f64::NAN)
}

pub(super) fn shift_right(c: &Call) -> Results {
    arithmetic(c, |a, b| Some(a >> u32::try_from(b).ok()?.min(63)), |_, _| f64::NAN)
}

/// `&` and `|`, which on booleans give a boolean.
fn bits(c: &Call, f: fn(i64, i64) -> i64) -> Results {
    Ok(vec![match pair(c)? {
        (Number::Bool(a), Number::Bool(b)) => Value::Bool(f(a.into(), b.into()) != 0),
        (a, b) => Value::Int(f(a.int(), b.int())),
    }])
}

pub(super) fn and(c: &Call) -> Results {
    bits(c, |a, b| a & b)
}

pub(super) fn or(c: &Call) -> Results {
    bits(c, |a, b| a | b)
}

fn compare(c: &Call, int: fn(&i64, &i64) -> bool, float: fn(&f64, &f64) -> bool) -> Results {
    Ok(vec![Value::Bool(match pair(c)? {
        (a @ Number::Float(_), b) | (a, b @ Number::Float(_)) => float(&a.float(), &b.float()),
        (a, b) => int(&a.int(), &b.int()),
    })])
}

pub(super) fn eq(c: &Call) -> Results {
    compare(c, i64::eq, f64::eq)
}

pub(super) fn ne(c: &Call) -> Results {
    compare(c, i64::ne, f64::ne)
}

pub(super) fn lt(c: &Call) -> Results {
    compare(c, i64::lt, f64::lt)
}

pub(super) fn le(c: &Call) -> Results {
    compare(c, i64::le, f64::le)
}

pub(super) fn gt(c: &Call) -> Results {
    compare(c, i64::gt, f64::gt)
}

pub(super) fn ge(c: &Call) -> Results {
    compare(c, i64::ge, f64::ge)
}

pub(super) fn neg(c: &Call) -> Results {
    Ok(vec![match number(c, 0)? {
        Number::Float(x) => Value::Float(-x),
        n => Value::Int(n.int().checked_neg().ok_or_else(overflow)?),
    }])
}

fn value(n: Number) -> Value {
    match n {
        Number::Bool(b) => Value::Bool(b),
        Number::Int(n) => Value::Int(n),
        Number::Float(x) | Number::Complex([x, _]) => Value::Float(x),
    }
}

pub(super) fn pos(c: &Call) -> Results {
    Ok(vec![value(number(c, 0)?)])
}

pub(super) fn not(c: &Call) -> Results {
    Ok(vec![Value::Bool(number(c, 0)?.float() == 0.0)])
}

/// `t if b else f`
pub(super) fn choose(c: &Call) -> Results {
    Ok(vec![value(number(c, if number(c, 0)?.float() != 0.0 { 1 } else { 2 })?)])
}

pub(super) fn float(c: &Call) -> Results {
    Ok(vec![Value::Float(number(c, 0)?.float())])
}

pub(super) fn sqrt(c: &Call) -> Results {
    Ok(vec![Value::Float(number(c, 0)?.float().sqrt())])
}

/// To an integer, rounded so.
fn to_int(c: &Call, round: fn(f64) -> f64) -> Results {
    Ok(vec![Value::Int(match number(c, 0)? {
        Number::Float(x) if x.abs() < 9.2e18 => round(x) as i64,
        Number::Float(x) => return Err(bad(format!("{x} is no integer of 64 bits"))),
        n => n.int(),
    })])
}

pub(super) fn trunc(c: &Call) -> Results {
    to_int(c, f64::trunc)
}

pub(super) fn ceil(c: &Call) -> Results {
    to_int(c, f64::ceil)
}

pub(super) fn round(c: &Call) -> Results {
    to_int(c, f64::round_ties_even)
}

fn int(n: usize) -> Results {
    Ok(vec![Value::Int(i64::try_from(n).map_err(|_| overflow())?)])
}

/// `sym_size.int`
pub(super) fn size(c: &Call) -> Results {
    let t = c.first()?;
    int(t.shape().get(c.axis("dim", t.rank())?).copied().ok_or_else(|| bad("a scalar has no sizes"))?)
}

/// `sym_stride.int`
pub(super) fn stride(c: &Call) -> Results {
    let t = c.first()?;
    int(t.strides().get(c.axis("dim", t.rank())?).copied().ok_or_else(|| bad("a scalar has no strides"))?)
}

pub(super) fn numel(c: &Call) -> Results {
    int(c.first()?.numel())
}

pub(super) fn rank(c: &Call) -> Results {
    int(c.first()?.rank())
}

pub(super) fn storage_offset(c: &Call) -> Results {
    int(c.first()?.offset())
}

pub(super) fn is_contiguous(c: &Call) -> Results {
    Ok(vec![Value::Bool(c.first()?.is_row_major())])
}

/// The number that a tensor of one element holds.
pub(super) fn item(c: &Call) -> Results {
    let t = c.first()?;
    Ok(vec![match t.dtype() {
        d if d.is_float() => Value::Float(t.item()?),
        crate::DType::Bool => Value::Bool(t.item()?),
        d if d.is_int() => Value::Int(t.item()?),
        d => return Err(bad(format!("a number of type {d}"))),
    }])
}

/// An assertion of the exporter: what it guards against is an error.
pub(super) fn assert_scalar(c: &Call) -> Results {
    if number(c, 0)?.float() != 0.0 {
        return Ok(Vec::new());
    }
    Err(bad(format!("assertion failed: {}", c.text("assert_msg").unwrap_or("no message"))))
}

/// An assertion on a tensor.
pub(super) fn assert_tensor(c: &Call) -> Results {
    if c.first()?.item::<bool>()? {
        return Ok(Vec::new());
    }
    Err(bad(format!("assertion failed: {}", c.text("assert_msg").unwrap_or("no message"))))
}

/// What is checked when the program is exported, and says nothing about values.
pub(super) fn nothing(_: &Call) -> Results {
    Ok(Vec::new())
}
