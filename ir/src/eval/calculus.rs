//! Integrals and derivatives of what is sampled along a dimension.

use super::bad;
use super::call::{Argument, Call, Results, many, one};
use super::order::lines;
use super::pointwise::{map, zip};
use super::reduce::{add_up, fold};
use crate::DType;
use crate::infer::promote::to_float;

/// Areas under straight lines between samples, all together or as they add up.
pub(super) fn trapezoid(c: &Call, running: bool) -> Results {
    let y = c.tensor("y")?;
    let axis = c.axis("dim", y.rank())?;
    let at = match c.maybe_tensor("x")? {
        Some(x) if x.rank() == y.rank() => Some(x),
        Some(x) if x.rank() == 1 => {
            let shape: Vec<usize> = (0..y.rank()).map(|a| if a == axis { x.numel() } else { 1 }).collect();
            Some(x.reshape(&shape)?.expand(y.shape())?)
        }
        Some(x) => return Err(bad(format!("samples at {:?} for {:?}", x.shape(), y.shape()))),
        None => None,
    };
    let step = c.float_or("dx", 1.0)?;
    let n = y.size(axis).max(1) - 1;
    let (before, after) = (y.slice(axis, 0, n, 1)?, y.slice(axis, y.size(axis) - n, n, 1)?);
    let sum = zip(DType::Float64, DType::Float64, &before, &after, |a: f64, b| a + b)?;
    let areas = match at {
        Some(x) => {
            let wide =
                zip(DType::Float64, DType::Float64, &x.slice(axis, 0, n, 1)?, &x.slice(axis, x.size(axis) - n, n, 1)?, |a: f64, b| b - a)?;
            zip(DType::Float64, DType::Float64, &sum, &wide, |s: f64, w| s * w / 2.0)?
        }
        None => map(&sum, DType::Float64, |s: f64| s * step / 2.0)?,
    };
    let d = to_float(y.dtype());
    if !running {
        return one(fold(&areas, &[axis], false, d, add_up)?);
    }
    one(lines(&areas, axis, d, |x: &[f64]| {
        x.iter()
            .scan(0.0, |sum, x| {
                *sum += x;
                Some(*sum)
            })
            .collect()
    })?)
}

/// Slopes of samples at even distances: over both neighbours, at the ends over one or, of second order, two.
pub(super) fn gradient(c: &Call) -> Results {
    let t = c.first()?;
    let axes = if c.given("dim") { c.axes("dim", t.rank())? } else { (0..t.rank()).collect() };
    let steps = match c.arg("spacing").and_then(Argument::as_list) {
        Some(_) => c.maybe_floats("spacing")?.unwrap_or_default(),
        None => vec![c.float_or("spacing", 1.0)?; axes.len()],
    };
    let order = c.int_or("edge_order", 1)?;
    let slope = |x: &[f64], h: f64| -> Vec<f64> {
        let n = x.len();
        let at = |i: usize| x.get(i).copied().unwrap_or(f64::NAN);
        let of = |i: usize| {
            if i > 0 && i + 1 < n {
                (at(i + 1) - at(i - 1)) / (2.0 * h)
            } else if order == 2 {
                let (a, b, c, sign) = if i == 0 { (at(0), at(1), at(2), 1.0) } else { (at(n - 1), at(n - 2), at(n - 3), -1.0) };
                sign * (-1.5 * a + 2.0 * b - 0.5 * c) / h
            } else if i == 0 {
                (at(1) - at(0)) / h
            } else {
                (at(n - 1) - at(n - 2)) / h
            }
        };
        (0..n).map(of).collect()
    };
    let mut all = Vec::new();
    for (axis, h) in axes.into_iter().zip(steps) {
        if t.size(axis) as i64 <= order {
            return Err(bad(format!("{} samples are too few", t.size(axis))));
        }
        all.push(lines(&t, axis, t.dtype(), |x: &[f64]| slope(x, h))?);
    }
    many(all)
}
