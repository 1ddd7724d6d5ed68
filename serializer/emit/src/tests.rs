//! Numbering, wiring and placing, against what the reference does and against nonsense.

use super::*;
use etx_serializer::pte::{PteFile, write};

fn fixed(sizes: &[u64]) -> TensorSpec {
    TensorSpec::fixed(DType::Float32, sizes)
}

fn delegate(inputs: Vec<Value>, outputs: Vec<DelegateOutput>) -> Delegate {
    Delegate { backend: "MLXBackend".into(), payload: vec![1; 32], inputs, outputs, ..Delegate::default() }
}

fn result(delegate: usize, output: usize) -> Value {
    Value::Result { delegate, output }
}

/// `forward(x: f32[2]) = x * w`: the worked example of the format's fact sheet.
fn example() -> Method {
    Method {
        name: "forward".into(),
        inputs: vec![Input::Tensor(fixed(&[2]))],
        delegates: vec![delegate(vec![Value::Input(0)], vec![DelegateOutput::Tensor(fixed(&[2]))])],
        outputs: vec![result(0, 0)],
        ..Method::default()
    }
}

fn emit_one(method: Method) -> Result<(ExecutionPlan, Contents)> {
    let contents = emit(Package { methods: vec![method], ..Package::default() })?;
    Ok((contents.plans[0].clone(), contents))
}

fn calls(plan: &ExecutionPlan) -> Vec<&[i32]> {
    fn args(i: &Instruction) -> &[i32] {
        match i {
            Instruction::DelegateCall(c) => &c.args,
            Instruction::KernelCall(c) => &c.args,
            other => panic!("{other:?}"),
        }
    }
    plan.chains[0].instructions.iter().map(args).collect()
}

fn places(plan: &ExecutionPlan) -> Vec<Option<u64>> {
    let place = |v: &EValue| match v {
        EValue::Tensor(t) => Some(t.allocation_info.as_ref().map(AllocationDetails::offset)),
        _ => None,
    };
    plan.values.iter().filter_map(place).collect()
}

#[test]
fn the_worked_example_of_the_format() {
    let (plan, _) = emit_one(example()).unwrap();
    assert_eq!((&plan.inputs[..], &plan.outputs[..]), (&[0][..], &[1][..]));
    assert_eq!(calls(&plan), [[0, 1]]);
    assert_eq!(places(&plan), [Some(16), Some(0)]);
    assert_eq!(plan.non_const_buffer_sizes, [0, 32]);
    assert_eq!(plan.chains.len(), 1);
    assert!(plan.operators.is_empty());
}

#[test]
fn outputs_may_be_anything_and_repeat() {
    let constant = TensorData::inline(DType::Int64, vec![1], 7i64.to_le_bytes().to_vec()).unwrap();
    let method = Method {
        inputs: vec![Input::Tensor(fixed(&[4])), Input::Int(3), Input::Null, Input::Bool(true), Input::Float(0.5)],
        constants: vec![constant],
        delegates: vec![
            delegate(vec![Value::Input(0)], vec![DelegateOutput::Int, DelegateOutput::Tensor(TensorSpec::up_to(DType::Float32, [4]))]),
            delegate(vec![result(0, 0), Value::Int(9), result(0, 1), Value::Constant(0)], vec![DelegateOutput::Tensor(fixed(&[]))]),
        ],
        outputs: vec![
            result(1, 0),
            result(1, 0),
            Value::Input(0),
            Value::Constant(0),
            result(0, 0),
            Value::Int(2),
            Value::Float(1.5),
            Value::Bool(true),
            Value::None,
        ],
        ..example()
    };
    let (plan, contents) = emit_one(method).unwrap();
    // 0 constant, 1..=5 inputs, 6 and 7 results of the first, 8 result of the second, 9 its literal, then literal outputs.
    assert_eq!(plan.inputs, [1, 2, 3, 4, 5]);
    assert_eq!(calls(&plan), [&[1, 6, 7][..], &[6, 9, 7, 0, 8]]);
    assert_eq!(plan.outputs, [8, 8, 1, 0, 6, 10, 11, 12, 13]);
    assert_eq!(plan.values[9..], [EValue::Int(9), EValue::Int(2), EValue::Double(1.5), EValue::Bool(true), EValue::Null]);
    let EValue::Tensor(dynamic) = &plan.values[7] else { panic!() };
    assert_eq!((dynamic.shape_dynamism, &dynamic.sizes[..]), (TensorShapeDynamism::DynamicBound, &[4][..]));
    assert_eq!(places(&plan)[0], None);
    assert_eq!(contents.payloads.len(), 2);
    write_and_open(contents);
}

#[test]
fn memory_is_reused_after_the_last_use() {
    let step = |from| delegate(vec![from], vec![DelegateOutput::Tensor(fixed(&[64]))]);
    let method = Method {
        inputs: vec![Input::Tensor(fixed(&[64]))],
        delegates: vec![step(Value::Input(0)), step(result(0, 0)), step(result(1, 0))],
        outputs: vec![result(2, 0)],
        ..example()
    };
    let (plan, _) = emit_one(method.clone()).unwrap();
    assert_eq!(plan.non_const_buffer_sizes, [0, 512]);
    // An input that is returned lives to the end.
    let (plan, _) = emit_one(Method { outputs: vec![result(2, 0), Value::Input(0)], ..method }).unwrap();
    assert_eq!(plan.non_const_buffer_sizes, [0, 768]);
}

#[test]
fn changed_inputs_are_copied_back_and_returned_first() {
    let method = Method {
        delegates: vec![delegate(vec![Value::Input(0)], vec![DelegateOutput::Tensor(fixed(&[2])), DelegateOutput::Tensor(fixed(&[2]))])],
        mutations: vec![Mutation { input: 0, value: result(0, 1) }],
        ..example()
    };
    let (plan, contents) = emit_one(method.clone()).unwrap();
    assert_eq!(plan.operators, [Operator { name: "aten::copy_".into(), overload: String::new() }]);
    assert_eq!(calls(&plan), [[0, 1, 2].as_slice(), &[0, 2, 3, 0]]);
    assert_eq!(plan.values[3], EValue::Bool(false));
    assert_eq!(plan.outputs, [0, 1]);
    write_and_open(contents);
    let other = vec![delegate(vec![Value::Input(0)], vec![DelegateOutput::Tensor(fixed(&[2])), DelegateOutput::Tensor(fixed(&[3]))])];
    let e = emit_one(Method { delegates: other, ..method }).unwrap_err();
    assert_eq!((e.kind(), e.context()), (ErrorKind::Invalid, &["mutation 0".to_owned(), "method `forward`".to_owned()][..]));
}

#[test]
fn wrong_wiring_says_where() {
    let wrong = |change: fn(&mut Method)| {
        let mut method = example();
        change(&mut method);
        let e = emit_one(method).unwrap_err();
        (e.kind(), e.to_string())
    };
    let out = ErrorKind::OutOfRange;
    assert_eq!(wrong(|m| m.outputs[0] = Value::Input(1)), (out, "method `forward`: output 0: input 1 of 1".into()));
    assert_eq!(wrong(|m| m.outputs[0] = Value::Constant(0)), (out, "method `forward`: output 0: constant 0 of 0".into()));
    assert_eq!(wrong(|m| m.outputs[0] = result(0, 1)), (out, "method `forward`: output 0: delegate 0 output 1 of 1".into()));
    let early = wrong(|m| m.delegates[0].inputs[0] = result(0, 0));
    assert_eq!(early, (out, "method `forward`: delegate 0: input 0: the result of delegate 0, of which 0 have run by then".into()));
    let (kind, text) = wrong(|m| m.inputs[0] = Input::Tensor(fixed(&[1 << 31])));
    assert!(kind == ErrorKind::Limit && text.contains("input 0"), "{text}");
    let (kind, _) = wrong(|m| m.inputs[0] = Input::Tensor(fixed(&[1 << 30, 1 << 30, 2])));
    assert_eq!(kind, ErrorKind::Limit);
}

#[test]
fn constant_methods_flatten_their_containers() {
    let list = Constant::List(vec![Constant::Int(1), Constant::Tuple(vec![Constant::Str("a".into()), Constant::None])]);
    let tensor = Constant::Tensor(TensorData::inline(DType::Float32, vec![2], vec![0; 8]).unwrap());
    let constant_methods = vec![
        ConstantMethod { name: "get_max_seq_len".into(), value: Constant::Int(128) },
        ConstantMethod { name: "z".into(), value: list },
        ConstantMethod { name: "a".into(), value: Constant::List(vec![Constant::Bool(true), Constant::Float(0.5), tensor]) },
    ];
    let methods = vec![Method { name: "step".into(), ..example() }, example()];
    let contents = emit(Package { methods, constant_methods, ..Package::default() }).unwrap();
    let file = write_and_open(contents);
    let names: Vec<&str> = file.methods().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["forward", "step", "get_max_seq_len", "z", "a"]);
    let one = file.method("get_max_seq_len").unwrap();
    assert_eq!((&one.values[..], &one.outputs[..]), (&[EValue::Int(128)][..], &[0][..]));
    assert_eq!((&one.non_const_buffer_sizes[..], one.chains.len(), one.inputs.len()), (&[0][..], 1, 0));
    let strings = one.container_meta_type.as_ref().unwrap();
    assert_eq!(strings.encoded_inp_str, "");
    assert_eq!(strings.encoded_out_str, r#"[1, {"type": null, "context": null, "children_spec": []}]"#);
    let nested = file.method("z").unwrap();
    assert_eq!(nested.values, [EValue::Int(1), EValue::String("a".into()), EValue::Null]);
    assert_eq!(
        nested.container_meta_type.as_ref().unwrap().encoded_out_str,
        concat!(
            r#"[1, {"type": "builtins.list", "context": "null", "children_spec": [{"type": null, "context": null, "children_spec": []}, "#,
            r#"{"type": "builtins.tuple", "context": "null", "children_spec": [{"type": null, "context": null, "children_spec": []}, "#,
            r#"{"type": null, "context": null, "children_spec": []}]}]}]"#
        )
    );
    let EValue::Tensor(t) = &file.method("a").unwrap().values[2] else { panic!() };
    assert_eq!(file.constant(t).unwrap().bytes(), [0; 8]);
}

fn write_and_open(contents: Contents) -> PteFile {
    let name = format!("etx-emit-{}-{:?}.pte", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    write(&contents, &path).unwrap();
    let file = PteFile::parse(std::fs::read(&path).unwrap()).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}
