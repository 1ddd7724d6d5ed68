//! Integers of a lowering: numbers where they are known, slots that hold them when the program runs where not.

use etx_ir::graph::ValueId;
use etx_ir::mlx::{Instr, IntOrVid, Vid};
use etx_ir::sym::{Dim, Expr, Func, Symbol};

use super::super::call::{Call, Res};
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
            Expr::Call(Func::TruncToInt, args) => match multiple(args) {
                Some((p, q, n)) if self.method.ranges.bounds(n).min.is_some_and(|n| n >= 0) => {
                    let a = self.int(n)?;
                    let (whole, out) = (self.fresh_value(), self.fresh_value());
                    self.push(Instr::MultiplyInt { a, b: p.into(), out: whole });
                    self.push(Instr::FloorDivideInt { a: whole.into(), b: q.into(), out });
                    Ok(out.into())
                }
                _ => Err(Refusal::new(format!("MLX cannot compute the size {e}"))),
            },
            _ => Err(Refusal::new(format!("MLX cannot compute the size {e}"))),
        }
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

/// `(p, q, n)` where the argument is `p/q` times the integer `n` as a float, and no digit is lost: what interpolation by a factor of
/// halves and quarters makes of a size.
fn multiple(args: &[Expr]) -> Option<(i64, i64, &Expr)> {
    let [Expr::Mul(factors)] = args else { return None };
    let (bits, n) = match &factors[..] {
        [Expr::Float(c), Expr::Call(Func::ToFloat, n)] | [Expr::Call(Func::ToFloat, n), Expr::Float(c)] => (*c, n.first()?),
        _ => return None,
    };
    let c = f64::from_bits(bits);
    let q = [1i64, 2, 4, 8, 16].into_iter().find(|&q| (c * q as f64).fract() == 0.0)?;
    let p = c * q as f64;
    (0.0..1024.0).contains(&p).then_some((p as i64, q, n))
}

/// `(a, b)` where `e` is `a*s + b` with numbers `a` and `b`.
fn linear_in(e: &Expr, s: &Symbol) -> (Option<i64>, Option<i64>) {
    let at = |n: i64| e.substitute(&|t| (t == s).then_some(Expr::Int(n))).as_int();
    match (at(0), at(1), at(2)) {
        (Some(b), Some(x), Some(y)) if y - x == x - b && x != b && !matches!(e, Expr::Call(..)) => (Some(x - b), Some(b)),
        _ => (None, None),
    }
}
