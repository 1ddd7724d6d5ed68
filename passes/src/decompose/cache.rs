//! Caches and attention of ExecuTorch's own exporters (`llama.*`): `[batch, positions, heads, size]`, plain or in bytes. Source:
//! the operators' own kernels, run eagerly.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, Type};
use etx_ir::op;
use etx_ir::sym::Dim;

use super::pen::Pen;
use crate::calls::{args, ints};
use crate::rewrite::{Patch, Site};

type Result<T = Option<Patch>> = std::result::Result<T, Error>;

/// The axis of the positions.
const POSITIONS: usize = 1;

/// What the operators return beside the cache: one element that carries nothing.
fn placeholder(p: &mut Pen<'_, '_>) -> Result<Arg> {
    let dtype = p.0.result().map_or(DType::Float32, |t| t.dtype);
    let op = op!("aten.full.default");
    Ok(Arg::Value(p.0.call(op, args(op, [ints([1]), Arg::Int(0)], &[("dtype", Arg::DType(dtype))]))?))
}

/// The position, and the one that comes so many after it.
fn span(p: &mut Pen<'_, '_>, start: &Arg, length: &Dim) -> Option<[Arg; 2]> {
    let first = match start {
        Arg::Value(v) => match p.0.graph().ty(*v) {
            Type::Int(e) => e.clone(),
            _ => return None,
        },
        other => Dim::Int(other.as_int()?),
    };
    Some([start.clone(), p.0.size(&first.plus(length))?])
}

/// The cache with new positions from `start` on.
fn written(p: &mut Pen<'_, '_>, cache: &Arg, value: &Arg, start: &Arg) -> Result<Option<Arg>> {
    let (value_type, cache_type) = (p.ty(value)?, p.ty(cache)?);
    if value_type.dtype != cache_type.dtype || value_type.rank() != 4 || cache_type.rank() != 4 {
        return Ok(None);
    }
    let Some([start, stop]) = value_type.shape.get(POSITIONS).and_then(|n| span(p, start, n)) else { return Ok(None) };
    let list = vec![cache.clone(), value.clone(), Arg::Int(POSITIONS as i64), start, stop, Arg::Int(1)];
    p.call(op!("aten.slice_scatter.default"), list).map(Some)
}

/// New positions go behind `start_pos`.
pub(super) fn update(site: &mut Site<'_>) -> Result {
    let [value, cache, start] = ["value", "cache", "start_pos"].map(|n| site.arg(n).clone());
    let mut p = Pen(site);
    let Some(new) = written(&mut p, &cache, &value, &start)? else { return Ok(None) };
    Ok(Some(Patch::Values(vec![placeholder(&mut p)?, new])))
}

/// New positions go where the indices of their batch say.
pub(super) fn update_at(site: &mut Site<'_>) -> Result {
    let [value, cache, indices] = ["value", "cache", "indices"].map(|n| site.arg(n).clone());
    let mut p = Pen(site);
    let (value_type, cache_type) = (p.ty(&value)?, p.ty(&cache)?);
    let [batch, ..] = value_type.shape.as_slice() else { return Ok(None) };
    if value_type.dtype != cache_type.dtype || value_type.rank() != 4 || cache_type.rank() != 4 || p.ty(&indices)?.rank() != 2 {
        return Ok(None);
    }
    let new = if *batch == Dim::Int(1) {
        let at = p.squeeze(&indices, 0)?;
        p.call(op!("aten.index_copy.default"), vec![cache, Arg::Int(POSITIONS as i64), at, value])?
    } else {
        let Some(n) = p.0.size(batch) else { return Ok(None) };
        let arange = op!("aten.arange.start_step");
        let list = args(arange, [Arg::Int(0), n, Arg::Int(1)], &[("dtype", Arg::DType(DType::Int64))]);
        let lines = p.call(arange, list)?;
        let lines = p.unsqueeze(&lines, 1)?;
        p.call(op!("aten.index_put.default"), vec![cache, Arg::List(vec![lines, indices]), value])?
    };
    Ok(Some(Patch::Values(vec![placeholder(&mut p)?, new])))
}

/// Attention, heads before positions: with a mask, to everything; else to what is before `start` and as many more as there are
/// queries, of which none sees those after its own if `causal`.
struct Attention {
    start: Arg,
    mask: Arg,
    causal: bool,
    scale: Arg,
}

impl Attention {
    /// Dropout is ignored by these operators.
    fn of(site: &Site<'_>) -> Self {
        let [start, mask, scale] = ["start_pos", "attn_mask", "scale"].map(|n| site.arg(n).clone());
        Self { start, mask, causal: site.arg("is_causal").as_bool() == Some(true), scale }
    }

    fn over(&self, p: &mut Pen<'_, '_>, [q, k, v]: [Arg; 3]) -> Result<Option<Arg>> {
        if matches!(self.mask, Arg::None) {
            let op = op!("mlx.custom_sdpa.default");
            let how = [("is_causal", Arg::Bool(self.causal)), ("scale", self.scale.clone())];
            return p.call(op, args(op, [q, k, v, self.start.clone()], &how)).map(Some);
        }
        // Both at once is an error at run time.
        if self.causal {
            return Ok(None);
        }
        let mask = p.cast(&self.mask, p.ty(&q)?.dtype)?;
        let op = op!("aten.scaled_dot_product_attention.default");
        let how = [("attn_mask", mask), ("scale", self.scale.clone()), ("enable_gqa", Arg::Bool(true))];
        p.call(op, args(op, [q, k, v], &how)).map(Some)
    }
}

/// Heads and positions exchanged.
fn turned(p: &mut Pen<'_, '_>, x: &Arg) -> Result<Arg> {
    p.permute(x, &[0, 2, 1, 3])
}

fn attend(p: &mut Pen<'_, '_>, how: &Attention, qkv: [&Arg; 3]) -> Result<Option<Arg>> {
    for x in qkv {
        if p.ty(x)?.rank() != 4 {
            return Ok(None);
        }
    }
    let [q, k, v] = qkv;
    let heads_first = [turned(p, q)?, turned(p, k)?, turned(p, v)?];
    let Some(y) = how.over(p, heads_first)? else { return Ok(None) };
    turned(p, &y).map(Some)
}

/// Attention over caches.
pub(super) fn attention(site: &mut Site<'_>) -> Result {
    let how = Attention::of(site);
    let mut p = Pen(site);
    let [q, k, v] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    match attend(&mut p, &how, [&q, &k, &v])? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// Both caches get new positions, then attention over them.
pub(super) fn update_and_attend(site: &mut Site<'_>) -> Result {
    let how = Attention::of(site);
    let [q, k, v, keys, values] = ["query", "key", "value", "key_cache", "value_cache"].map(|n| site.arg(n).clone());
    let mut p = Pen(site);
    let Some(keys) = written(&mut p, &keys, &k, &how.start)? else { return Ok(None) };
    let Some(values) = written(&mut p, &values, &v, &how.start)? else { return Ok(None) };
    let Some(y) = attend(&mut p, &how, [&q, &keys, &values])? else { return Ok(None) };
    Ok(Some(Patch::Values(vec![y, keys, values])))
}

/// `(codes - zero points) · scales` in `f32`, of as many positions as are in use.
fn numbers(p: &mut Pen<'_, '_>, [codes, zeros, scales]: [Arg; 3], used: Option<&(usize, Arg)>) -> Result<Arg> {
    let mut part = |x: &Arg| -> Result<Arg> {
        let x = match used {
            Some((axis, stop)) => p.slice(x, *axis, Arg::Int(0), stop.clone())?,
            None => x.clone(),
        };
        p.cast(&x, DType::Float32)
    };
    let (codes, zeros, scales) = (part(&codes)?, part(&zeros)?, part(&scales)?);
    let centred = p.sub(&codes, &zeros)?;
    p.mul(&centred, &scales)
}

/// Attention over caches of bytes: in numbers, and from bytes to them only what is in use.
pub(super) fn quantized_attention(site: &mut Site<'_>) -> Result {
    let how = Attention::of(site);
    let heads_first = site.arg("is_seq_at_dim_2").as_bool() == Some(true);
    let axis = if heads_first { 2 } else { POSITIONS };
    let of =
        |x: &str, letter: char| [x.to_owned(), format!("{letter}_zero_points"), format!("{letter}_scales")].map(|n| site.arg(&n).clone());
    let [q, k, v] = [("query", 'q'), ("key", 'k'), ("value", 'v')].map(|(x, letter)| of(x, letter));
    let mut p = Pen(site);
    for x in q.iter().chain(&k).chain(&v) {
        if p.ty(x)?.rank() != 4 {
            return Ok(None);
        }
    }
    let used = match how.mask {
        Arg::None => {
            let Some([_, stop]) = p.ty(&q[0])?.shape.get(axis).and_then(|n| span(&mut p, &how.start, n)) else { return Ok(None) };
            Some((axis, stop))
        }
        _ => None,
    };
    let [q, k, v] = [numbers(&mut p, q, None)?, numbers(&mut p, k, used.as_ref())?, numbers(&mut p, v, used.as_ref())?];
    let y = if heads_first { how.over(&mut p, [q, k, v])? } else { attend(&mut p, &how, [&q, &k, &v])? };
    match y {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// The first positions of a cache from an encoder, `[batch, heads, positions, size]`. The operator declares no mutation, and what it returns is
/// all that programs use.
pub(super) fn update_cross(site: &mut Site<'_>) -> Result {
    let [value, cache] = ["value", "cache"].map(|n| site.arg(n).clone());
    let mut p = Pen(site);
    let (value_type, cache_type) = (p.ty(&value)?, p.ty(&cache)?);
    if value_type.dtype != cache_type.dtype || value_type.rank() != 4 || cache_type.rank() != 4 {
        return Ok(None);
    }
    let Some(stop) = value_type.shape.get(2).and_then(|n| p.0.size(n)) else { return Ok(None) };
    let y = p.call(op!("aten.slice_scatter.default"), vec![cache, value, Arg::Int(2), Arg::Int(0), stop, Arg::Int(1)])?;
    p.done(y)
}

/// The transform of Hadamard along the last axis, of a power of two, times `1/sqrt(n)`: sums and differences of halves, of halves of those, and so on.
pub(super) fn hadamard(site: &mut Site<'_>) -> Result {
    let Some(t) = site.operand(0).cloned() else { return Ok(None) };
    let Some((size, outer)) = t.shape.split_last() else { return Ok(None) };
    let Some(n) = size.as_int().filter(|&n| n > 0 && n & (n - 1) == 0) else { return Ok(None) };
    let rank = t.rank();
    let mut p = Pen(site);
    let mut x = p.wide(&p.0.nth(0).clone())?;
    let mut half = n / 2;
    while half > 0 {
        let split: Vec<Dim> = outer.iter().cloned().chain([n / (2 * half), 2, half].map(Dim::Int)).collect();
        let Some(pairs) = p.view(&x, &split)? else { return Ok(None) };
        let [a, b] = [(0, 1), (1, 2)].map(|(from, to)| p.slice(&pairs, rank, Arg::Int(from), Arg::Int(to)));
        let (a, b) = (a?, b?);
        let (sum, difference) = (p.add(&a, &b)?, p.sub(&a, &b)?);
        let both = p.call(op!("aten.cat.default"), vec![Arg::List(vec![sum, difference]), Arg::Int(rank as i64)])?;
        let Some(joined) = p.view(&both, &t.shape)? else { return Ok(None) };
        x = joined;
        half /= 2;
    }
    let y = p.mul(&x, 1.0 / (n as f64).sqrt())?;
    p.done(y)
}
