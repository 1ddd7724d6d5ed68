//! Derivatives: what the graph of a training step calls beside the forward operators.
//!
//! Each formula is that of the forward operator, differentiated; where an operator has corners, its document in torch says which
//! side counts, and the tests hold it to that.

pub(super) mod attention;
pub(super) mod convolution;
pub(super) mod each;
pub(super) mod grid;
pub(super) mod loss;
pub(super) mod norm;
pub(super) mod pool;
pub(super) mod rows;
pub(super) mod views;

use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::pen::Pen;
use super::several::{several, wanted};
use crate::rewrite::Patch;

type Result = std::result::Result<Option<Patch>, Error>;
type Value = std::result::Result<Option<Arg>, Error>;

/// Nothing, of this shape and the type of the first result.
fn zeros(p: &mut Pen<'_, '_>, shape: &[Dim]) -> Value {
    let Some(dtype) = p.0.result().map(|t| t.dtype) else { return Ok(None) };
    let Some(sizes) = p.0.sizes(shape) else { return Ok(None) };
    let zero = if dtype.is_float() { Arg::Float(0.0) } else { Arg::Int(0) };
    p.call(op!("aten.full.default"), vec![sizes, zero, Arg::DType(dtype)]).map(Some)
}

/// The product along one axis with a matrix `[have, make]`.
fn along(p: &mut Pen<'_, '_>, x: &Arg, axis: usize, matrix: &Arg) -> std::result::Result<Arg, Error> {
    let rank = p.ty(x)?.rank();
    let last = rank.saturating_sub(1);
    if axis == last {
        return p.matmul(x, matrix);
    }
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(axis, last);
    let x = p.permute(x, &order)?;
    let y = p.matmul(&x, matrix)?;
    p.permute(&y, &order)
}
