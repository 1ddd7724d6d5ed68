//! The one place where files are mapped into memory.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::error::{Error, ErrorKind};

/// More bytes than this are not taken from a pipe: they are copied to a temporary file first.
const MAX_PIPED: u64 = 4 << 30;

/// So long a pipe that nobody has opened for writing may stay that way.
const PATIENCE: Duration = Duration::from_millis(500);

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
    /// Maps the whole file. What comes out of a pipe is copied to a temporary file without a name, which is mapped; it can be had only
    /// once, so a pipe is opened once and the result passed on.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] naming the path when it cannot be opened or mapped, is a folder or a device, or a pipe that nobody writes to.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let io = |what: &str, e: io::Error| Error::new(ErrorKind::Io, format!("{what} {}: {e}", path.display()));
        // Opening a pipe must not wait for somebody to write to it.
        let without_waiting = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let opened = OpenOptions::new().read(true).custom_flags(without_waiting).open(path);
        let mut file = opened.map_err(|e| io("cannot open", e))?;
        let mut meta = file.metadata().map_err(|e| io("cannot read", e))?;
        let kind = meta.file_type();
        if kind.is_fifo() || kind.is_socket() {
            file = piped(file).map_err(|e| io("cannot read", e))?;
            meta = file.metadata().map_err(|e| io("cannot read", e))?;
        } else if !meta.is_file() {
            let what = if meta.is_dir() { "folder" } else { "device" };
            let what = format!("{} is not a regular file but a {what}", path.display());
            return Err(Error::new(ErrorKind::Io, what).help("name a file, or a pipe"));
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

/// Everything that comes out of a pipe, in a file that is gone once it is closed. The pipe was opened without waiting.
fn piped(mut pipe: File) -> io::Result<File> {
    let mut file = without_name()?;
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    let start = Instant::now();
    loop {
        match pipe.read(&mut buffer) {
            // Without a writer there is an end at once; one may still be on its way.
            Ok(0) if total == 0 && start.elapsed() < PATIENCE => std::thread::sleep(PATIENCE / 50),
            Ok(0) if total == 0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing comes out of this pipe")),
            Ok(0) => return Ok(file),
            Ok(n) => {
                total += n as u64;
                if total > MAX_PIPED {
                    let what = format!("more than {MAX_PIPED} bytes come out of this pipe; write them to a file first");
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
                }
                file.write_all(buffer.get(..n).unwrap_or_default())?;
            }
            // Somebody has it open for writing, and takes time.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => rustix::fs::fcntl_setfl(&pipe, OFlags::empty())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A temporary file that no folder lists.
fn without_name() -> io::Result<File> {
    let mut last = None;
    for _ in 0..100 {
        let random = RandomState::new().build_hasher().finish();
        let path = std::env::temp_dir().join(format!(".etx-{}-{random:016x}.tmp", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
}

#[expect(unsafe_code, reason = "mapping a file is unsafe because others may change it; see MappedFile")]
fn map(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is only ever read, as bytes; every interpretation of them goes through checked readers, so a
    // concurrent change of the file can give wrong values but no invalid ones.
    unsafe { memmap2::Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe under a name.
    fn fifo(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("etx-mapped-{}-{name}", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    #[test]
    fn what_comes_out_of_a_pipe_is_held_like_a_file() {
        let path = fifo("read");
        let writer = {
            let path = path.clone();
            std::thread::spawn(move || std::fs::write(path, vec![7; 200_000]).unwrap())
        };
        let file = MappedFile::open(&path).unwrap();
        writer.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((file.bytes().len(), file.path()), (200_000, path.as_path()));
        let mut piece = [0; 3];
        file.read_at(199_997, &mut piece).unwrap();
        assert_eq!(piece, [7; 3]);
    }

    #[test]
    fn what_is_no_file_is_refused_and_does_not_block() {
        let path = fifo("idle");
        let start = Instant::now();
        let error = MappedFile::open(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("nothing comes out of this pipe") && start.elapsed() < PATIENCE * 4, "{error}");
        for (path, what) in [("/dev/zero", "but a device"), ("/", "but a folder")] {
            let error = MappedFile::open(path).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("help: "), "{error}");
        }
    }
}
