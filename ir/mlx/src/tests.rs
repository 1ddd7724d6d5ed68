//! The table against what depends on it, the verifier rule by rule, the text form.

use std::collections::BTreeSet;

use super::verify::{MAX_CALL_DEPTH, MAX_ITEMS};
use super::*;
use etx_ir::DType;

/// A field value of the right kind: tensors 10, 11, values 20, 21, small numbers.
fn sample(spec: &FieldSpec) -> FieldValue<'static> {
    match spec.kind {
        FieldKind::I32 => FieldValue::Scalar(Scalar::I32(1)),
        FieldKind::U32 => FieldValue::Scalar(Scalar::U32(1)),
        FieldKind::U64 => FieldValue::Scalar(Scalar::U64(1)),
        FieldKind::F32 => FieldValue::Scalar(Scalar::F32(0.5)),
        FieldKind::Bool => FieldValue::Scalar(Scalar::Bool(true)),
        FieldKind::DType => FieldValue::Scalar(Scalar::DType(DType::Bool)),
        FieldKind::Str => FieldValue::Str("s".into()),
        FieldKind::Tid => FieldValue::Tid(Tid(10)),
        FieldKind::Vid => FieldValue::Vid(Vid(20)),
        FieldKind::IntOrVid => FieldValue::IntOrVid(IntOrVid::Vid(Vid(20))),
        FieldKind::FloatOrVid => FieldValue::FloatOrVid(FloatOrVid::Vid(Vid(20))),
        FieldKind::VidOrTid => FieldValue::VidOrTid(VidOrTid::Tid(Tid(10))),
        FieldKind::IntOrVidOrTid => FieldValue::IntOrVidOrTid(IntOrVidOrTid::Vid(Vid(20))),
        FieldKind::Tids => FieldValue::Tids(vec![Tid(10), Tid(11)].into()),
        FieldKind::IntOrVids => FieldValue::IntOrVids(vec![IntOrVid::Int(2), IntOrVid::Vid(Vid(21))].into()),
        FieldKind::I32s => FieldValue::I32s(vec![1].into()),
        FieldKind::I8s => FieldValue::I8s(vec![1].into()),
        FieldKind::DTypes => FieldValue::DTypes(vec![DType::Bool].into()),
        FieldKind::Strs => FieldValue::Strs(vec!["s".into()].into()),
    }
}

fn instances() -> impl Iterator<Item = (&'static InstrSpec, Instr)> {
    INSTRUCTIONS.iter().map(|spec| {
        let instr = Instr::from_fields(spec.id, |field| Ok::<_, FieldError>(Some(sample(field))));
        (spec, instr.unwrap())
    })
}

fn slots(instr: &Instr) -> Vec<(SlotRef, Access)> {
    let mut slots = Vec::new();
    instr.visit_slots(|slot, access| slots.push((slot, access)));
    slots
}

#[test]
fn the_table_numbers_and_names() {
    assert_eq!(InstrSpec::from_name("Flip").map(|spec| spec.id), Some(136), "ids never change");
    let names: BTreeSet<_> = INSTRUCTIONS.iter().map(|spec| spec.name).collect();
    assert_eq!(names.len(), INSTRUCTIONS.len());
    for (id, spec) in (1..).zip(INSTRUCTIONS) {
        assert_eq!((spec.id, spec.wire_name), (id, &*format!("{}Node", spec.name)));
        assert!(spec.fields.iter().map(|field| field.id).eq(0..spec.fields.len() as u16));
        assert!(!spec.doc.is_empty() && !spec.doc.starts_with(' '), "{}", spec.name);
        assert_eq!(InstrSpec::from_id(id).unwrap().name, spec.name);
        assert_eq!(InstrSpec::from_name(spec.name).unwrap().id, id);
    }
    assert!(InstrSpec::from_id(0).is_none() && InstrSpec::from_id(u8::MAX).is_none() && InstrSpec::from_name("AddmmNode").is_none());

    let addmm = InstrSpec::from_name("Addmm").unwrap();
    assert_eq!(addmm.id, 3);
    let fields: Vec<_> = addmm.fields.iter().map(|field| (field.name, field.presence)).collect();
    let one = Presence::Default(Scalar::F32(1.0));
    assert_eq!(fields[2..], [("out", Presence::Required), ("bias", Presence::Optional), ("alpha", one), ("beta", one)]);
    assert_eq!(addmm.fields[2].access, Access::Write);
}

#[test]
fn fields_make_the_instruction_they_came_from() {
    for (spec, instr) in instances() {
        assert_eq!((instr.id(), instr.name()), (spec.id, spec.name));
        let mut fields = instr.fields();
        let again = Instr::from_fields(spec.id, |field| {
            let (spec, value) = fields.next().unwrap();
            assert_eq!(spec.name, field.name);
            Ok::<_, FieldError>(value)
        });
        assert_eq!(again.unwrap(), instr);
    }
}

#[test]
fn absent_and_wrong_fields_are_refused() {
    let absent = |name: &'static str| move |field: &'static FieldSpec| Ok::<_, FieldError>((field.name != name).then(|| sample(field)));
    assert!(matches!(Instr::from_fields(2, absent("x")), Err(FieldError::Missing(field)) if field.name == "x"));
    assert!(matches!(Instr::from_fields(3, absent("bias")), Ok(Instr::Addmm { bias: None, .. })));
    assert!(matches!(Instr::from_fields(3, absent("beta")), Ok(Instr::Addmm { beta: 1.0, .. })));
    let wrong = Instr::from_fields(2, |_| Ok::<_, FieldError>(Some(FieldValue::Vid(Vid(0)))));
    assert!(matches!(wrong, Err(FieldError::WrongKind(field)) if field.name == "x"));
    for id in [0, INSTRUCTIONS.len() as u8 + 1, u8::MAX] {
        assert!(matches!(Instr::from_fields(id, absent("x")), Err(FieldError::UnknownInstruction(i)) if i == id));
    }
}

#[test]
fn slots_are_visited_and_renamed() {
    for (spec, mut instr) in instances() {
        let before = slots(&instr);
        let writes = before.iter().any(|(_, access)| *access == Access::Write);
        assert_eq!(writes, !matches!(instr, Instr::Noop {} | Instr::If { .. }), "{}", spec.name);
        instr.map_slots(|Tid(t)| Tid(t + 100), |Vid(v)| Vid(v + 200));
        let renamed = before.into_iter().map(|(slot, access)| match slot {
            SlotRef::Tensor(Tid(t)) => (SlotRef::Tensor(Tid(t + 100)), access),
            SlotRef::Value(Vid(v)) => (SlotRef::Value(Vid(v + 200)), access),
        });
        assert_eq!(slots(&instr), renamed.collect::<Vec<_>>(), "{}", spec.name);
    }

    let t = |t| SlotRef::Tensor(Tid(t));
    let update = Instr::SliceUpdate {
        dst: Tid(1),
        update: Tid(2),
        out: Tid(1),
        axis: 0.into(),
        start: Vid(3).into(),
        stop: i64::MAX.into(),
        step: 1,
    };
    let expected = [(t(1), Access::Read), (t(2), Access::Read), (t(1), Access::Write), (SlotRef::Value(Vid(3)), Access::Read)];
    assert_eq!(slots(&update), expected);
    let scan = Instr::Scan {
        originals: vec![Tid(1)],
        sliced: vec![Tid(2)],
        outputs: vec![Tid(3)],
        carry: vec![Tid(4)],
        body_chain_idx: 1,
        scan_axis: 0,
    };
    let expected = [(t(1), Access::Read), (t(2), Access::Write), (t(3), Access::Write), (t(4), Access::Read)];
    assert_eq!(slots(&scan), expected);
}

fn meta(dtype: DType, sizes: &[u32]) -> TensorMeta {
    TensorMeta {
        dtype,
        shape: sizes.iter().map(|&size| ShapeDim::Static(size)).collect(),
        dim_order: Some((0..sizes.len() as u8).collect()),
    }
}

/// Tensors: 0 `%c0`, 1 `%i0`, 2 `%o0`, 3 `%m0`, 4 to 7 `%t0` to `%t3`. Chains: 0 main, 1 and 2 branches, 3 body, 4 init.
fn program() -> Program {
    let neg = |x, out| Instr::Neg { x: Tid(x), out: Tid(out) };
    Program {
        num_constants: 1,
        num_inputs: 1,
        num_outputs: 1,
        num_mutable_buffers: 1,
        num_temps: 4,
        num_values: 2,
        chains: vec![
            vec![
                Instr::SymSize { a: Tid(1), dim: -1, out: Vid(1) },
                Instr::If { cond: Vid(1).into(), then_chain_idx: 1, else_chain_idx: 2 },
                Instr::Scan {
                    originals: vec![Tid(4)],
                    sliced: vec![Tid(6)],
                    outputs: vec![Tid(7)],
                    carry: vec![Tid(3)],
                    body_chain_idx: 3,
                    scan_axis: 1,
                },
                Instr::Addmm { mat1: Tid(7), mat2: Tid(0), out: Tid(2), bias: None, alpha: 1.0, beta: 0.5 },
                Instr::IdCopy { x: Tid(2), out: Tid(3) },
            ],
            vec![neg(1, 4)],
            vec![neg(1, 5), neg(5, 4)],
            vec![neg(6, 7)],
            vec![neg(0, 0)],
        ],
        main_chain: 0,
        init_chain: Some(4),
        input_map: vec![Slot::Tensor(Tid(1)), Slot::Int(Vid(0))],
        output_map: vec![Slot::Tensor(Tid(2)), Slot::Int(Vid(1))],
        mutable_buffer_map: vec![Slot::Tensor(Tid(3))],
        named_slots: vec![NamedSlot { name: "ab12/w".into(), slot: Slot::Tensor(Tid(0)) }],
        tensor_meta: vec![
            meta(DType::Float32, &[2, 3]),
            TensorMeta {
                dtype: DType::Float32,
                shape: vec![ShapeDim::Dynamic { min: 2, max: Some(8) }, ShapeDim::Dynamic { min: 0, max: None }],
                dim_order: Some(vec![1, 0]),
            },
            meta(DType::BFloat16, &[]),
            meta(DType::Int64, &[4]),
        ],
    }
}

#[test]
fn spaces() {
    let p = program();
    let places: Vec<_> = (0..9).map(|t| p.space_of(Tid(t))).collect();
    let expected = [
        Some((Space::Constant, 0)),
        Some((Space::Input, 0)),
        Some((Space::Output, 0)),
        Some((Space::MutableBuffer, 0)),
        Some((Space::Temp, 0)),
        Some((Space::Temp, 1)),
        Some((Space::Temp, 2)),
        Some((Space::Temp, 3)),
        None,
    ];
    assert_eq!(places, expected);
    for (t, place) in (0..).map(Tid).zip(expected) {
        assert_eq!(place.and_then(|(space, index)| p.tensor_in(space, index)), place.map(|_| t));
    }
    assert_eq!(p.tensor_in(Space::Input, 1), None);
    let huge = Program { num_constants: u32::MAX, num_inputs: 2, ..Program::default() };
    assert_eq!((huge.tensor_in(Space::Input, 1), huge.num_tensors()), (None, u64::from(u32::MAX) + 2));
}

#[test]
fn the_text_form() {
    let text = r#"mlx program: 4 temps, 2 values
  %c0: f32[2, 3] "ab12/w"
  %i0: f32[2..=8, 0..] dim_order [1, 0]
  %o0: bf16[]
  %m0: i64[4]
inputs (%i0, %v0: int)
outputs (%o0, %v1: int)
buffers (%m0)
chain 0 (main):
  %v1 = SymSize(a=%i0, dim=-1)
  If(cond=%v1, then_chain_idx=1, else_chain_idx=2)
  %t2, %t3 = Scan(originals=[%t0], sliced=[%t2], outputs=[%t3], carry=[%m0], body_chain_idx=3)
  %o0 = Addmm(mat1=%t3, mat2=%c0, beta=0.5)
  %m0 = IdCopy(x=%o0)
chain 1:
  %t0 = Neg(x=%i0)
chain 2:
  %t1 = Neg(x=%i0)
  %t0 = Neg(x=%t1)
chain 3:
  %t3 = Neg(x=%t2)
chain 4 (init):
  %c0 = Neg(x=%c0)
"#;
    assert_eq!(program().to_string(), text);
    let lost = Instr::Full { out: Tid(99), shape: vec![2.into()], v: 1.5.into(), scalar_type: DType::Float16 };
    assert_eq!(program().show(&lost).to_string(), "%?99 = Full(shape=[2], v=1.5, scalar_type=f16)");
}

/// What the verifier says after `change`: kinds and places.
fn found(change: impl FnOnce(&mut Program)) -> Vec<(ProblemKind, Option<u32>, Option<u32>)> {
    let mut p = program();
    change(&mut p);
    let problems = p.verify().err().unwrap_or_default();
    assert!(problems.iter().all(|problem| !problem.to_string().is_empty()));
    problems.iter().map(|problem| (problem.kind, problem.chain, problem.instr)).collect()
}

#[test]
fn a_right_program_passes() {
    assert_eq!(program().verify(), Ok(()));
    assert_eq!(Program { chains: vec![vec![]], ..Program::default() }.verify(), Ok(()));
}

#[test]
fn every_rule_is_enforced() {
    use ProblemKind::{Chain, Limit, Map, Meta, Name, Range, Unwritten, Write};
    let at = |kind, chain, instr| vec![(kind, Some(chain), Some(instr))];
    let whole = |kind| vec![(kind, None, None)];

    assert_eq!(found(|p| p.num_temps = MAX_ITEMS as u32), whole(Limit));
    assert_eq!(found(|p| p.chains[1] = vec![Instr::Noop {}; MAX_ITEMS as usize + 1]), [(Limit, Some(1), None)]);
    assert_eq!(found(|p| p.tensor_meta[0] = meta(DType::Bool, &[1; 17])), whole(Limit));

    assert_eq!(found(|p| p.chains[1].push(Instr::Neg { x: Tid(8), out: Tid(4) })), at(Range, 1, 1));
    assert_eq!(found(|p| p.chains[3].push(Instr::SymSize { a: Tid(1), dim: 0, out: Vid(2) })), at(Range, 3, 1));
    assert_eq!(found(|p| p.input_map[1] = Slot::Int(Vid(2))), whole(Range));
    assert_eq!(found(|p| p.named_slots.push(NamedSlot { name: "n".into(), slot: Slot::Bool(Vid(2)) })), whole(Range));
    let call = |chain| Instr::If { cond: 1.into(), then_chain_idx: chain, else_chain_idx: chain };
    assert_eq!(found(|p| p.chains[1].push(call(5))), [at(Range, 1, 1), at(Range, 1, 1)].concat());

    assert_eq!(found(|p| p.main_chain = 5), whole(Chain));
    assert_eq!(found(|p| p.init_chain = Some(0)), whole(Chain));
    assert_eq!(found(|p| p.chains[2].push(call(0))), whole(Chain));
    assert_eq!(found(|p| p.chains[2].push(call(2))), whole(Chain));

    assert_eq!(found(|p| p.input_map.push(Slot::Tensor(Tid(1)))), whole(Map));
    assert_eq!(found(|p| p.input_map.push(Slot::Tensor(Tid(2)))), whole(Map));
    assert_eq!(found(|p| _ = p.output_map.remove(0)), whole(Map));
    assert_eq!(found(|p| p.mutable_buffer_map.push(Slot::Int(Vid(0)))), whole(Map));
    assert_eq!(found(|p| p.output_map.push(Slot::Float(Vid(0)))), whole(Map));

    assert_eq!(found(|p| p.named_slots.clear()), whole(Name));
    assert_eq!(found(|p| p.named_slots.push(p.named_slots[0].clone())), whole(Name));

    assert_eq!(found(|p| p.tensor_meta.push(meta(DType::Bool, &[]))), whole(Meta));
    assert_eq!(found(|p| p.tensor_meta[0].shape[0] = ShapeDim::Dynamic { min: 1, max: None }), whole(Meta));
    assert_eq!(found(|p| p.tensor_meta[1].shape[0] = ShapeDim::Dynamic { min: 3, max: Some(2) }), whole(Meta));
    assert_eq!(found(|p| p.tensor_meta[1].shape[0] = ShapeDim::Static(u32::MAX)), whole(Meta));
    assert_eq!(found(|p| p.tensor_meta[0].dim_order = Some(vec![0, 0])), whole(Meta));
    assert_eq!(found(|p| p.tensor_meta[0].dim_order = Some(vec![0])), whole(Meta));
    assert_eq!(found(|p| p.tensor_meta[3] = meta(DType::Int64, &[0])), whole(Meta));
    assert_eq!(found(|p| p.tensor_meta[3] = meta(DType::Int64, &[i32::MAX as u32; 16])), whole(Meta));

    assert_eq!(found(|p| p.tensor_meta[0].dtype = DType::Float64), whole(ProblemKind::DType));
    let cast = Instr::AsType { x: Tid(1), out: Tid(4), scalar_type: DType::Float64 };
    assert_eq!(found(|p| p.chains[0].push(cast)), at(ProblemKind::DType, 0, 5));

    assert_eq!(found(|p| p.chains[1].push(Instr::Neg { x: Tid(4), out: Tid(1) })), at(Write, 1, 1));
    assert_eq!(found(|p| p.chains[1].push(Instr::Neg { x: Tid(4), out: Tid(0) })), at(Write, 1, 1));

    assert_eq!(found(|p| drop(p.chains[0].remove(3))), at(Unwritten, 0, 3));
    assert_eq!(found(|p| p.chains[0].truncate(3)), [(Unwritten, Some(0), None)]);
    assert_eq!(found(|p| drop(p.chains[0].remove(0))), at(Unwritten, 0, 0));
    assert_eq!(found(|p| p.chains[3].clear()), at(Unwritten, 0, 2));
    assert_eq!(found(|p| p.chains[4].push(Instr::Neg { x: Tid(1), out: Tid(4) })), at(Unwritten, 4, 1));
}

#[test]
fn operands_of_single_instructions() {
    let cases = [
        Instr::Split { x: Tid(1), outs: vec![Tid(4)], sizes: vec![], axis: 0 },
        Instr::Split { x: Tid(1), outs: vec![Tid(4)], sizes: vec![1.into(), 2.into()], axis: 0 },
        Instr::Pad { x: Tid(1), out: Tid(4), pad_width: vec![1.into()], mode: "edge".into(), constant_value: 0.0 },
        Instr::Pad { x: Tid(1), out: Tid(4), pad_width: vec![], mode: "wrap".into(), constant_value: 0.0 },
        Instr::AsStrided { x: Tid(1), out: Tid(4), shape: vec![1.into()], strides: vec![], offset: 0 },
        Instr::Gather { x: Tid(1), indices: vec![Tid(1)], out: Tid(4), axes: vec![], slice_sizes: vec![] },
        Instr::Roll { x: Tid(1), out: Tid(4), shift: vec![], axes: vec![0] },
        Instr::Stack { tensors: vec![], out: Tid(4), axis: 0 },
        Instr::Slice { x: Tid(1), out: Tid(4), axis: 0.into(), start: 0.into(), stop: 1.into(), step: 0 },
        Instr::RandomBits { out: Tid(4), shape: vec![], seed: None, width: 3 },
    ];
    for instr in cases {
        let name = instr.name();
        let problems = found(|p| p.chains[0].push(instr));
        assert_eq!(problems, [(ProblemKind::Operands, Some(0), Some(5))], "{name}");
    }
    let (spec, kernel) = instances().find(|(spec, _)| spec.name == "MetalKernel").unwrap();
    let mut problems = Vec::new();
    super::verify_instr::check(&kernel, |kind, message| problems.push((kind, message)));
    // The sample has lists of one and two elements where three are wanted, or as many as there are outputs.
    assert_eq!(spec.fields.len(), 18);
    assert_eq!(problems.len(), 7, "{problems:?}");
}

#[test]
fn branches_do_not_see_each_other() {
    // `%t1` is written by the else branch: after the If it may be there, in the then branch it is not.
    assert_eq!(found(|p| p.chains[0].insert(2, Instr::Neg { x: Tid(5), out: Tid(4) })), []);
    assert_eq!(found(|p| p.chains[1].push(Instr::Neg { x: Tid(5), out: Tid(4) })), [(ProblemKind::Unwritten, Some(1), Some(1))]);
    let swap = |p: &mut Program| {
        p.chains[2].insert(0, Instr::Neg { x: Tid(4), out: Tid(5) });
    };
    assert_eq!(found(swap), [(ProblemKind::Unwritten, Some(2), Some(0))]);
}

#[test]
fn chains_run_from_many_places_are_followed_once() {
    // Each chain runs the next one twice: 2^60 runs if followed each time.
    let mut p = Program { chains: vec![vec![]; 61], ..Program::default() };
    for (i, chain) in (1..).zip(&mut p.chains[..60]) {
        chain.push(Instr::If { cond: 0.into(), then_chain_idx: i, else_chain_idx: i });
    }
    assert_eq!(p.verify(), Ok(()));

    let depth = MAX_CALL_DEPTH + 1;
    let mut p = Program { chains: vec![vec![]; depth as usize * 1000], ..Program::default() };
    let last = p.chains.len() as u32 - 1;
    for (i, chain) in (1..).zip(&mut p.chains) {
        chain.push(Instr::If { cond: 0.into(), then_chain_idx: i, else_chain_idx: last + 1 });
    }
    p.chains.push(vec![]);
    let kinds: Vec<_> = p.verify().unwrap_err().into_iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::Limit]);
}

#[test]
fn findings_are_many_but_bounded() {
    let bad = Instr::Neg { x: Tid(9), out: Tid(9) };
    let p = Program { chains: vec![vec![bad; 5000]], ..Program::default() };
    let problems = p.verify().unwrap_err();
    assert_eq!(problems.len(), 1001);
    assert_eq!(problems[1000].message, "9000 further problems are not listed");
    assert_eq!(problems[3].to_string(), "chain 0, instruction 1: Neg refers to tensor 9; there are 0");
}
