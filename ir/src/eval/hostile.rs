//! No argument can make a rule panic, ask for memory without bound, or take long.
//!
//! Every operator that has a rule is called with random arguments of the types that its schema names, absurd ones among them.
//! What comes out does not matter; that something comes out, does. `ETX_HOSTILE_CALLS=N` makes N calls instead of the few of a
//! test run, `ETX_HOSTILE_SEED=N` other ones, `ETX_HOSTILE_ONLY=NAME` only of operators with such a name.

use std::time::{Duration, Instant};

use super::call::Argument;
use super::*;
use crate::graph::{Graph, TensorType, Type};
use crate::op::{ArgType, OpId};

/// Small numbers from a seed (xorshift); reproducible everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

const TYPES: &[DType] = &[
    DType::Float32,
    DType::Float32,
    DType::Float32,
    DType::Float32,
    DType::Float64,
    DType::Float16,
    DType::BFloat16,
    DType::Int64,
    DType::Int64,
    DType::Int64,
    DType::Int32,
    DType::Int16,
    DType::Int8,
    DType::UInt8,
    DType::UInt16,
    DType::UInt32,
    DType::UInt64,
    DType::Bool,
    DType::Bool,
    DType::Complex64,
    DType::Complex128,
    DType::Complex32,
    DType::Float8E4M3,
    DType::Float8E5M2,
    DType::Float8E8M0,
];

const STRINGS: &[&str] = &[
    "none",
    "mean",
    "sum",
    "tanh",
    "floor",
    "trunc",
    "reflect",
    "replicate",
    "circular",
    "constant",
    "ij",
    "xy",
    "amax",
    "amin",
    "prod",
    "add",
    "multiply",
    "same",
    "valid",
    "fro",
    "nuc",
    "linear",
    "lower",
    "higher",
    "midpoint",
    "nearest",
    "bilinear",
    "ii,ij->j",
    "ab,bc->ac",
    "...i,i->...",
    "i->",
    "i..j->z",
    "->",
    "INT",
    "FLOAT",
    "aten.add.Tensor",
    "",
    "é",
];

/// Mostly small, sometimes absurd.
fn int(dice: &mut Dice) -> i64 {
    const ABSURD: &[i64] = &[
        i64::MAX,
        i64::MIN,
        i64::MIN + 1,
        i64::MAX - 1,
        1 << 62,
        -(1 << 62),
        1 << 40,
        1 << 32,
        (1 << 31) - 1,
        1 << 31,
        -(1 << 31),
        1 << 30,
        1 << 20,
        65_536,
        1000,
    ];
    if dice.roll(5) == 0 { dice.pick(ABSURD) } else { dice.pick(&[-4, -3, -2, -1, -1, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 8, 16, 32]) }
}

fn float(dice: &mut Dice) -> f64 {
    let absurd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, 1e-308, 9.3e18, -9.3e18, 1e10, -0.0];
    if dice.roll(4) == 0 { dice.pick(&absurd) } else { dice.pick(&[-2.0, -1.0, -0.5, 0.0, 0.1, 0.5, 0.9, 1.0, 1.0, 2.0, 2.5, 3.0, 100.0]) }
}

fn tensor(dice: &mut Dice) -> Tensor {
    let rank = dice.pick(&[0, 1, 1, 2, 2, 3, 3, 4, 4, 5]);
    let one = dice.pick(&[0, 1, 2, 2, 3, 4]);
    let shape: Vec<usize> = (0..rank).map(|_| if dice.roll(2) == 0 { one } else { dice.pick(&[0, 1, 1, 2, 2, 3, 4, 8]) }).collect();
    let (dtype, n) = (dice.pick(TYPES), shape.iter().product());
    let absurd = dice.roll(3) == 0;
    let made = if dtype.is_float() || dtype.is_complex() {
        let all: Vec<f64> = (0..n).map(|_| if absurd { float(dice) } else { dice.pick(&[-1.5, 0.0, 0.25, 1.0, 2.0]) }).collect();
        Tensor::of(dtype, &shape, all)
    } else {
        let all: Vec<i64> = (0..n).map(|_| if absurd { int(dice) } else { dice.pick(&[0, 0, 1, 1, 2, 3]) }).collect();
        Tensor::of(dtype, &shape, all)
    };
    let mut t = made.unwrap();
    if t.rank() > 1 && dice.roll(4) == 0 {
        t = t.transpose(0, t.rank() - 1).unwrap();
    }
    if t.rank() > 0 && dice.roll(6) == 0 && t.size(0) == 1 {
        let mut wide = t.shape().to_vec();
        wide[0] = dice.pick(&[3, 7]);
        t = t.expand(&wide).unwrap();
    }
    t
}

/// A body that gives back what it gets.
fn body(inputs: usize) -> Graph {
    let mut g = Graph::new();
    let all: Vec<_> = (0..inputs).map(|_| g.add_input("x", Type::Tensor(TensorType::new(DType::Float32, vec![])))).collect();
    g.set_outputs(all.into_iter().map(Into::into).collect());
    g
}

fn argument<'g>(dice: &mut Dice, ty: &ArgType, bodies: &'g [Graph]) -> Argument<'g> {
    // A wrong kind now and then: a file may carry it.
    if dice.roll(60) == 0 {
        return match dice.roll(4) {
            0 => Argument::Value(Value::None),
            1 => Argument::List(vec![]),
            2 => Argument::Str("x".into()),
            _ => Argument::Value(Value::Int(int(dice))),
        };
    }
    match ty {
        ArgType::Tensor => Argument::Value(Value::Tensor(tensor(dice))),
        ArgType::Int | ArgType::SymInt => Argument::Value(Value::Int(int(dice))),
        ArgType::Float | ArgType::SymFloat => Argument::Value(Value::Float(float(dice))),
        ArgType::Bool | ArgType::SymBool => Argument::Value(Value::Bool(dice.roll(2) == 0)),
        ArgType::Scalar | ArgType::Any => match dice.roll(6) {
            0 | 1 => Argument::Value(Value::Float(float(dice))),
            2 => Argument::Value(Value::Bool(true)),
            3 => Argument::Complex([float(dice), float(dice)]),
            4 if *ty == ArgType::Any => Argument::Value(Value::Tensor(tensor(dice))),
            _ => Argument::Value(Value::Int(int(dice))),
        },
        ArgType::Complex => Argument::Complex([float(dice), float(dice)]),
        ArgType::Str => Argument::Str(dice.pick(STRINGS).into()),
        ArgType::ScalarType => Argument::DType(dice.pick(TYPES)),
        ArgType::Layout | ArgType::MemoryFormat | ArgType::Device => Argument::Ignored,
        ArgType::Generator => Argument::Value(Value::None),
        ArgType::Graph => Argument::Graph(&bodies[dice.roll(bodies.len())]),
        ArgType::Operator => {
            Argument::Op(dice.pick(&[OpId::of("aten.add_.Tensor"), OpId::of("aten.relu.default"), OpId::of("aten.fill_.Scalar")]))
        }
        ArgType::Optional(inner) => {
            if dice.roll(3) == 0 {
                return Argument::Value(Value::None);
            }
            argument(dice, inner, bodies)
        }
        ArgType::List(element, length) => {
            let n = match length {
                Some(n) if dice.roll(6) > 0 => *n as usize,
                _ => dice.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 4, 6]),
            };
            let first = argument(dice, element, bodies);
            let same = dice.roll(3) == 0;
            Argument::List((0..n).map(|_| if same { first.clone() } else { argument(dice, element, bodies) }).collect())
        }
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[test]
fn no_argument_can_make_a_rule_panic() {
    let only = setting("ETX_HOSTILE_ONLY").unwrap_or_default();
    let ops: Vec<OpId> = OpId::all().filter(|op| table::knows(*op) && op.target().contains(&only)).collect();
    let calls = setting("ETX_HOSTILE_CALLS").map_or(8 * ops.len(), |n| n.parse().unwrap());
    let seed: u64 = setting("ETX_HOSTILE_SEED").map_or(1, |n| n.parse().unwrap());
    let trace = setting("ETX_HOSTILE_TRACE");
    let bodies: Vec<Graph> = (0..4).map(body).collect();
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut worked, mut failures) = (std::collections::BTreeSet::new(), std::collections::BTreeMap::<String, (usize, String)>::new());
    for i in 0..calls {
        let op = ops[i % ops.len()];
        let schema = op.schema();
        let args: Vec<Argument> = schema
            .args
            .iter()
            .map(|a| match &a.default {
                Some(d) if dice.roll(3) == 0 => Argument::from(d),
                _ => argument(&mut dice, &a.ty, &bodies),
            })
            .collect();
        let shown = format!("{op}({})", args.iter().map(show).collect::<Vec<_>>().join(", "));
        if let Some(path) = &trace {
            // For calls that end the process; slow.
            std::fs::write(path, &shown).unwrap();
        }
        let start = Instant::now();
        let call = || budget::within(1 << 16, || Session::default().call(op, args).map(drop));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        if calls > 8 * ops.len() && start.elapsed() > Duration::from_secs(1) {
            eprintln!("{:?}: {shown}", start.elapsed());
        }
        match result {
            Ok(Ok(())) => {
                worked.insert(op.target());
            }
            Ok(Err(_)) => {}
            Err(_) => {
                failures.entry(op.target().to_owned()).or_insert((0, shown)).0 += 1;
            }
        }
    }
    let list: Vec<String> = failures.into_values().map(|(n, shown)| format!("{n} × {shown}")).collect();
    assert!(list.is_empty(), "{} operators panic:\n{}", list.len(), list.join("\n"));
    // The test would be idle if hardly anything ran.
    assert!(!only.is_empty() || worked.len() * 3 > ops.len(), "only {} of {} operators ever gave a result", worked.len(), ops.len());
}

fn show(a: &Argument) -> String {
    match a {
        Argument::Value(v) => format!("{v:?}"),
        Argument::Complex(z) => format!("{z:?}"),
        Argument::Str(s) => format!("{s:?}"),
        Argument::DType(d) => format!("{d}"),
        Argument::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Argument::Dict(_) => "{…}".to_owned(),
        Argument::Op(op) => op.to_string(),
        Argument::Graph(_) => "graph".to_owned(),
        Argument::Ignored => "_".to_owned(),
    }
}
