//! Fourier transforms, forwards, backwards and over short times, by real transforms of single lines: one frame of `stft`.

use etx_ir::DType;
use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Dim;

use super::complex::{Complex, Found, Origin};
use super::expr::Ex;
use super::pen::Pen;
use crate::calls::{as_ints, ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;
type Value = std::result::Result<Arg, Error>;
type Maybe = std::result::Result<Option<Arg>, Error>;

/// A transform that gives complex numbers: of an operand, by the arguments of the call.
type Transform = fn(&mut Pen<'_, '_>, &Complex, &[Arg]) -> Found;

/// What a transform gives for each call of one that gives complex numbers.
pub(super) fn transform(op: OpId) -> Option<Transform> {
    Some(by_op!(op, {
        "aten.fft_fft.default" => |p, x, a| line(p, x, a, true, false),
        "aten.fft_ifft.default" => |p, x, a| line(p, x, a, false, false),
        "aten.fft_rfft.default" => |p, x, a| line(p, x, a, true, true),
        "aten.fft_ihfft.default" => |p, x, a| {
            // The transform backwards of real numbers is the conjugate of the one forwards.
            let Some(half) = line(p, x, a, true, true)? else { return Ok(None) };
            let Some(n) = length(&shape_of(p, x)?, a) else { return Ok(None) };
            let Some(by) = norm(a.get(3), n, false).zip(norm(a.get(3), n, true)).map(|(back, forth)| back / forth) else { return Ok(None) };
            let half = half.conjugate(p)?;
            scaled(p, half, by).map(Some)
        },
        "aten.fft_fft2.default" | "aten.fft_fftn.default" => |p, x, a| space(p, x, a, true, false),
        "aten.fft_ifft2.default" | "aten.fft_ifftn.default" => |p, x, a| space(p, x, a, false, false),
        "aten.fft_rfft2.default" | "aten.fft_rfftn.default" => |p, x, a| space(p, x, a, true, true),
        "aten.fft_ihfft2.default" | "aten.fft_ihfftn.default" => |p, x, a| {
            let Some(half) = space(p, x, a, true, true)? else { return Ok(None) };
            let shape = shape_of(p, x)?;
            let Some(n) = plane(&shape, a, false).map(|axes| axes.iter().map(|a| a.1).product()) else { return Ok(None) };
            let Some(by) = norm(a.get(3), n, false).zip(norm(a.get(3), n, true)).map(|(back, forth)| back / forth) else { return Ok(None) };
            let half = half.conjugate(p)?;
            scaled(p, half, by).map(Some)
        },
        "aten._fft_r2c.default" => |p, x, a| {
            let half = a.get(3).and_then(Arg::as_bool) == Some(true);
            by_number(p, x, a, true, half)
        },
        "aten._fft_c2c.default" => |p, x, a| {
            let forward = a.get(3).and_then(Arg::as_bool) != Some(false);
            by_number(p, x, a, forward, false)
        },
        "aten.fft_fftshift.default" => |p, x, a| shifted(p, x, a, true),
        "aten.fft_ifftshift.default" => |p, x, a| shifted(p, x, a, false),
        _ => return None,
    }))
}

fn shape_of(p: &mut Pen<'_, '_>, x: &Complex) -> std::result::Result<Vec<Dim>, Error> {
    let re = x.real(p)?;
    Ok(p.ty(&re)?.shape)
}

/// The length that the call gives, or that there is.
fn length(shape: &[Dim], args: &[Arg]) -> Option<i64> {
    match args.get(1) {
        Some(Arg::Int(n)) => Some(*n),
        _ => shape.get(wrap(args.get(2)?.as_int()?, shape.len())?)?.as_int(),
    }
}

/// What sums over `n` elements are multiplied by.
fn norm(name: Option<&Arg>, n: i64, forward: bool) -> Option<f64> {
    let name = match name {
        Some(Arg::Str(s)) => &**s,
        Some(Arg::None) | None => "backward",
        _ => return None,
    };
    match (name, forward) {
        ("ortho", _) => Some((n as f64).sqrt().recip()),
        ("backward", true) | ("forward", false) => Some(1.0),
        ("backward", false) | ("forward", true) => Some((n as f64).recip()),
        _ => None,
    }
}

fn scaled(p: &mut Pen<'_, '_>, z: Complex, by: f64) -> std::result::Result<Complex, Error> {
    if by == 1.0 { Ok(z) } else { z.each(p, &mut |p, x| p.mul(&x, by)) }
}

/// The axis as long as asked for: cut, or with zeros behind.
fn resized(p: &mut Pen<'_, '_>, x: &Arg, axis: usize, n: i64) -> Maybe {
    let t = p.ty(x)?;
    Ok(match t.shape.get(axis).and_then(Dim::as_int) {
        None => None,
        Some(now) if now == n => Some(x.clone()),
        Some(now) if now > n => Some(p.slice(x, axis, Arg::Int(0), Arg::Int(n))?),
        Some(now) => {
            let pads = (axis + 1..t.rank()).flat_map(|_| [0, 0]).chain([0, n - now]);
            Some(p.call(op!("aten.constant_pad_nd.default"), vec![x.clone(), ints(pads), Arg::Float(0.0)])?)
        }
    })
}

/// The axis as the last one, or the last one back in its place.
fn moved(p: &mut Pen<'_, '_>, x: &Arg, axis: usize, back: bool) -> Value {
    let rank = p.ty(x)?.rank();
    if axis + 1 == rank {
        return Ok(x.clone());
    }
    let mut order: Vec<usize> = (0..rank).filter(|&a| a != axis).collect();
    if back {
        order = (0..rank - 1).collect();
        order.insert(axis, rank - 1);
    } else {
        order.push(axis);
    }
    p.permute(x, &order)
}

/// Real numbers along the last axis, transformed: pairs, of half of the frequencies or of all.
fn spectrum(p: &mut Pen<'_, '_>, x: &Arg, half: bool) -> Maybe {
    let t = p.ty(x)?;
    let Some((Some(n), batch)) = t.shape.split_last().map(|(n, batch)| (n.as_int(), batch)) else { return Ok(None) };
    if t.dtype != DType::Float32 || n < 1 {
        return Ok(None);
    }
    let Some(lines) = p.view(x, &[Dim::product(batch), Dim::Int(n)])? else { return Ok(None) };
    let op = op!("aten.stft.default");
    let named = [
        ("n_fft", Arg::Int(n)),
        ("hop_length", Arg::Int(n)),
        ("normalized", Arg::Bool(false)),
        ("onesided", Arg::Bool(half)),
        ("return_complex", Arg::Bool(false)),
    ];
    let list = crate::calls::args(op, [lines], &named);
    let y = p.call(op, list)?;
    let bins = if half { n / 2 + 1 } else { n };
    let shape: Vec<Dim> = batch.iter().cloned().chain([Dim::Int(bins), Dim::Int(2)]).collect();
    p.view(&y, &shape)
}

/// One axis of `n` elements, not scaled. `F(a + bi) = F(a) + i F(b)`; backwards is the conjugate of what is forwards of the conjugate.
fn along(p: &mut Pen<'_, '_>, x: &Complex, axis: usize, n: i64, forward: bool, half: bool) -> Found {
    let (re, im) = x.parts(p)?;
    let mut both = Vec::new();
    for part in [Some(re), im].into_iter().flatten() {
        let Some(part) = resized(p, &part, axis, n)? else { return Ok(None) };
        let last = moved(p, &part, axis, false)?;
        let Some(y) = spectrum(p, &last, half)? else { return Ok(None) };
        both.push(Complex::Pairs(y).parts(p)?);
    }
    let (re, im) = match both.as_slice() {
        [(a, Some(b))] => (a.clone(), if forward { b.clone() } else { p.neg(b)? }),
        [(a, Some(b)), (c, Some(d))] if forward => (p.sub(a, d)?, p.add(b, c)?),
        [(a, Some(b)), (c, Some(d))] => (p.add(a, d)?, p.sub(c, b)?),
        _ => return Ok(None),
    };
    Ok(Some(Complex::Parts(moved(p, &re, axis, true)?, moved(p, &im, axis, true)?)))
}

/// Of one axis: `(input, n, dim, norm)`.
fn line(p: &mut Pen<'_, '_>, x: &Complex, args: &[Arg], forward: bool, half: bool) -> Found {
    let shape = shape_of(p, x)?;
    let axis = args.get(2).and_then(Arg::as_int).and_then(|d| wrap(d, shape.len()));
    let (Some(axis), Some(n)) = (axis, length(&shape, args)) else { return Ok(None) };
    let Some(by) = norm(args.get(3), n, forward) else { return Ok(None) };
    match along(p, x, axis, n, forward, half)? {
        Some(z) => scaled(p, z, by).map(Some),
        None => Ok(None),
    }
}

/// The axes and lengths of `(input, s, dim, norm)`. The last length of a half spectrum is what it came from.
fn plane(shape: &[Dim], args: &[Arg], from_half: bool) -> Option<Vec<(usize, i64)>> {
    let sizes = args.get(1).filter(|a| **a != Arg::None).map(as_ints);
    let sizes = match sizes {
        Some(list) => Some(list?),
        None => None,
    };
    let axes: Vec<usize> = match (args.get(2), &sizes) {
        (Some(Arg::None) | None, None) => (0..shape.len()).collect(),
        (Some(Arg::None) | None, Some(s)) => (shape.len().checked_sub(s.len())?..shape.len()).collect(),
        (Some(dims), _) => as_ints(dims)?.into_iter().map(|d| wrap(d, shape.len())).collect::<Option<_>>()?,
    };
    if axes.is_empty() || sizes.as_ref().is_some_and(|s| s.len() != axes.len()) {
        return None;
    }
    let length = |(i, &axis): (usize, &usize)| {
        let given = sizes.as_ref().and_then(|s| s.get(i).copied()).filter(|&n| n != -1);
        let there = shape.get(axis)?.as_int();
        let last = i + 1 == axes.len();
        Some((
            axis,
            match given {
                Some(n) => n,
                None if last && from_half => 2 * (there? - 1),
                None => there?,
            },
        ))
    };
    axes.iter().enumerate().map(length).collect()
}

/// Of several axes, the last one first: it is the one of which half is kept.
fn space(p: &mut Pen<'_, '_>, x: &Complex, args: &[Arg], forward: bool, half: bool) -> Found {
    let shape = shape_of(p, x)?;
    let Some(axes) = plane(&shape, args, false) else { return Ok(None) };
    let Some(by) = norm(args.get(3), axes.iter().map(|a| a.1).product(), forward) else { return Ok(None) };
    match axis_by_axis(p, x, &axes, forward, half)? {
        Some(z) => scaled(p, z, by).map(Some),
        None => Ok(None),
    }
}

fn axis_by_axis(p: &mut Pen<'_, '_>, x: &Complex, axes: &[(usize, i64)], forward: bool, half: bool) -> Found {
    let mut z = x.clone();
    for (i, &(axis, n)) in axes.iter().rev().enumerate() {
        match along(p, &z, axis, n, forward, half && i == 0)? {
            Some(y) => z = y,
            None => return Ok(None),
        }
    }
    Ok(Some(z))
}

/// The numbers that stand for the kinds of scale: none, the root, all of it.
fn by_code(code: Option<&Arg>, n: i64) -> Option<f64> {
    match code?.as_int()? {
        0 => Some(1.0),
        1 => Some((n as f64).sqrt().recip()),
        2 => Some((n as f64).recip()),
        _ => None,
    }
}

/// `(input, dim, normalization, …)`.
fn by_number(p: &mut Pen<'_, '_>, x: &Complex, args: &[Arg], forward: bool, half: bool) -> Found {
    let shape = shape_of(p, x)?;
    let Some(axes) = args.get(1).and_then(as_ints) else { return Ok(None) };
    let axes: Option<Vec<(usize, i64)>> =
        axes.into_iter().map(|d| wrap(d, shape.len()).and_then(|d| Some((d, shape.get(d)?.as_int()?)))).collect();
    let Some(axes) = axes else { return Ok(None) };
    let Some(by) = by_code(args.get(2), axes.iter().map(|a| a.1).product()) else { return Ok(None) };
    match axis_by_axis(p, x, &axes, forward, half)? {
        Some(z) => scaled(p, z, by).map(Some),
        None => Ok(None),
    }
}

/// Half of the spectrum of real numbers back to those, along an axis, not scaled: `Re F(a) + Im F(b)` for `a + bi`, with the other half
/// mirrored.
fn real_line(p: &mut Pen<'_, '_>, z: &Complex, axis: usize, n: i64) -> Maybe {
    let (re, im) = z.parts(p)?;
    let kept = n / 2 + 1;
    let mut y: Option<Arg> = None;
    for (part, sign) in [(Some(re), 1.0), (im, -1.0)] {
        let Some(part) = part else { continue };
        let Some(part) = resized(p, &part, axis, kept)? else { return Ok(None) };
        let half = moved(p, &part, axis, false)?;
        let last = p.ty(&half)?.rank() - 1;
        let mirror = p.slice(&half, last, Arg::Int(1), Arg::Int(n - kept + 1))?;
        let mirror = p.call(op!("aten.flip.default"), vec![mirror, ints([last as i64])])?;
        let mirror = if sign < 0.0 { p.neg(&mirror)? } else { mirror };
        let whole = p.call(op!("aten.cat.default"), vec![Arg::List(vec![half, mirror]), Arg::Int(last as i64)])?;
        let Some(whole) = spectrum(p, &whole, false)? else { return Ok(None) };
        let part = p.call(op!("aten.select.int"), vec![whole, Arg::Int(-1), Arg::Int(i64::from(sign < 0.0))])?;
        y = Some(match y {
            Some(sum) => p.add(&sum, &part)?,
            None => part,
        });
    }
    match y {
        Some(y) => moved(p, &y, axis, true).map(Some),
        None => Ok(None),
    }
}

/// The complex operand of a call that gives real numbers.
fn operand(p: &mut Pen<'_, '_>) -> Found {
    let x = p.0.nth(0).clone();
    Origin::default().operand(p, &x)
}

fn ends(p: &mut Pen<'_, '_>, y: Option<Arg>, by: f64) -> Result {
    match y {
        Some(y) if by == 1.0 => p.done(y),
        Some(y) => {
            let y = p.mul(&y, by)?;
            p.done(y)
        }
        None => Ok(None),
    }
}

/// Source: torch.fft.irfft, torch.fft.hfft.
pub(super) fn from_half(site: &mut Site<'_>) -> Result {
    let args = site.node().args.clone();
    let hermitian = site.op() == op!("aten.fft_hfft.default");
    let mut p = Pen(site);
    let Some(mut z) = operand(&mut p)? else { return Ok(None) };
    let shape = shape_of(&mut p, &z)?;
    let axis = args.get(2).and_then(Arg::as_int).and_then(|d| wrap(d, shape.len()));
    let there = axis.and_then(|a| shape.get(a)).and_then(Dim::as_int).map(|m| 2 * (m - 1));
    let (Some(axis), Some(n)) = (axis, args.get(1).and_then(Arg::as_int).or(there)) else { return Ok(None) };
    let Some(by) = norm(args.get(3), n, hermitian) else { return Ok(None) };
    if hermitian {
        z = z.conjugate(&mut p)?;
    }
    let y = real_line(&mut p, &z, axis, n)?;
    ends(&mut p, y, by)
}

/// Source: torch.fft.irfft2, torch.fft.irfftn; hfft2 and hfftn are the same of the conjugate, scaled the other way.
pub(super) fn from_half_space(site: &mut Site<'_>) -> Result {
    let args = site.node().args.clone();
    let hermitian = is_op!(site.op(), "aten.fft_hfft2.default" | "aten.fft_hfftn.default");
    let mut p = Pen(site);
    let Some(mut z) = operand(&mut p)? else { return Ok(None) };
    if hermitian {
        z = z.conjugate(&mut p)?;
    }
    let shape = shape_of(&mut p, &z)?;
    let Some(axes) = plane(&shape, &args, true) else { return Ok(None) };
    let Some(by) = norm(args.get(3), axes.iter().map(|a| a.1).product(), hermitian) else { return Ok(None) };
    let Some((&(last, n), rest)) = axes.split_last() else { return Ok(None) };
    let Some(z) = axis_by_axis(&mut p, &z, rest, false, false)? else { return Ok(None) };
    let y = real_line(&mut p, &z, last, n)?;
    ends(&mut p, y, by)
}

/// Source: torch.ops.aten._fft_c2r.
pub(super) fn c2r(site: &mut Site<'_>) -> Result {
    let args = site.node().args.clone();
    let mut p = Pen(site);
    let Some(z) = operand(&mut p)? else { return Ok(None) };
    let shape = shape_of(&mut p, &z)?;
    let (Some(dims), Some(n)) = (args.get(1).and_then(as_ints), args.get(3).and_then(Arg::as_int)) else { return Ok(None) };
    let axes: Option<Vec<(usize, i64)>> =
        dims.into_iter().map(|d| wrap(d, shape.len()).and_then(|d| Some((d, shape.get(d)?.as_int()?)))).collect();
    let Some((Some(&(last, _)), rest)) = axes.as_ref().map(|a| (a.last(), a.get(..a.len().saturating_sub(1)).unwrap_or_default())) else {
        return Ok(None);
    };
    let Some(by) = by_code(args.get(2), n * rest.iter().map(|a| a.1).product::<i64>()) else { return Ok(None) };
    let Some(z) = axis_by_axis(&mut p, &z, rest, false, false)? else { return Ok(None) };
    let y = real_line(&mut p, &z, last, n)?;
    ends(&mut p, y, by)
}

/// Frequency 0 into the middle, or back.
fn shifted(p: &mut Pen<'_, '_>, x: &Complex, args: &[Arg], middle: bool) -> Found {
    let shape = shape_of(p, x)?;
    let axes: Option<Vec<usize>> = match args.get(1) {
        Some(Arg::None) | None => Some((0..shape.len()).collect()),
        Some(list) => as_ints(list).and_then(|l| l.into_iter().map(|d| wrap(d, shape.len())).collect()),
    };
    let by = |axes: &[usize]| -> Option<Vec<i64>> {
        axes.iter().map(|&a| shape.get(a)?.as_int().map(|n| if middle { n / 2 } else { (n + 1) / 2 })).collect()
    };
    let Some((axes, by)) = axes.and_then(|a| by(&a).map(|b| (a, b))) else { return Ok(None) };
    let (by, axes) = (ints(by), ints(axes.into_iter().map(|a| a as i64)));
    x.each(p, &mut |p, x| p.call(op!("aten.roll.default"), vec![x, by.clone(), axes.clone()])).map(Some)
}

/// Of real numbers. Source: torch.fft.fftshift, torch.fft.ifftshift.
pub(super) fn shift(site: &mut Site<'_>) -> Result {
    if site.operand(0).is_none_or(|t| t.dtype.is_complex()) {
        return Ok(None);
    }
    let (args, middle) = (site.node().args.clone(), site.op() == op!("aten.fft_fftshift.default"));
    let mut p = Pen(site);
    let x = Complex::Real(p.0.nth(0).clone());
    match shifted(&mut p, &x, &args, middle)? {
        Some(y) => {
            let y = y.real(&mut p)?;
            p.done(y)
        }
        None => Ok(None),
    }
}

/// The frequencies of the bins. Source: torch.fft.fftfreq, torch.fft.rfftfreq.
pub(super) fn frequencies(site: &mut Site<'_>) -> Result {
    let (Some(n), Some(d)) = (site.arg("n").as_int(), site.arg("d").as_float()) else { return Ok(None) };
    if n < 1 {
        return Ok(None);
    }
    let half = site.op() == op!("aten.fft_rfftfreq.default");
    let mut p = Pen(site);
    let count = if half { n / 2 + 1 } else { n };
    let ramp = p.call(op!("aten.arange.start_step"), vec![Arg::Int(0), Arg::Int(count), Arg::Int(1), Arg::DType(DType::Int64)])?;
    let bins = Ex::from(ramp);
    let bins = if half { bins } else { (bins + n / 2).remainder(n) - n / 2 };
    p.ends(&(bins.cast(DType::Float32) * (1.0 / (n as f64 * d))))
}

/// What frames `[…, frames, n]` add up to where each is `hop` further on: `[…, length]`.
fn overlapped(p: &mut Pen<'_, '_>, x: &Arg, n: i64, hop: i64) -> std::result::Result<Option<(Arg, Dim)>, Error> {
    let pieces = (n + hop - 1) / hop;
    let last = p.ty(x)?.rank() - 1;
    let Some(x) = resized(p, x, last, pieces * hop)? else { return Ok(None) };
    let t = p.ty(&x)?;
    let Some((_, [batch @ .., frames])) = t.shape.split_last() else { return Ok(None) };
    let mut sum: Option<Arg> = None;
    for k in 0..pieces {
        let piece = p.slice(&x, last, Arg::Int(k * hop), Arg::Int((k + 1) * hop))?;
        let pad = ints([0, 0, k, pieces - 1 - k]);
        let piece = p.call(op!("aten.constant_pad_nd.default"), vec![piece, pad, Arg::Float(0.0)])?;
        sum = Some(match sum {
            Some(sum) => p.add(&sum, &piece)?,
            None => piece,
        });
    }
    let length = frames.plus(&Dim::Int(pieces - 1)).times(&Dim::Int(hop));
    let shape: Vec<Dim> = batch.iter().cloned().chain([length.clone()]).collect();
    match sum {
        Some(sum) => Ok(p.view(&sum, &shape)?.map(|y| (y, length))),
        None => Ok(None),
    }
}

/// Frames transformed back, weighed, added where they overlap, divided by what the weights add up to. Source: torch.istft.
pub(super) fn istft(site: &mut Site<'_>) -> Result {
    let Some(n) = site.arg("n_fft").as_int() else { return Ok(None) };
    let hop = site.arg("hop_length").as_int().unwrap_or(n / 4);
    let size = site.arg("win_length").as_int().unwrap_or(n);
    let (centred, normalized) = (site.arg("center").as_bool() != Some(false), site.arg("normalized").as_bool() == Some(true));
    let (window, wanted) = (site.arg("window").clone(), site.arg("length").clone());
    if hop < 1 || hop > size || size > n || site.arg("return_complex").as_bool() == Some(true) || wanted.as_value().is_some() {
        return Ok(None);
    }
    let onesided = site.arg("onesided").as_bool();
    let Some(result) = site.result().cloned() else { return Ok(None) };
    let mut p = Pen(site);
    let Some(z) = operand(&mut p)? else { return Ok(None) };
    let shape = shape_of(&mut p, &z)?;
    let Some([bins, frames]) = shape.len().checked_sub(2).and_then(|i| shape.get(i..)) else { return Ok(None) };
    let (axis, frames) = (shape.len() - 2, frames.clone());
    let half = onesided.unwrap_or(*bins != Dim::Int(n));
    let by = if normalized { (n as f64).sqrt().recip() } else { (n as f64).recip() };
    let y = if half {
        real_line(&mut p, &z, axis, n)?
    } else {
        match along(&mut p, &z, axis, n, false, false)? {
            Some(z) => Some(z.real(&mut p)?),
            None => None,
        }
    };
    let Some(y) = y else { return Ok(None) };
    let y = p.mul(&y, by)?;
    let y = p.transpose(&y)?;
    let window = match p.0.tensor(&window).cloned() {
        Some(t) if t.dtype == DType::Float32 && t.shape == [Dim::Int(size)] => window,
        None => p.call(op!("aten.full.default"), vec![ints([size]), Arg::Float(1.0), Arg::DType(DType::Float32)])?,
        Some(_) => return Ok(None),
    };
    let left = (n - size) / 2;
    let pad = ints([left, n - size - left]);
    let window = if size == n { window } else { p.call(op!("aten.constant_pad_nd.default"), vec![window, pad, Arg::Float(0.0)])? };
    let y = p.mul(&y, &window)?;
    let squares = p.square(&window)?;
    let Some(sizes) = p.0.sizes(&[frames, Dim::Int(n)]) else { return Ok(None) };
    let squares = p.call(op!("aten.expand.default"), vec![squares, sizes])?;
    let (Some((y, length)), Some((weight, _))) = (overlapped(&mut p, &y, n, hop)?, overlapped(&mut p, &squares, n, hop)?) else {
        return Ok(None);
    };
    // The frames were made a multiple of the step.
    let whole = length.minus(&Dim::Int((n + hop - 1) / hop * hop - n));
    let from = if centred { n / 2 } else { 0 };
    let to = match wanted.as_int() {
        Some(m) => Dim::Int(from + m),
        None => whole.minus(&Dim::Int(from)),
    };
    // A longer signal than there is would be filled with zeros.
    if p.0.ranges().at_most(&to, &whole) != Some(true) {
        return Ok(None);
    }
    let Some(end) = p.0.size(&to) else { return Ok(None) };
    let last = p.ty(&y)?.rank() - 1;
    let (y, weight) = (p.slice(&y, last, Arg::Int(from), end.clone())?, p.slice(&weight, 0, Arg::Int(from), end)?);
    let y = p.div(&y, &weight)?;
    match p.view(&y, &result.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}
