//! Weights that several methods share though each comes from a file of its own: only their bytes show it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use etx_ir::error::Error;
use etx_ir::weights::TensorData;

use super::rules::Format;

/// Bytes that are looked at before all of two weights are.
const HEAD: u64 = 4096;
/// Bytes that are compared at a time.
const PIECE: u64 = 1 << 20;

/// Weights by their type, shape, format and first bytes.
#[derive(Default)]
pub(super) struct Alike(BTreeMap<u64, Vec<usize>>);

/// What a weight has in common with all that are equal to it.
#[derive(Clone, Copy)]
pub(super) struct Head(Option<u64>);

impl Alike {
    /// Looks at the beginning of a weight.
    pub(super) fn head(data: &TensorData, format: Format) -> Head {
        let len = step(data, HEAD).min(data.byte_len());
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        // Bytes that cannot be read are told when the weight is quantised.
        let read = data.produce(0, &mut bytes).is_ok();
        let mut hasher = DefaultHasher::new();
        (data.dtype().name(), data.shape(), format.to_string(), bytes).hash(&mut hasher);
        Head(read.then(|| hasher.finish()))
    }

    /// The numbers of weights that may be equal to one with this head.
    pub(super) fn candidates(&self, head: Head) -> &[usize] {
        head.0.and_then(|head| self.0.get(&head)).map_or(&[], Vec::as_slice)
    }

    /// Notes a weight.
    pub(super) fn note(&mut self, head: Head, number: usize) {
        if let Some(head) = head.0 {
            self.0.entry(head).or_default().push(number);
        }
    }
}

/// Whether two weights of one type and shape have the same bytes; piece by piece, up to the first difference.
pub(super) fn equal(a: &TensorData, b: &TensorData) -> Result<bool, Error> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return Ok(false);
    }
    // Pieces that both can make, or all at once.
    let common = step(a, PIECE);
    let step = if common.is_multiple_of(b.granule().max(1)) { common } else { a.byte_len().max(1) };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < a.byte_len() {
        let len = step.min(a.byte_len() - at);
        for (data, piece) in [(a, &mut ours), (b, &mut theirs)] {
            piece.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
            data.produce(at, piece)?;
        }
        if ours != theirs {
            return Ok(false);
        }
        at += len;
    }
    Ok(true)
}

/// About so many bytes, in what the weight can make at a time.
fn step(data: &TensorData, bytes: u64) -> u64 {
    let granule = data.granule().max(1);
    bytes.div_ceil(granule).saturating_mul(granule)
}
