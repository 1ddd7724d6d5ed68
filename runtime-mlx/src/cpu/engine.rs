//! The kernels, as the interpreter calls them.

use etx_ir::DType;

use super::{attention, binary, conv, dtype, index, kernels, matmul, norm, quant, random, reduce, rope, shape, sort, unary};
use crate::engine::{Binary, Conv, Engine, Kernel, Quantized, Reduce, Rope, Unary};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, normalise_axis};

/// The engine in pure Rust.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

fn wide(axes: &[i32]) -> Vec<i64> {
    axes.iter().map(|&a| i64::from(a)).collect()
}

impl Engine for Cpu {
    type Array = Tensor;

    fn session<R: Send>(work: impl FnOnce() -> R + Send) -> R {
        super::threads::awake(work)
    }

    fn upload(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.clone())
    }
    fn download(&self, array: &Tensor) -> Result<Tensor> {
        Ok(array.clone())
    }
    fn shape(&self, x: &Tensor) -> Vec<usize> {
        x.shape().to_vec()
    }
    fn dtype(&self, x: &Tensor) -> DType {
        x.dtype()
    }
    fn item_int(&self, x: &Tensor) -> Result<i64> {
        // Before the cast: a large operand must not be converted only to be refused.
        if x.numel() != 1 {
            return Err(Error::shape(format!("one element expected, found shape {:?}", x.shape())));
        }
        // The delegate reads four bytes as an integer, whatever they are. (Of narrower integers it reads what lies behind as well, which is
        // zero more often than not; files of ExecuTorch's exporter rely on it.)
        match x.dtype() {
            DType::Float32 => Ok(i64::from(x.item::<f32>()?.to_bits() as i32)),
            t if t.is_float() => Err(Error::dtype(format!("the delegate reads four bytes, of which {t} has fewer"))),
            _ => dtype::cast(x, DType::Int64)?.item(),
        }
    }

    fn unary(&self, op: Unary, x: &Tensor) -> Result<Tensor> {
        unary::unary(op, x)
    }
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        binary::binary(op, a, b)
    }
    fn reduce(&self, op: Reduce, x: &Tensor, axes: &[i32], keepdims: bool) -> Result<Tensor> {
        reduce::reduce(op, x, axes, keepdims)
    }
    fn variance(&self, x: &Tensor, axes: &[i32], keepdims: bool, ddof: i32, root: bool) -> Result<Tensor> {
        reduce::variance(x, axes, keepdims, ddof, root)
    }
    fn arg_extreme(&self, x: &Tensor, axis: i32, keepdims: bool, largest: bool) -> Result<Tensor> {
        reduce::arg_extreme(x, axis, keepdims, largest)
    }
    fn cumsum(&self, x: &Tensor, axis: i32, reverse: bool, inclusive: bool) -> Result<Tensor> {
        reduce::cumsum(x, axis, reverse, inclusive)
    }
    fn softmax(&self, x: &Tensor, axis: i32, _precise: bool) -> Result<Tensor> {
        norm::softmax(x, axis)
    }
    fn round(&self, x: &Tensor, decimals: i32) -> Result<Tensor> {
        unary::round(x, decimals)
    }
    fn gelu(&self, x: &Tensor, approximate: &str) -> Result<Tensor> {
        unary::gelu(x, approximate)
    }
    fn select(&self, condition: &Tensor, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        binary::select(condition, x, y)
    }
    fn clip(&self, x: &Tensor, low: Option<&Tensor>, high: Option<&Tensor>) -> Result<Tensor> {
        binary::clip(x, low, high)
    }
    fn cast(&self, x: &Tensor, to: DType) -> Result<Tensor> {
        dtype::cast(x, to)
    }

    fn contiguous(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()
    }
    fn reshape(&self, x: &Tensor, to: &[i64]) -> Result<Tensor> {
        shape::reshape(x, to)
    }
    fn transpose(&self, x: &Tensor, perm: &[i32]) -> Result<Tensor> {
        x.transpose(&wide(perm))
    }
    fn expand_dims(&self, x: &Tensor, axis: i32) -> Result<Tensor> {
        x.expand_dims(i64::from(axis))
    }
    fn squeeze(&self, x: &Tensor, dims: &[i32]) -> Result<Tensor> {
        shape::squeeze(x, dims)
    }
    fn broadcast_to(&self, x: &Tensor, to: &[i64]) -> Result<Tensor> {
        shape::broadcast_to(x, to)
    }
    fn as_strided(&self, x: &Tensor, to: &[i64], strides: &[i64], offset: u64) -> Result<Tensor> {
        shape::as_strided(x, to, strides, offset)
    }
    fn tile(&self, x: &Tensor, reps: &[i64]) -> Result<Tensor> {
        shape::tile(x, reps)
    }
    fn repeat(&self, x: &Tensor, repeats: i64, axis: i32) -> Result<Tensor> {
        shape::repeat(x, repeats, axis)
    }
    fn concatenate(&self, parts: &[Tensor], axis: i32) -> Result<Tensor> {
        shape::concatenate(parts, axis)
    }
    fn stack(&self, parts: &[Tensor], axis: i32) -> Result<Tensor> {
        shape::stack(parts, axis)
    }
    fn split(&self, x: &Tensor, sizes: &[i64], axis: i32, pieces: usize) -> Result<Vec<Tensor>> {
        shape::split(x, sizes, axis, pieces)
    }
    fn pad(&self, x: &Tensor, widths: &[i64], mode: &str, value: f32) -> Result<Tensor> {
        shape::pad(x, widths, mode, value)
    }
    fn roll(&self, x: &Tensor, shifts: &[i64], axes: &[i32]) -> Result<Tensor> {
        shape::roll(x, shifts, axes)
    }
    fn flip(&self, x: &Tensor, axes: &[i32]) -> Result<Tensor> {
        shape::flip(x, axes)
    }
    fn slice(&self, x: &Tensor, axis: i64, start: i64, stop: i64, step: i32) -> Result<Tensor> {
        shape::slice(x, axis, start, stop, step)
    }
    fn slice_update(&self, dst: &mut Tensor, update: &Tensor, axis: i64, bounds: (i64, i64), step: i32) -> Result<()> {
        shape::slice_update(dst, update, axis, bounds, step)
    }
    fn index_copy(&self, dst: &mut Tensor, update: &Tensor, indices: &Tensor, axis: i32) -> Result<()> {
        shape::index_copy(dst, update, indices, axis)
    }

    fn take_at(&self, x: &Tensor, at: i64, axis: i32) -> Result<Tensor> {
        let axis = normalise_axis(i64::from(axis), x.rank())?;
        x.select(axis, index::index(at, x.shape()[axis])?)
    }
    fn take(&self, x: &Tensor, indices: &Tensor, axis: i32) -> Result<Tensor> {
        index::take(x, indices, axis)
    }
    fn take_along_axis(&self, x: &Tensor, indices: &Tensor, axis: i32) -> Result<Tensor> {
        index::take_along_axis(x, indices, axis)
    }
    fn gather(&self, x: &Tensor, indices: &[Tensor], axes: &[i32], slice_sizes: &[i32]) -> Result<Tensor> {
        index::gather(x, indices, axes, slice_sizes)
    }
    fn scatter_add(&self, x: &Tensor, indices: &Tensor, updates: &Tensor, axis: i32) -> Result<Tensor> {
        index::scatter_add(x, indices, updates, axis)
    }

    fn full(&self, to: &[i64], value: f32, of: DType) -> Result<Tensor> {
        shape::full(&shape::sizes(to)?, value, of)
    }
    fn arange(&self, start: i64, stop: i64, step: i64, of: DType) -> Result<Tensor> {
        shape::arange(start, stop, step, of)
    }
    fn triangle(&self, x: &Tensor, k: i32, upper: bool) -> Result<Tensor> {
        shape::triangle(x, k, upper)
    }
    fn random_bits(&self, to: &[i64], seed: Option<i64>, width: i32) -> Result<Tensor> {
        random::random_bits(&shape::sizes(to)?, seed, width)
    }

    fn sort(&self, x: &Tensor, axis: i32) -> Result<Tensor> {
        sort::sort(x, axis)
    }
    fn argsort(&self, x: &Tensor, axis: i32) -> Result<Tensor> {
        sort::argsort(x, axis)
    }
    fn partition(&self, x: &Tensor, kth: i64, axis: i32) -> Result<Tensor> {
        sort::partition(x, kth, axis)
    }
    fn arg_partition(&self, x: &Tensor, kth: i64, axis: i32) -> Result<Tensor> {
        sort::arg_partition(x, kth, axis)
    }

    fn addmm(&self, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, alpha: f32, beta: f32) -> Result<Tensor> {
        matmul::addmm(a, b, bias, alpha, beta)
    }
    fn gather_mm(&self, a: &Tensor, b: &Tensor, lhs: Option<&Tensor>, rhs: Option<&Tensor>) -> Result<Tensor> {
        matmul::gather_mm(a, b, lhs, rhs)
    }
    fn quantized_matmul(&self, x: &Tensor, w: Quantized<'_, Tensor>, transpose: bool) -> Result<Tensor> {
        quant::quantized_matmul(x, w, transpose)
    }
    fn gather_qmm(
        &self,
        x: &Tensor,
        w: Quantized<'_, Tensor>,
        lhs: Option<&Tensor>,
        rhs: Option<&Tensor>,
        transpose: bool,
    ) -> Result<Tensor> {
        quant::gather_qmm(x, w, lhs, rhs, transpose)
    }
    fn dequantize(&self, w: Quantized<'_, Tensor>, global_scale: Option<&Tensor>, dtype: Option<DType>) -> Result<Tensor> {
        quant::dequantize(w, global_scale, dtype)
    }

    fn conv(&self, x: &Tensor, w: &Tensor, geometry: &Conv) -> Result<Tensor> {
        conv::conv(x, w, geometry)
    }
    fn conv_transpose(&self, x: &Tensor, w: &Tensor, geometry: &Conv, output_padding: &[i64]) -> Result<Tensor> {
        conv::conv_transpose(x, w, geometry, output_padding)
    }

    fn rms_norm(&self, x: &Tensor, weight: Option<&Tensor>, eps: f32) -> Result<Tensor> {
        norm::rms_norm(x, weight, eps)
    }
    fn layer_norm(&self, x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
        norm::layer_norm(x, weight, bias, eps)
    }
    fn rope(&self, x: &Tensor, how: Rope<'_, Tensor>) -> Result<Tensor> {
        rope::rope(x, how)
    }
    fn sdpa(&self, q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, mask: Option<&Tensor>, causal: bool) -> Result<Tensor> {
        attention::sdpa(q, k, v, scale, mask, causal)
    }

    fn metal_kernel(&self, kernel: &Kernel<'_, Tensor>) -> Result<Vec<Tensor>> {
        kernels::run(kernel)
    }
}
