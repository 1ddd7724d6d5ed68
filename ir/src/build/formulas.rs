//! The calls that formulas are made of, under the names that ATen gives them.

use super::Builder;
use crate::error::{Error, ErrorKind};
use crate::graph::{Arg, ValueId};
use crate::op;
use crate::sym::Dim;
use crate::{DType, args};

/// A tensor, or a number.
type Result<T = ValueId> = std::result::Result<T, Error>;

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident => $target:literal;)*) => {
        impl Builder<'_> {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// As [`Builder::call`].
            pub fn $name(&mut self, x: ValueId) -> Result {
                self.call(op!($target), args![x])
            }
        )*}
    };
}

unary! {
    /// `|x|`.
    abs => "aten.abs.default";
    /// `-x`.
    neg => "aten.neg.default";
    /// `eˣ`.
    exp => "aten.exp.default";
    /// `eˣ - 1`.
    expm1 => "aten.expm1.default";
    /// Natural logarithm.
    log => "aten.log.default";
    /// `log(1 + x)`.
    log1p => "aten.log1p.default";
    /// `√x`.
    sqrt => "aten.sqrt.default";
    /// `1/√x`.
    rsqrt => "aten.rsqrt.default";
    /// `1/x`.
    reciprocal => "aten.reciprocal.default";
    /// `1/(1 + e⁻ˣ)`.
    sigmoid => "aten.sigmoid.default";
    /// Hyperbolic tangent.
    tanh => "aten.tanh.default";
    /// Sine.
    sin => "aten.sin.default";
    /// Cosine.
    cos => "aten.cos.default";
    /// Error function.
    erf => "aten.erf.default";
    /// `max(x, 0)`.
    relu => "aten.relu.default";
    /// -1, 0 or 1.
    sign => "aten.sign.default";
    /// Rounded down.
    floor => "aten.floor.default";
    /// Rounded up.
    ceil => "aten.ceil.default";
    /// Rounded towards zero.
    trunc => "aten.trunc.default";
    /// Rounded to the nearest, halves to even.
    round => "aten.round.default";
    /// Whether it is zero.
    logical_not => "aten.logical_not.default";
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident => $tensor:literal, $number:literal;)*) => {
        impl Builder<'_> {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// As [`Builder::call`].
            pub fn $name(&mut self, a: impl Into<Arg>, b: impl Into<Arg>) -> Result {
                let (a, b) = (a.into(), b.into());
                let op = if self.is_number(&b) { op!($number) } else { op!($tensor) };
                self.call(op, [a, b])
            }
        )*}
    };
}

binary! {
    /// `a + b`.
    add => "aten.add.Tensor", "aten.add.Tensor";
    /// `a - b`.
    sub => "aten.sub.Tensor", "aten.sub.Tensor";
    /// `a * b`.
    mul => "aten.mul.Tensor", "aten.mul.Tensor";
    /// `a / b`.
    div => "aten.div.Tensor", "aten.div.Tensor";
    /// `a ** b`.
    pow => "aten.pow.Tensor_Tensor", "aten.pow.Tensor_Scalar";
    /// `a` modulo `b`, with the sign of `b`.
    remainder => "aten.remainder.Tensor", "aten.remainder.Scalar";
    /// The larger of both.
    maximum => "aten.maximum.default", "aten.clamp_min.default";
    /// The smaller of both.
    minimum => "aten.minimum.default", "aten.clamp_max.default";
    /// `a == b`.
    eq => "aten.eq.Tensor", "aten.eq.Scalar";
    /// `a != b`.
    ne => "aten.ne.Tensor", "aten.ne.Scalar";
    /// `a < b`.
    lt => "aten.lt.Tensor", "aten.lt.Scalar";
    /// `a <= b`.
    le => "aten.le.Tensor", "aten.le.Scalar";
    /// `a > b`.
    gt => "aten.gt.Tensor", "aten.gt.Scalar";
    /// `a >= b`.
    ge => "aten.ge.Tensor", "aten.ge.Scalar";
    /// Both are true.
    logical_and => "aten.logical_and.default", "aten.logical_and.default";
    /// One is true.
    logical_or => "aten.logical_or.default", "aten.logical_or.default";
    /// Bitwise and.
    bitwise_and => "aten.bitwise_and.Tensor", "aten.bitwise_and.Scalar";
    /// Bitwise or.
    bitwise_or => "aten.bitwise_or.Tensor", "aten.bitwise_or.Scalar";
}

macro_rules! reductions {
    ($($(#[$doc:meta])* $name:ident => $target:literal;)*) => {
        impl Builder<'_> {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// As [`Builder::call`].
            pub fn $name(&mut self, x: ValueId, dims: &[i64], keepdim: bool) -> Result {
                self.call(op!($target), args![x, dims, keepdim])
            }
        )*}
    };
}

reductions! {
    /// Sum over dimensions (all for none).
    sum => "aten.sum.dim_IntList";
    /// Mean over dimensions (all for none).
    mean => "aten.mean.dim";
    /// Largest over dimensions (all for none).
    amax => "aten.amax.default";
    /// Smallest over dimensions (all for none).
    amin => "aten.amin.default";
    /// Whether any is true over dimensions.
    any => "aten.any.dims";
}

impl Builder<'_> {
    fn is_number(&self, arg: &Arg) -> bool {
        match arg {
            Arg::Value(v) => self.graph().tensor(*v).is_none(),
            _ => true,
        }
    }

    /// `x` as another element type; itself if it is of that type.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> Result {
        if self.dtype(x)? == dtype { Ok(x) } else { self.call_with(op!("aten._to_copy.default"), args![x], [("dtype", dtype.into())]) }
    }

    /// A number as a tensor without dimensions.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn scalar(&mut self, value: impl Into<Arg>, dtype: DType) -> Result {
        self.full(&[], value, dtype, &[])
    }

    /// A tensor of one number, its sizes found as by [`Builder::dim_arg`].
    ///
    /// # Errors
    /// As [`Builder::call`] and [`Builder::dim_arg`].
    pub fn full(&mut self, sizes: &[Dim], value: impl Into<Arg>, dtype: DType, hints: &[ValueId]) -> Result {
        let sizes = self.dim_args(sizes, hints)?;
        self.call_with(op!("aten.full.default"), [sizes, value.into()], [("dtype", dtype.into())])
    }

    /// A number in the shape and type of `x`.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn full_like(&mut self, x: ValueId, value: impl Into<Arg>) -> Result {
        self.call(op!("aten.full_like.default"), [x.into(), value.into()])
    }

    /// The numbers from `start` up to `end`, not included.
    ///
    /// # Errors
    /// As [`Builder::call`] and [`Builder::dim_arg`].
    pub fn arange(&mut self, start: &Dim, end: &Dim, dtype: DType, hints: &[ValueId]) -> Result {
        let (start, end) = (self.dim_arg(start, hints)?, self.dim_arg(end, hints)?);
        self.call_with(op!("aten.arange.start_step"), [start, end], [("dtype", dtype.into())])
    }

    /// The same elements in these sizes; `x` itself if it has them. A size that is symbolic alone is written as -1,
    /// which needs nothing computed at run time.
    ///
    /// # Errors
    /// As [`Builder::call`] and [`Builder::dim_arg`].
    pub fn view(&mut self, x: ValueId, sizes: Vec<Dim>) -> Result {
        if self.shape(x)? == sizes {
            return Ok(x);
        }
        let symbolic = sizes.iter().filter(|n| n.as_int().is_none()).count();
        // Beside a size of zero, -1 could be anything.
        let sizes = if symbolic == 1 && !sizes.contains(&Dim::Int(0)) {
            Arg::List(sizes.iter().map(|n| Arg::Int(n.as_int().unwrap_or(-1))).collect())
        } else {
            self.dim_args(&sizes, &[x])?
        };
        self.call(op!("aten.view.default"), [x.into(), sizes])
    }

    /// `x` repeated along dimensions of size 1 and new dimensions in front; `x` itself if it has these sizes.
    ///
    /// # Errors
    /// As [`Builder::call`] and [`Builder::dim_arg`].
    pub fn expand(&mut self, x: ValueId, sizes: &[Dim], hints: &[ValueId]) -> Result {
        let have = self.shape(x)?.to_vec();
        if have == sizes {
            return Ok(x);
        }
        let added = sizes.len().saturating_sub(have.len());
        // A size that stays needs no name.
        let stays = |i: usize, n: &Dim| i.checked_sub(added).and_then(|i| have.get(i)) == Some(n) && n.as_int().is_none();
        let mut list = Vec::new();
        for (i, n) in sizes.iter().enumerate() {
            list.push(if stays(i, n) { Arg::Int(-1) } else { self.dim_arg(n, hints)? });
        }
        self.call(op!("aten.expand.default"), [x.into(), Arg::List(list)])
    }

    /// The dimensions in this order.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn permute(&mut self, x: ValueId, dims: &[i64]) -> Result {
        self.call(op!("aten.permute.default"), args![x, dims])
    }

    /// Two dimensions exchanged.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn transpose(&mut self, x: ValueId, a: i64, b: i64) -> Result {
        self.call(op!("aten.transpose.int"), args![x, a, b])
    }

    /// A new dimension of size 1.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn unsqueeze(&mut self, x: ValueId, dim: i64) -> Result {
        self.call(op!("aten.unsqueeze.default"), args![x, dim])
    }

    /// Dimensions of size 1 removed.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn squeeze(&mut self, x: ValueId, dims: &[i64]) -> Result {
        self.call(op!("aten.squeeze.dims"), args![x, dims])
    }

    /// `start:end` of a dimension.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn slice(&mut self, x: ValueId, dim: i64, start: impl Into<Arg>, end: impl Into<Arg>) -> Result {
        self.call(op!("aten.slice.Tensor"), [x.into(), dim.into(), start.into(), end.into()])
    }

    /// One position of a dimension.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn select(&mut self, x: ValueId, dim: i64, index: impl Into<Arg>) -> Result {
        self.call(op!("aten.select.int"), [x.into(), dim.into(), index.into()])
    }

    /// Pieces of these sizes along a dimension.
    ///
    /// # Errors
    /// As [`Builder::calls`] and [`Builder::dim_arg`].
    pub fn split(&mut self, x: ValueId, sizes: &[Dim], dim: i64) -> Result<Vec<ValueId>> {
        let sizes = self.dim_args(sizes, &[x])?;
        self.calls(op!("aten.split_with_sizes.default"), [x.into(), sizes, dim.into()])
    }

    /// One after the other along a dimension.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn cat(&mut self, xs: &[ValueId], dim: i64) -> Result {
        match xs {
            [one] => Ok(*one),
            _ => self.call(op!("aten.cat.default"), args![xs, dim]),
        }
    }

    /// Where the condition holds, `a`, else `b`; numbers become tensors of the other's type.
    ///
    /// # Errors
    /// As [`Builder::call`], and for two numbers.
    pub fn choose(&mut self, condition: ValueId, a: impl Into<Arg>, b: impl Into<Arg>) -> Result {
        let (a, b) = (a.into(), b.into());
        let dtype = [&a, &b].into_iter().find_map(|x| self.graph().tensor(x.as_value()?)).map(|t| t.dtype);
        let dtype = dtype.ok_or_else(|| Error::new(ErrorKind::Invalid, "a choice between two numbers has no element type"))?;
        let (a, b) = (self.raised(a, dtype)?, self.raised(b, dtype)?);
        self.call(op!("aten.where.self"), [condition.into(), a, b])
    }

    fn raised(&mut self, arg: Arg, dtype: DType) -> Result<Arg> {
        if self.is_number(&arg) { self.scalar(arg, dtype).map(Arg::Value) } else { Ok(arg) }
    }

    /// Between two numbers, either possibly absent.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn clamp(&mut self, x: ValueId, min: impl Into<Arg>, max: impl Into<Arg>) -> Result {
        self.call(op!("aten.clamp.default"), [x.into(), min.into(), max.into()])
    }

    /// The product of matrices.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> Result {
        self.call(op!("aten.matmul.default"), args![a, b])
    }

    /// `x @ weightᵀ + bias`.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn linear(&mut self, x: ValueId, weight: ValueId, bias: Option<ValueId>) -> Result {
        self.call(op!("aten.linear.default"), args![x, weight, bias])
    }

    /// Softmax over a dimension.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn softmax(&mut self, x: ValueId, dim: i64) -> Result {
        self.call(op!("aten._softmax.default"), args![x, dim, false])
    }
}
