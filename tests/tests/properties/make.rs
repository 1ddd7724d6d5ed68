//! Makes small random programs, call by call. A call stays if its types can be inferred and its values, evaluated at once for both sets of
//! inputs, are tame: finite and not so large that a half could not hold them.

use std::collections::BTreeMap;

use etx::ir::DType;
use etx::ir::build::Builder;
use etx::ir::graph::{Arg, Graph, TensorType, Type, ValueId};
use etx::ir::op::OpId;
use etx::ir::program::{Dialect, Input, InputKind, Method, OutputKind, Program};
use etx::ir::sym::{Expr, Range, Ranges, Symbol};
use etx::ir::weights::TensorData;
use etx_tests::case::{Kind, Value};
use etx_tests::eager::{self, Answer};
use etx_tests::tensor::{Elements, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;

use crate::chance::Chance;
use crate::steps::Step;

/// How many sets of inputs a program is run with; the dynamic size differs.
pub(crate) const CALLS: usize = 2;

/// What an input of a program holds.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Given at each call.
    Given([Tensor; CALLS]),
    /// Part of the program.
    Constant(Tensor),
    /// State, and what it is at first.
    State(Tensor),
}

/// What numbers a new input holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fill {
    /// Any. Floats are eighths, so that sums and products of a few are exact in any type.
    Any,
    /// Any that are finite.
    Finite,
    /// Whole ones below this.
    Below(usize),
    /// Positions among so many, from either end.
    Signed(usize),
    /// Positions among so many, none of them twice in a line along the axis.
    Distinct(usize, usize),
}

/// A program as it is made and shrunk: a graph, and what its inputs hold, in order.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The calls.
    pub(crate) graph: Graph,
    /// Bounds of the dynamic size.
    pub(crate) ranges: Ranges,
    /// One for each input of the graph.
    pub(crate) sources: Vec<Source>,
}

/// Element types of both worlds, for those that programs are made of.
pub(crate) const TYPES: &[(DType, Dtype)] = &[
    (DType::Float32, Dtype::F32),
    (DType::Float16, Dtype::F16),
    (DType::BFloat16, Dtype::BF16),
    (DType::Int64, Dtype::I64),
    (DType::Int32, Dtype::I32),
    (DType::Int16, Dtype::I16),
    (DType::Int8, Dtype::I8),
    (DType::UInt8, Dtype::U8),
    (DType::Bool, Dtype::BOOL),
];

/// A tensor of these numbers, which the type must be able to hold.
pub(crate) fn tensor(dtype: DType, shape: Vec<usize>, numbers: &[f64]) -> Tensor {
    let bytes = |x: f64| match dtype {
        DType::Float32 => (x as f32).to_le_bytes().to_vec(),
        DType::Float16 => f16::from_f64(x).to_le_bytes().to_vec(),
        DType::BFloat16 => bf16::from_f64(x).to_le_bytes().to_vec(),
        DType::Int64 => (x as i64).to_le_bytes().to_vec(),
        DType::Int32 => (x as i32).to_le_bytes().to_vec(),
        DType::Int16 => (x as i16).to_le_bytes().to_vec(),
        DType::Int8 => (x as i8).to_le_bytes().to_vec(),
        DType::UInt8 => vec![x as u8],
        _ => vec![u8::from(x != 0.0)],
    };
    let of = TYPES.iter().find(|(d, _)| *d == dtype).map_or(Dtype::BOOL, |(_, s)| *s);
    Tensor { dtype: of, shape, bytes: numbers.iter().flat_map(|x| bytes(*x)).collect() }
}

fn data(t: &Tensor) -> TensorData {
    let dtype = TYPES.iter().find(|(_, s)| *s == t.dtype).map_or(DType::Bool, |(d, _)| *d);
    let shape = t.shape.iter().map(|n| *n as u64).collect();
    TensorData::inline(dtype, shape, t.bytes.clone()).unwrap_or_else(|e| panic!("{e}"))
}

impl Case {
    /// The program that returns these values.
    pub(crate) fn program(&self, outputs: &[ValueId]) -> Program {
        let mut program = Program::new();
        let mut graph = self.graph.clone();
        graph.set_outputs(outputs.iter().map(|v| Arg::Value(*v)).collect());
        let mut inputs = Vec::new();
        for (i, (v, source)) in graph.inputs().iter().zip(&self.sources).enumerate() {
            let kind = match source {
                Source::Given(_) => InputKind::User,
                Source::Constant(t) => InputKind::Parameter(program.add_weight(&format!("weight_{i}"), data(t))),
                Source::State(t) => InputKind::Buffer { weight: program.add_weight(&format!("state_{i}"), data(t)), persistent: true },
            };
            inputs.push(Input { value: Some(*v), kind });
        }
        program.methods.push(Method {
            name: "forward".into(),
            outputs: vec![OutputKind::User; outputs.len()],
            graph,
            inputs,
            ranges: self.ranges.clone(),
            guards: vec![],
            dialect: Dialect::Training,
            in_spec: "".into(),
            out_spec: "".into(),
        });
        program
    }

    /// What the caller gives at call number `call`.
    pub(crate) fn arguments(&self, call: usize) -> Vec<Value> {
        let given = |s: &Source| match s {
            Source::Given(all) => all.get(call).cloned().map(|t| Value { kind: Kind::Tensor, tensor: Some(t) }),
            Source::Constant(_) | Source::State(_) => None,
        };
        self.sources.iter().filter_map(given).collect()
    }

    /// What the program that returns these values leaves behind in both calls.
    pub(crate) fn evaluate(&self, outputs: &[ValueId]) -> Result<Vec<Answer>, String> {
        let calls: Vec<Vec<Value>> = (0..CALLS).map(|call| self.arguments(call)).collect();
        eager::calls(&self.program(outputs), &calls)
    }

    /// Calls and inputs that nothing reads, taken away.
    #[must_use]
    pub(crate) fn pruned(mut self, outputs: &[ValueId]) -> Case {
        self.graph.set_outputs(outputs.iter().map(|v| Arg::Value(*v)).collect());
        for id in self.graph.order().into_iter().rev() {
            let node = self.graph.node(id);
            // What is written in place has other readers than its result.
            if !node.op.mutates() && node.outputs.iter().all(|v| self.graph.value(*v).use_count() == 0) {
                self.graph.remove(id);
            }
        }
        // The first input stays: it says how large the dynamic size is.
        let keep: Vec<bool> = self.graph.inputs().iter().enumerate().map(|(i, v)| i == 0 || self.graph.value(*v).use_count() > 0).collect();
        self.graph.retain_inputs(&keep);
        let mut kept = keep.into_iter();
        self.sources.retain(|_| kept.next().unwrap_or(true));
        self
    }
}

/// A value that calls may read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The value.
    pub(crate) id: ValueId,
    /// Whether there is only one right answer to the last bit, so that its floats may be compared and rounded without fear.
    pub(crate) exact: bool,
}

/// What is being made.
pub(crate) struct Maker {
    /// Where chance comes from.
    pub(crate) rng: Chance,
    /// What there is so far.
    pub(crate) case: Case,
    /// Values of type tensor.
    pub(crate) pool: Vec<Known>,
    /// The dynamic size, and what it is at each call.
    pub(crate) size: (Expr, [usize; CALLS]),
    /// Whether numbers may be infinite, none at all, or a zero of either sign.
    pub(crate) wild: bool,
}

impl Maker {
    /// Nothing but an input, whose first dimension is dynamic.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Chance::new(seed);
        let symbol = Symbol::new("s0").unwrap_or_else(|| panic!("an identifier"));
        // Now and then there is nothing in the second call.
        let least = i64::from(!rng.one_in(6));
        let sizes = [rng.between(2, 5) as usize, if least == 0 { 0 } else { rng.between(1, 7) as usize }];
        let range = Range { min: Some(least), max: Some(8) };
        let ranges = Ranges(BTreeMap::from([(symbol.clone(), range)]));
        let case = Case { graph: Graph::new(), ranges, sources: Vec::new() };
        let wild = rng.one_in(6);
        let mut maker = Self { rng, case, pool: Vec::new(), size: (Expr::sym(symbol), sizes), wild };
        let n = maker.size.0.clone();
        let more = maker.shape(2);
        let dtype = maker.dtype();
        maker.input(dtype, [vec![n], more].concat(), Fill::Any);
        maker
    }

    /// An element type, mostly a float.
    pub(crate) fn dtype(&mut self) -> DType {
        use DType::{BFloat16, Bool, Float16, Float32, Int8, Int16, Int32, Int64, UInt8};
        self.rng.of(&[Float32, Float32, Float32, Float32, Float32, Float16, BFloat16, Int64, Int32, Bool, UInt8, Int8, Int16])
    }

    /// Up to `most` sizes, dynamic or zero now and then.
    pub(crate) fn shape(&mut self, most: usize) -> Vec<Expr> {
        let rank = self.rng.below(most + 1);
        (0..rank).map(|_| self.dim()).collect()
    }

    /// A size.
    pub(crate) fn dim(&mut self) -> Expr {
        match self.rng.below(24) {
            0 => Expr::Int(0),
            1..=3 => self.size.0.clone(),
            4..=6 => Expr::Int(1),
            n => Expr::Int(n as i64 % 4 + 2),
        }
    }

    /// Sizes as numbers.
    pub(crate) fn concrete(&self, shape: &[Expr], call: usize) -> Vec<usize> {
        let n = self.size.1[call] as i64;
        shape.iter().map(|d| d.eval_int(&|_| Some(n)).unwrap_or(0).max(0) as usize).collect()
    }

    /// Numbers for a tensor.
    fn numbers(&mut self, dtype: DType, shape: &[usize], fill: Fill) -> Vec<f64> {
        let count: usize = shape.iter().product();
        if let Fill::Distinct(n, axis) = fill {
            let inner: usize = shape.iter().skip(axis + 1).product();
            let length = shape.get(axis).copied().unwrap_or(1);
            let mut numbers = vec![0.0; count];
            for line in 0..count / length.max(1) {
                let (outer, rest) = (line / inner, line % inner);
                let mut left: Vec<usize> = (0..n).collect();
                for i in 0..length {
                    let at = self.rng.below(left.len());
                    numbers[(outer * length + i) * inner + rest] = left.swap_remove(at) as f64;
                }
            }
            return numbers;
        }
        let wild = self.wild;
        let rng = &mut self.rng;
        let mut number = || match (dtype, fill) {
            (_, Fill::Below(n)) => rng.below(n) as f64,
            (_, Fill::Signed(n)) => rng.between(-(n as i64), n as i64 - 1) as f64,
            (DType::Bool, _) => rng.below(2) as f64,
            (DType::UInt8, _) => rng.below(12) as f64,
            (d, _) if d.is_int() => rng.between(-9, 9) as f64,
            _ if wild && !matches!(fill, Fill::Finite) && rng.one_in(5) => rng.of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0]),
            _ => rng.between(-24, 24) as f64 / 8.0,
        };
        (0..count).map(|_| number()).collect()
    }

    /// A new input.
    pub(crate) fn input(&mut self, dtype: DType, shape: Vec<Expr>, fill: Fill) -> ValueId {
        let constant = !self.case.sources.is_empty() && self.rng.one_in(3);
        let id = self.source(dtype, shape, fill, constant);
        if let Fill::Any | Fill::Finite = fill {
            self.pool.push(Known { id, exact: true });
        }
        id
    }

    /// A new input of any numbers.
    pub(crate) fn fresh(&mut self, dtype: DType, shape: Vec<Expr>) -> ValueId {
        self.input(dtype, shape, Fill::Any)
    }

    /// A new input that is given at each call, to write to.
    pub(crate) fn written(&mut self, dtype: DType, shape: Vec<Expr>) -> ValueId {
        self.source(dtype, shape, Fill::Any, false)
    }

    /// New state; `None` for a size that is not fixed.
    pub(crate) fn state(&mut self, dtype: DType, shape: Vec<Expr>) -> Option<ValueId> {
        if shape.iter().any(|d| d.as_int().is_none()) {
            return None;
        }
        let id = self.source(dtype, shape, Fill::Any, true);
        if let Some(last) = self.case.sources.last_mut()
            && let Source::Constant(t) = last
        {
            *last = Source::State(t.clone());
        }
        Some(id)
    }

    fn source(&mut self, dtype: DType, shape: Vec<Expr>, fill: Fill, constant: bool) -> ValueId {
        let fixed = shape.iter().all(|d| d.as_int().is_some());
        let mut make = |call: usize| {
            let shape = self.concrete(&shape, call);
            let numbers = self.numbers(dtype, &shape, fill);
            tensor(dtype, shape, &numbers)
        };
        let given = [make(0), make(1)];
        let source = if constant && fixed { Source::Constant(given[0].clone()) } else { Source::Given(given) };
        self.case.sources.push(source);
        self.case.graph.add_input("x", Type::Tensor(TensorType::new(dtype, shape)))
    }

    /// The type of a value of the pool.
    pub(crate) fn ty(&self, id: ValueId) -> &TensorType {
        self.case.graph.tensor(id).unwrap_or_else(|| panic!("only tensors are picked"))
    }

    /// A value of the pool that is fit, if there is one.
    pub(crate) fn pick(&mut self, fit: impl Fn(&TensorType, bool) -> bool) -> Option<Known> {
        let fits: Vec<Known> = self.pool.iter().copied().filter(|k| fit(self.ty(k.id), k.exact)).collect();
        if fits.is_empty() { None } else { Some(self.rng.of(&fits)) }
    }

    /// A dimension of a tensor, counted from either end; `None` for scalars.
    pub(crate) fn axis(&mut self, id: ValueId) -> Option<(usize, i64)> {
        let rank = self.ty(id).rank();
        if rank == 0 {
            return None;
        }
        let axis = self.rng.below(rank);
        Some((axis, if self.rng.one_in(2) { axis as i64 } else { axis as i64 - rank as i64 }))
    }

    /// Appends a call.
    pub(crate) fn call(&mut self, target: &str, args: Vec<Arg>) -> Option<Vec<ValueId>> {
        self.call_with(target, args, [])
    }

    /// Appends a call with arguments by position and by name.
    pub(crate) fn call_with<'a>(
        &mut self,
        target: &str,
        args: Vec<Arg>,
        named: impl IntoIterator<Item = (&'a str, Arg)>,
    ) -> Option<Vec<ValueId>> {
        let op = OpId::lookup(target).unwrap_or_else(|| panic!("no operator {target}"));
        Builder::at_end(&mut self.case.graph, &self.case.ranges).calls_with(op, args, named).ok()
    }

    /// Whether these values are tame in both calls.
    fn tame(&self, values: &[ValueId]) -> bool {
        let Ok(calls) = self.case.evaluate(values) else { return false };
        let fine = |v: &Value| match v.tensor.as_ref().map(Tensor::elements) {
            Some(Elements::Floats(x)) => x.iter().all(|x| x.abs() <= 1e3 || self.wild && !x.is_finite()),
            Some(Elements::Integers(x)) => x.iter().all(|x| x.abs() <= 1 << 40),
            _ => true,
        };
        let small = |v: &Value| v.tensor.as_ref().is_none_or(|t| t.len() <= 4096);
        calls.iter().flat_map(|c| c.outputs.iter().chain(&c.inputs)).all(|v| fine(v) && small(v))
    }

    /// Tries `step`; what it made goes if the values are not tame.
    pub(crate) fn attempt(&mut self, step: Step) -> bool {
        let (case, pool) = (self.case.clone(), self.pool.len());
        if let Some((made, exact)) = step(self) {
            let made: Vec<ValueId> = made.into_iter().filter(|v| self.case.graph.tensor(*v).is_some()).collect();
            if self.tame(&made) {
                self.pool.extend(made.into_iter().map(|id| Known { id, exact }));
                return true;
            }
        }
        self.case = case;
        self.pool.truncate(pool);
        false
    }
}
