//! Choosing scales and codes of formats whose codes are small floats.
//!
//! NVFP4 as torchao makes it without a scale for the whole tensor; MXFP4 and MXFP8 with the scale that is the power of two below the
//! largest magnitude.

use pulp::Arch;

use super::element::Element;

/// The greatest float of 8 bits (E4M3).
const GREATEST: f32 = 448.0;

/// A format of floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Float {
    pub(super) kind: Kind,
    /// Type of the weight.
    pub(super) element: Element,
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// E2M1 codes, an E4M3 scale for 16.
    Nvfp4,
    /// E2M1 codes, a power of two for 32.
    Mxfp4,
    /// E4M3 codes, a power of two for 32.
    Mxfp8,
}

impl Float {
    pub(super) fn group(self) -> usize {
        match self.kind {
            Kind::Nvfp4 => 16,
            Kind::Mxfp4 | Kind::Mxfp8 => 32,
        }
    }

    /// Bytes of the codes of a group.
    pub(super) fn code_bytes(self) -> usize {
        match self.kind {
            Kind::Nvfp4 | Kind::Mxfp4 => self.group() / 2,
            Kind::Mxfp8 => self.group(),
        }
    }

    /// Chooses scales: as numbers, and as the bytes that stand for them.
    pub(super) fn choose(self, w: &[f32], scales: &mut [f32], bytes: &mut [i8]) {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for ((w, s), b) in w.chunks_exact(self.group()).zip(scales).zip(bytes) {
                    let mut most = [0f32; 8];
                    for w in w.chunks_exact(8) {
                        for (m, x) in most.iter_mut().zip(w) {
                            let x = x.abs();
                            *m = if x > *m { x } else { *m };
                        }
                    }
                    let most = most.into_iter().fold(0f32, f32::max);
                    let (scale, byte) = match self.kind {
                        Kind::Nvfp4 => {
                            // From the smallest normal number on.
                            let byte = e4m3((most / 6.0).clamp(0.015_625, GREATEST));
                            (f32::from_bits((u32::from(byte) << 20) + (120 << 23)), byte)
                        }
                        Kind::Mxfp4 | Kind::Mxfp8 => {
                            // The codes reach to 2^2, or 2^8, and a bit more.
                            let reach = if self.kind == Kind::Mxfp4 { 2 } else { 8 };
                            let exponent = (most.to_bits() >> 23 & 0xff).saturating_sub(reach);
                            (f32::from_bits(exponent << 23).max(f32::MIN_POSITIVE), exponent as u8)
                        }
                    };
                    (*s, *b) = (scale, byte as i8);
                }
            },
        );
    }

    /// Writes the codes: two a byte, the first in the lower half, or one a byte.
    pub(super) fn codes(self, w: &[f32], scales: &[f32], out: &mut [u8]) {
        Arch::new().dispatch(
            #[inline(always)]
            || match self.kind {
                Kind::Nvfp4 | Kind::Mxfp4 => {
                    for ((w, out), s) in w.chunks_exact(self.group()).zip(out.chunks_exact_mut(self.code_bytes())).zip(scales) {
                        let inverse = 1.0 / s;
                        for (pair, o) in w.as_chunks::<2>().0.iter().zip(out) {
                            *o = e2m1(pair[0] * inverse) | e2m1(pair[1] * inverse) << 4;
                        }
                    }
                }
                Kind::Mxfp8 => {
                    for ((w, out), s) in w.chunks_exact(32).zip(out.chunks_exact_mut(32)).zip(scales) {
                        w.iter().zip(out).for_each(|(w, o)| *o = e4m3((w / s).clamp(-GREATEST, GREATEST)));
                    }
                }
            },
        );
    }

    /// Writes the numbers that the codes stand for.
    pub(super) fn numbers(self, w: &[f32], scales: &[f32], out: &mut [f32]) {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for ((w, out), s) in w.chunks_exact(self.group()).zip(out.chunks_exact_mut(self.group())).zip(scales) {
                    match self.kind {
                        Kind::Nvfp4 | Kind::Mxfp4 => {
                            let inverse = 1.0 / s;
                            w.iter().zip(out).for_each(|(w, o)| *o = s * from_e2m1(e2m1(w * inverse)));
                        }
                        Kind::Mxfp8 => w.iter().zip(out).for_each(|(w, o)| *o = s * from_e4m3(e4m3((w / s).clamp(-GREATEST, GREATEST)))),
                    }
                }
            },
        );
    }
}

/// The nearest of 0, ½, 1, 1½, 2, 3, 4, 6 with a sign, ties to the code that is even; greater numbers are 6.
#[inline(always)]
fn e2m1(x: f32) -> u8 {
    let sign = (x.to_bits() >> 28 & 8) as u8;
    let a = x.abs();
    let a = if a < 6.0 { a } else { 6.0 };
    let bits = a.to_bits();
    // Below 1 the steps are halves: adding a number whose last place is a half rounds to it.
    let small = (a + 4_194_304.0).to_bits() & 7;
    let normal = bits.wrapping_add(0x1f_ffff + (bits >> 22 & 1)).wrapping_sub(126 << 23) >> 22;
    sign | (if a < 1.0 { small } else { normal }) as u8
}

#[inline(always)]
fn from_e2m1(code: u8) -> f32 {
    let (exponent, mantissa) = (code >> 1 & 3, f32::from(code & 1));
    let magnitude = match exponent {
        0 => mantissa * 0.5,
        1 => 1.0 + mantissa * 0.5,
        2 => 2.0 + mantissa,
        _ => 4.0 + 2.0 * mantissa,
    };
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// The nearest float of 8 bits (E4M3) of a number that is at most the greatest, ties to even.
#[inline(always)]
fn e4m3(x: f32) -> u8 {
    let sign = (x.to_bits() >> 24 & 0x80) as u8;
    let a = x.abs();
    let bits = a.to_bits();
    // Below 2^-6 the steps are 2^-9.
    let small = (a + 16_384.0).to_bits() & 0xf;
    let normal = bits.wrapping_add(0x7_ffff + (bits >> 20 & 1)).wrapping_sub(120 << 23) >> 20;
    sign | (if a < 0.015_625 { small } else { normal }) as u8
}

#[inline(always)]
fn from_e4m3(code: u8) -> f32 {
    let magnitude = u32::from(code & 0x7f);
    let normal = f32::from_bits((magnitude << 20) + (120 << 23));
    let small = magnitude as f32 / 512.0;
    let value = if magnitude < 8 { small } else { normal };
    if code & 0x80 == 0 { value } else { -value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_that_of_its_number_and_numbers_between_go_to_the_nearer() {
        for code in (0..16).filter(|&c| c != 8) {
            assert_eq!(e2m1(from_e2m1(code)), code);
        }
        for code in (0..=0xfe).filter(|&c| c != 0x7f) {
            assert_eq!(e4m3(from_e4m3(code)), code, "{}", from_e4m3(code));
        }
        for low in 0..0x7e {
            let (a, b) = (from_e4m3(low), from_e4m3(low + 1));
            let middle = (a + b) / 2.0;
            let even = low + (low & 1);
            assert_eq!((e4m3(middle), e4m3(middle.next_down()), e4m3(middle.next_up())), (even, low, low + 1), "{a} {b}");
        }
        for low in 0..7 {
            let middle = (from_e2m1(low) + from_e2m1(low + 1)) / 2.0;
            let even = low + (low & 1);
            assert_eq!((e2m1(middle), e2m1(middle.next_down()), e2m1(middle.next_up())), (even, low, low + 1), "{middle}");
        }
        assert_eq!((e2m1(-0.0), e2m1(-0.2), e2m1(7.0), e4m3(-448.0)), (8, 8, 7, 0xfe));
    }
}
