//! Operators outside of ATen: quantisation, MLX, caches, ExecuTorch, higher-order operators.

use super::cx::{Cx, Inferred, one, tensor};
use super::dims::quotient;
use crate::DType;
use crate::error::Error;
use crate::graph::{Arg, TensorType, Type};
use crate::op::{Kind, OpId};
use crate::sym::Expr;

/// The input's shape with the element type that the named argument gives.
pub(super) fn retyped(c: &Cx, at: &'static str, otherwise: DType) -> Inferred {
    one(c.dtype(at).unwrap_or(otherwise), c.tensor(0)?.shape.clone())
}

/// The last size multiplied: values that share an element are spread out.
pub(super) fn unpacked(c: &Cx, factor: i64, at: &'static str, otherwise: DType) -> Inferred {
    let t = c.tensor(0)?;
    let mut shape = t.shape.clone();
    let n = shape.last_mut().ok_or_else(|| c.fail("packed values need a dimension"))?;
    *n = n.times(&factor.into());
    one(c.dtype(at).unwrap_or(otherwise), shape)
}

/// `dequantize_gguf`: rows of blocks of bytes, 256 values each.
pub(super) fn dequantize_gguf(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let kind = c.text("ggml_type").unwrap_or("");
    let bytes = match kind {
        "q4_k" => 144,
        "q5_k" => 176,
        "q6_k" => 210,
        _ => return Err(c.unsupported(format!("GGML type {kind:?}"))),
    };
    let mut shape = t.shape.clone();
    let n = shape.last_mut().ok_or_else(|| c.fail("blocks need a dimension"))?;
    if n.modulo(&bytes.into()).as_int().is_some_and(|r| r != 0) {
        return Err(c.fail(format!("{n} bytes a row are not whole blocks of {bytes}")));
    }
    *n = n.floor_div(&bytes.into()).times(&256.into());
    one(c.dtype("output_dtype").unwrap_or(DType::BFloat16), shape)
}

/// `choose_qparams_affine`: one scale and zero point a block. A dimension that is one block goes, unless it is kept or
/// its elements are blocks.
pub(super) fn choose_affine(c: &Cx) -> Inferred {
    let (t, block) = (c.tensor(0)?, c.sizes("block_size")?);
    if block.len() != t.rank() {
        return Err(c.fail(format!("{} block sizes for a tensor of rank {}", block.len(), t.rank())));
    }
    let mut shape = Vec::new();
    for (n, b) in t.shape.iter().zip(&block) {
        if *b == Expr::Int(1) || b != n {
            shape.push(n.floor_div(b));
        } else if c.flag("keepdim") {
            shape.push(Expr::Int(1));
        }
    }
    let scale = c.dtype("scale_dtype").unwrap_or(t.dtype);
    let zero = c.dtype("zero_point_dtype").unwrap_or(t.dtype);
    Ok(vec![tensor(scale, shape.clone()), tensor(zero, shape)])
}

/// Scale and zero point of the whole tensor.
pub(super) fn choose_per_tensor(_: &Cx) -> Inferred {
    Ok(vec![tensor(DType::Float64, vec![Expr::Int(1)]), tensor(DType::Int64, vec![Expr::Int(1)])])
}

/// Scale and zero point of each row.
pub(super) fn choose_per_token(c: &Cx, scale: DType, zero_point: DType) -> Inferred {
    let mut shape = c.tensor(0)?.shape.clone();
    *shape.last_mut().ok_or_else(|| c.fail("a scalar has no rows"))? = Expr::Int(1);
    Ok(vec![tensor(scale, shape.clone()), tensor(zero_point, shape)])
}

/// Rows of a quantised table, `per_byte` values a byte.
pub(super) fn quantized_embedding(c: &Cx, per_byte: i64) -> Inferred {
    let (table, indices) = (c.tensor("weight")?, c.tensor("indices")?);
    let [_, n] = table.shape.as_slice() else { return Err(c.fail(format!("table of rank {}, need 2", table.rank()))) };
    let dtype = c.dtype("dtype").unwrap_or(c.tensor("weight_scales")?.dtype);
    one(dtype, indices.shape.iter().cloned().chain([n.times(&per_byte.into())]).collect())
}

/// A product of float rows and quantised columns.
pub(super) fn mixed_product(c: &Cx, transposed: bool) -> Inferred {
    let (x, weight) = (c.tensor(0)?, c.tensor(1)?);
    let (Some((k, rows)), [a, b]) = (x.shape.split_last(), weight.shape.as_slice()) else {
        return Err(c.fail("need rows and a weight of rank 2"));
    };
    let (inner, columns) = if transposed { (b, a) } else { (a, b) };
    c.same(k, inner, "features")?;
    one(c.dtype("dtype").unwrap_or(x.dtype), rows.iter().chain([columns]).cloned().collect())
}

/// A cache is written in place; what is returned is one element that nothing uses.
pub(super) fn cache_update(c: &Cx) -> Inferred {
    let (cache, new) = (c.tensor("cache")?, c.tensor("new_values")?);
    c.same_dtype(cache, new)?;
    c.rank(cache, &[4], "cache")?;
    c.rank(new, &[4], "new values")?;
    one(cache.dtype, vec![Expr::Int(1)])
}

/// Attention over a cache that the runtime holds.
pub(super) fn update_and_attend(c: &Cx) -> Inferred {
    let (q, v) = (c.tensor("q")?, c.tensor("v")?);
    let mut shape = q.shape.clone();
    if let (Some(n), Some(features)) = (shape.last_mut(), v.shape.last()) {
        *n = features.clone();
    }
    one(c.dtype("out_dtype").unwrap_or(q.dtype), shape)
}

/// The recurrent attention of MLX: the output is shaped and typed as the values.
pub(super) fn like_argument(c: &Cx, at: &'static str) -> Inferred {
    let t = c.tensor(at)?;
    one(t.dtype, t.shape.clone())
}

/// Recurrent attention that returns its state: a value for each head of queries and step, of which there may be several to a state.
pub(super) fn with_state(c: &Cx) -> Inferred {
    let (query, value, state) = (c.tensor("query")?, c.tensor("value")?, c.tensor("initial_state")?);
    let ([lead @ .., _], [.., width]) = (&query.shape[..], &value.shape[..]) else { return Err(c.fail("need four axes")) };
    let shape = lead.iter().chain([width]).cloned().collect();
    Ok(vec![tensor(value.dtype, shape), tensor(state.dtype, state.shape.clone())])
}

/// One matrix product an index: `a @ b[rhs]`, with `lhs` picking matrices of `a`.
fn gathered(c: &Cx, a: &TensorType, columns: Expr) -> Inferred {
    let [batch @ .., rows, _] = a.shape.as_slice() else { return Err(c.fail("need matrices")) };
    let left = match c.maybe_tensor("lhs_indices")? {
        Some(index) => index.shape.as_slice(),
        None => batch,
    };
    let right = c.maybe_tensor("rhs_indices")?.map_or(&[][..], |index| index.shape.as_slice());
    let mut shape = c.broadcast([left, right])?;
    shape.extend([rows.clone(), columns]);
    one(a.dtype, shape)
}

/// `mlx.gather_mm(a, b, …)`, `b` being `[experts, in, out]`.
pub(super) fn gather_mm(c: &Cx) -> Inferred {
    let (a, b) = (c.tensor("a")?, c.tensor("b")?);
    c.same_dtype(a, b)?;
    let (Some(k), [.., inner, columns]) = (a.shape.last(), b.shape.as_slice()) else { return Err(c.fail("need matrices")) };
    c.same(k, inner, "inner sizes")?;
    gathered(c, a, columns.clone())
}

/// Rows that one matrix after the other multiplies, as many as `offs` says; each matrix its own rows if both have three axes.
pub(super) fn grouped_mm(c: &Cx) -> Inferred {
    let (a, b) = (c.tensor(0)?, c.tensor(1)?);
    c.same_dtype(a, b)?;
    match (a.shape.as_slice(), b.shape.as_slice()) {
        ([rows, inner], [_, k, columns]) => {
            c.same(inner, k, "inner sizes")?;
            one(a.dtype, vec![rows.clone(), columns.clone()])
        }
        ([groups, rows, inner], [same, k, columns]) => {
            c.same(inner, k, "inner sizes")?;
            one(a.dtype, vec![c.same(groups, same, "groups")?, rows.clone(), columns.clone()])
        }
        _ => Err(c.unsupported("groups of columns")),
    }
}

/// `mlx.gather_qmm(x, w, …)`, `w` being `[experts, out, packed in]`, or `[experts, in, packed out]` untransposed.
pub(super) fn gather_qmm(c: &Cx) -> Inferred {
    let (x, w) = (c.tensor("x")?, c.tensor("w")?);
    let [_, rows, last] = w.shape.as_slice() else { return Err(c.fail(format!("weight of rank {}, need 3", w.rank()))) };
    let per_element = if w.dtype == DType::UInt8 { 8 / c.int("bits")?.clamp(1, 8) } else { 1 };
    let columns = if c.flag("transpose") { rows.clone() } else { last.times(&per_element.into()) };
    gathered(c, x, columns)
}

/// Rows of `x` once for each expert chosen, which expert, whether they were sorted, how to undo that.
pub(super) fn moe_gather(c: &Cx) -> Inferred {
    let (x, indices) = (c.tensor("x")?, c.tensor("expert_indices")?);
    let Some((features, _)) = x.shape.split_last() else { return Err(c.fail("a scalar has no rows")) };
    let n = indices.numel();
    let positions = tensor(DType::Int32, vec![n.clone()]);
    let rows = tensor(x.dtype, vec![n, Expr::Int(1), features.clone()]);
    Ok(vec![rows, positions.clone(), tensor(DType::Int32, Vec::new()), positions])
}

/// The rows of all experts back in the order of the tokens.
pub(super) fn moe_scatter(c: &Cx) -> Inferred {
    let (down, top_k) = (c.tensor("down")?, c.size("top_k")?);
    let (Some(rows), Some(features)) = (down.shape.first(), down.shape.last()) else { return Err(c.fail("a scalar has no rows")) };
    let tokens = quotient(c, std::slice::from_ref(rows), std::slice::from_ref(&top_k))?;
    one(down.dtype, vec![tokens, top_k, features.clone()])
}

/// One token a row of logits.
pub(super) fn sample(c: &Cx) -> Inferred {
    let logits = c.tensor(0)?;
    let rows = logits.shape.split_last().map_or(&[][..], |(_, rows)| rows);
    one(DType::Int64, rows.to_vec())
}

/// The norm of each row.
pub(super) fn row_norm(c: &Cx) -> Inferred {
    let t = c.tensor(0)?;
    let mut shape = t.shape.clone();
    *shape.last_mut().ok_or_else(|| c.fail("a scalar has no rows"))? = Expr::Int(1);
    one(t.dtype, shape)
}

/// Two 4-bit codes a byte.
pub(super) fn compressed(c: &Cx) -> Inferred {
    let mut shape = c.tensor(0)?.shape.clone();
    let n = shape.last_mut().ok_or_else(|| c.fail("a scalar has no rows"))?;
    *n = n.floor_div(&2.into());
    one(DType::UInt8, shape)
}

/// Two values a byte, of the type of the norms.
pub(super) fn decompressed(c: &Cx) -> Inferred {
    let dtype = c.tensor("norms")?.dtype;
    unpacked(c, 2, "", dtype)
}

/// A body that is run as it is, once or again and again: its results.
pub(super) fn wrapped(c: &Cx) -> Inferred {
    let Arg::Graph(body) = c.arg("body_graph") else { return Err(c.fail("no body")) };
    let result = |arg: &Arg| match arg {
        Arg::Value(v) => Ok(body.ty(*v).clone()),
        Arg::None => Ok(Type::None),
        Arg::Int(n) => Ok(Type::Int(Expr::Int(*n))),
        Arg::Float(x) => Ok(Type::Float(Expr::Float(x.to_bits()))),
        Arg::Bool(b) => Ok(Type::Bool(Expr::Bool(*b))),
        _ => Err(c.unsupported("a body with a result of this kind")),
    };
    body.outputs().iter().map(result).collect()
}

/// An operator with its mutations as results: what it returns, then the new value of every tensor it may write to.
pub(super) fn auto_functionalized(c: &Cx) -> Inferred {
    let Arg::Op(op) = c.arg(0) else { return Err(c.fail("no operator")) };
    let Some(Arg::Dict(named)) = c.args.last() else { return Err(c.fail("no named arguments")) };
    let get = |name: &str| named.iter().find(|(key, _)| &**key == name).map(|(_, arg)| arg);
    let bases = get("_all_bases").and_then(Arg::as_list).unwrap_or(&[]);
    let mut args = Vec::new();
    for spec in &op.schema().args {
        let base = get(&format!("_{}_base_index", spec.name)).and_then(Arg::as_int).and_then(|i| usize::try_from(i).ok());
        args.push(match (get(&spec.name), base.and_then(|i| bases.get(i))) {
            (Some(arg), _) | (None, Some(arg)) => arg.clone(),
            (None, None) => spec.default.as_ref().map_or(Arg::None, Arg::from),
        });
    }
    let mut results = of_operator(c, *op, &args)?;
    for base in bases {
        let t = c.as_tensor(base).ok_or_else(|| c.fail("bases must be tensors"))?;
        results.push(tensor(t.dtype, t.shape.clone()));
    }
    Ok(results)
}

/// The results of another operator.
fn of_operator(c: &Cx, op: OpId, args: &[Arg]) -> Result<Vec<Type>, Error> {
    // Nobody nests these; refusing it keeps the stack small whatever a file says.
    if op.schema().kind == Kind::HigherOrder {
        return Err(c.unsupported(format!("{op} as argument")));
    }
    super::infer(c.graph, c.ranges, op, args)
}

/// An operator with a token of ordered effects as first argument and first result.
pub(super) fn with_effects(c: &Cx) -> Inferred {
    let (Some(Arg::Value(token)), Some(Arg::Op(op))) = (c.args.first(), c.args.get(1)) else {
        return Err(c.fail("need a token and an operator"));
    };
    let mut results = vec![c.graph.ty(*token).clone()];
    results.extend(of_operator(c, *op, c.args.get(2..).unwrap_or(&[]))?);
    Ok(results)
}

/// Both branches return the same kinds of values; where they differ in size nothing is known.
pub(super) fn cond(c: &Cx) -> Inferred {
    let Arg::Graph(branch) = c.arg("true_graph") else { return Err(c.fail("no body")) };
    let Arg::Graph(other) = c.arg("false_graph") else { return Err(c.fail("no body")) };
    let mut results = Vec::new();
    for (i, (a, b)) in branch.outputs().iter().zip(other.outputs()).enumerate() {
        let (Some(a), Some(b)) = (a.as_value(), b.as_value()) else { return Err(c.unsupported("a branch that returns a literal")) };
        results.push(match (branch.ty(a), other.ty(b)) {
            (Type::Tensor(a), Type::Tensor(b)) if a.dtype == b.dtype && a.rank() == b.rank() => {
                let size = |(n, m): (&Expr, &Expr)| if n == m { n.clone() } else { c.fresh(i) };
                tensor(a.dtype, a.shape.iter().zip(&b.shape).map(size).collect())
            }
            (a, b) if a == b => a.clone(),
            _ => return Err(c.fail(format!("the branches differ in result {i}"))),
        });
    }
    Ok(results)
}
