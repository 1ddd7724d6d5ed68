//! Files that are there completely or not at all.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file that appears under its name only when it is complete.
///
/// It is written under a temporary name in the same folder, then renamed over whatever was there. Dropped before that, it
/// leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: PathBuf,
    /// Where it shall go.
    target: PathBuf,
    renamed: bool,
}

/// How many names for a temporary file are tried; others are left over from processes that were killed.
const NAMES: u32 = 100;

impl NewFile {
    /// Creates the file under a temporary name.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when the folder does not exist or cannot be written to, or `path` is something else
    /// than a file.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let refused = |what: &str, e: std::io::Error| Error::io(format!("cannot write {}: {what}", path.display()), e);
        let kind = |e| std::io::Error::from(e);
        let target = match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => return Err(refused("it is a folder", kind(std::io::ErrorKind::IsADirectory))),
            // Renaming over a device would remove it.
            Ok(meta) if !meta.is_file() => return Err(refused("it is not a regular file", kind(std::io::ErrorKind::InvalidInput))),
            // The file behind a symbolic link is replaced, not the link.
            Ok(_) => fs::canonicalize(path).map_err(|e| refused("its folder", e))?,
            Err(_) => path.to_owned(),
        };
        if target.file_name().is_none() {
            return Err(refused("it has no file name", kind(std::io::ErrorKind::InvalidInput)));
        }
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match fs::metadata(folder) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(refused(&format!("{} is not a folder", folder.display()), kind(std::io::ErrorKind::NotADirectory))),
            Err(e) => return Err(refused(&format!("folder {}", folder.display()), e)),
        }
        let mut last = None;
        for n in 0..NAMES {
            // Not made from the target's name, which may already be as long as names can be.
            let path = folder.join(format!(".etx-{}-{n}.tmp", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(NewFile { file, path, target, renamed: false }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => last = Some(e),
                Err(e) => return Err(refused(&format!("in folder {}", folder.display()), e)),
            }
        }
        Err(refused("no free temporary name", last.unwrap_or_else(|| kind(std::io::ErrorKind::AlreadyExists))))
    }

    /// The open file, to be written to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when it cannot be renamed.
    pub fn complete(mut self) -> Result<()> {
        fs::rename(&self.path, &self.target)
            .map_err(|e| Error::io(format!("cannot rename {} to {}", self.path.display(), self.target.display()), e))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing can be done about a failure here, and what made us give up is reported already.
            let _ = fs::remove_file(&self.path);
        }
    }
}
