//! What conditions on symbols say about their bounds, and what bounds say about conditions.
//!
//! Both directions are sound and neither is complete: a bound is only narrowed to leave out values for which a condition
//! does not hold, and a condition is only decided if every value within the bounds decides it the same way.

use std::collections::BTreeSet;

use super::{Expr, Func, Num, Range, Ranges, Symbol, parse};

/// Conditions are applied so many times over: each may narrow what another one needs.
const ROUNDS: usize = 8;

/// At most so many values at each end of a range are tried one by one.
const TRIED: i64 = 1 << 12;

/// At most so many in all.
const TRIES: i64 = 1 << 18;

/// Conditions on a symbol of at most so many values are decided by trying all.
const FEW: i64 = 1 << 10;

/// No size is beyond this.
const MOST: i64 = 1 << 40;

/// Conditions nested deeper than this are not looked into.
const MAX_DEPTH: u32 = 64;

/// Of floats with more calls in calls, nothing is known.
const MAX_ROUNDED: u32 = 8;

/// Whether a condition holds for these values of the symbols; `None` where one is missing or the condition cannot be computed.
pub(super) fn truth(condition: &Expr, symbol: &dyn Fn(&Symbol) -> Option<i64>) -> Option<bool> {
    match condition {
        // As in Python, what follows the part that decides is not computed.
        Expr::Call(Func::And, parts) => {
            for part in parts.iter() {
                if !truth(part, symbol)? {
                    return Some(false);
                }
            }
            Some(true)
        }
        Expr::Call(Func::Or, parts) => {
            for part in parts.iter() {
                if truth(part, symbol)? {
                    return Some(true);
                }
            }
            Some(false)
        }
        Expr::Call(Func::Not, part) => match &part[..] {
            [part] => truth(part, symbol).map(|b| !b),
            _ => None,
        },
        other => match other.eval(symbol)? {
            Num::Bool(b) => Some(b),
            Num::Int(n) => Some(n != 0),
            Num::Float(_) => None,
        },
    }
}

/// How an expression changes as a symbol grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Same,
    Up,
    Down,
}

impl Way {
    fn back(self) -> Self {
        match self {
            Way::Same => Way::Same,
            Way::Up => Way::Down,
            Way::Down => Way::Up,
        }
    }

    /// Of something that grows with both.
    fn with(self, other: Way) -> Option<Self> {
        match (self, other) {
            (Way::Same, way) | (way, Way::Same) => Some(way),
            (a, b) => (a == b).then_some(a),
        }
    }
}

impl Expr {
    /// Whether this holds as a condition for these values of the symbols; `None` where one is missing, or where it cannot be
    /// computed, as after a division by zero.
    pub fn holds(&self, symbol: &dyn Fn(&Symbol) -> Option<i64>) -> Option<bool> {
        truth(self, symbol)
    }

    fn symbols(&self) -> BTreeSet<Symbol> {
        let mut found = BTreeSet::new();
        self.visit_symbols(&mut |s| {
            if !found.contains(s) {
                found.insert(s.clone());
            }
        });
        found
    }

    fn has(&self, s: &Symbol) -> bool {
        let mut found = false;
        self.visit_symbols(&mut |t| found |= t == s);
        found
    }
}

impl Ranges {
    /// Bounds of a float that is rounded to an integer, where each symbol moves it one way only.
    pub(super) fn rounded(&self, func: Func, args: &[Expr]) -> Range {
        let e = Expr::Call(func, args.into());
        // Of what is inside, the bounds are asked for once at each level.
        if parse::height(&e) > MAX_ROUNDED {
            return Range::ANY;
        }
        let ways: Option<Vec<(Symbol, Way)>> = e.symbols().into_iter().map(|s| self.way(&e, &s, 0).map(|way| (s, way))).collect();
        let Some(ways) = ways else { return Range::ANY };
        let corner = |most: bool| {
            e.eval_int(&|s| {
                let (_, way) = ways.iter().find(|(t, _)| t == s)?;
                let range = self.of(s);
                if (*way == Way::Up) == most { range.max } else { range.min }
            })
        };
        Range { min: corner(false), max: corner(true) }
    }

    /// Whether a condition holds for all values of the symbols, or for none; `None` if it depends, or is not known.
    pub fn decide(&self, condition: &Expr) -> Option<bool> {
        self.decided(condition, 0)
    }

    fn decided(&self, condition: &Expr, depth: u32) -> Option<bool> {
        if depth > MAX_DEPTH {
            return None;
        }
        let joined = |parts: &[Expr], deciding: bool| {
            let parts: Vec<Option<bool>> = parts.iter().map(|part| self.decided(part, depth + 1)).collect();
            if parts.contains(&Some(deciding)) {
                return Some(deciding);
            }
            parts.iter().all(|p| *p == Some(!deciding)).then_some(!deciding)
        };
        let decided = match condition {
            Expr::Bool(b) => return Some(*b),
            Expr::Call(Func::And, parts) => joined(parts, false),
            Expr::Call(Func::Or, parts) => joined(parts, true),
            Expr::Call(Func::Not, part) => part.first().and_then(|p| self.decided(p, depth + 1)).map(|b| !b),
            Expr::Call(func, args) => match (func, &args[..]) {
                (Func::Eq, [a, b]) => self.equal_or_not(a, b),
                (Func::Ne, [a, b]) => self.equal_or_not(a, b).map(|x| !x),
                (Func::Le, [a, b]) => self.ordered(Func::Le, a, b),
                (Func::Lt, [a, b]) => self.ordered(Func::Lt, a, b),
                _ => None,
            },
            _ => None,
        };
        decided.or_else(|| self.decided_by_all(condition))
    }

    fn equal_or_not(&self, a: &Expr, b: &Expr) -> Option<bool> {
        if is_integer(a)
            && is_integer(b)
            && let Some(known) = self.equal(a, b)
        {
            return Some(known);
        }
        let (up, down) = (self.ordered(Func::Le, a, b), self.ordered(Func::Le, b, a));
        match (up, down) {
            (Some(true), Some(true)) => Some(true),
            (Some(false), _) | (_, Some(false)) => Some(false),
            _ => None,
        }
    }

    /// `a <= b` or `a < b`.
    fn ordered(&self, func: Func, a: &Expr, b: &Expr) -> Option<bool> {
        if is_integer(a) && is_integer(b) {
            let known = if func == Func::Le { self.at_most(a, b) } else { self.at_most(b, a).map(|x| !x) };
            if known.is_some() {
                return known;
            }
        }
        // Of an extremum, its parts may tell.
        let each = |parts: &[Expr], flip: bool| -> Vec<Option<bool>> {
            parts.iter().map(|part| if flip { self.ordered(func, a, part) } else { self.ordered(func, part, b) }).collect()
        };
        let parts = match (a, b) {
            (Expr::Call(Func::Max, parts), _) => Some((each(parts, false), true)),
            (_, Expr::Call(Func::Min, parts)) => Some((each(parts, true), true)),
            (Expr::Call(Func::Min, parts), _) => Some((each(parts, false), false)),
            (_, Expr::Call(Func::Max, parts)) => Some((each(parts, true), false)),
            _ => None,
        };
        if let Some((parts, all)) = parts {
            if parts.contains(&Some(!all)) {
                return Some(!all);
            }
            if parts.iter().all(|p| *p == Some(all)) {
                return Some(all);
            }
        }
        // Where each symbol moves it one way only, the corner that is worst for it decides.
        let condition = Expr::call(func, vec![a.clone(), b.clone()]);
        let symbols = condition.symbols();
        let ways: Vec<(Symbol, Way)> = symbols.into_iter().map(|s| self.comparison(a, b, &s).map(|way| (s, way))).collect::<Option<_>>()?;
        let corner = |best: bool| {
            truth(&condition, &|s| {
                let (_, way) = ways.iter().find(|(t, _)| t == s)?;
                let range = self.of(s);
                if (*way == Way::Up) == best { range.max } else { range.min }
            })
        };
        if corner(false) == Some(true) {
            return Some(true);
        }
        (corner(true) == Some(false)).then_some(false)
    }

    /// Tries all values of the only symbol, if they are few.
    fn decided_by_all(&self, condition: &Expr) -> Option<bool> {
        let symbols = condition.symbols();
        let mut symbols = symbols.iter();
        let (symbol, None) = (symbols.next()?, symbols.next()) else { return None };
        let (min, max) = (self.of(symbol).min?, self.of(symbol).max?);
        if min > max || max.checked_sub(min)? > FEW {
            return None;
        }
        let at = |n: i64| truth(condition, &|s| (s == symbol).then_some(n));
        let first = at(min)?;
        (min..=max).all(|n| at(n) == Some(first)).then_some(first)
    }

    /// Narrows bounds to leave out values for which one of these conditions does not hold. A condition that holds for no value
    /// at all narrows nothing.
    pub fn narrow<'a>(&mut self, conditions: impl Iterator<Item = &'a Expr> + Clone) {
        let mut tries = TRIES;
        for _ in 0..ROUNDS {
            let before = self.clone();
            for condition in conditions.clone() {
                self.narrow_by(condition, &mut tries, 0);
            }
            if *self == before {
                return;
            }
        }
    }

    fn narrow_by(&mut self, condition: &Expr, tries: &mut i64, depth: u32) {
        let Expr::Call(func, args) = condition else { return };
        match (func, &args[..]) {
            (Func::And, parts) if depth < MAX_DEPTH => parts.iter().for_each(|part| self.narrow_by(part, tries, depth + 1)),
            (Func::Not, [Expr::Call(inner, args)]) if depth < MAX_DEPTH => match (inner, &args[..]) {
                (Func::Lt, [a, b]) => self.narrow_by(&Expr::call(Func::Le, vec![b.clone(), a.clone()]), tries, depth + 1),
                (Func::Le, [a, b]) => self.narrow_by(&Expr::call(Func::Lt, vec![b.clone(), a.clone()]), tries, depth + 1),
                (Func::Ne, [a, b]) => self.narrow_by(&Expr::call(Func::Eq, vec![a.clone(), b.clone()]), tries, depth + 1),
                (Func::Or, parts) => {
                    parts.iter().for_each(|part| self.narrow_by(&Expr::call(Func::Not, vec![part.clone()]), tries, depth + 1));
                }
                _ => {}
            },
            (Func::Eq, [a, b]) => {
                self.narrow_to(Func::Le, a, b);
                self.narrow_to(Func::Le, b, a);
            }
            (Func::Le | Func::Lt, [a, b]) => self.narrow_to(*func, a, b),
            _ => {}
        }
        self.trim(condition, tries);
    }

    /// By `a <= b` or `a < b`.
    fn narrow_to(&mut self, func: Func, a: &Expr, b: &Expr) {
        let condition = Expr::call(func, vec![a.clone(), b.clone()]);
        let symbols = condition.symbols();
        if let [s] = symbols.iter().collect::<Vec<_>>()[..] {
            match self.comparison(a, b, s) {
                Some(Way::Up) => self.raise(&condition, s),
                Some(Way::Down) => self.lower(&condition, s),
                _ => {}
            }
        } else if is_integer(a) && is_integer(b) {
            let gap = b.minus(a).minus(&Expr::Int(i64::from(func == Func::Lt)));
            for s in &symbols {
                self.propagate(&gap, s);
            }
        }
    }

    /// By `gap >= 0`, where the symbol stands in it as `c*s` only.
    fn propagate(&mut self, gap: &Expr, s: &Symbol) {
        let Expr::Add(terms) = gap else { return };
        let coefficient = terms.iter().find_map(|t| match t {
            Expr::Sym(t) if t == s => Some(1),
            Expr::Mul(factors) => match &factors[..] {
                [Expr::Int(c), Expr::Sym(t)] if t == s => Some(*c),
                _ => None,
            },
            _ => None,
        });
        let Some(c) = coefficient else { return };
        let rest = gap.minus(&Expr::Sym(s.clone()).times(&Expr::Int(c)));
        if rest.has(s) {
            return;
        }
        let Some(most) = self.bounds(&rest).max else { return };
        let bound = if c > 0 {
            // At least -most / c, rounded up.
            Range { min: most.div_euclid(c).checked_neg(), max: None }
        } else {
            Range { min: None, max: c.checked_neg().map(|c| most.div_euclid(c)) }
        };
        self.set(s, bound);
    }

    /// The way in which `a <= b` changes: up if a larger symbol can only make it true.
    fn comparison(&self, a: &Expr, b: &Expr, s: &Symbol) -> Option<Way> {
        self.way(a, s, 0)?.back().with(self.way(b, s, 0)?)
    }

    /// The condition becomes true as the symbol grows: it is at least the first value for which it is.
    fn raise(&mut self, condition: &Expr, s: &Symbol) {
        let at = |n: i64| truth(condition, &|t| (t == s).then_some(n));
        let range = self.of(s);
        let Some(low) = range.min else { return };
        if let Some(first) = turn(low, range.max.unwrap_or(MOST).min(MOST), |n| at(n).map(|b| !b)) {
            self.set(s, Range { min: Some(first), max: None });
        }
    }

    /// The condition becomes false as the symbol grows: it is at most the last value for which it is not.
    fn lower(&mut self, condition: &Expr, s: &Symbol) {
        let at = |n: i64| truth(condition, &|t| (t == s).then_some(n));
        let range = self.of(s);
        let Some(low) = range.min else { return };
        if at(low) == Some(true)
            && let Some(first) = turn(low, range.max.unwrap_or(MOST).min(MOST), at)
        {
            self.set(s, Range { min: None, max: Some(first - 1) });
        }
    }

    /// Leaves out values at both ends of the range of the only symbol.
    fn trim(&mut self, condition: &Expr, tries: &mut i64) {
        let symbols = condition.symbols();
        let [s] = symbols.iter().collect::<Vec<_>>()[..] else { return };
        let mut fails = |n: i64| {
            *tries -= 1;
            *tries >= 0 && truth(condition, &|t| (t == s).then_some(n)) == Some(false)
        };
        let range = self.of(s);
        if let Some(min) = range.min {
            let end = range.max.unwrap_or(i64::MAX).min(min.saturating_add(TRIED));
            if let Some(first) = (min..=end).find(|&n| !fails(n)) {
                self.set(s, Range { min: Some(first), max: None });
            }
        }
        if let (Some(min), Some(max)) = (range.min, range.max) {
            let end = min.max(max.saturating_sub(TRIED));
            if let Some(last) = (end..=max).rev().find(|&n| !fails(n)) {
                self.set(s, Range { min: None, max: Some(last) });
            }
        }
    }

    /// Narrows a range, unless nothing would be left of it.
    fn set(&mut self, s: &Symbol, to: Range) {
        let narrowed = self.of(s).intersect(to);
        let empty = narrowed.min.zip(narrowed.max).is_some_and(|(min, max)| min > max);
        if !empty && narrowed != self.of(s) {
            self.0.insert(s.clone(), narrowed);
        }
    }

    /// The way in which an expression changes as `s` grows, where it is known to change one way only.
    fn way(&self, e: &Expr, s: &Symbol, depth: u32) -> Option<Way> {
        if depth > MAX_DEPTH {
            return None;
        }
        if !e.has(s) {
            return Some(Way::Same);
        }
        let way = |e: &Expr| self.way(e, s, depth + 1);
        let all = |args: &[Expr]| args.iter().try_fold(Way::Same, |sum, e| sum.with(way(e)?));
        match e {
            Expr::Sym(_) => Some(Way::Up),
            Expr::Add(terms) => all(terms),
            Expr::Mul(factors) => {
                let negative = |e: &&Expr| match e {
                    Expr::Int(n) => *n < 0,
                    Expr::Float(bits) => f64::from_bits(*bits) < 0.0,
                    _ => false,
                };
                let mut signs = 0;
                let rest: Vec<Expr> = factors
                    .iter()
                    .filter(|e| {
                        !negative(e) || {
                            signs += 1;
                            false
                        }
                    })
                    .cloned()
                    .collect();
                let product = rest.iter().all(|e| self.not_negative(e)).then(|| all(&rest)).flatten()?;
                Some(if signs % 2 == 1 { product.back() } else { product })
            }
            Expr::Call(func, args) => match (func, &args[..]) {
                (Func::Sum | Func::Max | Func::Min, args) => all(args),
                (Func::FloorDiv | Func::TrueDiv, [a, b]) if self.positive(b) => match way(b)? {
                    Way::Same => way(a),
                    // Of what is divided by more, less is left.
                    by if self.not_negative(a) => way(a)?.with(by.back()),
                    _ => None,
                },
                (Func::FloatPow | Func::Pow, [a, b]) if !b.has(s) && self.positive(b) && self.not_negative(a) => way(a),
                (
                    Func::ToFloat
                    | Func::TruncToInt
                    | Func::FloorToInt
                    | Func::CeilToInt
                    | Func::RoundToInt
                    | Func::TruncToFloat
                    | Func::Sqrt
                    | Func::Exp
                    | Func::Log
                    | Func::Log2,
                    [a],
                ) => way(a),
                (Func::Abs, [a]) if self.not_negative(a) => way(a),
                _ => None,
            },
            Expr::Int(_) | Expr::Float(_) | Expr::Bool(_) => Some(Way::Same),
        }
    }

    fn not_negative(&self, e: &Expr) -> bool {
        match e {
            Expr::Float(bits) => f64::from_bits(*bits) >= 0.0,
            Expr::Call(Func::ToFloat | Func::TruncToInt | Func::FloorToInt | Func::CeilToInt | Func::RoundToInt, args) => {
                args.iter().all(|a| self.not_negative(a))
            }
            Expr::Call(Func::Sqrt | Func::Exp | Func::Abs, _) => true,
            Expr::Call(Func::TrueDiv, args) => match &args[..] {
                [a, b] => self.not_negative(a) && self.positive(b),
                _ => false,
            },
            Expr::Call(Func::FloatPow | Func::Pow, args) => args.first().is_some_and(|a| self.not_negative(a)),
            Expr::Mul(all) | Expr::Add(all) if !is_integer(e) => all.iter().all(|a| self.not_negative(a)),
            _ => is_integer(e) && self.bounds(e).min.is_some_and(|n| n >= 0),
        }
    }

    fn positive(&self, e: &Expr) -> bool {
        match e {
            Expr::Float(bits) => f64::from_bits(*bits) > 0.0,
            Expr::Call(Func::ToFloat, args) => args.iter().all(|a| self.positive(a)),
            _ => is_integer(e) && self.bounds(e).min.is_some_and(|n| n > 0),
        }
    }
}

/// The first value from `low` to `high` at which what holds at `low` holds no more, for something that changes once at most.
fn turn(low: i64, high: i64, holds: impl Fn(i64) -> Option<bool>) -> Option<i64> {
    if !holds(low)? {
        return None;
    }
    let (mut yes, mut step) = (low, 1i64);
    let mut no = loop {
        if yes >= high {
            return None;
        }
        let next = yes.saturating_add(step).min(high);
        if !holds(next)? {
            break next;
        }
        (yes, step) = (next, step.saturating_mul(2));
    };
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if holds(middle)? { yes = middle } else { no = middle }
    }
    Some(no)
}

/// Whether an expression is an integer whatever its symbols are.
fn is_integer(e: &Expr) -> bool {
    match e {
        Expr::Int(_) | Expr::Sym(_) => true,
        Expr::Bool(_) | Expr::Float(_) => false,
        Expr::Add(all) | Expr::Mul(all) => all.iter().all(is_integer),
        Expr::Call(func, args) => match func {
            Func::TruncToInt | Func::FloorToInt | Func::CeilToInt | Func::RoundToInt | Func::Dense => true,
            Func::ToFloat | Func::TrueDiv | Func::FloatPow | Func::TruncToFloat | Func::RoundDecimal => false,
            Func::Sqrt | Func::Sin | Func::Cos | Func::Tan | Func::Sinh | Func::Cosh | Func::Tanh => false,
            Func::Asin | Func::Acos | Func::Atan | Func::Asinh | Func::Exp | Func::Log | Func::Log2 => false,
            Func::Where => args.iter().skip(1).all(is_integer),
            _ => args.iter().all(is_integer),
        },
    }
}
