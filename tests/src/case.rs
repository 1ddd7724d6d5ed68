//! A case folder, as `tests/scripts/case.py` describes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::compare::Limit;
use crate::tensor::{self, Tensor};

/// A conformance case.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Name within the group.
    pub name: String,
    /// `fixtures` for our own, else the collection it comes from.
    pub group: String,
    /// False where results are random.
    #[serde(default = "yes")]
    pub compare: bool,
    rtol: Option<f64>,
    atol: Option<f64>,
    nrm: Option<f64>,
    /// The methods by name.
    pub methods: BTreeMap<String, Method>,
    /// What the reference made of it; absent where it aborts or is wrong.
    pub reference: Option<Reference>,
    /// Partitions allowed per method where there is no reference.
    #[serde(default)]
    pub partitions: BTreeMap<String, usize>,
    /// Whether a call may also be refused because its sizes are not those for which the program was exported.
    #[serde(default)]
    pub or_refused: bool,
    #[serde(default)]
    note: Note,
    #[serde(skip)]
    folder: PathBuf,
}

/// What the maker of a case wrote down, as far as a run needs it.
#[derive(Clone, Debug, Default, Deserialize)]
struct Note {
    /// Geometry that the reference's runner was given for caches held by the runtime.
    #[serde(default)]
    kv_cache: Option<String>,
}

/// One method of a case.
#[derive(Clone, Debug, Deserialize)]
pub struct Method {
    /// File of the program.
    pub program: String,
    /// File of its functional form.
    pub functional_program: Option<String>,
    /// How many calls are made.
    pub steps: usize,
    /// One for each input; all tensors where absent.
    input_kinds: Option<Vec<Kind>>,
    /// One for each output; all tensors where absent.
    output_kinds: Option<Vec<Kind>>,
}

/// What a value of the signature is in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A tensor.
    Tensor,
    /// An integer, stored as int64 of rank 0.
    Int,
    /// A float, stored as float64 of rank 0.
    Float,
    /// A boolean, stored as such of rank 0.
    Bool,
    /// None, not stored.
    None,
}

/// Summary of the reference's file.
#[derive(Clone, Debug, Deserialize)]
pub struct Reference {
    /// Its name in the folder; absent where only the summary is kept.
    pub file: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// Delegate calls per method.
    pub partitions: BTreeMap<String, usize>,
    /// Operators left outside per method, with their numbers.
    pub undelegated: BTreeMap<String, BTreeMap<String, usize>>,
    /// MLX instructions over all methods.
    pub instructions: BTreeMap<String, u64>,
}

/// A user input or output: its kind, and its value unless that is None.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// What it is in Python.
    pub kind: Kind,
    /// The value; scalars as rank-0 tensors.
    pub tensor: Option<Tensor>,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Step {
    /// Every user input in call order.
    pub inputs: Vec<Value>,
    /// Every output in order.
    pub expected: Vec<Value>,
}

fn yes() -> bool {
    true
}

impl Case {
    /// Read `case.json` of a folder.
    pub fn read(folder: &Path) -> Result<Case, String> {
        let path = folder.join("case.json");
        let text = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut case: Case = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        folder.clone_into(&mut case.folder);
        if case.limit().is_none() {
            return Err(format!("{}: neither rtol and atol nor nrm", path.display()));
        }
        Ok(case)
    }

    /// Group and name.
    pub fn id(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// Element type (by ExecuTorch's number) in which the reference's runner kept keys and values outside the program: the
    /// last of `layers,heads,…` in the note. Nothing in a program says it; without it they are kept as they come.
    pub fn cache_dtype(&self) -> Option<i8> {
        self.note.kv_cache.as_ref()?.rsplit(',').next()?.parse().ok()
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// How far outputs may be off.
    pub fn limit(&self) -> Option<Limit> {
        match (self.nrm, self.rtol, self.atol) {
            (Some(nrm), ..) => Some(Limit::OfLargest(nrm)),
            (None, Some(rtol), Some(atol)) => Some(Limit::Elementwise { rtol, atol }),
            _ => None,
        }
    }

    /// Most partitions that a method may be lowered to. A reference that delegates nothing at all sets no limit of none.
    pub fn partition_limit(&self, method: &str) -> Option<usize> {
        match &self.reference {
            Some(reference) => reference.partitions.get(method).map(|n| (*n).max(1)),
            None => self.partitions.get(method).copied(),
        }
    }

    /// The calls of every method in order.
    pub fn steps(&self) -> Result<BTreeMap<String, Vec<Step>>, String> {
        let mut io = tensor::read_file(&self.file("io.safetensors"))?;
        let mut all = BTreeMap::new();
        for (name, method) in &self.methods {
            let steps = (0..method.steps)
                .map(|step| {
                    Ok(Step {
                        inputs: values(&mut io, &format!("{name}.{step}.input"), method.input_kinds.as_deref())?,
                        expected: values(&mut io, &format!("{name}.{step}.expected"), method.output_kinds.as_deref())?,
                    })
                })
                .collect::<Result<Vec<_>, String>>()?;
            all.insert(name.clone(), steps);
        }
        match io.keys().next() {
            Some(left) => Err(format!("io.safetensors: `{left}` belongs to no call")),
            None => Ok(all),
        }
    }
}

fn values(io: &mut BTreeMap<String, Tensor>, prefix: &str, kinds: Option<&[Kind]>) -> Result<Vec<Value>, String> {
    let Some(kinds) = kinds else {
        return Ok((0..)
            .map_while(|i| io.remove(&format!("{prefix}.{i}")))
            .map(|tensor| Value { kind: Kind::Tensor, tensor: Some(tensor) })
            .collect());
    };
    kinds
        .iter()
        .enumerate()
        .map(|(i, &kind)| {
            let name = format!("{prefix}.{i}");
            let tensor = io.remove(&name);
            match (kind, &tensor) {
                (Kind::None, None) | (_, Some(_)) => Ok(Value { kind, tensor }),
                (_, None) => Err(format!("io.safetensors: no `{name}`")),
            }
        })
        .collect()
}

/// The folders that hold cases: our own, and those that `ETX_CASES` names (separated like `PATH`).
pub fn roots() -> Vec<PathBuf> {
    let mut roots = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")];
    if let Some(more) = std::env::var_os("ETX_CASES") {
        roots.extend(std::env::split_paths(&more).filter(|p| !p.as_os_str().is_empty()));
    }
    roots
}

/// Every folder below `root` that holds a `case.json`, in order of path.
pub fn find(root: &Path) -> Result<Vec<PathBuf>, String> {
    if root.join("case.json").is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let unreadable = |e: std::io::Error| format!("{}: {e}", root.display());
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(root).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    let mut cases = Vec::new();
    for folder in folders {
        cases.extend(find(&folder)?);
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_committed_case_is_complete() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let folders = find(&root).unwrap();
        assert!(folders.len() >= 60, "{} cases", folders.len());
        for folder in folders {
            let case = Case::read(&folder).unwrap();
            assert_eq!(folder.file_name().unwrap().to_str(), Some(case.name.as_str()));
            let steps = case.steps().unwrap_or_else(|e| panic!("{}: {e}", case.id()));
            for (name, method) in &case.methods {
                assert!(case.file(&method.program).is_file());
                assert!(case.partition_limit(name).is_some(), "{}", case.id());
                assert!(steps[name].iter().all(|s| !s.inputs.is_empty() && !s.expected.is_empty()));
            }
            let kept = case.reference.as_ref().is_some_and(|r| r.file.is_some());
            assert_eq!(kept, case.file("reference.pte").is_file(), "{}", case.id());
        }
    }
}
