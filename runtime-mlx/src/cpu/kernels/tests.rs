use half::{bf16, f16};

use super::*;
use crate::cpu::samples::noise;

fn call(name: &str, inputs: Vec<Tensor>, outputs: &[(&[i64], DType)]) -> Result<Vec<Tensor>> {
    run(&Kernel { name, inputs, outputs: outputs.iter().map(|(shape, dtype)| (shape.to_vec(), *dtype)).collect() })
}

fn one(name: &str, inputs: Vec<Tensor>, shape: &[i64], dtype: DType) -> Tensor {
    call(name, inputs, &[(shape, dtype)]).unwrap().remove(0)
}

#[test]
fn gated_delta_steps_by_hand() {
    // One head, two keys, one value: m = (1, 2); then m·g = (½, 1), asked with k = (1, 1) gives 3/2, v = 2, beta = ½:
    // m += k·¼ = (¾, 5/4), asked with q = (4, 0) gives 3.
    let t = |shape: &[usize], v: &[f32]| Tensor::from_slice(shape, v).unwrap();
    let inputs = |state: &[f32]| {
        vec![
            t(&[1, 1, 1, 2], &[4.0, 0.0]),
            t(&[1, 1, 1, 2], &[1.0, 1.0]),
            t(&[1, 1, 1, 1], &[2.0]),
            t(&[1, 1, 1], &[0.5]),
            t(&[1, 1, 1], &[0.5]),
            t(&[1, 1, 1, 2], state),
            Tensor::scalar(1i32).unwrap(),
        ]
    };
    let outputs: [(&[i64], DType); 2] = [(&[1, 1, 1, 1], DType::Float32), (&[1, 1, 1, 2], DType::BFloat16)];
    let results = call("gated_delta_step", inputs(&[1.0, 2.0]), &outputs).unwrap();
    assert_eq!(floats(&results[0]).unwrap(), [3.0]);
    assert_eq!((results[1].dtype(), floats(&results[1]).unwrap()), (DType::BFloat16, vec![0.75, 1.25]));
    assert!(call("gated_delta_step", inputs(&[1.0, 2.0]), &[(&[1, 1, 1, 2], DType::Float32), (&[1, 1, 1, 2], DType::Float32)]).is_err());
}

#[test]
fn gated_delta_steps_of_many_heads_are_those_of_each() {
    let (b, t, kh, h, dk, dv) = (2, 5, 2, 4, 32, 8);
    let inputs = |b: usize, kh: usize, h: usize| {
        let gate = |x: Tensor| crate::cpu::unary::unary(crate::engine::Unary::Sigmoid, &x).unwrap();
        vec![
            noise(&[b, t, kh, dk], 1),
            noise(&[b, t, kh, dk], 2),
            noise(&[b, t, h, dv], 3),
            gate(noise(&[b, t, h], 4)),
            gate(noise(&[b, t, h], 5)),
            noise(&[b, h, dv, dk], 6),
            Tensor::scalar(t as i32).unwrap(),
        ]
    };
    let whole = inputs(b, kh, h);
    let shapes: [(&[i64], DType); 2] = [(&[2, 5, 4, 8], DType::Float32), (&[2, 4, 8, 32], DType::Float32)];
    let results = call("gated_delta_step", whole.clone(), &shapes).unwrap();
    for n in 0..b {
        for head in 0..h {
            let part = |x: &Tensor, axis: usize, index: usize| x.slice_axis(0, n, 1, 1).unwrap().slice_axis(axis, index, 1, 1).unwrap();
            let key = head / (h / kh);
            let one = vec![
                part(&whole[0], 2, key),
                part(&whole[1], 2, key),
                part(&whole[2], 2, head),
                part(&whole[3], 2, head),
                part(&whole[4], 2, head),
                part(&whole[5], 1, head),
                whole[6].clone(),
            ];
            let shapes: [(&[i64], DType); 2] = [(&[1, 5, 1, 8], DType::Float32), (&[1, 1, 8, 32], DType::Float32)];
            let alone = call("gated_delta_step", one, &shapes).unwrap();
            assert_eq!(floats(&alone[0]).unwrap(), floats(&part(&results[0], 2, head)).unwrap());
            assert_eq!(floats(&alone[1]).unwrap(), floats(&part(&results[1], 1, head)).unwrap());
        }
    }
}

#[test]
fn turbo_quantisation() {
    let x = Tensor::from_slice(&[2, 2], &[3.0f32, 4.0, 0.0, -2.0]).unwrap();
    let norms = one("tq_norm", vec![x.clone()], &[2, 1], DType::Float16);
    assert_eq!((norms.shape(), norms.values::<f16>().unwrap().as_ref()), (&[2, 1][..], &[5.0f32, 2.0].map(f16::from_f32)[..]));
    let boundaries = Tensor::from_slice(&[3], &[-1.0f32, 0.0, 3.5]).unwrap();
    let packed = one("tq4_compress", vec![x, boundaries], &[2, 1], DType::UInt8);
    assert_eq!(packed.values::<u8>().unwrap().as_ref(), [0x23, 0x10]);
    let centroids = Tensor::from_slice(&[16], &(0..16).map(|i| bf16::from_f32(i as f32 / 2.0)).collect::<Vec<_>>()).unwrap();
    let back = one("tq_dequant", vec![packed.clone(), norms.clone(), centroids.clone()], &[2, 2], DType::BFloat16);
    assert_eq!(floats(&back).unwrap(), [5.0, 7.5, 1.0, 0.0]);
    assert!(call("tq_dequant", vec![packed, norms, centroids], &[(&[2, 3], DType::BFloat16)]).is_err());
}

/// A super-block whose scales are all `scale` and minima all `minimum` (below 16), with `d` 1 and `dmin` 2.
fn head(scale: u8, minimum: u8) -> Vec<u8> {
    let mut head = [f16::ONE, f16::from_f32(2.0)].map(|h| h.to_le_bytes()).concat();
    head.extend([scale; 4]);
    head.extend([minimum; 4]);
    head.extend([scale | minimum << 4; 4]);
    head
}

#[test]
fn gguf_blocks_by_hand() {
    let embed = |name: &str, bytes: &[u8]| {
        let weight = Tensor::from_slice(&[1, bytes.len()], bytes).unwrap();
        let rows = Tensor::from_slice(&[1], &[0i64]).unwrap();
        floats(&one(name, vec![weight, rows], &[1, 256], DType::Float32)).unwrap()
    };
    // Low halves count up, high halves are 15.
    let nibbles: Vec<u8> = (0..128u8).map(|i| (i % 16) | 0xf0).collect();
    let q4 = embed("gguf_q4k_embedding", &[head(3, 5), nibbles.clone()].concat());
    let code = |i: usize| if i % 64 < 32 { (i % 16) as f32 } else { 15.0 };
    assert!((0..256).all(|i| q4[i] == 3.0 * code(i) - 10.0));
    // The fifth bit is set in runs 0, 2, 4, 6 of even places.
    let fifth: Vec<u8> = (0..32).map(|i| if i % 2 == 0 { 0x55 } else { 0 }).collect();
    let q5 = embed("gguf_q5k_embedding", &[head(3, 5), fifth, nibbles.clone()].concat());
    let high = |i: usize| if (i / 32).is_multiple_of(2) && i.is_multiple_of(2) { 16.0 } else { 0.0 };
    assert!((0..256).all(|i| q5[i] == 3.0 * (code(i) + high(i)) - 10.0));
    // Six bits: two more from the upper plane, here the number of the quarter; scales count up from -8.
    let scales: Vec<u8> = (0..16).map(|i| (i as i8 - 8) as u8).collect();
    let q6 = embed("gguf_q6k_embedding", &[nibbles, vec![0b11_10_01_00; 64], scales, f16::from_f32(0.5).to_le_bytes().to_vec()].concat());
    let six = |i: usize| {
        let quarter = i % 128 / 32;
        (if quarter < 2 { (i % 16) as f32 } else { 15.0 }) + 16.0 * quarter as f32 - 32.0
    };
    assert!((0..256).all(|i| q6[i] == 0.5 * ((i / 16) as f32 - 8.0) * six(i)));
}

#[test]
fn scales_and_minima_of_the_later_runs_take_their_top_bits_from_the_earlier() {
    let mut bytes = head(0, 0);
    // Run 1: scale 63; run 5: scale 0b10_0001 = 33, minimum 0b01_0010 = 18.
    (bytes[4 + 1], bytes[4 + 5], bytes[4 + 9]) = (0b1011_1111, 0b0100_0000, 0b0010_0001);
    bytes.extend([0x11; 128]);
    let weight = Tensor::from_slice(&[1, 144], &bytes).unwrap();
    let rows = Tensor::from_slice(&[1, 1], &[0i32]).unwrap();
    let got = floats(&one("gguf_q4k_embedding", vec![weight, rows], &[1, 1, 256], DType::Float32)).unwrap();
    assert_eq!((got[32], got[160], got[0]), (63.0, 33.0 - 36.0, 0.0));
}

#[test]
fn gguf_products_are_those_with_the_elements() {
    for (name, bytes) in [("q4k", 144), ("q5k", 176), ("q6k", 210)] {
        // Any bytes are codes; only the halves of the head must be numbers.
        let mut blob: Vec<u8> = (0..20 * 3 * bytes).map(|i: usize| (i * 7919 % 251) as u8).collect();
        for block in blob.chunks_exact_mut(bytes) {
            let one = f16::from_f32(0.01).to_le_bytes();
            let at = if name == "q6k" { 208 } else { 0 };
            block[at..at + 2].copy_from_slice(&one);
            if name != "q6k" {
                block[2..4].copy_from_slice(&one);
            }
        }
        let weight = Tensor::from_slice(&[20, 3 * bytes], &blob).unwrap();
        let all = Tensor::from_slice(&[20], &(0..20).collect::<Vec<i32>>()).unwrap();
        let elements = one(&format!("gguf_{name}_embedding"), vec![weight.clone(), all], &[20, 768], DType::Float32);
        let bias = noise(&[20], 3);
        for (rows, operation) in [(1, "matvec"), (30, "matmul")] {
            let x = noise(&[1, rows, 768], 2);
            let want = crate::cpu::matmul::addmm(&x, &elements.transpose(&[1, 0]).unwrap(), Some(&bias), 1.0, 1.0).unwrap();
            let shape = [1, rows as i64, 20];
            let got = one(&format!("gguf_{name}_{operation}"), vec![x, weight.clone(), bias.clone()], &shape, DType::Float32);
            let (got, want) = (floats(&got).unwrap(), floats(&want).unwrap());
            assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 1e-4 * w.abs().max(10.0)));
        }
        let wrong = call(&format!("gguf_{name}_matvec"), vec![noise(&[1, 767], 1), weight], &[(&[1, 20], DType::Float32)]);
        assert!(wrong.is_err());
    }
}

#[test]
fn unknown_kernels_are_named() {
    let error = call("vadd", vec![], &[]).unwrap_err();
    assert!(error.kind() == crate::ErrorKind::Unsupported && error.to_string().contains("vadd"));
    assert!(call("gguf_q3k_matvec", vec![], &[]).is_err() && call("tq_norm", vec![], &[]).is_err());
}
