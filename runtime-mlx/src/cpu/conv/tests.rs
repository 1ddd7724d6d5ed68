use etx_ir::DType;
use half::bf16;

use super::*;
use crate::cpu::samples::{floats, noise};

fn geometry(stride: &[i64], padding: &[i64], dilation: &[i64], groups: i64) -> Conv {
    Conv { stride: stride.to_vec(), padding: padding.to_vec(), dilation: dilation.to_vec(), groups }
}

/// Every (input, tap, output) that meets along one axis.
fn meetings(input: usize, kernel: usize, output: usize, stride: i64, padding: i64, dilation: i64, transposed: bool) -> Vec<[usize; 3]> {
    let mut all = Vec::new();
    for i in 0..input {
        for k in 0..kernel {
            for o in 0..output {
                let (i_, k_, o_) = (i as i64, k as i64, o as i64);
                let meet =
                    if transposed { o_ + padding == i_ * stride + k_ * dilation } else { i_ + padding == o_ * stride + k_ * dilation };
                if meet {
                    all.push([i, k, o]);
                }
            }
        }
    }
    all
}

/// The convolution by its definition.
fn plain(x: &Tensor, w: &Tensor, g: &Conv, result: &[usize], transposed: bool) -> Vec<f64> {
    let rank = x.rank() - 2;
    let (vx, vw) = (floats(x), floats(w));
    let (channels, depth, out_channels) = (x.shape()[rank + 1], w.shape()[rank + 1], w.shape()[0]);
    let mut terms = vec![[0usize; 3]];
    for axis in 0..rank {
        let (input, kernel, output) = (x.shape()[axis + 1], w.shape()[axis + 1], result[axis + 1]);
        let along = meetings(input, kernel, output, g.stride[axis], g.padding[axis], g.dilation[axis], transposed);
        let step =
            |[i, k, o]: [usize; 3]| along.iter().map(move |m| [i * input + m[0], k * kernel + m[1], o * output + m[2]]).collect::<Vec<_>>();
        terms = terms.into_iter().flat_map(step).collect();
    }
    let points = |shape: &[usize]| shape[1..=rank].iter().product::<usize>();
    let (inputs, taps, outputs) = (points(x.shape()), points(w.shape()), points(result));
    let mut out = vec![0f64; result.iter().product()];
    for n in 0..x.shape()[0] {
        for &[i, k, o] in &terms {
            for co in 0..out_channels {
                let first = co / (out_channels / g.groups as usize) * depth;
                for ci in 0..depth {
                    let (a, b) = (vx[(n * inputs + i) * channels + first + ci], vw[(co * taps + k) * depth + ci]);
                    out[(n * outputs + o) * out_channels + co] += f64::from(a) * f64::from(b);
                }
            }
        }
    }
    out
}

fn close(got: &Tensor, want: &[f64], limit: f64) {
    let got = floats(got);
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*g) - w).abs() <= limit * w.abs().max(1.0), "element {i}: {g} for {w}");
    }
}

#[test]
fn one_axis_by_hand() {
    let x = Tensor::from_slice(&[1, 4, 1], &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
    let w = Tensor::from_slice(&[1, 3, 1], &[1.0f32, 10.0, 100.0]).unwrap();
    let run = |stride, padding, dilation| floats(&conv(&x, &w, &geometry(&[stride], &[padding], &[dilation], 1)).unwrap());
    assert_eq!(run(1, 0, 1), [321.0, 432.0]);
    assert_eq!(run(2, 1, 1), [210.0, 432.0]);
    assert_eq!(run(1, 1, 2), [420.0, 31.0]);
    let back = |stride, padding, extra| floats(&conv_transpose(&x, &w, &geometry(&[stride], &[padding], &[1], 1), &[extra]).unwrap());
    assert_eq!(back(1, 0, 0), [1.0, 12.0, 123.0, 234.0, 340.0, 400.0]);
    assert_eq!(back(2, 0, 0), [1.0, 10.0, 102.0, 20.0, 203.0, 30.0, 304.0, 40.0, 400.0]);
    assert_eq!(back(2, 1, 1), [10.0, 102.0, 20.0, 203.0, 30.0, 304.0, 40.0, 400.0]);
    assert_eq!(back(4, 0, 2)[3..7], [0.0, 2.0, 20.0, 200.0]);
}

#[test]
fn every_geometry_equals_the_definition() {
    // Shape of the image, of the kernel, stride, padding, dilation, groups, output padding.
    type Case<'a> = (&'a [usize], &'a [usize], &'a [i64], &'a [i64], &'a [i64], i64, &'a [i64]);
    let cases: &[Case<'_>] = &[
        (&[2, 9, 6], &[4, 3, 6], &[1], &[1], &[1], 1, &[0]),
        (&[1, 20, 6], &[9, 4, 2], &[3], &[2], &[2], 3, &[1]),
        (&[2, 11, 8], &[8, 3, 1], &[1], &[1], &[1], 8, &[0]),
        (&[1, 11, 4], &[12, 3, 1], &[2], &[1], &[1], 4, &[1]),
        (&[2, 7, 8, 3], &[5, 3, 3, 3], &[1, 1], &[1, 1], &[1, 1], 1, &[0, 0]),
        (&[1, 9, 12, 4], &[16, 2, 3, 4], &[2, 3], &[0, 2], &[2, 1], 1, &[1, 2]),
        (&[2, 5, 6, 8], &[24, 1, 1, 8], &[1, 1], &[0, 0], &[1, 1], 1, &[0, 0]),
        (&[1, 5, 6, 8], &[24, 1, 1, 4], &[2, 1], &[1, 0], &[1, 1], 2, &[1, 0]),
        (&[1, 40, 30, 16], &[32, 3, 3, 16], &[1, 1], &[1, 1], &[1, 1], 1, &[0, 0]),
        (&[1, 5, 6, 7, 3], &[4, 3, 2, 3, 3], &[2, 1, 2], &[1, 0, 1], &[1, 2, 1], 1, &[1, 0, 1]),
        (&[1, 4, 4, 4, 6], &[6, 2, 2, 2, 6], &[2, 2, 2], &[0, 0, 0], &[1, 1, 1], 1, &[0, 0, 0]),
        (&[1, 50, 40, 8], &[8, 3, 3, 1], &[1, 1], &[1, 1], &[1, 1], 8, &[0, 0]),
    ];
    for (i, &(shape, kernel, stride, padding, dilation, groups, extra)) in cases.iter().enumerate() {
        let (x, w) = (noise(shape, i as u32), noise(kernel, 99 + i as u32));
        let g = geometry(stride, padding, dilation, groups);
        let forward = conv(&x, &w, &g).unwrap();
        close(&forward, &plain(&x, &w, &g, forward.shape(), false), 2e-5);
        let backward = conv_transpose(&x, &w, &g, extra).unwrap();
        close(&backward, &plain(&x, &w, &g, backward.shape(), true), 2e-5);
    }
}

#[test]
fn layouts_and_types() {
    let g = geometry(&[1, 1], &[1, 1], &[1, 1], 1);
    // As the lowering writes it: channels first, viewed as channels last.
    let x = noise(&[2, 3, 6, 5], 1).transpose(&[0, 2, 3, 1]).unwrap();
    let w = noise(&[4, 3, 3, 3], 2).transpose(&[0, 2, 3, 1]).unwrap();
    let got = conv(&x, &w, &g).unwrap();
    assert_eq!(floats(&got), floats(&conv(&x.contiguous().unwrap(), &w.contiguous().unwrap(), &g).unwrap()));
    let halves = conv(&cast(&x, DType::BFloat16).unwrap(), &cast(&w, DType::BFloat16).unwrap(), &g).unwrap();
    assert_eq!(halves.dtype(), DType::BFloat16);
    close(&halves, &floats(&got).iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), 3e-2);
    // 300 ones: a sum kept in bf16 would stop at 256.
    let ones = |shape: &[usize]| Tensor::from_slice(shape, &vec![bf16::ONE; 300]).unwrap();
    let sum = conv(&ones(&[1, 1, 300]), &ones(&[1, 1, 300]), &geometry(&[1], &[0], &[1], 1)).unwrap();
    assert_eq!(floats(&sum), [300.0]);
    assert_eq!(conv(&x, &cast(&w, DType::Float16).unwrap(), &g).unwrap().dtype(), DType::Float32);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (x, w) = (noise(&[1, 5, 4], 1), noise(&[6, 3, 4], 2));
    let ok = |x: &Tensor, w: &Tensor, g: Conv| conv(x, w, &g).is_ok();
    assert!(ok(&x, &w, geometry(&[1], &[0], &[1], 1)));
    assert!(!ok(&x, &w, geometry(&[0], &[0], &[1], 1)) && !ok(&x, &w, geometry(&[1], &[-1], &[1], 1)));
    assert!(!ok(&x, &w, geometry(&[1], &[0], &[3], 1)) && !ok(&x, &w, geometry(&[1], &[0], &[1], 2)));
    assert!(!ok(&x, &w, geometry(&[1], &[0], &[1], 0)) && !ok(&x, &w, geometry(&[1, 1], &[0, 0], &[1, 1], 1)));
    assert!(!ok(&x.select(0, 0).unwrap(), &w, geometry(&[1], &[0], &[1], 1)));
    assert!(!ok(&cast(&x, DType::Int32).unwrap(), &cast(&w, DType::Int32).unwrap(), geometry(&[1], &[0], &[1], 1)));
    assert!(!ok(&noise(&[1, 0, 4], 1), &w, geometry(&[1], &[5], &[1], 1)));
    assert_eq!(conv(&noise(&[0, 5, 4], 1), &w, &geometry(&[1], &[0], &[1], 1)).unwrap().shape(), [0, 3, 6]);
    // No channels: sums of nothing.
    let none = conv(&noise(&[1, 5, 0], 1), &noise(&[2, 3, 0], 1), &geometry(&[1], &[0], &[1], 1)).unwrap();
    assert_eq!(floats(&none), [0.0; 6]);
    // As MLX has it: groups in one and two dimensions only.
    let volume = geometry(&[1; 3], &[0; 3], &[1; 3], 2);
    let (x3, w3) = (noise(&[1, 2, 2, 2, 4], 1), noise(&[4, 1, 1, 1, 2], 2));
    assert!(!ok(&x3, &w3, volume.clone()) && conv_transpose(&x3, &w3, &volume, &[0; 3]).is_err());
    let huge = geometry(&[i64::from(i32::MAX)], &[0], &[1], 1);
    assert!(conv_transpose(&noise(&[1, 5, 1], 1), &noise(&[1, 3, 1], 1), &huge, &[0]).is_err());
}
