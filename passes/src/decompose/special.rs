//! Branches.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::{Arg, Type};
use etx_ir::op;
use etx_ir::sym::{Dim, Expr, Func};

use super::loops::inlined;
use super::pen::Pen;
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
        let results = inlined(site, &body, &given)?;
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
