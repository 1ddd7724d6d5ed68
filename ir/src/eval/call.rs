//! One call as a rule sees it: its arguments, read by name.

use std::sync::Arc;

use super::element::Complex;
use super::tensor::{MOST_ELEMENTS, Tensor};
use super::{Error, Session, Value, bad};
use crate::DType;
use crate::graph::Graph;
use crate::infer::promote::{Category, result_type};
use crate::op::{Literal, OpId, Schema};

/// What a rule gives: the results in order, lists spread out.
pub(super) type Results = Result<Vec<Value>, Error>;

/// A rule.
pub(super) type Rule = fn(&Call) -> Results;

/// An argument with the values of the graph put in.
#[derive(Clone)]
pub(super) enum Argument<'g> {
    Value(Value),
    Complex(Complex),
    Str(Arc<str>),
    DType(DType),
    List(Vec<Argument<'g>>),
    Dict(Vec<(Arc<str>, Argument<'g>)>),
    Op(OpId),
    Graph(&'g Graph),
    /// A device, a layout or a memory format, which change no value.
    Ignored,
}

impl From<&Literal> for Argument<'_> {
    fn from(literal: &Literal) -> Self {
        match literal {
            Literal::None => Argument::Value(Value::None),
            Literal::Bool(b) => Argument::Value(Value::Bool(*b)),
            Literal::Int(n) => Argument::Value(Value::Int(*n)),
            Literal::Float(x) => Argument::Value(Value::Float(*x)),
            Literal::Str(s) => Argument::Str(s.as_str().into()),
            Literal::DType(t) => Argument::DType(*t),
            Literal::MemoryFormat(_) | Literal::Layout(_) => Argument::Ignored,
            Literal::List(items) => Argument::List(items.iter().map(Argument::from).collect()),
        }
    }
}

impl From<Value> for Argument<'_> {
    fn from(value: Value) -> Self {
        Argument::Value(value)
    }
}

impl<'g> Argument<'g> {
    /// The integer, if it is one (or a boolean, which Python takes for one).
    pub(super) fn as_int(&self) -> Option<i64> {
        match self {
            Argument::Value(Value::Int(n)) => Some(*n),
            Argument::Value(Value::Bool(b)) => Some(i64::from(*b)),
            // torch reads an integer out of a tensor where an integer is asked for.
            Argument::Value(Value::Tensor(t)) if t.numel() == 1 && !t.dtype().is_float() => t.item().ok(),
            _ => None,
        }
    }

    /// The list, if it is one.
    pub(super) fn as_list(&self) -> Option<&[Argument<'g>]> {
        match self {
            Argument::List(items) => Some(items),
            _ => None,
        }
    }

    /// The tensor, if it is one.
    pub(super) fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Argument::Value(Value::Tensor(t)) => Some(t),
            _ => None,
        }
    }
}

/// A Python number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Bool(bool),
    Int(i64),
    Float(f64),
    Complex(Complex),
}

impl Number {
    /// The element type that it has on its own.
    pub(super) fn dtype(self) -> DType {
        match self {
            Number::Bool(_) => DType::Bool,
            Number::Int(_) => DType::Int64,
            Number::Float(_) => DType::Float32,
            Number::Complex(_) => DType::Complex64,
        }
    }

    /// As a float.
    pub(super) fn float(self) -> f64 {
        match self {
            Number::Bool(b) => f64::from(u8::from(b)),
            Number::Int(n) => n as f64,
            Number::Float(x) | Number::Complex([x, _]) => x,
        }
    }

    /// As an integer, towards zero.
    pub(super) fn int(self) -> i64 {
        match self {
            Number::Bool(b) => i64::from(b),
            Number::Int(n) => n,
            Number::Float(x) | Number::Complex([x, _]) => x as i64,
        }
    }

    /// As a scalar tensor of a type.
    pub(super) fn tensor(self, dtype: DType) -> Result<Tensor, Error> {
        match self {
            Number::Bool(b) => Tensor::scalar(dtype, b),
            Number::Int(n) => Tensor::scalar(dtype, n),
            Number::Float(x) => Tensor::scalar(dtype, x),
            Number::Complex(z) => Tensor::scalar(dtype, z),
        }
    }

    /// As a scalar tensor that loses nothing.
    pub(super) fn wide(self) -> Result<Tensor, Error> {
        self.tensor(match self.dtype() {
            DType::Float32 => DType::Float64,
            DType::Complex64 => DType::Complex128,
            exact => exact,
        })
    }
}

/// What takes part in an element-wise operation.
#[derive(Clone)]
pub(super) enum Operand {
    Tensor(Tensor),
    Number(Number),
}

impl Operand {
    /// How it takes part in type promotion.
    fn category(&self) -> (Category, DType) {
        match self {
            Operand::Tensor(t) if t.rank() > 0 => (Category::Dimensioned, t.dtype()),
            Operand::Tensor(t) => (Category::Scalar, t.dtype()),
            Operand::Number(n) => (Category::Number, n.dtype()),
        }
    }

    /// As a tensor that loses nothing.
    pub(super) fn tensor(&self) -> Result<Tensor, Error> {
        match self {
            Operand::Tensor(t) => Ok(t.clone()),
            Operand::Number(n) => n.wide(),
        }
    }

    /// Whether it is a number or has no dimensions.
    pub(super) fn is_scalar(&self) -> bool {
        !matches!(self, Operand::Tensor(t) if t.rank() > 0)
    }
}

impl From<Tensor> for Operand {
    fn from(t: Tensor) -> Self {
        Operand::Tensor(t)
    }
}

/// The type that operands compute in.
pub(super) fn promoted(operands: &[Operand]) -> Result<DType, Error> {
    let all: Vec<_> = operands.iter().map(Operand::category).collect();
    result_type(&all).ok_or_else(|| bad("the operands have no common type"))
}

/// One tensor as result.
pub(super) fn one(t: Tensor) -> Results {
    Ok(vec![Value::Tensor(t)])
}

/// Several tensors as results.
pub(super) fn many(tensors: impl IntoIterator<Item = Tensor>) -> Results {
    Ok(tensors.into_iter().map(Value::Tensor).collect())
}

/// Dimension number `axis` of a tensor of this rank: negative ones count from the end; a scalar has dimension 0.
pub(super) fn wrap(axis: i64, rank: usize) -> Result<usize, Error> {
    let n = rank.max(1) as i64;
    let wrapped = if axis < 0 { axis.saturating_add(n) } else { axis };
    let fits = usize::try_from(wrapped).ok().filter(|&a| (a as i64) < n);
    fits.ok_or_else(|| bad(format!("dimension {axis} of a tensor of rank {rank}")))
}

/// A size as such. None is so large that a product of two overflows.
fn size(n: i64) -> Result<usize, Error> {
    match usize::try_from(n) {
        Ok(n) if n <= MOST_ELEMENTS => Ok(n),
        Ok(n) => Err(bad(format!("a size of {n}"))),
        Err(_) => Err(bad(format!("a negative size, {n}"))),
    }
}

/// Sizes as such.
pub(super) fn sizes(of: &[i64]) -> Result<Vec<usize>, Error> {
    of.iter().map(|&n| size(n)).collect()
}

/// A call.
pub(super) struct Call<'a, 'g> {
    pub(super) op: OpId,
    pub(super) schema: &'static Schema,
    /// One for each argument of the schema, then what a variadic operator got beyond.
    pub(super) args: Vec<Argument<'g>>,
    pub(super) session: &'a Session,
}

impl<'a, 'g> Call<'a, 'g> {
    /// A call of an operator; missing arguments at the end have their defaults.
    pub(super) fn new(op: OpId, mut args: Vec<Argument<'g>>, session: &'a Session) -> Self {
        let schema = op.schema();
        let missing = schema.args.iter().skip(args.len());
        args.extend(missing.map(|a| a.default.as_ref().map_or(Argument::Value(Value::None), Argument::from)));
        Self { op, schema, args, session }
    }

    /// The argument; `None` where the operator has no such argument.
    pub(super) fn arg(&self, name: &str) -> Option<&Argument<'g>> {
        self.schema.position(name).and_then(|i| self.args.get(i))
    }

    #[cold]
    fn wrong(&self, name: &str, what: &str) -> Error {
        bad(format!("`{name}` must be {what}"))
    }

    /// Whether the argument is there.
    pub(super) fn given(&self, name: &str) -> bool {
        !matches!(self.arg(name), None | Some(Argument::Value(Value::None)))
    }

    /// The first tensor, whatever it is called.
    pub(super) fn first(&self) -> Result<Tensor, Error> {
        let name = self.schema.args.first().map_or("", |a| a.name.as_str());
        self.tensor(name)
    }

    /// The argument, if it is given.
    fn maybe<T>(&self, name: &str, read: impl Fn(&Self, &str) -> Result<T, Error>) -> Result<Option<T>, Error> {
        if self.given(name) { read(self, name).map(Some) } else { Ok(None) }
    }

    /// The tensor; a number stands for a scalar of its own type.
    pub(super) fn tensor(&self, name: &str) -> Result<Tensor, Error> {
        match self.operand(name)? {
            Operand::Tensor(t) => Ok(t),
            Operand::Number(n) => n.tensor(n.dtype()),
        }
    }

    /// The tensor, if it is given.
    pub(super) fn maybe_tensor(&self, name: &str) -> Result<Option<Tensor>, Error> {
        self.maybe(name, Self::tensor)
    }

    /// The tensors.
    pub(super) fn tensors(&self, name: &str) -> Result<Vec<Tensor>, Error> {
        let wrong = || self.wrong(name, "a list of tensors");
        let items = self.arg(name).and_then(Argument::as_list).ok_or_else(wrong)?;
        items.iter().map(|a| a.as_tensor().cloned().ok_or_else(wrong)).collect()
    }

    /// The tensors, some of which may be absent.
    pub(super) fn maybe_tensors(&self, name: &str) -> Result<Vec<Option<Tensor>>, Error> {
        let wrong = || self.wrong(name, "a list of tensors");
        let items = self.arg(name).and_then(Argument::as_list).ok_or_else(wrong)?;
        let item = |a: &Argument| match a {
            Argument::Value(Value::None) => Ok(None),
            a => a.as_tensor().cloned().map(Some).ok_or_else(wrong),
        };
        items.iter().map(item).collect()
    }

    /// The tensor or number.
    pub(super) fn operand(&self, name: &str) -> Result<Operand, Error> {
        Ok(match self.arg(name) {
            Some(Argument::Value(Value::Tensor(t))) => Operand::Tensor(t.clone()),
            Some(Argument::Value(Value::Int(n))) => Operand::Number(Number::Int(*n)),
            Some(Argument::Value(Value::Float(x))) => Operand::Number(Number::Float(*x)),
            Some(Argument::Value(Value::Bool(b))) => Operand::Number(Number::Bool(*b)),
            Some(Argument::Complex(z)) => Operand::Number(Number::Complex(*z)),
            _ => return Err(self.wrong(name, "a tensor or a number")),
        })
    }

    /// The operand, if it is given.
    pub(super) fn maybe_operand(&self, name: &str) -> Result<Option<Operand>, Error> {
        self.maybe(name, Self::operand)
    }

    /// The first two arguments, whatever they are called.
    pub(super) fn operands(&self) -> Result<[Operand; 2], Error> {
        let name = |i: usize| self.schema.args.get(i).map_or("", |a| a.name.as_str());
        Ok([self.operand(name(0))?, self.operand(name(1))?])
    }

    /// The number; a tensor of one element stands for it.
    pub(super) fn number(&self, name: &str) -> Result<Number, Error> {
        Ok(match self.operand(name)? {
            Operand::Number(n) => n,
            Operand::Tensor(t) if t.dtype().is_complex() => Number::Complex(t.item()?),
            Operand::Tensor(t) if t.dtype().is_float() => Number::Float(t.item()?),
            Operand::Tensor(t) if t.dtype() == DType::Bool => Number::Bool(t.item()?),
            Operand::Tensor(t) => Number::Int(t.item()?),
        })
    }

    /// The number as a float.
    pub(super) fn float(&self, name: &str) -> Result<f64, Error> {
        self.number(name).map(Number::float)
    }

    /// The number as a float, or what it is when absent.
    pub(super) fn float_or(&self, name: &str, otherwise: f64) -> Result<f64, Error> {
        if self.given(name) { self.float(name) } else { Ok(otherwise) }
    }

    /// The number as a float, if it is given.
    pub(super) fn maybe_float(&self, name: &str) -> Result<Option<f64>, Error> {
        self.maybe(name, Self::float)
    }

    /// The integer.
    pub(super) fn int(&self, name: &str) -> Result<i64, Error> {
        self.arg(name).and_then(Argument::as_int).ok_or_else(|| self.wrong(name, "an integer"))
    }

    /// The integer, or what it is when absent.
    pub(super) fn int_or(&self, name: &str, otherwise: i64) -> Result<i64, Error> {
        if self.given(name) { self.int(name) } else { Ok(otherwise) }
    }

    /// The integer, if it is given.
    pub(super) fn maybe_int(&self, name: &str) -> Result<Option<i64>, Error> {
        self.maybe(name, Self::int)
    }

    /// The size.
    pub(super) fn size(&self, name: &str) -> Result<usize, Error> {
        size(self.int(name)?).map_err(|e| e.within(format!("`{name}`")))
    }

    /// The integers; a single one counts as a list.
    pub(super) fn ints(&self, name: &str) -> Result<Vec<i64>, Error> {
        let wrong = || self.wrong(name, "a list of integers");
        match self.arg(name) {
            Some(Argument::List(items)) => items.iter().map(|a| a.as_int().ok_or_else(wrong)).collect(),
            Some(single) => Ok(vec![single.as_int().ok_or_else(wrong)?]),
            None => Err(wrong()),
        }
    }

    /// The sizes.
    pub(super) fn sizes(&self, name: &str) -> Result<Vec<usize>, Error> {
        sizes(&self.ints(name)?)
    }

    /// The floats, if they are given.
    pub(super) fn maybe_floats(&self, name: &str) -> Result<Option<Vec<f64>>, Error> {
        let wrong = || self.wrong(name, "a list of numbers");
        let float = |a: &Argument| match a {
            Argument::Value(Value::Float(x)) => Ok(*x),
            a => a.as_int().map(|n| n as f64).ok_or_else(wrong),
        };
        self.maybe(name, |c, name| c.arg(name).and_then(Argument::as_list).ok_or_else(wrong)?.iter().map(float).collect())
    }

    /// The boolean; absent is false.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.arg(name).and_then(Argument::as_int).is_some_and(|n| n != 0)
    }

    /// The element type, if one is given.
    pub(super) fn dtype(&self, name: &str) -> Option<DType> {
        match self.arg(name) {
            Some(Argument::DType(t)) => Some(*t),
            _ => None,
        }
    }

    /// The string, if one is given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.arg(name) {
            Some(Argument::Str(s)) => Some(s),
            _ => None,
        }
    }

    /// The dimension number.
    pub(super) fn axis(&self, name: &str, rank: usize) -> Result<usize, Error> {
        wrap(self.int(name)?, rank)
    }

    /// The dimension numbers, each at most once.
    pub(super) fn axes(&self, name: &str, rank: usize) -> Result<Vec<usize>, Error> {
        let mut axes = Vec::new();
        for a in self.ints(name)? {
            let a = wrap(a, rank)?;
            if axes.contains(&a) {
                return Err(bad(format!("dimension {a} is named twice")));
            }
            axes.push(a);
        }
        Ok(axes)
    }

    /// The body that a higher-order operator got.
    pub(super) fn graph(&self, name: &str) -> Result<&'g Graph, Error> {
        match self.arg(name) {
            Some(Argument::Graph(g)) => Ok(g),
            _ => Err(self.wrong(name, "a graph")),
        }
    }
}
