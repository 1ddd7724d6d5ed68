//! `etx ops`: what can be lowered.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;

use etx::ir::op::OpId;
use etx::partitioner::mlx;
use etx::passes::{has_formula, is_respelled};
use serde::Serialize;

use super::{Failure, to_json};

/// List the operators that a backend runs, what they become and when they are refused
///
/// An operator is lowered to instructions; or it has a formula over simpler operators, which is tried wherever the backend
/// refuses a call; or it is another spelling of one that is listed; or it is refused for good. Operators of control flow
/// and checks are not listed: passes inline or remove them.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  etx ops --format md > OPERATORS.md\n  etx ops upsample gelu\n\nExit status: 0 printed, 2 for a name that no operator has."
)]
pub(crate) struct Opts {
    /// Only operators whose names contain one of these
    names: Vec<String>,
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
    becomes: String,
    refused_when: String,
}

/// What becomes of an operator, if anything is known of it. The tables are those that lowering uses.
fn operator(op: OpId, lowered: &HashMap<&str, &mlx::Operator>) -> Option<Operator> {
    const FORMULA: &str = "a formula over simpler operators";
    const NOTHING: &str = "nothing";
    let (becomes, refused_when) = match (lowered.get(op.target()), has_formula(op)) {
        (Some(o), false) => (o.becomes.to_owned(), o.conditions.to_owned()),
        (Some(o), true) if o.conditions.is_empty() => (format!("{}; else {FORMULA}", o.becomes), String::new()),
        (Some(o), true) => (format!("{}; else {FORMULA}", o.becomes), format!("{}, and the formula does not apply", o.conditions)),
        (None, true) => (FORMULA.to_owned(), mlx::refusal(op).map_or_else(String::new, |(why, _)| why.to_owned())),
        (None, false) => match op.synonym_of().or_else(|| op.copy_to_view()).or_else(|| op.inplace_to_functional()) {
            Some(other) => {
                let main = operator(other, lowered)?;
                (format!("as {other}"), if main.becomes == NOTHING { main.refused_when } else { String::new() })
            }
            None if is_respelled(op) => ("a canonical spelling".to_owned(), String::new()),
            None => (NOTHING.to_owned(), mlx::refusal(op)?.0.to_owned()),
        },
    };
    Some(Operator { operator: op.target(), becomes, refused_when })
}

impl Opts {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let lowered = mlx::operators().map(|o| (o.target, o)).collect();
        let named = |op: &OpId| self.names.is_empty() || self.names.iter().any(|name| op.target().contains(name));
        // Those of the schema files, and the functional twins that are lowered.
        let ops: BTreeSet<OpId> = OpId::all().chain(mlx::operators().map(|o| OpId::of(o.target))).collect();
        let mut table: Vec<Operator> = ops.into_iter().filter(named).filter_map(|op| operator(op, &lowered)).collect();
        table.sort_by_key(|o| o.operator);
        if let Some(name) = self.names.iter().find(|&name| !table.iter().any(|o| o.operator.contains(name))) {
            let help = "operators have torch's names, as in `aten.add.Tensor`; the program's own must be written with known ones";
            return Err(Failure::input(format_args!("no operator that is lowered, respelled or refused for good is named like `{name}`"))
                .help(help));
        }
        match self.format {
            Format::Json => out.write_all(&to_json(&table)?)?,
            Format::Md => {
                writeln!(out, "| operator | becomes | refused when |\n|---|---|---|")?;
                for o in table {
                    writeln!(out, "| `{}` | {} | {} |", o.operator, cell(&o.becomes), cell(&o.refused_when))?;
                }
            }
            Format::Text => {
                let width = |f: fn(&Operator) -> &str| table.iter().map(|o| f(o).chars().count()).max().unwrap_or(0);
                let (first, second) = (width(|o| o.operator), width(|o| &o.becomes));
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
