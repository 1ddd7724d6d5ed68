//! Numbers that are computed while the program runs: sizes, positions, and arithmetic on them.
//!
//! A symbolic number is what its type says it is. An instruction computes it when another one needs it, and only once,
//! so the nodes that made it emit nothing themselves.

use etx_ir::graph::Type;
use etx_ir::sym::Expr;

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;
use crate::backend::Refusal;

const ROUNDED: &str = "MultiplyInt, FloorDivideInt, or a table of all values";
const CONDITION: &str = "integer arithmetic that gives 0 or 1";
const UNLISTED: &str = "what is rounded is no simple fraction of a size, nor has the size an upper bound below 2^16";

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.sym_size.int", derived, "SymSize"),
    Operator::new("aten.sym_numel.default", derived, "SymSize, MultiplyInt"),
    Operator::new("_operator.add", derived, "AddInt, or Add of scalar tensors"),
    Operator::new("_operator.sub", derived, "MultiplyInt, AddInt, or their kin for scalar tensors"),
    Operator::new("_operator.mul", derived, "MultiplyInt, or Multiply of scalar tensors"),
    Operator::new("_operator.floordiv", derived, "FloorDivideInt").when("of floats"),
    Operator::new("_operator.mod", derived, "ModInt").when("of floats"),
    Operator::new("_operator.neg", derived, "MultiplyInt, or Multiply of scalar tensors"),
    Operator::new("_operator.pos", derived, "nothing"),
    Operator::new("_operator.lshift", derived, "MultiplyInt"),
    Operator::new("_operator.rshift", derived, "FloorDivideInt"),
    Operator::new("_operator.truediv", derived, "Divide of scalar tensors"),
    Operator::new("_operator.pow", derived, "MultiplyInt, or Power, Sqrt, Rsqrt of scalar tensors"),
    Operator::new("torch.sym_float", derived, "Full"),
    Operator::new("torch.sym_int", derived, ROUNDED).when(UNLISTED),
    Operator::new("math.trunc", derived, ROUNDED).when(UNLISTED),
    Operator::new("executorch_prim.ceil.Scalar", derived, ROUNDED).when(UNLISTED),
    Operator::new("executorch_prim.round.Scalar", derived, ROUNDED).when(UNLISTED),
    Operator::new("torch.sym_max", derived, "integer arithmetic, or Maximum of scalar tensors"),
    Operator::new("torch.sym_min", derived, "integer arithmetic, or Minimum of scalar tensors"),
    Operator::new("torch.sym_ite", derived, "integer arithmetic").when("of floats"),
    Operator::new("_operator.eq", derived, CONDITION).when("of floats"),
    Operator::new("_operator.ne", derived, CONDITION).when("of floats"),
    Operator::new("_operator.lt", derived, CONDITION).when("of floats"),
    Operator::new("_operator.le", derived, CONDITION).when("of floats"),
    Operator::new("_operator.gt", derived, CONDITION).when("of floats"),
    Operator::new("_operator.ge", derived, CONDITION).when("of floats"),
    Operator::new("_operator.and_", derived, CONDITION),
    Operator::new("_operator.or_", derived, CONDITION),
    Operator::new("torch.sym_not", derived, CONDITION),
    Operator::new("torch._sym_sqrt", derived, "Sqrt of a scalar tensor"),
    Operator::new("aten.item.default", item, "ItemInt; nothing for floats, which stay tensors"),
    Operator::new("aten._local_scalar_dense.default", item, "ItemInt; nothing for floats, which stay tensors"),
];

fn derived<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    match call.graph.ty(call.out(0)?) {
        // Computed to see whether it can be; what nothing reads is dropped at the end.
        Type::Int(e) | Type::Bool(e) => cx.int(e).map(|_| ()),
        Type::Float(e) => cx.float(e).map(|_| ()),
        _ => Err(Refusal::new("only numbers are computed outside tensors")),
    }
}

fn item<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let ty = call.ty("self")?;
    let e = match call.graph.ty(call.out(0)?) {
        Type::Int(e) if ty.dtype.is_int() => e,
        // Whoever reads it reads the tensor.
        Type::Float(e) => return cx.float(e).map(|_| ()),
        _ => return Err(call.refuse("self", "only numbers can be taken out of a tensor")),
    };
    let x = cx.tensor(call.value("self")?)?;
    let out = cx.item(x)?;
    if matches!(e, Expr::Int(_)) {
        return Ok(());
    }
    cx.know(e, out);
    Ok(())
}
