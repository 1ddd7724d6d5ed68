//! Laws of the container: what is written reads back, the same input gives the same bytes, hostile bytes end in an error.

mod forms;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use etx_ir::DType;
use etx_ir::weights::{Derive, MappedFile, TensorData};

use super::check::check;
use super::codec::{FlatTable, encode};
use super::layout::lay_out;
use super::model::*;
use super::read::{IDENTIFIER, parse};
use super::{CONSTANT_ALIGNMENT, Contents, NamedBlob, PteFile, SEGMENT_ALIGNMENT, write};
use crate::error::{ErrorKind, Result};
use crate::flat::Flat;
use crate::window::Window;

/// A folder that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("etx-pte-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bytes(values: &[u8]) -> TensorData {
    TensorData::inline(DType::UInt8, vec![values.len() as u64], values).unwrap()
}

fn named(key: &str, data: TensorData) -> NamedBlob {
    NamedBlob { key: key.into(), data, alignment: 16 }
}

fn delegate(index: u32) -> BackendDelegate {
    let processed = BackendDelegateDataReference { location: DataLocation::Segment, index };
    BackendDelegate { id: "TestBackend".into(), processed, compile_specs: vec![CompileSpec { key: "k".into(), value: vec![1, 2] }] }
}

fn tensor(sizes: &[i32]) -> Tensor {
    Tensor { scalar_type: 6, sizes: sizes.to_vec(), dim_order: (0u8..).take(sizes.len()).collect(), ..Tensor::default() }
}

/// A plan with every kind of value and instruction. Two constants of 8 and 4 bytes, one initial value of 8.
fn plan(name: &str) -> ExecutionPlan {
    let planned = Tensor { allocation_info: Some(AllocationDetails::new(1, 16)), ..tensor(&[2]) };
    let name_info = ExtraTensorInfo { fully_qualified_name: "layer.weight".into(), ..ExtraTensorInfo::default() };
    let external = ExtraTensorInfo { location: TensorDataLocation::External, ..name_info.clone() };
    let values = vec![
        EValue::Tensor(Tensor { shape_dynamism: TensorShapeDynamism::DynamicBound, ..planned.clone() }),
        EValue::Tensor(Tensor { data_buffer_idx: 1, ..tensor(&[2]) }),
        EValue::Tensor(Tensor { data_buffer_idx: 2, requires_grad: true, ..tensor(&[]) }),
        EValue::Tensor(Tensor { data_buffer_idx: 1, extra_tensor_info: Some(name_info), ..planned.clone() }),
        EValue::Tensor(Tensor { extra_tensor_info: Some(external), ..tensor(&[1 << 20, 1 << 20]) }),
        EValue::Tensor(Tensor { scalar_type: 11, ..planned }),
        EValue::Null,
        EValue::Int(-5),
        EValue::Bool(true),
        EValue::Double(-0.0),
        EValue::String("grüß".into()),
        EValue::IntList(vec![7, 7]),
        EValue::DoubleList(vec![f64::INFINITY, 1e-300]),
        EValue::BoolList(vec![true, false]),
        EValue::TensorList(vec![0, 1]),
        EValue::OptionalTensorList(vec![-1, 6, 2]),
    ];
    let instructions = vec![
        Instruction::KernelCall(KernelCall { op_index: 1, args: vec![0, 7, 14, 0, 0] }),
        Instruction::DelegateCall(DelegateCall { delegate_index: 1, args: vec![0, 3] }),
        Instruction::JumpFalseCall(JumpFalseCall { cond_value_index: 5, destination_instruction: 5 }),
        Instruction::MoveCall(MoveCall { move_from: 0, move_to: 3 }),
        Instruction::FreeCall(FreeCall { value_index: 4 }),
    ];
    let frame = Frame { filename: "m.py".into(), lineno: 3, name: "forward".into(), context: "x + 1".into() };
    let stacktrace = instructions.iter().map(|_| FrameList { items: vec![frame.clone()] }).collect();
    ExecutionPlan {
        name: name.into(),
        container_meta_type: Some(ContainerMetadata { encoded_inp_str: "in".into(), encoded_out_str: "out".into() }),
        values,
        inputs: vec![0, 7, 6],
        outputs: vec![3, 3, 0, 1],
        chains: vec![Chain { instructions, stacktrace, ..Chain::default() }, Chain::default()],
        operators: vec![
            Operator { name: "aten::copy_".into(), overload: String::new() },
            Operator { name: "aten::add".into(), overload: "out".into() },
        ],
        delegates: vec![delegate(0), delegate(1)],
        non_const_buffer_sizes: vec![0, 32],
        non_const_buffer_device: vec![NonConstBufferDevice { buffer_idx: 1, device_type: DeviceType::Cuda, device_index: 2 }],
    }
}

fn contents() -> Contents {
    Contents {
        plans: vec![plan("forward"), plan("step")],
        payloads: vec![vec![7; 100], vec![9; 16]],
        constants: vec![bytes(&[1; 8]), bytes(&[2; 4])],
        initial_state: vec![bytes(&[3; 8])],
        named_data: vec![named("a", bytes(&[4; 300])), named("b", bytes(&[5; 300])), named("c", bytes(&[4; 300]))],
    }
}

fn written(contents: &Contents) -> Vec<u8> {
    let folder = Folder::new(&format!("written-{:?}", std::thread::current().id()));
    let path = folder.path("a.pte");
    write(contents, &path).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn what_is_written_reads_back() {
    let contents = contents();
    let file = PteFile::parse(written(&contents)).unwrap();
    for (got, want) in file.methods().iter().zip(&contents.plans) {
        let mut want = want.clone();
        for (d, segment) in want.delegates.iter_mut().zip([2, 3]) {
            d.processed.index = segment;
        }
        assert_eq!(got, &want);
        for (d, payload) in got.delegates.iter().zip(&contents.payloads) {
            assert_eq!(file.payload(d).unwrap().bytes(), payload);
        }
        let tensors: Vec<&Tensor> = got.values.iter().filter_map(|v| if let EValue::Tensor(t) = v { Some(t) } else { None }).collect();
        let constant = |i: usize| file.constant(tensors[i]).map(|w| w.bytes());
        assert_eq!(constant(1).unwrap(), [1; 8]);
        assert_eq!(constant(2).unwrap(), [2; 4]);
        assert_eq!(constant(3).unwrap(), [3; 8]);
        assert!(constant(0).is_none() && constant(4).is_none());
    }
    assert_eq!(file.method("step").unwrap().name, "step");
    assert_eq!(file.method("other").unwrap_err().to_string(), "no method `other`; there are: forward, step");
    for (key, byte) in [("a", 4), ("b", 5), ("c", 4)] {
        assert_eq!(file.named_data(key).unwrap().bytes(), [byte; 300]);
    }
    assert!(file.named_data("d").is_none());
    assert_eq!(file.named_tensor("b", DType::Float32, &[5, 15]).unwrap().to_vec().unwrap(), [5; 300]);
    assert_eq!(file.named_tensor("b", DType::Float32, &[5, 5]).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(file.named_tensor("b", DType::Float32, &[500, 5]).unwrap_err().kind(), ErrorKind::OutOfRange);
    assert_eq!(file.named_tensor("x", DType::Float32, &[5]).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn every_field_of_every_table_survives() {
    // Beyond what a file may contain: inline data, old constants, a version.
    let program = Program {
        version: 3,
        execution_plan: vec![plan("a"), ExecutionPlan::default()],
        constant_buffer: vec![Buffer { storage: vec![1, 2, 3] }],
        backend_delegate_data: vec![BackendDelegateInlineData { data: vec![4] }],
        segments: vec![DataSegment { offset: 1 << 40, size: u64::MAX }],
        constant_segment: SubsegmentOffsets { segment_index: 1, offsets: vec![0, 1 << 50] },
        mutable_data_segments: vec![SubsegmentOffsets::default()],
        named_data: vec![NamedData { key: "k".into(), segment_index: 7 }],
    };
    let (bytes, tables) = encode(&program, IDENTIFIER).unwrap();
    let again = Program::from_table(Flat::new(Window::new(&bytes)).root().unwrap()).unwrap();
    assert_eq!(again, program);
    let EValue::Double(zero) = again.execution_plan[0].values[9] else { panic!() };
    assert!(zero.is_sign_negative());
    assert!(tables > 60 && program.table_bound() >= bytes.len() as u64);
}

#[test]
fn the_same_contents_give_the_same_bytes() {
    let contents = contents();
    let first = written(&contents);
    for _ in 0..5 {
        assert!(written(&contents) == first);
    }
}

#[test]
fn segments_follow_the_alignment_rules() {
    let mut contents = contents();
    contents.named_data.push(NamedBlob { alignment: 1000, ..named("odd", bytes(&[6; 3])) });
    contents.constants.push(bytes(&[8; 2]));
    let raw = written(&contents);
    let file = PteFile::parse(raw.clone()).unwrap();
    let header = *file.header().unwrap();
    let program = file.program();
    assert_eq!(header.length, 32);
    assert_eq!(header.program_size % 8, 0);
    assert_eq!(header.segment_base_offset, header.program_size.next_multiple_of(SEGMENT_ALIGNMENT));
    assert_eq!(header.segment_base_offset + header.segment_data_size.unwrap(), raw.len() as u64);
    // Constants, state, two payloads, three distinct blobs.
    let places: Vec<(u64, u64)> = program.segments.iter().map(|s| (s.offset, s.size)).collect();
    assert_eq!(places, [(0, 34), (128, 8), (256, 100), (384, 16), (512, 300), (896, 300), (16000, 3)]);
    assert_eq!(program.constant_segment.offsets, [0, 0, 16, 32]);
    assert!(program.constant_segment.offsets.iter().all(|o| o % CONSTANT_ALIGNMENT == 0));
    assert_eq!(program.mutable_data_segments[0].offsets, [0, 0]);
    // Everything that belongs to nobody is zero.
    let mut gaps = raw[header.segment_base_offset as usize..].to_vec();
    for (offset, size) in places {
        gaps[offset as usize..(offset + size) as usize].fill(0);
    }
    gaps.extend(&raw[header.program_size as usize..header.segment_base_offset as usize]);
    assert!(gaps.iter().all(|&b| b == 0));
}

#[test]
fn a_program_without_data_has_no_header() {
    let plans = vec![ExecutionPlan { chains: vec![Chain::default()], ..ExecutionPlan::default() }];
    let raw = written(&Contents { plans, ..Contents::default() });
    let file = PteFile::parse(raw.clone()).unwrap();
    assert!(file.header().is_none() && raw.len() >= 64);
    assert_eq!(file.program().segments, [DataSegment::default()]);
    assert_eq!(file.program().constant_segment.offsets, [0]);
}

#[test]
fn equal_blobs_are_written_once() {
    let folder = Folder::new("sharing");
    let source = folder.path("weights.bin");
    fs::write(&source, [vec![1u8; 5000], vec![2; 5000], vec![1; 5000]].concat()).unwrap();
    let map = MappedFile::open(&source).unwrap();
    let at = |offset| TensorData::mapped(DType::UInt8, vec![5000], map.clone(), offset).unwrap();
    let mut last = vec![1u8; 5000];
    last[4999] = 0;
    let named_data = vec![
        named("x", at(0)),
        named("tied", at(0).reinterpret(DType::Float32, vec![1250]).unwrap()),
        named("copy", at(10_000)),
        named("other", at(5000)),
        named("almost", bytes(&last)),
        named("x", at(0)),
    ];
    let mut contents = contents();
    contents.plans.iter_mut().for_each(|p| p.delegates[1].processed.index = 2);
    contents.payloads.push(contents.payloads[0].clone());
    contents.constants.push(bytes(&[1; 8]));
    let stats = write(&Contents { named_data, ..contents.clone() }, folder.path("a.pte")).unwrap();
    // `tied`, `copy` and the repeated constant.
    assert_eq!((stats.shared_blobs, stats.shared_bytes), (3, 10_008));
    assert_eq!((stats.weight_bytes, stats.copied_bytes, stats.payload_bytes), (15_000 + 12 + 8, 10_000, 100));
    let file = PteFile::open(folder.path("a.pte")).unwrap();
    assert_eq!(stats.file_bytes, file.bytes().len() as u64);
    let keys: Vec<(&str, u32)> = file.program().named_data.iter().map(|d| (d.key.as_str(), d.segment_index)).collect();
    assert_eq!(keys, [("x", 3), ("tied", 3), ("copy", 3), ("other", 4), ("almost", 5)]);
    assert_eq!(file.named_data("almost").unwrap().bytes(), last);
    assert_eq!(file.program().constant_segment.offsets, [0, 0, 16, 0]);

    let clash = vec![named("x", at(0)), named("x", at(5000))];
    let e = write(&Contents { named_data: clash, ..contents }, folder.path("b.pte")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Duplicate);
}

/// Bytes that count up, made in pieces; fails in the piece that contains `fails_at`.
struct Counting {
    len: u64,
    fails_at: u64,
}

impl Derive for Counting {
    fn recipe(&self) -> String {
        format!("counting {} {}", self.len, self.fails_at)
    }
    fn inputs(&self) -> &[TensorData] {
        &[]
    }
    fn granule(&self) -> u64 {
        3
    }
    fn produce(&self, offset: u64, out: &mut [u8]) -> std::result::Result<(), etx_ir::error::Error> {
        let end = offset + out.len() as u64;
        assert!(offset.is_multiple_of(3) && (end.is_multiple_of(3) || end == self.len));
        if (offset..end).contains(&self.fails_at) {
            return Err(etx_ir::error::Error::new(etx_ir::error::ErrorKind::Weight, "scale is NaN"));
        }
        (offset..end).zip(out).for_each(|(i, b)| *b = (i / 3) as u8);
        Ok(())
    }
}

fn counting(len: u64, fails_at: u64) -> TensorData {
    TensorData::derived(DType::UInt8, vec![len], Arc::new(Counting { len, fails_at })).unwrap()
}

#[test]
fn large_weights_arrive_piece_by_piece() {
    let folder = Folder::new("streaming");
    let len = 5_000_001;
    let source = folder.path("weights.bin");
    fs::write(&source, vec![0xabu8; len as usize]).unwrap();
    let mapped = TensorData::mapped(DType::UInt8, vec![len - 1], MappedFile::open(&source).unwrap(), 1).unwrap();
    let named_data = vec![named("counting", counting(len, u64::MAX)), named("mapped", mapped)];
    write(&Contents { named_data, ..contents() }, folder.path("a.pte")).unwrap();
    let file = PteFile::open(folder.path("a.pte")).unwrap();
    let got = file.named_data("counting").unwrap().bytes();
    assert!(got.iter().enumerate().all(|(i, &b)| b == (i / 3) as u8) && got.len() as u64 == len);
    assert!(file.named_data("mapped").unwrap().bytes() == vec![0xab; len as usize - 1]);
    // What was read from one file can be written to the next without copying it into memory.
    let again = vec![named("z", file.named_tensor("mapped", DType::UInt8, &[len - 1]).unwrap())];
    assert_eq!(write(&Contents { named_data: again, ..contents() }, folder.path("b.pte")).unwrap().copied_bytes, len - 1);
}

#[test]
fn failures_leave_no_file_and_keep_the_old_one() {
    let folder = Folder::new("failures");
    let target = folder.path("a.pte");
    fs::write(&target, "old").unwrap();
    let failing = Contents { named_data: vec![named("w", counting(3_000_000, 2_500_000))], ..contents() };
    let e = write(&failing, &target).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Weights);
    assert!(e.to_string().contains("scale is NaN") && e.to_string().contains("a.pte"), "{e}");
    let mut broken = contents();
    broken.plans[0].outputs = vec![99];
    assert_eq!(write(&broken, &target).unwrap_err().kind(), ErrorKind::OutOfRange);
    assert_eq!(folder.names(), ["a.pte"]);
    assert_eq!(fs::read(&target).unwrap(), b"old");

    let refused = |path: &Path, why: &str| {
        let e = write(&contents(), path).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(e.to_string().contains(why) && e.to_string().contains(&path.display().to_string()), "{e}");
    };
    refused(&folder.path("missing/a.pte"), "folder");
    refused(&target.join("a.pte"), "not a folder");
    refused(&folder.0, "it is a folder");
    if cfg!(target_os = "linux") {
        refused(Path::new("/dev/full"), "not a regular file");
    }
    assert_eq!(folder.names(), ["a.pte"]);

    write(&contents(), &target).unwrap();
    PteFile::open(&target).unwrap();
    std::os::unix::fs::symlink(&target, folder.path("link.pte")).unwrap();
    write(&contents(), folder.path("link.pte")).unwrap();
    assert!(fs::symlink_metadata(folder.path("link.pte")).unwrap().is_symlink());
    assert_eq!(folder.names(), ["a.pte", "link.pte"]);
}

#[test]
fn a_shrunken_input_is_an_error() {
    let folder = Folder::new("shrunken");
    let source = folder.path("weights.bin");
    fs::write(&source, vec![1u8; 10_000]).unwrap();
    let data = TensorData::mapped(DType::UInt8, vec![10_000], MappedFile::open(&source).unwrap(), 0).unwrap();
    fs::OpenOptions::new().write(true).open(&source).unwrap().set_len(100).unwrap();
    let e = write(&Contents { named_data: vec![named("w", data)], ..contents() }, folder.path("a.pte")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Io);
    assert_eq!(folder.names(), ["weights.bin"]);
}

/// Opens the file and touches all it offers.
fn open_and_touch(bytes: &[u8]) -> Result<()> {
    let file = PteFile::parse(bytes)?;
    for plan in file.methods() {
        for d in &plan.delegates {
            file.payload(d)?;
        }
        for value in &plan.values {
            if let EValue::Tensor(t) = value {
                assert!(file.constant(t).is_some() || !t.is_constant());
            }
        }
    }
    for data in &file.program().named_data {
        assert!(file.named_data(&data.key).is_some());
    }
    Ok(())
}

#[test]
fn truncated_files_are_refused() {
    let raw = written(&contents());
    open_and_touch(&raw).unwrap();
    for n in 0..raw.len() {
        assert!(open_and_touch(&raw[..n]).is_err(), "{n} of {} bytes", raw.len());
    }
    open_and_touch(&[raw, vec![0; 99]].concat()).unwrap();
}

#[test]
fn changed_bytes_are_an_error_or_another_program() {
    let raw = written(&Contents { plans: vec![plan("forward")], ..contents() });
    let program = PteFile::parse(raw.clone()).unwrap().header().unwrap().program_size as usize;
    let mut refused = 0;
    for i in 0..program {
        for value in [0, 1, 0x7f, 0x80, 0xff, raw[i] ^ 4] {
            let mut changed = raw.clone();
            changed[i] = value;
            match open_and_touch(&changed) {
                Err(e) if e.kind() == ErrorKind::BadMagic => assert!((4..8).contains(&i), "{e}"),
                Err(e) => {
                    refused += 1;
                    assert!(e.problems().all(|p| p.offset().is_some()), "{e}");
                }
                Ok(()) => {}
            }
        }
    }
    assert!(refused > program, "{refused}");
}

#[test]
fn headers_obey_their_rules() {
    let raw = written(&contents());
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = raw.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        open_and_touch(&changed)
    };
    let kind = |r: Result<()>| r.unwrap_err().kind();
    let long = |v: u64| v.to_le_bytes();
    assert_eq!(kind(with(4, b"ET13")), ErrorKind::BadMagic);
    assert!(with(4, b"FT01").unwrap_err().to_string().contains(".ptd"));
    assert!(with(4, b"BP08").unwrap_err().to_string().contains("bundled"));
    assert_eq!(kind(with(8, b"eh01")), ErrorKind::Malformed);
    assert_eq!(kind(with(12, &16u32.to_le_bytes())), ErrorKind::Malformed);
    with(12, &24u32.to_le_bytes()).unwrap();
    with(12, &64u32.to_le_bytes()).unwrap();
    assert_eq!(kind(with(16, &long(u64::MAX))), ErrorKind::Malformed);
    assert_eq!(kind(with(16, &long(4))), ErrorKind::OutOfRange);
    assert_eq!(kind(with(24, &long(0))), ErrorKind::Malformed);
    assert_eq!(kind(with(24, &long(8))), ErrorKind::Malformed);
    assert_eq!(kind(with(24, &long(u64::MAX - 3))), ErrorKind::OutOfRange);
    assert_eq!(kind(with(32, &long(u64::MAX))), ErrorKind::OutOfRange);
    assert_eq!(kind(with(32, &long(8))), ErrorKind::OutOfRange);
    assert_eq!(kind(with(0, &[0, 0, 0, 0x40])), ErrorKind::OutOfRange);
    assert_eq!(kind(open_and_touch(&[0; 63])), ErrorKind::BadMagic);
}

/// What is wrong with the program after a change, and where.
fn broken(change: impl Fn(&mut Program)) -> Vec<(ErrorKind, String)> {
    let raw = written(&contents());
    let (header, mut program) = parse(Window::new(&raw), raw.len() as u64).unwrap();
    change(&mut program);
    match check(&program, header.unwrap().segment_data_size.unwrap(), &|_| None) {
        Ok(()) => Vec::new(),
        Err(e) => e.problems().map(|p| (p.kind(), p.context().join("/"))).collect(),
    }
}

#[test]
fn rules_are_checked() {
    use ErrorKind::{Duplicate, Invalid, Missing, OutOfRange, Unsupported};
    type Change = fn(&mut ExecutionPlan);
    fn value(plan: &mut ExecutionPlan, i: usize) -> &mut Tensor {
        match &mut plan.values[i] {
            EValue::Tensor(t) => t,
            _ => panic!("value {i} is no tensor"),
        }
    }
    assert_eq!(broken(|_| ()), []);
    let in_plan: &[(ErrorKind, &str, Change)] = &[
        (OutOfRange, "", |p| p.inputs[0] = 16),
        (OutOfRange, "", |p| p.outputs[1] = -1),
        (Invalid, "", |p| p.inputs[0] = 11),
        (Missing, "", |p| p.chains.clear()),
        (Invalid, "", |p| p.non_const_buffer_sizes.push(-1)),
        (OutOfRange, "", |p| p.non_const_buffer_device[0].buffer_idx = 2),
        (OutOfRange, "value 0", |p| value(p, 0).sizes[0] = 5),
        (Invalid, "value 0", |p| value(p, 0).sizes[0] = -1),
        (Invalid, "value 4", |p| {
            let t = value(p, 4);
            (t.scalar_type, t.sizes) = (7, vec![i32::MAX; 2]);
        }),
        (Unsupported, "value 0", |p| value(p, 0).scalar_type = 30),
        (Unsupported, "value 0", |p| value(p, 0).storage_offset = 1),
        (Unsupported, "value 0", |p| value(p, 0).shape_dynamism = TensorShapeDynamism::DynamicUnbound),
        (Unsupported, "value 4", |p| value(p, 4).sizes = vec![1; 17]),
        (Invalid, "value 0", |p| value(p, 0).dim_order = vec![1]),
        (Invalid, "value 4", |p| value(p, 4).dim_order = vec![0, 0]),
        (Invalid, "value 2", |p| value(p, 2).dim_order = vec![0]),
        (OutOfRange, "value 0", |p| value(p, 0).allocation_info = Some(AllocationDetails::new(0, 0))),
        (OutOfRange, "value 0", |p| value(p, 0).allocation_info = Some(AllocationDetails::new(2, 0))),
        (OutOfRange, "value 0", |p| value(p, 0).allocation_info = Some(AllocationDetails::new(1, u64::MAX))),
        (OutOfRange, "value 1", |p| value(p, 1).data_buffer_idx = 3),
        (OutOfRange, "value 1", |p| value(p, 1).sizes[0] = 6),
        (OutOfRange, "value 3", |p| value(p, 3).data_buffer_idx = 2),
        (Missing, "value 4", |p| value(p, 4).extra_tensor_info.as_mut().unwrap().fully_qualified_name.clear()),
        (Invalid, "value 11", |p| p.values[11] = EValue::IntList(vec![8])),
        (Invalid, "value 11", |p| p.values[11] = EValue::IntList(vec![i64::MIN])),
        (Invalid, "value 14", |p| p.values[14] = EValue::TensorList(vec![-1])),
        (Invalid, "value 13", |p| p.values[13] = EValue::TensorList(vec![7])),
        (Invalid, "value 13", |p| {
            p.values.push(EValue::Tensor(tensor(&[])));
            p.values[13] = EValue::TensorList(vec![16]);
        }),
        (Invalid, "value 15", |p| p.values[15] = EValue::OptionalTensorList(vec![-2])),
        (Invalid, "operator 0", |p| p.operators[0].name = "n".repeat(100)),
        (Invalid, "operator 0", |p| p.operators[0].name.clear()),
        (OutOfRange, "delegate 1", |p| p.delegates[1].processed.index = 99),
        (OutOfRange, "delegate 1", |p| p.delegates[1].processed.location = DataLocation::Inline),
        (Missing, "delegate 0", |p| p.delegates[0].id.clear()),
        (OutOfRange, "instruction 0", |p| p.chains[0].instructions[0] = Instruction::KernelCall(KernelCall { op_index: 2, args: vec![] })),
        (OutOfRange, "instruction 0", |p| {
            p.chains[0].instructions[0] = Instruction::KernelCall(KernelCall { op_index: 0, args: vec![-1] })
        }),
        (OutOfRange, "instruction 1", |p| {
            p.chains[0].instructions[1] = Instruction::DelegateCall(DelegateCall { delegate_index: -1, args: vec![] });
        }),
        (OutOfRange, "instruction 2", |p| {
            let jump = JumpFalseCall { cond_value_index: 8, destination_instruction: 6 };
            p.chains[0].instructions[2] = Instruction::JumpFalseCall(jump);
        }),
        (Invalid, "instruction 2", |p| {
            let jump = JumpFalseCall { cond_value_index: 0, destination_instruction: 0 };
            p.chains[0].instructions[2] = Instruction::JumpFalseCall(jump);
        }),
        (OutOfRange, "instruction 3", |p| p.chains[0].instructions[3] = Instruction::MoveCall(MoveCall { move_from: 0, move_to: 16 })),
        (OutOfRange, "instruction 4", |p| p.chains[0].instructions[4] = Instruction::FreeCall(FreeCall { value_index: 16 })),
    ];
    for (i, (kind, place, change)) in in_plan.iter().enumerate() {
        let place = if place.is_empty() { "method `step`".to_owned() } else { format!("method `step`: {place}") };
        assert_eq!(broken(|p| change(&mut p.execution_plan[1])), [(*kind, place)], "rule {i}");
    }
    type ProgramChange = fn(&mut Program);
    let in_program: &[(ErrorKind, &str, ProgramChange)] = &[
        (Unsupported, "program", |p| p.version = 1),
        (Unsupported, "program", |p| p.constant_buffer.push(Buffer::default())),
        (Invalid, "program", |p| p.mutable_data_segments.push(SubsegmentOffsets::default())),
        (OutOfRange, "named data `b`", |p| p.named_data[1].segment_index = 6),
        (Duplicate, "named data `a`", |p| p.named_data[1].key = "a".into()),
        (Duplicate, "method `forward`", |p| p.execution_plan[1].name = "forward".into()),
        (OutOfRange, "segment 5", |p| p.segments[5].size += 1),
        (OutOfRange, "segment 2", |p| p.segments[2].offset = u64::MAX),
    ];
    for (i, (kind, place, change)) in in_program.iter().enumerate() {
        assert_eq!(broken(change), [(*kind, (*place).to_owned())], "rule {i}");
    }
    assert_eq!(broken(|p| p.constant_segment.offsets.clear())[0], (Missing, "program".into()));
    assert_eq!(broken(|p| p.constant_segment.segment_index = 9)[0], (OutOfRange, "program".into()));
    // All of them are reported, but no more than can be read.
    let many = broken(|p| p.execution_plan.iter_mut().for_each(|p| p.inputs = vec![-1; 20]));
    assert_eq!(many.len(), 40);
    assert_eq!(broken(|p| p.execution_plan[0].inputs = vec![-1; 1000]).len(), super::check::MAX_PROBLEMS);
}

#[test]
fn problems_in_a_file_have_their_place() {
    let mut wrong = contents();
    wrong.plans[1].chains[0].instructions[3] = Instruction::MoveCall(MoveCall { move_from: 0x1234_5678, move_to: 0 });
    // The writer refuses it, so the number is put into a good file.
    assert_eq!(lay_out(&wrong).err().unwrap().kind(), ErrorKind::OutOfRange);
    wrong.plans[1].chains[0].instructions[3] = Instruction::MoveCall(MoveCall { move_from: 13, move_to: 0 });
    let mut raw = written(&wrong);
    let (header, program) = parse(Window::new(&raw), raw.len() as u64).unwrap();
    let end = header.unwrap().program_size as usize;
    let mut want = program.clone();
    want.execution_plan[1].chains[0].instructions[3] = Instruction::MoveCall(MoveCall { move_from: 99, move_to: 0 });
    let read = |bytes: &[u8]| Program::from_table(Flat::new(Window::new(bytes)).root()?);
    // Find the byte that holds the 13.
    let at = (40..end)
        .find(|&i| {
            let mut changed = raw[..end].to_vec();
            changed[i] = 99;
            raw[i] == 13 && read(&changed).is_ok_and(|p| p == want)
        })
        .unwrap();
    raw[at] = 99;
    let e = PteFile::parse(raw).unwrap_err();
    assert_eq!(e.message(), "value 99 of 16");
    assert_eq!(e.context(), ["method `step`: instruction 3"]);
    assert!(e.offset().is_some_and(|o| o.abs_diff(at as u64) < 64), "{e}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported() {
    let contents = contents();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let e = super::write::stream(&lay_out(&contents).unwrap(), &full, &|_, _| {}).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Io);
}
