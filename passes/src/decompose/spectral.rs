//! Short-time Fourier transforms and what their ends take.

use etx_ir::graph::Arg;
use etx_ir::op;

use super::pen::Pen;
use crate::calls::ints;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, etx_ir::error::Error>;

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
