//! Weights that are tensor subclasses: quantised tensors made of plain ones.
//!
//! A program that was exported without unwrapping stores such a weight pickled, under its own name. Its calls either take
//! it apart with `export.access_subclass_inner_tensor`, or use it as if it were a plain tensor, and what happens then is known to
//! the Python class alone. Here both become what torch's `run_decompositions({})` makes of them: a parameter for each tensor
//! inside, named as torch names them, and the class's dequantisation in front of every use (`pt2-format.md` §4.1).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::saved::{PLAIN_REMEDY, dtype_named};
use etx_ir::DType;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::{Arg, Graph, Source, TensorType, Type, ValueId};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Expr;
use etx_ir::weights::TensorData;

/// A tensor subclass.
pub(super) struct Class {
    pub(super) name: &'static str,
    /// Its tensors in the order in which torch takes it apart, optional ones last.
    pub(super) tensors: &'static [&'static str],
    /// How many of them are not optional.
    required: usize,
    /// What a use of it does first; nothing for classes whose every use the exporter has traced.
    dequantise: Option<Dequantise>,
}

/// The call that makes a plain tensor of a weight.
struct Dequantise {
    op: OpId,
    args: &'static [Operand],
    /// Whether in `aten.linear` the result has the type of the input, not the weight's own.
    follows_use: bool,
    /// Whether a cast of the weight gives that result in the other type.
    casts: bool,
    /// How many values are in how many elements of the first tensor, along the last dimension.
    packing: fn(&Wrapped) -> Option<(u64, u64)>,
}

/// Where an argument of that call comes from.
enum Operand {
    Tensor(&'static str),
    Attribute(&'static str),
    Type(DType),
    Number(i64),
    /// The least and the greatest value of the attribute's type.
    Least(&'static str),
    Greatest(&'static str),
    /// The element type of the result.
    Output,
}

use Operand::{Attribute as A, Greatest, Least, Number, Output, Tensor as T, Type as Ty};

/// The one list of classes (`pt2-format.md` §1.5).
static CLASSES: &[Class] = &[
    Class {
        name: "IntxUnpackedToInt8Tensor",
        tensors: &["qdata", "scale", "zero_point"],
        required: 3,
        dequantise: Some(Dequantise {
            op: op!("torchao.dequantize_affine.default"),
            args: &[
                T("qdata"),
                A("block_size"),
                T("scale"),
                T("zero_point"),
                Ty(DType::Int8),
                Least("target_dtype"),
                Greatest("target_dtype"),
                Output,
            ],
            follows_use: false,
            casts: false,
            packing: |_| Some((1, 1)),
        }),
    },
    Class {
        name: "Int8Tensor",
        tensors: &["qdata", "scale", "zero_point", "act_quant_scale", "act_quant_zero_point", "act_pre_scale"],
        required: 2,
        dequantise: Some(Dequantise {
            op: op!("torchao.dequantize_affine.default"),
            args: &[T("qdata"), A("block_size"), T("scale"), T("zero_point"), Ty(DType::Int8), Number(-128), Number(127), Output],
            follows_use: false,
            casts: false,
            packing: |_| Some((1, 1)),
        }),
    },
    Class { name: "Float8Tensor", tensors: &["qdata", "scale"], required: 2, dequantise: None },
    Class {
        name: "NVFP4Tensor",
        tensors: &["qdata", "scale", "per_tensor_scale", "act_per_tensor_scale"],
        required: 2,
        dequantise: Some(NVFP4),
    },
    Class { name: "ExportableNVFP4Tensor", tensors: &["qdata", "scale", "per_tensor_scale"], required: 3, dequantise: Some(NVFP4) },
    Class {
        name: "ExportableInt4Tensor",
        tensors: &["qdata", "scale", "zero_point"],
        required: 3,
        dequantise: Some(Dequantise {
            op: op!("torchao.dequantize_int4_tensor.default"),
            args: &[T("qdata"), T("scale"), T("zero_point"), A("group_size"), Output],
            follows_use: true,
            casts: true,
            packing: |_| Some((2, 1)),
        }),
    },
    Class { name: "ExportableMXTensor", tensors: &["qdata", "scale"], required: 2, dequantise: Some(MX) },
    Class { name: "MXTensor", tensors: &["qdata", "scale"], required: 2, dequantise: Some(MX) },
    Class {
        name: "ExportableGGUFTensor",
        tensors: &["raw"],
        required: 1,
        dequantise: Some(Dequantise {
            op: op!("torchao.dequantize_gguf.default"),
            args: &[T("raw"), A("ggml_type"), Output],
            follows_use: true,
            casts: true,
            packing: |w| match w.attributes.get("ggml_type") {
                Some(Attribute::Str(s)) => match s.as_str() {
                    "q4_k" => Some((256, 144)),
                    "q5_k" => Some((256, 176)),
                    "q6_k" => Some((256, 210)),
                    _ => None,
                },
                _ => None,
            },
        }),
    },
];

const NVFP4: Dequantise = Dequantise {
    op: op!("torchao.dequantize_nvfp4.default"),
    args: &[T("qdata"), T("scale"), T("per_tensor_scale"), A("block_size"), Output],
    follows_use: false,
    casts: true,
    packing: |_| Some((8, 1)),
};

const MX: Dequantise = Dequantise {
    op: op!("torchao.dequantize_mx.default"),
    args: &[T("qdata"), T("scale"), A("elem_dtype"), A("block_size"), Output],
    follows_use: true,
    casts: true,
    packing: |w| Some((if w.attributes.get("elem_dtype") == Some(&Attribute::DType(PAIR.to_owned())) { 2 } else { 1 }, 1)),
};

/// torch's name of two floats of four bits in a byte. A program has no number for it, and the tensor is stored as bytes: it goes by those.
pub(super) const PAIR: &str = "float4_e2m1fn_x2";

impl Class {
    /// The class of this name. Its module changes between versions of the package; its fields do not.
    pub(super) fn named(name: &str) -> Option<&'static Class> {
        CLASSES.iter().find(|c| c.name == name)
    }
}

/// What a subclass holds that is no tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attribute {
    None,
    Bool(bool),
    Int(i64),
    Ints(Vec<i64>),
    Str(String),
    /// An element type by torch's name, those of less than a byte included.
    DType(String),
    /// Anything else, by what it is.
    Other(String),
}

/// A tensor subclass as it is stored.
#[derive(Clone)]
pub(super) struct Wrapped {
    pub(super) class: &'static Class,
    /// Element type that it pretends to have.
    pub(super) dtype: DType,
    /// Sizes that it pretends to have.
    pub(super) shape: Vec<u64>,
    /// By field, in the order of the class.
    pub(super) tensors: Vec<(&'static str, TensorData)>,
    attributes: BTreeMap<String, Attribute>,
}

fn bad(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Weight, what)
}

impl Wrapped {
    /// A tensor subclass of these parts, checked as far as the class can be without reading a byte.
    ///
    /// # Errors
    /// [`ErrorKind::Weight`] when a tensor is missing or the sizes do not fit each other.
    pub(super) fn new(
        class: &'static Class,
        dtype: DType,
        shape: Vec<u64>,
        tensors: Vec<(&'static str, TensorData)>,
        attributes: BTreeMap<String, Attribute>,
    ) -> Result<Self, Error> {
        for field in class.tensors.iter().take(class.required) {
            if !tensors.iter().any(|(name, _)| name == field) {
                return Err(bad(format!("a {} without {field}", class.name)));
            }
        }
        let mut wrapped = Self { class, dtype, shape, tensors, attributes };
        if class.name == "NVFP4Tensor" {
            wrapped.plain_nvfp4()?;
        }
        if class.name == "MXTensor" {
            wrapped.plain_mx()?;
        }
        let packed = wrapped.tensors.first().map_or(&[][..], |(_, t)| t.shape());
        if let Some(dequantise) = &class.dequantise {
            let unpacked = (dequantise.packing)(&wrapped).and_then(|(values, elements)| {
                let (last, outer) = packed.split_last()?;
                let last = last.checked_mul(values).filter(|n| n % elements == 0)? / elements;
                Some([outer, &[last]].concat())
            });
            if unpacked.as_ref() != Some(&wrapped.shape) {
                let what = format!("a {} of sizes {:?} whose packed values have sizes {packed:?}", class.name, wrapped.shape);
                return Err(bad(what));
            }
        }
        Ok(wrapped)
    }

    /// Brings torchao's own NVFP4 tensor into the form of ExecuTorch's, for which there is one operator: words of eight
    /// values, a scale of one byte a block in row-major order, and always a scale for the whole tensor.
    fn plain_nvfp4(&mut self) -> Result<(), Error> {
        let block = self.attributes.get("block_size").unwrap_or(&Attribute::None);
        let ([rows, columns], Attribute::Int(16)) = (self.shape.as_slice(), block) else {
            let what = format!("an NVFP4Tensor of sizes {:?} in blocks of {block:?}; two dimensions and blocks of 16 are read", self.shape);
            return Err(bad(what));
        };
        let (rows, blocks) = (*rows, columns / 16);
        let swizzled = self.attributes.get("is_swizzled_scales") == Some(&Attribute::Bool(true));
        let mut whole = None;
        for (field, data) in &mut self.tensors {
            match *field {
                "qdata" => *data = data.reinterpret(DType::UInt32, vec![rows, columns / 8])?,
                "scale" if swizzled => *data = unswizzled(data, rows, blocks)?,
                "scale" => *data = data.reinterpret(DType::UInt8, vec![rows, blocks])?,
                "per_tensor_scale" => whole = Some(data.reinterpret(DType::Float32, Vec::new())?),
                _ => {}
            }
        }
        let whole = match whole {
            Some(t) => t,
            None => TensorData::inline(DType::Float32, Vec::new(), 1f32.to_le_bytes())?,
        };
        self.tensors.retain(|(field, _)| matches!(*field, "qdata" | "scale"));
        self.tensors.push(("per_tensor_scale", whole));
        Ok(())
    }

    /// Brings scales of torchao's MX tensor that are stored in tiles into rows.
    fn plain_mx(&mut self) -> Result<(), Error> {
        let ([rows, columns], Some(&Attribute::Int(block @ 1..))) = (self.shape.as_slice(), self.attributes.get("block_size")) else {
            return Err(bad(format!("an MXTensor of sizes {:?} without a block size; two dimensions are read", self.shape)));
        };
        let (rows, blocks) = (*rows, columns / block as u64);
        if self.attributes.get("is_swizzled_scales") == Some(&Attribute::Bool(true)) {
            for (_, data) in self.tensors.iter_mut().filter(|(field, _)| *field == "scale") {
                *data = unswizzled(data, rows, blocks)?.reinterpret(DType::Float8E8M0, vec![rows, blocks])?;
            }
        }
        Ok(())
    }

    /// The names of its tensors as parameters of their own, as torch calls them.
    pub(super) fn inner_name(fqn: &str, place: usize) -> String {
        match fqn.rsplit_once('.') {
            Some((module, name)) => format!("{module}.parametrizations.{name}.original{place}"),
            None => format!("parametrizations.{fqn}.original{place}"),
        }
    }
}

/// Scales in row-major order that are stored in tiles of 128 rows by 4 columns, row `r` and column `c` of a tile at byte
/// `r % 32 * 16 + r / 32 * 4 + c`, the tiles row-major (`pt2-format.md` §4.3).
fn unswizzled(scale: &TensorData, rows: u64, columns: u64) -> Result<TensorData, Error> {
    let (down, across) = (rows.div_ceil(128), columns.div_ceil(4));
    let tiles = scale.strided(DType::UInt8, vec![down, 4, 32, across, 4], vec![across.saturating_mul(512), 4, 16, 512, 1], 0)?;
    tiles.strided(DType::UInt8, vec![rows, columns], vec![across.saturating_mul(4), 1], 0)
}

/// A wrapped weight in a graph: its tensors are values.
#[derive(Clone)]
pub(super) struct Parts {
    /// The name it is stored under.
    pub(super) fqn: Arc<str>,
    pub(super) wrapped: Arc<Wrapped>,
    values: Vec<(&'static str, ValueId)>,
}

impl Parts {
    /// Adds the tensors of a wrapped weight to the inputs of a graph, named after the weight.
    pub(super) fn add_inputs(graph: &mut Graph, fqn: Arc<str>, wrapped: Arc<Wrapped>, name: impl Fn(usize) -> String) -> Self {
        let values = wrapped.tensors.iter().enumerate().map(|(i, (field, data))| {
            let ty = TensorType::new(data.dtype(), sizes(data.shape()));
            (*field, graph.add_input(&name(i), Type::Tensor(ty)))
        });
        Self { values: values.collect(), fqn, wrapped: wrapped.clone() }
    }

    /// The values of its tensors, in order.
    pub(super) fn values(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.values.iter().map(|(_, v)| *v)
    }

    /// The value of the tensor in this field.
    pub(super) fn field(&self, name: &str) -> Option<ValueId> {
        self.values.iter().find(|(field, _)| *field == name).map(|(_, v)| *v)
    }

    /// Whether what it becomes has the element type of what it is used with.
    pub(super) fn follows_use(&self) -> bool {
        self.wrapped.class.dequantise.as_ref().is_some_and(|d| d.follows_use)
    }

    /// Whether a cast of it is a call of its class that makes a plain tensor of the other type.
    pub(super) fn casts(&self) -> bool {
        self.wrapped.class.dequantise.as_ref().is_some_and(|d| d.casts)
    }

    /// Appends the call that makes a plain tensor of it, of element type `dtype` or its own.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when there is no such call.
    pub(super) fn dequantise(&self, graph: &mut Graph, dtype: Option<DType>, source: Option<Arc<Source>>) -> Result<ValueId, Error> {
        let w = &*self.wrapped;
        let class = w.class.name;
        let unsupported = |what: String| Error::new(ErrorKind::Unsupported, what).help(PLAIN_REMEDY);
        let Some(dequantise) = &w.class.dequantise else {
            return Err(unsupported(format!("a {class} is used whole, which etx has no operator for")));
        };
        for settings in ["activation_quantization", "act_quant_kwargs"] {
            if w.attributes.get(settings).is_some_and(|a| *a != Attribute::None) {
                let what = format!("a {class} that quantises activations is used whole, which etx has no operator for");
                // Their parts come in operators that etx does not have either.
                let blocks = matches!(class, "MXTensor" | "NVFP4Tensor");
                return Err(if blocks { Error::new(ErrorKind::Unsupported, what).help(WEIGHTS_ALONE) } else { unsupported(what) });
            }
        }
        let output = dtype.unwrap_or(w.dtype);
        let args = dequantise.args.iter().map(|from| w.operand(from, self, output)).collect::<Result<Vec<Arg>, String>>();
        let args = args.map_err(|what| unsupported(format!("{what} of a {class}")))?;
        let name = dequantise.op.schema().name.as_str();
        let ty = Type::Tensor(TensorType::new(output, sizes(&w.shape)));
        let node = graph.append(dequantise.op, args, name, vec![(name, ty)], source);
        graph.node(node).outputs.first().copied().ok_or_else(|| unsupported(format!("{name} has no result")))
    }
}

/// What to do about blocks of small floats that activations are to be made of as well.
const WEIGHTS_ALONE: &str = "lower the unquantised program with `--quantize` mxfp8, mxfp4 or nvfp4, which quantises weights alone";

impl Wrapped {
    fn operand(&self, from: &Operand, parts: &Parts, output: DType) -> Result<Arg, String> {
        let attribute = |name: &str| self.attributes.get(name).ok_or_else(|| format!("no {name}"));
        let bits = |name: &str| {
            match attribute(name)? {
                Attribute::DType(t) => t.strip_prefix("int").and_then(|b| b.parse().ok()).filter(|b: &u32| (1..=8).contains(b)),
                _ => None,
            }
            .ok_or_else(|| format!("{name} {:?}", self.attributes.get(name)))
        };
        Ok(match from {
            T(name) => match parts.field(name) {
                Some(v) => Arg::Value(v),
                // Optional ones may be missing.
                None if self.class.tensors.iter().skip(self.class.required).any(|t| t == name) => Arg::None,
                None => return Err(format!("no {name}")),
            },
            A(name) => match attribute(name)? {
                Attribute::None => Arg::None,
                Attribute::Bool(b) => Arg::Bool(*b),
                Attribute::Int(n) => Arg::Int(*n),
                Attribute::Ints(list) => list.clone().into(),
                Attribute::Str(s) => Arg::Str(s.as_str().into()),
                Attribute::DType(t) if t == PAIR => Arg::DType(DType::UInt8),
                Attribute::DType(t) => dtype_named(t).map(Arg::DType).ok_or_else(|| format!("{name} torch.{t}"))?,
                Attribute::Other(what) => return Err(format!("{name} {what}")),
            },
            Ty(t) => Arg::DType(*t),
            Number(n) => Arg::Int(*n),
            Least(name) => Arg::Int(-(1 << (bits(name)? - 1))),
            Greatest(name) => Arg::Int((1 << (bits(name)? - 1)) - 1),
            Output => Arg::DType(output),
        })
    }
}

fn sizes(shape: &[u64]) -> Vec<Expr> {
    // A tensor that exists has fewer elements than that.
    shape.iter().map(|&n| Expr::Int(i64::try_from(n).unwrap_or(i64::MAX))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_those_of_the_operators() {
        for class in CLASSES {
            let Some(d) = &class.dequantise else { continue };
            assert_eq!(d.op.schema().args.len(), d.args.len(), "{}", class.name);
            for (operand, spec) in d.args.iter().zip(&d.op.schema().args) {
                let tensor = matches!(operand, T(_));
                assert_eq!(tensor, spec.ty.holds_tensors(), "{} of {}", spec.name, class.name);
            }
        }
    }

    #[test]
    fn scales_in_tiles_are_put_into_rows() {
        // 130 rows of 6 columns: two tiles down, two across, the last of each partly unused.
        let (rows, columns) = (130u64, 6u64);
        let value = |r: u64, c: u64| (r * 7 + c * 31) as u8;
        let mut stored = vec![0xee; 4 * 512];
        for r in 0..rows {
            for c in 0..columns {
                let at = (r / 128 * 2 + c / 4) * 512 + r % 32 * 16 + r % 128 / 32 * 4 + c % 4;
                stored[at as usize] = value(r, c);
            }
        }
        let stored = TensorData::inline(DType::Float8E4M3, vec![64, 32], stored).unwrap();
        let plain = unswizzled(&stored, rows, columns).unwrap();
        let expected: Vec<u8> = (0..rows).flat_map(|r| (0..columns).map(move |c| value(r, c))).collect();
        assert_eq!(plain.to_vec().unwrap(), expected);
        let mut piece = [0; 10];
        plain.produce(770, &mut piece).unwrap();
        assert_eq!(piece, expected[770..]);
        assert!(unswizzled(&stored, 500, columns).is_err());
    }

    #[test]
    fn parts_are_named_as_torch_names_them() {
        assert_eq!(Wrapped::inner_name("a.b.weight", 2), "a.b.parametrizations.weight.original2");
        assert_eq!(Wrapped::inner_name("w", 0), "parametrizations.w.original0");
    }
}
