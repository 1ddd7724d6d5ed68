//! What torch writes, or reads without a word, and a reader must not trip over.

use serde_json::{Value, json};

use super::super::*;
use super::zip::{Entry, Wide};
use super::{Parts, open, parts};
use etx_ir::graph::Arg;
use etx_ir::program::{Dialect, Method};
use etx_ir::sym::{Range, Symbol};

fn opened(change: impl FnOnce(&mut Parts)) -> Program {
    let mut p = parts();
    change(&mut p);
    open(p.write()).unwrap_or_else(|e| panic!("{e}"))
}

fn calls(method: &Method) -> Vec<(&'static str, Vec<Arg>)> {
    method.graph.nodes().map(|(_, n)| (n.op.target(), n.args.clone())).collect()
}

#[test]
fn what_torch_ignores_is_ignored() {
    let plain = opened(|_| ());
    let harmless: &[fn(&mut Parts)] = &[
        // Entries that nothing needs, and those of a runtime.
        |p| p.files.push(Entry::new("m/.data/version", "6\n")),
        |p| p.files.push(Entry::new("m/data/sample_inputs/model.pt", "")),
        |p| p.files.push(Entry::new("m/data/executorch/model.pte", "ET12")),
        |p| p.files.push(Entry::new("m/data/aotinductor/model/x.so", "")),
        |p| p.files.push(Entry::new("m/extra/a/b.txt", "ü")),
        |p| p.remove("m/byteorder"),
        |p| p.config["config"]["of no interest"] = json!({"path_name": "weight_77", "use_pickle": true}),
        // A damaged weight is the user's to find: only what is read to open the file is checked.
        |p| p.file("m/data/weights/weight_0").crc = Some(7),
        // Fields of later versions, and of none.
        |p| p.program["schema_version"]["minor"] = json!(99),
        |p| p.program["schema_version"] = json!({"major": 0, "minor": 0}),
        |p| p.program["later"] = json!([{"x": null}]),
        |p| p.program["graph_module"]["graph"]["nodes"][0]["later"] = json!(1),
        |p| _ = p.program.as_object_mut().unwrap().remove("torch_version"),
        |p| _ = p.program.as_object_mut().unwrap().remove("opset_version"),
        |p| p.program["opset_version"] = json!({"aten": 99}),
        |p| p.program["guards_code"] = json!(["L['x'].size()[0] * L['x'].size()[0] == 16"]),
        |p| p.program["guards_code"] = Value::Null,
        |p| p.program["verifiers"] = json!(["", "ATEN"]),
        // What is left out where it says nothing.
        |p| {
            for node in p.program["graph_module"]["graph"]["nodes"].as_array_mut().unwrap() {
                let node = node.as_object_mut().unwrap();
                node.remove("name");
                for input in node["inputs"].as_array_mut().unwrap() {
                    _ = input.as_object_mut().unwrap().remove("kind");
                }
            }
        },
        |p| {
            for name in ["sym_int_values", "sym_bool_values", "sym_float_values", "custom_obj_values"] {
                _ = p.program["graph_module"]["graph"].as_object_mut().unwrap().remove(name);
            }
        },
        // Where a tensor was, and whether it was trained.
        |p| {
            for meta in p.program["graph_module"]["graph"]["tensor_values"].as_object_mut().unwrap().values_mut() {
                (meta["device"], meta["requires_grad"]) = (json!({"type": "cuda", "index": 0}), json!(true));
            }
        },
        |p| p.config["config"]["l.weight"]["tensor_meta"]["device"] = json!({"type": "cuda", "index": 0}),
        // A storage may be longer than what is used of it.
        |p| p.file("m/data/weights/weight_1").bytes.extend([9; 5]),
    ];
    for (i, change) in harmless.iter().enumerate() {
        let program = opened(*change);
        assert_eq!(calls(&program.methods[0]), calls(&plain.methods[0]), "change {i}");
        assert_eq!(program.weights()[1].data.to_vec().unwrap(), plain.weights()[1].data.to_vec().unwrap(), "change {i}");
        assert_eq!(program.methods[0].dialect, Dialect::Functional);
    }
}

#[test]
fn sizes_and_offsets_beyond_four_gigabytes_stand_in_extra_fields() {
    let program = opened(|p| {
        p.file("m/data/weights/weight_0").wide = Wide::Sizes;
        p.file("m/data/weights/weight_1").wide = Wide::Offset;
        p.file("m/data/weights/weight_2").wide = Wide::Offset;
    });
    assert_eq!(program.weights()[0].data.byte_len(), 24);
    assert_eq!(program.weights()[1].data.to_vec().unwrap(), [0f32, 1.0, 2.0].map(f32::to_le_bytes).concat());
}

#[test]
fn keys_of_ranges_may_be_expressions_or_name_nothing() {
    let program = opened(|p| {
        p.program["range_constraints"] = json!({
            "s77": {"min_val": 0, "max_val": null},
            "u0": {"min_val": null, "max_val": 9},
            "2*s77": {"min_val": 4, "max_val": 8},
            "not said anywhere": {"min_val": 1, "max_val": 2},
        });
        p.program["guards_code"] = json!(["L['x'].size()[0] % 2 == 0"]);
        let size = json!({"as_expr": {"expr_str": "Symbol('s77', positive=True, integer=True)", "hint": null}});
        let other = json!({"as_expr": {"expr_str": "Mul(Integer(2), Symbol('s77', positive=True, integer=True))"}});
        let graph = &mut p.program["graph_module"]["graph"]["tensor_values"];
        (graph["x"]["sizes"][0], graph["linear"]["sizes"][0]) = (size.clone(), size);
        // Strides and offsets may be symbolic, too, and are only where a tensor was when it was traced.
        (graph["x"]["storage_offset"], graph["x"]["strides"][0]) = (other.clone(), other);
    });
    let guard = &program.methods[0].guards[0];
    assert_eq!((&*guard.text, guard.condition.as_ref().unwrap().to_string()), ("L['x'].size()[0] % 2 == 0", "Eq(Mod(s77, 2), 0)".into()));
    let ranges = &program.methods[0].ranges;
    assert_eq!(ranges.of(&Symbol::new("s77").unwrap()), Range { min: Some(0), max: None });
    assert_eq!(ranges.of(&Symbol::new("u0").unwrap()), Range { min: None, max: Some(9) });
    assert_eq!(program.methods[0].graph.tensor(program.methods[0].user_inputs().next().unwrap()).unwrap().shape[0].to_string(), "s77");
}

#[test]
fn awkward_literals_and_names_are_what_they_say() {
    let program = opened(|p| {
        let graph = &mut p.program["graph_module"]["graph"];
        let clamp = |name: &str, min: Value, max: Value| {
            json!({"target": "torch.ops.aten.clamp.default", "metadata": {}, "name": name, "outputs": [{"as_tensor": {"name": name}}],
                   "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}, {"name": "min", "arg": min, "kind": 1},
                              {"name": "max", "arg": max, "kind": 2}]})
        };
        for (name, min, max) in [
            ("größe_\u{1f40d}", json!({"as_float": "-Infinity"}), json!({"as_float": "Infinity"})),
            ("b", json!({"as_float": "NaN"}), json!({"as_float": -0.0})),
            ("c", json!({"as_int": i64::MIN}), json!({"as_int": i64::MAX})),
            ("d", json!({"as_float": 1e-300}), json!({"as_float": 1e22})),
            ("e", json!({"as_none": true}), json!({"as_none": []})),
        ] {
            graph["nodes"].as_array_mut().unwrap().push(clamp(name, min, max));
            graph["tensor_values"][name] = graph["tensor_values"]["x"].clone();
        }
    });
    let graph = &program.methods[0].graph;
    let found: Vec<_> = graph.nodes().skip(2).map(|(_, n)| (n.name.to_string(), n.args[1].clone(), n.args[2].clone())).collect();
    assert_eq!(found[0], ("größe_\u{1f40d}".to_owned(), Arg::Float(f64::NEG_INFINITY), Arg::Float(f64::INFINITY)));
    assert!(matches!(found[1], (_, Arg::Float(a), Arg::Float(b)) if a.is_nan() && b == 0.0 && b.is_sign_negative()));
    assert_eq!((&found[2].1, &found[2].2), (&Arg::Int(i64::MIN), &Arg::Int(i64::MAX)));
    assert_eq!((&found[3].1, &found[3].2), (&Arg::Float(1e-300), &Arg::Float(1e22)));
    assert_eq!((&found[4].1, &found[4].2), (&Arg::None, &Arg::None));
}

#[test]
fn a_call_that_returns_nothing_may_say_so() {
    // As the markers of torch.vmap do; others have no results at all.
    let program = opened(|p| {
        let marker = json!({"target": "torch._functorch.predispatch.lazy_load_decompositions", "inputs": [], "metadata": {},
                            "outputs": [{"as_none": true}], "name": "lazy"});
        p.program["graph_module"]["graph"]["nodes"].as_array_mut().unwrap().insert(0, marker);
    });
    let (_, marker) = program.methods[0].graph.nodes().next().unwrap();
    assert!(marker.outputs.is_empty());
    etx_ir::verify::verify(&program).unwrap();
}

#[test]
fn programs_of_the_edge_dialect_have_names_for_some_arguments_only() {
    // As torch.export.save writes them: like higher-order operators, by position, but for those that are keywords.
    let plain = opened(|_| ());
    for prefix in ["executorch.exir.dialects.edge._ops.", "executorch.exir.dialects.edge.ops."] {
        let program = opened(|p| {
            p.program["verifiers"] = json!(["EDGE"]);
            for node in p.program["graph_module"]["graph"]["nodes"].as_array_mut().unwrap() {
                let target = node["target"].as_str().unwrap().replace("torch.ops.", prefix);
                node["target"] = json!(target);
                for input in node["inputs"].as_array_mut().unwrap() {
                    input["name"] = json!("");
                }
            }
            let add = p.program["graph_module"]["graph"]["nodes"][1]["inputs"].as_array_mut().unwrap();
            add.push(json!({"name": "alpha", "arg": {"as_int": 1}, "kind": 2}));
        });
        assert_eq!(calls(&program.methods[0]), calls(&plain.methods[0]), "{prefix}");
    }
}

#[test]
fn views_of_one_storage_are_where_they_say() {
    let program = opened(|p| {
        // Rows of a matrix that overlap, one of them expanded, and tensors of nothing that share an empty file.
        let meta = |sizes: Value, strides: Value, offset: i64, dtype: i64| {
            json!({"dtype": dtype, "sizes": sizes, "strides": strides, "storage_offset": {"as_int": offset}, "requires_grad": false,
                   "device": {"type": "cpu", "index": null}, "layout": 7})
        };
        let int = |n: i64| json!({"as_int": n});
        p.config["config"]["l.weight"]["tensor_meta"] = meta(json!([int(3), int(2)]), json!([int(0), int(1)]), 4, 7);
        p.config["config"]["l.bias"] =
            json!({"path_name": "weight_0", "use_pickle": false, "tensor_meta": meta(json!([int(3)]), json!([int(2)]), 1, 7)});
        let empty = meta(json!([int(0), int(3)]), json!([int(3), int(1)]), 0, 7);
        let graph = &mut p.program["graph_module"];
        graph["graph"]["inputs"].as_array_mut().unwrap().insert(0, json!({"as_tensor": {"name": "b_none"}}));
        graph["graph"]["tensor_values"]["b_none"] = empty.clone();
        let spec = json!({"buffer": {"arg": {"name": "b_none"}, "buffer_name": "none", "persistent": false}});
        graph["signature"]["input_specs"].as_array_mut().unwrap().insert(0, spec);
        p.constants = json!({"config": {"none": {"path_name": "tensor_0", "use_pickle": false, "tensor_meta": empty}}});
        p.files.push(Entry::new("m/data/constants/tensor_0", ""));
    });
    let data = |name: &str| program.weights().iter().find(|w| &*w.name == name).unwrap().data.to_vec().unwrap();
    assert_eq!(data("l.weight"), [4f32, 5.0, 4.0, 5.0, 4.0, 5.0].map(f32::to_le_bytes).concat());
    assert_eq!(data("l.bias"), [1f32, 3.0, 5.0].map(f32::to_le_bytes).concat());
    assert_eq!(data("none"), [0u8; 0]);
}
