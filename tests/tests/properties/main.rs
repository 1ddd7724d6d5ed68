//! Small random programs over the operator table, lowered, run, and compared with their plain evaluation.
//!
//! `ETX_SEEDS=FROM..TO` (or one seed) says which programs are made, by default 200 of them. A program for which lowering differs is shrunk and
//! printed as text, with what it was given.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod chance;
mod judge;
mod make;
mod steps;

use std::collections::BTreeMap;
use std::ops::Range;

use etx::ir::graph::ValueId;
use judge::{Verdict, judge, shown, shrink, without};
use make::{Case, Maker};

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("ETX_SEEDS") else { return 0..200 };
    let number = |s: &str| s.trim().parse::<u64>().unwrap_or_else(|e| panic!("ETX_SEEDS={text}: {e}"));
    match text.split_once("..") {
        Some((a, b)) => number(a)..number(b),
        None => number(&text)..number(&text) + 1,
    }
}

/// The program of a seed and the values it returns: all that nothing reads.
fn made(seed: u64) -> (Case, Vec<ValueId>) {
    let mut maker = Maker::new(seed);
    let length = maker.rng.between(1, 7);
    let mut calls = 0;
    for _ in 0..60 {
        let step = steps::any_step(&mut maker);
        calls += i64::from(maker.attempt(step));
        if calls == length {
            break;
        }
    }
    let inputs = maker.case.graph.inputs().to_vec();
    let unread = |v: &ValueId| maker.case.graph.value(*v).users().is_empty() && !inputs.contains(v);
    let mut outputs: Vec<ValueId> = maker.pool.iter().map(|k| k.id).filter(unread).collect();
    // An input or a value that has readers, and a value twice.
    if maker.rng.one_in(4)
        && let Some(k) = maker.pick(|_, _| true)
    {
        outputs.push(k.id);
        if maker.rng.one_in(3) {
            outputs.insert(0, k.id);
        }
    }
    (maker.case.clone().pruned(&outputs), outputs)
}

#[test]
fn lowered_programs_compute_what_they_say() {
    let (mut wrong, mut refused, mut agree) = (Vec::new(), BTreeMap::<String, usize>::new(), 0);
    for seed in seeds() {
        let (mut case, mut outputs) = made(seed);
        while !outputs.is_empty() {
            match judge(&case, &outputs) {
                Verdict::Agrees => agree += 1,
                Verdict::Refused(nodes) => {
                    for node in &nodes {
                        *refused.entry(node.why.clone()).or_default() += 1;
                    }
                    // What is left is worth a look all the same.
                    if let Some(rest) = without(&case, &outputs, &nodes) {
                        (case, outputs) = rest;
                        continue;
                    }
                }
                Verdict::Differs(why) => {
                    let (small, outputs, small_why) = shrink(&case, &outputs);
                    wrong.push(format!("seed {seed}: {why}\nshrunk: {small_why}\n{}", shown(&small, &outputs)));
                }
            }
            break;
        }
    }
    let no: usize = refused.values().sum();
    println!("{agree} programs agree, {no} were refused, {} differ", wrong.len());
    for (why, n) in &refused {
        println!("  refused ({n}): {why}");
    }
    assert!(wrong.is_empty(), "{} programs differ:\n\n{}", wrong.len(), wrong.join("\n"));
    assert!(agree > 4 * no, "more than one call in five was refused");
}

#[test]
fn a_seed_makes_one_program() {
    for seed in [1, 2, 3] {
        let ((a, x), (b, y)) = (made(seed), made(seed));
        assert_eq!(shown(&a, &x), shown(&b, &y));
    }
}
