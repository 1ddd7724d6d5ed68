//! Weights in text: what is known of their bytes, and where the bytes come from when the text is read.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::DType;
use crate::error::{Error, ErrorKind};
use crate::weights::{Derive, MappedFile, TensorData};

/// Tensors of more bytes are not written out: text is for reading.
pub(super) const INLINE_LIMIT: usize = 256;

/// What the recipe of a tensor starts with whose bytes are not at hand; the rest is its description in the text.
pub(super) const ABSENT: &str = "absent ";

/// Finds the bytes of weights that a text names by file and offset.
///
/// [`super::parse()`] opens nothing by itself: the text may come from anywhere, and so may the paths in it.
pub trait WeightResolver {
    /// The tensor of this type at byte `offset` of a file, or `None` if its bytes are not to be had; the program is read
    /// all the same and fails when they are asked for.
    ///
    /// # Errors
    /// When the file is not what the text says it is.
    fn resolve(&mut self, path: &str, offset: u64, dtype: DType, shape: &[u64]) -> Result<Option<TensorData>, Error>;
}

/// Knows no file: every weight stays a description.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl WeightResolver for NoFiles {
    fn resolve(&mut self, _path: &str, _offset: u64, _dtype: DType, _shape: &[u64]) -> Result<Option<TensorData>, Error> {
        Ok(None)
    }
}

/// Maps the files that the text names, each once.
#[derive(Clone, Debug, Default)]
pub struct Files {
    base: PathBuf,
    anywhere: bool,
    open: BTreeMap<String, MappedFile>,
}

impl Files {
    /// Files below the folder `base`, in which the text is; an empty one is the working directory. No absolute paths, no `..`, and no
    /// links that lead out of it: a text may come from anybody, and what it names ends up in what is made of it.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into(), anywhere: false, open: BTreeMap::new() }
    }

    /// Any file: for text that is trusted as much as the command line. Relative paths lead on from `base` or, if there is nothing, from
    /// the working directory, from which they were printed.
    #[must_use]
    pub fn anywhere(mut self) -> Self {
        self.anywhere = true;
        self
    }

    fn find(&self, path: &str) -> Result<PathBuf, Error> {
        let found = self.base.join(path);
        if self.anywhere {
            return Ok(if found.exists() { found } else { PathBuf::from(path) });
        }
        let outside = |why: &str| {
            Error::new(ErrorKind::Unsupported, format!("weights are in {path:?}, {why} the folder of this text"))
                .help("move them below it, or give --allow-outside if the text is trusted as much as the command line")
        };
        if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(outside("which does not stay below"));
        }
        let base = if self.base.as_os_str().is_empty() { Path::new(".") } else { &self.base };
        match (found.canonicalize(), base.canonicalize()) {
            (Ok(real), Ok(base)) if !real.starts_with(&base) => Err(outside("a link out of")),
            // What is not there is said when it is opened.
            _ => Ok(found),
        }
    }
}

impl WeightResolver for Files {
    fn resolve(&mut self, path: &str, offset: u64, dtype: DType, shape: &[u64]) -> Result<Option<TensorData>, Error> {
        let file = match self.open.get(path) {
            Some(file) => file.clone(),
            None => {
                let file = MappedFile::open(self.find(path)?)?;
                self.open.insert(path.to_owned(), file.clone());
                file
            }
        };
        TensorData::mapped(dtype, shape.to_vec(), file, offset).map(Some).map_err(|e| e.within(path.to_owned()))
    }
}

/// A tensor that is known by its description only.
struct Absent {
    recipe: String,
    inputs: Vec<TensorData>,
}

impl Derive for Absent {
    fn recipe(&self) -> String {
        self.recipe.clone()
    }

    fn inputs(&self) -> &[TensorData] {
        &self.inputs
    }

    fn granule(&self) -> u64 {
        1
    }

    fn produce(&self, _offset: u64, _out: &mut [u8]) -> Result<(), Error> {
        let what = self.recipe.strip_prefix(ABSENT).unwrap_or(&self.recipe);
        Err(Error::new(ErrorKind::Weight, format!("the bytes of a tensor were not in the text that it was read from: {what}"))
            .help("load the program from the file that the text was printed from"))
    }
}

/// A tensor whose bytes are not at hand, by what the text says of it.
pub(super) fn absent(dtype: DType, shape: Vec<u64>, clause: &str) -> Result<TensorData, Error> {
    derived(dtype, shape, format!("{ABSENT}{clause}"), Vec::new())
}

/// A tensor made by a recipe of which nothing but the name is known.
pub(super) fn derived(dtype: DType, shape: Vec<u64>, recipe: String, inputs: Vec<TensorData>) -> Result<TensorData, Error> {
    TensorData::derived(dtype, shape, Arc::new(Absent { recipe, inputs }))
}

/// Tells tensors apart that are not written out (FNV-1a, 64 bits).
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
