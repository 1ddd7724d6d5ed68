//! What a file says about its model in methods that return constants.

use etx::runtime::{Runtime, Value};

use super::Error;

/// What a language model's file says about it. Exporters differ in what they write and under which names; what is not
/// there is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Tokens that fit prompt and answer together (`get_max_context_len`, `get_max_ctx_len`, `get_max_seq_len`, `max_seq_len`).
    pub context: Option<usize>,
    /// Tokens that one call should take at most (`get_prefill_chunk_size`, `get_max_prefill_chunk`).
    pub chunk: Option<usize>,
    /// Token ids are below this (`get_vocab_size`, `vocab_size`); the width of the logits, where the file does not say.
    pub vocabulary: Option<usize>,
    /// The token that begins a text (`get_bos_id`).
    pub bos: Option<u32>,
    /// Tokens that end one (`get_eos_ids`, `get_eos_id`).
    pub eos: Vec<u32>,
    /// Whether keys and values are kept from call to call (`use_kv_cache`).
    pub cached: Option<bool>,
}

impl Facts {
    /// Calls the constant methods of a file. What ExecuTorch's exporters write for "unknown" (negative numbers) counts
    /// as not written.
    ///
    /// # Errors
    /// Those of loading or calling such a method.
    pub fn read(runtime: &Runtime) -> Result<Self, Error> {
        let names: Vec<&str> = runtime.methods().collect();
        // The first of the names that there is.
        let look = |candidates: &[&str]| -> Result<Vec<i64>, Error> {
            match candidates.iter().find(|name| names.contains(name)) {
                Some(name) => integers(runtime, name),
                None => Ok(Vec::new()),
            }
        };
        let size = |candidates: &[&str]| -> Result<Option<usize>, Error> {
            Ok(look(candidates)?.first().and_then(|&n| usize::try_from(n).ok()).filter(|&n| n > 0))
        };
        let token = |n: i64| u32::try_from(n).ok();
        Ok(Facts {
            context: size(&["get_max_context_len", "get_max_ctx_len", "get_max_seq_len", "max_seq_len"])?,
            chunk: size(&["get_prefill_chunk_size", "get_max_prefill_chunk"])?,
            vocabulary: size(&["get_vocab_size", "vocab_size"])?,
            bos: look(&["get_bos_id"])?.first().copied().and_then(token),
            eos: look(&["get_eos_ids", "get_eos_id"])?.into_iter().filter_map(token).collect(),
            cached: look(&["use_kv_cache"])?.first().map(|&n| n != 0),
        })
    }
}

/// What a constant method returns, as far as it is integers: several of them may come as values or in a tensor.
fn integers(runtime: &Runtime, name: &str) -> Result<Vec<i64>, Error> {
    let mut method = runtime.load_method(name)?;
    if !method.inputs().is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for value in method.execute(&[])? {
        match value {
            Value::Int(n) => found.push(n),
            Value::Bool(b) => found.push(i64::from(b)),
            Value::Tensor(t) if t.dtype() == etx::ir::DType::Int64 => found.extend_from_slice(&t.values::<i64>()?),
            Value::Tensor(t) if t.dtype() == etx::ir::DType::Int32 => found.extend(t.values::<i32>()?.iter().map(|&n| i64::from(n))),
            _ => {}
        }
    }
    Ok(found)
}
