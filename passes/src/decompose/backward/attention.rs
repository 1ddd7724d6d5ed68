//! Derivatives of attention.

use etx_ir::graph::Arg;
use etx_ir::op;
use etx_ir::sym::Dim;

use super::super::attention::{scale, scores};
use super::super::expr::Ex;
use super::super::pen::Pen;
use super::super::several::several;
use super::Result;
use crate::rewrite::Site;

/// With `w = exp(scores - sums)`: to the values `wᵀ·g`; to queries and keys by `w·(g·vᵀ - Σ g·y)`, times the scale. Source:
/// torch.nn.functional.scaled_dot_product_attention.
pub(in crate::decompose) fn attention(site: &mut Site<'_>) -> Result {
    if site.arg("dropout_p").as_float() != Some(0.0) {
        return Ok(None);
    }
    let [g, q, mut k, mut v, y, sums] = ["grad_out", "query", "key", "value", "out", "logsumexp"].map(|n| site.arg(n).clone());
    let mut p = Pen(site);
    let (Some(scale), Some(last)) = (scale(&p, &q)?, p.ty(&q)?.rank().checked_sub(1)) else { return Ok(None) };
    // Heads of keys that serve several of queries are repeated; what comes to them from each is added up.
    let shared = p.ty(&k)?.shape;
    let heads = |shape: &[Dim]| last.checked_sub(2).and_then(|d| shape.get(d)).and_then(Dim::as_int);
    let times = match (heads(&p.ty(&q)?.shape), heads(&shared)) {
        (Some(many), Some(few)) if few > 0 && many > few && many % few == 0 => many / few,
        _ => 1,
    };
    if times > 1 {
        for x in [&mut k, &mut v] {
            let repeat = op!("aten.repeat_interleave.self_int");
            *x = p.call(repeat, vec![x.clone(), Arg::Int(times), Arg::Int(last as i64 - 2)])?;
        }
    }
    let given = p.ty(&sums)?.rank();
    // torch's own decomposition of the forward operator, which export applies, gives the weights themselves in this place.
    let weights = if given == last + 1 {
        p.wide(&sums)?
    } else if given == last {
        let Some(scores) = scores(&mut p, &q, &k)? else { return Ok(None) };
        p.write(&(Ex::from(scores) - Ex::from(sums).unsqueeze(last as i64)).exp())?
    } else {
        return Ok(None);
    };
    let [g, q, k, v, y] = [p.wide(&g)?, p.wide(&q)?, p.wide(&k)?, p.wide(&v)?, p.wide(&y)?];
    let turned = p.transpose(&v)?;
    let above = p.matmul(&g, &turned)?;
    let total = (Ex::from(&g) * Ex::from(y)).sum(&[last], true);
    let inner = p.write(&((Ex::from(above) - total) * Ex::from(&weights) * scale))?;
    let to_query = p.matmul(&inner, &k)?;
    let turned = p.transpose(&inner)?;
    let to_key = p.matmul(&turned, &q)?;
    let turned = p.transpose(&weights)?;
    let to_value = p.matmul(&turned, &g)?;
    let mut results = vec![to_query];
    for (x, like) in [(to_key, 2), (to_value, 3)] {
        let Some(to) = p.0.operand(like).map(|t| t.shape.clone()) else { return Ok(None) };
        if times == 1 {
            results.push(x);
            continue;
        }
        let mut split = to;
        split.insert(last - 1, Dim::Int(times));
        let Some(x) = p.view(&x, &split)? else { return Ok(None) };
        results.push(p.reduce(op!("aten.sum.dim_IntList"), &x, &[last - 1], false)?);
    }
    several(&mut p, results)
}
