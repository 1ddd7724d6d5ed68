//! Pooling.
//!
//! MLX has no pooling: windows become axes of their own, by a reshape where they tile the input and by strides where they
//! overlap, and are then reduced. Both work on any batch size.

use etx_ir::DType;
use etx_ir::graph::Arg;
use etx_ir::mlx::{Instr, IntOrVid, Tid};
use etx_ir::sym::Expr;

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.max_pool1d.default", |cx, call| pool(cx, call, 1, true), MAX).when(WHEN),
    Operator::new("aten.max_pool2d.default", |cx, call| pool(cx, call, 2, true), MAX).when(WHEN),
    Operator::new("aten.max_pool3d.default", |cx, call| pool(cx, call, 3, true), MAX).when(WHEN),
    Operator::new("aten.max_pool1d_with_indices.default", |cx, call| pool(cx, call, 1, true), MAX).when(WHEN),
    Operator::new("aten.max_pool2d_with_indices.default", |cx, call| pool(cx, call, 2, true), MAX).when(WHEN),
    Operator::new("aten.max_pool3d_with_indices.default", |cx, call| pool(cx, call, 3, true), MAX).when(WHEN),
    Operator::new("aten.avg_pool1d.default", |cx, call| pool(cx, call, 1, false), MEAN).when(WHEN),
    Operator::new("aten.avg_pool2d.default", |cx, call| pool(cx, call, 2, false), MEAN).when(WHEN),
    Operator::new("aten.avg_pool3d.default", |cx, call| pool(cx, call, 3, false), MEAN).when(WHEN),
];

const MAX: &str = "Pad, Reshape or AsStrided, Max";
const MEAN: &str = "Pad, Reshape or AsStrided, Mean";
const WHEN: &str = "spatial sizes are symbolic, or indices are used";

struct Window {
    size: i64,
    kernel: i64,
    stride: i64,
    padding: i64,
    dilation: i64,
    out: i64,
}

fn per_axis(call: &Call<'_>, name: &str, nd: usize, default: &[i64]) -> Res<Vec<i64>> {
    let given = match call.arg(name) {
        Arg::None => vec![],
        Arg::Int(n) => vec![*n],
        _ => call.ints(name)?,
    };
    match given.as_slice() {
        [] => Ok(default.to_vec()),
        [one] => Ok(vec![*one; nd]),
        all if all.len() == nd => Ok(all.to_vec()),
        _ => Err(call.refuse(name, &format!("must be one number or {nd}"))),
    }
}

fn pool<'a>(cx: &mut Cx<'a>, call: Call<'a>, nd: usize, max: bool) -> Res {
    if call.is_used(1) {
        return Err(Refusal::new("the positions of the maxima are not among MLX's results"));
    }
    let ty = call.ty("self")?;
    let lead = ty.rank().saturating_sub(nd);
    let kernel = per_axis(&call, "kernel_size", nd, &vec![1; nd])?;
    let stride = per_axis(&call, "stride", nd, &kernel)?;
    let padding = per_axis(&call, "padding", nd, &vec![0; nd])?;
    let dilation = per_axis(&call, "dilation", nd, &vec![1; nd])?;
    let mut windows = Vec::new();
    for i in 0..nd {
        let known = |e: Option<&Expr>| e.and_then(Expr::as_int).ok_or_else(|| call.refuse("self", "spatial sizes must be known at export"));
        let (size, out) = (known(ty.shape.get(lead + i))?, known(call.out_ty(0)?.shape.get(lead + i))?);
        windows.push(Window { size, kernel: kernel[i], stride: stride[i], padding: padding[i], dilation: dilation[i], out });
    }
    if windows.iter().any(|w| w.kernel < 1 || w.stride < 1 || w.dilation < 1 || w.padding < 0) {
        return Err(call.refuse("kernel_size", "kernel, stride and dilation must be positive"));
    }
    let mut x = cx.tensor(call.value("self")?)?;
    let whole = windows.iter().all(|w| w.padding == 0 && w.kernel == w.size && w.out == 1 && w.dilation == 1);
    let spatial: Vec<i32> = (lead..ty.rank()).map(|a| a as i32).collect();
    if whole {
        return cx.define(call.out(0)?, |out| reduce(x, out, spatial, true, max));
    }
    // What the windows reach: padding in front, and behind it as much as the last window needs.
    let pads: Vec<(i64, i64)> = windows
        .iter()
        .map(|w| (w.padding, ((w.out - 1) * w.stride + (w.kernel - 1) * w.dilation + 1 - w.size - w.padding).max(0)))
        .collect();
    let fill = if max { f32::NEG_INFINITY } else { 0.0 };
    if pads.iter().any(|&(a, b)| a > 0 || b > 0) {
        let mut pad_width = vec![IntOrVid::Int(0); 2 * lead];
        pad_width.extend(pads.iter().flat_map(|&(a, b)| [IntOrVid::Int(a), IntOrVid::Int(b)]));
        let from = x;
        x = cx.temp(|out| Instr::Pad { x: from, out, pad_width, mode: "constant".to_owned(), constant_value: fill });
    }
    let sizes: Vec<i64> = windows.iter().zip(&pads).map(|(w, (a, b))| w.size + a + b).collect();
    // Leading axes stay one by one; a symbolic one makes no difference to either form.
    let mut shape = cx.dims(&ty.shape[..lead])?;
    let tiled = windows.iter().zip(&sizes).all(|(w, &n)| w.kernel == w.stride && w.dilation == 1 && n >= w.out * w.kernel);
    let axes: Vec<i32>;
    let windowed: Tid;
    if tiled {
        for (i, w) in windows.iter().enumerate() {
            if sizes[i] > w.out * w.kernel {
                let from = x;
                let stop = (w.out * w.kernel).into();
                x = cx.temp(|out| Instr::Slice { x: from, out, axis: ((lead + i) as i64).into(), start: 0.into(), stop, step: 1 });
            }
            shape.extend([IntOrVid::Int(w.out), IntOrVid::Int(w.kernel)]);
        }
        axes = (0..nd).map(|i| (lead + 2 * i + 1) as i32).collect();
        windowed = cx.temp(|out| Instr::Reshape { x, out, shape });
    } else {
        let mut inner = vec![1i64; nd];
        for i in (1..nd).rev() {
            inner[i - 1] = inner[i] * sizes[i];
        }
        let plane = inner[0] * sizes[0];
        let mut strides = lead_strides(cx, &ty.shape[..lead], plane)?;
        shape.extend(windows.iter().map(|w| IntOrVid::Int(w.out)));
        shape.extend(windows.iter().map(|w| IntOrVid::Int(w.kernel)));
        strides.extend(windows.iter().zip(&inner).map(|(w, s)| IntOrVid::Int(w.stride * s)));
        strides.extend(windows.iter().zip(&inner).map(|(w, s)| IntOrVid::Int(w.dilation * s)));
        axes = (lead + nd..lead + 2 * nd).map(|a| a as i32).collect();
        windowed = cx.temp(|out| Instr::AsStrided { x, out, shape, strides, offset: 0 });
    }
    let count = divisor(&call, nd, &windows)?;
    match (max, count) {
        (true, _) | (_, Divisor::Kernel) => cx.define(call.out(0)?, |out| reduce(windowed, out, axes, false, max)),
        (_, Divisor::Each(weights)) => {
            let t = call.out_ty(0)?;
            let sum = cx.temp(|out| Instr::Sum { x: windowed, out, axes: Some(axes), keepdims: false });
            let sizes: Vec<u64> = windows.iter().map(|w| w.out as u64).collect();
            let scale = constant(cx, &weights, sizes, t.dtype)?;
            cx.define(call.out(0)?, |out| Instr::Multiply { a: sum, b: scale, out })
        }
    }
}

/// Strides of the axes in front of planes of this many elements.
fn lead_strides(cx: &mut Cx<'_>, lead: &[Expr], plane: i64) -> Res<Vec<IntOrVid>> {
    let mut strides = Vec::new();
    let mut next = Expr::Int(plane);
    for d in lead.iter().rev() {
        strides.push(cx.int(&next)?);
        next = next.times(d);
    }
    strides.reverse();
    Ok(strides)
}

fn reduce(x: Tid, out: Tid, axes: Vec<i32>, keepdims: bool, max: bool) -> Instr {
    let axes = Some(axes);
    if max { Instr::Max { x, out, axes, keepdims } } else { Instr::Mean { x, out, axes, keepdims } }
}

/// What the sum over a window is divided by.
enum Divisor {
    /// The number of its elements, padding included.
    Kernel,
    /// One factor a window.
    Each(Vec<f64>),
}

fn divisor(call: &Call<'_>, nd: usize, windows: &[Window]) -> Res<Divisor> {
    if !call.is_none("divisor_override") {
        let d = call.int("divisor_override")? as f64;
        let n: i64 = windows.iter().map(|w| w.out).product();
        return Ok(Divisor::Each(vec![1.0 / d; n as usize]));
    }
    let include = call.is_none("count_include_pad") || call.flag("count_include_pad")?;
    // Padding counts as far as it was asked for, but not what the last window reaches beyond it.
    let count = |w: &Window, at: i64| {
        let start = at * w.stride - w.padding;
        let end = (start + w.kernel).min(w.size + w.padding);
        if include { end - start } else { end.min(w.size) - start.max(0) }
    };
    let regular = windows.iter().all(|w| (0..w.out).all(|at| count(w, at) == w.kernel));
    if regular {
        return Ok(Divisor::Kernel);
    }
    let mut weights = vec![1.0];
    for w in windows.iter().take(nd) {
        weights = weights.iter().flat_map(|x| (0..w.out).map(move |at| x / count(w, at) as f64)).collect();
    }
    Ok(Divisor::Each(weights))
}

fn constant(cx: &mut Cx<'_>, values: &[f64], shape: Vec<u64>, dtype: DType) -> Res<Tid> {
    let mut bytes = Vec::new();
    for &x in values {
        bytes.extend(super::super::consts::element(x, dtype).ok_or_else(|| Refusal::new("pooling of integers"))?);
    }
    let data = etx_ir::weights::TensorData::inline(dtype, shape, bytes).map_err(|e| Refusal::new(e.to_string()))?;
    cx.constant("_window_weights", data)
}
