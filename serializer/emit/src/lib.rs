//! From a plain description of methods whose work is done by delegates to execution plans.
//!
//! A [`Package`] says what goes in, which delegates run in what order, how they are wired and what comes out; [`emit`]
//! numbers the values, plans the memory and writes the instructions as upstream does (`pte-format.md` §3 and §4.4), so
//! that a program lowered by either reads the same.
//!
//! Values are numbered: constants, user inputs, then for each delegate its outputs and its literal arguments, then the
//! literals of what follows. All tensors that are inputs or results are planned in area 1: an input may be overwritten once
//! no delegate needs it any more, so callers set inputs before every run.

mod constant;
mod memory;

use etx_ir::DType;
use etx_ir::weights::TensorData;

pub use self::constant::{Constant, ConstantMethod};
use self::memory::{Lifetime, plan};
use etx_serializer::error::{Error, ErrorKind, Result};
use etx_serializer::pte::model::{
    AllocationDetails, BackendDelegate, BackendDelegateDataReference, Chain, CompileSpec, ContainerMetadata, DataLocation, DelegateCall,
    EValue, ExecutionPlan, Instruction, KernelCall, Operator, Tensor, TensorShapeDynamism,
};
use etx_serializer::pte::{Contents, NamedBlob};

/// Everything that goes into one file.
#[derive(Clone, Debug, Default)]
pub struct Package {
    /// Methods that compute. Written in the order of their names.
    pub methods: Vec<Method>,
    /// Methods that return constants. Written after the others, in the order given.
    pub constant_methods: Vec<ConstantMethod>,
    /// What delegates ask for by key.
    pub named_data: Vec<NamedBlob>,
}

/// A method, all of whose work is done by delegates.
#[derive(Clone, Debug, Default)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// The user's inputs.
    pub inputs: Vec<Input>,
    /// Tensors that outputs or delegates refer to and that are no weights of a delegate.
    pub constants: Vec<TensorData>,
    /// In the order in which they run.
    pub delegates: Vec<Delegate>,
    /// User inputs that have another value afterwards. As upstream does, each is also returned, before the outputs.
    pub mutations: Vec<Mutation>,
    /// What is returned. The same value may be returned more than once.
    pub outputs: Vec<Value>,
    /// Nesting of the arguments, as torch prints its pytree specification.
    pub encoded_inp_str: String,
    /// Nesting of the outputs.
    pub encoded_out_str: String,
}

/// A user input.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A tensor.
    Tensor(TensorSpec),
    /// An integer. Runtimes accept this value only.
    Int(i64),
    /// A number. Runtimes accept this value only.
    Float(f64),
    /// A truth value. Runtimes accept this value only.
    Bool(bool),
    /// `None`, a text, or an integer that was left open when the program was exported.
    Null,
}

/// What is known of a tensor before it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first; upper bounds when `dynamic`. Each below 2^31.
    pub sizes: Vec<u64>,
    /// Whether some size may be smaller than given.
    pub dynamic: bool,
    /// Dimensions from outermost to innermost in memory.
    pub dim_order: Vec<u8>,
}

impl TensorSpec {
    /// A row-major tensor of exactly these sizes.
    pub fn fixed(dtype: DType, sizes: impl Into<Vec<u64>>) -> Self {
        let sizes = sizes.into();
        // The writer refuses ranks that do not fit long before a byte overflows.
        let dim_order = (0..sizes.len()).map(|d| d as u8).collect();
        TensorSpec { dtype, sizes, dynamic: false, dim_order }
    }

    /// A row-major tensor of at most these sizes.
    pub fn up_to(dtype: DType, sizes: impl Into<Vec<u64>>) -> Self {
        TensorSpec { dynamic: true, ..TensorSpec::fixed(dtype, sizes) }
    }
}

/// One delegate and its one call.
#[derive(Clone, Debug, Default)]
pub struct Delegate {
    /// Name of the backend, for example `MLXBackend`.
    pub backend: String,
    /// Options for the backend.
    pub compile_specs: Vec<CompileSpec>,
    /// What the backend gets; not empty.
    pub payload: Vec<u8>,
    /// In the order of the payload's input map. Results must be those of earlier delegates.
    pub inputs: Vec<Value>,
    /// In the order of the payload's output map.
    pub outputs: Vec<DelegateOutput>,
}

/// What a delegate returns at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DelegateOutput {
    /// A tensor.
    Tensor(TensorSpec),
    /// An integer known only at run time.
    Int,
}

/// What a delegate gets or a method returns at one place.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A user input, by number.
    Input(usize),
    /// What a delegate returned.
    Result {
        /// Which delegate.
        delegate: usize,
        /// Which of its outputs.
        output: usize,
    },
    /// One of [`Method::constants`], by number.
    Constant(usize),
    /// A literal integer.
    Int(i64),
    /// A literal number.
    Float(f64),
    /// A literal truth value.
    Bool(bool),
    /// `None`.
    None,
}

/// A user input and the value it has after the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    /// Which input; a tensor.
    pub input: usize,
    /// Its new value; a tensor of the same type and sizes.
    pub value: Value,
}

/// Turns a description into what [`write`](etx_serializer::pte::write) takes.
///
/// # Errors
/// When a number refers to nothing, a delegate uses what does not exist yet, or sizes cannot be expressed in the format.
pub fn emit(package: Package) -> Result<Contents> {
    let mut emitter = Emitter { contents: Contents { named_data: package.named_data, ..Contents::default() } };
    let mut methods = package.methods;
    methods.sort_by(|a, b| a.name.cmp(&b.name));
    for method in methods {
        let place = format!("method `{}`", method.name);
        let plan = emit_method(method, &mut emitter).map_err(|e| e.within(place))?;
        emitter.contents.plans.push(plan);
    }
    for method in package.constant_methods {
        let place = format!("method `{}`", method.name);
        let plan = constant::emit(method, &mut emitter).map_err(|e| e.within(place))?;
        emitter.contents.plans.push(plan);
    }
    Ok(emitter.contents)
}

/// The bytes of memory that are planned for a method.
///
/// # Errors
/// As [`emit`].
pub fn planned_bytes(method: Method) -> Result<u64> {
    let plan = emit_method(method, &mut Emitter { contents: Contents::default() })?;
    Ok(plan.non_const_buffer_sizes.iter().filter_map(|&n| u64::try_from(n).ok()).fold(0, u64::saturating_add))
}

/// Pytree node of anything that is not a container.
const fn leaf() -> &'static str {
    r#"{"type": null, "context": null, "children_spec": []}"#
}

/// What has been emitted so far, of all methods.
struct Emitter {
    contents: Contents,
}

fn constant_tensor(emitter: &mut Emitter, data: TensorData) -> Result<EValue> {
    let mut tensor = tensor(&TensorSpec::fixed(data.dtype(), data.shape()))?;
    emitter.contents.constants.push(data);
    tensor.data_buffer_idx = u32::try_from(emitter.contents.constants.len()).map_err(|_| too_many())?;
    Ok(EValue::Tensor(tensor))
}

fn too_many() -> Error {
    Error::new(ErrorKind::Limit, "more values than the format has numbers for")
}

fn tensor(spec: &TensorSpec) -> Result<Tensor> {
    let size = |&size: &u64| {
        i32::try_from(size).map_err(|_| Error::new(ErrorKind::Limit, format!("sizes {:?}: each must be below 2^31", spec.sizes)))
    };
    Ok(Tensor {
        scalar_type: spec.dtype.et_code(),
        sizes: spec.sizes.iter().map(size).collect::<Result<_>>()?,
        dim_order: spec.dim_order.clone(),
        shape_dynamism: if spec.dynamic { TensorShapeDynamism::DynamicBound } else { TensorShapeDynamism::Static },
        ..Tensor::default()
    })
}

/// The values of one method as they are numbered, and how long the planned ones live.
#[derive(Default)]
struct Values {
    values: Vec<EValue>,
    /// Parallel to `values`: first and last step of planned tensors.
    lives: Vec<Option<(usize, usize)>>,
    constants: Vec<i32>,
    inputs: Vec<i32>,
    results: Vec<Vec<i32>>,
}

impl Values {
    fn add(&mut self, value: EValue, born: Option<usize>) -> Result<i32> {
        let number = i32::try_from(self.values.len()).map_err(|_| too_many())?;
        let planned = matches!(value, EValue::Tensor(_));
        self.values.push(value);
        self.lives.push(born.filter(|_| planned).map(|step| (step, step)));
        Ok(number)
    }

    /// The number of `value`, which is used at `step`. Literals get a new one.
    fn used(&mut self, value: &Value, step: usize) -> Result<i32> {
        let number = match *value {
            Value::Input(i) => pick(&self.inputs, i, "input")?,
            Value::Constant(i) => pick(&self.constants, i, "constant")?,
            Value::Result { delegate, output } => {
                let outputs = self.results.get(delegate).ok_or_else(|| {
                    let text = format!("the result of delegate {delegate}, of which {} have run by then", self.results.len());
                    Error::new(ErrorKind::OutOfRange, text)
                })?;
                pick(outputs, output, &format!("delegate {delegate} output"))?
            }
            Value::Int(v) => self.add(EValue::Int(v), None)?,
            Value::Float(v) => self.add(EValue::Double(v), None)?,
            Value::Bool(v) => self.add(EValue::Bool(v), None)?,
            Value::None => self.add(EValue::Null, None)?,
        };
        if let Some((_, last)) = usize::try_from(number).ok().and_then(|n| self.lives.get_mut(n)).and_then(Option::as_mut) {
            *last = step;
        }
        Ok(number)
    }

    fn tensor(&self, number: i32) -> Option<&Tensor> {
        match self.values.get(usize::try_from(number).ok()?)? {
            EValue::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// Gives the planned tensors their places; the sizes of the areas.
    fn plan(&mut self) -> Result<Vec<i64>> {
        let mut lifetimes = Vec::new();
        for (value, life) in self.values.iter().zip(&self.lives) {
            if let (EValue::Tensor(t), &Some((first, last))) = (value, life) {
                let bytes = t.byte_len().ok_or_else(|| {
                    Error::new(ErrorKind::Unsupported, format!("a tensor of ExecuTorch type {} and sizes {:?}", t.scalar_type, t.sizes))
                })?;
                lifetimes.push(Lifetime { bytes, first, last });
            }
        }
        let (offsets, area) = plan(&lifetimes)?;
        let planned = self.values.iter_mut().zip(&self.lives).filter(|(_, life)| life.is_some());
        for ((value, _), offset) in planned.zip(offsets) {
            if let EValue::Tensor(t) = value {
                t.allocation_info = Some(AllocationDetails::new(1, offset));
            }
        }
        Ok(vec![0, area])
    }
}

fn pick(numbers: &[i32], i: usize, what: &str) -> Result<i32> {
    numbers.get(i).copied().ok_or_else(|| Error::new(ErrorKind::OutOfRange, format!("{what} {i} of {}", numbers.len())))
}

/// Step 0 is the call of the method, delegate `i` runs at step `i + 1`, then come mutations, then the return.
fn emit_method(method: Method, emitter: &mut Emitter) -> Result<ExecutionPlan> {
    let mut v = Values::default();
    for data in method.constants {
        let value = constant_tensor(emitter, data)?;
        let number = v.add(value, None)?;
        v.constants.push(number);
    }
    for (i, input) in method.inputs.iter().enumerate() {
        let value = match input {
            Input::Tensor(spec) => EValue::Tensor(tensor(spec).map_err(|e| e.within(format!("input {i}")))?),
            Input::Int(v) => EValue::Int(*v),
            Input::Float(v) => EValue::Double(*v),
            Input::Bool(v) => EValue::Bool(*v),
            Input::Null => EValue::Null,
        };
        let number = v.add(value, Some(0))?;
        v.inputs.push(number);
    }

    let mut instructions = Vec::new();
    let mut delegates = Vec::new();
    let mut step = 0;
    for (i, delegate) in method.delegates.into_iter().enumerate() {
        step += 1;
        let place = |e: Error| e.within(format!("delegate {i}"));
        instructions.push(call(&mut v, &delegate, i, step).map_err(place)?);
        let index = u32::try_from(emitter.contents.payloads.len()).map_err(|_| too_many())?;
        emitter.contents.payloads.push(delegate.payload);
        delegates.push(BackendDelegate {
            id: delegate.backend,
            processed: BackendDelegateDataReference { location: DataLocation::Segment, index },
            compile_specs: delegate.compile_specs,
        });
    }

    let mut operators = Vec::new();
    let mut outputs = Vec::new();
    for (i, mutation) in method.mutations.iter().enumerate() {
        step += 1;
        let (instruction, target) = copy_back(&mut v, mutation, step).map_err(|e| e.within(format!("mutation {i}")))?;
        instructions.push(instruction);
        outputs.push(target);
    }
    if !method.mutations.is_empty() {
        operators.push(Operator { name: "aten::copy_".to_owned(), overload: String::new() });
    }
    step += 1;
    for &target in &outputs {
        if let Some(Some((_, last))) = usize::try_from(target).ok().and_then(|n| v.lives.get_mut(n)) {
            *last = step;
        }
    }
    for (i, value) in method.outputs.iter().enumerate() {
        outputs.push(v.used(value, step).map_err(|e| e.within(format!("output {i}")))?);
    }
    let non_const_buffer_sizes = v.plan()?;
    Ok(ExecutionPlan {
        name: method.name,
        container_meta_type: Some(ContainerMetadata { encoded_inp_str: method.encoded_inp_str, encoded_out_str: method.encoded_out_str }),
        inputs: v.inputs,
        values: v.values,
        outputs,
        chains: vec![Chain { instructions, ..Chain::default() }],
        operators,
        delegates,
        non_const_buffer_sizes,
        non_const_buffer_device: Vec::new(),
    })
}

/// The call of delegate `index`; numbers its outputs first, then its literal arguments.
fn call(v: &mut Values, delegate: &Delegate, index: usize, step: usize) -> Result<Instruction> {
    let mut results = Vec::with_capacity(delegate.outputs.len());
    for (i, output) in delegate.outputs.iter().enumerate() {
        let value = match output {
            DelegateOutput::Tensor(spec) => EValue::Tensor(tensor(spec).map_err(|e| e.within(format!("output {i}")))?),
            DelegateOutput::Int => EValue::Int(0),
        };
        results.push(v.add(value, Some(step))?);
    }
    let mut args = Vec::with_capacity(delegate.inputs.len() + results.len());
    for (i, input) in delegate.inputs.iter().enumerate() {
        args.push(v.used(input, step).map_err(|e| e.within(format!("input {i}")))?);
    }
    args.extend(&results);
    v.results.push(results);
    let delegate_index = i32::try_from(index).map_err(|_| too_many())?;
    Ok(Instruction::DelegateCall(DelegateCall { delegate_index, args }))
}

/// Writes a new value into a user input, and the number of that input.
///
/// A copy, although a delegate could be told to put its result there: delegates read inputs in place, so another of its
/// results may still be a view of the old value when the first one is stored.
fn copy_back(v: &mut Values, mutation: &Mutation, step: usize) -> Result<(Instruction, i32)> {
    let target = v.used(&Value::Input(mutation.input), step)?;
    let source = v.used(&mutation.value, step)?;
    match (v.tensor(target), v.tensor(source)) {
        (Some(to), Some(from)) if to.scalar_type == from.scalar_type && to.sizes == from.sizes => {}
        _ => {
            let text = format!("input {} and its new value are not tensors of one type and size", mutation.input);
            return Err(Error::new(ErrorKind::Invalid, text));
        }
    }
    let non_blocking = v.add(EValue::Bool(false), None)?;
    let args = vec![target, source, non_blocking, target];
    Ok((Instruction::KernelCall(KernelCall { op_index: 0, args }), target))
}

#[cfg(test)]
mod tests;
