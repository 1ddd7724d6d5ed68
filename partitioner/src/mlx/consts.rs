//! Bytes of the small constants that lowerings make.

use etx_ir::DType;
use etx_ir::weights::TensorData;
use half::{bf16, f16};

/// Constants of more elements than this are cast when the program runs, not when it is made.
const MAX_CAST: u64 = 1024;

/// The bytes of a number as an element, rounded as torch would; `None` where the type cannot hold it.
pub(crate) fn element(value: f64, dtype: DType) -> Option<Vec<u8>> {
    Some(match dtype {
        DType::Float32 => (value as f32).to_le_bytes().to_vec(),
        DType::Float16 => f16::from_f64(value).to_le_bytes().to_vec(),
        DType::BFloat16 => bf16::from_f64(value).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(value != 0.0)],
        t if t.is_int() && value.fract() == 0.0 && value.abs() < 9.2e18 => integer(value as i64, t)?,
        _ => return None,
    })
}

/// Whether the float type has the number as it is. Types beside halves count as having all.
pub(crate) fn holds(value: f64, dtype: DType) -> bool {
    match dtype {
        DType::Float16 => f64::from(f16::from_f64(value)) == value || value.is_nan(),
        DType::BFloat16 => f64::from(bf16::from_f64(value)) == value || value.is_nan(),
        _ => true,
    }
}

/// The bytes of an integer as an element; `None` where it does not fit.
pub(crate) fn integer(value: i64, dtype: DType) -> Option<Vec<u8>> {
    Some(match dtype {
        DType::Int64 => value.to_le_bytes().to_vec(),
        DType::Int32 => i32::try_from(value).ok()?.to_le_bytes().to_vec(),
        DType::UInt32 => u32::try_from(value).ok()?.to_le_bytes().to_vec(),
        DType::Int16 => i16::try_from(value).ok()?.to_le_bytes().to_vec(),
        DType::Int8 => i8::try_from(value).ok()?.to_le_bytes().to_vec(),
        DType::UInt8 => u8::try_from(value).ok()?.to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(value != 0)],
        _ => return None,
    })
}

/// The bytes of an integer as an element of a type of integers, which is the number modulo the type's range: so do Python's integers
/// become elements in torch.
pub(crate) fn wrapped(value: i64, dtype: DType) -> Option<Vec<u8>> {
    if dtype.is_int() { value.to_le_bytes().get(..dtype.size()).map(<[u8]>::to_vec) } else { None }
}

/// The elements of a small constant as numbers; `None` if it is large, not at hand, or of a type that is not a number.
pub(crate) fn numbers(data: &TensorData) -> Option<Vec<f64>> {
    if data.numel() > MAX_CAST {
        return None;
    }
    let bytes = data.bytes()?;
    let each = |f: &dyn Fn(&[u8]) -> Option<f64>| bytes.chunks_exact(data.dtype().size()).map(f).collect::<Option<Vec<f64>>>();
    macro_rules! parse {
        ($t:ty, $to:expr) => {
            each(&|b| Some($to(<$t>::from_le_bytes(b.try_into().ok()?))))
        };
    }
    match data.dtype() {
        DType::Bool | DType::UInt8 => parse!(u8, f64::from),
        DType::Int8 => parse!(i8, f64::from),
        DType::Int16 => parse!(i16, f64::from),
        DType::Int32 => parse!(i32, f64::from),
        DType::UInt32 => parse!(u32, f64::from),
        // Exact only up to 2^53; larger ones are left to the machine that has the integers.
        DType::Int64 => each(&|b| {
            let n = i64::from_le_bytes(b.try_into().ok()?);
            (n.unsigned_abs() <= 1 << 53).then_some(n as f64)
        }),
        DType::Float16 => parse!(f16, f64::from),
        DType::BFloat16 => parse!(bf16, f64::from),
        DType::Float32 => parse!(f32, f64::from),
        DType::Float64 => parse!(f64, f64::from),
        _ => None,
    }
}

/// A small constant cast to another type, where that can be done exactly as torch does it.
pub(crate) fn cast_small(data: &TensorData, to: DType) -> Option<TensorData> {
    let mut bytes = Vec::new();
    for x in numbers(data)? {
        // Float to integer drops the fraction.
        bytes.extend(element(if to.is_int() { x.trunc() } else { x }, to)?);
    }
    TensorData::inline(to, data.shape().to_vec(), bytes).ok()
}
