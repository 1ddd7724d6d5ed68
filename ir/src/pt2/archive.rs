//! The zip container of a `.pt2` file.
//!
//! Entries are located through the central directory only (local headers carry no sizes, `pt2-format.md` §1.3) and
//! read where they stand in the mapping; an entry that some tool has compressed is inflated into memory, never beyond
//! the size it declares.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::Arc;

use crate::DType;
use crate::error::{Error, ErrorKind};
use crate::weights::{MappedFile, TensorData};

/// More entries than this are refused: one a tensor, and no model has a million.
const MAX_ENTRIES: usize = 1_000_000;

/// Compressed entries may not unpack to more than this; torch never compresses.
const MAX_INFLATED: u64 = 1 << 30;

/// Where an entry's bytes are.
#[derive(Clone, Copy)]
struct Entry {
    index: usize,
    offset: u64,
    size: u64,
    stored: bool,
}

/// An open archive.
pub(crate) struct Archive {
    file: MappedFile,
    entries: BTreeMap<String, Entry>,
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Format, what)
}

impl Archive {
    /// Reads the directory.
    pub(crate) fn open(file: MappedFile) -> Result<Self, Error> {
        let size = file.bytes().len();
        let mut zip = zip::ZipArchive::new(Cursor::new(file.bytes()))
            .map_err(|e| bad(format!("not a .pt2 archive: {e} ({size} bytes)")).help("a .pt2 is the zip file that torch.export.save writes; was it cut short?"))?;
        if zip.len() > MAX_ENTRIES {
            return Err(bad(format!("{} entries; at most {MAX_ENTRIES} are accepted", zip.len())));
        }
        let mut entries = BTreeMap::new();
        for index in 0..zip.len() {
            let e = zip.by_index_raw(index).map_err(|e| bad(format!("entry {index}: {e}")))?;
            let name = e.name().map_err(|e| bad(format!("entry {index}: {e}")))?.into_owned();
            let offset = e.data_start().ok_or_else(|| bad(format!("entry {name}: no data")))?;
            let stored = e.compression() == zip::CompressionMethod::Stored;
            let packed = if stored { e.size() } else { e.compressed_size() };
            if offset.checked_add(packed).is_none_or(|end| end > size as u64) {
                return Err(bad(format!("entry {name}: bytes {offset}+{packed} reach beyond the file's {size}")));
            }
            entries.insert(name, Entry { index, offset, size: e.size(), stored });
        }
        drop(zip);
        Ok(Self { file, entries })
    }

    /// Names of all entries, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is such an entry.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Removes the folder that all entries of a pt2 archive stand below; it is named after the file at the time it was saved.
    pub(crate) fn strip_root(&mut self) -> Result<(), Error> {
        let roots: std::collections::BTreeSet<&str> = self.names().map(|n| n.split_once('/').map_or("", |(root, _)| root)).collect();
        let mut roots = roots.into_iter();
        let (Some(root), None) = (roots.next(), roots.next()) else {
            return Err(bad("the entries stand below more than one root folder, or none"));
        };
        let prefix = format!("{root}/");
        drop(roots);
        self.entries =
            std::mem::take(&mut self.entries).into_iter().map(|(n, e)| (n.strip_prefix(&prefix).unwrap_or(&n).to_owned(), e)).collect();
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<Entry, Error> {
        self.entries.get(name).copied().ok_or_else(|| bad(format!("entry {name} is missing")))
    }

    /// The bytes of a small entry.
    pub(crate) fn read(&self, name: &str) -> Result<std::borrow::Cow<'_, [u8]>, Error> {
        let e = self.entry(name)?;
        if e.stored {
            // In range: checked on opening.
            return Ok(self.file.bytes().get(e.offset as usize..(e.offset + e.size) as usize).unwrap_or(&[]).into());
        }
        Ok(self.inflate(name, e)?.into())
    }

    fn inflate(&self, name: &str, e: Entry) -> Result<Vec<u8>, Error> {
        if e.size > MAX_INFLATED {
            return Err(bad(format!("entry {name} is compressed and unpacks to {} bytes", e.size)).help("store entries of this size uncompressed"));
        }
        let mut zip = zip::ZipArchive::new(Cursor::new(self.file.bytes())).map_err(|e| bad(e.to_string()))?;
        let reader = zip.by_index(e.index).map_err(|e| bad(format!("entry {name}: {e}")))?;
        let mut out = Vec::new();
        let n = reader.take(e.size + 1).read_to_end(&mut out).map_err(|e| bad(format!("entry {name}: {e}")))?;
        if n as u64 != e.size {
            return Err(bad(format!("entry {name} unpacks to {n} bytes or more, it declares {}", e.size)));
        }
        Ok(out)
    }

    /// The entry as flat bytes, in place where it is stored uncompressed.
    pub(crate) fn data(&self, name: &str) -> Result<TensorData, Error> {
        let e = self.entry(name)?;
        if e.stored {
            return TensorData::mapped(DType::UInt8, vec![e.size], self.file.clone(), e.offset);
        }
        TensorData::inline(DType::UInt8, vec![e.size], Arc::<[u8]>::from(self.inflate(name, e)?))
    }
}
