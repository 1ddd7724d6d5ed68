//! Derivatives of losses by what was predicted.

use etx_ir::DType;
use etx_ir::graph::Arg;
use etx_ir::sym::Dim;

use super::super::diagonal::ramp;
use super::super::expr::Ex;
use super::super::pen::Pen;
use super::Result;
use crate::rewrite::Site;

/// What comes from above times the derivative of each element's loss, over the number of elements where their mean was taken.
fn of_pair(site: &mut Site<'_>, f: impl FnOnce(Ex, Ex) -> Ex) -> Result {
    let Some(to) = site.result().cloned() else { return Ok(None) };
    let mean = site.arg("reduction").as_int() == Some(1);
    let weight = site.arg("weight").clone();
    let mut p = Pen(site);
    let (g, x, y) = (p.operand(0)?, p.operand(1)?, p.operand(2)?);
    let mut slope = f(x, y);
    if weight != Arg::None {
        slope = slope * Ex::from(weight);
    }
    let all = g * slope;
    if !mean {
        return p.ends(&all);
    }
    let Some(count) = p.0.size(&to.numel()) else { return Ok(None) };
    p.ends(&(all / Ex::from(count)))
}

fn number(site: &Site<'_>, name: &str) -> Option<f64> {
    site.arg(name).as_float()
}

/// `2·(x - y)`. Source: torch.nn.MSELoss.
pub(in crate::decompose) fn mse(site: &mut Site<'_>) -> Result {
    of_pair(site, |x, y| (x - y) * 2.0)
}

/// `d/β` within `β`, beyond it the sign. Source: torch.nn.SmoothL1Loss.
pub(in crate::decompose) fn smooth_l1(site: &mut Site<'_>) -> Result {
    let Some(beta) = number(site, "beta").filter(|b| *b > 0.0) else { return Ok(None) };
    of_pair(site, |x, y| ((x - y) * (1.0 / beta)).clamp(-1.0, 1.0))
}

/// `d` up to delta either way. Source: torch.nn.HuberLoss.
pub(in crate::decompose) fn huber(site: &mut Site<'_>) -> Result {
    let Some(delta) = number(site, "delta") else { return Ok(None) };
    of_pair(site, |x, y| (x - y).clamp(-delta, delta))
}

/// `(x - y) / (x·(1 - x))`, the divisor no less than 1e-12. Source: torch.nn.BCELoss.
pub(in crate::decompose) fn binary_cross_entropy(site: &mut Site<'_>) -> Result {
    of_pair(site, |x, y| (&x - y) / ((-&x + 1.0) * &x).at_least(1e-12))
}

/// `-y·z / (1 + z)` with `z = exp(-y·x)`. Source: torch.nn.SoftMarginLoss.
pub(in crate::decompose) fn soft_margin(site: &mut Site<'_>) -> Result {
    of_pair(site, |x, y| {
        let z = (-(x * &y)).exp();
        -y * &z / (&z + 1.0)
    })
}

/// Minus the weight of the class that was to be found, in its place. Source: torch.nn.NLLLoss.
pub(in crate::decompose) fn nll(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(reduction), Some(ignored)) =
        (site.operand(1).cloned(), site.arg("reduction").as_int(), site.arg("ignore_index").as_int())
    else {
        return Ok(None);
    };
    if t.rank() == 0 {
        return Ok(None);
    }
    let dim = usize::from(t.rank() > 1);
    let weight = site.arg("weight").clone();
    let total = site.arg("total_weight").clone();
    let mut p = Pen(site);
    let target = p.0.nth(2).clone();
    let target = p.cast(&target, DType::Int64)?;
    let target = Ex::from(target).unsqueeze(dim as i64);
    let Some(classes) = ramp(&mut p, t.shape.get(dim).unwrap_or(&Dim::Int(1)), dim, t.rank())? else { return Ok(None) };
    let hit = target.eq(classes).and(target.ne(ignored));
    let mut g = p.operand(0)?;
    match reduction {
        0 => g = g.unsqueeze(dim as i64),
        1 => g = g / Ex::from(p.wide(&total)?),
        _ => {}
    }
    if weight != Arg::None {
        let shape: Vec<Dim> =
            (0..t.rank()).map(|d| if d == dim { t.shape.get(d).cloned().unwrap_or(Dim::Int(1)) } else { Dim::Int(1) }).collect();
        let weight = p.wide(&weight)?;
        let Some(w) = p.view(&weight, &shape)? else { return Ok(None) };
        g = g * Ex::from(w);
    }
    p.ends(&hit.then(-g, 0.0))
}
