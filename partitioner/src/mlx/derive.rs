//! Weights that are made out of other weights, described.

use etx_ir::error::{Error, ErrorKind};
use etx_ir::weights::TensorData;

/// The weight with its axes in this order.
///
/// # Errors
/// When `perm` is no permutation of the axes.
pub(crate) fn permuted_data(data: &TensorData, perm: &[usize]) -> Result<TensorData, Error> {
    let shape = data.shape();
    let mut strides = vec![1u64; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
    }
    let pick = |list: &[u64]| perm.iter().map(|&p| list.get(p).copied()).collect::<Option<Vec<u64>>>();
    match (pick(shape), pick(&strides)) {
        (Some(sizes), Some(steps)) if perm.len() == shape.len() => data.strided(data.dtype(), sizes, steps, 0),
        _ => Err(Error::new(ErrorKind::Weight, format!("{perm:?} does not order the axes of {shape:?}"))),
    }
}
