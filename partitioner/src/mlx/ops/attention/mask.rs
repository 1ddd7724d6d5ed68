//! What is known of the rows of a mask before the program runs.
//!
//! torch gives zeros for a query from which the mask hides every key; MLX gives NaN (a mask that is added), or the mean of all values (a
//! boolean one). A look at the rows of the mask mends that, and is left out where no row can be hidden whole. The proof works on intervals:
//! of all elements of a tensor, and of those at place 0 of its last axis, which is what the first key of a causal mask is. NaN does not
//! count: it hides nothing.

use etx_ir::DType;
use etx_ir::graph::{Arg, TensorType, Type, ValueId};
use etx_ir::sym::Expr;
use etx_ir::weights::TensorData;
use half::{bf16, f16};

use super::super::super::call::Call;
use super::super::super::cx::Cx;

/// Calls that a proof looks at before it gives up.
const BUDGET: u32 = 400;

/// Constants of more bytes than this are not read.
const MAX_BYTES: u64 = 64 << 20;

/// Numbers from `.0` to `.1`.
type Interval = (f64, f64);

const ANY: Interval = (f64::NEG_INFINITY, f64::INFINITY);

/// Which elements are asked about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    /// Those at place 0 of the last axis.
    First,
}

/// A number that the largest element of every row of a mask is not below; of a boolean one, 1 if every row keeps a key.
pub(super) fn row_maximum(cx: &Cx<'_>, call: &Call<'_>, mask: &Arg) -> f64 {
    Proof { cx, call: *call, left: BUDGET }.row_maximum(mask)
}

struct Proof<'p, 'a> {
    cx: &'p Cx<'a>,
    call: Call<'p>,
    left: u32,
}

impl<'p> Proof<'p, '_> {
    /// The call that makes a value, while there is budget.
    fn made(&mut self, v: ValueId) -> Option<Call<'p>> {
        self.left = self.left.checked_sub(1)?;
        self.call.graph.producer(v).map(|id| Call::new(self.call.graph, id))
    }

    fn tensor(&self, arg: &Arg) -> Option<(ValueId, &'p TensorType)> {
        arg.as_value().and_then(|v| Some((v, self.call.graph.tensor(v)?)))
    }

    /// A number that the largest element of every row is not below. Rows lie along the last axis.
    fn row_maximum(&mut self, arg: &Arg) -> f64 {
        let least = self.interval(arg, Part::All).0.max(self.interval(arg, Part::First).0);
        self.by_rows(arg).map_or(least, |rows| rows.max(least))
    }

    fn by_rows(&mut self, arg: &Arg) -> Option<f64> {
        let (v, t) = self.tensor(arg)?;
        if let Some(data) = self.data(v) {
            let width = usize::try_from(*data.shape().last()?).ok().filter(|&n| n > 0)?;
            let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
            each_number(data, |i, x| {
                // NaN hides nothing.
                most = if x.is_nan() { f64::MAX } else { most.max(x) };
                if (i + 1) % width == 0 {
                    least = least.min(most);
                    most = f64::NEG_INFINITY;
                }
            })?;
            return Some(least);
        }
        let made = self.made(v)?;
        let rank = t.rank();
        let from = made.ty("self").ok();
        // Whether rows stay rows.
        let kept = || from.is_some_and(|from| from.shape.last().is_some_and(|n| Some(n) == t.shape.last()));
        match made.node.op.target() {
            "aten.unsqueeze.default" if made.axis("dim", rank).is_ok_and(|axis| axis + 1 != rank) => {
                Some(self.row_maximum(made.arg("self")))
            }
            "aten.slice.Tensor" | "aten.index_select.default" | "aten.select.int" => {
                let rank = from?.rank();
                made.axis("dim", rank).is_ok_and(|axis| axis + 1 != rank).then(|| self.row_maximum(made.arg("self")))
            }
            "aten.expand.default" | "aten.repeat.default" | "aten.clone.default" | "aten.contiguous.default" => {
                Some(self.row_maximum(made.arg("self")))
            }
            "aten.view.default" | "aten.reshape.default" if kept() => Some(self.row_maximum(made.arg("self"))),
            "aten.index.Tensor" => {
                let picked = made.arg("indices").as_list().is_some_and(|i| from.is_some_and(|from| i.len() >= from.rank()));
                (kept() && !picked).then(|| self.row_maximum(made.arg("self")))
            }
            "aten._to_copy.default" => {
                let most = self.row_maximum(made.arg("self"));
                Some(fitted(most, t.dtype))
            }
            "aten.add.Tensor" if made.arg("alpha").as_float().is_none_or(|a| a == 1.0) => {
                let (a, b) = (made.arg("self"), made.arg("other"));
                let (low_a, low_b) = (self.interval(a, Part::All).0, self.interval(b, Part::All).0);
                let most = sum(self.row_maximum(a), low_b).max(sum(low_a, self.row_maximum(b)));
                Some(fitted(most, t.dtype))
            }
            "aten.cat.default" => {
                let parts = made.arg("tensors").as_list()?;
                let last = made.axis("dim", rank).ok()? + 1 == rank;
                let rows: Vec<f64> = parts.iter().map(|part| self.row_maximum(part)).collect();
                let put = if last { f64::max } else { f64::min };
                rows.into_iter().reduce(put)
            }
            _ => None,
        }
    }

    /// The bytes of a constant, where they may be looked at.
    fn data(&self, v: ValueId) -> Option<&'p TensorData>
    where
        Self: 'p,
    {
        let (_, data) = self.cx.weight(v)?;
        (self.cx.reads_weights && data.bytes().is_some() && data.byte_len() <= MAX_BYTES).then_some(data)
    }

    /// What the elements are between.
    fn interval(&mut self, arg: &Arg, part: Part) -> Interval {
        if let Some(x) = arg.as_float() {
            return (x, x);
        }
        let Some(v) = arg.as_value() else { return ANY };
        match self.call.graph.ty(v) {
            Type::Int(e) => self.bounds(e),
            Type::Tensor(t) => {
                let of_type = of_type(t.dtype);
                let known = match self.data(v) {
                    Some(data) => of_data(data, part),
                    None => self.made(v).and_then(|made| self.made_by(&made, t, part)),
                };
                let (low, high) = known.unwrap_or(of_type);
                (low.max(of_type.0), high.min(of_type.1))
            }
            _ => ANY,
        }
    }

    fn bounds(&self, e: &Expr) -> Interval {
        let range = self.cx.method.ranges.bounds(e);
        (range.min.map_or(f64::NEG_INFINITY, |n| n as f64), range.max.map_or(f64::INFINITY, |n| n as f64))
    }

    fn made_by(&mut self, made: &Call<'p>, t: &TensorType, part: Part) -> Option<Interval> {
        let rank = t.rank();
        let from = made.ty("self").ok();
        let mut of = |name: &str, part: Part| self.interval(made.arg(name), part);
        // What is at place 0 of rows is so if rows stay as they are, and may be anything of the operand otherwise.
        let whole = |kept: bool| if kept { part } else { Part::All };
        let known = match made.node.op.target() {
            "aten.full.default" | "aten.new_full.default" | "aten.full_like.default" => of("fill_value", part),
            "aten.arange.start_step" => {
                let (start, end, step) = (of("start", part), of("end", part), of("step", part));
                if part == Part::First {
                    start
                } else if step.0 >= 0.0 {
                    (start.0, end.1)
                } else {
                    (f64::NEG_INFINITY, f64::INFINITY)
                }
            }
            "aten._to_copy.default" => match (from?.dtype.is_float(), t.dtype) {
                (true, DType::Bool) => return None,
                (_, DType::Bool) => {
                    let (low, high) = of("self", part);
                    (f64::from(u8::from(low > 0.0)), f64::from(u8::from(low != 0.0 || high != 0.0)))
                }
                // Integers wrap, and lose fractions.
                (true, to) if to.is_int() => return None,
                (false, to) if to.is_int() && to.size() < from?.dtype.size() => return None,
                _ => of("self", part),
            },
            "aten.clone.default" | "aten.contiguous.default" | "aten.expand.default" => of("self", part),
            "aten.unsqueeze.default" => of("self", whole(made.axis("dim", rank).is_ok_and(|axis| axis + 1 != rank))),
            "aten.select.int"
            | "aten.index_select.default"
            | "aten.embedding.default"
            | "aten.index.Tensor"
            | "aten.permute.default"
            | "aten.transpose.int"
            | "aten.squeeze.dims"
            | "aten.repeat.default" => of(if made.is_none("weight") { "self" } else { "weight" }, Part::All),
            "aten.slice.Tensor" => {
                let last = made.axis("dim", rank).is_ok_and(|axis| axis + 1 == rank);
                of("self", whole(!last || matches!(made.arg("start"), Arg::None | Arg::Int(0))))
            }
            "aten.view.default" | "aten.reshape.default" => of("self", whole(from?.shape.last() == t.shape.last())),
            "aten.where.self" | "aten.where.ScalarSelf" | "aten.where.ScalarOther" | "aten.where.Scalar" => {
                let (condition, x, y) = (of("condition", part), of("self", part), of("other", part));
                match condition {
                    (low, _) if low >= 1.0 => x,
                    (_, high) if high <= 0.0 => y,
                    _ => (x.0.min(y.0), x.1.max(y.1)),
                }
            }
            "aten.tril.default" | "aten.triu.default" => {
                let (low, high) = of("self", part);
                let k = made.int_or("diagonal", 0).ok()?;
                match (made.node.op.target(), part) {
                    ("aten.tril.default", Part::First) if k >= 0 => (low, high),
                    ("aten.triu.default", Part::First) if k >= 1 => (0.0, 0.0),
                    _ => (low.min(0.0), high.max(0.0)),
                }
            }
            "aten.add.Tensor" | "aten.sub.Tensor" if made.arg("alpha").as_float().is_none_or(|a| a == 1.0) => {
                let (a, mut b) = (of("self", part), of("other", part));
                if made.node.op.target() == "aten.sub.Tensor" {
                    b = (-b.1, -b.0);
                }
                (sum(a.0, b.0), if a.1 == f64::INFINITY || b.1 == f64::INFINITY { f64::INFINITY } else { a.1 + b.1 })
            }
            "aten.mul.Tensor" => {
                let (a, b) = (of("self", part), of("other", part));
                let ends = [a.0 * b.0, a.0 * b.1, a.1 * b.0, a.1 * b.1];
                if ends.iter().any(|x| x.is_nan()) {
                    return None;
                }
                (ends.iter().copied().fold(f64::INFINITY, f64::min), ends.iter().copied().fold(f64::NEG_INFINITY, f64::max))
            }
            "aten.neg.default" => {
                let (low, high) = of("self", part);
                (-high, -low)
            }
            "aten.logical_not.default" | "aten.bitwise_not.default" if t.dtype == DType::Bool && from?.dtype == DType::Bool => {
                let (low, high) = of("self", part);
                (1.0 - high, 1.0 - low)
            }
            "aten.logical_and.default" | "aten.bitwise_and.Tensor" if both_bool(made) => {
                let (a, b) = (of("self", part), of("other", part));
                (a.0.min(b.0), a.1.min(b.1))
            }
            "aten.logical_or.default" | "aten.bitwise_or.Tensor" if both_bool(made) => {
                let (a, b) = (of("self", part), of("other", part));
                (a.0.max(b.0), a.1.max(b.1))
            }
            "aten.le.Tensor" | "aten.le.Scalar" => less(of("self", part), of("other", part), true),
            "aten.lt.Tensor" | "aten.lt.Scalar" => less(of("self", part), of("other", part), false),
            "aten.ge.Tensor" | "aten.ge.Scalar" => less(of("other", part), of("self", part), true),
            "aten.gt.Tensor" | "aten.gt.Scalar" => less(of("other", part), of("self", part), false),
            "aten.sigmoid.default" | "aten._softmax.default" => (0.0, 1.0),
            "aten.tanh.default" => (-1.0, 1.0),
            "aten.relu.default" => (0.0, f64::INFINITY),
            "aten.clamp.default" => {
                let (low, high) = of("self", part);
                let bound = |name: &str| made.arg(name).as_float();
                let (min, max) = (bound("min").unwrap_or(f64::NEG_INFINITY), bound("max").unwrap_or(f64::INFINITY));
                (low.max(min).min(max), high.max(min).min(max))
            }
            "aten.cat.default" => {
                let parts = made.arg("tensors").as_list()?;
                let all: Vec<Interval> = parts.iter().map(|p| self.interval(p, Part::All)).collect();
                all.into_iter().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?
            }
            _ => return None,
        };
        Some((fitted(known.0, t.dtype), -fitted(-known.1, t.dtype)))
    }
}

fn both_bool(call: &Call<'_>) -> bool {
    ["self", "other"].iter().all(|name| call.ty(name).is_ok_and(|t| t.dtype == DType::Bool))
}

/// A lower bound of a sum: with something that may be minus infinity it is that.
fn sum(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY { f64::NEG_INFINITY } else { a + b }
}

/// Whether what is in `a` is less than, or, if `equal` counts, not more than what is in `b`.
fn less(a: Interval, b: Interval, equal: bool) -> Interval {
    let surely = a.1 < b.0 || equal && a.1 == b.0;
    let never = a.0 > b.1 || !equal && a.0 == b.1;
    (f64::from(u8::from(surely)), f64::from(u8::from(!never)))
}

/// A lower bound as it is after rounding to the type, which may lose it to infinity.
fn fitted(low: f64, dtype: DType) -> f64 {
    // Integers that overflow wrap around.
    let lost = dtype.is_int() && !(of_type(dtype).0..=of_type(dtype).1).contains(&low);
    if lost || low < -largest(dtype) { f64::NEG_INFINITY } else { low }
}

/// A number that rounds to no infinity, and no smaller one does.
fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::Float16 => f16::MAX.into(),
        DType::BFloat16 => bf16::MAX.into(),
        DType::Float32 => f32::MAX.into(),
        _ => f64::MAX,
    }
}

fn of_type(dtype: DType) -> Interval {
    let bits = 8 * dtype.size() as i32;
    match dtype {
        DType::Bool => (0.0, 1.0),
        DType::UInt8 | DType::UInt16 | DType::UInt32 | DType::UInt64 => (0.0, 2f64.powi(bits)),
        t if t.is_int() => (-2f64.powi(bits - 1), 2f64.powi(bits - 1)),
        _ => ANY,
    }
}

/// The smallest and the largest element.
fn of_data(data: &TensorData, part: Part) -> Option<Interval> {
    let width = usize::try_from(*data.shape().last()?).ok().filter(|&n| n > 0)?;
    let step = if part == Part::First { width } else { 1 };
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    each_number(data, |i, x| {
        if i % step == 0 {
            (low, high) = (low.min(x), high.max(x));
        }
    })?;
    // NaN, which hides nothing, leaves these where they were.
    Some(if low > high { (0.0, 0.0) } else { (low, high) })
}

/// Shows every element with its number.
fn each_number(data: &TensorData, mut see: impl FnMut(usize, f64)) -> Option<()> {
    let bytes = data.bytes()?;
    macro_rules! parse {
        ($t:ty) => {
            bytes.as_chunks::<{ size_of::<$t>() }>().0.iter().enumerate().for_each(|(i, b)| see(i, <$t>::from_le_bytes(*b).into()))
        };
    }
    match data.dtype() {
        DType::Bool | DType::UInt8 => parse!(u8),
        DType::Int32 => parse!(i32),
        DType::Int64 => bytes.as_chunks::<8>().0.iter().enumerate().for_each(|(i, b)| see(i, i64::from_le_bytes(*b) as f64)),
        DType::Float16 => parse!(f16),
        DType::BFloat16 => parse!(bf16),
        DType::Float32 => parse!(f32),
        _ => return None,
    }
    Some(())
}
