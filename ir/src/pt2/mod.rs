//! Reads programs that torch.export wrote: `.pt2` archives, and their `model.json` alone with weights in safetensors.
//!
//! Files are mapped; weights are described, never read. The container generations are those of `pt2-format.md` §1.1:
//! archives with raw weights (torch 2.9 and later), archives with one torch.save file a model (2.8), and flat zip files
//! (2.7 and earlier, and ExecuTorch's own).

mod archive;
mod convert;
mod model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use archive::Archive;
use convert::WeightSource;

use crate::error::{Error, ErrorKind};
use crate::program::Program;
use crate::weights::{MappedFile, TensorData};

/// A `model.json` larger than this is refused; a real one is some 2 to 4 kB a node.
const MAX_JSON: u64 = 1 << 30;

/// Loads a `.pt2` archive. Its models become methods: the only one is called `forward`, several keep their names.
///
/// # Errors
/// Of every kind in [`ErrorKind`]; each says where and what to do.
pub fn load(path: impl AsRef<Path>) -> Result<Program, Error> {
    let path = path.as_ref();
    let named = |e: Error| e.within(path.display().to_string());
    let file = MappedFile::open(path)?;
    load_mapped(file).map_err(named)
}

fn load_mapped(file: MappedFile) -> Result<Program, Error> {
    let mut archive = Archive::open(file)?;
    if let Some(e) = other_kind(&archive) {
        return Err(e);
    }
    archive.strip_root()?;
    let format = archive.read("archive_format")?;
    if *format != *b"pt2" {
        return Err(Error::new(ErrorKind::Format, format!("unsupported archive format {:?}", String::from_utf8_lossy(&format))));
    }
    let version = archive.read("archive_version")?;
    if *version != *b"0" {
        return Err(Error::new(ErrorKind::Version, format!("archive version {:?}; 0 is supported", String::from_utf8_lossy(&version))));
    }
    if archive.has("byteorder") && *archive.read("byteorder")? == *b"big" {
        return Err(Error::new(ErrorKind::Unsupported, "the weights are big-endian").help("save the program on a little-endian machine"));
    }
    let models: Vec<String> =
        archive.names().filter_map(|n| Some(n.strip_prefix("models/")?.strip_suffix(".json")?.to_owned())).collect();
    if models.is_empty() {
        let e = Error::new(ErrorKind::Format, "the archive holds no models/<name>.json");
        let compiled = archive.names().any(|n| n.starts_with("data/aotinductor/"));
        return Err(if compiled { e.help("it holds a compiled AOTInductor program only; save the exported program itself") } else { e });
    }
    let mut program = Program::new();
    for model in &models {
        let json = archive.read(&format!("models/{model}.json"))?;
        let json = parse(&json).map_err(|e| e.within(format!("models/{model}.json")))?;
        let weights = Packed::new(&archive, model, json.schema_version.major)?;
        let name = if models.len() == 1 { "forward" } else { model };
        convert::method(&mut program, name, json, &weights)?;
    }
    Ok(program)
}

/// What a zip file is that is no exported program.
fn other_kind(archive: &Archive) -> Option<Error> {
    let has = |suffix: &str| archive.names().any(|n| n == suffix || n.ends_with(&format!("/{suffix}")));
    let e = |what: &str| Error::new(ErrorKind::Format, format!("{what}, not an exported program"));
    if has("archive_format") {
        None
    } else if has("constants.pkl") {
        Some(e("a TorchScript file").help("export the model with torch.export.export and save it with torch.export.save"))
    } else if has("data.pkl") {
        Some(e("a torch.save file").help("export the model with torch.export.export and save it with torch.export.save"))
    } else {
        Some(e("a zip file without archive_format"))
    }
}

/// Loads `model.json` of an archive on its own (`graph.json`), with weights by name in safetensors files or their index files.
///
/// # Errors
/// As [`load`].
pub fn load_json(path: impl AsRef<Path>, weights: &[PathBuf]) -> Result<Program, Error> {
    let path = path.as_ref();
    let file = MappedFile::open(path)?;
    let named = |e: Error| e.within(path.display().to_string());
    let tensors = crate::safetensors::open_all(weights)?;
    let json = parse(file.bytes()).map_err(named)?;
    let mut program = Program::new();
    convert::method(&mut program, "forward", json, &Beside { tensors, none_given: weights.is_empty() }).map_err(named)?;
    Ok(program)
}

fn parse(bytes: &[u8]) -> Result<model::ExportedProgram, Error> {
    let bad = |what: String| Error::new(ErrorKind::Format, what);
    if bytes.len() as u64 > MAX_JSON {
        return Err(bad(format!("{} bytes of JSON; at most {MAX_JSON} are accepted", bytes.len())));
    }
    // Files of torch 2.5 and of ExecuTorch have bare NaN and Infinity, which JSON does not.
    let quoted;
    let (version, bytes) = match serde_json::from_slice::<model::VersionOnly>(bytes) {
        Ok(v) => (v, bytes),
        Err(first) => {
            quoted = quote_special_floats(bytes);
            match serde_json::from_slice::<model::VersionOnly>(&quoted) {
                Ok(v) => (v, quoted.as_slice()),
                Err(_) => return Err(bad(format!("not the JSON of an exported program: {first}"))),
            }
        }
    };
    match version.schema_version {
        model::SchemaVersion { major: 5 | 7 | 8, .. } | model::SchemaVersion { major: 0, minor: 0 } => {}
        model::SchemaVersion { major, minor } => {
            return Err(Error::new(ErrorKind::Version, format!("schema version {major}.{minor}; 8, 7 and 5 are supported"))
                .help("save the program with torch 2.5 or later"));
        }
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json).map_err(|e| bad(format!("{}: {}", e.path(), e.inner())))
}

/// Puts quotes around `NaN`, `Infinity` and `-Infinity` outside of strings.
fn quote_special_floats(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    let (mut at, mut in_string) = (0, false);
    while let Some(&b) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or(&[]);
        match b {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                out.extend(rest.iter().take(2));
                at += 2;
                continue;
            }
            _ if in_string => {}
            _ => {
                if let Some(token) = [&b"-Infinity"[..], b"Infinity", b"NaN"].into_iter().find(|t| rest.starts_with(t)) {
                    out.push(b'"');
                    out.extend(token);
                    out.push(b'"');
                    at += token.len();
                    continue;
                }
            }
        }
        out.push(b);
        at += 1;
    }
    out
}

/// Weights of an archive of torch 2.9 or later: raw files and JSON that describes them.
struct Packed<'a> {
    archive: &'a Archive,
    weights: BTreeMap<String, model::Payload>,
    constants: BTreeMap<String, model::Payload>,
    major: i64,
}

impl<'a> Packed<'a> {
    fn new(archive: &'a Archive, model: &str, major: i64) -> Result<Self, Error> {
        let config = |path: String| -> Result<BTreeMap<String, model::Payload>, Error> {
            if !archive.has(&path) {
                return Ok(BTreeMap::new());
            }
            let config: model::PayloadConfig = serde_json::from_slice(&archive.read(&path)?)
                .map_err(|e| Error::new(ErrorKind::Format, format!("{path}: {e}")))?;
            Ok(config.config)
        };
        Ok(Self {
            archive,
            weights: config(format!("data/weights/{model}_weights_config.json"))?,
            constants: config(format!("data/constants/{model}_constants_config.json"))?,
            major,
        })
    }
}

impl WeightSource for Packed<'_> {
    fn weight(&self, fqn: &str, persistent: bool) -> Result<TensorData, Error> {
        let (folder, config) = if persistent { ("weights", &self.weights) } else { ("constants", &self.constants) };
        let bad = |what: String| Error::new(ErrorKind::Weight, format!("weight {fqn:?}: {what}"));
        let payload = config.get(fqn).ok_or_else(|| {
            bad(format!("not in data/{folder}")).help("the archive was saved without its weights; save it with torch.export.save")
        })?;
        if payload.use_pickle {
            return Err(bad("stored as a pickled tensor subclass".to_owned()).help(
                "quantised weights must be plain tensors for now: save `exported_program.run_decompositions({})` instead of `exported_program`",
            ));
        }
        let meta = payload.tensor_meta.as_ref().ok_or_else(|| bad("no tensor metadata".to_owned()))?;
        let t = convert::tensor_type(meta, self.major).map_err(&bad)?;
        let known = |list: &[crate::sym::Expr]| list.iter().map(|e| e.as_int().and_then(|n| u64::try_from(n).ok())).collect::<Option<Vec<u64>>>();
        let shape = known(&t.shape).ok_or_else(|| bad(format!("sizes {:?} are not numbers", t.shape)))?;
        let strides = match &t.strides {
            Some(s) => known(s).ok_or_else(|| bad(format!("strides {s:?} are not numbers")))?,
            None => contiguous(&shape).ok_or_else(|| bad("too large".to_owned()))?,
        };
        let offset = match &meta.storage_offset {
            None => 0,
            Some(model::SymScalar::AsInt(n)) => u64::try_from(*n).map_err(|_| bad(format!("storage offset {n}")))?,
            Some(_) => return Err(bad("its storage offset is not a number".to_owned())),
        };
        let entry = format!("data/{folder}/{}", payload.path_name);
        let storage = self.archive.data(&entry).map_err(|e| bad(e.to_string()))?;
        if storage.byte_len() == 0 && !shape.contains(&0) {
            return Err(bad("its bytes were not saved".to_owned()).help("the program was exported from fake or meta tensors; export the real model"));
        }
        storage.strided(t.dtype, shape, strides, offset).map_err(|e| bad(format!("{entry}: {e}")))
    }
}

/// Strides of a row-major tensor, in elements.
fn contiguous(shape: &[u64]) -> Option<Vec<u64>> {
    let mut strides = vec![1; shape.len()];
    let mut next: u64 = 1;
    for (s, &n) in strides.iter_mut().zip(shape).rev() {
        *s = next;
        next = next.checked_mul(n.max(1))?;
    }
    Some(strides)
}

/// Weights in safetensors files beside a `graph.json`.
struct Beside {
    tensors: BTreeMap<String, TensorData>,
    none_given: bool,
}

impl WeightSource for Beside {
    fn weight(&self, fqn: &str, _persistent: bool) -> Result<TensorData, Error> {
        self.tensors.get(fqn).cloned().ok_or_else(|| {
            let e = Error::new(ErrorKind::Weight, format!("weight {fqn:?}: in none of the weight files"));
            let help = if self.none_given {
                "a graph.json has no weights of its own: give them with --weights FILE.safetensors"
            } else {
                "add the file that has it with another --weights; names are those of the model's parameters, buffers and constants"
            };
            e.help(help)
        })
    }
}
