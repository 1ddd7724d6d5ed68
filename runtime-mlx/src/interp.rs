//! The interpreter of MLX programs.
//!
//! A [`Machine`] is one program with its state: constants, mutable buffers, the caches of attention. It walks the chains
//! and leaves all arithmetic to its [`Engine`].
//!
//! Programs are verified before anything runs ([`etx_mlx::verify`]), so that what can be known without running
//! (slots, chains, recursion) is known; what depends on data is checked instruction by instruction. A failing call names
//! the chain, the number and the text of the instruction.
//!
//! Temps are dropped after their last use. That keeps memory low, and it leaves a mutable buffer with a single holder
//! by the time it is updated, which then happens in place.

mod cache;
mod exec;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use etx_ir::DType;
use etx_mlx::{Access, FloatOrVid, Instr, IntOrVid, NamedSlot, Program, ShapeDim, Slot, SlotRef, Space, TensorMeta, Tid, Vid};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::limits::{self, Account, Limits};
use crate::tensor::Tensor;
use crate::value::{self, Value};
use cache::Caches;

/// A scalar value of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scalar {
    Int(i32),
    Float(f32),
    Bool(bool),
}

/// A program, loaded: constants in place, mutable buffers with their contents, ready to be called.
pub struct Machine<E: Engine> {
    engine: E,
    program: Program,
    tensors: Vec<Option<E::Array>>,
    values: Vec<Option<Scalar>>,
    caches: Caches<E::Array>,
    /// Constants as they were before the init chain ran; kept only if there is one.
    pristine: Vec<E::Array>,
    /// For each instruction of the main chain, the temps that nobody reads afterwards.
    last_uses: Vec<Vec<Tid>>,
    /// What it may take when it is called by itself, not by a method.
    account: Arc<Account>,
}

impl<E: Engine> Machine<E> {
    /// Loads a program: `constant` gives the bytes of each constant by its name and description.
    ///
    /// # Errors
    /// [`ErrorKind::Format`](crate::ErrorKind::Format) listing all that is wrong with the program; whatever `constant`
    /// says; failures of the init chain.
    pub fn new(engine: E, program: Program, mut constant: impl FnMut(&str, &TensorMeta) -> Result<Tensor>) -> Result<Self> {
        if let Err(problems) = program.verify() {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return Err(Error::format(format!("the MLX program breaks its rules:\n  {}", list.join("\n  "))));
        }
        let tensors = vec![None; usize::try_from(program.num_tensors()).unwrap_or(0)];
        let last_uses = last_uses(&program);
        let instructions = program.chains.iter().map(|c| c.len() as u64).sum();
        let mut machine = Machine {
            engine,
            tensors,
            values: vec![None; program.num_values as usize],
            caches: Caches::new(),
            pristine: Vec::new(),
            last_uses,
            account: limits::current().unwrap_or_else(|| Account::new(Limits::default(), 0, instructions)),
            program,
        };
        // A constant may have several names; as upstream's loader has it, the last one is the key.
        let mut keys: BTreeMap<Tid, String> = BTreeMap::new();
        for named in &machine.program.named_slots {
            if let Slot::Tensor(tid) = named.slot {
                keys.insert(tid, named.name.clone());
            }
        }
        for (tid, name) in keys {
            if let (Some((Space::Constant, _)), Some(meta)) = (machine.program.space_of(tid), machine.program.meta(tid)) {
                let place = || format!("constant `{name}`");
                let tensor = constant(&name, meta).map_err(|e| e.within(place()))?;
                let array = machine.engine.upload(&tensor).map_err(|e| e.within(place()))?;
                machine.set(tid, array)?;
            }
        }
        if machine.program.init_chain.is_some() {
            let constants = machine.tensors.iter().take(machine.program.num_constants as usize);
            machine.pristine = constants.flatten().cloned().collect();
        }
        machine.start()?;
        Ok(machine)
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Fixes the element type in which the runtime's own key/value caches (those of `UpdateAndAttend`) store; `None` takes
    /// that of the first keys and values. Forgets what they hold.
    pub fn set_cache_dtype(&mut self, dtype: Option<DType>) {
        self.caches.set_dtype(dtype);
    }

    /// Back to the state after loading: mutable buffers as the init chain leaves them (zero without one), no caches.
    ///
    /// # Errors
    /// Those of the init chain, which cannot happen if loading succeeded and memory suffices.
    pub fn reset(&mut self) -> Result<()> {
        for (slot, array) in self.tensors.iter_mut().zip(&self.pristine) {
            *slot = Some(array.clone());
        }
        self.start()
    }

    /// Whether a call can leave something behind for the next: mutable buffers, or caches of the runtime.
    pub fn is_stateful(&self) -> bool {
        let caching = |instr: &Instr| matches!(instr, Instr::UpdateAndAttend { .. });
        self.program.num_mutable_buffers > 0 || self.program.chains.iter().flatten().any(caching)
    }

    /// Exchanges with another machine the mutable buffers that both have (by name, element type and shape) and the
    /// caches of the runtime. Nothing is copied. Tells how many buffers were exchanged.
    pub fn swap_state(&mut self, other: &mut Machine<E>) -> usize {
        std::mem::swap(&mut self.caches, &mut other.caches);
        let theirs = other.buffers();
        let mut swapped = 0;
        for (name, mine) in self.buffers() {
            let Some(&yours) = theirs.get(&name) else { continue };
            if self.program.meta(mine) != other.program.meta(yours) {
                continue;
            }
            if let (Some(a), Some(b)) = (self.tensors.get_mut(mine.0 as usize), other.tensors.get_mut(yours.0 as usize)) {
                std::mem::swap(a, b);
                swapped += 1;
            }
        }
        swapped
    }

    /// Mutable buffers by name.
    fn buffers(&self) -> BTreeMap<String, Tid> {
        let buffer = |named: &NamedSlot| match named.slot {
            Slot::Tensor(tid) if matches!(self.program.space_of(tid), Some((Space::MutableBuffer, _))) => Some((named.name.clone(), tid)),
            _ => None,
        };
        self.program.named_slots.iter().filter_map(buffer).collect()
    }

    fn start(&mut self) -> Result<()> {
        self.caches.clear();
        for index in 0..self.program.num_mutable_buffers {
            let Some(tid) = self.program.tensor_in(Space::MutableBuffer, index) else { continue };
            let Some(meta) = self.program.meta(tid) else { continue };
            let shape: Vec<usize> = meta.shape.iter().map(|d| d.as_static().unwrap_or(0) as usize).collect();
            let zeros = Tensor::zeros(meta.dtype, &shape).and_then(|t| self.engine.upload(&t));
            let zeros = zeros.map_err(|e| e.within(format!("mutable buffer {}", self.program.slot_name(tid))))?;
            self.set(tid, zeros)?;
        }
        if let Some(chain) = self.program.init_chain {
            self.run_chain(chain, false)?;
            self.clear_call();
        }
        Ok(())
    }

    /// Calls the program. Inputs and outputs are in the order of its maps; outputs have the declared element types.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::ErrorKind::Argument) when inputs do not fit, otherwise what the failing
    /// instruction says. Mutable buffers that were written before the failure stay written.
    pub fn run(&mut self, inputs: &[Value]) -> Result<Vec<Value>> {
        self.clear_call();
        let outer = limits::current();
        let account = outer.clone().unwrap_or_else(|| {
            let (bytes, elements) = value::sizes(inputs);
            self.account.begin(bytes, elements);
            Arc::clone(&self.account)
        });
        // The work may be done on another thread.
        let result = E::session(|| {
            account.enter(|| {
                self.bind(inputs)?;
                self.run_chain(self.program.main_chain, true)?;
                self.results()
            })
        });
        self.clear_call();
        if outer.is_none() {
            result.iter().flatten().for_each(Value::release);
        }
        result
    }

    fn bind(&mut self, inputs: &[Value]) -> Result<()> {
        let map = &self.program.input_map;
        if map.len() != inputs.len() {
            return Err(Error::argument(format!("{} inputs given, the program takes {}", inputs.len(), map.len())));
        }
        for (i, (slot, value)) in map.clone().into_iter().zip(inputs).enumerate() {
            self.bind_one(slot, value).map_err(|e| e.within(format!("input {i}")))?;
        }
        Ok(())
    }

    fn bind_one(&mut self, slot: Slot, value: &Value) -> Result<()> {
        match (slot, value) {
            (Slot::Tensor(tid), Value::Tensor(tensor)) => {
                if let Some(meta) = self.program.meta(tid) {
                    check_input(meta, tensor)?;
                }
                let array = self.engine.upload(tensor)?;
                self.set(tid, array)
            }
            (Slot::Int(vid), Value::Int(n)) => {
                let n = i32::try_from(*n).map_err(|_| Error::argument(format!("{n} does not fit 32 bits")))?;
                self.set_value(vid, Scalar::Int(n))
            }
            (Slot::Float(vid), Value::Float(x)) => self.set_value(vid, Scalar::Float(*x as f32)),
            (Slot::Bool(vid), Value::Bool(b)) => self.set_value(vid, Scalar::Bool(*b)),
            (slot, value) => {
                let want = match slot {
                    Slot::Tensor(_) => "tensor",
                    Slot::Int(_) => "int",
                    Slot::Float(_) => "float",
                    Slot::Bool(_) => "bool",
                };
                Err(Error::argument(format!("a {want} is needed, found a {}", value.kind())))
            }
        }
    }

    fn results(&self) -> Result<Vec<Value>> {
        let one = |slot: &Slot| match *slot {
            Slot::Tensor(tid) => {
                let array = self.get(tid)?;
                let cast = match self.program.meta(tid) {
                    Some(meta) => self.engine.cast(array, meta.dtype)?,
                    None => array.clone(),
                };
                Ok(Value::Tensor(self.engine.download(&cast)?))
            }
            Slot::Int(vid) | Slot::Float(vid) | Slot::Bool(vid) => Ok(match self.value(vid)? {
                Scalar::Int(n) => Value::Int(i64::from(n)),
                Scalar::Float(x) => Value::Float(f64::from(x)),
                Scalar::Bool(b) => Value::Bool(b),
            }),
        };
        let place = |(i, slot)| one(slot).map_err(|e: Error| e.within(format!("output {i}")));
        self.program.output_map.iter().enumerate().map(place).collect()
    }

    /// Forgets everything but constants and mutable buffers.
    fn clear_call(&mut self) {
        let p = &self.program;
        let inputs = p.num_constants as usize;
        let buffers = inputs + p.num_inputs as usize + p.num_outputs as usize;
        let temps = buffers + p.num_mutable_buffers as usize;
        for (i, tensor) in self.tensors.iter_mut().enumerate() {
            if (inputs..buffers).contains(&i) || i >= temps {
                *tensor = None;
            }
        }
        self.values.fill(None);
    }

    fn run_chain(&mut self, chain: u32, drop_temps: bool) -> Result<()> {
        // Taken out for the walk, so that instructions can be borrowed while slots change. Chains do not call
        // themselves (the program was verified).
        let Some(slot) = self.program.chains.get_mut(chain as usize) else {
            return Err(Error::range(format!("there is no chain {chain}")));
        };
        let instrs = std::mem::take(slot);
        let mut result = Ok(());
        for (i, instr) in instrs.iter().enumerate() {
            if let Err(e) = limits::step(1).and_then(|()| self.execute(instr)) {
                let text = self.program.show(instr).to_string();
                result = Err(e.within(format!("chain {chain}, instruction {i}, `{text}`")));
                break;
            }
            if drop_temps && let Some(dead) = self.last_uses.get(i) {
                for tid in dead {
                    if let Some(slot) = self.tensors.get_mut(tid.0 as usize) {
                        *slot = None;
                    }
                }
            }
        }
        if let Some(slot) = self.program.chains.get_mut(chain as usize) {
            *slot = instrs;
        }
        result
    }

    fn get(&self, tid: Tid) -> Result<&E::Array> {
        match self.tensors.get(tid.0 as usize) {
            Some(Some(array)) => Ok(array),
            Some(None) => Err(Error::unset(format!("{} is read before it is written", self.program.slot_name(tid)))),
            None => Err(Error::range(format!("there is no tensor {}", tid.0))),
        }
    }

    fn set(&mut self, tid: Tid, array: E::Array) -> Result<()> {
        match self.tensors.get_mut(tid.0 as usize) {
            Some(slot) => {
                *slot = Some(array);
                Ok(())
            }
            None => Err(Error::range(format!("there is no tensor {}", tid.0))),
        }
    }

    fn value(&self, vid: Vid) -> Result<Scalar> {
        match self.values.get(vid.0 as usize) {
            Some(Some(value)) => Ok(*value),
            Some(None) => Err(Error::unset(format!("{} is read before it is written", self.program.slot_name(vid)))),
            None => Err(Error::range(format!("there is no value {}", vid.0))),
        }
    }

    fn set_value(&mut self, vid: Vid, value: Scalar) -> Result<()> {
        match self.values.get_mut(vid.0 as usize) {
            Some(slot) => {
                *slot = Some(value);
                Ok(())
            }
            None => Err(Error::range(format!("there is no value {}", vid.0))),
        }
    }

    /// A value as an integer.
    fn int_of(&self, vid: Vid) -> Result<i64> {
        match self.value(vid)? {
            Scalar::Int(n) => Ok(i64::from(n)),
            Scalar::Bool(b) => Ok(i64::from(b)),
            Scalar::Float(x) => Err(Error::dtype(format!("{} holds {x}, not an integer", self.program.slot_name(vid)))),
        }
    }

    /// An integer operand; literals are clamped to 32 bits, so that `i64::MAX` means "to the end".
    fn int(&self, operand: IntOrVid) -> Result<i64> {
        match operand {
            IntOrVid::Int(n) => Ok(n.clamp(i64::from(i32::MIN), i64::from(i32::MAX))),
            IntOrVid::Vid(vid) => self.int_of(vid),
        }
    }

    fn ints(&self, operands: &[IntOrVid]) -> Result<Vec<i64>> {
        operands.iter().map(|&o| self.int(o)).collect()
    }

    fn float(&self, operand: FloatOrVid) -> Result<f32> {
        match operand {
            FloatOrVid::Float(x) => Ok(x as f32),
            FloatOrVid::Vid(vid) => Ok(match self.value(vid)? {
                Scalar::Int(n) => n as f32,
                Scalar::Float(x) => x,
                Scalar::Bool(b) => f32::from(u8::from(b)),
            }),
        }
    }
}

/// An input must have the declared element type and rank, and the declared lengths where they are fixed.
fn check_input(meta: &TensorMeta, tensor: &Tensor) -> Result<()> {
    if tensor.dtype() != meta.dtype {
        return Err(Error::argument(format!("elements of type {} are needed, found {}", meta.dtype, tensor.dtype())));
    }
    let fits = tensor.rank() == meta.shape.len()
        && tensor.shape().iter().zip(&meta.shape).all(|(&have, want)| match *want {
            ShapeDim::Static(n) => have == n as usize,
            // Lower bounds are hints of the exporter (often 2 where 1 works); upper ones size the caller's memory.
            ShapeDim::Dynamic { .. } => true,
        });
    // ExecuTorch gives such a tensor strides that the delegate takes for those of a view.
    if fits && tensor.shape().iter().skip(1).any(|&n| n == 0) {
        let shape = tensor.shape();
        return Err(Error::argument(format!(
            "the delegate refuses inputs of shape {shape:?}: only the first axis may be without elements"
        )));
    }
    if fits {
        return Ok(());
    }
    let want: Vec<String> = meta.shape.iter().map(ToString::to_string).collect();
    Err(Error::argument(format!("shape [{}] is needed, found {:?}", want.join(", "), tensor.shape())))
}

/// For each instruction of the main chain, the temps it is the last to touch, itself or through the chains it runs.
fn last_uses(program: &Program) -> Vec<Vec<Tid>> {
    let Some(main) = program.chains.get(program.main_chain as usize) else { return Vec::new() };
    let mut last = vec![None; usize::try_from(program.num_tensors()).unwrap_or(0)];
    let mut seen = vec![None; program.chains.len()];
    for (i, instr) in main.iter().enumerate() {
        let mut pending = vec![instr];
        while let Some(instr) = pending.pop() {
            instr.visit_slots(|slot, _: Access| {
                if let SlotRef::Tensor(tid) = slot
                    && let Some(last) = last.get_mut(tid.0 as usize)
                {
                    *last = Some(i);
                }
            });
            // Each chain once: chains that call the next one twice would be walked for ever.
            for chain in instr.calls().filter_map(|c| usize::try_from(c).ok()) {
                if let Some(by) = seen.get_mut(chain).filter(|by| **by != Some(i)) {
                    *by = Some(i);
                    pending.extend(program.chains.get(chain).into_iter().flatten());
                }
            }
        }
    }
    let mut dead = vec![Vec::new(); main.len()];
    for (tid, last) in (0..).map(Tid).zip(last) {
        if let (Some(i), Some((Space::Temp, _))) = (last, program.space_of(tid))
            && let Some(list) = dead.get_mut(i)
        {
            list.push(tid);
        }
    }
    dead
}

/// A rank-0 tensor of an integer, as the engine wants offsets.
fn scalar_i32(value: i64) -> Result<Tensor> {
    Tensor::scalar(i32::try_from(value).map_err(|_| Error::range(format!("{value} does not fit 32 bits")))?)
}
