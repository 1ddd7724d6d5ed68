//! Key/value caches that belong to the runtime: those of `UpdateAndAttend` (mlx-schema.md §8).

use std::collections::BTreeMap;

use etx_ir::DType;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// The positions that a cache has room for at first, unless the first call brings more.
const FIRST_CAPACITY: usize = 64;

/// Keys and values of one layer, `[batch, heads, capacity, width]`. The first call fixes everything but the capacity.
struct Layer<A> {
    keys: A,
    values: A,
    capacity: usize,
}

/// The caches of all layers, by layer number.
pub(crate) struct Caches<A> {
    layers: BTreeMap<i32, Layer<A>>,
    /// Element type of new caches; that of the first keys and values if not set.
    dtype: Option<DType>,
}

/// One step of attention over a cache.
pub(crate) struct Step<'a, A> {
    pub(crate) q: &'a A,
    pub(crate) k: &'a A,
    pub(crate) v: &'a A,
    /// Position of the first new token.
    pub(crate) position: i64,
    pub(crate) layer: i32,
    pub(crate) scale: f32,
    pub(crate) out_dtype: Option<DType>,
}

impl<A: Clone> Caches<A> {
    pub(crate) fn new() -> Self {
        Caches { layers: BTreeMap::new(), dtype: None }
    }

    /// Fixes the element type of caches, and forgets those there are.
    pub(crate) fn set_dtype(&mut self, dtype: Option<DType>) {
        self.dtype = dtype;
        self.clear();
    }

    /// Forgets everything, geometry included.
    pub(crate) fn clear(&mut self) {
        self.layers.clear();
    }

    /// Stores the new keys and values at `position`, then attends over all positions up to the last new one.
    pub(crate) fn update_and_attend<E: Engine<Array = A>>(&mut self, engine: &E, step: Step<'_, A>) -> Result<A> {
        let (k_shape, v_shape) = (engine.shape(step.k), engine.shape(step.v));
        let ([batch, heads, tokens, key_width], [_, _, v_tokens, value_width]) = (&k_shape[..], &v_shape[..]) else {
            return Err(Error::shape(format!("keys {k_shape:?} and values {v_shape:?} must have rank 4")));
        };
        if tokens != v_tokens || engine.shape(step.q).get(2) != Some(tokens) {
            return Err(Error::shape(format!("as many queries and values as keys are needed: {k_shape:?}, {v_shape:?}")));
        }
        if *batch != 1 || key_width != value_width {
            return Err(Error::shape(format!("the cache holds one sequence, keys and values of one width: {k_shape:?}, {v_shape:?}")));
        }
        let start = usize::try_from(step.position).map_err(|_| Error::range(format!("position {} is negative", step.position)))?;
        let end = start.checked_add(*tokens).ok_or_else(|| Error::limit("the position overflows"))?;

        let pool = |capacity: usize, width: usize, dtype| {
            engine.full(&[*batch, *heads, capacity, width].map(|n| i64::try_from(n).unwrap_or(i64::MAX)), 0.0, dtype)
        };
        let layer = match self.layers.entry(step.layer) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let capacity = end.max(FIRST_CAPACITY);
                let stored = |new: &A| self.dtype.unwrap_or_else(|| engine.dtype(new));
                entry.insert(Layer {
                    keys: pool(capacity, *key_width, stored(step.k))?,
                    values: pool(capacity, *value_width, stored(step.v))?,
                    capacity,
                })
            }
        };
        if end > layer.capacity {
            let capacity = end.max(layer.capacity.saturating_mul(2));
            let mut keys = pool(capacity, *key_width, engine.dtype(&layer.keys))?;
            let mut values = pool(capacity, *value_width, engine.dtype(&layer.values))?;
            let kept = (0, layer.capacity as i64);
            engine.slice_update(&mut keys, &layer.keys, 2, kept, 1)?;
            engine.slice_update(&mut values, &layer.values, 2, kept, 1)?;
            *layer = Layer { keys, values, capacity };
        }

        let (from, to) = (start as i64, end as i64);
        engine.slice_update(&mut layer.keys, step.k, 2, (from, to), 1)?;
        engine.slice_update(&mut layer.values, step.v, 2, (from, to), 1)?;
        let dtype = engine.dtype(step.q);
        let keys = engine.cast(&engine.slice(&layer.keys, 2, 0, to, 1)?, dtype)?;
        let values = engine.cast(&engine.slice(&layer.values, 2, 0, to, 1)?, dtype)?;
        // A single query is the last position and sees everything.
        let out = engine.sdpa(step.q, &keys, &values, step.scale, None, *tokens > 1)?;
        match step.out_dtype {
            Some(dtype) => engine.cast(&out, dtype),
            None => Ok(out),
        }
    }
}
