//! The bytes of a [`TensorData`] in order, in pieces, through a buffer of bounded size.

use std::os::unix::fs::FileExt;

use etx_ir::weights::TensorData;

use crate::error::{Error, Result};

/// Bytes moved at a time where they pass through a buffer. Small enough to stay in a second-level cache between being made
/// and being written.
pub(crate) const PIECE: u64 = 1 << 20;

/// How many bytes [`fill`] should be asked for at a time: about [`PIECE`], and what the recipe of `data` can make.
pub(crate) fn piece_len(data: &TensorData) -> u64 {
    let granule = data.granule().max(1);
    PIECE.max(granule) / granule * granule
}

/// Puts the bytes of `data` from `offset` on into `out`. Both `offset` and the length are multiples of the granule of `data`,
/// except that `out` may reach the end.
///
/// A file is read, not looked at through its mapping: a file that has shrunk meanwhile is then an error and not a signal,
/// and pages that are needed once do not fill the memory of this process.
pub(crate) fn fill(data: &TensorData, offset: u64, out: &mut [u8]) -> Result<()> {
    match data.file_range() {
        Some((file, start)) => file.read_exact_at(out, start.saturating_add(offset)).map_err(|e| {
            Error::io(format!("cannot read {} bytes of a weight at byte {} of its file", out.len(), start.saturating_add(offset)), e)
        }),
        None => Ok(data.produce(offset, out)?),
    }
}

/// Reads a tensor from front to end in blocks of any size.
pub(crate) struct Stream<'a> {
    data: &'a TensorData,
    /// Where the next piece begins.
    next: u64,
    piece: Vec<u8>,
    /// How much of the piece has been given out.
    used: usize,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(data: &'a TensorData) -> Self {
        Stream { data, next: 0, piece: Vec::new(), used: 0 }
    }

    /// Fills `out` with the next bytes; there must be that many left.
    pub(crate) fn read(&mut self, mut out: &mut [u8]) -> Result<()> {
        if self.data.granule() == 1 {
            fill(self.data, self.next, out)?;
            self.next += out.len() as u64;
            return Ok(());
        }
        while !out.is_empty() {
            if self.used == self.piece.len() {
                let left = self.data.byte_len().saturating_sub(self.next);
                // A short look at the start need not make a whole piece.
                let granule = self.data.granule();
                let wanted = (out.len() as u64).div_ceil(granule).saturating_mul(granule).min(piece_len(self.data).max(granule));
                self.piece.resize(wanted.min(left) as usize, 0);
                fill(self.data, self.next, &mut self.piece)?;
                self.next += self.piece.len() as u64;
                self.used = 0;
            }
            let rest = self.piece.get(self.used..).unwrap_or_default();
            let n = rest.len().min(out.len());
            if n == 0 {
                return Err(Error::new(crate::error::ErrorKind::Weights, "a weight is shorter than its description"));
            }
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(rest.get(..n).unwrap_or_default());
            self.used += n;
            out = later;
        }
        Ok(())
    }
}
