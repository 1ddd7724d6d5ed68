//! Targets that read files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use etx::ir::program::Program;
use etx::ir::text::{self, NoFiles};
use etx::ir::verify::verify;
use etx::runtime::{self, Runtime};

/// Most elements of an input that a method is called with: longer calls test nothing else.
const MAX_INPUT: u64 = 1 << 12;

/// Calls `f` with a file of these bytes; readers of mapped files take paths only.
fn with_file(data: &[u8], extension: &str, f: impl FnOnce(&PathBuf)) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("etx-fuzz-{}-{number}.{extension}", std::process::id()));
    if std::fs::write(&path, data).is_ok() {
        f(&path);
    }
    let _ = std::fs::remove_file(path);
}

/// A `.pt2` archive: read and lowered.
pub fn pt2(data: &[u8]) {
    with_file(data, "pt2", |path| {
        if let Ok(program) = etx::load(path, &[]) {
            lower(program);
        }
    });
}

/// The `model.json` of an archive: read and lowered.
pub fn model_json(data: &[u8]) {
    with_file(data, "json", |path| {
        if let Ok(program) = etx::load(path, &[]) {
            lower(program);
        }
    });
}

/// Text form: what parses and holds prints to text that parses to the same; then lowered.
pub fn etir(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(program) = text::parse(text, &mut NoFiles) else { return };
    if verify(&program).is_ok() {
        let printed = text::print(&program);
        let again = text::parse(&printed, &mut NoFiles).map(|p| text::print(&p));
        assert_eq!(again.as_deref().ok(), Some(printed.as_str()), "what was printed parses to the same program");
    }
    lower(program);
}

/// An ExecuTorch file: opened, its methods loaded and called.
pub fn pte(data: &[u8]) {
    let Ok(runtime) = Runtime::parse(data) else { return };
    for name in runtime.methods().map(str::to_owned).collect::<Vec<_>>() {
        let Ok(mut method) = runtime.load_method(&name) else { continue };
        let inputs: Option<Vec<_>> = method.inputs().iter().map(input).collect();
        if let Some(inputs) = inputs {
            let _ = method.execute(&inputs);
        }
    }
}

/// Zeros for what a method takes, unless they are many.
fn input(spec: &runtime::ValueSpec) -> Option<runtime::Value> {
    Some(match spec {
        runtime::ValueSpec::Tensor { dtype, shape, .. } => {
            let elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_INPUT)?;
            let shape: Option<Vec<usize>> = shape.iter().map(|&n| usize::try_from(n).ok()).collect();
            let bytes = vec![0; usize::try_from(elements).ok()?.checked_mul(dtype.size())?];
            runtime::Tensor::from_bytes(*dtype, &shape?, &bytes).ok()?.into()
        }
        runtime::ValueSpec::Int => runtime::Value::Int(1),
        runtime::ValueSpec::Float => runtime::Value::Float(1.0),
        runtime::ValueSpec::Bool => runtime::Value::Bool(true),
        runtime::ValueSpec::Str => runtime::Value::Str(String::new()),
        runtime::ValueSpec::None => runtime::Value::None,
    })
}

/// An MLX payload: what is read and holds is written to bytes that read as the same.
pub fn payload(data: &[u8]) {
    use etx::serializer::mlx::{decode, encode};
    let Ok(program) = decode(data) else { return };
    if program.verify().is_ok() {
        let again = encode(&program).and_then(|bytes| decode(&bytes));
        assert_eq!(again.as_ref().ok(), Some(&program), "what was written reads as the same program");
    }
}

/// A safetensors file.
pub fn safetensors(data: &[u8]) {
    with_file(data, "safetensors", |path| {
        let Ok(tensors) = etx::import::safetensors::open(path) else { return };
        for tensor in tensors.values() {
            let _ = tensor.to_vec();
        }
    });
}

/// A `tokenizer.json`: opened, a text encoded and decoded.
pub fn tokenizer(data: &[u8]) {
    with_file(data, "json", |path| {
        let Ok(tokenizer) = etx_cli::generate::Tokenizer::open(path) else { return };
        if let Ok(tokens) = tokenizer.encode("To be, or not: né aaaa 12 ") {
            let _ = tokenizer.decode(&tokens);
        }
    });
}

/// Lowers a program; what comes of it is opened.
fn lower(program: Program) {
    let Ok(lowered) = etx::Lowering::mlx().run(program) else { return };
    with_file(&[], "pte", |path| {
        if lowered.write(path).is_ok() {
            assert!(Runtime::open(path).is_ok(), "what etx wrote opens");
        }
    });
}
