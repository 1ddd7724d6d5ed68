//! Element by element: one operand, several with broadcasting, comparisons, choices, losses.

use super::cx::{Cx, Inferred, one};
use super::promote::{Operand, to_float, to_real};
use crate::DType;
use crate::error::Error;

/// From the type that the operands compute in to that of the result.
pub(super) type Then = fn(DType) -> DType;

/// No change of type.
pub(super) fn itself(t: DType) -> DType {
    t
}

/// Any type to `bool`.
pub(super) fn boolean(_: DType) -> DType {
    DType::Bool
}

/// Shape and type of the first argument.
pub(super) fn keep(c: &Cx) -> Inferred {
    unary(c, itself)
}

/// Shape of the first argument.
pub(super) fn unary(c: &Cx, then: Then) -> Inferred {
    let t = c.operand(0)?;
    one(then(t.dtype()), t.shape().to_vec())
}

/// The modulus of complex numbers is real; of others, of their type.
pub(super) fn modulus(c: &Cx) -> Inferred {
    unary(c, to_real)
}

/// The argument of complex numbers.
pub(super) fn angle(c: &Cx) -> Inferred {
    unary(c, |t| to_real(to_float(t)))
}

/// `x * x`, by way of a power with an integer exponent.
pub(super) fn square(c: &Cx) -> Inferred {
    unary(c, |t| if t == DType::Bool { DType::Int64 } else { t })
}

/// Dropout that also gives its mask.
pub(super) fn with_mask(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    Ok([t.dtype, DType::Bool].map(|dtype| super::cx::tensor(dtype, t.shape.clone())).into())
}

/// All of the given positions that are there.
fn operands<'a>(c: &Cx<'a>, places: std::ops::Range<usize>) -> Result<Vec<Operand<'a>>, Error> {
    places.filter(|&i| c.given(i)).map(|i| c.operand(i)).collect()
}

fn broadcast_and(c: &Cx, places: std::ops::Range<usize>, then: Then) -> Inferred {
    let operands = operands(c, places)?;
    let dtype = c.promoted(&operands)?;
    one(then(dtype), c.broadcast(operands.iter().map(|o| o.shape()))?)
}

/// Two operands.
pub(super) fn binary(c: &Cx, then: Then) -> Inferred {
    broadcast_and(c, 0..2, then)
}

/// Three operands, the later ones possibly absent.
pub(super) fn ternary(c: &Cx, then: Then) -> Inferred {
    broadcast_and(c, 0..3, then)
}

/// Bits of two operands, which must have bits.
pub(super) fn bitwise(c: &Cx) -> Inferred {
    for o in operands(c, 0..2)? {
        if !o.dtype().is_int() && o.dtype() != DType::Bool {
            return Err(c.fail(format!("bits of {}, need whole numbers or bool", o.dtype())));
        }
    }
    binary(c, itself)
}

/// Differences, which torch refuses for two `bool`s.
pub(super) fn difference(c: &Cx) -> Inferred {
    let operands = operands(c, 0..2)?;
    if operands.iter().any(|o| matches!(o, Operand::Tensor(t) if t.dtype == DType::Bool)) && c.promoted(&operands)? == DType::Bool {
        return Err(c.fail("difference of bool; use logical_xor"));
    }
    binary(c, itself)
}

/// Division with a rounding mode; without one it is true division.
pub(super) fn divide(c: &Cx) -> Inferred {
    binary(c, if c.text("rounding_mode").is_some() { itself } else { to_float })
}

/// A power in double precision.
pub(super) fn float_power(c: &Cx) -> Inferred {
    binary(c, |t| if t.is_complex() { DType::Complex128 } else { DType::Float64 })
}

/// `condition ? a : b`.
pub(super) fn choose(c: &Cx) -> Inferred {
    let condition = c.tensor(0)?;
    if !matches!(condition.dtype, DType::Bool | DType::UInt8) {
        return Err(c.fail(format!("a condition of {}, need bool", condition.dtype)));
    }
    let (a, b) = (c.operand(1)?, c.operand(2)?);
    one(c.promoted(&[a, b])?, c.broadcast([condition.shape.as_slice(), a.shape(), b.shape()])?)
}

/// Type of the first argument, its shape broadcast with that of the next `more` that are tensors.
pub(super) fn into_first(c: &Cx, more: usize) -> Inferred {
    let operands = operands(c, 0..1 + more)?;
    let dtype = c.operand(0)?.dtype();
    one(dtype, c.broadcast(operands.iter().map(|o| o.shape()))?)
}

/// Linear interpolation, of one element type, by a number or by tensors.
pub(super) fn lerp(c: &Cx) -> Inferred {
    c.same_dtype(c.tensor(0)?, c.tensor(1)?)?;
    into_first(c, 2)
}

/// Two tensors of one element type.
pub(super) fn uniform(c: &Cx, then: Then) -> Inferred {
    c.same_dtype(c.tensor(0)?, c.tensor(1)?)?;
    binary(c, then)
}

/// Type and shape of the first argument, into which the second must broadcast.
pub(super) fn written(c: &Cx) -> Inferred {
    let into = c.tensor(0)?;
    let from = c.operand(1)?;
    let shape = c.broadcast([into.shape.as_slice(), from.shape()])?;
    if shape.len() != into.rank() {
        return Err(c.fail(format!("{:?} does not broadcast into {:?}", from.shape(), into.shape)));
    }
    for (a, b) in into.shape.iter().zip(&shape) {
        c.same(a, b, "sizes")?;
    }
    one(into.dtype, into.shape.clone())
}

/// Type of the first argument, shape of its elements among others (`isin`, `bucketize`).
pub(super) fn lookup_shape(c: &Cx, at: usize, dtype: DType) -> Inferred {
    one(dtype, c.operand(at)?.shape().to_vec())
}

/// Half of a dimension gates the other half.
pub(super) fn glu(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let axis = c.axis("dim", t.rank())?;
    let mut shape = t.shape.clone();
    let Some(n) = shape.get_mut(axis) else { return Err(c.fail("a scalar has no halves")) };
    if n.as_int().is_some_and(|n| n % 2 != 0) {
        return Err(c.fail(format!("dimension {axis} of odd size {n}")));
    }
    *n = n.floor_div(&2.into());
    one(t.dtype, shape)
}

/// A loss between two tensors: averaged (1), summed (2) or neither (0).
pub(super) fn loss(c: &Cx) -> Inferred {
    let operands = operands(c, 0..2)?;
    let dtype = c.promoted(&operands)?;
    let shape = c.broadcast(operands.iter().map(|o| o.shape()))?;
    one(dtype, if c.int_or("reduction", 1)? == 0 { shape } else { Vec::new() })
}
