//! `etx run`: a method of a `.pte`, called.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, value_parser};
use etx::import::safetensors;
use etx::ir::DType;
use etx::ir::weights::TensorData;
use etx::runtime::{Bool, Elem, ErrorKind, Method, Runtime, Tensor, Value, ValueSpec};
use half::{bf16, f16};

use super::files::{self, Output};
use super::{Failure, Limits, Shape, Threads};

/// Call a method of a .pte, once or several times in a row
///
/// Input files hold `input_0`, `input_1` … in the order of the method's inputs, integers, floats and booleans as tensors of
/// rank 0; output files get `output_0` …. State, such as a cache of keys and values, carries over from call to call.
#[derive(clap::Args)]
#[command(after_help = "Example:
  etx run model.pte --inputs prompt.safetensors --inputs step.safetensors --outputs out.safetensors

Exit status: 0 all calls made, 2 bad input.")]
pub(crate) struct Opts {
    /// The program; `-` is standard input
    #[arg(value_name = "FILE.pte", value_parser = files::input())]
    file: PathBuf,
    /// Which method [default: forward, or the only one]
    #[arg(long)]
    method: Option<String>,
    #[command(flatten)]
    calls: Calls,
    /// What computes
    #[arg(long, value_enum, default_value_t = Engine::Cpu)]
    engine: Engine,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    limits: Limits,
    /// Print how long loading and each call took
    #[arg(long)]
    time: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Engine {
    /// Pure Rust, on the processor
    Cpu,
}

/// Pairs of `--inputs` and `--outputs`, in the order of the command line.
#[derive(Debug, PartialEq)]
struct Calls(Vec<Call>);

#[derive(Debug, PartialEq)]
struct Call {
    inputs: PathBuf,
    outputs: Option<PathBuf>,
}

impl clap::Args for Calls {
    fn augment_args(command: Command) -> Command {
        let file = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append).value_parser(value_parser!(PathBuf));
        command.arg(file("inputs").value_name("IN.safetensors").help("Inputs of a call; several are successive calls")).arg(
            file("outputs")
                .value_name("OUT.safetensors")
                .help("Where the outputs of the call before it go; `-` is standard output [default: printed in short]"),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Calls {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let placed = |name: &str| -> Vec<(usize, PathBuf)> {
            let files = matches.get_many::<PathBuf>(name).into_iter().flatten().cloned();
            matches.indices_of(name).into_iter().flatten().zip(files).collect()
        };
        let call = |inputs| Call { inputs: files::named(inputs), outputs: None };
        let mut calls: Vec<(usize, Call)> = placed("inputs").into_iter().map(|(at, inputs)| (at, call(inputs))).collect();
        for (at, file) in placed("outputs") {
            let bad =
                |why: &str| clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, format!("--outputs {}: {why}", file.display()));
            match calls.iter_mut().rev().find(|(inputs, _)| *inputs < at) {
                None => return Err(bad("there is no --inputs before it")),
                Some((_, call)) if call.outputs.is_some() => return Err(bad("the --inputs before it has one already")),
                Some((_, call)) => call.outputs = Some(file.clone()),
            }
        }
        Ok(Calls(calls.into_iter().map(|(_, call)| call).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Opts {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        self.check()?;
        self.threads.apply()?;
        let start = Instant::now();
        let runtime = self.limits.of(files::open_lowered(&self.file)?);
        let name = self.name(&runtime)?;
        let mut method = match self.engine {
            Engine::Cpu => runtime.load_method(&name)?,
        };
        if self.time {
            writeln!(out, "load: {:.3} ms", start.elapsed().as_secs_f64() * 1e3)?;
        }
        if self.calls.0.is_empty() {
            return match method.inputs().is_empty() {
                true => self.call(&mut method, "call", &[], None, out),
                false => Err(Failure::input(format_args!("method {name:?} takes {}", signature(&method.inputs())))
                    .help("give them with --inputs IN.safetensors, as input_0, input_1 …")),
            };
        }
        for (i, call) in self.calls.0.iter().enumerate() {
            let inputs = read(&call.inputs, &method.inputs())?;
            let place = |f: Failure| Failure { text: format!("{}: {}", call.inputs.display(), f.text), ..f };
            self.call(&mut method, &format!("call {i}"), &inputs, call.outputs.as_deref(), out).map_err(place)?;
        }
        Ok(())
    }

    /// Whether everything can go where it is to go.
    fn check(&self) -> Result<(), Failure> {
        let calls = &self.calls.0;
        let output = |path| Output { option: "--outputs", path, binary: true };
        let outputs: Vec<Output<'_>> = calls.iter().filter_map(|call| call.outputs.as_deref()).map(output).collect();
        let inputs = calls.iter().map(|call| call.inputs.as_path());
        files::check(&outputs, &inputs.chain([self.file.as_path()]).collect::<Vec<_>>())?;
        let also_printed =
            if self.time { Some("--time") } else { calls.iter().any(|c| c.outputs.is_none()).then_some("a call without --outputs") };
        match also_printed.filter(|_| outputs.iter().any(|o| files::is_stdout(o.path))) {
            Some(what) => Err(Failure::input(format_args!("--outputs - and {what} would both write to standard output"))
                .help("name files for the outputs of each call")),
            None => Ok(()),
        }
    }

    fn name(&self, runtime: &Runtime) -> Result<String, Failure> {
        let names: Vec<&str> = runtime.methods().collect();
        match (&self.method, names.as_slice()) {
            (Some(name), _) => Ok(name.clone()),
            (None, names) if names.contains(&"forward") => Ok("forward".to_owned()),
            (None, [name]) => Ok((*name).to_owned()),
            (None, names) => Err(Failure::input(format_args!("{} has no method \"forward\"", self.file.display()))
                .help(format_args!("choose one with --method: {}", names.join(", ")))),
        }
    }

    fn call(&self, method: &mut Method, what: &str, inputs: &[Value], target: Option<&Path>, out: &mut dyn Write) -> Result<(), Failure> {
        let start = Instant::now();
        let outputs = method.execute(inputs).map_err(|e| match e.kind() {
            ErrorKind::Argument => e.help(format!("the method takes {}", signature(&method.inputs()))),
            _ => e,
        })?;
        if self.time {
            writeln!(out, "{what}: {:.3} ms", start.elapsed().as_secs_f64() * 1e3)?;
        }
        match target {
            Some(path) => write(path, &outputs, out),
            None => outputs.iter().enumerate().try_for_each(|(i, value)| Ok(writeln!(out, "output_{i}: {}", short(value)?)?)),
        }
    }
}

/// The inputs of one call, in order.
fn read(path: &Path, specs: &[ValueSpec]) -> Result<Vec<Value>, Failure> {
    let mut tensors = safetensors::open(path)?;
    let mut values = Vec::new();
    let mut problems = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        let name = format!("input_{i}");
        match (tensors.remove(&name), spec) {
            (Some(data), _) => values.push(Value::Tensor(tensor(&data).map_err(|e| e.within(name).within(path.display().to_string()))?)),
            // Nothing stands for None.
            (None, ValueSpec::None) => values.push(Value::None),
            (None, spec) => problems.push(format!("no {name}, which is {}", show(spec))),
        }
    }
    problems.extend(tensors.keys().map(|name| format!("{name:?} is no input")));
    if problems.is_empty() {
        return Ok(values);
    }
    let list = problems.join("; ");
    Err(Failure::input(format_args!("{}: {list}", path.display())).help(format_args!("the method takes {}", signature(specs))))
}

fn tensor(data: &TensorData) -> Result<Tensor, etx::runtime::Error> {
    let shape: Vec<usize> = data.shape().iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
    // What comes out of a safetensors file is mapped.
    Tensor::from_bytes(data.dtype(), &shape, data.bytes().unwrap_or_default())
}

/// Writes the outputs of one call; nothing stands for None.
fn write(path: &Path, outputs: &[Value], out: &mut dyn Write) -> Result<(), Failure> {
    let mut tensors = BTreeMap::new();
    for (i, value) in outputs.iter().enumerate() {
        let name = format!("output_{i}");
        match value.to_tensor() {
            Some(t) => {
                let shape = t.shape().iter().map(|&n| n as u64).collect();
                tensors.insert(name, TensorData::inline(t.dtype(), shape, t.to_bytes()?)?);
            }
            None if matches!(value, Value::None) => {}
            None => {
                return Err(Failure::input(format_args!("{name} is a {}, which a safetensors file cannot hold", value.kind()))
                    .help("leave --outputs out to print it"));
            }
        }
    }
    files::write(path, &safetensors::encode(&tensors)?, out)
}

fn signature(specs: &[ValueSpec]) -> String {
    specs.iter().enumerate().map(|(i, spec)| format!("input_{i}: {}", show(spec))).collect::<Vec<_>>().join(", ")
}

fn show(spec: &ValueSpec) -> String {
    match spec {
        ValueSpec::Tensor { dtype, shape, dynamic } => Shape { dtype: Some(*dtype), sizes: shape, dynamic: *dynamic }.to_string(),
        ValueSpec::Int => "int".to_owned(),
        ValueSpec::Float => "float".to_owned(),
        ValueSpec::Bool => "bool".to_owned(),
        ValueSpec::Str => "string".to_owned(),
        ValueSpec::None => "anything".to_owned(),
    }
}

/// A result on one line: its type and its first elements.
fn short(value: &Value) -> Result<String, Failure> {
    Ok(match value {
        Value::Tensor(t) => {
            let sizes: Vec<u64> = t.shape().iter().map(|&n| n as u64).collect();
            format!("{} {}", Shape { dtype: Some(t.dtype()), sizes: &sizes, dynamic: false }, elements(t)?)
        }
        Value::Int(x) => format!("int {x}"),
        Value::Float(x) => format!("float {x:?}"),
        Value::Bool(x) => format!("bool {x}"),
        Value::Str(x) => format!("string {x:?}"),
        Value::None => "None".to_owned(),
    })
}

fn elements(t: &Tensor) -> Result<String, Failure> {
    const MOST: usize = 6;
    fn first<T: Elem>(t: &Tensor, show: impl Fn(&T) -> String) -> Result<Vec<String>, Failure> {
        Ok(t.values::<T>()?.iter().take(MOST).map(show).collect())
    }
    macro_rules! by_type {
        ($($dtype:ident => $rust:ty),* $(,)?) => {
            match t.dtype() {
                $(DType::$dtype => first::<$rust>(t, |x| format!("{x:?}"))?,)*
                DType::Bool => first::<Bool>(t, |x| x.get().to_string())?,
                _ => return Ok(String::new()),
            }
        };
    }
    let shown = by_type!(
        UInt8 => u8, Int8 => i8, Int16 => i16, UInt16 => u16, Int32 => i32, UInt32 => u32, Int64 => i64, UInt64 => u64,
        Float16 => f16, BFloat16 => bf16, Float32 => f32, Float64 => f64,
    );
    let more = if t.numel() > MOST { ", …" } else { "" };
    Ok(format!("{}{more}", shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        opts: Opts,
    }

    fn parse(words: &str) -> Result<Calls, clap::Error> {
        Line::try_parse_from(["run", "a.pte"].into_iter().chain(words.split_whitespace())).map(|line| line.opts.calls)
    }

    #[test]
    fn outputs_belong_to_the_inputs_before_them() {
        let call = |inputs: &str, outputs: Option<&str>| Call { inputs: inputs.into(), outputs: outputs.map(PathBuf::from) };
        assert_eq!(
            parse("--inputs a --inputs b --outputs c --time --inputs=d").unwrap().0,
            [call("a", None), call("b", Some("c")), call("d", None)]
        );
        assert_eq!(parse("--inputs a --outputs b --inputs c --outputs d").unwrap().0, [call("a", Some("b")), call("c", Some("d"))]);
        assert_eq!(parse("").unwrap().0, []);
    }

    #[test]
    fn outputs_without_inputs_are_refused() {
        let text = |words| parse(words).unwrap_err().to_string();
        assert!(text("--outputs c --inputs a").contains("there is no --inputs before it"));
        assert!(text("--inputs a --outputs b --outputs c").contains("--outputs c: the --inputs before it has one already"));
    }
}
