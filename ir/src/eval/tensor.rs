//! Tensors: strided views of shared storage.
//!
//! Views alias, as in PyTorch: what is written through one is seen through all of them. Strides are in elements and never
//! negative.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use super::element::{Complex, Element};
use super::{Error, bad, budget};
use crate::DType;
use crate::weights::TensorData;

/// Most elements a tensor may have, so that a damaged program asks for no more memory than there can be.
pub(super) const MOST_ELEMENTS: usize = 1 << 31;

/// Largest stride, and the place furthest out at which a view may begin, in elements.
const MOST_STRIDE: usize = 1 << 40;

struct Storage {
    bytes: RefCell<Vec<u8>>,
    written: Cell<bool>,
}

/// A tensor. Cloning it gives another handle to the same storage.
#[derive(Clone)]
pub struct Tensor {
    storage: Rc<Storage>,
    dtype: DType,
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
}

/// Strides of a row-major tensor.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    let mut step = 1usize;
    for (stride, &n) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(n.max(1));
    }
    strides
}

/// Number of elements of a shape. No tensor is so large that products of its sizes overflow, not even an empty one.
pub(super) fn count(shape: &[usize]) -> Result<usize, Error> {
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1))).filter(|&n| n <= MOST_ELEMENTS);
    let n = n.ok_or_else(|| bad(format!("a tensor of shape {shape:?} is too large to evaluate")))?;
    budget::check(n)?;
    Ok(if shape.contains(&0) { 0 } else { n })
}

/// Calls `f` with the place of each element, in row-major order.
fn walk(shape: &[usize], strides: &[usize], offset: usize, f: &mut dyn FnMut(usize)) {
    match (shape, strides) {
        ([n, shape @ ..], [stride, strides @ ..]) => (0..*n).for_each(|i| walk(shape, strides, offset + i * stride, f)),
        _ => f(offset),
    }
}

impl Tensor {
    /// A tensor of these elements: row-major, little endian.
    ///
    /// # Errors
    /// [`ErrorKind::Evaluation`](crate::error::ErrorKind::Evaluation) when the bytes are not as many as the shape needs.
    pub fn new(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Result<Self, Error> {
        if count(shape)?.checked_mul(dtype.size()) != Some(bytes.len()) {
            return Err(bad(format!("{} bytes for a tensor {dtype}{shape:?}", bytes.len())));
        }
        budget::spend(bytes.len() / dtype.size().max(1))?;
        let storage = Rc::new(Storage { bytes: RefCell::new(bytes), written: Cell::new(false) });
        Ok(Self { storage, dtype, shape: shape.to_vec(), strides: row_major(shape), offset: 0 })
    }

    /// The tensor that is described.
    ///
    /// # Errors
    /// As [`TensorData::to_vec`], and when it is too large.
    pub fn read(data: &TensorData) -> Result<Self, Error> {
        let shape = data.shape().iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect::<Vec<_>>();
        count(&shape)?;
        Self::new(data.dtype(), &shape, data.to_vec()?)
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements: row-major, little endian.
    pub fn bytes(&self) -> Vec<u8> {
        let size = self.dtype.size();
        let stored = self.storage.bytes.borrow();
        let mut out = Vec::with_capacity(self.numel() * size);
        self.walk(&mut |at| out.extend_from_slice(stored.get(at * size..(at + 1) * size).unwrap_or(&[])));
        out
    }

    /// Strides in elements.
    pub(super) fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Place of the first element in the storage, in elements.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// Number of dimensions.
    pub(super) fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Size of a dimension that is known to exist; 1 for dimension 0 of a scalar.
    pub(super) fn size(&self, axis: usize) -> usize {
        self.shape.get(axis).copied().unwrap_or(1)
    }

    /// The dimension that is so many from the end, 1 being the last.
    pub(super) fn nth_last(&self, n: usize) -> Result<usize, Error> {
        self.rank().checked_sub(n).ok_or_else(|| bad(format!("a tensor of rank {}, need {n} or more", self.rank())))
    }

    /// Number of elements.
    pub(super) fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether anything was written to the storage since it was made.
    pub(super) fn written(&self) -> bool {
        self.storage.written.get()
    }

    /// Whether no other tensor shares the storage.
    pub(super) fn is_alone(&self) -> bool {
        Rc::strong_count(&self.storage) == 1
    }

    fn walk(&self, f: &mut dyn FnMut(usize)) {
        walk(&self.shape, &self.strides, self.offset, f);
    }

    /// The elements in row-major order, converted.
    pub(super) fn to<T: Element>(&self) -> Vec<T> {
        let size = self.dtype.size();
        let stored = self.storage.bytes.borrow();
        let mut out = Vec::with_capacity(self.numel());
        self.walk(&mut |at| out.push(T::read(self.dtype, stored.get(at * size..(at + 1) * size).unwrap_or(&[]))));
        out
    }

    /// A new tensor of these elements, converted to the type.
    pub(super) fn of<T: Element>(dtype: DType, shape: &[usize], elements: impl IntoIterator<Item = T>) -> Result<Self, Error> {
        let size = dtype.size();
        let n = count(shape)?;
        if size == 1 && dtype.is_float() {
            // Whose nearest code is looked for among all.
            budget::work(n, 256)?;
        }
        let mut bytes = vec![0; n * size];
        let mut elements = elements.into_iter();
        for (place, x) in bytes.chunks_exact_mut(size).zip(&mut elements) {
            x.write(dtype, place);
        }
        Self::new(dtype, shape, bytes)
    }

    /// A new tensor of equal elements.
    pub(super) fn full<T: Element>(dtype: DType, shape: &[usize], x: T) -> Result<Self, Error> {
        let mut element = vec![0; dtype.size()];
        x.write(dtype, &mut element);
        Self::new(dtype, shape, element.repeat(count(shape)?))
    }

    /// A scalar.
    pub(super) fn scalar<T: Element>(dtype: DType, x: T) -> Result<Self, Error> {
        Self::full(dtype, &[], x)
    }

    /// The only element.
    pub(super) fn item<T: Element>(&self) -> Result<T, Error> {
        match self.to::<T>().as_slice() {
            [x] => Ok(*x),
            all => Err(bad(format!("a tensor of {} elements is no scalar", all.len()))),
        }
    }

    /// A row-major copy.
    pub(super) fn copy(&self) -> Result<Self, Error> {
        Self::new(self.dtype, &self.shape, self.bytes())
    }

    /// A copy converted to the type.
    pub(super) fn cast(&self, dtype: DType) -> Result<Self, Error> {
        match self.dtype {
            same if same == dtype => self.copy(),
            from if from.is_complex() => Self::of(dtype, &self.shape, self.to::<Complex>()),
            from if from.is_float() || from == DType::UInt64 => Self::of(dtype, &self.shape, self.to::<f64>()),
            _ => Self::of(dtype, &self.shape, self.to::<i64>()),
        }
    }

    /// Overwrites the elements with those of another tensor, broadcast and converted.
    pub(super) fn write(&self, from: &Tensor) -> Result<(), Error> {
        let bytes = from.expand(&self.shape)?.cast(self.dtype)?.bytes();
        self.put(&bytes);
        Ok(())
    }

    /// Overwrites the elements, in row-major order.
    fn put(&self, bytes: &[u8]) {
        let size = self.dtype.size();
        let mut stored = self.storage.bytes.borrow_mut();
        let mut elements = bytes.chunks_exact(size);
        self.walk(&mut |at| {
            if let (Some(to), Some(from)) = (stored.get_mut(at * size..(at + 1) * size), elements.next()) {
                to.copy_from_slice(from);
            }
        });
        self.storage.written.set(true);
    }

    /// Another view of the storage.
    pub(super) fn view(&self, shape: Vec<usize>, strides: Vec<usize>, offset: usize) -> Result<Self, Error> {
        self.view_as(self.dtype, shape, strides, offset)
    }

    /// Another view of the storage, whose elements are of another type.
    pub(super) fn view_as(&self, dtype: DType, shape: Vec<usize>, strides: Vec<usize>, offset: usize) -> Result<Self, Error> {
        if count(&shape)? > 0 {
            let last = shape.iter().zip(&strides).try_fold(offset, |at, (n, stride)| at.checked_add((n - 1).checked_mul(*stride)?));
            let end = last.and_then(|l| l.checked_add(1)?.checked_mul(dtype.size()));
            let have = self.storage.bytes.borrow().len();
            if end.is_none_or(|end| end > have) {
                return Err(bad(format!("a view {shape:?} with strides {strides:?} from {offset} reaches beyond {have} bytes")));
            }
        }
        // Dimensions of one position, and tensors without elements, may have any; sums and products of these do not overflow.
        if strides.iter().chain([&offset]).any(|&s| s > MOST_STRIDE) {
            return Err(bad(format!("a view {shape:?} with strides {strides:?} from {offset}")));
        }
        Ok(Self { storage: self.storage.clone(), dtype, shape, strides, offset })
    }

    /// The view with these strides over a new storage that holds the same elements; for tensors that are not row-major in Python.
    pub(super) fn laid_out(&self, strides: &[usize]) -> Result<Self, Error> {
        let last: usize =
            self.shape.iter().zip(strides).map(|(&n, &s)| n.saturating_sub(1).saturating_mul(s)).fold(0, usize::saturating_add);
        let elements = if self.numel() == 0 { 0 } else { count(&[last.saturating_add(1)])? };
        let whole = Self::new(self.dtype, &[elements], vec![0; elements * self.dtype.size()])?;
        let view = whole.view(self.shape.clone(), strides.to_vec(), 0)?;
        view.put(&self.bytes());
        view.storage.written.set(false);
        Ok(view)
    }

    /// Whether the elements lie in row-major order without gaps.
    pub(super) fn is_row_major(&self) -> bool {
        self.numel() == 0 || self.strides.iter().zip(row_major(&self.shape)).zip(&self.shape).all(|((a, b), &n)| *a == b || n == 1)
    }

    /// A view broadcast to a shape.
    pub(super) fn expand(&self, shape: &[usize]) -> Result<Self, Error> {
        let wrong = || bad(format!("shape {:?} does not broadcast to {shape:?}", self.shape));
        let skip = shape.len().checked_sub(self.rank()).ok_or_else(wrong)?;
        let mut strides = vec![0; shape.len()];
        for ((stride, &to), (&n, &s)) in strides.iter_mut().zip(shape).skip(skip).zip(self.shape.iter().zip(&self.strides)) {
            *stride = match n {
                _ if n == to => s,
                1 => 0,
                _ => return Err(wrong()),
            };
        }
        self.view(shape.to_vec(), strides, self.offset)
    }

    /// A view with dimensions in another order. Every dimension must be named once.
    pub(super) fn permute(&self, order: &[usize]) -> Result<Self, Error> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if sorted != (0..self.rank()).collect::<Vec<_>>() {
            return Err(bad(format!("{order:?} is no order of {} dimensions", self.rank())));
        }
        let pick = |from: &[usize]| order.iter().filter_map(|&a| from.get(a).copied()).collect();
        self.view(pick(&self.shape), pick(&self.strides), self.offset)
    }

    /// A view with two dimensions swapped.
    pub(super) fn transpose(&self, a: usize, b: usize) -> Result<Self, Error> {
        let mut order: Vec<usize> = (0..self.rank()).collect();
        if a.max(b) < order.len() {
            order.swap(a, b);
        }
        self.permute(&order)
    }

    /// A view of `length` positions of a dimension, `step` apart.
    pub(super) fn slice(&self, axis: usize, start: usize, length: usize, step: usize) -> Result<Self, Error> {
        let (Some(&n), Some(&stride)) = (self.shape.get(axis), self.strides.get(axis)) else {
            return Err(bad(format!("dimension {axis} of a tensor of rank {}", self.rank())));
        };
        let end = length.checked_sub(1).map_or(Some(start), |l| start.checked_add(l.checked_mul(step)?)?.checked_add(1));
        if end.is_none_or(|end| end > n) {
            return Err(bad(format!("positions {start}.. of dimension {axis}, which has {n}")));
        }
        let (mut shape, mut strides) = (self.shape.clone(), self.strides.clone());
        if let (Some(n), Some(s)) = (shape.get_mut(axis), strides.get_mut(axis)) {
            // A single position has no step.
            (*n, *s) = (length, if length > 1 { stride.saturating_mul(step) } else { stride });
        }
        self.view(shape, strides, self.offset.saturating_add(start.saturating_mul(stride)))
    }

    /// A view of one position of a dimension, which goes.
    pub(super) fn select(&self, axis: usize, at: usize) -> Result<Self, Error> {
        self.slice(axis, at, 1, 1)?.squeeze(axis)
    }

    /// A view with a new dimension of size 1.
    pub(super) fn unsqueeze(&self, axis: usize) -> Result<Self, Error> {
        let (mut shape, mut strides) = (self.shape.clone(), self.strides.clone());
        if axis > self.rank() {
            return Err(bad(format!("a new dimension {axis} in a tensor of rank {}", self.rank())));
        }
        let step = shape.get(axis).zip(strides.get(axis)).map_or(1, |(n, s)| n.saturating_mul(*s));
        shape.insert(axis, 1);
        strides.insert(axis, step);
        self.view(shape, strides, self.offset)
    }

    /// A view without a dimension of size 1.
    pub(super) fn squeeze(&self, axis: usize) -> Result<Self, Error> {
        let (mut shape, mut strides) = (self.shape.clone(), self.strides.clone());
        if shape.get(axis) == Some(&1) {
            shape.remove(axis);
            strides.remove(axis);
        }
        self.view(shape, strides, self.offset)
    }

    /// The elements in another shape: a view where the strides allow it, else a copy.
    pub(super) fn reshape(&self, shape: &[usize]) -> Result<Self, Error> {
        if count(shape)? != self.numel() {
            return Err(bad(format!("shape {:?} cannot become {shape:?}", self.shape)));
        }
        match restride(&self.shape, &self.strides, shape) {
            Some(strides) => self.view(shape.to_vec(), strides, self.offset),
            None => Self::new(self.dtype, shape, self.bytes()),
        }
    }

    /// Dimensions merged into one: those from `first` to the end of `..end`.
    pub(super) fn merge(&self, first: usize, end: usize) -> Result<Self, Error> {
        let (head, rest) = self.shape.split_at(first.min(self.rank()));
        let (middle, tail) = rest.split_at(end.saturating_sub(first).min(rest.len()));
        self.reshape(&[head, &[middle.iter().product()], tail].concat())
    }
}

/// Strides that show the same elements, in the same order, in another shape; `None` where there are none.
fn restride(from: &[usize], strides: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    if from.contains(&0) {
        return Some(row_major(to));
    }
    // Runs of dimensions that one stride steps through, innermost last.
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (&n, &s) in from.iter().zip(strides).filter(|(n, _)| **n != 1) {
        match runs.last_mut() {
            Some((size, stride)) if *stride == s * n => (*size, *stride) = (*size * n, s),
            _ => runs.push((n, s)),
        }
    }
    let mut out = vec![0; to.len()];
    let (mut left, mut step) = (1, 1);
    for (stride, &n) in out.iter_mut().zip(to).rev() {
        if left == 1 && n != 1 {
            (left, step) = runs.pop()?;
        }
        *stride = step;
        if left % n != 0 {
            return None;
        }
        (left, step) = (left / n, step * n);
    }
    Some(out)
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        match self.numel() {
            n if n > 64 => f.write_str(" …"),
            _ if self.dtype.is_complex() => write!(f, " {:?}", self.to::<Complex>()),
            _ if self.dtype.is_float() => write!(f, " {:?}", self.to::<f64>()),
            _ => write!(f, " {:?}", self.to::<i64>()),
        }
    }
}
