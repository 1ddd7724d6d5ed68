//! Tensors made from sizes and numbers, and conversions of element type.

use super::cx::{Cx, Inferred, one};
use super::promote::Operand;
use crate::DType;
use crate::error::Error;
use crate::graph::{Arg, Type};
use crate::sym::{Expr, Func};

/// Sizes that are not negative.
fn sizes(c: &Cx, at: &'static str) -> Result<Vec<Expr>, Error> {
    let sizes = c.sizes(at)?;
    match sizes.iter().find(|n| c.ranges.at_most(n, &Expr::Int(-1)) == Some(true)) {
        Some(n) => Err(c.fail(format!("negative size {n}"))),
        None => Ok(sizes),
    }
}

/// `zeros(size)` and its kin, of torch's default type.
pub(super) fn sized(c: &Cx) -> Inferred {
    one(c.dtype("dtype").unwrap_or(DType::Float32), sizes(c, "size")?)
}

/// `full(size, value)`: of the value's type.
pub(super) fn full(c: &Cx) -> Inferred {
    let dtype = match c.dtype("dtype") {
        Some(dtype) => dtype,
        None => c.operand("fill_value")?.dtype(),
    };
    one(dtype, sizes(c, "size")?)
}

/// `zeros_like(x)` and its kin.
pub(super) fn like(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    one(c.dtype("dtype").unwrap_or(t.dtype), t.shape.clone())
}

/// `x.new_zeros(size)` and its kin.
pub(super) fn new_sized(c: &Cx) -> Inferred {
    one(c.dtype("dtype").unwrap_or(c.tensor(0)?.dtype), sizes(c, "size")?)
}

/// A number as a tensor without dimensions, of torch's default type.
pub(super) fn scalar_tensor(c: &Cx) -> Inferred {
    if matches!(c.operand(0)?, Operand::Tensor(_)) {
        return Err(c.fail("need a number"));
    }
    one(c.dtype("dtype").unwrap_or(DType::Float32), Vec::new())
}

/// `eye(n)` and `eye(n, m)`.
pub(super) fn eye(c: &Cx) -> Inferred {
    let n = c.size("n")?;
    let m = if c.schema.position("m").is_some() { c.size("m")? } else { n.clone() };
    one(c.dtype("dtype").unwrap_or(DType::Float32), vec![n, m])
}

/// `steps` points.
pub(super) fn steps(c: &Cx) -> Inferred {
    one(c.dtype("dtype").unwrap_or(DType::Float32), vec![c.size("steps")?])
}

/// Rows and columns of the places of a triangle.
pub(super) fn triangle(c: &Cx, upper: bool) -> Inferred {
    let (rows, columns, offset) = (c.int("row")?, c.int("col")?, c.int_or("offset", 0)?);
    // The part below a diagonal is the one above the next, turned.
    let width = |row: i64| {
        let end = row.saturating_add(offset).saturating_add(i64::from(!upper)).clamp(0, columns.max(0));
        if upper { columns.max(0) - end } else { end }
    };
    let count = (0..rows).try_fold(0i64, |n, row| n.checked_add(width(row)));
    let count = count.filter(|_| rows <= 1 << 20).ok_or_else(|| c.fail("too many places"))?;
    one(c.dtype("dtype").unwrap_or(DType::Int64), vec![Expr::Int(2), Expr::Int(count)])
}

/// A window function.
pub(super) fn window(c: &Cx) -> Inferred {
    one(c.dtype("dtype").unwrap_or(DType::Float32), vec![c.size("window_length")?])
}

/// A permutation of `n` numbers.
pub(super) fn randperm(c: &Cx) -> Inferred {
    one(c.dtype("dtype").unwrap_or(DType::Int64), vec![c.size("n")?])
}

/// `arange(end)`, `arange(start, end[, step])`: whole numbers where all three are, else torch's default float.
pub(super) fn arange(c: &Cx) -> Inferred {
    let number = |at: &'static str, otherwise: i64| if c.given(at) { c.arg(at).clone() } else { Arg::Int(otherwise) };
    let (start, end, step) = (number("start", 0), number("end", 0), number("step", 1));
    let whole = [&start, &end, &step].map(|a| c.as_size(a));
    if let [Some(start), Some(end), Some(step)] = whole {
        if step == Expr::Int(0) {
            return Err(c.fail("step 0"));
        }
        let distance = end.minus(&start);
        let backwards = c.ranges.at_most(&step, &Expr::Int(-1)) == Some(true);
        let (distance, step) = match backwards {
            true => (distance.times(&Expr::Int(-1)), step.times(&Expr::Int(-1))),
            false => (distance, step),
        };
        if c.ranges.at_most(&distance, &Expr::Int(-1)) == Some(true) {
            return Err(c.fail("the step leads away from the end"));
        }
        return one(c.dtype("dtype").unwrap_or(DType::Int64), vec![Expr::call(Func::CeilDiv, vec![distance, step])]);
    }
    let known = [&start, &end, &step].map(Arg::as_float);
    let [Some(start), Some(end), Some(step)] = known else { return Err(c.unsupported("the number of elements depends on a float")) };
    let count = ((end - start) / step).ceil();
    if !(0.0..9e15).contains(&count) {
        return Err(c.fail("the step does not lead to the end"));
    }
    one(c.dtype("dtype").unwrap_or(DType::Float32), vec![Expr::Int(count as i64)])
}

/// The same elements as `dtype`, or as they are.
pub(super) fn cast(c: &Cx) -> Inferred {
    like(c)
}

/// The same elements with the type of the second argument.
pub(super) fn cast_like(c: &Cx) -> Inferred {
    one(c.tensor(1)?.dtype, c.tensor(0)?.shape.clone())
}

/// The same elements as this type.
pub(super) fn cast_to(c: &Cx, dtype: DType) -> Inferred {
    one(dtype, c.tensor(0)?.shape.clone())
}

/// The one element as a number: nothing is known of it.
pub(super) fn item(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    if c.ranges.equal(&t.numel(), &Expr::Int(1)) == Some(false) {
        return Err(c.fail(format!("{} elements, need one", t.numel())));
    }
    let value = c.fresh(0);
    Ok(vec![match t.dtype {
        DType::Bool => Type::Bool(value),
        t if t.is_int() => Type::Int(value),
        t if t.is_float() => Type::Float(value),
        t => return Err(c.unsupported(format!("a number of {t}"))),
    }])
}
