//! Normalisations, convolutions, pooling: operators that return more than is used, or that have several arities.

use etx_ir::graph::{Arg, TensorType, Type};
use etx_ir::op;
use etx_ir::op::OpId;
use etx_ir::sym::Dim;

use crate::calls::{args, as_ints, ints};
use crate::rewrite::{Patch, Site};

/// One call in place of another of which only the first result is used.
fn first_result(site: &mut Site<'_>, to: OpId, list: Vec<Arg>) -> Option<Patch> {
    let outputs = site.node().outputs.clone();
    let (first, rest) = outputs.split_first()?;
    if rest.is_empty() {
        return Some(Patch::Call(to, list));
    }
    if rest.iter().any(|&v| site.graph().value(v).use_count() > 0) {
        return None;
    }
    let ty = site.graph().ty(*first).clone();
    let mut values = vec![site.call_as(to, list, ty)];
    values.resize(outputs.len(), Arg::None);
    Some(Patch::Values(values))
}

/// Pooling whose indices nobody asks for.
pub(super) fn max_pool(site: &mut Site<'_>) -> Option<Patch> {
    let to = by_op!(site.op(), {
        "aten.max_pool1d_with_indices.default" => op!("aten.max_pool1d.default"),
        "aten.max_pool2d_with_indices.default" => op!("aten.max_pool2d.default"),
        _ => op!("aten.max_pool3d.default"),
    });
    let list = site.node().args.clone();
    first_result(site, to, list)
}

pub(super) fn layer_norm(site: &mut Site<'_>) -> Option<Patch> {
    let to = op!("aten.layer_norm.default");
    let list = args(to, site.node().args.iter().take(5).cloned(), &[]);
    first_result(site, to, list)
}

pub(super) fn group_norm(site: &mut Site<'_>) -> Option<Patch> {
    let to = op!("aten.group_norm.default");
    let (weight, bias, eps) = (site.arg("weight").clone(), site.arg("bias").clone(), site.arg("eps").clone());
    let groups = by_op!(site.op(), {
        "aten.group_norm.default" => site.arg("num_groups").clone(),
        _ => site.arg("group").clone(),
    });
    let list = args(to, [site.nth(0).clone(), groups, weight, bias, eps], &[]);
    first_result(site, to, list)
}

pub(super) fn rms_norm(site: &mut Site<'_>) -> Option<Patch> {
    let list = site.node().args.clone();
    first_result(site, op!("aten.rms_norm.default"), list)
}

/// Batch normalisation by stored statistics.
pub(super) fn batch_norm(site: &mut Site<'_>) -> Option<Patch> {
    let named = |site: &Site<'_>, n: &str| site.arg(n).clone();
    let to = op!("aten.batch_norm.default");
    let training = site.op() != op!("aten._native_batch_norm_legit_no_training.default") && site.arg("training").as_bool() != Some(false);
    if training || site.result()?.rank() < 2 {
        return None;
    }
    let list: Vec<Arg> = ["input", "weight", "bias", "running_mean", "running_var"].iter().map(|n| named(site, n)).collect();
    let (momentum, eps) = (named(site, "momentum"), named(site, "eps"));
    let list = args(to, list.into_iter().chain([Arg::Bool(false), momentum, eps, Arg::Bool(true)]), &[]);
    first_result(site, to, list)
}

/// The convolution of its number of dimensions.
pub(super) fn convolution(site: &mut Site<'_>) -> Option<Patch> {
    let spatial = site.operand(0)?.rank().checked_sub(2)?;
    let transposed = site.arg("transposed").as_bool()?;
    let to = match (spatial, transposed) {
        (1, false) => op!("aten.conv1d.default"),
        (2, false) => op!("aten.conv2d.default"),
        (3, false) => op!("aten.conv3d.default"),
        (1, true) => op!("aten.conv_transpose1d.default"),
        (2, true) => op!("aten.conv_transpose2d.input"),
        (3, true) => op!("aten.conv_transpose3d.input"),
        _ => return None,
    };
    // Both list the same things, in different orders and under the same names.
    let each = |arg: &Arg| match arg {
        Arg::List(items) if items.len() == 1 => items.first().map(|one| Arg::List(vec![one.clone(); spatial])),
        other => Some(other.clone()),
    };
    let list = to.schema().args.iter().map(|spec| each(site.arg(&spec.name))).collect::<Option<Vec<_>>>()?;
    Some(Patch::Call(to, list))
}

/// Padding by words: none, or as much as keeps the size. Uneven padding goes after, as torch has it.
pub(super) fn padded_convolution(site: &mut Site<'_>) -> Option<Patch> {
    let to = by_op!(site.op(), {
        "aten.conv1d.padding" => op!("aten.conv1d.default"),
        "aten.conv2d.padding" => op!("aten.conv2d.default"),
        _ => op!("aten.conv3d.default"),
    });
    let kernel: Vec<i64> = site.operand(1)?.shape.iter().skip(2).map(Dim::as_int).collect::<Option<_>>()?;
    let dilation = as_ints(site.arg("dilation"))?;
    let total: Vec<i64> = match site.arg("padding") {
        Arg::Str(word) if &**word == "valid" => vec![0; kernel.len()],
        Arg::Str(word) if &**word == "same" => {
            kernel.iter().enumerate().map(|(i, k)| Some((k - 1) * dilation.get(i).or(dilation.first())?)).collect::<Option<_>>()?
        }
        _ => return None,
    };
    let before: Vec<i64> = total.iter().map(|n| n / 2).collect();
    let mut list = site.node().args.clone();
    if total.iter().any(|n| n % 2 != 0) {
        let t = site.operand(0)?.clone();
        let mut shape = t.shape.clone();
        let spatial = shape.len().checked_sub(total.len())?;
        for (d, n) in shape.iter_mut().skip(spatial).zip(&total) {
            *d = d.plus(&Dim::Int(n % 2));
        }
        // Pairs from the last dimension to the first.
        let pad = ints(total.iter().rev().flat_map(|n| [0, n % 2]));
        let ty = Type::Tensor(TensorType::new(t.dtype, shape));
        *list.first_mut()? = site.call_as(op!("aten.constant_pad_nd.default"), vec![site.nth(0).clone(), pad, Arg::Int(0)], ty);
    }
    *list.get_mut(4)? = ints(before);
    Some(Patch::Call(to, list))
}

/// What matters for gradients only is left at its default.
pub(super) fn embedding(site: &mut Site<'_>) -> Option<Patch> {
    let op = site.op();
    Some(Patch::Call(op, args(op, [site.nth(0).clone(), site.nth(1).clone()], &[])))
}
