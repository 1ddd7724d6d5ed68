//! Elements: how the values of each type are stored, and how they are converted and rounded.
//!
//! Three kinds of numbers stand for all types: `f64` for floats (every narrower float is one exactly), `i64` for integers
//! and booleans (the bits of `u64`), pairs of `f64` for complex numbers. A basic operation on narrower floats that is done in
//! `f64` and then rounded gives what the operation in that type gives: 53 bits are enough to make the second rounding
//! harmless (Figueroa, "When is double rounding innocuous?", 1995).

use half::{bf16, f16};

use crate::DType;

/// A complex number: real and imaginary part.
pub(super) type Complex = [f64; 2];

/// A number that stands for elements of a type.
pub(super) trait Element: Copy + Default {
    /// The element that these bytes hold, converted.
    fn read(dtype: DType, bytes: &[u8]) -> Self;
    /// Stores itself as an element of the type, converted as torch converts.
    fn write(self, dtype: DType, out: &mut [u8]);
}

/// `x` rounded to the nearest value of a float type, ties to even. Halves are rounded by way of `f32`, in which torch
/// computes with them. Other types are left alone.
pub(super) fn round(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::Float32 | DType::Complex64 => f64::from(x as f32),
        DType::Float16 | DType::Complex32 => f64::from(f16::from_f32(x as f32)),
        DType::BFloat16 => f64::from(bf16::from_f32(x as f32)),
        DType::Float8E4M3 | DType::Float8E5M2 | DType::Float8E4M3Fnuz | DType::Float8E5M2Fnuz | DType::Float8E8M0 => {
            decode8(dtype, encode8(dtype, x))
        }
        _ => x,
    }
}

/// The value of an 8-bit float.
fn decode8(dtype: DType, code: u8) -> f64 {
    let (exponent_bits, bias) = match dtype {
        DType::Float8E8M0 => return if code == 0xff { f64::NAN } else { 2f64.powi(i32::from(code) - 127) },
        DType::Float8E4M3 => (4, 7),
        DType::Float8E4M3Fnuz => (4, 8),
        DType::Float8E5M2 => (5, 15),
        _ => (5, 16),
    };
    let magnitude = code & 0x7f;
    match (dtype, magnitude, code) {
        (DType::Float8E4M3, 0x7f, _) | (DType::Float8E5M2, 0x7d.., _) => return f64::NAN,
        (DType::Float8E4M3Fnuz | DType::Float8E5M2Fnuz, _, 0x80) => return f64::NAN,
        (DType::Float8E5M2, 0x7c, _) => return if code < 0x80 { f64::INFINITY } else { f64::NEG_INFINITY },
        _ => {}
    }
    let x = minifloat(magnitude, exponent_bits, bias);
    if code < 0x80 { x } else { -x }
}

/// The value of sign-less bits, without special codes.
fn minifloat(magnitude: u8, exponent_bits: u32, bias: i32) -> f64 {
    let mantissa_bits = 7 - exponent_bits;
    let hidden = 1u8 << mantissa_bits;
    let (exponent, mantissa) = (i32::from(magnitude >> mantissa_bits), magnitude & (hidden - 1));
    let (mantissa, exponent) = if exponent == 0 { (mantissa, 1) } else { (mantissa | hidden, exponent) };
    f64::from(mantissa) * 2f64.powi(exponent - bias - mantissa_bits as i32)
}

/// The 8-bit float nearest to `x`, ties to even. What rounds beyond the largest value is infinite or, without infinities,
/// not a number.
fn encode8(dtype: DType, x: f64) -> u8 {
    if dtype == DType::Float8E8M0 {
        // Only powers of two; a tie goes up, what has no code is not a number.
        let nearest = |code: &u8| (decode8(dtype, *code) - x).abs();
        return if x.is_nan() || x > 2f64.powf(127.5) || x < 0.0 {
            0xff
        } else {
            (0..0xffu8).rev().min_by(|a, b| nearest(a).total_cmp(&nearest(b))).unwrap_or(0xff)
        };
    }
    let (exponent_bits, bias, largest, beyond) = match dtype {
        DType::Float8E4M3 => (4, 7, 0x7e, 0x7f),
        DType::Float8E4M3Fnuz => (4, 8, 0x7f, 0x80),
        DType::Float8E5M2 => (5, 15, 0x7b, 0x7c),
        _ => (5, 16, 0x7f, 0x80),
    };
    let unsigned_zero = beyond == 0x80;
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    if x.is_nan() {
        return if dtype == DType::Float8E5M2 { sign | 0x7f } else { sign | beyond };
    }
    // The value after the largest, as if the codes went on.
    let end =
        minifloat(largest, exponent_bits, bias) + (minifloat(largest, exponent_bits, bias) - minifloat(largest - 1, exponent_bits, bias));
    let value = |code: u8| if code > largest { end } else { minifloat(code, exponent_bits, bias) };
    let magnitude = x.abs().min(end);
    let nearest = |code: &u8| (value(*code) - magnitude).abs();
    let code = (0..=largest + 1).min_by(|a, b| nearest(a).total_cmp(&nearest(b)).then((a & 1).cmp(&(b & 1)))).unwrap_or(0);
    match code {
        _ if code > largest => {
            if unsigned_zero {
                beyond
            } else {
                sign | beyond
            }
        }
        0 if unsigned_zero => 0,
        code => sign | code,
    }
}

/// The bytes at the front, as many as there should be; zeros beyond the end.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

/// Stores bytes at the front.
fn put(out: &mut [u8], bytes: &[u8]) {
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// The two halves of a complex element.
fn parts(dtype: DType) -> DType {
    match dtype {
        DType::Complex32 => DType::Float16,
        DType::Complex64 => DType::Float32,
        _ => DType::Float64,
    }
}

/// A float as an integer: towards zero; what does not fit gives the least integer, as x86 does.
fn truncate(x: f64) -> i64 {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if x > -END - 1.0 && x < END { x as i64 } else { i64::MIN }
}

impl Element for f64 {
    fn read(dtype: DType, b: &[u8]) -> f64 {
        match dtype {
            DType::Float32 => f64::from(f32::from_le_bytes(array(b))),
            DType::Float64 => f64::from_le_bytes(array(b)),
            DType::Float16 => f64::from(f16::from_le_bytes(array(b))),
            DType::BFloat16 => f64::from(bf16::from_le_bytes(array(b))),
            DType::UInt64 => u64::from_le_bytes(array(b)) as f64,
            _ if dtype.is_float() => decode8(dtype, array::<1>(b)[0]),
            _ if dtype.is_complex() => f64::read(parts(dtype), b),
            _ => i64::read(dtype, b) as f64,
        }
    }

    fn write(self, dtype: DType, out: &mut [u8]) {
        match dtype {
            DType::Float32 => put(out, &(self as f32).to_le_bytes()),
            DType::Float64 => put(out, &self.to_le_bytes()),
            DType::Float16 => put(out, &f16::from_f32(self as f32).to_le_bytes()),
            DType::BFloat16 => put(out, &bf16::from_f32(self as f32).to_le_bytes()),
            DType::Bool => put(out, &[u8::from(self != 0.0)]),
            DType::UInt64 if self >= 9.3e18 => put(out, &(self as u64).to_le_bytes()),
            // One instruction of x86 converts to 32 bits; narrower integers are cut out of those.
            DType::Int32 if self.trunc().abs() > 2_147_483_648.0 || self.is_nan() => put(out, &i32::MIN.to_le_bytes()),
            _ if dtype.is_float() => put(out, &[encode8(dtype, self)]),
            _ if dtype.is_complex() => [self, 0.0].write(dtype, out),
            _ => truncate(self).write(dtype, out),
        }
    }
}

impl Element for i64 {
    fn read(dtype: DType, b: &[u8]) -> i64 {
        match dtype {
            DType::Bool => i64::from(array::<1>(b) != [0]),
            DType::UInt8 => u8::from_le_bytes(array(b)).into(),
            DType::Int8 => i8::from_le_bytes(array(b)).into(),
            DType::UInt16 => u16::from_le_bytes(array(b)).into(),
            DType::Int16 => i16::from_le_bytes(array(b)).into(),
            DType::UInt32 => u32::from_le_bytes(array(b)).into(),
            DType::Int32 => i32::from_le_bytes(array(b)).into(),
            DType::Int64 | DType::UInt64 => i64::from_le_bytes(array(b)),
            _ => truncate(f64::read(dtype, b)),
        }
    }

    fn write(self, dtype: DType, out: &mut [u8]) {
        match dtype {
            DType::Bool => put(out, &[u8::from(self != 0)]),
            // Straight to `f32`: by way of `f64` large numbers would be rounded twice.
            DType::Float32 => put(out, &(self as f32).to_le_bytes()),
            DType::Float16 => put(out, &f16::from_f32(self as f32).to_le_bytes()),
            DType::BFloat16 => put(out, &bf16::from_f32(self as f32).to_le_bytes()),
            _ if dtype.is_float() || dtype.is_complex() => (self as f64).write(dtype, out),
            _ => put(out, &self.to_le_bytes()),
        }
    }
}

impl Element for Complex {
    fn read(dtype: DType, b: &[u8]) -> Complex {
        if !dtype.is_complex() {
            return [f64::read(dtype, b), 0.0];
        }
        let part = parts(dtype);
        [f64::read(part, b), f64::read(part, b.get(part.size()..).unwrap_or(&[]))]
    }

    fn write(self, dtype: DType, out: &mut [u8]) {
        if !dtype.is_complex() {
            return match dtype {
                DType::Bool => put(out, &[u8::from(self != [0.0, 0.0])]),
                _ => self[0].write(dtype, out),
            };
        }
        let part = parts(dtype);
        let (real, imaginary) = out.split_at_mut(part.size().min(out.len()));
        self[0].write(part, real);
        self[1].write(part, imaginary);
    }
}

impl Element for bool {
    fn read(dtype: DType, b: &[u8]) -> bool {
        match dtype {
            _ if dtype.is_float() => f64::read(dtype, b) != 0.0,
            _ if dtype.is_complex() => Complex::read(dtype, b) != [0.0, 0.0],
            _ => i64::read(dtype, b) != 0,
        }
    }

    fn write(self, dtype: DType, out: &mut [u8]) {
        i64::from(self).write(dtype, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_round_trip() {
        for dtype in [DType::Float8E4M3, DType::Float8E5M2, DType::Float8E4M3Fnuz, DType::Float8E5M2Fnuz, DType::Float8E8M0] {
            for code in 0..=255u8 {
                let x = decode8(dtype, code);
                if !x.is_nan() {
                    assert_eq!(encode8(dtype, x), code, "{dtype} {x}");
                }
            }
            assert!(round(dtype, f64::NAN).is_nan());
        }
    }

    #[test]
    fn eight_bit_floats_overflow_as_torch_has_it() {
        assert_eq!(round(DType::Float8E4M3, 464.0), 448.0);
        assert!(round(DType::Float8E4M3, 465.0).is_nan() && round(DType::Float8E4M3, f64::INFINITY).is_nan());
        assert_eq!(round(DType::Float8E5M2, 61439.0), 57344.0);
        assert_eq!(round(DType::Float8E5M2, 61440.0), f64::INFINITY);
        assert_eq!(round(DType::Float8E4M3, 0.0009765625), 0.0, "half of the least value is a tie");
    }

    #[test]
    fn floats_become_integers_towards_zero() {
        let cast = |x: f64, dtype: DType| {
            let mut out = [0; 8];
            x.write(dtype, &mut out);
            i64::read(dtype, &out)
        };
        assert_eq!((cast(-1.9, DType::Int32), cast(1.9, DType::Int8), cast(300.7, DType::UInt8)), (-1, 1, 44));
        assert_eq!((cast(3e9, DType::Int32), cast(f64::NAN, DType::Int64), cast(-1.0, DType::UInt8)), (i64::from(i32::MIN), i64::MIN, 255));
    }
}
