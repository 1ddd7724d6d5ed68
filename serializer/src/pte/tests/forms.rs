//! Forms of a file that upstream's tools write or its loader takes, and that this writer does not write.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::*;
use crate::error::Error;
use crate::pte::check::MAX_TABLES;

type Offset = WIPOffset<UnionWIPOffset>;

/// What goes into a slot.
#[derive(Clone, Copy)]
enum Put {
    Byte(i8),
    Int(i32),
    At(Offset),
}

/// Writes the smallest program that has one of each kind of thing: nothing in it may be left out.
struct Smallest<'a> {
    b: FlatBufferBuilder<'static>,
    /// The field that is left out all the same.
    without: &'a str,
    /// A byte in the place of another.
    with: (&'a str, i8),
}

impl Smallest<'_> {
    fn table(&mut self, fields: &[(&str, u16, Put)]) -> Offset {
        let start = self.b.start_table();
        for &(name, slot, value) in fields {
            let at = 4 + 2 * slot;
            match value {
                _ if name == self.without => {}
                Put::Byte(_) if name == self.with.0 => self.b.push_slot_always(at, self.with.1),
                Put::Byte(x) => self.b.push_slot_always(at, x),
                Put::Int(x) => self.b.push_slot_always(at, x),
                Put::At(x) => self.b.push_slot_always(at, x),
            }
        }
        self.b.end_table(start).as_union_value()
    }

    fn ints(&mut self, list: &[i32]) -> Put {
        Put::At(self.b.create_vector(list).as_union_value())
    }

    fn longs(&mut self, list: &[i64]) -> Put {
        Put::At(self.b.create_vector(list).as_union_value())
    }

    fn tables(&mut self, list: &[Offset]) -> Put {
        Put::At(self.b.create_vector(list).as_union_value())
    }

    fn text(&mut self, text: &str) -> Put {
        Put::At(self.b.create_string(text).as_union_value())
    }

    fn union(&mut self, tag: i8, value: Offset) -> Offset {
        self.table(&[("tag", 0, Put::Byte(tag)), ("value", 1, Put::At(value))])
    }

    fn tensor(&mut self) -> Offset {
        let (sizes, order) = (self.ints(&[2]), Put::At(self.b.create_vector(&[0u8]).as_union_value()));
        let allocation = self.table(&[("memory_id", 0, Put::Int(1))]);
        let info = self.table(&[("location", 2, Put::Byte(0))]);
        let tensor = self.table(&[
            ("scalar_type", 0, Put::Byte(6)),
            ("sizes", 2, sizes),
            ("dim_order", 3, order),
            ("allocation_info", 6, Put::At(allocation)),
            ("layout", 7, Put::Byte(0)),
            ("shape_dynamism", 8, Put::Byte(0)),
            ("extra_tensor_info", 9, Put::At(info)),
        ]);
        self.union(5, tensor)
    }

    /// `out = aten::relu(x)`, a delegate with an inline payload, and a list.
    fn write(mut self) -> Vec<u8> {
        let (x, out) = (self.tensor(), self.tensor());
        let number = self.table(&[]);
        let number = self.union(2, number);
        let items = self.longs(&[2]);
        let list = self.table(&[("items", 0, items)]);
        let list = self.union(7, list);
        // An alternative without payload needs no table.
        let none = self.table(&[("none", 0, Put::Byte(1))]);
        let values = self.tables(&[x, out, number, list, none]);

        let (name, args) = (self.text("aten::relu"), self.ints(&[0, 1, 1]));
        let operator = self.table(&[("operator name", 0, name)]);
        let kernel = self.table(&[("args", 1, args)]);
        let kernel = self.union(1, kernel);
        let instructions = self.tables(&[kernel]);
        let chain = self.table(&[("instructions", 2, instructions)]);

        let id = self.text("TestBackend");
        let processed = self.table(&[("location", 0, Put::Byte(0))]);
        let delegate = self.table(&[("id", 0, id), ("processed", 1, Put::At(processed))]);
        let data = Put::At(self.b.create_vector(&[7u8; 5]).as_union_value());
        let inline = self.table(&[("data", 0, data)]);

        let (name, inputs, outputs, sizes) = (self.text("forward"), self.ints(&[0]), self.ints(&[1]), self.longs(&[-5, 64]));
        let (chains, operators, delegates) = (self.tables(&[chain]), self.tables(&[operator]), self.tables(&[delegate]));
        let plan = self.table(&[
            ("name", 0, name),
            ("values", 2, values),
            ("inputs", 3, inputs),
            ("outputs", 4, outputs),
            ("chains", 5, chains),
            ("operators", 6, operators),
            ("delegates", 7, delegates),
            ("non_const_buffer_sizes", 8, sizes),
            // A field of a later version.
            ("later", 20, Put::Byte(1)),
        ]);
        let (plans, inline, offsets) = (self.tables(&[plan]), self.tables(&[inline]), self.longs(&[0]));
        let constants = self.table(&[("offsets", 1, offsets)]);
        let root = self.table(&[("execution_plan", 1, plans), ("inline", 3, inline), ("constant_segment", 5, Put::At(constants))]);
        self.b.finish(root, Some(IDENTIFIER));
        self.b.finished_data().to_vec()
    }
}

fn smallest(without: &str, with: (&str, i8)) -> Result<PteFile> {
    PteFile::parse(Smallest { b: FlatBufferBuilder::new(), without, with }.write())
}

fn whole(e: &Error) -> String {
    e.problems().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_may_be_left_out_is_and_what_may_not_is_missed_by_name() {
    let file = smallest("", ("", 0)).unwrap();
    let plan = file.method("forward").unwrap();
    assert_eq!((plan.container_meta_type.as_ref(), plan.operators[0].full_name()), (None, "aten::relu".to_owned()));
    assert_eq!((plan.values.len(), &plan.values[4]), (5, &EValue::Null));
    // A payload may stand in the program itself.
    assert_eq!(file.payload(&plan.delegates[0]).unwrap().bytes(), [7; 5]);
    for required in [
        "execution_plan",
        "constant_segment",
        "offsets",
        "name",
        "values",
        "inputs",
        "outputs",
        "chains",
        "instructions",
        "delegates",
        "non_const_buffer_sizes",
        "sizes",
        "dim_order",
        "items",
        "args",
        "id",
        "processed",
    ] {
        let e = smallest(required, ("", 0)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Missing, "{required}: {e}");
        assert!(whole(&e).contains(required), "{required}: {e}");
    }
    for (union, says) in [("value", "the value of the union with tag 5 is missing"), ("tag", "the union is empty")] {
        let e = smallest(union, ("", 0)).unwrap_err();
        assert!(e.to_string().contains(says), "{union}: {e}");
    }
}

#[test]
fn numbers_that_upstream_does_not_look_at_are_refused_where_they_would_mean_something() {
    for (field, number, says) in [
        ("shape_dynamism", 5, Some("unknown TensorShapeDynamism 5")),
        ("shape_dynamism", 2, Some("sizes without upper bound")),
        ("location", 5, Some("5")),
        ("scalar_type", -1, Some("element type -1")),
        ("scalar_type", 30, Some("element type 30")),
        ("scalar_type", 99, Some("element type 99")),
        ("tag", 77, Some("of unknown type 77")),
        ("layout", 1, None),
    ] {
        match smallest("", (field, number)) {
            Ok(_) => assert_eq!(says, None, "{field} {number}"),
            Err(e) => assert!(says.is_some_and(|s| whole(&e).contains(s)), "{field} {number}: {e}"),
        }
    }
    // Complex numbers and bit types are no part of the schema, but of the runtime.
    for code in [8, 9, 10, 18, 21, 28, 29] {
        let file = smallest("", ("scalar_type", code));
        // Two elements of at most 16 bytes.
        assert!(file.is_ok(), "{code}");
    }
}

#[test]
fn what_the_runtime_does_not_mind_is_no_problem() {
    type Change = fn(&mut ExecutionPlan);
    let harmless: &[Change] = &[
        |p| p.non_const_buffer_sizes[0] = -7,
        // Places that overlap, and are not aligned.
        |p| {
            for v in &mut p.values {
                if let EValue::Tensor(Tensor { allocation_info: Some(at), .. }) = v {
                    *at = AllocationDetails::new(1, 3);
                }
            }
        },
        |p| p.delegates[1] = p.delegates[0].clone(),
        |p| p.delegates[0].compile_specs.clear(),
        |p| p.outputs = vec![0, 0, 0, 1, 2, 6, 7, 8, 9, 10],
        |p| p.inputs = vec![0, 7, 8, 9, 10, 6],
        |p| p.values[15] = EValue::OptionalTensorList(vec![-1, -1, 0, 6]),
        |p| p.values[10] = EValue::IntList(vec![]),
        |p| p.chains.push(p.chains[1].clone()),
        |p| p.container_meta_type = None,
        |p| p.operators[0].overload = String::new(),
        |p| {
            for v in &mut p.values {
                if let EValue::Tensor(t) = v {
                    let info = t.extra_tensor_info.get_or_insert_default();
                    (info.mutable_data_segments_idx, info.device_type, info.device_index) = (9, DeviceType::Cuda, 3);
                    (t.requires_grad, t.layout) = (true, 1);
                }
            }
        },
    ];
    for (i, change) in harmless.iter().enumerate() {
        assert_eq!(broken(|p| p.execution_plan.iter_mut().for_each(change)), [], "change {i}");
    }
    // Constants that begin anywhere, segments that share their bytes or have none.
    assert_eq!(broken(|p| p.constant_segment.offsets[2] = 3), []);
    assert_eq!(broken(|p| p.segments[5] = p.segments[4].clone()), []);
    assert_eq!(broken(|p| p.segments.push(DataSegment::default())), []);
}

#[test]
fn offsets_that_would_wrap_are_beyond_their_segment() {
    // Upstream adds without looking, and reads what is before.
    for offset in [u64::MAX, u64::MAX - 7, 1 << 63] {
        let found = broken(|p| p.constant_segment.offsets[1] = offset);
        assert_eq!(found.len(), 2, "a constant of each method");
        assert!(found.iter().all(|(kind, place)| *kind == ErrorKind::OutOfRange && place.contains("value 1")), "{found:?}");
    }
}

#[test]
fn a_jump_to_before_the_chain_is_refused_where_upstream_ends_the_chain() {
    let found = broken(|p| {
        let jump = JumpFalseCall { cond_value_index: 8, destination_instruction: -1 };
        p.execution_plan[0].chains[0].instructions[2] = Instruction::JumpFalseCall(jump);
    });
    assert_eq!(found, [(ErrorKind::OutOfRange, "method `forward`: instruction 2".to_owned())]);
}

#[test]
fn the_header_may_take_more_room() {
    // With `delegate_alignment` 256, for example. Only the offset of the root and the header's numbers tell.
    let raw = written(&contents());
    for room in [8u64, 32, 224] {
        let number = |at: usize| u64::from_le_bytes(raw[at..at + 8].try_into().unwrap());
        let root = u32::from_le_bytes(raw[..4].try_into().unwrap()) + room as u32;
        let size = number(16) + room;
        let base = size.next_multiple_of(SEGMENT_ALIGNMENT);
        let mut wide = Vec::new();
        wide.extend(root.to_le_bytes());
        wide.extend(&raw[4..16]);
        wide.extend(size.to_le_bytes());
        wide.extend(base.to_le_bytes());
        wide.extend(&raw[32..40]);
        wide.extend(vec![0; room as usize]);
        wide.extend(&raw[40..number(16) as usize]);
        wide.resize(base as usize, 0);
        wide.extend(&raw[number(24) as usize..]);
        let (wide, narrow) = (PteFile::parse(wide).unwrap(), PteFile::parse(raw.clone()).unwrap());
        assert_eq!(wide.program(), narrow.program());
        for key in ["a", "b", "c"] {
            assert_eq!(wide.named_data(key).unwrap().bytes(), narrow.named_data(key).unwrap().bytes());
        }
    }
}

#[test]
fn a_header_need_not_say_how_long_the_segments_are() {
    let mut raw = written(&contents());
    raw[32..40].fill(0);
    let file = PteFile::parse(raw.clone()).unwrap();
    assert_eq!(file.named_data("b").unwrap().bytes(), [5; 300]);
    // Then what is missing is missed all the same.
    raw.truncate(raw.len() - 1);
    assert_eq!(PteFile::parse(raw).unwrap_err().kind(), ErrorKind::OutOfRange);
    // The program may be said to reach to the end of the file, as long as segments come after it.
    let bare = Smallest { b: FlatBufferBuilder::new(), without: "", with: ("", 0) }.write();
    assert!(PteFile::parse([bare, vec![1; 50]].concat()).is_ok());
}

#[test]
fn tensors_without_elements_are_constants_without_bytes() {
    let mut contents = contents();
    let nothing = |dtype| TensorData::inline(dtype, vec![0, 3], vec![]).unwrap();
    contents.constants.extend([nothing(DType::Float32), nothing(DType::Int64)]);
    let empty = |n| EValue::Tensor(Tensor { data_buffer_idx: n, ..tensor(&[0, 3]) });
    contents.plans[0].values.extend([empty(3), empty(4)]);
    // Two states that are alike at first have one image, but each its own place.
    contents.initial_state.push(bytes(&[3; 8]));
    let file = PteFile::parse(written(&contents)).unwrap();
    assert_eq!(file.program().mutable_data_segments[0].offsets, [0, 0, 0]);
    for value in &file.methods()[0].values[16..] {
        let EValue::Tensor(t) = value else { panic!("a tensor") };
        assert_ne!(t.data_buffer_idx, 0);
        assert_eq!(file.constant(t).unwrap().bytes(), [0u8; 0]);
    }
}

#[test]
fn more_tables_than_upstream_verifies_are_not_written() {
    // An Int takes two.
    let mut contents = Contents { plans: vec![plan("forward")], ..contents() };
    contents.plans[0].values.extend(vec![EValue::Int(1); MAX_TABLES as usize / 2]);
    let e = lay_out(&contents).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Limit);
    assert!(e.to_string().contains("refuse more than 1000000"), "{e}");
}
