//! Operators that only rearrange elements (mlx-ops.md §4): views where possible, plain copies otherwise.

use etx_ir::DType;

use super::dtype::{cast, promote_all};
use super::index::index as place;
use super::lanes::Compute;
use crate::error::{Error, Result};
use crate::tensor::copy::with_raw;
use crate::tensor::{Tensor, checked_numel, normalise_axis};

/// A size from an instruction.
pub(crate) fn size(value: i64, what: &str) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::shape(format!("{what} must not be negative, found {value}")))
}

/// All sizes of a shape from an instruction.
pub(crate) fn sizes(shape: &[i64]) -> Result<Vec<usize>> {
    shape.iter().map(|&n| size(n, "a length")).collect()
}

/// Reshapes; one `-1` stands for whatever is left.
pub(crate) fn reshape(x: &Tensor, shape: &[i64]) -> Result<Tensor> {
    let open: Vec<usize> = (0..shape.len()).filter(|&i| shape[i] == -1).collect();
    let mut fixed = sizes(&shape.iter().map(|&n| if n == -1 { 1 } else { n }).collect::<Vec<_>>())?;
    match open[..] {
        [] => {}
        [axis] => {
            let left = x.numel().checked_div(checked_numel(&fixed)?);
            let empty = || Error::shape(format!("{shape:?} leaves a length open that tensors without elements do not tell"));
            fixed[axis] = left.ok_or_else(empty)?;
        }
        _ => return Err(Error::shape(format!("{shape:?} leaves more than one length open"))),
    }
    x.reshape(&fixed).map_err(|_| Error::shape(format!("{:?} cannot be reshaped to {shape:?}", x.shape())))
}

/// Drops the given axes where they have length 1 and leaves the others; without `dims`, drops all of length 1.
pub(crate) fn squeeze(x: &Tensor, dims: &[i32]) -> Result<Tensor> {
    let listed: Vec<usize> = dims.iter().filter_map(|&d| normalise_axis(i64::from(d), x.rank()).ok()).collect();
    let axes: Vec<usize> = (0..x.rank()).filter(|a| x.shape()[*a] == 1 && (dims.is_empty() || listed.contains(a))).collect();
    x.squeeze(&axes)
}

/// Broadcasts; `-1` keeps the length of the operand's axis (aligned from the right).
pub(crate) fn broadcast_to(x: &Tensor, shape: &[i64]) -> Result<Tensor> {
    let new = shape.len().saturating_sub(x.rank());
    let keep = |(i, &n): (usize, &i64)| match i.checked_sub(new).and_then(|axis| x.shape().get(axis)) {
        Some(&have) if n == -1 => Ok(have),
        _ => size(n, "a length"),
    };
    x.broadcast_to(&shape.iter().enumerate().map(keep).collect::<Result<Vec<_>>>()?)
}

/// Repeats the whole tensor `reps[i]` times along axis `i`; the shorter of shape and `reps` is padded with leading ones.
pub(crate) fn tile(x: &Tensor, reps: &[i64]) -> Result<Tensor> {
    let rank = x.rank().max(reps.len());
    let mut view = x.clone();
    while view.rank() < rank {
        view = view.expand_dims(0)?;
    }
    let (mut wide, mut flat) = (Vec::new(), Vec::new());
    for axis in 0..rank {
        let rep = match (axis + reps.len()).checked_sub(rank) {
            Some(i) => size(reps[i], "a repetition")?,
            None => 1,
        };
        let len = view.shape()[wide.len()];
        if rep != 1 {
            view = view.expand_dims(wide.len() as i64)?;
            wide.push(rep);
        }
        wide.push(len);
        flat.push(rep.checked_mul(len).ok_or_else(|| Error::limit("a tiled length overflows"))?);
    }
    view.broadcast_to(&wide)?.reshape(&flat)
}

/// Repeats each element along `axis`.
pub(crate) fn repeat(x: &Tensor, repeats: i64, axis: i32) -> Result<Tensor> {
    let axis = normalise_axis(i64::from(axis), x.rank())?;
    let repeats = size(repeats, "a repetition")?;
    let mut wide = x.shape().to_vec();
    wide.insert(axis + 1, repeats);
    let mut flat = x.shape().to_vec();
    flat[axis] = flat[axis].checked_mul(repeats).ok_or_else(|| Error::limit("a repeated length overflows"))?;
    x.expand_dims(axis as i64 + 1)?.broadcast_to(&wide)?.reshape(&flat)
}

/// Joins along `axis`, promoted to one type.
pub(crate) fn concatenate(parts: &[Tensor], axis: i32) -> Result<Tensor> {
    let first = parts.first().ok_or_else(|| Error::argument("nothing to concatenate"))?;
    let axis = normalise_axis(i64::from(axis), first.rank())?;
    let dtype = promote_all(parts)?;
    let mut shape = first.shape().to_vec();
    shape[axis] = 0;
    for part in parts {
        let fits = part.rank() == first.rank() && (0..first.rank()).all(|a| a == axis || part.shape()[a] == first.shape()[a]);
        if !fits {
            let (a, b) = (first.shape(), part.shape());
            return Err(Error::shape(format!("{a:?} and {b:?} do not concatenate along axis {axis}")));
        }
        shape[axis] = shape[axis].checked_add(part.shape()[axis]).ok_or_else(|| Error::limit("a length overflows"))?;
    }
    let mut out = Tensor::zeros(dtype, &shape)?;
    let mut at = 0;
    for part in parts {
        let len = part.shape()[axis];
        let region = out.region(axis, at, 1, len)?;
        out.assign(&region, &cast(part, dtype)?)?;
        at += len;
    }
    Ok(out)
}

/// Joins along a new axis.
pub(crate) fn stack(parts: &[Tensor], axis: i32) -> Result<Tensor> {
    let expanded: Vec<Tensor> = parts.iter().map(|p| p.expand_dims(i64::from(axis))).collect::<Result<_>>()?;
    let rank = expanded.first().map_or(0, Tensor::rank);
    let axis = normalise_axis(i64::from(axis), rank)?;
    concatenate(&expanded, axis as i32)
}

/// Cuts along `axis`: one size is the length of every piece but the last; several are the lengths of all pieces but the
/// last, which gets what is left.
pub(crate) fn split(x: &Tensor, sizes: &[i64], axis: i32, pieces: usize) -> Result<Vec<Tensor>> {
    let axis = normalise_axis(i64::from(axis), x.rank())?;
    let len = x.shape()[axis];
    let mut cuts = vec![0usize];
    match sizes {
        [] => return Err(Error::shape("no sizes to split by")),
        [chunk] => {
            let chunk = size(*chunk, "a piece")?;
            if chunk == 0 {
                return Err(Error::shape("pieces of length 0"));
            }
            cuts.extend((1..len.div_ceil(chunk)).map(|i| i * chunk));
        }
        [most @ .., _] => {
            let mut at = 0usize;
            for &n in most {
                at = at.saturating_add(size(n, "a piece")?).min(len);
                cuts.push(at);
            }
        }
    }
    if cuts.len() != pieces {
        return Err(Error::shape(format!("{sizes:?} cuts a length of {len} into {} pieces, not {pieces}", cuts.len())));
    }
    let ends = cuts.iter().skip(1).copied().chain([len]);
    cuts.iter().zip(ends).map(|(&start, end)| x.slice_axis(axis, start, 1, end - start)).collect()
}

/// Adds `widths` (a pair for each axis) of `value`, or of the nearest element in mode "edge".
pub(crate) fn pad(x: &Tensor, widths: &[i64], mode: &str, value: f32) -> Result<Tensor> {
    if widths.len() != 2 * x.rank() {
        return Err(Error::shape(format!("{} widths for rank {}, which takes {}", widths.len(), x.rank(), 2 * x.rank())));
    }
    let widths = widths.iter().map(|&n| size(n, "a padding")).collect::<Result<Vec<_>>>()?;
    match mode {
        "constant" => {
            let grown = |(&n, pair): (&usize, &[usize])| {
                n.checked_add(pair[0]).and_then(|n| n.checked_add(pair[1])).ok_or_else(|| Error::limit("a padded length overflows"))
            };
            let shape = x.shape().iter().zip(widths.chunks_exact(2)).map(grown).collect::<Result<Vec<_>>>()?;
            let mut out = full(&shape, value, x.dtype())?;
            let mut region = crate::tensor::Region { starts: vec![0; x.rank()], steps: vec![1; x.rank()], shape: x.shape().to_vec() };
            for (start, pair) in region.starts.iter_mut().zip(widths.chunks_exact(2)) {
                *start = pair[0];
            }
            out.assign(&region, x)?;
            Ok(out)
        }
        "edge" => {
            let mut out = x.clone();
            for (axis, pair) in widths.chunks_exact(2).enumerate().filter(|(_, p)| **p != [0, 0]) {
                let len = out.shape()[axis];
                if len == 0 {
                    return Err(Error::shape(format!("axis {axis} of {:?} has no edge to repeat", x.shape())));
                }
                let edge = |at: usize, width: usize| {
                    let mut shape = out.shape().to_vec();
                    shape[axis] = width;
                    out.slice_axis(axis, at, 1, 1)?.broadcast_to(&shape)
                };
                out = concatenate(&[edge(0, pair[0])?, out.clone(), edge(len - 1, pair[1])?], axis as i32)?;
            }
            Ok(out)
        }
        other => Err(Error::unsupported(format!("padding mode \"{other}\""))),
    }
}

/// Shifts circularly along each of `axes`.
pub(crate) fn roll(x: &Tensor, shifts: &[i64], axes: &[i32]) -> Result<Tensor> {
    if shifts.len() != axes.len() {
        return Err(Error::shape(format!("{} shifts for {} axes", shifts.len(), axes.len())));
    }
    let mut out = x.clone();
    for (&shift, &axis) in shifts.iter().zip(axes) {
        let axis = normalise_axis(i64::from(axis), x.rank())?;
        let len = out.shape()[axis];
        let back = if len == 0 { 0 } else { shift.rem_euclid(len as i64) as usize };
        if back > 0 {
            let tail = out.slice_axis(axis, len - back, 1, back)?;
            out = concatenate(&[tail, out.slice_axis(axis, 0, 1, len - back)?], axis as i32)?;
        }
    }
    Ok(out)
}

/// Reverses each of `axes`.
pub(crate) fn flip(x: &Tensor, axes: &[i32]) -> Result<Tensor> {
    axes.iter().try_fold(x.clone(), |out, &axis| {
        let axis = normalise_axis(i64::from(axis), x.rank())?;
        match out.shape()[axis] {
            0 => Ok(out),
            len => out.slice_axis(axis, len - 1, -1, len),
        }
    })
}

/// The elements `start`, `start + step`, … before `stop` of an axis of length `len`: first index and count.
fn slice_bounds(len: usize, start: i64, stop: i64, step: i64) -> Result<(usize, usize)> {
    let n = len as i64;
    let wrap = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    let (start, stop) = (wrap(start), wrap(stop));
    let (start, span) = match step {
        0 => return Err(Error::range("a slice with step 0")),
        1.. => {
            let start = start.clamp(0, n);
            (start, stop.clamp(0, n) - start)
        }
        _ => {
            let start = start.clamp(-1, n - 1);
            (start, start - stop.clamp(-1, n - 1))
        }
    };
    let count = if span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
    Ok((if count == 0 { 0 } else { start as usize }, count as usize))
}

/// NumPy's slice of one axis; negative steps walk backwards.
pub(crate) fn slice(x: &Tensor, axis: i64, start: i64, stop: i64, step: i32) -> Result<Tensor> {
    let axis = normalise_axis(axis, x.rank())?;
    let (start, count) = slice_bounds(x.shape()[axis], start, stop, i64::from(step))?;
    x.slice_axis(axis, start, step as isize, count)
}

/// Overwrites a slice of one axis of `dst` with `update`, cast and broadcast. In place if `dst` is the only holder of
/// its elements.
pub(crate) fn slice_update(dst: &mut Tensor, update: &Tensor, axis: i64, (start, stop): (i64, i64), step: i32) -> Result<()> {
    if step < 1 {
        return Err(Error::range(format!("a slice update with step {step}")));
    }
    let axis = normalise_axis(axis, dst.rank())?;
    let (n, len) = (dst.shape()[axis] as i64, dst.shape()[axis]);
    let clamped = |at: i64| if at < 0 { at.saturating_add(n) } else { at }.clamp(0, n);
    if clamped(start) == clamped(stop) {
        return Ok(());
    }
    let (start, count) = slice_bounds(len, start, stop, i64::from(step))?;
    let region = dst.region(axis, start, step as isize, count)?;
    let update = cast(update, dst.dtype())?.broadcast_to(&region.shape)?;
    dst.assign(&region, &update)
}

/// Overwrites the slices at `index` (one axis, `i64`) of `axis` of `dst` with those of `update`; later ones win. In
/// place if `dst` is the only holder of its elements.
///
/// The delegate reads the index from memory, element after element from where it begins, whatever its strides; so does this.
pub(crate) fn index_copy(dst: &mut Tensor, update: &Tensor, index: &Tensor, axis: i32) -> Result<()> {
    if index.rank() != 1 || index.dtype() != DType::Int64 {
        return Err(Error::dtype(format!("IndexCopy takes i64 indices of rank 1, found {}{:?}", index.dtype(), index.shape())));
    }
    let axis = normalise_axis(i64::from(axis), dst.rank())?;
    let memory = index.storage_elements::<i64>().get(index.offset()..).unwrap_or_default();
    let read = memory.get(..index.numel()).ok_or_else(|| {
        let (n, have) = (index.numel(), memory.len());
        Error::range(format!(
            "IndexCopy reads {n} indices one after the other from where its view begins, and the memory there ends after {have}"
        ))
    })?;
    let at = read.iter().map(|&i| place(i, dst.shape()[axis])).collect::<Result<Vec<_>>>()?;
    if at.is_empty() {
        return Ok(());
    }
    let mut shape = dst.shape().to_vec();
    shape[axis] = at.len();
    if update.rank() != dst.rank() || update.shape()[axis] != at.len() {
        let (n, given) = (at.len(), update.shape());
        return Err(Error::shape(format!("IndexCopy of {n} indices takes an update of as many along axis {axis}, found {given:?}")));
    }
    let update = cast(update, dst.dtype())?.broadcast_to(&shape)?;
    let mut done = 0;
    for run in at.chunk_by(|a, b| a + 1 == *b) {
        if let Some(&start) = run.first() {
            let region = dst.region(axis, start, 1, run.len())?;
            dst.assign(&region, &update.slice_axis(axis, done, 1, run.len())?)?;
            done += run.len();
        }
    }
    Ok(())
}

/// A view with the given element strides and offset over the row-major elements of `x`.
pub(crate) fn as_strided(x: &Tensor, shape: &[i64], strides: &[i64], offset: u64) -> Result<Tensor> {
    if shape.len() != strides.len() {
        return Err(Error::shape(format!("{} lengths and {} strides", shape.len(), strides.len())));
    }
    // The bounds are those of `x`, not of what it is a view of.
    let flat = if x.is_contiguous() && x.offset() == 0 { x.clone() } else { x.to_owned_copy()? };
    let offset = usize::try_from(offset).map_err(|_| Error::range("an offset overflows"))?;
    let strides: Vec<isize> = strides.iter().map(|&s| s as isize).collect();
    let shape = sizes(shape)?;
    let reach = shape.iter().zip(&strides).map(|(&n, &s)| (n as i128 - 1) * s.max(0) as i128).sum::<i128>() + offset as i128;
    if checked_numel(&shape)? > 0 && reach >= x.numel() as i128 {
        return Err(Error::range(format!("shape {shape:?} with strides {strides:?} at {offset} reaches beyond {} elements", x.numel())));
    }
    flat.view(shape, strides, offset)
}

/// All elements `value`, rounded to the type.
pub(crate) fn full(shape: &[usize], value: f32, dtype: DType) -> Result<Tensor> {
    let one = cast(&Tensor::scalar(value)?, dtype)?;
    with_raw!(dtype, P => {
        let value = one.storage_elements::<P>().first().copied();
        Tensor::build_raw::<P>(dtype, shape, |out| {
            if let Some(value) = value {
                out.fill(value);
            }
            Ok(())
        })
    })
}

/// `start`, `start + step`, … before `stop`.
pub(crate) fn arange(start: i64, stop: i64, step: i64, dtype: DType) -> Result<Tensor> {
    if step == 0 || dtype == DType::Bool {
        return Err(Error::argument(format!("no range from {start} to {stop} by {step} of {dtype}")));
    }
    let span = (i128::from(stop) - i128::from(start)) * i128::from(step.signum());
    let count = if span <= 0 { 0 } else { (span - 1) / i128::from(step.unsigned_abs()) + 1 };
    let count = usize::try_from(count).map_err(|_| Error::limit("the length of a range overflows"))?;
    let counted = || {
        Tensor::build::<i64>(&[count], |out| {
            for (i, o) in out.iter_mut().enumerate() {
                *o = start.wrapping_add(step.wrapping_mul(i as i64));
            }
            Ok(())
        })
    };
    match dtype {
        DType::Float16 => added_up::<half::f16>(count, start, step),
        DType::BFloat16 => added_up::<half::bf16>(count, start, step),
        DType::Float32 => added_up::<f32>(count, start, step),
        _ => cast(&counted()?, dtype),
    }
}

/// Numbers added up in the element type, as MLX does: they get stuck where that has no room for the next.
fn added_up<T: Compute<Acc = f32>>(count: usize, start: i64, step: i64) -> Result<Tensor> {
    Tensor::build::<T>(&[count], |out| {
        let first = T::rounded(start as f32);
        let by = T::rounded(T::rounded((start + step) as f32) - first);
        let numbers: Vec<f32> = std::iter::successors(Some(first), |&at| Some(T::rounded(at + by))).take(count).collect();
        T::narrow(out, &mut vec![0.0; count], |o| o.copy_from_slice(&numbers));
        Ok(())
    })
}

/// Keeps the elements on and below diagonal `k` of the last two axes (on and above it if `upper`), zero elsewhere.
pub(crate) fn triangle(x: &Tensor, k: i32, upper: bool) -> Result<Tensor> {
    let [.., rows, cols] = *x.shape() else {
        return Err(Error::shape(format!("a triangle of {:?}, which has fewer than two axes", x.shape())));
    };
    let mut out = x.to_owned_copy()?;
    if out.numel() > 0 {
        let dtype = x.dtype();
        out = with_raw!(dtype, P => {
            let kept = out.storage_elements::<P>();
            Tensor::build_raw::<P>(dtype, x.shape(), |out| {
                for (i, (to, from)) in out.chunks_exact_mut(cols).zip(kept.chunks_exact(cols)).enumerate() {
                    // First column beyond the diagonal for the lower triangle; first on it for the upper.
                    let edge = (i % rows) as i64 + i64::from(k) + i64::from(!upper);
                    let edge = edge.clamp(0, cols as i64) as usize;
                    let part = if upper { edge..cols } else { 0..edge };
                    to[part.clone()].copy_from_slice(&from[part]);
                }
                Ok(())
            })
        })?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
