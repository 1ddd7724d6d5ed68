//! Graphs: nodes and values in arenas, addressed by small ids.
//!
//! A [`Graph`] is a straight list of calls. Node order is execution order and carries meaning until the program is
//! functional (mutations are seen by whatever comes later), so it is kept through every edit. Use lists are kept by the
//! graph itself. Ids stay valid until their node or value is removed; a removed node's id is not used again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::DType;
use crate::op::{Literal, OpId};
use crate::sym::{Dim, Expr};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) u32);

        impl $name {
            /// Position in the arena: dense, for side tables.
            pub const fn index(self) -> usize { self.0 as usize }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}{}", stringify!($name), self.0) }
        }
    )*};
}

ids! {
    /// A call in a [`Graph`].
    NodeId;
    /// Something that a graph input or a call defines.
    ValueId;
}

/// Element type and shape of a tensor value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<Dim>,
    /// Strides in elements where they are not those of a row-major tensor. They are what eager PyTorch had; nothing
    /// but the meaning of `as_strided`-like operators and the layout of inputs depends on them.
    pub strides: Option<Vec<Expr>>,
}

impl TensorType {
    /// A row-major tensor.
    pub fn new(dtype: DType, shape: Vec<Dim>) -> Self {
        Self { dtype, shape, strides: None }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn numel(&self) -> Expr {
        Expr::product(&self.shape)
    }

    /// The sizes as numbers, if none of them is symbolic.
    pub fn static_shape(&self) -> Option<Vec<i64>> {
        self.shape.iter().map(Expr::as_int).collect()
    }

    /// Why there is no tensor of these sizes, whatever symbols stand for: a negative size, one that does not fit 64 bits, or too
    /// many elements.
    pub fn impossible(&self) -> Option<String> {
        const MOST: i64 = 1 << 60;
        let mut elements = Some(1i64);
        for e in &self.shape {
            match e {
                Expr::Int(n) if *n < 0 => return Some(format!("the size {e} is negative")),
                Expr::Int(n) => elements = elements.and_then(|k| k.checked_mul((*n).max(1))),
                Expr::Bool(_) | Expr::Float(_) => return Some(format!("the size {e} is no integer")),
                Expr::Sym(_) => {}
                Expr::Add(_) | Expr::Mul(_) | Expr::Call(..) => {
                    let mut symbolic = false;
                    e.visit_symbols(&mut |_| symbolic = true);
                    if !symbolic {
                        return Some(format!("the size {e} does not fit 64 bits"));
                    }
                }
            }
        }
        elements.is_none_or(|n| n > MOST).then(|| format!("{:?} are more elements than there can be", self.shape))
    }

    /// Same element type and same sizes (as expressions): the test for "this changes nothing".
    pub fn same_as(&self, other: &TensorType) -> bool {
        self.dtype == other.dtype && self.shape == other.shape
    }
}

/// What kind of thing a value is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// A tensor.
    Tensor(TensorType),
    /// An integer that is computed at run time, with what is known of it.
    Int(Expr),
    /// A float that is computed at run time.
    Float(Expr),
    /// A boolean that is computed at run time.
    Bool(Expr),
    /// An absent result.
    None,
    /// A token of ordered effects, or a custom object of this class.
    Opaque(Arc<str>),
}

impl Type {
    /// The tensor type, if it is one.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(t) => Some(t),
            _ => None,
        }
    }
}

/// An argument of a call: a value of the graph, a literal, or a list of arguments.
///
/// Floats compare by their bits, so that NaN equals itself and 0 differs from -0: two calls with equal arguments give
/// equal results.
#[derive(Clone, Debug)]
pub enum Arg {
    /// Python's `None`; also an argument that the schema defaults to nothing.
    None,
    /// A value.
    Value(ValueId),
    /// Integer.
    Int(i64),
    /// Float.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// String.
    Str(Arc<str>),
    /// Complex number.
    Complex(f64, f64),
    /// Element type.
    DType(DType),
    /// Memory format, by torch's export number (1 contiguous, 2 channels last, 3 channels last 3d, 4 preserve).
    MemoryFormat(u8),
    /// Layout, by torch's export number (7 strided).
    Layout(u8),
    /// Device, such as `cpu` or `cuda:0`.
    Device(Arc<str>),
    /// List or tuple.
    List(Vec<Arg>),
    /// String-keyed arguments, in order.
    Dict(Vec<(Arc<str>, Arg)>),
    /// An operator as argument of a higher-order one.
    Op(OpId),
    /// The body of a higher-order operator: a scope of its own.
    Graph(Box<Graph>),
}

impl PartialEq for Arg {
    fn eq(&self, other: &Self) -> bool {
        use Arg::*;
        match (self, other) {
            (None, None) => true,
            (Value(a), Value(b)) => a == b,
            (Int(a), Int(b)) => a == b,
            (Float(a), Float(b)) => a.to_bits() == b.to_bits(),
            (Bool(a), Bool(b)) => a == b,
            (Str(a), Str(b)) | (Device(a), Device(b)) => a == b,
            (Complex(a, b), Complex(c, d)) => a.to_bits() == c.to_bits() && b.to_bits() == d.to_bits(),
            (DType(a), DType(b)) => a == b,
            (MemoryFormat(a), MemoryFormat(b)) | (Layout(a), Layout(b)) => a == b,
            (List(a), List(b)) => a == b,
            (Dict(a), Dict(b)) => a == b,
            (Op(a), Op(b)) => a == b,
            _ => false,
        }
    }
}

impl Arg {
    /// The value, if it is one.
    pub fn as_value(&self) -> Option<ValueId> {
        match self {
            Arg::Value(v) => Some(*v),
            _ => None,
        }
    }

    /// The literal integer (or boolean as 0 and 1), if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Arg::Int(n) => Some(*n),
            Arg::Bool(b) => Some(i64::from(*b)),
            _ => None,
        }
    }

    /// The literal number as a float, if it is one.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Arg::Float(x) => Some(*x),
            other => other.as_int().map(|n| n as f64),
        }
    }

    /// The literal boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Arg::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&[Arg]> {
        match self {
            Arg::List(items) => Some(items),
            _ => None,
        }
    }

    /// Calls `f` with every value of this scope (not of nested graphs).
    pub fn visit(&self, f: &mut dyn FnMut(ValueId)) {
        match self {
            Arg::Value(v) => f(*v),
            Arg::List(items) => items.iter().for_each(|a| a.visit(f)),
            Arg::Dict(items) => items.iter().for_each(|(_, a)| a.visit(f)),
            _ => {}
        }
    }

    /// Replaces values of this scope.
    pub fn rewrite(&mut self, f: &mut dyn FnMut(ValueId) -> Arg) {
        match self {
            Arg::Value(v) => *self = f(*v),
            Arg::List(items) => items.iter_mut().for_each(|a| a.rewrite(f)),
            Arg::Dict(items) => items.iter_mut().for_each(|(_, a)| a.rewrite(f)),
            _ => {}
        }
    }
}

impl From<ValueId> for Arg {
    fn from(v: ValueId) -> Self {
        Arg::Value(v)
    }
}
impl From<i64> for Arg {
    fn from(n: i64) -> Self {
        Arg::Int(n)
    }
}
impl From<f64> for Arg {
    fn from(x: f64) -> Self {
        Arg::Float(x)
    }
}
impl From<bool> for Arg {
    fn from(b: bool) -> Self {
        Arg::Bool(b)
    }
}
impl From<DType> for Arg {
    fn from(t: DType) -> Self {
        Arg::DType(t)
    }
}
impl From<&str> for Arg {
    fn from(s: &str) -> Self {
        Arg::Str(s.into())
    }
}
impl From<&Literal> for Arg {
    fn from(literal: &Literal) -> Self {
        match literal {
            Literal::None => Arg::None,
            Literal::Bool(b) => Arg::Bool(*b),
            Literal::Int(n) => Arg::Int(*n),
            Literal::Float(x) => Arg::Float(*x),
            Literal::Str(s) => Arg::Str(s.as_str().into()),
            Literal::DType(t) => Arg::DType(*t),
            Literal::Layout(n) => Arg::Layout(*n),
            Literal::MemoryFormat(n) => Arg::MemoryFormat(*n),
            Literal::List(items) => Arg::List(items.iter().map(Arg::from).collect()),
        }
    }
}
impl<T: Into<Arg>> From<Vec<T>> for Arg {
    fn from(items: Vec<T>) -> Self {
        Arg::List(items.into_iter().map(Into::into).collect())
    }
}
impl<T: Into<Arg>> From<Option<T>> for Arg {
    fn from(item: Option<T>) -> Self {
        item.map_or(Arg::None, Into::into)
    }
}

/// The line of the model's source that a call comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// File as Python named it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Function.
    pub function: Arc<str>,
    /// Dotted path of the module whose `forward` it is, such as `model.layers.0.mlp`; empty if unknown.
    pub module: Arc<str>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A call.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is called.
    pub op: OpId,
    /// One argument for each of the operator's schema (see [`mod@crate::op`]), defaults filled in. Higher-order operators
    /// and plain functions have the arguments that the exporter gave them.
    pub args: Vec<Arg>,
    /// Results in order; a list result is spread out.
    pub outputs: Vec<ValueId>,
    /// Name given by the exporter (or derived from it): unique among nodes, for messages.
    pub name: Arc<str>,
    /// Where it comes from, if known; shared by many nodes.
    pub source: Option<Arc<Source>>,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Def {
    /// Input number `.0` of the graph.
    Input(u32),
    /// Result number `.1` of a node.
    Node(NodeId, u32),
}

/// A value.
#[derive(Clone, Debug)]
pub struct Value {
    /// Unique in its graph.
    pub name: Arc<str>,
    /// What it is.
    pub ty: Type,
    /// Where it comes from.
    pub def: Def,
    users: Vec<NodeId>,
    outputs: u32,
}

impl Value {
    /// The nodes that use it, in no particular order, one entry a use.
    pub fn users(&self) -> &[NodeId] {
        &self.users
    }

    /// How many times the graph returns it.
    pub fn output_uses(&self) -> u32 {
        self.outputs
    }

    /// How many uses there are, graph outputs included.
    pub fn use_count(&self) -> usize {
        self.users.len() + self.outputs as usize
    }
}

#[derive(Clone, Debug)]
struct Slot {
    /// `None` once removed.
    node: Option<Node>,
    previous: Option<NodeId>,
    next: Option<NodeId>,
}

/// A list of calls; see the module page.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Slot>,
    first: Option<NodeId>,
    last: Option<NodeId>,
    values: Vec<Value>,
    inputs: Vec<ValueId>,
    outputs: Vec<Arg>,
    /// Where among the outputs a value is returned.
    returned: HashMap<ValueId, Vec<u32>>,
    names: HashMap<Arc<str>, u32>,
    node_names: HashMap<Arc<str>, u32>,
    live: usize,
}

/// Makes `hint` unique among `names` by appending `_1`, `_2`, …
fn unique(names: &mut HashMap<Arc<str>, u32>, hint: &str) -> Arc<str> {
    let hint = if hint.is_empty() { "v" } else { hint };
    let mut n = match names.get_mut(hint) {
        None => {
            let name: Arc<str> = hint.into();
            names.insert(name.clone(), 0);
            return name;
        }
        Some(n) => {
            *n += 1;
            *n
        }
    };
    loop {
        let name = format!("{hint}_{n}");
        if !names.contains_key(name.as_str()) {
            let name: Arc<str> = name.into();
            names.insert(name.clone(), 0);
            if let Some(count) = names.get_mut(hint) {
                *count = n;
            }
            return name;
        }
        n += 1;
    }
}

/// Whether a loop of so many rounds over a body of so many calls is better written out, round after round, than run as a loop.
pub fn is_short(rounds: i64, calls: usize) -> bool {
    const MOST: i64 = 256;
    rounds > 0 && i64::try_from(calls).ok().and_then(|n| rounds.checked_mul(n)).is_some_and(|n| n <= MOST)
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// The node. Ids come from this graph; a removed node's id is a bug of the caller.
    ///
    /// # Panics
    /// When `id` is not of this graph or was removed.
    #[expect(clippy::expect_used, reason = "ids are made by the graph, never read from input")]
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.index()].node.as_ref().expect("the id of a removed node")
    }

    #[expect(clippy::expect_used, reason = "as for node()")]
    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.index()].node.as_mut().expect("the id of a removed node")
    }

    /// Whether the node is still there.
    pub fn contains(&self, id: NodeId) -> bool {
        self.nodes.get(id.index()).is_some_and(|s| s.node.is_some())
    }

    /// The value.
    ///
    /// # Panics
    /// When `id` is not of this graph.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The type of a value.
    pub fn ty(&self, id: ValueId) -> &Type {
        &self.value(id).ty
    }

    /// The tensor type of a value, if it is a tensor.
    pub fn tensor(&self, id: ValueId) -> Option<&TensorType> {
        self.ty(id).as_tensor()
    }

    /// The node that defines a value, if one does.
    pub fn producer(&self, id: ValueId) -> Option<NodeId> {
        match self.value(id).def {
            Def::Node(n, _) => Some(n),
            Def::Input(_) => None,
        }
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// One more than the largest index a [`NodeId`] of this graph can have: the size of side tables.
    pub fn node_bound(&self) -> usize {
        self.nodes.len()
    }

    /// One more than the largest index a [`ValueId`] of this graph can have.
    pub fn value_bound(&self) -> usize {
        self.values.len()
    }

    /// Nodes in order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            let id = at?;
            at = self.nodes[id.index()].next;
            Some((id, self.node(id)))
        })
    }

    /// Ids of nodes in order, as they are now: safe to edit the graph while going through them.
    pub fn order(&self) -> Vec<NodeId> {
        self.nodes().map(|(id, _)| id).collect()
    }

    /// Position of every node in the order, by index (removed nodes keep `u32::MAX`).
    pub fn positions(&self) -> Vec<u32> {
        let mut at = vec![u32::MAX; self.nodes.len()];
        for (i, (id, _)) in self.nodes().enumerate() {
            at[id.index()] = i as u32;
        }
        at
    }

    /// Inputs in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// What the graph returns, in order.
    pub fn outputs(&self) -> &[Arg] {
        &self.outputs
    }

    /// Adds an input. `name` is made unique.
    pub fn add_input(&mut self, name: &str, ty: Type) -> ValueId {
        let v = self.new_value(name, ty, Def::Input(self.inputs.len() as u32));
        self.inputs.push(v);
        v
    }

    /// Keeps only the inputs for which `keep` (by position) is true. The others must not be used.
    ///
    /// # Panics
    /// When a removed input is in use.
    pub fn retain_inputs(&mut self, keep: &[bool]) {
        let old = std::mem::take(&mut self.inputs);
        for (v, &keep) in old.into_iter().zip(keep) {
            if keep {
                self.values[v.index()].def = Def::Input(self.inputs.len() as u32);
                self.inputs.push(v);
            } else {
                assert_eq!(self.value(v).use_count(), 0, "removed input {} is in use", self.value(v).name);
            }
        }
    }

    /// Sets what the graph returns.
    pub fn set_outputs(&mut self, outputs: Vec<Arg>) {
        let old = std::mem::replace(&mut self.outputs, outputs);
        for a in &old {
            a.visit(&mut |v| self.values[v.index()].outputs -= 1);
        }
        self.returned.clear();
        for at in 0..self.outputs.len() {
            self.returns(at);
        }
    }

    /// Notes what the output at this place returns.
    fn returns(&mut self, at: usize) {
        self.outputs[at].visit(&mut |v| {
            self.values[v.index()].outputs += 1;
            self.returned.entry(v).or_default().push(at as u32);
        });
    }

    fn new_value(&mut self, name: &str, ty: Type, def: Def) -> ValueId {
        let name = unique(&mut self.names, name);
        self.values.push(Value { name, ty, def, users: Vec::new(), outputs: 0 });
        ValueId(self.values.len() as u32 - 1)
    }

    /// Appends a call. Result names are made unique.
    pub fn append(&mut self, op: OpId, args: Vec<Arg>, name: &str, outputs: Vec<(&str, Type)>, source: Option<Arc<Source>>) -> NodeId {
        self.insert(None, op, args, name, outputs, source)
    }

    /// Inserts a call before `at` (at the end for `None`). Result names are made unique.
    pub fn insert(
        &mut self,
        at: Option<NodeId>,
        op: OpId,
        args: Vec<Arg>,
        name: &str,
        outputs: Vec<(&str, Type)>,
        source: Option<Arc<Source>>,
    ) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        let outputs = outputs.into_iter().enumerate().map(|(i, (n, ty))| self.new_value(n, ty, Def::Node(id, i as u32))).collect();
        let name = unique(&mut self.node_names, name);
        for a in &args {
            a.visit(&mut |v| self.values[v.index()].users.push(id));
        }
        let previous = at.map_or(self.last, |n| self.nodes[n.index()].previous);
        self.nodes.push(Slot { node: Some(Node { op, args, outputs, name, source }), previous, next: at });
        match previous {
            Some(p) => self.nodes[p.index()].next = Some(id),
            None => self.first = Some(id),
        }
        match at {
            Some(n) => self.nodes[n.index()].previous = Some(id),
            None => self.last = Some(id),
        }
        self.live += 1;
        id
    }

    /// The node after `id`.
    pub fn next(&self, id: NodeId) -> Option<NodeId> {
        self.nodes[id.index()].next
    }

    /// Removes a node whose results are not used.
    ///
    /// # Panics
    /// When a result is in use, or the node was removed already.
    pub fn remove(&mut self, id: NodeId) {
        for &v in &self.node(id).outputs {
            assert_eq!(self.value(v).use_count(), 0, "removed node {} is in use", self.node(id).name);
        }
        let slot = &mut self.nodes[id.index()];
        let (previous, next) = (slot.previous, slot.next);
        if let Some(node) = slot.node.take() {
            for a in &node.args {
                a.visit(&mut |v| drop_user(&mut self.values[v.index()].users, id));
            }
            self.live -= 1;
        }
        match previous {
            Some(p) => self.nodes[p.index()].next = next,
            None => self.first = next,
        }
        match next {
            Some(n) => self.nodes[n.index()].previous = previous,
            None => self.last = previous,
        }
    }

    /// Replaces the arguments of a node.
    pub fn set_args(&mut self, id: NodeId, args: Vec<Arg>) {
        let old = std::mem::take(&mut self.node_mut(id).args);
        // New uses first: of operands that stay the newest use is the one that goes, which is found at once.
        for a in &args {
            a.visit(&mut |v| self.values[v.index()].users.push(id));
        }
        for a in &old {
            a.visit(&mut |v| drop_user(&mut self.values[v.index()].users, id));
        }
        self.node_mut(id).args = args;
    }

    /// Turns a node into a call of another operator with the same results.
    pub fn set_call(&mut self, id: NodeId, op: OpId, args: Vec<Arg>) {
        self.set_args(id, args);
        self.node_mut(id).op = op;
    }

    /// Changes what is known of a value.
    pub fn set_type(&mut self, id: ValueId, ty: Type) {
        self.values[id.index()].ty = ty;
    }

    /// Makes every use of `old` a use of `new`.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        self.replace_uses_with(old, &Arg::Value(new));
    }

    /// Makes every use of `old` a use of `new`, which may be a literal.
    pub fn replace_uses_with(&mut self, old: ValueId, new: &Arg) {
        if *new == Arg::Value(old) {
            return;
        }
        let mut users = self.value(old).users.clone();
        users.sort_unstable();
        users.dedup();
        for user in users {
            let mut args = self.node(user).args.clone();
            args.iter_mut().for_each(|a| a.rewrite(&mut |v| if v == old { new.clone() } else { Arg::Value(v) }));
            self.set_args(user, args);
        }
        // Only these outputs are looked at: a graph may have very many.
        let mut places = self.returned.remove(&old).unwrap_or_default();
        places.dedup();
        for at in places.into_iter().map(|at| at as usize) {
            let mut kept = Vec::new();
            self.outputs[at].visit(&mut |v| kept.push(v));
            for v in kept {
                self.values[v.index()].outputs -= 1;
                if let Some(list) = self.returned.get_mut(&v) {
                    list.retain(|&place| place as usize != at);
                }
            }
            self.outputs[at].rewrite(&mut |v| if v == old { new.clone() } else { Arg::Value(v) });
            self.returns(at);
        }
    }

    /// Values that a node reads, in order, one entry a use.
    pub fn operands(&self, id: NodeId) -> Vec<ValueId> {
        let mut out = Vec::new();
        self.node(id).args.iter().for_each(|a| a.visit(&mut |v| out.push(v)));
        out
    }
}

#[cfg(test)]
impl Graph {
    /// For tests of the verifier: a value, to make wrong what the graph keeps right.
    pub(crate) fn break_value(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.index()]
    }

    /// Likewise, a node.
    pub(crate) fn break_node(&mut self, id: NodeId) -> &mut Node {
        self.node_mut(id)
    }
}

fn drop_user(users: &mut Vec<NodeId>, id: NodeId) {
    // The newest use is most often the one that goes.
    if let Some(at) = users.iter().rposition(|&u| u == id) {
        users.swap_remove(at);
    }
}
