//! Operators of MLX's, ExecuTorch's and the runtime's own namespaces, as their eager definitions have them.

use super::call::{Call, Results, many, one};
use super::element::round;
use super::joins::cat_of;
use super::matrix::{Attention, attend, matmul_of};
use super::tensor::Tensor;
use super::{Error, bad, budget};
use crate::DType;

/// Writes new positions of the axis into a cache; with a ring those beyond its end go to its start.
fn update(cache: &Tensor, new: &Tensor, axis: usize, start: usize, ring: usize) -> Result<(), Error> {
    let n = new.size(axis);
    if ring == 0 {
        return cache.slice(axis, start, n, 1)?.write(new);
    }
    let at = start % ring;
    let first = n.min(ring - at);
    cache.slice(axis, at, first, 1)?.write(&new.slice(axis, 0, first, 1)?)?;
    cache.slice(axis, 0, n - first, 1)?.write(&new.slice(axis, first, n - first, 1)?)
}

/// `[batch, heads, positions, width]`
pub(super) fn kv_cache_update(c: &Call) -> Results {
    let (cache, new) = (c.tensor("cache")?, c.tensor("new_values")?);
    update(&cache, &new, 2, c.size("start_pos")?, c.size("ring_size")?)?;
    one(Tensor::full(new.dtype(), &[1], 0i64)?)
}

/// Attention to the part of a cache that is in use; causal attention counts positions from the end.
fn attend_cache(c: &Call, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, Error> {
    let start = c.size("start_pos")?;
    let n = start.saturating_add(q.size(2));
    let (k, v) = (k.slice(2, 0, n, 1)?, v.slice(2, 0, n, 1)?);
    let causal = c.flag("is_causal");
    let mask = if causal { None } else { c.maybe_tensor("attn_mask")? };
    attend(q, &k, &v, &Attention { mask, causal: causal.then_some(start as i64), scale: c.maybe_float("scale")?, dropout: 0.0 })
}

pub(super) fn custom_sdpa(c: &Call) -> Results {
    one(attend_cache(c, &c.tensor("query")?, &c.tensor("key")?, &c.tensor("value")?)?)
}

/// ExecuTorch's: with a mask, to all of the cache.
fn attend_llama(c: &Call, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, Error> {
    match c.maybe_tensor("attn_mask")? {
        None => attend_cache(c, q, k, v),
        Some(_) if c.flag("is_causal") => Err(bad("a mask and is_causal")),
        mask => attend(q, k, v, &Attention { mask, causal: None, scale: c.maybe_float("scale")?, dropout: 0.0 }),
    }
}

/// The same for `[batch, positions, heads, width]`.
pub(super) fn llama_sdpa(c: &Call) -> Results {
    let heads_first = |name: &str| c.tensor(name)?.transpose(1, 2);
    one(attend_llama(c, &heads_first("query")?, &heads_first("key")?, &heads_first("value")?)?.transpose(1, 2)?.copy()?)
}

/// The same over bytes, each line with a scale and a zero point.
pub(super) fn quantized_sdpa(c: &Call) -> Results {
    let turned = !c.flag("is_seq_at_dim_2");
    let numbers = |name: &str, letter: &str| {
        let codes = c.tensor(name)?;
        let of = |what: &str| Ok::<_, Error>(c.tensor(&format!("{letter}_{what}"))?.cast(DType::Float32)?.to::<f64>());
        let (zeros, scales, each) = (of("zero_points")?, of("scales")?, codes.shape().last().copied().unwrap_or(1).max(1));
        let at = |p: &[f64], i: usize| p.get(i / each).copied().unwrap_or(f64::NAN);
        let values = codes.to::<f64>().into_iter().enumerate().map(|(i, q)| (q - at(&zeros, i)) * at(&scales, i));
        let x = Tensor::of(DType::Float32, codes.shape(), values)?;
        if turned { x.transpose(1, 2) } else { Ok(x) }
    };
    let y = attend_llama(c, &numbers("query", "q")?, &numbers("key", "k")?, &numbers("value", "v")?)?;
    one(if turned { y.transpose(1, 2)?.copy()? } else { y })
}

/// The first positions of a cache, `[batch, heads, positions, width]`; a new cache.
pub(super) fn update_cross(c: &Call) -> Results {
    let cache = c.tensor("cache")?.copy()?;
    update(&cache, &c.tensor("value")?, 2, 0, 0)?;
    one(cache)
}

pub(super) fn update_cache(c: &Call) -> Results {
    let (value, cache) = (c.tensor("value")?, c.tensor("cache")?);
    update(&cache, &value, 1, c.size("start_pos")?, 0)?;
    one(Tensor::full(value.dtype(), &[1], 0i64)?)
}

/// The position of each row of the values is given.
pub(super) fn update_cache_with_indices(c: &Call) -> Results {
    let (value, cache, indices) = (c.tensor("value")?, c.tensor("cache")?, c.tensor("indices")?);
    for b in 0..value.size(0) {
        for (s, at) in indices.select(0, b)?.to::<i64>().into_iter().enumerate() {
            let at = usize::try_from(at).map_err(|_| bad(format!("position {at}")))?;
            cache.select(0, b)?.slice(0, at, 1, 1)?.write(&value.select(0, b)?.slice(0, s, 1, 1)?)?;
        }
    }
    one(Tensor::full(value.dtype(), &[1], 0i64)?)
}

pub(super) fn sdpa_with_kv_cache(c: &Call) -> Results {
    let (k, v) = (c.tensor("key_cache")?, c.tensor("value_cache")?);
    let start = c.size("start_pos")?;
    update(&k, &c.tensor("key")?, 1, start, 0)?;
    update(&v, &c.tensor("value")?, 1, start, 0)?;
    one(attend_llama(c, &c.tensor("query")?.transpose(1, 2)?, &k.transpose(1, 2)?, &v.transpose(1, 2)?)?.transpose(1, 2)?.copy()?)
}

/// Attention over a cache of the runtime's: new keys and values go to their position, and all up to there are attended to.
pub(super) fn update_and_attend(c: &Call) -> Results {
    let (q, k, v) = (c.tensor("q")?, c.tensor("k")?, c.tensor("v")?);
    let first = c.tensor("position")?.to::<i64>().first().copied().unwrap_or(0);
    let start = usize::try_from(first).map_err(|_| bad(format!("position {first}")))?;
    let layer = c.int("layer_id")?;
    let mut caches = c.session.caches.borrow_mut();
    let extended = |old: Option<&Tensor>, new: &Tensor| match old {
        None if start == 0 => new.cast(c.session.cache_type.get().unwrap_or(new.dtype())),
        Some(old) if old.size(2) >= start => cat_of(&[old.slice(2, 0, start, 1)?, new.cast(old.dtype())?], 2),
        _ => Err(bad(format!("position {start} comes after a gap"))),
    };
    let old = caches.get(&layer);
    let (keys, values) = (extended(old.map(|o| &o.0), &k)?, extended(old.map(|o| &o.1), &v)?);
    caches.insert(layer, (keys.clone(), values.clone()));
    let wide = if q.dtype() == DType::Float64 { q.dtype() } else { DType::Float32 };
    let how = Attention { mask: None, causal: Some(start as i64), scale: Some(c.float("scale")?), dropout: 0.0 };
    one(attend(&q.cast(wide)?, &keys.cast(wide)?, &values.cast(wide)?, &how)?.cast(c.dtype("out_dtype").unwrap_or(q.dtype()))?)
}

/// Rotates pairs of the first `dims` features by angles that grow with the position; pairs are neighbours if `traditional`, else
/// halves apart.
pub(super) fn rope(c: &Call) -> Results {
    let (x, dims, pos) = (c.tensor("x")?, c.size("dims")?, c.int("pos")?);
    let (traditional, base, scale) = (c.flag("traditional"), c.float("base")?, c.float("scale")?);
    let ([.., positions, width], half, d) = (x.shape(), dims / 2, x.dtype()) else { return Err(bad("no positions")) };
    if dims > *width {
        return Err(bad(format!("{dims} of {width} features")));
    }
    let f32 = |x: f64| round(DType::Float32, x);
    let freqs = c.maybe_tensor("freqs")?;
    let (table, given) = (freqs.as_ref().map_or(0, Tensor::rank), freqs.map(|f| f.to::<f64>()));
    let angle = |t: usize, i: usize| {
        let position = pos.wrapping_add(t as i64) as f64;
        match &given {
            // Angles of each position.
            Some(f) if table > 1 => f.get(t * half + i).copied().unwrap_or(f64::NAN),
            Some(f) => f32(f32(position * f32(1.0 / f.get(i).copied().unwrap_or(f64::NAN))) * scale),
            None => f32(f32(position * f32(base.powf(-2.0 * i as f64 / dims as f64))) * scale),
        }
    };
    let mut values = x.to::<f64>();
    for (line, row) in values.chunks_mut((*width).max(1)).enumerate() {
        let t = line % positions;
        for i in 0..half {
            let (a, b) = if traditional { (2 * i, 2 * i + 1) } else { (i, i + half) };
            let (sin, cos) = angle(t, i).sin_cos();
            let (sin, cos) = (round(d, f32(sin)), round(d, f32(cos)));
            if let Ok([x, y]) = row.get_disjoint_mut([a, b]) {
                (*x, *y) = (round(d, round(d, *x * cos) - round(d, *y * sin)), round(d, round(d, *x * sin) + round(d, *y * cos)));
            }
        }
    }
    one(Tensor::of(d, x.shape(), values)?)
}

/// Products with the matrices that indices choose.
pub(super) fn gather_mm(c: &Call) -> Results {
    let pick = |t: Tensor, name: &str| match c.maybe_tensor(name)? {
        Some(at) => super::indexing::take(&t, 0, &at),
        None => Ok(t),
    };
    one(matmul_of(&pick(c.tensor("a")?, "lhs_indices")?, &pick(c.tensor("b")?, "rhs_indices")?)?)
}

/// Rows that one matrix after the other multiplies, up to the row that `offs` says.
pub(super) fn grouped_mm(c: &Call) -> Results {
    let (a, b) = (c.first()?, c.operands()?[1].tensor()?);
    let Some(ends) = c.maybe_tensor("offs")? else { return one(matmul_of(&a, &b)?) };
    if a.rank() != 2 || b.rank() != 3 {
        return Err(bad("groups of columns"));
    }
    let ends = ends.to::<i64>();
    let group = |row: i64| ends.iter().filter(|end| **end <= row).count().min(ends.len().saturating_sub(1)) as i64;
    let rows = a.shape().first().copied().unwrap_or(0);
    let at = Tensor::of(DType::Int64, &[rows], (0..rows as i64).map(group))?;
    let row = a.reshape(&[rows, 1, a.shape().last().copied().unwrap_or(0)])?;
    let y = matmul_of(&row, &super::indexing::take(&b, 0, &at)?)?;
    one(y.reshape(&[rows, y.shape().last().copied().unwrap_or(0)])?)
}

/// The same with quantised matrices: codes of 8 bits, or of 4 in bytes, low half first, less 8.
pub(super) fn gather_qmm(c: &Call) -> Results {
    let (x, w, scales) = (c.tensor("x")?, c.tensor("w")?, c.tensor("scales")?);
    if c.text("mode") != Some("affine") {
        return Err(bad("only affine quantisation"));
    }
    let (d, group) = (x.dtype(), c.size("group_size")?.max(1));
    let codes = if w.dtype() == DType::UInt8 {
        let mut shape = w.shape().to_vec();
        if let Some(n) = shape.last_mut() {
            *n *= 2;
        }
        Tensor::of(d, &shape, w.bytes().into_iter().flat_map(|b| [f64::from(b & 15) - 8.0, f64::from(b >> 4) - 8.0]))?
    } else {
        w.cast(d)?
    };
    let biases = c.maybe_tensor("biases")?.map(|b| b.to::<f64>());
    let s = scales.to::<f64>();
    if s.len() * group != codes.numel() {
        return Err(bad(format!("{} scales for {} codes in groups of {group}", s.len(), codes.numel())));
    }
    let value = |(i, q): (usize, f64)| {
        let of = |p: &[f64]| p.get(i / group).copied().unwrap_or(f64::NAN);
        let product = round(d, q * of(&s));
        biases.as_ref().map_or(product, |b| product + of(b))
    };
    let mut dense = Tensor::of(d, codes.shape(), codes.to::<f64>().into_iter().enumerate().map(value))?;
    if let Some(at) = c.maybe_tensor("rhs_indices")? {
        dense = super::indexing::take(&dense, 0, &at)?;
    }
    if c.flag("transpose") {
        dense = dense.transpose(dense.nth_last(2)?, dense.nth_last(1)?)?;
    }
    let x = match c.maybe_tensor("lhs_indices")? {
        Some(at) => super::indexing::take(&x, 0, &at)?,
        None => x,
    };
    one(matmul_of(&x, &dense)?)
}

/// Every row once for each of its experts; many rows are sorted by expert.
pub(super) fn moe_gather(c: &Call) -> Results {
    let (x, experts, k) = (c.tensor("x")?, c.tensor("expert_indices")?, c.size("top_k")?);
    let flat = experts.reshape(&[experts.numel()])?;
    let n = flat.numel();
    let sorted = x.size(0) as i64 > c.int("sort_cutoff")?;
    let order = if sorted { super::order::order_of(&flat, 0, false, usize::MAX)? } else { Tensor::of(DType::Int64, &[n], 0..n as i64)? };
    let inverse = super::order::order_of(&order, 0, false, usize::MAX)?;
    let rows = super::pointwise::map(&order, DType::Int64, |i: i64| i / (k.max(1) as i64))?;
    many([
        super::indexing::take(&x, 0, &rows)?.unsqueeze(1)?,
        super::indexing::take(&flat, 0, &order)?.cast(DType::Int32)?,
        Tensor::scalar(DType::Int32, sorted)?,
        inverse.cast(DType::Int32)?,
    ])
}

/// The rows of all experts back where they came from.
pub(super) fn moe_scatter(c: &Call) -> Results {
    let (down, k) = (c.tensor("down")?, c.size("top_k")?.max(1));
    let mut rows = down.squeeze(down.nth_last(2)?)?;
    if c.tensor("sort_experts")?.item::<bool>()? {
        rows = super::indexing::take(&rows, 0, &c.tensor("inv_order")?)?;
    }
    let (n, width) = (rows.size(0), rows.numel() / rows.size(0).max(1));
    one(rows.reshape(&[n / k, k, width])?.copy()?)
}

/// The recurrence of a gated delta rule, step by step; every operation rounds. The decay is one number a step and head, or one for each
/// key.
fn delta_rule(q: &Tensor, k: &Tensor, v: &Tensor, decay: &Tensor, beta: &Tensor, state: &Tensor) -> Result<(Tensor, Tensor), Error> {
    let ([batch, steps, key_heads, key_width], [.., heads, width]) = (q.shape(), v.shape()) else { return Err(bad("ranks")) };
    if *key_heads == 0 || heads % key_heads != 0 {
        return Err(bad(format!("{heads} heads of values, {key_heads} of keys")));
    }
    let d = super::call::promoted(&[state.clone().into(), v.clone().into()])?;
    let r = |x: f64| round(d, x);
    budget::work(batch.saturating_mul(*steps).saturating_mul(*heads), width.saturating_mul(*key_width))?;
    let (q, k, v, g, b) = (q.to::<f64>(), k.to::<f64>(), v.to::<f64>(), decay.to::<f64>(), beta.to::<f64>());
    let mut s = state.to::<f64>();
    let mut out = vec![0.0; v.len()];
    for (n, t) in (0..*batch).flat_map(|n| (0..*steps).map(move |t| (n, t))) {
        for h in 0..*heads {
            let row = (n * steps + t) * heads + h;
            let key = ((n * steps + t) * key_heads + h / (heads / key_heads)) * key_width;
            let at = |of: &[f64], i: usize| of.get(i).copied().unwrap_or(f64::NAN);
            for j in 0..*width {
                let Some(line) = s.get_mut(((n * heads + h) * width + j) * key_width..((n * heads + h) * width + j + 1) * key_width) else {
                    return Err(bad("a state of another shape"));
                };
                let mut memory = 0.0;
                for (i, x) in line.iter_mut().enumerate() {
                    *x = r(*x * at(&g, if decay.rank() == 4 { row * key_width + i } else { row }));
                    memory += r(*x * at(&k, key + i));
                }
                let delta = r(r(at(&v, row * width + j) - r(memory)) * at(&b, row));
                let mut sum = 0.0;
                for (i, x) in line.iter_mut().enumerate() {
                    *x = r(*x + r(at(&k, key + i) * delta));
                    sum += r(*x * at(&q, key + i));
                }
                if let Some(o) = out.get_mut(row * width + j) {
                    *o = sum;
                }
            }
        }
    }
    Ok((Tensor::of(d, &[*batch, *steps, *heads, *width], out)?, Tensor::of(d, state.shape(), s)?))
}

pub(super) fn gated_delta_rule(c: &Call) -> Results {
    let state = c.tensor("state")?;
    let (out, new) = delta_rule(&c.tensor("q")?, &c.tensor("k")?, &c.tensor("v")?, &c.tensor("g")?, &c.tensor("beta")?, &state)?;
    state.write(&new)?;
    one(out.cast(c.tensor("v")?.dtype())?)
}

/// The same with heads before steps, `[keys, values]` as state, which is not written to, and several heads of queries to each state.
pub(super) fn llama_delta_rule(c: &Call) -> Results {
    let part = |name| c.tensor(name)?.transpose(1, 2);
    let (q, state) = (part("query")?, c.tensor("initial_state")?.transpose(2, 3)?);
    let each = q.size(2) / state.size(1).max(1);
    // Each head as often as there are heads of queries to it.
    let spread = |t: Tensor, axis: usize| {
        let mut shape = t.shape().to_vec();
        shape.insert((axis + 1).min(shape.len()), each);
        let wide = t.unsqueeze(axis + 1)?.expand(&shape)?;
        wide.merge(axis, axis + 2)
    };
    let of = |name| spread(part(name)?, 2);
    let (out, new) = delta_rule(&q, &of("key")?, &of("value")?, &of("decay")?, &of("beta")?, &spread(state, 1)?)?;
    let heads = new.size(1) / each.max(1);
    many([out.transpose(1, 2)?.copy()?, new.slice(1, 0, heads, each)?.transpose(2, 3)?.copy()?])
}

/// The most by which the noise of a draw can favour one token over another: that of a uniform number `u` of 32 bits or fewer is
/// `-log(-log u)`.
const MOST_NOISE: f64 = 20.0;

/// One token a row: the likeliest, or by chance one of those that noise can bring to the top. Only where there is no choice is there an
/// answer; keeping the most likely tokens alone never leaves out the first.
pub(super) fn sample(c: &Call) -> Results {
    let logits = c.tensor("logits")?;
    let (axis, temperature) = (logits.rank().saturating_sub(1), c.float("temperature")?);
    let order = super::order::order_of(&logits, axis, true, 2)?;
    let best = super::indexing::gather_along(&logits, axis, &order)?.to::<f64>();
    let settled = |pair: &[f64]| matches!(pair, [a, b] if (a - b) / temperature > MOST_NOISE);
    if temperature > 0.0 && logits.size(axis) > 1 && !best.chunks(2).all(settled) {
        return super::create::random(c);
    }
    one(order.slice(axis, 0, 1, 1)?.squeeze(axis)?.copy()?)
}

/// The norm of each line.
pub(super) fn row_norm(c: &Call) -> Results {
    let t = c.tensor("x")?;
    one(super::reduce::fold(&t, &[t.nth_last(1)?], true, t.dtype(), |x: &[f64]| super::reduce::norm_of(x, 2.0))?)
}

/// Which of 16 ranges each value falls into, two to a byte, the first in the high half.
pub(super) fn compress(c: &Call) -> Results {
    let (t, bounds) = (c.tensor("values")?, c.tensor("boundaries")?.to::<f64>());
    let codes: Vec<u8> = t.to::<f64>().into_iter().map(|x| bounds.iter().filter(|b| x > **b).count() as u8).collect();
    let mut shape = t.shape().to_vec();
    let n = shape.last_mut().filter(|n| **n % 2 == 0).ok_or_else(|| bad("an odd number of values"))?;
    *n /= 2;
    one(Tensor::of(DType::UInt8, &shape, codes.chunks(2).map(|p| p.iter().fold(0i64, |b, x| b << 4 | i64::from(*x))))?)
}

/// The other way: a value for each code, times the norm of the line.
pub(super) fn decompress(c: &Call) -> Results {
    let (t, norms, values) = (c.tensor("packed")?, c.tensor("norms")?, c.tensor("centroids")?.to::<f64>());
    let mut shape = t.shape().to_vec();
    if let Some(n) = shape.last_mut() {
        *n *= 2;
    }
    let of = |code: u8| values.get(usize::from(code)).copied().unwrap_or(f64::NAN);
    let codes = Tensor::of(norms.dtype(), &shape, t.bytes().into_iter().flat_map(|b| [of(b >> 4), of(b & 15)]))?;
    one(super::arithmetic::product([codes.into(), norms.into()])?)
}

/// The fast transform by Hadamard's matrix of a power of two, scaled to keep norms.
pub(super) fn hadamard(c: &Call) -> Results {
    let t = c.first()?;
    let n = t.shape().last().copied().unwrap_or(1);
    if !n.is_power_of_two() {
        return Err(bad(format!("lines of {n}")));
    }
    budget::work(t.numel(), n)?;
    let by = 1.0 / (n as f64).sqrt();
    one(super::order::lines(&t, t.nth_last(1)?, t.dtype(), |x: &[f64]| {
        let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        (0..n).map(|i| by * x.iter().enumerate().map(|(j, x)| sign(i, j) * x).sum::<f64>()).collect()
    })?)
}
