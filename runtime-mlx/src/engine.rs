//! What an interpreter needs of the library that does the arithmetic.
//!
//! The instructions of an MLX program fall into families that differ only in the function applied. Each family is listed
//! once here; the list gives the operator's name to the engine and recognises the instruction for the interpreter.

use etx_ir::mlx::{Instr, Tid};

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
