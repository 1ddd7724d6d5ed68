use half::bf16;

use super::*;
use crate::cpu::matmul::addmm;
use crate::cpu::samples::{floats, noise};

/// A quantised tensor with codes of every value.
struct Sample {
    w: Tensor,
    scales: Tensor,
    biases: Option<Tensor>,
    group: i32,
    bits: i32,
    mode: &'static str,
}

impl Sample {
    fn new(lead: &[usize], width: usize, mode: &'static str, bits: i32, group: i32, dtype: DType) -> Self {
        let with = |last: usize| lead.iter().copied().chain([last]).collect::<Vec<_>>();
        let words: usize = with(width * bits as usize / 32).iter().product();
        // No code of E4M3 that is not a number.
        let w: Vec<u32> = (0..words as u32)
            .map(|i| i.wrapping_add(77).wrapping_mul(2654435761) & if mode == "mxfp8" { 0xbfbf_bfbf } else { !0 })
            .collect();
        let groups = with(width / group as usize);
        let count: usize = groups.iter().product();
        let (scales, biases) = match mode {
            "affine" => (cast(&noise(&groups, 5), dtype).unwrap(), Some(cast(&noise(&groups, 6), dtype).unwrap())),
            // Around one in either format of scales.
            "nvfp4" => (Tensor::from_slice(&groups, &(0..count).map(|i| 0x30 + (i % 16) as u8).collect::<Vec<_>>()).unwrap(), None),
            _ => (Tensor::from_slice(&groups, &(0..count).map(|i| 120 + (i % 7) as u8).collect::<Vec<_>>()).unwrap(), None),
        };
        Sample { w: Tensor::from_slice(&with(width * bits as usize / 32), &w).unwrap(), scales, biases, group, bits, mode }
    }

    fn quantized(&self) -> Quantized<'_, Tensor> {
        let Sample { w, scales, biases, .. } = self;
        Quantized { w, scales, biases: biases.as_ref(), group_size: self.group, bits: self.bits, mode: self.mode }
    }

    fn whole(&self) -> Tensor {
        dequantize(self.quantized(), None, Some(DType::Float32)).unwrap()
    }
}

fn close(got: &Tensor, want: &Tensor, limit: f32) {
    assert_eq!(got.shape(), want.shape());
    let (got, want) = (floats(got), floats(want));
    let peak = want.iter().fold(1f32, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((g - w).abs() <= limit * peak, "element {i}: {g} for {w}");
    }
}

const FORMATS: [(&str, i32, i32); 15] = [
    ("affine", 2, 32),
    ("affine", 3, 32),
    ("affine", 4, 16),
    ("affine", 4, 32),
    ("affine", 4, 64),
    ("affine", 4, 128),
    ("affine", 5, 64),
    ("affine", 6, 32),
    ("affine", 6, 16),
    ("affine", 8, 64),
    ("affine", 8, 16),
    ("affine", 2, 16),
    ("nvfp4", 4, 16),
    ("mxfp4", 4, 32),
    ("mxfp8", 8, 32),
];

#[test]
fn dequantized_by_hand() {
    // Nibbles 0 to 15, twice, then a second row of eights.
    let words = [0x7654_3210u32, 0xfedc_ba98, 0x7654_3210, 0xfedc_ba98, 0x8888_8888, 0x8888_8888, 0x8888_8888, 0x8888_8888];
    let w = Tensor::from_slice(&[2, 4], &words).unwrap();
    let scales = Tensor::from_slice(&[2, 1], &[0.5f32, 2.0]).unwrap();
    let biases = Tensor::from_slice(&[2, 1], &[-4.0f32, 1.0]).unwrap();
    let q = Quantized { w: &w, scales: &scales, biases: Some(&biases), group_size: 32, bits: 4, mode: "affine" };
    let got = dequantize(q, None, None).unwrap();
    assert_eq!((got.shape(), got.dtype()), (&[2, 32][..], DType::Float32));
    let got = floats(&got);
    assert!((0..32).all(|i| got[i] == (i % 16) as f32 * 0.5 - 4.0 && got[32 + i] == 17.0));
    // The same nibbles as E2M1, in groups of 16 scaled by 1 and 2, and a scale for all.
    let scales = Tensor::from_slice(&[2, 2], &[0x38u8, 0x40, 0x38, 0x38]).unwrap();
    let q = Quantized { w: &w, scales: &scales, biases: None, group_size: 16, bits: 4, mode: "nvfp4" };
    let got = dequantize(q, None, None).unwrap();
    assert_eq!(got.dtype(), DType::BFloat16);
    let e2m1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
    let got = floats(&got);
    assert!((0..16).all(|i| got[i] == e2m1[i] && got[16 + i] == 2.0 * e2m1[i]));
    let global = Tensor::scalar(0.25f32).unwrap();
    assert_eq!(floats(&dequantize(q, Some(&global), Some(DType::Float16)).unwrap())[17], 0.25);
    // Bytes as E4M3, scaled by 2^1.
    let w = Tensor::from_slice(&[1, 8], &[0x38b8_7e01u32; 8]).unwrap();
    let scales = Tensor::from_slice(&[1, 1], &[128u8]).unwrap();
    let q = Quantized { w: &w, scales: &scales, biases: None, group_size: 32, bits: 8, mode: "mxfp8" };
    assert_eq!(floats(&dequantize(q, None, Some(DType::Float32)).unwrap())[..4], [2f32.powi(-8), 896.0, -2.0, 2.0]);
}

#[test]
fn affine_elements_round_after_each_step_in_the_type_of_the_scales() {
    let sample = Sample::new(&[3], 64, "affine", 8, 32, DType::BFloat16);
    let (scales, biases) = (floats(&sample.scales), floats(sample.biases.as_ref().unwrap()));
    let words = sample.w.values::<u32>().unwrap().into_owned();
    let got = floats(&dequantize(sample.quantized(), None, None).unwrap());
    for (i, got) in got.iter().enumerate() {
        let code = words[i / 4] >> (i % 4 * 8) & 255;
        let scaled = bf16::from_f32(code as f32 * scales[i / 32]).to_f32();
        assert_eq!(*got, bf16::from_f32(scaled + biases[i / 32]).to_f32());
    }
    let wide = dequantize(sample.quantized(), None, Some(DType::Float32)).unwrap();
    assert_eq!((wide.dtype(), floats(&wide)), (DType::Float32, got));
}

#[test]
fn products_equal_those_with_the_dequantized_matrix() {
    for (mode, bits, group) in FORMATS {
        // Rows that end within a vector, within a panel, and beyond one.
        for width in [128, 384, 1152] {
            let sample = Sample::new(&[70], width, mode, bits, group, DType::Float32);
            let whole = sample.whole();
            for rows in [1, 2, 5, 12, 40] {
                let x = noise(&[rows, width], 9);
                let want = addmm(&x, &whole.transpose(&[1, 0]).unwrap(), None, 1.0, 1.0).unwrap();
                close(&quantized_matmul(&x, sample.quantized(), true).unwrap(), &want, 1e-5);
                let x = noise(&[rows, 70], 10);
                let want = addmm(&x, &whole, None, 1.0, 1.0).unwrap();
                close(&quantized_matmul(&x, sample.quantized(), false).unwrap(), &want, 1e-5);
            }
        }
    }
}

#[test]
fn activations_that_are_not_finite_give_what_unpacked_elements_give() {
    for (mode, bits, group) in FORMATS {
        let sample = Sample::new(&[20], 512, mode, bits, group, DType::Float32);
        let whole = sample.whole().transpose(&[1, 0]).unwrap();
        for rows in [1, 3, 9, 40] {
            for wrong in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                let mut x = floats(&noise(&[rows, 512], 11));
                x[(rows - 1) * 512 + 70] = wrong;
                let x = Tensor::from_slice(&[rows, 512], &x).unwrap();
                let want = floats(&addmm(&x, &whole, None, 1.0, 1.0).unwrap());
                let got = floats(&quantized_matmul(&x, sample.quantized(), true).unwrap());
                let kind = |x: f32| (x.is_nan(), x.is_infinite().then_some(x));
                let peak = want.iter().filter(|w| w.is_finite()).fold(1f32, |m, w| m.max(w.abs()));
                let same = got.iter().zip(&want).all(|(g, w)| kind(*g) == kind(*w) && (!g.is_finite() || (g - w).abs() <= 1e-5 * peak));
                assert!(same, "{mode}, {bits} bits, {rows} rows with {wrong}");
                assert!(wrong.is_nan() || want[(rows - 1) * 20..].iter().any(|w| w.is_infinite()), "{mode}: nothing infinite to compare");
            }
        }
    }
}

#[test]
fn many_rows_of_the_matrix_and_ranks_of_the_other_operand() {
    let sample = Sample::new(&[500], 64, "affine", 4, 64, DType::BFloat16);
    let x = cast(&noise(&[2, 3, 64], 1), DType::BFloat16).unwrap();
    let got = quantized_matmul(&x, sample.quantized(), true).unwrap();
    assert_eq!((got.shape(), got.dtype()), (&[2, 3, 500][..], DType::BFloat16));
    let exact: Vec<f32> = {
        // Products are not made with elements rounded to bf16 but with what scale, code and bias say.
        let as_f32 = |t: &Tensor| cast(t, DType::Float32).unwrap();
        let (scales, biases) = (as_f32(&sample.scales), as_f32(sample.biases.as_ref().unwrap()));
        let q = Quantized { scales: &scales, biases: Some(&biases), ..sample.quantized() };
        floats(&addmm(&as_f32(&x), &dequantize(q, None, None).unwrap().transpose(&[1, 0]).unwrap(), None, 1.0, 1.0).unwrap())
    };
    let got = floats(&got);
    assert!(got.iter().zip(&exact).all(|(g, w)| (g - w).abs() <= w.abs() / 200.0 + 1e-4));
    let row = x.select(0, 0).unwrap().select(0, 0).unwrap();
    assert_eq!(quantized_matmul(&row, sample.quantized(), true).unwrap().shape(), [500]);
    assert_eq!(quantized_matmul(&x.slice_axis(1, 0, 1, 0).unwrap(), sample.quantized(), true).unwrap().shape(), [2, 0, 500]);
    // Types meet: f32 activations with bf16 scales, and bytes as scales do not count.
    assert_eq!(quantized_matmul(&cast(&x, DType::Float32).unwrap(), sample.quantized(), true).unwrap().dtype(), DType::Float32);
    let mx = Sample::new(&[8], 64, "mxfp8", 8, 32, DType::Float32);
    assert_eq!(quantized_matmul(&cast(&x, DType::Float16).unwrap(), mx.quantized(), true).unwrap().dtype(), DType::Float16);
}

#[test]
fn batches_of_matrices() {
    let sample = Sample::new(&[3, 20], 64, "affine", 4, 32, DType::Float32);
    let x = noise(&[2, 3, 5, 64], 4);
    let want = addmm(&x, &sample.whole().transpose(&[0, 2, 1]).unwrap(), None, 1.0, 1.0).unwrap();
    close(&quantized_matmul(&x, sample.quantized(), true).unwrap(), &want, 1e-5);
    assert!(quantized_matmul(&noise(&[64], 1), sample.quantized(), true).is_err());
}

#[test]
fn gathered_products() {
    for (mode, bits, group) in [("affine", 4, 32), ("nvfp4", 4, 16)] {
        let sample = Sample::new(&[4, 30], 64, mode, bits, group, DType::Float32);
        let x = noise(&[6, 1, 64], 8);
        let rhs = Tensor::from_slice(&[6], &[3u32, 0, 0, 2, 3, 0]).unwrap();
        let got = gather_qmm(&x, sample.quantized(), None, Some(&rhs), true).unwrap();
        let want = crate::cpu::matmul::gather_mm(&x, &sample.whole().transpose(&[0, 2, 1]).unwrap(), None, Some(&rhs)).unwrap();
        close(&got, &want, 1e-5);
        let turned = noise(&[6, 1, 30], 8);
        let got = gather_qmm(&turned, sample.quantized(), None, Some(&rhs), false).unwrap();
        close(&got, &crate::cpu::matmul::gather_mm(&turned, &sample.whole(), None, Some(&rhs)).unwrap(), 1e-5);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let sample = Sample::new(&[4], 64, "affine", 4, 32, DType::Float32);
    let good = sample.quantized();
    let x = noise(&[1, 64], 1);
    let fails = |q: Quantized<'_, Tensor>| quantized_matmul(&x, q, true).is_err() && dequantize(q, None, None).is_err();
    assert!(!fails(good));
    assert!(fails(Quantized { bits: 7, ..good }) && fails(Quantized { bits: 8, ..good }) && fails(Quantized { group_size: 48, ..good }));
    assert!(
        fails(Quantized { group_size: 64, ..good })
            && fails(Quantized { mode: "affine2", ..good })
            && fails(Quantized { biases: None, ..good })
    );
    assert!(fails(Quantized { mode: "mxfp4", biases: None, ..good }) && fails(Quantized { mode: "mxfp4", ..good }));
    let flat = good.w.reshape(&[32]).unwrap();
    assert!(fails(Quantized { w: &flat, ..good }) && fails(Quantized { w: &x, ..good }));
    assert!(quantized_matmul(&noise(&[1, 65], 1), good, true).is_err() && quantized_matmul(&noise(&[1, 64], 1), good, false).is_err());
    assert!(quantized_matmul(&Tensor::scalar(1f32).unwrap(), good, true).is_err());
    assert!(dequantize(good, Some(&Tensor::scalar(1f32).unwrap()), None).is_err());
    let empty = Sample::new(&[0], 64, "affine", 4, 32, DType::Float32);
    assert_eq!(quantized_matmul(&x, empty.quantized(), true).unwrap().shape(), [1, 0]);
    assert_eq!(dequantize(empty.quantized(), None, None).unwrap().shape(), [0, 64]);
}
