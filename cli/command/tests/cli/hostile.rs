//! Small inputs that ask for more than there is: refused at once, with one error, in little memory.
//!
//! Time and memory are limits of the system here, which end the process, not measurements.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use etx::import::safetensors;
use etx::ir::DType;
use etx::ir::weights::TensorData;

use crate::support::{Done, Folder, args, example, fixture};

/// Kilobytes of memory that may be written to, and seconds of processor time.
const MEMORY: u32 = 400_000;
const SECONDS: u32 = 20;

/// Runs the command within limits; it must refuse its input and write nothing.
#[track_caller]
fn refused(folder: &Folder, args: impl IntoIterator<Item = OsString>) -> String {
    let before = folder.files();
    let args: Vec<OsString> = args.into_iter().collect();
    let mut command = if cfg!(target_os = "linux") {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -d {MEMORY}; ulimit -t {SECONDS}; exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_etx"));
        shell
    } else {
        Command::new(env!("CARGO_BIN_EXE_etx"))
    };
    let done = Done::of(command.args(&args).current_dir(folder.path("")));
    assert_eq!(done.status, Some(2), "{args:?}: {done:?}");
    let error = done.bad();
    assert!(error.len() < 5000, "{args:?}: {error}");
    assert_eq!(folder.files(), before, "{args:?}: {error}");
    error
}

/// A functional program of one input `%x` and these lines.
fn program(input: &str, lines: &str) -> String {
    format!("etir 1\n\nmethod \"forward\" functional {{\n  input %x : {input} = user\n{lines}\n}}\n")
}

#[test]
fn sizes_beyond_all_bounds() {
    let folder = Folder::new();
    let cases = [
        ("f32[3]", "  %v : f32[268435456] = aten.linspace.default(0.0, 1.0, 268435456)\n  return %x, %v"),
        ("f32[1, 1, 7]", "  %v : f32[1, 1, 1073741824] = aten.adaptive_avg_pool1d.default(%x, [1073741824])\n  return %v"),
        ("f32[1, 1, 7]", "  %v : f32[1, 1, 1073741824] = aten.upsample_linear1d.vec(%x, [1073741824], False, None)\n  return %v"),
        (
            "f32[1, 1, 7, 7]",
            "  %v : f32[1, 1, 536870912, 7] = aten._upsample_bilinear2d_aa.default(%x, [536870912, 7], False)\n  return %v",
        ),
        ("f32[1, 2, 64]", "  %v : f32[1, 2, 80] = aten.pad.default(%x, [8, 9223372036854775807], mode=\"reflect\")\n  return %v"),
        ("f32[1, 4, 2, 2]", "  %v : f32[1, 1, 4, 4] = aten.pixel_shuffle.default(%x, -9223372036854775808)\n  return %v"),
        ("f32[4, 4]", "  %v : f32[4, 4, 4611686018427387904] = aten.expand.default(%x, [4, 4, 4611686018427387904])\n  return %v"),
        ("i32[3]", "  %v : i32[3] = aten.fmod.Scalar(%x, 4611686018427387904)\n  return %v"),
        ("i32[3]", "  %v : i32[3] = aten.floor_divide.Scalar(%x, 4294967296)\n  return %v"),
    ];
    for (input, lines) in cases {
        let file = folder.write("a.etir", program(input, lines));
        for more in [&[][..], &["--verify-each"]] {
            let args = args!["lower", &file, "-o", "out.pte"].into_iter().chain(more.iter().map(OsString::from));
            assert!(refused(&folder, args).contains("forward"));
        }
    }
}

#[test]
fn bodies_that_do_not_fit_their_calls() {
    let folder = Folder::new();
    let inside = |argument: &str, result: &str| {
        let body = format!(
            "  wrap: %y : bf16[2, 2] = higher_order.wrap_with_autocast(\"cpu\", bf16, True, False, graph(%a : {argument}) {{\n    \
             %t : f32[4, 2] = aten.t.default(%a)\n    %m : {result} = aten.matmul.default(%a, %t)\n    return %m\n  }}, %x)\n  return %y"
        );
        program("f32[2, 4]", &body)
    };
    let file = folder.write("a.etir", inside("f32[2, 4]", "bf16[2, 2]"));
    assert_eq!(folder.etx(args!["lower", file, "-o", "out.pte"]).status, Some(0));
    for (argument, result) in [("f32[99, 4]", "bf16[99, 2]"), ("f32[2, 4]", "bf16[2, 1099511627776]"), ("f32[2, 4]", "bf16[3, 2]")] {
        let file = folder.write("a.etir", inside(argument, result));
        refused(&folder, args!["lower", &file, "-o", "out.pte"]);
        refused(&folder, args!["lower", &file, "-o", "out.pte", "--verify-each"]);
    }
    let nothing = folder.write("a.etir", "etir 1\n");
    assert!(refused(&folder, args!["lower", nothing, "-o", "out.pte"]).contains("no methods"));
}

#[test]
fn errors_that_quote_a_file_are_short() {
    let folder = Folder::new();
    let name = "n".repeat(500_000);
    let file = folder.write("a.etir", program("f32[3]", &format!("  %v : f32[3] = aten.{name}.default(%x)\n  return %v")));
    refused(&folder, args!["lower", file, "-o", "out.pte"]);
}

#[test]
fn images_of_nothing() {
    let folder = Folder::new();
    let tensor = |shape: &[u64]| {
        let n: u64 = shape.iter().product();
        TensorData::inline(DType::Float32, shape.to_vec(), vec![0; n as usize * 4]).unwrap()
    };
    let inputs = [("input_0".to_owned(), tensor(&[1, 2, 0, 0])), ("input_1".to_owned(), tensor(&[1, 3, 3, 2]))].into();
    let inputs = folder.write("in.safetensors", safetensors::encode(&inputs).unwrap());
    refused(&folder, args!["run", fixture("grid_sample_of_any_size/reference.pte"), "--inputs", inputs]);
}

/// The model of the examples, lowered.
#[cfg(feature = "generate")]
fn chat(folder: &Folder) -> PathBuf {
    let constants = args!["--constant", "get_max_context_len=128", "--constant", "get_eos_ids=[0]"];
    folder.etx(args!["lower", example("model.pt2"), "-o", "chat.pte"].into_iter().chain(constants)).good();
    folder.path("chat.pte")
}

#[cfg(feature = "generate")]
#[test]
fn tokenizers_that_never_end_or_fail() {
    let folder = Folder::new();
    let chat = chat(&folder);
    let whole = std::fs::read_to_string(example("tokenizer.json")).unwrap();
    let changed = |part: &str, value: serde_json::Value| {
        let mut json: serde_json::Value = serde_json::from_str(&whole).unwrap();
        json[part] = value;
        json.to_string()
    };
    let replace =
        |pattern: serde_json::Value, content: &str| serde_json::json!({"type": "Replace", "pattern": pattern, "content": content});
    let twice = replace(serde_json::json!({"String": "a"}), "aa");
    let cases = [
        whole[..12].to_owned(),
        changed("normalizer", serde_json::json!({"type": "Sequence", "normalizers": vec![twice.clone(); 40]})),
        changed("decoder", serde_json::json!({"type": "Sequence", "decoders": vec![twice; 40]})),
        changed("normalizer", replace(serde_json::json!({"String": ""}), "ab")),
        changed("decoder", serde_json::json!({"type": "Strip", "content": "a", "start": u64::MAX, "stop": u64::MAX})),
        changed(
            "post_processor",
            serde_json::json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}], "pair": [], "special_tokens": {}}),
        ),
        changed("model", serde_json::json!({"type": "BPE", "vocab": {}, "merges": [["a", "b"]]})),
    ];
    for json in cases {
        let file = folder.write("t.json", json);
        let error = refused(&folder, args!["generate", &chat, "--tokenizer", file, "--prompt", "aaaa", "--max-tokens", "2"]);
        assert!(error.contains("tokenizer"), "{error}");
    }
}

/// What is beside the repository, where it is there: every input of its table with its command.
#[cfg(feature = "generate")]
#[test]
fn inputs_that_broke_etx_before() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/hostile");
    let Ok(entries) = std::fs::read_dir(&beside) else { return };
    let beside = beside.canonicalize().unwrap();
    let folder = Folder::new();
    let chat = chat(&folder);
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let input = |name: &str| match name {
        "kernel_fmod_scalar.pte" => "in_i32.safetensors",
        "kern_alloc_256g.pte" | "kern_capacity_overflow.pte" => "core_transforms_inputs.safetensors",
        "kern_alloc_2g.pte" => "derivatives_inputs.safetensors",
        _ => "in.safetensors",
    };
    let mut tried = 0;
    for name in &names {
        let file = beside.join(name);
        let (lower, tokenizer) =
            (name.ends_with(".etir") || name.ends_with(".pt2") || name.ends_with(".json"), name.starts_with("tokenizer"));
        if name == "grid_sample_empty.safetensors" {
            refused(&folder, args!["run", fixture("grid_sample_of_any_size/reference.pte"), "--inputs", file]);
        } else if tokenizer {
            refused(&folder, args!["generate", &chat, "--tokenizer", file, "--prompt", "aaaa", "--max-tokens", "2"]);
        } else if lower {
            refused(&folder, args!["lower", &file, "-o", "out.pte"]);
            refused(&folder, args!["lower", &file, "-o", "out.pte", "--verify-each"]);
        } else if name.ends_with(".pte") {
            refused(&folder, args!["run", file, "--inputs", beside.join(input(name)), "--outputs", "out.safetensors"]);
        } else {
            // Inputs of the others, and the table.
            continue;
        }
        tried += 1;
    }
    assert!(tried > 20, "only {tried} of {names:?}");
}
