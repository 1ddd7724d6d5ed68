//! The only calls into `etx`: everything else here knows cases, tensors and texts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::case::Value;

/// What lowering said of the file it wrote.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// Delegated partitions per method.
    pub partitions: BTreeMap<String, usize>,
    /// What the backend refused.
    pub refused: Vec<Refused>,
    /// MLX instructions over all methods, named as in the schema's table (`AddNode`).
    pub instructions: BTreeMap<String, u64>,
}

/// A node that stays outside the delegate.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Method it is in.
    pub method: String,
    /// Operator, e.g. `aten.permute.default`.
    pub op: String,
    /// The node and the backend's reason.
    pub why: String,
}

/// Lower the programs, one a method, into the file `out`.
pub fn lower(programs: &[(String, PathBuf)], out: &Path) -> Result<Lowered, String> {
    let _ = (programs, out);
    Err("etx does not lower yet".to_owned())
}

/// An opened `.pte`.
#[derive(Debug)]
pub struct File {}

/// One loaded method, with its state.
#[derive(Debug)]
pub struct Loaded {}

impl File {
    /// Open and check a file.
    pub fn open(path: &Path) -> Result<File, String> {
        let _ = path;
        Err("etx does not open files yet".to_owned())
    }

    /// Load one of its methods, its state as the file says.
    pub fn load(&self, method: &str) -> Result<Loaded, String> {
        let _ = method;
        Err("etx does not load methods yet".to_owned())
    }
}

impl Loaded {
    /// One call: the outputs in order, numbers as rank-0 tensors.
    pub fn call(&mut self, inputs: &[Value]) -> Result<Vec<Value>, String> {
        let _ = inputs;
        Err("etx does not run yet".to_owned())
    }
}
