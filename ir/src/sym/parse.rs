//! Reads symbolic expressions: sympy's srepr (schema 8), infix (older files, range keys) and our own text.

use super::{Expr, Func, Symbol};

/// Nesting deeper than this is refused; torch's own expressions stay below ten.
const MAX_DEPTH: u32 = 100;

impl Expr {
    /// Parses any of the three notations.
    ///
    /// # Errors
    /// A sentence saying what is wrong at which byte.
    pub fn parse(text: &str) -> Result<Expr, String> {
        let mut p = Parser { text, at: 0, depth: 0 };
        let e = p.expression()?;
        p.blank();
        if p.at < text.len() { Err(p.wrong("more text than one expression")) } else { Ok(e) }
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

    fn expression(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong("expression nested too deeply"));
        }
        let mut e = self.product()?;
        loop {
            if self.eat("+") {
                e = e.plus(&self.product()?);
            } else if self.eat("-") {
                e = e.minus(&self.product()?);
            } else {
                break;
            }
        }
        let comparison = [("==", Func::Eq, false), ("!=", Func::Ne, false), ("<=", Func::Le, false), (">=", Func::Le, true), ("<", Func::Lt, false), (">", Func::Lt, true)];
        for (token, func, swap) in comparison {
            if self.eat(token) {
                let b = self.expression()?;
                e = Expr::call(func, if swap { vec![b, e] } else { vec![e, b] });
                break;
            }
        }
        self.depth -= 1;
        Ok(e)
    }

    fn product(&mut self) -> Result<Expr, String> {
        let mut e = self.power()?;
        loop {
            if self.eat("//") {
                e = e.floor_div(&self.power()?);
            } else if self.eat("/") {
                e = Expr::call(Func::TrueDiv, vec![e, self.power()?]);
            } else if self.eat("%") {
                e = e.modulo(&self.power()?);
            } else if !self.rest().trim_start().starts_with("**") && self.eat("*") {
                e = e.times(&self.power()?);
            } else {
                return Ok(e);
            }
        }
    }

    fn power(&mut self) -> Result<Expr, String> {
        let base = self.factor()?;
        if self.eat("**") { Ok(Expr::call(Func::Pow, vec![base, self.factor()?])) } else { Ok(base) }
    }

    fn factor(&mut self) -> Result<Expr, String> {
        if self.eat("-") {
            // The sign belongs to the number where there is one: -2^63 has no positive counterpart.
            if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
                self.at -= 1;
                return self.number();
            }
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.wrong("expression nested too deeply"));
            }
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
        text.parse().map(|x: f64| Expr::Float(x.to_bits())).map_err(|_| self.wrong("not a number"))
    }

    fn name(&mut self) -> Result<Expr, String> {
        let name = self.take_while(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        if !self.eat("(") {
            return match name {
                "true" | "True" => Ok(Expr::Bool(true)),
                "false" | "False" => Ok(Expr::Bool(false)),
                "inf" => Ok(Expr::Float(f64::INFINITY.to_bits())),
                "NaN" => Ok(Expr::Float(f64::NAN.to_bits())),
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
                    text.parse().map(|x: f64| Expr::Float(x.to_bits())).map_err(|_| self.wrong("not a number"))
                };
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
        self.build(name, args)
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
        let arity = |n: usize| if args.len() == n { Ok(()) } else { Err(self.wrong(&format!("{name} takes {n} arguments, not {}", args.len()))) };
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
            "Min" | "Max" if args.is_empty() => return Err(self.wrong("extremum of nothing")),
            _ => match Func::from_name(name) {
                Some(func) => Expr::call(func, args),
                None => return Err(self.wrong(&format!("unknown function {name}"))),
            },
        })
    }
}
