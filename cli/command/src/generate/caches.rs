//! How many tokens the caches of a program hold, for files that do not say it.

use std::collections::HashMap;

use etx::mlx::{Access, Instr, IntOrVid, Program, ShapeDim, SlotRef, Space, Tid};

/// What a number was made from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum From {
    /// Constants.
    Known,
    /// What the caller passes, moved or counted on: a position.
    Position,
    /// Anything else. What wraps around at the end of a cache, for instance, does not end there.
    Other,
}

/// Instructions that make positions out of positions.
const KEEP: &[&str] = &[
    "Add",
    "AddInt",
    "ARange",
    "AsType",
    "BroadcastTo",
    "Contiguous",
    "ExpandDims",
    "IdCopy",
    "ItemInt",
    "Reshape",
    "Slice",
    "Squeeze",
    "SymSize",
    "Take",
    "Transpose",
    // Together they let negative ones count from the end.
    "Less",
    "Where",
];

/// Places along the axis on which the program writes at positions into what it keeps between calls; the most of its caches, since those
/// that hold less are windows.
pub(super) fn capacity(program: &Program) -> Option<usize> {
    let mut made: HashMap<SlotRef, From> = HashMap::new();
    let mut most = None;
    for instr in program.chains.iter().flatten() {
        let from = |slot: SlotRef, made: &HashMap<SlotRef, From>| match (made.get(&slot), slot) {
            (Some(from), _) => *from,
            (None, SlotRef::Tensor(t)) if program.space_of(t).is_some_and(|(space, _)| space == Space::Constant) => From::Known,
            (None, SlotRef::Tensor(t)) if program.space_of(t).is_some_and(|(space, _)| space != Space::Input) => From::Other,
            // Integers that nothing made before are the caller's.
            (None, _) => From::Position,
        };
        let place = match instr {
            Instr::IndexCopy { dst, indices, out, axis, .. } => Some((*dst, *out, i64::from(*axis), SlotRef::Tensor(*indices))),
            Instr::SliceUpdate { dst, out, axis: IntOrVid::Int(axis), start: IntOrVid::Vid(start), .. } => {
                Some((*dst, *out, *axis, SlotRef::Value(*start)))
            }
            _ => None,
        };
        if let Some((dst, out, axis, at)) = place
            && from(at, &made) == From::Position
        {
            most = most.max(size(program, dst, axis).or_else(|| size(program, out, axis)));
        }
        let mut source = if KEEP.contains(&instr.name()) { From::Known } else { From::Other };
        instr.visit_slots(|slot, access| {
            if access == Access::Read {
                source = source.max(from(slot, &made));
            }
        });
        instr.visit_slots(|slot, access| {
            if access == Access::Write {
                made.insert(slot, source);
            }
        });
    }
    most
}

/// The size of a buffer along an axis.
fn size(program: &Program, buffer: Tid, axis: i64) -> Option<usize> {
    let kept = program.space_of(buffer).is_some_and(|(space, _)| space == Space::MutableBuffer);
    let shape = &program.meta(buffer).filter(|_| kept)?.shape;
    let axis = if axis < 0 { axis.checked_add(i64::try_from(shape.len()).ok()?)? } else { axis };
    match shape.get(usize::try_from(axis).ok()?)? {
        ShapeDim::Static(n) => usize::try_from(*n).ok().filter(|&n| n > 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etx::ir::DType;
    use etx::mlx::{TensorMeta, Vid};

    use super::*;

    /// One input of positions (slot 0), one buffer of 4 × 16 (slot 1), one temp (slot 2).
    fn program(chain: Vec<Instr>) -> Program {
        Program {
            num_inputs: 1,
            num_mutable_buffers: 1,
            num_temps: 1,
            num_values: 2,
            chains: vec![chain],
            tensor_meta: vec![meta(DType::Int64, &[1]), meta(DType::Float32, &[4, 16])],
            ..Program::default()
        }
    }

    fn meta(dtype: DType, sizes: &[u32]) -> TensorMeta {
        TensorMeta { dtype, shape: sizes.iter().map(|&n| ShapeDim::Static(n)).collect(), dim_order: None }
    }

    fn copy(indices: u32) -> Instr {
        Instr::IndexCopy { dst: Tid(1), update: Tid(2), indices: Tid(indices), out: Tid(1), axis: -1 }
    }

    #[test]
    fn positions_say_how_long_a_cache_is_and_what_wraps_around_does_not() {
        assert_eq!(capacity(&program(vec![copy(0)])), Some(16));
        let cast = Instr::AsType { x: Tid(0), out: Tid(2), scalar_type: DType::Int32 };
        assert_eq!(capacity(&program(vec![cast, copy(2)])), Some(16));
        let wrapped = Instr::Remainder { a: Tid(0), b: Tid(0), out: Tid(2) };
        assert_eq!(capacity(&program(vec![wrapped, copy(2)])), None);
        let item = Instr::ItemInt { x: Tid(0), out: Vid(0) };
        let next = Instr::AddInt { a: Vid(0).into(), b: 1.into(), out: Vid(1) };
        let at = |start: Vid| Instr::SliceUpdate {
            dst: Tid(1),
            update: Tid(2),
            out: Tid(1),
            axis: 0.into(),
            start: start.into(),
            stop: Vid(1).into(),
            step: 1,
        };
        assert_eq!(capacity(&program(vec![item.clone(), next, at(Vid(0))])), Some(4));
        let wrapped = Instr::ModInt { a: Vid(0).into(), b: 4.into(), out: Vid(1) };
        assert_eq!(capacity(&program(vec![item, wrapped, at(Vid(1))])), None);
        assert_eq!(capacity(&program(Vec::new())), None);
    }
}
