//! `etx ops`: what can be lowered.

use std::io::Write;

use etx::partitioner::mlx::operators;
use serde::Serialize;

use super::{Failure, to_json};

/// List the operators that a backend runs, what they become and when they are refused
///
/// Operators that are not listed may still lower: passes rewrite some into others first.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  etx ops --format md > OPERATORS.md\n\nExit status: 0 printed.")]
pub(crate) struct Opts {
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// A table for people
    Text,
    /// A list of objects
    Json,
    /// A table in Markdown
    Md,
}

#[derive(Serialize)]
struct Operator {
    operator: &'static str,
    becomes: &'static str,
    refused_when: &'static str,
}

impl Opts {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let mut table: Vec<Operator> =
            operators().map(|o| Operator { operator: o.target, becomes: o.becomes, refused_when: o.conditions }).collect();
        table.sort_by_key(|o| o.operator);
        match self.format {
            Format::Json => out.write_all(&to_json(&table)?)?,
            Format::Md => {
                writeln!(out, "| operator | becomes | refused when |\n|---|---|---|")?;
                for o in table {
                    writeln!(out, "| `{}` | {} | {} |", o.operator, cell(o.becomes), cell(o.refused_when))?;
                }
            }
            Format::Text => {
                let width = |f: fn(&Operator) -> &str| table.iter().map(|o| f(o).chars().count()).max().unwrap_or(0);
                let (first, second) = (width(|o| o.operator), width(|o| o.becomes));
                for o in &table {
                    let line = format!("{:first$}  {:second$}  {}", o.operator, o.becomes, o.refused_when);
                    writeln!(out, "{}", line.trim_end())?;
                }
            }
        }
        Ok(())
    }
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
