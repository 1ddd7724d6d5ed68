//! One defect at a time, in the container, the JSON, the graph and the weights.

use serde_json::{Value, json};

use super::zip::Entry;
use super::{ErrorKind, Parts, open, parts};

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
        |p| p.program["graph_module"]["graph"]["nodes"][1]["inputs"][0]["arg"] = Value::Null,
        ErrorKind::Format,
        "graph_module.graph.nodes[1].inputs[0].arg: expected value",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][1]["inputs"][1]["arg"] = json!({"as_layout": 9}),
        ErrorKind::Format,
        "add: 9 is no layout",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][1]["inputs"][1]["arg"] = json!({"as_memory_format": -1}),
        ErrorKind::Format,
        "add: -1 is no memory format",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][1]["inputs"][1]["arg"] = json!({"as_scalar_type": 36}),
        ErrorKind::Format,
        "add: 36 is no element type",
    ),
    (
        |p| p.program["graph_module"]["graph"]["nodes"][1]["inputs"][1]["arg"] = json!({"as_float": "Infinite"}),
        ErrorKind::Format,
        "graph_module.graph.nodes[1].inputs[1].arg.as_float: invalid value: string",
    ),
    (
        |p| {
            p.program["graph_module"]["graph"]["nodes"]
                .as_array_mut()
                .unwrap()
                .push(json!({"target": "executorch.exir.memory.view", "inputs": [], "outputs": []}))
        },
        ErrorKind::UnknownOperator,
        "unknown operator executorch.exir.memory.view, 1 call",
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
        |p| p.program["graph_module"]["graph"]["tensor_values"]["linear"]["layout"] = json!(1),
        ErrorKind::Format,
        "tensor \"linear\": its layout is number 1, sparse or opaque",
    ),
    (
        |p| p.config["config"]["l.bias"]["tensor_meta"]["layout"] = json!(6),
        ErrorKind::Weight,
        "weight \"l.bias\": its layout is number 6, sparse or opaque",
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
fn archives_unpack_to_no_more_than_a_file_of_their_size_may() {
    use crate::pt2::archive::Archive;
    use etx_ir::DType;
    use etx_ir::weights::TensorData;
    let open = |entries: &[Entry]| {
        let bytes = super::zip::write(entries);
        Archive::open(TensorData::inline(DType::UInt8, vec![bytes.len() as u64], bytes).unwrap()).unwrap()
    };
    // A megabyte that claims a gigabyte: refused before it is unpacked.
    let bomb = Entry { deflated: true, size: Some(1 << 30), ..Entry::new("a", vec![0; 1 << 20]) };
    let error = open(&[bomb]).read("a").unwrap_err().to_string();
    assert!(error.contains("entry a") && error.contains("a file of this size"), "{error}");
    // An archive in it that is unpacked again and again counts each time.
    let zeros = vec![0; 8 << 20];
    let inner = super::zip::write(&[Entry { deflated: true, ..Entry::new("b", zeros) }]);
    let outer = open(&[Entry::new("a", inner)]);
    let again = || outer.inner(outer.data("a").unwrap()).and_then(|inner| inner.read("b").map(<[u8]>::len));
    assert_eq!(again().unwrap(), 8 << 20);
    assert!((0..10).any(|_| again().is_err()), "64 MiB and a little are allowed");
    // What other tools pack is far from it.
    let honest = open(&[Entry { deflated: true, ..Entry::new("a", b"{\"nodes\": []}".repeat(10_000)) }]);
    assert_eq!(honest.read("a").unwrap().len(), 130_000);
}
