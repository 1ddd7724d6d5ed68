//! Opens whatever etx accepts, told apart by content.

use std::path::{Path, PathBuf};

use etx_ir::error::{Error, ErrorKind};
use etx_ir::program::Program;
use etx_ir::verify::verify;
use etx_ir::weights::MappedFile;
use etx_import::pt2;
use etx_ir::text;

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An archive of torch.export.
    Pt2,
    /// The `model.json` of one.
    GraphJson,
    /// etx's text form.
    Text,
    /// An ExecuTorch program.
    Pte,
    /// Tensors by name.
    Safetensors,
}

impl Kind {
    /// Its name, which is the extension that such files have.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Pt2 => "pt2",
            Kind::GraphJson => "graph.json",
            Kind::Text => "etir",
            Kind::Pte => "pte",
            Kind::Safetensors => "safetensors",
        }
    }

    /// Looks at the file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be read, [`ErrorKind::Format`] when it is none of these.
    pub fn of(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = MappedFile::open(path)?;
        let bytes = file.bytes();
        // An archive cut short still begins like one, and should be reported as such.
        if bytes.starts_with(b"PK") {
            return Ok(Kind::Pt2);
        }
        if bytes.get(4..8) == Some(b"ET12") {
            return Ok(Kind::Pte);
        }
        // The length of a header, then the header, which is JSON.
        if bytes.get(8) == Some(&b'{') && bytes.get(4..8) == Some(&[0; 4]) {
            return Ok(Kind::Safetensors);
        }
        let start: Vec<u8> = bytes.iter().copied().take(4096).skip_while(u8::is_ascii_whitespace).collect();
        if start.starts_with(b"{") {
            return Ok(Kind::GraphJson);
        }
        if start.starts_with(b"etir") {
            return Ok(Kind::Text);
        }
        let what = format!("{}: not a .pt2, graph.json, .etir or .pte file", path.display());
        Err(Error::new(ErrorKind::Format, what).help("torch.export.save writes .pt2 files; ExecuTorch and `etx lower` write .pte files"))
    }
}

/// Loads a program and verifies it: a `.pt2`, a `graph.json` with its weights beside it, or a text file.
///
/// # Errors
/// As the readers in [`etx_import::pt2`] and [`etx_ir::text`], and as [`verify`]; [`ErrorKind::Unsupported`] for a `.pte`, which is opened with
/// [`crate::runtime`], and for weights beside a file that has its own.
pub fn load(path: impl AsRef<Path>, weights: &[PathBuf]) -> Result<Program, Error> {
    let path = path.as_ref();
    let within = |e: Error| e.within(path.display().to_string());
    let kind = Kind::of(path)?;
    if !weights.is_empty() && kind != Kind::GraphJson {
        let what = format!("{} has weights of its own", path.display());
        return Err(Error::new(ErrorKind::Unsupported, what).help("--weights goes with a graph.json"));
    }
    let program = match kind {
        Kind::Pt2 => pt2::load(path),
        Kind::GraphJson => pt2::load_json(path, weights),
        Kind::Text => load_text(path).map_err(within),
        Kind::Pte => Err(Error::new(ErrorKind::Unsupported, format!("{} is lowered already", path.display()))
            .help("run it with `etx run`, or look at it with `etx print`")),
        Kind::Safetensors => Err(Error::new(ErrorKind::Unsupported, format!("{} holds tensors, not a program", path.display()))
            .help("give the graph.json, and this file with --weights")),
    }?;
    verify(&program).map_err(within)?;
    Ok(program)
}

/// Reads the text form. The files that it names for weights are opened from the working directory, where it was printed.
fn load_text(path: &Path) -> Result<Program, Error> {
    let file = MappedFile::open(path)?;
    let text = std::str::from_utf8(file.bytes())
        .map_err(|e| Error::new(ErrorKind::Format, format!("not UTF-8 text (at byte {:#x})", e.valid_up_to())))?;
    text::parse(text, &mut text::Files::new(""))
}

/// Loads several programs into one, a method each.
///
/// # Errors
/// As [`load_into`].
pub fn load_methods(files: &[(String, PathBuf)], weights: &[PathBuf]) -> Result<Program, Error> {
    let mut all = Program::new();
    for (name, path) in files {
        load_into(&mut all, Some(name), path, weights)?;
    }
    Ok(all)
}

/// Loads a program and adds its methods to another. A `name` is for the only method of the file; where there are
/// several, they keep their own.
///
/// # Errors
/// As [`load`]; [`ErrorKind::Invalid`] for two methods of one name.
pub fn load_into(program: &mut Program, name: Option<&str>, path: impl AsRef<Path>, weights: &[PathBuf]) -> Result<(), Error> {
    let mut more = load(path, weights)?;
    if let (Some(name), [method]) = (name, more.methods.as_mut_slice()) {
        method.name = name.into();
    }
    for method in &more.methods {
        if program.method(&method.name).is_some() {
            return Err(Error::new(ErrorKind::Invalid, format!("two methods are called {:?}", method.name))
                .help("name them with --method NAME=FILE"));
        }
    }
    program.merge(more);
    Ok(())
}
