//! Quantisation: torchao's operators and those of PyTorch's own quantiser. Formulas are in `pt2-format.md` §4.3.

use super::call::{Call, Results, many, one};
use super::element::{Element, round};
use super::functions::{clamp, largest, maximum, minimum, tiny};
use super::tensor::{Tensor, count, row_major};
use super::{Error, bad};
use crate::DType;

/// For each element of a shape the number of its block, blocks being numbered in row-major order.
fn blocks(shape: &[usize], block: &[usize]) -> Result<(Vec<usize>, Vec<usize>), Error> {
    let fits = shape.len() == block.len() && shape.iter().zip(block).all(|(n, b)| *b > 0 && n % b == 0);
    if !fits {
        return Err(bad(format!("blocks of {block:?} in a tensor of shape {shape:?}")));
    }
    let grid: Vec<usize> = shape.iter().zip(block).map(|(n, b)| n / b).collect();
    let strides = row_major(&grid);
    let number = |i: usize| {
        let (mut rest, mut at) = (i, 0);
        for ((n, b), stride) in shape.iter().zip(block).zip(&strides).rev() {
            at += rest % n / b * stride;
            rest /= n;
        }
        at
    };
    Ok(((0..count(shape)?).map(number).collect(), grid))
}

/// `block_size`, in which -1 stands for the whole dimension.
fn block_size(c: &Call, t: &Tensor) -> Result<Vec<usize>, Error> {
    let of = |(b, &n): (i64, &usize)| if b < 0 { n } else { b as usize };
    Ok(c.ints("block_size")?.into_iter().zip(t.shape()).map(of).collect())
}

/// One parameter of each block.
fn parameters(t: Option<&Tensor>, number: usize, otherwise: f64) -> Result<Vec<f64>, Error> {
    match t.map(|t| t.to::<f64>()) {
        None => Ok(vec![otherwise; number]),
        Some(all) if all.len() == number => Ok(all),
        Some(all) => Err(bad(format!("{} parameters for {number} blocks", all.len()))),
    }
}

/// `(q - z) s`
fn dequantised(t: &Tensor, d: DType, block_of: &[usize], scale: &[f64], zero: &[f64]) -> Result<Tensor, Error> {
    let value = |(q, &b): (f64, &usize)| {
        let at = |of: &[f64]| of.get(b).copied().unwrap_or(f64::NAN);
        round(d, q - at(zero)) * at(scale)
    };
    Tensor::of(d, t.shape(), t.to::<f64>().into_iter().zip(block_of).map(value))
}

/// `clamp(round(x / s) + z)`, or `clamp(round(x / s + z))` which is another number at ties; dividing by way of the reciprocal as torch does.
fn quantised(
    t: &Tensor,
    d: DType,
    block_of: &[usize],
    [scale, zero]: [&[f64]; 2],
    [low, high]: [f64; 2],
    zero_first: bool,
) -> Result<Tensor, Error> {
    let f32 = |x: f64| round(DType::Float32, x);
    let value = |(x, &b): (f64, &usize)| {
        let at = |of: &[f64]| of.get(b).copied().unwrap_or(f64::NAN);
        let q = f32(x * f32(1.0 / at(scale)));
        let q = if zero_first { f32(q + at(zero)).round_ties_even() } else { q.round_ties_even() + at(zero) };
        minimum(maximum(q, low), high)
    };
    Tensor::of(d, t.shape(), t.to::<f64>().into_iter().zip(block_of).map(value))
}

/// The least and the greatest value, given or of the type.
fn bounds(c: &Call, d: DType) -> Result<[f64; 2], Error> {
    let bits = d.size() as i32 * 8;
    let signed = matches!(d, DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64);
    let (low, high) = if signed { (-(2f64.powi(bits - 1)), 2f64.powi(bits - 1) - 1.0) } else { (0.0, 2f64.powi(bits) - 1.0) };
    let bounds = [c.float_or("quant_min", low)?, c.float_or("quant_max", high)?];
    ordered(bounds)?;
    Ok(bounds)
}

pub(super) fn dequantize_affine(c: &Call) -> Results {
    let t = c.first()?;
    let (block_of, grid) = blocks(t.shape(), &block_size(c, &t)?)?;
    let n = count(&grid)?;
    let (scale, zero) = (parameters(Some(&c.tensor("scale")?), n, 1.0)?, parameters(c.maybe_tensor("zero_point")?.as_ref(), n, 0.0)?);
    one(dequantised(&t, c.dtype("output_dtype").unwrap_or(DType::Float32), &block_of, &scale, &zero)?)
}

pub(super) fn quantize_affine(c: &Call) -> Results {
    let t = c.first()?;
    let (block_of, grid) = blocks(t.shape(), &block_size(c, &t)?)?;
    let n = count(&grid)?;
    let d = c.dtype("output_dtype").ok_or_else(|| bad("no type"))?;
    let (scale, zero) = (parameters(Some(&c.tensor("scale")?), n, 1.0)?, parameters(c.maybe_tensor("zero_point")?.as_ref(), n, 0.0)?);
    one(quantised(&t, d, &block_of, [&scale, &zero], bounds(c, d)?, false)?)
}

/// Scale and zero point of each block.
pub(super) fn choose_affine(c: &Call) -> Results {
    let t = c.first()?;
    let block = block_size(c, &t)?;
    let (block_of, grid) = blocks(t.shape(), &block)?;
    let mut extremes = vec![(0.0, 0.0); count(&grid)?];
    for (x, b) in t.to::<f64>().into_iter().zip(block_of) {
        if let Some((low, high)) = extremes.get_mut(b) {
            (*low, *high) = (minimum(*low, x), maximum(*high, x));
        }
    }
    let [low, high] = bounds(c, c.dtype("target_dtype").unwrap_or(DType::Int8))?;
    let eps = c.float_or("eps", tiny(t.dtype()))?;
    let kind = c.text("mapping_type").unwrap_or("");
    let r = |x: f64| round(t.dtype(), x);
    let choose = |(mn, mx): &(f64, f64)| match kind {
        "SYMMETRIC" => (r(mx.max(-mn) / ((high - low) / 2.0)).max(eps), ((high + low + 1.0) / 2.0).trunc()),
        "SYMMETRIC_NO_CLIPPING_ERR" => (r(mn / low).max(r(mx / high)).max(eps), ((high + low + 1.0) / 2.0).trunc()),
        _ => {
            let s = r(r(mx - mn) / (high - low)).max(eps);
            (s, clamp(low - r(mn / s).round_ties_even(), low, high))
        }
    };
    let all: Vec<(f64, f64)> = extremes.iter().map(choose).collect();
    let keep = c.flag("keepdim");
    let dims = t.shape().iter().zip(&block).zip(&grid);
    let shape: Vec<usize> = dims.filter_map(|((n, b), g)| if *b == 1 || b != n { Some(*g) } else { keep.then_some(1) }).collect();
    many([
        Tensor::of(c.dtype("scale_dtype").unwrap_or(t.dtype()), &shape, all.iter().map(|p| p.0))?,
        Tensor::of(c.dtype("zero_point_dtype").unwrap_or(t.dtype()), &shape, all.iter().map(|p| p.1))?,
    ])
}

/// Scales of a float8 tensor: along each dimension one for as many elements as there are to one scale.
fn float8_blocks(t: &Tensor, scale: &Tensor) -> Result<(Vec<usize>, Vec<f64>), Error> {
    let scale = if scale.rank() < t.rank() {
        scale.reshape(&[vec![1; t.rank() - scale.rank()], scale.shape().to_vec()].concat())?
    } else {
        scale.clone()
    };
    let block: Vec<usize> = t.shape().iter().zip(scale.shape()).map(|(n, s)| n.checked_div(*s).unwrap_or(0).max(1)).collect();
    let (block_of, grid) = blocks(t.shape(), &block)?;
    Ok((block_of, parameters(Some(&scale), count(&grid)?, 1.0)?))
}

pub(super) fn dequantize_float8(c: &Call) -> Results {
    let t = c.first()?;
    let (block_of, scale) = float8_blocks(&t, &c.tensor("scale")?)?;
    one(dequantised(&t, c.dtype("output_dtype").unwrap_or(DType::Float32), &block_of, &scale, &vec![0.0; scale.len()])?)
}

pub(super) fn quantize_float8(c: &Call) -> Results {
    let t = c.first()?;
    let (block_of, scale) = float8_blocks(&t, &c.tensor("scale")?)?;
    let d = c.dtype("float8_dtype").unwrap_or(DType::Float8E4M3);
    let most = largest(d);
    let value = |(x, b): (f64, usize)| clamp(round(DType::Float32, x / scale.get(b).copied().unwrap_or(f64::NAN)), -most, most);
    one(Tensor::of(d, t.shape(), t.to::<f64>().into_iter().zip(block_of).map(value))?)
}

/// Four-bit codes of bytes, the low half first.
fn nibbles(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|b| [b & 15, b >> 4]).collect()
}

/// The shape with the last size so many times as large.
fn widened(t: &Tensor, factor: usize) -> Result<Vec<usize>, Error> {
    let mut shape = t.shape().to_vec();
    let n = shape.last_mut().ok_or_else(|| bad("a scalar holds no packed values"))?;
    *n = n.checked_mul(factor).ok_or_else(|| bad("too many packed values"))?;
    Ok(shape)
}

/// Four-bit floats: a sign and 0, ½, 1, 1½, 2, 3, 4, 6.
fn e2m1(code: u8) -> f64 {
    let x = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0].get(usize::from(code & 7)).copied().unwrap_or(0.0);
    if code & 8 == 0 { x } else { -x }
}

pub(super) fn dequantize_nvfp4(c: &Call) -> Results {
    let (t, scale, whole) = (c.first()?, c.tensor("scale")?, c.tensor("per_tensor_scale")?.to::<f64>());
    let (d, group) = (c.dtype("output_dtype").unwrap_or(DType::Float32), c.size("block_size")?.max(1));
    let shape = widened(&t, t.dtype().size() * 2)?;
    // Scales come as such or as the bytes they are stored in.
    let scales: Vec<f64> = scale.bytes().into_iter().map(|b| f64::read(DType::Float8E4M3, &[b])).collect();
    let whole = whole.first().copied().unwrap_or(1.0);
    let codes = nibbles(&t.bytes());
    if codes.len() != scales.len() * group {
        return Err(bad(format!("{} scales for {} values", scales.len(), codes.len())));
    }
    let value = |(i, code): (usize, &u8)| e2m1(*code) * round(DType::Float32, whole * scales.get(i / group).copied().unwrap_or(f64::NAN));
    one(Tensor::of(d, &shape, codes.iter().enumerate().map(value))?)
}

pub(super) fn dequantize_int4(c: &Call) -> Results {
    let (t, d) = (c.first()?, c.dtype("output_dtype").unwrap_or(DType::BFloat16));
    let group = c.size("group_size")?.max(1);
    let (scale, zero) = (c.tensor("scale")?, c.tensor("zero_point")?);
    let shape = widened(&t, 2)?;
    let [rows, columns] = shape.as_slice() else { return Err(bad("no matrix of codes")) };
    if scale.shape() != [columns / group, *rows] || zero.shape() != scale.shape() {
        return Err(bad(format!("scales {:?} for {rows}×{columns} in groups of {group}", scale.shape())));
    }
    let (s, z, r) = (scale.to::<f64>(), zero.to::<f64>(), scale.dtype());
    let codes = nibbles(&t.bytes());
    let value = |(i, code): (usize, &u8)| {
        let at = i % columns / group * rows + i / columns;
        let of = |p: &[f64]| p.get(at).copied().unwrap_or(f64::NAN);
        round(r, f64::from(*code) - of(&z)) * of(&s)
    };
    one(Tensor::of(d, &shape, codes.iter().enumerate().map(value))?)
}

pub(super) fn dequantize_mx(c: &Call) -> Results {
    let (t, d, group) = (c.first()?, c.dtype("output_dtype").unwrap_or(DType::Float32), c.size("block_size")?.max(1));
    let scales: Vec<f64> = c.tensor("scale")?.bytes().into_iter().map(|b| f64::read(DType::Float8E8M0, &[b])).collect();
    let element = c.dtype("elem_dtype").unwrap_or(t.dtype());
    let values: Vec<f64> = match element {
        // Bytes hold two elements of four bits.
        DType::UInt8 => nibbles(&t.bytes()).into_iter().map(e2m1).collect(),
        _ => t.bytes().into_iter().map(|b| f64::read(element, &[b])).collect(),
    };
    if values.len() != scales.len() * group {
        return Err(bad(format!("{} scales for {} values", scales.len(), values.len())));
    }
    let shape = widened(&t, if element == DType::UInt8 { 2 } else { 1 })?;
    let scaled = values.iter().enumerate().map(|(i, x)| x * scales.get(i / group).copied().unwrap_or(f64::NAN));
    one(Tensor::of(d, &shape, scaled)?)
}

/// 256 values of a block of GGML's `q4_k`, `q5_k` or `q6_k` (`mlx-patterns.md` §6).
fn ggml(kind: &str, b: &[u8]) -> Vec<f64> {
    let byte = |i: usize| b.get(i).copied().unwrap_or(0);
    let half = |i: usize| f64::read(DType::Float16, &[byte(i), byte(i + 1)]);
    if kind == "q6_k" {
        let value = |i: usize| {
            let (half_block, rest) = (i / 128, i % 128);
            let (run, l) = (rest / 32, rest % 32);
            let low = byte(half_block * 64 + (run % 2) * 32 + l);
            let low = if run < 2 { low & 15 } else { low >> 4 };
            let high = byte(128 + half_block * 32 + l) >> (2 * run) & 3;
            let q = i32::from(low | high << 4) - 32;
            let scale = f64::from(byte(192 + half_block * 8 + rest / 16) as i8);
            round(DType::Float32, half(208) * scale) * f64::from(q)
        };
        return (0..256).map(value).collect();
    }
    let (d, dmin) = (half(0), half(2));
    let s = |i: usize| byte(4 + i);
    let pair = |j: usize| {
        if j < 4 { (s(j) & 63, s(j + 4) & 63) } else { ((s(j + 4) & 15) | (s(j - 4) >> 6) << 4, (s(j + 4) >> 4) | (s(j) >> 6) << 4) }
    };
    let (codes, high) = if kind == "q5_k" { (48, Some(16)) } else { (16, None) };
    let value = |i: usize| {
        let (group, l) = (i / 32, i % 32);
        let code = byte(codes + group / 2 * 32 + l);
        let code = if group % 2 == 0 { code & 15 } else { code >> 4 };
        let top = high.map_or(0, |at| (byte(at + l) >> group & 1) << 4);
        let (scale, minimum) = pair(group);
        let f32 = |x: f64| round(DType::Float32, x);
        f32(f32(d * f64::from(scale)) * f64::from(code | top)) - f32(dmin * f64::from(minimum))
    };
    (0..256).map(value).collect()
}

pub(super) fn dequantize_gguf(c: &Call) -> Results {
    let t = c.first()?;
    let kind = c.text("ggml_type").unwrap_or("");
    let size = match kind {
        "q4_k" => 144,
        "q5_k" => 176,
        "q6_k" => 210,
        _ => return Err(bad(format!("GGML type {kind:?}"))),
    };
    let mut shape = t.shape().to_vec();
    let n = shape.last_mut().filter(|n| **n % size == 0).ok_or_else(|| bad("rows are not whole blocks"))?;
    *n = *n / size * 256;
    count(&shape)?;
    one(Tensor::of(c.dtype("output_dtype").unwrap_or(DType::BFloat16), &shape, t.bytes().chunks(size).flat_map(|b| ggml(kind, b)))?)
}

/// How the parameters of PyTorch's own quantiser are spread: over the whole tensor, along an axis, over groups of the last
/// dimension, or over lines.
fn spread(c: &Call, t: &Tensor, parameters: &Tensor) -> Result<Vec<usize>, Error> {
    if c.schema.position("axis").is_some() {
        let axis = c.axis("axis", t.rank())?;
        return Ok(t.shape().iter().enumerate().map(|(i, &n)| if i == axis { 1 } else { n.max(1) }).collect());
    }
    let mut block = vec![1; t.rank()];
    if let Some(b) = block.last_mut() {
        *b = if c.given("group_size") { c.size("group_size")? } else { t.size(t.nth_last(1)?) }.max(1);
    }
    Ok(if parameters.numel() == 1 && !c.given("group_size") { t.shape().iter().map(|&n| n.max(1)).collect() } else { block })
}

fn named(c: &Call, names: [&str; 2]) -> Result<Option<Tensor>, Error> {
    names.into_iter().find(|n| c.given(n)).map(|n| c.operand(n)?.tensor()).transpose()
}

/// `quantize_per_tensor`, `_per_channel`, `_per_channel_group`, `_per_token`
pub(super) fn quantize(c: &Call) -> Results {
    let t = c.first()?;
    let scale = named(c, ["scale", "scales"])?.ok_or_else(|| bad("no scale"))?;
    let (block_of, grid) = blocks(t.shape(), &spread(c, &t, &scale)?)?;
    let n = count(&grid)?;
    let (s, z) = (parameters(Some(&scale), n, 1.0)?, parameters(named(c, ["zero_point", "zero_points"])?.as_ref(), n, 0.0)?);
    let d = c.dtype("dtype").unwrap_or(DType::Int8);
    let zero_first = c.given("group_size") || c.schema.name == "quantize_per_token";
    one(quantised(&t, d, &block_of, [&s, &z], bounds(c, d)?, zero_first)?)
}

/// The other way.
pub(super) fn dequantize(c: &Call) -> Results {
    let t = c.first()?;
    let scale = named(c, ["scale", "scales"])?.ok_or_else(|| bad("no scale"))?;
    let (block_of, grid) = blocks(t.shape(), &spread(c, &t, &scale)?)?;
    let n = count(&grid)?;
    let (s, z) = (parameters(Some(&scale), n, 1.0)?, parameters(named(c, ["zero_point", "zero_points"])?.as_ref(), n, 0.0)?);
    let d = c.dtype("out_dtype").or(c.dtype("output_dtype")).unwrap_or(DType::Float32);
    one(dequantised(&t, d, &block_of, &s, &z)?)
}

/// Scale and zero point of the values between two bounds, zero among them.
fn affine(low: f64, high: f64, [qmin, qmax]: [f64; 2], eps: f64) -> (f64, f64) {
    let f32 = |x: f64| round(DType::Float32, x);
    let (low, high) = (minimum(low, 0.0), maximum(high, 0.0));
    let s = f32(f32(high - low) / (qmax - qmin)).max(eps);
    (s, clamp(qmin - f32(low / s).round_ties_even(), qmin, qmax))
}

/// Codes lie between a least and a greatest one.
fn ordered([low, high]: [f64; 2]) -> Result<(), Error> {
    if low < high { Ok(()) } else { Err(bad(format!("codes from {low} to {high}"))) }
}

fn extremes(x: &[f64]) -> (f64, f64) {
    (x.iter().copied().fold(f64::INFINITY, minimum), x.iter().copied().fold(f64::NEG_INFINITY, maximum))
}

/// `choose_qparams`: of the whole tensor.
pub(super) fn choose(c: &Call, symmetric: bool) -> Results {
    let (low, high) = extremes(&c.first()?.to::<f64>());
    let (bounds, eps) = ([c.float("quant_min")?, c.float("quant_max")?], c.float("eps")?);
    ordered(bounds)?;
    let (s, z) = if symmetric {
        let unsigned = c.dtype("dtype") == Some(DType::UInt8);
        let s = round(DType::Float32, (-low.min(0.0)).max(high.max(0.0)) / ((bounds[1] - bounds[0]) / 2.0)).max(eps);
        (s, if unsigned { 128.0 } else { 0.0 })
    } else {
        affine(low, high, bounds, eps)
    };
    many([Tensor::full(DType::Float64, &[1], s)?, Tensor::full(DType::Int64, &[1], z)?])
}

/// Scale and zero point of each line, to 8 bits.
pub(super) fn choose_per_token(c: &Call) -> Results {
    let t = c.first()?;
    let lines = super::reduce::groups::<f64>(&t, &[t.nth_last(1)?], true)?;
    let eps = f64::from(f32::EPSILON);
    let all: Vec<(f64, f64)> = lines.lists.iter().map(|l| extremes(l)).map(|(low, high)| per_token(low, high, eps)).collect();
    many([
        Tensor::of(DType::Float64, &lines.shape, all.iter().map(|p| p.0))?,
        Tensor::of(DType::Int64, &lines.shape, all.iter().map(|p| p.1))?,
    ])
}

/// The zero point is the one of the two that errs less.
fn per_token(low: f64, high: f64, eps: f64) -> (f64, f64) {
    let f32 = |x: f64| round(DType::Float32, x);
    let (qmin, qmax) = (-128.0, 127.0);
    let (low, high) = (minimum(low, 0.0), maximum(high, 0.0));
    let s = f32(f32(high - low) / (qmax - qmin)).max(eps);
    let (from_low, from_high) = (f32(low / s), f32(high / s));
    let z = if f32(qmin + from_low) + f32(qmax + from_high) > 0.0 { qmin - from_low } else { qmax - from_high };
    (s, f32(z).clamp(qmin, qmax).round_ties_even())
}

/// Rows of a quantised table: a byte a value, or two or four of them in one.
pub(super) fn embedding(c: &Call, per_byte: usize) -> Results {
    let (table, scales, indices) = (c.tensor("weight")?, c.tensor("weight_scales")?, c.tensor("indices")?);
    let zeros = c.maybe_tensor("weight_zero_points")?;
    let bytes = table.bytes();
    let codes: Vec<f64> = match per_byte {
        1 => table.to::<f64>(),
        // The high half first.
        2 => bytes.iter().flat_map(|b| [f64::from(b >> 4) - 8.0, f64::from(b & 15) - 8.0]).collect(),
        _ => bytes.iter().flat_map(|b| (0..4).map(move |j| f64::from(b >> (2 * j) & 3) - 2.0)).collect(),
    };
    let shape = widened(&table, per_byte)?;
    let [rows, columns] = shape.as_slice() else { return Err(bad("no table")) };
    let groups = (scales.numel() / rows.max(&1)).max(1);
    let (block_of, grid) = blocks(&shape, &[1, (columns / groups).max(1)])?;
    let n = count(&grid)?;
    let (s, z) = (parameters(Some(&scales), n, 1.0)?, parameters(zeros.as_ref(), n, 0.0)?);
    let d = c.dtype("dtype").unwrap_or(scales.dtype());
    let whole = dequantised(&Tensor::of(DType::Float64, &shape, codes)?, DType::Float64, &block_of, &s, &z)?.cast(d)?;
    one(super::indexing::take(&whole, 0, &indices)?)
}
