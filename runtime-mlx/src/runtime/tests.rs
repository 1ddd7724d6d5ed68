use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use etx_emit::{
    Constant, ConstantMethod, Delegate, DelegateOutput, Input, Method as Plan, Mutation, Package, TensorSpec, Value as V, emit,
};
use etx_ir::weights::TensorData;
use etx_mlx::{BACKEND, Instr, NamedSlot, Program, ShapeDim, Slot as MlxSlot, TensorMeta, Tid, Vid};
use etx_serializer::mlx::encode;
use etx_serializer::pte::model::{JumpFalseCall, KernelCall, MoveCall, Operator};
use etx_serializer::pte::{Contents, NamedBlob, write};

use super::*;

/// A file in the temporary directory that goes away with the value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn open(contents: &Contents) -> (Runtime, Scratch) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("etx-runtime-{}-{}.pte", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    write(contents, &path).unwrap();
    (Runtime::open(&path).unwrap(), Scratch(path))
}

fn pair() -> TensorSpec {
    TensorSpec::fixed(DType::Float32, [2])
}

fn metas(n: usize) -> Vec<TensorMeta> {
    vec![TensorMeta { dtype: DType::Float32, shape: vec![ShapeDim::Static(2)], dim_order: None }; n]
}

/// `%o0 = instr(%i0)`, tensors 0 and 1.
fn unary_program(instr: Instr) -> Program {
    Program {
        num_inputs: 1,
        num_outputs: 1,
        tensor_meta: metas(2),
        input_map: vec![MlxSlot::Tensor(Tid(0))],
        output_map: vec![MlxSlot::Tensor(Tid(1))],
        chains: vec![vec![instr]],
        ..Program::default()
    }
}

fn delegate(program: &Program, inputs: Vec<V>, outputs: Vec<DelegateOutput>) -> Delegate {
    Delegate { backend: BACKEND.into(), payload: encode(program).unwrap(), inputs, outputs, ..Delegate::default() }
}

fn negate(input: V) -> Delegate {
    delegate(&unary_program(Instr::Neg { x: Tid(0), out: Tid(1) }), vec![input], vec![DelegateOutput::Tensor(pair())])
}

fn result(delegate: usize) -> V {
    V::Result { delegate, output: 0 }
}

fn method(name: &str, inputs: Vec<Input>, delegates: Vec<Delegate>, outputs: Vec<V>) -> Plan {
    Plan { name: name.into(), inputs, delegates, outputs, ..Plan::default() }
}

fn package(methods: Vec<Plan>) -> Contents {
    emit(Package { methods, ..Package::default() }).unwrap()
}

fn x() -> Value {
    Value::Tensor(Tensor::from_slice(&[2], &[1.0f32, -2.0]).unwrap())
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_tensor().unwrap().values::<f32>().unwrap().into_owned()
}

#[test]
fn delegates_run_in_turn_and_outputs_may_be_anything() {
    let square = unary_program(Instr::Square { x: Tid(0), out: Tid(1) });
    let constant = TensorData::inline(DType::Float32, vec![2], [1.5f32, 2.5].map(f32::to_le_bytes).concat()).unwrap();
    let plan = Plan {
        constants: vec![constant],
        ..method(
            "forward",
            vec![Input::Tensor(pair())],
            vec![negate(V::Input(0)), delegate(&square, vec![result(0)], vec![DelegateOutput::Tensor(pair())]), negate(V::Constant(0))],
            vec![result(1), V::Input(0), V::Constant(0), V::Int(7), V::Float(0.5), V::Bool(true), V::None, result(0), result(2), result(1)],
        )
    };
    let (runtime, _file) = open(&package(vec![plan]));
    let mut method = runtime.load_method("forward").unwrap();
    assert_eq!(method.inputs(), [ValueSpec::Tensor { dtype: DType::Float32, shape: vec![2], dynamic: false }]);
    assert_eq!((method.outputs().len(), method.programs().count()), (10, 3));
    let out = method.execute(&[x()]).unwrap();
    assert_eq!(floats(&out[0]), [1.0, 4.0]);
    assert_eq!(floats(&out[1]), [1.0, -2.0]);
    assert_eq!(floats(&out[2]), [1.5, 2.5]);
    assert!(matches!(out[3..7], [Value::Int(7), Value::Float(0.5), Value::Bool(true), Value::None]));
    assert_eq!((floats(&out[7]), floats(&out[8]), floats(&out[9])), (vec![-1.0, 2.0], vec![-1.5, -2.5], vec![1.0, 4.0]));
}

#[test]
fn weights_are_read_where_they_are_in_the_file() {
    let program = Program {
        num_constants: 1,
        num_outputs: 1,
        tensor_meta: metas(2),
        output_map: vec![MlxSlot::Tensor(Tid(1))],
        named_slots: vec![NamedSlot { name: "ab12/w".into(), slot: MlxSlot::Tensor(Tid(0)) }],
        chains: vec![vec![Instr::IdCopy { x: Tid(0), out: Tid(1) }]],
        ..Program::default()
    };
    let plan = method("forward", vec![], vec![delegate(&program, vec![], vec![DelegateOutput::Tensor(pair())])], vec![result(0)]);
    let data = TensorData::inline(DType::Float32, vec![2], [3.0f32, 4.0].map(f32::to_le_bytes).concat()).unwrap();
    let named_data = vec![NamedBlob { key: "ab12/w".into(), data, alignment: 16 }];
    let (runtime, _file) = open(&emit(Package { methods: vec![plan], named_data, ..Package::default() }).unwrap());
    let out = runtime.load_method("forward").unwrap().execute(&[]).unwrap();
    assert_eq!(floats(&out[0]), [3.0, 4.0]);
    let address = out[0].as_tensor().unwrap().as_slice::<f32>().unwrap().unwrap().as_ptr().cast::<u8>();
    assert!(runtime.file().bytes().as_ptr_range().contains(&address));
    // The result keeps the file mapped.
    drop(runtime);
    assert_eq!(floats(&out[0]), [3.0, 4.0]);
}

#[test]
fn inputs_are_checked() {
    let dynamic = TensorSpec::up_to(DType::Float32, [2]);
    let inputs = vec![Input::Tensor(dynamic), Input::Int(3), Input::Null];
    let (runtime, _file) = open(&package(vec![method("forward", inputs, vec![], vec![V::Input(0)])]));
    let mut method = runtime.load_method("forward").unwrap();
    let tensor = |n: usize| Value::Tensor(Tensor::zeros(DType::Float32, &[n]).unwrap());
    let shape = |v: &[Value]| v[0].as_tensor().unwrap().shape().to_vec();
    assert_eq!(shape(&method.execute(&[tensor(1), Value::Int(3), Value::None]).unwrap()), [1]);
    let three = Value::Tensor(Tensor::scalar(3i64).unwrap());
    assert_eq!(shape(&method.execute(&[tensor(2), three, Value::Int(5)]).unwrap()), [2]);
    let mut fails = |inputs: &[Value]| {
        let error = method.execute(inputs).unwrap_err();
        let kind = if error.to_string().contains("f32[3]") { ErrorKind::Condition } else { ErrorKind::Argument };
        assert_eq!(error.kind(), kind);
        error.to_string()
    };
    let m = "method `forward`: ";
    assert_eq!(fails(&[tensor(1)]), format!("{m}1 inputs given, 3 are needed"));
    let more = fails(&[tensor(3), Value::Int(3), Value::None]);
    assert!(more.starts_with(&format!("{m}input 0: at most f32[2] is needed, found f32[3]\nhelp: ")), "{more}");
    let other = fails(&[tensor(2), Value::Int(4), Value::None]);
    assert_eq!(other, format!("{m}input 1: the method was exported for Some(Int(3)) only, found Int(4)"));
    assert!(fails(&[tensor(2), Value::Bool(true), Value::None]).contains("a int is needed, found a bool"));
    assert!(runtime.load_method("backward").err().unwrap().to_string().contains("forward"));
}

#[test]
fn integers_pass_through_delegates() {
    // The value is doubled: %v1 = %v0 + %v0.
    let program = Program {
        num_values: 2,
        input_map: vec![MlxSlot::Int(Vid(0))],
        output_map: vec![MlxSlot::Int(Vid(1))],
        chains: vec![vec![Instr::AddInt { a: Vid(0).into(), b: Vid(0).into(), out: Vid(1) }]],
        ..Program::default()
    };
    let plan =
        method("forward", vec![Input::Null], vec![delegate(&program, vec![V::Input(0)], vec![DelegateOutput::Int])], vec![result(0)]);
    let (runtime, _file) = open(&package(vec![plan]));
    let mut method = runtime.load_method("forward").unwrap();
    assert!(matches!(method.execute(&[Value::Int(21)]).unwrap()[..], [Value::Int(42)]));
    assert!(matches!(method.execute(&[Value::Tensor(Tensor::scalar(-4i32).unwrap())]).unwrap()[..], [Value::Int(-8)]));
    let error = method.execute(&[Value::Int(1 << 40)]).unwrap_err();
    assert_eq!(error.to_string(), "method `forward`: plan chain 0, instruction 0: delegate 0: input 0: 1099511627776 does not fit 32 bits");
}

#[test]
fn integers_go_from_one_delegate_to_the_next() {
    // As the reference divides a program: the length that the first one finds is an argument of the second.
    let size = Program {
        num_inputs: 1,
        num_values: 1,
        tensor_meta: vec![TensorMeta { dtype: DType::Float32, shape: vec![ShapeDim::Dynamic { min: 0, max: None }], dim_order: None }],
        input_map: vec![MlxSlot::Tensor(Tid(0))],
        output_map: vec![MlxSlot::Int(Vid(0))],
        chains: vec![vec![Instr::SymSize { a: Tid(0), dim: 0, out: Vid(0) }]],
        ..Program::default()
    };
    let fill = Program {
        num_outputs: 1,
        num_values: 1,
        tensor_meta: size.tensor_meta.clone(),
        input_map: vec![MlxSlot::Int(Vid(0))],
        output_map: vec![MlxSlot::Tensor(Tid(0))],
        chains: vec![vec![Instr::Full { out: Tid(0), shape: vec![Vid(0).into()], v: 1.5.into(), scalar_type: DType::Float32 }]],
        ..Program::default()
    };
    let up_to = TensorSpec::up_to(DType::Float32, [8]);
    let delegates = vec![
        delegate(&size, vec![V::Input(0)], vec![DelegateOutput::Int]),
        delegate(&fill, vec![result(0)], vec![DelegateOutput::Tensor(up_to.clone())]),
    ];
    let (runtime, _file) = open(&package(vec![method("forward", vec![Input::Tensor(up_to)], delegates, vec![result(1)])]));
    let mut forward = runtime.load_method("forward").unwrap();
    for n in [3usize, 1] {
        let x = Value::Tensor(Tensor::zeros(DType::Float32, &[n]).unwrap());
        assert_eq!(floats(&forward.execute(&[x]).unwrap()[0]), vec![1.5; n]);
    }
}

#[test]
fn chains_run_one_after_the_other() {
    let mut contents = portable(
        vec![planned(DType::Float32, &[2]), planned(DType::Float32, &[2])],
        &[("aten::neg", "out", &[0, 1, 1]), ("aten::abs", "out", &[1, 2, 2])],
        2,
    );
    let chain = &mut contents.plans[0].chains[0];
    let second = chain.instructions.pop().unwrap();
    contents.plans[0].chains.push(model::Chain { instructions: vec![second], ..model::Chain::default() });
    let (runtime, _file) = open(&contents);
    assert_eq!(floats(&runtime.load_method("forward").unwrap().execute(&[x()]).unwrap()[0]), [1.0, 2.0]);
}

#[test]
fn mutated_inputs_come_back_and_constant_methods_answer() {
    let plan = Plan {
        mutations: vec![Mutation { input: 0, value: result(0) }],
        ..method("forward", vec![Input::Tensor(pair())], vec![negate(V::Input(0))], vec![result(0)])
    };
    let answer = ConstantMethod { name: "answer".into(), value: Constant::Tuple(vec![Constant::Int(42), Constant::Str("why".into())]) };
    let contents = emit(Package { methods: vec![plan], constant_methods: vec![answer], ..Package::default() });
    let (runtime, _file) = open(&contents.unwrap());
    assert_eq!(runtime.methods().collect::<Vec<_>>(), ["forward", "answer"]);
    let out = runtime.load_method("forward").unwrap().execute(&[x()]).unwrap();
    assert_eq!((floats(&out[0]), floats(&out[1])), (vec![-1.0, 2.0], vec![-1.0, 2.0]));
    let answer = runtime.load_method("answer").unwrap().execute(&[]).unwrap();
    assert!(matches!(&answer[..], [Value::Int(42), Value::Str(why)] if why == "why"));
}

#[test]
fn jumps_and_moves() {
    // Value 0 is the input, 1 the result of the delegate: if the Bool that follows is false, skip the Move that makes
    // the input the result.
    let base = package(vec![method("forward", vec![Input::Tensor(pair())], vec![negate(V::Input(0))], vec![result(0)])]);
    let with = |instructions: Vec<Instruction>, operators: Vec<Operator>| {
        let mut contents = base.clone();
        let plan = &mut contents.plans[0];
        plan.values.push(EValue::Bool(false));
        plan.operators = operators;
        plan.chains[0].instructions.extend(instructions);
        open(&contents)
    };
    let jump =
        |cond_value_index, destination_instruction| Instruction::JumpFalseCall(JumpFalseCall { cond_value_index, destination_instruction });
    let flag = base.plans[0].values.len() as i32;
    let (input, output) = (base.plans[0].inputs[0], base.plans[0].outputs[0]);
    let back = Instruction::MoveCall(MoveCall { move_from: input, move_to: output });
    let run = |instructions| {
        let (runtime, _file) = with(instructions, vec![]);
        runtime.load_method("forward").unwrap().execute(&[x()]).map(|out| floats(&out[0]))
    };
    assert_eq!(run(vec![back.clone()]).unwrap(), [1.0, -2.0]);
    assert_eq!(run(vec![jump(flag, 3), back]).unwrap(), [-1.0, 2.0]);
    assert_eq!(run(vec![jump(flag, 1)]).unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn methods_have_state_of_their_own_and_reset() {
    let program = Program {
        num_inputs: 1,
        num_outputs: 1,
        num_mutable_buffers: 1,
        tensor_meta: metas(3),
        input_map: vec![MlxSlot::Tensor(Tid(0))],
        output_map: vec![MlxSlot::Tensor(Tid(1))],
        mutable_buffer_map: vec![MlxSlot::Tensor(Tid(2))],
        chains: vec![vec![Instr::Add { a: Tid(2), b: Tid(0), out: Tid(1) }, Instr::IdCopy { x: Tid(1), out: Tid(2) }]],
        ..Program::default()
    };
    let plan = method(
        "forward",
        vec![Input::Tensor(pair())],
        vec![delegate(&program, vec![V::Input(0)], vec![DelegateOutput::Tensor(pair())])],
        vec![result(0)],
    );
    let (runtime, _file) = open(&package(vec![plan]));
    let (mut one, mut other) = (runtime.load_method("forward").unwrap(), runtime.load_method("forward").unwrap());
    let first = one.execute(&[x()]).unwrap();
    assert_eq!(floats(&one.execute(&[x()]).unwrap()[0]), [2.0, -4.0]);
    assert_eq!(floats(&other.execute(&[x()]).unwrap()[0]), [1.0, -2.0]);
    // What was handed out stays as it was.
    assert_eq!(floats(&first[0]), [1.0, -2.0]);
    one.reset().unwrap();
    assert_eq!(floats(&one.execute(&[x()]).unwrap()[0]), [1.0, -2.0]);
}

/// A file whose method is `kernels` (name, overload, arguments) over its input, value 0, and `values`, from number 1 on.
fn portable(values: Vec<EValue>, kernels: &[(&str, &str, &[i32])], result: i32) -> Contents {
    let spec = Plan { name: "forward".into(), inputs: vec![Input::Tensor(pair())], outputs: vec![V::Input(0)], ..Plan::default() };
    let mut contents = package(vec![spec]);
    let plan = &mut contents.plans[0];
    plan.values.truncate(1);
    plan.values.extend(values);
    plan.outputs = vec![result];
    plan.non_const_buffer_sizes = vec![0, 64];
    plan.operators = kernels.iter().map(|(name, overload, _)| Operator { name: (*name).into(), overload: (*overload).into() }).collect();
    let call = |(i, (_, _, args)): (usize, &(&str, &str, &[i32]))| KernelCall { op_index: i as i32, args: args.to_vec() };
    plan.chains[0].instructions = kernels.iter().enumerate().map(call).map(Instruction::KernelCall).collect();
    contents
}

/// A tensor of the plan that something will be written to.
fn planned(dtype: DType, sizes: &[i32]) -> EValue {
    let base = package(vec![method("forward", vec![Input::Tensor(pair())], vec![negate(V::Input(0))], vec![result(0)])]);
    let Some(EValue::Tensor(tensor)) = base.plans[0].values.first().cloned() else { panic!("a tensor comes first") };
    let dim_order = (0..sizes.len() as u8).collect();
    EValue::Tensor(model::Tensor { scalar_type: dtype.et_code(), sizes: sizes.to_vec(), dim_order, ..tensor })
}

#[test]
fn kernels_write_given_tensors_in_their_type_and_work_in_place() {
    let values = vec![EValue::Int(2), planned(DType::Float32, &[2]), EValue::Bool(false), EValue::Null, planned(DType::Int32, &[2])];
    // 2 = x + 2·x, then 2 += 2·x, then as integers; the type that `_to_copy` casts to is that of the tensor it is given.
    let kernels: &[(&str, &str, &[i32])] =
        &[("aten::add", "out", &[0, 0, 1, 2, 2]), ("aten::add_", "Tensor", &[2, 0, 1, 2]), ("aten::_to_copy", "out", &[2, 3, 4, 5, 5])];
    let (runtime, _file) = open(&portable(values, kernels, 5));
    let mut forward = runtime.load_method("forward").unwrap();
    assert!(!forward.is_stateful(), "what is computed anew is no state");
    for _ in 0..2 {
        let Value::Tensor(out) = forward.execute(&[x()]).unwrap().remove(0) else { panic!("a tensor") };
        assert_eq!(out.values::<i32>().unwrap()[..], [5, -10]);
    }
}

#[test]
fn a_buffer_that_a_kernel_writes_to_keeps_it() {
    let (runtime, _file) =
        open(&portable(vec![EValue::Int(1), planned(DType::Float32, &[2])], &[("aten::add_", "Tensor", &[2, 0, 1, 2])], 2));
    let mut forward = runtime.load_method("forward").unwrap();
    assert!(forward.is_stateful());
    assert_eq!(floats(&forward.execute(&[x()]).unwrap()[0]), [1.0, -2.0]);
    assert_eq!(floats(&forward.execute(&[x()]).unwrap()[0]), [2.0, -4.0]);
    forward.reset().unwrap();
    assert_eq!(floats(&forward.execute(&[x()]).unwrap()[0]), [1.0, -2.0]);
}

#[test]
fn kernels_of_scalars_lists_and_views() {
    // 3 = the size of x, 4 = [1, 3], 5 = x seen as 1 × 2, 7 = [5, 5], 8 = those one above the other.
    let values = vec![
        EValue::Int(0),
        EValue::Int(1),
        EValue::Int(77),
        EValue::IntList(vec![2, 3]),
        planned(DType::Float32, &[1, 2]),
        EValue::Null,
        EValue::TensorList(vec![5, 5]),
        planned(DType::Float32, &[2, 2]),
    ];
    let kernels: &[(&str, &str, &[i32])] =
        &[("aten::sym_size", "int", &[0, 1, 3]), ("executorch_prim::et_view", "default", &[0, 4, 5]), ("aten::cat", "out", &[7, 1, 8, 8])];
    let (runtime, _file) = open(&portable(values, kernels, 8));
    let out = runtime.load_method("forward").unwrap().execute(&[x()]).unwrap();
    assert_eq!((out[0].as_tensor().unwrap().shape(), floats(&out[0])), (&[2, 2][..], vec![1.0, -2.0, 1.0, -2.0]));
}

#[test]
fn a_loop_appends_its_rounds() {
    let values = vec![EValue::Int(0), EValue::Int(1), planned(DType::Float32, &[2, 2]), EValue::Int(5)];
    let append = ("executorch_prim::et_copy_index", "tensor");
    let twice: &[(&str, &str, &[i32])] = &[(append.0, append.1, &[3, 0, 1]), (append.0, append.1, &[3, 0, 2])];
    let (runtime, _file) = open(&portable(values.clone(), twice, 3));
    let out = runtime.load_method("forward").unwrap().execute(&[x()]).unwrap();
    assert_eq!((out[0].as_tensor().unwrap().shape(), floats(&out[0])), (&[2, 2][..], vec![1.0, -2.0, 1.0, -2.0]));
    let (runtime, _file) = open(&portable(values, &[(append.0, append.1, &[3, 0, 4])], 3));
    assert_eq!(runtime.load_method("forward").unwrap().execute(&[x()]).unwrap_err().kind(), ErrorKind::Range);
}

#[test]
fn what_a_kernel_cannot_do_is_said() {
    let load = |kernels: &[(&str, &str, &[i32])]| {
        let values = vec![EValue::Int(1), planned(DType::Float32, &[2]), EValue::IntList(vec![1]), planned(DType::Float32, &[2])];
        open(&portable(values, kernels, 2)).0.load_method("forward")
    };
    let error =
        load(&[("my::own", "out", &[0, 2, 2]), ("aten::add", "out", &[0, 0, 1, 2, 2]), ("my::own", "out", &[0, 2, 2])]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().ends_with("not available here: portable kernel my::own.out"), "{error}");
    let few = load(&[("aten::add", "out", &[0])]).err().unwrap();
    assert!(few.to_string().contains("portable kernel aten::add.out"), "{few}");
    let view = ("executorch_prim::et_view", "default", &[0, 3, 4][..]);
    let aliased = load(&[view, ("aten::add_", "Tensor", &[0, 0, 1, 0]), ("aten::abs", "out", &[4, 2, 2])]).err().unwrap();
    assert!(aliased.to_string().contains("writes to value 0, of which value 4 is a view that is used later"), "{aliased}");
    assert!(load(&[view, ("aten::abs", "out", &[4, 2, 2]), ("aten::add_", "Tensor", &[0, 0, 1, 0])]).is_ok());
    // What the evaluator refuses names kernel and place.
    let mut forward = load(&[("aten::select_copy", "int_out", &[0, 1, 1, 2, 2])]).unwrap();
    let error = forward.execute(&[x()]).unwrap_err().to_string();
    assert!(error.contains("plan chain 0, instruction 0: aten.select_copy.int: "), "{error}");
}

#[test]
fn a_value_that_nothing_defines_is_a_view_of_what_is_at_its_place() {
    let at = |value: EValue, memory_offset_low: u32| match value {
        EValue::Tensor(t) => EValue::Tensor(model::Tensor {
            allocation_info: Some(model::AllocationDetails { memory_id: 1, memory_offset_low, memory_offset_high: 0 }),
            ..t
        }),
        other => other,
    };
    // 1 = |x| at 16, then x·x at 16 as value 3; value 2 is at 16 as well, a column.
    let values = vec![
        at(planned(DType::Float32, &[2]), 16),
        at(planned(DType::Float32, &[2, 1]), 16),
        at(planned(DType::Float32, &[2]), 16),
        at(planned(DType::Float32, &[2, 1]), 32),
    ];
    let kernels: &[(&str, &str, &[i32])] =
        &[("aten::abs", "out", &[0, 1, 1]), ("aten::neg", "out", &[2, 4, 4]), ("aten::mul", "out", &[0, 0, 3, 3])];
    for (result, expected) in [(4, [-1.0, -2.0]), (2, [1.0, 4.0])] {
        let (runtime, _file) = open(&portable(values.clone(), kernels, result));
        let out = runtime.load_method("forward").unwrap().execute(&[x()]).unwrap();
        assert_eq!((out[0].as_tensor().unwrap().shape(), floats(&out[0])), (&[2, 1][..], expected.to_vec()));
    }
}

/// `contents` with a constant of the plan, two rows of three, stored as columns: value number `values.len()`.
fn columns() -> Contents {
    let mut contents = portable(vec![planned(DType::Float32, &[2, 3])], &[("aten::neg", "out", &[2, 1, 1])], 1);
    let EValue::Tensor(plain) = planned(DType::Float32, &[2, 3]) else { panic!("a tensor") };
    let constant = model::Tensor { dim_order: vec![1, 0], allocation_info: None, data_buffer_idx: 1, ..plain };
    contents.plans[0].values.push(EValue::Tensor(constant));
    let bytes = [0.0f32, 3.0, 1.0, 4.0, 2.0, 5.0].map(f32::to_le_bytes).concat();
    contents.constants = vec![TensorData::inline(DType::Float32, vec![3, 2], bytes).unwrap()];
    contents
}

#[test]
fn constants_are_read_in_the_order_of_their_axes() {
    let (runtime, _file) = open(&columns());
    let out = runtime.load_method("forward").unwrap().execute(&[x()]).unwrap();
    assert_eq!(floats(&out[0]), [0.0, -1.0, -2.0, -3.0, -4.0, -5.0]);
}

#[test]
fn a_constant_in_another_file_is_refused() {
    let mut contents = columns();
    let Some(EValue::Tensor(constant)) = contents.plans[0].values.last_mut() else { panic!("a tensor") };
    constant.extra_tensor_info = Some(model::ExtraTensorInfo {
        fully_qualified_name: "layer.weight".into(),
        location: model::TensorDataLocation::External,
        ..model::ExtraTensorInfo::default()
    });
    let error = open(&contents).0.load_method("forward").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("value 2: a constant in a separate .ptd file"), "{error}");
}

#[test]
fn a_buffer_starts_with_what_the_file_says() {
    // Upstream copies it when the method is loaded; what is written stays until then.
    let mut contents = portable(vec![EValue::Int(1), planned(DType::Float32, &[2])], &[("aten::add_", "Tensor", &[2, 0, 1, 2])], 2);
    let Some(EValue::Tensor(buffer)) = contents.plans[0].values.get_mut(2) else { panic!("a tensor") };
    buffer.data_buffer_idx = 1;
    let bytes = [10.0f32, 20.0].map(f32::to_le_bytes).concat();
    contents.initial_state = vec![TensorData::inline(DType::Float32, vec![2], bytes).unwrap()];
    let (runtime, _file) = open(&contents);
    let mut forward = runtime.load_method("forward").unwrap();
    let mut run = |reset: bool| {
        if reset {
            forward.reset().unwrap();
        }
        floats(&forward.execute(&[x()]).unwrap()[0])
    };
    assert_eq!((run(false), run(false), run(true)), (vec![11.0, 18.0], vec![12.0, 16.0], vec![11.0, 18.0]));
}

#[test]
fn nothing_in_a_list_is_minus_one_or_the_number_of_a_null() {
    let values = vec![EValue::Null, planned(DType::Int64, &[2]), EValue::Null, planned(DType::Float32, &[2, 2])];
    for none in [-1, 1] {
        let mut values = values.clone();
        values.extend([
            EValue::OptionalTensorList(vec![none, 2]),
            EValue::Int(0),
            planned(DType::Float32, &[2, 2]),
            planned(DType::Float32, &[1, 2]),
        ]);
        let kernels: &[(&str, &str, &[i32])] =
            &[("aten::unsqueeze_copy", "out", &[0, 6, 8, 8]), ("aten::index", "Tensor_out", &[8, 5, 4, 4])];
        let mut contents = portable(values, kernels, 4);
        let Some(EValue::Tensor(positions)) = contents.plans[0].values.get_mut(2) else { panic!("a tensor") };
        (positions.allocation_info, positions.data_buffer_idx) = (None, 1);
        let bytes = [1i64, 0].map(i64::to_le_bytes).concat();
        contents.constants = vec![TensorData::inline(DType::Int64, vec![2], bytes).unwrap()];
        let (runtime, _file) = open(&contents);
        let out = runtime.load_method("forward").unwrap().execute(&[x()]).unwrap();
        assert_eq!((out[0].as_tensor().unwrap().shape(), floats(&out[0])), (&[1, 2][..], vec![-2.0, 1.0]));
    }
}

#[test]
fn weights_must_be_as_long_as_declared_and_be_there() {
    let program = Program {
        num_constants: 1,
        num_outputs: 1,
        tensor_meta: metas(2),
        output_map: vec![MlxSlot::Tensor(Tid(1))],
        named_slots: vec![NamedSlot { name: "w".into(), slot: MlxSlot::Tensor(Tid(0)) }],
        chains: vec![vec![Instr::IdCopy { x: Tid(0), out: Tid(1) }]],
        ..Program::default()
    };
    let load = |key: &str, bytes: usize| {
        let plan = method("forward", vec![], vec![delegate(&program, vec![], vec![DelegateOutput::Tensor(pair())])], vec![result(0)]);
        let data = TensorData::inline(DType::UInt8, vec![bytes as u64], vec![0; bytes]).unwrap();
        let named_data = vec![NamedBlob { key: key.into(), data, alignment: 16 }];
        let (runtime, _file) = open(&emit(Package { methods: vec![plan], named_data, ..Package::default() }).unwrap());
        runtime.load_method("forward").map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(load("w", 8), Ok(()));
    for (key, bytes, says) in [("w", 7, "constant `w`"), ("w", 9, "constant `w`"), ("v", 8, "the file has no data of that name")] {
        let error = load(key, bytes).unwrap_err();
        assert!(error.contains("method `forward`: delegate 0") && error.contains(says), "{error}");
    }
}
