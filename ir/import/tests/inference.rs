//! Inferred types against those that the exporter recorded, for every call of every program at hand: the fixtures and
//! examples of this repository, and the programs below `ETX_CASES` if it is set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use etx_import::pt2;
use etx_ir::error::ErrorKind;
use etx_ir::graph::{Arg, Graph, Node, Type};
use etx_ir::infer;
use etx_ir::op::OpId;
use etx_ir::sym::{Expr, Ranges};

#[derive(Default)]
struct Tally {
    agreed: usize,
    /// Calls that agree only as far as the ranges of the symbols tell.
    possible: BTreeMap<String, usize>,
    unknown: BTreeMap<OpId, usize>,
    wrong: Vec<String>,
}

/// Whether a value that only running the program tells is part of it: names of such symbols are given out anew.
fn depends_on_data(e: &Expr) -> bool {
    let mut found = false;
    e.visit_symbols(&mut |s| found |= s.name().starts_with('u'));
    found
}

fn expressions(ty: &Type) -> Vec<Expr> {
    match ty {
        Type::Tensor(t) => t.shape.clone(),
        Type::Int(e) | Type::Float(e) | Type::Bool(e) => vec![e.clone()],
        Type::None | Type::Opaque(_) => Vec::new(),
    }
}

fn without_sizes(ty: &Type) -> Type {
    match ty {
        Type::Tensor(t) => Type::Tensor(etx_ir::graph::TensorType::new(t.dtype, vec![Expr::Int(0); t.rank()])),
        Type::Int(_) => Type::Int(Expr::Int(0)),
        Type::Float(_) => Type::Float(Expr::Int(0)),
        Type::Bool(_) => Type::Bool(Expr::Int(0)),
        other => other.clone(),
    }
}

fn check(path: &Path, graph: &Graph, ranges: &Ranges, tally: &mut Tally) {
    for (_, node) in graph.nodes() {
        for arg in &node.args {
            // An autocast region changes what operators compute in, which is no matter of types.
            if let (Arg::Graph(inner), false) = (arg, casts(node)) {
                check(path, inner, ranges, tally);
            }
        }
        let inferred = match infer::infer(graph, ranges, node.op, &node.args) {
            Ok(types) => types,
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                *tally.unknown.entry(node.op).or_default() += 1;
                continue;
            }
            Err(e) => {
                tally.wrong.push(format!("{} {}: {e}", path.display(), node.name));
                continue;
            }
        };
        let recorded: Vec<Type> = node.outputs.iter().map(|&v| graph.ty(v).clone()).filter(|t| *t != Type::None).collect();
        let inferred: Vec<Type> = inferred.into_iter().filter(|t| *t != Type::None).collect();
        let kinds = |types: &[Type]| types.iter().map(without_sizes).collect::<Vec<_>>();
        let (a, b): (Vec<Expr>, Vec<Expr>) =
            (recorded.iter().flat_map(expressions).collect(), inferred.iter().flat_map(expressions).collect());
        let exact = a == b;
        // A new symbol stands for what the exporter gave a name of its own.
        let possible = a.iter().zip(&b).all(|(a, b)| a == b || (depends_on_data(a) && depends_on_data(b)) || ranges.equal(a, b).is_none());
        if kinds(&recorded) != kinds(&inferred) || a.len() != b.len() || !possible {
            tally.wrong.push(format!("{} {}: {} recorded {recorded:?}, inferred {inferred:?}", path.display(), node.name, node.op));
        } else if exact || a.iter().zip(&b).all(|(a, b)| a == b || depends_on_data(a)) {
            tally.agreed += 1;
        } else {
            *tally.possible.entry(format!("{} {}: {} recorded {a:?}, inferred {b:?}", path.display(), node.name, node.op)).or_default() +=
                1;
        }
    }
}

fn casts(node: &Node) -> bool {
    node.op == etx_ir::op!("higher_order.wrap_with_autocast") && node.args.get(2).and_then(Arg::as_bool) == Some(true)
}

fn programs(below: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(below) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            programs(&path, found);
        } else if path.extension().is_some_and(|e| e == "pt2") {
            found.push(path);
        }
    }
}

#[test]
fn inferred_types_are_those_the_exporter_recorded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths = Vec::new();
    for folder in ["tests/fixtures", "examples"] {
        programs(&root.join(folder), &mut paths);
    }
    assert!(!paths.is_empty(), "no fixtures");
    if let Some(cases) = std::env::var_os("ETX_CASES") {
        programs(Path::new(&cases), &mut paths);
    }
    let (mut tally, mut refused, mut loaded) = (Tally::default(), 0, 0);
    for path in &paths {
        let Ok(program) = pt2::load(path) else {
            refused += 1;
            continue;
        };
        loaded += 1;
        for method in &program.methods {
            check(path, &method.graph, &method.ranges, &mut tally);
        }
    }
    let covered = tally.agreed + tally.possible.len() + tally.wrong.len();
    let unknown: usize = tally.unknown.values().sum();
    println!("{loaded} programs ({refused} did not load): {covered} of {} calls have a rule", covered + unknown);
    println!("{} exact, {} equal as far as the ranges tell", tally.agreed, tally.possible.len());
    for (what, n) in &tally.unknown {
        println!("  no rule: {what} ({n} calls)");
    }
    for what in tally.possible.keys() {
        println!("  possible: {what}");
    }
    assert!(tally.wrong.is_empty(), "{} calls differ:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
    assert!(unknown * 20 <= covered, "more than one call in twenty has no rule");
}
