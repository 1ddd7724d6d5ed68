//! State that would still look into the memory of an input after the call.
//!
//! The delegate wraps the caller's memory without copying it where the platform allows, and what it computes for a mutable buffer
//! waits until somebody asks for it. Only the outputs are asked for, and what an instruction reads on the host. So the new contents of
//! a buffer must not be a view of an input, nor be waiting for one when the call ends: by the next call other numbers lie there.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::{Access, IntOrVidOrTid, SlotRef, Tid};
use super::table::Instr;

/// How contents depend on the memory of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Borrowed {
    /// They were not computed yet when the call ended.
    Waiting,
    /// They may be a view of it.
    Sharing,
}

/// The slots, among those that `is_state` tells, whose contents are borrowed from an input after `main` has run and `outputs` were
/// asked for. Chains must not call themselves.
pub fn borrowed(
    chains: &[Vec<Instr>],
    main: usize,
    outputs: &[Tid],
    is_input: &dyn Fn(Tid) -> bool,
    is_state: &dyn Fn(Tid) -> bool,
) -> BTreeMap<Tid, Borrowed> {
    let mut asked = BTreeSet::new();
    let mut needed: BTreeSet<Tid> = outputs.iter().copied().collect();
    ask(chains, main, &mut needed, &mut asked);
    let mut holds = BTreeMap::new();
    Walk { chains, asked: &asked, is_input }.chain(main, &mut holds);
    holds.retain(|&t, _| is_state(t));
    holds
}

/// Goes backwards through a chain from the slots that are needed after it, and notes the instructions that are computed.
fn ask(chains: &[Vec<Instr>], chain: usize, needed: &mut BTreeSet<Tid>, asked: &mut BTreeSet<(usize, usize)>) {
    for (i, instr) in chains.get(chain).map_or(&[][..], Vec::as_slice).iter().enumerate().rev() {
        match instr {
            Instr::If { then_chain_idx, else_chain_idx, .. } => {
                let mut other = needed.clone();
                ask(chains, *then_chain_idx as usize, needed, asked);
                ask(chains, *else_chain_idx as usize, &mut other, asked);
                needed.extend(other);
            }
            Instr::Scan { originals, sliced, body_chain_idx, .. } => {
                // Twice: what a round needs, the one before has to leave.
                for _ in 0..2 {
                    let mut inner = needed.clone();
                    ask(chains, usize::try_from(*body_chain_idx).unwrap_or(usize::MAX), &mut inner, asked);
                    needed.extend(inner);
                }
                if sliced.iter().any(|t| needed.contains(t)) {
                    needed.extend(originals);
                }
            }
            _ => {
                let (reads, writes) = (slots(instr, Access::Read), slots(instr, Access::Write));
                if writes.iter().any(|t| needed.contains(t)) || matches!(instr, Instr::UpdateAndAttend { .. }) {
                    asked.insert((chain, i));
                    needed.retain(|t| !writes.contains(t));
                    needed.extend(reads);
                }
                if let Instr::ItemInt { x: read, .. } | Instr::IndexCopy { indices: read, .. } = instr {
                    needed.insert(*read);
                }
            }
        }
    }
}

type Holds = BTreeMap<Tid, Borrowed>;

struct Walk<'w> {
    chains: &'w [Vec<Instr>],
    asked: &'w BTreeSet<(usize, usize)>,
    is_input: &'w dyn Fn(Tid) -> bool,
}

impl Walk<'_> {
    fn of(&self, t: Tid, holds: &Holds) -> Option<Borrowed> {
        if (self.is_input)(t) { Some(Borrowed::Sharing) } else { holds.get(&t).copied() }
    }

    fn chain(&self, chain: usize, holds: &mut Holds) {
        for (i, instr) in self.chains.get(chain).into_iter().flatten().enumerate() {
            match instr {
                Instr::If { then_chain_idx, else_chain_idx, .. } => {
                    let mut other = holds.clone();
                    self.chain(*then_chain_idx as usize, holds);
                    self.chain(*else_chain_idx as usize, &mut other);
                    merge(holds, other);
                }
                Instr::Scan { originals, sliced, body_chain_idx, .. } => {
                    for _ in 0..2 {
                        let mut round = holds.clone();
                        for (&from, &to) in originals.iter().zip(sliced) {
                            set(&mut round, to, self.of(from, holds));
                        }
                        self.chain(usize::try_from(*body_chain_idx).unwrap_or(usize::MAX), &mut round);
                        merge(holds, round);
                    }
                }
                _ => {
                    let most = slots(instr, Access::Read).into_iter().filter_map(|t| self.of(t, holds)).max();
                    let new = match most {
                        Some(Borrowed::Sharing) if may_share(instr) => most,
                        Some(_) if !self.asked.contains(&(chain, i)) => Some(Borrowed::Waiting),
                        _ => None,
                    };
                    for t in slots(instr, Access::Write) {
                        set(holds, t, new);
                    }
                }
            }
        }
    }
}

fn set(holds: &mut Holds, t: Tid, to: Option<Borrowed>) {
    match to {
        Some(b) => {
            holds.insert(t, b);
        }
        None => {
            holds.remove(&t);
        }
    }
}

fn merge(holds: &mut Holds, other: Holds) {
    for (t, b) in other {
        let most = holds.get(&t).map_or(b, |&a| a.max(b));
        holds.insert(t, most);
    }
}

fn slots(instr: &Instr, wanted: Access) -> Vec<Tid> {
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

/// Whether the result may be memory of an operand. (A `SliceUpdate` of everything is one more; lowering writes none.)
fn may_share(instr: &Instr) -> bool {
    use Instr::*;
    match instr {
        IdCopy { .. }
        | Contiguous { .. }
        | AsType { .. }
        | Reshape { .. }
        | Transpose { .. }
        | Squeeze { .. }
        | ExpandDims { .. }
        | Slice { .. }
        | Split { .. }
        | BroadcastTo { .. }
        | AsStrided { .. }
        | Tile { .. }
        | Repeat { .. }
        | Flip { .. }
        | Roll { .. }
        | Clip { .. }
        | Floor { .. }
        | Ceil { .. }
        | Round { .. }
        | Trunc { .. } => true,
        Take { index, .. } => !matches!(index, IntOrVidOrTid::Tid(_)),
        Concatenate { tensors, .. } | Stack { tensors, .. } => tensors.len() == 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Vid;

    const X: Tid = Tid(0);
    const OUT: Tid = Tid(1);
    const STATE: Tid = Tid(2);
    const T: Tid = Tid(3);

    fn after(instrs: &[Instr]) -> Option<Borrowed> {
        borrowed(&[instrs.to_vec()], 0, &[OUT], &|t| t == X, &|t| t == STATE).remove(&STATE)
    }

    #[test]
    fn state_borrows_what_nobody_asks_for_and_what_shares_memory() {
        let double = |x, out| Instr::Add { a: x, b: x, out };
        let same = |x, out| Instr::IdCopy { x, out };
        let part = |x, out| Instr::Slice { x, out, axis: 0.into(), start: 0.into(), stop: 1.into(), step: 1 };
        // An output of its own does not ask for the state.
        assert_eq!(after(&[double(X, OUT), double(X, STATE)]), Some(Borrowed::Waiting));
        // Here the output needs it, or what it is a part of.
        assert_eq!(after(&[double(X, STATE), double(STATE, OUT)]), None);
        assert_eq!(after(&[double(X, T), double(T, OUT), part(T, STATE)]), None);
        assert_eq!(after(&[double(X, T), part(T, STATE), double(X, OUT)]), Some(Borrowed::Waiting));
        // A view of an input stays one, asked for or not.
        assert_eq!(after(&[part(X, T), same(T, STATE), double(STATE, OUT)]), Some(Borrowed::Sharing));
        // Read on the host.
        assert_eq!(after(&[double(X, OUT), double(X, STATE), Instr::ItemInt { x: STATE, out: Vid(0) }]), None);
        // State that depends on nothing but itself.
        assert_eq!(after(&[double(X, OUT), double(STATE, STATE)]), None);
    }

    #[test]
    fn branches_and_loops_count() {
        let double = |x, out| Instr::Add { a: x, b: x, out };
        let main = vec![double(X, OUT), Instr::If { cond: 1.into(), then_chain_idx: 1, else_chain_idx: 2 }];
        let chains = [main, vec![Instr::IdCopy { x: X, out: STATE }], vec![]];
        let found = borrowed(&chains, 0, &[OUT], &|t| t == X, &|t| t == STATE);
        assert_eq!(found.get(&STATE), Some(&Borrowed::Sharing));
        let scan =
            Instr::Scan { originals: vec![X], sliced: vec![T], outputs: vec![OUT], carry: vec![STATE], body_chain_idx: 1, scan_axis: 0 };
        let chains = [vec![scan], vec![Instr::Add { a: STATE, b: T, out: STATE }, double(T, OUT)]];
        let found = borrowed(&chains, 0, &[OUT], &|t| t == X, &|t| t == STATE);
        assert_eq!(found.get(&STATE), Some(&Borrowed::Waiting));
    }
}
