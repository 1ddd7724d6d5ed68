//! The verifier: what every well-formed program satisfies.
//!
//! [`verify`] checks all of it and reports everything that is wrong, each finding with its method, call, operator and
//! source line. Readers give programs that verify; passes are checked after each step. The invariants:
//!
//! **Program**
//! 1. Methods have names, no two the same.
//! 2. Bounds of a symbol are not empty.
//!
//! **Graph**, each a scope of its own (bodies of higher-order operators too)
//! 3. Values have names, no two the same; calls likewise.
//! 4. A value's record of its definition is right: it is the input, or the result of the call, that it says it is.
//! 5. Every use is of a value of the same graph that is defined before it (hence there are no cycles).
//! 6. The use lists hold exactly the uses there are.
//! 7. Sizes and strides are integer expressions, sizes not negative; there are as many strides as sizes.
//! 8. Symbols in the types of results are known: they occur in the type of an input, or a call before introduced them,
//!    as a result that is a number, or as a size that depends on data.
//!
//! **Calls**
//! 9. The operator is known.
//! 10. There is one argument for each of the operator's schema; variadic operators may have more.
//! 11. Arguments are of the schema's types. What exporters do is taken for granted: a tensor may be a number, a
//!     symbolic integer may be a boolean, a list of fixed length may have another.
//! 12. There are as many results as the schema has, of its types; a list result is spread out, an unused one may be
//!     absent.
//! 13. In the functional dialect no call writes to an argument.
//! 14. Results have the types that shape inference gives, where a rule knows the operator: the same element types and
//!     ranks, and sizes that no values of the symbols tell apart. (Not where autocast changes what operators compute in.)
//! 15. A body takes as many values as the call passes to it, of the same element types, and returns what the call says.
//!
//! **Signature**
//! 16. The graph's inputs are the values of the method's inputs, in order.
//! 17. Parameters, buffers and constants are tensors; their weight exists and has the same element type and sizes.
//!     What the caller gives has a value; literals have none, and hold no values, graphs or operators.
//! 18. There is one output kind for each output of the graph; outputs hold no graphs or operators.
//! 19. A mutation names an input that is a parameter or buffer (or one of the user's, for those), no input is named
//!     twice, and the new value is a tensor of the target's element type and sizes.

mod args;
mod bodies;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::error::{Error, ErrorKind};
use crate::graph::{Arg, Def, Graph, Node, NodeId, TensorType, Type, ValueId};
use crate::infer;
use crate::op::{ArgType, Kind, Schema};
use crate::program::{Dialect, Input, InputKind, Method, OutputKind, Program};
use crate::sym::{Expr, Func, Symbol};
use crate::text::print_type;

/// At most this many findings are listed; the number of the others is given.
const MAX_LISTED: usize = 50;

/// Checks the whole program.
///
/// # Errors
/// [`ErrorKind::Invalid`] with everything that is wrong.
pub fn verify(program: &Program) -> Result<(), Error> {
    let mut findings = Findings::default();
    let mut names = HashSet::new();
    for method in &program.methods {
        if method.name.is_empty() {
            findings.push(|| "a method has no name".to_owned());
        } else if !names.insert(&method.name) {
            findings.push(|| format!("two methods are called {}", method.name));
        }
        check_method(program, method, &mut findings);
    }
    findings.finish()
}

/// Checks one method of a program.
///
/// # Errors
/// As [`verify`].
pub fn verify_method(program: &Program, method: &Method) -> Result<(), Error> {
    let mut findings = Findings::default();
    check_method(program, method, &mut findings);
    findings.finish()
}

#[derive(Default)]
struct Findings {
    listed: Vec<String>,
    more: usize,
}

impl Findings {
    #[cold]
    fn push(&mut self, what: impl FnOnce() -> String) {
        if self.listed.len() < MAX_LISTED {
            self.listed.push(what());
        } else {
            self.more += 1;
        }
    }

    fn count(&self) -> usize {
        self.listed.len() + self.more
    }

    fn finish(mut self) -> Result<(), Error> {
        if self.more > 0 {
            self.listed.push(format!("… and {} more", self.more));
        }
        if self.listed.is_empty() { Ok(()) } else { Err(Error::many(ErrorKind::Invalid, self.listed)) }
    }
}

fn check_method(program: &Program, method: &Method, findings: &mut Findings) {
    let mut checker = Checker { method, findings, inside: Vec::new(), known: HashSet::new(), autocast: false };
    for (symbol, range) in &method.ranges.0 {
        if let (Some(min), Some(max)) = (range.min, range.max)
            && min > max
        {
            checker.wrong(&format!("symbol {symbol}"), || format!("no integer is in {range}"));
        }
    }
    checker.inputs(program);
    checker.graph(&method.graph);
    checker.outputs();
}

struct Checker<'a, 'f> {
    method: &'a Method,
    findings: &'f mut Findings,
    /// Calls whose bodies are being checked, outermost first.
    inside: Vec<&'a str>,
    /// Symbols that have been introduced.
    known: HashSet<&'a Symbol>,
    /// Whether operators compute in other element types than those of their arguments.
    autocast: bool,
}

impl<'a> Checker<'a, '_> {
    /// A finding about something of the method.
    #[cold]
    fn wrong(&mut self, place: &str, what: impl FnOnce() -> String) {
        let (method, inside) = (&self.method.name, &self.inside);
        self.findings.push(|| {
            let mut text = format!("method {method}, ");
            for call in inside {
                let _ = write!(text, "body of {call}, ");
            }
            let _ = write!(text, "{place}: {}", what());
            text
        });
    }

    /// A finding about a call.
    #[cold]
    fn wrong_call(&mut self, node: &Node, what: impl FnOnce() -> String) {
        let mut place = format!("{} = {}", node.name, node.op);
        if let Some(source) = &node.source {
            let _ = write!(place, " ({source})");
        }
        self.wrong(&place, what);
    }

    // Signature.

    fn inputs(&mut self, program: &Program) {
        let method = self.method;
        let values: Vec<ValueId> = method.inputs.iter().filter_map(|i| i.value).collect();
        if values != method.graph.inputs() {
            let (spec, graph) = (values.len(), method.graph.inputs().len());
            let how = if spec == graph { "in another order".to_owned() } else { format!("{spec} against {graph}") };
            self.wrong("inputs", || format!("the values of the inputs are not the inputs of the graph ({how})"));
        }
        for (i, input) in method.inputs.iter().enumerate() {
            if let Some(what) = input_problem(program, &method.graph, input) {
                let name = input.value.filter(|v| v.index() < method.graph.value_bound()).map(|v| &method.graph.value(v).name);
                let place = name.map_or_else(|| format!("input {i}"), |n| format!("input {i}, {n}"));
                self.wrong(&place, || what);
            }
        }
    }

    fn outputs(&mut self) {
        let (kinds, outputs) = (&self.method.outputs, self.method.graph.outputs());
        if kinds.len() != outputs.len() {
            self.wrong("outputs", || format!("{} kinds of outputs, but the graph returns {}", kinds.len(), outputs.len()));
        }
        let mut targets = HashSet::new();
        for (i, (kind, output)) in kinds.iter().zip(outputs).enumerate() {
            let target = match kind {
                OutputKind::User | OutputKind::Token => continue,
                OutputKind::StateMutation(target) | OutputKind::InputMutation(target) => *target,
            };
            let problem = self.mutation_problem(*kind, target, output);
            let problem = problem.or_else(|| (!targets.insert(target)).then(|| format!("input {target} has a new value already")));
            if let Some(what) = problem {
                self.wrong(&format!("output {i}"), || what);
            }
        }
    }

    fn mutation_problem(&self, kind: OutputKind, target: u32, output: &Arg) -> Option<String> {
        let Some(input) = self.method.inputs.get(target as usize) else {
            return Some(format!("new value of input {target}, of {} inputs", self.method.inputs.len()));
        };
        match (kind, &input.kind) {
            (OutputKind::StateMutation(_), InputKind::Buffer { .. } | InputKind::Parameter(_))
            | (OutputKind::InputMutation(_), InputKind::User) => {}
            (OutputKind::StateMutation(_), _) => {
                return Some(format!("new state of input {target}, which is neither buffer nor parameter"));
            }
            _ => return Some(format!("new value of input {target}, which is not the user's")),
        }
        let graph = &self.method.graph;
        let old = input.value.and_then(|v| graph.tensor(v));
        let new = output.as_value().and_then(|v| graph.tensor(v));
        let show = |t: Option<&TensorType>| t.map_or_else(|| "no tensor".to_owned(), |t| print_type(&Type::Tensor(t.clone())));
        match (old, new) {
            (Some(a), Some(b)) if a.same_as(b) => None,
            _ => Some(format!("the new value of input {target} is {}, the input is {}", show(new), show(old))),
        }
    }

    // Graphs.

    fn graph(&mut self, graph: &'a Graph) {
        let mut names = HashSet::new();
        for (i, &v) in graph.inputs().iter().enumerate() {
            let value = graph.value(v);
            if value.def != Def::Input(i as u32) {
                self.wrong(&format!("value {}", value.name), || format!("is input {i} but says it is {}", defined_by(value.def)));
            }
            self.value(graph, v, &mut names);
            visit_type(&value.ty, &mut |s| {
                self.known.insert(s);
            });
        }
        let positions = graph.positions();
        let mut calls = HashSet::new();
        let mut uses: Vec<(ValueId, NodeId)> = Vec::new();
        for (id, node) in graph.nodes() {
            if node.name.is_empty() || !calls.insert(&*node.name) {
                self.wrong_call(node, || "the name of the call is empty, or that of another".to_owned());
            }
            let before = self.findings.count();
            self.operands(graph, id, node, &positions, &mut uses);
            self.call(graph, node);
            // Of a call that is wrong anyway, inference would only say the same in other words.
            if self.findings.count() == before {
                self.inferred(graph, node);
            }
            for (i, &v) in node.outputs.iter().enumerate() {
                if graph.value(v).def != Def::Node(id, i as u32) {
                    let (name, by) = (&graph.value(v).name, defined_by(graph.value(v).def));
                    self.wrong_call(node, || format!("%{name} is its result {i} but says it is {by}"));
                }
                self.value(graph, v, &mut names);
                self.symbols(graph, node, v);
            }
        }
        let mut returned = vec![0u32; graph.value_bound()];
        for (i, output) in graph.outputs().iter().enumerate() {
            if contains(output, &|a| matches!(a, Arg::Graph(_) | Arg::Op(_))) {
                self.wrong(&format!("output {i}"), || "returns a graph or an operator".to_owned());
            }
            output.visit(&mut |v| {
                if let Some(count) = returned.get_mut(v.index()) {
                    *count += 1;
                }
                if let Some(what) = self.undefined(graph, v, &positions, u32::MAX) {
                    self.wrong(&format!("output {i}"), || what);
                }
            });
        }
        self.use_lists(graph, uses, &returned);
    }

    /// Every value that a call takes is defined before it.
    fn operands(&mut self, graph: &Graph, id: NodeId, node: &Node, positions: &[u32], uses: &mut Vec<(ValueId, NodeId)>) {
        let here = positions.get(id.index()).copied().unwrap_or(0);
        for arg in &node.args {
            arg.visit(&mut |v| {
                uses.push((v, id));
                if let Some(what) = self.undefined(graph, v, positions, here) {
                    self.wrong_call(node, || what);
                }
            });
        }
    }

    /// Why a value cannot be used at a position.
    fn undefined(&self, graph: &Graph, v: ValueId, positions: &[u32], here: u32) -> Option<String> {
        if v.index() >= graph.value_bound() {
            return Some(format!("uses {v:?}, which is not of this graph"));
        }
        let value = graph.value(v);
        let defined = match value.def {
            Def::Input(i) => graph.inputs().get(i as usize) == Some(&v),
            Def::Node(n, i) if graph.contains(n) && graph.node(n).outputs.get(i as usize) == Some(&v) => {
                let there = positions.get(n.index()).copied().unwrap_or(u32::MAX);
                if there >= here {
                    return Some(format!("uses %{}, which is defined after it", value.name));
                }
                true
            }
            Def::Node(..) => false,
        };
        (!defined).then(|| format!("uses %{}, whose definition is gone", value.name))
    }

    /// Name and type of a value, wherever it is defined.
    fn value(&mut self, graph: &'a Graph, v: ValueId, names: &mut HashSet<&'a str>) {
        let value = graph.value(v);
        if value.name.is_empty() || !names.insert(&value.name) {
            self.wrong(&format!("value {}", value.name), || "its name is empty, or that of another value".to_owned());
        }
        if let Type::Tensor(t) = &value.ty
            && let Some(what) = type_problem(t)
        {
            self.wrong(&format!("value {} : {}", value.name, print_type(&value.ty)), || what);
        }
    }

    /// Symbols of a result are known before or introduced by the call.
    fn symbols(&mut self, graph: &'a Graph, node: &Node, v: ValueId) {
        let schema = node.op.schema();
        let value = graph.value(v);
        let introduces = match &value.ty {
            // A number names itself; in an expression, symbols must be known. Of a truth value torch names the number that it is.
            Type::Int(e) | Type::Float(e) | Type::Bool(e) if matches!(e, Expr::Sym(_)) => true,
            Type::Bool(Expr::Call(Func::Eq, of)) => {
                schema.traits.data && matches!(**of, [Expr::Sym(_), Expr::Int(1)] | [Expr::Int(1), Expr::Sym(_)])
            }
            Type::Int(_) | Type::Float(_) | Type::Bool(_) => false,
            _ => schema.traits.data || schema.traits.dynamic,
        };
        let mut unknown = None;
        visit_type(&value.ty, &mut |s| {
            if introduces || schema.kind == Kind::HigherOrder {
                self.known.insert(s);
            } else if !self.known.contains(s) {
                unknown = Some(s);
            }
        });
        if let Some(s) = unknown {
            // Once is enough.
            self.known.insert(s);
            self.wrong_call(node, || format!("%{} : {}: nothing before it introduces the symbol {s}", value.name, print_type(&value.ty)));
        }
    }

    fn use_lists(&mut self, graph: &Graph, mut uses: Vec<(ValueId, NodeId)>, returned: &[u32]) {
        uses.sort_unstable();
        let live = graph.inputs().iter().chain(graph.nodes().flat_map(|(_, n)| &n.outputs));
        for &v in live {
            let start = uses.partition_point(|(u, _)| *u < v);
            let own = uses.get(start..).unwrap_or(&[]).iter().take_while(|(u, _)| *u == v).map(|(_, n)| *n);
            let mut recorded = graph.value(v).users().to_vec();
            recorded.sort_unstable();
            if !own.eq(recorded.iter().copied()) {
                self.wrong(&format!("value {}", graph.value(v).name), || "its list of uses is not what uses it".to_owned());
            }
            if returned.get(v.index()) != Some(&graph.value(v).output_uses()) {
                self.wrong(&format!("value {}", graph.value(v).name), || "its count of returns is not how often it is returned".to_owned());
            }
        }
    }

    // Calls.

    fn call(&mut self, graph: &'a Graph, node: &'a Node) {
        if node.op.is_unknown() {
            return self.wrong_call(node, || "the operator is not known".to_owned());
        }
        let schema = node.op.schema();
        let (given, declared) = (node.args.len(), schema.args.len());
        if given < declared || (given > declared && !schema.traits.variadic) {
            return self.wrong_call(node, || format!("{given} arguments, the operator takes {declared}"));
        }
        for (arg, spec) in node.args.iter().zip(&schema.args) {
            if !args::accepts(&spec.ty, arg, graph) {
                self.wrong_call(node, || format!("argument `{}` is {}, not {}", spec.name, args::describe(arg, graph), spec.ty));
            }
        }
        self.results(graph, node, schema);
        if self.method.dialect == Dialect::Functional
            && let Some(name) = args::written(node)
        {
            self.wrong_call(node, || format!("writes to `{name}` in a functional program"));
        }
        for arg in &node.args {
            self.nested(node, arg);
        }
        if schema.kind == Kind::HigherOrder {
            for what in bodies::problems(graph, &self.method.ranges, node) {
                self.wrong_call(node, || what);
            }
        }
    }

    fn results(&mut self, graph: &Graph, node: &Node, schema: &Schema) {
        let open = schema.returns.iter().any(|r| matches!(r.ty.required(), ArgType::List(..) | ArgType::Any));
        let (given, declared) = (node.outputs.len(), schema.returns.len());
        if !open && given != declared {
            return self.wrong_call(node, || format!("{given} results, the operator gives {declared}"));
        }
        let element = match schema.returns.as_slice() {
            [only] => only.ty.element(),
            _ => None,
        };
        for (i, &v) in node.outputs.iter().enumerate() {
            // Where one of several results is a list, it is not known which result is whose.
            let expected = if open { element } else { schema.returns.get(i).map(|r| &r.ty) };
            let ty = graph.ty(v);
            if let Some(expected) = expected
                && !args::gives(expected, ty)
            {
                self.wrong_call(node, || format!("result {i} is {}, not {expected}", print_type(ty)));
            }
        }
    }

    /// Results against what shape inference makes of the arguments.
    fn inferred(&mut self, graph: &Graph, node: &Node) {
        let types = match infer::infer(graph, &self.method.ranges, node.op, &node.args) {
            Ok(types) => types,
            // Autocast makes operands of different types fit.
            Err(e) if e.kind() == ErrorKind::Shape && !self.autocast => return self.wrong_call(node, || e.findings().join("; ")),
            Err(_) => return,
        };
        // Results that are not used may be absent.
        let recorded: Vec<&Type> = node.outputs.iter().map(|&v| graph.ty(v)).filter(|t| **t != Type::None).collect();
        let inferred: Vec<&Type> = types.iter().filter(|t| **t != Type::None).collect();
        let ranges = &self.method.ranges;
        let agree = |a: &Type, b: &Type| match (a, b) {
            // Of calls inside autocast only the sizes are known.
            (Type::Tensor(a), Type::Tensor(b)) if self.autocast => infer::agree_in_size(ranges, a, b),
            _ => infer::agree(ranges, a, b),
        };
        if recorded.len() != inferred.len() || !recorded.iter().zip(&inferred).all(|(a, b)| agree(a, b)) {
            let list = |types: &[&Type]| types.iter().map(|t| print_type(t)).collect::<Vec<_>>().join(", ");
            self.wrong_call(node, || format!("gives {} for these arguments, not {}", list(&inferred), list(&recorded)));
        }
    }

    fn nested(&mut self, node: &'a Node, arg: &'a Arg) {
        match arg {
            Arg::Graph(inner) => {
                let outer = self.autocast;
                self.autocast |= bodies::autocasts(node);
                self.inside.push(&node.name);
                self.graph(inner);
                self.inside.pop();
                self.autocast = outer;
            }
            Arg::List(items) => items.iter().for_each(|a| self.nested(node, a)),
            Arg::Dict(items) => items.iter().for_each(|(_, a)| self.nested(node, a)),
            _ => {}
        }
    }
}

/// What is wrong with an input of a method.
fn input_problem(program: &Program, graph: &Graph, input: &Input) -> Option<String> {
    let ty = input.value.filter(|v| v.index() < graph.value_bound()).map(|v| graph.ty(v));
    if let InputKind::Literal { value, .. } = &input.kind {
        let literal = !contains(value, &|a| matches!(a, Arg::Value(_) | Arg::Graph(_) | Arg::Op(_)));
        return (input.value.is_some() || !literal).then(|| "a literal that has a value in the graph, or holds one".to_owned());
    }
    let Some(weight) = input.kind.weight() else {
        let needed = matches!(input.kind, InputKind::User);
        return (needed && ty.is_none()).then(|| "given by the caller, but has no value in the graph".to_owned());
    };
    let Some(weight) = program.weights().get(weight.index()) else {
        return Some(format!("weight @{} of {}", weight.index(), program.weights().len()));
    };
    let Some(tensor) = ty.and_then(Type::as_tensor) else {
        return Some(format!("holds the weight {} but is no tensor", weight.name));
    };
    let sizes = tensor.shape.iter().map(|d| d.as_int().and_then(|n| u64::try_from(n).ok()));
    let same = tensor.dtype == weight.data.dtype() && sizes.eq(weight.data.shape().iter().map(|n| Some(*n)));
    (!same).then(|| {
        let ty = print_type(&Type::Tensor(tensor.clone()));
        format!("is {ty}, its weight {} is {}{:?}", weight.name, weight.data.dtype(), weight.data.shape())
    })
}

/// What is wrong with a tensor's type.
fn type_problem(t: &TensorType) -> Option<String> {
    if t.strides.as_ref().is_some_and(|s| s.len() != t.shape.len()) {
        return Some("as many strides as sizes there must be".to_owned());
    }
    let bad = |e: &&Expr| matches!(e, Expr::Bool(_) | Expr::Float(_));
    if let Some(e) = t.shape.iter().chain(t.strides.iter().flatten()).find(bad) {
        return Some(format!("{e} is no integer"));
    }
    t.impossible()
}

fn visit_type<'t>(ty: &'t Type, f: &mut dyn FnMut(&'t Symbol)) {
    match ty {
        Type::Tensor(t) => t.shape.iter().chain(t.strides.iter().flatten()).for_each(|e| visit_expr(e, f)),
        Type::Int(e) | Type::Float(e) | Type::Bool(e) => visit_expr(e, f),
        Type::None | Type::Opaque(_) => {}
    }
}

fn visit_expr<'t>(e: &'t Expr, f: &mut dyn FnMut(&'t Symbol)) {
    match e {
        Expr::Int(_) | Expr::Bool(_) | Expr::Float(_) => {}
        Expr::Sym(s) => f(s),
        Expr::Add(args) | Expr::Mul(args) | Expr::Call(_, args) => args.iter().for_each(|a| visit_expr(a, f)),
    }
}

/// Whether the argument is, or has in it, something that the test accepts.
fn contains(arg: &Arg, test: &dyn Fn(&Arg) -> bool) -> bool {
    test(arg)
        || match arg {
            Arg::List(items) => items.iter().any(|a| contains(a, test)),
            Arg::Dict(items) => items.iter().any(|(_, a)| contains(a, test)),
            _ => false,
        }
}

fn defined_by(def: Def) -> String {
    match def {
        Def::Input(i) => format!("input {i}"),
        Def::Node(n, i) => format!("result {i} of {n:?}"),
    }
}
