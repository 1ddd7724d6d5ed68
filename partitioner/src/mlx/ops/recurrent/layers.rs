//! Layers of cells: one product for the inputs of all steps, then a scan over time a layer and direction.

use etx_ir::graph::ValueId;
use etx_ir::sym::Expr;
use etx_mlx::{Instr, Tid};

use super::super::super::call::{Call, Res};
use super::super::super::cx::Cx;
use super::super::linalg::factor;
use super::super::shape::transposed;
use crate::backend::Refusal;

/// What happens in a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    Lstm,
    Gru,
    Tanh,
    Relu,
}

impl Cell {
    /// Blocks of rows in the weights.
    const fn gates(self) -> i64 {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
            Cell::Tanh | Cell::Relu => 1,
        }
    }
}

/// Weights of one layer in one direction, transposed.
struct Weights {
    input: Tid,
    hidden: Tid,
    input_bias: Option<Tid>,
    hidden_bias: Option<Tid>,
    /// Of an LSTM whose output is smaller than its cell.
    projection: Option<Tid>,
    /// Numbers in a gate.
    size: i64,
}

/// Slots that a step reads and writes: the output, and the cell of an LSTM.
#[derive(Clone, Copy)]
struct State {
    h: Tid,
    c: Option<Tid>,
}

impl State {
    /// Slots for the state after this one.
    fn next(self, cx: &mut Cx<'_>) -> Self {
        let mut like = |t: Tid| cx.fresh_of(cx.dtype(t));
        Self { h: like(self.h), c: self.c.map(like) }
    }
}

/// All layers over a sequence. Source: torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN.
pub(super) fn layers<'a>(cx: &mut Cx<'a>, call: Call<'a>, cell: Cell) -> Res {
    let t = call.ty("input")?;
    if t.rank() != 3 {
        return Err(call.refuse("input", "must have three axes"));
    }
    if call.flag("train")? && call.float("dropout")? != 0.0 {
        return Err(call.refuse("dropout", "what it leaves out is random").remedy("export the model in evaluation mode"));
    }
    let time = usize::from(call.flag("batch_first")?);
    let one_step = t.shape.get(time).and_then(Expr::as_int) == Some(1);
    let ways = if call.flag("bidirectional")? { 2 } else { 1 };
    let number = usize::try_from(call.int("num_layers")?).unwrap_or(0);
    let params = call.values("params")?;
    let each = params.len() / (number * ways).max(1);
    let plain = if call.flag("has_biases")? { 4 } else { 2 };
    if each * number * ways != params.len() || !(each == plain || each == plain + 1 && cell == Cell::Lstm) {
        return Err(Refusal::new(format!("{} weights for {number} layers", params.len())));
    }
    let states = if cell == Cell::Lstm { call.values("hx")? } else { vec![call.value("hx")?] };
    let states = states.into_iter().map(|v| cx.tensor(v)).collect::<Res<Vec<_>>>()?;
    let mut x = factor(cx, &call, "input")?;
    let mut ends: Vec<State> = Vec::new();
    for layer in params.chunks(each.max(1) * ways) {
        let mut sides = Vec::new();
        for (way, weights) in layer.chunks(each).enumerate() {
            let bias = |at: usize| weights.get(at).copied().filter(|_| plain == 4);
            let values = [weights.first().copied(), weights.get(1).copied(), bias(2), bias(3), weights.get(plain).copied()];
            let weights = Weights::new(cx, &call, values, cell)?;
            let at = ends.len() as i64;
            let mut first = |x: Tid| cx.temp(|out| Instr::Take { x, out, index: at.into(), axis: 0 });
            let state = match states[..] {
                [h, c] => State { h: first(h), c: Some(first(c)) },
                [h] => State { h: first(h), c: None },
                _ => return Err(call.refuse("hx", "one state, or two of an LSTM")),
            };
            let (y, end) = over_time(cx, cell, &weights, x, state, Time { axis: time as i32, backwards: way == 1, one_step })?;
            sides.push(y);
            ends.push(end);
        }
        x = match sides[..] {
            [one] => one,
            _ => cx.temp(|out| Instr::Concatenate { tensors: sides, out, axis: 2 }),
        };
    }
    cx.bind(call.out(0)?, x)?;
    let mut stacked = |parts: Vec<Tid>| match parts[..] {
        [x] => cx.temp(|out| Instr::ExpandDims { x, out, axis: 0 }),
        _ => cx.temp(|out| Instr::Stack { tensors: parts, out, axis: 0 }),
    };
    let h = stacked(ends.iter().map(|s| s.h).collect());
    let c: Vec<Tid> = ends.iter().filter_map(|s| s.c).collect();
    let c = if c.is_empty() { None } else { Some(stacked(c)) };
    cx.bind(call.out(1)?, h)?;
    c.map_or(Ok(()), |c| cx.bind(call.out(2)?, c))
}

impl Weights {
    /// Of the input, of the state, the biases of both, and the projection, where there are.
    fn new<'a>(cx: &mut Cx<'a>, call: &Call<'a>, values: [Option<ValueId>; 5], cell: Cell) -> Res<Self> {
        let [input, hidden, input_bias, hidden_bias, projection] = values;
        let missing = || Refusal::new("a cell without weights");
        let (Some(input), Some(hidden)) = (input, hidden) else { return Err(missing()) };
        let rows = call.graph.tensor(hidden).and_then(|t| t.shape.first()?.as_int()).ok_or_else(missing)?;
        let matrix = |cx: &mut Cx<'a>, v: ValueId| -> Res<Tid> {
            let w = cx.tensor(v)?;
            Ok(transposed(cx, w, &[1, 0]))
        };
        Ok(Self {
            input: matrix(cx, input)?,
            hidden: matrix(cx, hidden)?,
            input_bias: input_bias.map(|v| cx.tensor(v)).transpose()?,
            hidden_bias: hidden_bias.map(|v| cx.tensor(v)).transpose()?,
            projection: projection.map(|v| matrix(cx, v)).transpose()?,
            size: rows / cell.gates(),
        })
    }
}

/// One step. Source: torch.nn.LSTMCell, torch.nn.GRUCell, torch.nn.RNNCell.
pub(super) fn one_cell<'a>(cx: &mut Cx<'a>, call: Call<'a>, cell: Cell) -> Res {
    let x = factor(cx, &call, "input")?;
    let values = ["w_ih", "w_hh", "b_ih", "b_hh"].map(|name| call.arg(name).as_value());
    let [input, hidden, input_bias, hidden_bias] = values;
    let weights = Weights::new(cx, &call, [input, hidden, input_bias, hidden_bias, None], cell)?;
    let state = match (cell, call.arg("hx").as_value()) {
        (Cell::Lstm, _) => match call.values("hx")?[..] {
            [h, c] => State { h: cx.tensor(h)?, c: Some(cx.tensor(c)?) },
            _ => return Err(call.refuse("hx", "an LSTM has two states")),
        },
        (_, Some(h)) => State { h: cx.tensor(h)?, c: None },
        _ => return Err(call.refuse("hx", "must be a tensor")),
    };
    let gates = product(cx, x, weights.input, weights.input_bias);
    let now = pieces(cx, cell, &weights, gates);
    let next = state.next(cx);
    step(cx, cell, &weights, &now, state, next)?;
    cx.bind(call.out(0)?, next.h)?;
    next.c.map_or(Ok(()), |c| cx.bind(call.out(1)?, c))
}

/// What the input contributes: of a GRU, what resets and updates is summed, what is new is not.
fn pieces(cx: &mut Cx<'_>, cell: Cell, weights: &Weights, gates: Tid) -> Vec<Tid> {
    if cell == Cell::Gru { split(cx, gates, &[2 * weights.size, weights.size]) } else { vec![gates] }
}

/// How a sequence runs.
struct Time {
    axis: i32,
    backwards: bool,
    one_step: bool,
}

/// One layer in one direction: its output, and the last state.
fn over_time(cx: &mut Cx<'_>, cell: Cell, weights: &Weights, x: Tid, state: State, time: Time) -> Res<(Tid, State)> {
    let turned = |cx: &mut Cx<'_>, x: Tid| {
        if time.backwards && !time.one_step { cx.temp(|out| Instr::Flip { x, out, axes: vec![time.axis] }) } else { x }
    };
    let gates = product(cx, x, weights.input, weights.input_bias);
    let gates = turned(cx, gates);
    let originals = pieces(cx, cell, weights, gates);
    if time.one_step {
        let now: Vec<Tid> = originals.iter().map(|&x| cx.temp(|out| Instr::Squeeze { x, out, dims: Some(vec![time.axis]) })).collect();
        let next = state.next(cx);
        step(cx, cell, weights, &now, state, next)?;
        return Ok((cx.temp(|out| Instr::ExpandDims { x: next.h, out, axis: time.axis }), next));
    }
    let sliced: Vec<Tid> = originals.iter().map(|&x| cx.fresh_of(cx.dtype(x))).collect();
    let y = cx.fresh_of(cx.dtype(gates));
    let body = cx.in_chain(|cx| {
        step(cx, cell, weights, &sliced, state, state)?;
        cx.push(Instr::IdCopy { x: state.h, out: y });
        Ok(())
    })?;
    cx.push(Instr::Scan {
        originals,
        sliced,
        outputs: vec![y],
        carry: std::iter::once(state.h).chain(state.c).collect(),
        body_chain_idx: body as i32,
        scan_axis: time.axis,
    });
    Ok((turned(cx, y), state))
}

/// The next state, into `to`, which may be where the last one is. `x` is what the input contributes to the gates.
///
/// LSTM: `c' = σ(f)·c + σ(i)·tanh(g)`, `h' = σ(o)·tanh(c')`, gates in the order i, f, g, o.
/// GRU: `n' = tanh(nₓ + σ(r)·nₕ)`, `h' = (h - n')·σ(z) + n'`, gates in the order r, z, n.
fn step(cx: &mut Cx<'_>, cell: Cell, weights: &Weights, x: &[Tid], from: State, to: State) -> Res {
    let h = from.h;
    let by_state = product(cx, h, weights.hidden, weights.hidden_bias);
    let n = weights.size;
    match (cell, x, from.c.zip(to.c)) {
        (Cell::Lstm, &[x], Some((c, new_c))) => {
            let all = cx.temp(|out| Instr::Add { a: x, b: by_state, out });
            let gates = split(cx, all, &[n, n, n, n]);
            let [i, f, g, o] = gates[..] else { return Err(Refusal::new("four gates")) };
            let [i, f, o] = [i, f, o].map(|x| cx.temp(|out| Instr::Sigmoid { x, out }));
            let g = cx.temp(|out| Instr::Tanh { x: g, out });
            let kept = cx.temp(|out| Instr::Multiply { a: f, b: c, out });
            let new = cx.temp(|out| Instr::Multiply { a: i, b: g, out });
            cx.push(Instr::Add { a: kept, b: new, out: new_c });
            let shown = cx.temp(|out| Instr::Tanh { x: new_c, out });
            match weights.projection {
                None => cx.push(Instr::Multiply { a: o, b: shown, out: to.h }),
                Some(mat2) => {
                    let mat1 = cx.temp(|out| Instr::Multiply { a: o, b: shown, out });
                    cx.push(Instr::Addmm { mat1, mat2, out: to.h, bias: None, alpha: 1.0, beta: 1.0 });
                }
            }
        }
        (Cell::Gru, &[both, fresh], None) => {
            let by_state = split(cx, by_state, &[2 * n, n]);
            let [by_both, own] = by_state[..] else { return Err(Refusal::new("three gates")) };
            let x = cx.temp(|out| Instr::Add { a: both, b: by_both, out });
            let x = cx.temp(|out| Instr::Sigmoid { x, out });
            let gates = split(cx, x, &[n, n]);
            let [r, z] = gates[..] else { return Err(Refusal::new("two gates")) };
            let reset = cx.temp(|out| Instr::Multiply { a: r, b: own, out });
            let x = cx.temp(|out| Instr::Add { a: fresh, b: reset, out });
            let new = cx.temp(|out| Instr::Tanh { x, out });
            let way = cx.temp(|out| Instr::Subtract { a: h, b: new, out });
            let part = cx.temp(|out| Instr::Multiply { a: way, b: z, out });
            cx.push(Instr::Add { a: part, b: new, out: to.h });
        }
        (Cell::Tanh, &[x], None) => {
            let x = cx.temp(|out| Instr::Add { a: x, b: by_state, out });
            cx.push(Instr::Tanh { x, out: to.h });
        }
        (Cell::Relu, &[x], None) => {
            let a = cx.temp(|out| Instr::Add { a: x, b: by_state, out });
            let b = cx.scalar(0.0, cx.dtype(a))?;
            cx.push(Instr::Maximum { a, b, out: to.h });
        }
        _ => return Err(Refusal::new("states that the cell does not have")),
    }
    Ok(())
}

fn product(cx: &mut Cx<'_>, mat1: Tid, mat2: Tid, bias: Option<Tid>) -> Tid {
    cx.temp(|out| Instr::Addmm { mat1, mat2, out, bias, alpha: 1.0, beta: 1.0 })
}

/// Pieces of the last axis.
fn split(cx: &mut Cx<'_>, x: Tid, sizes: &[i64]) -> Vec<Tid> {
    let outs: Vec<Tid> = sizes.iter().map(|_| cx.fresh_of(cx.dtype(x))).collect();
    cx.push(Instr::Split { x, outs: outs.clone(), sizes: sizes.iter().map(|&n| n.into()).collect(), axis: -1 });
    outs
}
