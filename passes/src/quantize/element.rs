//! The types that weights come in.

use etx_ir::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::Arch;

/// Element type of a weight that can be quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    pub(super) fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::Float32 => Some(Element::F32),
            DType::Float16 => Some(Element::F16),
            DType::BFloat16 => Some(Element::Bf16),
            _ => None,
        }
    }

    pub(super) fn size(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 | Element::Bf16 => 2,
        }
    }

    /// The smallest positive number with all its bits.
    pub(super) fn smallest_normal(self) -> f32 {
        match self {
            Element::F32 | Element::Bf16 => f32::MIN_POSITIVE,
            Element::F16 => f16::MIN_POSITIVE.to_f32(),
        }
    }

    /// The nearest number of the type, ties to even.
    #[inline(always)]
    pub(super) fn round(self, x: f32) -> f32 {
        match self {
            Element::F32 => x,
            Element::F16 => f16::from_f32(x).to_f32(),
            Element::Bf16 => {
                // Finite numbers only; those beyond the greatest become infinite.
                let bits = x.to_bits();
                f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
            }
        }
    }

    /// Numbers from little-endian bytes.
    pub(super) fn read(self, bytes: &[u8], out: &mut Vec<f32>) {
        out.resize(bytes.len() / self.size(), 0.0);
        match self {
            Element::F32 => bytes.as_chunks().0.iter().zip(out).for_each(|(b, o)| *o = f32::from_le_bytes(*b)),
            Element::F16 => {
                let (mut halves, mut at) = ([f16::ZERO; 256], 0);
                for (bytes, out) in bytes.chunks(512).zip(out.chunks_mut(256)) {
                    let n = out.len();
                    bytes.as_chunks().0.iter().zip(&mut halves).for_each(|(b, h)| *h = f16::from_le_bytes(*b));
                    if let Some(halves) = halves.get(..n) {
                        halves.convert_to_f32_slice(out);
                    }
                    at += n;
                }
                debug_assert_eq!(at, bytes.len() / 2);
            }
            Element::Bf16 => Arch::new().dispatch(
                #[inline(always)]
                || {
                    bytes
                        .as_chunks()
                        .0
                        .iter()
                        .zip(out.iter_mut())
                        .for_each(|(b, o)| *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
                },
            ),
        }
    }

    /// The number as bytes, rounded.
    pub(super) fn write(self, x: f32, out: &mut [u8]) {
        match self {
            Element::F32 => out.copy_from_slice(&x.to_le_bytes()),
            Element::F16 => out.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
            Element::Bf16 => out.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
        }
    }
}
