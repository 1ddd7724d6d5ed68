//! Higher-order operators: bodies, and operators as arguments.

use std::sync::Arc;

use super::call::{Argument, Call, Results};
use super::joins::stack_of;
use super::tensor::Tensor;
use super::{Error, Value, bad};
use crate::DType;
use crate::graph::{Arg, Graph};

/// Most rounds of a loop, so that a damaged program ends.
const MOST_ROUNDS: usize = 1 << 20;

/// What a round counts as, in elements.
const ROUND: usize = 64;

fn values(args: &[Argument]) -> Result<Vec<Value>, Error> {
    let value = |a: &Argument| match a {
        Argument::Value(v) => Ok(v.clone()),
        _ => Err(bad("an operand that is no value")),
    };
    args.iter().map(value).collect()
}

/// The list of operands of this name.
fn operands(c: &Call, name: &str) -> Result<Vec<Value>, Error> {
    match c.arg(name) {
        Some(Argument::List(items)) => values(items),
        Some(Argument::Value(Value::None)) | None => Ok(Vec::new()),
        Some(other) => values(std::slice::from_ref(other)),
    }
}

/// What a variadic operator got beyond its schema, by position.
fn beyond(c: &Call) -> Result<Vec<Value>, Error> {
    let rest = c.args.get(c.schema.args.len()..).unwrap_or(&[]);
    values(&rest.iter().filter(|a| !matches!(a, Argument::Dict(_))).cloned().collect::<Vec<_>>())
}

fn truth(value: Option<&Value>) -> Result<bool, Error> {
    match value {
        Some(Value::Bool(b)) => Ok(*b),
        Some(Value::Int(n)) => Ok(*n != 0),
        Some(Value::Tensor(t)) => t.item(),
        _ => Err(bad("a condition that is neither a boolean nor a tensor")),
    }
}

pub(super) fn cond(c: &Call) -> Results {
    let yes = match c.arg("pred") {
        Some(Argument::Value(v)) => truth(Some(v))?,
        _ => return Err(bad("no condition")),
    };
    let branch = c.graph(if yes { "true_graph" } else { "false_graph" })?;
    c.session.run(branch, operands(c, "operands")?)
}

pub(super) fn while_loop(c: &Call) -> Results {
    let (condition, body) = (c.graph("cond_graph")?, c.graph("body_graph")?);
    let (mut carried, extra) = (operands(c, "carried")?, operands(c, "additional")?);
    let with = |carried: &[Value]| [carried, &extra].concat();
    for _ in 0..MOST_ROUNDS {
        crate::budget::spend(ROUND)?;
        if !truth(c.session.run(condition, with(&carried))?.first())? {
            return Ok(carried);
        }
        carried = c.session.run(body, with(&carried))?;
    }
    Err(bad(format!("a loop of more than {MOST_ROUNDS} rounds")))
}

fn tensors(of: Vec<Value>) -> Result<Vec<Tensor>, Error> {
    let tensor = |v| match v {
        Value::Tensor(t) => Ok(t),
        _ => Err(bad("a sequence that is no tensor")),
    };
    of.into_iter().map(tensor).collect()
}

/// The common length of sequences along their first dimension.
fn length(xs: &[Tensor]) -> Result<usize, Error> {
    match xs.iter().map(|x| x.shape().first().copied()).collect::<Option<Vec<_>>>().as_deref() {
        Some([n, rest @ ..]) if rest.iter().all(|m| m == n) => Ok(*n),
        _ => Err(bad("sequences of different lengths")),
    }
}

fn at(xs: &[Tensor], i: usize) -> Result<Vec<Value>, Error> {
    xs.iter().map(|x| x.select(0, i).map(Value::Tensor)).collect()
}

/// What a result of a body is, stacked over no rounds.
fn no_rounds(body: &Graph, result: &Arg) -> Result<Tensor, Error> {
    let t = result.as_value().and_then(|v| body.tensor(v)).ok_or_else(|| bad("a result that is no tensor"))?;
    let size = |d: &crate::sym::Dim| d.as_int().and_then(|n| usize::try_from(n).ok());
    let sizes: Option<Vec<usize>> = t.shape.iter().map(size).collect();
    let sizes = sizes.ok_or_else(|| bad("no rounds, of results whose sizes only a round tells"))?;
    Tensor::new(t.dtype, &[&[0], &sizes[..]].concat(), Vec::new())
}

/// The results of all rounds, each stacked along a new first dimension; without rounds, nothing of the types that the body says.
fn stacked(body: &Graph, skip: usize, rounds: Vec<Vec<Value>>) -> Results {
    let Some(n) = rounds.first().map(Vec::len) else {
        let results = body.outputs().iter().skip(skip);
        return results.map(|a| no_rounds(body, a).map(Value::Tensor)).collect();
    };
    let mut columns: Vec<Vec<Value>> = vec![Vec::new(); n];
    for round in rounds {
        for (column, value) in columns.iter_mut().zip(round) {
            column.push(value);
        }
    }
    columns.into_iter().map(|column| stack_of(&tensors(column)?, 0).map(Value::Tensor)).collect()
}

pub(super) fn scan(c: &Call) -> Results {
    let body = c.graph("combine_graph")?;
    let (mut carried, xs, extra) = (operands(c, "init")?, tensors(operands(c, "xs")?)?, operands(c, "additional")?);
    let mut rounds = Vec::new();
    for i in 0..length(&xs)? {
        let mut results = c.session.run(body, [&carried[..], &at(&xs, i)?, &extra].concat())?;
        let rest = results.split_off(carried.len().min(results.len()));
        carried = results;
        // A carry may be handed on as it is: what is kept must not change with it.
        rounds.push(rest.into_iter().map(|v| v.copied()).collect::<Result<Vec<_>, _>>()?);
    }
    carried.extend(stacked(body, carried.len(), rounds)?);
    Ok(carried)
}

pub(super) fn map(c: &Call) -> Results {
    let body = c.graph("body_graph")?;
    let (xs, extra) = (tensors(operands(c, "xs")?)?, operands(c, "additional")?);
    let rounds = (0..length(&xs)?).map(|i| c.session.run(body, [at(&xs, i)?, extra.clone()].concat())).collect::<Result<_, _>>()?;
    stacked(body, 0, rounds)
}

/// The running combination of all elements so far, in order.
pub(super) fn associative_scan(c: &Call) -> Results {
    let body = c.graph("combine_graph")?;
    let (xs, extra) = (tensors(operands(c, "xs")?)?, operands(c, "additional")?);
    let mut rounds: Vec<Vec<Value>> = Vec::new();
    for i in 0..length(&xs)? {
        let here = at(&xs, i)?;
        rounds.push(match rounds.last() {
            None => here,
            Some(before) => c.session.run(body, [&before[..], &here, &extra].concat())?,
        });
    }
    stacked(body, 0, rounds)
}

/// A body that is run as it is.
pub(super) fn wrapped(c: &Call, body: &str, args: &str) -> Results {
    c.session.run(c.graph(body)?, if args.is_empty() { beyond(c)? } else { operands(c, args)? })
}

/// A body whose products are computed in another type: on the processor, by [`LOWERED`] and [`WIDENED`].
pub(super) fn autocast(c: &Call) -> Results {
    let body = c.graph("body_graph")?;
    let d = c.dtype("dtype").unwrap_or(DType::BFloat16);
    let before = c.session.autocast.replace(c.flag("enabled").then_some(d));
    let results = c.session.run(body, beyond(c)?);
    c.session.autocast.set(before);
    results
}

/// Operators that autocast on the processor runs in its type.
const LOWERED: &[&str] = &[
    "addbmm",
    "addmm",
    "baddbmm",
    "bmm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "einsum",
    "linalg_multi_dot",
    "linalg_vecdot",
    "linear",
    "matmul",
    "mm",
    "prelu",
    "scaled_dot_product_attention",
];

/// Operators that autocast on the processor runs in `f32`.
const WIDENED: &[&str] = &[
    "adaptive_avg_pool3d",
    "adaptive_max_pool3d",
    "avg_pool3d",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cdist",
    "cosine_embedding_loss",
    "cross_entropy_loss",
    "grid_sampler",
    "grid_sampler_2d",
    "grid_sampler_3d",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "margin_ranking_loss",
    "max_pool3d",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "nanquantile",
    "nll_loss",
    "nll_loss2d",
    "nll_loss_nd",
    "poisson_nll_loss",
    "prod",
    "quantile",
    "reflection_pad1d",
    "reflection_pad2d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "smooth_l1_loss",
    "soft_margin_loss",
    "stft",
    "trace",
    "triplet_margin_loss",
];

/// Applies autocast to the arguments of a call.
pub(super) fn autocasted<'g>(schema_name: &str, args: Vec<Argument<'g>>, to: DType) -> Result<Vec<Argument<'g>>, Error> {
    let d = if LOWERED.contains(&schema_name) {
        to
    } else if WIDENED.contains(&schema_name) {
        DType::Float32
    } else {
        return Ok(args);
    };
    fn cast<'g>(arg: Argument<'g>, d: DType) -> Result<Argument<'g>, Error> {
        Ok(match arg {
            Argument::Value(Value::Tensor(t)) if t.dtype().is_float() && t.dtype() != DType::Float64 => {
                Argument::Value(Value::Tensor(t.cast(d)?))
            }
            Argument::List(items) => Argument::List(items.into_iter().map(|a| cast(a, d)).collect::<Result<_, _>>()?),
            other => other,
        })
    }
    args.into_iter().map(|a| cast(a, d)).collect()
}

/// The named arguments of a variadic operator.
fn named<'c, 'g>(c: &'c Call<'_, 'g>) -> Result<&'c [(Arc<str>, Argument<'g>)], Error> {
    match c.args.last() {
        Some(Argument::Dict(named)) => Ok(named),
        _ => Err(bad("no named arguments")),
    }
}

/// An operator with its mutations as results: what it returns, then the new value of every tensor it may write to.
pub(super) fn auto_functionalized(c: &Call) -> Results {
    let Some(Argument::Op(op)) = c.arg("op") else { return Err(bad("no operator")) };
    let named = named(c)?;
    let get = |name: &str| named.iter().find(|(key, _)| &**key == name).map(|(_, a)| a);
    let copies = |a: Option<&Argument>| -> Result<Vec<Tensor>, Error> {
        a.and_then(Argument::as_list)
            .unwrap_or(&[])
            .iter()
            .map(|a| a.as_tensor().ok_or_else(|| bad("a base that is no tensor"))?.copy())
            .collect()
    };
    let bases = copies(get("_all_bases"))?;
    // A view of a base, as the arguments with this prefix describe it.
    let view = |prefix: &str| -> Result<Option<Value>, Error> {
        let number = |suffix: &str| get(&format!("{prefix}_{suffix}")).and_then(Argument::as_int);
        let Some(index) = number("base_index") else { return Ok(None) };
        let base = usize::try_from(index).ok().and_then(|i| bases.get(i)).ok_or_else(|| bad(format!("base {index}")))?;
        if let Some(dim) = number("slice_dim") {
            let axis = super::call::wrap(dim, base.rank())?;
            let (start, end) = (number("slice_start").unwrap_or(0), number("slice_end").unwrap_or(i64::MAX));
            let (start, end) = (super::views::clamped(start, base.size(axis)), super::views::clamped(end, base.size(axis)));
            return Ok(Some(Value::Tensor(base.slice(axis, start, end.saturating_sub(start), 1)?)));
        }
        let list = |suffix: &str| {
            let items = get(&format!("{prefix}_{suffix}")).and_then(Argument::as_list)?;
            items.iter().map(|a| a.as_int().and_then(|n| usize::try_from(n).ok())).collect::<Option<Vec<_>>>()
        };
        Ok(Some(Value::Tensor(match (list("size"), list("stride"), number("storage_offset")) {
            (Some(size), Some(stride), offset) => base.view(size, stride, offset.and_then(|n| usize::try_from(n).ok()).unwrap_or(0))?,
            _ => base.clone(),
        })))
    };
    let mut args = Vec::new();
    for spec in &op.schema().args {
        let prefix = format!("_{}", spec.name);
        args.push(match (view(&prefix)?, get(&spec.name)) {
            (Some(v), _) => Argument::Value(v),
            (None, Some(a)) => a.clone(),
            (None, None) => match get(&format!("{prefix}_length")).and_then(Argument::as_int) {
                Some(n) => Argument::List(
                    (0..n)
                        .map(|i| Ok(Argument::Value(view(&format!("{prefix}_{i}"))?.unwrap_or(Value::None))))
                        .collect::<Result<_, Error>>()?,
                ),
                None => spec.default.as_ref().map_or(Argument::Value(Value::None), Argument::from),
            },
        });
    }
    let mut results = c.session.call(*op, args)?;
    results.extend(bases.into_iter().map(Value::Tensor));
    Ok(results)
}

/// The first form of it: arguments by their names, the written ones too.
pub(super) fn auto_functionalized_by_name(c: &Call) -> Results {
    let Some(Argument::Op(op)) = c.arg("op") else { return Err(bad("no operator")) };
    let named = named(c)?;
    let mut written = Vec::new();
    let mut args = Vec::new();
    for spec in &op.schema().args {
        let given = named.iter().find(|(key, _)| **key == *spec.name).map(|(_, a)| a.clone());
        let mut arg = given.unwrap_or_else(|| spec.default.as_ref().map_or(Argument::Value(Value::None), Argument::from));
        if spec.mutated {
            if let Argument::Value(v) = &arg {
                arg = Argument::Value(v.copied()?);
            }
            if let Argument::Value(v) = &arg {
                written.push(v.clone());
            }
        }
        args.push(arg);
    }
    let mut results = c.session.call(*op, args)?;
    results.extend(written);
    Ok(results)
}

/// An operator behind a token, which orders effects.
pub(super) fn with_effects(c: &Call) -> Results {
    let (Some(Argument::Value(token)), Some(Argument::Op(op))) = (c.arg("token"), c.arg("op")) else { return Err(bad("no operator")) };
    let rest = c.args.get(2..).unwrap_or(&[]).iter().filter(|a| !matches!(a, Argument::Dict(d) if d.is_empty())).cloned().collect();
    let mut results = vec![token.clone()];
    results.extend(c.session.call(*op, rest)?);
    Ok(results)
}
