//! Derivatives of what is computed of rows: distances, lengths, rows in bags.

use std::result::Result as Outcome;

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::super::diagonal::ramp;
use super::super::expr::Ex;
use super::super::pen::Pen;
use super::super::several::several;
use super::{Result, zeros};
use crate::calls::wrap;
use crate::rewrite::Site;

/// What a norm of this order takes of each difference, its own value kept beside: the derivative of `(Σ|x|ᵖ)^(1/p)`, 0 where that is 0.
fn slope(apart: &Ex, norm: &Ex, order: f64) -> Ex {
    if order == 0.0 {
        return apart * 0.0;
    }
    if order == 1.0 {
        return apart.sign();
    }
    let nothing = norm.eq(0i64);
    let safe = nothing.then(1.0, norm);
    let share = if order == 2.0 {
        apart / safe
    } else if order == f64::INFINITY {
        apart.sign() * apart.abs().eq(norm).cast(DType::Float32)
    } else {
        // Below order 2 the power of nothing would be infinite.
        let size = apart.abs();
        let power = size.eq(0i64).then(0.0, size.eq(0i64).then(1.0, &size).pow(order - 1.0));
        apart.sign() * power / safe.pow(order - 1.0)
    };
    nothing.then(0.0, share)
}

/// To the rows of the first matrix. Source: torch.cdist.
pub(in crate::decompose) fn cdist(site: &mut Site<'_>) -> Result {
    let (Some(order), Some(rank)) = (site.arg("p").as_float(), site.operand(1).map(|t| t.rank())) else { return Ok(None) };
    let Some(m) = rank.checked_sub(1).filter(|m| *m > 0) else { return Ok(None) };
    let mut p = Pen(site);
    let (g, a, b, norm) = (p.operand(0)?, p.operand(1)?, p.operand(2)?, p.operand(4)?);
    let apart = p.write(&(a.unsqueeze(m as i64) - b.unsqueeze(m as i64 - 1)))?;
    let (g, norm) = (g.unsqueeze(m as i64 + 1), norm.unsqueeze(m as i64 + 1));
    p.ends(&(g * slope(&Ex::from(apart), &norm, order)).sum(&[m], false))
}

/// To both rows of each pair. Source: torch.nn.functional.pdist.
pub(in crate::decompose) fn pdist(site: &mut Site<'_>) -> Result {
    let (Some(order), Some(t)) = (site.arg("p").as_float(), site.operand(1).cloned()) else { return Ok(None) };
    let Some(rows) = t.shape.first().and_then(Dim::as_int).filter(|n| t.rank() == 2 && *n > 2) else { return Ok(None) };
    let mut p = Pen(site);
    let (g, x, norm) = (p.operand(0)?, p.operand(1)?, p.operand(3)?);
    let x = p.write(&x)?;
    let pairs = p.call(op!("aten.triu_indices.default"), vec![Arg::Int(rows), Arg::Int(rows), Arg::Int(1)])?;
    let mut sides = Vec::new();
    for i in 0..2 {
        let at = p.call(op!("aten.select.int"), vec![pairs.clone(), Arg::Int(0), Arg::Int(i)])?;
        let rows = p.call(op!("aten.index_select.default"), vec![x.clone(), Arg::Int(0), at.clone()])?;
        sides.push((at, Ex::from(rows)));
    }
    let [(first, a), (second, b)] = sides.as_slice() else { return Ok(None) };
    let apart = p.write(&(a - b))?;
    let each = p.write(&(g.unsqueeze(1i64) * slope(&Ex::from(apart), &norm.unsqueeze(1i64), order)))?;
    let against = p.neg(&each)?;
    let Some(none) = zeros(&mut p, &t.shape)? else { return Ok(None) };
    let y = p.call(op!("aten.index_add.default"), vec![none, Arg::Int(0), first.clone(), each])?;
    let y = p.call(op!("aten.index_add.default"), vec![y, Arg::Int(0), second.clone(), against])?;
    p.done(y)
}

/// With `w = g·v/n`: to `g` the sum of `w'·v/n`, to `v` `g/n · (w' - v·g'/n)`. Source: torch.nn.utils.parametrizations.weight_norm.
pub(in crate::decompose) fn weight_norm(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(dim)) = (site.operand(1).cloned(), site.arg("dim").as_int()) else { return Ok(None) };
    let kept = if dim == -1 { None } else { wrap(dim, t.rank()) };
    let others: Vec<usize> = (0..t.rank()).filter(|d| Some(*d) != kept).collect();
    let mut p = Pen(site);
    let (above, v, g, n) = (p.operand(0)?, p.operand(1)?, p.operand(2)?, p.operand(3)?);
    let to_length = Ex::from(p.write(&((&above * &v).sum(&others, true) / &n))?);
    let to_direction = p.write(&((above - v * (&to_length / &n)) * (g / n)))?;
    let to_length = p.write(&to_length)?;
    several(&mut p, vec![to_direction, to_length])
}

/// For each place in the list of indices the number of its bag, and whether it counts; the bags lie as the offsets say.
fn bags(p: &mut Pen<'_, '_>, indices: &Arg, offsets: &Arg, padding: i64) -> Outcome<Option<[Arg; 2]>, Error> {
    let n = p.ty(indices)?.numel();
    let Some(places) = ramp(p, &n, 0, 2)? else { return Ok(None) };
    let bag = Ex::from(places).ge(Ex::from(offsets).unsqueeze(0i64)).cast(DType::Int64).sum(&[1], false) - 1i64;
    let counts = if padding >= 0 { Ex::from(indices).ne(padding) } else { Ex::from(indices).eq(indices) };
    Ok(Some([p.write(&bag)?, p.write(&counts)?]))
}

/// What came to each bag, to the rows in it; of means, over how many count. Source: torch.nn.EmbeddingBag, not of the largest, whose
/// places only the forward operator knows.
pub(in crate::decompose) fn embedding_bag(site: &mut Site<'_>) -> Result {
    let (Some(mode @ (0 | 1)), Some(padding), Some(rows)) =
        (site.arg("mode").as_int(), site.arg("padding_idx").as_int(), site.arg("num_weights").as_int())
    else {
        return Ok(None);
    };
    let (Some(g), Some(indices)) = (site.operand(0).cloned(), site.operand(1).cloned()) else { return Ok(None) };
    let [width, frequent] =
        [g.shape.last().cloned().map_or(Arg::None, |n| n.as_int().map_or(Arg::None, Arg::Int)), site.arg("scale_grad_by_freq").clone()];
    let (at, offsets, weights) = (site.nth(1).clone(), site.nth(2).clone(), site.arg("per_sample_weights").clone());
    if indices.rank() != 1 || width == Arg::None {
        return Ok(None);
    }
    let mut p = Pen(site);
    let above = p.operand(0)?;
    let above = p.write(&above)?;
    let Some([bag, counts]) = bags(&mut p, &at, &offsets, padding)? else { return Ok(None) };
    let each = p.call(op!("aten.index_select.default"), vec![above, Arg::Int(0), bag.clone()])?;
    let mut each = Ex::from(each);
    if mode == 1 {
        let number = p.cast(&counts, DType::Float32)?;
        let Some(sizes) = g.shape.first().cloned().and_then(|n| p.0.sizes(&[n])) else { return Ok(None) };
        let none = p.call(op!("aten.full.default"), vec![sizes, Arg::Float(0.0), Arg::DType(DType::Float32)])?;
        let size = p.call(op!("aten.index_add.default"), vec![none, Arg::Int(0), bag.clone(), number])?;
        let size = p.call(op!("aten.index_select.default"), vec![size, Arg::Int(0), bag])?;
        each = each / Ex::from(size).at_least(1.0).unsqueeze(1i64);
    }
    if weights != Arg::None {
        each = each * Ex::from(p.wide(&weights)?).unsqueeze(1i64);
    }
    let each = p.write(&each)?;
    let y = p.call(op!("aten.embedding_dense_backward.default"), vec![each, at, Arg::Int(rows), Arg::Int(padding), frequent])?;
    p.done(y)
}
