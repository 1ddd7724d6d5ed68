//! The one place where files are mapped into memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// A read-only file, mapped; cheap to clone.
///
/// The mapping is private. As with every mapping, another process that truncates the file while it is in use can make
/// reads fail with a signal; etx treats its inputs as immutable for as long as it has them open.
#[derive(Clone)]
pub struct MappedFile(Arc<Inner>);

struct Inner {
    path: PathBuf,
    file: File,
    map: Option<memmap2::Mmap>,
}

impl MappedFile {
    /// Maps the whole file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] naming the path when it cannot be opened or mapped, or is no regular file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let io = |what: &str, e: std::io::Error| Error::new(ErrorKind::Io, format!("{what} {}: {e}", path.display()));
        let file = File::open(path).map_err(|e| io("cannot open", e))?;
        let meta = file.metadata().map_err(|e| io("cannot read", e))?;
        if !meta.is_file() {
            return Err(Error::new(ErrorKind::Io, format!("{} is not a regular file", path.display())));
        }
        // An empty file cannot be mapped on every system; it has no bytes to show anyway.
        let map = if meta.len() == 0 { None } else { Some(map(&file).map_err(|e| io("cannot map", e))?) };
        Ok(Self(Arc::new(Inner { path: path.to_owned(), file, map })))
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.0.map.as_deref().unwrap_or(&[])
    }

    /// The open file, for copies inside the kernel.
    pub fn file(&self) -> &File {
        &self.0.file
    }

    /// Copies bytes from `offset` on, all of `out`. Pages of the mapping that nobody looks at are not brought in for it, so reading
    /// a file piece by piece this way takes no memory but the piece.
    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.file().read_exact_at(out, offset).map_err(|e| {
            let what = format!("cannot read {} bytes at {offset} of {}: {e}", out.len(), self.path().display());
            Error::new(ErrorKind::Io, what)
        })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Equal for clones of one mapping.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MappedFile({})", self.0.path.display())
    }
}

#[expect(unsafe_code, reason = "mapping a file is unsafe because others may change it; see MappedFile")]
fn map(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is only ever read, as bytes; every interpretation of them goes through checked readers, so a
    // concurrent change of the file can give wrong values but no invalid ones.
    unsafe { memmap2::Mmap::map(file) }
}
