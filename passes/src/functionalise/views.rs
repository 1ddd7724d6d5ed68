//! Views: which calls share memory with an operand, and how a write to the view reaches the operand.

use etx_ir::DType;
use etx_ir::graph::{Arg, Graph, Node, TensorType, Type};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::{Dim, Expr, Ranges};

use crate::calls::{as_ints, wrap};

/// Whether a result is memory of its own.
pub(super) enum Shares {
    /// It is.
    No,
    /// It is a view of the operand, undone so.
    View(Inverse),
    /// Only running the program would tell.
    Perhaps,
}

/// How the new value of an operand follows from the new value of a view of it (and its old value).
#[derive(Clone, Debug)]
pub(super) enum Inverse {
    /// The same value.
    Same,
    /// The same value, copied so that it lies in order.
    Copy,
    /// The same elements in the operand's shape.
    Reshape,
    /// The axes put back.
    Permute(Vec<i64>),
    /// The elements from `start` to `end` by `step` of a dimension.
    Slice { dim: i64, start: Arg, end: Arg, step: Arg },
    /// As `Slice`, of `length` elements.
    Narrow { dim: i64, start: Arg, length: Arg },
    /// The elements before those of the earlier parts of a split, this many.
    Part { dim: i64, before: Expr, length: Expr },
    /// One index of a dimension.
    Select { dim: i64, index: Arg },
    /// A diagonal.
    Diagonal { offset: Arg, dim1: Arg, dim2: Arg },
    /// Elements by their numbers in memory, of a tensor that lies there as its sizes say.
    Strided { size: Arg, stride: Arg, offset: Arg },
    /// The same bytes as another element type.
    Reinterpret(DType),
    /// Complex numbers as pairs.
    Complex,
    /// Pairs as complex numbers.
    Real,
    /// Not done, and why.
    Never(&'static str),
}

/// Operators that may return their operand or a part of it although no schema says so.
const UNDECLARED: &[OpId] = &[
    op!("aten.broadcast_tensors.default"),
    op!("aten.meshgrid.default"),
    op!("aten.meshgrid.indexing"),
    op!("aten.atleast_1d.default"),
    op!("aten.atleast_2d.default"),
    op!("aten.atleast_3d.default"),
    op!("aten.atleast_1d.Sequence"),
    op!("aten.atleast_2d.Sequence"),
    op!("aten.atleast_3d.Sequence"),
    op!("aten.sum_to_size.default"),
    op!("aten.pad.default"),
    op!("aten.tile.default"),
];

/// The argument that results may share memory with.
pub(super) fn viewed_arg(node: &Node, output: usize) -> Option<usize> {
    let schema = node.op.schema();
    let ret = if schema.returns.len() == 1 { schema.returns.first() } else { schema.returns.get(output) }?;
    if let Some(&a) = ret.alias_of.first() {
        return Some(a);
    }
    by_op!(node.op, {
        "aten.type_as.default"
        | "aten.dropout.default"
        | "aten.feature_dropout.default"
        | "aten.alpha_dropout.default"
        | "aten.feature_alpha_dropout.default" => Some(0),
        _ => UNDECLARED.contains(&node.op).then_some(0),
    })
}

/// What the result number `output` of a view is to its operand, a tensor of type `from`.
pub(super) fn shares(graph: &Graph, ranges: &Ranges, node: &Node, from: &TensorType, output: usize) -> Shares {
    use Inverse::*;
    let arg = |name: &str| node.op.schema().position(name).and_then(|i| node.args.get(i)).unwrap_or(&Arg::None);
    let Some(Type::Tensor(to)) = node.outputs.get(output).map(|&v| graph.ty(v)) else { return Shares::No };
    let dim = |name: &str| arg(name).as_int().and_then(|d| wrap(d, from.rank())).map(|d| d as i64);
    if UNDECLARED.contains(&node.op) {
        return Shares::Perhaps;
    }
    if let Some(p) = permutation(node, from.rank()) {
        return Shares::View(Permute(inverse(&p)));
    }
    Shares::View(by_op!(node.op, {
        "aten.alias.default" | "aten.detach.default" | "aten.lift_fresh.default" | "aten.lift.default" => Same,
        "aten.positive.default" | "aten.resolve_conj.default" | "aten.resolve_neg.default" => Same,
        "aten.conj.default" | "aten._conj.default" | "aten.real.default" if !from.dtype.is_complex() => Same,
        "aten.dropout.default"
        | "aten.feature_dropout.default"
        | "aten.alpha_dropout.default"
        | "aten.feature_alpha_dropout.default" => match arg("train").as_bool() {
            Some(false) => Same,
            _ => return Shares::No,
        },
        "aten.view.default"
        | "aten.view_as.default"
        | "aten._reshape_alias.default"
        | "aten._unsafe_view.default"
        | "aten.unflatten.int"
        | "aten.squeeze.default"
        | "aten.squeeze.dim"
        | "aten.squeeze.dims"
        | "aten.unsqueeze.default"
        | "prims.collapse_view.default"
        | "prims.split_dim.default"
        | "prims.squeeze.default" => Reshape,
        "aten.reshape.default" | "aten.reshape_as.default" | "aten.flatten.using_ints" | "aten.ravel.default" => {
            match viewable(from, &to.shape, ranges) {
                Some(true) => Reshape,
                Some(false) => return Shares::No,
                None => return Shares::Perhaps,
            }
        },
        "aten.contiguous.default" => match (&from.strides, arg("memory_format")) {
            (None, Arg::MemoryFormat(1 | 4)) => Same,
            (Some(_), Arg::MemoryFormat(1)) => return Shares::No,
            _ => return Shares::Perhaps,
        },
        "aten.to.dtype"
        | "aten.to.device"
        | "aten.to.dtype_layout"
        | "aten.to.other"
        | "aten.type_as.default" => {
            let copy = arg("copy").as_bool() == Some(true);
            match arg("memory_format") {
                _ if copy || from.dtype != to.dtype => return Shares::No,
                Arg::None | Arg::MemoryFormat(4) => Same,
                _ => return Shares::Perhaps,
            }
        },
        "aten.expand.default" | "aten.expand_as.default" | "aten.broadcast_to.default" => {
            if from.same_as(to) { Same } else { Never("it repeats elements, so that several places are one") }
        },
        "aten.slice.Tensor" => match dim("dim") {
            Some(dim) => Slice { dim, start: arg("start").clone(), end: arg("end").clone(), step: arg("step").clone() },
            None => Never("its dimension is unknown"),
        },
        "aten.narrow.default" => match dim("dim") {
            Some(dim) => Narrow { dim, start: arg("start").clone(), length: arg("length").clone() },
            None => Never("its dimension is unknown"),
        },
        "aten.select.int" => match dim("dim") {
            Some(dim) => Select { dim, index: arg("index").clone() },
            None => Never("its dimension is unknown"),
        },
        "aten.unbind.int" => match dim("dim") {
            Some(dim) => Select { dim, index: Arg::Int(output as i64) },
            None => Never("its dimension is unknown"),
        },
        "aten.split.Tensor"
        | "aten.split.sizes"
        | "aten.split_with_sizes.default"
        | "aten.chunk.default"
        | "aten.tensor_split.sections"
        | "aten.tensor_split.indices" => match dim("dim").and_then(|d| part(graph, node, d, output)) {
            Some(part) => part,
            None => Never("its parts are not understood"),
        },
        "aten.hsplit.int" | "aten.hsplit.array" => {
            part(graph, node, i64::from(from.rank() > 1), output).unwrap_or(Never("its parts are not understood"))
        },
        "aten.vsplit.int" | "aten.vsplit.array" => part(graph, node, 0, output).unwrap_or(Never("its parts are not understood")),
        "aten.dsplit.int" | "aten.dsplit.array" => part(graph, node, 2, output).unwrap_or(Never("its parts are not understood")),
        "aten.diagonal.default" => {
            Diagonal { offset: arg("offset").clone(), dim1: arg("dim1").clone(), dim2: arg("dim2").clone() }
        },
        "aten.view.dtype" => Reinterpret(from.dtype),
        "aten.view_as_real.default" => Complex,
        "aten.view_as_complex.default" => Real,
        "aten.unfold.default" => Never("its windows overlap"),
        "aten.as_strided.default" => {
            let made = node.args.first().and_then(Arg::as_value).and_then(|v| graph.producer(v));
            if from.strides.is_some() || made.is_some_and(|n| graph.node(n).op.is_view()) {
                Never("it is made by as_strided of a tensor whose layout is not known here")
            } else {
                Strided { size: arg("size").clone(), stride: arg("stride").clone(), offset: arg("storage_offset").clone() }
            }
        },
        _ => Never("the operator is not known to be reversible"),
    }))
}

/// Part `output` of a split along `dim`.
fn part(graph: &Graph, node: &Node, dim: i64, output: usize) -> Option<Inverse> {
    let size = |v| graph.tensor(v).and_then(|t| t.shape.get(usize::try_from(dim).ok()?).cloned());
    let before: Vec<Dim> = node.outputs.get(..output)?.iter().map(|&v| size(v)).collect::<Option<_>>()?;
    Some(Inverse::Part { dim, before: Expr::sum(&before), length: size(*node.outputs.get(output)?)? })
}

fn inverse(p: &[usize]) -> Vec<i64> {
    let mut out = vec![0; p.len()];
    for (i, &d) in p.iter().enumerate() {
        if let Some(slot) = out.get_mut(d) {
            *slot = i as i64;
        }
    }
    out
}

/// The axes of the operand in the order the result has them, if the call is one of the many that only reorder axes.
pub(crate) fn permutation(node: &Node, rank: usize) -> Option<Vec<usize>> {
    let arg = |i: usize| node.args.get(i).unwrap_or(&Arg::None);
    let axis = |i: usize| wrap(arg(i).as_int()?, rank);
    let swapped = |a: usize, b: usize| {
        let mut p: Vec<usize> = (0..rank).collect();
        if rank > 0 {
            p.swap(a, b);
        }
        p
    };
    let valid = |p: Vec<usize>| {
        let mut sorted = p.clone();
        sorted.sort_unstable();
        sorted.iter().copied().eq(0..rank).then_some(p)
    };
    by_op!(node.op, {
        "aten.permute.default" | "aten.permute_copy.default" | "prims.transpose.default" => {
            valid(as_ints(arg(1))?.into_iter().map(|d| wrap(d, rank)).collect::<Option<_>>()?)
        },
        "aten.transpose.int"
        | "aten.transpose_copy.int"
        | "aten.transpose_.default"
        | "aten.swapaxes.default"
        | "aten.swapaxes_.default"
        | "aten.swapdims.default"
        | "aten.swapdims_.default" => Some(swapped(axis(1)?, axis(2)?)),
        "aten.t.default" | "aten.t_copy.default" | "aten.t_.default" => match rank {
            0 | 1 => Some((0..rank).collect()),
            2 => Some(vec![1, 0]),
            _ => None,
        },
        "aten.mT.default" if rank >= 2 => Some(swapped(rank - 2, rank - 1)),
        "aten.numpy_T.default" => Some((0..rank).rev().collect()),
        "aten.movedim.int" | "aten.moveaxis.int" | "aten.movedim.intlist" | "aten.moveaxis.intlist" => {
            let from: Vec<usize> = as_ints(arg(1))?.into_iter().map(|d| wrap(d, rank)).collect::<Option<_>>()?;
            let to: Vec<usize> = as_ints(arg(2))?.into_iter().map(|d| wrap(d, rank)).collect::<Option<_>>()?;
            if from.len() != to.len() {
                return None;
            }
            let mut p = vec![usize::MAX; rank];
            for (&s, &d) in from.iter().zip(&to) {
                *p.get_mut(d)? = s;
            }
            let mut rest = (0..rank).filter(|d| !from.contains(d));
            for slot in p.iter_mut().filter(|s| **s == usize::MAX) {
                *slot = rest.next()?;
            }
            valid(p)
        },
        _ => None,
    })
}

/// Whether a tensor can take another shape without moving elements; `None` if that depends on symbols.
///
/// torch's own rule (`computeStride` of ATen): runs of dimensions that are contiguous among themselves may be regrouped.
fn viewable(from: &TensorType, to: &[Dim], ranges: &Ranges) -> Option<bool> {
    let Some(strides) = &from.strides else { return Some(true) };
    if from.shape.contains(&Dim::Int(0)) || from.rank() == 0 {
        return Some(true);
    }
    let one = Expr::Int(1);
    let mut left = to.len();
    let mut base = strides.last()?.clone();
    let (mut old, mut new) = (one.clone(), one.clone());
    for d in (0..from.rank()).rev() {
        old = old.times(from.shape.get(d)?);
        let run_ends = match d.checked_sub(1) {
            None => true,
            Some(outer) => {
                let unit = ranges.equal(from.shape.get(outer)?, &one)?;
                !unit && !ranges.equal(strides.get(outer)?, &old.times(&base))?
            }
        };
        if !run_ends {
            continue;
        }
        while let Some(next) = left.checked_sub(1).and_then(|i| to.get(i)) {
            let full = new == old;
            if full && *next != one {
                break;
            }
            if !full && ranges.at_most(&old, &new)? {
                break;
            }
            new = new.times(next);
            left -= 1;
        }
        if !ranges.equal(&new, &old)? {
            return Some(false);
        }
        if let Some(outer) = d.checked_sub(1) {
            base = strides.get(outer)?.clone();
            (old, new) = (one.clone(), one.clone());
        }
    }
    Some(left == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exprs(text: &str) -> Vec<Expr> {
        text.split_whitespace().map(|d| Expr::parse(d).unwrap()).collect()
    }

    fn can(shape: &str, strides: &str, to: &str) -> Option<bool> {
        let t = TensorType { dtype: DType::Float32, shape: exprs(shape), strides: Some(exprs(strides)) };
        viewable(&t, &exprs(to), &Ranges::default())
    }

    #[test]
    fn reshapes_of_strided_tensors_are_views_or_copies_as_in_torch() {
        // Checked against torch: `x.view(shape)` succeeds or not.
        assert_eq!(can("2 3 4", "12 4 1", "6 4"), Some(true));
        assert_eq!(can("3 2 4", "4 12 1", "6 4"), Some(false));
        assert_eq!(can("3 2 4", "4 12 1", "3 2 2 2"), Some(true));
        assert_eq!(can("2 3 4", "24 4 1", "2 12"), Some(true));
        assert_eq!(can("2 3 4", "24 4 1", "24"), Some(false));
        assert_eq!(can("2 s0", "1 2", "2*s0"), None);
        assert_eq!(can("4 3", "1 4", "4 1 3"), Some(true));
        assert_eq!(can("4 3", "0 1", "12"), Some(false));
        assert_eq!(can("5 0", "7 7", "0"), Some(true));
    }
}
