//! Reads symbolic expressions: sympy's srepr (schema 8), infix (older files, range keys) and our own text.

use super::{Expr, Func, Symbol};

/// Nesting deeper than this is refused; torch's own expressions stay below ten.
const MAX_DEPTH: u32 = 100;

/// Calls in calls of a result: less, so that what is printed can be read again.
const MAX_HEIGHT: u32 = 64;

/// Products and functions of more parts than this are refused: multiplying out can repeat their operands.
const MAX_SIZE: usize = 4096;

/// Names that stand for something else when they stand alone.
pub(super) fn is_reserved(name: &str) -> bool {
    matches!(name, "true" | "True" | "false" | "False" | "inf" | "NaN" | "oo" | "int_oo" | "and" | "or" | "not")
}

/// Calls in calls.
pub(super) fn height(e: &Expr) -> u32 {
    match e {
        Expr::Int(_) | Expr::Bool(_) | Expr::Float(_) | Expr::Sym(_) => 0,
        Expr::Add(args) | Expr::Mul(args) => args.iter().map(height).max().unwrap_or(0),
        Expr::Call(_, args) => 1 + args.iter().map(height).max().unwrap_or(0),
    }
}

/// Conditions joined by `or` or `and`; one stays as it is.
fn joined(func: Func, mut parts: Vec<Expr>) -> Expr {
    if parts.len() == 1 { parts.remove(0) } else { Expr::call(func, parts) }
}

/// Counts the parts of an expression off `left`; false as soon as that is used up.
fn fits(e: &Expr, left: &mut usize) -> bool {
    *left = left.saturating_sub(1);
    match e {
        _ if *left == 0 => false,
        Expr::Int(_) | Expr::Bool(_) | Expr::Float(_) | Expr::Sym(_) => true,
        Expr::Add(args) | Expr::Mul(args) | Expr::Call(_, args) => args.iter().all(|a| fits(a, left)),
    }
}

impl Expr {
    /// Parses any of the three notations.
    ///
    /// # Errors
    /// A sentence saying what is wrong at which byte.
    pub fn parse(text: &str) -> Result<Expr, String> {
        let mut p = Parser { text, at: 0, depth: 0 };
        let e = p.expression()?;
        p.blank();
        if p.at < text.len() {
            return Err(p.wrong("more text than one expression"));
        }
        if height(&e) > MAX_HEIGHT { Err(p.wrong("expression nested too deeply")) } else { Ok(e) }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn wrong(&self, what: &str) -> String {
        format!("{what} at byte {} of {:?}", self.at, self.text)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.blank();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn take_while(&mut self, f: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let n = rest.bytes().take_while(|&b| f(b)).count();
        self.at += n;
        rest.get(..n).unwrap_or("")
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.wrong("expression nested too deeply")) } else { Ok(()) }
    }

    fn sized(&self, e: Expr) -> Result<Expr, String> {
        let mut left = MAX_SIZE;
        if fits(&e, &mut left) { Ok(e) } else { Err(self.wrong("expression too large")) }
    }

    /// Takes a word that is not the beginning of a longer one.
    fn eat_word(&mut self, word: &str) -> bool {
        self.blank();
        let rest = self.rest().strip_prefix(word);
        let found = rest.is_some_and(|r| !r.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.'));
        if found {
            self.at += word.len();
        }
        found
    }

    /// Python's `or`, `and` and `not` over comparisons.
    fn expression(&mut self) -> Result<Expr, String> {
        self.deeper()?;
        let mut any = vec![self.conjunction()?];
        while self.eat_word("or") {
            any.push(self.conjunction()?);
        }
        self.depth -= 1;
        Ok(joined(Func::Or, any))
    }

    fn conjunction(&mut self) -> Result<Expr, String> {
        let mut all = vec![self.negation()?];
        while self.eat_word("and") {
            all.push(self.negation()?);
        }
        Ok(joined(Func::And, all))
    }

    fn negation(&mut self) -> Result<Expr, String> {
        if !self.eat_word("not") {
            return self.comparison();
        }
        self.deeper()?;
        let e = self.negation()?;
        self.depth -= 1;
        Ok(Expr::call(Func::Not, vec![e]))
    }

    fn comparison(&mut self) -> Result<Expr, String> {
        let e = self.sum()?;
        let comparison = [
            ("==", Func::Eq, false),
            ("!=", Func::Ne, false),
            ("<=", Func::Le, false),
            (">=", Func::Le, true),
            ("<", Func::Lt, false),
            (">", Func::Lt, true),
        ];
        for (token, func, swap) in comparison {
            if self.eat(token) {
                let b = self.sum()?;
                return Ok(Expr::call(func, if swap { vec![b, e] } else { vec![e, b] }));
            }
        }
        Ok(e)
    }

    fn sum(&mut self) -> Result<Expr, String> {
        let mut e = self.product()?;
        let mut terms = Vec::new();
        loop {
            if self.eat("+") {
                terms.push(self.product()?);
            } else if self.eat("-") {
                terms.push(self.product()?.times(&Expr::Int(-1)));
            } else {
                break;
            }
        }
        if !terms.is_empty() {
            e = Expr::sum(std::iter::once(&e).chain(&terms));
        }
        Ok(e)
    }

    fn product(&mut self) -> Result<Expr, String> {
        let mut e = self.power()?;
        let depth = self.depth;
        loop {
            // Each division nests what stands before it.
            if self.eat("//") {
                self.deeper()?;
                e = e.floor_div(&self.power()?);
            } else if self.eat("/") {
                self.deeper()?;
                e = Expr::call(Func::TrueDiv, vec![e, self.power()?]);
            } else if self.eat("%") {
                self.deeper()?;
                e = e.modulo(&self.power()?);
            } else if self.eat("*") {
                let mut factors = vec![e, self.power()?];
                while self.eat("*") {
                    factors.push(self.power()?);
                }
                e = self.sized(Expr::product(&factors))?;
            } else {
                self.depth = depth;
                return Ok(e);
            }
        }
    }

    fn power(&mut self) -> Result<Expr, String> {
        let base = self.factor()?;
        if !self.eat("**") {
            return Ok(base);
        }
        let power = Expr::call(Func::Pow, vec![base, self.factor()?]);
        self.sized(power)
    }

    fn factor(&mut self) -> Result<Expr, String> {
        if self.eat("-") {
            // The sign belongs to the number where there is one: -2^63 has no positive counterpart.
            if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
                self.at -= 1;
                return self.number();
            }
            self.deeper()?;
            let e = self.factor()?.times(&Expr::Int(-1));
            self.depth -= 1;
            return Ok(e);
        }
        if self.eat("(") {
            let e = self.expression()?;
            return if self.eat(")") { Ok(e) } else { Err(self.wrong("missing )")) };
        }
        self.blank();
        match self.rest().bytes().next() {
            Some(b'0'..=b'9') => self.number(),
            Some(c) if c.is_ascii_alphabetic() || c == b'_' => self.name(),
            _ => Err(self.wrong("expected a number, a symbol or a function")),
        }
    }

    fn number(&mut self) -> Result<Expr, String> {
        let start = self.at;
        let _ = self.rest().starts_with('-').then(|| self.at += 1);
        self.take_while(|b| b.is_ascii_digit() || b == b'.' || b == b'e' || b == b'E');
        // An exponent may carry a sign of its own.
        if self.text.get(start..self.at).is_some_and(|t| t.ends_with(['e', 'E'])) {
            let _ = self.rest().starts_with(['-', '+']).then(|| self.at += 1);
            self.take_while(|b| b.is_ascii_digit());
        }
        let text = self.text.get(start..self.at).unwrap_or("");
        if let Ok(n) = text.parse() {
            return Ok(Expr::Int(n));
        }
        text.parse().map(Expr::float).map_err(|_| self.wrong("not a number"))
    }

    fn name(&mut self) -> Result<Expr, String> {
        let name = self.take_while(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        if !self.eat("(") {
            return match name {
                "true" | "True" => Ok(Expr::Bool(true)),
                "false" | "False" => Ok(Expr::Bool(false)),
                "inf" => Ok(Expr::Float(f64::INFINITY.to_bits())),
                "NaN" => Ok(Expr::Float(f64::NAN.to_bits())),
                // Sympy's infinity, and torch's infinite integer.
                "oo" | "int_oo" => Ok(Expr::Float(f64::INFINITY.to_bits())),
                _ => Symbol::new(name).map(Expr::Sym).ok_or_else(|| self.wrong("not a symbol")),
            };
        }
        match name {
            "Symbol" | "Float" => {
                let text = self.quoted()?;
                self.keywords()?;
                return if name == "Symbol" {
                    Symbol::new(text).map(Expr::Sym).ok_or_else(|| self.wrong("not a symbol"))
                } else {
                    text.parse().map(Expr::float).map_err(|_| self.wrong("not a number"))
                };
            }
            "Piecewise" => {
                let built = self.pieces()?;
                return self.sized(built);
            }
            _ => {}
        }
        let mut args = Vec::new();
        while !self.eat(")") {
            if !args.is_empty() && !self.eat(",") {
                return Err(self.wrong("expected , or )"));
            }
            if self.eat("evaluate=False") {
                continue;
            }
            args.push(self.expression()?);
        }
        let built = self.build(name, args)?;
        self.sized(built)
    }

    /// `ExprCondPair(value, condition), …)`: the first value whose condition holds; the last one's always does.
    fn pieces(&mut self) -> Result<Expr, String> {
        let mut pieces = Vec::new();
        while !self.eat(")") {
            if !pieces.is_empty() && !self.eat(",") {
                return Err(self.wrong("expected , or )"));
            }
            let well = self.eat("ExprCondPair(");
            let value = self.expression()?;
            let apart = self.eat(",");
            let condition = self.expression()?;
            if !(well && apart && self.eat(")")) {
                return Err(self.wrong("expected ExprCondPair(value, condition)"));
            }
            pieces.push((value, condition));
        }
        let Some((rest, Expr::Bool(true))) = pieces.pop() else { return Err(self.wrong("a last piece whose condition may not hold")) };
        Ok(pieces.into_iter().rev().fold(rest, |rest, (value, condition)| Expr::call(Func::Where, vec![condition, value, rest])))
    }

    fn quoted(&mut self) -> Result<&'a str, String> {
        if !self.eat("'") {
            return Err(self.wrong("expected a quoted name"));
        }
        let text = self.take_while(|b| b != b'\'');
        if self.eat("'") { Ok(text) } else { Err(self.wrong("missing '")) }
    }

    /// `, positive=True, integer=True)`: assumptions that the prefix of the name implies already.
    fn keywords(&mut self) -> Result<(), String> {
        while self.eat(",") {
            self.blank();
            self.take_while(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'=');
        }
        if self.eat(")") { Ok(()) } else { Err(self.wrong("missing )")) }
    }

    fn build(&self, name: &str, mut args: Vec<Expr>) -> Result<Expr, String> {
        let arity =
            |n: usize| if args.len() == n { Ok(()) } else { Err(self.wrong(&format!("{name} takes {n} arguments, not {}", args.len()))) };
        Ok(match name {
            "Integer" | "Identity" => {
                arity(1)?;
                args.remove(0)
            }
            "Rational" => {
                arity(2)?;
                Expr::call(Func::TrueDiv, args)
            }
            "Add" => Expr::sum(&args),
            "Mul" => Expr::product(&args),
            "GreaterThan" | "StrictGreaterThan" | "Gt" | "Ge" => {
                arity(2)?;
                args.reverse();
                Expr::call(if matches!(name, "GreaterThan" | "Ge") { Func::Le } else { Func::Lt }, args)
            }
            "LShift" | "RShift" => match args.as_slice() {
                [a, Expr::Int(n @ 0..=62)] if name == "LShift" => a.times(&Expr::Int(1 << n)),
                [a, Expr::Int(n @ 0..=62)] => a.floor_div(&Expr::Int(1 << n)),
                _ => return Err(self.wrong("shift by an amount that is no small number")),
            },
            // Sympy's selection: pairs of a value and when it counts, the last one always.
            "ExprCondPair" => {
                arity(2)?;
                args.swap(0, 1);
                args.push(Expr::float(f64::NAN));
                Expr::Call(Func::Where, args.into())
            }
            "Piecewise" => {
                let mut chosen = None;
                for pair in args.into_iter().rev() {
                    let Expr::Call(Func::Where, parts) = &pair else { return Err(self.wrong("Piecewise takes pairs")) };
                    let [condition, value, _] = &parts[..] else { return Err(self.wrong("Piecewise takes pairs")) };
                    chosen = Some(match (chosen, condition) {
                        (_, Expr::Bool(true)) => value.clone(),
                        (Some(other), _) => Expr::call(Func::Where, vec![condition.clone(), value.clone(), other]),
                        (None, _) => return Err(self.wrong("the last pair of Piecewise does not hold always")),
                    });
                }
                chosen.ok_or_else(|| self.wrong("Piecewise of nothing"))?
            }
            // Python's: to a whole number, or to so many decimals.
            "round" => Expr::call(if args.len() == 1 { Func::RoundToInt } else { Func::RoundDecimal }, args),
            "Min" | "Max" | "min" | "max" | "torch.sym_min" | "torch.sym_max" if args.is_empty() => {
                return Err(self.wrong("extremum of nothing"));
            }
            _ => match Func::from_name(name) {
                Some(func) => Expr::call(func, args),
                None => return Err(self.wrong(&format!("unknown function {name}"))),
            },
        })
    }
}
