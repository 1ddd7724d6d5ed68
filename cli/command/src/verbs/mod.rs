//! The verbs, one file each: options (`Opts`) and what they do (`run`), and what all of them share.

mod files;
#[cfg(feature = "generate")]
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod lower;
pub(crate) mod ops;
pub(crate) mod print;
mod progress;
mod quantized;
pub(crate) mod run;

use std::fmt::{self, Display};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use etx::LoadOptions;
use etx::ir::DType;

/// Why a verb did not do what was asked: the exit status and the text that say so.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    /// Exit status for bad input.
    const INPUT: u8 = 2;
    /// Exit status for a bug in etx.
    pub(crate) const BUG: u8 = 3;

    /// Something is wrong with what was given.
    pub(crate) fn input(text: impl Display) -> Self {
        Failure { status: Self::INPUT, text: text.to_string() }
    }

    /// Adds what to do about it.
    pub(crate) fn help(mut self, help: impl Display) -> Self {
        self.text = format!("{}\nhelp: {help}", self.text);
        self
    }

    /// Says where it happened, unless it is a reader that has seen enough.
    pub(crate) fn within(mut self, place: impl Display) -> Self {
        if !self.text.is_empty() {
            self.text = format!("{place}: {}", self.text);
        }
        self
    }

    /// Says it on standard error; gives the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.text.is_empty() {
            // Nobody is left to tell when this fails.
            let _ = writeln!(io::stderr(), "error: {}", etx::ir::error::shortened(self.text.clone()));
        }
        ExitCode::from(self.status)
    }
}

impl From<etx::ir::error::Error> for Failure {
    fn from(e: etx::ir::error::Error) -> Self {
        let status = if e.kind() == etx::ir::error::ErrorKind::Bug { Self::BUG } else { Self::INPUT };
        Failure { status, text: e.to_string() }
    }
}

impl From<etx::serializer::Error> for Failure {
    fn from(e: etx::serializer::Error) -> Self {
        let cause = std::error::Error::source(&e).and_then(|cause| cause.downcast_ref::<io::Error>());
        match cause.map(io::Error::kind) {
            Some(kind @ io::ErrorKind::BrokenPipe) => io::Error::from(kind).into(),
            _ => Self::input(e),
        }
    }
}

impl From<etx::runtime::Error> for Failure {
    fn from(e: etx::runtime::Error) -> Self {
        Self::input(e)
    }
}

#[cfg(feature = "generate")]
impl From<etx_cli::generate::Error> for Failure {
    fn from(e: etx_cli::generate::Error) -> Self {
        Self::input(e)
    }
}

impl From<etx::lower::Error> for Failure {
    fn from(e: etx::lower::Error) -> Self {
        match e {
            etx::lower::Error::Ir(e) => e.into(),
            etx::lower::Error::Write(e) => e.into(),
            etx::lower::Error::Internal(_) => Failure { status: Self::BUG, text: e.to_string() },
            _ => Self::input(e),
        }
    }
}

/// Failures to write to standard output, the only plain [`io::Error`]s that verbs meet.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        // The reader has seen enough: `etx print … | head` is no failure.
        if e.kind() == io::ErrorKind::BrokenPipe {
            return Failure { status: 0, text: String::new() };
        }
        Self::input(format_args!("cannot write to standard output: {e}"))
    }
}

/// How many threads compute.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Threads {
    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

impl Threads {
    /// Before anything is computed.
    fn apply(self) -> Result<(), Failure> {
        Ok(self.threads.map_or(Ok(()), |n| etx::runtime::set_threads(n.into()))?)
    }
}

/// What a method may take.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Limits {
    /// Memory for tensors at a time; a program that asks for more is refused [default: 1 GiB and 16 bytes for each byte of the
    /// file and of the inputs]
    #[arg(long, value_name = "BYTES")]
    max_memory: Option<u64>,
    /// Instructions of one call [default: 100000, and for each instruction of the program 1024 and the number of elements of the
    /// inputs]
    #[arg(long, value_name = "N")]
    max_steps: Option<u64>,
}

impl Limits {
    /// The runtime with these limits.
    fn of(self, mut runtime: etx::runtime::Runtime) -> etx::runtime::Runtime {
        runtime.set_limits(etx::runtime::Limits { memory: self.max_memory, steps: self.max_steps });
        runtime
    }
}

/// Whether to be silent.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Quiet {
    /// Say nothing on standard error but errors
    #[arg(short, long)]
    quiet: bool,
}

/// Programs as they were exported.
#[derive(Debug, clap::Args)]
struct Exported {
    /// Weights of a graph.json: a safetensors file, or the index of a sharded set
    #[arg(long, value_name = "FILE", value_parser = files::input())]
    weights: Vec<PathBuf>,
    /// Let an .etir name weights outside its own folder: it is trusted as much as the command line
    #[arg(long)]
    allow_outside: bool,
}

impl Exported {
    fn options(&self) -> LoadOptions {
        LoadOptions { weights: self.weights.clone(), allow_outside: self.allow_outside }
    }
}

/// How a verb prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs: the same data
    Json,
}

/// The value as indented JSON, with a line end.
fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| Failure {
        status: Failure::BUG,
        text: format!("cannot write this as JSON: {e}\nhelp: this is a bug in etx; please report it"),
    })?;
    json.push(b'\n');
    Ok(json)
}

/// Shows a tensor of a plan as `f32[1, ≤128]`: sizes that may vary have their largest value.
struct Shape<'a> {
    dtype: Option<DType>,
    sizes: &'a [u64],
    dynamic: bool,
}

impl Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            Some(dtype) => write!(f, "{dtype}[")?,
            None => f.write_str("?[")?,
        }
        for (i, size) in self.sizes.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            // One of size 1 can only become 0, and files do not say which of several axes vary.
            let bound = if self.dynamic && *size > 1 { "≤" } else { "" };
            write!(f, "{comma}{bound}{size}")?;
        }
        f.write_str("]")
    }
}

/// A number of bytes for people: three digits.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut amount, mut unit) = (self.0 as f64, "B");
        for next in ["kB", "MB", "GB", "TB"] {
            if amount < 999.5 {
                break;
            }
            (amount, unit) = (amount / 1000.0, next);
        }
        let digits = if unit == "B" || amount >= 99.95 { 0 } else { 1 };
        write!(f, "{amount:.digits$} {unit}")
    }
}

/// `1 node`, `2 nodes`.
struct Count(usize, &'static str);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Count, Shape};
    use etx::ir::DType;

    #[test]
    fn people_read_short_numbers() {
        let shown = [0, 999, 1000, 99_949, 99_951, 999_499, 999_500, 2_506_771_539].map(|n| Bytes(n).to_string());
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "99.9 kB", "100 kB", "999 kB", "1.0 MB", "2.5 GB"]);
        assert_eq!([Count(1, "node").to_string(), Count(0, "node").to_string()], ["1 node", "0 nodes"]);
    }

    #[test]
    fn sizes_that_vary_are_bounds() {
        let shape = Shape { dtype: Some(DType::Int64), sizes: &[1, 128], dynamic: true };
        assert_eq!(shape.to_string(), "i64[1, ≤128]");
        assert_eq!(Shape { dynamic: false, ..shape }.to_string(), "i64[1, 128]");
    }
}
