//! Expressions as people write them, in the notation of Python; [`Expr::parse`] reads it back to the same value.

use std::fmt;

use super::{Expr, Func};

/// Shows an expression with operators where Python has them: `s0 % 2 == 0`, `trunc(0.75*float(s0)) >= 2`.
pub struct Infix<'a>(pub &'a Expr);

/// How tightly an operator binds; operands that bind less tightly stand in parentheses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Any,
    Or,
    And,
    Not,
    Comparison,
    Sum,
    Product,
    Atom,
}

impl fmt::Display for Infix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, Level::Any)
    }
}

fn show(f: &mut fmt::Formatter<'_>, e: &Expr, around: Level) -> fmt::Result {
    let level = level(e);
    if level < around {
        f.write_str("(")?;
    }
    match e {
        Expr::Add(terms) => sum(f, terms)?,
        Expr::Mul(factors) => joined(f, factors, "*", Level::Product)?,
        Expr::Call(func, args) => match (operator(*func), &args[..]) {
            (Some((sign, _)), [a, b]) if !matches!(func, Func::And | Func::Or) => {
                // Quotients are read from left to right, so the left operand may be one itself.
                let (left, right) = if level == Level::Product { (level, Level::Atom) } else { (Level::Sum, Level::Sum) };
                show(f, a, left)?;
                write!(f, " {sign} ")?;
                show(f, b, right)?;
            }
            (Some((sign, level)), parts) if parts.len() > 1 => joined(f, parts, &format!(" {sign} "), level)?,
            (_, [x]) if *func == Func::Not => {
                f.write_str("not ")?;
                show(f, x, Level::Atom)?;
            }
            _ => {
                write!(f, "{}(", name(*func))?;
                for (i, a) in args.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    show(f, a, Level::Any)?;
                }
                f.write_str(")")?;
            }
        },
        _ => write!(f, "{e}")?,
    }
    f.write_str(if level < around { ")" } else { "" })
}

/// The sign between the operands of a function that is an operator in Python, and how tightly it binds.
fn operator(func: Func) -> Option<(&'static str, Level)> {
    Some(match func {
        Func::Or => ("or", Level::And),
        Func::And => ("and", Level::Not),
        Func::Eq => ("==", Level::Comparison),
        Func::Ne => ("!=", Level::Comparison),
        Func::Lt => ("<", Level::Comparison),
        Func::Le => ("<=", Level::Comparison),
        Func::FloorDiv => ("//", Level::Product),
        Func::Mod => ("%", Level::Product),
        Func::TrueDiv => ("/", Level::Product),
        _ => return None,
    })
}

fn level(e: &Expr) -> Level {
    match e {
        Expr::Add(_) => Level::Sum,
        Expr::Mul(_) => Level::Product,
        Expr::Int(..=-1) => Level::Sum,
        Expr::Float(bits) if f64::from_bits(*bits).is_sign_negative() => Level::Sum,
        Expr::Call(Func::Not, args) if args.len() == 1 => Level::Not,
        Expr::Call(Func::Or, args) if args.len() > 1 => Level::Or,
        Expr::Call(Func::And, args) if args.len() > 1 => Level::And,
        Expr::Call(func, args) if args.len() == 2 => operator(*func).map_or(Level::Atom, |(_, level)| level),
        _ => Level::Atom,
    }
}

fn name(func: Func) -> &'static str {
    match func {
        Func::Max => "max",
        Func::Min => "min",
        Func::Abs => "abs",
        Func::ToFloat => "float",
        Func::TruncToInt => "trunc",
        Func::FloorToInt => "floor",
        Func::CeilToInt => "ceil",
        Func::Sqrt => "sqrt",
        other => other.name(),
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Expr], sign: &str, level: Level) -> fmt::Result {
    for (i, e) in parts.iter().enumerate() {
        f.write_str(if i > 0 { sign } else { "" })?;
        // What is read from left to right may begin with an operator of the same kind only in front.
        let nested = i > 0 && level == Level::Product;
        show(f, e, if nested { Level::Atom } else { level })?;
    }
    Ok(())
}

/// Numbers sort first; people write them last.
fn sum(f: &mut fmt::Formatter<'_>, terms: &[Expr]) -> fmt::Result {
    let (numbers, others): (Vec<&Expr>, Vec<&Expr>) = terms.iter().partition(|t| matches!(t, Expr::Int(_)));
    for (i, t) in others.into_iter().chain(numbers).enumerate() {
        let negated = match t {
            Expr::Int(n @ ..=-1) => n.checked_neg().map(Expr::Int),
            Expr::Mul(factors) => match &factors[..] {
                [Expr::Int(n @ ..=-1), rest @ ..] => n.checked_neg().map(|n| Expr::product(std::iter::once(&Expr::Int(n)).chain(rest))),
                _ => None,
            },
            _ => None,
        };
        match (i, &negated) {
            (0, _) => show(f, t, Level::Sum)?,
            (_, Some(t)) => {
                f.write_str(" - ")?;
                show(f, t, Level::Product)?;
            }
            (_, None) => {
                f.write_str(" + ")?;
                show(f, t, Level::Product)?;
            }
        }
    }
    Ok(())
}
