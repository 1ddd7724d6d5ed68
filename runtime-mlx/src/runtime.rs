//! Opening a `.pte` and calling its methods.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use etx_ir::DType;
use etx_ir::conditions::{self, Conditions, Given};
use etx_ir::weights::MappedFile;
use etx_mlx::BACKEND;
use etx_serializer::mlx::decode_window;
use etx_serializer::pte::PteFile;
use etx_serializer::pte::model::{self, EValue, ExecutionPlan, Instruction, TensorShapeDynamism};
use etx_serializer::window::Window;

use crate::cpu::Cpu;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::interp::Machine;
use crate::limits::{self, Account, Limits};
use crate::tensor::{Bool, ByteSource, Tensor};
use crate::value::{self, Value, ValueSpec};
use kernels::{Kernel, Kernels};
use memory::Memory;

/// What a call of a delegate counts as beside its instructions: threads are woken for it.
const DELEGATE: u64 = 16;

impl From<etx_serializer::Error> for Error {
    fn from(e: etx_serializer::Error) -> Self {
        let kind = match e.kind() {
            etx_serializer::ErrorKind::Io => ErrorKind::Io,
            etx_serializer::ErrorKind::NotFound => ErrorKind::Argument,
            _ => ErrorKind::Format,
        };
        let mut text = e.to_string();
        let help = e.remedy().map(str::to_owned);
        if let Some(help) = &help
            && let Some(bare) = text.strip_suffix(&format!("\nhelp: {help}"))
        {
            text = bare.to_owned();
        }
        help.into_iter().fold(Error::new(kind, text), Error::help)
    }
}

/// An open `.pte`. Its weights stay where they are in the mapped file, shared by all methods.
#[derive(Debug, Clone)]
pub struct Runtime {
    file: Arc<PteFile>,
    limits: Limits,
}

impl Runtime {
    /// Opens and checks a file; weights are mapped, not read.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be opened, [`ErrorKind::Format`] if it breaks the format's rules.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Runtime { file: Arc::new(PteFile::open(path)?), limits: Limits::default() })
    }

    /// Checks a file that is mapped already.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] if it breaks the format's rules.
    pub fn of(file: MappedFile) -> Result<Self> {
        Ok(Runtime { file: Arc::new(PteFile::of(file)?), limits: Limits::default() })
    }

    /// Checks a file that is already in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] if it breaks the format's rules.
    pub fn parse(bytes: impl Into<Arc<[u8]>>) -> Result<Self> {
        Ok(Runtime { file: Arc::new(PteFile::parse(bytes)?), limits: Limits::default() })
    }

    /// Sets what methods that are loaded from now on may take; see [`Limits`] for what they may otherwise.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The file.
    pub fn file(&self) -> &PteFile {
        &self.file
    }

    /// The names of the methods, in file order.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.file.methods().iter().map(|plan| plan.name.as_str())
    }

    /// Prepares a method for the cpu engine.
    ///
    /// # Errors
    /// As [`load_method_on`](Self::load_method_on).
    pub fn load_method(&self, name: &str) -> Result<Method> {
        self.load_method_on(name, Cpu)
    }

    /// Prepares a method for any engine. Each load has state of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] if there is no such method, [`ErrorKind::Unsupported`] listing all that the method needs
    /// and this runtime does not have, [`ErrorKind::Format`] for programs that break their rules.
    pub fn load_method_on<E: Engine + Clone>(&self, name: &str, engine: E) -> Result<Method<E>> {
        let plan = self.file.method(name)?;
        let account = Account::new(self.limits, self.file.bytes().len() as u64, instructions(plan));
        let load = || Loader { file: &self.file, plan, account: Arc::clone(&account) }.load(engine);
        account.enter(load).map_err(|e| {
            let e = e.within(format!("method `{name}`"));
            match e.kind() {
                ErrorKind::Format => e.help("the file is damaged, or its writer broke the format's rules; lower the program again"),
                _ => e,
            }
        })
    }
}

/// How many instructions a method's own chains have; those of its delegates are counted once they are decoded.
fn instructions(plan: &ExecutionPlan) -> u64 {
    plan.chains.iter().map(|c| c.instructions.len() as u64).sum()
}

/// What a value of the plan must be.
#[derive(Clone, Debug)]
struct Slot {
    spec: ValueSpec,
    /// What is there before the first call.
    initial: Option<Value>,
    /// Whether a delegate takes it: then a scalar may change from call to call.
    delegated: bool,
}

/// A method, loaded: its programs with their state.
pub struct Method<E: Engine = Cpu> {
    plan: ExecutionPlan,
    slots: Vec<Slot>,
    /// What is there before the next call: literals, constants, and buffers of the plan with their contents.
    state: Vec<Option<Value>>,
    machines: Vec<Option<Machine<E>>>,
    kernels: Kernels,
    memory: Memory,
    /// What must hold of the inputs, if the file says so.
    conditions: Option<Conditions>,
    account: Arc<Account>,
}

impl<E: Engine> Method<E> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// What a call takes, in order.
    pub fn inputs(&self) -> Vec<ValueSpec> {
        self.specs(&self.plan.inputs)
    }

    /// What a call gives, in order.
    pub fn outputs(&self) -> Vec<ValueSpec> {
        self.specs(&self.plan.outputs)
    }

    fn specs(&self, indices: &[i32]) -> Vec<ValueSpec> {
        indices.iter().map(|&i| self.slot(i).map_or(ValueSpec::None, |s| s.spec.clone())).collect()
    }

    /// The MLX programs of its partitions, in the order of the file's delegates.
    pub fn programs(&self) -> impl Iterator<Item = &etx_mlx::Program> {
        self.machines.iter().flatten().map(Machine::program)
    }

    /// Calls the method. State (mutable buffers, caches) carries over to the next call. Where the method takes a scalar,
    /// a tensor of rank 0 is taken for one.
    ///
    /// # Errors
    /// [`ErrorKind::Condition`] before anything is computed when the program was not exported for inputs of these sizes,
    /// [`ErrorKind::Argument`] when the inputs do not fit otherwise; else what the failing instruction says, with its place.
    pub fn execute(&mut self, inputs: &[Value]) -> Result<Vec<Value>> {
        let place = format!("method `{}`", self.plan.name);
        let account = Arc::clone(&self.account);
        let (bytes, elements) = value::sizes(inputs);
        account.begin(bytes, elements);
        let outputs = account.enter(|| self.call(inputs)).map_err(|e| e.within(place))?;
        outputs.iter().for_each(Value::release);
        Ok(outputs)
    }

    /// Fixes the element type in which the runtime's own key/value caches store; `None` (the default) takes that of the
    /// first keys and values. Programs whose cache lives in their own buffers do not have such caches. Forgets what the
    /// caches hold.
    pub fn set_cache_dtype(&mut self, dtype: Option<DType>) {
        self.machines.iter_mut().flatten().for_each(|m| m.set_cache_dtype(dtype));
    }

    /// Whether a call can leave something behind for the next: a cache of keys and values, say.
    pub fn is_stateful(&self) -> bool {
        self.machines.iter().flatten().any(Machine::is_stateful) || !self.memory.buffers.is_empty()
    }

    /// Exchanges state with another method of the same model, so that it continues where this one stopped: buffers of
    /// delegates that both have (by name, element type and shape), and caches of the runtime where each method is one
    /// delegate. Nothing is copied. Tells how many buffers were exchanged.
    pub fn swap_state(&mut self, other: &mut Method<E>) -> usize {
        let mut swapped = 0;
        for mine in self.machines.iter_mut().flatten() {
            for yours in other.machines.iter_mut().flatten() {
                swapped += mine.swap_state(yours);
            }
        }
        swapped
    }

    /// Back to the state after loading.
    ///
    /// # Errors
    /// When memory for the state cannot be had.
    pub fn reset(&mut self) -> Result<()> {
        self.state = self.slots.iter().map(|s| s.initial.clone()).collect();
        let account = Arc::clone(&self.account);
        account.begin(0, 0);
        account.enter(|| self.machines.iter_mut().flatten().try_for_each(Machine::reset))
    }

    fn slot(&self, index: i32) -> Result<&Slot> {
        let slot = usize::try_from(index).ok().and_then(|i| self.slots.get(i));
        slot.ok_or_else(|| Error::format(format!("there is no value {index}")))
    }

    fn call(&mut self, inputs: &[Value]) -> Result<Vec<Value>> {
        if inputs.len() != self.plan.inputs.len() {
            return Err(Error::argument(format!("{} inputs given, {} are needed", inputs.len(), self.plan.inputs.len())));
        }
        if let Some(conditions) = &self.conditions {
            let given: Vec<Given<'_>> = inputs.iter().map(given).collect();
            conditions.check(&given).map_err(|broken| Error::condition(format!("{}\nhelp: {}", broken.what, broken.help)))?;
        }
        let mut values = self.state.clone();
        for (i, (&index, value)) in self.plan.inputs.iter().zip(inputs).enumerate() {
            let value = accept(self.slot(index)?, value).map_err(|e| e.within(format!("input {i}")))?;
            put(&mut values, index, value)?;
        }
        let Self { plan, slots, state, machines, kernels, memory, .. } = self;
        for (c, chain) in plan.chains.iter().enumerate() {
            let mut at = 0;
            while let Some(instruction) = chain.instructions.get(at) {
                limits::step(if matches!(instruction, Instruction::DelegateCall(_)) { DELEGATE } else { 1 })?;
                let place = || format!("plan chain {c}, instruction {at}");
                let kernel = kernels.get(c).and_then(|k| k.get(at)).and_then(Option::as_ref);
                let made = memory.prepare(plan, c, at, &mut values);
                at = made.and_then(|()| step(instruction, at, kernel, slots, machines, &mut values)).map_err(|e| e.within(place()))?;
            }
        }
        for &buffer in &memory.buffers {
            if let Some((slot, value)) = state.get_mut(buffer).zip(values.get(buffer)) {
                slot.clone_from(value);
            }
        }
        memory.finish(plan, &mut values)?;
        let result = |(i, &index): (usize, &i32)| {
            let value = usize::try_from(index).ok().and_then(|v| values.get(v)).cloned().flatten();
            value.ok_or_else(|| Error::unset("it was never computed").within(format!("output {i}")))
        };
        plan.outputs.iter().enumerate().map(result).collect()
    }
}

/// Runs one instruction of a plan and tells which comes next.
fn step<E: Engine>(
    instruction: &Instruction,
    at: usize,
    kernel: Option<&Kernel>,
    slots: &[Slot],
    machines: &mut [Option<Machine<E>>],
    values: &mut [Option<Value>],
) -> Result<usize> {
    match instruction {
        Instruction::DelegateCall(call) => {
            let machine = usize::try_from(call.delegate_index).ok().and_then(|d| machines.get_mut(d)).and_then(Option::as_mut);
            let machine = machine.ok_or_else(|| Error::format(format!("there is no delegate {}", call.delegate_index)))?;
            let (takes, gives) = (machine.program().input_map.len(), machine.program().output_map.len());
            if call.args.len() != takes + gives {
                let given = call.args.len();
                return Err(Error::format(format!("{given} arguments for a delegate with {takes} inputs and {gives} outputs")));
            }
            let (inputs, outputs) = call.args.split_at(takes);
            let inputs = inputs.iter().map(|&i| fetch(values, i).cloned()).collect::<Result<Vec<_>>>()?;
            let place = || format!("delegate {}", call.delegate_index);
            let results = machine.run(&inputs).map_err(|e| e.within(place()))?;
            for (&index, result) in outputs.iter().zip(results) {
                let spec = usize::try_from(index).ok().and_then(|i| slots.get(i)).map(|s| &s.spec);
                let result = match (result, spec) {
                    (Value::Tensor(t), Some(ValueSpec::Tensor { dtype, .. })) => Value::Tensor(crate::cpu::dtype::cast(&t, *dtype)?),
                    (result, _) => result,
                };
                put(values, index, result)?;
            }
        }
        Instruction::MoveCall(call) => {
            let value = fetch(values, call.move_from)?.clone();
            put(values, call.move_to, value)?;
        }
        Instruction::JumpFalseCall(call) => {
            let holds = match fetch(values, call.cond_value_index)? {
                Value::Bool(b) => *b,
                Value::Tensor(t) if t.dtype() == DType::Bool => t.values::<Bool>()?.iter().all(|b| b.get()),
                other => return Err(Error::dtype(format!("a {} cannot decide a jump", other.kind()))),
            };
            if !holds {
                // Past the end means the end; so do negative numbers, upstream as well.
                return Ok(usize::try_from(call.destination_instruction).unwrap_or(usize::MAX));
            }
        }
        Instruction::FreeCall(_) => {}
        Instruction::KernelCall(_) => kernel.ok_or_else(|| Error::unsupported("a kernel that is not there"))?.run(slots, values)?,
    }
    Ok(at + 1)
}

fn fetch(values: &[Option<Value>], index: i32) -> Result<&Value> {
    let value = usize::try_from(index).ok().and_then(|i| values.get(i)).and_then(Option::as_ref);
    value.ok_or_else(|| Error::unset(format!("value {index} is read before it is computed")))
}

fn put(values: &mut [Option<Value>], index: i32, value: Value) -> Result<()> {
    match usize::try_from(index).ok().and_then(|i| values.get_mut(i)) {
        Some(slot) => {
            *slot = Some(value);
            Ok(())
        }
        None => Err(Error::format(format!("there is no value {index}"))),
    }
}

/// What conditions know of an input. Where a number is expected, a tensor of rank 0 may stand for it.
fn given(value: &Value) -> Given<'_> {
    match value {
        Value::Tensor(t) if t.rank() > 0 => Given::Sizes(t.shape()),
        Value::Tensor(t) => match unwrap_scalar(t) {
            Ok(Value::Int(n)) => Given::Number(n),
            _ => Given::Other,
        },
        Value::Int(n) => Given::Number(*n),
        _ => Given::Other,
    }
}

/// The argument as the slot wants it.
fn accept(slot: &Slot, value: &Value) -> Result<Value> {
    let scalar = match value {
        Value::Tensor(t) if t.rank() == 0 && !matches!(slot.spec, ValueSpec::Tensor { .. }) => unwrap_scalar(t)?,
        other => other.clone(),
    };
    match (&slot.spec, &scalar) {
        (ValueSpec::Tensor { dtype, shape, dynamic }, Value::Tensor(t)) => {
            let fits = t.rank() == shape.len()
                && t.shape().iter().zip(shape).all(|(&have, &want)| if *dynamic { have as u64 <= want } else { have as u64 == want });
            if t.dtype() != *dtype || !fits {
                let most = if *dynamic { "at most " } else { "" };
                let what = format!("{most}{dtype}{shape:?} is needed, found {}{:?}", t.dtype(), t.shape());
                // Of the right kind, but of a size for which the program was not exported.
                let sizes = t.dtype() == *dtype && t.rank() == shape.len();
                let help = "give inputs of such sizes, or export the model again with dynamic_shapes that allow these";
                return Err(if sizes { Error::condition(format!("{what}\nhelp: {help}")) } else { Error::argument(what) });
            }
        }
        // The file does not say what it is; whoever takes it will.
        (ValueSpec::None, _) => {}
        (ValueSpec::Int, Value::Int(_))
        | (ValueSpec::Float, Value::Float(_))
        | (ValueSpec::Bool, Value::Bool(_))
        | (ValueSpec::Str, Value::Str(_)) => {
            // A scalar that no delegate takes was folded into the program when it was exported.
            let same = match (&slot.initial, &scalar) {
                (Some(Value::Int(a)), Value::Int(b)) => a == b,
                (Some(Value::Float(a)), Value::Float(b)) => a == b,
                (Some(Value::Bool(a)), Value::Bool(b)) => a == b,
                (Some(Value::Str(a)), Value::Str(b)) => a == b,
                _ => true,
            };
            if !same && !slot.delegated {
                return Err(Error::argument(format!("the method was exported for {:?} only, found {scalar:?}", slot.initial)));
            }
        }
        (spec, value) => {
            let want = match spec {
                ValueSpec::Tensor { .. } => "tensor",
                ValueSpec::Int => "int",
                ValueSpec::Float => "float",
                ValueSpec::Bool => "bool",
                ValueSpec::Str => "string",
                ValueSpec::None => "value",
            };
            return Err(Error::argument(format!("a {want} is needed, found a {}", value.kind())));
        }
    }
    Ok(scalar)
}

/// The only element of a tensor, as a value of its kind.
fn unwrap_scalar(t: &Tensor) -> Result<Value> {
    Ok(match t.dtype() {
        DType::Bool => Value::Bool(t.item::<Bool>()?.get()),
        dtype if dtype.is_float() => Value::Float(crate::cpu::dtype::cast(t, DType::Float64)?.item()?),
        _ => Value::Int(crate::cpu::dtype::cast(t, DType::Int64)?.item()?),
    })
}

/// Keeps the file alive for tensors that look into it.
struct FileBytes(Arc<PteFile>);

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

struct Loader<'a> {
    file: &'a Arc<PteFile>,
    plan: &'a ExecutionPlan,
    account: Arc<Account>,
}

impl Loader<'_> {
    fn load<E: Engine + Clone>(self, engine: E) -> Result<Method<E>> {
        let (kernels, lacks) = kernels::find(self.plan);
        self.check_supported(lacks)?;
        let instructions = || self.plan.chains.iter().flat_map(|c| &c.instructions);
        let mut slots = self
            .plan
            .values
            .iter()
            .enumerate()
            .map(|(i, v)| self.slot(v).map_err(|e| e.within(format!("value {i}"))))
            .collect::<Result<Vec<_>>>()?;
        let mut called = vec![false; self.plan.delegates.len()];
        for instruction in instructions() {
            let Instruction::DelegateCall(call) = instruction else { continue };
            if let Some(called) = usize::try_from(call.delegate_index).ok().and_then(|d| called.get_mut(d)) {
                *called = true;
            }
            for &index in &call.args {
                if let Some(slot) = usize::try_from(index).ok().and_then(|i| slots.get_mut(i)) {
                    slot.delegated = true;
                }
            }
        }
        let source: Arc<dyn ByteSource> = Arc::new(FileBytes(Arc::clone(self.file)));
        let machine = |(d, (delegate, called)): (usize, (&model::BackendDelegate, bool))| {
            if !called {
                return Ok(None);
            }
            let load = || {
                let program = decode_window(self.file.payload(delegate)?)?;
                Machine::new(engine.clone(), program, |key, meta| {
                    let window = self.file.named_data(key).ok_or_else(|| Error::format("the file has no data of that name"))?;
                    let shape = meta.shape.iter().map(|d| d.as_static().map(|n| n as usize));
                    let shape: Option<Vec<usize>> = shape.collect();
                    let shape = shape.ok_or_else(|| Error::format("its shape is not fixed"))?;
                    let tensor = Tensor::from_source(meta.dtype, &shape, Arc::clone(&source), range(window)?)?;
                    // Upstream does not compare, and computes with the first bytes of what is another tensor.
                    let wanted = (tensor.numel() * meta.dtype.size()) as u64;
                    if window.len() != wanted {
                        return Err(Error::format(format!("{} bytes for {}{shape:?}, which takes {wanted}", window.len(), meta.dtype)));
                    }
                    Ok(tensor)
                })
            };
            load().map(Some).map_err(|e| e.within(format!("delegate {d}")))
        };
        let machines = self.plan.delegates.iter().zip(called).enumerate().map(machine).collect::<Result<Vec<_>>>()?;
        let inputs = |delegate: usize| machines.get(delegate)?.as_ref().map(|m| m.program().input_map.len());
        let memory = Memory::new(self.plan, &kernels, &inputs);
        // Buffers of the plan start as zeros unless the file says otherwise.
        for &buffer in &memory.buffers {
            if let Some(slot) = slots.get_mut(buffer)
                && let (ValueSpec::Tensor { dtype, shape, .. }, None) = (&slot.spec, &slot.initial)
            {
                let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
                slot.initial = Some(Value::Tensor(Tensor::zeros(*dtype, &shape)?));
            }
        }
        let state = slots.iter().map(|s| s.initial.clone()).collect();
        let inside = |m: &Machine<E>| m.program().chains.iter().map(|c| c.len() as u64).sum::<u64>();
        self.account.has(machines.iter().flatten().map(inside).sum());
        let conditions = self.conditions()?;
        Ok(Method { plan: self.plan.clone(), slots, state, machines, kernels, memory, conditions, account: self.account })
    }

    /// What must hold of the inputs; nothing is said in files of ExecuTorch.
    fn conditions(&self) -> Result<Option<Conditions>> {
        let Some(window) = self.file.named_data(&conditions::key(&self.plan.name)) else { return Ok(None) };
        let text = std::str::from_utf8(window.bytes()).map_err(|e| e.to_string());
        let read = text.and_then(Conditions::parse);
        read.map(Some).map_err(|e| Error::format(e).within("conditions on the inputs"))
    }

    /// Lists everything the method needs that is not there; `lacks` are the kernels.
    fn check_supported(&self, mut lacks: Vec<String>) -> Result<()> {
        for instruction in self.plan.chains.iter().flat_map(|c| &c.instructions) {
            let Instruction::DelegateCall(call) = instruction else { continue };
            let delegate = usize::try_from(call.delegate_index).ok().and_then(|d| self.plan.delegates.get(d));
            if let Some(lack) = delegate.filter(|d| d.id != BACKEND).map(|d| format!("backend {}", d.id))
                && !lacks.contains(&lack)
            {
                lacks.push(lack);
            }
        }
        if lacks.is_empty() {
            return Ok(());
        }
        Err(Error::unsupported(format!("not available here: {}", lacks.join(", "))))
    }

    fn slot(&self, value: &EValue) -> Result<Slot> {
        let (spec, initial) = match value {
            EValue::Null => (ValueSpec::None, Some(Value::None)),
            EValue::Int(v) => (ValueSpec::Int, Some(Value::Int(*v))),
            EValue::Bool(v) => (ValueSpec::Bool, Some(Value::Bool(*v))),
            EValue::Double(v) => (ValueSpec::Float, Some(Value::Float(*v))),
            EValue::String(v) => (ValueSpec::Str, Some(Value::Str(v.clone()))),
            EValue::Tensor(tensor) => self.tensor(tensor)?,
            // Only kernels take lists.
            _ => (ValueSpec::None, None),
        };
        Ok(Slot { spec, initial, delegated: false })
    }

    fn tensor(&self, tensor: &model::Tensor) -> Result<(ValueSpec, Option<Value>)> {
        let dtype = tensor.dtype().ok_or_else(|| Error::unsupported(format!("element type number {}", tensor.scalar_type)))?;
        let sizes: Vec<u64> = tensor.sizes.iter().map(|&n| u64::from(n.unsigned_abs())).collect();
        if tensor.is_external() {
            return Err(Error::unsupported("a constant in a separate .ptd file"));
        }
        let initial = match self.file.constant(tensor) {
            Some(window) => Some(Value::Tensor(self.constant(dtype, &sizes, &tensor.dim_order, window)?)),
            None => None,
        };
        let dynamic = tensor.shape_dynamism != TensorShapeDynamism::Static;
        Ok((ValueSpec::Tensor { dtype, shape: sizes, dynamic }, initial))
    }

    /// A constant of the plan; its bytes are in the order of its dims.
    fn constant(&self, dtype: DType, sizes: &[u64], dim_order: &[u8], window: Window<'_>) -> Result<Tensor> {
        let order: Vec<usize> = dim_order.iter().map(|&d| usize::from(d)).collect();
        let bad = || Error::format(format!("dim order {dim_order:?} for sizes {sizes:?}"));
        let stored = order.iter().map(|&d| sizes.get(d).map(|&n| n as usize)).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
        if stored.len() != sizes.len() {
            return Err(bad());
        }
        let source: Arc<dyn ByteSource> = Arc::new(FileBytes(Arc::clone(self.file)));
        let tensor = Tensor::from_source(dtype, &stored, source, range(window)?)?;
        let mut inverse = vec![0i64; order.len()];
        for (at, &axis) in order.iter().enumerate() {
            *inverse.get_mut(axis).ok_or_else(bad)? = at as i64;
        }
        tensor.transpose(&inverse)
    }
}

/// Where a window lies in its file.
fn range(window: Window<'_>) -> Result<Range<usize>> {
    let start = usize::try_from(window.base()).ok();
    let end = start.and_then(|s| s.checked_add(usize::try_from(window.len()).ok()?));
    start.zip(end).map(|(s, e)| s..e).ok_or_else(|| Error::format("data beyond what this machine can address"))
}

mod kernels;
mod memory;
#[cfg(test)]
mod tests;
