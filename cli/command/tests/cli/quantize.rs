//! `lower --quantize`: what it plans, writes and refuses.

use etx::ir::DType;
use etx::ir::weights::TensorData;
use serde_json::Value;

use crate::bad_input::{BESIDE, graph, refused, says};
use crate::support::{Folder, args, example, json};

fn lower(folder: &Folder, rules: &[&str], more: &[&str]) -> String {
    let rules = rules.iter().flat_map(|r| ["--quantize", r]).chain(more.iter().copied()).map(Into::into);
    folder.etx(args!["lower", example("model.pt2"), "-o", "a.pte"].into_iter().chain(rules)).good()
}

fn report(folder: &Folder, rules: &[&str]) -> Value {
    json(lower(folder, rules, &["--report", "-"]))
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let folder = Folder::new();
    let plan = lower(&folder, &["4w", "embedding=8w:64", "/mlp/=2w"], &["--dry-run"]);
    let lines: Vec<&str> = plan.lines().collect();
    assert_eq!(lines.len(), 1 + 16 + 1, "{plan}");
    assert!(lines[0].starts_with("weight ") && lines[0].ends_with(" size"), "{plan}");
    let row = |name: &str, format: &str| {
        let fits = |l: &&&str| l.starts_with(name) && l.contains(&format!(" {format} "));
        lines.iter().find(fits).unwrap_or_else(|| panic!("no {name} {format}: {plan}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("layers.0.mlp.down_proj", "2w:32"), "layers.0.mlp.down_proj.weight linear f32[64, 224] 2w:32 57.3 kB → 5.4 kB");
    assert_eq!(row("lm_head", "8w:64"), "lm_head.weight embedding f32[512, 64] 8w:64 131 kB → 34.8 kB also embed_tokens.weight");
    assert!(row("lm_head", "4w:32").contains("written a second time: its uses have different formats"));
    assert!(lines[17].starts_with("16 weights quantised, 573 kB → "));
    assert!(folder.files().is_empty());
}

#[test]
fn an_embedding_and_a_head_of_one_format_stay_one_weight() {
    let folder = Folder::new();
    let shared = report(&folder, &["4w, embedding=4w"]);
    assert_eq!(shared["methods"][0]["instructions"]["QuantizedMatmulNode"], 15);
    assert_eq!(shared["quantized"].as_array().unwrap().len(), 15);
    let head = shared["quantized"].as_array().unwrap().iter().find(|w| w["name"] == "lm_head.weight").unwrap();
    assert_eq!((&head["uses"], &head["bytes_after"]), (&json(r#"["embedding", "linear"]"#), &json("20480")));
    assert!(head["snr_db"].as_f64().unwrap() > 15.0 && head["max_error"].as_f64() > head["rms_error"].as_f64());

    let apart = report(&folder, &["4w", "embedding=8w"]);
    assert_eq!(apart["quantized"].as_array().unwrap().len(), 16);
    let linear = report(&folder, &["4w"]);
    let head = linear["quantized"].as_array().unwrap().iter().find(|w| w["name"] == "lm_head.weight").unwrap();
    assert_eq!(head["kept_for"], json(r#"["aten.embedding.default"]"#));
    assert_eq!(head["bytes_after"], 20480 + 131_072);
    let bytes = |r: &Value| r["weight_bytes"].as_u64().unwrap();
    assert!(bytes(&shared) < bytes(&apart) && bytes(&apart) < bytes(&linear));
}

#[test]
fn a_weight_that_methods_from_several_files_share_is_one() {
    let folder = Folder::new();
    for name in ["prefill", "decode"] {
        std::fs::copy(example("model.pt2"), folder.path(name)).unwrap();
    }
    let methods = ["lower", "--method", "prefill=prefill", "--method", "decode=decode", "-o", "a.pte", "--quantize", "4w, embedding=4w"];
    let plan = folder.etx(methods.iter().chain(&["--dry-run"])).good();
    assert_eq!(plan.lines().count(), 1 + 15 + 1, "{plan}");
    let both = json(folder.etx(methods.iter().chain(&["--report", "-"])).good());
    let one = report(&folder, &["4w, embedding=4w"]);
    assert_eq!(both["quantized"], one["quantized"]);
    assert_eq!(both["weight_bytes"], one["weight_bytes"]);
}

#[test]
fn quantising_says_what_it_is_in_the_program_and_can_be_left_out() {
    let folder = Folder::new();
    let stopped = args!["lower", example("model.pt2"), "--quantize", "/q_proj/=nvfp4", "--stop-after", "quantize"];
    let text = folder.etx(stopped).good();
    assert_eq!(text.matches("= torchao.dequantize_nvfp4.default(").count(), 2, "{text}");
    let out = report(&folder, &["/q_proj/=nvfp4"]);
    assert_eq!(out["quantized"][0]["format"], "nvfp4");
    let left_out = json(lower(&folder, &["4w"], &["--disable-pass", "quantize", "--report", "-"]));
    assert!(left_out.get("quantized").is_none());
}

#[test]
fn rules_with_mistakes_name_the_place() {
    let folder = Folder::new();
    let error = refused(&folder, &example("model.pt2"), &["--quantize", "4w:48, embedding=7w"]);
    says(&error, &["2 problems", "character 4: neither a group", "character 18: no width of 7 bits", "help: "]);
}

#[test]
fn rules_that_fit_nothing_and_groups_that_do_not_divide_are_all_named() {
    let folder = Folder::new();
    let error = refused(&folder, &example("model.pt2"), &["--quantize", "4w:64", "--quantize", "/up_projection/=8w"]);
    says(&error, &["3 problems", "layers.0.mlp.down_proj.weight f32[64, 224]", "layers.1.mlp.down_proj.weight", "take groups of 32"]);
    says(&error, &["rule `/up_projection/=8w`", "fits no weight", "15 of linear, such as `layers.0.self_attn.q_proj.weight`"]);
}

#[test]
fn weights_that_are_not_finite_are_all_named_and_nothing_is_written() {
    let folder = Folder::new();
    let file = graph(&folder, |_, weights| {
        for (name, element, value) in [("layers.0.mlp.up_proj.weight", 70, f32::NAN), ("lm_head.weight", 3, f32::INFINITY)] {
            let old = &weights[name];
            let mut bytes = old.to_vec().unwrap();
            bytes[element * 4..element * 4 + 4].copy_from_slice(&value.to_le_bytes());
            let new = TensorData::inline(DType::Float32, old.shape().to_vec(), bytes).unwrap();
            weights.insert(name.to_owned(), new);
        }
    });
    let error = refused(&folder, &file, &[BESIDE, &["--quantize", "4w"]].concat());
    says(
        &error,
        &["layers.0.mlp.up_proj.weight: 1 of 14336 elements is NaN or infinite, the first at [1, 6]", "lm_head.weight: 1 of", "[0, 3]"],
    );
}
