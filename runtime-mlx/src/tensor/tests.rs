use std::sync::Arc;

use etx_ir::DType;

use super::*;
use crate::error::ErrorKind;

fn iota(shape: &[usize]) -> Tensor {
    let n = checked_numel(shape).unwrap();
    Tensor::from_slice(shape, &(0..n as i32).collect::<Vec<_>>()).unwrap()
}

fn ints(t: &Tensor) -> Vec<i32> {
    t.values::<i32>().unwrap().into_owned()
}

#[test]
fn views_cost_no_copy_and_read_right() {
    let x = iota(&[2, 3]);
    let t = x.transpose(&[1, -2]).unwrap();
    assert!(t.shares_storage(&x) && !t.is_contiguous());
    assert_eq!((t.shape(), ints(&t)), (&[3, 2][..], vec![0, 3, 1, 4, 2, 5]));
    let flipped = x.slice_axis(1, 2, -1, 3).unwrap();
    assert_eq!(ints(&flipped), [2, 1, 0, 5, 4, 3]);
    let stepped = x.slice_axis(1, 0, 2, 2).unwrap().select(0, 1).unwrap();
    assert_eq!((stepped.shape(), ints(&stepped)), (&[2][..], vec![3, 5]));
    let wide = x.select(0, 0).unwrap().expand_dims(-1).unwrap().broadcast_to(&[2, 3, 2]).unwrap();
    assert_eq!(ints(&wide), [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
    assert!(wide.shares_storage(&x));
}

#[test]
fn reshape_is_a_view_where_strides_permit() {
    let x = iota(&[4, 6]);
    assert!(x.reshape(&[2, 2, 3, 2]).unwrap().shares_storage(&x));
    let t = x.transpose(&[1, 0]).unwrap();
    let split = t.reshape(&[2, 3, 4]).unwrap();
    assert!(split.shares_storage(&x));
    assert_eq!(ints(&split)[..5], [0, 6, 12, 18, 1]);
    let merged = t.reshape(&[24]).unwrap();
    assert!(!merged.shares_storage(&x));
    assert_eq!(ints(&merged)[..5], [0, 6, 12, 18, 1]);
    let rows = x.slice_axis(0, 0, 2, 2).unwrap();
    assert_eq!(ints(&rows.reshape(&[12]).unwrap()), [0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17]);
    assert_eq!(x.reshape(&[5, 5]).unwrap_err().kind(), ErrorKind::Shape);
}

#[test]
fn rank_zero_and_zero_size() {
    let s = Tensor::scalar(7i32).unwrap();
    assert_eq!((s.rank(), s.numel(), s.item::<i32>().unwrap()), (0, 1, 7));
    assert_eq!(ints(&s.reshape(&[1, 1]).unwrap().broadcast_to(&[2, 2]).unwrap()), [7; 4]);
    let e = Tensor::zeros(DType::Int32, &[2, 0, 3]).unwrap();
    assert_eq!((e.numel(), e.is_contiguous()), (0, true));
    assert_eq!(ints(&e.transpose(&[2, 1, 0]).unwrap()), Vec::<i32>::new());
    assert_eq!(e.reshape(&[0, 7]).unwrap().shape(), [0, 7]);
    assert_eq!(e.slice_axis(0, 1, 1, 1).unwrap().contiguous().unwrap().shape(), [1, 0, 3]);
    assert_eq!(e.broadcast_to(&[5, 2, 0, 3]).unwrap().to_bytes().unwrap(), Vec::<u8>::new());
}

#[test]
fn sizes_are_checked_before_anything_is_allocated() {
    assert_eq!(Tensor::zeros(DType::Int64, &[usize::MAX, 3]).unwrap_err().kind(), ErrorKind::Limit);
    assert_eq!(Tensor::zeros(DType::Int64, &[0, usize::MAX, 3]).unwrap_err().kind(), ErrorKind::Limit);
    assert_eq!(Tensor::zeros(DType::UInt8, &[5 << 30]).unwrap_err().kind(), ErrorKind::Limit);
    assert_eq!(Tensor::zeros(DType::UInt8, &[1; MAX_RANK + 1]).unwrap_err().kind(), ErrorKind::Limit);
    // A broadcast view may be huge; only materialising it is refused.
    let huge = Tensor::scalar(1u8).unwrap().broadcast_to(&[1 << 40]).unwrap();
    assert_eq!(huge.to_owned_copy().unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn writes_happen_in_place_only_when_unshared() {
    let mut x = iota(&[4, 2]);
    let before = x.clone();
    let row = Tensor::from_slice(&[1, 2], &[8, 9]).unwrap();
    let region = x.region(0, 2, 1, 1).unwrap();
    x.assign(&region, &row).unwrap();
    assert!(!x.shares_storage(&before));
    assert_eq!((ints(&x), ints(&before)), (vec![0, 1, 2, 3, 8, 9, 6, 7], (0..8).collect::<Vec<_>>()));
    let address = x.storage.bytes().as_ptr();
    let region = x.region(1, 1, 1, 1).unwrap();
    x.assign(&region, &Tensor::scalar(5i32).unwrap().broadcast_to(&[4, 1]).unwrap()).unwrap();
    assert_eq!(address, x.storage.bytes().as_ptr());
    assert_eq!(ints(&x), [0, 5, 2, 5, 8, 5, 6, 5]);
    x.make_mut::<i32>().unwrap()[0] = -1;
    assert_eq!(address, x.storage.bytes().as_ptr());
}

#[test]
fn windows_are_used_in_place_and_copied_when_misaligned_or_written() {
    let bytes: Vec<u8> = (0..32).collect();
    let source: Arc<dyn ByteSource> = Arc::new(bytes);
    let whole = Tensor::from_source(DType::UInt8, &[4], Arc::clone(&source), 8..12).unwrap();
    assert_eq!(whole.storage.bytes().as_ptr(), source.bytes()[8..].as_ptr());
    let base = source.bytes().as_ptr().addr() % 4;
    let skewed = Tensor::from_source(DType::UInt32, &[2], Arc::clone(&source), 5 - base..13 - base).unwrap();
    let first = (5 - base) as u32;
    assert_eq!(skewed.values::<u32>().unwrap()[0], first * 0x0101_0101 + 0x0302_0100);
    let mut written = whole.clone();
    written.make_mut::<u8>().unwrap().fill(0);
    assert_eq!(whole.values::<u8>().unwrap().as_ref(), [8, 9, 10, 11]);
    assert!(Tensor::from_source(DType::UInt32, &[9], Arc::clone(&source), 0..32).is_err());
    assert!(Tensor::from_source(DType::UInt32, &[1], source, 30..34).is_err());
}

#[test]
fn transposing_copies_agree_with_indexing() {
    for (rows, cols) in [(3, 5), (40, 33), (700, 300)] {
        let x = iota(&[2, rows, cols]);
        let t = x.transpose(&[0, 2, 1]).unwrap();
        let got = ints(&t.contiguous().unwrap());
        for (i, v) in got.iter().enumerate() {
            let (b, c, r) = (i / (rows * cols), i / rows % cols, i % rows);
            assert_eq!(*v as usize, b * rows * cols + r * cols + c);
        }
        let swapped = x.transpose(&[2, 1, 0]).unwrap().contiguous().unwrap();
        assert_eq!(ints(&swapped)[..2], [0, (rows * cols) as i32]);
    }
}
