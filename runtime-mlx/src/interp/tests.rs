use std::cell::Cell;

use etx_mlx::{Instr, NamedSlot, ShapeDim};

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
fn elements_are_read_by_their_value() {
    let read = |x: Tensor| {
        let (dtype, shape): (_, Vec<i64>) = (x.dtype(), x.shape().iter().map(|&n| n as i64).collect());
        let chain = vec![
            Instr::ItemInt { x: Tid(0), out: Vid(0) },
            Instr::Full { out: Tid(1), shape: vec![], v: FloatOrVid::Vid(Vid(0)), scalar_type: DType::Float32 },
        ];
        let mut machine = load(program([0, 1, 1, 0, 0], 1, vec![meta(dtype, &shape), meta(DType::Float32, &[])], vec![chain]));
        machine.run(&[Value::Tensor(x)]).map(|v| list(&v)[0])
    };
    assert_eq!(read(Tensor::scalar(-7i32).unwrap()).unwrap(), -7.0);
    // The low half of what is wider.
    assert_eq!(read(Tensor::scalar((1i64 << 32) + 5).unwrap()).unwrap(), 5.0);
    assert_eq!(read(Tensor::scalar(u32::MAX).unwrap()).unwrap(), -1.0);
    // MLX would read what lies behind a narrow one.
    assert_eq!(read(Tensor::scalar(crate::tensor::Bool::from(true)).unwrap()).unwrap(), 1.0);
    assert_eq!(read(Tensor::scalar(200u8).unwrap()).unwrap(), 200.0);
    assert_eq!(read(Tensor::from_slice(&[1, 1], &[-3i8]).unwrap()).unwrap(), -3.0);
    assert_eq!(read(Tensor::from_slice(&[2], &[1i32, 2]).unwrap()).unwrap_err().kind(), ErrorKind::Shape);
    // Four bytes are read as an integer, whatever they are.
    assert_eq!(read(Tensor::scalar(1.0f32).unwrap()).unwrap(), 0x3f80_0000 as f32);
    assert_eq!(read(Tensor::scalar(half::f16::ONE).unwrap()).unwrap_err().kind(), ErrorKind::DType);
}

#[test]
fn inputs_without_elements_are_taken_where_the_delegate_takes_them() {
    let chain = vec![Instr::Abs { x: Tid(0), out: Tid(1) }];
    let metas = vec![meta(DType::Float32, &[-1, -1]); 2];
    let mut machine = load(program([0, 1, 1, 0, 0], 0, metas, vec![chain]));
    assert!(machine.run(&[floats(&[0, 3], &[])]).is_ok());
    assert_eq!(machine.run(&[floats(&[3, 0], &[])]).unwrap_err().kind(), ErrorKind::Argument);
}

#[test]
fn indices_are_read_as_they_lie_in_memory() {
    // The first column of [[0, 2], [1, 0], [2, 1]] is 0, 1, 2; the delegate reads 0, 2, 1.
    let (i, x, out, at, dense) = (Tid(0), Tid(1), Tid(2), Tid(3), Tid(4));
    let run = |made: Vec<Instr>, indices| {
        let chain = [made, vec![Instr::IndexCopy { dst: x, update: x, indices, out, axis: 0 }]].concat();
        let metas = vec![meta(DType::Int64, &[3, 2]), meta(DType::Float32, &[3]), meta(DType::Float32, &[3])];
        let mut machine = load(program([0, 2, 1, 0, 2], 0, metas, vec![chain]));
        let table = Value::Tensor(Tensor::from_slice(&[3, 2], &[0i64, 2, 1, 0, 2, 1]).unwrap());
        machine.run(&[table, floats(&[3], &[10.0, 20.0, 30.0])]).map(|v| list(&v))
    };
    let column = |n: i64| Instr::Take { x: i, out: at, index: n.into(), axis: 1 };
    assert_eq!(run(vec![column(0)], at).unwrap(), [10.0, 30.0, 20.0]);
    assert_eq!(run(vec![column(0), Instr::Contiguous { x: at, out: dense }], dense).unwrap(), [10.0, 20.0, 30.0]);
    // A number that is repeated stays one, whatever is computed of it.
    let repeated = vec![
        Instr::Full { out: at, shape: vec![], v: FloatOrVid::Float(1.0), scalar_type: DType::Int32 },
        Instr::BroadcastTo { x: at, out: dense, shape: vec![3.into()] },
        Instr::Square { x: dense, out: dense },
        Instr::Multiply { a: dense, b: dense, out: dense },
        Instr::AsType { x: dense, out: at, scalar_type: DType::Int64 },
    ];
    assert_eq!(run(repeated, at).unwrap_err().kind(), ErrorKind::Range);
}

#[test]
fn the_runtimes_cache_grows_overwrites_and_is_apart_for_every_layer() {
    let (q, k, v, position, out) = (Tid(0), Tid(1), Tid(2), Tid(3), Tid(4));
    let attend = |layer_id, out_dtype| Instr::UpdateAndAttend { q, k, v, position, out, layer_id, scale: Some(1.0), out_dtype };
    let of = |instr: Instr, dtype| {
        let metas = [vec![meta(DType::Float32, &[1, 1, -1, 1]); 3], vec![meta(DType::Int64, &[1]), meta(dtype, &[1, 1, -1, 1])]].concat();
        load(program([0, 4, 1, 0, 0], 0, metas, vec![vec![instr]]))
    };
    let both = vec![attend(Some(1), None), attend(Some(0), None)];
    let metas =
        [vec![meta(DType::Float32, &[1, 1, -1, 1]); 3], vec![meta(DType::Int64, &[1]), meta(DType::Float32, &[1, 1, -1, 1])]].concat();
    let mut machine = load(program([0, 4, 1, 0, 0], 0, metas, vec![both]));
    // Queries of zero see all keys alike: the mean of the values so far.
    let inputs = |at: i64, values: &[f32]| {
        let n = values.len();
        let zeros = floats(&[1, 1, n, 1], &vec![0.0; n]);
        [zeros.clone(), zeros, floats(&[1, 1, n, 1], values), Value::Tensor(Tensor::from_slice(&[1], &[at]).unwrap())]
    };
    let mut step = |at: i64, values: &[f32]| machine.run(&inputs(at, values)).map(|v| list(&v)).map_err(|e| e.kind());
    assert_eq!(step(0, &[2.0]), Ok(vec![2.0]));
    assert_eq!(step(1, &[4.0, 9.0]), Ok(vec![3.0, 5.0]), "several are causal");
    assert_eq!(step(1, &[8.0]), Ok(vec![5.0]), "what comes after is not seen");
    assert_eq!(step(99, &[81.0]), Ok(vec![1.0]), "beyond the room there was, with zeros between");
    assert_eq!(step(1, &[0.0]), Ok(vec![1.0]));
    assert_eq!(step(-1, &[0.0]), Err(ErrorKind::Range));
    machine.reset().unwrap();
    assert_eq!(machine.run(&inputs(1, &[8.0])).map(|v| list(&v)).unwrap(), [4.0]);
    let half = of(attend(Some(7), Some(DType::Float16)), DType::Float16).run(&inputs(0, &[1.0])).unwrap();
    assert_eq!(half[0].as_tensor().unwrap().dtype(), DType::Float16);
    assert_eq!(of(attend(None, None), DType::Float32).run(&inputs(0, &[1.0])).unwrap_err().kind(), ErrorKind::Argument);
}

#[test]
fn scans_go_along_any_axis_and_stack_there() {
    // y[:, t] = x[:, t] + carry, carry = y[:, t]
    let (x, out, slice, carry, y) = (Tid(0), Tid(1), Tid(2), Tid(3), Tid(4));
    let scan = |scan_axis| {
        let main = vec![
            Instr::Full { out: carry, shape: vec![IntOrVid::Int(2)], v: FloatOrVid::Float(10.0), scalar_type: DType::Float32 },
            Instr::Scan { originals: vec![x], sliced: vec![slice], outputs: vec![y], carry: vec![carry], body_chain_idx: 1, scan_axis },
            Instr::IdCopy { x: y, out },
        ];
        let body = vec![Instr::Add { a: slice, b: carry, out: y }, Instr::IdCopy { x: y, out: carry }];
        let metas = vec![meta(DType::Float32, &[-1, -1]), meta(DType::Float32, &[-1, -1])];
        let mut machine = load(program([0, 1, 1, 0, 3], 0, metas, vec![main, body]));
        machine.run(&[floats(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])])
    };
    let got = scan(1).unwrap();
    assert_eq!((got[0].as_tensor().unwrap().shape(), list(&got)), (&[2, 3][..], vec![11.0, 13.0, 16.0, 14.0, 19.0, 25.0]));
    assert_eq!(scan(2).unwrap_err().kind(), ErrorKind::Range);
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
    assert_eq!(kind(Instr::ModInt { a: int(1), b: int(0), out }), ErrorKind::Range);
    assert_eq!(kind(Instr::AddInt { a: int(i64::from(i32::MAX)), b: int(1), out }), ErrorKind::Range);
    assert_eq!(kind(Instr::SubtractInt { a: int(i64::from(i32::MIN)), b: int(1), out }), ErrorKind::Range);
    assert_eq!(kind(Instr::MultiplyInt { a: int(1 << 20), b: int(1 << 20), out }), ErrorKind::Range);
}

#[test]
fn what_makes_tensors_of_given_sizes_makes_none_without_elements() {
    let (out, f32s, int) = (Tid(1), DType::Float32, IntOrVid::Int);
    let run = |instr: Instr, n: usize| {
        let metas = vec![meta(f32s, &[-1]), meta(f32s, &[-1])];
        let mut machine = load(program([0, 1, 1, 0, 0], 0, metas, vec![vec![instr]]));
        machine.run(&[floats(&[n], &vec![1.0; n])]).map(|v| list(&v).len()).map_err(|e| e.kind())
    };
    let full = |n: i64| Instr::Full { out, shape: vec![int(n)], v: FloatOrVid::Float(1.0), scalar_type: f32s };
    let range = |stop: i64, step: i64| Instr::ARange { out, start: int(1), stop: int(stop), step: int(step), scalar_type: Some(f32s) };
    let repeat = |n: i64| Instr::Repeat { x: Tid(0), out, repeats: int(n), axis: 0 };
    let bits = |n: i64| Instr::RandomBits { out, shape: vec![int(n)], seed: None, width: 4 };
    let boxes = |n: i32| Instr::Gather { x: Tid(0), indices: vec![], out, axes: vec![], slice_sizes: vec![n] };
    let none = Err(ErrorKind::Shape);
    assert_eq!((run(full(2), 1), run(full(0), 1), run(full(-1), 1)), (Ok(2), none, none));
    assert_eq!((run(range(4, 2), 1), run(range(-1, -1), 1), run(range(1, 1), 1), run(range(0, 1), 1)), (Ok(2), Ok(2), none, none));
    assert_eq!((run(repeat(2), 3), run(repeat(0), 3), run(repeat(2), 0)), (Ok(6), none, none));
    assert_eq!((run(bits(3), 1), run(bits(0), 1)), (Ok(3), none));
    assert_eq!((run(boxes(2), 2), run(boxes(0), 2)), (Ok(2), none));
    let triangle = |n: i64| Instr::Tri { out, n: int(n), m: int(3), k: 0, scalar_type: f32s };
    assert_eq!(run(triangle(0), 1), none);
    // More than 4 GiB; as many elements as there are may be nothing.
    assert_eq!(run(full((1 << 30) + 1), 1), Err(ErrorKind::Limit));
    assert_eq!(run(Instr::FullLike { x: Tid(0), out, v: FloatOrVid::Float(2.0), scalar_type: None }, 0), Ok(0));
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

/// One input, one output, some temps; what the first of the chains does is what a call does.
fn asking(temps: u32, chains: Vec<Vec<Instr>>) -> Machine<Cpu> {
    let metas = vec![meta(DType::Float32, &[2]), meta(DType::Float32, &[2])];
    load(program([0, 1, 1, 0, temps], 0, metas, chains))
}

#[test]
fn a_call_takes_no_more_memory_than_it_may() {
    let (x, out) = (Tid(0), Tid(1));
    // Five times 16 MiB that stay alive: together more than a call may have here.
    let full = |out: Tid| Instr::Full { out, shape: vec![IntOrVid::Int(4 << 20)], v: FloatOrVid::Float(1.0), scalar_type: DType::Float32 };
    let parts: Vec<Tid> = (2..7).map(Tid).collect();
    let mut chain: Vec<Instr> = parts.iter().map(|&t| full(t)).collect();
    let sum = Tid(7);
    for &t in &parts {
        chain.push(Instr::Sum { x: t, out: sum, axes: None, keepdims: false });
    }
    chain.push(Instr::Abs { x, out });
    let mut machine = asking(6, vec![chain]);
    let given = [floats(&[2], &[1.0, -2.0])];
    assert_eq!(list(&machine.run(&given).unwrap()), [1.0, 2.0]);
    machine.account = Account::new(Limits { memory: Some(70 << 20), steps: None }, 0, 100);
    let error = machine.run(&given).unwrap_err();
    assert!(error.kind() == ErrorKind::Limit && error.to_string().contains("instruction 4"), "{error}");
    // What a failed call had is given back, and outputs that callers keep do not count.
    machine.account = Account::new(Limits { memory: Some(90 << 20), steps: None }, 0, 100);
    let kept: Vec<_> = (0..3).map(|_| machine.run(&given).unwrap()).collect();
    assert_eq!(kept.len(), 3);
}

#[test]
fn a_call_takes_no_more_instructions_than_it_may() {
    let (x, out) = (Tid(0), Tid(1));
    let either = |chain: u32| Instr::If { cond: IntOrVid::Int(1), then_chain_idx: chain, else_chain_idx: chain };
    // Each chain runs the next one twice.
    let mut chains: Vec<Vec<Instr>> = (1..40u32).map(|next| vec![either(next), either(next)]).collect();
    chains.push(vec![Instr::Noop {}]);
    chains[0].push(Instr::Abs { x, out });
    let error = asking(0, chains).run(&[floats(&[2], &[1.0, 2.0])]).unwrap_err();
    assert!(error.kind() == ErrorKind::Limit && error.to_string().contains("--max-steps"), "{error}");
    // A broadcast axis costs nothing, and has two thousand million steps.
    let (wide, slice) = (Tid(2), Tid(3));
    let shape = vec![IntOrVid::Int((1 << 31) - 1), IntOrVid::Int(2)];
    let scan = vec![
        Instr::BroadcastTo { x, out: wide, shape },
        Instr::Scan { originals: vec![wide], sliced: vec![slice], outputs: vec![], carry: vec![], body_chain_idx: 1, scan_axis: 0 },
        Instr::Abs { x, out },
    ];
    let error = asking(2, vec![scan, vec![Instr::Noop {}]]).run(&[floats(&[2], &[1.0, 2.0])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
}

#[test]
fn buffers_take_no_more_memory_than_a_method_may_have() {
    // Unit tests have a low limit for one tensor, so many of them.
    let mut metas = vec![meta(DType::Float32, &[2]), meta(DType::Float32, &[2])];
    metas.extend(vec![meta(DType::Float32, &[8 << 20]); 40]);
    let chains = vec![vec![Instr::Abs { x: Tid(0), out: Tid(1) }]];
    let program = program([0, 1, 1, 40, 0], 0, metas, chains);
    let account = Account::new(Limits::default(), 0, 1);
    let made = account.enter(|| Machine::new(Cpu, program, |_, _| Tensor::scalar(0f32)));
    let error = made.err().unwrap();
    assert!(error.kind() == ErrorKind::Limit && error.to_string().contains("mutable buffer"), "{error}");
}
