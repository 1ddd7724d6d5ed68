//! Input that is wrong: one clear error each, exit status 2, no file left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use etx::import::safetensors;
use etx::ir::weights::TensorData;
use serde_json::Value;

use crate::support::{Done, Folder, args, example, graph_json};

/// Lowers a file that cannot be lowered; gives the error.
#[track_caller]
pub(crate) fn refused(folder: &Folder, input: &Path, more: &[&str]) -> String {
    let before = folder.files();
    let args = args!["lower", input, "-o", "out.pte"].into_iter().chain(more.iter().map(Into::into));
    let error = folder.etx(args).bad();
    assert_eq!(folder.files(), before, "{error}");
    error
}

#[track_caller]
pub(crate) fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn no_archive() {
    let folder = Folder::new();
    says(&refused(&folder, Path::new("absent.pt2"), &[]), &["absent.pt2", "No such file"]);
    says(&refused(&folder, &folder.write("empty.pt2", ""), &[]), &["empty.pt2"]);
    says(&refused(&folder, &folder.write("prose.pt2", "Call me Ishmael.\n"), &[]), &["prose.pt2: not a .pt2", "help: torch.export.save"]);
    let archive = fs::read(example("model.pt2")).unwrap();
    for len in [4, 100, archive.len() / 2, archive.len() - 1] {
        let cut = folder.write("cut.pt2", &archive[..len]);
        says(&refused(&folder, &cut, &[]), &["cut.pt2", "zip"]);
    }
    says(&refused(&folder, &example("prompt.safetensors"), &[]), &["holds tensors, not a program"]);
}

/// The example's graph and weights as files, changed.
pub(crate) fn graph(folder: &Folder, change: impl FnOnce(&mut Value, &mut BTreeMap<String, TensorData>)) -> PathBuf {
    let program = etx::load(example("model.pt2"), &[]).unwrap();
    let mut weights = program.weights().iter().map(|w| (w.name.to_string(), w.data.clone())).collect();
    let mut json = graph_json();
    change(&mut json, &mut weights);
    folder.write("w.safetensors", safetensors::encode(&weights).unwrap());
    folder.write("graph.json", json.to_string())
}

pub(crate) const BESIDE: &[&str] = &["--weights", "w.safetensors"];

fn nodes(json: &mut Value) -> &mut Vec<Value> {
    json["graph_module"]["graph"]["nodes"].as_array_mut().unwrap()
}

#[test]
fn a_schema_of_the_future() {
    let folder = Folder::new();
    let file = graph(&folder, |json, _| json["schema_version"]["major"] = 99.into());
    says(&refused(&folder, &file, BESIDE), &["graph.json", "99"]);
}

#[test]
fn an_operator_that_does_not_exist() {
    let folder = Folder::new();
    let file = graph(&folder, |json, _| {
        let linear = nodes(json).iter_mut().find(|n| n["target"] == "torch.ops.aten.linear.default").unwrap();
        linear["target"] = "torch.ops.aten.curvy.default".into();
    });
    says(&refused(&folder, &file, BESIDE), &["aten.curvy.default"]);
}

#[test]
fn weights_that_are_missing_or_do_not_fit() {
    let folder = Folder::new();
    let name = "model.norm.weight";
    let known = |weights: &BTreeMap<String, TensorData>| {
        weights.keys().find(|k| k.ends_with("norm.weight")).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let mut changed = String::new();
    let file = graph(&folder, |_, weights| {
        changed = known(weights);
        weights.remove(&changed);
    });
    says(&refused(&folder, &file, BESIDE), &[&changed, "help: "]);
    says(&refused(&folder, &file, &[]), &["--weights FILE.safetensors"]);
    says(&refused(&folder, &file, &["--weights", "absent.safetensors"]), &["absent.safetensors"]);
    says(&refused(&folder, &file, &["--weights", "graph.json"]), &["graph.json"]);

    let file = graph(&folder, |_, weights| {
        let old = weights[&changed].clone();
        let shape = vec![1, old.numel()];
        weights.insert(changed.clone(), old.reinterpret(old.dtype(), shape).unwrap());
    });
    says(&refused(&folder, &file, BESIDE), &[&changed]);

    let file = graph(&folder, |_, weights| {
        let old = weights[&changed].clone();
        weights.insert(changed.clone(), old.reinterpret(etx::ir::DType::Int32, old.shape().to_vec()).unwrap());
    });
    says(&refused(&folder, &file, BESIDE), &[&changed, "i32"]);

    let file = graph(&folder, |_, _| {});
    let bytes = fs::read(folder.path("w.safetensors")).unwrap();
    folder.write("w.safetensors", &bytes[..bytes.len() / 2]);
    says(&refused(&folder, &file, BESIDE), &["w.safetensors: not a safetensors file"]);
    let beside_archive = refused(&folder, &example("model.pt2"), BESIDE);
    says(&beside_archive, &["has weights of its own"]);
}

#[test]
fn references_that_dangle_or_go_in_circles() {
    let folder = Folder::new();
    // The first call takes what a later one makes, which takes what the first one makes.
    let file = graph(&folder, |json, _| {
        let nodes = nodes(json);
        let last = nodes.iter().rposition(|n| n["outputs"][0]["as_tensor"]["name"].is_string()).unwrap();
        let made = nodes[last]["outputs"][0]["as_tensor"].clone();
        let first =
            nodes.iter_mut().find(|n| n["inputs"].as_array().is_some_and(|i| i.iter().any(|a| a["arg"]["as_tensor"].is_object()))).unwrap();
        let arg = first["inputs"].as_array_mut().unwrap().iter_mut().find(|a| a["arg"]["as_tensor"].is_object()).unwrap();
        arg["arg"]["as_tensor"] = made;
    });
    refused(&folder, &file, BESIDE);

    let file = graph(&folder, |json, _| {
        let nodes = nodes(json);
        let linear = nodes.iter_mut().find(|n| n["target"] == "torch.ops.aten.linear.default").unwrap();
        linear["inputs"][0]["arg"]["as_tensor"]["name"] = "nothing_of_this_name".into();
    });
    says(&refused(&folder, &file, BESIDE), &["nothing_of_this_name"]);

    let file = graph(&folder, |json, _| json["graph_module"]["graph"]["outputs"][0]["as_tensor"]["name"] = "nowhere".into());
    says(&refused(&folder, &file, BESIDE), &["nowhere"]);
}

#[test]
fn json_that_is_something_else() {
    let folder = Folder::new();
    says(&refused(&folder, &folder.write("a.json", "{\"a\": 1}"), &[]), &["a.json"]);
    says(&refused(&folder, &folder.write("b.json", "{\"a\": "), &[]), &["b.json"]);
    let deep = folder.write("deep.json", "{\"a\":".repeat(100_000));
    says(&refused(&folder, &deep, &[]), &["deep.json"]);
}

#[test]
fn text_that_is_wrong() {
    let folder = Folder::new();
    let file = folder.write("a.etir", "etir 1\nmethod \"f\" functional {\n  %x : f32[2] = aten.relu.default(%y)\n  return %x\n}\n");
    says(&refused(&folder, &file, &[]), &["a.etir", "%y"]);
    says(&refused(&folder, &folder.write("b.etir", b"etir 1\n\xff"), &[]), &["b.etir", "not UTF-8"]);
}

#[test]
fn places_that_cannot_be_written_to_are_found_before_any_work() {
    let folder = Folder::new();
    // The input is not even looked at: it would be refused as well.
    for target in ["absent/out.pte", "."] {
        let error = folder.etx(args!["lower", "absent.pt2", "-o", target]).bad();
        says(&error, &["cannot write", target]);
    }
    says(&folder.etx(args!["lower", "absent.pt2", "-o", "a.pte", "--report", "absent/r.json"]).bad(), &["absent/r.json"]);
    says(&folder.etx(args!["lower", "absent.pt2", "-o", "a.pte", "--dump-dir", "absent"]).bad(), &["no folder absent"]);
    says(&folder.etx(args!["run", "absent.pte", "--inputs", "a", "--outputs", "absent/b"]).bad(), &["absent/b"]);
    #[cfg(unix)]
    says(&folder.etx(args!["lower", "absent.pt2", "-o", "/dev/null"]).bad(), &["/dev/null: it is not a regular file"]);
    assert_eq!(folder.files(), [""; 0]);
}

/// A limit on the size of files stands for a disk that is full: writing fails in the middle.
#[test]
#[cfg(unix)]
fn a_full_disk_leaves_nothing_behind() {
    let folder = Folder::new();
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_etx")]).args(args!["lower", example("model.pt2"), "-o", folder.path("a.pte")]);
    says(&Done::of(&mut command).bad(), &["a.pte: cannot "]);
    assert_eq!(folder.files(), [""; 0]);
}

#[test]
fn a_pte_that_is_wrong() {
    let folder = Folder::new();
    folder.etx(args!["lower", example("model.pt2"), "-o", "good.pte"]).good();
    let good = fs::read(folder.path("good.pte")).unwrap();
    let every_verb = |name: &str, bytes: &[u8]| -> Vec<String> {
        let file = folder.write(name, bytes);
        let inputs = example("prompt.safetensors");
        let run = folder.etx(args!["run", &file, "--inputs", inputs]).bad();
        let mut said: Vec<String> = ["print", "inspect"].map(|verb| folder.etx(args![verb, &file]).bad()).into();
        said.push(run);
        said
    };
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    every_verb("magic.pte", &changed(4, b"ET99"));
    for error in every_verb("root.pte", &changed(0, &u32::MAX.to_le_bytes())) {
        says(&error, &["root.pte", "at byte 0x"]);
    }
    // Bytes 16, 24 and 32 of the header: size of the program, base and size of the segments.
    for at in [16, 24, 32] {
        for error in every_verb("header.pte", &changed(at, &(u64::MAX - 7).to_le_bytes())) {
            says(&error, &["header.pte"]);
        }
    }
    for len in [0, 7, 63, 200, good.len() / 2, good.len() - 1] {
        every_verb("cut.pte", &good[..len]);
    }
    says(&refused(&folder, &folder.path("good.pte"), &[]), &["is lowered already"]);
}

#[test]
fn inputs_that_do_not_fit_the_method() {
    let folder = Folder::new();
    folder.etx(args!["lower", example("model.pt2"), "-o", "a.pte"]).good();
    let run = |more: &[&str]| folder.etx(["run", "a.pte"].iter().chain(more)).bad();
    says(&run(&[]), &["input_0: i64[1, ≤", "help: give them with --inputs"]);
    says(&run(&["--inputs", "absent"]), &["absent", "No such file"]);
    says(&run(&["--method", "backward", "--inputs", "a"]), &["no method `backward`", "forward"]);

    let prompt = safetensors::open(example("prompt.safetensors")).unwrap();
    let with = |change: &dyn Fn(&mut BTreeMap<String, TensorData>)| {
        let mut tensors = prompt.clone();
        change(&mut tensors);
        folder.write("in.safetensors", safetensors::encode(&tensors).unwrap());
        run(&["--inputs", "in.safetensors", "--outputs", "out.safetensors"])
    };
    let renamed = with(&|t| {
        let x = t.remove("input_1").unwrap();
        t.insert("positions".to_owned(), x);
    });
    says(&renamed, &["in.safetensors: no input_1, which is i64[≤", "\"positions\" is no input"]);
    let retyped = with(&|t| {
        let x = t["input_0"].reinterpret(etx::ir::DType::Float64, vec![1, 6]).unwrap();
        t.insert("input_0".to_owned(), x);
    });
    says(&retyped, &["in.safetensors", "input 0", "f64"]);
    let reshaped = with(&|t| {
        let x = t["input_0"].reinterpret(etx::ir::DType::Int64, vec![6]).unwrap();
        t.insert("input_0".to_owned(), x);
    });
    says(&reshaped, &["in.safetensors", "input 0", "[6]"]);
    assert_eq!(folder.files(), ["a.pte", "in.safetensors"]);
}

#[test]
fn a_command_line_that_makes_no_sense() {
    let folder = Folder::new();
    for line in [
        &["lower"][..],
        &["lower", "a.pt2", "--backend", "cuda"],
        &["lower", "--method", "a.pt2", "-o", "b"],
        &["run"],
        &["fly"],
        &["run", "a", "--outputs", "b"],
    ] {
        let done = folder.etx(line);
        assert_eq!((done.status, &*done.stdout), (Some(2), ""), "{line:?}");
        assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
    }
    let error = folder.etx(args!["lower", "--method", "a=a.pt2"]).bad();
    says(&error, &["there is no INPUT to name the file after", "-o OUT.pte"]);
}

#[test]
fn types_that_do_not_follow() {
    let folder = Folder::new();
    let text = "etir 1\nmethod \"f\" functional {\n  input %x : f32[2] = user\n  %y : f32[3] = aten.relu.default(%x)\n  return %y\n}\n";
    says(&refused(&folder, &folder.write("a.etir", text), &[]), &["a.etir: ", "y = aten.relu.default", "f32[2]", "not f32[3]"]);
}
