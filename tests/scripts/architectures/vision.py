"""Networks for images, each in the shape in which they are known, of any width.

Written for these tests: the layers and their order are the published ones, widths and depths are arguments.
"""
import torch
import torch.nn.functional as F
from torch import nn


def settle(module):
    """Running statistics and parameters of a kind that training leaves: none is zero or one."""
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
        if isinstance(m, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)) and m.weight is not None:
            nn.init.uniform_(m.weight, 0.8, 1.2)
            nn.init.normal_(m.bias, 0, 0.1)
    return module


def conv_norm(cin, cout, kernel=3, stride=1, groups=1, dilation=1, act=nn.ReLU):
    layers = [nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2 * dilation, dilation, groups, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([act()] if act else []))


class SqueezeExcite(nn.Module):
    """Channels weighed by what their means say."""

    def __init__(self, channels, inner, act=nn.ReLU, gate=nn.Sigmoid):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down, self.act = nn.Conv2d(channels, inner, 1), act()
        self.up, self.gate = nn.Conv2d(inner, channels, 1), gate()

    def forward(self, x):
        return x * self.gate(self.up(self.act(self.down(self.pool(x)))))


class Residual(nn.Module):
    """A basic or bottleneck block; with groups and channel weighing, that of RegNet."""

    def __init__(self, cin, cout, stride, bottleneck, groups=1, dilation=1, excite=False):
        super().__init__()
        inner = cout // 4 if bottleneck and groups == 1 else cout
        if bottleneck:
            body = [conv_norm(cin, inner, 1), conv_norm(inner, inner, 3, stride, groups, dilation)]
            body += [SqueezeExcite(inner, max(inner // 4, 2))] if excite else []
            body += [conv_norm(inner, cout, 1, act=None)]
        else:
            body = [conv_norm(cin, cout, 3, stride), conv_norm(cout, cout, 3, act=None)]
        self.body = nn.Sequential(*body)
        self.shortcut = conv_norm(cin, cout, 1, stride, act=None) if stride != 1 or cin != cout else nn.Identity()

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """Stem, stages of residual blocks, mean, linear."""

    def __init__(self, widths, depths, bottleneck, classes, stem=None, groups=1, excite=False):
        super().__init__()
        stem = stem or widths[0]
        self.stem = nn.Sequential(conv_norm(3, stem, 7, 2), nn.MaxPool2d(3, 2, 1))
        stages, cin = [], stem
        for i, (width, depth) in enumerate(zip(widths, depths)):
            for k in range(depth):
                stages.append(Residual(cin, width, 2 if k == 0 and i else 1, bottleneck, groups, 1, excite))
                cin = width
        self.stages = nn.Sequential(*stages)
        self.pool, self.head = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(cin, classes)
        settle(self)

    def forward(self, x):
        return self.head(torch.flatten(self.pool(self.stages(self.stem(x))), 1))


class Inverted(nn.Module):
    """Expand, filter each channel, weigh channels, project; the sum with the input where shapes allow."""

    def __init__(self, cin, inner, cout, kernel, stride, act, excite=None, gate=nn.Sigmoid, excite_act=nn.ReLU):
        super().__init__()
        body = [] if inner == cin else [conv_norm(cin, inner, 1, act=act)]
        body += [conv_norm(inner, inner, kernel, stride, inner, act=act)]
        body += [SqueezeExcite(inner, excite, excite_act, gate)] if excite else []
        self.body = nn.Sequential(*body, conv_norm(inner, cout, 1, act=None))
        self.kept = stride == 1 and cin == cout

    def forward(self, x):
        y = self.body(x)
        return x + y if self.kept else y


class MobileNetV3(nn.Module):
    """Inverted residuals with hard swishes and hard sigmoids."""

    def __init__(self, stem, rows, last, hidden, classes):
        super().__init__()
        layers, cin = [conv_norm(3, stem, 3, 2, act=nn.Hardswish)], stem
        for inner, cout, kernel, stride, excite, hard in rows:
            act = nn.Hardswish if hard else nn.ReLU
            layers.append(Inverted(cin, inner, cout, kernel, stride, act, excite, nn.Hardsigmoid))
            cin = cout
        self.features = nn.Sequential(*layers, conv_norm(cin, last, 1, act=nn.Hardswish))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Linear(last, hidden), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(hidden, classes))
        settle(self)

    def forward(self, x):
        return self.head(torch.flatten(self.pool(self.features(x)), 1))


class EfficientNet(nn.Module):
    """Inverted residuals with swishes."""

    def __init__(self, stem, rows, last, classes):
        super().__init__()
        layers, cin = [conv_norm(3, stem, 3, 2, act=nn.SiLU)], stem
        for expand, cout, kernel, stride, depth in rows:
            for k in range(depth):
                layers.append(Inverted(cin, cin * expand, cout, kernel, stride if k == 0 else 1, nn.SiLU, max(cin // 4, 1), excite_act=nn.SiLU))
                cin = cout
        self.features = nn.Sequential(*layers, conv_norm(cin, last, 1, act=nn.SiLU))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Dropout(0.2, inplace=True), nn.Linear(last, classes))
        settle(self)

    def forward(self, x):
        return self.head(torch.flatten(self.pool(self.features(x)), 1))


class ViTBlock(nn.Module):
    def __init__(self, dim, heads, mlp):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim, eps=1e-6), nn.MultiheadAttention(dim, heads, dropout=0.1, batch_first=True)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), nn.Sequential(nn.Linear(dim, mlp), nn.GELU(), nn.Dropout(0.1), nn.Linear(mlp, dim))

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches and a class token through a transformer."""

    def __init__(self, image, patch, dim, heads, mlp, depth, classes):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.places = nn.Parameter(torch.randn(1, (image // patch) ** 2 + 1, dim) * 0.1)
        self.blocks = nn.Sequential(*(ViTBlock(dim, heads, mlp) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, classes)
        settle(self)

    def forward(self, x):
        n = x.shape[0]
        x = self.patches(x)
        x = x.reshape(n, x.shape[1], -1).permute(0, 2, 1)
        x = torch.cat([self.token.expand(n, -1, -1), x], dim=1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


def windows(x, size):
    """[N, H, W, C] to [N * windows, size * size, C]."""
    n, h, w, c = x.shape
    return x.view(n, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)


def unwindows(x, size, h, w):
    x = x.view(-1, h // size, w // size, size, size, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], h, w, -1)


class WindowAttention(nn.Module):
    """Attention inside windows, shifted by half of one, with a bias by relative place."""

    def __init__(self, dim, heads, window, shift, height, width):
        super().__init__()
        self.heads, self.window, self.shift, self.size = heads, window, shift, (height, width)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.2)
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("places", (apart[..., 0] * (2 * window - 1) + apart[..., 1]).flatten())

    def forward(self, x):
        h, w = self.size
        n, c, s = x.shape[0], x.shape[-1], self.window
        if self.shift:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        x = windows(x, s)
        q, k, v = self.qkv(x).reshape(x.shape[0], s * s, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q * (c // self.heads) ** -0.5).matmul(k.transpose(-2, -1))
        attention = attention + self.table[self.places].view(s * s, s * s, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        if self.shift:
            parts = x.new_zeros((h, w))
            edges = ((0, -s), (-s, -self.shift), (-self.shift, None))
            for i, a in enumerate(edges):
                for j, b in enumerate(edges):
                    parts[a[0]:a[1], b[0]:b[1]] = i * 3 + j
            parts = parts.view(h // s, s, w // s, s).permute(0, 2, 1, 3).reshape(-1, s * s)
            apart = parts.unsqueeze(1) - parts.unsqueeze(2)
            mask = apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)
            attention = attention.view(n, -1, self.heads, s * s, s * s) + mask.unsqueeze(1).unsqueeze(0)
            attention = attention.view(-1, self.heads, s * s, s * s)
        x = attention.softmax(-1).matmul(v).transpose(1, 2).reshape(-1, s * s, c)
        x = unwindows(self.out(x), s, h, w)
        return torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2)) if self.shift else x


class SwinBlock(nn.Module):
    def __init__(self, dim, heads, window, shift, side):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), WindowAttention(dim, heads, window, shift, side, side)
        self.norm2, self.mlp = nn.LayerNorm(dim), nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        x = torch.cat([x[..., i::2, j::2, :] for j in (0, 1) for i in (0, 1)], -1)
        return self.reduce(self.norm(x))


class Swin(nn.Module):
    """Window attention at several resolutions, channels last throughout."""

    def __init__(self, image, patch, dim, heads, window, depths, classes):
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, dim, patch, patch))
        self.norm0 = nn.LayerNorm(dim)
        layers, side = [], image // patch
        for stage, (depth, h) in enumerate(zip(depths, heads)):
            if stage:
                layers.append(PatchMerging(dim))
                dim, side = 2 * dim, side // 2
            layers += [SwinBlock(dim, h, window, window // 2 * (k % 2) if side > window else 0, side) for k in range(depth)]
        self.layers, self.norm, self.head = nn.Sequential(*layers), nn.LayerNorm(dim), nn.Linear(dim, classes)
        settle(self)

    def forward(self, x):
        x = self.norm(self.layers(self.norm0(self.patches(x).permute(0, 2, 3, 1))))
        return self.head(F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1).flatten(1))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [N, C, H, W]."""

    def forward(self, x):
        return F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.filter, self.norm = nn.Conv2d(dim, dim, 7, padding=3, groups=dim), nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.scale = nn.Parameter(torch.full((dim, 1, 1), 0.3))

    def forward(self, x):
        y = self.mlp(self.norm(self.filter(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x + self.scale * y


class ConvNeXt(nn.Module):
    """Convolutions that took after transformers."""

    def __init__(self, widths, depths, classes):
        super().__init__()
        layers = [nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], eps=1e-6)]
        for i, (width, depth) in enumerate(zip(widths, depths)):
            if i:
                layers += [ChannelNorm(widths[i - 1], eps=1e-6), nn.Conv2d(widths[i - 1], width, 2, 2)]
            layers += [ConvNeXtBlock(width) for _ in range(depth)]
        self.features, self.pool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(ChannelNorm(widths[-1], eps=1e-6), nn.Flatten(1), nn.Linear(widths[-1], classes))
        settle(self)

    def forward(self, x):
        return self.head(self.pool(self.features(x)))


class NormedBlock(nn.Module):
    """Group norm, swish, convolution, twice; with what the time of a diffusion step says in between."""

    def __init__(self, cin, cout, groups, time=None):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, cout), nn.Conv2d(cout, cout, 3, padding=1)
        self.time = nn.Linear(time, cout) if time else None
        self.shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x, t=None):
        y = self.conv1(F.silu(self.norm1(x)))
        if self.time is not None:
            y = y + self.time(F.silu(t))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class PixelAttention(nn.Module):
    """Attention of one head among all pixels."""

    def __init__(self, channels, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.q, self.k, self.v, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        n, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (f(y).reshape(n, 1, c, h * w).transpose(2, 3) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(2, 3).reshape(n, c, h, w))


class UNet(nn.Module):
    """A denoiser: down by strides, up by repetition, skips joined; a last doubling by mixing neighbours."""

    def __init__(self, channels, groups, image=3):
        super().__init__()
        time = 4 * channels[0]
        self.channels = channels[0]
        self.time = nn.Sequential(nn.Linear(channels[0], time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(image, channels[0], 3, padding=1)
        pairs = list(zip(channels, channels[1:]))
        self.down = nn.ModuleList(NormedBlock(a, b, groups, time) for a, b in pairs)
        self.shrink = nn.ModuleList(nn.Conv2d(b, b, 3, 2, 1) for _, b in pairs)
        self.middle = nn.ModuleList([NormedBlock(channels[-1], channels[-1], groups, time), PixelAttention(channels[-1], groups)])
        self.grow = nn.ModuleList(nn.Conv2d(b, b, 3, padding=1) for _, b in reversed(pairs))
        self.up = nn.ModuleList(NormedBlock(2 * b, a, groups, time) for a, b in reversed(pairs))
        self.norm, self.last = nn.GroupNorm(groups, channels[0]), nn.Conv2d(channels[0], image, 3, padding=1)
        settle(self)

    def forward(self, x, t):
        half = self.channels // 2
        rates = torch.exp(torch.arange(half, dtype=torch.float32) * (-4.0 / half))
        angles = t[:, None].float() * rates[None, :]
        t = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))
        x, skips = self.first(x), []
        for block, shrink in zip(self.down, self.shrink):
            x = block(x, t)
            skips.append(x)
            x = shrink(x)
        x = self.middle[1](self.middle[0](x, t))
        for grow, block in zip(self.grow, self.up):
            x = grow(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = block(torch.cat([x, skips.pop()], dim=1), t)
        x = self.last(F.silu(self.norm(x)))
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def dilated_resnet(widths, depths, dilations, stem):
    """The body of a ResNet of bottlenecks that keeps an eighth of the picture's size: the channels it gives and its modules."""
    stages, cin = [conv_norm(3, stem, 7, 2), nn.MaxPool2d(3, 2, 1)], stem
    for i, (width, depth, dilation) in enumerate(zip(widths, depths, dilations)):
        for k in range(depth):
            stages.append(Residual(cin, width, 2 if k == 0 and i == 1 else 1, True, dilation=dilation))
            cin = width
    return cin, stages


class DeepLab(nn.Module):
    """Dilated convolutions at several rates beside the mean of the picture, brought back to its size."""

    def __init__(self, width, rates, classes, body=None):
        super().__init__()
        # (channels of the body's result, its modules); a ResNet whose later stages dilate rather than stride.
        channels, body = body or (4 * width, [conv_norm(3, width, 3, 2), Residual(width, 2 * width, 2, False), Residual(2 * width, 4 * width, 1, True, dilation=2)])
        self.stem = nn.Sequential(*body)
        self.rates = nn.ModuleList([conv_norm(channels, width, 1)] + [conv_norm(channels, width, 3, dilation=r) for r in rates])
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm(channels, width, 1))
        self.join = nn.Sequential(conv_norm(width * (len(rates) + 2), width, 1), nn.Dropout(0.5), conv_norm(width, width), nn.Conv2d(width, classes, 1))
        settle(self)

    def forward(self, image):
        x = self.stem(image)
        found = [f(x) for f in self.rates]
        found.append(F.interpolate(self.mean(x), size=x.shape[-2:], mode="bilinear", align_corners=False))
        x = self.join(torch.cat(found, dim=1))
        return F.interpolate(x, size=image.shape[-2:], mode="bilinear", align_corners=False)


class Detector(nn.Module):
    """A feature pyramid with heads shared by its levels, boxes decoded from anchors; the best of each kept, without suppression."""

    def __init__(self, widths, channels, anchors, classes, image, best):
        super().__init__()
        self.classes, self.best = classes, best
        self.stem = conv_norm(3, widths[0], 3, 2)
        self.stages = nn.ModuleList(Residual(a, b, 2, False) for a, b in zip(widths, widths[1:]))
        self.lateral = nn.ModuleList(nn.Conv2d(w, channels, 1) for w in widths[1:])
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths[1:])
        self.scores = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, anchors * classes, 3, padding=1))
        self.boxes = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, anchors * 4, 3, padding=1))
        centres, side, step = [], image // 2, 2
        for _ in widths[1:]:
            side, step = side // 2, step * 2
            y, x = torch.meshgrid(*(torch.arange(side) * step + step / 2 for _ in range(2)), indexing="ij")
            for k in range(anchors):
                centres.append(torch.stack([x, y, torch.full_like(x, step * 2.0 * (k + 1)), torch.full_like(x, step * 3.0)], -1))
            centres[-anchors:] = [torch.stack(centres[-anchors:], 2).reshape(-1, 4)]
        self.register_buffer("anchors", torch.cat(centres))
        settle(self)

    def flat(self, y, size):
        n = y.shape[0]
        y = y.view(n, -1, size, y.shape[-2], y.shape[-1])
        return y.permute(0, 3, 4, 1, 2).reshape(n, -1, size)

    def forward(self, x):
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        levels = [f(x) for f, x in zip(self.lateral, found)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], size=levels[i - 1].shape[-2:], mode="nearest")
        levels = [f(x) for f, x in zip(self.smooth, levels)]
        scores = torch.cat([self.flat(self.scores(x), self.classes) for x in levels], dim=1).sigmoid()
        deltas = torch.cat([self.flat(self.boxes(x), 4) for x in levels], dim=1)
        centres = deltas[..., :2] * 0.1 * self.anchors[:, 2:] + self.anchors[:, :2]
        sizes = torch.exp(torch.clamp(deltas[..., 2:] * 0.2, max=4.135)) * self.anchors[:, 2:]
        boxes = torch.cat([centres - 0.5 * sizes, centres + 0.5 * sizes], dim=-1)
        score, kind = scores.max(-1)
        score, at = score.topk(self.best, dim=1)
        return boxes.gather(1, at.unsqueeze(-1).expand(-1, -1, 4)), score, kind.gather(1, at)


class DenseNet(nn.Module):
    """Every layer sees what all before it found."""

    def __init__(self, stem, growth, depths, classes):
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, stem, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.blocks, self.transitions, width = nn.ModuleList(), nn.ModuleList(), stem
        for i, depth in enumerate(depths):
            block = nn.ModuleList()
            for _ in range(depth):
                block.append(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4 * growth, 1, bias=False),
                                           nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)))
                width += growth
            self.blocks.append(block)
            last = i + 1 == len(depths)
            self.transitions.append(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU()) if last else nn.Sequential(
                nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2, 2)))
            width = width if last else width // 2
        self.head = nn.Linear(width, classes)
        settle(self)

    def forward(self, x):
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions):
            found = [x]
            for layer in block:
                found.append(layer(torch.cat(found, 1)))
            x = transition(torch.cat(found, 1))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class Shuffle(nn.Module):
    """Half of the channels pass, half are filtered, and both are interleaved."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        half = cout // 2
        self.stride = stride
        self.left = nn.Sequential(conv_norm(cin, cin, 3, 2, cin, act=None), conv_norm(cin, half, 1)) if stride > 1 else None
        self.right = nn.Sequential(conv_norm(cin if stride > 1 else half, half, 1), conv_norm(half, half, 3, stride, half, act=None), conv_norm(half, half, 1))

    def forward(self, x):
        if self.left is None:
            a, b = x.chunk(2, dim=1)
            x = torch.cat((a, self.right(b)), dim=1)
        else:
            x = torch.cat((self.left(x), self.right(x)), dim=1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ShuffleNet(nn.Module):
    def __init__(self, stem, widths, depths, last, classes):
        super().__init__()
        layers, cin = [conv_norm(3, stem, 3, 2), nn.MaxPool2d(3, 2, 1)], stem
        for width, depth in zip(widths, depths):
            for k in range(depth):
                layers.append(Shuffle(cin, width, 2 if k == 0 else 1))
                cin = width
        self.features, self.head = nn.Sequential(*layers, conv_norm(cin, last, 1)), nn.Linear(last, classes)
        settle(self)

    def forward(self, x):
        return self.head(self.features(x).mean([2, 3]))


class Fire(nn.Module):
    def __init__(self, cin, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(cin, squeeze, 1), nn.ReLU(inplace=True))
        self.small, self.wide = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x)
        return torch.cat([F.relu(self.small(x)), F.relu(self.wide(x))], 1)


class SqueezeNet(nn.Module):
    """Narrow and wide filters side by side; pools that reach beyond the border."""

    def __init__(self, stem, fires, classes):
        super().__init__()
        layers, cin = [nn.Conv2d(3, stem, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True)], stem
        for i, (squeeze, expand) in enumerate(fires):
            layers.append(Fire(cin, squeeze, expand))
            cin = 2 * expand
            if i % 2:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(cin, classes, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1)))

    def forward(self, x):
        return torch.flatten(self.head(self.features(x)), 1)


class SSD(nn.Module):
    """Heads of their own at several resolutions; the first features scaled to unit length."""

    def __init__(self, widths, anchors, classes):
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2, 2), nn.Conv2d(widths[0], widths[0], 3, padding=1), nn.ReLU(True))
        self.scale = nn.Parameter(torch.full((widths[0],), 2.0))
        self.extras = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2, 2, ceil_mode=True), nn.Conv2d(a, b, 1), nn.ReLU(True), nn.Conv2d(b, b, 3, padding=1), nn.ReLU(True))
                                    for a, b in zip(widths, widths[1:]))
        self.scores = nn.ModuleList(nn.Conv2d(w, anchors * classes, 3, padding=1) for w in widths)
        self.boxes = nn.ModuleList(nn.Conv2d(w, anchors * 4, 3, padding=1) for w in widths)

    def forward(self, x):
        x = self.stem(x)
        found = [self.scale.view(1, -1, 1, 1) * F.normalize(x)]
        for extra in self.extras:
            x = extra(x)
            found.append(x)
        scores = torch.cat([f(x).permute(0, 2, 3, 1).flatten(1) for f, x in zip(self.scores, found)], 1)
        boxes = torch.cat([f(x).permute(0, 2, 3, 1).flatten(1) for f, x in zip(self.boxes, found)], 1)
        return F.softmax(scores.view(x.shape[0], -1, self.classes), dim=-1), boxes.view(x.shape[0], -1, 4)


class Decoder(nn.Module):
    """What turns latents into pictures: attention in the middle, group norms, doubling by repetition."""

    def __init__(self, latent, channels, groups):
        super().__init__()
        self.quantised, self.first = nn.Conv2d(latent, latent, 1), nn.Conv2d(latent, channels[0], 3, padding=1)
        self.middle = nn.Sequential(NormedBlock(channels[0], channels[0], groups), PixelAttention(channels[0], groups), NormedBlock(channels[0], channels[0], groups))
        self.up = nn.ModuleList(NormedBlock(a, b, groups) for a, b in zip(channels, channels[1:]))
        self.grow = nn.ModuleList(nn.Conv2d(b, b, 3, padding=1) for b in channels[1:])
        self.norm, self.last = nn.GroupNorm(groups, channels[-1]), nn.Conv2d(channels[-1], 3, 3, padding=1)
        settle(self)

    def forward(self, z):
        x = self.middle(self.first(self.quantised(z / 0.18215)))
        for block, grow in zip(self.up, self.grow):
            x = grow(F.interpolate(block(x), scale_factor=2.0))
        return (self.last(F.silu(self.norm(x))) / 2 + 0.5).clamp(0, 1)


class CSP(nn.Module):
    """Part of the channels through a chain of blocks, all of them joined."""

    def __init__(self, cin, cout, depth):
        super().__init__()
        self.half = cout // 2
        self.first, self.last = conv_norm(cin, cout, 1, act=nn.SiLU), conv_norm(self.half * (2 + depth), cout, 1, act=nn.SiLU)
        self.chain = nn.ModuleList(nn.Sequential(conv_norm(self.half, self.half, act=nn.SiLU), conv_norm(self.half, self.half, act=nn.SiLU)) for _ in range(depth))

    def forward(self, x):
        found = list(self.first(x).split((self.half, self.half), 1))
        for block in self.chain:
            found.append(found[-1] + block(found[-1]))
        return self.last(torch.cat(found, 1))


class YOLO(nn.Module):
    """Features pooled again and again, a pyramid up, and boxes as distances whose distribution the head gives; grids made on the way."""

    def __init__(self, width, classes, bins):
        super().__init__()
        self.classes, self.bins = classes, bins
        self.stem = nn.Sequential(conv_norm(3, width, 3, 2, act=nn.SiLU), conv_norm(width, width, 3, 2, act=nn.SiLU))
        self.p3 = nn.Sequential(CSP(width, width, 1), conv_norm(width, 2 * width, 3, 2, act=nn.SiLU))
        self.p4 = conv_norm(2 * width, 2 * width, 3, 2, act=nn.SiLU)
        self.narrow, self.pool, self.wide = conv_norm(2 * width, width, 1, act=nn.SiLU), nn.MaxPool2d(5, 1, 2), conv_norm(4 * width, 2 * width, 1, act=nn.SiLU)
        self.up, self.join = nn.Upsample(scale_factor=2.0, mode="nearest"), conv_norm(4 * width, 2 * width, 1, act=nn.SiLU)
        self.heads = nn.ModuleList(nn.Conv2d(2 * width, 4 * bins + classes, 1) for _ in range(2))
        settle(self)

    def forward(self, x):
        p3 = self.p3(self.stem(x))
        p4 = self.narrow(self.p4(p3))
        pooled = [p4]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        p4 = self.wide(torch.cat(pooled, 1))
        p3 = self.join(torch.cat([self.up(p4), p3], 1))
        found = []
        for level, head, step in zip((p3, p4), self.heads, (8.0, 16.0)):
            n, _, h, w = level.shape
            distances, scores = head(level).view(n, 4 * self.bins + self.classes, h * w).split((4 * self.bins, self.classes), 1)
            distances = distances.view(n, 4, self.bins, h * w).transpose(2, 1).softmax(1)
            distances = (distances * torch.arange(self.bins, dtype=x.dtype).view(1, -1, 1, 1)).sum(1)
            y, x0 = torch.meshgrid(torch.arange(h, dtype=x.dtype) + 0.5, torch.arange(w, dtype=x.dtype) + 0.5, indexing="ij")
            centres = torch.stack((x0, y), -1).view(-1, 2).transpose(0, 1).unsqueeze(0)
            near, far = distances.chunk(2, 1)
            low, high = centres - near, centres + far
            found.append(torch.cat((torch.cat(((low + high) / 2, high - low), 1) * step, scores.sigmoid()), 1))
        return torch.cat(found, 2)


class WindowedViT(nn.Module):
    """Attention in padded windows with a bias by relative row and column added to its scores, as segmenters use it."""

    def __init__(self, image, patch, dim, heads, window, depth, out):
        super().__init__()
        self.patches, self.heads, self.window = nn.Conv2d(3, dim, patch, patch), heads, window
        side = image // patch
        self.places = nn.Parameter(torch.randn(1, side, side, dim) * 0.1)
        self.sides = [window if k % 2 == 0 else side for k in range(depth)]
        self.norms1, self.norms2 = (nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth)) for _ in range(2))
        self.qkv, self.out = (nn.ModuleList(nn.Linear(dim, m * dim) for _ in range(depth)) for m in (3, 1))
        self.mlps = nn.ModuleList(nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)) for _ in range(depth))
        self.rows, self.columns = (nn.ParameterList(nn.Parameter(torch.randn(2 * s - 1, dim // heads) * 0.2) for s in self.sides) for _ in range(2))
        self.neck = nn.Sequential(nn.Conv2d(dim, out, 1, bias=False), ChannelNorm(out), nn.Conv2d(out, out, 3, padding=1, bias=False), ChannelNorm(out))
        settle(self)

    def attend(self, x, k):
        n, h, w, c = x.shape
        qkv = self.qkv[k](x).reshape(n, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, key, v = qkv.reshape(3, n * self.heads, h * w, -1).unbind(0)
        apart = torch.arange(h)[:, None] - torch.arange(h)[None, :] + h - 1
        by_row, by_column = self.rows[k][apart], self.columns[k][apart]
        r = q.reshape(-1, h, w, q.shape[-1])
        rows = torch.einsum("bhwc,hkc->bhwk", r, by_row)
        columns = torch.einsum("bhwc,wkc->bhwk", r, by_column)
        scores = (q * (c // self.heads) ** -0.5) @ key.transpose(-2, -1)
        scores = (scores.view(-1, h, w, h, w) + rows[:, :, :, :, None] + columns[:, :, :, None, :]).view(-1, h * w, h * w)
        y = (scores.softmax(dim=-1) @ v).view(n, self.heads, h, w, -1).permute(0, 2, 3, 1, 4).reshape(n, h, w, -1)
        return self.out[k](y)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1) + self.places
        n, h, w, c = x.shape
        for k, s in enumerate(self.sides):
            y = self.norms1[k](x)
            if s == self.window:
                more = (s - h % s) % s
                y = F.pad(y, (0, 0, 0, more, 0, more))
                tall = h + more
                y = y.view(n, tall // s, s, tall // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s, s, c)
                y = self.attend(y, k).view(n, tall // s, tall // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(n, tall, tall, c)
                y = y[:, :h, :w, :].contiguous()
            else:
                y = self.attend(y, k)
            x = x + y
            x = x + self.mlps[k](self.norms2[k](x))
        return self.neck(x.permute(0, 3, 1, 2))
