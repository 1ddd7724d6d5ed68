//! Derivatives of convolutions, which are convolutions.

use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::super::pen::Pen;
use super::{Result, Value, several, wanted};
use crate::calls::{as_ints, ints};
use crate::rewrite::Site;

/// What a convolution is told besides its tensors, one number an axis.
struct How {
    stride: Vec<i64>,
    padding: Vec<i64>,
    dilation: Vec<i64>,
    transposed: bool,
    groups: i64,
}

impl How {
    fn read(site: &Site<'_>, axes: usize) -> Option<How> {
        let list = |name: &str| {
            let list = as_ints(site.arg(name))?;
            match list.as_slice() {
                [one] => Some(vec![*one; axes]),
                all => (all.len() == axes).then_some(list),
            }
        };
        Some(How {
            stride: list("stride")?,
            padding: list("padding")?,
            dilation: list("dilation")?,
            transposed: site.arg("transposed").as_bool()?,
            groups: site.arg("groups").as_int().filter(|n| *n > 0)?,
        })
    }
}

/// The convolution of its rank, without a bias.
fn convolve(p: &mut Pen<'_, '_>, x: &Arg, w: &Arg, how: &How, more: Option<Vec<i64>>) -> std::result::Result<Arg, Error> {
    let lists = |l: &[i64]| ints(l.iter().copied());
    let mut list = vec![x.clone(), w.clone(), Arg::None, lists(&how.stride), lists(&how.padding)];
    match (more, how.stride.len()) {
        (Some(more), n) => {
            list.extend([lists(&more), Arg::Int(how.groups), lists(&how.dilation)]);
            match n {
                1 => p.call(op!("aten.conv_transpose1d.default"), list),
                2 => p.call(op!("aten.conv_transpose2d.input"), list),
                _ => p.call(op!("aten.conv_transpose3d.input"), list),
            }
        }
        (None, n) => {
            list.extend([lists(&how.dilation), Arg::Int(how.groups)]);
            match n {
                1 => p.call(op!("aten.conv1d.default"), list),
                2 => p.call(op!("aten.conv2d.default"), list),
                _ => p.call(op!("aten.conv3d.default"), list),
            }
        }
    }
}

/// The first `n` along the axes from 2 on, which may have more.
fn cut(p: &mut Pen<'_, '_>, mut x: Arg, shape: &[Dim]) -> Value {
    for (axis, n) in shape.iter().enumerate().skip(2) {
        if p.ty(&x)?.shape.get(axis) != Some(n) {
            let Some(end) = p.0.size(n) else { return Ok(None) };
            x = p.slice(&x, axis, Arg::Int(0), end)?;
        }
    }
    Ok(Some(x))
}

/// The gradient convolved the other way.
fn to_input(p: &mut Pen<'_, '_>, how: &How, g: &Arg, w: &Arg, to: &[Dim]) -> Value {
    if how.transposed {
        let y = convolve(p, g, w, how, None)?;
        return cut(p, y, to);
    }
    let (given, kernel) = (p.ty(g)?.shape, p.ty(w)?.shape);
    let mut more = Vec::new();
    let each = to.iter().zip(&given).zip(&kernel).skip(2).zip(how.stride.iter().zip(&how.padding).zip(&how.dilation));
    for (((n, m), k), ((s, p), d)) in each {
        // What the last window did not reach.
        let one = Dim::Int(1);
        let reach = k.minus(&one).times(&Dim::Int(*d)).plus(&one);
        let made = m.minus(&one).times(&Dim::Int(*s)).plus(&reach).minus(&Dim::Int(2 * p));
        match n.minus(&made).as_int() {
            Some(n) if n >= 0 => more.push(n),
            _ => return Ok(None),
        }
    }
    convolve(p, g, w, how, Some(more)).map(Some)
}

/// What slides over what: the batch takes the place of the channels, steps and gaps change places, and each group is by itself.
fn to_weight(p: &mut Pen<'_, '_>, how: &How, over: &Arg, window: &Arg, to: &[Dim]) -> Value {
    let (a, b) = (p.ty(over)?.shape, p.ty(window)?.shape);
    let ([n, c, rest @ ..], [_, made, ..]) = (a.as_slice(), b.as_slice()) else { return Ok(None) };
    let (Some(c), Some(made)) = (c.as_int(), made.as_int()) else { return Ok(None) };
    let (rank, groups) = (a.len(), how.groups);
    if c % groups != 0 || made % groups != 0 {
        return Ok(None);
    }
    // [N, G·c, …] to [c, G·N, …]
    let mut split = vec![n.clone(), Dim::Int(groups), Dim::Int(c / groups)];
    split.extend_from_slice(rest);
    let Some(x) = p.view(over, &split)? else { return Ok(None) };
    let x = p.permute(&x, &[2, 1, 0].into_iter().chain(3..rank + 1).collect::<Vec<_>>())?;
    let mut joined = vec![Dim::Int(c / groups), Dim::Int(groups).times(n)];
    joined.extend_from_slice(rest);
    let Some(x) = p.view(&x, &joined)? else { return Ok(None) };
    let swap: Vec<usize> = [1, 0].into_iter().chain(2..rank).collect();
    let w = p.permute(window, &swap)?;
    let turned =
        How { stride: how.dilation.clone(), padding: how.padding.clone(), dilation: how.stride.clone(), transposed: false, groups };
    let y = convolve(p, &x, &w, &turned, None)?;
    let y = p.permute(&y, &swap)?;
    cut(p, y, to)
}

/// To the input, the weight and the bias. Source: torch.nn.Conv1d, 2d, 3d, ConvTranspose1d, 2d, 3d.
pub(in crate::decompose) fn convolution(site: &mut Site<'_>) -> Result {
    let (Some(x), Some(w)) = (site.operand(1).cloned(), site.operand(2).cloned()) else { return Ok(None) };
    let Some(axes) = w.rank().checked_sub(2).filter(|n| (1..=3).contains(n) && x.rank() == n + 2) else { return Ok(None) };
    let Some(how) = How::read(site, axes) else { return Ok(None) };
    let want = [0, 1, 2].map(|i| wanted(site, i));
    let [g, input, weight] = [0, 1, 2].map(|i| site.nth(i).clone());
    let mut p = Pen(site);
    let mut results = [Arg::None, Arg::None, Arg::None];
    if want[0] {
        let Some(y) = to_input(&mut p, &how, &g, &weight, &x.shape)? else { return Ok(None) };
        results[0] = y;
    }
    if want[1] {
        let (over, window) = if how.transposed { (&g, &input) } else { (&input, &g) };
        let Some(y) = to_weight(&mut p, &how, over, window, &w.shape)? else { return Ok(None) };
        results[1] = y;
    }
    if want[2] {
        let dims: Vec<usize> = (0..axes + 2).filter(|&d| d != 1).collect();
        results[2] = p.reduce(op!("aten.sum.dim_IntList"), &g, &dims, false)?;
    }
    several(&mut p, results.into())
}
