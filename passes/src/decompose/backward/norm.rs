//! Derivatives of normalisations, by the statistics that the forward operator gave.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::super::expr::Ex;
use super::super::pen::Pen;
use super::{Result, several, wanted};
use crate::rewrite::Site;

type Written = std::result::Result<Ex, Error>;

/// Written once, however often it is used.
fn once(p: &mut Pen<'_, '_>, e: &Ex) -> Written {
    p.write(e).map(Ex::from)
}

fn mean(e: &Ex, dims: &[usize]) -> Ex {
    e.reduce(op!("aten.mean.dim"), dims, true)
}

/// To the input: `r·(g - mean(g) - x̂·mean(g·x̂))`, means over what was normalised together, `g` after the weight.
fn input(p: &mut Pen<'_, '_>, g: &Ex, normal: &Ex, rstd: &Ex, dims: &[usize]) -> Written {
    let g = once(p, g)?;
    let along = mean(&(&g * normal), dims);
    once(p, &((&g - mean(&g, dims) - normal * along) * rstd))
}

/// An optional operand, in single precision at least.
fn optional(p: &mut Pen<'_, '_>, name: &str) -> std::result::Result<Option<Ex>, Error> {
    let x = p.0.arg(name).clone();
    if x == Arg::None { Ok(None) } else { p.wide(&x).map(|x| Some(Ex::from(x))) }
}

/// Operands of these names, in single precision at least.
fn named(p: &mut Pen<'_, '_>, name: &str) -> Written {
    let x = p.0.arg(name).clone();
    p.wide(&x).map(Ex::from)
}

/// Over dimensions; as it is, where there are none.
fn total(e: &Ex, dims: &[usize]) -> Ex {
    if dims.is_empty() { e.clone() } else { e.sum(dims, false) }
}

/// Source: torch.nn.LayerNorm.
pub(in crate::decompose) fn layer(site: &mut Site<'_>) -> Result {
    let (Some(rank), Some(n)) = (site.operand(0).map(|t| t.rank()), site.arg("normalized_shape").as_list().map(<[Arg]>::len)) else {
        return Ok(None);
    };
    let Some(lead) = rank.checked_sub(n) else { return Ok(None) };
    let (outer, inner): (Vec<usize>, Vec<usize>) = ((0..lead).collect(), (lead..rank).collect());
    let want = [0, 1, 2].map(|i| wanted(site, i));
    let mut p = Pen(site);
    let (g, x, m, r) = (named(&mut p, "grad_out")?, named(&mut p, "input")?, named(&mut p, "mean")?, named(&mut p, "rstd")?);
    let normal = once(&mut p, &((x - m) * &r))?;
    let mut results = [Arg::None, Arg::None, Arg::None];
    if want[0] {
        let weighted = match optional(&mut p, "weight")? {
            Some(w) => &g * w,
            None => g.clone(),
        };
        let y = input(&mut p, &weighted, &normal, &r, &inner)?;
        results[0] = p.write(&y)?;
    }
    if want[1] {
        results[1] = p.write(&total(&(&g * &normal), &outer))?;
    }
    if want[2] {
        results[2] = p.write(&total(&g, &outer))?;
    }
    several(&mut p, results.into())
}

/// `r·g - x·r³·mean(g·x)`. Source: torch.nn.RMSNorm.
pub(in crate::decompose) fn rms(site: &mut Site<'_>) -> Result {
    let (Some(rank), Some(n)) = (site.operand(0).map(|t| t.rank()), site.arg("normalized_shape").as_list().map(<[Arg]>::len)) else {
        return Ok(None);
    };
    let Some(lead) = rank.checked_sub(n) else { return Ok(None) };
    let (outer, inner): (Vec<usize>, Vec<usize>) = ((0..lead).collect(), (lead..rank).collect());
    let want = [0, 1].map(|i| wanted(site, i));
    let mut p = Pen(site);
    let (g, x, r) = (named(&mut p, "grad_out")?, named(&mut p, "input")?, named(&mut p, "rstd")?);
    let normal = once(&mut p, &(x * &r))?;
    let mut results = [Arg::None, Arg::None];
    if want[0] {
        let weighted = match optional(&mut p, "weight")? {
            Some(w) => once(&mut p, &(&g * w))?,
            None => g.clone(),
        };
        let along = mean(&(&weighted * &normal), &inner);
        results[0] = p.write(&((weighted - &normal * along) * r))?;
    }
    if want[1] {
        results[1] = p.write(&total(&(g * normal), &outer))?;
    }
    several(&mut p, results.into())
}

/// A tensor of this shape, if it can be made of `e`.
fn shaped(p: &mut Pen<'_, '_>, e: &Ex, shape: &[Dim]) -> std::result::Result<Option<Ex>, Error> {
    let x = p.write(e)?;
    Ok(p.view(&x, shape)?.map(Ex::from))
}

/// Source: torch.nn.GroupNorm.
pub(in crate::decompose) fn group(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(groups)) = (site.operand(1).cloned(), site.arg("group").as_int().filter(|n| *n > 0)) else { return Ok(None) };
    let [n, c, rest @ ..] = t.shape.as_slice() else { return Ok(None) };
    let Some(channels) = c.as_int().filter(|c| c % groups == 0) else { return Ok(None) };
    let split = [n.clone(), Dim::Int(groups), Dim::Int(channels / groups), Dim::product(rest)];
    let statistics = [n.clone(), Dim::Int(groups), Dim::Int(1), Dim::Int(1)];
    let want = [0, 1, 2].map(|i| wanted(site, i));
    let mut p = Pen(site);
    let (g, x, m, r) = (named(&mut p, "grad_out")?, named(&mut p, "input")?, named(&mut p, "mean")?, named(&mut p, "rstd")?);
    let (Some(g), Some(x)) = (shaped(&mut p, &g, &split)?, shaped(&mut p, &x, &split)?) else { return Ok(None) };
    let (Some(m), Some(r)) = (shaped(&mut p, &m, &statistics)?, shaped(&mut p, &r, &statistics)?) else { return Ok(None) };
    let normal = once(&mut p, &((x - m) * &r))?;
    let mut results = [Arg::None, Arg::None, Arg::None];
    if want[0] {
        let weighted = match optional(&mut p, "weight")? {
            Some(w) => {
                let along = [1, groups, channels / groups, 1].map(Dim::Int);
                let Some(w) = shaped(&mut p, &w, &along)? else { return Ok(None) };
                &g * w
            }
            None => g.clone(),
        };
        let y = input(&mut p, &weighted, &normal, &r, &[2, 3])?;
        let Some(y) = shaped(&mut p, &y, &t.shape)? else { return Ok(None) };
        results[0] = p.write(&y)?;
    }
    for (i, each) in [(1, &g * &normal), (2, g.clone())] {
        if want[i] {
            let Some(sum) = shaped(&mut p, &each.sum(&[0, 3], false), std::slice::from_ref(c))? else { return Ok(None) };
            results[i] = p.write(&sum)?;
        }
    }
    several(&mut p, results.into())
}

/// By the statistics of the batch, or by the running ones, which do not depend on the input. Source: torch.nn.BatchNorm1d, 2d, 3d.
pub(in crate::decompose) fn batch(site: &mut Site<'_>) -> Result {
    let Some(t) = site.operand(1).cloned() else { return Ok(None) };
    let name = if site.op().schema().position("train").is_some() { "train" } else { "update" };
    let (Some(training), Some(eps)) = (site.arg(name).as_bool(), site.arg("eps").as_float()) else { return Ok(None) };
    if t.rank() < 2 {
        return Ok(None);
    }
    let rstd = if site.op().schema().position("save_invstd").is_some() { "save_invstd" } else { "save_var" };
    let dims: Vec<usize> = (0..t.rank()).filter(|&d| d != 1).collect();
    let Some(c) = t.shape.get(1).cloned() else { return Ok(None) };
    let channels: Vec<Dim> = (0..t.rank()).map(|d| if d == 1 { c.clone() } else { Dim::Int(1) }).collect();
    let want = [0, 1, 2].map(|i| wanted(site, i));
    let mut p = Pen(site);
    let (g, x) = (named(&mut p, "grad_out")?, named(&mut p, "input")?);
    let (m, r) = if training {
        (named(&mut p, "save_mean")?, named(&mut p, rstd)?)
    } else {
        let v = named(&mut p, "running_var")?;
        (named(&mut p, "running_mean")?, Ex::call(op!("aten.rsqrt.default"), vec![v.cast(DType::Float32) + eps]))
    };
    let (Some(m), Some(r)) = (shaped(&mut p, &m, &channels)?, shaped(&mut p, &r, &channels)?) else { return Ok(None) };
    let normal = once(&mut p, &((x - m) * &r))?;
    let mut results = [Arg::None, Arg::None, Arg::None];
    if want[0] {
        let weighted = match optional(&mut p, "weight")? {
            Some(w) => {
                let Some(w) = shaped(&mut p, &w, &channels)? else { return Ok(None) };
                &g * w
            }
            None => g.clone(),
        };
        let y = if training { input(&mut p, &weighted, &normal, &r, &dims)? } else { weighted * r };
        results[0] = p.write(&y)?;
    }
    if want[1] {
        results[1] = p.write(&(&g * &normal).sum(&dims, false))?;
    }
    if want[2] {
        results[2] = p.write(&g.sum(&dims, false))?;
    }
    several(&mut p, results.into())
}
