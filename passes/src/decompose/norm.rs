//! Normalisations.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::pen::Pen;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// The last dimensions, as many as are listed.
fn last_dims(site: &Site<'_>, list: &Arg) -> Option<Vec<usize>> {
    let (rank, n) = (site.operand(0)?.rank(), list.as_list()?.len());
    Some((rank.checked_sub(n)?..rank).collect())
}

/// `(x - mean) * rsqrt(var + eps)` over some dimensions, variance without correction.
fn centred(p: &mut Pen<'_, '_>, x: &Arg, dims: &[usize], eps: f64) -> std::result::Result<Arg, Error> {
    let mean = p.reduce(op!("aten.mean.dim"), x, dims, true)?;
    let centred = p.sub(x, &mean)?;
    let squares = p.square(&centred)?;
    let var = p.reduce(op!("aten.mean.dim"), &squares, dims, true)?;
    let safe = p.add(&var, eps)?;
    let scale = p.rsqrt(&safe)?;
    p.mul(&centred, &scale)
}

/// `y * weight + bias`, where given.
fn affine(p: &mut Pen<'_, '_>, mut y: Arg, weight: &Arg, bias: &Arg) -> std::result::Result<Arg, Error> {
    if *weight != Arg::None {
        let w = p.wide(weight)?;
        y = p.mul(&y, &w)?;
    }
    if *bias != Arg::None {
        let b = p.wide(bias)?;
        y = p.add(&y, &b)?;
    }
    Ok(y)
}

/// Source: torch.nn.LayerNorm.
pub(super) fn layer_norm(site: &mut Site<'_>) -> Result {
    let (Some(dims), Some(eps)) = (last_dims(site, site.nth(1)), site.arg("eps").as_float()) else { return Ok(None) };
    let (weight, bias) = (site.arg("weight").clone(), site.arg("bias").clone());
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let y = centred(&mut p, &x, &dims, eps)?;
    let y = affine(&mut p, y, &weight, &bias)?;
    p.done(y)
}

/// `x * rsqrt(mean(x²) + eps) * weight`; without `eps`, that of the type computed in. Source: torch.nn.RMSNorm.
pub(super) fn rms_norm(site: &mut Site<'_>) -> Result {
    let Some(dims) = last_dims(site, site.nth(1)) else { return Ok(None) };
    let (weight, eps) = (site.arg("weight").clone(), site.arg("eps").as_float());
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let eps = eps.unwrap_or(if p.ty(&x)?.dtype == DType::Float64 { f64::EPSILON } else { f64::from(f32::EPSILON) });
    let squares = p.square(&x)?;
    let mean = p.reduce(op!("aten.mean.dim"), &squares, &dims, true)?;
    let safe = p.add(&mean, eps)?;
    let scale = p.rsqrt(&safe)?;
    let y = p.mul(&x, &scale)?;
    let y = affine(&mut p, y, &weight, &Arg::None)?;
    p.done(y)
}

/// A vector along dimension 1 of tensors of this rank.
fn channelwise(p: &mut Pen<'_, '_>, v: &Arg, rank: usize) -> std::result::Result<Option<Arg>, Error> {
    if *v == Arg::None {
        return Ok(Some(Arg::None));
    }
    let n = p.ty(v)?.numel();
    let shape: Vec<Dim> = (0..rank).map(|d| if d == 1 { n.clone() } else { Dim::Int(1) }).collect();
    let wide = p.wide(v)?;
    p.view(&wide, &shape)
}

/// Normalisation of groups of channels. Source: torch.nn.GroupNorm.
pub(super) fn group_norm(site: &mut Site<'_>) -> Result {
    let (Some(groups), Some(eps)) = (site.arg("num_groups").as_int(), site.arg("eps").as_float()) else { return Ok(None) };
    let (weight, bias) = (site.arg("weight").clone(), site.arg("bias").clone());
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let t = p.ty(&x)?;
    let [n, c, rest @ ..] = t.shape.as_slice() else { return Ok(None) };
    let per_group = c.floor_div(&Dim::Int(groups));
    let inner = Dim::product(std::iter::once(&per_group).chain(rest));
    let Some(grouped) = p.view(&x, &[n.clone(), Dim::Int(groups), inner])? else { return Ok(None) };
    let y = centred(&mut p, &grouped, &[2], eps)?;
    let Some(y) = p.view(&y, &t.shape)? else { return Ok(None) };
    let (Some(w), Some(b)) = (channelwise(&mut p, &weight, t.rank())?, channelwise(&mut p, &bias, t.rank())?) else { return Ok(None) };
    let y = affine(&mut p, y, &w, &b)?;
    p.done(y)
}

/// Normalisation by stored statistics, or by those of the batch where none are kept. Source: torch.nn.BatchNorm1d, 2d, 3d.
pub(super) fn batch_norm(site: &mut Site<'_>) -> Result {
    let (training, eps) = (site.arg("training").as_bool(), site.arg("eps").as_float());
    if let (Some(true), Some(eps), Arg::None) = (training, eps, site.arg("running_mean")) {
        let (weight, bias) = (site.arg("weight").clone(), site.arg("bias").clone());
        let mut p = Pen(site);
        let x = p.wide(&p.0.nth(0).clone())?;
        let rank = p.ty(&x)?.rank();
        let dims: Vec<usize> = (0..rank).filter(|&d| d != 1).collect();
        let y = centred(&mut p, &x, &dims, eps)?;
        let (Some(w), Some(b)) = (channelwise(&mut p, &weight, rank)?, channelwise(&mut p, &bias, rank)?) else { return Ok(None) };
        let y = affine(&mut p, y, &w, &b)?;
        return p.done(y);
    }
    let (Some(false), Some(eps)) = (training, eps) else { return Ok(None) };
    let [weight, bias, mean, var] = ["weight", "bias", "running_mean", "running_var"].map(|n| site.arg(n).clone());
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let rank = p.ty(&x)?.rank();
    let mut parts = Vec::new();
    for v in [&mean, &var, &weight, &bias] {
        let Some(v) = channelwise(&mut p, v, rank)? else { return Ok(None) };
        parts.push(v);
    }
    let [mean, var, weight, bias] = parts.as_slice() else { return Ok(None) };
    let centred = p.sub(&x, mean)?;
    let safe = p.add(var, eps)?;
    let scale = p.rsqrt(&safe)?;
    let y = p.mul(&centred, &scale)?;
    let y = affine(&mut p, y, weight, bias)?;
    p.done(y)
}

/// Each channel of each sample by itself; by stored statistics it is a batch normalisation. Source: torch.nn.InstanceNorm1d, 2d, 3d.
pub(super) fn instance_norm(site: &mut Site<'_>) -> Result {
    let (own, eps) = (site.arg("use_input_stats").as_bool(), site.arg("eps").as_float());
    if own == Some(false) && *site.arg("running_mean") != Arg::None {
        let to = op!("aten.batch_norm.default");
        let mut list: Vec<Arg> = ["input", "weight", "bias", "running_mean", "running_var"].iter().map(|n| site.arg(n).clone()).collect();
        list.extend([Arg::Bool(false), site.arg("momentum").clone(), site.arg("eps").clone(), Arg::Bool(true)]);
        return Ok(Some(Patch::Call(to, list)));
    }
    let (Some(true), Some(eps), Arg::None) = (own, eps, site.arg("running_mean")) else { return Ok(None) };
    let (weight, bias) = (site.arg("weight").clone(), site.arg("bias").clone());
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let rank = p.ty(&x)?.rank();
    let dims: Vec<usize> = (2..rank).collect();
    let y = centred(&mut p, &x, &dims, eps)?;
    let (Some(w), Some(b)) = (channelwise(&mut p, &weight, rank)?, channelwise(&mut p, &bias, rank)?) else { return Ok(None) };
    let y = affine(&mut p, y, &w, &b)?;
    p.done(y)
}
