//! Types of values, from their metadata.

use super::super::model::{SymScalar, TensorMeta};
use etx_ir::DType;
use etx_ir::graph::TensorType;
use etx_ir::sym::{Expr, Func};

/// The element type of this number in files of this schema. ExecuTorch's own (schema 5) number the newer types
/// differently (`pt2-format.md` §1.6).
pub(in super::super) fn dtype(n: i64, major: i64) -> Option<DType> {
    DType::from_pt2_code(match (major, n) {
        (5, 14) => 28,
        (5, 15) => 30,
        (5, 16) => 29,
        _ => n,
    })
}

/// A size, stride or symbolic value.
pub(super) fn scalar(s: &SymScalar) -> Result<Expr, String> {
    match s {
        SymScalar::AsInt(n) => Ok(Expr::Int(*n)),
        SymScalar::AsBool(b) => Ok(Expr::Bool(*b)),
        SymScalar::AsFloat(x) => Ok(Expr::Float(x.0.to_bits())),
        SymScalar::AsExpr(e) => Expr::parse(&e.expr_str).map_err(|what| format!("expression {:?}: {what}", shortened(&e.expr_str))),
    }
}

fn shortened(text: &str) -> String {
    if text.chars().nth(80).is_none() { text.to_owned() } else { text.chars().take(77).chain("...".chars()).collect() }
}

/// The type that a tensor's metadata gives.
///
/// # Errors
/// A sentence saying what is wrong with them.
pub(in super::super) fn tensor_type(meta: &TensorMeta, major: i64) -> Result<TensorType, String> {
    let dtype = dtype(meta.dtype, major).ok_or_else(|| format!("{} is no element type", meta.dtype))?;
    // Older files may not know; whatever else there is has no strides.
    if let Some(layout @ 1..=6) = meta.layout {
        return Err(format!("its layout is number {layout}, sparse or opaque; only strided tensors are read"));
    }
    let shape: Vec<Expr> = meta.sizes.iter().map(scalar).collect::<Result<_, _>>()?;
    if let Some(n) = shape.iter().filter_map(Expr::as_int).find(|&n| n < 0) {
        return Err(format!("negative size {n}"));
    }
    let strides: Vec<Expr> = meta.strides.iter().map(scalar).collect::<Result<_, _>>()?;
    if !strides.is_empty() && strides.len() != shape.len() {
        return Err(format!("{} sizes but {} strides", shape.len(), strides.len()));
    }
    let strides = (strides.len() == shape.len() && !row_major(&shape, &strides)).then_some(strides);
    Ok(TensorType { dtype, shape, strides })
}

/// Whether these are the strides of a row-major tensor; the stride of a dimension of size 1 does not matter.
fn row_major(shape: &[Expr], strides: &[Expr]) -> bool {
    if shape.contains(&Expr::Int(0)) {
        return true;
    }
    // torch writes Max(1, s) where a size could be zero.
    fn plain(e: &Expr) -> &Expr {
        match e {
            Expr::Call(Func::Max, args) => match &args[..] {
                [Expr::Int(1), rest] => rest,
                _ => e,
            },
            _ => e,
        }
    }
    let mut expect = Expr::Int(1);
    for (n, s) in shape.iter().zip(strides).rev().filter(|(n, _)| **n != Expr::Int(1)) {
        if plain(s) != plain(&expect) {
            return false;
        }
        expect = expect.times(n);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_major_strides_are_recognised_under_symbols() {
        let e = |s: &str| Expr::parse(s).unwrap();
        assert!(row_major(&[e("2"), e("s0"), e("4")], &[e("4*s0"), e("4"), e("1")]));
        assert!(row_major(&[e("2"), e("s0")], &[e("Max(1, s0)"), e("1")]));
        assert!(!row_major(&[e("2"), e("3")], &[e("1"), e("2")]));
        assert!(row_major(&[e("1"), e("3")], &[e("77"), e("1")]));
    }

    #[test]
    fn executorchs_own_files_have_numbers_of_their_own() {
        assert_eq!(dtype(14, 5), Some(DType::UInt16));
        assert_eq!(dtype(16, 5), Some(DType::Float8E4M3));
        assert_eq!(dtype(14, 8), None);
        assert_eq!(dtype(13, 5), dtype(13, 8));
    }
}
