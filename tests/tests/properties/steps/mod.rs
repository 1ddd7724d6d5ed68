//! The calls that random programs are made of: one function a family.
//!
//! A step picks operands out of what is there, appends its calls, and says whether the result is exact if the operands are: whether
//! there is only one answer to the last bit. Inexact values are never compared, sorted, rounded or made integers, since a
//! difference in the last place would become one of 1.

mod arrange;
mod layers;
mod places;
mod pointwise;
mod reduce;
mod scalars;
mod writes;

use etx::ir::DType;
use etx::ir::graph::{Arg, TensorType, ValueId};
use etx::ir::sym::Expr;

use crate::make::{Fill, Known, Maker};

/// New values, and whether they are exact.
pub(crate) type Made = Option<(Vec<ValueId>, bool)>;

/// Tries to append calls.
pub(crate) type Step = fn(&mut Maker) -> Made;

/// All of them, with how often they come.
pub(crate) const STEPS: &[(usize, Step)] = &[
    (3, pointwise::function),
    (1, pointwise::activation),
    (2, pointwise::rounding),
    (4, pointwise::arithmetic),
    (2, pointwise::pair),
    (2, pointwise::division),
    (1, pointwise::power),
    (2, pointwise::comparison),
    (1, pointwise::test),
    (1, pointwise::logic),
    (2, pointwise::bits),
    (2, pointwise::choice),
    (2, pointwise::clamp),
    (1, pointwise::mixture),
    (3, pointwise::cast),
    (3, reduce::total),
    (2, reduce::extreme),
    (1, reduce::truth),
    (1, reduce::spread),
    (1, reduce::softmax),
    (2, reduce::running),
    (1, reduce::order),
    (1, reduce::length),
    (2, arrange::order),
    (2, arrange::reshape),
    (1, arrange::expand),
    (3, arrange::slice),
    (2, arrange::join),
    (2, arrange::pieces),
    (1, arrange::repeat),
    (1, arrange::roll),
    (1, arrange::triangle),
    (1, arrange::pad),
    (1, arrange::windows),
    (2, layers::product),
    (1, layers::added_product),
    (1, layers::linear),
    (2, layers::convolution),
    (1, layers::pool),
    (1, layers::resample),
    (2, layers::normalise),
    (1, layers::attention),
    (1, layers::recurrent),
    (2, places::gather),
    (2, places::index),
    (2, places::scatter),
    (1, places::put),
    (2, scalars::sized),
    (1, scalars::operand),
    (2, scalars::create),
    (2, writes::through_view),
    (1, writes::to_input),
];

/// One of the steps.
pub(crate) fn any_step(m: &mut Maker) -> Step {
    let all: usize = STEPS.iter().map(|(n, _)| n).sum();
    let mut at = m.rng.below(all);
    for (n, step) in STEPS {
        if at < *n {
            return *step;
        }
        at -= n;
    }
    pointwise::function
}

fn float(t: &TensorType) -> bool {
    t.dtype.is_float()
}

fn number(t: &TensorType) -> bool {
    t.dtype != DType::Bool
}

/// A value that fits; a new input where there is none.
fn operand(m: &mut Maker, fit: fn(&TensorType) -> bool) -> Known {
    match m.pick(|t, _| fit(t)) {
        Some(k) => k,
        None => {
            let shape = m.shape(3);
            Known { id: m.input(DType::Float32, shape, Fill::Any), exact: true }
        }
    }
}

/// A partner that broadcasts with a tensor: another of the pool, or a new input whose trailing sizes agree or are 1.
fn partner(m: &mut Maker, of: ValueId, dtype: DType) -> Known {
    let shape = m.ty(of).shape.clone();
    if m.rng.one_in(3)
        && let Some(k) = m.pick(|t, _| t.dtype == dtype && t.shape == shape)
    {
        return k;
    }
    let skip = m.rng.below(shape.len() + 1);
    let mut sizes: Vec<Expr> = shape.into_iter().skip(skip).collect();
    for n in &mut sizes {
        if m.rng.one_in(4) {
            *n = Expr::Int(1);
        }
    }
    if m.rng.one_in(8) {
        sizes.insert(0, Expr::Int(2));
    }
    Known { id: m.input(dtype, sizes, Fill::Any), exact: true }
}

/// A number to compute with; for integers mostly whole.
fn scalar(m: &mut Maker, dtype: DType) -> Arg {
    if m.rng.one_in(10) {
        return Arg::Bool(m.rng.one_in(2));
    }
    let whole = m.rng.of(&[-3i64, -1, 0, 1, 2, 3, 7]);
    if !dtype.is_float() && !m.rng.one_in(4) { Arg::Int(whole) } else { Arg::Float(whole as f64 + m.rng.of(&[0.0, 0.5, 0.25])) }
}

/// Some dimensions: one, several, all or none listed, counted from either end.
fn axes(m: &mut Maker, id: ValueId) -> Vec<i64> {
    let rank = m.ty(id).rank() as i64;
    let mut axes = Vec::new();
    for axis in 0..rank {
        if m.rng.one_in(2) {
            axes.push(if m.rng.one_in(2) { axis } else { axis - rank });
        }
    }
    axes
}
