//! What goes into a method and comes out of it.

use etx_ir::DType;

use crate::tensor::Tensor;

/// An argument or a result of a method.
#[derive(Clone, Debug)]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// An integer.
    Int(i64),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text; only constant methods give them.
    Str(String),
    /// Nothing.
    None,
}

impl Value {
    /// What kind of value it is, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Tensor(_) => "tensor",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Bool(_) => "bool",
            Value::Str(_) => "string",
            Value::None => "none",
        }
    }

    /// The tensor, if it is one.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Value::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The value as a tensor: scalars become rank 0 (`i64`, `f64`, `bool`). `None` for strings and nothing.
    pub fn to_tensor(&self) -> Option<Tensor> {
        match self {
            Value::Tensor(tensor) => Some(tensor.clone()),
            Value::Int(value) => Tensor::scalar(*value).ok(),
            Value::Float(value) => Tensor::scalar(*value).ok(),
            Value::Bool(value) => Tensor::scalar(crate::tensor::Bool::from(*value)).ok(),
            Value::Str(_) | Value::None => None,
        }
    }
}

impl Value {
    /// The caller's from now on: no longer counted among what a call keeps.
    pub(crate) fn release(&self) {
        if let Value::Tensor(tensor) = self {
            tensor.release();
        }
    }
}

/// How many bytes and elements there are in all.
pub(crate) fn sizes(values: &[Value]) -> (u64, u64) {
    values.iter().filter_map(Value::as_tensor).fold((0, 0), |(bytes, elements), t| {
        let n = t.numel() as u64;
        (bytes.saturating_add(n.saturating_mul(t.dtype().size() as u64)), elements.saturating_add(n))
    })
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Value::Tensor(tensor)
    }
}

/// What a method takes or gives at one place.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueSpec {
    /// A tensor.
    Tensor {
        /// Element type.
        dtype: DType,
        /// Length of each axis; the largest one where it may vary.
        shape: Vec<u64>,
        /// Whether lengths may vary from call to call.
        dynamic: bool,
    },
    /// An integer.
    Int,
    /// A number.
    Float,
    /// A truth value.
    Bool,
    /// A text.
    Str,
    /// Anything: the file does not say (the reference writes nothing for symbolic integers and strings).
    None,
}
