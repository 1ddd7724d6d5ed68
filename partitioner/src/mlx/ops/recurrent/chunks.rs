//! The gated delta rule in products of matrices, a chunk of time at once.

use etx_ir::DType;
use etx_ir::sym::{Dim, Expr};
use etx_ir::weights::TensorData;
use etx_mlx::{Instr, Tid};

use super::super::super::call::Res;
use super::super::super::cx::Cx;
use super::{Results, Rule, copy};
use crate::backend::Refusal;

/// Steps of a chunk: a power of two.
pub(super) const CHUNK: i64 = 64;

/// The rule on `[batch, time, heads, value size]`, in `f32` whatever the type of the operands.
///
/// In a chunk that begins with state `S₀`, let `D` be the decay from step `i` to step `r` (`g` of the steps after `i` up to
/// `r` multiplied; zero for `i > r`), `γ` that from `S₀`, and `δ` what a step adds to the state per key, so that
/// `Sᵣ = γᵣ·S₀ + Σ D[r,i]·δᵢ ⊗ kᵢ`. The rule for `δ` is then a triangular system of the whole chunk:
///
/// `(I + A)·Δ = β·V − (β·γ·K)·S₀ᵀ`, `A = β·(K·Kᵀ ∘ D)` below the diagonal,
/// `Y = (γ·Q)·S₀ᵀ + (Q·Kᵀ ∘ D)·Δ`, `S = γ·S₀ + Δᵀ·(D[last]·K)`.
///
/// All but the three products with `S₀` and the two with `Δ` are made for all chunks at once; a scan over the chunks hands on the
/// state. The last chunk is filled up with steps that change nothing (`g` is 1, the rest 0). Source: Yang, Wang, Zhang, Shen, Kim,
/// Parallelizing Linear Transformers with the Delta Rule over Sequence Length (2024), with the gate of Yang, Kautz,
/// Hatamizadeh, Gated Delta Networks (2024).
pub(super) fn chunked(cx: &mut Cx<'_>, rule: &Rule, shape: &[Dim], key_size: &Dim, to: Results) -> Res {
    let [batch, time, heads, width] = shape else { return Err(Refusal::new("the rule takes four axes")) };
    let size = Expr::Int(CHUNK);
    let number = time.plus(&Expr::Int(CHUNK - 1)).floor_div(&size);
    let whole = number.times(&size);
    let missing = whole.minus(time);
    // `[batch, chunks, heads, chunk, size]` of f32.
    let mut parts = |x: Tid, last: Option<&Dim>, fill: f32| -> Res<Tid> {
        let rank = if last.is_none() { 3 } else { 4 };
        let mut x = cx.cast(x, DType::Float32)?;
        if missing.as_int() != Some(0) {
            let mut pad_width = vec![0.into(); 2 * rank];
            pad_width[3] = cx.int(&missing)?;
            x = cx.temp(|out| Instr::Pad { x, out, pad_width, mode: "constant".to_owned(), constant_value: fill });
        }
        let shape = cx.dims(&[batch.clone(), number.clone(), size.clone(), heads.clone(), last.cloned().unwrap_or(Expr::Int(1))])?;
        let x = cx.temp(|out| Instr::Reshape { x, out, shape });
        Ok(cx.temp(|out| Instr::Transpose { x, out, perm: vec![0, 1, 3, 2, 4] }))
    };
    let (q, k, v) = (parts(rule.q, Some(key_size), 0.0)?, parts(rule.k, Some(key_size), 0.0)?, parts(rule.v, Some(width), 0.0)?);
    let (g, beta) = (parts(rule.g, None, 1.0)?, parts(rule.beta, None, 0.0)?);

    let triangles = Triangles::new(cx)?;
    // The decays solve a system, too: each is that of the step before times `g`. No logarithms, so that a gate may be shut.
    let below = cx.temp(|out| Instr::Multiply { a: g, b: triangles.before, out });
    let decay = triangles.inverse(cx, below)?;
    let since = row_or_column(cx, decay, -1, 0, 1);
    let first = row_or_column(cx, g, -2, 0, 1);
    let since = cx.temp(|out| Instr::Multiply { a: since, b: first, out });

    let keys = cx.temp(|out| Instr::Transpose { x: k, out, perm: vec![0, 1, 2, 4, 3] });
    let weighted = cx.temp(|out| Instr::Multiply { a: k, b: beta, out });
    let below = product(cx, weighted, keys);
    let below = cx.temp(|out| Instr::Multiply { a: below, b: decay, out });
    let solve = triangles.inverse(cx, below)?;
    let v = cx.temp(|out| Instr::Multiply { a: v, b: beta, out });
    let own = product(cx, solve, v);
    let weighted = cx.temp(|out| Instr::Multiply { a: weighted, b: since, out });
    let by_state = product(cx, solve, weighted);
    let attention = product(cx, q, keys);
    let attention = cx.temp(|out| Instr::Multiply { a: attention, b: decay, out });
    let q = cx.temp(|out| Instr::Multiply { a: q, b: since, out });
    let until_end = row_or_column(cx, decay, -2, CHUNK - 1, CHUNK);
    let keys = cx.temp(|out| Instr::Multiply { a: keys, b: until_end, out });
    let over_all = row_or_column(cx, since, -2, CHUNK - 1, CHUNK);

    // The scan works on the state's transpose.
    let s = cx.fresh_of(DType::Float32);
    let state = cx.cast(rule.state, DType::Float32)?;
    cx.push(Instr::Transpose { x: state, out: s, perm: vec![0, 1, 3, 2] });
    let originals = [own, by_state, attention, q, keys, over_all];
    let sliced @ [own, by_state, attention, q, keys, over_all] = originals.map(|_| cx.fresh());
    let y = cx.fresh();
    let body = cx.in_chain(|cx| {
        let delta = cx.temp(|out| Instr::Addmm { mat1: by_state, mat2: s, out, bias: Some(own), alpha: -1.0, beta: 1.0 });
        let before = product(cx, q, s);
        cx.push(Instr::Addmm { mat1: attention, mat2: delta, out: y, bias: Some(before), alpha: 1.0, beta: 1.0 });
        let kept = cx.temp(|out| Instr::Multiply { a: s, b: over_all, out });
        cx.push(Instr::Addmm { mat1: keys, mat2: delta, out: s, bias: Some(kept), alpha: 1.0, beta: 1.0 });
        Ok(())
    })?;
    cx.push(Instr::Scan {
        originals: originals.to_vec(),
        sliced: sliced.to_vec(),
        outputs: vec![y],
        carry: vec![s],
        body_chain_idx: body as i32,
        scan_axis: 1,
    });
    let s = cx.temp(|out| Instr::Transpose { x: s, out, perm: vec![0, 1, 3, 2] });
    copy(cx, s, to.state);
    let y = cx.temp(|out| Instr::Transpose { x: y, out, perm: vec![0, 1, 3, 2, 4] });
    let shape = cx.dims(&[batch.clone(), whole, heads.clone(), width.clone()])?;
    let mut y = cx.temp(|out| Instr::Reshape { x: y, out, shape });
    if missing.as_int() != Some(0) {
        let stop = cx.int(time)?;
        y = cx.temp(|out| Instr::Slice { x: y, out, axis: 1.into(), start: 0.into(), stop, step: 1 });
    }
    copy(cx, y, to.y);
    Ok(())
}

fn product(cx: &mut Cx<'_>, mat1: Tid, mat2: Tid) -> Tid {
    cx.temp(|out| Instr::Addmm { mat1, mat2, out, bias: None, alpha: 1.0, beta: 1.0 })
}

fn row_or_column(cx: &mut Cx<'_>, x: Tid, axis: i64, start: i64, stop: i64) -> Tid {
    cx.temp(|out| Instr::Slice { x, out, axis: axis.into(), start: start.into(), stop: stop.into(), step: 1 })
}

/// What it takes to invert triangular matrices of a chunk.
struct Triangles {
    identity: Tid,
    /// -1 just below the diagonal, else 0.
    before: Tid,
    /// One of a level and a row, and one of a level and a column, are equal where [`Triangles::inverse`] works at that level.
    rows: Tid,
    columns: Tid,
    zero: Tid,
}

impl Triangles {
    fn new(cx: &mut Cx<'_>) -> Res<Self> {
        let mut triangle = |k: i32| {
            let n = CHUNK.into();
            cx.temp(|out| Instr::Tri { out, n, m: n, k, scalar_type: DType::Float32 })
        };
        let (whole, below, further) = (triangle(0), triangle(-1), triangle(-2));
        let levels = CHUNK.ilog2();
        let mut table = |name: &str, shape: Vec<u64>, of: &dyn Fn(i64) -> i64| {
            let bytes: Vec<u8> =
                (0..levels).flat_map(|l| (0..CHUNK).map(move |r| r >> l)).flat_map(|block| (of(block) as i8).to_le_bytes()).collect();
            let data = TensorData::inline(DType::Int8, shape, bytes).map_err(|e| Refusal::new(e.to_string()))?;
            cx.constant(name, data)
        };
        // Rows of odd blocks meet columns of the even ones just before them.
        let (n, levels) = (CHUNK as u64, u64::from(levels));
        let rows = table("_delta_rule_rows", vec![levels, n, 1], &|block| if block % 2 == 1 { block } else { -1 })?;
        let columns = table("_delta_rule_columns", vec![levels, 1, n], &|block| if block % 2 == 0 { block + 1 } else { -2 })?;
        Ok(Self {
            identity: cx.temp(|out| Instr::Subtract { a: whole, b: below, out }),
            before: cx.temp(|out| Instr::Subtract { a: further, b: below, out }),
            rows,
            columns,
            zero: cx.scalar(0.0, DType::Float32)?,
        })
    }

    /// The inverse of `I + below` for matrices that are zero on and above the diagonal, or anything above it.
    ///
    /// The inverse of the blocks of a size on the diagonal gives that of the blocks of twice the size:
    /// `inv [[P, 0], [R, Q]] = [[P⁻¹, 0], [-Q⁻¹·R·P⁻¹, Q⁻¹]]`, for all blocks in two products of whole matrices. No powers of
    /// `below` are formed, whose growth would cancel badly. Source: Higham, Accuracy and Stability of Numerical Algorithms,
    /// chapter 14 (block methods for triangular inverses).
    fn inverse(&self, cx: &mut Cx<'_>, below: Tid) -> Res<Tid> {
        let inverse = cx.fresh_of(DType::Float32);
        cx.push(Instr::IdCopy { x: self.identity, out: inverse });
        let sliced @ [row, column] = [self.rows, self.columns].map(|_| cx.fresh_of(DType::Int8));
        let zero = self.zero;
        let body = cx.in_chain(|cx| {
            let here = cx.temp(|out| Instr::Equal { a: row, b: column, out });
            let corner = cx.temp(|out| Instr::Where { condition: here, x: below, y: zero, out });
            let left = product(cx, inverse, corner);
            cx.push(Instr::Addmm { mat1: left, mat2: inverse, out: inverse, bias: Some(inverse), alpha: -1.0, beta: 1.0 });
            Ok(())
        })?;
        cx.push(Instr::Scan {
            originals: vec![self.rows, self.columns],
            sliced: sliced.to_vec(),
            outputs: vec![],
            carry: vec![inverse],
            body_chain_idx: body as i32,
            scan_axis: 0,
        });
        Ok(inverse)
    }
}
