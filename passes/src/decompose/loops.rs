//! Loops: short ones are written out round after round, others become scans.

mod counted;

use std::collections::HashMap;

use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Arg, Graph, ValueId, is_short};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::program::{Input, InputKind, Method, OutputKind};

use super::pen::Pen;
use super::{Formula, no, no_but};
use crate::effects::removable;
use crate::rewrite::{Patch, Site};

pub(super) use counted::while_loop;

type Result<T> = std::result::Result<T, Error>;

/// The results of a body for these inputs, its calls written out.
pub(super) fn inlined(site: &mut Site<'_>, body: &Graph, given: &[Arg]) -> Result<Vec<Arg>> {
    if body.inputs().len() != given.len() {
        return no(format!("a body of {} inputs gets {}", body.inputs().len(), given.len()));
    }
    if let Some((_, n)) = body.nodes().find(|(_, n)| !removable(n)) {
        return no(format!("{} in its body does more than compute", n.op));
    }
    let mut map: HashMap<ValueId, Arg> = body.inputs().iter().copied().zip(given.iter().cloned()).collect();
    for (_, node) in body.nodes() {
        let mut list = node.args.clone();
        list.iter_mut().for_each(|a| a.rewrite(&mut |v| map.get(&v).cloned().unwrap_or(Arg::None)));
        let results = match site.call_all(node.op, list.clone()) {
            // What no rule tells, as of operators with bodies of their own, is what it was.
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                site.write(node.op, list, node.outputs.iter().map(|&v| body.ty(v).clone()).collect())
            }
            results => results?,
        };
        map.extend(node.outputs.iter().copied().zip(results.into_iter().map(Arg::Value)));
    }
    let mut results = body.outputs().to_vec();
    results.iter_mut().for_each(|a| a.rewrite(&mut |v| map.get(&v).cloned().unwrap_or(Arg::None)));
    Ok(results)
}

/// Most calls that a loop is written out to.
const MAX_WRITTEN_OUT: usize = 4096;

/// The operands in a list of the call.
fn listed(site: &Site<'_>, name: &str) -> Vec<Arg> {
    site.arg(name).as_list().map(<[Arg]>::to_vec).unwrap_or_default()
}

fn body_of(site: &Site<'_>, name: &str) -> Result<Graph> {
    match site.arg(name) {
        Arg::Graph(body) => Ok((**body).clone()),
        _ => no(format!("`{name}` is not a graph")),
    }
}

/// How many rounds a loop over the first axis of `xs` makes, if that is known.
fn rounds(site: &Site<'_>, xs: &[Arg]) -> Result<i64> {
    let lengths: Option<Vec<i64>> = xs.iter().map(|x| site.tensor(x)?.shape.first()?.as_int()).collect();
    match lengths.as_deref() {
        Some([n, rest @ ..]) if rest.iter().all(|m| m == n) => Ok(*n),
        _ => no_but("the number of rounds is not known at export", "export with a fixed length"),
    }
}

/// A loop over the first axis of `xs`, round by round: `round` gives the results for the elements of one. What each round gives is
/// stacked.
fn written_out(
    site: &mut Site<'_>,
    calls: usize,
    long: bool,
    mut round: impl FnMut(&mut Site<'_>, Vec<Arg>) -> Result<Vec<Arg>>,
) -> Result<Vec<ValueId>> {
    let xs = listed(site, "xs");
    let (rounds, calls) = (rounds(site, &xs)?, calls + xs.len());
    let fits = match long {
        true => rounds > 0 && usize::try_from(rounds).ok().and_then(|n| n.checked_mul(calls)).is_some_and(|n| n <= MAX_WRITTEN_OUT),
        false => is_short(rounds, calls),
    };
    if !fits {
        return no(format!("{rounds} rounds of {calls} calls are not written out"));
    }
    let mut columns: Vec<Vec<Arg>> = Vec::new();
    for i in 0..rounds {
        let elements = xs.iter().map(|x| site.call(op!("aten.select.int"), vec![x.clone(), Arg::Int(0), Arg::Int(i)]).map(Arg::Value));
        let elements = elements.collect::<Result<_>>()?;
        let results = round(site, elements)?;
        columns.resize(results.len(), Vec::new());
        columns.iter_mut().zip(results).for_each(|(column, value)| column.push(value));
    }
    let stack = columns.into_iter().map(|column| site.call(op!("aten.stack.default"), vec![Arg::List(column), Arg::Int(0)]));
    stack.collect()
}

/// `ys[i], carry = f(carry, xs[i])`. Source: torch's higher-order operators, documentation of scan.
pub(super) fn scan(site: &mut Site<'_>) -> Result<Option<Patch>> {
    scan_written_out(site, false)
}

fn scan_in_full(site: &mut Site<'_>) -> Result<Option<Patch>> {
    scan_written_out(site, true)
}

fn scan_written_out(site: &mut Site<'_>, long: bool) -> Result<Option<Patch>> {
    let body = body_of(site, "combine_graph")?;
    let (mut carry, extra) = (listed(site, "init"), listed(site, "additional"));
    let made = written_out(site, body.len(), long, |site, elements| {
        let given = [&carry[..], &elements, &extra].concat();
        let mut results = inlined(site, &body, &given)?;
        let made = results.split_off(carry.len().min(results.len()));
        carry = results;
        Ok(made)
    })?;
    carry.extend(made.into_iter().map(Arg::Value));
    Ok(Some(Patch::Values(carry)))
}

/// `ys[i] = f(xs[i])`. Source: as for [`scan`].
pub(super) fn map(site: &mut Site<'_>) -> Result<Option<Patch>> {
    map_written_out(site, false)
}

fn map_in_full(site: &mut Site<'_>) -> Result<Option<Patch>> {
    map_written_out(site, true)
}

fn map_written_out(site: &mut Site<'_>, long: bool) -> Result<Option<Patch>> {
    let body = body_of(site, "body_graph")?;
    let extra = listed(site, "additional");
    let made = written_out(site, body.len(), long, |site, elements| inlined(site, &body, &[&elements[..], &extra].concat()))?;
    Ok(Some(Patch::Values(made.into_iter().map(Arg::Value).collect())))
}

/// What is done about a loop that the backend cannot run as one: it is written out, however long.
pub(super) fn last_resort(op: OpId) -> Option<Formula> {
    let written_out: Formula = by_op!(op, {
        "higher_order.scan" => scan_in_full,
        "higher_order.map" | "higher_order.map_impl" => map_in_full,
        _ => return None,
    });
    Some(written_out)
}

/// The body of a loop as a method of its own, so that the backend can be asked about it. Its last inputs are `additional` operands of the
/// loop; those that are weights of the method around are weights here.
pub(super) fn as_method(around: &Method, body: &Graph, additional: &[Arg]) -> Method {
    let weight = |arg: Option<&Arg>| {
        let input = around.inputs.get(around.input_of(arg?.as_value()?)?)?;
        let at = around.inputs.iter().position(|i| i.value == input.value)?;
        let written = around.outputs.contains(&OutputKind::StateMutation(u32::try_from(at).ok()?));
        (input.kind.weight().is_some() && !written).then(|| input.kind.clone())
    };
    let first = body.inputs().len().saturating_sub(additional.len());
    let given = |i: usize| additional.get(i.checked_sub(first)?);
    let inputs = body.inputs().iter().enumerate();
    let inputs = inputs.map(|(i, &v)| Input { value: Some(v), kind: weight(given(i)).unwrap_or(InputKind::User) });
    Method {
        name: around.name.clone(),
        graph: body.clone(),
        inputs: inputs.collect(),
        outputs: vec![OutputKind::User; body.outputs().len()],
        ranges: around.ranges.clone(),
        guards: Vec::new(),
        dialect: around.dialect,
        in_spec: "".into(),
        out_spec: "".into(),
    }
}

/// `ys[i] = f(ys[i - 1], xs[i])`, the first element as it is. A body that goes element by element, as torch asks of it, takes as many
/// rounds as the length has binary digits, each of which combines every element with the one 1, 2, 4 … places before. Source: as for
/// [`scan`]; D. Hillis and G. Steele, "Data parallel algorithms", 1986.
pub(super) fn associative_scan(site: &mut Site<'_>) -> Result<Option<Patch>> {
    let body = body_of(site, "combine_graph")?;
    let (all, extra) = (listed(site, "xs"), listed(site, "additional"));
    let length = rounds(site, &all)?;
    let ranks: Vec<Option<usize>> = all.iter().map(|x| site.tensor(x).map(|t| t.rank())).collect();
    // Elements of one rank line up as well with a dimension in front.
    let alike = ranks.windows(2).all(|pair| pair.first() == pair.last());
    if alike && body.nodes().all(|(_, n)| n.op.is_pointwise()) {
        by_doubling(site, &body, all, &extra, length)
    } else {
        in_order(site, &body, &extra)
    }
}

fn by_doubling(site: &mut Site<'_>, body: &Graph, mut all: Vec<Arg>, extra: &[Arg], length: i64) -> Result<Option<Patch>> {
    let mut reach = 1;
    while reach < length {
        let mut p = Pen(site);
        let mut part = |from: i64, to: i64| all.iter().map(|x| p.slice(x, 0, from.into(), to.into())).collect::<Result<Vec<_>>>();
        let (first, before, here) = (part(0, reach)?, part(0, length - reach)?, part(reach, length)?);
        let combined = inlined(site, body, &[&before[..], &here, extra].concat())?;
        let cat = |(a, b)| site.call(op!("aten.cat.default"), vec![Arg::List(vec![a, b]), Arg::Int(0)]).map(Arg::Value);
        all = first.into_iter().zip(combined).map(cat).collect::<Result<_>>()?;
        reach *= 2;
    }
    Ok(Some(Patch::Values(all)))
}

/// One element after the other, for bodies that look at more than single elements.
fn in_order(site: &mut Site<'_>, body: &Graph, extra: &[Arg]) -> Result<Option<Patch>> {
    let mut last: Option<Vec<Arg>> = None;
    let made = written_out(site, body.len(), true, |site, elements| {
        let now = match &last {
            None => elements,
            Some(last) => inlined(site, body, &[&last[..], &elements, extra].concat())?,
        };
        last = Some(now.clone());
        Ok(now)
    })?;
    Ok(Some(Patch::Values(made.into_iter().map(Arg::Value).collect())))
}
