//! Computes at compile time what does not depend on the inputs.

use std::collections::BTreeMap;

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, Graph, NodeId, Type, ValueId};
use etx_ir::infer;
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::program::{InputKind, Method, OutputKind, Program};
use etx_ir::sym::{Expr, Func, Ranges};
use etx_ir::weights::TensorData;

use crate::calls::CAST;
use crate::driver::{Context, Pass};
use crate::effects::removable;
use crate::rewrite::{Patch, Rule, Site, Weights, remove_dead};

/// Numbers behind inputs of a method that hold a single element and that nothing writes to.
pub(crate) struct Constants(BTreeMap<ValueId, Arg>);

impl Constants {
    pub(crate) fn new(program: &Program, method: &Method) -> Self {
        let mut literals = BTreeMap::new();
        for (v, data) in constant_inputs(program, method) {
            if let Some(n) = data.shape().is_empty().then(|| number(data)).flatten() {
                literals.insert(v, n);
            }
        }
        Self(literals)
    }
}

impl Weights for Constants {
    fn literal(&self, _: &Graph, v: ValueId) -> Option<Arg> {
        self.0.get(&v).cloned()
    }
}

/// Inputs that hold the same bytes whenever the method runs.
fn constant_inputs<'p>(program: &'p Program, method: &'p Method) -> impl Iterator<Item = (ValueId, &'p TensorData)> {
    method.inputs.iter().enumerate().filter_map(|(i, input)| {
        let fixed = match input.kind {
            InputKind::Parameter(_) | InputKind::Constant(_) => true,
            // A buffer that another method writes is not constant here; only those of the state dict that nobody
            // could tell apart from parameters would be, and there is no way to know.
            _ => false,
        };
        let written = method.outputs.contains(&OutputKind::StateMutation(i as u32));
        let data = &program.weights().get(input.kind.weight()?.index())?.data;
        (fixed && !written).then_some((input.value?, data))
    })
}

/// The only element.
pub(crate) fn number(data: &TensorData) -> Option<Arg> {
    let bytes = data.bytes()?;
    Some(match data.dtype() {
        DType::Bool => Arg::Bool(*bytes.first()? != 0),
        DType::UInt8 => Arg::Int(i64::from(*bytes.first()?)),
        DType::Int8 => Arg::Int(i64::from(i8::from_le_bytes(bytes.try_into().ok()?))),
        DType::Int16 => Arg::Int(i64::from(i16::from_le_bytes(bytes.try_into().ok()?))),
        DType::Int32 => Arg::Int(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
        DType::Int64 => Arg::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
        DType::Float16 => Arg::Float(half::f16::from_le_bytes(bytes.try_into().ok()?).to_f64()),
        DType::BFloat16 => Arg::Float(half::bf16::from_le_bytes(bytes.try_into().ok()?).to_f64()),
        DType::Float32 => Arg::Float(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        DType::Float64 => Arg::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

/// A number as an element of this type would hold it; `None` where conversions differ between machines.
fn rounded(n: &Arg, to: DType) -> Option<Arg> {
    let x = n.as_float()?;
    // 53 bits: beyond, an integer given as a float is another one.
    let exact = |k: i64| k.unsigned_abs() <= 1 << 53;
    Some(match (to, n) {
        (DType::Bool, _) => Arg::Bool(x != 0.0),
        (DType::Int64, Arg::Int(k)) => Arg::Int(*k),
        (DType::Int64, Arg::Bool(b)) => Arg::Int(i64::from(*b)),
        (DType::Int32, Arg::Int(k)) => Arg::Int(i64::from(i32::try_from(*k).ok()?)),
        (DType::Int32, Arg::Bool(b)) => Arg::Int(i64::from(*b)),
        (_, Arg::Int(k)) if !exact(*k) => return None,
        (DType::Float64, _) => Arg::Float(x),
        (DType::Float32, _) => Arg::Float(f64::from(x as f32)),
        // Through f32, as torch converts; twice rounded only where torch rounds twice.
        (DType::Float16, _) => Arg::Float(half::f16::from_f32(x as f32).to_f64()),
        (DType::BFloat16, _) => Arg::Float(half::bf16::from_f32(x as f32).to_f64()),
        _ => return None,
    })
}

/// Replaces scalars that are known at compile time by literals, and integers that were computed before by those.
///
/// What is known follows from the types: sizes that are numbers, comparisons that the bounds of symbols decide. Small
/// constants that are only reshaped or cast become constants of that shape and type.
#[derive(Clone, Copy, Debug, Default)]
pub struct FoldConstants;

/// Constants of at most this many bytes are rewritten at compile time. Larger ones stay what the model's author stored:
/// a second form of a weight would cost file size for a reshape that costs nothing.
const TINY: u64 = 4096;

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold-constants"
    }

    fn law(&self) -> &'static str {
        "scalars known from types become literals, equal integers one; constants of at most 4096 bytes are reshaped and cast now"
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        cx.sweep(&Scalars)?;
        tiny(cx)
    }
}

struct Scalars;

impl Rule for Scalars {
    fn name(&self) -> &'static str {
        "fold-constants"
    }

    fn law(&self) -> &'static str {
        "scalars known from types become literals, equal integers one"
    }

    fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
        let node = site.node();
        let [v] = node.outputs.as_slice() else { return Ok(None) };
        if !removable(node) {
            return Ok(None);
        }
        let known = match site.graph().ty(*v) {
            Type::Int(e) => match integer(e, site.ranges()) {
                Some(n) => Some(Arg::Int(n)),
                None => site.known(e).map(Arg::Value),
            },
            Type::Bool(e) => decide(e, site.ranges()).map(Arg::Bool),
            Type::Float(Expr::Float(bits)) => Some(Arg::Float(f64::from_bits(*bits))),
            Type::Float(Expr::Int(n)) => Some(Arg::Float(*n as f64)),
            _ => None,
        };
        let used = site.graph().value(*v).use_count() > 0;
        Ok(known.filter(|_| used).map(Patch::value))
    }
}

/// The only value the expression can have.
pub(crate) fn integer(e: &Expr, ranges: &Ranges) -> Option<i64> {
    if let Some(n) = e.as_int() {
        return Some(n);
    }
    let r = ranges.bounds(e);
    r.min.filter(|_| r.min == r.max)
}

/// Whether the condition holds for all values of the symbols, or for none.
pub(crate) fn decide(e: &Expr, ranges: &Ranges) -> Option<bool> {
    match e {
        Expr::Bool(b) => Some(*b),
        Expr::Call(func, args) => match (func, &args[..]) {
            (Func::Eq, [a, b]) => ranges.equal(a, b),
            (Func::Ne, [a, b]) => ranges.equal(a, b).map(|x| !x),
            (Func::Le, [a, b]) => ranges.at_most(a, b),
            (Func::Lt, [a, b]) => ranges.at_most(b, a).map(|x| !x),
            (Func::Not, [a]) => decide(a, ranges).map(|x| !x),
            (Func::And, all) => {
                let parts: Vec<Option<bool>> = all.iter().map(|a| decide(a, ranges)).collect();
                if parts.contains(&Some(false)) { Some(false) } else { parts.iter().all(|p| *p == Some(true)).then_some(true) }
            }
            (Func::Or, all) => {
                let parts: Vec<Option<bool>> = all.iter().map(|a| decide(a, ranges)).collect();
                if parts.contains(&Some(true)) { Some(true) } else { parts.iter().all(|p| *p == Some(false)).then_some(false) }
            }
            _ => None,
        },
        _ => None,
    }
}

/// Reshapes and casts of small constants, done now.
fn tiny(cx: &mut Context<'_>) -> Result<(), Error> {
    let constants: BTreeMap<ValueId, TensorData> = {
        let method = cx.method();
        let inputs = method.inputs.iter().enumerate();
        inputs
            .filter(|(_, i)| matches!(i.kind, InputKind::Constant(_)))
            .filter_map(|(n, i)| Some((i.value?, cx.weight(n)?.clone())))
            .filter(|(_, d)| d.byte_len() <= TINY)
            .collect()
    };
    let mut known = constants;
    for node in cx.graph().order() {
        if !cx.graph().contains(node) {
            continue;
        }
        let Some((v, data)) = folded(cx.graph(), node, &known)? else { continue };
        let name = cx.graph().value(v).name.to_string();
        let constant = cx.add_constant(&name, data.clone());
        known.insert(constant, data);
        let graph = &mut cx.edit().graph;
        graph.replace_uses(v, constant);
        remove_dead(graph, vec![node]);
        cx.changed(1);
    }
    Ok(())
}

fn folded(graph: &Graph, node: NodeId, known: &BTreeMap<ValueId, TensorData>) -> Result<Option<(ValueId, TensorData)>, Error> {
    let n = graph.node(node);
    let reshape = is_op!(n.op, "aten.view.default" | "aten.unsqueeze.default" | "aten.squeeze.dims");
    if !reshape && n.op != CAST {
        return Ok(None);
    }
    let (Some(x), [v]) = (n.args.first().and_then(Arg::as_value), n.outputs.as_slice()) else { return Ok(None) };
    let (Some(data), Some(to)) = (known.get(&x), graph.tensor(*v)) else { return Ok(None) };
    let Some(shape) = to.shape.iter().map(|d| d.as_int().and_then(|n| u64::try_from(n).ok())).collect::<Option<Vec<u64>>>() else {
        return Ok(None);
    };
    if reshape {
        return Ok(Some((*v, data.reinterpret(data.dtype(), shape)?)));
    }
    if data.dtype() == to.dtype {
        return Ok(Some((*v, data.clone())));
    }
    let Some(bytes) = converted(&data.to_vec()?, data.dtype(), to.dtype) else { return Ok(None) };
    if bytes.len() as u64 > TINY {
        return Ok(None);
    }
    Ok(Some((*v, TensorData::inline(to.dtype, shape, bytes)?)))
}

/// Elements converted one by one; `None` for types or values whose conversion is not the same everywhere.
fn converted(bytes: &[u8], from: DType, to: DType) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() / from.size() * to.size());
    for piece in bytes.chunks_exact(from.size()) {
        let element = TensorData::inline(from, vec![], piece).ok()?;
        match (to, rounded(&number(&element)?, to)?) {
            (DType::Bool, Arg::Bool(b)) => out.push(u8::from(b)),
            (DType::Int64, Arg::Int(n)) => out.extend(n.to_le_bytes()),
            (DType::Int32, Arg::Int(n)) => out.extend(i32::try_from(n).ok()?.to_le_bytes()),
            (DType::Float64, Arg::Float(x)) => out.extend(x.to_le_bytes()),
            (DType::Float32, Arg::Float(x)) => out.extend((x as f32).to_le_bytes()),
            (DType::Float16, Arg::Float(x)) => out.extend(half::f16::from_f64(x).to_le_bytes()),
            (DType::BFloat16, Arg::Float(x)) => out.extend(half::bf16::from_f64(x).to_le_bytes()),
            _ => return None,
        }
    }
    Some(out)
}

/// Makes literals of one-element tensors that are known now (constants, `full`) where they stand as operands of
/// element-wise operators.
///
/// Only where the result keeps its type without the tensor: a scalar tensor may decide the element type of a result, a
/// number does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct FoldScalars;

impl Rule for FoldScalars {
    fn name(&self) -> &'static str {
        "fold-scalars"
    }

    fn law(&self) -> &'static str {
        "a scalar tensor known now becomes a number where the result keeps its type; the number is what the tensor held"
    }

    fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
        let places = numbers_allowed(site.op());
        let Some(result) = site.result() else { return Ok(None) };
        for &i in places {
            let Some((literal, _)) = scalar(site, site.nth(i), 8) else { continue };
            let mut args = site.node().args.clone();
            if let Some(a) = args.get_mut(i) {
                *a = literal;
            }
            // A call of numbers alone is no tensor operation any more.
            let tensors = args.iter().any(|a| site.tensor(a).is_some_and(|t| t.dtype != DType::Bool || !is_where(site.op())));
            let same = infer::infer(site.graph(), site.ranges(), site.op(), &args)
                .is_ok_and(|t| matches!(t.as_slice(), [Type::Tensor(t)] if t.same_as(result)));
            if tensors && same {
                return Ok(Some(Patch::Call(site.op(), args)));
            }
        }
        Ok(None)
    }
}

fn is_where(op: OpId) -> bool {
    op == op!("aten.where.self")
}

/// Argument positions of an element-wise operator at which a number may stand for a tensor.
fn numbers_allowed(op: OpId) -> &'static [usize] {
    by_op!(op, {
        "aten.add.Tensor"
        | "aten.sub.Tensor"
        | "aten.mul.Tensor"
        | "aten.div.Tensor"
        | "aten.div.Tensor_mode"
        | "aten.remainder.Tensor"
        | "aten.fmod.Tensor"
        | "aten.eq.Tensor"
        | "aten.ne.Tensor"
        | "aten.lt.Tensor"
        | "aten.le.Tensor"
        | "aten.gt.Tensor"
        | "aten.ge.Tensor"
        | "aten.bitwise_and.Tensor"
        | "aten.bitwise_or.Tensor"
        | "aten.bitwise_xor.Tensor" => &[1],
        "aten.where.self" => &[1, 2],
        _ => &[],
    })
}

/// The number that a scalar tensor holds, following what makes it.
fn scalar(site: &Site<'_>, arg: &Arg, depth: u32) -> Option<(Arg, DType)> {
    let t = site.tensor(arg)?;
    if t.rank() != 0 || depth == 0 {
        return None;
    }
    let dtype = t.dtype;
    if let Some(n) = site.constant(arg) {
        return Some((n, dtype));
    }
    let node = site.graph().node(site.graph().producer(arg.as_value()?)?);
    by_op!(node.op, {
        "aten.full.default" => Some((rounded(node.args.get(1)?, dtype)?, dtype)),
        "aten._to_copy.default" => Some((rounded(&scalar(site, node.args.first()?, depth - 1)?.0, dtype)?, dtype)),
        "aten.view.default" | "aten.expand.default" => scalar(site, node.args.first()?, depth - 1),
        _ => None,
    })
}
