//! Integers that are computed while the program runs: sizes, positions, and arithmetic on them.
//!
//! A symbolic integer is what its type says it is. An instruction computes it when another one needs it, and only once,
//! so the nodes that made it emit nothing themselves.

use etx_ir::graph::Type;
use etx_ir::sym::Expr;

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.sym_size.int", derived, "SymSize"),
    Operator::new("aten.sym_numel.default", derived, "SymSize, MultiplyInt"),
    Operator::new("_operator.add", derived, "AddInt"),
    Operator::new("_operator.sub", derived, "MultiplyInt, AddInt"),
    Operator::new("_operator.mul", derived, "MultiplyInt"),
    Operator::new("_operator.floordiv", derived, "FloorDivideInt"),
    Operator::new("_operator.mod", derived, "ModInt"),
    Operator::new("_operator.neg", derived, "MultiplyInt"),
    Operator::new("aten.item.default", item, "ItemInt").when("the result is not an integer"),
    Operator::new("aten._local_scalar_dense.default", item, "ItemInt").when("the result is not an integer"),
];

fn derived<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    match call.graph.ty(call.out(0)?) {
        // Computed to see whether it can be; what nothing reads is dropped at the end.
        Type::Int(e) => cx.int(e).map(|_| ()),
        _ => Err(Refusal::new("only integers are computed inside MLX programs")),
    }
}

fn item<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let v = call.out(0)?;
    let Type::Int(e) = call.graph.ty(v) else {
        return Err(call.refuse("self", "only integers can be taken out of a tensor"));
    };
    let ty = call.ty("self")?;
    if !ty.dtype.is_int() {
        return Err(call.refuse("self", "only integers can be taken out of a tensor"));
    }
    let x = cx.tensor(call.value("self")?)?;
    let out = cx.item(x)?;
    if matches!(e, Expr::Int(_)) {
        return Ok(());
    }
    cx.know(e, out);
    Ok(())
}
