//! Text to tokens and back, as it comes.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;

use super::apart::Apart;
use super::{Error, growth};

/// What `tokenizer.json` describes.
#[derive(Debug)]
pub struct Tokenizer(Kind);

#[derive(Debug)]
enum Kind {
    Here(Box<tokenizers::Tokenizer>),
    Apart(Apart),
}

/// What the tokenizers crate gives; its panics are errors.
fn caught<T>(work: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, Error> {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|e| Error::Tokenizer(e.to_string())),
        Err(_) => Err(Error::Tokenizer("the tokenizers crate fails on this file or text".to_owned())),
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json` in a process of its own, which `command` starts: it must call [`serve`](super::serve) on the
    /// file. For files of unknown origin, which can make the tokenizers crate ask for all memory, or never end.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if it cannot be read, is no such file, or asks for more time or memory than a file of its size may.
    pub fn apart(command: Command, path: impl AsRef<Path>) -> Result<Self, Error> {
        Apart::start(command, path.as_ref()).map(|apart| Tokenizer(Kind::Apart(apart)))
    }

    /// Reads a `tokenizer.json`. Panics of the tokenizers crate are errors; see [`apart`](Self::apart) for files that one does
    /// not trust.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if it cannot be read, or is no such file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let fail = |e: &dyn std::fmt::Display| Error::Tokenizer(format!("{}: {e}", path.display()));
        let bytes = std::fs::read(path).map_err(|e| fail(&e))?;
        growth::check(&bytes).map_err(|e| fail(&e))?;
        let read = caught(|| {
            let mut tokenizer = tokenizers::Tokenizer::from_bytes(&bytes)?;
            // Files may ask for both, for training in batches; a prompt is taken as it is.
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None)?;
            Ok(tokenizer)
        });
        match read {
            Ok(tokenizer) => Ok(Tokenizer(Kind::Here(Box::new(tokenizer)))),
            Err(Error::Tokenizer(what)) => Err(fail(&what)),
            Err(e) => Err(e),
        }
    }

    /// The tokens of a text, with those that the file puts before and after one.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for text that has no tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        match &self.0 {
            Kind::Here(tokenizer) => caught(|| Ok(tokenizer.encode(text, true)?.get_ids().to_vec())),
            Kind::Apart(apart) => apart.encode(text),
        }
    }

    /// The text of tokens; those with a special meaning have none. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] from its decoder.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        match &self.0 {
            Kind::Here(tokenizer) => caught(|| tokenizer.decode(tokens, true)),
            Kind::Apart(apart) => apart.decode(tokens),
        }
    }
}

/// Tokens that are looked at before new ones, because decoders treat the beginning of a text specially.
const BEFORE: usize = 4;

/// A character has at most four bytes, so a token; what is no text after so many never becomes any.
const MOST_PENDING: usize = 4;

/// Text as tokens come: whole characters only, and nothing that may be the beginning of a stop text.
///
/// ```
/// use etx_cli::generate::{TextStream, Tokenizer};
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/llama/tokenizer.json");
/// let tokenizer = Tokenizer::open(path)?;
/// let mut stream = TextStream::new(&tokenizer, &[], vec!["\n\n".to_owned()]);
/// let mut text = Vec::new();
/// for token in tokenizer.encode("né\n\nno more")? {
///     text.push(stream.push(token)?);
///     if stream.is_stopped() {
///         break;
///     }
/// }
/// text.push(stream.finish()?);
/// // The two bytes of é come together; the line end waited for what came after it.
/// assert_eq!(text, ["n", "", "é", "", "", ""]);
/// # Ok::<(), etx_cli::generate::Error>(())
/// ```
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// A few tokens whose text is out, then those whose text is not.
    tokens: Vec<u32>,
    /// How many of them are out.
    out: usize,
    stops: Vec<String>,
    /// Text that may turn out to be the beginning of a stop text.
    held: String,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    /// A stream that continues after `prompt` and ends before the first of the `stops`.
    pub fn new(tokenizer: &'a Tokenizer, prompt: &[u32], stops: Vec<String>) -> Self {
        let tokens = prompt.get(prompt.len().saturating_sub(BEFORE)..).unwrap_or_default().to_vec();
        let stops = stops.into_iter().filter(|s| !s.is_empty()).collect();
        TextStream { tokenizer, out: tokens.len(), tokens, stops, held: String::new(), stopped: false }
    }

    /// Takes one token, gives the text that is complete with it.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn push(&mut self, token: u32) -> Result<String, Error> {
        self.tokens.push(token);
        let pending = self.tokens.len() - self.out;
        let fresh = self.fresh()?;
        if fresh.ends_with(char::REPLACEMENT_CHARACTER) && pending <= MOST_PENDING {
            return Ok(String::new());
        }
        self.tokens.drain(..self.tokens.len().saturating_sub(BEFORE));
        self.out = self.tokens.len();
        Ok(self.release(&fresh, false))
    }

    /// The text that was held back, after the last token.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn finish(&mut self) -> Result<String, Error> {
        let fresh = self.fresh()?;
        self.tokens.clear();
        self.out = 0;
        Ok(self.release(&fresh, true))
    }

    /// Whether a stop text has come.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The text of the tokens that are not out.
    fn fresh(&self) -> Result<String, Error> {
        let before = self.tokenizer.decode(self.tokens.get(..self.out).unwrap_or_default())?;
        let all = self.tokenizer.decode(&self.tokens)?;
        // By length: decoding more may change the end of what was there, if that was no text.
        let cut = (before.len()..=all.len()).find(|&i| all.is_char_boundary(i)).unwrap_or(all.len());
        Ok(all.get(cut..).unwrap_or_default().to_owned())
    }

    fn release(&mut self, fresh: &str, last: bool) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(fresh);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let begins = |tail: &str| self.stops.iter().any(|s| s.starts_with(tail));
        let keep = self.held.char_indices().map(|(at, _)| at).find(|&at| !last && self.held.get(at..).is_some_and(begins));
        let rest = self.held.split_off(keep.unwrap_or(self.held.len()));
        std::mem::replace(&mut self.held, rest)
    }
}
