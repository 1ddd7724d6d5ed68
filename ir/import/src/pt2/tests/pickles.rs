//! Pickled weights that are not what they should be.

use serde_json::json;

use super::super::saved::{Saved, Stored};
use super::super::*;
use super::zip::{self, Entry};
use super::{open, parts};

/// A pickle under construction.
#[derive(Clone, Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.0.extend(format!("c{module}\n{name}\n").bytes());
        self
    }

    fn text(&mut self, s: &str) -> &mut Self {
        self.0.push(b'X');
        self.0.extend((s.len() as u32).to_le_bytes());
        self.0.extend(s.bytes());
        self
    }

    fn int(&mut self, n: i32) -> &mut Self {
        self.0.push(b'J');
        self.0.extend(n.to_le_bytes());
        self
    }

    fn ints(&mut self, list: &[i32]) -> &mut Self {
        self.op(b"(");
        list.iter().for_each(|n| _ = self.int(*n));
        self.op(b"t")
    }

    fn op(&mut self, op: &[u8]) -> &mut Self {
        self.0.extend(op);
        self
    }

    /// A tensor over storage `key` of `count` elements of `kind`.
    fn tensor(&mut self, kind: &str, key: &str, count: i32, offset: i32, sizes: &[i32], strides: &[i32]) -> &mut Self {
        self.global("torch._utils", "_rebuild_tensor_v2").op(b"((").text("storage").global("torch", kind).text(key).text("cpu");
        self.int(count).op(b"tQ").int(offset).ints(sizes).ints(strides).op(b"\x89").global("collections", "OrderedDict").op(b")RtR")
    }

    /// A tensor subclass of these sizes, with state that `state` makes.
    fn subclass(&mut self, module: &str, class: &str, sizes: &[i32], state: impl Fn(&mut Self)) -> &mut Self {
        self.global("torch._tensor", "_rebuild_from_type_v2").op(b"(").global("torch._utils", "_rebuild_wrapper_subclass");
        self.global(module, class).op(b"(").global(module, class).global("torch", "float32").ints(sizes).op(b"t}(");
        state(self);
        self.op(b"utR")
    }

    fn bytes(&self) -> Vec<u8> {
        [b"\x80\x02", self.0.as_slice(), b"."].concat()
    }
}

fn pickle(build: impl Fn(&mut Pickle) -> &mut Pickle) -> Vec<u8> {
    let mut p = Pickle::default();
    build(&mut p);
    p.bytes()
}

/// A torch.save file of this pickle and one storage of 24 bytes.
fn saved(pickle: &[u8]) -> Vec<u8> {
    zip::write(&[
        Entry::new("archive/data.pkl", pickle),
        Entry::new("archive/byteorder", "little"),
        Entry::new("archive/data/0", (0..24).collect::<Vec<u8>>()),
    ])
}

fn archive(bytes: Vec<u8>) -> Result<Archive, Error> {
    let mut archive = Archive::open(TensorData::inline(DType::UInt8, vec![bytes.len() as u64], bytes)?)?;
    archive.strip_root()?;
    Ok(archive)
}

fn read(pickle: &[u8]) -> Result<Stored, Error> {
    let archive = archive(saved(pickle))?;
    let saved = Saved::open(&archive)?;
    saved.tensor()
}

const INT4: (&str, &str) = ("executorch.extension.llm.export.int4", "ExportableInt4Tensor");

fn int4(p: &mut Pickle, sizes: &[i32], fields: &[&str]) {
    p.subclass(INT4.0, INT4.1, sizes, |p| {
        for field in fields {
            p.text(field).tensor("ByteStorage", "0", 24, 0, &[4, 2], &[2, 1]);
        }
        p.text("group_size").int(4);
    });
}

#[test]
fn elements_of_four_bits_are_two_a_byte() {
    let mx = |columns: i32, block: bool| {
        pickle(|p| {
            p.subclass("torchao.prototype.mx_formats.mx_tensor", "MXTensor", &[4, columns], |p| {
                p.text("qdata").tensor("ByteStorage", "0", 24, 0, &[4, 2], &[2, 1]).text("scale");
                p.tensor("ByteStorage", "0", 24, 0, &[4, 1], &[1, 1]).text("elem_dtype").global("torch", "float4_e2m1fn_x2");
                if block {
                    p.text("block_size").int(4);
                }
            })
        })
    };
    let whole = read(&mx(4, true)).unwrap();
    assert!(matches!(whole, Stored::Wrapped(w) if w.shape == [4, 4]));
    let says = |pickle: &[u8]| read(pickle).err().map_or_else(String::new, |e| e.to_string());
    let short = says(&mx(2, true));
    assert!(short.contains("a MXTensor of sizes [4, 2] whose packed values have sizes [4, 2]"), "{short}");
    let without = says(&mx(4, false));
    assert!(without.contains("an MXTensor of sizes [4, 4] without a block size"), "{without}");
}

#[test]
fn tensors_are_views_of_their_storages() {
    let p = pickle(|p| p.tensor("ShortStorage", "0", 12, 1, &[2, 2], &[1, 3]));
    let Stored::Plain(t) = read(&p).unwrap() else { panic!() };
    assert_eq!((t.dtype(), t.shape()), (DType::Int16, &[2, 2][..]));
    assert_eq!(t.to_vec().unwrap(), [2, 3, 8, 9, 4, 5, 10, 11]);
}

#[test]
fn what_is_wrong_with_a_pickled_tensor_is_said() {
    let deep = |n: usize| {
        pickle(|p| {
            (0..n).for_each(|_| _ = p.global("torch._utils", "_rebuild_parameter").op(b"("));
            p.tensor("ByteStorage", "0", 24, 0, &[1], &[1]);
            (0..n).for_each(|_| _ = p.op(b"\x88NtR"));
            p
        })
    };
    assert!(read(&deep(3)).is_ok());
    let cases: Vec<(Vec<u8>, ErrorKind, &str)> = vec![
        (b"~hello".to_vec(), ErrorKind::Format, "byte 1 of the pickle: instruction 0x7e"),
        (pickle(|p| p.op(b"N")), ErrorKind::Weight, "not a tensor"),
        (pickle(|p| p.tensor("ByteStorage", "1", 24, 0, &[1], &[1])), ErrorKind::Format, "entry data/1 is missing"),
        (pickle(|p| p.tensor("ByteStorage", "../../0", 24, 0, &[1], &[1])), ErrorKind::Format, "entry data/../../0 is missing"),
        (
            pickle(|p| p.tensor("ByteStorage", "0", 25, 0, &[1], &[1])),
            ErrorKind::Weight,
            "data/0: 25 elements of ByteStorage need more than the 24 bytes there are",
        ),
        (pickle(|p| p.tensor("DoubleStorage", "0", -1, 0, &[1], &[1])), ErrorKind::Weight, "-1 elements of DoubleStorage"),
        (pickle(|p| p.tensor("ByteStorage", "0", 24, -1, &[1], &[1])), ErrorKind::Weight, "its storage offset is no natural number"),
        (pickle(|p| p.tensor("ByteStorage", "0", 24, 24, &[1], &[1])), ErrorKind::Weight, "reaches beyond the 24 bytes"),
        (pickle(|p| p.tensor("ByteStorage", "0", 24, 0, &[-1], &[1])), ErrorKind::Weight, "no natural numbers"),
        (pickle(|p| p.tensor("ByteStorage", "0", 24, 0, &[2, 2], &[1])), ErrorKind::Weight, "2 sizes but 1 strides"),
        (pickle(|p| p.tensor("ByteStorage", "0", 24, 0, &[i32::MAX; 4], &[0; 4])), ErrorKind::Weight, "has more than 2^64 bytes"),
        (pickle(|p| p.tensor("LostStorage", "0", 24, 0, &[1], &[1])), ErrorKind::Unsupported, "the pickle imports torch.LostStorage"),
        (deep(10), ErrorKind::Weight, "wrapped more than 8 times"),
        // A call whose arguments contain the call.
        (
            pickle(|p| p.global("torch._utils", "_rebuild_parameter").op(b"]q\x00Rq\x01h\x00h\x01ah\x00h\x01ah\x00h\x01a0h\x01")),
            ErrorKind::Weight,
            "",
        ),
        (
            pickle(|p| p.global("torch._utils", "_rebuild_meta_tensor_no_storage").op(b")R")),
            ErrorKind::Weight,
            "its bytes were not saved\nhelp: the program was exported from fake or meta tensors",
        ),
        (
            pickle(|p| p.global("os", "system").op(b"(").text("true").op(b"tR")),
            ErrorKind::Unsupported,
            "the pickle imports os.system\nhelp: save `exported_program.run_decompositions({})`",
        ),
        (
            pickle(|p| p.subclass("torchao.fancy", "FancyTensor", &[4, 4], |_| {})),
            ErrorKind::Unsupported,
            "a pickled torchao.fancy.FancyTensor, which is not a class that etx knows\nhelp: save `exported_program",
        ),
        (
            pickle(|p| {
                int4(p, &[4, 4], &["qdata", "scale"]);
                p
            }),
            ErrorKind::Weight,
            "a ExportableInt4Tensor without zero_point",
        ),
        (
            pickle(|p| {
                int4(p, &[4, 5], &["qdata", "scale", "zero_point"]);
                p
            }),
            ErrorKind::Weight,
            "a ExportableInt4Tensor of sizes [4, 5] whose packed values have sizes [4, 2]",
        ),
        (
            pickle(|p| {
                p.subclass("torchao.nvfp4", "NVFP4Tensor", &[4, 4], |p| {
                    _ = p
                        .text("qdata")
                        .tensor("ByteStorage", "0", 24, 0, &[4, 2], &[2, 1])
                        .text("scale")
                        .tensor("ByteStorage", "0", 24, 0, &[4], &[1])
                        .text("block_size")
                        .int(8)
                })
            }),
            ErrorKind::Weight,
            "an NVFP4Tensor of sizes [4, 4] in blocks of Int(8); two dimensions and blocks of 16 are read",
        ),
    ];
    let mut wrong = Vec::new();
    for (pickle, kind, says) in cases {
        match read(&pickle) {
            Ok(_) => wrong.push(format!("not seen; expected {says}")),
            Err(e) if e.kind() == kind && e.to_string().contains(says) => {}
            Err(e) => wrong.push(format!("{:?}: {e}\nexpected: {kind:?}: {says}", e.kind())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let big = zip::write(&[Entry::new("a/data.pkl", "N."), Entry::new("a/byteorder", "big")]);
    assert_eq!(Saved::open(&archive(big).unwrap()).err().unwrap().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_pickle_cut_short_or_garbled_anywhere_does_no_harm() {
    let whole = pickle(|p| {
        int4(p, &[4, 4], &["qdata", "scale", "zero_point"]);
        p
    });
    assert!(matches!(read(&whole), Ok(Stored::Wrapped(_))));
    for at in 0..whole.len() {
        assert!(read(&whole[..at]).is_err());
        for byte in [0, b'.', b'0', b'(', b'R', b'u', 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            _ = read(&bytes);
        }
    }
}

/// An archive whose `l.weight` is a pickled tensor.
fn with_weight(pickle: &[u8]) -> super::Parts {
    let mut p = parts();
    p.file("m/data/weights/weight_0").bytes = saved(pickle);
    p.config["config"]["l.weight"]["use_pickle"] = json!(true);
    p
}

#[test]
fn a_pickled_plain_tensor_is_a_plain_weight() {
    let p = pickle(|p| {
        p.global("torch._utils", "_rebuild_parameter").op(b"(").tensor("FloatStorage", "0", 6, 0, &[3, 2], &[2, 1]);
        p.op(b"\x88").global("collections", "OrderedDict").op(b")RtR")
    });
    let program = open(with_weight(&p).write()).unwrap();
    assert_eq!(program.weights()[0].data.to_vec().unwrap(), (0..24).collect::<Vec<u8>>());
}

#[test]
fn a_subclass_that_the_graph_does_not_fit_is_refused() {
    let p = pickle(|p| {
        int4(p, &[4, 4], &["qdata", "scale", "zero_point"]);
        p
    });
    let e = open(with_weight(&p).write()).err().unwrap();
    assert!(e.to_string().contains("weight \"l.weight\": f32[3, 2] in the graph but f32[4, 4] where it is stored"), "{e}");
    assert_eq!(e.kind(), ErrorKind::Weight);
}

#[test]
fn a_subclass_without_an_operator_may_only_be_taken_apart() {
    let p = pickle(|p| {
        p.subclass("torchao.quantization", "Float8Tensor", &[3, 2], |p| {
            p.text("qdata").tensor("ByteStorage", "0", 24, 0, &[3, 2], &[2, 1]);
            p.text("scale").tensor("FloatStorage", "0", 6, 0, &[3, 1], &[1, 1]);
        })
    });
    let e = open(with_weight(&p).write()).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("weight \"l.weight\": a Float8Tensor is used whole, which etx has no operator for\nhelp: save"), "{e}");

    let program = open(taken_apart(&p, "qdata", 1).write()).unwrap();
    // Two parameters, named as torch names them, after the others of the module.
    let names: Vec<&str> = program.weights().iter().map(|w| &*w.name).collect();
    assert_eq!(names, ["l.bias", "l.parametrizations.weight.original0", "l.parametrizations.weight.original1", "calls"]);
    let graph = &program.methods[0].graph;
    assert_eq!(graph.len(), 2);
    let (_, linear) = graph.nodes().next().unwrap();
    assert_eq!(&*graph.value(linear.args[1].as_value().unwrap()).name, "p_l_parametrizations_weight_original0");

    for (field, dtype, says) in [
        ("zero_point", 1, "q: a Float8Tensor has no tensor \"zero_point\""),
        ("qdata", 2, "q: i8[3, 2] in the graph but u8[3, 2] in the weight \"l.weight\""),
        ("scale", 7, "q: f32[3, 2] in the graph but f32[3, 1] in the weight \"l.weight\""),
    ] {
        let e = open(taken_apart(&p, field, dtype).write()).err().unwrap();
        assert!(e.to_string().contains(says), "{e}");
        assert_eq!(e.kind(), ErrorKind::Format);
    }
}

/// An archive whose graph takes one tensor out of `l.weight` and gives it to the linear layer.
fn taken_apart(pickle: &[u8], field: &str, dtype: i64) -> super::Parts {
    let mut p = with_weight(pickle);
    let graph = &mut p.program["graph_module"]["graph"];
    graph["tensor_values"]["q"] = graph["tensor_values"]["p_l_weight"].clone();
    graph["tensor_values"]["q"]["dtype"] = json!(dtype);
    let inputs = json!([
        {"name": "src_subclass_tensor", "arg": {"as_tensor": {"name": "p_l_weight"}}, "kind": 1},
        {"name": "attr", "arg": {"as_string": field}, "kind": 1},
    ]);
    let access = json!({"target": "torch.ops.export.access_subclass_inner_tensor.default", "inputs": inputs,
                        "outputs": [{"as_tensor": {"name": "q"}}], "metadata": {}, "name": "q"});
    graph["nodes"].as_array_mut().unwrap().insert(0, access);
    graph["nodes"][1]["inputs"][1]["arg"]["as_tensor"]["name"] = json!("q");
    p
}
