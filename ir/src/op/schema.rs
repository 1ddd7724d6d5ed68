//! What a schema says: arguments, returns, aliasing.

use std::fmt;

use crate::DType;

/// The kind of thing a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An operator proper, with namespace, name and overload: `aten.add.Tensor`, `mlx.rope.default`.
    Operator,
    /// A Python function on scalars: `_operator.add`, `torch.sym_max`.
    Function,
    /// A higher-order operator, taking graphs or operators: `higher_order.cond`.
    HigherOrder,
}

/// The type of an argument or of a return.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ArgType {
    /// A tensor. Exported programs may pass a number or a symbolic scalar here.
    Tensor,
    /// An integer known at export.
    Int,
    /// An integer, possibly symbolic.
    SymInt,
    /// A float.
    Float,
    /// A float, possibly symbolic.
    SymFloat,
    /// A boolean.
    Bool,
    /// A boolean, possibly symbolic.
    SymBool,
    /// An integer, float, boolean or complex number, possibly symbolic.
    Scalar,
    /// A complex number.
    Complex,
    /// A string.
    Str,
    /// An element type.
    ScalarType,
    /// A tensor layout.
    Layout,
    /// A memory format.
    MemoryFormat,
    /// A device.
    Device,
    /// A random generator; only ever absent in an exported program.
    Generator,
    /// The body of a higher-order operator.
    Graph,
    /// An operator as argument of a higher-order one.
    Operator,
    /// Anything.
    Any,
    /// The inner type or nothing.
    Optional(Box<ArgType>),
    /// A list; with a number, a scalar stands for that many equal elements.
    List(Box<ArgType>, Option<u32>),
}

impl ArgType {
    /// The base types by the name they have in a schema.
    pub(super) const BASE: &'static [(&'static str, ArgType)] = &[
        ("Any", ArgType::Any),
        ("Device", ArgType::Device),
        ("Generator", ArgType::Generator),
        ("Graph", ArgType::Graph),
        ("Layout", ArgType::Layout),
        ("MemoryFormat", ArgType::MemoryFormat),
        ("Operator", ArgType::Operator),
        ("Scalar", ArgType::Scalar),
        ("ScalarType", ArgType::ScalarType),
        ("SymBool", ArgType::SymBool),
        ("SymFloat", ArgType::SymFloat),
        ("SymInt", ArgType::SymInt),
        ("Tensor", ArgType::Tensor),
        ("bool", ArgType::Bool),
        ("complex", ArgType::Complex),
        ("float", ArgType::Float),
        ("int", ArgType::Int),
        ("str", ArgType::Str),
    ];

    /// Whether nothing may be passed.
    pub fn is_optional(&self) -> bool {
        matches!(self, ArgType::Optional(_))
    }

    /// The type without its outermost "or nothing".
    pub fn required(&self) -> &ArgType {
        match self {
            ArgType::Optional(inner) => inner,
            other => other,
        }
    }

    /// Type of the elements, if it is a list or an optional list.
    pub fn element(&self) -> Option<&ArgType> {
        match self.required() {
            ArgType::List(element, _) => Some(element),
            _ => None,
        }
    }

    /// Whether it is a tensor, an optional tensor, or a list of such.
    pub fn holds_tensors(&self) -> bool {
        match self {
            ArgType::Tensor => true,
            ArgType::Optional(inner) | ArgType::List(inner, _) => inner.holds_tensors(),
            _ => false,
        }
    }
}

impl fmt::Display for ArgType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgType::Optional(inner) => write!(f, "{inner}?"),
            ArgType::List(inner, None) => write!(f, "{inner}[]"),
            ArgType::List(inner, Some(n)) => write!(f, "{inner}[{n}]"),
            base => match Self::BASE.iter().find(|(_, t)| t == base) {
                Some((name, _)) => f.write_str(name),
                None => f.write_str("?"),
            },
        }
    }
}

/// A default, converted to its argument's type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Literal {
    /// Nothing.
    None,
    /// Boolean.
    Bool(bool),
    /// Integer.
    Int(i64),
    /// Float.
    Float(f64),
    /// String.
    Str(String),
    /// Element type (schemas number them as c10 does).
    DType(DType),
    /// Layout, by torch's export number (7 strided).
    Layout(u8),
    /// Memory format, by torch's export number (1 contiguous, 2 channels last, 3 channels last 3d, 4 preserve).
    MemoryFormat(u8),
    /// List; a scalar default of a list of fixed length is repeated.
    List(Vec<Literal>),
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::None => f.write_str("None"),
            Literal::Bool(b) => f.write_str(if *b { "True" } else { "False" }),
            Literal::Int(n) => write!(f, "{n}"),
            Literal::Float(x) => write!(f, "{x:?}"),
            Literal::Str(s) => write!(f, "{s:?}"),
            Literal::DType(t) => write!(f, "{}", t.et_code()),
            Literal::Layout(n) => f.write_str(super::parse::spelling(super::parse::LAYOUTS, *n)),
            Literal::MemoryFormat(n) => f.write_str(super::parse::spelling(super::parse::MEMORY_FORMATS, *n)),
            Literal::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// An argument of an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: ArgType,
    /// What it is when not given; without one it must be given.
    pub default: Option<Literal>,
    /// Whether it is given by name only.
    pub kw_only: bool,
    /// Whether the call writes to it.
    pub mutated: bool,
    /// Name of the alias set it belongs to (`a` in `Tensor(a!) self`), if the schema names one.
    pub alias_set: Option<String>,
}

/// A result of an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct ReturnSpec {
    /// Its type; a list is one result of a program with several elements.
    pub ty: ArgType,
    /// Its name, if the schema gives one.
    pub name: Option<String>,
    /// Positions of the arguments whose memory it shares, or may share.
    pub alias_of: Vec<usize>,
    /// Whether it is one of those arguments after the call wrote to it.
    pub mutated: bool,
}

/// Facts of an operator that its signature does not show. The words are those of the schema files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// `core`: belongs to the core ATen operator set.
    pub core: bool,
    /// `pointwise`: each output element depends on the input elements at its own (broadcast) position only.
    pub pointwise: bool,
    /// `random`: draws random numbers.
    pub random: bool,
    /// `effect`: does something besides returning values (fails on a condition, prints, changes hidden state).
    pub effect: bool,
    /// `data`: a result that is no tensor depends on the data, as with `item`.
    pub data: bool,
    /// `dynamic`: the shape of a result depends on the data, as with `nonzero`.
    pub dynamic: bool,
    /// `inplace_view`: changes sizes or strides of its argument, as `transpose_` does.
    pub inplace_view: bool,
    /// `variadic`: takes any further arguments.
    pub variadic: bool,
    /// `out=…` or `out_without_options=…`: the overload that writes its results to given tensors.
    pub out: Option<OutVariant>,
}

/// The overload of an operator that writes its results to tensors the caller gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutVariant {
    /// Its overload name (`out`, `Scalar_out`).
    pub overload: String,
    /// Whether it lacks the arguments `dtype`, `layout`, `device` and `pin_memory`, which the given tensor implies.
    /// Otherwise it has the operator's arguments, in order; the tensors follow, one a result.
    pub without_options: bool,
}

impl OutVariant {
    /// Names of the arguments that [`OutVariant::without_options`] speaks of.
    pub const OPTIONS: [&'static str; 4] = ["dtype", "layout", "device", "pin_memory"];
}

/// Signature of an operator, with what is known of its effects.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Canonical target: `aten.add.Tensor`, `_operator.add`, `higher_order.cond`.
    pub target: String,
    /// Namespace: `aten`, `_operator`, `higher_order`.
    pub ns: String,
    /// Name: `add`.
    pub name: String,
    /// Overload: `Tensor`, `default`; empty for functions and higher-order operators.
    pub overload: String,
    /// Arguments, in positional order.
    pub args: Vec<ArgSpec>,
    /// Results, in order.
    pub returns: Vec<ReturnSpec>,
    /// Kind of target.
    pub kind: Kind,
    /// What the signature does not show.
    pub traits: Traits,
}

impl Schema {
    /// Position of the argument of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.args.iter().position(|a| a.name == name)
    }

    /// The argument of this name.
    pub fn arg(&self, name: &str) -> Option<&ArgSpec> {
        self.args.iter().find(|a| a.name == name)
    }

    /// Positions of the arguments that a call writes to.
    pub fn mutated_args(&self) -> impl Iterator<Item = usize> + '_ {
        self.args.iter().enumerate().filter(|(_, a)| a.mutated).map(|(i, _)| i)
    }

    /// Whether the other operator takes the same arguments: types and order, and names except of the first, which
    /// torch calls `self` or `input`. A call of one is then a call of the other, argument by argument.
    pub fn same_arguments(&self, other: &Schema) -> bool {
        self.args.len() == other.args.len()
            && self
                .args
                .iter()
                .zip(&other.args)
                .enumerate()
                .all(|(i, (a, b))| a.ty == b.ty && a.kw_only == b.kw_only && (i == 0 || a.name == b.name))
    }
}

/// Prints the line that [`super::OpId::register`] and the schema files take.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.target)?;
        let mut keywords = false;
        for (i, arg) in self.args.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            if arg.kw_only && !keywords {
                keywords = true;
                f.write_str("*, ")?;
            }
            typed(f, &arg.ty, arg.alias_set.as_deref(), arg.mutated)?;
            write!(f, " {}", arg.name)?;
            if let Some(default) = &arg.default {
                write!(f, "={default}")?;
            }
        }
        f.write_str(") -> ")?;
        let single = self.returns.len() == 1;
        f.write_str(if single { "" } else { "(" })?;
        for (i, ret) in self.returns.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            let set = ret.alias_of.first().and_then(|&a| self.args.get(a)).and_then(|a| a.alias_set.as_deref());
            typed(f, &ret.ty, set, ret.mutated)?;
            if let Some(name) = &ret.name {
                write!(f, " {name}")?;
            }
        }
        f.write_str(if single { "" } else { ")" })?;
        self.words(f)
    }
}

impl Schema {
    fn words(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.traits;
        let words = [
            (self.kind == Kind::Function, "function"),
            (self.kind == Kind::HigherOrder, "hop"),
            (t.core, "core"),
            (t.pointwise, "pointwise"),
            (t.random, "random"),
            (t.effect, "effect"),
            (t.data, "data"),
            (t.dynamic, "dynamic"),
            (t.inplace_view, "inplace_view"),
            (t.variadic, "variadic"),
        ];
        let mut separator = " ; ";
        for (_, word) in words.into_iter().filter(|(set, _)| *set) {
            write!(f, "{separator}{word}")?;
            separator = " ";
        }
        if let Some(out) = &t.out {
            let word = if out.without_options { "out_without_options" } else { "out" };
            write!(f, "{separator}{word}={}", out.overload)?;
        }
        Ok(())
    }
}

/// Writes a type with its alias annotation, which stands after the base type: `Tensor(a!)[]`.
fn typed(f: &mut fmt::Formatter<'_>, ty: &ArgType, set: Option<&str>, mutated: bool) -> fmt::Result {
    let Some(set) = set else { return write!(f, "{ty}") };
    match ty {
        ArgType::Optional(inner) => {
            typed(f, inner, Some(set), mutated)?;
            f.write_str("?")
        }
        ArgType::List(inner, n) => {
            typed(f, inner, Some(set), mutated)?;
            match n {
                Some(n) => write!(f, "[{n}]"),
                None => f.write_str("[]"),
            }
        }
        base => write!(f, "{base}({set}{})", if mutated { "!" } else { "" }),
    }
}
