//! What detectors do with boxes, and convolutions at shifted places. Source: torchvision.ops.
//!
//! A bin of a box is a weighted sum over rows and columns of the image, and the weights of rows and columns are independent: so all
//! bins of all boxes are two products with the image. (A pixel that is infinite or no number then reaches every bin of the boxes
//! that see its image, not only those that it lies in.)

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::diagonal::ramp;
use super::expr::Ex;
use super::image::{Axis, between};
use super::pen::Pen;
use super::{no, no_but};
use crate::rewrite::{Patch, Site};

type Result<T> = std::result::Result<T, Error>;

/// The least number of single precision.
const LEAST: f64 = f32::MIN as f64;

/// Images, boxes and the size of the result, as far as they are known at export.
struct Regions {
    /// In single precision, `[1, …]` or one for each box.
    x: Arg,
    boxes: Arg,
    count: Dim,
    channels: i64,
    /// Height and width of the image, and of the result.
    sizes: [i64; 2],
    bins: [i64; 2],
    scale: f64,
}

/// One axis of every box, as `[boxes, 1, 1, 1]`: in pixels where it starts and how long it is.
struct Span {
    start: Ex,
    size: Ex,
}

/// A number that is known at export.
fn known(site: &Site<'_>, name: &str) -> Result<i64> {
    site.arg(name).as_int().map_or_else(|| no(format!("`{name}` is not known at export")), Ok)
}

fn viewed(p: &mut Pen<'_, '_>, x: &Arg, shape: &[Dim]) -> Result<Arg> {
    match p.view(x, shape)? {
        Some(y) => Ok(y),
        None => no(format!("the sizes {shape:?} cannot be computed from those of the inputs")),
    }
}

/// 0 to `n - 1` along an axis of four, in single precision.
fn numbers(p: &mut Pen<'_, '_>, n: i64, axis: usize) -> Result<Ex> {
    match ramp(p, &Dim::Int(n), axis, 4)? {
        Some(ramp) => Ok(Ex::from(ramp).cast(DType::Float32)),
        None => no("a size cannot be computed"),
    }
}

impl Regions {
    fn new(p: &mut Pen<'_, '_>) -> Result<Self> {
        let (Some(t), Some(to)) = (p.0.operand(0).cloned(), p.0.result().cloned()) else { return no("its operands are not tensors") };
        if p.0.node().outputs.get(1).is_some_and(|&v| p.0.graph().value(v).use_count() > 0) {
            return no_but("where in the image a result is from is not computed, only the result", "use the first result alone");
        }
        let bins = [known(p.0, "pooled_height")?, known(p.0, "pooled_width")?];
        let ([images, channels, height, width], Some(count)) = (t.shape.as_slice(), to.shape.first()) else {
            return no("the image does not have four dimensions");
        };
        let (Some(channels), Some(height), Some(width)) = (channels.as_int(), height.as_int(), width.as_int()) else {
            return no_but("channels, height and width of the image must be known at export", "export with a fixed size of the image");
        };
        if bins.iter().any(|&n| n < 1) || height < 1 || width < 1 {
            return no("image or result have no elements");
        }
        let Some(scale) = p.0.arg("spatial_scale").as_float() else { return no("`spatial_scale` is not known at export") };
        let (x, boxes) = (p.operand(0)?, p.operand(1)?);
        let (mut x, boxes) = (p.write(&x)?, p.write(&boxes)?);
        if images.as_int() != Some(1) {
            let image = p.call(op!("aten.select.int"), vec![boxes.clone(), Arg::Int(1), Arg::Int(0)])?;
            let image = p.cast(&image, DType::Int64)?;
            x = p.call(op!("aten.index.Tensor"), vec![x, Arg::List(vec![image])])?;
        }
        Ok(Self { x, boxes, count: count.clone(), channels, sizes: [height, width], bins, scale })
    }

    /// One number of every box, scaled to the image.
    fn edge(&self, p: &mut Pen<'_, '_>, at: usize) -> Result<Ex> {
        let x = p.call(op!("aten.select.int"), vec![self.boxes.clone(), Arg::Int(1), Arg::Int(at as i64)])?;
        let x = viewed(p, &x, &[self.count.clone(), Dim::Int(1), Dim::Int(1), Dim::Int(1)])?;
        Ok(Ex::from(x) * self.scale)
    }

    /// Rows (0) or columns (1) of the boxes, shifted; if `whole`, boxes smaller than a pixel are a pixel.
    fn span(&self, p: &mut Pen<'_, '_>, axis: usize, shift: f64, whole: bool) -> Result<Span> {
        let (low, high) = (self.edge(p, 2 - axis)?, self.edge(p, 4 - axis)?);
        let (low, high) = if shift == 0.0 { (low, high) } else { (low - shift, high - shift) };
        let start = Ex::from(p.write(&low)?);
        let size = high - &start;
        let size = p.write(&if whole { size.at_least(1.0) } else { size })?;
        Ok(Span { start, size: Ex::from(size) })
    }

    /// What each row or column of the image weighs in each bin, as `[boxes, bins, pixels]`, and how many samples a bin has. `ratio` samples
    /// a bin, or so many that none is longer than a pixel: then a pixel is near five of them at most.
    fn samples(&self, p: &mut Pen<'_, '_>, axis: usize, span: &Span, ratio: i64) -> Result<(Arg, Ex)> {
        let (n, bins) = (self.sizes[axis], self.bins[axis]);
        let bin = Ex::from(p.write(&(&span.size / bins as f64))?);
        let (place, pixel) = (numbers(p, bins, 1)?, numbers(p, n, 2)?);
        let first = Ex::from(p.write(&(&span.start + place * &bin))?);
        let (count, step, sample) = if ratio > 0 {
            (Ex::from(ratio as f64), &bin * (1.0 / ratio as f64), numbers(p, ratio, 3)?)
        } else {
            let count = Ex::from(p.write(&(-(-&bin).floor()).at_least(0.0))?);
            let step = Ex::from(p.write(&(&bin / count.at_least(1.0)))?);
            // One more to either side, as places are rounded.
            let near = numbers(p, 7, 3)?;
            let nearest = ((&pixel - 1.0 - &first) / &step - 0.5).floor() + &near;
            (count.clone(), step, count.le(1.0).then(near, nearest))
        };
        let sample = Ex::from(p.write(&sample)?);
        let at = Ex::from(p.write(&(first + (&sample + 0.5) * step))?);
        let mut seen = at.ge(-1.0).and(at.le(n as f64));
        if ratio <= 0 {
            seen = seen.and(sample.ge(0.0)).and(sample.lt(&count));
        }
        let near = (-(at.clamp(0.0, (n - 1) as f64) - pixel).abs() + 1.0).at_least(0.0);
        Ok((p.write(&seen.then(near, 0.0).sum(&[3], false))?, count))
    }

    /// Where bins of whole pixels start and end, as `[boxes, bins, 1, 1]`. A closed box ends with its last pixel; an open one never reaches
    /// the last pixel of the image.
    fn edges(&self, p: &mut Pen<'_, '_>, axis: usize, closed: bool) -> Result<[Ex; 2]> {
        // Away from zero where two are equally near.
        let round = |x: Ex| x.sign() * (x.abs() + 0.5).floor();
        let (low, high) = (round(self.edge(p, 2 - axis)?), round(self.edge(p, 4 - axis)?));
        let low = Ex::from(p.write(&low)?);
        let size = if closed { high - &low + 1.0 } else { high - &low };
        let bin = Ex::from(p.write(&(size.at_least(1.0) / self.bins[axis] as f64))?);
        let place = numbers(p, self.bins[axis], 1)?;
        let last = if closed { self.sizes[axis] } else { self.sizes[axis] - 1 } as f64;
        let start = ((&place * &bin).floor() + &low).clamp(0.0, last);
        let end = (-(-((place + 1.0) * bin)).floor() + low).clamp(0.0, last);
        Ok([Ex::from(p.write(&start)?), Ex::from(p.write(&end)?)])
    }

    /// Which rows or columns lie in which bins, as `[boxes, bins, pixels]`.
    fn inside(&self, p: &mut Pen<'_, '_>, axis: usize, [start, end]: &[Ex; 2]) -> Result<Arg> {
        let pixel = numbers(p, self.sizes[axis], 2)?;
        let inside = p.write(&pixel.ge(start).and(pixel.lt(end)))?;
        p.squeeze(&inside, 3)
    }

    /// Sums by weights of rows and of columns, `[boxes, bins, pixels]`.
    fn weighed(&self, p: &mut Pen<'_, '_>, rows: &Arg, columns: &Arg) -> Result<Ex> {
        let columns = p.transpose(columns)?;
        let (rows, columns) = (p.unsqueeze(rows, 1)?, p.unsqueeze(&columns, 1)?);
        let across = p.matmul(&rows, &self.x)?;
        p.matmul(&across, &columns).map(Ex::from)
    }

    /// The same where each bin has channels of its own.
    fn weighed_by_place(&self, p: &mut Pen<'_, '_>, rows: &Arg, columns: &Arg) -> Result<Ex> {
        let ([down, across], [height, width]) = (self.bins, self.sizes);
        let Some(images) = p.ty(&self.x)?.shape.first().cloned() else { return no("the image does not have four dimensions") };
        let known = |n: &[i64]| n.iter().map(|&n| Dim::Int(n)).collect::<Vec<_>>();
        let boxes = |rest: &[i64]| [vec![self.count.clone()], known(rest)].concat();
        let x = viewed(p, &self.x, &[vec![images], known(&[self.channels / (down * across), down, across, height, width])].concat())?;
        let rows = viewed(p, rows, &boxes(&[1, down, 1, 1, height]))?;
        let columns = viewed(p, columns, &boxes(&[1, 1, across, width, 1]))?;
        let y = p.matmul(&rows, &x)?;
        let y = p.matmul(&y, &columns)?;
        viewed(p, &y, &boxes(&[self.channels / (down * across), down, across])).map(Ex::from)
    }
}

/// The only result that something reads.
fn first(p: &mut Pen<'_, '_>, y: &Ex) -> Result<Option<Patch>> {
    let y = p.write(y)?;
    let y = match p.0.result().map(|t| t.dtype) {
        Some(dtype) => p.cast(&y, dtype)?,
        None => return no("its result is not a tensor"),
    };
    let rest = p.0.node().outputs.len().saturating_sub(1);
    Ok(Some(Patch::Values([vec![y], vec![Arg::None; rest]].concat())))
}

/// The mean of samples between pixels in each bin of a box. Source: torchvision.ops.roi_align.
pub(super) fn roi_align(site: &mut Site<'_>) -> Result<Option<Patch>> {
    let (ratio, aligned) = (known(site, "sampling_ratio")?, site.arg("aligned").as_bool() == Some(true));
    align(site, ratio, if aligned { 0.5 } else { 0.0 }, !aligned, Regions::weighed)
}

/// The same, each bin from channels of its own. Source: torchvision.ops.ps_roi_align.
pub(super) fn ps_roi_align(site: &mut Site<'_>) -> Result<Option<Patch>> {
    let ratio = known(site, "sampling_ratio")?;
    align(site, ratio, 0.5, false, Regions::weighed_by_place)
}

fn align(
    site: &mut Site<'_>,
    ratio: i64,
    shift: f64,
    whole: bool,
    weighed: fn(&Regions, &mut Pen<'_, '_>, &Arg, &Arg) -> Result<Ex>,
) -> Result<Option<Patch>> {
    let mut p = Pen(site);
    let regions = Regions::new(&mut p)?;
    let (down, across) = (regions.span(&mut p, 0, shift, whole)?, regions.span(&mut p, 1, shift, whole)?);
    let (rows, some) = regions.samples(&mut p, 0, &down, ratio)?;
    let (columns, more) = regions.samples(&mut p, 1, &across, ratio)?;
    let sum = weighed(&regions, &mut p, &rows, &columns)?;
    let y = if ratio > 0 { sum * (1.0 / (ratio as f64 * ratio as f64)) } else { sum / (some * more).at_least(1.0) };
    first(&mut p, &y)
}

/// Whether a bin is empty, as `[boxes, 1, rows, columns]`.
fn empty(p: &mut Pen<'_, '_>, regions: &Regions, rows: &[Ex; 2], columns: &[Ex; 2]) -> Result<Ex> {
    let mut none = |[start, end]: &[Ex; 2], shape: [i64; 3]| {
        let none = p.write(&end.le(start))?;
        let shape = [vec![regions.count.clone()], shape.map(Dim::Int).to_vec()].concat();
        viewed(p, &none, &shape).map(Ex::from)
    };
    Ok(none(rows, [1, regions.bins[0], 1])?.or(none(columns, [1, 1, regions.bins[1]])?))
}

/// The largest pixel in each bin of a box; what is no number is none of them. Source: torchvision.ops.roi_pool.
pub(super) fn roi_pool(site: &mut Site<'_>) -> Result<Option<Patch>> {
    let mut p = Pen(site);
    let regions = Regions::new(&mut p)?;
    let (rows, columns) = (regions.edges(&mut p, 0, true)?, regions.edges(&mut p, 1, true)?);
    let x = Ex::from(&regions.x);
    let mut x = p.write(&x.gt(LEAST).then(&x, LEAST))?;
    // Columns first: one bin after the other, so that no more is held at a time than there are pixels.
    for (axis, ends) in [(1, &columns), (0, &rows)] {
        let inside = regions.inside(&mut p, axis, ends)?;
        let mut shape = vec![regions.count.clone(), Dim::Int(1), Dim::Int(1), Dim::Int(1)];
        if let Some(n) = shape.get_mut(axis + 2) {
            *n = Dim::Int(regions.sizes[axis]);
        }
        let mut bins = Vec::new();
        for bin in 0..regions.bins[axis] {
            let mask = p.call(op!("aten.select.int"), vec![inside.clone(), Arg::Int(1), Arg::Int(bin)])?;
            let mask = viewed(&mut p, &mask, &shape)?;
            bins.push(p.write(&Ex::from(mask).then(&x, LEAST).reduce(op!("aten.amax.default"), &[axis + 2], false))?);
        }
        x = p.call(op!("aten.stack.default"), vec![Arg::List(bins), Arg::Int(axis as i64 + 2)])?;
    }
    let empty = empty(&mut p, &regions, &rows, &columns)?;
    first(&mut p, &empty.then(0.0, x))
}

/// The mean of the pixels in each bin, from channels of its own. Source: torchvision.ops.ps_roi_pool.
pub(super) fn ps_roi_pool(site: &mut Site<'_>) -> Result<Option<Patch>> {
    let mut p = Pen(site);
    let regions = Regions::new(&mut p)?;
    let (rows, columns) = (regions.edges(&mut p, 0, false)?, regions.edges(&mut p, 1, false)?);
    let mut weights = Vec::new();
    for (axis, [start, end]) in [(0, &rows), (1, &columns)] {
        let inside = regions.inside(&mut p, axis, &[start.clone(), end.clone()])?;
        let pixels = p.write(&(end - start).at_least(1.0))?;
        let pixels = p.squeeze(&pixels, 3)?;
        weights.push(p.write(&(Ex::from(inside).cast(DType::Float32) / pixels))?);
    }
    let [down, across] = weights.as_slice() else { return no("an image has two axes") };
    let mean = regions.weighed_by_place(&mut p, down, across)?;
    let empty = empty(&mut p, &regions, &rows, &columns)?;
    first(&mut p, &empty.then(0.0, mean))
}

/// A convolution whose taps are shifted, and weighed: what it sees, between pixels, times its weights. Source:
/// torchvision.ops.deform_conv2d.
pub(super) fn deform_conv2d(site: &mut Site<'_>) -> Result<Option<Patch>> {
    let shape = |i: usize| {
        site.operand(i).and_then(|t| Some((t.shape.first()?.clone(), t.shape.iter().skip(1).map(Dim::as_int).collect::<Option<Vec<_>>>()?)))
    };
    let (Some((batch, x)), Some((out, weight)), Some((_, offset))) = (shape(0), shape(1), shape(2)) else {
        return no_but("all sizes but the number of images must be known at export", "export with a fixed size of the image");
    };
    let (&[channels, height, width], &[each, down, across], &[_, rows, columns]) = (x.as_slice(), weight.as_slice(), offset.as_slice())
    else {
        return no("images, weights and offsets do not have four dimensions");
    };
    let (groups, shifted) = (known(site, "groups")?, known(site, "offset_groups")?);
    let (stride, pad) = ([known(site, "stride_h")?, known(site, "stride_w")?], [known(site, "pad_h")?, known(site, "pad_w")?]);
    let dilation = [known(site, "dilation_h")?, known(site, "dilation_w")?];
    let Some(out) = out.as_int().filter(|_| groups > 0 && shifted > 0 && channels % shifted == 0) else {
        return no("groups that do not divide the channels");
    };
    if [height, width, rows, columns, channels, out].iter().any(|&n| n < 1) {
        return no("there are no elements");
    }
    let taps = down * across;
    let mut p = Pen(site);
    let (x, offset) = (p.operand(0)?, p.operand(2)?);
    let (x, offset) = (p.write(&x)?, p.write(&offset)?);
    let parts = batch.times(&Dim::Int(shifted));
    let of = |first: &Dim, rest: &[i64]| [vec![first.clone()], rest.iter().map(|&n| Dim::Int(n)).collect()].concat();
    let offset = viewed(&mut p, &offset, &of(&parts, &[taps, 2, rows, columns]))?;
    let mut seen = Vec::new();
    for (axis, (size, step)) in [(height, width), (width, 1)].into_iter().enumerate() {
        // Where the tap is that nothing shifts.
        let (places, kernel) = ([rows, columns][axis], [down, across][axis]);
        let place = numbers(&mut p, places, axis + 2)? * stride[axis] as f64 - pad[axis] as f64;
        let tap = p.call(op!("aten.arange.start_step"), vec![Arg::Int(0), Arg::Int(kernel), Arg::Int(1), Arg::DType(DType::Float32)])?;
        let mut tap =
            viewed(&mut p, &tap, &of(&Dim::Int(1), &[if axis == 0 { down } else { 1 }, if axis == 0 { 1 } else { across }, 1, 1]))?;
        let all = [1, down, across, 1, 1].map(Arg::Int).to_vec();
        tap = p.call(op!("aten.expand.default"), vec![tap, Arg::List(all)])?;
        let tap = viewed(&mut p, &tap, &of(&Dim::Int(1), &[taps, 1, 1]))?;
        let shift = p.call(op!("aten.select.int"), vec![offset.clone(), Arg::Int(2), Arg::Int(axis as i64)])?;
        let at = p.write(&(place + Ex::from(tap) * dilation[axis] as f64 + shift))?;
        seen.push(Axis::of_size(size, step).linear(&Ex::from(at)));
    }
    let each_part = channels / shifted;
    let flat = viewed(&mut p, &x, &of(&parts, &[each_part, height * width]))?;
    let places = [taps, rows, columns].map(Dim::Int);
    let mut seen = between(&mut p, &flat, &seen, [&parts, &Dim::Int(each_part)], &places)?;
    if p.0.arg("use_mask").as_bool() == Some(true) {
        let mask = p.operand(3)?;
        let mask = p.write(&mask)?;
        seen = seen * viewed(&mut p, &mask, &of(&parts, &[1, taps, rows, columns]))?;
    }
    let (seen, weight, bias) = (p.write(&seen)?, p.operand(1)?, p.operand(4)?);
    let (weight, bias) = (p.write(&weight)?, p.write(&bias)?);
    let seen = viewed(&mut p, &seen, &of(&batch, &[groups, each * taps, rows * columns]))?;
    let weight = viewed(&mut p, &weight, &of(&Dim::Int(1), &[groups, out / groups, each * taps]))?;
    let y = p.matmul(&weight, &seen)?;
    let y = viewed(&mut p, &y, &of(&batch, &[out, rows, columns]))?;
    let bias = viewed(&mut p, &bias, &of(&Dim::Int(out), &[1, 1]))?;
    p.ends(&(Ex::from(y) + bias))
}
