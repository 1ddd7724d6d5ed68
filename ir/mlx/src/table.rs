//! The only list of MLX instructions.
//!
//! To add an instruction, append one entry to `instructions!` below. An entry reads
//!
//! ```text
//!     /// What it computes.
//!     137 Name { x: Tid, out: Tid, weight: Option<Tid>, axis: i32, scale: f32 = 1.0 }
//! ```
//!
//! - The number is the type id on the wire. Ids are positions; new instructions go to the end. A wrong number does not
//!   compile.
//! - The FlatBuffer table is called `NameNode`; the position of a field is its id on the wire. Never reorder fields, and
//!   append new ones.
//! - Field types: `Tid`, `Vid`, the `…Or…` choices, `String` and `Vec<_>` are required; `Option<_>` may be absent; plain
//!   numbers, `bool` and `DType` have a default: `= literal`, otherwise zero, `false`, code 0. [`super::field`] lists them.
//! - The slots in a field are written by the instruction if the field is called `out`, `outs`, `outputs` or `sliced`, and
//!   read otherwise.
//!
//! The enum, encoding, decoding, printing, slot visiting, verification of slots and the documentation table follow. What
//! remains by hand: rules on list lengths, if any (`verify_instr.rs`), the kernel (`runtime-mlx`) and the lowerings that
//! emit it (`partitioner`).

use super::field::{Field, FieldSpec, FieldValue, Literal, SlotMap, access_of, numbered};
use super::ids::{Access, FloatOrVid, IntOrVid, IntOrVidOrTid, SlotRef, Tid, Vid, VidOrTid};
use super::instr::{FieldError, InstrSpec, make_field};
use etx_ir::DType;

macro_rules! instructions {
    ($(
        $(#[doc = $doc:literal])+
        $id:literal $name:ident { $($field:ident: $ty:ty $(= $default:literal)?),* $(,)? }
    )*) => {
        /// An instruction of the MLX delegate. Fields are operands in the sense of MLX; the entry in [`INSTRUCTIONS`]
        /// says what each instruction computes.
        #[allow(missing_docs, reason = "the line of the instruction says what its fields are for")]
        #[allow(clippy::large_enum_variant, reason = "boxing a kernel's texts saves little: programs have thousands of instructions, not millions")]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Instr {
            $($(#[doc = $doc])+ $name { $($field: $ty),* },)*
        }

        /// Every instruction, in the order of type ids (which start at 1).
        pub static INSTRUCTIONS: &[InstrSpec] = &[$(
            InstrSpec {
                id: $id,
                name: stringify!($name),
                wire_name: concat!(stringify!($name), "Node"),
                doc: concat!($($doc),+).trim_ascii_start(),
                fields: const {
                    &numbered([$(
                        FieldSpec::of::<$ty>(stringify!($field))$(.or_default(Literal::<$ty>($default).scalar()))?
                    ),*])
                },
            },
        )*];

        // Ids are positions.
        const _: () = {
            let ids: &[u8] = &[$($id),*];
            let mut at = 0;
            while at < ids.len() {
                assert!(ids[at] as usize == at + 1, "an instruction's number must be its position in the table");
                at += 1;
            }
        };

        impl Instr {
            /// Type id on the wire.
            pub const fn id(&self) -> u8 {
                match self { $(Instr::$name { .. } => $id,)* }
            }

            pub(super) fn field_values(&self) -> Vec<Option<FieldValue<'_>>> {
                match self { $(Instr::$name { $($field),* } => vec![$($field.get()),*],)* }
            }

            /// Makes the instruction with type id `id`, asking `source` for every field in the order of wire ids;
            /// the source answers `None` for a field that is absent.
            ///
            /// # Errors
            /// Those of the source; [`FieldError`] if there is no such instruction, a required field is absent or a
            /// value is of the wrong kind.
            pub fn from_fields<'a, E: From<FieldError>>(
                id: u8,
                mut source: impl FnMut(&'static FieldSpec) -> Result<Option<FieldValue<'a>>, E>,
            ) -> Result<Instr, E> {
                let spec = InstrSpec::from_id(id).ok_or(FieldError::UnknownInstruction(id))?;
                let mut specs = spec.fields.iter();
                match id {
                    $($id => Ok(Instr::$name { $($field: make_field(&mut specs, &mut source)?),* }),)*
                    _ => Err(FieldError::UnknownInstruction(id).into()),
                }
            }

            /// Calls `f` for every slot the instruction touches, field by field.
            pub fn visit_slots(&self, mut f: impl FnMut(SlotRef, Access)) {
                match self {
                    $(Instr::$name { $($field),* } => {
                        $($field.visit(&mut |slot| f(slot, const { access_of(stringify!($field)) }));)*
                    })*
                }
            }

            /// Renames every slot the instruction touches.
            pub fn map_slots(&mut self, mut tensor: impl FnMut(Tid) -> Tid, mut value: impl FnMut(Vid) -> Vid) {
                let map = &mut SlotMap { tensor: &mut tensor, value: &mut value };
                match self {
                    $(Instr::$name { $($field),* } => { $($field.map(map);)* })*
                }
            }
        }
    };
}

instructions! {
    /// Does nothing.
    1 Noop {}
    /// `out` is `x`; storage may be shared.
    2 IdCopy { x: Tid, out: Tid }
    /// `alpha * (mat1 @ mat2) + beta * bias`, or just the product without `bias`. Leading axes are batched as in
    /// NumPy's `matmul`; the result must be floating point.
    3 Addmm { mat1: Tid, mat2: Tid, out: Tid, bias: Option<Tid>, alpha: f32 = 1.0, beta: f32 = 1.0 }
    /// The value `out` is the only element of `x`, as a 32-bit integer: its first four bytes, whatever the type; of narrower ones also
    /// what lies behind. The delegate computes `x` for it at once.
    4 ItemInt { x: Tid, out: Vid }
    /// Inserts an axis of size 1; a negative `axis` counts in the result.
    5 ExpandDims { x: Tid, out: Tid, axis: i32 }
    /// Repeats `x` as a whole `reps[i]` times along axis `i` (NumPy's `tile`, the shorter side padded with ones).
    6 Tile { x: Tid, out: Tid, reps: Vec<IntOrVid> }
    /// Picks along `axis` by an index tensor of the same rank; the other axes broadcast. Negative indices count from the end; others
    /// out of range read whatever lies there.
    7 TakeAlongAxis { x: Tid, indices: Tid, out: Tid, axis: i32 }
    /// Picks slices along `axis`: a scalar `index` removes the axis, a tensor replaces it by its own shape. Negative indices count from
    /// the end; others out of range fail for a scalar and read whatever lies there for a tensor.
    8 Take { x: Tid, out: Tid, index: IntOrVidOrTid, axis: i32 }
    /// `x * rsqrt(mean(x²) + eps) * weight` over the last axis, computed in f32; rounded to the type of the result before the weight.
    9 RMSNorm { x: Tid, weight: Option<Tid>, out: Tid, eps: f32 }
    /// Mean/variance normalisation over the last axis, computed in f32, rounded to the type of the result, then `* weight + bias`.
    10 LayerNorm { x: Tid, out: Tid, weight: Option<Tid>, bias: Option<Tid>, eps: f32 }
    /// Rotary position embedding of the first `dims` of the last axis; positions start at `offset` along axis -2
    /// and are multiplied by `scale`. Frequencies come from `freqs` (their reciprocals) or from `base`. Metal multiplies halves in f32,
    /// MLX's CPU backend rounds sine and cosine first.
    11 Rope {
        x: Tid, out: Tid, dims: i32, offset: VidOrTid, freqs: Option<Tid>, traditional: bool, base: f32 = 500000.0,
        scale: f32 = 1.0,
    }
    /// `softmax(scale * q @ kᵀ + mask) @ v` for `[B, H, L, D]`; fewer key/value heads than query heads are shared.
    /// `causal` aligns the last query with the last key. A boolean mask hides where false. Where a mask hides a whole row, a boolean one
    /// gives the mean of all values and an added one NaN (torch: 0). The type of a mask must promote to that of the result.
    12 Sdpa { q: Tid, k: Tid, v: Tid, out: Tid, scale: f32, mask: Option<Tid>, causal: bool }
    /// `a + b`.
    13 Add { a: Tid, b: Tid, out: Tid }
    /// The value `a + b`.
    14 AddInt { a: IntOrVid, b: IntOrVid, out: Vid }
    /// The value `a - b`.
    15 SubtractInt { a: IntOrVid, b: IntOrVid, out: Vid }
    /// The value `a * b`.
    16 MultiplyInt { a: IntOrVid, b: IntOrVid, out: Vid }
    /// The value `a / b`, rounded down.
    17 FloorDivideInt { a: IntOrVid, b: IntOrVid, out: Vid }
    /// The value `a.shape[dim]`.
    18 SymSize { a: Tid, dim: i32, out: Vid }
    /// `a * b`.
    19 Multiply { a: Tid, b: Tid, out: Tid }
    /// `a / b`; integers are divided in f32.
    20 Divide { a: Tid, b: Tid, out: Tid }
    /// `a - b`.
    21 Subtract { a: Tid, b: Tid, out: Tid }
    /// Cross-correlation of `x [N, L, Cin]` with `w [Cout, K, Cin/groups]`.
    22 Conv1D { x: Tid, w: Tid, out: Tid, stride: i32 = 1, padding: i32, dilation: i32 = 1, groups: i32 = 1 }
    /// Cross-correlation of `x [N, H, W, Cin]` with `w [Cout, KH, KW, Cin/groups]`.
    23 Conv2D {
        x: Tid, w: Tid, out: Tid, stride_h: i32 = 1, stride_w: i32 = 1, padding_h: i32, padding_w: i32,
        dilation_h: i32 = 1, dilation_w: i32 = 1, groups: i32 = 1,
    }
    /// Cross-correlation of `x [N, D, H, W, Cin]` with `w [Cout, KD, KH, KW, Cin/groups]`.
    24 Conv3D {
        x: Tid, w: Tid, out: Tid, stride_d: i32 = 1, stride_h: i32 = 1, stride_w: i32 = 1, padding_d: i32,
        padding_h: i32, padding_w: i32, dilation_d: i32 = 1, dilation_h: i32 = 1, dilation_w: i32 = 1,
        groups: i32 = 1,
    }
    /// Gaussian error linear unit; `approximate` is `"none"` (erf) or `"tanh"`.
    25 Gelu { x: Tid, out: Tid, approximate: String }
    /// The integers `start`, `start + step`, … before `stop`, added up in `scalar_type` (i32 without): in f16 and bf16 they get stuck at
    /// 2048 and 256. There must be one.
    26 ARange { out: Tid, start: IntOrVid, stop: IntOrVid, step: IntOrVid, scalar_type: Option<DType> }
    /// `x * sigmoid(x)`.
    27 Silu { x: Tid, out: Tid }
    /// `1 / (1 + exp(-x))`.
    28 Sigmoid { x: Tid, out: Tid }
    /// Hyperbolic tangent.
    29 Tanh { x: Tid, out: Tid }
    /// Drops the axes `dims` where their size is 1; all such axes without `dims`.
    30 Squeeze { x: Tid, out: Tid, dims: Option<Vec<i32>> }
    /// Cuts `x` along `axis` into pieces of the given `sizes`; a single size is the size of every piece.
    31 Split { x: Tid, outs: Vec<Tid>, sizes: Vec<IntOrVid>, axis: i32 }
    /// `1 / sqrt(x)`.
    32 Rsqrt { x: Tid, out: Tid }
    /// The larger of `a` and `b`; NaN if either is.
    33 Maximum { a: Tid, b: Tid, out: Tid }
    /// The smaller of `a` and `b`; NaN if either is.
    34 Minimum { a: Tid, b: Tid, out: Tid }
    /// Natural logarithm.
    35 Log { x: Tid, out: Tid }
    /// `exp(x) / sum(exp(x))` along `axis`; `precise` accumulates in f32, otherwise the type itself.
    36 Softmax { x: Tid, out: Tid, axis: i32, precise: bool }
    /// Broadcasts `x` to `shape`; -1 keeps the size of `x`. A view with strides of 0, which element-wise instructions keep.
    37 BroadcastTo { x: Tid, out: Tid, shape: Vec<IntOrVid> }
    /// Pads by `pad_width`, a pair (before, after) for each axis, none negative; `mode` is `"constant"` or `"edge"`.
    38 Pad { x: Tid, out: Tid, pad_width: Vec<IntOrVid>, mode: String, constant_value: f32 }
    /// `x` where `condition` holds, else `y`.
    39 Where { condition: Tid, x: Tid, y: Tid, out: Tid }
    /// Reads `x` in row-major order as `shape`; one entry may be -1, unless the others have a product of 0.
    40 Reshape { x: Tid, out: Tid, shape: Vec<IntOrVid> }
    /// Permutes the axes: axis `i` of `out` is axis `perm[i]` of `x`.
    41 Transpose { x: Tid, out: Tid, perm: Vec<i32> }
    /// A view of row-major `x` by element strides and offset, which are not checked.
    42 AsStrided { x: Tid, out: Tid, shape: Vec<IntOrVid>, strides: Vec<IntOrVid>, offset: u64 }
    /// `x` in row-major storage.
    43 Contiguous { x: Tid, out: Tid }
    /// Takes the slices of `slice_sizes` that start where `indices` (one tensor for each of `axes`) point; result
    /// shape is index shape followed by `slice_sizes`, none of them 0. Indices as in `Take`.
    44 Gather { x: Tid, indices: Vec<Tid>, out: Tid, axes: Vec<i32>, slice_sizes: Vec<i32> }
    /// `x[start:stop:step]` along `axis`, by NumPy's rules.
    45 Slice { x: Tid, out: Tid, axis: IntOrVid, start: IntOrVid, stop: IntOrVid, step: i32 = 1 }
    /// Converts to `scalar_type`.
    46 AsType { x: Tid, out: Tid, scalar_type: DType }
    /// Joins along an existing axis.
    47 Concatenate { tensors: Vec<Tid>, out: Tid, axis: i32 }
    /// A tensor of `shape` filled with `v`.
    48 Full { out: Tid, shape: Vec<IntOrVid>, v: FloatOrVid, scalar_type: DType }
    /// A tensor with the shape of `x` filled with `v`, in the dtype of `x` unless `scalar_type` is given.
    49 FullLike { x: Tid, out: Tid, v: FloatOrVid, scalar_type: Option<DType> }
    /// Index (u32) of the first largest element along `axis`. NaN is passed over (on MLX's CPU backend unless it comes first); a tensor
    /// without elements is an error.
    50 Argmax { x: Tid, out: Tid, axis: i32, keepdims: bool }
    /// `dst` with `dst[start:stop:step]` along `axis` replaced by `update`, which is broadcast; in place where `out` is `dst`. `dst` is no
    /// constant. Where all of it is replaced, the result is the update and may share its memory.
    51 SliceUpdate {
        dst: Tid, update: Tid, out: Tid, axis: IntOrVid, start: IntOrVid, stop: IntOrVid, step: i32 = 1,
    }
    /// `dst` with the slices at `indices` (1-D, i64) along `axis` replaced by those of `update`; in place where
    /// `out` is `dst`. `dst` is no constant; the update has as many slices as there are indices. The delegate reads the indices on the
    /// host, one after the other from where they begin in memory: they must not be a view with strides.
    52 IndexCopy { dst: Tid, update: Tid, indices: Tid, out: Tid, axis: i32 }
    /// Packed weights `w` back to numbers, by groups of `group_size` with `scales` and `biases`; `mode` names the
    /// format (`"affine"`, `"nvfp4"`, `"mxfp8"`, …).
    53 Dequantize {
        w: Tid, scales: Tid, out: Tid, biases: Option<Tid>, group_size: i32, bits: i32, mode: String,
        global_scale: Option<Tid>, dtype: Option<DType>,
    }
    /// `a < b`.
    54 Less { a: Tid, b: Tid, out: Tid }
    /// `a <= b`.
    55 LessEqual { a: Tid, b: Tid, out: Tid }
    /// `a > b`.
    56 Greater { a: Tid, b: Tid, out: Tid }
    /// `a >= b`.
    57 GreaterEqual { a: Tid, b: Tid, out: Tid }
    /// `a == b`.
    58 Equal { a: Tid, b: Tid, out: Tid }
    /// `a != b`.
    59 NotEqual { a: Tid, b: Tid, out: Tid }
    /// `x == 0`.
    60 LogicalNot { x: Tid, out: Tid }
    /// `a` and `b` both not zero.
    61 LogicalAnd { a: Tid, b: Tid, out: Tid }
    /// `a` or `b` not zero.
    62 LogicalOr { a: Tid, b: Tid, out: Tid }
    /// An `n × m` matrix of ones on and below diagonal `k`, zeros above it.
    63 Tri { out: Tid, n: IntOrVid, m: IntOrVid, k: i32, scalar_type: DType }
    /// The lower triangle of `x`, from diagonal `k` down.
    64 Tril { x: Tid, out: Tid, k: i32 }
    /// The upper triangle of `x`, from diagonal `k` up.
    65 Triu { x: Tid, out: Tid, k: i32 }
    /// Rounds down.
    66 Floor { x: Tid, out: Tid }
    /// Rounds up.
    67 Ceil { x: Tid, out: Tid }
    /// `x * x`.
    68 Square { x: Tid, out: Tid }
    /// `e^x`.
    69 Exp { x: Tid, out: Tid }
    /// Sine.
    70 Sin { x: Tid, out: Tid }
    /// Cosine.
    71 Cos { x: Tid, out: Tid }
    /// Tangent.
    72 Tan { x: Tid, out: Tid }
    /// Inverse sine.
    73 Arcsin { x: Tid, out: Tid }
    /// Inverse cosine.
    74 Arccos { x: Tid, out: Tid }
    /// Inverse tangent.
    75 Arctan { x: Tid, out: Tid }
    /// Hyperbolic sine.
    76 Sinh { x: Tid, out: Tid }
    /// Hyperbolic cosine.
    77 Cosh { x: Tid, out: Tid }
    /// Inverse hyperbolic sine.
    78 Arcsinh { x: Tid, out: Tid }
    /// Inverse hyperbolic cosine.
    79 Arccosh { x: Tid, out: Tid }
    /// Inverse hyperbolic tangent.
    80 Arctanh { x: Tid, out: Tid }
    /// Logarithm to base 2.
    81 Log2 { x: Tid, out: Tid }
    /// Logarithm to base 10.
    82 Log10 { x: Tid, out: Tid }
    /// `log(1 + x)`, exact near zero.
    83 Log1p { x: Tid, out: Tid }
    /// The error function.
    84 Erf { x: Tid, out: Tid }
    /// `exp(x) - 1`, exact near zero.
    85 Expm1 { x: Tid, out: Tid }
    /// Rounds to `decimals` places, halves to even.
    86 Round { x: Tid, out: Tid, decimals: i32 }
    /// `1 / x`.
    87 Reciprocal { x: Tid, out: Tid }
    /// Square root.
    88 Sqrt { x: Tid, out: Tid }
    /// Absolute value.
    89 Abs { x: Tid, out: Tid }
    /// `-x`.
    90 Neg { x: Tid, out: Tid }
    /// The angle of the point (`b`, `a`).
    91 Atan2 { a: Tid, b: Tid, out: Tid }
    /// `log(exp(a) + exp(b))`.
    92 LogAddExp { a: Tid, b: Tid, out: Tid }
    /// `a / b` rounded down; integers are divided in f32 and only corrected by sign, not rounded.
    93 FloorDivide { a: Tid, b: Tid, out: Tid }
    /// `a` to the power `b`. An integer to a negative power never ends on MLX's CPU backend and is 0 on Metal: no program may ask for one.
    94 Power { a: Tid, b: Tid, out: Tid }
    /// `log(sum(exp(x)))` over `axes`: the last one alone in f32, others in the type itself. A tensor without elements is an error.
    95 LogSumExp { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool }
    /// Sum over `axes` (all without). Halves are rounded at every step; integers of 8 and 16 bits, and booleans, become 32 bits wide.
    96 Sum { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool }
    /// Mean over `axes` (all without): the sum, as `Sum` has it, times the reciprocal of the count in the type itself.
    97 Mean { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool }
    /// Variance over `axes` (all without); divides by the count less `ddof`, at least 0. Halves are rounded at every step.
    98 Var { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool, ddof: i32 }
    /// Standard deviation over `axes` (all without): the root of `Var`.
    99 Std { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool, ddof: i32 }
    /// Product over `axes` (all without); types and rounding as in `Sum`.
    100 Prod { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool }
    /// Largest element over `axes` (all without).
    101 Max { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool }
    /// Smallest element over `axes` (all without).
    102 Min { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool }
    /// Index (u32) of the first smallest element along `axis`. NaN and no elements as in `Argmax`.
    103 Argmin { x: Tid, out: Tid, axis: i32, keepdims: bool }
    /// Median over `axes` (all without). NaN sorts last; from MLX 0.32.2 on it is the result.
    104 Median { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool }
    /// The value `a` modulo `b`, with the sign of `b`.
    105 ModInt { a: IntOrVid, b: IntOrVid, out: Vid }
    /// `a` modulo `b`, with the sign of `b`.
    106 Remainder { a: Tid, b: Tid, out: Tid }
    /// Transposed convolution of `x [N, L, Cin]` with `w [Cout, K, Cin/groups]`.
    107 ConvTranspose1D {
        x: Tid, w: Tid, out: Tid, stride: i32 = 1, padding: i32, dilation: i32 = 1, output_padding: i32,
        groups: i32 = 1,
    }
    /// Transposed convolution of `x [N, H, W, Cin]` with `w [Cout, KH, KW, Cin/groups]`.
    108 ConvTranspose2D {
        x: Tid, w: Tid, out: Tid, stride_h: i32 = 1, stride_w: i32 = 1, padding_h: i32, padding_w: i32,
        dilation_h: i32 = 1, dilation_w: i32 = 1, output_padding_h: i32, output_padding_w: i32, groups: i32 = 1,
    }
    /// Transposed convolution of `x [N, D, H, W, Cin]` with `w [Cout, KD, KH, KW, Cin/groups]`.
    109 ConvTranspose3D {
        x: Tid, w: Tid, out: Tid, stride_d: i32 = 1, stride_h: i32 = 1, stride_w: i32 = 1, padding_d: i32,
        padding_h: i32, padding_w: i32, dilation_d: i32 = 1, dilation_h: i32 = 1, dilation_w: i32 = 1,
        output_padding_d: i32, output_padding_h: i32, output_padding_w: i32, groups: i32 = 1,
    }
    /// `min(max(x, a_min), a_max)`; a bound that is absent does not apply.
    110 Clip { x: Tid, out: Tid, a_min: Option<Tid>, a_max: Option<Tid> }
    /// Running sum along `axis`, from the end if `reverse`, without the element itself unless `inclusive`; rounded to the type at every
    /// step.
    111 Cumsum { x: Tid, out: Tid, axis: i32, reverse: bool, inclusive: bool = true }
    /// Joins along a new axis.
    112 Stack { tensors: Vec<Tid>, out: Tid, axis: i32 }
    /// -1, 0 or 1.
    113 Sign { x: Tid, out: Tid }
    /// Whether some element over `axes` (all without) is not zero.
    114 Any { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool }
    /// Whether every element over `axes` (all without) is not zero.
    115 All { x: Tid, out: Tid, axes: Option<Vec<i32>>, keepdims: bool }
    /// Every element `repeats` times in a row along `axis`.
    116 Repeat { x: Tid, out: Tid, repeats: IntOrVid, axis: i32 }
    /// Ascending along `axis`, NaN last.
    117 Sort { x: Tid, out: Tid, axis: i32 }
    /// The indices (u32) that sort ascending along `axis`.
    118 Argsort { x: Tid, out: Tid, axis: i32 }
    /// Along `axis`, the element that sorting would put at `kth` is there, smaller ones before and larger ones
    /// after it.
    119 Partition { x: Tid, out: Tid, kth: IntOrVid, axis: i32 }
    /// The indices (u32) that partition as `Partition` does.
    120 ArgPartition { x: Tid, out: Tid, kth: IntOrVid, axis: i32 }
    /// `x @ w` with packed weights `w`, transposed if `transpose`; grouping and `mode` as in `Dequantize`.
    121 QuantizedMatmul {
        x: Tid, w: Tid, scales: Tid, out: Tid, biases: Option<Tid>, group_size: i32, bits: i32, mode: String,
        transpose: bool = true,
    }
    /// `x` with `updates` added at `indices` along `axis`, each sum rounded to the type. Indices as in `Take`; the others write elsewhere.
    122 ScatterAdd { x: Tid, indices: Tid, updates: Tid, out: Tid, axis: i32 }
    /// Batched `a[lhs_indices] @ b[rhs_indices]`. `sorted_indices_flag`, when present, wins over `sorted_indices`;
    /// not zero promises sorted indices.
    123 GatherMm {
        a: Tid, b: Tid, out: Tid, lhs_indices: Option<Tid>, rhs_indices: Option<Tid>, sorted_indices: bool,
        sorted_indices_flag: Option<IntOrVid>,
    }
    /// `GatherMm` with packed weights `w`, as in `QuantizedMatmul`.
    124 GatherQmm {
        x: Tid, w: Tid, scales: Tid, out: Tid, mode: String, biases: Option<Tid>, lhs_indices: Option<Tid>,
        rhs_indices: Option<Tid>, transpose: bool = true, group_size: i32, bits: i32, sorted_indices: bool,
        sorted_indices_flag: Option<IntOrVid>,
    }
    /// For each step along `scan_axis`: puts the slices of `originals` into `sliced`, runs the body chain,
    /// collects `outputs`; stacks these in the end. The body reads and writes the `carry` tensors. There must be a step.
    125 Scan {
        originals: Vec<Tid>, sliced: Vec<Tid>, outputs: Vec<Tid>, carry: Vec<Tid>, body_chain_idx: i32,
        scan_axis: i32 = 1,
    }
    /// Runs Metal source text. `output_shapes_flat` holds the shapes of all outputs one after the other,
    /// `output_shape_lengths` the rank of each. Template arguments have a kind: 0 int, 1 bool, otherwise dtype.
    126 MetalKernel {
        name: String, source: String, inputs: Vec<Tid>, outputs: Vec<Tid>, grid: Vec<IntOrVid>,
        threadgroup: Vec<IntOrVid>, header: Option<String>, input_names: Option<Vec<String>>,
        output_names: Option<Vec<String>>, ensure_row_contiguous: bool = true, atomic_outputs: bool,
        output_shapes_flat: Option<Vec<IntOrVid>>, output_shape_lengths: Option<Vec<i32>>,
        output_dtypes: Option<Vec<DType>>, template_arg_names: Option<Vec<String>>,
        template_arg_kinds: Option<Vec<i8>>, template_arg_values: Option<Vec<i32>>, init_value: Option<f32>,
    }
    /// `!x`, bit by bit.
    127 BitwiseInvert { x: Tid, out: Tid }
    /// Shifts circularly by `shift[i]` along `axes[i]`.
    128 Roll { x: Tid, out: Tid, shift: Vec<IntOrVid>, axes: Vec<i32> }
    /// `a & b`, bit by bit.
    129 BitwiseAnd { a: Tid, b: Tid, out: Tid }
    /// `a | b`, bit by bit.
    130 BitwiseOr { a: Tid, b: Tid, out: Tid }
    /// `a ^ b`, bit by bit.
    131 BitwiseXor { a: Tid, b: Tid, out: Tid }
    /// Runs the chain `then_chain_idx` if `cond` is not zero, else `else_chain_idx`.
    132 If { cond: IntOrVid, then_chain_idx: u32, else_chain_idx: u32 }
    /// Random unsigned integers of `width` bytes (1, 2, 4); reproducible from `seed`.
    133 RandomBits { out: Tid, shape: Vec<IntOrVid>, seed: Option<Vid>, width: i32 = 4 }
    /// Writes `k` and `v` at `position` into the cache of layer `layer_id` that the runtime holds, then attends
    /// with `q` over the cache. `layer_id` and `scale` must be present when run. The batch is of one sequence, keys and values are of one
    /// width; the position is the first element of `position`, i32 or i64.
    134 UpdateAndAttend {
        q: Tid, k: Tid, v: Tid, position: Tid, out: Tid, layer_id: Option<i32>, scale: Option<f32>,
        out_dtype: Option<DType>,
    }
    /// Rounds toward zero.
    135 Trunc { x: Tid, out: Tid }
    /// Reverses the listed axes.
    136 Flip { x: Tid, out: Tid, axes: Vec<i32> }
}
