//! Whole-system tests of etx: what its public interface does with real programs.
//!
//! The conformance runner (`cargo test -p etx-tests --test conformance`) walks folders of cases. A case is a program exported by
//! PyTorch, inputs, and what eager PyTorch answers, with the summary of what ExecuTorch's own MLX lowering made of it. The runner lowers
//! the program, writes the file, opens it again, makes the calls in order and compares; then it runs the reference's file too.
//!
//! | module | what |
//! |---|---|
//! | [`case`] | a case folder: `case.json`, programs, `io.safetensors` |
//! | [`tensor`] | plain tensors, as they travel between files, etx and the comparison |
//! | [`compare`] | whether two tensors agree within a case's limits, and where they differ most |
//! | [`driver`] | the only calls into `etx` |
//! | [`check`] | one case through lower, write, open, run, compare |
//! | [`eager`] | programs evaluated as they are |
//! | [`known`] | the lists of known failures and of cases with more instructions |
//! | [`report`] | the table at the end and the JSON results |
//!
//! # Laws
//! 1. Expected values come from eager PyTorch alone, never from etx or the reference.
//! 2. Tolerances are the case's own. Integers and booleans must be equal.
//! 3. A listed failure that no longer fails makes the run fail, so the list only shrinks.
//! 4. More instructions than the reference need a listed reason, and go from the list with it.
//!
//! ```
//! use etx_tests::compare::{Limit, compare};
//! use etx_tests::tensor::Tensor;
//! use safetensors::Dtype;
//!
//! let one = Tensor::scalar(Dtype::F32, 1.0f32.to_le_bytes());
//! let near = Tensor::scalar(Dtype::F32, 1.001f32.to_le_bytes());
//! assert!(compare(&near, &one, Limit::Elementwise { rtol: 1e-2, atol: 0.0 }).is_ok());
//! assert!(compare(&near, &one, Limit::Elementwise { rtol: 1e-5, atol: 0.0 }).is_err());
//! ```

pub mod case;
pub mod check;
pub mod compare;
pub mod driver;
pub mod eager;
pub mod known;
pub mod report;
pub mod tensor;
