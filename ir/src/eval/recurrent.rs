//! Recurrent layers.

use super::call::{Call, Results, many};
use super::functions::{relu, sigmoid};
use super::joins::{cat_of, stack_of};
use super::matrix::linear_of;
use super::pointwise::{map, zip};
use super::tensor::Tensor;
use super::views::flipped;
use super::{Error, bad};

/// The kinds of layers.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Lstm,
    Gru,
    Tanh,
    Relu,
}

/// Weights of one layer in one direction.
struct Weights {
    input: Tensor,
    hidden: Tensor,
    biases: Option<[Tensor; 2]>,
    /// Makes the state that is handed on smaller.
    projection: Option<Tensor>,
}

fn apply(t: &Tensor, f: fn(f64) -> f64) -> Result<Tensor, Error> {
    map(t, t.dtype(), f)
}

fn join(a: &Tensor, b: &Tensor, f: fn(f64, f64) -> f64) -> Result<Tensor, Error> {
    zip(a.dtype(), a.dtype(), a, b, f)
}

/// Equal parts of the last dimension.
fn parts(t: &Tensor, n: usize) -> Result<Vec<Tensor>, Error> {
    let axis = t.nth_last(1)?;
    let size = t.size(axis) / n;
    (0..n).map(|i| t.slice(axis, i * size, size, 1)).collect()
}

/// One step: from the input and the states `[batch, hidden]` the new states.
fn step(kind: Kind, x: &Tensor, state: &[Tensor], w: &Weights) -> Result<Vec<Tensor>, Error> {
    let [h, ..] = state else { return Err(bad("no state")) };
    let bias = |i: usize| w.biases.as_ref().and_then(|b| b.get(i));
    let (from_x, from_h) = (linear_of(x, &w.input, bias(0))?, linear_of(h, &w.hidden, bias(1))?);
    let sum = |a: &Tensor, b: &Tensor| join(a, b, |a, b| a + b);
    Ok(match kind {
        Kind::Tanh => vec![apply(&sum(&from_x, &from_h)?, f64::tanh)?],
        Kind::Relu => vec![apply(&sum(&from_x, &from_h)?, relu)?],
        Kind::Lstm => {
            let ([_, c], gates) = (state, parts(&sum(&from_x, &from_h)?, 4)?) else { return Err(bad("an LSTM has two states")) };
            let [i, f, g, o] = gates.as_slice() else { return Err(bad("four gates")) };
            let kept = join(&apply(f, sigmoid)?, c, |f, c| f * c)?;
            let new = join(&apply(i, sigmoid)?, &apply(g, f64::tanh)?, |i, g| i * g)?;
            let c = sum(&kept, &new)?;
            let h = join(&apply(o, sigmoid)?, &apply(&c, f64::tanh)?, |o, c| o * c)?;
            vec![if let Some(p) = &w.projection { linear_of(&h, p, None)? } else { h }, c]
        }
        Kind::Gru => {
            let (x, y) = (parts(&from_x, 3)?, parts(&from_h, 3)?);
            let ([xr, xz, xn], [hr, hz, hn]) = (x.as_slice(), y.as_slice()) else { return Err(bad("three gates")) };
            let (r, z) = (apply(&sum(xr, hr)?, sigmoid)?, apply(&sum(xz, hz)?, sigmoid)?);
            let n = apply(&sum(xn, &join(&r, hn, |r, h| r * h)?)?, f64::tanh)?;
            // (h - n) z + n
            vec![sum(&join(&join(h, &n, |h, n| h - n)?, &z, |d, z| d * z)?, &n)?]
        }
    })
}

/// The states given: one tensor, or one of each kind in a list.
fn states(c: &Call) -> Result<Vec<Tensor>, Error> {
    match c.arg("hx").and_then(super::call::Argument::as_list) {
        Some(_) => c.tensors("hx"),
        None => Ok(vec![c.tensor("hx")?]),
    }
}

/// `lstm.input` and its kin: outputs of all steps, then the last states.
pub(super) fn layers(c: &Call, kind: Kind) -> Results {
    if c.flag("train") && c.float("dropout")? > 0.0 {
        return Err(bad("dropout in training draws random numbers"));
    }
    let (mut x, given) = (c.first()?, states(c)?);
    let unbatched = x.rank() == 2;
    let batch_first = c.flag("batch_first") && !unbatched;
    let given: Vec<Tensor> = if unbatched { given.iter().map(|s| s.unsqueeze(1)).collect::<Result<_, _>>()? } else { given };
    if unbatched {
        x = x.unsqueeze(1)?;
    }
    if batch_first {
        x = x.transpose(0, 1)?;
    }
    let directions = if c.flag("bidirectional") { 2 } else { 1 };
    let (biases, depth) = (c.flag("has_biases"), c.size("num_layers")?);
    let weights = c.tensors("params")?;
    let plain = if biases { 4 } else { 2 };
    let projected = weights.len() == (plain + 1) * directions * depth;
    let each = plain + usize::from(projected);
    let mut last: Vec<Vec<Tensor>> = vec![Vec::new(); given.len()];
    for layer in 0..depth {
        let mut sides = Vec::new();
        for direction in 0..directions {
            let at = layer * directions + direction;
            let w = match weights.get(at * each..(at + 1) * each) {
                Some([i, h, rest @ ..]) => Weights {
                    input: i.clone(),
                    hidden: h.clone(),
                    biases: if let ([a, b, ..], true) = (rest, biases) { Some([a.clone(), b.clone()]) } else { None },
                    projection: rest.last().filter(|_| projected).cloned(),
                },
                _ => return Err(bad(format!("{} weights for {depth} layers", weights.len()))),
            };
            let mut state = given.iter().map(|s| s.select(0, at)).collect::<Result<Vec<_>, _>>()?;
            let input = if direction == 1 { flipped(&x, &[0])? } else { x.clone() };
            let mut outputs = Vec::new();
            for t in 0..input.size(0) {
                state = step(kind, &input.select(0, t)?, &state, &w)?;
                outputs.extend(state.first().cloned());
            }
            let all = stack_of(&outputs, 0)?;
            sides.push(if direction == 1 { flipped(&all, &[0])? } else { all });
            for (list, s) in last.iter_mut().zip(state) {
                list.push(s);
            }
        }
        x = cat_of(&sides, 2)?;
    }
    if batch_first {
        x = x.transpose(0, 1)?.copy()?;
    }
    let mut results = vec![if unbatched { x.squeeze(1)? } else { x }];
    for list in last {
        let all = stack_of(&list, 0)?;
        results.push(if unbatched { all.squeeze(1)? } else { all });
    }
    many(results)
}

/// One step by itself.
pub(super) fn cell(c: &Call, kind: Kind) -> Results {
    let biases = match (c.maybe_tensor("b_ih")?, c.maybe_tensor("b_hh")?) {
        (Some(a), Some(b)) => Some([a, b]),
        _ => None,
    };
    many(step(kind, &c.first()?, &states(c)?, &Weights { input: c.tensor("w_ih")?, hidden: c.tensor("w_hh")?, biases, projection: None })?)
}
