use std::cell::Cell;

use etx_ir::mlx::{Instr, NamedSlot, ShapeDim};

use super::*;
use crate::cpu::Cpu;
use crate::error::ErrorKind;

fn meta(dtype: DType, shape: &[i64]) -> TensorMeta {
    let dim = |&n: &i64| u32::try_from(n).map_or(ShapeDim::Dynamic { min: 0, max: None }, ShapeDim::Static);
    TensorMeta { dtype, shape: shape.iter().map(dim).collect(), dim_order: None }
}

/// Counts of each space, descriptions of all but temps, chains; maps in order, tensors only.
fn program(counts: [u32; 5], values: u32, tensor_meta: Vec<TensorMeta>, chains: Vec<Vec<Instr>>) -> Program {
    let [num_constants, num_inputs, num_outputs, num_mutable_buffers, num_temps] = counts;
    let slots = |from: u32, n: u32| (from..from + n).map(|t| Slot::Tensor(Tid(t))).collect::<Vec<_>>();
    let inputs = num_constants;
    let outputs = inputs + num_inputs;
    Program {
        num_constants,
        num_inputs,
        num_outputs,
        num_mutable_buffers,
        num_temps,
        num_values: values,
        chains,
        input_map: slots(inputs, num_inputs),
        output_map: slots(outputs, num_outputs),
        mutable_buffer_map: slots(outputs + num_outputs, num_mutable_buffers),
        named_slots: (0..num_constants).map(|t| NamedSlot { name: format!("c{t}"), slot: Slot::Tensor(Tid(t)) }).collect(),
        tensor_meta,
        ..Program::default()
    }
}

fn load(program: Program) -> Machine<Cpu> {
    Machine::new(Cpu, program, |name, _| Err(Error::argument(format!("no constant {name}")))).unwrap()
}

fn floats(shape: &[usize], values: &[f32]) -> Value {
    Value::Tensor(Tensor::from_slice(shape, values).unwrap())
}

fn list(values: &[Value]) -> Vec<f32> {
    values[0].as_tensor().unwrap().values::<f32>().unwrap().into_owned()
}

#[test]
fn mutable_buffers_persist_update_in_place_and_reset() {
    // %m0[at..at+1] = %i0, then %o0 = sum(%m0); `at` comes from the tensor %i1.
    let f32s = |shape: &[i64]| meta(DType::Float32, shape);
    let (x, at, out, buffer, temp) = (Tid(0), Tid(1), Tid(2), Tid(3), Tid(4));
    let start = IntOrVid::Vid(Vid(0));
    let chain = vec![
        Instr::ItemInt { x: at, out: Vid(0) },
        Instr::AddInt { a: start, b: IntOrVid::Int(1), out: Vid(1) },
        Instr::SliceUpdate { dst: buffer, update: x, out: buffer, axis: IntOrVid::Int(0), start, stop: IntOrVid::Vid(Vid(1)), step: 1 },
        Instr::IdCopy { x: buffer, out: temp },
        Instr::Sum { x: temp, out, axes: None, keepdims: false },
    ];
    let metas = vec![f32s(&[1]), meta(DType::Int64, &[]), f32s(&[]), f32s(&[4])];
    let mut machine = load(program([0, 2, 1, 1, 1], 2, metas, vec![chain]));
    let address = |m: &Machine<Cpu>| m.get(buffer).unwrap().as_slice::<f32>().unwrap().unwrap().as_ptr();
    let place = address(&machine);
    let mut step = |x: f32, at: i64| {
        let got = machine.run(&[floats(&[1], &[x]), Value::Tensor(Tensor::scalar(at).unwrap())]).unwrap();
        (list(&got)[0], address(&machine))
    };
    assert_eq!(step(1.0, 0), (1.0, place));
    assert_eq!(step(5.0, 3), (6.0, place));
    assert_eq!(step(2.0, 0), (7.0, place));
    machine.reset().unwrap();
    let got = machine.run(&[floats(&[1], &[9.0]), Value::Tensor(Tensor::scalar(1i64).unwrap())]).unwrap();
    assert_eq!(list(&got), [9.0]);
}

#[test]
fn a_buffer_that_took_an_input_does_not_follow_it() {
    // %o0 = %m0 + %m0; %m0 = %i0
    let (x, out, buffer) = (Tid(0), Tid(1), Tid(2));
    let chain = vec![Instr::Add { a: buffer, b: buffer, out }, Instr::IdCopy { x, out: buffer }];
    let metas = vec![meta(DType::Float32, &[2]); 3];
    let mut machine = load(program([0, 1, 1, 1, 0], 0, metas, vec![chain]));
    let mut input = Tensor::from_slice(&[2], &[1.0f32, 2.0]).unwrap();
    assert_eq!(list(&machine.run(&[Value::Tensor(input.clone())]).unwrap()), [0.0, 0.0]);
    input.make_mut::<f32>().unwrap().fill(7.0);
    assert_eq!(list(&machine.run(&[Value::Tensor(input)]).unwrap()), [2.0, 4.0]);
}

#[test]
fn branches_scans_and_integers() {
    // If %v0 > 0 run chain 1 (out = x + x) else chain 2 (out = scan over x: stack of x[t] * x[t]).
    let (x, out, slice, square) = (Tid(0), Tid(1), Tid(2), Tid(3));
    let main = vec![
        Instr::SymSize { a: x, dim: -1, out: Vid(0) },
        Instr::ModInt { a: IntOrVid::Vid(Vid(0)), b: IntOrVid::Int(-2), out: Vid(1) },
        Instr::If { cond: IntOrVid::Vid(Vid(1)), then_chain_idx: 1, else_chain_idx: 2 },
    ];
    let double = vec![Instr::Add { a: x, b: x, out }];
    let scan = vec![
        Instr::Scan { originals: vec![x], sliced: vec![slice], outputs: vec![square], carry: vec![], body_chain_idx: 3, scan_axis: 0 },
        Instr::IdCopy { x: square, out },
    ];
    let body = vec![Instr::Multiply { a: slice, b: slice, out: square }];
    let metas = vec![meta(DType::Float32, &[-1]); 2];
    let mut machine = load(program([0, 1, 1, 0, 2], 2, metas, vec![main, double, scan, body]));
    assert_eq!(list(&machine.run(&[floats(&[3], &[1.0, 2.0, 3.0])]).unwrap()), [2.0, 4.0, 6.0]);
    assert_eq!(list(&machine.run(&[floats(&[2], &[3.0, 4.0])]).unwrap()), [9.0, 16.0]);
    let error = machine.run(&[floats(&[0], &[])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
}

#[test]
fn integers_divide_as_in_python_and_stay_in_32_bits() {
    let int = IntOrVid::Int;
    let result = |instr: Instr| {
        let filler = Instr::Full { out: Tid(0), shape: vec![], v: FloatOrVid::Vid(Vid(0)), scalar_type: DType::Float32 };
        let mut machine = load(program([0, 0, 1, 0, 0], 1, vec![meta(DType::Float32, &[])], vec![vec![instr, filler]]));
        machine.run(&[]).map(|v| list(&v)[0])
    };
    let out = Vid(0);
    assert_eq!(result(Instr::FloorDivideInt { a: int(-7), b: int(2), out }).unwrap(), -4.0);
    assert_eq!(result(Instr::FloorDivideInt { a: int(7), b: int(-2), out }).unwrap(), -4.0);
    assert_eq!(result(Instr::ModInt { a: int(7), b: int(-2), out }).unwrap(), -1.0);
    assert_eq!(result(Instr::ModInt { a: int(-7), b: int(3), out }).unwrap(), 2.0);
    let kind = |instr| result(instr).unwrap_err().kind();
    assert_eq!(kind(Instr::FloorDivideInt { a: int(1), b: int(0), out }), ErrorKind::Range);
    assert_eq!(kind(Instr::FloorDivideInt { a: int(i64::MIN), b: int(-1), out }), ErrorKind::Range);
    assert_eq!(kind(Instr::MultiplyInt { a: int(1 << 20), b: int(1 << 20), out }), ErrorKind::Range);
}

#[test]
fn init_chain_fills_constants_and_buffers_and_runs_again_on_reset() {
    // init: %c0 = %c0 + %c0, %m0 = %c0; main: %o0 = %m0; %m0 = %m0 + %c0
    let (c, out, buffer) = (Tid(0), Tid(1), Tid(2));
    let main = vec![Instr::IdCopy { x: buffer, out }, Instr::Add { a: buffer, b: c, out: buffer }];
    let init = vec![Instr::Add { a: c, b: c, out: c }, Instr::IdCopy { x: c, out: buffer }];
    let mut p = program([1, 0, 1, 1, 0], 0, vec![meta(DType::Float32, &[1]); 3], vec![main, init]);
    p.init_chain = Some(1);
    let asked = Cell::new(0);
    let mut machine = Machine::new(Cpu, p, |name, meta| {
        asked.set(asked.get() + 1);
        assert_eq!((name, meta.dtype), ("c0", DType::Float32));
        Tensor::from_slice(&[1], &[3.0f32])
    })
    .unwrap();
    for want in [6.0, 12.0] {
        assert_eq!(list(&machine.run(&[]).unwrap()), [want]);
    }
    machine.reset().unwrap();
    assert_eq!((list(&machine.run(&[]).unwrap()), asked.get()), (vec![6.0], 1));
}

#[test]
fn errors_name_the_instruction() {
    let metas = vec![meta(DType::Float32, &[2]), meta(DType::Float32, &[-1]), meta(DType::Float32, &[2])];
    let chain = vec![Instr::Noop {}, Instr::Add { a: Tid(0), b: Tid(1), out: Tid(2) }];
    let mut machine = load(program([0, 2, 1, 0, 0], 0, metas, vec![chain]));
    let two = floats(&[2], &[1.0, 2.0]);
    let error = machine.run(&[two.clone(), floats(&[3], &[0.0; 3])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    let text = error.to_string();
    assert!(text.starts_with("chain 0, instruction 1, `%o0 = Add(a=%i0, b=%i1)`: "), "{text}");
    // A failed call leaves a machine that works.
    assert_eq!(list(&machine.run(&[two.clone(), two.clone()]).unwrap()), [2.0, 4.0]);

    let argument = |inputs: &[Value]| machine.run(inputs).unwrap_err().to_string();
    let mut argument = argument;
    assert_eq!(argument(std::slice::from_ref(&two)), "1 inputs given, the program takes 2");
    assert_eq!(argument(&[floats(&[3], &[0.0; 3]), two.clone()]), "input 0: shape [2] is needed, found [3]");
    assert_eq!(argument(&[two.clone(), Value::Int(3)]), "input 1: a tensor is needed, found a int");
    let ints = Value::Tensor(Tensor::from_slice(&[2], &[1i32, 2]).unwrap());
    assert_eq!(argument(&[ints, two]), "input 0: elements of type f32 are needed, found i32");
}

#[test]
fn outputs_take_their_declared_type_and_temps_die() {
    // argmax gives u32; the output is declared i64.
    let metas = vec![meta(DType::Float32, &[-1]), meta(DType::Int64, &[])];
    let chain = vec![Instr::Neg { x: Tid(0), out: Tid(2) }, Instr::Argmax { x: Tid(2), out: Tid(1), axis: 0, keepdims: false }];
    let mut machine = load(program([0, 1, 1, 0, 1], 0, metas, vec![chain]));
    assert_eq!(machine.last_uses, [vec![], vec![Tid(2)]]);
    let got = machine.run(&[floats(&[3], &[3.0, 1.0, 2.0])]).unwrap();
    assert_eq!(got[0].as_tensor().unwrap().item::<i64>().unwrap(), 1);
    assert!(machine.tensors.iter().all(Option::is_none));
}

#[test]
fn programs_that_break_the_rules_are_refused_with_all_reasons() {
    let chain = vec![Instr::Neg { x: Tid(9), out: Tid(0) }, Instr::Add { a: Tid(0), b: Tid(0), out: Tid(8) }];
    let p = program([0, 1, 1, 0, 0], 0, vec![meta(DType::Float32, &[1]); 2], vec![chain]);
    let error = Machine::new(Cpu, p, |_, _| Tensor::scalar(0f32)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Format);
    assert!(error.to_string().lines().count() >= 3, "{error}");
}

#[test]
fn the_last_name_of_a_constant_is_its_key() {
    let (c, out) = (Tid(0), Tid(1));
    let mut p = program([1, 0, 1, 0, 0], 0, vec![meta(DType::Float32, &[1]); 2], vec![vec![Instr::IdCopy { x: c, out }]]);
    p.named_slots.push(NamedSlot { name: "last".into(), slot: Slot::Tensor(c) });
    let only_last = |name: &str, _: &TensorMeta| match name {
        "last" => Tensor::from_slice(&[1], &[5.0f32]),
        other => Err(Error::argument(format!("{other} is asked for"))),
    };
    let mut machine = Machine::new(Cpu, p, only_last).unwrap();
    assert_eq!(list(&machine.run(&[]).unwrap()), [5.0]);
}

#[test]
fn the_init_chain_may_give_a_constant_another_shape_than_declared() {
    // As exporters have it for biases: declared without axes, then scales times a number.
    let (scales, number, biases, out) = (Tid(0), Tid(1), Tid(2), Tid(3));
    let metas = vec![meta(DType::Float32, &[2, 3]), meta(DType::Float32, &[]), meta(DType::Float32, &[]), meta(DType::Float32, &[2, 3])];
    let init = vec![Instr::Multiply { a: scales, b: number, out: biases }];
    let mut p = program([3, 0, 1, 0, 0], 0, metas, vec![vec![Instr::Add { a: biases, b: scales, out }], init]);
    p.init_chain = Some(1);
    let mut machine = Machine::new(Cpu, p, |name, _| match name {
        "c0" => Tensor::from_slice(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]),
        "c1" => Tensor::scalar(-8.0f32),
        _ => Tensor::scalar(0.0f32),
    })
    .unwrap();
    assert_eq!(list(&machine.run(&[]).unwrap()), [-7.0, -14.0, -21.0, -28.0, -35.0, -42.0]);
}

#[test]
fn no_axes_are_all_axes_whether_absent_or_none_listed() {
    let (x, out) = (Tid(0), Tid(1));
    let run = |instr: Instr, shape: &[i64]| {
        let metas = vec![meta(DType::Float32, &[1, 2, 1, 2]), meta(DType::Float32, shape)];
        let mut machine = load(program([0, 1, 1, 0, 0], 0, metas, vec![vec![instr]]));
        let got = machine.run(&[floats(&[1, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0])]).unwrap();
        (got[0].as_tensor().unwrap().shape().to_vec(), list(&got))
    };
    for axes in [None, Some(vec![])] {
        let sum = run(Instr::Sum { x, out, axes: axes.clone(), keepdims: false }, &[]);
        assert_eq!(sum, (vec![], vec![10.0]), "{axes:?}");
        let max = run(Instr::Max { x, out, axes: axes.clone(), keepdims: true }, &[1, 1, 1, 1]);
        assert_eq!(max, (vec![1, 1, 1, 1], vec![4.0]), "{axes:?}");
        let squeezed = run(Instr::Squeeze { x, out, dims: axes.clone() }, &[2, 2]);
        assert_eq!(squeezed, (vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]), "{axes:?}");
    }
}

#[test]
fn literals_are_cut_to_32_bits() {
    let (x, out) = (Tid(0), Tid(1));
    let run = |instr: Instr| {
        let metas = vec![meta(DType::Float32, &[4]), meta(DType::Float32, &[-1])];
        let mut machine = load(program([0, 1, 1, 0, 0], 0, metas, vec![vec![instr]]));
        list(&machine.run(&[floats(&[4], &[1.0, 2.0, 3.0, 4.0])]).unwrap())
    };
    let int = IntOrVid::Int;
    assert_eq!(run(Instr::Slice { x, out, axis: int(0), start: int(1), stop: int(i64::MAX), step: 1 }), [2.0, 3.0, 4.0]);
    assert_eq!(run(Instr::Slice { x, out, axis: int(0), start: int(i64::MIN), stop: int(2), step: 1 }), [1.0, 2.0]);
    let full = Instr::Full { out, shape: vec![int(1)], v: FloatOrVid::Float(1e300), scalar_type: DType::Float32 };
    assert_eq!(run(full), [f32::INFINITY]);
}

#[test]
fn attention_over_a_cache_needs_its_layer_and_scale() {
    let [q, k, v, position, out] = [0, 1, 2, 3, 4].map(Tid);
    let run = |layer_id, scale| {
        let heads = meta(DType::Float32, &[1, 1, 1, 2]);
        let metas = vec![heads.clone(), heads.clone(), heads.clone(), meta(DType::Int64, &[1]), heads];
        let instr = Instr::UpdateAndAttend { q, k, v, position, out, layer_id, scale, out_dtype: None };
        let mut machine = load(program([0, 4, 1, 0, 0], 0, metas, vec![vec![instr]]));
        let x = floats(&[1, 1, 1, 2], &[3.0, 4.0]);
        let at = Value::Tensor(Tensor::from_slice(&[1], &[0i64]).unwrap());
        machine.run(&[x.clone(), x.clone(), x, at]).map(|v| list(&v))
    };
    assert_eq!(run(Some(0), Some(1.0)).unwrap(), [3.0, 4.0]);
    for (layer, scale) in [(None, Some(1.0)), (Some(0), None)] {
        let error = run(layer, scale).unwrap_err();
        assert!(error.kind() == ErrorKind::Argument && error.to_string().contains("without layer number or scale"), "{error}");
    }
}
