//! Quantised weights (`mlx-patterns.md` §2 to §5).
//!
//! Exported programs dequantise a weight and then use it. Where the user is a linear layer or an embedding, the lowering
//! reads the codes instead, repacked for MLX, and the dequantisation disappears; elsewhere it becomes an instruction.

use etx_ir::DType;
use etx_ir::graph::{Arg, ValueId};
use etx_ir::mlx::{Instr, Tid};
use etx_ir::weights::TensorData;

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::super::derive::{packed, permuted_data, repeated};
use super::Operator;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("torchao.dequantize_affine.default", standalone, "nothing where a linear layer or embedding reads it, else Dequantize")
        .when("other widths than 2, 4, 5, 6, 8 bits, groups that 16 does not divide"),
    Operator::new(
        "torchao.dequantize_int4_tensor.default",
        standalone,
        "nothing where a linear layer or embedding reads it, else Dequantize",
    ),
    Operator::new(
        "torchao.dequantize_nvfp4.default",
        standalone,
        "nothing where a linear layer or embedding reads it, else Dequantize, Multiply",
    ),
    Operator::new("torchao.dequantize_mx.default", standalone, "nothing where a linear layer or embedding reads it, else Dequantize")
        .when("elements that are not float8_e4m3fn, blocks that are not 32"),
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
    /// Where groups do not run along the last axis: the shape of the codes with that axis last, and the way back.
    turned: Option<(Vec<i64>, Vec<usize>)>,
}

/// Groups that MLX's kernels have, largest first.
const GROUPS: [i64; 4] = [128, 64, 32, 16];

fn described(e: etx_ir::error::Error) -> Refusal {
    Refusal::new(e.to_string())
}

/// A tensor argument of the dequantisation that must be a weight: its bytes are repacked when the program is made.
fn stored<'a>(cx: &mut Cx<'a>, call: &Call<'a>, name: &str) -> Res<(&'a str, &'a TensorData)> {
    let v = call.value(name)?;
    let found = cx.weight(v).ok_or_else(|| call.refuse(name, "must be a weight to be repacked"))?;
    cx.depends(v);
    Ok(found)
}

/// The weight that this value dequantises, or why MLX cannot take it as it is.
fn weight<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    match call.node.op.target() {
        "torchao.dequantize_affine.default" => affine(cx, call),
        "torchao.dequantize_int4_tensor.default" => int4(cx, call),
        "torchao.dequantize_nvfp4.default" => nvfp4(cx, call),
        "torchao.dequantize_mx.default" => mx(cx, call),
        other => Err(Refusal::new(format!("{other} is no dequantisation of a weight"))),
    }
}

/// The dequantisation behind a value, if that is what makes it.
pub(super) fn dequantised<'a>(cx: &mut Cx<'a>, call: &Call<'a>, v: ValueId) -> Option<Res<Quantised>> {
    let made = Call::new(call.graph, call.graph.producer(v)?);
    OPERATORS.iter().any(|o| o.target == made.node.op.target()).then(|| weight(cx, &made))
}

fn affine<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    if !matches!(call.arg("input_dtype"), Arg::DType(DType::Int8)) {
        return Err(call.refuse("input_dtype", "codes must be int8"));
    }
    let ty = call.ty("input")?;
    let shape = ty.static_shape().ok_or_else(|| call.refuse("input", "its sizes must be known at export"))?;
    let block = call.ints("block_size")?;
    let grouped: Vec<usize> = (0..block.len()).filter(|&i| block[i] != 1).collect();
    let (&[axis], true) = (grouped.as_slice(), block.len() == shape.len() && shape.len() > 1) else {
        return Err(call.refuse("block_size", "groups must run along one axis"));
    };
    let group = block[axis];
    let levels = call.float("quant_max")? - call.float("quant_min")? + 1.0;
    let bits = [2i64, 4, 5, 6, 8].into_iter().find(|&b| levels == f64::from(1u32 << b)).ok_or_else(|| {
        call.refuse("quant_max", "MLX packs 2, 4, 5, 6 or 8 bits").remedy("quantise to one of these widths; a wider one loses nothing")
    })?;
    let unit = *GROUPS.iter().find(|&&g| group % g == 0).ok_or_else(|| {
        call.refuse("block_size", "MLX groups 16, 32, 64 or 128 values").remedy("quantise with a group size that 32 divides")
    })?;
    let (name, codes) = stored(cx, call, "input")?;
    let (scale_name, scales) = stored(cx, call, "scale")?;
    let zeros = if call.is_none("zero_point") { None } else { Some(stored(cx, call, "zero_point")?.1) };
    if shape[axis] % group != 0 || scales.shape().get(axis).map(|&n| n as i64) != Some(shape[axis] / group) {
        return Err(call.refuse("scale", &format!("must have one scale for each {group} of {} values", shape[axis])));
    }
    let turned = (axis + 1 != shape.len()).then(|| {
        let mut perm: Vec<usize> = (0..shape.len()).filter(|&i| i != axis).collect();
        perm.push(axis);
        perm
    });
    // The grouped axis last, everything else rows.
    let rows = |data: &TensorData| match &turned {
        None => Ok(data.clone()),
        Some(perm) => permuted_data(data, perm).and_then(|d| {
            let last = d.shape().last().copied().unwrap_or(1);
            d.reinterpret(d.dtype(), vec![d.numel() / last.max(1), last])
        }),
    };
    let (codes, scales) = (rows(codes).map_err(described)?, rows(scales).map_err(described)?);
    let zeros = zeros.map(rows).transpose().map_err(described)?;
    let times = (group / unit) as usize;
    let scales = repeated(&scales, times).map_err(described)?;
    let zeros = zeros.map(|z| repeated(&z, times)).transpose().map_err(described)?;
    let codes = packed(&codes, bits as usize).map_err(described)?;
    let offset = f32::from(1u8 << (bits - 1));
    let w = cx.constant(&format!("{name}_to_packed"), codes)?;
    let scales_tid = cx.constant(scale_name, scales.clone())?;
    let biases = cx.biases(&format!("{name}_to_biases"), scales_tid, &scales, zeros.as_ref(), offset, 0.0)?;
    let turned = turned.map(|perm| {
        let mut back = vec![0; perm.len()];
        perm.iter().enumerate().for_each(|(i, &p)| back[p] = i);
        (perm.iter().map(|&p| shape[p]).collect(), back)
    });
    Ok(Quantised {
        w,
        scales: scales_tid,
        biases: Some(biases),
        group: unit as i32,
        bits: bits as i32,
        mode: "affine",
        factor: None,
        turned,
    })
}

/// Two codes a byte, scales and zero points transposed, zero points counted from the lowest code.
fn int4<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    let (name, codes) = stored(cx, call, "qdata")?;
    let (scale_name, scales) = stored(cx, call, "scale")?;
    let (_, zeros) = stored(cx, call, "zero_point")?;
    let group = call.int("group_size")?;
    let [rows, bytes] = *codes.shape() else { return Err(call.refuse("qdata", "must have two axes")) };
    let unit = *GROUPS.iter().find(|&&g| group % g == 0).ok_or_else(|| call.refuse("group_size", "MLX groups 16, 32, 64 or 128 values"))?;
    if bytes % 4 != 0 {
        return Err(call.refuse("qdata", "a row must fill 32-bit words"));
    }
    let words = codes.reinterpret(DType::UInt32, vec![rows, bytes / 4]).map_err(described)?;
    let times = (group / unit) as usize;
    let turned = |d: &TensorData| permuted_data(d, &[1, 0]).and_then(|d| repeated(&d, times));
    let (scales, zeros) = (turned(scales).map_err(described)?, turned(zeros).map_err(described)?);
    let w = cx.constant(&format!("{name}_int4_to_packed"), words)?;
    let scales_tid = cx.constant(&format!("{scale_name}_int4_scales"), scales.clone())?;
    // Codes and zero points both count from the lowest code, so that no offset is left but the middle one when it is 8.
    let biases = cx.biases(&format!("{name}_int4_to_biases"), scales_tid, &scales, Some(&zeros), 0.0, 8.0)?;
    Ok(Quantised { w, scales: scales_tid, biases: Some(biases), group: unit as i32, bits: 4, mode: "affine", factor: None, turned: None })
}

fn nvfp4<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    if call.int("block_size")? != 16 {
        return Err(call.refuse("block_size", "NVFP4 has blocks of 16"));
    }
    let (name, codes) = stored(cx, call, "qdata")?;
    let (scale_name, scales) = stored(cx, call, "scale")?;
    let (factor_name, factor) = stored(cx, call, "per_tensor_scale")?;
    if codes.dtype() != DType::UInt32 || scales.dtype() != DType::UInt8 {
        return Err(call.refuse("qdata", "codes must be 32-bit words and scales bytes"));
    }
    let one = super::super::consts::numbers(factor).is_some_and(|n| n == [1.0]);
    let w = cx.constant(name, codes.clone())?;
    let scales = cx.constant(scale_name, scales.clone())?;
    let factor = if one { None } else { Some(cx.constant(factor_name, factor.clone())?) };
    Ok(Quantised { w, scales, biases: None, group: 16, bits: 4, mode: "nvfp4", factor, turned: None })
}

fn mx<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    if !matches!(call.arg("elem_dtype"), Arg::DType(DType::Float8E4M3)) {
        return Err(call.refuse("elem_dtype", "MLX has MXFP8 with e4m3 elements only"));
    }
    if call.int("block_size")? != 32 {
        return Err(call.refuse("block_size", "MXFP8 has blocks of 32"));
    }
    let (name, codes) = stored(cx, call, "qdata")?;
    let (scale_name, scales) = stored(cx, call, "scale")?;
    let [rows, columns] = *codes.shape() else { return Err(call.refuse("qdata", "must have two axes")) };
    if columns % 4 != 0 {
        return Err(call.refuse("qdata", "a row must fill 32-bit words"));
    }
    let words = codes.reinterpret(DType::UInt32, vec![rows, columns / 4]).map_err(described)?;
    let bytes = scales.reinterpret(DType::UInt8, scales.shape().to_vec()).map_err(described)?;
    let w = cx.constant(&format!("{name}_mx_packed"), words)?;
    let scales = cx.constant(&format!("{scale_name}_mx_u8"), bytes)?;
    Ok(Quantised { w, scales, biases: None, group: 32, bits: 8, mode: "mxfp8", factor: None, turned: None })
}

impl Quantised {
    /// Whether MLX multiplies by it: its affine kernels start at groups of 32.
    pub(super) fn multiplies(&self) -> bool {
        self.is_plain() && (self.mode != "affine" || self.group >= 32)
    }

    /// Whether rows of the weight are rows of the codes.
    pub(super) fn is_plain(&self) -> bool {
        self.turned.is_none()
    }

    /// `x @ weight^T`, scaled.
    pub(super) fn product(&self, cx: &mut Cx<'_>, x: Tid) -> Tid {
        let (w, scales, biases, group_size, bits) = (self.w, self.scales, self.biases, self.group, self.bits);
        let mode = self.mode.to_owned();
        let y = cx.temp(|out| Instr::QuantizedMatmul { x, w, scales, out, biases, group_size, bits, mode, transpose: true });
        self.scaled(cx, y)
    }

    /// Rows picked by `index`, as numbers of type `dtype`.
    pub(super) fn rows(&self, cx: &mut Cx<'_>, index: Tid, dtype: DType) -> Tid {
        let mut take = |x: Tid| cx.temp(|out| Instr::Take { x, out, index: index.into(), axis: 0 });
        let (w, scales, biases) = (take(self.w), take(self.scales), self.biases.map(&mut take));
        self.numbers(cx, w, scales, biases, dtype)
    }

    /// All of it, as numbers of type `dtype`.
    fn all(&self, cx: &mut Cx<'_>, dtype: DType) -> Tid {
        self.numbers(cx, self.w, self.scales, self.biases, dtype)
    }

    fn numbers(&self, cx: &mut Cx<'_>, w: Tid, scales: Tid, biases: Option<Tid>, dtype: DType) -> Tid {
        let (group_size, bits, mode) = (self.group, self.bits, self.mode.to_owned());
        let y = cx.temp(|out| Instr::Dequantize { w, scales, out, biases, group_size, bits, mode, global_scale: None, dtype: Some(dtype) });
        self.scaled(cx, y)
    }

    fn scaled(&self, cx: &mut Cx<'_>, a: Tid) -> Tid {
        match self.factor {
            Some(b) => cx.temp(|out| Instr::Multiply { a, b, out }),
            None => a,
        }
    }
}

fn standalone<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let q = weight(cx, &call)?;
    let mut y = q.all(cx, call.out_ty(0)?.dtype);
    if let Some((shape, back)) = &q.turned {
        let (x, shape) = (y, shape.iter().map(|&n| n.into()).collect());
        let x = cx.temp(|out| Instr::Reshape { x, out, shape });
        y = super::shape::transposed(cx, x, back);
    }
    cx.bind(call.out(0)?, y)
}
