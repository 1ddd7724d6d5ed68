//! What an interpreter needs of the library that does the arithmetic.
//!
//! The instructions of an MLX program fall into families that differ only in the function applied. Each family is listed
//! once here; the list gives the operator's name to the engine and recognises the instruction for the interpreter.

use etx_ir::DType;
use etx_mlx::{Instr, Tid};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

macro_rules! family {
    (
        $(#[$doc:meta])* $family:ident, $of:ident($($operand:ident),*) $(+ $extra:ident: $ty:ty)?:
        $($name:ident)*
    ) => {
        $(#[$doc])*
        #[allow(missing_docs, reason = "named after the instruction, which says what it computes")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $family { $($name),* }

        impl $family {
            /// The name of the instruction.
            pub const fn name(self) -> &'static str {
                match self { $($family::$name => stringify!($name)),* }
            }

            family!(@of $family $of ($($operand)*) [$($name)*]);
        }
    };
    (@of $family:ident unary ($x:ident) [$($name:ident)*]) => {
        /// The operator, operand and result of an instruction of this family.
        pub(crate) fn of(instr: &Instr) -> Option<(Self, Tid, Tid)> {
            match *instr {
                $(Instr::$name { x, out } => Some((Self::$name, x, out)),)*
                _ => None,
            }
        }
    };
    (@of $family:ident binary ($a:ident $b:ident) [$($name:ident)*]) => {
        /// The operator, operands and result of an instruction of this family.
        pub(crate) fn of(instr: &Instr) -> Option<(Self, Tid, Tid, Tid)> {
            match *instr {
                $(Instr::$name { a, b, out } => Some((Self::$name, a, b, out)),)*
                _ => None,
            }
        }
    };
    (@of $family:ident reduce ($x:ident) [$($name:ident)*]) => {
        /// The operator, operand, axes, whether to keep them, and result of an instruction of this family.
        pub(crate) fn of(instr: &Instr) -> Option<(Self, Tid, &[i32], bool, Tid)> {
            match instr {
                $(Instr::$name { x, out, axes, keepdims } =>
                    Some((Self::$name, *x, axes.as_deref().unwrap_or(&[]), *keepdims, *out)),)*
                _ => None,
            }
        }
    };
}

family! {
    /// Element-wise operators with one operand.
    Unary, unary(x):
    Floor Ceil Trunc Square Abs Sign Neg LogicalNot BitwiseInvert
    Exp Expm1 Log Log2 Log10 Log1p Sqrt Rsqrt Reciprocal Sin Cos Tan Arcsin Arccos Arctan Sinh Cosh Tanh Arcsinh Arccosh
    Arctanh Erf Sigmoid Silu
}

family! {
    /// Element-wise operators with two operands, which are promoted and broadcast together.
    Binary, binary(a, b):
    Add Subtract Multiply Divide FloorDivide Remainder Power Maximum Minimum Atan2 LogAddExp
    Less LessEqual Greater GreaterEqual Equal NotEqual LogicalAnd LogicalOr BitwiseAnd BitwiseOr BitwiseXor
}

family! {
    /// Reductions over some axes (all of them if none are given).
    Reduce, reduce(x):
    Sum Mean Prod Max Min Any All LogSumExp Median
}

/// Geometry of a convolution; one entry for each spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after the instruction's fields")]
pub struct Conv {
    pub stride: Vec<i64>,
    pub padding: Vec<i64>,
    pub dilation: Vec<i64>,
    pub groups: i64,
}

/// A quantised matrix: packed codes with a scale (and, for mode "affine", a bias) for each group.
#[derive(Debug)]
#[allow(missing_docs, reason = "named after the instruction's fields")]
pub struct Quantized<'a, A> {
    pub w: &'a A,
    pub scales: &'a A,
    pub biases: Option<&'a A>,
    pub group_size: i32,
    pub bits: i32,
    pub mode: &'a str,
}

// By hand: references are copied, whatever they refer to.
impl<A> Clone for Quantized<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Quantized<'_, A> {}

/// Rotary embedding; see the instruction.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "named after the instruction's fields")]
pub struct Rope<'a, A> {
    pub dims: i32,
    /// Rank 0, or one for each batch.
    pub offset: &'a A,
    pub freqs: Option<&'a A>,
    pub traditional: bool,
    pub base: f32,
    pub scale: f32,
}

/// A call of a kernel that a program carries as Metal source; see the instruction.
#[derive(Debug)]
#[allow(missing_docs, reason = "named after the instruction's fields")]
pub struct Kernel<'a, A> {
    pub name: &'a str,
    pub inputs: Vec<A>,
    /// Shape and element type of each result.
    pub outputs: Vec<(Vec<i64>, DType)>,
}

/// A library that computes with arrays, as far as MLX programs need it.
///
/// Methods take arrays of any shape and type and say with an error that they do not fit. `axis` and `axes` count from
/// the end when negative; lists of axes that are empty mean all. What each method computes is said at the instruction
/// of that name in [`etx_mlx::INSTRUCTIONS`].
#[allow(missing_docs, reason = "named after the instructions, which say what they compute")]
pub trait Engine: Send {
    /// An array; cloning it must be cheap and its elements must never change under a clone.
    type Array: Clone + Send;

    /// Runs `work`, which is one call of a program. An engine that has something to hold for so long, such as threads,
    /// does it here.
    fn session<R: Send>(work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    /// The tensor as an array of this engine.
    fn upload(&self, tensor: &Tensor) -> Result<Self::Array>;
    /// The array as a tensor.
    fn download(&self, array: &Self::Array) -> Result<Tensor>;
    /// Length of each axis.
    fn shape(&self, x: &Self::Array) -> Vec<usize>;
    /// Element type.
    fn dtype(&self, x: &Self::Array) -> DType;
    /// The only element, as an integer.
    fn item_int(&self, x: &Self::Array) -> Result<i64>;

    fn unary(&self, op: Unary, x: &Self::Array) -> Result<Self::Array>;
    fn binary(&self, op: Binary, a: &Self::Array, b: &Self::Array) -> Result<Self::Array>;
    fn reduce(&self, op: Reduce, x: &Self::Array, axes: &[i32], keepdims: bool) -> Result<Self::Array>;
    fn variance(&self, x: &Self::Array, axes: &[i32], keepdims: bool, ddof: i32, root: bool) -> Result<Self::Array>;
    fn arg_extreme(&self, x: &Self::Array, axis: i32, keepdims: bool, largest: bool) -> Result<Self::Array>;
    fn cumsum(&self, x: &Self::Array, axis: i32, reverse: bool, inclusive: bool) -> Result<Self::Array>;
    fn softmax(&self, x: &Self::Array, axis: i32, precise: bool) -> Result<Self::Array>;
    fn round(&self, x: &Self::Array, decimals: i32) -> Result<Self::Array>;
    fn gelu(&self, x: &Self::Array, approximate: &str) -> Result<Self::Array>;
    fn select(&self, condition: &Self::Array, x: &Self::Array, y: &Self::Array) -> Result<Self::Array>;
    fn clip(&self, x: &Self::Array, low: Option<&Self::Array>, high: Option<&Self::Array>) -> Result<Self::Array>;
    fn cast(&self, x: &Self::Array, dtype: DType) -> Result<Self::Array>;

    fn contiguous(&self, x: &Self::Array) -> Result<Self::Array>;
    fn reshape(&self, x: &Self::Array, shape: &[i64]) -> Result<Self::Array>;
    fn transpose(&self, x: &Self::Array, perm: &[i32]) -> Result<Self::Array>;
    fn expand_dims(&self, x: &Self::Array, axis: i32) -> Result<Self::Array>;
    fn squeeze(&self, x: &Self::Array, dims: &[i32]) -> Result<Self::Array>;
    fn broadcast_to(&self, x: &Self::Array, shape: &[i64]) -> Result<Self::Array>;
    fn as_strided(&self, x: &Self::Array, shape: &[i64], strides: &[i64], offset: u64) -> Result<Self::Array>;
    fn tile(&self, x: &Self::Array, reps: &[i64]) -> Result<Self::Array>;
    fn repeat(&self, x: &Self::Array, repeats: i64, axis: i32) -> Result<Self::Array>;
    fn concatenate(&self, parts: &[Self::Array], axis: i32) -> Result<Self::Array>;
    fn stack(&self, parts: &[Self::Array], axis: i32) -> Result<Self::Array>;
    fn split(&self, x: &Self::Array, sizes: &[i64], axis: i32, pieces: usize) -> Result<Vec<Self::Array>>;
    fn pad(&self, x: &Self::Array, widths: &[i64], mode: &str, value: f32) -> Result<Self::Array>;
    fn roll(&self, x: &Self::Array, shifts: &[i64], axes: &[i32]) -> Result<Self::Array>;
    fn flip(&self, x: &Self::Array, axes: &[i32]) -> Result<Self::Array>;
    fn slice(&self, x: &Self::Array, axis: i64, start: i64, stop: i64, step: i32) -> Result<Self::Array>;
    /// Overwrites `start..stop` by `step` along `axis`, in place if nobody else holds the array.
    fn slice_update(&self, dst: &mut Self::Array, update: &Self::Array, axis: i64, bounds: (i64, i64), step: i32) -> Result<()>;
    /// Overwrites slices along `axis`, in place if nobody else holds the array.
    fn index_copy(&self, dst: &mut Self::Array, update: &Self::Array, indices: &Self::Array, axis: i32) -> Result<()>;

    /// The slice at one index; the axis is removed.
    fn take_at(&self, x: &Self::Array, index: i64, axis: i32) -> Result<Self::Array>;
    fn take(&self, x: &Self::Array, indices: &Self::Array, axis: i32) -> Result<Self::Array>;
    fn take_along_axis(&self, x: &Self::Array, indices: &Self::Array, axis: i32) -> Result<Self::Array>;
    fn gather(&self, x: &Self::Array, indices: &[Self::Array], axes: &[i32], slice_sizes: &[i32]) -> Result<Self::Array>;
    fn scatter_add(&self, x: &Self::Array, indices: &Self::Array, updates: &Self::Array, axis: i32) -> Result<Self::Array>;

    fn full(&self, shape: &[i64], value: f32, dtype: DType) -> Result<Self::Array>;
    fn arange(&self, start: i64, stop: i64, step: i64, dtype: DType) -> Result<Self::Array>;
    fn triangle(&self, x: &Self::Array, k: i32, upper: bool) -> Result<Self::Array>;
    /// Random bits of `width` bytes each; without a seed, different at every call.
    fn random_bits(&self, shape: &[i64], seed: Option<i64>, width: i32) -> Result<Self::Array>;

    fn sort(&self, x: &Self::Array, axis: i32) -> Result<Self::Array>;
    fn argsort(&self, x: &Self::Array, axis: i32) -> Result<Self::Array>;
    fn partition(&self, x: &Self::Array, kth: i64, axis: i32) -> Result<Self::Array>;
    fn arg_partition(&self, x: &Self::Array, kth: i64, axis: i32) -> Result<Self::Array>;

    /// `alpha * (a @ b) + beta * bias`, or just the product without `bias`.
    fn addmm(&self, a: &Self::Array, b: &Self::Array, bias: Option<&Self::Array>, alpha: f32, beta: f32) -> Result<Self::Array>;
    fn gather_mm(&self, a: &Self::Array, b: &Self::Array, lhs: Option<&Self::Array>, rhs: Option<&Self::Array>) -> Result<Self::Array>;
    fn quantized_matmul(&self, x: &Self::Array, w: Quantized<'_, Self::Array>, transpose: bool) -> Result<Self::Array>;
    fn gather_qmm(
        &self,
        x: &Self::Array,
        w: Quantized<'_, Self::Array>,
        lhs: Option<&Self::Array>,
        rhs: Option<&Self::Array>,
        transpose: bool,
    ) -> Result<Self::Array>;
    fn dequantize(&self, w: Quantized<'_, Self::Array>, global_scale: Option<&Self::Array>, dtype: Option<DType>) -> Result<Self::Array>;

    fn conv(&self, x: &Self::Array, w: &Self::Array, geometry: &Conv) -> Result<Self::Array>;
    fn conv_transpose(&self, x: &Self::Array, w: &Self::Array, geometry: &Conv, output_padding: &[i64]) -> Result<Self::Array>;

    fn rms_norm(&self, x: &Self::Array, weight: Option<&Self::Array>, eps: f32) -> Result<Self::Array>;
    fn layer_norm(&self, x: &Self::Array, weight: Option<&Self::Array>, bias: Option<&Self::Array>, eps: f32) -> Result<Self::Array>;
    fn rope(&self, x: &Self::Array, how: Rope<'_, Self::Array>) -> Result<Self::Array>;
    fn sdpa(
        &self,
        q: &Self::Array,
        k: &Self::Array,
        v: &Self::Array,
        scale: f32,
        mask: Option<&Self::Array>,
        causal: bool,
    ) -> Result<Self::Array>;

    /// A kernel given as source for Apple GPUs, if this engine can run it; one result for each of `outputs`.
    fn metal_kernel(&self, kernel: &Kernel<'_, Self::Array>) -> Result<Vec<Self::Array>> {
        Err(Error::unsupported(format!("the Metal kernel `{}` runs on Apple GPUs only", kernel.name)))
    }
}
