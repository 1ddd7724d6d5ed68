//! Quantised matrices (mlx-ops.md §4, mlx-patterns.md §2 to §5): packed codes with a scale, and in mode "affine" a bias,
//! for each group of consecutive elements of a row. They are unpacked panel by panel as a product needs them, or, where
//! few rows meet them, multiplied as they are packed.

mod codes;
mod integer;
mod packed;

use etx_ir::DType;
use rayon::prelude::*;

use super::dtype::{cast, dispatch, promote_all};
use super::lanes::Compute;
use super::matmul::{Pairs, bounded_shape, matrix_at, result_type};
use super::matrix::{Strided, product};
use super::simd::Float;
use crate::engine::Quantized;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, broadcast_shapes};
use codes::{Affine, Codes, E2m1, E4m3};
use packed::{Packed, Turned};

/// What the codes of a matrix mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// `scale·code + bias`.
    Affine,
    /// E2M1 codes, E4M3 scales.
    Nvfp4,
    /// E2M1 codes, scales that are powers of two.
    Mxfp4,
    /// E4M3 codes, scales that are powers of two.
    Mxfp8,
}

/// Runs `$body` with `$C` the type of the codes of `$format`.
macro_rules! with_codes {
    ($format:expr, $C:ident => $body:expr) => {
        match ($format.mode, $format.bits) {
            (Mode::Affine, 2) => with_codes!(@ $C, Affine<2>, $body),
            (Mode::Affine, 3) => with_codes!(@ $C, Affine<3>, $body),
            (Mode::Affine, 4) => with_codes!(@ $C, Affine<4>, $body),
            (Mode::Affine, 5) => with_codes!(@ $C, Affine<5>, $body),
            (Mode::Affine, 6) => with_codes!(@ $C, Affine<6>, $body),
            (Mode::Affine, _) => with_codes!(@ $C, Affine<8>, $body),
            (Mode::Nvfp4 | Mode::Mxfp4, _) => with_codes!(@ $C, E2m1, $body),
            (Mode::Mxfp8, _) => with_codes!(@ $C, E4m3, $body),
        }
    };
    (@ $C:ident, $codes:ty, $body:expr) => {{
        type $C = $codes;
        $body
    }};
}

/// Mode, bits of a code, elements of a group.
#[derive(Clone, Copy, Debug)]
struct Format {
    mode: Mode,
    bits: usize,
    group: usize,
}

impl Format {
    fn new(w: &Quantized<'_, Tensor>) -> Result<Self> {
        let (mode, bits, groups): (_, &[i32], &[i32]) = match w.mode {
            "affine" => (Mode::Affine, &[2, 3, 4, 5, 6, 8], &[16, 32, 64, 128]),
            "nvfp4" => (Mode::Nvfp4, &[4], &[16]),
            "mxfp4" => (Mode::Mxfp4, &[4], &[32]),
            "mxfp8" => (Mode::Mxfp8, &[8], &[32]),
            other => return Err(Error::unsupported(format!("quantisation mode \"{other}\""))),
        };
        if !bits.contains(&w.bits) || !groups.contains(&w.group_size) {
            let what = format!("{} bits in groups of {}", w.bits, w.group_size);
            return Err(Error::unsupported(format!("mode \"{}\" with {what}: it has {bits:?} bits and groups of {groups:?}", w.mode)));
        }
        if (mode == Mode::Affine) != w.biases.is_some() {
            return Err(Error::argument(format!("mode \"{}\" {} biases", w.mode, if w.biases.is_some() { "has no" } else { "needs" })));
        }
        Ok(Format { mode, bits: w.bits as usize, group: w.group_size as usize })
    }

    /// A scale from its byte; `None` if scales are floats.
    fn scale(self) -> Option<fn(u8) -> f32> {
        match self.mode {
            Mode::Affine => None,
            Mode::Nvfp4 => Some(codes::e4m3),
            Mode::Mxfp4 | Mode::Mxfp8 => Some(codes::e8m0),
        }
    }
}

/// A checked quantised tensor, row-major.
struct Operand {
    format: Format,
    w: Tensor,
    scales: Tensor,
    biases: Option<Tensor>,
    /// Elements in a row.
    width: usize,
}

impl Operand {
    fn new(q: &Quantized<'_, Tensor>) -> Result<Self> {
        let format = Format::new(q)?;
        let bad = |why: &str| {
            let shapes = format!("{:?} with scales {:?} and biases {:?}", q.w.shape(), q.scales.shape(), q.biases.map(Tensor::shape));
            Error::shape(format!("quantised elements {shapes}, {} bits in groups of {}: {why}", q.bits, q.group_size))
        };
        if q.w.dtype() != DType::UInt32 || q.w.rank() < 2 {
            return Err(Error::dtype(format!("quantised elements are u32 of rank 2 or more, found {}{:?}", q.w.dtype(), q.w.shape())));
        }
        let scales_fit = if format.scale().is_some() { q.scales.dtype() == DType::UInt8 } else { q.scales.dtype().is_float() };
        if !scales_fit || q.biases.is_some_and(|b| !b.dtype().is_float()) {
            return Err(Error::dtype(format!("mode \"{}\" with scales of {} elements", q.mode, q.scales.dtype())));
        }
        let words = q.w.shape()[q.w.rank() - 1];
        let bits = words.checked_mul(32).ok_or_else(|| bad("the row overflows"))?;
        let width = bits / format.bits;
        let mut expected = q.w.shape().to_vec();
        if let Some(last) = expected.last_mut() {
            *last = width / format.group;
        }
        if bits % format.bits != 0 || width % format.group != 0 || q.scales.shape() != expected {
            return Err(bad("there must be one scale for each whole group"));
        }
        if q.biases.is_some_and(|b| b.shape() != expected) {
            return Err(bad("there must be one bias for each scale"));
        }
        let biases = q.biases.map(Tensor::contiguous).transpose()?;
        Ok(Operand { format, w: q.w.contiguous()?, scales: q.scales.contiguous()?, biases, width })
    }

    fn with<R>(&self, w: &Tensor, scales: &Tensor, biases: Option<&Tensor>, f: impl FnOnce(Parts<'_>) -> Result<R>) -> Result<R> {
        let words = w.as_slice::<u32>()?.ok_or_else(|| Error::dtype("packed words are not dense"))?;
        let scales = Factors::new(scales, self.format)?;
        let biases = biases.map(|b| Factors::new(b, self.format)).transpose()?;
        f(Parts { words, scales, biases, width: self.width, group: self.format.group })
    }

    /// `out = x @ wᵀ`, or `x @ w`, for the matrix at `index` of the batch axes and rows of `x`.
    fn multiply<T: Float>(&self, index: usize, x: &Tensor, transpose: bool, out: Vec<&mut [T]>) -> Result<()> {
        let at = |t: &Tensor| matrix_at(t, index);
        let biases = self.biases.as_ref().map(at).transpose()?;
        self.with(&at(&self.w)?, &at(&self.scales)?, biases.as_ref(), |parts| {
            dispatch!(float, "a quantised product", x.dtype(), S => {
                let axis = |i: usize| (x.shape()[i], x.strides()[i]);
                let a = Strided::<S>::new(x.storage_elements(), x.offset(), axis(0), axis(1));
                with_codes!(self.format, C => {
                    if transpose {
                        product(&a, &Packed::<C>::new(parts), out, &|_, _, _| {});
                    } else {
                        product(&a, &Turned::<C>::new(parts), out, &|_, _, _| {});
                    }
                });
                Ok(())
            })
        })
    }

    /// Rows of the product and of the sum, whichever way round.
    fn sizes(&self, transpose: bool) -> (usize, usize) {
        let rows = self.w.shape()[self.w.rank() - 2];
        if transpose { (rows, self.width) } else { (self.width, rows) }
    }

    /// Type of a product with `x`.
    fn result(&self, x: &Tensor) -> Result<DType> {
        match self.format.mode {
            Mode::Affine => result_type("a quantised product", [x, &self.scales].into_iter().chain(&self.biases)),
            _ => result_type("a quantised product", [x]),
        }
    }
}

/// Scales or biases, as they are stored.
#[derive(Clone, Copy)]
enum Factors<'a> {
    F32(&'a [f32]),
    F16(&'a [half::f16]),
    BF16(&'a [half::bf16]),
    Bytes(&'a [u8], fn(u8) -> f32),
}

impl<'a> Factors<'a> {
    fn new(t: &'a Tensor, format: Format) -> Result<Self> {
        let dense = || Error::dtype("scales are not dense");
        Ok(match (t.dtype(), format.scale()) {
            (DType::UInt8, Some(decode)) => Factors::Bytes(t.as_slice()?.ok_or_else(dense)?, decode),
            (DType::Float16, _) => Factors::F16(t.as_slice()?.ok_or_else(dense)?),
            (DType::BFloat16, _) => Factors::BF16(t.as_slice()?.ok_or_else(dense)?),
            _ => Factors::F32(t.as_slice()?.ok_or_else(dense)?),
        })
    }

    /// Writes factors `start`, `start + 1`, ….
    fn read(&self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match self {
            Factors::F32(all) => out.copy_from_slice(&all[range]),
            Factors::F16(all) => Float::widen_to(&all[range], out),
            Factors::BF16(all) => Float::widen_to(&all[range], out),
            Factors::Bytes(all, decode) => {
                for (o, v) in out.iter_mut().zip(&all[range]) {
                    *o = decode(*v);
                }
            }
        }
    }
}

/// One quantised matrix.
#[derive(Clone, Copy)]
struct Parts<'a> {
    words: &'a [u32],
    scales: Factors<'a>,
    biases: Option<Factors<'a>>,
    /// Elements in a row.
    width: usize,
    group: usize,
}

/// `x @ wᵀ` (or `x @ w`) for a quantised `w` `[…, rows, packed]`.
pub(crate) fn quantized_matmul(x: &Tensor, w: Quantized<'_, Tensor>, transpose: bool) -> Result<Tensor> {
    let w = Operand::new(&w)?;
    let dtype = w.result(x)?;
    let (cols, depth) = w.sizes(transpose);
    let x = super::matmul::float(x, dtype)?;
    let Some((&last, lead)) = x.shape().split_last() else {
        return Err(Error::shape("a quantised product of rank 0"));
    };
    if last != depth {
        return Err(Error::shape(format!("{:?} does not multiply with {cols} quantised rows of {depth}", x.shape())));
    }
    let batch_w = &w.w.shape()[..w.w.rank() - 2];
    if batch_w.is_empty() {
        let shape: Vec<usize> = lead.iter().copied().chain([cols]).collect();
        let rows = x.reshape(&[lead.iter().product(), depth])?;
        return dispatch!(float, "QuantizedMatmul", dtype, T => Tensor::build::<T>(&shape, |out| {
            if out.is_empty() { Ok(()) } else { w.multiply(0, &rows, transpose, out.chunks_exact_mut(cols).collect()) }
        }));
    }
    let Some((&rows, batch_x)) = lead.split_last() else {
        return Err(Error::shape(format!("{:?} does not multiply with batches {batch_w:?} of quantised matrices", x.shape())));
    };
    let batch = broadcast_shapes(&[batch_x, batch_w])?;
    bounded_shape(batch_w, DType::Int64)?;
    bounded_shape(&batch, DType::Int64)?;
    let with = |tail: &[usize]| batch.iter().chain(tail).copied().collect::<Vec<_>>();
    let x = x.broadcast_to(&with(&[rows, depth]))?;
    let indices = Tensor::from_slice(batch_w, &(0..batch_w.iter().product::<usize>() as i64).collect::<Vec<_>>())?;
    let indices = indices.broadcast_to(&batch)?.values::<i64>()?.into_owned();
    dispatch!(float, "QuantizedMatmul", dtype, T => Tensor::build::<T>(&with(&[rows, cols]), |out| {
        if out.is_empty() {
            return Ok(());
        }
        out.par_chunks_mut(rows * cols).zip(indices).enumerate().try_for_each(|(i, (out, index))| {
            w.multiply(index as usize, &matrix_at(&x, i)?, transpose, out.chunks_exact_mut(cols).collect())
        })
    }))
}

/// [`gather_mm`](super::matmul::gather_mm) with quantised matrices on the right.
pub(crate) fn gather_qmm(
    x: &Tensor,
    w: Quantized<'_, Tensor>,
    lhs: Option<&Tensor>,
    rhs: Option<&Tensor>,
    transpose: bool,
) -> Result<Tensor> {
    if lhs.is_none() && rhs.is_none() {
        return quantized_matmul(x, w, transpose);
    }
    let w = Operand::new(&w)?;
    let dtype = w.result(x)?;
    let (cols, depth) = w.sizes(transpose);
    let x = super::matmul::float(x, dtype)?;
    let &[ref batch_x @ .., rows, last] = x.shape() else {
        return Err(Error::shape(format!("GatherQmm takes matrices, found {:?}", x.shape())));
    };
    if last != depth {
        return Err(Error::shape(format!("{:?} does not multiply with {cols} quantised rows of {depth}", x.shape())));
    }
    let pairs = Pairs::new(batch_x, &w.w.shape()[..w.w.rank() - 2], lhs, rhs)?;
    dispatch!(float, "GatherQmm", dtype, T => {
        pairs.multiply::<T>(&x, (rows, cols), |index, x, out| w.multiply(index, x, transpose, out))
    })
}

/// The elements that quantised ones stand for, in type `dtype`: by default that of the scales, or `bf16` if those are
/// bytes. Affine elements are computed in the type of scales and biases, rounding after each step as MLX does.
pub(crate) fn dequantize(w: Quantized<'_, Tensor>, global_scale: Option<&Tensor>, dtype: Option<DType>) -> Result<Tensor> {
    let operand = Operand::new(&w)?;
    let (format, width) = (operand.format, operand.width);
    let global = match global_scale {
        Some(_) if format.mode != Mode::Nvfp4 => return Err(Error::unsupported(format!("a global scale in mode \"{}\"", w.mode))),
        Some(scale) => cast(scale, DType::Float32)?.item::<f32>()?,
        None => 1.0,
    };
    let steps = match format.mode {
        Mode::Affine => promote_all([&operand.scales].into_iter().chain(&operand.biases))?,
        _ => dtype.filter(|d| d.is_float()).unwrap_or(DType::BFloat16),
    };
    let mut shape = operand.w.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = width;
    }
    let whole = dispatch!(float, "Dequantize", steps, T => Tensor::build::<T>(&shape, |out| {
        if out.is_empty() {
            return Ok(());
        }
        operand.with(&operand.w, &operand.scales, operand.biases.as_ref(), |parts| {
            with_codes!(format, C => out.par_chunks_mut(width).enumerate().for_each(|(row, out)| {
                dequantize_row::<C, T>(&parts, row, global, out);
            }));
            Ok(())
        })
    }))?;
    cast(&whole, dtype.unwrap_or(steps))
}

fn dequantize_row<C: Codes, T: Float>(parts: &Parts<'_>, row: usize, global: f32, out: &mut [T]) {
    let (groups, words) = (parts.width / parts.group, parts.width * C::BITS / 32);
    let mut values = vec![0f32; parts.width];
    let mut factors = vec![0f32; 2 * groups];
    let (scales, biases) = factors.split_at_mut(groups);
    codes::unpack::<C>(&parts.words[row * words..][..words], 0, &mut values);
    parts.scales.read(row * groups, scales);
    if let Some(stored) = parts.biases {
        stored.read(row * groups, biases);
    }
    for ((values, scale), bias) in values.chunks_exact_mut(parts.group).zip(&*scales).zip(&*biases) {
        match parts.biases {
            Some(_) => values.iter_mut().for_each(|v| *v = <T as Compute>::rounded(*v * scale) + bias),
            None => values.iter_mut().for_each(|v| *v *= scale * global),
        }
    }
    T::round_to(&values, out);
}

#[cfg(test)]
mod tests;
