//! Text from a lowered language model, token by token.
//!
//! A [`LanguageModel`] is a `.pte` whose method takes tokens and gives logits. Exporters agree on little else, so the rest is
//! told from what the method takes and gives, and from the constants beside it ([`Facts`]):
//!
//! | what | kinds |
//! |---|---|
//! | inputs | `tokens`; `tokens, position of each`; `tokens, position of the first` (tensor or integer) |
//! | keys and values | kept by the program or by the runtime: a token is fed once; not kept: all tokens are fed every time |
//! | tokens a call | any number up to the largest (long prompts go in pieces); exactly one; exactly N (filled up at the end, which needs logits of all positions) |
//! | logits | of all positions, or of the last |
//! | methods | one (`forward`, or the only one that fits); `prefill…` and `decode…`, which pass on their state; `token_embedding` and `text_decoder` |
//!
//! # Example
//! The bundled Llama, which has read the novels of Jane Austen:
//!
//! ```
//! use std::ops::ControlFlow;
//! use etx_cli::generate::{LanguageModel, Options, Sampler, Sampling, Stop, Tokenizer};
//! use etx::runtime::Runtime;
//!
//! # let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/llama");
//! # let pte = std::env::temp_dir().join(format!("etx-generate-{}.pte", std::process::id()));
//! # etx::Lowering::mlx().run(etx::load(format!("{example}/model.pt2"), &[])?)?.write(&pte)?;
//! let mut model = LanguageModel::new(&Runtime::open(&pte)?)?;
//! let tokenizer = Tokenizer::open(format!("{example}/tokenizer.json"))?;
//! let prompt = tokenizer.encode("Emma was not")?;
//!
//! let options = Options { max_tokens: 8, ..Options::default() };
//! let mut sampler = Sampler::new(Sampling::default())?;
//! let done = model.generate(&prompt, &options, &mut sampler, |_token| ControlFlow::Continue(()))?;
//! assert_eq!((done.tokens.len(), done.stop), (8, Stop::Limit));
//!
//! // The same by hand: what follows the prompt is the most likely token.
//! model.reset()?;
//! let logits = model.feed(&prompt)?;
//! assert_eq!(sampler.next(&logits)?, done.tokens[0]);
//! # drop(model);
//! # std::fs::remove_file(&pte)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apart;
mod caches;
mod facts;
mod growth;
mod sampler;
mod signature;
mod text;

use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use etx::ir::DType;
use etx::runtime::{Method, Runtime, Tensor, Value};
use half::{bf16, f16};
use serde::Serialize;

pub use apart::serve;
pub use facts::Facts;
pub use sampler::{Sampler, Sampling};
pub use text::{TextStream, Tokenizer};

use signature::Signature;

#[cfg(test)]
mod tests;

/// Why no text came.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Opening the file, or running it.
    Runtime(etx::runtime::Error),
    /// The file has no method that takes tokens and gives logits.
    NoLanguageModel(String),
    /// A prompt or an option that does not fit the model.
    Argument(String),
    /// The model gives what is no distribution of tokens.
    Logits(String),
    /// The tokenizer, or its file.
    Tokenizer(String),
}

impl From<etx::runtime::Error> for Error {
    fn from(e: etx::runtime::Error) -> Self {
        Error::Runtime(e)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Runtime(e) => e.fmt(f),
            Error::NoLanguageModel(what) | Error::Argument(what) => f.write_str(what),
            Error::Logits(what) => write!(f, "no token can be chosen: {what}"),
            Error::Tokenizer(what) => write!(f, "tokenizer: {what}"),
        }
    }
}

impl std::error::Error for Error {}

/// When to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Tokens to generate at most; the context may end sooner.
    pub max_tokens: usize,
    /// Whether tokens that end a text end it.
    pub stop_at_eos: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { max_tokens: 128, stop_at_eos: true }
    }
}

/// Why generation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// The model ended the text.
    Eos,
    /// As many tokens as asked for.
    Limit,
    /// The context is full.
    Context,
    /// The caller had enough.
    Caller,
}

/// What was generated.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The tokens, with the one that ended the text, if one did.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub stop: Stop,
    /// Reading the prompt.
    pub prefill: Phase,
    /// One call after another for the tokens after the first.
    pub decode: Phase,
}

/// Tokens fed, and the time that took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phase {
    /// How many.
    pub tokens: usize,
    /// How long.
    pub time: Duration,
}

impl Phase {
    /// Tokens per second; 0 if there were none.
    pub fn rate(&self) -> f64 {
        let seconds = self.time.as_secs_f64();
        if self.tokens == 0 || seconds == 0.0 { 0.0 } else { self.tokens as f64 / seconds }
    }
}

/// One method, and how it is called.
struct Step {
    method: Method,
    signature: Signature,
}

impl Step {
    /// The method, or why it is none that tokens can be fed to.
    fn load(runtime: &Runtime, name: &str) -> Result<Result<Self, String>, Error> {
        let method = runtime.load_method(name)?;
        Ok(Signature::of(&method.inputs(), &method.outputs()).map(|signature| Step { method, signature }))
    }
}

/// A language model, loaded, with what it has been fed.
pub struct LanguageModel {
    facts: Facts,
    /// From tokens to what `step` takes, if that is no tokens.
    embed: Option<Step>,
    /// For many tokens at once.
    prefill: Option<Step>,
    /// For one token, and for many, if there is no other.
    step: Step,
    /// Whether keys and values are kept.
    cached: bool,
    /// How many tokens they can be kept of, as far as the programs show it.
    capacity: Option<usize>,
    /// The state is with `prefill`.
    prefilling: bool,
    /// The tokens fed, if they are fed again every time.
    history: Vec<u32>,
    /// How many tokens were fed.
    position: usize,
}

impl LanguageModel {
    /// Loads the language model of a file.
    ///
    /// # Errors
    /// [`Error::NoLanguageModel`] saying of each method why it is none; those of loading.
    pub fn new(runtime: &Runtime) -> Result<Self, Error> {
        Self::load(runtime, None)
    }

    /// As [`new`](Self::new), with the method that is to be called.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Runtime`] if there is no such method.
    pub fn with_method(runtime: &Runtime, name: &str) -> Result<Self, Error> {
        Self::load(runtime, Some(name))
    }

    fn load(runtime: &Runtime, asked: Option<&str>) -> Result<Self, Error> {
        let facts = Facts::read(runtime)?;
        let mut fit = Vec::new();
        let mut unfit = Vec::new();
        for name in runtime.methods().filter(|&name| asked.is_none_or(|a| a == name) || name == EMBEDDING) {
            // What returns constants is no candidate, and need not be loaded to be told.
            if runtime.file().method(name).is_ok_and(|plan| plan.inputs.is_empty()) {
                continue;
            }
            match Step::load(runtime, name) {
                Ok(Ok(step)) => fit.push((name, step)),
                Ok(Err(why)) => unfit.push(format!("{name:?}: {why}")),
                Err(e) => unfit.push(e.to_string()),
            }
        }
        if let Some(name) = asked
            && !runtime.methods().any(|n| n == name)
        {
            return Err(runtime.load_method(name).err().map_or_else(|| Error::Argument(format!("no method {name:?}")), Error::Runtime));
        }
        let mut take = |test: &dyn Fn(&str, &Step) -> bool| {
            let at = fit.iter().position(|(name, step)| test(name, step))?;
            Some(fit.remove(at).1)
        };
        let embed = take(&|name, step| name == EMBEDDING && !step.signature.embedded);
        let ready = |step: &Step| !step.signature.embedded || embed.as_ref().is_some_and(|e| e.signature.width == step.signature.embedding);
        let forward = take(&|name, step| asked.map_or(name == "forward", |a| a == name) && ready(step));
        let (step, prefill) = match forward {
            Some(step) => (Some(step), None),
            None => {
                let prefill = take(&|name, step| name.contains("prefill") && ready(step));
                (take(&|_, step| ready(step)), prefill)
            }
        };
        // What there is only for prompts reads single tokens too, as well as it can.
        let (step, prefill) = match (step, prefill) {
            (None, prefill) => (prefill, None),
            both => both,
        };
        let Some(step) = step else {
            unfit.extend(fit.iter().map(|(name, _)| format!("{name:?}: it takes embeddings, and there is no method {EMBEDDING:?}")));
            let why = if unfit.is_empty() { "it has no methods that compute".to_owned() } else { unfit.join("\n  ") };
            return Err(Error::NoLanguageModel(format!("this is no language model that etx knows how to call:\n  {why}")));
        };
        let embed = embed.filter(|_| step.signature.embedded);
        let stateful = step.method.is_stateful();
        let cached = facts.cached.unwrap_or(stateful);
        let methods = [Some(&step), prefill.as_ref()].into_iter().flatten();
        // Of several programs, each writes all of the caches that there are for its tokens.
        let capacity = methods.filter_map(|s| s.method.programs().filter_map(caches::capacity).max()).min();
        Ok(LanguageModel { facts, embed, prefill, step, cached, capacity, prefilling: false, history: Vec::new(), position: 0 })
    }

    /// What the file says about the model.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How many tokens fit: what the file says, at most what its caches hold, or what a call takes where nothing is kept; `None` if
    /// nothing tells. Then a program that keeps keys and values fails when they are full.
    pub fn context(&self) -> Option<usize> {
        let bound = if self.cached { self.capacity } else { Some(self.step.signature.most) };
        self.facts.context.into_iter().chain(bound).min()
    }

    /// Sets how many tokens fit, for files that do not say it.
    pub fn set_context(&mut self, tokens: usize) {
        self.facts.context = Some(tokens);
    }

    /// Token ids are below this.
    pub fn vocabulary(&self) -> usize {
        let width = self.step.signature.width;
        self.facts.vocabulary.map_or(width, |n| n.min(width))
    }

    /// How many tokens have been fed.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Back to the beginning of a text.
    ///
    /// # Errors
    /// When memory for the state cannot be had.
    pub fn reset(&mut self) -> Result<(), Error> {
        for step in [&mut self.step].into_iter().chain(&mut self.prefill) {
            step.method.reset()?;
        }
        self.prefilling = false;
        self.history.clear();
        self.position = 0;
        Ok(())
    }

    /// Feeds tokens after those fed before; gives the logits of the token that follows, `[vocabulary]`.
    ///
    /// # Errors
    /// [`Error::Argument`] for no tokens, tokens outside the vocabulary, and more than fit the context; those of running.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        self.check(tokens)?;
        if !self.cached {
            self.history.extend_from_slice(tokens);
            self.position = self.history.len();
            let all = std::mem::take(&mut self.history);
            let logits = self.call(false, &all, 0, all.len());
            self.history = all;
            return logits;
        }
        let mut rest = tokens;
        loop {
            let (prefilling, count) = self.portion(rest.len());
            let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            self.pass_state(prefilling)?;
            let logits = self.call(prefilling, now, self.position, tokens.len())?;
            self.position += now.len();
            if later.is_empty() {
                return Ok(logits);
            }
            rest = later;
        }
    }

    fn check(&self, tokens: &[u32]) -> Result<(), Error> {
        if tokens.is_empty() {
            return Err(Error::Argument("there are no tokens to begin with".to_owned()));
        }
        let vocabulary = self.vocabulary();
        if let Some(at) = tokens.iter().position(|&t| t as usize >= vocabulary) {
            let token = tokens.get(at).copied().unwrap_or_default();
            return Err(Error::Argument(format!("token {token} (number {at} of those given) is not in the vocabulary of {vocabulary}")));
        }
        match self.context() {
            Some(context) if self.position + tokens.len() > context => {
                let (have, more) = (self.position, tokens.len());
                let what = if have == 0 { format!("{more} tokens") } else { format!("{more} tokens after {have}") };
                Err(Error::Argument(format!("{what} do not fit a context of {context}")))
            }
            _ => Ok(()),
        }
    }

    /// Which method takes how many of the next tokens.
    fn portion(&self, left: usize) -> (bool, usize) {
        let size = |s: &Signature| if s.fixed { s.most } else { s.most.min(self.facts.chunk.unwrap_or(usize::MAX)) };
        let own = size(&self.step.signature).min(left);
        match &self.prefill {
            // One of a fixed length is for whole pieces; what remains goes through the other.
            Some(p) if p.signature.fixed && left < p.signature.most => (false, own),
            Some(p) if left > own => (true, size(&p.signature).min(left)),
            _ => (false, own),
        }
    }

    /// Sees to it that the method about to be called has the keys and values.
    fn pass_state(&mut self, prefilling: bool) -> Result<(), Error> {
        if self.prefilling != prefilling {
            self.prefilling = prefilling;
            if let Some(prefill) = &mut self.prefill {
                let swapped = prefill.method.swap_state(&mut self.step.method);
                let by_runtime = self.step.method.programs().chain(prefill.method.programs()).all(|p| p.num_mutable_buffers == 0);
                if swapped == 0 && !by_runtime {
                    let names = (prefill.method.name(), self.step.method.name());
                    return Err(Error::NoLanguageModel(format!(
                        "methods {:?} and {:?} have no buffers in common, so one cannot continue what the other began",
                        names.0, names.1
                    )));
                }
            }
        }
        Ok(())
    }

    /// One call, with tokens from position `start` on; `asked` is how many the caller wanted to feed in all.
    fn call(&mut self, prefilling: bool, tokens: &[u32], start: usize, asked: usize) -> Result<Vec<f32>, Error> {
        let context = self.context();
        let step = match &mut self.prefill {
            Some(prefill) if prefilling => prefill,
            _ => &mut self.step,
        };
        let signature = &step.signature;
        let mut padded = Vec::new();
        let mut fed = tokens;
        if signature.fixed && tokens.len() < signature.most {
            // Tokens that come later change nothing before them, and their keys and values are overwritten when their
            // place is reached.
            if self.cached && context.is_some_and(|context| start + signature.most > context) {
                return Err(Error::Argument(format!(
                    "method {:?} takes {} tokens at once, and only {} fit after the first {start} ({asked} are asked for)",
                    step.method.name(),
                    signature.most,
                    context.unwrap_or_default().saturating_sub(start)
                )));
            }
            padded.extend_from_slice(tokens);
            padded.resize(signature.most, tokens.last().copied().unwrap_or_default());
            fed = &padded;
        }
        let mut inputs = Vec::with_capacity(2);
        inputs.push(match &mut self.embed {
            Some(embed) => {
                let positions = embed.signature.positions(start, fed.len())?;
                let tokens = embed.signature.tokens(fed)?;
                let inputs: Vec<Value> = [tokens].into_iter().chain(positions).collect();
                first(embed.method.execute(&inputs)?)?.into()
            }
            None => signature.tokens(fed)?,
        });
        inputs.extend(signature.positions(start, fed.len())?);
        let logits = first(step.method.execute(&inputs)?)?;
        let place = || format!("method {:?} gives logits {:?} for {} tokens", step.method.name(), logits.shape(), fed.len());
        let width = logits.shape().last().copied().unwrap_or_default().max(1);
        let row = match logits.numel() / width {
            n if n == fed.len() => tokens.len() - 1,
            1 if fed.len() == tokens.len() => 0,
            1 => return Err(Error::Logits(format!("{}, of which the last {} only fill up", place(), fed.len() - tokens.len()))),
            _ => return Err(Error::Logits(place())),
        };
        let mut numbers = row_of(&logits.reshape(&[logits.numel() / width, width])?.slice_axis(0, row, 1, 1)?)?;
        numbers.truncate(self.vocabulary());
        Ok(numbers)
    }

    /// Feeds a prompt and then, one after another, the tokens that the sampler chooses; `each` sees them as they come, and
    /// may end it. Continues what was fed before; [`reset`](Self::reset) begins anew.
    ///
    /// # Errors
    /// Those of [`feed`](Self::feed) and of [`Sampler::next`].
    pub fn generate(
        &mut self,
        prompt: &[u32],
        options: &Options,
        sampler: &mut Sampler,
        mut each: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Outcome, Error> {
        let mut done = Outcome { tokens: Vec::new(), stop: Stop::Limit, prefill: Phase::default(), decode: Phase::default() };
        if options.max_tokens == 0 {
            return Ok(done);
        }
        let start = Instant::now();
        let mut logits = self.feed(prompt)?;
        done.prefill = Phase { tokens: prompt.len(), time: start.elapsed() };
        loop {
            let start = Instant::now();
            let token = sampler.next(&logits)?;
            done.tokens.push(token);
            if options.stop_at_eos && self.facts.eos.contains(&token) {
                done.stop = Stop::Eos;
                return Ok(done);
            }
            if each(token).is_break() {
                done.stop = Stop::Caller;
                return Ok(done);
            }
            if done.tokens.len() >= options.max_tokens {
                return Ok(done);
            }
            if self.context().is_some_and(|context| self.position >= context) {
                done.stop = Stop::Context;
                return Ok(done);
            }
            logits = self.feed(&[token])?;
            done.decode.tokens += 1;
            done.decode.time += start.elapsed();
        }
    }
}

/// The method that makes embeddings of tokens, in models that take other things than text too.
const EMBEDDING: &str = "token_embedding";

/// The first result, a tensor.
fn first(outputs: Vec<Value>) -> Result<Tensor, Error> {
    match outputs.into_iter().next() {
        Some(Value::Tensor(t)) => Ok(t),
        other => Err(Error::Logits(format!("the first output is {}", other.map_or("missing", |v| v.kind())))),
    }
}

/// The elements of a tensor of one of the types that logits have.
fn row_of(row: &Tensor) -> Result<Vec<f32>, Error> {
    Ok(match row.dtype() {
        DType::BFloat16 => row.values::<bf16>()?.iter().map(|x| x.to_f32()).collect(),
        DType::Float16 => row.values::<f16>()?.iter().map(|x| x.to_f32()).collect(),
        _ => row.values::<f32>()?.into_owned(),
    })
}
