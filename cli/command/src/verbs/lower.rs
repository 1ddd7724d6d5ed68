//! `etx lower`: program in, `.pte` out.

mod inputs;
mod notes;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use etx::Lowering;
use etx::emit::{Constant, ConstantMethod};
use etx::ir::program::Program;
use etx::ir::text;
use etx::lower::{Error, Report};
use etx::passes::quantize::{Quantize, Rules};
use etx::passes::{Dump, F64AsF32, Options, Pipeline, When};
use serde_json::Value as Json;

use super::files::{self, Output};
use super::progress::Progress;
use super::quantized;
use super::{Bytes, Count, Exported, Failure, Quiet, to_json};

/// Lower a program to an ExecuTorch file
///
/// Nothing is written unless the backend runs every node; those it refuses are all listed, with their source lines.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE, after_long_help = long_help())]
pub(crate) struct Opts {
    /// The program: a .pt2 archive, a graph.json, or etx's text form (.etir); `-` is standard input
    #[arg(required_unless_present = "methods", value_parser = files::input())]
    input: Option<PathBuf>,
    /// What runs it
    #[arg(long, value_enum, default_value_t = Backend::Mlx)]
    backend: Backend,
    /// File to write; `-` is standard output [default: INPUT with the extension .pte]
    #[arg(short, long, value_name = "OUT.pte")]
    output: Option<PathBuf>,
    /// One more method, from a program of its own or out of several that a file has; weights that are equal are written once
    #[arg(long = "method", id = "methods", value_name = "NAME=FILE", value_parser = named_file)]
    methods: Vec<(String, PathBuf)>,
    /// A method that returns a constant, which runners ask for, such as get_max_context_len=2048: an integer, a number, true or
    /// false, a "text", or a list of those, such as get_eos_ids=[128001,128009]
    #[arg(long = "constant", id = "constants", value_name = "NAME=VALUE", value_parser = constant)]
    constants: Vec<ConstantMethod>,
    /// Plan memory for at most this many elements along dimensions for which the program gives no upper bound
    #[arg(long, value_name = "N", default_value_t = etx::lower::DEFAULT_MAX_SIZE)]
    max_size: u32,
    /// Memory for what lowering makes of the program: constants, and calls that formulas write [default: 256 MiB and 128 KiB for
    /// each call of the program]
    #[arg(long, value_name = "BYTES")]
    max_memory: Option<u64>,
    /// Compute in f32 what the program computes in f64, its inputs and results included; notes say where
    #[arg(long)]
    f64_as_f32: bool,
    #[command(flatten)]
    exported: Exported,
    /// Write what became of every node, what the passes did, sizes and times; `-` is standard output
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    #[command(flatten)]
    quiet: Quiet,
    /// Say on standard error how long each phase and each pass took
    #[arg(long)]
    timings: bool,
    /// Quantise weights by these rules, such as `4w:64, embedding=8w`; --help has all of them
    #[arg(long, value_name = "RULES")]
    quantize: Vec<String>,
    /// Lower, print which weights would be quantised and how, with sizes, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten, next_help_heading = "Passes")]
    passes: Passes,
}

/// What to change about the passes, and what to see of them.
#[derive(clap::Args)]
struct Passes {
    /// Verify the program after every pass
    #[arg(long)]
    verify_each: bool,
    /// Leave out a pass
    #[arg(long, value_name = "PASS")]
    disable_pass: Vec<String>,
    /// Go no further than this pass, and write the program as text: to -o, else to standard output
    #[arg(long, value_name = "PASS")]
    stop_after: Option<String>,
    /// Print each method before this pass
    #[arg(long, value_name = "PASS")]
    dump_before: Vec<String>,
    /// Print each method after this pass
    #[arg(long, value_name = "PASS")]
    dump_after: Vec<String>,
    /// Folder for what is dumped, a file each [default: standard error]
    #[arg(long, value_name = "DIR")]
    dump_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Backend {
    /// ExecuTorch's MLX delegate, for Apple hardware
    Mlx,
}

const EXAMPLE: &str = "Example:
  etx lower model.pt2 --backend mlx -o model.pte --report report.json

Exit status: 0 written, 2 bad input or refused nodes, 3 a bug in etx.";

const RULES: &str = r"Rules for quantising, separated by commas; of those that fit a weight, the last decides:
  [SELECTOR=]FORMAT
          SELECTOR is an operator (linear, embedding, expert, all), a /REGEX/ that is looked for in the
          weight's name and in the path of the module that uses it, or both: linear/lm_head/=8w:64.
          Without one, the format is for linear layers and experts.
  2w 3w 4w 5w 6w 8w
          Integers of so many bits with a scale a group: 4w:32, 4w:64, 4w:128 or 4w:row, each scale with
          the least squared error (hqq), or 4w:64:symmetric or 4w:64:asymmetric from the largest and
          smallest values. Short, 8w is 8w:row, and the others have groups of 32.
  nvfp4 mxfp4 mxfp8
          Floats of 4 and 8 bits, in groups of 16 and 32.
  none
          As it is.
Scales and codes are those of torchao; `4w, embedding=4w` is --qlinear 4w --qembedding 4w of ExecuTorch's
export scripts. A weight used by an embedding and a linear layer stays one if both get the same format,
else it is written twice. --quantize may be given several times.
";

fn long_help() -> String {
    let mut help = "Passes, in order:\n".to_owned();
    // Names and laws do not depend on what the backend accepts.
    let passes = Pipeline::standard().then(F64AsF32::default()).then(Quantize::new(Rules::default()));
    for (name, law) in passes.for_backend(|_, _| Vec::new()).passes() {
        help.push_str(&format!("  {name}\n          {law}\n"));
    }
    format!("{RULES}\n{help}\n{EXAMPLE}")
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), files::named(file.into()))),
        _ => Err("NAME=FILE expected, such as prefill=prefill.pt2".to_owned()),
    }
}

/// Reads `NAME=VALUE`; values are written as in JSON.
fn constant(text: &str) -> Result<ConstantMethod, String> {
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err("NAME=VALUE expected, such as get_eos_ids=[2,7]".to_owned());
    };
    let json = serde_json::from_str(value).map_err(|_| format!("{value:?} is no integer, number, true, false, \"text\" or [list]"))?;
    let value = match json {
        Json::Array(items) if !items.is_empty() => Constant::List(items.iter().map(single).collect::<Result<_, _>>()?),
        other => single(&other)?,
    };
    Ok(ConstantMethod { name: name.to_owned(), value })
}

fn single(value: &Json) -> Result<Constant, String> {
    match value {
        Json::Bool(b) => Ok(Constant::Bool(*b)),
        Json::String(s) => Ok(Constant::Str(s.clone())),
        Json::Number(n) if n.is_f64() => n.as_f64().map(Constant::Float).ok_or_else(|| format!("{n} is too large")),
        Json::Number(n) => n.as_i64().map(Constant::Int).ok_or_else(|| format!("{n} does not fit 64 bits")),
        Json::Null | Json::Array(_) | Json::Object(_) => Err(format!("{value} is no constant that runners know")),
    }
}

impl Opts {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        let stop = self.passes.stop_after.is_some();
        let rules = self.rules()?;
        let target = match (&self.output, &self.input) {
            (Some(output), _) => output.clone(),
            _ if stop => "-".into(),
            (None, Some(input)) if !files::is_stdin(input) => input.with_extension("pte"),
            (None, _) => return Err(Failure::input("there is no INPUT to name the file after").help("name it with -o OUT.pte")),
        };
        // Before any work is done.
        let program = (!self.dry_run).then_some(Output { option: "-o", path: &target, binary: !stop });
        let report = self.report.as_deref().map(|path| Output { option: "--report", path, binary: false });
        let outputs: Vec<Output<'_>> = program.into_iter().chain(report).collect();
        let inputs = self.input.iter().chain(self.methods.iter().map(|(_, path)| path)).chain(&self.exported.weights);
        files::check(&outputs, &inputs.map(PathBuf::as_path).collect::<Vec<_>>())?;
        if let Some(folder) = self.passes.dump_dir.as_deref()
            && !folder.is_dir()
        {
            return Err(Failure::input(format_args!("no folder {} to dump to", folder.display())));
        }

        let progress = Progress::new(self.quiet);
        let start = Instant::now();
        let program = self.load(&progress)?;
        let load = start.elapsed().as_secs_f64();
        files::keep(&outputs, &files::weight_files(&program))?;

        progress.phase("lowering");
        let lowering = match self.backend {
            Backend::Mlx => Lowering::mlx(),
        };
        let mut lowering = lowering.max_size(self.max_size).f64_as_f32(self.f64_as_f32);
        if let Some(bytes) = self.max_memory {
            lowering = lowering.max_memory(bytes);
        }
        let mut lowering = self.constants.iter().cloned().fold(lowering.options(self.passes.options()), Lowering::constant);
        if let Some(rules) = rules {
            lowering = lowering.quantize(rules);
        }
        if stop {
            let (program, report) = lowering.rewrite(program)?;
            files::write(&target, text::print(&program).as_bytes(), out)?;
            return self.account(report, load, out);
        }
        let lowered = match lowering.run(program) {
            Ok(lowered) => lowered,
            Err(Error::Refused(report)) => {
                drop(progress);
                self.account((*report).clone(), load, out)?;
                return Err(Error::Refused(report).into());
            }
            Err(e) => return Err(e.into()),
        };
        if self.dry_run {
            quantized::plan(lowered.report(), out)?;
            self.note(lowered.report(), &progress);
            return self.account(lowered.report().clone(), load, out);
        }
        lowered.quantize(&|more, all| progress.advance("quantising", more, all))?;
        let to_stdout = files::is_stdout(&target);
        let name = if to_stdout { "standard output".to_owned() } else { target.display().to_string() };
        let advance = |more, all| progress.advance(format_args!("writing {name}"), more, all);
        let report = if to_stdout { lowered.write_to(out, &advance)? } else { lowered.write_watched(&target, &advance)? };
        let lost = quantized::outcome(&report)?;
        progress.done(format_args!("{lost}{name}: {}", summary(&report, start.elapsed().as_secs_f64())));
        if let Some(line) = shared(&report) {
            progress.done(line);
        }
        self.note(&report, &progress);
        self.account(report, load, out)
    }

    fn rules(&self) -> Result<Option<Rules>, Failure> {
        if self.quantize.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.quantize.join("\n").parse()?))
    }

    fn load(&self, progress: &Progress) -> Result<Program, Failure> {
        let options = self.exported.options();
        let mut program = Program::new();
        let methods = self.methods.iter().map(|(name, path)| (Some(name.as_str()), path));
        for (name, path) in self.input.iter().map(|path| (None, path)).chain(methods) {
            progress.phase(format_args!("reading {}", path.display()));
            options.load_into(&mut program, name, path)?;
        }
        Ok(program)
    }

    fn note(&self, report: &Report, progress: &Progress) {
        for note in notes::notes(report) {
            progress.done(note);
        }
    }

    /// Writes the report and the times, where they are wanted.
    fn account(&self, mut report: Report, load: f64, out: &mut dyn Write) -> Result<(), Failure> {
        report.seconds.load = load;
        if self.timings {
            // Nobody is left to tell when this fails.
            let _ = timings(&report, &mut io::stderr().lock());
        }
        match &self.report {
            Some(path) => files::write(path, &to_json(&report)?, out),
            None => Ok(()),
        }
    }
}

impl Passes {
    fn options(&self) -> Options<'static> {
        let folder = self.dump_dir.clone();
        let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<String>>();
        Options {
            verify_each: self.verify_each,
            disable: set(&self.disable_pass),
            stop_after: self.stop_after.clone(),
            dump_before: set(&self.dump_before),
            dump_after: set(&self.dump_after),
            dump: Some(Box::new(move |dump| print_dump(dump, folder.as_deref()))),
        }
    }
}

/// Dumps help people who look for a mistake; one that cannot be written is said, and stops nothing.
fn print_dump(dump: &Dump<'_>, folder: Option<&Path>) {
    let when = match dump.when {
        When::Before => "before",
        When::After => "after",
    };
    let written = match folder {
        Some(folder) => {
            // A method's name may hold anything.
            let method: String = dump.method.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
            fs::write(folder.join(format!("{method}.{}.{}.{when}.etir", dump.pass, dump.round)), dump.ir)
        }
        None => write!(io::stderr(), "# {}, {when} {} (round {})\n{}", dump.method, dump.pass, dump.round, dump.ir),
    };
    if let Err(e) = written {
        let _ = writeln!(io::stderr(), "warning: cannot dump {} {when} {}: {e}", dump.method, dump.pass);
    }
}

/// One line on what was written.
fn summary(report: &Report, seconds: f64) -> String {
    let total = |f: fn(&etx::partitioner::report::MethodReport) -> usize| report.methods.iter().map(f).sum();
    format!(
        "{}, {} in {}, {} ({} of weights), {seconds:.2} s",
        Count(report.methods.len(), "method"),
        Count(total(|m| m.delegated), "node"),
        Count(total(|m| m.partitions), "partition"),
        Bytes(report.file_bytes),
        Bytes(report.weight_bytes),
    )
}

/// One line on what is stored once for several; the largest by name.
fn shared(report: &Report) -> Option<String> {
    const NAMED: usize = 3;
    let mut all: Vec<_> = report.shared.iter().collect();
    all.sort_by_key(|s| std::cmp::Reverse(s.saved_bytes));
    let saved = all.iter().map(|s| s.saved_bytes).sum();
    let named: Vec<String> = all.iter().take(NAMED).map(|s| format!("{} (by {})", s.names.join(" = "), s.how)).collect();
    let more = if all.len() > NAMED { ", …" } else { "" };
    (!all.is_empty()).then(|| format!("{} shared, {} saved: {}{more}", Count(all.len(), "weight"), Bytes(saved), named.join(", ")))
}

fn timings(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let seconds = &report.seconds;
    for (phase, time) in [
        ("load", seconds.load),
        ("passes", seconds.passes),
        ("partition", seconds.partition),
        ("quantize", seconds.quantize),
        ("write", seconds.write),
    ] {
        writeln!(out, "{phase:<32}{:>10.3} ms", time * 1e3)?;
    }
    let width = report.passes.iter().map(|p| p.pass.len() + p.method.len() + 2).max().unwrap_or(0).max(32);
    if !report.passes.is_empty() {
        writeln!(out, "{:<width$}{:>13}{:>6}{:>9}  nodes", "pass, method", "time", "runs", "changes")?;
    }
    for p in &report.passes {
        let name = format!("{}, {}", p.pass, p.method);
        writeln!(out, "{name:<width$}{:>10.3} ms{:>6}{:>9}  {} → {}", p.seconds * 1e3, p.runs, p.changes, p.nodes_before, p.nodes_after)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_written_as_in_json() {
        let shown = |text| constant(text).map(|c| format!("{} {:?}", c.name, c.value));
        for (text, expected) in [
            ("get_bos_id=1", "get_bos_id Int(1)"),
            ("x=-1.5", "x Float(-1.5)"),
            ("use_kv_cache=true", "use_kv_cache Bool(true)"),
            ("get_eos_ids=[2, 7]", "get_eos_ids List([Int(2), Int(7)])"),
            (r#"modality="text""#, r#"modality Str("text")"#),
        ] {
            assert_eq!(shown(text).unwrap(), expected);
        }
        for (text, expected) in [
            ("get_bos_id", "NAME=VALUE expected"),
            ("=1", "NAME=VALUE expected"),
            ("x=one", "\"one\" is no integer"),
            ("x=[]", "no constant that runners know"),
            ("x=[[1]]", "no constant that runners know"),
            ("x=9223372036854775808", "does not fit 64 bits"),
        ] {
            let error = shown(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
