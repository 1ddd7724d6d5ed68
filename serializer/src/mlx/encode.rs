//! Program to bytes.

use std::collections::BTreeMap;

use etx_mlx::{
    FieldValue, FloatOrVid, Instr, IntOrVid, IntOrVidOrTid, NamedSlot, Presence, Program, Scalar, ShapeDim, Slot, TensorMeta, VidOrTid,
};
use flatbuffers::{FlatBufferBuilder, Push, UnionWIPOffset, VOffsetT, WIPOffset};

use super::schema::{self, ALIGN, HEADER, MAGIC};
use crate::error::{Error, ErrorKind, Result};

/// Largest payload. FlatBuffers offsets reach 2 GiB; programs are kilobytes.
const MAX_BYTES: u64 = 1 << 30;

/// An object that is already in the buffer.
type Offset = WIPOffset<UnionWIPOffset>;

/// Encodes a program as the whole payload of the delegate, header and padding included. Same program, same bytes.
///
/// # Errors
/// [`ErrorKind::Invalid`] with every problem that [`Program::verify`] finds; [`ErrorKind::Limit`] for a program that
/// would not fit a FlatBuffer.
pub fn encode(program: &Program) -> Result<Vec<u8>> {
    program.verify().map_err(|problems| {
        let problems = problems.into_iter().map(|problem| Error::new(ErrorKind::Invalid, problem.to_string()));
        // `verify` fails with at least one problem.
        Error::all(problems).unwrap_or_else(|| Error::new(ErrorKind::Invalid, "verification failed")).within("MLX program")
    })?;
    let size = size_estimate(program);
    if size > MAX_BYTES {
        let text = format!("a payload of about {size} bytes; at most {MAX_BYTES} can be written");
        return Err(Error::new(ErrorKind::Limit, text).within("MLX program"));
    }
    let mut encoder = Encoder { fbb: FlatBufferBuilder::new(), strings: BTreeMap::new() };
    encoder.graph(program);
    let flat = encoder.fbb.finished_data();

    let end = (HEADER + flat.len()).next_multiple_of(ALIGN);
    let mut bytes = Vec::with_capacity(end);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(end as u64).to_le_bytes());
    bytes.extend_from_slice(&0u64.to_le_bytes());
    bytes.extend_from_slice(flat);
    bytes.resize(end, 0);
    debug_assert!(super::decode(&bytes).is_ok(), "what is written must be readable");
    Ok(bytes)
}

/// Bytes the FlatBuffer can take at most, roughly: no table is larger than 256 bytes inline, no list element than 64.
fn size_estimate(program: &Program) -> u64 {
    let instr = |instr: &Instr| {
        let outside = instr.fields().map(|(_, value)| match value {
            Some(FieldValue::Str(text)) => text.len() as u64 + 16,
            Some(FieldValue::Strs(texts)) => texts.iter().map(|text| text.len() as u64 + 16).sum(),
            Some(value) => 64 * value.len() as u64,
            None => 0,
        });
        outside.sum::<u64>() + 256
    };
    let maps = [&program.input_map, &program.output_map, &program.mutable_buffer_map];
    program.chains.iter().flatten().map(instr).sum::<u64>()
        + program.chains.len() as u64 * 64
        + maps.iter().map(|map| 64 * map.len() as u64).sum::<u64>()
        + program.named_slots.iter().map(|named| named.name.len() as u64 + 64).sum::<u64>()
        + program.tensor_meta.iter().map(|meta| 64 * meta.shape.len() as u64 + 128).sum::<u64>()
        + 1024
}

struct Encoder<'fbb> {
    fbb: FlatBufferBuilder<'fbb>,
    /// Texts inside instructions are written once: kernels repeat the same long sources.
    strings: BTreeMap<String, Offset>,
}

/// A field that is ready to be put into its table.
enum Ready {
    Scalar(Scalar),
    /// `Tid` or `Vid`: a struct of one `u32`, which looks in a table like that `u32`.
    Id(u32),
    Offset(Offset),
}

fn at(slot: u16) -> VOffsetT {
    4 + 2 * slot
}

impl<'fbb> Encoder<'fbb> {
    /// A table whose fields `fill` pushes.
    fn table(&mut self, fill: impl FnOnce(&mut FlatBufferBuilder<'fbb>)) -> Offset {
        let start = self.fbb.start_table();
        fill(&mut self.fbb);
        self.fbb.end_table(start).as_union_value()
    }

    /// A vector of objects, each made by `each`.
    fn vector<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T) -> Offset) -> Offset {
        let offsets: Vec<Offset> = items.iter().map(|item| each(self, item)).collect();
        self.plain(offsets.iter().copied())
    }

    /// A vector of numbers or offsets.
    fn plain<T: Push<Output: 'fbb>>(&mut self, items: impl ExactSizeIterator<Item = T> + DoubleEndedIterator) -> Offset {
        self.fbb.create_vector_from_iter(items).as_union_value()
    }

    fn graph(&mut self, p: &Program) {
        let version = self.fbb.create_string(&schema::VERSION.to_string());
        let chains = self.vector(&p.chains, |e, instrs| {
            let instrs = e.vector(instrs, Self::instr);
            e.table(|fbb| fbb.push_slot_always(at(schema::chain::INSTRUCTIONS), instrs))
        });
        let maps = [
            (schema::graph::INPUT_MAP, &p.input_map),
            (schema::graph::OUTPUT_MAP, &p.output_map),
            (schema::graph::MUTABLE_BUFFER_MAP, &p.mutable_buffer_map),
        ]
        .map(|(id, map)| (id, self.vector(map, |e, &slot| e.slot(slot))));
        let names = self.vector(&p.named_slots, Self::named);
        let metas = self.vector(&p.tensor_meta, Self::meta);
        let root = self.table(|fbb| {
            use schema::graph as g;
            fbb.push_slot_always(at(g::VERSION), version);
            let counts = [
                (g::NUM_CONSTANTS, p.num_constants),
                (g::NUM_INPUTS, p.num_inputs),
                (g::NUM_OUTPUTS, p.num_outputs),
                (g::NUM_MUTABLE_BUFFERS, p.num_mutable_buffers),
                (g::NUM_TEMPS, p.num_temps),
                (g::NUM_VALUES, p.num_values),
                (g::MAIN_CHAIN, p.main_chain),
            ];
            for (id, count) in counts {
                fbb.push_slot(at(id), count, 0);
            }
            fbb.push_slot_always(at(g::CHAINS), chains);
            if let Some(chain) = p.init_chain {
                // Below a million: the program is verified.
                fbb.push_slot_always(at(g::INIT_CHAIN), chain as i32);
            }
            maps.into_iter().for_each(|(id, map)| fbb.push_slot_always(at(id), map));
            fbb.push_slot_always(at(g::NAMED_SLOTS), names);
            fbb.push_slot_always(at(g::TENSOR_META), metas);
        });
        self.fbb.finish_minimal(root);
    }

    fn slot(&mut self, slot: Slot) -> Offset {
        let (index, kind) = match slot {
            Slot::Tensor(tensor) => (tensor.0, schema::slot::TENSOR),
            Slot::Int(value) => (value.0, schema::slot::INT),
            Slot::Float(value) => (value.0, schema::slot::FLOAT),
            Slot::Bool(value) => (value.0, schema::slot::BOOL),
        };
        self.table(|fbb| {
            fbb.push_slot(at(schema::slot::INDEX), index, 0);
            fbb.push_slot(at(schema::slot::TYPE), kind, schema::slot::TENSOR);
        })
    }

    fn named(&mut self, named: &NamedSlot) -> Offset {
        let name = self.fbb.create_string(&named.name);
        let slot = self.slot(named.slot);
        self.table(|fbb| {
            fbb.push_slot_always(at(schema::named::NAME), name);
            fbb.push_slot_always(at(schema::named::SLOT), slot);
        })
    }

    fn meta(&mut self, meta: &TensorMeta) -> Offset {
        let shape = self.vector(&meta.shape, |e, dim| {
            // All sizes fit `i32`: the program is verified.
            let (value, min, max) = match *dim {
                ShapeDim::Static(size) => (size as i32, 0, -1),
                ShapeDim::Dynamic { min, max } => (-1, min as i32, max.map_or(-1, |max| max as i32)),
            };
            e.table(|fbb| {
                fbb.push_slot(at(schema::dim::VALUE), value, -1);
                fbb.push_slot(at(schema::dim::MIN), min, 0);
                fbb.push_slot(at(schema::dim::MAX), max, -1);
            })
        });
        let order = meta.dim_order.as_ref().map(|order| self.fbb.create_vector(order));
        self.table(|fbb| {
            fbb.push_slot_always(at(schema::meta::SHAPE), shape);
            fbb.push_slot(at(schema::meta::DTYPE), meta.dtype.et_code(), 0);
            if let Some(order) = order {
                fbb.push_slot_always(at(schema::meta::DIM_ORDER), order);
            }
        })
    }

    fn instr(&mut self, instr: &Instr) -> Offset {
        // What the table refers to comes before it.
        let mut fields = Vec::new();
        for (spec, value) in instr.fields() {
            let Some(value) = value else { continue };
            let value = self.field(value);
            match (&value, spec.presence) {
                (Ready::Scalar(value), Presence::Default(default)) if value.same(default) => {}
                _ => fields.push((at(spec.id), value)),
            }
        }
        let node = self.table(|fbb| {
            for (id, value) in fields {
                match value {
                    Ready::Id(x) => fbb.push_slot_always(id, x),
                    Ready::Offset(x) => fbb.push_slot_always(id, x),
                    Ready::Scalar(Scalar::I32(x)) => fbb.push_slot_always(id, x),
                    Ready::Scalar(Scalar::U32(x)) => fbb.push_slot_always(id, x),
                    Ready::Scalar(Scalar::U64(x)) => fbb.push_slot_always(id, x),
                    Ready::Scalar(Scalar::F32(x)) => fbb.push_slot_always(id, x),
                    Ready::Scalar(Scalar::Bool(x)) => fbb.push_slot_always(id, x),
                    Ready::Scalar(Scalar::DType(x)) => fbb.push_slot_always(id, x.et_code()),
                }
            }
        });
        self.table(|fbb| {
            fbb.push_slot_always(at(schema::instruction::OP), instr.id());
            fbb.push_slot_always(at(schema::instruction::OP + 1), node);
        })
    }

    fn field(&mut self, value: FieldValue<'_>) -> Ready {
        Ready::Offset(match value {
            FieldValue::Scalar(x) => return Ready::Scalar(x),
            FieldValue::Tid(x) => return Ready::Id(x.0),
            FieldValue::Vid(x) => return Ready::Id(x.0),
            FieldValue::Str(x) => self.string(&x),
            FieldValue::IntOrVid(x) => self.int_or_vid(x),
            FieldValue::FloatOrVid(x) => self.float_or_vid(x),
            FieldValue::VidOrTid(x) => self.vid_or_tid(x),
            FieldValue::IntOrVidOrTid(x) => self.int_or_vid_or_tid(x),
            FieldValue::Tids(x) => self.plain(x.iter().map(|x| x.0)),
            FieldValue::IntOrVids(x) => {
                let offsets: Vec<Offset> = x.iter().map(|&x| self.int_or_vid(x)).collect();
                self.plain(offsets.iter().copied())
            }
            FieldValue::I32s(x) => self.plain(x.iter().copied()),
            FieldValue::I8s(x) => self.plain(x.iter().copied()),
            FieldValue::DTypes(x) => self.plain(x.iter().map(|x| x.et_code())),
            FieldValue::Strs(x) => {
                let offsets: Vec<Offset> = x.iter().map(|x| self.string(x)).collect();
                self.plain(offsets.iter().copied())
            }
        })
    }

    fn int_or_vid(&mut self, x: IntOrVid) -> Offset {
        use schema::literal_or_vid as slot;
        self.table(|fbb| match x {
            IntOrVid::Int(x) => fbb.push_slot(at(slot::LITERAL), x, 0),
            IntOrVid::Vid(x) => {
                fbb.push_slot_always(at(slot::VID), x.0);
                fbb.push_slot_always(at(slot::IS_VID), true);
            }
        })
    }

    fn float_or_vid(&mut self, x: FloatOrVid) -> Offset {
        use schema::literal_or_vid as slot;
        self.table(|fbb| match x {
            // By bits: -0.0 is not the default.
            FloatOrVid::Float(x) if x.to_bits() == 0 => {}
            FloatOrVid::Float(x) => fbb.push_slot_always(at(slot::LITERAL), x),
            FloatOrVid::Vid(x) => {
                fbb.push_slot_always(at(slot::VID), x.0);
                fbb.push_slot_always(at(slot::IS_VID), true);
            }
        })
    }

    fn vid_or_tid(&mut self, x: VidOrTid) -> Offset {
        use schema::vid_or_tid as slot;
        self.table(|fbb| match x {
            VidOrTid::Tid(x) => fbb.push_slot_always(at(slot::TID), x.0),
            VidOrTid::Vid(x) => {
                fbb.push_slot_always(at(slot::VID), x.0);
                fbb.push_slot_always(at(slot::IS_VID), true);
            }
        })
    }

    fn int_or_vid_or_tid(&mut self, x: IntOrVidOrTid) -> Offset {
        use schema::int_or_vid_or_tid as slot;
        self.table(|fbb| match x {
            IntOrVidOrTid::Int(x) => fbb.push_slot(at(slot::LITERAL), x, 0),
            IntOrVidOrTid::Vid(x) => {
                fbb.push_slot_always(at(slot::VID), x.0);
                fbb.push_slot_always(at(slot::KIND), slot::IS_VID);
            }
            IntOrVidOrTid::Tid(x) => {
                fbb.push_slot_always(at(slot::TID), x.0);
                fbb.push_slot_always(at(slot::KIND), slot::IS_TID);
            }
        })
    }

    fn string(&mut self, text: &str) -> Offset {
        if let Some(&offset) = self.strings.get(text) {
            return offset;
        }
        let offset = self.fbb.create_string(text).as_union_value();
        self.strings.insert(text.to_owned(), offset);
        offset
    }
}
