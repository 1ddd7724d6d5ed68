use super::*;
use crate::op::{ArgKind, bind};
use crate::sym::Expr;

/// What eager PyTorch answers, written by `tools/infer_facts.py`.
const FACTS: &str = include_str!("facts.txt");

/// Reads calls such as `aten.add.Tensor(f32[2, s0], 2, alpha=1)`: tensors by element type and sizes, `sym(s0 + 1)` for an
/// integer of the graph, everything else as Python writes it.
struct Reader<'a> {
    text: &'a str,
    graph: Graph,
}

impl Reader<'_> {
    fn eat(&mut self, token: &str) -> bool {
        self.text = self.text.trim_start();
        match self.text.strip_prefix(token) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &str {
        self.text = self.text.trim_start();
        let end = self.text.find(|c: char| !c.is_ascii_alphanumeric() && !"_.-+".contains(c)).unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        word
    }

    /// Up to the closing bracket that matches one already read.
    fn enclosed(&mut self, open: char, close: char) -> String {
        let mut depth = 1;
        for (i, ch) in self.text.char_indices() {
            depth += i32::from(ch == open) - i32::from(ch == close);
            if depth == 0 {
                let inner = self.text[..i].to_owned();
                self.text = &self.text[i + 1..];
                return inner;
            }
        }
        panic!("unbalanced: {}", self.text);
    }

    fn arg(&mut self) -> Arg {
        if self.eat("[") {
            let mut items = Vec::new();
            while !self.eat("]") {
                items.push(self.arg());
                self.eat(",");
            }
            return Arg::List(items);
        }
        if self.eat("\"") {
            let (text, rest) = self.text.split_once('"').unwrap();
            self.text = rest;
            return Arg::from(text);
        }
        if self.eat("sym(") {
            let e = Expr::parse(&self.enclosed('(', ')')).unwrap();
            return self.graph.add_input("n", Type::Int(e)).into();
        }
        let word = self.word().to_owned();
        if let Some(dtype) = DType::from_name(&word) {
            if !self.eat("[") {
                return Arg::DType(dtype);
            }
            let inner = self.enclosed('[', ']');
            return self.graph.add_input("x", tensor_type(dtype, &inner)).into();
        }
        match word.as_str() {
            "None" => Arg::None,
            "True" => Arg::Bool(true),
            "False" => Arg::Bool(false),
            number => number.parse().map(Arg::Int).or_else(|_| number.parse().map(Arg::Float)).unwrap(),
        }
    }
}

fn tensor_type(dtype: DType, sizes: &str) -> Type {
    let sizes = split(sizes).into_iter().map(|n| Expr::parse(n).unwrap()).collect();
    Type::Tensor(TensorType::new(dtype, sizes))
}

/// Splits at commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (i, ch) in text.char_indices() {
        match ch {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|p| !p.is_empty());
    parts
}

/// What is inferred for a call, spelled as in the facts; the error's text for `Err`.
fn answer(ranges: &Ranges, call: &str) -> Result<String, Error> {
    let (target, arguments) = call.split_once('(').unwrap();
    let op = OpId::lookup(target).unwrap_or_else(|| panic!("unknown operator {target}"));
    let mut r = Reader { text: arguments, graph: Graph::new() };
    let mut given = Vec::new();
    while !r.text.trim().is_empty() {
        let name = match r.text.split_once('=') {
            Some((name, rest)) if name.trim().chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
                r.text = rest;
                name.trim().to_owned()
            }
            _ => String::new(),
        };
        let kind = if name.is_empty() { ArgKind::Positional } else { ArgKind::Keyword };
        given.push((name, kind, r.arg()));
        r.eat(",");
    }
    let bound = bind(op.schema(), given).unwrap();
    let specs = op.schema().args.iter().zip(bound.args);
    let args: Vec<Arg> = specs.map(|(s, a)| a.unwrap_or_else(|| s.default.as_ref().map_or(Arg::None, Arg::from))).collect();
    let types = infer(&r.graph, ranges, op, &args)?;
    let spelled = types.iter().map(|t| match t {
        Type::Tensor(t) => format!("{}{:?}", t.dtype, t.shape),
        Type::Int(e) | Type::Float(e) | Type::Bool(e) => e.to_string(),
        other => format!("{other:?}"),
    });
    Ok(spelled.collect::<Vec<_>>().join(", "))
}

#[test]
fn agrees_with_eager_pytorch() {
    let mut wrong = Vec::new();
    for line in FACTS.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (call, expected) = line.split_once(") -> ").unwrap();
        let found = answer(&Ranges::default(), call);
        match &found {
            Ok(found) if found == expected => {}
            Err(e) if expected == "error" && e.kind() == ErrorKind::Shape => {}
            _ => wrong.push(format!("{line}\n   found: {}", found.unwrap_or_else(|e| e.to_string()))),
        }
    }
    assert!(wrong.is_empty(), "{} facts:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_word_of_the_table_is_an_operator_and_stands_once() {
    let mut seen = std::collections::BTreeSet::new();
    for word in table::FAMILIES.iter().flat_map(|(_, words)| words.split_whitespace()) {
        let target = table::target(word);
        assert!(OpId::lookup(&target).is_some(), "{word} is no operator");
        assert!(seen.insert(target), "{word} stands twice");
    }
}
