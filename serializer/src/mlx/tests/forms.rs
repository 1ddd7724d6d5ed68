//! Forms of a payload that the reference writes or its loader takes, and that this writer does not write.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::*;
use crate::error::Result;

type Offset = WIPOffset<UnionWIPOffset>;

/// What goes into a slot of a table.
#[derive(Clone, Copy)]
enum Put {
    Byte(u8),
    Int(i32),
    Long(i64),
    At(Offset),
}

use Put::{At, Byte, Int, Long};

/// A payload under construction. Its program takes tensor 0 and gives tensor 1, both of four bytes.
struct Payload(FlatBufferBuilder<'static>);

impl Payload {
    fn table(&mut self, fields: &[(u16, Put)]) -> Offset {
        let start = self.0.start_table();
        for &(slot, value) in fields {
            let at = 4 + 2 * slot;
            match value {
                Byte(x) => self.0.push_slot_always(at, x),
                Int(x) => self.0.push_slot_always(at, x),
                Long(x) => self.0.push_slot_always(at, x),
                At(x) => self.0.push_slot_always(at, x),
            }
        }
        self.0.end_table(start).as_union_value()
    }

    fn list(&mut self, items: &[Offset]) -> Put {
        At(self.0.create_vector(items).as_union_value())
    }

    /// An instruction of this number and these fields.
    fn instr(&mut self, id: u8, fields: &[(u16, Put)]) -> Offset {
        let node = self.table(fields);
        self.table(&[(0, Byte(id)), (1, At(node))])
    }

    /// The payload whose only chain is `instrs`; `dim` is the size of the tensors, `more` are further fields of the root.
    fn finish(mut self, instrs: &[Offset], dim: &[(u16, Put)], more: &[(u16, Put)]) -> Vec<u8> {
        let instrs = self.list(instrs);
        let chain = self.table(&[(0, instrs)]);
        let chains = self.list(&[chain]);
        // All but the number of the second slot and the sizes is default, and so left out: a tensor, of bytes.
        let (input, output) = (self.table(&[]), self.table(&[(0, Int(1))]));
        let (input, output) = (self.list(&[input]), self.list(&[output]));
        let dim = self.table(dim);
        let shape = self.list(&[dim]);
        let meta = self.table(&[(0, shape)]);
        let metas = self.list(&[meta, meta]);
        let mut fields = vec![(2, Int(1)), (3, Int(1)), (7, chains), (10, input), (11, output), (14, metas)];
        fields.retain(|(slot, _)| more.iter().all(|(other, _)| other != slot));
        fields.extend(more);
        let root = self.table(&fields);
        self.0.finish_minimal(root);
        let flat = self.0.finished_data();
        let end = 24 + flat.len() as u64;
        [&[0; 4], &b"MLX0"[..], &end.to_le_bytes(), &[0; 8], flat].concat()
    }
}

/// The chain of a payload whose instructions `make` makes.
fn chain(make: impl FnOnce(&mut Payload) -> Vec<Offset>) -> Result<Vec<Instr>> {
    let mut payload = Payload(FlatBufferBuilder::new());
    let instrs = make(&mut payload);
    decode(&payload.finish(&instrs, &[(0, Int(4))], &[])).map(|mut p| p.chains.remove(0))
}

const X: (u16, Put) = (0, Int(0));
const OUT: (u16, Put) = (1, Int(1));
const COPY: Instr = Instr::IdCopy { x: Tid(0), out: Tid(1) };

#[test]
fn what_is_left_out_has_its_default() {
    let bytes = |dim: &[(u16, Put)], more: &[(u16, Put)]| {
        let mut p = Payload(FlatBufferBuilder::new());
        let copy = p.instr(2, &[X, OUT]);
        p.finish(&[copy], dim, more)
    };
    let plain = decode(&bytes(&[(0, Int(4))], &[])).unwrap();
    assert_eq!((plain.main_chain, plain.init_chain, plain.named_slots.len()), (0, None, 0));
    assert_eq!(plain.tensor_meta[0], TensorMeta { dtype: DType::UInt8, shape: vec![ShapeDim::Static(4)], dim_order: None });
    // Bounds beside a size mean nothing; any negative number is no init chain.
    assert_eq!(decode(&bytes(&[(0, Int(4)), (1, Int(0)), (2, Int(-1))], &[(9, Int(-5))])).unwrap(), plain);
    let dynamic = |min, max| ShapeDim::Dynamic { min, max };
    for (dim, expected) in
        [(&[][..], dynamic(0, None)), (&[(1, Int(2))], dynamic(2, None)), (&[(0, Int(-1)), (1, Int(2)), (2, Int(9))], dynamic(2, Some(9)))]
    {
        assert_eq!(decode(&bytes(dim, &[])).unwrap().tensor_meta[0].shape, [expected]);
    }
    for dim in [&[(0, Int(-2))][..], &[(1, Int(-1))], &[(1, Int(5)), (2, Int(4))], &[(2, Int(-7))]] {
        assert_eq!(decode(&bytes(dim, &[])).unwrap_err().kind(), ErrorKind::Invalid);
    }
    // The first bytes, the size of data that are not there, and what comes behind are not looked at.
    let mut odd = bytes(&[(0, Int(4))], &[]);
    odd[..4].fill(0xff);
    odd[16..24].fill(0x11);
    odd.extend([7; 33]);
    assert_eq!(decode(&odd).unwrap(), plain);
}

#[test]
fn an_instruction_without_operation_does_nothing() {
    let found = chain(|p| vec![p.table(&[]), p.table(&[(0, Byte(0))]), p.instr(2, &[X, OUT])]).unwrap();
    assert_eq!(found, [Instr::Noop {}, Instr::Noop {}, COPY]);
    // One of a later version of the schema does something else.
    let later = chain(|p| vec![p.instr(137, &[X, OUT])]).unwrap_err();
    assert!(later.kind() == ErrorKind::Unsupported && later.to_string().contains("137"), "{later}");
    let lost = chain(|p| vec![p.table(&[(0, Byte(2))])]).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Missing);
}

#[test]
fn the_number_zero_of_a_slot_is_not_the_same_as_none() {
    for (missing, fields) in [("x", &[OUT][..]), ("out", &[X])] {
        let e = chain(|p| vec![p.instr(2, fields)]).unwrap_err();
        assert!(e.kind() == ErrorKind::Missing && e.to_string().contains(missing), "{e}");
    }
}

#[test]
fn a_flag_says_whether_a_literal_or_a_value_counts() {
    // Take: 0 x, 1 out, 2 index; the index has 0 literal, 1 value, 2 tensor, 3 kind.
    let take = |index: &[(u16, Put)]| {
        chain(|p| {
            let index = p.table(index);
            vec![p.instr(8, &[X, OUT, (2, At(index))])]
        })
    };
    let index = |found: Vec<Instr>| match found[..] {
        [Instr::Take { index, .. }] => index,
        _ => panic!("{found:?}"),
    };
    assert_eq!(index(take(&[]).unwrap()), IntOrVidOrTid::Int(0));
    assert_eq!(index(take(&[(0, Long(-1)), (1, Int(7)), (2, Int(9))]).unwrap()), IntOrVidOrTid::Int(-1));
    assert_eq!(index(take(&[(0, Long(5)), (2, Int(0)), (3, Byte(2))]).unwrap()), IntOrVidOrTid::Tid(Tid(0)));
    for (kind, missing) in [(1, "vid"), (2, "tid")] {
        let e = take(&[(0, Long(5)), (3, Byte(kind))]).unwrap_err();
        assert!(e.kind() == ErrorKind::Missing && e.to_string().contains(missing), "{e}");
    }
    let e = take(&[(3, Byte(3))]).unwrap_err();
    assert!(e.kind() == ErrorKind::Malformed && e.to_string().contains("kind 3"), "{e}");
    // Repeat: 2 repeats, which has 0 literal, 1 value, 2 whether it is a value.
    let repeat = |repeats: &[(u16, Put)]| {
        chain(|p| {
            let (repeats, size) = (p.table(repeats), p.table(&[]));
            let out = (2, Int(0));
            let add = p.instr(14, &[(0, At(size)), (1, At(size)), out]);
            vec![add, p.instr(116, &[X, OUT, (2, At(repeats))])]
        })
    };
    let e = repeat(&[(0, Long(3)), (2, Byte(1))]).unwrap_err();
    assert!(e.kind() == ErrorKind::Missing && e.to_string().contains("vid"), "{e}");
    // The reference writes the literal beside the value as well; here there is no value 0.
    let e = repeat(&[(0, Long(3)), (1, Int(0)), (2, Byte(1))]).unwrap_err();
    assert!(e.kind() == ErrorKind::Invalid && e.to_string().contains("value 0"), "{e}");
}

#[test]
fn the_flag_that_says_whether_indices_are_sorted_may_be_absent() {
    // GatherMm: 0 a, 1 b, 2 out, 5 sorted, 6 a flag known at run time.
    let found = chain(|p| {
        let flag = p.table(&[(0, Long(1))]);
        let fields = [(0, Int(0)), (1, Int(0)), (2, Int(1)), (5, Byte(1))];
        vec![p.instr(123, &fields), p.instr(123, &[&fields[..], &[(6, At(flag))]].concat())]
    });
    let found = found.unwrap();
    let sorted = |i: &Instr| match *i {
        Instr::GatherMm { sorted_indices, sorted_indices_flag, .. } => (sorted_indices, sorted_indices_flag),
        _ => panic!("{i:?}"),
    };
    assert_eq!([sorted(&found[0]), sorted(&found[1])], [(true, None), (true, Some(IntOrVid::Int(1)))]);
}

#[test]
fn a_program_without_chains_is_none() {
    let mut p = Payload(FlatBufferBuilder::new());
    let root = p.table(&[(2, Int(1))]);
    p.0.finish_minimal(root);
    let flat = p.0.finished_data();
    let bytes = [&[0; 4], &b"MLX0"[..], &(24 + flat.len() as u64).to_le_bytes(), &[0; 8], flat].concat();
    let e = decode(&bytes).unwrap_err();
    assert!(e.kind() == ErrorKind::Missing && e.to_string().contains("instruction_chains"), "{e}");
}
