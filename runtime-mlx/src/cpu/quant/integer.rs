//! Rows of codes that are small integers, multiplied as integers: on processors that sum products of bytes in one
//! instruction, as fast as memory gives the codes.
//!
//! Activations become integers of 24 bits with a scale for each group, which is as exact as `f32` relative to the largest
//! of the group. An integer is three signed bytes, so a sum of codes times integers is three sums of codes times bytes,
//! put together without any rounding. Only then come the scales, in `f32`.

use rayon::prelude::*;

use super::super::vector;
use super::codes::{Bytes, Codes};
use super::{Factors, Parts};

/// Bytes of an integer.
const PIECES: usize = 3;

/// The largest integer: three times the largest signed byte.
const TOP: f32 = 127.0 * 0x1_0101 as f32;

/// From so many rows of activations on, rows of the matrix are unpacked, 16 at a time, which all rows share.
const MANY: usize = 4;

/// A smaller peak has no representable inverse worth having; what it contributes is lost beside anything else.
const LEAST: f32 = 1e-30;

/// How rows of a matrix and rows of activations lie beside each other.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    width: usize,
    group: usize,
    /// Codes in a byte.
    planes: usize,
}

impl Layout {
    /// The layout, if the codes allow one and the processor has the instruction.
    pub(super) fn new<C: Codes>(width: usize, group: usize) -> Option<Self> {
        Self::of::<C>(width, group).filter(|_| available())
    }

    fn of<C: Codes>(width: usize, group: usize) -> Option<Self> {
        let planes = 8 / C::BITS;
        let fits =
            planes * C::BITS == 8 && width.is_multiple_of(64 * planes) && group.is_multiple_of(4 * planes) && group.is_multiple_of(16);
        (C::BYTES.is_some() && fits).then_some(Layout { width, group, planes })
    }

    fn groups(self) -> usize {
        self.width / self.group
    }

    /// Length of a prepared row, in `f32`: bytes, then a scale and a sum for each group.
    fn row(self) -> usize {
        self.width * PIECES / 4 + 2 * self.groups()
    }

    /// Rows of activations as bytes, then a scale and a sum for each group; the bytes in the order in which they are met.
    ///
    /// A few rows are met by vectors of 64 bytes of codes: for each such vector there are the highest bytes of all its
    /// integers, the middle ones, the lowest; in each of these those that meet the lowest bits of the 64 bytes, those that
    /// meet the next, …. Many rows are met by words of 32 bits, four codes at a time: for each four there are the highest
    /// bytes, the middle ones, the lowest.
    pub(super) fn prepare(self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.width.max(1);
        let run = if rows < MANY { 64 } else { 4 };
        let place = |at: usize| if rows < MANY { (at / self.planes, at % self.planes) } else { (at % PIECES, at / PIECES) };
        let mut prepared = vec![0f32; rows * self.row()];
        let prepare = |integers: &mut Vec<i32>, (x, out): (&[f32], &mut [f32])| {
            integers.resize(self.width, 0);
            let (bytes, factors) = out.split_at_mut(self.width * PIECES / 4);
            let (scales, sums) = factors.split_at_mut(self.groups());
            let groups = x.chunks_exact(self.group).zip(integers.chunks_exact_mut(self.group));
            for ((x, integers), (scale, sum)) in groups.zip(scales.iter_mut().zip(sums)) {
                *sum = vector::sum(x);
                let peak = vector::peak(x);
                if sum.is_finite() && peak >= LEAST {
                    *scale = peak / TOP;
                    vector::to_integers(x, TOP / peak, TOP, integers);
                } else {
                    // What is no number makes all that it meets none; zero stays.
                    *scale = if sum.is_finite() { 0.0 } else { f32::NAN };
                    integers.fill(0);
                }
            }
            let bytes: &mut [i8] = bytemuck::cast_slice_mut(bytes);
            let unit = run * self.planes;
            for (integers, bytes) in integers.chunks_exact(unit).zip(bytes.chunks_exact_mut(unit * PIECES)) {
                for (at, bytes) in bytes.chunks_exact_mut(run).enumerate() {
                    let (piece, plane) = place(at);
                    // Half of what lies below is added, so that the bytes below may be signed.
                    let (half, shift) = ([0x8080, 0x80, 0][piece], 8 * (PIECES - 1 - piece));
                    for (out, integers) in bytes.iter_mut().zip(integers.chunks_exact(self.planes)) {
                        *out = ((integers[plane] + half) >> shift) as i8;
                    }
                }
            }
        };
        if rows < MANY {
            let mut integers = Vec::new();
            x.chunks_exact(self.width).zip(prepared.chunks_exact_mut(self.row())).for_each(|row| prepare(&mut integers, row));
        } else {
            x.par_chunks_exact(self.width).zip(prepared.par_chunks_exact_mut(self.row())).for_each_init(Vec::new, prepare);
        }
        prepared
    }
}

/// Whether the processor sums products of bytes.
fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Some rows of a matrix, and what they are multiplied with.
pub(super) struct Job<'a> {
    pub(super) layout: Layout,
    /// Rows, dense.
    pub(super) packed: &'a [u8],
    /// For each row one factor a group.
    pub(super) scales: &'a [f32],
    pub(super) biases: Option<&'a [f32]>,
    /// Prepared.
    pub(super) x: &'a [f32],
    /// `out[r][c]`: row `r` of `x`, row `c` of the matrix.
    pub(super) out: &'a mut [f32],
}

/// Multiplies rows `first`, `first + 1`, … of a matrix; as many as fit `out`.
pub(super) fn few<C: Codes>(layout: Layout, parts: &Parts<'_>, first: usize, x: &[f32], out: &mut [f32]) {
    let (groups, bytes) = (layout.groups(), layout.width / layout.planes);
    let count = out.len() / (x.len() / layout.row()).max(1);
    let read = |factors: &Factors<'_>| {
        let mut all = vec![0f32; count * groups];
        factors.read(first * groups, &mut all);
        all
    };
    let (scales, biases) = (read(&parts.scales), parts.biases.as_ref().map(read));
    let packed = &bytemuck::cast_slice(parts.words)[first * bytes..][..count * bytes];
    run::<C>(Job { layout, packed, scales: &scales, biases: biases.as_deref(), x, out });
}

/// There is no layout, and so no job, on other processors.
#[cfg(not(target_arch = "x86_64"))]
fn run<C: Codes>(_: Job<'_>) {}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "a function for processors that have an instruction")]
fn run<C: Codes>(job: Job<'_>) {
    // SAFETY: there is no layout, and so no job, unless the processor has what the function is compiled for.
    unsafe { if job.x.len() / job.layout.row() < MANY { x86::few::<C>(job) } else { x86::many::<C>(job) } }
}

/// The same in plain loops for a few rows: what the vectors are tested against.
#[cfg(test)]
fn plain<C: Codes>(job: Job<'_>) {
    let Layout { width, group, planes } = job.layout;
    let (groups, count) = (job.layout.groups(), job.packed.len() / (width / planes).max(1));
    let Some(Bytes { table, origin, step }) = C::BYTES else { return };
    for (r, x) in job.x.chunks_exact(job.layout.row()).enumerate() {
        let (bytes, factors) = x.split_at(width * PIECES / 4);
        let (x_scales, sums) = factors.split_at(groups);
        let bytes: &[i8] = bytemuck::cast_slice(bytes);
        for c in 0..count {
            let packed = &job.packed[c * width / planes..][..width / planes];
            let mut total = 0f32;
            for g in 0..groups {
                let mut integer = 0i64;
                for k in g * group..(g + 1) * group {
                    let (v, at) = (k / (64 * planes), k % (64 * planes));
                    let code = packed[k / planes] >> (k % planes * C::BITS) & (((1u16 << C::BITS) - 1) as u8);
                    let value = table.map_or(code, |t| t[usize::from(code)]);
                    for piece in 0..PIECES {
                        let byte = bytes[((v * PIECES + piece) * planes + at % planes) * 64 + at / planes];
                        integer += (i64::from(value) * i64::from(byte)) << (8 * (PIECES - 1 - piece));
                    }
                }
                let scale = job.scales[c * groups + g] * step;
                let bias = job.biases.map_or(-origin * scale, |b| b[c * groups + g]);
                total += integer as f32 * (scale * x_scales[g]) + bias * sums[g];
            }
            job.out[r * count + c] = total;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vectors are loaded from slices")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Bytes, Codes, Job, Layout, PIECES};

    /// Rows of the matrix side by side, which share what is loaded of the activations.
    const ROWS: usize = 2;

    /// How far ahead bytes of the matrix are asked for: far enough for memory to answer, and still in the first cache then.
    const AHEAD: usize = 2048;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,fma")]
    pub(super) fn few<C: Codes>(job: Job<'_>) {
        let Layout { width, planes, .. } = job.layout;
        let (groups, bytes) = (job.layout.groups(), width / planes);
        let count = job.packed.len() / bytes.max(1);
        let Some(Bytes { origin, step, .. }) = C::BYTES else { return };
        // Vectors of scales are read whole, wherever they begin.
        let mut scales = vec![0f32; ROWS * (groups + 16)];
        // Rows side by side are far apart, so that each is one of a few long runs through memory.
        let apart = count.div_ceil(ROWS);
        for c in 0..apart {
            let rows = if c + apart < count { ROWS } else { 1 };
            for (r, x) in job.x.chunks_exact(job.layout.row()).enumerate() {
                let (x, factors) = x.split_at(width * PIECES / 4);
                let (x_scales, sums) = factors.split_at(groups);
                let mut shifts = [0f32; ROWS];
                for i in 0..rows {
                    let own = &job.scales[(c + i * apart) * groups..][..groups];
                    for ((out, a), b) in scales[i * (groups + 16)..].iter_mut().zip(own).zip(x_scales) {
                        *out = a * step * b;
                    }
                    shifts[i] = match job.biases {
                        Some(biases) => dot(&biases[(c + i * apart) * groups..][..groups], sums),
                        None => -origin * step * dot(own, sums),
                    };
                }
                let row = |i: usize| &job.packed[(c + i * apart) * bytes..][..bytes];
                let own = |i: usize| &scales[i * (groups + 16)..][..groups + 16];
                let x = bytemuck::cast_slice(x);
                if rows == ROWS {
                    let products = multiply::<C, ROWS>(job.layout, [row(0), row(1)], [own(0), own(1)], x);
                    for i in 0..ROWS {
                        job.out[r * count + c + i * apart] = products[i] + shifts[i];
                    }
                } else {
                    let [product] = multiply::<C, 1>(job.layout, [row(0)], [own(0)], x);
                    job.out[r * count + c] = product + shifts[0];
                }
            }
        }
    }

    /// Rows of the matrix that are unpacked together: one in each lane.
    const TILE: usize = 16;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,fma")]
    pub(super) fn many<C: Codes>(job: Job<'_>) {
        let Layout { width, planes, .. } = job.layout;
        let (groups, words) = (job.layout.groups(), width / planes / 4);
        let count = job.packed.len() / (4 * words).max(1);
        let Some(Bytes { origin, step, .. }) = C::BYTES else { return };
        let packed: &[[u8; 4]] = job.packed.as_chunks().0;
        let rows: Vec<&[f32]> = job.x.chunks_exact(job.layout.row()).collect();
        let mut codes = vec![[0u8; 64]; width / 4];
        let mut factors = vec![([0f32; TILE], [0f32; TILE]); groups];
        for c in (0..count).step_by(TILE) {
            // Past the end the last row stands in.
            let row: [usize; TILE] = std::array::from_fn(|l| (c + l).min(count - 1));
            unpack::<C>(row.map(|r| &packed[r * words..][..words]), &mut codes);
            for (g, (scales, biases)) in factors.iter_mut().enumerate() {
                for l in 0..TILE {
                    let scale = job.scales[row[l] * groups + g] * step;
                    (scales[l], biases[l]) = (scale, job.biases.map_or(-origin * scale, |b| b[row[l] * groups + g]));
                }
            }
            let valid = TILE.min(count - c);
            let mut r = 0;
            while r < rows.len() {
                let mut keep = |sums: &[__m512]| {
                    for (i, sums) in sums.iter().enumerate() {
                        let mut lanes = [0f32; TILE];
                        // SAFETY: there is room for 16 numbers.
                        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), *sums) };
                        job.out[(r + i) * count + c..][..valid].copy_from_slice(&lanes[..valid]);
                    }
                    sums.len()
                };
                // As many as there are accumulators for beside what they share.
                r += match rows.len() - r {
                    8.. => keep(&tile::<8>(job.layout, &codes, &factors, &rows[r..])),
                    4.. => keep(&tile::<4>(job.layout, &codes, &factors, &rows[r..])),
                    _ => keep(&tile::<1>(job.layout, &codes, &factors, &rows[r..])),
                };
            }
        }
    }

    /// Codes of 16 rows as bytes: the first four that each row's first word holds in the lowest bits of its bytes, the
    /// four above, …, then those of the next word.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn unpack<C: Codes>(rows: [&[[u8; 4]]; TILE], codes: &mut [[u8; 64]]) {
        let (mask, table) = (mask::<C>(), table::<C>());
        for (w, codes) in codes.chunks_exact_mut(8 / C::BITS).enumerate() {
            let words: [i32; TILE] = std::array::from_fn(|l| rows[l].get(w).map_or(0, |word| i32::from_le_bytes(*word)));
            // SAFETY: 16 integers are there.
            let words = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
            for (plane, codes) in codes.iter_mut().enumerate() {
                // SAFETY: there is room for 64 bytes.
                unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), spread::<C>(words, plane, mask, table)) };
            }
        }
    }

    /// Products of 16 rows, unpacked, with the first `T` of `x`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,fma")]
    fn tile<const T: usize>(layout: Layout, codes: &[[u8; 64]], factors: &[([f32; TILE], [f32; TILE])], x: &[&[f32]]) -> [__m512; T] {
        let (steps, groups) = (layout.group / 4, layout.groups());
        let split = |t: usize| x[t].split_at(layout.width * PIECES / 4);
        let bytes: [&[[[u8; 4]; PIECES]]; T] = std::array::from_fn(|t| bytemuck::cast_slice(split(t).0));
        let scales: [&[f32]; T] = std::array::from_fn(|t| split(t).1);
        let mut products = [_mm512_setzero_ps(); T];
        for (g, (codes, (row_scales, row_biases))) in codes.chunks_exact(steps).zip(factors).enumerate() {
            let x: [&[[[[u8; 4]; PIECES]; 4]]; T] = std::array::from_fn(|t| bytes[t][g * steps..][..steps].as_chunks().0);
            let mut sums = [[_mm512_setzero_si512(); PIECES]; T];
            // Four at a time, of which the compiler knows that they are there: then sums stay in registers.
            for (s, codes) in codes.as_chunks::<4>().0.iter().enumerate() {
                let x: [&[[[u8; 4]; PIECES]; 4]; T] = std::array::from_fn(|t| &x[t][s]);
                for i in 0..4 {
                    let codes = load(&codes[i]);
                    for t in 0..T {
                        for p in 0..PIECES {
                            sums[t][p] = _mm512_dpbusd_epi32(sums[t][p], codes, _mm512_set1_epi32(i32::from_le_bytes(x[t][i][p])));
                        }
                    }
                }
            }
            let (row_scales, row_biases) = (load_floats(row_scales), load_floats(row_biases));
            for t in 0..T {
                // Sums of the highest bytes leave no room for 16 bits more.
                let [high, middle, low] = sums[t];
                let lower = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32::<8>(middle), low));
                let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(65536.0), lower);
                let scale = _mm512_mul_ps(row_scales, _mm512_set1_ps(scales[t][g]));
                products[t] = _mm512_fmadd_ps(sum, scale, products[t]);
                products[t] = _mm512_fmadd_ps(row_biases, _mm512_set1_ps(scales[t][groups + g]), products[t]);
            }
        }
        products
    }

    #[target_feature(enable = "avx512f")]
    fn mask<C: Codes>() -> __m512i {
        _mm512_set1_epi8(((1u16 << C::BITS) - 1) as i8)
    }

    #[target_feature(enable = "avx512f")]
    fn table<C: Codes>() -> __m512i {
        let table = C::BYTES.and_then(|b| b.table).unwrap_or_default();
        // SAFETY: 16 bytes are there.
        _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
    }

    /// The codes that lie in bits `plane·BITS` and above of each byte, as bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn spread<C: Codes>(word: __m512i, plane: usize, mask: __m512i, table: __m512i) -> __m512i {
        let shifted = if plane == 0 { word } else { _mm512_srl_epi16(word, _mm_cvtsi32_si128((plane * C::BITS) as i32)) };
        let codes = if C::BITS == 8 { shifted } else { _mm512_and_si512(shifted, mask) };
        if const { matches!(C::BYTES, Some(Bytes { table: Some(_), .. })) } { _mm512_shuffle_epi8(table, codes) } else { codes }
    }

    #[target_feature(enable = "avx512f,fma")]
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0f32; 16];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
        for (a, b) in a.iter().zip(b) {
            for l in 0..16 {
                lanes[l] = a[l].mul_add(b[l], lanes[l]);
            }
        }
        lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: 64 bytes are there, and the instruction takes any alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_floats(floats: &[f32; 16]) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(floats.as_ptr()) }
    }

    /// Sums over all groups of scale times sum of codes times integers, for some rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,fma")]
    fn multiply<C: Codes, const R: usize>(layout: Layout, rows: [&[u8]; R], scales: [&[f32]; R], x: &[u8]) -> [f32; R] {
        let (planes, mask, table) = (8 / C::BITS, mask::<C>(), table::<C>());
        // Each lane of 32 bits sums what four bytes of codes meet; lanes of one group have one scale.
        let lanes = layout.group / (4 * layout.planes);
        let lane: [i32; 16] = std::array::from_fn(|l| (l / lanes.max(1)) as i32);
        // SAFETY: 16 integers are there.
        let lane = unsafe { _mm512_loadu_si512(lane.as_ptr().cast()) };
        let vectors = rows.map(|row| row.as_chunks::<64>().0);
        let mut sums = [_mm512_setzero_ps(); R];
        for (v, x) in x.as_chunks::<64>().0.chunks_exact(planes * PIECES).enumerate() {
            for r in 0..R {
                let bytes = &vectors[r][v];
                // Any address may be asked for.
                _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast());
                let word = load(bytes);
                let mut pieces = [_mm512_setzero_si512(); PIECES];
                for plane in 0..planes {
                    let codes = spread::<C>(word, plane, mask, table);
                    for (piece, sum) in pieces.iter_mut().enumerate() {
                        *sum = _mm512_dpbusd_epi32(*sum, codes, load(&x[piece * planes + plane]));
                    }
                }
                let [high, middle, low] = pieces;
                let lower = _mm512_add_epi32(_mm512_slli_epi32::<8>(middle), low);
                let base = v * 16 / lanes.max(1);
                let Some(scale) = scales[r].get(base..).and_then(<[f32]>::first_chunk) else { continue };
                let scale = _mm512_permutexvar_ps(lane, load_floats(scale));
                if C::BITS == 8 {
                    // Sums of the highest bytes leave no room for eight bits more, let alone sixteen.
                    let high = _mm512_mul_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(65536.0));
                    sums[r] = _mm512_fmadd_ps(_mm512_add_ps(high, _mm512_cvtepi32_ps(lower)), scale, sums[r]);
                } else {
                    let all = _mm512_add_epi32(_mm512_slli_epi32::<16>(high), lower);
                    sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(all), scale, sums[r]);
                }
            }
        }
        sums.map(|s| _mm512_reduce_add_ps(s))
    }
}

#[cfg(test)]
mod tests {
    use super::super::codes::{Affine, E2m1};
    use super::*;

    fn noise(seed: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(seed.wrapping_mul(747796405).wrapping_add(1)), |s| {
            Some(s.wrapping_mul(1664525).wrapping_add(1013904223))
        })
    }

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        noise(seed).take(count).map(|s| (s >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn check<C: Codes>(biased: bool) {
        for (width, group, count, rows) in
            [(512, 32, 5, 1), (256, 64, 2, 3), (1024, 128, 3, 2), (256, 16, 1, 1), (512, 64, 19, 13), (256, 16, 3, 5)]
        {
            let Some(layout) = Layout::of::<C>(width, group) else { continue };
            let packed: Vec<u8> = noise(3).skip(1).take(count * width / layout.planes).map(|s| (s >> 24) as u8).collect();
            let (scales, biases) = (numbers(count * width / group, 4), numbers(count * width / group, 5));
            // Magnitudes that differ between groups, and within some.
            let x: Vec<f32> = numbers(rows * width, 6).iter().enumerate().map(|(i, v)| v * v * v * ((i / group) as f32 - 3.0)).collect();
            let prepared = layout.prepare(&x);
            let mut results = Vec::new();
            let biases = biased.then_some(&biases[..]);
            let ways: [fn(Job<'_>); 2] = [plain::<C>, run::<C>];
            for how in ways.into_iter().take(1 + usize::from(available())).skip(usize::from(rows >= MANY)) {
                let out = &mut vec![0f32; rows * count][..];
                how(Job { layout, packed: &packed, scales: &scales, biases, x: &prepared, out });
                results.push(out.to_vec());
            }
            for r in 0..rows {
                for c in 0..count {
                    let (mut exact, mut magnitude) = (0f64, 0f64);
                    for k in 0..width {
                        let code = packed[(c * width + k) / layout.planes] >> (k % layout.planes * C::BITS);
                        let (scale, bias) = (scales[(c * width + k) / group], biases.map_or(0.0, |b| b[(c * width + k) / group]));
                        let value = C::value(u32::from(code) & ((1 << C::BITS) - 1));
                        let term = (f64::from(value) * f64::from(scale) + f64::from(bias)) * f64::from(x[r * width + k]);
                        (exact, magnitude) = (exact + term, magnitude + term.abs());
                    }
                    for got in results.iter().map(|out| out[r * count + c]) {
                        let error = (f64::from(got) - exact).abs() / magnitude;
                        assert!(error < 1e-6, "{} bits, group {group}: {got} for {exact}, off by {error:e}", C::BITS);
                    }
                }
            }
        }
    }

    #[test]
    fn vectors_and_plain_loops_are_as_exact_as_f32() {
        check::<Affine<2>>(true);
        check::<Affine<4>>(true);
        check::<Affine<8>>(true);
        check::<E2m1>(false);
    }

    #[test]
    fn codes_that_straddle_bytes_and_odd_widths_have_no_layout() {
        assert!(Layout::of::<Affine<3>>(512, 32).is_none() && Layout::of::<Affine<6>>(512, 32).is_none());
        assert!(Layout::of::<Affine<4>>(96, 32).is_none() && Layout::of::<Affine<4>>(128, 32).is_some());
    }

    #[test]
    fn what_is_no_number_or_nothing_stays_so() {
        let layout = Layout::of::<Affine<4>>(128, 32).unwrap();
        for (x, nan) in [(f32::NAN, true), (f32::INFINITY, true), (1e-38, false), (0.0, false), (f32::MAX, false)] {
            let mut row = vec![0f32; 128];
            row[40] = x;
            let (packed, scales) = (vec![0x22; 64], vec![0.5f32; 4]);
            let prepared = layout.prepare(&row);
            let ways: [fn(Job<'_>); 2] = [plain::<Affine<4>>, run::<Affine<4>>];
            for how in ways.into_iter().take(1 + usize::from(available())) {
                let mut out = [7f32];
                how(Job { layout, packed: &packed, scales: &scales, biases: Some(&[0.0; 4]), x: &prepared, out: &mut out });
                assert!(out[0].is_nan() == nan && (nan || (out[0] - x).abs() <= x * 1e-6 + 1e-30), "{x}: {}", out[0]);
            }
        }
    }
}
