//! What detectors do with boxes, and convolutions at shifted places. Source: torchvision.ops.

use super::call::{Call, Results, many, one};
use super::tensor::Tensor;
use super::{Error, bad};
use crate::DType;

/// Most samples along an axis of a bin: of boxes beyond reason none are drawn.
const MOST_SAMPLES: f64 = 65536.0;

/// One axis of a box, brought to the scale of the image: where it starts, and how long one of its bins is.
struct Span {
    start: f32,
    bin: f32,
}

/// How regions are made of boxes.
#[derive(Clone, Copy)]
struct Rule {
    /// Pixels that the box is shifted by.
    shift: f32,
    /// Whether boxes smaller than a pixel are a pixel.
    whole: bool,
}

/// Images, boxes and the size of the result.
struct Regions {
    x: Tensor,
    pixels: Vec<f64>,
    boxes: Vec<f32>,
    sizes: [usize; 4],
    bins: [usize; 2],
    scale: f32,
}

impl Regions {
    fn new(c: &Call) -> Result<Self, Error> {
        let (x, rois) = (c.tensor("input")?, c.tensor("rois")?);
        let (&[n, channels, h, w], [_, 5]) = (x.shape(), rois.shape()) else { return Err(bad("no images, or no boxes of five numbers")) };
        let bins = [c.size("pooled_height")?, c.size("pooled_width")?];
        let boxes = rois.to::<f64>().into_iter().map(|v| v as f32).collect();
        let scale = c.float("spatial_scale")? as f32;
        Ok(Self { pixels: x.to::<f64>(), x, boxes, sizes: [n, channels, h, w], bins, scale })
    }

    /// The result of `f` for each box, channel, row and column of bins: it gets the pixels of the channel, and the box as image number, row and
    /// column ends. Where `places` is true, every bin has channels of its own.
    fn each<T>(
        &self,
        places: bool,
        mut f: impl FnMut(&[f64], [f32; 4], [usize; 2]) -> Result<T, Error>,
    ) -> Result<(Vec<usize>, Vec<T>), Error> {
        let ([n, channels, h, w], [rows, columns]) = (self.sizes, self.bins);
        let cells = rows.checked_mul(columns).filter(|&n| n > 0).ok_or_else(|| bad("no bins, or too many"))?;
        let plane = h.checked_mul(w).ok_or_else(|| bad("images beyond reason"))?;
        let out = if places { channels / cells } else { channels };
        let mut results = Vec::new();
        for b in self.boxes.chunks_exact(5) {
            let &[image, x1, y1, x2, y2] = b else { continue };
            let image = Some(image).filter(|&i| i >= 0.0 && i < n as f32).ok_or_else(|| bad(format!("a box in image {image} of {n}")))?;
            for channel in 0..out {
                for at in 0..cells {
                    let from = if places { channel * cells + at } else { channel };
                    let first = (image as usize * channels + from) * plane;
                    let pixels = self.pixels.get(first..first + plane).unwrap_or(&[]);
                    results.push(f(pixels, [y1, x1, y2, x2], [at / columns, at % columns])?);
                }
            }
        }
        Ok((vec![self.boxes.len() / 5, out, rows, columns], results))
    }

    fn span(&self, low: f32, high: f32, bins: usize, rule: Rule) -> Span {
        let start = low * self.scale - rule.shift;
        let size = high * self.scale - rule.shift - start;
        let size = if rule.whole { size.max(1.0) } else { size };
        Span { start, bin: size / bins as f32 }
    }

    /// The mean of samples in a bin, between pixels.
    fn sampled(&self, pixels: &[f64], ends: [f32; 4], at: [usize; 2], rule: Rule, ratio: i64) -> Result<f64, Error> {
        let [y1, x1, y2, x2] = ends;
        let spans = [self.span(y1, y2, self.bins[0], rule), self.span(x1, x2, self.bins[1], rule)];
        let mut places: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for ((span, place), &bin) in spans.iter().zip(&mut places).zip(&at) {
            let count = if ratio > 0 { ratio as f64 } else { f64::from(span.bin.ceil()).max(0.0) };
            if count > MOST_SAMPLES {
                return Err(bad(format!("{count} samples along one axis of a bin")));
            }
            let (start, step) = (f64::from(span.start) + bin as f64 * f64::from(span.bin), f64::from(span.bin) / count);
            place.extend((0..count as usize).map(|i| start + (i as f64 + 0.5) * step));
        }
        let [ys, xs] = &places;
        let sum: f64 = ys.iter().flat_map(|&y| xs.iter().map(move |&x| self.clamped(pixels, y, x))).sum();
        Ok(sum / (ys.len() * xs.len()).max(1) as f64)
    }

    /// Between four pixels; up to one outside, those at the border count.
    fn clamped(&self, pixels: &[f64], y: f64, x: f64) -> f64 {
        let [_, _, h, w] = self.sizes;
        if !(y >= -1.0 && y <= h as f64 && x >= -1.0 && x <= w as f64) || h == 0 || w == 0 {
            return 0.0;
        }
        between(pixels, [h, w], y.clamp(0.0, h as f64 - 1.0), x.clamp(0.0, w as f64 - 1.0))
    }

    /// Rows or columns of whole pixels in a bin.
    fn whole(&self, low: f32, high: f32, axis: usize, bin: usize, closed: bool) -> std::ops::Range<usize> {
        let (bins, n) = (self.bins[axis], self.sizes[axis + 2] as f32);
        // A closed box ends with its last pixel; an open one never reaches the last pixel of the image.
        let (more, last) = if closed { (1.0, n) } else { (0.0, n - 1.0) };
        let (low, high) = ((low * self.scale).round(), (high * self.scale).round());
        let size = (high - low + more).max(1.0) / bins as f32;
        let end = |x: f32| (x + low).min(last).max(0.0) as usize;
        end((bin as f32 * size).floor())..end(((bin + 1) as f32 * size).ceil())
    }
}

/// Between four pixels, of which those outside are zero.
fn between(pixels: &[f64], [h, w]: [usize; 2], y: f64, x: f64) -> f64 {
    let (low, left) = (y.floor(), x.floor());
    let mut sum = 0.0;
    for (row, down) in [(low, 1.0 - (y - low)), (low + 1.0, y - low)] {
        for (column, across) in [(left, 1.0 - (x - left)), (left + 1.0, x - left)] {
            let inside = row >= 0.0 && row < h as f64 && column >= 0.0 && column < w as f64;
            if inside && down * across != 0.0 {
                sum += pixels.get(row as usize * w + column as usize).copied().unwrap_or(0.0) * down * across;
            }
        }
    }
    sum
}

pub(super) fn roi_align(c: &Call) -> Results {
    let (regions, ratio, aligned) = (Regions::new(c)?, c.int("sampling_ratio")?, c.flag("aligned"));
    let rule = if aligned { Rule { shift: 0.5, whole: false } } else { Rule { shift: 0.0, whole: true } };
    let (shape, values) = regions.each(false, |pixels, ends, at| regions.sampled(pixels, ends, at, rule, ratio))?;
    one(Tensor::of(regions.x.dtype(), &shape, values)?)
}

/// The channel that each place of the result is from.
fn mapping(shape: &[usize]) -> Result<Tensor, Error> {
    let places: usize = shape.iter().skip(1).product();
    let count: usize = shape.first().copied().unwrap_or(0);
    Tensor::of(DType::Int32, shape, (0..count).flat_map(|_| 0..places as i64))
}

pub(super) fn ps_roi_align(c: &Call) -> Results {
    let (regions, ratio) = (Regions::new(c)?, c.int("sampling_ratio")?);
    let rule = Rule { shift: 0.5, whole: false };
    let (shape, values) = regions.each(true, |pixels, ends, at| regions.sampled(pixels, ends, at, rule, ratio))?;
    many([Tensor::of(regions.x.dtype(), &shape, values)?, mapping(&shape)?])
}

pub(super) fn roi_pool(c: &Call) -> Results {
    let regions = Regions::new(c)?;
    let width = regions.sizes[3];
    let (shape, found) = regions.each(false, |pixels, [y1, x1, y2, x2], [row, column]| {
        let (rows, columns) = (regions.whole(y1, y2, 0, row, true), regions.whole(x1, x2, 1, column, true));
        let empty = rows.is_empty() || columns.is_empty();
        let mut best = (if empty { 0.0 } else { f64::from(f32::MIN) }, -1i64);
        for at in rows.flat_map(|y| columns.clone().map(move |x| y * width + x)) {
            if let Some(&x) = pixels.get(at).filter(|&&x| x > best.0) {
                best = (x, at as i64);
            }
        }
        Ok(best)
    })?;
    let (values, places): (Vec<f64>, Vec<i64>) = found.into_iter().unzip();
    many([Tensor::of(regions.x.dtype(), &shape, values)?, Tensor::of(DType::Int32, &shape, places)?])
}

pub(super) fn ps_roi_pool(c: &Call) -> Results {
    let regions = Regions::new(c)?;
    let width = regions.sizes[3];
    let (shape, values) = regions.each(true, |pixels, [y1, x1, y2, x2], [row, column]| {
        let (rows, columns) = (regions.whole(y1, y2, 0, row, false), regions.whole(x1, x2, 1, column, false));
        let count = rows.len() * columns.len();
        let all = rows.flat_map(|y| columns.clone().map(move |x| y * width + x));
        let sum: f64 = all.map(|at| pixels.get(at).copied().unwrap_or(0.0)).sum();
        Ok(if count == 0 { 0.0 } else { sum / count as f64 })
    })?;
    many([Tensor::of(regions.x.dtype(), &shape, values)?, mapping(&shape)?])
}

/// A convolution whose taps are shifted, and weighed.
pub(super) fn deform_conv2d(c: &Call) -> Results {
    let (x, weight, offset, bias) = (c.tensor("input")?, c.tensor("weight")?, c.tensor("offset")?, c.tensor("bias")?);
    let pair = |a: &str, b: &str| -> Result<[i64; 2], Error> { Ok([c.int(a)?, c.int(b)?]) };
    let (stride, pad, dilation) = (pair("stride_h", "stride_w")?, pair("pad_h", "pad_w")?, pair("dilation_h", "dilation_w")?);
    let (groups, shifted) = (c.size("groups")?, c.size("offset_groups")?);
    let (&[n, channels, h, w], &[out, each, kh, kw], &[_, shifts, rows, columns]) = (x.shape(), weight.shape(), offset.shape()) else {
        return Err(bad("images, weights and offsets of rank 4"));
    };
    let taps = kh * kw;
    let fits = groups > 0 && shifted > 0 && channels % shifted == 0 && out % groups == 0 && each * groups == channels;
    if !fits || shifts != 2 * shifted * taps {
        return Err(bad("groups that do not divide the channels, or offsets for other taps"));
    }
    let (pixels, weights, shift, bias) = (x.to::<f64>(), weight.to::<f64>(), offset.to::<f64>(), bias.to::<f64>());
    let mask = if c.flag("use_mask") { Some(c.tensor("mask")?.to::<f64>()) } else { None };
    let get = |list: &[f64], at: usize| list.get(at).copied().unwrap_or(0.0);
    let place = |i: usize, k: usize, axis: usize| i as f64 * stride[axis] as f64 - pad[axis] as f64 + k as f64 * dilation[axis] as f64;
    let mut values = Vec::new();
    for image in 0..n {
        for o in 0..out {
            for at in 0..rows * columns {
                let mut sum = get(&bias, o);
                for i in 0..each * taps {
                    let channel = o / (out / groups) * each + i / taps;
                    let tap = (image * shifted + channel / (channels / shifted)) * taps + i % taps;
                    let [dy, dx] = [0, 1].map(|d| get(&shift, (2 * tap + d) * rows * columns + at));
                    let y = place(at / columns, i % taps / kw, 0) + dy;
                    let x = place(at % columns, i % taps % kw, 1) + dx;
                    let first = (image * channels + channel) * h * w;
                    let plane = pixels.get(first..first + h * w).unwrap_or(&[]);
                    let weighed = mask.as_ref().map_or(1.0, |m| get(m, tap * rows * columns + at));
                    sum += get(&weights, o * each * taps + i) * weighed * between(plane, [h, w], y, x);
                }
                values.push(sum);
            }
        }
    }
    one(Tensor::of(x.dtype(), &[n, out, rows, columns], values)?)
}

/// The boxes of which none with a higher score covers too much, by falling score.
pub(super) fn nms(c: &Call) -> Results {
    let (dets, scores, limit) = (c.tensor("dets")?, c.tensor("scores")?, c.float("iou_threshold")?);
    let (values, scores) = (dets.to::<f64>(), scores.to::<f64>());
    let boxes: Vec<&[f64]> = values.chunks_exact(4).collect();
    let mut order: Vec<usize> = (0..boxes.len().min(scores.len())).collect();
    order.sort_by(|&a, &b| scores.get(b).partial_cmp(&scores.get(a)).unwrap_or(std::cmp::Ordering::Equal));
    let area = |b: &[f64]| match b {
        [x1, y1, x2, y2] => (x2 - x1) * (y2 - y1),
        _ => 0.0,
    };
    let overlap = |a: &[f64], b: &[f64]| {
        let ([x1, y1, x2, y2], [u1, v1, u2, v2]) = (a, b) else { return 0.0 };
        let shared = (x2.min(*u2) - x1.max(*u1)).max(0.0) * (y2.min(*v2) - y1.max(*v1)).max(0.0);
        shared / (area(a) + area(b) - shared)
    };
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        let Some(here) = boxes.get(i) else { continue };
        if kept.iter().filter_map(|&k| boxes.get(k)).all(|b| overlap(b, here) <= limit || overlap(b, here).is_nan()) {
            kept.push(i);
        }
    }
    one(Tensor::of(DType::Int64, &[kept.len()], kept.into_iter().map(|i| i as i64))?)
}
