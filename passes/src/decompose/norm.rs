//! Normalisations.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::expr::Ex;
use super::pen::Pen;
use super::several::{several, wanted};
use crate::calls::ints;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// The last dimensions, as many as are listed.
fn last_dims(site: &Site<'_>, list: &Arg) -> Option<Vec<usize>> {
    let (rank, n) = (site.operand(0)?.rank(), list.as_list()?.len());
    Some((rank.checked_sub(n)?..rank).collect())
}

/// What normalising over some dimensions comes to; statistics keep them.
struct Normal {
    y: Arg,
    mean: Arg,
    /// Without correction.
    var: Arg,
    rstd: Arg,
}

/// `(x - mean) * rsqrt(var + eps)` over some dimensions.
fn normal(p: &mut Pen<'_, '_>, x: &Arg, dims: &[usize], eps: f64) -> std::result::Result<Normal, Error> {
    let mean = p.reduce(op!("aten.mean.dim"), x, dims, true)?;
    let centred = p.sub(x, &mean)?;
    let squares = p.square(&centred)?;
    let var = p.reduce(op!("aten.mean.dim"), &squares, dims, true)?;
    let safe = p.add(&var, eps)?;
    let rstd = p.rsqrt(&safe)?;
    let y = p.mul(&centred, &rstd)?;
    Ok(Normal { y, mean, var, rstd })
}

fn centred(p: &mut Pen<'_, '_>, x: &Arg, dims: &[usize], eps: f64) -> std::result::Result<Arg, Error> {
    normal(p, x, dims, eps).map(|n| n.y)
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

/// The same with the mean and `1/√(var + eps)`, which derivatives are computed from. Source: torch.native_layer_norm.
pub(super) fn layer_norm_with_statistics(site: &mut Site<'_>) -> Result {
    let (Some(dims), Some(eps)) = (last_dims(site, site.nth(1)), site.arg("eps").as_float()) else { return Ok(None) };
    let (weight, bias) = (site.arg("weight").clone(), site.arg("bias").clone());
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let n = normal(&mut p, &x, &dims, eps)?;
    let y = affine(&mut p, n.y, &weight, &bias)?;
    several(&mut p, vec![y, n.mean, n.rstd])
}

/// `x * rsqrt(mean(x²) + eps) * weight` and the factor; without `eps`, that of the type computed in.
fn by_root(site: &mut Site<'_>) -> std::result::Result<Option<[Arg; 2]>, Error> {
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
    Ok(Some([y, scale]))
}

/// Source: torch.nn.RMSNorm.
pub(super) fn rms_norm(site: &mut Site<'_>) -> Result {
    match by_root(site)? {
        Some([y, _]) => Pen(site).done(y),
        None => Ok(None),
    }
}

/// Source: torch._fused_rms_norm.
pub(super) fn rms_norm_with_factor(site: &mut Site<'_>) -> Result {
    match by_root(site)? {
        Some(both) => several(&mut Pen(site), both.into()),
        None => Ok(None),
    }
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

/// Groups of channels by themselves: the result, then mean and `1/√(var + eps)` of each group of each sample.
fn by_groups(site: &mut Site<'_>, groups: &str) -> std::result::Result<Option<[Arg; 3]>, Error> {
    let (Some(groups), Some(eps)) = (site.arg(groups).as_int(), site.arg("eps").as_float()) else { return Ok(None) };
    let (weight, bias) = (site.arg("weight").clone(), site.arg("bias").clone());
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let t = p.ty(&x)?;
    let [n, c, rest @ ..] = t.shape.as_slice() else { return Ok(None) };
    let per_group = c.floor_div(&Dim::Int(groups));
    let inner = Dim::product(std::iter::once(&per_group).chain(rest));
    let Some(grouped) = p.view(&x, &[n.clone(), Dim::Int(groups), inner])? else { return Ok(None) };
    let Normal { y, mean, rstd, .. } = normal(&mut p, &grouped, &[2], eps)?;
    let Some(y) = p.view(&y, &t.shape)? else { return Ok(None) };
    let (Some(w), Some(b)) = (channelwise(&mut p, &weight, t.rank())?, channelwise(&mut p, &bias, t.rank())?) else { return Ok(None) };
    let y = affine(&mut p, y, &w, &b)?;
    Ok(Some([y, p.squeeze(&mean, 2)?, p.squeeze(&rstd, 2)?]))
}

/// Normalisation of groups of channels. Source: torch.nn.GroupNorm.
pub(super) fn group_norm(site: &mut Site<'_>) -> Result {
    match by_groups(site, "num_groups")? {
        Some([y, ..]) => Pen(site).done(y),
        None => Ok(None),
    }
}

/// Source: torch.native_group_norm.
pub(super) fn group_norm_with_statistics(site: &mut Site<'_>) -> Result {
    match by_groups(site, "group")? {
        Some(all) => several(&mut Pen(site), all.into()),
        None => Ok(None),
    }
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

/// With the statistics of the batch, of which running ones take their part, or by the running ones. Results: what was normalised,
/// mean and `1/√(var + eps)` (empty where they are not the batch's), an empty reserve of some forms, new running mean and variance of some.
/// Source: torch.native_batch_norm and its forms.
pub(super) fn batch_norm_with_statistics(site: &mut Site<'_>) -> Result {
    let (op, schema) = (site.op(), site.op().schema());
    let training = match schema.position("training") {
        Some(_) => site.arg("training").as_bool(),
        None => Some(op == op!("aten._batch_norm_with_update_functional.default")),
    };
    let (Some(training), Some(eps), Some(momentum)) = (training, site.arg("eps").as_float(), site.arg("momentum").as_float()) else {
        return Ok(None);
    };
    let [weight, bias, old_mean, old_var] = ["weight", "bias", "running_mean", "running_var"].map(|n| site.arg(n).clone());
    let outputs = site.node().outputs.len();
    let want: Vec<bool> = (0..outputs).map(|i| wanted(site, i)).collect();
    let wants = |from: usize| want.iter().skip(from).any(|w| *w);
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let t = p.ty(&x)?;
    let (rank, Some(c)) = (t.rank(), t.shape.get(1)) else { return Ok(None) };
    let (Some(w), Some(b)) = (channelwise(&mut p, &weight, rank)?, channelwise(&mut p, &bias, rank)?) else { return Ok(None) };
    let none = |p: &mut Pen<'_, '_>| p.call(op!("aten.full.default"), vec![ints([0]), Arg::Float(0.0), Arg::DType(DType::Float32)]);
    let (y, mut all, running);
    if training {
        let dims: Vec<usize> = (0..rank).filter(|&d| d != 1).collect();
        let n = normal(&mut p, &x, &dims, eps)?;
        let flat = |p: &mut Pen<'_, '_>, v: &Arg| p.view(v, std::slice::from_ref(c));
        let (Some(mean), Some(rstd), Some(var)) = (flat(&mut p, &n.mean)?, flat(&mut p, &n.rstd)?, flat(&mut p, &n.var)?) else {
            return Ok(None);
        };
        running = if outputs > 3 && wants(outputs - 2) {
            let count = Dim::product(dims.iter().filter_map(|&d| t.shape.get(d)));
            // The variance that is kept is the unbiased one.
            let (Some(count), Some(less)) = (p.0.size(&count), p.0.size(&count.minus(&Dim::Int(1)))) else { return Ok(None) };
            let unbiased = Ex::from(var) * Ex::from(count) / Ex::from(less);
            let mut mixed = |old: &Arg, new: Ex| {
                let old = p.wide(old)?;
                p.write(&(Ex::from(old) * (1.0 - momentum) + new * momentum))
            };
            vec![mixed(&old_mean, Ex::from(&mean))?, mixed(&old_var, unbiased)?]
        } else {
            vec![Arg::None; 2]
        };
        (y, all) = (n.y, vec![mean, rstd]);
    } else {
        let (Some(m), Some(v)) = (channelwise(&mut p, &old_mean, rank)?, channelwise(&mut p, &old_var, rank)?) else { return Ok(None) };
        if m == Arg::None || v == Arg::None {
            return Ok(None);
        }
        let rstd = Ex::call(op!("aten.rsqrt.default"), vec![Ex::from(v) + eps]);
        y = p.write(&((Ex::from(&x) - Ex::from(m)) * rstd))?;
        running = vec![old_mean, old_var];
        all = vec![none(&mut p)?, none(&mut p)?];
    }
    if schema.returns.len() > 5 || op == op!("aten._batch_norm_no_update.default") {
        // What one of torch's libraries keeps for itself.
        if want.get(3) == Some(&true) {
            return Ok(None);
        }
        all.push(Arg::None);
    }
    all.insert(0, affine(&mut p, y, &w, &b)?);
    all.extend(running);
    several(&mut p, all)
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
