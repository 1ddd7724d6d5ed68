//! The zip container of a `.pt2` file, and of the torch.save files inside of older ones.
//!
//! Entries are located through the central directory (local headers carry no sizes, `pt2-format.md` §1.3) and read
//! where they stand: torch stores them uncompressed, so a weight is a range of the mapped file even when it lies in a zip
//! file within the zip file. An entry that some other tool has compressed is unpacked into memory, never beyond the size
//! it declares. Names are looked up in the directory only, never in the file system.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rawzip::{CompressionMethod, ErrorKind as ZipError, ZipArchive};

use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::weights::TensorData;

/// More entries than this are refused: there is one a tensor, and no model has a million.
const MAX_ENTRIES: u64 = 1_000_000;

/// Compressed entries of a file, those of archives within it among them, may unpack to so many bytes in all, and so many for
/// each byte of the file; torch never compresses. What other tools make of graphs and metadata shrinks to a tenth; more than
/// this only what is nothing but zeros, or an attack.
const MAX_INFLATED: u64 = 64 << 20;
const MAX_INFLATED_A_BYTE: u64 = 64;

struct Entry {
    /// First byte of its data, from the start of the archive.
    offset: u64,
    /// Bytes in the archive.
    packed: u64,
    /// Bytes once unpacked.
    size: u64,
    crc: u32,
    stored: bool,
    unpacked: OnceCell<TensorData>,
}

/// An open archive.
pub(crate) struct Archive {
    bytes: TensorData,
    entries: BTreeMap<String, Entry>,
    /// How many bytes compressed entries may still unpack to.
    budget: Rc<Cell<u64>>,
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Format, what)
}

impl Archive {
    /// Reads the directory of a zip file that is all of `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] when this is no zip file, was cut short, or contradicts itself.
    pub(crate) fn open(bytes: TensorData) -> Result<Self, Error> {
        let most = MAX_INFLATED.saturating_add(bytes.byte_len().saturating_mul(MAX_INFLATED_A_BYTE));
        Self::open_within(bytes, Rc::new(Cell::new(most)))
    }

    /// The archive that lies in another one's bytes: what both unpack counts together.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub(crate) fn inner(&self, bytes: TensorData) -> Result<Self, Error> {
        Self::open_within(bytes, Rc::clone(&self.budget))
    }

    fn open_within(bytes: TensorData, budget: Rc<Cell<u64>>) -> Result<Self, Error> {
        let held = bytes.bytes().unwrap_or(&[]);
        let size = held.len() as u64;
        let damaged = |what: String| {
            bad(format!("{what} ({size} bytes)")).help("a .pt2 is the zip file that torch.export.save writes; was it cut short?")
        };
        let zip = ZipArchive::from_slice(held).map_err(|e| match e.kind() {
            ZipError::MissingEndOfCentralDirectory => damaged("not a zip file: it has no end record".to_owned()),
            _ => damaged(format!("not a zip file: {e}")),
        })?;
        let count = zip.entries_hint();
        if count > MAX_ENTRIES {
            return Err(bad(format!("{count} entries; at most {MAX_ENTRIES} are accepted")));
        }
        let mut entries = BTreeMap::new();
        let mut first = size;
        let mut seen = 0;
        for header in zip.entries() {
            let header = header.map_err(|e| damaged(format!("entry {seen} of the zip directory: {e}")))?;
            seen += 1;
            if seen > count {
                break;
            }
            let path = header.file_path();
            let name = std::str::from_utf8(path.as_ref()).map_err(|e| bad(format!("entry {}: its name is not UTF-8: {e}", seen - 1)))?;
            let here = zip
                .get_entry(header.wayfinder())
                .map_err(|e| damaged(format!("entry {name}, whose header is said to be at byte {}: {e}", header.local_header_offset())))?;
            first = first.min(header.local_header_offset());
            if header.is_dir() {
                continue;
            }
            let (offset, end) = here.compressed_data_range();
            let method = header.compression_method();
            let stored = method == CompressionMethod::STORE;
            if !stored && method != CompressionMethod::DEFLATE {
                return Err(bad(format!("entry {name}: compression method {}", method.as_u16()))
                    .help("store the entries uncompressed, as torch does"));
            }
            let entry = Entry {
                offset,
                packed: end - offset,
                size: header.uncompressed_size_hint(),
                crc: header.crc32(),
                stored,
                unpacked: OnceCell::new(),
            };
            if stored && entry.packed != entry.size {
                return Err(bad(format!(
                    "entry {name} is stored but {} bytes in the file and {} bytes unpacked",
                    entry.packed, entry.size
                )));
            }
            if entries.insert(name.to_owned(), entry).is_some() {
                return Err(bad(format!("entry {name} is there twice")));
            }
        }
        if seen != count {
            return Err(damaged(format!("the zip directory has {seen} entries, its end record says {count}")));
        }
        // A zip file within a zip file that was cut short would be found this way, too.
        if first > 0 && count > 0 {
            return Err(damaged(format!("not a zip file: the last one in it starts at byte {first}")));
        }
        Ok(Self { bytes, entries, budget })
    }

    /// Names of all entries, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is such an entry.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Removes the folder that all entries stand below, if there is one; it is named after the file at the time it was saved.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] when there is no such folder, or more than one.
    pub(crate) fn strip_root(&mut self) -> Result<(), Error> {
        let roots: BTreeSet<&str> = self.names().map(|n| n.split_once('/').map_or("", |(root, _)| root)).collect();
        let prefix = match roots.iter().collect::<Vec<_>>().as_slice() {
            [] => return Err(bad("the archive is empty")),
            [root] if !root.is_empty() => format!("{root}/"),
            roots => {
                let named: Vec<String> =
                    roots.iter().take(4).map(|r| if r.is_empty() { "none".to_owned() } else { format!("{r}/") }).collect();
                return Err(bad(format!("the entries do not stand below one root folder but {}", named.join(", "))));
            }
        };
        let entries = std::mem::take(&mut self.entries);
        self.entries = entries.into_iter().map(|(n, e)| (n.strip_prefix(&prefix).unwrap_or(&n).to_owned(), e)).collect();
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<&Entry, Error> {
        self.entries.get(name).ok_or_else(|| bad(format!("entry {name} is missing")))
    }

    /// The bytes of an entry that is not a weight, checked against their checksum.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] when the entry is missing or damaged.
    pub(crate) fn read(&self, name: &str) -> Result<&[u8], Error> {
        let e = self.entry(name)?;
        if !e.stored {
            return Ok(self.unpack(name, e)?.bytes().unwrap_or(&[]));
        }
        let bytes = self.packed(e);
        self.check(name, e, bytes)?;
        Ok(bytes)
    }

    /// The entry as flat bytes, in place where it is stored uncompressed. Its checksum is not looked at then: weights
    /// are not read before they are used.
    ///
    /// # Errors
    /// As [`Archive::read`].
    pub(crate) fn data(&self, name: &str) -> Result<TensorData, Error> {
        let e = self.entry(name)?;
        if e.stored {
            return self.bytes.strided(DType::UInt8, vec![e.size], vec![1], e.offset);
        }
        Ok(self.unpack(name, e)?.clone())
    }

    /// An entry's bytes as they are in the file; in range since the archive was opened.
    fn packed(&self, e: &Entry) -> &[u8] {
        self.bytes.bytes().and_then(|b| b.get(e.offset as usize..(e.offset + e.packed) as usize)).unwrap_or(&[])
    }

    fn check(&self, name: &str, e: &Entry, bytes: &[u8]) -> Result<(), Error> {
        let crc = rawzip::crc32(bytes);
        if crc == e.crc {
            return Ok(());
        }
        Err(bad(format!("entry {name} at byte {}: its checksum is {crc:08x}, the directory says {:08x}", e.offset, e.crc))
            .help("the file is damaged; copy or save it again"))
    }

    fn unpack<'a>(&self, name: &str, e: &'a Entry) -> Result<&'a TensorData, Error> {
        if let Some(done) = e.unpacked.get() {
            return Ok(done);
        }
        let left = self.budget.get().checked_sub(e.size).ok_or_else(|| {
            bad(format!("entry {name} is compressed and unpacks to {} bytes, more than a file of this size may unpack to", e.size))
                .help("store large entries uncompressed, as torch does")
        })?;
        let limit = usize::try_from(e.size).map_err(|_| bad(format!("entry {name}: {} bytes", e.size)))?;
        let bytes = miniz_oxide::inflate::decompress_to_vec_with_limit(self.packed(e), limit)
            .map_err(|error| bad(format!("entry {name} at byte {}: {}", e.offset, why(&error))))?;
        if bytes.len() != limit {
            return Err(bad(format!("entry {name} at byte {} unpacks to {} bytes, it declares {limit}", e.offset, bytes.len())));
        }
        self.check(name, e, &bytes)?;
        self.budget.set(left);
        let data = TensorData::inline(DType::UInt8, vec![e.size], bytes)?;
        Ok(e.unpacked.get_or_init(|| data))
    }
}

fn why(e: &miniz_oxide::inflate::DecompressError) -> String {
    match e.status {
        miniz_oxide::inflate::TINFLStatus::HasMoreOutput => "it unpacks to more than it declares".to_owned(),
        status => format!("its compressed data are damaged ({status:?})"),
    }
}
