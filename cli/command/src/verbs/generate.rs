//! `etx generate`: text from a lowered language model.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use etx_cli::generate::{LanguageModel, Options, Outcome, Phase, Sampler, Sampling, Stop, TextStream, Tokenizer};
use serde::Serialize;

use super::{Failure, Format, Limits, Quiet, Threads, files, to_json};

/// Continue a text with a lowered language model
///
/// Text goes in and out with a tokenizer; without one, token ids. Prompts longer than the program takes at once go in pieces.
#[derive(clap::Args)]
#[command(after_help = "Example:
  etx generate model.pte --tokenizer tokenizer.json --prompt 'Once upon a time' --temperature 0.8 --top-p 0.95 --seed 1

The program says how many tokens fit, which one ends a text and how many there are, in constant methods that exporters write
and `etx lower --constant` adds (what fits is else told from its caches): get_max_context_len, get_eos_ids, get_bos_id, get_vocab_size, get_prefill_chunk_size, use_kv_cache.

Exit status: 0 generated, 2 bad input.")]
pub(crate) struct Opts {
    /// The program; `-` is standard input
    #[arg(value_name = "FILE.pte", value_parser = files::input())]
    file: PathBuf,
    /// What text to continue; needs --tokenizer, and --ids does not
    #[arg(long, value_name = "TEXT", requires = "tokenizer", required_unless_present = "ids", conflicts_with = "ids")]
    prompt: Option<String>,
    /// Which tokens to continue, such as 1,15,7
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    ids: Option<Vec<u32>>,
    /// How texts become tokens and back: Hugging Face's tokenizer.json [default: token ids are printed]
    #[arg(long, value_name = "tokenizer.json")]
    tokenizer: Option<PathBuf>,
    /// Put the program's get_bos_id first; most tokenizers know by themselves whether their model wants it
    #[arg(long)]
    bos: bool,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// 0 takes the most likely token; above, tokens are drawn, from flatter distributions the higher it is
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Draw from the most likely tokens only, which together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Where the random numbers begin: the same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Stop before this text; several are any of them
    #[arg(long, value_name = "TEXT", requires = "tokenizer")]
    stop: Vec<String>,
    /// Go on after the end of a text
    #[arg(long)]
    ignore_eos: bool,
    /// Tokens that fit, prompt and answer together [default: what the program says, or its caches of keys and values hold]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// The method to call [default: told by what methods take and give]
    #[arg(long)]
    method: Option<String>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    quiet: Quiet,
    /// How to print: text as it comes, or everything at the end
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// A tokenizer, answering on standard input and output: `etx generate` starts one of these
#[derive(clap::Args)]
pub(crate) struct Tokenize {
    /// Hugging Face's tokenizer.json
    #[arg(value_name = "tokenizer.json")]
    file: PathBuf,
}

impl Tokenize {
    /// Starts a process for a file.
    fn start(path: &Path) -> Result<Tokenizer, Failure> {
        let here = std::env::current_exe().map_err(|e| Failure::input(format_args!("cannot start a tokenizer: {e}")))?;
        let mut command = Command::new(here);
        command.arg("tokenize").arg("--").arg(path);
        Ok(Tokenizer::apart(command, path)?)
    }

    pub(crate) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        Ok(etx_cli::generate::serve(&self.file, io::stdin().lock(), out)?)
    }
}

/// What is said in the end.
#[derive(Serialize)]
struct Summary {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// `eos`, `limit`, `context`, or `text` after one of those to stop at.
    stop: String,
    prefill: Rate,
    decode: Rate,
}

#[derive(Serialize)]
struct Rate {
    tokens: usize,
    seconds: f64,
    tokens_per_second: f64,
}

impl From<Phase> for Rate {
    fn from(phase: Phase) -> Self {
        Rate { tokens: phase.tokens, seconds: phase.time.as_secs_f64(), tokens_per_second: phase.rate() }
    }
}

impl Opts {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        self.threads.apply()?;
        let mut sampler = Sampler::new(Sampling { temperature: self.temperature, top_p: self.top_p, seed: self.seed })?;
        let tokenizer = self.tokenizer.as_deref().map(Tokenize::start).transpose()?;
        let runtime = self.limits.of(files::open_lowered(&self.file)?);
        let model = match &self.method {
            Some(name) => LanguageModel::with_method(&runtime, name),
            None => LanguageModel::new(&runtime),
        };
        let place = |e: etx_cli::generate::Error| Failure::input(format_args!("{}: {e}", self.file.display()));
        let mut model = model.map_err(place)?;
        if let Some(tokens) = self.context {
            model.set_context(tokens);
        }
        let prompt = self.prompt(&model, tokenizer.as_ref())?;
        let mut stream = tokenizer.as_ref().map(|t| TextStream::new(t, &prompt, self.stop.clone()));
        let mut text = String::new();
        let mut failed = None;
        let options = Options { max_tokens: self.max_tokens, stop_at_eos: !self.ignore_eos };
        let mut separator = "";
        let outcome = model.generate(&prompt, &options, &mut sampler, |token| {
            let piece = match &mut stream {
                Some(stream) => stream.push(token).map_err(Failure::from),
                None => Ok(format!("{}{token}", std::mem::replace(&mut separator, ","))),
            };
            let said = piece.and_then(|piece| {
                text.push_str(&piece);
                self.say(&piece, out)
            });
            let enough = stream.as_ref().is_some_and(TextStream::is_stopped);
            match said {
                Ok(()) if !enough => ControlFlow::Continue(()),
                Ok(()) => ControlFlow::Break(()),
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        });
        // What has been said stays said, also before an error.
        if let Some(stream) = &mut stream {
            let rest = stream.finish()?;
            text.push_str(&rest);
            self.say(&rest, out)?;
        }
        if !text.is_empty() {
            self.say("\n", out)?;
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        let outcome = outcome.map_err(place)?;
        self.finish(prompt, outcome, stream.is_some().then_some(text), out)
    }

    fn prompt(&self, model: &LanguageModel, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>, Failure> {
        let mut tokens = match (&self.prompt, tokenizer) {
            (Some(text), Some(tokenizer)) => tokenizer.encode(text)?,
            _ => self.ids.clone().unwrap_or_default(),
        };
        if self.bos {
            let bos = model.facts().bos.ok_or_else(|| {
                Failure::input(format_args!("{} does not say which token begins a text (get_bos_id)", self.file.display()))
                    .help("leave --bos out, or give all tokens with --ids")
            })?;
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// Shows a piece at once.
    fn say(&self, piece: &str, out: &mut dyn Write) -> Result<(), Failure> {
        if self.format == Format::Text && !piece.is_empty() {
            out.write_all(piece.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }

    fn finish(&self, prompt: Vec<u32>, outcome: Outcome, text: Option<String>, out: &mut dyn Write) -> Result<(), Failure> {
        let stop = match outcome.stop {
            Stop::Eos => "eos",
            Stop::Limit => "limit",
            Stop::Context => "context",
            Stop::Caller => "text",
        };
        let (prefill, decode) = (Rate::from(outcome.prefill), Rate::from(outcome.decode));
        if self.format == Format::Text {
            if self.quiet.quiet {
                return Ok(());
            }
            let mut err = io::stderr().lock();
            for (what, rate) in [("prefill", &prefill), ("decode", &decode)] {
                // Nobody is left to tell when this fails.
                let _ = writeln!(err, "{what}: {} tokens in {:.3} s, {:.1} tokens/s", rate.tokens, rate.seconds, rate.tokens_per_second);
            }
            if outcome.stop == Stop::Context {
                let _ = writeln!(err, "the context is full");
            }
            return Ok(());
        }
        let summary = Summary { prompt, tokens: outcome.tokens, text, stop: stop.to_owned(), prefill, decode };
        Ok(out.write_all(&to_json(&summary)?)?)
    }
}
