//! Sizes as arguments: literals where they are known, else integers that the graph computes.

use super::Builder;
use crate::error::{Error, ErrorKind};
use crate::graph::{Arg, Type, ValueId};
use crate::op;
use crate::op::OpId;
use crate::sym::{Dim, Expr, Func, Symbol};

impl Builder<'_> {
    /// An argument that is this expression at run time. Literals stay literals; for the rest, an integer of `hints` or a
    /// size of a tensor of `hints` that equals it is used, then arithmetic on its parts, whose symbols are looked for in
    /// `hints`, among the graph's inputs and among the results before this place. Calls made once are used again.
    ///
    /// # Errors
    /// If a symbol is computed nowhere before, or the expression has a function without an operator.
    pub fn dim_arg(&mut self, e: &Expr, hints: &[ValueId]) -> Result<Arg, Error> {
        match e {
            Expr::Int(n) => return Ok(Arg::Int(*n)),
            Expr::Bool(b) => return Ok(Arg::Bool(*b)),
            Expr::Float(bits) => return Ok(Arg::Float(f64::from_bits(*bits))),
            _ => {}
        }
        if let Some(known) = self.known.get(e) {
            return Ok(known.clone());
        }
        let arg = match self.found(e, hints)? {
            Some(arg) => arg,
            None => self.computed(e, hints)?,
        };
        self.known.insert(e.clone(), arg.clone());
        Ok(arg)
    }

    /// A list argument for sizes; see [`Builder::dim_arg`].
    ///
    /// # Errors
    /// As there.
    pub fn dim_args(&mut self, sizes: &[Dim], hints: &[ValueId]) -> Result<Arg, Error> {
        sizes.iter().map(|n| self.dim_arg(n, hints)).collect::<Result<Vec<_>, _>>().map(Arg::List)
    }

    /// The size of a dimension as an argument: a literal where it is known.
    ///
    /// # Errors
    /// If `x` is no tensor or has no such dimension.
    pub fn size(&mut self, x: ValueId, dim: usize) -> Result<Arg, Error> {
        let missing = || Error::new(ErrorKind::Invalid, format!("no dimension {dim}"));
        let n = self.shape(x)?.get(dim).cloned().ok_or_else(missing)?;
        self.dim_arg(&n, &[x])
    }

    /// An integer among the values, or a size of a tensor among them, that equals the expression.
    fn found(&mut self, e: &Expr, values: &[ValueId]) -> Result<Option<Arg>, Error> {
        for &v in values {
            match self.graph().ty(v) {
                Type::Int(have) if have == e => return Ok(Some(v.into())),
                Type::Tensor(t) => {
                    if let Some(dim) = t.shape.iter().position(|n| n == e) {
                        return self.scalar_call(op!("aten.sym_size.int"), vec![v.into(), Arg::Int(dim as i64)]).map(Some);
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn scalar_call(&mut self, op: OpId, args: Vec<Arg>) -> Result<Arg, Error> {
        self.call(op, args).map(Arg::Value)
    }

    fn computed(&mut self, e: &Expr, hints: &[ValueId]) -> Result<Arg, Error> {
        match e {
            Expr::Sym(s) => self.symbol(s, hints),
            Expr::Add(terms) => self.added(terms, hints),
            Expr::Mul(factors) => self.folded(op!("_operator.mul"), factors, hints),
            Expr::Call(func, parts) => {
                let (op, folds) = operator(*func)
                    .ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("no operator computes {} of {e}", func.name())))?;
                if folds {
                    return self.folded(op, parts, hints);
                }
                let args = parts.iter().map(|p| self.dim_arg(p, hints)).collect::<Result<Vec<_>, _>>()?;
                self.scalar_call(op, args)
            }
            Expr::Int(_) | Expr::Bool(_) | Expr::Float(_) => self.dim_arg(e, hints),
        }
    }

    /// `a + b - c`: a term with a negative coefficient is subtracted.
    fn added(&mut self, terms: &[Expr], hints: &[ValueId]) -> Result<Arg, Error> {
        let negative = |e: &&Expr| match e {
            Expr::Int(n) => *n < 0,
            Expr::Mul(factors) => matches!(factors.first(), Some(Expr::Int(..=-1))),
            _ => false,
        };
        // Numbers stand first in a sum; added last, they are not added to each other at run time.
        let (minus, plus): (Vec<&Expr>, Vec<&Expr>) = terms.iter().rev().partition(negative);
        let mut rest = plus.into_iter();
        let mut total = match rest.next() {
            Some(first) => self.dim_arg(first, hints)?,
            None => Arg::Int(0),
        };
        for term in rest {
            let term = self.dim_arg(term, hints)?;
            total = self.scalar_call(op!("_operator.add"), vec![total, term])?;
        }
        for term in minus {
            let term = self.dim_arg(&term.times(&Expr::Int(-1)), hints)?;
            total = self.scalar_call(op!("_operator.sub"), vec![total, term])?;
        }
        Ok(total)
    }

    /// An operator of two arguments over more of them.
    fn folded(&mut self, op: OpId, parts: &[Expr], hints: &[ValueId]) -> Result<Arg, Error> {
        let mut total: Option<Arg> = None;
        for part in parts {
            let part = self.dim_arg(part, hints)?;
            total = Some(match total {
                None => part,
                Some(before) => self.scalar_call(op, vec![before, part])?,
            });
        }
        total.ok_or_else(|| Error::new(ErrorKind::Invalid, format!("{op} of nothing")))
    }

    /// Where the value of a symbol comes from: itself or a linear function of it, as an integer or a size.
    fn symbol(&mut self, s: &Symbol, hints: &[ValueId]) -> Result<Arg, Error> {
        let inputs = self.graph().inputs().to_vec();
        let e = Expr::Sym(s.clone());
        for values in [hints, &inputs] {
            if let Some(arg) = self.found(&e, values)? {
                return Ok(arg);
            }
        }
        let before: Vec<ValueId> = {
            let nodes = self.graph.nodes().take_while(|(id, _)| Some(*id) != self.at);
            nodes.flat_map(|(_, node)| node.outputs.iter().copied()).collect()
        };
        if let Some(arg) = self.found(&e, &before)? {
            return Ok(arg);
        }
        for v in hints.iter().chain(&inputs).chain(&before) {
            let sizes = match self.graph.ty(*v) {
                Type::Tensor(t) => t.shape.clone(),
                Type::Int(e) => vec![e.clone()],
                _ => continue,
            };
            for size in sizes {
                let Some((factor, offset)) = linear(&size, &e) else { continue };
                let Some(mut arg) = self.found(&size, &[*v])? else { continue };
                if offset != 0 {
                    arg = self.scalar_call(op!("_operator.sub"), vec![arg, Arg::Int(offset)])?;
                }
                if factor != 1 {
                    arg = self.scalar_call(op!("_operator.floordiv"), vec![arg, Arg::Int(factor)])?;
                }
                return Ok(arg);
            }
        }
        Err(Error::new(ErrorKind::Invalid, format!("nothing before this place has the value of {s}")))
    }
}

/// `e` as `factor * s + offset`, if it is that.
fn linear(e: &Expr, s: &Expr) -> Option<(i64, i64)> {
    let offset = match e {
        Expr::Add(terms) => terms.first().and_then(Expr::as_int).unwrap_or(0),
        _ => 0,
    };
    let factor = match e.minus(&Expr::Int(offset)) {
        Expr::Mul(factors) => match &factors[..] {
            [Expr::Int(factor), symbol] if symbol == s => *factor,
            _ => return None,
        },
        symbol if symbol == *s => 1,
        _ => return None,
    };
    Some((factor, offset))
}

/// The operator that computes a function, and whether one of two arguments stands for any number of them.
fn operator(func: Func) -> Option<(OpId, bool)> {
    Some(match func {
        Func::Sum => (op!("_operator.add"), true),
        Func::Product => (op!("_operator.mul"), true),
        Func::FloorDiv => (op!("_operator.floordiv"), false),
        Func::Mod => (op!("_operator.mod"), false),
        Func::Pow | Func::FloatPow => (op!("_operator.pow"), false),
        Func::Max => (op!("torch.sym_max"), true),
        Func::Min => (op!("torch.sym_min"), true),
        Func::Eq => (op!("_operator.eq"), false),
        Func::Ne => (op!("_operator.ne"), false),
        Func::Lt => (op!("_operator.lt"), false),
        Func::Le => (op!("_operator.le"), false),
        Func::And | Func::BitAnd => (op!("_operator.and_"), true),
        Func::Or | Func::BitOr => (op!("_operator.or_"), true),
        Func::Not => (op!("torch.sym_not"), false),
        Func::Where => (op!("torch.sym_ite"), false),
        Func::ToFloat => (op!("torch.sym_float"), false),
        Func::TrueDiv => (op!("_operator.truediv"), false),
        Func::TruncToInt => (op!("torch.sym_int"), false),
        Func::Sqrt => (op!("torch._sym_sqrt"), false),
        _ => return None,
    })
}
