//! Where everything goes, decided before a byte is written: segments, offsets, the program, the header.
//!
//! The rules are those of `pte-format.md` §1: segment 0 holds the constants of graphs and is there even if empty, then the
//! initial state if any, then one segment for each distinct delegate payload in the order of the plans, then one for each
//! distinct named blob in the order of the first key that uses it. Segments begin at multiples of [`SEGMENT_ALIGNMENT`]
//! (and of what a blob asks for) from the start of the segment area; gaps are zero; nothing is padded at the end.

use std::collections::BTreeMap;

use etx_ir::weights::TensorData;

use super::check::{MAX_TABLES, check};
use super::codec::encode;
use super::model::{BackendDelegateDataReference, DataLocation, DataSegment, ExecutionPlan, NamedData, Program, SubsegmentOffsets};
use super::read::{HEADER_LEN, HEADER_MAGIC, HEADER_START, IDENTIFIER, SHORTEST_FILE, parse};
use super::share::{Shared, share};
use crate::error::{Error, ErrorKind, Result};
use crate::window::Window;

/// Segments begin at multiples of this many bytes.
pub const SEGMENT_ALIGNMENT: u64 = 128;
/// Constants of graphs begin at multiples of this many bytes in their segment.
pub const CONSTANT_ALIGNMENT: u64 = 16;

/// What a `.pte` shall contain.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The methods.
    ///
    /// Of each delegate, [`processed`](super::model::BackendDelegate::processed) has as `index` the payload's place in
    /// `payloads`; the writer puts the segment there. A tensor's
    /// [`data_buffer_idx`](super::model::Tensor::data_buffer_idx) *n* > 0 means `constants[n - 1]`, or
    /// `initial_state[n - 1]` if the tensor is planned.
    pub plans: Vec<ExecutionPlan>,
    /// What delegates get, referred to by number; equal ones are written once.
    pub payloads: Vec<Vec<u8>>,
    /// Constants of graphs.
    pub constants: Vec<TensorData>,
    /// Initial values of planned tensors.
    pub initial_state: Vec<TensorData>,
    /// What delegates ask for by key. Equal blobs are written once, the same key and blob may occur again.
    pub named_data: Vec<NamedBlob>,
}

/// A blob that is found by its key.
#[derive(Clone, Debug)]
pub struct NamedBlob {
    /// The key.
    pub key: String,
    /// The blob.
    pub data: TensorData,
    /// Multiple of bytes at which it shall begin, counted from the start of the segment area; 1 if it does not matter.
    pub alignment: u32,
}

/// Something to be written at a place.
pub(crate) struct Part<'a> {
    /// From the start of the file.
    pub(crate) offset: u64,
    pub(crate) source: Source<'a>,
    /// What it is, for messages.
    pub(crate) name: &'a str,
}

pub(crate) enum Source<'a> {
    Bytes(&'a [u8]),
    Tensor(&'a TensorData),
}

/// A file, planned.
pub(crate) struct Layout<'a> {
    /// The beginning of the file: program and header.
    pub(crate) head: Vec<u8>,
    /// Everything behind it, in order.
    pub(crate) parts: Vec<Part<'a>>,
    /// Bytes of the whole file.
    pub(crate) file_bytes: u64,
    /// Bytes of delegate payloads, each counted once.
    pub(crate) payload_bytes: u64,
    /// Bytes of tensors, each counted once.
    pub(crate) weight_bytes: u64,
    /// Blobs that were not written because equal ones are.
    pub(crate) shared_blobs: u64,
    /// Bytes of those.
    pub(crate) shared_bytes: u64,
    /// Named data among them.
    pub(crate) shared: Vec<SharedBlob>,
}

/// Named data whose bytes stand under another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedBlob {
    /// Its key.
    pub key: String,
    /// The key of the first one with the same bytes.
    pub same_as: String,
    /// How many bytes it needed no room for.
    pub bytes: u64,
    /// Whether only the bytes show it: the exporter stored them twice.
    pub by_content: bool,
}

/// Lays a file out.
///
/// # Errors
/// When the contents break a rule of the format (all that do, together), or are too large for it.
pub(crate) fn lay_out(contents: &Contents) -> Result<Layout<'_>> {
    let mut area = Area::default();
    let constants = area.back_to_back(&contents.constants, CONSTANT_ALIGNMENT)?;
    let state = match contents.initial_state.as_slice() {
        [] => Vec::new(),
        // Upstream does not align these either.
        tensors => vec![area.back_to_back(tensors, 1)?],
    };
    let execution_plan = area.payloads(contents)?;
    let named_data = area.named_data(&contents.named_data)?;
    let program = Program {
        version: 0,
        execution_plan,
        constant_buffer: Vec::new(),
        backend_delegate_data: Vec::new(),
        segments: area.segments,
        constant_segment: constants,
        mutable_data_segments: state,
        named_data,
    };
    check(&program, area.end, &|_| None)?;

    let (bytes, tables) = encode(&program, IDENTIFIER)?;
    if tables > MAX_TABLES {
        let text = format!("the program has {tables} tables; ExecuTorch's tools refuse more than {MAX_TABLES}");
        return Err(Error::new(ErrorKind::Limit, text));
    }
    let (head, base) = if area.end == 0 { (bytes.clone(), 0) } else { with_header(&bytes, area.end)? };
    let mut parts = area.parts;
    for part in &mut parts {
        part.offset = add(part.offset, base)?;
    }
    let file_bytes = if area.end == 0 { (head.len() as u64).max(SHORTEST_FILE) } else { add(base, area.end)? };
    if cfg!(debug_assertions) {
        let mut start = head.clone();
        start.resize(start.len().max(SHORTEST_FILE as usize), 0);
        let (_, again) = parse(Window::new(&start), file_bytes)?;
        // Compared as bytes: a NaN differs from itself.
        assert!(encode(&again, IDENTIFIER)?.0 == bytes, "the program reads back differently from what was written");
    }
    Ok(Layout {
        head,
        parts,
        file_bytes,
        payload_bytes: area.payload_bytes,
        weight_bytes: area.weight_bytes,
        shared_blobs: area.shared_blobs,
        shared_bytes: area.shared_bytes,
        shared: area.shared,
    })
}

/// The program with the extended header put in, and where its segments begin.
fn with_header(program: &[u8], area: u64) -> Result<(Vec<u8>, u64)> {
    let too_short = || Error::new(ErrorKind::Malformed, "the encoded program has no head");
    let (start, rest) = program.split_at_checked(HEADER_START as usize).ok_or_else(too_short)?;
    let (root, identifier) = start.split_first_chunk().ok_or_else(too_short)?;
    // All other offsets are relative. The header's length is a multiple of 8, so alignments stay.
    let root = u32::from_le_bytes(*root) + HEADER_LEN;
    let size = program.len() as u64 + u64::from(HEADER_LEN);
    let base = align(size, SEGMENT_ALIGNMENT)?;
    let mut out = Vec::with_capacity(size as usize);
    out.extend(root.to_le_bytes());
    out.extend(identifier);
    out.extend(HEADER_MAGIC);
    out.extend(HEADER_LEN.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(base.to_le_bytes());
    out.extend(area.to_le_bytes());
    out.extend(rest);
    Ok((out, base))
}

fn too_large() -> Error {
    Error::new(ErrorKind::Limit, "the file would have more than 2^64 bytes")
}

fn add(a: u64, b: u64) -> Result<u64> {
    a.checked_add(b).ok_or_else(too_large)
}

fn align(offset: u64, to: u64) -> Result<u64> {
    offset.checked_next_multiple_of(to).ok_or_else(too_large)
}

/// The segment area as it grows.
#[derive(Default)]
struct Area<'a> {
    segments: Vec<DataSegment>,
    /// With offsets from the start of the area.
    parts: Vec<Part<'a>>,
    end: u64,
    payload_bytes: u64,
    weight_bytes: u64,
    shared_blobs: u64,
    shared_bytes: u64,
    shared: Vec<SharedBlob>,
}

impl<'a> Area<'a> {
    /// Where a segment that asks for `alignment` would begin.
    fn start(&self, alignment: u64) -> Result<u64> {
        align(self.end, lcm(SEGMENT_ALIGNMENT, alignment)?)
    }

    /// Ends the segment that began at `offset` and has `size` bytes; its number.
    fn close(&mut self, offset: u64, size: u64) -> Result<u32> {
        let number = u32::try_from(self.segments.len()).map_err(|_| too_large())?;
        self.segments.push(DataSegment { offset, size });
        self.end = add(offset, size)?;
        Ok(number)
    }

    fn tensor(&mut self, offset: u64, data: &'a TensorData, name: &'a str) {
        self.weight_bytes += data.byte_len();
        if data.byte_len() > 0 {
            self.parts.push(Part { offset, source: Source::Tensor(data), name });
        }
    }

    fn was_shared(&mut self, data: &TensorData) {
        self.shared_blobs += 1;
        self.shared_bytes += data.byte_len();
    }

    /// One segment of tensors in order; its offsets begin with the placeholder for "none".
    fn back_to_back(&mut self, tensors: &'a [TensorData], alignment: u64) -> Result<SubsegmentOffsets> {
        let refs: Vec<&TensorData> = tensors.iter().collect();
        let start = self.start(1)?;
        let mut size = 0;
        let mut placed = BTreeMap::new();
        let mut offsets = vec![0];
        for (i, (Shared { first, .. }, &data)) in
            share(&refs, &|i| format!("tensor {i} of the program"))?.into_iter().zip(&refs).enumerate()
        {
            let at = match placed.get(&first) {
                Some(&at) => {
                    self.was_shared(data);
                    at
                }
                None => {
                    let at = align(size, alignment)?;
                    placed.insert(i, at);
                    self.tensor(add(start, at)?, data, "a tensor of the program");
                    size = add(at, data.byte_len())?;
                    at
                }
            };
            offsets.push(at);
        }
        Ok(SubsegmentOffsets { segment_index: self.close(start, size)?, offsets })
    }

    /// One segment for each distinct payload in use; the plans with the segments' numbers in them.
    fn payloads(&mut self, contents: &'a Contents) -> Result<Vec<ExecutionPlan>> {
        let mut plans = contents.plans.clone();
        let mut segment_of = BTreeMap::new();
        for plan in &mut plans {
            let name = &plan.name;
            for (i, delegate) in plan.delegates.iter_mut().enumerate() {
                let index = delegate.processed.index;
                let wrong = |kind, text: String| Error::new(kind, text).within(format!("method `{name}`: delegate {i}"));
                let Some(payload) = contents.payloads.get(index as usize) else {
                    let text = format!("payload {index} of {}", contents.payloads.len());
                    return Err(wrong(ErrorKind::OutOfRange, text));
                };
                if payload.is_empty() {
                    return Err(wrong(ErrorKind::Missing, "the payload is empty".to_owned()));
                }
                let number = match segment_of.get(payload) {
                    Some(&number) => number,
                    None => {
                        let start = self.start(1)?;
                        self.parts.push(Part { offset: start, source: Source::Bytes(payload), name: "a payload" });
                        self.payload_bytes += payload.len() as u64;
                        let number = self.close(start, payload.len() as u64)?;
                        segment_of.insert(payload, number);
                        number
                    }
                };
                delegate.processed = BackendDelegateDataReference { location: DataLocation::Segment, index: number };
            }
        }
        Ok(plans)
    }

    fn named_data(&mut self, blobs: &'a [NamedBlob]) -> Result<Vec<NamedData>> {
        let refs: Vec<&TensorData> = blobs.iter().map(|b| &b.data).collect();
        let mut segment_of = BTreeMap::new();
        let mut keys: BTreeMap<&str, usize> = BTreeMap::new();
        let mut entries = Vec::new();
        for (i, (Shared { first, by_content }, blob)) in
            share(&refs, &|i| blobs.get(i).map_or_else(String::new, |b| b.key.clone()))?.into_iter().zip(blobs).enumerate()
        {
            if let Some(&known) = keys.get(blob.key.as_str()) {
                if known == first {
                    continue;
                }
                let text = format!("two different blobs for the key `{}`", blob.key);
                return Err(Error::new(ErrorKind::Duplicate, text));
            }
            keys.insert(&blob.key, first);
            let segment_index = match segment_of.get(&first) {
                Some(&number) => {
                    self.was_shared(&blob.data);
                    self.shared.push(SharedBlob {
                        key: blob.key.clone(),
                        same_as: blobs.get(first).map_or_else(String::new, |b| b.key.clone()),
                        bytes: blob.data.byte_len(),
                        by_content,
                    });
                    number
                }
                None => {
                    let start = self.start(u64::from(blob.alignment))?;
                    self.tensor(start, &blob.data, &blob.key);
                    let number = self.close(start, blob.data.byte_len())?;
                    segment_of.insert(i, number);
                    number
                }
            };
            entries.push(NamedData { key: blob.key.clone(), segment_index });
        }
        Ok(entries)
    }
}

fn lcm(a: u64, b: u64) -> Result<u64> {
    let (mut x, mut y) = (a, b.max(1));
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b.max(1)).ok_or_else(too_large)
}
