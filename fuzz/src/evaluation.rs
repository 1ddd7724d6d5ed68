//! The reference evaluation, called with arguments that a file can carry.

use etx::ir::DType;
use etx::ir::eval::{self, Tensor, Value};
use etx::ir::graph::{Arg, Graph, Type, ValueId};
use etx::ir::op::{ArgType, OpId};

/// Most arguments and elements of lists: what comes after tests nothing else.
const MAX_ITEMS: u8 = 4;

/// Calls one operator with arguments drawn from the bytes.
pub fn evaluation(data: &[u8]) {
    let mut bytes = Bytes { rest: data, graph: Graph::new(), values: Vec::new() };
    let ops: Vec<OpId> = OpId::all().collect();
    let Some(&op) = ops.get(usize::from(u16::from_le_bytes([bytes.next(), bytes.next()])) % ops.len().max(1)) else { return };
    let args: Vec<Arg> = op.schema().args.iter().map(|a| bytes.argument(&a.ty)).collect();
    let values = &bytes.values;
    let _ = eval::call(op, &args, &|v| values.iter().find(|(id, _)| *id == v).map(|(_, value)| value.clone()));
}

/// Bytes, read as arguments; zeros at their end.
struct Bytes<'a> {
    rest: &'a [u8],
    graph: Graph,
    values: Vec<(ValueId, Value)>,
}

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// An integer: small ones most of the time, else any.
    fn int(&mut self) -> i64 {
        match self.next() {
            n @ 0..200 => i64::from(n % 16) - 4,
            200..220 => i64::from(i32::from_le_bytes([0; 4].map(|_: u8| self.next()))),
            _ => i64::from_le_bytes([0; 8].map(|_: u8| self.next())),
        }
    }

    fn float(&mut self) -> f64 {
        match self.next() {
            n @ 0..200 => f64::from(n) / 8.0 - 4.0,
            200..210 => f64::NAN,
            210..220 => f64::INFINITY,
            _ => f64::from_le_bytes([0; 8].map(|_: u8| self.next())),
        }
    }

    fn value(&mut self, value: Value) -> Arg {
        let id = self.graph.add_input("x", Type::None);
        self.values.push((id, value));
        id.into()
    }

    fn tensor(&mut self) -> Arg {
        const TYPES: [DType; 10] = [
            DType::Float32,
            DType::Int64,
            DType::Bool,
            DType::Float16,
            DType::BFloat16,
            DType::Int32,
            DType::UInt8,
            DType::Int8,
            DType::Float64,
            DType::Complex64,
        ];
        let dtype = TYPES.get(usize::from(self.next()) % TYPES.len()).copied().unwrap_or(DType::Float32);
        let rank = self.next() % (MAX_ITEMS + 1);
        let shape: Vec<usize> = (0..rank).map(|_| usize::from(self.next() % 5)).collect();
        let size = shape.iter().product::<usize>() * dtype.size();
        let bytes = (0..size).map(|_| if dtype == DType::Bool { self.next() & 1 } else { self.next() }).collect();
        match Tensor::new(dtype, &shape, bytes) {
            Ok(tensor) => self.value(Value::Tensor(tensor)),
            Err(_) => Arg::None,
        }
    }

    fn argument(&mut self, ty: &ArgType) -> Arg {
        match ty {
            ArgType::Tensor => self.tensor(),
            ArgType::Int | ArgType::SymInt => Arg::Int(self.int()),
            ArgType::Float | ArgType::SymFloat => Arg::Float(self.float()),
            ArgType::Bool | ArgType::SymBool => Arg::Bool(self.next() & 1 == 1),
            ArgType::Scalar | ArgType::Any => match self.next() % 3 {
                0 => Arg::Int(self.int()),
                1 => Arg::Float(self.float()),
                _ => Arg::Bool(true),
            },
            ArgType::Complex => Arg::Complex(self.float(), self.float()),
            ArgType::Str => {
                const TEXTS: [&str; 8] = ["", "none", "tanh", "floor", "trunc", "mean", "reflect", "ij,jk->ik"];
                Arg::Str(TEXTS.get(usize::from(self.next()) % TEXTS.len()).copied().unwrap_or_default().into())
            }
            ArgType::ScalarType => Arg::DType([DType::Float32, DType::Int64, DType::Float16, DType::Bool][usize::from(self.next() % 4)]),
            ArgType::MemoryFormat => Arg::MemoryFormat(self.next() % 5),
            ArgType::Layout => Arg::Layout(7),
            ArgType::Optional(inner) => match self.next() % 3 {
                0 => Arg::None,
                _ => self.argument(inner),
            },
            ArgType::List(inner, _) => {
                let n = self.next() % (MAX_ITEMS + 1);
                Arg::List((0..n).map(|_| self.argument(inner)).collect())
            }
            _ => Arg::None,
        }
    }
}
