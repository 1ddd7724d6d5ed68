//! Arithmetic as formulas write it.

use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Arg, TensorType};
use etx_ir::op;
use etx_ir::op::OpId;

use crate::calls::{CAST, args, cast, ints};
use crate::rewrite::{Patch, Site};

/// Writes calls before the one that is taken apart; every method gives the value of the call it writes.
pub(super) struct Pen<'a, 's>(pub(super) &'a mut Site<'s>);

type Value = Result<Arg, Error>;

macro_rules! unary {
    ($($name:ident $target:literal;)*) => {$(
        pub(super) fn $name(&mut self, x: &Arg) -> Value {
            self.call(op!($target), vec![x.clone()])
        }
    )*};
}

macro_rules! binary {
    ($($name:ident $target:literal;)*) => {$(
        pub(super) fn $name(&mut self, a: impl Into<Number>, b: impl Into<Number>) -> Value {
            self.call(op!($target), vec![a.into().0, b.into().0])
        }
    )*};
}

/// An operand: a value or a literal number.
pub(super) struct Number(pub(super) Arg);

impl From<&Arg> for Number {
    fn from(a: &Arg) -> Self {
        Number(a.clone())
    }
}

impl From<f64> for Number {
    fn from(x: f64) -> Self {
        Number(Arg::Float(x))
    }
}

impl From<i64> for Number {
    fn from(n: i64) -> Self {
        Number(Arg::Int(n))
    }
}

impl Pen<'_, '_> {
    pub(super) fn call(&mut self, op: OpId, list: Vec<Arg>) -> Value {
        // Arguments that are left out have their defaults.
        let list = args(op, list, &[]);
        Ok(Arg::Value(self.0.call(op, list)?))
    }

    /// The tensor type of a value.
    pub(super) fn ty(&self, x: &Arg) -> Result<TensorType, Error> {
        self.0.tensor(x).cloned().ok_or_else(|| Error::new(ErrorKind::Shape, format!("an operand of {} is no tensor", self.0.op())))
    }

    unary! {
        exp "aten.exp.default";
        log "aten.log.default";
        log1p "aten.log1p.default";
        expm1 "aten.expm1.default";
        rsqrt "aten.rsqrt.default";
        sqrt "aten.sqrt.default";
        sigmoid "aten.sigmoid.default";
        tanh "aten.tanh.default";
        erf "aten.erf.default";
        neg "aten.neg.default";
        abs "aten.abs.default";
        square "aten.square.default";
        not "aten.logical_not.default";
    }

    binary! {
        add "aten.add.Tensor";
        sub "aten.sub.Tensor";
        mul "aten.mul.Tensor";
        div "aten.div.Tensor";
        gt "aten.gt.Tensor";
        ge "aten.ge.Tensor";
        le "aten.le.Tensor";
        eq "aten.eq.Tensor";
        mm "aten.mm.default";
        bmm "aten.bmm.default";
        matmul "aten.matmul.default";
    }

    /// `condition ? a : b`.
    pub(super) fn select(&mut self, condition: &Arg, a: impl Into<Number>, b: impl Into<Number>) -> Value {
        self.call(op!("aten.where.self"), vec![condition.clone(), a.into().0, b.into().0])
    }

    /// Between limits.
    pub(super) fn clamp(&mut self, x: &Arg, min: Option<f64>, max: Option<f64>) -> Value {
        self.call(op!("aten.clamp.default"), vec![x.clone(), min.into(), max.into()])
    }

    /// A reduction over dimensions.
    pub(super) fn reduce(&mut self, op: OpId, x: &Arg, dims: &[usize], keepdim: bool) -> Value {
        self.call(op, vec![x.clone(), ints(dims.iter().map(|&d| d as i64)), Arg::Bool(keepdim)])
    }

    /// In another element type.
    pub(super) fn cast(&mut self, x: &Arg, to: DType) -> Value {
        if self.ty(x)?.dtype == to { Ok(x.clone()) } else { self.call(CAST, cast(x.clone(), to)) }
    }

    /// In `f32`, if the element type is a half one.
    pub(super) fn wide(&mut self, x: &Arg) -> Value {
        match self.ty(x)?.dtype {
            DType::Float16 | DType::BFloat16 => self.cast(x, DType::Float32),
            _ => Ok(x.clone()),
        }
    }

    pub(super) fn permute(&mut self, x: &Arg, dims: &[usize]) -> Value {
        self.call(op!("aten.permute.default"), vec![x.clone(), ints(dims.iter().map(|&d| d as i64))])
    }

    /// The last two axes exchanged.
    pub(super) fn transpose(&mut self, x: &Arg) -> Value {
        let rank = self.ty(x)?.rank();
        let mut p: Vec<usize> = (0..rank).collect();
        if rank >= 2 {
            p.swap(rank - 2, rank - 1);
        }
        self.permute(x, &p)
    }

    pub(super) fn unsqueeze(&mut self, x: &Arg, dim: usize) -> Value {
        self.call(op!("aten.unsqueeze.default"), vec![x.clone(), Arg::Int(dim as i64)])
    }

    pub(super) fn squeeze(&mut self, x: &Arg, dim: usize) -> Value {
        self.call(op!("aten.squeeze.dims"), vec![x.clone(), ints([dim as i64])])
    }

    pub(super) fn slice(&mut self, x: &Arg, dim: usize, start: Arg, end: Arg) -> Value {
        self.call(op!("aten.slice.Tensor"), vec![x.clone(), Arg::Int(dim as i64), start, end, Arg::Int(1)])
    }

    /// A reshape; `None` if its sizes cannot be told at run time.
    pub(super) fn view(&mut self, x: &Arg, shape: &[etx_ir::sym::Dim]) -> Result<Option<Arg>, Error> {
        match self.0.view_shape(shape) {
            Some(list) => self.call(op!("aten.view.default"), vec![x.clone(), list]).map(Some),
            None => Ok(None),
        }
    }

    /// The value in the element type of the result, as the only one.
    pub(super) fn done(&mut self, value: Arg) -> Result<Option<Patch>, Error> {
        match self.0.result().map(|t| t.dtype) {
            Some(dtype) => Ok(Some(Patch::Values(vec![self.cast(&value, dtype)?]))),
            None => Ok(None),
        }
    }
}
