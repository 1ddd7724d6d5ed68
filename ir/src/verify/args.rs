//! Arguments and results against the types of a schema.

use crate::graph::{Arg, Graph, Node, Type};
use crate::op::ArgType;
use crate::text::print_type;

/// Whether an argument may be passed where the schema wants this type.
pub(super) fn accepts(ty: &ArgType, arg: &Arg, graph: &Graph) -> bool {
    if let Arg::Value(v) = arg {
        // Whether the value is of this graph is reported by itself.
        return v.index() >= graph.value_bound() || accepts_value(ty, graph.ty(*v));
    }
    match ty {
        ArgType::Any => true,
        ArgType::Optional(inner) => *arg == Arg::None || accepts(inner, arg, graph),
        ArgType::List(element, _) => arg.as_list().is_some_and(|items| items.iter().all(|a| accepts(element, a, graph))),
        // Exporters leave Python numbers where eager PyTorch makes a tensor of them.
        ArgType::Tensor | ArgType::Scalar => matches!(arg, Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) | Arg::Complex(..)),
        ArgType::Int | ArgType::SymInt => matches!(arg, Arg::Int(_) | Arg::Bool(_)),
        ArgType::Float | ArgType::SymFloat => matches!(arg, Arg::Float(_) | Arg::Int(_) | Arg::Bool(_)),
        ArgType::Bool | ArgType::SymBool => matches!(arg, Arg::Bool(_)),
        ArgType::Complex => matches!(arg, Arg::Complex(..) | Arg::Float(_) | Arg::Int(_)),
        ArgType::Str => matches!(arg, Arg::Str(_)),
        ArgType::ScalarType => matches!(arg, Arg::DType(_)),
        ArgType::Layout => matches!(arg, Arg::Layout(_)),
        ArgType::MemoryFormat => matches!(arg, Arg::MemoryFormat(_)),
        ArgType::Device => matches!(arg, Arg::Device(_)),
        ArgType::Generator => false,
        ArgType::Graph => matches!(arg, Arg::Graph(_)),
        ArgType::Operator => matches!(arg, Arg::Op(_)),
    }
}

fn accepts_value(ty: &ArgType, value: &Type) -> bool {
    match ty {
        ArgType::Any => true,
        ArgType::Optional(inner) => *value == Type::None || accepts_value(inner, value),
        ArgType::Tensor => matches!(value, Type::Tensor(_) | Type::Int(_) | Type::Float(_) | Type::Bool(_)),
        ArgType::Scalar => matches!(value, Type::Int(_) | Type::Float(_) | Type::Bool(_)),
        ArgType::Int | ArgType::SymInt => matches!(value, Type::Int(_) | Type::Bool(_)),
        ArgType::Float | ArgType::SymFloat => matches!(value, Type::Float(_) | Type::Int(_)),
        ArgType::Bool | ArgType::SymBool => matches!(value, Type::Bool(_)),
        _ => false,
    }
}

/// Whether a result may have this type where the schema promises that one.
pub(super) fn gives(ty: &ArgType, result: &Type) -> bool {
    if *result == Type::None {
        // Not used: exporters leave it out.
        return true;
    }
    match ty {
        ArgType::Optional(inner) => gives(inner, result),
        ArgType::Tensor => matches!(result, Type::Tensor(_)),
        ArgType::Scalar => matches!(result, Type::Int(_) | Type::Float(_) | Type::Bool(_)),
        ArgType::Int | ArgType::SymInt => matches!(result, Type::Int(_)),
        ArgType::Float | ArgType::SymFloat => matches!(result, Type::Float(_)),
        ArgType::Bool | ArgType::SymBool => matches!(result, Type::Bool(_)),
        _ => true,
    }
}

/// The argument that a call writes to, if it writes to one.
pub(super) fn written(node: &Node) -> Option<&'static str> {
    let schema = node.op.schema();
    if let Some(i) = schema.mutated_args().next() {
        return schema.args.get(i).map(|a| a.name.as_str());
    }
    let hidden = node.op.training_mutation()?;
    let arg = |name: &str| schema.position(name).and_then(|i| node.args.get(i));
    if arg(hidden.flag) != Some(&Arg::Bool(true)) {
        return None;
    }
    hidden.args.iter().copied().find(|name| arg(name).is_some_and(|a| *a != Arg::None))
}

/// What an argument is, in a few words.
pub(super) fn describe(arg: &Arg, graph: &Graph) -> String {
    match arg {
        Arg::None => "None".to_owned(),
        Arg::Value(v) if v.index() < graph.value_bound() => format!("%{} : {}", graph.value(*v).name, print_type(graph.ty(*v))),
        Arg::Value(v) => format!("{v:?}"),
        Arg::Int(n) => format!("the integer {n}"),
        Arg::Float(x) => format!("the float {x:?}"),
        Arg::Bool(b) => format!("the boolean {b}"),
        Arg::Str(_) => "a string".to_owned(),
        Arg::Complex(..) => "a complex number".to_owned(),
        Arg::DType(t) => format!("the element type {t}"),
        Arg::MemoryFormat(_) => "a memory format".to_owned(),
        Arg::Layout(_) => "a layout".to_owned(),
        Arg::Device(_) => "a device".to_owned(),
        // The lists of a call are as short as a tensor has dimensions; others are cut.
        Arg::List(items) => {
            let shown: Vec<String> = items.iter().take(6).map(|a| describe(a, graph)).collect();
            format!("[{}{}]", shown.join(", "), if items.len() > 6 { ", …" } else { "" })
        }
        Arg::Dict(_) => "a dictionary".to_owned(),
        Arg::Op(op) => format!("the operator {op}"),
        Arg::Graph(_) => "a graph".to_owned(),
    }
}
