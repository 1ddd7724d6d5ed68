//! Views: new shapes over the same elements.

use super::{Region, Tensor, checked_numel, contiguous_strides};
use crate::error::{Error, Result};

/// `axis` (negative counts from the end) of a tensor of this rank.
pub(crate) fn normalise_axis(axis: i64, rank: usize) -> Result<usize> {
    let wrapped = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    usize::try_from(wrapped).ok().filter(|&a| a < rank).ok_or_else(|| Error::range(format!("axis {axis} is out of range for rank {rank}")))
}

/// The shape that all of these broadcast to (NumPy rules, aligned from the right).
pub(crate) fn broadcast_shapes(shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1usize; rank];
    for shape in shapes {
        let skip = rank - shape.len();
        for (o, &len) in out[skip..].iter_mut().zip(*shape) {
            match (*o, len) {
                (a, b) if a == b => {}
                (1, b) => *o = b,
                (_, 1) => {}
                _ => return Err(Error::shape(format!("shapes {shapes:?} do not broadcast together"))),
            }
        }
    }
    checked_numel(&out)?;
    Ok(out)
}

impl Tensor {
    /// Any view of the same storage. `offset` is absolute, in elements. Fails if an element would lie outside.
    pub(crate) fn view(&self, shape: Vec<usize>, strides: Vec<isize>, offset: usize) -> Result<Tensor> {
        let numel = checked_numel(&shape)?;
        if numel > 0 {
            let bad = || Error::range(format!("a view of shape {shape:?}, strides {strides:?} at {offset} leaves its tensor"));
            let (mut low, mut high) = (offset as i128, offset as i128);
            for (&len, &stride) in shape.iter().zip(&strides) {
                let reach = stride as i128 * (len as i128 - 1);
                if reach < 0 { low += reach } else { high += reach }
            }
            let available = (self.storage.bytes().len() / self.dtype.size()) as i128;
            if low < 0 || high >= available || shape.len() != strides.len() {
                return Err(bad());
            }
        }
        let offset = if numel == 0 { 0 } else { offset };
        Ok(Tensor { dtype: self.dtype, shape, strides, offset, storage: self.storage.clone() })
    }

    /// Axes in the order `perm` (each of them once; negative counts from the end).
    pub fn transpose(&self, perm: &[i64]) -> Result<Tensor> {
        let bad = || Error::range(format!("{perm:?} is not a permutation of {} axes", self.rank()));
        if perm.len() != self.rank() {
            return Err(bad());
        }
        let mut seen = vec![false; self.rank()];
        let (mut shape, mut strides) = (Vec::with_capacity(perm.len()), Vec::with_capacity(perm.len()));
        for &p in perm {
            let axis = normalise_axis(p, self.rank())?;
            if std::mem::replace(&mut seen[axis], true) {
                return Err(bad());
            }
            shape.push(self.shape[axis]);
            strides.push(self.strides[axis]);
        }
        self.view(shape, strides, self.offset)
    }

    /// Broadcast to `shape` (NumPy rules).
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Tensor> {
        let bad = || Error::shape(format!("{:?} does not broadcast to {shape:?}", self.shape));
        let skip = shape.len().checked_sub(self.rank()).ok_or_else(bad)?;
        let mut strides = vec![0isize; shape.len()];
        for (axis, (&have, &want)) in self.shape.iter().zip(&shape[skip..]).enumerate() {
            if have == want {
                strides[skip + axis] = self.strides[axis];
            } else if have != 1 {
                return Err(bad());
            }
        }
        self.view(shape.to_vec(), strides, self.offset)
    }

    /// A new axis of length 1 so that it is `axis` of the result (negative counts from the end of the result).
    pub fn expand_dims(&self, axis: i64) -> Result<Tensor> {
        let axis = normalise_axis(axis, self.rank() + 1)?;
        let (mut shape, mut strides) = (self.shape.clone(), self.strides.clone());
        shape.insert(axis, 1);
        strides.insert(axis, 0);
        self.view(shape, strides, self.offset)
    }

    /// Without the given axes, which must have length 1.
    pub fn squeeze(&self, axes: &[usize]) -> Result<Tensor> {
        if let Some(axis) = axes.iter().find(|&&a| self.shape.get(a) != Some(&1)) {
            return Err(Error::shape(format!("axis {axis} of {:?} has not length 1", self.shape)));
        }
        let keep = |axis: &usize| !axes.contains(axis);
        let shape = (0..self.rank()).filter(keep).map(|a| self.shape[a]).collect();
        let strides = (0..self.rank()).filter(keep).map(|a| self.strides[a]).collect();
        self.view(shape, strides, self.offset)
    }

    /// The elements `start`, `start + step`, … (`len` of them) along one axis.
    pub fn slice_axis(&self, axis: usize, start: usize, step: isize, len: usize) -> Result<Tensor> {
        let (Some(&have), Some(&stride)) = (self.shape.get(axis), self.strides.get(axis)) else {
            return Err(Error::range(format!("axis {axis} is out of range for rank {}", self.rank())));
        };
        let last = (len as i128 - 1) * step as i128 + start as i128;
        if len > 0 && (start >= have || last < 0 || last >= have as i128) {
            let bounds = format!("{len} elements from {start} by {step}");
            return Err(Error::range(format!("{bounds} leave axis {axis} of length {have}")));
        }
        let (mut shape, mut strides) = (self.shape.clone(), self.strides.clone());
        shape[axis] = len;
        strides[axis] = stride.saturating_mul(step);
        let offset = if self.numel() == 0 || len == 0 { 0 } else { (self.offset as isize + stride * start as isize) as usize };
        self.view(shape, strides, offset)
    }

    /// The sub-tensor at one index of one axis; the axis is removed.
    pub fn select(&self, axis: usize, index: usize) -> Result<Tensor> {
        self.slice_axis(axis, index, 1, 1)?.squeeze(&[axis])
    }

    /// The same elements in row-major order under another shape. A view where strides permit, a copy otherwise.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if checked_numel(shape)? != self.numel() {
            return Err(Error::shape(format!("{:?} cannot be reshaped to {shape:?}", self.shape)));
        }
        match self.strides_for(shape) {
            Some(strides) => self.view(shape.to_vec(), strides, self.offset),
            None => {
                let whole = self.contiguous()?;
                whole.view(shape.to_vec(), contiguous_strides(shape), whole.offset)
            }
        }
    }

    /// Strides that show these elements, in the same order, under `shape`; `None` if a copy is needed.
    fn strides_for(&self, shape: &[usize]) -> Option<Vec<isize>> {
        if self.numel() == 0 {
            return Some(contiguous_strides(shape));
        }
        // Merge the axes that are one run, then cut the runs into the new axes.
        let mut runs: Vec<(usize, isize)> = Vec::new();
        for (&len, &stride) in self.shape.iter().zip(&self.strides).filter(|(len, _)| **len != 1) {
            match runs.last_mut() {
                Some((n, s)) if *s == stride * len as isize => (*n, *s) = (*n * len, stride),
                _ => runs.push((len, stride)),
            }
        }
        let mut strides = vec![1isize; shape.len()];
        let mut run = runs.iter().rev();
        let (mut left, mut step) = (1usize, 1isize);
        for (axis, &len) in shape.iter().enumerate().rev() {
            if len == 1 {
                strides[axis] = step;
                continue;
            }
            if left == 1 {
                (left, step) = *run.next()?;
            }
            if left % len != 0 {
                return None;
            }
            strides[axis] = step;
            step *= len as isize;
            left /= len;
        }
        Some(strides)
    }

    /// The region of this tensor that a slice of one axis covers; for [`assign`](Self::assign).
    pub(crate) fn region(&self, axis: usize, start: usize, step: isize, len: usize) -> Result<Region> {
        // The slice itself proves the bounds.
        let shape = self.slice_axis(axis, start, step, len)?.shape;
        let (mut starts, mut steps) = (vec![0; self.rank()], vec![1; self.rank()]);
        starts[axis] = start;
        steps[axis] = step;
        Ok(Region { starts, steps, shape })
    }
}
