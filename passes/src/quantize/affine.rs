//! Choosing scales and codes of affine formats: loops over groups of `f32`, on the widest vectors the processor has.
//!
//! What torchao computes is computed here in the same order, so that codes and scales are the same bits: a sum over a group
//! goes through 32 partial sums (four vectors of eight lanes), those of more than 512 elements in cascades.

use pulp::Arch;

use super::element::Element;
use super::rules::Method;

/// Adding and subtracting it rounds to an integer, ties to even, anything below 2^22.
const ROUNDS: f32 = 12_582_912.0;
/// How often scales and codes are improved by turns, at most.
pub(super) const TURNS: usize = 20;
/// When no scale of the tensor has changed by more than this part, it is enough.
const TOLERANCE: f32 = 1e-5;
/// Lanes of a partial sum.
const LANES: usize = 8;
/// Vectors of partial sums.
const VECTORS: usize = 4;
/// Elements that every partial sum gets one of.
const STRIDE: usize = LANES * VECTORS;
/// Elements worked on until they are done: they stay in the first-level cache.
const BLOCK: usize = 8192;

type Lanes = [f32; LANES];
/// Partial sums of products with the codes and of their squares.
type Partial = [[Lanes; VECTORS]; 2];

/// What an affine format comes down to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affine {
    /// Elements of a group.
    pub(super) group: usize,
    /// The least code and the greatest.
    pub(super) low: f32,
    pub(super) high: f32,
    pub(super) method: Method,
    /// Type of the weight and of its scales.
    pub(super) element: Element,
}

/// How the search for scales went over all groups seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Search {
    /// The largest relative change of a scale in each turn.
    change: [f32; TURNS],
    /// The last turn that changed a scale, from 1; 0 if none did.
    last: usize,
}

impl Search {
    /// Both together.
    pub(super) fn merge(&mut self, other: &Search) {
        self.change.iter_mut().zip(other.change).for_each(|(a, b)| *a = a.max(b));
        self.last = self.last.max(other.last);
    }

    /// After how many turns torchao stops, which looks at the whole tensor; `None` if every scale was final by then anyway.
    pub(super) fn stops_short(&self) -> Option<usize> {
        let turns = self.change.iter().position(|c| *c < TOLERANCE).map_or(TURNS, |t| t + 1);
        (turns < self.last).then_some(turns)
    }
}

#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

#[inline(always)]
fn rounded(x: f32) -> f32 {
    (x + ROUNDS) - ROUNDS
}

/// The code, between integers, so that it does not matter whether it is rounded or clamped first.
#[inline(always)]
fn code(w: f32, scale: f32, low: f32, high: f32) -> f32 {
    rounded(clamp(w / scale, low, high))
}

impl Affine {
    /// Chooses the scale and zero point of each group of `w`, improving them at most `turns` times.
    pub(super) fn choose(&self, w: &[f32], turns: usize, scales: &mut [f32], zeros: &mut [i8], search: &mut Search) {
        Arch::new().dispatch(
            #[inline(always)]
            || match self.method {
                Method::Hqq => {
                    let groups = (BLOCK / self.group).max(1);
                    let mut active = Vec::with_capacity(groups);
                    for (w, scales) in w.chunks(groups * self.group).zip(scales.chunks_mut(groups)) {
                        improve(self, w, turns, scales, &mut active, search);
                    }
                    zeros.fill(0);
                }
                Method::Symmetric | Method::Asymmetric => {
                    for ((w, s), z) in w.chunks_exact(self.group).zip(scales).zip(zeros) {
                        (*s, *z) = between(self, w);
                    }
                }
            },
        );
    }

    /// Writes the codes of `w`, one a byte, signed.
    pub(super) fn codes(&self, w: &[f32], scales: &[f32], zeros: &[i8], out: &mut [u8]) {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (((w, out), &s), &z) in w.chunks_exact(self.group).zip(out.chunks_exact_mut(self.group)).zip(scales).zip(zeros) {
                    self.each(
                        w,
                        s,
                        z,
                        out,
                        #[inline(always)]
                        |q| q as i32 as i8 as u8,
                    );
                }
            },
        );
    }

    /// Writes the numbers that the codes of `w` stand for.
    pub(super) fn numbers(&self, w: &[f32], scales: &[f32], zeros: &[i8], out: &mut [f32]) {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (((w, out), &s), &z) in w.chunks_exact(self.group).zip(out.chunks_exact_mut(self.group)).zip(scales).zip(zeros) {
                    let (stored, zero) = (self.element.round(s), f32::from(z));
                    self.each(
                        w,
                        s,
                        z,
                        out,
                        #[inline(always)]
                        |q| stored * (q - zero),
                    );
                }
            },
        );
    }

    /// Calls `f` with the code of each element of a group.
    #[inline(always)]
    fn each<T>(&self, w: &[f32], scale: f32, zero: i8, out: &mut [T], f: impl Fn(f32) -> T) {
        let (low, high) = (self.low, self.high);
        match (self.method, self.element) {
            (Method::Hqq, _) => w.iter().zip(out).for_each(|(&w, o)| *o = f(code(w, scale, low, high))),
            // In the type of the weight, step by step.
            (_, e) => {
                let (inverse, zero) = (e.round(1.0 / scale), f32::from(zero));
                w.iter().zip(out).for_each(|(&w, o)| {
                    let q = rounded(clamp(e.round(w * inverse), -65536.0, 65536.0));
                    *o = f(clamp(e.round(q + zero), low, high));
                });
            }
        }
    }
}

/// Scale and zero point from the extremes, each step rounded to the type of the weight.
#[inline(always)]
fn between(f: &Affine, w: &[f32]) -> (f32, i8) {
    let (mut least, mut most) = ([0f32; LANES], [0f32; LANES]);
    for eight in w.chunks_exact(LANES) {
        for ((a, b), &x) in least.iter_mut().zip(&mut most).zip(eight) {
            *a = if x < *a { x } else { *a };
            *b = if x > *b { x } else { *b };
        }
    }
    let (least, most) = (least.into_iter().fold(0f32, f32::min), most.into_iter().fold(0f32, f32::max));
    let e = f.element;
    let smallest = e.smallest_normal();
    if f.method == Method::Symmetric {
        return (e.round(most.max(-least) / ((f.high - f.low) / 2.0)).max(smallest), 0);
    }
    let scale = e.round(e.round(most - least) / (f.high - f.low)).max(smallest);
    let zero = clamp(e.round(f.low - rounded(clamp(e.round(least / scale), -65536.0, 65536.0))), f.low, f.high);
    (scale, zero as i32 as i8)
}

/// Scales of groups that start from the largest magnitude and become those with the least squared error for their codes, by
/// turns. A group whose scale stays the same is final.
#[inline(always)]
fn improve(f: &Affine, w: &[f32], turns: usize, scales: &mut [f32], active: &mut Vec<u32>, search: &mut Search) {
    let (g, low, high) = (f.group, f.low, f.high);
    let most = f.high.abs().max(f.low.abs());
    active.clear();
    for ((i, w), s) in (0..).zip(w.chunks_exact(g)).zip(scales.iter_mut()) {
        let mut largest = [0f32; STRIDE];
        for w in w.chunks_exact(STRIDE) {
            for (m, x) in largest.iter_mut().zip(w) {
                let x = x.abs();
                *m = if x > *m { x } else { *m };
            }
        }
        *s = (largest.into_iter().fold(0f32, |a, b| if b > a { b } else { a }) / most).max(f32::EPSILON);
        active.push(i);
    }
    for (turn, change) in (1..=turns).zip(&mut search.change) {
        if active.is_empty() {
            break;
        }
        let mut kept = 0;
        for start in (0..active.len()).step_by(LANES) {
            // As many groups at a time as there are lanes: their totals are sums over lanes of vectors of groups.
            let mut which = [0u32; LANES];
            let count = match active.get(start..) {
                Some(rest) => rest.iter().zip(&mut which).map(|(a, w)| *w = *a).count(),
                None => 0,
            };
            let mut sums = [[[0f32; LANES]; LANES]; 2];
            let mut before = [f32::EPSILON; LANES];
            for (k, &i) in which.iter().enumerate().take(count) {
                let (Some(w), Some(s)) = (w.get(i as usize * g..(i as usize + 1) * g), scales.get(i as usize)) else { continue };
                let [products, squares] = partial(w, *s, low, high);
                before[k] = *s;
                for lane in 0..LANES {
                    sums[0][lane][k] = products[lane];
                    sums[1][lane][k] = squares[lane];
                }
            }
            let [mut products, mut squares] = [[0f32; LANES]; 2];
            for (p, s) in sums[0].iter().zip(&sums[1]) {
                for k in 0..LANES {
                    products[k] += p[k];
                    squares[k] += s[k];
                }
            }
            for (k, &i) in which.iter().enumerate().take(count) {
                let old = before[k];
                let new = if squares[k] > 0.0 { products[k] / squares[k] } else { old };
                let new = if new > f32::EPSILON { new } else { f32::EPSILON };
                let moved = (new - old).abs() / old;
                *change = if moved > *change { moved } else { *change };
                if new != old {
                    search.last = search.last.max(turn);
                    if let (Some(s), Some(a)) = (scales.get_mut(i as usize), active.get_mut(kept)) {
                        (*s, *a) = (new, i);
                        kept += 1;
                    }
                }
            }
        }
        active.truncate(kept);
    }
}

/// Sums of `w * code` and `code²` over a group but for the last step: over lanes.
#[inline(always)]
fn partial(w: &[f32], scale: f32, low: f32, high: f32) -> [Lanes; 2] {
    let count = w.len() / STRIDE;
    // As many elements of a partial sum as are added one by one.
    let power = 4.max(count.next_power_of_two().trailing_zeros() / 4);
    let sums = if count < 1 << power { run(w, scale, low, high) } else { cascade(w, scale, low, high, power) };
    sums.map(|[a, b, c, d]| {
        let mut lanes = a;
        for other in [b, c, d] {
            lanes.iter_mut().zip(other).for_each(|(l, x)| *l += x);
        }
        lanes
    })
}

#[inline(always)]
fn run(w: &[f32], scale: f32, low: f32, high: f32) -> Partial {
    let mut sums: Partial = [[[0.0; LANES]; VECTORS]; 2];
    for w in w.as_chunks::<STRIDE>().0 {
        for v in 0..VECTORS {
            for l in 0..LANES {
                let x = w[v * LANES + l];
                let q = code(x, scale, low, high);
                sums[0][v][l] += x * q;
                sums[1][v][l] += q * q;
            }
        }
    }
    sums
}

/// Long sums: what was added one by one goes to the next level when it is full, and that to the next.
#[inline(never)]
fn cascade(w: &[f32], scale: f32, low: f32, high: f32, power: u32) -> Partial {
    const LEVELS: usize = 4;
    let step = 1usize << power;
    let mut levels = [[[[0f32; LANES]; VECTORS]; 2]; LEVELS];
    let add = |to: &mut Partial, from: &Partial| {
        to.as_flattened_mut().as_flattened_mut().iter_mut().zip(from.as_flattened().as_flattened()).for_each(|(a, b)| *a += b);
    };
    let mut done = 0;
    let chunks = w.chunks_exact(step * STRIDE);
    let rest = chunks.remainder();
    for chunk in chunks {
        levels[0] = run(chunk, scale, low, high);
        done += step;
        for level in 1..LEVELS {
            let from = std::mem::replace(&mut levels[level - 1], [[[0.0; LANES]; VECTORS]; 2]);
            add(&mut levels[level], &from);
            if done & ((step - 1) << (level as u32 * power)) != 0 {
                break;
            }
        }
    }
    let mut sums = run(rest, scale, low, high);
    levels.iter().skip(1).for_each(|level| add(&mut sums, level));
    sums
}
