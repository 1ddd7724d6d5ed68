use half::{bf16, f16};

use super::*;
use crate::cpu::samples::{floats, noise};
use crate::tensor::Elem;

/// The product of two rank-2 tensors by the definition, in `f64`.
fn plain(a: &Tensor, b: &Tensor) -> Vec<f64> {
    let (va, vb) = (floats(a), floats(b));
    let (m, k, n) = (a.shape()[0], a.shape()[1], b.shape()[1]);
    let at = |i: usize, j: usize| (0..k).map(|l| f64::from(va[i * k + l]) * f64::from(vb[l * n + j])).sum::<f64>();
    (0..m * n).map(|at_| at(at_ / n, at_ % n)).collect()
}

fn close(got: &Tensor, want: &[f64], limit: f64) {
    let got = floats(got);
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*g) - w).abs() <= limit * w.abs().max(1.0), "element {i}: {g} for {w}");
    }
}

fn mul(a: &Tensor, b: &Tensor) -> Tensor {
    addmm(a, b, None, 1.0, 1.0).unwrap()
}

#[test]
fn every_size_and_storage_equals_the_definition() {
    let sizes = [(1, 1, 1), (1, 64, 33), (3, 40, 130), (12, 96, 70), (13, 100, 65), (40, 600, 17), (300, 70, 90), (530, 1030, 150)];
    for (m, k, n) in sizes {
        let (a, b) = (noise(&[m, k], 1), noise(&[k, n], 2));
        let want = plain(&a, &b);
        let turned = |x: &Tensor| x.transpose(&[1, 0]).unwrap().contiguous().unwrap().transpose(&[1, 0]).unwrap();
        for a in [a.clone(), turned(&a)] {
            for b in [b.clone(), turned(&b)] {
                close(&mul(&a, &b), &want, 2e-6 * (k as f64).sqrt());
            }
        }
    }
}

#[test]
fn halves_sum_in_f32_and_round_once() {
    for dtype in [DType::Float16, DType::BFloat16] {
        for (m, k, n) in [(1, 70, 50), (5, 71, 20), (20, 64, 300), (200, 530, 40)] {
            let (a, b) = (cast(&noise(&[m, k], 3), dtype).unwrap(), cast(&noise(&[n, k], 4), dtype).unwrap().transpose(&[1, 0]).unwrap());
            let got = mul(&a, &b);
            assert_eq!(got.dtype(), dtype);
            // Half a unit in the last place, and a little for the order of the sums.
            let limit = if dtype == DType::Float16 { 5.2e-4 } else { 4.0e-3 };
            close(&got, &plain(&a, &b), limit);
        }
    }
    // 4096 ones: a sum kept in bf16 would stop at 256.
    let ones = Tensor::from_slice(&[1, 4096], &vec![bf16::ONE; 4096]).unwrap();
    assert_eq!(floats(&mul(&ones, &ones.transpose(&[1, 0]).unwrap())), [4096.0]);
    let misaligned = Tensor::from_slice(&[2, 5], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0].map(bf16::from_f32)).unwrap();
    let odd = misaligned.slice_axis(1, 1, 1, 4).unwrap().transpose(&[1, 0]).unwrap();
    let row = Tensor::from_slice(&[1, 4], &[1.0f32; 4].map(bf16::from_f32)).unwrap();
    assert_eq!(floats(&mul(&row, &odd)), [14.0, 34.0]);
}

#[test]
fn ranks_and_batches_follow_numpy() {
    let v = Tensor::from_slice(&[2], &[1.0f32, 2.0]).unwrap();
    let m = Tensor::from_slice(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let dot = mul(&v, &v);
    assert_eq!((dot.shape(), floats(&dot)), (&[][..], vec![5.0]));
    assert_eq!(floats(&mul(&v, &m)), [9.0, 12.0, 15.0]);
    assert_eq!(mul(&m.transpose(&[1, 0]).unwrap(), &v).shape(), [3]);
    assert_eq!(mul(&noise(&[5, 1, 2, 4], 1), &noise(&[3, 4, 6], 2)).shape(), [5, 3, 2, 6]);
    assert_eq!(mul(&noise(&[4], 1), &noise(&[3, 4, 6], 2)).shape(), [3, 6]);
    assert_eq!(mul(&noise(&[3, 2, 4], 1), &noise(&[4], 2)).shape(), [3, 2]);
    for (a, b) in [(&[2, 3][..], &[2, 3][..]), (&[], &[2]), (&[2, 3, 4], &[3, 4, 5]), (&[3], &[2])] {
        assert!(addmm(&noise(a, 1), &noise(b, 1), None, 1.0, 1.0).is_err());
    }
    // Batches, broadcast on either side, are the products one by one.
    let (a, b) = (noise(&[3, 1, 5, 4], 5), noise(&[2, 4, 6], 6));
    let whole = mul(&a, &b);
    for i in 0..3 {
        for j in 0..2 {
            let one = mul(&a.select(0, i).unwrap().select(0, 0).unwrap(), &b.select(0, j).unwrap());
            assert_eq!(floats(&whole.select(0, i).unwrap().select(0, j).unwrap()), floats(&one));
        }
    }
}

#[test]
fn nothing_to_multiply() {
    let zero = |shape: &[usize]| Tensor::zeros(DType::Float32, shape).unwrap();
    assert_eq!(floats(&mul(&zero(&[2, 0]), &zero(&[0, 3]))), [0.0; 6]);
    assert_eq!(mul(&zero(&[0, 4]), &zero(&[4, 3])).shape(), [0, 3]);
    assert_eq!(mul(&zero(&[7, 2, 4]), &zero(&[7, 4, 0])).shape(), [7, 2, 0]);
    assert_eq!(mul(&zero(&[0, 2, 4]), &zero(&[0, 4, 3])).shape(), [0, 2, 3]);
    let bias = Tensor::from_slice(&[3], &[1.0f32, 2.0, 3.0]).unwrap();
    let only_bias = addmm(&zero(&[2, 0]), &zero(&[0, 3]), Some(&bias), 1.0, 2.0).unwrap();
    assert_eq!(floats(&only_bias), [2.0, 4.0, 6.0, 2.0, 4.0, 6.0]);
}

#[test]
fn biases_broadcast_and_scale() {
    let (a, b) = (noise(&[3, 4], 1), noise(&[4, 5], 2));
    let product = floats(&mul(&a, &b));
    for shape in [&[][..], &[1], &[5], &[1, 5], &[3, 1], &[3, 5]] {
        let bias = noise(shape, 9);
        let whole = floats(&bias.broadcast_to(&[3, 5]).unwrap());
        let got = floats(&addmm(&a, &b, Some(&bias), 0.5, -2.0).unwrap());
        for ((g, p), c) in got.iter().zip(&product).zip(&whole) {
            assert!((g - (0.5 * p - 2.0 * c)).abs() < 1e-5, "bias of shape {shape:?}");
        }
    }
    assert!(addmm(&a, &b, Some(&noise(&[4], 1)), 1.0, 1.0).is_err());
}

#[test]
fn types_promote_and_integers_are_refused() {
    let ints = Tensor::from_slice(&[1, 2], &[300i32, 1]).unwrap();
    assert!(addmm(&ints, &ints.transpose(&[1, 0]).unwrap(), None, 1.0, 1.0).is_err());
    // 257 is not a bf16: an integer meets one only after rounding to 256.
    let half = Tensor::from_slice(&[2, 1], &[bf16::ONE; 2]).unwrap();
    let got = mul(&Tensor::from_slice(&[1, 2], &[257i32, 0]).unwrap(), &half);
    assert_eq!((got.dtype(), floats(&got)), (DType::BFloat16, vec![256.0]));
    let f = Tensor::from_slice(&[2, 1], &[f16::ONE; 2]).unwrap();
    assert_eq!(mul(&half.transpose(&[1, 0]).unwrap(), &f).dtype(), DType::Float32);
}

#[test]
fn not_finite_values_stay_in_their_row() {
    let a = Tensor::from_slice(&[2, 2], &[f32::INFINITY, 1.0, 1.0, 2.0]).unwrap();
    let b = Tensor::from_slice(&[2, 2], &[1.0f32, 0.0, 3.0, 4.0]).unwrap();
    let got = floats(&mul(&a, &b));
    assert!(got[0] == f32::INFINITY && got[1].is_nan());
    assert_eq!(got[2..], [7.0, 8.0]);
}

fn gathered(a: &Tensor, b: &Tensor, lhs: Option<&[u32]>, rhs: Option<&[u32]>) -> Tensor {
    let index = |i: Option<&[u32]>| i.map(|i| Tensor::from_slice(&[i.len()], i).unwrap());
    gather_mm(a, b, index(lhs).as_ref(), index(rhs).as_ref()).unwrap()
}

#[test]
fn gathered_products_are_the_products_of_the_chosen() {
    let (a, b) = (noise(&[4, 2, 5], 1), noise(&[3, 5, 6], 2));
    let one = |i: usize, j: usize| floats(&mul(&a.select(0, i).unwrap(), &b.select(0, j).unwrap()));
    let check = |got: &Tensor, pairs: &[(usize, usize)]| {
        assert_eq!(got.shape(), [pairs.len(), 2, 6]);
        for (at, &(i, j)) in pairs.iter().enumerate() {
            let (got, want) = (floats(&got.select(0, at).unwrap()), one(i, j));
            assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-5));
        }
    };
    check(&gathered(&a, &b, None, Some(&[2, 0, 2, 1])), &[(0, 2), (1, 0), (2, 2), (3, 1)]);
    check(&gathered(&a, &b, Some(&[3, 3, 0]), None), &[(3, 0), (3, 1), (0, 2)]);
    check(&gathered(&a, &b, Some(&[1, 2]), Some(&[0, 0])), &[(1, 0), (2, 0)]);
    let lhs = Tensor::from_slice(&[2, 1], &[0i32, 1]).unwrap();
    let rhs = Tensor::from_slice(&[3], &[0i64, -1, 1]).unwrap();
    let got = gather_mm(&a, &b, Some(&lhs), Some(&rhs)).unwrap();
    assert_eq!(got.shape(), [2, 3, 2, 6]);
    check(&got.reshape(&[6, 2, 6]).unwrap(), &[(0, 0), (0, 2), (0, 1), (1, 0), (1, 2), (1, 1)]);
    let far = Tensor::from_slice(&[1], &[3u32]).unwrap();
    assert!(gather_mm(&a, &b, None, Some(&far)).is_err());
    let none = Tensor::from_slice::<u32>(&[0], &[]).unwrap();
    assert_eq!(gather_mm(&a, &b, Some(&none), Some(&none)).unwrap().shape(), [0, 2, 6]);
}

#[test]
fn broadcasts_without_end_are_refused() {
    let one = Tensor::scalar(1f32).unwrap();
    let (row, col) = (one.broadcast_to(&[1, 1 << 40]).unwrap(), one.broadcast_to(&[1 << 40, 1]).unwrap());
    let kind = |r: Result<Tensor>| r.unwrap_err().kind();
    assert_eq!(kind(addmm(&row, &col, None, 1.0, 1.0)), crate::ErrorKind::Limit);
    let (a, b) = (one.broadcast_to(&[1 << 20, 1]).unwrap(), one.broadcast_to(&[1, 1 << 20]).unwrap());
    assert_eq!(kind(addmm(&a, &b, Some(&one), 1.0, 1.0)), crate::ErrorKind::Limit);
}

#[test]
fn elements_are_read_where_they_lie() {
    // A window of foreign memory, transposed: were it copied, it would be copied whole.
    let bytes: Vec<u8> = (0..6u16).flat_map(|i| bf16::from_f32(f32::from(i)).to_bits().to_le_bytes()).collect();
    let weight = Tensor::from_source(bf16::DTYPE, &[3, 2], std::sync::Arc::new(bytes), 0..12).unwrap();
    let x = Tensor::from_slice(&[1, 2], &[bf16::ONE, bf16::from_f32(10.0)]).unwrap();
    assert_eq!(floats(&mul(&x, &weight.transpose(&[1, 0]).unwrap())), [10.0, 32.0, 54.0]);
}
