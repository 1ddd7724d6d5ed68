//! Sorting along an axis (mlx-ops.md §4): ascending, NaN last, equal elements in their old order.

use rayon::prelude::*;

use super::dtype::dispatch;
use super::lanes::Operand;
use crate::error::{Error, Result};
use crate::tensor::{Bool, Elem, PARALLEL_BYTES, Tensor, normalise_axis};

/// The elements along `axis` in order.
pub(crate) fn sort(x: &Tensor, axis: i32) -> Result<Tensor> {
    dispatch!(all, "Sort", x.dtype(), T => rows::<T, T>(x, axis, |row, order, out| {
        for (o, &(_, i)) in out.iter_mut().zip(order) {
            *o = row[i as usize];
        }
    }))
}

/// Where (`u32`) the elements along `axis` stand that [`sort`] would put in order.
pub(crate) fn argsort(x: &Tensor, axis: i32) -> Result<Tensor> {
    dispatch!(all, "Argsort", x.dtype(), T => rows::<T, u32>(x, axis, |_, order, out| {
        for (o, &(_, i)) in out.iter_mut().zip(order) {
            *o = i;
        }
    }))
}

/// The elements along `axis` so that none before place `kth` is larger, and none after it smaller, than the one there.
/// They are in order, which is more than is asked.
pub(crate) fn partition(x: &Tensor, kth: i64, axis: i32) -> Result<Tensor> {
    check_kth(x, kth, axis)?;
    sort(x, axis)
}

/// The indices of [`partition`].
pub(crate) fn arg_partition(x: &Tensor, kth: i64, axis: i32) -> Result<Tensor> {
    check_kth(x, kth, axis)?;
    argsort(x, axis)
}

fn check_kth(x: &Tensor, kth: i64, axis: i32) -> Result<()> {
    let len = x.shape()[normalise_axis(i64::from(axis), x.rank())?];
    super::index::index(kth, len).map(|_| ()).map_err(|e| e.within("kth"))
}

/// Calls `f` with each row along `axis`, its sorted keys with their places, and its place in the result.
fn rows<T: Key, D: Elem>(x: &Tensor, axis: i32, f: impl Fn(&[T], &[(u64, u32)], &mut [D]) + Sync) -> Result<Tensor> {
    let axis = normalise_axis(i64::from(axis), x.rank())?;
    let mut swap: Vec<i64> = (0..x.rank() as i64).collect();
    let last = swap.len() - 1;
    swap.swap(axis, last);
    let view = x.transpose(&swap)?;
    let width = x.shape()[axis];
    if u32::try_from(width).is_err() {
        return Err(Error::limit(format!("sorting {width} elements, whose places do not fit 32 bits")));
    }
    let operand = Operand::<T>::new(&view, view.shape())?;
    let sorted = Tensor::build::<D>(view.shape(), |out| {
        let work = |(raw, order): &mut (Vec<T>, Vec<(u64, u32)>), (i, out): (usize, &mut [D])| {
            let row = operand.chunk(i * width, width, raw);
            order.clear();
            order.extend(row.iter().zip(0u32..).map(|(v, i)| (v.key(), i)));
            order.sort_unstable();
            f(row, order, out);
        };
        let scratch = || (vec![T::zeroed(); width], Vec::with_capacity(width));
        if out.is_empty() {
            return Ok(());
        }
        if size_of_val(out) > PARALLEL_BYTES {
            out.par_chunks_mut(width).enumerate().for_each_init(scratch, work);
        } else {
            let mut scratch = scratch();
            out.chunks_mut(width).enumerate().for_each(|part| work(&mut scratch, part));
        }
        Ok(())
    })?;
    sorted.transpose(&swap)
}

/// An element as an integer that compares as the element does.
trait Key: Elem {
    fn key(self) -> u64;
}

macro_rules! unsigned_keys {
    ($($t:ty),*) => { $(impl Key for $t {
        fn key(self) -> u64 { u64::from(self) }
    })* };
}

macro_rules! signed_keys {
    ($($t:ty),*) => { $(impl Key for $t {
        fn key(self) -> u64 { i64::from(self) as u64 ^ (1 << 63) }
    })* };
}

unsigned_keys!(u8, u16, u32, u64);
signed_keys!(i8, i16, i32, i64);

impl Key for Bool {
    fn key(self) -> u64 {
        u64::from(self.get())
    }
}

impl Key for f64 {
    fn key(self) -> u64 {
        if self.is_nan() {
            return u64::MAX;
        }
        // Both zeros are the same; of the rest, negative numbers order backwards.
        let bits = (self + 0.0).to_bits();
        if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
    }
}

impl Key for f32 {
    fn key(self) -> u64 {
        f64::from(self).key()
    }
}

impl Key for half::f16 {
    fn key(self) -> u64 {
        self.to_f32().key()
    }
}

impl Key for half::bf16 {
    fn key(self) -> u64 {
        self.to_f32().key()
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn floats(x: &Tensor) -> Vec<f32> {
        x.values::<f32>().unwrap().into_owned()
    }

    fn places(x: &Tensor) -> Vec<u32> {
        x.values::<u32>().unwrap().into_owned()
    }

    #[test]
    fn ascending_with_nan_last_and_ties_in_place() {
        let (n, inf) = (f32::NAN, f32::INFINITY);
        let x = Tensor::from_slice(&[8], &[1.0, n, -inf, 0.0, -0.0, inf, -2.5, 1.0]).unwrap();
        let sorted = floats(&sort(&x, 0).unwrap());
        assert_eq!(sorted[..7], [-inf, -2.5, 0.0, -0.0, 1.0, 1.0, inf]);
        assert!(sorted[2].is_sign_positive() && sorted[3].is_sign_negative() && sorted[7].is_nan());
        assert_eq!(places(&argsort(&x, -1).unwrap()), [2, 6, 3, 4, 0, 7, 5, 1]);
        let negative_nan = Tensor::from_slice(&[2], &[-n, 1.0]).unwrap();
        assert_eq!(places(&argsort(&negative_nan, 0).unwrap()), [1, 0]);
    }

    #[test]
    fn every_type_keeps_itself() {
        let ints = Tensor::from_slice(&[3], &[i64::MAX, i64::MIN, -1]).unwrap();
        assert_eq!(sort(&ints, 0).unwrap().values::<i64>().unwrap().as_ref(), [i64::MIN, -1, i64::MAX]);
        let small = Tensor::from_slice(&[3], &[-1i8, 127, -128]).unwrap();
        assert_eq!(sort(&small, 0).unwrap().values::<i8>().unwrap().as_ref(), [-128, -1, 127]);
        let unsigned = Tensor::from_slice(&[3], &[u32::MAX, 0, 7]).unwrap();
        assert_eq!(sort(&unsigned, 0).unwrap().values::<u32>().unwrap().as_ref(), [0, 7, u32::MAX]);
        let flags = Tensor::from_slice(&[3], &[true, false, true].map(Bool::from)).unwrap();
        assert_eq!(places(&argsort(&flags, 0).unwrap()), [1, 0, 2]);
        let halves = Tensor::from_slice(&[3], &[2.0f32, -3.0, 1.0].map(bf16::from_f32)).unwrap();
        assert_eq!(sort(&halves, 0).unwrap().values::<bf16>().unwrap().as_ref(), [-3.0f32, 1.0, 2.0].map(bf16::from_f32));
    }

    #[test]
    fn any_axis_and_layout() {
        let x = Tensor::from_slice(&[2, 3], &[3.0f32, 1.0, 2.0, 0.0, 5.0, 4.0]).unwrap();
        assert_eq!(floats(&sort(&x, 1).unwrap()), [1.0, 2.0, 3.0, 0.0, 4.0, 5.0]);
        assert_eq!(floats(&sort(&x, 0).unwrap()), [0.0, 1.0, 2.0, 3.0, 5.0, 4.0]);
        let turned = x.transpose(&[1, 0]).unwrap();
        assert_eq!(floats(&sort(&turned, 0).unwrap()), [1.0, 0.0, 2.0, 4.0, 3.0, 5.0]);
        assert_eq!(places(&argsort(&x, 0).unwrap()), [1, 0, 0, 0, 1, 1]);
        assert!(sort(&x, 2).is_err() && sort(&Tensor::scalar(1f32).unwrap(), 0).is_err());
        assert_eq!(sort(&x.slice_axis(1, 0, 1, 0).unwrap(), 1).unwrap().shape(), [2, 0]);
    }

    #[test]
    fn partitions_split_at_the_kth() {
        let values: Vec<f32> = (0..100_000usize).map(|i| ((i * 7919) % 100_003) as f32).collect();
        let x = Tensor::from_slice(&[2, 50_000], &values).unwrap();
        let parts = floats(&partition(&x, -3, 1).unwrap());
        for (part, row) in parts.chunks(50_000).zip(values.chunks(50_000)) {
            let mut all = row.to_vec();
            all.sort_by(f32::total_cmp);
            assert!(part[49_997] == all[49_997] && part[..49_997].iter().all(|v| *v <= all[49_997]));
        }
        let at = places(&arg_partition(&x, 0, 1).unwrap());
        assert_eq!(values[at[0] as usize], floats(&sort(&x, 1).unwrap())[0]);
        assert!(partition(&x, 50_000, 1).is_err() && arg_partition(&x, -50_001, 1).is_err());
    }
}
