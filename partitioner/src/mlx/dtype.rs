//! The element type that MLX gives the result of an instruction (`mlx-ops.md` §3 and §4).
//!
//! MLX promotes on its own terms: a scalar tensor counts like any other, sums of small integers widen, indices are
//! unsigned. Lowerings compare what MLX gives with what torch declares and cast where the two differ.

use etx_ir::DType;
use etx_mlx::{Instr, Tid};

/// Type of a result that MLX computes from operands of types `a` and `b`.
pub(crate) fn promote(a: DType, b: DType) -> DType {
    use DType::{BFloat16, Bool, Float16, Float32, Int8, Int16, Int32, Int64, UInt8, UInt32};
    if a == b {
        return a;
    }
    match (a, b) {
        (Bool, x) | (x, Bool) => x,
        (Float16, BFloat16) | (BFloat16, Float16) => Float32,
        (x, y) if x.is_float() && y.is_float() => Float32,
        (x, _) | (_, x) if x.is_float() => x,
        (Int64, _) | (_, Int64) => Int64,
        (UInt32, UInt8) | (UInt8, UInt32) => UInt32,
        (UInt32, _) | (_, UInt32) => Int64,
        (Int32, _) | (_, Int32) => Int32,
        (UInt8, Int8) | (Int8, UInt8) => Int16,
        _ => Int16,
    }
}

fn to_float(t: DType) -> DType {
    if t.is_float() { t } else { DType::Float32 }
}

fn summed(t: DType) -> DType {
    match t {
        DType::Bool | DType::Int8 | DType::Int16 => DType::Int32,
        DType::UInt8 => DType::UInt32,
        t => t,
    }
}

/// Type of what the instruction writes to `out` (each of `outs`), given the types of the tensors it reads; `None` where
/// it writes no tensor, or where the chains it runs decide.
pub(crate) fn result(instr: &Instr, of: &dyn Fn(Tid) -> DType) -> Option<DType> {
    use Instr::*;
    let join = |tensors: &[Tid]| tensors.iter().map(|&t| of(t)).reduce(promote).unwrap_or(DType::Float32);
    Some(match instr {
        Noop {} | ItemInt { .. } | SymSize { .. } | If { .. } | Scan { .. } | MetalKernel { .. } => return None,
        AddInt { .. } | SubtractInt { .. } | MultiplyInt { .. } | FloorDivideInt { .. } | ModInt { .. } => return None,
        // As the operand.
        IdCopy { x, .. }
        | ExpandDims { x, .. }
        | Tile { x, .. }
        | TakeAlongAxis { x, .. }
        | Take { x, .. }
        | Squeeze { x, .. }
        | Split { x, .. }
        | BroadcastTo { x, .. }
        | Pad { x, .. }
        | Reshape { x, .. }
        | Transpose { x, .. }
        | AsStrided { x, .. }
        | Contiguous { x, .. }
        | Gather { x, .. }
        | Slice { x, .. }
        | Tril { x, .. }
        | Triu { x, .. }
        | Floor { x, .. }
        | Ceil { x, .. }
        | Trunc { x, .. }
        | Round { x, .. }
        | Square { x, .. }
        | Abs { x, .. }
        | Neg { x, .. }
        | Sign { x, .. }
        | Max { x, .. }
        | Min { x, .. }
        | Repeat { x, .. }
        | Sort { x, .. }
        | Partition { x, .. }
        | ScatterAdd { x, .. }
        | BitwiseInvert { x, .. }
        | Roll { x, .. }
        | Flip { x, .. }
        | Rope { x, .. } => of(*x),
        SliceUpdate { dst, .. } | IndexCopy { dst, .. } => of(*dst),
        // As the operand, integers as floats.
        Rsqrt { x, .. }
        | Gelu { x, .. }
        | Silu { x, .. }
        | Sigmoid { x, .. }
        | Tanh { x, .. }
        | Log { x, .. }
        | Softmax { x, .. }
        | Exp { x, .. }
        | Sin { x, .. }
        | Cos { x, .. }
        | Tan { x, .. }
        | Arcsin { x, .. }
        | Arccos { x, .. }
        | Arctan { x, .. }
        | Sinh { x, .. }
        | Cosh { x, .. }
        | Arcsinh { x, .. }
        | Arccosh { x, .. }
        | Arctanh { x, .. }
        | Log2 { x, .. }
        | Log10 { x, .. }
        | Log1p { x, .. }
        | Erf { x, .. }
        | Expm1 { x, .. }
        | Reciprocal { x, .. }
        | Sqrt { x, .. }
        | LogSumExp { x, .. }
        | Mean { x, .. }
        | Var { x, .. }
        | Std { x, .. }
        | Median { x, .. } => to_float(of(*x)),
        Sum { x, .. } | Prod { x, .. } => summed(of(*x)),
        Cumsum { x, .. } => match of(*x) {
            DType::Bool => DType::Int32,
            t => t,
        },
        // Promoted.
        Add { a, b, .. }
        | Multiply { a, b, .. }
        | Subtract { a, b, .. }
        | Maximum { a, b, .. }
        | Minimum { a, b, .. }
        | Power { a, b, .. }
        | Remainder { a, b, .. }
        | BitwiseAnd { a, b, .. }
        | BitwiseOr { a, b, .. }
        | BitwiseXor { a, b, .. }
        | GatherMm { a, b, .. } => promote(of(*a), of(*b)),
        Divide { a, b, .. } | FloorDivide { a, b, .. } | Atan2 { a, b, .. } | LogAddExp { a, b, .. } => to_float(promote(of(*a), of(*b))),
        Where { x, y, .. } => promote(of(*x), of(*y)),
        Clip { x, a_min, a_max, .. } => [*a_min, *a_max].into_iter().flatten().fold(of(*x), |t, bound| promote(t, of(bound))),
        Concatenate { tensors, .. } | Stack { tensors, .. } => join(tensors),
        Addmm { mat1, mat2, bias, .. } => join(&[Some(*mat1), Some(*mat2), *bias].into_iter().flatten().collect::<Vec<_>>()),
        Conv1D { x, w, .. }
        | Conv2D { x, w, .. }
        | Conv3D { x, w, .. }
        | ConvTranspose1D { x, w, .. }
        | ConvTranspose2D { x, w, .. }
        | ConvTranspose3D { x, w, .. } => promote(of(*x), of(*w)),
        RMSNorm { x, weight, .. } => weight.map_or(of(*x), |w| promote(of(*x), of(w))),
        LayerNorm { x, weight, bias, .. } => [*weight, *bias].into_iter().flatten().fold(of(*x), |t, w| promote(t, of(w))),
        Sdpa { q, k, v, .. } => join(&[*q, *k, *v]),
        UpdateAndAttend { q, out_dtype, .. } => out_dtype.unwrap_or(of(*q)),
        QuantizedMatmul { x, scales, mode, .. } | GatherQmm { x, scales, mode, .. } => {
            if mode == "affine" {
                promote(of(*x), of(*scales))
            } else {
                of(*x)
            }
        }
        Dequantize { scales, mode, dtype, .. } => dtype.unwrap_or(if mode == "affine" { of(*scales) } else { DType::BFloat16 }),
        // Fixed.
        Less { .. }
        | LessEqual { .. }
        | Greater { .. }
        | GreaterEqual { .. }
        | Equal { .. }
        | NotEqual { .. }
        | LogicalNot { .. }
        | LogicalAnd { .. }
        | LogicalOr { .. }
        | Any { .. }
        | All { .. } => DType::Bool,
        Argmax { .. } | Argmin { .. } | Argsort { .. } | ArgPartition { .. } => DType::UInt32,
        ARange { scalar_type, .. } => scalar_type.unwrap_or(DType::Int32),
        AsType { scalar_type, .. } | Full { scalar_type, .. } | Tri { scalar_type, .. } => *scalar_type,
        FullLike { x, scalar_type, .. } => scalar_type.unwrap_or(of(*x)),
        RandomBits { width, .. } => match width {
            1 => DType::UInt8,
            2 => DType::UInt16,
            _ => DType::UInt32,
        },
    })
}
