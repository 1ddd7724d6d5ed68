//! Recurrences: a scan over time in instructions that run everywhere, and over chunks of it where there is much of it.

mod chunks;
mod layers;

use etx_ir::sym::{Dim, Expr};
use etx_mlx::{Instr, IntOrVid, Tid};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;
use layers::Cell;

/// A cell by what happens in a step.
macro_rules! cell {
    ($target:literal => $cell:ident) => {
        Operator::new($target, |cx, call| layers::one_cell(cx, call, Cell::$cell), "Addmm, Add, Multiply, Sigmoid, Tanh")
    };
}

/// Layers of cells.
macro_rules! layers {
    ($target:literal => $cell:ident) => {
        Operator::new(
            $target,
            |cx, call| layers::layers(cx, call, Cell::$cell),
            "Addmm, and for each layer and direction a Scan over Addmm, Add, Multiply, Sigmoid, Tanh",
        )
        .when("dropout in training")
    };
}

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new(
        "mlx.gated_delta_rule.default_functional",
        gated_delta_rule,
        "Scan over Multiply, Sum, Subtract, Add; for long inputs, Scans over chunks of 64 steps in Addmm; If where the length is symbolic",
    )
    .when("head counts that do not divide"),
    Operator::new("llama.gated_delta_rule.default", llama_delta_rule, LLAMA_RULE).when("head counts that do not divide"),
    Operator::new("llama.channelwise_gated_delta_rule.default", llama_delta_rule, LLAMA_RULE).when("head counts that do not divide"),
    layers!("aten.lstm.input" => Lstm),
    layers!("aten.gru.input" => Gru),
    layers!("aten.rnn_tanh.input" => Tanh),
    layers!("aten.rnn_relu.input" => Relu),
    cell!("aten.lstm_cell.default" => Lstm),
    cell!("aten.gru_cell.default" => Gru),
    cell!("aten.rnn_tanh_cell.default" => Tanh),
    cell!("aten.rnn_relu_cell.default" => Relu),
];

const LLAMA_RULE: &str = "Transpose, and as mlx.gated_delta_rule; step by step where each key decays by itself";

/// From how many steps on the chunked form is the better one: it costs some hundred and fifty launches and five a chunk, the
/// other nine a step, or thirteen of halves.
const LONG: i64 = 24;

/// A gated delta rule with as many heads of queries and keys as of values.
///
/// With state `S` of `[batch, heads, value size, key size]`, for each step
/// `S ← S·g`, `S ← S + (v − S·k)·β ⊗ k`, `y = S·q`. Source: the operator's eager definition in ExecuTorch.
struct Rule {
    /// `[batch, time, heads, size]`
    q: Tid,
    k: Tid,
    v: Tid,
    /// `[batch, time, heads]`; where each key decays by itself, `[batch, time, heads, key size]`.
    g: Tid,
    by_key: bool,
    beta: Tid,
    state: Tid,
}

/// Where the results go.
#[derive(Clone, Copy)]
struct Results {
    /// `[batch, time, heads, value size]`
    y: Tid,
    state: Tid,
}

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
    let rule = Rule { q, k, v, g, by_key: false, beta, state };
    // What torch computes in.
    let dtype = call.common_type(&["q", "k", "v", "g", "beta", "state"])?;
    let to = Results { y: cx.fresh_of(dtype), state: cx.fresh_of(dtype) };
    run(cx, &rule, &vt.shape, &qt.shape[3], to)?;
    cx.bind(call.out(0)?, to.y)?;
    cx.bind(call.out(1)?, to.state)
}

/// The rule in the form that suits the length; `shape` is `[batch, time, heads, value size]`.
fn run(cx: &mut Cx<'_>, rule: &Rule, shape: &[Dim], key_size: &Dim, to: Results) -> Res {
    let time = &shape[1];
    let bounds = cx.method.ranges.bounds(time);
    let long = match (bounds.min, bounds.max) {
        _ if rule.by_key => 0.into(),
        (Some(min), _) if min >= LONG => 1.into(),
        // Inputs of a chunk at most are not worth the room that the other form takes in the file.
        (_, Some(max)) if max <= chunks::CHUNK => 0.into(),
        _ => cx.int(&time.floor_div(&Expr::Int(LONG)))?,
    };
    cx.choose(long, |cx| chunks::chunked(cx, rule, shape, key_size, to), |cx| by_step(cx, rule, to))
}

/// The rule with heads before time, a state of `[batch, heads, key size, value size]`, and several heads of queries to each state.
fn llama_delta_rule<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let (qt, vt, by_key) = (call.ty("query")?, call.ty("value")?, call.ty("decay")?.rank() == 4);
    let [batch, heads, time, key_size] = &qt.shape[..] else {
        return Err(call.refuse("query", "must be [batch, heads, time, size]"));
    };
    let [_, states, _, width] = &vt.shape[..] else { return Err(call.refuse("value", "must be [batch, heads, time, size]")) };
    let known = |e: &Expr, name: &str| e.as_int().filter(|&n| n > 0).ok_or_else(|| call.refuse(name, "the number of heads must be known"));
    let (many, few) = (known(heads, "query")?, known(states, "value")?);
    if many % few != 0 {
        return Err(call.refuse("query", "the number of query heads must be a multiple of that of value heads"));
    }
    let each = many / few;
    let mut part = |name: &str, perm: &[i32], heads: i32| -> Res<Tid> {
        let x = cx.tensor(call.value(name)?)?;
        let x = cx.temp(|out| Instr::Transpose { x, out, perm: perm.to_vec() });
        let spread = each > 1 && name != "query";
        Ok(if spread { cx.temp(|out| Instr::Repeat { x, out, repeats: IntOrVid::Int(each), axis: heads }) } else { x })
    };
    let (of_step, of_key): (&[i32], &[i32]) = (&[0, 2, 1], &[0, 2, 1, 3]);
    let rule = Rule {
        q: part("query", of_key, 2)?,
        k: part("key", of_key, 2)?,
        v: part("value", of_key, 2)?,
        g: part("decay", if by_key { of_key } else { of_step }, 2)?,
        by_key,
        beta: part("beta", of_step, 2)?,
        state: part("initial_state", &[0, 1, 3, 2], 1)?,
    };
    let to = Results { y: cx.fresh_of(vt.dtype), state: cx.fresh_of(vt.dtype) };
    run(cx, &rule, &[batch.clone(), time.clone(), heads.clone(), width.clone()], key_size, to)?;
    cx.define(call.out(0)?, |out| Instr::Transpose { x: to.y, out, perm: of_key.to_vec() })?;
    let mut state = to.state;
    if each > 1 {
        let (whole, step) = (state, i32::try_from(each).map_err(|_| call.refuse("query", "too many heads"))?);
        state = cx.temp(|out| Instr::Slice { x: whole, out, axis: 1.into(), start: 0.into(), stop: many.into(), step });
    }
    cx.define(call.out(1)?, |out| Instr::Transpose { x: state, out, perm: vec![0, 1, 3, 2] })
}

/// One step of the rule after the other.
fn by_step(cx: &mut Cx<'_>, rule: &Rule, to: Results) -> Res {
    // Shapes that meet the state's, made once for all steps.
    let mut expanded = |x: Tid, axes: &[i32]| axes.iter().fold(x, |x, &axis| cx.temp(|out| Instr::ExpandDims { x, out, axis }));
    let originals = [
        expanded(rule.q, &[3]),
        expanded(rule.k, &[3]),
        expanded(rule.v, &[4]),
        expanded(rule.g, if rule.by_key { &[3] } else { &[3, 4] }),
        expanded(rule.beta, &[3, 4]),
    ];
    let s = to.state;
    copy(cx, rule.state, s);
    let sliced @ [q, k, v, g, beta] = originals.each_ref().map(|&x| cx.fresh_of(cx.dtype(x)));
    let body = cx.in_chain(|cx| {
        let decayed = cx.temp(|out| Instr::Multiply { a: s, b: g, out });
        let seen = cx.temp(|out| Instr::Multiply { a: decayed, b: k, out });
        let dtype = cx.dtype(seen);
        // Halves are added up in singles, as in every sum of torch: MLX would round at every step.
        let seen = cx.widened(seen)?;
        let seen = cx.temp(|out| Instr::Sum { x: seen, out, axes: Some(vec![-1]), keepdims: true });
        let seen = cx.cast(seen, dtype)?;
        let missing = cx.temp(|out| Instr::Subtract { a: v, b: seen, out });
        let delta = cx.temp(|out| Instr::Multiply { a: missing, b: beta, out });
        let change = cx.temp(|out| Instr::Multiply { a: delta, b: k, out });
        cx.push(Instr::Add { a: decayed, b: change, out: s });
        let read = cx.temp(|out| Instr::Multiply { a: s, b: q, out });
        let read = cx.widened(read)?;
        if cx.dtype(read) == cx.dtype(to.y) {
            cx.push(Instr::Sum { x: read, out: to.y, axes: Some(vec![-1]), keepdims: false });
        } else {
            let y = cx.temp(|out| Instr::Sum { x: read, out, axes: Some(vec![-1]), keepdims: false });
            copy(cx, y, to.y);
        }
        Ok(())
    })?;
    cx.push(Instr::Scan {
        originals: originals.to_vec(),
        sliced: sliced.to_vec(),
        outputs: vec![to.y],
        carry: vec![s],
        body_chain_idx: body as i32,
        scan_axis: 1,
    });
    Ok(())
}

/// Puts what slot `x` holds into slot `out`, in its type.
fn copy(cx: &mut Cx<'_>, x: Tid, out: Tid) {
    let scalar_type = cx.dtype(out);
    cx.push(if cx.dtype(x) == scalar_type { Instr::IdCopy { x, out } } else { Instr::AsType { x, out, scalar_type } });
}
