//! Integers of a lowering: numbers where they are known, slots that hold them when the program runs where not.

use std::collections::BTreeSet;

use etx_ir::DType;
use etx_ir::graph::ValueId;
use etx_ir::sym::{Dim, Expr, Func, Num, Symbol};
use etx_ir::weights::TensorData;
use etx_mlx::{Instr, IntOrVid, Tid, Vid};

use super::super::call::{Call, Res};
use super::super::consts::element;
use super::Cx;
use crate::backend::Refusal;

impl<'a> Cx<'a> {
    /// An integer for an instruction: a number, or the slot that holds it when the program runs.
    pub(crate) fn int(&mut self, e: &Expr) -> Res<IntOrVid> {
        if let Expr::Int(n) = e {
            return Ok(IntOrVid::Int(*n));
        }
        let (symbols, reads) = (&self.symbols, &mut self.reads);
        e.visit_symbols(&mut |s| reads.extend(symbols.get(s)));
        if let Some(&known) = self.known.get(e) {
            // Whoever asks depends on what it was read off, too.
            self.reads.extend(self.known_from.get(e).into_iter().flatten());
            return Ok(known);
        }
        let before = self.reads.len();
        let vid = self.compute(e)?;
        let from = self.reads.get(before..).unwrap_or_default().to_vec();
        self.known.insert(e.clone(), vid);
        self.known_from.insert(e.clone(), from);
        Ok(vid)
    }

    fn compute(&mut self, e: &Expr) -> Res<IntOrVid> {
        if let Some(&(v, axis)) = self.sizes.get(e) {
            let a = self.tensor(v)?;
            let out = self.fresh_value();
            self.push(Instr::SymSize { a, dim: axis as i32, out });
            return Ok(IntOrVid::Vid(out));
        }
        match e {
            Expr::Sym(s) => self.solve(s),
            Expr::Add(terms) => self.fold_ints(terms, |a, b, out| Instr::AddInt { a, b, out }),
            Expr::Mul(factors) => self.fold_ints(factors, |a, b, out| Instr::MultiplyInt { a, b, out }),
            Expr::Call(Func::Sum, args) => self.fold_ints(args, |a, b, out| Instr::AddInt { a, b, out }),
            Expr::Call(Func::Product, args) => self.fold_ints(args, |a, b, out| Instr::MultiplyInt { a, b, out }),
            Expr::Call(Func::FloorDiv, args) => self.fold_ints(args, |a, b, out| Instr::FloorDivideInt { a, b, out }),
            Expr::Call(Func::Mod, args) => self.fold_ints(args, |a, b, out| Instr::ModInt { a, b, out }),
            Expr::Call(func, args) => match self.function(*func, args)? {
                Some(known) => Ok(known),
                None => self.by_table(e),
            },
            Expr::Bool(b) => Ok(i64::from(*b).into()),
            Expr::Int(_) | Expr::Float(_) => self.by_table(e),
        }
    }

    /// Functions that the five instructions for integers make up; a condition is 0 or 1.
    fn function(&mut self, func: Func, args: &[Expr]) -> Res<Option<IntOrVid>> {
        let done = match (func, args) {
            (Func::Max | Func::Min, [first, rest @ ..]) => {
                let mut best = self.int(first)?;
                for e in rest {
                    let other = self.int(e)?;
                    let more = self.minus(other, best);
                    let by = if func == Func::Max { more } else { self.times(more, -1) };
                    let better = self.positive(by);
                    let step = self.multiplied(more, better);
                    best = self.plus(best, step);
                }
                best
            }
            (Func::Abs, [x]) => {
                let x = self.int(x)?;
                let sign = self.positive(x);
                let (twice, less) = (self.times(sign, 2), IntOrVid::Int(1));
                let sign = self.minus(twice, less);
                self.multiplied(x, sign)
            }
            (Func::CeilDiv, [a, b]) => {
                let (a, b) = (self.int(a)?, self.int(b)?);
                self.ceiling(a, b)
            }
            (Func::ModularIndexing, [a, b, m]) => {
                let (a, b, m) = (self.int(a)?, self.int(b)?, self.int(m)?);
                let a = self.emit_int(|out| Instr::FloorDivideInt { a, b, out });
                self.emit_int(|out| Instr::ModInt { a, b: m, out })
            }
            (Func::Pow, [x, Expr::Int(n @ 1..=8)]) => {
                let x = self.int(x)?;
                (1..*n).fold(x, |product, _| self.multiplied(product, x))
            }
            (Func::Where, [c, yes, no]) => {
                let (c, yes, no) = (self.int(c)?, self.int(yes)?, self.int(no)?);
                let more = self.minus(yes, no);
                let step = self.multiplied(more, c);
                self.plus(no, step)
            }
            (Func::Lt, [a, b]) => self.less(a, b, 0)?,
            (Func::Le, [a, b]) => self.less(a, b, 1)?,
            (Func::Eq | Func::Ne, [a, b]) => {
                let (up, down) = (self.less(a, b, 0)?, self.less(b, a, 0)?);
                let differ = self.plus(up, down);
                if func == Func::Ne { differ } else { self.negated(differ) }
            }
            (Func::Not, [x]) => {
                let x = self.int(x)?;
                self.negated(x)
            }
            (Func::Or, [first, rest @ ..]) => {
                let mut any = self.int(first)?;
                for e in rest {
                    let other = self.int(e)?;
                    let (either, both) = (self.plus(any, other), self.multiplied(any, other));
                    any = self.minus(either, both);
                }
                any
            }
            (Func::And, all) => self.fold_ints(all, |a, b, out| Instr::MultiplyInt { a, b, out })?,
            (Func::TruncToInt | Func::FloorToInt | Func::CeilToInt, [x]) => {
                let Some((p, q, n)) = multiple(x) else { return Ok(None) };
                if func == Func::TruncToInt && self.method.ranges.bounds(n).min.is_none_or(|n| n < 0) {
                    return Ok(None);
                }
                let n = self.int(n)?;
                let (a, b) = (self.times(n, p), IntOrVid::Int(q));
                if func == Func::CeilToInt { self.ceiling(a, b) } else { self.emit_int(|out| Instr::FloorDivideInt { a, b, out }) }
            }
            _ => return Ok(None),
        };
        Ok(Some(done))
    }

    fn emit_int(&mut self, make: impl FnOnce(Vid) -> Instr) -> IntOrVid {
        let out = self.fresh_value();
        self.push(make(out));
        out.into()
    }

    fn plus(&mut self, a: IntOrVid, b: IntOrVid) -> IntOrVid {
        self.emit_int(|out| Instr::AddInt { a, b, out })
    }

    fn minus(&mut self, a: IntOrVid, b: IntOrVid) -> IntOrVid {
        self.emit_int(|out| Instr::SubtractInt { a, b, out })
    }

    fn multiplied(&mut self, a: IntOrVid, b: IntOrVid) -> IntOrVid {
        self.emit_int(|out| Instr::MultiplyInt { a, b, out })
    }

    fn times(&mut self, a: IntOrVid, n: i64) -> IntOrVid {
        if n == 1 { a } else { self.multiplied(a, IntOrVid::Int(n)) }
    }

    /// `1 - x`.
    fn negated(&mut self, x: IntOrVid) -> IntOrVid {
        self.minus(IntOrVid::Int(1), x)
    }

    /// `a / b`, rounded up.
    fn ceiling(&mut self, a: IntOrVid, b: IntOrVid) -> IntOrVid {
        let down = self.times(a, -1);
        let down = self.emit_int(|out| Instr::FloorDivideInt { a: down, b, out });
        self.times(down, -1)
    }

    /// 1 where it is above 0, else 0: no size is beyond 2^30, so that its negative over that, rounded down, is -1 or 0.
    fn positive(&mut self, x: IntOrVid) -> IntOrVid {
        self.ceiling(x, IntOrVid::Int(1 << 30))
    }

    /// `a < b + more`, as 0 or 1.
    fn less(&mut self, a: &Expr, b: &Expr, more: i64) -> Res<IntOrVid> {
        let (a, b) = (self.int(a)?, self.int(b)?);
        let gap = self.minus(b, a);
        let gap = if more == 0 { gap } else { self.plus(gap, IntOrVid::Int(more)) };
        Ok(self.positive(gap))
    }

    /// What no instructions compute, of one symbol with few values: looked up among its values.
    fn by_table(&mut self, e: &Expr) -> Res<IntOrVid> {
        let (table, at) = self.table(e, DType::Int64)?;
        let entry = self.temp(|out| Instr::Take { x: table, out, index: at.into(), axis: 0 });
        self.item(entry).map(IntOrVid::Vid)
    }

    /// The values of an expression of one symbol, from its least to its greatest value, and which of them it is now.
    pub(super) fn table(&mut self, e: &Expr, dtype: DType) -> Res<(Tid, Vid)> {
        const MOST: i64 = 1 << 16;
        let mut symbols = BTreeSet::new();
        e.visit_symbols(&mut |s| symbols.extend([s.clone()]));
        let refuse = || Refusal::new(format!("MLX cannot compute the size {e}"));
        let [symbol] = symbols.iter().collect::<Vec<_>>()[..] else { return Err(refuse()) };
        let n = Expr::Sym(symbol.clone());
        let mut bounds = self.method.ranges.bounds(&n);
        if bounds.max.is_none() && self.is_size_of_input(symbol) {
            // Memory is planned for no more.
            bounds.max = Some(self.max_size.max(bounds.min.unwrap_or(0)));
        }
        let (Some(low), Some(high)) =
            (bounds.min, bounds.max.filter(|&high| bounds.min.is_some_and(|low| high < low.saturating_add(MOST))))
        else {
            return Err(refuse().remedy(format!("give {symbol} an upper bound in dynamic_shapes, so that its values can be listed")));
        };
        let value = |n: i64| match e.eval(&|s| (s == symbol).then_some(n))? {
            Num::Int(n) => element(n as f64, dtype),
            Num::Float(x) => element(x, dtype).filter(|_| dtype.is_float()),
            Num::Bool(b) => element(f64::from(u8::from(b)), dtype),
        };
        let values: Option<Vec<Vec<u8>>> = (low..=high).map(value).collect();
        let bytes = values.ok_or_else(refuse)?.concat();
        let data = TensorData::inline(dtype, vec![(high - low + 1) as u64], bytes).map_err(|e| Refusal::new(e.to_string()))?;
        let table = self.constant(&format!("_values_of_{e}"), data)?;
        let now = self.int(&n)?;
        let at = self.fresh_value();
        self.push(Instr::SubtractInt { a: now, b: IntOrVid::Int(low), out: at });
        Ok((table, at))
    }

    /// Whether a symbol is in a size that the caller gives.
    fn is_size_of_input(&self, s: &Symbol) -> bool {
        let mut found = false;
        for &v in self.graph.inputs() {
            let shape = self.graph.tensor(v).map_or(&[][..], |t| &t.shape);
            shape.iter().for_each(|d| d.visit_symbols(&mut |t| found |= t == s));
        }
        found
    }

    fn fold_ints(&mut self, args: &[Expr], make: fn(IntOrVid, IntOrVid, Vid) -> Instr) -> Res<IntOrVid> {
        // Subtraction has no node of its own in the canonical form, so look for it: x + -1*y.
        let mut at: Option<IntOrVid> = None;
        for e in args {
            let b = self.int(e)?;
            at = Some(match at {
                None => b,
                Some(a) => {
                    let out = self.fresh_value();
                    self.push(make(a, b, out));
                    IntOrVid::Vid(out)
                }
            });
        }
        at.ok_or_else(|| Refusal::new("empty symbolic expression"))
    }

    /// A symbol that no size is: from a size that is `a*s + b`, or from an integer value that is the symbol.
    fn solve(&mut self, s: &Symbol) -> Res<IntOrVid> {
        if let Some(&v) = self.symbols.get(s) {
            return Ok(IntOrVid::Vid(self.int_input(v)));
        }
        let mut candidates: Vec<&Expr> = self.sizes.keys().collect();
        candidates.sort();
        for e in candidates {
            let (factor, rest) = linear_in(e, s);
            if let (Some(factor), Some(rest)) = (factor, rest) {
                let (e, rest) = (e.clone(), Expr::Int(-rest));
                let size = self.int(&e)?;
                let moved = self.fresh_value();
                let b = self.int(&rest)?;
                self.push(Instr::AddInt { a: size, b, out: moved });
                let out = self.fresh_value();
                self.push(Instr::FloorDivideInt { a: IntOrVid::Vid(moved), b: IntOrVid::Int(factor), out });
                return Ok(IntOrVid::Vid(out));
            }
        }
        Err(Refusal::new(format!("the size {s} cannot be read off any tensor here")))
    }

    /// An integer that the caller passes.
    fn int_input(&mut self, v: ValueId) -> Vid {
        if let Some(&vid) = self.known_values.get(&v) {
            return vid;
        }
        self.reads.push(v);
        let vid = self.fresh_value();
        self.known_values.insert(v, vid);
        self.int_inputs.push((v, vid));
        vid
    }

    /// Says that a slot holds an integer that an instruction has just computed.
    pub(crate) fn know(&mut self, e: &Expr, vid: Vid) {
        self.known.insert(e.clone(), IntOrVid::Vid(vid));
        self.known_from.remove(e);
    }

    /// An integer argument.
    pub(crate) fn int_arg(&mut self, call: &Call<'a>, name: &str) -> Res<IntOrVid> {
        let e = call.expr(name)?;
        self.int(&e)
    }

    /// Sizes for an instruction.
    pub(crate) fn dims(&mut self, shape: &[Dim]) -> Res<Vec<IntOrVid>> {
        shape.iter().map(|d| self.int(d)).collect()
    }

    /// Whether a size may be 0 when the program runs. The instructions that make or repeat elements refuse to make none.
    pub(crate) fn may_be_zero(&self, d: &Dim) -> bool {
        self.method.ranges.bounds(d).min.is_none_or(|least| least <= 0)
    }

    /// Sizes for a reshape, which can work out one of them by itself.
    pub(crate) fn reshape_dims(&mut self, shape: &[Dim]) -> Res<Vec<IntOrVid>> {
        // It divides by the other sizes, so none of them may be zero.
        let unknown: Vec<usize> = (0..shape.len()).filter(|&i| shape[i].as_int().is_none()).collect();
        let free = unknown
            .iter()
            .copied()
            .rev()
            .find(|&i| (0..shape.len()).all(|j| j == i || self.method.ranges.bounds(&shape[j]).min.is_some_and(|n| n > 0)));
        (0..shape.len()).map(|i| if Some(i) == free { Ok(IntOrVid::Int(-1)) } else { self.int(&shape[i]) }).collect()
    }
}

/// `(p, q, n)` where the float is `p/q` times the integer `n` and rounding to whole numbers gives what exact numbers give: `n`
/// times halves, quarters and so on, of which no digit is lost, and `n` over an integer, which rounding never brings to the next one.
fn multiple(x: &Expr) -> Option<(i64, i64, &Expr)> {
    let whole = |e: &'_ Expr| match e {
        Expr::Int(n) => Some(*n),
        Expr::Float(bits) => Some(f64::from_bits(*bits)).filter(|x| x.fract() == 0.0 && x.abs() < 1024.0).map(|x| x as i64),
        _ => None,
    };
    match x {
        Expr::Call(Func::TrueDiv, args) => match &args[..] {
            [Expr::Call(Func::ToFloat, n), k] => Some((1, whole(k).filter(|&k| k > 0)?, n.first()?)),
            [n, k] if !is_float(n) => Some((1, whole(k).filter(|&k| k > 0)?, n)),
            _ => None,
        },
        Expr::Mul(factors) => {
            let (bits, n) = match &factors[..] {
                [Expr::Float(c), Expr::Call(Func::ToFloat, n)] | [Expr::Call(Func::ToFloat, n), Expr::Float(c)] => (*c, n.first()?),
                _ => return None,
            };
            let c = f64::from_bits(bits);
            let q = [1i64, 2, 4, 8, 16].into_iter().find(|&q| (c * q as f64).fract() == 0.0)?;
            let p = c * q as f64;
            (0.0..1024.0).contains(&p).then_some((p as i64, q, n))
        }
        _ => None,
    }
}

/// Whether an expression is a float whatever its symbols are.
fn is_float(e: &Expr) -> bool {
    match e {
        Expr::Float(_) | Expr::Call(Func::ToFloat | Func::TrueDiv | Func::FloatPow | Func::Sqrt, _) => true,
        Expr::Add(all) | Expr::Mul(all) | Expr::Call(Func::Sum | Func::Product, all) => all.iter().any(is_float),
        _ => false,
    }
}

/// `(a, b)` where `e` is `a*s + b` with numbers `a` and `b`.
fn linear_in(e: &Expr, s: &Symbol) -> (Option<i64>, Option<i64>) {
    let at = |n: i64| e.substitute(&|t| (t == s).then_some(Expr::Int(n))).as_int();
    match (at(0), at(1), at(2)) {
        (Some(b), Some(x), Some(y)) if y - x == x - b && x != b && !matches!(e, Expr::Call(..)) => (Some(x - b), Some(b)),
        _ => (None, None),
    }
}
