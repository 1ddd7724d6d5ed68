//! Every instruction there and back; damaged bytes; the reference's files where they are at hand.

mod forms;

use etx_ir::DType;
use etx_mlx::{
    Access, FieldError, FieldKind, FieldSpec, FieldValue, FloatOrVid, INSTRUCTIONS, Instr, IntOrVid, IntOrVidOrTid, NamedSlot, Presence,
    Program, Scalar, ShapeDim, Slot, TensorMeta, Tid, Vid, VidOrTid,
};

use super::{decode, encode};
use crate::error::ErrorKind;

/// Makes instructions: reads tensor 0 (a constant), 1 (an input), value 0; writes the temps 3, 4, 5 and value 1.
struct Maker {
    /// Whether optional fields are present and scalars differ from their defaults.
    full: bool,
}

impl Maker {
    fn field(&self, instr: &str, spec: &FieldSpec) -> Option<FieldValue<'static>> {
        let write = spec.access == Access::Write;
        let (tensor, value) = if write { (Tid(3), Vid(1)) } else { (Tid(1), Vid(0)) };
        if !self.full && spec.presence != Presence::Required {
            return None;
        }
        Some(match (spec.kind, spec.name) {
            (FieldKind::I32, "body_chain_idx") => FieldValue::Scalar(Scalar::I32(2)),
            (FieldKind::I32, "width") => FieldValue::Scalar(Scalar::I32(2)),
            (FieldKind::I32, _) => FieldValue::Scalar(Scalar::I32(7)),
            (FieldKind::U32, _) => FieldValue::Scalar(Scalar::U32(2)),
            (FieldKind::U64, _) => FieldValue::Scalar(Scalar::U64(u64::MAX)),
            (FieldKind::F32, _) => FieldValue::Scalar(Scalar::F32(-0.0)),
            (FieldKind::Bool, _) => FieldValue::Scalar(Scalar::Bool(spec.presence != Presence::Default(Scalar::Bool(true)))),
            (FieldKind::DType, _) => FieldValue::Scalar(Scalar::DType(DType::BFloat16)),
            (FieldKind::Str, "mode") if instr == "Pad" => FieldValue::Str("edge".into()),
            (FieldKind::Str, _) => FieldValue::Str("größe\n".into()),
            (FieldKind::Tid, _) => FieldValue::Tid(tensor),
            (FieldKind::Vid, _) => FieldValue::Vid(value),
            (FieldKind::IntOrVid, _) if self.full => FieldValue::IntOrVid(IntOrVid::Vid(value)),
            (FieldKind::IntOrVid, _) => FieldValue::IntOrVid(IntOrVid::Int(0)),
            (FieldKind::FloatOrVid, _) if self.full => FieldValue::FloatOrVid(FloatOrVid::Vid(value)),
            (FieldKind::FloatOrVid, _) => FieldValue::FloatOrVid(FloatOrVid::Float(-0.0)),
            (FieldKind::VidOrTid, _) if self.full => FieldValue::VidOrTid(VidOrTid::Vid(value)),
            (FieldKind::VidOrTid, _) => FieldValue::VidOrTid(VidOrTid::Tid(tensor)),
            (FieldKind::IntOrVidOrTid, _) if self.full => FieldValue::IntOrVidOrTid(IntOrVidOrTid::Tid(tensor)),
            (FieldKind::IntOrVidOrTid, _) => FieldValue::IntOrVidOrTid(IntOrVidOrTid::Int(-1)),
            (FieldKind::Tids, _) if write => FieldValue::Tids(vec![Tid(3), Tid(4), Tid(5)].into()),
            (FieldKind::Tids, _) => FieldValue::Tids(vec![Tid(1), Tid(0), Tid(1)].into()),
            (FieldKind::IntOrVids, "pad_width") => FieldValue::IntOrVids(vec![IntOrVid::Int(i64::MIN), IntOrVid::Vid(value)].into()),
            (FieldKind::IntOrVids, _) => {
                FieldValue::IntOrVids(vec![IntOrVid::Int(0), IntOrVid::Vid(value), IntOrVid::Int(i64::MAX)].into())
            }
            // Ones: in a kernel these are the ranks of three shapes, all in a list of three.
            (FieldKind::I32s, _) => FieldValue::I32s(vec![1, 1, 1].into()),
            (FieldKind::I8s, _) => FieldValue::I8s(vec![0, 1, -1].into()),
            (FieldKind::DTypes, _) => FieldValue::DTypes(vec![DType::UInt8, DType::Bool, DType::UInt32].into()),
            (FieldKind::Strs, _) => FieldValue::Strs(vec!["a".into(), String::new(), "a".into()].into()),
        })
    }
}

fn meta(dtype: DType, shape: &[ShapeDim]) -> TensorMeta {
    TensorMeta { dtype, shape: shape.to_vec(), dim_order: (!shape.is_empty()).then(|| (0..shape.len() as u8).collect()) }
}

/// A program with every instruction twice, chains of every kind, and slots of every kind.
fn everything() -> Program {
    let mut main = Vec::new();
    for spec in INSTRUCTIONS {
        for full in [false, true] {
            let mut instr =
                Instr::from_fields(spec.id, |field| Ok::<_, FieldError>(Maker { full }.field(spec.name, field))).expect(spec.name);
            match &mut instr {
                // Chains are never optional in truth: the default is the main chain.
                Instr::If { then_chain_idx, else_chain_idx, .. } => (*then_chain_idx, *else_chain_idx) = (2, 3),
                Instr::Scan { body_chain_idx, .. } => *body_chain_idx = 4,
                Instr::SliceUpdate { step, .. } | Instr::Slice { step, .. } if !full => *step = 1,
                _ => {}
            }
            main.push(instr);
        }
    }
    main.push(Instr::IdCopy { x: Tid(3), out: Tid(2) });
    let dynamic = [ShapeDim::Dynamic { min: 2, max: Some(1024) }, ShapeDim::Dynamic { min: 0, max: None }, ShapeDim::Static(0)];
    let body = [3, 4, 5].map(|t| Instr::Neg { x: Tid(1), out: Tid(t) }).to_vec();
    Program {
        num_constants: 1,
        num_inputs: 1,
        num_outputs: 1,
        num_temps: 4,
        num_values: 3,
        chains: vec![vec![Instr::Neg { x: Tid(0), out: Tid(0) }], main, vec![], vec![Instr::Noop {}], body],
        main_chain: 1,
        init_chain: Some(0),
        input_map: vec![Slot::Int(Vid(0)), Slot::Tensor(Tid(1))],
        output_map: vec![Slot::Tensor(Tid(2)), Slot::Int(Vid(1))],
        named_slots: vec![
            NamedSlot { name: "p/w".into(), slot: Slot::Tensor(Tid(0)) },
            NamedSlot { name: "p/b".into(), slot: Slot::Bool(Vid(2)) },
            NamedSlot { name: "p/f".into(), slot: Slot::Float(Vid(2)) },
        ],
        tensor_meta: vec![meta(DType::UInt8, &[]), meta(DType::Float16, &dynamic), meta(DType::Int64, &[ShapeDim::Static(3)])],
        ..Program::default()
    }
}

fn small() -> Program {
    Program {
        num_inputs: 1,
        num_outputs: 1,
        chains: vec![vec![
            Instr::Slice { x: Tid(0), out: Tid(1), axis: 0.into(), start: (-1).into(), stop: i64::MAX.into(), step: 1 },
            Instr::Gelu { x: Tid(1), out: Tid(1), approximate: "none".into() },
        ]],
        input_map: vec![Slot::Tensor(Tid(0))],
        output_map: vec![Slot::Tensor(Tid(1))],
        named_slots: vec![NamedSlot { name: "p/x".into(), slot: Slot::Tensor(Tid(0)) }],
        tensor_meta: vec![meta(DType::Float32, &[ShapeDim::Static(2)]); 2],
        ..Program::default()
    }
}

#[test]
fn every_instruction_there_and_back() {
    let program = everything();
    program.verify().unwrap();
    let bytes = encode(&program).unwrap();
    let back = decode(&bytes).unwrap();
    assert_eq!(back, program);
    // Equality of numbers forgives the sign of zero, the text does not.
    assert_eq!(back.to_string(), program.to_string());
    assert_eq!(encode(&back).unwrap(), bytes);
}

#[test]
fn the_container_is_padded_and_says_where_it_ends() {
    let bytes = encode(&small()).unwrap();
    assert_eq!(bytes.len() % 16, 0);
    assert_eq!(&bytes[..8], b"\0\0\0\0MLX0");
    assert_eq!(bytes[8..16], (bytes.len() as u64).to_le_bytes());
    assert_eq!(bytes[16..24], [0; 8]);
}

#[test]
fn repeated_texts_are_written_once() {
    let source = "x".repeat(1000);
    let kernel = |name: &str| Instr::MetalKernel {
        name: name.into(),
        source: source.clone(),
        inputs: vec![],
        outputs: vec![],
        grid: vec![1.into(); 3],
        threadgroup: vec![1.into(); 3],
        header: None,
        input_names: None,
        output_names: None,
        ensure_row_contiguous: true,
        atomic_outputs: false,
        output_shapes_flat: None,
        output_shape_lengths: None,
        output_dtypes: None,
        template_arg_names: None,
        template_arg_kinds: None,
        template_arg_values: None,
        init_value: None,
    };
    let mut program = small();
    program.chains[0].extend([kernel("a"), kernel("b"), kernel("c")]);
    let bytes = encode(&program).unwrap();
    assert!(bytes.len() < 3000, "{}", bytes.len());
    assert_eq!(decode(&bytes).unwrap(), program);
}

#[test]
fn wrong_programs_are_not_written() {
    let mut program = small();
    program.chains[0][0] = Instr::Neg { x: Tid(9), out: Tid(1) };
    program.tensor_meta.pop();
    let e = encode(&program).unwrap_err();
    assert_eq!((e.kind(), e.problems().count()), (ErrorKind::Invalid, 2), "{e}");
}

#[test]
fn errors_say_where() {
    let mut bytes = encode(&small()).unwrap();
    let at = bytes.windows(4).position(|w| w == b"none").unwrap();
    bytes[at] = 0xff;
    let e = decode(&bytes).unwrap_err();
    // The offset is that of the length before the text.
    let text = "MLX payload: chain 0: instruction 1: Gelu: field `approximate`: a string is not UTF-8";
    assert!(e.to_string().starts_with(text), "{e}");
    assert_eq!(e.offset(), Some(at as u64 - 4));

    let mut bytes = encode(&small()).unwrap();
    bytes[5] = b'?';
    assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::BadMagic);
    for end in [0u64, 24, u64::MAX] {
        let mut bytes = encode(&small()).unwrap();
        bytes[8..16].copy_from_slice(&end.to_le_bytes());
        assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::OutOfRange);
    }
}

#[test]
fn later_versions_and_unknown_instructions_are_refused() {
    let bytes = encode(&small()).unwrap();
    // The version: a string of length 1.
    let at = bytes.windows(6).position(|w| w == b"\x01\0\0\0\x31\0").unwrap() + 4;
    for (version, kind) in [(b'2', Some(ErrorKind::Unsupported)), (b'x', Some(ErrorKind::Malformed)), (b'0', None), (b' ', None)] {
        let mut bytes = bytes.clone();
        bytes[at] = version;
        assert_eq!(decode(&bytes).err().map(|e| e.kind()), kind);
    }
    // The tag of Gelu, 25, stands alone in its word.
    let mut unknown = 0;
    for at in (0..bytes.len()).filter(|&at| bytes[at] == 25) {
        let mut bytes = bytes.clone();
        bytes[at] = 200;
        unknown += usize::from(decode(&bytes).is_err_and(|e| e.kind() == ErrorKind::Unsupported && e.to_string().contains("200")));
    }
    assert_eq!(unknown, 1);
}

#[test]
fn damaged_bytes_are_an_error_or_a_valid_program() {
    for bytes in [encode(&small()).unwrap(), encode(&everything()).unwrap()] {
        let step = bytes.len() / 500 + 1;
        for n in (0..bytes.len()).step_by(step) {
            assert!(decode(&bytes[..n]).is_err());
        }
        for at in (0..bytes.len()).step_by(step) {
            for value in [0, 1, 4, 0x7f, 0x80, 0xff, bytes[at] ^ 0x10, bytes[at].wrapping_add(4)] {
                let mut changed = bytes.clone();
                changed[at] = value;
                match decode(&changed) {
                    Ok(program) => program.verify().unwrap(),
                    Err(e) => assert!(e.offset().is_some(), "{e}"),
                }
            }
        }
    }
}

/// All payloads in the files of the reference, when `ETX_CASES` names the folder with the conformance cases.
#[test]
fn payloads_of_the_reference_there_and_back() {
    let Some(cases) = std::env::var_os("ETX_CASES") else { return };
    let mut folders: Vec<_> = std::env::split_paths(&cases).collect();
    let (mut files, mut payloads, mut failures) = (0, 0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "reference.pte") {
                files += 1;
                let bytes = std::fs::read(&path).unwrap();
                let mut from = 0;
                // Payloads lie at multiples of 16, and end where they say.
                while let Some(at) = (from..bytes.len().saturating_sub(24)).step_by(16).find(|&at| bytes[at..at + 8] == *b"\0\0\0\0MLX0") {
                    let size = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap()) as usize;
                    payloads += 1;
                    let payload = &bytes[at..at + size];
                    match decode(payload) {
                        Err(e) => failures.push(format!("{}: {e}", path.display())),
                        Ok(program) => {
                            let again = encode(&program).map(|bytes| (bytes.len(), decode(&bytes).unwrap()));
                            match again {
                                Err(e) => failures.push(format!("{}: {e}", path.display())),
                                Ok((len, back)) => {
                                    assert_eq!(back.to_string(), program.to_string(), "{}", path.display());
                                    assert!(len <= size + size / 16 + 64, "{}: {len} bytes, the reference took {size}", path.display());
                                }
                            }
                        }
                    }
                    from = at + size;
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(files > 0 && payloads > 0);
    println!("{payloads} payloads in {files} files");
}
