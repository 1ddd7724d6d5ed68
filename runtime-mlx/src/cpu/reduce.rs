//! Reductions, arg-extremes and cumulative sums (mlx-ops.md §4).
//!
//! All reductions are one walk: the operand is viewed with the reduced axes last, and a [`Fold`] eats them, either a run
//! of one result at a time, or, where neighbouring results lie closer together than neighbouring terms, one term of
//! many results at a time.

use bytemuck::{Pod, Zeroable};
use etx_ir::DType;

use super::binary::{Arithmetic, binary, select};
use super::dtype::{cast, dispatch, to_float};
use super::lanes::{CHUNK, Compute, Operand, buffer, for_parts};
use super::unary::unary;
use crate::engine::{Binary, Reduce, Unary};
use crate::error::{Error, Result};
use crate::tensor::{Bool, Elem, PARALLEL_BYTES, Tensor, normalise_axis};

/// Applies `op` over `axes` (all if none are given); `keepdims` leaves axes of length 1 in their place.
pub(crate) fn reduce(op: Reduce, x: &Tensor, axes: &[i32], keepdims: bool) -> Result<Tensor> {
    let plan = Plan::new(x, axes, keepdims)?;
    let summed = match x.dtype() {
        DType::Bool | DType::Int8 | DType::Int16 => DType::Int32,
        DType::UInt8 | DType::UInt16 => DType::UInt32,
        other => other,
    };
    match op {
        Reduce::Sum if summed == DType::Float32 => plan.fold::<f32, f32, _>(x, &SumFloats(1.0)),
        Reduce::Sum if summed.is_float() => {
            dispatch!(float, "Sum", summed, T => plan.fold::<T, T, _>(x, &Stepped(0.0, |a, b| T::rounded(a + b))))
        }
        Reduce::Sum => dispatch!(numeric, "Sum", summed, T => {
            plan.fold::<T, T, _>(&cast(x, summed)?, &Running(<T as Compute>::Acc::ZERO, Arithmetic::plus))
        }),
        Reduce::Prod if summed.is_float() && summed != DType::Float32 => {
            dispatch!(float, "Prod", summed, T => plan.fold::<T, T, _>(x, &Stepped(1.0, |a, b| T::rounded(a * b))))
        }
        Reduce::Prod => dispatch!(numeric, "Prod", summed, T => {
            plan.fold::<T, T, _>(&cast(x, summed)?, &Running(<T as Compute>::Acc::ONE, Arithmetic::times))
        }),
        Reduce::Mean if x.dtype() == DType::Float32 => plan.fold::<f32, f32, _>(x, &SumFloats(plan.terms as f64)),
        Reduce::Mean => {
            let part = cast(&Tensor::scalar((1.0 / plan.terms as f64) as f32)?, to_float(x.dtype()))?;
            binary(Binary::Multiply, &reduce(Reduce::Sum, x, axes, keepdims)?, &part)
        }
        Reduce::Max | Reduce::Min if plan.terms == 0 => {
            Err(Error::shape(format!("{} over no elements ({:?}, axes {axes:?}) has no value", op.name(), x.shape())))
        }
        Reduce::Max if x.dtype() == DType::Bool => reduce(Reduce::Any, x, axes, keepdims),
        Reduce::Min if x.dtype() == DType::Bool => reduce(Reduce::All, x, axes, keepdims),
        Reduce::Max => dispatch!(numeric, "Max", x.dtype(), T => {
            plan.fold::<T, T, _>(x, &Running(<T as Compute>::Acc::LOWEST, Arithmetic::larger))
        }),
        Reduce::Min => dispatch!(numeric, "Min", x.dtype(), T => {
            plan.fold::<T, T, _>(x, &Running(<T as Compute>::Acc::HIGHEST, Arithmetic::smaller))
        }),
        Reduce::Any => plan.fold::<Bool, Bool, _>(&cast(x, DType::Bool)?, &Running(Bool::from(false), Arithmetic::larger)),
        Reduce::All => plan.fold::<Bool, Bool, _>(&cast(x, DType::Bool)?, &Running(Bool::from(true), Arithmetic::smaller)),
        Reduce::LogSumExp => log_sum_exp(x, axes, keepdims),
        Reduce::Median => median(x, &plan),
    }
}

/// Variance over `axes`, or its square root; `ddof` is subtracted from the count, which does not become less than 0. Halves are rounded
/// at every step.
pub(crate) fn variance(x: &Tensor, axes: &[i32], keepdims: bool, ddof: i32, root: bool) -> Result<Tensor> {
    let plan = Plan::new(x, axes, keepdims)?;
    let mean = reduce(Reduce::Mean, x, axes, true)?;
    let squares = unary(Unary::Square, &binary(Binary::Subtract, x, &mean)?)?;
    let count = (plan.terms as f64 - f64::from(ddof)).max(0.0);
    let variance = if squares.dtype() == DType::Float32 {
        plan.fold::<f32, f32, _>(&squares, &SumFloats(count))?
    } else {
        let part = |x: f64| cast(&Tensor::scalar(x as f32)?, squares.dtype());
        let sum = reduce(Reduce::Sum, &squares, axes, keepdims)?;
        if ddof == 0 { binary(Binary::Multiply, &sum, &part(1.0 / count)?)? } else { binary(Binary::Divide, &sum, &part(count)?)? }
    };
    if root { unary(Unary::Sqrt, &variance) } else { Ok(variance) }
}

/// `log(Σ exp(x))`, safe for large values. No axes means no reduction, unlike everywhere else. The last axis alone is summed in `f32`,
/// others in the type itself.
fn log_sum_exp(x: &Tensor, axes: &[i32], keepdims: bool) -> Result<Tensor> {
    if x.numel() == 0 {
        return Err(Error::shape(format!("LogSumExp of no elements ({:?}) is refused by MLX", x.shape())));
    }
    let dtype = to_float(x.dtype());
    let x = cast(x, dtype)?;
    if axes.is_empty() {
        return Ok(x);
    }
    let last = axes.len() == 1 && normalise_axis(i64::from(axes[0]), x.rank())? + 1 == x.rank();
    let wide = if last { cast(&x, DType::Float32)? } else { x.clone() };
    let peak = reduce(Reduce::Max, &wide, axes, true)?;
    // Infinite peaks must not meet infinite terms: inf - inf is not a number.
    let finite = binary(Binary::Less, &unary(Unary::Abs, &peak)?, &Tensor::scalar(f32::INFINITY)?)?;
    let shift = select(&finite, &peak, &cast(&Tensor::scalar(0f32)?, wide.dtype())?)?;
    let terms = unary(Unary::Exp, &binary(Binary::Subtract, &wide, &shift)?)?;
    let log = unary(Unary::Log, &reduce(Reduce::Sum, &terms, axes, true)?)?;
    let kept = cast(&binary(Binary::Add, &log, &shift)?, dtype)?;
    if keepdims { Ok(kept) } else { kept.reshape(&Plan::new(&x, axes, false)?.shape) }
}

/// The middle value, or the mean of the two middle ones; NaNs sort last.
fn median(x: &Tensor, plan: &Plan) -> Result<Tensor> {
    if plan.terms == 0 {
        return Err(Error::shape(format!("the median over no elements of {:?} has no value", x.shape())));
    }
    let view = cast(x, DType::Float32)?.transpose(&plan.perm)?;
    let mut rows = view.values::<f32>()?.into_owned();
    let result = Tensor::build::<f32>(&plan.shape, |out| {
        for (o, row) in out.iter_mut().zip(rows.chunks_exact_mut(plan.terms)) {
            row.sort_by(|a, b| a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(b)));
            let (low, high) = (row[(plan.terms - 1) / 2], row[plan.terms / 2]);
            *o = if plan.terms % 2 == 1 { low } else { (low + high) / 2.0 };
        }
        Ok(())
    })?;
    cast(&result, to_float(x.dtype()))
}

/// Index (`u32`) of the first largest, or smallest, element along `axis`, as MLX's Metal kernels have it: NaN is passed over, and where
/// nothing else is there, nothing beats place 0.
pub(crate) fn arg_extreme(x: &Tensor, axis: i32, keepdims: bool, largest: bool) -> Result<Tensor> {
    let plan = Plan::new(x, &[axis], keepdims)?;
    if x.numel() == 0 {
        return Err(Error::shape(format!("axis {axis} of {:?} has no elements to choose from", x.shape())));
    }
    if x.dtype() == DType::Bool {
        return arg_extreme(&cast(x, DType::UInt8)?, axis, keepdims, largest);
    }
    let view = x.transpose(&plan.perm)?;
    dispatch!(numeric, "Argmax", x.dtype(), T => {
        let operand = Operand::<T>::new(&view, view.shape())?;
        Tensor::build::<u32>(&plan.shape, |out| {
            plan.spread(x, out, |first, out| {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = first_extreme(&operand, (first + i) * plan.terms, plan.terms, largest);
                }
            });
            Ok(())
        })
    })
}

fn first_extreme<T: Compute>(x: &Operand<'_, T>, start: usize, terms: usize, largest: bool) -> u32
where
    T::Acc: Neutral,
{
    let (mut raw, mut wide) = (buffer::<T>(), buffer::<T::Acc>());
    let (mut best, mut at) = (if largest { T::Acc::LOWEST } else { T::Acc::HIGHEST }, 0);
    for from in (0..terms).step_by(CHUNK) {
        let len = CHUNK.min(terms - from);
        for (i, &v) in T::widen(x.chunk(start + from, len, &mut raw), &mut wide).iter().enumerate() {
            if if largest { v > best } else { v < best } {
                (best, at) = (v, from + i);
            }
        }
    }
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Running sums along `axis`, rounded to the type at every step; from the end if `reverse`, without the element itself unless `inclusive`.
pub(crate) fn cumsum(x: &Tensor, axis: i32, reverse: bool, inclusive: bool) -> Result<Tensor> {
    if x.dtype() == DType::Bool {
        return cumsum(&cast(x, DType::Int32)?, axis, reverse, inclusive);
    }
    let axis = normalise_axis(i64::from(axis), x.rank())?;
    let last = x.rank() - 1;
    let mut swap: Vec<i64> = (0..x.rank() as i64).collect();
    swap.swap(axis, last);
    let view = x.transpose(&swap)?;
    let terms = view.shape()[last];
    let sums = dispatch!(numeric, "Cumsum", x.dtype(), T => {
        let values = view.values::<T>()?;
        Tensor::build::<T>(view.shape(), |out| {
            if terms > 0 {
                for (row, out) in values.chunks_exact(terms).zip(out.chunks_exact_mut(terms)) {
                    running_sums(row, out, reverse, inclusive);
                }
            }
            Ok(())
        })
    })?;
    sums.transpose(&swap)
}

fn running_sums<T: Compute>(row: &[T], out: &mut [T], reverse: bool, inclusive: bool)
where
    T::Acc: Neutral + Arithmetic,
{
    let mut total = T::Acc::ZERO;
    let mut one = [T::zeroed()];
    let mut wide = [T::Acc::zeroed()];
    for i in 0..row.len() {
        let at = if reverse { row.len() - 1 - i } else { i };
        let before = total;
        one[0] = row[at];
        total = T::rounded(total.plus(T::widen(&one, &mut wide)[0]));
        let value = if inclusive { total } else { before };
        let mut spare = [T::Acc::zeroed()];
        T::narrow(&mut out[at..=at], &mut spare, |o| o[0] = value);
    }
}

/// The values that folds start from.
trait Neutral: Sized {
    const ZERO: Self;
    const ONE: Self;
    const LOWEST: Self;
    const HIGHEST: Self;
}

impl Neutral for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const LOWEST: f32 = f32::NEG_INFINITY;
    const HIGHEST: f32 = f32::INFINITY;
}

macro_rules! integers {
    ($($t:ty),*) => { $(
        impl Neutral for $t {
            const ZERO: $t = 0;
            const ONE: $t = 1;
            const LOWEST: $t = <$t>::MIN;
            const HIGHEST: $t = <$t>::MAX;
        }
    )* };
}

integers!(u8, i8, i16, u16, i32, u32, i64, u64);

/// How terms are put together.
trait Fold<S>: Sync {
    /// A result in the making.
    type State: Copy + Send;
    fn start(&self) -> Self::State;
    /// Adds terms of one result.
    fn run(&self, state: Self::State, terms: &[S]) -> Self::State;
    /// Adds one term to each of several results.
    fn lanes(&self, states: &mut [Self::State], terms: &[S]);
    fn finish(&self, state: Self::State) -> S;
}

/// An operator applied from left to right, with its neutral element.
struct Running<S>(S, fn(S, S) -> S);

impl<S: Elem> Fold<S> for Running<S> {
    type State = S;
    fn start(&self) -> S {
        self.0
    }
    fn run(&self, state: S, terms: &[S]) -> S {
        // Independent lanes let the processor overlap the steps; the operators used here do not care for order, but
        // for the last digits of float products.
        let mut lanes = [self.0; 8];
        let (body, rest) = terms.as_chunks::<8>();
        for chunk in body {
            for (lane, v) in lanes.iter_mut().zip(chunk) {
                *lane = (self.1)(*lane, *v);
            }
        }
        lanes.iter().chain(rest).fold(state, |s, v| (self.1)(s, *v))
    }
    fn lanes(&self, states: &mut [S], terms: &[S]) {
        for (s, v) in states.iter_mut().zip(terms) {
            *s = (self.1)(*s, *v);
        }
    }
    fn finish(&self, state: S) -> S {
        state
    }
}

/// An operator applied strictly from left to right, which rounds to the type of the elements at every step. What MLX's CPU backend does
/// with halves; Metal's kernels round as often, in an order that differs with the shape.
struct Stepped(f32, fn(f32, f32) -> f32);

impl Fold<f32> for Stepped {
    type State = f32;
    fn start(&self) -> f32 {
        self.0
    }
    fn run(&self, state: f32, terms: &[f32]) -> f32 {
        terms.iter().fold(state, |s, v| (self.1)(s, *v))
    }
    fn lanes(&self, states: &mut [f32], terms: &[f32]) {
        for (s, v) in states.iter_mut().zip(terms) {
            *s = (self.1)(*s, *v);
        }
    }
    fn finish(&self, state: f32) -> f32 {
        state
    }
}

/// A sum of singles in `f64`, divided by a number at the end. MLX adds in `f32`, on each backend in an order of its own; this is between
/// them.
struct SumFloats(f64);

impl Fold<f32> for SumFloats {
    type State = f64;
    fn start(&self) -> f64 {
        0.0
    }
    fn run(&self, state: f64, terms: &[f32]) -> f64 {
        let mut lanes = [0f64; 8];
        let (body, rest) = terms.as_chunks::<8>();
        for chunk in body {
            for (lane, v) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*v);
            }
        }
        state + lanes.iter().sum::<f64>() + rest.iter().map(|v| f64::from(*v)).sum::<f64>()
    }
    fn lanes(&self, states: &mut [f64], terms: &[f32]) {
        for (s, v) in states.iter_mut().zip(terms) {
            *s += f64::from(*v);
        }
    }
    fn finish(&self, state: f64) -> f32 {
        (state / self.0) as f32
    }
}

/// How a reduction walks its operand.
struct Plan {
    /// Kept axes, then reduced axes.
    perm: Vec<i64>,
    kept: usize,
    /// Terms in each result.
    terms: usize,
    /// Shape of the result.
    shape: Vec<usize>,
}

impl Plan {
    fn new(x: &Tensor, axes: &[i32], keepdims: bool) -> Result<Plan> {
        let mut reduced = vec![axes.is_empty(); x.rank()];
        for &axis in axes {
            if std::mem::replace(&mut reduced[normalise_axis(i64::from(axis), x.rank())?], true) {
                return Err(Error::range(format!("axis {axis} is given twice in {axes:?}")));
            }
        }
        let kept: Vec<usize> = (0..x.rank()).filter(|&a| !reduced[a]).collect();
        let gone: Vec<usize> = (0..x.rank()).filter(|&a| reduced[a]).collect();
        let shape = (0..x.rank()).filter(|&a| keepdims || !reduced[a]).map(|a| if reduced[a] { 1 } else { x.shape()[a] }).collect();
        let terms = gone.iter().map(|&a| x.shape()[a]).product();
        Ok(Plan { perm: kept.iter().chain(&gone).map(|&a| a as i64).collect(), kept: kept.len(), terms, shape })
    }

    fn fold<S: Compute, D: Compute<Acc = S::Acc>, F: Fold<S::Acc>>(&self, x: &Tensor, fold: &F) -> Result<Tensor> {
        let view = x.transpose(&self.perm)?;
        let dense = |axis: usize| view.strides().get(axis) == Some(&1) && view.shape().get(axis).is_some_and(|&n| n > 1);
        if self.kept > 0 && self.kept < view.rank() && dense(self.kept - 1) {
            return self.fold_lanes::<S, D, F>(&view, fold);
        }
        let operand = Operand::<S>::new(&view, view.shape())?;
        Tensor::build::<D>(&self.shape, |out| {
            self.spread(x, out, |first, out| {
                let (mut raw, mut wide, mut result) = (buffer::<S>(), buffer::<S::Acc>(), [S::Acc::zeroed()]);
                for (i, o) in out.iter_mut().enumerate() {
                    let start = (first + i) * self.terms;
                    let mut state = fold.start();
                    for from in (0..self.terms).step_by(CHUNK) {
                        let len = CHUNK.min(self.terms - from);
                        state = fold.run(state, S::widen(operand.chunk(start + from, len, &mut raw), &mut wide));
                    }
                    D::narrow(std::slice::from_mut(o), &mut result, |o| o[0] = fold.finish(state));
                }
            });
            Ok(())
        })
    }

    /// [`fold`](Self::fold) where the last kept axis is the dense one: its results advance together.
    fn fold_lanes<S: Compute, D: Compute<Acc = S::Acc>, F: Fold<S::Acc>>(&self, view: &Tensor, fold: &F) -> Result<Tensor> {
        let lane_axis = self.kept - 1;
        let width = view.shape()[lane_axis];
        let mut perm: Vec<i64> = (0..view.rank() as i64).filter(|&a| a != lane_axis as i64).collect();
        perm.push(lane_axis as i64);
        let view = view.transpose(&perm)?;
        let operand = Operand::<S>::new(&view, view.shape())?;
        Tensor::build::<D>(&self.shape, |out| {
            self.spread(&view, out, |first, out| {
                let (mut raw, mut wide, mut result) = (buffer::<S>(), buffer::<S::Acc>(), buffer::<S::Acc>());
                let mut states = [fold.start(); CHUNK];
                let mut done = 0;
                while done < out.len() {
                    let (row, lane) = ((first + done) / width, (first + done) % width);
                    let len = CHUNK.min(width - lane).min(out.len() - done);
                    let states = &mut states[..len];
                    states.fill(fold.start());
                    for term in 0..self.terms {
                        let start = (row * self.terms + term) * width + lane;
                        fold.lanes(states, S::widen(operand.chunk(start, len, &mut raw), &mut wide));
                    }
                    D::narrow(&mut out[done..done + len], &mut result, |out| {
                        for (o, s) in out.iter_mut().zip(&*states) {
                            *o = fold.finish(*s);
                        }
                    });
                    done += len;
                }
            });
            Ok(())
        })
    }

    /// Calls `work(first, part)` for parts of the results, on several threads if the operand is large.
    fn spread<D: Pod>(&self, x: &Tensor, out: &mut [D], work: impl Fn(usize, &mut [D]) + Sync) {
        if x.numel() * x.dtype().size() <= PARALLEL_BYTES || out.len() == 1 {
            work(0, out);
            return;
        }
        for_parts(out, out.len().div_ceil(rayon::current_num_threads() * 4), &work);
    }
}

#[cfg(test)]
mod tests;
