//! What a rule sees: the arguments of one call, read by name or position, and the algebra of sizes.

use std::fmt::Write as _;

use super::promote::Operand;
use crate::DType;
use crate::error::{Error, ErrorKind};
use crate::graph::{Arg, Graph, TensorType, Type};
use crate::op::{OpId, Schema};
use crate::sym::{Expr, Ranges, Symbol};

/// The types of the results, or why there are none.
pub(super) type Inferred = Result<Vec<Type>, Error>;

/// A rule: from the arguments of a call to the types of its results.
pub(super) type Rule = fn(&Cx) -> Inferred;

/// One call.
pub(super) struct Cx<'a> {
    pub(super) graph: &'a Graph,
    pub(super) ranges: &'a Ranges,
    pub(super) op: OpId,
    pub(super) schema: &'static Schema,
    /// One for each argument of the schema, then what a variadic operator got beyond.
    pub(super) args: &'a [Arg],
}

/// Where an argument is: its position or its name.
pub(super) trait Place: Copy {
    /// The position.
    fn of(self, schema: &Schema) -> Option<usize>;
}

impl Place for usize {
    fn of(self, _: &Schema) -> Option<usize> {
        Some(self)
    }
}

impl Place for &str {
    fn of(self, schema: &Schema) -> Option<usize> {
        schema.position(self)
    }
}

/// One tensor as result.
pub(super) fn one(dtype: DType, shape: Vec<Expr>) -> Inferred {
    Ok(vec![tensor(dtype, shape)])
}

/// A tensor.
pub(super) fn tensor(dtype: DType, shape: Vec<Expr>) -> Type {
    Type::Tensor(TensorType::new(dtype, shape))
}

impl<'a> Cx<'a> {
    /// An error of this call.
    #[cold]
    pub(super) fn fail(&self, why: impl AsRef<str>) -> Error {
        self.error(ErrorKind::Shape, why.as_ref())
    }

    /// The call cannot be judged, right or wrong.
    #[cold]
    pub(super) fn unsupported(&self, why: impl AsRef<str>) -> Error {
        self.error(ErrorKind::Unsupported, why.as_ref())
    }

    fn error(&self, kind: ErrorKind, why: &str) -> Error {
        let mut call = self.op.target().to_owned();
        call.push('(');
        let mut separator = "";
        for (i, arg) in self.args.iter().enumerate() {
            let spec = self.schema.args.get(i);
            // Defaults say nothing new.
            if spec.and_then(|s| s.default.as_ref()).is_some_and(|d| Arg::from(d) == *arg) {
                continue;
            }
            call.push_str(separator);
            if let Some(spec) = spec.filter(|_| i > 0) {
                let _ = write!(call, "{}=", spec.name);
            }
            self.describe(arg, &mut call);
            separator = ", ";
        }
        Error::new(kind, format!("{call}): {why}"))
    }

    fn describe(&self, arg: &Arg, out: &mut String) {
        let _ = match arg {
            Arg::Value(v) => match self.graph.ty(*v) {
                Type::Tensor(t) => write!(out, "{}{:?}", t.dtype, t.shape),
                Type::Int(e) | Type::Float(e) | Type::Bool(e) => write!(out, "{e}"),
                Type::None => write!(out, "None"),
                Type::Opaque(class) => write!(out, "object {class}"),
            },
            Arg::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" });
                    self.describe(item, out);
                }
                out.push(']');
                Ok(())
            }
            Arg::None => write!(out, "None"),
            Arg::Int(n) => write!(out, "{n}"),
            Arg::Float(x) => write!(out, "{x:?}"),
            Arg::Bool(b) => write!(out, "{b}"),
            Arg::Str(s) => write!(out, "{s:?}"),
            Arg::Complex(a, b) => write!(out, "{a:?}{b:+?}j"),
            Arg::DType(t) => write!(out, "{t}"),
            Arg::Device(d) => write!(out, "{d}"),
            Arg::Op(op) => write!(out, "{op}"),
            Arg::Dict(_) => write!(out, "{{…}}"),
            Arg::Graph(_) => write!(out, "a graph"),
            Arg::MemoryFormat(n) => write!(out, "memory format {n}"),
            Arg::Layout(n) => write!(out, "layout {n}"),
        };
    }

    /// The argument; `None` where the operator has no such argument.
    pub(super) fn arg(&self, at: impl Place) -> &'a Arg {
        at.of(self.schema).and_then(|i| self.args.get(i)).unwrap_or(&Arg::None)
    }

    fn name(&self, at: impl Place) -> &'static str {
        at.of(self.schema).and_then(|i| self.schema.args.get(i)).map_or("argument", |a| a.name.as_str())
    }

    #[cold]
    fn wrong(&self, at: impl Place, what: &str) -> Error {
        self.fail(format!("`{}` must be {what}", self.name(at)))
    }

    /// Whether the argument is there.
    pub(super) fn given(&self, at: impl Place) -> bool {
        match self.arg(at) {
            Arg::None => false,
            Arg::Value(v) => *self.graph.ty(*v) != Type::None,
            _ => true,
        }
    }

    /// The tensor.
    pub(super) fn tensor(&self, at: impl Place) -> Result<&'a TensorType, Error> {
        self.as_tensor(self.arg(at)).ok_or_else(|| self.wrong(at, "a tensor"))
    }

    /// The tensor type of an argument.
    pub(super) fn as_tensor(&self, arg: &Arg) -> Option<&'a TensorType> {
        arg.as_value().and_then(|v| self.graph.tensor(v))
    }

    /// The tensor, unless it is absent.
    pub(super) fn maybe_tensor(&self, at: impl Place) -> Result<Option<&'a TensorType>, Error> {
        if self.given(at) { self.tensor(at).map(Some) } else { Ok(None) }
    }

    /// The list of tensors.
    pub(super) fn tensors(&self, at: impl Place) -> Result<Vec<&'a TensorType>, Error> {
        let list = self.arg(at).as_list().ok_or_else(|| self.wrong(at, "a list of tensors"))?;
        list.iter().map(|a| self.as_tensor(a).ok_or_else(|| self.wrong(at, "a list of tensors"))).collect()
    }

    /// A tensor or a number.
    pub(super) fn operand(&self, at: impl Place) -> Result<Operand<'a>, Error> {
        let number = |dtype| Ok(Operand::Number(dtype));
        match self.arg(at) {
            Arg::Value(v) => match self.graph.ty(*v) {
                Type::Tensor(t) => Ok(Operand::Tensor(t)),
                Type::Int(_) => number(DType::Int64),
                Type::Float(_) => number(DType::Float32),
                Type::Bool(_) => number(DType::Bool),
                Type::None | Type::Opaque(_) => Err(self.wrong(at, "a tensor or a number")),
            },
            Arg::Int(_) => number(DType::Int64),
            Arg::Float(_) => number(DType::Float32),
            Arg::Bool(_) => number(DType::Bool),
            Arg::Complex(..) => number(DType::Complex64),
            _ => Err(self.wrong(at, "a tensor or a number")),
        }
    }

    /// A size or another integer, as an expression.
    pub(super) fn as_size(&self, arg: &Arg) -> Option<Expr> {
        match arg {
            Arg::Value(v) => match self.graph.ty(*v) {
                Type::Int(e) => Some(e.clone()),
                _ => None,
            },
            other => other.as_int().map(Expr::Int),
        }
    }

    /// The integer, possibly symbolic.
    pub(super) fn size(&self, at: impl Place) -> Result<Expr, Error> {
        self.as_size(self.arg(at)).ok_or_else(|| self.wrong(at, "an integer"))
    }

    /// The integer, unless it is absent.
    pub(super) fn maybe_size(&self, at: impl Place) -> Result<Option<Expr>, Error> {
        if self.given(at) { self.size(at).map(Some) } else { Ok(None) }
    }

    /// The integers; a single one counts as a list.
    pub(super) fn sizes(&self, at: impl Place) -> Result<Vec<Expr>, Error> {
        let wrong = || self.wrong(at, "a list of integers");
        match self.arg(at) {
            Arg::List(items) => items.iter().map(|a| self.as_size(a).ok_or_else(wrong)).collect(),
            single => Ok(vec![self.as_size(single).ok_or_else(wrong)?]),
        }
    }

    /// The integer, known now.
    pub(super) fn int(&self, at: impl Place) -> Result<i64, Error> {
        self.as_size(self.arg(at)).and_then(|e| e.as_int()).ok_or_else(|| self.wrong(at, "an integer that is known"))
    }

    /// The integer, or what it is when absent.
    pub(super) fn int_or(&self, at: impl Place, otherwise: i64) -> Result<i64, Error> {
        if self.given(at) { self.int(at) } else { Ok(otherwise) }
    }

    /// The integers, known now.
    pub(super) fn ints(&self, at: impl Place) -> Result<Vec<i64>, Error> {
        let wrong = || self.wrong(at, "a list of integers that are known");
        self.sizes(at)?.iter().map(|e| e.as_int().ok_or_else(wrong)).collect()
    }

    /// The boolean; absent is false.
    pub(super) fn flag(&self, at: impl Place) -> bool {
        self.arg(at).as_bool().unwrap_or(false)
    }

    /// The element type, if one is given.
    pub(super) fn dtype(&self, at: impl Place) -> Option<DType> {
        match self.arg(at) {
            Arg::DType(t) => Some(*t),
            _ => None,
        }
    }

    /// The string, if one is given.
    pub(super) fn text(&self, at: impl Place) -> Option<&'a str> {
        match self.arg(at) {
            Arg::Str(s) => Some(s),
            _ => None,
        }
    }

    /// A dimension number: negative ones count from the end; a scalar has dimension 0 (and -1) for this purpose.
    pub(super) fn wrap(&self, axis: i64, rank: usize) -> Result<usize, Error> {
        let n = rank.max(1) as i64;
        let wrapped = if axis < 0 { axis.saturating_add(n) } else { axis };
        usize::try_from(wrapped)
            .ok()
            .filter(|&a| (a as i64) < n)
            .ok_or_else(|| self.fail(format!("dimension {axis} of a tensor of rank {rank}")))
    }

    /// The dimension number.
    pub(super) fn axis(&self, at: impl Place, rank: usize) -> Result<usize, Error> {
        self.wrap(self.int(at)?, rank)
    }

    /// The dimension numbers, each at most once.
    pub(super) fn axes(&self, at: impl Place, rank: usize) -> Result<Vec<usize>, Error> {
        let mut axes: Vec<usize> = Vec::new();
        for a in self.ints(at)? {
            let a = self.wrap(a, rank)?;
            if axes.contains(&a) {
                return Err(self.fail(format!("dimension {a} is named twice")));
            }
            axes.push(a);
        }
        Ok(axes)
    }

    /// Fails unless the rank is one of these.
    pub(super) fn rank(&self, t: &TensorType, allowed: &[usize], what: &str) -> Result<(), Error> {
        if allowed.contains(&t.rank()) { Ok(()) } else { Err(self.fail(format!("{what} of rank {}, need {allowed:?}", t.rank()))) }
    }

    /// The one size that both must be, the simpler of the two; fails if they cannot be equal.
    pub(super) fn same(&self, a: &Expr, b: &Expr, what: &str) -> Result<Expr, Error> {
        if a != b && self.ranges.equal(a, b) == Some(false) {
            return Err(self.fail(format!("{what} {a} and {b} differ")));
        }
        Ok(if b.as_int().is_some() { b.clone() } else { a.clone() })
    }

    /// Broadcasts shapes: aligned at the end, a 1 gives way. Sizes that could be equal are taken to be, as torch does.
    pub(super) fn broadcast<'s>(&self, shapes: impl IntoIterator<Item = &'s [Expr]>) -> Result<Vec<Expr>, Error> {
        let mut out: Vec<Expr> = Vec::new();
        for shape in shapes {
            if shape.len() > out.len() {
                out.splice(0..0, std::iter::repeat_n(Expr::Int(1), shape.len() - out.len()));
            }
            let skip = out.len() - shape.len();
            for (have, new) in out.iter_mut().skip(skip).zip(shape) {
                if *new == Expr::Int(1) || have == new {
                    continue;
                }
                if *have == Expr::Int(1) {
                    *have = new.clone();
                } else if self.ranges.equal(have, new) == Some(false) {
                    let may_be_1 = |e: &Expr| self.ranges.equal(e, &Expr::Int(1)).is_none();
                    match (may_be_1(have), may_be_1(new)) {
                        (true, _) => *have = new.clone(),
                        (_, true) => {}
                        _ => return Err(self.fail(format!("sizes {have} and {new} do not broadcast"))),
                    }
                } else if new.as_int().is_some() {
                    *have = new.clone();
                }
            }
        }
        Ok(out)
    }

    /// A size that only running the program tells. Its name is taken from the next value of the graph, so that calls
    /// inserted one after the other get different ones, and is never one of torch's.
    pub(super) fn fresh(&self, index: usize) -> Expr {
        let name = format!("u_{}_{index}", self.graph.value_bound());
        Symbol::new(&name).map_or(Expr::Int(0), Expr::Sym)
    }
}
