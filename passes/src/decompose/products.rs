//! Products that are sums over shared indices.

use etx_ir::error::Error;
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Dim;

use super::expr::Ex;
use super::pen::Pen;
use crate::calls::{args, as_ints, ints, wrap};
use crate::rewrite::{Patch, Site};

type Result = std::result::Result<Option<Patch>, Error>;
type Value<T = Arg> = std::result::Result<Option<T>, Error>;

/// A tensor whose axes have letters. Numbers stand for the axes of an ellipsis, counted from the last.
struct Term {
    value: Arg,
    labels: Vec<u32>,
}

impl Term {
    fn axis(&self, label: u32) -> Option<usize> {
        self.labels.iter().position(|&l| l == label)
    }

    /// Sums over an index.
    fn sum(&mut self, p: &mut Pen<'_, '_>, label: u32) -> std::result::Result<(), Error> {
        if let Some(axis) = self.axis(label) {
            self.value = p.write(&Ex::from(&self.value).sum(&[axis], false))?;
            self.labels.remove(axis);
        }
        Ok(())
    }

    /// In an order, with axes of 1 where it has no such index.
    fn arranged(&self, p: &mut Pen<'_, '_>, labels: &[u32]) -> Value {
        let t = p.ty(&self.value)?;
        let order: Vec<usize> = labels.iter().filter_map(|&l| self.axis(l)).collect();
        let x = p.permute(&self.value, &order)?;
        if order.len() == labels.len() {
            return Ok(Some(x));
        }
        let size = |l: &u32| self.axis(*l).and_then(|a| t.shape.get(a)).cloned().unwrap_or(Dim::Int(1));
        p.view(&x, &labels.iter().map(size).collect::<Vec<_>>())
    }
}

/// What an equation names: the indices of each operand, and of the result.
fn parsed(equation: &str, ranks: &[usize]) -> Option<(Vec<Vec<u32>>, Vec<u32>)> {
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l.to_owned(), Some(r.to_owned())),
        None => (text, None),
    };
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != ranks.len() {
        return None;
    }
    let letters = |part: &str, hidden: usize| {
        let mut list = Vec::new();
        let mut rest = part;
        while let Some(c) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("...") {
                list.extend((0..hidden as u32).rev());
                rest = after;
            } else if c.is_ascii_alphabetic() {
                list.push(u32::from(c));
                rest = rest.get(1..)?;
            } else {
                return None;
            }
        }
        Some(list)
    };
    let mut operands = Vec::new();
    let mut widest = 0;
    for (part, &rank) in parts.iter().zip(ranks) {
        let named = part.chars().filter(char::is_ascii_alphabetic).count();
        let hidden = if part.contains("...") { rank.checked_sub(named)? } else { 0 };
        widest = widest.max(hidden);
        operands.push(letters(part, hidden).filter(|l| l.len() == rank)?);
    }
    let result = match right {
        Some(right) => letters(&right, widest)?,
        None => {
            // The indices that occur once, in alphabetical order, behind the ellipsis.
            let all: Vec<u32> = operands.iter().flatten().copied().collect();
            let mut once: Vec<u32> = all.iter().copied().filter(|l| *l >= 64 && all.iter().filter(|m| *m == l).count() == 1).collect();
            once.sort_unstable();
            (0..widest as u32).rev().chain(once).collect()
        }
    };
    Some((operands, result))
}

/// Diagonals of repeated indices, then pair by pair: a batched product of matrices over the indices that end there. Source: torch.einsum.
pub(super) fn einsum(site: &mut Site<'_>) -> Result {
    let (Arg::Str(equation), Some(list)) = (site.nth(0).clone(), site.nth(1).as_list().map(<[Arg]>::to_vec)) else { return Ok(None) };
    let ranks: Option<Vec<usize>> = list.iter().map(|a| site.tensor(a).map(|t| t.rank())).collect();
    let Some((labels, result)) = ranks.and_then(|r| parsed(&equation, &r)) else { return Ok(None) };
    let mut p = Pen(site);
    let mut terms = Vec::new();
    for (value, mut labels) in list.into_iter().zip(labels) {
        let mut value = value;
        while let Some((a, b)) = repeated(&labels) {
            // The diagonal goes last.
            value = p.call(op!("aten.diagonal.default"), vec![value, Arg::Int(0), Arg::Int(a as i64), Arg::Int(b as i64)])?;
            let label = labels.remove(b);
            labels.remove(a);
            labels.push(label);
        }
        terms.push(Term { value, labels });
    }
    match contracted(&mut p, terms, &result)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

fn repeated(labels: &[u32]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|a| (a + 1..labels.len()).find(|&b| labels.get(a) == labels.get(b)).map(|b| (a, b)))
}

fn contracted(p: &mut Pen<'_, '_>, terms: Vec<Term>, result: &[u32]) -> Value {
    let mut terms = std::collections::VecDeque::from(terms);
    let Some(mut x) = terms.pop_front() else { return Ok(None) };
    let wanted = |l: u32, later: &std::collections::VecDeque<Term>| result.contains(&l) || later.iter().any(|t| t.labels.contains(&l));
    loop {
        // What nothing else asks for is summed before it is multiplied.
        for l in x.labels.clone() {
            if !wanted(l, &terms) {
                x.sum(p, l)?;
            }
        }
        let Some(mut y) = terms.pop_front() else { break };
        for l in y.labels.clone() {
            if !wanted(l, &terms) && !x.labels.contains(&l) {
                y.sum(p, l)?;
            }
        }
        let ends = |l: u32| !wanted(l, &terms);
        x = match multiplied(p, &x, &y, &ends)? {
            Some(z) => z,
            None => return Ok(None),
        };
    }
    let y = x.arranged(p, result)?;
    Ok(y.filter(|_| x.labels.len() == result.len()))
}

/// The product of two, summed over the indices that end with it.
fn multiplied(p: &mut Pen<'_, '_>, x: &Term, y: &Term, ends: &dyn Fn(u32) -> bool) -> Value<Term> {
    let (s, t) = (p.ty(&x.value)?, p.ty(&y.value)?);
    let size = |term: &Term, shape: &[Dim], l: u32| term.axis(l).and_then(|a| shape.get(a)).cloned();
    let shared: Vec<u32> = x.labels.iter().copied().filter(|&l| y.axis(l).is_some()).collect();
    let broadcast = shared.iter().any(|&l| size(x, &s.shape, l) != size(y, &t.shape, l));
    let (inner, batch): (Vec<u32>, Vec<u32>) = shared.iter().partition(|l| ends(**l));
    let left: Vec<u32> = x.labels.iter().copied().filter(|l| !shared.contains(l)).collect();
    let right: Vec<u32> = y.labels.iter().copied().filter(|l| !shared.contains(l)).collect();
    let labels: Vec<u32> = batch.iter().chain(&left).chain(&right).copied().collect();
    if inner.is_empty() || broadcast || !s.dtype.is_float() {
        let all: Vec<u32> = labels.iter().chain(&inner).copied().collect();
        let (Some(a), Some(b)) = (x.arranged(p, &all)?, y.arranged(p, &all)?) else { return Ok(None) };
        let mut z = Ex::from(a) * b;
        if !inner.is_empty() {
            z = z.sum(&(labels.len()..all.len()).collect::<Vec<_>>(), false);
        }
        return Ok(Some(Term { value: p.write(&z)?, labels }));
    }
    let sizes = |term: &Term, shape: &[Dim], list: &[u32]| list.iter().filter_map(|&l| size(term, shape, l)).collect::<Vec<_>>();
    let (b, m, n, k) = (sizes(x, &s.shape, &batch), sizes(x, &s.shape, &left), sizes(y, &t.shape, &right), sizes(x, &s.shape, &inner));
    let join = |lists: [&[u32]; 3]| lists.concat();
    let (Some(a), Some(c)) = (x.arranged(p, &join([&batch, &left, &inner]))?, y.arranged(p, &join([&batch, &inner, &right]))?) else {
        return Ok(None);
    };
    let [bs, ms, ns, ks] = [&b, &m, &n, &k].map(|list| Dim::product(list.iter()));
    let (Some(a), Some(c)) = (p.view(&a, &[bs.clone(), ms, ks.clone()])?, p.view(&c, &[bs, ks, ns])?) else { return Ok(None) };
    let z = p.bmm(&a, &c)?;
    let shape: Vec<Dim> = b.into_iter().chain(m).chain(n).collect();
    Ok(p.view(&z, &shape)?.map(|value| Term { value, labels }))
}

/// Sums over pairs of dimensions. Source: torch.tensordot.
pub(super) fn tensordot(site: &mut Site<'_>) -> Result {
    let (Some(s), Some(t)) = (site.operand(0).cloned(), site.operand(1).cloned()) else { return Ok(None) };
    let dims =
        |name: &str, rank: usize| as_ints(site.arg(name)).and_then(|l| l.into_iter().map(|d| wrap(d, rank)).collect::<Option<Vec<_>>>());
    let (Some(a), Some(b)) = (dims("dims_self", s.rank()), dims("dims_other", t.rank())) else { return Ok(None) };
    let left: Vec<u32> = (0..s.rank() as u32).collect();
    let right: Vec<u32> =
        (0..t.rank()).map(|d| b.iter().position(|&e| e == d).and_then(|i| a.get(i)).map_or((s.rank() + d) as u32, |&d| d as u32)).collect();
    let result: Vec<u32> = left.iter().filter(|l| !right.contains(l)).chain(right.iter().filter(|l| !left.contains(l))).copied().collect();
    let mut p = Pen(site);
    let terms = vec![Term { value: p.0.nth(0).clone(), labels: left }, Term { value: p.0.nth(1).clone(), labels: right }];
    match contracted(&mut p, terms, &result)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// `Σ aᵢ·Wₖᵢⱼ·bⱼ + cₖ`. Source: torch.nn.Bilinear.
pub(super) fn bilinear(site: &mut Site<'_>) -> Result {
    let Some(rank) = site.operand(0).map(|t| t.rank() as u32).filter(|&r| r > 0) else { return Ok(None) };
    let [a, b, w, c] = [0, 1, 2, 3].map(|i| site.nth(i).clone());
    let batch: Vec<u32> = (0..rank - 1).collect();
    let with = |l: u32| batch.iter().copied().chain([l]).collect::<Vec<_>>();
    let mut p = Pen(site);
    let terms =
        vec![Term { value: a, labels: with(100) }, Term { value: w, labels: vec![102, 100, 101] }, Term { value: b, labels: with(101) }];
    let Some(y) = contracted(&mut p, terms, &with(102))? else { return Ok(None) };
    if c == Arg::None { p.done(y) } else { p.ends(&(Ex::from(y) + c)) }
}

/// Products of three tensors that are given dimensions of size 1, summed over some: what is left of `bilinear` in functional programs.
/// Source: torch's definition of `_trilinear` (ATen/native/Linear.cpp).
pub(super) fn trilinear(site: &mut Site<'_>) -> Result {
    let list = |name: &str| site.arg(name).as_list().map(|l| l.iter().filter_map(Arg::as_int).collect::<Vec<i64>>()).unwrap_or_default();
    let (new, summed) = (["expand1", "expand2", "expand3"].map(list), list("sumdim"));
    let Some(rank) = site.operand(0).map(|t| (t.rank() + new[0].len()) as i64) else { return Ok(None) };
    let terms = new
        .iter()
        .enumerate()
        .map(|(i, new)| Term { value: site.nth(i).clone(), labels: (0..rank).filter(|d| !new.contains(d)).map(|d| d as u32).collect() });
    let (terms, left) = (terms.collect::<Vec<_>>(), (0..rank).filter(|d| !summed.contains(d)).map(|d| d as u32).collect::<Vec<_>>());
    if terms.iter().any(|t| site.tensor(&t.value).is_none_or(|x| x.rank() != t.labels.len())) {
        return Ok(None);
    }
    let mut p = Pen(site);
    match contracted(&mut p, terms, &left)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// Products one after another. Source: torch.linalg.multi_dot.
pub(super) fn multi_dot(site: &mut Site<'_>) -> Result {
    let Some(list) = site.nth(0).as_list().map(<[Arg]>::to_vec) else { return Ok(None) };
    let mut p = Pen(site);
    let mut parts = list.into_iter();
    let Some(mut x) = parts.next() else { return Ok(None) };
    for y in parts {
        x = p.matmul(&x, &y)?;
    }
    p.done(x)
}

/// Squares of squares. Source: torch.linalg.matrix_power.
pub(super) fn matrix_power(site: &mut Site<'_>) -> Result {
    let Some(n) = site.nth(1).as_int().filter(|n| (1..=1024).contains(n)) else { return Ok(None) };
    let mut p = Pen(site);
    let mut square = p.0.nth(0).clone();
    let (mut y, mut left) = (None, n);
    loop {
        if left % 2 == 1 {
            y = Some(match y {
                None => square.clone(),
                Some(y) => p.matmul(&y, &square)?,
            });
        }
        left /= 2;
        if left == 0 {
            break;
        }
        square = p.matmul(&square, &square)?;
    }
    match y {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// Each element of one times all of the other. Source: torch.kron.
pub(super) fn kron(site: &mut Site<'_>) -> Result {
    let (Some(s), Some(t), Some(to)) = (site.operand(0).cloned(), site.operand(1).cloned(), site.result().cloned()) else {
        return Ok(None);
    };
    let rank = to.rank();
    let spread = |shape: &[Dim], second: bool| {
        let missing = rank - shape.len();
        let sizes = (0..rank).map(|d| d.checked_sub(missing).and_then(|d| shape.get(d)).cloned().unwrap_or(Dim::Int(1)));
        sizes.flat_map(|n| if second { [Dim::Int(1), n] } else { [n, Dim::Int(1)] }).collect::<Vec<_>>()
    };
    let mut p = Pen(site);
    let (a, b) = (p.0.nth(0).clone(), p.0.nth(1).clone());
    let (Some(a), Some(b)) = (p.view(&a, &spread(&s.shape, false))?, p.view(&b, &spread(&t.shape, true))?) else { return Ok(None) };
    let y = p.mul(&a, &b)?;
    match p.view(&y, &to.shape)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// `a₁b₂ - a₂b₁` and round. Source: torch.linalg.cross.
pub(super) fn cross(site: &mut Site<'_>) -> Result {
    let Some(t) = site.result().cloned() else { return Ok(None) };
    let dim = match site.arg("dim") {
        // The first dimension of three.
        Arg::None => t.shape.iter().position(|n| *n == Dim::Int(3)),
        d => d.as_int().and_then(|d| wrap(d, t.rank())),
    };
    let Some(dim) = dim else { return Ok(None) };
    let mut p = Pen(site);
    let (a, b) = (p.operand(0)?, p.operand(1)?);
    let turned = |x: &Ex, by: i64| Ex::call(op!("aten.roll.default"), vec![x.clone(), ints([by]).into(), ints([dim as i64]).into()]);
    p.ends(&(turned(&a, -1) * turned(&b, 1) - turned(&a, 1) * turned(&b, -1)))
}

/// `beta·c + alpha·(sum of products)`. Sources: torch.addbmm, torch.addr.
fn added(site: &mut Site<'_>, product: impl FnOnce(&mut Pen<'_, '_>, Arg, Arg) -> std::result::Result<Arg, Error>) -> Result {
    let (alpha, beta) = (site.arg("alpha").clone(), site.arg("beta").clone());
    let [c, a, b] = [0, 1, 2].map(|i| site.nth(i).clone());
    let mut p = Pen(site);
    let product = product(&mut p, a, b)?;
    let mut y = Ex::from(product);
    if alpha.as_float() != Some(1.0) {
        y = y * alpha;
    }
    if beta.as_float() == Some(0.0) {
        return p.ends(&y);
    }
    let c = Ex::from(c);
    p.ends(&(if beta.as_float() == Some(1.0) { c } else { c * beta } + y))
}

/// Source: torch.addbmm.
pub(super) fn addbmm(site: &mut Site<'_>) -> Result {
    added(site, |p, a, b| {
        let each = p.bmm(&a, &b)?;
        p.reduce(op!("aten.sum.dim_IntList"), &each, &[0], false)
    })
}

/// Source: torch.addr.
pub(super) fn addr(site: &mut Site<'_>) -> Result {
    added(site, |p, a, b| p.call(op!("aten.outer.default"), vec![a, b]))
}

/// Sums over the last dimension of both. Source: torch.inner.
pub(super) fn inner(site: &mut Site<'_>) -> Result {
    let ranks = [0, 1].map(|i| site.operand(i).map_or(0, |t| t.rank() as u32));
    let [m, n] = ranks;
    if m == 0 || n == 0 {
        let op: OpId = op!("aten.mul.Tensor");
        return Ok(Some(Patch::Call(op, args(op, [site.nth(0).clone(), site.nth(1).clone()], &[]))));
    }
    let left: Vec<u32> = (0..m).collect();
    let right: Vec<u32> = (m..m + n - 1).chain([m - 1]).collect();
    let result: Vec<u32> = (0..m - 1).chain(m..m + n - 1).collect();
    let mut p = Pen(site);
    let terms = vec![Term { value: p.0.nth(0).clone(), labels: left }, Term { value: p.0.nth(1).clone(), labels: right }];
    match contracted(&mut p, terms, &result)? {
        Some(y) => p.done(y),
        None => Ok(None),
    }
}

/// More products than this are no small matter of sizes and positions.
const MOST_PRODUCTS: i64 = 1 << 22;

/// Matrices of integers, which MLX does not multiply: all products, then their sums. Source: torch.bmm.
pub(super) fn bmm_of_integers(site: &mut Site<'_>) -> Result {
    let (Some(s), Some(t)) = (site.operand(0).cloned(), site.operand(1).cloned()) else { return Ok(None) };
    let products = s.numel().as_int().zip(t.shape.last().and_then(Dim::as_int)).and_then(|(n, m)| n.checked_mul(m));
    if !s.dtype.is_int() || s.rank() != 3 || t.rank() != 3 || products.is_none_or(|n| n > MOST_PRODUCTS) {
        return Ok(None);
    }
    let mut p = Pen(site);
    let (a, b) = (p.operand(0)?, p.operand(1)?);
    p.ends(&(a.unsqueeze(3i64) * b.unsqueeze(1i64)).sum(&[2], false))
}
