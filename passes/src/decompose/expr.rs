//! Formulas as they are written down: `x * x.sigmoid()`.

use std::collections::HashMap;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::rc::Rc;

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::op::OpId;

use super::pen::Pen;
use crate::calls::{CAST, args, cast, ints};
use crate::rewrite::{Patch, Site};

/// A value, or a call on others. What is used twice is written once.
#[derive(Clone)]
pub(super) struct Ex(Rc<Node>);

enum Node {
    Arg(Arg),
    Call(OpId, Vec<Ex>),
    Cast(Ex, DType),
}

impl From<&Ex> for Ex {
    fn from(x: &Ex) -> Ex {
        x.clone()
    }
}

impl From<Arg> for Ex {
    fn from(a: Arg) -> Ex {
        Ex(Rc::new(Node::Arg(a)))
    }
}

impl From<&Arg> for Ex {
    fn from(a: &Arg) -> Ex {
        a.clone().into()
    }
}

impl From<f64> for Ex {
    fn from(x: f64) -> Ex {
        Arg::Float(x).into()
    }
}

impl From<i64> for Ex {
    fn from(n: i64) -> Ex {
        Arg::Int(n).into()
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $target:literal;)*) => {$(
        impl<R: Into<Ex>> $trait<R> for Ex {
            type Output = Ex;
            fn $method(self, other: R) -> Ex {
                Ex::call(op!($target), vec![self, other.into()])
            }
        }
        impl<R: Into<Ex>> $trait<R> for &Ex {
            type Output = Ex;
            fn $method(self, other: R) -> Ex {
                Ex::call(op!($target), vec![self.clone(), other.into()])
            }
        }
    )*};
}

operators! {
    Add add "aten.add.Tensor";
    Sub sub "aten.sub.Tensor";
    Mul mul "aten.mul.Tensor";
    Div div "aten.div.Tensor";
}

impl Neg for Ex {
    type Output = Ex;
    fn neg(self) -> Ex {
        Ex::call(op!("aten.neg.default"), vec![self])
    }
}

impl Neg for &Ex {
    type Output = Ex;
    fn neg(self) -> Ex {
        -self.clone()
    }
}

macro_rules! named {
    ($($name:ident($($arg:ident),*) $target:literal;)*) => {$(
        pub(super) fn $name(&self $(, $arg: impl Into<Ex>)*) -> Ex {
            Ex::call(op!($target), vec![self.clone() $(, $arg.into())*])
        }
    )*};
}

impl Ex {
    named! {
        abs() "aten.abs.default";
        cos() "aten.cos.default";
        erf() "aten.erf.default";
        exp() "aten.exp.default";
        floor() "aten.floor.default";
        log() "aten.log.default";
        log1p() "aten.log1p.default";
        reciprocal() "aten.reciprocal.default";
        round() "aten.round.default";
        sign() "aten.sign.default";
        sin() "aten.sin.default";
        sqrt() "aten.sqrt.default";
        square() "aten.square.default";
        trunc() "aten.trunc.default";
        not() "aten.logical_not.default";
        and(other) "aten.logical_and.default";
        or(other) "aten.logical_or.default";
        eq(other) "aten.eq.Tensor";
        ne(other) "aten.ne.Tensor";
        lt(other) "aten.lt.Tensor";
        le(other) "aten.le.Tensor";
        gt(other) "aten.gt.Tensor";
        ge(other) "aten.ge.Tensor";
        max(other) "aten.maximum.default";
        min(other) "aten.minimum.default";
        pow(exponent) "aten.pow.Tensor_Scalar";
        remainder(other) "aten.remainder.Tensor";
        unsqueeze(dim) "aten.unsqueeze.default";
    }

    pub(super) fn call(op: OpId, list: Vec<Ex>) -> Ex {
        Ex(Rc::new(Node::Call(op, list)))
    }

    /// Where it is true the one, else the other.
    pub(super) fn then(&self, yes: impl Into<Ex>, no: impl Into<Ex>) -> Ex {
        Ex::call(op!("aten.where.self"), vec![self.clone(), yes.into(), no.into()])
    }

    pub(super) fn is_nan(&self) -> Ex {
        self.ne(self)
    }

    /// A power of a number.
    pub(super) fn power_of(&self, base: f64) -> Ex {
        Ex::call(op!("aten.pow.Scalar"), vec![base.into(), self.clone()])
    }

    pub(super) fn at_least(&self, limit: f64) -> Ex {
        Ex::call(op!("aten.clamp.default"), vec![self.clone(), limit.into(), Arg::None.into()])
    }

    pub(super) fn clamp(&self, min: f64, max: f64) -> Ex {
        Ex::call(op!("aten.clamp.default"), vec![self.clone(), min.into(), max.into()])
    }

    /// A reduction over dimensions; of all of them if none are listed.
    pub(super) fn reduce(&self, op: OpId, dims: &[usize], keep: bool) -> Ex {
        Ex::call(op, vec![self.clone(), ints(dims.iter().map(|&d| d as i64)).into(), Arg::Bool(keep).into()])
    }

    pub(super) fn sum(&self, dims: &[usize], keep: bool) -> Ex {
        self.reduce(op!("aten.sum.dim_IntList"), dims, keep)
    }

    pub(super) fn cast(&self, to: DType) -> Ex {
        Ex(Rc::new(Node::Cast(self.clone(), to)))
    }

    /// A polynomial in it, the coefficient of the highest power first.
    pub(super) fn polynomial(&self, coefficients: &[f64]) -> Ex {
        let mut sum: Option<Ex> = None;
        for &c in coefficients {
            sum = Some(match sum {
                None => self * 0.0 + c,
                Some(s) => s * self + c,
            });
        }
        sum.unwrap_or_else(|| self * 0.0)
    }
}

impl Pen<'_, '_> {
    /// Writes the calls of an expression.
    pub(super) fn write(&mut self, e: &Ex) -> Result<Arg, Error> {
        self.written(e, &mut HashMap::new())
    }

    fn written(&mut self, e: &Ex, seen: &mut HashMap<*const Node, Arg>) -> Result<Arg, Error> {
        let key = Rc::as_ptr(&e.0);
        if let Some(a) = seen.get(&key) {
            return Ok(a.clone());
        }
        let a = match &*e.0 {
            Node::Arg(a) => a.clone(),
            Node::Cast(x, to) => {
                let x = self.written(x, seen)?;
                if self.0.tensor(&x).is_some_and(|t| t.dtype == *to) { x } else { Arg::Value(self.0.call(CAST, cast(x, *to))?) }
            }
            Node::Call(op, list) => {
                let list = list.iter().map(|x| self.written(x, seen)).collect::<Result<Vec<_>, _>>()?;
                Arg::Value(self.0.call(*op, args(*op, list, &[]))?)
            }
        };
        seen.insert(key, a.clone());
        Ok(a)
    }

    /// Writes an expression that is the only result.
    pub(super) fn ends(&mut self, e: &Ex) -> Result<Option<Patch>, Error> {
        let y = self.write(e)?;
        self.done(y)
    }

    /// An operand in the type that the result is computed in: floats at least in single precision, integers as the result has them;
    /// what is counted or compared as it is.
    pub(super) fn operand(&mut self, i: usize) -> Result<Ex, Error> {
        let x = self.0.nth(i).clone();
        let to = self.0.result().map(|t| t.dtype);
        let (Some(from), Some(to)) = (self.0.tensor(&x).map(|t| t.dtype), to) else { return Ok(x.into()) };
        let to = match to {
            DType::Bool => from,
            // Numbers that are counted or compared stay what they are.
            t if t.is_int() && !from.is_int() => from,
            DType::Float16 | DType::BFloat16 => DType::Float32,
            t => t,
        };
        self.cast(&x, to).map(Ex::from)
    }
}

/// A formula of one operand that goes element by element.
pub(super) fn of_one(site: &mut Site<'_>, f: impl FnOnce(Ex) -> Ex) -> Result<Option<Patch>, Error> {
    let mut p = Pen(site);
    let x = p.operand(0)?;
    p.ends(&f(x))
}

/// A formula of two operands that goes element by element.
pub(super) fn of_two(site: &mut Site<'_>, f: impl FnOnce(Ex, Ex) -> Ex) -> Result<Option<Patch>, Error> {
    let mut p = Pen(site);
    let (x, y) = (p.operand(0)?, p.operand(1)?);
    p.ends(&f(x, y))
}
