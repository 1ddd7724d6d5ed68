//! Rows of codes that are small integers, multiplied as integers: on processors that sum products of bytes, as fast as memory gives the
//! codes.
//!
//! Activations become integers of 24 bits with a scale for each group, which is as exact as `f32` relative to the largest
//! of the group. An integer is three signed bytes, so a sum of codes times integers is three sums of codes times bytes,
//! put together without any rounding. Only then come the scales, in `f32`.

use rayon::prelude::*;

use super::super::vector;
#[cfg(test)]
use super::codes::Bytes;
use super::codes::Codes;
use super::{Factors, Parts};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Bytes of an integer.
const PIECES: usize = 3;

/// The largest integer: three times the largest signed byte.
const TOP: f32 = 127.0 * 0x1_0101 as f32;

/// From so many rows of activations on, rows of the matrix are unpacked, 16 at a time, which all rows share.
const MANY: usize = 4;

/// A smaller peak has no representable inverse worth having; what it contributes is lost beside anything else.
const LEAST: f32 = 1e-30;

/// What multiplies. On processors of other kinds there is nothing.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    /// Loops without vectors: what the others are tested against.
    #[cfg(test)]
    Plain,
    /// Four products of bytes and their sum in one instruction, 16 sums at a time.
    #[cfg(target_arch = "x86_64")]
    Vnni(x86::Vnni),
    /// Two products of bytes and their sum in one instruction, 16 sums at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
}

impl Kernel {
    /// Those that this processor has, the best one first.
    fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        return [x86::Vnni::new().map(Kernel::Vnni), x86::Avx2::new().map(Kernel::Avx2)].into_iter().flatten();
        #[cfg(not(target_arch = "x86_64"))]
        return std::iter::empty();
    }

    /// Whether many rows of activations are multiplied this way too. It takes three products of integers to one of floats, which only
    /// sums of four products make up for.
    fn takes_many(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni(_) => true,
            #[cfg(any(test, target_arch = "x86_64"))]
            _ => false,
        }
    }
}

/// How rows of a matrix and rows of activations lie beside each other.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    width: usize,
    group: usize,
    /// Codes in a byte.
    planes: usize,
    kernel: Kernel,
}

impl Layout {
    /// The layout, if the codes allow one and the processor has the instructions.
    pub(super) fn new<C: Codes>(width: usize, group: usize) -> Option<Self> {
        Kernel::all().next().and_then(|kernel| Self::of::<C>(width, group, kernel))
    }

    fn of<C: Codes>(width: usize, group: usize, kernel: Kernel) -> Option<Self> {
        let planes = 8 / C::BITS;
        let fits =
            planes * C::BITS == 8 && width.is_multiple_of(64 * planes) && group.is_multiple_of(4 * planes) && group.is_multiple_of(16);
        (C::BYTES.is_some() && fits).then_some(Layout { width, group, planes, kernel })
    }

    /// Whether [`few`] is the way however many rows of activations there are.
    pub(super) fn takes_many(self) -> bool {
        self.kernel.takes_many()
    }

    /// Whether so many rows are met by words.
    fn by_words(self, rows: usize) -> bool {
        rows >= MANY && self.takes_many()
    }

    fn groups(self) -> usize {
        self.width / self.group
    }

    /// Length of a prepared row, in `f32`: bytes, then a scale and a sum for each group.
    fn row(self) -> usize {
        self.width * PIECES / 4 + 2 * self.groups()
    }

    /// Rows of activations, all of which are finite, as bytes, then a scale and a sum for each group; the bytes in the order in which they
    /// are met.
    ///
    /// A few rows are met by vectors of 64 bytes of codes: for each such vector there are the highest bytes of all its
    /// integers, the middle ones, the lowest; in each of these those that meet the lowest bits of the 64 bytes, those that
    /// meet the next, …. Many rows are met by words of 32 bits, four codes at a time: for each four there are the highest
    /// bytes, the middle ones, the lowest.
    pub(super) fn prepare(self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.width.max(1);
        let words = self.by_words(rows);
        let run = if words { 4 } else { 64 };
        let place = |at: usize| if words { (at % PIECES, at / PIECES) } else { (at / self.planes, at % self.planes) };
        let mut prepared = vec![0f32; rows * self.row()];
        let prepare = |integers: &mut Vec<i32>, (x, out): (&[f32], &mut [f32])| {
            integers.resize(self.width, 0);
            let (bytes, factors) = out.split_at_mut(self.width * PIECES / 4);
            let (scales, sums) = factors.split_at_mut(self.groups());
            let groups = x.chunks_exact(self.group).zip(integers.chunks_exact_mut(self.group));
            for ((x, integers), (scale, sum)) in groups.zip(scales.iter_mut().zip(sums)) {
                *sum = vector::sum(x);
                let peak = vector::peak(x);
                if peak >= LEAST {
                    *scale = peak / TOP;
                    vector::to_integers(x, TOP / peak, TOP, integers);
                } else {
                    *scale = 0.0;
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

#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "functions for processors that have instructions"))]
fn run<C: Codes>(job: Job<'_>) {
    match job.layout.kernel {
        #[cfg(test)]
        Kernel::Plain => plain::<C>(job),
        // SAFETY: there is such a value only where the processor has what the function is compiled for.
        #[cfg(target_arch = "x86_64")]
        Kernel::Vnni(v) => unsafe { x86::vnni::<C>(v, job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2(v) => unsafe { x86::avx2::<C>(v, job) },
    }
}

/// The same in plain loops for a few rows: what the vectors are tested against.
#[cfg(test)]
fn plain<C: Codes>(job: Job<'_>) {
    let Layout { width, group, planes, .. } = job.layout;
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
            let Some(layout) = Layout::of::<C>(width, group, Kernel::Plain) else { continue };
            let packed: Vec<u8> = noise(3).skip(1).take(count * width / layout.planes).map(|s| (s >> 24) as u8).collect();
            let (scales, biases) = (numbers(count * width / group, 4), numbers(count * width / group, 5));
            // Magnitudes that differ between groups, and within some.
            let x: Vec<f32> = numbers(rows * width, 6).iter().enumerate().map(|(i, v)| v * v * v * ((i / group) as f32 - 3.0)).collect();
            let biases = biased.then_some(&biases[..]);
            let mut results = Vec::new();
            for kernel in Kernel::all().chain([Kernel::Plain]) {
                let layout = Layout { kernel, ..layout };
                let out = &mut vec![0f32; rows * count][..];
                run::<C>(Job { layout, packed: &packed, scales: &scales, biases, x: &layout.prepare(&x), out });
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
        let plain = Kernel::Plain;
        assert!(Layout::of::<Affine<3>>(512, 32, plain).is_none() && Layout::of::<Affine<6>>(512, 32, plain).is_none());
        assert!(Layout::of::<Affine<4>>(96, 32, plain).is_none() && Layout::of::<Affine<4>>(128, 32, plain).is_some());
    }

    /// The largest codes and bytes there are: sums that do not saturate.
    fn check_extremes<C: Codes>() {
        let kernels: Vec<Kernel> = Kernel::all().chain([Kernel::Plain]).collect();
        for (packed, x) in [(0xff, 1.0), (0xff, -1.0), (0x77, 1.0), (0x00, 1.0)] {
            let results: Vec<f32> = kernels
                .iter()
                .map(|&kernel| {
                    let layout = Layout::of::<C>(256, 64, kernel).unwrap();
                    let (packed, mut out) = (vec![packed; 256 / layout.planes], [7f32]);
                    run::<C>(Job {
                        layout,
                        packed: &packed,
                        scales: &[1.0; 4],
                        biases: None,
                        x: &layout.prepare(&[x; 256]),
                        out: &mut out,
                    });
                    out[0]
                })
                .collect();
            let planes = 8 / C::BITS;
            let value = |plane: usize| C::value(u32::from(packed) >> (plane * C::BITS) & ((1 << C::BITS) - 1));
            let want = x * (256 / planes) as f32 * (0..planes).map(value).sum::<f32>();
            assert!(results.iter().all(|r| (r - want).abs() <= want.abs() * 1e-6), "{} bits: {results:?} for {want}", C::BITS);
        }
    }

    #[test]
    fn the_largest_products_do_not_saturate() {
        check_extremes::<Affine<2>>();
        check_extremes::<Affine<4>>();
        check_extremes::<Affine<8>>();
        check_extremes::<E2m1>();
    }

    #[test]
    fn what_is_nothing_or_the_most_there_is_stays_so() {
        for kernel in Kernel::all().chain([Kernel::Plain]) {
            let layout = Layout::of::<Affine<4>>(128, 32, kernel).unwrap();
            for x in [1e-38, 0.0, f32::MAX] {
                let mut row = vec![0f32; 128];
                row[40] = x;
                let (packed, scales, mut out) = (vec![0x22; 64], vec![0.5f32; 4], [7f32]);
                let prepared = layout.prepare(&row);
                run::<Affine<4>>(Job { layout, packed: &packed, scales: &scales, biases: Some(&[0.0; 4]), x: &prepared, out: &mut out });
                assert!((out[0] - x).abs() <= x * 1e-6 + 1e-30, "{kernel:?}, {x}: {}", out[0]);
            }
        }
    }
}
