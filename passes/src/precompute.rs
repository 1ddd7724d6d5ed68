//! Computes small tensors that depend on nothing but numbers: masks, indices, grids.

use std::collections::HashMap;

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::eval::{self, Tensor, Value};
use etx_ir::graph::{Graph, Node, NodeId, ValueId};
use etx_ir::op::OpId;
use etx_ir::program::InputKind;
use etx_ir::weights::TensorData;

use crate::driver::{Context, Pass};
use crate::effects::removable;

/// Results of more bytes than this are left to the program: instructions are shorter.
const SMALL: u64 = 65536;
/// The limit for what is made of constants that the file holds already.
const STORED: u64 = 4096;
/// No more than this is held at a time, however large the graph.
const HELD: usize = 16 << 20;

/// Replaces what operators with one possible answer make of numbers and small constants by that answer.
///
/// Only operators whose results are the same bit by bit on every machine: arrangement, integers, comparisons, and the basic
/// operations on floats, which IEEE 754 defines. A tensor of equal elements stays the call that fills it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Precompute;

impl Pass for Precompute {
    fn name(&self) -> &'static str {
        "precompute"
    }

    fn law(&self) -> &'static str {
        "tensors of at most 65536 bytes that exact operators make of numbers alone are constants (4096 bytes, of constants)"
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        let known = known(cx)?;
        let order: Vec<NodeId> = cx.graph().order();
        let mut made: Vec<(ValueId, TensorData)> = Vec::new();
        for id in order {
            let node = cx.graph().node(id);
            let [v] = node.outputs.as_slice() else { continue };
            if is_creation(node.op) || cx.method().input_of(*v).is_some() {
                continue;
            }
            let Some(k) = known.get(v) else { continue };
            if is_wanted(cx.graph(), *v, &known)
                && k.tensor.bytes().len() as u64 <= if k.stored { STORED } else { SMALL }
                && !is_uniform(&k.tensor)
            {
                let shape = k.tensor.shape().iter().map(|&n| n as u64).collect();
                made.push((*v, TensorData::inline(k.tensor.dtype(), shape, k.tensor.bytes())?));
            }
        }
        for (v, data) in made {
            let name = cx.graph().value(v).name.to_string();
            let constant = cx.add_constant(&name, data);
            cx.edit().graph.replace_uses(v, constant);
            cx.changed(1);
        }
        Ok(())
    }
}

/// A tensor that is known now.
struct Known {
    tensor: Tensor,
    /// Whether a constant of the file is among what it is made of.
    stored: bool,
}

/// Whether something reads the value that is not computed now itself.
fn is_wanted(graph: &Graph, v: ValueId, known: &HashMap<ValueId, Known>) -> bool {
    let value = graph.value(v);
    value.output_uses() > 0 || value.users().iter().any(|&u| graph.node(u).outputs.iter().any(|o| !known.contains_key(o)))
}

fn is_uniform(t: &Tensor) -> bool {
    let bytes = t.bytes();
    let size = t.dtype().size();
    bytes.len() <= size || bytes.chunks_exact(size).skip(1).all(|e| Some(e) == bytes.get(..size))
}

fn known(cx: &Context<'_>) -> Result<HashMap<ValueId, Known>, Error> {
    let mut known = HashMap::new();
    let mut held = 0;
    for (n, input) in cx.method().inputs.iter().enumerate() {
        if let (InputKind::Constant(_), Some(v), Some(data)) = (&input.kind, input.value, cx.weight(n))
            && data.byte_len() <= STORED
        {
            held += data.byte_len() as usize;
            known.insert(v, Known { tensor: Tensor::read(data)?, stored: true });
        }
    }
    let graph = cx.graph();
    for id in graph.order() {
        let node = graph.node(id);
        let [v] = node.outputs.as_slice() else { continue };
        if held > HELD || !is_exact(node.op) || !removable(node) || !fits(graph, *v) {
            continue;
        }
        let Some(stored) = operands(node, &known) else { continue };
        let value = |v: ValueId| known.get(&v).map(|k| Value::Tensor(k.tensor.clone()));
        // What torch would refuse is refused when the program runs, or by the backend.
        let Ok(results) = eval::call(node.op, &node.args, &value) else { continue };
        if let [Value::Tensor(t)] = results.as_slice()
            && graph.tensor(*v).is_some_and(|ty| ty.dtype == t.dtype() && same(ty, t))
        {
            held += t.bytes().len();
            known.insert(*v, Known { tensor: t.clone(), stored });
        }
    }
    Ok(known)
}

fn same(ty: &etx_ir::graph::TensorType, t: &Tensor) -> bool {
    ty.rank() == t.shape().len() && ty.shape.iter().zip(t.shape()).all(|(d, &n)| d.as_int() == i64::try_from(n).ok())
}

/// Whether all tensors among the arguments are known, and nothing is asked of symbols; and whether one of them is stored.
fn operands(node: &Node, known: &HashMap<ValueId, Known>) -> Option<bool> {
    let (mut all, mut stored) = (true, false);
    for arg in &node.args {
        arg.visit(&mut |v| match known.get(&v) {
            Some(k) => stored |= k.stored,
            None => all = false,
        });
    }
    all.then_some(stored)
}

/// Whether the result is a small tensor of known size, of a type that programs hold.
fn fits(graph: &Graph, v: ValueId) -> bool {
    let Some(ty) = graph.tensor(v) else { return false };
    let held = matches!(
        ty.dtype,
        DType::Bool | DType::UInt8 | DType::Int8 | DType::Int32 | DType::Int64 | DType::Float16 | DType::BFloat16 | DType::Float32
    );
    let elements = ty.shape.iter().try_fold(1u64, |n, d| n.checked_mul(u64::try_from(d.as_int()?).ok()?));
    held && elements.and_then(|n| n.checked_mul(ty.dtype.size() as u64)).is_some_and(|n| n <= SMALL)
}

fn is_creation(op: OpId) -> bool {
    is_op!(op, "aten.full.default" | "aten.arange.start_step" | "aten.scalar_tensor.default")
}

/// Whether every machine gives the same answer.
fn is_exact(op: OpId) -> bool {
    is_creation(op)
        || is_op!(
            op,
            "aten.view.default"
                | "aten.permute.default"
                | "aten.unsqueeze.default"
                | "aten.squeeze.dims"
                | "aten.expand.default"
                | "aten.slice.Tensor"
                | "aten.select.int"
                | "aten.slice_scatter.default"
                | "aten.select_scatter.default"
                | "aten.cat.default"
                | "aten.stack.default"
                | "aten.flip.default"
                | "aten.roll.default"
                | "aten.repeat.default"
                | "aten.tril_indices.default"
                | "aten.triu_indices.default"
                | "aten.tril.default"
                | "aten.triu.default"
                | "aten.clone.default"
                | "aten._to_copy.default"
                | "aten.add.Tensor"
                | "aten.sub.Tensor"
                | "aten.mul.Tensor"
                | "aten.div.Tensor"
                | "aten.neg.default"
                | "aten.abs.default"
                | "aten.floor.default"
                | "aten.ceil.default"
                | "aten.round.default"
                | "aten.trunc.default"
                | "aten.maximum.default"
                | "aten.minimum.default"
                | "aten.clamp.default"
                | "aten.floor_divide.default"
                | "aten.remainder.Tensor"
                | "aten.eq.Tensor"
                | "aten.ne.Tensor"
                | "aten.lt.Tensor"
                | "aten.le.Tensor"
                | "aten.gt.Tensor"
                | "aten.ge.Tensor"
                | "aten.logical_and.default"
                | "aten.logical_or.default"
                | "aten.logical_not.default"
                | "aten.bitwise_and.Tensor"
                | "aten.bitwise_or.Tensor"
                | "aten.bitwise_not.default"
                | "aten.where.self"
                | "aten.index_select.default"
                | "aten.index.Tensor"
        )
}

#[cfg(test)]
mod tests {
    use etx_ir::text;

    use super::Precompute;
    use crate::{Dce, Options, Pipeline};

    fn after(body: &str) -> String {
        let source = format!("etir 1\nmethod \"forward\" functional {{\n{body}\n}}");
        let mut program = text::parse(&source, &mut text::NoFiles).unwrap();
        Pipeline::new().then(Precompute).then(Dce).run(&mut program, &mut Options::verified()).unwrap();
        text::print(&program)
    }

    #[test]
    fn a_mask_made_of_numbers_is_a_constant() {
        let ir = after(
            "input %x : f32[3] = user
             %i : i64[3] = aten.arange.start_step(0, 3, 1)
             %m : bool[3] = aten.lt.Tensor(%i, 2)
             %zero : f32[] = aten.full.default([], 0.0)
             %y : f32[3] = aten.where.self(%m, %x, %zero)
             return %y",
        );
        assert!(!ir.contains("aten.arange") && !ir.contains("aten.lt") && ir.contains("aten.where.self"), "{ir}");
        assert!(ir.contains("010100"), "{ir}");
    }

    #[test]
    fn what_fills_a_tensor_and_what_differs_between_machines_stays() {
        let ir = after(
            "input %x : f32[3] = user
             %ones : f32[1] = aten.full.default([1], 1.0)
             %wide : f32[3] = aten.expand.default(%ones, [3])
             %i : f32[3] = aten.arange.start_step(0, 3, 1, dtype=f32)
             %e : f32[3] = aten.exp.default(%i)
             %a : f32[3] = aten.add.Tensor(%x, %wide)
             %b : f32[3] = aten.mul.Tensor(%a, %e)
             return %b",
        );
        assert!(ir.contains("aten.expand") && ir.contains("aten.exp.") && ir.contains("aten.arange"), "{ir}");
    }

    #[test]
    fn large_and_symbolic_tensors_are_left_to_the_program() {
        let ir = after(
            "symbol s0 [2..8]
             input %x : f32[s0] = user
             %n : int(s0) = aten.sym_size.int(%x, 0)
             %i : i64[s0] = aten.arange.start_step(0, %n, 1)
             %j : i64[s0] = aten.add.Tensor(%i, 1)
             %k : i64[100000] = aten.arange.start_step(0, 100000, 1)
             %l : i64[100000] = aten.add.Tensor(%k, 1)
             return %j, %l",
        );
        assert_eq!(ir.matches("aten.add.Tensor").count(), 2, "{ir}");
    }
}
