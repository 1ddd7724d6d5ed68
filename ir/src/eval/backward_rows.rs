//! Derivatives of what is computed of rows: distances, lengths, rows in bags, pixels between pixels.

use super::backward::added;
use super::call::{Call, Results, many, one};
use super::element::round;
use super::norm::{combine, wide};
use super::reduce::{add_up, fold};
use super::tensor::Tensor;
use super::{Value, bad};
use crate::DType;

/// What a norm of order `p` and this value takes of a difference.
fn slope(apart: f64, norm: f64, p: f64) -> f64 {
    let sign = super::functions::sign(apart);
    match p {
        _ if p == 0.0 => 0.0,
        _ if p == 1.0 => sign,
        _ if norm == 0.0 || apart == 0.0 => 0.0,
        _ if p == f64::INFINITY => sign * f64::from(u8::from(apart.abs() == norm)),
        _ => sign * apart.abs().powf(p - 1.0) / norm.powf(p - 1.0),
    }
}

/// To the rows of the first of two matrices, of every pair of rows.
pub(super) fn cdist(c: &Call) -> Results {
    let (g, a, b, norm) = (c.first()?, c.tensor("x1")?, c.tensor("x2")?, c.tensor("cdist")?);
    let p = c.float("p")?;
    let last = a.nth_last(1)?;
    // Rounded, as the norm is with which the largest is compared.
    let apart = combine(&a.unsqueeze(last)?, &b.unsqueeze(b.nth_last(2)?)?, |a, b| a - b)?.cast(a.dtype())?;
    let slopes = combine(&apart, &norm.unsqueeze(norm.rank())?, |d, n| slope(d, n, p))?;
    let each = combine(&slopes, &g.unsqueeze(g.rank())?, |s, g| s * g)?;
    one(fold(&each, &[each.nth_last(2)?], false, a.dtype(), add_up)?)
}

/// To both rows of every pair of rows of one matrix.
pub(super) fn pdist(c: &Call) -> Results {
    let (g, t, p) = (c.first()?.to::<f64>(), c.tensor("self")?, c.float("p")?);
    let &[n, width] = t.shape() else { return Err(bad("needs a matrix")) };
    crate::budget::work(super::tensor::count(&[n, n])?, width)?;
    let (x, norms) = (t.to::<f64>(), c.tensor("pdist")?.to::<f64>());
    let at = |of: &[f64], i: usize| of.get(i).copied().unwrap_or(0.0);
    let mut out = vec![0.0; t.numel()];
    for (pair, (i, j)) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).enumerate() {
        for k in 0..width {
            let apart = round(t.dtype(), at(&x, i * width + k) - at(&x, j * width + k));
            let v = at(&g, pair) * slope(apart, at(&norms, pair), p);
            for (row, v) in [(i, v), (j, -v)] {
                if let Some(sum) = out.get_mut(row * width + k) {
                    *sum += v;
                }
            }
        }
    }
    one(Tensor::of(t.dtype(), t.shape(), out)?)
}

/// `w = g v / |v|`: to `v` and to `g`.
pub(super) fn weight_norm(c: &Call) -> Results {
    let (above, v, g, n) = (c.tensor("grad_w")?, c.tensor("saved_v")?, c.tensor("saved_g")?, c.tensor("saved_norms")?);
    let kept = if c.int("dim")? == -1 { None } else { Some(c.axis("dim", v.rank())?) };
    let axes: Vec<usize> = (0..v.rank()).filter(|a| Some(*a) != kept).collect();
    let product = fold(&combine(&above, &v, |a, v| a * v)?, &axes, true, DType::Float64, add_up)?;
    let to_length = combine(&product, &n, |p, n| p / n)?;
    let part = combine(&wide(&v)?, &combine(&to_length, &n, |l, n| l / n)?, |v, l| v * l)?;
    let to_direction = combine(&combine(&above, &part, |a, p| a - p)?, &combine(&g, &n, |g, n| g / n)?, |x, f| x * f)?;
    many([to_direction.cast(v.dtype())?, to_length.reshape(g.shape())?.cast(g.dtype())?])
}

/// The sum over dimensions of a product of three tensors, each with new axes first.
pub(super) fn trilinear(c: &Call) -> Results {
    let mut product: Option<Tensor> = None;
    for (name, axes) in [("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")] {
        let mut x = c.tensor(name)?;
        for axis in c.sizes(axes)? {
            x = x.unsqueeze(axis)?;
        }
        product = Some(match product {
            Some(all) => combine(&all, &x, |a, b| a * b)?,
            None => x,
        });
    }
    let product = product.ok_or_else(|| bad("no tensors"))?;
    one(fold(&product, &c.axes("sumdim", product.rank())?, false, c.tensor("i1")?.dtype(), add_up)?)
}

/// To the rows in bags: what came to the bag, of means over the number that counts, of the largest to the row that was it.
pub(super) fn embedding_bag(c: &Call) -> Results {
    let (g, rows, mode) = (c.tensor("grad")?, c.size("num_weights")?, c.int("mode")?);
    let (index, offsets, padding) = (c.tensor("indices")?.to::<i64>(), c.tensor("offsets")?.to::<i64>(), c.int("padding_idx")?);
    let width = g.size(g.nth_last(1)?);
    let bag = |place: usize| offsets.iter().rposition(|o| *o <= place as i64).unwrap_or(0);
    let size = |b: usize| index.iter().enumerate().filter(|(i, n)| bag(*i) == b && **n != padding).count() as f64;
    let weights = c.maybe_tensor("per_sample_weights")?.map(|w| w.to::<f64>());
    let often = |n: i64| if c.flag("scale_grad_by_freq") { index.iter().filter(|k| **k == n).count() as f64 } else { 1.0 };
    let above = g.to::<f64>();
    if mode == 2 {
        let largest = c.tensor("maximum_indices")?.to::<i64>();
        let place = |i: usize| largest.get(i).and_then(|n| usize::try_from(*n).ok()?.checked_mul(width)).map(|n| n + i % width.max(1));
        return one(added(&g, &[rows, width], place)?);
    }
    super::tensor::count(&[index.len(), width])?;
    crate::budget::work(index.len().saturating_mul(index.len()), offsets.len())?;
    let each = index.iter().enumerate().flat_map(|(place, &n)| {
        let b = bag(place);
        let share = weights.as_ref().and_then(|w| w.get(place)).copied().unwrap_or(1.0) / often(n) / if mode == 1 { size(b) } else { 1.0 };
        let above = &above;
        (0..width).map(move |k| above.get(b * width + k).copied().unwrap_or(0.0) * share)
    });
    let each = Tensor::of(DType::Float64, &[index.len(), width], each.collect::<Vec<_>>())?;
    let place = |i: usize| {
        let row = index.get(i / width).copied().filter(|n| *n != padding)?;
        usize::try_from(row).ok().filter(|n| *n < rows).map(|n| n * width + i % width)
    };
    one(added(&each, &[rows, width], place)?.cast(g.dtype())?)
}

/// Linear sampling between pixels, zeros outside: to the image and to the grid.
pub(super) fn sampled(c: &Call) -> Results {
    let (g, image, grid) = (c.tensor("grad_output")?, c.tensor("input")?, c.tensor("grid")?);
    if c.int("interpolation_mode")? != 0 || c.int("padding_mode")? != 0 {
        return Err(bad("derivatives of nearest or cubic sampling, or with other edges than zeros"));
    }
    let (&[batch, channels, h, w], &[_, rows, columns, _]) = (image.shape(), grid.shape()) else { return Err(bad("no images")) };
    let (above, pixels, places) = (g.to::<f64>(), image.to::<f64>(), grid.to::<f64>());
    let at = |of: &[f64], i: usize| of.get(i).copied().unwrap_or(0.0);
    let aligned = c.flag("align_corners");
    let unit = |x: f64, n: usize| {
        let n = n as f64;
        if aligned { ((x + 1.0) / 2.0 * (n - 1.0), (n - 1.0) / 2.0) } else { (((x + 1.0) * n - 1.0) / 2.0, n / 2.0) }
    };
    let (mut to_image, mut to_grid) = (vec![0.0; image.numel()], vec![0.0; grid.numel()]);
    let count = rows * columns;
    for (b, place) in (0..batch).flat_map(|b| (0..count).map(move |i| (b, i))) {
        let spot = 2 * (b * count + place);
        let ((x, fx), (y, fy)) = (unit(at(&places, spot), w), unit(at(&places, spot + 1), h));
        let (left, top) = (x.floor(), y.floor());
        for (right, below) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
            let (column, row) = (left + right, top + below);
            if !(column >= 0.0 && row >= 0.0 && column < w as f64 && row < h as f64) {
                continue;
            }
            let (wx, wy) = (1.0 - (x - column).abs(), 1.0 - (y - row).abs());
            let pixel = row as usize * w + column as usize;
            for k in 0..channels {
                let (from, to) = ((b * channels + k) * count + place, (b * channels + k) * h * w + pixel);
                if let Some(sum) = to_image.get_mut(to) {
                    *sum += at(&above, from) * wx * wy;
                }
                let moved = at(&above, from) * at(&pixels, to);
                for (i, v) in [(0, moved * wy * (2.0 * right - 1.0) * fx), (1, moved * wx * (2.0 * below - 1.0) * fy)] {
                    if let Some(sum) = to_grid.get_mut(spot + i) {
                        *sum += v;
                    }
                }
            }
        }
    }
    let mask = c.ints("output_mask")?;
    let all = [Tensor::of(image.dtype(), image.shape(), to_image)?, Tensor::of(grid.dtype(), grid.shape(), to_grid)?];
    Ok(all.into_iter().zip(mask).map(|(t, wanted)| if wanted != 0 { Value::Tensor(t) } else { Value::None }).collect())
}
