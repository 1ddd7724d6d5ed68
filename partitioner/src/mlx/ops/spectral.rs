//! Short-time Fourier transforms: windows by strides, times a matrix of sines and cosines.

use etx_ir::DType;
use etx_ir::sym::Expr;
use etx_mlx::{Instr, IntOrVid, Tid};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::super::derive;
use super::Operator;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("aten.stft.default", stft, "AsStrided, Multiply, Addmm, Reshape, Transpose; Addmm, Reshape of one frame")
        .when("results are complex numbers that nothing takes apart, or signals are not f32"),
    Operator::new("aten.view_as_real.default", pairs, "a constant").when("it is not of a weight"),
];

/// The complex numbers of a weight, whose bytes are pairs.
fn pairs<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let v = call.value("self")?;
    let Some((name, data)) = cx.weight(v).filter(|(_, d)| d.dtype() == DType::Complex64) else {
        return Err(call.refuse("self", "complex numbers that nothing takes apart"));
    };
    let shape = data.shape().iter().copied().chain([2]).collect();
    let real = data.reinterpret(DType::Float32, shape).map_err(|e| Refusal::new(e.to_string()))?;
    let name = format!("{name}_pairs");
    cx.depends(v);
    let t = cx.constant(&name, real)?;
    cx.bind(call.out(0)?, t)
}

/// Longer windows would make the matrix larger than a transform is worth.
const MAX_WINDOW: i64 = 4096;

/// `X[b, k, m, :] = Σₙ w[n]·x[b, m·hop + n]·(cos(2πkn/N), -sin(2πkn/N))`. Source: torch.stft.
fn stft<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let (ty, to) = (call.ty("self")?, call.out_ty(0)?);
    if ty.dtype != DType::Float32 || to.dtype != DType::Float32 {
        return Err(call.refuse("self", "MLX takes real signals of single precision, and gives pairs of real numbers"));
    }
    if call.flag("align_to_window")? {
        return Err(call.refuse("align_to_window", "frames start with the transform"));
    }
    let size = call.int("n_fft")?;
    let hop = call.int_or("hop_length", size / 4)?;
    let window = call.int_or("win_length", size)?;
    if !(1..=MAX_WINDOW).contains(&size) || hop < 1 || !(1..=size).contains(&window) {
        return Err(call.refuse("n_fft", &format!("transforms are of 1 to {MAX_WINDOW} elements, steps and windows no less than 1")));
    }
    let bins = if call.is_none("onesided") || call.flag("onesided")? { size / 2 + 1 } else { size };
    let (Some((length, batch)), [.., frames, _]) = (ty.shape.split_last(), &to.shape[..]) else {
        return Err(call.refuse("self", "must be [batch, length] or [length]"));
    };
    let mut x = cx.tensor(call.value("self")?)?;
    // A shorter window stands in the middle; around it is nothing to multiply.
    let first = (size - window) / 2;
    // One frame that is all of the signal lies as it is.
    let single = window == size && *frames == Expr::Int(1) && *length == Expr::Int(size);
    let mut shape: Vec<Expr> = batch.to_vec();
    shape.extend([frames.clone(), Expr::Int(window)]);
    let mut strides: Vec<Expr> = batch.iter().map(|_| length.clone()).collect();
    strides.extend([Expr::Int(hop), Expr::Int(1)]);
    if !single {
        let (shape, strides) = (cx.dims(&shape)?, cx.dims(&strides)?);
        let signal = x;
        x = cx.temp(|out| Instr::AsStrided { x: signal, out, shape, strides, offset: first as u64 });
    }
    if !call.is_none("window") {
        let weights = call.ty("window")?;
        if weights.dtype != DType::Float32 || weights.shape != [Expr::Int(window)] {
            return Err(call.refuse("window", &format!("must be f32[{window}]")));
        }
        let (a, b) = (x, cx.tensor(call.value("window")?)?);
        x = cx.temp(|out| Instr::Multiply { a, b, out });
    }
    let scale = if call.flag("normalized")? { (size as f64).sqrt().recip() } else { 1.0 };
    let mat2 = basis(cx, size, first, window, bins, scale)?;
    let mat1 = x;
    let product = cx.temp(|out| Instr::Addmm { mat1, mat2, out, bias: None, alpha: 1.0, beta: 1.0 });
    if single {
        let shape = cx.reshape_dims(&to.shape)?;
        return cx.define(call.out(0)?, |out| Instr::Reshape { x: product, out, shape });
    }
    let mut shape: Vec<Expr> = batch.to_vec();
    shape.extend([frames.clone(), Expr::Int(bins), Expr::Int(2)]);
    let shape: Vec<IntOrVid> = cx.dims(&shape)?;
    let pairs = cx.temp(|out| Instr::Reshape { x: product, out, shape });
    let b = batch.len() as i32;
    let perm = (0..b).chain([b + 1, b, b + 2]).collect();
    cx.define(call.out(0)?, |out| Instr::Transpose { x: pairs, out, perm })
}

/// Matrices from this size on are made when the program is loaded.
const LARGE: u64 = 1 << 14;

/// The matrix of the transform: small ones are stored, large ones are gathered once from the circle that they consist of, bit
/// by bit the same.
fn basis(cx: &mut Cx<'_>, size: i64, first: i64, window: i64, bins: i64, scale: f64) -> Res<Tid> {
    let described = |e: etx_ir::error::Error| Refusal::new(e.to_string());
    let whole = derive::fourier(size as u64, first as u64, window as u64, bins as u64, scale).map_err(described)?;
    let name = format!("_fourier_{size}_{first}_{window}_{bins}");
    if whole.byte_len() < LARGE {
        return cx.constant(&name, whole);
    }
    let circle = cx.constant(&format!("_circle_{size}"), derive::circle(size as u64, scale).map_err(described)?)?;
    let turn = cx.scalar(size as f64, DType::Int32)?;
    let (row, column) =
        (cx.made_at_start(&format!("{name}_rows"), DType::Int32)?, cx.made_at_start(&format!("{name}_bins"), DType::Int32)?);
    cx.made_once(&name, &whole, |matrix| {
        let count = |out: Tid, from: i64, to: i64| Instr::ARange {
            out,
            start: from.into(),
            stop: to.into(),
            step: 1.into(),
            scalar_type: Some(DType::Int32),
        };
        vec![
            count(row, first, first + window),
            Instr::Reshape { x: row, out: row, shape: vec![window.into(), 1.into()] },
            count(column, 0, bins),
            // Steps of the circle, exact as integers: a whole turn is none.
            Instr::Multiply { a: row, b: column, out: row },
            Instr::Remainder { a: row, b: turn, out: row },
            Instr::Take { x: circle, out: matrix, index: row.into(), axis: 0 },
            Instr::Reshape { x: matrix, out: matrix, shape: vec![window.into(), (2 * bins).into()] },
        ]
    })
}
