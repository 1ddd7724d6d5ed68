//! Complex numbers as real ones. No backend has to hold a complex tensor: what is asked of one is asked of its parts, back to where
//! they came from.

use std::collections::HashMap;

use etx_ir::error::Error;
use etx_ir::graph::{Arg, ValueId};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Dim;

use super::fourier;
use super::pen::Pen;
use crate::calls::{as_ints, ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;
type Value = std::result::Result<Arg, Error>;
pub(super) type Found = std::result::Result<Option<Complex>, Error>;

/// A complex tensor, by what is there of it.
#[derive(Clone)]
pub(super) enum Complex {
    /// A real tensor with a last axis of 2.
    Pairs(Arg),
    /// Real and imaginary parts, of the shape of the tensor.
    Parts(Arg, Arg),
    /// All imaginary parts are 0.
    Real(Arg),
}

/// How many calls a complex value is followed back through.
const MAX_DEPTH: usize = 64;

/// Follows complex values back, each once.
#[derive(Default)]
pub(super) struct Origin {
    seen: HashMap<ValueId, Option<Complex>>,
    depth: usize,
}

impl Complex {
    /// The real (0) or imaginary (1) parts of pairs.
    fn select(p: &mut Pen<'_, '_>, pairs: &Arg, which: i64) -> Value {
        p.call(op!("aten.select.int"), vec![pairs.clone(), Arg::Int(-1), Arg::Int(which)])
    }

    pub(super) fn real(&self, p: &mut Pen<'_, '_>) -> Value {
        match self {
            Complex::Pairs(x) => Self::select(p, x, 0),
            Complex::Parts(re, _) | Complex::Real(re) => Ok(re.clone()),
        }
    }

    /// The imaginary parts; `None` where they are 0.
    pub(super) fn imaginary(&self, p: &mut Pen<'_, '_>) -> std::result::Result<Option<Arg>, Error> {
        match self {
            Complex::Pairs(x) => Self::select(p, x, 1).map(Some),
            Complex::Parts(_, im) => Ok(Some(im.clone())),
            Complex::Real(_) => Ok(None),
        }
    }

    pub(super) fn parts(&self, p: &mut Pen<'_, '_>) -> std::result::Result<(Arg, Option<Arg>), Error> {
        Ok((self.real(p)?, self.imaginary(p)?))
    }

    /// The imaginary parts, written where they are 0.
    fn all_imaginary(&self, p: &mut Pen<'_, '_>) -> Value {
        match self.imaginary(p)? {
            Some(im) => Ok(im),
            None => {
                let re = self.real(p)?;
                p.call(op!("aten.zeros_like.default"), vec![re])
            }
        }
    }

    pub(super) fn pairs(&self, p: &mut Pen<'_, '_>) -> Value {
        match self {
            Complex::Pairs(x) => Ok(x.clone()),
            _ => {
                let (re, im) = (self.real(p)?, self.all_imaginary(p)?);
                p.call(op!("aten.stack.default"), vec![Arg::List(vec![re, im]), Arg::Int(-1)])
            }
        }
    }

    pub(super) fn of(re: Arg, im: Option<Arg>) -> Self {
        match im {
            Some(im) => Complex::Parts(re, im),
            None => Complex::Real(re),
        }
    }

    /// The same done to both parts.
    pub(super) fn each(&self, p: &mut Pen<'_, '_>, f: &mut dyn FnMut(&mut Pen<'_, '_>, Arg) -> Value) -> std::result::Result<Self, Error> {
        let (re, im) = self.parts(p)?;
        Ok(Complex::of(f(p, re)?, im.map(|im| f(p, im)).transpose()?))
    }

    pub(super) fn conjugate(&self, p: &mut Pen<'_, '_>) -> std::result::Result<Self, Error> {
        let (re, im) = self.parts(p)?;
        Ok(Complex::of(re, im.map(|im| p.neg(&im)).transpose()?))
    }
}

impl Origin {
    /// An operand: a value or a number, complex or not. `None` where it cannot be followed.
    pub(super) fn operand(&mut self, p: &mut Pen<'_, '_>, x: &Arg) -> Found {
        match x {
            Arg::Complex(re, im) => Ok(Some(Complex::Parts(Arg::Float(*re), Arg::Float(*im)))),
            Arg::Value(v) if p.0.tensor(x).is_some_and(|t| t.dtype.is_complex()) => self.value(p, *v),
            _ => Ok(Some(Complex::Real(x.clone()))),
        }
    }

    fn value(&mut self, p: &mut Pen<'_, '_>, v: ValueId) -> Found {
        if let Some(z) = self.seen.get(&v) {
            return Ok(z.clone());
        }
        if self.depth == MAX_DEPTH {
            return Ok(None);
        }
        self.depth += 1;
        let z = self.made(p, v)?;
        self.depth -= 1;
        self.seen.insert(v, z.clone());
        Ok(z)
    }

    fn made(&mut self, p: &mut Pen<'_, '_>, v: ValueId) -> Found {
        let graph = p.0.graph();
        let Some(t) = graph.tensor(v).cloned() else { return Ok(None) };
        let Some(node) = graph.producer(v).map(|n| graph.node(n)) else {
            // Weights are read as pairs; there is no complex input.
            return p.call(op!("aten.view_as_real.default"), vec![v.into()]).map(Complex::Pairs).map(Some);
        };
        if node.outputs.len() != 1 {
            return Ok(None);
        }
        let (op, list) = (node.op, node.args.clone());
        let get = |i: usize| list.get(i).cloned().unwrap_or(Arg::None);
        let place = |name: &str| op.schema().position(name);
        let with_two = || t.shape.iter().cloned().chain([Dim::Int(2)]).collect::<Vec<_>>();
        let rank = t.rank();
        by_op!(op, {
            "aten.view_as_complex.default" => return Ok(Some(Complex::Pairs(get(0)))),
            "aten.complex.default" => return Ok(Some(Complex::Parts(get(0), get(1)))),
            "aten.polar.default" => return polar(p, &get(0), &get(1)).map(Some),
            "aten.stft.default" => {
                let mut args = list.clone();
                if let Some(a) = place("return_complex").and_then(|i| args.get_mut(i)) {
                    *a = Arg::Bool(false);
                }
                return p.call(op, args).map(Complex::Pairs).map(Some);
            },
            "aten.cat.default" | "aten.stack.default" => {
                let mut all = (Vec::new(), Vec::new());
                for x in get(0).as_list().unwrap_or_default() {
                    let Some(z) = self.operand(p, x)? else { return Ok(None) };
                    all.0.push(z.real(p)?);
                    all.1.push(z.all_imaginary(p)?);
                }
                let (re, im) = (p.call(op, vec![Arg::List(all.0), get(1)])?, p.call(op, vec![Arg::List(all.1), get(1)])?);
                return Ok(Some(Complex::Parts(re, im)));
            },
            "aten.where.self" => {
                let (Some(a), Some(b)) = (self.operand(p, &get(1))?, self.operand(p, &get(2))?) else { return Ok(None) };
                let (re, im) = ((a.real(p)?, b.real(p)?), (a.all_imaginary(p)?, b.all_imaginary(p)?));
                let (re, im) = (p.call(op, vec![get(0), re.0, re.1])?, p.call(op, vec![get(0), im.0, im.1])?);
                return Ok(Some(Complex::Parts(re, im)));
            },
            _ => {},
        });
        if let Some(f) = fourier::transform(op) {
            let Some(x) = self.operand(p, &get(0))? else { return Ok(None) };
            return f(p, &x, &list);
        }
        let two =
            |s: &mut Self, p: &mut Pen<'_, '_>| -> std::result::Result<_, Error> { Ok(s.operand(p, &get(0))?.zip(s.operand(p, &get(1))?)) };
        by_op!(op, {
            "aten.mul.Tensor" | "aten.matmul.default" | "aten.mm.default" | "aten.bmm.default" => {
                return match two(self, p)? {
                    Some((a, b)) => product(p, op, &a, &b).map(Some),
                    None => Ok(None),
                };
            },
            "aten.square.default" => {
                let Some(z) = self.operand(p, &get(0))? else { return Ok(None) };
                return product(p, op!("aten.mul.Tensor"), &z, &z).map(Some);
            },
            "aten.div.Tensor" => {
                return match two(self, p)? {
                    Some((a, b)) => quotient(p, &a, &b).map(Some),
                    None => Ok(None),
                };
            },
            "aten.add.Tensor" | "aten.sub.Tensor" => {
                let Some((a, b)) = two(self, p)? else { return Ok(None) };
                let factor = place("alpha").map_or(Arg::Int(1), get);
                return sum(p, op, &a, &b, factor, &t.shape);
            },
            _ => {},
        });
        let Some(z) = self.operand(p, &get(0))? else { return Ok(None) };
        Ok(by_op!(op, {
            "aten.conj.default" | "aten._conj.default" | "aten._conj_physical.default" | "aten.conj_physical.default" => Some(z.conjugate(p)?),
            "aten.neg.default" => Some(z.each(p, &mut |p, x| p.neg(&x))?),
            "aten.exp.default" => {
                let (re, im) = z.parts(p)?;
                let size = p.exp(&re)?;
                match im {
                    Some(im) => Some(polar(p, &size, &im)?),
                    None => Some(Complex::Real(size)),
                }
            },
            "aten._to_copy.default" | "aten.clone.default" | "aten.contiguous.default" => Some(z),
            "aten.view.default" | "aten.reshape.default" | "aten.unsqueeze.default" | "aten.squeeze.dims" | "aten.squeeze.dim" => {
                match &z {
                    Complex::Pairs(x) => p.view(x, &with_two())?.map(Complex::Pairs),
                    z => {
                        let (re, im) = z.parts(p)?;
                        let (Some(re), im) = (p.view(&re, &t.shape)?, im.map(|im| p.view(&im, &t.shape)).transpose()?) else { return Ok(None) };
                        Some(Complex::of(re, im.flatten()))
                    },
                }
            },
            "aten.permute.default" => match (&z, as_ints(&get(1))) {
                (Complex::Pairs(x), Some(dims)) => {
                    let dims = dims.into_iter().map(|d| wrap(d, rank).map(|d| d as i64)).chain([Some(rank as i64)]).collect::<Option<Vec<_>>>();
                    match dims {
                        Some(dims) => Some(Complex::Pairs(p.call(op, vec![x.clone(), ints(dims)])?)),
                        None => None,
                    }
                },
                _ => Some(z.each(p, &mut |p, x| p.call(op, vec![x, get(1)]))?),
            },
            "aten.slice.Tensor" => match (&z, get(1).as_int().and_then(|d| wrap(d, rank))) {
                (Complex::Pairs(x), Some(d)) => {
                    Some(Complex::Pairs(p.call(op, vec![x.clone(), Arg::Int(d as i64), get(2), get(3), get(4)])?))
                },
                _ => Some(z.each(p, &mut |p, x| p.call(op, vec![x, get(1), get(2), get(3), get(4)]))?),
            },
            // What does the same to both parts.
            "aten.select.int"
            | "aten.expand.default"
            | "aten.repeat.default"
            | "aten.flip.default"
            | "aten.roll.default"
            | "aten.index_select.default"
            | "aten.constant_pad_nd.default"
            | "aten.sum.dim_IntList"
            | "aten.mean.dim"
            | "aten.sum.default"
            | "aten.mean.default" => {
                let plain = list.iter().all(|a| !matches!(a, Arg::DType(_) | Arg::Complex(..)));
                let zero = place("value").is_none_or(|i| get(i).as_float() == Some(0.0));
                if !plain || !zero {
                    return Ok(None);
                }
                Some(z.each(p, &mut |p, x| p.call(op, std::iter::once(x).chain(list.iter().skip(1).cloned()).collect()))?)
            },
            _ => None,
        }))
    }
}

/// A size and an angle.
fn polar(p: &mut Pen<'_, '_>, size: &Arg, angle: &Arg) -> std::result::Result<Complex, Error> {
    let (cos, sin) = (p.call(op!("aten.cos.default"), vec![angle.clone()])?, p.call(op!("aten.sin.default"), vec![angle.clone()])?);
    Ok(Complex::Parts(p.mul(size, &cos)?, p.mul(size, &sin)?))
}

/// `(a + bi)(c + di)`, by a product of whatever kind.
fn product(p: &mut Pen<'_, '_>, op: OpId, x: &Complex, y: &Complex) -> std::result::Result<Complex, Error> {
    let ((a, b), (c, d)) = (x.parts(p)?, y.parts(p)?);
    let times = |p: &mut Pen<'_, '_>, x: &Arg, y: &Arg| match (x, y) {
        // A number is the second operand.
        (Arg::Value(_), _) => p.call(op, vec![x.clone(), y.clone()]),
        _ => p.call(op, vec![y.clone(), x.clone()]),
    };
    let ac = times(p, &a, &c)?;
    Ok(match (b, d) {
        (None, None) => Complex::Real(ac),
        (Some(b), None) => Complex::Parts(ac, times(p, &b, &c)?),
        (None, Some(d)) => Complex::Parts(ac, times(p, &a, &d)?),
        (Some(b), Some(d)) => {
            let (bd, ad, bc) = (times(p, &b, &d)?, times(p, &a, &d)?, times(p, &b, &c)?);
            Complex::Parts(p.sub(&ac, &bd)?, p.add(&ad, &bc)?)
        }
    })
}

/// `x·ȳ / |y|²`.
fn quotient(p: &mut Pen<'_, '_>, x: &Complex, y: &Complex) -> std::result::Result<Complex, Error> {
    let (c, Some(d)) = y.parts(p)? else {
        let c = y.real(p)?;
        return x.each(p, &mut |p, x| p.div(&x, &c));
    };
    if let (Arg::Float(c), Arg::Float(d)) = (&c, &d) {
        let size = c * c + d * d;
        return product(p, op!("aten.mul.Tensor"), x, &Complex::Parts(Arg::Float(c / size), Arg::Float(-d / size)));
    }
    let (cc, dd) = (p.square(&c)?, p.square(&d)?);
    let size = p.add(&cc, &dd)?;
    let y = y.conjugate(p)?;
    product(p, op!("aten.mul.Tensor"), x, &y)?.each(p, &mut |p, z| p.div(&z, &size))
}

fn sum(p: &mut Pen<'_, '_>, op: OpId, a: &Complex, b: &Complex, factor: Arg, shape: &[Dim]) -> Found {
    let ((ar, ai), (br, bi)) = (a.parts(p)?, b.parts(p)?);
    let re = p.call(op, vec![ar, br, factor.clone()])?;
    let im = match (ai, bi) {
        (Some(x), Some(y)) => p.call(op, vec![x, y, factor])?,
        (x, Some(y)) if matches!(y, Arg::Float(_)) => {
            let zero = p.call(op!("aten.zeros_like.default"), vec![re.clone()])?;
            p.call(op, vec![x.unwrap_or(zero), y, factor])?
        }
        (Some(x), None) => x,
        (None, Some(y)) => {
            let y = p.mul(&y, super::pen::Number(factor))?;
            if op == op!("aten.sub.Tensor") { p.neg(&y)? } else { y }
        }
        (None, None) => return Ok(Some(Complex::Real(re))),
    };
    // Of one operand only, it may have to grow to the shape of both.
    let im = if p.ty(&im)?.shape.as_slice() == shape {
        im
    } else {
        let Some(sizes) = p.0.sizes(shape) else { return Ok(None) };
        p.call(op!("aten.expand.default"), vec![im, sizes])?
    };
    Ok(Some(Complex::Parts(re, im)))
}

/// The first operand, where it is complex and made by calls.
fn operand(p: &mut Pen<'_, '_>) -> Found {
    let Some(v) = p.0.value(0) else { return Ok(None) };
    let graph = p.0.graph();
    if !graph.tensor(v).is_some_and(|t| t.dtype.is_complex()) || graph.producer(v).is_none() {
        return Ok(None);
    }
    Origin::default().value(p, v)
}

/// Source: torch.view_as_real.
pub(super) fn view_as_real(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let Some(z) = operand(&mut p)? else { return Ok(None) };
    let x = z.pairs(&mut p)?;
    p.done(x)
}

/// `√(re² + im²)`. Source: torch.abs.
pub(super) fn abs(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let Some(z) = operand(&mut p)? else { return Ok(None) };
    let sum = match &z {
        Complex::Pairs(x) => {
            let rank = p.ty(x)?.rank();
            let squares = p.square(x)?;
            p.reduce(op!("aten.sum.dim_IntList"), &squares, &[rank.saturating_sub(1)], false)?
        }
        Complex::Parts(re, im) => {
            let (re, im) = (p.square(re)?, p.square(im)?);
            p.add(&re, &im)?
        }
        Complex::Real(re) => {
            let y = p.abs(re)?;
            return p.done(y);
        }
    };
    let y = p.sqrt(&sum)?;
    p.done(y)
}

/// Source: torch.angle.
pub(super) fn angle(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let Some(z) = operand(&mut p)? else { return Ok(None) };
    let (re, im) = (z.real(&mut p)?, z.all_imaginary(&mut p)?);
    let y = p.call(op!("aten.atan2.default"), vec![im, re])?;
    p.done(y)
}

/// Source: torch.real.
pub(super) fn real(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let Some(z) = operand(&mut p)? else { return Ok(None) };
    let y = z.real(&mut p)?;
    p.done(y)
}

/// Source: torch.imag.
pub(super) fn imag(site: &mut Site<'_>) -> Result {
    let mut p = Pen(site);
    let Some(z) = operand(&mut p)? else { return Ok(None) };
    let y = z.all_imaginary(&mut p)?;
    p.done(y)
}
