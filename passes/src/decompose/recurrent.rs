//! Recurrent layers, written out step by step.

use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::pen::Pen;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// Longer sequences stay as they are: every step is a dozen calls.
const MAX_STEPS: i64 = 2048;

/// What happens in a step.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Lstm,
    Gru,
    Tanh,
    Relu,
}

impl Cell {
    /// Blocks of rows in the weights.
    fn gates(self) -> i64 {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
            Cell::Tanh | Cell::Relu => 1,
        }
    }
}

/// Weights of one layer in one direction.
struct Layer {
    input: Arg,
    hidden: Arg,
    input_bias: Arg,
    hidden_bias: Arg,
    /// Of an LSTM whose output is smaller than its cell.
    projection: Option<Arg>,
}

/// `h`, and `c` of an LSTM.
#[derive(Clone)]
struct State {
    h: Arg,
    c: Option<Arg>,
}

impl Layer {
    fn of_input(&self, p: &mut Pen<'_, '_>, x: &Arg) -> std::result::Result<Arg, Error> {
        p.call(op!("aten.linear.default"), vec![x.clone(), self.input.clone(), self.input_bias.clone()])
    }

    /// The next state. `x` is what the input contributes to the gates.
    ///
    /// LSTM: `c' = σ(f)·c + σ(i)·tanh(g)`, `h' = σ(o)·tanh(c')`, gates in the order i, f, g, o.
    /// GRU: `n' = tanh(nₓ + σ(r)·nₕ)`, `h' = (h - n')·σ(z) + n'`, gates in the order r, z, n.
    /// Source: torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN.
    fn step(&self, p: &mut Pen<'_, '_>, cell: Cell, x: &Arg, state: &State) -> std::result::Result<Option<State>, Error> {
        let by_state = p.call(op!("aten.linear.default"), vec![state.h.clone(), self.hidden.clone(), self.hidden_bias.clone()])?;
        let t = p.ty(&by_state)?;
        let last = t.rank().saturating_sub(1);
        let Some(rows) = t.shape.last().and_then(Dim::as_int) else { return Ok(None) };
        let size = rows / cell.gates();
        let gate = |p: &mut Pen<'_, '_>, of: &Arg, i: i64| p.slice(of, last, Arg::Int(i * size), Arg::Int((i + 1) * size));
        Ok(Some(match cell {
            Cell::Lstm => {
                let Some(c) = &state.c else { return Ok(None) };
                let all = p.add(x, &by_state)?;
                let i = gate(p, &all, 0)?;
                let i = p.sigmoid(&i)?;
                let f = gate(p, &all, 1)?;
                let f = p.sigmoid(&f)?;
                let g = gate(p, &all, 2)?;
                let g = p.tanh(&g)?;
                let o = gate(p, &all, 3)?;
                let o = p.sigmoid(&o)?;
                let kept = p.mul(&f, c)?;
                let new = p.mul(&i, &g)?;
                let c = p.add(&kept, &new)?;
                let shown = p.tanh(&c)?;
                let mut h = p.mul(&o, &shown)?;
                if let Some(w) = &self.projection {
                    h = p.call(op!("aten.linear.default"), vec![h, w.clone()])?;
                }
                State { h, c: Some(c) }
            }
            Cell::Gru => {
                let both = |p: &mut Pen<'_, '_>, i: i64| {
                    let (a, b) = (gate(p, x, i)?, gate(p, &by_state, i)?);
                    let sum = p.add(&a, &b)?;
                    p.sigmoid(&sum)
                };
                let (r, z) = (both(p, 0)?, both(p, 1)?);
                let own = gate(p, &by_state, 2)?;
                let reset = p.mul(&r, &own)?;
                let fresh = gate(p, x, 2)?;
                let sum = p.add(&fresh, &reset)?;
                let n = p.tanh(&sum)?;
                let way = p.sub(&state.h, &n)?;
                let part = p.mul(&way, &z)?;
                State { h: p.add(&part, &n)?, c: None }
            }
            Cell::Tanh | Cell::Relu => {
                let sum = p.add(x, &by_state)?;
                let h = if cell == Cell::Tanh { p.tanh(&sum)? } else { p.call(op!("aten.relu.default"), vec![sum])? };
                State { h, c: None }
            }
        }))
    }
}

/// A layer over a sequence of known length. Source: torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN.
fn over_time(site: &mut Site<'_>, cell: Cell) -> Result {
    let flag = |name: &str| site.arg(name).as_bool() == Some(true);
    let (biases, both_ways, batch_first) = (flag("has_biases"), flag("bidirectional"), flag("batch_first"));
    // What dropout leaves out is random.
    let random = flag("train") && site.arg("dropout").as_float() != Some(0.0);
    let Some(layers) = site.arg("num_layers").as_int().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0) else { return Ok(None) };
    let Some(params) = site.arg("params").as_list().map(<[Arg]>::to_vec) else { return Ok(None) };
    let states = match (cell, site.nth(1)) {
        (Cell::Lstm, Arg::List(list)) => list.clone(),
        (Cell::Lstm, _) => return Ok(None),
        (_, h) => vec![h.clone()],
    };
    let (Some(t), Some(first)) = (site.operand(0).cloned(), states.first().cloned()) else { return Ok(None) };
    let time = usize::from(batch_first);
    let steps = t.shape.get(time).and_then(Dim::as_int).filter(|n| (1..=MAX_STEPS).contains(n));
    let Some(steps) = steps.filter(|_| t.rank() == 3 && !random) else { return Ok(None) };
    let ways = if both_ways { 2 } else { 1 };
    let plain = if biases { 4 } else { 2 };
    let each = params.len() / (layers * ways);
    if each * layers * ways != params.len() || !(each == plain || each == plain + 1 && cell == Cell::Lstm) {
        return Ok(None);
    }
    let mut p = Pen(site);
    let mut x = p.0.nth(0).clone();
    if batch_first {
        x = p.permute(&x, &[1, 0, 2])?;
    }
    let mut ends: Vec<State> = Vec::new();
    for (l, weights) in params.chunks(each * ways).enumerate() {
        let mut sides = Vec::new();
        for (way, w) in weights.chunks(each).enumerate() {
            let get = |i: usize| w.get(i).cloned().unwrap_or(Arg::None);
            let bias = |i: usize| if biases { get(i) } else { Arg::None };
            let layer =
                Layer { input: get(0), hidden: get(1), input_bias: bias(2), hidden_bias: bias(3), projection: w.get(plain).cloned() };
            // One product for the inputs of all steps.
            let gates = layer.of_input(&mut p, &x)?;
            let at = (l * ways + way) as i64;
            let h = p.slice(&first, 0, Arg::Int(at), Arg::Int(at + 1))?;
            let c = match states.get(1) {
                Some(c) => Some(p.slice(c, 0, Arg::Int(at), Arg::Int(at + 1))?),
                None => None,
            };
            let mut state = State { h, c };
            let mut seen = Vec::new();
            for i in 0..steps {
                let i = if way == 1 { steps - 1 - i } else { i };
                let now = if steps == 1 { gates.clone() } else { p.slice(&gates, 0, Arg::Int(i), Arg::Int(i + 1))? };
                let Some(next) = layer.step(&mut p, cell, &now, &state)? else { return Ok(None) };
                state = next;
                seen.push(state.h.clone());
            }
            if way == 1 {
                seen.reverse();
            }
            sides.push(joined(&mut p, seen, 0)?);
            ends.push(state);
        }
        x = joined(&mut p, sides, 2)?;
    }
    if batch_first {
        x = p.permute(&x, &[1, 0, 2])?;
    }
    let mut results = vec![x];
    results.push(joined(&mut p, ends.iter().map(|s| s.h.clone()).collect(), 0)?);
    let cells: Vec<Arg> = ends.into_iter().filter_map(|s| s.c).collect();
    if !cells.is_empty() {
        results.push(joined(&mut p, cells, 0)?);
    }
    Ok(Some(Patch::Values(results)))
}

fn joined(p: &mut Pen<'_, '_>, parts: Vec<Arg>, dim: i64) -> std::result::Result<Arg, Error> {
    match parts.as_slice() {
        [one] => Ok(one.clone()),
        _ => p.call(op!("aten.cat.default"), vec![Arg::List(parts), Arg::Int(dim)]),
    }
}

/// One step. Source: torch.nn.LSTMCell, torch.nn.GRUCell, torch.nn.RNNCell.
fn one_step(site: &mut Site<'_>, cell: Cell) -> Result {
    let get = |name: &str| site.arg(name).clone();
    let layer = Layer { input: get("w_ih"), hidden: get("w_hh"), input_bias: get("b_ih"), hidden_bias: get("b_hh"), projection: None };
    let state = match (cell, site.nth(1)) {
        (Cell::Lstm, Arg::List(list)) => match list.as_slice() {
            [h, c] => State { h: h.clone(), c: Some(c.clone()) },
            _ => return Ok(None),
        },
        (Cell::Lstm, _) => return Ok(None),
        (_, h) => State { h: h.clone(), c: None },
    };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let gates = layer.of_input(&mut p, &x)?;
    let Some(next) = layer.step(&mut p, cell, &gates, &state)? else { return Ok(None) };
    Ok(Some(Patch::Values(std::iter::once(next.h).chain(next.c).collect())))
}

pub(super) fn lstm(site: &mut Site<'_>) -> Result {
    over_time(site, Cell::Lstm)
}

pub(super) fn gru(site: &mut Site<'_>) -> Result {
    over_time(site, Cell::Gru)
}

pub(super) fn rnn_tanh(site: &mut Site<'_>) -> Result {
    over_time(site, Cell::Tanh)
}

pub(super) fn rnn_relu(site: &mut Site<'_>) -> Result {
    over_time(site, Cell::Relu)
}

pub(super) fn lstm_cell(site: &mut Site<'_>) -> Result {
    one_step(site, Cell::Lstm)
}

pub(super) fn gru_cell(site: &mut Site<'_>) -> Result {
    one_step(site, Cell::Gru)
}

pub(super) fn rnn_tanh_cell(site: &mut Site<'_>) -> Result {
    one_step(site, Cell::Tanh)
}

pub(super) fn rnn_relu_cell(site: &mut Site<'_>) -> Result {
    one_step(site, Cell::Relu)
}
