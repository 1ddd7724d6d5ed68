"""Quantised weights, activations and caches, as torchao, PyTorch's own quantiser and ExecuTorch store them.

What the reference makes of most of these is nothing: it lacks the width, the group, or the operator. Eager PyTorch's answer counts.
"""
import executorch.exir.passes._quant_patterns_and_replacements  # noqa: F401  registers the quantised embeddings,
import executorch.extension.llm.export.int4  # noqa: F401  packed four-bit weights,
import executorch.extension.llm.export.mx  # noqa: F401  blocks of eight-bit floats,
import executorch.extension.llm.export.nvfp4  # noqa: F401  and of four-bit ones
import torch
from executorch.extension.llm.export.gguf import ExportableGGUFTensor
from torch import nn
from torch.export import Dim
from torch.nn import functional as F
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8DynamicActivationIntxWeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    MappingType,
    quantize_,
)
from torchao.quantization.granularity import PerAxis, PerGroup, PerTensor

from case import call, case

NONE = "the reference has no lowering for it"


def linear(config, inner=64, out=8, bias=True, dtype=torch.float32):
    layer = nn.Linear(inner, out, bias=bias, dtype=dtype)
    quantize_(layer, config)
    return layer


def blocks(kind, rows, columns, dtype):
    """Random blocks whose scales are ordinary numbers; some sub-blocks have no scale, only a minimum."""
    size = {"q4_k": 144, "q5_k": 176, "q6_k": 210}[kind]
    raw = torch.randint(0, 256, (rows, columns // 256, size), dtype=torch.uint8)
    factor = (torch.rand(rows, columns // 256) * 0.002 + 0.001).half().view(torch.uint8).reshape(rows, columns // 256, 2)
    if kind == "q6_k":
        raw[..., 208:210] = factor
    else:
        raw[..., 0:2] = factor
        raw[..., 2:4] = factor.flip(0)
        raw[:, 0, 4] = 0
    return nn.Parameter(ExportableGGUFTensor.from_raw(raw.reshape(rows, -1), kind, dtype), requires_grad=False)


@case(steps=lambda: [call(torch.randn(n, 512)) for n in (2, 1, 3)], dynamic=lambda: {"x": {0: Dim("n", min=1, max=8)}}, functional=True,
      reference_wrong="blocks of six bits become Metal source; sub-blocks without scale lose their minimum")
class gguf_linear(nn.Module):
    """Linear layers over GGML's K-quants, in float32: exactly the values of the blocks, also where a sub-block has no scale."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(512, 8) for _ in range(3))
        for layer, kind in zip(self.layers, ("q4_k", "q5_k", "q6_k")):
            layer.weight = blocks(kind, 8, 512, torch.float32)

    def forward(self, x):
        return [layer(x) for layer in self.layers]


@case(steps=lambda: [call(torch.tensor([[3, 1], [7, 0]]))], rtol=2e-2, atol=2e-2, functional=True, reference_wrong="blocks of six bits become Metal source")
class gguf_tied(nn.Module):
    """Embedding and head over the same blocks: one constant."""

    def __init__(self):
        super().__init__()
        self.embed, self.other = nn.Embedding(8, 256), nn.Embedding(8, 256)
        self.head = nn.Linear(256, 8, bias=False)
        self.embed.weight = blocks("q6_k", 8, 256, torch.float32)
        self.head.weight = self.embed.weight
        self.other.weight = blocks("q4_k", 8, 256, torch.bfloat16)

    def forward(self, ids):
        return self.head(self.embed(ids)), self.other(ids)


@case(steps=lambda: [call(torch.randn(3, 64)), call(torch.randn(1, 64))], dynamic=lambda: {"x": {0: Dim("n", min=1, max=8)}}, functional=True, rtol=1e-4, atol=1e-4, reference_wrong=NONE)
class dynamic_activation(nn.Module):
    """Activations quantised to eight bits as they come: 8da4w, and 8da8w with integer products."""

    def __init__(self):
        super().__init__()
        self.four = linear(Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(32)), out=64)
        self.eight = linear(Int8DynamicActivationInt8WeightConfig())

    def forward(self, x):
        y = self.four(x)
        return y, self.eight(x)


@case(steps=lambda: [call(torch.randn(3, 64))], functional=True, rtol=1e-4, atol=1e-4, reference_wrong=NONE)
class odd_widths(nn.Module):
    """One, three and seven bits, symmetric and not."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            linear(IntxWeightOnlyConfig(weight_dtype=dtype, granularity=PerGroup(32), mapping_type=mapping))
            for dtype in (torch.int1, torch.int3, torch.int7) for mapping in (MappingType.SYMMETRIC, MappingType.ASYMMETRIC)
        )

    def forward(self, x):
        return [layer(x) for layer in self.layers]


@case(steps=lambda: [call(torch.randn(3, 256), torch.tensor([1, 3]))], functional=True, rtol=1e-4, atol=1e-4, reference_wrong=NONE)
class odd_groups(nn.Module):
    """Groups that MLX has no kernel for: 16, 48, 256, whole rows of 8 and 40; an embedding in groups of 16."""

    def __init__(self):
        super().__init__()
        of = lambda inner, granularity, bits=torch.int4: linear(IntxWeightOnlyConfig(weight_dtype=bits, granularity=granularity), inner=inner, out=4)
        self.grouped = nn.ModuleList(of(n, PerGroup(group)) for n, group in ((64, 16), (96, 48), (256, 256)))
        self.rows = nn.ModuleList(of(n, PerAxis(0), torch.int8) for n in (8, 40))
        self.table = nn.Embedding(4, 48)
        quantize_(self.table, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(16)), lambda m, _: isinstance(m, nn.Embedding))

    def forward(self, x, ids):
        return [layer(x[:, :layer.in_features]) for layers in (self.grouped, self.rows) for layer in layers] + [self.table(ids)]


@case(steps=lambda: [call(torch.randn(2, 3, 64))], functional=True, rtol=1e-4, atol=1e-4, reference_wrong=NONE)
class int8_rows(nn.Module):
    """torchao's plain int8 weights: a scale a row, one for all, one a group; rows that no group of MLX divides."""

    def __init__(self):
        super().__init__()
        self.layer = linear(Int8WeightOnlyConfig())
        self.whole = linear(Int8WeightOnlyConfig(granularity=PerTensor()), bias=False)
        self.groups = linear(Int8WeightOnlyConfig(granularity=PerGroup(32)))
        self.odd = linear(Int8WeightOnlyConfig(), inner=40)

    def forward(self, x):
        return self.layer(x), self.whole(x[0]), self.groups(x), self.odd(x[..., :40])


@case(steps=lambda: [call(torch.tensor([[1, 5, 0]]), torch.randn(2, 64))], functional=True, rtol=2e-2, atol=2e-2, reference_wrong=NONE)
class int8_tied(nn.Module):
    """An embedding and a linear layer over one int8 weight, in bfloat16."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 64, dtype=torch.bfloat16)
        quantize_(self.embed, Int8WeightOnlyConfig(), lambda m, _: isinstance(m, nn.Embedding))

    def forward(self, ids, x):
        return self.embed(ids).float(), F.linear(x.bfloat16(), self.embed.weight).float()


@case(steps=lambda: [call(torch.randn(2, 3, 64))], rtol=1e-4, atol=1e-4, partitions=1)
class products_that_are_layers(nn.Module):
    """Linear layers as decomposed programs have them: products with a transposed weight, with a bias and without."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 64) * 0.1)
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x):
        flat = x.reshape(-1, 64)
        return flat @ self.weight.t(), torch.addmm(self.bias, flat, self.weight.t()), torch.mm(flat, self.weight.permute(1, 0)), x @ self.weight.T


Q = torch.ops.quantized_decomposed


@case(steps=lambda: [call(torch.randn(2, 3, 8, 8), torch.randn(5, 32)), call(torch.randn(2, 3, 8, 8), torch.randn(5, 32))], functional=True, rtol=1e-4, atol=1e-4, reference_wrong=NONE)
class quantiser_of_torch(nn.Module):
    """PyTorch's own quantiser: per tensor, channel, group and token; static and dynamic; weights stored and activations computed."""

    def __init__(self):
        super().__init__()
        code = lambda *shape: torch.randint(-127, 128, shape, dtype=torch.int8)
        self.register_buffer("conv", code(4, 3, 3, 3))
        self.register_buffer("turned", code(3, 4, 2, 2))
        self.register_buffer("dense", code(8, 32))
        self.register_buffer("whole", code(8, 32))
        self.register_buffer("grouped", torch.randint(-8, 8, (8, 64), dtype=torch.int8))
        self.register_buffer("scale4", torch.rand(4) * 0.01)
        self.register_buffer("scale8", torch.rand(8) * 0.01)
        self.register_buffer("zero4", torch.randint(-5, 5, (4,)))
        self.register_buffer("zero8", torch.randint(-5, 5, (8,)))
        self.register_buffer("group_scale", torch.rand(8, 2) * 0.01)
        self.register_buffer("group_zero", torch.randint(-3, 3, (8, 2), dtype=torch.int8))

    def forward(self, image, x):
        image = Q.dequantize_per_tensor(Q.quantize_per_tensor(image, 0.03, -7, -128, 127, torch.int8), 0.03, -7, -128, 127, torch.int8)
        y = F.conv2d(image, Q.dequantize_per_channel(self.conv, self.scale4, self.zero4, 0, -127, 127, torch.int8))
        z = F.conv_transpose2d(image, Q.dequantize_per_channel(self.turned, self.scale4, self.zero4, 1, -127, 127, torch.int8))
        scale, zero = Q.choose_qparams(x, -128, 127, 0.000244140625, torch.int8)
        x8 = Q.dequantize_per_tensor(Q.quantize_per_tensor(x, scale, zero, -128, 127, torch.int8), scale, zero, -128, 127, torch.int8)
        a = F.linear(x8, Q.dequantize_per_channel(self.dense, self.scale8, self.zero8, 0, -127, 127, torch.int8))
        b = F.linear(x8, Q.dequantize_per_tensor(self.whole, 0.004, 3, -128, 127, torch.int8))
        scales, zeros = Q.choose_qparams_per_token_asymmetric(x, torch.int8)
        t = Q.dequantize_per_token(Q.quantize_per_token(x, scales, zeros, -128, 127, torch.int8), scales, zeros, -128, 127, torch.int8, torch.float32)
        w = Q.dequantize_per_channel_group(self.grouped, self.group_scale, self.group_zero, -8, 7, torch.int8, 32, torch.float32)
        return y, z, a, b, t, F.linear(torch.cat((t, x), 1), w)


@case(steps=lambda: [call(torch.tensor([[0, 5], [2, 2]]))], functional=True, rtol=1e-5, atol=1e-5, reference_wrong=NONE)
class quantised_tables(nn.Module):
    """Embeddings of one, two and four codes a byte, a scale a row or a group, with zero points and without."""

    def __init__(self):
        super().__init__()
        self.register_buffer("bytes", torch.randint(-128, 128, (6, 32), dtype=torch.int8))
        self.register_buffer("halves", torch.randint(0, 256, (6, 32), dtype=torch.uint8))
        self.register_buffer("quarters", torch.randint(0, 256, (6, 16), dtype=torch.uint8))
        self.register_buffer("rows", torch.rand(6) * 0.01)
        self.register_buffer("groups", torch.rand(6, 2) * 0.01)
        self.register_buffer("zeros", torch.randint(-5, 5, (6,)).float())

    def forward(self, ids):
        return (Q.embedding_byte(self.bytes, self.rows, self.zeros, -128, 127, ids), Q.embedding_4bit(self.halves, self.groups, None, -8, 7, ids),
                Q.embedding_2bit.dtype(self.quarters, self.rows, None, -2, 1, ids, dtype=torch.float16))


@case(steps=lambda: [call(torch.tensor(3)), call(torch.tensor(11))], rtol=1e-5, atol=1e-5,
      reference_wrong="MLX dequantises matrices, and one index gives the reference a vector")
class one_row_of_a_quantised_embedding(nn.Module):
    """A quantised embedding looked up by a single index, without axes."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(12, 64)
        quantize_(self.table, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)), lambda m, _: isinstance(m, nn.Embedding))

    def forward(self, i):
        return self.table(i)


@case(steps=lambda: [call(torch.randn(n, 1, 64), torch.randint(0, 3, (n,))) for n in (4, 1)],
      dynamic=lambda: {"x": {0: Dim("n", min=1, max=8)}, "expert": {0: Dim("n", min=1, max=8)}},
      rtol=1e-4, atol=1e-4, reference_wrong="it takes codes of eight bits for such of four, since exporters do not say how wide they are")
class experts_of_eight_bits(nn.Module):
    """Experts quantised to eight bits, one chosen for each row; as exporters call it, without saying how many bits."""

    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.randint(-128, 128, (3, 32, 64), dtype=torch.int8))
        self.register_buffer("scales", torch.rand(3, 32, 2) * 0.01)

    def forward(self, x, expert):
        return torch.ops.mlx.gather_qmm(x, self.w, self.scales, None, expert)


@case(steps=lambda: [call(torch.randn(3, 64))], rtol=2e-2, atol=2e-2,
      reference_wrong="biases of equal value are one constant, of the type that comes first: halves after singles become singles")
class quantised_layers_of_two_types(nn.Module):
    """Layers whose zero points are all zero, in single precision, bfloat16 and float16; what they return has their type."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(linear(IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)), dtype=dtype)
                                    for dtype in (torch.float32, torch.bfloat16, torch.float16))

    def forward(self, x):
        single, brain, half = (layer(x.to(layer.bias.dtype)) for layer in self.layers)
        return single, brain, brain + brain, half, half * 2


A = torch.ops.torchao.dequantize_affine


def small(*shape):
    return torch.randint(-8, 8, shape, dtype=torch.int8)


@case(steps=lambda: [call(torch.randn(3, 64), torch.tensor([[1, 5], [0, 7]]))], rtol=1e-4, atol=1e-4,
      reference_wrong="a weight that has more than one user is not fused, and looked up by one index it is a vector")
class quantised_weight_of_many_uses(nn.Module):
    """One dequantised weight for layers, an embedding, one row of it, a sum and a product; its zero points have a fraction."""

    def __init__(self):
        super().__init__()
        self.register_buffer("w", small(8, 64))
        self.register_buffer("scales", torch.rand(8, 2) * 0.1)
        self.register_buffer("zeros", torch.rand(8, 2) * 3)

    def forward(self, x, ids):
        w = A(self.w, [1, 32], self.scales, self.zeros, torch.int8, -8, 7)
        return F.linear(x, w), F.linear(x + 1, w, x[0, :8]), F.embedding(ids, w), F.embedding(ids[0, 1], w), w.sum(1), x @ w.t(), w[2]


@case(steps=lambda: [call(torch.randn(3, 64), torch.randn(1, 32, 5, 5))], rtol=1e-3, atol=1e-3, reference_wrong=NONE)
class quantised_along_any_axis(nn.Module):
    """Groups along the first axis, the channels of a kernel, and blocks over several axes at once."""

    def __init__(self):
        super().__init__()
        for name, weight, scales in (("rows", (64, 8), (2, 8)), ("kernel", (8, 32, 3, 3), (8, 1, 3, 3)), ("blocks", (8, 6, 2, 2), (8, 1, 1, 1))):
            self.register_buffer(name, small(*weight))
            self.register_buffer(name + "_scales", torch.rand(scales) * 0.1)
            self.register_buffer(name + "_zeros", small(*scales))

    def forward(self, x, image):
        rows = A(self.rows, [32, 1], self.rows_scales, self.rows_zeros, torch.int8, -8, 7)
        kernel = A(self.kernel, [1, 32, 1, 1], self.kernel_scales, self.kernel_zeros, torch.int8, -8, 7)
        blocks = A(self.blocks, [1, 6, 2, 2], self.blocks_scales, None, torch.int8, -8, 7)
        return x @ rows, F.conv2d(image, kernel), F.conv2d(image[:, :6], blocks)


@case(steps=lambda: [call(torch.randn(3, 256), torch.tensor([1, 3]))], rtol=1e-3, atol=1e-3,
      reference_wrong="looked up by one index, a row is a vector, and MLX dequantises matrices")
class four_bits_in_pairs(nn.Module):
    """ExecuTorch's packed four bits: zero points with a fraction, groups wider than any kernel has, all zero points eight; layers, tables, one row."""

    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.randint(0, 256, (8, 128), dtype=torch.uint8))
        self.register_buffer("wide", torch.rand(1, 8) * 0.1)
        self.register_buffer("wide_zeros", torch.rand(1, 8) * 15)
        self.register_buffer("narrow", torch.rand(4, 8) * 0.1)
        self.register_buffer("eights", torch.full((4, 8), 8.0))

    def forward(self, x, i):
        wide = torch.ops.torchao.dequantize_int4_tensor(self.w, self.wide, self.wide_zeros, 256, torch.float32)
        narrow = torch.ops.torchao.dequantize_int4_tensor(self.w, self.narrow, self.eights, 64, torch.float32)
        return F.linear(x, wide), F.linear(x, narrow), F.embedding(i, wide), F.embedding(i, narrow), F.embedding(i[0], narrow)


class SmallFloats(nn.Module):
    """Weights of four- and eight-bit floats, with scales for groups and for the whole tensor."""

    def __init__(self):
        super().__init__()
        self.register_buffer("pairs", torch.randint(0, 2**31, (32, 8)).to(torch.uint32))
        self.register_buffer("pair_scales", (torch.rand(32, 4) * 4).to(torch.float8_e4m3fn).view(torch.uint8))
        self.register_buffer("whole", torch.tensor(0.37))
        self.register_buffer("one", torch.tensor(1.0))
        self.register_buffer("bytes", torch.randn(32, 64).to(torch.float8_e4m3fn))
        self.register_buffer("byte_scales", torch.randint(120, 130, (32, 2), dtype=torch.uint8).view(torch.float8_e8m0fnu))

    def weights(self):
        pairs, bytes = torch.ops.torchao.dequantize_nvfp4, torch.ops.torchao.dequantize_mx
        a, b = pairs(self.pairs, self.pair_scales, self.whole, 16, torch.bfloat16), pairs(self.pairs, self.pair_scales, self.one, 16, torch.float32)
        return a, b, *(bytes(self.bytes, self.byte_scales, torch.float8_e4m3fn, 32, dtype) for dtype in (torch.bfloat16, torch.float32))


WHOLE = "a scale for the whole tensor is single precision, and makes everything after it single"


@case(steps=lambda: [call(torch.randn(3, 64), torch.tensor([1, 3]))], rtol=1e-3, atol=1e-4, reference_wrong=WHOLE)
class small_floats_in_halves(SmallFloats):
    """Weights of four- and eight-bit floats: results are of the type asked for, a scale for the whole tensor or not; rows, and one row."""

    def forward(self, x, i):
        a, b, c, d = self.weights()
        h = x.bfloat16()
        return (F.embedding(i, a) * 2, F.embedding(i[0], a), F.linear(x, b), F.embedding(i[0], b), F.linear(h, c), F.embedding(i, c) * 2, F.embedding(i[0], c),
                F.linear(x, d), F.embedding(i[0], d))


# Eager rounds each weight to bf16 after the scale of the whole tensor, the product scales its sum: sums of 64 terms of about 2 differ by
# some 64 ** 0.5 * 2 / 512, also where they cancel.
@case(steps=lambda: [call(torch.randn(3, 64))], rtol=1e-2, atol=0.1, reference_wrong=WHOLE)
class products_with_small_floats_in_halves(SmallFloats):
    """A layer of four-bit floats in bf16 whose scale for the whole tensor is no power of two, read once and once more."""

    def forward(self, x):
        a = self.weights()[0]
        return F.linear(x.bfloat16(), a), F.linear(x.bfloat16(), a) + 1


@case(steps=lambda: [call(torch.randn(2, 256), torch.tensor([1, 0]))], rtol=2e-2, atol=2e-2, reference_wrong="scales have the type that the first user asks for, for all others too")
class gguf_in_two_types(nn.Module):
    """One set of GGML's blocks read in single precision, bfloat16 and float16."""

    def __init__(self):
        super().__init__()
        self.register_buffer("blob", blocks("q5_k", 4, 256, torch.float32).data.raw)

    def forward(self, x, ids):
        single, brain, half = (torch.ops.torchao.dequantize_gguf(self.blob, "q5_k", dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16))
        return F.linear(x, single), F.linear(x.bfloat16(), brain), F.linear(x.half(), half), F.embedding(ids, brain), F.embedding(ids, single), F.embedding(ids[0], half)
