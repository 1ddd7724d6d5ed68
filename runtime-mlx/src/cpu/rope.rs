//! Rotary position embedding (mlx-ops.md §4).

use etx_ir::DType;

use super::dtype::{cast, dispatch};
use super::matmul::bounded;
use super::norm::map_rows;
use super::simd::Float;
use crate::engine::Rope;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Rotates pairs among the first `dims` elements of the last axis of `x` (`[batch, …, time, width]`) by angles that
/// grow with the position `offset + time`; the rest passes through. Angles and products are `f32`, rounded once.
pub(crate) fn rope(x: &Tensor, how: Rope<'_, Tensor>) -> Result<Tensor> {
    let &[batch, .., time, width] = x.shape() else {
        return Err(Error::shape(format!("Rope takes [batch, …, time, width], found {:?}", x.shape())));
    };
    if x.rank() < 3 {
        return Err(Error::shape(format!("Rope takes rank 3 or more, found {:?}", x.shape())));
    }
    let half = usize::try_from(how.dims).ok().filter(|&d| d % 2 == 0 && d <= width).map(|d| d / 2);
    let half = half.ok_or_else(|| Error::shape(format!("Rope cannot rotate {} of {width} elements", how.dims)))?;
    bounded(x)?;
    if x.numel() == 0 {
        return Tensor::zeros(x.dtype(), x.shape());
    }
    let table = Table::new(half, time, batch, &how)?;
    let rows_in_batch = (x.numel() / width.max(1)) / batch.max(1);
    dispatch!(float, "Rope", x.dtype(), T => map_rows::<T, T>(x, |row, values, out| {
        let (cos, sin) = table.at(row / rows_in_batch, row % time);
        let rotate = |a: &mut f32, b: &mut f32, i: usize| {
            (*a, *b) = (*a * cos[i] - *b * sin[i], *a * sin[i] + *b * cos[i]);
        };
        if how.traditional {
            for (i, pair) in values[..2 * half].as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let [a, b] = pair;
                rotate(a, b, i);
            }
        } else {
            let (first, second) = values[..2 * half].split_at_mut(half);
            for (i, (a, b)) in first.iter_mut().zip(second).enumerate() {
                rotate(a, b, i);
            }
        }
        T::round_to(values, out);
    }))
}

/// Cosines and sines for every position.
struct Table {
    half: usize,
    time: usize,
    /// Whether all batches start at one position.
    shared: bool,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Table {
    fn new(half: usize, time: usize, batch: usize, how: &Rope<'_, Tensor>) -> Result<Self> {
        let offsets = cast(how.offset, DType::Int32)?;
        if !how.offset.dtype().is_int() || offsets.rank() > 1 || (offsets.numel() != 1 && offsets.numel() != batch) {
            let (dtype, shape) = (how.offset.dtype(), how.offset.shape());
            return Err(Error::shape(format!("Rope of {batch} batches with offsets {dtype}{shape:?}: one integer, or one a batch")));
        }
        let turns = match how.freqs {
            Some(freqs) if freqs.shape() != [half] => {
                return Err(Error::shape(format!("Rope of {half} pairs with frequencies of shape {:?}", freqs.shape())));
            }
            Some(freqs) => cast(freqs, DType::Float32)?.values::<f32>()?.iter().map(|f| 1.0 / f).collect::<Vec<_>>(),
            None => {
                let step = how.base.ln() / half as f32;
                (0..half).map(|i| (-(i as f32) * step).exp()).collect()
            }
        };
        let offsets = offsets.values::<i32>()?;
        let mut table = Table { half, time, shared: offsets.len() == 1, cos: Vec::new(), sin: Vec::new() };
        for &offset in offsets.iter() {
            for t in 0..time {
                let position = (offset as f32 + t as f32) * how.scale;
                table.cos.extend(turns.iter().map(|turn| (position * turn).cos()));
                table.sin.extend(turns.iter().map(|turn| (position * turn).sin()));
            }
        }
        Ok(table)
    }

    fn at(&self, batch: usize, time: usize) -> (&[f32], &[f32]) {
        let row = if self.shared { time } else { batch * self.time + time };
        let range = row * self.half..(row + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn run(x: &Tensor, dims: i32, offset: &Tensor, freqs: Option<&Tensor>, traditional: bool, scale: f32) -> Result<Tensor> {
        rope(x, Rope { dims, offset, freqs, traditional, base: 10000.0, scale })
    }

    fn near(got: &Tensor, want: &[f32]) {
        let got = got.values::<f32>().unwrap();
        assert!(got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?} for {want:?}");
    }

    fn at(offset: i32) -> Tensor {
        Tensor::scalar(offset).unwrap()
    }

    #[test]
    fn halves_or_neighbours_turn_together_and_the_rest_stays() {
        // One batch, two positions, five elements of which four turn: by 1 and by 1/100 radian a position.
        let x = Tensor::from_slice(&[1, 2, 5], &[1.0f32, 2.0, 3.0, 4.0, 9.0, 1.0, 2.0, 3.0, 4.0, 9.0]).unwrap();
        let turn = |a: f32, b: f32, t: f32| (a * t.cos() - b * t.sin(), a * t.sin() + b * t.cos());
        let halves = |p: f32| {
            let ((a, c), (b, d)) = (turn(1.0, 3.0, p), turn(2.0, 4.0, p / 100.0));
            [a, b, c, d, 9.0]
        };
        near(&run(&x, 4, &at(3), None, false, 1.0).unwrap(), &[halves(3.0), halves(4.0)].concat());
        near(&run(&x, 4, &at(3), None, false, 0.5).unwrap(), &[halves(1.5), halves(2.0)].concat());
        let neighbours = |p: f32| {
            let ((a, b), (c, d)) = (turn(1.0, 2.0, p), turn(3.0, 4.0, p / 100.0));
            [a, b, c, d, 9.0]
        };
        near(&run(&x, 4, &at(0), None, true, 1.0).unwrap(), &[neighbours(0.0), neighbours(1.0)].concat());
        near(&run(&x, 0, &at(5), None, true, 1.0).unwrap(), &x.values::<f32>().unwrap());
        let freqs = Tensor::from_slice(&[2], &[2.0f32, 0.5]).unwrap();
        let ((a, c), (b, d)) = (turn(1.0, 3.0, 0.5), turn(2.0, 4.0, 2.0));
        let one = x.slice_axis(1, 0, 1, 1).unwrap();
        near(&run(&one, 4, &at(1), Some(&freqs), false, 1.0).unwrap(), &[a, b, c, d, 9.0]);
    }

    #[test]
    fn each_batch_may_start_elsewhere() {
        let x = Tensor::from_slice(&[2, 2, 1, 2], &[1.0f32, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]).unwrap();
        let offsets = Tensor::from_slice(&[2], &[0i64, 2]).unwrap();
        let (c, s) = (2f32.cos(), 2f32.sin());
        near(&run(&x, 2, &offsets, None, false, 1.0).unwrap(), &[1.0, 0.0, 1.0, 0.0, c, s, c, s]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let x = Tensor::zeros(DType::Float32, &[2, 3, 4]).unwrap();
        assert!(run(&x, 3, &at(0), None, false, 1.0).is_err() && run(&x, 6, &at(0), None, false, 1.0).is_err());
        assert!(run(&x, 4, &Tensor::from_slice(&[3], &[0i32; 3]).unwrap(), None, false, 1.0).is_err());
        assert!(run(&x, 4, &at(0), Some(&Tensor::zeros(DType::Float32, &[3]).unwrap()), false, 1.0).is_err());
        assert!(run(&x.select(0, 0).unwrap(), 4, &at(0), None, false, 1.0).is_err());
        assert!(run(&Tensor::zeros(DType::Int32, &[1, 1, 4]).unwrap(), 4, &at(0), None, false, 1.0).is_err());
        assert_eq!(run(&x.slice_axis(1, 0, 1, 0).unwrap(), 4, &at(0), None, false, 1.0).unwrap().shape(), [2, 0, 4]);
        let half = Tensor::from_slice(&[1, 1, 2], &[bf16::ONE; 2]).unwrap();
        let want = [1f32.cos() - 1f32.sin(), 1f32.cos() + 1f32.sin()].map(bf16::from_f32);
        assert_eq!(run(&half, 2, &at(1), None, false, 1.0).unwrap().values::<bf16>().unwrap().as_ref(), want);
    }
}
