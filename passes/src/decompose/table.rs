//! The table of formulas. Each formula says where it is from.

use etx_ir::op;
use etx_ir::op::OpId;

use super::{Formula, activation, attention, index, linear, norm, quantise, recurrent, reduce, shape, special, spectral, turbo};

/// Operators and their formulas. Spellings are canonical: [`Canonicalise`](crate::Canonicalise) has run.
pub(super) const TABLE: &[(&[OpId], Formula)] = &[
    // Products.
    (&[op!("aten.linear.default")], linear::linear),
    (&[op!("aten.addmm.default")], linear::addmm),
    (&[op!("aten.addmv.default")], linear::addmv),
    (&[op!("aten.baddbmm.default")], linear::baddbmm),
    (&[op!("aten.matmul.default")], linear::matmul),
    (&[op!("aten.mm.default")], linear::mm),
    (&[op!("aten.mv.default")], linear::mv),
    (&[op!("aten.dot.default"), op!("aten.vdot.default"), op!("aten.inner.default")], linear::dot),
    (&[op!("aten.outer.default")], linear::outer),
    // Attention.
    (&[op!("aten.scaled_dot_product_attention.default")], attention::attention),
    (&[op!("aten._softmax.default")], attention::softmax),
    (&[op!("aten._log_softmax.default")], attention::log_softmax),
    // Normalisation.
    (&[op!("aten.layer_norm.default")], norm::layer_norm),
    (&[op!("aten.rms_norm.default")], norm::rms_norm),
    (&[op!("aten.group_norm.default")], norm::group_norm),
    (&[op!("aten.batch_norm.default")], norm::batch_norm),
    (&[op!("aten.instance_norm.default")], norm::instance_norm),
    // Activation.
    (&[op!("aten.silu.default")], activation::silu),
    (&[op!("aten.gelu.default")], activation::gelu),
    (&[op!("aten.relu.default")], activation::relu),
    (&[op!("aten.leaky_relu.default")], activation::leaky_relu),
    (&[op!("aten.hardsigmoid.default")], activation::hardsigmoid),
    (&[op!("aten.hardswish.default")], activation::hardswish),
    (&[op!("aten.softplus.default")], activation::softplus),
    (&[op!("aten.mish.default")], activation::mish),
    (&[op!("aten.elu.default")], activation::elu),
    (&[op!("aten.selu.default")], activation::selu),
    (&[op!("aten.celu.default")], activation::celu),
    (&[op!("aten.glu.default")], activation::glu),
    (&[op!("aten.log_sigmoid.default")], activation::log_sigmoid),
    (&[op!("aten.threshold.default")], activation::threshold),
    (&[op!("aten.prelu.default"), op!("aten._prelu_kernel.default")], activation::prelu),
    (&[op!("aten.addcmul.default")], activation::addcmul),
    (&[op!("aten.addcdiv.default")], activation::addcdiv),
    (&[op!("aten.lerp.Scalar"), op!("aten.lerp.Tensor")], activation::lerp),
    // Reductions.
    (&[op!("aten.var.correction")], reduce::var),
    (&[op!("aten.std.correction")], reduce::std),
    (&[op!("aten.logsumexp.default")], reduce::logsumexp),
    (&[op!("aten.mean.dim")], reduce::mean),
    (&[op!("aten.all.dims")], reduce::all),
    // Writing by index.
    (&[op!("aten.index_put.default")], index::index_put),
    (&[op!("aten.index_fill.int_Scalar"), op!("aten.index_fill.int_Tensor")], index::index_fill),
    (&[op!("aten.index_add.default")], index::index_add),
    (&[op!("aten.scatter.src"), op!("aten.scatter.value")], index::scatter),
    // Arrangement.
    (&[op!("aten.pixel_shuffle.default")], index::pixel_shuffle),
    (&[op!("aten.pixel_unshuffle.default")], index::pixel_unshuffle),
    (&[op!("aten.stack.default")], shape::stack),
    (&[op!("aten.split_with_sizes.default")], shape::split_with_sizes),
    (&[op!("aten.repeat_interleave.self_int")], shape::repeat_interleave),
    (&[op!("aten.roll.default")], shape::roll),
    (&[op!("aten.index.Tensor")], index::index),
    (&[op!("aten.conv3d.default"), op!("aten.conv3d.padding"), op!("aten.conv_transpose3d.input")], shape::groups),
    (&[op!("aten.select.int")], shape::select),
    // Recurrence.
    (&[op!("aten.lstm.input")], recurrent::lstm),
    (&[op!("aten.gru.input")], recurrent::gru),
    (&[op!("aten.rnn_tanh.input")], recurrent::rnn_tanh),
    (&[op!("aten.rnn_relu.input")], recurrent::rnn_relu),
    (&[op!("aten.lstm_cell.default")], recurrent::lstm_cell),
    (&[op!("aten.gru_cell.default")], recurrent::gru_cell),
    (&[op!("aten.rnn_tanh_cell.default")], recurrent::rnn_tanh_cell),
    (&[op!("aten.rnn_relu_cell.default")], recurrent::rnn_relu_cell),
    // Complex numbers and transforms.
    (&[op!("aten.view_as_real.default")], spectral::view_as_real),
    (&[op!("aten.abs.default")], spectral::abs),
    (&[op!("aten.angle.default")], spectral::angle),
    (&[op!("aten.real.default")], spectral::real),
    (&[op!("aten.imag.default")], spectral::imag),
    (&[op!("aten.stft.center")], spectral::stft_center),
    (&[op!("aten.reflection_pad1d.default")], spectral::reflection_pad),
    // Quantisation of what is computed.
    (
        &[
            op!("torchao.quantize_affine.default"),
            op!("quantized_decomposed.quantize_per_tensor.default"),
            op!("quantized_decomposed.quantize_per_tensor.tensor"),
            op!("quantized_decomposed.quantize_per_channel.default"),
            op!("quantized_decomposed.quantize_per_channel_group.default"),
            op!("quantized_decomposed.quantize_per_token.default"),
        ],
        quantise::quantize,
    ),
    (
        &[
            op!("torchao.dequantize_affine.default"),
            op!("quantized_decomposed.dequantize_per_tensor.default"),
            op!("quantized_decomposed.dequantize_per_tensor.tensor"),
            op!("quantized_decomposed.dequantize_per_channel.default"),
            op!("quantized_decomposed.dequantize_per_channel_group.default"),
            op!("quantized_decomposed.dequantize_per_token.default"),
        ],
        quantise::dequantize,
    ),
    (&[op!("torchao.choose_qparams_affine.default")], quantise::choose_affine),
    (
        &[op!("quantized_decomposed.choose_qparams.tensor"), op!("quantized_decomposed.choose_qparams_symmetric.tensor")],
        quantise::choose_per_tensor,
    ),
    (
        &[
            op!("quantized_decomposed.choose_qparams_per_token_asymmetric.default"),
            op!("quantized_decomposed._choose_qparams_per_token_asymmetric_impl.default"),
        ],
        quantise::choose_per_token,
    ),
    (&[op!("aten._int_mm.default"), op!("torchao.int_matmul.default")], quantise::int_mm),
    (&[op!("mlx.tq_norm.default")], turbo::norm),
    (&[op!("mlx.tq4_compress.default")], turbo::compress),
    (&[op!("mlx.tq_dequant.default")], turbo::decompress),
    // Branches.
    (&[op!("higher_order.cond")], special::cond),
];
