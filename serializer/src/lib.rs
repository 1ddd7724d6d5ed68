//! Bytes: what a `.pte` file is, read and written.
//!
//! This crate turns descriptions into files and files into descriptions. It knows the formats and nothing else: no ATen
//! operator has a rule here, and no tensor is computed here.
//!
//! * [`pte`]: the container. [`pte::PteFile`] opens any file of the reference; [`pte::write`] makes one from plans, delegate
//!   payloads and weights; [`pte::model`] is the schema, declared once, from which both derive.
//! * [`mlx`]: the payload of the MLX delegate, from and to [`etx_mlx::Program`].
//! * [`flat`] and [`window`]: how untrusted bytes are read; [`error`]: how it is said when they are wrong; [`mod@file`]: how
//!   files come to be completely or not at all.
//!
//! # Invariants
//! 1. *Hostile bytes end in an error.* Every read goes through a checked [`window::Window`]; offsets in errors are those of
//!    the whole file. Nothing panics, overflows or hangs, and memory in use is bounded by the size of the input.
//! 2. *Broken rules are collected*, each with its place, and reported together ([`Error::problems`]).
//! 3. *What is written can be read*: the writer asks the same rules as the reader, and reads back what it encoded when it
//!    runs with debug assertions.
//! 4. *The layout is known before the first byte is written.* Weights are descriptions until then; they stream, in
//!    parallel and through small buffers, from where they are into their place. Memory does not grow with them.
//! 5. *Equal weights are written once*: equal by identity first (tied weights), then by content.
//! 6. *A file is there completely or not at all*: it is written under another name and renamed.
//! 7. *The same input gives the same bytes.*
//!
//! # Example
//! A program of one method, run by one delegate with one weight, is written, opened again and looked into:
//!
//! ```
//! use etx_ir::{DType, weights::TensorData};
//! use etx_emit::{Delegate, DelegateOutput, Input, Method, Package, TensorSpec, Value, emit};
//! use etx_serializer::pte::{NamedBlob, PteFile, write};
//!
//! let vector = || TensorSpec::fixed(DType::Float32, [2]);
//! let delegate = Delegate {
//!     backend: "MLXBackend".into(),
//!     payload: b"what the backend understands".to_vec(),
//!     inputs: vec![Value::Input(0)],
//!     outputs: vec![DelegateOutput::Tensor(vector())],
//!     ..Delegate::default()
//! };
//! let forward = Method {
//!     name: "forward".into(),
//!     inputs: vec![Input::Tensor(vector())],
//!     delegates: vec![delegate],
//!     outputs: vec![Value::Result { delegate: 0, output: 0 }],
//!     ..Method::default()
//! };
//! let weight = TensorData::inline(DType::Float32, vec![2], vec![0; 8])?;
//! let named_data = vec![NamedBlob { key: "3fd2/w".into(), data: weight, alignment: 16 }];
//!
//! let path = std::env::temp_dir().join("etx-serializer-example.pte");
//! let stats = write(&emit(Package { methods: vec![forward], named_data, ..Package::default() })?, &path)?;
//! let file = PteFile::open(&path)?;
//! assert_eq!(stats.file_bytes, file.bytes().len() as u64);
//! assert_eq!(file.method("forward")?.inputs, [0]);
//! assert_eq!(file.named_tensor("3fd2/w", DType::Float32, &[2])?.byte_len(), 8);
//! # std::fs::remove_file(path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod error;
pub mod file;
pub mod flat;
pub mod mlx;
pub mod pte;
pub mod window;

pub use error::{Error, ErrorKind, Result};
