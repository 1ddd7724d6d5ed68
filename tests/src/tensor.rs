//! Plain tensors: contiguous little-endian bytes with a type and a shape.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

/// A contiguous row-major tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first; empty for rank 0.
    pub shape: Vec<usize>,
    /// Elements, little endian.
    pub bytes: Vec<u8>,
}

/// The elements of a tensor in a type wide enough to compare them exactly.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Integers and booleans.
    Integers(Vec<i128>),
    /// Floating point; complex numbers as two each.
    Floats(Vec<f64>),
    /// Types that are only compared bit by bit.
    Bits,
}

impl Tensor {
    /// A tensor of rank 0.
    pub fn scalar<const N: usize>(dtype: Dtype, bytes: [u8; N]) -> Self {
        Tensor { dtype, shape: Vec::new(), bytes: bytes.to_vec() }
    }

    /// How many elements the shape holds.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, widened.
    pub fn elements(&self) -> Elements {
        fn ints<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> i128) -> Elements {
            Elements::Integers(bytes.as_chunks().0.iter().map(|c| read(*c)).collect())
        }
        fn floats<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> f64) -> Elements {
            Elements::Floats(bytes.as_chunks().0.iter().map(|c| read(*c)).collect())
        }
        match self.dtype {
            Dtype::BOOL => ints(&self.bytes, |b| i128::from(b != [0])),
            Dtype::U8 => ints(&self.bytes, |b| u8::from_le_bytes(b).into()),
            Dtype::I8 => ints(&self.bytes, |b| i8::from_le_bytes(b).into()),
            Dtype::U16 => ints(&self.bytes, |b| u16::from_le_bytes(b).into()),
            Dtype::I16 => ints(&self.bytes, |b| i16::from_le_bytes(b).into()),
            Dtype::U32 => ints(&self.bytes, |b| u32::from_le_bytes(b).into()),
            Dtype::I32 => ints(&self.bytes, |b| i32::from_le_bytes(b).into()),
            Dtype::U64 => ints(&self.bytes, |b| u64::from_le_bytes(b).into()),
            Dtype::I64 => ints(&self.bytes, |b| i64::from_le_bytes(b).into()),
            Dtype::F16 => floats(&self.bytes, |b| f16::from_le_bytes(b).into()),
            Dtype::BF16 => floats(&self.bytes, |b| bf16::from_le_bytes(b).into()),
            Dtype::F32 | Dtype::C64 => floats(&self.bytes, |b| f32::from_le_bytes(b).into()),
            Dtype::F64 => floats(&self.bytes, f64::from_le_bytes),
            _ => Elements::Bits,
        }
    }
}

/// All tensors of a safetensors file by name.
pub fn read_file(path: &Path) -> Result<BTreeMap<String, Tensor>, String> {
    let place = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = std::fs::read(path).map_err(|e| place(&e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| place(&e))?;
    Ok(file
        .iter()
        .map(|(name, view)| {
            let tensor = Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
            (name.to_owned(), tensor)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_integers_are_widened_exactly() {
        let h = Tensor { dtype: Dtype::F16, shape: vec![2], bytes: vec![0x00, 0x3c, 0x01, 0x00] };
        assert_eq!(h.elements(), Elements::Floats(vec![1.0, 2f64.powi(-24)]));
        let big = Tensor::scalar(Dtype::U64, u64::MAX.to_le_bytes());
        assert_eq!(big.elements(), Elements::Integers(vec![i128::from(u64::MAX)]));
    }
}
