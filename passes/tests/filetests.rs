//! Every file below `tests/filetests` is a test: a program, what is run on it, and what must come out.
//!
//! ```text
//! # A sentence saying what is tested.
//! run: functionalise dce
//! etir 1
//! …
//! ==>
//! etir 1
//! …
//! ```
//!
//! `run:` names passes, or `standard` for the whole pipeline, or `decompose(op op …)` for that pass with a backend that
//! refuses these operators (`decompose(*)`: all). After `==>` stands the program that must come out, or `error:` and the
//! error. The verifier looks at the program after every pass, and running the same once more must change nothing.
//! `BLESS=1` writes what comes out into the files.

use std::path::{Path, PathBuf};

use etx_ir::program::{Method, Program};
use etx_ir::text::{self, NoFiles};
use etx_passes::{
    Canonicalise, CollapseViews, Cse, Dce, Decompose, FoldConstants, FoldScalars, Functionalise, FuseRmsNorm, InlineWrappers, Options,
    Pipeline, ReduceSelections, RemoveNoops,
};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let args = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let trials = files.into_iter().map(|path| {
        let name = path.strip_prefix(&root).unwrap_or(&path).with_extension("").display().to_string();
        Trial::test(name, move || check(&path).map_err(Failed::from))
    });
    libtest_mimic::run(&args, trials.collect()).exit();
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "etir") {
            files.push(path);
        }
    }
}

/// Runs one file.
fn check(path: &Path) -> Result<(), String> {
    let file = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let (input, expected) = file.split_once("==>\n").unwrap_or((&file, ""));
    let (header, program) = input.split_once("etir 1\n").ok_or("no program")?;
    let run = header.lines().find_map(|l| l.strip_prefix("run: ")).ok_or("no `run:` line")?;
    let program = text::parse(&format!("etir 1\n{program}"), &mut NoFiles).map_err(|e| format!("input: {e}"))?;
    let found = outcome(run, program)?;
    if found == expected {
        return Ok(());
    }
    if std::env::var_os("BLESS").is_some() {
        return std::fs::write(path, format!("{input}==>\n{found}")).map_err(|e| e.to_string());
    }
    Err(format!("BLESS=1 writes this instead:\n{}", difference(expected, &found)))
}

fn outcome(run: &str, mut program: Program) -> Result<String, String> {
    if let Err(e) = pipeline(run)?.run(&mut program, &mut Options::verified()) {
        return Ok(format!("error: {e}\n"));
    }
    let once = text::print(&program);
    pipeline(run)?.run(&mut program, &mut Options::verified()).map_err(|e| format!("second run: {e}"))?;
    let twice = text::print(&program);
    if once == twice { Ok(once) } else { Err(format!("running it twice changes more:\n{}", difference(&once, &twice))) }
}

fn pipeline(run: &str) -> Result<Pipeline<'_>, String> {
    let mut pipeline = Pipeline::new();
    let mut rest = run.trim();
    while !rest.is_empty() {
        let (word, tail) = match rest.strip_prefix("decompose(").and_then(|r| r.split_once(')')) {
            Some((ops, tail)) => {
                let refused = move |_: &Program, m: &Method| refusing(m, ops);
                pipeline = pipeline.then(Decompose::new(refused));
                rest = tail.trim_start();
                continue;
            }
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        pipeline = match word {
            "standard" => pipeline.then_all(Pipeline::standard()),
            "inline-wrappers" => pipeline.then(InlineWrappers),
            "functionalise" => pipeline.then(Functionalise),
            "canonicalise" => pipeline.then(Canonicalise),
            "remove-noops" => pipeline.then(RemoveNoops),
            "collapse-views" => pipeline.then(CollapseViews),
            "fold-constants" => pipeline.then(FoldConstants),
            "fold-scalars" => pipeline.then(FoldScalars),
            "fuse-rms-norm" => pipeline.then(FuseRmsNorm),
            "cse" => pipeline.then(Cse),
            "dce" => pipeline.then(Dce),
            "reduce-selections" => pipeline.then(ReduceSelections),
            other => return Err(format!("no pass is called {other:?}")),
        };
        rest = tail.trim_start();
    }
    Ok(pipeline)
}

/// Verdicts of a backend that refuses these operators.
fn refusing(method: &Method, ops: &str) -> Vec<bool> {
    let mut accepted = vec![true; method.graph.node_bound()];
    for (id, node) in method.graph.nodes() {
        if ops == "*" || ops.split(' ').any(|o| o == node.op.target()) {
            accepted[id.index()] = false;
        }
    }
    accepted
}

/// The lines that differ, in order, with those around them.
fn difference(expected: &str, found: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let start = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count().min(a.len().min(b.len()) - start);
    let show = |lines: &[&str], sign: char| lines[start..lines.len() - end].iter().map(|l| format!("{sign} {l}\n")).collect::<String>();
    format!("from line {}\n{}{}", start + 1, show(&a, '-'), show(&b, '+'))
}
