//! Codes of quantised elements, and unpacking them from the bit streams they are stored as: little endian, lowest bits
//! first, without gaps; codes of 3, 5 and 6 bits straddle words.

use pulp::Arch;

/// A kind of code.
pub(super) trait Codes: Copy + Send + Sync + 'static {
    /// Width of a code.
    const BITS: usize;

    /// How codes become bytes, if their values are few enough whole steps.
    const BYTES: Option<Bytes> = None;

    /// What a code stands for before scaling.
    fn value(code: u32) -> f32;
}

/// Codes as unsigned bytes: a code stands for `(byte - origin)·step`.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    /// The byte of each code, if it is not the code itself.
    pub(super) table: Option<[u8; 16]>,
    pub(super) origin: f32,
    pub(super) step: f32,
}

/// Unsigned integers.
#[derive(Clone, Copy)]
pub(super) struct Affine<const BITS: usize>;

impl<const BITS: usize> Codes for Affine<BITS> {
    const BITS: usize = BITS;

    const BYTES: Option<Bytes> = Some(Bytes { table: None, origin: 0.0, step: 1.0 });

    #[inline(always)]
    fn value(code: u32) -> f32 {
        // Small enough for the signed conversion, which processors have.
        code as i32 as f32
    }
}

/// A sign, two bits of exponent, one of mantissa: 0, ½, 1, 1½, 2, 3, 4, 6.
#[derive(Clone, Copy)]
pub(super) struct E2m1;

impl Codes for E2m1 {
    const BITS: usize = 4;

    // Twice the values, from twice the least one up.
    const BYTES: Option<Bytes> =
        Some(Bytes { table: Some([12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0]), origin: 12.0, step: 0.5 });

    #[inline(always)]
    fn value(code: u32) -> f32 {
        // Twice the values, in nibbles.
        let doubled = 0xC864_3210u32 >> ((code & 7) * 4) & 15;
        let value = doubled as i32 as f32 * 0.5;
        f32::from_bits(value.to_bits() | (code & 8) << 28)
    }
}

/// A sign, four bits of exponent, three of mantissa; all ones is NaN, and there is no infinity.
#[derive(Clone, Copy)]
pub(super) struct E4m3;

impl Codes for E4m3 {
    const BITS: usize = 8;

    #[inline(always)]
    fn value(code: u32) -> f32 {
        let magnitude = code & 0x7f;
        // Without subnormal operands, which are slow: 2^-6·(1 + m/8) - 2^-6 is what a zero exponent means.
        let normal = f32::from_bits((magnitude << 20) + (120 << 23));
        let subnormal = f32::from_bits((magnitude << 20) + (121 << 23)) - 0.015_625;
        let value = if magnitude < 8 { subnormal } else { normal };
        let value = if magnitude == 0x7f { f32::NAN } else { value };
        f32::from_bits(value.to_bits() | (code & 0x80) << 24)
    }
}

/// An E4M3 scale.
pub(super) fn e4m3(byte: u8) -> f32 {
    E4m3::value(u32::from(byte))
}

/// A scale `2^(byte - 127)`; MLX reads the last one, which the format calls NaN, as infinity.
pub(super) fn e8m0(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(0x0040_0000),
        _ => f32::from_bits(u32::from(byte) << 23),
    }
}

/// Writes the values of codes `start`, `start + 1`, … of a row.
pub(super) fn unpack<C: Codes>(words: &[u32], start: usize, out: &mut [f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            // Whole words' worth of whole codes begin at multiples of 32 codes.
            let head = (start.next_multiple_of(32) - start).min(out.len());
            let (first, rest) = out.split_at_mut(head);
            for (i, o) in first.iter_mut().enumerate() {
                *o = C::value(code::<C>(words, start + i));
            }
            let at = start + head;
            let (blocks, tail) = rest.as_chunks_mut::<32>();
            let tail_at = at + 32 * blocks.len();
            for (block, words) in blocks.iter_mut().zip(words[at / 32 * C::BITS..].chunks_exact(C::BITS)) {
                unpack_block::<C>(words, block);
            }
            for (i, o) in tail.iter_mut().enumerate() {
                *o = C::value(code::<C>(words, tail_at + i));
            }
        },
    );
}

/// Unpacks 32 codes, which fill exactly `BITS` words.
#[inline(always)]
fn unpack_block<C: Codes>(words: &[u32], out: &mut [f32; 32]) {
    for (i, o) in out.iter_mut().enumerate() {
        *o = C::value(code::<C>(words, i));
    }
}

/// Code `index` of a row.
#[inline(always)]
pub(super) fn code<C: Codes>(words: &[u32], index: usize) -> u32 {
    let bit = index * C::BITS;
    let (word, shift) = (bit / 32, bit % 32);
    let mut code = words[word] >> shift;
    if shift + C::BITS > 32 {
        code |= words[word + 1] << (32 - shift);
    }
    code & ((1 << C::BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_floats() {
        let e2m1: Vec<f32> = (0..16).map(E2m1::value).collect();
        assert_eq!(e2m1[..8], [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert!((0..8).all(|i| e2m1[i + 8] == -e2m1[i] && e2m1[i + 8].is_sign_negative()));
        let value = |sign: f32, e: i32, m: i32| sign * if e == 0 { m as f32 / 512.0 } else { (8 + m) as f32 / 8.0 * 2f32.powi(e - 7) };
        for code in 0..=255u8 {
            let got = e4m3(code);
            let want = value(if code & 0x80 == 0 { 1.0 } else { -1.0 }, i32::from(code >> 3 & 15), i32::from(code & 7));
            assert!(if code & 0x7f == 0x7f { got.is_nan() } else { got == want }, "{code:#x}: {got} for {want}");
        }
        assert_eq!([e8m0(0), e8m0(1), e8m0(127), e8m0(254)], [2f32.powi(-127), 2f32.powi(-126), 1.0, 2f32.powi(127)]);
        assert_eq!(e8m0(255), f32::INFINITY);
    }

    fn round_trip<const BITS: usize>() {
        let codes: Vec<u32> = (0..160u32).map(|i| i.wrapping_mul(2654435761) >> 7 & ((1 << BITS) - 1)).collect();
        let mut words = vec![0u32; 160 * BITS / 32];
        for (i, code) in codes.iter().enumerate() {
            for bit in 0..BITS {
                let at = i * BITS + bit;
                words[at / 32] |= (code >> bit & 1) << (at % 32);
            }
        }
        for start in [0, 1, 16, 31, 32, 96, 130] {
            for len in [0, 1, 15, 30] {
                let mut out = vec![-1f32; len];
                unpack::<Affine<BITS>>(&words, start, &mut out);
                assert!(out.iter().zip(&codes[start..]).all(|(o, c)| *o == *c as f32), "{BITS} bits from {start}");
            }
        }
        let mut all = vec![0f32; 160];
        unpack::<Affine<BITS>>(&words, 0, &mut all);
        assert!(all.iter().zip(&codes).all(|(o, c)| *o == *c as f32));
    }

    #[test]
    fn codes_come_back_from_any_place_of_the_stream() {
        round_trip::<2>();
        round_trip::<3>();
        round_trip::<4>();
        round_trip::<5>();
        round_trip::<6>();
        round_trip::<8>();
    }
}
