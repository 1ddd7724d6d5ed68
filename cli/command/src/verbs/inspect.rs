//! `etx inspect`: what is in a file.

mod program;
mod pte;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use etx::Kind;
use etx::ir::weights::MappedFile;
use serde::Serialize;

use super::{Bytes, Exported, Failure, Format, files, to_json};

/// Summarise a file
#[derive(clap::Args)]
#[command(after_help = "Example:
  etx inspect model.pte --format json

Exit status: 0 printed, 2 bad input.")]
pub(crate) struct Opts {
    /// A .pt2, graph.json, .etir, .pte or .safetensors file; `-` is standard input
    #[arg(value_parser = files::input())]
    file: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    exported: Exported,
}

/// What is in a file.
#[derive(Serialize)]
struct Summary {
    file: String,
    /// Which of the formats it is.
    kind: &'static str,
    bytes: u64,
    #[serde(flatten)]
    contents: Contents,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Contents {
    Program(program::Summary),
    Pte(pte::Summary),
    Tensors { tensors: Vec<Tensor> },
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    dtype: &'static str,
    shape: Vec<u64>,
    bytes: u64,
}

impl Opts {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let file = MappedFile::open(&self.file)?;
        let kind = Kind::of_file(&file)?;
        let bytes = file.bytes().len() as u64;
        let contents = match kind {
            Kind::Pte => Contents::Pte(pte::summarise(file)?),
            Kind::Safetensors => Contents::Tensors { tensors: tensors(&file)? },
            Kind::Pt2 | Kind::GraphJson | Kind::Text => Contents::Program(program::summarise(&self.exported.options().load_file(file)?)),
        };
        let summary = Summary { file: self.file.display().to_string(), kind: kind.name(), bytes, contents };
        match self.format {
            Format::Json => Ok(out.write_all(&to_json(&summary)?)?),
            Format::Text => Ok(summary.print(out)?),
        }
    }
}

fn tensors(file: &MappedFile) -> Result<Vec<Tensor>, Failure> {
    let all = etx::import::safetensors::open_file(file)?;
    let tensor = |(name, data): (String, etx::ir::weights::TensorData)| Tensor {
        name,
        dtype: data.dtype().name(),
        shape: data.shape().to_vec(),
        bytes: data.byte_len(),
    };
    Ok(all.into_iter().map(tensor).collect())
}

impl Summary {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}: {}, {}", self.file, self.kind, Bytes(self.bytes))?;
        match &self.contents {
            Contents::Program(program) => program.print(out),
            Contents::Pte(pte) => pte.print(out),
            Contents::Tensors { tensors } => {
                tensors.iter().try_for_each(|t| writeln!(out, "  {}: {}{:?}, {}", t.name, t.dtype, t.shape, Bytes(t.bytes)))
            }
        }
    }
}

/// A histogram, most frequent first.
fn print_counts(what: &str, counts: &BTreeMap<String, u64>, out: &mut dyn Write) -> io::Result<()> {
    if counts.is_empty() {
        return Ok(());
    }
    let mut sorted: Vec<(&String, &u64)> = counts.iter().collect();
    sorted.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
    writeln!(out, "  {what}:")?;
    sorted.into_iter().try_for_each(|(name, count)| writeln!(out, "  {count:>7}  {name}"))
}
