//! Convolutions, pooling, padding, resampling: what moves a window over the last dimensions.

use super::cx::{Cx, Inferred, one, tensor};
use super::dims::{smaller, windows};
use crate::DType;
use crate::error::Error;
use crate::graph::{Arg, TensorType};
use crate::sym::{Expr, Func};

/// One number a window dimension: given so, or one for all.
fn each(c: &Cx, at: &'static str, n: usize) -> Result<Vec<Expr>, Error> {
    let mut list = c.sizes(at)?;
    if let ([single], true) = (list.as_slice(), n != 1) {
        list = vec![single.clone(); n];
    }
    if list.len() == n { Ok(list) } else { Err(c.fail(format!("{} numbers in `{at}`, need {n}", list.len()))) }
}

fn twice(e: &Expr) -> Expr {
    e.times(&Expr::Int(2))
}

/// Batch (if any) and channels, then what the window moves over.
fn parts<'a>(c: &Cx, t: &'a TensorType, n: usize) -> Result<(&'a [Expr], &'a [Expr]), Error> {
    let lead = t.rank().checked_sub(n).filter(|l| (1..=2).contains(l));
    lead.map(|l| t.shape.split_at(l)).ok_or_else(|| c.fail(format!("input of rank {}, need {} or {}", t.rank(), n + 1, n + 2)))
}

/// Any convolution; transposed if the operator's name or its `transposed` says so.
pub(super) fn convolution(c: &Cx) -> Inferred {
    let (x, weight) = (c.tensor(0)?, c.tensor(1)?);
    let dtype = c.same_dtype(x, weight)?;
    let n = weight.rank().checked_sub(2).filter(|n| (1..=3).contains(n));
    let n = n.ok_or_else(|| c.fail(format!("weight of rank {}, need 3 to 5", weight.rank())))?;
    let (lead, space) = parts(c, x, n)?;
    let [first, second, kernel @ ..] = weight.shape.as_slice() else { return Err(c.fail("weight without channels")) };
    let groups = c.size("groups")?;
    let transposed = c.flag("transposed") || c.schema.name.starts_with("conv_transpose");
    let (channels_in, channels_out) = match transposed {
        true => (first.clone(), second.times(&groups)),
        false => (second.times(&groups), first.clone()),
    };
    let (Some(channels), batch) = (lead.last(), lead.split_last().map_or(&[][..], |(_, b)| b)) else {
        return Err(c.fail("input without channels"));
    };
    c.same(channels, &channels_in, "channels of input and weight")?;
    if let Some(bias) = c.maybe_tensor("bias")? {
        let [b] = bias.shape.as_slice() else { return Err(c.fail("need a vector as bias")) };
        c.same(b, &channels_out, "bias and output channels")?;
    }
    let (stride, dilation) = (each(c, "stride", n)?, each(c, "dilation", n)?);
    let mut shape = batch.to_vec();
    shape.push(channels_out);
    let named = c.text("padding");
    let padding = if named.is_some() { vec![Expr::Int(0); n] } else { each(c, "padding", n)? };
    let extra = if transposed { each(c, "output_padding", n)? } else { vec![Expr::Int(0); n] };
    let window = space.iter().zip(kernel).zip(stride.iter().zip(&dilation)).zip(padding.iter().zip(&extra));
    for (((size, k), (s, d)), (p, extra)) in window {
        let span = d.times(&k.minus(&Expr::Int(1)));
        shape.push(match (transposed, named) {
            (true, _) => size.minus(&Expr::Int(1)).times(s).minus(&twice(p)).plus(&span).plus(extra).plus(&Expr::Int(1)),
            // As much padding as the window reaches over, whatever the side it is on.
            (false, Some("same")) => windows(c, size, &span, k, s, d)?,
            (false, Some("valid") | None) => windows(c, size, &twice(p), k, s, d)?,
            (false, Some(other)) => return Err(c.fail(format!("padding {other:?}"))),
        });
    }
    one(dtype, shape)
}

/// The positions of a pooling window; with `ceil_mode` one more where elements are left over, but none that starts in
/// the padding behind.
fn pooled(c: &Cx, n: &Expr, k: &Expr, stride: &Expr, p: &Expr, d: &Expr) -> Result<Expr, Error> {
    if c.ranges.at_most(&twice(p), k) == Some(false) {
        return Err(c.fail(format!("padding {p} is more than half of the window {k}")));
    }
    if !c.flag("ceil_mode") {
        return windows(c, n, &twice(p), k, stride, d);
    }
    let one = Expr::Int(1);
    let room = twice(p).plus(&stride.minus(&one));
    let up = windows(c, n, &room, k, stride, d)?;
    let last = n.plus(p).minus(&one).floor_div(stride).plus(&one);
    Ok(smaller(c.ranges, &up, &last))
}

/// The shape after pooling over the last `n` dimensions.
fn pool_shape(c: &Cx, t: &TensorType, n: usize) -> Result<Vec<Expr>, Error> {
    let (lead, space) = parts(c, t, n)?;
    let kernel = each(c, "kernel_size", n)?;
    let stride = match c.arg("stride") {
        // No stride: windows side by side.
        Arg::List(l) if l.is_empty() => kernel.clone(),
        Arg::None => kernel.clone(),
        _ => each(c, "stride", n)?,
    };
    let padding = each(c, "padding", n)?;
    let dilation = if c.given("dilation") { each(c, "dilation", n)? } else { vec![Expr::Int(1); n] };
    let mut shape = lead.to_vec();
    for (((size, k), (s, p)), d) in space.iter().zip(&kernel).zip(stride.iter().zip(&padding)).zip(&dilation) {
        shape.push(pooled(c, size, k, s, p, d)?);
    }
    Ok(shape)
}

/// Pooling over the last `n` dimensions.
pub(super) fn pool(c: &Cx, n: usize) -> Inferred {
    let t = c.tensor(0)?;
    one(t.dtype, pool_shape(c, t, n)?)
}

/// Pooling that also tells where the values were.
pub(super) fn pool_with_indices(c: &Cx, n: usize) -> Inferred {
    let t = c.tensor(0)?;
    let shape = pool_shape(c, t, n)?;
    Ok(vec![tensor(t.dtype, shape.clone()), tensor(DType::Int64, shape)])
}

fn adaptive_shape(c: &Cx, t: &TensorType, n: usize) -> Result<Vec<Expr>, Error> {
    let (lead, _) = parts(c, t, n)?;
    Ok([lead, &each(c, "output_size", n)?].concat())
}

/// Pooling to a given size.
pub(super) fn adaptive_pool(c: &Cx, n: usize) -> Inferred {
    let t = c.tensor(0)?;
    one(t.dtype, adaptive_shape(c, t, n)?)
}

/// Pooling to a given size that also tells where the values were.
pub(super) fn adaptive_pool_with_indices(c: &Cx, n: usize) -> Inferred {
    let t = c.tensor(0)?;
    let shape = adaptive_shape(c, t, n)?;
    Ok(vec![tensor(t.dtype, shape.clone()), tensor(DType::Int64, shape)])
}

/// Padding, in pairs from the last dimension on; negative amounts cut.
pub(super) fn pad(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let amounts = c.sizes(1)?;
    if amounts.len() % 2 != 0 || amounts.len() / 2 > t.rank() {
        return Err(c.fail(format!("{} amounts for a tensor of rank {}", amounts.len(), t.rank())));
    }
    if let Some(n) = edges(c, amounts.len() / 2) {
        if amounts.len() != 2 * n {
            return Err(c.fail(format!("{} amounts, need {}", amounts.len(), 2 * n)));
        }
        let (_, space) = parts(c, t, n)?;
        if let Some(axis) = space.iter().find(|size| size.as_int() == Some(0)) {
            return Err(c.fail(format!("size {axis} has no edge to pad from")));
        }
    }
    let mut shape = t.shape.clone();
    for (n, pair) in shape.iter_mut().rev().zip(amounts.chunks(2)) {
        let padded = Expr::sum(std::iter::once(&*n).chain(pair));
        if c.ranges.at_most(&padded, &Expr::Int(-1)) == Some(true) {
            return Err(c.fail(format!("size {n} padded to {padded}")));
        }
        *n = padded;
    }
    one(t.dtype, shape)
}

/// How many dimensions are padded by elements of the tensor's own; `None` if by a number, which goes with any rank.
fn edges(c: &Cx, given: usize) -> Option<usize> {
    let name = &*c.schema.name;
    match name {
        "constant_pad_nd" => None,
        "pad" => c.text("mode").filter(|mode| *mode != "constant").map(|_| given),
        "_pad_enum" => (c.int("mode").ok()? != 0).then_some(given),
        _ => Some(name.strip_suffix('d').and_then(|name| name.chars().last()?.to_digit(10)).map_or(given, |n| n as usize)),
    }
}

/// `n * factor`, rounded towards zero as torch does it in double precision.
fn scaled(c: &Cx, n: &Expr, factor: f64) -> Result<Expr, Error> {
    if let Some(n) = n.as_int() {
        let size = n as f64 * factor;
        return if (0.0..9e15).contains(&size) { Ok(Expr::Int(size as i64)) } else { Err(c.fail(format!("size {n} times {factor}"))) };
    }
    if factor.fract() == 0.0 && factor.abs() < 9e15 {
        return Ok(n.times(&Expr::Int(factor as i64)));
    }
    let float = Expr::call(Func::ToFloat, vec![n.clone()]);
    Ok(Expr::call(Func::TruncToInt, vec![Expr::product([&Expr::Float(factor.to_bits()), &float])]))
}

/// Resampling of the last `n` dimensions, to sizes or by factors.
pub(super) fn upsample(c: &Cx, n: usize) -> Inferred {
    let t = c.tensor(0)?;
    c.rank(t, &[n + 2], "input")?;
    let (lead, space) = parts(c, t, n)?;
    let sizes = match c.arg("scale_factors") {
        Arg::List(factors) if !c.given("output_size") => {
            let factors: Option<Vec<f64>> = factors.iter().map(Arg::as_float).collect();
            let factors = factors.filter(|f| f.len() == n).ok_or_else(|| c.fail(format!("need {n} factors")))?;
            space.iter().zip(factors).map(|(n, f)| scaled(c, n, f)).collect::<Result<_, _>>()?
        }
        _ => each(c, "output_size", n)?,
    };
    one(t.dtype, [lead, &sizes].concat())
}

/// Channels become space, or (`back`) space becomes channels.
pub(super) fn shuffle(c: &Cx, back: bool) -> Inferred {
    let t = c.tensor(0)?;
    let factor = c.size(1)?;
    if c.ranges.at_most(&factor, &Expr::Int(0)) == Some(true) {
        return Err(c.fail(format!("factor {factor}")));
    }
    let [lead @ .., channels, height, width] = t.shape.as_slice() else { return Err(c.fail("need channels, height and width")) };
    let square = factor.times(&factor);
    let exact = |n: &Expr, by: &Expr| match n.modulo(by).as_int() {
        Some(1..) => Err(c.fail(format!("{n} does not divide by {by}"))),
        _ => Ok(n.floor_div(by)),
    };
    let new = match back {
        true => [channels.times(&square), exact(height, &factor)?, exact(width, &factor)?],
        false => [exact(channels, &square)?, height.times(&factor), width.times(&factor)],
    };
    one(t.dtype, [lead, &new].concat())
}

/// Windows of an image as columns (`F.unfold`).
pub(super) fn im2col(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (lead, space) = parts(c, t, 2)?;
    let [kernel, dilation, padding, stride] = ["kernel_size", "dilation", "padding", "stride"].map(|at| each(c, at, 2));
    let (kernel, dilation, padding, stride) = (kernel?, dilation?, padding?, stride?);
    let (Some(channels), batch) = (lead.last(), lead.split_last().map_or(&[][..], |(_, b)| b)) else {
        return Err(c.fail("input without channels"));
    };
    let mut count = Expr::Int(1);
    for (((n, k), (s, p)), d) in space.iter().zip(&kernel).zip(stride.iter().zip(&padding)).zip(&dilation) {
        count = count.times(&windows(c, n, &twice(p), k, s, d)?);
    }
    let column = channels.times(&Expr::product(&kernel));
    one(t.dtype, [batch, &[column, count]].concat())
}

/// Columns added back into an image (`F.fold`).
pub(super) fn col2im(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (size, kernel) = (each(c, "output_size", 2)?, each(c, "kernel_size", 2)?);
    let [batch @ .., column, _] = t.shape.as_slice() else { return Err(c.fail("need columns")) };
    let channels = column.floor_div(&Expr::product(&kernel));
    one(t.dtype, [batch, &[channels], &size].concat())
}

/// Sampling at the points of a grid.
pub(super) fn grid_sample(c: &Cx) -> Inferred {
    let (t, grid) = (c.tensor(0)?, c.tensor(1)?);
    let ([n, channels, ..], [m, points @ .., _]) = (t.shape.as_slice(), grid.shape.as_slice()) else {
        return Err(c.fail("need an image and a grid"));
    };
    if points.len() + 2 != t.rank() {
        return Err(c.fail(format!("ranks {} and {} differ", t.rank(), grid.rank())));
    }
    one(t.dtype, [&[c.same(n, m, "batch sizes")?, channels.clone()], points].concat())
}

/// Regions of images, as boxes name them, brought to one size; of some operators each place in it is a channel of the image.
pub(super) fn regions(c: &Cx, places: bool, second: bool) -> Inferred {
    let (t, boxes) = (c.tensor(0)?, c.tensor(1)?);
    let ([_, channels, _, _], [count, five]) = (t.shape.as_slice(), boxes.shape.as_slice()) else {
        return Err(c.fail("need images [batch, channels, height, width] and boxes [count, 5]"));
    };
    c.same(five, &Expr::Int(5), "numbers of a box and 5")?;
    let dtype = c.same_dtype(t, boxes)?;
    let (rows, columns) = (c.size("pooled_height")?, c.size("pooled_width")?);
    let channels = if places { channels.floor_div(&rows.times(&columns)) } else { channels.clone() };
    let shape = vec![count.clone(), channels, rows, columns];
    let mut types = vec![tensor(dtype, shape.clone())];
    if second {
        types.push(tensor(DType::Int32, shape));
    }
    Ok(types)
}

/// A convolution whose taps are shifted; the shifts have the size of the result.
pub(super) fn deformed(c: &Cx) -> Inferred {
    let (t, weight, offset) = (c.tensor("input")?, c.tensor("weight")?, c.tensor("offset")?);
    let ([batch, ..], [channels, ..], [_, _, height, width]) = (t.shape.as_slice(), weight.shape.as_slice(), offset.shape.as_slice())
    else {
        return Err(c.fail("need images, weights and offsets of rank 4"));
    };
    if t.rank() != 4 || weight.rank() != 4 {
        return Err(c.fail("need images, weights and offsets of rank 4"));
    }
    one(c.same_dtype(t, weight)?, vec![batch.clone(), channels.clone(), height.clone(), width.clone()])
}

/// Boxes that are kept: how many depends on the boxes.
pub(super) fn kept_boxes(c: &Cx) -> Inferred {
    one(DType::Int64, vec![c.fresh(0)])
}

/// The short-time Fourier transform.
pub(super) fn stft(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let (n_fft, length) = (c.size("n_fft")?, t.shape.last().cloned());
    let Some(mut length) = length.filter(|_| t.rank() <= 2) else { return Err(c.fail("need signals [length] or [batch, length]")) };
    let hop = c.maybe_size("hop_length")?.unwrap_or_else(|| n_fft.floor_div(&4.into()));
    if c.flag("center") {
        length = length.plus(&twice(&n_fft.floor_div(&2.into())));
    }
    let frames = windows(c, &length, &Expr::Int(0), &n_fft, &hop, &Expr::Int(1))?;
    let onesided = c.arg("onesided").as_bool().unwrap_or(!t.dtype.is_complex());
    let bins = if onesided { n_fft.floor_div(&2.into()).plus(&Expr::Int(1)) } else { n_fft };
    let batch = t.shape.iter().take(t.rank() - 1).cloned();
    let mut shape: Vec<Expr> = batch.chain([bins, frames]).collect();
    let complex = super::promote::to_complex(t.dtype);
    if c.arg("return_complex").as_bool().unwrap_or(t.dtype.is_complex()) {
        return one(complex, shape);
    }
    shape.push(Expr::Int(2));
    one(super::promote::to_real(complex), shape)
}

/// Fourier transforms: complex to complex, real to complex, complex to real.
pub(super) fn fft(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let mut shape = t.shape.clone();
    let last = c.axes("dim", t.rank())?.last().copied();
    if let Some(n) = last.and_then(|a| shape.get_mut(a)) {
        if c.given("last_dim_size") {
            *n = c.size("last_dim_size")?;
        } else if c.flag("onesided") {
            *n = n.floor_div(&2.into()).plus(&Expr::Int(1));
        }
    }
    let complex = super::promote::to_complex(t.dtype);
    one(if c.given("last_dim_size") { super::promote::to_real(complex) } else { complex }, shape)
}
