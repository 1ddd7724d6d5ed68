//! Vectors: of 512 bits with instructions that sum four products, of 256 bits with such that sum two.

#![expect(unsafe_code, reason = "instructions of processors")]

use std::arch::x86_64::*;

use super::super::codes::{Bytes, Codes};
use super::{Job, Layout, MANY, PIECES};

/// Rows of the matrix side by side, which share what is loaded of the activations.
const ROWS: usize = 2;

/// How far ahead bytes of the matrix are asked for: far enough for memory to answer, and still in the first cache then.
const AHEAD: usize = 2048;

/// Vectors of 32-bit lanes, or of four times as many bytes. There is a value of the type only where the processor has them.
trait Vectors: Copy {
    type Integers: Copy;
    type Floats: Copy;

    /// Lanes of a vector; at most 16.
    const LANES: usize;

    /// `LANES` times four bytes, with which `bytes` begins.
    fn load(self, bytes: &[u8]) -> Self::Integers;

    /// `LANES` floats, with which `floats` begins, those that `lane` says.
    fn pick(self, floats: &[f32], lane: &[i32; 16]) -> Self::Floats;

    /// The codes that lie in bits `plane·BITS` and above of each byte, as bytes.
    fn spread<C: Codes>(self, word: Self::Integers, plane: usize) -> Self::Integers;

    /// Sums of four products each, over all planes: of codes and of the signed bytes that `x` gives.
    fn sums<C: Codes>(self, codes: &[Self::Integers], x: impl Fn(usize) -> Self::Integers) -> Self::Integers;

    /// `high·2^16 + middle·2^8 + low`, as floats: of integers if `exact`, which have room for it then.
    fn join(self, pieces: [Self::Integers; PIECES], exact: bool) -> Self::Floats;

    fn zero(self) -> Self::Floats;

    /// `a·b + c`
    fn multiply_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    /// The sum of all lanes.
    fn total(self, x: Self::Floats) -> f32;
}

/// Codes in bits, or their bytes.
const fn has_table<C: Codes>() -> bool {
    matches!(C::BYTES, Some(Bytes { table: Some(_), .. }))
}

/// Loads a vector of so many bytes that a slice begins with.
macro_rules! loaded {
    ($load:ident, $slice:expr, $size:literal) => {{
        let slice = $slice;
        assert!(size_of_val(slice) >= $size);
        // SAFETY: as many bytes are there, and the instruction takes any alignment.
        unsafe { $load(slice.as_ptr().cast()) }
    }};
}

/// 512 bits, with VNNI.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vnni(());

impl Vnni {
    pub(super) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma");
        has.then_some(Vnni(()))
    }
}

// Everything is inlined into a function that is compiled for the instructions.
impl Vectors for Vnni {
    type Integers = __m512i;
    type Floats = __m512;

    const LANES: usize = 16;

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m512i {
        loaded!(_mm512_loadu_si512, bytes, 64)
    }

    #[inline(always)]
    fn pick(self, floats: &[f32], lane: &[i32; 16]) -> __m512 {
        let (floats, lane) = (loaded!(_mm512_loadu_ps, floats, 64), loaded!(_mm512_loadu_si512, lane, 64));
        // SAFETY: the processor has the instruction, or there were no `self`.
        unsafe { _mm512_permutexvar_ps(lane, floats) }
    }

    #[inline(always)]
    fn spread<C: Codes>(self, word: __m512i, plane: usize) -> __m512i {
        let table = C::BYTES.and_then(|b| b.table).unwrap_or_default();
        let table = loaded!(_mm_loadu_si128, &table, 16);
        // SAFETY: as above.
        unsafe {
            let shifted = if plane == 0 { word } else { _mm512_srl_epi16(word, _mm_cvtsi32_si128((plane * C::BITS) as i32)) };
            let mask = _mm512_set1_epi8(((1u16 << C::BITS) - 1) as i8);
            let codes = if C::BITS == 8 { shifted } else { _mm512_and_si512(shifted, mask) };
            if has_table::<C>() { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), codes) } else { codes }
        }
    }

    #[inline(always)]
    fn sums<C: Codes>(self, codes: &[__m512i], x: impl Fn(usize) -> __m512i) -> __m512i {
        // SAFETY: as above.
        let zero = unsafe { _mm512_setzero_si512() };
        // SAFETY: as above.
        codes.iter().enumerate().fold(zero, |sum, (plane, codes)| unsafe { _mm512_dpbusd_epi32(sum, *codes, x(plane)) })
    }

    #[inline(always)]
    fn join(self, [high, middle, low]: [__m512i; PIECES], exact: bool) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let lower = _mm512_add_epi32(_mm512_slli_epi32::<8>(middle), low);
            if exact {
                return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32::<16>(high), lower));
            }
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(65536.0), _mm512_cvtepi32_ps(lower))
        }
    }

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn multiply_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn total(self, x: __m512) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_add_ps(x) }
    }
}

/// 256 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

impl Vectors for Avx2 {
    type Integers = __m256i;
    type Floats = __m256;

    const LANES: usize = 8;

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m256i {
        loaded!(_mm256_loadu_si256, bytes, 32)
    }

    #[inline(always)]
    fn pick(self, floats: &[f32], lane: &[i32; 16]) -> __m256 {
        let (floats, lane) = (loaded!(_mm256_loadu_ps, floats, 32), loaded!(_mm256_loadu_si256, lane, 32));
        // SAFETY: the processor has the instruction, or there were no `self`.
        unsafe { _mm256_permutevar8x32_ps(floats, lane) }
    }

    #[inline(always)]
    fn spread<C: Codes>(self, word: __m256i, plane: usize) -> __m256i {
        let table = C::BYTES.and_then(|b| b.table).unwrap_or_default();
        let table = loaded!(_mm_loadu_si128, &table, 16);
        // SAFETY: as above.
        unsafe {
            let shifted = if plane == 0 { word } else { _mm256_srl_epi16(word, _mm_cvtsi32_si128((plane * C::BITS) as i32)) };
            let mask = _mm256_set1_epi8(((1u16 << C::BITS) - 1) as i8);
            let codes = if C::BITS == 8 { shifted } else { _mm256_and_si256(shifted, mask) };
            if has_table::<C>() { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), codes) } else { codes }
        }
    }

    #[inline(always)]
    fn sums<C: Codes>(self, codes: &[__m256i], x: impl Fn(usize) -> __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe {
            // The instruction saturates sums of two products at 16 bits. Bytes of at most 24 (in two planes) or 3 (in four) stay far below: a
            // product of 128 and 24 four times is 12288. Whole bytes go in halves.
            let (mut sums, mut above) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            for (plane, &codes) in codes.iter().enumerate() {
                let x = x(plane);
                if C::BITS < 8 {
                    sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, x));
                } else {
                    let half = _mm256_set1_epi8(15);
                    sums = _mm256_maddubs_epi16(_mm256_and_si256(codes, half), x);
                    above = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(codes), half), x);
                }
            }
            let sums = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
            if C::BITS < 8 { sums } else { _mm256_add_epi32(sums, _mm256_madd_epi16(above, _mm256_set1_epi16(16))) }
        }
    }

    #[inline(always)]
    fn join(self, [high, middle, low]: [__m256i; PIECES], exact: bool) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let lower = _mm256_add_epi32(_mm256_slli_epi32::<8>(middle), low);
            if exact {
                return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32::<16>(high), lower));
            }
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), _mm256_set1_ps(65536.0), _mm256_cvtepi32_ps(lower))
        }
    }

    #[inline(always)]
    fn zero(self) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn multiply_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn total(self, x: __m256) -> f32 {
        let mut lanes = [0f32; 8];
        // SAFETY: as above, and there is room for eight numbers.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), x) };
        lanes.iter().sum()
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn avx2<C: Codes>(v: Avx2, job: Job<'_>) {
    few::<C, Avx2>(v, job);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,fma")]
pub(super) fn vnni<C: Codes>(v: Vnni, job: Job<'_>) {
    if job.x.len() / job.layout.row() < MANY { few::<C, Vnni>(v, job) } else { many::<C>(v, job) }
}

#[inline(always)]
fn few<C: Codes, V: Vectors>(v: V, job: Job<'_>) {
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
                let products = multiply::<C, V, ROWS>(v, job.layout, [row(0), row(1)], [own(0), own(1)], x);
                for i in 0..ROWS {
                    job.out[r * count + c + i * apart] = products[i] + shifts[i];
                }
            } else {
                let [product] = multiply::<C, V, 1>(v, job.layout, [row(0)], [own(0)], x);
                job.out[r * count + c] = product + shifts[0];
            }
        }
    }
}

/// Sums over all groups of scale times sum of codes times integers, for some rows.
#[inline(always)]
fn multiply<C: Codes, V: Vectors, const R: usize>(v: V, layout: Layout, rows: [&[u8]; R], scales: [&[f32]; R], x: &[u8]) -> [f32; R] {
    let planes = 8 / C::BITS;
    // Each lane sums what four bytes of codes meet; lanes of one group have one scale.
    let lanes = (layout.group / (4 * layout.planes)).max(1);
    let lane: [i32; 16] = std::array::from_fn(|l| (l / lanes) as i32);
    let units = rows.map(|row| row.as_chunks::<64>().0);
    let mut sums = [v.zero(); R];
    for (u, x) in x.as_chunks::<64>().0.chunks_exact(planes * PIECES).enumerate() {
        for r in 0..R {
            let bytes = &units[r][u];
            // SAFETY: any address may be asked for.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast()) };
            for first in (0..16).step_by(V::LANES) {
                let word = v.load(&bytes[4 * first..]);
                let mut codes = [word; 4];
                for (plane, codes) in codes.iter_mut().enumerate().take(planes) {
                    *codes = v.spread::<C>(word, plane);
                }
                let piece = |p: usize| v.sums::<C>(&codes[..planes], |plane| v.load(&x[p * planes + plane][4 * first..]));
                // Sums of whole bytes leave no room for 16 bits more.
                let product = v.join([piece(0), piece(1), piece(2)], C::BITS < 8);
                let Some(scales) = scales[r].get((u * 16 + first) / lanes..).filter(|s| s.len() >= V::LANES) else { continue };
                sums[r] = v.multiply_add(product, v.pick(scales, &lane), sums[r]);
            }
        }
    }
    sums.map(|s| v.total(s))
}

#[inline(always)]
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

/// Rows of the matrix that are unpacked together: one in each lane.
const TILE: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,fma")]
fn many<C: Codes>(v: Vnni, job: Job<'_>) {
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
        unpack::<C>(v, row.map(|r| &packed[r * words..][..words]), &mut codes);
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
                8.. => keep(&tile::<8>(v, job.layout, &codes, &factors, &rows[r..])),
                4.. => keep(&tile::<4>(v, job.layout, &codes, &factors, &rows[r..])),
                _ => keep(&tile::<1>(v, job.layout, &codes, &factors, &rows[r..])),
            };
        }
    }
}

/// Codes of 16 rows as bytes: the first four that each row's first word holds in the lowest bits of its bytes, the
/// four above, …, then those of the next word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn unpack<C: Codes>(v: Vnni, rows: [&[[u8; 4]]; TILE], codes: &mut [[u8; 64]]) {
    for (w, codes) in codes.chunks_exact_mut(8 / C::BITS).enumerate() {
        let words: [i32; TILE] = std::array::from_fn(|l| rows[l].get(w).map_or(0, |word| i32::from_le_bytes(*word)));
        let words = loaded!(_mm512_loadu_si512, &words, 64);
        for (plane, codes) in codes.iter_mut().enumerate() {
            // SAFETY: there is room for 64 bytes.
            unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), v.spread::<C>(words, plane)) };
        }
    }
}

/// Products of 16 rows, unpacked, with the first `T` of `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,fma")]
fn tile<const T: usize>(v: Vnni, layout: Layout, codes: &[[u8; 64]], factors: &[([f32; TILE], [f32; TILE])], x: &[&[f32]]) -> [__m512; T] {
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
                let codes = v.load(&codes[i]);
                for t in 0..T {
                    for p in 0..PIECES {
                        sums[t][p] = _mm512_dpbusd_epi32(sums[t][p], codes, _mm512_set1_epi32(i32::from_le_bytes(x[t][i][p])));
                    }
                }
            }
        }
        let (row_scales, row_biases) = (loaded!(_mm512_loadu_ps, row_scales, 64), loaded!(_mm512_loadu_ps, row_biases, 64));
        for t in 0..T {
            let sum = v.join(sums[t], false);
            let scale = _mm512_mul_ps(row_scales, _mm512_set1_ps(scales[t][g]));
            products[t] = _mm512_fmadd_ps(sum, scale, products[t]);
            products[t] = _mm512_fmadd_ps(row_biases, _mm512_set1_ps(scales[t][groups + g]), products[t]);
        }
    }
    products
}
