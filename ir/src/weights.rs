//! Weights as descriptions of bytes.
//!
//! A [`TensorData`] says where the bytes of a tensor are, or how they follow from other tensors, and how many there
//! are. Nothing is read until the writer (or the runtime) asks, and then a piece at a time, so memory does not grow
//! with the model. Two descriptions with the same [`Identity`] have the same bytes: that is how tied weights stay one
//! tensor through every rewrite.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use crate::DType;
use crate::error::{Error, ErrorKind};
pub use crate::mapped::MappedFile;

/// A tensor's bytes, described; cheap to clone.
#[derive(Clone)]
pub struct TensorData(Arc<Inner>);

struct Inner {
    dtype: DType,
    shape: Vec<u64>,
    byte_len: u64,
    source: Source,
}

enum Source {
    /// Row-major elements at `offset` of a mapped file.
    Mapped {
        file: MappedFile,
        offset: u64,
    },
    Inline(Arc<[u8]>),
    Derived(Arc<dyn Derive>),
}

/// A recipe that makes the bytes of one tensor out of others.
///
/// Recipes are pure: the same inputs and parameters give the same bytes, on every machine and from every thread.
pub trait Derive: Send + Sync {
    /// Name of the recipe and its parameters; recipes of equal text over inputs of equal identity give equal bytes.
    fn recipe(&self) -> String;

    /// The tensors it reads.
    fn inputs(&self) -> &[TensorData];

    /// Pieces asked of [`Derive::produce`] start and end at multiples of this many bytes (or at the end).
    fn granule(&self) -> u64;

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When an input cannot be read or does not fit the recipe.
    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error>;

    /// Whether all of the inputs are looked at before any piece can be made, as where scales are chosen. Such bytes are asked for only when
    /// they are written.
    fn is_costly(&self) -> bool {
        false
    }
}

/// What makes two descriptions the same; see [`TensorData::identity`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Bytes of a mapping.
    Mapped {
        /// Which mapping (an address: equal within one run, never printed).
        file: usize,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Bytes in memory: the bytes themselves.
    Inline(Arc<[u8]>),
    /// A recipe over others.
    Derived {
        /// See [`Derive::recipe`].
        recipe: String,
        /// Number of bytes.
        len: u64,
        /// Its inputs.
        inputs: Vec<Identity>,
    },
}

fn bytes_of(dtype: DType, shape: &[u64]) -> Result<u64, Error> {
    shape
        .iter()
        .try_fold(dtype.size() as u64, |n, &d| n.checked_mul(d))
        .ok_or_else(|| Error::new(ErrorKind::Weight, format!("a tensor {dtype}{shape:?} has more than 2^64 bytes")))
}

impl TensorData {
    /// Elements in row-major order, starting at byte `offset` of a mapped file.
    ///
    /// # Errors
    /// [`ErrorKind::Weight`] when the file ends before the tensor does.
    pub fn mapped(dtype: DType, shape: Vec<u64>, file: MappedFile, offset: u64) -> Result<Self, Error> {
        let byte_len = bytes_of(dtype, &shape)?;
        let end = offset.checked_add(byte_len).filter(|&e| e <= file.bytes().len() as u64);
        if end.is_none() {
            return Err(Error::new(
                ErrorKind::Weight,
                format!("{dtype}{shape:?} needs {byte_len} bytes at {offset}, the file has {}", file.bytes().len()),
            ));
        }
        Ok(Self(Arc::new(Inner { dtype, shape, byte_len, source: Source::Mapped { file, offset } })))
    }

    /// Elements in row-major order, in memory. For small things: constants, tables.
    ///
    /// # Errors
    /// [`ErrorKind::Weight`] when the number of bytes is not that of the shape.
    pub fn inline(dtype: DType, shape: Vec<u64>, bytes: impl Into<Arc<[u8]>>) -> Result<Self, Error> {
        let byte_len = bytes_of(dtype, &shape)?;
        let bytes = bytes.into();
        if bytes.len() as u64 != byte_len {
            return Err(Error::new(ErrorKind::Weight, format!("{dtype}{shape:?} has {byte_len} bytes, given {}", bytes.len())));
        }
        Ok(Self(Arc::new(Inner { dtype, shape, byte_len, source: Source::Inline(bytes) })))
    }

    /// Bytes made by a recipe when asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Weight`] when the shape has more bytes than can be counted.
    pub fn derived(dtype: DType, shape: Vec<u64>, recipe: Arc<dyn Derive>) -> Result<Self, Error> {
        let byte_len = bytes_of(dtype, &shape)?;
        Ok(Self(Arc::new(Inner { dtype, shape, byte_len, source: Source::Derived(recipe) })))
    }

    /// The same bytes seen as another type or shape of the same size.
    ///
    /// # Errors
    /// [`ErrorKind::Weight`] when the sizes differ.
    pub fn reinterpret(&self, dtype: DType, shape: Vec<u64>) -> Result<Self, Error> {
        let byte_len = bytes_of(dtype, &shape)?;
        if byte_len != self.0.byte_len {
            return Err(Error::new(
                ErrorKind::Weight,
                format!("{dtype}{shape:?} has {byte_len} bytes, the tensor has {}", self.0.byte_len),
            ));
        }
        let source = match &self.0.source {
            Source::Mapped { file, offset } => Source::Mapped { file: file.clone(), offset: *offset },
            Source::Inline(b) => Source::Inline(b.clone()),
            Source::Derived(d) => Source::Derived(d.clone()),
        };
        Ok(Self(Arc::new(Inner { dtype, shape, byte_len, source })))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Sizes, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[u64] {
        &self.0.shape
    }

    /// Number of elements.
    pub fn numel(&self) -> u64 {
        self.0.byte_len / self.0.dtype.size() as u64
    }

    /// Number of bytes, row-major without gaps.
    pub fn byte_len(&self) -> u64 {
        self.0.byte_len
    }

    /// Equal identities mean equal bytes. (Equal bytes may still have different identities.)
    pub fn identity(&self) -> Identity {
        match &self.0.source {
            Source::Mapped { file, offset } => Identity::Mapped { file: file.id(), offset: *offset, len: self.0.byte_len },
            Source::Inline(b) => Identity::Inline(b.clone()),
            Source::Derived(d) => Identity::Derived {
                recipe: d.recipe(),
                len: self.0.byte_len,
                inputs: d.inputs().iter().map(TensorData::identity).collect(),
            },
        }
    }

    /// The bytes, if they exist already (in a mapping or in memory).
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.0.source {
            // In range: checked by the constructor.
            Source::Mapped { file, offset } => {
                let start = usize::try_from(*offset).ok()?;
                file.bytes().get(start..start + usize::try_from(self.0.byte_len).ok()?)
            }
            Source::Inline(b) => Some(b),
            Source::Derived(_) => None,
        }
    }

    /// The file and the offset at which the bytes stand, for copies inside the kernel.
    pub fn file_range(&self) -> Option<(&File, u64)> {
        match &self.0.source {
            Source::Mapped { file, offset } => Some((file.file(), *offset)),
            _ => None,
        }
    }

    /// The mapping behind the bytes and their offset in it, for use in place.
    pub fn mapping(&self) -> Option<(&MappedFile, u64)> {
        match &self.0.source {
            Source::Mapped { file, offset } => Some((file, *offset)),
            _ => None,
        }
    }

    /// The recipe that makes the bytes, if they are made by one.
    pub fn derivation(&self) -> Option<&dyn Derive> {
        match &self.0.source {
            Source::Derived(d) => Some(&**d),
            _ => None,
        }
    }

    /// Whether a recipe that this is made by, or one of those below, [is costly](Derive::is_costly).
    pub fn is_costly(&self) -> bool {
        self.derivation().is_some_and(|d| d.is_costly() || d.inputs().iter().any(TensorData::is_costly))
    }

    /// Pieces asked of [`TensorData::produce`] start and end at multiples of this (or at the end).
    pub fn granule(&self) -> u64 {
        match &self.0.source {
            Source::Derived(d) => d.granule().max(1),
            _ => 1,
        }
    }

    /// Fills `out` with the bytes from `offset` on; see [`TensorData::granule`].
    ///
    /// # Errors
    /// [`ErrorKind::Weight`] when the piece is out of range, [`ErrorKind::Io`] when the file cannot be read there any more, or what a
    /// recipe finds wrong with its inputs.
    pub fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let end = offset.checked_add(out.len() as u64).filter(|&e| e <= self.0.byte_len);
        let Some(end) = end else {
            return Err(Error::new(ErrorKind::Weight, format!("bytes {offset}+{} of {}", out.len(), self.0.byte_len)));
        };
        match &self.0.source {
            Source::Derived(d) => d.produce(offset, out),
            Source::Mapped { file, offset: start } => file.read_at(start + offset, out),
            Source::Inline(bytes) => {
                let piece = bytes.get(offset as usize..end as usize);
                piece.map(|piece| out.copy_from_slice(piece)).ok_or_else(|| Error::new(ErrorKind::Weight, "bytes that are not there"))
            }
        }
    }

    /// All bytes, in memory. For small tensors; large ones are streamed with [`TensorData::produce`].
    ///
    /// # Errors
    /// As [`TensorData::produce`].
    pub fn to_vec(&self) -> Result<Vec<u8>, Error> {
        if let Some(b) = self.bytes() {
            return Ok(b.to_vec());
        }
        let mut out = vec![0; usize::try_from(self.0.byte_len).map_err(|_| Error::new(ErrorKind::Weight, "too large for this machine"))?];
        self.produce(0, &mut out)?;
        Ok(out)
    }
}

impl fmt::Debug for TensorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match &self.0.source {
            Source::Mapped { offset, .. } => format!("mapped at {offset}"),
            Source::Inline(_) => "inline".to_owned(),
            Source::Derived(d) => d.recipe(),
        };
        write!(f, "{}{:?} ({from})", self.0.dtype, self.0.shape)
    }
}

/// Elements of a strided view of another tensor's storage, in row-major order.
///
/// Weights keep the strides they had in Python (transposed, channels-last, expanded); consumers want them contiguous.
struct Strided {
    storage: [TensorData; 1],
    element: u64,
    /// Sizes and strides in elements, outermost first, neighbours merged where they make one run.
    dims: Vec<(u64, u64)>,
    offset: u64,
}

impl TensorData {
    /// The tensor with these sizes and strides (in elements, from element `offset` on) over `self` taken as flat storage.
    ///
    /// Gives the storage's own bytes back, unmoved, where the view is row-major.
    ///
    /// # Errors
    /// [`ErrorKind::Weight`] when the view reaches beyond the storage.
    pub fn strided(&self, dtype: DType, shape: Vec<u64>, strides: Vec<u64>, offset: u64) -> Result<Self, Error> {
        if shape.len() != strides.len() {
            return Err(Error::new(ErrorKind::Weight, format!("{} sizes but {} strides", shape.len(), strides.len())));
        }
        let beyond = || {
            Error::new(
                ErrorKind::Weight,
                format!(
                    "{dtype}{shape:?} with strides {strides:?} from element {offset} reaches beyond the {} bytes stored",
                    self.byte_len()
                ),
            )
        };
        let byte_len = bytes_of(dtype, &shape)?;
        let element = dtype.size() as u64;
        let start = if shape.contains(&0) {
            0
        } else {
            let last = shape.iter().zip(&strides).try_fold(offset, |at, (&n, &s)| at.checked_add((n - 1).checked_mul(s)?));
            let need = last.and_then(|l| l.checked_add(1)?.checked_mul(element)).ok_or_else(beyond)?;
            if need > self.byte_len() {
                return Err(beyond());
            }
            // Not more than `need`.
            offset * element
        };
        let dims = merged(&shape, &strides);
        let source = match (&self.0.source, dims.as_slice()) {
            (Source::Mapped { file, offset }, [] | [(_, 1)]) => Some(Source::Mapped { file: file.clone(), offset: offset + start }),
            (Source::Inline(b), [] | [(_, 1)]) => {
                let piece = b.get(start as usize..(start + byte_len) as usize).ok_or_else(beyond)?;
                Some(Source::Inline(if piece.len() == b.len() { b.clone() } else { piece.into() }))
            }
            (Source::Derived(d), [] | [(_, 1)]) if start == 0 && byte_len == self.byte_len() => Some(Source::Derived(d.clone())),
            _ => None,
        };
        match source {
            Some(source) => Ok(Self(Arc::new(Inner { dtype, shape, byte_len, source }))),
            None => Self::derived(dtype, shape, Arc::new(Strided { storage: [self.clone()], element, dims, offset })),
        }
    }
}

/// Sizes and strides without dimensions of one element, and with neighbours merged that a single stride steps through; none
/// at all for a single element, one of stride 1 for row-major elements.
fn merged(shape: &[u64], strides: &[u64]) -> Vec<(u64, u64)> {
    if shape.contains(&0) {
        return vec![(0, 1)];
    }
    let mut dims: Vec<(u64, u64)> = Vec::with_capacity(shape.len());
    for (&n, &s) in shape.iter().zip(strides).filter(|(n, _)| **n != 1) {
        match dims.last_mut() {
            Some((outer, stride)) if s.checked_mul(n) == Some(*stride) => (*outer, *stride) = (*outer * n, s),
            _ => dims.push((n, s)),
        }
    }
    dims
}

impl Strided {
    /// Calls `f` with the first element and the number of every run of elements that lie together, for `count` elements
    /// from element `first` of the view on.
    fn runs(&self, first: u64, mut count: u64, f: &mut dyn FnMut(u64, u64)) {
        let mut coord = vec![0; self.dims.len()];
        let mut rest = first;
        for (c, &(n, _)) in coord.iter_mut().zip(&self.dims).rev() {
            (*c, rest) = (rest % n.max(1), rest / n.max(1));
        }
        let mut at = self.offset + coord.iter().zip(&self.dims).map(|(&c, &(_, s))| c * s).sum::<u64>();
        while count > 0 {
            // How far the innermost dimension goes on, if its elements lie together.
            let run = match (self.dims.last(), coord.last()) {
                (Some(&(n, 1)), Some(&c)) => (n - c).min(count),
                _ => 1,
            };
            f(at, run);
            count -= run;
            let mut step = run;
            for (c, &(n, s)) in coord.iter_mut().zip(&self.dims).rev() {
                *c += step;
                at += step * s;
                if *c < n {
                    break;
                }
                *c = 0;
                at -= n * s;
                step = 1;
            }
        }
    }
}

impl Derive for Strided {
    fn recipe(&self) -> String {
        format!("strided {}B {:?} from {}", self.element, self.dims, self.offset)
    }

    fn inputs(&self) -> &[TensorData] {
        &self.storage
    }

    fn granule(&self) -> u64 {
        self.element
    }

    fn produce(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let [storage] = &self.storage;
        let (first, count) = (offset / self.element, out.len() as u64 / self.element);
        // Of a storage that is made, only the part that this piece looks at.
        let made;
        let (bytes, base) = match storage.bytes() {
            Some(b) => (b, 0),
            None => {
                let (mut low, mut high) = (u64::MAX, 0);
                self.runs(first, count, &mut |at, run| (low, high) = (low.min(at), high.max(at + run)));
                let granule = storage.granule();
                let low = low.min(high) * self.element / granule * granule;
                let high = (high * self.element).next_multiple_of(granule).min(storage.byte_len());
                let mut part = vec![0; (high - low) as usize];
                storage.produce(low, &mut part)?;
                made = part;
                (made.as_slice(), low)
            }
        };
        let mut left = out;
        let mut short = false;
        self.runs(first, count, &mut |at, run| {
            let (start, len) = ((at * self.element - base) as usize, (run * self.element) as usize);
            match (bytes.get(start..start + len), std::mem::take(&mut left).split_at_mut_checked(len)) {
                (Some(from), Some((to, rest))) => {
                    to.copy_from_slice(from);
                    left = rest;
                }
                _ => short = true,
            }
        });
        if short { Err(Error::new(ErrorKind::Weight, "the storage is shorter than it was")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: u8) -> TensorData {
        TensorData::inline(DType::UInt8, vec![u64::from(n)], (0..n).collect::<Vec<u8>>()).unwrap()
    }

    #[test]
    fn pieces_of_a_file_are_read_where_they_stand_and_a_file_that_shrank_is_an_error() {
        let path = std::env::temp_dir().join(format!("etx-pieces-{}", std::process::id()));
        std::fs::write(&path, [9, 9, 1, 2, 3, 4, 5]).unwrap();
        let t = TensorData::mapped(DType::UInt8, vec![5], MappedFile::open(&path).unwrap(), 2).unwrap();
        let mut piece = [0; 3];
        t.produce(1, &mut piece).unwrap();
        assert_eq!(piece, [2, 3, 4]);
        assert_eq!(t.produce(3, &mut piece).unwrap_err().kind(), ErrorKind::Weight);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(4).unwrap();
        let error = t.produce(1, &mut piece).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("cannot read 3 bytes at 3"), "{error}");
    }

    #[test]
    fn transposed_storage_is_read_row_major_in_any_piece() {
        let t = bytes(6).strided(DType::UInt8, vec![3, 2], vec![1, 3], 0).unwrap();
        assert_eq!(t.to_vec().unwrap(), [0, 3, 1, 4, 2, 5]);
        let mut piece = [0; 3];
        t.produce(2, &mut piece).unwrap();
        assert_eq!(piece, [1, 4, 2]);
    }

    #[test]
    fn row_major_views_keep_their_bytes_and_expanded_ones_repeat() {
        let t = bytes(6).strided(DType::UInt8, vec![2, 2], vec![2, 1], 2).unwrap();
        assert_eq!(t.bytes().unwrap(), [2, 3, 4, 5]);
        let t = bytes(2).strided(DType::UInt8, vec![2, 2], vec![0, 1], 0).unwrap();
        assert_eq!(t.to_vec().unwrap(), [0, 1, 0, 1]);
    }

    #[test]
    fn views_beyond_the_storage_are_refused() {
        assert_eq!(bytes(6).strided(DType::UInt8, vec![3, 2], vec![1, 4], 0).unwrap_err().kind(), ErrorKind::Weight);
        assert!(bytes(6).strided(DType::UInt8, vec![2], vec![u64::MAX], 1).is_err());
        assert!(bytes(6).strided(DType::UInt8, vec![0, 9], vec![9, 1], 7).unwrap().to_vec().unwrap().is_empty());
        assert!(bytes(6).strided(DType::UInt8, vec![u64::MAX, 2], vec![0, 0], 0).is_err());
    }

    #[test]
    fn views_of_made_tensors_are_theirs_not_the_whole() {
        // Made: 0 3 1 4 2 5.
        let made = bytes(6).strided(DType::UInt8, vec![3, 2], vec![1, 3], 0).unwrap();
        assert!(made.bytes().is_none());
        let part = made.strided(DType::UInt8, vec![3], vec![1], 2).unwrap();
        assert_eq!(part.to_vec().unwrap(), [1, 4, 2]);
        assert_eq!(part.byte_len(), 3);
        let first = made.strided(DType::UInt8, vec![2], vec![1], 0).unwrap();
        assert_eq!(first.to_vec().unwrap(), [0, 3]);
        let again = made.strided(DType::UInt8, vec![2, 3], vec![3, 1], 0).unwrap();
        assert_eq!(again.identity(), made.identity());
        let turned = made.strided(DType::UInt8, vec![2, 3], vec![1, 2], 0).unwrap();
        assert_eq!(turned.to_vec().unwrap(), [0, 1, 2, 3, 4, 5]);
        let wide = made.strided(DType::UInt16, vec![2], vec![1], 1).unwrap();
        assert_eq!(wide.to_vec().unwrap(), [1, 4, 2, 5]);
    }

    #[test]
    fn any_piece_of_any_view_is_that_of_the_whole() {
        let whole = bytes(60);
        for (shape, strides, offset) in [
            (vec![3, 4, 5], vec![20, 5, 1], 0),
            (vec![2, 3, 4], vec![24, 8, 2], 3),
            (vec![4, 3, 5], vec![5, 20, 1], 0),
            (vec![3, 1, 2], vec![0, 77, 1], 9),
            (vec![2, 2, 2, 2], vec![1, 2, 4, 8], 40),
            (vec![5], vec![10], 7),
            (vec![], vec![], 59),
        ] {
            let t = whole.strided(DType::UInt8, shape.clone(), strides.clone(), offset).unwrap();
            let mut expected = vec![offset];
            for (&n, &s) in shape.iter().zip(&strides) {
                expected = expected.iter().flat_map(|&at| (0..n).map(move |i| at + i * s)).collect();
            }
            let expected: Vec<u8> = expected.into_iter().map(|at| at as u8).collect();
            assert_eq!(t.to_vec().unwrap(), expected);
            for start in 0..expected.len() {
                for end in start..=expected.len() {
                    let mut piece = vec![0; end - start];
                    t.produce(start as u64, &mut piece).unwrap();
                    assert_eq!(piece, expected[start..end]);
                }
            }
        }
    }
}
