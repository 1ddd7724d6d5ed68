//! Writing: the layout first, then everything straight into its place, then the name.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rayon::prelude::*;

use super::layout::{Contents, Layout, Part, SharedBlob, Source, lay_out};
use super::stream::{fill, piece_len};
use crate::error::{Error, Result};
use crate::file::NewFile;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the program with its header.
    pub program_bytes: u64,
    /// Bytes of delegate payloads, each counted once.
    pub payload_bytes: u64,
    /// Bytes of tensors (named data, constants, initial state), each counted once.
    pub weight_bytes: u64,
    /// Blobs that needed no place because an equal one has one.
    pub shared_blobs: u64,
    /// Bytes saved by that.
    pub shared_bytes: u64,
    /// Named data among those blobs, in the order of their keys' first appearance.
    pub shared: Vec<SharedBlob>,
    /// Those of `weight_bytes` that were copied from a file as they are; the rest was in memory or was computed.
    pub copied_bytes: u64,
}

/// Writes a `.pte`. The same contents give the same bytes.
///
/// The file appears under its name only when it is complete: it is written under a temporary name in the same folder, then
/// renamed over whatever was there. On failure nothing is left behind. Weights are read, or computed, and written in
/// parallel and in pieces; memory in use does not depend on how large they are.
///
/// # Errors
/// * What [`PteFile::open`](super::PteFile::open) would reject is not written: all broken rules are reported together.
/// * [`Io`](crate::ErrorKind::Io) when the folder does not exist, cannot be written to, or the disk is full; also when `path` is
///   something else than a file.
/// * [`Weights`](crate::ErrorKind::Weights) when the bytes of a weight cannot be produced.
pub fn write(contents: &Contents, path: impl AsRef<Path>) -> Result<Stats> {
    write_watched(contents, path, &|_, _| {})
}

/// As [`write()`], saying how far it is: `progress` gets the bytes that a thread has just written and those of the whole file.
///
/// # Errors
/// As [`write()`].
pub fn write_watched(contents: &Contents, path: impl AsRef<Path>, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Stats> {
    let path = path.as_ref();
    let named = |e: Error| e.within(path.display().to_string());
    let layout = lay_out(contents).map_err(named)?;
    let file = NewFile::create(path)?;
    stream(&layout, file.file(), progress).map_err(named)?;
    file.complete()?;
    Ok(stats(layout))
}

/// Writes the same bytes from the first to the last, to what has no places to write at, such as a pipe.
///
/// # Errors
/// As [`write()`], but for names and folders; what is written by then stays.
pub fn write_to(contents: &Contents, out: &mut dyn Write, progress: &dyn Fn(u64, u64)) -> Result<Stats> {
    let layout = lay_out(contents)?;
    let failed = |e: io::Error| Error::io("cannot write", e);
    out.write_all(&layout.head).map_err(failed)?;
    let mut at = layout.head.len() as u64;
    let mut buffer = Vec::new();
    // Gaps are zeros, as they are in a file.
    let gap = |out: &mut dyn Write, from: u64, to: u64| io::copy(&mut io::repeat(0).take(to.saturating_sub(from)), out).map_err(failed);
    for part in &layout.parts {
        gap(out, at, part.offset)?;
        at = part.offset;
        let t = match part.source {
            Source::Bytes(bytes) => {
                out.write_all(bytes).map_err(failed)?;
                progress(bytes.len() as u64, layout.file_bytes);
                at += bytes.len() as u64;
                continue;
            }
            Source::Tensor(t) => t,
        };
        let mut done = 0;
        while done < t.byte_len() {
            let len = piece_len(t).min(t.byte_len() - done);
            buffer.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
            fill(t, done, &mut buffer).map_err(|e| e.within(part.name))?;
            out.write_all(&buffer).map_err(failed)?;
            progress(len, layout.file_bytes);
            done += len;
        }
        at += done;
    }
    gap(out, at, layout.file_bytes)?;
    out.flush().map_err(failed)?;
    Ok(stats(layout))
}

fn stats(layout: Layout<'_>) -> Stats {
    let copied = |part: &Part<'_>| match part.source {
        Source::Tensor(t) if t.file_range().is_some() => t.byte_len(),
        _ => 0,
    };
    Stats {
        file_bytes: layout.file_bytes,
        program_bytes: layout.head.len() as u64,
        payload_bytes: layout.payload_bytes,
        weight_bytes: layout.weight_bytes,
        shared_blobs: layout.shared_blobs,
        shared_bytes: layout.shared_bytes,
        copied_bytes: layout.parts.iter().map(copied).sum(),
        shared: layout.shared,
    }
}

/// Fills `file`, which is empty.
pub(super) fn stream(layout: &Layout<'_>, file: &File, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<()> {
    // Gaps are never written: they read as zeros.
    file.set_len(layout.file_bytes).map_err(|e| Error::io(format!("cannot make a file of {} bytes", layout.file_bytes), e))?;
    put(file, &layout.head, 0)?;
    let pieces: Vec<(u64, &Part<'_>)> = layout
        .parts
        .iter()
        .flat_map(|part| {
            let (len, step) = match part.source {
                Source::Bytes(b) => (b.len() as u64, b.len().max(1)),
                Source::Tensor(t) if t.file_range().is_some() => (t.byte_len(), KERNEL_PIECE),
                Source::Tensor(t) => (t.byte_len(), usize::try_from(piece_len(t)).unwrap_or(usize::MAX)),
            };
            (0..len).step_by(step).map(move |start| (start, part))
        })
        .collect();
    pieces.par_iter().try_for_each_init(Vec::new, |buffer: &mut Vec<u8>, &(start, part)| {
        let t = match part.source {
            Source::Bytes(bytes) => {
                put(file, bytes, part.offset + start)?;
                progress(bytes.len() as u64, layout.file_bytes);
                return Ok(());
            }
            Source::Tensor(t) => t,
        };
        let range = t.file_range();
        let end = t.byte_len().min(start + range.map_or(piece_len(t), |_| KERNEL_PIECE as u64));
        let mut at = start;
        if let Some((from, offset)) = range {
            at += copied_in_kernel(from, offset + start, file, part.offset + start, end - start);
        }
        // What the kernel did not copy goes through a buffer; if it cannot be copied at all, this says why.
        while at < end {
            let len = piece_len(t).min(end - at);
            buffer.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
            fill(t, at, buffer).map_err(|e| e.within(part.name))?;
            put(file, buffer, part.offset + at)?;
            at += len;
        }
        progress(end - start, layout.file_bytes);
        Ok(())
    })
}

/// Bytes that the kernel is asked to copy at a time: much, since they pass through no buffer of ours.
const KERNEL_PIECE: usize = 16 << 20;

/// Copies between files inside the kernel, as `cp` does; how many bytes it did.
#[cfg(target_os = "linux")]
fn copied_in_kernel(from: &File, mut at: u64, to: &File, mut into: u64, len: u64) -> u64 {
    let mut done = 0;
    while done < len {
        let left = usize::try_from(len - done).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut into), left) {
            // The end of the source, or file systems between which it cannot be done.
            Ok(0) | Err(_) => break,
            Ok(n) => done += n as u64,
        }
    }
    done
}

/// Elsewhere everything goes through a buffer.
#[cfg(not(target_os = "linux"))]
fn copied_in_kernel(_: &File, _: u64, _: &File, _: u64, _: u64) -> u64 {
    0
}

/// Writes at a place; the file's own position is not used, so threads may share the file.
fn put(file: &File, bytes: &[u8], at: u64) -> Result<()> {
    file.write_all_at(bytes, at).map_err(|e| Error::io(format!("cannot write {} bytes at {at}", bytes.len()), e))
}
