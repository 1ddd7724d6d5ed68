//! Complex numbers as pairs of real ones. No backend has to hold a complex tensor: what is asked of one is asked of the
//! pairs, back to where they came from.

use etx_ir::error::Error;
use etx_ir::graph::{Arg, ValueId};
use etx_ir::op;
use etx_ir::sym::{Dim, Expr};

use super::pen::Pen;
use crate::calls::{ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;
type Value = std::result::Result<Option<Arg>, Error>;

/// How many calls a complex value is followed back through.
const MAX_DEPTH: usize = 16;

/// The complex tensor as a real one with a last axis of 2.
fn pairs(p: &mut Pen<'_, '_>, v: ValueId, depth: usize) -> Value {
    let graph = p.0.graph();
    let (Some(node), Some(t)) = (graph.producer(v).map(|n| graph.node(n)), graph.tensor(v).cloned()) else { return Ok(None) };
    if depth == 0 || node.outputs.len() != 1 {
        return Ok(None);
    }
    let (op, list) = (node.op, node.args.clone());
    let get = |i: usize| list.get(i).cloned().unwrap_or(Arg::None);
    let place = |name: &str| op.schema().position(name);
    let with_two = || t.shape.iter().cloned().chain([Dim::Int(2)]).collect::<Vec<_>>();
    let below = |p: &mut Pen<'_, '_>| match get(0).as_value() {
        Some(x) => pairs(p, x, depth - 1),
        None => Ok(None),
    };
    Ok(by_op!(op, {
        "aten.view_as_complex.default" => Some(get(0)),
        "aten.complex.default" => Some(p.call(op!("aten.stack.default"), vec![Arg::List(vec![get(0), get(1)]), Arg::Int(-1)])?),
        "aten.polar.default" => {
            let (cos, sin) = (p.call(op!("aten.cos.default"), vec![get(1)])?, p.call(op!("aten.sin.default"), vec![get(1)])?);
            let (a, b) = (p.mul(&get(0), &cos)?, p.mul(&get(0), &sin)?);
            Some(p.call(op!("aten.stack.default"), vec![Arg::List(vec![a, b]), Arg::Int(-1)])?)
        },
        "aten.stft.default" => {
            let mut args = list.clone();
            if let Some(a) = place("return_complex").and_then(|i| args.get_mut(i)) {
                *a = Arg::Bool(false);
            }
            Some(p.call(op, args)?)
        },
        "aten.view.default" | "aten.reshape.default" | "aten.clone.default" | "aten.contiguous.default" => match below(p)? {
            Some(x) => p.view(&x, &with_two())?,
            None => None,
        },
        "aten.unsqueeze.default" | "aten.squeeze.dims" | "aten.squeeze.dim" => match below(p)? {
            Some(x) => p.view(&x, &with_two())?,
            None => None,
        },
        "aten.permute.default" => match (below(p)?, crate::calls::as_ints(&get(1))) {
            (Some(x), Some(dims)) => {
                let rank = t.rank();
                let dims = dims.into_iter().map(|d| wrap(d, rank).map(|d| d as i64)).chain([Some(rank as i64)]).collect::<Option<Vec<_>>>();
                match dims {
                    Some(dims) => Some(p.call(op, vec![x, ints(dims)])?),
                    None => None,
                }
            },
            _ => None,
        },
        "aten.slice.Tensor" => match (below(p)?, get(1).as_int().and_then(|d| wrap(d, t.rank()))) {
            (Some(x), Some(d)) => Some(p.call(op, vec![x, Arg::Int(d as i64), get(2), get(3), get(4)])?),
            _ => None,
        },
        "aten.mul.Tensor" => return product(p, &get(0), &get(1), depth),
        _ => None,
    }))
}

/// `(a + bi)(c + di)`; one of them may be real.
fn product(p: &mut Pen<'_, '_>, a: &Arg, b: &Arg, depth: usize) -> Value {
    let complex = |p: &Pen<'_, '_>, x: &Arg| p.0.tensor(x).map(|t| t.dtype.is_complex());
    match (complex(p, a), complex(p, b)) {
        (Some(true), Some(true)) => {
            let (Some(a), Some(b)) = (a.as_value(), b.as_value()) else { return Ok(None) };
            let (Some(a), Some(b)) = (pairs(p, a, depth - 1)?, pairs(p, b, depth - 1)?) else { return Ok(None) };
            let (ar, ai, br, bi) = (part(p, &a, 0)?, part(p, &a, 1)?, part(p, &b, 0)?, part(p, &b, 1)?);
            let (rr, ii, ri, ir) = (p.mul(&ar, &br)?, p.mul(&ai, &bi)?, p.mul(&ar, &bi)?, p.mul(&ai, &br)?);
            let (real, imaginary) = (p.sub(&rr, &ii)?, p.add(&ri, &ir)?);
            p.call(op!("aten.stack.default"), vec![Arg::List(vec![real, imaginary]), Arg::Int(-1)]).map(Some)
        }
        (Some(true), Some(false)) => {
            let Some(x) = a.as_value() else { return Ok(None) };
            let rank = p.ty(b)?.rank();
            let (Some(x), b) = (pairs(p, x, depth - 1)?, p.unsqueeze(b, rank)?) else { return Ok(None) };
            p.mul(&x, &b).map(Some)
        }
        (Some(false), Some(true)) => product(p, b, a, depth),
        _ => Ok(None),
    }
}

/// The real (0) or imaginary (1) parts.
fn part(p: &mut Pen<'_, '_>, pairs: &Arg, which: i64) -> std::result::Result<Arg, Error> {
    p.call(op!("aten.select.int"), vec![pairs.clone(), Arg::Int(-1), Arg::Int(which)])
}

fn operand(p: &mut Pen<'_, '_>) -> Value {
    match p.0.value(0).filter(|&v| p.0.graph().tensor(v).is_some_and(|t| t.dtype.is_complex())) {
        Some(v) => pairs(p, v, MAX_DEPTH),
        None => Ok(None),
    }
}

/// Source: torch.view_as_real.
pub(super) fn view_as_real(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    match operand(&mut p)? {
        Some(x) => p.done(x),
        None => Ok(None),
    }
}

/// `√(re² + im²)`. Source: torch.abs.
pub(super) fn abs(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let Some(x) = operand(&mut p)? else { return Ok(None) };
    let rank = p.ty(&x)?.rank();
    let squares = p.square(&x)?;
    let sum = p.reduce(op!("aten.sum.dim_IntList"), &squares, &[rank.saturating_sub(1)], false)?;
    let y = p.sqrt(&sum)?;
    p.done(y)
}

/// Source: torch.angle.
pub(super) fn angle(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let Some(x) = operand(&mut p)? else { return Ok(None) };
    let (re, im) = (part(&mut p, &x, 0)?, part(&mut p, &x, 1)?);
    let y = p.call(op!("aten.atan2.default"), vec![im, re])?;
    p.done(y)
}

/// Source: torch.real.
pub(super) fn real(site: &mut Site<'_>) -> Result {
    one_part(site, 0)
}

/// Source: torch.imag.
pub(super) fn imag(site: &mut Site<'_>) -> Result {
    one_part(site, 1)
}

fn one_part(site: &mut Site<'_>, which: i64) -> Result {
    let mut p = Pen(site);
    let Some(x) = operand(&mut p)? else { return Ok(None) };
    let y = part(&mut p, &x, which)?;
    p.done(y)
}

/// Padding at both ends, then the transform. Source: torch.stft.
pub(super) fn stft_center(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(n)) = (site.operand(0).cloned(), site.arg("n_fft").as_int()) else { return Ok(None) };
    let names = ["n_fft", "hop_length", "win_length", "window", "normalized", "onesided", "return_complex", "align_to_window"];
    let rest: Vec<Arg> = names.iter().map(|name| site.arg(name).clone()).collect();
    let pad = if site.arg("center").as_bool() == Some(true) { n / 2 } else { 0 };
    let op = match site.arg("pad_mode") {
        Arg::Str(mode) if &**mode == "constant" => op!("aten.constant_pad_nd.default"),
        Arg::Str(mode) if &**mode == "reflect" => op!("aten.reflection_pad1d.default"),
        Arg::Str(mode) if &**mode == "replicate" => op!("aten.replication_pad1d.default"),
        _ => return Ok(None),
    };
    let mut p = Pen(site);
    let mut x = p.0.nth(0).clone();
    if pad > 0 {
        x = p.unsqueeze(&x, 0)?;
        x = p.call(op, vec![x, ints([pad, pad])])?;
        x = p.call(op!("aten.squeeze.dims"), vec![x, ints([0])])?;
    }
    if p.ty(&x)?.rank() != t.rank() {
        return Ok(None);
    }
    let list = std::iter::once(x).chain(rest).collect();
    Ok(Some(Patch::Call(op!("aten.stft.default"), list)))
}

/// The ends mirrored, where the length is known only at run time. Source: torch.nn.ReflectionPad1d.
pub(super) fn reflection_pad(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(pad)) = (site.operand(0).cloned(), site.arg("padding").as_list().map(<[Arg]>::to_vec)) else { return Ok(None) };
    let [left, right] = pad.as_slice() else { return Ok(None) };
    let (Some(left), Some(right), Some(length)) = (left.as_int(), right.as_int(), t.shape.last().cloned()) else { return Ok(None) };
    if left < 0 || right < 0 {
        return Ok(None);
    }
    let axis = t.rank() - 1;
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let mut parts = Vec::new();
    let flip = |p: &mut Pen<'_, '_>, x: Arg| p.call(op!("aten.flip.default"), vec![x, ints([axis as i64])]);
    if left > 0 {
        let start = p.slice(&x, axis, Arg::Int(1), Arg::Int(left + 1))?;
        parts.push(flip(&mut p, start)?);
    }
    parts.push(x.clone());
    if right > 0 {
        let at = |p: &mut Pen<'_, '_>, back: i64| p.0.size(&length.plus(&Expr::Int(-back)));
        let (Some(from), Some(to)) = (at(&mut p, right + 1), at(&mut p, 1)) else { return Ok(None) };
        let end = p.slice(&x, axis, from, to)?;
        parts.push(flip(&mut p, end)?);
    }
    let y = p.call(op!("aten.cat.default"), vec![Arg::List(parts), Arg::Int(axis as i64)])?;
    p.done(y)
}
