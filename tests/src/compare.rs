//! Whether an output agrees with the expected one, and where it differs most if not.

use crate::tensor::{Elements, Tensor};

/// How far floating-point elements may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// `|got - expected| <= atol + rtol * |expected|`, element by element.
    Elementwise {
        /// Share of the expected value.
        rtol: f64,
        /// Absolute share.
        atol: f64,
    },
    /// `max |got - expected| <= limit * max |expected|` over the output.
    OfLargest(f64),
}

/// Ok with the largest absolute error, or a text that says what differs, how far and where.
///
/// Shapes and types must be equal; integers and booleans too. NaN agrees with NaN, an infinity with itself.
pub fn compare(got: &Tensor, expected: &Tensor, limit: Limit) -> Result<f64, String> {
    if got.dtype != expected.dtype {
        return Err(format!("dtype {:?}, expected {:?}", got.dtype, expected.dtype));
    }
    if got.shape != expected.shape {
        return Err(format!("shape {:?}, expected {:?}", got.shape, expected.shape));
    }
    match (got.elements(), expected.elements()) {
        (Elements::Floats(g), Elements::Floats(e)) if g.len() == e.len() => floats(&g, &e, limit, &expected.shape),
        (Elements::Integers(g), Elements::Integers(e)) if g.len() == e.len() => integers(&g, &e, &expected.shape),
        (Elements::Bits, Elements::Bits) if got.bytes.len() == expected.bytes.len() => {
            match got.bytes.iter().zip(&expected.bytes).position(|(g, e)| g != e) {
                None => Ok(0.0),
                Some(at) => Err(format!("byte {at} differs")),
            }
        }
        _ => Err(format!("{} bytes, expected {}", got.bytes.len(), expected.bytes.len())),
    }
}

fn integers(got: &[i128], expected: &[i128], shape: &[usize]) -> Result<f64, String> {
    let wrong = || got.iter().zip(expected).enumerate().filter(|(_, (g, e))| g != e);
    match wrong().next() {
        None => Ok(0.0),
        Some((at, (g, e))) => Err(format!(
            "got {g}, expected {e} at {:?}; {} of {} elements differ",
            index(at, shape, expected.len()),
            wrong().count(),
            expected.len()
        )),
    }
}

fn floats(got: &[f64], expected: &[f64], limit: Limit, shape: &[usize]) -> Result<f64, String> {
    let largest = expected.iter().filter(|e| e.is_finite()).fold(0.0f64, |m, e| m.max(e.abs()));
    let mut worst = (0.0f64, 0usize, 0.0f64, 0.0f64); // (error over allowed, where, got, expected)
    let mut largest_error = 0.0f64;
    let mut outside = 0usize;
    for (at, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let error = error(g, e);
        let allowed = match limit {
            Limit::Elementwise { rtol, atol } => atol + if e.is_finite() { rtol * e.abs() } else { 0.0 },
            Limit::OfLargest(share) => share * largest,
        };
        largest_error = largest_error.max(error);
        if error > allowed {
            outside += 1;
            let badness = if allowed > 0.0 { error / allowed } else { f64::INFINITY };
            if outside == 1 || badness > worst.0 {
                worst = (badness, at, g, e);
            }
        }
    }
    if outside == 0 {
        return Ok(largest_error);
    }
    let limit = match limit {
        Limit::Elementwise { rtol, atol } => format!("rtol {rtol} atol {atol}"),
        Limit::OfLargest(share) => format!("{share} of the largest value, {largest}"),
    };
    let (_, at, g, e) = worst;
    Err(format!(
        "max error {largest_error:e}; worst at {:?}: got {g}, expected {e}; {outside} of {} elements outside {limit}",
        index(at, shape, expected.len()),
        expected.len()
    ))
}

/// Absolute error; 0 between NaNs and between equal infinities, infinite where only one of the two is not finite.
fn error(got: f64, expected: f64) -> f64 {
    if got == expected || (got.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    let error = (got - expected).abs();
    if error.is_nan() { f64::INFINITY } else { error }
}

/// Index of a flat element; the flat number stays where elements are not one a place (complex numbers).
fn index(flat: usize, shape: &[usize], elements: usize) -> Vec<usize> {
    if shape.iter().product::<usize>() != elements {
        return vec![flat];
    }
    let mut rest = flat;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let at = rest % size.max(1);
            rest /= size.max(1);
            at
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::Dtype;

    const TIGHT: Limit = Limit::Elementwise { rtol: 1e-5, atol: 1e-5 };

    fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    #[test]
    fn says_how_far_and_where() {
        let expected = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let got = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.5, 6.25]);
        assert_eq!(
            compare(&got, &expected, TIGHT).unwrap_err(),
            "max error 5e-1; worst at [1, 1]: got 5.5, expected 5; 2 of 6 elements outside rtol 0.00001 atol 0.00001"
        );
    }

    #[test]
    fn not_finite_agrees_only_with_itself() {
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
        let same = f32s(&[4], &odd);
        assert_eq!(compare(&same, &same, TIGHT), Ok(0.0));
        for (at, other) in [(0, 1.0), (1, f32::MAX), (1, f32::NEG_INFINITY), (3, f32::NAN)] {
            let mut values = odd;
            values[at] = other;
            assert!(compare(&f32s(&[4], &values), &same, TIGHT).is_err());
            assert!(compare(&same, &f32s(&[4], &values), Limit::OfLargest(1e9)).is_err());
        }
    }

    #[test]
    fn of_largest_scales_with_the_output() {
        let expected = f32s(&[2], &[100.0, 0.0]);
        let got = f32s(&[2], &[100.0, 0.5]);
        assert_eq!(compare(&got, &expected, Limit::OfLargest(0.005)), Ok(0.5));
        assert!(compare(&got, &expected, Limit::OfLargest(0.004)).is_err());
    }

    #[test]
    fn integers_are_exact_whatever_the_limit() {
        let i = |v: i64| Tensor::scalar(Dtype::I64, v.to_le_bytes());
        let loose = Limit::Elementwise { rtol: 1.0, atol: 1.0 };
        assert!(compare(&i(1 << 53), &i(1 << 53), loose).is_ok());
        assert!(compare(&i(1 << 53), &i((1 << 53) + 1), loose).is_err());
    }

    #[test]
    fn shape_and_dtype_count() {
        let flat = f32s(&[0], &[]);
        assert!(compare(&flat, &f32s(&[0, 2], &[]), TIGHT).unwrap_err().contains("shape"));
        let half = Tensor { dtype: Dtype::F16, ..flat.clone() };
        assert!(compare(&half, &flat, TIGHT).unwrap_err().contains("dtype"));
        assert_eq!(compare(&flat, &flat, TIGHT), Ok(0.0));
    }
}
