//! From slots numbered as they came to the five spaces of a finished program.
//!
//! Dead instructions go; results that leave the partition are written straight to their output slots; temporaries share
//! numbers once no longer needed, so that the runtime lets go of their memory.

use std::collections::{BTreeSet, HashMap, HashSet};

use etx_ir::DType;
use etx_ir::graph::{Type, ValueId};
use etx_ir::sym::Expr;
use etx_ir::weights::TensorData;
use etx_mlx::{Access, Instr, IntOrVid, NamedSlot, Program, ShapeDim, Slot, SlotRef, TensorMeta, Tid, Vid};

use super::cx::{Cx, Origin};
use crate::backend::{Delegate, Payload, Refusal, Tie};

/// Sizes beyond this are as good as unbounded (the reference draws the same line).
const UNBOUNDED: i64 = 1 << 30;

/// Finishes the program of a partition.
pub(super) fn finish(mut cx: Cx<'_>, number: u32, outputs: &[ValueId]) -> Result<Delegate, Refusal> {
    let (outputs, out_slots) = place_outputs(&mut cx, outputs)?;
    cx.write_back()?;
    remove_dead(&mut cx, &out_slots);
    let draws = cx.draws();
    super::layout::settle(&mut cx, &out_slots)?;
    super::host::prepare(&mut cx, &out_slots)?;

    let mut used = vec![false; cx.slots.len()];
    for instr in cx.chains.iter().flatten().chain(&cx.init) {
        instr.visit_slots(|s, _| {
            if let SlotRef::Tensor(t) = s {
                used[t.0 as usize] = true;
            }
        });
    }
    let prefix = format!("{number:04x}");
    let mut named_slots = Vec::new();
    let mut named_data = Vec::new();
    let mut ties = Vec::new();
    let mut meta = Vec::new();
    let mut renumber: HashMap<u32, u32> = HashMap::new();
    let mut next = 0u32;
    let mut place = |t: u32, renumber: &mut HashMap<u32, u32>| {
        renumber.insert(t, next);
        next += 1;
        Tid(next - 1)
    };

    let constants: Vec<(u32, String, TensorData)> = (0u32..)
        .zip(&cx.slots)
        .filter(|(t, _)| used[*t as usize])
        .filter_map(|(t, s)| match &s.origin {
            Origin::Constant { name, data } => Some((t, name.clone(), data.0.clone())),
            _ => None,
        })
        .collect();
    for (t, name, data) in &constants {
        let tid = place(*t, &mut renumber);
        let key = format!("{prefix}/{name}");
        meta.push(static_meta(data.dtype(), data.shape())?);
        named_slots.push(NamedSlot { name: key.clone(), slot: Slot::Tensor(tid) });
        if let Some((weights, uses)) = cx.tie(Tid(*t)) {
            ties.push(Tie { key: key.clone(), weights, uses });
        }
        named_data.push((key, data.clone()));
    }

    // Inputs in the order of the method's, then those that other nodes compute.
    let mut inputs: Vec<(ValueId, Option<u32>, Option<Vid>)> = Vec::new();
    for (t, s) in (0u32..).zip(&cx.slots) {
        if let Origin::Input(v) = s.origin
            && used[t as usize]
        {
            inputs.push((v, Some(t), None));
        }
    }
    inputs.extend(cx.int_inputs.iter().map(|&(v, vid)| (v, None, Some(vid))));
    inputs.sort_by_key(|&(v, ..)| (cx.method.input_of(v).unwrap_or(usize::MAX), v));
    let mut input_map = Vec::new();
    for &(v, t, vid) in &inputs {
        let slot = match (t, vid) {
            (Some(t), _) => {
                meta.push(value_meta(&cx, v)?);
                Slot::Tensor(place(t, &mut renumber))
            }
            (None, vid) => Slot::Int(vid.unwrap_or(Vid(0))),
        };
        input_map.push(slot);
        named_slots.push(NamedSlot { name: format!("{prefix}/{}", cx.graph.value(v).name), slot });
    }
    let num_inputs = input_map.iter().filter(|s| matches!(s, Slot::Tensor(_))).count() as u32;

    let mut output_map = Vec::new();
    for (&v, slot) in outputs.iter().zip(&out_slots) {
        let slot = match *slot {
            SlotRef::Tensor(t) => {
                meta.push(value_meta(&cx, v)?);
                Slot::Tensor(place(t.0, &mut renumber))
            }
            SlotRef::Value(vid) => Slot::Int(vid),
        };
        output_map.push(slot);
        named_slots.push(NamedSlot { name: format!("{prefix}/{}", cx.graph.value(v).name), slot });
    }

    let num_outputs = output_map.iter().filter(|s| matches!(s, Slot::Tensor(_))).count() as u32;

    let mut mutable_buffer_map = Vec::new();
    let buffers: Vec<(u32, ValueId)> = (0u32..)
        .zip(&cx.slots)
        .filter(|(t, _)| used[*t as usize])
        .filter_map(|(t, s)| if let Origin::Buffer(v) = s.origin { Some((t, v)) } else { None })
        .collect();
    for &(t, v) in &buffers {
        meta.push(value_meta(&cx, v)?);
        let slot = Slot::Tensor(place(t, &mut renumber));
        mutable_buffer_map.push(slot);
        named_slots.push(NamedSlot { name: format!("{prefix}/{}", cx.graph.value(v).name), slot });
    }
    let base = next;
    let num_temps = number_temps(&cx, base, &mut renumber);

    let mut chains = std::mem::take(&mut cx.chains);
    let init_chain = (!cx.init.is_empty()).then(|| {
        chains.push(std::mem::take(&mut cx.init));
        chains.len() as u32 - 1
    });
    // Values that no instruction computes any more leave no gaps.
    let mut vids: HashMap<u32, u32> = HashMap::new();
    for slot in input_map.iter().chain(&output_map) {
        if let Slot::Int(v) = slot {
            let n = vids.len() as u32;
            vids.entry(v.0).or_insert(n);
        }
    }
    for instr in chains.iter().flatten() {
        instr.visit_slots(|s, _| {
            if let SlotRef::Value(v) = s {
                let n = vids.len() as u32;
                vids.entry(v.0).or_insert(n);
            }
        });
    }
    let vid = |v: Vid| Vid(vids.get(&v.0).copied().unwrap_or(v.0));
    for instr in chains.iter_mut().flatten() {
        instr.map_slots(|t| Tid(renumber.get(&t.0).copied().unwrap_or(t.0)), vid);
    }
    for slot in input_map.iter_mut().chain(&mut output_map).chain(named_slots.iter_mut().map(|n| &mut n.slot)) {
        if let Slot::Int(v) = slot {
            *v = vid(*v);
        }
    }
    unique(&mut named_slots);
    let program = Program {
        num_constants: constants.len() as u32,
        num_inputs,
        num_outputs,
        num_mutable_buffers: buffers.len() as u32,
        num_temps,
        num_values: vids.len() as u32,
        chains,
        main_chain: 0,
        init_chain,
        input_map,
        output_map,
        mutable_buffer_map,
        named_slots,
        tensor_meta: meta,
    };
    let inputs = inputs.into_iter().map(|(v, ..)| v).collect();
    Ok(Delegate { backend: super::BACKEND, payload: Payload::Mlx(program), inputs, outputs, named_data, ties, draws })
}

/// Names are informational but for constants; a value that both stays and leaves has one slot more than names.
fn unique(slots: &mut [NamedSlot]) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for slot in slots {
        let mut n = 1;
        while !seen.insert(slot.name.clone()) {
            n += 1;
            slot.name = format!("{}.{n}", slot.name);
        }
    }
}

/// Gives every value that leaves the partition a slot of its own: the one it was computed into, or a copy where that
/// slot is an input, a constant, a buffer, or another output's already.
fn place_outputs(cx: &mut Cx<'_>, outputs: &[ValueId]) -> Result<(Vec<ValueId>, Vec<SlotRef>), Refusal> {
    let mut values = Vec::new();
    let mut slots: Vec<SlotRef> = Vec::new();
    let mut taken: BTreeSet<SlotRef> = BTreeSet::new();
    let state: BTreeSet<ValueId> = cx.state_results();
    for &v in outputs {
        if state.contains(&v) && !cx.is_returned(v) {
            continue;
        }
        let slot = match cx.graph.ty(v) {
            Type::Int(e) => {
                let a = cx.int(e)?;
                let own = match a {
                    IntOrVid::Vid(vid) if !taken.contains(&vid.into()) => vid,
                    _ => {
                        let out = cx.fresh_value();
                        cx.push(Instr::AddInt { a, b: 0.into(), out });
                        out
                    }
                };
                own.into()
            }
            _ => {
                let t = cx.tensor(v)?;
                let own = cx.slots[t.0 as usize].origin == Origin::Temp && !taken.contains(&t.into());
                SlotRef::Tensor(if own { t } else { cx.temp(|out| Instr::IdCopy { x: t, out }) })
            }
        };
        values.push(v);
        taken.insert(slot);
        slots.push(slot);
    }
    Ok((values, slots))
}

/// Removes instructions of branches and bodies whose results nothing reads, in whatever chain and round.
fn remove_dead_in_bodies(cx: &mut Cx<'_>, keep: &[SlotRef]) {
    let mut before = usize::MAX;
    while cx.chains.len() > 1 && cx.chains.iter().map(Vec::len).sum::<usize>() < before {
        before = cx.chains.iter().map(Vec::len).sum();
        let mut live: HashSet<SlotRef> = keep.iter().copied().collect();
        for instr in cx.chains.iter().flatten().chain(&cx.init) {
            instr.visit_slots(|s, access| {
                if access == Access::Read {
                    live.insert(s);
                }
            });
            if let Instr::Scan { outputs, carry, .. } = instr {
                // The loop takes these from its body when a round ends.
                live.extend(outputs.iter().chain(carry).map(|&t| SlotRef::Tensor(t)));
            }
        }
        let slots = &cx.slots;
        let needed = |instr: &Instr| {
            let mut needed = matches!(instr, Instr::If { .. } | Instr::Scan { .. } | Instr::UpdateAndAttend { .. });
            instr.visit_slots(|s, access| {
                let state = |t: Tid| slots.get(t.0 as usize).is_some_and(|slot| matches!(slot.origin, Origin::Buffer(_)));
                needed |= access == Access::Write && (live.contains(&s) || matches!(s, SlotRef::Tensor(t) if state(t)));
            });
            needed
        };
        cx.chains.iter_mut().skip(1).for_each(|chain| chain.retain(&needed));
    }
}

/// Removes instructions whose results nothing reads.
pub(super) fn remove_dead(cx: &mut Cx<'_>, keep: &[SlotRef]) {
    remove_dead_in_bodies(cx, keep);
    let mut live_tensors: BTreeSet<u32> = BTreeSet::new();
    let mut live_values: BTreeSet<u32> = BTreeSet::new();
    for slot in keep {
        match slot {
            SlotRef::Tensor(t) => live_tensors.insert(t.0),
            SlotRef::Value(v) => live_values.insert(v.0),
        };
    }
    let note = |instr: &Instr, tensors: &mut BTreeSet<u32>, values: &mut BTreeSet<u32>| {
        instr.visit_slots(|s, access| match (s, access) {
            (SlotRef::Tensor(t), Access::Read) => {
                tensors.insert(t.0);
            }
            (SlotRef::Value(v), Access::Read) => {
                values.insert(v.0);
            }
            _ => {}
        });
    };
    for instr in cx.chains.iter().skip(1).flatten().chain(&cx.init) {
        note(instr, &mut live_tensors, &mut live_values);
    }
    let main = std::mem::take(&mut cx.chains[0]);
    let mut kept: Vec<Instr> = Vec::with_capacity(main.len());
    for instr in main.into_iter().rev() {
        let mut live = matches!(instr, Instr::If { .. } | Instr::Scan { .. } | Instr::UpdateAndAttend { .. });
        instr.visit_slots(|s, access| {
            if access == Access::Write {
                live |= match s {
                    SlotRef::Tensor(t) => live_tensors.contains(&t.0) || matches!(cx.slots[t.0 as usize].origin, Origin::Buffer(_)),
                    SlotRef::Value(v) => live_values.contains(&v.0),
                };
            }
        });
        if live {
            note(&instr, &mut live_tensors, &mut live_values);
            kept.push(instr);
        }
    }
    kept.reverse();
    cx.chains[0] = kept;
}

/// Numbers temporaries from `base` on; one is free for reuse after the last place that touches it. Branches count as if they ran
/// one after the other, a loop as one place.
fn number_temps(cx: &Cx<'_>, base: u32, renumber: &mut HashMap<u32, u32>) -> u32 {
    let mut touched: Vec<Vec<u32>> = Vec::new();
    note_places(cx, 0, renumber, &mut touched);
    let mut last: HashMap<u32, usize> = HashMap::new();
    for (i, temps) in touched.iter().enumerate() {
        last.extend(temps.iter().map(|&t| (t, i)));
    }
    let mut count = 0;
    let mut free: BTreeSet<u32> = BTreeSet::new();
    let mut at_start = Vec::new();
    cx.init.iter().for_each(|instr| note_temps(cx, instr, renumber, &mut at_start));
    for t in at_start {
        renumber.entry(t).or_insert_with(|| {
            count += 1;
            base + count - 1
        });
    }
    for (i, temps) in touched.iter().enumerate() {
        let mut done: Vec<u32> = Vec::new();
        for &t in temps {
            let n = *renumber.entry(t).or_insert_with(|| {
                free.pop_first().unwrap_or_else(|| {
                    count += 1;
                    base + count - 1
                })
            });
            if last.get(&t) == Some(&i) {
                done.push(n);
            }
        }
        free.extend(done);
    }
    count
}

/// The temporaries that each instruction of a chain touches, and of the chains that it runs.
fn note_places(cx: &Cx<'_>, chain: usize, renumber: &HashMap<u32, u32>, places: &mut Vec<Vec<u32>>) {
    for instr in cx.chains.get(chain).into_iter().flatten() {
        let mut temps = Vec::new();
        if matches!(instr, Instr::Scan { .. }) {
            note_temps(cx, instr, renumber, &mut temps);
            places.push(temps);
        } else {
            note_own_temps(instr, renumber, &mut temps);
            places.push(temps);
            // Chains come after the one that runs them, so this ends.
            instr.calls().filter_map(|c| usize::try_from(c).ok()).for_each(|c| note_places(cx, c, renumber, places));
        }
    }
}

/// The temporaries that an instruction touches, itself or in the chains that it runs.
fn note_temps(cx: &Cx<'_>, instr: &Instr, renumber: &HashMap<u32, u32>, temps: &mut Vec<u32>) {
    note_own_temps(instr, renumber, temps);
    for chain in instr.calls().filter_map(|c| cx.chains.get(usize::try_from(c).ok()?)) {
        chain.iter().for_each(|instr| note_temps(cx, instr, renumber, temps));
    }
}

fn note_own_temps(instr: &Instr, renumber: &HashMap<u32, u32>, temps: &mut Vec<u32>) {
    instr.visit_slots(|s, _| {
        if let SlotRef::Tensor(t) = s
            && !renumber.contains_key(&t.0)
        {
            temps.push(t.0);
        }
    });
}

fn static_meta(dtype: DType, shape: &[u64]) -> Result<TensorMeta, Refusal> {
    let sizes = shape
        .iter()
        .map(|&n| u32::try_from(n).map(ShapeDim::Static))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Refusal::new(format!("a size of {shape:?} is beyond 32 bits")))?;
    Ok(TensorMeta { dtype, dim_order: dim_order(shape.len()), shape: sizes })
}

fn value_meta(cx: &Cx<'_>, v: ValueId) -> Result<TensorMeta, Refusal> {
    let Type::Tensor(t) = cx.graph.ty(v) else {
        return Err(Refusal::new(format!("%{} is not a tensor", cx.graph.value(v).name)));
    };
    let shape = t.shape.iter().map(|d| shape_dim(cx, d)).collect();
    Ok(TensorMeta { dtype: t.dtype, shape, dim_order: dim_order(t.rank()) })
}

fn shape_dim(cx: &Cx<'_>, d: &Expr) -> ShapeDim {
    if let Some(n) = d.as_int().and_then(|n| u32::try_from(n).ok()) {
        return ShapeDim::Static(n);
    }
    let r = cx.method.ranges.bounds(d);
    let min = r.min.and_then(|n| u32::try_from(n.max(0)).ok()).unwrap_or(0);
    ShapeDim::Dynamic { min, max: r.max.filter(|&n| n <= UNBOUNDED).and_then(|n| u32::try_from(n).ok()).filter(|&n| n >= min) }
}

fn dim_order(rank: usize) -> Option<Vec<u8>> {
    (rank > 0).then(|| (0..rank as u8).collect())
}
