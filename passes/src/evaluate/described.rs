//! Large constants of types that MLX lacks, which are cast, scaled and viewed: described, not read.
//!
//! What they become is computed piece by piece, by the reference evaluation, when the file is written.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::eval::{self, Tensor, Value};
use etx_ir::graph::{Arg, Graph, Node, NodeId, ValueId};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::weights::{Derive, TensorData};

use super::known::fixed_inputs;
use super::{Limits, is_foreign, is_small_float};
use crate::calls::{CAST, as_ints, cast, wrap};
use crate::driver::Context;
use crate::rewrite::remove_dead;

/// Elements that are worked on at a time.
const STEP: u64 = 1 << 16;

/// A constant, or what becomes of one.
#[derive(Clone)]
struct Made {
    data: TensorData,
    /// The constant of a type without MLX's support that it comes from: its name, and whether what becomes of it goes on beyond the
    /// first cast, as far as there are no more elements than it has.
    from: Option<(Arc<str>, bool)>,
}

/// Replaces what large constants are cast to by descriptions.
pub(super) fn run(cx: &mut Context<'_>, limits: &Limits) -> Result<(), Error> {
    let Some(mut made) = inputs(cx, limits) else { return Ok(()) };
    let order = cx.graph().order();
    for &id in &order {
        let node = cx.graph().node(id);
        let [v] = node.outputs[..] else { continue };
        if let Some(m) = became(cx.graph(), node, v, &made)? {
            made.insert(v, m);
        }
    }
    for id in order {
        if !cx.graph().contains(id) {
            continue;
        }
        let [v] = cx.graph().node(id).outputs[..] else { continue };
        let Some(Made { data, from: Some((name, _)) }) = made.get(&v) else { continue };
        if !is_foreign(data.dtype()) && is_read(cx.graph(), v, &made) {
            let constant = cx.add_parameter(name, data.clone());
            let graph = &mut cx.edit().graph;
            graph.replace_uses(v, constant);
            remove_dead(graph, vec![id]);
            cx.changed(1);
        }
    }
    Ok(())
}

/// Whether something reads the value that is not described itself.
fn is_read(graph: &Graph, v: ValueId, made: &HashMap<ValueId, Made>) -> bool {
    let described = |u: &NodeId| graph.node(*u).outputs.iter().any(|o| made.get(o).is_some_and(|m| m.from.is_some()));
    let value = graph.value(v);
    value.output_uses() > 0 || value.users().iter().any(|u| !described(u))
}

/// All constants of a method; `None` if there is none that this pass is for.
fn inputs(cx: &Context<'_>, limits: &Limits) -> Option<HashMap<ValueId, Made>> {
    let weight = |n: usize| cx.program().weights().get(cx.method().inputs.get(n)?.kind.weight()?.index());
    let wanted = |data: &TensorData| is_small_float(data.dtype()) || (is_foreign(data.dtype()) && data.byte_len() > limits.described);
    if !fixed_inputs(cx.method()).any(|(n, _)| weight(n).is_some_and(|w| wanted(&w.data))) {
        return None;
    }
    let all = fixed_inputs(cx.method()).filter_map(|(n, v)| Some((v, weight(n)?)));
    let made = all.map(|(v, w)| {
        let from = wanted(&w.data).then(|| (w.name.clone(), is_small_float(w.data.dtype())));
        (v, Made { data: w.data.clone(), from })
    });
    Some(made.collect())
}

/// What a call makes of constants, if it is one of those that can be described.
fn became(graph: &Graph, node: &Node, v: ValueId, made: &HashMap<ValueId, Made>) -> Result<Option<Made>, Error> {
    let operand = |i: usize| node.args.get(i).and_then(Arg::as_value).and_then(|v| made.get(&v));
    let (Some(x), Some(to)) = (operand(0), graph.tensor(v)) else { return Ok(None) };
    let Some(shape) = sizes(to) else { return Ok(None) };
    let others = node.args.iter().skip(1).filter_map(Arg::as_value).map(|v| made.get(&v)).collect::<Option<Vec<_>>>();
    let Some(others) = others else { return Ok(None) };
    // Of what stays in MLX's types, and of what is done with large numbers of `f64`, the program takes care.
    let Some(from) = std::iter::once(x).chain(others).find_map(|m| m.from.clone().map(|f| (f, m.data.numel(), m.data.dtype()))) else {
        return Ok(view(node, &x.data, &shape)?.map(|data| Made { data, from: None }));
    };
    let (from, numel, dtype) = from;
    if (!is_foreign(dtype) && !from.1) || shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)) != Some(numel) {
        return Ok(None);
    }
    let data = match view(node, &x.data, &shape)? {
        Some(data) => Some(data),
        None => computed(node, &x.data, operand(1).map(|m| &m.data), to.dtype, &shape)?,
    };
    Ok(data.map(|data| Made { data, from: Some(from) }))
}

fn sizes(t: &etx_ir::graph::TensorType) -> Option<Vec<u64>> {
    t.shape.iter().map(|d| u64::try_from(d.as_int()?).ok()).collect()
}

fn row_major(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1u64; shape.len()];
    let mut step = 1u64;
    for (stride, &n) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(n.max(1));
    }
    strides
}

/// The same elements in another shape, if that is what the call gives.
fn view(node: &Node, x: &TensorData, shape: &[u64]) -> Result<Option<TensorData>, Error> {
    by_op!(node.op, {
        "aten.view.default" | "aten.unsqueeze.default" | "aten.squeeze.dims" | "aten.clone.default" => {
            x.reinterpret(x.dtype(), shape.to_vec()).map(Some)
        },
        "aten.permute.default" => {
            let strides = row_major(x.shape());
            let order = node.args.get(1).and_then(as_ints).unwrap_or_default();
            let order = order.iter().map(|&d| wrap(d, strides.len()).and_then(|d| strides.get(d).copied())).collect::<Option<Vec<_>>>();
            order.map(|strides| x.strided(x.dtype(), shape.to_vec(), strides, 0)).transpose()
        },
        "aten.expand.default" => broadcast(x, shape).map(Some),
        _ => Ok(None),
    })
}

/// The tensor repeated along what it lacks of a shape.
fn broadcast(x: &TensorData, shape: &[u64]) -> Result<TensorData, Error> {
    let mut strides = vec![0; shape.len()];
    let own = row_major(x.shape());
    for ((stride, &to), (&n, &s)) in strides.iter_mut().zip(shape).rev().zip(x.shape().iter().zip(&own).rev()) {
        *stride = if n == to { s } else { 0 };
    }
    x.strided(x.dtype(), shape.to_vec(), strides, 0)
}

/// What an element-wise call gives.
fn computed(node: &Node, x: &TensorData, y: Option<&TensorData>, to: DType, shape: &[u64]) -> Result<Option<TensorData>, Error> {
    let pair = is_op!(node.op, "aten.mul.Tensor" | "aten.div.Tensor");
    let number = node.args.get(1).is_some_and(|a| a.as_float().is_some());
    match y {
        _ if node.op == CAST => casted(x, to).map(Some),
        // A scalar among tensors of another type would be converted.
        Some(y) if pair && x.dtype() == to && y.dtype() == to => {
            let both = vec![broadcast(x, shape)?, broadcast(y, shape)?];
            pointwise(node.op, vec![Operand::Input(0), Operand::Input(1)], both, to, shape).map(Some)
        }
        None if pair && number && x.dtype() == to => {
            let second = node.args.get(1).cloned().unwrap_or(Arg::None);
            pointwise(node.op, vec![Operand::Input(0), Operand::Literal(second)], vec![x.clone()], to, shape).map(Some)
        }
        Some(scale) if node.op == op!("torchao.dequantize_affine_float8_non_decomposed.default") => {
            let wide = casted(x, DType::Float32)?;
            let Some(scale) = blocks(&casted(scale, DType::Float32)?, shape)? else { return Ok(None) };
            let operands = vec![Operand::Input(0), Operand::Input(1)];
            casted(&pointwise(op!("aten.mul.Tensor"), operands, vec![wide, scale], DType::Float32, shape)?, to).map(Some)
        }
        _ => Ok(None),
    }
}

/// Scales of blocks, each repeated for the elements of its block.
fn blocks(scale: &TensorData, shape: &[u64]) -> Result<Option<TensorData>, Error> {
    if scale.numel() == 1 {
        return broadcast(&scale.reinterpret(scale.dtype(), vec![])?, shape).map(Some);
    }
    if scale.shape().len() != shape.len() || scale.shape().iter().zip(shape).any(|(&s, &n)| s == 0 || n % s != 0) {
        return Ok(None);
    }
    let apart = scale.shape().iter().flat_map(|&s| [s, 1]).collect();
    let wide: Vec<u64> = scale.shape().iter().zip(shape).flat_map(|(&s, &n)| [s, n / s]).collect();
    let whole = broadcast(&scale.reinterpret(scale.dtype(), apart)?, &wide)?;
    whole.reinterpret(scale.dtype(), shape.to_vec()).map(Some)
}

fn casted(x: &TensorData, to: DType) -> Result<TensorData, Error> {
    if x.dtype() == to {
        return Ok(x.clone());
    }
    let args = cast(Arg::None, to).into_iter().skip(1).map(Operand::Literal);
    let operands = std::iter::once(Operand::Input(0)).chain(args).collect();
    pointwise(CAST, operands, vec![x.clone()], to, x.shape())
}

/// The weight cast, element by element, when it is written.
pub(crate) fn cast_when_written(x: &TensorData, to: DType) -> Result<TensorData, Error> {
    casted(x, to)
}

fn pointwise(op: OpId, args: Vec<Operand>, inputs: Vec<TensorData>, to: DType, shape: &[u64]) -> Result<TensorData, Error> {
    TensorData::derived(to, shape.to_vec(), Arc::new(Pointwise { op, args, inputs, dtype: to, table: OnceLock::new() }))
}

enum Operand {
    Input(usize),
    Literal(Arg),
}

/// An element-wise call on tensors of one shape.
struct Pointwise {
    op: OpId,
    args: Vec<Operand>,
    inputs: Vec<TensorData>,
    dtype: DType,
    /// What each code of a byte becomes, for calls on one tensor of bytes.
    table: OnceLock<Option<Vec<u8>>>,
}

fn short(what: &str) -> Error {
    Error::new(ErrorKind::Weight, what.to_owned())
}

impl Pointwise {
    /// Elements that pieces are multiples of.
    fn elements(&self) -> u64 {
        let at_once = |t: &TensorData| t.granule().div_ceil(t.dtype().size() as u64).max(1);
        self.inputs.iter().map(at_once).fold(1, |a, b| {
            let (mut x, mut y) = (a, b);
            while y != 0 {
                (x, y) = (y, x % y);
            }
            (a / x).saturating_mul(b)
        })
    }

    /// The call on some elements of each of the inputs.
    fn call(&self, pieces: &[Tensor]) -> Result<Vec<u8>, Error> {
        // Any graph will do for the names of these tensors.
        let mut names = Graph::new();
        let values: Vec<ValueId> = pieces.iter().map(|_| names.add_input("x", etx_ir::graph::Type::None)).collect();
        let arg = |o: &Operand| match o {
            Operand::Input(i) => values.get(*i).map_or(Arg::None, |v| Arg::Value(*v)),
            Operand::Literal(a) => a.clone(),
        };
        let args: Vec<Arg> = self.args.iter().map(arg).collect();
        let value = |v: ValueId| values.iter().position(|x| *x == v).and_then(|i| pieces.get(i)).map(|t| Value::Tensor(t.clone()));
        match eval::call(self.op, &args, &value)?.as_slice() {
            [Value::Tensor(t)] if t.dtype() == self.dtype => Ok(t.bytes()),
            _ => Err(short("the element type is not that of the call")),
        }
    }

    fn table(&self) -> Option<&[u8]> {
        let make = || {
            let [x] = self.inputs.as_slice() else { return None };
            let all = Tensor::new(x.dtype(), &[256], (0..=255).collect()).ok().filter(|_| x.dtype().size() == 1)?;
            self.call(&[all]).ok()
        };
        self.table.get_or_init(make).as_deref()
    }
}

impl Derive for Pointwise {
    fn recipe(&self) -> String {
        let mut text = format!("{} as {}", self.op, self.dtype);
        for a in &self.args {
            // A string takes what is written to it.
            let _ = match a {
                Operand::Input(i) => write!(text, " #{i}"),
                Operand::Literal(a) => write!(text, " {a:?}"),
            };
        }
        text
    }

    fn inputs(&self) -> &[TensorData] {
        &self.inputs
    }

    fn granule(&self) -> u64 {
        self.elements().saturating_mul(self.dtype.size() as u64)
    }

    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let size = self.dtype.size();
        let step = STEP.next_multiple_of(self.elements()) as usize;
        let mut first = offset / size as u64;
        for piece in out.chunks_mut(step.saturating_mul(size)) {
            let n = piece.len() / size;
            let read = |x: &TensorData| {
                let width = x.dtype().size();
                let mut bytes = vec![0; n * width];
                x.produce(first * width as u64, &mut bytes).map(|()| bytes)
            };
            match (self.table(), self.inputs.as_slice()) {
                (Some(table), [x]) => {
                    for (code, to) in read(x)?.into_iter().zip(piece.chunks_exact_mut(size)) {
                        let at = usize::from(code) * size;
                        to.copy_from_slice(table.get(at..at + size).ok_or_else(|| short("a code without a value"))?);
                    }
                }
                _ => {
                    let pieces = self.inputs.iter().map(|x| Tensor::new(x.dtype(), &[n], read(x)?)).collect::<Result<Vec<_>, _>>()?;
                    let bytes = self.call(&pieces)?;
                    if bytes.len() != piece.len() {
                        return Err(short("a call gave another number of elements"));
                    }
                    piece.copy_from_slice(&bytes);
                }
            }
            first += n as u64;
        }
        Ok(())
    }
}
