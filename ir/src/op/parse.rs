//! Reads a schema line.

use crate::DType;
use crate::error::{Error, ErrorKind};

use super::schema::{ArgSpec, ArgType, Kind, Literal, OutVariant, ReturnSpec, Schema, Traits};

/// Longest line that is read. The longest of torch's is under 1 kB.
const MAX_LINE: usize = 1 << 16;
/// Deepest nesting of lists and options in a type; torch uses two.
const MAX_NESTING: u32 = 4;
/// Longest list of fixed length; torch uses six.
const MAX_FIXED: u32 = 64;

/// Memory formats: name in schemas, number in schemas (c10), number in exported programs.
pub(super) const MEMORY_FORMATS: &[(&str, i64, u8)] =
    &[("contiguous_format", 0, 1), ("preserve_format", 1, 4), ("channels_last", 2, 2), ("channels_last_3d", 3, 3)];

/// Layouts, likewise.
pub(super) const LAYOUTS: &[(&str, i64, u8)] = &[
    ("strided", 0, 7),
    ("sparse_coo", 1, 1),
    ("sparse_csr", 2, 2),
    ("_mkldnn", 3, 6),
    ("sparse_csc", 4, 3),
    ("sparse_bsr", 5, 4),
    ("sparse_bsc", 6, 5),
];

/// Name of an export number in one of the tables above.
pub(super) fn spelling(table: &'static [(&'static str, i64, u8)], number: u8) -> &'static str {
    table.iter().find(|(_, _, export)| *export == number).map_or("unknown", |(name, _, _)| name)
}

/// Reads one schema line, in torch's notation (`ns::name.overload(…) -> …`) or ours (`ns.name.overload(…) -> …`),
/// with our words after ` ; `.
pub(super) fn parse(line: &str) -> Result<Schema, Error> {
    if line.len() > MAX_LINE {
        return Err(Error::new(ErrorKind::Format, format!("an operator schema of {} bytes, at most {MAX_LINE} are read", line.len())));
    }
    let mut cursor = Cursor { line, at: 0 };
    cursor.schema().map_err(|message| {
        let shown: String = line.chars().take(120).collect();
        Error::new(ErrorKind::Format, format!("operator schema `{shown}`: {message} at byte {}", cursor.at))
            .help("write it as in `my_ops::scale(Tensor x, float factor=1.0, *, bool exact=False) -> Tensor`")
    })
}

struct Cursor<'a> {
    line: &'a str,
    at: usize,
}

type Parsed<T> = Result<T, String>;

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.line.get(self.at..).unwrap_or("")
    }

    fn blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Consumes the token if it comes next.
    fn eat(&mut self, token: &str) -> bool {
        self.blank();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) { Ok(()) } else { Err(format!("expected `{token}`")) }
    }

    /// The longest run of characters that the test accepts.
    fn run(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        self.blank();
        let rest = self.rest();
        let end = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or("")
    }

    fn word(&mut self) -> Parsed<&'a str> {
        match self.run(|c| c.is_ascii_alphanumeric() || c == '_') {
            "" => Err("expected a name".to_owned()),
            word => Ok(word),
        }
    }

    fn schema(&mut self) -> Parsed<Schema> {
        let target = self.run(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':'));
        self.expect("(")?;
        let args = self.args()?;
        self.expect("->")?;
        let returns = self.returns(&args)?;
        let (kind, traits) = self.traits()?;
        let (target, ns, name, overload) = split_target(target, kind)?;
        Ok(Schema { target, ns, name, overload, args, returns, kind, traits })
    }

    fn args(&mut self) -> Parsed<Vec<ArgSpec>> {
        let mut args: Vec<ArgSpec> = Vec::new();
        let mut kw_only = false;
        while !self.eat(")") {
            if !args.is_empty() || kw_only {
                self.expect(",")?;
            }
            if !kw_only && self.eat("*") {
                kw_only = true;
                continue;
            }
            let (ty, alias_set, mutated) = self.annotated_type()?;
            let name = self.word()?.to_owned();
            if args.iter().any(|a| a.name == name) {
                return Err(format!("argument `{name}` is there twice,"));
            }
            let default = if self.eat("=") { Some(self.literal(&ty)?) } else { None };
            args.push(ArgSpec { name, ty, default, kw_only, mutated, alias_set });
        }
        Ok(args)
    }

    fn returns(&mut self, args: &[ArgSpec]) -> Parsed<Vec<ReturnSpec>> {
        if !self.eat("(") {
            return Ok(vec![self.one_return(args)?]);
        }
        let mut returns = Vec::new();
        while !self.eat(")") {
            if !returns.is_empty() {
                self.expect(",")?;
            }
            returns.push(self.one_return(args)?);
        }
        Ok(returns)
    }

    fn one_return(&mut self, args: &[ArgSpec]) -> Parsed<ReturnSpec> {
        let (ty, set, mutated) = self.annotated_type()?;
        self.blank();
        let named = self.rest().starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let name = if named { Some(self.word()?.to_owned()) } else { None };
        let alias_of = match &set {
            Some(set) => args.iter().enumerate().filter(|(_, a)| a.alias_set.as_ref() == Some(set)).map(|(i, _)| i).collect(),
            None => Vec::new(),
        };
        Ok(ReturnSpec { ty, name, alias_of, mutated })
    }

    /// A type with its alias annotation: `Tensor(a!)?`, `Tensor(a -> *)[]`.
    fn annotated_type(&mut self) -> Parsed<(ArgType, Option<String>, bool)> {
        let word = self.word()?;
        let base = ArgType::BASE.iter().find(|(name, _)| *name == word);
        let mut ty = base.map(|(_, t)| t.clone()).ok_or_else(|| format!("unknown type `{word}`"))?;
        let (mut set, mut mutated) = (None, false);
        if ty == ArgType::Tensor && self.eat("(") {
            set = Some(self.word()?.to_owned());
            mutated = self.eat("!");
            if self.eat("->") {
                // The set it belongs to afterwards: all of memory, as an element of the returned list.
                self.expect("*")?;
            }
            self.expect(")")?;
        }
        for _ in 0..MAX_NESTING {
            if self.eat("?") {
                ty = ArgType::Optional(Box::new(ty));
            } else if self.eat("[]") {
                ty = ArgType::List(Box::new(ty), None);
            } else if self.eat("[") {
                let n = self.run(|c| c.is_ascii_digit()).parse::<u32>().ok().filter(|n| *n <= MAX_FIXED);
                let n = n.ok_or_else(|| format!("expected a length of at most {MAX_FIXED}"))?;
                self.expect("]")?;
                ty = ArgType::List(Box::new(ty), Some(n));
            } else {
                return Ok((ty, set, mutated));
            }
        }
        Err("a type nested too deep".to_owned())
    }

    /// A default of the given type. Recursion follows the type, so it is no deeper than [`MAX_NESTING`].
    fn literal(&mut self, ty: &ArgType) -> Parsed<Literal> {
        match ty {
            ArgType::Optional(inner) => {
                if self.eat("None") {
                    Ok(Literal::None)
                } else {
                    self.literal(inner)
                }
            }
            ArgType::List(element, fixed) => self.list(element, *fixed),
            ArgType::Bool | ArgType::SymBool => self.boolean().ok_or_else(|| "expected True or False".to_owned()),
            ArgType::Int | ArgType::SymInt => match self.number()? {
                Literal::Int(n) => Ok(Literal::Int(n)),
                _ => Err("expected an integer".to_owned()),
            },
            ArgType::Float | ArgType::SymFloat => match self.number()? {
                Literal::Int(n) => Ok(Literal::Float(n as f64)),
                other => Ok(other),
            },
            ArgType::Scalar => match self.boolean() {
                Some(b) => Ok(b),
                None => self.number(),
            },
            ArgType::Str | ArgType::Device => self.string(),
            ArgType::ScalarType => match self.number()? {
                Literal::Int(n) => {
                    let dtype = i8::try_from(n).ok().and_then(DType::from_et_code);
                    dtype.map(Literal::DType).ok_or_else(|| format!("unknown element type {n}"))
                }
                _ => Err("expected the number of an element type".to_owned()),
            },
            ArgType::Layout => self.choice(LAYOUTS).map(Literal::Layout),
            ArgType::MemoryFormat => self.choice(MEMORY_FORMATS).map(Literal::MemoryFormat),
            other => Err(format!("a default for type {other}, which takes none,")),
        }
    }

    fn list(&mut self, element: &ArgType, fixed: Option<u32>) -> Parsed<Literal> {
        if !self.eat("[") {
            let item = self.literal(element)?;
            return Ok(Literal::List(vec![item; fixed.unwrap_or(1) as usize]));
        }
        let mut items = Vec::new();
        while !self.eat("]") {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(self.literal(element)?);
        }
        Ok(Literal::List(items))
    }

    fn boolean(&mut self) -> Option<Literal> {
        if self.eat("True") {
            Some(Literal::Bool(true))
        } else if self.eat("False") {
            Some(Literal::Bool(false))
        } else {
            None
        }
    }

    fn number(&mut self) -> Parsed<Literal> {
        let text = self.run(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        if let Ok(n) = text.parse::<i64>() {
            return Ok(Literal::Int(n));
        }
        text.parse::<f64>().map(Literal::Float).map_err(|_| "expected a number".to_owned())
    }

    fn string(&mut self) -> Parsed<Literal> {
        self.blank();
        let quote = self.rest().chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or("expected a quoted string")?;
        self.at += 1;
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.at += i + 1;
                return Ok(Literal::Str(text));
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, c @ ('\\' | '"' | '\''))) => text.push(c),
                _ => return Err("an unknown escape in a string".to_owned()),
            }
        }
        Err("a string without end".to_owned())
    }

    fn choice(&mut self, table: &[(&str, i64, u8)]) -> Parsed<u8> {
        let word = self.word()?;
        let found = table.iter().find(|(name, number, _)| *name == word || word.parse() == Ok(*number));
        found.map(|(_, _, export)| *export).ok_or_else(|| format!("unknown value `{word}`"))
    }

    fn traits(&mut self) -> Parsed<(Kind, Traits)> {
        let (mut kind, mut traits) = (Kind::Operator, Traits::default());
        if !self.eat(";") {
            self.blank();
            return if self.rest().is_empty() { Ok((kind, traits)) } else { Err("expected the end or ` ; `".to_owned()) };
        }
        for word in self.rest().split_ascii_whitespace() {
            match word {
                "function" => kind = Kind::Function,
                "hop" => kind = Kind::HigherOrder,
                "core" => traits.core = true,
                "pointwise" => traits.pointwise = true,
                "random" => traits.random = true,
                "effect" => traits.effect = true,
                "data" => traits.data = true,
                "dynamic" => traits.dynamic = true,
                "inplace_view" => traits.inplace_view = true,
                "variadic" => traits.variadic = true,
                other => match other.split_once('=') {
                    Some((key @ ("out" | "out_without_options"), overload)) if is_word(overload) => {
                        traits.out = Some(OutVariant { overload: overload.to_owned(), without_options: key != "out" });
                    }
                    _ => return Err(format!("unknown word `{other}`")),
                },
            }
        }
        self.at = self.line.len();
        Ok((kind, traits))
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// Canonical target, namespace, name, overload.
fn split_target(target: &str, kind: Kind) -> Parsed<(String, String, String, String)> {
    let bad = || format!("`{target}` is no operator name");
    let canonical = super::canonical(target);
    let (rest, overload) = match kind {
        Kind::Operator => canonical.rsplit_once('.').ok_or_else(bad)?,
        Kind::Function | Kind::HigherOrder => (canonical.as_ref(), ""),
    };
    let (ns, name) = rest.rsplit_once('.').ok_or_else(bad)?;
    if !ns.split('.').all(is_word) || !is_word(name) || (kind == Kind::Operator && !is_word(overload)) {
        return Err(bad());
    }
    Ok((canonical.to_string(), ns.to_owned(), name.to_owned(), overload.to_owned()))
}
