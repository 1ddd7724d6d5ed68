//! Scaled dot-product attention (mlx-ops.md §4).
//!
//! Keys and values are read where they lie (usually part of a cache). Queries are taken in blocks small enough that
//! their scores stay in cache; all query heads that share a key head are in one block.

use std::ops::Range;

use etx_ir::DType;
use rayon::prelude::*;

use super::dtype::{cast, dispatch, promote};
use super::lanes::Operand;
use super::matmul::{float, result_type};
use super::matrix::{FEW_ROWS, Held, Matrix, PARALLEL_WORK, Strided, product};
use super::simd::{Block, Float, multiply};
use super::vector;
use crate::error::{Error, Result};
use crate::tensor::{Bool, Tensor};

/// Rows of queries in a block.
const BLOCK: usize = 256;

/// Most keys: the scores of a block then take 4 GiB, as much as any tensor may.
const MAX_KEYS: usize = 1 << 22;

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
        Some(mask) if promote(mask.dtype(), dtype)? != dtype => {
            return Err(Error::dtype(format!(
                "Sdpa of {dtype} with a mask of {}: its type must promote to that of the result",
                mask.dtype()
            )));
        }
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
        if keys > MAX_KEYS {
            return Err(Error::limit(format!("Sdpa over {keys} keys is over the limit of {MAX_KEYS}")));
        }
        if fits { Ok(Sizes { batch, heads, kv_heads, queries, keys, width, value_width }) } else { Err(bad()) }
    }
}

/// A block of queries against one key head.
struct Task<'a, T> {
    queries: Range<usize>,
    /// Rows of the result: for each query head of the group, those of the queries.
    out: Vec<&'a mut [T]>,
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
    flags: Vec<Bool>,
    terms: Vec<f32>,
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
    let head = |(i, out): (usize, &mut [T])| -> Result<()> {
        let at = |x: &Tensor| x.select(0, i / sizes.kv_heads)?.select(0, i % sizes.kv_heads);
        let (k, v) = (at(k)?, at(v)?);
        let q = q.select(0, i / sizes.kv_heads)?.slice_axis(0, i % sizes.kv_heads * group, 1, group)?;
        let k = Strided::<K>::new(k.storage_elements(), k.offset(), (sizes.keys, k.strides()[0]), (sizes.width, k.strides()[1]));
        let v = Strided::<V>::new(v.storage_elements(), v.offset(), (sizes.value_width, v.strides()[1]), (sizes.keys, v.strides()[0]));
        let head = Head { sizes, first: i * group, q: &q, k: &k, v: &v, scale, mask };
        head.attend(out)
    };
    let per_head = group * sizes.queries * sizes.value_width;
    if sizes.heads * sizes.queries * sizes.keys * sizes.width >= PARALLEL_WORK {
        out.par_chunks_mut(per_head).enumerate().try_for_each(head)
    } else {
        out.chunks_mut(per_head).enumerate().try_for_each(head)
    }
}

/// One key head and the query heads that share it.
struct Head<'a> {
    sizes: &'a Sizes,
    /// Number of the first query head, over all batches.
    first: usize,
    /// `[group, queries, width]`.
    q: &'a Tensor,
    k: &'a dyn Matrix,
    v: &'a dyn Matrix,
    scale: f32,
    mask: &'a Mask<'a>,
}

impl Head<'_> {
    fn attend<T: Float>(&self, out: &mut [T]) -> Result<()> {
        let (sizes, group) = (self.sizes, self.q.shape()[0]);
        let block = (BLOCK / group).max(1);
        let mut rows: Vec<Option<&mut [T]>> = out.chunks_exact_mut(sizes.value_width).map(Some).collect();
        let mut tasks = Vec::new();
        for start in (0..sizes.queries).step_by(block) {
            let queries = start..(start + block).min(sizes.queries);
            let places = (0..group).flat_map(|g| queries.clone().map(move |query| g * sizes.queries + query));
            let out = places.filter_map(|at| rows[at].take()).collect();
            tasks.push(Task { queries, out });
        }
        // Many rows are worth keys and values as `f32`; few meet them as they are stored.
        let held = (group * sizes.queries > FEW_ROWS && sizes.keys > 0 && sizes.width > 0)
            .then(|| (Held::new(self.k, 0..sizes.keys, false), Held::new(self.v, 0..sizes.value_width, false)));
        let run = |scratch: &mut Scratch, task: Task<'_, T>| self.block(task, held.as_ref(), scratch);
        if tasks.len() > 1 && group * sizes.queries * sizes.keys * sizes.width >= PARALLEL_WORK {
            tasks.into_par_iter().try_for_each_init(Scratch::default, run)
        } else {
            let mut scratch = Scratch::default();
            tasks.into_iter().try_for_each(|task| run(&mut scratch, task))
        }
    }

    /// The keys that a causal query sees.
    fn seen(&self, query: usize) -> usize {
        (query + 1 + self.sizes.keys).saturating_sub(self.sizes.queries).min(self.sizes.keys)
    }

    fn block<T: Float>(&self, task: Task<'_, T>, held: Option<&(Held<'_>, Held<'_>)>, scratch: &mut Scratch) -> Result<()> {
        let (sizes, rows) = (self.sizes, task.out.len());
        // Keys that some query of the block sees, unless one sees none: it then takes the mean of all values.
        let keys = match self.mask {
            Mask::Causal if self.seen(task.queries.start) > 0 => self.seen(task.queries.end - 1),
            _ => sizes.keys,
        };
        let Scratch { queries, scores, sums, .. } = scratch;
        let empty = |buffer: &mut Vec<f32>, len: usize| {
            buffer.clear();
            buffer.resize(len, 0f32);
        };
        empty(queries, rows * sizes.width);
        empty(scores, rows * keys);
        empty(sums, rows * sizes.value_width);
        let part = self.q.slice_axis(1, task.queries.start, 1, task.queries.len())?;
        dispatch!(float, "Sdpa", part.dtype(), Q => {
            Q::widen_to(&part.values::<Q>()?, queries);
            Ok(())
        })?;
        queries.iter_mut().for_each(|q| *q *= self.scale);
        let nothing = |_: usize, _: usize, _: &mut [f32]| {};
        let q = Strided::<f32>::new(queries, 0, (rows, sizes.width as isize), (sizes.width, 1));
        match held {
            _ if keys == 0 => {}
            Some((k, _)) => {
                let q = Block { data: queries, row_step: sizes.width, col_step: 1 };
                multiply((rows, keys, sizes.width), scores, (keys, 1), q, k.turned(), false);
            }
            None => product(&q, self.k, scores.chunks_exact_mut(keys).collect(), &nothing),
        }
        for (row, scores) in scratch.scores.chunks_exact_mut(keys.max(1)).enumerate() {
            let (head, query) = (self.first + row / task.queries.len(), task.queries.start + row % task.queries.len());
            let start = (head * sizes.queries + query) * sizes.keys;
            self.apply(scores, start, self.seen(query), &mut scratch.flags, &mut scratch.terms);
            vector::softmax(scores);
        }
        let Scratch { scores, sums, .. } = scratch;
        if let Some((_, v)) = held {
            let p = Block { data: scores, row_step: keys, col_step: 1 };
            multiply((rows, sizes.value_width, keys), sums, (sizes.value_width, 1), p, v.turned(), false);
            for (out, sums) in task.out.into_iter().zip(sums.chunks_exact(sizes.value_width)) {
                T::round_to(sums, out);
            }
        } else {
            let p = Strided::<f32>::new(scores, 0, (rows, keys as isize), (keys, 1));
            product(&p, self.v, task.out, &nothing);
        }
        Ok(())
    }

    /// Masks one row of scores: `start` is its place in the mask, `seen` the number of keys a causal query sees.
    fn apply(&self, scores: &mut [f32], start: usize, seen: usize, flags: &mut Vec<Bool>, terms: &mut Vec<f32>) {
        match self.mask {
            Mask::None => {}
            // Not negative infinity: a row that sees nothing is the mean of all values, not NaN.
            Mask::Causal => scores[seen..].fill(f32::MIN),
            Mask::Keep(keep) => {
                flags.resize(scores.len(), Bool::default());
                let keep = keep.chunk(start, scores.len(), flags);
                for (score, keep) in scores.iter_mut().zip(keep) {
                    *score = if keep.get() { *score } else { f32::MIN };
                }
            }
            Mask::Add(add) => {
                terms.resize(scores.len(), 0f32);
                let add = add.chunk(start, scores.len(), terms);
                vector::add_scaled(scores, add, 1.0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
