//! Bodies of loops: graphs of their own whose inputs are slots of the graph around them.

use std::collections::{BTreeSet, HashMap};

use etx_ir::graph::{Arg, Graph, NodeId, Type, ValueId};
use etx_ir::sym::{Expr, Symbol};
use etx_mlx::{Tid, Vid};

use super::super::call::{Call, Res, describe};
use super::Cx;
use crate::backend::Refusal;

/// What a body's input is.
#[derive(Clone, Copy)]
pub(crate) enum Given {
    /// What a slot holds.
    Slot(Tid),
    /// An operand of the call around.
    Outer(ValueId),
}

/// What is known of the graph around while a body is lowered.
struct Around<'a> {
    graph: &'a Graph,
    bound: Vec<Option<Tid>>,
    input_of: HashMap<ValueId, usize>,
    mutated: HashMap<ValueId, Vec<ValueId>>,
    known_values: HashMap<ValueId, Vid>,
    sizes: HashMap<Expr, (ValueId, usize)>,
    known_from: HashMap<Expr, Vec<ValueId>>,
    symbols: HashMap<Symbol, ValueId>,
    positions: Vec<u32>,
    now: u32,
    node: Option<NodeId>,
    reads: Vec<ValueId>,
    outputs: Vec<ValueId>,
    shapes: HashMap<Tid, Vec<Expr>>,
    /// How many values each slot was known to hold.
    held: Vec<usize>,
}

impl<'a> Cx<'a> {
    /// Lowers the calls of a body into the chain at hand and gives the slots of what it returns. `given` has one entry for each
    /// of the body's inputs; operands of the call around must have been asked for before.
    pub(crate) fn in_body(&mut self, body: &'a Graph, given: &[Given]) -> Res<Vec<Tid>> {
        if body.inputs().len() != given.len() {
            return Err(Refusal::new(format!("the body takes {} values and gets {}", body.inputs().len(), given.len())));
        }
        let outer = self.enter(body, given);
        let done = self.body(body);
        self.leave(outer);
        done
    }

    /// Computes what the sizes in a body are made of, where the program can tell it here.
    pub(crate) fn foresee(&mut self, body: &Graph) {
        let mut symbols = BTreeSet::new();
        let mut note = |e: &Expr| e.visit_symbols(&mut |s| symbols.extend([s.clone()]));
        let values = body.inputs().iter().chain(body.nodes().flat_map(|(_, n)| &n.outputs));
        for &v in values {
            match body.ty(v) {
                Type::Tensor(t) => t.shape.iter().for_each(&mut note),
                Type::Int(e) | Type::Float(e) | Type::Bool(e) => note(e),
                _ => {}
            }
        }
        for s in symbols {
            let known = self.symbols.contains_key(&s) || self.sizes.keys().any(|e| mentions(e, &s));
            if known {
                // One that nothing tells is refused where it is needed.
                let _ = self.int(&Expr::Sym(s));
            }
        }
    }

    fn enter(&mut self, body: &'a Graph, given: &[Given]) -> Around<'a> {
        let mut bound = vec![None; body.value_bound()];
        let mut input_of = HashMap::new();
        let mut shapes = HashMap::new();
        let mut ints = Vec::new();
        for (&v, given) in body.inputs().iter().zip(given) {
            let slot = match *given {
                Given::Slot(t) => Some(t),
                Given::Outer(o) => {
                    // Lowerings that look at weights find them through the body, too.
                    if let (Some(&i), true) = (self.input_of.get(&o), self.weight(o).is_some()) {
                        input_of.insert(v, i);
                    }
                    if let (Type::Int(e), Type::Int(inner)) = (self.graph.ty(o), body.ty(v))
                        && e != inner
                        && let Ok(n) = self.int(&e.clone())
                    {
                        ints.push((inner.clone(), n));
                    }
                    self.bound.get(o.index()).copied().flatten()
                }
            };
            bound[v.index()] = slot;
            if let (Some(t), Some(ty)) = (slot, body.tensor(v)) {
                shapes.insert(t, ty.shape.clone());
            }
        }
        let around = Around {
            graph: std::mem::replace(&mut self.graph, body),
            bound: std::mem::replace(&mut self.bound, bound),
            input_of: std::mem::replace(&mut self.input_of, input_of),
            mutated: std::mem::take(&mut self.mutated),
            known_values: std::mem::take(&mut self.known_values),
            sizes: std::mem::take(&mut self.sizes),
            known_from: std::mem::take(&mut self.known_from),
            symbols: std::mem::take(&mut self.symbols),
            positions: std::mem::replace(&mut self.positions, body.positions()),
            now: self.now,
            node: self.node,
            reads: std::mem::take(&mut self.reads),
            outputs: std::mem::take(&mut self.outputs),
            shapes: std::mem::replace(&mut self.shapes, shapes),
            held: self.slots.iter().map(|s| s.holders.len()).collect(),
        };
        self.known.extend(ints);
        for &v in body.inputs() {
            self.note_sizes(v);
        }
        around
    }

    fn leave(&mut self, outer: Around<'a>) {
        // Values of the body are no values of the graph around.
        for (i, slot) in self.slots.iter_mut().enumerate() {
            slot.holders.truncate(outer.held.get(i).copied().unwrap_or(0));
        }
        self.graph = outer.graph;
        self.bound = outer.bound;
        self.input_of = outer.input_of;
        self.mutated = outer.mutated;
        self.known_values = outer.known_values;
        self.sizes = outer.sizes;
        self.known_from = outer.known_from;
        self.symbols = outer.symbols;
        self.positions = outer.positions;
        self.now = outer.now;
        self.node = outer.node;
        self.reads = outer.reads;
        self.outputs = outer.outputs;
        self.shapes = outer.shapes;
    }

    fn body(&mut self, body: &'a Graph) -> Res<Vec<Tid>> {
        for (id, node) in body.nodes() {
            self.node = Some(id);
            self.now = self.positions[id.index()];
            super::super::ops::lower(self, Call::new(body, id)).map_err(|e| {
                let place = node.source.as_ref().map_or_else(String::new, |s| format!(", {s}"));
                Refusal {
                    reason: format!("in its body, {} ({}{place}): {}", node.name, node.op.target(), e.reason),
                    of_operator: false,
                    ..e
                }
            })?;
        }
        body.outputs()
            .iter()
            .map(|out| match out {
                Arg::Value(v) if body.tensor(*v).is_some() => self.tensor(*v),
                Arg::Value(v) => Err(Refusal::new(format!("its body returns {}, which is not a tensor", describe(body, *v)))),
                _ => Err(Refusal::new("its body returns what is not a tensor")),
            })
            .collect()
    }
}

fn mentions(e: &Expr, s: &Symbol) -> bool {
    let mut found = false;
    e.visit_symbols(&mut |t| found |= t == s);
    found
}
