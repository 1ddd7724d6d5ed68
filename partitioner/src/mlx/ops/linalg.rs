//! Matrix products.

use etx_mlx::{Instr, Tid};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;
use super::shape::transposed;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.linear.default", linear, "Transpose, Addmm, or QuantizedMatmul, Add").when("integers"),
    Operator::new("aten.addmm.default", addmm, "Addmm").when("integers"),
    Operator::new("aten.baddbmm.default", baddbmm, "Addmm").when("integers"),
    Operator::new("aten.mm.default", |cx, call| product(cx, call, "self", "mat2"), "Addmm").when("integers"),
    Operator::new("aten.bmm.default", |cx, call| product(cx, call, "self", "mat2"), "Addmm").when("integers"),
    Operator::new("aten.matmul.default", |cx, call| product(cx, call, "self", "other"), "Addmm").when("integers"),
    Operator::new("aten.mv.default", |cx, call| product(cx, call, "self", "vec"), "Addmm").when("integers"),
    Operator::new("aten.dot.default", |cx, call| product(cx, call, "self", "tensor"), "Addmm").when("integers"),
];

/// A factor; MLX multiplies matrices of floats only.
pub(super) fn factor<'a>(cx: &mut Cx<'a>, call: &Call<'a>, name: &str) -> Res<Tid> {
    if !call.ty(name)?.dtype.is_float() {
        return Err(call.refuse(name, "MLX multiplies matrices of floats only"));
    }
    cx.tensor(call.value(name)?)
}

/// `alpha * mat1 @ mat2 + beta * bias`
fn multiply(mat1: Tid, mat2: Tid, bias: Option<Tid>, alpha: f32, beta: f32) -> impl FnOnce(Tid) -> Instr {
    move |out| Instr::Addmm { mat1, mat2, out, bias, alpha, beta }
}

fn linear<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = factor(cx, &call, "input")?;
    if let Some(Ok(q)) = super::quant::dequantised(cx, &call, call.value("weight")?)
        && q.is_plain()
    {
        let mut y = q.product(cx, x, &call.ty("input")?.shape)?;
        if !call.is_none("bias") {
            let (a, b) = (y, factor(cx, &call, "bias")?);
            y = cx.temp(|out| Instr::Add { a, b, out });
        }
        return cx.bind(call.out(0)?, y);
    }
    let w = factor(cx, &call, "weight")?;
    let w = if call.ty("weight")?.rank() == 2 { transposed(cx, w, &[1, 0]) } else { w };
    let bias = if call.is_none("bias") { None } else { Some(factor(cx, &call, "bias")?) };
    cx.define(call.out(0)?, multiply(x, w, bias, 1.0, 1.0))
}

fn product<'a>(cx: &mut Cx<'a>, call: Call<'a>, a: &str, b: &str) -> Res {
    let (mat1, mat2) = (factor(cx, &call, a)?, factor(cx, &call, b)?);
    cx.define(call.out(0)?, multiply(mat1, mat2, None, 1.0, 1.0))
}

fn addmm<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    added(cx, call, "self", "mat1", "mat2")
}

fn baddbmm<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    added(cx, call, "self", "batch1", "batch2")
}

fn added<'a>(cx: &mut Cx<'a>, call: Call<'a>, bias: &str, a: &str, b: &str) -> Res {
    let (alpha, beta) = (call.float_or("alpha", 1.0)?, call.float_or("beta", 1.0)?);
    let (mat1, mat2) = (factor(cx, &call, a)?, factor(cx, &call, b)?);
    // What beta = 0 takes away, NaN included, is not read.
    let bias = if beta == 0.0 { None } else { Some(factor(cx, &call, bias)?) };
    if bias.is_none() && alpha != 1.0 {
        let t = cx.temp(multiply(mat1, mat2, None, 1.0, 1.0));
        let scale = cx.scalar(alpha, call.out_ty(0)?.dtype)?;
        return cx.define(call.out(0)?, |out| Instr::Multiply { a: t, b: scale, out });
    }
    cx.define(call.out(0)?, multiply(mat1, mat2, bias, alpha as f32, beta as f32))
}
