//! The parts of the `etx` command that programs of one's own may want: text from language models.

#[cfg(feature = "generate")]
pub mod generate;
