//! Softmax and the normalisations over one axis (mlx-ops.md §4). All compute in `f32`.

use etx_ir::DType;
use rayon::prelude::*;

use super::dtype::{cast, dispatch, promote_all, to_float};
use super::lanes::Operand;
use super::simd::Float;
use super::vector;
use crate::error::{Error, Result};
use crate::tensor::{PARALLEL_BYTES, Tensor, normalise_axis};

/// `exp(x) / Σ exp(x)` along `axis`. Halves are summed in `f32` whether or not the program insists (`precise`).
pub(crate) fn softmax(x: &Tensor, axis: i32) -> Result<Tensor> {
    if x.rank() == 0 {
        return Err(Error::shape("a softmax needs an axis, and rank 0 has none"));
    }
    let axis = normalise_axis(i64::from(axis), x.rank())?;
    let x = cast(x, to_float(x.dtype()))?;
    let mut swap: Vec<i64> = (0..x.rank() as i64).collect();
    let last = swap.len() - 1;
    swap.swap(axis, last);
    let rows = dispatch!(float, "Softmax", x.dtype(), T => map_rows::<T, T>(&x.transpose(&swap)?, |_, row, out| {
        vector::softmax(row);
        T::round_to(row, out);
    }))?;
    rows.transpose(&swap)
}

/// `x / √(mean(x²) + eps)` over the last axis, rounded, then times `weight`.
pub(crate) fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    normalise("RMSNorm", x, weight, None, |row| {
        let mean = vector::sum_squares(row, 0.0) / row.len() as f32;
        vector::normalise(row, 0.0, 1.0 / (mean + eps).sqrt());
    })
}

/// `(x - mean) / √(variance + eps)` over the last axis, rounded, then times `weight` plus `bias`.
pub(crate) fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    normalise("LayerNorm", x, weight, bias, |row| {
        let mean = vector::sum(row) / row.len() as f32;
        let variance = vector::sum_squares(row, mean) / row.len() as f32;
        vector::normalise(row, mean, 1.0 / (variance + eps).sqrt());
    })
}

fn normalise(what: &str, x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, row: impl Fn(&mut [f32]) + Sync) -> Result<Tensor> {
    let Some(&width) = x.shape().last() else {
        return Err(Error::shape(format!("{what} needs an axis, and rank 0 has none")));
    };
    if !x.dtype().is_float() {
        return Err(Error::dtype(format!("{what} does not take {} elements", x.dtype())));
    }
    let dtype = promote_all([x].into_iter().chain(weight).chain(bias))?;
    let wide = |t: Option<&Tensor>| -> Result<Option<Vec<f32>>> {
        let Some(t) = t else { return Ok(None) };
        if t.shape() != [width] {
            return Err(Error::shape(format!("{what} over {width} elements with a weight or bias of shape {:?}", t.shape())));
        }
        // First to the type of the result, which it is rounded to.
        Ok(Some(cast(&cast(t, dtype)?, DType::Float32)?.values::<f32>()?.into_owned()))
    };
    let (weight, bias) = (wide(weight)?, wide(bias)?);
    dispatch!(float, what, x.dtype(), S => dispatch!(float, what, dtype, D => {
        map_rows::<S, D>(x, |_, values, out| {
            row(values);
            D::round_to(values, out);
            // Each step rounds, as the instructions that this one stands for do.
            if let Some(weight) = &weight {
                D::widen_to(out, values);
                vector::multiply(values, weight);
                D::round_to(values, out);
            }
            if let Some(bias) = &bias {
                D::widen_to(out, values);
                vector::add_scaled(values, bias, 1.0);
                D::round_to(values, out);
            }
        })
    }))
}

/// Calls `f` with the number of each row along the last axis, the row as `f32` and its place in the result.
pub(super) fn map_rows<S: Float, D: Float>(x: &Tensor, f: impl Fn(usize, &mut [f32], &mut [D]) + Sync) -> Result<Tensor> {
    let width = x.shape().last().copied().unwrap_or(1);
    let operand = Operand::<S>::new(x, x.shape())?;
    Tensor::build::<D>(x.shape(), |out| {
        let some = (4096 / width.max(1)).max(1);
        let work = |(raw, row): &mut (Vec<S>, Vec<f32>), (i, out): (usize, &mut [D])| {
            for (j, out) in out.chunks_exact_mut(width).enumerate() {
                S::widen_to(operand.chunk((i * some + j) * width, width, raw), row);
                f(i * some + j, row, out);
            }
        };
        let scratch = || (vec![S::zeroed(); width], vec![0f32; width]);
        if out.is_empty() {
            return Ok(());
        }
        if size_of_val(out) > PARALLEL_BYTES {
            out.par_chunks_mut(some * width).enumerate().for_each_init(scratch, work);
        } else {
            let mut scratch = scratch();
            out.chunks_mut(some * width).enumerate().for_each(|part| work(&mut scratch, part));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    fn floats(x: &Tensor) -> Vec<f32> {
        cast(x, DType::Float32).unwrap().values::<f32>().unwrap().into_owned()
    }

    fn near(got: &Tensor, want: &[f32], limit: f32) {
        let got = floats(got);
        assert!(got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() <= limit), "{got:?} for {want:?}");
    }

    #[test]
    fn softmax_along_either_axis() {
        let x = Tensor::from_slice(&[2, 2], &[0.0f32, 0.0, 0.0, 3f32.ln()]).unwrap();
        near(&softmax(&x, -1).unwrap(), &[0.5, 0.5, 0.25, 0.75], 1e-6);
        near(&softmax(&x, 0).unwrap(), &[0.5, 0.25, 0.5, 0.75], 1e-6);
        assert!(softmax(&x, 2).is_err() && softmax(&Tensor::scalar(1f32).unwrap(), 0).is_err());
        assert_eq!(softmax(&Tensor::zeros(DType::Float16, &[3, 0]).unwrap(), 1).unwrap().shape(), [3, 0]);
        assert_eq!(softmax(&Tensor::zeros(DType::Int32, &[4]).unwrap(), 0).unwrap().dtype(), DType::Float32);
        // 4096 equal terms: sums kept in halves would stop long before.
        let many = Tensor::zeros(DType::BFloat16, &[4096]).unwrap();
        assert!(floats(&softmax(&many, 0).unwrap()).iter().all(|&v| v == 1.0 / 4096.0));
    }

    #[test]
    fn root_mean_squares() {
        let x = Tensor::from_slice(&[2, 2], &[3.0f32, 4.0, 0.0, 0.0]).unwrap();
        let w = Tensor::from_slice(&[2], &[1.0f32, 10.0]).unwrap();
        let r = 12.5f32.sqrt();
        near(&rms_norm(&x, None, 0.0).unwrap().slice_axis(0, 0, 1, 1).unwrap(), &[3.0 / r, 4.0 / r], 1e-6);
        near(&rms_norm(&x, Some(&w), 1e-5).unwrap(), &[3.0 / r, 40.0 / r, 0.0, 0.0], 1e-5);
        assert!(rms_norm(&x, Some(&Tensor::scalar(1f32).unwrap()), 0.0).is_err());
        assert!(rms_norm(&Tensor::scalar(1f32).unwrap(), None, 0.0).is_err());
        assert!(rms_norm(&Tensor::zeros(DType::Int32, &[2]).unwrap(), None, 0.0).is_err());
    }

    #[test]
    fn norms_of_halves_round_before_the_weight_is_applied() {
        let x = Tensor::from_slice(&[3], &[1.0f32, 2.0, 4.0].map(bf16::from_f32)).unwrap();
        let w = Tensor::from_slice(&[3], &[3.0f32; 3].map(bf16::from_f32)).unwrap();
        let got = rms_norm(&x, Some(&w), 0.0).unwrap();
        let want = [1.0f32, 2.0, 4.0].map(|v| bf16::from_f32(3.0 * bf16::from_f32(v / 7f32.sqrt()).to_f32()).to_f32());
        assert_eq!((got.dtype(), floats(&got)), (DType::BFloat16, want.to_vec()));
        let mixed = Tensor::from_slice(&[3], &[3.0f32; 3].map(f16::from_f32)).unwrap();
        assert_eq!(rms_norm(&x, Some(&mixed), 0.0).unwrap().dtype(), DType::Float32);
    }

    #[test]
    fn layer_norm_centres_scales_and_shifts() {
        let x = Tensor::from_slice(&[1, 4], &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
        let (w, b) = (Tensor::from_slice(&[4], &[2.0f32; 4]).unwrap(), Tensor::from_slice(&[4], &[1.0f32, 0.0, 0.0, 0.0]).unwrap());
        let s = 1.25f32.sqrt();
        let want = [1.0 - 3.0 / s, -1.0 / s, 1.0 / s, 3.0 / s];
        near(&layer_norm(&x, Some(&w), Some(&b), 0.0).unwrap(), &want, 1e-6);
        // Large means do not eat small deviations.
        let far = Tensor::from_slice(&[4], &[10001.0f32, 10002.0, 10003.0, 10004.0]).unwrap();
        near(&layer_norm(&far, None, None, 0.0).unwrap(), &[-1.5 / s, -0.5 / s, 0.5 / s, 1.5 / s], 1e-4);
        assert_eq!(layer_norm(&Tensor::zeros(DType::Float32, &[0, 4]).unwrap(), None, None, 1e-5).unwrap().shape(), [0, 4]);
    }

    #[test]
    fn long_and_strided_rows_agree_with_short_ones() {
        let values: Vec<f32> = (0..300 * 1000usize).map(|i| ((i * 7919) % 1013) as f32 / 500.0 - 1.0).collect();
        let x = Tensor::from_slice(&[300, 1000], &values).unwrap();
        let turned = x.transpose(&[1, 0]).unwrap().contiguous().unwrap().transpose(&[1, 0]).unwrap();
        let whole = floats(&layer_norm(&x, None, None, 1e-5).unwrap());
        assert_eq!(whole, floats(&layer_norm(&turned, None, None, 1e-5).unwrap()));
        let one = floats(&layer_norm(&x.slice_axis(0, 299, 1, 1).unwrap(), None, None, 1e-5).unwrap());
        assert_eq!(whole[299 * 1000..], one);
    }
}
