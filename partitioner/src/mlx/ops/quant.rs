//! Quantised weights (`mlx-patterns.md` §2 to §6).
//!
//! Exported programs dequantise a weight and then use it. Where the user is a linear layer or an embedding, the lowering
//! reads the codes instead, repacked for MLX, and the dequantisation disappears; elsewhere it becomes an instruction.

mod weights;

use etx_ir::DType;
use etx_ir::graph::ValueId;
use etx_ir::sym::Dim;
use etx_mlx::{Instr, IntOrVid, Tid};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::Operator;

/// What a dequantisation becomes.
const BECOMES: &str = "nothing where a linear layer or embedding reads it, else Dequantize";

/// What a look-up in a quantised table becomes.
const TABLE: &str = "Take of codes, scales and biases, Dequantize";

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("torchao.dequantize_affine.default", standalone, BECOMES)
        .when("codes that are computed, more than 8 bits, groups along several axes or so short that padding would more than double them"),
    Operator::new("torchao.dequantize_int4_tensor.default", standalone, BECOMES).when("codes that are computed"),
    Operator::new(
        "torchao.dequantize_nvfp4.default",
        standalone,
        "nothing where a linear layer or embedding reads it, else Dequantize, Multiply",
    )
    .when("codes that are computed"),
    Operator::new("torchao.dequantize_mx.default", standalone, BECOMES)
        .when("codes that are computed, elements but float8_e4m3fn and pairs of e2m1, blocks that are not 32"),
    Operator::new("torchao.dequantize_gguf.default", standalone, BECOMES).when("blocks that are computed, types but q4_k, q5_k, q6_k"),
    Operator::new("quantized_decomposed.dequantize_per_channel.default", standalone, BECOMES)
        .when("codes that are computed, an axis but the first"),
    Operator::new("quantized_decomposed.embedding_byte.default", table, TABLE),
    Operator::new("quantized_decomposed.embedding_byte.dtype", table, TABLE),
    Operator::new("quantized_decomposed.embedding_4bit.default", table, TABLE),
    Operator::new("quantized_decomposed.embedding_4bit.dtype", table, TABLE),
    Operator::new("quantized_decomposed.embedding_2bit.default", table, TABLE),
    Operator::new("quantized_decomposed.embedding_2bit.dtype", table, TABLE),
    Operator::new("quantized_decomposed.dequantize_per_tensor.default", standalone, BECOMES).when("codes that are computed"),
    Operator::new("quantized_decomposed.dequantize_per_channel_group.default", standalone, BECOMES).when("codes that are computed"),
];

/// A weight as MLX wants it.
pub(super) struct Quantised {
    w: Tid,
    scales: Tid,
    biases: Option<Tid>,
    group: i32,
    bits: i32,
    mode: &'static str,
    /// A factor for everything, if it is not 1.
    factor: Option<Tid>,
    /// Where rows are not the codes' own: groups of the weight that MLX has no kernel for are padded with zeros.
    padded: Option<Padded>,
    /// Where the codes are a matrix that stands for another shape.
    turned: Option<Turned>,
}

/// Groups of a row that take more room than they have elements.
#[derive(Clone, Copy)]
struct Padded {
    groups: i64,
    from: i64,
    to: i64,
}

/// The shape of the codes' elements, the shape they are read as (if another), and the way from its axes to those of the weight.
struct Turned {
    stored: Vec<i64>,
    shape: Option<Vec<i64>>,
    back: Option<Vec<usize>>,
}

/// The dequantisation behind a value, if that is what makes it.
pub(super) fn dequantised<'a>(cx: &mut Cx<'a>, call: &Call<'a>, v: ValueId) -> Option<Res<Quantised>> {
    let made = Call::new(call.graph, call.graph.producer(v)?);
    weights::is_dequantisation(made.node.op).then(|| weights::weight(cx, &made))
}

impl Quantised {
    /// Whether MLX multiplies by it: rows of the weight are rows of the codes.
    pub(super) fn is_plain(&self) -> bool {
        self.turned.is_none()
    }

    /// `x @ weight^T`, scaled. The last size of `x`, of this shape, is that of the rows.
    pub(super) fn product(&self, cx: &mut Cx<'_>, x: Tid, shape: &[Dim]) -> Res<Tid> {
        let x = match self.padded {
            Some(p) => spread(cx, x, shape, p)?,
            None => x,
        };
        let (w, scales, biases, group_size, bits) = (self.w, self.scales, self.biases, self.group, self.bits);
        let mode = self.mode.to_owned();
        let y = cx.temp(|out| Instr::QuantizedMatmul { x, w, scales, out, biases, group_size, bits, mode, transpose: true });
        Ok(self.scaled(cx, y))
    }

    /// Rows picked by `index`, as numbers of type `dtype`; `shape` is that of the result.
    pub(super) fn rows(&self, cx: &mut Cx<'_>, index: Tid, dtype: DType, shape: &[Dim]) -> Res<Tid> {
        let mut take = |x: Tid| cx.temp(|out| Instr::Take { x, out, index: index.into(), axis: 0 });
        let (w, scales, biases) = (take(self.w), take(self.scales), self.biases.map(&mut take));
        self.numbers(cx, w, scales, biases, dtype, shape)
    }

    /// All of it, as numbers of type `dtype`.
    fn all(&self, cx: &mut Cx<'_>, dtype: DType, shape: &[Dim]) -> Res<Tid> {
        let Some(turned) = &self.turned else { return self.numbers(cx, self.w, self.scales, self.biases, dtype, shape) };
        let stored: Vec<Dim> = turned.stored.iter().map(|&n| Dim::Int(n)).collect();
        let mut y = self.numbers(cx, self.w, self.scales, self.biases, dtype, &stored)?;
        if let Some(shape) = &turned.shape {
            let (x, shape) = (y, shape.iter().map(|&n| n.into()).collect());
            y = cx.temp(|out| Instr::Reshape { x, out, shape });
        }
        Ok(match &turned.back {
            Some(back) => super::shape::transposed(cx, y, back),
            None => y,
        })
    }

    fn numbers(&self, cx: &mut Cx<'_>, w: Tid, scales: Tid, biases: Option<Tid>, dtype: DType, shape: &[Dim]) -> Res<Tid> {
        let (group_size, bits, mode) = (self.group, self.bits, self.mode.to_owned());
        let y = cx.temp(|out| Instr::Dequantize { w, scales, out, biases, group_size, bits, mode, global_scale: None, dtype: Some(dtype) });
        let y = match self.padded {
            Some(p) => gathered(cx, y, shape, p)?,
            None => y,
        };
        Ok(self.scaled(cx, y))
    }

    fn scaled(&self, cx: &mut Cx<'_>, a: Tid) -> Tid {
        match self.factor {
            Some(b) => cx.temp(|out| Instr::Multiply { a, b, out }),
            None => a,
        }
    }
}

/// The sizes of `shape` with the last one made two: groups, and elements of a group.
fn grouped(cx: &mut Cx<'_>, shape: &[Dim], groups: i64, each: i64) -> Res<Vec<IntOrVid>> {
    let mut dims: Vec<Dim> = shape.iter().take(shape.len().saturating_sub(1)).cloned().collect();
    dims.extend([Dim::Int(groups), Dim::Int(each)]);
    cx.reshape_dims(&dims)
}

fn with_last(cx: &mut Cx<'_>, shape: &[Dim], last: i64) -> Res<Vec<IntOrVid>> {
    let mut dims: Vec<Dim> = shape.to_vec();
    if let Some(n) = dims.last_mut() {
        *n = Dim::Int(last);
    }
    cx.reshape_dims(&dims)
}

/// Rows with zeros after each group.
fn spread(cx: &mut Cx<'_>, x: Tid, shape: &[Dim], p: Padded) -> Res<Tid> {
    let sizes = grouped(cx, shape, p.groups, p.from)?;
    let x = if p.groups == 1 { x } else { cx.temp(|out| Instr::Reshape { x, out, shape: sizes }) };
    let mut pad_width = vec![IntOrVid::Int(0); 2 * (shape.len() + usize::from(p.groups != 1))];
    if let Some(after) = pad_width.last_mut() {
        *after = IntOrVid::Int(p.to - p.from);
    }
    let x = cx.temp(|out| Instr::Pad { x, out, pad_width, mode: "constant".to_owned(), constant_value: 0.0 });
    if p.groups == 1 {
        return Ok(x);
    }
    let sizes = with_last(cx, shape, p.groups * p.to)?;
    Ok(cx.temp(|out| Instr::Reshape { x, out, shape: sizes }))
}

/// Rows without what was put after each group.
fn gathered(cx: &mut Cx<'_>, x: Tid, shape: &[Dim], p: Padded) -> Res<Tid> {
    let axis = shape.len() as i64 - i64::from(p.groups == 1);
    let sizes = grouped(cx, shape, p.groups, p.to)?;
    let x = if p.groups == 1 { x } else { cx.temp(|out| Instr::Reshape { x, out, shape: sizes }) };
    let x = cx.temp(|out| Instr::Slice { x, out, axis: axis.into(), start: 0.into(), stop: p.from.into(), step: 1 });
    if p.groups == 1 {
        return Ok(x);
    }
    let sizes = with_last(cx, shape, p.groups * p.from)?;
    Ok(cx.temp(|out| Instr::Reshape { x, out, shape: sizes }))
}

fn standalone<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let q = weights::weight(cx, &call)?;
    let to = call.out_ty(0)?;
    let y = q.all(cx, to.dtype, &to.shape)?;
    cx.bind(call.out(0)?, y)
}

/// Rows of a quantised table.
fn table<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let index = cx.tensor(call.value("indices")?)?;
    let q = weights::table(cx, &call)?;
    let to = call.out_ty(0)?;
    // A single row would be a vector, which MLX does not dequantise.
    if to.rank() < 2 {
        return Err(call.refuse("indices", "a single index").remedy("look up a list of one index"));
    }
    let y = q.rows(cx, index, to.dtype, &to.shape)?;
    cx.bind(call.out(0)?, y)
}

#[cfg(test)]
mod tests;
