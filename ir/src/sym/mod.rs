//! Symbolic sizes.
//!
//! An [`Expr`] is an integer, float or boolean expression over [`Symbol`]s (`s…` input sizes, `u…` data-dependent
//! integers). Every expression is built through the constructors here, which bring it into one canonical form: sums of
//! products with integer coefficients, expanded and sorted; everything else an opaque [`Func`] call over canonical
//! arguments. Two expressions that are equal by ring arithmetic are therefore equal as values, and `==` is the test.
//!
//! Semantics are those of torch's symbolic shapes (`pt2-format.md` §2.7): mathematical integers, floor towards
//! minus infinity. A result that does not fit 64 bits is left as a call instead of wrapping.

mod bounds;
mod infix;
mod narrow;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use bounds::{Range, Ranges};
pub use infix::Infix;

/// The name of a symbol, such as `s77` or `u0`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(Arc<str>);

impl Symbol {
    /// A symbol of this name; `None` unless it is an identifier of ASCII letters, digits and `_`.
    pub fn new(name: &str) -> Option<Self> {
        let mut chars = name.bytes();
        let head = chars.next()?;
        ((head.is_ascii_alphabetic() || head == b'_') && chars.all(|c| c.is_ascii_alphanumeric() || c == b'_')).then(|| Self(name.into()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! funcs {
    ($($(#[$doc:meta])* $variant:ident $text:literal $(| $alias:literal)*;)*) => {
        /// A function that is not plain addition or multiplication.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Func { $($(#[$doc])* $variant),* }

        impl Func {
            /// Name in text; the srepr head of sympy where it has one.
            pub const fn name(self) -> &'static str { match self { $(Func::$variant => $text),* } }

            /// The function of this name, in any spelling.
            pub fn from_name(name: &str) -> Option<Func> { match name { $($text $(| $alias)* => Some(Func::$variant),)* _ => None } }
        }
    };
}

funcs! {
    /// A sum that would overflow if it were added up.
    Sum "Sum";
    /// A product that would overflow or grow too large if it were multiplied out.
    Product "Product";
    /// Floor division.
    FloorDiv "FloorDiv" | "CleanDiv" | "floordiv";
    /// Division rounded up.
    CeilDiv "CeilDiv";
    /// Remainder with the sign of the divisor.
    Mod "Mod" | "PythonMod";
    /// `(a // b) mod m`.
    ModularIndexing "ModularIndexing";
    /// Integer power.
    Pow "Pow" | "PowByNatural";
    /// Largest.
    Max "Max" | "max" | "torch.sym_max";
    /// Smallest.
    Min "Min" | "min" | "torch.sym_min";
    /// Absolute value.
    Abs "Abs" | "abs";
    /// The boolean `a == b`.
    Eq "Eq" | "Equality";
    /// The boolean `a != b`.
    Ne "Ne" | "Unequality";
    /// The boolean `a < b`.
    Lt "Lt" | "StrictLessThan";
    /// The boolean `a <= b`.
    Le "Le" | "LessThan";
    /// Conjunction.
    And "And";
    /// Disjunction.
    Or "Or";
    /// Negation.
    Not "Not";
    /// `c ? a : b`.
    Where "Where";
    /// Integer to float.
    ToFloat "ToFloat" | "float" | "torch.sym_float";
    /// True division.
    TrueDiv "IntTrueDiv" | "FloatTrueDiv";
    /// Float power.
    FloatPow "FloatPow";
    /// Float to integer towards zero.
    TruncToInt "TruncToInt" | "trunc" | "math.trunc";
    /// Float to integer downwards.
    FloorToInt "FloorToInt" | "floor" | "math.floor";
    /// Float to integer upwards.
    CeilToInt "CeilToInt" | "ceil" | "math.ceil";
    /// Float to the nearest integer, halves to even.
    RoundToInt "RoundToInt";
    /// Float to a whole float, towards zero.
    TruncToFloat "TruncToFloat";
    /// Rounded to so many decimals.
    RoundDecimal "RoundDecimal";
    /// 1 if sizes, then as many strides, are those of elements without gap or overlap, else 0.
    Dense "IsNonOverlappingAndDenseIndicator";
    /// Square root.
    Sqrt "OpaqueUnaryFn_sqrt" | "sqrt" | "math.sqrt" | "torch._sym_sqrt";
    /// Sine.
    Sin "OpaqueUnaryFn_sin" | "math.sin";
    /// Cosine.
    Cos "OpaqueUnaryFn_cos" | "math.cos";
    /// Tangent.
    Tan "OpaqueUnaryFn_tan" | "math.tan";
    /// Hyperbolic sine.
    Sinh "OpaqueUnaryFn_sinh" | "math.sinh";
    /// Hyperbolic cosine.
    Cosh "OpaqueUnaryFn_cosh" | "math.cosh";
    /// Hyperbolic tangent.
    Tanh "OpaqueUnaryFn_tanh" | "math.tanh";
    /// Inverse sine.
    Asin "OpaqueUnaryFn_asin" | "math.asin";
    /// Inverse cosine.
    Acos "OpaqueUnaryFn_acos" | "math.acos";
    /// Inverse tangent.
    Atan "OpaqueUnaryFn_atan" | "math.atan";
    /// Inverse hyperbolic sine.
    Asinh "OpaqueUnaryFn_asinh" | "math.asinh";
    /// Natural exponential.
    Exp "OpaqueUnaryFn_exp" | "math.exp";
    /// Natural logarithm.
    Log "OpaqueUnaryFn_log" | "math.log";
    /// Logarithm to the base 2.
    Log2 "OpaqueUnaryFn_log2" | "math.log2";
    /// Bitwise and.
    BitAnd "BitwiseFn_bitwise_and";
    /// Bitwise or.
    BitOr "BitwiseFn_bitwise_or";
    /// Bitwise exclusive or.
    BitXor "BitwiseFn_bitwise_xor";
}

/// A canonical expression; see the module page. `Dim` is the same thing where it stands for a size.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expr {
    /// A number.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// A float, by its bits.
    Float(u64),
    /// A symbol.
    Sym(Symbol),
    /// Two or more terms, sorted; at most one of them a number.
    Add(Arc<[Expr]>),
    /// Two or more factors, sorted, none of them a sum; a number only in front and never 0 or 1.
    Mul(Arc<[Expr]>),
    /// A function of canonical arguments.
    Call(Func, Arc<[Expr]>),
}

/// A size: an integer or an expression.
pub type Dim = Expr;

/// A number that an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Num {
    /// Integer.
    Int(i64),
    /// Float.
    Float(f64),
    /// Boolean.
    Bool(bool),
}

/// Sums of more terms than this are not multiplied out: products of sums grow exponentially.
const MAX_TERMS: usize = 64;

/// Products of more factors are not gathered: powers of powers grow exponentially.
const MAX_FACTORS: usize = 64;

/// A polynomial: coefficient by sorted list of atoms (the empty list for the constant).
type Poly = BTreeMap<Vec<Expr>, i64>;

fn add_term(poly: &mut Poly, atoms: Vec<Expr>, by: i64) -> Option<()> {
    let slot = poly.entry(atoms).or_insert(0);
    *slot = slot.checked_add(by)?;
    Some(())
}

fn term(e: &Expr) -> (Vec<Expr>, i64) {
    match e {
        Expr::Int(n) => (vec![], *n),
        Expr::Mul(factors) => match factors.split_first() {
            Some((Expr::Int(n), rest)) => (rest.to_vec(), *n),
            _ => (factors.to_vec(), 1),
        },
        other => (vec![other.clone()], 1),
    }
}

fn poly(e: &Expr) -> Poly {
    match e {
        Expr::Add(terms) => terms.iter().map(term).collect(),
        other => std::iter::once(term(other)).filter(|(_, n)| *n != 0).collect(),
    }
}

fn from_term(mut atoms: Vec<Expr>, n: i64) -> Expr {
    if atoms.is_empty() || n == 0 {
        return Expr::Int(n);
    }
    if n != 1 {
        atoms.insert(0, Expr::Int(n));
    }
    if atoms.len() == 1 { atoms.remove(0) } else { Expr::Mul(atoms.into()) }
}

fn from_poly(p: Poly) -> Expr {
    let mut terms: Vec<Expr> = p.into_iter().filter(|(_, n)| *n != 0).map(|(atoms, n)| from_term(atoms, n)).collect();
    terms.sort();
    match terms.len() {
        0 => Expr::Int(0),
        1 => terms.remove(0),
        _ => Expr::Add(terms.into()),
    }
}

impl Expr {
    /// The symbol as an expression.
    pub fn sym(s: Symbol) -> Self {
        Expr::Sym(s)
    }

    /// The float as an expression. There is one nan: which bits a computation gives depends on the machine.
    pub fn float(x: f64) -> Self {
        Expr::Float(if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() })
    }

    /// The number, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Expr::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// Sum of terms.
    pub fn sum<'a>(terms: impl IntoIterator<Item = &'a Expr>) -> Self {
        let terms: Vec<&Expr> = terms.into_iter().collect();
        let mut p = Poly::new();
        for t in &terms {
            for (atoms, n) in poly(t) {
                if add_term(&mut p, atoms, n).is_none() {
                    return Expr::Call(Func::Sum, terms.into_iter().cloned().collect());
                }
            }
        }
        from_poly(p)
    }

    /// Product of factors.
    pub fn product<'a>(factors: impl IntoIterator<Item = &'a Expr>) -> Self {
        let factors: Vec<&Expr> = factors.into_iter().collect();
        let opaque = || Expr::Call(Func::Product, factors.iter().map(|e| (*e).clone()).collect());
        // Factors of one term first and together, so that a long product takes no longer than sorting it.
        let (mut number, mut atoms, mut sums) = (1i64, Vec::new(), Vec::new());
        for &f in &factors {
            if matches!(f, Expr::Add(_)) {
                sums.push(poly(f));
                continue;
            }
            let (own, n) = term(f);
            match number.checked_mul(n) {
                Some(n) => number = n,
                None => return opaque(),
            }
            atoms.extend(own);
        }
        if number == 0 {
            return Expr::Int(0);
        }
        if atoms.len() > MAX_FACTORS {
            return opaque();
        }
        atoms.sort();
        let mut p = Poly::from([(atoms, number)]);
        for q in sums {
            if p.len().saturating_mul(q.len()) > MAX_TERMS {
                return opaque();
            }
            let mut next = Poly::new();
            for (a, n) in &p {
                for (b, m) in &q {
                    let mut atoms: Vec<Expr> = a.iter().chain(b).cloned().collect();
                    if atoms.len() > MAX_FACTORS {
                        return opaque();
                    }
                    atoms.sort();
                    let done = n.checked_mul(*m).and_then(|k| add_term(&mut next, atoms, k));
                    if done.is_none() {
                        return opaque();
                    }
                }
            }
            p = next;
        }
        from_poly(p)
    }

    /// `self + other`.
    #[must_use]
    pub fn plus(&self, other: &Expr) -> Self {
        Self::sum([self, other])
    }

    /// `self - other`.
    #[must_use]
    pub fn minus(&self, other: &Expr) -> Self {
        Self::sum([self, &other.times(&Expr::Int(-1))])
    }

    /// `self * other`.
    #[must_use]
    pub fn times(&self, other: &Expr) -> Self {
        Self::product([self, other])
    }

    /// `self // other`, rounded down.
    ///
    /// Whole multiples of the divisor come out of the division, so that `(4*s + 3) // 4` is `s` and `(s - 1)//2 + 1` is
    /// `(s + 1)//2`; a division of a division becomes one.
    #[must_use]
    pub fn floor_div(&self, other: &Expr) -> Self {
        let opaque = |a: &Expr, b: &Expr| Expr::Call(Func::FloorDiv, [a.clone(), b.clone()].into());
        let (atoms, n) = match (self, other) {
            (Expr::Int(a), Expr::Int(b)) => return a.checked_div_euclid_floor(*b).map_or_else(|| opaque(self, other), Expr::Int),
            (_, Expr::Add(_) | Expr::Call(..)) if self == other => return Expr::Int(1),
            (_, Expr::Int(_) | Expr::Sym(_) | Expr::Mul(_)) => term(other),
            _ => return opaque(self, other),
        };
        if n == 0 {
            return opaque(self, other);
        }
        let (mut whole, mut rest) = (Poly::new(), Poly::new());
        for (a, m) in poly(self) {
            match without(&a, &atoms).and_then(|left| Some((left, m.checked_div_euclid(n)?, m.checked_rem_euclid(n)?))) {
                Some((left, quotient, remainder)) => {
                    whole.insert(left, quotient);
                    rest.insert(a, remainder);
                }
                None => {
                    rest.insert(a, m);
                }
            }
        }
        let rest = from_poly(rest);
        let rest = match (&rest, other) {
            (Expr::Int(0), _) => Expr::Int(0),
            (Expr::Int(r), Expr::Int(d)) => r.checked_div_euclid_floor(*d).map_or_else(|| opaque(&rest, other), Expr::Int),
            (_, Expr::Int(d @ 1..)) => divided_again(&rest, *d).unwrap_or_else(|| opaque(&rest, other)),
            _ => opaque(&rest, other),
        };
        from_poly(whole).plus(&rest)
    }

    /// `self % other`, with the sign of the divisor.
    #[must_use]
    pub fn modulo(&self, other: &Expr) -> Self {
        if let Expr::Int(d) = other
            && *d != 0
        {
            let rest = |m: i64| if *d > 0 { m.rem_euclid(*d) } else { m.checked_rem(*d).map_or(0, |r| if r == 0 { 0 } else { m }) };
            let rest = from_poly(poly(self).into_iter().map(|(a, m)| (a, rest(m))).collect());
            return match rest {
                Expr::Int(r) => {
                    let r = r.wrapping_rem_euclid(*d);
                    Expr::Int(if *d < 0 && r != 0 { r + *d } else { r })
                }
                rest => Expr::Call(Func::Mod, [rest, other.clone()].into()),
            };
        }
        if self == other || *self == Expr::Int(0) {
            return Expr::Int(0);
        }
        Expr::Call(Func::Mod, [self.clone(), other.clone()].into())
    }

    /// A function call, folded where its arguments are numbers.
    pub fn call(func: Func, args: Vec<Expr>) -> Self {
        match (func, args.as_slice()) {
            (Func::Sum, _) => return Expr::sum(&args),
            (Func::Product, _) => return Expr::product(&args),
            (Func::FloorDiv, [a, b]) => return a.floor_div(b),
            (Func::CeilDiv, [a, b]) => return a.plus(b).minus(&Expr::Int(1)).floor_div(b),
            (Func::Mod, [a, b]) => return a.modulo(b),
            (Func::ModularIndexing, [a, b, m]) => return a.floor_div(b).modulo(m),
            (Func::Pow, [a, Expr::Int(n @ 0..=16)]) => match Expr::product(std::iter::repeat_n(a, *n as usize)) {
                // Not multiplied out: sixteen copies would be no better.
                Expr::Call(Func::Product, _) => return Expr::Call(func, args.into()),
                product => return product,
            },
            (Func::Max | Func::Min, _) => return extremum(func, args),
            (Func::Eq | Func::Ne | Func::Lt | Func::Le, [a, b]) => {
                if let Expr::Int(d) = a.minus(b) {
                    return Expr::Bool(match func {
                        Func::Eq => d == 0,
                        Func::Ne => d != 0,
                        Func::Lt => d < 0,
                        _ => d <= 0,
                    });
                }
            }
            _ => {}
        }
        let call = Expr::Call(func, args.into());
        match call.eval(&|_| None) {
            Some(Num::Int(n)) => Expr::Int(n),
            Some(Num::Bool(b)) => Expr::Bool(b),
            Some(Num::Float(x)) => Expr::float(x),
            None => call,
        }
    }

    /// The value, given those of the symbols; `None` where one is missing, a division is by zero or a result overflows.
    pub fn eval(&self, symbol: &dyn Fn(&Symbol) -> Option<i64>) -> Option<Num> {
        Some(match self {
            Expr::Int(n) => Num::Int(*n),
            Expr::Bool(b) => Num::Bool(*b),
            Expr::Float(bits) => Num::Float(f64::from_bits(*bits)),
            Expr::Sym(s) => Num::Int(symbol(s)?),
            Expr::Add(terms) => fold(terms, symbol, 0, 0.0, i64::checked_add, |a, b| a + b)?,
            Expr::Mul(factors) => fold(factors, symbol, 1, 1.0, i64::checked_mul, |a, b| a * b)?,
            Expr::Call(func, args) => func.apply(&args.iter().map(|a| a.eval(symbol)).collect::<Option<Vec<_>>>()?)?,
        })
    }

    /// As [`Expr::eval`], for integers.
    pub fn eval_int(&self, symbol: &dyn Fn(&Symbol) -> Option<i64>) -> Option<i64> {
        match self.eval(symbol)? {
            Num::Int(n) => Some(n),
            _ => None,
        }
    }

    /// Calls `f` with every symbol in it.
    pub fn visit_symbols(&self, f: &mut dyn FnMut(&Symbol)) {
        match self {
            Expr::Int(_) | Expr::Bool(_) | Expr::Float(_) => {}
            Expr::Sym(s) => f(s),
            Expr::Add(args) | Expr::Mul(args) | Expr::Call(_, args) => args.iter().for_each(|a| a.visit_symbols(f)),
        }
    }

    /// Rebuilt with symbols replaced.
    #[must_use]
    pub fn substitute(&self, f: &dyn Fn(&Symbol) -> Option<Expr>) -> Self {
        let each = |args: &[Expr]| args.iter().map(|a| a.substitute(f)).collect::<Vec<_>>();
        match self {
            Expr::Int(_) | Expr::Bool(_) | Expr::Float(_) => self.clone(),
            Expr::Sym(s) => f(s).unwrap_or_else(|| self.clone()),
            Expr::Add(args) => Expr::sum(&each(args)),
            Expr::Mul(args) => Expr::product(&each(args)),
            Expr::Call(func, args) => Expr::call(*func, each(args)),
        }
    }
}

impl From<i64> for Expr {
    fn from(n: i64) -> Self {
        Expr::Int(n)
    }
}

/// Floor division on integers, which std has for unsigned ones only.
trait FloorDiv {
    fn checked_div_euclid_floor(self, by: Self) -> Option<i64>;
}

impl FloorDiv for i64 {
    fn checked_div_euclid_floor(self, by: i64) -> Option<i64> {
        let q = self.checked_div(by)?;
        Some(if self % by != 0 && (self < 0) != (by < 0) { q - 1 } else { q })
    }
}

/// The multiset `a` without the multiset `b`, if `b` is part of it.
fn without(a: &[Expr], b: &[Expr]) -> Option<Vec<Expr>> {
    let mut left = a.to_vec();
    for x in b {
        let at = left.iter().position(|y| y == x)?;
        left.remove(at);
    }
    Some(left)
}

/// `e // by` where `e` is a floor division by a number, with a number added or not: `(x//b + k) // by` is
/// `(x + b*k) // (b*by)` for positive `b` and `by`.
fn divided_again(e: &Expr, by: i64) -> Option<Expr> {
    let (k, division) = match e {
        Expr::Add(terms) => match &terms[..] {
            [Expr::Int(k), division] => (*k, division),
            _ => return None,
        },
        division => (0, division),
    };
    let Expr::Call(Func::FloorDiv, args) = division else { return None };
    let [x, Expr::Int(b @ 1..)] = &args[..] else { return None };
    Some(x.plus(&Expr::Int(b.checked_mul(k)?)).floor_div(&Expr::Int(b.checked_mul(by)?)))
}

fn extremum(func: Func, args: Vec<Expr>) -> Expr {
    let mut number: Option<i64> = None;
    let mut rest = Vec::new();
    for a in args {
        let inner = match a {
            Expr::Call(f, ref more) if f == func => more.to_vec(),
            other => vec![other],
        };
        for e in inner {
            match e {
                Expr::Int(n) => number = Some(number.map_or(n, |m| if func == Func::Max { m.max(n) } else { m.min(n) })),
                e => rest.push(e),
            }
        }
    }
    rest.extend(number.map(Expr::Int));
    rest.sort();
    rest.dedup();
    if rest.len() == 1 { rest.remove(0) } else { Expr::Call(func, rest.into()) }
}

fn fold(
    args: &[Expr],
    symbol: &dyn Fn(&Symbol) -> Option<i64>,
    unit: i64,
    float_unit: f64,
    int: fn(i64, i64) -> Option<i64>,
    float: fn(f64, f64) -> f64,
) -> Option<Num> {
    let (mut n, mut x, mut floats) = (unit, float_unit, false);
    for a in args {
        match a.eval(symbol)? {
            Num::Int(k) => n = int(n, k)?,
            Num::Float(y) => {
                x = float(x, y);
                floats = true;
            }
            Num::Bool(_) => return None,
        }
    }
    Some(if floats { Num::Float(float(x, n as f64)) } else { Num::Int(n) })
}

impl Num {
    fn float(self) -> f64 {
        match self {
            Num::Int(n) => n as f64,
            Num::Float(x) => x,
            Num::Bool(b) => f64::from(u8::from(b)),
        }
    }
}

impl Func {
    fn apply(self, args: &[Num]) -> Option<Num> {
        use Num::{Bool, Float, Int};
        let to_int = |x: f64| (x.abs() < 9.2e18).then_some(Int(x as i64));
        Some(match (self, args) {
            (Func::Sum, _) => Int(args.iter().try_fold(0i64, |a, b| if let Int(b) = b { a.checked_add(*b) } else { None })?),
            (Func::Product, _) => Int(args.iter().try_fold(1i64, |a, b| if let Int(b) = b { a.checked_mul(*b) } else { None })?),
            (Func::FloorDiv, [Int(a), Int(b)]) => Int(a.checked_div_euclid_floor(*b)?),
            (Func::FloorDiv, [a, b]) => Float((a.float() / b.float()).floor()),
            (Func::CeilDiv, [Int(a), Int(b)]) => Int(a.checked_neg()?.checked_div_euclid_floor(*b)?.checked_neg()?),
            (Func::Mod, [Int(a), Int(b)]) => Int(a - a.checked_div_euclid_floor(*b)?.checked_mul(*b)?),
            (Func::Mod, [a, b]) => {
                let (a, b) = (a.float(), b.float());
                Float(a - (a / b).floor() * b)
            }
            (Func::Pow, [Int(a), Int(b @ 0..)]) => Int(a.checked_pow(u32::try_from(*b).ok()?)?),
            (Func::Pow | Func::FloatPow, [a, b]) => Float(a.float().powf(b.float())),
            (Func::Max, [Int(a), rest @ ..]) => {
                Int(rest.iter().try_fold(*a, |m, b| if let Int(b) = b { Some(m.max(*b)) } else { None })?)
            }
            (Func::Min, [Int(a), rest @ ..]) => {
                Int(rest.iter().try_fold(*a, |m, b| if let Int(b) = b { Some(m.min(*b)) } else { None })?)
            }
            (Func::Abs, [Int(a)]) => Int(a.checked_abs()?),
            (Func::Abs, [Float(a)]) => Float(a.abs()),
            (Func::Eq, [Int(a), Int(b)]) => Bool(a == b),
            (Func::Ne, [Int(a), Int(b)]) => Bool(a != b),
            (Func::Lt, [Int(a), Int(b)]) => Bool(a < b),
            (Func::Le, [Int(a), Int(b)]) => Bool(a <= b),
            (Func::Eq, [Bool(a), Bool(b)]) => Bool(a == b),
            (Func::Eq, [a, b]) => Bool(a.float() == b.float()),
            (Func::Ne, [a, b]) => Bool(a.float() != b.float()),
            (Func::Lt, [a, b]) => Bool(a.float() < b.float()),
            (Func::Le, [a, b]) => Bool(a.float() <= b.float()),
            (Func::And, _) => Bool(args.iter().try_fold(true, |a, b| if let Bool(b) = b { Some(a && *b) } else { None })?),
            (Func::Or, _) => Bool(args.iter().try_fold(false, |a, b| if let Bool(b) = b { Some(a || *b) } else { None })?),
            (Func::Not, [Bool(a)]) => Bool(!a),
            (Func::Where, [Bool(c), a, b]) => *if *c { a } else { b },
            (Func::ToFloat, [a]) => Float(a.float()),
            (Func::TrueDiv, [a, b]) => Float(a.float() / b.float()),
            (Func::TruncToInt, [a]) => to_int(a.float().trunc())?,
            (Func::FloorToInt, [a]) => to_int(a.float().floor())?,
            (Func::CeilToInt, [a]) => to_int(a.float().ceil())?,
            (Func::RoundToInt, [a]) => to_int(a.float().round_ties_even())?,
            (Func::TruncToFloat, [a]) => Float(a.float().trunc()),
            (Func::RoundDecimal, [a, Int(n)]) => {
                let scale = 10f64.powi(i32::try_from(*n).ok()?);
                Float((a.float() * scale).round_ties_even() / scale)
            }
            (Func::Dense, _) => Int(dense(args)?),
            (Func::Sqrt, [a]) => Float(a.float().sqrt()),
            (Func::Sin, [a]) => Float(a.float().sin()),
            (Func::Cos, [a]) => Float(a.float().cos()),
            (Func::Tan, [a]) => Float(a.float().tan()),
            (Func::Sinh, [a]) => Float(a.float().sinh()),
            (Func::Cosh, [a]) => Float(a.float().cosh()),
            (Func::Tanh, [a]) => Float(a.float().tanh()),
            (Func::Asin, [a]) => Float(a.float().asin()),
            (Func::Acos, [a]) => Float(a.float().acos()),
            (Func::Atan, [a]) => Float(a.float().atan()),
            (Func::Asinh, [a]) => Float(a.float().asinh()),
            (Func::Exp, [a]) => Float(a.float().exp()),
            (Func::Log, [a]) => Float(a.float().ln()),
            (Func::Log2, [a]) => Float(a.float().log2()),
            (Func::BitAnd, [Int(a), Int(b)]) => Int(a & b),
            (Func::BitOr, [Int(a), Int(b)]) => Int(a | b),
            (Func::BitXor, [Int(a), Int(b)]) => Int(a ^ b),
            _ => return None,
        })
    }
}

/// Whether sizes, then as many strides, leave no gap and no overlap.
fn dense(args: &[Num]) -> Option<i64> {
    let numbers: Vec<i64> = args.iter().map(|n| if let Num::Int(n) = n { Some(*n) } else { None }).collect::<Option<_>>()?;
    let (sizes, strides) = numbers.split_at_checked(numbers.len() / 2).filter(|(a, b)| a.len() == b.len())?;
    let mut axes: Vec<(i64, i64)> = strides.iter().copied().zip(sizes.iter().copied()).filter(|&(_, size)| size > 1).collect();
    axes.sort_unstable();
    let mut expected = Some(1i64);
    for (stride, size) in axes {
        if expected != Some(stride) {
            return Some(0);
        }
        expected = stride.checked_mul(size);
    }
    Some(1)
}

impl fmt::Display for Expr {
    /// Infix text that [`Expr::parse`] reads back to the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Int(n) => write!(f, "{n}"),
            Expr::Bool(b) => write!(f, "{b}"),
            Expr::Float(bits) => match f64::from_bits(*bits) {
                // A sign before a name would be a product.
                f64::NEG_INFINITY => f.write_str("Float('-inf')"),
                x => write!(f, "{x:?}"),
            },
            Expr::Sym(s) if parse::is_reserved(s.name()) => write!(f, "Symbol('{s}')"),
            Expr::Sym(s) => write!(f, "{s}"),
            Expr::Add(terms) => {
                // Numbers sort first; people write them last.
                let (numbers, others): (Vec<_>, Vec<_>) = terms.iter().partition(|t| matches!(t, Expr::Int(_)));
                for (i, t) in others.into_iter().chain(numbers).enumerate() {
                    match t {
                        _ if i == 0 => write!(f, "{t}")?,
                        Expr::Int(n) if *n < 0 && *n != i64::MIN => write!(f, " - {}", n.unsigned_abs())?,
                        Expr::Mul(factors) => match factors.split_first() {
                            Some((Expr::Int(n), rest)) if *n < 0 && *n != i64::MIN => {
                                write!(f, " - {}*", n.unsigned_abs())?;
                                write_product(f, rest)?;
                            }
                            _ => write!(f, " + {t}")?,
                        },
                        _ => write!(f, " + {t}")?,
                    }
                }
                Ok(())
            }
            Expr::Mul(factors) => write_product(f, factors),
            Expr::Call(func, args) => {
                write!(f, "{}(", func.name())?;
                for (i, a) in args.iter().enumerate() {
                    write!(f, "{}{a}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
        }
    }
}

/// Factors with `*` between them.
fn write_product(f: &mut fmt::Formatter<'_>, factors: &[Expr]) -> fmt::Result {
    for (i, e) in factors.iter().enumerate() {
        if i > 0 {
            f.write_str("*")?;
        }
        match e {
            Expr::Add(_) => write!(f, "({e})")?,
            e => write!(f, "{e}")?,
        }
    }
    Ok(())
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
