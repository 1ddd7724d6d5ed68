//! Loops whose number of rounds follows from numbers that are known at export, or from sizes.

use std::collections::{BTreeSet, HashMap};

use etx_ir::DType;
use etx_ir::eval::{self, Value};
use etx_ir::graph::{Arg, Graph, Node, NodeId, TensorType, Type, ValueId, is_short};
use etx_ir::op;
use etx_ir::sym::{Dim, Expr};

use super::super::{no, no_but};
use super::{Result, body_of, inlined, listed};
use crate::calls::args;
use crate::effects::removable;
use crate::rewrite::{Patch, Site};

/// Tensors of more elements are not followed through the rounds.
const MOST_ELEMENTS: i64 = 1024;

/// Most rounds that are gone through to count them.
const MOST_ROUNDS: usize = 1 << 16;

/// A loop as a scan over as many numbers as it makes rounds, or written out if it is short. Source: torch.while_loop.
pub(in super::super) fn while_loop(site: &mut Site<'_>) -> Result<Option<Patch>> {
    let (condition, body) = (body_of(site, "cond_graph")?, body_of(site, "body_graph")?);
    let (carried, extra) = (listed(site, "carried"), listed(site, "additional"));
    if let Some((_, n)) = condition.nodes().chain(body.nodes()).find(|(_, n)| !removable(n)) {
        return no(format!("{} in the loop does more than compute", n.op));
    }
    if condition.inputs().len() != carried.len() + extra.len() || body.outputs().len() != carried.len() {
        return no("its bodies do not take and give what it carries");
    }
    if carried.iter().any(|a| site.tensor(a).is_none()) {
        return no_but("it carries a number", "carry it as a tensor of no dimensions");
    }
    let given: Vec<Arg> = [&carried[..], &extra].concat();
    let start: Vec<Option<Value>> = given.iter().map(|a| known(site, a, 0)).collect();
    match followed(&condition, &body, start, carried.len())? {
        Some(rounds) => counted(site, &body, &carried, &extra, rounds),
        None => by_size(site, &condition, &body, &carried, &extra),
    }
}

/// What an argument is, if that follows from numbers alone.
fn known(site: &Site<'_>, arg: &Arg, depth: usize) -> Option<Value> {
    match arg {
        Arg::Int(n) => return Some(Value::Int(*n)),
        Arg::Float(x) => return Some(Value::Float(*x)),
        Arg::Bool(b) => return Some(Value::Bool(*b)),
        _ => {}
    }
    let v = arg.as_value()?;
    match site.graph().ty(v) {
        Type::Int(e) => return e.as_int().map(Value::Int),
        Type::Tensor(t) => {
            let small = t.static_shape()?.iter().try_fold(1i64, |n, &m| n.checked_mul(m)).is_some_and(|n| n <= MOST_ELEMENTS);
            if !small {
                return None;
            }
            if let Some(number) = site.constant(arg) {
                let full = args(op!("aten.full.default"), [Arg::List(Vec::new()), number], &[("dtype", Arg::DType(t.dtype))]);
                return eval::call(op!("aten.full.default"), &full, &|_| None).ok()?.into_iter().next();
            }
        }
        _ => return None,
    }
    let node = site.graph().producer(v).map(|id| site.graph().node(id))?;
    if depth > 8 || node.op.is_random() || !removable(node) || node.args.iter().any(|a| matches!(a, Arg::Graph(_))) {
        return None;
    }
    let mut values = HashMap::new();
    let mut all = true;
    node.args.iter().for_each(|a| {
        a.visit(&mut |v| match known(site, &Arg::Value(v), depth + 1) {
            Some(value) => drop(values.insert(v, value)),
            None => all = false,
        });
    });
    let at = node.outputs.iter().position(|&o| o == v)?;
    all.then(|| eval::call(node.op, &node.args, &|v| values.get(&v).cloned()).ok()?.into_iter().nth(at)).flatten()
}

/// The nodes that some results of a graph need, in order, and the inputs, by position.
fn needed<'g>(graph: &'g Graph, results: &[Arg]) -> (Vec<(NodeId, &'g Node)>, BTreeSet<usize>) {
    let mut wanted: BTreeSet<ValueId> = BTreeSet::new();
    results.iter().for_each(|a| a.visit(&mut |v| _ = wanted.insert(v)));
    let mut nodes = Vec::new();
    for (id, node) in graph.nodes().collect::<Vec<_>>().into_iter().rev() {
        if node.outputs.iter().any(|v| wanted.contains(v)) {
            node.args.iter().for_each(|a| a.visit(&mut |v| _ = wanted.insert(v)));
            nodes.push((id, node));
        }
    }
    nodes.reverse();
    let inputs = (0..).zip(graph.inputs()).filter(|(_, v)| wanted.contains(v)).map(|(i, _)| i).collect();
    (nodes, inputs)
}

/// Some results of a graph for these inputs.
fn evaluated(graph: &Graph, nodes: &[(NodeId, &Node)], results: &[Arg], inputs: &[Option<Value>]) -> Option<Vec<Value>> {
    let mut values: HashMap<ValueId, Value> = graph.inputs().iter().zip(inputs).filter_map(|(&v, x)| Some((v, x.clone()?))).collect();
    for (_, node) in nodes {
        let made = eval::call(node.op, &node.args, &|v| values.get(&v).cloned()).ok()?;
        values.extend(node.outputs.iter().copied().zip(made));
    }
    let value = |a: &Arg| match a {
        Arg::Value(v) => values.get(v).cloned(),
        Arg::Int(n) => Some(Value::Int(*n)),
        Arg::Float(x) => Some(Value::Float(*x)),
        Arg::Bool(b) => Some(Value::Bool(*b)),
        _ => None,
    };
    results.iter().map(value).collect()
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Int(n) => Some(*n != 0),
        Value::Tensor(t) if t.shape().iter().product::<usize>() == 1 => Some(t.bytes().iter().any(|&b| b != 0)),
        _ => None,
    }
}

/// How many rounds the loop makes, or nothing if its condition depends on what is not known, or holds for too long to count.
fn followed(condition: &Graph, body: &Graph, start: Vec<Option<Value>>, carried: usize) -> Result<Option<usize>> {
    // Small tensors stay what they are in shape, so what is known of them stays small.
    let parts: Vec<_> = body.outputs().iter().map(|out| needed(body, std::slice::from_ref(out))).collect();
    let mut follow: Vec<bool> = start.iter().map(Option::is_some).collect();
    loop {
        let lost: Vec<usize> = (0..carried)
            .filter(|&i| {
                let follows = |(nodes, needs): &(Vec<(NodeId, &Node)>, BTreeSet<usize>)| {
                    needs.iter().all(|&j| follow.get(j) == Some(&true)) && !nodes.iter().any(|(_, n)| n.op.is_random())
                };
                follow.get(i) == Some(&true) && !parts.get(i).is_some_and(follows)
            })
            .collect();
        if lost.is_empty() {
            break;
        }
        lost.into_iter().for_each(|i| follow.get_mut(i).into_iter().for_each(|f| *f = false));
    }
    let (asked, needs) = needed(condition, condition.outputs());
    if needs.iter().any(|&i| follow.get(i) != Some(&true)) || asked.iter().any(|(_, n)| n.op.is_random()) {
        return Ok(None);
    }
    let kept: Vec<usize> = (0..carried).filter(|&i| follow.get(i) == Some(&true)).collect();
    let results: Vec<Arg> = kept.iter().filter_map(|&i| body.outputs().get(i).cloned()).collect();
    let (nodes, _) = needed(body, &results);
    let mut now: Vec<Option<Value>> = start.into_iter().zip(follow).map(|(x, follow)| x.filter(|_| follow)).collect();
    for round in 0..=MOST_ROUNDS {
        let goes_on = evaluated(condition, &asked, condition.outputs(), &now).and_then(|all| truth(all.first()?));
        let Some(goes_on) = goes_on else { return no("its condition could not be computed at export") };
        if !goes_on {
            return Ok(Some(round));
        }
        let Some(next) = evaluated(body, &nodes, &results, &now) else { return no("its counter could not be computed at export") };
        for (&i, x) in kept.iter().zip(next) {
            if let Some(slot) = now.get_mut(i) {
                *slot = Some(x);
            }
        }
    }
    Ok(None)
}

/// A loop of a known number of rounds.
fn counted(site: &mut Site<'_>, body: &Graph, carried: &[Arg], extra: &[Arg], rounds: usize) -> Result<Option<Patch>> {
    if !is_short((rounds as i64).max(1), body.len()) {
        return as_scan(site, body, carried, extra, &Dim::Int(rounds as i64));
    }
    let mut carry = carried.to_vec();
    for _ in 0..rounds {
        carry = inlined(site, body, &[&carry[..], extra].concat())?;
    }
    Ok(Some(Patch::Values(carry)))
}

/// How many rounds a loop makes whose counter goes from a number to a limit by a fixed step.
fn counter(site: &Site<'_>, condition: &Graph, body: &Graph, given: &[Arg]) -> Option<Dim> {
    let place = |graph: &Graph, arg: &Arg| graph.inputs().iter().position(|&v| Some(v) == arg.as_value());
    let size = |arg: &Arg| -> Option<Dim> {
        match arg {
            Arg::Value(v) => match site.graph().ty(*v) {
                Type::Int(e) => Some(e.clone()),
                _ => number(known(site, arg, 0)?, *v),
            },
            other => other.as_int().map(Dim::Int),
        }
    };
    let compared = single(condition, condition.outputs().first()?)?;
    let [a, b, ..] = compared.args.as_slice() else { return None };
    // What is carried changes; a limit is a literal, another operand, or a size that the condition asks for.
    let carried = |arg: &Arg| place(condition, arg).filter(|&i| i < body.outputs().len());
    let limit = |arg: &Arg| match (place(condition, arg), arg) {
        (Some(i), _) => size(given.get(i)?),
        (None, Arg::Value(v)) => match condition.ty(*v) {
            Type::Int(e) => Some(e.clone()),
            _ => None,
        },
        (None, other) => other.as_int().map(Dim::Int),
    };
    let (at, limit, turned) = match (carried(a), carried(b)) {
        (Some(i), None) => (i, limit(b)?, false),
        (None, Some(j)) => (j, limit(a)?, true),
        _ => return None,
    };
    let (less, equal) = by_op!(compared.op, {
        "aten.lt.Scalar" | "aten.lt.Tensor" | "_operator.lt" => (true, false),
        "aten.le.Scalar" | "aten.le.Tensor" | "_operator.le" => (true, true),
        "aten.gt.Scalar" | "aten.gt.Tensor" | "_operator.gt" => (false, false),
        "aten.ge.Scalar" | "aten.ge.Tensor" | "_operator.ge" => (false, true),
        _ => return None,
    });
    let step = changes(body, at)?;
    let start = size(given.get(at)?)?;
    let rising = less != turned;
    let way = if rising { limit.minus(&start) } else { start.minus(&limit) };
    let by = if rising { step } else { step.checked_neg()? };
    if by <= 0 {
        return None;
    }
    // The last one that still holds is one more round; without it, what is left is rounded up.
    let rounds = if equal { way.floor_div(&Dim::Int(by)).plus(&Dim::Int(1)) } else { way.plus(&Dim::Int(by - 1)).floor_div(&Dim::Int(by)) };
    site.ranges().bounds(&rounds).min.is_some_and(|n| n >= 0).then_some(rounds)
}

/// The integer that a value is, or that is the only element of it.
fn number(value: Value, v: ValueId) -> Option<Dim> {
    let one = match value {
        Value::Tensor(_) => eval::call(op!("aten.item.default"), &[Arg::Value(v)], &|_| Some(value.clone())).ok()?.into_iter().next()?,
        other => other,
    };
    if let Value::Int(n) = one { Some(Expr::Int(n)) } else { None }
}

/// The call that makes a result.
fn single<'g>(graph: &'g Graph, result: &Arg) -> Option<&'g Node> {
    Some(graph.node(graph.producer(result.as_value()?)?))
}

/// What the body adds to input number `at`, if it does nothing else to it.
fn changes(body: &Graph, at: usize) -> Option<i64> {
    let node = single(body, body.outputs().get(at)?)?;
    let own = |a: &Arg| a.as_value().is_some() && a.as_value() == body.inputs().get(at).copied();
    let [a, b, rest @ ..] = node.args.as_slice() else { return None };
    let plain = rest.first().is_none_or(|alpha| alpha.as_int() == Some(1));
    by_op!(node.op, {
        "aten.add.Tensor" | "_operator.add" if plain => match (own(a), own(b)) {
            (true, false) => b.as_int(),
            (false, true) => a.as_int(),
            _ => None,
        },
        "aten.sub.Tensor" | "_operator.sub" if plain && own(a) => b.as_int()?.checked_neg(),
        _ => None,
    })
}

/// A loop whose number of rounds follows from sizes.
fn by_size(site: &mut Site<'_>, condition: &Graph, body: &Graph, carried: &[Arg], extra: &[Arg]) -> Result<Option<Patch>> {
    let Some(rounds) = counter(site, condition, body, &[carried, extra].concat()) else {
        return no_but(
            "how often the body runs depends on values that the program computes",
            "loop a fixed number of times and keep what has converged (torch.where), or call the program once a round",
        );
    };
    as_scan(site, body, carried, extra, &rounds)
}

/// The loop as a scan over so many numbers, which its body does not look at.
fn as_scan(site: &mut Site<'_>, body: &Graph, carried: &[Arg], extra: &[Arg], rounds: &Dim) -> Result<Option<Patch>> {
    // The same body with one more input, which the operands of a scan have between what it carries and the rest.
    let number = Type::Tensor(TensorType::new(DType::Int32, Vec::new()));
    let mut graph = Graph::new();
    let mut map: HashMap<ValueId, Arg> = HashMap::new();
    for (i, &v) in body.inputs().iter().enumerate() {
        if i == carried.len() {
            graph.add_input("round", number.clone());
        }
        map.insert(v, Arg::Value(graph.add_input(&body.value(v).name, body.ty(v).clone())));
    }
    if extra.is_empty() {
        graph.add_input("round", number);
    }
    for (_, node) in body.nodes() {
        let mut list = node.args.clone();
        list.iter_mut().for_each(|a| a.rewrite(&mut |v| map.get(&v).cloned().unwrap_or(Arg::None)));
        let types = node.outputs.iter().map(|&v| (&*body.value(v).name, body.ty(v).clone())).collect();
        let id = graph.append(node.op, list, &node.name, types, node.source.clone());
        let made = graph.node(id).outputs.clone();
        map.extend(node.outputs.iter().copied().zip(made.into_iter().map(Arg::Value)));
    }
    let mut results = body.outputs().to_vec();
    results.iter_mut().for_each(|a| a.rewrite(&mut |v| map.get(&v).cloned().unwrap_or(Arg::None)));
    graph.set_outputs(results);

    let Some(length) = site.size(rounds) else { return no(format!("the number of rounds, {rounds}, cannot be computed here")) };
    let numbers = args(op!("aten.arange.start_step"), [Arg::Int(0), length, Arg::Int(1)], &[("dtype", Arg::DType(DType::Int32))]);
    let numbers = site.call(op!("aten.arange.start_step"), numbers)?;
    let types = site.node().outputs.iter().map(|&v| site.graph().ty(v).clone()).collect();
    let lists = [carried.to_vec(), vec![Arg::Value(numbers)], extra.to_vec()].map(Arg::List);
    let made = site.write(op!("higher_order.scan"), [vec![Arg::Graph(Box::new(graph))], lists.to_vec()].concat(), types);
    Ok(Some(Patch::Values(made.into_iter().map(Arg::Value).collect())))
}
