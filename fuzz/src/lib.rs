//! Fuzz targets: each takes any bytes, and must come to an end without a panic, in little time and memory.
//!
//! `cargo fuzz run TARGET` searches for bytes that break one (`fuzz/README.md`); the test of this crate runs every target over its
//! corpus, which needs no fuzzer. Whatever a search finds goes into the corpus with the fix.

mod evaluation;
mod files;

pub use evaluation::evaluation;
pub use files::{etir, model_json, payload, pt2, pte, safetensors, tokenizer};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets by name; each has a folder of that name under `corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("etir", etir),
    ("evaluation", evaluation),
    ("model_json", model_json),
    ("payload", payload),
    ("pt2", pt2),
    ("pte", pte),
    ("safetensors", safetensors),
    ("tokenizer", tokenizer),
];

/// The body of a fuzz target's program: libFuzzer's entry under cargo-fuzz. In other builds a program that runs the target once on each
/// file named on the command line, to look at what was found.
#[macro_export]
macro_rules! fuzz {
    ($target:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::$target(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            for path in std::env::args_os().skip(1) {
                $crate::$target(&std::fs::read(path)?);
            }
            Ok(())
        }
    };
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// What a search found once, and seeds of each kind, come to an end.
    #[test]
    fn every_target_takes_its_corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for (name, target) in TARGETS {
            let files: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|f| f.unwrap().path()).collect();
            assert!(files.len() > 1, "{name} has a corpus");
            for file in files {
                println!("{}", file.display());
                target(&fs::read(file).unwrap());
            }
        }
        for folder in fs::read_dir(corpus).unwrap() {
            let name = folder.unwrap().file_name();
            assert!(TARGETS.iter().any(|(target, _)| name == *target), "{name:?} has a target");
        }
    }
}
