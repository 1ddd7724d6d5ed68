//! Type promotion and casts (mlx-ops.md §3).

use etx_ir::DType;
use half::{bf16, f16};

use super::lanes::{Compute, map1};
use crate::error::{Error, Result};
use crate::tensor::{Bool, Tensor};

/// Runs `$body` with `$T` the Rust type of `$dtype`; other types are an error that names `$what`.
macro_rules! dispatch {
    (numeric, $what:expr, $dtype:expr, $T:ident => $body:expr) => {
        $crate::cpu::dtype::dispatch!(@ $what, $dtype, $T => $body;
            UInt8 u8, Int8 i8, Int16 i16, UInt16 u16, Int32 i32, UInt32 u32, Int64 i64, UInt64 u64,
            Float16 half::f16, BFloat16 half::bf16, Float32 f32)
    };
    (all, $what:expr, $dtype:expr, $T:ident => $body:expr) => {
        $crate::cpu::dtype::dispatch!(@ $what, $dtype, $T => $body;
            Bool $crate::tensor::Bool, UInt8 u8, Int8 i8, Int16 i16, UInt16 u16, Int32 i32, UInt32 u32, Int64 i64,
            UInt64 u64, Float16 half::f16, BFloat16 half::bf16, Float32 f32, Float64 f64)
    };
    (integer, $what:expr, $dtype:expr, $T:ident => $body:expr) => {
        $crate::cpu::dtype::dispatch!(@ $what, $dtype, $T => $body;
            UInt8 u8, Int8 i8, Int16 i16, UInt16 u16, Int32 i32, UInt32 u32, Int64 i64, UInt64 u64)
    };
    (float, $what:expr, $dtype:expr, $T:ident => $body:expr) => {
        $crate::cpu::dtype::dispatch!(@ $what, $dtype, $T => $body;
            Float16 half::f16, BFloat16 half::bf16, Float32 f32)
    };
    (@ $what:expr, $dtype:expr, $T:ident => $body:expr; $($variant:ident $rust:ty),*) => {
        match $dtype {
            $(etx_ir::DType::$variant => { type $T = $rust; $body })*
            other => Err($crate::error::Error::dtype(format!("{} does not take {other} elements", $what))),
        }
    };
}
pub(crate) use dispatch;

/// The type that operands of types `a` and `b` meet in.
pub(crate) fn promote(a: DType, b: DType) -> Result<DType> {
    use DType::{BFloat16, Bool, Float16, Float32, Int64};
    let unsigned_bits = |t| match t {
        DType::UInt8 => Some(1),
        DType::UInt16 => Some(2),
        DType::UInt32 => Some(4),
        DType::UInt64 => Some(8),
        _ => None,
    };
    let signed = |size| match size {
        1 => DType::Int8,
        2 => DType::Int16,
        4 => DType::Int32,
        _ => Int64,
    };
    if let Some(t) = [a, b].into_iter().find(|t| !matches!(t, Bool | BFloat16 | Float16 | Float32) && !t.is_int()) {
        return Err(Error::dtype(format!("{t} takes no part in type promotion")));
    }
    Ok(match (a, b) {
        (a, b) if a == b => a,
        (Bool, t) | (t, Bool) => t,
        (a, b) if a.is_float() && b.is_float() => Float32,
        (f, i) | (i, f) if f.is_float() && i.is_int() => f,
        (a, b) => match (unsigned_bits(a), unsigned_bits(b)) {
            (Some(x), Some(y)) => {
                if x >= y {
                    a
                } else {
                    b
                }
            }
            (None, None) => signed(a.size().max(b.size())),
            // The signed type must hold all of the unsigned one; there is none for u64, where MLX takes f32.
            (Some(8), None) | (None, Some(8)) => Float32,
            (Some(u), None) => signed((2 * u).max(b.size())),
            (None, Some(u)) => signed((2 * u).max(a.size())),
        },
    })
}

/// The type that all of these meet in.
pub(crate) fn promote_all<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<DType> {
    let mut types = tensors.into_iter().map(Tensor::dtype);
    let first = types.next().ok_or_else(|| Error::argument("no operands"))?;
    types.try_fold(first, promote)
}

/// The type of results that are never integers: floats keep theirs, everything else becomes `f32`.
pub(crate) fn to_float(dtype: DType) -> DType {
    if dtype.is_float() { dtype } else { DType::Float32 }
}

/// The values as another element type (`AsType`): floats to integers truncate toward zero, integers wrap, anything to
/// `bool` is "not zero" (NaN is true), and floats round to nearest even.
pub(crate) fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    dispatch!(all, "a cast", x.dtype(), S => dispatch!(all, "a cast", dtype, D => cast_elements::<S, D>(x)))
}

fn cast_elements<S: Compute, D: Compute>(x: &Tensor) -> Result<Tensor>
where
    D::Acc: CastFrom<S::Acc>,
{
    map1::<S, D>(x, |x, out| {
        for (o, v) in out.iter_mut().zip(x) {
            *o = D::Acc::cast_from(*v);
        }
    })
}

/// One element as another type; see [`cast`].
pub(crate) trait CastFrom<S> {
    fn cast_from(value: S) -> Self;
}

macro_rules! casts {
    (int $src:ty => $($dst:ty),*) => { $(impl CastFrom<$src> for $dst {
        #[inline]
        fn cast_from(value: $src) -> $dst { value as $dst }
    })* };
    (bool => $($dst:ty),*) => { $(
        impl CastFrom<Bool> for $dst {
            #[inline]
            fn cast_from(value: Bool) -> $dst { u8::from(value.get()) as $dst }
        }
        impl CastFrom<$dst> for Bool {
            #[inline]
            fn cast_from(value: $dst) -> Bool { Bool::from(value != 0 as $dst) }
        }
    )* };
    // What x86 does, which is also what torch and MLX do there: conversion through i32 (i64 for the wide types), whose
    // result for NaN and anything out of range is the most negative number; then the low bits.
    (float $src:ty) => {
        impl CastFrom<$src> for i32 {
            #[inline]
            fn cast_from(value: $src) -> i32 { if (-2147483648.0..2147483648.0).contains(&value) { value as i32 } else { i32::MIN } }
        }
        impl CastFrom<$src> for i64 {
            #[inline]
            fn cast_from(value: $src) -> i64 {
                if (-9223372036854775808.0..9223372036854775808.0).contains(&value) { value as i64 } else { i64::MIN }
            }
        }
        casts!(float $src, i32 => u8, i8, i16, u16);
        casts!(float $src, i64 => u32);
        impl CastFrom<$src> for u64 {
            #[inline]
            fn cast_from(value: $src) -> u64 { if value < 0.0 { i64::cast_from(value) as u64 } else { value as u64 } }
        }
        casts!(int $src => f32, f64);
    };
    (float $src:ty, $via:ty => $($dst:ty),*) => { $(impl CastFrom<$src> for $dst {
        #[inline]
        fn cast_from(value: $src) -> $dst { <$via>::cast_from(value) as $dst }
    })* };
}

casts!(bool => u8, i8, i16, u16, i32, u32, i64, u64, f32, f64);
casts!(int u8 => u8, i8, i16, u16, i32, u32, i64, u64, f32, f64);
casts!(int i8 => u8, i8, i16, u16, i32, u32, i64, u64, f32, f64);
casts!(int i16 => u8, i8, i16, u16, i32, u32, i64, u64, f32, f64);
casts!(int u16 => u8, i8, i16, u16, i32, u32, i64, u64, f32, f64);
casts!(int i32 => u8, i8, i16, u16, i32, u32, i64, u64, f32, f64);
casts!(int u32 => u8, i8, i16, u16, i32, u32, i64, u64, f32, f64);
casts!(int i64 => u8, i8, i16, u16, i32, u32, i64, u64, f32, f64);
casts!(int u64 => u8, i8, i16, u16, i32, u32, i64, u64, f32, f64);
casts!(float f32);
casts!(float f64);

impl CastFrom<Bool> for Bool {
    #[inline]
    fn cast_from(value: Bool) -> Bool {
        value
    }
}

impl CastFrom<f16> for f32 {
    #[inline]
    fn cast_from(value: f16) -> f32 {
        value.to_f32()
    }
}

impl CastFrom<bf16> for f32 {
    #[inline]
    fn cast_from(value: bf16) -> f32 {
        value.to_f32()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_is_the_documented_table() {
        let names = ["bool", "u8", "i8", "i32", "i64", "u32", "f16", "bf16", "f32"];
        let table = [
            "bool u8 i8 i32 i64 u32 f16 bf16 f32",
            "u8 u8 i16 i32 i64 u32 f16 bf16 f32",
            "i8 i16 i8 i32 i64 i64 f16 bf16 f32",
            "i32 i32 i32 i32 i64 i64 f16 bf16 f32",
            "i64 i64 i64 i64 i64 i64 f16 bf16 f32",
            "u32 u32 i64 i64 i64 u32 f16 bf16 f32",
            "f16 f16 f16 f16 f16 f16 f16 f32 f32",
            "bf16 bf16 bf16 bf16 bf16 bf16 f32 bf16 f32",
            "f32 f32 f32 f32 f32 f32 f32 f32 f32",
        ];
        let of = |name: &str| DType::from_name(name).unwrap();
        for (a, row) in names.iter().zip(table) {
            for (b, want) in names.iter().zip(row.split(' ')) {
                assert_eq!(promote(of(a), of(b)).unwrap(), of(want), "{a} with {b}");
            }
        }
        assert!(promote(DType::Float64, DType::Float32).is_err());
    }

    #[test]
    fn casts_truncate_wrap_and_round() {
        let x = Tensor::from_slice(&[6], &[-1.9f32, 2.9, 300.0, f32::NAN, 1e20, 0.0]).unwrap();
        let i = cast(&x, DType::Int32).unwrap();
        assert_eq!(i.values::<i32>().unwrap().as_ref(), [-1, 2, 300, i32::MIN, i32::MIN, 0]);
        let u = cast(&x, DType::UInt8).unwrap();
        assert_eq!(u.values::<u8>().unwrap()[..3], [255, 2, 44]);
        let b = cast(&x, DType::Bool).unwrap();
        assert_eq!(b.values::<Bool>().unwrap().iter().map(|b| b.get()).collect::<Vec<_>>(), [true, true, true, true, true, false]);
        let wide = Tensor::from_slice(&[2], &[(1i64 << 32) + 5, -1]).unwrap();
        assert_eq!(cast(&wide, DType::Int32).unwrap().values::<i32>().unwrap().as_ref(), [5, -1]);
        // Ties go to even: 1 + 2^-8 lies between two neighbours in bf16, 1 + 3·2^-8 too.
        let ties = Tensor::from_slice(&[3], &[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f32::NAN]).unwrap();
        let halves = cast(&ties, DType::BFloat16).unwrap();
        let halves = halves.values::<bf16>().unwrap();
        assert_eq!((halves[0].to_f32(), halves[1].to_f32()), (1.0, 1.015625));
        assert!(halves[2].is_nan());
        let big = Tensor::scalar(70000.0f32).unwrap();
        assert_eq!(cast(&big, DType::Float16).unwrap().item::<f16>().unwrap(), f16::INFINITY);
    }

    #[test]
    fn casting_a_broadcast_keeps_it_broadcast() {
        let x = Tensor::scalar(3i32).unwrap().broadcast_to(&[1 << 40]).unwrap();
        let y = cast(&x, DType::Float16).unwrap();
        assert_eq!((y.shape(), y.strides()), (&[1usize << 40][..], &[0isize][..]));
    }
}
