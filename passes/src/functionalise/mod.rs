//! Functionalisation: the walk over the calls, and the signature it leaves.

mod branches;
mod facts;
mod memory;
mod views;
mod wrapped;
mod writes;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Arg, Graph, Node, NodeId, TensorType, Type, ValueId};
use etx_ir::op;
use etx_ir::op::{Kind, OpId};
use etx_ir::program::{Dialect, InputKind, Method, OutputKind};
use etx_ir::sym::{Expr, Range, Ranges};
use etx_ir::weights::{Identity, TensorData};

pub(crate) use memory::reads_memory;
pub(crate) use views::permutation;

use crate::calls::ints;
use crate::driver::{Context, Pass};
use crate::rewrite::{Ints, place, remove_dead, stem};
use views::{Inverse, Shares};

/// From torch.export's training IR to a functional program.
///
/// In training IR a call may write to its operands, and whatever shares their memory is changed with them. The pass goes
/// through the calls in order and keeps, for every tensor, the memory it lives in and the chain of views that leads
/// there:
///
/// * a write to a tensor makes a new value, which is carried back through the chain to the memory's owner (a slice by
///   `slice_scatter`, a reshape by the reshape back, …);
/// * a tensor that is read after its memory changed is made again from the owner's new value, by its chain;
/// * the last value of each parameter, buffer and user input that was written becomes an output of the method, in torch's
///   order: parameters and buffers, then user inputs, each in input order, before what the user gets.
///
/// Assertions are dropped; what they say about symbols narrows the method's ranges. Custom operators that write become
/// their [functional twins](etx_ir::op::OpId::functional); `auto_functionalized` calls of exports that are functional
/// already become the same, so both forms of a program end as one.
///
/// `as_strided` and its kin get the owner of the memory, in the order in which it lies there. A branch that writes to its operands
/// gives their new values as further results.
///
/// Refused, each with its place: writes to tensors whose elements share memory (`expand`, `unfold`), reads of memory whose layout is
/// not known, loops whose bodies write to what they are given, writes through a reshape of which only a run would tell whether it copied, `set_`, `resize_` of tensors of
/// which there are views, writes to constants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Functionalise;

impl Pass for Functionalise {
    fn name(&self) -> &'static str {
        "functionalise"
    }

    fn law(&self) -> &'static str {
        "no call writes: every read sees the last write through any alias, and final values of written state are outputs"
    }

    fn dialect(&self) -> Option<Dialect> {
        None
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        let method = cx.edit();
        let Method { graph, ranges, .. } = method;
        let mut walk = Walk::new(graph, ranges);
        walk.all();
        let (findings, changes, written) = walk.finish();
        let mut findings = findings;
        if findings.is_empty() {
            findings.extend(outputs(cx, &written));
        }
        if !findings.is_empty() {
            return Err(Error::many(ErrorKind::Unsupported, findings).help(
                "write to a copy in the model (`x.clone()`), or to a buffer of it (`register_buffer`); what torch itself can take apart, \
                 `exported_program.run_decompositions({})` does, best of a program that was exported with strict=True",
            ));
        }
        let method = cx.edit();
        let strides = drop_strides(&mut method.graph);
        let changed = changes + strides + u64::from(method.dialect != Dialect::Functional);
        method.dialect = Dialect::Functional;
        cx.changed(changed);
        Ok(())
    }
}

/// Makes the new values of written inputs outputs of the method.
fn outputs(cx: &mut Context<'_>, written: &HashMap<ValueId, Arg>) -> Vec<String> {
    let mut findings = shared_state(cx, written);
    let method = cx.edit();
    let old: Vec<(OutputKind, Arg)> = method.outputs.iter().copied().zip(method.graph.outputs().iter().cloned()).collect();
    let (mut state, mut inputs) = (Vec::new(), Vec::new());
    for (i, input) in method.inputs.iter().enumerate() {
        let at = i as u32;
        let existing = old.iter().find(|(k, _)| *k == OutputKind::StateMutation(at) || *k == OutputKind::InputMutation(at));
        let new = input.value.and_then(|v| written.get(&v)).cloned();
        if existing.is_some() && new.is_some() {
            findings.push(format!("input {i} is both written to and declared as changed"));
        }
        match (&input.kind, existing, new) {
            (_, Some(entry), _) => match entry.0 {
                OutputKind::StateMutation(_) => state.push(entry.clone()),
                _ => inputs.push(entry.clone()),
            },
            (_, None, None) => {}
            (InputKind::Parameter(_) | InputKind::Buffer { .. }, None, Some(v)) => state.push((OutputKind::StateMutation(at), v)),
            (InputKind::User, None, Some(v)) => inputs.push((OutputKind::InputMutation(at), v)),
            (_, None, Some(_)) => {
                let name = input.value.map_or_else(String::new, |v| method.graph.value(v).name.to_string());
                findings.push(format!("the constant {name} is written to; make it a buffer (`register_buffer`), or write to a copy"));
            }
        }
    }
    let tokens = old.iter().filter(|(k, _)| *k == OutputKind::Token).cloned();
    let user = old.iter().filter(|(k, _)| *k == OutputKind::User).cloned();
    let all: Vec<(OutputKind, Arg)> = tokens.chain(state).chain(inputs).chain(user).collect();
    if findings.is_empty() {
        let (kinds, args) = all.into_iter().unzip();
        method.outputs = kinds;
        method.graph.set_outputs(args);
    }
    findings
}

/// States that are written to although another used input is stored in the same bytes of a file: one tensor in Python,
/// two here.
fn shared_state(cx: &Context<'_>, written: &HashMap<ValueId, Arg>) -> Vec<String> {
    let mut stored: BTreeMap<(usize, u64), Vec<ValueId>> = BTreeMap::new();
    for (i, input) in cx.method().inputs.iter().enumerate() {
        let Some(v) = input.value.filter(|v| cx.graph().value(*v).use_count() > 0 || written.contains_key(v)) else { continue };
        if let Some(Identity::Mapped { file, offset, len }) = cx.weight(i).map(TensorData::identity)
            && len > 0
        {
            stored.entry((file, offset)).or_default().push(v);
        }
    }
    let mut findings = Vec::new();
    for same in stored.into_values().filter(|same| same.len() > 1) {
        if let Some(v) = same.iter().find(|v| written.contains_key(v)) {
            let names: Vec<&str> = same.iter().filter(|o| *o != v).map(|o| &*cx.graph().value(*o).name).collect();
            findings.push(format!(
                "{} is written to, and {} is the same tensor under another name",
                cx.graph().value(*v).name,
                names.join(", ")
            ));
        }
    }
    findings
}

/// Strides say nothing of functional values, except to operators that read storage directly.
fn drop_strides(graph: &mut Graph) -> u64 {
    let reads_storage = |op: OpId| {
        is_op!(
            op,
            "aten.as_strided.default"
                | "aten.as_strided_copy.default"
                | "aten.as_strided_scatter.default"
                | "aten.sym_stride.int"
                | "aten.stride.int"
        )
    };
    if graph.nodes().any(|(_, n)| reads_storage(n.op)) {
        return 0;
    }
    let mut dropped = 0;
    for node in graph.order() {
        for v in graph.node(node).outputs.clone() {
            if let Type::Tensor(t) = graph.ty(v)
                && t.strides.is_some()
            {
                let plain = Type::Tensor(TensorType::new(t.dtype, t.shape.clone()));
                graph.set_type(v, plain);
                dropped += 1;
            }
        }
    }
    dropped
}

/// A tensor of the program: several values of the graph if calls returned it again.
struct Object {
    storage: usize,
    /// The tensor it is a view of, and how; `None` for the owner of the storage.
    parent: Option<(usize, Rc<Step>)>,
    /// The value it has (had, if the storage is of a later generation).
    value: Arg,
    generation: u64,
    /// Its type as the program has it, strides and all.
    recorded: Option<TensorType>,
}

/// Memory.
struct Storage {
    /// How often it was written to.
    generation: u64,
    /// Storages that may be this one, and the call that left it open.
    perhaps: Vec<(usize, String)>,
    /// Values that live in it.
    values: Vec<ValueId>,
    /// The input of the graph that owns it.
    input: Option<ValueId>,
}

/// A view: the call that makes it, and the way back.
struct Step {
    op: OpId,
    args: Vec<Arg>,
    /// Which argument is the operand.
    from: usize,
    /// Which result is the view.
    output: usize,
    types: Vec<Type>,
    inverse: Inverse,
}

struct Walk<'g> {
    graph: &'g mut Graph,
    ranges: &'g mut Ranges,
    objects: Vec<Object>,
    storages: Vec<Storage>,
    /// The object that a value is, by index of the value.
    of: Vec<Option<usize>>,
    ints: Ints,
    /// Original position of each node.
    positions: Vec<u32>,
    /// Calls that were replaced; removed at the end, when nothing refers to them any more.
    dead: Vec<NodeId>,
    findings: Vec<String>,
    changes: u64,
}

impl<'g> Walk<'g> {
    fn new(graph: &'g mut Graph, ranges: &'g mut Ranges) -> Self {
        let (ints, positions) = (Ints::of_inputs(graph), graph.positions());
        let of = vec![None; graph.value_bound()];
        let mut walk = Walk {
            graph,
            ranges,
            objects: Vec::new(),
            storages: Vec::new(),
            of,
            ints,
            positions,
            dead: Vec::new(),
            findings: Vec::new(),
            changes: 0,
        };
        for v in walk.graph.inputs().to_vec() {
            if walk.graph.tensor(v).is_some() {
                walk.own(v, Some(v));
            }
        }
        walk
    }

    /// A new storage owned by `v`.
    fn own(&mut self, v: ValueId, input: Option<ValueId>) -> usize {
        self.storages.push(Storage { generation: 0, perhaps: Vec::new(), values: Vec::new(), input });
        let storage = self.storages.len() - 1;
        self.object(v, storage, None, Arg::Value(v))
    }

    /// A new object in a storage, with its current value.
    fn object(&mut self, v: ValueId, storage: usize, parent: Option<(usize, Rc<Step>)>, value: Arg) -> usize {
        let generation = self.storages.get(storage).map_or(0, |s| s.generation);
        let recorded = self.graph.tensor(v).cloned();
        self.objects.push(Object { storage, parent, value, generation, recorded });
        let id = self.objects.len() - 1;
        self.is(v, id);
        id
    }

    /// Notes that `v` is this object.
    fn is(&mut self, v: ValueId, object: usize) {
        if self.of.len() <= v.index() {
            self.of.resize(v.index() + 1, None);
        }
        if let Some(slot) = self.of.get_mut(v.index()) {
            *slot = Some(object);
        }
        if let Some(o) = self.objects.get(object)
            && let Some(s) = self.storages.get_mut(o.storage)
        {
            s.values.push(v);
        }
    }

    /// Gives an object a value of the storage's generation, and lets the object be found by it.
    fn set(&mut self, object: usize, value: Arg, generation: u64) {
        if let Some(v) = value.as_value().filter(|&v| self.object_of(v).is_none()) {
            self.is(v, object);
        }
        if let Some(o) = self.objects.get_mut(object) {
            (o.value, o.generation) = (value, generation);
        }
    }

    fn object_of(&self, v: ValueId) -> Option<usize> {
        self.of.get(v.index()).copied().flatten()
    }

    fn refuse(&mut self, node: NodeId, what: impl AsRef<str>) {
        self.findings.push(format!("{}: {}", place(self.graph, node), what.as_ref()));
    }

    fn all(&mut self) {
        let mut at = self.graph.nodes().next().map(|(id, _)| id);
        while let Some(node) = at {
            at = self.graph.next(node);
            // What a check of metadata looks at need not be there for it.
            if self.graph.node(node).op != op!("aten._assert_tensor_metadata.default") {
                self.bring_up_to_date(node);
            }
            self.visit(node);
            if self.graph.contains(node) {
                self.ints.see_results(self.graph, node);
            }
        }
        let mut outputs = self.graph.outputs().to_vec();
        for a in &mut outputs {
            a.rewrite(&mut |v| self.current(v, None));
        }
        self.graph.set_outputs(outputs);
    }

    /// Findings, number of changes, and the inputs that were written to with their last values.
    fn finish(mut self) -> (Vec<String>, u64, HashMap<ValueId, Arg>) {
        if self.findings.is_empty() {
            // Everything written twice is used once: views made again for a write that needed only their type, say.
            for node in std::mem::take(&mut self.dead).into_iter().rev() {
                let unused = self.graph.node(node).outputs.iter().all(|&v| self.graph.value(v).use_count() == 0);
                if unused {
                    self.graph.remove(node);
                    self.changes += 1;
                } else {
                    self.refuse(node, "its old value is still in use");
                }
            }
        }
        let written = self
            .objects
            .iter()
            .filter(|o| o.parent.is_none())
            .filter_map(|o| {
                let s = self.storages.get(o.storage)?;
                (s.generation > 0).then_some((s.input?, o.value.clone()))
            })
            .collect();
        (self.findings, self.changes, written)
    }

    /// Makes the arguments of a call what the program would see now.
    fn bring_up_to_date(&mut self, node: NodeId) {
        let mut args = self.graph.node(node).args.clone();
        let mut changed = false;
        for a in &mut args {
            a.rewrite(&mut |v| {
                let now = self.current(v, Some(node));
                changed |= now != Arg::Value(v);
                now
            });
        }
        if changed {
            self.graph.set_args(node, args);
        }
    }

    /// What a value of the original program is now.
    fn current(&mut self, v: ValueId, at: Option<NodeId>) -> Arg {
        match self.object_of(v) {
            Some(o) => self.sync(o, at),
            None => Arg::Value(v),
        }
    }

    /// The value of an object, made again from its parent's if the storage was written to.
    fn sync(&mut self, object: usize, at: Option<NodeId>) -> Arg {
        let mut chain = Vec::new();
        let mut up = object;
        let mut value = loop {
            let Some(o) = self.objects.get(up) else { return Arg::None };
            let fresh = self.storages.get(o.storage).is_none_or(|s| s.generation == o.generation);
            match &o.parent {
                Some((parent, step)) if !fresh => {
                    chain.push((up, step.clone()));
                    up = *parent;
                }
                // The owner always is up to date.
                _ => break o.value.clone(),
            }
        };
        for (id, step) in chain.into_iter().rev() {
            value = self.replay(&step, value, at);
            let generation = self.objects.get(id).and_then(|o| self.storages.get(o.storage)).map_or(0, |s| s.generation);
            self.set(id, value.clone(), generation);
        }
        value
    }

    fn replay(&mut self, step: &Step, operand: Arg, at: Option<NodeId>) -> Arg {
        if matches!(step.inverse, Inverse::Same) {
            return operand;
        }
        let mut args = step.args.clone();
        if let Some(a) = args.get_mut(step.from) {
            *a = operand;
        }
        let name = stem(step.op);
        let source = at.and_then(|n| self.graph.node(n).source.clone());
        let outputs = step.types.iter().map(|t| (name, t.clone())).collect();
        let id = self.graph.insert(at, step.op, args, name, outputs, source);
        self.changes += 1;
        self.graph.node(id).outputs.get(step.output).map_or(Arg::None, |&v| Arg::Value(v))
    }

    /// Gives an object a new value: its storage is written to, at `node`.
    fn write(&mut self, object: usize, value: Arg, node: NodeId) {
        self.changes += 1;
        let Some(storage) = self.objects.get(object).map(|o| o.storage) else { return };
        self.check_perhaps(storage, node);
        let (mut id, mut value) = (object, value);
        let mut path = Vec::new();
        loop {
            path.push((id, value.clone()));
            let Some((parent, step)) = self.objects.get(id).and_then(|o| o.parent.clone()) else { break };
            match self.undo(parent, &step, value, node) {
                Ok(v) => (id, value) = (parent, v),
                Err(why) => {
                    self.refuse(node, format!("it writes to the result of {}: {why}", step.op));
                    return;
                }
            }
        }
        if let Some(s) = self.storages.get_mut(storage) {
            s.generation += 1;
            let generation = s.generation;
            for (id, value) in path {
                self.set(id, value, generation);
            }
        }
    }

    /// A write matters to tensors that may or may not share the memory, if they are looked at later.
    fn check_perhaps(&mut self, storage: usize, node: NodeId) {
        let links = self.storages.get(storage).map(|s| s.perhaps.clone()).unwrap_or_default();
        for (other, call) in links {
            if self.read_after(other, node) {
                self.refuse(
                    node,
                    format!("it writes to memory that {call} may have copied or not, which depends on sizes only known at run time"),
                );
            }
        }
    }

    fn read_after(&self, storage: usize, node: NodeId) -> bool {
        let here = self.positions.get(node.index()).copied().unwrap_or(0);
        let Some(s) = self.storages.get(storage) else { return false };
        let later = |n: &NodeId| self.positions.get(n.index()).is_some_and(|&p| p != u32::MAX && p > here);
        s.input.is_some()
            || s.values.iter().any(|&v| self.graph.value(v).output_uses() > 0 || self.graph.value(v).users().iter().any(later))
    }

    /// The new value of `parent` when its view has this value.
    fn undo(&mut self, parent: usize, step: &Step, value: Arg, node: NodeId) -> Result<Arg, String> {
        let Some(Type::Tensor(to)) = self.objects.get(parent).and_then(|o| o.value.as_value()).map(|v| self.graph.ty(v).clone()) else {
            return Err("its operand is no tensor".to_owned());
        };
        let unknown = |_: ()| "its place is only known at run time, and nothing at hand tells it".to_owned();
        let (op, list) = match &step.inverse {
            Inverse::Same | Inverse::Copy => return Ok(value),
            Inverse::Never(why) => return Err((*why).to_owned()),
            Inverse::Reshape => {
                let shape = self.sizes(&to.shape, node).ok_or(()).map_err(unknown)?;
                (op!("aten.view.default"), vec![value, shape])
            }
            Inverse::Permute(p) => (op!("aten.permute.default"), vec![value, ints(p.iter().copied())]),
            Inverse::Slice { dim, start, end, step } => {
                let old = self.sync(parent, Some(node));
                (op!("aten.slice_scatter.default"), vec![old, value, Arg::Int(*dim), start.clone(), end.clone(), step.clone()])
            }
            Inverse::Narrow { dim, start, length } => {
                let old = self.sync(parent, Some(node));
                let at = self.expr(start).ok_or(()).map_err(unknown)?;
                let end = at.plus(&self.expr(length).ok_or(()).map_err(unknown)?);
                let end = self.size(&end, node).ok_or(()).map_err(unknown)?;
                (op!("aten.slice_scatter.default"), vec![old, value, Arg::Int(*dim), start.clone(), end, Arg::Int(1)])
            }
            Inverse::Part { dim, before, length } => {
                let old = self.sync(parent, Some(node));
                let start = self.size(before, node).ok_or(()).map_err(unknown)?;
                let end = self.size(&before.plus(length), node).ok_or(()).map_err(unknown)?;
                (op!("aten.slice_scatter.default"), vec![old, value, Arg::Int(*dim), start, end, Arg::Int(1)])
            }
            Inverse::Select { dim, index } => {
                let old = self.sync(parent, Some(node));
                (op!("aten.select_scatter.default"), vec![old, value, Arg::Int(*dim), index.clone()])
            }
            Inverse::Diagonal { offset, dim1, dim2 } => {
                let old = self.sync(parent, Some(node));
                (op!("aten.diagonal_scatter.default"), vec![old, value, offset.clone(), dim1.clone(), dim2.clone()])
            }
            Inverse::Strided { size, stride, offset } => {
                let old = self.sync(parent, Some(node));
                (op!("aten.as_strided_scatter.default"), vec![old, value, size.clone(), stride.clone(), offset.clone()])
            }
            Inverse::Reinterpret(dtype) => (op!("aten.view.dtype"), vec![value, Arg::DType(*dtype)]),
            Inverse::Complex => (op!("aten.view_as_complex.default"), vec![value]),
            Inverse::Real => (op!("aten.view_as_real.default"), vec![value]),
        };
        Ok(self.emit(node, op, list, Type::Tensor(TensorType::new(to.dtype, to.shape))))
    }

    fn expr(&self, arg: &Arg) -> Option<Expr> {
        match arg {
            Arg::Value(v) => match self.graph.ty(*v) {
                Type::Int(e) => Some(e.clone()),
                _ => None,
            },
            other => other.as_int().map(Expr::Int),
        }
    }

    fn size(&mut self, e: &Expr, at: NodeId) -> Option<Arg> {
        let near = self.graph.operands(at);
        self.ints.arg(self.graph, Some(at), e, &near, &mut Vec::new())
    }

    /// A shape argument; one symbolic size is left to be found out.
    fn sizes(&mut self, shape: &[Expr], at: NodeId) -> Option<Arg> {
        if shape.iter().filter(|d| d.as_int().is_none()).count() == 1 && !shape.contains(&Expr::Int(0)) {
            return Some(ints(shape.iter().map(|d| d.as_int().unwrap_or(-1))));
        }
        shape.iter().map(|d| self.size(d, at)).collect::<Option<Vec<_>>>().map(Arg::List)
    }

    /// Writes a call of one result before `at`.
    fn emit(&mut self, at: NodeId, op: OpId, list: Vec<Arg>, ty: Type) -> Arg {
        self.emit_all(at, op, list, vec![ty]).into_iter().next().map_or(Arg::None, Arg::Value)
    }

    fn emit_all(&mut self, at: NodeId, op: OpId, list: Vec<Arg>, types: Vec<Type>) -> Vec<ValueId> {
        let name = stem(op);
        let source = self.graph.node(at).source.clone();
        let id = self.graph.insert(Some(at), op, list, name, types.into_iter().map(|t| (name, t)).collect(), source);
        self.graph.node(id).outputs.clone()
    }

    fn visit(&mut self, node: NodeId) {
        let n = self.graph.node(node).clone();
        if self.assertion(node, &n) {
            return;
        }
        by_op!(n.op, {
            "higher_order.auto_functionalized_v2" | "higher_order.auto_functionalized" => return self.unwrap_call(node, &n),
            "higher_order.with_effects" => return self.unwrap_effects(node, &n),
            _ => {}
        });
        if n.op.is_inplace_view() {
            return self.inplace_view(node, &n);
        }
        let mut n = n;
        if memory::reads_memory(n.op) {
            let Some(list) = self.in_memory_order(node, &n) else {
                for &v in &n.outputs {
                    self.own(v, None);
                }
                return;
            };
            self.graph.set_args(node, list);
            n = self.graph.node(node).clone();
        }
        if n.op.mutates() {
            return self.mutation(node, &n);
        }
        if let Some(hidden) = n.op.training_mutation() {
            let at = |name: &str| n.op.schema().position(name).and_then(|i| n.args.get(i)).unwrap_or(&Arg::None);
            let writes = at(hidden.flag).as_bool() != Some(false) && hidden.args.iter().any(|a| *at(a) != Arg::None);
            if writes {
                return self.batch_norm(node, &n);
            }
        }
        if n.op.schema().kind == Kind::HigherOrder && self.bodies(node, &n) {
            return;
        }
        for (i, &v) in n.outputs.iter().enumerate() {
            self.result(node, &n, i, v);
        }
    }

    /// Notes where a result of a call that writes nothing lives.
    fn result(&mut self, node: NodeId, n: &Node, output: usize, v: ValueId) {
        if self.graph.tensor(v).is_none() {
            return;
        }
        let operand = views::viewed_arg(n, output).and_then(|from| {
            let value = n.args.get(from)?;
            // A list of tensors (broadcast_tensors) has no single operand; the one of the same place is it.
            let value = value.as_list().and_then(|l| l.get(output)).unwrap_or(value).as_value()?;
            Some((from, value, self.object_of(value)?))
        });
        let Some((from, value, parent)) = operand else {
            self.own(v, None);
            return;
        };
        let Type::Tensor(from_type) = self.graph.ty(value).clone() else { return };
        let storage = self.objects.get(parent).map_or(0, |o| o.storage);
        match views::shares(self.graph, self.ranges, n, &from_type, output) {
            Shares::No => drop(self.own(v, None)),
            Shares::View(inverse) => {
                let types = n.outputs.iter().map(|&o| self.graph.ty(o).clone()).collect();
                let step = Step { op: n.op, args: n.args.clone(), from, output, types, inverse };
                self.object(v, storage, Some((parent, Rc::new(step))), Arg::Value(v));
            }
            Shares::Perhaps => {
                let own = self.own(v, None);
                let own = self.objects.get(own).map_or(0, |o| o.storage);
                let call = place(self.graph, node);
                for (a, b) in [(own, storage), (storage, own)] {
                    if let Some(s) = self.storages.get_mut(a) {
                        s.perhaps.push((b, call.clone()));
                    }
                }
            }
        }
    }

    /// Calls that only check. What they say of symbols is kept.
    fn assertion(&mut self, node: NodeId, n: &Node) -> bool {
        let arg = |name: &str| n.op.schema().position(name).and_then(|i| n.args.get(i)).unwrap_or(&Arg::None);
        let symbol = |a: &Arg| match a {
            Arg::Value(v) => match self.graph.ty(*v) {
                Type::Int(Expr::Sym(s)) => Some(s.clone()),
                _ => None,
            },
            _ => None,
        };
        by_op!(n.op, {
            "aten._assert_tensor_metadata.default" => {},
            "aten._assert_scalar.default" | "aten._functional_assert_scalar.default" => {
                if let Some(v) = n.args.first().and_then(Arg::as_value)
                    && let Type::Bool(e) = self.graph.ty(v)
                {
                    let e = e.clone();
                    facts::assume(self.ranges, &e);
                }
            },
            "aten.sym_constrain_range.default"
            | "aten.sym_constrain_range_for_size.default"
            | "aten._functional_sym_constrain_range.default"
            | "aten._functional_sym_constrain_range_for_size.default" => {
                if let Some(s) = symbol(arg("size")) {
                    facts::narrow(self.ranges, &s, Range { min: arg("min").as_int(), max: arg("max").as_int() });
                }
            },
            _ => {
                if !unobserved(n.op) {
                    return false;
                }
            }
        });
        if let [token] = n.outputs.as_slice() {
            // The functional form hands on the tensor that orders it.
            let before = arg("dep_token").clone();
            self.graph.replace_uses_with(*token, &before);
        }
        let operands = self.graph.operands(node);
        self.graph.remove(node);
        self.changes += 1;
        remove_dead(self.graph, operands.into_iter().filter_map(|v| self.graph.producer(v)).collect());
        true
    }
}

/// Calls that check elements of tensors, or print them. No file of ExecuTorch does either: its exporter leaves them out as well.
fn unobserved(op: OpId) -> bool {
    by_op!(op, {
        "aten._assert_async.default" | "aten._assert_async.msg" | "aten._functional_assert_async.msg" | "aten._print.default" => true,
        _ => false,
    })
}

/// The type without strides: functional results have none of note.
fn plain(ty: &Type) -> Type {
    match ty {
        Type::Tensor(t) => Type::Tensor(TensorType::new(t.dtype, t.shape.clone())),
        other => other.clone(),
    }
}
