//! Matrix products, whatever the factors are stored as.
//!
//! A factor is a [`Matrix`]: something that can write any of its panels as `f32`. The smaller factor is brought into
//! memory as `f32` a block at a time; the larger one is streamed past it, panel by panel, each panel widened (or
//! unpacked, or gathered from an image) into a buffer that stays in cache and multiplied there. So no factor is ever
//! converted as a whole, sums are made in `f32`, and results are rounded once.
//!
//! Where only a few rows meet a matrix whose rows are dense (one token against a weight) the work is reading the matrix:
//! its rows are then multiplied as they are stored.

use std::ops::Range;

use rayon::prelude::*;

use super::simd::{Block, Dots, Float, PairOfBf16, Whole, dots, multiply, split_planes};

/// Most rows multiplied with rows as they are stored; more are worth a panel.
const FEW_ROWS: usize = 12;

/// Depth of a panel.
const DEPTH: usize = 512;

/// Elements of the smaller factor held as `f32` at a time (16 MB).
const RESIDENT: usize = 4 << 20;

/// Most rows of the smaller factor held at a time: enough to pay for the panels of the larger one.
const RESIDENT_ROWS: usize = 512;

/// Multiplications below this many are done on the calling thread.
const PARALLEL_WORK: usize = 1 << 17;

/// One factor of a product: `outer` rows of `depth` elements, summed over the depth.
pub(super) trait Matrix: Sync {
    fn outer(&self) -> usize;

    fn depth(&self) -> usize;

    /// Which way panels are laid out: rows of consecutive `k`, or for each `k` the elements of consecutive rows.
    fn k_inner(&self) -> bool;

    /// Writes a panel, in the layout of [`k_inner`](Self::k_inner), without gaps.
    fn panel(&self, outer: Range<usize>, k: Range<usize>, out: &mut [f32]);

    /// The matrix where it lies, if it is `f32`: with the steps along the rows and along the depth, one of which is 1.
    fn in_place(&self) -> Option<Block<'_>> {
        None
    }

    /// Puts whole rows of the other factor in the order in which [`few`](Self::few) takes them.
    fn prepare(&self, _x: &mut [f32]) {}

    /// `out[r][c] = Σ x[r]·row c` for the rows in `outer` and all of `x`.
    fn few(&self, outer: Range<usize>, x: &[f32], out: &mut [f32]) {
        let (depth, count) = (self.depth(), outer.len());
        // A few rows at a time, which stay in cache between the two passes.
        let group = (8192 / depth.max(1)).clamp(4, 64);
        let mut rows = vec![0f32; group * depth];
        let mut part = Vec::new();
        let xs = x.len() / depth.max(1);
        for start in outer.clone().step_by(group) {
            let end = (start + group).min(outer.end);
            let rows = &mut rows[..(end - start) * depth];
            self.panel(start..end, 0..depth, rows);
            part.clear();
            part.resize(xs * (end - start), 0f32);
            let w = bytemuck::cast_slice(rows);
            dots(Dots { words: Whole, x, w, depth, step: depth, count: end - start, out: &mut part });
            for (out, part) in out.chunks_exact_mut(count).zip(part.chunks_exact(end - start)) {
                out[start - outer.start..end - outer.start].copy_from_slice(part);
            }
        }
    }
}

/// A factor that is a strided part of a tensor.
pub(super) struct Strided<'a, T> {
    pub(super) elements: &'a [T],
    pub(super) offset: usize,
    /// Number of rows and step from one to the next.
    pub(super) outer: (usize, isize),
    /// Number of elements in a row and step from one to the next.
    pub(super) depth: (usize, isize),
}

impl<T: Float> Strided<'_, T> {
    fn step(&self, (len, step): (usize, isize)) -> isize {
        // The step of an axis of length 1 means nothing.
        if len == 1 { 1 } else { step }
    }

    fn index(&self, outer: usize, k: usize) -> usize {
        (self.offset as isize + self.outer.1 * outer as isize + self.depth.1 * k as isize) as usize
    }

    /// The rows `outer` as words, with their distance in words, if words can be had from where they lie.
    fn words(&self, outer: &Range<usize>) -> Option<(&[u32], usize)> {
        let step = usize::try_from(self.outer.1).ok()?;
        let start = self.index(outer.start, 0);
        let rows = self.elements.get(start..start + step * (outer.len() - 1) + self.depth.0)?;
        let per_word = size_of::<u32>() / size_of::<T>();
        if per_word == 0 || step % per_word != 0 || self.depth.0 % per_word != 0 {
            return None;
        }
        Some((bytemuck::try_cast_slice(rows).ok()?, step / per_word))
    }
}

/// Writes elements `start`, `start + step`, … as `f32`.
fn widen_run<T: Float>(elements: &[T], start: usize, step: isize, out: &mut [f32]) {
    if step == 1 {
        return T::widen_to(&elements[start..start + out.len()], out);
    }
    let mut raw = [T::zeroed(); 64];
    let mut at = start as isize;
    for out in out.chunks_mut(raw.len()) {
        let raw = &mut raw[..out.len()];
        for v in raw.iter_mut() {
            *v = elements[at as usize];
            at += step;
        }
        T::widen_to(raw, out);
    }
}

impl<T: Float> Matrix for Strided<'_, T> {
    fn outer(&self) -> usize {
        self.outer.0
    }

    fn depth(&self) -> usize {
        self.depth.0
    }

    fn k_inner(&self) -> bool {
        self.step(self.depth) == 1 || self.step(self.outer) != 1
    }

    fn panel(&self, outer: Range<usize>, k: Range<usize>, out: &mut [f32]) {
        if self.k_inner() {
            for (row, out) in outer.zip(out.chunks_exact_mut(k.len())) {
                widen_run(self.elements, self.index(row, k.start), self.step(self.depth), out);
            }
        } else {
            for (k, out) in k.zip(out.chunks_exact_mut(outer.len())) {
                widen_run(self.elements, self.index(outer.start, k), self.step(self.outer), out);
            }
        }
    }

    fn in_place(&self) -> Option<Block<'_>> {
        let (row_step, col_step) = (usize::try_from(self.outer.1).ok()?, usize::try_from(self.depth.1).ok()?);
        if self.step(self.outer) != 1 && self.step(self.depth) != 1 {
            return None;
        }
        Some(Block { data: T::as_f32(self.elements)?.get(self.offset..)?, row_step, col_step })
    }

    fn prepare(&self, x: &mut [f32]) {
        if size_of::<T>() == 2 && T::DTYPE == etx_ir::DType::BFloat16 && self.words(&(0..1)).is_some() {
            split_planes(x, self.depth.0, 2);
        }
    }

    fn few(&self, outer: Range<usize>, x: &[f32], out: &mut [f32]) {
        let (depth, count) = (self.depth.0, outer.len());
        match (T::DTYPE, self.words(&outer)) {
            (etx_ir::DType::Float32, Some((w, step))) => dots(Dots { words: Whole, x, w, depth, step, count, out }),
            (etx_ir::DType::BFloat16, Some((w, step))) => {
                dots(Dots { words: PairOfBf16, x, w, depth: depth / 2, step, count, out });
            }
            _ => {
                // As the trait does it.
                struct Panels<'a, M>(&'a M);
                impl<M: Matrix> Matrix for Panels<'_, M> {
                    fn outer(&self) -> usize {
                        self.0.outer()
                    }
                    fn depth(&self) -> usize {
                        self.0.depth()
                    }
                    fn k_inner(&self) -> bool {
                        self.0.k_inner()
                    }
                    fn panel(&self, outer: Range<usize>, k: Range<usize>, out: &mut [f32]) {
                        self.0.panel(outer, k, out);
                    }
                }
                Panels(self).few(outer, x, out);
            }
        }
    }
}
