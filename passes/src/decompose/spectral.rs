//! Short-time Fourier transforms and what their ends take.

use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Expr;

use super::pen::Pen;
use crate::calls::ints;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

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
