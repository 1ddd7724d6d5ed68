use half::{bf16, f16};

use super::*;
use crate::cpu::samples::floats;

fn grid() -> Tensor {
    Tensor::from_slice(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap()
}

#[test]
fn axes_count_from_either_end_and_none_means_all() {
    let x = grid();
    let sum = |axes: &[i32], keep| {
        let t = reduce(Reduce::Sum, &x, axes, keep).unwrap();
        (t.shape().to_vec(), floats(&t))
    };
    assert_eq!(sum(&[0], false), (vec![3], vec![5.0, 7.0, 9.0]));
    assert_eq!(sum(&[-1], true), (vec![2, 1], vec![6.0, 15.0]));
    assert_eq!(sum(&[], false), (vec![], vec![21.0]));
    assert_eq!(sum(&[1, 0], true), (vec![1, 1], vec![21.0]));
    assert!(reduce(Reduce::Sum, &x, &[2], false).is_err());
    assert!(reduce(Reduce::Sum, &x, &[0, -2], false).is_err());
    let scalar = Tensor::scalar(3.0f32).unwrap();
    assert_eq!(floats(&reduce(Reduce::Sum, &scalar, &[], false).unwrap()), [3.0]);
}

#[test]
fn sums_of_small_integers_widen_and_wide_ones_wrap() {
    let x = Tensor::from_slice(&[3], &[200u8, 200, 200]).unwrap();
    let sum = reduce(Reduce::Sum, &x, &[], false).unwrap();
    assert_eq!((sum.dtype(), sum.item::<u32>().unwrap()), (DType::UInt32, 600));
    let x = Tensor::from_slice(&[2], &[Bool::from(true); 2]).unwrap();
    assert_eq!(reduce(Reduce::Sum, &x, &[], false).unwrap().item::<i32>().unwrap(), 2);
    let x = Tensor::from_slice(&[2], &[i32::MAX, 1]).unwrap();
    assert_eq!(reduce(Reduce::Sum, &x, &[], false).unwrap().item::<i32>().unwrap(), i32::MIN);
    assert_eq!(reduce(Reduce::Prod, &x, &[], false).unwrap().item::<i32>().unwrap(), i32::MAX);
}

#[test]
fn nothing_to_reduce() {
    let x = Tensor::zeros(DType::Float32, &[2, 0]).unwrap();
    assert_eq!(floats(&reduce(Reduce::Sum, &x, &[1], false).unwrap()), [0.0, 0.0]);
    assert_eq!(floats(&reduce(Reduce::Prod, &x, &[1], false).unwrap()), [1.0, 1.0]);
    assert!(floats(&reduce(Reduce::Mean, &x, &[1], false).unwrap()).iter().all(|v| v.is_nan()));
    assert!(reduce(Reduce::Max, &x, &[1], false).is_err());
    assert!(arg_extreme(&x, 1, false, true).is_err());
    assert_eq!(reduce(Reduce::Max, &x, &[0], false).unwrap().shape(), [0]);
    let none = |op| reduce(op, &x, &[], false).unwrap().item::<Bool>().unwrap().get();
    assert_eq!((none(Reduce::Any), none(Reduce::All)), (false, true));
}

#[test]
fn nan_wins_extremes() {
    let x = Tensor::from_slice(&[2, 3], &[1.0f32, f32::NAN, 3.0, 3.0, 1.0, 3.0]).unwrap();
    let max = floats(&reduce(Reduce::Max, &x, &[1], false).unwrap());
    assert!(max[0].is_nan() && max[1] == 3.0);
    let index = |largest| arg_extreme(&x, 1, false, largest).unwrap().values::<u32>().unwrap().into_owned();
    // But not places: NaN is passed over.
    assert_eq!((index(true), index(false)), (vec![2, 0], vec![0, 1]));
    let nothing = Tensor::from_slice(&[2, 2], &[f32::NAN, f32::NAN, f32::NAN, 1.0]).unwrap();
    for (largest, second) in [(true, 1), (false, 1)] {
        assert_eq!(arg_extreme(&nothing, 1, false, largest).unwrap().values::<u32>().unwrap().as_ref(), [0, second]);
    }
    let tall = Tensor::from_slice(&[3000], &vec![0.5f32; 3000]).unwrap();
    assert_eq!(arg_extreme(&tall, -1, true, true).unwrap().values::<u32>().unwrap().as_ref(), [0]);
}

#[test]
fn mean_variance_and_deviation() {
    let x = grid();
    assert_eq!(floats(&reduce(Reduce::Mean, &x, &[0], false).unwrap()), [2.5, 3.5, 4.5]);
    assert_eq!(floats(&variance(&x, &[1], false, 1, false).unwrap()), [1.0, 1.0]);
    assert_eq!(floats(&variance(&x, &[0], true, 0, true).unwrap()), [1.5; 3]);
    assert!(floats(&variance(&x, &[0], false, 2, false).unwrap()).iter().all(|v| *v == f32::INFINITY));
    let ints = Tensor::from_slice(&[2], &[1i32, 2]).unwrap();
    assert_eq!(floats(&reduce(Reduce::Mean, &ints, &[], false).unwrap()), [1.5]);
}

#[test]
fn halves_are_rounded_at_every_step() {
    // What MLX 0.32.2 answers on CPU.
    let tenths = Tensor::from_slice(&[1000], &vec![bf16::from_f32(0.1); 1000]).unwrap();
    let of = |x: &Tensor, op| reduce(op, x, &[], false).unwrap().item::<bf16>().unwrap().to_f32();
    assert_eq!((of(&tenths, Reduce::Sum), of(&tenths, Reduce::Mean)), (32.0, 0.031_982_422));
    let rising: Vec<bf16> = (0..1000).map(|i| bf16::from_f32(bf16::from_f32(i as f32).to_f32() / 1000.0)).collect();
    let rising = Tensor::from_slice(&[1000], &rising).unwrap();
    assert_eq!(variance(&rising, &[], false, 0, false).unwrap().item::<bf16>().unwrap().to_f32(), 0.165_039_06);
    let halves = Tensor::from_slice(&[1000], &vec![f16::from_f32(0.1); 1000]).unwrap();
    let sum = reduce(Reduce::Sum, &halves, &[0], false).unwrap().item::<f16>().unwrap().to_f32();
    let running = cumsum(&halves, 0, false, true).unwrap().values::<f16>().unwrap()[999].to_f32();
    assert_eq!((sum, running), (105.1875, 105.1875));
    // Columns as well, and the last axis of a sum of exponentials alone in single precision.
    let columns = tenths.reshape(&[1000, 1]).unwrap();
    assert_eq!(floats(&cast(&reduce(Reduce::Sum, &columns, &[0], false).unwrap(), DType::Float32).unwrap()), [32.0]);
    let lse = |x: &Tensor, axis| floats(&cast(&reduce(Reduce::LogSumExp, x, &[axis], false).unwrap(), DType::Float32).unwrap())[0];
    assert_eq!(lse(&tenths, 0), 7.0);
    assert!(lse(&columns, 0) < 6.0, "ones beyond 256 are lost");
}

#[test]
fn log_sum_exp_of_infinities_and_of_no_axes() {
    let inf = f32::INFINITY;
    let x = Tensor::from_slice(&[3, 2], &[-inf, -inf, inf, 0.0, 1000.0, 1000.0]).unwrap();
    let got = floats(&reduce(Reduce::LogSumExp, &x, &[1], false).unwrap());
    assert_eq!((got[0], got[1]), (-inf, inf));
    assert!((got[2] - 1_000.693_1_f32).abs() < 1e-3);
    assert_eq!(reduce(Reduce::LogSumExp, &x, &[], false).unwrap().shape(), [3, 2]);
}

#[test]
fn medians() {
    let x = Tensor::from_slice(&[2, 4], &[4.0f32, 1.0, 3.0, 2.0, 9.0, f32::NAN, 7.0, 8.0]).unwrap();
    assert_eq!(floats(&reduce(Reduce::Median, &x, &[1], false).unwrap()), [2.5, 8.5]);
    assert_eq!(floats(&reduce(Reduce::Median, &x, &[0], true).unwrap())[0], 6.5);
}

#[test]
fn cumulative_sums() {
    let x = Tensor::from_slice(&[2, 3], &[1i32, 2, 3, 4, 5, 6]).unwrap();
    let run = |axis, reverse, inclusive| cumsum(&x, axis, reverse, inclusive).unwrap().values::<i32>().unwrap().into_owned();
    assert_eq!(run(1, false, true), [1, 3, 6, 4, 9, 15]);
    assert_eq!(run(-1, true, true), [6, 5, 3, 15, 11, 6]);
    assert_eq!(run(1, false, false), [0, 1, 3, 0, 4, 9]);
    assert_eq!(run(1, true, false), [5, 3, 0, 11, 6, 0]);
    assert_eq!(run(0, false, true), [1, 2, 3, 5, 7, 9]);
    let h = Tensor::from_slice(&[2], &[f16::from_f32(1.5); 2]).unwrap();
    assert_eq!(cumsum(&h, 0, false, true).unwrap().values::<f16>().unwrap()[1].to_f32(), 3.0);
    assert!(cumsum(&Tensor::scalar(1i32).unwrap(), 0, false, true).is_err());
}

#[test]
fn every_layout_gives_the_same_sums() {
    let values: Vec<i32> = (0..2 * 70 * 1500).map(|v| v % 1009).collect();
    let x = Tensor::from_slice(&[2, 70, 1500], &values).unwrap();
    let want: Vec<i32> = (0..2 * 1500).map(|i| (0..70).map(|r| values[i / 1500 * 70 * 1500 + r * 1500 + i % 1500]).sum()).collect();
    // Dense results, dense terms, and neither.
    let direct = reduce(Reduce::Sum, &x, &[1], false).unwrap();
    let turned = x.transpose(&[0, 2, 1]).unwrap().contiguous().unwrap();
    let by_rows = reduce(Reduce::Sum, &turned, &[2], false).unwrap();
    let strided = reduce(Reduce::Sum, &x.transpose(&[2, 1, 0]).unwrap(), &[1], false).unwrap().transpose(&[1, 0]).unwrap();
    for got in [direct, by_rows, strided] {
        assert_eq!(got.values::<i32>().unwrap().as_ref(), want);
    }
}

#[test]
fn types_of_sums_products_and_running_sums() {
    let of = |dtype, op| reduce(op, &Tensor::zeros(dtype, &[3]).unwrap(), &[], false).unwrap().dtype();
    for op in [Reduce::Sum, Reduce::Prod] {
        for (from, to) in [
            (DType::Bool, DType::Int32),
            (DType::Int8, DType::Int32),
            (DType::UInt8, DType::UInt32),
            (DType::Int32, DType::Int32),
            (DType::Int64, DType::Int64),
            (DType::UInt32, DType::UInt32),
            (DType::Float16, DType::Float16),
            (DType::BFloat16, DType::BFloat16),
        ] {
            assert_eq!(of(from, op), to, "{op:?} of {from}");
        }
    }
    let wide = Tensor::from_slice(&[2], &[i64::MAX, 1]).unwrap();
    assert_eq!(reduce(Reduce::Sum, &wide, &[], false).unwrap().item::<i64>().unwrap(), i64::MIN);
    assert_eq!(of(DType::Int64, Reduce::Mean), DType::Float32);
    assert_eq!(of(DType::Int8, Reduce::Max), DType::Int8);
    assert_eq!(of(DType::Int32, Reduce::Median), DType::Float32);
    assert_eq!(of(DType::Int32, Reduce::Any), DType::Bool);
    assert_eq!(of(DType::Int32, Reduce::LogSumExp), DType::Float32);
    let flags = Tensor::from_slice(&[3], &[true, false, true].map(Bool::from)).unwrap();
    assert_eq!(cumsum(&flags, 0, false, true).unwrap().values::<i32>().unwrap().as_ref(), [1, 1, 2]);
    let small = Tensor::from_slice(&[2], &[100i8, 100]).unwrap();
    assert_eq!(cumsum(&small, 0, false, true).unwrap().values::<i8>().unwrap().as_ref(), [100, -56]);
    let few = Tensor::from_slice(&[2], &[1.0f32, 3.0]).unwrap();
    assert_eq!(variance(&few, &[], false, 3, true).unwrap().item::<f32>().unwrap(), f32::INFINITY, "the count stops at nothing");
    assert_eq!(variance(&few, &[], false, -2, false).unwrap().item::<f32>().unwrap(), 0.5);
    let ints = Tensor::from_slice(&[2], &[1u8, 3]).unwrap();
    assert_eq!(variance(&ints, &[], false, 0, false).unwrap().item::<f32>().unwrap(), 1.0);
}
