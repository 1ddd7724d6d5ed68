//! Calls that write to their operands.

use etx_ir::graph::{Arg, Node, NodeId, TensorType, Type, ValueId};
use etx_ir::infer;
use etx_ir::op;
use etx_ir::op::OpId;

use super::{Walk, plain};
use crate::calls::{CAST, args, cast};

impl Walk<'_> {
    /// `transpose_`, `detach_`, …: the tensor itself gets another shape or strides.
    pub(super) fn inplace_view(&mut self, node: NodeId, n: &Node) {
        if n.op == op!("aten.resize_.default") {
            return self.resize(node, n);
        }
        let view = n.op.inplace_to_functional().filter(|op| op.is_view());
        let (Some(op), Some(operand), [out]) = (view, n.args.first().and_then(Arg::as_value), n.outputs.as_slice()) else {
            return self.refuse(node, "it changes the memory behind a tensor, which has no functional form");
        };
        let old = self.object_of(operand);
        let list = match super::memory::reads_memory(op) {
            true => match self.in_memory_order(node, n) {
                Some(list) => list,
                None => return,
            },
            false => n.args.clone(),
        };
        self.graph.set_call(node, op, list);
        self.changes += 1;
        let now = self.graph.node(node).clone();
        self.result(node, &now, 0, *out);
        // Whoever holds the tensor holds the changed one.
        if let (Some(old), Some(new)) = (old, self.object_of(*out)) {
            let storage = self.objects.get(old).map_or(0, |o| o.storage);
            let values = self.storages.get(storage).map(|s| s.values.clone()).unwrap_or_default();
            for v in values {
                if self.object_of(v) == Some(old) {
                    self.is(v, new);
                }
            }
        }
    }

    /// `resize_` of a tensor that nothing else shares memory with: whoever holds it holds one of another size from here on.
    fn resize(&mut self, node: NodeId, n: &Node) {
        let object = n.args.first().and_then(Arg::as_value).and_then(|v| self.object_of(v));
        let held = object.and_then(|o| Some((o, self.storages.get(self.objects.get(o)?.storage)?)));
        let alone = held.filter(|(_, s)| s.input.is_none()).map(|(o, s)| (o, s.values.clone()));
        let (Some((object, values)), [out]) = (alone, n.outputs.as_slice()) else {
            return self.refuse(node, "it changes the memory behind a tensor, which has no functional form");
        };
        if values.iter().any(|&v| self.object_of(v) != Some(object)) {
            return self.refuse(node, "it changes the memory behind a tensor of which there are views");
        }
        self.graph.set_call(node, op!("aten.resize.default"), n.args.clone());
        self.changes += 1;
        let new = self.own(*out, None);
        for v in values {
            self.is(v, new);
        }
    }

    pub(super) fn mutation(&mut self, node: NodeId, n: &Node) {
        let schema = n.op.schema();
        let mut targets = Vec::new();
        for i in schema.mutated_args() {
            let arg = n.args.get(i).unwrap_or(&Arg::None);
            let mut each = Vec::new();
            arg.visit(&mut |v| each.push(v));
            for v in each {
                match self.object_of(v) {
                    Some(o) => targets.push((v, o)),
                    None => return self.refuse(node, "it writes to what is no tensor"),
                }
            }
        }
        if let (Some(op), [(v, object)]) = (n.op.inplace_to_functional(), targets.as_slice()) {
            let Type::Tensor(t) = self.graph.ty(*v).clone() else { return };
            let value = self.functional_value(node, op, n.args.clone(), &t);
            self.write(*object, value, node);
            if let [out] = n.outputs.as_slice() {
                self.is(*out, *object);
            }
            self.dead.push(node);
            return;
        }
        let Some(op) = n.op.functional() else {
            return self.refuse(node, "it has no functional form");
        };
        let returns = n.outputs.iter().map(|&v| self.graph.ty(v).clone());
        let new_values = targets.iter().map(|(v, _)| plain(self.graph.ty(*v)));
        let types: Vec<Type> = returns.chain(new_values).collect();
        let results = self.emit_all(node, op, n.args.clone(), types);
        let (returned, new) = results.split_at(n.outputs.len().min(results.len()));
        for (i, (&old, &value)) in n.outputs.iter().zip(returned).enumerate() {
            let same_as = schema.returns.get(i).filter(|r| r.mutated).and_then(|r| n.args.get(*r.alias_of.first()?)?.as_value());
            match same_as.and_then(|v| self.object_of(v)) {
                Some(object) => self.is(old, object),
                None => self.stands_for(old, value),
            }
        }
        for ((_, object), &value) in targets.iter().zip(new) {
            self.write(*object, Arg::Value(value), node);
        }
        self.dead.push(node);
    }

    /// The old value is this new one from here on.
    pub(super) fn stands_for(&mut self, old: ValueId, new: ValueId) {
        if self.graph.tensor(new).is_some() {
            let object = self.own(new, None);
            if let Some(o) = self.objects.get_mut(object) {
                o.recorded = self.graph.tensor(old).cloned();
            }
            self.is(old, object);
        } else {
            self.graph.replace_uses(old, new);
        }
    }

    /// What an in-place operator leaves in its operand: the functional result, in the operand's element type.
    pub(super) fn functional_value(&mut self, node: NodeId, op: OpId, list: Vec<Arg>, to: &TensorType) -> Arg {
        let dtype = match infer::infer(self.graph, self.ranges, op, &list).ok().as_deref() {
            Some([Type::Tensor(t)]) => t.dtype,
            _ => to.dtype,
        };
        let value = self.emit(node, op, list, Type::Tensor(TensorType::new(dtype, to.shape.clone())));
        if dtype == to.dtype {
            return value;
        }
        self.emit(node, CAST, cast(value, to.dtype), Type::Tensor(TensorType::new(to.dtype, to.shape.clone())))
    }

    /// Batch normalisation in training updates running statistics that its schema does not say it writes to.
    pub(super) fn batch_norm(&mut self, node: NodeId, n: &Node) {
        if !is_op!(n.op, "aten.batch_norm.default" | "aten.native_batch_norm.default") {
            return self.refuse(node, "it updates running statistics, which is only understood of batch_norm");
        }
        let [Some(input), Some(mean), Some(var)] = [0, 3, 4].map(|i| n.args.get(i).and_then(Arg::as_value)) else {
            return self.refuse(node, "it updates running statistics of which only one is given");
        };
        let twin = op!("aten._native_batch_norm_legit_functional.default");
        let list = args(twin, n.args.iter().take(8).cloned(), &[]);
        let stats = [mean, var].map(|v| plain(self.graph.ty(v)));
        let [m, v] = stats.clone();
        let types = vec![plain(self.graph.ty(input)), m.clone(), v.clone(), m, v];
        let results = self.emit_all(node, twin, list, types);
        for (&old, &new) in n.outputs.iter().zip(&results) {
            self.stands_for(old, new);
        }
        for (target, new) in [(mean, results.get(3)), (var, results.get(4))] {
            if let (Some(object), Some(&new)) = (self.object_of(target), new) {
                self.write(object, Arg::Value(new), node);
            }
        }
        self.dead.push(node);
    }
}
