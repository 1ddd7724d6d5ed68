//! Rearrangements that are views, flips and strided reads.

use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::pen::Pen;
use crate::calls::{as_ints, ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;

/// Every vector along an axis of its own, repeated along the others. Source: torch.meshgrid.
pub(super) fn meshgrid(site: &mut Site<'_>) -> Result {
    let Some(list) = site.nth(0).as_list().map(<[Arg]>::to_vec) else { return Ok(None) };
    let swapped = matches!(site.arg("indexing"), Arg::Str(s) if &**s == "xy");
    let mut p = Pen(site);
    match grids(&mut p, &list, swapped)? {
        Some(values) => Ok(Some(Patch::Values(values))),
        None => Ok(None),
    }
}

fn grids(p: &mut Pen<'_, '_>, list: &[Arg], swapped: bool) -> std::result::Result<Option<Vec<Arg>>, Error> {
    let mut sizes = list.iter().map(|a| p.ty(a).map(|t| t.numel())).collect::<std::result::Result<Vec<_>, _>>()?;
    let axis = |i: usize| if swapped && i < 2 && list.len() > 1 { 1 - i } else { i };
    if swapped && sizes.len() > 1 {
        sizes.swap(0, 1);
    }
    let mut values = Vec::new();
    for (i, x) in list.iter().enumerate() {
        let shape: Vec<Dim> =
            (0..sizes.len()).map(|d| if d == axis(i) { sizes.get(d).cloned().unwrap_or(Dim::Int(1)) } else { Dim::Int(1) }).collect();
        let (Some(x), Some(all)) = (p.view(x, &shape)?, p.0.sizes(&sizes)) else { return Ok(None) };
        values.push(p.call(op!("aten.expand.default"), vec![x, all])?);
    }
    Ok(Some(values))
}

/// All combinations, a row each. Source: torch.cartesian_prod.
pub(super) fn cartesian_prod(site: &mut Site<'_>) -> Result {
    let Some(list) = site.nth(0).as_list().map(<[Arg]>::to_vec) else { return Ok(None) };
    let mut p = Pen(site);
    if let [one] = list.as_slice() {
        return p.done(one.clone());
    }
    let Some(grids) = grids(&mut p, &list, false)? else { return Ok(None) };
    let mut flat = Vec::new();
    for x in grids {
        let n = p.ty(&x)?.numel();
        let Some(x) = p.view(&x, &[n])? else { return Ok(None) };
        flat.push(x);
    }
    let y = p.call(op!("aten.stack.default"), vec![Arg::List(flat), Arg::Int(1)])?;
    p.done(y)
}

/// All as large as they are together. Source: torch.broadcast_tensors.
pub(super) fn broadcast_tensors(site: &mut Site<'_>) -> Result {
    let (Some(list), Some(to)) = (site.nth(0).as_list().map(<[Arg]>::to_vec), site.result().map(|t| t.shape.clone())) else {
        return Ok(None);
    };
    let mut p = Pen(site);
    let mut values = Vec::new();
    for x in list {
        let Some(sizes) = p.0.sizes(&to) else { return Ok(None) };
        values.push(if p.ty(&x)?.shape == to { x } else { p.call(op!("aten.expand.default"), vec![x, sizes])? });
    }
    Ok(Some(Patch::Values(values)))
}

fn flipped(p: &mut Pen<'_, '_>, x: &Arg, dims: &[usize]) -> std::result::Result<Arg, Error> {
    p.call(op!("aten.flip.default"), vec![x.clone(), ints(dims.iter().map(|&d| d as i64))])
}

/// Source: torch.fliplr.
pub(super) fn fliplr(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let y = flipped(&mut p, &x, &[1])?;
    p.done(y)
}

/// Source: torch.flipud.
pub(super) fn flipud(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let y = flipped(&mut p, &x, &[0])?;
    p.done(y)
}

/// A scalar flipped is itself. Source: torch.flip.
pub(super) fn flip(site: &mut Site<'_>) -> Result {
    let scalar = site.operand(0).is_some_and(|t| t.rank() == 0);
    Ok(scalar.then(|| Patch::Values(vec![site.nth(0).clone()])))
}

/// Quarter turns: an exchange of axes and a flip each. Source: torch.rot90.
pub(super) fn rot90(site: &mut Site<'_>) -> Result {
    let (Some(k), Some(t)) = (site.nth(1).as_int(), site.operand(0).cloned()) else { return Ok(None) };
    let dims: Option<Vec<usize>> = as_ints(site.nth(2)).and_then(|l| l.into_iter().map(|d| wrap(d, t.rank())).collect());
    let Some(&[a, b]) = dims.as_deref() else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let mut order: Vec<usize> = (0..t.rank()).collect();
    order.swap(a, b);
    let y = match k.rem_euclid(4) {
        1 => {
            let y = flipped(&mut p, &x, &[b])?;
            p.permute(&y, &order)?
        }
        2 => flipped(&mut p, &x, &[a, b])?,
        3 => {
            let y = flipped(&mut p, &x, &[a])?;
            p.permute(&y, &order)?
        }
        _ => x,
    };
    p.done(y)
}

/// Channels of different groups next to each other. Source: torch.nn.ChannelShuffle.
pub(super) fn channel_shuffle(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(groups)) = (site.operand(0).cloned(), site.nth(1).as_int()) else { return Ok(None) };
    let [n, c, rest @ ..] = t.shape.as_slice() else { return Ok(None) };
    let mut split = vec![n.clone(), Dim::Int(groups), c.floor_div(&Dim::Int(groups))];
    split.extend(rest.iter().cloned());
    let order: Vec<usize> = [0, 2, 1].into_iter().chain(3..split.len()).collect();
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let Some(x) = p.view(&x, &split)? else { return Ok(None) };
    let x = p.permute(&x, &order)?;
    match p.view(&x, &t.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// Matrices along a diagonal. Source: torch.block_diag.
pub(super) fn block_diag(site: &mut Site<'_>) -> Result {
    let (Some(list), Some(to)) = (site.nth(0).as_list().map(<[Arg]>::to_vec), site.result().and_then(|t| t.static_shape())) else {
        return Ok(None);
    };
    let Some(width) = to.get(1).copied() else { return Ok(None) };
    let mut p = Pen(site);
    let (mut at, mut rows) = (0, Vec::new());
    for x in list {
        let Some(shape) = p.ty(&x)?.static_shape() else { return Ok(None) };
        let (m, n) = match shape.as_slice() {
            [] => (1, 1),
            [n] => (1, *n),
            [m, n] => (*m, *n),
            _ => return Ok(None),
        };
        let Some(x) = p.view(&x, &[Dim::Int(m), Dim::Int(n)])? else { return Ok(None) };
        rows.push(p.call(op!("aten.constant_pad_nd.default"), vec![x, ints([at, width - at - n]), Arg::Int(0)])?);
        at += n;
    }
    let y = p.call(op!("aten.cat.default"), vec![Arg::List(rows), Arg::Int(0)])?;
    p.done(y)
}

/// All as long as the longest, stacked. Source: torch.nn.utils.rnn.pad_sequence.
pub(super) fn pad_sequence(site: &mut Site<'_>) -> Result {
    let (Some(list), Some(to)) = (site.nth(0).as_list().map(<[Arg]>::to_vec), site.result().cloned()) else { return Ok(None) };
    let batch = usize::from(site.arg("batch_first").as_bool() != Some(true));
    if matches!(site.arg("padding_side"), Arg::Str(s) if &**s != "right") {
        return Ok(None);
    }
    let (value, Some(longest)) = (site.arg("padding_value").clone(), to.shape.get(1 - batch).and_then(Dim::as_int)) else {
        return Ok(None);
    };
    let mut p = Pen(site);
    let mut parts = Vec::new();
    for x in list {
        let t = p.ty(&x)?;
        let Some(n) = t.shape.first().and_then(Dim::as_int) else { return Ok(None) };
        let mut pad = vec![0; 2 * t.rank()];
        if let Some(last) = pad.last_mut() {
            *last = longest - n;
        }
        parts.push(if n == longest { x } else { p.call(op!("aten.constant_pad_nd.default"), vec![x, ints(pad), value.clone()])? });
    }
    let y = p.call(op!("aten.stack.default"), vec![Arg::List(parts), Arg::Int(batch as i64)])?;
    p.done(y)
}

/// Every element with those after it, or with itself too: two lists of positions, known now. Source: torch.combinations.
pub(super) fn combinations(site: &mut Site<'_>) -> Result {
    let (Some(r), Some(again)) = (site.arg("r").as_int(), site.arg("with_replacement").as_bool()) else { return Ok(None) };
    let Some(n) = site.operand(0).and_then(|t| t.shape.first()?.as_int()).filter(|n| *n > 2) else { return Ok(None) };
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    if r == 1 {
        let y = p.unsqueeze(&x, 1)?;
        return p.done(y);
    }
    if r != 2 {
        return Ok(None);
    }
    let pairs = p.call(op!("aten.triu_indices.default"), vec![Arg::Int(n), Arg::Int(n), Arg::Int(i64::from(!again))])?;
    let mut sides = Vec::new();
    for i in 0..2 {
        let at = p.call(op!("aten.select.int"), vec![pairs.clone(), Arg::Int(0), Arg::Int(i)])?;
        sides.push(p.call(op!("aten.index_select.default"), vec![x.clone(), Arg::Int(0), at])?);
    }
    let y = p.call(op!("aten.stack.default"), vec![Arg::List(sides), Arg::Int(1)])?;
    p.done(y)
}

/// Windows over the last two axes, with gaps: each axis unfolded, then every so many-th of its window.
fn windows(p: &mut Pen<'_, '_>, x: &Arg, kernel: &[i64], dilation: &[i64], stride: &[i64]) -> std::result::Result<Arg, Error> {
    let mut x = x.clone();
    let rank = p.ty(&x)?.rank();
    for (i, ((&k, &d), &s)) in kernel.iter().zip(dilation).zip(stride).enumerate() {
        let axis = (rank - kernel.len() + i) as i64;
        let reach = (k - 1) * d + 1;
        x = p.call(op!("aten.unfold.default"), vec![x, Arg::Int(axis), Arg::Int(reach), Arg::Int(s)])?;
        if d > 1 {
            x = p.call(op!("aten.slice.Tensor"), vec![x, Arg::Int((rank + i) as i64), Arg::Int(0), Arg::Int(reach), Arg::Int(d)])?;
        }
    }
    Ok(x)
}

fn pair(site: &Site<'_>, name: &str) -> Option<Vec<i64>> {
    match as_ints(site.arg(name))?.as_slice() {
        [n] => Some(vec![*n, *n]),
        [m, n] => Some(vec![*m, *n]),
        _ => None,
    }
}

/// Windows of an image as columns. Source: torch.nn.Unfold.
pub(super) fn im2col(site: &mut Site<'_>) -> Result {
    let [Some(kernel), Some(dilation), Some(padding), Some(stride)] =
        ["kernel_size", "dilation", "padding", "stride"].map(|n| pair(site, n))
    else {
        return Ok(None);
    };
    let (Some(t), Some(to)) = (site.operand(0).cloned(), site.result().cloned()) else { return Ok(None) };
    let Some(lead) = t.rank().checked_sub(3) else { return Ok(None) };
    let (&[ph, pw], mut p) = (padding.as_slice(), Pen(site)) else { return Ok(None) };
    let mut x = p.0.nth(0).clone();
    if ph > 0 || pw > 0 {
        x = p.call(op!("aten.constant_pad_nd.default"), vec![x, ints([pw, pw, ph, ph]), Arg::Int(0)])?;
    }
    // [.., C, rows, columns, kernel rows, kernel columns]
    let x = windows(&mut p, &x, &kernel, &dilation, &stride)?;
    let order: Vec<usize> = (0..lead).chain([lead, lead + 3, lead + 4, lead + 1, lead + 2]).collect();
    let x = p.permute(&x, &order)?;
    match p.view(&x, &to.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// Columns added where windows of an image overlap: every place of the window by itself, spread by the stride. Source: torch.nn.Fold.
pub(super) fn col2im(site: &mut Site<'_>) -> Result {
    let [Some(size), Some(kernel), Some(dilation), Some(padding), Some(stride)] =
        ["output_size", "kernel_size", "dilation", "padding", "stride"].map(|n| pair(site, n))
    else {
        return Ok(None);
    };
    let (Some(to), Some(t)) = (site.result().cloned(), site.operand(0).cloned()) else { return Ok(None) };
    let (&[h, w], &[kh, kw], &[dh, dw], &[ph, pw], &[sh, sw]) =
        (size.as_slice(), kernel.as_slice(), dilation.as_slice(), padding.as_slice(), stride.as_slice())
    else {
        return Ok(None);
    };
    let (rows, columns) = ((h + 2 * ph - dh * (kh - 1) - 1) / sh + 1, (w + 2 * pw - dw * (kw - 1) - 1) / sw + 1);
    let Some((_, lead)) = to.shape.split_last_chunk::<2>().map(|(lead, last)| (last, lead)) else { return Ok(None) };
    if kh * kw > 64 || rows < 1 || columns < 1 {
        return Ok(None);
    }
    let mut p = Pen(site);
    let x = p.0.nth(0).clone();
    let mut shape = lead.to_vec();
    shape.extend([kh, kw, rows, columns].map(Dim::Int));
    let Some(x) = p.view(&x, &shape)? else { return Ok(None) };
    let n = lead.len();
    let mut image = lead.to_vec();
    image.extend([Dim::Int(h + 2 * ph), Dim::Int(w + 2 * pw)]);
    let Some(sizes) = p.0.sizes(&image) else { return Ok(None) };
    let zero = if t.dtype.is_float() { Arg::Float(0.0) } else { Arg::Int(0) };
    let mut sum = p.call(op!("aten.full.default"), vec![sizes, zero, Arg::DType(t.dtype)])?;
    for i in 0..kh {
        for j in 0..kw {
            let part = p.call(op!("aten.select.int"), vec![x.clone(), Arg::Int(n as i64), Arg::Int(i)])?;
            let part = p.call(op!("aten.select.int"), vec![part, Arg::Int(n as i64), Arg::Int(j)])?;
            let spread = |axis: usize, from: i64, count: i64, step: i64| {
                [Arg::Int(axis as i64), Arg::Int(from), Arg::Int(from + (count - 1) * step + 1), Arg::Int(step)]
            };
            let (down, across) = (spread(n, i * dh, rows, sh), spread(n + 1, j * dw, columns, sw));
            let cut = |p: &mut Pen<'_, '_>, x: &Arg, at: &[Arg; 4]| {
                p.call(op!("aten.slice.Tensor"), [std::slice::from_ref(x), at.as_slice()].concat())
            };
            let lines = cut(&mut p, &sum, &down)?;
            let there = cut(&mut p, &lines, &across)?;
            let there = p.add(&there, &part)?;
            let lines = p.call(op!("aten.slice_scatter.default"), [&[lines, there], across.as_slice()].concat())?;
            sum = p.call(op!("aten.slice_scatter.default"), [&[sum, lines], down.as_slice()].concat())?;
        }
    }
    let y = p.slice(&sum, n, Arg::Int(ph), Arg::Int(ph + h))?;
    let y = p.slice(&y, n + 1, Arg::Int(pw), Arg::Int(pw + w))?;
    p.done(y)
}
