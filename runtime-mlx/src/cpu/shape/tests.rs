use super::*;
use crate::tensor::Elem;

fn iota(shape: &[usize]) -> Tensor {
    Tensor::from_slice(shape, &(0..checked_numel(shape).unwrap() as i32).collect::<Vec<_>>()).unwrap()
}

fn list<T: Elem>(t: &Tensor) -> Vec<T> {
    t.values::<T>().unwrap().into_owned()
}

fn ints(t: &Tensor) -> Vec<i32> {
    list(t)
}

#[test]
fn reshape_infers_one_length() {
    let x = iota(&[2, 6]);
    assert_eq!(reshape(&x, &[3, -1]).unwrap().shape(), [3, 4]);
    assert_eq!(reshape(&iota(&[1]), &[]).unwrap().rank(), 0);
    assert_eq!(reshape(&iota(&[0, 3]), &[-1, 3]).unwrap().shape(), [0, 3]);
    assert!(reshape(&iota(&[0, 3]), &[0, -1]).is_err(), "nothing tells the open length");
    assert!(reshape(&x, &[-1, -1]).is_err());
    assert!(reshape(&x, &[5, -1]).is_err());
    assert!(reshape(&x, &[-2, -6]).is_err());
    assert!(reshape(&iota(&[0]), &[i64::MAX, i64::MAX, 0, -1]).is_err());
}

#[test]
fn squeeze_skips_what_it_cannot_drop() {
    let x = iota(&[1, 2, 1]);
    assert_eq!(squeeze(&x, &[]).unwrap().shape(), [2]);
    assert_eq!(squeeze(&x, &[-1, 1, 7]).unwrap().shape(), [1, 2]);
}

#[test]
fn broadcast_keeps_lengths_given_as_minus_one() {
    let x = iota(&[3, 1]);
    assert_eq!(broadcast_to(&x, &[2, -1, 4]).unwrap().shape(), [2, 3, 4]);
    assert!(broadcast_to(&x, &[-1, 3, 1]).is_err());
    assert!(broadcast_to(&x, &[3]).is_err());
}

#[test]
fn tile_and_repeat() {
    let x = iota(&[2]);
    assert_eq!(ints(&tile(&x, &[2, 2]).unwrap()), [0, 1, 0, 1, 0, 1, 0, 1]);
    let y = tile(&iota(&[2, 2]), &[2]).unwrap();
    assert_eq!((y.shape(), ints(&y)), (&[2, 4][..], vec![0, 1, 0, 1, 2, 3, 2, 3]));
    assert_eq!(tile(&x, &[0]).unwrap().shape(), [0]);
    assert!(tile(&x, &[-1]).is_err());
    assert_eq!(ints(&repeat(&iota(&[2, 2]), 2, -1).unwrap()), [0, 0, 1, 1, 2, 2, 3, 3]);
    assert_eq!(ints(&repeat(&iota(&[2, 2]), 2, 0).unwrap()), [0, 1, 0, 1, 2, 3, 2, 3]);
    assert!(repeat(&x, 1 << 62, 0).is_err());
}

#[test]
fn joining_promotes_and_checks() {
    let a = iota(&[1, 2]);
    let b = Tensor::from_slice(&[1, 2], &[0.5f32, 1.5]).unwrap();
    let joined = concatenate(&[a.clone(), b.clone()], 0).unwrap();
    assert_eq!((joined.shape(), list::<f32>(&joined)), (&[2, 2][..], vec![0.0, 1.0, 0.5, 1.5]));
    assert_eq!(concatenate(&[a.clone(), iota(&[1, 0])], 1).unwrap().shape(), [1, 2]);
    assert!(concatenate(&[a.clone(), iota(&[2, 3])], 0).is_err());
    assert!(concatenate(&[], 0).is_err());
    let stacked = stack(&[a.clone(), a.clone()], -1).unwrap();
    assert_eq!((stacked.shape(), ints(&stacked)), (&[1, 2, 2][..], vec![0, 0, 1, 1]));
    assert_eq!(stack(&[Tensor::scalar(1i32).unwrap(), Tensor::scalar(2i32).unwrap()], 0).unwrap().shape(), [2]);
}

#[test]
fn split_by_chunk_or_by_sizes() {
    let x = iota(&[5]);
    let parts = |sizes: &[i64], n| split(&x, sizes, 0, n).unwrap().iter().map(ints).collect::<Vec<_>>();
    assert_eq!(parts(&[2], 3), [vec![0, 1], vec![2, 3], vec![4]]);
    assert_eq!(parts(&[1, 3, 1], 3), [vec![0], vec![1, 2, 3], vec![4]]);
    assert!(split(&x, &[2], 0, 2).is_err());
    assert!(split(&x, &[0], 0, 1).is_err());
}

#[test]
fn pad_by_value_or_edge() {
    let x = iota(&[1, 2]);
    let p = pad(&x, &[1, 0, 0, 1], "constant", 7.9).unwrap();
    assert_eq!((p.shape(), ints(&p)), (&[2, 3][..], vec![7, 7, 7, 0, 1, 7]));
    let e = pad(&x, &[0, 1, 2, 1], "edge", 0.0).unwrap();
    assert_eq!((e.shape(), ints(&e)), (&[2, 5][..], vec![0, 0, 0, 1, 1, 0, 0, 0, 1, 1]));
    assert!(pad(&x, &[0, -1, 0, 0], "constant", 0.0).is_err());
    assert!(pad(&x, &[0, 0], "constant", 0.0).is_err());
    assert!(pad(&x, &[0, 0, 0, 0], "reflect", 0.0).is_err());
}

#[test]
fn roll_and_flip() {
    let x = iota(&[2, 3]);
    assert_eq!(ints(&roll(&x, &[1, -1], &[1, 0]).unwrap()), [5, 3, 4, 2, 0, 1]);
    assert_eq!(ints(&roll(&x, &[7], &[-1]).unwrap()), [2, 0, 1, 5, 3, 4]);
    assert_eq!(ints(&flip(&x, &[0, 1]).unwrap()), [5, 4, 3, 2, 1, 0]);
    assert_eq!(flip(&iota(&[0]), &[0]).unwrap().shape(), [0]);
}

#[test]
fn slices_follow_numpy() {
    let x = iota(&[5]);
    let s = |start, stop, step| ints(&slice(&x, 0, start, stop, step).unwrap());
    assert_eq!(s(1, i64::from(i32::MAX), 2), [1, 3]);
    assert_eq!(s(-2, 5, 1), [3, 4]);
    assert_eq!(s(-9, -4, 1), [0]);
    assert_eq!(s(3, 1, 1), Vec::<i32>::new());
    // A stop of -(n + 1) means "to the very beginning" when walking backwards.
    assert_eq!(s(4, -6, -1), [4, 3, 2, 1, 0]);
    assert_eq!(s(9, 0, -2), [4, 2]);
    assert!(slice(&x, 0, 0, 1, 0).is_err());
    assert!(slice(&x, 1, 0, 1, 1).is_err());
    assert!(slice(&Tensor::scalar(1i32).unwrap(), 0, 0, 1, 1).is_err());
}

#[test]
fn updates_of_an_unshared_tensor_happen_in_place() {
    let mut x = iota(&[4]).to_owned_copy().unwrap();
    let address = x.storage_elements::<i32>().as_ptr();
    slice_update(&mut x, &Tensor::from_slice(&[2], &[8.9f32, 9.1]).unwrap(), 0, (-3, 4), 2).unwrap();
    assert_eq!((ints(&x), x.storage_elements::<i32>().as_ptr()), (vec![0, 8, 2, 9], address));
    slice_update(&mut x, &Tensor::scalar(1i32).unwrap(), 0, (2, 2), 1).unwrap();
    assert_eq!(ints(&x), [0, 8, 2, 9]);
    let at = Tensor::from_slice(&[3], &[1i64, 2, -2]).unwrap();
    index_copy(&mut x, &Tensor::from_slice(&[3], &[5i32, 6, 7]).unwrap(), &at, 0).unwrap();
    assert_eq!((ints(&x), x.storage_elements::<i32>().as_ptr()), (vec![0, 5, 7, 9], address));
    assert!(index_copy(&mut x, &iota(&[1]), &Tensor::from_slice(&[1], &[4i64]).unwrap(), 0).is_err());
    assert!(index_copy(&mut x, &iota(&[1]), &iota(&[1]), 0).is_err());
    assert!(slice_update(&mut x, &iota(&[3]), 0, (0, 2), 1).is_err());
    assert_eq!(ints(&x), [0, 5, 7, 9]);
}

#[test]
fn strided_views_overlap_but_stay_inside() {
    let x = iota(&[2, 3]);
    let windows = as_strided(&x, &[3, 2], &[1, 2], 1).unwrap();
    assert_eq!(ints(&windows), [1, 3, 2, 4, 3, 5]);
    let t = as_strided(&x.transpose(&[1, 0]).unwrap(), &[3], &[1], 0).unwrap();
    assert_eq!(ints(&t), [0, 3, 1]);
    assert!(as_strided(&x, &[3, 2], &[1, 2], 2).is_err());
    assert!(as_strided(&x, &[2], &[-1], 0).is_err());
    assert!(as_strided(&x, &[2, 2], &[i64::MAX, i64::MAX], 0).is_err());
}

#[test]
fn ranges_and_constants() {
    assert_eq!(ints(&arange(1, 6, 2, DType::Int32).unwrap()), [1, 3, 5]);
    assert_eq!(ints(&arange(3, 0, -2, DType::Int32).unwrap()), [3, 1]);
    assert_eq!(list::<f32>(&arange(0, 3, 1, DType::Float32).unwrap()), [0.0, 1.0, 2.0]);
    // MLX adds the step up in the element type: bf16 has no 257.
    let stuck: Vec<f32> = list::<half::bf16>(&arange(254, 260, 1, DType::BFloat16).unwrap()).iter().map(|x| x.to_f32()).collect();
    assert_eq!(stuck, [254.0, 255.0, 256.0, 256.0, 256.0, 256.0]);
    assert_eq!(arange(0, 0, 1, DType::Int64).unwrap().shape(), [0]);
    assert!(arange(0, 1, 0, DType::Int32).is_err());
    assert!(arange(i64::MIN, i64::MAX, 1, DType::Int32).is_err());
    assert_eq!(list::<i64>(&full(&[2], 3.7, DType::Int64).unwrap()), [3, 3]);
    assert_eq!(full(&[0], 1.0, DType::BFloat16).unwrap().numel(), 0);
}

#[test]
fn triangles() {
    let x = full(&[1, 2, 3], 1.0, DType::Int32).unwrap();
    assert_eq!(ints(&triangle(&x, 0, false).unwrap()), [1, 0, 0, 1, 1, 0]);
    assert_eq!(ints(&triangle(&x, 1, true).unwrap()), [0, 1, 1, 0, 0, 1]);
    assert_eq!(ints(&triangle(&x, -9, false).unwrap()), [0; 6]);
    assert!(triangle(&iota(&[3]), 0, true).is_err());
}

#[test]
fn axes_of_views() {
    let x = iota(&[2, 3]);
    assert_eq!(x.expand_dims(-1).unwrap().shape(), [2, 3, 1]);
    assert_eq!(x.expand_dims(-3).unwrap().shape(), [1, 2, 3]);
    assert!(x.expand_dims(-4).is_err() && x.expand_dims(3).is_err());
    assert_eq!(ints(&x.transpose(&[-1, 0]).unwrap()), [0, 3, 1, 4, 2, 5]);
    assert!(x.transpose(&[0]).is_err() && x.transpose(&[0, -2]).is_err());
}

#[test]
fn pieces_beyond_the_last_size_and_mixed_stacks() {
    let x = iota(&[5]);
    // The last size is not looked at: the rest goes into the last piece.
    let parts = split(&x, &[1, 2, 0], 0, 3).unwrap();
    assert_eq!(parts.iter().map(ints).collect::<Vec<_>>(), [vec![0], vec![1, 2], vec![3, 4]]);
    let mixed = stack(&[iota(&[2]), Tensor::from_slice(&[2], &[true, false].map(crate::tensor::Bool::from)).unwrap()], 0).unwrap();
    assert_eq!(ints(&mixed), [0, 1, 1, 0]);
    assert!(stack(&[iota(&[2]), iota(&[3])], 0).is_err());
}

#[test]
fn updates_broadcast_wrap_and_repeat() {
    let mut x = iota(&[2, 3]).to_owned_copy().unwrap();
    slice_update(&mut x, &Tensor::scalar(9i32).unwrap(), 1, (-2, 99), 1).unwrap();
    assert_eq!(ints(&x), [0, 9, 9, 3, 9, 9]);
    slice_update(&mut x, &Tensor::from_slice(&[3], &[1.5f32, 2.5, 3.5]).unwrap(), 0, (0, 2), 1).unwrap();
    assert_eq!(ints(&x), [1, 2, 3, 1, 2, 3]);
    slice_update(&mut x, &iota(&[5, 5]), 0, (1, -1), 1).unwrap();
    assert!(slice_update(&mut x, &iota(&[3]), 0, (0, 2), 0).is_err());
    let at = Tensor::from_slice(&[3], &[1i64, 0, 1]).unwrap();
    assert!(index_copy(&mut x, &iota(&[1, 3]), &at, 0).is_err() && index_copy(&mut x, &iota(&[3]), &at, 0).is_err());
    assert!(slice_update(&mut x, &iota(&[3, 3]), 0, (2, 1), 1).is_err(), "three rows into none");
    index_copy(&mut x, &Tensor::from_slice(&[3, 1], &[7i32, 8, 9]).unwrap(), &at, 0).unwrap();
    assert_eq!(ints(&x), [8, 8, 8, 9, 9, 9], "of two for one place the later wins");
    index_copy(&mut x, &iota(&[0, 3]), &Tensor::from_slice::<i64>(&[0], &[]).unwrap(), 0).unwrap();
    assert_eq!(ints(&x), [8, 8, 8, 9, 9, 9]);
    assert!(index_copy(&mut x, &iota(&[1, 3]), &Tensor::from_slice(&[1, 1], &[0i64]).unwrap(), 0).is_err());
    assert!(index_copy(&mut x, &iota(&[1, 3]), &Tensor::from_slice(&[1], &[-3i64]).unwrap(), 0).is_err());
}
