use super::*;
use crate::op::{ArgKind, bind, families};
use crate::sym::{Expr, Range, Symbol};

/// What eager PyTorch answers, written by `tools/infer_facts.py`.
const FACTS: &str = include_str!("facts.txt");

/// Reads calls such as `aten.add.Tensor(f32[2, s0], 2, alpha=1)`: tensors by element type and sizes, `sym(s0 + 1)` for an
/// integer of the graph, everything else as Python writes it. Elements may follow a tensor in braces.
struct Reader<'a> {
    text: &'a str,
    graph: Graph,
    elements: Vec<Option<String>>,
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
            let elements = if self.eat("{") { Some(self.enclosed('{', '}')) } else { None };
            self.elements.push(elements);
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

/// A call as it is written in the facts, without the closing bracket.
pub(crate) struct Written {
    pub(crate) op: OpId,
    /// Its inputs are the tensors of the call, in order.
    pub(crate) graph: Graph,
    pub(crate) args: Vec<Arg>,
    /// The elements of each input, where they are given.
    pub(crate) elements: Vec<Option<String>>,
}

pub(crate) fn read(call: &str) -> Written {
    let (target, arguments) = call.split_once('(').unwrap();
    let op = OpId::lookup(target).unwrap_or_else(|| panic!("unknown operator {target}"));
    let mut r = Reader { text: arguments, graph: Graph::new(), elements: Vec::new() };
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
    let args = specs.map(|(s, a)| a.unwrap_or_else(|| s.default.as_ref().map_or(Arg::None, Arg::from))).collect();
    Written { op, graph: r.graph, args, elements: r.elements }
}

/// What is inferred for a call, spelled as in the facts; the error's text for `Err`.
fn answer(ranges: &Ranges, call: &str) -> Result<String, Error> {
    let w = read(call);
    let types = infer(&w.graph, ranges, w.op, &w.args)?;
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
    families::check(table::FAMILIES);
}

/// `s0` is 2 to 64, `s1` 2 or more, `s2` 0 to 8, `u0` 0 to 126, `u1` anything.
fn ranges() -> Ranges {
    let symbols = [("s0", Some(2), Some(64)), ("s1", Some(2), None), ("s2", Some(0), Some(8)), ("u0", Some(0), Some(126))];
    let range = |(name, min, max)| Some((Symbol::new(name)?, Range { min, max }));
    Ranges(symbols.into_iter().filter_map(range).collect())
}

fn all_agree(cases: &[(&str, &str)]) {
    for (call, expected) in cases {
        match answer(&ranges(), call.strip_suffix(')').unwrap()) {
            Ok(found) => assert_eq!(found, *expected, "{call}"),
            Err(e) => assert!(*expected == "error", "{call}: {e}"),
        }
    }
}

#[test]
fn symbolic_sizes_broadcast() {
    all_agree(&[
        ("aten.add.Tensor(f32[s0, 1], f32[1, s1])", "f32[s0, s1]"),
        ("aten.add.Tensor(f32[s0, 4], f32[4])", "f32[s0, 4]"),
        ("aten.add.Tensor(f32[s0], f32[])", "f32[s0]"),
        ("aten.add.Tensor(f32[s0], f32[8])", "f32[8]"),
        ("aten.add.Tensor(f32[s0], f32[65])", "error"),
        ("aten.add.Tensor(f32[s0], f32[s0 + 1])", "error"),
        ("aten.add.Tensor(f32[u1], f32[1])", "f32[u1]"),
        ("aten.add.Tensor(f32[s2], f32[9])", "f32[9]"),
        ("aten.mul.Tensor(bf16[s0, 3], sym(s0))", "bf16[s0, 3]"),
        ("aten.mul.Tensor(i32[s0], sym(s0))", "i32[s0]"),
        ("aten.where.self(bool[s0, 1], f32[1, s1], f32[])", "f32[s0, s1]"),
        ("aten.expand.default(f32[1, 4], [sym(s0), -1])", "f32[s0, 4]"),
        ("aten.expand.default(f32[s0, 4], [sym(s0), 4])", "f32[s0, 4]"),
        ("aten.expand.default(f32[s0, 4], [65, 4])", "error"),
    ]);
}

#[test]
fn views_of_symbolic_sizes() {
    all_agree(&[
        ("aten.view.default(f32[s0, 8], [-1])", "f32[8*s0]"),
        ("aten.view.default(f32[s0, 8], [-1, 4])", "f32[2*s0, 4]"),
        ("aten.view.default(f32[s0, s1, 8], [-1, 8])", "f32[s0*s1, 8]"),
        ("aten.view.default(f32[1, s0, 32], [1, sym(s0), 4, 8])", "f32[1, s0, 4, 8]"),
        ("aten.view.default(f32[8*s0 + 8], [sym(s0 + 1), -1])", "f32[s0 + 1, 8]"),
        ("aten.view.default(f32[s0 + 1, 8], [-1, 4])", "f32[2*s0 + 2, 4]"),
        ("aten.view.default(f32[s0, 6], [sym(s0), 7])", "error"),
        ("aten.view.default(f32[s0, 6], [sym(s0), 5, -1])", "error"),
        ("aten.flatten.using_ints(f32[2, s0, 3], 0, 1)", "f32[2*s0, 3]"),
        ("aten.unflatten.int(f32[4*s0, 3], 0, [-1, 4])", "f32[s0, 4, 3]"),
        ("aten.squeeze.default(f32[1, s0, u1])", "f32[s0, u1]"),
        ("aten.repeat.default(f32[s0], [2, sym(s1)])", "f32[2, s0*s1]"),
        ("aten.cat.default([f32[s0, 3], f32[s1, 3]])", "f32[s0 + s1, 3]"),
        ("aten.cat.default([f32[0], f32[s0, 3]], 1)", "f32[s0, 3]"),
        ("aten.chunk.default(f32[6*s0], 3)", "f32[2*s0], f32[2*s0], f32[2*s0]"),
        ("aten.split_with_sizes.default(f32[s0 + 2], [sym(s0), 2])", "f32[s0], f32[2]"),
        ("aten.arange.default(sym(s0))", "i64[s0]"),
        ("aten.arange.start(sym(u0), sym(u0 + s0))", "i64[s0]"),
        ("aten.arange.start_step(0, sym(s0), 2)", "i64[FloorDiv(s0 + 1, 2)]"),
        ("aten.full.default([sym(s0), 2], 0)", "i64[s0, 2]"),
    ]);
}

#[test]
fn slices_of_symbolic_sizes() {
    all_agree(&[
        ("aten.slice.Tensor(f32[s0], 0, 0, 9223372036854775807)", "f32[s0]"),
        ("aten.slice.Tensor(f32[s0], 0, 1, 9223372036854775807)", "f32[s0 - 1]"),
        ("aten.slice.Tensor(f32[s0], 0, None, -1)", "f32[s0 - 1]"),
        ("aten.slice.Tensor(f32[s0], 0, -1, 9223372036854775807)", "f32[1]"),
        ("aten.slice.Tensor(f32[s0], 0, 0, 2)", "f32[2]"),
        ("aten.slice.Tensor(f32[s0], 0, 0, 3)", "f32[Min(3, s0)]"),
        ("aten.slice.Tensor(f32[s0], 0, 0, 64)", "f32[s0]"),
        ("aten.slice.Tensor(f32[128], 0, 0, sym(s0))", "f32[s0]"),
        ("aten.slice.Tensor(f32[256], 0, sym(u0), sym(u0 + s0))", "f32[s0]"),
        ("aten.slice.Tensor(f32[s0], 0, 0, 9223372036854775807, 2)", "f32[FloorDiv(s0 + 1, 2)]"),
        ("aten.slice.Tensor(f32[s0], 0, sym(s0//2), 9223372036854775807)", "f32[s0 - 1*FloorDiv(s0, 2)]"),
        ("aten.slice.Tensor(f32[s2], 0, 100, 200)", "f32[0]"),
        ("aten.narrow.default(f32[128], 0, sym(u1), sym(s0))", "f32[s0]"),
        ("aten.select.int(f32[s0, 3], 0, sym(u0))", "f32[3]"),
        ("aten.select.int(f32[s0, 3], 0, 64)", "error"),
    ]);
}

#[test]
fn symbolic_products_and_windows() {
    all_agree(&[
        ("aten.matmul.default(f32[1, s0, 4], f32[4, 8])", "f32[1, s0, 8]"),
        ("aten.matmul.default(f32[s0, 4], f32[s1, 8])", "f32[s0, 8]"),
        ("aten.linear.default(bf16[1, s0, 4], bf16[8, 4])", "bf16[1, s0, 8]"),
        ("aten.conv1d.default(f32[1, 3, s0], f32[5, 3, 3], None, [2], [1])", "f32[1, 5, FloorDiv(s0 + 1, 2)]"),
        ("aten.avg_pool2d.default(f32[1, 3, s0, s0], [2, 2])", "f32[1, 3, FloorDiv(s0, 2), FloorDiv(s0, 2)]"),
        ("aten.upsample_nearest2d.vec(f32[1, 3, s0, 4], None, [2.0, 2.0])", "f32[1, 3, 2*s0, 8]"),
        ("aten.index.Tensor(f32[s0, 4], [bool[s0]])", "f32[u_2_0, 4]"),
        ("aten.nonzero.default(f32[s0, 4])", "i64[u_1_0, 2]"),
        ("mlx.moe_scatter_outputs.default(f32[2*s0, 1, 16], i32[], i32[2*s0], 2)", "f32[s0, 2, 16]"),
    ]);
}

#[test]
fn pythons_numbers() {
    all_agree(&[
        ("aten.sym_size.int(f32[s0, 4], -2)", "s0"),
        ("aten.sym_numel.default(f32[s0, 4])", "4*s0"),
        ("_operator.add(sym(s0), 1)", "s0 + 1"),
        ("_operator.sub(1, sym(s0))", "-1*s0 + 1"),
        ("_operator.mul(sym(s0), sym(s0 + 1))", "s0 + s0*s0"),
        ("_operator.floordiv(sym(4*s0 + 2), 4)", "s0"),
        ("_operator.mod(sym(s0 + 4), 2)", "Mod(s0, 2)"),
        ("_operator.pow(2, sym(s0))", "Pow(2, s0)"),
        ("_operator.neg(sym(s0))", "-1*s0"),
        ("_operator.truediv(sym(s0), 2)", "IntTrueDiv(s0, 2)"),
        ("_operator.mul(sym(s0), 0.5)", "0.5*ToFloat(s0)"),
        ("torch.sym_max(sym(s0), 3)", "Max(3, s0)"),
        ("torch.sym_int(2.5)", "2"),
        ("torch.sym_float(3)", "3.0"),
        ("_operator.ge(sym(s0), 3)", "Le(3, s0)"),
        ("_operator.lt(1, 2)", "true"),
        ("_operator.lshift(sym(s0), 3)", "8*s0"),
        ("torch.sym_ite(True, sym(s0), sym(s0))", "s0"),
        ("aten.item.default(i64[])", "u_1_0"),
        ("aten.item.default(i64[2])", "error"),
    ]);
}

#[test]
fn relatives_follow_their_operators() {
    all_agree(&[
        ("aten.add_.Tensor(f32[s0, 3], f64[3])", "f32[s0, 3]"),
        ("aten.mul_.Tensor(f32[s0], f32[s1, s0])", "error"),
        ("aten.view_copy.default(f32[s0, 3], [-1])", "f32[3*s0]"),
        ("aten.index_copy_.default(f32[8, 3], 0, i64[s0], f32[s0, 3])", "f32[8, 3]"),
        ("aten.transpose_.default(f32[s0, 3], 0, 1)", "f32[3, s0]"),
        ("aten._assert_scalar.default(True, \"no\")", ""),
    ]);
    let update = crate::op!("mlx.kv_cache_update.default").functional().unwrap();
    let call = format!("{}(bf16[1, 2, 128, 4], bf16[1, 2, s0, 4], sym(u0)", update.target());
    assert_eq!(answer(&ranges(), &call).unwrap(), "bf16[1], bf16[1, 2, 128, 4]");
}

#[test]
fn errors_name_operator_operands_and_reason() {
    let said = |call: &str| answer(&ranges(), call.strip_suffix(')').unwrap()).unwrap_err();
    let e = said("aten.add.Tensor(f32[2, 3], f32[4], alpha=2)");
    assert_eq!(
        (e.kind(), e.to_string().as_str()),
        (ErrorKind::Shape, "aten.add.Tensor(f32[2, 3], other=f32[4], alpha=2): sizes 3 and 4 do not broadcast")
    );
    let e = said("aten.linear.default(f32[2, 3], bf16[4, 3])");
    assert_eq!(e.to_string(), "aten.linear.default(f32[2, 3], weight=bf16[4, 3]): element types f32 and bf16 differ");
    let e = said("aten.linalg_qr.default(f32[2, 3])");
    assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::Unsupported, "no shape rule knows aten.linalg_qr.default"));
    assert!(!knows(crate::op!("aten.linalg_qr.default")) && knows(crate::op!("aten.add_.Tensor")));
    let e = said("aten.split.Tensor(f32[s0], 2)");
    assert_eq!(e.kind(), ErrorKind::Unsupported);
}

#[test]
fn missing_arguments_have_their_defaults() {
    let mut g = Graph::new();
    let x = g.add_input("x", tensor_type(DType::Float32, "2, 3"));
    let types = infer(&g, &Ranges::default(), crate::op!("aten.sum.dim_IntList"), &[x.into(), vec![1i64].into()]).unwrap();
    assert_eq!(types, [tensor_type(DType::Float32, "2")]);
}

/// `torch.promote_types` over the types that a tensor of a model can have, row by row.
#[test]
fn promotion_is_symmetric_and_keeps_the_wider() {
    for &a in DType::ALL {
        for &b in DType::ALL {
            let both = promote_types(a, b);
            assert_eq!(both, promote_types(b, a), "{a} {b}");
            if let Some(t) = both {
                assert!(promote_types(t, a) == Some(t) && promote_types(t, b) == Some(t), "{a} {b} {t}");
            }
        }
    }
    assert_eq!(promote_types(DType::Float16, DType::BFloat16), Some(DType::Float32));
    assert_eq!(promote_types(DType::UInt8, DType::Int8), Some(DType::Int16));
    assert_eq!(promote_types(DType::Int64, DType::Float16), Some(DType::Float16));
    assert_eq!(promote_types(DType::UInt32, DType::Int64), None);
    assert_eq!(promote_types(DType::Complex64, DType::Float64), Some(DType::Complex128));
    assert_eq!(promote_types(DType::Float8E4M3, DType::Float32), None);
}
