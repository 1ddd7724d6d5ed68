//! Bytes to program, without trust.

use std::borrow::Cow;

use etx_ir::DType;
use etx_mlx::{
    FieldError, FieldKind, FieldSpec, FieldValue, FloatOrVid, Instr, InstrSpec, IntOrVid, IntOrVidOrTid, NamedSlot, Program, Scalar,
    ShapeDim, Slot, TensorMeta, Tid, Vid, VidOrTid,
};

use super::schema::{self, HEADER, MAGIC};
use crate::error::{Error, ErrorKind, Result};
use crate::flat::{Flat, Table};
use crate::window::Window;

/// Bytes an instruction takes in a FlatBuffer at least: an offset to it and the head of its table. Sharing tables would
/// allow more; nobody writes that, and without this bound a small file could ask for much memory.
const MIN_INSTR_BYTES: u64 = 8;

/// Decodes the payload of the delegate and verifies the program.
///
/// # Errors
/// Errors say where: offset in `bytes`, chain, instruction, field. [`ErrorKind::BadMagic`] for other files,
/// [`ErrorKind::Unsupported`] for later versions and unknown instructions, [`ErrorKind::Invalid`] with all findings of
/// [`Program::verify`]; else what [`Flat`] finds.
pub fn decode(bytes: &[u8]) -> Result<Program> {
    decode_window(Window::new(bytes))
}

/// [`decode`] for a payload inside a larger file, with the offsets of that file in errors.
///
/// # Errors
/// As [`decode`].
pub fn decode_window(payload: Window<'_>) -> Result<Program> {
    read(payload).map_err(|e| e.within("MLX payload"))
}

fn read(payload: Window<'_>) -> Result<Program> {
    let magic: u32 = payload.get(4)?;
    if magic != u32::from_le_bytes(MAGIC) {
        let text = format!("no {:?} at byte 4 of the payload", String::from_utf8_lossy(&MAGIC));
        return Err(Error::new(ErrorKind::BadMagic, text).at(payload.absolute(4)));
    }
    let end: u64 = payload.get(8)?;
    let header = HEADER as u64;
    if end <= header || end > payload.len() {
        let text = format!("data_offset is {end}; it must lie behind the header ({header}) and inside the payload ({})", payload.len());
        return Err(Error::new(ErrorKind::OutOfRange, text).at(payload.absolute(8)));
    }
    let flat = Flat::new(payload.slice(header, end - header)?);
    let root = flat.root()?;
    version(&root)?;
    let mut reader = Reader { instrs_left: (end - header) / MIN_INSTR_BYTES, offsets: Vec::new() };
    let program = reader.graph(&root)?;
    program.verify().map_err(|problems| {
        let problems = problems.into_iter().map(|problem| {
            let error = Error::new(ErrorKind::Invalid, problem.to_string());
            match reader.offset(problem.chain, problem.instr) {
                Some(offset) => error.at(offset),
                None => error.at(root.offset()),
            }
        });
        // `verify` fails with at least one problem.
        Error::all(problems).unwrap_or_else(|| Error::new(ErrorKind::Invalid, "verification failed"))
    })?;
    Ok(program)
}

fn version(root: &Table<'_, '_>) -> Result<()> {
    let text = root.string(schema::graph::VERSION)?.unwrap_or_default().trim();
    match text.parse::<u32>() {
        _ if text.is_empty() => Ok(()),
        Ok(version) if version <= schema::VERSION => Ok(()),
        Ok(version) => {
            let text = format!("version {version} of the MLX schema; {} is the last one known", schema::VERSION);
            Err(Error::new(ErrorKind::Unsupported, text).at(root.offset()))
        }
        Err(e) => Err(Error::new(ErrorKind::Malformed, format!("version {text:?} is not a number")).at(root.offset()).because(e)),
    }
}

struct Reader {
    /// Instructions that the buffer can still hold.
    instrs_left: u64,
    /// Where the tables of instructions lie, by chain.
    offsets: Vec<Vec<u64>>,
}

impl Reader {
    fn offset(&self, chain: Option<u32>, instr: Option<u32>) -> Option<u64> {
        self.offsets.get(chain? as usize)?.get(instr? as usize).copied()
    }

    fn graph(&mut self, root: &Table<'_, '_>) -> Result<Program> {
        use schema::graph as g;
        let mut chains = Vec::new();
        for (i, chain) in root.require(root.tables(g::CHAINS)?, "instruction_chains")?.into_iter().enumerate() {
            chains.push(self.chain(&chain).map_err(|e| e.within(format!("chain {i}")))?);
        }
        Ok(Program {
            num_constants: root.scalar(g::NUM_CONSTANTS, 0)?,
            num_inputs: root.scalar(g::NUM_INPUTS, 0)?,
            num_outputs: root.scalar(g::NUM_OUTPUTS, 0)?,
            num_mutable_buffers: root.scalar(g::NUM_MUTABLE_BUFFERS, 0)?,
            num_temps: root.scalar(g::NUM_TEMPS, 0)?,
            num_values: root.scalar(g::NUM_VALUES, 0)?,
            chains,
            main_chain: root.scalar(g::MAIN_CHAIN, 0)?,
            // Any negative number means that there is none.
            init_chain: u32::try_from(root.scalar(g::INIT_CHAIN, -1i32)?).ok(),
            input_map: list(root, g::INPUT_MAP, "input_map", slot)?,
            output_map: list(root, g::OUTPUT_MAP, "output_map", slot)?,
            mutable_buffer_map: list(root, g::MUTABLE_BUFFER_MAP, "mutable_buffer_map", slot)?,
            named_slots: list(root, g::NAMED_SLOTS, "named_slots", named)?,
            tensor_meta: list(root, g::TENSOR_META, "tensor_meta", meta)?,
        })
    }

    fn chain(&mut self, chain: &Table<'_, '_>) -> Result<Vec<Instr>> {
        let tables = chain.require(chain.tables(schema::chain::INSTRUCTIONS)?, "instructions")?;
        self.instrs_left = self.instrs_left.checked_sub(tables.len() as u64).ok_or_else(|| {
            Error::new(ErrorKind::Limit, format!("{} instructions: more than the payload has room for", tables.len())).at(chain.offset())
        })?;
        self.offsets.push(tables.iter().map(Table::offset).collect());
        tables.iter().enumerate().map(|(i, table)| instr(table).map_err(|e| e.within(format!("instruction {i}")))).collect()
    }
}

/// The tables of a vector, each read by `each`. An absent vector is an empty one.
fn list<T>(root: &Table<'_, '_>, id: u16, name: &str, each: fn(&Table<'_, '_>) -> Result<T>) -> Result<Vec<T>> {
    let tables = root.tables(id).map_err(|e| e.within(name))?.unwrap_or_default();
    tables.iter().enumerate().map(|(i, table)| each(table).map_err(|e| e.within(format!("{name}, entry {i}")))).collect()
}

fn slot(table: &Table<'_, '_>) -> Result<Slot> {
    let index: u32 = table.scalar(schema::slot::INDEX, 0)?;
    match table.scalar(schema::slot::TYPE, schema::slot::TENSOR)? {
        schema::slot::TENSOR => Ok(Slot::Tensor(Tid(index))),
        schema::slot::INT => Ok(Slot::Int(Vid(index))),
        schema::slot::FLOAT => Ok(Slot::Float(Vid(index))),
        schema::slot::BOOL => Ok(Slot::Bool(Vid(index))),
        other => Err(Error::new(ErrorKind::Malformed, format!("slot type {other} is unknown")).at(table.offset())),
    }
}

fn named(table: &Table<'_, '_>) -> Result<NamedSlot> {
    let name = table.require(table.string(schema::named::NAME)?, "name")?.to_owned();
    let slot = slot(&table.require(table.table(schema::named::SLOT)?, "slot")?)?;
    Ok(NamedSlot { name, slot })
}

fn meta(table: &Table<'_, '_>) -> Result<TensorMeta> {
    let shape = table.require(table.tables(schema::meta::SHAPE)?, "shape")?;
    Ok(TensorMeta {
        dtype: dtype(table.scalar(schema::meta::DTYPE, 0)?, table.offset())?,
        shape: shape.iter().map(dim).collect::<Result<_>>()?,
        dim_order: table.bytes(schema::meta::DIM_ORDER)?.map(|order| order.bytes().to_vec()),
    })
}

fn dim(table: &Table<'_, '_>) -> Result<ShapeDim> {
    let value: i32 = table.scalar(schema::dim::VALUE, -1)?;
    let min: i32 = table.scalar(schema::dim::MIN, 0)?;
    let max: i32 = table.scalar(schema::dim::MAX, -1)?;
    let wrong = || Error::new(ErrorKind::Invalid, format!("no dimension: value {value}, from {min} to {max}")).at(table.offset());
    match (value, u32::try_from(min), max) {
        (-1, Ok(min), -1) => Ok(ShapeDim::Dynamic { min, max: None }),
        (-1, Ok(min), max) => Ok(ShapeDim::Dynamic { min, max: Some(u32::try_from(max).map_err(|_| wrong())?) }),
        (-1, Err(_), _) => Err(wrong()),
        (value, ..) => u32::try_from(value).map(ShapeDim::Static).map_err(|_| wrong()),
    }
}

fn dtype(code: i8, offset: u64) -> Result<DType> {
    DType::from_et_code(code).ok_or_else(|| Error::new(ErrorKind::Invalid, format!("scalar type {code} is unknown")).at(offset))
}

fn instr(table: &Table<'_, '_>) -> Result<Instr> {
    // The reference's loader takes an instruction without operation for a Noop.
    let Some((id, node)) = table.union(schema::instruction::OP)? else { return Ok(Instr::Noop {}) };
    let name = InstrSpec::from_id(id).map_or("unknown", |spec| spec.name);
    Instr::from_fields(id, |spec| field(&node, spec).map_err(|e| Unfinished(e.within(format!("field `{}`", spec.name)))))
        .map_err(|Unfinished(e)| e.at(node.offset()).within(name))
}

/// Our error, as [`Instr::from_fields`] wants it.
struct Unfinished(Error);

impl From<FieldError> for Unfinished {
    fn from(error: FieldError) -> Self {
        let kind = match error {
            FieldError::UnknownInstruction(_) => ErrorKind::Unsupported,
            FieldError::Missing(_) => ErrorKind::Missing,
            FieldError::WrongKind(_) => ErrorKind::Malformed,
        };
        Unfinished(Error::new(kind, error.to_string()))
    }
}

fn field<'a>(table: &Table<'_, 'a>, spec: &FieldSpec) -> Result<Option<FieldValue<'a>>> {
    let id = spec.id;
    let scalar = |x: Scalar| FieldValue::Scalar(x);
    Ok(match spec.kind {
        FieldKind::I32 => table.optional(id)?.map(Scalar::I32).map(scalar),
        FieldKind::U32 => table.optional(id)?.map(Scalar::U32).map(scalar),
        FieldKind::U64 => table.optional(id)?.map(Scalar::U64).map(scalar),
        FieldKind::F32 => table.optional(id)?.map(Scalar::F32).map(scalar),
        FieldKind::Bool => table.optional(id)?.map(Scalar::Bool).map(scalar),
        FieldKind::DType => {
            let code: Option<i8> = table.optional(id)?;
            code.map(|code| dtype(code, table.offset())).transpose()?.map(Scalar::DType).map(scalar)
        }
        FieldKind::Str => table.string(id)?.map(|text| FieldValue::Str(Cow::Borrowed(text))),
        FieldKind::Tid => tid(table, id)?.map(FieldValue::Tid),
        FieldKind::Vid => vid(table, id)?.map(FieldValue::Vid),
        FieldKind::IntOrVid => table.table(id)?.map(|t| int_or_vid(&t)).transpose()?.map(FieldValue::IntOrVid),
        FieldKind::FloatOrVid => table.table(id)?.map(|t| float_or_vid(&t)).transpose()?.map(FieldValue::FloatOrVid),
        FieldKind::VidOrTid => table.table(id)?.map(|t| vid_or_tid(&t)).transpose()?.map(FieldValue::VidOrTid),
        FieldKind::IntOrVidOrTid => table.table(id)?.map(|t| int_or_vid_or_tid(&t)).transpose()?.map(FieldValue::IntOrVidOrTid),
        // A vector of structs of one `u32` is a vector of `u32`.
        FieldKind::Tids => table.scalars(id)?.map(|v: Vec<u32>| FieldValue::Tids(v.into_iter().map(Tid).collect())),
        FieldKind::IntOrVids => match table.tables(id)? {
            Some(tables) => Some(FieldValue::IntOrVids(tables.iter().map(int_or_vid).collect::<Result<_>>()?)),
            None => None,
        },
        FieldKind::I32s => table.scalars(id)?.map(|v| FieldValue::I32s(Cow::Owned(v))),
        FieldKind::I8s => table.scalars(id)?.map(|v| FieldValue::I8s(Cow::Owned(v))),
        FieldKind::DTypes => match table.scalars::<i8>(id)? {
            Some(codes) => Some(FieldValue::DTypes(codes.into_iter().map(|c| dtype(c, table.offset())).collect::<Result<_>>()?)),
            None => None,
        },
        FieldKind::Strs => table.strings(id)?.map(|texts| FieldValue::Strs(texts.into_iter().map(str::to_owned).collect())),
    })
}

fn tid(table: &Table<'_, '_>, id: u16) -> Result<Option<Tid>> {
    // A struct of one `u32` looks in a table like that `u32`.
    Ok(table.optional(id)?.map(Tid))
}

fn vid(table: &Table<'_, '_>, id: u16) -> Result<Option<Vid>> {
    Ok(table.optional(id)?.map(Vid))
}

fn int_or_vid(table: &Table<'_, '_>) -> Result<IntOrVid> {
    use schema::literal_or_vid as slot;
    match table.scalar(slot::IS_VID, false)? {
        true => Ok(IntOrVid::Vid(table.require(vid(table, slot::VID)?, "vid")?)),
        false => Ok(IntOrVid::Int(table.scalar(slot::LITERAL, 0)?)),
    }
}

fn float_or_vid(table: &Table<'_, '_>) -> Result<FloatOrVid> {
    use schema::literal_or_vid as slot;
    match table.scalar(slot::IS_VID, false)? {
        true => Ok(FloatOrVid::Vid(table.require(vid(table, slot::VID)?, "vid")?)),
        false => Ok(FloatOrVid::Float(table.scalar(slot::LITERAL, 0.0)?)),
    }
}

fn vid_or_tid(table: &Table<'_, '_>) -> Result<VidOrTid> {
    use schema::vid_or_tid as slot;
    match table.scalar(slot::IS_VID, false)? {
        true => Ok(VidOrTid::Vid(table.require(vid(table, slot::VID)?, "vid")?)),
        false => Ok(VidOrTid::Tid(table.require(tid(table, slot::TID)?, "tid")?)),
    }
}

fn int_or_vid_or_tid(table: &Table<'_, '_>) -> Result<IntOrVidOrTid> {
    use schema::int_or_vid_or_tid as slot;
    match table.scalar(slot::KIND, slot::IS_LITERAL)? {
        slot::IS_LITERAL => Ok(IntOrVidOrTid::Int(table.scalar(slot::LITERAL, 0)?)),
        slot::IS_VID => Ok(IntOrVidOrTid::Vid(table.require(vid(table, slot::VID)?, "vid")?)),
        slot::IS_TID => Ok(IntOrVidOrTid::Tid(table.require(tid(table, slot::TID)?, "tid")?)),
        other => Err(Error::new(ErrorKind::Malformed, format!("kind {other} of integer, value or tensor")).at(table.offset())),
    }
}
