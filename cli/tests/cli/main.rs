//! The command as people use it: the built binary, its files, its words, its exit status.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_input;
mod snapshots;
mod support;
mod verbs;
