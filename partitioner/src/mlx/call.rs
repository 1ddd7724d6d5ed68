//! A node as its lowering sees it: arguments by name, types, and refusals that say what is in the way.

use etx_ir::DType;
use etx_ir::graph::{Arg, Graph, Node, NodeId, TensorType, Type, ValueId};
use etx_ir::sym::Expr;

use crate::backend::Refusal;

/// What a lowering gives back.
pub(crate) type Res<T = ()> = Result<T, Refusal>;

/// Counts what an operator is about to make, `n` times `each` elements, against what lowering may make in all; an instruction that is
/// written in a loop counts as [`ROUND`].
pub(crate) fn makes(n: i64, each: i64) -> Res {
    let elements = usize::try_from(n.max(0).saturating_mul(each.max(0))).unwrap_or(usize::MAX);
    etx_ir::budget::spend(elements).map_err(|e| {
        let refusal = Refusal::new(e.findings().join("; "));
        e.remedy().map_or(refusal.clone(), |help| refusal.remedy(help))
    })
}

/// What a round of a loop that writes instructions counts as, in elements.
pub(crate) const ROUND: i64 = 256;

/// The call being lowered.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) node: &'a Node,
}

impl<'a> Call<'a> {
    pub(crate) fn new(graph: &'a Graph, id: NodeId) -> Self {
        Self { graph, node: graph.node(id) }
    }

    /// The argument of this name; absent ones are `None` like those that are `None`.
    pub(crate) fn arg(&self, name: &str) -> &'a Arg {
        static NONE: Arg = Arg::None;
        self.node.op.schema().position(name).and_then(|i| self.node.args.get(i)).unwrap_or(&NONE)
    }

    pub(crate) fn is_none(&self, name: &str) -> bool {
        matches!(self.arg(name), Arg::None)
    }

    /// A refusal that names an argument.
    pub(crate) fn refuse(&self, name: &str, what: &str) -> Refusal {
        let shown = match self.arg(name) {
            Arg::Value(v) => format!("{name} = {}", describe(self.graph, *v)),
            Arg::None => format!("{name} = None"),
            other => format!("{name} = {}", literal(other)),
        };
        Refusal::new(format!("{shown}: {what}"))
    }

    pub(crate) fn value(&self, name: &str) -> Res<ValueId> {
        self.arg(name).as_value().ok_or_else(|| self.refuse(name, "must be a tensor"))
    }

    /// Type of a tensor argument.
    pub(crate) fn ty(&self, name: &str) -> Res<&'a TensorType> {
        self.graph.tensor(self.value(name)?).ok_or_else(|| self.refuse(name, "must be a tensor"))
    }

    /// Declared type of result number `i`.
    pub(crate) fn out_ty(&self, i: usize) -> Res<&'a TensorType> {
        let v = self.out(i)?;
        self.graph.tensor(v).ok_or_else(|| Refusal::new(format!("result {i} is not a tensor")))
    }

    /// Result number `i`.
    pub(crate) fn out(&self, i: usize) -> Res<ValueId> {
        self.node.outputs.get(i).copied().ok_or_else(|| Refusal::new(format!("there is no result {i}")))
    }

    /// Whether result number `i` is used.
    pub(crate) fn is_used(&self, i: usize) -> bool {
        self.node.outputs.get(i).is_some_and(|&v| self.graph.value(v).use_count() > 0)
    }

    /// An integer that must be known at export.
    pub(crate) fn int(&self, name: &str) -> Res<i64> {
        self.expr(name)?.as_int().ok_or_else(|| self.refuse(name, "must be known at export"))
    }

    pub(crate) fn int_or(&self, name: &str, default: i64) -> Res<i64> {
        if self.is_none(name) { Ok(default) } else { self.int(name) }
    }

    /// An axis of `rank` dimensions, counted from the front.
    pub(crate) fn axis(&self, name: &str, rank: usize) -> Res<usize> {
        self.wrap(name, self.int(name)?, rank)
    }

    fn wrap(&self, name: &str, at: i64, rank: usize) -> Res<usize> {
        let n = rank.max(1) as i64;
        if (-n..n).contains(&at) {
            Ok(at.rem_euclid(n) as usize)
        } else {
            Err(self.refuse(name, &format!("there is no axis {at} among {rank}")))
        }
    }

    /// Axes, counted from the front; an absent or empty list is all of them.
    pub(crate) fn axes(&self, name: &str, rank: usize) -> Res<Vec<usize>> {
        let given = match self.arg(name) {
            Arg::None => vec![],
            Arg::Int(n) => vec![*n],
            _ => self.ints(name)?,
        };
        if given.is_empty() {
            return Ok((0..rank).collect());
        }
        let mut axes = given.into_iter().map(|a| self.wrap(name, a, rank)).collect::<Res<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        // A scalar has one axis to name and none to reduce.
        Ok(if rank == 0 { vec![] } else { axes })
    }

    /// An integer, possibly symbolic.
    pub(crate) fn expr(&self, name: &str) -> Res<Expr> {
        self.expr_of(self.arg(name)).ok_or_else(|| self.refuse(name, "must be an integer"))
    }

    /// What is known of an argument that is an integer.
    pub(crate) fn expr_of(&self, arg: &Arg) -> Option<Expr> {
        match arg {
            Arg::Value(v) => match self.graph.ty(*v) {
                Type::Int(e) => Some(e.clone()),
                _ => None,
            },
            other => other.as_int().map(Expr::Int),
        }
    }

    /// A list of integers, possibly symbolic.
    pub(crate) fn exprs(&self, name: &str) -> Res<Vec<Expr>> {
        self.arg(name)
            .as_list()
            .and_then(|items| items.iter().map(|a| self.expr_of(a)).collect())
            .ok_or_else(|| self.refuse(name, "must be a list of integers"))
    }

    /// A list of integers known at export.
    pub(crate) fn ints(&self, name: &str) -> Res<Vec<i64>> {
        self.exprs(name)?.iter().map(|e| e.as_int().ok_or_else(|| self.refuse(name, "must be known at export"))).collect()
    }

    pub(crate) fn float(&self, name: &str) -> Res<f64> {
        self.arg(name).as_float().ok_or_else(|| self.refuse(name, "must be a number known at export"))
    }

    pub(crate) fn float_or(&self, name: &str, default: f64) -> Res<f64> {
        if self.is_none(name) { Ok(default) } else { self.float(name) }
    }

    /// A boolean; absent is false.
    pub(crate) fn flag(&self, name: &str) -> Res<bool> {
        match self.arg(name) {
            Arg::None => Ok(false),
            other => other.as_bool().ok_or_else(|| self.refuse(name, "must be true or false")),
        }
    }

    pub(crate) fn str(&self, name: &str) -> Res<&'a str> {
        match self.arg(name) {
            Arg::Str(s) => Ok(s),
            _ => Err(self.refuse(name, "must be a string")),
        }
    }

    /// A list of tensors.
    pub(crate) fn values(&self, name: &str) -> Res<Vec<ValueId>> {
        self.arg(name)
            .as_list()
            .and_then(|items| items.iter().map(Arg::as_value).collect())
            .ok_or_else(|| self.refuse(name, "must be a list of tensors"))
    }

    /// The type that torch computes with for operands that are tensors, numbers or symbolic scalars: dimensioned tensors
    /// decide, then scalar tensors, then numbers, each only if of a higher kind (bool, integer, float).
    pub(crate) fn common_type(&self, names: &[&str]) -> Res<DType> {
        let kind = |t: DType| if t.is_float() || t.is_complex() { 2 } else { u8::from(t.is_int()) };
        let mut ranks: [Option<DType>; 3] = [None; 3];
        for name in names {
            let (rank, t) = match self.arg(name) {
                Arg::Value(v) => match self.graph.ty(*v) {
                    Type::Tensor(t) => (usize::from(t.rank() == 0), t.dtype),
                    Type::Int(_) => (2, DType::Int64),
                    Type::Float(_) => (2, DType::Float32),
                    Type::Bool(_) => (2, DType::Bool),
                    _ => continue,
                },
                Arg::Int(_) => (2, DType::Int64),
                Arg::Float(_) => (2, DType::Float32),
                Arg::Bool(_) => (2, DType::Bool),
                _ => return Err(self.refuse(name, "must be a tensor or a number")),
            };
            ranks[rank] = Some(ranks[rank].map_or(t, |u| torch_promote(t, u)));
        }
        let mut best: Option<DType> = None;
        for t in ranks.into_iter().flatten() {
            best = Some(match best {
                None => t,
                Some(b) if kind(t) > kind(b) => t,
                Some(b) => b,
            });
        }
        best.ok_or_else(|| Refusal::new("no operand has a type"))
    }
}

/// The type of a result of tensors of equal standing (torch's `promote_types`).
fn torch_promote(a: DType, b: DType) -> DType {
    use DType::{BFloat16, Bool, Float16, Float32, Float64, Int16, UInt8};
    match (a, b) {
        _ if a == b => a,
        (Bool, x) | (x, Bool) => x,
        (Float16, BFloat16) | (BFloat16, Float16) => Float32,
        (x, y) if x.is_float() && y.is_float() => {
            if x == Float64 || y == Float64 {
                Float64
            } else if x.size() >= y.size() {
                x
            } else {
                y
            }
        }
        (x, _) | (_, x) if x.is_float() => x,
        (UInt8, x) | (x, UInt8) if x.size() == 1 => Int16,
        (x, y) if x.size() >= y.size() => x,
        (_, y) => y,
    }
}

/// A value for messages: name and type.
pub(crate) fn describe(graph: &Graph, v: ValueId) -> String {
    let value = graph.value(v);
    match &value.ty {
        Type::Tensor(t) => format!("%{} {}{:?}", value.name, t.dtype, t.shape),
        Type::Int(e) => format!("%{} int {e}", value.name),
        _ => format!("%{}", value.name),
    }
}

fn literal(arg: &Arg) -> String {
    match arg {
        Arg::Int(n) => n.to_string(),
        Arg::Float(x) => format!("{x:?}"),
        Arg::Bool(b) => b.to_string(),
        Arg::Str(s) => format!("{s:?}"),
        Arg::DType(t) => t.to_string(),
        Arg::List(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Arg::Value(_) => "a value".to_owned(),
        _ => "an argument of another kind".to_owned(),
    }
}
