//! Bodies of higher-order operators, and branches that write to what they are given.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use etx_ir::graph::{Arg, Graph, Node, NodeId, Type, ValueId};
use etx_ir::op;

use super::{Walk, drop_strides, plain};

impl Walk<'_> {
    /// Bodies of higher-order operators keep their writes to themselves; branches hand the new values out as further results.
    /// Tells whether the call was replaced.
    pub(super) fn bodies(&mut self, node: NodeId, n: &Node) -> bool {
        if !n.args.iter().any(|a| matches!(a, Arg::Graph(_))) {
            return false;
        }
        let mut list = n.args.clone();
        let branches = n.op == op!("higher_order.cond");
        let mut changes = 0;
        if branches && list.iter().any(|a| matches!(a, Arg::Graph(body) if writes(body))) {
            match self.without_aliases(&mut list) {
                Ok(changed) => changes += changed,
                Err(why) => {
                    self.refuse(node, why);
                    return false;
                }
            }
        }
        let mut written: Vec<HashMap<ValueId, Arg>> = Vec::new();
        for a in &mut list {
            let Arg::Graph(body) = a else { continue };
            let mut walk = Walk::new(body, self.ranges);
            walk.all();
            let (findings, n, new) = walk.finish();
            changes += n + drop_strides(body);
            self.findings.extend(findings);
            written.push(new);
        }
        if written.iter().all(HashMap::is_empty) {
            if changes > 0 {
                self.graph.set_args(node, list);
                self.changes += changes;
            }
            return false;
        }
        if !branches {
            self.refuse(
                node,
                "its body writes to what it was given: carry the new value from round to round instead, and assign it after the loop",
            );
            return false;
        }
        self.branches_that_write(node, n, list, &written);
        self.changes += changes + 1;
        true
    }

    /// A `cond` with the last value of every operand that a branch writes as further results.
    fn branches_that_write(&mut self, node: NodeId, n: &Node, mut list: Vec<Arg>, written: &[HashMap<ValueId, Arg>]) {
        let bodies = || n.args.iter().enumerate().filter(|(_, a)| matches!(a, Arg::Graph(_))).map(|(i, _)| i);
        let mut places: BTreeSet<usize> = BTreeSet::new();
        for (i, new) in bodies().zip(written) {
            if let Some(Arg::Graph(body)) = list.get(i) {
                places.extend(body.inputs().iter().enumerate().filter(|(_, v)| new.contains_key(v)).map(|(at, _)| at));
            }
        }
        for (i, new) in bodies().zip(written) {
            let Some(Arg::Graph(body)) = list.get_mut(i) else { continue };
            let given = places.iter().filter_map(|&at| body.inputs().get(at).copied());
            let last: Vec<Arg> = given.map(|v| new.get(&v).cloned().unwrap_or(Arg::Value(v))).collect();
            let results = [body.outputs(), &last].concat();
            body.set_outputs(results);
        }
        let operands = list.last().and_then(Arg::as_list).unwrap_or(&[]).to_vec();
        let operands: Vec<ValueId> = places.iter().filter_map(|&at| operands.get(at)?.as_value()).collect();
        let kept = n.outputs.iter().map(|&v| self.graph.ty(v).clone());
        let types: Vec<Type> = kept.chain(operands.iter().map(|&v| plain(self.graph.ty(v)))).collect();
        let results = self.emit_all(node, n.op, list, types);
        let (kept, new) = results.split_at(n.outputs.len().min(results.len()));
        for (&old, &value) in n.outputs.iter().zip(kept) {
            self.stands_for(old, value);
        }
        for (&operand, &value) in operands.iter().zip(new) {
            if let Some(object) = self.object_of(operand) {
                self.write(object, Arg::Value(value), node);
            }
        }
        self.dead.push(node);
    }

    /// Operands that share memory become views, made inside the branches, of one that owns it: a write to one is seen in the others.
    fn without_aliases(&mut self, list: &mut [Arg]) -> Result<u64, String> {
        let Some(Arg::List(operands)) = list.last() else { return Ok(0) };
        let mut operands = operands.clone();
        let mut groups: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (at, operand) in operands.iter().enumerate() {
            if let Some(object) = operand.as_value().and_then(|v| self.object_of(v))
                && let Some(o) = self.objects.get(object)
            {
                groups.entry(o.storage).or_default().push((at, object));
            }
        }
        let mut changes = 0;
        for group in groups.into_values().filter(|g| g.len() > 1) {
            let mut owner = group.first().map_or(0, |&(_, object)| object);
            while let Some((parent, _)) = self.objects.get(owner).and_then(|o| o.parent.clone()) {
                owner = parent;
            }
            let place = match group.iter().find(|&&(_, object)| object == owner) {
                Some(&(at, _)) => at,
                None => {
                    let value = self.objects.get(owner).map_or(Arg::None, |o| o.value.clone());
                    let ty = value.as_value().map_or(Type::None, |v| plain(self.graph.ty(v)));
                    for a in list.iter_mut() {
                        if let Arg::Graph(body) = a {
                            body.add_input("memory", ty.clone());
                        }
                    }
                    operands.push(value);
                    operands.len() - 1
                }
            };
            for &(at, object) in group.iter().filter(|&&(at, _)| at != place) {
                for a in list.iter_mut() {
                    if let Arg::Graph(body) = a {
                        self.view_inside(body, object, place, at)?;
                    }
                }
            }
            changes += 1;
        }
        if let Some(last) = list.last_mut() {
            *last = Arg::List(operands);
        }
        Ok(changes)
    }

    /// Makes input `at` of the body, a view of the memory that input `owner` is, by the calls that made it outside.
    fn view_inside(&self, body: &mut Graph, object: usize, owner: usize, at: usize) -> Result<(), String> {
        let mut steps = Vec::new();
        let mut up = object;
        while let Some((parent, step)) = self.objects.get(up).and_then(|o| o.parent.clone()) {
            steps.push(step);
            up = parent;
        }
        let (Some(&from), Some(&to)) = (body.inputs().get(owner), body.inputs().get(at)) else { return Ok(()) };
        let first = body.nodes().next().map(|(id, _)| id);
        let mut value = from;
        for step in steps.into_iter().rev() {
            let mut args = step.args.clone();
            if let Some(a) = args.get_mut(step.from) {
                *a = Arg::Value(value);
            }
            let mut outside = false;
            args.iter().enumerate().filter(|(i, _)| *i != step.from).for_each(|(_, a)| a.visit(&mut |_| outside = true));
            if outside {
                return Err(format!("a branch writes to one of two operands that share memory, by {} of a computed place", step.op));
            }
            let name = crate::rewrite::stem(step.op);
            let outputs = step.types.iter().map(|t| (name, t.clone())).collect();
            let id = body.insert(first, step.op, args, name, outputs, None);
            value = body.node(id).outputs.get(step.output).copied().unwrap_or(value);
        }
        body.replace_uses(to, value);
        Ok(())
    }
}

/// Whether a call of the graph, or of one inside it, writes to its operands.
fn writes(graph: &Graph) -> bool {
    graph.nodes().any(|(_, n)| {
        n.op.mutates() || n.op.training_mutation().is_some() || n.args.iter().any(|a| matches!(a, Arg::Graph(body) if writes(body)))
    })
}
