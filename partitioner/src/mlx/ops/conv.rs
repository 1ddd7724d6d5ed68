//! Convolutions.
//!
//! MLX keeps channels last, torch first, so each convolution stands between two transpositions. Weights that are
//! parameters are transposed once, when the program is made.

use etx_ir::graph::Arg;
use etx_ir::sym::Expr;
use etx_mlx::{Instr, IntOrVid, Tid};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::super::derive::permuted_data;
use super::Operator;
use super::shape::transposed;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.conv1d.default", |cx, call| forward(cx, call, 1), "Transpose, Conv1D, Add, Transpose"),
    Operator::new("aten.conv2d.default", |cx, call| forward(cx, call, 2), "Transpose, Conv2D, Add, Transpose"),
    Operator::new("aten.conv3d.default", |cx, call| forward(cx, call, 3), "Transpose, Conv3D, Add, Transpose").when("groups"),
    Operator::new("aten.conv1d.padding", |cx, call| forward(cx, call, 1), "Transpose, Pad, Conv1D, Add, Transpose"),
    Operator::new("aten.conv2d.padding", |cx, call| forward(cx, call, 2), "Transpose, Pad, Conv2D, Add, Transpose"),
    Operator::new("aten.conv3d.padding", |cx, call| forward(cx, call, 3), "Transpose, Pad, Conv3D, Add, Transpose").when("groups"),
    Operator::new("aten.conv_transpose1d.default", |cx, call| backward(cx, call, 1), "Transpose, ConvTranspose1D, Add, Transpose"),
    Operator::new("aten.conv_transpose2d.input", |cx, call| backward(cx, call, 2), "Transpose, ConvTranspose2D, Add, Transpose"),
    Operator::new("aten.conv_transpose3d.input", |cx, call| backward(cx, call, 3), "Transpose, ConvTranspose3D, Add, Transpose")
        .when("groups"),
    Operator::new("aten.convolution.default", convolution, "as conv1d to conv3d, or their transposes"),
];

/// Parameters of a convolution, one of each an axis.
struct Windows {
    stride: Vec<i32>,
    padding: Vec<i32>,
    dilation: Vec<i32>,
    output_padding: Vec<i32>,
    groups: i32,
}

fn per_axis(call: &Call<'_>, name: &str, nd: usize, default: i32) -> Res<Vec<i32>> {
    let given = match call.arg(name) {
        Arg::None => vec![],
        Arg::Int(n) => vec![*n],
        _ => call.ints(name)?,
    };
    let given: Vec<i32> =
        given.iter().map(|&n| i32::try_from(n)).collect::<Result<_, _>>().map_err(|_| call.refuse(name, "beyond 32 bits"))?;
    match given.as_slice() {
        [] => Ok(vec![default; nd]),
        [one] => Ok(vec![*one; nd]),
        all if all.len() == nd => Ok(all.to_vec()),
        _ => Err(call.refuse(name, &format!("must be one number or {nd}"))),
    }
}

fn windows(call: &Call<'_>, nd: usize) -> Res<Windows> {
    let padding = if matches!(call.arg("padding"), Arg::Str(_)) { vec![0; nd] } else { per_axis(call, "padding", nd, 0)? };
    let w = Windows {
        stride: per_axis(call, "stride", nd, 1)?,
        padding,
        dilation: per_axis(call, "dilation", nd, 1)?,
        output_padding: per_axis(call, "output_padding", nd, 0)?,
        groups: i32::try_from(call.int_or("groups", 1)?).map_err(|_| call.refuse("groups", "beyond 32 bits"))?,
    };
    if nd == 3 && w.groups != 1 {
        return Err(call.refuse("groups", "MLX has no grouped convolution in three dimensions"));
    }
    if w.stride.iter().chain(&w.dilation).any(|&n| n < 1) || w.groups < 1 {
        return Err(call.refuse("stride", "strides, dilations and groups must be positive"));
    }
    Ok(w)
}

/// The input with channels last and a batch; and whether the batch was added here.
fn channels_last<'a>(cx: &mut Cx<'a>, call: &Call<'a>, nd: usize) -> Res<(Tid, bool)> {
    let mut x = cx.tensor(call.value("input")?)?;
    let ty = call.ty("input")?;
    if !ty.dtype.is_float() {
        return Err(call.refuse("input", "MLX convolves floats only"));
    }
    let batched = match ty.rank() {
        r if r == nd + 2 => true,
        r if r == nd + 1 => false,
        _ => return Err(call.refuse("input", &format!("must have {} or {} axes", nd + 1, nd + 2))),
    };
    if !batched {
        let one = x;
        x = cx.temp(|out| Instr::ExpandDims { x: one, out, axis: 0 });
    }
    let mut perm: Vec<usize> = vec![0];
    perm.extend(2..nd + 2);
    perm.push(1);
    Ok((transposed(cx, x, &perm), !batched))
}

/// Bias, back to channels first, and the batch removed again.
fn finish<'a>(cx: &mut Cx<'a>, call: &Call<'a>, mut y: Tid, nd: usize, added_batch: bool) -> Res {
    if !call.is_none("bias") {
        // A vector lines up with the last axis, which the channels are.
        let (a, b) = (y, cx.tensor(call.value("bias")?)?);
        y = cx.temp(|out| Instr::Add { a, b, out });
    }
    let mut perm: Vec<usize> = vec![0, nd + 1];
    perm.extend(1..nd + 1);
    y = transposed(cx, y, &perm);
    if added_batch {
        let x = y;
        return cx.define(call.out(0)?, |out| Instr::Squeeze { x, out, dims: Some(vec![0]) });
    }
    cx.bind(call.out(0)?, y)
}

/// The weight with its axes in this order: as a constant if it is a parameter, else when the program runs.
fn weight<'a>(cx: &mut Cx<'a>, call: &Call<'a>, perm: &[usize]) -> Res<Tid> {
    let v = call.value("weight")?;
    if let Some((name, data)) = cx.weight(v) {
        cx.depends(v);
        let data = permuted_data(data, perm).map_err(|e| call.refuse("weight", &e.to_string()))?;
        return cx.constant(&format!("{name}_channel_last"), data);
    }
    let x = cx.tensor(v)?;
    Ok(transposed(cx, x, perm))
}

fn forward<'a>(cx: &mut Cx<'a>, call: Call<'a>, nd: usize) -> Res {
    let w = windows(&call, nd)?;
    let (mut x, added) = channels_last(cx, &call, nd)?;
    let mut padding = w.padding.clone();
    if let Arg::Str(mode) = call.arg("padding") {
        let kernel = &call.ty("weight")?.shape[2..];
        let mut widths = vec![IntOrVid::Int(0); 2 * (nd + 2)];
        let mut lopsided = false;
        for i in 0..nd {
            let k = kernel.get(i).and_then(Expr::as_int).ok_or_else(|| call.refuse("weight", "the size of the kernel must be known"))?;
            let total = if &**mode == "same" { i64::from(w.dilation[i]) * (k - 1) } else { 0 };
            // What does not divide evenly goes to the end.
            widths[2 * (i + 1)] = (total / 2).into();
            widths[2 * (i + 1) + 1] = (total - total / 2).into();
            lopsided |= total % 2 == 1;
            padding[i] = (total / 2) as i32;
        }
        if lopsided {
            let whole = x;
            x = cx.temp(|out| Instr::Pad { x: whole, out, pad_width: widths, mode: "constant".to_owned(), constant_value: 0.0 });
            padding = vec![0; nd];
        }
    }
    let mut perm: Vec<usize> = vec![0];
    perm.extend(2..nd + 2);
    perm.push(1);
    let k = weight(cx, &call, &perm)?;
    let (s, p, d, groups) = (&w.stride, &padding, &w.dilation, w.groups);
    let y = cx.temp(|out| match nd {
        1 => Instr::Conv1D { x, w: k, out, stride: s[0], padding: p[0], dilation: d[0], groups },
        2 => Instr::Conv2D {
            x,
            w: k,
            out,
            stride_h: s[0],
            stride_w: s[1],
            padding_h: p[0],
            padding_w: p[1],
            dilation_h: d[0],
            dilation_w: d[1],
            groups,
        },
        _ => Instr::Conv3D {
            x,
            w: k,
            out,
            stride_d: s[0],
            stride_h: s[1],
            stride_w: s[2],
            padding_d: p[0],
            padding_h: p[1],
            padding_w: p[2],
            dilation_d: d[0],
            dilation_h: d[1],
            dilation_w: d[2],
            groups,
        },
    });
    finish(cx, &call, y, nd, added)
}

fn backward<'a>(cx: &mut Cx<'a>, call: Call<'a>, nd: usize) -> Res {
    let w = windows(&call, nd)?;
    let (x, added) = channels_last(cx, &call, nd)?;
    let k = if w.groups == 1 {
        // [in, out, …] to [out, …, in]
        let mut perm: Vec<usize> = (1..nd + 2).collect();
        perm.push(0);
        weight(cx, &call, &perm)?
    } else {
        grouped_weight(cx, &call, nd, w.groups)?
    };
    let (s, p, d, o, groups) = (&w.stride, &w.padding, &w.dilation, &w.output_padding, w.groups);
    let y = cx.temp(|out| match nd {
        1 => Instr::ConvTranspose1D { x, w: k, out, stride: s[0], padding: p[0], dilation: d[0], output_padding: o[0], groups },
        2 => Instr::ConvTranspose2D {
            x,
            w: k,
            out,
            stride_h: s[0],
            stride_w: s[1],
            padding_h: p[0],
            padding_w: p[1],
            dilation_h: d[0],
            dilation_w: d[1],
            output_padding_h: o[0],
            output_padding_w: o[1],
            groups,
        },
        _ => Instr::ConvTranspose3D {
            x,
            w: k,
            out,
            stride_d: s[0],
            stride_h: s[1],
            stride_w: s[2],
            padding_d: p[0],
            padding_h: p[1],
            padding_w: p[2],
            dilation_d: d[0],
            dilation_h: d[1],
            dilation_w: d[2],
            output_padding_d: o[0],
            output_padding_h: o[1],
            output_padding_w: o[2],
            groups,
        },
    });
    finish(cx, &call, y, nd, added)
}

/// `[G*I, O, …]` to `[G*O, …, I]`: the groups go from the inputs to the outputs.
fn grouped_weight<'a>(cx: &mut Cx<'a>, call: &Call<'a>, nd: usize, groups: i32) -> Res<Tid> {
    let v = call.value("weight")?;
    let shape = call.ty("weight")?.static_shape().ok_or_else(|| call.refuse("weight", "its sizes must be known at export"))?;
    let g = i64::from(groups);
    if shape[0] % g != 0 {
        return Err(call.refuse("groups", "does not divide the input channels"));
    }
    let (i, o) = (shape[0] / g, shape[1]);
    let mut split = vec![g, i, o];
    split.extend(&shape[2..]);
    let mut perm: Vec<usize> = vec![0, 2];
    perm.extend(3..nd + 3);
    perm.push(1);
    let mut joined = vec![g * o];
    joined.extend(&shape[2..]);
    joined.push(i);
    if let Some((name, data)) = cx.weight(v) {
        cx.depends(v);
        let unsigned = |sizes: &[i64]| sizes.iter().map(|&n| n as u64).collect::<Vec<u64>>();
        let data = data
            .reinterpret(data.dtype(), unsigned(&split))
            .and_then(|d| permuted_data(&d, &perm))
            .and_then(|d| d.reinterpret(d.dtype(), unsigned(&joined)))
            .map_err(|e| call.refuse("weight", &e.to_string()))?;
        return cx.constant(&format!("{name}_channel_last"), data);
    }
    let x = cx.tensor(v)?;
    let fixed = |sizes: Vec<i64>| sizes.into_iter().map(IntOrVid::Int).collect::<Vec<_>>();
    let x = cx.temp(|out| Instr::Reshape { x, out, shape: fixed(split) });
    let x = transposed(cx, x, &perm);
    Ok(cx.temp(|out| Instr::Reshape { x, out, shape: fixed(joined) }))
}

fn convolution<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let nd = call.ty("weight")?.rank().saturating_sub(2);
    if !(1..=3).contains(&nd) {
        return Err(call.refuse("weight", "must have one to three axes beside channels"));
    }
    if call.flag("transposed")? { backward(cx, call, nd) } else { forward(cx, call, nd) }
}
