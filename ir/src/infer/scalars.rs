//! Sizes of tensors, and Python's arithmetic on integers, floats and booleans.
//!
//! Results are expressions, so that a chain of calls on sizes is equal to the size it computes.

use super::cx::{Cx, Inferred};
use crate::error::Error;
use crate::graph::{Arg, Type};
use crate::sym::{Expr, Func};

/// `sym_size(x, dim)`.
pub(super) fn size(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    t.shape.get(axis).map(|n| vec![Type::Int(n.clone())]).ok_or_else(|| c.fail("a scalar has no sizes"))
}

/// `sym_numel(x)`.
pub(super) fn numel(c: &Cx) -> Inferred {
    Ok(vec![Type::Int(c.tensor(0)?.numel())])
}

/// `x.dim()`.
pub(super) fn rank(c: &Cx) -> Inferred {
    Ok(vec![Type::Int((c.tensor(0)?.rank() as i64).into())])
}

/// `sym_stride(x, dim)`.
pub(super) fn stride(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let stride = match &t.strides {
        Some(strides) => strides.get(axis).cloned(),
        None => t.shape.get(axis + 1..).map(Expr::product),
    };
    stride.map(|s| vec![Type::Int(s)]).ok_or_else(|| c.fail("a scalar has no strides"))
}

/// A number: what kind, and its expression.
enum Number {
    Int(Expr),
    Float(Expr),
    Bool(Expr),
}

impl Number {
    /// As a float.
    fn float(self) -> Expr {
        match self {
            Number::Float(e) => e,
            Number::Int(Expr::Int(n)) => Expr::Float((n as f64).to_bits()),
            Number::Int(e) | Number::Bool(e) => Expr::call(Func::ToFloat, vec![e]),
        }
    }
}

fn number(c: &Cx, at: usize) -> Result<Number, Error> {
    Ok(match c.arg(at) {
        Arg::Int(n) => Number::Int(Expr::Int(*n)),
        Arg::Float(x) => Number::Float(Expr::Float(x.to_bits())),
        Arg::Bool(b) => Number::Bool(Expr::Bool(*b)),
        Arg::Value(v) => match c.graph.ty(*v) {
            Type::Int(e) => Number::Int(e.clone()),
            Type::Float(e) => Number::Float(e.clone()),
            Type::Bool(e) => Number::Bool(e.clone()),
            _ => return Err(c.fail("need numbers")),
        },
        _ => return Err(c.fail("need numbers")),
    })
}

/// Both as integers (a boolean counts as 0 or 1), or both as floats.
enum Pair {
    Ints(Expr, Expr),
    Floats(Expr, Expr),
}

fn pair(c: &Cx) -> Result<Pair, Error> {
    let int = |n: Number| match n {
        Number::Bool(Expr::Bool(b)) => Expr::Int(i64::from(b)),
        Number::Bool(e) => Expr::call(Func::Where, vec![e, Expr::Int(1), Expr::Int(0)]),
        Number::Int(e) | Number::Float(e) => e,
    };
    let (a, b) = (number(c, 0)?, number(c, 1)?);
    Ok(if matches!(a, Number::Float(_)) || matches!(b, Number::Float(_)) {
        Pair::Floats(a.float(), b.float())
    } else {
        Pair::Ints(int(a), int(b))
    })
}

/// Addition, multiplication and the like: integers give an integer, else a float.
pub(super) fn arithmetic(c: &Cx, func: Func) -> Inferred {
    Ok(vec![match pair(c)? {
        Pair::Ints(a, b) => Type::Int(Expr::call(func, vec![a, b])),
        // Canonical forms of divisions hold for integers only.
        Pair::Floats(a, b) if matches!(func, Func::FloorDiv | Func::Mod) => Type::Float(Expr::Call(func, [a, b].into())),
        Pair::Floats(a, b) => Type::Float(Expr::call(func, vec![a, b])),
    }])
}

/// Difference.
pub(super) fn subtract(c: &Cx) -> Inferred {
    Ok(vec![match pair(c)? {
        Pair::Ints(a, b) => Type::Int(a.minus(&b)),
        Pair::Floats(a, b) => Type::Float(Expr::sum([&a, &b.times(&Expr::Int(-1))])),
    }])
}

/// The number with the opposite sign.
pub(super) fn negate(c: &Cx) -> Inferred {
    let minus = |e: Expr| e.times(&Expr::Int(-1));
    Ok(vec![match number(c, 0)? {
        Number::Int(e) => Type::Int(minus(e)),
        Number::Float(Expr::Float(bits)) => Type::Float(Expr::Float((-f64::from_bits(bits)).to_bits())),
        Number::Float(e) => Type::Float(minus(e)),
        Number::Bool(_) => return Err(c.fail("sign of a boolean")),
    }])
}

/// The number itself.
pub(super) fn unchanged(c: &Cx) -> Inferred {
    Ok(vec![match number(c, 0)? {
        Number::Int(e) => Type::Int(e),
        Number::Float(e) => Type::Float(e),
        Number::Bool(e) => Type::Bool(e),
    }])
}

/// True division: a float.
pub(super) fn true_divide(c: &Cx) -> Inferred {
    let (Pair::Ints(a, b) | Pair::Floats(a, b)) = pair(c)?;
    Ok(vec![Type::Float(Expr::call(Func::TrueDiv, vec![a, b]))])
}

/// Power: an integer for an integer to the power of what is not negative.
pub(super) fn power(c: &Cx) -> Inferred {
    Ok(vec![match pair(c)? {
        Pair::Ints(a, b) if c.ranges.at_most(&Expr::Int(0), &b) == Some(true) => Type::Int(Expr::call(Func::Pow, vec![a, b])),
        Pair::Ints(a, b) => Type::Float(Expr::call(Func::FloatPow, vec![Number::Int(a).float(), Number::Int(b).float()])),
        Pair::Floats(a, b) => Type::Float(Expr::call(Func::FloatPow, vec![a, b])),
    }])
}

/// `a * 2**b` and `a // 2**b`.
pub(super) fn shift(c: &Cx, func: Func) -> Inferred {
    let Pair::Ints(a, b) = pair(c)? else { return Err(c.fail("shift of floats")) };
    let by = Expr::call(Func::Pow, vec![Expr::Int(2), b]);
    Ok(vec![Type::Int(Expr::call(func, vec![a, by]))])
}

/// `and`, `or` of booleans; of the bits of integers.
pub(super) fn logic(c: &Cx, of_bools: Func, of_ints: Func) -> Inferred {
    match (number(c, 0)?, number(c, 1)?) {
        (Number::Bool(a), Number::Bool(b)) => Ok(vec![Type::Bool(Expr::call(of_bools, vec![a, b]))]),
        (Number::Int(a), Number::Int(b)) => Ok(vec![Type::Int(Expr::call(of_ints, vec![a, b]))]),
        _ => Err(c.fail("need two booleans or two integers")),
    }
}

/// A comparison; `swapped` turns greater into less.
pub(super) fn compare(c: &Cx, func: Func, swapped: bool) -> Inferred {
    let (a, b) = match (number(c, 0)?, number(c, 1)?) {
        (Number::Bool(a), Number::Bool(b)) => (a, b),
        _ => match pair(c)? {
            Pair::Ints(a, b) | Pair::Floats(a, b) => (a, b),
        },
    };
    let args = if swapped { vec![b, a] } else { vec![a, b] };
    Ok(vec![Type::Bool(Expr::call(func, args))])
}

/// Negation.
pub(super) fn not(c: &Cx) -> Inferred {
    let Number::Bool(e) = number(c, 0)? else { return Err(c.fail("need a boolean")) };
    Ok(vec![Type::Bool(Expr::call(Func::Not, vec![e]))])
}

/// `t if b else f`.
pub(super) fn choose(c: &Cx) -> Inferred {
    let Number::Bool(condition) = number(c, 0)? else { return Err(c.fail("need a boolean condition")) };
    let of = |a: Expr, b: Expr| if a == b { a } else { Expr::call(Func::Where, vec![condition.clone(), a, b]) };
    Ok(vec![match (number(c, 1)?, number(c, 2)?) {
        (Number::Int(a), Number::Int(b)) => Type::Int(of(a, b)),
        (Number::Bool(a), Number::Bool(b)) => Type::Bool(of(a, b)),
        (a, b) => Type::Float(of(a.float(), b.float())),
    }])
}

/// As a float.
pub(super) fn to_float(c: &Cx) -> Inferred {
    Ok(vec![Type::Float(number(c, 0)?.float())])
}

/// As an integer, rounded so.
pub(super) fn to_int(c: &Cx, func: Func) -> Inferred {
    Ok(vec![Type::Int(match number(c, 0)? {
        Number::Int(e) => e,
        Number::Float(e) => Expr::call(func, vec![e]),
        Number::Bool(e) => Expr::call(Func::Where, vec![e, Expr::Int(1), Expr::Int(0)]),
    })])
}

/// Square root.
pub(super) fn sqrt(c: &Cx) -> Inferred {
    Ok(vec![Type::Float(Expr::call(Func::Sqrt, vec![number(c, 0)?.float()]))])
}
