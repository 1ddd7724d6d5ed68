//! Random bits, the same for a seed as MLX's: Threefry-2x32 with 20 rounds (J. Salmon et al., "Parallel random numbers:
//! as easy as 1, 2, 3", SC 2011) over a counter (mlx-ops.md §4).

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use etx_ir::DType;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::{PARALLEL_BYTES, Tensor, checked_numel};

/// Random elements of `width` bytes (1, 2 or 4). Without a seed they differ at every call and in every process.
pub(crate) fn random_bits(shape: &[usize], seed: Option<i64>, width: i32) -> Result<Tensor> {
    let dtype = match width {
        1 => DType::UInt8,
        2 => DType::UInt16,
        4 => DType::UInt32,
        _ => return Err(Error::argument(format!("random elements of {width} bytes: only 1, 2 and 4 exist"))),
    };
    let count = checked_numel(shape)?;
    let seed = seed.map_or_else(fresh_seed, |seed| seed as u64);
    let key = [(seed >> 32) as u32, seed as u32];
    let bytes = count.checked_mul(dtype.size()).ok_or_else(|| Error::limit("random bits without end"))?;
    let words = Tensor::build::<u32>(&[bytes.div_ceil(4)], |words| {
        fill(key, words);
        Ok(())
    })?;
    if dtype == DType::UInt32 {
        return words.reshape(shape);
    }
    // Narrow elements are the bytes of the words, first byte lowest.
    Tensor::from_bytes(dtype, shape, &words.to_bytes()?[..bytes])
}

/// Word `i` comes from the counter pair `(i, i + half)`, whose other half is word `i + half`.
fn fill(key: [u32; 2], words: &mut [u32]) {
    let half = words.len().div_ceil(2);
    let odd = words.len() % 2 == 1;
    let (first, second) = words.split_at_mut(half);
    let pairs = |base: usize, first: &mut [u32], second: &mut [u32]| {
        for (i, (a, b)) in first.iter_mut().zip(second).enumerate() {
            let at = (base + i) as u32;
            [*a, *b] = threefry(key, [at, at.wrapping_add(half as u32)]);
        }
    };
    const GRAIN: usize = 1 << 14;
    if size_of_val(first) > PARALLEL_BYTES {
        first.par_chunks_mut(GRAIN).zip(second.par_chunks_mut(GRAIN)).enumerate().for_each(|(i, (a, b))| pairs(i * GRAIN, a, b));
    } else {
        pairs(0, first, second);
    }
    if let (true, Some(last)) = (odd, first.last_mut()) {
        *last = threefry(key, [half as u32 - 1, 0])[0];
    }
}

fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const PARITY: u32 = 0x1BD1_1BDA;
    const TURNS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    let keys = [key[0], key[1], key[0] ^ key[1] ^ PARITY];
    let [mut a, mut b] = [counter[0].wrapping_add(keys[0]), counter[1].wrapping_add(keys[1])];
    for round in 0..5u32 {
        for turn in TURNS[round as usize % 2] {
            a = a.wrapping_add(b);
            b = b.rotate_left(turn) ^ a;
        }
        a = a.wrapping_add(keys[(round as usize + 1) % 3]);
        b = b.wrapping_add(keys[(round as usize + 2) % 3]).wrapping_add(round + 1);
    }
    [a, b]
}

fn fresh_seed() -> u64 {
    static START: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("start of the sequence"));
    static CALLS: AtomicU64 = AtomicU64::new(0);
    START.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(seed: i64, n: usize) -> Vec<u32> {
        random_bits(&[n], Some(seed), 4).unwrap().values::<u32>().unwrap().into_owned()
    }

    #[test]
    fn the_published_vectors() {
        // Of the authors' Random123 distribution, file kat_vectors, "threefry2x32 20".
        assert_eq!(threefry([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry([!0, !0], [!0, !0]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(threefry([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]), [0xc492_3a9c, 0x483d_f7a0]);
    }

    #[test]
    fn the_bits_of_mlx() {
        // `mlx.core.random.split(key, n)` of mlx 0.32.4 returns 2n of these words; the key is the seed's two halves.
        assert_eq!(words(0, 2), [928981903, 3453687069]);
        assert_eq!(words(7, 4), [966301609, 989289821, 1948237315, 1058547403]);
        assert_eq!(words(-1, 4), [399813750, 2724076130, 1719144391, 478544778]);
        assert_eq!(words((1 << 40) + 5, 2), [316930262, 1451589314]);
        // Odd lengths, from `mlx.core.random.uniform` with the same keys: these words over 2^32, to 24 bits.
        let near = |got: &[u32], want: &[f64]| got.iter().zip(want).all(|(g, w)| (f64::from(*g) - w).abs() <= 512.0);
        assert!(near(&words(7, 5), &[276534080.0, 861967424.0, 2793701120.0, 1641862656.0, 2900896000.0]));
        assert!(near(&words(0, 1), &[1797259648.0]));
        // Narrow elements: the same bytes.
        let bytes = random_bits(&[2, 3], Some(7), 1).unwrap();
        let all: Vec<u8> = words(7, 2).iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!((bytes.shape(), bytes.values::<u8>().unwrap().as_ref()), (&[2, 3][..], &all[..6]));
        let halves = random_bits(&[5], Some(42), 2).unwrap().to_bytes().unwrap();
        assert_eq!(halves, words(42, 3).iter().flat_map(|w| w.to_le_bytes()).take(10).collect::<Vec<u8>>());
    }

    #[test]
    fn long_results_do_not_depend_on_threads() {
        let n = (PARALLEL_BYTES / 4) * 3 + 1;
        let long = words(1, n);
        let half = n.div_ceil(2);
        for i in [0, 1, 20_000, half - 2] {
            assert_eq!([long[i], long[i + half]], threefry([0, 1], [i as u32, (i + half) as u32]));
        }
        assert_eq!(long[half - 1], threefry([0, 1], [half as u32 - 1, 0])[0]);
    }

    #[test]
    fn calls_without_seed_differ_and_odd_requests_are_refused() {
        let draw = || random_bits(&[4], None, 4).unwrap().values::<u32>().unwrap().into_owned();
        assert_ne!(draw(), draw());
        assert!(random_bits(&[4], None, 8).is_err());
        assert_eq!(random_bits(&[0, 3], None, 2).unwrap().shape(), [0, 3]);
        assert!(random_bits(&[1 << 40], Some(0), 1).is_err());
    }
}
