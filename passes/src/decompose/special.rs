//! Branches, and loops of a known number of rounds.

use std::collections::HashMap;

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, Graph, Type, ValueId};
use etx_ir::op;
use etx_ir::sym::{Dim, Expr, Func};

use super::pen::Pen;
use crate::effects::removable;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// What is said of sizes as a tensor of rank 0; `None` where the program cannot compute it.
fn truth(p: &mut Pen<'_, '_>, e: &Expr) -> std::result::Result<Option<Arg>, Error> {
    let Expr::Call(f, parts) = e else { return Ok(None) };
    let op = match f {
        Func::Eq => op!("aten.eq.Tensor"),
        Func::Ne => op!("aten.ne.Tensor"),
        Func::Lt => op!("aten.lt.Tensor"),
        Func::Le => op!("aten.le.Tensor"),
        Func::And => op!("aten.logical_and.default"),
        Func::Or => op!("aten.logical_or.default"),
        Func::Not => op!("aten.logical_not.default"),
        _ => return Ok(None),
    };
    let joins = matches!(f, Func::And | Func::Or | Func::Not);
    let mut all = Vec::new();
    for part in parts.iter() {
        let one = if joins {
            truth(p, part)?
        } else {
            match p.0.size(part) {
                Some(n) => Some(p.call(op!("aten.full.default"), vec![Arg::List(Vec::new()), n, Arg::DType(DType::Int64)])?),
                None => None,
            }
        };
        let Some(one) = one else { return Ok(None) };
        all.push(one);
    }
    // Conjunctions may be of more than two.
    let mut rest = all.into_iter();
    let Some(mut sum) = rest.next() else { return Ok(None) };
    if *f == Func::Not {
        return p.call(op, vec![sum]).map(Some);
    }
    for one in rest {
        sum = p.call(op, vec![sum, one])?;
    }
    Ok(Some(sum))
}

/// The results of a body for these inputs, its calls written out; nothing where they do more than compute.
fn inlined(site: &mut Site<'_>, body: &Graph, given: &[Arg]) -> std::result::Result<Option<Vec<Arg>>, Error> {
    if body.inputs().len() != given.len() || body.nodes().any(|(_, n)| !removable(n)) {
        return Ok(None);
    }
    let mut map: HashMap<ValueId, Arg> = body.inputs().iter().copied().zip(given.iter().cloned()).collect();
    for (_, node) in body.nodes() {
        let mut list = node.args.clone();
        list.iter_mut().for_each(|a| a.rewrite(&mut |v| map.get(&v).cloned().unwrap_or(Arg::None)));
        let results = site.call_all(node.op, list)?;
        map.extend(node.outputs.iter().copied().zip(results.into_iter().map(Arg::Value)));
    }
    let mut results = body.outputs().to_vec();
    results.iter_mut().for_each(|a| a.rewrite(&mut |v| map.get(&v).cloned().unwrap_or(Arg::None)));
    Ok(Some(results))
}

/// Most calls that a loop is written out to.
const MAX_WRITTEN_OUT: usize = 4096;

/// The operands in a list of the call.
fn listed(site: &Site<'_>, name: &str) -> Vec<Arg> {
    site.arg(name).as_list().map(<[Arg]>::to_vec).unwrap_or_default()
}

/// A loop over the first axis of `xs`, round by round: `round` gives the results for the elements of one. What each round gives is
/// stacked. Nothing for a number of rounds that is not known, none at all, or too many for a body of `calls`.
fn written_out(
    site: &mut Site<'_>,
    calls: usize,
    mut round: impl FnMut(&mut Site<'_>, Vec<Arg>) -> std::result::Result<Option<Vec<Arg>>, Error>,
) -> std::result::Result<Option<Vec<ValueId>>, Error> {
    let xs = listed(site, "xs");
    let lengths: Option<Vec<i64>> = xs.iter().map(|x| site.tensor(x)?.shape.first()?.as_int()).collect();
    let rounds = match lengths.as_deref() {
        Some([n, rest @ ..]) if *n > 0 && rest.iter().all(|m| m == n) => *n,
        _ => return Ok(None),
    };
    if usize::try_from(rounds).ok().and_then(|n| n.checked_mul(calls + xs.len())).is_none_or(|n| n > MAX_WRITTEN_OUT) {
        return Ok(None);
    }
    let mut columns: Vec<Vec<Arg>> = Vec::new();
    for i in 0..rounds {
        let elements = xs.iter().map(|x| site.call(op!("aten.select.int"), vec![x.clone(), Arg::Int(0), Arg::Int(i)]).map(Arg::Value));
        let elements = elements.collect::<std::result::Result<_, _>>()?;
        let Some(results) = round(site, elements)? else { return Ok(None) };
        columns.resize(results.len(), Vec::new());
        columns.iter_mut().zip(results).for_each(|(column, value)| column.push(value));
    }
    let stack = columns.into_iter().map(|column| site.call(op!("aten.stack.default"), vec![Arg::List(column), Arg::Int(0)]));
    stack.collect::<std::result::Result<_, _>>().map(Some)
}

/// `ys[i], carry = f(carry, xs[i])`. Source: torch's higher-order operators, documentation of scan.
pub(super) fn scan(site: &mut Site<'_>) -> Result {
    let Arg::Graph(body) = site.arg("combine_graph").clone() else { return Ok(None) };
    let (mut carry, extra) = (listed(site, "init"), listed(site, "additional"));
    let rounds = written_out(site, body.len(), |site, elements| {
        let given = [&carry[..], &elements, &extra].concat();
        let Some(mut results) = inlined(site, &body, &given)? else { return Ok(None) };
        let made = results.split_off(carry.len().min(results.len()));
        carry = results;
        Ok(Some(made))
    })?;
    let Some(made) = rounds else { return Ok(None) };
    carry.extend(made.into_iter().map(Arg::Value));
    Ok(Some(Patch::Values(carry)))
}

/// `ys[i] = f(xs[i])`. Source: as for [`scan`].
pub(super) fn map(site: &mut Site<'_>) -> Result {
    let Arg::Graph(body) = site.arg("body_graph").clone() else { return Ok(None) };
    let extra = listed(site, "additional");
    let rounds = written_out(site, body.len(), |site, elements| inlined(site, &body, &[&elements[..], &extra].concat()))?;
    Ok(rounds.map(|made| Patch::Values(made.into_iter().map(Arg::Value).collect())))
}

/// `ys[i] = f(ys[i - 1], xs[i])`, the first element as it is, by a body that goes element by element, as torch asks of it: in as many
/// rounds as the length has binary digits, each of which combines every element with the one 1, 2, 4 … places before. Source: as for
/// [`scan`]; D. Hillis and G. Steele, "Data parallel algorithms", 1986.
pub(super) fn associative_scan(site: &mut Site<'_>) -> Result {
    let Arg::Graph(body) = site.arg("combine_graph").clone() else { return Ok(None) };
    let (mut all, extra) = (listed(site, "xs"), listed(site, "additional"));
    let shapes: Option<Vec<(usize, i64)>> =
        all.iter().map(|x| site.tensor(x).and_then(|t| Some((t.rank(), t.shape.first()?.as_int()?)))).collect();
    // Elements of one rank line up as well with a dimension in front.
    let length = match shapes.as_deref() {
        Some([first, rest @ ..]) if rest.iter().all(|other| other == first) => first.1,
        _ => return Ok(None),
    };
    if !body.nodes().all(|(_, n)| n.op.is_pointwise()) {
        return Ok(None);
    }
    let mut reach = 1;
    while reach < length {
        let mut p = Pen(site);
        let mut part =
            |from: i64, to: i64| all.iter().map(|x| p.slice(x, 0, from.into(), to.into())).collect::<std::result::Result<Vec<_>, Error>>();
        let (first, before, here) = (part(0, reach)?, part(0, length - reach)?, part(reach, length)?);
        let Some(combined) = inlined(site, &body, &[before, here, extra.clone()].concat())? else { return Ok(None) };
        let cat = |(a, b)| site.call(op!("aten.cat.default"), vec![Arg::List(vec![a, b]), Arg::Int(0)]).map(Arg::Value);
        all = first.into_iter().zip(combined).map(cat).collect::<std::result::Result<_, _>>()?;
        reach *= 2;
    }
    Ok(Some(Patch::Values(all)))
}

/// The tensor that a condition was taken out of.
fn taken_from(site: &Site<'_>, condition: &Arg) -> Option<Arg> {
    let item =
        site.made_by(condition, op!("aten.item.default")).or_else(|| site.made_by(condition, op!("aten._local_scalar_dense.default")))?;
    item.args.first().filter(|x| site.tensor(x).is_some_and(|t| t.dtype == DType::Bool)).cloned()
}

/// Both branches, then the one that the condition names; branches that do more than compute stay. Source: torch.cond.
pub(super) fn cond(site: &mut Site<'_>) -> Result {
    let condition = site.nth(0).clone();
    let given = site.nth(3).as_list().map(<[Arg]>::to_vec).unwrap_or_default();
    let (Arg::Graph(yes), Arg::Graph(no)) = (site.nth(1).clone(), site.nth(2).clone()) else { return Ok(None) };
    let condition = taken_from(site, &condition).unwrap_or(condition);
    let condition = match condition.as_value().map(|v| site.graph().ty(v).clone()) {
        Some(Type::Bool(e)) => match truth(&mut Pen(site), &e)? {
            Some(condition) => condition,
            None => return Ok(None),
        },
        Some(Type::Tensor(t)) if t.dtype == DType::Bool && t.numel() == Dim::Int(1) => condition,
        _ => return Ok(None),
    };
    let mut sides = Vec::new();
    for body in [yes, no] {
        let Some(results) = inlined(site, &body, &given)? else { return Ok(None) };
        sides.push(results);
    }
    let [yes, no] = sides.as_slice() else { return Ok(None) };
    let wanted: Vec<Type> = site.node().outputs.iter().map(|&v| site.graph().ty(v).clone()).collect();
    if yes.len() != wanted.len() || no.len() != wanted.len() {
        return Ok(None);
    }
    let mut p = Pen(site);
    // A condition of shape [1] would add an axis to a scalar.
    let Some(condition) = p.view(&condition, &[])? else { return Ok(None) };
    let mut results = Vec::new();
    for ((a, b), ty) in yes.iter().zip(no).zip(&wanted) {
        let (Type::Tensor(t), Arg::Value(_), Arg::Value(_)) = (ty, a, b) else { return Ok(None) };
        if p.ty(a)?.dtype != t.dtype || p.ty(b)?.dtype != t.dtype {
            return Ok(None);
        }
        results.push(p.select(&condition, a, b)?);
    }
    Ok(Some(Patch::Values(results)))
}
