//! Argument lists of calls that passes write.

use etx_ir::DType;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::op::OpId;

/// Arguments of `op`: the first ones as given, those given by name in their places, schema defaults for the rest.
pub(crate) fn args(op: OpId, first: impl IntoIterator<Item = Arg>, named: &[(&str, Arg)]) -> Vec<Arg> {
    let schema = op.schema();
    let mut first = first.into_iter();
    schema
        .args
        .iter()
        .map(|spec| {
            let positional = first.next();
            match named.iter().find(|(n, _)| *n == spec.name) {
                Some((_, a)) => a.clone(),
                None => positional.unwrap_or_else(|| spec.default.as_ref().map_or(Arg::None, Arg::from)),
            }
        })
        .collect()
}

/// The one spelling of a cast.
pub(crate) const CAST: OpId = op!("aten._to_copy.default");

/// Arguments of a cast and nothing else.
pub(crate) fn cast(x: impl Into<Arg>, to: DType) -> Vec<Arg> {
    args(CAST, [x.into()], &[("dtype", Arg::DType(to))])
}

/// Literal integers as a list.
pub(crate) fn ints(list: impl IntoIterator<Item = i64>) -> Arg {
    Arg::List(list.into_iter().map(Arg::Int).collect())
}

/// The literal integers of a list argument; a single integer counts as a list.
pub(crate) fn as_ints(arg: &Arg) -> Option<Vec<i64>> {
    match arg {
        Arg::List(items) => items.iter().map(Arg::as_int).collect(),
        Arg::Int(n) => Some(vec![*n]),
        _ => None,
    }
}

/// A dimension number from 0; a scalar has dimension 0 for this purpose.
pub(crate) fn wrap(dim: i64, rank: usize) -> Option<usize> {
    let n = rank.max(1) as i64;
    let dim = if dim < 0 { dim.checked_add(n)? } else { dim };
    usize::try_from(dim).ok().filter(|&d| (d as i64) < n)
}

/// Whether every value of `from` is one of `to`, so that casting there and back gives the same.
pub(crate) fn lossless(from: DType, to: DType) -> bool {
    // (bits of magnitude, signed) of integers; (bits of precision, largest and smallest exponent) of floats.
    let int = |t: DType| match t {
        DType::Bool => Some((1, false)),
        DType::UInt8 => Some((8, false)),
        DType::UInt16 => Some((16, false)),
        DType::UInt32 => Some((32, false)),
        DType::UInt64 => Some((64, false)),
        DType::Int8 => Some((7, true)),
        DType::Int16 => Some((15, true)),
        DType::Int32 => Some((31, true)),
        DType::Int64 => Some((63, true)),
        _ => None,
    };
    let float = |t: DType| match t {
        DType::Float8E4M3 => Some((4, 8, -9)),
        DType::Float8E5M2 => Some((3, 15, -16)),
        DType::Float16 => Some((11, 15, -24)),
        DType::BFloat16 => Some((8, 127, -133)),
        DType::Float32 => Some((24, 127, -149)),
        DType::Float64 => Some((53, 1023, -1074)),
        _ => None,
    };
    if from == to {
        return true;
    }
    match (int(from), int(to), float(from), float(to)) {
        _ if to == DType::Bool => false,
        (Some((a, signed)), Some((b, to_signed)), ..) => a <= b && (to_signed || !signed),
        (Some((bits, _)), _, _, Some((precision, largest, _))) => bits <= precision && bits <= largest,
        (_, _, Some((p, hi, lo)), Some((q, to_hi, to_lo))) => p <= q && hi <= to_hi && lo >= to_lo,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_is_lossless_and_narrowing_is_not() {
        use DType::*;
        for (a, b) in [(BFloat16, Float32), (Float16, Float32), (Bool, Int8), (UInt8, BFloat16), (Int8, Float16), (Int32, Float64)] {
            assert!(lossless(a, b) && !lossless(b, a), "{a} {b}");
        }
        for (a, b) in
            [(Int32, Float32), (BFloat16, Float16), (Float16, BFloat16), (Int64, Float64), (Int8, UInt8), (UInt8, Int8), (Float32, Int64)]
        {
            assert!(!lossless(a, b), "{a} {b}");
        }
    }

    #[test]
    fn arguments_are_filled_from_the_schema() {
        assert_eq!(args(op!("aten.softmax.int"), [Arg::Int(7), Arg::Int(-1)], &[]), [Arg::Int(7), Arg::Int(-1), Arg::None]);
        assert_eq!(cast(Arg::Int(7), DType::Bool)[1], Arg::DType(DType::Bool));
        assert_eq!((wrap(-1, 0), wrap(1, 0), wrap(-3, 3), wrap(3, 3)), (Some(0), None, Some(0), None));
    }
}
