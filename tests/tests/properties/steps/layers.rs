//! Products, convolutions, pools, normalisation, attention.

use etx::ir::DType;
use etx::ir::args;
use etx::ir::graph::{Arg, ValueId};
use etx::ir::sym::Expr;

use super::{Made, float};
use crate::make::{Fill, Maker};

pub(super) fn product(m: &mut Maker) -> Made {
    let whole = m.rng.one_in(6);
    let a = m.pick(|t, _| (float(t) || whole && t.dtype != DType::Bool) && (1..=4).contains(&t.rank()))?;
    let exact = !float(m.ty(a.id));
    let (dtype, shape) = (m.ty(a.id).dtype, m.ty(a.id).shape.clone());
    let inner = shape.last()?.clone();
    let columns = m.dim();
    if let [batch, _, _] = shape.as_slice()
        && m.rng.one_in(4)
    {
        let b = m.fresh(dtype, vec![batch.clone(), inner, columns]);
        return Some((m.call("aten.bmm.default", args![a.id, b])?, exact));
    }
    if shape.len() <= 2 && m.rng.one_in(4) {
        let b = m.fresh(dtype, vec![inner]);
        let target = if shape.len() == 1 { m.rng.of(&["aten.dot.default", "aten.outer.default"]) } else { "aten.mv.default" };
        return Some((m.call(target, args![a.id, b])?, exact));
    }
    if shape.len() == 3 && m.rng.one_in(5) {
        let b = m.fresh(dtype, vec![columns, inner]);
        return Some((m.call("aten.einsum.default", vec!["bij,kj->bki".into(), args![a.id, b].into()])?, exact));
    }
    let rank = m.rng.between(1, 4) as usize;
    let mut sizes = if rank == 1 { vec![inner] } else { vec![inner, columns] };
    for i in 2..rank {
        // Batches agree or broadcast.
        let same = shape.len().checked_sub(i + 1).and_then(|at| shape.get(at)).cloned();
        sizes.insert(0, same.filter(|_| !m.rng.one_in(4)).unwrap_or(Expr::Int(1)));
    }
    let b = m.fresh(dtype, sizes);
    Some((m.call("aten.matmul.default", args![a.id, b])?, exact))
}

pub(super) fn added_product(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| float(t) && (2..=3).contains(&t.rank()))?;
    let (dtype, shape) = (m.ty(a.id).dtype, m.ty(a.id).shape.clone());
    let (inner, columns) = (shape.last()?.clone(), Expr::Int(m.rng.between(1, 4)));
    let mut sum = shape.clone();
    *sum.last_mut()? = columns.clone();
    for n in &mut sum {
        if m.rng.one_in(4) {
            *n = Expr::Int(1);
        }
    }
    let scales = [("beta", m.rng.of(&[1.0, 1.0, 0.5, 0.0]).into()), ("alpha", m.rng.of(&[1.0, 1.0, 2.0, -0.5]).into())];
    if let [batch, _, _] = shape.as_slice() {
        let (c, b) = (m.fresh(dtype, sum), m.fresh(dtype, vec![batch.clone(), inner, columns]));
        return Some((m.call_with("aten.baddbmm.default", args![c, a.id, b], scales)?, false));
    }
    let sum = if m.rng.one_in(2) { vec![sum.last()?.clone()] } else { sum };
    let (c, b) = (m.fresh(dtype, sum), m.fresh(dtype, vec![inner, columns]));
    Some((m.call_with("aten.addmm.default", args![c, a.id, b], scales)?, false))
}

pub(super) fn linear(m: &mut Maker) -> Made {
    let a = m.pick(|t, _| float(t) && t.rank() > 0)?;
    let (dtype, rank) = (m.ty(a.id).dtype, m.ty(a.id).rank());
    let (inner, columns) = (m.ty(a.id).shape.last()?.clone(), m.rng.between(1, 4));
    let bias = if m.rng.one_in(2) { Arg::Value(m.fresh(dtype, vec![columns.into()])) } else { Arg::None };
    if rank == 2 && m.rng.one_in(3) {
        let b = m.fresh(dtype, vec![inner, columns.into()]);
        return Some((m.call("aten.mm.default", args![a.id, b])?, false));
    }
    let weight = m.fresh(dtype, vec![columns.into(), inner]);
    Some((m.call("aten.linear.default", vec![a.id.into(), weight.into(), bias])?, false))
}

/// An image: `[batch, channels, …]`, made for the purpose; without a batch now and then. Of finite numbers: whether the zeros of a padding
/// are multiplied with the others is up to the algorithm.
fn image(m: &mut Maker, spatial: usize, bare: bool) -> (ValueId, DType, i64) {
    let dtype = m.rng.of(&[DType::Float32, DType::Float32, DType::Float16, DType::BFloat16]);
    let (batch, channels) = (if m.rng.one_in(3) { m.size.0.clone() } else { Expr::Int(1) }, m.rng.of(&[2i64, 4]));
    let mut shape = if bare { vec![channels.into()] } else { vec![batch, channels.into()] };
    shape.extend((0..spatial).map(|_| Expr::Int(m.rng.between(3, 6))));
    if m.rng.one_in(4)
        && let Some(n) = shape.last_mut()
    {
        *n = m.size.0.clone();
    }
    (m.input(dtype, shape, Fill::Finite), dtype, channels)
}

pub(super) fn convolution(m: &mut Maker) -> Made {
    let spatial = m.rng.of(&[1usize, 2, 2, 3]);
    let bare = m.rng.one_in(6);
    let (x, dtype, channels) = image(m, spatial, bare);
    let groups = m.rng.of(&[1i64, 1, 2, channels]);
    let outputs = m.rng.of(&[4i64, 8]);
    let kernel: Vec<Expr> = (0..spatial).map(|_| Expr::Int(m.rng.between(1, 3))).collect();
    let list = |m: &mut Maker, low, high| Arg::from((0..spatial).map(|_| m.rng.between(low, high)).collect::<Vec<_>>());
    let transposed = m.rng.one_in(3);
    let sizes = if transposed { [channels, outputs / groups] } else { [outputs, channels / groups] };
    let weight = m.input(dtype, [sizes.map(Expr::Int).to_vec(), kernel].concat(), Fill::Finite);
    let bias = if m.rng.one_in(2) { Arg::Value(m.fresh(dtype, vec![outputs.into()])) } else { Arg::None };
    let (stride, padding, dilation) = (list(m, 1, 2), list(m, 0, 1), list(m, 1, 2));
    // Nothing may be left of a size that is only known when the program runs: MLX makes no such image.
    let known = m.ty(x).shape.iter().rev().take(spatial).all(|n| n.as_int().is_some());
    let padding = if transposed && !known { Arg::from(vec![0i64; spatial]) } else { padding };
    let more = if m.rng.one_in(3) { list(m, 0, 1) } else { Arg::from(vec![0i64; spatial]) };
    if !transposed && m.rng.one_in(4) {
        let how = m.rng.of(&["same", "valid"]);
        let ones = Arg::from(vec![1i64; spatial]);
        let list = vec![x.into(), weight.into(), bias, ones, Arg::Str(how.into()), dilation, groups.into()];
        return Some((m.call(&format!("aten.conv{spatial}d.padding"), list)?, false));
    }
    let (target, rest) = match (transposed, spatial) {
        (false, n) => (format!("aten.conv{n}d.default"), vec![stride, padding, dilation, groups.into()]),
        (true, 1) => ("aten.conv_transpose1d.default".to_owned(), vec![stride, padding, more, groups.into(), dilation]),
        (true, n) => (format!("aten.conv_transpose{n}d.input"), vec![stride, padding, more, groups.into(), dilation]),
    };
    Some((m.call(&target, [vec![x.into(), weight.into(), bias], rest].concat())?, false))
}

pub(super) fn pool(m: &mut Maker) -> Made {
    let (kernel, stride) = (m.rng.of(&[2i64, 3]), m.rng.of(&[1i64, 2, 3]));
    let padding = m.rng.below(kernel as usize / 2 + 1) as i64;
    let (ceil, bare) = (m.rng.one_in(4), m.rng.one_in(6));
    let spatial = m.rng.of(&[1usize, 2, 2, 3]);
    let (x, _, _) = image(m, spatial, bare);
    let repeated = |n: i64| Arg::from(vec![n; spatial]);
    let inside = m.rng.one_in(2);
    Some(match m.rng.below(6) {
        0 | 1 => {
            let dilation = m.rng.of(&[1i64, 1, 2]);
            let list = vec![x.into(), repeated(kernel), repeated(stride), repeated(padding), repeated(dilation), ceil.into()];
            (m.call(&format!("aten.max_pool{spatial}d.default"), list)?, true)
        }
        2 | 3 => {
            let list = vec![x.into(), repeated(kernel), repeated(stride), repeated(padding), ceil.into(), inside.into()];
            (m.call(&format!("aten.avg_pool{spatial}d.default"), list)?, false)
        }
        4 => {
            let name = m.rng.of(&["avg", "max"]);
            let sizes: Vec<i64> = (0..spatial).map(|_| m.rng.between(1, 4)).collect();
            let mut values = m.call(&format!("aten.adaptive_{name}_pool{spatial}d.default"), args![x, sizes])?;
            values.truncate(1);
            (values, name == "max")
        }
        _ => {
            let mut values =
                m.call(&format!("aten.max_pool{spatial}d_with_indices.default"), vec![x.into(), repeated(kernel), repeated(stride)])?;
            values.truncate(1);
            (values, true)
        }
    })
}

pub(super) fn resample(m: &mut Maker) -> Made {
    let (x, _, _) = image(m, 2, false);
    let (none, align) = (Arg::None, m.rng.one_in(2));
    let size = Arg::from(vec![m.rng.between(2, 7), m.rng.between(2, 7)]);
    let scale = Arg::from([m.rng.of(&[2.0, 0.5, 1.5]), 2.0]);
    Some(match m.rng.below(7) {
        0 => (m.call("aten.upsample_nearest2d.vec", vec![x.into(), size, none])?, true),
        1 => (m.call("aten.upsample_nearest2d.vec", vec![x.into(), none, scale])?, true),
        2 => (m.call("aten._upsample_nearest_exact2d.vec", vec![x.into(), size, none])?, true),
        3 => (m.call("aten.upsample_bilinear2d.vec", vec![x.into(), size, align.into(), none])?, false),
        4 => (m.call("aten.upsample_bilinear2d.vec", vec![x.into(), none, align.into(), scale])?, false),
        5 => (m.call("aten.upsample_bicubic2d.vec", vec![x.into(), size, align.into(), none])?, false),
        _ => {
            let (shape, dtype) = (m.ty(x).shape.clone(), m.ty(x).dtype);
            let four = m.fresh(dtype, vec![shape.first()?.clone(), 4.into(), 2.into(), 3.into()]);
            (m.call("aten.pixel_shuffle.default", args![four, 2])?, true)
        }
    })
}

pub(super) fn normalise(m: &mut Maker) -> Made {
    if m.rng.one_in(2) {
        let (spatial, bare) = (m.rng.between(1, 2) as usize, false);
        let (x, dtype, channels) = image(m, spatial, bare);
        let one = |m: &mut Maker| if m.rng.one_in(4) { Arg::None } else { Arg::Value(m.input(dtype, vec![channels.into()], Fill::Finite)) };
        let (weight, bias) = (one(m), one(m));
        return Some(match m.rng.below(3) {
            0 => (m.call("aten.group_norm.default", vec![x.into(), 2.into(), weight, bias, 0.125.into()])?, false),
            1 => {
                let list = vec![x.into(), weight, bias, Arg::None, Arg::None, true.into(), 0.1.into(), 0.125.into(), false.into()];
                (m.call("aten.instance_norm.default", list)?, false)
            }
            _ => {
                let mean = m.input(dtype, vec![channels.into()], Fill::Finite);
                let variance = m.input(dtype, vec![channels.into()], Fill::Below(4));
                let list = vec![x.into(), weight, bias, mean.into(), variance.into(), false.into(), 0.1.into(), 0.125.into(), false.into()];
                (m.call("aten.batch_norm.default", list)?, false)
            }
        });
    }
    let a = m.pick(|t, _| float(t) && t.rank() > 0)?;
    let shape = m.ty(a.id).shape.clone();
    let dtype = m.ty(a.id).dtype;
    let count = if shape.len() > 1 && m.rng.one_in(3) { 2 } else { 1 };
    let last = shape.get(shape.len() - count..)?.to_vec();
    let sizes: Vec<i64> = last.iter().map(|n| n.as_int().filter(|n| *n > 0)).collect::<Option<_>>()?;
    let one = |m: &mut Maker| if m.rng.one_in(3) { Arg::None } else { Arg::Value(m.input(dtype, last.clone(), Fill::Finite)) };
    let (weight, bias) = (one(m), one(m));
    Some(match m.rng.below(4) {
        0 => (m.call("aten.rms_norm.default", vec![a.id.into(), sizes.into(), weight, 0.125.into()])?, false),
        1 => {
            let (_, axis) = m.axis(a.id)?;
            let other = m.fresh(dtype, shape);
            (m.call("aten.cosine_similarity.default", args![a.id, other, axis, 0.125])?, false)
        }
        _ => (m.call("aten.layer_norm.default", vec![a.id.into(), sizes.into(), weight, bias, 0.125.into()])?, false),
    })
}

/// Of finite numbers: what becomes of others where they are masked differs from one of torch's own kernels to the next.
pub(super) fn attention(m: &mut Maker) -> Made {
    let dtype = m.rng.of(&[DType::Float32, DType::Float32, DType::BFloat16, DType::Float16]);
    let (queries, keys, width) = (m.size.0.clone(), Expr::Int(m.rng.between(2, 5)), Expr::Int(4));
    let queries = if m.rng.one_in(2) { Expr::Int(m.rng.between(1, 4)) } else { queries };
    let (heads, groups) = m.rng.of(&[(2i64, 2i64), (4, 2), (2, 1)]);
    let batch = if m.rng.one_in(4) { m.size.0.clone() } else { Expr::Int(m.rng.between(1, 2)) };
    let mut make = |heads: i64, n: &Expr| m.input(dtype, vec![batch.clone(), heads.into(), n.clone(), width.clone()], Fill::Finite);
    let (q, k, v) = (make(heads, &queries), make(groups, &keys), make(groups, &keys));
    let v = if m.rng.one_in(6) { k } else { v };
    let causal = m.rng.one_in(3);
    let shape = m.rng.of(&[0, 1, 2]);
    let lead = match shape {
        0 => vec![],
        1 => vec![Expr::Int(1), Expr::Int(1)],
        _ => vec![batch, heads.into()],
    };
    let mask = if causal || m.rng.one_in(2) {
        Arg::None
    } else {
        let kind = if m.rng.one_in(2) { DType::Bool } else { dtype };
        Arg::Value(m.input(kind, [lead, vec![queries, keys]].concat(), Fill::Finite))
    };
    let scale = if m.rng.one_in(3) { Arg::Float(0.25) } else { Arg::None };
    let args = vec![q.into(), k.into(), v.into(), mask, 0.0.into(), causal.into(), scale, (heads != groups).into()];
    Some((m.call("aten.scaled_dot_product_attention.default", args)?, false))
}

pub(super) fn recurrent(m: &mut Maker) -> Made {
    let (batch, n, width) = (m.size.0.clone(), Expr::Int(2), Expr::Int(3));
    let dtype = DType::Float32;
    let (x, h, c) = (
        m.fresh(dtype, vec![batch.clone(), n.clone()]),
        m.fresh(dtype, vec![batch.clone(), width.clone()]),
        m.fresh(dtype, vec![batch, width.clone()]),
    );
    let (name, gates) = m.rng.of(&[("lstm_cell", 4i64), ("gru_cell", 3), ("rnn_tanh_cell", 1)]);
    let rows = Expr::Int(gates * 3);
    let (wi, wh) = (m.fresh(dtype, vec![rows.clone(), n]), m.fresh(dtype, vec![rows.clone(), width]));
    let (bi, bh) = (m.fresh(dtype, vec![rows.clone()]), m.fresh(dtype, vec![rows]));
    let state: Arg = if name == "lstm_cell" { args![h, c].into() } else { h.into() };
    Some((m.call(&format!("aten.{name}.default"), vec![x.into(), state, wi.into(), wh.into(), bi.into(), bh.into()])?, false))
}
