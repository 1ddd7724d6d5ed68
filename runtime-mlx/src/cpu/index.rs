//! Operators that pick or place elements by index tensors (mlx-ops.md §4).
//!
//! Negative indices count from the end. Indices out of range are errors here; the reference reads whatever lies there.

use etx_ir::DType;

use super::dtype::{cast, dispatch};
use super::lanes::{Compute, for_parts};
use crate::error::{Error, Result};
use crate::tensor::copy::with_raw;
use crate::tensor::{Bool, Nest, PARALLEL_BYTES, Tensor, broadcast_shapes, normalise_axis};

/// An index into an axis of length `len`.
pub(crate) fn index(value: i64, len: usize) -> Result<usize> {
    let wrapped = if value < 0 { value.saturating_add(len as i64) } else { value };
    usize::try_from(wrapped)
        .ok()
        .filter(|&i| i < len)
        .ok_or_else(|| Error::range(format!("index {value} is out of range for a length of {len}")))
}

/// The elements of an integer tensor, in row-major order, as indices into an axis of length `len`.
pub(crate) fn indices(t: &Tensor, len: usize) -> Result<Vec<usize>> {
    if !t.dtype().is_int() {
        return Err(Error::dtype(format!("indices must be integers, found {}", t.dtype())));
    }
    cast(t, DType::Int64)?.values::<i64>()?.iter().map(|&v| index(v, len)).collect()
}

/// Slices of `x` at `at` along `axis`, which is replaced by the shape of `at`.
pub(crate) fn take(x: &Tensor, at: &Tensor, axis: i32) -> Result<Tensor> {
    let axis = normalise_axis(i64::from(axis), x.rank())?;
    let len = x.shape()[axis];
    let picked = indices(at, len)?;
    let (before, after) = (&x.shape()[..axis], &x.shape()[axis + 1..]);
    let shape = [before, at.shape(), after].concat();
    let inner: usize = after.iter().product();
    let x = x.contiguous()?;
    with_raw!(x.dtype(), P => {
        let elements = &x.storage_elements::<P>()[x.offset()..];
        Tensor::build_raw::<P>(x.dtype(), &shape, |out| {
            if inner == 0 || picked.is_empty() {
                return Ok(());
            }
            let rows = |first: usize, out: &mut [P]| {
                for (i, out) in out.chunks_exact_mut(inner).enumerate() {
                    let row = first / inner + i;
                    let from = (row / picked.len() * len + picked[row % picked.len()]) * inner;
                    match out {
                        [one] => *one = elements[from],
                        _ => out.copy_from_slice(&elements[from..from + inner]),
                    }
                }
            };
            if size_of_val(out) > PARALLEL_BYTES {
                for_parts(out, (PARALLEL_BYTES / size_of::<P>()).next_multiple_of(inner), &rows);
            } else {
                rows(0, out);
            }
            Ok(())
        })
    })
}

/// Shape of `x` broadcast with that of `other` on all axes but one.
fn broadcast_around(x: &Tensor, other: &Tensor, axis: usize) -> Result<(Vec<usize>, Vec<usize>)> {
    if x.rank() != other.rank() {
        return Err(Error::shape(format!("indices of rank {} for a tensor of rank {}", other.rank(), x.rank())));
    }
    let hide = |t: &Tensor| {
        let mut shape = t.shape().to_vec();
        shape[axis] = 1;
        shape
    };
    let common = broadcast_shapes(&[&hide(x), &hide(other)])?;
    let with = |len| {
        let mut shape = common.clone();
        shape[axis] = len;
        shape
    };
    Ok((with(x.shape()[axis]), with(other.shape()[axis])))
}

/// `out[.., i, ..] = x[.., at[.., i, ..], ..]`: one index for each element of the result.
pub(crate) fn take_along_axis(x: &Tensor, at: &Tensor, axis: i32) -> Result<Tensor> {
    let axis = normalise_axis(i64::from(axis), x.rank())?;
    let (x_shape, shape) = broadcast_around(x, at, axis)?;
    let x = x.broadcast_to(&x_shape)?;
    let picked = indices(&at.broadcast_to(&shape)?, x_shape[axis])?;
    let mut strides = x.strides().to_vec();
    let step = std::mem::replace(&mut strides[axis], 0);
    let nest = Nest::new(&shape, [&strides]);
    let (_, [inner]) = nest.inner();
    with_raw!(x.dtype(), P => {
        let elements = x.storage_elements::<P>();
        Tensor::build_raw::<P>(x.dtype(), &shape, |out| {
            nest.runs(0, nest.len(), |start, [offset], len| {
                for i in 0..len {
                    let from = x.offset() as isize + offset + inner * i as isize + step * picked[start + i] as isize;
                    out[start + i] = elements[from as usize];
                }
            });
            Ok(())
        })
    })
}

/// Boxes of `slice_sizes` out of `x`, one at each tuple of `at` (an index tensor for each of `axes`, broadcast
/// together). The result has the indices' shape, then the boxes'.
pub(crate) fn gather(x: &Tensor, at: &[Tensor], axes: &[i32], slice_sizes: &[i32]) -> Result<Tensor> {
    if at.len() != axes.len() || slice_sizes.len() != x.rank() {
        let (i, a, s) = (at.len(), axes.len(), slice_sizes.len());
        return Err(Error::shape(format!("{i} index tensors for {a} axes, {s} slice sizes for rank {}", x.rank())));
    }
    let mut sizes = Vec::with_capacity(x.rank());
    for (&size, &len) in slice_sizes.iter().zip(x.shape()) {
        let fits = usize::try_from(size).ok().filter(|&s| s <= len);
        sizes.push(fits.ok_or_else(|| Error::shape(format!("slice sizes {slice_sizes:?} do not fit {:?}", x.shape())))?);
    }
    let shapes: Vec<&[usize]> = at.iter().map(Tensor::shape).collect();
    let common = broadcast_shapes(&shapes)?;
    let mut starts = vec![0isize; common.iter().product()];
    for (at, &axis) in at.iter().zip(axes) {
        let axis = normalise_axis(i64::from(axis), x.rank())?;
        // An index names the first of `size` elements.
        let last = (x.shape()[axis] + 1).saturating_sub(sizes[axis].max(1));
        for (start, i) in starts.iter_mut().zip(gather_indices(&at.broadcast_to(&common)?, x.shape()[axis], last)?) {
            *start += x.strides()[axis] * i as isize;
        }
    }
    let shape = [&common[..], &sizes[..]].concat();
    let each: usize = sizes.iter().product();
    let nest = Nest::new(&sizes, [x.strides()]);
    let (_, [step]) = nest.inner();
    with_raw!(x.dtype(), P => {
        let elements = x.storage_elements::<P>();
        Tensor::build_raw::<P>(x.dtype(), &shape, |out| {
            if each == 0 {
                return Ok(());
            }
            for (out, start) in out.chunks_exact_mut(each).zip(&starts) {
                nest.runs(0, each, |to, [offset], len| {
                    for (i, o) in out[to..to + len].iter_mut().enumerate() {
                        *o = elements[(x.offset() as isize + start + offset + step * i as isize) as usize];
                    }
                });
            }
            Ok(())
        })
    })
}

/// Indices into an axis of length `len`, each below `last`.
fn gather_indices(at: &Tensor, len: usize, last: usize) -> Result<Vec<usize>> {
    let picked = indices(at, len)?;
    match picked.iter().find(|&&i| i >= last) {
        Some(i) => Err(Error::range(format!("a slice that starts at {i} leaves a length of {len}"))),
        None => Ok(picked),
    }
}

/// `x` with `updates` added at `at` along `axis`, one index for each element of the updates; duplicates add up.
pub(crate) fn scatter_add(x: &Tensor, at: &Tensor, updates: &Tensor, axis: i32) -> Result<Tensor> {
    let axis = normalise_axis(i64::from(axis), x.rank())?;
    let (around, _) = broadcast_around(x, at, axis)?;
    if around != x.shape() {
        return Err(Error::shape(format!("indices {:?} do not broadcast to {:?}", at.shape(), x.shape())));
    }
    let mut shape = around;
    shape[axis] = broadcast_shapes(&[at.shape(), updates.shape()])?.get(axis).copied().unwrap_or(0);
    let picked = indices(&at.broadcast_to(&shape)?, x.shape()[axis])?;
    let updates = cast(updates, x.dtype())?.broadcast_to(&shape)?;
    let mut out = x.to_owned_copy()?;
    let mut strides = out.strides().to_vec();
    let step = std::mem::replace(&mut strides[axis], 0) as usize;
    let nest = Nest::new(&shape, [&strides]);
    let (_, [inner]) = nest.inner();
    if x.dtype() == DType::Bool {
        scatter_sums::<Bool>(&mut out, &updates, &nest, inner, &picked, step, super::binary::plus)?;
        return Ok(out);
    }
    dispatch!(numeric, "ScatterAdd", x.dtype(), T => {
        scatter_sums::<T>(&mut out, &updates, &nest, inner, &picked, step, super::binary::plus)
    })?;
    Ok(out)
}

fn scatter_sums<T: Compute>(
    out: &mut Tensor,
    updates: &Tensor,
    nest: &Nest<1>,
    inner: isize,
    picked: &[usize],
    step: usize,
    add: fn(T::Acc, T::Acc) -> T::Acc,
) -> Result<()> {
    let updates = updates.values::<T>()?;
    let out = out.make_mut::<T>()?;
    let wide = |v: T| T::widen(&[v], &mut [bytemuck::Zeroable::zeroed()])[0];
    nest.runs(0, nest.len(), |start, [offset], len| {
        for i in start..start + len {
            let to = (offset + inner * (i - start) as isize) as usize + step * picked[i];
            let sum = add(wide(out[to]), wide(updates[i]));
            T::narrow(&mut out[to..=to], &mut [sum], |o| o[0] = sum);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    fn t(shape: &[usize], values: &[i32]) -> Tensor {
        Tensor::from_slice(shape, values).unwrap()
    }

    fn ints(t: &Tensor) -> Vec<i32> {
        t.values::<i32>().unwrap().into_owned()
    }

    #[test]
    fn take_replaces_the_axis_by_the_shape_of_the_indices() {
        let x = t(&[2, 3], &[0, 1, 2, 3, 4, 5]);
        let got = take(&x, &t(&[2, 2], &[2, -3, 0, 1]), 1).unwrap();
        assert_eq!((got.shape(), ints(&got)), (&[2, 2, 2][..], vec![2, 0, 0, 1, 5, 3, 3, 4]));
        let row = take(&x.transpose(&[1, 0]).unwrap(), &Tensor::scalar(2u8).unwrap(), 0).unwrap();
        assert_eq!((row.shape(), ints(&row)), (&[2][..], vec![2, 5]));
        assert!(take(&x, &t(&[1], &[3]), 1).is_err());
        assert!(take(&x, &Tensor::scalar(1.0f32).unwrap(), 0).is_err());
        assert_eq!(take(&x, &t(&[0], &[]), 0).unwrap().shape(), [0, 3]);
    }

    #[test]
    fn take_along_axis_broadcasts_the_other_axes() {
        let x = t(&[2, 3], &[0, 1, 2, 3, 4, 5]);
        assert_eq!(ints(&take_along_axis(&x, &t(&[2, 2], &[2, 0, -1, 1]), 1).unwrap()), [2, 0, 5, 4]);
        let wide = take_along_axis(&x, &t(&[1, 2], &[1, 1]), -1).unwrap();
        assert_eq!((wide.shape(), ints(&wide)), (&[2, 2][..], vec![1, 1, 4, 4]));
        assert_eq!(ints(&take_along_axis(&x, &t(&[1, 3], &[1, 0, 1]), 0).unwrap()), [3, 1, 5]);
        assert!(take_along_axis(&x, &t(&[2], &[0, 0]), 0).is_err());
    }

    #[test]
    fn gather_cuts_boxes() {
        let x = t(&[3, 4], &(0..12).collect::<Vec<_>>());
        let got = gather(&x, &[t(&[2, 1], &[0, 2]), t(&[2], &[1, -1])], &[0, 1], &[1, 1]).unwrap();
        assert_eq!((got.shape(), ints(&got)), (&[2, 2, 1, 1][..], vec![1, 3, 9, 11]));
        let rows = gather(&x, &[t(&[2], &[1, 0])], &[0], &[2, 2]).unwrap();
        assert_eq!((rows.shape(), ints(&rows)), (&[2, 2, 2][..], vec![4, 5, 8, 9, 0, 1, 4, 5]));
        assert!(gather(&x, &[t(&[1], &[2])], &[0], &[2, 4]).is_err());
        assert!(gather(&x, &[t(&[1], &[0])], &[0], &[1, 5]).is_err());
    }

    #[test]
    fn scattered_sums_add_up() {
        let x = t(&[2, 3], &[10, 20, 30, 40, 50, 60]);
        let got = scatter_add(&x, &t(&[2, 2], &[0, 0, 2, -2]), &t(&[2, 2], &[1, 2, 3, 4]), 1).unwrap();
        assert_eq!(ints(&got), [13, 20, 30, 40, 54, 63]);
        let got = scatter_add(&x, &t(&[1, 3], &[1, 1, 1]), &t(&[1, 3], &[1, 2, 3]), 0).unwrap();
        assert_eq!(ints(&got), [10, 20, 30, 41, 52, 63]);
        let h = Tensor::from_slice(&[1], &[f16::from_f32(0.5)]).unwrap();
        let got = scatter_add(&h, &t(&[2], &[0, 0]), &Tensor::from_slice(&[2], &[1.0f32, 2.0]).unwrap(), 0).unwrap();
        assert_eq!(got.values::<f16>().unwrap()[0].to_f32(), 3.5);
        assert!(scatter_add(&x, &t(&[2, 1], &[3, 0]), &t(&[2, 1], &[1, 1]), 1).is_err());
    }

    #[test]
    fn single_indices_are_checked_and_masks_are_none() {
        use crate::engine::Engine;
        let (cpu, x) = (crate::cpu::Cpu, t(&[2, 3], &[0, 1, 2, 3, 4, 5]));
        assert_eq!(ints(&cpu.take_at(&x, -1, -1).unwrap()), [2, 5]);
        assert!(cpu.take_at(&x, 3, 1).is_err() && cpu.take_at(&x, -4, 1).is_err() && cpu.take_at(&x, 0, 2).is_err());
        let mask = Tensor::from_slice(&[2], &[true, false].map(crate::tensor::Bool::from)).unwrap();
        assert!(take(&x, &mask, 0).is_err() && take_along_axis(&x, &mask.reshape(&[2, 1]).unwrap(), 1).is_err());
        assert!(take(&x, &t(&[1], &[-4]), 1).is_err());
    }
}
