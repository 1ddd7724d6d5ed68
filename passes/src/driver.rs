//! Runs passes: in order, in groups to a fixpoint, checked, counted and timed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Graph, Type, ValueId};
use etx_ir::program::{Dialect, Input, InputKind, Method, Program, WeightId};
use etx_ir::sym::Ranges;
use etx_ir::weights::TensorData;
use etx_ir::{infer, text, verify};

use crate::canonicalise::Canonicalise;
use crate::collapse::CollapseViews;
use crate::cse::Cse;
use crate::dce::Dce;
use crate::decompose::{Decompose, ReduceSelections};
use crate::evaluate::EvaluateConstants;
use crate::fold::{Constants, FoldConstants, FoldScalars};
use crate::functionalise::Functionalise;
use crate::inline::InlineWrappers;
use crate::linear::FindLinear;
use crate::noops::RemoveNoops;
use crate::precompute::Precompute;
use crate::rewrite::{self, Rule};
use crate::rms_norm::FuseRmsNorm;

/// The pass that makes the functional dialect, by its name.
const FUNCTIONALISE: &str = "functionalise";

/// A named rewrite of a method.
///
/// Most passes look at one call at a time: implement [`Rule`] for those, which makes them passes. Implement this for
/// what needs to see the whole method.
pub trait Pass {
    /// Short name in `kebab-case`, unique in a pipeline: what users disable, stop after and dump around.
    fn name(&self) -> &'static str;

    /// One sentence: what holds after, and what is never done.
    fn law(&self) -> &'static str;

    /// The dialect the method must be in, if it matters. By default functional: in the training dialect a call may
    /// change what an earlier one gave, and no rewrite that compares or moves calls is right.
    fn dialect(&self) -> Option<Dialect> {
        Some(Dialect::Functional)
    }

    /// Rewrites the method. Every change goes through `cx`, which counts.
    ///
    /// # Errors
    /// What makes the program unfit to go on, with all findings.
    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error>;

    /// Called once after all methods, if the pass ran on any: for what only the whole program tells.
    ///
    /// # Errors
    /// What was found in all methods and makes the program unfit to go on.
    fn finish(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl<R: Rule> Pass for R {
    fn name(&self) -> &'static str {
        Rule::name(self)
    }

    fn law(&self) -> &'static str {
        Rule::law(self)
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.sweep(self)
    }
}

/// What a pass works on: one method, and the weights of its program.
pub struct Context<'a> {
    program: &'a mut Program,
    method: &'a mut Method,
    changes: u64,
    declined: Vec<Declined>,
}

impl<'a> Context<'a> {
    /// For one run of one pass. `method` is not among those of `program` while it is worked on.
    pub fn new(program: &'a mut Program, method: &'a mut Method) -> Self {
        Self { program, method, changes: 0, declined: Vec::new() }
    }

    /// The program: its weights, and the methods but the one at work.
    pub fn program(&self) -> &Program {
        self.program
    }

    /// The method.
    pub fn method(&self) -> &Method {
        self.method
    }

    /// Its graph.
    pub fn graph(&self) -> &Graph {
        &self.method.graph
    }

    /// What is known of its symbols.
    pub fn ranges(&self) -> &Ranges {
        &self.method.ranges
    }

    /// The bytes behind an input of the method, if it has some.
    pub fn weight(&self, input: usize) -> Option<&TensorData> {
        self.program.weights().get(self.method.inputs.get(input)?.kind.weight()?.index()).map(|w| &w.data)
    }

    /// The method, to be changed; say how much with [`Context::changed`].
    pub fn edit(&mut self) -> &mut Method {
        self.method
    }

    /// The program, and the method to be changed.
    pub(crate) fn parts(&mut self) -> (&Program, &mut Method) {
        (self.program, self.method)
    }

    /// Notes the calls that were to be taken apart and are still there.
    pub(crate) fn declined(&mut self, declined: Vec<Declined>) {
        self.declined = declined;
    }

    /// Notes that so many changes were made.
    pub fn changed(&mut self, n: u64) {
        self.changes += n;
    }

    /// How many changes were noted.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The numbers behind inputs of one element.
    pub(crate) fn constants(&self) -> Constants {
        Constants::new(self.program, self.method)
    }

    /// Goes over every graph of the method with a rule.
    ///
    /// # Errors
    /// As [`Rule::rewrite`], and [`ErrorKind::Invalid`] for a patch that changes types or rules that never settle.
    pub fn sweep(&mut self, rule: &dyn Rule) -> Result<(), Error> {
        let constants = self.constants();
        self.changes += rewrite::sweep(&mut self.method.graph, &self.method.ranges, &constants, rule)?;
        Ok(())
    }

    /// Adds a constant to the program and the method: a new input that holds these bytes.
    pub fn add_constant(&mut self, name: &str, data: TensorData) -> ValueId {
        self.add_input(name, data, InputKind::Constant)
    }

    /// Adds a parameter, likewise: unlike a constant, no pass looks into it.
    pub fn add_parameter(&mut self, name: &str, data: TensorData) -> ValueId {
        self.add_input(name, data, InputKind::Parameter)
    }

    /// Gives an input of the method, which has a weight, another one of the same name. Other methods keep theirs.
    pub(crate) fn replace_weight(&mut self, input: usize, data: TensorData) {
        let Some(kind) = self.method.inputs.get_mut(input).map(|i| &mut i.kind) else { return };
        if let InputKind::Parameter(w) | InputKind::Constant(w) | InputKind::Buffer { weight: w, .. } = kind {
            let name = self.program.weight(*w).name.clone();
            *w = self.program.add_weight(&name, data);
        }
    }

    fn add_input(&mut self, name: &str, data: TensorData, kind: fn(WeightId) -> InputKind) -> ValueId {
        let shape = data.shape().iter().map(|&n| etx_ir::sym::Dim::Int(n as i64)).collect();
        let ty = etx_ir::graph::TensorType::new(data.dtype(), shape);
        let weight: WeightId = self.program.add_weight(name, data);
        let value = self.method.graph.add_input(name, etx_ir::graph::Type::Tensor(ty));
        self.method.inputs.push(Input { value: Some(value), kind: kind(weight) });
        value
    }
}

/// One step of a [`Pipeline`].
enum Step<'p> {
    Pass(Box<dyn Pass + 'p>),
    /// Repeated until a round changes nothing, or `limit` rounds were made.
    Group {
        limit: u32,
        passes: Vec<Box<dyn Pass + 'p>>,
    },
}

/// Passes in order: data, to be looked at, added to and run.
#[derive(Default)]
pub struct Pipeline<'p> {
    steps: Vec<Step<'p>>,
}

impl<'p> Pipeline<'p> {
    /// A pipeline without passes.
    pub fn new() -> Self {
        Self::default()
    }

    /// What every program goes through before a backend looks at it: functional, in canonical spelling, without what
    /// changes nothing, with RMS normalisations found.
    pub fn standard() -> Self {
        Self::new().then(InlineWrappers).then(Functionalise).then(Dce).then_all(Self::tidy())
    }

    /// What makes a functional program as small as it can be: part of [`Pipeline::standard`], and run again after
    /// operators were taken apart.
    pub fn tidy() -> Self {
        Self::new().then_until_stable(
            8,
            vec![
                Box::new(Canonicalise),
                Box::new(EvaluateConstants::default()),
                Box::new(FoldConstants),
                Box::new(RemoveNoops),
                Box::new(CollapseViews),
                Box::new(FoldScalars),
                Box::new(Cse),
                Box::new(Dce),
                Box::new(FuseRmsNorm),
                Box::new(FindLinear),
            ],
        )
    }

    /// The pipeline followed by taking apart what a backend refuses, and computing what is known by then; `accepts` is
    /// asked as [`Decompose`] says.
    #[must_use]
    pub fn for_backend(self, accepts: impl Fn(&Program, &Method) -> Vec<bool> + 'p) -> Self {
        // Again for reductions that stood in what was taken apart.
        let reduced = self.then(ReduceSelections).then(Dce).then(Decompose::new(accepts)).then(ReduceSelections);
        reduced.then_all(Self::tidy()).then(Precompute).then(Dce)
    }

    /// Adds a pass at the end.
    #[must_use]
    pub fn then(mut self, pass: impl Pass + 'p) -> Self {
        self.steps.push(Step::Pass(Box::new(pass)));
        self
    }

    /// Adds a group at the end that is repeated until a round changes nothing, at most `limit` times.
    #[must_use]
    pub fn then_until_stable(mut self, limit: u32, passes: Vec<Box<dyn Pass + 'p>>) -> Self {
        self.steps.push(Step::Group { limit, passes });
        self
    }

    /// Adds the steps of another pipeline at the end.
    #[must_use]
    pub fn then_all(mut self, other: Pipeline<'p>) -> Self {
        self.steps.extend(other.steps);
        self
    }

    /// Puts a pass right after the one of this name, wherever that is.
    ///
    /// # Errors
    /// The pass back, if there is none of that name.
    pub fn insert_after(&mut self, name: &str, pass: Box<dyn Pass + 'p>) -> Result<(), Box<dyn Pass + 'p>> {
        for i in 0..self.steps.len() {
            match self.steps.get_mut(i) {
                Some(Step::Pass(p)) if p.name() == name => {
                    self.steps.insert(i + 1, Step::Pass(pass));
                    return Ok(());
                }
                Some(Step::Group { passes, .. }) => {
                    if let Some(at) = passes.iter().position(|p| p.name() == name) {
                        passes.insert(at + 1, pass);
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        Err(pass)
    }

    /// The passes in order, each once: name and law.
    pub fn passes(&self) -> Vec<(&'static str, &'static str)> {
        let mut seen = BTreeSet::new();
        self.each().filter(|p| seen.insert(p.name())).map(|p| (p.name(), p.law())).collect()
    }

    fn each(&self) -> impl Iterator<Item = &(dyn Pass + 'p)> {
        self.steps
            .iter()
            .flat_map(|s| match s {
                Step::Pass(p) => std::slice::from_ref(p),
                Step::Group { passes, .. } => passes.as_slice(),
            })
            .map(AsRef::as_ref)
    }

    /// Rewrites every method of a program.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a name in `options` that no pass has; what passes find; and with
    /// [`Options::verify_each`] what the verifier finds, with the pass that did it. The program is then in the state
    /// in which the failing pass left it.
    pub fn run(&self, program: &mut Program, options: &mut Options<'_>) -> Result<Report, Error> {
        self.check_names(options)?;
        let mut report = Report::default();
        let mut methods = std::mem::take(&mut program.methods);
        let mut result = Ok(());
        for method in &mut methods {
            result = self.run_method(program, method, options, &mut report);
            if result.is_err() {
                break;
            }
        }
        program.methods = methods;
        result?;
        for pass in self.each().filter(|p| report.passes.iter().any(|r| r.pass == p.name())) {
            pass.finish()?;
        }
        Ok(report)
    }

    fn check_names(&self, options: &Options<'_>) -> Result<(), Error> {
        let known: BTreeSet<&str> = self.each().map(Pass::name).collect();
        let asked = options.disable.iter().chain(&options.dump_before).chain(&options.dump_after).chain(&options.stop_after);
        let unknown: Vec<String> = asked.filter(|n| !known.contains(n.as_str())).map(|n| format!("no pass is called {n:?}")).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.passes().into_iter().map(|(n, _)| n).collect();
        Err(Error::many(ErrorKind::Unsupported, unknown).help(format!("the passes are {}", names.join(", "))))
    }

    fn run_method(&self, program: &mut Program, method: &mut Method, options: &mut Options<'_>, report: &mut Report) -> Result<(), Error> {
        let mut run = Run { program, method, options, report, stopped: false };
        for step in &self.steps {
            match step {
                Step::Pass(pass) => drop(run.pass(pass.as_ref(), 0)?),
                Step::Group { limit, passes } => {
                    for round in 0..*limit {
                        let mut changes = 0;
                        for pass in passes {
                            changes += run.pass(pass.as_ref(), round)?;
                        }
                        if changes == 0 || run.stopped {
                            break;
                        }
                    }
                }
            }
            if run.stopped {
                break;
            }
        }
        Ok(())
    }
}

/// One method on its way through a pipeline.
struct Run<'r, 'o, 'd> {
    program: &'r mut Program,
    method: &'r mut Method,
    options: &'o mut Options<'d>,
    report: &'r mut Report,
    stopped: bool,
}

impl Run<'_, '_, '_> {
    fn pass(&mut self, pass: &dyn Pass, round: u32) -> Result<u64, Error> {
        let name = pass.name();
        if self.stopped || self.options.disable.contains(name) {
            return Ok(0);
        }
        if let Some(need) = pass.dialect().filter(|d| *d != self.method.dialect) {
            let what =
                format!("pass {name} needs the {} dialect, method {} is in {}", need.name(), self.method.name, self.method.dialect.name());
            let disabled = self.options.disable.contains(FUNCTIONALISE).then(|| format!("`{FUNCTIONALISE}` makes it, and was disabled"));
            let (what, help) = match disabled {
                Some(why) => (format!("{what}; {why}"), format!("leave out --disable-pass {FUNCTIONALISE}, or disable {name} as well")),
                None => (what, format!("run the pass `{FUNCTIONALISE}` before it")),
            };
            return Err(Error::new(ErrorKind::Invalid, what).help(help));
        }
        self.dump(name, When::Before, round);
        let nodes_before = self.method.graph.len();
        let start = Instant::now();
        let mut cx = Context::new(self.program, self.method);
        let done = pass.run(&mut cx);
        let changes = cx.changes();
        self.report.declined.append(&mut cx.declined);
        self.report.passes.push(PassReport {
            pass: name,
            method: self.method.name.to_string(),
            round,
            changes,
            nodes_before,
            nodes_after: self.method.graph.len(),
            time: start.elapsed(),
        });
        let method = format!("method {}", self.method.name);
        done.map_err(|e| e.within(method.clone()))?;
        self.dump(name, When::After, round);
        if self.options.verify_each && (changes > 0 || round == 0) {
            let checked = verify::verify_method(self.program, self.method).and_then(|()| check_types(self.method));
            checked.map_err(|e| e.into_bug().within(format!("after pass {name}")).within(method))?;
        }
        self.stopped = self.options.stop_after.as_deref() == Some(name);
        Ok(changes)
    }

    fn dump(&mut self, pass: &'static str, when: When, round: u32) {
        let wanted = match when {
            When::Before => &self.options.dump_before,
            When::After => &self.options.dump_after,
        };
        if wanted.contains(pass)
            && let Some(sink) = self.options.dump.as_mut()
        {
            // The text names weights, so it is that of a program.
            self.program.methods.push(self.method.clone());
            let ir = text::print(self.program);
            self.program.methods.pop();
            sink(&Dump { pass, when, round, method: &self.method.name, ir: &ir });
        }
    }
}

/// Fails if the type of a result cannot be what its call gives, where there is a rule for it.
fn check_types(method: &Method) -> Result<(), Error> {
    let (graph, ranges) = (&method.graph, &method.ranges);
    let mut findings = Vec::new();
    for (id, node) in graph.nodes() {
        let types = match infer::infer(graph, ranges, node.op, &node.args) {
            Ok(types) => types,
            Err(e) if e.kind() == ErrorKind::Shape => {
                findings.push(format!("{}: {e}", rewrite::place(graph, id)));
                continue;
            }
            Err(_) => continue,
        };
        for (&v, ty) in node.outputs.iter().zip(&types) {
            let have = graph.ty(v);
            if *have != Type::None && !infer::agree(ranges, have, ty) {
                findings.push(format!("{}: its result is {have:?}, its call gives {ty:?}", rewrite::place(graph, id)));
            }
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(Error::many(ErrorKind::Invalid, findings)) }
}

/// Takes what is dumped.
pub type Sink<'d> = dyn FnMut(&Dump<'_>) + 'd;

/// How to run a pipeline.
#[derive(Default)]
pub struct Options<'d> {
    /// Verify the method after every pass that changed it (and once after every pass).
    pub verify_each: bool,
    /// Passes that are skipped, by name.
    pub disable: BTreeSet<String>,
    /// Run no further than this pass; of a group, its first round up to this pass.
    pub stop_after: Option<String>,
    /// Passes before which the method is given to `dump`.
    pub dump_before: BTreeSet<String>,
    /// Passes after which the method is given to `dump`.
    pub dump_after: BTreeSet<String>,
    /// Takes what is dumped.
    pub dump: Option<Box<Sink<'d>>>,
}

impl Options<'_> {
    /// Everything is run and verified after each pass.
    pub fn verified() -> Self {
        Self { verify_each: true, ..Self::default() }
    }
}

/// A method in text form, around a pass.
#[derive(Debug)]
pub struct Dump<'a> {
    /// The pass.
    pub pass: &'static str,
    /// Before or after it.
    pub when: When,
    /// Round of its group, from 0.
    pub round: u32,
    /// Name of the method.
    pub method: &'a str,
    /// Its text (`.etir`).
    pub ir: &'a str,
}

/// See [`Dump`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the pass.
    Before,
    /// After the pass.
    After,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every run of a pass, in order.
    pub passes: Vec<PassReport>,
    /// Calls that the backend refuses and whose formulas do not apply to them.
    pub declined: Vec<Declined>,
}

/// Why a formula does not apply to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// The method.
    pub method: String,
    /// Name of the call.
    pub node: String,
    /// What stands in the way.
    pub reason: String,
    /// What a person can do about it; empty where nothing is known.
    pub remedy: String,
}

impl Report {
    /// Changes that a pass made, over all methods and rounds.
    pub fn changes(&self, pass: &str) -> u64 {
        self.passes.iter().filter(|p| p.pass == pass).map(|p| p.changes).sum()
    }

    /// Time spent in passes (not in verifying and dumping).
    pub fn time(&self) -> Duration {
        self.passes.iter().map(|p| p.time).sum()
    }
}

/// One run of one pass on one method.
#[derive(Clone, Debug)]
pub struct PassReport {
    /// Its name.
    pub pass: &'static str,
    /// The method.
    pub method: String,
    /// Round of its group, from 0.
    pub round: u32,
    /// How many changes it made; what counts as one is up to the pass.
    pub changes: u64,
    /// Calls in the method before.
    pub nodes_before: usize,
    /// Calls in the method after.
    pub nodes_after: usize,
    /// How long it took.
    pub time: Duration,
}
