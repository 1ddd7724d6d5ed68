//! Convolutions over one to three axes (mlx-ops.md §4): input `[batch, space…, channels]`, weight
//! `[out channels, kernel…, channels / groups]`.
//!
//! A convolution is a matrix product of patches of the image with the kernels; patches are gathered panel by panel while
//! it runs. A transposed convolution is several of them: outputs that differ by a multiple of the stride use the same
//! part of the kernel, so that each such class is a plain product in which nothing is zero by construction.

use std::ops::Range;

use rayon::prelude::*;

use super::dtype::{cast, dispatch};
use super::matmul::result_type;
use super::matrix::{Matrix, Strided, few_by_panels, product};
use super::simd::Float;
use super::vector;
use crate::engine::Conv;
use crate::error::{Error, Result};
use crate::tensor::{PARALLEL_BYTES, Tensor, checked_numel};

/// Axes of space; fewer are padded with axes of length 1.
const SPACE: usize = 3;

/// `out[o] = Σ_k x[o·stride + k·dilation - padding] · w[k]`.
pub(crate) fn conv(x: &Tensor, w: &Tensor, geometry: &Conv) -> Result<Tensor> {
    run(x, w, geometry, None)
}

/// `out[i·stride + k·dilation - padding] += x[i] · w[k]`, with `output_padding` more elements at the end of each axis.
pub(crate) fn conv_transpose(x: &Tensor, w: &Tensor, geometry: &Conv, output_padding: &[i64]) -> Result<Tensor> {
    run(x, w, geometry, Some(output_padding))
}

fn run(x: &Tensor, w: &Tensor, geometry: &Conv, transposed: Option<&[i64]>) -> Result<Tensor> {
    let dtype = result_type("a convolution", [x, w])?;
    // Both are small next to the work; dense ones can be read in runs.
    let (x, w) = (cast(x, dtype)?.contiguous()?, cast(w, dtype)?.contiguous()?);
    let sizes = Sizes::new(&x, &w, geometry, transposed)?;
    dispatch!(float, "a convolution", dtype, T => {
        let (Some(image), Some(kernel)) = (x.as_slice::<T>()?, w.as_slice::<T>()?) else {
            return Err(Error::dtype("a dense tensor is not dense"));
        };
        Tensor::build::<T>(&sizes.result, |out| {
            sizes.convolve(image, kernel, out);
            Ok(())
        })
    })
}

/// One axis of space.
#[derive(Clone, Copy)]
struct Axis {
    input: i64,
    output: i64,
    kernel: i64,
    stride: i64,
    padding: i64,
    dilation: i64,
}

struct Sizes {
    batch: usize,
    axes: [Axis; SPACE],
    channels: usize,
    out_channels: usize,
    groups: usize,
    transposed: bool,
    result: Vec<usize>,
}

impl Sizes {
    fn new(x: &Tensor, w: &Tensor, geometry: &Conv, transposed: Option<&[i64]>) -> Result<Self> {
        let bad = |why: &str| Error::shape(format!("a convolution of {:?} with {:?}: {why}", x.shape(), w.shape()));
        let (&[batch, ref space @ .., channels], &[out_channels, ref kernel @ .., depth]) = (x.shape(), w.shape()) else {
            return Err(bad("too few axes"));
        };
        let rank = space.len();
        let lists = [&geometry.stride[..], &geometry.padding, &geometry.dilation, transposed.unwrap_or(&geometry.padding)];
        if rank == 0 || rank > SPACE || kernel.len() != rank || lists.iter().any(|list| list.len() != rank) {
            return Err(bad("image, kernel and geometry have different numbers of axes"));
        }
        let groups = usize::try_from(geometry.groups).ok().filter(|&g| g > 0).ok_or_else(|| bad("no groups"))?;
        if groups > 1 && rank > 2 {
            return Err(bad("MLX has groups in one and two dimensions only"));
        }
        if channels % groups != 0 || out_channels % groups != 0 || depth != channels / groups {
            return Err(bad(&format!("channels do not divide into {groups} groups")));
        }
        let mut axes = [Axis { input: 1, output: 1, kernel: 1, stride: 1, padding: 0, dilation: 1 }; SPACE];
        for (i, axis) in axes[SPACE - rank..].iter_mut().enumerate() {
            let (input, kernel) = (space[i] as i64, kernel[i] as i64);
            let (stride, padding, dilation) = (geometry.stride[i], geometry.padding[i], geometry.dilation[i]);
            // The fields are 32 bits wide; nothing below overflows then.
            let fits = |v: i64, low: i64| (low..=i64::from(i32::MAX)).contains(&v);
            if !fits(stride, 1) || !fits(padding, 0) || !fits(dilation, 1) || !fits(input, 1) || !fits(kernel, 1) {
                return Err(bad("an axis is empty, or a stride, padding or dilation is out of range"));
            }
            let reach = dilation * (kernel - 1);
            let output = match transposed {
                None => (input + 2 * padding - reach - 1).div_euclid(stride) + 1,
                Some(extra) if !fits(extra[i], 0) => return Err(bad("an output padding is out of range")),
                Some(extra) => ((input - 1) * stride).saturating_add(reach - 2 * padding + extra[i] + 1),
            };
            if output < 1 {
                return Err(bad("the kernel is larger than the padded image"));
            }
            *axis = Axis { input, output, kernel, stride, padding, dilation };
        }
        let space = axes[SPACE - rank..].iter().map(|a| a.output as usize);
        let result: Vec<usize> = [batch].into_iter().chain(space).chain([out_channels]).collect();
        checked_numel(&result)?;
        Ok(Sizes { batch, axes, channels, out_channels, groups, transposed: transposed.is_some(), result })
    }

    fn convolve<T: Float>(&self, image: &[T], kernel: &[T], out: &mut [T]) {
        if out.is_empty() {
            return;
        }
        let mut rows: Vec<Option<&mut [T]>> = out.chunks_exact_mut(self.out_channels).map(Some).collect();
        let classes = self.axes.map(|axis| axis.classes(self.transposed));
        for a in &classes[0] {
            for b in &classes[1] {
                for c in &classes[2] {
                    let class = [a, b, c];
                    let lengths = self.axes.map(|axis| axis.output as usize);
                    let mut part = Vec::with_capacity(self.batch * a.count * b.count * c.count);
                    for n in 0..self.batch {
                        for i in a.outputs() {
                            for j in b.outputs() {
                                let row = ((n * lengths[0] + i) * lengths[1] + j) * lengths[2];
                                part.extend(c.outputs().filter_map(|k| rows[row + k].take()));
                            }
                        }
                    }
                    self.convolve_class(image, kernel, class, part);
                }
            }
        }
    }

    fn convolve_class<T: Float>(&self, image: &[T], kernel: &[T], class: [&Class; SPACE], mut out: Vec<&mut [T]>) {
        let taps = Taps::new(class, self.axes.map(|axis| axis.kernel as usize));
        let depth = self.channels / self.groups;
        let patches = |channel| Patches { image, sizes: self, class, taps: &taps, channel, depth };
        if depth == 1 && self.groups > 1 {
            return depthwise(&patches(0), kernel, out);
        }
        let width = self.out_channels / self.groups;
        for group in 0..self.groups {
            let part = out
                .iter_mut()
                .map(|row| {
                    let (head, tail) = std::mem::take(row).split_at_mut(width);
                    *row = tail;
                    head
                })
                .collect();
            let patches = patches(group * depth);
            let kernels = Kernels { kernel, taps: &taps, first: group * width, count: width, depth };
            let pixels = patches.as_pixels();
            let a = pixels.as_ref().map_or(&patches as &dyn Matrix, |pixels| pixels);
            let whole = kernels.as_rows();
            let b = whole.as_ref().map_or(&kernels as &dyn Matrix, |rows| rows);
            product(a, b, part, &|_, _, _| {});
        }
    }
}

/// Outputs along one axis that use the same part of the kernel: `first`, `first + step`, …
struct Class {
    first: usize,
    step: usize,
    count: usize,
    input: i64,
    /// Output number `j` and tap `t` meet at input `base + j·pace + offset(t)`.
    base: i64,
    pace: i64,
    /// Place in the kernel and offset of each tap.
    taps: Vec<(usize, i64)>,
}

impl Class {
    fn outputs(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.count).map({
            let (first, step) = (self.first, self.step);
            move |j| first + j * step
        })
    }
}

impl Axis {
    fn classes(&self, transposed: bool) -> Vec<Class> {
        let Axis { input, output, kernel, stride, padding, dilation } = *self;
        if !transposed {
            let taps = (0..kernel).map(|k| (k as usize, k * dilation)).collect();
            return vec![Class { first: 0, step: 1, count: output as usize, input, base: -padding, pace: stride, taps }];
        }
        // Output o meets input i at tap k where o + padding = i·stride + k·dilation.
        let class = |first: i64| {
            let rest = (first + padding) % stride;
            let taps = (0..kernel).map(|k| (k as usize, rest - k * dilation)).filter(|(_, d)| d % stride == 0);
            Class {
                first: first as usize,
                step: stride as usize,
                count: ((output - first - 1) / stride + 1) as usize,
                input,
                base: (first + padding) / stride,
                pace: 1,
                taps: taps.map(|(k, d)| (k, d / stride)).collect(),
            }
        };
        (0..stride.min(output)).map(class).collect()
    }
}

/// The taps of a class over all axes.
struct Taps {
    /// Row-major place in the kernel, and offset along each axis.
    list: Vec<(usize, [i64; SPACE])>,
    /// Taps of the whole kernel.
    all: usize,
}

impl Taps {
    fn new(class: [&Class; SPACE], kernel: [usize; SPACE]) -> Self {
        let [a, b, c] = class;
        let mut list = Vec::with_capacity(a.taps.len() * b.taps.len() * c.taps.len());
        for &(i, x) in &a.taps {
            for &(j, y) in &b.taps {
                list.extend(c.taps.iter().map(|&(k, z)| ((i * kernel[1] + j) * kernel[2] + k, [x, y, z])));
            }
        }
        Taps { list, all: kernel.iter().product() }
    }
}

/// The patches of an image that the outputs of a class see, as rows; `depth` channels from `channel`.
struct Patches<'a, T> {
    image: &'a [T],
    sizes: &'a Sizes,
    class: [&'a Class; SPACE],
    taps: &'a Taps,
    channel: usize,
    depth: usize,
}

impl<'a, T: Float> Patches<'a, T> {
    /// Input positions of the first tap (without its offset) of a patch, and the batch.
    fn place(&self, row: usize) -> (usize, [i64; SPACE]) {
        let mut rest = row;
        let mut at = [0; SPACE];
        for (at, class) in at.iter_mut().zip(self.class).rev() {
            *at = class.base + class.pace * (rest % class.count) as i64;
            rest /= class.count;
        }
        (rest, at)
    }

    /// The channels that a patch has under a tap; `None` where it reaches beyond the image.
    fn pixel(&self, (batch, at): (usize, [i64; SPACE]), tap: usize) -> Option<&'a [T]> {
        let mut index = batch;
        for ((at, offset), class) in at.iter().zip(self.taps.list[tap].1).zip(self.class) {
            let i = at + offset;
            if !(0..class.input).contains(&i) {
                return None;
            }
            index = index * class.input as usize + i as usize;
        }
        Some(&self.image[index * self.sizes.channels..][..self.sizes.channels])
    }

    /// The image itself, where each patch is one pixel and all are used in order.
    fn as_pixels(&self) -> Option<Strided<'a, T>> {
        let plain = |class: &Class| {
            class.taps.as_slice() == [(0, 0)] && class.step == 1 && class.base == 0 && class.pace == 1 && class.count as i64 == class.input
        };
        let channels = self.sizes.channels;
        self.class
            .iter()
            .all(|class| plain(class))
            .then(|| Strided::new(self.image, self.channel, (self.outer(), channels as isize), (self.depth, 1)))
    }
}

impl<T: Float> Matrix for Patches<'_, T> {
    fn outer(&self) -> usize {
        self.sizes.batch * self.class.iter().map(|c| c.count).product::<usize>()
    }

    fn depth(&self) -> usize {
        self.taps.list.len() * self.depth
    }

    fn k_inner(&self) -> bool {
        true
    }

    fn panel(&self, outer: Range<usize>, k: Range<usize>, out: &mut [f32]) {
        for (row, out) in outer.zip(out.chunks_exact_mut(k.len())) {
            let place = self.place(row);
            for_runs(self.depth, k.clone(), out, |tap, channels, out| match self.pixel(place, tap) {
                Some(pixel) => T::widen_to(&pixel[self.channel..][channels], out),
                None => out.fill(0.0),
            });
        }
    }

    fn few(&self, outer: Range<usize>, x: &[f32], out: &mut [f32]) {
        few_by_panels(self, outer, x, out);
    }
}

/// The kernels of some output channels as rows, over the taps of a class.
struct Kernels<'a, T> {
    kernel: &'a [T],
    taps: &'a Taps,
    first: usize,
    count: usize,
    depth: usize,
}

impl<'a, T: Float> Kernels<'a, T> {
    /// The kernels where they lie, if all taps are used.
    fn as_rows(&self) -> Option<Strided<'a, T>> {
        let width = self.taps.all * self.depth;
        let whole = self.taps.list.len() == self.taps.all;
        whole.then(|| Strided::new(self.kernel, self.first * width, (self.count, width as isize), (width, 1)))
    }
}

impl<T: Float> Matrix for Kernels<'_, T> {
    fn outer(&self) -> usize {
        self.count
    }

    fn depth(&self) -> usize {
        self.taps.list.len() * self.depth
    }

    fn k_inner(&self) -> bool {
        true
    }

    fn panel(&self, outer: Range<usize>, k: Range<usize>, out: &mut [f32]) {
        for (row, out) in outer.zip(out.chunks_exact_mut(k.len())) {
            for_runs(self.depth, k.clone(), out, |tap, channels, out| {
                let start = ((self.first + row) * self.taps.all + self.taps.list[tap].0) * self.depth;
                T::widen_to(&self.kernel[start..][channels], out);
            });
        }
    }

    fn few(&self, outer: Range<usize>, x: &[f32], out: &mut [f32]) {
        few_by_panels(self, outer, x, out);
    }
}

/// Cuts `k`, which counts channels within taps, into runs of one tap: calls `f(tap, channels, part of out)`.
fn for_runs(depth: usize, k: Range<usize>, out: &mut [f32], mut f: impl FnMut(usize, Range<usize>, &mut [f32])) {
    let (mut at, mut rest) = (k.start, out);
    while at < k.end {
        let (tap, channel) = (at / depth, at % depth);
        let len = (depth - channel).min(k.end - at);
        let (head, tail) = rest.split_at_mut(len);
        f(tap, channel..channel + len, head);
        (at, rest) = (at + len, tail);
    }
}

/// Groups of one channel each: channels are multiplied side by side.
fn depthwise<T: Float>(patches: &Patches<'_, T>, kernel: &[T], out: Vec<&mut [T]>) {
    let (channels, out_channels) = (patches.sizes.channels, patches.sizes.out_channels);
    let each = out_channels / channels;
    // One row of factors for each tap.
    let factors: Vec<f32> = patches
        .taps
        .list
        .iter()
        .flat_map(|&(place, _)| (0..out_channels).map(move |c| kernel[c * patches.taps.all + place]))
        .map(|v| {
            let mut wide = [0f32];
            T::widen_to(&[v], &mut wide);
            wide[0]
        })
        .collect();
    let work = |(wide, sums): &mut (Vec<f32>, Vec<f32>), (row, out): (usize, &mut [T])| {
        sums.fill(0.0);
        let place = patches.place(row);
        for (tap, factors) in factors.chunks_exact(out_channels).enumerate() {
            let Some(pixel) = patches.pixel(place, tap) else { continue };
            if each == 1 {
                T::widen_to(pixel, wide);
            } else {
                T::widen_to(pixel, &mut wide[..channels]);
                for c in (0..out_channels).rev() {
                    wide[c] = wide[c / each];
                }
            }
            vector::add_products(sums, wide, factors);
        }
        T::round_to(sums, out);
    };
    let scratch = || (vec![0f32; out_channels], vec![0f32; out_channels]);
    if out.len() * out_channels * patches.taps.list.len() * size_of::<f32>() > PARALLEL_BYTES {
        out.into_par_iter().enumerate().with_min_len(64).for_each_init(scratch, work);
    } else {
        let mut scratch = scratch();
        out.into_iter().enumerate().for_each(|part| work(&mut scratch, part));
    }
}

#[cfg(test)]
mod tests;
