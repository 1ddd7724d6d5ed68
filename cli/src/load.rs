//! Opens whatever etx accepts, told apart by content.

use std::path::{Path, PathBuf};

use etx_import::pt2;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::program::Program;
use etx_ir::text;
use etx_ir::verify::verify;
use etx_ir::weights::MappedFile;

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
        Self::of_file(&MappedFile::open(path)?)
    }

    /// Looks at a file that is mapped already.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] when it is none of these.
    pub fn of_file(file: &MappedFile) -> Result<Self, Error> {
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
        let what = format!("{}: not a .pt2, graph.json, .etir or .pte file", file.path().display());
        Err(Error::new(ErrorKind::Format, what).help("torch.export.save writes .pt2 files; ExecuTorch and `etx lower` write .pte files"))
    }
}

/// How programs are loaded, and what they may refer to.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Weights of a `graph.json`: safetensors files, or indices of sharded sets.
    pub weights: Vec<PathBuf>,
    /// Whether a text may name weights outside its own folder (see [`text::Files`]).
    pub allow_outside: bool,
}

impl LoadOptions {
    /// As [`load()`], with these options.
    ///
    /// # Errors
    /// As [`load()`].
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Program, Error> {
        self.load_file(MappedFile::open(path)?)
    }

    /// Loads a file that is mapped already.
    ///
    /// # Errors
    /// As [`load()`].
    pub fn load_file(&self, file: MappedFile) -> Result<Program, Error> {
        let path = file.path().to_owned();
        let within = |e: Error| e.within(path.display().to_string());
        let kind = Kind::of_file(&file)?;
        if !self.weights.is_empty() && kind != Kind::GraphJson {
            let what = format!("{} has weights of its own", path.display());
            return Err(Error::new(ErrorKind::Unsupported, what).help("--weights goes with a graph.json"));
        }
        let program = match kind {
            Kind::Pt2 => pt2::load_file(file),
            Kind::GraphJson => pt2::load_json_file(&file, &self.weights),
            Kind::Text => self.load_text(&file).map_err(within),
            Kind::Pte => Err(Error::new(ErrorKind::Unsupported, format!("{} is lowered already", path.display()))
                .help("run it with `etx run`, or look at it with `etx print`")),
            Kind::Safetensors => Err(Error::new(ErrorKind::Unsupported, format!("{} holds tensors, not a program", path.display()))
                .help("give the graph.json, and this file with --weights")),
        };
        let advised = |e: Error| if e.remedy().is_none() { advice(kind, e) } else { e };
        let program = program.map_err(advised)?;
        verify(&program).map_err(within).map_err(advised)?;
        Ok(program)
    }

    /// Reads the text form. The files that it names for weights are below its folder, or were named from the working directory, where
    /// it was printed.
    fn load_text(&self, file: &MappedFile) -> Result<Program, Error> {
        let text = std::str::from_utf8(file.bytes())
            .map_err(|e| Error::new(ErrorKind::Format, format!("not UTF-8 text (at byte {:#x})", e.valid_up_to())))?;
        let files = text::Files::new(file.path().parent().unwrap_or(Path::new("")));
        text::parse(text, &mut if self.allow_outside { files.anywhere() } else { files })
    }

    /// Loads a program and adds its methods to another; where a `name` is given, the only method of the file, which gets that name, or
    /// the one of several that has it.
    ///
    /// # Errors
    /// As [`load()`]; [`ErrorKind::Invalid`] for two methods of one name, and for a `name` that none of several has.
    pub fn load_into(&self, program: &mut Program, name: Option<&str>, path: impl AsRef<Path>) -> Result<(), Error> {
        let mut more = self.load(&path)?;
        match (name, more.methods.as_mut_slice()) {
            (None, _) => {}
            (Some(name), [method]) => method.name = name.into(),
            (Some(name), methods) => {
                let names: Vec<String> = methods.iter().map(|m| m.name.to_string()).collect();
                more.methods.retain(|m| *m.name == *name);
                if more.methods.is_empty() {
                    let what = format!("{}: none of its {} methods is called {name:?}", path.as_ref().display(), names.len());
                    return Err(Error::new(ErrorKind::Invalid, what)
                        .help(format!("choose one of {}, or give the file without --method to have all", names.join(", "))));
                }
            }
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
}

/// What can be done about a file of this kind that is wrong, where nothing better is known.
fn advice(kind: Kind, e: Error) -> Error {
    match (e.kind(), kind) {
        (ErrorKind::Io | ErrorKind::Bug, _) => e,
        (_, Kind::Text) => e.help("correct the text there; `etx print` shows the form, and `etx ops NAME` what operators there are"),
        (ErrorKind::Format | ErrorKind::Invalid | ErrorKind::Weight | ErrorKind::Shape, _) => {
            e.help("export the program and save it with torch.export.save again; if torch loads this file, please report it with the file")
        }
        _ => e,
    }
}

/// Loads a program and verifies it: a `.pt2`, a `graph.json` with its weights beside it, or a text file, which may name weights below its
/// own folder. [`LoadOptions`] has more.
///
/// # Errors
/// As the readers in [`etx_import::pt2`] and [`etx_ir::text`], and as [`verify`]; [`ErrorKind::Unsupported`] for a `.pte`, which is opened with
/// [`crate::runtime`], and for weights beside a file that has its own.
pub fn load(path: impl AsRef<Path>, weights: &[PathBuf]) -> Result<Program, Error> {
    options(weights).load(path)
}

fn options(weights: &[PathBuf]) -> LoadOptions {
    LoadOptions { weights: weights.to_vec(), ..LoadOptions::default() }
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

/// As [`LoadOptions::load_into`], with these weights and no other options.
///
/// # Errors
/// As [`LoadOptions::load_into`].
pub fn load_into(program: &mut Program, name: Option<&str>, path: impl AsRef<Path>, weights: &[PathBuf]) -> Result<(), Error> {
    options(weights).load_into(program, name, path)
}
