//! Running the command in a folder of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// The bundled example.
pub(crate) fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/llama").join(file)
}

/// A program of the conformance cases.
pub(crate) fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(file)
}

/// A folder that is removed in the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Names of all files in it, hidden ones too.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs the command here.
    pub(crate) fn etx<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        Done::of(self.command().args(args))
    }

    /// The command, to be run here.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_etx"));
        command.current_dir(&self.0);
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Whether it was told to lower.
    lowers: bool,
}

impl Done {
    pub(crate) fn of(command: &mut Command) -> Self {
        let lowers = command.get_args().next().is_some_and(|verb| verb == "lower");
        let Output { status, stdout, stderr } = command.output().unwrap();
        Done { status: status.code(), stdout: String::from_utf8(stdout).unwrap(), stderr: String::from_utf8(stderr).unwrap(), lowers }
    }

    /// It did what was asked and said nothing beside, but for what lowering says of every file.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert!(self.status == Some(0) && (self.lowers || self.stderr.is_empty()), "{self:?}");
        self.stdout
    }

    /// It did what was asked; gives what it said on standard error.
    #[track_caller]
    pub(crate) fn told(self) -> String {
        assert_eq!(self.status, Some(0), "{self:?}");
        self.stderr
    }

    /// It refused the input with one error, which is returned.
    #[track_caller]
    pub(crate) fn bad(self) -> String {
        assert_eq!((self.status, &*self.stdout), (Some(2), ""), "{self:?}");
        assert!(self.stderr.starts_with("error: ") && self.stderr.matches("error: ").count() == 1, "{}", self.stderr);
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("this is a bug"), "{}", self.stderr);
        self.stderr
    }
}

/// Arguments that may be paths.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { [$(std::ffi::OsString::from($arg)),*] };
}
pub(crate) use args;

/// The `model.json` of the bundled example, which its archive holds uncompressed.
pub(crate) fn graph_json() -> Value {
    let archive = fs::read(example("model.pt2")).unwrap();
    let name = b"models/model.json";
    let entry = archive.windows(name.len()).position(|w| w == name).unwrap() + name.len();
    let start = entry + archive[entry..].iter().position(|&b| b == b'{').unwrap();
    serde_json::Deserializer::from_slice(&archive[start..]).into_iter().next().unwrap().unwrap()
}

pub(crate) fn json(text: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(text.as_ref()).unwrap()
}
