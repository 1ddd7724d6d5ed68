//! Where planned tensors lie: upstream's greedy plan, reproduced (`pte-format.md` §4.4).
//!
//! Tensors are placed from the largest to the smallest (equal sizes: last described first) into objects. A tensor may use
//! an object at offset 0 when nothing there lives at the same time, or behind everything that does; otherwise it starts a
//! new object. Objects lie end to end.

use std::collections::HashMap;

use etx_serializer::error::{Error, ErrorKind, Result};

/// Tensors begin at multiples of this many bytes and take a multiple of it.
pub(crate) const ALIGNMENT: u64 = 16;

/// A tensor to be placed. It lives from step `first` to step `last`, both included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    pub(crate) bytes: u64,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Lifetime {
    fn meets(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

struct Object {
    size: u64,
    /// Tensor number and offset in the object.
    placed: Vec<(usize, u64)>,
}

/// What is known of the objects for tensors that live from one step to another. Objects only fill up, so it stays true.
#[derive(Default)]
struct Seen {
    /// Objects before this one hold something that lives at the same time.
    busy: usize,
    /// None of these has more room behind that.
    room: u64,
}

/// The offset of each tensor, and the bytes of the area that holds them all.
///
/// # Errors
/// [`ErrorKind::Limit`] when there is no number for the size of the area.
pub(crate) fn plan(tensors: &[Lifetime]) -> Result<(Vec<u64>, i64)> {
    let too_large = || Error::new(ErrorKind::Limit, "the planned tensors take more than 2^63 bytes");
    let mut order = Vec::with_capacity(tensors.len());
    for (i, t) in tensors.iter().enumerate() {
        order.push((t.bytes.checked_next_multiple_of(ALIGNMENT).ok_or_else(too_large)?, i, t));
    }
    order.sort_by_key(|&(size, i, _)| std::cmp::Reverse((size, i)));

    let mut objects: Vec<Object> = Vec::new();
    let mut seen: HashMap<(usize, usize), Seen> = HashMap::new();
    for &(size, i, tensor) in &order {
        // The first byte of an object behind everything that lives at the same time.
        let busy = |object: &Object| {
            let alive = object.placed.iter().filter_map(|&(other, offset)| Some((tensors.get(other)?, offset)));
            alive
                .filter(|(other, _)| other.meets(tensor))
                .map(|(other, offset)| offset.saturating_add(other.bytes.next_multiple_of(ALIGNMENT)))
                .max()
        };
        let room = |object: &Object, end: u64| if end > 0 { object.size.saturating_sub(end) } else { object.size };
        let seen = seen.entry((tensor.first, tensor.last)).or_default();
        let free = loop {
            let Some(object) = objects.get(seen.busy) else { break None };
            match busy(object) {
                None => break Some((seen.busy, 0)),
                Some(end) => seen.room = seen.room.max(room(object, end)),
            }
            seen.busy += 1;
        };
        let mut behind = || {
            if size > seen.room {
                return None;
            }
            let mut most = 0;
            for (o, object) in objects.iter().enumerate() {
                let end = busy(object)?;
                most = most.max(room(object, end));
                if end > 0 && end.checked_add(size).is_some_and(|end| end <= object.size) {
                    return Some((o, end));
                }
            }
            seen.room = most;
            None
        };
        match free.or_else(&mut behind).and_then(|(o, offset)| Some((objects.get_mut(o)?, offset))) {
            Some((object, offset)) => object.placed.push((i, offset)),
            None => objects.push(Object { size, placed: vec![(i, 0)] }),
        }
    }

    let mut offsets = vec![0; tensors.len()];
    let mut base = 0u64;
    for object in &objects {
        let end = base.checked_add(object.size).ok_or_else(too_large)?;
        for &(i, offset) in &object.placed {
            if let Some(slot) = offsets.get_mut(i) {
                // Inside the object.
                *slot = base + offset;
            }
        }
        base = end;
    }
    Ok((offsets, i64::try_from(base).map_err(|_| too_large())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(bytes: u64, first: usize, last: usize) -> Lifetime {
        Lifetime { bytes, first, last }
    }

    #[test]
    fn the_worked_example_of_the_format() {
        // Two tensors of 8 bytes alive at the call: equal sizes are placed in reverse.
        assert_eq!(plan(&[alive(8, 0, 1), alive(8, 1, 2)]).unwrap(), (vec![16, 0], 32));
        assert_eq!(plan(&[]).unwrap(), (vec![], 0));
    }

    #[test]
    fn what_never_meets_shares_and_what_meets_never_overlaps() {
        assert_eq!(plan(&[alive(64, 0, 1), alive(64, 2, 3)]).unwrap(), (vec![0, 0], 64));
        let many: Vec<Lifetime> = (0..60usize).map(|i| alive((i as u64 * 37) % 200, i / 3, i / 3 + i % 5)).collect();
        let (offsets, area) = plan(&many).unwrap();
        for (i, a) in many.iter().enumerate() {
            assert_eq!(offsets[i] % ALIGNMENT, 0);
            assert!(offsets[i] + a.bytes <= area as u64);
            for (j, b) in many.iter().enumerate().skip(i + 1) {
                let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                assert!(apart || !a.meets(b), "{i} and {j}");
            }
        }
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert_eq!(plan(&[alive(u64::MAX, 0, 1)]).unwrap_err().kind(), ErrorKind::Limit);
        let half = alive(1 << 62, 0, 1);
        assert_eq!(plan(&[half, half, half]).unwrap_err().kind(), ErrorKind::Limit);
    }
}
