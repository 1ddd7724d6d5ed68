//! What the exporter took for granted of sizes and numbers that a program leaves open.
//!
//! A [`Guard`] is one such condition, parsed where a program is read. [`narrow`] puts what guards say of single symbols into
//! their bounds; [`Conditions`] are what is left to check when a method is called, with the sizes that its inputs must have. They
//! have a text form, which lies in `.pte` files under [`key`]: runtimes that do not know it ignore it.

mod guard;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use crate::graph::Type;
use crate::program::{InputKind, Method};
use crate::sym::{Expr, Infix, Range, Ranges, Symbol};
pub use guard::Guard;

/// First line of the text form.
const HEAD: &str = "etx conditions 1";

/// Longest text that is read.
const MAX_TEXT: usize = 1 << 24;

/// Of at most so many conditions of a method it is asked whether bounds imply them.
const MOST_DECIDED: usize = 1 << 12;

/// The conditions of a method that these bounds of its symbols do not imply.
pub fn open<'a>(method: &'a Method, ranges: &'a Ranges) -> impl Iterator<Item = &'a Guard> {
    let implied = |(n, g): &(usize, &Guard)| *n < MOST_DECIDED && g.condition.as_ref().is_some_and(|e| ranges.decide(e) == Some(true));
    method.guards.iter().enumerate().filter(move |g| !implied(g)).map(|(_, g)| g)
}

/// The key under which the conditions of a method lie among the named data of a file.
pub fn key(method: &str) -> String {
    format!("etx.guards.{method}")
}

/// Narrows the bounds of a method's symbols by its guards.
pub fn narrow(method: &mut Method) {
    let mut ranges = std::mem::take(&mut method.ranges);
    ranges.narrow(method.guards.iter().filter_map(|g| g.condition.as_ref()));
    method.ranges = ranges;
}

/// What an input that the caller gives is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// A tensor of these sizes.
    Sizes(Vec<Expr>),
    /// This integer.
    Number(Expr),
}

/// Bounds of a symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The symbol.
    pub symbol: Symbol,
    /// Its values.
    pub range: Range,
    /// Whether the upper bound is not the program's, but that for which memory was planned.
    pub planned: bool,
}

/// What must hold for the inputs of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Inputs with a symbol in them, by number among those that the caller gives.
    pub inputs: BTreeMap<usize, Form>,
    /// Bounds of their symbols.
    pub bounds: Vec<Bound>,
    /// What else must hold.
    pub guards: Vec<Expr>,
}

/// What a caller gives for one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    /// A tensor of these sizes.
    Sizes(&'a [usize]),
    /// An integer.
    Number(i64),
    /// Anything else.
    Other,
}

/// A condition that does not hold for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The condition, and what was given.
    pub what: String,
    /// What to do about it.
    pub help: String,
}

impl Conditions {
    /// Those of a method; memory is planned for at most `most` elements along sizes that have no upper bound. `None` if nothing is
    /// left open.
    pub fn of(method: &Method, most: i64) -> Option<Self> {
        let given = method.inputs.iter().filter(|i| matches!(i.kind, InputKind::User | InputKind::Literal { .. }));
        let form = |i: &crate::program::Input| match method.graph.ty(i.value?) {
            Type::Tensor(t) if t.shape.iter().any(|d| d.as_int().is_none()) => Some(Form::Sizes(t.shape.clone())),
            Type::Int(e) if e.as_int().is_none() => Some(Form::Number(e.clone())),
            _ => None,
        };
        let inputs: BTreeMap<usize, Form> = given.enumerate().filter_map(|(n, i)| Some((n, form(i)?))).collect();
        // Whether a symbol is in a size, for which memory is planned.
        let mut symbols = BTreeMap::<Symbol, bool>::new();
        for form in inputs.values() {
            let (all, sized) = match form {
                Form::Sizes(all) => (all.as_slice(), true),
                Form::Number(e) => (std::slice::from_ref(e), false),
            };
            all.iter().for_each(|e| e.visit_symbols(&mut |s| *symbols.entry(s.clone()).or_default() |= sized));
        }
        let mut ranges = method.ranges.clone();
        let mut bounds = Vec::new();
        for (symbol, sized) in symbols {
            let mut range = ranges.of(&symbol);
            // Every size that is left open begins at 2 unless somebody says otherwise; as torch does, 1 is accepted there.
            range.min = range.min.map(|n| if n == 2 { 1 } else { n });
            ranges.0.insert(symbol.clone(), range);
            let planned = sized && range.max.is_none();
            if planned {
                range.max = Some(most.max(range.min.unwrap_or(0)));
            }
            bounds.push(Bound { symbol, range, planned });
        }
        let guards: Vec<Expr> = open(method, &ranges).filter_map(|g| g.condition.clone()).collect();
        (!inputs.is_empty() || !guards.is_empty()).then_some(Conditions { inputs, bounds, guards })
    }

    /// Checks the inputs of a call. What cannot be known, as of an input of another rank, is left to whoever takes the input.
    ///
    /// # Errors
    /// The first condition that does not hold.
    pub fn check(&self, given: &[Given<'_>]) -> Result<(), Broken> {
        let given = self.each(given);
        let solved = solve(&given);
        let at = |s: &Symbol| solved.get(s).map(|(n, _)| *n);
        for open in &given {
            let (n, e) = (open.is, open.wanted);
            match e.eval_int(&at) {
                Some(wanted) if wanted != n => {
                    let what = match e {
                        Expr::Int(_) => format!("{open} is {n}, and the program takes {wanted} there"),
                        e => format!("{open} is {n}, and the program takes {} = {wanted} there{}", Infix(e), told(&solved, e)),
                    };
                    let help = "give inputs whose sizes fit each other; sizes that were one symbol at export have to be equal";
                    return Err(Broken { what, help: help.to_owned() });
                }
                // A symbol of which this should be a multiple has no value then.
                None if linear(e).is_some_and(|(_, s)| !solved.contains_key(s)) => {
                    return Err(again(format!("{open} is {n}, and the program takes {} there", Infix(e))));
                }
                _ => {}
            }
        }
        for Bound { symbol, range, planned } in &self.bounds {
            let Some((n, place)) = solved.get(symbol) else { continue };
            if range.min.is_some_and(|min| *n < min) {
                let most = range.max.filter(|_| !planned).map_or_else(|| " or more".to_owned(), |max| format!(" to {max}"));
                let what = format!("{place} ({symbol}) is {n}, and the program was exported for {}{most}", range.min.unwrap_or(0));
                return Err(again(what));
            }
            if let Some(max) = range.max.filter(|max| n > max) {
                let what = format!("{place} ({symbol}) is {n}");
                return Err(if *planned {
                    let help = format!("lower the program again with --max-size {n}, or give {symbol} an upper bound in dynamic_shapes");
                    Broken { what: format!("{what}, and memory is planned for at most {max}"), help }
                } else {
                    again(format!("{what}, and the program was exported for at most {max}"))
                });
            }
        }
        for guard in &self.guards {
            let known = |e: &Expr| {
                let mut known = true;
                e.visit_symbols(&mut |s| known &= solved.contains_key(s));
                known
            };
            if known(guard) && guard.holds(&at) != Some(true) {
                return Err(again(format!("the program was exported for calls with {}{}", Infix(guard), told(&solved, guard))));
            }
        }
        Ok(())
    }

    /// The sizes and numbers that are given where some are left open.
    fn each(&self, given: &[Given<'_>]) -> Vec<Open<'_>> {
        let mut all = Vec::new();
        for (&input, form) in &self.inputs {
            match (form, given.get(input)) {
                (Form::Sizes(wanted), Some(Given::Sizes(sizes))) if wanted.len() == sizes.len() => {
                    all.extend(wanted.iter().zip(sizes.iter()).enumerate().map(|(dim, (wanted, &n))| {
                        let is = i64::try_from(n).unwrap_or(i64::MAX);
                        Open { input, dim: Some(dim), wanted, is }
                    }));
                }
                (Form::Number(wanted), Some(&Given::Number(is))) => all.push(Open { input, dim: None, wanted, is }),
                _ => {}
            }
        }
        all
    }

    /// The text form.
    pub fn to_text(&self) -> String {
        let mut out = format!("{HEAD}\n");
        for (number, form) in &self.inputs {
            let line = match form {
                Form::Sizes(sizes) => {
                    let sizes: Vec<String> = sizes.iter().map(|e| Infix(e).to_string()).collect();
                    format!("sizes {number} {}\n", sizes.join("; "))
                }
                Form::Number(e) => format!("number {number} {}\n", Infix(e)),
            };
            out.push_str(&line);
        }
        for Bound { symbol, range, planned } in &self.bounds {
            let side = |n: Option<i64>| n.map_or_else(String::new, |n| n.to_string());
            let planned = if *planned { " planned" } else { "" };
            out.push_str(&format!("symbol {symbol} {}..{}{planned}\n", side(range.min), side(range.max)));
        }
        for guard in &self.guards {
            out.push_str(&format!("guard {}\n", Infix(guard)));
        }
        out
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// A sentence that says what is wrong in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate();
        match lines.next() {
            _ if text.len() > MAX_TEXT => return Err(format!("{} bytes of conditions", text.len())),
            Some((_, HEAD)) => {}
            first => return Err(format!("{HEAD:?} is expected, found {:.40?}", first.map_or("", |(_, line)| line))),
        }
        let mut found = Conditions::default();
        for (i, line) in lines {
            found.line(line).ok_or_else(|| format!("line {}: {line:.80?} is no condition", i + 1))?;
        }
        Ok(found)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ')?;
        let numbered = || {
            let (number, rest) = rest.split_once(' ')?;
            Some((number.parse::<usize>().ok()?, rest))
        };
        match word {
            "sizes" => {
                let (number, rest) = numbered()?;
                let sizes = rest.split("; ").map(|e| Expr::parse(e).ok()).collect::<Option<_>>()?;
                self.inputs.insert(number, Form::Sizes(sizes));
            }
            "number" => {
                let (number, rest) = numbered()?;
                self.inputs.insert(number, Form::Number(Expr::parse(rest).ok()?));
            }
            "symbol" => {
                let (symbol, rest) = rest.split_once(' ')?;
                let (range, planned) = rest.strip_suffix(" planned").map_or((rest, false), |r| (r, true));
                let (min, max) = range.split_once("..")?;
                let side = |n: &str| if n.is_empty() { Some(None) } else { n.parse::<i64>().ok().map(Some) };
                let range = Range { min: side(min)?, max: side(max)? };
                self.bounds.push(Bound { symbol: Symbol::new(symbol)?, range, planned });
            }
            "guard" => self.guards.push(Expr::parse(rest).ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// A size or number that was given, and what it must be.
struct Open<'a> {
    input: usize,
    dim: Option<usize>,
    wanted: &'a Expr,
    is: i64,
}

impl fmt::Display for Open<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dim {
            Some(dim) => write!(f, "dimension {dim} of input_{}", self.input),
            None => write!(f, "input_{}", self.input),
        }
    }
}

/// Values of symbols, and where they are from.
type Solved<'a> = BTreeMap<&'a Symbol, (i64, String)>;

/// Sizes that are one symbol come first, then those that are a multiple of one with a number added.
fn solve<'a>(given: &[Open<'a>]) -> Solved<'a> {
    let mut solved = Solved::new();
    for plain in [true, false] {
        for open in given.iter().filter(|o| matches!(o.wanted, Expr::Sym(_)) == plain) {
            let Some(((factor, rest), symbol)) = linear(open.wanted).filter(|(_, s)| !solved.contains_key(s)) else { continue };
            let whole = open.is.checked_sub(rest).filter(|n| n.checked_rem(factor) == Some(0));
            if let Some(n) = whole.and_then(|n| n.checked_div(factor)) {
                solved.insert(symbol, (n, if plain { open.to_string() } else { format!("by {open}") }));
            }
        }
    }
    solved
}

/// A condition that other inputs, or another export, would meet.
fn again(what: String) -> Broken {
    let help = "give inputs of such sizes, or export the model again with an example of the sizes that are needed: branches and sizes are \
                those of the example";
    Broken { what, help: help.to_owned() }
}

/// `; s0 is 5 (dimension 0 of input_0)` for the symbols of an expression.
fn told(solved: &Solved<'_>, e: &Expr) -> String {
    let mut out = String::new();
    let mut seen = Vec::new();
    e.visit_symbols(&mut |s| {
        if let Some((n, place)) = solved.get(s).filter(|_| !seen.contains(s)) {
            seen.push(s.clone());
            out.push_str(&format!("; {s} is {n} ({place})"));
        }
    });
    out
}

/// `((a, b), s)` where an expression is `a*s + b`, with numbers `a` and `b`.
fn linear(e: &Expr) -> Option<((i64, i64), &Symbol)> {
    let (b, term) = match e {
        Expr::Add(terms) => match &terms[..] {
            [Expr::Int(b), term] => (*b, term),
            _ => return None,
        },
        term => (0, term),
    };
    match term {
        Expr::Sym(s) => Some(((1, b), s)),
        Expr::Mul(factors) => match &factors[..] {
            [Expr::Int(a), Expr::Sym(s)] => Some(((*a, b), s)),
            _ => None,
        },
        _ => None,
    }
}
