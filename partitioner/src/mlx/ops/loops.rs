//! Loops over the first axis of tensors, whose length may be known only at run time.

use etx_ir::graph::{Arg, Graph, ValueId, is_short};
use etx_ir::sym::{Dim, Expr};
use etx_mlx::{Instr, Tid};

use super::super::call::{Call, Res, describe};
use super::super::cx::{Cx, Given};
use super::Operator;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("higher_order.scan", |cx, call| scan(cx, call, "combine_graph"), SCAN).when(WHEN),
    Operator::new("higher_order.map", |cx, call| scan(cx, call, "body_graph"), SCAN).when(WHEN),
    Operator::new("higher_order.map_impl", |cx, call| scan(cx, call, "body_graph"), SCAN).when(WHEN),
];

const SCAN: &str = "Scan over what the body becomes; If where the length may be 0; short loops are written out";
const WHEN: &str = "bodies with a call that is refused, or that carry or return numbers";

/// `ys[i], carry = f(carry, xs[i])`; without a carry, a map. Source: torch's higher-order operators, documentation of scan.
fn scan<'a>(cx: &mut Cx<'a>, call: Call<'a>, body: &str) -> Res {
    let Arg::Graph(body) = call.arg(body) else { return Err(Refusal::new("there is no body")) };
    let body: &'a Graph = body;
    let listed = |name: &str| -> Res<Vec<ValueId>> { if call.is_none(name) { Ok(Vec::new()) } else { call.values(name) } };
    let (init, xs) = (listed("init")?, listed("xs")?);
    let length = length(&call, &xs)?;
    let calls = body.len() + xs.len();
    if length.as_int().is_some_and(|n| is_short(n, calls)) {
        return Err(Refusal::new("so short a loop is better written out").of_operator());
    }
    let given: Vec<&Arg> = call.arg("additional").as_list().unwrap_or(&[]).iter().collect();
    let additional = given
        .into_iter()
        .map(|a| {
            let v = a.as_value().ok_or_else(|| call.refuse("additional", "must be values"))?;
            match call.graph.tensor(v) {
                Some(_) => cx.tensor(v).map(drop)?,
                None => cx.depends(v),
            }
            Ok(Given::Outer(v))
        })
        .collect::<Res<Vec<_>>>()?;
    cx.foresee(body);

    let mut carry = Vec::new();
    for &v in &init {
        let x = cx.tensor(v)?;
        let dtype = call.graph.tensor(v).ok_or_else(|| call.refuse("init", "must be tensors"))?.dtype;
        let x = cx.cast(x, dtype)?;
        let slot = cx.fresh_of(dtype);
        cx.push(Instr::IdCopy { x, out: slot });
        carry.push(slot);
    }
    let originals = xs.iter().map(|&v| cx.tensor(v)).collect::<Res<Vec<Tid>>>()?;
    let sliced: Vec<Tid> = originals.iter().map(|&x| cx.fresh_of(cx.dtype(x))).collect();
    // Of what each round gives, only what something reads is kept.
    let made: Vec<usize> = (init.len()..call.node.outputs.len()).collect();
    let mut outputs = Vec::new();
    for &i in &made {
        let dtype = call.out_ty(i)?.dtype;
        outputs.push(call.is_used(i).then(|| cx.fresh_of(dtype)));
    }
    let rounds = cx.int(&length)?;
    let rounds = if cx.may_be_zero(&length) { rounds } else { 1.into() };
    let (slots, ys) = (&carry, &outputs);
    cx.choose(
        rounds,
        |cx| {
            let chain = cx.in_chain(|cx| {
                let given: Vec<Given> = slots.iter().chain(&sliced).map(|&t| Given::Slot(t)).chain(additional).collect();
                let results = cx.in_body(body, &given)?;
                round(cx, &results, slots, ys)
            })?;
            cx.push(Instr::Scan {
                originals: originals.clone(),
                sliced,
                outputs: ys.iter().flatten().copied().collect(),
                carry: slots.clone(),
                body_chain_idx: i32::try_from(chain).map_err(|_| Refusal::new("too many loops"))?,
                scan_axis: 0,
            });
            Ok(())
        },
        |cx| {
            // No rounds: the carry stays as it is, and there is nothing of the rest, as there is nothing of what is gone over.
            for (&i, y) in made.iter().zip(ys) {
                let (Some(out), Some(&x)) = (*y, originals.first()) else { continue };
                let shape = cx.dims(&call.out_ty(i)?.shape)?;
                let empty = cx.temp(|out| Instr::Reshape { x, out, shape });
                let scalar_type = cx.dtype(out);
                cx.push(Instr::AsType { x: empty, out, scalar_type });
            }
            Ok(())
        },
    )?;
    for (i, slot) in carry.into_iter().map(Some).chain(outputs).enumerate() {
        if let Some(slot) = slot {
            cx.bind(call.out(i)?, slot)?;
        }
    }
    Ok(())
}

/// Leaves the results of a round where the next one, and the loop, look for them.
fn round(cx: &mut Cx<'_>, results: &[Tid], carry: &[Tid], outputs: &[Option<Tid>]) -> Res {
    if results.len() != carry.len() + outputs.len() {
        return Err(Refusal::new(format!("its body returns {} values where {} are expected", results.len(), carry.len() + outputs.len())));
    }
    let (next, made) = results.split_at(carry.len());
    for (&x, out) in made.iter().zip(outputs) {
        if let &Some(out) = out {
            let x = cx.cast(x, cx.dtype(out))?;
            cx.push(Instr::IdCopy { x, out });
        }
    }
    // What is handed on to another place is read before that is written.
    let mut moves = Vec::new();
    for (&x, &out) in next.iter().zip(carry) {
        let x = cx.cast(x, cx.dtype(out))?;
        if x != out {
            let x = if carry.contains(&x) { cx.temp(|out| Instr::IdCopy { x, out }) } else { x };
            moves.push((x, out));
        }
    }
    for (x, out) in moves {
        cx.push(Instr::IdCopy { x, out });
    }
    Ok(())
}

/// The length of what is gone over.
fn length(call: &Call<'_>, xs: &[ValueId]) -> Res<Dim> {
    let mut length: Option<Expr> = None;
    for &v in xs {
        let n = call.graph.tensor(v).and_then(|t| t.shape.first()).cloned();
        let n = n.ok_or_else(|| Refusal::new(format!("{} has no first axis to go over", describe(call.graph, v))))?;
        length.get_or_insert(n);
    }
    length.ok_or_else(|| call.refuse("xs", "there is nothing to go over"))
}
