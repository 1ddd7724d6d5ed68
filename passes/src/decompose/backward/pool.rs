//! Derivatives of what goes along the axes of an image by itself: pooling, resampling, padding. Each axis is a matrix that says what
//! every element of the result took of every element of the input; backwards it is used from the other side.

use etx_ir::DType;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::super::diagonal::ramp;
use super::super::expr::Ex;
use super::super::image::cubic;
use super::super::pen::Pen;
use super::{Result, Value, along, zeros};
use crate::calls::as_ints;
use crate::rewrite::Site;

/// The last axes of the gradient, each through its matrix `[of the result, of the input]`.
fn through(site: &mut Site<'_>, axes: usize, mut matrix: impl FnMut(&mut Pen<'_, '_>, usize, &Dim, &Dim) -> Value) -> Result {
    let (Some(g), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let Some(lead) = to.rank().checked_sub(axes).filter(|_| g.rank() == to.rank()) else { return Ok(None) };
    let mut p = Pen(site);
    let mut y = p.wide(&p.0.nth(0).clone())?;
    for (i, (from, to)) in g.shape.iter().zip(&to.shape).skip(lead).enumerate() {
        let Some(m) = matrix(&mut p, i, from, to)? else { return Ok(None) };
        y = along(&mut p, &y, lead + i, &m)?;
    }
    p.done(y)
}

/// Numbers of elements of the result down, of the input across.
fn places(p: &mut Pen<'_, '_>, from: &Dim, to: &Dim) -> std::result::Result<Option<(Ex, Ex)>, etx_ir::error::Error> {
    match (ramp(p, from, 0, 2)?, ramp(p, to, 1, 2)?) {
        (Some(down), Some(across)) => Ok(Some((down.into(), across.into()))),
        _ => Ok(None),
    }
}

/// One number for each axis; the list may have a single one, or none.
fn per_axis(arg: &Arg, n: usize, otherwise: &[i64]) -> Option<Vec<i64>> {
    let list = if *arg == Arg::None { Vec::new() } else { as_ints(arg)? };
    match if list.is_empty() { otherwise } else { &list } {
        [one] => Some(vec![*one; n]),
        all if all.len() == n => Some(all.to_vec()),
        _ => None,
    }
}

/// Source: torch.nn.AvgPool2d, 3d.
pub(in crate::decompose) fn average(site: &mut Site<'_>) -> Result {
    let n = by_op!(site.op(), {
        "aten.avg_pool2d_backward.default" => 2,
        _ => 3,
    });
    let Some(kernel) = per_axis(site.arg("kernel_size"), n, &[]) else { return Ok(None) };
    let (Some(stride), Some(padding)) = (per_axis(site.arg("stride"), n, &kernel), per_axis(site.arg("padding"), n, &[0])) else {
        return Ok(None);
    };
    let divisor = site.arg("divisor_override").clone();
    if divisor != Arg::None && divisor.as_int().is_none() {
        return Ok(None);
    }
    let padded_counts = site.arg("count_include_pad").as_bool() == Some(true);
    through(site, n, |p, i, from, to| {
        let (Some(&k), Some(&s), Some(&before)) = (kernel.get(i), stride.get(i), padding.get(i)) else { return Ok(None) };
        let wide = to.plus(&Dim::Int(2 * before));
        let Some((down, across)) = places(p, from, &wide)? else { return Ok(None) };
        let start = down * s;
        let seen = p.write(&across.ge(&start).and(across.lt(&start + k)).cast(DType::Float32))?;
        let Some(end) = p.0.size(&to.plus(&Dim::Int(before))) else { return Ok(None) };
        let inner = p.slice(&seen, 1, Arg::Int(before), end)?;
        let count = match divisor.as_int() {
            // Once, not once an axis.
            Some(n) if i == 0 => Ex::from(n as f64),
            Some(_) => return Ok(Some(inner)),
            None => Ex::from(if padded_counts { &seen } else { &inner }).sum(&[1], true),
        };
        p.write(&(Ex::from(&inner) / count)).map(Some)
    })
}

/// Windows from `i·n/m` rounded down to `(i + 1)·n/m` rounded up. Source: torch.nn.AdaptiveAvgPool2d, 3d.
pub(in crate::decompose) fn adaptive_average(site: &mut Site<'_>) -> Result {
    let n = by_op!(site.op(), {
        "aten._adaptive_avg_pool2d_backward.default" => 2,
        _ => 3,
    });
    through(site, n, |p, _, from, to| {
        let Some(parts) = from.as_int().filter(|n| *n > 0) else { return Ok(None) };
        let Some((down, across)) = places(p, from, to)? else { return Ok(None) };
        let Some(size) = p.0.size(to) else { return Ok(None) };
        let divided = |x: Ex| Ex::call(op!("aten.floor_divide.default"), vec![x, Ex::from(parts)]);
        let (start, end) = (divided(&down * Ex::from(&size)), divided((down + 1i64) * Ex::from(&size) + (parts - 1)));
        let seen = p.write(&across.ge(start).and(across.lt(end)).cast(DType::Float32))?;
        let seen = Ex::from(&seen);
        p.write(&(&seen / seen.sum(&[1], true))).map(Some)
    })
}

/// Each to the place that it was taken from. Source: torch.nn.MaxPool2d, 3d, AdaptiveMaxPool2d, 3d.
pub(in crate::decompose) fn largest(site: &mut Site<'_>) -> Result {
    let n = by_op!(site.op(), {
        "aten.max_pool2d_with_indices_backward.default" => 2,
        "aten.adaptive_max_pool2d_backward.default" => 2,
        _ => 3,
    });
    let (Some(g), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let Some(lead) = to.rank().checked_sub(n) else { return Ok(None) };
    let flat = |shape: &[Dim]| {
        let (outer, inner) = shape.split_at_checked(lead)?;
        Some(outer.iter().cloned().chain([Dim::product(inner)]).collect::<Vec<_>>())
    };
    let (Some(from), Some(into)) = (flat(&g.shape), flat(&to.shape)) else { return Ok(None) };
    let (grad, at) = (site.nth(0).clone(), site.arg("indices").clone());
    let mut p = Pen(site);
    let (Some(grad), Some(at)) = (p.view(&grad, &from)?, p.view(&at, &from)?) else { return Ok(None) };
    let Some(zero) = zeros(&mut p, &into)? else { return Ok(None) };
    let y = p.call(op!("aten.scatter_add.default"), vec![zero, Arg::Int(lead as i64), at, grad])?;
    match p.view(&y, &to.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// How elements between those of the input are found.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Nearest,
    Exact,
    Linear,
    Cubic,
    /// Linear and cubic over as many elements as one of the result covers.
    LinearSmooth,
    CubicSmooth,
}

/// Source: torch.nn.Upsample. Places are computed in single precision, as there.
pub(in crate::decompose) fn resampled(site: &mut Site<'_>) -> Result {
    let (n, kind) = by_op!(site.op(), {
        "aten.upsample_nearest1d_backward.default" => (1, Kind::Nearest),
        "aten.upsample_nearest2d_backward.default" => (2, Kind::Nearest),
        "aten.upsample_nearest3d_backward.default" => (3, Kind::Nearest),
        "aten._upsample_nearest_exact1d_backward.default" => (1, Kind::Exact),
        "aten._upsample_nearest_exact2d_backward.default" => (2, Kind::Exact),
        "aten._upsample_nearest_exact3d_backward.default" => (3, Kind::Exact),
        "aten.upsample_linear1d_backward.default" => (1, Kind::Linear),
        "aten.upsample_bilinear2d_backward.default" => (2, Kind::Linear),
        "aten.upsample_bicubic2d_backward.default" => (2, Kind::Cubic),
        "aten._upsample_bilinear2d_aa_backward.default" => (2, Kind::LinearSmooth),
        "aten._upsample_bicubic2d_aa_backward.default" => (2, Kind::CubicSmooth),
        _ => (3, Kind::Linear),
    });
    let aligned = site.arg("align_corners").as_bool() == Some(true);
    let names: &[&str] = if n == 1 { &["scales"] } else { &["scales_h", "scales_w"] };
    let mut factors: Vec<Option<f64>> = names.iter().map(|name| site.arg(name).as_float()).collect();
    if n == 3 {
        factors.insert(0, site.arg("scales_d").as_float());
    }
    through(site, n, |p, i, from, to| {
        let (Some(m), Some(n)) = (from.as_int(), to.as_int().filter(|n| *n > 0)) else { return Ok(None) };
        let step = match factors.get(i).copied().flatten() {
            _ if aligned && m > 1 => (n - 1) as f32 / (m - 1) as f32,
            _ if aligned => 0.0,
            Some(f) if f > 0.0 => (1.0 / f) as f32,
            _ => n as f32 / m as f32,
        };
        let (step, last) = (f64::from(step), (n - 1) as f64);
        let Some((down, across)) = places(p, from, to)? else { return Ok(None) };
        let (down, across) = (down.cast(DType::Float32), across.cast(DType::Float32));
        let centre = if aligned { &down * step } else { (&down + 0.5) * step - 0.5 };
        let tap = |at: Ex, weight: Option<Ex>| {
            let hit = across.eq(at.clamp(0.0, last)).cast(DType::Float32);
            weight.map_or(hit.clone(), |w| hit * w)
        };
        let matrix = match kind {
            Kind::LinearSmooth | Kind::CubicSmooth => {
                let wide = step.max(1.0);
                let middle = (&down + 0.5) * step;
                let x = Ex::from(p.write(&((&across - middle + 0.5) * (1.0 / wide)).abs())?);
                let kernel = if kind == Kind::LinearSmooth {
                    (-x + 1.0).at_least(0.0)
                } else {
                    let near = x.polynomial(&[1.5, -2.5, 0.0, 1.0]);
                    let far = x.polynomial(&[-0.5, 2.5, -4.0, 2.0]);
                    x.lt(1i64).then(near, x.lt(2i64).then(far, 0.0))
                };
                let kernel = Ex::from(p.write(&kernel)?);
                &kernel / kernel.sum(&[1], true)
            }
            Kind::Nearest => tap((down * step).floor(), None),
            Kind::Exact => tap(((down + 0.5) * step).floor(), None),
            Kind::Linear => {
                let centre = if aligned { centre } else { centre.at_least(0.0) };
                let low = centre.floor();
                let part = centre - &low;
                tap(low.clone(), Some(-&part + 1.0)) + tap(low + 1.0, Some(part))
            }
            Kind::Cubic => {
                let low = centre.floor();
                let part = centre - &low;
                let of = |k: i32| {
                    let k = f64::from(k);
                    tap(&low + k, Some(cubic(&(&part - k), k == 0.0 || k == 1.0)))
                };
                of(-1) + of(0) + of(1) + of(2)
            }
        };
        p.write(&matrix).map(Some)
    })
}

/// Source: torch.nn.ReflectionPad1d, 2d, 3d.
pub(in crate::decompose) fn reflected(site: &mut Site<'_>) -> Result {
    padded(site, true)
}

/// Source: torch.nn.ReplicationPad1d, 2d, 3d.
pub(in crate::decompose) fn replicated(site: &mut Site<'_>) -> Result {
    padded(site, false)
}

fn padded(site: &mut Site<'_>, mirror: bool) -> Result {
    let Some(pads) = as_ints(site.arg("padding")) else { return Ok(None) };
    let n = pads.len() / 2;
    through(site, n, |p, i, from, to| {
        // The list begins with the last axis.
        let (Some(&before), Some(size)) = (pads.get(2 * (n - 1 - i)), to.as_int().filter(|n| *n > 0)) else { return Ok(None) };
        let Some((down, across)) = places(p, from, to)? else { return Ok(None) };
        let at = down - before;
        let at = if mirror {
            let last = size - 1;
            -((-at.abs() + last).abs()) + last
        } else {
            Ex::call(op!("aten.clamp.default"), vec![at, 0i64.into(), (size - 1).into()])
        };
        p.write(&across.eq(at).cast(DType::Float32)).map(Some)
    })
}
