//! Resampling, padding by other elements, and windows: an index worked out when the program is made, or for resampling of
//! symbolic sizes when it runs, and a `Take` an axis.

use etx_ir::DType;
use etx_ir::graph::{Arg, TensorType, ValueId};
use etx_ir::sym::Expr;
use etx_ir::weights::TensorData;
use etx_mlx::{FloatOrVid, Instr, IntOrVid, Tid};

use super::super::call::{Call, ROUND, Res, makes};
use super::super::consts::element;
use super::super::cx::Cx;
use super::Operator;
use super::shape::broadcast_dims;
use crate::backend::Refusal;

macro_rules! upsample {
    ($nd:literal $kind:ident $($target:literal)*) => {
        [$(Operator::new($target, |cx, call| upsample(cx, call, $nd, Kind::$kind), Kind::$kind.becomes()).when(Kind::$kind.refused())),*]
    };
}

const STATIC: &str = "spatial sizes are symbolic";
const OUTPUT: &str = "the size of the result is symbolic";

const NEAREST1: [Operator; 2] = upsample!(1 Nearest "aten.upsample_nearest1d.vec" "aten.upsample_nearest1d.default");
const NEAREST2: [Operator; 2] = upsample!(2 Nearest "aten.upsample_nearest2d.vec" "aten.upsample_nearest2d.default");
const NEAREST3: [Operator; 2] = upsample!(3 Nearest "aten.upsample_nearest3d.vec" "aten.upsample_nearest3d.default");
const EXACT1: [Operator; 2] = upsample!(1 NearestExact "aten._upsample_nearest_exact1d.vec" "aten._upsample_nearest_exact1d.default");
const EXACT2: [Operator; 2] = upsample!(2 NearestExact "aten._upsample_nearest_exact2d.vec" "aten._upsample_nearest_exact2d.default");
const EXACT3: [Operator; 2] = upsample!(3 NearestExact "aten._upsample_nearest_exact3d.vec" "aten._upsample_nearest_exact3d.default");
const LINEAR1: [Operator; 2] = upsample!(1 Linear "aten.upsample_linear1d.vec" "aten.upsample_linear1d.default");
const LINEAR2: [Operator; 2] = upsample!(2 Linear "aten.upsample_bilinear2d.vec" "aten.upsample_bilinear2d.default");
const LINEAR3: [Operator; 2] = upsample!(3 Linear "aten.upsample_trilinear3d.vec" "aten.upsample_trilinear3d.default");
const CUBIC2: [Operator; 2] = upsample!(2 Cubic "aten.upsample_bicubic2d.vec" "aten.upsample_bicubic2d.default");
const SMOOTH2: [Operator; 2] = upsample!(2 LinearSmooth "aten._upsample_bilinear2d_aa.vec" "aten._upsample_bilinear2d_aa.default");
const SMOOTHER2: [Operator; 2] = upsample!(2 CubicSmooth "aten._upsample_bicubic2d_aa.vec" "aten._upsample_bicubic2d_aa.default");

pub(super) const OPERATORS: &[&[Operator]] = &[
    &NEAREST1,
    &NEAREST2,
    &NEAREST3,
    &EXACT1,
    &EXACT2,
    &EXACT3,
    &LINEAR1,
    &LINEAR2,
    &LINEAR3,
    &CUBIC2,
    &SMOOTH2,
    &SMOOTHER2,
    &[
        Operator::new("aten.reflection_pad1d.default", |cx, call| pad(cx, call, Edge::Reflected), "Take an axis"),
        Operator::new("aten.reflection_pad2d.default", |cx, call| pad(cx, call, Edge::Reflected), "Take an axis"),
        Operator::new("aten.reflection_pad3d.default", |cx, call| pad(cx, call, Edge::Reflected), "Take an axis"),
        Operator::new("aten.replication_pad1d.default", |cx, call| pad(cx, call, Edge::Replicated), "Take an axis"),
        Operator::new("aten.replication_pad2d.default", |cx, call| pad(cx, call, Edge::Replicated), "Take an axis"),
        Operator::new("aten.replication_pad3d.default", |cx, call| pad(cx, call, Edge::Replicated), "Take an axis"),
        Operator::new("aten._pad_circular.default", |cx, call| pad(cx, call, Edge::Wrapped), "Take an axis"),
        Operator::new("aten.adaptive_avg_pool1d.default", |cx, call| adaptive(cx, call, 1, false), "Slice, Mean, Concatenate an axis")
            .when(OUTPUT),
        Operator::new("aten.adaptive_avg_pool2d.default", |cx, call| adaptive(cx, call, 2, false), "Slice, Mean, Concatenate an axis")
            .when(OUTPUT),
        Operator::new("aten.adaptive_avg_pool3d.default", |cx, call| adaptive(cx, call, 3, false), "Slice, Mean, Concatenate an axis")
            .when(OUTPUT),
        Operator::new("aten._adaptive_avg_pool2d.default", |cx, call| adaptive(cx, call, 2, false), "Slice, Mean, Concatenate an axis")
            .when(OUTPUT),
        Operator::new("aten._adaptive_avg_pool3d.default", |cx, call| adaptive(cx, call, 3, false), "Slice, Mean, Concatenate an axis")
            .when(OUTPUT),
        Operator::new("aten.adaptive_max_pool1d.default", |cx, call| adaptive(cx, call, 1, true), "Slice, Max, Concatenate an axis")
            .when(OUTPUT),
        Operator::new("aten.adaptive_max_pool2d.default", |cx, call| adaptive(cx, call, 2, true), "Slice, Max, Concatenate an axis")
            .when(OUTPUT),
        Operator::new("aten.adaptive_max_pool3d.default", |cx, call| adaptive(cx, call, 3, true), "Slice, Max, Concatenate an axis")
            .when(OUTPUT),
        Operator::new("aten.unfold.default", unfold, "AsStrided, Transpose").when("the size along the axis is symbolic"),
        Operator::new("aten.unfold_copy.default", unfold, "AsStrided, Transpose").when("the size along the axis is symbolic"),
        Operator::new("aten.as_strided.default", as_strided, "AsStrided").when("the tensor is a view, or not row-major"),
    ],
];

/// How elements between those of the input are found.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Nearest,
    NearestExact,
    Linear,
    Cubic,
    LinearSmooth,
    CubicSmooth,
}

impl Kind {
    const fn becomes(self) -> &'static str {
        match self {
            Kind::Nearest | Kind::NearestExact => "Take, or Repeat by a whole symbolic factor, an axis",
            Kind::LinearSmooth | Kind::CubicSmooth => "Addmm an axis",
            _ => "Take, Multiply, Add an axis and tap",
        }
    }

    const fn refused(self) -> &'static str {
        match self {
            Kind::LinearSmooth | Kind::CubicSmooth => STATIC,
            _ => "sizes that cannot be computed",
        }
    }
}

/// One contribution to every output along an axis: which element, and how much of it.
struct Tap {
    index: Vec<i64>,
    weight: Vec<f32>,
}

/// How far outputs are apart. Source: torch's UpSample.h; all in single precision, as there.
fn step(from: i64, to: i64, scale: Option<f64>, align_corners: bool) -> f32 {
    match (align_corners, scale) {
        (true, _) => {
            if to > 1 {
                (from - 1) as f32 / (to - 1) as f32
            } else {
                0.0
            }
        }
        (false, Some(s)) if s > 0.0 => (1.0 / s) as f32,
        _ => from as f32 / to as f32,
    }
}

const A: f32 = -0.75;

/// What every output takes of every input, `[to, from]`: as far as a kernel reaches that grows with the step. Source: torch's
/// UpSampleKernel.cpp for antialiasing.
fn smooth(kind: Kind, from: i64, to: i64, step: f32) -> Vec<f32> {
    let kernel = |x: f32| {
        let x = x.abs();
        match kind {
            Kind::LinearSmooth => (1.0 - x).max(0.0),
            _ if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            _ if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            _ => 0.0,
        }
    };
    let wide = step.max(1.0);
    let reach = wide * if kind == Kind::LinearSmooth { 1.0 } else { 2.0 };
    let mut matrix = Vec::new();
    for i in 0..to {
        let centre = step * (i as f32 + 0.5);
        let (first, end) = (((centre - reach + 0.5) as i64).max(0), ((centre + reach + 0.5) as i64).min(from));
        let weight = |j: i64| if (first..end).contains(&j) { kernel((j as f32 - centre + 0.5) / wide) } else { 0.0 };
        let total: f32 = (first..end).map(weight).sum();
        matrix.extend((0..from).map(|j| if total == 0.0 { 0.0 } else { weight(j) / total }));
    }
    matrix
}

/// Whether elements are taken as they lie, each once or twice, whatever the factor says. So does the one of torch's two kernels for
/// images that runs while height and width come to no more than 128; for symbolic sizes the factor counts. Source: torch's
/// UpSampleKernel.cpp (`_use_vectorized_kernel_cond_2d`) and UpSample.h (`nearest_idx`).
fn as_they_lie(kind: Kind, (from, to): (&Expr, &Expr), image: &[Expr]) -> bool {
    let known: Option<Vec<i64>> = image.iter().map(Expr::as_int).collect();
    let small = known.is_some_and(|sizes| sizes.len() == 2 && sizes.iter().fold(0i64, |sum, n| sum.saturating_add(*n)) <= 128);
    kind == Kind::Nearest && small && (from == to || from.times(&Expr::Int(2)) == *to)
}

/// All contributions along an axis. Source: torch's UpSample.h; all in single precision, as there.
fn taps(kind: Kind, from: i64, to: i64, scale: Option<f64>, align_corners: bool) -> Vec<Tap> {
    let step = step(from, to, scale, align_corners);
    let clamp = |i: i64| i.min(from - 1).max(0);
    let at = |k: i64| if align_corners { step * k as f32 } else { step * (k as f32 + 0.5) - 0.5 };
    match kind {
        Kind::Nearest => vec![Tap { index: (0..to).map(|k| clamp((k as f32 * step).floor() as i64)).collect(), weight: vec![] }],
        Kind::NearestExact => {
            vec![Tap { index: (0..to).map(|k| clamp(((k as f32 + 0.5) * step).floor() as i64)).collect(), weight: vec![] }]
        }
        Kind::Linear => {
            let place = |k: i64| {
                let x = at(k).max(0.0);
                let low = clamp(x.floor() as i64);
                (low, (x - low as f32).clamp(0.0, 1.0))
            };
            vec![
                Tap { index: (0..to).map(|k| place(k).0).collect(), weight: (0..to).map(|k| 1.0 - place(k).1).collect() },
                Tap { index: (0..to).map(|k| clamp(place(k).0 + 1)).collect(), weight: (0..to).map(|k| place(k).1).collect() },
            ]
        }
        _ => {
            let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
            let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
            let weight = |i: i64, t: f32| match i {
                -1 => far(t + 1.0),
                0 => near(t),
                1 => near(1.0 - t),
                _ => far(2.0 - t),
            };
            let place = |k: i64| (at(k).floor() as i64, at(k) - at(k).floor());
            (-1..=2)
                .map(|i| Tap {
                    index: (0..to).map(|k| clamp(place(k).0 + i)).collect(),
                    weight: (0..to).map(|k| weight(i, place(k).1)).collect(),
                })
                .collect()
        }
    }
}

/// The operand, which different overloads call differently.
fn source<'a>(call: &Call<'a>) -> Res<(ValueId, &'a TensorType)> {
    let name = if call.node.op.schema().position("self").is_some() { "self" } else { "input" };
    Ok((call.value(name)?, call.ty(name)?))
}

fn known(e: Option<&Expr>) -> Res<i64> {
    e.and_then(Expr::as_int).ok_or_else(|| Refusal::new("spatial sizes must be known at export"))
}

fn upsample<'a>(cx: &mut Cx<'a>, call: Call<'a>, nd: usize, kind: Kind) -> Res {
    let (v, ty) = source(&call)?;
    let mut x = cx.tensor(v)?;
    let lead = ty.rank().saturating_sub(nd);
    let list = call.arg("scale_factors").as_list().unwrap_or(&[]);
    let align = call.flag("align_corners")?;
    let to = call.out_ty(0)?;
    if !matches!(kind, Kind::Nearest | Kind::NearestExact) && ty.dtype.size() < 4 {
        if !ty.dtype.is_float() {
            return Err(call.refuse("self", "integers are mixed in a precision of their own").remedy("cast the image to float"));
        }
        // Halves are mixed in single precision and rounded once.
        x = cx.cast(x, DType::Float32)?;
    }
    let mut sizes = ty.shape.clone();
    for i in 0..nd {
        let axis = lead + i;
        let (Some(from), Some(target)) = (ty.shape.get(axis), to.shape.get(axis)) else {
            return Err(Refusal::new("fewer axes than are resampled"));
        };
        let named = if nd == 1 { "scales" } else { ["scales_d", "scales_h", "scales_w"][3 - nd + i] };
        let scale = list.get(i).and_then(Arg::as_float).or_else(|| call.arg(named).as_float());
        sizes[axis] = target.clone();
        let scale = scale.filter(|_| !as_they_lie(kind, (from, target), to.shape.get(lead..).unwrap_or_default()));
        if from == target && from.as_int().is_none() && scale.is_none_or(|s| s == 1.0) {
            continue;
        }
        if matches!(kind, Kind::LinearSmooth | Kind::CubicSmooth) {
            let (n, m) = (known(Some(from))?, known(Some(target))?);
            // Neighbours that hold too much for a matrix hold too much for the result, too.
            makes(n, m)?;
            let mix = smooth(kind, n, m, step(n, m, scale, align));
            let columns = i + 1 == nd;
            x = mixed(cx, x, &mix, (n, m), columns)?;
            continue;
        }
        if *from == Expr::Int(1) && kind != Kind::Cubic {
            // There is but one element to take, whatever the weights.
            if *target != Expr::Int(1) {
                let mut narrow = sizes.clone();
                narrow[axis] = Expr::Int(1);
                let (one, shape) = (x, broadcast_dims(cx, &narrow, &sizes)?);
                x = cx.temp(|out| Instr::BroadcastTo { x: one, out, shape });
            }
            continue;
        }
        let taps = match (from.as_int(), target.as_int()) {
            (Some(n), Some(m)) => {
                makes(m, if kind == Kind::Cubic { 8 } else { 4 })?;
                let taps = taps(kind, n, m, scale, align);
                let same =
                    |t: &Tap| n == m && t.index.iter().enumerate().all(|(a, &b)| a as i64 == b) && t.weight.iter().all(|&w| w == 1.0);
                if taps.first().is_some_and(same) && taps.iter().skip(1).all(|t| t.weight.iter().all(|&w| w == 0.0)) {
                    continue;
                }
                let mut made = Vec::new();
                for tap in taps {
                    let index = cx.int_vector(&format!("_resample_{n}_{m}"), &tap.index, DType::Int32)?;
                    let weight = if tap.weight.is_empty() { None } else { Some(weights(cx, &tap.weight, nd - 1 - i)?) };
                    made.push((index, weight));
                }
                made
            }
            _ => match whole_factor(kind, from, target) {
                Some(k) => {
                    x = super::shape::repeated(cx, x, &sizes, k.into(), axis)?;
                    continue;
                }
                None => symbolic_taps(cx, kind, (from, target), scale, align, nd - 1 - i)?,
            },
        };
        let axis = axis as i32;
        let mut sum: Option<Tid> = None;
        for (index, weight) in taps {
            let from = x;
            let mut part = cx.temp(|out| Instr::Take { x: from, out, index: index.into(), axis });
            if let Some(b) = weight {
                let a = part;
                part = cx.temp(|out| Instr::Multiply { a, b, out });
            }
            sum = Some(match sum {
                None => part,
                Some(a) => cx.temp(|out| Instr::Add { a, b: part, out }),
            });
        }
        x = sum.unwrap_or(x);
    }
    cx.bind(call.out(0)?, x)
}

/// Rows or columns of images mixed by a matrix `[to, from]`.
fn mixed(cx: &mut Cx<'_>, x: Tid, mix: &[f32], (from, to): (i64, i64), columns: bool) -> Res<Tid> {
    const MOST: i64 = 1 << 24;
    let size = from.saturating_mul(to);
    if size > MOST {
        return Err(Refusal::new(format!("an axis of {from} elements as {to}: the matrix would be too large")));
    }
    let at = |row: i64, column: i64| mix.get((row * from + column) as usize).copied().unwrap_or(0.0);
    // Columns are mixed from the right.
    let (rows, ordered): (i64, Vec<f32>) = if columns {
        (from, (0..from).flat_map(|c| (0..to).map(move |r| (r, c))).map(|(r, c)| at(r, c)).collect())
    } else {
        (to, mix.to_vec())
    };
    let bytes: Vec<u8> = ordered.iter().flat_map(|w| w.to_le_bytes()).collect();
    let shape = vec![rows as u64, (size / rows.max(1)) as u64];
    let data = TensorData::inline(DType::Float32, shape, bytes).map_err(|e| Refusal::new(e.to_string()))?;
    let matrix = cx.constant("_resample_matrix", data)?;
    let (mat1, mat2) = if columns { (x, matrix) } else { (matrix, x) };
    Ok(cx.temp(|out| Instr::Addmm { mat1, mat2, out, bias: None, alpha: 1.0, beta: 1.0 }))
}

/// The number of times each element is repeated, where that is what taking the nearest comes to: `floor(i / k)` in single
/// precision is exact if `1 / k` is not rounded down.
fn whole_factor(kind: Kind, from: &Expr, to: &Expr) -> Option<i64> {
    if !matches!(kind, Kind::Nearest | Kind::NearestExact) {
        return None;
    }
    (2..=64).find(|&k| from.times(&Expr::Int(k)) == *to).filter(|&k| f64::from((1.0 / k as f64) as f32) * k as f64 >= 1.0)
}

/// The same as [`taps`] for sizes known when the program runs: slots of indices and weights, the latter with so many axes
/// behind them.
fn symbolic_taps<'a>(
    cx: &mut Cx<'a>,
    kind: Kind,
    (from, to): (&Expr, &Expr),
    scale: Option<f64>,
    align_corners: bool,
    behind: usize,
) -> Res<Vec<(Tid, Option<Tid>)>> {
    let t = DType::Float32;
    let less_one = |e: &Expr| e.plus(&Expr::Int(-1));
    let one = cx.scalar(1.0, t)?;
    let half = cx.scalar(0.5, t)?;
    let step = if align_corners {
        let (a, b) = (number(cx, &less_one(from))?, number(cx, &less_one(to))?);
        // One output is the first element, whatever the step.
        let b = cx.temp(|out| Instr::Maximum { a: b, b: one, out });
        cx.temp(|out| Instr::Divide { a, b, out })
    } else {
        match scale {
            Some(s) if s > 0.0 => cx.scalar(f64::from((1.0 / s) as f32), t)?,
            _ => {
                let (a, b) = (number(cx, from)?, number(cx, to)?);
                cx.temp(|out| Instr::Divide { a, b, out })
            }
        }
    };
    let stop = cx.int(to)?;
    let mut at = cx.temp(|out| Instr::ARange { out, start: 0.into(), stop, step: 1.into(), scalar_type: Some(t) });
    let centred = kind == Kind::NearestExact || (kind != Kind::Nearest && !align_corners);
    if centred {
        let a = at;
        at = cx.temp(|out| Instr::Add { a, b: half, out });
    }
    let a = at;
    at = cx.temp(|out| Instr::Multiply { a, b: step, out });
    if kind != Kind::NearestExact && centred {
        let a = at;
        at = cx.temp(|out| Instr::Subtract { a, b: half, out });
    }
    let last = number(cx, &less_one(from))?;
    if kind == Kind::Cubic {
        return cubic_taps(cx, at, last, behind);
    }
    if kind == Kind::Linear && centred {
        let (a, b) = (at, cx.scalar(0.0, t)?);
        at = cx.temp(|out| Instr::Maximum { a, b, out });
    }
    let x = cx.temp(|out| Instr::Floor { x: at, out });
    let low = cx.temp(|out| Instr::Minimum { a: x, b: last, out });
    let index = cx.cast(low, DType::Int32)?;
    if kind != Kind::Linear {
        return Ok(vec![(index, None)]);
    }
    let share = cx.temp(|out| Instr::Subtract { a: at, b: low, out });
    let mut upper = cx.temp(|out| Instr::Minimum { a: share, b: one, out });
    for _ in 0..behind {
        let x = upper;
        upper = cx.temp(|out| Instr::ExpandDims { x, out, axis: -1 });
    }
    let lower = cx.temp(|out| Instr::Subtract { a: one, b: upper, out });
    let next = cx.temp(|out| Instr::Add { a: low, b: one, out });
    let next = cx.temp(|out| Instr::Minimum { a: next, b: last, out });
    let next = cx.cast(next, DType::Int32)?;
    Ok(vec![(index, Some(lower)), (next, Some(upper))])
}

/// The four elements around each place, `0..=last`, and what each counts.
fn cubic_taps(cx: &mut Cx<'_>, at: Tid, last: Tid, behind: usize) -> Res<Vec<(Tid, Option<Tid>)>> {
    let t = DType::Float32;
    let zero = cx.scalar(0.0, t)?;
    let low = cx.temp(|out| Instr::Floor { x: at, out });
    let mut part = cx.temp(|out| Instr::Subtract { a: at, b: low, out });
    for _ in 0..behind {
        let x = part;
        part = cx.temp(|out| Instr::ExpandDims { x, out, axis: -1 });
    }
    let mut taps = Vec::new();
    for k in -1..=2 {
        let offset = cx.scalar(f64::from(k), t)?;
        let place = cx.temp(|out| Instr::Add { a: low, b: offset, out });
        let place = cx.temp(|out| Instr::Maximum { a: place, b: zero, out });
        let place = cx.temp(|out| Instr::Minimum { a: place, b: last, out });
        let index = cx.cast(place, DType::Int32)?;
        // How far away it is: |k - part|, as a polynomial from the highest power down.
        let distance = cx.temp(|out| Instr::Subtract { a: part, b: offset, out });
        let distance = cx.temp(|out| Instr::Abs { x: distance, out });
        let polynomial = if k == 0 || k == 1 { [A + 2.0, -(A + 3.0), 0.0, 1.0] } else { [A, -5.0 * A, 8.0 * A, -4.0 * A] };
        let mut sum: Option<Tid> = None;
        for c in polynomial {
            let c = cx.scalar(f64::from(c), t)?;
            sum = Some(match sum {
                None => c,
                Some(s) => {
                    let scaled = cx.temp(|out| Instr::Multiply { a: s, b: distance, out });
                    cx.temp(|out| Instr::Add { a: scaled, b: c, out })
                }
            });
        }
        taps.push((index, sum));
    }
    Ok(taps)
}

/// A size as a number of single precision, exact up to 2^24.
fn number(cx: &mut Cx<'_>, e: &Expr) -> Res<Tid> {
    let v = match cx.int(e)? {
        IntOrVid::Int(n) => FloatOrVid::Float(n as f64),
        IntOrVid::Vid(v) => FloatOrVid::Vid(v),
    };
    Ok(cx.temp(|out| Instr::Full { out, shape: vec![], v, scalar_type: DType::Float32 }))
}

/// A vector of factors along an axis with so many axes behind it.
fn weights(cx: &mut Cx<'_>, values: &[f32], behind: usize) -> Res<Tid> {
    let mut bytes = Vec::new();
    for &x in values {
        bytes.extend(element(f64::from(x), DType::Float32).unwrap_or_default());
    }
    let mut shape = vec![values.len() as u64];
    shape.extend(std::iter::repeat_n(1, behind));
    let data = TensorData::inline(DType::Float32, shape, bytes).map_err(|e| Refusal::new(e.to_string()))?;
    cx.constant("_resample_weights", data)
}

/// What stands beyond the ends.
#[derive(Clone, Copy)]
enum Edge {
    Reflected,
    Replicated,
    Wrapped,
}

impl Edge {
    /// The element of `n` that stands at a place; `None` if it is too far away.
    fn place(self, i: i64, n: i64) -> Option<i64> {
        if n < 1 {
            return None;
        }
        let j = match self {
            Edge::Reflected if i < 0 => i.saturating_neg(),
            Edge::Reflected if i >= n => n.saturating_sub(1).saturating_mul(2).saturating_sub(i),
            Edge::Reflected => i,
            // Of nothing there is nothing to repeat.
            Edge::Replicated | Edge::Wrapped if n < 1 => return None,
            Edge::Replicated => i.clamp(0, n - 1),
            Edge::Wrapped => i.rem_euclid(n),
        };
        (0..n).contains(&j).then_some(j)
    }

    /// The same for places `from..to` of an axis whose size the program computes.
    fn places<'a>(self, cx: &mut Cx<'a>, from: i64, to: &Expr, n: &Expr) -> Res<Tid> {
        let t = DType::Int32;
        let stop = cx.int(to)?;
        let at = cx.temp(|out| Instr::ARange { out, start: from.into(), stop, step: 1.into(), scalar_type: Some(t) });
        let mut whole = |e: &Expr| {
            let v = match cx.int(e)? {
                IntOrVid::Int(n) => FloatOrVid::Float(n as f64),
                IntOrVid::Vid(v) => FloatOrVid::Vid(v),
            };
            Ok::<_, Refusal>(cx.temp(|out| Instr::Full { out, shape: vec![], v, scalar_type: t }))
        };
        Ok(match self {
            Edge::Reflected => {
                let last = whole(&n.plus(&Expr::Int(-1)))?;
                let near = cx.temp(|out| Instr::Abs { x: at, out });
                let beyond = cx.temp(|out| Instr::Subtract { a: last, b: near, out });
                let beyond = cx.temp(|out| Instr::Abs { x: beyond, out });
                cx.temp(|out| Instr::Subtract { a: last, b: beyond, out })
            }
            Edge::Replicated => {
                let last = whole(&n.plus(&Expr::Int(-1)))?;
                let zero = cx.scalar(0.0, t)?;
                let from = cx.temp(|out| Instr::Maximum { a: at, b: zero, out });
                cx.temp(|out| Instr::Minimum { a: from, b: last, out })
            }
            Edge::Wrapped => {
                let b = whole(n)?;
                cx.temp(|out| Instr::Remainder { a: at, b, out })
            }
        })
    }
}

fn pad<'a>(cx: &mut Cx<'a>, call: Call<'a>, edge: Edge) -> Res {
    let name = if call.node.op.schema().position("padding").is_some() { "padding" } else { "pad" };
    let mut x = cx.tensor(call.value("self")?)?;
    let ty = call.ty("self")?;
    // Pairs from the last axis on.
    for (i, pair) in call.ints(name)?.chunks_exact(2).enumerate() {
        let axis = ty.rank().checked_sub(i + 1).ok_or_else(|| call.refuse(name, "more pairs than axes"))?;
        if pair == [0, 0] {
            continue;
        }
        let size = ty.shape.get(axis).ok_or_else(|| call.refuse(name, "more pairs than axes"))?;
        let index = match size.as_int() {
            Some(n) => {
                let (from, to) = (pair[0].checked_neg(), n.checked_add(pair[1]));
                let (from, to) = from.zip(to).ok_or_else(|| call.refuse(name, "wider than what is padded"))?;
                makes(to.saturating_sub(from), 2)?;
                let index: Option<Vec<i64>> = (from..to).map(|i| edge.place(i, n)).collect();
                let index = index.ok_or_else(|| call.refuse(name, "wider than what is padded"))?;
                cx.int_vector(&format!("_pad_{n}"), &index, DType::Int32)?
            }
            None => edge.places(cx, pair[0].saturating_neg(), &size.plus(&Expr::Int(pair[1])), size)?,
        };
        let from = x;
        x = cx.temp(|out| Instr::Take { x: from, out, index: index.into(), axis: axis as i32 });
    }
    cx.bind(call.out(0)?, x)
}

/// Windows that differ by an element in size; output `i` of `m` covers `floor(i*n/m)..ceil((i+1)*n/m)`.
fn adaptive<'a>(cx: &mut Cx<'a>, call: Call<'a>, nd: usize, max: bool) -> Res {
    if call.is_used(1) {
        return Err(Refusal::new("the positions of the maxima are not among MLX's results"));
    }
    let ty = call.ty("self")?;
    let lead = ty.rank().saturating_sub(nd);
    let mut x = cx.tensor(call.value("self")?)?;
    if !max {
        // Means of halves are of sums in single precision.
        x = cx.widened(x)?;
    }
    let reduce = |x: Tid, out: Tid, axes: Vec<i32>, keepdims: bool| {
        let axes = Some(axes);
        if max { Instr::Max { x, out, axes, keepdims } } else { Instr::Mean { x, out, axes, keepdims } }
    };
    let to = call.out_ty(0)?;
    if (lead..ty.rank()).all(|a| to.shape.get(a) == Some(&Expr::Int(1))) {
        // All of it, whatever its size.
        let axes = (lead..ty.rank()).map(|a| a as i32).collect();
        return cx.define(call.out(0)?, |out| reduce(x, out, axes, true));
    }
    for axis in lead..ty.rank() {
        let (Some(n), Some(target)) = (ty.shape.get(axis), to.shape.get(axis)) else {
            return Err(Refusal::new("fewer axes than are pooled"));
        };
        let from = x;
        if n == target {
            continue;
        }
        let m = known(Some(target))?;
        if let Some(n) = n.as_int().filter(|n| m > 0 && n % m == 0) {
            let mut sizes = ty.shape.clone();
            sizes.splice(lead..axis, to.shape[lead..axis].iter().cloned());
            sizes.splice(axis..=axis, [Expr::Int(m), Expr::Int(n / m)]);
            let shape = cx.reshape_dims(&sizes)?;
            let split = cx.temp(|out| Instr::Reshape { x: from, out, shape });
            x = cx.temp(|out| reduce(split, out, vec![axis as i32 + 1], false));
            continue;
        }
        makes(m, ROUND)?;
        let mut tensors = Vec::new();
        for i in 0..m {
            let part = |i: i64, up: i64| n.times(&Expr::Int(i)).plus(&Expr::Int(up)).floor_div(&Expr::Int(m));
            let (start, stop) = (cx.int(&part(i, 0))?, cx.int(&part(i + 1, m - 1))?);
            let piece = cx.temp(|out| Instr::Slice { x: from, out, axis: (axis as i64).into(), start, stop, step: 1 });
            tensors.push(cx.temp(|out| reduce(piece, out, vec![axis as i32], true)));
        }
        x = cx.temp(|out| Instr::Concatenate { tensors, out, axis: axis as i32 });
    }
    cx.bind(call.out(0)?, x)
}

/// Windows along one axis, as a new last axis.
fn unfold<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let x = cx.tensor(call.value("self")?)?;
    let (ty, to) = (call.ty("self")?, call.out_ty(0)?);
    if ty.rank() == 0 {
        return Err(call.refuse("self", "a scalar has no windows"));
    }
    let axis = call.axis("dimension", ty.rank())?;
    let (size, step) = (call.int("size")?, call.int("step")?);
    let mut strides = vec![Expr::Int(1); ty.rank()];
    for i in (1..ty.rank()).rev() {
        strides[i - 1] = strides[i].times(&ty.shape[i]);
    }
    let inner = strides[axis].clone();
    strides[axis] = inner.times(&Expr::Int(step));
    strides.push(inner);
    let mut sizes = to.shape.clone();
    if let Some(last) = sizes.last_mut() {
        *last = Expr::Int(size);
    }
    let shape: Vec<IntOrVid> = cx.dims(&sizes)?;
    let strides = cx.dims(&strides)?;
    cx.define(call.out(0)?, |out| Instr::AsStrided { x, out, shape, strides, offset: 0 })
}

/// Elements of the storage, which is known only where the operand is no view and lies as its sizes say.
fn as_strided<'a>(cx: &mut Cx<'a>, call: Call<'a>) -> Res {
    let v = call.value("self")?;
    let x = cx.tensor(v)?;
    let ty = call.ty("self")?;
    let view = call.graph.producer(v).is_some_and(|n| call.graph.node(n).op.is_view());
    if view || ty.strides.is_some() {
        return Err(call.refuse("self", "how it lies in memory is not known").remedy("index or slice it instead"));
    }
    let (strides, offset) = (call.ints("stride")?, call.int_or("storage_offset", 0)?);
    // What pooling to one element becomes, whatever the batch: the tensor as it lies. Strides of axes of size 1 do not matter.
    let mut step = Expr::Int(1);
    let as_it_lies = strides.len() == ty.rank()
        && ty.shape.iter().zip(&strides).rev().all(|(n, &s)| {
            let fits = *n == Expr::Int(1) || step == Expr::Int(s);
            step = step.times(n);
            fits
        });
    if as_it_lies && offset == 0 && call.out_ty(0)?.shape == ty.shape {
        return cx.bind(call.out(0)?, x);
    }
    let sizes = call.ints("size")?;
    let total = ty.numel().as_int().ok_or_else(|| call.refuse("self", "its sizes must be known at export"))?;
    let reach = sizes.iter().zip(&strides).map(|(n, s)| n.saturating_sub(1).saturating_mul(*s)).fold(offset, i64::saturating_add);
    if strides.iter().any(|&s| s < 0) || sizes.contains(&0) || offset < 0 || reach >= total {
        return Err(call.refuse("size", "must stay inside the tensor"));
    }
    let list = |n: &[i64]| n.iter().map(|&n| n.into()).collect();
    let (shape, strides) = (list(&sizes), list(&strides));
    cx.define(call.out(0)?, |out| Instr::AsStrided { x, out, shape, strides, offset: offset as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_taps_are_torchs() {
        // torch.nn.functional.interpolate(torch.tensor([[[1., 3.]]]), size=4, mode="linear") = 1, 1.5, 2.5, 3
        let t = taps(Kind::Linear, 2, 4, None, false);
        let at = |k: usize| [1.0, 3.0][t[0].index[k] as usize] * t[0].weight[k] + [1.0, 3.0][t[1].index[k] as usize] * t[1].weight[k];
        assert_eq!([at(0), at(1), at(2), at(3)], [1.0, 1.5, 2.5, 3.0]);
        let t = taps(Kind::Linear, 2, 3, None, true);
        assert_eq!((t[0].weight[1], t[1].weight[1]), (0.5, 0.5));
    }

    #[test]
    fn cubic_weights_add_up_to_one() {
        let t = taps(Kind::Cubic, 5, 13, None, false);
        for k in 0..13 {
            let sum: f32 = t.iter().map(|t| t.weight[k]).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        }
    }

    #[test]
    fn reflection_does_not_repeat_the_border() {
        assert_eq!((-2..5).map(|i| Edge::Reflected.place(i, 3)).collect::<Option<Vec<_>>>(), Some(vec![2, 1, 0, 1, 2, 1, 0]));
        assert_eq!(Edge::Reflected.place(-3, 3), None);
        assert_eq!(Edge::Wrapped.place(-1, 3), Some(2));
    }
}
