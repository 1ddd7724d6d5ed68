//! From the arguments of a dequantisation to a weight as MLX wants it: everything that can be wrong with them is found here.

use etx_ir::DType;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::weights::TensorData;

use super::super::super::call::{Call, Res};
use super::super::super::consts::numbers;
use super::super::super::cx::Cx;
use super::super::super::derive::gguf::{Kind, Part, unblocked};
use super::super::super::derive::{Layout, packed, permuted_data, repeated, unpacked};
use super::{Padded, Quantised, Turned};
use crate::backend::Refusal;

/// Groups that MLX's kernels have on every device, largest first.
const GROUPS: [i64; 3] = [128, 64, 32];

/// Widths that MLX packs.
const WIDTHS: [u32; 6] = [2, 3, 4, 5, 6, 8];

/// What to do about a weight that is stored wrongly.
const AGAIN: &str = "quantise the weight again and export it anew";

fn described(name: &str) -> impl Fn(etx_ir::error::Error) -> Refusal {
    move |e| Refusal::new(format!("weight {name}: {e}")).remedy(AGAIN)
}

/// A weight among the arguments of a dequantisation.
#[derive(Clone)]
struct Stored<'a> {
    name: &'a str,
    data: TensorData,
}

impl Stored<'_> {
    fn refuse(&self, what: impl std::fmt::Display) -> Refusal {
        Refusal::new(format!("weight {} {}{:?}: {what}", self.name, self.data.dtype(), self.data.shape())).remedy(AGAIN)
    }
}

/// A tensor argument of the dequantisation that must be a weight: its bytes are repacked when the program is made.
fn stored<'a>(cx: &mut Cx<'a>, call: &Call<'a>, name: &str) -> Res<Stored<'a>> {
    let v = call.value(name)?;
    let (name, data) = cx.weight(v).ok_or_else(|| {
        call.refuse(name, "must be a weight to be repacked").remedy("dequantise computed codes with aten operators, or store them")
    })?;
    cx.depends(v);
    Ok(Stored { name, data: data.clone() })
}

/// How a dequantisation is read.
type Read = for<'a> fn(&mut Cx<'a>, &Call<'a>) -> Res<Quantised>;

/// Every dequantisation of a weight.
const FORMS: [(OpId, Read); 8] = [
    (op!("torchao.dequantize_affine.default"), affine),
    (op!("torchao.dequantize_int4_tensor.default"), int4),
    (op!("torchao.dequantize_nvfp4.default"), nvfp4),
    (op!("torchao.dequantize_mx.default"), mx),
    (op!("torchao.dequantize_gguf.default"), gguf),
    (op!("quantized_decomposed.dequantize_per_tensor.default"), per_tensor),
    (op!("quantized_decomposed.dequantize_per_channel.default"), per_channel),
    (op!("quantized_decomposed.dequantize_per_channel_group.default"), per_group),
];

/// Whether a call of the operator makes a weight of codes.
pub(super) fn is_dequantisation(op: OpId) -> bool {
    FORMS.iter().any(|(of, _)| *of == op)
}

/// The weight that a call dequantises, or why MLX cannot take it as it is.
pub(super) fn weight<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    match FORMS.iter().find(|(of, _)| *of == call.node.op) {
        Some((_, read)) => read(cx, call),
        None => Err(Refusal::new(format!("{} is no dequantisation of a weight", call.node.op.target()))),
    }
}

/// The table of a quantised embedding: a byte a code, or two or four codes in one, the middle one of their width being 0.
pub(super) fn table<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    let mut codes = stored(cx, call, "weight")?;
    let per_byte = match call.node.op.schema().name.as_str() {
        "embedding_byte" => 1,
        "embedding_4bit" => 2,
        _ => 4,
    };
    let mut range = own_range(codes.data.dtype());
    if per_byte > 1 {
        // Four bits are stored with the first code in the high half, two bits from the low end.
        codes.data = unpacked(&codes.data, per_byte, per_byte == 2).map_err(described(codes.name))?;
        let half = f64::from(1 << (8 / per_byte - 1));
        range = [-half, half - 1.0];
    }
    let [rows, columns] = *codes.data.shape() else { return Err(codes.refuse("must have two axes")) };
    let scales = stored(cx, call, "weight_scales")?;
    let zeros = if call.is_none("weight_zero_points") { None } else { Some(stored(cx, call, "weight_zero_points")?) };
    let groups = scales.data.numel() / rows.max(1);
    if groups == 0 || columns % groups != 0 {
        return Err(scales.refuse(format!(
            "there must be a number of them for each row of weight {} {:?}",
            codes.name,
            codes.data.shape()
        )));
    }
    let block = vec![1, (columns / groups) as i64];
    Affine { codes, scales, zeros, block, range }.packed(cx)
}

/// An affine quantisation: a value is `scale · (code - zero point)`, with one scale and one zero point a group.
struct Affine<'a> {
    codes: Stored<'a>,
    scales: Stored<'a>,
    zeros: Option<Stored<'a>>,
    /// Elements along each axis that share a scale.
    block: Vec<i64>,
    /// The least and the greatest code.
    range: [f64; 2],
}

fn affine<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    let codes = stored(cx, call, "input")?;
    if !matches!(call.arg("input_dtype"), Arg::DType(t) if *t == codes.data.dtype()) {
        return Err(call.refuse("input_dtype", "codes must be of the type they are stored in"));
    }
    let scales = stored(cx, call, "scale")?;
    let zeros = if call.is_none("zero_point") { None } else { Some(stored(cx, call, "zero_point")?) };
    let given = call.ints("block_size")?;
    let block = given.iter().zip(codes.data.shape()).map(|(&b, &n)| if b < 0 { n as i64 } else { b }).collect();
    let own = own_range(codes.data.dtype());
    let range = [call.float_or("quant_min", own[0])?, call.float_or("quant_max", own[1])?];
    if given.len() != codes.data.shape().len() {
        return Err(call.refuse("block_size", "there must be one size for each axis"));
    }
    Affine { codes, scales, zeros, block, range }.packed(cx)
}

fn own_range(t: DType) -> [f64; 2] {
    if t == DType::UInt8 { [0.0, 255.0] } else { [-128.0, 127.0] }
}

/// PyTorch's own quantiser, one scale for each element of an axis.
fn per_channel<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    let rank = call.ty("input")?.rank();
    if call.axis("axis", rank)? != 0 {
        return Err(call.refuse("axis", "channels must run along the first axis"));
    }
    let codes = stored(cx, call, "input")?;
    let block = codes.data.shape().iter().enumerate().map(|(i, &n)| if i == 0 { 1 } else { n as i64 }).collect();
    decomposed(cx, call, codes, block)
}

fn per_group<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    let codes = stored(cx, call, "input")?;
    let mut block = vec![1; codes.data.shape().len()];
    if let Some(last) = block.last_mut() {
        *last = call.int("group_size")?;
    }
    decomposed(cx, call, codes, block)
}

/// One scale and one zero point, which are literals.
fn per_tensor<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    let codes = stored(cx, call, "input")?;
    let literal = |value: f64| {
        let data = TensorData::inline(DType::Float32, vec![1], (value as f32).to_le_bytes());
        data.map(|data| Stored { name: codes.name, data }).map_err(described(codes.name))
    };
    let (scales, zeros) = (literal(call.float("scale")?)?, Some(literal(call.float("zero_point")?)?));
    let range = [call.float("quant_min")?, call.float("quant_max")?];
    let block = codes.data.shape().iter().map(|&n| n as i64).collect();
    Affine { codes, scales, zeros, block, range }.packed(cx)
}

fn decomposed<'a>(cx: &mut Cx<'a>, call: &Call<'a>, codes: Stored<'a>, block: Vec<i64>) -> Res<Quantised> {
    let scales = stored(cx, call, "scales")?;
    let zeros = if call.is_none("zero_points") { None } else { Some(stored(cx, call, "zero_points")?) };
    let range = [call.float("quant_min")?, call.float("quant_max")?];
    Affine { codes, scales, zeros, block, range }.packed(cx)
}

/// Codes of so many bits, from the least one on.
fn width([low, high]: [f64; 2], name: &str) -> Res<(usize, i16)> {
    let whole = low.fract() == 0.0 && high.fract() == 0.0 && low >= -128.0 && high <= 255.0 && low < high;
    let found = WIDTHS.into_iter().find(|&b| high - low < f64::from(1u32 << b)).filter(|_| whole);
    let bits = found.ok_or_else(|| {
        Refusal::new(format!("weight {name} has codes from {low} to {high}, MLX packs whole ones of 2, 3, 4, 5, 6 or 8 bits"))
            .remedy("quantise to one of these widths")
    })?;
    // Signed codes keep their middle at half of the range, also if they leave the lowest one out.
    let half = f64::from(1u32 << (bits - 1));
    let least = if low >= -half && high < half && low < 0.0 { -half } else { low };
    Ok((bits as usize, -least as i16))
}

/// The group that MLX gets for groups of `group`, and what each is padded to if it has none that fits.
fn regrouped(group: i64, columns: i64, name: &str) -> Res<(i64, i64)> {
    if let Some(&unit) = GROUPS.iter().find(|&&g| group > 0 && group % g == 0) {
        return Ok((unit, group));
    }
    let padded = (group.max(1) as u64).next_multiple_of(32) as i64;
    // Rows of one group have no other form; shorter groups may take twice their room.
    if group < 1 || (group != columns && padded > 2 * group) {
        return Err(Refusal::new(format!("weight {name} is quantised in groups of {group}, MLX has groups of 32, 64 and 128"))
            .remedy("quantise with a group size that 32 divides, or 16"));
    }
    let unit = GROUPS.into_iter().find(|g| padded % g == 0).unwrap_or(32);
    Ok((unit, padded))
}

/// What constants call the scales; those that are literals go by the weight.
fn scales_name(scales: &Stored<'_>, weight: &str) -> String {
    if scales.name == weight { format!("{weight}_scale") } else { scales.name.to_owned() }
}

impl<'a> Affine<'a> {
    /// Codes, scales and zero points as matrices whose rows the groups divide: the axes of the weight in this order (if not
    /// its own), so many of them rows.
    fn arrangement(&self) -> Res<(Option<Vec<usize>>, usize)> {
        let shape = self.codes.data.shape();
        let rank = shape.len();
        let spans: Vec<usize> = (0..rank).filter(|&i| self.block[i] != 1).collect();
        // From the first axis that a group spans on, groups must hold all of the axes but the first of them.
        let first = spans.first().copied().unwrap_or(rank.saturating_sub(1));
        if self.block.iter().zip(shape).skip(first + 1).all(|(&b, &n)| b == n as i64) {
            return Ok((None, first));
        }
        match spans.as_slice() {
            &[axis] => {
                let mut perm: Vec<usize> = (0..rank).filter(|&i| i != axis).collect();
                perm.push(axis);
                Ok((Some(perm), rank - 1))
            }
            _ => Err(self
                .codes
                .refuse(format!("blocks of {:?} do not run along one axis", self.block))
                .remedy("quantise in groups along the last axis, or by channel")),
        }
    }

    /// One number for each group, as a matrix.
    fn of_groups(&self, of: &Stored<'a>, perm: Option<&[usize]>, rows: u64, groups: u64) -> Res<TensorData> {
        let shape: Vec<u64> = self.codes.data.shape().iter().zip(&self.block).map(|(&n, &b)| n / b as u64).collect();
        let data = &of.data;
        if Some(data.numel()) != rows.checked_mul(groups) || (perm.is_some() && data.shape() != shape) {
            let weight = self.codes.name;
            return Err(of.refuse(format!(
                "there must be {} of them, one for each {:?} of weight {weight} {:?}",
                rows.saturating_mul(groups),
                self.block,
                self.codes.data.shape()
            )));
        }
        let turned = match perm {
            Some(perm) => permuted_data(data, perm).map_err(described(of.name))?,
            None => data.clone(),
        };
        turned.reinterpret(data.dtype(), vec![rows, groups]).map_err(described(of.name))
    }

    fn packed(&self, cx: &mut Cx<'a>) -> Res<Quantised> {
        let (codes, name) = (&self.codes, self.codes.name);
        let shape: Vec<i64> = codes.data.shape().iter().map(|&n| n as i64).collect();
        if !matches!(codes.data.dtype(), DType::Int8 | DType::UInt8) {
            return Err(codes.refuse("codes must be int8 or uint8"));
        }
        let (bits, offset) = width(self.range, name)?;
        if self.block.iter().zip(&shape).any(|(&b, &n)| b < 1 || n % b != 0) || shape.is_empty() {
            return Err(codes
                .refuse(format!("blocks of {:?} do not divide it", self.block))
                .remedy("quantise with a group size that divides the row"));
        }
        if !matches!(self.scales.data.dtype(), DType::Float32 | DType::Float16 | DType::BFloat16) {
            return Err(self.scales.refuse("scales must be float32, float16 or bfloat16"));
        }
        let (perm, mut split) = self.arrangement()?;
        // Rows of a matrix that share one scale get one each.
        let mut alike = 1;
        if let (0, &[together, _]) = (split, self.block.as_slice()) {
            (split, alike) = (1, together);
        }
        let axes: Vec<i64> = match &perm {
            Some(perm) => perm.iter().map(|&i| shape[i]).collect(),
            None => shape.clone(),
        };
        let (rows, columns): (i64, i64) = (axes.iter().take(split).product(), axes.iter().skip(split).product());
        // What a group holds of a row.
        let group = if perm.is_some() { self.block.iter().product() } else { self.block.iter().skip(split).product::<i64>() };
        if columns == 0 || rows == 0 {
            return Err(codes.refuse("it is empty"));
        }
        let groups = columns / group;
        let (unit, padded) = regrouped(group, columns, name)?;
        let perm_ref = perm.as_deref();
        // A weight grouped along one axis keeps its other axes.
        let keeps_axes = split > 0 && split + 1 == shape.len();
        let leading: Vec<u64> = if keeps_axes { axes.iter().take(split).map(|&n| n as u64).collect() } else { vec![rows as u64] };
        let factors = |of: &Stored<'a>| {
            let matrix = self.of_groups(of, perm_ref, (rows / alike) as u64, groups as u64)?;
            let times = (alike * (padded / unit)) as usize;
            let width = (groups * (padded / unit)) as u64;
            repeated(&matrix, times)
                .and_then(|m| m.reinterpret(m.dtype(), [leading.as_slice(), &[width]].concat()))
                .map_err(described(of.name))
        };
        let scales = factors(&self.scales)?;
        let zeros = self.zeros.as_ref().map(factors).transpose()?;
        let matrix = match perm_ref {
            Some(perm) => permuted_data(&codes.data, perm).map_err(described(name))?,
            None => codes.data.clone(),
        };
        let matrix = matrix.reinterpret(codes.data.dtype(), [leading.as_slice(), &[columns as u64]].concat()).map_err(described(name))?;
        let dense = padded == group;
        let layout = Layout {
            bits,
            offset,
            group: if dense { columns } else { group } as usize,
            padded: if dense { columns } else { padded } as usize,
        };
        let words = packed(&matrix, layout).map_err(described(name))?;
        for of in [Some(&self.scales), self.zeros.as_ref()].into_iter().flatten().filter(|of| of.data.dtype().is_float()) {
            cx.must_be_finite(of.name, &of.data);
        }
        let w = cx.constant(&format!("{name}_to_packed"), words)?;
        let scales_tid = cx.constant(&scales_name(&self.scales, name), scales.clone())?;
        let biases = cx.biases(&format!("{name}_to_biases"), scales_tid, &scales, zeros.as_ref(), f32::from(offset), 0.0)?;
        let turned = (!keeps_axes || perm.is_some()).then(|| Turned {
            stored: if keeps_axes { axes.clone() } else { vec![rows, columns] },
            shape: (!keeps_axes).then_some(axes),
            back: perm.map(|perm| {
                let mut back = vec![0; perm.len()];
                perm.iter().enumerate().for_each(|(i, &p)| back[p] = i);
                back
            }),
        });
        Ok(Quantised {
            w,
            scales: scales_tid,
            biases: Some(biases),
            group: unit as i32,
            bits: bits as i32,
            mode: "affine",
            factor: None,
            padded: (!dense).then_some(Padded { groups, from: group, to: padded }),
            turned,
        })
    }
}

/// Two codes a byte, scales and zero points transposed, zero points counted from the lowest code.
fn int4<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    let (codes, scales, zeros) = (stored(cx, call, "qdata")?, stored(cx, call, "scale")?, stored(cx, call, "zero_point")?);
    let (name, group) = (codes.name, call.int("group_size")?);
    let [rows, bytes] = *codes.data.shape() else { return Err(codes.refuse("must have two axes")) };
    let columns = bytes.saturating_mul(2);
    let unit = GROUPS.into_iter().find(|g| group > 0 && group % g == 0).ok_or_else(|| {
        Refusal::new(format!("weight {name} is quantised in groups of {group}, MLX has groups of 32, 64 and 128"))
            .remedy("quantise with a group size that 32 divides")
    })?;
    if codes.data.dtype() != DType::UInt8 || columns % group as u64 != 0 {
        return Err(codes.refuse(format!("a row of bytes must hold whole groups of {group} codes")));
    }
    let words = codes.data.reinterpret(DType::UInt32, vec![rows, bytes / 4]).map_err(described(name))?;
    let times = (group / unit) as usize;
    let turned = |of: &Stored<'a>| {
        if *of.data.shape() != [columns / group as u64, rows] {
            return Err(of.refuse(format!("must be [{}, {rows}], one for each {group} codes of weight {name}", columns / group as u64)));
        }
        permuted_data(&of.data, &[1, 0]).and_then(|d| repeated(&d, times)).map_err(described(of.name))
    };
    let (by_row, zeros) = (turned(&scales)?, turned(&zeros)?);
    cx.must_be_finite(scales.name, &scales.data);
    let w = cx.constant(&format!("{name}_int4_to_packed"), words)?;
    let scales_tid = cx.constant(&format!("{}_int4_scales", scales.name), by_row.clone())?;
    // Codes and zero points both count from the lowest code, so that no offset is left but the middle one when it is 8.
    let biases = cx.biases(&format!("{name}_int4_to_biases"), scales_tid, &by_row, Some(&zeros), 0.0, 8.0)?;
    Ok(Quantised::plain(w, scales_tid, Some(biases), unit, 4, "affine"))
}

fn nvfp4<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    if call.int("block_size")? != 16 {
        return Err(call.refuse("block_size", "NVFP4 has blocks of 16"));
    }
    let (codes, scales, factor) = (stored(cx, call, "qdata")?, stored(cx, call, "scale")?, stored(cx, call, "per_tensor_scale")?);
    if codes.data.dtype() != DType::UInt32 {
        return Err(codes.refuse("codes must be 32-bit words"));
    }
    let [rows, words] = *codes.data.shape() else { return Err(codes.refuse("must have two axes")) };
    if scales.data.dtype() != DType::UInt8 || words % 2 != 0 || *scales.data.shape() != [rows, words / 2] {
        return Err(scales.refuse(format!("must be bytes [{rows}, {}], one for each 16 codes of weight {}", words / 2, codes.name)));
    }
    if factor.data.dtype() != DType::Float32 || factor.data.numel() != 1 {
        return Err(factor.refuse("must be one float32"));
    }
    cx.must_be_finite(factor.name, &factor.data);
    let scale_numbers = scales.data.reinterpret(DType::Float8E4M3, scales.data.shape().to_vec()).map_err(described(scales.name))?;
    cx.must_be_finite(scales.name, &scale_numbers);
    let one = numbers(&factor.data).is_some_and(|n| n == [1.0]);
    let w = cx.constant(codes.name, codes.data.clone())?;
    let scales = cx.constant(scales.name, scales.data.clone())?;
    let factor = if one { None } else { Some(cx.constant(factor.name, factor.data.clone())?) };
    Ok(Quantised { factor, ..Quantised::plain(w, scales, None, 16, 4, "nvfp4") })
}

fn mx<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    // Elements of four bits have no number in a program: they go by what torchao stores them as, two a byte.
    let (per_byte, mode) = match call.arg("elem_dtype") {
        Arg::DType(DType::Float8E4M3) => (1, "mxfp8"),
        Arg::DType(DType::UInt8) => (2, "mxfp4"),
        other => {
            let what = match other {
                Arg::DType(t) => t.to_string(),
                Arg::Str(name) => name.to_string(),
                _ => "unknown ones".to_owned(),
            };
            return Err(call
                .refuse("elem_dtype", &format!("MLX has MX blocks of e4m3 and e2m1 elements, not of {what}"))
                .remedy("quantise to MXFP8 (float8_e4m3fn), MXFP4 or NVFP4"));
        }
    };
    if call.int("block_size")? != 32 {
        return Err(call.refuse("block_size", "MX formats have blocks of 32"));
    }
    let (codes, scales) = (stored(cx, call, "qdata")?, stored(cx, call, "scale")?);
    let [rows, bytes] = *codes.data.shape() else { return Err(codes.refuse("must have two axes")) };
    let columns = bytes.saturating_mul(per_byte);
    if codes.data.dtype().size() != 1 || columns % 32 != 0 {
        return Err(codes.refuse("a row must hold whole blocks of 32 elements"));
    }
    if scales.data.dtype().size() != 1 || *scales.data.shape() != [rows, columns / 32] {
        return Err(scales.refuse(format!("must be [{rows}, {}], one for each 32 elements of weight {}", columns / 32, codes.name)));
    }
    let words = codes.data.reinterpret(DType::UInt32, vec![rows, bytes / 4]).map_err(described(codes.name))?;
    let bytes = scales.data.reinterpret(DType::UInt8, scales.data.shape().to_vec()).map_err(described(scales.name))?;
    // MLX takes the code that is no number for infinity.
    let numbers = scales.data.reinterpret(DType::Float8E8M0, scales.data.shape().to_vec()).map_err(described(scales.name))?;
    cx.must_be_finite(scales.name, &numbers);
    let w = cx.constant(&format!("{}_mx_packed", codes.name), words)?;
    let scales = cx.constant(&format!("{}_mx_u8", scales.name), bytes)?;
    Ok(Quantised::plain(w, scales, None, 32, 8 / per_byte as i32, mode))
}

/// Blocks of GGML's K-quants. Factors have the type of what is made of them; biases are what the blocks say, not recomputed
/// from a zero point, so that nothing is lost in `f32`.
fn gguf<'a>(cx: &mut Cx<'a>, call: &Call<'a>) -> Res<Quantised> {
    let kind = Kind::named(call.str("ggml_type")?)
        .ok_or_else(|| call.refuse("ggml_type", "q4_k, q5_k and q6_k are read").remedy("convert the checkpoint to one of these"))?;
    let to = call.out_ty(0)?.dtype;
    if !matches!(to, DType::Float32 | DType::Float16 | DType::BFloat16) {
        return Err(call.refuse("output_dtype", "must be float32, float16 or bfloat16"));
    }
    let blob = stored(cx, call, "weight")?;
    let (name, tag) = (blob.name, kind.tag());
    let part = |part: Part| unblocked(&blob.data, kind, part).map_err(described(name));
    let w = cx.constant(&format!("{name}_{tag}_packed"), part(Part::Codes { padded: 32 })?)?;
    let scales = part(Part::Scales(to))?;
    let groups = scales.shape().last().map_or(0, |&n| n as i64);
    let scales_tid = cx.constant(&format!("{name}_{tag}_scales"), scales.clone())?;
    let bias_name = format!("{name}_{tag}_to_biases");
    let biases = match kind {
        // The middle code is zero: the biases are a multiple of the scales.
        Kind::Q6K => cx.biases(&bias_name, scales_tid, &scales, None, 32.0, 0.0)?,
        _ => cx.constant(&bias_name, part(Part::Biases(to))?)?,
    };
    let from = kind.group() as i64;
    let padded = (from != 32).then_some(Padded { groups, from, to: 32 });
    Ok(Quantised { padded, ..Quantised::plain(w, scales_tid, Some(biases), 32, kind.bits() as i32, "affine") })
}

impl Quantised {
    /// A matrix as it is stored.
    fn plain(w: etx_mlx::Tid, scales: etx_mlx::Tid, biases: Option<etx_mlx::Tid>, group: i64, bits: i32, mode: &'static str) -> Self {
        Self { w, scales, biases, group: group as i32, bits, mode, factor: None, padded: None, turned: None }
    }
}
