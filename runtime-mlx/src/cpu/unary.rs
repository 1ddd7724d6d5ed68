//! Element-wise operators with one operand (mlx-ops.md §4).

use etx_ir::DType;

use super::dtype::{cast, dispatch, to_float};
use super::lanes::{Compute, map1};
use crate::engine::Unary;
use crate::error::{Error, Result};
use crate::tensor::{Bool, Tensor};

/// Applies `op` to every element.
pub(crate) fn unary(op: Unary, x: &Tensor) -> Result<Tensor> {
    let discrete = !x.dtype().is_float();
    match op {
        Unary::Floor | Unary::Ceil | Unary::Trunc if discrete => Ok(x.clone()),
        Unary::Square | Unary::Abs | Unary::Sign if x.dtype() == DType::Bool => Ok(x.clone()),
        Unary::Square => dispatch!(numeric, op.name(), x.dtype(), T => map1::<T, T>(x, |x, o| each(x, o, |v| v.times(v)))),
        Unary::Abs => dispatch!(numeric, op.name(), x.dtype(), T => map1::<T, T>(x, |x, o| each(x, o, Number::magnitude))),
        Unary::Sign => dispatch!(numeric, op.name(), x.dtype(), T => map1::<T, T>(x, |x, o| each(x, o, Number::sign))),
        Unary::Neg => dispatch!(numeric, op.name(), x.dtype(), T => map1::<T, T>(x, |x, o| each(x, o, Number::negative))),
        Unary::LogicalNot => map1::<Bool, Bool>(&cast(x, DType::Bool)?, |x, o| each(x, o, |v| Bool::from(!v.get()))),
        Unary::BitwiseInvert if x.dtype() == DType::Bool => unary(Unary::LogicalNot, x),
        Unary::BitwiseInvert => dispatch!(integer, op.name(), x.dtype(), T => map1::<T, T>(x, |x, o| each(x, o, |v| !v))),
        // Two steps of MLX, so halves are rounded in between.
        Unary::Silu => on_floats(op.name(), x, |round| move |v: f32| v * round(sigmoid(v))),
        _ => {
            let f = float_function(op)?;
            let x = cast(x, to_float(x.dtype()))?;
            dispatch!(float, op.name(), x.dtype(), T => map1::<T, T>(&x, f))
        }
    }
}

/// `x` with the given number of decimals, ties to even; integers stay as they are.
pub(crate) fn round(x: &Tensor, decimals: i32) -> Result<Tensor> {
    if !x.dtype().is_float() {
        return Ok(x.clone());
    }
    if decimals == 0 {
        return dispatch!(float, "Round", x.dtype(), T => map1::<T, T>(x, |x, o| each(x, o, f32::round_ties_even)));
    }
    let scale = 10f32.powi(decimals.clamp(-60, 60));
    on_floats("Round", x, |round| move |v: f32| round(round(v * round(scale)).round_ties_even()) / round(scale))
}

/// The Gaussian error linear unit: the `tanh` form if `approximate` is "tanh", the exact one otherwise.
pub(crate) fn gelu(x: &Tensor, approximate: &str) -> Result<Tensor> {
    if !x.dtype().is_float() {
        return Err(Error::dtype(format!("Gelu takes floating-point elements, not {}", x.dtype())));
    }
    if approximate == "tanh" {
        return on_floats("Gelu", x, |r| {
            let (half, cubic, slope) = (0.5, r(0.044715), r(0.797_884_6));
            move |v: f32| {
                let inner = r(slope * r(v + r(r(r(cubic * v) * v) * v)));
                half * r(v * r(1.0 + r(inner.tanh())))
            }
        });
    }
    on_floats("Gelu", x, |r| {
        let slope = r(std::f32::consts::FRAC_1_SQRT_2);
        move |v: f32| 0.5 * r(v * r(1.0 + r(libm::erff(r(slope * v)))))
    })
}

/// Applies a formula of several steps to floats (integers become `f32`). `make` gets the function that rounds an
/// intermediate to the element type and gives the formula.
fn on_floats<F: Fn(f32) -> f32 + Sync>(name: &str, x: &Tensor, make: impl Fn(fn(f32) -> f32) -> F) -> Result<Tensor> {
    let x = cast(x, to_float(x.dtype()))?;
    dispatch!(float, name, x.dtype(), T => {
        let f = make(<T as Compute>::rounded);
        map1::<T, T>(&x, |x, o| each(x, o, &f))
    })
}

/// `out[i] = f(x[i])`.
#[inline]
fn each<S: Copy, D>(x: &[S], out: &mut [D], f: impl Fn(S) -> D) {
    for (o, v) in out.iter_mut().zip(x) {
        *o = f(*v);
    }
}

fn sigmoid(v: f32) -> f32 {
    1.0 / (1.0 + (-v).exp())
}

/// Arithmetic that keeps the element type; integers wrap.
trait Number: Copy {
    fn times(self, other: Self) -> Self;
    fn magnitude(self) -> Self;
    fn sign(self) -> Self;
    fn negative(self) -> Self;
}

macro_rules! integers {
    ($($t:ty: $abs:ident $sign:expr;)*) => { $(impl Number for $t {
        #[inline]
        fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
        #[inline]
        fn magnitude(self) -> Self { integers!(@$abs self) }
        #[inline]
        fn sign(self) -> Self { let sign: fn($t) -> $t = $sign; sign(self) }
        #[inline]
        fn negative(self) -> Self { self.wrapping_neg() }
    })* };
    (@signed $x:expr) => { $x.wrapping_abs() };
    (@unsigned $x:expr) => { $x };
}

integers! {
    i8: signed i8::signum; i16: signed i16::signum; i32: signed i32::signum; i64: signed i64::signum;
    u8: unsigned |v| v.min(1); u16: unsigned |v| v.min(1); u32: unsigned |v| v.min(1); u64: unsigned |v| v.min(1);
}

impl Number for f32 {
    #[inline]
    fn times(self, other: Self) -> Self {
        self * other
    }
    #[inline]
    fn magnitude(self) -> Self {
        self.abs()
    }
    /// Zero for NaN, and zero (not minus zero) for both zeros.
    #[inline]
    fn sign(self) -> Self {
        f32::from(u8::from(self > 0.0)) - f32::from(u8::from(self < 0.0))
    }
    #[inline]
    fn negative(self) -> Self {
        -self
    }
}

/// The function over slices of an operator that computes in floating point.
#[expect(clippy::type_complexity, reason = "a name would say less than the type")]
fn float_function(op: Unary) -> Result<fn(&[f32], &mut [f32])> {
    macro_rules! over_slices {
        ($($name:ident: $f:expr;)*) => {
            match op {
                $(Unary::$name => |x: &[f32], out: &mut [f32]| { let f: fn(f32) -> f32 = $f; each(x, out, f) },)*
                _ => return Err(Error::unsupported(format!("{} is not a floating-point operator", op.name()))),
            }
        };
    }
    // The inverse hyperbolic functions lose half of their digits near 1 and 0 in f32 formulas.
    Ok(over_slices! {
        Floor: f32::floor;
        Ceil: f32::ceil;
        Trunc: f32::trunc;
        Exp: f32::exp;
        Expm1: f32::exp_m1;
        Log: f32::ln;
        Log2: f32::log2;
        Log10: f32::log10;
        Log1p: f32::ln_1p;
        Sqrt: f32::sqrt;
        Rsqrt: |v| 1.0 / v.sqrt();
        Reciprocal: f32::recip;
        Sin: f32::sin;
        Cos: f32::cos;
        Tan: f32::tan;
        Arcsin: f32::asin;
        Arccos: f32::acos;
        Arctan: f32::atan;
        Sinh: f32::sinh;
        Cosh: f32::cosh;
        Tanh: f32::tanh;
        Arcsinh: |v| f64::from(v).asinh() as f32;
        Arccosh: |v| f64::from(v).acosh() as f32;
        Arctanh: |v| f64::from(v).atanh() as f32;
        Erf: libm::erff;
        Sigmoid: sigmoid;
    })
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn f(values: &[f32]) -> Tensor {
        Tensor::from_slice(&[values.len()], values).unwrap()
    }

    fn floats(t: &Tensor) -> Vec<f32> {
        t.values::<f32>().unwrap().into_owned()
    }

    #[test]
    fn integers_keep_their_type_or_become_f32() {
        let x = Tensor::from_slice(&[3], &[-128i8, -3, 4]).unwrap();
        assert_eq!(unary(Unary::Abs, &x).unwrap().values::<i8>().unwrap().as_ref(), [-128, 3, 4]);
        assert_eq!(unary(Unary::Square, &x).unwrap().values::<i8>().unwrap().as_ref(), [0, 9, 16]);
        assert_eq!(unary(Unary::Sign, &x).unwrap().values::<i8>().unwrap().as_ref(), [-1, -1, 1]);
        assert_eq!(unary(Unary::Floor, &x).unwrap().dtype(), DType::Int8);
        assert_eq!(unary(Unary::Exp, &x).unwrap().dtype(), DType::Float32);
        let u = Tensor::from_slice(&[2], &[1u32, 0]).unwrap();
        assert_eq!(unary(Unary::Neg, &u).unwrap().values::<u32>().unwrap().as_ref(), [u32::MAX, 0]);
        assert_eq!(unary(Unary::BitwiseInvert, &u).unwrap().values::<u32>().unwrap().as_ref(), [!1, !0]);
        let b = Tensor::from_slice(&[2], &[Bool::from(true), Bool::from(false)]).unwrap();
        assert!(unary(Unary::Neg, &b).is_err());
        assert!(unary(Unary::BitwiseInvert, &f(&[1.0])).is_err());
        assert_eq!(unary(Unary::BitwiseInvert, &b).unwrap().values::<Bool>().unwrap()[0], Bool::from(false));
    }

    #[test]
    fn special_values() {
        let x = f(&[f32::NAN, -0.0, 0.0, -1.0, f32::INFINITY]);
        assert_eq!(floats(&unary(Unary::Sign, &x).unwrap()), [0.0, 0.0, 0.0, -1.0, 1.0]);
        let log = floats(&unary(Unary::Log, &x).unwrap());
        assert!(log[0].is_nan() && log[2] == f32::NEG_INFINITY && log[3].is_nan() && log[4] == f32::INFINITY);
        assert_eq!(floats(&unary(Unary::Rsqrt, &x).unwrap())[2], f32::INFINITY);
        let not = unary(Unary::LogicalNot, &x).unwrap();
        let want = [false, true, true, false, false].map(Bool::from);
        assert_eq!(not.values::<Bool>().unwrap().as_ref(), want);
    }

    #[test]
    fn rounding_goes_to_even_and_by_decimals() {
        assert_eq!(floats(&round(&f(&[0.5, 1.5, 2.5, -0.5]), 0).unwrap()), [0.0, 2.0, 2.0, -0.0]);
        assert_eq!(floats(&round(&f(&[1.25, 125.0]), 1).unwrap()), [1.2, 125.0]);
        assert_eq!(floats(&round(&f(&[149.0, 151.0]), -2).unwrap()), [100.0, 200.0]);
    }

    #[test]
    fn activations() {
        let x = f(&[-1.0, 0.0, 2.0]);
        let close = |got: Vec<f32>, want: [f32; 3]| got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6);
        assert!(close(floats(&unary(Unary::Silu, &x).unwrap()), [-0.268_941_43, 0.0, 1.761_594_2]));
        assert!(close(floats(&gelu(&x, "none").unwrap()), [-0.158_655_25, 0.0, 1.954_499_7]));
        assert!(close(floats(&gelu(&x, "tanh").unwrap()), [-0.158_808, 0.0, 1.954_597_7]));
        let half = cast(&x, DType::BFloat16).unwrap();
        let got = unary(Unary::Silu, &half).unwrap();
        // sigmoid(-1) = 0.26894 rounds to 0.26953 in bf16.
        assert_eq!(got.values::<bf16>().unwrap()[0].to_f32(), -0.269_531_25);
    }

    #[test]
    fn strided_and_empty_operands() {
        let x = Tensor::from_slice(&[2, 3], &[1.0f32, 4.0, 9.0, 16.0, 25.0, 36.0]).unwrap();
        let t = x.transpose(&[1, 0]).unwrap();
        assert_eq!(floats(&unary(Unary::Sqrt, &t).unwrap()), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let big: Vec<f32> = (0..200_000).map(|v| v as f32).collect();
        let big = f(&big).reshape(&[2, 100_000]).unwrap().transpose(&[1, 0]).unwrap();
        let got = floats(&unary(Unary::Neg, &big).unwrap());
        assert!(got.iter().enumerate().all(|(i, v)| -*v == (i / 2 + i % 2 * 100_000) as f32));
        let empty = Tensor::zeros(DType::Float16, &[0, 4]).unwrap();
        assert_eq!(unary(Unary::Exp, &empty).unwrap().shape(), [0, 4]);
    }

    #[test]
    fn ends_of_the_domains() {
        let inf = f32::INFINITY;
        let at = |op, x: f32| floats(&unary(op, &f(&[x])).unwrap())[0];
        for (op, x, want) in [
            (Unary::Reciprocal, 0.0, inf),
            (Unary::Reciprocal, -0.0, -inf),
            (Unary::Rsqrt, inf, 0.0),
            (Unary::Exp, -inf, 0.0),
            (Unary::Expm1, -inf, -1.0),
            (Unary::Log1p, -1.0, -inf),
            (Unary::Log2, 0.0, -inf),
            (Unary::Log10, inf, inf),
            (Unary::Tanh, inf, 1.0),
            (Unary::Sigmoid, -inf, 0.0),
            (Unary::Erf, -inf, -1.0),
            (Unary::Arctanh, 1.0, inf),
            (Unary::Arccosh, 1.0, 0.0),
            (Unary::Arctan, inf, std::f32::consts::FRAC_PI_2),
            (Unary::Square, -inf, inf),
            (Unary::Abs, -inf, inf),
            (Unary::Trunc, -2.7, -2.0),
            (Unary::Ceil, -0.5, -0.0),
            (Unary::Floor, inf, inf),
        ] {
            assert_eq!(at(op, x).to_bits(), want.to_bits(), "{op:?} of {x}");
        }
        for (op, x) in [
            (Unary::Sqrt, -1.0),
            (Unary::Rsqrt, -1.0),
            (Unary::Arcsin, 2.0),
            (Unary::Arccos, -2.0),
            (Unary::Arccosh, 0.5),
            (Unary::Sin, inf),
            (Unary::Log1p, -2.0),
        ] {
            assert!(at(op, x).is_nan(), "{op:?} of {x}");
        }
        for op in [Unary::Floor, Unary::Exp, Unary::Abs, Unary::Square, Unary::Neg, Unary::Tanh, Unary::Silu] {
            assert!(at(op, f32::NAN).is_nan(), "{op:?}");
        }
    }

    #[test]
    fn integers_and_truth_values_in_functions_of_floats() {
        let b = Tensor::from_slice(&[2], &[Bool::from(true), Bool::from(false)]).unwrap();
        assert_eq!(floats(&unary(Unary::Exp, &b).unwrap()), [1f32.exp(), 1.0]);
        let i = Tensor::from_slice(&[2], &[4i64, 0]).unwrap();
        assert_eq!(floats(&unary(Unary::Sqrt, &i).unwrap()), [2.0, 0.0]);
        let silu = unary(Unary::Silu, &Tensor::from_slice(&[1], &[0u8]).unwrap()).unwrap();
        assert_eq!((silu.dtype(), floats(&silu)), (DType::Float32, vec![0.0]));
        for op in [Unary::Floor, Unary::Ceil, Unary::Trunc] {
            assert_eq!(unary(op, &i).unwrap().values::<i64>().unwrap().as_ref(), [4, 0]);
            assert_eq!(unary(op, &b).unwrap().dtype(), DType::Bool);
        }
        assert_eq!(round(&i, 0).unwrap().values::<i64>().unwrap().as_ref(), [4, 0]);
        assert!(gelu(&i, "none").is_err());
        let u = Tensor::from_slice(&[2], &[1u8, 255]).unwrap();
        assert_eq!(unary(Unary::Neg, &u).unwrap().values::<u8>().unwrap().as_ref(), [255, 1]);
        assert_eq!(unary(Unary::Square, &u).unwrap().values::<u8>().unwrap().as_ref(), [1, 1]);
    }

    #[test]
    fn gelu_of_halves_rounds_after_every_step() {
        let r = |x: f32| bf16::from_f32(x).to_f32();
        let x = [0.7f32, -1.3, 2.9].map(r);
        let got = gelu(&cast(&f(&x), DType::BFloat16).unwrap(), "none").unwrap();
        let want = x.map(|v| bf16::from_f32(0.5 * r(v * r(1.0 + r(libm::erff(r(r(std::f32::consts::FRAC_1_SQRT_2) * v)))))));
        assert_eq!(got.values::<bf16>().unwrap().as_ref(), want);
        let got = gelu(&cast(&f(&x), DType::BFloat16).unwrap(), "tanh").unwrap();
        let want = x.map(|v| {
            let inner = r(r(0.797_884_6) * r(v + r(r(r(r(0.044715) * v) * v) * v)));
            bf16::from_f32(0.5 * r(v * r(1.0 + r(inner.tanh()))))
        });
        assert_eq!(got.values::<bf16>().unwrap().as_ref(), want);
    }
}
