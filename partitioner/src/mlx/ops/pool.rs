//! Pooling.
//!
//! MLX has no pooling: windows become axes of their own, by a reshape where they tile the input and by strides where they
//! overlap, and are then reduced. Both work on any batch size, the latter on any size. What a convolution left with channels
//! last is pooled that way, so that nothing is transposed between the two.

use etx_ir::DType;
use etx_ir::graph::Arg;
use etx_ir::sym::Expr;
use etx_mlx::{FloatOrVid, Instr, IntOrVid, Tid};

use super::super::call::{Call, Res, makes};
use super::super::cx::Cx;
use super::Operator;
use super::shape::transposed;
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
const WHEN: &str = "indices are used; symbolic sizes with a divisor of their own";

/// Windows along one axis.
struct Window {
    size: Expr,
    kernel: i64,
    stride: i64,
    padding: i64,
    dilation: i64,
    ceil: bool,
    out: Expr,
}

impl Window {
    /// Padding in front, and behind as much as the last window needs.
    fn pads(&self) -> (i64, i64) {
        match (self.size.as_int(), self.out.as_int()) {
            (Some(n), Some(m)) => (self.padding, ((m - 1) * self.stride + (self.kernel - 1) * self.dilation + 1 - n - self.padding).max(0)),
            // A window that starts inside may reach a step less one beyond the end.
            _ => (self.padding, self.padding + if self.ceil { self.stride - 1 } else { 0 }),
        }
    }

    fn padded(&self) -> Expr {
        let (front, back) = self.pads();
        self.size.plus(&Expr::Int(front + back))
    }

    /// Whether windows lie side by side.
    fn tiles(&self) -> bool {
        let fits = |n: i64, m: i64| n >= m * self.kernel;
        self.kernel == self.stride && self.dilation == 1 && self.padded().as_int().zip(self.out.as_int()).is_some_and(|(n, m)| fits(n, m))
    }
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
        let beyond = || call.refuse("self", "fewer axes than there are windows");
        let size = ty.shape.get(lead + i).cloned().ok_or_else(beyond)?;
        let out = call.out_ty(0)?.shape.get(lead + i).cloned().ok_or_else(beyond)?;
        let ceil = call.flag("ceil_mode")?;
        windows.push(Window { size, kernel: kernel[i], stride: stride[i], padding: padding[i], dilation: dilation[i], ceil, out });
    }
    if windows.iter().any(|w| w.kernel < 1 || w.stride < 1 || w.dilation < 1 || w.padding < 0) {
        return Err(call.refuse("kernel_size", "kernel, stride and dilation must be positive"));
    }
    let mut x = cx.tensor(call.value("self")?)?;
    // More than two 16-bit floats are added up in single precision.
    if !max && windows.iter().map(|w| w.kernel).try_fold(1i64, i64::checked_mul).is_none_or(|terms| terms > 2) {
        x = cx.widened(x)?;
    }
    let whole = windows.iter().all(|w| w.padding == 0 && w.size.as_int() == Some(w.kernel) && w.out == Expr::Int(1) && w.dilation == 1);
    if whole {
        let spatial: Vec<i32> = (lead..ty.rank()).map(|a| a as i32).collect();
        return cx.define(call.out(0)?, |out| reduce(x, out, spatial, true, max));
    }
    // The axes in front of those that are pooled, and the one behind them.
    let last = lead == 2 && cx.is_channels_last(x);
    let (before, behind) = if last { (&ty.shape[..1], &ty.shape[1..2]) } else { (&ty.shape[..lead], &ty.shape[..0]) };
    let first = before.len();
    if last {
        let perm: Vec<usize> = [0].into_iter().chain(2..nd + 2).chain([1]).collect();
        x = transposed(cx, x, &perm);
    }
    if windows.iter().any(|w| w.pads() != (0, 0)) {
        let mut pad_width = vec![IntOrVid::Int(0); 2 * first];
        pad_width.extend(windows.iter().map(Window::pads).flat_map(|(a, b)| [IntOrVid::Int(a), IntOrVid::Int(b)]));
        pad_width.extend(behind.iter().flat_map(|_| [IntOrVid::Int(0), IntOrVid::Int(0)]));
        let from = x;
        let constant_value = if max { f32::NEG_INFINITY } else { 0.0 };
        x = cx.temp(|out| Instr::Pad { x: from, out, pad_width, mode: "constant".to_owned(), constant_value });
    }
    // Leading axes stay one by one; a symbolic one makes no difference to either form.
    let mut shape = cx.dims(before)?;
    let axes: Vec<i32>;
    let windowed: Tid;
    if windows.iter().all(Window::tiles) {
        for (i, w) in windows.iter().enumerate() {
            let end = w.out.times(&Expr::Int(w.kernel));
            if w.padded() != end {
                let (from, stop) = (x, cx.int(&end)?);
                x = cx.temp(|out| Instr::Slice { x: from, out, axis: ((first + i) as i64).into(), start: 0.into(), stop, step: 1 });
            }
            shape.extend([cx.int(&w.out)?, IntOrVid::Int(w.kernel)]);
        }
        shape.extend(cx.dims(behind)?);
        axes = (0..nd).map(|i| (first + 2 * i + 1) as i32).collect();
        windowed = cx.temp(|out| Instr::Reshape { x, out, shape });
    } else {
        let sizes: Vec<Expr> = before.iter().cloned().chain(windows.iter().map(Window::padded)).chain(behind.iter().cloned()).collect();
        let steps = row_major(&sizes);
        let pooled = |by: fn(&Window) -> i64| windows.iter().zip(&steps[first..]).map(move |(w, s)| s.times(&Expr::Int(by(w))));
        let mut strides: Vec<Expr> = steps[..first].to_vec();
        strides.extend(pooled(|w| w.stride));
        strides.extend_from_slice(&steps[first + nd..]);
        strides.extend(pooled(|w| w.dilation));
        let strides = cx.dims(&strides)?;
        for w in &windows {
            shape.push(cx.int(&w.out)?);
        }
        shape.extend(cx.dims(behind)?);
        shape.extend(windows.iter().map(|w| IntOrVid::Int(w.kernel)));
        axes = (ty.rank()..ty.rank() + nd).map(|a| a as i32).collect();
        windowed = cx.temp(|out| Instr::AsStrided { x, out, shape, strides, offset: 0 });
    }
    let mut y = match divisor(&call, nd, &windows)? {
        Divisor::Each(weights) if !max => {
            let sum = cx.temp(|out| Instr::Sum { x: windowed, out, axes: Some(axes), keepdims: false });
            let mut sizes: Vec<u64> = windows.iter().filter_map(|w| w.out.as_int()).map(|n| n as u64).collect();
            sizes.extend(behind.iter().map(|_| 1));
            let scale = constant(cx, &weights, sizes, cx.dtype(sum))?;
            cx.temp(|out| Instr::Multiply { a: sum, b: scale, out })
        }
        Divisor::Counted(include) if !max => {
            let mut sum = cx.temp(|out| Instr::Sum { x: windowed, out, axes: Some(axes), keepdims: false });
            for (i, w) in windows.iter().enumerate() {
                let (a, b) = (sum, counts(cx, w, include, nd - 1 - i + behind.len(), cx.dtype(sum))?);
                sum = cx.temp(|out| Instr::Divide { a, b, out });
            }
            sum
        }
        _ => cx.temp(|out| reduce(windowed, out, axes, false, max)),
    };
    if last {
        let perm: Vec<usize> = [0, nd + 1].into_iter().chain(1..=nd).collect();
        y = transposed(cx, y, &perm);
    }
    cx.bind(call.out(0)?, y)
}

/// Strides of a tensor of these sizes.
fn row_major(sizes: &[Expr]) -> Vec<Expr> {
    let mut strides = vec![Expr::Int(1); sizes.len()];
    for i in (1..sizes.len()).rev() {
        strides[i - 1] = strides[i].times(&sizes[i]);
    }
    strides
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
    /// The number of elements along each axis, which the program counts; padding that was asked for counts or not.
    Counted(bool),
}

/// How many elements each window along an axis has, with so many axes behind.
fn counts(cx: &mut Cx<'_>, w: &Window, include: bool, behind: usize, dtype: DType) -> Res<Tid> {
    let t = DType::Float32;
    let count = cx.int(&w.out)?;
    let steps = cx.temp(|out| Instr::ARange { out, start: 0.into(), stop: count, step: 1.into(), scalar_type: Some(t) });
    let (stride, padding, kernel) = (cx.scalar(w.stride as f64, t)?, cx.scalar(w.padding as f64, t)?, cx.scalar(w.kernel as f64, t)?);
    let start = cx.temp(|out| Instr::Multiply { a: steps, b: stride, out });
    let mut start = cx.temp(|out| Instr::Subtract { a: start, b: padding, out });
    let end = cx.temp(|out| Instr::Add { a: start, b: kernel, out });
    let v = match cx.int(&w.size.plus(&Expr::Int(if include { w.padding } else { 0 })))? {
        IntOrVid::Int(n) => FloatOrVid::Float(n as f64),
        IntOrVid::Vid(v) => FloatOrVid::Vid(v),
    };
    let limit = cx.temp(|out| Instr::Full { out, shape: vec![], v, scalar_type: t });
    let end = cx.temp(|out| Instr::Minimum { a: end, b: limit, out });
    if !include {
        let (a, b) = (start, cx.scalar(0.0, t)?);
        start = cx.temp(|out| Instr::Maximum { a, b, out });
    }
    let mut count = cx.temp(|out| Instr::Subtract { a: end, b: start, out });
    for _ in 0..behind {
        let x = count;
        count = cx.temp(|out| Instr::ExpandDims { x, out, axis: -1 });
    }
    cx.cast(count, dtype)
}

fn divisor(call: &Call<'_>, nd: usize, windows: &[Window]) -> Res<Divisor> {
    let known: Option<Vec<(i64, i64)>> = windows.iter().map(|w| w.size.as_int().zip(w.out.as_int())).collect();
    let include = call.is_none("count_include_pad") || call.flag("count_include_pad")?;
    let Some(known) = known else {
        if !call.is_none("divisor_override") {
            return Err(call.refuse("divisor_override", "needs spatial sizes that are known at export"));
        }
        // Without padding every window is full, and one that counts padding is as well.
        let regular = windows.iter().all(|w| (include || w.padding == 0) && !(w.ceil && w.stride > 1));
        return Ok(if regular { Divisor::Kernel } else { Divisor::Counted(include) });
    };
    if !call.is_none("divisor_override") {
        let d = call.int("divisor_override")? as f64;
        let n = known.iter().fold(1i64, |n, (_, out)| n.saturating_mul(*out));
        makes(n, 1)?;
        return Ok(Divisor::Each(vec![1.0 / d; n as usize]));
    }
    // Padding counts as far as it was asked for, but not what the last window reaches beyond it.
    let count = |(w, (size, _)): (&Window, &(i64, i64)), at: i64| {
        let start = at.saturating_mul(w.stride).saturating_sub(w.padding);
        let end = start.saturating_add(w.kernel).min(size.saturating_add(w.padding));
        if include { end.saturating_sub(start) } else { end.min(*size).saturating_sub(start.max(0)) }
    };
    makes(known.iter().fold(1i64, |n, (_, out)| n.saturating_mul((*out).max(1))), 2)?;
    let axes = || windows.iter().zip(&known);
    if axes().all(|axis| (0..axis.1.1).all(|at| count(axis, at) == axis.0.kernel)) {
        return Ok(Divisor::Kernel);
    }
    let mut weights = vec![1.0];
    for axis in axes().take(nd) {
        weights = weights.iter().flat_map(|x| (0..axis.1.1).map(move |at| x / count(axis, at) as f64)).collect();
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
