//! Branches.

use std::collections::HashMap;

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, Type, ValueId};
use etx_ir::sym::Dim;

use super::pen::Pen;
use crate::effects::removable;
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// Both branches, then the one that the condition names; branches that do more than compute stay. Source: torch.cond.
pub(super) fn cond(site: &mut Site<'_>) -> Result {
    let condition = site.nth(0).clone();
    let given = site.nth(3).as_list().map(<[Arg]>::to_vec).unwrap_or_default();
    let (Arg::Graph(yes), Arg::Graph(no)) = (site.nth(1).clone(), site.nth(2).clone()) else { return Ok(None) };
    if site.tensor(&condition).is_none_or(|t| t.dtype != DType::Bool || t.numel() != Dim::Int(1)) {
        return Ok(None);
    }
    let mut sides = Vec::new();
    for body in [yes, no] {
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
