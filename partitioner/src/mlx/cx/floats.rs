//! Floats that are computed while the program runs: arithmetic on sizes, and numbers taken out of tensors.
//!
//! MLX programs compute outside tensors with integers only, so a float is a tensor of one element, in single precision.

use etx_ir::DType;
use etx_ir::graph::{Type, ValueId};
use etx_ir::sym::{Expr, Func};
use etx_mlx::{FloatOrVid, Instr, IntOrVid, Tid};

use super::Cx;
use crate::backend::Refusal;
use crate::mlx::call::{Call, Res};

impl Cx<'_> {
    /// The number as a scalar tensor, in `f32`.
    pub(crate) fn float(&mut self, e: &Expr) -> Res<Tid> {
        match e {
            Expr::Int(n) => self.scalar(*n as f64, DType::Float32),
            Expr::Bool(b) => self.scalar(f64::from(u8::from(*b)), DType::Float32),
            Expr::Float(bits) => self.scalar(f64::from_bits(*bits), DType::Float32),
            Expr::Sym(s) => match self.symbols.get(s).copied() {
                Some(v) if matches!(self.graph.ty(v), Type::Float(_)) => self.taken_out(v),
                _ => self.converted(e),
            },
            Expr::Add(terms) => self.fold_floats(terms, |a, b, out| Instr::Add { a, b, out }),
            Expr::Mul(factors) => self.fold_floats(factors, |a, b, out| Instr::Multiply { a, b, out }),
            Expr::Call(func, args) => self.float_function(e, *func, args),
        }
    }

    fn float_function(&mut self, e: &Expr, func: Func, args: &[Expr]) -> Res<Tid> {
        match (func, args) {
            (Func::ToFloat, [n]) => self.float(n),
            (Func::Sum, terms) => self.fold_floats(terms, |a, b, out| Instr::Add { a, b, out }),
            (Func::Product, factors) => self.fold_floats(factors, |a, b, out| Instr::Multiply { a, b, out }),
            (Func::Max, all) => self.fold_floats(all, |a, b, out| Instr::Maximum { a, b, out }),
            (Func::Min, all) => self.fold_floats(all, |a, b, out| Instr::Minimum { a, b, out }),
            (Func::TrueDiv, [_, _]) => self.fold_floats(args, |a, b, out| Instr::Divide { a, b, out }),
            (Func::Sqrt, [x]) => {
                let x = self.float(x)?;
                Ok(self.temp(|out| Instr::Sqrt { x, out }))
            }
            (Func::FloatPow, [x, Expr::Float(power)]) if f64::from_bits(*power).abs() == 0.5 => {
                let x = self.float(x)?;
                let inverse = f64::from_bits(*power) < 0.0;
                Ok(self.temp(|out| if inverse { Instr::Rsqrt { x, out } } else { Instr::Sqrt { x, out } }))
            }
            (Func::FloatPow, [_, _]) => self.fold_floats(args, |a, b, out| Instr::Power { a, b, out }),
            (Func::Abs, [x]) => {
                let x = self.float(x)?;
                Ok(self.temp(|out| Instr::Abs { x, out }))
            }
            // Functions of integers, and whatever else a table of its values can hold.
            _ => self.converted(e).or_else(|_| {
                let (x, at) = self.table(e, DType::Float32)?;
                Ok(self.temp(|out| Instr::Take { x, out, index: at.into(), axis: 0 }))
            }),
        }
    }

    /// An integer as a float: exact up to 2^24, far beyond any size.
    fn converted(&mut self, e: &Expr) -> Res<Tid> {
        match self.int(e)? {
            IntOrVid::Int(n) => self.scalar(n as f64, DType::Float32),
            IntOrVid::Vid(v) => Ok(self.temp(|out| Instr::Full { out, shape: vec![], v: FloatOrVid::Vid(v), scalar_type: DType::Float32 })),
        }
    }

    /// The tensor that a number was taken out of.
    fn taken_out(&mut self, v: ValueId) -> Res<Tid> {
        let Some(node) = self.graph.producer(v) else {
            return Err(Refusal::new("a float that the caller passes is no tensor").remedy("make it a tensor of one element"));
        };
        let x = Call::new(self.graph, node).value("self")?;
        let (t, one_element) = (self.tensor(x)?, self.graph.tensor(x).is_some_and(|t| t.rank() == 0));
        let t = self.cast(t, DType::Float32)?;
        Ok(if one_element { t } else { self.temp(|out| Instr::Reshape { x: t, out, shape: vec![] }) })
    }

    fn fold_floats(&mut self, args: &[Expr], make: fn(Tid, Tid, Tid) -> Instr) -> Res<Tid> {
        let mut at: Option<Tid> = None;
        for e in args {
            let b = self.float(e)?;
            at = Some(match at {
                None => b,
                Some(a) => self.temp(|out| make(a, b, out)),
            });
        }
        at.ok_or_else(|| Refusal::new("empty symbolic expression"))
    }
}
