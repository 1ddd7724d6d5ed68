//! The parser: one pass, nothing looked up that is not in the text already.

mod values;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::data::{self, ABSENT, WeightResolver};
use super::lex::Cursor;
use super::print::quoted;
use crate::DType;
use crate::conditions::Guard;
use crate::error::{Error, ErrorKind};
use crate::graph::{Arg, Graph, Source, Type, ValueId};
use crate::op::{ArgKind, OpId, bind};
use crate::program::{Dialect, Input, InputKind, Method, OutputKind, Program, WeightId};
use crate::sym::{Range, Ranges, Symbol};
use crate::weights::TensorData;

/// Lists, dictionaries, graphs and derived weights nested deeper than this are refused.
const MAX_DEPTH: u32 = 48;

/// Reads a program; the inverse of [`super::print`].
///
/// Arguments that the text leaves out are filled in from the operator's schema. What the text says is taken as it is:
/// [`crate::verify::verify`] tells whether the program is well formed.
///
/// # Errors
/// [`ErrorKind::Format`] or [`ErrorKind::UnknownOperator`], starting with line and column; what `weights` says of a file.
pub fn parse(text: &str, weights: &mut dyn WeightResolver) -> Result<Program, Error> {
    let mut parser = Parser { at: Cursor::new(text), weights, depth: 0, files: HashMap::new(), sources: HashMap::new(), last: None };
    parser.program()
}

/// Values of one graph by name.
#[derive(Default)]
struct Scope<'a> {
    graph: Graph,
    values: HashMap<Cow<'a, str>, ValueId>,
}

type SourceKey<'a> = (Arc<str>, u32, Cow<'a, str>, Cow<'a, str>);

struct Parser<'a, 'w> {
    at: Cursor<'a>,
    weights: &'w mut dyn WeightResolver,
    depth: u32,
    /// Source files by short name (`$…`) or path (as it is).
    files: HashMap<Cow<'a, str>, Arc<str>>,
    /// Every source once.
    sources: HashMap<SourceKey<'a>, Arc<Source>>,
    last: Option<(SourceKey<'a>, Arc<Source>)>,
}

impl<'a> Parser<'a, '_> {
    fn program(&mut self) -> Result<Program, Error> {
        self.at.expect_word("etir")?;
        let start = self.at.place();
        let version: u32 = self.at.integer("the version of the text form")?;
        if version != 1 {
            return Err(self.at.error(ErrorKind::Version, start, &format!("text form {version}; 1 is supported")));
        }
        let mut program = Program::new();
        loop {
            let start = self.at.place();
            match self.at.word() {
                "file" => self.file()?,
                "weight" => self.weight(&mut program)?,
                "method" => {
                    let method = self.method(&program)?;
                    program.methods.push(method);
                }
                "" if self.at.peek().is_none() => return Ok(program),
                _ => {
                    self.at.back(start);
                    return Err(self.at.expected("`file`, `weight` or `method`"));
                }
            }
        }
    }

    fn file(&mut self) -> Result<(), Error> {
        let start = self.at.place();
        self.at.expect(b'$')?;
        let id = self.at.name("the short name of a file")?;
        let path: Arc<str> = self.at.string()?.into();
        let key = Cow::Owned(format!("${id}"));
        if self.files.insert(key, path).is_some() {
            return Err(self.at.wrong(start, &format!("file ${id} is there twice")));
        }
        Ok(())
    }

    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let at = self.at.place();
            return Err(self.at.wrong(at, "nested too deeply"));
        }
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// Items up to `close`, with `,` between them.
    fn items(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if self.at.eat(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.at.eat(close) {
                return Ok(());
            }
            if !self.at.eat(b',') {
                return Err(self.at.expected(&format!("`,` or `{}`", char::from(close))));
            }
        }
    }

    // Weights.

    fn weight(&mut self, program: &mut Program) -> Result<(), Error> {
        let start = self.at.place();
        self.at.expect(b'@')?;
        let index: usize = self.at.integer("the number of a weight")?;
        if index != program.weights().len() {
            return Err(self.at.wrong(start, &format!("expected weight @{}: weights are numbered in order", program.weights().len())));
        }
        let name = self.at.string()?;
        let data = self.data()?;
        program.add_weight(&name, data);
        Ok(())
    }

    fn data(&mut self) -> Result<TensorData, Error> {
        self.deeper(Self::data_here)
    }

    fn data_here(&mut self) -> Result<TensorData, Error> {
        let start = self.at.place();
        let dtype = DType::from_name(self.at.word());
        let Some(dtype) = dtype else {
            self.at.back(start);
            return Err(self.at.expected("an element type"));
        };
        self.at.expect(b'[')?;
        let mut shape = Vec::new();
        self.items(b']', |p| {
            shape.push(p.at.integer("a size")?);
            Ok(())
        })?;
        let here = self.at.place();
        let data = match self.at.word() {
            "file" => {
                let path = self.at.string()?;
                self.at.expect_word("offset")?;
                let offset: u64 = self.at.integer("an offset")?;
                match self.weights.resolve(&path, offset, dtype, &shape) {
                    Ok(Some(data)) if data.dtype() == dtype && data.shape() == shape => Ok(data),
                    Ok(Some(data)) => Err(Error::new(ErrorKind::Weight, format!("another tensor was given for it, {data:?}"))),
                    Ok(None) => data::absent(dtype, shape, &format!("file {} offset {offset}", quoted(&path))),
                    Err(e) => return Err(e.within(self.at.position(start))),
                }
            }
            "inline" => {
                let digits = self.at.hex()?.as_bytes();
                let bytes = digits.chunks(2).map(hex_byte).collect::<Option<Vec<u8>>>();
                let Some(bytes) = bytes else {
                    return Err(self.at.wrong(here, "an odd number of hexadecimal digits"));
                };
                TensorData::inline(dtype, shape, bytes)
            }
            "omitted" => {
                let word = self.at.word();
                match u64::from_str_radix(word, 16).ok().filter(|_| word.len() == 16) {
                    Some(hash) => data::absent(dtype, shape, &format!("omitted {hash:016x}")),
                    None => return Err(self.at.wrong(here, "expected 16 hexadecimal digits after `omitted`")),
                }
            }
            "derived" => {
                let recipe = self.at.string()?.into_owned();
                if recipe.starts_with(ABSENT) {
                    return Err(self.at.wrong(here, "a recipe that starts with `absent`"));
                }
                self.at.expect(b'(')?;
                let mut inputs = Vec::new();
                self.items(b')', |p| {
                    inputs.push(p.data()?);
                    Ok(())
                })?;
                data::derived(dtype, shape, recipe, inputs)
            }
            _ => {
                self.at.back(here);
                return Err(self.at.expected("`file`, `inline`, `omitted` or `derived`"));
            }
        };
        // The tensor's own complaint (too large, wrong number of bytes), with its place.
        data.map_err(|e| self.at.wrong(start, &e.findings().join("; ")))
    }

    fn weight_ref(&mut self, program: &Program) -> Result<WeightId, Error> {
        let start = self.at.place();
        self.at.expect(b'@')?;
        let index: u32 = self.at.integer("the number of a weight")?;
        if index as usize >= program.weights().len() {
            return Err(self.at.wrong(start, &format!("there is no weight @{index} before it")));
        }
        Ok(WeightId(index))
    }

    // Methods.

    fn method(&mut self, program: &Program) -> Result<Method, Error> {
        let name: Arc<str> = self.at.string()?.into();
        let start = self.at.place();
        let word = self.at.word();
        let Some(dialect) = [Dialect::Training, Dialect::Functional].into_iter().find(|d| d.name() == word) else {
            self.at.back(start);
            return Err(self.at.expected("`training` or `functional`"));
        };
        self.at.expect(b'{')?;
        let (mut in_spec, mut out_spec) = (Cow::Borrowed(""), Cow::Borrowed(""));
        let mut ranges = Ranges::default();
        let mut guards = Vec::new();
        let mut inputs = Vec::new();
        let mut positions = HashMap::new();
        let mut scope = Scope::default();
        loop {
            let start = self.at.place();
            match self.at.word() {
                "in_spec" => in_spec = self.at.string()?,
                "out_spec" => out_spec = self.at.string()?,
                "guard" => guards.push(self.at.string()?.into_owned()),
                "symbol" => {
                    let (symbol, range) = self.range()?;
                    if ranges.0.insert(symbol, range).is_some() {
                        return Err(self.at.wrong(start, "a symbol is there twice"));
                    }
                }
                "input" => {
                    let input = self.input(program, &mut scope)?;
                    positions.extend(input.value.map(|v| (v, inputs.len() as u32)));
                    inputs.push(input);
                }
                _ => {
                    self.at.back(start);
                    break;
                }
            }
        }
        let mut outputs = Vec::new();
        let graph = self.body(scope, |p, scope| {
            let kind = if p.at.eat_word("as") { p.output_kind(scope, &positions)? } else { OutputKind::User };
            outputs.push(kind);
            Ok(())
        })?;
        let guards = guards.iter().map(|text| Guard::read(text, &graph, &inputs)).collect();
        Ok(Method { name, graph, inputs, outputs, ranges, guards, dialect, in_spec: in_spec.into(), out_spec: out_spec.into() })
    }

    fn range(&mut self) -> Result<(Symbol, Range), Error> {
        let start = self.at.place();
        let Some(symbol) = Symbol::new(self.at.word()) else {
            self.at.back(start);
            return Err(self.at.expected("a symbol"));
        };
        self.at.expect(b'[')?;
        let min = if self.at.peek() == Some(b'.') { None } else { Some(self.at.integer("a smallest value")?) };
        self.at.expect(b'.')?;
        self.at.expect(b'.')?;
        let max = if self.at.peek() == Some(b']') { None } else { Some(self.at.integer("a largest value")?) };
        self.at.expect(b']')?;
        Ok((symbol, Range { min, max }))
    }

    fn input(&mut self, program: &Program, scope: &mut Scope<'a>) -> Result<Input, Error> {
        let value = if self.at.peek() == Some(b'%') { Some(self.graph_input(scope)?) } else { None };
        self.at.expect(b'=')?;
        let start = self.at.place();
        let kind = match self.at.word() {
            "user" => InputKind::User,
            "literal" => {
                let name = self.at.string()?.into();
                // A literal names no values.
                InputKind::Literal { name, value: self.arg(&Scope::default())? }
            }
            "parameter" => InputKind::Parameter(self.weight_ref(program)?),
            "constant" => InputKind::Constant(self.weight_ref(program)?),
            "buffer" => {
                let weight = self.weight_ref(program)?;
                InputKind::Buffer { weight, persistent: !self.at.eat_word("nonpersistent") }
            }
            "token" => InputKind::Token,
            "object" => InputKind::Object { name: self.at.string()?.into(), class: self.at.string()?.into() },
            _ => {
                self.at.back(start);
                return Err(self.at.expected("`user`, `literal`, `parameter`, `buffer`, `constant`, `token` or `object`"));
            }
        };
        Ok(Input { value, kind })
    }

    fn graph_input(&mut self, scope: &mut Scope<'a>) -> Result<ValueId, Error> {
        let start = self.at.place();
        let (name, ty) = self.definition()?;
        let v = scope.graph.add_input(&name, ty);
        self.define(scope, start, name, v)?;
        Ok(v)
    }

    fn define(&self, scope: &mut Scope<'a>, start: usize, name: Cow<'a, str>, v: ValueId) -> Result<(), Error> {
        match scope.values.insert(name, v) {
            None => Ok(()),
            Some(first) => Err(self.at.wrong(start, &format!("%{} is defined twice", scope.graph.value(first).name))),
        }
    }

    fn output_kind(&mut self, scope: &Scope<'a>, positions: &HashMap<ValueId, u32>) -> Result<OutputKind, Error> {
        let start = self.at.place();
        let kind: fn(u32) -> OutputKind = match self.at.word() {
            "token" => return Ok(OutputKind::Token),
            "state" => OutputKind::StateMutation,
            "input" => OutputKind::InputMutation,
            _ => {
                self.at.back(start);
                return Err(self.at.expected("`state`, `input` or `token`"));
            }
        };
        if self.at.peek() != Some(b'%') {
            return self.at.integer("an input").map(kind);
        }
        let start = self.at.place();
        let v = self.value(scope)?;
        let position = positions.get(&v).copied();
        position.map(kind).ok_or_else(|| self.at.wrong(start, &format!("%{} is no input", scope.graph.value(v).name)))
    }

    /// Calls, then what is returned, up to `}`.
    fn body(
        &mut self,
        mut scope: Scope<'a>,
        mut after_output: impl FnMut(&mut Self, &Scope<'a>) -> Result<(), Error>,
    ) -> Result<Graph, Error> {
        while !self.at.eat_word("return") {
            self.node(&mut scope)?;
        }
        let mut outputs = Vec::new();
        if !self.at.eat(b'}') {
            loop {
                outputs.push(self.arg(&scope)?);
                after_output(self, &scope)?;
                if self.at.eat(b'}') {
                    break;
                }
                if !self.at.eat(b',') {
                    return Err(self.at.expected("`,` or `}`"));
                }
            }
        }
        scope.graph.set_outputs(outputs);
        Ok(scope.graph)
    }

    /// `graph` has been read.
    fn nested(&mut self) -> Result<Graph, Error> {
        let mut scope = Scope::default();
        self.at.expect(b'(')?;
        self.items(b')', |p| p.graph_input(&mut scope).map(drop))?;
        self.at.expect(b'{')?;
        self.body(scope, |_, _| Ok(()))
    }

    // Calls.

    fn node(&mut self, scope: &mut Scope<'a>) -> Result<(), Error> {
        let start = self.at.place();
        let mut label = None;
        if self.at.peek() != Some(b'%') {
            label = Some(self.at.name("a call or `return`")?);
            self.at.expect(b':')?;
        }
        let mut defined = Vec::new();
        if self.at.peek() == Some(b'%') {
            loop {
                let at = self.at.place();
                defined.push((at, self.definition()?));
                if !self.at.eat(b',') {
                    break;
                }
            }
            self.at.expect(b'=')?;
        }
        let at = self.at.place();
        let target = self.at.word();
        let op = self.operator(at, target)?;
        let args = self.call_args(scope, at, op)?;
        let source = if self.at.eat_word("at") { Some(self.source()?) } else { None };
        let name = match (&label, defined.first()) {
            (Some(name), _) | (None, Some((_, (name, _)))) => name.clone(),
            (None, None) => return Err(self.at.expected("a call or `return`")),
        };
        let outputs = defined.iter_mut().map(|(_, (name, ty))| (&**name, std::mem::replace(ty, Type::None))).collect();
        let id = scope.graph.append(op, args, &name, outputs, source);
        if *scope.graph.node(id).name != *name {
            return Err(self.at.wrong(start, &format!("a call named {name} is there already; names of calls are unique")));
        }
        let values = scope.graph.node(id).outputs.clone();
        for (v, (at, (name, _))) in values.into_iter().zip(defined) {
            self.define(scope, at, name, v)?;
        }
        Ok(())
    }

    fn operator(&mut self, at: usize, target: &str) -> Result<OpId, Error> {
        if !target.contains('.') {
            self.at.back(at);
            return Err(self.at.expected("an operator, such as aten.add.Tensor"));
        }
        OpId::lookup(target).ok_or_else(|| self.at.error(ErrorKind::UnknownOperator, at, &format!("unknown operator {target}")))
    }

    fn call_args(&mut self, scope: &Scope<'a>, start: usize, op: OpId) -> Result<Vec<Arg>, Error> {
        self.at.expect(b'(')?;
        let mut given = Vec::new();
        self.items(b')', |p| {
            let here = p.at.place();
            let name = p.at.word();
            let named = !name.is_empty() && p.at.eat(b'=');
            if !named {
                p.at.back(here);
            }
            let arg = p.arg(scope)?;
            given.push(if named { (name, ArgKind::Keyword, arg) } else { ("", ArgKind::Positional, arg) });
            Ok(())
        })?;
        let schema = op.schema();
        let bound = bind(schema, given).map_err(|e| self.at.wrong(start, &e.to_string()))?;
        let declared = schema.args.iter().zip(bound.args);
        let mut args: Vec<Arg> =
            declared.map(|(spec, given)| given.unwrap_or_else(|| spec.default.as_ref().map_or(Arg::None, Arg::from))).collect();
        let mut named = Vec::new();
        for (name, _, arg) in bound.extra {
            if name.is_empty() { args.push(arg) } else { named.push((Arc::from(name), arg)) }
        }
        if !named.is_empty() {
            args.push(Arg::Dict(named));
        }
        Ok(args)
    }

    /// `at` has been read.
    fn source(&mut self) -> Result<Arc<Source>, Error> {
        let start = self.at.place();
        let short = self.at.eat(b'$');
        let file = if short { Cow::Owned(format!("${}", self.at.word())) } else { self.at.string()? };
        let path = match self.files.get(&file) {
            Some(path) => path.clone(),
            None if short => return Err(self.at.wrong(start, &format!("no file {file} was named before"))),
            None => {
                let path: Arc<str> = Arc::from(&*file);
                self.files.insert(file, path.clone());
                path
            }
        };
        self.at.expect(b':')?;
        let line: u32 = self.at.integer("a line")?;
        let function = if self.at.eat_word("in") { self.at.name("a function")? } else { Cow::Borrowed("") };
        let module = if self.at.eat_word("of") { self.at.name("a module")? } else { Cow::Borrowed("") };
        let key = (path, line, function, module);
        if let Some((last, source)) = &self.last
            && *last == key
        {
            return Ok(source.clone());
        }
        let make = || Arc::new(Source { file: key.0.clone(), line, function: Arc::from(&*key.2), module: Arc::from(&*key.3) });
        let source = self.sources.entry(key.clone()).or_insert_with(make).clone();
        self.last = Some((key, source.clone()));
        Ok(source)
    }
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    match digits {
        [a, b] => {
            let digit = |d: u8| char::from(d).to_digit(16);
            u8::try_from(digit(*a)? << 4 | digit(*b)?).ok()
        }
        _ => None,
    }
}
