//! Sizes: clamping, division without remainder, windows.

use super::cx::Cx;
use crate::error::Error;
use crate::sym::{Expr, Func, Ranges};

/// `Max(e, n)`, simply `e` where that is known.
pub(super) fn at_least(ranges: &Ranges, e: &Expr, n: i64) -> Expr {
    larger(ranges, e, &Expr::Int(n))
}

/// The larger of two, simply one of them where that is known.
pub(super) fn larger(ranges: &Ranges, a: &Expr, b: &Expr) -> Expr {
    if ranges.at_most(b, a) == Some(true) {
        a.clone()
    } else if ranges.at_most(a, b) == Some(true) {
        b.clone()
    } else {
        Expr::call(Func::Max, vec![a.clone(), b.clone()])
    }
}

/// The smaller of two, simply one of them where that is known.
pub(super) fn smaller(ranges: &Ranges, a: &Expr, b: &Expr) -> Expr {
    if ranges.at_most(a, b) == Some(true) {
        a.clone()
    } else if ranges.at_most(b, a) == Some(true) {
        b.clone()
    } else {
        Expr::call(Func::Min, vec![a.clone(), b.clone()])
    }
}

/// A position along a dimension of size `n` as Python reads it: counted from the end if negative, then clamped.
pub(super) fn position(ranges: &Ranges, at: &Expr, n: &Expr) -> Expr {
    let zero = Expr::Int(0);
    // What could be either is taken to count from the start, as torch takes it.
    let from_start = if ranges.at_most(at, &Expr::Int(-1)) == Some(true) { at.plus(n) } else { at.clone() };
    smaller(ranges, &larger(ranges, &from_start, &zero), n)
}

/// The first position and the size of `start:end:step` along a dimension of size `n`.
pub(super) fn slice(c: &Cx, n: &Expr, start: Option<&Expr>, end: Option<&Expr>, step: &Expr) -> Result<(Expr, Expr), Error> {
    if c.ranges.at_most(step, &Expr::Int(0)) == Some(true) {
        return Err(c.fail(format!("step {step} of a slice, need 1 or more")));
    }
    let start = start.map_or(Expr::Int(0), |s| position(c.ranges, s, n));
    let end = end.map_or_else(|| n.clone(), |e| position(c.ranges, e, n));
    let length = at_least(c.ranges, &end.minus(&start), 0);
    Ok((start, Expr::call(Func::CeilDiv, vec![length, step.clone()])))
}

/// Factors of a product, numbers multiplied together.
fn factors(shape: &[Expr]) -> (Vec<Expr>, Option<i64>) {
    let (mut atoms, mut number) = (Vec::new(), Some(1i64));
    let mut push = |e: &Expr| match e {
        Expr::Int(n) => number = number.and_then(|m| m.checked_mul(*n)),
        other => atoms.push(other.clone()),
    };
    for e in shape {
        match e {
            Expr::Mul(parts) => parts.iter().for_each(&mut push),
            // `8*s + 8` is `8*(s + 1)`: a common factor of a sum comes out, so that it can cancel.
            Expr::Add(terms) => {
                let common = content(terms);
                push(&Expr::Int(common));
                push(&e.floor_div(&Expr::Int(common)));
            }
            other => push(other),
        }
    }
    (atoms, number)
}

/// The greatest number that divides every term.
fn content(terms: &[Expr]) -> i64 {
    let coefficient = |e: &Expr| match e {
        Expr::Int(n) => *n,
        Expr::Mul(parts) => parts.first().and_then(Expr::as_int).unwrap_or(1),
        _ => 1,
    };
    let gcd = |mut a: i64, mut b: i64| {
        while b != 0 {
            (a, b) = (b, a.wrapping_rem(b));
        }
        a
    };
    let all = terms.iter().map(coefficient).fold(0, gcd);
    all.checked_abs().unwrap_or(1).max(1)
}

/// The size that makes `of` as many elements as `by` times it: what `-1` means in a view. Common factors cancel before
/// anything is multiplied out, so that no division stays that need not.
pub(super) fn quotient(c: &Cx, of: &[Expr], by: &[Expr]) -> Result<Expr, Error> {
    let ((mut above, n), (mut below, d)) = (factors(of), factors(by));
    let (Some(n), Some(d)) = (n, d) else { return Err(c.fail("more elements than 64 bits can count")) };
    below.retain(|b| match above.iter().position(|a| a == b) {
        Some(at) => {
            above.swap_remove(at);
            false
        }
        None => true,
    });
    if d == 0 {
        return Err(c.fail("-1 is ambiguous beside a dimension of size 0"));
    }
    if below.is_empty() && above.is_empty() && n.checked_rem(d) != Some(0) {
        return Err(c.fail(format!("{n} elements do not divide by {d}")));
    }
    above.push(Expr::Int(n));
    below.push(Expr::Int(d));
    Ok(Expr::product(&above).floor_div(&Expr::product(&below)))
}

/// How many positions a window has along a dimension: `(n + pad - dilation*(kernel-1) - 1) / stride + 1`, rounded down.
pub(super) fn windows(c: &Cx, n: &Expr, pad: &Expr, kernel: &Expr, stride: &Expr, dilation: &Expr) -> Result<Expr, Error> {
    let one = Expr::Int(1);
    if c.ranges.at_most(stride, &Expr::Int(0)) == Some(true) {
        return Err(c.fail(format!("stride {stride}, need 1 or more")));
    }
    let span = dilation.times(&kernel.minus(&one)).plus(&one);
    let room = n.plus(pad).minus(&span);
    if c.ranges.at_most(&room, &Expr::Int(-1)) == Some(true) {
        return Err(c.fail(format!("a window of {span} over {} with padding", n.plus(pad))));
    }
    Ok(room.floor_div(stride).plus(&one))
}
