use std::collections::BTreeSet;

use super::*;
use crate::graph::{Arg, Graph, TensorType, Type};
use crate::infer::table::target;
use crate::op::OpId;
use crate::program::{Dialect, Input, InputKind, Method, OutputKind, Program};
use crate::weights::TensorData;

fn floats(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn f32s(shape: &[usize], x: &[f32]) -> Tensor {
    Tensor::new(DType::Float32, shape, floats(x)).unwrap()
}

fn ty(shape: &[i64]) -> Type {
    Type::Tensor(TensorType::new(DType::Float32, shape.iter().map(|n| (*n).into()).collect()))
}

fn method(graph: Graph, inputs: Vec<InputKind>, outputs: Vec<OutputKind>) -> Method {
    let inputs = graph.inputs().iter().zip(inputs).map(|(v, kind)| Input { value: Some(*v), kind }).collect();
    let (name, spec) = ("forward".into(), "".into());
    Method { name, graph, inputs, outputs, ranges: Default::default(), dialect: Dialect::Training, in_spec: "".into(), out_spec: spec }
}

fn call(graph: &mut Graph, target: &str, args: Vec<Arg>, result: Type) -> Arg {
    let node = graph.append(OpId::lookup(target).unwrap(), args, "n", vec![("v", result)], None);
    graph.node(node).outputs[0].into()
}

fn tensor(v: &Value) -> (Vec<usize>, Vec<f64>) {
    match v {
        Value::Tensor(t) => (t.shape().to_vec(), t.to()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_word_of_the_table_is_an_operator_and_stands_once() {
    let mut seen = BTreeSet::new();
    for word in table::FAMILIES.iter().flat_map(|(_, words)| words.split_whitespace()) {
        assert!(OpId::lookup(&target(word)).is_some(), "{word} is no operator");
        assert!(seen.insert(target(word)), "{word} stands twice");
    }
}

#[test]
fn writes_through_a_view_are_seen_by_the_base_and_its_other_views() {
    let mut g = Graph::new();
    let x = g.add_input("x", ty(&[2, 3]));
    let column = call(&mut g, "aten.select.int", vec![x.into(), 1.into(), (-1).into()], ty(&[2]));
    let flat = call(&mut g, "aten.view.default", vec![x.into(), vec![6].into()], ty(&[6]));
    let last = call(&mut g, "aten.slice.Tensor", vec![flat.clone(), 0.into(), 4.into(), i64::MAX.into(), 1.into()], ty(&[2]));
    call(&mut g, "aten.mul_.Tensor", vec![column.clone(), 10.into()], ty(&[2]));
    let sum = call(&mut g, "aten.add_.Tensor", vec![last, 1.into(), 1.into()], ty(&[2]));
    g.set_outputs(vec![x.into(), column, flat, sum]);
    let (program, method) = (Program::new(), method(g, vec![InputKind::User], vec![OutputKind::User; 4]));
    let given = f32s(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
    let out = Evaluator::new(&program, &method).call(&[Value::Tensor(given.clone())]).unwrap();
    let all = vec![1., 2., 30., 4., 6., 61.];
    assert_eq!(tensor(&out[0]), (vec![2, 3], all.clone()));
    assert_eq!(tensor(&out[1]).1, [30., 61.]);
    assert_eq!(tensor(&out[2]), (vec![6], all.clone()));
    assert_eq!(tensor(&out[3]).1, [6., 61.]);
    assert_eq!(given.to::<f64>(), all, "the caller's tensor was written to");
}

#[test]
fn buffers_keep_what_is_written_until_reset_and_swap_without_mixing() {
    let mut program = Program::new();
    let mut add = |name: &str, x: f32| program.add_weight(name, TensorData::inline(DType::Float32, vec![1], floats(&[x])).unwrap());
    let weights = [add("a", 1.), add("b", 2.)];
    let mut g = Graph::new();
    let (a, b) = (g.add_input("a", ty(&[1])), g.add_input("b", ty(&[1])));
    // The new value of each is the old one of the other; the first is written to in place before.
    call(&mut g, "aten.add_.Tensor", vec![a.into(), 10.into(), 1.into()], ty(&[1]));
    g.set_outputs(vec![b.into(), a.into(), a.into()]);
    let kinds = weights.map(|weight| InputKind::Buffer { weight, persistent: true }).to_vec();
    let method = method(g, kinds, vec![OutputKind::StateMutation(0), OutputKind::StateMutation(1), OutputKind::User]);
    let mut evaluator = Evaluator::new(&program, &method);
    let mut next = || tensor(&evaluator.call(&[]).unwrap()[0]).1;
    assert_eq!((next(), next(), next()), (vec![11.], vec![12.], vec![21.]));
    evaluator.reset();
    assert_eq!(tensor(&evaluator.call(&[]).unwrap()[0]).1, [11.]);
}

#[test]
fn errors_name_the_node_and_what_is_wrong() {
    let run = |target: &str, args: &dyn Fn(Arg) -> Vec<Arg>, result: &[i64]| {
        let mut g = Graph::new();
        let x = g.add_input("x", ty(&[2]));
        let y = call(&mut g, target, args(x.into()), ty(result));
        g.set_outputs(vec![y]);
        let (program, method) = (Program::new(), method(g, vec![InputKind::User], vec![OutputKind::User]));
        let e = Evaluator::new(&program, &method).call(&[Value::Tensor(f32s(&[2], &[1., 2.]))]).unwrap_err();
        (e.kind(), e.to_string())
    };
    OpId::register("test_eval::mystery(Tensor x) -> Tensor").unwrap();
    let (kind, text) = run("test_eval.mystery.default", &|x| vec![x], &[2]);
    assert_eq!((kind, text.contains("test_eval.mystery.default")), (ErrorKind::Unsupported, true), "{text}");
    let (kind, text) = run("aten.select.int", &|x| vec![x, 0.into(), 5.into()], &[]);
    assert_eq!((kind, text.as_str()), (ErrorKind::Evaluation, "n (aten.select.int): index 5 of a dimension of size 2"));
    let (_, text) = run("aten.relu.default", &|x| vec![x], &[3]);
    assert_eq!(text, "n (aten.relu.default): result v: is f32[2], the program says f32[3]");
    let (kind, _) = run("aten.rand_like.default", &|x| vec![x], &[2]);
    assert_eq!(kind, ErrorKind::Unsupported);
}

#[test]
fn a_program_cannot_ask_for_more_than_there_can_be() {
    let mut g = Graph::new();
    let x = g.add_input("x", ty(&[]));
    let big = call(&mut g, "aten.expand.default", vec![x.into(), vec![1i64 << 20, 1 << 20].into()], ty(&[1 << 20, 1 << 20]));
    g.set_outputs(vec![big]);
    let (program, method) = (Program::new(), method(g, vec![InputKind::User], vec![OutputKind::User]));
    let e = Evaluator::new(&program, &method).call(&[Value::Tensor(f32s(&[], &[1.]))]).unwrap_err();
    assert!(e.to_string().contains("too large"), "{e}");
}
