//! The state of a lowering: instructions so far, and which slot holds which value.
//!
//! Slots are written once and numbered as they come; [`super::slots`] renumbers them at the end, when it is known how long
//! each lives. The exceptions are mutable buffers, which are updated in place where no one needs the old contents.

mod floats;
mod ints;
mod scope;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use etx_ir::DType;
use etx_ir::graph::{Arg, Graph, NodeId, Type, ValueId};
use etx_ir::op;
use etx_ir::program::{InputKind, Method, OutputKind, Program};
use etx_ir::sym::{Expr, Symbol};
use etx_ir::weights::{Identity, TensorData};
use etx_mlx::{Instr, IntOrVid, Tid, Vid};

use super::call::{Call, Res, describe};
use super::dtype;
use crate::backend::Refusal;
pub(crate) use scope::Given;

/// Where a slot's contents come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Named data.
    Constant { name: String, data: ConstantData },
    /// A value that the caller passes.
    Input(ValueId),
    /// The state behind this graph input.
    Buffer(ValueId),
    /// An instruction.
    Temp,
}

/// Data compare by identity.
#[derive(Clone, Debug)]
pub(crate) struct ConstantData(pub(crate) TensorData);

impl PartialEq for ConstantData {
    fn eq(&self, other: &Self) -> bool {
        self.0.identity() == other.0.identity()
    }
}

impl Eq for ConstantData {}

/// A tensor slot.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) origin: Origin,
    /// The type that MLX gives the contents.
    pub(crate) dtype: DType,
    /// Values that the slot holds now.
    holders: Vec<ValueId>,
    /// Whether the contents lie with channels last and are only seen with channels first.
    channels_last: bool,
}

/// What a lowering works on.
pub(crate) struct Cx<'a> {
    pub(crate) program: &'a Program,
    pub(crate) method: &'a Method,
    pub(crate) graph: &'a Graph,
    pub(crate) slots: Vec<Slot>,
    pub(crate) values: u32,
    /// Chain 0 is the main one.
    pub(crate) chains: Vec<Vec<Instr>>,
    pub(crate) init: Vec<Instr>,
    chain: usize,
    bound: Vec<Option<Tid>>,
    /// Input number of each graph input.
    input_of: HashMap<ValueId, usize>,
    /// State inputs that the method mutates, with the values on the way from the old state to the new one.
    mutated: HashMap<ValueId, Vec<ValueId>>,
    constants: HashMap<(Identity, DType, Vec<u64>), Tid>,
    constant_names: BTreeMap<String, u32>,
    /// What each constant is used for.
    uses: BTreeMap<Tid, Uses>,
    known: HashMap<Expr, IntOrVid>,
    known_values: HashMap<ValueId, Vid>,
    /// Where a size can be read off: the first tensor axis that has it.
    sizes: HashMap<Expr, (ValueId, usize)>,
    /// What the integers in `known` were read off.
    known_from: HashMap<Expr, Vec<ValueId>>,
    /// The numbers that stand for a symbol: inputs, and what is taken out of a tensor.
    symbols: HashMap<Symbol, ValueId>,
    /// Integers that the caller passes, as they are met.
    pub(crate) int_inputs: Vec<(ValueId, Vid)>,
    /// Results of instructions that depend on nothing else, by what they compute (transposed weights and the like).
    shared: HashMap<(Tid, String), Tid>,
    /// Positions in the node order, to tell readers that are still to come.
    positions: Vec<u32>,
    now: u32,
    node: Option<NodeId>,
    reads: Vec<ValueId>,
    /// Values that leave the partition.
    outputs: Vec<ValueId>,
    /// The nodes that draw random bits without a seed, by where the bits go.
    draws: HashMap<Tid, NodeId>,
    zero_points: Vec<ZeroPoints>,
    /// Scales that have to be numbers, by name.
    finite: BTreeMap<&'a str, TensorData>,
    /// Shapes of what the inputs of a body hold, while it is lowered.
    shapes: HashMap<Tid, Vec<Expr>>,
    /// Whether lowerings may look at the bytes of weights: when a program is made, not when a verdict is asked for.
    pub(crate) reads_weights: bool,
    /// Sizes of inputs that have no upper bound are at most this.
    pub(crate) max_size: i64,
}

/// Who uses a constant: by the names it was asked for under, and whether tables, and whether others, read it.
#[derive(Default)]
struct Uses {
    names: BTreeSet<String>,
    as_table: bool,
    otherwise: bool,
}

/// Biases that may turn out to be a multiple of their scales.
struct ZeroPoints {
    biases: Tid,
    scales: Tid,
    zeros: Option<TensorData>,
    neutral: f32,
    multiple: f32,
}

/// How far a failed lowering had come: what to go back to.
pub(crate) struct Mark {
    main: usize,
    chains: usize,
    init: usize,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(program: &'a Program, method: &'a Method, outputs: &[ValueId]) -> Self {
        let graph = &method.graph;
        let input_of: HashMap<ValueId, usize> = method.inputs.iter().enumerate().filter_map(|(i, input)| Some((input.value?, i))).collect();
        let mut cx = Self {
            program,
            method,
            graph,
            slots: Vec::new(),
            values: 0,
            chains: vec![Vec::new()],
            init: Vec::new(),
            chain: 0,
            bound: vec![None; graph.value_bound()],
            input_of,
            mutated: HashMap::new(),
            constants: HashMap::new(),
            constant_names: BTreeMap::new(),
            uses: BTreeMap::new(),
            known: HashMap::new(),
            known_values: HashMap::new(),
            sizes: HashMap::new(),
            known_from: HashMap::new(),
            symbols: symbol_values(graph),
            int_inputs: Vec::new(),
            shared: HashMap::new(),
            positions: graph.positions(),
            now: 0,
            node: None,
            reads: Vec::new(),
            outputs: outputs.to_vec(),
            draws: HashMap::new(),
            zero_points: Vec::new(),
            finite: BTreeMap::new(),
            shapes: HashMap::new(),
            reads_weights: false,
            max_size: super::DEFAULT_MAX_SIZE.into(),
        };
        for (out, kind) in graph.outputs().iter().zip(&method.outputs) {
            if let (Arg::Value(new), OutputKind::StateMutation(i)) = (out, kind)
                && let Some(old) = method.inputs.get(*i as usize).and_then(|input| input.value)
            {
                let path = cx.path_of_state(old, *new);
                cx.mutated.insert(old, path);
            }
        }
        for &v in graph.inputs() {
            cx.note_sizes(v);
        }
        cx
    }

    /// Values that lead from the old contents of a buffer to the new ones through operators that update their first operand.
    fn path_of_state(&self, old: ValueId, new: ValueId) -> Vec<ValueId> {
        let mut path = vec![new];
        let mut at = new;
        while at != old {
            let Some(from) = self.graph.producer(at).and_then(|id| super::ops::updated_operand(&Call::new(self.graph, id), at)) else {
                break;
            };
            path.push(from);
            at = from;
        }
        path
    }

    /// Starts a node; the values it reads are collected from here on.
    pub(crate) fn begin(&mut self, id: NodeId) -> Mark {
        self.node = Some(id);
        self.now = self.positions[id.index()];
        self.reads.clear();
        Mark { main: self.chains[0].len(), chains: self.chains.len(), init: self.init.len() }
    }

    /// What the node has read.
    pub(crate) fn take_reads(&mut self) -> Vec<ValueId> {
        let mut reads = std::mem::take(&mut self.reads);
        reads.sort_unstable();
        reads.dedup();
        reads
    }

    /// Forgets the instructions of a node that was refused half-way. Its results are read as if they came from outside.
    pub(crate) fn rollback(&mut self, mark: &Mark, id: NodeId) {
        // What later nodes were to share may have gone with them.
        self.shared.clear();
        self.known.clear();
        self.chains[0].truncate(mark.main);
        self.chains.truncate(mark.chains);
        self.init.truncate(mark.init);
        self.chain = 0;
        for v in &self.graph.node(id).outputs {
            self.bound[v.index()] = None;
        }
    }

    /// Notes which sizes can be read off a tensor.
    fn note_sizes(&mut self, v: ValueId) {
        if let Some(t) = self.graph.tensor(v) {
            for (axis, d) in t.shape.iter().enumerate() {
                if d.as_int().is_none() {
                    self.sizes.entry(d.clone()).or_insert((v, axis));
                }
            }
        }
    }

    // --- slots -----------------------------------------------------------------------------------------------------

    fn slot(&mut self, origin: Origin, dtype: DType) -> Tid {
        self.slots.push(Slot { origin, dtype, holders: Vec::new(), channels_last: false });
        Tid(self.slots.len() as u32 - 1)
    }

    /// A slot for a result that only this lowering knows.
    pub(crate) fn fresh(&mut self) -> Tid {
        self.slot(Origin::Temp, DType::Float32)
    }

    /// A slot that the branches of an `If` write, with the type they leave in it.
    pub(crate) fn fresh_of(&mut self, dtype: DType) -> Tid {
        self.slot(Origin::Temp, dtype)
    }

    /// A scalar value's slot.
    pub(crate) fn fresh_value(&mut self) -> Vid {
        self.values += 1;
        Vid(self.values - 1)
    }

    pub(crate) fn dtype(&self, t: Tid) -> DType {
        self.slots[t.0 as usize].dtype
    }

    /// The slot of a constant, shared by all uses of the same data under the same type.
    pub(crate) fn constant(&mut self, name: &str, data: TensorData) -> Res<Tid> {
        accepted(data.dtype()).map_err(|e| e.about(format_args!("constant {name}")))?;
        let key = (data.identity(), data.dtype(), data.shape().to_vec());
        if let Some(&t) = self.constants.get(&key) {
            self.note_use(t, name);
            return Ok(t);
        }
        let count = self.constant_names.entry(name.to_owned()).or_insert(0);
        *count += 1;
        let wanted = name;
        let name = if *count == 1 { name.to_owned() } else { format!("{name}#{count}") };
        let dtype = data.dtype();
        let t = self.slot(Origin::Constant { name, data: ConstantData(data) }, dtype);
        self.constants.insert(key, t);
        self.note_use(t, wanted);
        Ok(t)
    }

    /// Notes under which name, and by what, a constant is used.
    fn note_use(&mut self, t: Tid, name: &str) {
        let table = self.node.is_some_and(|id| self.graph.node(id).op == op!("aten.embedding.default"));
        let uses = self.uses.entry(t).or_default();
        if !uses.names.contains(name) {
            uses.names.insert(name.to_owned());
        }
        uses.as_table |= table;
        uses.otherwise |= !table;
    }

    /// The names that a constant stands for and the number of uses that would need one each, if there are several: names of
    /// weights, and a table that is multiplied by as well.
    pub(crate) fn tie(&self, t: Tid) -> Option<(Vec<String>, u64)> {
        let uses = self.uses.get(&t)?;
        let names: Vec<String> = uses.names.iter().filter(|n| !n.starts_with('_')).cloned().collect();
        let several = (names.len() as u64).max(1 + u64::from(uses.as_table && uses.otherwise));
        (several > 1 && !names.is_empty()).then_some((names, several))
    }

    /// A 0-d constant.
    pub(crate) fn scalar(&mut self, value: f64, dtype: DType) -> Res<Tid> {
        let bytes = super::consts::element(value, dtype).ok_or_else(|| Refusal::new(format!("{value} is no {dtype}")))?;
        let data = TensorData::inline(dtype, vec![], bytes).map_err(|e| Refusal::new(e.to_string()))?;
        self.constant(&format!("_scalar_{value:?}_{dtype}"), data)
    }

    /// A 0-d constant of a type of integers, wrapped into its range as torch does.
    pub(crate) fn integer(&mut self, value: i64, dtype: DType) -> Res<Tid> {
        let bytes = super::consts::wrapped(value, dtype).ok_or_else(|| Refusal::new(format!("{value} is no {dtype}")))?;
        let data = TensorData::inline(dtype, vec![], bytes).map_err(|e| Refusal::new(e.to_string()))?;
        self.constant(&format!("_scalar_{value}_{dtype}"), data)
    }

    /// Biases of an affine quantisation. `neutral` is the zero point that makes them a multiple of the scales; if all of
    /// them are that (seen when the program is made), the init chain computes the biases and the file holds none.
    pub(crate) fn biases(
        &mut self,
        name: &str,
        scales: Tid,
        scale_data: &TensorData,
        zeros: Option<&TensorData>,
        offset: f32,
        neutral: f32,
    ) -> Res<Tid> {
        let data = super::derive::biases(scale_data, zeros, offset).map_err(|e| Refusal::new(e.to_string()))?;
        let known = self.slots.len();
        let t = self.constant(name, data)?;
        if t.0 as usize == known {
            self.zero_points.push(ZeroPoints { biases: t, scales, zeros: zeros.cloned(), neutral, multiple: -(offset + neutral) });
        }
        Ok(t)
    }

    /// Replaces biases that are multiples of their scales by an instruction of the init chain. Reads zero points, but for those that are
    /// still to be chosen, of which hardly a weight has none.
    pub(crate) fn settle_biases(&mut self) -> Result<(), etx_ir::error::Error> {
        for z in std::mem::take(&mut self.zero_points) {
            let neutral = match &z.zeros {
                None => true,
                Some(data) if data.is_costly() => false,
                Some(data) => super::derive::is_within(data, z.neutral, z.neutral)?,
            };
            if !neutral {
                continue;
            }
            let dtype = self.dtype(z.scales);
            let slot = &mut self.slots[z.biases.0 as usize];
            if let (Origin::Constant { data, .. }, Some(zero)) = (&mut slot.origin, super::consts::element(0.0, dtype)) {
                *data = ConstantData(TensorData::inline(dtype, vec![], zero)?);
            }
            let b = self
                .scalar(f64::from(z.multiple), dtype)
                .map_err(|e| etx_ir::error::Error::new(etx_ir::error::ErrorKind::Weight, e.to_string()))?;
            self.init.push(Instr::Multiply { a: z.scales, b, out: z.biases });
        }
        Ok(())
    }

    /// A constant that instructions of the init chain write; the file holds nothing of it.
    pub(crate) fn made_at_start(&mut self, name: &str, dtype: DType) -> Res<Tid> {
        let nothing = super::consts::element(0.0, dtype).ok_or_else(|| Refusal::new(format!("0 is no {dtype}")))?;
        let data = TensorData::inline(dtype, vec![], nothing).map_err(|e| Refusal::new(e.to_string()))?;
        let count = self.constant_names.entry(name.to_owned()).or_insert(0);
        *count += 1;
        let name = if *count == 1 { name.to_owned() } else { format!("{name}#{count}") };
        Ok(self.slot(Origin::Constant { name, data: ConstantData(data) }, dtype))
    }

    /// The constant that these instructions of the init chain make, once for all who ask for the same data.
    pub(crate) fn made_once(&mut self, name: &str, data: &TensorData, make: impl FnOnce(Tid) -> Vec<Instr>) -> Res<Tid> {
        let key = (data.identity(), data.dtype(), data.shape().to_vec());
        if let Some(&t) = self.constants.get(&key) {
            return Ok(t);
        }
        let t = self.made_at_start(name, data.dtype())?;
        self.init.extend(make(t));
        self.constants.insert(key, t);
        Ok(t)
    }

    /// Asks for a look at stored scales when the program is made.
    pub(crate) fn must_be_finite(&mut self, name: &'a str, data: &TensorData) {
        self.finite.insert(name, data.clone());
    }

    /// Fails if scales are no numbers, with all of them. Reads those that are stored.
    pub(crate) fn check_scales(&self) -> Result<(), etx_ir::error::Error> {
        let mut wrong = Vec::new();
        for (name, data) in self.finite.iter().filter(|(_, data)| data.bytes().is_some()) {
            if let Some((at, value)) = super::derive::first_not_finite(data)? {
                wrong.push(format!("scale {at} of weight {name} is {value}"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(etx_ir::error::Error::many(etx_ir::error::ErrorKind::Weight, wrong)
            .help("the quantised weights are damaged, or were quantised from weights that are no numbers; quantise them again"))
    }

    /// A 1-d constant of 64-bit or 32-bit integers.
    pub(crate) fn int_vector(&mut self, name: &str, values: &[i64], dtype: DType) -> Res<Tid> {
        let mut bytes = Vec::new();
        for &n in values {
            bytes.extend(super::consts::integer(n, dtype).ok_or_else(|| Refusal::new(format!("{n} is no {dtype}")))?);
        }
        let data = TensorData::inline(dtype, vec![values.len() as u64], bytes).map_err(|e| Refusal::new(e.to_string()))?;
        self.constant(name, data)
    }

    /// The weight behind a value that is a parameter, constant or unmutated buffer.
    pub(crate) fn weight(&self, v: ValueId) -> Option<(&'a str, &'a TensorData)> {
        let input = self.method.inputs.get(*self.input_of.get(&v)?)?;
        let weight = input.kind.weight().filter(|_| !self.mutated.contains_key(&v))?;
        let weight = self.program.weight(weight);
        Some((&weight.name, &weight.data))
    }

    /// Notes that the node depends on a value without reading its slot (its bytes went into a derived constant).
    pub(crate) fn depends(&mut self, v: ValueId) {
        self.reads.push(v);
    }

    /// The slot that holds a tensor value.
    pub(crate) fn tensor(&mut self, v: ValueId) -> Res<Tid> {
        self.reads.push(v);
        if let Some(t) = self.bound[v.index()] {
            if let Some((name, _)) = self.weight(v) {
                self.note_use(t, name);
            }
            return Ok(t);
        }
        let Some(ty) = self.graph.tensor(v) else {
            return Err(Refusal::new(format!("{} is not a tensor", describe(self.graph, v))));
        };
        if let Some((name, data)) = self.weight(v) {
            let t = self.constant(name, data.clone())?;
            self.bound[v.index()] = Some(t);
            return Ok(t);
        }
        accepted(ty.dtype).map_err(|e| e.about(describe(self.graph, v)))?;
        let origin = match self.input_of.get(&v).map(|&i| &self.method.inputs[i].kind) {
            Some(InputKind::User) | None => Origin::Input(v),
            Some(InputKind::Buffer { .. } | InputKind::Parameter(_) | InputKind::Constant(_)) => Origin::Buffer(v),
            Some(_) => return Err(Refusal::new(format!("{} is not a tensor", describe(self.graph, v)))),
        };
        // ExecuTorch gives tensors without elements strides that the delegate takes for those of a view. There is nothing to pass anyway.
        if let (Origin::Input(_), Some(shape)) = (&origin, ty.static_shape().filter(|s| s.contains(&0))) {
            let shape = shape.into_iter().map(i64::unsigned_abs).collect();
            let data = TensorData::inline(ty.dtype, shape, Vec::new()).map_err(|e| Refusal::new(e.to_string()))?;
            let t = self.constant("_empty", data)?;
            self.bound[v.index()] = Some(t);
            return Ok(t);
        }
        let t = self.slot(origin, ty.dtype);
        self.slots[t.0 as usize].holders.push(v);
        self.bound[v.index()] = Some(t);
        self.note_sizes(v);
        Ok(t)
    }

    // --- emission --------------------------------------------------------------------------------------------------

    /// Appends an instruction and notes the type of what it writes.
    pub(crate) fn push(&mut self, instr: Instr) {
        if let Some(dtype) = dtype::result(&instr, &|t| self.dtype(t)) {
            instr.visit_slots(|slot, access| {
                if let (etx_mlx::SlotRef::Tensor(t), etx_mlx::Access::Write) = (slot, access) {
                    self.slots[t.0 as usize].dtype = dtype;
                }
            });
        }
        if super::layout::is_channels_last(&instr, &|t| self.is_channels_last(t)) {
            instr.visit_slots(|slot, access| {
                if let (etx_mlx::SlotRef::Tensor(t), etx_mlx::Access::Write) = (slot, access) {
                    self.slots[t.0 as usize].channels_last = true;
                }
            });
        }
        if let (Instr::RandomBits { out, seed: None, .. }, Some(node)) = (&instr, self.node) {
            self.draws.insert(*out, node);
        }
        self.chains[self.chain].push(instr);
    }

    /// The nodes whose instructions draw random numbers, others at every call, in order.
    pub(crate) fn draws(&self) -> Vec<NodeId> {
        let drawn = self.chains.iter().flatten().filter_map(|instr| match instr {
            Instr::RandomBits { out, seed: None, .. } => self.draws.get(out).copied(),
            _ => None,
        });
        let mut nodes: Vec<NodeId> = drawn.collect();
        nodes.sort_by_key(|id| self.positions[id.index()]);
        nodes.dedup();
        nodes
    }

    /// Whether what the slot holds lies with channels last, so that it costs nothing to see it that way again.
    pub(crate) fn is_channels_last(&self, t: Tid) -> bool {
        self.slots[t.0 as usize].channels_last
    }

    pub(crate) fn is_temp(&self, t: Tid) -> bool {
        self.slots[t.0 as usize].origin == Origin::Temp
    }

    /// Name and data of a constant's slot.
    pub(crate) fn constant_of(&self, t: Tid) -> Option<(&str, &TensorData)> {
        match &self.slots[t.0 as usize].origin {
            Origin::Constant { name, data } => Some((name, &data.0)),
            _ => None,
        }
    }

    /// The shape of what the slot holds, where it is a constant or a value of the graph.
    pub(crate) fn shape(&self, t: Tid) -> Option<Vec<Expr>> {
        if let Some(shape) = self.shapes.get(&t) {
            return Some(shape.clone());
        }
        if let Some((_, data)) = self.constant_of(t) {
            return data.shape().iter().map(|&n| i64::try_from(n).ok().map(Expr::Int)).collect();
        }
        let slot = &self.slots[t.0 as usize];
        let v = match slot.origin {
            Origin::Input(v) | Origin::Buffer(v) => v,
            _ => *slot.holders.first()?,
        };
        self.graph.tensor(v).map(|ty| ty.shape.clone())
    }

    /// Appends an instruction with a result of its own.
    pub(crate) fn temp(&mut self, make: impl FnOnce(Tid) -> Instr) -> Tid {
        let out = self.fresh();
        self.push(make(out));
        out
    }

    /// Like [`Cx::temp`], for what depends on slot `of` alone and is worth computing once: `key` says what it is.
    pub(crate) fn once(&mut self, of: Tid, key: &str, make: impl FnOnce(Tid) -> Instr) -> Tid {
        // Inside a branch the result would not exist elsewhere; a buffer changes under the key.
        let buffer = matches!(self.slots[of.0 as usize].origin, Origin::Buffer(_));
        if self.chain != 0 || buffer {
            return self.temp(make);
        }
        if let Some(&t) = self.shared.get(&(of, key.to_owned())) {
            return t;
        }
        let t = self.temp(make);
        self.shared.insert((of, key.to_owned()), t);
        t
    }

    /// The slot's contents as another type.
    pub(crate) fn cast(&mut self, x: Tid, to: DType) -> Res<Tid> {
        if self.dtype(x) == to {
            return Ok(x);
        }
        accepted(to)?;
        if let Origin::Constant { name, data } = &self.slots[x.0 as usize].origin
            && let Some(cast) = super::consts::cast_small(&data.0, to)
        {
            return self.constant(&format!("{name}_{to}"), cast);
        }
        Ok(self.once(x, to.name(), |out| Instr::AsType { x, out, scalar_type: to }))
    }

    /// The number in a slot of one element. MLX reads the first four bytes, whatever the type: narrower ones and floats are cast before.
    pub(crate) fn item(&mut self, x: Tid) -> Res<Vid> {
        let dtype = self.dtype(x);
        let x = if dtype.size() < 4 || dtype.is_float() { self.cast(x, DType::Int32)? } else { x };
        let out = self.fresh_value();
        self.push(Instr::ItemInt { x, out });
        Ok(out)
    }

    /// The slot's contents in single precision, if they are halves.
    pub(crate) fn widened(&mut self, x: Tid) -> Res<Tid> {
        if matches!(self.dtype(x), DType::Float16 | DType::BFloat16) { self.cast(x, DType::Float32) } else { Ok(x) }
    }

    /// Says that a slot holds a value, cast to the type that torch declares where MLX's differs.
    pub(crate) fn bind(&mut self, v: ValueId, t: Tid) -> Res {
        let Some(ty) = self.graph.tensor(v) else {
            return Err(Refusal::new(format!("{} is not a tensor", describe(self.graph, v))));
        };
        accepted(ty.dtype).map_err(|e| e.about(describe(self.graph, v)))?;
        // Outputs are cast on their way out.
        let only_returned = self.graph.value(v).users().is_empty();
        let t = if only_returned { t } else { self.cast(t, ty.dtype)? };
        self.bound[v.index()] = Some(t);
        self.slots[t.0 as usize].holders.push(v);
        self.note_sizes(v);
        Ok(())
    }

    /// Appends the instruction that computes a value.
    pub(crate) fn define(&mut self, v: ValueId, make: impl FnOnce(Tid) -> Instr) -> Res {
        let t = self.temp(make);
        self.bind(v, t)
    }

    /// Emits into a chain of its own, for `If` and `Scan`.
    pub(crate) fn in_chain(&mut self, f: impl FnOnce(&mut Self) -> Res) -> Res<u32> {
        let outer = self.chain;
        self.chains.push(Vec::new());
        self.chain = self.chains.len() - 1;
        let mine = self.chain;
        // What a branch computes is not there after the other one ran.
        let (known, shared) = (self.known.clone(), self.shared.clone());
        let done = f(self);
        (self.known, self.shared) = (known, shared);
        self.chain = outer;
        done.map(|()| mine as u32)
    }

    /// One of two forms: by a number known now, or by an `If`.
    pub(crate) fn choose(&mut self, cond: IntOrVid, then: impl FnOnce(&mut Self) -> Res, otherwise: impl FnOnce(&mut Self) -> Res) -> Res {
        match cond {
            IntOrVid::Int(0) => otherwise(self),
            IntOrVid::Int(_) => then(self),
            IntOrVid::Vid(_) => {
                let then_chain_idx = self.in_chain(then)?;
                let else_chain_idx = self.in_chain(otherwise)?;
                self.push(Instr::If { cond, then_chain_idx, else_chain_idx });
                Ok(())
            }
        }
    }

    /// Computes the new contents `new` of what `old` holds: in place if it is a buffer on its way to its next state.
    /// `make` gets the slot to read and the one to write.
    pub(crate) fn update(&mut self, old: ValueId, new: ValueId, make: impl FnOnce(Tid, Tid) -> Instr) -> Res {
        self.update_all(old, new, vec![Box::new(make)])
    }

    /// As [`Cx::update`], in two steps.
    pub(crate) fn update_twice(
        &mut self,
        old: ValueId,
        new: ValueId,
        first: impl FnOnce(Tid, Tid) -> Instr,
        second: impl FnOnce(Tid, Tid) -> Instr,
    ) -> Res {
        self.update_all(old, new, vec![Box::new(first), Box::new(second)])
    }

    fn update_all(&mut self, old: ValueId, new: ValueId, steps: Vec<Box<dyn FnOnce(Tid, Tid) -> Instr + '_>>) -> Res {
        let dst = self.tensor(old)?;
        let in_place = match &self.slots[dst.0 as usize].origin {
            Origin::Buffer(state) => self.mutated.get(state).is_some_and(|path| path.contains(&new)),
            _ => false,
        };
        if !in_place {
            let mut at = dst;
            for make in steps {
                let from = at;
                at = self.temp(|out| make(from, out));
            }
            return self.bind(new, at);
        }
        self.rescue(dst);
        for make in steps {
            self.push(make(dst, dst));
        }
        self.bound[new.index()] = Some(dst);
        self.slots[dst.0 as usize].holders = vec![new];
        Ok(())
    }

    /// Saves the contents of a buffer for those who will still ask for them.
    fn rescue(&mut self, buffer: Tid) {
        let holders = std::mem::take(&mut self.slots[buffer.0 as usize].holders);
        let later: Vec<ValueId> = holders.into_iter().filter(|&v| self.is_wanted_later(v)).collect();
        if !later.is_empty() {
            let copy = self.temp(|out| Instr::IdCopy { x: buffer, out });
            for v in later {
                self.bound[v.index()] = Some(copy);
            }
        }
    }

    fn is_wanted_later(&self, v: ValueId) -> bool {
        self.outputs.contains(&v) || self.graph.value(v).users().iter().any(|u| self.positions[u.index()] > self.now)
    }

    /// Values that become the new state of a buffer.
    pub(crate) fn state_results(&self) -> std::collections::BTreeSet<ValueId> {
        let pairs = self.graph.outputs().iter().zip(&self.method.outputs);
        pairs.filter_map(|(out, kind)| out.as_value().filter(|_| matches!(kind, OutputKind::StateMutation(_)))).collect()
    }

    /// Whether the value is asked for by anything but the state it becomes: the caller, or a node of another partition.
    pub(crate) fn is_returned(&self, v: ValueId) -> bool {
        let pairs = self.graph.outputs().iter().zip(&self.method.outputs);
        pairs.into_iter().any(|(out, kind)| out.as_value() == Some(v) && !matches!(kind, OutputKind::StateMutation(_)))
    }

    /// Writes the new state of buffers that were not updated in place. Call last.
    pub(crate) fn write_back(&mut self) -> Res {
        let mut writes: Vec<(Tid, Tid)> = Vec::new();
        for (out, kind) in self.graph.outputs().iter().zip(&self.method.outputs) {
            if let (Arg::Value(new), OutputKind::StateMutation(i)) = (out, kind)
                && let Some(old) = self.method.inputs.get(*i as usize).and_then(|input| input.value)
                && self.outputs.contains(new)
            {
                let Some(buffer) = self.buffer_of(old)? else { continue };
                let from = self.tensor(*new)?;
                if from != buffer {
                    writes.push((from, buffer));
                }
            }
        }
        // A buffer that becomes another's contents must be read before it is overwritten itself.
        for i in 0..writes.len() {
            let (from, _) = writes[i];
            if writes.iter().any(|w| w.1 == from) {
                writes[i].0 = self.temp(|out| Instr::IdCopy { x: from, out });
            }
        }
        for (x, out) in writes {
            // The state keeps its type.
            let x = self.cast(x, self.dtype(out))?;
            self.push(Instr::IdCopy { x, out });
        }
        Ok(())
    }

    /// The slot of the state behind a graph input, whatever value it holds by now.
    fn buffer_of(&mut self, old: ValueId) -> Res<Option<Tid>> {
        let found = self.slots.iter().position(|s| s.origin == Origin::Buffer(old));
        match found {
            Some(i) => Ok(Some(Tid(i as u32))),
            None => {
                let t = self.tensor(old)?;
                Ok(matches!(self.slots[t.0 as usize].origin, Origin::Buffer(_)).then_some(t))
            }
        }
    }
}

/// Values that are symbols of their own: integers that the caller passes and those taken out of tensors. (A size that is
/// a symbol is read off the tensor.)
fn symbol_values(graph: &Graph) -> HashMap<Symbol, ValueId> {
    let mut symbols = HashMap::new();
    let taken_out = graph.nodes().filter(|(_, n)| super::ops::takes_out(n.op)).flat_map(|(_, n)| n.outputs.iter());
    for &v in graph.inputs().iter().chain(taken_out) {
        if let Type::Int(Expr::Sym(s)) | Type::Float(Expr::Sym(s)) = graph.ty(v) {
            symbols.entry(s.clone()).or_insert(v);
        }
    }
    symbols
}

/// Whether MLX has the element type.
pub(crate) fn accepted(t: DType) -> Result<(), Refusal> {
    if etx_mlx::Program::accepts(t) {
        return Ok(());
    }
    Err(match t {
        DType::Float64 | DType::Complex128 => {
            Refusal::new(format!("MLX has no {t}")).remedy("lower with --f64-as-f32, or export the model in float32")
        }
        t if t.is_float() => Refusal::new(format!("MLX computes in no {t}"))
            .remedy("quantise weights alone, not activations: weights of 8-bit floats are cast when the file is written"),
        t => Refusal::new(format!("MLX programs have no {t}")),
    })
}
