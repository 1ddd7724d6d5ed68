//! Strided tensors over shared bytes.
//!
//! A [`Tensor`] is a view: element type, shape, strides and offset (in elements) into reference-counted storage.
//! Cloning, slicing, transposing, broadcasting cost nothing of the data's size. Every constructor proves that the view
//! lies inside its storage; kernels rely on it. Storage is either owned (written in place while unique, copied
//! otherwise) or a window of somebody else's memory such as a mapped file (never written).

pub(crate) mod copy;
mod elem;
pub(crate) mod nest;
mod storage;
#[cfg(test)]
mod tests;
mod view;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use etx_ir::DType;

pub use elem::{Bool, Elem};
pub(crate) use nest::{Nest, contiguous_strides};
use storage::Storage;
pub use storage::{ByteSource, MAX_RESULT_BYTES};
pub(crate) use view::{broadcast_shapes, normalise_axis};

use crate::error::{Error, Result};
use copy::with_raw;

/// Work below this many bytes is done on the calling thread: waking the pool costs more than a pass over it.
pub(crate) const PARALLEL_BYTES: usize = 256 << 10;

/// Highest rank. The format allows 16 (mlx-schema.md §7); kernels that repeat elements need an extra axis for each.
pub const MAX_RANK: usize = 32;

/// A strided view of shared elements. See the [module](self) for the laws.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    strides: Vec<isize>,
    /// Element index of the element at index 0 of every axis.
    offset: usize,
    storage: Storage,
}

/// Number of elements of a shape. Fails when it, or any partial product, does not fit.
pub fn checked_numel(shape: &[usize]) -> Result<usize> {
    if shape.len() > MAX_RANK {
        return Err(Error::limit(format!("rank {} is over the limit of {MAX_RANK}", shape.len())));
    }
    // A zero anywhere must not hide an overflow: strides are products over the other lengths.
    let full = shape.iter().try_fold(1isize, |n, &d| n.checked_mul(isize::try_from(d.max(1)).ok()?));
    match full {
        Some(n) if !shape.contains(&0) => Ok(n as usize),
        Some(_) => Ok(0),
        None => Err(Error::limit(format!("the number of elements of shape {shape:?} overflows"))),
    }
}

fn byte_len(dtype: DType, shape: &[usize]) -> Result<u64> {
    let n = checked_numel(shape)?;
    (n as u64)
        .checked_mul(dtype.size() as u64)
        .filter(|&n| n <= MAX_RESULT_BYTES)
        .ok_or_else(|| Error::limit(format!("{dtype}{shape:?} is over the limit of {MAX_RESULT_BYTES} bytes for one tensor")))
}

impl Tensor {
    /// All zeros (`false` for booleans), row-major.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Self> {
        let storage = Storage::zeroed(byte_len(dtype, shape)?)?;
        Ok(Tensor { dtype, shape: shape.to_vec(), strides: contiguous_strides(shape), offset: 0, storage })
    }

    /// A new row-major tensor whose elements `fill` writes; they start as zeros. This is how kernels make results.
    pub fn build<T: Elem>(shape: &[usize], fill: impl FnOnce(&mut [T]) -> Result<()>) -> Result<Self> {
        let mut tensor = Self::zeros(T::DTYPE, shape)?;
        let n = tensor.numel();
        // Fresh storage is owned and unique.
        if let Some(out) = tensor.storage.elements_mut::<T>() {
            fill(&mut out[..n])?;
        }
        Ok(tensor)
    }

    /// [`build`](Self::build) for kernels that move elements without looking at them: `P` has the element's size.
    pub(crate) fn build_raw<P: Pod>(dtype: DType, shape: &[usize], fill: impl FnOnce(&mut [P]) -> Result<()>) -> Result<Self> {
        let mut tensor = Self::zeros(dtype, shape)?;
        let n = tensor.numel();
        if let Some(out) = tensor.storage.elements_mut::<P>() {
            fill(&mut out[..n])?;
        }
        Ok(tensor)
    }

    /// A copy of `elements` in row-major order. Their number must be that of the shape.
    pub fn from_slice<T: Elem>(shape: &[usize], elements: &[T]) -> Result<Self> {
        let n = checked_numel(shape)?;
        if n != elements.len() {
            return Err(Error::shape(format!("{} elements for shape {shape:?}, which holds {n}", elements.len())));
        }
        Self::build::<T>(shape, |out| {
            out.copy_from_slice(elements);
            Ok(())
        })
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Elem>(value: T) -> Result<Self> {
        Self::from_slice(&[], &[value])
    }

    /// A copy of little-endian row-major bytes, of exactly the size of the shape.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self> {
        let len = byte_len(dtype, shape)?;
        if bytes.len() as u64 != len {
            return Err(Error::shape(format!("{} bytes for {dtype}{shape:?}, which takes {len}", bytes.len())));
        }
        let mut tensor = Self::zeros(dtype, shape)?;
        if let Some(out) = tensor.storage.bytes_mut() {
            out.copy_from_slice(bytes);
        }
        Ok(tensor)
    }

    /// Little-endian row-major bytes `range` of `source`, used in place (copied only if misaligned for the type).
    /// Bytes beyond the shape's size are ignored; too few are an error. What is used in place may be of any size.
    pub fn from_source(dtype: DType, shape: &[usize], source: Arc<dyn ByteSource>, range: Range<usize>) -> Result<Self> {
        let len = checked_numel(shape)?.checked_mul(dtype.size());
        let len = len.ok_or_else(|| Error::limit(format!("the size of {dtype}{shape:?} overflows")))?;
        let given = range.end.saturating_sub(range.start);
        if given < len {
            return Err(Error::shape(format!("{given} bytes for {dtype}{shape:?}, which takes {len}")));
        }
        let storage = Storage::window(source, range.start..range.start + len, dtype.size())?;
        Ok(Tensor { dtype, shape: shape.to_vec(), strides: contiguous_strides(shape), offset: 0, storage })
    }

    /// The caller's from now on: no longer counted among what a call keeps.
    pub(crate) fn release(&self) {
        self.storage.release();
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements to step for one index along each axis; may be zero (broadcast) or negative (reversed).
    pub fn strides(&self) -> &[isize] {
        &self.strides
    }

    /// Element of the storage at index 0 of every axis.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1isize;
        self.shape.contains(&0)
            || self.shape.iter().zip(&self.strides).rev().all(|(&len, &stride)| {
                let fits = len == 1 || stride == step;
                step = step.saturating_mul(len as isize);
                fits
            })
    }

    /// Whether both look into the same allocation.
    pub fn shares_storage(&self, other: &Tensor) -> bool {
        self.storage.same(&other.storage)
    }

    fn check<T: Elem>(&self) -> Result<()> {
        if T::DTYPE != self.dtype {
            return Err(Error::dtype(format!("expected {} elements, found {}", T::DTYPE, self.dtype)));
        }
        Ok(())
    }

    /// The elements in row-major order, if they already lie so. Fails on another element type.
    pub fn as_slice<T: Elem>(&self) -> Result<Option<&[T]>> {
        self.check::<T>()?;
        if !self.is_contiguous() {
            return Ok(None);
        }
        Ok(self.storage.elements::<T>().get(self.offset..self.offset + self.numel()))
    }

    /// The elements in row-major order, copied if they do not already lie so. Fails on another element type.
    pub fn values<T: Elem>(&self) -> Result<Cow<'_, [T]>> {
        if let Some(slice) = self.as_slice::<T>()? {
            return Ok(Cow::Borrowed(slice));
        }
        let mut out = vec![T::zeroed(); self.numel()];
        copy::gather(self, &mut out);
        Ok(Cow::Owned(out))
    }

    /// The only element, as its own type. Fails unless there is exactly one.
    pub fn item<T: Elem>(&self) -> Result<T> {
        match *self.values::<T>()? {
            [value] => Ok(value),
            ref values => Err(Error::shape(format!("one element expected, found {}", values.len()))),
        }
    }

    /// The whole storage as elements: index it with [`offset`](Self::offset) and [`strides`](Self::strides).
    /// Strided kernels use this with [`Nest`].
    pub(crate) fn storage_elements<P: Pod>(&self) -> &[P] {
        self.storage.elements()
    }

    /// The same values, row-major. Free if they already are.
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.is_contiguous() {
            return Ok(self.clone());
        }
        with_raw!(self.dtype, P => Self::build_raw::<P>(self.dtype, &self.shape, |out| {
            copy::gather(self, out);
            Ok(())
        }))
    }

    /// A copy that shares nothing with any other tensor.
    pub fn to_owned_copy(&self) -> Result<Tensor> {
        with_raw!(self.dtype, P => Self::build_raw::<P>(self.dtype, &self.shape, |out| {
            copy::gather(self, out);
            Ok(())
        }))
    }

    /// The elements in row-major order for writing. Copies first if the storage is shared, read-only or not row-major:
    /// keep no other view of a tensor that is updated step by step.
    pub fn make_mut<T: Elem>(&mut self) -> Result<&mut [T]> {
        self.check::<T>()?;
        if !self.is_contiguous() || !self.storage.is_unique() {
            *self = self.to_owned_copy()?;
        }
        let range = self.offset..self.offset + self.numel();
        Ok(self.storage.elements_mut::<T>().and_then(|all| all.get_mut(range)).unwrap_or_default())
    }

    /// Overwrites the part of this tensor that `region` (made from a view of it, see [`region`](Self::region))
    /// describes with the elements of `src`, in place when the storage is unique. `src` must have the region's shape
    /// and this tensor's element type.
    pub(crate) fn assign(&mut self, region: &Region, src: &Tensor) -> Result<()> {
        if src.dtype != self.dtype || src.shape != region.shape {
            let (dtype, shape) = (self.dtype, &region.shape);
            return Err(Error::shape(format!("cannot assign {}{:?} to {dtype}{shape:?}", src.dtype, src.shape)));
        }
        if !self.is_contiguous() || !self.storage.is_unique() {
            *self = self.to_owned_copy()?;
        }
        let strides: Vec<isize> = self.strides.iter().zip(&region.steps).map(|(&s, &step)| s.saturating_mul(step)).collect();
        let offset = self.strides.iter().zip(&region.starts).map(|(&s, &start)| s.unsigned_abs() * start).sum::<usize>();
        let base = self.offset + offset;
        with_raw!(self.dtype, P => match self.storage.elements_mut::<P>() {
            Some(all) => copy::scatter::<P>(all, base, &strides, src),
            None => Ok(()),
        })
    }

    /// The elements as little-endian row-major bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let whole = self.contiguous()?;
        let start = whole.offset * whole.dtype.size();
        let len = whole.numel() * whole.dtype.size();
        Ok(whole.storage.bytes().get(start..start + len).unwrap_or_default().to_vec())
    }
}

/// A box of a tensor, axis by axis: `starts[i] + k·steps[i]` for `k` in `0..shape[i]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) starts: Vec<usize>,
    pub(crate) steps: Vec<isize>,
    pub(crate) shape: Vec<usize>,
}
