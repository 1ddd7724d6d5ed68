//! The JSON of an exported program, as serde types.
//!
//! The shapes are those of torch's export schema 8 (`pt2-format.md` §2); older spellings that can be read without
//! doubt are accepted beside the new ones. Unknown keys are ignored, as torch does; an unknown key of a union is an
//! error. Node metadata is most of such a file and is skipped but for the source line.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::source;

/// A whole `models/<name>.json`.
#[derive(Deserialize)]
pub(crate) struct ExportedProgram {
    pub graph_module: GraphModule,
    #[serde(default)]
    pub range_constraints: BTreeMap<String, RangeConstraint>,
    #[serde(default)]
    pub guards_code: Option<Vec<String>>,
    pub schema_version: SchemaVersion,
    #[serde(default)]
    pub verifiers: Vec<String>,
    #[serde(default)]
    pub dialect: Option<String>,
}

/// Only the version, to be read before anything else is.
#[derive(Deserialize)]
pub(crate) struct VersionOnly {
    pub schema_version: SchemaVersion,
}

#[derive(Deserialize, Clone, Copy)]
pub(crate) struct SchemaVersion {
    pub major: i64,
    pub minor: i64,
}

#[derive(Deserialize)]
pub(crate) struct RangeConstraint {
    #[serde(default)]
    pub min_val: Option<Bound>,
    #[serde(default)]
    pub max_val: Option<Bound>,
}

/// An integer, or an infinity in one of its spellings (which bounds nothing).
pub(crate) struct Bound(pub Option<i64>);

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(match Number::deserialize(d)? {
            Number::Int(n) => Bound(Some(n)),
            // torch's stand-in for "any size" in older files is a float too large for an integer.
            Number::Float(x) if x.is_finite() && x.abs() < 9.0e18 => Bound(Some(x as i64)),
            Number::Float(_) => Bound(None),
        })
    }
}

#[derive(Deserialize)]
pub(crate) struct GraphModule {
    pub graph: Graph,
    pub signature: Signature,
    #[serde(default)]
    pub module_call_graph: Vec<ModuleCall>,
}

#[derive(Deserialize)]
pub(crate) struct ModuleCall {
    #[serde(default)]
    pub fqn: String,
    #[serde(default)]
    pub signature: Option<ModuleCallSignature>,
}

#[derive(Deserialize)]
pub(crate) struct ModuleCallSignature {
    #[serde(default)]
    pub in_spec: String,
    #[serde(default)]
    pub out_spec: String,
}

#[derive(Deserialize)]
pub(crate) struct Graph {
    pub inputs: Vec<Argument>,
    pub outputs: Vec<Argument>,
    pub nodes: Vec<Node>,
    #[serde(default)]
    pub tensor_values: BTreeMap<String, TensorMeta>,
    #[serde(default)]
    pub sym_int_values: BTreeMap<String, SymScalar>,
    #[serde(default)]
    pub sym_bool_values: BTreeMap<String, SymScalar>,
    #[serde(default)]
    pub sym_float_values: BTreeMap<String, SymScalar>,
    #[serde(default)]
    pub custom_obj_values: BTreeMap<String, CustomObj>,
}

#[derive(Deserialize)]
pub(crate) struct Node {
    pub target: String,
    pub inputs: Vec<NamedArgument>,
    pub outputs: Vec<Argument>,
    #[serde(default)]
    pub metadata: Metadata,
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Deserialize, Default)]
pub(crate) struct Metadata {
    #[serde(default, deserialize_with = "source::frame")]
    pub stack_trace: Option<source::Frame>,
    #[serde(default, deserialize_with = "source::module")]
    pub nn_module_stack: Option<source::Module>,
}

#[derive(Deserialize)]
pub(crate) struct NamedArgument {
    #[serde(default)]
    pub name: String,
    pub arg: Argument,
    #[serde(default)]
    pub kind: i64,
}

#[derive(Deserialize)]
pub(crate) struct Name {
    pub name: String,
}

#[derive(Deserialize)]
pub(crate) struct CustomObj {
    pub name: String,
    pub class_fqn: String,
}

/// The argument union. `as_none` carries `true` or `[]` by version.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "they are the keys of the file")]
pub(crate) enum Argument {
    AsNone(de::IgnoredAny),
    AsTensor(Name),
    AsTensors(Vec<Name>),
    AsOptionalTensor(Box<OptionalTensor>),
    AsOptionalTensors(Vec<OptionalTensor>),
    AsNestedTensors(Vec<Vec<Name>>),
    AsInt(i64),
    AsInts(Vec<i64>),
    AsIntLists(Vec<Vec<i64>>),
    AsFloat(Float),
    AsFloats(Vec<Float>),
    AsFloatLists(Vec<Vec<Float>>),
    AsBool(bool),
    AsBools(Vec<bool>),
    AsString(String),
    AsStrings(Vec<String>),
    AsComplex(Complex),
    AsSymInt(SymArgument),
    AsSymInts(Vec<SymArgument>),
    AsSymFloat(SymArgument),
    AsSymFloats(Vec<SymArgument>),
    AsSymBool(SymArgument),
    AsSymBools(Vec<SymArgument>),
    AsScalarType(i64),
    AsLayout(i64),
    AsMemoryFormat(i64),
    AsDevice(Device),
    AsGraph(Box<GraphArgument>),
    AsCustomObj(CustomObj),
    AsOperator(String),
    AsStringToArgument(BTreeMap<String, Argument>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OptionalTensor {
    AsTensor(Name),
    AsNone(de::IgnoredAny),
}

#[derive(Deserialize)]
pub(crate) struct Complex {
    pub real: Float,
    pub imag: Float,
}

#[derive(Deserialize)]
pub(crate) struct Device {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub index: Option<i64>,
}

#[derive(Deserialize)]
pub(crate) struct GraphArgument {
    pub graph: Graph,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "they are the keys of the file")]
pub(crate) enum SymArgument {
    AsName(String),
    AsInt(i64),
    AsFloat(Float),
    AsBool(bool),
}

/// A size, or a symbolic scalar: a literal, or an expression with the example's value as a hint.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "they are the keys of the file")]
pub(crate) enum SymScalar {
    AsInt(i64),
    AsBool(bool),
    AsFloat(Float),
    AsExpr(SymExpr),
}

#[derive(Deserialize)]
pub(crate) struct SymExpr {
    pub expr_str: String,
}

#[derive(Deserialize)]
pub(crate) struct TensorMeta {
    pub dtype: i64,
    pub sizes: Vec<SymScalar>,
    #[serde(default)]
    pub strides: Vec<SymScalar>,
    #[serde(default)]
    pub storage_offset: Option<SymScalar>,
    /// How elements are stored: 7 where strides say it.
    #[serde(default)]
    pub layout: Option<i64>,
}

#[derive(Deserialize)]
pub(crate) struct Signature {
    pub input_specs: Vec<InputSpec>,
    pub output_specs: Vec<OutputSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InputSpec {
    UserInput(de::IgnoredAny),
    Parameter {
        parameter_name: String,
    },
    Buffer {
        buffer_name: String,
        #[serde(default = "yes")]
        persistent: bool,
    },
    TensorConstant {
        tensor_constant_name: String,
    },
    CustomObj {
        custom_obj_name: String,
    },
    Token(de::IgnoredAny),
    ConstantInput {
        name: String,
    },
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutputSpec {
    UserOutput(de::IgnoredAny),
    BufferMutation { buffer_name: String },
    ParameterMutation { parameter_name: String },
    UserInputMutation { user_input_name: String },
    Token(de::IgnoredAny),
    LossOutput(de::IgnoredAny),
    GradientToParameter(de::IgnoredAny),
    GradientToUserInput(de::IgnoredAny),
}

/// `data/weights/<model>_weights_config.json` and its twin for constants.
#[derive(Deserialize)]
pub(crate) struct PayloadConfig {
    pub config: BTreeMap<String, Payload>,
}

#[derive(Deserialize)]
pub(crate) struct Payload {
    pub path_name: String,
    #[serde(default)]
    pub use_pickle: bool,
    #[serde(default)]
    pub tensor_meta: Option<TensorMeta>,
}

/// A float: a JSON number, or a string where JSON has no number for it.
#[derive(Clone, Copy)]
pub(crate) struct Float(pub f64);

/// A number as JSON has it, kept exact.
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Number, E> {
        Ok(Number::Int(n))
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Number, E> {
        Ok(i64::try_from(n).map_or(Number::Float(n as f64), Number::Int))
    }

    fn visit_f64<E: de::Error>(self, x: f64) -> Result<Number, E> {
        Ok(Number::Float(x))
    }

    fn visit_str<E: de::Error>(self, s: &str) -> Result<Number, E> {
        match s {
            "NaN" => Ok(Number::Float(f64::NAN)),
            "Infinity" => Ok(Number::Float(f64::INFINITY)),
            "-Infinity" => Ok(Number::Float(f64::NEG_INFINITY)),
            _ => Err(E::invalid_value(de::Unexpected::Str(s), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(NumberVisitor)
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(match Number::deserialize(d)? {
            Number::Int(n) => Float(n as f64),
            Number::Float(x) => Float(x),
        })
    }
}
