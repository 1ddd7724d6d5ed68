//! Bad input: every defect one clear error that says where, and no panic.

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
    assert_eq!(method.outputs, [crate::program::OutputKind::StateMutation(2), crate::program::OutputKind::User]);
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

/// Every row: a defect, the kind of the error, and what it must say.
type Row = (fn(&mut Parts), ErrorKind, &'static str);

const DEFECTS: &[Row] = &[
    // The container.
    (|p| p.file("m/archive_format").bytes = b"pt3".to_vec(), ErrorKind::Format, "archive_format is \"pt3\"; pt2 is supported"),
    (|p| p.file("m/archive_version").bytes = b"1".to_vec(), ErrorKind::Version, "archive_version is \"1\"; 0 is supported"),
    (|p| p.remove("m/archive_version"), ErrorKind::Format, "entry archive_version is missing"),
    (|p| p.remove("m/archive_format"), ErrorKind::Format, "a zip file without archive_format, not an exported program"),
    (|p| p.file("m/byteorder").bytes = b"big".to_vec(), ErrorKind::Unsupported, "the weights are big-endian"),
    (|p| p.files.push(Entry::new("other/x", "")), ErrorKind::Format, "do not stand below one root folder but m/, other/"),
    (|p| p.files.push(Entry::new("x", "")), ErrorKind::Format, "do not stand below one root folder but none, m/"),
    (|p| p.files.push(Entry::new("m/byteorder", "")), ErrorKind::Format, "entry m/byteorder is there twice"),
    (|p| p.files.push(Entry { name: b"m/\xff".to_vec(), ..Entry::new("", "") }), ErrorKind::Format, "entry 6: its name is not UTF-8"),
    (|p| p.file("m/archive_format").crc = Some(7), ErrorKind::Format, "entry archive_format at byte 50: its checksum is "),
    (
        |p| p.file("m/byteorder").size = Some(1 << 30),
        ErrorKind::Format,
        "entry m/byteorder is stored but 6 bytes in the file and 1073741824 bytes",
    ),
    (|p| p.file("m/byteorder").packed = Some(1 << 30), ErrorKind::Format, "entry m/byteorder, whose header is said to be at byte 105"),
    (
        |p| p.file("m/byteorder").offset = Some(1 << 30),
        ErrorKind::Format,
        "entry m/byteorder, whose header is said to be at byte 1073741824",
    ),
    (|p| p.file("m/byteorder").offset = Some(3), ErrorKind::Format, "entry m/byteorder, whose header is said to be at byte 3"),
    (|p| p.file("m/byteorder").method = Some(93), ErrorKind::Format, "entry m/byteorder: compression method 93"),
    (|p| p.file("m/byteorder").method = Some(8), ErrorKind::Format, "entry byteorder at byte 150: its compressed data are damaged"),
    (
        |p| {
            let e = p.file("m/data/weights/weight_0");
            (e.deflated, e.size) = (true, Some(u32::MAX - 1));
        },
        ErrorKind::Format,
        "weight \"l.weight\": entry data/weights/weight_0 is compressed and unpacks to 4294967294 bytes",
    ),
    (
        |p| {
            let e = p.file("m/data/weights/weight_0");
            (e.deflated, e.size) = (true, Some(5));
        },
        ErrorKind::Format,
        "entry data/weights/weight_0 at byte 213: it unpacks to more than it declares",
    ),
    (
        |p| {
            let e = p.file("m/data/weights/weight_0");
            (e.deflated, e.size) = (true, Some(25));
        },
        ErrorKind::Format,
        "entry data/weights/weight_0 at byte 213 unpacks to 24 bytes, it declares 25",
    ),
    (|p| p.program = Value::Null, ErrorKind::Format, "the archive holds no models/NAME.json"),
    (
        |p| {
            p.program = Value::Null;
            p.files.push(Entry::new("m/data/aotinductor/model/x.so", ""));
        },
        ErrorKind::Format,
        "help: it holds a compiled AOTInductor program only",
    ),
    // The JSON.
    (
        |p| p.program["schema_version"]["major"] = json!(9),
        ErrorKind::Version,
        "models/model.json: schema version 9.20; 8, 7 and 5 are supported",
    ),
    (|p| p.program["schema_version"] = json!(8), ErrorKind::Format, "not the JSON of an exported program: invalid type: integer `8`"),
    (|p| p.program = json!("x"), ErrorKind::Format, "models/model.json: not the JSON of an exported program"),
    (|p| p.program["verifiers"] = json!(["FANCY"]), ErrorKind::Version, "dialect \"FANCY\""),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][1]["inputs"][0]["arg"] = json!({"as_tensor": 3}),
        ErrorKind::Format,
        "models/model.json: graph_module.graph.nodes[1].inputs[0].arg.as_tensor: invalid type",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][1]["inputs"][0]["arg"] = json!({"as_wat": 3}),
        ErrorKind::Format,
        "graph_module.graph.nodes[1].inputs[0].arg: unknown variant `as_wat`",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][1]["inputs"][0]["arg"] = json!({"as_int": 1, "as_float": 1.0}),
        ErrorKind::Format,
        "graph_module.graph.nodes[1].inputs[0].arg",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][1]["inputs"][1]["arg"] = json!({"as_int": 1e30}),
        ErrorKind::Format,
        "graph_module.graph.nodes[1].inputs[1].arg.as_int: invalid type: floating point `1e+30`",
    ),
    (|p| _ = p.program["graph_module"].as_object_mut().unwrap().remove("graph"), ErrorKind::Format, "graph_module: missing field `graph`"),
    (
        |p| {
            for _ in 0..40 {
                let inner = p.program["graph_module"]["graph"].clone();
                let arg = json!({"as_graph": {"name": "g", "graph": inner}});
                p.program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = arg;
            }
        },
        ErrorKind::Format,
        "recursion limit exceeded",
    ),
    (
        |p| p.program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = json!({"as_expr": {"expr_str": "(".repeat(100_000)}}),
        ErrorKind::Format,
        "tensor \"x\": expression \"((((",
    ),
    // The graph.
    (
        |p| {
            let nodes = &mut p.program["graph_module"]["graph"]["nodes"];
            nodes[0]["target"] = json!("torch.ops.mine.odd.default");
            nodes[1]["target"] = json!("torch.ops.mine.other.default");
        },
        ErrorKind::UnknownOperator,
        "2 problems\n  unknown operator torch.ops.mine.odd.default, 1 call, first at model.py:12\n  unknown operator torch.ops.mine.other.default, 1 call\nhelp: ",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"]["as_tensor"]["name"] = json!("add"),
        ErrorKind::Format,
        "linear uses \"add\", which nothing before it defines",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"]["as_tensor"]["name"] = json!("linear"),
        ErrorKind::Format,
        "linear uses \"linear\", which nothing before it defines",
    ),
    (
        |p| p.program["graph_module"]["graph"]["outputs"][1]["as_tensor"]["name"] = json!("nothing"),
        ErrorKind::Format,
        "the outputs uses \"nothing\", which nothing before it defines",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][1]["outputs"][0]["as_tensor"]["name"] = json!("linear"),
        ErrorKind::Format,
        "value \"linear\" is defined twice",
    ),
    (
        |p| _ = p.program["graph_module"]["graph"]["tensor_values"].as_object_mut().unwrap().remove("linear"),
        ErrorKind::Format,
        "tensor \"linear\": it has no entry in tensor_values",
    ),
    (
        |p| p.program["graph_module"]["graph"]["tensor_values"]["linear"]["dtype"] = json!(99),
        ErrorKind::Format,
        "tensor \"linear\": 99 is no element type",
    ),
    (
        |p| p.program["graph_module"]["graph"]["tensor_values"]["linear"]["sizes"][0] = json!({"as_int": -4}),
        ErrorKind::Format,
        "tensor \"linear\": negative size -4",
    ),
    (
        |p| p.program["graph_module"]["graph"]["tensor_values"]["linear"]["strides"] = json!([{"as_int": 1}]),
        ErrorKind::Format,
        "tensor \"linear\": 2 sizes but 1 strides",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][0]["inputs"][1]["name"] = json!("wieght"),
        ErrorKind::Format,
        "linear: call of aten.linear.default: unknown argument `wieght`; argument `weight` (Tensor) is missing",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][0]["inputs"][1]["kind"] = json!(7),
        ErrorKind::Format,
        "linear: input 1 is of unknown kind 7",
    ),
    (
        |p| _ = p.program["graph_module"]["signature"]["input_specs"].as_array_mut().unwrap().pop(),
        ErrorKind::Format,
        "the signature has 3 inputs and 2 outputs, the graph 4 and 2",
    ),
    (
        |p| p.program["graph_module"]["signature"]["output_specs"][0]["buffer_mutation"]["buffer_name"] = json!("cells"),
        ErrorKind::Format,
        "mutation of unknown state \"cells\"",
    ),
    (
        |p| p.program["graph_module"]["signature"]["output_specs"][0] = json!({"loss_output": {"arg": {"name": "add"}}}),
        ErrorKind::Format,
        "the program returns a loss or gradients",
    ),
    // The weights.
    (
        |p| {
            let config = p.config["config"].as_object_mut().unwrap();
            config.remove("l.weight");
            config.remove("calls");
        },
        ErrorKind::Weight,
        "2 problems\n  weight \"l.weight\": not in data/weights\n  weight \"calls\": not in data/weights\nhelp: the archive was saved without its weights",
    ),
    (|p| p.remove("m/data/weights/weight_1"), ErrorKind::Format, "weight \"l.bias\": entry data/weights/weight_1 is missing"),
    (
        |p| p.config["config"]["l.bias"]["path_name"] = json!("../../etc/passwd"),
        ErrorKind::Format,
        "entry data/weights/../../etc/passwd is missing",
    ),
    (
        |p| _ = p.file("m/data/weights/weight_1").bytes.pop(),
        ErrorKind::Weight,
        "weight \"l.bias\": data/weights/weight_1: f32[3] with strides [1] from element 0 reaches beyond the 11 bytes stored",
    ),
    (
        |p| p.file("m/data/weights/weight_1").bytes.clear(),
        ErrorKind::Weight,
        "weight \"l.bias\": its bytes were not saved\nhelp: the program was exported from fake or meta tensors",
    ),
    (
        |p| p.config["config"]["l.bias"]["tensor_meta"]["sizes"][0] = json!({"as_int": 2}),
        ErrorKind::Weight,
        "weight \"l.bias\": f32[3] in the graph but f32[2] where it is stored\nhelp: graph and weights are of different exports",
    ),
    (
        |p| p.config["config"]["l.bias"]["tensor_meta"]["dtype"] = json!(4),
        ErrorKind::Weight,
        "weight \"l.bias\": f32[3] in the graph but i32[3] where it is stored",
    ),
    (
        |p| p.config["config"]["l.bias"]["tensor_meta"]["sizes"][0] = json!({"as_int": i64::MAX}),
        ErrorKind::Weight,
        "weight \"l.bias\": data/weights/weight_1: a tensor f32[9223372036854775807] has more than 2^64 bytes",
    ),
    (
        |p| p.config["config"]["l.bias"]["tensor_meta"]["strides"][0] = json!({"as_int": i64::MAX}),
        ErrorKind::Weight,
        "reaches beyond the 12 bytes stored",
    ),
    (
        |p| p.config["config"]["l.bias"]["tensor_meta"]["strides"][0] = json!({"as_int": -1}),
        ErrorKind::Weight,
        "weight \"l.bias\": strides [-1] are not natural numbers",
    ),
    (
        |p| p.config["config"]["l.bias"]["tensor_meta"]["storage_offset"] = json!({"as_int": i64::MAX}),
        ErrorKind::Weight,
        "reaches beyond the 12 bytes stored",
    ),
    (
        |p| p.config["config"]["l.bias"]["tensor_meta"]["sizes"][0] = json!({"as_expr": {"expr_str": "Symbol('s0', integer=True)"}}),
        ErrorKind::Weight,
        "weight \"l.bias\": sizes [s0] are not numbers",
    ),
    (
        |p| p.config["config"]["l.bias"]["tensor_meta"] = Value::Null,
        ErrorKind::Weight,
        "weight \"l.bias\": a custom object where a tensor should be",
    ),
    (|p| p.config = json!({"config": [1]}), ErrorKind::Format, "data/weights/model_weights_config.json: config: invalid type: sequence"),
    (
        |p| p.config["config"]["l.bias"]["use_pickle"] = json!(true),
        ErrorKind::Format,
        "weight \"l.bias\": data/weights/weight_1: not a zip file: it has no end record (12 bytes)",
    ),
];

#[test]
fn every_defect_is_one_error_that_says_where() {
    let mut wrong = Vec::new();
    for (i, (damage, kind, says)) in DEFECTS.iter().enumerate() {
        let mut p = parts();
        damage(&mut p);
        match open(p.write()) {
            Ok(_) => wrong.push(format!("defect {i} was not seen; expected {says}")),
            Err(e) if e.kind() == *kind && e.to_string().contains(says) => {}
            Err(e) => wrong.push(format!("defect {i}: {:?}: {e}\nexpected: {kind:?}: {says}", e.kind())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
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
