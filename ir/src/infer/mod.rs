//! Types of results: element type and shape inference.
//!
//! [`infer`] gives the types that a call would have, from the operator and its arguments. Semantics are those of eager
//! PyTorch: type promotion with its three categories (tensors, tensors without dimensions, numbers), broadcasting,
//! Python's slicing. Sizes are expressions; a rule gives the simplest form that the ranges of the symbols allow to prove,
//! and `Max`/`Min` where they do not. Two sizes that could be equal are taken to be, as torch does when it traces; only what
//! is refuted for all values of the symbols is an error.
//!
//! A rule stands for a family of operators; the one table says who belongs to which. Beyond it, an operator follows from its
//! relatives: `add_` is typed as what it writes to, `view_copy` as `view`, `x_functional` as `x` plus what it wrote, and
//! a call without results needs no rule.
//!
//! Not inferred: strides (results are described as row-major), and sizes that only the data tell, which are new symbols
//! `u_…` of unknown value.

mod create;
mod custom;
mod cx;
mod dims;
mod indexing;
mod matrix;
mod norm;
mod pointwise;
pub(crate) mod promote;
mod reduce;
mod scalars;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod tests;
mod views;
mod windows;

use crate::DType;
use crate::error::{Error, ErrorKind};
use crate::graph::{Arg, Graph, TensorType, Type};
use crate::op::OpId;
use crate::sym::Ranges;

use cx::{Cx, Inferred};

/// The types of the results of a call, in the order of [`Node::outputs`](crate::graph::Node::outputs) (list results spread
/// out). `args` are as in a node: one for each argument of the schema; missing ones at the end have their defaults.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where no rule knows the operator, or what the results are depends on more than types;
/// [`ErrorKind::Shape`] where torch would refuse the call. The text names operator, arguments and what is wrong.
pub fn infer(graph: &Graph, ranges: &Ranges, op: OpId, args: &[Arg]) -> Result<Vec<Type>, Error> {
    let schema = op.schema();
    if args.len() < schema.args.len() {
        let missing = schema.args.iter().skip(args.len());
        let full: Vec<Arg> = args.iter().cloned().chain(missing.map(|a| a.default.as_ref().map_or(Arg::None, Arg::from))).collect();
        return checked(&Cx { graph, ranges, op, schema, args: &full });
    }
    checked(&Cx { graph, ranges, op, schema, args })
}

/// The types that the rules give, if their sizes are ones that tensors can have.
fn checked(c: &Cx) -> Inferred {
    let types = of_call(c)?;
    for ty in &types {
        if let Type::Tensor(t) = ty
            && let Some(what) = t.impossible()
        {
            return Err(c.fail(what));
        }
    }
    if let [Type::Tensor(t)] = types.as_slice()
        && divides_by_zero(c, t.dtype)
    {
        return Err(c.fail("division of integers by zero"));
    }
    Ok(types)
}

/// Whether integers are divided by a number that is zero in their type, as one beyond it may be.
fn divides_by_zero(c: &Cx, dtype: DType) -> bool {
    let whole = match c.schema.name.as_str() {
        "fmod" | "remainder" | "floor_divide" => true,
        "div" | "divide" => c.given("rounding_mode"),
        _ => return false,
    };
    let zero = |n: i64| dtype.size() >= 8 && n == 0 || dtype.size() < 8 && n & ((1 << (8 * dtype.size())) - 1) == 0;
    whole && dtype.is_int() && matches!(c.args.get(1), Some(Arg::Int(n)) if zero(*n))
}

/// Whether [`infer`] knows the operator.
pub fn knows(op: OpId) -> bool {
    table::rule(op).is_some() || relative(op).is_some()
}

/// Whether two types can be of one value: equal kinds and element types, sizes that no values of the symbols tell apart.
/// Strides are not compared.
pub fn agree(ranges: &Ranges, a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Tensor(a), Type::Tensor(b)) => a.dtype == b.dtype && agree_in_size(ranges, a, b),
        (Type::Int(a), Type::Int(b)) => ranges.equal(a, b) != Some(false),
        (Type::Float(_), Type::Float(_)) | (Type::Bool(_), Type::Bool(_)) => true,
        (a, b) => a == b,
    }
}

/// Whether two tensors can be of one size.
pub(crate) fn agree_in_size(ranges: &Ranges, a: &TensorType, b: &TensorType) -> bool {
    let equal = |(n, m)| ranges.equal(n, m) != Some(false);
    a.rank() == b.rank() && a.shape.iter().zip(&b.shape).all(equal)
}

/// The element type that two tensors of these types compute in (`torch.promote_types`); `None` where torch has none.
pub fn promote_types(a: DType, b: DType) -> Option<DType> {
    promote::promote(a, b)
}

/// How the types of an operator without a rule follow from another operator, or from its arguments.
enum Relative {
    /// No results.
    Nothing,
    /// Every result is an argument that the call wrote to. The operator that returns what this one writes, if there is one.
    Written(Option<OpId>),
    /// Sizes of an argument change in place as the other operator's result has them.
    Resized(OpId),
    /// The same results as the other's.
    Same(OpId),
    /// The other's results, then the new values of what it writes to.
    WithMutated(OpId),
}

fn relative(op: OpId) -> Option<Relative> {
    let schema = op.schema();
    if op.is_unknown() {
        return None;
    }
    if schema.returns.is_empty() {
        return Some(Relative::Nothing);
    }
    if let Some(base) = op.functional_of() {
        return knows(base).then_some(Relative::WithMutated(base));
    }
    let plain = op.inplace_to_functional().filter(|f| table::rule(*f).is_some());
    if op.is_inplace_view() {
        return plain.map(Relative::Resized);
    }
    if schema.returns.iter().all(|r| r.mutated && r.alias_of.len() == 1) {
        return Some(Relative::Written(plain));
    }
    op.copy_to_view().filter(|v| table::rule(*v).is_some()).map(Relative::Same)
}

fn of_call(c: &Cx) -> Inferred {
    if let Some(rule) = table::rule(c.op) {
        return rule(c);
    }
    let of = |op: OpId| of_call(&Cx { op, schema: op.schema(), ..*c });
    match relative(c.op) {
        Some(Relative::Nothing) => Ok(Vec::new()),
        Some(Relative::Same(op) | Relative::Resized(op)) => of(op),
        Some(Relative::Written(op)) => {
            let result = op.map(of).transpose()?;
            if let Some([Type::Tensor(result)]) = result.as_deref() {
                fits(c, c.tensor(0)?, result)?;
            }
            written(c)
        }
        Some(Relative::WithMutated(base)) => {
            let mut types = of(base)?;
            for i in base.schema().mutated_args() {
                types.push(Type::Tensor(plain(c.tensor(i)?)));
            }
            Ok(types)
        }
        None => Err(Error::new(ErrorKind::Unsupported, format!("no shape rule knows {}", c.op))),
    }
}

/// Fails if a result cannot be written to a tensor in place.
fn fits(c: &Cx, own: &TensorType, result: &TensorType) -> Result<(), Error> {
    let equal = own.rank() == result.rank() && own.shape.iter().zip(&result.shape).all(|(a, b)| c.ranges.equal(a, b) != Some(false));
    if equal { Ok(()) } else { Err(c.fail(format!("the result has shape {:?} and does not fit in place", result.shape))) }
}

/// The arguments that a call wrote to and returns.
fn written(c: &Cx) -> Inferred {
    let own = |r: &crate::op::ReturnSpec| Ok(Type::Tensor(plain(c.tensor(r.alias_of.first().copied().unwrap_or(0))?)));
    c.schema.returns.iter().map(own).collect()
}

/// The type without strides.
fn plain(t: &TensorType) -> TensorType {
    TensorType::new(t.dtype, t.shape.clone())
}
