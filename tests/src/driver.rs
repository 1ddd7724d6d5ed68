//! The only calls into `etx`: everything else here knows cases, tensors and texts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use etx::ir::DType;
use etx::ir::error::ErrorKind;
use etx::ir::program::Program;
use etx::runtime;
use safetensors::Dtype;

use crate::case::{Kind, Value};
use crate::tensor::Tensor;

/// What lowering said of the file it wrote.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// Delegated partitions per method.
    pub partitions: BTreeMap<String, usize>,
    /// What the backend refused.
    pub refused: Vec<Refused>,
    /// MLX instructions over all methods, named as in the schema's table (`AddNode`).
    pub instructions: BTreeMap<String, u64>,
}

/// A node that stays outside the delegate.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Method it is in.
    pub method: String,
    /// Its name.
    pub node: String,
    /// Operator, e.g. `aten.permute.default`.
    pub op: String,
    /// The node and the backend's reason.
    pub why: String,
}

/// Why there is no file.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The passes say no, or the backend does not run every node; which, and why.
    Refused(Vec<Refused>),
    /// Anything else.
    Failed(String),
}

/// Lower the programs, one a method, into the file `out`.
pub fn lower(programs: &[(String, PathBuf)], out: &Path) -> Result<Lowered, String> {
    let program = etx::load_methods(programs, &[]).map_err(|e| e.to_string())?;
    lower_program(program, out).map_err(|e| match e {
        Trouble::Refused(nodes) => nodes.iter().map(|r| format!("{}: {}", r.method, r.why)).collect::<Vec<_>>().join("\n"),
        Trouble::Failed(why) => why,
    })
}

/// Lower a program into the file `out`.
pub fn lower_program(program: Program, out: &Path) -> Result<Lowered, Trouble> {
    let options = etx::passes::Options::verified();
    let lowered = etx::Lowering::mlx().options(options).run(program).map_err(|e| match e {
        etx::lower::Error::Ir(e) if e.kind() == ErrorKind::Unsupported => {
            Trouble::Refused(vec![Refused { method: String::new(), node: String::new(), op: String::new(), why: e.to_string() }])
        }
        etx::lower::Error::Refused(report) => Trouble::Refused(report.refused().map(|(method, r)| refused(method, r)).collect()),
        e => Trouble::Failed(e.to_string()),
    })?;
    let report = lowered.write(out).map_err(|e| Trouble::Failed(e.to_string()))?;
    let mut summary = Lowered::default();
    for m in &report.methods {
        summary.partitions.insert(m.method.clone(), m.partitions);
        for (name, n) in &m.instructions {
            *summary.instructions.entry(name.clone()).or_insert(0) += n;
        }
        summary.refused.extend(m.refused.iter().map(|r| refused(&m.method, r)));
    }
    Ok(summary)
}

fn refused(method: &str, r: &etx::partitioner::report::RefusedNode) -> Refused {
    Refused { method: method.to_owned(), node: r.node.clone(), op: r.op.clone(), why: r.to_string() }
}

/// Lower a program with weights quantised by these rules into the file `out`: its tensors, by key without the number of the delegate.
pub fn lower_quantized(program: &Path, rules: &str, out: &Path) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let program = etx::load(program, &[]).map_err(|e| text(&e))?;
    let options = etx::passes::Options::verified();
    let rules = rules.parse().map_err(|e: etx::ir::error::Error| text(&e))?;
    etx::Lowering::mlx().options(options).quantize(rules).run(program).map_err(|e| text(&e))?.write(out).map_err(|e| text(&e))?;
    stored(out)
}

/// The tensors that a file names, by key without the number of the delegate.
pub fn stored(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let file = etx::serializer::pte::PteFile::open(path).map_err(|e| e.to_string())?;
    let mut found = BTreeMap::new();
    for entry in &file.program().named_data {
        let bytes = file.named_data(&entry.key).map(|w| w.bytes()).ok_or_else(|| format!("no bytes under {}", entry.key))?;
        found.insert(entry.key.rsplit('/').next().unwrap_or_default().to_owned(), bytes.to_vec());
    }
    Ok(found)
}

/// What callers see of each method of a file: how arguments and results nest, what goes in, and of what type and rank is what
/// comes out. (Bounds of sizes known at run time may be closer in one file than in another.)
pub fn signatures(path: &Path) -> Result<BTreeMap<String, [String; 4]>, String> {
    use etx::serializer::pte::model::{EValue, ExecutionPlan};
    let file = etx::serializer::pte::PteFile::open(path).map_err(|e| e.to_string())?;
    // Blanks do not count.
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).map_or_else(|_| text.to_owned(), |v| v.to_string());
    let value = |plan: &ExecutionPlan, i: i32| usize::try_from(i).ok().and_then(|i| plan.values.get(i).cloned());
    let input = |v: Option<EValue>| match v {
        Some(EValue::Tensor(t)) => format!("{}{:?} {:?}", t.scalar_type, t.sizes, t.shape_dynamism),
        // The reference has nothing in the place of an integer that was left open.
        Some(EValue::Null | EValue::Int(_)) => "integer or nothing".to_owned(),
        other => other.map_or("nothing", |v| v.kind()).to_owned(),
    };
    let output = |v: Option<EValue>| match v {
        Some(EValue::Tensor(t)) => format!("{} of {} axes", t.scalar_type, t.sizes.len()),
        other => other.map_or("nothing", |v| v.kind()).to_owned(),
    };
    let signature = |plan: &ExecutionPlan| {
        let nesting = plan.container_meta_type.clone().unwrap_or_default();
        let inputs: Vec<String> = plan.inputs.iter().map(|&i| input(value(plan, i))).collect();
        let outputs: Vec<String> = plan.outputs.iter().map(|&i| output(value(plan, i))).collect();
        [json(&nesting.encoded_inp_str), json(&nesting.encoded_out_str), inputs.join(", "), outputs.join(", ")]
    };
    Ok(file.methods().iter().map(|plan| (plan.name.clone(), signature(plan))).collect())
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub struct CallError {
    /// Whether it was refused before anything was computed, since the program was not exported for such inputs.
    pub condition: bool,
    /// What is wrong.
    pub what: String,
}

impl From<String> for CallError {
    fn from(what: String) -> Self {
        CallError { condition: false, what }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<CallError> for String {
    fn from(e: CallError) -> Self {
        e.what
    }
}

/// An opened `.pte`.
#[derive(Debug)]
pub struct File(runtime::Runtime);

/// One loaded method, with its state.
pub struct Loaded(runtime::Method);

impl File {
    /// Open and check a file.
    pub fn open(path: &Path) -> Result<File, String> {
        runtime::Runtime::open(path).map(File).map_err(|e| e.to_string())
    }

    /// Load one of its methods, its state as the file says; caches that the runtime keeps are of this type (by
    /// ExecuTorch's number), if one is given.
    pub fn load(&self, method: &str, cache_dtype: Option<i8>) -> Result<Loaded, String> {
        let mut method = self.0.load_method(method).map_err(|e| e.to_string())?;
        method.set_cache_dtype(cache_dtype.and_then(DType::from_et_code));
        Ok(Loaded(method))
    }
}

impl Loaded {
    /// One call: the outputs in order, numbers as rank-0 tensors.
    pub fn call(&mut self, inputs: &[Value]) -> Result<Vec<Value>, CallError> {
        let inputs = inputs.iter().map(argument).collect::<Result<Vec<_>, _>>()?;
        let refused = |e: runtime::Error| CallError { condition: e.kind() == runtime::ErrorKind::Condition, what: e.to_string() };
        let outputs = self.0.execute(&inputs).map_err(refused)?;
        Ok(outputs.iter().map(result).collect::<Result<_, _>>()?)
    }
}

/// Element types under both names.
pub(crate) const TYPES: &[(Dtype, DType)] = &[
    (Dtype::BOOL, DType::Bool),
    (Dtype::U8, DType::UInt8),
    (Dtype::I8, DType::Int8),
    (Dtype::I16, DType::Int16),
    (Dtype::U16, DType::UInt16),
    (Dtype::I32, DType::Int32),
    (Dtype::U32, DType::UInt32),
    (Dtype::I64, DType::Int64),
    (Dtype::U64, DType::UInt64),
    (Dtype::F16, DType::Float16),
    (Dtype::BF16, DType::BFloat16),
    (Dtype::F32, DType::Float32),
    (Dtype::F64, DType::Float64),
];

fn argument(value: &Value) -> Result<runtime::Value, String> {
    let Some(t) = &value.tensor else { return Ok(runtime::Value::None) };
    let bytes = || t.bytes.as_slice().try_into().map_err(|_| format!("a {:?} of {} bytes", value.kind, t.bytes.len()));
    Ok(match value.kind {
        Kind::Int => runtime::Value::Int(i64::from_le_bytes(bytes()?)),
        Kind::Float => runtime::Value::Float(f64::from_le_bytes(bytes()?)),
        Kind::Bool => runtime::Value::Bool(t.bytes != [0]),
        Kind::None => runtime::Value::None,
        Kind::Tensor => {
            let (_, dtype) = TYPES.iter().find(|(s, _)| *s == t.dtype).ok_or_else(|| format!("no tensors of {:?}", t.dtype))?;
            let tensor = runtime::Tensor::from_bytes(*dtype, &t.shape, &t.bytes).map_err(|e| e.to_string())?;
            runtime::Value::Tensor(tensor)
        }
    })
}

fn result(value: &runtime::Value) -> Result<Value, String> {
    let kind = match value {
        runtime::Value::Tensor(_) => Kind::Tensor,
        runtime::Value::Int(_) => Kind::Int,
        runtime::Value::Float(_) => Kind::Float,
        runtime::Value::Bool(_) => Kind::Bool,
        runtime::Value::None => Kind::None,
        runtime::Value::Str(_) => return Err("the method returned a text".to_owned()),
    };
    let Some(t) = value.to_tensor() else { return Ok(Value { kind, tensor: None }) };
    let (dtype, _) = TYPES.iter().find(|(_, d)| *d == t.dtype()).ok_or_else(|| format!("the method returned {}", t.dtype()))?;
    let bytes = t.to_bytes().map_err(|e| e.to_string())?;
    Ok(Value { kind, tensor: Some(Tensor { dtype: *dtype, shape: t.shape().to_vec(), bytes }) })
}
