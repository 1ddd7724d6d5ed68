//! Blocks of GGML's K-quants as MLX's codes, scales and biases (`mlx-patterns.md` §6).
//!
//! A block of 256 values is a row of sub-blocks with a scale each. A value is `d·s·q - dmin·m` (4 and 5 bits) or
//! `d·s·(q - 32)` (6 bits), so codes, scales and biases follow without loss in `f32`; other types round each once.

use std::sync::Arc;

use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::weights::{Derive, TensorData};
use half::f16;

use super::{piece, write};

/// Values in a block.
const BLOCK: usize = 256;

/// A type of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Q4K,
    Q5K,
    Q6K,
}

impl Kind {
    pub(crate) fn named(name: &str) -> Option<Self> {
        [("q4_k", Kind::Q4K), ("q5_k", Kind::Q5K), ("q6_k", Kind::Q6K)].into_iter().find(|(n, _)| *n == name).map(|(_, k)| k)
    }

    /// Name in names of constants.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Kind::Q4K => "q4k",
            Kind::Q5K => "q5k",
            Kind::Q6K => "q6k",
        }
    }

    /// Bits of a code.
    pub(crate) fn bits(self) -> usize {
        match self {
            Kind::Q4K => 4,
            Kind::Q5K => 5,
            Kind::Q6K => 6,
        }
    }

    /// Values that share a scale.
    pub(crate) fn group(self) -> usize {
        if self == Kind::Q6K { 16 } else { 32 }
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Kind::Q4K => 144,
            Kind::Q5K => 176,
            Kind::Q6K => 210,
        }
    }

    /// Code number `i` of a block, unsigned.
    fn code(self, block: &[u8], i: usize) -> u8 {
        let byte = |at: usize| block.get(at).copied().unwrap_or(0);
        let half = |b: u8, high: bool| if high { b >> 4 } else { b & 15 };
        let (sub, l) = (i / 32, i % 32);
        // Of 64 values, 32 are in the low halves of 32 bytes and 32 in the high ones.
        match self {
            Kind::Q4K => half(byte(16 + sub / 2 * 32 + l), sub % 2 == 1),
            Kind::Q5K => half(byte(48 + sub / 2 * 32 + l), sub % 2 == 1) | (byte(16 + l) >> sub & 1) << 4,
            Kind::Q6K => {
                let (part, run) = (i / 128, i % 128 / 32);
                let low = half(byte(part * 64 + run % 2 * 32 + l), run > 1);
                low | (byte(128 + part * 32 + l) >> (2 * run) & 3) << 4
            }
        }
    }

    /// Scale and bias of sub-block `j`.
    fn factors(self, block: &[u8], j: usize) -> (f32, f32) {
        let byte = |at: usize| block.get(at).copied().unwrap_or(0);
        let number = |at: usize| f16::from_le_bytes([byte(at), byte(at + 1)]).to_f32();
        if self == Kind::Q6K {
            let scale = number(208) * f32::from(byte(192 + j) as i8);
            return (scale, -32.0 * scale);
        }
        let s = |i: usize| byte(4 + i);
        let (scale, least) = match j {
            0..4 => (s(j) & 63, s(j + 4) & 63),
            _ => (s(j + 4) & 15 | s(j - 4) >> 6 << 4, s(j + 4) >> 4 | s(j) >> 6 << 4),
        };
        (number(0) * f32::from(scale), -(number(2) * f32::from(least)))
    }
}

/// What of the blocks is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Packed codes; each group takes the room of so many.
    Codes { padded: usize },
    /// A scale for each group.
    Scales(DType),
    /// A bias for each group.
    Biases(DType),
}

struct Unblocked {
    blob: [TensorData; 1],
    kind: Kind,
    part: Part,
}

impl Derive for Unblocked {
    fn recipe(&self) -> String {
        format!("{:?} of {}", self.part, self.kind.tag())
    }

    fn inputs(&self) -> &[TensorData] {
        &self.blob
    }

    fn granule(&self) -> u64 {
        let groups = BLOCK / self.kind.group();
        (match self.part {
            Part::Codes { padded } => groups * padded * self.kind.bits() / 8,
            Part::Scales(t) | Part::Biases(t) => groups * t.size(),
        }) as u64
    }

    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let (kind, made) = (self.kind, self.granule() as usize);
        let bits = kind.bits();
        let mut held = Vec::new();
        let first = offset / made as u64;
        let blocks = piece(&self.blob[0], first * kind.bytes() as u64, out.len() / made * kind.bytes(), &mut held)?;
        for (number, (block, out)) in (first..).zip(blocks.chunks_exact(kind.bytes()).zip(out.chunks_exact_mut(made))) {
            match self.part {
                Part::Codes { padded } => {
                    for (j, out) in out.chunks_exact_mut(padded * bits / 8).enumerate() {
                        out.fill(0);
                        // Eight codes fill `bits` whole bytes.
                        for (eight, bytes) in out.chunks_exact_mut(bits).take(kind.group() / 8).enumerate() {
                            let at = j * kind.group() + eight * 8;
                            let word = (0..8).fold(0u64, |w, i| w | u64::from(kind.code(block, at + i)) << (i * bits));
                            bytes.copy_from_slice(&word.to_le_bytes()[..bits]);
                        }
                    }
                }
                Part::Scales(t) | Part::Biases(t) => {
                    for (j, out) in out.chunks_exact_mut(t.size()).enumerate() {
                        let (scale, bias) = kind.factors(block, j);
                        if !(scale.is_finite() && bias.is_finite()) {
                            let what = format!("block {number} has a scale that is no number");
                            return Err(Error::new(ErrorKind::Weight, what).help("the weight is damaged; convert it again"));
                        }
                        write(t, if matches!(self.part, Part::Scales(_)) { scale } else { bias }, out);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A part of rows of blocks: words of codes `[rows, words]`, or factors `[rows, groups]`.
///
/// # Errors
/// When rows are not whole blocks.
pub(crate) fn unblocked(blob: &TensorData, kind: Kind, part: Part) -> Result<TensorData, Error> {
    let size = kind.bytes() as u64;
    let [rows, bytes] = *blob.shape() else {
        return Err(Error::new(ErrorKind::Weight, format!("blocks of shape {:?}", blob.shape())));
    };
    if blob.dtype() != DType::UInt8 || bytes % size != 0 {
        let what = format!("rows of {bytes} elements {} are not whole blocks of {size} bytes", blob.dtype());
        return Err(Error::new(ErrorKind::Weight, what));
    }
    let recipe = Unblocked { blob: [blob.clone()], kind, part };
    let of_block = recipe.granule();
    let dtype = match part {
        Part::Codes { .. } => DType::UInt32,
        Part::Scales(t) | Part::Biases(t) => t,
    };
    let columns = (bytes / size).saturating_mul(of_block / dtype.size() as u64);
    TensorData::derived(dtype, vec![rows, columns], Arc::new(recipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: Kind) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..kind.bytes()).map(|i| (i * 37 + 11) as u8).collect();
        let d = f16::from_f32(0.25).to_le_bytes();
        match kind {
            Kind::Q6K => bytes[208..210].copy_from_slice(&d),
            _ => (bytes[..2].copy_from_slice(&d), bytes[2..4].copy_from_slice(&d)).1,
        }
        bytes
    }

    /// By the definition of the format, value by value in the order of its storage.
    fn values(kind: Kind, b: &[u8]) -> Vec<f32> {
        let mut out = vec![0.0; 256];
        if kind == Kind::Q6K {
            for half in 0..2 {
                for l in 0..32 {
                    let (a, c, h) = (b[half * 64 + l], b[half * 64 + 32 + l], b[128 + half * 32 + l]);
                    let codes = [a & 15 | (h & 3) << 4, c & 15 | (h >> 2 & 3) << 4, a >> 4 | (h >> 4 & 3) << 4, c >> 4 | (h >> 6) << 4];
                    for (run, q) in codes.into_iter().enumerate() {
                        let scale = b[192 + half * 8 + run * 2 + l / 16] as i8;
                        out[half * 128 + run * 32 + l] = 0.25 * f32::from(scale) * (f32::from(q) - 32.0);
                    }
                }
            }
            return out;
        }
        let codes = if kind == Kind::Q5K { 48 } else { 16 };
        for j in 0..8 {
            let (s, m) = if j < 4 {
                (b[4 + j] & 63, b[8 + j] & 63)
            } else {
                ((b[8 + j] & 15) + (b[j] >> 6) * 16, (b[8 + j] >> 4) + (b[4 + j] >> 6) * 16)
            };
            for l in 0..32 {
                let byte = b[codes + j / 2 * 32 + l];
                let mut q = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
                if kind == Kind::Q5K {
                    q += (b[16 + l] >> j & 1) * 16;
                }
                out[j * 32 + l] = 0.25 * f32::from(s) * f32::from(q) - 0.25 * f32::from(m);
            }
        }
        out
    }

    #[test]
    fn codes_scales_and_biases_give_the_values_of_the_format() {
        for kind in [Kind::Q4K, Kind::Q5K, Kind::Q6K] {
            let bytes = block(kind);
            let blob = TensorData::inline(DType::UInt8, vec![1, bytes.len() as u64], bytes.clone()).unwrap();
            let words = unblocked(&blob, kind, Part::Codes { padded: 32 }).unwrap().to_vec().unwrap();
            let floats = |part| -> Vec<f32> {
                let bytes = unblocked(&blob, kind, part).unwrap().to_vec().unwrap();
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
            };
            let (scales, biases) = (floats(Part::Scales(DType::Float32)), floats(Part::Biases(DType::Float32)));
            for (i, expected) in values(kind, &bytes).into_iter().enumerate() {
                let (group, bits) = (i / kind.group(), kind.bits());
                let first = (group * 32 + i % kind.group()) * bits;
                let code = (0..bits).map(|b| u32::from(words[(first + b) / 8] >> ((first + b) % 8) & 1) << b).sum::<u32>();
                assert_eq!(scales[group] * code as f32 + biases[group], expected, "{kind:?} {i}");
            }
        }
    }

    #[test]
    fn rows_that_are_no_blocks_and_scales_that_are_no_numbers_are_errors() {
        let mut bytes = block(Kind::Q4K);
        let short = TensorData::inline(DType::UInt8, vec![1, 143], bytes[..143].to_vec()).unwrap();
        assert!(unblocked(&short, Kind::Q4K, Part::Codes { padded: 32 }).is_err());
        bytes[..2].copy_from_slice(&f16::NAN.to_le_bytes());
        let blob = TensorData::inline(DType::UInt8, vec![1, 144], bytes).unwrap();
        let scales = unblocked(&blob, Kind::Q4K, Part::Scales(DType::Float16)).unwrap();
        assert!(scales.to_vec().unwrap_err().to_string().contains("block 0"));
    }
}
