//! Products of vectors and matrices, attention. Sums of products are exact to `f64` and rounded once.

use super::call::{Call, Number, Results, many, one};
use super::element::round;
use super::norm::softmax_of;
use super::pointwise::{broadcast, map, zip};
use super::reduce::fold;
use super::tensor::Tensor;
use super::{Error, bad, budget};
use crate::DType;

/// `[rows, inner] × [inner, columns]` for each pair of matrices.
fn products<T: Copy>(a: &[T], b: &[T], [rows, inner, columns]: [usize; 3], zero: T, add: impl Fn(T, T, T) -> T) -> Vec<T> {
    let mut out = Vec::new();
    let batches = a.len().checked_div(rows * inner).or_else(|| b.len().checked_div(inner * columns)).unwrap_or(0);
    for batch in 0..batches {
        let a = a.get(batch * rows * inner..).unwrap_or(&[]);
        let b = b.get(batch * inner * columns..).unwrap_or(&[]);
        for row in a.chunks(inner.max(1)).take(rows) {
            let mut sums = vec![zero; columns];
            for (x, line) in row.iter().zip(b.chunks(columns.max(1))) {
                for (sum, y) in sums.iter_mut().zip(line) {
                    *sum = add(*sum, *x, *y);
                }
            }
            out.extend(sums);
        }
    }
    out
}

/// Products of the matrices in the last two dimensions, the others broadcast, before rounding: an `f64` tensor (or `i64`).
pub(super) fn wide_product(a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    if a.dtype() != b.dtype() {
        return Err(bad(format!("matrices of {} and {}", a.dtype(), b.dtype())));
    }
    let ([outer_a @ .., rows, inner], [outer_b @ .., inner_b, columns]) = (a.shape(), b.shape()) else { return Err(bad("no matrices")) };
    if inner != inner_b {
        return Err(bad(format!("matrices {:?} and {:?}", a.shape(), b.shape())));
    }
    let batch = broadcast(&[outer_a, outer_b])?;
    let (wide_a, wide_b) = (a.expand(&[&batch[..], &[*rows, *inner]].concat())?, b.expand(&[&batch[..], &[*inner, *columns]].concat())?);
    let shape = [&batch[..], &[*rows, *columns]].concat();
    let sizes = [*rows, *inner, *columns];
    budget::work(super::tensor::count(&shape)?, *inner)?;
    match a.dtype() {
        d if d.is_complex() => {
            let add = |s: [f64; 2], x, y| {
                let p = super::arithmetic::times(x, y);
                [s[0] + p[0], s[1] + p[1]]
            };
            filled(DType::Complex128, &shape, products(&wide_a.to(), &wide_b.to(), sizes, [0.0; 2], add), [0.0; 2])
        }
        d if d.is_float() => {
            filled(DType::Float64, &shape, products(&wide_a.to::<f64>(), &wide_b.to(), sizes, 0.0, |s, x, y| s + x * y), 0.0)
        }
        _ => {
            let add = |s: i64, x: i64, y: i64| s.wrapping_add(x.wrapping_mul(y));
            filled(DType::Int64, &shape, products(&wide_a.to(), &wide_b.to(), sizes, 0, add), 0)
        }
    }
}

/// A tensor of these elements; where there is nothing to add up there are none, and sums are zero.
fn filled<T: super::element::Element>(d: DType, shape: &[usize], mut elements: Vec<T>, zero: T) -> Result<Tensor, Error> {
    elements.resize(super::tensor::count(shape)?, zero);
    Tensor::of(d, shape, elements)
}

/// `torch.matmul`: vectors count as matrices of one row or column.
pub(super) fn matmul_of(a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    match (a.rank(), b.rank()) {
        (0, _) | (_, 0) => return Err(bad("a scalar is no matrix")),
        (1, 1) => wide_product(&a.unsqueeze(0)?, &b.unsqueeze(1)?)?.reshape(&[])?,
        (1, _) => {
            let p = wide_product(&a.unsqueeze(0)?, b)?;
            p.squeeze(p.nth_last(2)?)?
        }
        (_, 1) => {
            let p = wide_product(a, &b.unsqueeze(1)?)?;
            p.squeeze(p.nth_last(1)?)?
        }
        _ => wide_product(a, b)?,
    }
    .cast(a.dtype())
}

pub(super) fn matmul(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    one(matmul_of(&a.tensor()?, &b.tensor()?)?)
}

/// `mm`, `bmm`, `mv`, `dot`: as `matmul`, ranks fixed.
pub(super) fn exact(c: &Call, ranks: [usize; 2]) -> Results {
    let [a, b] = c.operands()?;
    let (a, b) = (a.tensor()?, b.tensor()?);
    if [a.rank(), b.rank()] != ranks {
        return Err(bad(format!("ranks {} and {}, need {ranks:?}", a.rank(), b.rank())));
    }
    let product = matmul_of(&a, &b)?;
    one(if let Some(d) = c.dtype("out_dtype") { product.cast(d)? } else { product })
}

/// 8-bit integers multiplied into 32 bits.
pub(super) fn int_mm(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    one(matmul_of(&a.tensor()?.cast(DType::Int64)?, &b.tensor()?.cast(DType::Int64)?)?.cast(DType::Int32)?)
}

/// `beta t + alpha p`, `p` not rounded yet. With `beta` 0 nothing of `t` counts, not even NaN.
fn combined(c: &Call, t: &Tensor, p: &Tensor) -> Result<Tensor, Error> {
    let number = |name: &str| if c.given(name) { c.number(name) } else { Ok(Number::Int(1)) };
    let (beta, alpha) = (number("beta")?, number("alpha")?);
    let shape = p.shape().to_vec();
    let t = t.expand(&shape)?;
    match t.dtype() {
        d if d.is_float() => {
            let (beta, alpha) = (beta.float(), alpha.float());
            zip(DType::Float64, d, &t, p, |t: f64, p| if beta == 0.0 { alpha * p } else { beta * t + alpha * p })
        }
        d => {
            let (beta, alpha) = (beta.int(), alpha.int());
            zip(DType::Int64, d, &t, p, |t: i64, p| beta.wrapping_mul(t).wrapping_add(alpha.wrapping_mul(p)))
        }
    }
}

/// `addmm` and its kin; the two factors come after the first argument.
pub(super) fn added(c: &Call) -> Results {
    let name = |i: usize| c.schema.args.get(i).map_or("", |a| a.name.as_str());
    let (t, a, b) = (c.first()?, c.tensor(name(1))?, c.tensor(name(2))?);
    let p = match (c.schema.name.as_str(), a.rank(), b.rank()) {
        ("addr", 1, 1) => wide_product(&a.unsqueeze(1)?, &b.unsqueeze(0)?)?,
        ("addbmm", 3, 3) => {
            let p = wide_product(&a, &b)?;
            let d = p.dtype();
            if d.is_float() { fold(&p, &[0], false, d, super::reduce::add_up)? } else { fold(&p, &[0], false, d, super::reduce::int_sum)? }
        }
        (_, 2 | 3, 1) => wide_product(&a, &b.unsqueeze(1)?)?.squeeze(1)?,
        _ => wide_product(&a, &b)?,
    };
    one(combined(c, &t, &p)?)
}

pub(super) fn outer(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    one(super::arithmetic::product([a.tensor()?.unsqueeze(1)?.into(), b.tensor()?.unsqueeze(0)?.into()])?)
}

/// `x Wᵀ + b`, rounded once.
pub(super) fn linear_of(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, Error> {
    let transposed = if weight.rank() == 1 { weight.unsqueeze(1)? } else { weight.transpose(0, 1)? };
    let x_matrix = if x.rank() == 1 { x.unsqueeze(0)? } else { x.clone() };
    let mut p = wide_product(&x_matrix, &transposed)?;
    if let Some(b) = bias {
        p = if p.dtype().is_float() {
            zip(p.dtype(), p.dtype(), &p, b, |p: f64, b| p + b)?
        } else {
            zip(p.dtype(), p.dtype(), &p, b, i64::wrapping_add)?
        };
    }
    if weight.rank() == 1 {
        p = p.squeeze(p.nth_last(1)?)?;
    }
    (if x.rank() == 1 { p.squeeze(0)? } else { p }).cast(x.dtype())
}

pub(super) fn linear(c: &Call) -> Results {
    one(linear_of(&c.first()?, &c.tensor("weight")?, c.maybe_tensor("bias")?.as_ref())?)
}

pub(super) fn bilinear(c: &Call) -> Results {
    let (a, b, w) = (c.tensor("input1")?, c.tensor("input2")?, c.tensor("weight")?);
    let d = a.dtype();
    // [.., 1, 1, in1] × [out, in1, in2] → [.., out, 1, in2], times the second operand, added up.
    let left = wide_product(&a.cast(DType::Float64)?.unsqueeze(a.nth_last(1)?)?.unsqueeze(a.nth_last(1)?)?, &w.cast(DType::Float64)?)?;
    let both = zip(DType::Float64, DType::Float64, &left, &b.unsqueeze(b.nth_last(1)?)?.unsqueeze(b.nth_last(1)?)?, |x: f64, y| x * y)?;
    let (last, before) = (both.nth_last(1)?, both.nth_last(2)?);
    let mut sum = fold(&both, &[last, before], false, DType::Float64, super::reduce::add_up)?;
    if let Some(bias) = c.maybe_tensor("bias")? {
        sum = zip(DType::Float64, DType::Float64, &sum, &bias, |x: f64, y| x + y)?;
    }
    one(sum.cast(d)?)
}

/// Products over the dimensions that are named, one list for each operand.
pub(super) fn tensordot(c: &Call) -> Results {
    let (a, b) = (c.first()?, c.tensor("other")?);
    let (axes_a, axes_b) = (c.axes("dims_self", a.rank())?, c.axes("dims_other", b.rank())?);
    let rest = |t: &Tensor, axes: &[usize]| (0..t.rank()).filter(|i| !axes.contains(i)).collect::<Vec<_>>();
    let (rest_a, rest_b) = (rest(&a, &axes_a), rest(&b, &axes_b));
    let sizes = |t: &Tensor, axes: &[usize]| axes.iter().map(|&i| t.size(i)).collect::<Vec<_>>();
    let (outer_a, outer_b, inner) = (sizes(&a, &rest_a), sizes(&b, &rest_b), sizes(&a, &axes_a));
    let k = inner.iter().product();
    let left = a.permute(&[&rest_a[..], &axes_a].concat())?.reshape(&[outer_a.iter().product(), k])?;
    let right = b.permute(&[&axes_b[..], &rest_b].concat())?.reshape(&[k, outer_b.iter().product()])?;
    one(matmul_of(&left, &right)?.reshape(&[outer_a, outer_b].concat())?)
}

pub(super) fn inner(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    let (a, b) = (a.tensor()?, b.tensor()?);
    if a.rank() == 0 || b.rank() == 0 {
        return one(super::arithmetic::product([a.into(), b.into()])?);
    }
    let outer = |t: &Tensor| t.shape().iter().take(t.rank() - 1).copied().collect::<Vec<_>>();
    let shape = [outer(&a), outer(&b)].concat();
    let flat = |t: &Tensor| t.merge(0, t.rank() - 1);
    one(matmul_of(&flat(&a)?, &flat(&b)?.transpose(0, 1)?)?.reshape(&shape)?)
}

pub(super) fn kron(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    let (a, b) = (a.tensor()?, b.tensor()?);
    let rank = a.rank().max(b.rank());
    let pad = |t: &Tensor| [vec![1; rank - t.rank()], t.shape().to_vec()].concat();
    let (shape_a, shape_b) = (pad(&a), pad(&b));
    let spread = |of: &[usize], first: bool| of.iter().flat_map(|&n| if first { [n, 1] } else { [1, n] }).collect::<Vec<_>>();
    let p = super::arithmetic::product([a.reshape(&spread(&shape_a, true))?.into(), b.reshape(&spread(&shape_b, false))?.into()])?;
    one(p.reshape(&shape_a.iter().zip(&shape_b).map(|(a, b)| a * b).collect::<Vec<_>>())?)
}

/// `einsum`: letters name dimensions; those that the result does not have are added up.
pub(super) fn einsum(c: &Call) -> Results {
    let equation: String = c.text("equation").unwrap_or("").split_whitespace().collect();
    let all = c.tensors("tensors")?;
    let (inputs, output) = match equation.split_once("->") {
        Some((i, o)) => (i.to_owned(), Some(o.to_owned())),
        None => (equation.clone(), None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() != all.len() {
        return Err(bad(format!("{} operands for {equation:?}", all.len())));
    }
    // Dimensions under an ellipsis are called 0, 1, … from the last.
    let letters = |term: &str, rank: usize| -> Vec<char> {
        let named = term.chars().filter(|c| c.is_ascii_alphabetic()).count();
        let hidden = || (0..rank.saturating_sub(named)).rev().filter_map(|i| char::from_u32(i as u32));
        match term.split_once("...") {
            Some((before, after)) => before.chars().chain(hidden()).chain(after.chars()).collect(),
            None => term.chars().collect(),
        }
    };
    let named: Vec<Vec<char>> = terms.iter().zip(&all).map(|(t, x)| letters(t, x.rank())).collect();
    let most_hidden = named.iter().map(|n| n.iter().filter(|c| !c.is_ascii_alphabetic()).count()).max().unwrap_or(0);
    let mut result: Vec<char> = match &output {
        Some(o) => letters(o, most_hidden + o.chars().filter(|c| c.is_ascii_alphabetic()).count()),
        None => {
            let mut once: Vec<char> =
                named.iter().flatten().copied().filter(|c| named.iter().flatten().filter(|d| *d == c).count() == 1).collect();
            once.retain(char::is_ascii_alphabetic);
            once.sort_unstable();
            (0..most_hidden).rev().filter_map(|i| char::from_u32(i as u32)).chain(once).collect()
        }
    };
    let kept = result.len();
    for l in named.iter().flatten() {
        if !result.contains(l) {
            result.push(*l);
        }
    }
    let mut product: Option<Tensor> = None;
    for (t, names) in all.iter().zip(&named) {
        if names.len() != t.rank() {
            return Err(bad(format!("{equation:?} for an operand of rank {}", t.rank())));
        }
        let (mut t, mut names) = (t.cast(if t.dtype().is_float() { DType::Float64 } else { t.dtype() })?, names.clone());
        // A letter that stands twice means the diagonal.
        let twice =
            |names: &[char]| names.iter().enumerate().find_map(|(i, l)| Some((i, i + 1 + names.iter().skip(i + 1).position(|m| m == l)?)));
        while let Some((i, j)) = twice(&names) {
            t = super::views::diagonal_of(&t, 0, i, j)?;
            let l = names.remove(j);
            names.remove(i);
            names.push(l);
        }
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|&i| result.iter().position(|l| names.get(i) == Some(l)));
        let mut shape = vec![1; result.len()];
        for (i, l) in names.iter().enumerate() {
            if let Some(n) = result.iter().position(|r| r == l).and_then(|at| shape.get_mut(at)) {
                *n = t.size(i);
            }
        }
        let t = t.permute(&order)?.reshape(&shape)?;
        product = Some(match product {
            None => t,
            Some(p) => super::arithmetic::product([p.into(), t.into()])?,
        });
    }
    let product = product.ok_or_else(|| bad("no operands"))?;
    let axes: Vec<usize> = (kept..result.len()).collect();
    let d = all.first().map_or(DType::Float32, Tensor::dtype);
    one(if product.dtype().is_float() {
        fold(&product, &axes, false, d, super::reduce::add_up)?
    } else {
        fold(&product, &axes, false, d, super::reduce::int_sum)?
    })
}

/// Distances of all pairs of rows.
pub(super) fn cdist(c: &Call) -> Results {
    let (a, b, p) = (c.tensor("x1")?, c.tensor("x2")?, c.float("p")?);
    let (a2, b2) = (a.unsqueeze(a.nth_last(1)?)?, b.unsqueeze(b.nth_last(2)?)?);
    let d = zip(DType::Float64, DType::Float64, &a2, &b2, |x: f64, y| x - y)?;
    one(fold(&d, &[d.nth_last(1)?], false, a.dtype(), |x: &[f64]| super::reduce::norm_of(x, p))?)
}

/// Distances of all pairs of rows of one matrix, each pair once.
pub(super) fn pdist(c: &Call) -> Results {
    let (t, p) = (c.first()?, c.float("p")?);
    let &[n, width] = t.shape() else { return Err(bad("needs a matrix")) };
    budget::work(super::tensor::count(&[n, n])?, width)?;
    let values = t.to::<f64>();
    let row = |i: usize| values.get(i * width..(i + 1) * width).unwrap_or(&[]);
    let apart = |i: usize, j: usize| row(i).iter().zip(row(j)).map(|(a, b)| a - b).collect::<Vec<_>>();
    let pairs: Vec<f64> =
        (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).map(|(i, j)| super::reduce::norm_of(&apart(i, j), p)).collect();
    one(Tensor::of(t.dtype(), &[pairs.len()], pairs)?)
}

/// What attention is told besides queries, keys and values.
pub(super) struct Attention {
    pub(super) mask: Option<Tensor>,
    /// Query `i` sees keys up to `i` and this offset.
    pub(super) causal: Option<i64>,
    pub(super) scale: Option<f64>,
    /// How likely a weight falls away.
    pub(super) dropout: f64,
}

/// Softmax of scaled products of queries and keys, times the values. Every head of keys serves the same number of heads of queries. A
/// query that sees no key gives zeros. Halves are computed in `f32` and rounded once.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, how: &Attention) -> Result<Tensor, Error> {
    let d = q.dtype();
    let (Some(&width), Some(&n)) = (q.shape().last(), k.shape().get(k.rank().wrapping_sub(2))) else { return Err(bad("no matrices")) };
    let heads = |t: &Tensor| t.rank().checked_sub(3).map_or(1, |a| t.size(a));
    let grouped = |t: &Tensor| -> Result<Tensor, Error> {
        let (have, need) = (heads(t), heads(q));
        if have == need || have <= 1 || need % have != 0 {
            return Ok(t.clone());
        }
        let index = (0..need).map(|i| (i / (need / have)) as i64);
        super::indexing::take(t, t.nth_last(3)?, &Tensor::of(DType::Int64, &[need], index)?)
    };
    let (k, v) = (grouped(k)?, grouped(v)?);
    let scale = how.scale.unwrap_or(1.0 / (width as f64).sqrt());
    let wide = if d == DType::Float64 { d } else { DType::Float32 };
    let mut scores = map(&wide_product(q, &k.transpose(k.nth_last(2)?, k.nth_last(1)?)?)?, DType::Float64, |x: f64| x * scale)?;
    if let Some(offset) = how.causal {
        let rows = scores.size(scores.nth_last(2)?);
        let seen = Tensor::of(
            DType::Float64,
            &[rows, n],
            (0..rows as i64).flat_map(|i| (0..n as i64).map(move |j| if j <= i + offset { 0.0 } else { f64::NEG_INFINITY })),
        )?;
        scores = zip(DType::Float64, DType::Float64, &scores, &seen, |s: f64, m| s + m)?;
    }
    if let Some(mask) = &how.mask {
        let added = if mask.dtype() == DType::Bool {
            map(mask, DType::Float64, |m: bool| if m { 0.0 } else { f64::NEG_INFINITY })?
        } else {
            mask.clone()
        };
        scores = zip(DType::Float64, DType::Float64, &scores, &added, |s: f64, m| s + m)?;
    }
    let last = scores.nth_last(1)?;
    let weights = softmax_of(&scores.cast(wide)?, last, false)?;
    // A row of nothing but -inf gives NaN, which stands for no weight at all.
    let blind = fold(&scores, &[last], true, DType::Bool, |s: &[f64]| s.iter().all(|x| *x == f64::NEG_INFINITY))?;
    let weights = super::pointwise::select(&blind, &super::call::Operand::Number(Number::Float(0.0)), &weights.into())?;
    let weights = if how.dropout > 0.0 { super::random::thinned(&weights, how.dropout)? } else { weights };
    wide_product(&weights, &v.cast(weights.dtype())?)?.cast(d)
}

pub(super) fn attention(c: &Call) -> Results {
    let (causal, dropout) = (c.flag("is_causal").then_some(0), c.float_or("dropout_p", 0.0)?);
    let how = Attention { mask: c.maybe_tensor("attn_mask")?, causal, scale: c.maybe_float("scale")?, dropout };
    one(attend(&c.tensor("query")?, &c.tensor("key")?, &c.tensor("value")?, &how)?)
}

/// Attention with the logarithms of the sums of the weights.
pub(super) fn attention_with_sums(c: &Call) -> Results {
    let out = attention(c)?;
    let scores = scores(c)?;
    let sums = super::reduce::log_sum_exp(&scores, &[scores.nth_last(1)?], false)?;
    let sums = map(&sums, DType::Float32, |x: f64| round(DType::Float32, x))?;
    Ok(out.into_iter().chain(many([sums])?).collect())
}

/// Scaled products of queries and keys, the mask added, in double precision.
pub(super) fn scores(c: &Call) -> Result<Tensor, Error> {
    let (q, k) = (c.tensor("query")?, c.tensor("key")?);
    let scale = c.float_or("scale", 1.0 / (q.size(q.nth_last(1)?) as f64).sqrt())?;
    let scores = map(&wide_product(&q, &k.transpose(k.nth_last(2)?, k.nth_last(1)?)?)?, DType::Float64, |x: f64| x * scale)?;
    let scores = if c.flag("is_causal") {
        let n = scores.size(scores.nth_last(1)?);
        let rows = scores.size(scores.nth_last(2)?);
        let seen = Tensor::of(DType::Bool, &[rows, n], (0..rows).flat_map(|i| (0..n).map(move |j| j <= i)))?;
        super::pointwise::select(&seen, &scores.into(), &super::call::Operand::Number(Number::Float(f64::NEG_INFINITY)))?
    } else {
        scores
    };
    match c.maybe_tensor("attn_mask")? {
        Some(mask) if mask.dtype() == DType::Bool => {
            super::pointwise::select(&mask, &scores.into(), &super::call::Operand::Number(Number::Float(f64::NEG_INFINITY)))
        }
        Some(mask) => zip(DType::Float64, DType::Float64, &scores, &mask, |s: f64, m| s + m),
        None => Ok(scores),
    }
}

/// Sums of products along a dimension.
pub(super) fn vecdot(c: &Call) -> Results {
    let [a, b] = c.operands()?;
    let (a, b) = (a.tensor()?, b.tensor()?);
    let d = a.dtype();
    let product = zip(DType::Float64, DType::Float64, &a, &b, |x: f64, y| x * y)?;
    let axis = c.axis("dim", product.rank())?;
    one(fold(&product, &[axis], false, d, super::reduce::add_up)?)
}

/// Products one after another.
pub(super) fn multi_dot(c: &Call) -> Results {
    let mut parts = c.tensors("tensors")?.into_iter();
    let first = parts.next().ok_or_else(|| bad("no matrices"))?;
    one(parts.try_fold(first, |a, b| matmul_of(&a, &b))?)
}

pub(super) fn matrix_power(c: &Call) -> Results {
    let (t, n) = (c.first()?, c.int("n")?);
    if !(1..=1 << 20).contains(&n) {
        return Err(Error::new(crate::error::ErrorKind::Unsupported, "powers below 1"));
    }
    budget::work(n as usize, 256)?;
    one((1..n).try_fold(t.clone(), |p, _| matmul_of(&p, &t))?)
}

/// Powers side by side.
pub(super) fn vander(c: &Call) -> Results {
    let t = c.first()?;
    let n = if c.given("N") { c.size("N")? } else { t.size(t.nth_last(1)?) };
    let falls = c.schema.name == "vander" && !c.flag("increasing");
    let power = |k: usize| if falls { n - 1 - k } else { k };
    let shape: Vec<usize> = t.shape().iter().copied().chain([n]).collect();
    super::tensor::count(&shape)?;
    let each = |x: f64| (0..n).map(move |k| x.powi(power(k) as i32));
    one(Tensor::of(t.dtype(), &shape, t.to::<f64>().into_iter().flat_map(each))?)
}
