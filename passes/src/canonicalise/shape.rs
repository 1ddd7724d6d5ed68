//! Calls that move data, or none.

use etx_ir::graph::{Arg, TensorType, Type};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::{Dim, Expr};

use crate::calls::{CAST, args, as_ints, cast, ints, wrap};
use crate::functionalise::permutation;
use crate::functionalise::reads_memory;
use crate::rewrite::{Patch, Site};

const VIEW: OpId = op!("aten.view.default");

/// The end of a slice that goes to the end.
const END: i64 = i64::MAX;

/// The operand, where its type is that of the result.
pub(super) fn identity(site: &mut Site<'_>) -> Option<Patch> {
    let x = site.value(0)?;
    site.graph().tensor(x)?.same_as(site.result()?).then(|| Patch::value(x))
}

/// As [`identity`], but for a view that is copied because somebody reads the memory behind it.
pub(super) fn cloned(site: &mut Site<'_>) -> Option<Patch> {
    let (graph, v) = (site.graph(), site.node().outputs.first()?);
    let is_read = graph.value(*v).users().iter().any(|&n| reads_memory(graph.node(n).op));
    let is_view = site.value(0).and_then(|x| graph.producer(x)).is_some_and(|n| graph.node(n).op.is_view());
    if is_read && is_view { None } else { identity(site) }
}

/// As [`identity`], of tensors that are not complex.
pub(super) fn identity_of_real(site: &mut Site<'_>) -> Option<Patch> {
    if site.operand(0)?.dtype.is_complex() { None } else { identity(site) }
}

/// The scalar, as it is.
pub(super) fn scalar_itself(site: &mut Site<'_>) -> Option<Patch> {
    Some(Patch::value(site.nth(0).clone()))
}

/// Dropout that drops nothing: not in training, or with probability 0.
pub(super) fn dropout(site: &mut Site<'_>) -> Option<Patch> {
    let off = site.arg("train").as_bool() == Some(false) || site.arg("p").as_float() == Some(0.0);
    let x = site.value(0)?;
    if !off || !site.graph().tensor(x)?.same_as(site.result()?) {
        return None;
    }
    let mut values = vec![Arg::Value(x)];
    // The mask of what stays: all of it.
    if let Some(mask) = site.node().outputs.get(1).copied() {
        let ty = site.graph().ty(mask).clone();
        let used = site.graph().value(mask).use_count() > 0;
        values.push(match ty.as_tensor() {
            Some(t) if used => {
                let like = op!("aten.full_like.default");
                let list = args(like, [Arg::Value(x), Arg::Bool(true)], &[("dtype", Arg::DType(t.dtype))]);
                site.call_as(like, list, ty)
            }
            _ => Arg::None,
        });
    }
    Some(Patch::Values(values))
}

/// A reshape, with the sizes of its result.
pub(super) fn view(site: &mut Site<'_>) -> Option<Patch> {
    let shape = site.result()?.shape.clone();
    let x = site.nth(0).clone();
    if is_op!(site.op(), "aten.view.default" | "aten.view_copy.default" | "aten.reshape.default" | "aten._unsafe_view.default") {
        // The arguments tell what the type does not: which integer a size is.
        let given = site.nth(1).as_list()?.to_vec();
        let symbolic = shape.iter().filter(|d| d.as_int().is_none()).count();
        if symbolic > 1 || shape.contains(&Dim::Int(0)) {
            let merged = given.into_iter().zip(&shape).map(|(a, d)| d.as_int().map_or(a, Arg::Int)).collect();
            return Some(Patch::Call(VIEW, vec![x, Arg::List(merged)]));
        }
    }
    let shape = site.view_shape(&shape)?;
    Some(Patch::Call(VIEW, vec![x, shape]))
}

/// A permutation of axes, in full.
pub(super) fn permute(site: &mut Site<'_>) -> Option<Patch> {
    let t = site.operand(0)?;
    let rank = t.rank();
    let p = by_op!(site.op(), {
        // Conjugation of real numbers changes nothing.
        "aten.mH.default" | "aten.matrix_H.default" | "aten.adjoint.default" if !t.dtype.is_complex() && rank >= 2 => {
            let mut p: Vec<usize> = (0..rank).collect();
            p.swap(rank - 2, rank - 1);
            p
        },
        _ => permutation(site.node(), rank)?,
    });
    Some(Patch::Call(op!("aten.permute.default"), vec![site.nth(0).clone(), ints(p.into_iter().map(|d| d as i64))]))
}

/// A broadcast: literal sizes, -1 where a symbolic size stays.
pub(super) fn expand(site: &mut Site<'_>) -> Option<Patch> {
    let (from, to) = (site.operand(0)?.shape.clone(), site.result()?.shape.clone());
    let skip = to.len().checked_sub(from.len())?;
    let given = site.nth(1).as_list().map(<[Arg]>::to_vec);
    let mut sizes = Vec::with_capacity(to.len());
    for (i, d) in to.iter().enumerate() {
        let kept = i.checked_sub(skip).and_then(|i| from.get(i)) == Some(d);
        sizes.push(match (d.as_int(), kept) {
            (Some(n), _) => Arg::Int(n),
            (None, true) => Arg::Int(-1),
            (None, false) => match given.as_ref().and_then(|g| g.get(i)).filter(|a| a.as_value().is_some()) {
                Some(a) => a.clone(),
                None => site.size(d)?,
            },
        });
    }
    Some(Patch::Call(op!("aten.expand.default"), vec![site.nth(0).clone(), Arg::List(sizes), Arg::Bool(false)]))
}

/// The dimensions of size 1 that go, listed.
pub(super) fn squeeze(site: &mut Site<'_>) -> Option<Patch> {
    let (from, to) = (site.operand(0)?.clone(), site.result()?.clone());
    let x = site.nth(0).clone();
    if from.same_as(&to) {
        return Some(Patch::Values(vec![x]));
    }
    let named: Vec<usize> = match site.nth(1) {
        Arg::None => (0..from.rank()).collect(),
        dims => as_ints(dims)?.into_iter().map(|d| wrap(d, from.rank())).collect::<Option<_>>()?,
    };
    let one = |d: usize| from.shape.get(d) == Some(&Dim::Int(1));
    let mut gone: Vec<usize> = named.into_iter().filter(|&d| one(d)).collect();
    gone.sort_unstable();
    (from.rank() - gone.len() == to.rank())
        .then(|| Patch::Call(op!("aten.squeeze.dims"), vec![x, ints(gone.into_iter().map(|d| d as i64))]))
}

pub(super) fn unsqueeze(site: &mut Site<'_>) -> Option<Patch> {
    let dim = wrap(site.nth(1).as_int()?, site.result()?.rank())?;
    Some(Patch::Call(op!("aten.unsqueeze.default"), vec![site.nth(0).clone(), Arg::Int(dim as i64)]))
}

/// The expression an integer argument stands for.
fn expr(site: &Site<'_>, arg: &Arg) -> Option<Expr> {
    match arg {
        Arg::Value(v) => match site.graph().ty(*v) {
            Type::Int(e) => Some(e.clone()),
            _ => None,
        },
        other => other.as_int().map(Expr::Int),
    }
}

/// A slice: bounds within a dimension whose size is known, the largest integer for the end of one that is not.
pub(super) fn slice(site: &mut Site<'_>) -> Option<Patch> {
    let from = site.operand(0)?.clone();
    let dim = wrap(site.arg("dim").as_int()?, from.rank())?;
    let size = from.shape.get(dim)?.as_int();
    let bound = |a: &Arg| match (a.as_int(), size) {
        (Some(k), Some(n)) => Arg::Int(if k < 0 { (k + n).max(0) } else { k.min(n) }),
        _ => a.clone(),
    };
    let (start, end, step) = by_op!(site.op(), {
        "aten.narrow.default" | "aten.narrow_copy.default" => {
            let (start, length) = (site.arg("start").clone(), site.arg("length").clone());
            let start = match (start.as_int(), from.shape.get(dim)) {
                (Some(k), Some(n)) if k < 0 => site.size(&n.plus(&Expr::Int(k)))?,
                _ => start,
            };
            let end = expr(site, &start)?.plus(&expr(site, &length)?);
            (start, site.size(&end)?, Arg::Int(1))
        },
        _ => {
            let or = |a: &Arg, n: i64| if *a == Arg::None { Arg::Int(n) } else { a.clone() };
            (or(site.arg("start"), 0), or(site.arg("end"), END), site.arg("step").clone())
        }
    });
    let end = match (bound(&end), size) {
        (Arg::Int(k), None) if k >= END / 2 => Arg::Int(END),
        (end, _) => end,
    };
    let list = vec![site.nth(0).clone(), Arg::Int(dim as i64), bound(&start), end, step];
    Some(Patch::Call(op!("aten.slice.Tensor"), list))
}

pub(super) fn select(site: &mut Site<'_>) -> Option<Patch> {
    let from = site.operand(0)?;
    let dim = wrap(site.nth(1).as_int()?, from.rank())?;
    let index = match (site.nth(2), from.shape.get(dim)?) {
        (Arg::Int(k), Dim::Int(n)) if *k < 0 => Arg::Int(k + n),
        (a, _) => a.clone(),
    };
    Some(Patch::Call(op!("aten.select.int"), vec![site.nth(0).clone(), Arg::Int(dim as i64), index]))
}

/// One selection for each part that is used.
pub(super) fn unbind(site: &mut Site<'_>) -> Option<Patch> {
    let dim = wrap(site.nth(1).as_int()?, site.operand(0)?.rank())?;
    let x = site.nth(0).clone();
    let parts = site.node().outputs.clone();
    let mut values = Vec::with_capacity(parts.len());
    for (i, v) in parts.into_iter().enumerate() {
        let ty = site.graph().ty(v).clone();
        let used = site.graph().value(v).use_count() > 0;
        values.push(if used {
            site.call_as(op!("aten.select.int"), vec![x.clone(), Arg::Int(dim as i64), Arg::Int(i as i64)], ty)
        } else {
            Arg::None
        });
    }
    Some(Patch::Values(values))
}

/// A split into parts of listed sizes.
pub(super) fn split(site: &mut Site<'_>) -> Option<Patch> {
    let rank = site.operand(0)?.rank();
    let dim = by_op!(site.op(), {
        "aten.hsplit.int" | "aten.hsplit.array" => usize::from(rank > 1),
        "aten.vsplit.int" | "aten.vsplit.array" => 0,
        "aten.dsplit.int" | "aten.dsplit.array" => 2,
        _ => wrap(site.arg("dim").as_int()?, rank)?,
    });
    let size = |t: &TensorType| t.shape.get(dim).cloned();
    let sizes: Vec<Dim> = site.node().outputs.iter().map(|&v| size(site.graph().tensor(v)?)).collect::<Option<_>>()?;
    let given = by_op!(site.op(), {
        "aten.split_with_sizes.default" | "aten.split_with_sizes_copy.default" | "aten.split.sizes" => site.nth(1).as_list(),
        _ => None,
    });
    let list = match given.map(<[Arg]>::to_vec) {
        Some(given) => Arg::List(given.into_iter().zip(&sizes).map(|(a, d)| d.as_int().map_or(a, Arg::Int)).collect()),
        None => site.sizes(&sizes)?,
    };
    Some(Patch::Call(op!("aten.split_with_sizes.default"), vec![site.nth(0).clone(), list, Arg::Int(dim as i64)]))
}

/// Repetitions, one for each dimension of the result.
pub(super) fn tile(site: &mut Site<'_>) -> Option<Patch> {
    let mut repeats = site.nth(1).as_list()?.to_vec();
    let rank = site.operand(0)?.rank();
    while repeats.len() < rank {
        repeats.insert(0, Arg::Int(1));
    }
    Some(Patch::Call(op!("aten.repeat.default"), vec![site.nth(0).clone(), Arg::List(repeats)]))
}

/// Along a dimension; torch flattens where none is given.
pub(super) fn repeat_interleave(site: &mut Site<'_>) -> Option<Patch> {
    let op = site.op();
    let (x, n) = (site.nth(0).clone(), site.nth(1).clone());
    let t = site.operand(0)?.clone();
    let (x, dim) = match site.nth(2) {
        Arg::None if t.rank() == 1 => (x, 0),
        Arg::None => {
            let flat = Type::Tensor(TensorType::new(t.dtype, vec![t.numel()]));
            (site.call_as(VIEW, vec![x, ints([-1])], flat), 0)
        }
        dim => (x, wrap(dim.as_int()?, t.rank())?),
    };
    Some(Patch::Call(op, vec![x, n, Arg::Int(dim as i64), Arg::None]))
}

/// Parts that have elements, in one element type.
///
/// torch lets tensors of shape `[0]` stand in any concatenation; they are left out.
pub(super) fn cat(site: &mut Site<'_>) -> Option<Patch> {
    let to = site.result()?.clone();
    let dim = wrap(site.nth(1).as_int()?, to.rank())?;
    let parts = site.nth(0).as_list()?.to_vec();
    let mut list = Vec::with_capacity(parts.len());
    for part in &parts {
        let t = site.tensor(part)?.clone();
        if t.rank() == 1 && to.rank() != 1 && t.shape.contains(&Dim::Int(0)) {
            continue;
        }
        list.push(if t.dtype == to.dtype {
            part.clone()
        } else {
            site.call_as(CAST, cast(part.clone(), to.dtype), Type::Tensor(TensorType::new(to.dtype, t.shape)))
        });
    }
    (!list.is_empty()).then(|| Patch::Call(op!("aten.cat.default"), vec![Arg::List(list), Arg::Int(dim as i64)]))
}

/// `hstack`, `vstack`, `dstack` and `column_stack`: concatenation after giving the parts enough dimensions.
pub(super) fn stacked(site: &mut Site<'_>) -> Option<Patch> {
    let op = site.op();
    let parts = site.nth(0).as_list()?.to_vec();
    let to = site.result()?.clone();
    let mut list = Vec::with_capacity(parts.len());
    for part in parts {
        let t = site.tensor(&part)?.clone();
        let one = Dim::Int(1);
        let shape: Vec<Dim> = match (op.schema().name.as_str(), t.shape.as_slice()) {
            ("hstack", []) => vec![one],
            ("hstack", s) => s.to_vec(),
            ("column_stack", [n]) => vec![n.clone(), one],
            ("dstack", []) => vec![one.clone(), one.clone(), one],
            ("dstack", [n]) => vec![one.clone(), n.clone(), one],
            ("dstack", [n, m]) => vec![n.clone(), m.clone(), one],
            (_, []) => vec![one.clone(), one],
            (_, [n]) => vec![one, n.clone()],
            (_, s) => s.to_vec(),
        };
        list.push(if shape == t.shape {
            part
        } else {
            let arg = site.view_shape(&shape)?;
            site.call_as(VIEW, vec![part, arg], Type::Tensor(TensorType::new(t.dtype, shape)))
        });
    }
    let dim = by_op!(op, {
        "aten.hstack.default" => i64::from(to.rank() > 1),
        "aten.column_stack.default" => 1,
        "aten.dstack.default" => 2,
        _ => 0,
    });
    Some(Patch::Call(op!("aten.cat.default"), vec![Arg::List(list), Arg::Int(dim)]))
}

/// Padding by its mode's operator.
pub(super) fn pad(site: &mut Site<'_>) -> Option<Patch> {
    let (x, sizes) = (site.nth(0).clone(), site.nth(1).clone());
    let n = sizes.as_list()?.len();
    let Arg::Str(mode) = site.nth(2).clone() else { return None };
    let op = match (&*mode, n) {
        ("constant", _) => {
            let value = match site.nth(3) {
                Arg::None => Arg::Int(0),
                v => v.clone(),
            };
            return Some(Patch::Call(op!("aten.constant_pad_nd.default"), vec![x, sizes, value]));
        }
        ("reflect", 2) => op!("aten.reflection_pad1d.default"),
        ("reflect", 4) => op!("aten.reflection_pad2d.default"),
        ("reflect", 6) => op!("aten.reflection_pad3d.default"),
        ("replicate", 2) => op!("aten.replication_pad1d.default"),
        ("replicate", 4) => op!("aten.replication_pad2d.default"),
        ("replicate", 6) => op!("aten.replication_pad3d.default"),
        ("circular", _) => op!("aten._pad_circular.default"),
        _ => return None,
    };
    Some(Patch::Call(op, vec![x, sizes]))
}

/// Dimension arguments counted from 0, in a call that is canonical otherwise.
pub(super) fn dims(site: &mut Site<'_>) -> Option<Patch> {
    let schema = site.op().schema();
    let first = match site.nth(0) {
        Arg::List(items) => items.first()?,
        other => other,
    };
    let rank = site.tensor(first)?.rank() + usize::from(site.op() == op!("aten.stack.default"));
    let mut list = site.node().args.clone();
    for (spec, arg) in schema.args.iter().zip(&mut list) {
        if spec.name != "dim" && spec.name != "dims" {
            continue;
        }
        match arg {
            Arg::Int(d) => *d = wrap(*d, rank)? as i64,
            Arg::List(items) => {
                for item in items {
                    if let Arg::Int(d) = item {
                        *d = wrap(*d, rank)? as i64;
                    }
                }
            }
            _ => {}
        }
    }
    Some(Patch::Call(site.op(), list))
}

/// Sorts that need not be stable.
pub(super) fn sort(site: &mut Site<'_>) -> Option<Patch> {
    if site.arg("stable").as_bool() == Some(true) {
        return dims(site);
    }
    let to = if site.op() == op!("aten.sort.stable") { op!("aten.sort.default") } else { op!("aten.argsort.default") };
    let list = args(to, [site.nth(0).clone(), site.arg("dim").clone(), site.arg("descending").clone()], &[]);
    Some(Patch::Call(to, list))
}
