//! Portable kernels: the operators that a file leaves outside its delegates.
//!
//! They are computed by the evaluator ([`etx_ir::eval`]), as eager PyTorch would: right before fast. Upstream links kernels
//! into the runtime; which arguments a kernel takes is known from the operator whose results it writes to given tensors
//! (`aten::add.out` from `aten.add.Tensor`), so that no kernel is listed here but those that no operator corresponds to.
//!
//! Values of a plan share no memory here: a kernel gives its results new tensors. What follows from that is in
//! [`memory`](super::memory).

use std::collections::BTreeMap;

use etx_ir::DType;
use etx_ir::eval;
use etx_ir::graph::{Arg, Graph, Type, ValueId};
use etx_ir::op::{ArgSpec, ArgType, OpId, OutVariant};
use etx_serializer::pte::model::{EValue, ExecutionPlan, Instruction, KernelCall};

use super::{Slot, fetch, memory, put};
use crate::cpu::dtype::cast;
use crate::cpu::shape::{concatenate, slice};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::tensor::Tensor;
use crate::value::{Value, ValueSpec};

/// Writes a tensor over another, as the end of a method does for inputs and buffers that it mutates.
const COPY: &str = "aten::copy_";
/// Elements that a kernel may make outside of any call, which has limits.
const MOST_ELEMENTS: u64 = 1 << 26;
/// Gives a tensor other sizes.
const VIEW: &str = "executorch_prim::et_view.default";
/// Appends to a tensor what one round of a loop gave.
const APPEND: &str = "executorch_prim::et_copy_index.tensor";

/// What an instruction that calls a kernel does, and with which values of the plan.
#[derive(Clone, Debug)]
pub(super) enum Kernel {
    /// `to = from`, in the type of `to` and broadcast to its rank.
    Copy { to: i32, from: i32 },
    /// `to[index] = from`; `to` grows with the index.
    Append { to: i32, from: i32, index: i32 },
    /// Results of an operator, in order. Values among the arguments have the numbers that they have in the plan.
    Operator { op: OpId, args: Vec<Arg>, results: Vec<i32>, in_place: bool },
}

impl Kernel {
    /// The value that it writes to, if it works in place.
    pub(super) fn written(&self) -> Option<i32> {
        match self {
            Kernel::Copy { to, .. } => Some(*to),
            Kernel::Operator { results, in_place: true, .. } => results.first().copied(),
            _ => None,
        }
    }

    /// The values that it defines anew.
    pub(super) fn defined(&self) -> &[i32] {
        match self {
            Kernel::Append { to, .. } => std::slice::from_ref(to),
            Kernel::Operator { results, in_place: false, .. } => results,
            _ => &[],
        }
    }

    /// The values that it takes.
    pub(super) fn taken(&self) -> Vec<i32> {
        match self {
            Kernel::Copy { from, .. } => vec![*from],
            Kernel::Append { from, index, .. } => vec![*from, *index],
            Kernel::Operator { args, .. } => {
                let mut taken = Vec::new();
                args.iter().for_each(|a| a.visit(&mut |id| taken.extend(i32::try_from(id.index()))));
                taken
            }
        }
    }

    /// For a view that upstream makes share memory: of what, and which value it is.
    pub(super) fn view(&self) -> Option<(i32, i32)> {
        match self {
            Kernel::Operator { op, args, results, .. } if *op == etx_ir::op!("aten.view.default") => {
                Some((i32::try_from(args.first()?.as_value()?.index()).ok()?, *results.first()?))
            }
            _ => None,
        }
    }

    /// Runs it on the values of a call.
    pub(super) fn run(&self, slots: &[Slot], values: &mut [Option<Value>]) -> Result<()> {
        match self {
            Kernel::Copy { to, from } => copy(values, *to, *from),
            Kernel::Append { to, from, index } => append(values, *to, *from, *index),
            Kernel::Operator { op, args, results, .. } => operator(*op, args, results, slots, values).map_err(|e| e.within(op.target())),
        }
    }
}

fn copy(values: &mut [Option<Value>], to: i32, from: i32) -> Result<()> {
    match (fetch(values, to)?, fetch(values, from)?) {
        (Value::Tensor(target), Value::Tensor(source)) => {
            // The shape of a planned tensor is an upper bound; what is copied decides, but for broadcasts.
            let source = if source.rank() < target.rank() { source.broadcast_to(target.shape())? } else { source.clone() };
            let value = cast(&source, target.dtype())?;
            put(values, to, Value::Tensor(value))
        }
        (to, from) => Err(Error::dtype(format!("a {} cannot be copied to a {}", from.kind(), to.kind()))),
    }
}

fn append(values: &mut [Option<Value>], to: i32, from: i32, index: i32) -> Result<()> {
    let (Value::Tensor(part), Value::Int(index)) = (fetch(values, from)?, fetch(values, index)?) else {
        return Err(Error::dtype("a tensor and an index are needed"));
    };
    let part = part.expand_dims(0)?;
    let whole = match (index, fetch(values, to)) {
        (0, _) => part,
        (n, Ok(Value::Tensor(before))) if usize::try_from(*n).is_ok_and(|n| before.shape().first().is_some_and(|&have| n <= have)) => {
            concatenate(&[slice(before, 0, 0, *n, 1)?, part], 0)?
        }
        (n, _) => return Err(Error::range(format!("part {n} of a tensor that has not so many yet"))),
    };
    put(values, to, Value::Tensor(whole))
}

fn operator(op: OpId, args: &[Arg], results: &[i32], slots: &[Slot], values: &mut [Option<Value>]) -> Result<()> {
    let failed = |e: etx_ir::error::Error| {
        let kind = if e.kind() == etx_ir::error::ErrorKind::Unsupported { ErrorKind::Unsupported } else { ErrorKind::Argument };
        Error::new(kind, e.to_string())
    };
    let budget = limits::current().map_or(MOST_ELEMENTS, |account| account.elements_left());
    // All that it reads is there, or the first that is not is named.
    let mut read = BTreeMap::new();
    let mut missing = None;
    for arg in args {
        arg.visit(&mut |id| match i32::try_from(id.index())
            .map_err(|_| Error::range("a value number"))
            .and_then(|i| evaluated(fetch(values, i)?))
        {
            Ok(value) => drop(read.insert(id, value)),
            Err(e) => drop(missing.get_or_insert(e)),
        });
    }
    if let Some(e) = missing {
        return Err(e);
    }
    let computed = eval::call_within(op, args, &|id| read.get(&id).cloned(), budget).map_err(failed)?;
    if computed.len() < results.len() {
        return Err(Error::format(format!("{} results, {} are taken", computed.len(), results.len())));
    }
    for (&index, value) in results.iter().zip(computed) {
        let spec = usize::try_from(index).ok().and_then(|i| slots.get(i)).map(|s| &s.spec);
        let value = match (value, spec) {
            (eval::Value::Tensor(t), Some(ValueSpec::Tensor { dtype, .. })) => {
                Value::Tensor(cast(&Tensor::from_bytes(t.dtype(), t.shape(), &t.bytes())?, *dtype)?)
            }
            (eval::Value::Tensor(t), _) => Value::Tensor(Tensor::from_bytes(t.dtype(), t.shape(), &t.bytes())?),
            (eval::Value::Int(n), Some(ValueSpec::Float)) => Value::Float(n as f64),
            (eval::Value::Int(n), _) => Value::Int(n),
            (eval::Value::Float(x), _) => Value::Float(x),
            (eval::Value::Bool(b), _) => Value::Bool(b),
            (eval::Value::None, _) => Value::None,
        };
        put(values, index, value)?;
    }
    Ok(())
}

/// The value as the evaluator has it.
fn evaluated(value: &Value) -> Result<eval::Value> {
    Ok(match value {
        Value::Tensor(t) => {
            let tensor = eval::Tensor::new(t.dtype(), t.shape(), t.to_bytes()?);
            eval::Value::Tensor(tensor.map_err(|e| Error::limit(e.to_string()))?)
        }
        Value::Int(n) => eval::Value::Int(*n),
        Value::Float(x) => eval::Value::Float(*x),
        Value::Bool(b) => eval::Value::Bool(*b),
        Value::None => eval::Value::None,
        Value::Str(_) => return Err(Error::dtype("a text where a kernel computes")),
    })
}

/// The kernels of a plan, chain by chain and instruction by instruction.
pub(super) type Kernels = Vec<Vec<Option<Kernel>>>;

/// Finds the kernels that a plan calls. The second result is what there is none for, each once.
pub(super) fn find(plan: &ExecutionPlan) -> (Kernels, Vec<String>) {
    let values = numbered(plan.values.len());
    let mut lacks: Vec<String> = Vec::new();
    let mut kernel = |instruction: &Instruction| {
        let Instruction::KernelCall(call) = instruction else { return None };
        let found = Finder { plan, values: &values }.kernel(call).map_err(|lack| {
            if !lacks.contains(&lack) {
                lacks.push(lack);
            }
        });
        found.ok()
    };
    let kernels: Kernels = plan.chains.iter().map(|c| c.instructions.iter().map(&mut kernel).collect()).collect();
    lacks.extend(memory::stale_views(plan, &kernels));
    (kernels, lacks)
}

/// The full name of the kernel that is called.
fn name(plan: &ExecutionPlan, call: &KernelCall) -> String {
    let operator = usize::try_from(call.op_index).ok().and_then(|i| plan.operators.get(i));
    operator.map_or_else(|| format!("number {}", call.op_index), |o| o.full_name())
}

/// Values of a graph with the numbers 0, 1, ….
fn numbered(count: usize) -> Vec<ValueId> {
    let mut graph = Graph::new();
    (0..count).map(|_| graph.add_input("", Type::None)).collect()
}

struct Finder<'a> {
    plan: &'a ExecutionPlan,
    values: &'a [ValueId],
}

impl Finder<'_> {
    fn value(&self, index: i32) -> Option<&EValue> {
        self.plan.values.get(usize::try_from(index).ok()?)
    }

    fn kernel(&self, call: &KernelCall) -> std::result::Result<Kernel, String> {
        let name = name(self.plan, call);
        let lack = || format!("portable kernel {name}");
        match (&name[..], &call.args[..]) {
            (COPY, &[to, from, ..]) => return Ok(Kernel::Copy { to, from }),
            (APPEND, &[to, from, index, ..]) => return Ok(Kernel::Append { to, from, index }),
            (VIEW, &[from, size, to, ..]) => {
                let args = [(from, &ArgType::Tensor), (size, &ArgType::Any)].map(|(i, ty)| self.argument(ty, i));
                let args = args.into_iter().collect::<Option<_>>().ok_or_else(lack)?;
                return Ok(Kernel::Operator { op: etx_ir::op!("aten.view.default"), args, results: vec![to], in_place: false });
            }
            _ => {}
        }
        self.operator(&name, &call.args).ok_or_else(lack)
    }

    fn operator(&self, name: &str, given: &[i32]) -> Option<Kernel> {
        let of_out = OpId::of_out_variant(name);
        let op = of_out.or_else(|| OpId::lookup(name))?;
        let schema = op.schema();
        let out = schema.traits.out.as_ref().filter(|_| of_out.is_some());
        // What the given tensors imply is no argument.
        let implied = |a: &ArgSpec| out.is_some_and(|out| out.without_options) && OutVariant::OPTIONS.contains(&a.name.as_str());
        let mut given = given.iter().copied();
        let mut args = Vec::new();
        for spec in &schema.args {
            args.push(if implied(spec) { Arg::None } else { self.argument(&spec.ty, given.next()?)? });
        }
        let functional = op.inplace_to_functional();
        let in_place = of_out.is_none() && op.mutates();
        let results: Vec<i32> = if in_place {
            // The first argument, and the result that is the same.
            functional?;
            vec![args.first()?.as_value().and_then(|v| i32::try_from(v.index()).ok())?]
        } else {
            given.take(schema.returns.len()).flat_map(|index| self.spread(index)).collect()
        };
        if let (Some(at), Some(EValue::Tensor(first))) =
            (schema.args.iter().position(|a| a.name == "dtype" && implied(a)), self.value(*results.first()?))
        {
            args[at] = Arg::DType(first.dtype()?);
        }
        let op = functional.filter(|_| in_place).unwrap_or(op);
        eval::knows(op).then_some(Kernel::Operator { op, args, results, in_place })
    }

    /// The values of a list, or the value.
    fn spread(&self, index: i32) -> Vec<i32> {
        match self.value(index) {
            Some(EValue::TensorList(list)) => list.clone(),
            _ => vec![index],
        }
    }

    /// A value of the plan as an argument; those that may change from call to call by their number.
    fn argument(&self, ty: &ArgType, index: i32) -> Option<Arg> {
        let id = |index: i32| self.values.get(usize::try_from(index).ok()?).copied().map(Arg::Value);
        let ty = if let ArgType::Optional(inner) = ty { inner } else { ty };
        Some(match (self.value(index)?, ty) {
            (EValue::Null, _) | (_, ArgType::Layout | ArgType::MemoryFormat | ArgType::Device | ArgType::Generator) => Arg::None,
            (EValue::Int(n), ArgType::ScalarType) => Arg::DType(DType::from_et_code(i8::try_from(*n).ok()?)?),
            (EValue::Int(_) | EValue::Double(_) | EValue::Bool(_) | EValue::Tensor(_), _) => id(index)?,
            (EValue::String(s), _) => Arg::Str(s.as_str().into()),
            (EValue::IntList(list), _) => Arg::List(list.iter().map(|&i| id(i32::try_from(i).ok()?)).collect::<Option<_>>()?),
            (EValue::DoubleList(list), _) => Arg::List(list.iter().map(|&x| Arg::Float(x)).collect()),
            (EValue::BoolList(list), _) => Arg::List(list.iter().map(|&b| Arg::Bool(b)).collect()),
            (EValue::TensorList(list), _) => Arg::List(list.iter().map(|&i| id(i)).collect::<Option<_>>()?),
            (EValue::OptionalTensorList(list), _) => {
                Arg::List(list.iter().map(|&i| if i < 0 { Some(Arg::None) } else { id(i) }).collect::<Option<_>>()?)
            }
        })
    }
}
