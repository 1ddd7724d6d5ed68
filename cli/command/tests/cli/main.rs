//! The command as people use it: the built binary, its files, its words, its exit status.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_input;
mod declines;
mod files;
mod first_contact;
#[cfg(feature = "generate")]
mod generate;
mod hostile;
mod quantize;
mod sizes;
mod snapshots;
mod support;
mod verbs;

/// A program with a node whose result has a size that only its data decide.
const REFUSED: &str = r#"etir 1
file $model "model.py"
method "forward" functional {
  input %x : f32[3] = user
  %where : i64[u0, 1] = aten.nonzero.default(%x) at $model:7 in forward of net.mask
  return %where
}
"#;
