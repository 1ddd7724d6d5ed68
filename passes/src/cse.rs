//! Merges equal calls.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use etx_ir::error::Error;
use etx_ir::graph::{Arg, Graph, NodeId, Type, ValueId};
use etx_ir::op::OpId;
use etx_ir::program::InputKind;
use etx_ir::sym::{Expr, Ranges, Symbol};

use crate::driver::{Context, Pass};
use crate::rewrite::nested;

/// Makes one call of two that are the same pure operator on the same arguments, and one input of two that hold the
/// same weight.
///
/// Where the two results had symbols of their own (two reads of one tensor's element), the symbols become one.
/// Random draws and effects are never merged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cse;

impl Pass for Cse {
    fn name(&self) -> &'static str {
        "cse"
    }

    fn law(&self) -> &'static str {
        "equal pure calls become one, and so do symbols that are thereby equal; random draws and effects are left"
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<(), Error> {
        let mut changes = tied_inputs(cx);
        let method = cx.edit();
        let mut same = BTreeMap::new();
        changes += merge(&mut method.graph, &mut same)?;
        if !same.is_empty() {
            substitute(&mut method.graph, &same)?;
            merge_ranges(&mut method.ranges, &same);
        }
        cx.changed(changes);
        Ok(())
    }
}

/// Inputs that hold the same bytes, if the method writes to neither.
fn tied_inputs(cx: &mut Context<'_>) -> u64 {
    let mut first: BTreeMap<_, Vec<ValueId>> = BTreeMap::new();
    let mut pairs = Vec::new();
    for (i, input) in cx.method().inputs.iter().enumerate() {
        let (InputKind::Parameter(_) | InputKind::Constant(_), Some(v)) = (&input.kind, input.value) else { continue };
        if cx.method().outputs.contains(&etx_ir::program::OutputKind::StateMutation(i as u32)) {
            continue;
        }
        let Some(data) = cx.weight(i) else { continue };
        let earlier = first.entry(data.identity()).or_default();
        match earlier.iter().find(|e| cx.graph().ty(**e) == cx.graph().ty(v)) {
            Some(&e) if cx.graph().value(v).use_count() > 0 => pairs.push((v, e)),
            Some(_) => {}
            None => earlier.push(v),
        }
    }
    for (v, e) in &pairs {
        cx.edit().graph.replace_uses(*v, *e);
    }
    pairs.len() as u64
}

fn merge(graph: &mut Graph, same: &mut BTreeMap<Symbol, Expr>) -> Result<u64, Error> {
    let mut seen: HashMap<u64, Vec<NodeId>> = HashMap::new();
    let mut merged = 0;
    for node in graph.order() {
        merged += nested(graph, node, &mut |body| merge(body, same))?;
        let n = graph.node(node);
        if !mergeable(n.op) {
            continue;
        }
        let earlier = seen.entry(digest(n.op, &n.args)).or_default();
        let twin = earlier.iter().copied().find(|&e| {
            let e = graph.node(e);
            e.op == n.op && e.args == n.args && e.outputs.len() == n.outputs.len()
        });
        let Some(twin) = twin else {
            earlier.push(node);
            continue;
        };
        let pairs: Vec<(ValueId, ValueId)> = n.outputs.iter().copied().zip(graph.node(twin).outputs.iter().copied()).collect();
        for (from, to) in pairs {
            unify(graph.ty(from), graph.ty(to), same);
            graph.replace_uses(from, to);
        }
        graph.remove(node);
        merged += 1;
    }
    Ok(merged)
}

fn mergeable(op: OpId) -> bool {
    !op.is_unknown() && op.is_pure()
}

fn digest(op: OpId, args: &[Arg]) -> u64 {
    let mut h = DefaultHasher::new();
    op.hash(&mut h);
    args.iter().for_each(|a| hash(a, &mut h));
    h.finish()
}

/// Agrees with `==` on arguments; graphs, which equal nothing, get one number each kind.
fn hash(arg: &Arg, h: &mut DefaultHasher) {
    std::mem::discriminant(arg).hash(h);
    match arg {
        Arg::None | Arg::Graph(_) => {}
        Arg::Value(v) => v.hash(h),
        Arg::Int(n) => n.hash(h),
        Arg::Float(x) => x.to_bits().hash(h),
        Arg::Bool(b) => b.hash(h),
        Arg::Str(s) | Arg::Device(s) => s.hash(h),
        Arg::Complex(a, b) => (a.to_bits(), b.to_bits()).hash(h),
        Arg::DType(t) => t.hash(h),
        Arg::MemoryFormat(n) | Arg::Layout(n) => n.hash(h),
        Arg::List(items) => items.iter().for_each(|a| hash(a, h)),
        Arg::Dict(items) => items.iter().for_each(|(k, a)| {
            k.hash(h);
            hash(a, h);
        }),
        Arg::Op(op) => op.hash(h),
    }
}

/// Two results of equal calls are equal, so what their types say must be too: a symbol that only one of them brought
/// along is the other's expression.
fn unify(from: &Type, to: &Type, same: &mut BTreeMap<Symbol, Expr>) {
    match (from, to) {
        (Type::Int(a), Type::Int(b)) | (Type::Float(a), Type::Float(b)) | (Type::Bool(a), Type::Bool(b)) => equate(a, b, same),
        (Type::Tensor(a), Type::Tensor(b)) => a.shape.iter().zip(&b.shape).for_each(|(x, y)| equate(x, y, same)),
        _ => {}
    }
}

fn equate(from: &Expr, to: &Expr, same: &mut BTreeMap<Symbol, Expr>) {
    let resolve = |e: &Expr, same: &BTreeMap<Symbol, Expr>| e.substitute(&|s| same.get(s).cloned());
    let (from, to) = (resolve(from, same), resolve(to, same));
    if from == to {
        return;
    }
    // Only symbols of data-dependent integers are ever defined twice.
    let (symbol, by) = match (&from, &to) {
        (Expr::Sym(s), e) if s.name().starts_with('u') => (s.clone(), e.clone()),
        (e, Expr::Sym(s)) if s.name().starts_with('u') => (s.clone(), e.clone()),
        _ => return,
    };
    let mut circular = false;
    by.visit_symbols(&mut |s| circular |= *s == symbol);
    if circular {
        return;
    }
    for e in same.values_mut() {
        *e = e.substitute(&|s| (*s == symbol).then(|| by.clone()));
    }
    same.insert(symbol, by);
}

/// Puts expressions in the place of symbols, in all types.
pub(crate) fn substitute(graph: &mut Graph, same: &BTreeMap<Symbol, Expr>) -> Result<(), Error> {
    let with = |e: &Expr| e.substitute(&|s| same.get(s).cloned());
    let touched = |e: &Expr| {
        let mut hit = false;
        e.visit_symbols(&mut |s| hit |= same.contains_key(s));
        hit
    };
    let nodes = graph.order();
    let values: Vec<ValueId> =
        graph.inputs().iter().copied().chain(nodes.iter().flat_map(|&n| graph.node(n).outputs.iter().copied())).collect();
    for v in values {
        let new = match graph.ty(v) {
            Type::Int(e) if touched(e) => Type::Int(with(e)),
            Type::Float(e) if touched(e) => Type::Float(with(e)),
            Type::Bool(e) if touched(e) => Type::Bool(with(e)),
            Type::Tensor(t) if t.shape.iter().chain(t.strides.iter().flatten()).any(touched) => {
                let mut t = t.clone();
                t.shape.iter_mut().chain(t.strides.iter_mut().flatten()).for_each(|e| *e = with(e));
                Type::Tensor(t)
            }
            _ => continue,
        };
        graph.set_type(v, new);
    }
    for node in nodes {
        nested(graph, node, &mut |body| substitute(body, same).map(|()| 1))?;
    }
    Ok(())
}

/// Takes symbols that are gone out of what is known of symbols.
pub(crate) fn merge_ranges(ranges: &mut Ranges, same: &BTreeMap<Symbol, Expr>) {
    for (symbol, e) in same {
        let Some(gone) = ranges.0.remove(symbol) else { continue };
        if let Expr::Sym(s) = e {
            let kept = ranges.0.get(s).copied().map_or(gone, |r| r.intersect(gone));
            ranges.0.insert(s.clone(), kept);
        }
    }
}
