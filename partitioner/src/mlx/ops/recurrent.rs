//! Recurrences: a scan over time in instructions that run everywhere.

use etx_ir::mlx::{Instr, IntOrVid, Tid};
use etx_ir::sym::Expr;

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;

pub(super) const OPERATORS: &[Operator] =
    &[Operator::new("mlx.gated_delta_rule.default_functional", gated_delta_rule, "Scan over Multiply, Sum, Subtract, Add")
        .when("head counts that do not divide")];

/// The gated delta rule: with state `S` of `[batch, heads, value size, key size]`, for each step
/// `S ← S·g`, `S ← S + (v − S·k)·β ⊗ k`, `y = S·q`. Source: the operator's eager definition in ExecuTorch.
fn gated_delta_rule<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let (qt, vt) = (call.ty("q")?, call.ty("v")?);
    if qt.rank() != 4 || vt.rank() != 4 {
        return Err(call.refuse("q", "must be [batch, time, heads, size]"));
    }
    let heads = |e: &Expr, name: &str| e.as_int().filter(|&n| n > 0).ok_or_else(|| call.refuse(name, "the number of heads must be known"));
    let (few, many) = (heads(&qt.shape[2], "q")?, heads(&vt.shape[2], "v")?);
    if many % few != 0 {
        return Err(call.refuse("q", "the number of value heads must be a multiple of that of query heads"));
    }
    let mut part = |name: &str| cx.tensor(call.value(name)?);
    let (mut q, mut k, v) = (part("q")?, part("k")?, part("v")?);
    let (g, beta, state) = (part("g")?, part("beta")?, part("state")?);
    for x in [&mut q, &mut k] {
        let own = *x;
        if few != many {
            *x = cx.temp(|out| Instr::Repeat { x: own, out, repeats: IntOrVid::Int(many / few), axis: 2 });
        }
    }
    // Shapes that meet the state's, made once for all steps.
    let mut expanded = |x: Tid, axes: &[i32]| axes.iter().fold(x, |x, &axis| cx.temp(|out| Instr::ExpandDims { x, out, axis }));
    let (q, k, v) = (expanded(q, &[3]), expanded(k, &[3]), expanded(v, &[4]));
    let (g, beta) = (expanded(g, &[3, 4]), expanded(beta, &[3, 4]));
    let s = cx.temp(|out| Instr::IdCopy { x: state, out });
    let originals = vec![q, k, v, g, beta];
    let sliced: Vec<Tid> = originals.iter().map(|&x| cx.fresh_of(cx.dtype(x))).collect();
    let [q, k, v, g, beta] = sliced[..] else { return Err(call.refuse("q", "five sequences")) };
    let mut y = s;
    let body = cx.in_chain(|cx| {
        let decayed = cx.temp(|out| Instr::Multiply { a: s, b: g, out });
        let seen = cx.temp(|out| Instr::Multiply { a: decayed, b: k, out });
        let seen = cx.temp(|out| Instr::Sum { x: seen, out, axes: Some(vec![-1]), keepdims: true });
        let missing = cx.temp(|out| Instr::Subtract { a: v, b: seen, out });
        let delta = cx.temp(|out| Instr::Multiply { a: missing, b: beta, out });
        let change = cx.temp(|out| Instr::Multiply { a: delta, b: k, out });
        cx.push(Instr::Add { a: decayed, b: change, out: s });
        let read = cx.temp(|out| Instr::Multiply { a: s, b: q, out });
        y = cx.temp(|out| Instr::Sum { x: read, out, axes: Some(vec![-1]), keepdims: false });
        Ok(())
    })?;
    cx.push(Instr::Scan { originals, sliced, outputs: vec![y], carry: vec![s], body_chain_idx: body as i32, scan_axis: 1 });
    cx.bind(call.out(0)?, y)?;
    cx.bind(call.out(1)?, s)
}
