//! Local rewrites: a rule looks at one call and proposes a patch; the sweep checks and applies it.

use std::collections::HashMap;

use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Arg, Graph, Node, NodeId, TensorType, Type, ValueId};
use etx_ir::op::OpId;
use etx_ir::sym::{Dim, Expr, Func, Ranges};
use etx_ir::{budget, infer, op};

use crate::effects::removable;

/// What a rule wants done about the call it looked at.
#[derive(Clone, Debug)]
pub enum Patch {
    /// The results are these instead, one for each result of the call: values that exist already or that the rule
    /// wrote before the call, or literals for scalars. The types must be those of the results.
    Values(Vec<Arg>),
    /// The call is this one instead, with results of the same types.
    Call(OpId, Vec<Arg>),
}

impl Patch {
    /// The only result is this instead.
    pub fn value(v: impl Into<Arg>) -> Self {
        Patch::Values(vec![v.into()])
    }
}

/// A rewrite of one call at a time. Implementing it makes a [`Pass`](crate::Pass) that goes once over every graph of
/// a method, in execution order, nested graphs first.
///
/// The law of every rule: results keep their types, and their values, bit by bit unless the rule says otherwise.
pub trait Rule {
    /// Short name in `kebab-case`, unique in a pipeline.
    fn name(&self) -> &'static str;

    /// One sentence: what holds after, and what is never done.
    fn law(&self) -> &'static str;

    /// Looks at the call and proposes a patch. Calls that were written through `site` stay only if there is one.
    ///
    /// # Errors
    /// Only for what makes the program unfit to go on; a call the rule does not apply to is `None`.
    fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error>;
}

/// Integers that exist at run time before a place in the graph, by what they are equal to.
#[derive(Default)]
pub(crate) struct Ints {
    known: HashMap<Expr, ValueId>,
    /// Tensors (inputs of the graph) whose size at a dimension is the symbol.
    sized: HashMap<Expr, (ValueId, i64)>,
}

impl Ints {
    pub(crate) fn of_inputs(graph: &Graph) -> Self {
        let mut ints = Self::default();
        for &v in graph.inputs() {
            ints.see(graph, v);
            if let Some(t) = graph.tensor(v) {
                for (d, n) in t.shape.iter().enumerate() {
                    if n.as_int().is_none() {
                        ints.sized.entry(n.clone()).or_insert((v, d as i64));
                    }
                }
            }
        }
        ints
    }

    fn see(&mut self, graph: &Graph, v: ValueId) {
        if let Type::Int(e) = graph.ty(v)
            && e.as_int().is_none()
        {
            // The first one stands furthest up, so it lives longest.
            let keep = self.known.get(e).is_some_and(|&old| alive(graph, old));
            if !keep {
                self.known.insert(e.clone(), v);
            }
        }
    }

    /// Forgets what these calls compute: whoever goes through them will see it again, in order.
    fn forget(&mut self, graph: &Graph, nodes: &[NodeId]) {
        for &v in nodes.iter().flat_map(|&n| &graph.node(n).outputs) {
            if let Type::Int(e) = graph.ty(v)
                && self.known.get(e) == Some(&v)
            {
                self.known.remove(e);
            }
        }
    }

    pub(crate) fn see_results(&mut self, graph: &Graph, node: NodeId) {
        for &v in &graph.node(node).outputs {
            self.see(graph, v);
        }
    }

    pub(crate) fn get(&self, graph: &Graph, e: &Expr) -> Option<ValueId> {
        self.known.get(e).copied().filter(|&v| alive(graph, v))
    }

    /// An argument that is equal to `e` before `at`, written there if need be; `None` if nothing at hand tells.
    pub(crate) fn arg(&mut self, graph: &mut Graph, at: Option<NodeId>, e: &Expr, near: &[ValueId], new: &mut Vec<NodeId>) -> Option<Arg> {
        if let Some(n) = e.as_int() {
            return Some(Arg::Int(n));
        }
        if let Some(v) = self.get(graph, e) {
            return Some(Arg::Value(v));
        }
        let by_size = |v: ValueId| graph.tensor(v).and_then(|t| t.shape.iter().position(|d| d == e)).map(|d| (v, d as i64));
        let sized = near.iter().copied().find_map(by_size).or_else(|| self.sized.get(e).copied());
        let (op, args, name) = match (sized, e) {
            (Some((v, d)), _) => (op!("aten.sym_size.int"), vec![Arg::Value(v), Arg::Int(d)], "sym_size"),
            (None, Expr::Add(terms)) => return self.fold(graph, at, op!("_operator.add"), "add", terms, near, new),
            (None, Expr::Mul(factors)) => return self.fold(graph, at, op!("_operator.mul"), "mul", factors, near, new),
            (None, Expr::Call(Func::FloorDiv, ab)) => {
                return self.fold(graph, at, op!("_operator.floordiv"), "floordiv", ab, near, new);
            }
            (None, Expr::Call(Func::Mod, ab)) => return self.fold(graph, at, op!("_operator.mod"), "mod", ab, near, new),
            _ => return None,
        };
        let source = at.and_then(|n| graph.node(n).source.clone());
        let node = graph.insert(at, op, args, name, vec![(name, Type::Int(e.clone()))], source);
        new.push(node);
        let v = graph.node(node).outputs.first().copied()?;
        self.known.insert(e.clone(), v);
        Some(Arg::Value(v))
    }

    #[expect(clippy::too_many_arguments, reason = "the one recursion of `arg`")]
    fn fold(
        &mut self,
        graph: &mut Graph,
        at: Option<NodeId>,
        op: OpId,
        name: &str,
        parts: &[Expr],
        near: &[ValueId],
        new: &mut Vec<NodeId>,
    ) -> Option<Arg> {
        let (first, rest) = parts.split_first()?;
        let mut sum = first.clone();
        let mut acc = self.arg(graph, at, first, near, new)?;
        for part in rest {
            let b = self.arg(graph, at, part, near, new)?;
            sum = match name {
                "add" => sum.plus(part),
                "mul" => sum.times(part),
                "mod" => sum.modulo(part),
                _ => sum.floor_div(part),
            };
            let source = at.and_then(|n| graph.node(n).source.clone());
            let node = graph.insert(at, op, vec![acc, b], name, vec![(name, Type::Int(sum.clone()))], source);
            new.push(node);
            let v = graph.node(node).outputs.first().copied()?;
            self.known.insert(sum.clone(), v);
            acc = Arg::Value(v);
        }
        Some(acc)
    }
}

/// Whether the value is still there: an input, or a result of a node that was not removed.
pub(crate) fn alive(graph: &Graph, v: ValueId) -> bool {
    graph.producer(v).is_none_or(|n| graph.contains(n))
}

/// What a call that a rule writes counts as, in elements of the budget.
const WRITTEN: usize = 256;

/// What a rule sees and writes with: one call of a graph, and the place before it.
pub struct Site<'s> {
    graph: &'s mut Graph,
    ranges: &'s Ranges,
    weights: &'s dyn Weights,
    node: NodeId,
    ints: &'s mut Ints,
    new: Vec<NodeId>,
}

/// The bytes behind a graph's inputs, for rules that look at small constants.
pub(crate) trait Weights {
    fn literal(&self, graph: &Graph, v: ValueId) -> Option<Arg>;
}

/// Of a nested graph nothing is known.
pub(crate) struct NoWeights;

impl Weights for NoWeights {
    fn literal(&self, _: &Graph, _: ValueId) -> Option<Arg> {
        None
    }
}

impl Site<'_> {
    /// The graph.
    pub fn graph(&self) -> &Graph {
        self.graph
    }

    /// The call.
    pub fn node(&self) -> &Node {
        self.graph.node(self.node)
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// What is called.
    pub fn op(&self) -> OpId {
        self.node().op
    }

    /// What is known of symbols.
    pub fn ranges(&self) -> &Ranges {
        self.ranges
    }

    /// The argument of this name; `None` (the literal) where the operator has none of that name.
    pub fn arg(&self, name: &str) -> &Arg {
        let node = self.node();
        node.op.schema().position(name).and_then(|i| node.args.get(i)).unwrap_or(&Arg::None)
    }

    /// The argument at this position; `None` (the literal) beyond the last.
    pub fn nth(&self, i: usize) -> &Arg {
        self.node().args.get(i).unwrap_or(&Arg::None)
    }

    /// The value at this position, if a value stands there.
    pub fn value(&self, i: usize) -> Option<ValueId> {
        self.nth(i).as_value()
    }

    /// The tensor type of an argument, if it is a tensor.
    pub fn tensor(&self, arg: &Arg) -> Option<&TensorType> {
        arg.as_value().and_then(|v| self.graph.tensor(v))
    }

    /// The tensor type of the argument at this position.
    pub fn operand(&self, i: usize) -> Option<&TensorType> {
        self.tensor(self.nth(i))
    }

    /// The tensor type of the first result.
    pub fn result(&self) -> Option<&TensorType> {
        self.node().outputs.first().and_then(|&v| self.graph.tensor(v))
    }

    /// The call that makes the argument, if one of this operator does.
    pub fn made_by(&self, arg: &Arg, op: OpId) -> Option<&Node> {
        let node = self.graph.node(self.graph.producer(arg.as_value()?)?);
        (node.op == op).then_some(node)
    }

    /// The number that a constant of one element holds.
    pub fn constant(&self, arg: &Arg) -> Option<Arg> {
        self.weights.literal(self.graph, arg.as_value()?)
    }

    /// An integer that was computed before and is equal to this.
    pub fn known(&self, e: &Expr) -> Option<ValueId> {
        self.ints.get(self.graph, e).filter(|v| self.graph.producer(*v) != Some(self.node))
    }

    /// Writes a call before this one, with the result types that follow from its arguments.
    ///
    /// # Errors
    /// When no shape rule accepts the arguments.
    pub fn call_all(&mut self, op: OpId, args: Vec<Arg>) -> Result<Vec<ValueId>, Error> {
        budget::spend(WRITTEN)?;
        let types = infer::infer(self.graph, self.ranges, op, &args)?;
        Ok(self.write(op, args, types))
    }

    /// As [`Site::call_all`], for calls of one result.
    ///
    /// # Errors
    /// When no shape rule accepts the arguments, or there is not one result.
    pub fn call(&mut self, op: OpId, args: Vec<Arg>) -> Result<ValueId, Error> {
        match self.call_all(op, args)?.as_slice() {
            [v] => Ok(*v),
            many => Err(Error::new(ErrorKind::Invalid, format!("{op} has {} results where one is used", many.len()))),
        }
    }

    /// Writes a call before this one, with a result of this type.
    pub fn call_as(&mut self, op: OpId, args: Vec<Arg>, ty: Type) -> Arg {
        self.write(op, args, vec![ty]).first().map_or(Arg::None, |&v| Arg::Value(v))
    }

    /// Writes a call before this one, with results of these types: for operators whose results follow from a body.
    pub(crate) fn write(&mut self, op: OpId, args: Vec<Arg>, types: Vec<Type>) -> Vec<ValueId> {
        let source = self.node().source.clone();
        let name = stem(op);
        let id = self.graph.insert(Some(self.node), op, args, name, types.into_iter().map(|t| (name, t)).collect(), source);
        self.new.push(id);
        self.ints.see_results(self.graph, id);
        self.graph.node(id).outputs.clone()
    }

    /// An argument equal to this size: a literal, an integer that is there already, or one written here; `None` if
    /// nothing at hand tells it.
    pub fn size(&mut self, dim: &Dim) -> Option<Arg> {
        let near = self.graph.operands(self.node);
        self.ints.arg(self.graph, Some(self.node), dim, &near, &mut self.new)
    }

    /// A list argument for these sizes.
    pub fn sizes(&mut self, dims: &[Dim]) -> Option<Arg> {
        dims.iter().map(|d| self.size(d)).collect::<Option<Vec<_>>>().map(Arg::List)
    }

    /// A shape argument for `view`: one symbolic size is written as -1, which needs no integer at run time.
    pub fn view_shape(&mut self, dims: &[Dim]) -> Option<Arg> {
        let symbolic = dims.iter().filter(|d| d.as_int().is_none()).count();
        if symbolic == 1 && !dims.contains(&Dim::Int(0)) {
            return Some(Arg::List(dims.iter().map(|d| Arg::Int(d.as_int().unwrap_or(-1))).collect()));
        }
        self.sizes(dims)
    }
}

/// The name that results of an operator get.
pub(crate) fn stem(op: OpId) -> &'static str {
    let name = op.schema().name.as_str();
    let bare = name.trim_matches('_');
    if bare.is_empty() { name } else { bare }
}

/// Rewrites a graph and those nested in it, in execution order. Returns how many patches were applied.
pub(crate) fn sweep(graph: &mut Graph, ranges: &Ranges, weights: &dyn Weights, rule: &dyn Rule) -> Result<u64, Error> {
    let mut sweep = Sweep::new(graph, rule.name());
    let mut at = graph.nodes().next().map(|(id, _)| id);
    while let Some(node) = at {
        sweep.changes += nested(graph, node, &mut |body| self::sweep(body, ranges, &NoWeights, rule))?;
        at = sweep.step(graph, ranges, weights, node, &mut |site| rule.rewrite(site))?;
    }
    Ok(sweep.changes)
}

/// A way through a graph, in execution order, that applies patches.
pub(crate) struct Sweep {
    ints: Ints,
    name: &'static str,
    changes: u64,
    budget: u64,
}

impl Sweep {
    pub(crate) fn new(graph: &Graph, name: &'static str) -> Self {
        // No rule makes more than a few calls out of one, or rewrites what it made for ever.
        Self { ints: Ints::of_inputs(graph), name, changes: 0, budget: 64 * graph.len() as u64 + 4096 }
    }

    /// Patches applied.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Offers a call to a rule and applies its patch. Gives the call to go on with: the first that was written, or the
    /// next.
    pub(crate) fn step(
        &mut self,
        graph: &mut Graph,
        ranges: &Ranges,
        weights: &dyn Weights,
        node: NodeId,
        rule: &mut dyn FnMut(&mut Site<'_>) -> Result<Option<Patch>, Error>,
    ) -> Result<Option<NodeId>, Error> {
        let name = self.name;
        let mut site = Site { graph, ranges, weights, node, ints: &mut self.ints, new: Vec::new() };
        let patch = rule(&mut site);
        let new = std::mem::take(&mut site.new);
        let patch = patch.map_err(|e| e.within(place(graph, node)).within(name))?;
        let patch = patch.filter(|p| match p {
            Patch::Call(op, args) => *op != graph.node(node).op || *args != graph.node(node).args,
            Patch::Values(_) => true,
        });
        let Some(patch) = patch else {
            for &n in new.iter().rev() {
                graph.remove(n);
            }
            self.ints.see_results(graph, node);
            return Ok(graph.next(node));
        };
        self.ints.forget(graph, &new);
        self.changes += 1;
        if self.changes > self.budget {
            return Err(Error::new(ErrorKind::Invalid, format!("{name} did not settle after {} changes", self.budget)));
        }
        let at = match patch {
            Patch::Call(op, args) => {
                let before = graph.operands(node);
                graph.set_call(node, op, args);
                remove_dead(graph, before.iter().filter_map(|&v| graph.producer(v)).collect());
                Some(node)
            }
            Patch::Values(values) => {
                let next = graph.next(node);
                replace(graph, ranges, node, &values, &new).map_err(|e| e.within(place(graph, node)).within(name))?;
                remove_dead(graph, vec![node]);
                next
            }
        };
        Ok(new.into_iter().find(|&n| graph.contains(n)).or(at.filter(|&n| graph.contains(n))))
    }
}

/// Runs `f` on each graph that is an argument of the node.
pub(crate) fn nested(graph: &mut Graph, node: NodeId, f: &mut dyn FnMut(&mut Graph) -> Result<u64, Error>) -> Result<u64, Error> {
    if !graph.node(node).args.iter().any(|a| matches!(a, Arg::Graph(_))) {
        return Ok(0);
    }
    let mut args = graph.node(node).args.clone();
    let mut changes = 0;
    for a in &mut args {
        if let Arg::Graph(body) = a {
            changes += f(body)?;
        }
    }
    if changes > 0 {
        graph.set_args(node, args);
    }
    Ok(changes)
}

/// Where a call is, for errors.
pub(crate) fn place(graph: &Graph, node: NodeId) -> String {
    let node = graph.node(node);
    match &node.source {
        Some(s) => format!("{} = {} ({s})", node.name, node.op),
        None => format!("{} = {}", node.name, node.op),
    }
}

/// Makes the uses of a call's results uses of `values`, after checking that the types agree.
fn replace(graph: &mut Graph, ranges: &Ranges, node: NodeId, values: &[Arg], new: &[NodeId]) -> Result<(), Error> {
    let outputs = graph.node(node).outputs.clone();
    let wrong = |what: String| Error::new(ErrorKind::Invalid, what);
    if !removable(graph.node(node)) {
        return Err(wrong("a call with an effect is to be replaced by values".to_owned()));
    }
    if outputs.len() != values.len() {
        return Err(wrong(format!("{} results are to be replaced by {} values", outputs.len(), values.len())));
    }
    for (&old, value) in outputs.iter().zip(values) {
        if graph.value(old).use_count() == 0 {
            continue;
        }
        if let Arg::Value(v) = value {
            let written_here = graph.producer(*v).is_some_and(|n| new.contains(&n));
            match agree(graph.ty(old), graph.ty(*v), ranges) {
                Agreement::Equal => {}
                // Two ways to write one size: that of the program stands.
                Agreement::Possible if written_here => {
                    let ty = graph.ty(old).clone();
                    graph.set_type(*v, ty);
                }
                _ => return Err(wrong(format!("{:?} is to be replaced by {:?}", graph.ty(old), graph.ty(*v)))),
            }
        } else if graph.tensor(old).is_some() {
            return Err(wrong("a tensor is to be replaced by a literal".to_owned()));
        }
        graph.replace_uses_with(old, value);
    }
    Ok(())
}

enum Agreement {
    Equal,
    Possible,
    Not,
}

fn agree(old: &Type, new: &Type, ranges: &Ranges) -> Agreement {
    match (old, new) {
        (Type::Tensor(a), Type::Tensor(b)) if a.same_as(b) => Agreement::Equal,
        (Type::Tensor(a), Type::Tensor(b)) if a.dtype == b.dtype && a.rank() == b.rank() => {
            let differ = a.shape.iter().zip(&b.shape).any(|(x, y)| x != y && ranges.equal(x, y) == Some(false));
            if differ { Agreement::Not } else { Agreement::Possible }
        }
        (Type::Int(_), Type::Int(_)) | (Type::Float(_), Type::Float(_)) | (Type::Bool(_), Type::Bool(_)) if old == new => Agreement::Equal,
        (Type::Int(_), Type::Int(_)) | (Type::Float(_), Type::Float(_)) | (Type::Bool(_), Type::Bool(_)) => Agreement::Possible,
        (a, b) if a == b => Agreement::Equal,
        _ => Agreement::Not,
    }
}

/// Removes these calls if nothing uses them and nothing else is lost, then what only they used, and so on.
pub(crate) fn remove_dead(graph: &mut Graph, mut todo: Vec<NodeId>) -> u64 {
    let mut removed = 0;
    while let Some(node) = todo.pop() {
        if !graph.contains(node) || !removable(graph.node(node)) {
            continue;
        }
        if graph.node(node).outputs.iter().any(|&v| graph.value(v).use_count() > 0) {
            continue;
        }
        let operands = graph.operands(node);
        graph.remove(node);
        removed += 1;
        todo.extend(operands.into_iter().filter_map(|v| graph.producer(v)));
    }
    removed
}
