//! Reads programs that torch.export wrote: `.pt2` archives, and their `model.json` alone with weights in safetensors.
//!
//! Files are mapped; weights are described, never read. The generations of the container (`pt2-format.md` §1.1) differ in
//! where things are, and are told apart by the entries they have:
//!
//! | written by | program | weights |
//! |---|---|---|
//! | torch 2.9 and later | `ROOT/models/NAME.json` | `ROOT/data/…`: raw files, and JSON that describes them |
//! | torch 2.8 | `ROOT/models/NAME.json` | `ROOT/data/weights/NAME.pt`, `ROOT/data/constants/NAME.pt` |
//! | torch 2.5 to 2.7, ExecuTorch's `exir.save` | `serialized_exported_program.json` | `serialized_state_dict.pt`, `serialized_constants.pt` |
//!
//! `.pt` files are zip files of their own with a pickle inside. So are weights that are tensor subclasses, in any
//! generation; these are resolved into plain tensors (see `subclass.rs`).
//!
//! ```no_run
//! let program = etx_import::pt2::load("model.pt2")?;
//! for method in &program.methods {
//!     println!("{}: {} calls", method.name, method.graph.len());
//! }
//! # Ok::<(), etx_ir::error::Error>(())
//! ```

mod archive;
mod convert;
mod json;
mod model;
mod pickle;
mod saved;
mod source;
mod stores;
mod subclass;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use archive::Archive;
use stores::{Beside, Dictionaries, Packed, WeightSource};

use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::program::Program;
use etx_ir::weights::{MappedFile, TensorData};

/// The entry that holds the program in files without a root folder.
const FLAT_PROGRAM: &str = "serialized_exported_program.json";

/// Loads a `.pt2` archive. Its models become methods of the same names, but for what torch.export.save calls `model`: `forward`.
///
/// # Errors
/// Of every kind in [`ErrorKind`]; each says where and what to do, and names all that is wrong of one kind at once.
pub fn load(path: impl AsRef<Path>) -> Result<Program, Error> {
    load_file(MappedFile::open(path)?)
}

/// Loads an archive that is mapped already.
///
/// # Errors
/// As [`load`].
pub fn load_file(file: MappedFile) -> Result<Program, Error> {
    let path = file.path().display().to_string();
    let open = || {
        let size = file.bytes().len() as u64;
        load_archive(Archive::open(TensorData::mapped(DType::UInt8, vec![size], file, 0)?)?)
    };
    open().map_err(|e: Error| e.within(path))
}

fn load_archive(mut archive: Archive) -> Result<Program, Error> {
    let mut program = Program::new();
    if archive.has(FLAT_PROGRAM) {
        let dictionaries = Dictionaries::open(&archive, "serialized_state_dict.pt".to_owned(), "serialized_constants.pt".to_owned());
        add_method(&mut program, &archive, FLAT_PROGRAM, "forward", |_| Ok(dictionaries))?;
        return Ok(program);
    }
    if let Some(e) = other_kind(&archive) {
        return Err(e);
    }
    archive.strip_root()?;
    for (entry, expected, kind) in [("archive_format", "pt2", ErrorKind::Format), ("archive_version", "0", ErrorKind::Version)] {
        let found = archive.read(entry)?;
        if found.trim_ascii_end() != expected.as_bytes() {
            let found: String = String::from_utf8_lossy(found).chars().take(32).collect();
            return Err(Error::new(kind, format!("{entry} is {found:?}; {expected} is supported")));
        }
    }
    if archive.has("byteorder") && archive.read("byteorder")? == b"big" {
        return Err(Error::new(ErrorKind::Unsupported, "the weights are big-endian").help("save the program on a little-endian machine"));
    }
    let models: Vec<&str> = archive.names().filter_map(|n| n.strip_prefix("models/")?.strip_suffix(".json")).collect();
    if models.is_empty() {
        let e = Error::new(ErrorKind::Format, "the archive holds no models/NAME.json");
        let compiled = archive.names().any(|n| n.starts_with("data/aotinductor/"));
        return Err(e.help(if compiled {
            "it holds a compiled AOTInductor program only; save the exported program itself"
        } else {
            "torch.export.save leaves such a file when it fails; see what it raised, or save `exported_program.run_decompositions({})`"
        }));
    }
    for model in &models {
        // What torch.export.save calls the only model that it is given; other names were chosen.
        let name = if models.len() == 1 && *model == "model" { "forward" } else { model };
        let entry = format!("models/{model}.json");
        let state = format!("data/weights/{model}.pt");
        if archive.has(&state) {
            let dictionaries = Dictionaries::open(&archive, state, format!("data/constants/{model}.pt"));
            add_method(&mut program, &archive, &entry, name, |_| Ok(dictionaries))?;
        } else {
            add_method(&mut program, &archive, &entry, name, |major| Packed::open(&archive, model, major))?;
        }
    }
    Ok(program)
}

fn add_method<W: WeightSource>(
    program: &mut Program,
    archive: &Archive,
    entry: &str,
    name: &str,
    weights: impl FnOnce(i64) -> Result<W, Error>,
) -> Result<(), Error> {
    let json = json::program(archive.read(entry)?).map_err(|e| e.within(entry.to_owned()))?;
    let weights = weights(json.schema_version.major)?;
    convert::method(program, name, json, &weights).map_err(|e| e.within(entry.to_owned()))
}

/// What a zip file is that is no exported program.
fn other_kind(archive: &Archive) -> Option<Error> {
    let has = |suffix: &str| archive.names().any(|n| n == suffix || n.strip_suffix(suffix).is_some_and(|root| root.ends_with('/')));
    let e = |what: &str| Error::new(ErrorKind::Format, format!("{what}, not an exported program"));
    let help = "export the model with torch.export.export and save it with torch.export.save";
    if has("archive_format") {
        None
    } else if has("constants.pkl") {
        Some(e("a TorchScript file").help(help))
    } else if has("data.pkl") {
        Some(e("a torch.save file").help(help))
    } else {
        Some(e("a zip file without archive_format"))
    }
}

/// Loads `model.json` of an archive on its own (`graph.json`), with weights by name in safetensors files or their index files.
///
/// # Errors
/// As [`load`].
pub fn load_json(path: impl AsRef<Path>, weights: &[PathBuf]) -> Result<Program, Error> {
    load_json_file(&MappedFile::open(path)?, weights)
}

/// Loads a `model.json` that is mapped already.
///
/// # Errors
/// As [`load`].
pub fn load_json_file(file: &MappedFile, weights: &[PathBuf]) -> Result<Program, Error> {
    let tensors = crate::safetensors::open_all(weights)?;
    let mut program = Program::new();
    json::program(file.bytes())
        .and_then(|json| convert::method(&mut program, "forward", json, &Beside { tensors, none_given: weights.is_empty() }))
        .map_err(|e| e.within(file.path().display().to_string()))?;
    Ok(program)
}
