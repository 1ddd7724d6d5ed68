//! Opening a `.pte`: header, program, and the places of the bulk data. Nothing but the program is read.

use std::path::Path;
use std::sync::Arc;

use etx_ir::DType;
use etx_ir::weights::{MappedFile, TensorData};

use super::check::{Place, check};
use super::codec::FlatTable;
use super::model::{BackendDelegate, DataLocation, ExecutionPlan, Program, Tensor};
use crate::error::{Error, ErrorKind, Result};
use crate::flat::{Flat, Table};
use crate::window::Window;

/// Identifier of programs.
pub(crate) const IDENTIFIER: &str = "ET12";
/// First bytes of the extended header.
pub(crate) const HEADER_MAGIC: [u8; 4] = *b"eh00";
/// Where the extended header begins.
pub(crate) const HEADER_START: u64 = 8;
/// Bytes of the extended header as written today.
pub(crate) const HEADER_LEN: u32 = 32;
/// Bytes of the extended header before it had the size of the segment area.
const HEADER_LEN_WITHOUT_SIZE: u32 = 24;
/// Every loader reads this much first, so no shorter file works.
pub(crate) const SHORTEST_FILE: u64 = 64;

/// The extended header: where the program ends and the segments begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its own length in bytes.
    pub length: u32,
    /// Bytes of the program, counted from the start of the file.
    pub program_size: u64,
    /// Absolute offset of the segment area; 0 when there is none.
    pub segment_base_offset: u64,
    /// Bytes of the segment area; absent from headers of 24 bytes, and 0 may stand for any number of them.
    pub segment_data_size: Option<u64>,
}

/// An open `.pte`: its program, checked, and access to the bytes it refers to.
///
/// Opening reads the header and the program only. Everything handed out afterwards is a slice of the file.
pub struct PteFile {
    storage: Storage,
    header: Option<Header>,
    program: Program,
    /// Numbers of the named data, sorted by key.
    by_key: Vec<u32>,
}

enum Storage {
    Mapped(MappedFile),
    Memory(Arc<[u8]>),
}

impl Storage {
    fn bytes(&self) -> &[u8] {
        match self {
            Storage::Mapped(file) => file.bytes(),
            Storage::Memory(bytes) => bytes,
        }
    }
}

impl PteFile {
    /// Opens and checks a file; its bytes are mapped, not read.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be opened, else as [`PteFile::parse`]; the path is in the context.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(MappedFile::open(path)?)
    }

    /// Checks a file that is mapped already.
    ///
    /// # Errors
    /// As [`PteFile::parse`]; the path is in the context.
    pub fn of(file: MappedFile) -> Result<Self> {
        let path = file.path().display().to_string();
        Self::new(Storage::Mapped(file)).map_err(|e| e.within(path))
    }

    /// Checks a file in memory.
    ///
    /// # Errors
    /// When it is no `.pte`, or breaks a rule of the format. Broken rules of the program are collected
    /// ([`Error::problems`]), each with the absolute offset of the part it is in.
    pub fn parse(bytes: impl Into<Arc<[u8]>>) -> Result<Self> {
        Self::new(Storage::Memory(bytes.into()))
    }

    fn new(storage: Storage) -> Result<Self> {
        let parsed = parse(Window::new(storage.bytes()), storage.bytes().len() as u64);
        let (header, program) = parsed.map_err(|e| match e.kind() {
            ErrorKind::Unsupported => e.help("lower the program again, for the schema of ExecuTorch 1.5"),
            _ => e.help("the file is damaged or was cut short; copy it again, or lower the program again"),
        })?;
        let mut by_key: Vec<u32> = (0..).take(program.named_data.len()).collect();
        by_key.sort_by_key(|&i| program.named_data.get(i as usize).map(|d| d.key.as_str()));
        Ok(PteFile { storage, header, program, by_key })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.storage.bytes()
    }

    /// The extended header; files without segments have none.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Everything the program says.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The methods, in file order.
    pub fn methods(&self) -> &[ExecutionPlan] {
        &self.program.execution_plan
    }

    /// The method of that name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], naming those there are.
    pub fn method(&self, name: &str) -> Result<&ExecutionPlan> {
        self.methods().iter().find(|plan| plan.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.methods().iter().map(|plan| plan.name.as_str()).collect();
            Error::new(ErrorKind::NotFound, format!("no method `{name}`; there are: {}", names.join(", ")))
        })
    }

    /// Segment `index`; `None` when there are fewer.
    pub fn segment(&self, index: u32) -> Option<Window<'_>> {
        let segment = self.program.segments.get(index as usize)?;
        let base = self.header.map_or(0, |h| h.segment_base_offset);
        // Checked when the file was opened.
        Window::new(self.bytes()).slice(base.checked_add(segment.offset)?, segment.size).ok()
    }

    /// The payload of a delegate.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] when `delegate` is not of this file and refers to nothing here.
    pub fn payload(&self, delegate: &BackendDelegate) -> Result<Window<'_>> {
        let index = delegate.processed.index;
        let found = match delegate.processed.location {
            DataLocation::Segment => self.segment(index),
            // Copied out of the file when it was read: its offset there is not known any more.
            DataLocation::Inline => self.program.backend_delegate_data.get(index as usize).map(|d| Window::new(&d.data)),
        };
        found.ok_or_else(|| Error::new(ErrorKind::OutOfRange, format!("no payload number {index}")))
    }

    /// The bytes that stand under `key`.
    pub fn named_data(&self, key: &str) -> Option<Window<'_>> {
        self.segment(self.key_segment(key)?)
    }

    fn key_segment(&self, key: &str) -> Option<u32> {
        let entry = |i: u32| self.program.named_data.get(i as usize);
        let at = self.by_key.binary_search_by_key(&Some(key), |&i| entry(i).map(|d| d.key.as_str())).ok()?;
        entry(*self.by_key.get(at)?).map(|d| d.segment_index)
    }

    /// The bytes under `key` as a tensor, still where they are in the file.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown key, [`ErrorKind::Invalid`] when the size is not that of the tensor.
    pub fn named_tensor(&self, key: &str, dtype: DType, shape: &[u64]) -> Result<TensorData> {
        let window = self.named_data(key).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no named data `{key}`")))?;
        let tensor = self.tensor_at(window, dtype, shape).map_err(|e| e.within(format!("named data `{key}`")))?;
        if tensor.byte_len() != window.len() {
            let text = format!("{dtype}{shape:?} has {} bytes, the file {}", tensor.byte_len(), window.len());
            return Err(Error::new(ErrorKind::Invalid, text).at(window.base()).within(format!("named data `{key}`")));
        }
        Ok(tensor)
    }

    /// A constant of a graph, or the initial value of a planned tensor: its bytes in the order of its
    /// [`dim_order`](Tensor::dim_order). `None` for tensors without bytes in this file.
    pub fn constant(&self, tensor: &Tensor) -> Option<Window<'_>> {
        if tensor.is_external() || tensor.data_buffer_idx == 0 {
            return None;
        }
        let table = match tensor.allocation_info {
            Some(_) => self.program.mutable_data_segments.first()?,
            None => &self.program.constant_segment,
        };
        let offset = *table.offsets.get(tensor.data_buffer_idx as usize)?;
        self.segment(table.segment_index)?.slice(offset, tensor.byte_len()?).ok()
    }

    /// The start of `window`, which must be one of this file's, as a tensor without copying where the file is mapped.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] when the tensor is larger than the window.
    pub fn tensor_at(&self, window: Window<'_>, dtype: DType, shape: &[u64]) -> Result<TensorData> {
        let len = shape.iter().try_fold(dtype.size() as u64, |n, &d| n.checked_mul(d)).unwrap_or(u64::MAX);
        let bytes = window.slice(0, len)?;
        Ok(match &self.storage {
            Storage::Mapped(file) => TensorData::mapped(dtype, shape.to_vec(), file.clone(), bytes.base())?,
            Storage::Memory(_) => TensorData::inline(dtype, shape.to_vec(), bytes.bytes())?,
        })
    }
}

impl std::fmt::Debug for PteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PteFile").field("bytes", &self.bytes().len()).field("program", &self.program).finish_non_exhaustive()
    }
}

/// Header and program of the file of `total` bytes that begins with `file`, checked. Segments need not be in `file`.
pub(crate) fn parse(file: Window<'_>, total: u64) -> Result<(Option<Header>, Program)> {
    let header = read_header(file)?;
    let window = match &header {
        Some(h) => file.slice(0, h.program_size).map_err(|e| e.within("program"))?,
        None => file,
    };
    let program = Program::from_table(Flat::new(window).root()?)?;
    let area = segment_area(file, total, header.as_ref(), &program)?;
    check(&program, area, &|place| locate(window, place).ok().flatten())?;
    Ok((header, program))
}

fn read_header(file: Window<'_>) -> Result<Option<Header>> {
    if file.len() < SHORTEST_FILE {
        let text = format!("a file of {} bytes; even the smallest program has {SHORTEST_FILE}", file.len());
        return Err(Error::new(ErrorKind::BadMagic, text).at(file.base()));
    }
    let identifier = file.slice(4, 4)?.bytes();
    if identifier != IDENTIFIER.as_bytes() {
        let hint = match identifier {
            b"BP08" => "a bundled program; take the program out of it first",
            b"FT01" => "a tensor file (`.ptd`), not a program",
            _ if file.slice(0, 4)?.bytes() == b"PK\x03\x04" => "a zip archive; is it an exported program (`.pt2`)?",
            _ => "not an ExecuTorch program",
        };
        let text = format!("{hint}: `{}` expected, found `{}`", IDENTIFIER, identifier.escape_ascii());
        return Err(Error::new(ErrorKind::BadMagic, text).at(file.absolute(4)));
    }
    if file.slice(HEADER_START, 4)?.bytes() != HEADER_MAGIC {
        return Ok(None);
    }
    let field = |i: u64| file.get::<u64>(HEADER_START + i);
    let length = file.get::<u32>(HEADER_START + 4)?;
    let bad =
        |at: u64, text: String| Err(Error::new(ErrorKind::Malformed, text).at(file.absolute(HEADER_START + at)).within("extended header"));
    if length < HEADER_LEN_WITHOUT_SIZE {
        return bad(4, format!("{length} bytes long; at least {HEADER_LEN_WITHOUT_SIZE} are needed"));
    }
    let header = Header {
        length,
        program_size: field(8)?,
        segment_base_offset: field(16)?,
        segment_data_size: if length < HEADER_LEN { None } else { Some(field(24)?) },
    };
    if header.program_size > file.len() {
        return bad(8, format!("a program of {} bytes in a file of {}", header.program_size, file.len()));
    }
    if header.segment_base_offset != 0 && header.segment_base_offset < header.program_size {
        return bad(16, format!("segments begin at {}, before the program ends at {}", header.segment_base_offset, header.program_size));
    }
    Ok(Some(header))
}

/// Bytes of the segment area.
fn segment_area(file: Window<'_>, total: u64, header: Option<&Header>, program: &Program) -> Result<u64> {
    let needed = program.segments.iter().any(|s| s.size != 0);
    let bad = |at: u64, text: String| Err(Error::new(ErrorKind::Malformed, text).at(file.absolute(at)));
    let Some(header) = header else {
        return if needed {
            // Upstream would read weights from the start of the file.
            bad(HEADER_START, "the program has segments, but there is no extended header to say where".to_owned())
        } else {
            Ok(0)
        };
    };
    if header.segment_base_offset == 0 {
        return if needed {
            bad(HEADER_START + 16, "the program has segments, but the extended header says there are none".to_owned())
        } else {
            Ok(0)
        };
    }
    let left = total.checked_sub(header.segment_base_offset);
    // 0 beside a place for segments says nothing of their size; upstream's loader takes it so, too.
    match (left, header.segment_data_size.filter(|&size| size != 0)) {
        (Some(left), Some(size)) if size <= left => Ok(size),
        (Some(left), None) => Ok(left),
        _ => {
            let (base, size) = (header.segment_base_offset, header.segment_data_size.unwrap_or(0));
            let text = format!("the file is cut short: {size} bytes of segments at {base}, but only {total} bytes in all");
            Err(Error::new(ErrorKind::OutOfRange, text).at(file.absolute(total)))
        }
    }
}

/// Absolute offset of a part of the program: walks there again, so that nothing has to remember offsets.
fn locate(program: Window<'_>, place: Place) -> Result<Option<u64>> {
    let flat = Flat::new(program);
    let root = flat.root()?;
    let plan = |p: usize| root.element(1, p);
    let within = |t: Option<Table<'_, '_>>, slot: u16, i: usize| match t {
        Some(t) => t.element(slot, i).map(|t| t.map(|t| t.offset())),
        None => Ok(None),
    };
    match place {
        Place::Program => Ok(Some(root.offset())),
        Place::Segment(i) => within(Some(root), 4, i),
        Place::NamedData(i) => within(Some(root), 7, i),
        Place::Plan(p) => Ok(plan(p)?.map(|t| t.offset())),
        Place::Value(p, i) => within(plan(p)?, 2, i),
        Place::Operator(p, i) => within(plan(p)?, 6, i),
        Place::Delegate(p, i) => within(plan(p)?, 7, i),
        Place::Instruction { plan: p, chain, index } => match plan(p)? {
            Some(plan) => within(plan.element(5, chain)?, 2, index),
            None => Ok(None),
        },
    }
}
