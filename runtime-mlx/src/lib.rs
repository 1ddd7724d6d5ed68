//! Opens a `.pte` and runs it: what this room is for.
//!
//! A [`Runtime`] maps the file; [`Runtime::load_method`] decodes the MLX programs of one method into [`Machine`]s and
//! gives a [`Method`] to call. A machine interprets its program over an [`engine::Engine`], the library that does the
//! arithmetic; [`Cpu`] is the one in pure Rust that is always there. Portable kernels, which files of ExecuTorch's may call
//! between delegates, are computed by the evaluator of ATen operators ([`etx_ir::eval`]).
//!
//! * [`Tensor`]: a strided view of shared bytes, owned or in a mapped file.
//! * [`engine`]: what an interpreter asks of a library, by families of instructions.
//! * [`interp`]: slots, chains, branches, scans, state.
//! * [`Value`]: arguments and results; [`ValueSpec`] what a method takes and gives.
//!
//! # Laws
//! 1. *Weights are used in place.* Opening reads headers and programs; elements are paged in when a kernel reads them.
//! 2. *State is updated in place.* A key/value cache is never copied for a step that writes into it.
//! 3. *Semantics are MLX's* (promotion, result types, rounding of halves after every element-wise step, Python's
//!    remainders), with one difference: what MLX leaves undefined is an error here.
//! 4. *Nothing a file or an argument says can make this crate panic* or allocate more than
//!    [`tensor::MAX_RESULT_BYTES`] for one result, or keep more memory or run longer than its [`Limits`]. A failing call
//!    names method, chain, instruction and reason.
//! 5. *The same input gives the same output*, whatever the number of threads.
//!
//! # Example
//! ```
//! use etx_runtime_mlx::{Runtime, Tensor, Value};
//! # use etx_ir::DType;
//! # use etx_mlx::{Instr, Program, ShapeDim, Slot, TensorMeta, Tid};
//! # use etx_emit::{Delegate, DelegateOutput, Input, Method, Package, TensorSpec, Value as V, emit};
//! # use etx_serializer::{mlx::encode, pte::write};
//! # let pair = || TensorSpec::fixed(DType::Float32, [2]);
//! # let meta = TensorMeta { dtype: DType::Float32, shape: vec![ShapeDim::Static(2)], dim_order: None };
//! # // total = total + x, and the result is the total
//! # let (x, out, total) = (Tid(0), Tid(1), Tid(2));
//! # let program = Program {
//! #     num_inputs: 1, num_outputs: 1, num_mutable_buffers: 1, tensor_meta: vec![meta; 3],
//! #     input_map: vec![Slot::Tensor(x)], output_map: vec![Slot::Tensor(out)], mutable_buffer_map: vec![Slot::Tensor(total)],
//! #     chains: vec![vec![Instr::Add { a: total, b: x, out }, Instr::IdCopy { x: out, out: total }]],
//! #     ..Program::default()
//! # };
//! # let delegate = Delegate {
//! #     backend: "MLXBackend".into(), payload: encode(&program)?, inputs: vec![V::Input(0)],
//! #     outputs: vec![DelegateOutput::Tensor(pair())], ..Delegate::default()
//! # };
//! # let forward = Method {
//! #     name: "forward".into(), inputs: vec![Input::Tensor(pair())], delegates: vec![delegate],
//! #     outputs: vec![V::Result { delegate: 0, output: 0 }], ..Method::default()
//! # };
//! # let path = std::env::temp_dir().join(format!("etx-runtime-example-{}.pte", std::process::id()));
//! # write(&emit(Package { methods: vec![forward], ..Package::default() })?, &path)?;
//!
//! let runtime = Runtime::open(&path)?;
//! assert_eq!(runtime.methods().collect::<Vec<_>>(), ["forward"]);
//!
//! // This method adds its input to a buffer that it keeps.
//! let mut forward = runtime.load_method("forward")?;
//! let x = Value::from(Tensor::from_slice(&[2], &[1.0f32, 2.5])?);
//! forward.execute(std::slice::from_ref(&x))?;
//! let outputs = forward.execute(&[x])?;
//! let total = outputs[0].as_tensor().ok_or("a tensor")?;
//! assert_eq!(total.values::<f32>()?.as_ref(), [2.0, 5.0]);
//! # std::fs::remove_file(path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cpu;
pub mod engine;
pub mod error;
pub mod interp;
mod limits;
mod runtime;
pub mod tensor;
pub mod value;

pub use cpu::{Cpu, set_threads};
pub use error::{Error, ErrorKind, Result};
pub use interp::Machine;
pub use limits::Limits;
pub use runtime::{Method, Runtime};
pub use tensor::{Bool, Elem, Tensor};
pub use value::{Value, ValueSpec};
