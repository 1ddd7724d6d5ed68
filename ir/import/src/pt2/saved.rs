//! torch.save files: a pickle that describes tensors, and beside it the bytes of their storages.
//!
//! What a pickle may import is on the list below (`pt2-format.md` §1.5). None of it is run: a call of one of the
//! functions that rebuild tensors is recognised and read as the description that its arguments are.

use std::collections::BTreeMap;

use super::archive::Archive;
use super::pickle::{Object, Pickle, Value};
use super::subclass::{Attribute, Class, PAIR, Wrapped};
use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::weights::TensorData;

/// Element types: torch's name, the typed storage class (empty: there is none, the storage is untyped), ours.
const DTYPES: &[(&str, &str, DType)] = &[
    ("uint8", "ByteStorage", DType::UInt8),
    ("int8", "CharStorage", DType::Int8),
    ("int16", "ShortStorage", DType::Int16),
    ("int32", "IntStorage", DType::Int32),
    ("int64", "LongStorage", DType::Int64),
    ("float16", "HalfStorage", DType::Float16),
    ("float32", "FloatStorage", DType::Float32),
    ("float64", "DoubleStorage", DType::Float64),
    ("complex32", "", DType::Complex32),
    ("complex64", "ComplexFloatStorage", DType::Complex64),
    ("complex128", "ComplexDoubleStorage", DType::Complex128),
    ("bool", "BoolStorage", DType::Bool),
    ("bfloat16", "BFloat16Storage", DType::BFloat16),
    ("uint16", "", DType::UInt16),
    ("uint32", "", DType::UInt32),
    ("uint64", "", DType::UInt64),
    ("float8_e4m3fn", "", DType::Float8E4M3),
    ("float8_e5m2", "", DType::Float8E5M2),
    ("float8_e4m3fnuz", "", DType::Float8E4M3Fnuz),
    ("float8_e5m2fnuz", "", DType::Float8E5M2Fnuz),
    ("float8_e8m0fnu", "", DType::Float8E8M0),
];

/// Functions and classes that pickles of tensors are made of, by module.
const KNOWN: &[(&str, &[&str])] = &[
    ("collections", &["OrderedDict"]),
    (
        "torch._utils",
        &[
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
            "_rebuild_wrapper_subclass",
            "_rebuild_meta_tensor_no_storage",
        ],
    ),
    ("torch._tensor", &["_rebuild_from_type_v2"]),
    ("torch", &["Tensor", "Size", "device"]),
    ("torch.nn.parameter", &["Parameter", "Buffer"]),
    ("torch.storage", &["UntypedStorage"]),
    ("torch.serialization", &["_get_layout"]),
];

/// Packages whose classes are read as data: tensor subclasses (those of `subclass.rs`; others are refused when such a
/// tensor is asked for) and the settings that they carry.
const PACKAGES: &[&str] = &["torchao.", "executorch."];

/// How deep a tensor may be wrapped into parameters and the like.
const MAX_WRAPPING: u32 = 8;

/// What to do about a subclass that is not known.
pub(super) const PLAIN_REMEDY: &str = "save `exported_program.run_decompositions({})` instead of `exported_program`: it stores the parts of \
     such weights as plain tensors; where torch refuses that, export with strict=True";

fn known(module: &str, name: &str) -> bool {
    KNOWN.iter().any(|(m, names)| *m == module && names.contains(&name))
        || PACKAGES.iter().any(|p| module.starts_with(p))
        || module == "torch" && (scalar_name(name).is_some() || DTYPES.iter().any(|(_, s, _)| !s.is_empty() && *s == name))
}

/// The name of an element type, those of less than a byte included: they occur as attributes.
fn scalar_name(name: &str) -> Option<&str> {
    let bits = name.strip_prefix("uint").or_else(|| name.strip_prefix("int"));
    let small = bits.is_some_and(|b| matches!(b, "1" | "2" | "3" | "4" | "5" | "6" | "7"));
    (small || name == PAIR || DTYPES.iter().any(|(n, _, _)| *n == name)).then_some(name)
}

/// The element type of this name in torch.
pub(super) fn dtype_named(name: &str) -> Option<DType> {
    DTYPES.iter().find(|(n, _, _)| *n == name).map(|(_, _, t)| *t)
}

/// A weight as it is stored.
#[derive(Clone)]
pub(super) enum Stored {
    /// A tensor.
    Plain(TensorData),
    /// A tensor subclass over other tensors.
    Wrapped(Wrapped),
}

/// Tensors by name; what is none is an error in its place.
pub(super) type Tensors = BTreeMap<String, Result<Stored, Error>>;

/// An open torch.save file.
pub(super) struct Saved<'a> {
    archive: &'a Archive,
    pickle: Pickle<'a>,
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Weight, what)
}

impl<'a> Saved<'a> {
    /// Reads the pickle of a torch.save file whose root folder was removed.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] and [`ErrorKind::Unsupported`] as for [`Pickle::read`].
    pub(super) fn open(archive: &'a Archive) -> Result<Self, Error> {
        if archive.has("byteorder") && archive.read("byteorder")? == b"big" {
            return Err(
                Error::new(ErrorKind::Unsupported, "the tensors are big-endian").help("save the program on a little-endian machine")
            );
        }
        let pickle = Pickle::read(archive.read("data.pkl")?, &known)
            .map_err(|e| if e.kind() == ErrorKind::Unsupported { e.help(PLAIN_REMEDY) } else { e })?;
        Ok(Self { archive, pickle })
    }

    /// The tensor that the file is.
    pub(super) fn tensor(&self) -> Result<Stored, Error> {
        self.stored(self.pickle.root, 0)
    }

    /// The tensors of the dictionary that the file is. What else is in it, such as a custom object, is an error in its place.
    pub(super) fn dictionary(&self) -> Result<Tensors, Error> {
        let pairs = self.pickle.pairs(self.pickle.root).ok_or_else(|| bad("no dictionary of tensors"))?;
        let named = pairs.iter().filter_map(|(k, v)| match k {
            Value::Str(name) => Some(((*name).to_owned(), self.stored(*v, 0))),
            _ => None,
        });
        Ok(named.collect())
    }

    fn stored(&self, v: Value<'a>, depth: u32) -> Result<Stored, Error> {
        let Some((called, args)) = self.pickle.call(v) else { return Err(bad("not a tensor")) };
        if depth > MAX_WRAPPING {
            return Err(bad(format!("wrapped more than {MAX_WRAPPING} times")));
        }
        match (called, args) {
            (("torch._utils", "_rebuild_tensor_v2"), [storage, offset, size, strides, ..]) => {
                self.rebuild(*storage, *offset, *size, *strides, None).map(Stored::Plain)
            }
            (("torch._utils", "_rebuild_tensor_v3"), [storage, offset, size, strides, _, _, dtype, ..]) => {
                self.rebuild(*storage, *offset, *size, *strides, Some(self.dtype(*dtype)?)).map(Stored::Plain)
            }
            (("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), [data, ..]) => self.stored(*data, depth + 1),
            (("torch._tensor", "_rebuild_from_type_v2"), [rebuild, class, inner, state]) => {
                self.subclass(*rebuild, *class, *inner, *state, depth)
            }
            (("torch._utils", "_rebuild_meta_tensor_no_storage"), _) => {
                Err(bad("its bytes were not saved").help("the program was exported from fake or meta tensors; export the real model"))
            }
            ((module, name), _) => Err(bad(format!("a pickled {module}.{name}, which is no tensor that etx reads"))),
        }
    }

    fn subclass(&self, rebuild: Value<'a>, class: Value<'a>, args: Value<'a>, state: Value<'a>, depth: u32) -> Result<Stored, Error> {
        let Value::Global(module, name) = class else { return Err(bad("a tensor of a class without name")) };
        let args = self.pickle.items(args).unwrap_or(&[]);
        match (rebuild, args) {
            (Value::Global("torch._utils", "_rebuild_wrapper_subclass"), [_, dtype, size, ..]) => {
                let unknown = || {
                    Error::new(ErrorKind::Unsupported, format!("a pickled {module}.{name}, which is not a class that etx knows"))
                        .help(PLAIN_REMEDY)
                };
                let class = Class::named(name).ok_or_else(unknown)?;
                let mut tensors = Vec::new();
                let mut attributes = BTreeMap::new();
                for (key, v) in self.pickle.pairs(state).unwrap_or(&[]) {
                    let Value::Str(key) = key else { continue };
                    match class.tensors.iter().position(|t| t == key) {
                        Some(_) if *v == Value::None => {}
                        Some(place) => match self.stored(*v, depth + 1).map_err(|e| e.within(*key))? {
                            Stored::Plain(t) => tensors.push((place, t)),
                            Stored::Wrapped(w) => return Err(bad(format!("{key}: a {} inside a {name}", w.class.name)).help(PLAIN_REMEDY)),
                        },
                        None => _ = attributes.insert((*key).to_owned(), self.attribute(*v)),
                    }
                }
                tensors.sort_by_key(|(place, _)| *place);
                let tensors = tensors.into_iter().filter_map(|(place, t)| Some((*class.tensors.get(place)?, t))).collect();
                Wrapped::new(class, self.dtype(*dtype)?, self.sizes(*size)?, tensors, attributes).map(Stored::Wrapped)
            }
            // A plain tensor with attributes.
            (Value::Global("torch._utils", "_rebuild_tensor_v2"), [storage, offset, size, strides, ..]) => {
                self.rebuild(*storage, *offset, *size, *strides, None).map(Stored::Plain)
            }
            (Value::Global("torch._utils", "_rebuild_parameter"), [data, ..]) => self.stored(*data, depth + 1),
            _ => Err(Error::new(ErrorKind::Unsupported, format!("a pickled {module}.{name}, which is not rebuilt as etx knows"))
                .help(PLAIN_REMEDY)),
        }
    }

    fn attribute(&self, v: Value<'a>) -> Attribute {
        match v {
            Value::None => Attribute::None,
            Value::Bool(b) => Attribute::Bool(b),
            Value::Int(n) => Attribute::Int(n),
            Value::Str(s) => Attribute::Str(s.to_owned()),
            Value::Global("torch", name) => match scalar_name(name) {
                Some(name) => Attribute::DType(name.to_owned()),
                None => Attribute::Other(format!("torch.{name}")),
            },
            Value::Global(module, name) => Attribute::Other(format!("{module}.{name}")),
            Value::Float(_) | Value::Bytes(_) => Attribute::Other("a number".to_owned()),
            Value::Object(_) => match (self.ints(v), self.pickle.call(v)) {
                (Some(ints), _) => Attribute::Ints(ints),
                // Enumerators are calls of their class with the value.
                (None, Some(((module, name), _))) => Attribute::Other(format!("{module}.{name}")),
                (None, None) => Attribute::Other("an object".to_owned()),
            },
        }
    }

    fn ints(&self, v: Value<'a>) -> Option<Vec<i64>> {
        let items = match self.pickle.call(v) {
            Some((("torch", "Size"), [items])) => *items,
            _ => v,
        };
        let int = |v: &Value<'a>| match v {
            Value::Int(n) => Some(*n),
            _ => None,
        };
        self.pickle.items(items)?.iter().map(int).collect()
    }

    fn sizes(&self, v: Value<'a>) -> Result<Vec<u64>, Error> {
        let sizes = self.ints(v).and_then(|ints| ints.into_iter().map(|n| u64::try_from(n).ok()).collect());
        sizes.ok_or_else(|| bad("its sizes or strides are no natural numbers"))
    }

    fn dtype(&self, v: Value<'a>) -> Result<DType, Error> {
        match v {
            Value::Global("torch", name) => {
                dtype_named(name).ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("elements of type torch.{name}")))
            }
            _ => Err(bad("its element type is none")),
        }
    }

    fn rebuild(
        &self,
        storage: Value<'a>,
        offset: Value<'a>,
        size: Value<'a>,
        strides: Value<'a>,
        dtype: Option<DType>,
    ) -> Result<TensorData, Error> {
        let id = match self.pickle.object(storage) {
            Some(Object::Persistent(id)) => self.pickle.items(*id),
            _ => None,
        };
        let Some([Value::Str("storage"), Value::Global(module, kind), Value::Str(key), _, Value::Int(count), ..]) = id else {
            return Err(bad("its storage is not described as torch does"));
        };
        let typed = match (*module, *kind) {
            ("torch.storage", "UntypedStorage") => None,
            ("torch", kind) => DTYPES.iter().find(|(_, s, _)| *s == kind).map(|(_, _, t)| *t),
            _ => return Err(bad(format!("its storage is a {module}.{kind}"))),
        };
        let dtype = dtype.or(typed).ok_or_else(|| bad("nothing tells its element type"))?;
        let offset = match offset {
            Value::Int(n) => u64::try_from(n).ok(),
            _ => None,
        };
        let offset = offset.ok_or_else(|| bad("its storage offset is no natural number"))?;
        let entry = format!("data/{key}");
        let bytes = self.archive.data(&entry)?;
        let declared = u64::try_from(*count).ok().and_then(|n| n.checked_mul(typed.map_or(1, |t| t.size() as u64)));
        if declared.is_none_or(|n| n > bytes.byte_len()) {
            return Err(bad(format!("{entry}: {count} elements of {kind} need more than the {} bytes there are", bytes.byte_len())));
        }
        bytes.strided(dtype, self.sizes(size)?, self.sizes(strides)?, offset).map_err(|e| e.within(entry))
    }
}
