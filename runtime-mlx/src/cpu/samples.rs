//! Operands of tests.

use etx_ir::DType;

use super::dtype::cast;
use crate::tensor::Tensor;

/// Numbers from -1 to 1 that look random.
pub(super) fn noise(shape: &[usize], seed: u32) -> Tensor {
    let mut s = seed.wrapping_mul(2654435761).wrapping_add(7);
    let next = || {
        s = s.wrapping_mul(1664525).wrapping_add(1013904223);
        (s >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = std::iter::repeat_with(next).take(shape.iter().product()).collect();
    Tensor::from_slice(shape, &values).unwrap()
}

/// Elements in order, as `f32`.
pub(super) fn floats(x: &Tensor) -> Vec<f32> {
    cast(x, DType::Float32).unwrap().values::<f32>().unwrap().into_owned()
}
