//! Equivalents of the kernels that the reference's lowering writes into programs as Metal source (mlx-ops.md §2.15,
//! mlx-patterns.md §6 and §8). They are recognised by name; sizes come from the operands and are checked.

mod gguf;

use bytemuck::Zeroable;
use etx_ir::DType;
use pulp::Arch;
use rayon::prelude::*;

use super::dtype::{cast, dispatch};
use super::shape::sizes;
use super::simd::Float;
use super::vector;
use crate::engine::Kernel;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use gguf::Kind;

/// Runs a kernel.
pub(super) fn run(kernel: &Kernel<'_, Tensor>) -> Result<Vec<Tensor>> {
    let call = Call(kernel);
    let outputs = match kernel.name {
        "gated_delta_step" => gated_delta_step(&call),
        "tq_norm" => Ok(vec![tq_norm(&call)?]),
        "tq4_compress" => Ok(vec![tq4_compress(&call)?]),
        "tq_dequant" => Ok(vec![tq_dequant(&call)?]),
        name => match Kind::named(name) {
            Some((kind, "embedding")) => Ok(vec![gguf::embedding(&call, kind)?]),
            Some((kind, _)) => Ok(vec![gguf::linear(&call, kind)?]),
            None => Err(Error::unsupported(format!(
                "the Metal kernel `{name}` runs on Apple GPUs only: the cpu engine has equivalents of gated_delta_step, tq_norm, \
                 tq4_compress, tq_dequant and gguf_{{q4k,q5k,q6k}}_{{matvec,matmul,embedding}}"
            ))),
        },
    };
    outputs.map_err(|e| e.within(format!("kernel {}", kernel.name)))
}

/// A call, with checks.
struct Call<'a>(&'a Kernel<'a, Tensor>);

impl Call<'_> {
    fn inputs<const N: usize>(&self) -> Result<[&Tensor; N]> {
        let inputs: Vec<&Tensor> = self.0.inputs.iter().collect();
        let count = inputs.len();
        inputs.try_into().map_err(|_| Error::argument(format!("{count} operands, not {N}")))
    }

    /// Shape and type of the results, which must be `N`.
    fn outputs<const N: usize>(&self) -> Result<[(Vec<usize>, DType); N]> {
        let outputs = self.0.outputs.iter().map(|(shape, dtype)| Ok((sizes(shape)?, *dtype))).collect::<Result<Vec<_>>>()?;
        let count = outputs.len();
        outputs.try_into().map_err(|_| Error::argument(format!("{count} results, not {N}")))
    }

    fn misfit(&self) -> Error {
        let inputs: Vec<_> = self.0.inputs.iter().map(|x| format!("{}{:?}", x.dtype(), x.shape())).collect();
        Error::shape(format!("operands {} do not fit results {:?}", inputs.join(", "), self.0.outputs))
    }
}

/// The values as `f32`, in order.
fn floats(x: &Tensor) -> Result<Vec<f32>> {
    Ok(cast(x, DType::Float32)?.values::<f32>()?.into_owned())
}

/// A tensor of `dtype` from `f32` values.
fn rounded(shape: &[usize], values: &[f32], dtype: DType) -> Result<Tensor> {
    cast(&Tensor::from_slice(shape, values)?, dtype)
}

/// The gated delta rule, step by step: for each head, a matrix is scaled by `g`, corrected so that `k` leads to `v` (by
/// the share `beta`), and asked with `q`. Kept as `f32` between steps.
///
/// `q`, `k` `[batch, time, key heads, keys]`, `v` `[batch, time, heads, values]`, `g`, `beta` `[batch, time, heads]`,
/// the matrix `[batch, heads, values, keys]`, and the number of steps; results are the answers, like `v`, and the matrix.
fn gated_delta_step(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let [q, k, v, g, beta, state, _] = call.inputs()?;
    let [(answers, answer_type), (left, left_type)] = call.outputs()?;
    let (&[batch, time, key_heads, keys], &[_, _, heads, values]) = (q.shape(), v.shape()) else {
        return Err(call.misfit());
    };
    let fits = k.shape() == q.shape()
        && v.shape() == [batch, time, heads, values]
        && g.shape() == [batch, time, heads]
        && beta.shape() == g.shape()
        && state.shape() == [batch, heads, values, keys]
        && answers == v.shape()
        && left == state.shape()
        && key_heads > 0
        && heads % key_heads == 0;
    if !fits {
        return Err(call.misfit());
    }
    let [q, k, v, g, beta] = [floats(q)?, floats(k)?, floats(v)?, floats(g)?, floats(beta)?];
    let mut state = floats(state)?;
    // Answers of one head side by side; reordered at the end.
    let mut by_head = vec![0f32; v.len()];
    if !by_head.is_empty() {
        let matrices = state.par_chunks_mut((values * keys).max(1)).zip(by_head.par_chunks_mut(time * values));
        matrices.enumerate().for_each(|(n, (state, answers))| {
            let (b, head) = (n / heads, n % heads);
            for (t, answers) in answers.chunks_exact_mut(values).enumerate() {
                let at = b * time + t;
                let key = (at * key_heads + head / (heads / key_heads)) * keys;
                let (q, k) = (&q[key..key + keys], &k[key..key + keys]);
                let (v, gate) = (&v[(at * heads + head) * values..][..values], at * heads + head);
                delta_step(state, (q, k, v), (g[gate], beta[gate]), answers);
            }
        });
    }
    let turned = Tensor::from_slice(&[batch, heads, time, values], &by_head)?.transpose(&[0, 2, 1, 3])?;
    Ok(vec![cast(&turned.contiguous()?, answer_type)?, rounded(&left, &state, left_type)?])
}

fn delta_step(state: &mut [f32], (q, k, v): (&[f32], &[f32], &[f32]), (g, beta): (f32, f32), answers: &mut [f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for ((row, v), answer) in state.chunks_exact_mut(k.len().max(1)).zip(v).zip(answers) {
                row.iter_mut().for_each(|s| *s *= g);
                let delta = (v - vector::dot(row, k)) * beta;
                row.iter_mut().zip(k).for_each(|(s, k)| *s += k * delta);
                *answer = vector::dot(row, q);
            }
        },
    );
}

/// The length of each row along the last axis.
fn tq_norm(call: &Call<'_>) -> Result<Tensor> {
    let [x] = call.inputs()?;
    let [(shape, dtype)] = call.outputs()?;
    let width = x.shape().last().copied().unwrap_or(1).max(1);
    let lengths: Vec<f32> = floats(x)?.chunks_exact(width).map(|row| vector::sum_squares(row, 0.0).sqrt()).collect();
    if shape.iter().product::<usize>() != lengths.len() {
        return Err(call.misfit());
    }
    rounded(&shape, &lengths, dtype)
}

/// How many boundaries each value is above, two counts a byte, the first in the high half.
fn tq4_compress(call: &Call<'_>) -> Result<Tensor> {
    let [values, boundaries] = call.inputs()?;
    let [(shape, dtype)] = call.outputs()?;
    let (values, boundaries) = (floats(values)?, floats(boundaries)?);
    if dtype != DType::UInt8 || boundaries.len() > 15 || shape.iter().product::<usize>() * 2 != values.len() {
        return Err(call.misfit());
    }
    let count = |v: f32| boundaries.iter().filter(|&&b| v > b).count() as u8;
    let bytes: Vec<u8> = values.as_chunks::<2>().0.iter().map(|&[high, low]| count(high) << 4 | count(low)).collect();
    Tensor::from_slice(&shape, &bytes)
}

/// The values that half bytes (the high one first) stand for, times the length of their row.
fn tq_dequant(call: &Call<'_>) -> Result<Tensor> {
    let [packed, lengths, centroids] = call.inputs()?;
    let [(shape, dtype)] = call.outputs()?;
    let width = packed.shape().last().copied().unwrap_or(1);
    let rows = packed.numel() / width.max(1);
    let fits = packed.dtype() == DType::UInt8 && centroids.numel() == 16 && lengths.numel() == rows;
    if !fits || shape.iter().product::<usize>() != 2 * packed.numel() {
        return Err(call.misfit());
    }
    let (packed, lengths, centroids) = (packed.values::<u8>()?, floats(&cast(lengths, dtype)?)?, floats(&cast(centroids, dtype)?)?);
    dispatch!(float, "tq_dequant", dtype, T => Tensor::build::<T>(&shape, |out| {
        if out.is_empty() {
            return Ok(());
        }
        let rows = packed.par_chunks_exact(width).zip(out.par_chunks_exact_mut(2 * width)).zip(&lengths);
        rows.for_each(|((packed, out), length)| {
            // Sixteen products, each rounded once; the rest is looking up.
            let mut values = [T::zeroed(); 16];
            let products: Vec<f32> = centroids.iter().map(|c| c * length).collect();
            T::round_to(&products, &mut values);
            for (byte, out) in packed.iter().zip(out.as_chunks_mut::<2>().0) {
                *out = [values[usize::from(byte >> 4)], values[usize::from(byte & 15)]];
            }
        });
        Ok(())
    }))
}

#[cfg(test)]
mod tests;
