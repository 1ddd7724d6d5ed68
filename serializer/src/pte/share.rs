//! Which blobs have the same bytes: by identity first, then by content.
//!
//! Content is compared only where lengths agree, and then by ever dearer means: the first [`SAMPLE`] bytes, a fingerprint
//! of everything, every byte. A fingerprint only narrows down who is compared; equality is decided byte by byte. Each
//! step is linear in the bytes it looks at, and blobs without an equal are rarely read beyond the sample.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use etx_ir::weights::TensorData;
use rayon::prelude::*;

use super::stream::Stream;
use crate::error::Result;

/// Weights that are not equal almost never agree in this many first bytes.
const SAMPLE: u64 = 4096;
/// Bytes compared or hashed at a time.
const BLOCK: u64 = 1 << 16;

/// Where the bytes of a blob are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// The first blob with the same bytes, often itself.
    pub(crate) first: usize,
    /// Whether only the bytes say so: the descriptions differ.
    pub(crate) by_content: bool,
}

/// For each blob the first one with the same bytes. `name` says what a blob is, for messages.
///
/// # Errors
/// When bytes that have to be compared cannot be produced.
pub(crate) fn share(blobs: &[&TensorData], name: &(dyn Fn(usize) -> String + Sync)) -> Result<Vec<Shared>> {
    let mut first: Vec<usize> = Vec::with_capacity(blobs.len());
    let mut known = BTreeMap::new();
    for (i, blob) in blobs.iter().enumerate() {
        first.push(*known.entry(blob.identity()).or_insert(i));
    }
    let by_identity = first.clone();
    let mut by_len: BTreeMap<u64, Vec<Member<'_>>> = BTreeMap::new();
    for ((number, data), &same) in blobs.iter().enumerate().zip(&first) {
        if number == same {
            by_len.entry(data.byte_len()).or_default().push(Member { number, data });
        }
    }
    let groups = by_len.into_values().filter(|g| g.len() > 1).collect();
    let of = |m: &Member<'_>, limit| fingerprint(m.data, limit).map_err(|e| e.within(name(m.number)));
    let groups = refine(groups, |m| of(m, SAMPLE))?;
    let groups = refine(groups, |m| of(m, u64::MAX))?;

    let equal: Vec<Vec<(usize, usize)>> = groups.par_iter().map(|group| pairs(group)).collect::<Result<_>>()?;
    for (number, same) in equal.into_iter().flatten() {
        if let Some(slot) = first.get_mut(number) {
            *slot = same;
        }
    }
    // Those that are one by identity follow the one that stands for them.
    let resolved = first.iter().map(|&same| first.get(same).copied().unwrap_or(same));
    Ok(resolved.zip(by_identity).map(|(first, identical)| Shared { first, by_content: first != identical }).collect())
}

#[derive(Clone, Copy)]
struct Member<'a> {
    number: usize,
    data: &'a TensorData,
}

/// Splits groups by a key of their members; those alone with theirs are dropped.
fn refine<'a>(groups: Vec<Vec<Member<'a>>>, key: impl Fn(&Member<'_>) -> Result<u64> + Sync) -> Result<Vec<Vec<Member<'a>>>> {
    let mut out = Vec::new();
    for group in groups {
        let keys: Vec<u64> = group.par_iter().map(&key).collect::<Result<_>>()?;
        let mut parts: BTreeMap<u64, Vec<Member<'a>>> = BTreeMap::new();
        for (member, key) in group.into_iter().zip(keys) {
            parts.entry(key).or_default().push(member);
        }
        out.extend(parts.into_values().filter(|part| part.len() > 1));
    }
    Ok(out)
}

/// Pairs (blob, earlier blob with the same bytes) within a group of equal fingerprints.
fn pairs(group: &[Member<'_>]) -> Result<Vec<(usize, usize)>> {
    let mut distinct: Vec<Member<'_>> = Vec::new();
    let mut out = Vec::new();
    'members: for &member in group {
        for earlier in &distinct {
            if same_bytes(earlier.data, member.data)? {
                out.push((member.number, earlier.number));
                continue 'members;
            }
        }
        distinct.push(member);
    }
    Ok(out)
}

/// Hash of the first `limit` bytes.
fn fingerprint(data: &TensorData, limit: u64) -> Result<u64> {
    let mut left = data.byte_len().min(limit);
    let mut block = vec![0; left.min(BLOCK) as usize];
    let mut stream = Stream::new(data);
    let mut hasher = DefaultHasher::new();
    while left > 0 {
        block.truncate(left.min(BLOCK) as usize);
        stream.read(&mut block)?;
        hasher.write(&block);
        left -= block.len() as u64;
    }
    Ok(hasher.finish())
}

fn same_bytes(a: &TensorData, b: &TensorData) -> Result<bool> {
    let mut left = a.byte_len();
    if left != b.byte_len() {
        return Ok(false);
    }
    let (mut from_a, mut from_b) = (Stream::new(a), Stream::new(b));
    let mut block_a = vec![0; left.min(BLOCK) as usize];
    let mut block_b = block_a.clone();
    while left > 0 {
        block_a.truncate(left.min(BLOCK) as usize);
        block_b.truncate(block_a.len());
        from_a.read(&mut block_a)?;
        from_b.read(&mut block_b)?;
        if block_a != block_b {
            return Ok(false);
        }
        left -= block_a.len() as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etx_ir::DType;
    use etx_ir::weights::Derive;
    use std::sync::Arc;

    fn inline(bytes: &[u8]) -> TensorData {
        TensorData::inline(DType::UInt8, vec![bytes.len() as u64], bytes).unwrap()
    }

    /// Its input, in pieces of an odd size.
    struct Copy([TensorData; 1], u64);
    impl Derive for Copy {
        fn recipe(&self) -> String {
            format!("copy by {}", self.1)
        }
        fn inputs(&self) -> &[TensorData] {
            &self.0
        }
        fn granule(&self) -> u64 {
            self.1
        }
        fn produce(&self, offset: u64, out: &mut [u8]) -> std::result::Result<(), etx_ir::error::Error> {
            let end = offset + out.len() as u64;
            assert!(offset.is_multiple_of(self.1) && (end.is_multiple_of(self.1) || end == self.0[0].byte_len()));
            self.0[0].produce(offset, out)
        }
    }

    #[test]
    fn equal_bytes_are_found_whatever_their_source() {
        let long: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(i) >> 3) as u8).collect();
        let mut late = long.clone();
        late[199_999] ^= 1;
        let whole = inline(&long);
        let derived = |granule| TensorData::derived(DType::UInt8, vec![200_000], Arc::new(Copy([whole.clone()], granule))).unwrap();
        let (d7, d4096) = (derived(7), derived(4096));
        let blobs = [&inline(&late), &whole, &d7, &inline(&[]), &d4096, &inline(&long), &inline(&[]), &inline(&late), &d7];
        let found = share(&blobs, &|i| i.to_string()).unwrap();
        assert_eq!(found.iter().map(|s| s.first).collect::<Vec<_>>(), [0, 1, 1, 3, 1, 1, 3, 0, 1]);
        // Equal bytes in memory are one description already.
        let by_content: Vec<usize> = (0..found.len()).filter(|&i| found[i].by_content).collect();
        assert_eq!(by_content, [2, 4, 8]);
    }

    #[test]
    fn nothing_is_read_when_lengths_differ() {
        struct Untouchable;
        impl Derive for Untouchable {
            fn recipe(&self) -> String {
                "untouchable".into()
            }
            fn inputs(&self) -> &[TensorData] {
                &[]
            }
            fn granule(&self) -> u64 {
                1
            }
            fn produce(&self, _: u64, _: &mut [u8]) -> std::result::Result<(), etx_ir::error::Error> {
                panic!("read without need")
            }
        }
        let odd = TensorData::derived(DType::UInt8, vec![5], Arc::new(Untouchable)).unwrap();
        let found = share(&[&odd, &inline(&[1; 4]), &odd], &|i| i.to_string()).unwrap();
        assert_eq!(found.iter().map(|s| (s.first, s.by_content)).collect::<Vec<_>>(), [(0, false), (1, false), (0, false)]);
    }
}
