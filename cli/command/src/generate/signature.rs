//! How a method of a language model is to be called, told from what it takes and gives.

use etx::ir::DType;
use etx::runtime::{Tensor, Value, ValueSpec};

use super::Error;

/// What a call says about where its tokens stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Nothing.
    Unsaid,
    /// The position of each token, in a tensor of this rank.
    Each(DType, usize),
    /// The position of the first, in a tensor of this rank with one element.
    First(DType, usize),
    /// The position of the first, as an integer.
    FirstInt,
}

/// How tokens go into a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// Element type of the token ids; of their embeddings, where it takes those.
    pub(super) dtype: DType,
    /// 1, or 2 with a batch axis; one more for embeddings.
    rank: usize,
    /// Tokens one call takes at most.
    pub(super) most: usize,
    /// Whether it takes exactly so many.
    pub(super) fixed: bool,
    /// Whether it takes embeddings.
    pub(super) embedded: bool,
    /// Their width, if it does.
    pub(super) embedding: usize,
    pub(super) position: Position,
    /// Length of the last axis of the first output: the vocabulary, or the width of embeddings.
    pub(super) width: usize,
}

impl Signature {
    /// Reads the signature; says why, if it is not one of tokens in, numbers out.
    pub(super) fn of(inputs: &[ValueSpec], outputs: &[ValueSpec]) -> Result<Self, String> {
        let (first, position) = match inputs {
            [first] => (first, None),
            [first, position] => (first, Some(position)),
            _ => return Err(format!("it takes {} inputs, where tokens and their position are one or two", inputs.len())),
        };
        let ValueSpec::Tensor { dtype, shape, dynamic } = first else {
            return Err("its first input is no tensor of tokens".to_owned());
        };
        let embedded = dtype.is_float();
        let axes = if embedded { shape.get(..shape.len().saturating_sub(1)).unwrap_or_default() } else { shape.as_slice() };
        let most = match axes {
            [n] => *n,
            [batch, n] if *batch == 1 || *dynamic => *n,
            [batch, _] => return Err(format!("it takes {batch} texts at once")),
            _ => return Err(format!("its first input, {dtype}{shape:?}, has not one axis of tokens")),
        };
        if !(embedded || matches!(dtype, DType::Int64 | DType::Int32)) || most == 0 {
            return Err(format!("its first input, {dtype}{shape:?}, holds no tokens"));
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let position = match position {
            None => Position::Unsaid,
            Some(ValueSpec::Int | ValueSpec::None) => Position::FirstInt,
            Some(ValueSpec::Tensor { dtype: dtype @ (DType::Int64 | DType::Int32), shape, dynamic }) => {
                let count: u64 = shape.iter().fold(1, |a, &b| a.saturating_mul(b));
                match (count == 1 && !dynamic, most) {
                    (true, 2..) => Position::First(*dtype, shape.len()),
                    // With one token both mean the same.
                    _ if matches!(shape.len(), 1 | 2) => Position::Each(*dtype, shape.len()),
                    _ => Position::First(*dtype, shape.len()),
                }
            }
            Some(_) => return Err("its second input holds no positions".to_owned()),
        };
        let width = match outputs.first() {
            Some(ValueSpec::Tensor { dtype: DType::Float32 | DType::Float16 | DType::BFloat16, shape, .. }) => {
                shape.last().copied().filter(|&n| n > 1)
            }
            _ => None,
        };
        let width = width.and_then(|n| usize::try_from(n).ok());
        let width = width.ok_or_else(|| "its first output is no tensor of logits".to_owned())?;
        let embedding = shape.last().filter(|_| embedded).map_or(0, |&n| usize::try_from(n).unwrap_or(usize::MAX));
        Ok(Signature { dtype: *dtype, rank: shape.len(), most, fixed: !dynamic, embedded, embedding, position, width })
    }

    /// The first argument of a call.
    pub(super) fn tokens(&self, tokens: &[u32]) -> Result<Value, Error> {
        integers(self.dtype, self.rank, tokens.iter().map(|&t| i64::from(t)))
    }

    /// The second, if there is one: for `count` tokens from position `start`.
    pub(super) fn positions(&self, start: usize, count: usize) -> Result<Option<Value>, Error> {
        let start = start as i64;
        Ok(match self.position {
            Position::Unsaid => None,
            Position::Each(dtype, rank) => Some(integers(dtype, rank, start..start.saturating_add(count as i64))?),
            Position::First(dtype, rank) => Some(integers(dtype, rank, [start])?),
            Position::FirstInt => Some(Value::Int(start)),
        })
    }
}

/// A tensor of integers along its last axis.
fn integers(dtype: DType, rank: usize, numbers: impl IntoIterator<Item = i64>) -> Result<Value, Error> {
    let numbers: Vec<i64> = numbers.into_iter().collect();
    let mut shape = vec![1; rank];
    if let Some(last) = shape.last_mut() {
        *last = numbers.len();
    }
    let tensor = if dtype == DType::Int32 {
        let narrow = numbers.iter().map(|&n| i32::try_from(n)).collect::<Result<Vec<_>, _>>();
        Tensor::from_slice(&shape, &narrow.map_err(|_| Error::Argument("a token or position does not fit 32 bits".to_owned()))?)
    } else {
        Tensor::from_slice(&shape, &numbers)
    };
    Ok(tensor?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: DType, shape: &[u64], dynamic: bool) -> ValueSpec {
        ValueSpec::Tensor { dtype, shape: shape.to_vec(), dynamic }
    }

    fn of(inputs: &[ValueSpec]) -> Result<Signature, String> {
        Signature::of(inputs, &[tensor(DType::Float32, &[1, 64, 512], true)])
    }

    #[test]
    fn the_exporters_signatures_are_told_apart() {
        use DType::{Float32, Int32, Int64};
        let tokens = tensor(Int64, &[1, 64], true);
        let position = |inputs: &[ValueSpec]| of(inputs).unwrap().position;
        assert_eq!(position(std::slice::from_ref(&tokens)), Position::Unsaid);
        assert_eq!(position(&[tokens.clone(), tensor(Int64, &[64], true)]), Position::Each(Int64, 1));
        assert_eq!(position(&[tokens.clone(), tensor(Int64, &[1], false)]), Position::First(Int64, 1));
        assert_eq!(position(&[tokens.clone(), tensor(Int64, &[], false)]), Position::First(Int64, 0));
        assert_eq!(position(&[tokens.clone(), ValueSpec::Int]), Position::FirstInt);
        assert_eq!(position(&[tensor(Int32, &[1], false), tensor(Int32, &[1], false)]), Position::Each(Int32, 1));
        assert_eq!(position(&[tensor(Int64, &[1, 8], false), tensor(Int64, &[1, 8], false)]), Position::Each(Int64, 2));

        let fixed = of(&[tensor(Int64, &[1, 8], false)]).unwrap();
        assert_eq!((fixed.most, fixed.fixed, fixed.embedded, fixed.width), (8, true, false, 512));
        let embedded = of(&[tensor(Float32, &[1, 64, 128], true), tensor(Int64, &[64], true)]).unwrap();
        assert_eq!((embedded.most, embedded.fixed, embedded.embedded, embedded.embedding), (64, false, true, 128));
    }

    #[test]
    fn what_is_no_language_model_is_said() {
        let why = |inputs: &[ValueSpec]| of(inputs).unwrap_err();
        let tokens = tensor(DType::Int64, &[1, 64], true);
        assert!(why(&[]).contains("takes 0 inputs"));
        assert!(why(&vec![tokens.clone(); 3]).contains("takes 3 inputs"));
        assert!(why(&[tensor(DType::Int64, &[4, 64], false)]).contains("4 texts at once"));
        assert!(why(&[tensor(DType::Bool, &[1, 64], true)]).contains("holds no tokens"));
        assert!(why(&[tensor(DType::Float32, &[1, 3, 32, 32], false)]).contains("not one axis of tokens"));
        assert!(why(&[tokens.clone(), tensor(DType::Float32, &[1], false)]).contains("no positions"));
        let no_logits = Signature::of(&[tokens], &[tensor(DType::Int64, &[1], false)]).unwrap_err();
        assert!(no_logits.contains("no tensor of logits"), "{no_logits}");
    }
}
