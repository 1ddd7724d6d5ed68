//! Element-wise evaluation in chunks.
//!
//! Every element-wise kernel works the same way: the result is cut into chunks that fit the first-level cache; for each
//! chunk every operand is brought into a plain slice (in place where it is contiguous, through a buffer where it is
//! broadcast or strided), halves are widened to `f32`, a function over plain slices does the arithmetic, and the result
//! is rounded back. So one loop serves all layouts, and one function each operator.

use bytemuck::Pod;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

use crate::error::Result;
use crate::tensor::{Bool, Elem, Nest, PARALLEL_BYTES, Tensor};

/// Elements a chunk: three buffers of 8-byte elements stay within a 32 KiB first-level cache.
pub(crate) const CHUNK: usize = 1024;

/// Elements a thread takes at a time.
const GRAIN: usize = 32 * CHUNK;

/// An element type with the type that arithmetic on it is done in: `f32` for the halves, itself otherwise.
pub(crate) trait Compute: Elem {
    /// Type of the intermediate values.
    type Acc: Elem;

    /// `src` as intermediate values; `buf` (at least as long) is used when they differ.
    fn widen<'a>(src: &'a [Self], buf: &'a mut [Self::Acc]) -> &'a [Self::Acc];

    /// Lets `f` write intermediate values, then rounds them into `dst`.
    fn narrow(dst: &mut [Self], buf: &mut [Self::Acc], f: impl FnOnce(&mut [Self::Acc]));

    /// An intermediate value as the nearest one that the element type can hold.
    fn rounded(value: Self::Acc) -> Self::Acc;
}

macro_rules! compute_in_itself {
    ($($t:ty),*) => { $(impl Compute for $t {
        type Acc = $t;
        fn widen<'a>(src: &'a [Self], _: &'a mut [Self]) -> &'a [Self] {
            src
        }
        fn narrow(dst: &mut [Self], _: &mut [Self], f: impl FnOnce(&mut [Self])) {
            f(dst);
        }
        #[inline]
        fn rounded(value: Self) -> Self {
            value
        }
    })* };
}

compute_in_itself!(Bool, u8, i8, i16, u16, i32, u32, i64, u64, f32, f64);

impl Compute for f16 {
    type Acc = f32;

    fn widen<'a>(src: &'a [Self], buf: &'a mut [f32]) -> &'a [f32] {
        let buf = &mut buf[..src.len()];
        src.convert_to_f32_slice(buf);
        buf
    }

    fn narrow(dst: &mut [Self], buf: &mut [f32], f: impl FnOnce(&mut [f32])) {
        let buf = &mut buf[..dst.len()];
        f(buf);
        dst.convert_from_f32_slice(buf);
    }

    #[inline]
    fn rounded(value: f32) -> f32 {
        f16::from_f32(value).to_f32()
    }
}

impl Compute for bf16 {
    type Acc = f32;

    fn widen<'a>(src: &'a [Self], buf: &'a mut [f32]) -> &'a [f32] {
        let buf = &mut buf[..src.len()];
        for (o, v) in buf.iter_mut().zip(src) {
            *o = bf16_to_f32(*v);
        }
        buf
    }

    fn narrow(dst: &mut [Self], buf: &mut [f32], f: impl FnOnce(&mut [f32])) {
        let buf = &mut buf[..dst.len()];
        f(buf);
        for (o, v) in dst.iter_mut().zip(&*buf) {
            *o = f32_to_bf16(*v);
        }
    }

    #[inline]
    fn rounded(value: f32) -> f32 {
        bf16_to_f32(f32_to_bf16(value))
    }
}

/// Exact.
#[inline]
pub(crate) fn bf16_to_f32(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// Rounds to nearest, ties to even; written without branches so that loops over it vectorise.
#[inline]
pub(crate) fn f32_to_bf16(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet_nan = (bits >> 16) | 0x40;
    bf16::from_bits(if value.is_nan() { quiet_nan } else { rounded } as u16)
}

/// One operand of an element-wise kernel, broadcast to the result's shape and read chunk by chunk.
pub(crate) struct Operand<'a, S> {
    elements: &'a [S],
    offset: isize,
    nest: Nest<1>,
}

impl<'a, S: Pod> Operand<'a, S> {
    /// `S` must have the size of the tensor's elements.
    pub(crate) fn new(tensor: &'a Tensor, shape: &[usize]) -> Result<Self> {
        let view = tensor.broadcast_to(shape)?;
        let nest = Nest::new(shape, [view.strides()]);
        Ok(Operand { elements: tensor.storage_elements(), offset: view.offset() as isize, nest })
    }

    /// The elements at `start..start + len` of the row-major result.
    pub(crate) fn chunk<'b>(&'b self, start: usize, len: usize, buf: &'b mut [S]) -> &'b [S] {
        let (_, [step]) = self.nest.inner();
        if step == 1 && self.nest.axes().len() == 1 {
            let from = self.offset as usize + start;
            return &self.elements[from..from + len];
        }
        let buf = &mut buf[..len];
        self.nest.runs(start, start + len, |at, [offset], len| {
            let from = self.offset + offset;
            let out = &mut buf[at..at + len];
            match step {
                1 => out.copy_from_slice(&self.elements[from as usize..from as usize + len]),
                0 => out.fill(self.elements[from as usize]),
                _ => {
                    for (i, o) in out.iter_mut().enumerate() {
                        *o = self.elements[(from + step * i as isize) as usize];
                    }
                }
            }
        });
        buf
    }
}

/// Calls `work(first, part)` for parts of `out` of `some` elements each (the last may be shorter), on several threads.
///
/// The threads see bytes, so that one copy of the machinery serves all element types and kernels.
pub(crate) fn for_parts<D: Pod>(out: &mut [D], some: usize, work: &(dyn Fn(usize, &mut [D]) + Sync)) {
    let some = some.max(1);
    spread(bytemuck::cast_slice_mut(out), some * size_of::<D>(), &|part, bytes| {
        work(part * some, bytemuck::cast_slice_mut(bytes));
    });
}

fn spread(out: &mut [u8], some: usize, work: &(dyn Fn(usize, &mut [u8]) + Sync)) {
    out.par_chunks_mut(some).enumerate().for_each(|(part, bytes)| work(part, bytes));
}

/// Calls `work(start, chunk)` for all chunks of `out`, on several threads if there is enough to do. `scratch` makes the
/// buffers of one thread.
pub(crate) fn for_chunks<D: Pod, B>(out: &mut [D], scratch: impl Fn() -> B + Sync, work: impl Fn(usize, &mut [D], &mut B) + Sync) {
    let serial = |base: usize, out: &mut [D]| {
        let mut buffers = scratch();
        for (i, chunk) in out.chunks_mut(CHUNK).enumerate() {
            work(base + i * CHUNK, chunk, &mut buffers);
        }
    };
    if size_of_val(out) > PARALLEL_BYTES {
        for_parts(out, GRAIN, &serial);
    } else {
        serial(0, out);
    }
}

/// A buffer for one chunk.
pub(crate) fn buffer<T: Pod>() -> Box<[T]> {
    vec![T::zeroed(); CHUNK].into_boxed_slice()
}

/// `f` over the elements of one tensor, type to type.
pub(crate) fn map1<S: Compute, D: Compute>(x: &Tensor, f: impl Fn(&[S::Acc], &mut [D::Acc]) + Sync) -> Result<Tensor> {
    map1_any::<S, D>(x, &f)
}

/// [`map1`], compiled once for each pair of types and not for each function.
#[expect(clippy::type_complexity, reason = "a name would say less than the type")]
fn map1_any<S: Compute, D: Compute>(x: &Tensor, f: &(dyn Fn(&[S::Acc], &mut [D::Acc]) + Sync)) -> Result<Tensor> {
    // What is repeated is computed once, and repeated in the result: MLX does so too, and IndexCopy shows it.
    let distinct: Vec<usize> = x.shape().iter().zip(x.strides()).map(|(&n, &s)| if s == 0 { n.min(1) } else { n }).collect();
    if distinct != x.shape() {
        let once = x.view(distinct, x.strides().to_vec(), x.offset())?;
        return map1_any::<S, D>(&once, f)?.broadcast_to(x.shape());
    }
    let operand = Operand::<S>::new(x, x.shape())?;
    Tensor::build::<D>(x.shape(), |out| {
        let scratch = || (buffer::<S>(), buffer::<S::Acc>(), buffer::<D::Acc>());
        for_chunks(out, scratch, |start, out, (raw, wide, result)| {
            let x = S::widen(operand.chunk(start, out.len(), raw), wide);
            D::narrow(out, result, |out| f(x, out));
        });
        Ok(())
    })
}

/// `f` over the elements of two tensors of one type, broadcast together to `shape`.
pub(crate) fn map2<S: Compute, D: Compute>(
    a: &Tensor,
    b: &Tensor,
    shape: &[usize],
    f: impl Fn(&[S::Acc], &[S::Acc], &mut [D::Acc]) + Sync,
) -> Result<Tensor> {
    map2_any::<S, D>(a, b, shape, &f)
}

/// A function of two slices with a third for the result.
type Function2<'a, S, D> = &'a (dyn Fn(&[S], &[S], &mut [D]) + Sync);

/// [`map2`], compiled once for each pair of types and not for each function.
fn map2_any<S: Compute, D: Compute>(a: &Tensor, b: &Tensor, shape: &[usize], f: Function2<'_, S::Acc, D::Acc>) -> Result<Tensor> {
    let same_everywhere = |t: &Tensor| t.shape().iter().zip(t.strides()).all(|(&n, &s)| n == 1 || (s == 0 && n > 0));
    if shape.iter().any(|&n| n > 1) && !shape.contains(&0) && same_everywhere(a) && same_everywhere(b) {
        let [a, b] = [a, b].map(|t| t.view(Vec::new(), Vec::new(), t.offset()));
        return map2_any::<S, D>(&a?, &b?, &[], f)?.broadcast_to(shape);
    }
    let (a, b) = (Operand::<S>::new(a, shape)?, Operand::<S>::new(b, shape)?);
    Tensor::build::<D>(shape, |out| {
        let scratch = || (buffer::<S>(), buffer::<S::Acc>(), buffer::<S>(), buffer::<S::Acc>(), buffer::<D::Acc>());
        for_chunks(out, scratch, |start, out, (raw_a, wide_a, raw_b, wide_b, result)| {
            let a = S::widen(a.chunk(start, out.len(), raw_a), wide_a);
            let b = S::widen(b.chunk(start, out.len(), raw_b), wide_b);
            D::narrow(out, result, |out| f(a, b, out));
        });
        Ok(())
    })
}
