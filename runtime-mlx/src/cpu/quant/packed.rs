//! Quantised matrices as factors of products.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::super::matrix::{Matrix, few_by_panels};
use super::super::vector;
use super::Parts;
use super::codes::{Codes, code, unpack};
use super::integer::{self, Layout};

/// Lanes that the loops below work on side by side: a vector of the widest processors, two or four of others.
const LANES: usize = 16;

/// A matrix whose rows are packed along the sum.
pub(super) struct Packed<'a, C> {
    parts: Parts<'a>,
    words: usize,
    groups: usize,
    /// How rows are multiplied as integers, where they can be.
    integer: Option<Layout>,
    codes: PhantomData<C>,
}

impl<'a, C: Codes> Packed<'a, C> {
    pub(super) fn new(parts: Parts<'a>) -> Self {
        let integer = Layout::new::<C>(parts.width, parts.group);
        Packed { words: parts.width * C::BITS / 32, groups: parts.width / parts.group, integer, parts, codes: PhantomData }
    }

    /// Words that hold whole codes, and the codes in them: one word, or as many as a code has bits if codes straddle.
    const UNIT: usize = if 32 % C::BITS == 0 { 1 } else { C::BITS };
    const PARTS: usize = 32 * Self::UNIT / C::BITS;

    /// Whether each unit has one scale, so that rows can be multiplied as they are stored.
    fn direct(&self) -> bool {
        self.parts.group.is_multiple_of(Self::PARTS)
    }
}

/// Writes elements `range` of a row, scaled.
fn unpack_scaled<C: Codes>(parts: &Parts<'_>, row: usize, range: Range<usize>, out: &mut [f32], factors: &mut Vec<f32>) {
    let (groups, words) = (parts.width / parts.group, parts.width * C::BITS / 32);
    unpack::<C>(&parts.words[row * words..][..words], range.start, out);
    let (first, last) = (range.start / parts.group, (range.end - 1) / parts.group);
    let count = last - first + 1;
    factors.clear();
    factors.resize(2 * count, 0f32);
    let (scales, biases) = factors.split_at_mut(count);
    parts.scales.read(row * groups + first, scales);
    if let Some(stored) = parts.biases {
        stored.read(row * groups + first, biases);
    }
    let mut at = range.start;
    let mut rest = out;
    for (i, (scale, bias)) in scales.iter().zip(&*biases).enumerate() {
        let len = ((first + i + 1) * parts.group).min(range.end) - at;
        let (head, tail) = rest.split_at_mut(len);
        vector::scale_and_shift(head, *scale, *bias);
        (at, rest) = (at + len, tail);
    }
}

impl<C: Codes> Matrix for Packed<'_, C> {
    fn outer(&self) -> usize {
        self.parts.words.len() / self.words.max(1)
    }

    fn depth(&self) -> usize {
        self.parts.width
    }

    fn k_inner(&self) -> bool {
        true
    }

    fn panel(&self, outer: Range<usize>, k: Range<usize>, out: &mut [f32]) {
        let mut factors = Vec::new();
        for (row, out) in outer.zip(out.chunks_exact_mut(k.len())) {
            unpack_scaled::<C>(&self.parts, row, k.clone(), out, &mut factors);
        }
    }

    fn always_as_stored(&self) -> bool {
        self.integer.is_some_and(Layout::takes_many)
    }

    /// Each row in the order of [`multiply`], then the sum over each group; or as integers. Rows stay as they are if one of them is not
    /// finite: infinity times a code less infinity times a bias would be nothing, where torch, which unpacks first, has infinity.
    fn prepare(&self, x: Vec<f32>) -> Vec<f32> {
        let finite = x.chunks_exact(self.parts.group).all(|group| vector::sum(group).is_finite());
        if !finite || !(self.integer.is_some() || self.direct()) {
            return x;
        }
        if let Some(layout) = self.integer {
            return layout.prepare(&x);
        }
        let width = self.parts.width;
        let mut prepared = Vec::with_capacity(x.len() / width * (width + self.groups));
        for row in x.chunks_exact(width) {
            // What one unit of each lane meets: first elements of all of them, then second elements, ….
            let vectors = row.chunks_exact(LANES * Self::PARTS);
            let rest = vectors.remainder();
            for vector in vectors {
                for part in 0..Self::PARTS {
                    prepared.extend(vector[part..].iter().step_by(Self::PARTS));
                }
            }
            prepared.extend(rest);
            prepared.extend(row.chunks_exact(self.parts.group).map(vector::sum));
        }
        prepared
    }

    fn few(&self, outer: Range<usize>, x: &[f32], out: &mut [f32]) {
        // Prepared rows have another length.
        if x.len() == out.len() / outer.len().max(1) * self.parts.width {
            few_by_panels(self, outer, x, out);
        } else if let Some(layout) = self.integer {
            integer::few::<C>(layout, &self.parts, outer.start, x, out);
        } else {
            Arch::new().dispatch(Few { matrix: self, outer, x, out });
        }
    }
}

/// [`Matrix::few`] without unpacking to memory.
struct Few<'a, 'b, C> {
    matrix: &'a Packed<'b, C>,
    outer: Range<usize>,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl<C: Codes> WithSimd for Few<'_, '_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Packed { parts, words, groups, .. } = self.matrix;
        let (count, row_len) = (self.outer.len(), parts.width + groups);
        let rows = self.out.len() / count.max(1);
        let in_group = parts.group / Packed::<C>::PARTS;
        // The scale of each unit, and the biases, of one row.
        let mut spread = vec![0f32; groups * in_group];
        let mut factors = vec![0f32; *groups];
        for (c, row) in self.outer.enumerate() {
            let packed = &parts.words[row * words..][..*words];
            parts.scales.read(row * groups, &mut factors);
            for (spread, scale) in spread.chunks_exact_mut(in_group).zip(&factors) {
                spread.fill(*scale);
            }
            if let Some(biases) = parts.biases {
                biases.read(row * groups, &mut factors);
            }
            let mut r = 0;
            while r < rows {
                let x = |i: usize| &self.x[(r + i) * row_len..][..row_len];
                let mut keep = |i: usize, product: f32| {
                    let sums = &x(i)[parts.width..];
                    let shift = if parts.biases.is_some() { dot(simd, &factors, sums) } else { 0.0 };
                    self.out[(r + i) * count + c] = product + shift;
                };
                if rows - r >= 4 {
                    let products = multiply::<C, S, 4>(simd, packed, &spread, std::array::from_fn(x));
                    products.into_iter().enumerate().for_each(|(i, p)| keep(i, p));
                    r += 4;
                } else {
                    let [product] = multiply::<C, S, 1>(simd, packed, &spread, [x(0)]);
                    keep(0, product);
                    r += 1;
                }
            }
        }
    }
}

/// `a·b + c`, in one step where the processor has it.
#[inline(always)]
fn multiply_add<S: Simd>(_: S, a: f32, b: f32, c: f32) -> f32 {
    if S::IS_SCALAR { a * b + c } else { a.mul_add(b, c) }
}

#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for l in 0..LANES {
            sums[l] = multiply_add(simd, a[l], b[l], sums[l]);
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// Products of one packed row with `R` prepared ones. Each lane takes a unit of words at a time.
#[expect(clippy::needless_range_loop, reason = "counted loops are what is made into vectors")]
#[inline(always)]
fn multiply<C: Codes, S: Simd, const R: usize>(simd: S, packed: &[u32], scales: &[f32], x: [&[f32]; R]) -> [f32; R] {
    let (unit, parts) = (Packed::<C>::UNIT, Packed::<C>::PARTS);
    let mut sums = [[0f32; LANES]; R];
    let vectors = packed.chunks_exact(LANES * unit);
    let rest = vectors.remainder();
    let x_vectors: [&[[f32; LANES]]; R] = x.map(|x| x.as_chunks::<LANES>().0);
    let (scale_vectors, _) = scales.as_chunks::<LANES>();
    let done = vectors.len();
    for (v, (vector, scales)) in vectors.zip(scale_vectors).enumerate() {
        // Word `j` of the units of all lanes. No code has more than 8 bits.
        let mut words = [[0u32; LANES]; 8];
        for (j, words) in words.iter_mut().enumerate().take(unit) {
            for l in 0..LANES {
                words[l] = vector[l * unit + j];
            }
        }
        let x: [&[[f32; LANES]]; R] = std::array::from_fn(|r| &x_vectors[r][v * parts..(v + 1) * parts]);
        let mut terms = [[0f32; LANES]; R];
        for part in 0..parts {
            let (word, shift) = (part * C::BITS / 32, part * C::BITS % 32);
            let mut values = [0f32; LANES];
            for l in 0..LANES {
                let mut code = words[word][l] >> shift;
                if shift + C::BITS > 32 {
                    code |= words[word + 1][l] << (32 - shift);
                }
                values[l] = C::value(code & ((1 << C::BITS) - 1));
            }
            for r in 0..R {
                for l in 0..LANES {
                    terms[r][l] = multiply_add(simd, values[l], x[r][part][l], terms[r][l]);
                }
            }
        }
        for r in 0..R {
            for l in 0..LANES {
                sums[r][l] = multiply_add(simd, terms[r][l], scales[l], sums[r][l]);
            }
        }
    }
    // What does not fill a vector is in its own order.
    let mut products = [0f32; R];
    for (product, sums) in products.iter_mut().zip(&sums) {
        *product = sums.iter().sum();
    }
    let first = done * LANES * parts;
    for (i, unit) in rest.chunks_exact(unit).enumerate() {
        let mut values = [0f32; 32];
        for (part, value) in values.iter_mut().enumerate().take(parts) {
            *value = C::value(code::<C>(unit, part)) * scales[done * LANES + i];
        }
        for (product, x) in products.iter_mut().zip(x) {
            let x = &x[first + i * parts..][..parts];
            *product += x.iter().zip(&values).map(|(x, v)| x * v).sum::<f32>();
        }
    }
    products
}

/// A matrix whose rows are packed across the sum: the sum runs over packed rows.
pub(super) struct Turned<'a, C> {
    parts: Parts<'a>,
    rows: usize,
    codes: PhantomData<C>,
}

impl<'a, C: Codes> Turned<'a, C> {
    pub(super) fn new(parts: Parts<'a>) -> Self {
        let words = parts.width * C::BITS / 32;
        Turned { rows: parts.words.len() / words.max(1), parts, codes: PhantomData }
    }
}

impl<C: Codes> Matrix for Turned<'_, C> {
    fn outer(&self) -> usize {
        self.parts.width
    }

    fn depth(&self) -> usize {
        self.rows
    }

    fn k_inner(&self) -> bool {
        false
    }

    fn panel(&self, outer: Range<usize>, k: Range<usize>, out: &mut [f32]) {
        let mut factors = Vec::new();
        for (row, out) in k.zip(out.chunks_exact_mut(outer.len())) {
            unpack_scaled::<C>(&self.parts, row, outer.clone(), out, &mut factors);
        }
    }

    fn few(&self, outer: Range<usize>, x: &[f32], out: &mut [f32]) {
        few_by_panels(self, outer, x, out);
    }
}

#[cfg(test)]
mod tests {
    use pulp::Scalar;

    use super::super::Factors;
    use super::super::codes::{Affine, E2m1, E4m3};
    use super::*;

    fn check<C: Codes>() {
        // Rows with and without a part that fills no vector.
        for (width, group, count) in [(512, 32, 3), (1120, 32, 2), (96, 32, 1)] {
            let noise = |seed: u32| {
                std::iter::successors(Some(seed), |s| Some(s.wrapping_mul(1664525).wrapping_add(1013904223))).map(|s| s >> 7 & 0xff_ffff)
            };
            let floats = |n: usize, seed| noise(seed).take(n).map(|s| s as f32 / (1 << 23) as f32 - 1.0).collect::<Vec<f32>>();
            // No code of E4M3 that is not a number.
            let words: Vec<u32> =
                noise(1).zip(noise(2)).take(count * width * C::BITS / 32).map(|(a, b)| (a << 9 ^ b) & 0xbfbf_bfbf).collect();
            let (scales, biases) = (floats(count * width / group, 3), floats(count * width / group, 4));
            let parts = Parts { words: &words, scales: Factors::F32(&scales), biases: Some(Factors::F32(&biases)), width, group };
            let matrix = Packed::<C> { integer: None, ..Packed::new(parts) };
            for rows in [1, 5] {
                let x = floats(rows * width, 5);
                let mut panels = vec![0f32; rows * count];
                few_by_panels(&matrix, 0..count, &x, &mut panels);
                let x = matrix.prepare(x);
                let (mut wide, mut scalar) = (vec![0f32; rows * count], vec![0f32; rows * count]);
                Arch::new().dispatch(Few { matrix: &matrix, outer: 0..count, x: &x, out: &mut wide });
                Few { matrix: &matrix, outer: 0..count, x: &x, out: &mut scalar }.with_simd(Scalar::new());
                let largest = panels.iter().fold(1f32, |m, v| m.max(v.abs()));
                for ((w, s), p) in wide.iter().zip(&scalar).zip(&panels) {
                    assert!((w - s).abs() <= 1e-5 * largest && (s - p).abs() <= 1e-5 * largest, "{} bits: {w}, {s}, {p}", C::BITS);
                }
            }
        }
    }

    #[test]
    fn vectors_scalars_and_panels_agree() {
        check::<Affine<2>>();
        check::<Affine<3>>();
        check::<Affine<4>>();
        check::<Affine<5>>();
        check::<Affine<6>>();
        check::<Affine<8>>();
        check::<E2m1>();
        check::<E4m3>();
    }
}
