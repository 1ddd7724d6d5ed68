use half::{bf16, f16};

use super::*;
use crate::cpu::samples::{floats, noise};

/// Between -2 and 2.
fn wide(shape: &[usize], seed: u32) -> Tensor {
    let two = Tensor::from_slice(&[], &[2f32]).unwrap();
    crate::cpu::binary::binary(crate::engine::Binary::Multiply, &noise(shape, seed), &two).unwrap()
}

/// Attention by the definition, in `f64`. `bias(head, query, key)` is added to the scores.
fn plain(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64, bias: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
    let (sq, sk, sv) = (q.shape().to_vec(), k.shape().to_vec(), v.shape().to_vec());
    let (q, k, v) = (floats(q), floats(k), floats(v));
    let mut out = Vec::new();
    for b in 0..sq[0] {
        for h in 0..sq[1] {
            let kv = h / (sq[1] / sk[1]);
            for l in 0..sq[2] {
                let at = |x: &[f32], shape: &[usize], head: usize, i: usize, d: usize| {
                    f64::from(x[((b * shape[1] + head) * shape[2] + i) * shape[3] + d])
                };
                let score =
                    |s: usize| (0..sq[3]).map(|d| at(&q, &sq, h, l, d) * at(&k, &sk, kv, s, d)).sum::<f64>() * scale + bias(h, l, s);
                let scores: Vec<f64> = (0..sk[2]).map(score).collect();
                let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let terms: Vec<f64> = scores.iter().map(|s| (s - peak).exp()).collect();
                let total: f64 = terms.iter().sum();
                out.extend((0..sv[3]).map(|d| (0..sk[2]).map(|s| terms[s] / total * at(&v, &sv, kv, s, d)).sum::<f64>()));
            }
        }
    }
    out
}

fn close(got: &Tensor, want: &[f64], limit: f64) {
    let got = floats(got);
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*g) - w).abs() <= limit, "element {i}: {g} for {w}");
    }
}

fn causal(queries: usize, keys: usize) -> impl Fn(usize, usize, usize) -> f64 {
    move |_, i, j| if j + queries <= i + keys { 0.0 } else { f64::from(f32::MIN) }
}

#[test]
fn plain_grouped_and_causal_attention_equal_the_definition() {
    for (heads, kv, queries, keys, width, values) in
        [(1, 1, 1, 1, 4, 4), (4, 2, 1, 37, 8, 8), (6, 2, 5, 9, 16, 12), (2, 2, 200, 200, 8, 8), (8, 1, 33, 300, 64, 64), (2, 1, 7, 3, 4, 4)]
    {
        let (q, k, v) = (wide(&[2, heads, queries, width], 1), wide(&[2, kv, keys, width], 2), wide(&[2, kv, keys, values], 3));
        close(&sdpa(&q, &k, &v, 0.3, None, false).unwrap(), &plain(&q, &k, &v, 0.3, |_, _, _| 0.0), 2e-5);
        close(&sdpa(&q, &k, &v, 0.3, None, true).unwrap(), &plain(&q, &k, &v, 0.3, causal(queries, keys)), 2e-5);
    }
}

#[test]
fn caches_are_read_where_they_lie() {
    // [batch, time, head, width], of which 10 of 16 positions are in use.
    let cache = wide(&[1, 16, 2, 8], 4);
    let view = cache.transpose(&[0, 2, 1, 3]).unwrap().slice_axis(2, 0, 1, 10).unwrap();
    let q = wide(&[1, 4, 3, 8], 5);
    let got = sdpa(&q, &view, &view, 1.0, None, true).unwrap();
    close(&got, &plain(&q, &view.contiguous().unwrap(), &view.contiguous().unwrap(), 1.0, causal(3, 10)), 1e-5);
}

#[test]
fn masks_keep_or_add_and_broadcast() {
    let (q, k, v) = (wide(&[1, 2, 3, 4], 1), wide(&[1, 1, 5, 4], 2), wide(&[1, 1, 5, 4], 3));
    let add = wide(&[2, 1, 5], 7);
    let terms = floats(&add);
    let want = plain(&q, &k, &v, 1.0, |h, _, s| f64::from(terms[h * 5 + s]));
    close(&sdpa(&q, &k, &v, 1.0, Some(&add), false).unwrap(), &want, 1e-5);
    let keep: Vec<Bool> = (0..15).map(|i| Bool::from(i % 4 != 1)).collect();
    let keep = Tensor::from_slice(&[3, 5], &keep).unwrap();
    let want = plain(&q, &k, &v, 1.0, |_, l, s| if (l * 5 + s) % 4 != 1 { 0.0 } else { f64::from(f32::MIN) });
    close(&sdpa(&q, &k, &v, 1.0, Some(&keep), false).unwrap(), &want, 1e-5);
    // Integers are added, not taken as flags.
    let ints = Tensor::from_slice(&[1, 1, 1, 5], &[0i32, 1, 2, 3, 4]).unwrap();
    close(&sdpa(&q, &k, &v, 1.0, Some(&ints), false).unwrap(), &plain(&q, &k, &v, 1.0, |_, _, s| s as f64), 1e-5);
}

#[test]
fn a_row_that_sees_nothing_is_the_mean_of_all_values() {
    let (q, k, v) = (wide(&[1, 1, 2, 4], 1), wide(&[1, 1, 3, 4], 2), wide(&[1, 1, 3, 4], 3));
    let values = floats(&v);
    let mean: Vec<f64> = (0..4).map(|d| (0..3).map(|s| f64::from(values[s * 4 + d])).sum::<f64>() / 3.0).collect();
    let none = Tensor::from_slice(&[1, 3], &[Bool::from(false); 3]).unwrap();
    close(&sdpa(&q, &k, &v, 1.0, Some(&none), false).unwrap(), &[mean.clone(), mean.clone()].concat(), 1e-6);
    // Five causal queries of three keys: the first two come before all keys.
    let q = wide(&[1, 1, 5, 4], 1);
    let got = sdpa(&q, &k, &v, 1.0, None, true).unwrap().slice_axis(2, 0, 1, 2).unwrap();
    close(&got, &[mean.clone(), mean].concat(), 1e-6);
    let infinite = Tensor::from_slice(&[1, 3], &[f32::NEG_INFINITY; 3]).unwrap();
    assert!(floats(&sdpa(&q, &k, &v, 1.0, Some(&infinite), false).unwrap()).iter().all(|v| v.is_nan()));
}

#[test]
fn halves_are_rounded_once() {
    for dtype in [DType::BFloat16, DType::Float16] {
        let half = |shape: &[usize], seed| cast(&wide(shape, seed), dtype).unwrap();
        let (q, k, v) = (half(&[1, 4, 6, 32], 1), half(&[1, 2, 70, 32], 2), half(&[1, 2, 70, 32], 3));
        let got = sdpa(&q, &k, &v, 0.17, None, true).unwrap();
        assert_eq!(got.dtype(), dtype);
        let limit = if dtype == DType::BFloat16 { 4e-3 } else { 6e-4 };
        close(&got, &plain(&q, &k, &v, f64::from(0.17f32), causal(6, 70)), limit);
    }
    let (q, k) = (Tensor::from_slice(&[1, 1, 1, 1], &[bf16::ONE]).unwrap(), Tensor::from_slice(&[1, 1, 1, 1], &[f16::ONE]).unwrap());
    assert_eq!(sdpa(&q, &k, &k, 1.0, None, false).unwrap().dtype(), DType::Float32);
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_gives_nothing() {
    let z = |shape: &[usize]| Tensor::zeros(DType::Float32, shape).unwrap();
    let ok = |q: &[usize], k: &[usize], v: &[usize]| sdpa(&z(q), &z(k), &z(v), 1.0, None, false).map(|t| t.shape().to_vec());
    assert!(ok(&[1, 3, 2, 4], &[1, 2, 2, 4], &[1, 2, 2, 4]).is_err());
    assert!(ok(&[1, 2, 2, 4], &[1, 2, 2, 5], &[1, 2, 2, 4]).is_err());
    assert!(ok(&[2, 2, 2, 4], &[1, 2, 2, 4], &[1, 2, 2, 4]).is_err());
    assert!(ok(&[2, 2, 4], &[2, 2, 4], &[2, 2, 4]).is_err());
    assert_eq!(ok(&[1, 2, 0, 4], &[1, 2, 3, 4], &[1, 2, 3, 4]).unwrap(), [1, 2, 0, 4]);
    assert_eq!(ok(&[1, 2, 2, 4], &[1, 2, 0, 4], &[1, 2, 0, 4]).unwrap(), [1, 2, 2, 4]);
    // No width, so no elements, but scores without end.
    assert!(ok(&[1, 1, 1, 0], &[1, 1, 1 << 40, 0], &[1, 1, 1 << 40, 0]).is_err());
    let ints = Tensor::zeros(DType::Int32, &[1, 1, 1, 1]).unwrap();
    assert!(sdpa(&ints, &ints, &ints, 1.0, None, false).is_err());
    let x = z(&[1, 1, 2, 4]);
    assert!(sdpa(&x, &x, &x, 1.0, Some(&z(&[2, 2])), true).is_err());
    assert!(sdpa(&x, &x, &x, 1.0, Some(&z(&[3, 2])), false).is_err());
}
