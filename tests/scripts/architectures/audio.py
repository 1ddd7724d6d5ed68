"""Networks for sound, each in the shape in which they are known, of any width; written for these tests."""
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from architectures.vision import settle


def padding_mask(lengths, n):
    """True behind the end of each sequence."""
    return torch.arange(n)[None, :] >= lengths[:, None]


class FeedForward(nn.Sequential):
    def __init__(self, dim, inner):
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, inner), nn.SiLU(), nn.Dropout(0.1), nn.Linear(inner, dim), nn.Dropout(0.1))


class RelativeAttention(nn.Module):
    """Scores by content and by distance; the latter made for all distances and shifted into place."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.head = heads, dim // heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.place = nn.Linear(dim, dim, bias=False)
        self.u, self.w = nn.Parameter(torch.randn(heads, self.head) * 0.3), nn.Parameter(torch.randn(heads, self.head) * 0.3)

    def shifted(self, x):
        n, h, t, p = x.shape
        x = F.pad(x, (1, 0)).view(n, h, p + 1, t)
        return x[:, :, 1:].reshape(n, h, t, p)[..., :t]

    def forward(self, x, places, hidden):
        n, t, _ = x.shape
        q = self.q(x).view(n, t, self.heads, self.head)
        k = self.k(x).view(n, t, self.heads, self.head).permute(0, 2, 3, 1)
        v = self.v(x).view(n, t, self.heads, self.head).transpose(1, 2)
        p = self.place(places).view(1, -1, self.heads, self.head).permute(0, 2, 3, 1)
        content = torch.matmul((q + self.u).transpose(1, 2), k)
        distance = self.shifted(torch.matmul((q + self.w).transpose(1, 2), p))
        scores = (content + distance) / math.sqrt(self.head)
        scores = scores.masked_fill(hidden[:, None, None, :], -1e4)
        y = torch.matmul(scores.softmax(-1), v).transpose(1, 2).contiguous().view(n, t, -1)
        return self.out(y)


class ConvModule(nn.Module):
    """Gated pointwise convolution, a filter for each channel, batch norm, pointwise convolution."""

    def __init__(self, dim, kernel):
        super().__init__()
        self.norm, self.enter = nn.LayerNorm(dim), nn.Conv1d(dim, 2 * dim, 1)
        self.filter, self.batch = nn.Conv1d(dim, dim, kernel, padding=(kernel - 1) // 2, groups=dim), nn.BatchNorm1d(dim)
        self.leave = nn.Conv1d(dim, dim, 1)

    def forward(self, x, hidden):
        x = F.glu(self.enter(self.norm(x).transpose(1, 2)), dim=1)
        x = x.masked_fill(hidden[:, None, :], 0.0)
        return self.leave(F.silu(self.batch(self.filter(x)))).transpose(1, 2)


class ConformerBlock(nn.Module):
    def __init__(self, dim, heads, inner, kernel):
        super().__init__()
        self.first, self.second = FeedForward(dim, inner), FeedForward(dim, inner)
        self.norm, self.attention, self.conv, self.last = nn.LayerNorm(dim), RelativeAttention(dim, heads), ConvModule(dim, kernel), nn.LayerNorm(dim)

    def forward(self, x, places, hidden):
        x = x + 0.5 * self.first(x)
        x = x + self.attention(self.norm(x), places, hidden)
        x = x + self.conv(x, hidden)
        return self.last(x + 0.5 * self.second(x))


class Conformer(nn.Module):
    """Frames thinned out by two strided convolutions, then blocks of attention and convolution; results hidden behind each length."""

    def __init__(self, mels, dim, heads, inner, kernel, depth, classes):
        super().__init__()
        self.dim = dim
        self.thin = nn.Sequential(nn.Conv2d(1, dim // 2, 3, 2), nn.ReLU(), nn.Conv2d(dim // 2, dim // 2, 3, 2), nn.ReLU())
        self.project = nn.Linear(dim // 2 * (((mels - 1) // 2 - 1) // 2), dim)
        self.blocks = nn.ModuleList(ConformerBlock(dim, heads, inner, kernel) for _ in range(depth))
        self.head = nn.Linear(dim, classes)
        settle(self)

    def places(self, t):
        apart = torch.arange(t - 1, -t, -1, dtype=torch.float32)[:, None]
        rates = torch.exp(torch.arange(0, self.dim, 2, dtype=torch.float32) * (-math.log(10000.0) / self.dim))
        return torch.stack([torch.sin(apart * rates), torch.cos(apart * rates)], dim=-1).flatten(1).unsqueeze(0)

    def forward(self, x, lengths):
        x = self.thin(x.unsqueeze(1))
        n, c, t, f = x.shape
        x = self.project(x.transpose(1, 2).reshape(n, t, c * f))
        lengths = ((lengths - 1) // 2 - 1) // 2
        hidden, places = padding_mask(lengths, t), self.places(t)
        for block in self.blocks:
            x = block(x, places, hidden)
        return self.head(x).log_softmax(-1), lengths


class Wav2Vec2(nn.Module):
    """Convolutions over samples, the first one's channels normalised; places from a wide weight-normed convolution; a transformer."""

    def __init__(self, widths, kernels, strides, dim, heads, inner, depth, place_kernel, groups, classes):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(a, b, k, s, bias=False) for a, b, k, s in zip([1] + widths, widths, kernels, strides))
        self.first_norm = nn.GroupNorm(widths[0], widths[0])
        self.norm, self.project = nn.LayerNorm(widths[-1]), nn.Linear(widths[-1], dim)
        self.place = weight_norm(nn.Conv1d(dim, dim, place_kernel, padding=place_kernel // 2, groups=groups), name="weight", dim=2)
        self.place_norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(dim, heads, inner, 0.1, "gelu", batch_first=True) for _ in range(depth))
        self.head = nn.Linear(dim, classes)
        settle(self)

    def forward(self, x):
        x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5)
        x = x.unsqueeze(1)
        for k, conv in enumerate(self.convs):
            x = conv(x)
            x = F.gelu(self.first_norm(x) if k == 0 else x)
        x = self.project(self.norm(x.transpose(1, 2)))
        place = self.place(x.transpose(1, 2))
        if self.place.kernel_size[0] % 2 == 0:
            place = place[..., :-1]
        x = self.place_norm(x + F.gelu(place).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class EmformerLayer(nn.Module):
    """Attention of a segment and its right context to memories of former segments, cached keys and values to its left, and itself."""

    def __init__(self, dim, heads, inner, segment, left, memories):
        super().__init__()
        self.heads, self.segment, self.left, self.memories, self.scale = heads, segment, left, memories, (dim // heads) ** -0.5
        self.kv, self.q, self.out = nn.Linear(dim, 2 * dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm_in, self.norm_out = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, inner), nn.ReLU(), nn.Linear(inner, dim))

    def split(self, x):
        return x.view(x.shape[0], x.shape[1] * self.heads, -1).transpose(0, 1)

    def forward(self, own, right, memory, keys, values, past):
        """All time first: [T, N, C]. `past` counts the frames seen so far."""
        n = own.shape[1]
        y = self.norm_in(torch.cat([right, own]))
        own_y = y[right.shape[0]:]
        summary = own_y.mean(dim=0, keepdim=True)
        queries = torch.cat([y, summary])
        k, v = self.kv(torch.cat([memory, y])).chunk(2, dim=2)
        m = memory.shape[0]
        key = torch.cat([k[:m + right.shape[0]], keys, k[m + right.shape[0]:]])
        value = torch.cat([v[:m + right.shape[0]], values, v[m + right.shape[0]:]])
        q, ks, vs = self.split(self.q(queries)), self.split(key), self.split(value)
        scores = torch.bmm(q * self.scale, ks.transpose(1, 2))
        at = torch.arange(key.shape[0])
        start = m + right.shape[0]
        missing_memory = at < m - torch.clamp(past // self.segment, max=m)
        missing_left = (at >= start) & (at < start + self.left - torch.clamp(past, max=self.left))
        hidden = (missing_memory | missing_left)[None, :].expand(queries.shape[0], -1)
        last = torch.arange(queries.shape[0])[:, None] == queries.shape[0] - 1
        hidden = hidden | (last & (at < m)[None, :])
        scores = scores.masked_fill(hidden.unsqueeze(0), -1e8)
        y = torch.bmm(F.softmax(scores.float(), dim=-1).type_as(scores), vs)
        y = self.out(y.transpose(0, 1).contiguous().view(queries.shape[0], n, -1))
        found, summary = y[:-1], torch.clamp(y[-1:], -10, 10)
        x = torch.cat([right, own]) + found
        x = self.norm_out(x + self.feed(x))
        keys, values = torch.cat([keys, k[start:]])[-self.left:], torch.cat([values, v[start:]])[-self.left:]
        return x[right.shape[0]:], x[:right.shape[0]], torch.cat([memory, summary])[-self.memories:], keys, values


class Emformer(nn.Module):
    """Streaming: a segment and what is known of its future at a time, the states handed in and out."""

    def __init__(self, dim, heads, inner, depth, segment, left, right, memories):
        super().__init__()
        self.right = right
        self.layers = nn.ModuleList(EmformerLayer(dim, heads, inner, segment, left, memories) for _ in range(depth))
        settle(self)

    def forward(self, x, memory, keys, values, past):
        x = x.permute(1, 0, 2)
        own, right = x[:-self.right], x[-self.right:]
        new = []
        for i, layer in enumerate(self.layers):
            own, right, *state = layer(own, right, memory[i], keys[i], values[i], past)
            new.append(state)
        memory, keys, values = (torch.stack(s) for s in zip(*new))
        return own.permute(1, 0, 2), memory, keys, values, past + own.shape[0]


class Tacotron(nn.Module):
    """Letters through convolutions and a recurrence both ways; frames one at a time by cells that look where they looked before."""

    def __init__(self, letters, dim, mels, inner, kernel, filters, steps):
        super().__init__()
        self.steps, self.mels, self.inner = steps, mels, inner
        self.letters = nn.Embedding(letters, dim)
        self.convs = nn.Sequential(*(m for _ in range(2) for m in (nn.Conv1d(dim, dim, 5, padding=2), nn.BatchNorm1d(dim), nn.ReLU(), nn.Dropout(0.5))))
        self.both_ways = nn.LSTM(dim, dim // 2, batch_first=True, bidirectional=True)
        self.before = nn.Sequential(nn.Linear(mels, inner, bias=False), nn.ReLU(), nn.Linear(inner, inner, bias=False), nn.ReLU())
        self.attend, self.decode = nn.LSTMCell(inner + dim, inner), nn.LSTMCell(inner + dim, inner)
        self.query, self.memory = nn.Linear(inner, inner, bias=False), nn.Linear(dim, inner, bias=False)
        self.where_conv, self.where = nn.Conv1d(2, filters, kernel, padding=(kernel - 1) // 2, bias=False), nn.Linear(filters, inner, bias=False)
        self.score = nn.Linear(inner, 1, bias=False)
        self.frame, self.stop = nn.Linear(inner + dim, mels), nn.Linear(inner + dim, 1)
        self.after = nn.Sequential(nn.Conv1d(mels, inner, 5, padding=2), nn.BatchNorm1d(inner), nn.Tanh(), nn.Conv1d(inner, mels, 5, padding=2), nn.BatchNorm1d(mels))
        settle(self)

    def forward(self, ids, lengths):
        n, t = ids.shape
        memory, _ = self.both_ways(self.convs(self.letters(ids).transpose(1, 2)).transpose(1, 2))
        keys, hidden = self.memory(memory), padding_mask(lengths, t)
        zeros = lambda *shape: torch.zeros(shape, dtype=memory.dtype)
        frame, context, weights, total = zeros(n, self.mels), zeros(n, memory.shape[2]), zeros(n, t), zeros(n, t)
        h1, c1, h2, c2 = (zeros(n, self.inner) for _ in range(4))
        frames, stops = [], []
        for _ in range(self.steps):
            h1, c1 = self.attend(torch.cat([self.before(frame), context], -1), (h1, c1))
            where = self.where(self.where_conv(torch.stack([weights, total], 1)).transpose(1, 2))
            scores = self.score(torch.tanh(self.query(h1).unsqueeze(1) + where + keys)).squeeze(-1)
            weights = F.softmax(scores.masked_fill(hidden, float("-inf")), dim=1)
            total = total + weights
            context = torch.bmm(weights.unsqueeze(1), memory).squeeze(1)
            h2, c2 = self.decode(torch.cat([h1, context], -1), (h2, c2))
            both = torch.cat([h2, context], -1)
            frame = self.frame(both)
            frames.append(frame)
            stops.append(self.stop(both))
        frames = torch.stack(frames, 2)
        return frames + self.after(frames), torch.sigmoid(torch.cat(stops, 1))


class CRNN(nn.Module):
    """Text lines: convolutions that flatten the height, a gated recurrence both ways over the width."""

    def __init__(self, widths, hidden, classes, height):
        super().__init__()
        layers, cin = [], 1
        for width in widths:
            layers += [nn.Conv2d(cin, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d((2, 2) if width == widths[0] else (2, 1))]
            cin = width
        self.convs = nn.Sequential(*layers)
        self.gru = nn.GRU(cin * (height >> len(widths)), hidden, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
        self.head = nn.Linear(2 * hidden, classes)
        settle(self)

    def forward(self, x):
        x = self.convs(x).permute(0, 3, 1, 2).flatten(2)
        return F.log_softmax(self.head(self.gru(x)[0]), dim=2)


class VocoderBlock(nn.Module):
    def __init__(self, channels, kernel, dilations):
        super().__init__()
        self.wide = nn.ModuleList(weight_norm(nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2 * d, dilation=d)) for d in dilations)
        self.plain = nn.ModuleList(weight_norm(nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2)) for _ in dilations)

    def forward(self, x):
        for wide, plain in zip(self.wide, self.plain):
            x = x + plain(F.leaky_relu(wide(F.leaky_relu(x, 0.1)), 0.1))
        return x


class Vocoder(nn.Module):
    """Frames to samples: transposed convolutions, each followed by the mean of dilated residual chains of several widths."""

    def __init__(self, mels, channels, rates, kernels, dilations):
        super().__init__()
        self.first = weight_norm(nn.Conv1d(mels, channels, 7, padding=3))
        self.ups, self.blocks, self.count = nn.ModuleList(), nn.ModuleList(), len(kernels)
        for r in rates:
            self.ups.append(weight_norm(nn.ConvTranspose1d(channels, channels // 2, 2 * r, r, padding=r // 2)))
            channels //= 2
            self.blocks.extend(VocoderBlock(channels, k, dilations) for k in kernels)
        self.last = weight_norm(nn.Conv1d(channels, 1, 7, padding=3))

    def forward(self, x):
        x = self.first(x)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            found = None
            for block in self.blocks[i * self.count:(i + 1) * self.count]:
                found = block(x) if found is None else found + block(x)
            x = found / self.count
        return torch.tanh(self.last(F.leaky_relu(x)))


class Demucs(nn.Module):
    """Sources apart: gated strided convolutions down, a recurrence, transposed ones up, each level's input cut to size and added."""

    def __init__(self, channels, depth, sources, kernel=8, stride=4):
        super().__init__()
        self.sources = sources
        self.down, self.up, cin, width = nn.ModuleList(), nn.ModuleList(), 1, channels
        for k in range(depth):
            self.down.append(nn.Sequential(nn.Conv1d(cin, width, kernel, stride), nn.ReLU(), nn.Conv1d(width, 2 * width, 1), nn.GLU(dim=1)))
            cout = sources if k == 0 else cin
            self.up.insert(0, nn.Sequential(nn.Conv1d(width, 2 * width, 3), nn.GLU(dim=1), nn.ConvTranspose1d(width, cout, kernel, stride), *([nn.ReLU()] if k else [])))
            cin, width = width, 2 * width
        self.lstm, self.linear = nn.LSTM(cin, cin, 2, bidirectional=True), nn.Linear(2 * cin, cin)

    def forward(self, x):
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        x = x.permute(2, 0, 1)
        x = self.linear(self.lstm(x)[0]).permute(1, 2, 0)
        for layer in self.up:
            skip = skips.pop()
            cut = skip.shape[-1] - x.shape[-1]
            x = layer(x + skip[..., cut // 2:skip.shape[-1] - (cut - cut // 2)])
        return x.view(x.shape[0], self.sources, 1, x.shape[-1])


class FrontEnd(nn.Module):
    """Samples to logarithms of mel bands and to their cosine transform."""

    def __init__(self, fft, hop, mels, cepstra):
        super().__init__()
        self.fft, self.hop = fft, hop
        self.register_buffer("window", torch.hann_window(fft))
        points = torch.linspace(0, 2595 * math.log10(1 + 8000 / 700), mels + 2)
        points = 700 * (10 ** (points / 2595) - 1)
        slopes = points.unsqueeze(0) - torch.linspace(0, 8000, fft // 2 + 1).unsqueeze(1)
        apart = points[1:] - points[:-1]
        self.register_buffer("bands", torch.clamp(torch.minimum(-slopes[:, :-2] / apart[:-1], slopes[:, 2:] / apart[1:]), min=0.0).T.contiguous() + 1e-3)
        k = torch.arange(cepstra, dtype=torch.float32)[:, None]
        self.register_buffer("cosines", (torch.cos(math.pi / mels * (torch.arange(mels) + 0.5) * k) * math.sqrt(2.0 / mels)))

    def forward(self, x):
        emphasised = torch.cat([x[:1], x[1:] - 0.97 * x[:-1]])
        s = torch.stft(emphasised, self.fft, self.hop, window=self.window, center=True, pad_mode="reflect", return_complex=True)
        mel = torch.matmul(self.bands, s.abs().pow(2.0))
        decibels = 10.0 * torch.log10(torch.clamp(mel, min=1e-10))
        decibels = torch.maximum(decibels, decibels.amax(dim=(-2, -1), keepdim=True) - 80.0)
        logs = torch.log(mel + 1e-6)
        logs = (logs - logs.mean(-1, keepdim=True)) / (logs.var(-1, keepdim=True, correction=0).sqrt() + 1e-5)
        return logs, torch.matmul(self.cosines, decibels)
