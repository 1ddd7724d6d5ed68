//! Bad input: every defect one clear error that says where, and no panic.

mod defects;
mod forms;
mod pickles;
mod zip;

use serde_json::{Value, json};

use super::archive::Archive;
use super::*;
use zip::Entry;

/// A program of one linear layer with a buffer that counts, and a nested graph.
fn program() -> Value {
    let tensor = |dtype: i64, sizes: &[i64]| {
        let mut strides = vec![1; sizes.len()];
        for i in (1..sizes.len()).rev() {
            strides[i - 1] = strides[i] * sizes[i];
        }
        let ints = |list: &[i64]| list.iter().map(|n| json!({"as_int": n})).collect::<Vec<_>>();
        json!({"dtype": dtype, "sizes": ints(sizes), "strides": ints(&strides), "storage_offset": {"as_int": 0},
               "requires_grad": false, "device": {"type": "cpu", "index": null}, "layout": 7})
    };
    let value = |name: &str| json!({"as_tensor": {"name": name}});
    let positional = |name: &str, arg: Value| json!({"name": name, "arg": arg, "kind": 1});
    json!({
        "graph_module": {
            "graph": {
                "inputs": [value("p_l_weight"), value("p_l_bias"), value("b_calls"), value("x")],
                "outputs": [value("add"), value("linear")],
                "nodes": [
                    {"target": "torch.ops.aten.linear.default",
                     "inputs": [positional("input", value("x")), positional("weight", value("p_l_weight")), positional("bias", value("p_l_bias"))],
                     "outputs": [value("linear")],
                     "metadata": {"stack_trace": "  File \"model.py\", line 12, in forward\n    y = l(x)"}, "name": "linear"},
                    {"target": "torch.ops.aten.add.Tensor",
                     "inputs": [positional("self", value("b_calls")), positional("other", json!({"as_int": 1}))],
                     "outputs": [value("add")], "metadata": {}, "name": "add"},
                ],
                "tensor_values": {
                    "p_l_weight": tensor(7, &[3, 2]), "p_l_bias": tensor(7, &[3]), "b_calls": tensor(5, &[]),
                    "x": tensor(7, &[4, 2]), "linear": tensor(7, &[4, 3]), "add": tensor(5, &[]),
                },
                "sym_int_values": {}, "sym_bool_values": {}, "sym_float_values": {}, "custom_obj_values": {}, "is_single_tensor_return": false,
            },
            "signature": {
                "input_specs": [
                    {"parameter": {"arg": {"name": "p_l_weight"}, "parameter_name": "l.weight"}},
                    {"parameter": {"arg": {"name": "p_l_bias"}, "parameter_name": "l.bias"}},
                    {"buffer": {"arg": {"name": "b_calls"}, "buffer_name": "calls", "persistent": true}},
                    {"user_input": {"arg": value("x")}},
                ],
                "output_specs": [
                    {"buffer_mutation": {"arg": {"name": "add"}, "buffer_name": "calls"}},
                    {"user_output": {"arg": value("linear")}},
                ],
            },
            "module_call_graph": [],
        },
        "opset_version": {"aten": 10},
        "range_constraints": {},
        "schema_version": {"major": 8, "minor": 20},
        "verifiers": ["ATEN"],
        "torch_version": "2.15.0",
    })
}

/// What is in an archive, to be damaged.
struct Parts {
    program: Value,
    config: Value,
    constants: Value,
    /// Entries that are no JSON.
    files: Vec<Entry>,
}

fn parts() -> Parts {
    let program = program();
    let payload = |path: &str, name: &str| {
        let meta = program["graph_module"]["graph"]["tensor_values"][name].clone();
        json!({"path_name": path, "is_param": true, "use_pickle": false, "tensor_meta": meta})
    };
    let floats = |n: u8| (0..n).flat_map(|i| f32::from(i).to_le_bytes()).collect::<Vec<u8>>();
    let config = json!({"config": {
        "l.weight": payload("weight_0", "p_l_weight"), "l.bias": payload("weight_1", "p_l_bias"), "calls": payload("weight_2", "b_calls"),
    }});
    let files = vec![
        Entry::new("m/archive_format", "pt2"),
        Entry::new("m/archive_version", "0"),
        Entry::new("m/byteorder", "little"),
        Entry::new("m/data/weights/weight_0", floats(6)),
        Entry::new("m/data/weights/weight_1", floats(3)),
        Entry::new("m/data/weights/weight_2", 0i64.to_le_bytes()),
    ];
    Parts { program, config, constants: json!({"config": {}}), files }
}

impl Parts {
    fn file(&mut self, name: &str) -> &mut Entry {
        self.files.iter_mut().find(|f| f.name == name.as_bytes()).unwrap()
    }

    fn remove(&mut self, name: &str) {
        self.files.retain(|f| f.name != name.as_bytes());
    }

    fn write(mut self) -> Vec<u8> {
        for (name, json) in [
            ("m/data/weights/model_weights_config.json", &self.config),
            ("m/data/constants/model_constants_config.json", &self.constants),
            ("m/models/model.json", &self.program),
        ] {
            // A test may have brought its own.
            if !json.is_null() {
                self.files.push(Entry::new(name, json.to_string()));
            }
        }
        zip::write(&self.files)
    }
}

fn open(bytes: Vec<u8>) -> Result<Program, Error> {
    load_archive(Archive::open(TensorData::inline(DType::UInt8, vec![bytes.len() as u64], bytes)?)?)
}

#[test]
fn the_undamaged_archive_opens() {
    let program = open(parts().write()).unwrap();
    let method = program.method("forward").unwrap();
    assert_eq!(method.graph.len(), 2);
    let names: Vec<&str> = program.weights().iter().map(|w| &*w.name).collect();
    assert_eq!(names, ["l.weight", "l.bias", "calls"]);
    assert_eq!(program.weights()[1].data.to_vec().unwrap(), [0f32, 1.0, 2.0].map(f32::to_le_bytes).concat());
    assert_eq!(method.outputs, [etx_ir::program::OutputKind::StateMutation(2), etx_ir::program::OutputKind::User]);
    let (_, linear) = method.graph.nodes().next().unwrap();
    assert_eq!(linear.source.as_ref().unwrap().to_string(), "model.py:12");
}

#[test]
fn compressed_and_reordered_archives_open_too() {
    let mut p = parts();
    p.files.reverse();
    p.files.iter_mut().for_each(|f| f.deflated = true);
    let program = open(p.write()).unwrap();
    assert_eq!(program.weights()[1].data.to_vec().unwrap(), [0f32, 1.0, 2.0].map(f32::to_le_bytes).concat());
}

#[test]
fn several_models_are_several_methods_and_tied_weights_are_one() {
    let mut p = parts();
    p.files.push(Entry::new("m/models/step/decode.json", p.program.to_string()));
    p.files.push(Entry::new("m/data/weights/step/decode_weights_config.json", p.config.to_string()));
    // The second program's bias is the first three elements of its weight.
    p.config["config"]["l.bias"]["path_name"] = json!("weight_0");
    let program = open(p.write()).unwrap();
    let names: Vec<&str> = program.methods.iter().map(|m| &*m.name).collect();
    assert_eq!(names, ["model", "step/decode"]);
    let of = |method: usize, input: usize| &program.weight(program.methods[method].inputs[input].kind.weight().unwrap()).data;
    assert_eq!(of(0, 0).identity(), of(1, 0).identity());
    assert_eq!(of(0, 1).bytes().unwrap(), &of(0, 0).bytes().unwrap()[..12]);
}

#[test]
fn what_is_no_archive_at_all_says_so() {
    for (bytes, says) in [
        (Vec::new(), "not a zip file: it has no end record (0 bytes)"),
        (b"hello".to_vec(), "not a zip file: it has no end record (5 bytes)"),
        (vec![0; 100_000], "not a zip file: it has no end record (100000 bytes)"),
        (zip::write(&[]), "a zip file without archive_format"),
        (zip::write(&[Entry::new("a/constants.pkl", ""), Entry::new("a/data.pkl", "")]), "a TorchScript file, not an exported program"),
        (zip::write(&[Entry::new("archive/data.pkl", "")]), "a torch.save file, not an exported program"),
    ] {
        let e = open(bytes).err().unwrap();
        assert!(e.to_string().contains(says), "{e}");
        assert_eq!(e.kind(), ErrorKind::Format);
    }
    // An end record that promises more than there is.
    let mut bytes = parts().write();
    let end = bytes.len() - 22;
    bytes[end + 10] += 1;
    let e = open(bytes).err().unwrap();
    assert!(e.to_string().contains("the zip directory has 9 entries, its end record says 10"), "{e}");
    // Something before the first entry.
    let mut bytes = b"junk".to_vec();
    bytes.extend(parts().write());
    let e = open(bytes).err().unwrap();
    assert!(e.to_string().contains("the last one in it starts at byte 4"), "{e}");
    // Something after the end record is of no harm.
    let mut bytes = parts().write();
    bytes.extend(b"junk");
    open(bytes).unwrap();
}

#[test]
fn an_archive_cut_short_anywhere_is_refused() {
    let whole = parts().write();
    for len in 0..whole.len() {
        let e = open(whole[..len].to_vec()).err().unwrap_or_else(|| panic!("{len} of {} bytes open", whole.len()));
        assert_eq!(e.kind(), ErrorKind::Format);
    }
}

#[test]
fn an_archive_with_a_wrong_byte_anywhere_does_no_harm() {
    let whole = parts().write();
    for at in 0..whole.len() {
        for flip in [0x01, 0x20, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            _ = open(bytes);
        }
    }
}

#[test]
fn a_program_cut_short_or_garbled_anywhere_does_no_harm() {
    let whole = program().to_string().into_bytes();
    for at in (0..whole.len()).step_by(3) {
        assert!(json::program(&whole[..at]).is_err());
        let mut bytes = whole.clone();
        bytes[at] = b'9';
        let mut p = parts();
        p.program = Value::Null;
        p.files.push(Entry::new("m/models/model.json", bytes));
        _ = open(p.write());
    }
}

#[test]
fn an_unused_pickled_weight_is_not_looked_at() {
    let mut p = parts();
    let graph = &mut p.program["graph_module"];
    graph["graph"]["inputs"].as_array_mut().unwrap().insert(0, json!({"as_tensor": {"name": "p_dead"}}));
    graph["graph"]["tensor_values"]["p_dead"] = graph["graph"]["tensor_values"]["x"].clone();
    graph["signature"]["input_specs"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"parameter": {"arg": {"name": "p_dead"}, "parameter_name": "dead"}}));
    p.config["config"]["dead"] = json!({"path_name": "weight_9", "is_param": true, "use_pickle": true, "tensor_meta": null});
    let program = open(p.write()).unwrap();
    assert_eq!(program.weights().len(), 3);
    assert_eq!(program.methods[0].inputs.len(), 4);
}

#[test]
fn large_counts_cost_nothing() {
    // A hundred thousand entries, and as many findings: still one error of a page.
    let mut p = parts();
    p.files.extend((0..60_000).map(|i| Entry::new(&format!("m/extra/{i}"), "")));
    open(p.write()).unwrap();
    let mut p = parts();
    let node = p.program["graph_module"]["graph"]["nodes"][0].clone();
    for i in 0..2000 {
        let mut node = node.clone();
        node["inputs"][0]["arg"]["as_tensor"]["name"] = json!("nothing");
        node["outputs"][0]["as_tensor"]["name"] = json!(format!("linear_{i}"));
        p.program["graph_module"]["graph"]["nodes"].as_array_mut().unwrap().push(node);
    }
    let e = open(p.write()).err().unwrap();
    assert!(e.findings().len() == 51 && e.to_string().ends_with("and 3950 more"), "{e}");
}
