//! torch's type promotion: tensors with dimensions decide, then tensors without, then numbers.

use super::cx::Cx;
use crate::DType;
use crate::error::Error;
use crate::graph::TensorType;
use crate::sym::Expr;

/// What takes part in an element-wise operation.
#[derive(Clone, Copy)]
pub(super) enum Operand<'a> {
    /// A tensor.
    Tensor(&'a TensorType),
    /// A Python number, by the type it has on its own.
    Number(DType),
}

impl<'a> Operand<'a> {
    /// Its shape.
    pub(super) fn shape(self) -> &'a [Expr] {
        match self {
            Operand::Tensor(t) => &t.shape,
            Operand::Number(_) => &[],
        }
    }

    /// Its element type.
    pub(super) fn dtype(self) -> DType {
        match self {
            Operand::Tensor(t) => t.dtype,
            Operand::Number(dtype) => dtype,
        }
    }
}

/// The integer type that a float operation computes in: torch's default float type.
pub(crate) fn to_float(t: DType) -> DType {
    if t.is_int() || t == DType::Bool { DType::Float32 } else { t }
}

/// The type of sums: whole numbers are added up in 64 bits.
pub(crate) fn to_sum(t: DType) -> DType {
    if t.is_int() || t == DType::Bool { DType::Int64 } else { t }
}

/// The type of the parts of a complex type.
pub(crate) fn to_real(t: DType) -> DType {
    match t {
        DType::Complex32 => DType::Float16,
        DType::Complex64 => DType::Float32,
        DType::Complex128 => DType::Float64,
        other => other,
    }
}

/// The complex type with these parts (`bf16` has none of its own).
pub(crate) fn to_complex(t: DType) -> DType {
    match t {
        DType::Float16 => DType::Complex32,
        DType::Float64 => DType::Complex128,
        t if t.is_complex() => t,
        _ => DType::Complex64,
    }
}

/// Element types from narrow to wide within their kind. `f16` and `bf16` are incomparable.
fn width(t: DType) -> u32 {
    match t {
        DType::Bool => 0,
        DType::UInt8 | DType::Int8 => 1,
        DType::Int16 => 2,
        DType::Int32 => 3,
        DType::Int64 => 4,
        DType::Float16 | DType::BFloat16 => 5,
        DType::Float32 => 6,
        _ => 7,
    }
}

fn is_float8(t: DType) -> bool {
    t.is_float() && t.size() == 1
}

/// The smallest type that holds both, as `torch.promote_types`; `None` where torch has none.
pub(crate) fn promote(a: DType, b: DType) -> Option<DType> {
    use DType::{BFloat16, Float16, Float32, Int8, Int16, UInt8, UInt16, UInt32, UInt64};
    if a == b {
        return Some(a);
    }
    let unsigned = |t| matches!(t, UInt16 | UInt32 | UInt64);
    match (a, b) {
        _ if is_float8(a) || is_float8(b) => None,
        _ if unsigned(a) => b.is_float().then_some(b),
        _ if unsigned(b) => a.is_float().then_some(a),
        _ if a.is_complex() || b.is_complex() => {
            let real = promote(to_real(a), to_real(b))?;
            Some(match (a.is_complex(), b.is_complex()) {
                // A complex number keeps its precision beside whole numbers.
                (true, false) if !b.is_float() => a,
                (false, true) if !a.is_float() => b,
                _ => to_complex(real),
            })
        }
        (Float16, BFloat16) | (BFloat16, Float16) => Some(Float32),
        (UInt8, Int8) | (Int8, UInt8) => Some(Int16),
        _ => Some(if width(a) >= width(b) { a } else { b }),
    }
}

/// The type with which a lower category (scalar tensors, then numbers) takes part: it decides only where it is of a
/// higher kind (float over whole, complex over float).
fn combine(higher: Option<DType>, lower: Option<DType>) -> Option<Option<DType>> {
    let (Some(high), Some(low)) = (higher, lower) else { return Some(higher.or(lower)) };
    Some(Some(if high.is_complex() {
        high
    } else if high.is_float() {
        match low.is_complex() {
            // torch answers with complex bfloat16, which no program can hold.
            true if high == DType::BFloat16 => return None,
            true => to_complex(high),
            false => high,
        }
    } else if high == DType::Bool || low.is_float() || low.is_complex() {
        promote(high, low)?
    } else {
        high
    }))
}

/// How much an operand has to say about the common type.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Category {
    /// A tensor with dimensions.
    Dimensioned,
    /// A tensor without dimensions.
    Scalar,
    /// A Python number.
    Number,
}

/// The type that operands compute in, as `torch.result_type`; `None` where torch has none.
pub(crate) fn result_type(operands: &[(Category, DType)]) -> Option<DType> {
    let of = |category: Category| -> Option<Option<DType>> {
        let mut all = operands.iter().filter(|(c, _)| *c == category).map(|(_, dtype)| *dtype);
        let Some(first) = all.next() else { return Some(None) };
        all.try_fold(first, promote).map(Some)
    };
    combine(of(Category::Dimensioned)?, combine(of(Category::Scalar)?, of(Category::Number)?)?)?
}

impl Cx<'_> {
    /// The type that these operands compute in.
    pub(super) fn promoted(&self, operands: &[Operand]) -> Result<DType, Error> {
        let category = |o: &Operand| match o {
            Operand::Tensor(t) if t.rank() > 0 => (Category::Dimensioned, t.dtype),
            other => (if matches!(other, Operand::Tensor(_)) { Category::Scalar } else { Category::Number }, other.dtype()),
        };
        result_type(&operands.iter().map(category).collect::<Vec<_>>()).ok_or_else(|| {
            let types: Vec<&str> = operands.iter().map(|o| o.dtype().name()).collect();
            self.fail(format!("{} have no common type; cast one of them", types.join(" and ")))
        })
    }

    /// Fails unless both are of one element type.
    pub(super) fn same_dtype(&self, a: &TensorType, b: &TensorType) -> Result<DType, Error> {
        if a.dtype == b.dtype { Ok(a.dtype) } else { Err(self.fail(format!("element types {} and {} differ", a.dtype, b.dtype))) }
    }
}
