//! Files that are there completely or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// A file that appears under its name only when it is complete.
///
/// Where the system can (Linux), it has no name until then, so that nothing is left of it however the process ends. Elsewhere it has
/// a temporary one in the same folder, which [`remove_unfinished`] removes. It replaces whatever was there. Dropped before it is
/// complete, it leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// Its temporary name, if it has one.
    path: Option<PathBuf>,
    /// Where it shall go.
    target: PathBuf,
    folder: PathBuf,
}

/// How many temporary names are tried. They are drawn at random, so none of them exists but by a miracle.
const NAMES: u32 = 100;

/// Links to links to a file that are followed, as in Linux.
const LINKS: u32 = 40;

/// Temporary names that are in use.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all files of this process that are being written under a temporary name; for a process that is about to end.
pub fn remove_unfinished() {
    for path in unfinished().iter() {
        // Nothing can be done about a failure now.
        let _ = fs::remove_file(path);
    }
}

/// Where a file of this name goes: the file behind symbolic links is replaced, not the link, also one that does not exist yet.
pub fn destination(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(next) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(next);
    }
    path
}

impl NewFile {
    /// Creates the file, without its name.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when the folder does not exist or cannot be written to, or `path` is something else
    /// than a file.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let refused = |what: &str, e: io::Error| Error::io(format!("cannot write {}: {what}", path.display()), e);
        let kind = |e| io::Error::from(e);
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => return Err(refused("it is a folder", kind(io::ErrorKind::IsADirectory))),
            // Renaming over a device would remove it.
            Ok(meta) if !meta.is_file() => {
                return Err(refused("it is not a regular file", kind(io::ErrorKind::InvalidInput))
                    .help("write to a file; `-` is standard output where that is taken"));
            }
            _ => {}
        }
        let target = destination(path);
        if target.is_symlink() {
            return Err(refused("its symbolic links lead nowhere", kind(io::ErrorKind::InvalidInput)));
        }
        if target.file_name().is_none() {
            return Err(refused("it has no file name", kind(io::ErrorKind::InvalidInput)));
        }
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        match fs::metadata(&folder) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(refused(&format!("{} is not a folder", folder.display()), kind(io::ErrorKind::NotADirectory))),
            Err(e) => return Err(refused(&format!("folder {}", folder.display()), e)),
        }
        if let Some(file) = unnamed(&folder) {
            return Ok(NewFile { file, path: None, target, folder });
        }
        let (path, file) = named(&folder).map_err(|e| refused(&format!("in folder {}", folder.display()), e))?;
        Ok(NewFile { file, path: Some(path), target, folder })
    }

    /// The open file, to be written to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name, once its bytes are on the disk.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when they cannot be brought there, or it cannot be renamed.
    pub fn complete(mut self) -> Result<()> {
        let target = self.target.display().to_string();
        match self.file.sync_all() {
            // File systems that know no such thing.
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
            done => done.map_err(|e| Error::io(format!("cannot write {target} to the disk"), e))?,
        }
        if self.path.is_none() {
            match link(&self.file, &self.target) {
                Ok(()) => return Ok(()),
                // It replaces what is there: a second name, then as below.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    self.path = Some(
                        fresh_name(&self.folder, |path| link(&self.file, path))
                            .map_err(|e| Error::io(format!("cannot name {target}"), e))?
                            .0,
                    );
                }
                Err(e) => return Err(Error::io(format!("cannot name {target}"), e)),
            }
        }
        let Some(path) = &self.path else { return Ok(()) };
        fs::rename(path, &self.target).map_err(|e| Error::io(format!("cannot rename {} to {target}", path.display()), e))?;
        unfinished().remove(path);
        self.path = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nothing can be done about a failure here, and what made us give up is reported already.
            let _ = fs::remove_file(path);
            unfinished().remove(path);
        }
    }
}

/// A name in a folder under which `make` can make something: it is told when there is such a name already.
fn fresh_name<T>(folder: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(PathBuf, T)> {
    let mut last = None;
    for _ in 0..NAMES {
        // Not made from the target's name, which may already be as long as names can be; and not from the process alone, whose
        // number other processes had, and were killed.
        let random = RandomState::new().build_hasher().finish();
        let path = folder.join(format!(".etx-{}-{random:016x}.tmp", std::process::id()));
        unfinished().insert(path.clone());
        match make(&path) {
            Ok(made) => return Ok((path, made)),
            Err(e) => {
                unfinished().remove(&path);
                if e.kind() != io::ErrorKind::AlreadyExists {
                    return Err(e);
                }
                last = Some(e);
            }
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
}

/// A file under a temporary name.
fn named(folder: &Path) -> io::Result<(PathBuf, File)> {
    fresh_name(folder, |path| OpenOptions::new().write(true).create_new(true).open(path))
}

/// A file in this folder that has no name, where the system has such files and can name them later.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)).ok()?);
    descriptor(&file).exists().then_some(file)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &Path) -> Option<File> {
    None
}

/// Names a file that has no name.
#[cfg(target_os = "linux")]
fn link(file: &File, name: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};
    Ok(rustix::fs::linkat(CWD, descriptor(file), CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What leads to an open file in the absence of a name.
#[cfg(target_os = "linux")]
fn descriptor(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("etx-file-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn write(file: &NewFile, text: &str) {
        file.file().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn nothing_shows_before_it_is_complete_and_what_was_there_is_replaced() {
        let folder = Folder::new("whole");
        let target = folder.0.join("a");
        for text in ["one", "two"] {
            let file = NewFile::create(&target).unwrap();
            write(&file, text);
            if cfg!(target_os = "linux") && file.path.is_none() {
                assert_eq!(folder.names().len(), usize::from(text == "two"), "it has a name");
            }
            file.complete().unwrap();
            assert_eq!((fs::read_to_string(&target).unwrap().as_str(), folder.names()), (text, vec!["a".to_owned()]));
        }
        drop(NewFile::create(folder.0.join("b")).unwrap());
        assert_eq!(folder.names(), ["a"]);
    }

    #[test]
    fn names_that_were_left_over_do_not_stand_in_the_way() {
        let folder = Folder::new("left");
        for n in 0..NAMES {
            fs::write(folder.0.join(format!(".etx-{}-{n}.tmp", std::process::id())), "").unwrap();
        }
        let (path, file) = named(&folder.0).unwrap();
        let file = NewFile { file, path: Some(path), target: folder.0.join("a"), folder: folder.0.clone() };
        write(&file, "one");
        file.complete().unwrap();
        assert_eq!(folder.names().len() as u32, NAMES + 1);
        assert_eq!(fs::read_to_string(folder.0.join("a")).unwrap(), "one");
    }

    #[test]
    fn files_under_a_temporary_name_go_when_the_process_ends() {
        let folder = Folder::new("killed");
        let (path, file) = named(&folder.0).unwrap();
        assert_eq!(folder.names().len(), 1);
        let kept = NewFile { file, path: Some(path), target: folder.0.join("a"), folder: folder.0.clone() };
        for path in unfinished().iter().filter(|p| p.starts_with(&folder.0)) {
            fs::remove_file(path).unwrap();
        }
        assert_eq!(folder.names(), [""; 0]);
        drop(kept);
        assert!(unfinished().iter().all(|p| !p.starts_with(&folder.0)));
    }

    #[test]
    fn links_are_followed_also_to_what_is_not_there_yet() {
        let folder = Folder::new("links");
        std::os::unix::fs::symlink("real", folder.0.join("link")).unwrap();
        std::os::unix::fs::symlink("link", folder.0.join("first")).unwrap();
        std::os::unix::fs::symlink("absent/real", folder.0.join("dangling")).unwrap();
        std::os::unix::fs::symlink("round", folder.0.join("round")).unwrap();
        for text in ["one", "two"] {
            let file = NewFile::create(folder.0.join("first")).unwrap();
            write(&file, text);
            file.complete().unwrap();
            assert_eq!(fs::read_to_string(folder.0.join("real")).unwrap(), text);
        }
        assert!(folder.0.join("first").is_symlink() && folder.0.join("link").is_symlink());
        assert!(NewFile::create(folder.0.join("dangling")).unwrap_err().to_string().contains("folder "));
        assert!(NewFile::create(folder.0.join("round")).unwrap_err().to_string().contains("lead nowhere"));
    }
}
