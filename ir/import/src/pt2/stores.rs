//! Where the weights of a program are, by generation of the file.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::archive::Archive;
use super::convert::types::tensor_type;
use super::json;
use super::model::{Payload, PayloadConfig, SymScalar};
use super::saved::{Saved, Stored, Tensors};
use etx_ir::error::{Error, ErrorKind};
use etx_ir::sym::Expr;
use etx_ir::weights::TensorData;

/// Where weights come from.
pub(super) trait WeightSource {
    /// What is stored under this name: a parameter or buffer of the state dict if `persistent`, else a buffer beside it or a constant.
    ///
    /// # Errors
    /// [`ErrorKind::Weight`] and what is wrong, without the name.
    fn weight(&self, fqn: &str, persistent: bool) -> Result<Stored, Error>;

    /// Whether it is stored in a form that the graph may take apart; such a weight is looked at only if something uses it.
    fn is_pickled(&self, fqn: &str, persistent: bool) -> bool;
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Weight, what)
}

const NOT_SAVED: &str = "the program was exported from fake or meta tensors; export the real model";

/// Raw files and JSON that describes them: archives of torch 2.9 and later.
pub(super) struct Packed<'a> {
    archive: &'a Archive,
    weights: BTreeMap<String, Payload>,
    constants: BTreeMap<String, Payload>,
    major: i64,
}

impl<'a> Packed<'a> {
    /// Reads the descriptions of the weights of one model.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] with the entry and the place in it.
    pub(super) fn open(archive: &'a Archive, model: &str, major: i64) -> Result<Self, Error> {
        let config = |path: String| -> Result<BTreeMap<String, Payload>, Error> {
            if !archive.has(&path) {
                return Ok(BTreeMap::new());
            }
            let config: PayloadConfig = json::typed(archive.read(&path)?).map_err(|e| e.within(path))?;
            Ok(config.config)
        };
        Ok(Self {
            archive,
            weights: config(format!("data/weights/{model}_weights_config.json"))?,
            constants: config(format!("data/constants/{model}_constants_config.json"))?,
            major,
        })
    }

    fn payload(&self, fqn: &str, persistent: bool) -> Option<(&'static str, &Payload)> {
        let (folder, config) = if persistent { ("weights", &self.weights) } else { ("constants", &self.constants) };
        Some((folder, config.get(fqn)?))
    }

    fn raw(&self, entry: &str, payload: &Payload) -> Result<TensorData, Error> {
        let meta = payload.tensor_meta.as_ref().ok_or_else(|| bad("a custom object where a tensor should be"))?;
        let t = tensor_type(meta, self.major).map_err(bad)?;
        let numbers = |list: &[Expr]| list.iter().map(|e| e.as_int().and_then(|n| u64::try_from(n).ok())).collect::<Option<Vec<u64>>>();
        let shape = numbers(&t.shape).ok_or_else(|| bad(format!("sizes {:?} are not numbers", t.shape)))?;
        let strides = match &t.strides {
            Some(s) => numbers(s).ok_or_else(|| bad(format!("strides {s:?} are not natural numbers")))?,
            None => row_major(&shape).ok_or_else(|| bad(format!("sizes {shape:?} are too large")))?,
        };
        let offset = match &meta.storage_offset {
            None => 0,
            Some(SymScalar::AsInt(n)) => u64::try_from(*n).map_err(|_| bad(format!("storage offset {n}")))?,
            Some(_) => return Err(bad("its storage offset is not a number")),
        };
        let storage = self.archive.data(entry)?;
        if storage.byte_len() == 0 && !shape.contains(&0) {
            return Err(bad("its bytes were not saved").help(NOT_SAVED));
        }
        storage.strided(t.dtype, shape, strides, offset).map_err(|e| e.within(entry))
    }
}

impl WeightSource for Packed<'_> {
    fn weight(&self, fqn: &str, persistent: bool) -> Result<Stored, Error> {
        let Some((folder, payload)) = self.payload(fqn, persistent) else {
            let folder = if persistent { "weights" } else { "constants" };
            return Err(
                bad(format!("not in data/{folder}")).help("the archive was saved without its weights; save it with torch.export.save")
            );
        };
        let entry = format!("data/{folder}/{}", payload.path_name);
        if !payload.use_pickle {
            return self.raw(&entry, payload).map(Stored::Plain);
        }
        let inner = inner_archive(self.archive, &entry)?;
        Saved::open(&inner).and_then(|saved| saved.tensor()).map_err(|e| e.within(entry))
    }

    fn is_pickled(&self, fqn: &str, persistent: bool) -> bool {
        self.payload(fqn, persistent).is_some_and(|(_, payload)| payload.use_pickle)
    }
}

/// Strides of a row-major tensor, in elements.
fn row_major(shape: &[u64]) -> Option<Vec<u64>> {
    let mut strides = vec![1; shape.len()];
    let mut next: u64 = 1;
    for (s, &n) in strides.iter_mut().zip(shape).rev() {
        *s = next;
        next = next.checked_mul(n.max(1))?;
    }
    Some(strides)
}

/// The torch.save file that an entry is.
fn inner_archive(archive: &Archive, entry: &str) -> Result<Archive, Error> {
    let data = archive.data(entry)?;
    let open = || {
        let mut inner = archive.inner(data)?;
        inner.strip_root()?;
        Ok(inner)
    };
    open().map_err(|e: Error| e.within(entry.to_owned()))
}

/// Dictionaries in torch.save files: torch 2.8 and earlier, and ExecuTorch's own.
pub(super) struct Dictionaries<'a> {
    archive: &'a Archive,
    state: Dictionary,
    constants: Dictionary,
}

struct Dictionary {
    entry: String,
    read: OnceCell<Result<Tensors, Error>>,
}

impl<'a> Dictionaries<'a> {
    /// The state dict and the constants, in the entries of these names. They are read when the first weight is asked for.
    pub(super) fn open(archive: &'a Archive, state: String, constants: String) -> Self {
        let dictionary = |entry| Dictionary { entry, read: OnceCell::new() };
        Self { archive, state: dictionary(state), constants: dictionary(constants) }
    }

    /// What is stored under this name, if anything is; an error says in which entry.
    fn find(&self, fqn: &str, persistent: bool) -> Result<Option<Result<Stored, Error>>, Error> {
        // Formats that do not tell persistent buffers from others, or constants from either, keep them in one of the two.
        let places = if persistent { [&self.state, &self.constants] } else { [&self.constants, &self.state] };
        for place in places {
            if let Some(found) = place.get(self.archive)?.get(fqn) {
                return Ok(Some(found.clone().map_err(|e| e.within(place.entry.clone()))));
            }
        }
        Ok(None)
    }
}

impl Dictionary {
    fn get(&self, archive: &Archive) -> Result<&Tensors, Error> {
        let read = self.read.get_or_init(|| {
            if !archive.has(&self.entry) {
                return Ok(BTreeMap::new());
            }
            let inner = inner_archive(archive, &self.entry)?;
            Saved::open(&inner).and_then(|saved| saved.dictionary()).map_err(|e| e.within(self.entry.clone()))
        });
        read.as_ref().map_err(Clone::clone)
    }
}

impl WeightSource for Dictionaries<'_> {
    fn weight(&self, fqn: &str, persistent: bool) -> Result<Stored, Error> {
        self.find(fqn, persistent)?.unwrap_or_else(|| {
            let place = if persistent { &self.state } else { &self.constants };
            Err(bad(format!("not in {}", place.entry)).help("the file was saved without its weights; save it with torch.export.save"))
        })
    }

    fn is_pickled(&self, fqn: &str, persistent: bool) -> bool {
        matches!(self.find(fqn, persistent), Ok(Some(Ok(Stored::Wrapped(_)) | Err(_))))
    }
}

/// Safetensors files beside a `graph.json`.
pub(super) struct Beside {
    pub(super) tensors: BTreeMap<String, TensorData>,
    /// Whether there is no file at all.
    pub(super) none_given: bool,
}

impl WeightSource for Beside {
    fn weight(&self, fqn: &str, _persistent: bool) -> Result<Stored, Error> {
        self.tensors.get(fqn).cloned().map(Stored::Plain).ok_or_else(|| {
            bad("in none of the weight files").help(if self.none_given {
                "a graph.json has no weights of its own: give them with --weights FILE.safetensors"
            } else {
                "add the file that has it with another --weights; names are those of the model's parameters, buffers and constants"
            })
        })
    }

    fn is_pickled(&self, _fqn: &str, _persistent: bool) -> bool {
        false
    }
}
