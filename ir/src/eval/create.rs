//! New tensors and conversions.

use super::call::{Call, Number, Results, one};
use super::element::round;
use super::tensor::{Tensor, count};
use super::{Error, bad};
use crate::DType;

/// The type that is asked for, else torch's default float type.
fn float_type(c: &Call) -> DType {
    c.dtype("dtype").unwrap_or(DType::Float32)
}

/// `zeros`, `ones`; what `empty` holds is anybody's guess, here zeros.
pub(super) fn sized(c: &Call, x: i64) -> Results {
    one(Tensor::full(float_type(c), &c.sizes("size")?, x)?)
}

pub(super) fn full(c: &Call) -> Results {
    let n = c.number("fill_value")?;
    let d = c.dtype("dtype").unwrap_or(n.dtype());
    one(n.tensor(d)?.expand(&c.sizes("size")?)?.copy()?)
}

/// As another tensor in what is not said.
pub(super) fn like(c: &Call, x: i64) -> Results {
    let t = c.first()?;
    one(Tensor::full(c.dtype("dtype").unwrap_or(t.dtype()), t.shape(), x)?)
}

pub(super) fn full_like(c: &Call) -> Results {
    let t = c.first()?;
    one(c.number("fill_value")?.tensor(c.dtype("dtype").unwrap_or(t.dtype()))?.expand(t.shape())?.copy()?)
}

/// `new_zeros`, `new_ones`: of the type of another.
pub(super) fn new_sized(c: &Call, x: i64) -> Results {
    let t = c.first()?;
    one(Tensor::full(c.dtype("dtype").unwrap_or(t.dtype()), &c.sizes("size")?, x)?)
}

pub(super) fn new_full(c: &Call) -> Results {
    let t = c.first()?;
    one(c.number("fill_value")?.tensor(c.dtype("dtype").unwrap_or(t.dtype()))?.expand(&c.sizes("size")?)?.copy()?)
}

pub(super) fn scalar_tensor(c: &Call) -> Results {
    one(c.number("s")?.tensor(float_type(c))?)
}

pub(super) fn arange(c: &Call) -> Results {
    let number = |name: &str, otherwise: i64| if c.given(name) { c.number(name) } else { Ok(Number::Int(otherwise)) };
    let (start, end, step) = (number("start", 0)?, c.number("end")?, number("step", 1)?);
    let floats = [start, end, step].iter().any(|n| matches!(n, Number::Float(_)));
    let d = c.dtype("dtype").unwrap_or(if floats { DType::Float32 } else { DType::Int64 });
    if step.float() == 0.0 || (!floats && step.int() == 0) || (end.float() - start.float()) * step.float() < 0.0 {
        return Err(bad(format!("from {} to {} in steps of {}", start.float(), end.float(), step.float())));
    }
    let n = if floats {
        ((end.float() - start.float()) / step.float()).ceil()
    } else {
        let (distance, step) = (i128::from(end.int()) - i128::from(start.int()), i128::from(step.int()));
        (distance / step + i128::from(distance % step != 0)) as f64
    };
    if n.is_nan() || n > 1e10 {
        return Err(bad("a range without end"));
    }
    let n = n as usize;
    count(&[n])?;
    if d.is_float() {
        let (start, step) = (start.float(), step.float());
        return one(Tensor::of(d, &[n], (0..n).map(|i| start + i as f64 * step))?);
    }
    let (start, step) = (start.int(), step.int());
    one(Tensor::of(d, &[n], (0..n as i64).map(|i| start.wrapping_add(i.wrapping_mul(step))))?)
}

/// So many numbers from one to another: the first half counted from the start, the second from the end.
fn ramp(c: &Call, d: DType) -> Result<Vec<f64>, Error> {
    let (start, end, n) = (c.float("start")?, c.float("end")?, c.size("steps")?);
    count(&[n])?;
    let step = round(d, (end - start) / (n.max(2) - 1) as f64);
    Ok((0..n).map(|i| if n == 1 || i < n / 2 { start + step * i as f64 } else { end - step * (n - 1 - i) as f64 }).collect())
}

pub(super) fn linspace(c: &Call) -> Results {
    let d = float_type(c);
    let wide = if d.size() < 4 || !d.is_float() { DType::Float32 } else { d };
    let all = ramp(c, wide)?;
    one(Tensor::of(d, &[all.len()], all)?)
}

pub(super) fn logspace(c: &Call) -> Results {
    let d = float_type(c);
    let (base, all) = (c.float_or("base", 10.0)?, ramp(c, DType::Float64)?);
    one(Tensor::of(d, &[all.len()], all.into_iter().map(|x| base.powf(x)))?)
}

pub(super) fn eye(c: &Call) -> Results {
    let n = c.size("n")?;
    let m = if c.given("m") { c.size("m")? } else { n };
    count(&[n, m])?;
    one(Tensor::of(float_type(c), &[n, m], (0..n).flat_map(|i| (0..m).map(move |j| i == j)))?)
}

/// Windows for spectra: weights of cosines, periodic unless told otherwise.
pub(super) fn window(c: &Call, weights: &[f64]) -> Results {
    let (n, d) = (c.size("window_length")?, float_type(c));
    let periodic = !c.given("periodic") || c.flag("periodic");
    let weights: Vec<f64> = match (c.maybe_float("alpha")?, c.maybe_float("beta")?) {
        (Some(alpha), beta) => vec![alpha, -beta.unwrap_or(1.0 - alpha)],
        _ => weights.to_vec(),
    };
    let steps = if periodic { n } else { n.saturating_sub(1) } as f64;
    let value = |i: usize| {
        let angle = 2.0 * std::f64::consts::PI * i as f64 / steps;
        weights.iter().enumerate().map(|(k, w)| w * (angle * k as f64).cos()).sum::<f64>()
    };
    count(&[n])?;
    one(if n == 1 { Tensor::full(d, &[1], 1i64)? } else { Tensor::of(d, &[n], (0..n).map(value))? })
}

/// Indices of a triangle of a matrix, rows above columns.
pub(super) fn triangle_indices(c: &Call, upper: bool) -> Results {
    let (rows, columns, offset) = (c.size("row")? as i64, c.size("col")? as i64, c.int("offset")?);
    count(&[rows as usize, columns as usize])?;
    let inside = |i: i64, j: i64| if upper { j - i >= offset } else { j - i <= offset };
    let all: Vec<(i64, i64)> = (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).filter(|(i, j)| inside(*i, *j)).collect();
    let both = all.iter().map(|p| p.0).chain(all.iter().map(|p| p.1));
    one(Tensor::of(c.dtype("dtype").unwrap_or(DType::Int64), &[2, all.len()], both)?)
}

/// Every combination of a vector's elements.
pub(super) fn cartesian(c: &Call) -> Results {
    let all = c.tensors("tensors")?;
    let total: usize = all.iter().map(Tensor::numel).fold(1, usize::saturating_mul);
    count(&[total, all.len()])?;
    let mut columns = Vec::new();
    let mut inner = total;
    for t in &all {
        inner /= t.numel().max(1);
        let (n, inner) = (t.numel().max(1), inner);
        let at = Tensor::of(DType::Int64, &[total], (0..total).map(|i| (i / inner.max(1) % n) as i64))?;
        columns.push(super::indexing::take(t, 0, &at)?);
    }
    one(if columns.len() == 1 { columns.remove(0) } else { super::joins::stack_of(&columns, 1)? })
}

/// A conversion; torch gives the tensor itself back where nothing changes, unless a copy is asked for.
pub(super) fn to(c: &Call) -> Results {
    let t = c.first()?;
    let d = c.dtype("dtype").unwrap_or(t.dtype());
    one(if d == t.dtype() && !c.flag("copy") { t } else { t.cast(d)? })
}

/// A conversion that always copies.
pub(super) fn cast(c: &Call) -> Results {
    let t = c.first()?;
    one(t.cast(c.dtype("dtype").unwrap_or(t.dtype()))?)
}

pub(super) fn cast_like(c: &Call) -> Results {
    let (t, d) = (c.first()?, c.tensor("other")?.dtype());
    one(if d == t.dtype() { t } else { t.cast(d)? })
}

pub(super) fn cast_to(c: &Call, d: DType) -> Results {
    let t = c.first()?;
    one(if d == t.dtype() { t } else { t.cast(d)? })
}

/// What draws random numbers has no answer to compare with.
pub(super) fn random(c: &Call) -> Results {
    Err(Error::new(crate::error::ErrorKind::Unsupported, format!("{} draws random numbers", c.op)))
}
