//! Element-wise operators with two operands, `Where` and `Clip` (mlx-ops.md §4).

use etx_ir::DType;

use super::dtype::{cast, dispatch, promote, to_float};
use super::lanes::{Compute, Operand, buffer, for_chunks, map2};
use super::reduce::reduce;
use crate::engine::{Binary, Reduce};
use crate::error::{Error, Result};
use crate::tensor::copy::with_raw;
use crate::tensor::{Bool, Tensor, broadcast_shapes};

/// Applies `op` to the operands, promoted to one type and broadcast together.
pub(crate) fn binary(op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let shape = broadcast_shapes(&[a.shape(), b.shape()])?;
    let common = promote(a.dtype(), b.dtype())?;
    let operand_type = match op {
        Binary::Divide | Binary::Atan2 | Binary::LogAddExp => to_float(common),
        Binary::LogicalAnd | Binary::LogicalOr => DType::Bool,
        Binary::FloorDivide if !common.is_float() => return divide_integers(&cast(a, common)?, &cast(b, common)?),
        _ => common,
    };
    let (a, b) = (&cast(a, operand_type)?, &cast(b, operand_type)?);
    let shape = shape.as_slice();
    match op {
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Maximum | Binary::Minimum | Binary::Remainder | Binary::Power => {
            if operand_type == DType::Bool {
                return map2::<Bool, Bool>(a, b, shape, arithmetic(op)?);
            }
            if op == Binary::Power && operand_type.is_int() {
                no_negative(b)?;
            }
            dispatch!(numeric, op.name(), operand_type, T => map2::<T, T>(a, b, shape, arithmetic(op)?))
        }
        Binary::Divide => dispatch!(float, op.name(), operand_type, T => map2::<T, T>(a, b, shape, each(|a: f32, b| a / b))),
        Binary::FloorDivide => dispatch!(float, op.name(), operand_type, T => {
            map2::<T, T>(a, b, shape, each(|a, b| T::rounded(a / b).floor()))
        }),
        Binary::Atan2 => dispatch!(float, op.name(), operand_type, T => map2::<T, T>(a, b, shape, each(f32::atan2))),
        Binary::LogAddExp => dispatch!(float, op.name(), operand_type, T => map2::<T, T>(a, b, shape, each(log_add_exp))),
        Binary::LogicalAnd | Binary::LogicalOr | Binary::BitwiseAnd | Binary::BitwiseOr | Binary::BitwiseXor => {
            if operand_type == DType::Bool {
                return map2::<Bool, Bool>(a, b, shape, bits(op)?);
            }
            dispatch!(integer, op.name(), operand_type, T => map2::<T, T>(a, b, shape, bits(op)?))
        }
        Binary::Less | Binary::LessEqual | Binary::Greater | Binary::GreaterEqual | Binary::Equal | Binary::NotEqual => {
            if operand_type == DType::Bool {
                return map2::<Bool, Bool>(a, b, shape, comparison(op)?);
            }
            dispatch!(numeric, op.name(), operand_type, T => map2::<T, Bool>(a, b, shape, comparison(op)?))
        }
    }
}

/// `x` where `condition` holds, `y` elsewhere; three-way broadcast, `x` and `y` promoted.
pub(crate) fn select(condition: &Tensor, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let shape = broadcast_shapes(&[condition.shape(), x.shape(), y.shape()])?;
    let dtype = promote(x.dtype(), y.dtype())?;
    let condition = cast(condition, DType::Bool)?;
    let (x, y) = (cast(x, dtype)?, cast(y, dtype)?);
    let condition = Operand::<Bool>::new(&condition, &shape)?;
    with_raw!(dtype, P => {
        let (x, y) = (Operand::<P>::new(&x, &shape)?, Operand::<P>::new(&y, &shape)?);
        Tensor::build_raw::<P>(dtype, &shape, |out| {
            let scratch = || (buffer::<Bool>(), buffer::<P>(), buffer::<P>());
            for_chunks(out, scratch, |start, out, (c, p, q)| {
                let c = condition.chunk(start, out.len(), c);
                let (x, y) = (x.chunk(start, out.len(), p), y.chunk(start, out.len(), q));
                for (o, ((c, x), y)) in out.iter_mut().zip(c.iter().zip(x).zip(y)) {
                    *o = if c.get() { *x } else { *y };
                }
            });
            Ok(())
        })
    })
}

/// `min(max(x, low), high)`; a missing bound does nothing.
pub(crate) fn clip(x: &Tensor, low: Option<&Tensor>, high: Option<&Tensor>) -> Result<Tensor> {
    let raised = match low {
        Some(low) => binary(Binary::Maximum, x, low)?,
        None => x.clone(),
    };
    match high {
        Some(high) => binary(Binary::Minimum, &raised, high),
        None => Ok(raised),
    }
}

/// MLX's CPU backend never comes back from an integer to a negative power.
fn no_negative(exponents: &Tensor) -> Result<()> {
    let zero = Tensor::zeros(exponents.dtype(), &[])?;
    let some = reduce(Reduce::Any, &binary(Binary::Less, exponents, &zero)?, &[], false)?;
    if some.item::<Bool>()?.get() {
        return Err(Error::argument("Power of integers with a negative exponent: MLX's CPU backend never comes back from one"));
    }
    Ok(())
}

/// What the reference runtime makes of an integer floor division: the quotient in `f32`, less one where the division
/// leaves a rest and the signs differ. Only the cast that follows makes it whole.
fn divide_integers(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let quotient = binary(Binary::Divide, a, b)?;
    let zero = Tensor::zeros(a.dtype(), &[])?;
    let rest = binary(Binary::NotEqual, &binary(Binary::Remainder, a, b)?, &zero)?;
    let signs = binary(Binary::NotEqual, &binary(Binary::Less, a, &zero)?, &binary(Binary::Less, b, &zero)?)?;
    binary(Binary::Subtract, &quotient, &binary(Binary::LogicalAnd, &rest, &signs)?)
}

/// Lifts a function of two elements to slices.
#[inline]
fn each<S: Copy, D>(f: impl Fn(S, S) -> D) -> impl Fn(&[S], &[S], &mut [D]) {
    move |a, b, out| {
        for (o, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
            *o = f(*a, *b);
        }
    }
}

fn log_add_exp(a: f32, b: f32) -> f32 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if a.is_nan() || b.is_nan() {
        f32::NAN
    } else if low == f32::NEG_INFINITY || high == f32::INFINITY {
        high
    } else {
        high + (low - high).exp().ln_1p()
    }
}

/// A function of two slices with a third for the result.
type Slices<S, D> = fn(&[S], &[S], &mut [D]);

macro_rules! over_slices {
    ($op:expr; $($name:ident => $f:expr;)*) => {
        match $op {
            $(Binary::$name => |a, b, out| each($f)(a, b, out),)*
            op => return Err(Error::unsupported(format!("{} is not an operator of this kind", op.name()))),
        }
    };
}

fn arithmetic<A: Arithmetic>(op: Binary) -> Result<Slices<A, A>> {
    Ok(over_slices! { op;
        Add => A::plus;
        Subtract => A::minus;
        Multiply => A::times;
        Maximum => A::larger;
        Minimum => A::smaller;
        Remainder => A::remainder;
        Power => A::power;
    })
}

fn comparison<A: PartialOrd + Copy>(op: Binary) -> Result<Slices<A, Bool>> {
    Ok(over_slices! { op;
        Less => |a, b| Bool::from(a < b);
        LessEqual => |a, b| Bool::from(a <= b);
        Greater => |a, b| Bool::from(a > b);
        GreaterEqual => |a, b| Bool::from(a >= b);
        Equal => |a, b| Bool::from(a == b);
        NotEqual => |a, b| Bool::from(a != b);
    })
}

fn bits<A: Bits>(op: Binary) -> Result<Slices<A, A>> {
    Ok(over_slices! { op;
        LogicalAnd => A::and;
        LogicalOr => A::or;
        BitwiseAnd => A::and;
        BitwiseOr => A::or;
        BitwiseXor => A::xor;
    })
}

/// The sum within one type; integers wrap.
pub(super) fn plus<A: Arithmetic>(a: A, b: A) -> A {
    a.plus(b)
}

/// Arithmetic within one type. Integers wrap; nothing traps.
pub(super) trait Arithmetic: Copy {
    fn plus(self, b: Self) -> Self;
    fn minus(self, b: Self) -> Self;
    fn times(self, b: Self) -> Self;
    /// The larger; NaN if either is.
    fn larger(self, b: Self) -> Self;
    /// The smaller; NaN if either is.
    fn smaller(self, b: Self) -> Self;
    /// With the sign of the divisor; 0 for an integer divided by 0.
    fn remainder(self, b: Self) -> Self;
    fn power(self, b: Self) -> Self;
}

trait Bits: Copy {
    fn and(self, b: Self) -> Self;
    fn or(self, b: Self) -> Self;
    fn xor(self, b: Self) -> Self;
}

macro_rules! integers {
    ($($t:ty),*) => { $(
        #[allow(unused_comparisons, reason = "the signed rules hold for unsigned types, where they say nothing")]
        impl Arithmetic for $t {
            #[inline]
            fn plus(self, b: Self) -> Self { self.wrapping_add(b) }
            #[inline]
            fn minus(self, b: Self) -> Self { self.wrapping_sub(b) }
            #[inline]
            fn times(self, b: Self) -> Self { self.wrapping_mul(b) }
            #[inline]
            fn larger(self, b: Self) -> Self { self.max(b) }
            #[inline]
            fn smaller(self, b: Self) -> Self { self.min(b) }
            #[inline]
            fn remainder(self, b: Self) -> Self {
                if b == 0 {
                    return 0;
                }
                let rest = self.wrapping_rem(b);
                if rest != 0 && (rest < 0) != (b < 0) { rest.wrapping_add(b) } else { rest }
            }
            #[inline]
            fn power(self, b: Self) -> Self {
                if b < 0 {
                    return 0;
                }
                let (mut result, mut base, mut left): ($t, $t, $t) = (1, self, b);
                while left != 0 {
                    if left & 1 == 1 {
                        result = result.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    left >>= 1;
                }
                result
            }
        }

        impl Bits for $t {
            #[inline]
            fn and(self, b: Self) -> Self { self & b }
            #[inline]
            fn or(self, b: Self) -> Self { self | b }
            #[inline]
            fn xor(self, b: Self) -> Self { self ^ b }
        }
    )* };
}

integers!(u8, i8, i16, u16, i32, u32, i64, u64);

impl Arithmetic for f32 {
    #[inline]
    fn plus(self, b: Self) -> Self {
        self + b
    }
    #[inline]
    fn minus(self, b: Self) -> Self {
        self - b
    }
    #[inline]
    fn times(self, b: Self) -> Self {
        self * b
    }
    #[inline]
    fn larger(self, b: Self) -> Self {
        // Selects rather than branches, so that loops vectorise.
        let larger = if self > b { self } else { b };
        if self.is_nan() { self } else { larger }
    }
    #[inline]
    fn smaller(self, b: Self) -> Self {
        let smaller = if self < b { self } else { b };
        if self.is_nan() { self } else { smaller }
    }
    #[inline]
    fn remainder(self, b: Self) -> Self {
        let rest = self % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
    }
    #[inline]
    fn power(self, b: Self) -> Self {
        self.powf(b)
    }
}

impl Bits for Bool {
    #[inline]
    fn and(self, b: Self) -> Self {
        Bool::from(self.get() & b.get())
    }
    #[inline]
    fn or(self, b: Self) -> Self {
        Bool::from(self.get() | b.get())
    }
    #[inline]
    fn xor(self, b: Self) -> Self {
        Bool::from(self.get() ^ b.get())
    }
}

/// Booleans compute as the integers 0 and 1, and any result but 0 is true.
impl Arithmetic for Bool {
    fn plus(self, b: Self) -> Self {
        self.or(b)
    }
    fn minus(self, b: Self) -> Self {
        self.xor(b)
    }
    fn times(self, b: Self) -> Self {
        self.and(b)
    }
    fn larger(self, b: Self) -> Self {
        self.or(b)
    }
    fn smaller(self, b: Self) -> Self {
        self.and(b)
    }
    fn remainder(self, _: Self) -> Self {
        Bool::from(false)
    }
    fn power(self, b: Self) -> Self {
        Bool::from(self.get() || !b.get())
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::tensor::Elem;

    fn t<T: Elem>(values: &[T]) -> Tensor {
        Tensor::from_slice(&[values.len()], values).unwrap()
    }

    fn run<T: Elem, D: Elem>(op: Binary, a: &[T], b: &[T]) -> Vec<D> {
        binary(op, &t(a), &t(b)).unwrap().values::<D>().unwrap().into_owned()
    }

    fn truths(op: Binary, a: &[f32], b: &[f32]) -> Vec<bool> {
        run::<f32, Bool>(op, a, b).iter().map(|v| v.get()).collect()
    }

    #[test]
    fn remainders_take_the_sign_of_the_divisor() {
        assert_eq!(run::<i32, i32>(Binary::Remainder, &[-7, 7, -7, 5, i32::MIN], &[3, -3, -3, 0, -1]), [2, -2, -1, 0, 0]);
        let r = run::<f32, f32>(Binary::Remainder, &[-5.0, -5.5, 5.0, -6.0], &[f32::INFINITY, 2.0, 0.0, 3.0]);
        assert!(r[0] == f32::INFINITY && r[1] == 0.5 && r[2].is_nan() && r[3] == 0.0);
    }

    #[test]
    fn integer_floor_division_is_whole_only_after_a_cast() {
        let q = run::<i32, f32>(Binary::FloorDivide, &[7, -7, 7, -8], &[2, 2, -2, 2]);
        assert_eq!(q, [3.5, -4.5, -4.5, -4.0]);
        let whole = cast(&t(&q), DType::Int32).unwrap();
        assert_eq!(whole.values::<i32>().unwrap().as_ref(), [3, -4, -4, -4]);
        assert_eq!(run::<f32, f32>(Binary::FloorDivide, &[-7.0, 7.0], &[2.0, 2.0]), [-4.0, 3.0]);
    }

    #[test]
    fn integers_wrap_and_powers_are_integers() {
        assert_eq!(run::<i8, i8>(Binary::Add, &[127, -128], &[1, -1]), [-128, 127]);
        assert_eq!(run::<i32, i32>(Binary::Power, &[2, 3, 0, 2, 10], &[10, 1, 0, 31, 10]), [1024, 3, 1, i32::MIN, 1410065408]);
        // MLX's CPU backend would not end.
        let (base, exponent) = (Tensor::scalar(1i32).unwrap(), Tensor::from_slice(&[2], &[2i32, -1]).unwrap());
        assert!(binary(Binary::Power, &base, &exponent).is_err());
        assert_eq!(run::<i32, f32>(Binary::Divide, &[1, -1, 0], &[0, 0, 0])[..2], [f32::INFINITY, f32::NEG_INFINITY]);
    }

    #[test]
    fn nan_spreads_and_compares_false() {
        let (n, one) = (f32::NAN, 1.0);
        assert!(run::<f32, f32>(Binary::Maximum, &[n, one], &[one, n]).iter().all(|v| v.is_nan()));
        assert!(run::<f32, f32>(Binary::Minimum, &[n, one], &[one, n]).iter().all(|v| v.is_nan()));
        assert_eq!(truths(Binary::LessEqual, &[n, one], &[one, one]), [false, true]);
        assert_eq!(truths(Binary::NotEqual, &[n, one], &[n, one]), [true, false]);
        assert_eq!(truths(Binary::LogicalAnd, &[n, one, -0.0], &[one, 0.0, one]), [true, false, false]);
        let inf = f32::INFINITY;
        assert_eq!(run::<f32, f32>(Binary::LogAddExp, &[-inf, inf, 0.0], &[-inf, 0.0, -inf]), [-inf, inf, 0.0]);
    }

    #[test]
    fn types_promote_and_halves_round_each_step() {
        let i = t(&[1i32, 257]);
        let h = Tensor::from_slice(&[1], &[bf16::from_f32(1.0)]).unwrap();
        // 257 rounds to 256 in bf16 before the addition, 257 rounds again after it.
        let sum = binary(Binary::Add, &i, &h).unwrap();
        assert_eq!(sum.values::<bf16>().unwrap().iter().map(|v| v.to_f32()).collect::<Vec<_>>(), [2.0, 256.0]);
        let mixed = binary(Binary::Multiply, &t(&[1u8]), &t(&[-1i8])).unwrap();
        assert_eq!((mixed.dtype(), mixed.item::<i16>().unwrap()), (DType::Int16, -1));
        assert!(binary(Binary::BitwiseAnd, &i, &h).is_err());
        let b = t(&[Bool::from(true)]);
        assert_eq!(binary(Binary::Add, &b, &b).unwrap().dtype(), DType::Bool);
    }

    #[test]
    fn operands_broadcast() {
        let a = Tensor::from_slice(&[2, 1], &[10, 20]).unwrap();
        let b = Tensor::from_slice(&[3], &[1, 2, 3]).unwrap();
        let sum = binary(Binary::Add, &a, &b).unwrap();
        assert_eq!((sum.shape(), sum.values::<i32>().unwrap().as_ref()), (&[2, 3][..], &[11, 12, 13, 21, 22, 23][..]));
        assert_eq!(binary(Binary::Add, &a, &Tensor::zeros(DType::Int32, &[0]).unwrap()).unwrap().shape(), [2, 0]);
        assert!(binary(Binary::Add, &b, &t(&[1, 2])).is_err());
        let wide = Tensor::from_slice(&[700, 1], &(0..700).collect::<Vec<i32>>()).unwrap();
        let row = Tensor::from_slice(&[1, 300], &(0..300).collect::<Vec<i32>>()).unwrap();
        let all = binary(Binary::Multiply, &wide, &row).unwrap();
        let all = all.values::<i32>().unwrap();
        assert!(all.iter().enumerate().all(|(i, &v)| v as usize == (i / 300) * (i % 300)));
    }

    #[test]
    fn select_and_clip() {
        let c = t(&[f32::NAN, 0.0]);
        let got = select(&c, &Tensor::scalar(1i32).unwrap(), &t(&[0.5f32, 2.5])).unwrap();
        assert_eq!(got.values::<f32>().unwrap().as_ref(), [1.0, 2.5]);
        let x = t(&[-3i32, 0, 9]);
        let (low, high) = (Tensor::scalar(-1i32).unwrap(), Tensor::scalar(4i32).unwrap());
        assert_eq!(clip(&x, Some(&low), Some(&high)).unwrap().values::<i32>().unwrap().as_ref(), [-1, 0, 4]);
        assert_eq!(clip(&x, Some(&high), Some(&low)).unwrap().values::<i32>().unwrap().as_ref(), [-1; 3]);
        assert_eq!(clip(&x, None, None).unwrap().values::<i32>().unwrap().as_ref(), [-3, 0, 9]);
    }

    #[test]
    fn truth_values_and_mixed_integers() {
        let b = t(&[true, true, false].map(Bool::from));
        let c = t(&[true, false, false].map(Bool::from));
        let truth = |op| binary(op, &b, &c).unwrap().values::<Bool>().unwrap().iter().map(|v| v.get()).collect::<Vec<_>>();
        assert_eq!(truth(Binary::Add), [true, true, false]);
        assert_eq!(truth(Binary::Multiply), [true, false, false]);
        assert_eq!(truth(Binary::BitwiseXor), [false, true, false]);
        assert_eq!(truth(Binary::LogicalOr), [true, true, false]);
        assert_eq!(truths(Binary::LogicalOr, &[f32::NAN, -0.0], &[0.0, 0.0]), [true, false]);
        // Quotients of integers are singles, whatever their width.
        let wide = run::<i64, f32>(Binary::FloorDivide, &[(1 << 24) + 1, 1 << 53], &[1, 1]);
        assert_eq!(wide, [16777216.0, 9007199254740992.0]);
        assert!(run::<i32, f32>(Binary::Divide, &[0], &[0])[0].is_nan());
        assert_eq!(binary(Binary::Divide, &b, &t(&[2u8])).unwrap().dtype(), DType::Float32);
        let angle = run::<i32, f32>(Binary::Atan2, &[1, 0], &[1, -1]);
        assert_eq!(angle, [std::f32::consts::FRAC_PI_4, std::f32::consts::PI]);
        assert_eq!(run::<i32, f32>(Binary::LogAddExp, &[0], &[0]), [std::f32::consts::LN_2]);
        assert_eq!(run::<f32, f32>(Binary::Power, &[0.0, -8.0], &[0.0, 1.0 / 3.0])[0], 1.0);
    }

    #[test]
    fn bounds_that_are_no_numbers_and_conditions_that_broadcast() {
        let x = t(&[f32::NAN, 1.0, 5.0]);
        let nan = Tensor::scalar(f32::NAN).unwrap();
        let one = Tensor::scalar(2.0f32).unwrap();
        let clipped = clip(&x, None, Some(&one)).unwrap().values::<f32>().unwrap().into_owned();
        assert!(clipped[0].is_nan() && clipped[1..] == [1.0, 2.0]);
        assert!(clip(&x, Some(&nan), Some(&one)).unwrap().values::<f32>().unwrap().iter().all(|v| v.is_nan()));
        let ints = clip(&t(&[-3i32, 7]), Some(&Tensor::scalar(-0.5f32).unwrap()), None).unwrap();
        assert_eq!((ints.dtype(), ints.values::<f32>().unwrap().as_ref()), (DType::Float32, &[-0.5, 7.0][..]));
        let condition = Tensor::from_slice(&[2, 1, 1], &[1i32, 0]).unwrap();
        let (x, y) = (Tensor::from_slice(&[2, 1], &[1i8, 2]).unwrap(), t(&[10u8, 20, 30]));
        let all = select(&condition, &x, &y).unwrap();
        assert_eq!((all.shape(), all.dtype()), (&[2, 2, 3][..], DType::Int16));
        assert_eq!(all.values::<i16>().unwrap().as_ref(), [1, 1, 1, 2, 2, 2, 10, 20, 30, 10, 20, 30]);
    }
}
