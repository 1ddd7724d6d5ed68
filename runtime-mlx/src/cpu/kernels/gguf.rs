//! Weights in the blocks of GGUF files (mlx-patterns.md §6; the layouts are those of the ggml library): super-blocks of
//! 256 elements, read as they are.

use std::ops::Range;

use bytemuck::Zeroable;
use etx_ir::DType;
use half::f16;
use rayon::prelude::*;

use super::super::dtype::{cast, dispatch};
use super::super::index::indices;
use super::super::matrix::{Matrix, Strided, few_by_panels, product};
use super::super::simd::Float;
use super::Call;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Elements of a super-block.
const BLOCK: usize = 256;

/// A kind of super-block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Q4K,
    Q5K,
    Q6K,
}

impl Kind {
    /// The kind and the operation in the name of a kernel.
    pub(super) fn named(name: &str) -> Option<(Kind, &str)> {
        let (kind, operation) = name.strip_prefix("gguf_")?.split_once('_')?;
        let kind = match kind {
            "q4k" => Kind::Q4K,
            "q5k" => Kind::Q5K,
            "q6k" => Kind::Q6K,
            _ => return None,
        };
        matches!(operation, "matvec" | "matmul" | "embedding").then_some((kind, operation))
    }

    const fn bytes(self) -> usize {
        match self {
            Kind::Q4K => 144,
            Kind::Q5K => 176,
            Kind::Q6K => 210,
        }
    }

    /// Writes the elements of one super-block.
    fn unpack(self, block: &[u8], out: &mut [f32; BLOCK]) {
        match self {
            Kind::Q4K => unpack_with_minima(&block[..16], None, &block[16..], out),
            Kind::Q5K => unpack_with_minima(&block[..16], Some(&block[16..48]), &block[48..], out),
            Kind::Q6K => unpack_q6k(block, out),
        }
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// `d·scale·q - dmin·minimum` for eight runs of 32: `head` is `d`, `dmin` and eight pairs of six bits; `low` holds the
/// low four bits of two runs in each 32 bytes; `high` the fifth bit of run `i` in bit `i` of 32 bytes.
fn unpack_with_minima(head: &[u8], high: Option<&[u8]>, low: &[u8], out: &mut [f32; BLOCK]) {
    let (d, dmin, s) = (half_at(head, 0), half_at(head, 2), &head[4..16]);
    for (run, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, minimum) = if run < 4 {
            (s[run] & 63, s[run + 4] & 63)
        } else {
            (s[run + 4] & 15 | (s[run - 4] >> 6) << 4, s[run + 4] >> 4 | (s[run] >> 6) << 4)
        };
        let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        let low = &low[run / 2 * 32..][..32];
        for (i, o) in out.iter_mut().enumerate() {
            let four = if run % 2 == 0 { low[i] & 15 } else { low[i] >> 4 };
            let fifth = high.map_or(0, |high| (high[i] >> run & 1) << 4);
            *o = scale * f32::from(four | fifth) - minimum;
        }
    }
}

/// `d·scale·(q - 32)` for sixteen runs of 16: 128 bytes of low four bits, 64 of upper two bits, the scales, `d`.
fn unpack_q6k(block: &[u8], out: &mut [f32; BLOCK]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (i, o) in out.iter_mut().enumerate() {
        // Which half of the block, which quarter of that, which place in the quarter.
        let (half, quarter, place) = (i / 128, i % 128 / 32, i % 32);
        let byte = low[half * 64 + quarter % 2 * 32 + place];
        let four = if quarter < 2 { byte & 15 } else { byte >> 4 };
        let two = high[half * 32 + place] >> (2 * quarter) & 3;
        let scale = f32::from(scales[i / 16] as i8);
        *o = d * scale * (f32::from(four | two << 4) - 32.0);
    }
}

/// Rows of super-blocks.
struct Blocks<'a> {
    kind: Kind,
    bytes: &'a [u8],
    row_bytes: usize,
}

impl<'a> Blocks<'a> {
    /// The rows of a dense `u8` tensor of rank 2.
    fn new(call: &Call<'_>, weight: &'a Tensor, kind: Kind) -> Result<Self> {
        match (weight.shape(), weight.dtype()) {
            (&[_, row_bytes], DType::UInt8) if row_bytes > 0 && row_bytes % kind.bytes() == 0 => {
                let bytes = weight.as_slice::<u8>()?.ok_or_else(|| Error::dtype("a dense tensor is not dense"))?;
                Ok(Blocks { kind, bytes, row_bytes })
            }
            _ => Err(call.misfit()),
        }
    }

    /// Writes elements `range` of a row.
    fn read(&self, row: usize, range: Range<usize>, out: &mut [f32]) {
        let row = &self.bytes[row * self.row_bytes..][..self.row_bytes];
        let mut whole = [0f32; BLOCK];
        let mut at = range.start;
        while at < range.end {
            let (block, from) = (at / BLOCK, at % BLOCK);
            let len = (BLOCK - from).min(range.end - at);
            self.kind.unpack(&row[block * self.kind.bytes()..][..self.kind.bytes()], &mut whole);
            out[at - range.start..][..len].copy_from_slice(&whole[from..from + len]);
            at += len;
        }
    }
}

impl Matrix for Blocks<'_> {
    fn outer(&self) -> usize {
        self.bytes.len() / self.row_bytes
    }

    fn depth(&self) -> usize {
        self.row_bytes / self.kind.bytes() * BLOCK
    }

    fn k_inner(&self) -> bool {
        true
    }

    fn panel(&self, outer: Range<usize>, k: Range<usize>, out: &mut [f32]) {
        for (row, out) in outer.zip(out.chunks_exact_mut(k.len())) {
            self.read(row, k.clone(), out);
        }
    }

    fn few(&self, outer: Range<usize>, x: &[f32], out: &mut [f32]) {
        few_by_panels(self, outer, x, out);
    }
}

/// `x @ weightᵀ`, plus a bias if there is one.
pub(super) fn linear(call: &Call<'_>, kind: Kind) -> Result<Tensor> {
    let (x, weight, bias) = match call.0.inputs.as_slice() {
        [x, weight] => (x, weight, None),
        [x, weight, bias] => (x, weight, Some(super::floats(bias)?)),
        inputs => return Err(Error::argument(format!("{} operands, not 2 or 3", inputs.len()))),
    };
    let [(shape, dtype)] = call.outputs()?;
    let weight = weight.contiguous()?;
    let blocks = Blocks::new(call, &weight, kind)?;
    let (cols, depth) = (blocks.outer(), blocks.depth());
    let expected: Vec<usize> = x.shape().split_last().map(|(_, lead)| lead.iter().copied().chain([cols]).collect()).unwrap_or_default();
    if x.shape().last() != Some(&depth) || shape != expected || bias.as_ref().is_some_and(|b| b.len() != cols) {
        return Err(call.misfit());
    }
    let rows = x.numel() / depth;
    let x = x.reshape(&[rows, depth])?;
    let add = |_: usize, col: usize, sums: &mut [f32]| {
        if let Some(bias) = &bias {
            sums.iter_mut().zip(&bias[col..]).for_each(|(sum, bias)| *sum += bias);
        }
    };
    dispatch!(float, "a GGUF product", x.dtype(), S => dispatch!(float, "a GGUF product", dtype, T => {
        let a = Strided::<S>::new(x.storage_elements(), x.offset(), (rows, x.strides()[0]), (depth, x.strides()[1]));
        Tensor::build::<T>(&shape, |out| {
            if !out.is_empty() {
                product(&a, &blocks, out.chunks_exact_mut(cols).collect(), &add);
            }
            Ok(())
        })
    }))
}

/// The rows at some indices.
pub(super) fn embedding(call: &Call<'_>, kind: Kind) -> Result<Tensor> {
    let [weight, rows] = call.inputs()?;
    let [(shape, dtype)] = call.outputs()?;
    let weight = weight.contiguous()?;
    let blocks = Blocks::new(call, &weight, kind)?;
    let depth = blocks.depth();
    if shape != rows.shape().iter().copied().chain([depth]).collect::<Vec<_>>() {
        return Err(call.misfit());
    }
    let rows = indices(&cast(rows, DType::Int64)?, blocks.outer())?;
    dispatch!(float, "a GGUF embedding", dtype, T => Tensor::build::<T>(&shape, |out| {
        out.par_chunks_exact_mut(depth).zip(&rows).for_each_init(|| vec![f32::zeroed(); depth], |wide, (out, &row)| {
            blocks.read(row, 0..depth, wide);
            T::round_to(wide, out);
        });
        Ok(())
    }))
}
