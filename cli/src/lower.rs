//! The main job: program in, `.pte` out.

mod sharing;

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use etx_emit::{self as emit, ConstantMethod};
use etx_ir::budget;
use etx_ir::conditions;
use etx_ir::program::{Method, Program};
use etx_ir::sym::Ranges;
use etx_partitioner::backend::{Backend, Partition};
use etx_partitioner::cluster::{Division, divide};
use etx_partitioner::report::{MethodReport, RefusedNode};
use etx_passes::quantize::{Planned, Quantize, Rules};
use etx_passes::{Declined, F64AsF32, Options, PassReport, Pipeline};
use etx_serializer::pte::{self, NamedBlob};
use serde::Serialize;

use crate::package;

/// A size without an upper bound is taken to be at most this, unless [`Lowering::max_size`] says more or less: a plan needs a number
/// for its memory.
pub const DEFAULT_MAX_SIZE: u32 = etx_partitioner::mlx::DEFAULT_MAX_SIZE;

/// Why a program was not lowered.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Reading or rewriting the program.
    Ir(etx_ir::error::Error),
    /// Laying out or writing the file.
    Write(etx_serializer::Error),
    /// The backend does not run every node; the report has them all, by method. Files with work left outside delegates
    /// cannot be written yet.
    Refused(Box<Report>),
    /// A bug in etx.
    Internal(String),
}

impl Error {
    pub(crate) fn internal(what: String) -> Self {
        Error::Internal(what)
    }
}

impl From<etx_ir::error::Error> for Error {
    fn from(e: etx_ir::error::Error) -> Self {
        Error::Ir(e)
    }
}

impl From<etx_serializer::Error> for Error {
    fn from(e: etx_serializer::Error) -> Self {
        Error::Write(e)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Ir(e) => e.fmt(f),
            Error::Write(e) => e.fmt(f),
            Error::Refused(report) => {
                let count = report.refused().count();
                write!(f, "{count} node{} cannot be delegated", if count == 1 { "" } else { "s" })?;
                for (method, node) in report.refused() {
                    write!(f, "\n  {method}: {node}")?;
                }
                write!(
                    f,
                    "\nhelp: change or decompose these before exporting; programs that are only partly delegated cannot be written yet"
                )
            }
            Error::Internal(what) => write!(f, "{what}\nhelp: this is a bug in etx; please report it"),
        }
    }
}

impl std::error::Error for Error {}

/// How to lower.
pub struct Lowering<'p> {
    pipeline: Pipeline<'p>,
    options: Options<'p>,
    /// MLX if none is given.
    backend: Option<Box<dyn Backend + 'p>>,
    constants: Vec<ConstantMethod>,
    quantize: Option<Quantize>,
    max_size: u32,
    max_memory: Option<u64>,
    f64_as_f32: bool,
}

impl Default for Lowering<'_> {
    fn default() -> Self {
        Self::mlx()
    }
}

impl<'p> Lowering<'p> {
    /// For MLX, with the standard passes.
    pub fn mlx() -> Self {
        Self {
            pipeline: Pipeline::standard(),
            options: Options::default(),
            backend: None,
            constants: Vec::new(),
            quantize: None,
            max_size: DEFAULT_MAX_SIZE,
            max_memory: None,
            f64_as_f32: false,
        }
    }

    /// Computes in `f32` what the program computes in `f64`, and takes and returns `f32` where it has `f64`; [`Report::f64_as_f32`] says
    /// where that is. What constants alone decide is computed in `f64` in any case.
    #[must_use]
    pub fn f64_as_f32(mut self, yes: bool) -> Self {
        self.f64_as_f32 = yes;
        self
    }

    /// With weights quantised by these rules, between the passes and the backend.
    ///
    /// ```
    /// # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/llama/model.pt2");
    /// # let pte = std::env::temp_dir().join(format!("etx-quantize-{}.pte", std::process::id()));
    /// let lowering = etx::Lowering::mlx().quantize("4w, embedding=4w".parse()?);
    /// let lowered = lowering.run(etx::load(model, &[])?)?;
    /// assert!(lowered.report().quantized.iter().all(|w| w.bytes_after < w.bytes_before / 2));
    /// let report = lowered.write(&pte)?;
    /// assert!(report.quantized.iter().all(|w| w.snr_db.is_some_and(|db| db > 15.0)));
    /// # std::fs::remove_file(&pte)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn quantize(mut self, rules: Rules) -> Self {
        self.quantize = Some(Quantize::new(rules));
        self
    }

    /// With other passes.
    #[must_use]
    pub fn pipeline(mut self, pipeline: Pipeline<'p>) -> Self {
        self.pipeline = pipeline;
        self
    }

    /// With options for the passes.
    #[must_use]
    pub fn options(mut self, options: Options<'p>) -> Self {
        self.options = options;
        self
    }

    /// For another backend.
    #[must_use]
    pub fn backend(mut self, backend: impl Backend + 'p) -> Self {
        self.backend = Some(Box::new(backend));
        self
    }

    /// Adds a method that returns constants, such as the context length a runner asks for.
    #[must_use]
    pub fn constant(mut self, method: ConstantMethod) -> Self {
        self.constants.push(method);
        self
    }

    /// Plans memory for at most this many elements along dimensions that the program gives no upper bound, instead of
    /// [`DEFAULT_MAX_SIZE`].
    #[must_use]
    pub fn max_size(mut self, elements: u32) -> Self {
        self.max_size = elements;
        self
    }

    /// Lets lowering make so many bytes of constants and calls of its own, instead of 256 MiB and 128 kB for each call of the
    /// program: a size in a file of some kilobytes could ask for terabytes.
    #[must_use]
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = Some(bytes);
        self
    }

    /// Rewrites, divides and compiles the program. No weight is read yet.
    ///
    /// # Errors
    /// See [`Error`]. What cannot be delegated is collected over all methods first.
    pub fn run(self, program: Program) -> Result<Lowered, Error> {
        budget::within(elements(self.max_memory, &program), || self.run_within(program))
    }

    fn run_within(self, program: Program) -> Result<Lowered, Error> {
        if program.methods.is_empty() {
            let what = "there is nothing to lower: the program has no methods";
            return Err(etx_ir::error::Error::new(etx_ir::error::ErrorKind::Invalid, what).help("export a model with torch.export").into());
        }
        let Self { pipeline, options, backend, constants, quantize, max_size, max_memory: _, f64_as_f32 } = self;
        let backend = backend.unwrap_or_else(|| mlx(max_size));
        let (program, mut report, declined) = rewrite(pipeline, options, backend.as_ref(), quantize.as_ref(), f64_as_f32, program)?;
        let start = Instant::now();
        let mut package = emit::Package { constant_methods: constants, ..emit::Package::default() };
        let mut number = 0;
        let mut ties = sharing::Ties::default();
        for method in &program.methods {
            let mut division = divide(method, &backend.verdicts(&program, method));
            explain(method, &mut division, &declined);
            let mut delegates = Vec::new();
            if division.refused.is_empty() {
                for (nodes, outputs) in division.partitions.iter().zip(&division.outputs) {
                    delegates.push(backend.compile(&program, method, &Partition { number, nodes, outputs })?);
                    number += 1;
                }
                package.methods.push(package::method(&program, method, &delegates, max_size)?);
                package.named_data.extend(package::conditions(method, max_size)?);
            }
            report.unbounded.extend(package::unbounded(&program, method, &delegates, max_size)?);
            report.fixed.extend(package::fixed(method));
            report.methods.push(MethodReport::new(&method.name, &method.graph, &division, &delegates));
            for d in delegates {
                ties.note(&method.name, &d);
                package.named_data.extend(d.named_data.into_iter().map(|(key, data)| NamedBlob { key, data, alignment: 16 }));
            }
        }
        report.separate_state = package::separate_state(&program);
        report.seconds.partition = start.elapsed().as_secs_f64();
        if report.refused().next().is_some() {
            return Err(Error::Refused(Box::new(report)));
        }
        let contents = emit::emit(package)?;
        Ok(Lowered { program, contents, ties, report, quantized: quantize.map_or_else(Vec::new, |q| q.plan()) })
    }

    /// Rewrites the program and goes no further: what [`Lowering::run`] would divide.
    ///
    /// # Errors
    /// What the passes find.
    pub fn rewrite(self, program: Program) -> Result<(Program, Report), Error> {
        let backend = self.backend.unwrap_or_else(|| mlx(self.max_size));
        budget::within(elements(self.max_memory, &program), || {
            let (program, report, _) =
                rewrite(self.pipeline, self.options, backend.as_ref(), self.quantize.as_ref(), self.f64_as_f32, program)?;
            Ok((program, report))
        })
    }
}

fn mlx<'p>(max_size: u32) -> Box<dyn Backend + 'p> {
    Box::new(etx_partitioner::mlx::Mlx::new().max_size(max_size))
}

/// Narrows the bounds of a method's symbols by what the exporter took for granted; notes both.
fn take_for_granted(method: &mut Method, report: &mut Report) {
    let before: Ranges = method.ranges.clone();
    // The exporter says some of them more than once.
    let mut said = BTreeSet::new();
    for guard in conditions::open(method, &before).filter(|guard| said.insert(&guard.text)) {
        let (method, condition) = (method.name.to_string(), guard.text.to_string());
        report.assumed.push(Assumed { method, condition, checked: guard.condition.is_some() });
    }
    conditions::narrow(method);
    for symbol in method.ranges.0.keys() {
        let range = method.ranges.of(symbol);
        if range != before.of(symbol) {
            let (method, symbol) = (method.name.to_string(), symbol.to_string());
            report.narrowed.push(Narrowed { method, symbol, min: range.min, max: range.max });
        }
    }
}

/// Where the backend has nothing for an operator, says why the formula that stands for it does not apply to the call.
fn explain(method: &Method, division: &mut Division, declined: &[Declined]) {
    for (id, refusal) in division.refused.iter_mut().filter(|(_, refusal)| refusal.of_operator) {
        let name = &method.graph.node(*id).name;
        if let Some(why) = declined.iter().find(|d| *d.method == *method.name && *d.node == **name) {
            refusal.reason.clone_from(&why.reason);
            if !why.remedy.is_empty() {
                refusal.remedy.clone_from(&why.remedy);
            }
        }
    }
}

/// How many elements, of 8 bytes, lowering may make.
fn elements(bytes: Option<u64>, program: &Program) -> u64 {
    const ALWAYS: u64 = 1 << 25;
    const A_CALL: u64 = 1 << 14;
    let calls: u64 = program.methods.iter().map(|m| m.graph.len() as u64).sum();
    bytes.map_or(ALWAYS.saturating_add(calls.saturating_mul(A_CALL)), |bytes| bytes / 8)
}

fn rewrite(
    mut pipeline: Pipeline<'_>,
    mut options: Options<'_>,
    backend: &dyn Backend,
    quantize: Option<&Quantize>,
    f64_as_f32: bool,
    mut program: Program,
) -> Result<(Program, Report, Vec<Declined>), Error> {
    let start = Instant::now();
    let mut report = Report::default();
    for method in &mut program.methods {
        take_for_granted(method, &mut report);
    }
    // Nodes that disappear into others count as accepted, whatever would become of them alone.
    let accepts = |program: &Program, method: &Method| -> Vec<bool> {
        let mut accepted = vec![true; method.graph.node_bound()];
        for (id, _) in divide(method, &backend.verdicts(program, method)).refused {
            accepted[id.index()] = false;
        }
        accepted
    };
    let narrowed = F64AsF32::default();
    if f64_as_f32 {
        pipeline = pipeline.then(narrowed.clone()).then_all(Pipeline::tidy());
    }
    if let Some(quantize) = quantize {
        pipeline = pipeline.then(quantize.clone());
    }
    let done = pipeline.for_backend(accepts).run(&mut program, &mut options)?;
    report.quantized = quantize.map_or_else(Vec::new, |q| q.plan().iter().map(QuantizedWeight::new).collect());
    for run in &done.passes {
        report.note(run);
    }
    report.f64_as_f32 = narrowed.found().into_iter().map(F64::from).collect();
    report.seconds.passes = start.elapsed().as_secs_f64();
    Ok((program, report, done.declined))
}

/// A lowered program, ready to be written.
pub struct Lowered {
    /// The program after the passes.
    pub program: Program,
    contents: pte::Contents,
    ties: sharing::Ties,
    report: Report,
    quantized: Vec<Planned>,
}

/// What lowering did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What became of each method.
    pub methods: Vec<MethodReport>,
    /// Sizes of inputs for which the program gives no upper bound.
    pub unbounded: Vec<Unbounded>,
    /// What the exporter took for granted of sizes and numbers that are left open, beyond their bounds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub assumed: Vec<Assumed>,
    /// Symbols whose bounds are narrower by that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub narrowed: Vec<Narrowed>,
    /// Inputs that are no tensors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<Fixed>,
    /// What is computed in `f32` on request, and in `f64` in the program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub f64_as_f32: Vec<F64>,
    /// State that several methods have, each for itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub separate_state: Vec<SeparateState>,
    /// What the passes did, in the order in which each first ran.
    pub passes: Vec<PassSummary>,
    /// Weights that were quantised, in the order in which methods use them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantized: Vec<QuantizedWeight>,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of weights in it, each counted once.
    pub weight_bytes: u64,
    /// Tensors that needed no bytes of their own because an equal one has them.
    pub shared_tensors: u64,
    /// Bytes saved by that.
    pub shared_bytes: u64,
    /// Weights that are stored once though several names, uses or methods ask for them.
    pub shared: Vec<SharedWeight>,
    /// Seconds of each phase.
    pub seconds: Seconds,
}

impl Report {
    /// The nodes that the backend does not run, with the names of their methods.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &RefusedNode)> {
        self.methods.iter().flat_map(|m| m.refused.iter().map(|r| (m.method.as_str(), r)))
    }

    fn note(&mut self, run: &PassReport) {
        let at = self.passes.iter().position(|p| p.pass == run.pass && p.method == run.method).unwrap_or_else(|| {
            let (pass, method) = (run.pass.to_owned(), run.method.clone());
            self.passes.push(PassSummary {
                pass,
                method,
                runs: 0,
                changes: 0,
                nodes_before: run.nodes_before,
                nodes_after: 0,
                seconds: 0.0,
            });
            self.passes.len() - 1
        });
        let pass = &mut self.passes[at];
        pass.runs += 1;
        pass.changes += run.changes;
        pass.nodes_after = run.nodes_after;
        pass.seconds += run.time.as_secs_f64();
    }
}

/// A stored tensor that is asked for more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SharedWeight {
    /// The names it has, in the order in which they appear.
    pub names: Vec<String>,
    /// The methods that read it.
    pub methods: Vec<String>,
    /// How that was found: by `identity` (the program says that it is one tensor), or by `content` (it was stored twice).
    pub how: &'static str,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Bytes that its further copies would have taken.
    pub saved_bytes: u64,
}

/// A buffer that a method writes to and others have, too. A delegate's state is its own, so what one method writes no other one sees
/// unless the caller carries it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeparateState {
    /// The buffer.
    pub name: String,
    /// The methods that write to it.
    pub writers: Vec<String>,
    /// The methods that only read it: what it was when the program was lowered.
    pub readers: Vec<String>,
}

/// A size that an input leaves open upwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unbounded {
    /// The method.
    pub method: String,
    /// The first input that has it.
    pub input: String,
    /// The dimension.
    pub dim: usize,
    /// The symbol.
    pub symbol: String,
    /// Memory is planned for this many elements.
    pub planned_for: u64,
    /// Bytes that are planned for the method.
    pub planned_bytes: u64,
    /// Bytes fewer that it would be for one element fewer.
    pub bytes_per_element: u64,
}

/// A condition under which a method is the program that was exported. PyTorch and etx refuse other calls; ExecuTorch takes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assumed {
    /// The method.
    pub method: String,
    /// The condition, as the exporter wrote it.
    pub condition: String,
    /// Whether etx checks it when the method is called.
    pub checked: bool,
}

/// Bounds of a symbol that are narrower than the exporter says, by its own conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Narrowed {
    /// The method.
    pub method: String,
    /// The symbol.
    pub symbol: String,
    /// Its smallest value.
    pub min: Option<i64>,
    /// Its largest value.
    pub max: Option<i64>,
}

/// An input that is an integer, a number or a boolean. The runtime of ExecuTorch takes the value that is in the file, and no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fixed {
    /// The method.
    pub method: String,
    /// The input.
    pub input: String,
    /// The value in the file.
    pub value: String,
    /// Whether the program was exported for other values, too.
    pub open: bool,
}

/// What of a method is computed in `f32` and not in `f64`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct F64 {
    /// The method.
    pub method: String,
    /// Where `f64` begins: lines of the model's source, or calls where that is unknown.
    pub places: Vec<String>,
    /// Inputs that are `f32` in the file.
    pub inputs: Vec<String>,
    /// Numbers of results that are `f32` in the file.
    pub outputs: Vec<usize>,
}

impl From<etx_passes::Narrowed> for F64 {
    fn from(of: etx_passes::Narrowed) -> Self {
        F64 { method: of.method, places: of.places, inputs: of.inputs, outputs: of.outputs }
    }
}

/// What one pass did to one method, over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct PassSummary {
    /// Its name.
    pub pass: String,
    /// The method.
    pub method: String,
    /// How often it ran.
    pub runs: u32,
    /// How many changes it made; what counts as one is up to the pass.
    pub changes: u64,
    /// Calls in the method before its first run.
    pub nodes_before: usize,
    /// Calls in the method after its last run.
    pub nodes_after: usize,
    /// Time spent in it.
    pub seconds: f64,
}

/// What became of one weight that was quantised.
#[derive(Clone, Debug, Serialize)]
pub struct QuantizedWeight {
    /// Its name.
    pub name: String,
    /// Other names of the same weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ties: Vec<String>,
    /// What uses it in this format: `linear`, `embedding`, `expert`.
    pub uses: Vec<&'static str>,
    /// Operators that still use it as it was; the file then has it in both forms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_for: Vec<String>,
    /// Its format, as rules name it.
    pub format: String,
    /// Its element type.
    pub dtype: &'static str,
    /// Its sizes.
    pub shape: Vec<u64>,
    /// Bytes of it as it was; 0 where it stands above in another format already.
    pub bytes_before: u64,
    /// Bytes of it in the file.
    pub bytes_after: u64,
    /// The largest difference between an element and what stands for it. This and the next two are known once the file is
    /// written.
    pub max_error: Option<f64>,
    /// Root of the mean of the squared differences.
    pub rms_error: Option<f64>,
    /// Signal to noise in decibels; absent if nothing is lost.
    pub snr_db: Option<f64>,
}

impl QuantizedWeight {
    fn new(planned: &Planned) -> Self {
        QuantizedWeight {
            name: planned.name.clone(),
            ties: planned.ties.clone(),
            uses: planned.uses.iter().map(|u| u.name()).collect(),
            kept_for: planned.kept_for.clone(),
            format: planned.format.to_string(),
            dtype: planned.dtype.name(),
            shape: planned.shape.clone(),
            bytes_before: planned.bytes_before,
            bytes_after: planned.bytes_after,
            max_error: None,
            rms_error: None,
            snr_db: None,
        }
    }
}

/// Seconds of each phase.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seconds {
    /// Reading the program.
    pub load: f64,
    /// Rewriting it.
    pub passes: f64,
    /// Verdicts, division, lowering.
    pub partition: f64,
    /// Choosing the scales of weights that are quantised.
    pub quantize: f64,
    /// Layout and writing, weights included.
    pub write: f64,
}

impl Lowered {
    /// What lowering did.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Writes the file; it appears under its name only when it is complete.
    ///
    /// # Errors
    /// As [`etx_serializer::pte::write`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<Report, Error> {
        self.write_watched(path, &|_, _| {})
    }

    /// Chooses the scales of weights that are quantised, on all threads, and gives the report with what is lost by it. Writing
    /// does this first where it was not done. `progress` gets the bytes of a weight that is done and those of all.
    ///
    /// # Errors
    /// [`Error::Ir`] with every weight that has NaN or infinite elements.
    pub fn quantize(&self, progress: &dyn Fn(u64, u64)) -> Result<Report, Error> {
        let start = Instant::now();
        let mut report = self.report.clone();
        let all = self.quantized.iter().map(|p| p.bytes_before).sum();
        let mut wrong = Vec::new();
        let mut remedy = None;
        for (planned, entry) in self.quantized.iter().zip(&mut report.quantized) {
            match planned.settle() {
                Ok(loss) => {
                    (entry.max_error, entry.rms_error) = (Some(loss.max_error), Some(loss.rms()));
                    entry.snr_db = Some(loss.snr_db()).filter(|db| db.is_finite());
                }
                Err(e) => {
                    wrong.extend(e.sentences());
                    remedy = remedy.or(e.remedy().map(str::to_owned));
                }
            }
            progress(planned.bytes_before, all);
        }
        report.seconds.quantize = start.elapsed().as_secs_f64();
        if wrong.is_empty() {
            return Ok(report);
        }
        let error = etx_ir::error::Error::many(etx_ir::error::ErrorKind::Weight, wrong);
        Err(Error::Ir(remedy.into_iter().fold(error, etx_ir::error::Error::help)))
    }

    /// As [`Lowered::write`]; `progress` gets the bytes that a thread has just written and those of the whole file.
    ///
    /// # Errors
    /// As [`Lowered::write`].
    pub fn write_watched(&self, path: impl AsRef<Path>, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Report, Error> {
        self.written(|contents| pte::write_watched(contents, path, progress))
    }

    /// Writes the file from its first byte to its last, to what is no file, such as a pipe.
    ///
    /// # Errors
    /// As [`Lowered::write`]; what is written by then stays.
    pub fn write_to(&self, out: &mut dyn Write, progress: &dyn Fn(u64, u64)) -> Result<Report, Error> {
        self.written(|contents| pte::write_to(contents, out, progress))
    }

    fn written(&self, write: impl FnOnce(&pte::Contents) -> etx_serializer::Result<pte::Stats>) -> Result<Report, Error> {
        let mut report = self.quantize(&|_, _| {})?;
        let start = Instant::now();
        let stats = write(&self.contents)?;
        report.file_bytes = stats.file_bytes;
        report.weight_bytes = stats.weight_bytes;
        report.shared_tensors = stats.shared_blobs;
        report.shared_bytes = stats.shared_bytes;
        report.shared = self.ties.shared(&stats.shared);
        report.seconds.write = start.elapsed().as_secs_f64();
        Ok(report)
    }
}
