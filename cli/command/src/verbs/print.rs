//! `etx print`: a file as text.

mod plan;

use std::io::Write;
use std::path::PathBuf;

use etx::Kind;
use etx::ir::text;
use etx::ir::weights::MappedFile;
use etx::serializer::pte::PteFile;

use super::{Exported, Failure, files};

/// Print a program as text
///
/// Programs print in etx's text form (.etir), which the other commands read; the plans of a .pte print with the MLX
/// programs that they run.
#[derive(clap::Args)]
#[command(after_help = "Example:
  etx print model.pt2 --method forward | less

Exit status: 0 printed, 2 bad input.")]
pub(crate) struct Opts {
    /// A .pt2, graph.json, .etir or .pte file; `-` is standard input
    #[arg(value_parser = files::input())]
    file: PathBuf,
    /// Only this method
    #[arg(long)]
    method: Option<String>,
    #[command(flatten)]
    exported: Exported,
}

impl Opts {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let file = MappedFile::open(&self.file)?;
        if Kind::of_file(&file)? == Kind::Pte {
            let pte = PteFile::of(file)?;
            if let Some(name) = &self.method {
                pte.method(name)?;
            }
            return plan::print(&pte, self.method.as_deref(), out);
        }
        let mut program = self.exported.options().load_file(file)?;
        if let Some(name) = &self.method {
            let names: Vec<String> = program.methods.iter().map(|m| m.name.to_string()).collect();
            program.methods.retain(|m| *m.name == **name);
            if program.methods.is_empty() {
                let text = format!("{}: no method {name:?}; there are: {}", self.file.display(), names.join(", "));
                return Err(Failure::input(text));
            }
        }
        Ok(out.write_all(text::print(&program).as_bytes())?)
    }
}
