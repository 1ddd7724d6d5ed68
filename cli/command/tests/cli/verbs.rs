//! Every verb on good input.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};

use etx::import::safetensors;
use etx::ir::weights::TensorData;

use crate::support::{Done, Folder, args, example, fixture, graph_json, json};

fn lowered(folder: &Folder) {
    assert_eq!(folder.etx(args!["lower", example("model.pt2"), "--backend", "mlx", "-o", "a.pte"]).good(), "");
}

fn floats(tensors: &BTreeMap<String, TensorData>, name: &str) -> Vec<f32> {
    tensors[name].to_vec().unwrap().chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}

#[test]
fn the_example_answers_as_pytorch_does_call_after_call() {
    let folder = Folder::new();
    lowered(&folder);
    assert_eq!(folder.files(), ["a.pte"]);
    let calls =
        args!["--inputs", example("prompt.safetensors"), "--outputs", "0", "--inputs", example("step.safetensors"), "--outputs", "1"];
    let said = folder.etx(args!["run", "a.pte", "--time"].into_iter().chain(calls)).good();
    assert_eq!(said.lines().map(|l| l.split(':').next().unwrap()).collect::<Vec<_>>(), ["load", "call 0", "call 1"]);
    for (file, expected) in [("0", "prompt.expected.safetensors"), ("1", "step.expected.safetensors")] {
        let (ours, theirs) = (safetensors::open(folder.path(file)).unwrap(), safetensors::open(example(expected)).unwrap());
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        assert_eq!(ours["output_0"].shape(), theirs["output_0"].shape());
        for (a, b) in floats(&ours, "output_0").iter().zip(floats(&theirs, "output_0")) {
            assert!((a - b).abs() <= 1e-5 + 1e-5 * b.abs(), "{a} is not {b}");
        }
    }
}

#[test]
fn outputs_without_a_file_are_printed_in_short() {
    let folder = Folder::new();
    lowered(&folder);
    let said =
        folder.etx(args!["run", "a.pte", "--method", "forward", "--engine", "cpu", "--inputs", example("prompt.safetensors")]).good();
    assert!(said.starts_with("output_0: f32[1, 6, 512] ") && said.ends_with(", …\n") && said.lines().count() == 1, "{said}");
}

#[test]
fn the_default_output_lies_beside_the_input() {
    let folder = Folder::new();
    fs::copy(example("model.pt2"), folder.path("m.v2.pt2")).unwrap();
    folder.etx(["lower", "m.v2.pt2"]).good();
    assert_eq!(folder.files(), ["m.v2.pt2", "m.v2.pte"]);
}

#[test]
fn the_report_says_which_weights_are_shared_and_what_that_saved() {
    let folder = Folder::new();
    // One storage under two names, read as a table and as a factor.
    let said = folder.etx(args!["lower", fixture("tied_modules/forward.pt2"), "-o", "a.pte", "--report", "-"]).good();
    let shared = &json(said)["shared"];
    let bytes = 8 * 6 * 4;
    assert_eq!(shared[0]["how"], "identity", "{shared}");
    assert_eq!((&shared[0]["bytes"], &shared[0]["saved_bytes"]), (&json(bytes.to_string()), &json(bytes.to_string())));
    assert_eq!(shared[0]["methods"], json(r#"["forward"]"#));
    // The same table in two files: only the bytes show it.
    let method = |name: &str| format!("{name}={}", fixture(&format!("tied_across_methods/{name}.pt2")).display());
    let said = folder.etx(["lower", "--method", &method("encode"), "--method", &method("decode"), "-o", "b.pte", "--report", "-"]).good();
    let report = json(said);
    let shared = &report["shared"];
    assert_eq!(shared[0]["how"], "content", "{report}");
    assert_eq!(shared[0]["methods"], json(r#"["encode", "decode"]"#), "{shared}");
    assert_eq!(shared[0]["saved_bytes"], 16 * 6 * 4);
    assert!(shared[0]["names"][0].as_str().is_some_and(|n| n.contains("table.weight")), "{shared}");
    // Nothing to say of weights that are all different.
    let said = folder.etx(args!["lower", fixture("strided_weights/forward.pt2"), "-o", "c.pte", "--report", "-"]).good();
    assert_eq!(json(said)["shared"], json("[]"));
}

#[test]
fn the_report_accounts_for_every_node_byte_and_second() {
    let folder = Folder::new();
    folder.etx(args!["lower", example("model.pt2"), "-o", "a.pte", "--report", "r.json"]).good();
    let report = json(fs::read(folder.path("r.json")).unwrap());
    let method = &report["methods"][0];
    assert_eq!((&method["method"], &method["partitions"]), (&json(r#""forward""#), &json("1")));
    assert_eq!(method["refused"], json("[]"));
    assert!(method["delegated"].as_u64().unwrap() > 20, "{method}");
    assert_eq!(method["instructions"]["SdpaNode"], 2, "{method}");
    assert_eq!(report["file_bytes"], fs::metadata(folder.path("a.pte")).unwrap().len());
    let weights = report["weight_bytes"].as_u64().unwrap();
    assert!((500_000..700_000).contains(&weights), "{weights}");
    for phase in ["load", "passes", "partition", "quantize", "write"] {
        assert!(report["seconds"][phase].as_f64().unwrap() > 0.0, "{phase}");
    }
    assert!(report["passes"].as_array().unwrap().iter().any(|p| p["pass"] == "functionalise" && p["method"] == "forward"));
    // `-` is standard output, and the same program makes the same file.
    let said = folder.etx(args!["lower", example("model.pt2"), "-o", "b.pte", "--report", "-"]).good();
    assert_eq!(json(said)["methods"], report["methods"]);
    assert_eq!(fs::read(folder.path("a.pte")).unwrap(), fs::read(folder.path("b.pte")).unwrap());
}

#[test]
fn timings_are_said_on_standard_error() {
    let folder = Folder::new();
    let done = folder.etx(args!["lower", example("model.pt2"), "-o", "a.pte", "--timings"]);
    assert_eq!((done.status, &*done.stdout), (Some(0), ""));
    let first: Vec<&str> =
        done.stderr.lines().skip_while(|l| !l.starts_with("load ")).map(|l| l.split_whitespace().next().unwrap()).collect();
    assert_eq!(first[..5], ["load", "passes", "partition", "quantize", "write"]);
    assert!(done.stderr.contains("functionalise, forward"), "{}", done.stderr);
}

#[test]
fn text_lowers_to_the_same_file() {
    let folder = Folder::new();
    lowered(&folder);
    let text = folder.etx(args!["print", example("model.pt2")]).good();
    assert!(text.starts_with("etir 1\n") && text.contains("method \"forward\" training {"), "{}", &text[..400]);
    folder.write("a.etir", &text);
    assert_eq!(folder.etx(["print", "a.etir", "--method", "forward", "--allow-outside"]).good(), text);
    // It names the archive by the path that was given, which does not lie below this folder.
    folder.etx(["lower", "a.etir", "-o", "b.pte", "--allow-outside"]).good();
    assert_eq!(fs::read(folder.path("a.pte")).unwrap(), fs::read(folder.path("b.pte")).unwrap());
}

#[test]
fn a_graph_with_weights_beside_it_runs_as_the_archive_does() {
    let folder = Folder::new();
    let program = etx::load(example("model.pt2"), &[]).unwrap();
    // In two files, to see both used.
    let mut halves = [BTreeMap::new(), BTreeMap::new()];
    for (i, weight) in program.weights().iter().enumerate() {
        halves[i % 2].insert(weight.name.to_string(), weight.data.clone());
    }
    for (name, tensors) in ["0.safetensors", "1.safetensors"].iter().zip(&halves) {
        folder.write(name, safetensors::encode(tensors).unwrap());
    }
    folder.write("graph.json", graph_json().to_string());
    folder.etx(args!["lower", "graph.json", "--weights", "0.safetensors", "--weights", "1.safetensors", "-o", "b.pte"]).good();
    lowered(&folder);
    let run = |file| folder.etx(args!["run", file, "--inputs", example("prompt.safetensors")]).good();
    assert_eq!(run("b.pte"), run("a.pte"));
}

#[test]
fn methods_come_from_files_of_their_own() {
    let folder = Folder::new();
    let named = |name: &str| format!("{name}={}", fixture(&format!("three_methods/{name}.pt2")).display());
    folder
        .etx(args!["lower", fixture("three_methods/forward.pt2"), "--method", named("prefill"), "--method", named("score"), "-o", "a.pte"])
        .good();
    let summary = json(folder.etx(["inspect", "a.pte", "--format", "json"]).good());
    let names: Vec<&str> = summary["methods"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["forward", "prefill", "score"]);
    let twice = folder
        .etx(args!["lower", fixture("three_methods/forward.pt2"), "--method", named("score"), "--method", named("score"), "-o", "b.pte"])
        .bad();
    assert!(twice.contains("two methods are called \"score\""), "{twice}");
}

#[test]
fn passes_can_be_watched_and_left_out() {
    let folder = Folder::new();
    let text = folder.etx(args!["lower", example("model.pt2"), "--stop-after", "functionalise", "--verify-each"]).good();
    assert!(text.starts_with("etir 1\n") && text.contains("method \"forward\" functional {"));
    folder.etx(args!["lower", example("model.pt2"), "--stop-after", "functionalise", "-o", "a.etir"]).good();
    assert_eq!(fs::read_to_string(folder.path("a.etir")).unwrap(), text);

    fs::create_dir(folder.path("dumps")).unwrap();
    let dumps = ["--dump-before", "functionalise", "--dump-after", "functionalise", "--dump-dir", "dumps", "-o", "a.pte"];
    folder.etx(args!["lower", example("model.pt2")].into_iter().chain(dumps.map(Into::into))).good();
    let mut names: Vec<_> = fs::read_dir(folder.path("dumps")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["forward.functionalise.0.after.etir", "forward.functionalise.0.before.etir"]);

    let said = folder.etx(args!["lower", example("model.pt2"), "--disable-pass", "fuse-rms-norm", "-o", "b.pte", "--report", "-"]).good();
    assert!(json(said)["passes"].as_array().unwrap().iter().all(|p| p["pass"] != "fuse-rms-norm"));

    let unknown = folder.etx(args!["lower", example("model.pt2"), "--disable-pass", "polish", "-o", "c.pte"]).bad();
    assert!(unknown.contains("no pass is called \"polish\"") && unknown.contains("functionalise"), "{unknown}");
}

#[test]
fn refused_nodes_are_listed_and_reported_and_nothing_is_written() {
    let folder = Folder::new();
    folder.write("a.etir", crate::REFUSED);
    let error = folder.etx(["lower", "a.etir", "-o", "a.pte", "--report", "r.json"]).bad();
    assert_eq!(folder.files(), ["a.etir", "r.json"]);
    let report = json(fs::read(folder.path("r.json")).unwrap());
    let refused = report["methods"][0]["refused"].as_array().unwrap();
    assert!(!refused.is_empty());
    for node in refused {
        for key in ["node", "op", "reason", "source"] {
            assert!(node[key].as_str().is_some_and(|s| !s.is_empty()), "{key} of {node}");
        }
        assert!(error.contains(node["op"].as_str().unwrap()) && error.contains(node["reason"].as_str().unwrap()), "{error}");
    }
}

#[test]
fn a_pte_prints_as_plan_and_mlx_program() {
    let folder = Folder::new();
    lowered(&folder);
    let text = folder.etx(["print", "a.pte"]).good();
    for part in [
        "pte version 0: ",
        "method \"forward\" (%",
        "    0: delegate 0(",
        "  delegate 0: MLXBackend in segment ",
        "mlx program: ",
        "chain 0 (main):",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert_eq!(folder.etx(["print", "a.pte", "--method", "forward"]).good(), text);
    assert!(folder.etx(["print", "a.pte", "--method", "backward"]).bad().contains("there are: forward"));
}

#[test]
fn the_references_own_files_print_and_summarise() {
    let folder = Folder::new();
    let file = fixture("conditional/reference.pte");
    let text = folder.etx(args!["print", &file]).good();
    assert!(text.contains("aten::mul.out(%") && text.contains("unless %"), "{text}");
    let summary = json(folder.etx(args!["inspect", &file, "--format", "json"]).good());
    assert_eq!(summary["methods"][0]["kernels"]["aten::mul.out"], 1, "{summary}");
}

#[test]
fn every_kind_of_file_is_summarised_for_people_and_for_machines() {
    let folder = Folder::new();
    lowered(&folder);
    fs::copy(example("model.pt2"), folder.path("model.pt2")).unwrap();
    folder.write("a.etir", folder.etx(["print", "model.pt2"]).good());
    let look = |file: &str| {
        let text = folder.etx(args!["inspect", file]).good();
        let json = json(folder.etx(args!["inspect", file, "--format", "json"]).good());
        assert_eq!(json["file"], file);
        assert!(text.starts_with(&format!("{file}: {}, ", json["kind"].as_str().unwrap())), "{text}");
        (text, json)
    };
    let (text, pt2) = look(example("model.pt2").to_str().unwrap());
    assert_eq!(pt2["kind"], "pt2");
    assert_eq!(pt2["methods"][0]["inputs"][0]["type"].as_str().unwrap(), "i64[1, s27]", "{pt2}");
    assert!(text.contains("method \"forward\" (training dialect):") && text.contains(" parameters, "), "{text}");
    let (_, etir) = look("a.etir");
    assert_eq!((&etir["methods"], &etir["weight_bytes"]), (&pt2["methods"], &pt2["weight_bytes"]));
    let (text, pte) = look("a.pte");
    assert_eq!(pte["methods"][0]["delegates"][0]["backend"], "MLXBackend");
    assert!(text.contains("delegate 0: MLXBackend, ") && text.contains("SdpaNode"), "{text}");
    let (text, tensors) = look(example("prompt.safetensors").to_str().unwrap());
    assert_eq!(tensors["tensors"][0]["shape"], json("[1, 6]"));
    assert!(text.contains("input_0: i64[1, 6], 48 B"), "{text}");
}

#[test]
fn the_operators_are_listed_in_every_format() {
    let folder = Folder::new();
    let list = json(folder.etx(["ops", "--format", "json"]).good());
    let list = list.as_array().unwrap();
    assert!(list.iter().any(|o| o["operator"] == "aten.linear.default" && o["becomes"].as_str().is_some_and(|b| !b.is_empty())));
    assert_eq!(folder.etx(["ops"]).good().lines().count(), list.len());
    let table = folder.etx(["ops", "--format", "md"]).good();
    assert_eq!(table.lines().count(), list.len() + 2);
    assert!(table.lines().all(|l| l.replace("\\|", "").matches('|').count() == 4), "{table}");
}

#[test]
fn the_list_of_operators_says_what_becomes_of_each() {
    let folder = Folder::new();
    let list = json(folder.etx(["ops", "conv3d", "hardswish", "lgamma", "gammaln", "kv_cache_update", "--format", "json"]).good());
    let of = |name: &str| {
        let found = list.as_array().unwrap().iter().find(|o| o["operator"] == name).unwrap_or_else(|| panic!("{name} is not listed"));
        (found["becomes"].as_str().unwrap().to_owned(), found["refused_when"].as_str().unwrap().to_owned())
    };
    let (becomes, refused) = of("aten.conv3d.default");
    assert!(becomes.contains("Conv3D") && becomes.contains("else a formula") && refused.contains("groups"), "{becomes}, {refused}");
    assert_eq!(of("aten.hardswish.default"), ("a formula over simpler operators".to_owned(), String::new()));
    assert_eq!(of("aten.hardswish_.default").0, "as aten.hardswish.default");
    let (becomes, refused) = of("aten.lgamma.default");
    assert!(becomes == "nothing" && !refused.is_empty());
    assert_eq!(of("aten.lgamma_.default"), of("aten.special_gammaln.default"));
    assert_eq!(of("aten.special_gammaln.default"), ("as aten.lgamma.default".to_owned(), refused));
    assert!(of("mlx.kv_cache_update.default_functional").0.contains("SliceUpdate"));
    // All that a name fits, and nothing else; a name that fits nothing is an error.
    assert!(
        list.as_array()
            .unwrap()
            .iter()
            .all(|o| ["conv3d", "hardswish", "lgamma", "gammaln", "kv_cache"].iter().any(|n| o["operator"].as_str().unwrap().contains(n)))
    );
    let said = folder.etx(["ops", "conv3d", "konvolution"]).bad();
    assert!(said.contains("`konvolution`"), "{said}");
}

#[test]
fn help_has_an_example_and_the_exit_status() {
    let folder = Folder::new();
    for verb in ["lower", "run", "print", "inspect", "ops"] {
        let help = folder.etx([verb, "--help"]).good();
        assert!(help.contains("Example:\n  etx ") && help.contains("Exit status: 0"), "{help}");
    }
    let passes = folder.etx(["lower", "--help"]).good();
    assert!(passes.contains("Passes, in order:\n") && passes.contains("\n  functionalise\n"), "{passes}");
    assert!(folder.etx(["--version"]).good().starts_with("etx 0."));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let folder = Folder::new();
    lowered(&folder);
    for (file, head) in [(example("model.pt2"), b"etir"), (folder.path("a.pte"), b"pte ")] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_etx"))
            .args(args!["print", file])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut start = [0; 4];
        child.stdout.take().unwrap().read_exact(&mut start).unwrap();
        assert_eq!(&start, head);
        // Standard output is closed now, long before all was written.
        let done = child.wait_with_output().unwrap();
        assert_eq!((done.status.code(), String::from_utf8(done.stderr).unwrap().as_str()), (Some(0), ""));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_output_is_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let done = Done::of(Command::new(env!("CARGO_BIN_EXE_etx")).arg("ops").stdout(full));
    assert!(done.bad().starts_with("error: cannot write to standard output: "));
}

/// A program whose size has no upper bound.
const STATE: &str = "etir 1

weight @0 \"total\" f32[1] inline 0x0000803f

method \"write\" functional {
  input %total : f32[1] = buffer @0
  input %x : f32[1] = user
  %new : f32[1] = aten.add.Tensor(%total, %x)
  return %new as state %total, %new
}

method \"read\" functional {
  input %total : f32[1] = buffer @0
  input %x : f32[1] = user
  %y : f32[1] = aten.mul.Tensor(%total, %x)
  return %y
}
";

#[test]
fn state_of_several_methods_is_reported_where_the_reference_is_silent() {
    let folder = Folder::new();
    folder.write("state.etir", STATE);
    let state = |file: &str| {
        folder.etx(args!["lower", file, "-o", "a.pte", "--report", "r.json"]).good();
        json(fs::read(folder.path("r.json")).unwrap())["separate_state"].clone()
    };
    assert_eq!(state("state.etir"), serde_json::json!([{ "name": "total", "writers": ["write"], "readers": ["read"] }]));
    folder.write("both.etir", STATE.replace("return %y", "return %y as state %total, %y"));
    assert_eq!(state("both.etir"), serde_json::json!([{ "name": "total", "writers": ["write", "read"], "readers": [] }]));
}

#[test]
fn conditions_of_the_exporter_that_files_do_not_check_are_reported() {
    let folder = Folder::new();
    let guards = "guard \"L['x'].size()[1] >= 1\"\n  guard \"L['x'].size()[1]*L['x'].size()[1] == 64\"\n";
    folder.write("assumed.etir", OPEN.replace("  input", &format!("  {guards}  input")));
    folder.etx(args!["lower", "assumed.etir", "-o", "a.pte", "--report", "r.json"]).told();
    let assumed = json(fs::read(folder.path("r.json")).unwrap())["assumed"].clone();
    let condition = "L['x'].size()[1]*L['x'].size()[1] == 64";
    assert_eq!(assumed, serde_json::json!([{ "method": "forward", "condition": condition, "checked": true }]));
}

#[test]
fn calls_that_the_program_was_not_exported_for_are_refused() {
    let folder = Folder::new();
    let guards: Vec<String> =
        ["L['x'].size()[1] % 2 == 0", "math.trunc(0.5*torch.sym_float(L['x'].size()[1])) >= 3", "L['x'].stride()[0] == 1"]
            .iter()
            .map(|g| format!("  guard \"{g}\"\n"))
            .collect();
    folder.write("guarded.etir", OPEN.replace("  input", &format!("{}  input", guards.concat())));
    let lowered = folder.etx(args!["lower", "guarded.etir", "-o", "a.pte"]);
    for expected in [
        "note: forward: exported for calls with L['x'].size()[1] % 2 == 0\n",
        "exported for calls with L['x'].stride()[0] == 1 (`etx run` cannot check this one)\n",
        "note: forward: by these conditions, s0 is 6 or more\n",
        "note: `etx run` refuses other calls",
        "planned for up to 4096 (--max-size), 65.5 kB in all, 16 B an element",
    ] {
        assert!(lowered.stderr.contains(expected), "{}", lowered.stderr);
    }
    let call = |width: u64| {
        let x = TensorData::inline(etx::ir::DType::Float32, vec![2, width], vec![0; 8 * width as usize]).unwrap();
        folder.write("in.safetensors", safetensors::encode(&BTreeMap::from([("input_0".to_owned(), x)])).unwrap());
        folder.etx(args!["run", "a.pte", "--inputs", "in.safetensors"])
    };
    call(8).good();
    for (width, expected) in [
        (7, "the program was exported for calls with s0 % 2 == 0; s0 is 7 (dimension 1 of input_0)\nhelp: "),
        (4, "dimension 1 of input_0 (s0) is 4, and the program was exported for 6 or more\nhelp: "),
        (4098, "is 4098, and memory is planned for at most 4096\nhelp: lower the program again with --max-size 4098"),
    ] {
        let refused = call(width);
        assert_eq!(refused.status, Some(2));
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    }
}

#[test]
fn inputs_that_are_no_tensors_are_reported() {
    const FIXED: &str = "etir 1
method \"forward\" functional {
  symbol s1 [3..9]
  input %x : f32[2] = user
  input %n : int(s1) = user
  input = literal \"\" True
  %y : f32[2] = aten.mul.Scalar(%x, %n)
  return %y
}
";
    let folder = Folder::new();
    folder.write("fixed.etir", FIXED);
    let lowered = folder.etx(args!["lower", "fixed.etir", "-o", "a.pte"]);
    for expected in [
        "note: forward: n is left open: `etx run` takes any value, ExecuTorch only 3, the one in the file\n",
        "note: forward: input_2 was fixed to true when the program was exported: no other value is accepted\n",
    ] {
        assert!(lowered.stderr.contains(expected), "{}", lowered.stderr);
    }
}

const OPEN: &str = "etir 1
method \"forward\" functional {
  symbol s0 [1..]
  input %x : f32[2, s0] = user
  %y : f32[2, s0] = aten.neg.default(%x)
  return %y
}
";

#[test]
fn sizes_without_an_upper_bound_are_planned_for_and_reported() {
    let folder = Folder::new();
    folder.write("open.etir", OPEN);
    for (more, size) in [(Vec::new(), 4096), (args!["--max-size", "64"].to_vec(), 64)] {
        folder.etx(args!["lower", "open.etir", "-o", "a.pte", "--report", "r.json"].into_iter().chain(more)).told();
        let open = json(fs::read(folder.path("r.json")).unwrap())["unbounded"].clone();
        let bytes = size * 2 * 4 * 2;
        assert_eq!(
            open,
            serde_json::json!([{
                "method": "forward", "input": "x", "dim": 1, "symbol": "s0",
                "planned_for": size, "planned_bytes": bytes, "bytes_per_element": 16
            }])
        );
        let shown = folder.etx(args!["inspect", "a.pte"]).good();
        assert!(shown.contains(&format!("{size}]")), "{shown}");
    }
}

#[test]
fn random_draws_are_reported_and_differ_at_every_run() {
    const DROPS: &str = "etir 1
method \"forward\" functional {
  %x : f32[64, 64] = aten.full.default([64, 64], 1.0, dtype=f32)
  %y : f32[64, 64] = aten.dropout.default(%x, 0.5, True)
  %z : f32[64, 64] = aten.dropout.default(%y, 0.5, False)
  return %z
}
";
    let folder = Folder::new();
    folder.write("drops.etir", DROPS);
    folder.etx(["lower", "drops.etir", "-o", "a.pte", "--report", "r.json"]).good();
    let report = json(fs::read(folder.path("r.json")).unwrap());
    assert_eq!(report["methods"][0]["random"].as_array().map(Vec::len), Some(1), "{report}");
    // The printed values are the first few of 4096.
    let draw = || folder.etx(["run", "a.pte"]).good();
    assert_ne!(draw(), draw());
}
