//! Transpositions that cancel.
//!
//! MLX keeps channels last and torch first, so each lowering of a convolution transposes before and after itself. Between
//! two of them only what does not care about the order of axes is left: activations, sums, constants, concatenations.
//! So a transposition is put off: its result is remembered as a view of its source, instructions that commute with it run
//! on the source with their axes renamed, and a transposition that meets its inverse is gone. It is made where something
//! reads the order itself. Constants that join in are reordered when the program is made.
//!
//! The law: every slot that is read holds what it held before, or a transposition of it that its reader knows of; the main
//! chain never gets longer, else it stays as it was. Slots that are written more than once, and those that other chains
//! touch, are left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use etx_ir::sym::Expr;
use etx_mlx::{Access, Instr, IntOrVid, SlotRef, Tid};

use super::call::Res;
use super::cx::Cx;
use super::derive::permuted_data;
use crate::backend::Refusal;

/// Puts off transpositions in the main chain; `keep` are the slots that leave the partition.
pub(super) fn settle(cx: &mut Cx<'_>, keep: &[SlotRef]) -> Res {
    if !cx.chains[0].iter().any(|i| matches!(i, Instr::Transpose { .. })) {
        return Ok(());
    }
    let before = std::mem::take(&mut cx.chains[0]);
    let facts = Facts::of(cx, &before, keep);
    let mut pass = Pass { cx, facts, views: HashMap::new(), made: HashMap::new(), same: BTreeMap::new(), ranks: HashMap::new() };
    for instr in &before {
        pass.visit(instr)?;
    }
    pass.finish();
    super::slots::remove_dead(cx, keep);
    if cx.chains[0].len() >= before.len() {
        cx.chains[0] = before;
    }
    Ok(())
}

/// How an instruction that commutes with transpositions is affected by one.
///
/// Given that it reads `Transpose(s, perm)`, returns it with its axes renamed to those of `s`, and the order in which its
/// results are to be read. `None` if it does not commute.
fn renamed(instr: &Instr, perm: &[usize]) -> Option<(Instr, Vec<usize>)> {
    use Instr::*;
    let rank = perm.len();
    let at = |axis: i32| perm.get(usize::try_from(if axis < 0 { i64::from(axis) + rank as i64 } else { i64::from(axis) }).ok()?).copied();
    let mut new = instr.clone();
    let mut order = perm.to_vec();
    match &mut new {
        _ if is_elementwise(instr) => {}
        Softmax { axis, .. }
        | Cumsum { axis, .. }
        | Concatenate { axis, .. }
        | Split { axis, .. }
        | Repeat { axis, .. }
        | Sort { axis, .. } => *axis = at(*axis)? as i32,
        Take { axis, index, .. } => {
            let source = at(*axis)?;
            *axis = source as i32;
            if !matches!(index, etx_mlx::IntOrVidOrTid::Tid(_)) {
                order = without(perm, &[source]);
            }
        }
        Slice { axis: IntOrVid::Int(axis), .. } => *axis = at(i32::try_from(*axis).ok()?)? as i64,
        Flip { axes, .. } | Roll { axes, .. } => {
            for axis in axes {
                *axis = at(*axis)? as i32;
            }
        }
        Pad { pad_width, .. } => {
            let pairs: Vec<_> = pad_width.chunks_exact(2).map(<[IntOrVid]>::to_vec).collect();
            *pad_width = reordered(&pairs, perm)?.concat();
        }
        BroadcastTo { shape, .. } => *shape = reordered(shape, perm)?,
        Tile { reps, .. } => *reps = reordered(reps, perm)?,
        Sum { axes: Some(axes), keepdims, .. }
        | Mean { axes: Some(axes), keepdims, .. }
        | Prod { axes: Some(axes), keepdims, .. }
        | Max { axes: Some(axes), keepdims, .. }
        | Min { axes: Some(axes), keepdims, .. }
        | Var { axes: Some(axes), keepdims, .. }
        | Std { axes: Some(axes), keepdims, .. }
        | Any { axes: Some(axes), keepdims, .. }
        | All { axes: Some(axes), keepdims, .. }
        | LogSumExp { axes: Some(axes), keepdims, .. }
            if !axes.is_empty() =>
        {
            for axis in axes.iter_mut() {
                *axis = at(*axis)? as i32;
            }
            axes.sort_unstable();
            if !*keepdims {
                order = without(perm, &axes.iter().map(|&a| a as usize).collect::<Vec<_>>());
            }
        }
        ExpandDims { axis, .. } => {
            let place = usize::try_from(if *axis < 0 { i64::from(*axis) + rank as i64 + 1 } else { i64::from(*axis) })
                .ok()
                .filter(|&i| i <= rank)?;
            // In front of the axis that it stands in front of.
            let source = perm.get(place).copied().unwrap_or(rank);
            *axis = source as i32;
            order = perm.iter().map(|&p| p + usize::from(p >= source)).collect();
            order.insert(place, source);
        }
        Squeeze { dims: Some(dims), .. } if !dims.is_empty() => {
            for axis in dims.iter_mut() {
                *axis = at(*axis)? as i32;
            }
            dims.sort_unstable();
            order = without(perm, &dims.iter().map(|&a| a as usize).collect::<Vec<_>>());
        }
        _ => return None,
    }
    Some((new, order))
}

/// Whether every element of the result comes from the elements at its place.
fn is_elementwise(instr: &Instr) -> bool {
    use Instr::*;
    matches!(
        instr,
        Rsqrt { .. }
            | Gelu { .. }
            | Silu { .. }
            | Sigmoid { .. }
            | Tanh { .. }
            | Log { .. }
            | Exp { .. }
            | Sin { .. }
            | Cos { .. }
            | Log10 { .. }
            | Log2 { .. }
            | Log1p { .. }
            | Erf { .. }
            | Expm1 { .. }
            | Reciprocal { .. }
            | Sqrt { .. }
            | Square { .. }
            | Floor { .. }
            | Ceil { .. }
            | Trunc { .. }
            | Round { .. }
            | Abs { .. }
            | Neg { .. }
            | Sign { .. }
            | AsType { .. }
            | LogicalNot { .. }
            | Add { .. }
            | Subtract { .. }
            | Multiply { .. }
            | Divide { .. }
            | Maximum { .. }
            | Minimum { .. }
            | Power { .. }
            | Less { .. }
            | LessEqual { .. }
            | Greater { .. }
            | GreaterEqual { .. }
            | Equal { .. }
            | NotEqual { .. }
            | LogicalAnd { .. }
            | LogicalOr { .. }
            | Where { .. }
            | Clip { .. }
    )
}

/// Whether the result of this instruction comes with channels last, transposed to look like channels first: it does where
/// the instruction is that transposition, or keeps the axes of operands that do.
pub(super) fn is_channels_last(instr: &Instr, of: &dyn Fn(Tid) -> bool) -> bool {
    match instr {
        Instr::Transpose { perm, .. } => {
            perm.len() > 2 && perm[1] as usize == perm.len() - 1 && perm[2..].iter().zip(1..).all(|(&p, i)| p == i)
        }
        Instr::Concatenate { tensors, .. } => tensors.iter().any(|&t| of(t)),
        _ if is_elementwise(instr) || matches!(instr, Instr::Pad { .. }) => tensors(instr, Access::Read).into_iter().any(of),
        _ => false,
    }
}

/// What is left of an order once these axes of the source are gone.
fn without(perm: &[usize], gone: &[usize]) -> Vec<usize> {
    perm.iter().filter(|p| !gone.contains(p)).map(|&p| p - gone.iter().filter(|&&g| g < p).count()).collect()
}

/// One entry an axis, from the order of the view to that of the source.
fn reordered<T: Clone>(entries: &[T], perm: &[usize]) -> Option<Vec<T>> {
    if entries.len() != perm.len() {
        return None;
    }
    inverse(perm).iter().map(|&i| entries.get(i).cloned()).collect()
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (i, &p) in perm.iter().enumerate() {
        if let Some(slot) = inverse.get_mut(p) {
            *slot = i;
        }
    }
    inverse
}

fn is_identity(perm: &[usize]) -> bool {
    perm.iter().enumerate().all(|(i, &p)| i == p)
}

/// `perm` as a list of axes, if it is one.
fn order_of(perm: &[i32]) -> Option<Vec<usize>> {
    let n = perm.len() as i64;
    let order: Vec<usize> =
        perm.iter().map(|&p| usize::try_from(if p < 0 { i64::from(p) + n } else { i64::from(p) }).ok()).collect::<Option<_>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    is_identity(&sorted).then_some(order)
}

pub(super) fn tensors(instr: &Instr, wanted: Access) -> Vec<Tid> {
    let mut found = Vec::new();
    instr.visit_slots(|s, access| {
        if let SlotRef::Tensor(t) = s
            && access == wanted
        {
            found.push(t);
        }
    });
    found
}

/// What is known of the slots before the pass.
struct Facts {
    /// Slots that must be written as they are, or are written more than once.
    fixed: BTreeSet<Tid>,
    outputs: BTreeSet<Tid>,
    /// Slots that some reader takes in their own order, whatever is put off.
    read_plain: BTreeSet<Tid>,
    /// Slots on whose way a transposition may end.
    useful: BTreeSet<Tid>,
}

impl Facts {
    fn of(cx: &Cx<'_>, main: &[Instr], keep: &[SlotRef]) -> Self {
        let mut fixed: BTreeSet<Tid> = BTreeSet::new();
        let mut written: BTreeSet<Tid> = BTreeSet::new();
        for instr in main {
            for t in tensors(instr, Access::Write) {
                if !written.insert(t) || !cx.is_temp(t) {
                    fixed.insert(t);
                }
            }
        }
        for instr in cx.chains.iter().skip(1).flatten().chain(&cx.init) {
            fixed.extend(tensors(instr, Access::Read));
            fixed.extend(tensors(instr, Access::Write));
        }
        let outputs: BTreeSet<Tid> = keep.iter().filter_map(|s| if let SlotRef::Tensor(t) = s { Some(*t) } else { None }).collect();
        let (mut read_plain, mut useful) = (outputs.clone(), BTreeSet::new());
        for instr in main.iter().rev() {
            let reads = tensors(instr, Access::Read);
            let goes_on = || tensors(instr, Access::Write).iter().any(|t| useful.contains(t));
            let (commutes, ends) = match instr {
                Instr::SymSize { .. } => continue,
                Instr::Transpose { .. } => (true, true),
                Instr::Reshape { x, .. } => {
                    let shape = cx.shape(*x);
                    // Where all but the batch and one more axis are of size 1, order makes no difference.
                    let flat = shape.as_ref().is_some_and(|s| s.iter().filter(|&d| *d != Expr::Int(1)).count() < 3);
                    (shape.is_some(), flat || goes_on())
                }
                Instr::Mean { keepdims: false, .. } | Instr::Max { keepdims: false, .. } | Instr::Sum { keepdims: false, .. } => {
                    (true, true)
                }
                Instr::Squeeze { .. } => (true, true),
                _ => (
                    renamed(instr, &[0, 1, 2, 3, 4, 5, 6, 7]).is_some()
                        || matches!(instr, Instr::Pad { .. } | Instr::BroadcastTo { .. } | Instr::Tile { .. }),
                    goes_on(),
                ),
            };
            for t in reads {
                if !commutes {
                    read_plain.insert(t);
                } else if ends {
                    useful.insert(t);
                }
            }
        }
        Self { fixed, outputs, read_plain, useful }
    }
}

/// A slot that has not been written: it is `Transpose(source, perm)`.
#[derive(Clone)]
struct View {
    source: Tid,
    perm: Vec<usize>,
}

struct Pass<'p, 'a> {
    cx: &'p mut Cx<'a>,
    facts: Facts,
    views: HashMap<Tid, View>,
    /// Transpositions that exist.
    made: HashMap<(Tid, Vec<usize>), Tid>,
    /// Slots that are others by another name.
    same: BTreeMap<Tid, Tid>,
    /// Ranks of slots that the pass made.
    ranks: HashMap<Tid, usize>,
}

impl Pass<'_, '_> {
    fn visit(&mut self, instr: &Instr) -> Res {
        let mut instr = instr.clone();
        let same = &self.same;
        instr.map_slots(|t| same.get(&t).copied().unwrap_or(t), |v| v);
        match &instr {
            Instr::Transpose { x, out, perm } => {
                if let Some(perm) = order_of(perm) {
                    self.transpose(*x, *out, &perm);
                    return Ok(());
                }
            }
            Instr::SymSize { a, dim, out } => {
                if let Some(view) = self.views.get(a) {
                    let axis = if *dim < 0 { i64::from(*dim) + view.perm.len() as i64 } else { i64::from(*dim) };
                    let of = usize::try_from(axis).ok().and_then(|i| view.perm.get(i)).copied();
                    if let Some(of) = of {
                        let moved = Instr::SymSize { a: view.source, dim: of as i32, out: *out };
                        self.cx.push(moved);
                        return Ok(());
                    }
                }
            }
            Instr::Reshape { x, out, shape } => {
                if let Some((moved, order)) = self.reshaped(*x, *out, shape) {
                    self.push(moved, &order);
                    return Ok(());
                }
            }
            _ => {
                if let Some((moved, order)) = self.commuted(&instr)? {
                    self.push(moved, &order);
                    return Ok(());
                }
            }
        }
        for t in tensors(&instr, Access::Read) {
            self.make(t);
        }
        // Some of them may have turned out to be others.
        let same = &self.same;
        instr.map_slots(|t| same.get(&t).copied().unwrap_or(t), |v| v);
        self.cx.push(instr);
        Ok(())
    }

    fn transpose(&mut self, x: Tid, out: Tid, perm: &[usize]) {
        if self.facts.fixed.contains(&x) || self.facts.fixed.contains(&out) {
            self.make(x);
            let x = self.same.get(&x).copied().unwrap_or(x);
            return self.cx.push(Instr::Transpose { x, out, perm: perm.iter().map(|&p| p as i32).collect() });
        }
        let view = match self.views.get(&x) {
            Some(v) => View { source: v.source, perm: perm.iter().filter_map(|&p| v.perm.get(p)).copied().collect() },
            None => View { source: x, perm: perm.to_vec() },
        };
        if is_identity(&view.perm) {
            self.same.insert(out, view.source);
        } else {
            self.views.insert(out, view);
            if !self.facts.useful.contains(&out) {
                self.make(out);
            }
        }
    }

    /// Appends an instruction whose results are to be read in another order than it writes them.
    fn push(&mut self, mut instr: Instr, order: &[usize]) {
        if is_identity(order) {
            self.cx.push(instr);
            return;
        }
        let mut renamed: Vec<(Tid, Tid)> = Vec::new();
        for out in tensors(&instr, Access::Write) {
            let source = self.cx.fresh();
            self.ranks.insert(source, order.len());
            self.views.insert(out, View { source, perm: order.to_vec() });
            renamed.push((out, source));
        }
        instr.map_slots(|t| renamed.iter().find(|(out, _)| *out == t).map_or(t, |&(_, source)| source), |v| v);
        self.cx.push(instr);
        for (out, _) in renamed {
            if !self.facts.useful.contains(&out) {
                self.make(out);
            }
        }
    }

    /// Writes a slot that was put off.
    fn make(&mut self, t: Tid) {
        let Some(view) = self.views.remove(&t) else { return };
        let key = (view.source, view.perm);
        if let Some(&existing) = self.made.get(&key)
            && !self.facts.outputs.contains(&t)
        {
            self.same.insert(t, existing);
            return;
        }
        self.cx.push(Instr::Transpose { x: key.0, out: t, perm: key.1.iter().map(|&p| p as i32).collect() });
        self.made.insert((t, inverse(&key.1)), key.0);
        self.made.insert(key, t);
    }

    fn rank(&self, t: Tid) -> Option<usize> {
        self.views.get(&t).map(|v| v.perm.len()).or_else(|| self.ranks.get(&t).copied()).or_else(|| self.cx.shape(t).map(|s| s.len()))
    }

    /// The instruction on what its operands are transpositions of, where that saves some.
    fn commuted(&mut self, instr: &Instr) -> Res<Option<(Instr, Vec<usize>)>> {
        let writes = tensors(instr, Access::Write);
        let mut reads = tensors(instr, Access::Read);
        if let Instr::Take { index: etx_mlx::IntOrVidOrTid::Tid(index), .. } = instr {
            // One index after another along the axis; more axes of them would change the rank.
            if self.rank(*index) != Some(1) || self.views.contains_key(index) {
                return Ok(None);
            }
            reads.retain(|t| t != index);
        }
        reads.sort_unstable();
        reads.dedup();
        if writes.iter().any(|t| self.facts.fixed.contains(t)) {
            return Ok(None);
        }
        // Those that will not be written anyway.
        let saved: Vec<Tid> = reads
            .iter()
            .copied()
            .filter(|t| {
                self.views
                    .get(t)
                    .is_some_and(|v| !self.facts.read_plain.contains(t) && !self.made.contains_key(&(v.source, v.perm.clone())))
            })
            .collect();
        let Some(view) = saved.first().and_then(|t| self.views.get(t)).cloned() else { return Ok(None) };
        let Some((mut new, order)) = renamed(instr, &view.perm) else { return Ok(None) };
        let back = inverse(&view.perm);
        let mut cost = 0;
        for &t in &reads {
            match self.turned(t, &back) {
                Turned::Is(_) | Turned::Constant => {}
                Turned::Make => cost += 1,
                Turned::No => return Ok(None),
            }
        }
        let useful = writes.iter().any(|t| self.facts.useful.contains(t)) || is_identity(&order);
        // Where the results must be put in order again at once, it has to save more than that.
        if if useful { cost > saved.len() } else { cost + writes.len() >= saved.len() } {
            return Ok(None);
        }
        let mut operands: Vec<(Tid, Tid)> = Vec::new();
        for &t in &reads {
            operands.push((t, self.turn(t, &back)?));
        }
        new.map_slots(|t| operands.iter().find(|(old, _)| *old == t).map_or(t, |&(_, new)| new), |v| v);
        Ok(Some((new, order)))
    }

    /// What it takes to have a slot in another order, broadcasting as it did.
    fn turned(&self, t: Tid, perm: &[usize]) -> Turned {
        if let Some(v) = self.views.get(&t) {
            if v.perm.len() != perm.len() {
                return Turned::No;
            }
            let order: Vec<usize> = perm.iter().map(|&p| v.perm[p]).collect();
            if is_identity(&order) {
                return Turned::Is(v.source);
            }
            return self.made.get(&(v.source, order)).map_or(Turned::Make, |&t| Turned::Is(t));
        }
        if let Some((_, data)) = self.cx.constant_of(t)
            && !self.facts.fixed.contains(&t)
        {
            return match data.shape().len() {
                0 => Turned::Is(t),
                n if n <= perm.len() => Turned::Constant,
                _ => Turned::No,
            };
        }
        match self.rank(t) {
            Some(0) => Turned::Is(t),
            Some(n) if n == perm.len() => {
                if let Some(&made) = self.made.get(&(t, perm.to_vec())) {
                    return Turned::Is(made);
                }
                Turned::Make
            }
            _ => Turned::No,
        }
    }

    /// The slot in another order.
    fn turn(&mut self, t: Tid, perm: &[usize]) -> Res<Tid> {
        match self.turned(t, perm) {
            Turned::Is(t) => Ok(t),
            Turned::Constant => {
                let Some((name, data)) = self.cx.constant_of(t) else { return Ok(t) };
                let (name, data) = (name.to_owned(), data.clone());
                let mut shape = vec![1; perm.len() - data.shape().len()];
                shape.extend(data.shape());
                let turned = data.reinterpret(data.dtype(), shape).and_then(|d| permuted_data(&d, perm));
                let turned = turned.map_err(|e| Refusal::new(format!("constant {name}: {e}")))?;
                self.cx.constant(&format!("{name}_channel_last"), turned)
            }
            Turned::Make | Turned::No => {
                let (x, order) = match self.views.get(&t) {
                    Some(v) => (v.source, perm.iter().map(|&p| v.perm[p]).collect::<Vec<_>>()),
                    None => (t, perm.to_vec()),
                };
                let perm = order.iter().map(|&p| p as i32).collect();
                let out = self.cx.temp(|out| Instr::Transpose { x, out, perm });
                self.ranks.insert(out, order.len());
                if !self.facts.fixed.contains(&x) {
                    self.made.insert((out, inverse(&order)), x);
                    self.made.insert((x, order), out);
                }
                Ok(out)
            }
        }
    }

    /// A reshape of a slot that was put off, done on its source: where order makes no difference since all axes but those
    /// in order have size 1, or where it splits axes and joins only neighbours.
    fn reshaped(&mut self, x: Tid, out: Tid, shape: &[IntOrVid]) -> Option<(Instr, Vec<usize>)> {
        let view = self.views.get(&x).cloned()?;
        if self.facts.read_plain.contains(&x)
            || self.facts.fixed.contains(&out)
            || self.made.contains_key(&(view.source, view.perm.clone()))
        {
            return None;
        }
        let (from, to) = (self.cx.shape(x)?, self.cx.shape(out)?);
        if from.len() != view.perm.len() || to.len() != shape.len() {
            return None;
        }
        let one = |d: &Expr| *d == Expr::Int(1);
        let places: Vec<usize> = (0..from.len()).filter(|&i| !one(&from[i])).map(|i| view.perm[i]).collect();
        if places.is_sorted() {
            return Some((Instr::Reshape { x: view.source, out, shape: shape.to_vec() }, (0..to.len()).collect()));
        }
        if !self.facts.useful.contains(&out) {
            return None;
        }
        let mut groups = matched(&from, &to)?;
        let own = |axes: &[usize]| axes.iter().filter(|&&i| !one(&from[i])).map(|&i| view.perm[i]).collect::<Vec<usize>>();
        // Axes that become one must follow each other in the source, axes of size 1 aside.
        let together = groups.iter().all(|(axes, _)| {
            let own = own(axes);
            let between = |p: &usize| own.first().zip(own.last()).is_some_and(|(a, b)| (a..=b).contains(&p));
            own.is_sorted() && places.iter().filter(|p| between(p)).count() == own.len()
        });
        groups.sort_by_key(|(axes, _)| own(axes).into_iter().min().or_else(|| axes.iter().map(|&i| view.perm[i]).min()));
        // Else one transposition is needed anyway: the one that brings them together and leaves the others where they are.
        let gathered: Vec<usize> = groups.iter().flat_map(|(axes, _)| axes).map(|&i| view.perm[i]).collect();
        let source = if together || is_identity(&gathered) {
            view.source
        } else {
            match self.made.get(&(view.source, gathered.clone())) {
                Some(&made) => made,
                None => {
                    let perm = gathered.iter().map(|&p| p as i32).collect();
                    let out = self.cx.temp(|out| Instr::Transpose { x: view.source, out, perm });
                    self.made.insert((view.source, gathered), out);
                    out
                }
            }
        };
        let sequence: Vec<usize> = groups.into_iter().flat_map(|(_, axes)| axes).collect();
        let shape = sequence.iter().map(|&i| shape.get(i).copied()).collect::<Option<Vec<_>>>()?;
        Some((Instr::Reshape { x: source, out, shape }, inverse(&sequence)))
    }

    /// What leaves the partition is written as it is.
    fn finish(mut self) {
        let outputs = std::mem::take(&mut self.facts.outputs);
        for &t in &outputs {
            self.make(t);
        }
        for &t in &outputs {
            let Some(source) = self.same.get(&t).copied() else { continue };
            // What writes the source may as well write the output, once.
            let free = self.cx.is_temp(source) && !self.facts.fixed.contains(&source) && !outputs.contains(&source);
            if free {
                for instr in &mut self.cx.chains[0] {
                    instr.map_slots(|s| if s == source { t } else { s }, |v| v);
                }
                for other in self.same.values_mut().filter(|s| **s == source) {
                    *other = t;
                }
            } else if source != t {
                self.cx.push(Instr::IdCopy { x: source, out: t });
            }
        }
    }
}

enum Turned {
    /// This slot is it.
    Is(Tid),
    /// A constant, reordered when the program is made.
    Constant,
    /// A transposition more.
    Make,
    /// Not possible in one step.
    No,
}

/// Which axes of one shape together hold the same elements as which of another, group by group.
fn matched(from: &[Expr], to: &[Expr]) -> Option<Vec<(Vec<usize>, Vec<usize>)>> {
    let (mut i, mut j) = (0, 0);
    let mut groups: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
    while i < from.len() && j < to.len() {
        let (mut axes, mut others) = (vec![i], vec![j]);
        let (mut a, mut b) = (from[i].clone(), to[j].clone());
        (i, j) = (i + 1, j + 1);
        while a != b {
            // The smaller side takes one more axis; symbols only match as they are.
            let (x, y) = (a.as_int()?, b.as_int()?);
            if x < y {
                a = a.times(from.get(i)?);
                axes.push(i);
                i += 1;
            } else {
                b = b.times(to.get(j)?);
                others.push(j);
                j += 1;
            }
        }
        groups.push((axes, others));
    }
    let last = groups.last_mut()?;
    let ones = |shape: &[Expr]| shape.iter().all(|d| *d == Expr::Int(1));
    if !ones(&from[i..]) || !ones(&to[j..]) {
        return None;
    }
    last.0.extend(i..from.len());
    last.1.extend(j..to.len());
    Some(groups)
}
