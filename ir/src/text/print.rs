//! The printer. One pass over the program, straight into one string.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::data::{ABSENT, INLINE_LIMIT};
use super::lex;
use crate::graph::{Arg, Graph, Node, NodeId, Source, TensorType, Type, ValueId};
use crate::op::{ArgSpec, Literal, Schema};
use crate::program::{Input, InputKind, Method, OutputKind, Program};
use crate::sym::Expr;
use crate::weights::TensorData;

/// The whole program; [`super::parse()`] reads it back.
pub fn print(program: &Program) -> String {
    let mut p = Printer::default();
    p.out.push_str("etir 1\n");
    program.methods.iter().for_each(|m| p.name_files(&m.graph));
    if !p.files.is_empty() {
        p.out.push('\n');
    }
    for (path, id) in std::mem::take(&mut p.files) {
        p.out.push_str("file $");
        p.out.push_str(&id);
        p.out.push(' ');
        p.string(&path);
        p.out.push('\n');
    }
    if !program.weights().is_empty() {
        p.out.push('\n');
    }
    for (i, weight) in program.weights().iter().enumerate() {
        p.out.push_str("weight @");
        p.integer(i as i64);
        p.out.push(' ');
        p.string(&weight.name);
        p.out.push(' ');
        p.data(&weight.data);
        p.out.push('\n');
    }
    for method in &program.methods {
        p.out.push('\n');
        p.method(method);
    }
    p.out
}

/// One graph without its surroundings, for messages and dumps: inputs, calls, outputs.
pub fn print_graph(graph: &Graph) -> String {
    let mut p = Printer::default();
    p.graph(graph, 0);
    p.out.push('\n');
    p.out
}

/// One call, on one line (a line more for each call in graphs that it takes), for messages.
pub fn print_node(graph: &Graph, id: NodeId) -> String {
    let mut p = Printer::default();
    p.node(graph, graph.node(id), 0);
    p.out
}

/// The type of a value, such as `f32[1, s77]`.
pub fn print_type(ty: &Type) -> String {
    let mut p = Printer::default();
    p.ty(ty);
    p.out
}

/// The description of a tensor's bytes, such as `bf16[512, 128] file "model.pt2" offset 64`.
pub(super) fn print_data(data: &TensorData) -> String {
    let mut p = Printer::default();
    p.data(data);
    p.out
}

/// A string in double quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut p = Printer::default();
    p.string(text);
    p.out
}

/// Words that can stand where a label does, or follow a call.
const RESERVED: &[&str] = &["at", "guard", "in", "in_spec", "input", "of", "out_spec", "return", "symbol"];

#[derive(Default)]
struct Printer {
    out: String,
    /// Files of sources, in the order in which they first appear, with their short names.
    files: Vec<(Arc<str>, Arc<str>)>,
    short: HashMap<Arc<str>, Arc<str>>,
    /// How many files have had a short name of this stem.
    stems: HashMap<String, u32>,
}

/// What a call's argument goes by.
#[derive(Clone, Copy)]
enum Style {
    /// By position.
    Place,
    /// By name.
    Name,
    /// Not at all: it is the default.
    Skip,
}

impl Printer {
    /// Gives every source file of a graph a short name.
    fn name_files(&mut self, graph: &Graph) {
        let mut last: Option<&Arc<Source>> = None;
        for (_, node) in graph.nodes() {
            if let Some(source) = &node.source
                && !last.is_some_and(|l| Arc::ptr_eq(l, source))
                && !self.short.contains_key(&source.file)
            {
                let id = self.short_name(&source.file);
                self.short.insert(source.file.clone(), id.clone());
                self.files.push((source.file.clone(), id));
            }
            last = node.source.as_ref();
            node.args.iter().for_each(|a| self.name_nested(a));
        }
    }

    fn name_nested(&mut self, arg: &Arg) {
        match arg {
            Arg::Graph(graph) => self.name_files(graph),
            Arg::List(items) => items.iter().for_each(|a| self.name_nested(a)),
            Arg::Dict(items) => items.iter().for_each(|(_, a)| self.name_nested(a)),
            _ => {}
        }
    }

    /// The last part of a path up to its first dot, with a number after a dot where an earlier file has taken that.
    fn short_name(&mut self, path: &str) -> Arc<str> {
        let name = path.rsplit(['/', '\\']).next().unwrap_or("");
        let stem = name.split('.').find(|part| !part.is_empty()).unwrap_or("");
        let mut id: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect();
        if id.is_empty() {
            id.push('f');
        }
        let count = self.stems.entry(id.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            let _ = write!(id, ".{count}");
        }
        id.into()
    }

    fn method(&mut self, method: &Method) {
        self.out.push_str("method ");
        self.string(&method.name);
        self.out.push(' ');
        self.out.push_str(method.dialect.name());
        self.out.push_str(" {\n");
        for (key, spec) in [("in_spec", &method.in_spec), ("out_spec", &method.out_spec)] {
            if !spec.is_empty() {
                self.out.push_str("  ");
                self.out.push_str(key);
                self.out.push(' ');
                self.string(spec);
                self.out.push('\n');
            }
        }
        for (symbol, range) in &method.ranges.0 {
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(self.out, "  symbol {symbol} {range}");
        }
        for guard in &method.guards {
            self.out.push_str("  guard ");
            self.string(&guard.text);
            self.out.push('\n');
        }
        for input in &method.inputs {
            self.input(&method.graph, input);
        }
        self.body(&method.graph, 1, Some(method));
        self.out.push_str("}\n");
    }

    fn input(&mut self, graph: &Graph, input: &Input) {
        self.out.push_str("  input ");
        if let Some(v) = input.value {
            self.definition(graph, v);
            self.out.push(' ');
        }
        self.out.push_str("= ");
        match &input.kind {
            InputKind::User => self.out.push_str("user"),
            InputKind::Literal { name, value } => {
                self.out.push_str("literal ");
                self.string(name);
                self.out.push(' ');
                self.arg(graph, value, 1);
            }
            InputKind::Parameter(w) => self.weight_ref("parameter", w.index()),
            InputKind::Constant(w) => self.weight_ref("constant", w.index()),
            InputKind::Buffer { weight, persistent } => {
                self.weight_ref("buffer", weight.index());
                self.out.push_str(if *persistent { "" } else { " nonpersistent" });
            }
            InputKind::Token => self.out.push_str("token"),
            InputKind::Object { name, class } => {
                self.out.push_str("object ");
                self.string(name);
                self.out.push(' ');
                self.string(class);
            }
        }
        self.out.push('\n');
    }

    fn weight_ref(&mut self, kind: &str, index: usize) {
        self.out.push_str(kind);
        self.out.push_str(" @");
        self.integer(index as i64);
    }

    /// Calls and what is returned; of a method, with what the outputs stand for.
    fn body(&mut self, graph: &Graph, level: usize, method: Option<&Method>) {
        for (_, node) in graph.nodes() {
            self.indent(level);
            self.node(graph, node, level);
            self.out.push('\n');
        }
        self.indent(level);
        self.out.push_str("return");
        for (i, output) in graph.outputs().iter().enumerate() {
            self.out.push_str(if i == 0 { " " } else { ", " });
            self.arg(graph, output, level);
            match method.and_then(|m| Some((m, m.outputs.get(i)?))) {
                None | Some((_, OutputKind::User)) => {}
                Some((_, OutputKind::Token)) => self.out.push_str(" as token"),
                Some((m, OutputKind::StateMutation(target))) => self.mutation(m, "state", *target),
                Some((m, OutputKind::InputMutation(target))) => self.mutation(m, "input", *target),
            }
        }
        self.out.push('\n');
    }

    fn mutation(&mut self, method: &Method, kind: &str, target: u32) {
        self.out.push_str(" as ");
        self.out.push_str(kind);
        self.out.push(' ');
        match method.inputs.get(target as usize).and_then(|i| i.value) {
            Some(v) => self.value(&method.graph, v),
            None => self.integer(i64::from(target)),
        }
    }

    fn graph(&mut self, graph: &Graph, level: usize) {
        self.out.push_str("graph(");
        for (i, &v) in graph.inputs().iter().enumerate() {
            self.out.push_str(if i == 0 { "" } else { ", " });
            self.definition(graph, v);
        }
        self.out.push_str(") {\n");
        self.body(graph, level + 1, None);
        self.indent(level);
        self.out.push('}');
    }

    fn node(&mut self, graph: &Graph, node: &Node, level: usize) {
        let first = node.outputs.first().map(|&v| &graph.value(v).name);
        if first != Some(&node.name) {
            let reserved = RESERVED.contains(&&*node.name);
            self.quoted_unless(&node.name, !reserved && lex::is_bare(&node.name));
            self.out.push_str(": ");
        }
        for (i, &v) in node.outputs.iter().enumerate() {
            self.out.push_str(if i == 0 { "" } else { ", " });
            self.definition(graph, v);
        }
        self.out.push_str(if node.outputs.is_empty() { "" } else { " = " });
        self.out.push_str(node.op.target());
        self.out.push('(');
        self.call_args(graph, node.op.schema(), &node.args, level);
        self.out.push(')');
        if let Some(source) = &node.source {
            self.source(source);
        }
    }

    fn call_args(&mut self, graph: &Graph, schema: &Schema, args: &[Arg], level: usize) {
        let mut separator = "";
        let (declared, extra) = args.split_at_checked(schema.args.len()).unwrap_or((args, &[]));
        // What is beyond the schema goes by position; what is before it then has to as well.
        let all = !extra.is_empty() || declared.len() < schema.args.len();
        let mut named = false;
        for (arg, spec) in declared.iter().zip(&schema.args) {
            let style = style(arg, spec, all);
            if matches!(style, Style::Skip) {
                named = true;
                continue;
            }
            // Names only, from the first one on.
            named |= matches!(style, Style::Name);
            self.out.push_str(separator);
            separator = ", ";
            if named {
                self.out.push_str(&spec.name);
                self.out.push('=');
            }
            self.arg(graph, arg, level);
        }
        for (i, arg) in extra.iter().enumerate() {
            // Named extras are one dictionary, the last argument.
            if let Arg::Dict(items) = arg
                && i + 1 == extra.len()
                && schema.traits.variadic
                && !items.is_empty()
                && items.iter().all(|(key, _)| is_argument_name(key) && schema.position(key).is_none())
            {
                for (key, item) in items {
                    self.out.push_str(separator);
                    separator = ", ";
                    self.out.push_str(key);
                    self.out.push('=');
                    self.arg(graph, item, level);
                }
                return;
            }
            self.out.push_str(separator);
            separator = ", ";
            self.arg(graph, arg, level);
        }
    }

    fn arg(&mut self, graph: &Graph, arg: &Arg, level: usize) {
        match arg {
            Arg::None => self.out.push_str("None"),
            Arg::Value(v) => self.value(graph, *v),
            Arg::Int(n) => self.integer(*n),
            Arg::Float(x) => self.float(*x),
            Arg::Bool(b) => self.out.push_str(if *b { "True" } else { "False" }),
            Arg::Str(s) => self.string(s),
            Arg::Complex(re, im) => {
                self.out.push_str("complex(");
                self.float(*re);
                self.out.push_str(", ");
                self.float(*im);
                self.out.push(')');
            }
            Arg::DType(t) => self.out.push_str(t.name()),
            Arg::MemoryFormat(n) => self.spelling("memory_format", &Literal::MemoryFormat(*n), *n),
            Arg::Layout(n) => self.spelling("layout", &Literal::Layout(*n), *n),
            Arg::Device(d) => {
                self.out.push_str("device(");
                self.string(d);
                self.out.push(')');
            }
            Arg::List(items) => {
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.out.push_str(if i == 0 { "" } else { ", " });
                    self.arg(graph, item, level);
                }
                self.out.push(']');
            }
            Arg::Dict(items) => {
                self.out.push('{');
                for (i, (key, item)) in items.iter().enumerate() {
                    self.out.push_str(if i == 0 { "" } else { ", " });
                    self.string(key);
                    self.out.push_str(": ");
                    self.arg(graph, item, level);
                }
                self.out.push('}');
            }
            Arg::Op(op) => self.out.push_str(op.target()),
            Arg::Graph(inner) => self.graph(inner, level),
        }
    }

    /// The name that schemas use for a number of the exporter; the number where there is none.
    fn spelling(&mut self, kind: &str, literal: &Literal, number: u8) {
        let _ = match super::spelled(literal) {
            Some(name) => write!(self.out, "{name}"),
            None => write!(self.out, "{kind}({number})"),
        };
    }

    fn definition(&mut self, graph: &Graph, v: ValueId) {
        self.value(graph, v);
        self.out.push_str(" : ");
        self.ty(graph.ty(v));
    }

    fn value(&mut self, graph: &Graph, v: ValueId) {
        let name = &graph.value(v).name;
        self.out.push('%');
        self.quoted_unless(name, lex::is_bare(name));
    }

    fn ty(&mut self, ty: &Type) {
        match ty {
            Type::Tensor(t) => self.tensor(t),
            Type::Int(e) => self.scalar("int(", e),
            Type::Float(e) => self.scalar("float(", e),
            Type::Bool(e) => self.scalar("bool(", e),
            Type::None => self.out.push_str("none"),
            Type::Opaque(class) => {
                self.out.push_str("opaque ");
                self.string(class);
            }
        }
    }

    fn scalar(&mut self, head: &str, e: &Expr) {
        self.out.push_str(head);
        self.expr(e);
        self.out.push(')');
    }

    fn tensor(&mut self, t: &TensorType) {
        self.out.push_str(t.dtype.name());
        self.exprs('[', &t.shape, ']');
        if let Some(strides) = &t.strides {
            self.exprs('{', strides, '}');
        }
    }

    fn exprs(&mut self, open: char, exprs: &[Expr], close: char) {
        self.out.push(open);
        for (i, e) in exprs.iter().enumerate() {
            self.out.push_str(if i == 0 { "" } else { ", " });
            self.expr(e);
        }
        self.out.push(close);
    }

    fn expr(&mut self, e: &Expr) {
        match e {
            Expr::Int(n) => self.integer(*n),
            e => {
                let _ = write!(self.out, "{e}");
            }
        }
    }

    fn source(&mut self, source: &Source) {
        self.out.push_str(" at ");
        match self.short.get(&source.file) {
            Some(id) => {
                self.out.push('$');
                self.out.push_str(id);
            }
            // A node on its own, without the table of files.
            None => self.string(&source.file),
        }
        self.out.push(':');
        self.integer(i64::from(source.line));
        for (word, name) in [(" in ", &source.function), (" of ", &source.module)] {
            if !name.is_empty() {
                self.out.push_str(word);
                self.quoted_unless(name, lex::is_bare(name));
            }
        }
    }

    fn data(&mut self, data: &TensorData) {
        self.out.push_str(data.dtype().name());
        self.out.push('[');
        for (i, n) in data.shape().iter().enumerate() {
            let _ = write!(self.out, "{}{n}", if i == 0 { "" } else { ", " });
        }
        self.out.push_str("] ");
        if let Some((file, offset)) = data.mapping() {
            self.out.push_str("file ");
            self.string(&file.path().to_string_lossy());
            let _ = write!(self.out, " offset {offset}");
        } else if let Some(recipe) = data.derivation() {
            let text = recipe.recipe();
            if let Some(clause) = text.strip_prefix(ABSENT) {
                self.out.push_str(clause);
                return;
            }
            self.out.push_str("derived ");
            self.string(&text);
            self.out.push_str(" (");
            for (i, input) in recipe.inputs().iter().enumerate() {
                self.out.push_str(if i == 0 { "" } else { ", " });
                self.data(input);
            }
            self.out.push(')');
        } else {
            self.inline(data.bytes().unwrap_or(&[]));
        }
    }

    fn inline(&mut self, bytes: &[u8]) {
        if bytes.len() > INLINE_LIMIT {
            let _ = write!(self.out, "omitted {:016x}", super::data::fingerprint(bytes));
            return;
        }
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.out.push_str("inline 0x");
        for &b in bytes {
            for digit in [b >> 4, b & 15] {
                self.out.extend(DIGITS.get(usize::from(digit)).map(|&d| char::from(d)));
            }
        }
    }

    fn indent(&mut self, level: usize) {
        for _ in 0..level {
            self.out.push_str("  ");
        }
    }

    fn quoted_unless(&mut self, text: &str, bare: bool) {
        if bare { self.out.push_str(text) } else { self.string(text) }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        let mut plain = 0;
        for (i, c) in text.char_indices() {
            if !matches!(c, '"' | '\\') && !lex::is_hidden(c) {
                continue;
            }
            self.out.push_str(text.get(plain..i).unwrap_or(""));
            plain = i + c.len_utf8();
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\t' => self.out.push_str("\\t"),
                '\r' => self.out.push_str("\\r"),
                c => {
                    let _ = write!(self.out, "\\u{{{:x}}}", u32::from(c));
                }
            }
        }
        self.out.push_str(text.get(plain..).unwrap_or(""));
        self.out.push('"');
    }

    fn integer(&mut self, n: i64) {
        // Most numbers are sizes and positions of one digit.
        match u8::try_from(n) {
            Ok(digit @ 0..=9) => self.out.push(char::from(b'0' + digit)),
            _ => {
                let _ = write!(self.out, "{n}");
            }
        }
    }

    fn float(&mut self, x: f64) {
        let _ = if !x.is_nan() {
            write!(self.out, "{x:?}")
        } else if x.to_bits() == f64::NAN.to_bits() {
            write!(self.out, "nan")
        } else {
            write!(self.out, "nan(0x{:016x})", x.to_bits())
        };
    }
}

/// Required arguments go by position, others by name, defaults not at all.
fn style(arg: &Arg, spec: &ArgSpec, all: bool) -> Style {
    match &spec.default {
        _ if spec.kw_only && (all || !spec.default.as_ref().is_some_and(|d| is_default(arg, d))) => Style::Name,
        _ if all => Style::Place,
        Some(default) if is_default(arg, default) => Style::Skip,
        Some(_) => Style::Name,
        None => Style::Place,
    }
}

/// Whether the argument is what the parser fills in for this default.
fn is_default(arg: &Arg, default: &Literal) -> bool {
    match (arg, default) {
        (Arg::List(items), Literal::List(defaults)) => {
            items.len() == defaults.len() && items.iter().zip(defaults).all(|(a, d)| is_default(a, d))
        }
        (Arg::Str(s), Literal::Str(d)) => **s == **d,
        (Arg::List(_) | Arg::Str(_), _) | (_, Literal::List(_) | Literal::Str(_)) => false,
        (arg, default) => *arg == Arg::from(default),
    }
}

/// Whether the parser takes it for the name of an argument.
fn is_argument_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
