//! Real files: of older generations, with pickled weights, and a program beside its weights.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use etx_import::pt2;
use etx_ir::DType;
use etx_ir::error::ErrorKind;
use etx_ir::graph::{Arg, Def, Graph, Type};
use etx_ir::program::{Dialect, InputKind, OutputKind, Program};
use etx_ir::weights::TensorData;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn load(name: &str) -> Program {
    pt2::load(fixture(name)).unwrap_or_else(|e| panic!("{e}"))
}

/// The bytes of `n` elements that count up in eighths (see `make_old_pt2.py`).
fn counted(n: u32) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32 / 8.0).to_le_bytes()).collect()
}

#[test]
fn every_generation_is_the_same_program() {
    for name in ["exir-1.5.1", "torch-2.5.1", "torch-2.7.1", "torch-2.8.0"] {
        let program = load(&format!("old-pt2/{name}.pt2"));
        let method = program.method("forward").unwrap();
        let edge = name.starts_with("exir");
        let training = matches!(name, "torch-2.7.1" | "torch-2.8.0");
        assert_eq!(method.dialect == Dialect::Training, training, "{name}");
        let weights: BTreeMap<&str, _> = program.weights().iter().map(|w| (&*w.name, &w.data)).collect();
        // Whichever of its names the tied weight is read by, it is one tensor.
        let tied = weights.get("linear.weight").or(weights.get("tied")).unwrap();
        for (name, data) in &weights {
            if matches!(*name, "linear.weight" | "tied") {
                assert_eq!(data.identity(), tied.identity());
            }
        }
        assert_eq!((tied.shape(), tied.to_vec().unwrap()), (&[3, 4][..], counted(12)), "{name}");
        assert!(tied.file_range().is_some(), "{name}: weights stay in the file");
        assert_eq!(weights["linear.bias"].to_vec().unwrap(), counted(3), "{name}");
        assert_eq!(weights["beside"].to_vec().unwrap(), counted(6), "{name}");
        assert_eq!((weights["calls"].dtype(), weights["calls"].to_vec().unwrap()), (DType::Int64, vec![0; 8]), "{name}");
        assert_eq!(
            (weights["offset"].dtype(), weights["offset"].bytes().unwrap()),
            (DType::BFloat16, &[0, 0, 0, 0x3e, 0x80, 0x3e][..]),
            "{name}"
        );
        // Stored [3, 2] and seen transposed: rows are 0, 2, 4 and 1, 3, 5 eighths.
        let turned: Vec<u8> = [0, 2, 4, 1, 3, 5].iter().flat_map(|i| (*i as f32 / 8.0).to_le_bytes()).collect();
        assert_eq!((weights["turned"].shape(), weights["turned"].to_vec().unwrap()), (&[2, 3][..], turned), "{name}");

        // The counter is written: in place, or by an output.
        let mutation = method.outputs.iter().find_map(|o| match o {
            OutputKind::StateMutation(i) => Some(*i as usize),
            _ => None,
        });
        match mutation {
            Some(i) => assert!(
                matches!(method.inputs[i].kind, InputKind::Buffer { weight, .. } if &*program.weight(weight).name == "calls"),
                "{name}"
            ),
            None => assert!(training, "{name}"),
        }
        // The size is dynamic from 2 up, and infinities are floats.
        let x = method.user_inputs().next().unwrap();
        let size = method.graph.tensor(x).unwrap().shape[0].clone();
        let bounds = method.ranges.bounds(&size);
        assert_eq!((bounds.min, bounds.max), (Some(2), if name == "torch-2.5.1" { None } else { Some(64) }), "{name}: {size:?}");
        let infinite = |x: f64| method.graph.nodes().any(|(_, n)| n.args.contains(&Arg::Float(x)));
        assert!(edge || infinite(f64::INFINITY) && infinite(f64::NEG_INFINITY), "{name}");
        let at = method.graph.nodes().filter_map(|(_, n)| n.source.as_ref()).map(|s| &*s.file);
        assert!(at.into_iter().any(|file| file == "tests/scripts/make_old_pt2.py"), "{name}");
    }
}

/// The parameters of a method: name of the value, type, weight, bytes.
fn parameters(program: &Program) -> Vec<(String, Type, String, Vec<u8>)> {
    let method = &program.methods[0];
    let of = |i: &etx_ir::program::Input| {
        let InputKind::Parameter(w) = i.kind else { return None };
        let (value, weight) = (method.graph.value(i.value?), program.weight(w));
        Some((value.name.to_string(), value.ty.clone(), weight.name.to_string(), weight.data.to_vec().unwrap()))
    };
    method.inputs.iter().filter_map(of).collect()
}

/// The calls that make plain tensors of quantised ones, in order: operator, arguments (inputs of the method by name), type of
/// the result, and who uses it. Nested graphs are gone into; `names` are the names of the inputs.
fn dequantised(graph: &Graph, names: &[String]) -> Vec<String> {
    let name = |arg: &Arg| match arg {
        Arg::Value(v) => match graph.value(*v).def {
            Def::Input(i) => names[i as usize].clone(),
            Def::Node(..) => "a result".to_owned(),
        },
        literal => format!("{literal:?}"),
    };
    let mut calls = Vec::new();
    for (_, node) in graph.nodes() {
        for (i, arg) in node.args.iter().enumerate() {
            if let Arg::Graph(inner) = arg {
                let operands: Vec<String> = node.args.iter().skip(i + 1).map(name).collect();
                calls.extend(dequantised(inner, &operands));
            }
        }
        if node.op.target().starts_with("torchao.dequantize") {
            let args: Vec<String> = node.args.iter().map(name).collect();
            let result = graph.value(node.outputs[0]);
            let users: Vec<&str> = result.users().iter().map(|u| graph.node(*u).op.target()).collect();
            calls.push(format!("{}({}): {:?} for {users:?}", node.op.target(), args.join(", "), result.ty));
        }
    }
    calls
}

fn dequantised_by(program: &Program) -> Vec<String> {
    let graph = &program.methods[0].graph;
    let names: Vec<String> = graph.inputs().iter().map(|v| graph.value(*v).name.to_string()).collect();
    dequantised(graph, &names)
}

#[test]
fn pickled_weights_become_what_torch_makes_of_them() {
    for (raw, functional) in [("classes", "classes.functional"), ("uses", "uses.functional"), ("nvfp4", "nvfp4.plain")] {
        let (raw, functional) = (load(&format!("pickled-pt2/{raw}.pt2")), load(&format!("pickled-pt2/{functional}.pt2")));
        let expected = dequantised_by(&functional);
        assert!(!expected.is_empty());
        assert_eq!(dequantised_by(&raw), expected);
        // torch keeps the dead copies of tied weights.
        let used = |p: &Program| {
            let graph = &p.methods[0].graph;
            let by_name: BTreeMap<&str, usize> =
                graph.inputs().iter().map(|v| (&*graph.value(*v).name, graph.value(*v).use_count())).collect();
            parameters(p).into_iter().filter(|(name, ..)| by_name[name.as_str()] > 0).collect::<Vec<_>>()
        };
        assert_eq!(used(&raw), used(&functional));
        for weight in raw.weights() {
            assert!(weight.data.bytes().is_none() || weight.data.byte_len() < 8 || weight.data.file_range().is_some(), "{}", weight.name);
        }
    }
}

#[test]
fn pickled_weights_reach_the_branches_of_a_condition_in_parts() {
    let program = load("pickled-pt2/condition.pt2");
    let graph = &program.methods[0].graph;
    let [(_, cond)] = graph.nodes().collect::<Vec<_>>()[..] else { panic!("{} calls", graph.len()) };
    let [_, Arg::Graph(yes), Arg::Graph(no), Arg::List(operands)] = cond.args.as_slice() else { panic!("{:?}", cond.args) };
    assert_eq!(operands.len(), 4);
    assert_eq!((yes.inputs().len(), no.inputs().len()), (4, 4));
    let targets: Vec<&str> = yes.nodes().map(|(_, n)| n.op.target()).collect();
    assert_eq!(targets, ["torchao.dequantize_int4_tensor.default", "aten.linear.default"]);
    // Operand and input agree, one by one.
    for (operand, inner) in operands.iter().zip(yes.inputs()) {
        let outer = graph.ty(operand.as_value().unwrap());
        assert_eq!(outer.as_tensor().map(|t| (&t.dtype, &t.shape)), yes.ty(*inner).as_tensor().map(|t| (&t.dtype, &t.shape)));
    }
}

/// `graph.json` of a fixture beside its weights in one safetensors file, in a folder that goes away.
struct Beside {
    folder: PathBuf,
}

impl Beside {
    fn new(name: &str, weights: &BTreeMap<String, TensorData>) -> Self {
        let folder = std::env::temp_dir().join(format!("etx-graph-json-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("w.safetensors"), etx_import::safetensors::encode(weights).unwrap()).unwrap();
        // The program of torch 2.8 is stored uncompressed: from the first brace to the last of it.
        let bytes = std::fs::read(fixture("old-pt2/torch-2.8.0.pt2")).unwrap();
        let start = bytes
            .windows(16)
            .position(|w| w == b"{\"graph_module\": ")
            .or(bytes.windows(15).position(|w| w == b"{\"graph_module\""))
            .unwrap();
        let mut stream = serde_json::Deserializer::from_slice(&bytes[start..]).into_iter::<serde::de::IgnoredAny>();
        stream.next().unwrap().unwrap();
        std::fs::write(folder.join("graph.json"), &bytes[start..start + stream.byte_offset()]).unwrap();
        Self { folder }
    }

    fn load(&self) -> Result<Program, etx_ir::error::Error> {
        pt2::load_json(self.folder.join("graph.json"), &[self.folder.join("w.safetensors")])
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn tensor(dtype: DType, shape: &[u64], bytes: Vec<u8>) -> TensorData {
    TensorData::inline(dtype, shape.to_vec(), bytes).unwrap()
}

fn weights() -> BTreeMap<String, TensorData> {
    let f32s = |shape: &[u64]| tensor(DType::Float32, shape, counted(shape.iter().product::<u64>() as u32));
    let all = [
        ("tied", f32s(&[3, 4])),
        ("turned", f32s(&[2, 3])),
        ("linear.weight", f32s(&[3, 4])),
        ("linear.bias", f32s(&[3])),
        ("offset", tensor(DType::BFloat16, &[3], vec![0; 6])),
        ("beside", f32s(&[2, 3])),
        ("calls", tensor(DType::Int64, &[], vec![0; 8])),
        ("lifted_tensor_0", f32s(&[3])),
        ("of no interest", f32s(&[9])),
    ];
    all.into_iter().map(|(name, data)| (name.to_owned(), data)).collect()
}

#[test]
fn a_program_and_its_weights_may_be_in_two_files() {
    let program = Beside::new("good", &weights()).load().unwrap_or_else(|e| panic!("{e}"));
    let archive = load("old-pt2/torch-2.8.0.pt2");
    assert_eq!(program.weights().len(), archive.weights().len());
    let calls = |p: &Program| p.methods[0].graph.nodes().map(|(_, n)| (n.op, n.args.clone())).collect::<Vec<_>>();
    assert_eq!(calls(&program), calls(&archive));
}

#[test]
fn weights_that_are_missing_or_do_not_fit_are_all_named() {
    let mut few = weights();
    few.remove("offset");
    few.remove("turned");
    let beside = Beside::new("few", &few);
    let e = beside.load().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Weight);
    assert_eq!(e.findings(), ["weight \"turned\": in none of the weight files", "weight \"offset\": in none of the weight files"]);
    assert!(e.remedy().is_some_and(|r| r.starts_with("add the file that has it")), "{e}");
    let e = pt2::load_json(beside.folder.join("graph.json"), &[]).unwrap_err();
    assert!(e.findings().len() >= 7 && e.remedy().is_some_and(|r| r.contains("--weights FILE.safetensors")), "{e}");

    let mut other = weights();
    other.insert("offset".to_owned(), tensor(DType::Float16, &[3], vec![0; 6]));
    other.insert("turned".to_owned(), tensor(DType::Float32, &[3, 2], vec![0; 24]));
    let e = Beside::new("other", &other).load().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Weight);
    assert_eq!(
        e.findings(),
        [
            "weight \"turned\": f32[2, 3] in the graph but f32[3, 2] where it is stored",
            "weight \"offset\": bf16[3] in the graph but f16[3] where it is stored"
        ]
    );
}
