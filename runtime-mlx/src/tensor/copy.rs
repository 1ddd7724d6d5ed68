//! Copying strided elements; the one place where data is moved without being changed.

use bytemuck::Pod;
use rayon::prelude::*;

use super::nest::{Nest, contiguous_strides};
use super::{PARALLEL_BYTES, Tensor};
use crate::error::{Error, Result};

/// Side of the square that transposing copies work on: 32 rows of 4-byte elements fit the first-level cache twice.
const TILE: usize = 32;

/// Runs `$body` with `$P` an unsigned integer of the element size of `$dtype`.
macro_rules! with_raw {
    ($dtype:expr, $P:ident => $body:expr) => {
        match $dtype.size() {
            1 => {
                type $P = u8;
                $body
            }
            2 => {
                type $P = u16;
                $body
            }
            4 => {
                type $P = u32;
                $body
            }
            8 => {
                type $P = u64;
                $body
            }
            _ => {
                type $P = u128;
                $body
            }
        }
    };
}
pub(crate) use with_raw;

/// Writes the elements of `src` in row-major order to `out`, which has exactly as many.
pub(crate) fn gather<P: Pod + Send + Sync>(src: &Tensor, out: &mut [P]) {
    let strides = contiguous_strides(src.shape());
    let nest = Nest::new(src.shape(), [src.strides(), &strides]);
    let axes: Vec<(usize, isize)> = nest.axes().iter().map(|&(len, [step, _])| (len, step)).collect();
    let elements = src.storage_elements::<P>();
    let Some((&(len, step), inner)) = axes.split_first() else {
        if let (Some(o), Some(&v)) = (out.first_mut(), elements.get(src.offset())) {
            *o = v;
        }
        return;
    };
    if len == 0 {
        return;
    }
    let row = out.len() / len;
    // Tiles need several rows at once; otherwise any split will do.
    let rows = (PARALLEL_BYTES / (row * size_of::<P>()).max(1)).clamp(1, len).next_multiple_of(TILE.min(len));
    let group = |(i, out): (usize, &mut [P])| {
        let base = src.offset() as isize + step * (i * rows) as isize;
        gather_axes(elements, base, (out.len() / row, step), inner, out);
    };
    if size_of_val(out) > PARALLEL_BYTES && len > rows {
        out.par_chunks_mut(rows * row).enumerate().for_each(group);
    } else {
        gather_axes(elements, src.offset() as isize, (len, step), inner, out);
    }
}

/// Copies `(first, inner…)` axes starting at `base`; `out` is row-major over them.
fn gather_axes<P: Pod>(src: &[P], base: isize, first: (usize, isize), inner: &[(usize, isize)], out: &mut [P]) {
    let (len, step) = first;
    match inner {
        [] => gather_run(src, base, step, &mut out[..len]),
        // A transposed pair: walk it in squares, so that both sides stay in cache.
        [(cols, jump)] if step == 1 && *jump != 1 => {
            for r0 in (0..len).step_by(TILE) {
                for c0 in (0..*cols).step_by(TILE) {
                    for r in r0..(r0 + TILE).min(len) {
                        let line = &mut out[r * cols..(r + 1) * cols];
                        for (c, o) in line.iter_mut().enumerate().take(c0 + TILE).skip(c0) {
                            *o = src[(base + r as isize + c as isize * jump) as usize];
                        }
                    }
                }
            }
        }
        [next, rest @ ..] => {
            for (i, out) in out.chunks_exact_mut(out.len() / len).enumerate() {
                gather_axes(src, base + step * i as isize, *next, rest, out);
            }
        }
    }
}

fn gather_run<P: Pod>(src: &[P], base: isize, step: isize, out: &mut [P]) {
    let start = base as usize;
    match step {
        1 => out.copy_from_slice(&src[start..start + out.len()]),
        0 => out.fill(src[start]),
        _ => {
            for (i, o) in out.iter_mut().enumerate() {
                *o = src[(base + step * i as isize) as usize];
            }
        }
    }
}

/// Overwrites the elements of `dst` at `offset + Σ index·strides` with `src`, whose shape spans the region.
/// `dst` is the whole storage of the destination; the region must lie inside it.
pub(crate) fn scatter<P: Pod>(dst: &mut [P], offset: usize, strides: &[isize], src: &Tensor) -> Result<()> {
    let nest = Nest::new(src.shape(), [strides, src.strides()]);
    let elements = src.storage_elements::<P>();
    let (_, [to, from]) = nest.inner();
    let (dst_base, src_base) = (offset as isize, src.offset() as isize);
    let mut inside = true;
    nest.runs(0, nest.len(), |_, [d, s], len| {
        let (d, s) = (dst_base + d, src_base + s);
        if to == 1 && from == 1 {
            let target = usize::try_from(d).ok().and_then(|d| dst.get_mut(d..d + len));
            match target {
                Some(target) => target.copy_from_slice(&elements[s as usize..s as usize + len]),
                None => inside = false,
            }
            return;
        }
        for i in 0..len as isize {
            match usize::try_from(d + to * i).ok().and_then(|d| dst.get_mut(d)) {
                Some(o) => *o = elements[(s + from * i) as usize],
                None => inside = false,
            }
        }
    });
    if inside { Ok(()) } else { Err(Error::range("the region to overwrite reaches outside its tensor")) }
}
