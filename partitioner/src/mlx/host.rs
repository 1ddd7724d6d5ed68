//! What the delegate does on the host, where it takes more for granted than the instruction says.
//!
//! - `IndexCopy` reads its indices element after element from where they begin, whatever their strides. An index that may be a view
//!   is made contiguous before it.
//! - `IndexCopy` in place reads its update anew for every run of indices: one that is the buffer itself is kept aside.
//! - `IndexCopy` and `SliceUpdate` do not take a constant as `dst`, not even where they write elsewhere: it goes by another name.
//! - State that would be [borrowed](etx_mlx::borrowed) from an input is copied, and asked for before the call ends.

use std::collections::{BTreeMap, BTreeSet};

use etx_ir::DType;
use etx_mlx::borrowed::{Borrowed, borrowed};
use etx_mlx::{Access, Instr, IntOrVid, IntOrVidOrTid, SlotRef, Tid};

use super::call::Res;
use super::cx::{Cx, Origin};
use super::layout::tensors;

/// Prepares all chains; `outputs` are the slots that leave the partition. Comes after whatever moves views around.
pub(super) fn prepare(cx: &mut Cx<'_>, outputs: &[SlotRef]) -> Res {
    let concerned = |i: &Instr| matches!(i, Instr::IndexCopy { .. } | Instr::SliceUpdate { .. });
    if cx.chains.iter().flatten().any(concerned) {
        operands(cx);
    }
    own_state(cx, outputs)
}

/// Copies what state shares with an input, and asks for one element of what it waits for, which computes all of it.
fn own_state(cx: &mut Cx<'_>, outputs: &[SlotRef]) -> Res {
    let outputs: Vec<Tid> = outputs.iter().filter_map(|s| if let SlotRef::Tensor(t) = s { Some(*t) } else { None }).collect();
    let is = |t: Tid, of: fn(&Origin) -> bool| cx.slots.get(t.0 as usize).is_some_and(|s| of(&s.origin));
    let found =
        borrowed(&cx.chains, 0, &outputs, &|t| is(t, |o| matches!(o, Origin::Input(_))), &|t| is(t, |o| matches!(o, Origin::Buffer(_))));
    for (state, how) in found {
        if how == Borrowed::Sharing {
            let condition = cx.scalar(1.0, DType::Bool)?;
            cx.push(Instr::Where { condition, x: state, y: state, out: state });
        }
        let one = cx.temp(|out| Instr::AsStrided { x: state, out, shape: vec![1.into()], strides: vec![1.into()], offset: 0 });
        if cx.dtype(one).size() < 4 {
            cx.item(one)?;
        } else {
            // Whatever the number says as an integer.
            let out = cx.fresh_value();
            cx.push(Instr::ItemInt { x: one, out });
        }
    }
    Ok(())
}

/// Rewrites the operands of such instructions.
fn operands(cx: &mut Cx<'_>) {
    let mut dense: BTreeSet<Tid> = BTreeSet::new();
    let mut replaced = BTreeSet::new();
    for instr in cx.chains.iter().flatten() {
        let in_place = matches!(instr, Instr::IndexCopy { dst, out, .. } | Instr::SliceUpdate { dst, out, .. } if dst == out);
        if !in_place {
            replaced.extend(tensors(instr, Access::Write));
        }
    }
    for (t, slot) in (0u32..).map(Tid).zip(&cx.slots) {
        if matches!(slot.origin, Origin::Constant { .. } | Origin::Input(_))
            || (matches!(slot.origin, Origin::Buffer(_)) && !replaced.contains(&t))
        {
            dense.insert(t);
        }
    }
    let mut walk = Walk { cx, dense, written: BTreeSet::new(), done: BTreeSet::new() };
    walk.chain(0);
}

struct Walk<'w, 'a> {
    cx: &'w mut Cx<'a>,
    /// Slots whose elements lie one after the other.
    dense: BTreeSet<Tid>,
    written: BTreeSet<Tid>,
    /// Chains that were walked.
    done: BTreeSet<usize>,
}

impl Walk<'_, '_> {
    fn chain(&mut self, chain: usize) {
        if !self.done.insert(chain) {
            return;
        }
        let Some(instrs) = self.cx.chains.get_mut(chain).map(std::mem::take) else { return };
        let mut new = Vec::with_capacity(instrs.len());
        let mut copies: BTreeMap<Tid, Tid> = BTreeMap::new();
        for mut instr in instrs {
            for called in instr.calls() {
                if let Instr::Scan { sliced, carry, .. } = &instr {
                    // A later round reads what an earlier one left.
                    for t in sliced.iter().chain(carry) {
                        self.dense.remove(t);
                        self.written.insert(*t);
                    }
                }
                if let Ok(called) = usize::try_from(called) {
                    self.chain(called);
                }
            }
            if let Instr::IndexCopy { dst, update, indices, out, .. } = &mut instr {
                if !self.dense.contains(indices) {
                    let x = *indices;
                    *indices = *copies.entry(x).or_insert_with(|| {
                        let out = self.cx.fresh_of(DType::Int64);
                        new.push(Instr::Contiguous { x, out });
                        out
                    });
                }
                if dst == out && update == dst {
                    *update = self.by_another_name(*dst, &mut new);
                }
            }
            if let Instr::IndexCopy { dst, .. } | Instr::SliceUpdate { dst, .. } = &mut instr
                && self.cx.constant_of(*dst).is_some()
            {
                *dst = self.by_another_name(*dst, &mut new);
            }
            let is_dense = lies_densely(&instr, &|t| self.dense.contains(&t));
            for out in tensors(&instr, Access::Write) {
                copies.remove(&out);
                // Branches write the same slot.
                if is_dense && (self.written.insert(out) || self.dense.contains(&out)) {
                    self.dense.insert(out);
                } else {
                    self.written.insert(out);
                    self.dense.remove(&out);
                }
            }
            new.push(instr);
        }
        if let Some(slot) = self.cx.chains.get_mut(chain) {
            *slot = new;
        }
    }

    fn by_another_name(&mut self, x: Tid, new: &mut Vec<Instr>) -> Tid {
        let out = self.cx.fresh_of(self.cx.dtype(x));
        new.push(Instr::IdCopy { x, out });
        out
    }
}

/// Whether the results surely lie one element after the other in memory, where `of` says so of the operands. Element-wise
/// instructions keep the strides of their operands, so that what they make of a repeated number is a repeated number.
fn lies_densely(instr: &Instr, of: &dyn Fn(Tid) -> bool) -> bool {
    use Instr::*;
    match instr {
        Contiguous { .. }
        | TakeAlongAxis { .. }
        | Gather { .. }
        | ARange { .. }
        | Full { .. }
        | FullLike { .. }
        | Argmax { .. }
        | Argmin { .. }
        | Take { index: IntOrVidOrTid::Tid(_), .. } => true,
        Concatenate { tensors, .. } | Stack { tensors, .. } if tensors.len() > 1 => true,
        // A part that is all of its rows from one to another.
        Take { x, axis: 0, .. } | Split { x, axis: 0, .. } | Slice { x, axis: IntOrVid::Int(0), step: 1, .. } => of(*x),
        Transpose { .. }
        | BroadcastTo { .. }
        | AsStrided { .. }
        | Take { .. }
        | Split { .. }
        | Slice { .. }
        | Flip { .. }
        | Tile { .. }
        | Repeat { .. }
        | If { .. }
        | Scan { .. }
        | MetalKernel { .. } => false,
        _ => tensors(instr, Access::Read).into_iter().all(of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_not_dense_and_what_they_are_made_dense_by_is() {
        let (x, out) = (Tid(0), Tid(1));
        let cast = Instr::AsType { x, out, scalar_type: DType::Int64 };
        assert!(lies_densely(&cast, &|_| true) && !lies_densely(&cast, &|_| false));
        assert!(!lies_densely(&Instr::BroadcastTo { x, out, shape: vec![4.into()] }, &|_| true));
        assert!(lies_densely(&Instr::Contiguous { x, out }, &|_| false));
        let column = |axis| Instr::Take { x, out, index: IntOrVidOrTid::Int(0), axis };
        assert!(lies_densely(&column(0), &|_| true) && !lies_densely(&column(1), &|_| true) && !lies_densely(&column(-1), &|_| true));
        let part = |step| Instr::Slice { x, out, axis: 0.into(), start: 1.into(), stop: 3.into(), step };
        assert!(lies_densely(&part(1), &|_| true) && !lies_densely(&part(2), &|_| true) && !lies_densely(&part(1), &|_| false));
    }
}
