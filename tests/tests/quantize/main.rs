//! Quantising while lowering, against torchao and ExecuTorch's own lowering: one test for each element type and format.
//!
//! `tests/scripts/make_quantized.py` makes what is compared: codes, scales and biases must be the same bytes, and the written file must
//! answer what the quantised model answers in eager PyTorch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use etx_tests::case::{Kind, Value};
use etx_tests::compare::{Limit, compare};
use etx_tests::driver::{self, File};
use etx_tests::tensor::{Tensor, read_file};
use libtest_mimic::{Arguments, Failed, Trial};

/// Element types, and how far answers may be off.
const DTYPES: [(&str, f64); 3] = [("f32", 1e-5), ("f16", 2e-3), ("bf16", 2e-2)];

fn main() -> ExitCode {
    let args = Arguments::from_args();
    match trials() {
        Ok(trials) => libtest_mimic::run(&args, trials).exit_code(),
        Err(e) => {
            eprintln!("quantize: {e}");
            ExitCode::from(2)
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/quantized")
}

fn trials() -> Result<Vec<Trial>, String> {
    let mut trials = Vec::new();
    for (dtype, limit) in DTYPES {
        let tensors = read_file(&folder().join(format!("{dtype}.safetensors")))?;
        let inputs: Vec<Tensor> = (0..).map_while(|i| tensors.get(&format!("input.{i}")).cloned()).collect();
        let mut formats: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        for (name, tensor) in tensors {
            if let Some((format, key)) = name.split_once('|') {
                formats.entry(format.to_owned()).or_default().insert(key.to_owned(), tensor);
            }
        }
        for (format, expected) in formats {
            let inputs = inputs.clone();
            trials.push(Trial::test(format!("{dtype} {format}"), move || check(dtype, &format, &inputs, &expected, limit)));
        }
    }
    Ok(trials)
}

fn check(dtype: &str, format: &str, inputs: &[Tensor], expected: &BTreeMap<String, Tensor>, limit: f64) -> Result<(), Failed> {
    let layers = ["embed", "narrow", "wide", "experts"];
    let quantised = |layer: &str| expected.keys().any(|k| k.starts_with(layer));
    let left: String = layers.into_iter().filter(|l| !quantised(l)).map(|l| format!(", /{l}/=none")).collect();
    let name = format!("{}-{dtype}-{}.pte", std::process::id(), format.replace(':', "-"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let written = driver::lower_quantized(&folder().join(format!("{dtype}.pt2")), &format!("all={format}{left}"), &out)?;

    let mut compared = BTreeMap::new();
    for (key, theirs) in expected.iter().filter(|(k, _)| !k.starts_with("output.")) {
        let Some(ours) = counterpart(key) else { continue };
        let bytes = written.get(&ours).ok_or_else(|| format!("no {ours} beside {:?}", written.keys().collect::<Vec<_>>()))?;
        if *bytes != theirs.bytes {
            let wrong = bytes.iter().zip(&theirs.bytes).filter(|(a, b)| a != b).count();
            let first = bytes.iter().zip(&theirs.bytes).position(|(a, b)| a != b);
            return Err(format!("{key}: {} bytes for {}, {wrong} differ, the first at {first:?}", bytes.len(), theirs.bytes.len()).into());
        }
        *compared.entry(key.split('.').next()).or_insert(0) += 1;
    }
    let least = if format.ends_with("asymmetric") { 3 } else { 2 };
    let layers = layers.into_iter().filter(|l| quantised(l)).count();
    if layers < 2 || compared.len() != layers || compared.values().any(|&n| n < least) {
        return Err(format!("tensors compared: {compared:?}, of {layers} layers").into());
    }

    let values: Vec<Value> = inputs.iter().map(|t| Value { kind: Kind::Tensor, tensor: Some(t.clone()) }).collect();
    let outputs = File::open(&out)?.load("forward", None)?.call(&values)?;
    std::fs::remove_file(&out)?;
    for (i, output) in outputs.iter().enumerate() {
        let theirs = expected.get(&format!("output.{i}")).ok_or("an output too many")?;
        let ours = output.tensor.as_ref().ok_or("an output is no tensor")?;
        compare(ours, theirs, Limit::OfLargest(limit)).map_err(|e| format!("output {i}: {e}"))?;
    }
    Ok(())
}

/// The key under which etx's file has what ExecuTorch's has under `key`; `None` for biases that the program computes when it starts.
fn counterpart(key: &str) -> Option<String> {
    let (stem, rest) = key.split_once(".original")?;
    match rest.split_once('_') {
        Some(("1", "regrouped")) => Some(format!("{stem}.original1")),
        Some(("2", "to_biases")) => Some(format!("{stem}.original0_to_biases")),
        Some(("2", _)) => None,
        _ => Some(key.to_owned()),
    }
}
