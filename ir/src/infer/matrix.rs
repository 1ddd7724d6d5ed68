//! Products of matrices and vectors.

use super::cx::{Cx, Inferred, one, tensor};
use crate::DType;
use crate::error::Error;
use crate::graph::TensorType;
use crate::sym::Expr;

/// The element type of a product, which does not promote; `out_dtype` decides where an overload has it.
fn product_type(c: &Cx, a: &TensorType, b: &TensorType) -> Result<DType, Error> {
    let dtype = c.same_dtype(a, b)?;
    Ok(c.dtype("out_dtype").unwrap_or(dtype))
}

/// The shape of a matrix product as `matmul` defines it: a vector gains a dimension that goes again, others broadcast.
fn multiplied(c: &Cx, a: &[Expr], b: &[Expr]) -> Result<Vec<Expr>, Error> {
    let one = [Expr::Int(1)];
    let (batch_a, row, inner_a) = match a {
        [] => return Err(c.fail("a scalar in a matrix product")),
        [k] => (&one[..0], None, k),
        [batch @ .., m, k] => (batch, Some(m), k),
    };
    let (batch_b, inner_b, column) = match b {
        [] => return Err(c.fail("a scalar in a matrix product")),
        [k] => (&one[..0], k, None),
        [batch @ .., k, n] => (batch, k, Some(n)),
    };
    c.same(inner_a, inner_b, "inner sizes")?;
    let mut shape = c.broadcast([batch_a, batch_b])?;
    shape.extend(row.into_iter().chain(column).cloned());
    Ok(shape)
}

/// `matmul`.
pub(super) fn matmul(c: &Cx) -> Inferred {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    one(product_type(c, a, b)?, multiplied(c, &a.shape, &b.shape)?)
}

/// A product of tensors of exactly these ranks, starting at argument `at`.
fn ranked(c: &Cx, at: usize, ranks: [usize; 2]) -> Result<(DType, Vec<Expr>), Error> {
    let shape = ranked_shape(c, at, ranks)?;
    Ok((product_type(c, c.tensor(at)?, c.tensor(at + 1)?)?, shape))
}

fn ranked_shape(c: &Cx, at: usize, ranks: [usize; 2]) -> Result<Vec<Expr>, Error> {
    let (a, b) = (c.tensor(at)?, c.tensor(at + 1)?);
    c.rank(a, &ranks[..1], "left operand")?;
    c.rank(b, &ranks[1..], "right operand")?;
    let (batch_a, batch_b) = (a.shape.len().saturating_sub(2), b.shape.len().saturating_sub(2));
    if let (1.., 1.., Some(x), Some(y)) = (batch_a, batch_b, a.shape.first(), b.shape.first()) {
        c.same(x, y, "batch sizes")?;
    }
    multiplied(c, &a.shape, &b.shape)
}

/// `mm`, `bmm`, `mv`, `dot`.
pub(super) fn exact(c: &Cx, ranks: [usize; 2]) -> Inferred {
    let (dtype, shape) = ranked(c, 0, ranks)?;
    one(dtype, shape)
}

/// The product of 8-bit integers, the left ones with or without a sign, in 32 bits.
pub(super) fn int_mm(c: &Cx) -> Inferred {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    if !matches!(a.dtype, DType::UInt8 | DType::Int8) || b.dtype != DType::Int8 {
        return Err(c.fail(format!("multiplies u8 or i8 by i8, not {} by {}", a.dtype, b.dtype)));
    }
    one(DType::Int32, ranked_shape(c, 0, [2, 2])?)
}

/// `addmm`, `baddbmm`, `addmv`: something that broadcasts is added to a product.
pub(super) fn added(c: &Cx, ranks: [usize; 2]) -> Inferred {
    let (dtype, shape) = ranked(c, 1, ranks)?;
    add_into(c, dtype, shape)
}

/// `addbmm`: the products of a batch added up.
pub(super) fn addbmm(c: &Cx) -> Inferred {
    let (dtype, mut shape) = ranked(c, 1, [3, 3])?;
    shape.remove(0);
    add_into(c, dtype, shape)
}

/// `addr`: an outer product added.
pub(super) fn addr(c: &Cx) -> Inferred {
    let (a, b) = (c.tensor(1)?, c.tensor(2)?);
    let dtype = c.promoted(&[c.operand(0)?, c.operand(1)?, c.operand(2)?])?;
    let shape = outer_shape(c, a, b)?;
    let all = c.broadcast([c.tensor(0)?.shape.as_slice(), &shape])?;
    one(dtype, all)
}

fn add_into(c: &Cx, dtype: DType, shape: Vec<Expr>) -> Inferred {
    let own = c.tensor(0)?;
    if c.dtype("out_dtype").is_none() && own.dtype != dtype {
        return Err(c.fail(format!("element types {} and {dtype} differ", own.dtype)));
    }
    let all = c.broadcast([own.shape.as_slice(), &shape])?;
    if all.len() != shape.len() {
        return Err(c.fail(format!("{:?} does not broadcast into the product {shape:?}", own.shape)));
    }
    for (a, b) in all.iter().zip(&shape) {
        c.same(a, b, "sizes")?;
    }
    one(dtype, shape)
}

fn outer_shape(c: &Cx, a: &TensorType, b: &TensorType) -> Result<Vec<Expr>, Error> {
    match (a.shape.as_slice(), b.shape.as_slice()) {
        ([n], [m]) => Ok(vec![n.clone(), m.clone()]),
        _ => Err(c.fail("need two vectors")),
    }
}

/// The product of a column and a row.
pub(super) fn outer(c: &Cx) -> Inferred {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    one(c.promoted(&[c.operand(0)?, c.operand(1)?])?, outer_shape(c, a, b)?)
}

/// `inner`: over the last dimension of both.
pub(super) fn inner(c: &Cx) -> Inferred {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    let dtype = c.same_dtype(a, b)?;
    match (a.shape.split_last(), b.shape.split_last()) {
        (Some((k, left)), Some((l, right))) => {
            c.same(k, l, "last sizes")?;
            one(dtype, [left, right].concat())
        }
        _ => one(dtype, [a.shape.as_slice(), &b.shape].concat()),
    }
}

/// `x @ weightᵀ + bias`.
pub(super) fn linear(c: &Cx) -> Inferred {
    let (x, weight) = (c.tensor(0)?, c.tensor(1)?);
    let dtype = c.same_dtype(x, weight)?;
    let Some((k, rows)) = x.shape.split_last() else { return Err(c.fail("a scalar has no features")) };
    let (inner, features) = match weight.shape.as_slice() {
        [k] => (k, None),
        [n, k] => (k, Some(n)),
        _ => return Err(c.fail(format!("weight of rank {}, need [out, in] or [in]", weight.rank()))),
    };
    c.same(k, inner, "features")?;
    let shape: Vec<Expr> = rows.iter().chain(features).cloned().collect();
    if let Some(bias) = c.maybe_tensor("bias")? {
        c.same_dtype(x, bias)?;
        c.broadcast([shape.as_slice(), &bias.shape])?;
        if let ([b], Some(n)) = (bias.shape.as_slice(), features) {
            c.same(b, n, "bias and output features")?;
        }
    }
    one(dtype, shape)
}

/// `bilinear(x, y, weight)`.
pub(super) fn bilinear(c: &Cx) -> Inferred {
    let (x, weight) = (c.tensor(0)?, c.tensor(2)?);
    match (x.shape.split_last(), weight.shape.as_slice()) {
        (Some((k, rows)), [n, inner, _]) => {
            c.same(k, inner, "features")?;
            one(x.dtype, rows.iter().chain([n]).cloned().collect())
        }
        _ => Err(c.fail("need a weight [out, in1, in2]")),
    }
}

/// `_trilinear(a, b, c, …)`: dimensions of size 1 are put in each, then the product is summed over others.
pub(super) fn trilinear(c: &Cx) -> Inferred {
    let mut shapes = Vec::new();
    for (i, name) in ["expand1", "expand2", "expand3"].into_iter().enumerate() {
        let mut shape = c.tensor(i)?.shape.clone();
        for at in c.ints(name)? {
            let at = usize::try_from(at).ok().filter(|&at| at <= shape.len()).ok_or_else(|| c.fail("a new dimension beyond the last"))?;
            shape.insert(at, Expr::Int(1));
        }
        shapes.push(shape);
    }
    let all = c.broadcast(shapes.iter().map(Vec::as_slice))?;
    let summed = c.ints("sumdim")?;
    let kept = all.into_iter().enumerate().filter(|(i, _)| !summed.contains(&(*i as i64))).map(|(_, n)| n);
    one(c.tensor(0)?.dtype, kept.collect())
}

/// `tensordot(a, b, dims_a, dims_b)`: the named dimensions are summed over.
pub(super) fn tensordot(c: &Cx) -> Inferred {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    let (of_a, of_b) = (c.axes(2, a.rank())?, c.axes(3, b.rank())?);
    if of_a.len() != of_b.len() {
        return Err(c.fail("as many dimensions of each are needed"));
    }
    for (i, j) in of_a.iter().zip(&of_b) {
        if let (Some(n), Some(m)) = (a.shape.get(*i), b.shape.get(*j)) {
            c.broadcast([std::slice::from_ref(n), std::slice::from_ref(m)])?;
        }
    }
    let left = |t: &TensorType, gone: &[usize]| -> Vec<Expr> {
        t.shape.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, n)| n.clone()).collect()
    };
    one(c.same_dtype(a, b)?, [left(a, &of_a), left(b, &of_b)].concat())
}

/// `kron`.
pub(super) fn kron(c: &Cx) -> Inferred {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    let rank = a.rank().max(b.rank());
    let at = |t: &TensorType, i: usize| i.checked_sub(rank - t.rank()).and_then(|i| t.shape.get(i)).cloned().unwrap_or(Expr::Int(1));
    one(c.promoted(&[c.operand(0)?, c.operand(1)?])?, (0..rank).map(|i| at(a, i).times(&at(b, i))).collect())
}

/// The subscripts of one side of an Einstein sum: letters before the ellipsis, whether there is one, letters after it.
fn subscripts(text: &str) -> Option<(Vec<char>, bool, Vec<char>)> {
    let letters = |s: &str| s.chars().map(|ch| ch.is_ascii_alphabetic().then_some(ch)).collect::<Option<Vec<char>>>();
    match text.split_once("...") {
        Some((before, after)) => Some((letters(before)?, true, letters(after)?)),
        None => Some((letters(text)?, false, Vec::new())),
    }
}

/// `einsum(equation, tensors)`.
pub(super) fn einsum(c: &Cx) -> Inferred {
    let equation: String = c.text(0).unwrap_or("").chars().filter(|ch| !ch.is_whitespace()).collect();
    let bad = || c.fail("malformed equation");
    let (left, right) = equation.split_once("->").map_or((equation.as_str(), None), |(l, r)| (l, Some(r)));
    let tensors = c.tensors(1)?;
    let terms: Vec<_> = left.split(',').map(subscripts).collect::<Option<_>>().ok_or_else(bad)?;
    if terms.len() != tensors.len() {
        return Err(c.fail(format!("{} terms for {} tensors", terms.len(), tensors.len())));
    }
    let mut sizes: std::collections::BTreeMap<char, (Expr, u32)> = Default::default();
    let mut ellipsis: Vec<Expr> = Vec::new();
    for ((before, dots, after), t) in terms.iter().zip(&tensors) {
        let hidden = t.rank().checked_sub(before.len() + after.len()).filter(|n| *dots || *n == 0);
        let hidden = hidden.ok_or_else(|| c.fail(format!("subscripts do not fit a tensor of rank {}", t.rank())))?;
        ellipsis = c.broadcast([ellipsis.as_slice(), t.shape.get(before.len()..before.len() + hidden).unwrap_or(&[])])?;
        let visible = t.shape.iter().take(before.len()).chain(t.shape.iter().skip(before.len() + hidden));
        for (letter, n) in before.iter().chain(after).zip(visible) {
            let have = sizes.entry(*letter).or_insert((Expr::Int(1), 0));
            have.0 = c.broadcast([std::slice::from_ref(&have.0), std::slice::from_ref(n)])?.swap_remove(0);
            have.1 += 1;
        }
    }
    let (before, dots, after) = match right {
        Some(right) => subscripts(right).ok_or_else(bad)?,
        None => (Vec::new(), true, sizes.iter().filter(|(_, (_, uses))| *uses == 1).map(|(letter, _)| *letter).collect()),
    };
    let size = |letter: &char| sizes.get(letter).map(|(n, _)| n.clone()).ok_or_else(bad);
    let mut shape: Vec<Expr> = before.iter().map(size).collect::<Result<_, _>>()?;
    if dots {
        shape.extend(ellipsis);
    }
    shape.extend(after.iter().map(size).collect::<Result<Vec<_>, _>>()?);
    let Some(first) = tensors.first() else { return Err(bad()) };
    for t in &tensors {
        c.same_dtype(first, t)?;
    }
    one(first.dtype, shape)
}

/// Distances between the rows of two matrices.
pub(super) fn cdist(c: &Cx) -> Inferred {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    match (a.shape.as_slice(), b.shape.as_slice()) {
        ([batch_a @ .., p, m], [batch_b @ .., r, k]) => {
            c.same(m, k, "columns")?;
            let mut shape = c.broadcast([batch_a, batch_b])?;
            shape.extend([p.clone(), r.clone()]);
            one(c.promoted(&[c.operand(0)?, c.operand(1)?])?, shape)
        }
        _ => Err(c.fail("need matrices")),
    }
}

/// Attention: the queries' shape with the values' features.
pub(super) fn attention(c: &Cx) -> Inferred {
    Ok(vec![attended(c)?])
}

fn attended(c: &Cx) -> Result<crate::graph::Type, Error> {
    let (q, k, v) = (c.tensor(0)?, c.tensor(1)?, c.tensor(2)?);
    c.same_dtype(q, k)?;
    c.same_dtype(q, v)?;
    match (q.shape.as_slice(), k.shape.as_slice(), v.shape.as_slice()) {
        ([heads @ .., l, e], [.., s, f], [values @ .., t, features]) => {
            c.same(e, f, "features of query and key")?;
            c.same(s, t, "lengths of key and value")?;
            // Grouped heads are repeated, anything else broadcasts.
            let mut shape = if c.flag("enable_gqa") { heads.to_vec() } else { c.broadcast([heads, values])? };
            shape.extend([l.clone(), features.clone()]);
            Ok(tensor(q.dtype, shape))
        }
        _ => Err(c.fail("need matrices")),
    }
}

/// Attention that also gives the logarithm of the sum of exponentials.
pub(super) fn attention_with_lse(c: &Cx) -> Inferred {
    let q = c.tensor(0)?;
    let rows = q.shape.split_last().map_or(Vec::new(), |(_, rows)| rows.to_vec());
    let wide = if q.dtype == DType::Float64 { q.dtype } else { DType::Float32 };
    Ok(vec![attended(c)?, tensor(wide, rows)])
}
