//! What assertions say about symbols.

use etx_ir::sym::{Expr, Func, Range, Ranges, Symbol};

/// Narrows bounds by a condition that holds wherever the program goes on. Conditions on more than one symbol, or on
/// more than a multiple of one, say nothing here.
pub(super) fn assume(ranges: &mut Ranges, condition: &Expr) {
    let Expr::Call(func, args) = condition else { return };
    match (func, &args[..]) {
        (Func::And, all) => all.iter().for_each(|a| assume(ranges, a)),
        (Func::Le, [a, b]) => at_least_zero(ranges, &b.minus(a)),
        (Func::Lt, [a, b]) => at_least_zero(ranges, &b.minus(a).minus(&Expr::Int(1))),
        (Func::Eq, [a, b]) => {
            at_least_zero(ranges, &b.minus(a));
            at_least_zero(ranges, &a.minus(b));
        }
        (Func::Not, [Expr::Call(Func::Le, ab)]) => {
            if let [a, b] = &ab[..] {
                at_least_zero(ranges, &a.minus(b).minus(&Expr::Int(1)));
            }
        }
        (Func::Not, [Expr::Call(Func::Lt, ab)]) => {
            if let [a, b] = &ab[..] {
                at_least_zero(ranges, &a.minus(b));
            }
        }
        _ => {}
    }
}

/// `k * symbol + n >= 0`.
fn at_least_zero(ranges: &mut Ranges, e: &Expr) {
    let (n, rest) = match e {
        Expr::Add(terms) => match &terms[..] {
            [Expr::Int(n), rest] | [rest, Expr::Int(n)] => (*n, rest),
            _ => return,
        },
        other => (0, other),
    };
    let (k, symbol) = match rest {
        Expr::Sym(s) => (1, s),
        Expr::Mul(factors) => match &factors[..] {
            [Expr::Int(k), Expr::Sym(s)] => (*k, s),
            _ => return,
        },
        _ => return,
    };
    // symbol >= ceil(-n / k), or <= floor(n / -k).
    let Some(bound) = (if k > 0 { n.checked_div_euclid(k).and_then(i64::checked_neg) } else { n.checked_div_euclid(-k) }) else { return };
    let range = if k > 0 { Range { min: Some(bound), max: None } } else { Range { min: None, max: Some(bound) } };
    narrow(ranges, symbol, range);
}

/// Narrows the bounds of a symbol, unless nothing would be left: a program that contradicts itself is not judged here.
pub(super) fn narrow(ranges: &mut Ranges, symbol: &Symbol, by: Range) {
    let new = ranges.of(symbol).intersect(by);
    if !matches!((new.min, new.max), (Some(a), Some(b)) if a > b) {
        ranges.0.insert(symbol.clone(), new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(condition: Expr) -> String {
        let mut r = Ranges::default();
        assume(&mut r, &condition);
        Symbol::new("u0").map_or_else(String::new, |s| r.of(&s).to_string())
    }

    fn e(text: &str) -> Expr {
        Expr::parse(text).unwrap()
    }

    #[test]
    fn simple_conditions_bound_their_symbol() {
        let call = |f, a: &str, b: &str| Expr::call(f, vec![e(a), e(b)]);
        assert_eq!(after(call(Func::Le, "0", "u0")), "[0..]");
        assert_eq!(after(call(Func::Le, "u0", "126")), "[..126]");
        assert_eq!(after(call(Func::Lt, "u0", "127")), "[..126]");
        assert_eq!(after(call(Func::Le, "5", "2*u0")), "[3..]");
        assert_eq!(after(call(Func::Le, "3*u0", "8")), "[..2]");
        assert_eq!(after(call(Func::Eq, "u0 + 1", "4")), "[3..3]");
        assert_eq!(after(call(Func::Le, "s0", "u0")), "[..]");
    }
}
