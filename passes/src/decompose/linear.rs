//! Products of matrices.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::pen::Pen;
use crate::calls::{args, ints};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// `x @ wᵀ + b`. Source: torch.nn.functional.linear.
pub(super) fn linear(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let [x, w, b] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    if p.ty(&w)?.rank() != 2 {
        return Ok(None);
    }
    let wt = p.transpose(&w)?;
    let t = p.ty(&x)?;
    if b == Arg::None {
        let y = if t.rank() == 2 { p.mm(&x, &wt)? } else { p.matmul(&x, &wt)? };
        return p.done(y);
    }
    if t.rank() == 2 {
        let y = p.call(op!("aten.addmm.default"), vec![b, x, wt])?;
        return p.done(y);
    }
    // All rows at once: like torch, the bias is added before the result is rounded.
    let (Some((inner, rows)), Some(result)) = (t.shape.split_last(), p.0.result().cloned()) else { return Ok(None) };
    let Some(flat) = p.view(&x, &[Dim::product(rows), inner.clone()])? else { return Ok(None) };
    let y = p.call(op!("aten.addmm.default"), vec![b, flat, wt])?;
    let Some(y) = p.view(&y, &result.shape)? else { return Ok(None) };
    p.done(y)
}

/// `beta * c + alpha * (a @ b)`. Source: torch.addmm; also `addmv`, `baddbmm`.
fn sum_with(site: &mut Site<'_>, product: etx_ir::op::OpId) -> Result {
    let (beta, alpha) = (site.arg("beta").as_float().unwrap_or(1.0), site.arg("alpha").as_float().unwrap_or(1.0));
    let float = site.result().is_some_and(|t| t.dtype.is_float());
    if !float && (beta.fract() != 0.0 || alpha.fract() != 0.0) {
        return Ok(None);
    }
    let mut p = Pen(site);
    let [c, a, b] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    let number = |x: f64| if float { Arg::Float(x) } else { Arg::Int(x as i64) };
    let mut y = p.call(product, vec![a, b])?;
    if alpha != 1.0 {
        y = p.call(op!("aten.mul.Tensor"), vec![y, number(alpha)])?;
    }
    // With beta 0 even NaN in c is ignored.
    if beta != 0.0 {
        let c = if beta == 1.0 { c } else { p.call(op!("aten.mul.Tensor"), vec![c, number(beta)])? };
        y = p.add(&c, &y)?;
    }
    p.done(y)
}

pub(super) fn addmm(site: &mut Site<'_>) -> Result {
    sum_with(site, op!("aten.mm.default"))
}

pub(super) fn addmv(site: &mut Site<'_>) -> Result {
    sum_with(site, op!("aten.mv.default"))
}

pub(super) fn baddbmm(site: &mut Site<'_>) -> Result {
    sum_with(site, op!("aten.bmm.default"))
}

/// A product with the matrix that each row's group has: row `i` is of the group behind all that end at it or before. Source: torch's
/// `_grouped_mm`. Behind the last end, where torch leaves what it finds, rows go with the last matrix.
pub(super) fn grouped_mm(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let given = |name: &str, p: &Pen<'_, '_>| p.0.op().schema().position(name).is_some() && *p.0.arg(name) != Arg::None;
    if given("bias", &p) || given("out_dtype", &p) {
        return Ok(None);
    }
    let [x, w, ends] = [0, 1, 2].map(|i| p.0.nth(i).clone());
    let (rows, matrices) = (p.ty(&x)?, p.ty(&w)?);
    if ends == Arg::None {
        let y = p.bmm(&x, &w)?;
        return p.done(y);
    }
    let (Some(rows), Some(groups)) = (rows.shape.first().filter(|_| rows.rank() == 2), matrices.shape.first().and_then(Dim::as_int)) else {
        return Ok(None);
    };
    if matrices.rank() != 3 || groups < 1 {
        return Ok(None);
    }
    let Some(rows) = p.0.size(rows) else { return Ok(None) };
    let arange = op!("aten.arange.start_step");
    let rows = args(arange, [Arg::Int(0), rows, Arg::Int(1)], &[("dtype", DType::Int32.into())]);
    let row = p.call(arange, rows)?;
    let row = p.unsqueeze(&row, 1)?;
    let ends = p.slice(&ends, 0, Arg::Int(0), Arg::Int(groups - 1))?;
    let behind = p.ge(&row, &ends)?;
    let sum = op!("aten.sum.dim_IntList");
    let group = args(sum, [behind, ints([1])], &[("dtype", DType::Int32.into())]);
    let group = p.call(sum, group)?;
    let x = p.unsqueeze(&x, 1)?;
    let product = op!("mlx.gather_mm.default");
    let list = args(product, [x, w, group], &[("sorted_indices", Arg::Bool(true))]);
    let y = p.call(product, list)?;
    let y = p.squeeze(&y, 1)?;
    p.done(y)
}

/// A matrix times a vector. Source: torch.mv.
pub(super) fn mv(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let [m, v] = [0, 1].map(|i| p.0.nth(i).clone());
    let column = p.unsqueeze(&v, 1)?;
    let y = p.mm(&m, &column)?;
    let y = p.squeeze(&y, 1)?;
    p.done(y)
}

/// `sum(a * b)`. Source: torch.dot; also `vdot` of real vectors.
pub(super) fn dot(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let [a, b] = [0, 1].map(|i| p.0.nth(i).clone());
    if p.ty(&a)?.rank() != 1 || p.ty(&b)?.rank() != 1 || p.ty(&a)?.dtype.is_complex() {
        return Ok(None);
    }
    let product = p.mul(&a, &b)?;
    let y = p.reduce(op!("aten.sum.dim_IntList"), &product, &[0], false)?;
    p.done(y)
}

/// `a[:, None] * b`. Source: torch.outer.
pub(super) fn outer(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let [a, b] = [0, 1].map(|i| p.0.nth(i).clone());
    let column = p.unsqueeze(&a, 1)?;
    let y = p.mul(&column, &b)?;
    p.done(y)
}

/// Matrices as they come: broadcast over leading dimensions, a vector as a row or a column. Source: torch.matmul.
pub(super) fn matmul(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let [a, b] = [0, 1].map(|i| p.0.nth(i).clone());
    let (s, t) = (p.ty(&a)?, p.ty(&b)?);
    match (s.rank(), t.rank()) {
        (1, 1) => return dot(site),
        (2, 1) => {
            let y = p.call(op!("aten.mv.default"), vec![a, b])?;
            return p.done(y);
        }
        (2, 2) => {
            let y = p.mm(&a, &b)?;
            return p.done(y);
        }
        (1, n) if n >= 2 => {
            let row = p.unsqueeze(&a, 0)?;
            let y = p.matmul(&row, &b)?;
            let y = p.squeeze(&y, n - 2)?;
            return p.done(y);
        }
        (n, 1) if n >= 2 => {
            let column = p.unsqueeze(&b, 1)?;
            let y = p.matmul(&a, &column)?;
            let y = p.squeeze(&y, n - 1)?;
            return p.done(y);
        }
        // One matrix on the right: the rows of all the others are rows of one.
        (n, 2) => {
            let [rows, inner] = [n - 2, n - 1].map(|i| s.shape.get(i).cloned().unwrap_or(Dim::Int(1)));
            let all = Dim::product(s.shape.iter().take(n - 2).chain([&rows]));
            let Some(flat) = p.view(&a, &[all, inner])? else { return Ok(None) };
            let y = p.mm(&flat, &b)?;
            let Some(shape) = p.0.result().map(|t| t.shape.clone()) else { return Ok(None) };
            let Some(y) = p.view(&y, &shape)? else { return Ok(None) };
            return p.done(y);
        }
        (3, 3) if s.shape.first() == t.shape.first() => {
            let y = p.bmm(&a, &b)?;
            return p.done(y);
        }
        _ => {}
    }
    let Some(result) = p.0.result().cloned() else { return Ok(None) };
    let batch: Vec<Dim> = result.shape.iter().take(result.rank().saturating_sub(2)).cloned().collect();
    let all = Dim::product(&batch);
    let mut flat = Vec::new();
    for (x, t) in [(a, s), (b, t)] {
        let matrix: Vec<Dim> = t.shape.iter().skip(t.rank() - 2).cloned().collect();
        let full: Vec<Dim> = batch.iter().chain(&matrix).cloned().collect();
        let wide = if full == t.shape {
            x
        } else {
            let Some(sizes) = p.0.sizes(&full) else { return Ok(None) };
            p.call(op!("aten.expand.default"), vec![x, sizes])?
        };
        let shape: Vec<Dim> = std::iter::once(all.clone()).chain(matrix).collect();
        let Some(x) = p.view(&wide, &shape)? else { return Ok(None) };
        flat.push(x);
    }
    let [a, b] = flat.as_slice() else { return Ok(None) };
    let y = p.bmm(a, b)?;
    let Some(y) = p.view(&y, &result.shape)? else { return Ok(None) };
    p.done(y)
}

/// One product of a batch of one. Source: torch.mm.
pub(super) fn mm(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let [a, b] = [0, 1].map(|i| p.0.nth(i).clone());
    let (a, b) = (p.unsqueeze(&a, 0)?, p.unsqueeze(&b, 0)?);
    let y = p.bmm(&a, &b)?;
    let y = p.call(op!("aten.squeeze.dims"), vec![y, ints([0])])?;
    p.done(y)
}
