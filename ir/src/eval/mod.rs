//! What a program computes: a plain interpreter of graphs with the semantics of eager PyTorch.
//!
//! An [`Evaluator`] runs a method as it was exported, in either dialect: views share storage, operators that work in place write
//! to it, buffers keep what was written to them from call to call. It is the definition that everything etx makes of a program
//! is compared with, so it is written to be seen to be right, and slow.
//!
//! # Numbers
//! * Integers are exact and wrap; types are promoted as torch promotes them.
//! * Every float operation is computed in `f64` and rounded to its type once. For the basic operations that *is* the
//!   operation in that type; sums, functions and composed operators come out at least as near to the true value as torch's
//!   kernels. Where eager PyTorch runs an operator as several that each round (half-precision `logsumexp`, cubes of `bf16`),
//!   so does this.
//! * Halves are rounded by way of `f32`, in which torch's processor kernels compute with them.
//! * Random numbers follow torch's distributions; which come differs at every call. Dropout inside recurrent layers, and sampling from
//!   logits that leave a choice, are refused.
//!
//! # What it knows
//! One table (`table.rs`) names the rule of every operator; `add_` follows from `add`, `view_copy` from `view`, and the
//! functional twins of operators that write from those operators. [`knows`] tells.
//!
//! ```
//! use etx_ir::DType;
//! use etx_ir::eval::{Evaluator, Tensor, Value};
//! use etx_ir::graph::{Graph, TensorType, Type};
//! use etx_ir::program::{Dialect, Input, InputKind, Method, OutputKind, Program};
//!
//! let pair = Type::Tensor(TensorType::new(DType::Int64, vec![2.into()]));
//! let mut graph = Graph::new();
//! let x = graph.add_input("x", pair.clone());
//! let twice = graph.append(etx_ir::op!("aten.mul.Tensor"), vec![x.into(), 2.into()], "twice", vec![("y", pair)], None);
//! graph.set_outputs(vec![graph.node(twice).outputs[0].into()]);
//! let method = Method {
//!     name: "forward".into(), graph, dialect: Dialect::Functional, ranges: Default::default(), guards: vec![],
//!     inputs: vec![Input { value: Some(x), kind: InputKind::User }], outputs: vec![OutputKind::User],
//!     in_spec: "".into(), out_spec: "".into(),
//! };
//! let program = Program::new();
//! let mut evaluator = Evaluator::new(&program, &method);
//! let x = Tensor::new(DType::Int64, &[2], [3i64, -4].iter().flat_map(|n| n.to_le_bytes()).collect())?;
//! let Value::Tensor(y) = &evaluator.call(&[Value::Tensor(x)])?[0] else { panic!("a tensor goes in, a tensor comes out") };
//! assert_eq!(y.bytes(), [6i64, -8].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>());
//! # Ok::<(), etx_ir::error::Error>(())
//! ```

mod arithmetic;
mod backward;
mod backward_rows;
mod backward_windows;
mod boxes;
mod calculus;
mod call;
mod create;
mod custom;
mod element;
mod functions;
mod higher;
#[cfg(test)]
mod hostile;
mod indexing;
mod joins;
mod losses;
mod matrix;
mod norm;
mod order;
mod pointwise;
mod quantised;
mod random;
mod recurrent;
mod reduce;
mod resample;
mod run;
mod scalars;
mod signal;
mod table;
mod tensor;
#[cfg(test)]
mod tests;
mod views;
mod windows;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;

use crate::DType;
use crate::budget;
use crate::error::{Error, ErrorKind};

pub use run::{Evaluator, call, call_within};
pub use table::knows;
pub use tensor::Tensor;

/// What goes into a method and comes out of it.
#[derive(Clone)]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// Python's `None`.
    None,
}

impl Value {
    /// A value that shares no storage with this one.
    fn copied(&self) -> Result<Value, Error> {
        Ok(match self {
            Value::Tensor(t) => Value::Tensor(t.copy()?),
            other => other.clone(),
        })
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Tensor(t) => write!(f, "{t:?}"),
            Value::Int(n) => write!(f, "{n}"),
            Value::Float(x) => write!(f, "{x:?}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::None => f.write_str("None"),
        }
    }
}

/// The error of a call that torch would refuse.
#[cold]
fn bad(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Evaluation, why)
}

/// What calls share that is no argument.
#[derive(Default)]
struct Session {
    /// Keys and values of each layer whose cache the runtime holds.
    caches: RefCell<BTreeMap<i64, (Tensor, Tensor)>>,
    /// The type they are held in, if it is not that of what comes in.
    cache_type: Cell<Option<DType>>,
    /// The type that products are computed in, inside of an autocast region.
    autocast: Cell<Option<DType>>,
}
