//! Matrix products of tensors (mlx-ops.md §4): NumPy's rules for ranks and batches, float types only.

use etx_ir::DType;
use rayon::prelude::*;

use super::dtype::{cast, dispatch, promote_all};
use super::matrix::{Finish, Matrix, Strided, product};
use super::simd::Float;
use crate::error::{Error, Result};
use crate::tensor::{MAX_RESULT_BYTES, Tensor, broadcast_shapes, checked_numel};

/// `alpha·(a @ b) + beta·bias`; without a bias just the product.
pub(crate) fn addmm(a: &Tensor, b: &Tensor, bias: Option<&Tensor>, alpha: f32, beta: f32) -> Result<Tensor> {
    let dtype = result_type("a matrix product", [a, b].into_iter().chain(bias))?;
    let (a, b) = (&float(a, dtype)?, &float(b, dtype)?);
    let shapes = Shapes::new(a, b)?;
    match bias {
        None => dispatch!(float, "a matrix product", dtype, T => shapes.multiply::<T>(None, 1.0)),
        Some(bias) => {
            let bias = Bias::new(bias, &shapes.result, beta)?;
            dispatch!(float, "a matrix product", dtype, T => shapes.multiply::<T>(Some(&bias), alpha))
        }
    }
}

/// The type a product of these has.
pub(super) fn result_type<'a>(what: &str, operands: impl IntoIterator<Item = &'a Tensor>) -> Result<DType> {
    let dtype = promote_all(operands)?;
    if !dtype.is_float() {
        return Err(Error::dtype(format!("{what} of {dtype} elements is not defined; convert an operand to a float type")));
    }
    Ok(dtype)
}

/// Refuses a view that is larger than any tensor can be: only broadcasts are, and kernels that need memory for what they
/// read must not be asked for it.
pub(super) fn bounded(x: &Tensor) -> Result<()> {
    bounded_shape(x.shape(), x.dtype())
}

pub(super) fn bounded_shape(shape: &[usize], dtype: DType) -> Result<()> {
    match (checked_numel(shape)? as u64).checked_mul(dtype.size() as u64) {
        Some(bytes) if bytes <= MAX_RESULT_BYTES => Ok(()),
        _ => Err(Error::limit(format!("{dtype}{shape:?} is over the limit of {MAX_RESULT_BYTES} bytes"))),
    }
}

/// An operand of a product of type `dtype`: floats are widened as they are read, which is exact; integers round first.
pub(super) fn float(x: &Tensor, dtype: DType) -> Result<Tensor> {
    bounded(x)?;
    if x.dtype().is_float() { Ok(x.clone()) } else { cast(x, dtype) }
}

/// Runs `$body` with `$m` the matrix of rank-2 view `$x` with rows along axis `$outer` and sums along axis `$depth`.
macro_rules! with_matrix {
    ($x:expr, $outer:expr, $depth:expr, $m:ident => $body:expr) => {{
        let x: &$crate::tensor::Tensor = $x;
        dispatch!(float, "a matrix product", x.dtype(), S => {
            let axis = |i: usize| (x.shape()[i], x.strides()[i]);
            let $m = Strided::<S>::new(x.storage_elements(), x.offset(), axis($outer), axis($depth));
            $body
        })
    }};
}

/// A bias as `f32`, times its factor.
struct Bias {
    values: Vec<f32>,
    /// Whether there is one row for all rows of the result.
    shared: bool,
}

impl Bias {
    fn new(bias: &Tensor, result: &[usize], beta: f32) -> Result<Self> {
        let cols = result.last().copied().unwrap_or(1);
        let whole = bias.broadcast_to(result)?;
        let wide = cast(bias, DType::Float32)?;
        let shared = bias.rank() < 2 || bias.shape()[..bias.rank() - 1].iter().all(|&n| n == 1);
        let shape = if shared { &[cols][..] } else { whole.shape() };
        let row = if shared && wide.rank() > 1 { wide.reshape(&[wide.numel()])? } else { wide };
        let mut values = row.broadcast_to(shape)?.values::<f32>()?.into_owned();
        if beta != 1.0 {
            values.iter_mut().for_each(|v| *v *= beta);
        }
        Ok(Bias { values, shared })
    }

    fn run(&self, row: usize, col: usize, len: usize, cols: usize) -> &[f32] {
        let start = if self.shared { col } else { row * cols + col };
        &self.values[start..start + len]
    }
}

/// Operands of a product as batches of matrices.
struct Shapes {
    /// `[batch…, rows, depth]` and `[batch…, depth, cols]`, broadcast.
    a: Tensor,
    b: Tensor,
    /// Shape of the result, without the axes that operands of rank 1 lack.
    result: Vec<usize>,
}

impl Shapes {
    fn new(a: &Tensor, b: &Tensor) -> Result<Self> {
        let bad = || Error::shape(format!("{:?} and {:?} do not multiply", a.shape(), b.shape()));
        let (row, col) = (a.rank() == 1, b.rank() == 1);
        if a.rank() == 0 || b.rank() == 0 {
            return Err(bad());
        }
        let a = if row { a.expand_dims(0)? } else { a.clone() };
        let b = if col { b.expand_dims(1)? } else { b.clone() };
        let (&[ref batch_a @ .., rows, depth], &[ref batch_b @ .., depth_b, cols]) = (a.shape(), b.shape()) else {
            return Err(bad());
        };
        if depth != depth_b {
            return Err(bad());
        }
        let batch = broadcast_shapes(&[batch_a, batch_b])?;
        let with = |tail: [usize; 2]| batch.iter().copied().chain(tail).collect::<Vec<_>>();
        let (a, b) = (a.broadcast_to(&with([rows, depth]))?, b.broadcast_to(&with([depth, cols]))?);
        let mut result = batch.clone();
        result.extend([rows, cols].into_iter().zip([row, col]).filter(|(_, gone)| !gone).map(|(n, _)| n));
        bounded_shape(&result, DType::Float32)?;
        Ok(Shapes { a, b, result })
    }

    fn multiply<T: Float>(&self, bias: Option<&Bias>, alpha: f32) -> Result<Tensor> {
        let rank = self.a.rank();
        let (rows, cols) = (self.a.shape()[rank - 2], self.b.shape()[rank - 1]);
        let batch = &self.a.shape()[..rank - 2];
        let finish = |first: usize| {
            move |row: usize, col: usize, sums: &mut [f32]| {
                let Some(bias) = bias else { return };
                let bias = bias.run(first + row, col, sums.len(), cols);
                for (sum, bias) in sums.iter_mut().zip(bias) {
                    *sum = alpha * *sum + bias;
                }
            }
        };
        if self.b.strides()[..rank - 2].iter().zip(batch).all(|(&step, &n)| step == 0 || n == 1) {
            // One matrix for all batches: their rows are the rows of one product.
            let a = self.a.reshape(&[batch.iter().product::<usize>() * rows, self.a.shape()[rank - 1]])?;
            let b = matrix_at(&self.b, 0)?;
            return Tensor::build::<T>(&self.result, |out| pair::<T>(&a, &b, out, cols, &finish(0)));
        }
        Tensor::build::<T>(&self.result, |out| {
            if out.is_empty() {
                return Ok(());
            }
            out.par_chunks_mut(rows * cols)
                .enumerate()
                .try_for_each(|(i, out)| pair::<T>(&matrix_at(&self.a, i)?, &matrix_at(&self.b, i)?, out, cols, &finish(i * rows)))
        })
    }
}

/// `out = a @ b` for rank-2 views.
fn pair<T: Float>(a: &Tensor, b: &Tensor, out: &mut [T], cols: usize, finish: Finish<'_>) -> Result<()> {
    if cols == 0 {
        return Ok(());
    }
    with_matrix!(a, 0, 1, a => with_matrix!(b, 1, 0, b => {
        product(&a as &dyn Matrix, &b as &dyn Matrix, out.chunks_exact_mut(cols).collect(), finish);
        Ok(())
    }))
}

/// Matrix `index` (row-major over the batch axes) of `[batch…, rows, cols]`.
pub(super) fn matrix_at(x: &Tensor, index: usize) -> Result<Tensor> {
    let batch = x.rank() - 2;
    let (mut rest, mut offset) = (index, x.offset() as isize);
    for (&len, &step) in x.shape()[..batch].iter().zip(x.strides()).rev() {
        offset += (rest % len.max(1)) as isize * step;
        rest /= len.max(1);
    }
    x.view(x.shape()[batch..].to_vec(), x.strides()[batch..].to_vec(), offset as usize)
}

/// `out[i] = a[lhs[i]] @ b[rhs[i]]` over matrices chosen by index (missing indices count up); products with the same
/// matrix of `b` are made together.
pub(crate) fn gather_mm(a: &Tensor, b: &Tensor, lhs: Option<&Tensor>, rhs: Option<&Tensor>) -> Result<Tensor> {
    if lhs.is_none() && rhs.is_none() {
        return addmm(a, b, None, 1.0, 1.0);
    }
    let dtype = result_type("GatherMm", [a, b])?;
    let (a, b) = (&float(a, dtype)?, &float(b, dtype)?);
    let (&[ref batch_a @ .., rows, depth], &[ref batch_b @ .., depth_b, cols]) = (a.shape(), b.shape()) else {
        return Err(Error::shape(format!("GatherMm takes matrices, found {:?} and {:?}", a.shape(), b.shape())));
    };
    if depth != depth_b {
        return Err(Error::shape(format!("{:?} and {:?} do not multiply", a.shape(), b.shape())));
    }
    let pairs = Pairs::new(batch_a, batch_b, lhs, rhs)?;
    dispatch!(float, "GatherMm", dtype, T => pairs.multiply::<T>(a, (rows, cols), |index, x, out| {
        let b = matrix_at(b, index)?;
        with_matrix!(&b, 1, 0, b => {
            with_matrix!(x, 0, 1, x => {
                product::<T>(&x, &b, out, &|_, _, _| {});
                Ok(())
            })
        })
    }))
}

/// Which matrices meet in a gathered product.
pub(super) struct Pairs {
    shape: Vec<usize>,
    lhs: Vec<usize>,
    rhs: Vec<usize>,
}

impl Pairs {
    pub(super) fn new(batch_a: &[usize], batch_b: &[usize], lhs: Option<&Tensor>, rhs: Option<&Tensor>) -> Result<Self> {
        let choose = |given: Option<&Tensor>, batch: &[usize]| -> Result<Tensor> {
            bounded_shape(batch, DType::Int64)?;
            let count: usize = batch.iter().product();
            match given {
                Some(indices) if indices.dtype().is_int() => cast(indices, DType::Int64),
                Some(indices) => Err(Error::dtype(format!("indices of {} elements", indices.dtype()))),
                None => Tensor::from_slice(batch, &(0..count as i64).collect::<Vec<_>>()),
            }
        };
        let (lhs, rhs) = (choose(lhs, batch_a)?, choose(rhs, batch_b)?);
        let shape = broadcast_shapes(&[lhs.shape(), rhs.shape()])?;
        bounded_shape(&shape, DType::Int64)?;
        let within = |indices: &Tensor, batch: &[usize]| -> Result<Vec<usize>> {
            let count = batch.iter().product();
            let indices = indices.broadcast_to(&shape)?;
            indices.values::<i64>()?.iter().map(|&i| super::index::index(i, count)).collect()
        };
        Ok(Pairs { lhs: within(&lhs, batch_a)?, rhs: within(&rhs, batch_b)?, shape })
    }

    /// `[indices…, rows, cols]`: for each matrix of the right side that is used, `multiply` gets its index, the rows of
    /// all the left matrices that meet it, and the rows of the result.
    pub(super) fn multiply<T: Float>(
        &self,
        a: &Tensor,
        (rows, cols): (usize, usize),
        multiply: impl Fn(usize, &Tensor, Vec<&mut [T]>) -> Result<()> + Sync,
    ) -> Result<Tensor> {
        let shape: Vec<usize> = self.shape.iter().copied().chain([rows, cols]).collect();
        let depth = a.shape()[a.rank() - 1];
        let mut order: Vec<usize> = (0..self.rhs.len()).collect();
        order.sort_by_key(|&i| self.rhs[i]);
        Tensor::build::<T>(&shape, |out| {
            if out.is_empty() {
                return Ok(());
            }
            let mut places: Vec<Option<&mut [T]>> = out.chunks_exact_mut(rows * cols).map(Some).collect();
            let groups: Vec<(&[usize], Vec<&mut [T]>)> = order
                .chunk_by(|&i, &j| self.rhs[i] == self.rhs[j])
                .map(|group| {
                    let matrices = group.iter().filter_map(|&i| places[i].take());
                    (group, matrices.flat_map(|m| m.chunks_exact_mut(cols)).collect())
                })
                .collect();
            groups.into_par_iter().try_for_each(|(group, out)| {
                let parts = group.iter().map(|&i| matrix_at(a, self.lhs[i])).collect::<Result<Vec<_>>>()?;
                let x = match &parts[..] {
                    [one] => one.clone(),
                    _ => super::shape::concatenate(&parts, 0)?,
                };
                debug_assert_eq!(x.shape(), [out.len(), depth]);
                multiply(self.rhs[group[0]], &x, out)
            })
        })
    }
}

#[cfg(test)]
mod tests;
