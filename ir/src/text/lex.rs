//! Characters to tokens, with positions for messages.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind};

/// Whether a name, label or word needs no quotes.
pub(super) fn is_bare(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_word)
}

const fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')
}

/// Characters that text must not show as they are: they would end a line, or let a line look like another one.
pub(super) fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{200b}'..='\u{200f}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A place in the text. Every method takes what it names if that comes next, after blanks and `#` comments.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The offset of the next token.
    pub(super) fn place(&mut self) -> usize {
        self.blank();
        self.at
    }

    /// Goes back to an offset that [`Cursor::place`] gave.
    pub(super) fn back(&mut self, at: usize) {
        self.at = at;
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn bytes(&self) -> &'a [u8] {
        self.rest().as_bytes()
    }

    fn blank(&mut self) {
        loop {
            match self.bytes().first() {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                Some(b'#') => self.at += self.bytes().iter().position(|&b| b == b'\n').unwrap_or(self.bytes().len()),
                _ => return,
            }
        }
    }

    /// The first byte of the next token.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.blank();
        self.bytes().first().copied()
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.eat(byte) { Ok(()) } else { Err(self.expected(&format!("`{}`", char::from(byte)))) }
    }

    /// The longest run of bytes that the test accepts, from here on without skipping blanks.
    fn run(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.bytes().position(|b| !accept(b)).unwrap_or(rest.len());
        // The test accepts ASCII only, so this is a boundary.
        let run = rest.get(..end).unwrap_or("");
        self.at += run.len();
        run
    }

    /// Letters, digits, `_` and `.`; empty if something else comes next.
    pub(super) fn word(&mut self) -> &'a str {
        self.blank();
        self.run(is_word)
    }

    /// The word, if it comes next as a whole.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let start = self.place();
        let found = self.word() == word;
        if !found {
            self.at = start;
        }
        found
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), Error> {
        if self.eat_word(word) { Ok(()) } else { Err(self.expected(&format!("`{word}`"))) }
    }

    /// A word or a string.
    pub(super) fn name(&mut self, what: &str) -> Result<Cow<'a, str>, Error> {
        let start = self.place();
        let name = if self.peek() == Some(b'"') { self.string()? } else { Cow::Borrowed(self.word()) };
        if name.is_empty() {
            self.at = start;
            return Err(self.expected(what));
        }
        Ok(name)
    }

    /// A quoted string.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        if !self.eat(b'"') {
            return Err(self.expected("a string in double quotes"));
        }
        let plain = self.run_until_special();
        if self.bytes().first() == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        loop {
            match self.bytes() {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                [b'\\', b'u', b'{', ..] => {
                    let start = self.at;
                    self.at += 3;
                    let digits = self.run(|b| b.is_ascii_hexdigit());
                    let c = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).filter(|_| self.bytes().first() == Some(&b'}'));
                    let Some(c) = c else {
                        self.at = start;
                        return Err(self.expected("the escape `\\u{…}` of a character"));
                    };
                    self.at += 1;
                    text.push(c);
                }
                [b'\\', c, ..] => {
                    text.push(match c {
                        b'n' => '\n',
                        b't' => '\t',
                        b'r' => '\r',
                        b'"' => '"',
                        b'\\' => '\\',
                        _ => return Err(self.expected("one of the escapes \\n \\t \\r \\\" \\\\ \\u{…}")),
                    });
                    self.at += 2;
                }
                _ => return Err(self.expected("the `\"` that ends the string")),
            }
            text.push_str(self.run_until_special());
        }
    }

    /// Text up to a quote, a backslash, or the end of the line.
    fn run_until_special(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.bytes().position(|b| matches!(b, b'"' | b'\\' | b'\n')).unwrap_or(rest.len());
        let run = rest.get(..end).unwrap_or("");
        self.at += run.len();
        run
    }

    /// The text of a number: a sign, digits, `.`, an exponent; or `inf`.
    pub(super) fn number(&mut self) -> &'a str {
        self.blank();
        let start = self.at;
        self.at += usize::from(self.bytes().first() == Some(&b'-'));
        loop {
            let run = self.run(|b| b.is_ascii_alphanumeric() || b == b'.');
            let exponent = run.ends_with(['e', 'E']) && run.starts_with(|c: char| c.is_ascii_digit());
            if exponent && matches!(self.bytes().first(), Some(b'-' | b'+')) {
                self.at += 1;
            } else {
                break;
            }
        }
        self.text.get(start..self.at).unwrap_or("")
    }

    /// An integer in decimal digits.
    pub(super) fn integer<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, Error> {
        let start = self.place();
        self.at += usize::from(self.bytes().first() == Some(&b'-'));
        self.run(|b| b.is_ascii_digit());
        let parsed = self.text.get(start..self.at).and_then(|t| t.parse().ok());
        parsed.ok_or_else(|| {
            self.at = start;
            self.expected(what)
        })
    }

    /// Hexadecimal digits after `0x`.
    pub(super) fn hex(&mut self) -> Result<&'a str, Error> {
        self.blank();
        if !self.rest().starts_with("0x") {
            return Err(self.expected("bytes as `0x…`"));
        }
        self.at += 2;
        Ok(self.run(|b| b.is_ascii_hexdigit()))
    }

    /// The text of an expression: up to a `,`, or a bracket that was not opened in it.
    pub(super) fn expression(&mut self) -> &'a str {
        self.blank();
        let (start, mut open) = (self.at, 0u32);
        for &b in self.bytes() {
            match b {
                b'(' => open += 1,
                b')' if open > 0 => open -= 1,
                b',' if open > 0 => {}
                b')' | b',' | b']' | b'}' | b'{' | b'\n' => break,
                _ => {}
            }
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or("").trim_end()
    }

    /// The error of something else coming next than what was expected.
    #[cold]
    pub(super) fn expected(&mut self, what: &str) -> Error {
        let at = self.place();
        let line = self.rest().lines().next().unwrap_or("");
        let found: String = line.chars().take(24).map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect();
        let found = if self.rest().is_empty() { "the end of the text".to_owned() } else { format!("`{}`", found.trim_end()) };
        self.wrong(at, &format!("expected {what}, found {found}"))
    }

    /// An error at an offset.
    #[cold]
    pub(super) fn wrong(&self, at: usize, what: &str) -> Error {
        self.error(ErrorKind::Format, at, what)
    }

    #[cold]
    pub(super) fn error(&self, kind: ErrorKind, at: usize, what: &str) -> Error {
        Error::new(kind, format!("{}: {what}", self.position(at)))
    }

    /// Line and column of an offset, both from 1.
    #[cold]
    pub(super) fn position(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or("");
        let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{line}:{column}")
    }
}
