//! Caches of four bits a value (TurboQuant): ExecuTorch's own operators, which its lowering turns into Metal source. Source:
//! their eager definitions.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::pen::Pen;
use crate::calls::ints;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// The length of each line: `sqrt(Σ x²)`, summed in `f32`.
pub(super) fn norm(site: &mut Site<'_>) -> Result {
    let Some(last) = site.operand(0).and_then(|t| t.rank().checked_sub(1)) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.wide(&p.0.nth(0).clone())?;
    let squares = p.square(&x)?;
    let sum = p.reduce(op!("aten.sum.dim_IntList"), &squares, &[last], true)?;
    let y = p.sqrt(&sum)?;
    p.done(y)
}

/// How many boundaries each value is above, two counts a byte, the first in the high half.
pub(super) fn compress(site: &mut Site<'_>) -> Result {
    let Some(t) = site.operand(0).cloned() else { return Ok(None) };
    let Some((width, outer)) = t.shape.split_last() else { return Ok(None) };
    let Some(pairs) = width.as_int().filter(|n| n % 2 == 0).map(|n| n / 2) else { return Ok(None) };
    let rank = t.rank();
    let mut p = Pen(site);
    let (x, bounds) = (p.wide(&p.0.nth(0).clone())?, p.wide(&p.0.nth(1).clone())?);
    let x = p.unsqueeze(&x, rank)?;
    let above = p.gt(&x, &bounds)?;
    let above = p.cast(&above, DType::Int32)?;
    let counts = p.call(op!("aten.sum.dim_IntList"), vec![above, ints([rank as i64]), false.into(), Arg::DType(DType::Int32)])?;
    let split: Vec<Dim> = outer.iter().cloned().chain([Dim::Int(pairs), Dim::Int(2)]).collect();
    let Some(counts) = p.view(&counts, &split)? else { return Ok(None) };
    let high = p.slice(&counts, rank, Arg::Int(0), Arg::Int(1))?;
    let low = p.slice(&counts, rank, Arg::Int(1), Arg::Int(2))?;
    let high = p.mul(&high, 16i64)?;
    let both = p.add(&high, &low)?;
    let y = p.squeeze(&both, rank)?;
    p.done(y)
}

/// The values that half bytes (the high one first) stand for, times the length of their line.
pub(super) fn decompress(site: &mut Site<'_>) -> Result {
    let Some(t) = site.operand(0).cloned() else { return Ok(None) };
    let Some((width, outer)) = t.shape.split_last() else { return Ok(None) };
    let rank = t.rank();
    let mut p = Pen(site);
    let [packed, norms, values] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    let codes = p.cast(&packed, DType::Int32)?;
    let high = p.call(op!("aten.div.Tensor_mode"), vec![codes.clone(), Arg::Int(16), Arg::Str("floor".into())])?;
    let above = p.mul(&high, 16i64)?;
    let low = p.sub(&codes, &above)?;
    let (high, low) = (p.unsqueeze(&high, rank)?, p.unsqueeze(&low, rank)?);
    let both = p.call(op!("aten.cat.default"), vec![Arg::List(vec![high, low]), Arg::Int(rank as i64)])?;
    let shape: Vec<Dim> = outer.iter().cloned().chain([width.times(&Dim::Int(2))]).collect();
    let Some(codes) = p.view(&both, &shape)? else { return Ok(None) };
    let values = p.call(op!("aten.index.Tensor"), vec![values, Arg::List(vec![codes])])?;
    let y = p.mul(&values, &norms)?;
    p.done(y)
}
