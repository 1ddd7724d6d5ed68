//! `as_strided` and its kin, which number elements as they lie in memory.

use std::rc::Rc;

use etx_ir::graph::{Arg, Node, NodeId, TensorType, Type};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::{Expr, Ranges};

use super::views::Inverse;
use super::{Step, Walk};
use crate::calls::{args, ints, wrap};

/// Whether the operator looks at the memory behind its first operand.
pub(crate) fn reads_memory(op: OpId) -> bool {
    is_op!(op, "aten.as_strided.default" | "aten.as_strided_.default" | "aten.as_strided_copy.default" | "aten.as_strided_scatter.default")
}

impl Walk<'_> {
    /// The arguments of a call that reads memory, with an operand that lies in order: the owner of the memory instead of a view of it,
    /// copied in the order of its memory where that is not the order of its axes. Strides and offset then mean the same under any
    /// layout that later passes choose. `None` if the layout is not known; that is refused.
    pub(super) fn in_memory_order(&mut self, node: NodeId, n: &Node) -> Option<Vec<Arg>> {
        let mut list = n.args.clone();
        let at = n.op.schema().position("storage_offset")?;
        let object = list.first().and_then(Arg::as_value).and_then(|v| self.object_of(v))?;
        let (owner, start) = self.owner(object);
        let recorded = self.objects.get(owner)?.recorded.clone()?;
        let value = self.sync(owner, Some(node));
        let made = value.as_value().and_then(|v| self.graph.producer(v)).map(|n| self.graph.node(n).op);
        let lies = recorded.strides.is_none() && made.is_none_or(|op| !op.is_view());
        if owner == object && lies {
            return Some(list);
        }
        let whole = n.op != op!("aten.as_strided_scatter.default");
        let unknown = "it reads the memory behind a tensor, and how that lies there is not known: index or slice the tensor instead";
        let (Some(order), Some(start), true) = (order_in_memory(&recorded, self.ranges), start, whole || owner == object) else {
            self.refuse(node, unknown);
            return None;
        };
        let in_order = order.iter().copied().eq(0..order.len());
        if !in_order && !whole {
            self.refuse(node, unknown);
            return None;
        }
        if let Some(offset) = list.get_mut(at).filter(|a| **a == Arg::None) {
            *offset = Arg::Int(start);
        }
        let operand = if lies { value } else { self.copied_in_order(node, owner, value, &recorded, &order) };
        if let Some(first) = list.first_mut() {
            *first = operand;
        }
        Some(list)
    }

    /// The owner of the memory of an object, and the element where the object begins in it, if that is known.
    fn owner(&self, object: usize) -> (usize, Option<i64>) {
        let (mut at, mut start, mut absolute) = (object, Some(0i64), false);
        while let Some((parent, step)) = self.objects.get(at).and_then(|o| o.parent.clone()) {
            let from = self.objects.get(parent).and_then(|o| o.recorded.as_ref());
            let skipped = match &step.inverse {
                Inverse::Reinterpret(_) | Inverse::Complex | Inverse::Real => None,
                _ if absolute => Some(0),
                // Counted from the start of the memory already.
                Inverse::Strided { offset, .. } => {
                    absolute = true;
                    if *offset == Arg::None { Some(0) } else { offset.as_int() }
                }
                view => from.and_then(|t| skipped(view, t)),
            };
            start = start.zip(skipped).and_then(|(a, b)| a.checked_add(b));
            at = parent;
        }
        (at, start)
    }

    /// The owner as a tensor whose axes are in the order of its memory; a view of it, as far as writes go.
    fn copied_in_order(&mut self, node: NodeId, owner: usize, value: Arg, recorded: &TensorType, order: &[usize]) -> Arg {
        let shape = order.iter().filter_map(|&a| recorded.shape.get(a).cloned()).collect();
        let ty = Type::Tensor(TensorType::new(recorded.dtype, shape));
        let storage = self.objects.get(owner).map_or(0, |o| o.storage);
        let mut back = vec![0; order.len()];
        for (i, &a) in order.iter().enumerate() {
            if let Some(slot) = back.get_mut(a) {
                *slot = i as i64;
            }
        }
        let (permute, clone) = (op!("aten.permute.default"), op!("aten.clone.default"));
        let contiguous = Arg::MemoryFormat(1);
        let (mut parent, mut value) = (owner, value);
        for (op, rest, inverse) in
            [(permute, ints(order.iter().map(|&a| a as i64)), Inverse::Permute(back)), (clone, contiguous, Inverse::Copy)]
        {
            let list = if op == clone { args(op, [value], &[("memory_format", rest)]) } else { args(op, [value, rest], &[]) };
            value = self.emit(node, op, list.clone(), ty.clone());
            let step = Step { op, args: list, from: 0, output: 0, types: vec![ty.clone()], inverse };
            if let Some(v) = value.as_value() {
                parent = self.object(v, storage, Some((parent, Rc::new(step))), value.clone());
            }
        }
        value
    }
}

/// The elements of memory that a view skips before its first, where that is a number.
fn skipped(view: &Inverse, from: &TensorType) -> Option<i64> {
    let stride = |dim: i64| -> Option<i64> {
        let dim = wrap(dim, from.rank())?;
        match &from.strides {
            Some(strides) => strides.get(dim)?.as_int(),
            None => Expr::product(from.shape.get(dim + 1..)?).as_int(),
        }
    };
    // From the end, where it is negative.
    let place = |dim: i64, at: &Arg| -> Option<i64> {
        let at = if *at == Arg::None { 0 } else { at.as_int()? };
        let size = || from.shape.get(wrap(dim, from.rank())?)?.as_int();
        let at = if at < 0 { at.checked_add(size()?)?.max(0) } else { at };
        if at == 0 { Some(0) } else { at.checked_mul(stride(dim)?) }
    };
    match view {
        Inverse::Same | Inverse::Copy | Inverse::Reshape | Inverse::Permute(_) => Some(0),
        Inverse::Slice { dim, start, .. } | Inverse::Narrow { dim, start, .. } => place(*dim, start),
        Inverse::Select { dim, index } => place(*dim, index),
        Inverse::Part { dim, before, .. } => before.as_int()?.checked_mul(stride(*dim)?),
        _ => None,
    }
}

/// The axes in the order in which they lie in memory, outermost first; `None` if there are gaps, or elements that share a place.
fn order_in_memory(t: &TensorType, ranges: &Ranges) -> Option<Vec<usize>> {
    let Some(strides) = &t.strides else { return Some((0..t.rank()).collect()) };
    let one = Expr::Int(1);
    // Strides of axes of size 1 say nothing.
    let (mut order, mut left): (Vec<usize>, Vec<usize>) = (0..t.rank()).partition(|&a| t.shape.get(a) == Some(&one));
    let (mut step, mut inner) = (one, Vec::new());
    while !left.is_empty() {
        let next = left.iter().rposition(|&a| strides.get(a).is_some_and(|s| ranges.equal(s, &step) == Some(true)))?;
        let axis = left.remove(next);
        step = step.times(t.shape.get(axis)?);
        inner.push(axis);
    }
    inner.reverse();
    order.extend(inner);
    Some(order)
}

#[cfg(test)]
mod tests {
    use etx_ir::DType;

    use super::*;

    fn order(shape: &str, strides: &str) -> Option<Vec<usize>> {
        let exprs = |text: &str| text.split_whitespace().map(|d| Expr::parse(d).unwrap()).collect::<Vec<_>>();
        order_in_memory(&TensorType { dtype: DType::Float32, shape: exprs(shape), strides: Some(exprs(strides)) }, &Ranges::default())
    }

    #[test]
    fn the_order_of_memory_is_read_off_the_strides() {
        assert_eq!(order("2 3 4 5", "60 1 15 3"), Some(vec![0, 2, 3, 1]));
        assert_eq!(order("1 3 4 5", "7 1 15 3"), Some(vec![0, 2, 3, 1]));
        assert_eq!(order("s0 3 4 5", "60 1 15 3"), Some(vec![0, 2, 3, 1]));
        assert_eq!(order("2 3 s1 5", "15*s1 1 15 3"), Some(vec![0, 2, 3, 1]));
        assert_eq!(order("2 3", "6 1"), None, "a gap");
        assert_eq!(order("2 3", "0 1"), None, "shared places");
    }
}
