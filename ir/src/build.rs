//! Building graphs: calls that are typed by inference, written the way formulas are.
//!
//! A [`Builder`] stands at one place of a graph and inserts calls there, in the order they are made. What a call leaves
//! out is filled in from the operator's schema, the types of its results come from [`infer`], their names
//! from the operator, and the source line from the call that is being replaced.
//!
//! ```
//! use etx_ir::build::Builder;
//! use etx_ir::error::Error;
//! use etx_ir::graph::{Graph, TensorType, Type, ValueId};
//! use etx_ir::sym::Ranges;
//! use etx_ir::{DType, args, op};
//!
//! /// `x * rsqrt(mean(x², -1) + eps) * weight`, computed in single precision.
//! fn rms_norm(b: &mut Builder<'_>, x: ValueId, weight: ValueId, eps: f64) -> Result<ValueId, Error> {
//!     let wide = b.cast(x, DType::Float32)?;
//!     let squares = b.mul(wide, wide)?;
//!     let mean = b.mean(squares, &[-1], true)?;
//!     let shifted = b.add(mean, eps)?;
//!     let scale = b.rsqrt(shifted)?;
//!     let normal = b.mul(wide, scale)?;
//!     let scaled = b.mul(normal, weight)?;
//!     b.cast(scaled, DType::BFloat16)
//! }
//!
//! let mut graph = Graph::new();
//! let tensor = |sizes: &[i64]| Type::Tensor(TensorType::new(DType::BFloat16, sizes.iter().map(|&n| n.into()).collect()));
//! let (x, weight) = (graph.add_input("x", tensor(&[2, 8])), graph.add_input("weight", tensor(&[8])));
//! let ranges = Ranges::default();
//! let mut b = Builder::at_end(&mut graph, &ranges);
//! let y = rms_norm(&mut b, x, weight, 1e-6)?;
//! let pieces = b.calls(op!("aten.split.Tensor"), args![y, 1])?; // dim=0 is filled in
//! assert_eq!((pieces.len(), b.shape(pieces[0])?), (2, [1.into(), 8.into()].as_slice()));
//! # Ok::<(), Error>(())
//! ```

mod formulas;
mod sizes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::DType;
use crate::error::{Error, ErrorKind};
use crate::graph::{Arg, Graph, NodeId, Source, TensorType, Type, ValueId};
use crate::infer;
use crate::op::{ArgKind, ArgType, OpId, bind};
use crate::sym::{Dim, Expr, Ranges};

/// A list of arguments from values and literals: `args![x, 2, 0.5, [0, 1], None::<i64>]`.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { vec![$($crate::graph::Arg::from($arg)),*] };
}

impl From<i32> for Arg {
    /// For literals in source code, which have this type unless told otherwise.
    fn from(n: i32) -> Self {
        Arg::Int(n.into())
    }
}

impl<T: Into<Arg>, const N: usize> From<[T; N]> for Arg {
    fn from(items: [T; N]) -> Self {
        Arg::List(items.into_iter().map(Into::into).collect())
    }
}

impl From<&[i64]> for Arg {
    fn from(items: &[i64]) -> Self {
        Arg::List(items.iter().map(|&n| Arg::Int(n)).collect())
    }
}

impl From<&[ValueId]> for Arg {
    fn from(items: &[ValueId]) -> Self {
        Arg::List(items.iter().map(|&v| Arg::Value(v)).collect())
    }
}

/// Inserts calls at one place of a graph; see the [module page](self).
pub struct Builder<'g> {
    graph: &'g mut Graph,
    ranges: &'g Ranges,
    at: Option<NodeId>,
    source: Option<Arc<Source>>,
    /// Values from this index on were made here.
    first: usize,
    /// Expressions that a value made or found here is equal to.
    known: BTreeMap<Expr, Arg>,
}

impl<'g> Builder<'g> {
    /// Inserts before a call, whose source line new calls get.
    pub fn before(graph: &'g mut Graph, ranges: &'g Ranges, node: NodeId) -> Self {
        let source = graph.node(node).source.clone();
        let first = graph.value_bound();
        Self { graph, ranges, at: Some(node), source, first, known: BTreeMap::new() }
    }

    /// Appends to the graph.
    pub fn at_end(graph: &'g mut Graph, ranges: &'g Ranges) -> Self {
        let first = graph.value_bound();
        Self { graph, ranges, at: None, source: None, first, known: BTreeMap::new() }
    }

    /// The source line of calls made from now on.
    #[must_use]
    pub fn with_source(mut self, source: Option<Arc<Source>>) -> Self {
        self.source = source;
        self
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        self.graph
    }

    /// What is known of the symbols.
    pub fn ranges(&self) -> &Ranges {
        self.ranges
    }

    /// The type of a value that must be a tensor.
    ///
    /// # Errors
    /// If it is none.
    pub fn tensor(&self, x: ValueId) -> Result<&TensorType, Error> {
        let wrong = || Error::new(ErrorKind::Invalid, format!("{} is no tensor", self.graph.value(x).name));
        self.graph.tensor(x).ok_or_else(wrong)
    }

    /// The sizes of a tensor.
    ///
    /// # Errors
    /// If it is none.
    pub fn shape(&self, x: ValueId) -> Result<&[Dim], Error> {
        self.tensor(x).map(|t| t.shape.as_slice())
    }

    /// The element type of a tensor.
    ///
    /// # Errors
    /// If it is none.
    pub fn dtype(&self, x: ValueId) -> Result<DType, Error> {
        self.tensor(x).map(|t| t.dtype)
    }

    /// Number of dimensions of a tensor.
    ///
    /// # Errors
    /// If it is none.
    pub fn rank(&self, x: ValueId) -> Result<usize, Error> {
        self.tensor(x).map(TensorType::rank)
    }

    /// Inserts a call with arguments by position; those missing at the end have their defaults. One value a result, list
    /// results spread out.
    ///
    /// # Errors
    /// Arguments that do not fit the schema, and those of [`infer::infer`]. The graph is unchanged then.
    pub fn calls(&mut self, op: OpId, args: impl IntoIterator<Item = Arg>) -> Result<Vec<ValueId>, Error> {
        self.calls_with(op, args, [])
    }

    /// Inserts a call of one result; see [`Builder::calls`].
    ///
    /// # Errors
    /// As there, and for any other number of results.
    pub fn call(&mut self, op: OpId, args: impl IntoIterator<Item = Arg>) -> Result<ValueId, Error> {
        self.call_with(op, args, [])
    }

    /// Inserts a call of one result with arguments by position, then by name.
    ///
    /// # Errors
    /// As [`Builder::call`].
    pub fn call_with<'a>(
        &mut self,
        op: OpId,
        args: impl IntoIterator<Item = Arg>,
        named: impl IntoIterator<Item = (&'a str, Arg)>,
    ) -> Result<ValueId, Error> {
        let args = complete(op, args, named)?;
        let types = infer::infer(self.graph, self.ranges, op, &args)?;
        if types.len() != 1 {
            return Err(Error::new(ErrorKind::Invalid, format!("{op} has {} results, one is expected", types.len())));
        }
        self.insert(op, args, types).into_iter().next().ok_or_else(|| Error::new(ErrorKind::Invalid, format!("{op} has no result")))
    }

    /// Inserts a call with arguments by position, then by name.
    ///
    /// # Errors
    /// As [`Builder::calls`].
    pub fn calls_with<'a>(
        &mut self,
        op: OpId,
        args: impl IntoIterator<Item = Arg>,
        named: impl IntoIterator<Item = (&'a str, Arg)>,
    ) -> Result<Vec<ValueId>, Error> {
        let args = complete(op, args, named)?;
        let types = infer::infer(self.graph, self.ranges, op, &args)?;
        Ok(self.insert(op, args, types))
    }

    fn insert(&mut self, op: OpId, args: Vec<Arg>, types: Vec<Type>) -> Vec<ValueId> {
        let name = op.schema().name.as_str();
        let outputs = types.into_iter().map(|ty| (name, ty)).collect();
        let node = self.graph.insert(self.at, op, args, name, outputs, self.source.clone());
        self.graph.node(node).outputs.clone()
    }

    /// Makes every use of the results of a call a use of `values`, one for each result, and removes the call. A value that
    /// was made here takes over the type of what it replaces, which may say the same in other words, so that nothing
    /// downstream changes.
    ///
    /// # Errors
    /// If numbers or types differ; the graph is unchanged then.
    pub fn replace(self, node: NodeId, values: &[ValueId]) -> Result<(), Error> {
        let outputs = self.graph.node(node).outputs.clone();
        let wrong = |what: String| Error::new(ErrorKind::Invalid, format!("{}: {what}", self.graph.node(node).name));
        if outputs.len() != values.len() {
            return Err(wrong(format!("{} values for {} results", values.len(), outputs.len())));
        }
        for (&old, &new) in outputs.iter().zip(values) {
            let (a, b) = (self.graph.ty(old), self.graph.ty(new));
            if self.graph.value(old).use_count() > 0 && !infer::agree(self.ranges, a, b) {
                return Err(wrong(format!("{a:?} is not to be replaced by {b:?}")));
            }
        }
        for (&old, &new) in outputs.iter().zip(values) {
            if new.index() >= self.first && self.graph.value(old).use_count() > 0 {
                let ty = self.graph.ty(old).clone();
                self.graph.set_type(new, ty);
            }
            self.graph.replace_uses(old, new);
        }
        self.graph.remove(node);
        Ok(())
    }
}

/// The arguments of a call as a node has them: one for each of the schema's, defaults filled in, whole numbers for float
/// arguments as floats, a scalar for a list of fixed length repeated.
///
/// # Errors
/// Unknown, repeated and missing arguments, all of them at once.
pub fn complete<'a>(
    op: OpId,
    args: impl IntoIterator<Item = Arg>,
    named: impl IntoIterator<Item = (&'a str, Arg)>,
) -> Result<Vec<Arg>, Error> {
    let schema = op.schema();
    // Positions may reach into the arguments that Python takes by name only: here it is the place that counts.
    let by_position = args.into_iter().enumerate().map(|(i, arg)| match schema.args.get(i) {
        Some(spec) => (spec.name.as_str(), ArgKind::Positional, arg),
        None => ("", ArgKind::Positional, arg),
    });
    let by_name = named.into_iter().map(|(name, arg)| (name, ArgKind::Keyword, arg));
    let given: Vec<(&str, ArgKind, Arg)> = by_position.chain(by_name).collect();
    let bound = bind(schema, given).map_err(|e| Error::new(ErrorKind::Invalid, e.to_string()))?;
    let specs = schema.args.iter().zip(bound.args);
    let mut args: Vec<Arg> = specs
        .map(|(spec, arg)| match arg {
            Some(arg) => fitted(arg, &spec.ty),
            None => spec.default.as_ref().map_or(Arg::None, Arg::from),
        })
        .collect();
    let (unnamed, named): (Vec<_>, Vec<_>) = bound.extra.into_iter().partition(|(name, _, _)| name.is_empty());
    args.extend(unnamed.into_iter().map(|(_, _, arg)| arg));
    if !named.is_empty() {
        args.push(Arg::Dict(named.into_iter().map(|(name, _, arg)| (name.into(), arg)).collect()));
    }
    Ok(args)
}

/// One spelling for one value, as the reader has it.
fn fitted(arg: Arg, ty: &ArgType) -> Arg {
    match (ty.required(), arg) {
        (ArgType::Float | ArgType::SymFloat, Arg::Int(n)) => Arg::Float(n as f64),
        (ArgType::List(_, Some(n)), arg @ (Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) | Arg::Value(_))) => {
            Arg::List(std::iter::repeat_n(arg, *n as usize).collect())
        }
        (_, arg) => arg,
    }
}
