//! Derivatives of sampling an image at computed places.

use etx_ir::DType;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::super::expr::Ex;
use super::super::pen::Pen;
use super::super::several::{several, wanted};
use super::Result;
use crate::rewrite::Site;

/// Linear between pixels, zeros outside. To the image: every corner of a place takes its weight's share. To the grid: what the corners
/// differ by, times half the size of the image. Source: torch.nn.functional.grid_sample.
pub(in crate::decompose) fn sampled(site: &mut Site<'_>) -> Result {
    let (Some(t), Some(g)) = (site.operand(1).cloned(), site.operand(2).cloned()) else { return Ok(None) };
    let aligned = site.arg("align_corners").as_bool() == Some(true);
    if site.arg("interpolation_mode").as_int() != Some(0) || site.arg("padding_mode").as_int() != Some(0) {
        return Ok(None);
    }
    let ([batch, channels, h, w], [_, rows, columns, _]) = (t.shape.as_slice(), g.shape.as_slice()) else { return Ok(None) };
    let (Some(h), Some(w)) = (h.as_int().filter(|n| *n > 0), w.as_int().filter(|n| *n > 0)) else { return Ok(None) };
    let want = [wanted(site, 0), wanted(site, 1)];
    let count = rows.times(columns);
    let mut p = Pen(site);
    let (above, image, grid) = (p.operand(0)?, p.operand(1)?, p.operand(2)?);
    let (above, image, grid) = (p.write(&above)?, p.write(&image)?, p.write(&grid)?);
    let lines = [batch.clone(), channels.clone(), count.clone()];
    let pixels = [batch.clone(), channels.clone(), Dim::Int(h * w)];
    let (Some(above), Some(flat), Some(places)) =
        (p.view(&above, &lines)?, p.view(&image, &pixels)?, p.view(&grid, &[batch.clone(), count.clone(), Dim::Int(2)])?)
    else {
        return Ok(None);
    };
    // Places in pixels, across and down: [batch, places].
    let mut axes = Vec::new();
    for (i, n) in [(0, w), (1, h)] {
        let x = Ex::from(p.call(op!("aten.select.int"), vec![places.clone(), Arg::Int(2), Arg::Int(i)])?);
        let size = n as f64;
        let (factor, at) =
            if aligned { ((size - 1.0) / 2.0, (x + 1.0) * ((size - 1.0) / 2.0)) } else { (size / 2.0, ((x + 1.0) * size - 1.0) * 0.5) };
        let at = Ex::from(p.write(&at)?);
        let low = Ex::from(p.write(&at.floor())?);
        axes.push((n, factor, &at - &low, low));
    }
    let [(_, across_factor, x, left), (_, down_factor, y, top)] = axes.as_slice() else { return Ok(None) };
    let (Some(sizes), Some(all)) = (p.0.sizes(&pixels), p.0.sizes(&lines)) else { return Ok(None) };
    let mut to_image = p.call(op!("aten.full.default"), vec![sizes, Arg::Float(0.0), Arg::DType(DType::Float32)])?;
    let (mut to_x, mut to_y): (Option<Ex>, Option<Ex>) = (None, None);
    for (right, below) in [(false, false), (true, false), (false, true), (true, true)] {
        let (column, row) = (left + if right { 1.0 } else { 0.0 }, top + if below { 1.0 } else { 0.0 });
        let inside = |at: &Ex, n: i64| at.ge(0i64).and(at.le((n - 1) as f64));
        let valid = Ex::from(p.write(&inside(&column, w).and(inside(&row, h)))?);
        let at = valid.then(&row * (w as f64) + &column, 0.0).cast(DType::Int64).unsqueeze(1i64);
        let at = p.write(&at)?;
        let at = p.call(op!("aten.expand.default"), vec![at, all.clone()])?;
        let (wx, wy) = (if right { x.clone() } else { -x + 1.0 }, if below { y.clone() } else { -y + 1.0 });
        let valid = valid.unsqueeze(1i64);
        if want[0] {
            let share = p.write(&valid.then(Ex::from(&above) * (&wx * &wy).unsqueeze(1i64), 0.0))?;
            to_image = p.call(op!("aten.scatter_add.default"), vec![to_image, Arg::Int(2), at.clone(), share])?;
        }
        if want[1] {
            let value = p.call(op!("aten.gather.default"), vec![flat.clone(), Arg::Int(2), at])?;
            let moved = Ex::from(p.write(&(valid.then(value, 0.0) * Ex::from(&above)).sum(&[1], false))?);
            let (dx, dy) = (&moved * &wy, &moved * &wx);
            let (dx, dy) = (if right { dx } else { -dx }, if below { dy } else { -dy });
            to_x = Some(to_x.map_or(dx.clone(), |s| s + dx));
            to_y = Some(to_y.map_or(dy.clone(), |s| s + dy));
        }
    }
    let mut results = vec![Arg::None, Arg::None];
    if let (true, Some(first)) = (want[0], results.first_mut()) {
        let Some(y) = p.view(&to_image, &t.shape)? else { return Ok(None) };
        *first = y;
    }
    if let (Some(dx), Some(dy), Some(second)) = (to_x, to_y, results.get_mut(1)) {
        let sides = vec![p.write(&(dx * *across_factor))?, p.write(&(dy * *down_factor))?];
        let y = p.call(op!("aten.stack.default"), vec![Arg::List(sides), Arg::Int(2)])?;
        let Some(y) = p.view(&y, &g.shape)? else { return Ok(None) };
        *second = y;
    }
    several(&mut p, results)
}
