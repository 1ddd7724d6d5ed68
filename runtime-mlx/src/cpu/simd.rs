//! Inner loops on the widest vectors the processor has, chosen at run time (through `pulp`: AVX-512, AVX2 with FMA, NEON,
//! or plain scalars), and the one call into the `gemm` library.
//!
//! Every loop exists once, written over the lanes of an abstract vector; tests run it on scalars too and compare.

use half::bf16;
use half::slice::HalfFloatSliceExt;
use pulp::{Arch, Simd, WithSimd};

use super::lanes::{Compute, bf16_to_f32, f32_to_bf16};

/// Element types of matrices: those that widen to `f32` exactly.
pub(super) trait Float: Compute<Acc = f32> {
    /// Writes `src` as `f32`.
    fn widen_to(src: &[Self], out: &mut [f32]);

    /// Rounds `src` to nearest, ties to even.
    fn round_to(src: &[f32], out: &mut [Self]);

    /// The elements themselves, where they are `f32` already.
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Float for f32 {
    fn widen_to(src: &[f32], out: &mut [f32]) {
        out.copy_from_slice(src);
    }
    fn round_to(src: &[f32], out: &mut [f32]) {
        out.copy_from_slice(src);
    }
    fn as_f32(elements: &[f32]) -> Option<&[f32]> {
        Some(elements)
    }
}

impl Float for half::f16 {
    fn widen_to(src: &[Self], out: &mut [f32]) {
        src.convert_to_f32_slice(out);
    }
    fn round_to(src: &[f32], out: &mut [Self]) {
        out.convert_from_f32_slice(src);
    }
}

impl Float for bf16 {
    fn widen_to(src: &[Self], out: &mut [f32]) {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (o, v) in out.iter_mut().zip(src) {
                    *o = bf16_to_f32(*v);
                }
            },
        );
    }
    fn round_to(src: &[f32], out: &mut [Self]) {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (o, v) in out.iter_mut().zip(src) {
                    *o = f32_to_bf16(*v);
                }
            },
        );
    }
}

/// How a 32-bit word holds matrix elements, and in which order of `k` the other operand must come: one plane for each
/// element of a word.
pub(super) trait Words: Copy + Send + Sync {
    /// Elements in a word.
    const PARTS: usize;

    /// Element `part` of every word.
    fn part<S: Simd>(self, simd: S, words: S::u32s, part: usize) -> S::f32s;

    /// [`part`](Self::part) of one word.
    fn scalar(self, word: u32, part: usize) -> f32;
}

/// A word is an `f32`.
#[derive(Clone, Copy)]
pub(super) struct Whole;

impl Words for Whole {
    const PARTS: usize = 1;

    #[inline(always)]
    fn part<S: Simd>(self, simd: S, words: S::u32s, _: usize) -> S::f32s {
        simd.transmute_f32s_u32s(words)
    }
    #[inline(always)]
    fn scalar(self, word: u32, _: usize) -> f32 {
        f32::from_bits(word)
    }
}

/// A word is two `bf16`: the upper half of an `f32` each.
#[derive(Clone, Copy)]
pub(super) struct PairOfBf16;

impl Words for PairOfBf16 {
    const PARTS: usize = 2;

    #[inline(always)]
    fn part<S: Simd>(self, simd: S, words: S::u32s, part: usize) -> S::f32s {
        simd.transmute_f32s_u32s(match part {
            0 => simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16)),
            _ => simd.and_u32s(words, simd.splat_u32s(0xffff_0000)),
        })
    }
    #[inline(always)]
    fn scalar(self, word: u32, part: usize) -> f32 {
        f32::from_bits(if part == 0 { word << 16 } else { word & 0xffff_0000 })
    }
}

/// Puts `k` in the order that [`dots`] of words of `parts` elements takes: all first elements, all second elements, …
/// The length of a row must be a multiple of `parts`.
pub(super) fn split_planes(x: &mut [f32], row: usize, parts: usize) {
    if parts == 1 || row == 0 {
        return;
    }
    let plane = row / parts;
    let mut copy = vec![0f32; row];
    for row in x.chunks_exact_mut(row) {
        copy.copy_from_slice(row);
        for (i, group) in copy.chunks_exact(parts).enumerate() {
            for (p, v) in group.iter().enumerate() {
                row[p * plane + i] = *v;
            }
        }
    }
}

/// `out[r·count + c] = Σ_k x[r][k]·w[c][k]`: `x` holds rows of `PARTS·depth` values in planes (see [`split_planes`]),
/// row `c` of the matrix is the `depth` words from `c·step`. `count` rows of `x` are as many as fit `out`.
pub(super) struct Dots<'a, W> {
    pub(super) words: W,
    pub(super) x: &'a [f32],
    pub(super) w: &'a [u32],
    pub(super) depth: usize,
    pub(super) step: usize,
    pub(super) count: usize,
    pub(super) out: &'a mut [f32],
}

/// Computes [`Dots`].
pub(super) fn dots<W: Words>(dots: Dots<'_, W>) {
    Arch::new().dispatch(dots);
}

impl<W: Words> WithSimd for Dots<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.out.len() / self.count.max(1);
        let mut c = 0;
        while c < self.count {
            let left = self.count - c;
            // As many accumulators as 16 registers hold beside the operands.
            let done = match (rows, left) {
                (1 | 2, 4..) => self.columns::<S, 4>(simd, c, rows),
                (_, 2..) => self.columns::<S, 2>(simd, c, rows),
                _ => self.columns::<S, 1>(simd, c, rows),
            };
            c += done;
        }
    }
}

impl<W: Words> Dots<'_, W> {
    #[inline(always)]
    fn columns<S: Simd, const C: usize>(&mut self, simd: S, c: usize, rows: usize) -> usize {
        let mut r = 0;
        while r < rows {
            r += match rows - r {
                1 => self.block::<S, 1, C>(simd, r, c),
                2 | 3 => self.block::<S, 2, C>(simd, r, c),
                // Four rows only beside few columns; with four columns there are at most two rows.
                _ => self.block::<S, 4, C>(simd, r, c),
            };
        }
        C
    }

    #[inline(always)]
    fn block<S: Simd, const R: usize, const C: usize>(&mut self, simd: S, r: usize, c: usize) -> usize {
        let width = W::PARTS * self.depth;
        let x: [&[f32]; R] = std::array::from_fn(|i| &self.x[(r + i) * width..][..width]);
        let w: [&[u32]; C] = std::array::from_fn(|i| &self.w[(c + i) * self.step..][..self.depth]);
        let wide: [(&[S::u32s], &[u32]); C] = w.map(|w| S::as_simd_u32s(w));
        let vectors = wide[0].0.len();
        let mut sums = [[simd.splat_f32s(0.0); C]; R];
        let planes: [[&[S::f32s]; 2]; R] = std::array::from_fn(|i| {
            std::array::from_fn(|p| match x[i].get(p * self.depth..(p + 1) * self.depth) {
                Some(plane) => &S::as_simd_f32s(plane).0[..vectors],
                None => &[],
            })
        });
        for v in 0..vectors {
            for part in 0..W::PARTS {
                let mut values = [simd.splat_f32s(0.0); C];
                for (value, (words, _)) in values.iter_mut().zip(&wide) {
                    *value = self.words.part(simd, words[v], part);
                }
                for (sums, planes) in sums.iter_mut().zip(&planes) {
                    let x = planes[part][v];
                    for (sum, value) in sums.iter_mut().zip(&values) {
                        *sum = simd.mul_add_e_f32s(x, *value, *sum);
                    }
                }
            }
        }
        let tail = vectors * S::U32_LANES;
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let mut sum = simd.reduce_sum_f32s(*sum);
                for (at, word) in wide[j].1.iter().enumerate() {
                    for part in 0..W::PARTS {
                        sum += x[i][part * self.depth + tail + at] * self.words.scalar(*word, part);
                    }
                }
                self.out[(r + i) * self.count + c + j] = sum;
            }
        }
        R
    }
}

/// A matrix of `f32` in a slice; steps are in elements.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) data: &'a [f32],
    pub(super) row_step: usize,
    pub(super) col_step: usize,
}

/// Elements that `rows × cols` with these steps reach over.
fn reach(rows: usize, cols: usize, row_step: usize, col_step: usize) -> usize {
    match (rows, cols) {
        (0, _) | (_, 0) => 0,
        _ => (rows - 1).saturating_mul(row_step).saturating_add((cols - 1).saturating_mul(col_step)).saturating_add(1),
    }
}

/// `dst = a·b`, or `dst += a·b` if `accumulate`; `(rows, cols, depth)` is the size, `dst_steps` are those of `dst`.
#[expect(unsafe_code, reason = "the gemm library takes pointers")]
pub(super) fn multiply(
    (rows, cols, depth): (usize, usize, usize),
    dst: &mut [f32],
    dst_steps: (usize, usize),
    a: Block<'_>,
    b: Block<'_>,
    accumulate: bool,
) {
    let inside = reach(rows, cols, dst_steps.0, dst_steps.1) <= dst.len()
        && reach(rows, depth, a.row_step, a.col_step) <= a.data.len()
        && reach(depth, cols, b.row_step, b.col_step) <= b.data.len();
    assert!(inside, "a block of a matrix product lies outside its buffer");
    if rows == 0 || cols == 0 || depth == 0 {
        return;
    }
    // SAFETY: every element that the library reads or writes was just shown to lie in the slices; `dst` is exclusive,
    // and fits steps that do not make two of its elements one (callers use dense buffers).
    unsafe {
        gemm::gemm(
            rows,
            cols,
            depth,
            dst.as_mut_ptr(),
            dst_steps.1 as isize,
            dst_steps.0 as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_step as isize,
            a.row_step as isize,
            b.data.as_ptr(),
            b.col_step as isize,
            b.row_step as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed.wrapping_mul(2654435761).wrapping_add(1);
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1664525).wrapping_add(1013904223);
                (s >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Runs the loop on this machine's vectors and on scalars and compares with a plain sum in `f64`.
    fn check<W: Words>(words: W, rows: usize, depth: usize, count: usize, step: usize) {
        let width = W::PARTS * depth;
        let mut x = noise(rows * width, 1);
        // Upper halves are values on their own; lower halves are made values too by a mask of the exponent.
        let w: Vec<u32> =
            noise(count * step, 2).iter().zip(noise(count * step, 3)).map(|(a, b)| a.to_bits() & 0xffff_0000 | b.to_bits() >> 16).collect();
        let mut want = vec![0f64; rows * count];
        for r in 0..rows {
            for c in 0..count {
                want[r * count + c] = (0..width)
                    .map(|k| f64::from(x[r * width + k]) * f64::from(words.scalar(w[c * step + k / W::PARTS], k % W::PARTS)))
                    .sum();
            }
        }
        split_planes(&mut x, width, W::PARTS);
        let (mut fast, mut slow) = (vec![7f32; rows * count], vec![7f32; rows * count]);
        dots(Dots { words, x: &x, w: &w, depth, step, count, out: &mut fast });
        Dots { words, x: &x, w: &w, depth, step, count, out: &mut slow }.with_simd(pulp::Scalar::new());
        for ((want, fast), slow) in want.iter().zip(&fast).zip(&slow) {
            let limit = 1e-5 * (width as f64).sqrt().max(1.0);
            assert!((want - f64::from(*fast)).abs() <= limit && (want - f64::from(*slow)).abs() <= limit, "{want} {fast} {slow}");
        }
    }

    #[test]
    fn dot_products_equal_plain_sums_at_every_blocking() {
        for rows in 1..=9 {
            for count in [1, 2, 3, 4, 7, 9] {
                for depth in [0, 1, 5, 16, 33, 100] {
                    check(Whole, rows, depth, count, depth + 3);
                    check(PairOfBf16, rows, depth, count, depth);
                }
            }
        }
    }

    #[test]
    fn halves_widen_and_round_as_one_element_does() {
        let bits: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let mut wide = vec![0f32; bits.len()];
        bf16::widen_to(&bits, &mut wide);
        let mut back = vec![bf16::ZERO; bits.len()];
        bf16::round_to(&wide, &mut back);
        for ((bits, wide), back) in bits.iter().zip(&wide).zip(&back) {
            assert!(bits.to_f32().to_bits() == wide.to_bits() || bits.is_nan() && wide.is_nan());
            assert!(bits == back || bits.is_nan() && back.is_nan());
        }
    }

    #[test]
    fn blocks_multiply_in_either_order_of_storage() {
        // [1 2 3; 4 5 6] times [1 0; 0 1; 1 1], once from rows and once from columns.
        let (rows, cols) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let b = Block { data: &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], row_step: 2, col_step: 1 };
        for a in [Block { data: &rows, row_step: 3, col_step: 1 }, Block { data: &cols, row_step: 1, col_step: 2 }] {
            let mut dst = [10.0f32; 4];
            multiply((2, 2, 3), &mut dst, (2, 1), a, b, true);
            assert_eq!(dst, [14.0, 15.0, 20.0, 21.0]);
            multiply((2, 2, 3), &mut dst, (1, 2), a, b, false);
            assert_eq!(dst, [4.0, 10.0, 5.0, 11.0]);
        }
    }
}
