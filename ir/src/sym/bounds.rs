//! What values an expression can take.

use std::collections::BTreeMap;
use std::fmt;

use super::{Expr, Func, Symbol};

/// Inclusive bounds of an integer; `None` is unbounded on that side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Smallest value.
    pub min: Option<i64>,
    /// Largest value.
    pub max: Option<i64>,
}

impl Range {
    /// Any integer.
    pub const ANY: Range = Range { min: None, max: None };

    /// Exactly `n`.
    pub const fn only(n: i64) -> Self {
        Range { min: Some(n), max: Some(n) }
    }

    /// The values in both.
    #[must_use]
    pub fn intersect(self, other: Range) -> Self {
        let pick = |a: Option<i64>, b: Option<i64>, f: fn(i64, i64) -> i64| match (a, b) {
            (Some(a), Some(b)) => Some(f(a, b)),
            (a, b) => a.or(b),
        };
        Range { min: pick(self.min, other.min, i64::max), max: pick(self.max, other.max, i64::min) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |n: Option<i64>| n.map_or_else(String::new, |n| n.to_string());
        write!(f, "[{}..{}]", side(self.min), side(self.max))
    }
}

/// Known bounds of the symbols of a method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(pub BTreeMap<Symbol, Range>);

impl Ranges {
    /// Bounds of a symbol. Input sizes (`s…`) are never negative.
    pub fn of(&self, s: &Symbol) -> Range {
        let implied = if s.name().starts_with('s') { Range { min: Some(0), max: None } } else { Range::ANY };
        self.0.get(s).copied().unwrap_or(Range::ANY).intersect(implied)
    }

    /// Bounds of an expression, by interval arithmetic: never too narrow, possibly too wide.
    pub fn bounds(&self, e: &Expr) -> Range {
        let plain = self.intervals(e);
        match e {
            Expr::Add(terms) => self.undivided(terms).map_or(plain, |r| plain.intersect(r)),
            _ => plain,
        }
    }

    /// Bounds of a sum with floor divisions by numbers. Multiplied by the common denominator, `x//d` becomes `x` less what
    /// rounding can take away, and terms of one symbol inside and outside of divisions meet: `s - s//2` is at least `s/2`.
    fn undivided(&self, terms: &[Expr]) -> Option<Range> {
        let common = terms.iter().filter_map(division).try_fold(1i64, |k, (_, _, d)| (k / gcd(k, d)).checked_mul(d))?;
        if common == 1 {
            return None;
        }
        let (mut sum, mut taken, mut added) = (Expr::Int(0), 0i64, 0i64);
        for t in terms {
            let Some((m, x, d)) = division(t) else {
                sum = sum.plus(&t.times(&Expr::Int(common)));
                continue;
            };
            let m = m.checked_mul(common / d)?;
            sum = sum.plus(&x.times(&Expr::Int(m)));
            let rounding = m.checked_mul(d - 1)?;
            if m > 0 { taken = taken.checked_add(rounding)? } else { added = added.checked_sub(rounding)? }
        }
        let r = self.intervals(&sum);
        let up = |n: i64| n.checked_neg().map(|n| n.div_euclid(common)).and_then(i64::checked_neg);
        Some(Range {
            min: r.min.and_then(|n| n.checked_sub(taken)).and_then(up),
            max: r.max.and_then(|n| n.checked_add(added)).map(|n| n.div_euclid(common)),
        })
    }

    fn intervals(&self, e: &Expr) -> Range {
        match e {
            Expr::Int(n) => Range::only(*n),
            Expr::Sym(s) => self.of(s),
            Expr::Add(terms) => terms.iter().fold(Range::only(0), |acc, t| {
                let t = self.intervals(t);
                let add = |a: Option<i64>, b: Option<i64>| a?.checked_add(b?);
                Range { min: add(acc.min, t.min), max: add(acc.max, t.max) }
            }),
            Expr::Mul(factors) => factors.iter().fold(Range::only(1), |acc, t| multiply(acc, self.intervals(t))),
            Expr::Call(func, args) => self.call_bounds(*func, args),
            Expr::Bool(_) | Expr::Float(_) => Range::ANY,
        }
    }

    fn call_bounds(&self, func: Func, args: &[Expr]) -> Range {
        let all: Vec<Range> = args.iter().map(|a| self.intervals(a)).collect();
        match (func, all.as_slice()) {
            (Func::FloorDiv, [a, Range { min: Some(lo), max: hi }]) if *lo > 0 && hi.is_none_or(|h| h > 0) => {
                let floor = |x: i64, d: i64| x.div_euclid(d);
                // Dividing by more brings a value closer to zero (or to -1).
                let min = a.min.map(|x| if x >= 0 { hi.map_or(0, |h| floor(x, h)) } else { floor(x, *lo) });
                let max = a.max.map(|x| if x >= 0 { floor(x, *lo) } else { hi.map_or(-1, |h| floor(x, h)) });
                Range { min, max }
            }
            (Func::Mod, [a, Range { min: Some(lo), max }]) if *lo > 0 => {
                let full = Range { min: Some(0), max: max.map(|m| m.saturating_sub(1)) };
                // A dividend that never reaches the divisor is its own remainder.
                match (a.min, a.max) {
                    (Some(x), Some(y)) if x >= 0 && y < *lo => *a,
                    (Some(x), _) if x >= 0 => full.intersect(Range { min: None, max: a.max }),
                    _ => full,
                }
            }
            (Func::Max, all) => {
                let min = all.iter().filter_map(|r| r.min).max();
                Range { min, max: all.iter().map(|r| r.max).try_fold(i64::MIN, |m, x| Some(m.max(x?))) }
            }
            (Func::Min, all) => {
                let max = all.iter().filter_map(|r| r.max).min();
                Range { min: all.iter().map(|r| r.min).try_fold(i64::MAX, |m, x| Some(m.min(x?))), max }
            }
            (Func::Where, [_, a, b]) => {
                Range { min: a.min.zip(b.min).map(|(x, y)| x.min(y)), max: a.max.zip(b.max).map(|(x, y)| x.max(y)) }
            }
            (Func::Abs, [a]) => match (a.min, a.max) {
                (Some(lo), hi) if lo >= 0 => Range { min: Some(lo), max: hi },
                (lo, hi) => Range { min: Some(0), max: lo.and_then(i64::checked_neg).zip(hi).map(|(x, y)| x.max(y)) },
            },
            (Func::TruncToInt | Func::FloorToInt | Func::CeilToInt | Func::RoundToInt, _) => self.rounded(func, args),
            _ => Range::ANY,
        }
    }

    /// Whether `a == b` for all values of the symbols: `None` if it depends (or is not known).
    pub fn equal(&self, a: &Expr, b: &Expr) -> Option<bool> {
        let d = self.bounds(&a.minus(b));
        match (d.min, d.max) {
            (Some(0), Some(0)) => Some(true),
            (Some(1..), _) | (_, Some(..=-1)) => Some(false),
            _ => None,
        }
    }

    /// Whether `a <= b` for all values of the symbols: `None` if it depends (or is not known).
    pub fn at_most(&self, a: &Expr, b: &Expr) -> Option<bool> {
        let d = self.bounds(&b.minus(a));
        match (d.min, d.max) {
            (Some(0..), _) => Some(true),
            (_, Some(..=-1)) => Some(false),
            _ => None,
        }
    }
}

/// Coefficient, dividend and divisor of a term that is a floor division by a positive number.
fn division(e: &Expr) -> Option<(i64, &Expr, i64)> {
    let (m, call) = match e {
        Expr::Mul(factors) => match &factors[..] {
            [Expr::Int(m), call] => (*m, call),
            _ => return None,
        },
        call => (1, call),
    };
    let Expr::Call(Func::FloorDiv, args) = call else { return None };
    let [x, Expr::Int(d @ 1..)] = &args[..] else { return None };
    Some((m, x, *d))
}

/// Greatest common divisor of positive numbers.
fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn multiply(a: Range, b: Range) -> Range {
    if let (Range { min: Some(a), max: Some(m) }, b) | (b, Range { min: Some(a), max: Some(m) }) = (a, b)
        && a == m
    {
        // A constant factor keeps one-sided bounds.
        let times = |x: Option<i64>| x.and_then(|x| x.checked_mul(a));
        return match a {
            0 => Range::only(0),
            1.. => Range { min: times(b.min), max: times(b.max) },
            _ => Range { min: times(b.max), max: times(b.min) },
        };
    }
    match (a.min, b.min) {
        (Some(x @ 0..), Some(y @ 0..)) => Range { min: x.checked_mul(y), max: a.max.zip(b.max).and_then(|(x, y)| x.checked_mul(y)) },
        _ => {
            let corners = [(a.min, b.min), (a.min, b.max), (a.max, b.min), (a.max, b.max)];
            let products: Option<Vec<i64>> = corners.iter().map(|(x, y)| (*x)?.checked_mul((*y)?)).collect();
            match products {
                Some(p) => Range { min: p.iter().min().copied(), max: p.iter().max().copied() },
                None => Range::ANY,
            }
        }
    }
}
