//! Where verbs read from and write to: `-`, and names that must not be used twice.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use etx::Kind;
use etx::ir::program::Program;
use etx::ir::weights::MappedFile;
use etx::runtime::Runtime;
use etx::serializer::file::{self, NewFile};

use super::Failure;

/// Standard input under a name that can be opened.
const STDIN: &str = "/dev/stdin";

/// Reads the name of an input.
pub(super) fn input() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(named)
}

/// The input of this name: `-` is standard input.
pub(super) fn named(name: PathBuf) -> PathBuf {
    if name.as_os_str() == "-" { STDIN.into() } else { name }
}

/// Whether this is standard input.
pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new(STDIN)
}

/// Whether this is standard output.
pub(super) fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Opens a lowered program.
pub(super) fn open_lowered(path: &Path) -> Result<Runtime, Failure> {
    let file = MappedFile::open(path)?;
    let name = path.display();
    match Kind::of_file(&file) {
        Ok(Kind::Safetensors) => {
            Err(Failure::input(format_args!("{name} holds tensors, not a program")).help("inputs of calls go with --inputs"))
        }
        Ok(kind @ (Kind::Pt2 | Kind::GraphJson | Kind::Text)) => {
            let more = if kind == Kind::GraphJson { " --weights FILE.safetensors" } else { "" };
            let target = if is_stdin(path) { "OUT.pte".into() } else { path.with_extension("pte").display().to_string() };
            Err(Failure::input(format_args!("{name} is a program as it was exported (.{}), and only lowered ones run", kind.name()))
                .help(format_args!("lower it first: etx lower {name}{more} -o {target}")))
        }
        // What is no program at all is said as what is wrong with it as one.
        Ok(Kind::Pte) | Err(_) => Ok(Runtime::of(file)?),
    }
}

/// Writes a file that is there completely or not at all; `-` is standard output.
pub(super) fn write(path: &Path, bytes: &[u8], out: &mut dyn Write) -> Result<(), Failure> {
    if is_stdout(path) {
        return Ok(out.write_all(bytes)?);
    }
    let file = NewFile::create(path)?;
    file.file().write_all(bytes).map_err(|e| Failure::input(format_args!("cannot write {}: {e}", path.display())))?;
    Ok(file.complete()?)
}

/// What a verb is to write to: the option that says so, and the name given with it.
pub(super) struct Output<'a> {
    pub(super) option: &'a str,
    pub(super) path: &'a Path,
    /// Whether it is nothing for people to read.
    pub(super) binary: bool,
}

/// Fails now if writing would fail later for want of a folder or a permission, if two outputs would be one, or an output an input.
pub(super) fn check(outputs: &[Output<'_>], inputs: &[&Path]) -> Result<(), Failure> {
    for output in outputs {
        if !is_stdout(output.path) {
            NewFile::create(output.path)?;
        } else if output.binary && io::stdout().is_terminal() {
            return Err(Failure::input(format_args!("{} - would write bytes to a terminal", output.option))
                .help("name a file, or send standard output to one"));
        }
    }
    for (i, output) in outputs.iter().enumerate() {
        if let Some(other) = outputs.iter().take(i).find(|other| is_same(other.path, output.path)) {
            let (a, b, name) = (other.option, output.option, if is_stdout(output.path) { "standard output" } else { "one file" });
            let both = if a == b { format!("{a} is given twice for {name}") } else { format!("{a} and {b} are {name}") };
            return Err(Failure::input(format_args!("{both}: {}", output.path.display())).help("give each a name of its own"));
        }
    }
    keep(outputs, inputs)
}

/// Fails if an output would replace an input.
pub(super) fn keep(outputs: &[Output<'_>], inputs: &[&Path]) -> Result<(), Failure> {
    for output in outputs.iter().filter(|o| !is_stdout(o.path)) {
        if let Some(input) = inputs.iter().find(|input| is_same(input, output.path)) {
            let (option, name) = (output.option, input.display());
            return Err(Failure::input(format_args!("{option} {} would replace the input {name}", output.path.display()))
                .help("choose another name for what is written"));
        }
    }
    Ok(())
}

/// The files that weights of a program are in.
pub(super) fn weight_files(program: &Program) -> Vec<&Path> {
    let files: BTreeSet<&Path> = program.weights().iter().filter_map(|w| Some(w.data.mapping()?.0.path())).collect();
    files.into_iter().collect()
}

/// Whether two names are of one file, through links, too; the files need not be there.
fn is_same(a: &Path, b: &Path) -> bool {
    if is_stdout(a) || is_stdout(b) {
        return a == b;
    }
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), Err(_)) => absolute(a) == absolute(b),
        _ => false,
    }
}

/// The name of a file that is not there.
fn absolute(path: &Path) -> Option<PathBuf> {
    let path = file::destination(path);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(folder.canonicalize().ok()?.join(path.file_name()?))
}
