//! Calls that make tensors out of nothing.

use etx_ir::DType;
use etx_ir::graph::{Arg, TensorType, Type};
use etx_ir::op;
use etx_ir::sym::Dim;

use crate::calls::{CAST, args, cast};
use crate::effects::removable;
use crate::rewrite::{Patch, Site};

/// `full` of literal or known sizes, `full_like` where the sizes are those of a tensor and no integer has them.
///
/// What torch leaves undefined (`empty` and its kin) is zero here: programs that read it get the same each time.
pub(super) fn full(site: &mut Site<'_>) -> Option<Patch> {
    let to = site.result()?.clone();
    let (value, sizes) = by_op!(site.op(), {
        "aten.full.default" => (site.nth(1).clone(), Some(0)),
        "aten.new_full.default" => (site.nth(2).clone(), Some(1)),
        "aten.full_like.default" | "aten.fill.Scalar" => (site.nth(1).clone(), None),
        "aten.scalar_tensor.default" => (site.nth(0).clone(), None),
        "aten.ones.default" => (Arg::Int(1), Some(0)),
        "aten.new_ones.default" => (Arg::Int(1), Some(1)),
        "aten.ones_like.default" => (Arg::Int(1), None),
        "aten.zeros.default"
        | "aten.empty.memory_format"
        | "aten.empty_permuted.default"
        | "aten.empty_strided.default"
        | "dim_order_ops._empty_dim_order.default" => (Arg::Int(0), Some(0)),
        "aten.new_zeros.default" | "aten.new_empty.default" | "aten.new_empty_strided.default" => (Arg::Int(0), Some(1)),
        _ => (Arg::Int(0), None),
    });
    let value = as_element(value, to.dtype);
    let given = sizes.and_then(|i| site.nth(i).as_list()).map(<[Arg]>::to_vec);
    let mut list = Vec::with_capacity(to.rank());
    for (i, d) in to.shape.iter().enumerate() {
        let known = match d.as_int() {
            Some(n) => Some(Arg::Int(n)),
            None => match given.as_ref().and_then(|g| g.get(i)) {
                Some(a) => Some(a.clone()),
                None => site.known(d).map(Arg::Value),
            },
        };
        match known {
            Some(a) => list.push(a),
            None => {
                let like = op!("aten.full_like.default");
                let x = site.value(0)?;
                return Some(Patch::Call(like, args(like, [Arg::Value(x), value], &[("dtype", Arg::DType(to.dtype))])));
            }
        }
    }
    let full = op!("aten.full.default");
    Some(Patch::Call(full, args(full, [Arg::List(list), value], &[("dtype", Arg::DType(to.dtype))])))
}

/// New tensors in place of results that have no elements.
pub(super) fn empty(site: &mut Site<'_>) -> Option<Patch> {
    let full = op!("aten.full.default");
    let node = site.node();
    if node.op == full || node.outputs.is_empty() || !removable(node) {
        return None;
    }
    let none = |t: &&TensorType| t.shape.contains(&Dim::Int(0));
    let types = node.outputs.iter().map(|v| site.graph().tensor(*v).filter(none).cloned());
    let mut made = Vec::new();
    for t in types.collect::<Option<Vec<TensorType>>>()? {
        let list = args(full, [site.sizes(&t.shape)?, as_element(Arg::Int(0), t.dtype)], &[("dtype", Arg::DType(t.dtype))]);
        made.push(site.call_as(full, list, Type::Tensor(t)));
    }
    Some(Patch::Values(made))
}

/// A literal in the kind of the element type. Values that would change are left to whoever makes the tensor.
fn as_element(value: Arg, dtype: DType) -> Arg {
    match (&value, dtype) {
        (Arg::Int(_) | Arg::Bool(_), t) if t.is_float() => value.as_float().map_or(value, Arg::Float),
        (Arg::Int(n), DType::Bool) => Arg::Bool(*n != 0),
        (Arg::Float(x), DType::Bool) => Arg::Bool(*x != 0.0),
        (Arg::Bool(b), t) if t.is_int() => Arg::Int(i64::from(*b)),
        // As any conversion to whole numbers, towards zero.
        (Arg::Float(x), t) if t.is_int() && x.abs() < 9e15 => Arg::Int(*x as i64),
        _ => value,
    }
}

/// `fill(self, value)` of a scalar tensor: the value, broadcast.
pub(super) fn fill(site: &mut Site<'_>) -> Option<Patch> {
    let (mut value, to) = (site.nth(1).clone(), site.result()?.clone());
    let from = site.tensor(&value)?.clone();
    if from.dtype != to.dtype {
        let ty = Type::Tensor(TensorType::new(to.dtype, from.shape));
        value = site.call_as(CAST, cast(value, to.dtype), ty);
    }
    let sizes = site.sizes(&to.shape)?;
    Some(Patch::Values(vec![site.call_as(op!("aten.expand.default"), vec![value, sizes, Arg::Bool(false)], Type::Tensor(to))]))
}

/// `arange(start, end, step)` in a stated element type.
pub(super) fn arange(site: &mut Site<'_>) -> Option<Patch> {
    let dtype = site.result()?.dtype;
    let (start, end, step) = by_op!(site.op(), {
        "aten.arange.default" => (Arg::Int(0), site.nth(0).clone(), Arg::Int(1)),
        "aten.arange.start" => (site.nth(0).clone(), site.nth(1).clone(), Arg::Int(1)),
        _ => (site.nth(0).clone(), site.nth(1).clone(), site.nth(2).clone()),
    });
    let to = op!("aten.arange.start_step");
    Some(Patch::Call(to, args(to, [start, end, step], &[("dtype", Arg::DType(dtype))])))
}
