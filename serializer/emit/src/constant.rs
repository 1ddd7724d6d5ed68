//! Methods that return constants: `get_max_seq_len`, `get_eos_ids` and the like (`pte-format.md` §3.15).

use etx_ir::weights::TensorData;

use super::{Emitter, constant_tensor, leaf};
use etx_serializer::error::Result;
use etx_serializer::pte::model::{Chain, ContainerMetadata, EValue, ExecutionPlan};

/// A method without inputs that returns the same every time.
#[derive(Clone, Debug)]
pub struct ConstantMethod {
    /// Its name.
    pub name: String,
    /// What it returns.
    pub value: Constant,
}

/// What a constant method returns. Containers become several outputs and a pytree.
#[derive(Clone, Debug)]
pub enum Constant {
    /// `None`.
    None,
    /// An integer.
    Int(i64),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Str(String),
    /// A tensor, kept in the constant segment.
    Tensor(TensorData),
    /// A Python list.
    List(Vec<Constant>),
    /// A Python tuple.
    Tuple(Vec<Constant>),
}

impl Constant {
    /// Its node of the pytree, as torch prints it.
    fn node(&self) -> String {
        let nested = |kind: &str, items: &[Constant]| {
            let children: Vec<String> = items.iter().map(Constant::node).collect();
            format!(r#"{{"type": "builtins.{kind}", "context": "null", "children_spec": [{}]}}"#, children.join(", "))
        };
        match self {
            Constant::List(items) => nested("list", items),
            Constant::Tuple(items) => nested("tuple", items),
            _ => leaf().to_owned(),
        }
    }

    fn flatten(self, emitter: &mut Emitter, values: &mut Vec<EValue>) -> Result<()> {
        values.push(match self {
            Constant::None => EValue::Null,
            Constant::Int(v) => EValue::Int(v),
            Constant::Float(v) => EValue::Double(v),
            Constant::Bool(v) => EValue::Bool(v),
            Constant::Str(v) => EValue::String(v),
            Constant::Tensor(data) => constant_tensor(emitter, data)?,
            Constant::List(items) | Constant::Tuple(items) => {
                return items.into_iter().try_for_each(|item| item.flatten(emitter, values));
            }
        });
        Ok(())
    }
}

pub(super) fn emit(method: ConstantMethod, emitter: &mut Emitter) -> Result<ExecutionPlan> {
    let encoded_out_str = format!("[1, {}]", method.value.node());
    let mut values = Vec::new();
    method.value.flatten(emitter, &mut values)?;
    Ok(ExecutionPlan {
        name: method.name,
        container_meta_type: Some(ContainerMetadata { encoded_inp_str: String::new(), encoded_out_str }),
        outputs: (0..).take(values.len()).collect(),
        values,
        chains: vec![Chain::default()],
        non_const_buffer_sizes: vec![0],
        ..ExecutionPlan::default()
    })
}
