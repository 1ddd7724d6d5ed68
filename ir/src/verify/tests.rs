//! One broken program for each invariant.

use super::*;
use crate::graph::TensorType;
use crate::op;
use crate::sym::Ranges;
use crate::text::{NoFiles, parse};

/// Functional, with a parameter, a buffer that is updated, a symbol, a condition.
const SOUND: &str = r#"etir 1
weight @0 "w" f32[3, 3] inline 0x000000000000000000000000000000000000000000000000000000000000000000000000
weight @1 "state" f32[3] inline 0x000000000000000000000000
method "forward" functional {
  symbol s0 [2..8]
  input %w : f32[3, 3] = parameter @0
  input %state : f32[3] = buffer @1
  input %x : f32[s0, 3] = user
  input %flag : bool[] = user
  input = literal "k" 3
  %linear : f32[s0, 3] = aten.linear.default(%x, %w) at "model.py":7
  %sum : f32[3] = aten.sum.dim_IntList(%linear, [0])
  %new : f32[3] = aten.add.Tensor(%state, %sum)
  %size : int(s0) = aten.sym_size.int(%x, 0)
  %count : i64[] = aten.sum.default(%flag)
  %item : int(u0) = aten.item.default(%count)
  %full : f32[u0, s0] = aten.full.default([%item, %size], 1.0)
  %nonzero : i64[u1, 2] = aten.nonzero.default(%full)
  cond: %out : f32[s0, 3] = higher_order.cond(%flag, graph(%a : f32[s0, 3]) {
    %neg : f32[s0, 3] = aten.neg.default(%a)
    return %neg
  }, graph(%a : f32[s0, 3]) {
    return %a
  }, [%linear])
  return %new as state %state, %out, %nonzero, 3
}
"#;

fn sound() -> Program {
    parse(SOUND, &mut NoFiles).unwrap()
}

fn findings(program: &Program) -> Vec<String> {
    let e = verify(program).expect_err("it verifies");
    assert_eq!(e.kind(), ErrorKind::Invalid);
    e.findings().to_vec()
}

/// What the verifier says of the sound program after one replacement in its text.
#[track_caller]
fn text(from: &str, to: &str, expected: &str) {
    let text = SOUND.replacen(from, to, 1);
    assert_ne!(text, SOUND, "{from} is not in the program");
    let program = parse(&text, &mut NoFiles).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(findings(&program), [expected]);
}

/// What it says after one edit of the first method.
#[track_caller]
fn edit(f: impl FnOnce(&mut Method), expected: &[&str]) {
    let mut program = sound();
    f(&mut program.methods[0]);
    assert_eq!(findings(&program), expected);
}

fn call(graph: &Graph, name: &str) -> NodeId {
    graph.nodes().find(|(_, n)| &*n.name == name).map(|(id, _)| id).unwrap()
}

fn value(graph: &Graph, name: &str) -> ValueId {
    let all = graph.inputs().iter().chain(graph.nodes().flat_map(|(_, n)| &n.outputs));
    all.copied().find(|&v| &*graph.value(v).name == name).unwrap()
}

fn float(shape: &[i64]) -> Type {
    Type::Tensor(TensorType::new(crate::DType::Float32, shape.iter().map(|&n| Expr::Int(n)).collect()))
}

#[test]
fn a_sound_program_verifies() {
    verify(&sound()).unwrap();
    verify_method(&sound(), &sound().methods[0]).unwrap();
    verify(&Program::new()).unwrap();
}

#[test]
fn methods_have_names_of_their_own() {
    let mut program = sound();
    program.merge(sound());
    assert_eq!(findings(&program), ["two methods are called forward"]);
    program.methods[0].name = "".into();
    assert_eq!(findings(&program), ["a method has no name"]);
}

#[test]
fn ranges_are_not_empty() {
    text("[2..8]", "[9..8]", "method forward, symbol s0: no integer is in [9..8]");
}

#[test]
fn uses_follow_definitions() {
    edit(
        |m| {
            let (linear, new) = (call(&m.graph, "linear"), value(&m.graph, "new"));
            let w = value(&m.graph, "w");
            m.graph.set_args(linear, vec![new.into(), w.into(), Arg::None]);
        },
        &["method forward, linear = aten.linear.default (model.py:7): uses %new, which is defined after it"],
    );
    edit(
        |m| {
            let (sum, own) = (call(&m.graph, "sum"), value(&m.graph, "sum"));
            m.graph.set_args(sum, vec![own.into(), vec![0i64].into(), false.into(), Arg::None]);
        },
        &["method forward, sum = aten.sum.dim_IntList: uses %sum, which is defined after it"],
    );
}

#[test]
fn definitions_are_there() {
    edit(
        |m| {
            let id =
                m.graph.append(op!("aten.neg.default"), vec![m.graph.inputs()[0].into()], "gone", vec![("gone", float(&[3, 3]))], None);
            let gone = m.graph.node(id).outputs[0];
            m.graph.remove(id);
            let (sum, mut outputs) = (call(&m.graph, "sum"), m.graph.outputs().to_vec());
            m.graph.set_args(sum, vec![gone.into(), vec![0i64].into(), false.into(), Arg::None]);
            outputs[1] = gone.into();
            m.graph.set_outputs(outputs);
        },
        &[
            "method forward, sum = aten.sum.dim_IntList: uses %gone, whose definition is gone",
            "method forward, output 1: uses %gone, whose definition is gone",
        ],
    );
}

#[test]
fn values_are_of_the_same_graph() {
    let nonzero = value(&sound().methods[0].graph, "nonzero");
    edit(
        |m| {
            let cond = call(&m.graph, "cond");
            let mut args = m.graph.node(cond).args.clone();
            if let Arg::Graph(inner) = &mut args[1] {
                let node = inner.order()[0];
                inner.break_node(node).args = vec![nonzero.into()];
            }
            m.graph.set_args(cond, args);
        },
        &[
            &format!("method forward, body of cond, neg = aten.neg.default: uses {nonzero:?}, which is not of this graph"),
            "method forward, body of cond, value a: its list of uses is not what uses it",
        ],
    );
}

#[test]
fn names_are_unique() {
    edit(
        |m| {
            let sum = value(&m.graph, "sum");
            m.graph.break_value(sum).name = "new".into();
        },
        &["method forward, value new: its name is empty, or that of another value"],
    );
    edit(
        |m| {
            let sum = call(&m.graph, "sum");
            m.graph.break_node(sum).name = "".into();
        },
        &["method forward,  = aten.sum.dim_IntList: the name of the call is empty, or that of another"],
    );
}

#[test]
fn values_know_their_definition() {
    edit(
        |m| {
            let x = value(&m.graph, "x");
            m.graph.break_value(x).def = Def::Input(3);
        },
        &[
            "method forward, value x: is input 2 but says it is input 3",
            "method forward, linear = aten.linear.default (model.py:7): uses %x, whose definition is gone",
            "method forward, size = aten.sym_size.int: uses %x, whose definition is gone",
        ],
    );
    edit(
        |m| {
            let (nonzero, cond) = (value(&m.graph, "nonzero"), call(&m.graph, "cond"));
            m.graph.break_value(nonzero).def = Def::Node(cond, 0);
        },
        &[
            &format!("method forward, nonzero = aten.nonzero.default: %nonzero is its result 0 but says it is result 0 of {:?}", NodeId(8)),
            "method forward, output 2: uses %nonzero, whose definition is gone",
        ],
    );
}

#[test]
fn use_lists_hold_the_uses() {
    edit(
        |m| {
            let (sum, new) = (value(&m.graph, "sum"), value(&m.graph, "new"));
            let (sum_value, new_value) = (m.graph.value(sum).clone(), m.graph.value(new).clone());
            // All of the other value but name and definition: used by nothing, returned once.
            let broken = m.graph.break_value(sum);
            *broken = new_value;
            (broken.name, broken.def) = (sum_value.name, sum_value.def);
        },
        &[
            "method forward, value sum: its list of uses is not what uses it",
            "method forward, value sum: its count of returns is not how often it is returned",
        ],
    );
}

#[test]
fn types_make_sense() {
    text("input = lit", "input %odd : f32[-3] = user input = lit", "method forward, value odd : f32[-3]: the size -3 is negative");
    text("input = lit", "input %odd : f32[0.5] = user input = lit", "method forward, value odd : f32[0.5]: 0.5 is no integer");
    text(
        "input = lit",
        "input %odd : f32[3]{1, 1} = user input = lit",
        "method forward, value odd : f32[3]{1, 1}: as many strides as sizes there must be",
    );
}

#[test]
fn symbols_are_introduced_before_they_are_used() {
    text(
        "%linear : f32[s0, 3] =",
        "%linear : f32[s0, 3]{s9, 1} =",
        "method forward, linear = aten.linear.default (model.py:7): %linear : f32[s0, 3]{s9, 1}: nothing before it introduces the symbol s9",
    );
    text(
        "%item : int(u0)",
        "%more : int(u7 + 1) = aten.item.default(%count) %item : int(u0)",
        "method forward, more = aten.item.default: %more : int(u7 + 1): nothing before it introduces the symbol u7",
    );
    // A truth value taken out of a tensor introduces the number that it is; one that is computed does not.
    let truth = SOUND.replace("%item : int(u0)", "%yes : bool(Eq(u4, 1)) = aten.item.default(%flag) %item : int(u0)");
    assert_eq!(verify(&parse(&truth, &mut NoFiles).unwrap()).map_err(|e| e.findings().to_vec()), Ok(()));
    // So do operators that find elements by their values, in each result.
    let found = SOUND.replace("%item : int(u0)", "%p : i64[u8], %q : i64[u8] = aten.where.default(%x) %item : int(u0)");
    assert_eq!(verify(&parse(&found, &mut NoFiles).unwrap()).map_err(|e| e.findings().to_vec()), Ok(()));
    text(
        "%item : int(u0)",
        "%same : bool(Eq(u4, 1)) = _operator.eq(3, 1) %item : int(u0)",
        "method forward, same = _operator.eq: %same : bool(Eq(u4, 1)): nothing before it introduces the symbol u4",
    );
    text(
        "%neg : f32[s0, 3] =",
        "%neg : f32[s0, u5] =",
        "method forward, body of cond, neg = aten.neg.default: %neg : f32[s0, u5]: nothing before it introduces the symbol u5",
    );
}

#[test]
fn arguments_fit_the_schema() {
    edit(
        |m| {
            let (sum, linear) = (call(&m.graph, "sum"), value(&m.graph, "linear"));
            m.graph.set_args(sum, vec![linear.into(), vec![0i64].into()]);
        },
        &["method forward, sum = aten.sum.dim_IntList: 2 arguments, the operator takes 4"],
    );
    edit(
        |m| {
            let (sum, linear) = (call(&m.graph, "sum"), value(&m.graph, "linear"));
            m.graph.set_args(sum, vec![linear.into(), Arg::None, false.into(), Arg::None, Arg::None]);
        },
        &["method forward, sum = aten.sum.dim_IntList: 5 arguments, the operator takes 4"],
    );
    let cases = [
        ("(%linear, [0])", "(%linear, [0.5])", "`dim` is [the float 0.5], not int[1]?"),
        ("(%linear, [0])", "(%linear, 0)", "`dim` is the integer 0, not int[1]?"),
        ("(%linear, [0])", "([%linear], [0])", "`self` is [%linear : f32[s0, 3]], not Tensor"),
        ("(%linear, [0])", "(None, [0])", "`self` is None, not Tensor"),
        ("(%linear, [0])", "(%linear, [0], keepdim=1)", "`keepdim` is the integer 1, not bool"),
        ("(%linear, [0])", "(%linear, [0], dtype=\"f32\")", "`dtype` is a string, not ScalarType?"),
        ("(%linear, [0])", "(%linear, [0, 1, %linear])", "`dim` is [the integer 0, the integer 1, %linear : f32[s0, 3]], not int[1]?"),
    ];
    for (from, to, what) in cases {
        text(from, to, &format!("method forward, sum = aten.sum.dim_IntList: argument {what}"));
    }
    text(
        "aten.sym_size.int(%x, 0)",
        "aten.sym_size.int(%x, device(\"cpu\"))",
        "method forward, size = aten.sym_size.int: argument `dim` is a device, not int",
    );
}

#[test]
fn results_fit_the_schema() {
    text(
        "%sum : f32[3] =",
        "%sum : f32[3], %two : f32[3] =",
        "method forward, sum = aten.sum.dim_IntList: 2 results, the operator gives 1",
    );
    text("%new : f32[3] =", "%new : f32[3], %n : none =", "method forward, new = aten.add.Tensor: 2 results, the operator gives 1");
    text("%nonzero : i64[u1, 2]", "%nonzero : int(u1)", "method forward, nonzero = aten.nonzero.default: result 0 is int(u1), not Tensor");
}

#[test]
fn results_are_what_inference_says() {
    text("(%state, %sum)", "(%state, %w)", "method forward, new = aten.add.Tensor: gives f32[3, 3] for these arguments, not f32[3]");
    text(
        "%full : f32[u0, s0]",
        "%full : f16[u0, s0]",
        "method forward, full = aten.full.default: gives f32[u0, s0] for these arguments, not f16[u0, s0]",
    );
    // Sizes that may be equal are taken to be: s0 is from 2 to 8.
    let may = SOUND.replace("%x : f32[s0, 3] =", "%x : f32[s0, s0] =");
    verify(&parse(&may, &mut NoFiles).unwrap()).unwrap();
    let cannot = findings(&parse(&may.replace("[2..8]", "[4..8]"), &mut NoFiles).unwrap());
    assert_eq!(cannot.len(), 1);
    assert!(cannot[0].starts_with("method forward, linear = aten.linear.default (model.py:7): "), "{}", cannot[0]);
    let program = SOUND.replace("functional", "training").replacen(
        "%size",
        "cast: %t : f16[3] = higher_order.wrap_with_autocast(\"cpu\", f16, True, None, graph(%i : f32[3]) { %s : f16[3] = aten.neg.default(%i) return %s }, %sum) %size",
        1,
    );
    verify(&parse(&program, &mut NoFiles).unwrap()).unwrap();
    let uncast = findings(&parse(&program.replace("f16, True", "f16, False"), &mut NoFiles).unwrap());
    assert_eq!(uncast, ["method forward, body of cast, s = aten.neg.default: gives f32[3] for these arguments, not f16[3]"]);
}

#[test]
fn operators_are_known() {
    edit(
        |m| {
            m.graph.append(crate::op::OpId::UNKNOWN, vec![], "what", vec![], None);
        },
        &["method forward, what = unknown: the operator is not known"],
    );
}

#[test]
fn functional_programs_write_nothing() {
    text(
        "aten.neg.default(%a)",
        "aten.neg_.default(%a)",
        "method forward, body of cond, neg = aten.neg_.default: writes to `self` in a functional program",
    );
    let norm = "%norm : f32[s0, 3] = aten.batch_norm.default(%linear, None, None, %state, None, True, 0.1, 1e-5, False) %size";
    text("%size", norm, "method forward, norm = aten.batch_norm.default: writes to `running_mean` in a functional program");
    let training =
        SOUND.replace("functional", "training").replace("aten.neg.default(%a)", "aten.neg_.default(%a)").replacen("%size", norm, 1);
    verify(&parse(&training, &mut NoFiles).unwrap()).unwrap();
}

#[test]
fn bodies_fit_their_calls() {
    let place = "method forward, cond = higher_order.cond:";
    text(
        "graph(%a : f32[s0, 3]) {\n    return %a",
        "graph() {\n    return 1",
        &format!("{place} `false_graph` takes 0 values, the call passes 1"),
    );
    text("return %a\n", "return %a, %a\n", &format!("{place} `false_graph` returns 2 values, the call needs 1"));
    text(
        "graph(%a : f32[s0, 3]) {\n    return",
        "graph(%a : f16[s0, 3]) {\n    return",
        &format!("{place} `false_graph` takes %a as f16, the call passes f32"),
    );
    let looped = "loop: %i : f32[3] = higher_order.while_loop(graph(%c : f32[3]) { return %c, %c }, graph(%c : f32[3]) { return }, [%sum], []) %size";
    let program = parse(&SOUND.replacen("%size", looped, 1), &mut NoFiles).unwrap();
    assert_eq!(
        findings(&program),
        [
            "method forward, loop = higher_order.while_loop: `body_graph` returns 0 values, the call needs 1",
            "method forward, loop = higher_order.while_loop: `cond_graph` returns 2 values, the call needs 1"
        ]
    );
}

#[test]
fn inputs_are_those_of_the_graph() {
    edit(|m| m.inputs.swap(0, 2), &["method forward, inputs: the values of the inputs are not the inputs of the graph (in another order)"]);
    edit(
        |m| {
            m.inputs.remove(3);
        },
        &["method forward, inputs: the values of the inputs are not the inputs of the graph (3 against 4)"],
    );
    text("input = literal \"k\" 3", "input = user", "method forward, input 4: given by the caller, but has no value in the graph");
    text(
        "input = literal \"k\" 3",
        "input %k : int(s0) = literal \"k\" 3",
        "method forward, input 4, k: a literal that has a value in the graph, or holds one",
    );
    text(
        "input = literal \"k\" 3",
        "input = literal \"k\" [aten.neg.default]",
        "method forward, input 4: a literal that has a value in the graph, or holds one",
    );
}

#[test]
fn weights_fit_their_inputs() {
    let is = "method forward, input 0, w:";
    text("= parameter @0", "= parameter @1", &format!("{is} is f32[3, 3], its weight state is f32[3]"));
    text("%w : f32[3, 3]", "%w : f32[s0, 3]", &format!("{is} is f32[s0, 3], its weight w is f32[3, 3]"));
    text("@0 \"w\" f32[3, 3]", "@0 \"w\" i32[3, 3]", &format!("{is} is f32[3, 3], its weight w is i32[3, 3]"));
    edit(|m| m.inputs[0].kind = InputKind::Constant(crate::program::WeightId(7)), &["method forward, input 0, w: weight @7 of 2"]);
    text(
        "input %flag : bool[] = user",
        "input %flag : bool[] = user input %k : int(s0) = constant @0",
        "method forward, input 4, k: holds the weight w but is no tensor",
    );
}

#[test]
fn outputs_have_kinds_and_mutations_targets() {
    edit(
        |m| {
            m.outputs.pop();
        },
        &["method forward, outputs: 3 kinds of outputs, but the graph returns 4"],
    );
    text("as state %state", "as state 9", "method forward, output 0: new value of input 9, of 5 inputs");
    text("as state %state", "as state %x", "method forward, output 0: new state of input 2, which is neither buffer nor parameter");
    text("as state %state", "as input %state", "method forward, output 0: new value of input 1, which is not the user's");
    text("as state %state", "as state %w", "method forward, output 0: the new value of input 0 is f32[3], the input is f32[3, 3]");
    text("return %new", "return 1", "method forward, output 0: the new value of input 1 is no tensor, the input is f32[3]");
    text("%out, %nonzero", "%new as state %state, %out, %nonzero", "method forward, output 1: input 1 has a new value already");
    text("%nonzero, 3", "%nonzero, [graph() { return }]", "method forward, output 3: returns a graph or an operator");
}

#[test]
fn everything_wrong_is_reported_up_to_a_limit() {
    let mut program = Program::new();
    let mut graph = Graph::new();
    let x = graph.add_input("x", float(&[2]));
    for i in 0..60 {
        graph.append(op!("aten.neg.default"), vec![x.into(), x.into()], &format!("n{i}"), vec![], None);
    }
    program.methods.push(Method {
        name: "m".into(),
        graph,
        inputs: vec![Input { value: Some(x), kind: InputKind::User }],
        outputs: vec![],
        ranges: Ranges::default(),
        guards: vec![],
        dialect: Dialect::Training,
        in_spec: "".into(),
        out_spec: "".into(),
    });
    let found = findings(&program);
    assert_eq!(found.len(), MAX_LISTED + 1);
    assert_eq!(found[7], "method m, n7 = aten.neg.default: 2 arguments, the operator takes 1");
    assert_eq!(found[MAX_LISTED], "… and 10 more");
}
