//! Quantisation of values that are computed: activations and caches. Weights are read by the backend as they are stored.
//!
//! Scales and zero points that are declared `f64` are computed in `f32`, as eager PyTorch does, and cast.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, TensorType};
use etx_ir::op;
use etx_ir::sym::Dim;

use super::pen::Pen;
use crate::calls::wrap;
use crate::rewrite::{Patch, Site};

type Result<T = Option<Patch>> = std::result::Result<T, Error>;

/// How the elements of a tensor share scales: a block of so many along each axis.
struct Blocks {
    shape: Vec<Dim>,
    block: Vec<Dim>,
}

impl Blocks {
    /// The tensor with each axis that blocks divide made two, and the shape of one number a block that meets it.
    fn split(&self) -> Option<(Vec<Dim>, Vec<Dim>)> {
        let (mut split, mut factors) = (Vec::new(), Vec::new());
        for (n, b) in self.shape.iter().zip(&self.block) {
            if *b == Dim::Int(1) {
                (split.push(n.clone()), factors.push(n.clone())).1
            } else if b == n {
                (split.push(n.clone()), factors.push(Dim::Int(1))).1
            } else {
                let (size, each) = (n.as_int()?, b.as_int().filter(|&b| b > 0)?);
                if size % each != 0 {
                    return None;
                }
                split.extend([Dim::Int(size / each), Dim::Int(each)]);
                factors.extend([Dim::Int(size / each), Dim::Int(1)]);
            }
        }
        (self.shape.len() == self.block.len()).then_some((split, factors))
    }

    /// The axes of the split tensor that blocks span.
    fn spanned(&self) -> Vec<usize> {
        let mut at = 0;
        let mut axes = Vec::new();
        for (n, b) in self.shape.iter().zip(&self.block) {
            let halves = usize::from(*b != Dim::Int(1) && b != n);
            if *b != Dim::Int(1) {
                axes.push(at + halves);
            }
            at += 1 + halves;
        }
        axes
    }
}

/// `block_size`, in which -1 stands for all of an axis.
fn given_blocks(site: &Site<'_>) -> Option<Blocks> {
    let shape = site.operand(0)?.shape.clone();
    let given = site.arg("block_size").as_list()?;
    let of = |(a, n): (&Arg, &Dim)| {
        Some(match a.as_int() {
            Some(b) if b < 0 => n.clone(),
            Some(b) => Dim::Int(b),
            None => n.clone(),
        })
    };
    // A size that is known only at run time is that of the whole axis: nothing else can be said of it at export.
    let block: Vec<Dim> = given.iter().zip(&shape).map(of).collect::<Option<_>>()?;
    (given.len() == shape.len()).then_some(Blocks { shape, block })
}

/// Blocks of PyTorch's own quantiser: the whole tensor, an element of an axis, a group of a line, a line.
fn own_blocks(site: &Site<'_>, scale: &TensorType) -> Option<Blocks> {
    let shape = site.operand(0)?.shape.clone();
    let rank = shape.len();
    let has = |name: &str| site.op().schema().position(name).is_some();
    let block = if has("axis") {
        let axis = wrap(site.arg("axis").as_int()?, rank)?;
        shape.iter().enumerate().map(|(i, n)| if i == axis { Dim::Int(1) } else { n.clone() }).collect()
    } else if has("group_size") {
        let mut block = vec![Dim::Int(1); rank];
        *block.last_mut()? = Dim::Int(site.arg("group_size").as_int()?);
        block
    } else if scale.numel() == Dim::Int(1) {
        shape.clone()
    } else {
        let mut block = vec![Dim::Int(1); rank];
        *block.last_mut()? = shape.last()?.clone();
        block
    };
    Some(Blocks { shape, block })
}

/// One number a block, in `f32`: a literal as it is.
fn factor(p: &mut Pen<'_, '_>, arg: &Arg, shape: &[Dim]) -> Result<Option<Arg>> {
    if arg.as_value().is_none() {
        return Ok(Some(arg.as_float().map_or(Arg::None, Arg::Float)));
    }
    let x = p.cast(arg, DType::Float32)?;
    if p.ty(&x)?.shape == shape { Ok(Some(x)) } else { p.view(&x, shape) }
}

/// The first of these arguments that the operator has.
fn named(site: &Site<'_>, names: [&str; 2]) -> Arg {
    let found = names.into_iter().find(|n| site.op().schema().position(n).is_some());
    found.map_or(Arg::None, |n| site.arg(n).clone())
}

fn limits(site: &Site<'_>, dtype: DType) -> [f64; 2] {
    let own = match dtype {
        DType::UInt8 => [0.0, 255.0],
        DType::Int16 => [-32768.0, 32767.0],
        DType::Int32 => [-2_147_483_648.0, 2_147_483_647.0],
        _ => [-128.0, 127.0],
    };
    let or = |name: &str, own: f64| site.arg(name).as_float().unwrap_or(own);
    [or("quant_min", own[0]), or("quant_max", own[1])]
}

/// Scale and zero point as they meet a tensor that is split in blocks.
struct Factors {
    scale: Arg,
    zero: Arg,
}

/// The blocks of the call and what belongs to them; `None` where they do not fit.
fn blocks_of(p: &mut Pen<'_, '_>) -> Result<Option<(Blocks, Vec<Dim>, Factors)>> {
    let (scale, zero) = (named(p.0, ["scale", "scales"]), named(p.0, ["zero_point", "zero_points"]));
    let of_scale = p.0.tensor(&scale).cloned().unwrap_or_else(|| TensorType::new(DType::Float32, vec![]));
    let blocks = if p.0.op().schema().position("block_size").is_some() { given_blocks(p.0) } else { own_blocks(p.0, &of_scale) };
    let Some(blocks) = blocks else { return Ok(None) };
    let Some((split, one_each)) = blocks.split() else { return Ok(None) };
    if scale.as_value().is_some() && one_each.iter().fold(Dim::Int(1), |n, d| n.times(d)) != of_scale.numel() {
        return Ok(None);
    }
    let (Some(scale), Some(zero)) = (factor(p, &scale, &one_each)?, factor(p, &zero, &one_each)?) else { return Ok(None) };
    Ok((!matches!(scale, Arg::None)).then_some((blocks, split, Factors { scale, zero })))
}

/// Whether a call reads codes that are stored: the backend packs them, or says why it cannot.
fn is_stored(site: &Site<'_>) -> bool {
    site.value(0).is_some_and(|v| site.graph().producer(v).is_none())
}

/// `clamp(round(x · (1 / s)) + z)`; for groups and lines `clamp(round(x · (1 / s) + z))`, which is another number at ties.
/// Source: `quantize_affine` of torchao, `quantize_per_*` of torch.ao.
pub(super) fn quantize(site: &mut Site<'_>) -> Result {
    let Some(to) = site.result().cloned() else { return Ok(None) };
    let [low, high] = limits(site, to.dtype);
    let zero_first = site.op().schema().position("group_size").is_some() || site.op().schema().name == "quantize_per_token";
    let mut p = Pen(site);
    let Some((blocks, split, Factors { scale, zero })) = blocks_of(&mut p)? else { return Ok(None) };
    let x = p.wide(&p.0.nth(0).clone())?;
    let Some(x) = reshaped(&mut p, &x, &blocks.shape, &split)? else { return Ok(None) };
    let scaled = match scale.as_float() {
        // As eager PyTorch: by the reciprocal, which is a single.
        Some(s) => p.mul(&x, f64::from((1.0 / s) as f32))?,
        None => {
            let inverse = p.call(op!("aten.reciprocal.default"), vec![scale])?;
            p.mul(&x, &inverse)?
        }
    };
    let mut y = scaled;
    if zero_first && !matches!(zero, Arg::None) {
        y = p.call(op!("aten.add.Tensor"), vec![y, zero.clone()])?;
    }
    y = p.call(op!("aten.round.default"), vec![y])?;
    if !zero_first && !matches!(zero, Arg::None) {
        y = p.call(op!("aten.add.Tensor"), vec![y, zero])?;
    }
    let y = p.clamp(&y, Some(low), Some(high))?;
    let Some(y) = reshaped(&mut p, &y, &split, &blocks.shape)? else { return Ok(None) };
    p.done(y)
}

/// `(q - z) · s`, the difference in the type of the result. Source: `dequantize_affine` of torchao, `dequantize_per_*` of
/// torch.ao.
pub(super) fn dequantize(site: &mut Site<'_>) -> Result {
    let stored = site.op() == op!("torchao.dequantize_affine.default")
        || site.op() == op!("quantized_decomposed.dequantize_per_channel_group.default");
    if stored && is_stored(site) {
        return Ok(None);
    }
    let Some(to) = site.result().cloned() else { return Ok(None) };
    let mut p = Pen(site);
    let Some((blocks, split, Factors { scale, zero })) = blocks_of(&mut p)? else { return Ok(None) };
    let x = p.cast(&p.0.nth(0).clone(), DType::Float32)?;
    let Some(mut y) = reshaped(&mut p, &x, &blocks.shape, &split)? else { return Ok(None) };
    if !matches!(zero, Arg::None) {
        y = p.call(op!("aten.sub.Tensor"), vec![y, zero])?;
    }
    let y = p.cast(&y, to.dtype)?;
    let y = p.wide(&y)?;
    let y = p.call(op!("aten.mul.Tensor"), vec![y, scale])?;
    let Some(y) = reshaped(&mut p, &y, &split, &blocks.shape)? else { return Ok(None) };
    p.done(y)
}

fn reshaped(p: &mut Pen<'_, '_>, x: &Arg, from: &[Dim], to: &[Dim]) -> Result<Option<Arg>> {
    if from == to { Ok(Some(x.clone())) } else { p.view(x, to) }
}

/// The least and the greatest of each block, with 0 between them.
fn extremes(p: &mut Pen<'_, '_>, x: &Arg, axes: &[usize]) -> Result<(Arg, Arg)> {
    let low = p.reduce(op!("aten.amin.default"), x, axes, true)?;
    let high = p.reduce(op!("aten.amax.default"), x, axes, true)?;
    Ok((p.clamp(&low, None, Some(0.0))?, p.clamp(&high, Some(0.0), None)?))
}

/// The scale that takes a range to so many steps, not less than `eps`.
fn scale_of(p: &mut Pen<'_, '_>, low: &Arg, high: &Arg, steps: f64, eps: f64) -> Result<Arg> {
    let range = p.sub(high, low)?;
    let s = p.div(&range, steps)?;
    p.clamp(&s, Some(eps), None)
}

/// `clamp(qmin - round(low / s))`
fn zero_of(p: &mut Pen<'_, '_>, low: &Arg, scale: &Arg, [qmin, qmax]: [f64; 2]) -> Result<Arg> {
    let at = p.div(low, scale)?;
    let at = p.call(op!("aten.round.default"), vec![at])?;
    let back = p.neg(&at)?;
    let z = p.add(&back, qmin)?;
    p.clamp(&z, Some(qmin), Some(qmax))
}

/// A number in each place of another tensor.
fn alike(p: &mut Pen<'_, '_>, like: &Arg, value: f64) -> Result<Arg> {
    let none = p.mul(like, 0.0)?;
    p.add(&none, value)
}

/// Scale and zero point in the types and shapes that the call declares.
fn declared(p: &mut Pen<'_, '_>, values: [Arg; 2]) -> Result {
    let mut results = Vec::new();
    for (i, x) in values.into_iter().enumerate() {
        let Some(to) = p.0.node().outputs.get(i).and_then(|&v| p.0.tensor(&Arg::Value(v))).cloned() else { return Ok(None) };
        let from = p.ty(&x)?.shape;
        let Some(x) = reshaped(p, &x, &from, &to.shape)? else { return Ok(None) };
        results.push(p.cast(&x, to.dtype)?);
    }
    Ok(Some(Patch::Values(results)))
}

/// Scale and zero point of each block. Source: `choose_qparams_affine` of torchao.
pub(super) fn choose_affine(site: &mut Site<'_>) -> Result {
    let (Some(blocks), Some(t)) = (given_blocks(site), site.operand(0).cloned()) else { return Ok(None) };
    let Some((split, _)) = blocks.split() else { return Ok(None) };
    let Arg::DType(target) = *site.arg("target_dtype") else { return Ok(None) };
    let [qmin, qmax] = limits(site, target);
    // The smallest normal number.
    let tiny = match t.dtype {
        DType::Float32 | DType::BFloat16 => f64::from(f32::MIN_POSITIVE),
        DType::Float16 => 2f64.powi(-14),
        _ => return Ok(None),
    };
    let eps = site.arg("eps").as_float().unwrap_or(tiny);
    let kind = match site.arg("mapping_type") {
        Arg::Str(s) => s.clone(),
        _ => return Ok(None),
    };
    let axes = blocks.spanned();
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let Some(x) = reshaped(&mut p, &x, &blocks.shape, &split)? else { return Ok(None) };
    let (low, high) = extremes(&mut p, &x, &axes)?;
    let middle = ((qmax + qmin + 1.0) / 2.0).trunc();
    let (scale, zero) = match &*kind {
        "ASYMMETRIC" => {
            let scale = scale_of(&mut p, &low, &high, qmax - qmin, eps)?;
            let zero = zero_of(&mut p, &low, &scale, [qmin, qmax])?;
            (scale, zero)
        }
        "SYMMETRIC" => {
            let below = p.neg(&low)?;
            let most = p.call(op!("aten.maximum.default"), vec![high, below])?;
            let s = p.div(&most, (qmax - qmin) / 2.0)?;
            let scale = p.clamp(&s, Some(eps), None)?;
            let zero = alike(&mut p, &scale, middle)?;
            (scale, zero)
        }
        "SYMMETRIC_NO_CLIPPING_ERR" => {
            let (below, above) = (p.div(&low, qmin)?, p.div(&high, qmax)?);
            let s = p.call(op!("aten.maximum.default"), vec![below, above])?;
            let scale = p.clamp(&s, Some(eps), None)?;
            let zero = alike(&mut p, &scale, middle)?;
            (scale, zero)
        }
        _ => return Ok(None),
    };
    declared(&mut p, [scale, zero])
}

/// Scale and zero point of a whole tensor. Source: `choose_qparams` of torch.ao.
pub(super) fn choose_per_tensor(site: &mut Site<'_>) -> Result {
    let symmetric = site.op() == op!("quantized_decomposed.choose_qparams_symmetric.tensor");
    let number = |name: &str| site.arg(name).as_float();
    let (Some(qmin), Some(qmax), Some(eps)) = (number("quant_min"), number("quant_max"), number("eps")) else { return Ok(None) };
    let unsigned = matches!(site.arg("dtype"), Arg::DType(DType::UInt8));
    let Some(rank) = site.operand(0).map(TensorType::rank) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let axes: Vec<usize> = (0..rank).collect();
    let (low, high) = extremes(&mut p, &x, &axes)?;
    let (scale, zero) = if symmetric {
        let below = p.neg(&low)?;
        let most = p.call(op!("aten.maximum.default"), vec![high, below])?;
        let s = p.div(&most, (qmax - qmin) / 2.0)?;
        let scale = p.clamp(&s, Some(eps), None)?;
        let zero = alike(&mut p, &scale, if unsigned { 128.0 } else { 0.0 })?;
        (scale, zero)
    } else {
        let scale = scale_of(&mut p, &low, &high, qmax - qmin, eps)?;
        let zero = zero_of(&mut p, &low, &scale, [qmin, qmax])?;
        (scale, zero)
    };
    declared(&mut p, [scale, zero])
}

/// Scale and zero point of each line, to 8 bits: the zero point that errs less at one of the two ends. Source:
/// `choose_qparams_per_token_asymmetric` of torch.ao.
pub(super) fn choose_per_token(site: &mut Site<'_>) -> Result {
    let Some(last) = site.operand(0).and_then(|t| t.rank().checked_sub(1)) else { return Ok(None) };
    let (qmin, qmax) = (-128.0, 127.0);
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let (low, high) = extremes(&mut p, &x, &[last])?;
    let scale = scale_of(&mut p, &low, &high, qmax - qmin, f64::from(f32::EPSILON))?;
    let (from_low, from_high) = (p.div(&low, &scale)?, p.div(&high, &scale)?);
    let (error_low, error_high) = (p.add(&from_low, qmin)?, p.add(&from_high, qmax)?);
    let error = p.add(&error_low, &error_high)?;
    let takes_low = p.gt(&error, 0.0)?;
    let (minus_low, minus_high) = (p.neg(&from_low)?, p.neg(&from_high)?);
    let (by_low, by_high) = (p.add(&minus_low, qmin)?, p.add(&minus_high, qmax)?);
    let zero = p.select(&takes_low, &by_low, &by_high)?;
    let zero = p.clamp(&zero, Some(qmin), Some(qmax))?;
    let zero = p.call(op!("aten.round.default"), vec![zero])?;
    declared(&mut p, [scale, zero])
}

/// The most that a sum of products may be for `f32` to hold it, and all sums on the way, exactly.
const EXACT: i64 = 1 << 24;

/// A product of matrices of bytes, exact: in `f32`, the left side in halves of four bits where sums could grow too large.
/// Source: torch._int_mm.
pub(super) fn int_mm(site: &mut Site<'_>) -> Result {
    let (Some(a), Some(b)) = (site.operand(0).cloned(), site.operand(1).cloned()) else { return Ok(None) };
    let Some(inner) = a.shape.last().and_then(Dim::as_int) else { return Ok(None) };
    let most = |t: DType| match t {
        DType::Int8 => Some(128),
        DType::UInt8 => Some(255),
        _ => None,
    };
    let (Some(x), Some(y)) = (most(a.dtype), most(b.dtype)) else { return Ok(None) };
    let mut p = Pen(site);
    let (a, b) = (p.0.nth(0).clone(), p.0.nth(1).clone());
    let (a, b) = (p.cast(&a, DType::Float32)?, p.cast(&b, DType::Float32)?);
    if x * y * inner <= EXACT {
        let product = p.mm(&a, &b)?;
        return p.done(product);
    }
    if 16 * y * inner > EXACT {
        return Ok(None);
    }
    let by = p.mul(&a, 0.0625)?;
    let high = p.call(op!("aten.floor.default"), vec![by])?;
    let above = p.mul(&high, 16.0)?;
    let low = p.sub(&a, &above)?;
    let (high, low) = (p.mm(&high, &b)?, p.mm(&low, &b)?);
    let (high, low) = (p.cast(&high, DType::Int32)?, p.cast(&low, DType::Int32)?);
    let high = p.mul(&high, 16i64)?;
    let sum = p.add(&high, &low)?;
    p.done(sum)
}
