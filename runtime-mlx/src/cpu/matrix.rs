//! Matrix products, whatever the factors are stored as.
//!
//! A factor is a [`Matrix`]: something that can write any of its panels as `f32`. The smaller factor is brought into
//! memory as `f32` a block at a time; the larger one is streamed past it, panel by panel, each panel widened (or
//! unpacked, or gathered from an image) into a buffer that stays in cache and multiplied there. So no factor is ever
//! converted as a whole, sums are made in `f32`, and results are rounded once.
//!
//! Where only a few rows meet a matrix whose rows are dense (one token against a weight) the work is reading the matrix:
//! its rows are then multiplied as they are stored.

use std::borrow::Cow;
use std::ops::Range;

use etx_ir::DType;
use rayon::prelude::*;

use super::simd::{Block, Dots, Float, PairOfBf16, Whole, dots, multiply, split_planes};

/// Most rows multiplied with rows as they are stored; more are worth a panel.
pub(super) const FEW_ROWS: usize = 12;

/// Depth of a panel.
const DEPTH: usize = 512;

/// Elements of the smaller factor held as `f32` at a time (16 MB).
const RESIDENT: usize = 4 << 20;

/// Most rows of the smaller factor held at a time: enough to pay for the panels of the larger one.
const RESIDENT_ROWS: usize = 512;

/// Multiplications below this many are done on the calling thread.
pub(super) const PARALLEL_WORK: usize = 1 << 17;

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

    /// Whether [`few`](Self::few) is the way however many rows of the other factor there are.
    fn always_as_stored(&self) -> bool {
        false
    }

    /// Puts whole rows of the other factor in the form in which [`few`](Self::few) takes them; all rows keep one length.
    fn prepare(&self, x: Vec<f32>) -> Vec<f32> {
        x
    }

    /// `out[r][c] = Σ x[r]·row c` for the rows in `outer` and all of `x`, which was [prepared](Self::prepare).
    fn few(&self, outer: Range<usize>, x: &[f32], out: &mut [f32]);
}

/// [`Matrix::few`] for matrices that have to be unpacked first.
pub(super) fn few_by_panels(matrix: &impl Matrix, outer: Range<usize>, x: &[f32], out: &mut [f32]) {
    let (depth, count) = (matrix.depth(), outer.len());
    // A few rows at a time, which stay in cache between the two passes.
    let group = (8192 / depth.max(1)).clamp(4, 64);
    let mut rows = vec![0f32; group * depth];
    let mut part = Vec::new();
    let xs = x.len() / depth.max(1);
    for start in outer.clone().step_by(group) {
        let end = (start + group).min(outer.end);
        let rows = &mut rows[..(end - start) * depth];
        matrix.panel(start..end, 0..depth, rows);
        part.clear();
        part.resize(xs * (end - start), 0f32);
        let w = bytemuck::cast_slice(rows);
        dots(Dots { words: Whole, x, w, depth, step: depth, count: end - start, out: &mut part });
        for (out, part) in out.chunks_exact_mut(count).zip(part.chunks_exact(end - start)) {
            out[start - outer.start..end - outer.start].copy_from_slice(part);
        }
    }
}

/// A factor that is a strided part of a tensor.
pub(super) struct Strided<'a, T> {
    elements: &'a [T],
    offset: usize,
    /// Number of rows and step from one to the next.
    outer: (usize, isize),
    /// Number of elements in a row and step from one to the next.
    depth: (usize, isize),
    /// All rows as words, with their distance in words, if words can be had from where they lie.
    words: Option<(&'a [u32], usize)>,
}

impl<'a, T: Float> Strided<'a, T> {
    /// The elements at `offset + i·outer.1 + k·depth.1`, which must all exist.
    pub(super) fn new(elements: &'a [T], offset: usize, outer: (usize, isize), depth: (usize, isize)) -> Self {
        // The step of an axis of length 1 means nothing.
        let plain = |(len, step)| (len, if len <= 1 { 1 } else { step });
        let mut strided = Strided { elements, offset, outer: plain(outer), depth: plain(depth), words: None };
        if outer.0 <= 1 {
            strided.outer.1 = strided.depth.0 as isize;
        }
        strided.words = strided.words();
        strided
    }

    fn words(&self) -> Option<(&'a [u32], usize)> {
        let step = usize::try_from(self.outer.1).ok()?;
        let per_word = size_of::<u32>().checked_div(size_of::<T>()).filter(|&n| n > 0)?;
        let whole = self.depth.1 == 1 && step.is_multiple_of(per_word) && self.depth.0.is_multiple_of(per_word);
        let last = self.outer.0.checked_sub(1)?;
        let rows = self.elements.get(self.offset..self.offset + step * last + self.depth.0)?;
        Some((bytemuck::try_cast_slice(rows).ok().filter(|_| whole)?, step / per_word))
    }

    fn index(&self, outer: usize, k: usize) -> usize {
        (self.offset as isize + self.outer.1 * outer as isize + self.depth.1 * k as isize) as usize
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
        self.depth.1 == 1 || self.outer.1 != 1
    }

    fn panel(&self, outer: Range<usize>, k: Range<usize>, out: &mut [f32]) {
        if self.k_inner() {
            for (row, out) in outer.zip(out.chunks_exact_mut(k.len())) {
                widen_run(self.elements, self.index(row, k.start), self.depth.1, out);
            }
        } else {
            for (k, out) in k.zip(out.chunks_exact_mut(outer.len())) {
                widen_run(self.elements, self.index(outer.start, k), self.outer.1, out);
            }
        }
    }

    fn in_place(&self) -> Option<Block<'_>> {
        let (row_step, col_step) = (usize::try_from(self.outer.1).ok()?, usize::try_from(self.depth.1).ok()?);
        if row_step != 1 && col_step != 1 {
            return None;
        }
        Some(Block { data: T::as_f32(self.elements)?.get(self.offset..)?, row_step, col_step })
    }

    fn prepare(&self, mut x: Vec<f32>) -> Vec<f32> {
        if T::DTYPE == DType::BFloat16 && self.words.is_some() {
            split_planes(&mut x, self.depth.0, 2);
        }
        x
    }

    fn few(&self, outer: Range<usize>, x: &[f32], out: &mut [f32]) {
        let (depth, count) = (self.depth.0, outer.len());
        match (T::DTYPE, self.words) {
            (DType::Float32, Some((w, step))) => dots(Dots { words: Whole, x, w: &w[outer.start * step..], depth, step, count, out }),
            (DType::BFloat16, Some((w, step))) => {
                let w = &w[outer.start * step..];
                dots(Dots { words: PairOfBf16, x, w, depth: depth / 2, step, count, out });
            }
            _ => few_by_panels(self, outer, x, out),
        }
    }
}

/// What happens to sums before they are rounded: given row and first column of a run of them.
pub(super) type Finish<'a> = &'a (dyn Fn(usize, usize, &mut [f32]) + Sync);

/// `out[i][j] = Σ_k a[i][k]·b[j][k]`, passed through `finish` and rounded. The rows of `out` may lie anywhere.
pub(super) fn product<T: Float>(a: &dyn Matrix, b: &dyn Matrix, mut out: Vec<&mut [T]>, finish: Finish<'_>) {
    let (rows, cols, depth) = (a.outer(), b.outer(), a.depth());
    if rows == 0 || cols == 0 {
        return;
    }
    if depth == 0 {
        let zeros = vec![0f32; rows * cols];
        return store(&zeros, (cols, 1), (0, 0), out, finish);
    }
    // The larger factor streams: by columns of the result if it is `b`, by rows if it is `a`.
    let by_columns = cols >= rows || b.always_as_stored();
    let (resident, streamed) = if by_columns { (a, b) } else { (b, a) };
    let few = (resident.outer() <= FEW_ROWS || streamed.always_as_stored()) && streamed.k_inner();
    let held_rows = if resident.outer() <= FEW_ROWS { FEW_ROWS } else { (RESIDENT / depth).clamp(16, RESIDENT_ROWS) };
    // The same on every machine, so that results are. Where memory is what takes time, a tile is long enough to hide its start.
    let tile_rows = match few {
        true => (streamed.outer() / 32).next_multiple_of(16).clamp(16, 512),
        false => (streamed.outer() / 64).next_multiple_of(16).clamp(64, 128),
    };
    let parallel = rows.saturating_mul(cols).saturating_mul(depth) >= PARALLEL_WORK;
    for start in (0..resident.outer()).step_by(held_rows) {
        let r = start..(start + held_rows).min(resident.outer());
        let held = if few { Held::rows(resident, r.clone(), streamed) } else { Held::new(resident, r.clone(), !streamed.k_inner()) };
        let mut part: Vec<&mut [T]> = if by_columns { out.drain(..r.len()).collect() } else { split_columns(&mut out, r.len()) };
        let tiles: Vec<_> = (0..streamed.outer())
            .step_by(tile_rows)
            .map(|start| {
                let s = start..(start + tile_rows).min(streamed.outer());
                let target = if by_columns { split_columns(&mut part, s.len()) } else { part.drain(..s.len()).collect() };
                (s, target)
            })
            .collect();
        let work = |scratch: &mut Scratch, (s, target): (Range<usize>, Vec<&mut [T]>)| {
            let (r_step, s_step) = held.multiply(streamed, s.clone(), few, scratch);
            let (steps, at) = if by_columns { ((r_step, s_step), (r.start, s.start)) } else { ((s_step, r_step), (s.start, r.start)) };
            store(&scratch.sums, steps, at, target, finish);
        };
        if parallel && tiles.len() > 1 {
            tiles.into_par_iter().for_each_init(Scratch::default, work);
        } else {
            let mut scratch = Scratch::default();
            tiles.into_iter().for_each(|tile| work(&mut scratch, tile));
        }
    }
}

/// The first `len` columns of each row; they are gone from `rows` afterwards.
fn split_columns<'a, T>(rows: &mut [&'a mut [T]], len: usize) -> Vec<&'a mut [T]> {
    rows.iter_mut()
        .map(|row| {
            let (head, tail) = std::mem::take(row).split_at_mut(len);
            *row = tail;
            head
        })
        .collect()
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    panel: Vec<f32>,
    sums: Vec<f32>,
}

/// Some rows of a factor as `f32`.
pub(super) struct Held<'a> {
    data: Cow<'a, [f32]>,
    rows: usize,
    depth: usize,
    row_step: usize,
    k_step: usize,
}

impl<'a> Held<'a> {
    /// Rows as [`Matrix::few`] of `streamed` takes them.
    fn rows(source: &'a dyn Matrix, rows: Range<usize>, streamed: &dyn Matrix) -> Self {
        let mut held = Self::new(source, rows, true);
        if held.k_step != 1 || held.row_step != held.depth || held.data.len() != held.rows * held.depth {
            let mut dense = vec![0f32; held.rows * held.depth];
            for (r, out) in dense.chunks_exact_mut(held.depth).enumerate() {
                for (k, o) in out.iter_mut().enumerate() {
                    *o = held.data[r * held.row_step + k * held.k_step];
                }
            }
            held = Held { data: Cow::Owned(dense), row_step: held.depth, k_step: 1, ..held };
        }
        held.data = Cow::Owned(streamed.prepare(held.data.into_owned()));
        held
    }

    /// A block with the elements of a row next to each other (`k_inner`), or those of a column.
    pub(super) fn new(source: &'a dyn Matrix, rows: Range<usize>, k_inner: bool) -> Self {
        let (count, depth) = (rows.len(), source.depth());
        if let Some(block) = source.in_place().filter(|b| if k_inner { b.col_step == 1 } else { b.row_step == 1 }) {
            let data = Cow::Borrowed(&block.data[rows.start * block.row_step..]);
            return Held { data, rows: count, depth, row_step: block.row_step, k_step: block.col_step };
        }
        let mut data = vec![0f32; count * depth];
        // Lines of the block, some of which are made at a time.
        let (lines, line) = if k_inner { (count, depth) } else { (depth, count) };
        let some = (32768 / line).clamp(1, 64).min(lines);
        data.par_chunks_mut(some * line).enumerate().for_each_init(Vec::new, |buffer, (i, out)| {
            let lines = i * some..i * some + out.len() / line;
            let (panel_rows, panel_k) =
                if k_inner { (rows.start + lines.start..rows.start + lines.end, 0..depth) } else { (rows.clone(), lines.clone()) };
            if source.k_inner() == k_inner {
                source.panel(panel_rows, panel_k, out);
            } else {
                buffer.resize(out.len(), 0f32);
                source.panel(panel_rows, panel_k, buffer);
                transpose(buffer, lines.len(), out);
            }
        });
        let (row_step, k_step) = if k_inner { (depth, 1) } else { (1, count) };
        Held { data: Cow::Owned(data), rows: count, depth, row_step, k_step }
    }

    /// As the right factor of a product: a row for each `k`.
    pub(super) fn turned(&self) -> Block<'_> {
        Block { data: &self.data, row_step: self.k_step, col_step: self.row_step }
    }

    /// Leaves the products with rows `s` of `streamed` in `scratch.sums`; returns the steps along the held and along the
    /// streamed rows.
    fn multiply(&self, streamed: &dyn Matrix, s: Range<usize>, few: bool, scratch: &mut Scratch) -> (usize, usize) {
        let (rows, count) = (self.rows, s.len());
        scratch.sums.clear();
        scratch.sums.resize(rows * count, 0f32);
        if few {
            streamed.few(s, &self.data, &mut scratch.sums);
            return (count, 1);
        }
        let steps = if streamed.k_inner() { (1, rows) } else { (count, 1) };
        let held = |k: usize| Block { data: &self.data[k * self.k_step..], row_step: self.row_step, col_step: self.k_step };
        if let Some(block) = streamed.in_place() {
            let data = &block.data[s.start * block.row_step..];
            let turned = Block { data, row_step: block.col_step, col_step: block.row_step };
            multiply((rows, count, self.depth), &mut scratch.sums, steps, held(0), turned, false);
            return steps;
        }
        for k in (0..self.depth).step_by(DEPTH) {
            let len = DEPTH.min(self.depth - k);
            scratch.panel.resize(count * len, 0f32);
            streamed.panel(s.clone(), k..k + len, &mut scratch.panel);
            let (row_step, col_step) = if streamed.k_inner() { (1, len) } else { (count, 1) };
            let panel = Block { data: &scratch.panel, row_step, col_step };
            multiply((rows, count, len), &mut scratch.sums, steps, held(k), panel, k > 0);
        }
        steps
    }
}

/// `out[j][i] = src[i][j]`, where `src` has lines of `width`.
fn transpose(src: &[f32], width: usize, out: &mut [f32]) {
    const SIDE: usize = 16;
    let height = src.len() / width.max(1);
    for i0 in (0..height).step_by(SIDE) {
        for j0 in (0..width).step_by(SIDE) {
            for j in j0..(j0 + SIDE).min(width) {
                let line = &mut out[j * height + i0..j * height + (i0 + SIDE).min(height)];
                for (i, o) in line.iter_mut().enumerate() {
                    *o = src[(i0 + i) * width + j];
                }
            }
        }
    }
}

/// Finishes and rounds sums: element `(i, j)` at `i·steps.0 + j·steps.1` goes to `out[i][j]`; `at` is the place of the
/// first in the whole result.
fn store<T: Float>(sums: &[f32], steps: (usize, usize), at: (usize, usize), out: Vec<&mut [T]>, finish: Finish<'_>) {
    const GROUP: usize = 8;
    let cols = out.first().map_or(0, |row| row.len());
    let mut buffer = vec![0f32; GROUP * cols];
    let mut rows = out.into_iter().enumerate();
    for first in (0..rows.len()).step_by(GROUP) {
        let group = GROUP.min(rows.len());
        if steps.1 == 1 {
            for (i, row) in buffer.chunks_exact_mut(cols).enumerate().take(group) {
                row.copy_from_slice(&sums[(first + i) * steps.0..][..cols]);
            }
        } else {
            // It is columns that are runs of the sums.
            for j in 0..cols {
                for i in 0..group {
                    buffer[i * cols + j] = sums[(first + i) * steps.0 + j * steps.1];
                }
            }
        }
        for ((i, out), sums) in rows.by_ref().take(group).zip(buffer.chunks_exact_mut(cols)) {
            finish(at.0 + i, at.1, sums);
            T::round_to(sums, out);
        }
    }
}
