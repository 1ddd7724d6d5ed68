use super::*;
use crate::graph::{Arg, Graph, TensorType, Type};
use crate::op::{OpId, families};
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
    Method {
        name,
        graph,
        inputs,
        outputs,
        ranges: Default::default(),
        guards: Vec::new(),
        dialect: Dialect::Training,
        in_spec: "".into(),
        out_spec: spec,
    }
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
    families::check(table::FAMILIES);
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
fn norms_of_nothing_have_a_value_where_their_order_gives_one() {
    let norm = |order: f64, shape: &[usize], dim: i64| {
        let mut g = Graph::new();
        let x = g.add_input("x", ty(&shape.iter().map(|n| *n as i64).collect::<Vec<_>>()));
        let args = vec![x.into(), order.into(), vec![dim].into(), true.into(), Arg::None];
        let node = g.append(OpId::lookup("aten.linalg_vector_norm.default").unwrap(), args, "n", vec![("v", Type::None)], None);
        let y = g.node(node).outputs[0];
        g.set_outputs(vec![y.into()]);
        Session::default().run(&g, vec![Value::Tensor(f32s(shape, &[]))]).map(|v| tensor(&v[0]).1)
    };
    for (order, value) in
        [(0., Some(0.)), (0.5, Some(0.)), (1., Some(0.)), (2., Some(0.)), (-1., None), (f64::INFINITY, None), (f64::NEG_INFINITY, None)]
    {
        assert_eq!(norm(order, &[0], 0).ok(), value.map(|v| vec![v]), "of order {order}");
        assert_eq!(norm(order, &[0, 3], 0).ok(), value.map(|v| vec![v; 3]), "of order {order}");
        assert_eq!(norm(order, &[0, 3], 1).ok(), Some(Vec::new()), "of order {order}");
    }
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
    let (_, text) = run("aten.reshape.default", &|x| vec![x, vec![-1, 0].into()], &[2, 0]);
    assert_eq!(text, "n (aten.reshape.default): any size would do for -1 in [-1, 0], for there are no elements");
    let (_, text) = run("aten.relu.default", &|x| vec![x], &[3]);
    assert_eq!(text, "n (aten.relu.default): result v: is f32[2], the program says f32[3]");
    let (kind, _) = run("aten.rrelu.default", &|x| vec![x, 0.125.into(), 0.25.into(), true.into()], &[2]);
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

/// What eager PyTorch answers, written by `tools/eval_facts.py`.
const FACTS: &str = include_str!("facts.txt");

/// Most elements of a result that the facts hold.
const MOST: usize = 16;

/// Element number `i` of input number `k` of a fact: from -20 to 20.
fn number(k: usize, i: usize) -> i64 {
    ((i * 37 + k * 11 + 5) % 41) as i64 - 20
}

fn input(ty: &Type, k: usize, elements: Option<&str>, positive: bool) -> Tensor {
    let Type::Tensor(t) = ty else { panic!("{ty:?} in a fact") };
    let shape: Vec<usize> = t.static_shape().unwrap().iter().map(|n| *n as usize).collect();
    let (d, n) = (t.dtype, shape.iter().product());
    if let Some(text) = elements {
        let given: Vec<&str> = text.split(',').map(str::trim).collect();
        return if d.is_float() {
            Tensor::of(d, &shape, given.iter().map(|x| x.parse::<f64>().unwrap())).unwrap()
        } else {
            Tensor::of(d, &shape, given.iter().map(|x| x.parse::<i64>().unwrap())).unwrap()
        };
    }
    let numbers = (0..n).map(|i| number(k, i));
    match d {
        DType::Bool => Tensor::of(d, &shape, numbers.map(|x| x % 3 == 0)),
        d if d.is_complex() => Tensor::of(d, &shape, numbers.map(|x| [x as f64 / 7., (x * 3).rem_euclid(11) as f64 / 5.])),
        d if d.is_float() => Tensor::of(d, &shape, numbers.map(|x| if positive { (x + 21) as f64 / 42. } else { x as f64 / 7. })),
        d if positive => Tensor::of(d, &shape, numbers.map(|x| x.rem_euclid(2))),
        DType::UInt8 => Tensor::of(d, &shape, numbers.map(|x| x + 20)),
        d => Tensor::of(d, &shape, numbers),
    }
    .unwrap()
}

/// How far a float may be off, relative to itself and to the largest element: sums and functions of torch's kernels err by a few
/// units in the last place, and where they round halves in between by one or two of those.
fn tolerance(d: DType) -> (f64, f64) {
    match d {
        DType::Float64 | DType::Complex128 => (1e-12, 1e-13),
        DType::Float32 | DType::Complex64 => (1e-5, 1e-6),
        DType::Float16 => (2f64.powi(-10), 2f64.powi(-11)),
        _ => (2f64.powi(-7), 2f64.powi(-8)),
    }
}

/// What is wrong with a result, if anything.
fn differs(found: &Value, expected: &str) -> Option<String> {
    let Value::Tensor(t) = found else {
        let same = format!("{found:?}") == expected.replace("True", "true").replace("False", "false");
        return (!same).then(|| format!("{found:?}"));
    };
    let (head, numbers) = expected.split_once(']').unwrap();
    let spelled = format!("{}{:?}", t.dtype(), t.shape());
    if spelled != format!("{head}]") {
        return Some(spelled);
    }
    let expected: Vec<f64> = numbers.split_whitespace().map(|x| x.parse().unwrap()).collect();
    let parts = if t.dtype().is_complex() { 2 } else { 1 };
    let all: Vec<f64> = if parts == 2 { t.to::<[f64; 2]>().concat() } else { t.to() };
    let n = all.len() / parts;
    let at: Vec<usize> = if n > MOST { (0..MOST).map(|i| i * n / MOST).collect() } else { (0..n).collect() };
    let found: Vec<f64> = at.iter().flat_map(|i| all[i * parts..(i + 1) * parts].to_vec()).collect();
    let largest = expected.iter().filter(|x| x.is_finite()).fold(0f64, |m, x| m.max(x.abs()));
    let (rtol, atol) = if t.dtype().is_float() || parts == 2 { tolerance(t.dtype()) } else { (0., 0.) };
    let near = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= rtol * b.abs() + atol * largest;
    let fine = found.len() == expected.len() && found.iter().zip(&expected).all(near);
    (!fine).then(|| format!("{found:?}"))
}

#[test]
fn values_are_those_of_eager_pytorch() {
    let mut wrong = Vec::new();
    for line in FACTS.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (call, expected) = line.split_once(") => ").unwrap();
        let (positive, call) = (call.starts_with("+ "), call.trim_start_matches("+ "));
        let mut w = crate::infer::tests::read(call);
        let inputs: Vec<Value> = w
            .graph
            .inputs()
            .iter()
            .zip(&w.elements)
            .enumerate()
            .map(|(k, (v, e))| Value::Tensor(input(w.graph.ty(*v), k, e.as_deref(), positive)))
            .collect();
        let expected: Vec<&str> = expected.split("; ").collect();
        // Results are taken as they come.
        let node = w.graph.append(w.op, w.args, "n", vec![("v", Type::None); expected.len()], None);
        let outputs = w.graph.node(node).outputs.iter().map(|v| (*v).into()).collect();
        w.graph.set_outputs(outputs);
        match Session::default().run(&w.graph, inputs) {
            Err(e) => wrong.push(format!("{line}\n   {e}")),
            Ok(found) => {
                let differences = found.iter().zip(&expected).filter_map(|(f, e)| differs(f, e));
                wrong.extend(differences.map(|d| format!("{line}\n   found {d}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} facts:\n{}", wrong.len(), wrong.join("\n"));
}
