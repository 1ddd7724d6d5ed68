//! Exactness, and what is refused.

use super::*;
use crate::error::ErrorKind;
use crate::graph::{Graph, TensorType, Type};
use crate::op;
use crate::program::{Dialect, Method, Program};
use crate::verify::verify;
use crate::weights::TensorData;
use crate::{DType, sym::Expr};

fn read(text: &str) -> Program {
    parse(text, &mut NoFiles).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn refused(text: &str) -> String {
    parse(text, &mut NoFiles).expect_err(text).to_string()
}

/// A method around some lines, with inputs `%x`, `%y : f32[2, 3]` and `%n : int(u0)`.
fn method(dialect: &str, lines: &str) -> String {
    format!("etir 1 method \"f\" {dialect} {{ input %x : f32[2, 3] = user input %y : f32[2, 3] = user input %n : int(u0) = user {lines} }}")
}

/// Prints, parses, compares, prints again.
fn exact(program: &Program) -> String {
    let text = print(program);
    let again = read(&text);
    assert_eq!(difference(program, &again), None, "{text}");
    assert_eq!(print(&again), text);
    text
}

/// One of everything. What is printed is what stands here.
const EVERYTHING: &str = r#"etir 1

file $model "/home/me/model.py"
file $model.2 "lib/model.py"
file $stringquoted "<string \"quoted\">"

weight @0 "proj.weight" bf16[3, 2] file "model.pt2" offset 64
weight @1 "cache" f32[2] inline 0x0000803f00000080
weight @2 "empty" u8[0, 7] inline 0x
weight @3 "mask\n\u{202e}" bool[512] omitted 00000000deadbeef
weight @4 "turned" i64[2, 2] derived "strided 8B [2, 2] \"x\"" (u8[32] file "a b.pt2" offset 0, u8[1] derived "none" ())

method "forward" functional {
  in_spec "[1, {\"type\": null}]"
  out_spec "*"
  symbol s0 [..]
  symbol s1 [2..]
  symbol s77 [-9223372036854775808..9223372036854775807]
  symbol u0 [..-3]
  guard "L['x'].size()[0] % 2 == 0"
  guard "\"odd\\"
  input %p_w : bf16[3, 2] = parameter @0
  input %b_cache : f32[2] = buffer @1
  input %b_empty : u8[0, 7] = buffer @2 nonpersistent
  input %c_turned : i64[2, 2]{1, 2} = constant @4
  input %x : f32[s77, 2*s77 + 1, Max(1, s0)]{FloorDiv(s1, 2), -1*s0, 1} = user
  input %"odd name" : f64[] = user
  input %n : int(s1) = user
  input %h : float(ToFloat(s1)) = user
  input %q : bool(Eq(s0, 3)) = user
  input = literal "flag" True
  input = literal "" [1, [2.5, None], "\t\\", -inf]
  input %tok : opaque "token\"s" = token
  input %obj : opaque "my.Class" = object "self.obj" "my.Class"
  %add : f32[s77] = aten.add.Tensor(%x, 1.0, alpha=2) at $model:7 in forward of layers.0.mlp
  %add_1 : f32[s77] = aten.add.Tensor(%x, %"odd name") at $model.2:4294967295
  named: %add_2 : f32[s77] = aten.add.Tensor(%x, nan) at $stringquoted:0 in "<lambda>"
  "return": %r : f32[s77] = aten.mul.Tensor(%x, nan(0xfff8000000000001)) at $model:7 of "a b"
  "odd \"label\"": aten._assert_scalar.default(%q, "line\nbreak \u{0}é")
  split: %a : f32[2], %b : f32[3] = aten.split.Tensor(%x, 2, dim=1)
  %clamp : f32[s77] = aten.clamp.default(%x, max=-0.0)
  %pow : f32[s77] = aten.pow.Tensor_Scalar(%x, 1e-300)
  %complex : c64[s77] = aten.mul.Tensor(%x, complex(-0.0, inf))
  %to : f16[s77] = aten._to_copy.default(%x, dtype=f16, layout=strided, device=device("cuda:0"), memory_format=channels_last)
  %odd : f16[s77] = aten._to_copy.default(%x, layout=layout(0), memory_format=memory_format(7))
  %view : f32[4, s1] = aten.view.default(%x, [-1, %n, 9223372036854775807])
  %index : f32[4] = aten.index.Tensor(%x, [None, %c_turned])
  %sym : int(s1 + u0 + -9223372036854775808) = _operator.add(%n, -9223372036854775808)
  %none : none, %item : int(u0) = higher_order.with_effects(%tok, aten.item.default, %x)
  cond: %getitem : f32[2] = higher_order.cond(%q, graph(%x : f32[2], %k : int(s1)) {
    %neg : f32[2] = aten.neg.default(%x) at $model:9 in true_branch
    inner: %getitem : f32[2] = higher_order.cond(%k, graph(%x : f32[2]) {
      return %x
    }, graph(%x : f32[2]) {
      return %x
    }, [%neg])
    return %getitem
  }, graph(%x : f32[2], %k : int(s1)) {
    return %x
  }, [%b_cache, %n])
  scan: %carry : f32[2], %ys : f32[4, 2] = higher_order.scan(graph(%c : f32[2], %v : f32[2]) {
    %sum : f32[2] = aten.add.Tensor(%c, %v)
    return %sum, %c
  }, [%b_cache], [%index], [])
  auto: %unused : f32[1], %new : f32[2] = higher_order.auto_functionalized_v2(mlx.kv_cache_update.default, new_values=%x, start_pos=%n, ring_size=0, _cache_base_index=0, _all_bases=[%b_cache])
  wrap: %w : f32[2] = higher_order.wrap_with_autocast("cpu", None, True, False, graph() {
    return None, 3
  }, %x, {"not a name": %x, "b": 1})
  return %new as state %b_cache, %x as input %x, %add as state 9, %add as input 99, %tok as token, %add, None, [%add, 3], {"k": 1.5}
}

method "second \"method\"" training {
  return
}
"#;

#[test]
fn what_is_read_is_what_is_printed() {
    let program = read(EVERYTHING);
    assert_eq!(print(&program), EVERYTHING);
    exact(&program);
}

#[test]
fn blanks_and_comments_mean_nothing() {
    let text = "# a comment\n etir\t1method\"m\"training{# {{\ninput%x:f32[ 2 ,s0]=user a:aten.relu_.default(%x)return%x as\n\n token}#";
    // A word ends where another kind of character begins, so most blanks can go; `1method` is a number and a word.
    let program = read(&text.replace("a:aten.relu_", "%a:f32[2,s0]=aten.relu_"));
    assert_eq!(
        print(&program),
        "etir 1\n\nmethod \"m\" training {\n  input %x : f32[2, s0] = user\n  %a : f32[2, s0] = aten.relu_.default(%x)\n  return %x as token\n}\n"
    );
}

#[test]
fn defaults_come_from_the_schema() {
    let program = read(&method("training", "%a : f32[2, 3] = aten.add.Tensor(other=%y, self=%x) return %a"));
    let graph = &program.methods[0].graph;
    let (_, node) = graph.nodes().next().unwrap();
    assert_eq!(node.args, [graph.inputs()[0].into(), graph.inputs()[1].into(), crate::graph::Arg::Int(1)]);
    assert!(print(&program).contains("= aten.add.Tensor(%x, %y)\n"));
    // A float where the default is an integer is something else.
    let text = method("training", "%a : f32[2, 3] = aten.add.Tensor(%x, %y, alpha=1.0) return %a");
    assert!(exact(&read(&text)).contains("alpha=1.0"));
}

#[test]
fn programs_of_the_exporter_come_back_exactly_and_verify() {
    let mut folders =
        vec![concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures").into(), concat!(env!("CARGO_MANIFEST_DIR"), "/../examples").into()];
    if let Some(more) = std::env::var_os("ETX_CASES") {
        folders.extend(std::env::split_paths(&more));
    }
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "pt2") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut read = 0;
    for path in files {
        // Whether it loads is the reader's own test.
        let Ok(program) = crate::pt2::load(&path) else { continue };
        verify(&program).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let text = exact(&program);
        // With the file at hand, weights come back with their bytes.
        let with_files = parse(&text, &mut Files::default().anywhere()).unwrap();
        for (a, b) in program.weights().iter().zip(with_files.weights()) {
            assert_eq!(a.data.bytes(), b.data.bytes(), "{} in {}", a.name, path.display());
        }
        assert_eq!(print(&with_files), text);
        read += 1;
    }
    assert!(read > 20, "{read} programs were read");
}

#[test]
fn bytes_that_are_not_at_hand_are_missed_when_asked_for() {
    let program = read(EVERYTHING);
    let data = |i: usize| &program.weights()[i].data;
    assert_eq!(data(1).to_vec().unwrap(), [0, 0, 0x80, 0x3f, 0, 0, 0, 0x80]);
    for (i, what) in [(0, "file \"model.pt2\" offset 64"), (3, "omitted 00000000deadbeef"), (4, "strided 8B [2, 2] \"x\"")] {
        let e = data(i).to_vec().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Weight);
        assert!(e.to_string().contains(what), "{e}");
    }
    // Ties stay ties: the same place in the same file.
    let tied = "etir 1 weight @0 \"a\" u8[4] file \"m\" offset 8 weight @1 \"b\" u8[2, 2] file \"m\" offset 8 weight @2 \"c\" u8[4] file \"m\" offset 9";
    let tied = read(tied);
    let identity = |i: usize| tied.weights()[i].data.identity();
    assert_eq!(identity(0), identity(1));
    assert_ne!(identity(0), identity(2));
}

#[test]
fn tensors_in_memory_are_written_out_up_to_a_limit() {
    let mut program = Program::new();
    let data = |n: u64| TensorData::inline(DType::UInt8, vec![n], (0..n).map(|i| i as u8).collect::<Vec<u8>>()).unwrap();
    program.add_weight("small", data(256));
    program.add_weight("large", data(257));
    let text = exact(&program);
    assert!(text.contains("weight @0 \"small\" u8[256] inline 0x000102"));
    assert!(text.contains("weight @1 \"large\" u8[257] omitted "));
    let again = read(&text);
    assert_eq!(again.weights()[0].data.bytes(), program.weights()[0].data.bytes());
    assert!(again.weights()[1].data.to_vec().is_err());
}

#[test]
fn files_are_opened_only_when_asked_for() {
    let text = "etir 1 weight @0 \"w\" u8[2] file \"no/such/file\" offset 1";
    assert!(parse(text, &mut NoFiles).is_ok());
    let e = parse(text, &mut Files::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Io);
    assert!(e.to_string().starts_with("1:22: cannot open no/such/file"), "{e}");
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/src/text");
    let here = "etir 1 weight @0 \"w\" u8[4] file \"tests.rs\" offset 0";
    assert_eq!(parse(here, &mut Files::new(base)).unwrap().weights()[0].data.to_vec().unwrap(), b"//! ");
    let beyond = "etir 1 weight @0 \"w\" f64[9999999] file \"tests.rs\" offset 3";
    assert_eq!(parse(beyond, &mut Files::new(base)).unwrap_err().kind(), ErrorKind::Weight);
}

#[test]
fn removed_calls_leave_no_trace() {
    let mut program = read(&method("training", "%a : f32[2, 3] = aten.neg.default(%x) %b : f32[2, 3] = aten.relu.default(%x) return %b"));
    let graph = &mut program.methods[0].graph;
    let first = graph.order()[0];
    let (neg, relu) = (graph.node(first).outputs[0], graph.node(graph.order()[1]).outputs[0]);
    let ty = graph.ty(neg).clone();
    graph.remove(first);
    let last = graph.append(op!("aten.abs.default"), vec![relu.into()], "a", vec![("a", ty)], None);
    let abs = graph.node(last).outputs[0];
    graph.set_outputs(vec![abs.into()]);
    // The name was taken when the graph was younger.
    assert!(exact(&program).contains("%a_1 : f32[2, 3] = aten.abs.default(%b)"));
}

#[test]
fn odd_programs_print() {
    // No program that verifies looks like this; printing must show it all the same.
    let mut graph = Graph::new();
    let x = graph.add_input("", Type::Tensor(TensorType::new(DType::Float32, vec![Expr::Int(-1), Expr::Float(0.5f64.to_bits())])));
    graph.append(op!("aten.add.Tensor"), vec![x.into()], "", vec![], None);
    graph.append(op!("aten.relu.default"), vec![x.into(); 3], "", vec![("", Type::None)], None);
    assert_eq!(
        print_graph(&graph),
        "graph(%v : f32[-1, 0.5]) {\n  v: aten.add.Tensor(%v)\n  %v_1 : none = aten.relu.default(%v, %v, %v)\n  return\n}\n"
    );
    let node = graph.order()[1];
    assert_eq!(print_node(&graph, node), "%v_1 : none = aten.relu.default(%v, %v, %v)");
    let method = Method {
        name: "m".into(),
        graph,
        inputs: vec![],
        outputs: vec![crate::program::OutputKind::Token; 3],
        ranges: crate::sym::Ranges::default(),
        guards: vec![],
        dialect: Dialect::Training,
        in_spec: "".into(),
        out_spec: "".into(),
    };
    let mut program = Program::new();
    program.methods.push(method);
    assert!(print(&program).contains("method \"m\" training {"));
}

#[test]
fn differences_are_found() {
    let a = read(EVERYTHING);
    let changes = [
        ("offset 64", "offset 65"),
        ("buffer @2 nonpersistent", "buffer @2"),
        ("\"flag\" True", "\"flag\" 1"),
        ("alpha=2", "alpha=3"),
        ("layers.0.mlp", "layers.1.mlp"),
        ("0xfff8000000000001", "0xfff8000000000002"),
        ("max=-0.0", "max=0.0"),
        ("named:", "renamed:"),
        ("aten.neg.default(%x)", "aten.abs.default(%x)"),
        ("%c : f32[2], %v", "%c : f32[3], %v"),
        ("return %sum, %c", "return %c, %sum"),
        ("{\"k\": 1.5}", "{\"l\": 1.5}"),
        ("as input %x", "as input %n"),
        ("symbol s1 [2..]", "symbol s1 [2..3]"),
        ("{1, 2}", ""),
    ];
    for (from, to) in changes {
        let changed = EVERYTHING.replacen(from, to, 1);
        assert_ne!(changed, EVERYTHING, "{from}");
        assert!(difference(&a, &read(&changed)).is_some(), "{from} against {to}");
    }
    assert!(difference(&a, &Program::new()).is_some());
}

#[test]
fn what_is_wrong_is_told_with_line_and_column() {
    let cases = [
        ("", "1:1: expected `etir`, found the end of the text"),
        ("etir 2", "1:6: text form 2; 1 is supported"),
        ("etir 1\n  hello", "2:3: expected `file`, `weight` or `method`, found `hello`"),
        ("etir 1 file $a \"x\" file $a \"y\"", "1:25: file $a is there twice"),
        ("etir 1 weight @1 \"w\" f32[] inline 0x00000000", "1:15: expected weight @0"),
        ("etir 1 weight @0 \"w\" f31[]", "expected an element type, found `f31[]`"),
        ("etir 1 weight @0 \"w\" f32[-1]", "expected a size, found `-1]`"),
        ("etir 1 weight @0 \"w\" f32[] inline 0x000", "1:28: an odd number of hexadecimal digits"),
        ("etir 1 weight @0 \"w\" f32[] inline 0x00", "1:22: f32[] has 4 bytes, given 1"),
        ("etir 1 weight @0 \"w\" f64[4294967296, 4294967296] inline 0x", "more than 2^64 bytes"),
        ("etir 1 weight @0 \"w\" f32[] derived \"absent \" ()", "a recipe that starts with `absent`"),
        ("etir 1 weight @0 \"w", "expected the `\"` that ends the string, found the end of the text"),
        ("etir 1 weight @0 \"\\q\"", "expected one of the escapes"),
        ("etir 1 weight @0 \"\\u{110000}\"", "expected the escape `\\u{…}` of a character"),
        ("etir 1 method \"m\" eager {", "expected `training` or `functional`, found `eager {`"),
        ("etir 1 method \"m\" training {", "expected a call or `return`, found the end of the text"),
        ("etir 1 method \"m\" training { symbol 1s [..] return }", "expected a symbol, found `1s [..] return }`"),
        ("etir 1 method \"m\" training { symbol s [..] symbol s [..] return }", "a symbol is there twice"),
        ("etir 1 method \"m\" training { input = parameter @0 return }", "there is no weight @0 before it"),
        ("etir 1 method \"m\" training { input = something return }", "expected `user`, `literal`"),
        ("etir 1 method \"m\" training { input = literal \"a\" %x return }", "%x is not defined before this"),
    ];
    for (text, message) in cases {
        assert!(refused(text).contains(message), "{text}\n{}", refused(text));
    }
    let lines = [
        ("return %z", "%z is not defined before this"),
        ("%a : f32[] = aten.neg.default(%a) return %a", "%a is not defined before this"),
        ("%x : f32[] = aten.neg.default(%x) return", "%x is defined twice"),
        ("%a : f32[], %a : f32[] = aten.split.Tensor(%x, 1) return", "%a is defined twice"),
        ("a: aten.neg.default(%x) a: aten.neg.default(%x) return", "a call named a is there already"),
        ("aten.neg.default(%x) return", "expected `:`, found `(%x) return }`"),
        ("a: neg(%x) return", "expected an operator, such as aten.add.Tensor, found `neg(%x) return }`"),
        ("a: aten.nog.default(%x) return", "unknown operator aten.nog.default"),
        ("a: aten.neg.default() return", "call of aten.neg.default: argument `self` (Tensor) is missing"),
        ("a: aten.neg.default(%x, 1) return", "more than 1 positional arguments"),
        ("a: aten.neg.default(%x, self=1) return", "argument `self` is given twice"),
        ("a: aten.neg.default(other=%x) return", "unknown argument `other`"),
        ("a: aten.neg.default(%x %x) return", "expected `,` or `)`, found `%x) return }`"),
        ("a: aten.neg.default(hello) return", "expected an argument, found `hello) return }`"),
        ("a: aten.neg.default(99999999999999999999) return", "expected a number of 64 bits"),
        ("a: aten.neg.default(-) return", "expected a number of 64 bits"),
        ("a: aten.neg.default(-nan) return", "expected a number of 64 bits"),
        ("a: aten.neg.default(nan(0x3ff0000000000000)) return", "expected the bits of a nan"),
        ("a: aten.neg.default(complex(1, 2)) return", "expected a float, found `1, 2)) return }`"),
        ("a: aten.neg.default(layout(256)) return", "expected a number up to 255"),
        ("a: aten.neg.default(%x) at $m:1 return", "no file $m was named before"),
        ("a: aten.neg.default(%x) at \"m\":-1 return", "expected a line"),
        ("%a : f32[s0 +] = aten.neg.default(%x) return", "expected a number, a symbol or a function at byte 4 of \"s0 +\""),
        ("%a : f32 = aten.neg.default(%x) return", "expected a type"),
        ("return %x as nothing", "expected `state`, `input` or `token`"),
        ("%a : f32[] = aten.neg.default(%x) return %a as state %a", "%a is no input"),
        ("return %x %y", "expected `,` or `}`"),
    ];
    for (text, message) in lines {
        let text = method("training", text);
        assert!(refused(&text).contains(message), "{text}\n{}", refused(&text));
    }
    let kind = parse(&method("training", "a: my.op.default() return"), &mut NoFiles).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::UnknownOperator);
}

#[test]
fn columns_are_characters_and_what_is_found_is_shown_safely() {
    assert!(refused("etir 1 # ü\nweight @0 \"ü\" \u{202e}f32").starts_with("2:15: expected an element type, found `\u{fffd}f32`"));
}

#[test]
fn hostile_depth_is_refused() {
    let deep = 200_000;
    for (open, close) in
        [("[", "]"), ("{\"k\": ", "}"), ("graph() { return ", "}"), ("graph() { a: aten.neg.default(", ") return }"), ("complex(", ")")]
    {
        let text = method("training", &format!("return {}{}", open.repeat(deep), close.repeat(deep)));
        assert!(refused(&text).contains("nested too deeply"), "{open}");
    }
    let data = format!("etir 1 weight @0 \"w\" {}", "u8[1] derived \"r\" (".repeat(deep));
    assert!(refused(&data).contains("nested too deeply"));
    for dim in ["(", "-", "Max(1, ", "s0//(", "2**("] {
        let text = method("training", &format!("%a : f32[{}] = aten.neg.default(%x) return", dim.repeat(deep)));
        assert!(refused(&text).contains("nested too deeply"), "{dim}");
    }
    let chain = method("training", &format!("%a : f32[s0{}] = aten.neg.default(%x) return", "//s1".repeat(deep)));
    assert!(refused(&chain).contains("nested too deeply"));
}

#[test]
fn hostile_expressions_stay_small() {
    let mut power = "s0".to_owned();
    let mut distributed = "FloorDiv(s0, 7)".to_owned();
    let mut ceil = "s0".to_owned();
    let sum = (0..60).map(|i| format!("s{i}")).collect::<Vec<_>>().join(" + ");
    for _ in 0..40 {
        power = format!("({power})**16");
        distributed = format!("FloorDiv(({distributed})*({sum}), 7)");
        ceil = format!("CeilDiv(1, {ceil})");
    }
    let long_sum = (0..100_000).map(|i| format!("s{i}")).collect::<Vec<_>>().join("+");
    let long_product = vec!["s0"; 100_000].join("*");
    for dim in [
        power,
        distributed,
        ceil,
        long_sum,
        long_product,
        "(-9223372036854775808) % (-1)".to_owned(),
        "(-9223372036854775808*s0)//(-1*s0)".to_owned(),
    ] {
        let text = method("training", &format!("%a : f32[{dim}] = aten.neg.default(%x) return %a"));
        // Either a clear no, or a program of reasonable size that comes back.
        if let Ok(program) = parse(&text, &mut NoFiles) {
            exact(&program);
        }
    }
}

#[test]
fn damaged_text_never_panics() {
    // Cut, a byte left out, a byte replaced by one of some telling ones, in turn.
    let telling = ["\"", "(", "]", "%", "9", "-", ".", "\\", "=", "é", "{", ",", ":", "@", "$"];
    for at in 0..EVERYTHING.len() {
        let (Some(before), Some(after)) = (EVERYTHING.get(..at), EVERYTHING.get(at + 1..)) else { continue };
        let text = match at % 3 {
            0 => before.to_owned(),
            1 => format!("{before}{after}"),
            _ => format!("{before}{}{after}", telling[at % telling.len()]),
        };
        if let Ok(program) = parse(&text, &mut NoFiles) {
            exact(&program);
        }
    }
}

#[test]
fn time_is_linear_in_calls() {
    let text = |n: usize| {
        let mut lines = String::new();
        for i in 0..n {
            let from = if i == 0 { "x".to_owned() } else { format!("v{}", i - 1) };
            lines.push_str(&format!("%v{i} : f32[2, 3] = aten.add.Tensor(%{from}, %y) at \"/m{i}/layer.py\":{i} in f\n"));
        }
        method("training", &format!("{lines} return %v{}", n - 1))
    };
    let seconds = |n: usize| {
        let text = text(n);
        let once = |_| {
            let start = std::time::Instant::now();
            let program = read(&text);
            verify(&program).unwrap();
            assert_eq!(print(&program).matches("aten.add.Tensor").count(), n);
            start.elapsed().as_secs_f64()
        };
        // The best of some: the machine may be busy.
        (0..3).map(once).fold(f64::INFINITY, f64::min)
    };
    let (small, large) = (seconds(1_000), seconds(16_000));
    // Sixteen times the calls; a quadratic step would show as 256.
    assert!(large < 100.0 * small.max(1e-3), "{small} s for 1000 calls, {large} s for 16000");
}
