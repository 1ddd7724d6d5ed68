//! The calls that random programs are made of: one entry a family.
//!
//! A step picks operands out of what is there, appends its calls, and says whether the result is exact if the operands are: whether
//! there is only one answer to the last bit. Inexact values are never compared, sorted, rounded or made integers, since a
//! difference in the last place would become one of 1.

use etx::ir::DType;
use etx::ir::args;
use etx::ir::graph::{Arg, TensorType, ValueId};
use etx::ir::sym::Expr;

use crate::make::{Known, Maker};

/// Tries to append calls; gives the new values and whether they are exact.
pub(crate) type Step = fn(&mut Maker) -> Option<(Vec<ValueId>, bool)>;

/// All of them, the more frequent ones several times.
pub(crate) const STEPS: &[Step] = &[
    function,
    function,
    rounding,
    arithmetic,
    arithmetic,
    arithmetic,
    division,
    comparison,
    logic,
    bits,
    choice,
    clamp,
    reduction,
    reduction,
    extreme,
    truth,
    spread,
    softmax,
    cumulative,
    rearrange,
    rearrange,
    reshape,
    reshape,
    expand,
    slice,
    slice,
    join,
    pieces,
    repeat,
    move_positions,
    triangle,
    pad,
    product,
    product,
    linear,
    convolution,
    pool,
    normalise,
    gather,
    index,
    scatter,
    order,
    cast,
    cast,
    create,
    write_in_place,
    attention,
    activation,
];

fn float(t: &TensorType) -> bool {
    t.dtype.is_float()
}

fn number(t: &TensorType) -> bool {
    t.dtype != DType::Bool
}

fn any(_: &TensorType) -> bool {
    true
}

/// A value that fits; a new input where there is none.
fn operand(m: &mut Maker, fit: fn(&TensorType) -> bool, dtype: DType) -> Known {
    match m.pick(|t, _| fit(t)) {
        Some(k) => k,
        None => {
            let shape = m.shape(3);
            Known { id: m.input(dtype, shape, None), exact: true }
        }
    }
}

/// A partner that broadcasts with a tensor: another of the pool, or a new input whose trailing sizes agree or are 1.
fn partner(m: &mut Maker, of: ValueId, dtype: DType) -> Known {
    let shape = m.ty(of).shape.clone();
    if m.rng.one_in(3)
        && let Some(k) = m.pick(|t, _| t.dtype == dtype && t.shape == shape)
    {
        return k;
    }
    let skip = m.rng.below(shape.len() + 1);
    let mut sizes: Vec<Expr> = shape.into_iter().skip(skip).collect();
    for n in &mut sizes {
        if m.rng.one_in(4) {
            *n = Expr::Int(1);
        }
    }
    Known { id: m.input(dtype, sizes, None), exact: true }
}

fn function(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    const SMOOTH: &[&str] = &["exp", "sigmoid", "tanh", "erf", "gelu", "silu", "sin", "cos", "atan", "asinh", "expm1", "mish"];
    // Near their poles these are steep: only of exact values.
    const STEEP: &[&str] =
        &["log", "log1p", "sqrt", "rsqrt", "reciprocal", "tan", "log2", "acos", "asin", "atanh", "acosh", "sinh", "cosh"];
    const EXACT: &[&str] = &["neg", "abs", "relu", "square", "clone", "hardtanh", "leaky_relu", "relu6"];
    let (names, steep, exact) = m.rng.of(&[(SMOOTH, false, false), (STEEP, true, false), (EXACT, false, true)]);
    let name = m.rng.of(names);
    let k = if exact { m.pick(|t, _| number(t)) } else { m.pick(|t, e| float(t) && (e || !steep)) }?;
    Some((m.call(&format!("aten.{name}.default"), args![k.id])?, exact && k.exact))
}

fn activation(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let k = m.pick(|t, _| float(t))?;
    let (name, args) = m.rng.of(&[
        ("elu", 1),
        ("softplus", 1),
        ("celu", 1),
        ("selu", 1),
        ("hardswish", 1),
        ("hardsigmoid", 1),
        ("log_sigmoid", 1),
        ("glu", 2),
    ]);
    let target = format!("aten.{name}.default");
    if args == 1 {
        return Some((m.call(&target, args![k.id])?, false));
    }
    let (_, axis) = m.axis(k.id)?;
    Some((m.call(&target, args![k.id, axis])?, false))
}

fn rounding(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let k = m.pick(|t, e| float(t) && e)?;
    let name = m.rng.of(&["floor", "ceil", "trunc", "round", "sign", "isnan", "frac"]);
    Some((m.call(&format!("aten.{name}.default"), args![k.id])?, true))
}

/// A number to compute with; for integers mostly whole.
fn scalar(m: &mut Maker, dtype: DType) -> Arg {
    let whole = m.rng.of(&[-3i64, -1, 0, 1, 2, 3, 7]);
    if !dtype.is_float() && !m.rng.one_in(4) { Arg::Int(whole) } else { Arg::Float(whole as f64 + m.rng.of(&[0.0, 0.5, 0.25])) }
}

fn arithmetic(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let name = m.rng.of(&["add", "sub", "mul", "maximum", "minimum", "rsub", "pow"]);
    let a = operand(m, number, DType::Float32);
    let dtype = m.ty(a.id).dtype;
    if name == "pow" {
        let n = m.rng.of(&[1i64, 2, 3]);
        return Some((m.call("aten.pow.Tensor_Scalar", args![a.id, n])?, a.exact && n < 3));
    }
    if matches!(name, "maximum" | "minimum") {
        let b = partner(m, a.id, dtype);
        return Some((m.call(&format!("aten.{name}.default"), args![a.id, b.id])?, a.exact && b.exact));
    }
    if name == "rsub" || m.rng.one_in(3) {
        let x = scalar(m, dtype);
        let target = if name == "rsub" { "aten.rsub.Scalar".to_owned() } else { format!("aten.{name}.Tensor") };
        return Some((m.call(&target, vec![a.id.into(), x])?, a.exact));
    }
    let other = if m.rng.one_in(3) { m.dtype() } else { dtype };
    let b = partner(m, a.id, other);
    let mut arguments = args![a.id, b.id];
    if name != "mul" && m.rng.one_in(4) {
        arguments.push(2.into());
    }
    Some((m.call(&format!("aten.{name}.Tensor"), arguments)?, a.exact && b.exact))
}

fn division(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, e| number(t) && e)?;
    let dtype = m.ty(a.id).dtype;
    let target = m.rng.of(&["aten.div.Tensor", "aten.floor_divide.default", "aten.remainder.Tensor", "aten.fmod.Tensor"]);
    if m.rng.one_in(2) {
        let n = m.rng.of(&[-3i64, 2, 4, 5]);
        let number = if dtype.is_float() { Arg::Float(n as f64 / 2.0) } else { Arg::Int(n) };
        return Some((m.call(target, vec![a.id.into(), number])?, true));
    }
    let b = partner(m, a.id, dtype);
    if !b.exact {
        return None;
    }
    if m.rng.one_in(3) {
        let mode = m.rng.of(&["floor", "trunc"]);
        return Some((m.call("aten.div.Tensor_mode", args![a.id, b.id, mode])?, true));
    }
    Some((m.call(target, args![a.id, b.id])?, true))
}

fn comparison(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|_, e| e)?;
    let name = m.rng.of(&["eq", "ne", "lt", "le", "gt", "ge"]);
    let dtype = m.ty(a.id).dtype;
    if m.rng.one_in(2) {
        let x = scalar(m, dtype);
        return Some((m.call(&format!("aten.{name}.Scalar"), vec![a.id.into(), x])?, true));
    }
    let b = partner(m, a.id, dtype);
    if !b.exact {
        return None;
    }
    Some((m.call(&format!("aten.{name}.Tensor"), args![a.id, b.id])?, true))
}

fn logic(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|_, e| e)?;
    if m.rng.one_in(3) {
        return Some((m.call("aten.logical_not.default", args![a.id])?, true));
    }
    let dtype = m.ty(a.id).dtype;
    let b = partner(m, a.id, dtype);
    let name = m.rng.of(&["and", "or", "xor"]);
    if !b.exact {
        return None;
    }
    Some((m.call(&format!("aten.logical_{name}.default"), args![a.id, b.id])?, true))
}

fn bits(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| !float(t))?;
    if m.rng.one_in(4) {
        return Some((m.call("aten.bitwise_not.default", args![a.id])?, true));
    }
    let dtype = m.ty(a.id).dtype;
    let b = partner(m, a.id, dtype);
    let name = m.rng.of(&["and", "or", "xor"]);
    Some((m.call(&format!("aten.bitwise_{name}.Tensor"), args![a.id, b.id])?, true))
}

fn choice(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = operand(m, any, DType::Float32);
    let dtype = m.ty(a.id).dtype;
    let mask = partner(m, a.id, DType::Bool);
    if m.rng.one_in(3) {
        let x = scalar(m, dtype);
        return Some((m.call("aten.masked_fill.Scalar", vec![a.id.into(), mask.id.into(), x])?, a.exact));
    }
    let b = partner(m, a.id, dtype);
    Some((m.call("aten.where.self", args![mask.id, a.id, b.id])?, a.exact && b.exact))
}

fn clamp(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| number(t))?;
    let dtype = m.ty(a.id).dtype;
    let (low, high) = (scalar(m, dtype), scalar(m, dtype));
    let bounds = if m.rng.one_in(3) {
        [Arg::None, high]
    } else if m.rng.one_in(2) {
        [low, Arg::None]
    } else {
        [low, high]
    };
    let [low, high] = bounds;
    Some((m.call("aten.clamp.default", vec![a.id.into(), low, high])?, a.exact))
}

/// Some dimensions: one, several or all, counted from either end.
fn axes(m: &mut Maker, id: ValueId) -> Arg {
    let rank = m.ty(id).rank() as i64;
    let mut axes = Vec::new();
    for axis in 0..rank {
        if m.rng.one_in(2) {
            axes.push(if m.rng.one_in(2) { axis } else { axis - rank });
        }
    }
    Arg::from(axes)
}

fn reduction(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let name = m.rng.of(&["sum", "mean", "logsumexp", "prod"]);
    let a = m.pick(|t, _| if name == "mean" || name == "logsumexp" { float(t) } else { true })?;
    let whole = !float(m.ty(a.id));
    let (axes, keep) = (axes(m, a.id), m.rng.one_in(2));
    let values = match name {
        "sum" => m.call("aten.sum.dim_IntList", vec![a.id.into(), axes, keep.into()])?,
        "mean" => m.call("aten.mean.dim", vec![a.id.into(), axes, keep.into()])?,
        "logsumexp" => m.call("aten.logsumexp.default", vec![a.id.into(), axes, keep.into()])?,
        _ => {
            let (_, axis) = m.axis(a.id)?;
            m.call("aten.prod.dim_int", args![a.id, axis, keep])?
        }
    };
    Some((values, whole))
}

fn extreme(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let name = m.rng.of(&["amax", "amin", "argmax", "argmin", "max", "min"]);
    let a = m.pick(|t, e| number(t) && (e || name.starts_with("am")))?;
    let keep = m.rng.one_in(2);
    let values = match name {
        "amax" | "amin" => {
            let axes = axes(m, a.id);
            m.call(&format!("aten.{name}.default"), vec![a.id.into(), axes, keep.into()])?
        }
        "argmax" | "argmin" if m.rng.one_in(3) => m.call(&format!("aten.{name}.default"), args![a.id])?,
        "argmax" | "argmin" => {
            let (_, axis) = m.axis(a.id)?;
            m.call(&format!("aten.{name}.default"), args![a.id, axis, keep])?
        }
        _ if m.rng.one_in(2) => m.call(&format!("aten.{name}.default"), args![a.id])?,
        _ => {
            let (_, axis) = m.axis(a.id)?;
            m.call(&format!("aten.{name}.dim"), args![a.id, axis, keep])?
        }
    };
    Some((values, a.exact))
}

fn truth(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|_, e| e)?;
    let name = m.rng.of(&["any", "all"]);
    if m.rng.one_in(2) {
        return Some((m.call(&format!("aten.{name}.default"), args![a.id])?, true));
    }
    let (_, axis) = m.axis(a.id)?;
    let keep = m.rng.one_in(2);
    Some((m.call(&format!("aten.{name}.dim"), args![a.id, axis, keep])?, true))
}

fn spread(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| float(t))?;
    let (name, axes) = (m.rng.of(&["var", "std"]), axes(m, a.id));
    let op = etx::ir::op::OpId::lookup(&format!("aten.{name}.correction"))?;
    let correction = m.rng.of(&[0i64, 1]);
    let keep = m.rng.one_in(2);
    let builder = &mut etx::ir::build::Builder::at_end(&mut m.case.graph, &m.case.ranges);
    let v = builder.call_with(op, vec![a.id.into(), axes], [("correction", correction.into()), ("keepdim", keep.into())]).ok()?;
    Some((vec![v], false))
}

fn softmax(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| float(t))?;
    let (_, axis) = m.axis(a.id)?;
    let target = m.rng.of(&["aten.softmax.int", "aten.log_softmax.int"]);
    Some((m.call(target, args![a.id, axis])?, false))
}

fn cumulative(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|_, _| true)?;
    let (_, axis) = m.axis(a.id)?;
    let whole = !float(m.ty(a.id));
    Some((m.call("aten.cumsum.default", args![a.id, axis])?, whole))
}

fn rearrange(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|_, _| true)?;
    let rank = m.ty(a.id).rank() as i64;
    let values = match m.rng.below(6) {
        0 => {
            let mut order: Vec<i64> = (0..rank).collect();
            for i in (1..order.len()).rev() {
                let j = m.rng.below(i + 1);
                order.swap(i, j);
            }
            m.call("aten.permute.default", args![a.id, order])?
        }
        1 => {
            let ((_, x), (_, y)) = (m.axis(a.id)?, m.axis(a.id)?);
            m.call("aten.transpose.int", args![a.id, x, y])?
        }
        2 => {
            let axis = m.rng.between(-rank - 1, rank);
            m.call("aten.unsqueeze.default", args![a.id, axis])?
        }
        3 => m.call("aten.squeeze.default", args![a.id])?,
        4 => {
            let (_, axis) = m.axis(a.id)?;
            m.call("aten.squeeze.dim", args![a.id, axis])?
        }
        _ => {
            let axes: Vec<i64> = (0..rank).filter(|_| m.rng.one_in(2)).collect();
            m.call("aten.flip.default", args![a.id, axes])?
        }
    };
    Some((values, a.exact))
}

fn reshape(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let shape = m.ty(a.id).shape.clone();
    let rank = shape.len();
    let values = match m.rng.below(4) {
        0 => {
            let first = m.rng.below(rank);
            let last = first + m.rng.below(rank - first);
            m.call("aten.flatten.using_ints", args![a.id, first as i64, last as i64 - rank as i64])?
        }
        1 => m.call("aten.reshape.default", args![a.id, [-1]])?,
        2 => {
            // Two sizes become one, the dynamic one as a value of the graph.
            let at = m.rng.below(rank);
            let mut sizes = Vec::new();
            for (i, n) in shape.iter().enumerate() {
                sizes.push(match n.as_int() {
                    _ if i == at => Arg::Int(-1),
                    Some(n) => Arg::Int(n),
                    None => m.call("aten.sym_size.int", args![a.id, i as i64])?.first().map(|v| Arg::Value(*v))?,
                });
            }
            m.call("aten.view.default", vec![a.id.into(), Arg::List(sizes)])?
        }
        _ => {
            let (axis, number) = m.axis(a.id)?;
            let n = shape.get(axis)?.as_int().filter(|n| n % 2 == 0 && *n > 0)?;
            m.call("aten.unflatten.int", args![a.id, number, [n / 2, 2]])?
        }
    };
    Some((values, a.exact))
}

fn expand(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|_, _| true)?;
    let shape = m.ty(a.id).shape.clone();
    let mut sizes: Vec<i64> = shape.iter().map(|n| if *n == Expr::Int(1) { m.rng.between(1, 3) } else { -1 }).collect();
    if m.rng.one_in(2) {
        sizes.insert(0, m.rng.between(1, 3));
    }
    Some((m.call("aten.expand.default", args![a.id, sizes])?, a.exact))
}

fn slice(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let (_, axis) = m.axis(a.id)?;
    if m.rng.one_in(3) {
        let at = m.rng.between(-1, 0);
        return Some((m.call("aten.select.int", args![a.id, axis, at])?, a.exact));
    }
    let (start, step) = (m.rng.between(-3, 3), m.rng.of(&[1i64, 1, 1, 2]));
    let end = m.rng.of(&[i64::MAX, i64::MAX, -1, 2, 4]);
    Some((m.call("aten.slice.Tensor", args![a.id, axis, start, end, step])?, a.exact))
}

fn join(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|_, _| true)?;
    let (dtype, shape) = (m.ty(a.id).dtype, m.ty(a.id).shape.clone());
    let other = if m.rng.one_in(4) { m.dtype() } else { dtype };
    let b = match m.pick(|t, _| t.dtype == other && t.shape == shape) {
        Some(k) => k,
        None => Known { id: m.input(other, shape.clone(), None), exact: true },
    };
    if m.rng.one_in(3) {
        let axis = m.rng.between(-(shape.len() as i64) - 1, shape.len() as i64);
        return Some((m.call("aten.stack.default", args![[a.id, b.id], axis])?, a.exact && b.exact));
    }
    let (_, axis) = m.axis(a.id)?;
    Some((m.call("aten.cat.default", args![[a.id, b.id, a.id], axis])?, a.exact && b.exact))
}

fn pieces(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let (axis, number) = m.axis(a.id)?;
    let n = m.ty(a.id).shape.get(axis)?.as_int().filter(|n| *n > 0)?;
    let values = match m.rng.below(4) {
        0 => m.call("aten.split.Tensor", args![a.id, 2, number])?,
        1 => m.call("aten.chunk.default", args![a.id, 2, number])?,
        2 => m.call("aten.unbind.int", args![a.id, number])?,
        _ => m.call("aten.split_with_sizes.default", args![a.id, [1, n - 1], number])?,
    };
    Some((values, a.exact))
}

fn repeat(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|_, _| true)?;
    let rank = m.ty(a.id).rank();
    if m.rng.one_in(2) {
        let times: Vec<i64> = (0..rank + m.rng.below(2)).map(|_| m.rng.between(1, 2)).collect();
        return Some((m.call("aten.repeat.default", args![a.id, times])?, a.exact));
    }
    let axis = if m.rng.one_in(3) { Arg::None } else { Arg::Int(m.axis(a.id)?.1) };
    Some((m.call("aten.repeat_interleave.self_int", vec![a.id.into(), 2.into(), axis])?, a.exact))
}

fn move_positions(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let shift = m.rng.between(-3, 3);
    if m.rng.one_in(3) {
        return Some((m.call("aten.roll.default", args![a.id, [shift]])?, a.exact));
    }
    let (_, axis) = m.axis(a.id)?;
    Some((m.call("aten.roll.default", args![a.id, [shift], [axis]])?, a.exact))
}

fn triangle(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| t.rank() > 1)?;
    let (target, k) = (m.rng.of(&["aten.tril.default", "aten.triu.default"]), m.rng.between(-2, 2));
    Some((m.call(target, args![a.id, k])?, a.exact))
}

fn pad(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let (before, after) = (m.rng.between(-1, 2), m.rng.between(0, 2));
    let value = if float(m.ty(a.id)) { Arg::Float(m.rng.of(&[0.0, 1.5])) } else { Arg::Float(0.0) };
    Some((m.call("aten.constant_pad_nd.default", vec![a.id.into(), vec![before, after].into(), value])?, a.exact))
}

fn product(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| float(t) && (1..=4).contains(&t.rank()))?;
    let (dtype, shape) = (m.ty(a.id).dtype, m.ty(a.id).shape.clone());
    let inner = shape.last()?.clone();
    let columns = m.dim();
    let rank = m.rng.between(1, 3);
    let batch = if rank == 3 && shape.len() > 2 { vec![shape.get(shape.len() - 3)?.clone()] } else { Vec::new() };
    let sizes = if rank == 1 { vec![inner] } else { [batch, vec![inner, columns]].concat() };
    let b = m.input(dtype, sizes, None);
    Some((m.call("aten.matmul.default", args![a.id, b])?, false))
}

fn linear(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| float(t) && t.rank() > 0 && t.shape.last().is_some_and(|n| n.as_int().is_some_and(|n| n > 0)))?;
    let (dtype, rank) = (m.ty(a.id).dtype, m.ty(a.id).rank());
    let (inner, columns) = (m.ty(a.id).shape.last()?.clone(), m.rng.between(1, 4));
    let bias = if m.rng.one_in(2) { Arg::Value(m.input(dtype, vec![columns.into()], None)) } else { Arg::None };
    if rank == 2 && m.rng.one_in(2) {
        let b = m.input(dtype, vec![inner, columns.into()], None);
        return if let Arg::Value(_) = bias {
            Some((m.call("aten.addmm.default", vec![bias, a.id.into(), b.into()])?, false))
        } else {
            Some((m.call("aten.mm.default", args![a.id, b])?, false))
        };
    }
    let weight = m.input(dtype, vec![columns.into(), inner], None);
    Some((m.call("aten.linear.default", vec![a.id.into(), weight.into(), bias])?, false))
}

/// An image: `[batch, channels, …]`, made for the purpose.
fn image(m: &mut Maker, spatial: usize) -> (ValueId, DType, i64) {
    let dtype = m.rng.of(&[DType::Float32, DType::Float32, DType::Float16, DType::BFloat16]);
    let (batch, channels) = (if m.rng.one_in(3) { m.size.0.clone() } else { Expr::Int(1) }, m.rng.of(&[2i64, 4]));
    let mut shape = vec![batch, channels.into()];
    shape.extend((0..spatial).map(|_| Expr::Int(m.rng.between(3, 6))));
    (m.input(dtype, shape, None), dtype, channels)
}

fn convolution(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let spatial = m.rng.of(&[1usize, 2]);
    let (x, dtype, channels) = image(m, spatial);
    let groups = m.rng.of(&[1i64, 1, 2]);
    let outputs = m.rng.of(&[2i64, 4]);
    let kernel: Vec<Expr> = (0..spatial).map(|_| Expr::Int(m.rng.between(1, 3))).collect();
    let list = |m: &mut Maker, low, high| Arg::from((0..spatial).map(|_| m.rng.between(low, high)).collect::<Vec<_>>());
    let transposed = m.rng.one_in(3);
    let sizes = if transposed { [channels, outputs / groups] } else { [outputs, channels / groups] };
    let weight = m.input(dtype, [sizes.map(Expr::Int).to_vec(), kernel].concat(), None);
    let bias = if m.rng.one_in(2) { Arg::Value(m.input(dtype, vec![outputs.into()], None)) } else { Arg::None };
    let (stride, padding, dilation) = (list(m, 1, 2), list(m, 0, 1), list(m, 1, 2));
    let zeros = Arg::from(vec![0i64; spatial]);
    let (target, rest) = match (transposed, spatial) {
        (false, 1) => ("aten.conv1d.default", vec![stride, padding, dilation, groups.into()]),
        (false, _) => ("aten.conv2d.default", vec![stride, padding, dilation, groups.into()]),
        (true, 1) => ("aten.conv_transpose1d.default", vec![stride, padding, zeros, groups.into(), dilation]),
        (true, _) => ("aten.conv_transpose2d.input", vec![stride, padding, zeros, groups.into(), dilation]),
    };
    Some((m.call(target, [vec![x.into(), weight.into(), bias], rest].concat())?, false))
}

fn pool(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let (x, _, _) = image(m, 2);
    let (kernel, stride) = (m.rng.of(&[2i64, 3]), m.rng.of(&[1i64, 2]));
    let padding = m.rng.below(kernel as usize / 2 + 1) as i64;
    let ceil = m.rng.one_in(4);
    Some(match m.rng.below(5) {
        0 | 1 => (m.call("aten.max_pool2d.default", args![x, [kernel, kernel], [stride, stride], [padding, padding], [1, 1], ceil])?, true),
        2 => {
            let inside = m.rng.one_in(2);
            (m.call("aten.avg_pool2d.default", args![x, [kernel, kernel], [stride, stride], [padding, padding], ceil, inside])?, false)
        }
        3 => (m.call("aten.adaptive_avg_pool2d.default", args![x, [2, 3]])?, false),
        _ => (m.call("aten.upsample_nearest2d.vec", args![x, [5, 7], None::<i64>])?, true),
    })
}

fn normalise(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    if m.rng.one_in(3) {
        let (x, dtype, channels) = image(m, 1);
        let (weight, bias) = (m.input(dtype, vec![channels.into()], None), m.input(dtype, vec![channels.into()], None));
        return Some((m.call("aten.group_norm.default", args![x, 2, weight, bias, 0.125])?, false));
    }
    let a = m.pick(|t, _| float(t) && t.rank() > 0 && t.shape.last().is_some_and(|n| n.as_int().is_some_and(|n| n > 1)))?;
    let (dtype, n) = (m.ty(a.id).dtype, m.ty(a.id).shape.last()?.clone());
    let size = n.as_int()?;
    let weight = if m.rng.one_in(2) { Arg::Value(m.input(dtype, vec![n.clone()], None)) } else { Arg::None };
    if m.rng.one_in(2) {
        return Some((m.call("aten.rms_norm.default", vec![a.id.into(), vec![size].into(), weight, 0.125.into()])?, false));
    }
    let bias = if m.rng.one_in(2) { Arg::Value(m.input(dtype, vec![n], None)) } else { Arg::None };
    Some((m.call("aten.layer_norm.default", vec![a.id.into(), vec![size].into(), weight, bias, 0.125.into()])?, false))
}

fn attention(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let dtype = m.rng.of(&[DType::Float32, DType::Float32, DType::BFloat16]);
    let (queries, keys, width) = (m.size.0.clone(), Expr::Int(m.rng.between(2, 5)), Expr::Int(4));
    let (heads, groups) = m.rng.of(&[(2i64, 2i64), (4, 2), (2, 1)]);
    let mut make = |heads: i64, n: &Expr| m.input(dtype, vec![1.into(), heads.into(), n.clone(), width.clone()], None);
    let (q, k, v) = (make(heads, &queries), make(groups, &keys), make(groups, &keys));
    let causal = m.rng.one_in(3);
    let mask = if !causal && m.rng.one_in(2) {
        let float = m.input(dtype, vec![queries, keys], None);
        Arg::Value(float)
    } else {
        Arg::None
    };
    let args = vec![q.into(), k.into(), v.into(), mask, 0.0.into(), causal.into(), Arg::None, (heads != groups).into()];
    Some((m.call("aten.scaled_dot_product_attention.default", args)?, false))
}

/// Positions in a dimension whose size is known.
fn positions(m: &mut Maker, size: &Expr, shape: Vec<Expr>) -> Option<ValueId> {
    let n = size.as_int().filter(|n| *n > 0)?;
    Some(m.input(DType::Int64, shape, Some(n as usize)))
}

fn gather(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let (axis, number) = m.axis(a.id)?;
    let mut shape = m.ty(a.id).shape.clone();
    let size = shape.get(axis)?.clone();
    let count = m.dim();
    let values = match m.rng.below(3) {
        0 => {
            let at = positions(m, &size, vec![count])?;
            m.call("aten.index_select.default", args![a.id, number, at])?
        }
        1 => {
            *shape.get_mut(axis)? = count;
            let at = positions(m, &size, shape)?;
            m.call("aten.gather.default", args![a.id, number, at])?
        }
        _ => {
            let table = m.pick(|t, _| t.rank() == 2 && float(t))?;
            let rows = m.ty(table.id).shape.first()?.clone();
            let shape = m.shape(2);
            let at = positions(m, &rows, shape)?;
            return Some((m.call("aten.embedding.default", args![table.id, at])?, table.exact));
        }
    };
    Some((values, a.exact))
}

fn index(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| t.rank() > 0)?;
    let shape = m.ty(a.id).shape.clone();
    let count = m.dim();
    let mut indices = Vec::new();
    for n in &shape {
        if m.rng.one_in(2) {
            let sizes = if m.rng.one_in(3) { vec![Expr::Int(2), count.clone()] } else { vec![count.clone()] };
            indices.push(Arg::Value(positions(m, n, sizes)?));
        } else {
            indices.push(Arg::None);
        }
    }
    while indices.last() == Some(&Arg::None) {
        indices.pop();
    }
    if indices.is_empty() {
        return None;
    }
    Some((m.call("aten.index.Tensor", vec![a.id.into(), Arg::List(indices)])?, a.exact))
}

fn scatter(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, e| t.rank() > 0 && t.dtype != DType::Bool && e)?;
    let (axis, number) = m.axis(a.id)?;
    let (dtype, mut shape) = (m.ty(a.id).dtype, m.ty(a.id).shape.clone());
    let size = shape.get(axis)?.clone();
    let n = size.as_int()?;
    let values = match m.rng.below(5) {
        0 => {
            *shape.get_mut(axis)? = Expr::Int(m.rng.between(1, n.max(1)));
            let at = positions(m, &size, shape.clone())?;
            let source = m.input(dtype, shape, None);
            m.call("aten.scatter_add.default", args![a.id, number, at, source])?
        }
        1 => {
            *shape.get_mut(axis)? = 1.into();
            let at = positions(m, &size, shape)?;
            m.call("aten.scatter.value", args![a.id, number, at, 2])?
        }
        2 => {
            let source = m.input(dtype, shape.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, n)| n.clone()).collect(), None);
            m.call("aten.select_scatter.default", args![a.id, source, number, n - 1])?
        }
        3 => {
            *shape.get_mut(axis)? = 1.into();
            let source = m.input(dtype, shape, None);
            m.call("aten.slice_scatter.default", args![a.id, source, number, n - 1, n])?
        }
        _ => {
            let at = positions(m, shape.first()?, vec![2.into()])?;
            let source = m.input(dtype, shape.into_iter().skip(1).collect(), None);
            m.call("aten.index_put.default", args![a.id, [at], source, true])?
        }
    };
    Some((values, true))
}

fn order(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, e| number(t) && e && t.rank() > 0)?;
    let (axis, number) = m.axis(a.id)?;
    let descending = m.rng.one_in(2);
    // Where values are equal, positions are anybody's guess: only values are looked at.
    let values = if m.rng.one_in(2) {
        m.call("aten.sort.default", args![a.id, number, descending])?
    } else {
        let n = m.ty(a.id).shape.get(axis)?.as_int().filter(|n| *n > 0)?;
        let k = m.rng.between(1, n);
        m.call("aten.topk.default", args![a.id, k, number, descending])?
    };
    Some((values.into_iter().take(1).collect(), true))
}

fn cast(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let to = m.dtype();
    let a = m.pick(|_, e| e || to.is_float())?;
    let op = etx::ir::op!("aten._to_copy.default");
    let builder = &mut etx::ir::build::Builder::at_end(&mut m.case.graph, &m.case.ranges);
    let v = builder.call_with(op, args![a.id], [("dtype", to.into())]).ok()?;
    Some((vec![v], a.exact))
}

fn create(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let like = m.pick(|_, _| true)?;
    let values = match m.rng.below(4) {
        0 => m.call("aten.zeros_like.default", args![like.id])?,
        1 => {
            let x = m.rng.between(-3, 3);
            m.call("aten.full_like.default", args![like.id, x])?
        }
        2 => {
            let n = m.call("aten.sym_size.int", args![m.case.graph.inputs().first().copied()?, 0])?;
            m.call("aten.arange.default", args![*n.first()?])?
        }
        _ => {
            let (start, step) = (m.rng.between(-3, 3), m.rng.of(&[1i64, 2, -1]));
            m.call("aten.arange.start_step", args![start, start + 4 * step, step])?
        }
    };
    Some((values, true))
}

/// A copy, a view of it, and something that works in place on the view: seen in the copy.
fn write_in_place(m: &mut Maker) -> Option<(Vec<ValueId>, bool)> {
    let a = m.pick(|t, _| t.rank() > 0 && t.dtype != DType::Bool)?;
    let copy = *m.call("aten.clone.default", args![a.id])?.first()?;
    let (_, axis) = m.axis(copy)?;
    let view = match m.rng.below(4) {
        0 => *m.call("aten.select.int", args![copy, axis, -1])?.first()?,
        1 => *m.call("aten.slice.Tensor", args![copy, axis, 1, i64::MAX])?.first()?,
        2 => *m.call("aten.unsqueeze.default", args![copy, 0])?.first()?,
        _ => *m.call("aten.view.default", args![copy, [-1]])?.first()?,
    };
    match m.rng.below(4) {
        0 => m.call("aten.add_.Tensor", args![view, 1])?,
        1 => m.call("aten.mul_.Tensor", args![view, 2])?,
        2 => m.call("aten.zero_.default", args![view])?,
        _ => {
            let dtype = m.ty(view).dtype;
            let source = partner(m, view, dtype);
            if !source.exact {
                return None;
            }
            m.call("aten.copy_.default", args![view, source.id])?
        }
    };
    // Read again after the write.
    Some((m.call("aten.add.Tensor", args![copy, 0])?, a.exact))
}
