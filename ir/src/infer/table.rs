//! The one table: which rule an operator follows.
//!
//! A family is a rule and the operators that follow it, in the words of [`families`]. Other spellings of an operator, which
//! are listed there, follow its rule. What is not here may still follow from a relative; see the [module page](super).

use std::collections::HashMap;
use std::sync::LazyLock;

use super::cx::{Rule, tensor};
use super::pointwise::{boolean, itself};
use super::promote::{to_complex, to_float, to_real, to_sum};
use super::{create, custom, indexing, matrix, norm, pointwise, reduce, scalars, views, windows};
use crate::DType;
use crate::op::{OpId, families};
use crate::sym::Func;

/// The families.
pub(super) const FAMILIES: &[(Rule, &str)] = &[
    // Element by element, one operand.
    (
        pointwise::keep,
        "alias detach clone contiguous lift lift_fresh lift_fresh_copy zero resolve_conj resolve_neg conj _conj conj_physical \
         _conj_physical positive neg ceil floor trunc frac round round.decimals sgn sign nan_to_num bitwise_not relu relu6 \
         hardtanh leaky_relu elu celu selu gelu silu mish hardswish hardsigmoid softplus softshrink hardshrink threshold \
         log_sigmoid dropout alpha_dropout feature_dropout feature_alpha_dropout rrelu tril triu fill.Scalar fill.Tensor renorm \
         fake_quantize_per_tensor_affine fake_quantize_per_tensor_affine.tensor_qparams fake_quantize_per_channel_affine msort \
         bernoulli bernoulli.p bernoulli.Tensor poisson channel_shuffle native_channel_shuffle normal_functional random \
         random.from random.to uniform exponential prims.round.default prims.clone.default prims.device_put.default \
         prims.fill.default prims.view_of.default prims.exp.default prims.exp2.default prims.expm1.default prims.log.default \
         prims.log2.default prims.log10.default prims.log1p.default prims.sqrt.default prims.rsqrt.default \
         prims.reciprocal.default prims.sin.default prims.cos.default prims.tan.default prims.tanh.default prims.sinh.default \
         prims.cosh.default prims.erf.default prims.rev.default mlx.rope.default mlx.custom_sdpa.default mlx_test.vadd.default \
         llama.custom_sdpa.default llama.sdpa_with_kv_cache.default llama.fallback.default \
         llama.fast_hadamard_transform.default et_copy._h2d_copy.default et_copy._d2h_copy.default \
         dim_order_ops._clone_dim_order.default",
    ),
    (pointwise::modulus, "abs real imag"),
    (pointwise::angle, "angle"),
    (pointwise::square, "square"),
    (
        |c| pointwise::unary(c, to_float),
        "acos acosh asin asinh atan atanh cos cosh sin sinh tan tanh sinc exp exp2 expm1 log log2 log10 log1p sqrt rsqrt \
         reciprocal sigmoid erf erfc erfinv lgamma digamma i0 logit deg2rad rad2deg mvlgamma special_bessel_j0 \
         special_bessel_j1 special_entr special_erfcx special_i0e special_i1 special_i1e special_ndtr special_ndtri \
         special_log_ndtr special_modified_bessel_i0 special_modified_bessel_i1",
    ),
    (|c| pointwise::unary(c, boolean), "isnan isinf isfinite isposinf isneginf isreal logical_not signbit"),
    (|c| pointwise::lookup_shape(c, 1, to_float(c.tensor(1)?.dtype)), "polygamma"),
    (pointwise::with_mask, "native_dropout"),
    (pointwise::glu, "glu"),
    // Element by element, several operands.
    (
        |c| pointwise::binary(c, itself),
        "add.Tensor mul.Tensor maximum minimum fmax fmin remainder.Tensor fmod.Tensor floor_divide pow.Tensor_Tensor \
         pow.Tensor_Scalar pow.Scalar gcd lcm nextafter hypot logaddexp logaddexp2 clamp_min clamp_min.Tensor clamp_max \
         clamp_max.Tensor _add_relu.Tensor _add_relu.Scalar prims.add.default prims.sub.default prims.div.default \
         prims.pow.default",
    ),
    (pointwise::difference, "sub.Tensor rsub.Tensor"),
    (
        pointwise::bitwise,
        "bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor bitwise_left_shift.Tensor bitwise_right_shift.Tensor \
         __lshift__.Tensor __lshift__.Scalar __rshift__.Tensor __rshift__.Scalar",
    ),
    (
        |c| pointwise::binary(c, to_float),
        "div.Tensor atan2 copysign.Tensor ldexp.Tensor xlogy.Tensor special_xlog1py special_xlog1py.self_scalar \
         special_xlog1py.other_scalar special_zeta special_zeta.self_scalar special_zeta.other_scalar special_gammainc \
         special_gammaincc igamma igammac",
    ),
    (pointwise::divide, "div.Tensor_mode"),
    (pointwise::float_power, "float_power.Tensor_Tensor float_power.Tensor_Scalar float_power.Scalar"),
    (|c| pointwise::binary(c, boolean), "eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor logical_and logical_or logical_xor"),
    (|c| pointwise::ternary(c, itself), "clamp clamp.Tensor addcmul addcdiv"),
    (pointwise::choose, "where.self"),
    (|c| pointwise::into_first(c, 1), "masked_fill.Scalar masked_fill.Tensor masked_scatter _prelu_kernel"),
    (pointwise::lerp, "lerp.Tensor lerp.Scalar"),
    (|c| pointwise::uniform(c, itself), "heaviside"),
    (|c| pointwise::uniform(c, boolean), "isclose"),
    (|c| pointwise::uniform(c, to_complex), "complex polar"),
    (pointwise::written, "copy"),
    (pointwise::keep, "prelu put embedding_renorm"),
    (|c| pointwise::lookup_shape(c, 0, DType::Bool), "isin.Tensor_Tensor isin.Tensor_Scalar isin.Scalar_Tensor"),
    (|c| pointwise::lookup_shape(c, 0, if c.flag("out_int32") { DType::Int32 } else { DType::Int64 }), "bucketize.Tensor bucketize.Scalar"),
    (
        |c| pointwise::lookup_shape(c, 1, if c.flag("out_int32") { DType::Int32 } else { DType::Int64 }),
        "searchsorted.Tensor searchsorted.Scalar",
    ),
    (pointwise::loss, "mse_loss l1_loss smooth_l1_loss huber_loss soft_margin_loss kl_div binary_cross_entropy"),
    // Reductions, running reductions, sorting.
    (|c| reduce::reduce(c, to_sum), "sum sum.dim_IntList prod prod.dim_int nansum trace"),
    (|c| reduce::reduce(c, itself), "amax amin max min median nanmedian"),
    (|c| reduce::reduce(c, |_| DType::Int64), "argmax argmin count_nonzero count_nonzero.dim_IntList"),
    (|c| reduce::reduce(c, to_float), "logsumexp"),
    (|c| reduce::reduce(c, to_real), "var var.dim var.correction std std.dim std.correction"),
    (
        reduce::norm,
        "linalg_vector_norm norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dtype norm.ScalarOpt_dim_dtype frobenius_norm.dim dist",
    ),
    (reduce::mean, "mean mean.dim nanmean"),
    (reduce::truth, "any any.dim any.dims all all.dim all.dims _is_all_true _is_any_true"),
    (|c| reduce::pair(c, itself), "aminmax _aminmax"),
    (|c| reduce::pair(c, to_real), "var_mean var_mean.dim var_mean.correction std_mean std_mean.dim std_mean.correction"),
    (reduce::with_position, "max.dim min.dim median.dim nanmedian.dim mode kthvalue"),
    (reduce::running_sum, "cumsum cumprod"),
    (|c| reduce::running(c, itself), "logcumsumexp _logcumsumexp"),
    (reduce::sorted, "sort sort.stable cummax cummin"),
    (reduce::order, "argsort argsort.stable"),
    (reduce::topk, "topk"),
    (reduce::diff, "diff"),
    // Views, pieces, rearrangements.
    (views::view, "view reshape _unsafe_view _reshape_alias _reshape_copy prims.reshape.default"),
    (views::view_as, "view_as reshape_as"),
    (views::view_dtype, "view.dtype prims.view_of_dtype.default"),
    (views::flatten, "flatten.using_ints"),
    (views::ravel, "ravel"),
    (views::unflatten, "unflatten.int"),
    (views::permute, "permute"),
    (views::transpose, "transpose.int"),
    (views::t, "t"),
    (views::all_reversed, "numpy_T"),
    (views::matrix_transpose, "mT mH adjoint"),
    (views::movedim, "movedim.int movedim.intlist"),
    (views::unsqueeze, "unsqueeze"),
    (views::squeeze, "squeeze squeeze.dim squeeze.dims"),
    (views::expand, "expand broadcast_to"),
    (views::expand_as, "expand_as"),
    (views::broadcast_tensors, "broadcast_tensors"),
    (views::slice, "slice.Tensor"),
    (views::narrow, "narrow narrow.Tensor"),
    (views::select, "select.int"),
    (views::split, "split.Tensor"),
    (views::split_sizes, "split_with_sizes"),
    (views::chunk, "chunk"),
    (views::tensor_split, "tensor_split.sections"),
    (views::tensor_split_at, "tensor_split.indices"),
    (views::unbind, "unbind.int"),
    (views::as_strided, "as_strided"),
    (views::unfold, "unfold"),
    (views::diagonal, "diagonal linalg_diagonal"),
    (views::diag, "diag"),
    (views::diag_embed, "diag_embed"),
    (views::repeat, "repeat"),
    (views::tile, "tile"),
    (views::repeat_interleave, "repeat_interleave.self_int repeat_interleave.self_Tensor"),
    (views::repeat_places, "repeat_interleave.Tensor"),
    (views::moved, "flip"),
    (pointwise::keep, "fliplr flipud matrix_exp matrix_power linalg_matrix_exp linalg_inv inverse linalg_cholesky"),
    (views::roll, "roll"),
    (views::rot90, "rot90"),
    (views::as_real, "view_as_real"),
    (views::as_complex, "view_as_complex"),
    (views::cat, "cat prims.cat.default"),
    (views::stack, "stack"),
    (|c| views::stacked(c, views::at_least_1d, |rank| i64::from(rank > 1)), "hstack"),
    (|c| views::stacked(c, views::at_least_2d, |_| 0), "vstack"),
    (|c| views::stacked(c, views::at_least_3d, |_| 2), "dstack"),
    (|c| views::stacked(c, views::columns, |_| 1), "column_stack"),
    (|c| views::raise(c, views::at_least_1d), "atleast_1d atleast_1d.Sequence"),
    (|c| views::raise(c, views::at_least_2d), "atleast_2d atleast_2d.Sequence"),
    (|c| views::raise(c, views::at_least_3d), "atleast_3d atleast_3d.Sequence"),
    (views::meshgrid, "meshgrid meshgrid.indexing"),
    // Products.
    (matrix::matmul, "matmul"),
    (|c| matrix::exact(c, [2, 2]), "mm mm.dtype"),
    (|c| matrix::exact(c, [3, 3]), "bmm bmm.dtype"),
    (|c| matrix::exact(c, [2, 1]), "mv"),
    (|c| matrix::exact(c, [1, 1]), "dot vdot"),
    (matrix::int_mm, "_int_mm torchao.int_matmul.default"),
    (|c| matrix::added(c, [2, 2]), "addmm addmm.dtype _addmm_activation"),
    (|c| matrix::added(c, [3, 3]), "baddbmm baddbmm.dtype"),
    (|c| matrix::added(c, [2, 1]), "addmv"),
    (matrix::addbmm, "addbmm"),
    (matrix::addr, "addr"),
    (matrix::outer, "outer"),
    (|c| pointwise::binary(c, itself), "cross linalg_cross"),
    (matrix::inner, "inner"),
    (matrix::linear, "linear"),
    (matrix::bilinear, "bilinear"),
    (matrix::trilinear, "_trilinear"),
    (matrix::tensordot, "tensordot"),
    (matrix::kron, "kron"),
    (matrix::einsum, "einsum"),
    (matrix::cdist, "cdist _cdist_forward"),
    (matrix::attention, "scaled_dot_product_attention"),
    (matrix::attention_with_lse, "_scaled_dot_product_flash_attention_for_cpu"),
    // Windows.
    (
        windows::convolution,
        "convolution _convolution _convolution.deprecated _convolution_mode conv1d conv1d.padding conv2d conv2d.padding conv3d conv3d.padding \
         conv_transpose1d conv_transpose2d.input conv_transpose3d.input",
    ),
    (|c| windows::pool(c, 1), "avg_pool1d max_pool1d"),
    (|c| windows::pool(c, 2), "avg_pool2d max_pool2d"),
    (|c| windows::pool(c, 3), "avg_pool3d max_pool3d"),
    (|c| windows::pool_with_indices(c, 1), "max_pool1d_with_indices"),
    (|c| windows::pool_with_indices(c, 2), "max_pool2d_with_indices"),
    (|c| windows::pool_with_indices(c, 3), "max_pool3d_with_indices"),
    (|c| windows::adaptive_pool(c, 1), "adaptive_avg_pool1d"),
    (|c| windows::adaptive_pool(c, 2), "adaptive_avg_pool2d _adaptive_avg_pool2d"),
    (|c| windows::adaptive_pool(c, 3), "adaptive_avg_pool3d _adaptive_avg_pool3d"),
    (|c| windows::adaptive_pool_with_indices(c, 1), "adaptive_max_pool1d"),
    (|c| windows::adaptive_pool_with_indices(c, 2), "adaptive_max_pool2d"),
    (|c| windows::adaptive_pool_with_indices(c, 3), "adaptive_max_pool3d"),
    (
        windows::pad,
        "pad _pad_circular _pad_enum constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d",
    ),
    (
        |c| windows::upsample(c, 1),
        "upsample_nearest1d upsample_nearest1d.vec _upsample_nearest_exact1d _upsample_nearest_exact1d.vec upsample_linear1d \
         upsample_linear1d.vec",
    ),
    (
        |c| windows::upsample(c, 2),
        "upsample_nearest2d upsample_nearest2d.vec _upsample_nearest_exact2d _upsample_nearest_exact2d.vec upsample_bilinear2d \
         upsample_bilinear2d.vec upsample_bicubic2d upsample_bicubic2d.vec _upsample_bilinear2d_aa _upsample_bilinear2d_aa.vec \
         _upsample_bicubic2d_aa _upsample_bicubic2d_aa.vec",
    ),
    (
        |c| windows::upsample(c, 3),
        "upsample_nearest3d upsample_nearest3d.vec _upsample_nearest_exact3d _upsample_nearest_exact3d.vec upsample_trilinear3d \
         upsample_trilinear3d.vec",
    ),
    (|c| windows::shuffle(c, false), "pixel_shuffle"),
    (|c| windows::shuffle(c, true), "pixel_unshuffle"),
    (windows::im2col, "im2col"),
    (windows::col2im, "col2im"),
    (windows::grid_sample, "grid_sampler grid_sampler_2d grid_sampler_3d"),
    (|c| windows::regions(c, false, false), "torchvision.roi_align.default"),
    (|c| windows::regions(c, false, true), "torchvision.roi_pool.default"),
    (|c| windows::regions(c, true, true), "torchvision.ps_roi_align.default torchvision.ps_roi_pool.default"),
    (windows::deformed, "torchvision.deform_conv2d.default"),
    (windows::kept_boxes, "torchvision.nms.default"),
    (windows::stft, "stft stft.center"),
    (windows::fft, "_fft_r2c _fft_c2c _fft_c2r"),
    // Normalisation, softmax, recurrent layers.
    (norm::softmax, "softmax.int log_softmax.int _softmax _log_softmax _safe_softmax"),
    (norm::layer_norm, "layer_norm rms_norm"),
    (norm::native_layer_norm, "native_layer_norm"),
    (norm::fused_rms_norm, "_fused_rms_norm"),
    (norm::group_norm, "group_norm"),
    (norm::native_group_norm, "native_group_norm"),
    (norm::batch_norm, "batch_norm instance_norm"),
    (
        norm::batch_norm_with_statistics,
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit.no_stats _native_batch_norm_legit_no_training \
         _native_batch_norm_legit_functional",
    ),
    (norm::similarity, "cosine_similarity"),
    (norm::recurrent, "lstm.input gru.input rnn_tanh.input rnn_relu.input"),
    (norm::recurrent_cell, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
    // Positions.
    (indexing::embedding, "embedding"),
    (indexing::embedding_backward, "embedding_dense_backward"),
    (indexing::gather, "gather"),
    (indexing::take_along, "take_along_dim"),
    (indexing::take, "take"),
    (indexing::index_select, "index_select"),
    (indexing::index, "index.Tensor"),
    (indexing::index_put, "index_put _index_put_impl"),
    (indexing::index_write, "index_copy index_add index_reduce"),
    (pointwise::keep, "index_fill.int_Scalar index_fill.int_Tensor as_strided_scatter diagonal_scatter"),
    (indexing::scatter, "scatter.src scatter.value scatter.reduce scatter.value_reduce scatter_add scatter_reduce.two"),
    (indexing::slice_scatter, "slice_scatter"),
    (indexing::select_scatter, "select_scatter"),
    (indexing::nonzero, "nonzero argwhere"),
    (indexing::nonzero_static, "nonzero_static"),
    (indexing::nonzero_each, "nonzero_numpy where"),
    (indexing::masked_select, "masked_select"),
    (indexing::one_hot, "one_hot"),
    // New tensors, conversions.
    (
        create::sized,
        "zeros ones empty.memory_format empty_strided empty_permuted rand rand.generator randn randn.generator randint randint.low \
         randint.generator randint.low_generator normal.float_float dim_order_ops._empty_dim_order.default",
    ),
    (create::full, "full"),
    (
        create::like,
        "zeros_like ones_like empty_like full_like rand_like rand_like.generator randn_like randn_like.generator randint_like \
         randint_like.low_dtype prims.full_like.default",
    ),
    (create::new_sized, "new_zeros new_ones new_empty new_full new_empty_strided"),
    (create::scalar_tensor, "scalar_tensor prims.scalar_tensor.default"),
    (create::eye, "eye eye.m"),
    (
        create::steps,
        "linspace linspace.Tensor_Tensor linspace.Tensor_Scalar linspace.Scalar_Tensor logspace logspace.Tensor_Tensor \
         logspace.Tensor_Scalar logspace.Scalar_Tensor",
    ),
    (
        create::window,
        "hann_window hann_window.periodic hamming_window hamming_window.periodic blackman_window blackman_window.periodic bartlett_window bartlett_window.periodic",
    ),
    (|c| create::triangle(c, false), "tril_indices"),
    (|c| create::triangle(c, true), "triu_indices"),
    (create::randperm, "randperm randperm.generator"),
    (create::arange, "arange arange.start arange.start_step"),
    (
        create::cast,
        "_to_copy to.dtype to.device to.dtype_layout dim_order_ops._to_dim_order_copy.default prims.convert_element_type.default \
         quantized_decomposed.convert_element_type.no_fuse",
    ),
    (create::cast_like, "to.other type_as"),
    (|c| create::cast_to(c, DType::UInt8), "_cast_Byte"),
    (|c| create::cast_to(c, DType::Int8), "_cast_Char"),
    (|c| create::cast_to(c, DType::Int16), "_cast_Short"),
    (|c| create::cast_to(c, DType::Int32), "_cast_Int"),
    (|c| create::cast_to(c, DType::Int64), "_cast_Long"),
    (|c| create::cast_to(c, DType::Float16), "_cast_Half"),
    (|c| create::cast_to(c, DType::Float32), "_cast_Float"),
    (|c| create::cast_to(c, DType::Float64), "_cast_Double"),
    (create::item, "item"),
    // Sizes and Python's numbers.
    (scalars::size, "sym_size.int"),
    (scalars::numel, "sym_numel"),
    (scalars::rank, "dim"),
    (scalars::stride, "sym_stride.int"),
    (|c| scalars::arithmetic(c, Func::Sum), "=_operator.add"),
    (|c| scalars::arithmetic(c, Func::Product), "=_operator.mul"),
    (|c| scalars::arithmetic(c, Func::FloorDiv), "=_operator.floordiv"),
    (|c| scalars::arithmetic(c, Func::Mod), "=_operator.mod"),
    (|c| scalars::arithmetic(c, Func::Max), "=torch.sym_max"),
    (|c| scalars::arithmetic(c, Func::Min), "=torch.sym_min"),
    (scalars::subtract, "=_operator.sub"),
    (scalars::negate, "=_operator.neg"),
    (scalars::unchanged, "=_operator.pos"),
    (scalars::true_divide, "=_operator.truediv"),
    (scalars::power, "=_operator.pow"),
    (|c| scalars::shift(c, Func::Product), "=_operator.lshift"),
    (|c| scalars::shift(c, Func::FloorDiv), "=_operator.rshift"),
    (|c| scalars::logic(c, Func::And, Func::BitAnd), "=_operator.and_"),
    (|c| scalars::logic(c, Func::Or, Func::BitOr), "=_operator.or_"),
    (|c| scalars::compare(c, Func::Eq, false), "=_operator.eq"),
    (|c| scalars::compare(c, Func::Ne, false), "=_operator.ne"),
    (|c| scalars::compare(c, Func::Lt, false), "=_operator.lt"),
    (|c| scalars::compare(c, Func::Le, false), "=_operator.le"),
    (|c| scalars::compare(c, Func::Lt, true), "=_operator.gt"),
    (|c| scalars::compare(c, Func::Le, true), "=_operator.ge"),
    (scalars::not, "=torch.sym_not"),
    (scalars::choose, "=torch.sym_ite"),
    (scalars::to_float, "=torch.sym_float"),
    (|c| scalars::to_int(c, Func::TruncToInt), "=torch.sym_int =math.trunc"),
    (|c| scalars::to_int(c, Func::CeilToInt), "executorch_prim.ceil.Scalar"),
    (|c| scalars::to_int(c, Func::RoundToInt), "executorch_prim.round.Scalar"),
    (scalars::sqrt, "=torch._sym_sqrt"),
    // Quantisation.
    (
        |c| custom::retyped(c, "output_dtype", DType::Float32),
        "torchao.dequantize_affine.default torchao.dequantize_affine_float8_non_decomposed.default torchao.quantize_affine.default \
         quantized_decomposed.dequantize_per_channel_group.default \
         quantized_decomposed.dequantize_per_token.default",
    ),
    (|c| custom::retyped(c, "float8_dtype", DType::Float8E4M3), "torchao.quantize_affine_float8_non_decomposed.default"),
    (|c| custom::unpacked(c, 2, "output_dtype", DType::BFloat16), "torchao.dequantize_int4_tensor.default"),
    (|c| custom::unpacked(c, 8, "output_dtype", DType::Float32), "torchao.dequantize_nvfp4.default"),
    // Elements of four bits go by the bytes that two of them are stored in.
    (
        |c| custom::unpacked(c, if c.dtype("elem_dtype") == Some(DType::UInt8) { 2 } else { 1 }, "output_dtype", DType::Float32),
        "torchao.dequantize_mx.default",
    ),
    (custom::dequantize_gguf, "torchao.dequantize_gguf.default"),
    (custom::choose_affine, "torchao.choose_qparams_affine.default"),
    (
        |c| custom::retyped(c, "dtype", DType::Int8),
        "quantized_decomposed.quantize_per_tensor.default quantized_decomposed.quantize_per_tensor.tensor \
         quantized_decomposed.quantize_per_tensor.tensor2 quantized_decomposed.quantize_per_channel.default \
         quantized_decomposed.quantize_per_channel_group.default quantized_decomposed.quantize_per_token.default",
    ),
    (
        |c| custom::retyped(c, "out_dtype", DType::Float32),
        "quantized_decomposed.dequantize_per_tensor.default quantized_decomposed.dequantize_per_tensor.tensor \
         quantized_decomposed.dequantize_per_tensor.tensor2 quantized_decomposed.dequantize_per_channel.default",
    ),
    (pointwise::keep, "quantized_decomposed.fake_quant_per_channel.default"),
    (custom::choose_per_tensor, "quantized_decomposed.choose_qparams.tensor quantized_decomposed.choose_qparams_symmetric.tensor"),
    (
        |c| custom::choose_per_token(c, DType::Float64, DType::Int64),
        "quantized_decomposed.choose_qparams_per_token_asymmetric.default \
         quantized_decomposed._choose_qparams_per_token_asymmetric_impl.default",
    ),
    (|c| custom::choose_per_token(c, DType::Float32, DType::Float32), "quantized_decomposed.choose_qparams_per_token.default"),
    (|c| custom::quantized_embedding(c, 1), "quantized_decomposed.embedding_byte.default quantized_decomposed.embedding_byte.dtype"),
    (|c| custom::quantized_embedding(c, 2), "quantized_decomposed.embedding_4bit.default quantized_decomposed.embedding_4bit.dtype"),
    (|c| custom::quantized_embedding(c, 4), "quantized_decomposed.embedding_2bit.default quantized_decomposed.embedding_2bit.dtype"),
    (|c| custom::mixed_product(c, false), "quantized_decomposed.mixed_mm.default"),
    (|c| custom::mixed_product(c, true), "quantized_decomposed.mixed_linear.default"),
    // MLX, caches.
    (custom::cache_update, "mlx.kv_cache_update.default"),
    (custom::update_and_attend, "kvcache.update_and_attend.default"),
    (|c| custom::like_argument(c, "v"), "mlx.gated_delta_rule.default"),
    (custom::with_state, "llama.gated_delta_rule.default llama.channelwise_gated_delta_rule.default"),
    (custom::gather_mm, "mlx.gather_mm.default"),
    (custom::gather_qmm, "mlx.gather_qmm.default"),
    (custom::grouped_mm, "_grouped_mm transformers.grouped_mm_fallback.default"),
    (custom::moe_gather, "mlx.moe_gather_inputs.default"),
    (custom::moe_scatter, "mlx.moe_scatter_outputs.default"),
    (custom::sample, "mlx.sample.default"),
    (custom::row_norm, "mlx.tq_norm.default"),
    (custom::compressed, "mlx.tq4_compress.default"),
    (custom::decompressed, "mlx.tq_dequant.default"),
    // The element that says a cache was written.
    (|c| Ok(vec![tensor(c.tensor(0)?.dtype, vec![1.into()])]), "llama.update_cache.default llama.update_cache_with_indices.default"),
    (|c| Ok(vec![tensor(DType::Float32, c.tensor(0)?.shape.clone())]), "llama.custom_quantized_sdpa.default"),
    (|c| custom::like_argument(c, "cache"), "executorch.update_cross_attn_cache.default"),
    // Higher-order operators.
    (
        custom::wrapped,
        "=higher_order.wrap_with_autocast =higher_order.wrap_with_set_grad_enabled =higher_order.strict_mode =higher_order.hints_wrapper \
         =higher_order.invoke_subgraph =higher_order.while_loop",
    ),
    (custom::auto_functionalized, "=higher_order.auto_functionalized_v2"),
    (custom::with_effects, "=higher_order.with_effects"),
    (custom::cond, "=higher_order.cond"),
];

/// The rule of an operator that the table names.
pub(super) fn rule(op: OpId) -> Option<Rule> {
    static RULES: LazyLock<HashMap<OpId, Rule>> = LazyLock::new(|| families::index(FAMILIES));
    RULES.get(&op).copied()
}
