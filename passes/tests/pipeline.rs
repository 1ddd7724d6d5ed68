//! The driver, and the whole pipeline over exported programs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use etx_import::pt2;
use etx_ir::error::{Error, ErrorKind};
use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::program::{Dialect, Method, Program};
use etx_ir::text::{self, NoFiles};
use etx_passes::{Canonicalise, Cse, Dce, Decompose, Functionalise, Options, Patch, Pipeline, Rule, Site, When};

const SMALL: &str = "etir 1
method \"forward\" training {
  input %x : f32[2, 3] = user
  %a : f32[2, 3] = aten.clone.default(%x)
  %b : f32[2, 3] = aten.add_.Tensor(%a, 1.0)
  %c : f32[3, 2]{1, 3} = aten.t.default(%a)
  return %c
}";

fn small() -> Program {
    text::parse(SMALL, &mut NoFiles).unwrap()
}

#[test]
fn passes_are_named_once_and_have_laws() {
    let passes = Pipeline::standard().passes();
    assert_eq!(passes[..3].iter().map(|(n, _)| *n).collect::<Vec<_>>(), ["inline-wrappers", "functionalise", "dce"]);
    assert!(passes.iter().all(|(name, law)| !name.is_empty() && law.len() > 20));
    let mut names: Vec<&str> = passes.iter().map(|(n, _)| *n).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), passes.len());
}

#[test]
fn passes_can_be_left_out_stopped_after_and_shown() {
    let mut seen = Vec::new();
    let mut options = Options::verified();
    options.disable.insert("dce".to_owned());
    options.stop_after = Some("canonicalise".to_owned());
    options.dump_before.insert("functionalise".to_owned());
    options.dump_after.insert("functionalise".to_owned());
    options.dump = Some(Box::new(|d| seen.push((d.when, d.round, d.ir.contains("add_.Tensor")))));
    let mut program = small();
    let report = Pipeline::standard().run(&mut program, &mut options).unwrap();
    drop(options);
    let ran: Vec<&str> = report.passes.iter().map(|p| p.pass).collect();
    assert_eq!(ran, ["inline-wrappers", "functionalise", "canonicalise"]);
    assert_eq!(seen, [(When::Before, 0, true), (When::After, 0, false)]);
    assert!(report.changes("functionalise") > 0 && report.changes("inline-wrappers") == 0);
    assert_eq!((report.passes[1].nodes_before, report.passes[1].nodes_after), (3, 3));
}

#[test]
fn names_that_no_pass_has_are_refused() {
    let mut options = Options { stop_after: Some("cnaonicalise".to_owned()), ..Options::default() };
    let e = Pipeline::standard().run(&mut small(), &mut options).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("canonicalise, evaluate-constants, fold-constants"), "{e}");
}

#[test]
fn rewrites_of_functional_programs_refuse_training_ones() {
    let e = Pipeline::new().then(Cse).run(&mut small(), &mut Options::default()).unwrap_err();
    assert!(e.to_string().contains("pass cse needs the functional dialect"), "{e}");
    Pipeline::new().then(Dce).run(&mut small(), &mut Options::verified()).unwrap();
}

#[test]
fn passes_are_put_after_others_wherever_those_are() {
    let mut pipeline = Pipeline::standard();
    assert!(pipeline.insert_after("collapse-views", Box::new(Negate { to: "aten.neg.default" })).is_ok());
    assert!(pipeline.insert_after("nothing", Box::new(Dce)).is_err());
    let names: Vec<&str> = pipeline.passes().into_iter().map(|(n, _)| n).collect();
    let at = |name: &str| names.iter().position(|n| *n == name).unwrap();
    assert_eq!(at("negate"), at("collapse-views") + 1);
}

/// Rewrites every `exp` to a call of `to`, or does worse things.
struct Negate {
    to: &'static str,
}

impl Rule for Negate {
    fn name(&self) -> &'static str {
        "negate"
    }

    fn law(&self) -> &'static str {
        "every exponential becomes something else, for tests alone"
    }

    fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
        if site.op() != op!("aten.exp.default") {
            return Ok(None);
        }
        let x = site.nth(0).clone();
        Ok(Some(match self.to {
            "a value of another type" => Patch::Values(vec![Arg::Value(site.call(op!("aten.unsqueeze.default"), vec![x, Arg::Int(0)])?)]),
            "a literal" => Patch::value(1.0),
            "for ever" => Patch::Values(vec![Arg::Value(site.call(op!("aten.exp.default"), vec![x])?)]),
            _ => Patch::Call(op!("aten.neg.default"), vec![x]),
        }))
    }
}

#[test]
fn rules_cannot_change_types_or_go_on_for_ever() {
    let source = "etir 1 method \"f\" functional { input %x : f32[3] = user %y : f32[3] = aten.exp.default(%x) return %y }";
    for (to, says) in [("a value of another type", "is to be replaced by"), ("a literal", "by a literal"), ("for ever", "did not settle")] {
        let mut program = text::parse(source, &mut NoFiles).unwrap();
        let e = Pipeline::new().then(Negate { to }).run(&mut program, &mut Options::verified()).unwrap_err();
        assert!(e.to_string().contains(says), "{to}: {e}");
    }
}

#[test]
fn what_is_written_for_nothing_is_taken_back() {
    /// Writes calls and then proposes nothing.
    struct Idle;
    impl Rule for Idle {
        fn name(&self) -> &'static str {
            "idle"
        }
        fn law(&self) -> &'static str {
            "nothing happens, however much was written"
        }
        fn rewrite(&self, site: &mut Site<'_>) -> Result<Option<Patch>, Error> {
            let x = site.nth(0).clone();
            let y = site.call(op!("aten.neg.default"), vec![x])?;
            site.call(op!("aten.exp.default"), vec![Arg::Value(y)])?;
            Ok(None)
        }
    }
    let mut program = small();
    Pipeline::new().then(Functionalise).then(Canonicalise).run(&mut program, &mut Options::verified()).unwrap();
    let before = text::print(&program);
    let report = Pipeline::new().then(Idle).run(&mut program, &mut Options::verified()).unwrap();
    assert_eq!((report.changes("idle"), text::print(&program)), (0, before));
}

/// A tower of `n` residual blocks that write to a cache each.
fn tower(n: usize) -> Program {
    let mut text = String::from("etir 1\n");
    for i in 0..n {
        let _ = writeln!(text, "weight @{i} \"cache.{i}\" f32[1, 1, 8, 4] omitted {i:016x}");
    }
    text.push_str("method \"forward\" training {\n  symbol s0 [1..8]\n");
    for i in 0..n {
        let _ = writeln!(text, "  input %cache{i} : f32[1, 1, 8, 4] = buffer @{i} nonpersistent");
    }
    text.push_str("  input %x0 : f32[1, 1, s0, 4] = user\n  input %pos : int(u0) = user\n");
    for i in 0..n {
        let _ = writeln!(
            text,
            "  %n{i} : int(s0) = aten.sym_size.int(%x{i}, 2)
  %f{i} : f32[s0, 4] = aten.reshape.default(%x{i}, [%n{i}, 4])
  %t{i} : f32[s0, 4] = aten.to.dtype(%f{i}, f32)
  %k{i} : f32[1, 1, s0, 4] = aten.reshape.default(%t{i}, [1, 1, %n{i}, 4])
  %u{i} : f32[1] = mlx.kv_cache_update.default(%cache{i}, %k{i}, %pos)
  %r{i} : f32[1, 1, 8, 4] = aten.alias.default(%cache{i})
  %a{i} : f32[1, 1, s0, 4] = mlx.custom_sdpa.default(%x{i}, %r{i}, %r{i}, %pos)
  %c{i} : f32[1, 1, s0, 4] = aten.clone.default(%a{i})
  %w{i} : f32[1, 1, s0, 4] = aten.mul_.Tensor(%c{i}, 0.5)
  %x{} : f32[1, 1, s0, 4] = aten.add.Tensor(%x{i}, %c{i})",
            i + 1
        );
    }
    let _ = writeln!(text, "  return %x{n}\n}}");
    text::parse(&text, &mut NoFiles).unwrap()
}

#[test]
fn work_grows_with_the_program_and_rounds_do_not() {
    let work = |n: usize| {
        let mut program = tower(n);
        let report = Pipeline::standard().run(&mut program, &mut Options::default()).unwrap();
        let changes: u64 = report.passes.iter().map(|p| p.changes).sum();
        (program.methods[0].graph.len(), changes, report.passes.len())
    };
    let (one, four) = (work(50), work(200));
    assert_eq!((one.0, four.0), (4 * 50, 4 * 200));
    assert_eq!(one.2, four.2);
    assert!(four.1 <= 4 * one.1 + 16, "{one:?} {four:?}");
}

/// How often each operator is called.
fn histogram(program: &Program) -> BTreeMap<&'static str, usize> {
    let mut calls = BTreeMap::new();
    for (_, node) in program.methods.iter().flat_map(|m| m.graph.nodes()) {
        *calls.entry(node.op.target()).or_insert(0) += 1;
    }
    calls
}

fn exported(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            exported(&path, files);
        } else if path.extension().is_some_and(|e| e == "pt2") {
            files.push(path);
        }
    }
}

/// The pipeline over the bundled example, and over every program below the folders of `ETX_CASES` (separated by `:`).
#[test]
fn exported_programs_go_through_and_both_forms_end_alike() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files = Vec::new();
    exported(&examples, &mut files);
    assert!(!files.is_empty(), "no program below {}", examples.display());
    if let Some(folders) = std::env::var_os("ETX_CASES") {
        std::env::split_paths(&folders).for_each(|f| exported(&f, &mut files));
    }
    let mut results: BTreeMap<PathBuf, BTreeMap<&'static str, usize>> = BTreeMap::new();
    for path in files {
        // Weights that only a later reader understands are no matter of passes.
        let Ok(mut program) = pt2::load(&path) else { continue };
        let before: usize = program.methods.iter().map(|m| m.graph.len()).sum();
        let refuse_all = |_: &Program, m: &Method| vec![false; m.graph.node_bound()];
        for pipeline in [Pipeline::standard(), Pipeline::standard().then(Decompose::new(refuse_all))] {
            let mut copy = program.clone();
            let done = pipeline.run(&mut copy, &mut Options::verified());
            assert!(done.is_ok(), "{}: {}", path.display(), done.err().map_or_else(String::new, |e| e.to_string()));
            assert!(copy.methods.iter().all(|m| m.dialect == Dialect::Functional));
        }
        Pipeline::standard().run(&mut program, &mut Options::verified()).unwrap();
        let once = text::print(&program);
        assert!(program.methods.iter().map(|m| m.graph.len()).sum::<usize>() <= before + 2, "{} grew", path.display());
        Pipeline::standard().run(&mut program, &mut Options::verified()).unwrap();
        assert_eq!(text::print(&program), once, "{} changes when run again", path.display());
        results.insert(path, histogram(&program));
    }
    for (path, training) in &results {
        let functional = path.with_extension("functional.pt2");
        if let Some(functional) = results.get(&functional) {
            assert_eq!(training, functional, "{}", path.display());
        }
    }
}
