//! Scaled dot-product attention (mlx-ops.md §4).
//!
//! Keys and values are read where they lie (usually part of a cache). Queries are taken in blocks small enough that
//! their scores stay in cache; all query heads that share a key head are in one block.

use std::ops::Range;

use etx_ir::DType;
use rayon::prelude::*;

use super::dtype::{cast, dispatch};
use super::lanes::Operand;
use super::matmul::{float, result_type};
use super::matrix::{Matrix, Strided, product};
use super::simd::Float;
use super::vector;
use crate::error::{Error, Result};
use crate::tensor::{Bool, Tensor};

/// Rows of queries in a block.
const BLOCK: usize = 128;

/// What is done to a row of scores before the softmax.
enum Mask<'a> {
    None,
    /// Query `i` sees keys `0..=i + keys - queries`.
    Causal,
    /// Scores stay where true.
    Keep(Operand<'a, Bool>),
    /// Added to the scores.
    Add(Operand<'a, f32>),
}

/// `softmax(scale·q·kᵀ + mask)·v` for `q` `[batch, heads, queries, width]`, `k` and `v` `[batch, kv heads, keys, …]`,
/// where each key head serves `heads / kv heads` query heads in a row. Everything is `f32` until the result is rounded.
pub(crate) fn sdpa(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, mask: Option<&Tensor>, causal: bool) -> Result<Tensor> {
    let dtype = result_type("Sdpa", [q, k, v])?;
    let (q, k, v) = (&float(q, dtype)?, &float(k, dtype)?, &float(v, dtype)?);
    let sizes = Sizes::new(q, k, v)?;
    let scores = [sizes.batch, sizes.heads, sizes.queries, sizes.keys];
    let holder;
    let mask = match mask {
        Some(_) if causal => return Err(Error::unsupported("Sdpa takes a mask or is causal, not both")),
        None if causal => Mask::Causal,
        None => Mask::None,
        Some(mask) if mask.rank() > 4 => return Err(Error::shape(format!("Sdpa with a mask of shape {:?}", mask.shape()))),
        Some(mask) if mask.dtype() == DType::Bool => Mask::Keep(Operand::new(mask, &scores)?),
        Some(mask) => {
            holder = cast(&cast(mask, q.dtype())?, DType::Float32)?;
            Mask::Add(Operand::new(&holder, &scores)?)
        }
    };
    dispatch!(float, "Sdpa", dtype, T => dispatch!(float, "Sdpa", k.dtype(), K => dispatch!(float, "Sdpa", v.dtype(), V => {
        let shape = [sizes.batch, sizes.heads, sizes.queries, sizes.value_width];
        Tensor::build::<T>(&shape, |out| attend::<T, K, V>(&sizes, (q, k, v), scale, &mask, out))
    })))
}

struct Sizes {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    width: usize,
    value_width: usize,
}

impl Sizes {
    fn new(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Self> {
        let bad = || Error::shape(format!("Sdpa of q {:?}, k {:?}, v {:?}", q.shape(), k.shape(), v.shape()));
        let (&[batch, heads, queries, width], &[k_batch, kv_heads, keys, k_width]) = (q.shape(), k.shape()) else {
            return Err(bad());
        };
        let &[v_batch, v_heads, v_keys, value_width] = v.shape() else {
            return Err(bad());
        };
        let fits = batch == k_batch
            && batch == v_batch
            && kv_heads == v_heads
            && keys == v_keys
            && width == k_width
            && (kv_heads > 0 && heads % kv_heads == 0 || heads == 0);
        if fits { Ok(Sizes { batch, heads, kv_heads, queries, keys, width, value_width }) } else { Err(bad()) }
    }
}

/// A block of queries against one key head.
struct Task<'a, T> {
    batch: usize,
    kv_head: usize,
    queries: Range<usize>,
    /// Rows of the result: for each query head of the group, those of the queries.
    out: Vec<&'a mut [T]>,
}

fn attend<T: Float, K: Float, V: Float>(
    sizes: &Sizes,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    scale: f32,
    mask: &Mask<'_>,
    out: &mut [T],
) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let group = sizes.heads / sizes.kv_heads;
    let block = (BLOCK / group).max(1);
    let mut rows: Vec<Option<&mut [T]>> = out.chunks_exact_mut(sizes.value_width).map(Some).collect();
    let mut tasks = Vec::new();
    for (i, rows) in rows.chunks_exact_mut(group * sizes.queries).enumerate() {
        for start in (0..sizes.queries).step_by(block) {
            let queries = start..(start + block).min(sizes.queries);
            let places = (0..group).flat_map(|g| queries.clone().map(move |query| g * sizes.queries + query));
            let out = places.filter_map(|at| rows[at].take()).collect();
            tasks.push(Task { batch: i / sizes.kv_heads, kv_head: i % sizes.kv_heads, queries, out });
        }
    }
    let run = |scratch: &mut (Vec<f32>, Vec<f32>), task| block_of::<T, K, V>(sizes, (q, k, v), scale, mask, task, scratch);
    if tasks.len() > 1 && sizes.heads * sizes.queries * sizes.keys * sizes.width >= 1 << 15 {
        tasks.into_par_iter().try_for_each_init(<(Vec<f32>, Vec<f32>)>::default, run)
    } else {
        let mut scratch = (Vec::new(), Vec::new());
        tasks.into_iter().try_for_each(|task| run(&mut scratch, task))
    }
}

fn block_of<T: Float, K: Float, V: Float>(
    sizes: &Sizes,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    scale: f32,
    mask: &Mask<'_>,
    task: Task<'_, T>,
    (queries, scores): &mut (Vec<f32>, Vec<f32>),
) -> Result<()> {
    let group = sizes.heads / sizes.kv_heads;
    let (rows, first_head) = (task.out.len(), task.kv_head * group);
    // Keys that some query of the block sees, unless one sees none: it then takes the mean of all values.
    let seen = |query: usize| (query + 1 + sizes.keys).saturating_sub(sizes.queries).min(sizes.keys);
    let keys = match mask {
        Mask::Causal if seen(task.queries.start) > 0 => seen(task.queries.end - 1),
        _ => sizes.keys,
    };
    queries.clear();
    queries.resize(rows * sizes.width, 0f32);
    let heads = q.select(0, task.batch)?.slice_axis(0, first_head, 1, group)?.slice_axis(1, task.queries.start, 1, task.queries.len())?;
    dispatch!(float, "Sdpa", q.dtype(), Q => {
        Q::widen_to(&heads.values::<Q>()?, queries);
        Ok(())
    })?;
    queries.iter_mut().for_each(|q| *q *= scale);
    scores.clear();
    scores.resize(rows * keys, 0f32);

    let head = |x: &Tensor| x.select(0, task.batch)?.select(0, task.kv_head)?.slice_axis(0, 0, 1, keys);
    let (k, v) = (head(k)?, head(v)?);
    let dense = |data, rows, cols: usize| Strided::<f32>::new(data, 0, (rows, cols as isize), (cols, 1));
    let k = Strided::<K>::new(k.storage_elements(), k.offset(), (keys, k.strides()[0]), (sizes.width, k.strides()[1]));
    let v = Strided::<V>::new(v.storage_elements(), v.offset(), (sizes.value_width, v.strides()[1]), (keys, v.strides()[0]));
    let nothing = |_: usize, _: usize, _: &mut [f32]| {};
    if keys > 0 {
        let q = dense(queries, rows, sizes.width);
        product(&q as &dyn Matrix, &k, scores.chunks_exact_mut(keys).collect(), &nothing);
        let mut buffers = (Vec::new(), Vec::new());
        for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
            let (head, query) = (first_head + row / task.queries.len(), task.queries.start + row % task.queries.len());
            let start = ((task.batch * sizes.heads + head) * sizes.queries + query) * sizes.keys;
            apply(mask, scores, start, seen(query), &mut buffers);
            vector::softmax(scores);
        }
    }
    product(&dense(scores, rows, keys) as &dyn Matrix, &v, task.out, &nothing);
    Ok(())
}

/// Masks one row of scores: `start` is its place in the mask, `seen` the number of keys a causal query sees.
fn apply(mask: &Mask<'_>, scores: &mut [f32], start: usize, seen: usize, (flags, terms): &mut (Vec<Bool>, Vec<f32>)) {
    match mask {
        Mask::None => {}
        // Not negative infinity: a row that sees nothing is the mean of all values, not NaN.
        Mask::Causal => scores[seen..].fill(f32::MIN),
        Mask::Keep(keep) => {
            flags.resize(scores.len(), Bool::default());
            for (score, keep) in scores.iter_mut().zip(keep.chunk(start, flags.len(), flags)) {
                *score = if keep.get() { *score } else { f32::MIN };
            }
        }
        Mask::Add(terms_of) => {
            terms.resize(scores.len(), 0f32);
            vector::add_scaled(scores, terms_of.chunk(start, terms.len(), terms), 1.0);
        }
    }
}

#[cfg(test)]
mod tests;
