//! Mixture of experts: sorting rows by expert, products with one matrix a row, and putting rows back.
//!
//! Many rows are sorted by expert so that each matrix is read once; few are not worth it. Where the number of rows is only
//! known when the program runs, both forms are there and the program chooses (`mlx-ops.md` §2.15).

use etx_ir::DType;
use etx_ir::sym::Expr;
use etx_ir::weights::TensorData;
use etx_mlx::{Instr, IntOrVid, Tid};

use super::super::call::{Call, Res};
use super::super::cx::Cx;
use super::super::derive::{Layout, biases, is_within, packed, repeated};
use super::Operator;
use super::linalg::factor;
use crate::backend::Refusal;

pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("mlx.gather_mm.default", gather_mm, "GatherMm"),
    Operator::new("mlx.gather_qmm.default", gather_qmm, "GatherQmm").when("groups that 32 does not divide, weights that are no parameters"),
    Operator::new(
        "mlx.moe_gather_inputs.default",
        gather_inputs,
        "Argsort, Take and the like, or Repeat; If where the number of rows is symbolic",
    ),
    Operator::new("mlx.moe_scatter_outputs.default", scatter_outputs, "Squeeze, Take, Reshape; If where the number of rows is symbolic"),
];

fn optional<'a>(cx: &mut Cx<'a>, call: &Call<'a>, name: &str) -> Res<Option<Tid>> {
    if call.is_none(name) { Ok(None) } else { cx.tensor(call.value(name)?).map(Some) }
}

/// Whether indices are sorted, as the instruction wants it: a number, or what a tensor says when the program runs.
fn sorted<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<IntOrVid> {
    if call.is_none("sorted_indices") {
        return Ok(0.into());
    }
    if let Some(b) = call.arg("sorted_indices").as_bool() {
        return Ok(i64::from(b).into());
    }
    let v = call.value("sorted_indices")?;
    // Made by the gathering in front: then it is known from the number of rows.
    if let Some(made) = call.graph.producer(v).map(|id| Call::new(call.graph, id))
        && made.node.op.target() == "mlx.moe_gather_inputs.default"
    {
        return condition(cx, &made.ty("x")?.shape[0].clone(), made.int("sort_cutoff")?);
    }
    let x = cx.tensor(v)?;
    Ok(cx.item(x)?.into())
}

/// Not zero from `cutoff` rows on.
fn condition(cx: &mut Cx<'_>, rows: &Expr, cutoff: i64) -> Res<IntOrVid> {
    if cutoff < 1 {
        return Ok(1.into());
    }
    cx.int(&rows.minus(&Expr::Int(1)).floor_div(&Expr::Int(cutoff)))
}

fn gather_mm<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let (a, b) = (factor(cx, &call, "a")?, factor(cx, &call, "b")?);
    let (lhs_indices, rhs_indices) = (optional(cx, &call, "lhs_indices")?, optional(cx, &call, "rhs_indices")?);
    let flag = sorted(cx, &call)?;
    cx.define(call.out(0)?, |out| Instr::GatherMm {
        a,
        b,
        out,
        lhs_indices,
        rhs_indices,
        sorted_indices: false,
        sorted_indices_flag: Some(flag),
    })
}

fn gather_qmm<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = factor(cx, &call, "x")?;
    let weight = |cx: &mut Cx<'a>, name: &str| -> Res<(&'a str, &'a TensorData)> {
        let v = call.value(name)?;
        let found = cx.weight(v).ok_or_else(|| call.refuse(name, "must be a weight to be repacked"))?;
        cx.depends(v);
        Ok(found)
    };
    let mode = if call.is_none("mode") { "affine" } else { call.str("mode")? };
    let (name, w) = weight(cx, "w")?;
    let (scale_name, scale) = weight(cx, "scales")?;
    let zeros = if call.is_none("biases") { None } else { Some(weight(cx, "biases")?) };
    let group = call.int_or("group_size", 32)?;
    let again = "quantise the experts again, in groups of 32, 64 or 128";
    let refuse = |what: String| Refusal::new(format!("weight {name} {}{:?}: {what}", w.dtype(), w.shape())).remedy(again);
    let described = |e: etx_ir::error::Error| refuse(e.to_string());
    let unit = match mode {
        "affine" => [128, 64, 32].into_iter().find(|unit| group > 0 && group % unit == 0),
        "nvfp4" => Some(16).filter(|_| group == 16),
        "mxfp4" | "mxfp8" => Some(32).filter(|_| group == 32),
        _ => return Err(call.refuse("mode", "experts are affine, nvfp4, mxfp4 or mxfp8")),
    };
    let Some(unit) = unit else { return Err(refuse(format!("groups of {group}; MLX groups 32, 64 or 128 values"))) };
    let [experts, rows, columns] = *w.shape() else { return Err(refuse("must be [experts, out, in]".to_owned())) };
    let each = match (mode, w.dtype()) {
        ("affine" | "mxfp4", DType::UInt8) if columns % 4 == 0 => 2,
        ("affine", DType::Int8) => 1,
        ("nvfp4", DType::UInt32) => 8,
        ("mxfp8", DType::Float8E4M3) if columns % 4 == 0 => 1,
        _ => return Err(refuse("codes must be int8, or uint8 holding two".to_owned())),
    };
    let values = columns.saturating_mul(each);
    let groups = [experts, rows, values / group as u64];
    for (name, data) in [(scale_name, scale)].into_iter().chain(zeros) {
        if values % group as u64 != 0 || *data.shape() != groups {
            return Err(refuse(format!("{name} {:?} does not have a number for each {group} of its {values} columns", data.shape())));
        }
        if mode == "affine" {
            cx.must_be_finite(name, data);
        }
    }
    let zeros = zeros.map(|(_, data)| data);
    // The width follows from the storage: bytes of two codes, or one code a byte.
    let (bits, words) = match (mode, w.dtype()) {
        ("affine" | "mxfp4", DType::UInt8) => (4, w.reinterpret(DType::UInt32, vec![experts, rows, columns / 4])),
        ("affine", _) => {
            let bits = match call.int_or("bits", 4)? {
                asked @ (2 | 3 | 5 | 6 | 8) => asked,
                // Exporters say four bits whatever they are, so the codes themselves decide, once they may be read.
                4 if cx.reads_weights && is_within(w, -8.0, 7.0).map_err(described)? => 4,
                4 => 8,
                _ => return Err(call.refuse("bits", "MLX packs 2, 3, 4, 5, 6 or 8 bits")),
            };
            (bits, packed(w, Layout::dense(bits as usize, columns as usize)))
        }
        ("nvfp4", _) => (4, Ok(w.clone())),
        _ => (8, w.reinterpret(DType::UInt32, vec![experts, rows, columns / 4])),
    };
    let words = words.map_err(described)?;
    let w = cx.constant(&format!("{name}_to_packed"), words)?;
    let (group, scales, biases) = if mode == "affine" {
        let times = (group / unit) as usize;
        let scale = repeated(scale, times).map_err(described)?;
        let zeros = zeros.map(|z| repeated(z, times)).transpose().map_err(described)?;
        let scales = cx.constant(scale_name, scale.clone())?;
        let data = biases(&scale, zeros.as_ref(), f32::from(1u8 << (bits - 1))).map_err(described)?;
        (unit, scales, Some(cx.constant(&format!("{name}_to_biases"), data)?))
    } else {
        let bytes = scale.reinterpret(DType::UInt8, scale.shape().to_vec()).map_err(described)?;
        (group, cx.constant(scale_name, bytes)?, None)
    };
    let (lhs_indices, rhs_indices) = (optional(cx, &call, "lhs_indices")?, optional(cx, &call, "rhs_indices")?);
    let flag = sorted(cx, &call)?;
    let transpose = call.is_none("transpose") || call.flag("transpose")?;
    cx.define(call.out(0)?, |out| Instr::GatherQmm {
        x,
        w,
        scales,
        out,
        mode: mode.to_owned(),
        biases,
        lhs_indices,
        rhs_indices,
        transpose,
        group_size: group as i32,
        bits: bits as i32,
        sorted_indices: false,
        sorted_indices_flag: Some(flag),
    })
}

fn gather_inputs<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let (x, index) = (cx.tensor(call.value("x")?)?, cx.tensor(call.value("expert_indices")?)?);
    let rows = call.ty("x")?.shape[0].clone();
    let top_k = call.int("top_k")?;
    let cond = condition(cx, &rows, call.int("sort_cutoff")?)?;
    let total = cx.int(&rows.times(&Expr::Int(top_k)))?;
    let types: Vec<DType> = (0..4).map(|i| call.out_ty(i).map(|t| t.dtype)).collect::<Res<_>>()?;
    let outs: Vec<Tid> = types.iter().map(|&t| cx.fresh_of(t)).collect();
    let k = cx.scalar(top_k as f64, DType::Int32)?;
    let flat = |cx: &mut Cx<'a>| cx.temp(|out| Instr::Reshape { x: index, out, shape: vec![(-1).into()] });
    let many = |cx: &mut Cx<'a>| -> Res {
        let experts = flat(cx);
        let order = cx.temp(|out| Instr::Argsort { x: experts, out, axis: 0 });
        let order = cx.cast(order, DType::Int32)?;
        let inverse = cx.temp(|out| Instr::Argsort { x: order, out, axis: 0 });
        cx.push(Instr::AsType { x: inverse, out: outs[3], scalar_type: types[3] });
        let sorted = cx.temp(|out| Instr::Take { x: experts, out, index: order.into(), axis: 0 });
        cx.push(Instr::AsType { x: sorted, out: outs[1], scalar_type: types[1] });
        let row = cx.temp(|out| Instr::FloorDivide { a: order, b: k, out });
        let row = cx.cast(row, DType::Int32)?;
        let picked = cx.temp(|out| Instr::Take { x, out, index: row.into(), axis: 0 });
        cx.push(Instr::ExpandDims { x: picked, out: outs[0], axis: -2 });
        cx.push(Instr::Full { out: outs[2], shape: vec![], v: 1.0.into(), scalar_type: types[2] });
        Ok(())
    };
    let few = |cx: &mut Cx<'a>| -> Res {
        let repeated = cx.temp(|out| Instr::Repeat { x, out, repeats: top_k.into(), axis: 0 });
        cx.push(Instr::ExpandDims { x: repeated, out: outs[0], axis: -2 });
        let experts = flat(cx);
        cx.push(Instr::AsType { x: experts, out: outs[1], scalar_type: types[1] });
        cx.push(Instr::Full { out: outs[2], shape: vec![], v: 0.0.into(), scalar_type: types[2] });
        cx.push(Instr::ARange { out: outs[3], start: 0.into(), stop: total, step: 1.into(), scalar_type: Some(types[3]) });
        Ok(())
    };
    cx.choose(cond, many, few)?;
    for (i, t) in outs.into_iter().enumerate() {
        cx.bind(call.out(i)?, t)?;
    }
    Ok(())
}

fn scatter_outputs<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let down = cx.tensor(call.value("down")?)?;
    let to = call.out_ty(0)?;
    let top_k = call.int("top_k")?;
    let flag = call.value("sort_experts")?;
    let made =
        call.graph.producer(flag).map(|id| Call::new(call.graph, id)).filter(|c| c.node.op.target() == "mlx.moe_gather_inputs.default");
    let cond = match made {
        Some(c) => condition(cx, &c.ty("x")?.shape[0].clone(), c.int("sort_cutoff")?)?,
        None => {
            let x = cx.tensor(flag)?;
            cx.item(x)?.into()
        }
    };
    let inverse = cx.tensor(call.value("inv_order")?)?;
    let rows = to.shape.first().ok_or_else(|| Refusal::new("the result has no rows"))?;
    let shape = vec![cx.int(rows)?, top_k.into(), (-1).into()];
    let y = cx.fresh_of(to.dtype);
    let squeezed = cx.temp(|out| Instr::Squeeze { x: down, out, dims: Some(vec![-2]) });
    let (many, few) = (shape.clone(), shape);
    cx.choose(
        cond,
        |cx| {
            let put_back = cx.temp(|out| Instr::Take { x: squeezed, out, index: inverse.into(), axis: 0 });
            cx.push(Instr::Reshape { x: put_back, out: y, shape: many });
            Ok(())
        },
        |cx| {
            cx.push(Instr::Reshape { x: squeezed, out: y, shape: few });
            Ok(())
        },
    )?;
    cx.bind(call.out(0)?, y)
}
