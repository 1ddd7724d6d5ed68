"""Networks for words, clicks and states, each in the shape in which they are known, of any width; written for these tests."""
import math

import torch
import torch.nn.functional as F
from torch import nn

from architectures.vision import settle


class BertLayer(nn.Module):
    def __init__(self, dim, heads, inner):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-12), nn.LayerNorm(dim, eps=1e-12)
        self.up, self.down = nn.Linear(dim, inner), nn.Linear(inner, dim)

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).permute(0, 2, 1, 3)

    def forward(self, x, mask):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(q.shape[-1]) + mask
        y = torch.matmul(F.softmax(scores, dim=-1), v).permute(0, 2, 1, 3).contiguous()
        x = self.norm1(x + self.out(y.view(y.shape[0], y.shape[1], -1)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):
    """Words, kinds and places added up; attention written out with a mask of large negatives; the first word's vector pooled."""

    def __init__(self, vocab, dim, heads, inner, depth, longest):
        super().__init__()
        self.words, self.kinds, self.places = nn.Embedding(vocab, dim, padding_idx=0), nn.Embedding(2, dim), nn.Embedding(longest, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(dim, heads, inner) for _ in range(depth))
        self.pool = nn.Linear(dim, dim)
        self.register_buffer("numbers", torch.arange(longest).expand((1, -1)), persistent=False)
        settle(self)

    def forward(self, ids, present):
        at = self.numbers[:, :ids.shape[1]]
        x = self.norm(self.words(ids) + self.kinds(torch.zeros_like(ids)) + self.places(at))
        mask = (1.0 - present[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pool(x[:, 0]))


class T5Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x):
        spread = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(spread + 1e-6))


class T5Attention(nn.Module):
    def __init__(self, dim, heads, head, buckets=None, both_ways=True):
        super().__init__()
        self.heads, self.buckets, self.both_ways = heads, buckets, both_ways
        self.q, self.k, self.v = (nn.Linear(dim, heads * head, bias=False) for _ in range(3))
        self.out = nn.Linear(heads * head, dim, bias=False)
        self.bias = nn.Embedding(buckets, heads) if buckets else None

    def places(self, n, farthest=16):
        """The bucket of every pair: exact near by, by logarithm farther away."""
        apart = torch.arange(n, dtype=torch.long)[None, :] - torch.arange(n, dtype=torch.long)[:, None]
        count, bucket = self.buckets, 0
        if self.both_ways:
            count //= 2
            bucket = bucket + (apart > 0).to(torch.long) * count
            apart = torch.abs(apart)
        else:
            apart = -torch.min(apart, torch.zeros_like(apart))
        exact = count // 2
        far = exact + (torch.log(apart.float() / exact) / math.log(farthest / exact) * (count - exact)).to(torch.long)
        far = torch.min(far, torch.full_like(far, count - 1))
        bucket = bucket + torch.where(apart < exact, apart, far)
        return self.bias(bucket).permute([2, 0, 1]).unsqueeze(0)

    def forward(self, x, bias, source=None):
        source = x if source is None else source
        split = lambda t: t.view(t.shape[0], -1, self.heads, t.shape[-1] // self.heads).transpose(1, 2)
        q, k, v = split(self.q(x)), split(self.k(source)), split(self.v(source))
        scores = torch.matmul(q, k.transpose(3, 2))
        if bias is not None:
            scores = scores + bias
        y = F.softmax(scores.float(), dim=-1).type_as(scores) @ v
        return self.out(y.transpose(1, 2).contiguous().view(x.shape[0], -1, y.shape[1] * y.shape[3]))


class T5(nn.Module):
    """Encoder and decoder: norms without means, gated feed-forward, biases by bucket of distance shared by the layers."""

    def __init__(self, vocab, dim, heads, head, inner, depth, buckets):
        super().__init__()
        self.words, self.dim = nn.Embedding(vocab, dim), dim
        feed = lambda: nn.ModuleList([nn.Linear(dim, inner, bias=False), nn.Linear(dim, inner, bias=False), nn.Linear(inner, dim, bias=False)])
        own = lambda k, both: T5Attention(dim, heads, head, buckets if k == 0 else None, both)
        self.encoder = nn.ModuleList(nn.ModuleList([T5Norm(dim), own(k, True), T5Norm(dim), feed()]) for k in range(depth))
        self.decoder = nn.ModuleList(nn.ModuleList([T5Norm(dim), own(k, False), T5Norm(dim), T5Attention(dim, heads, head), T5Norm(dim), feed()]) for k in range(depth))
        self.norms = nn.ModuleList([T5Norm(dim), T5Norm(dim)])

    @staticmethod
    def fed(layers, x):
        gate, up, down = layers
        return down(F.gelu(gate(x), approximate="tanh") * up(x))

    def forward(self, ids, said):
        x = self.words(ids)
        bias = self.encoder[0][1].places(ids.shape[1])
        for norm1, attention, norm2, feed in self.encoder:
            x = x + attention(norm1(x), bias)
            x = x + self.fed(feed, norm2(x))
        source, n = self.norms[0](x), said.shape[1]
        later = torch.full((n, n), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
        bias = self.decoder[0][1].places(n) + later
        y = self.words(said)
        for norm1, attention, norm2, cross, norm3, feed in self.decoder:
            y = y + attention(norm1(y), bias)
            y = y + cross(norm2(y), None, source)
            y = y + self.fed(feed, norm3(y))
        return self.norms[1](y) * self.dim ** -0.5 @ self.words.weight.T


class Recommender(nn.Module):
    """Bags of categories and dense numbers, the products of all pairs of them, and a click's probability."""

    def __init__(self, tables, dim, dense, inner, mode):
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(n, dim, mode=mode) for n in tables)
        self.bottom = nn.Sequential(nn.Linear(dense, inner), nn.ReLU(), nn.Linear(inner, dim), nn.ReLU())
        count = len(tables) + 1
        self.register_buffer("pairs", torch.tril_indices(count, count, -1))
        self.top = nn.Sequential(nn.Linear(dim + count * (count - 1) // 2, inner), nn.ReLU(), nn.Linear(inner, 1), nn.Sigmoid())

    def forward(self, dense, ids, offsets):
        x = self.bottom(dense)
        found = torch.stack([x] + [bag(ids[k], offsets[k]) for k, bag in enumerate(self.bags)], dim=1)
        products = torch.bmm(found, found.transpose(1, 2))
        return self.top(torch.cat([x, products[:, self.pairs[0], self.pairs[1]]], dim=1))


class Mamba(nn.Module):
    """A selective state space: over a sequence in a loop, and a step at a time with its state handed around."""

    def __init__(self, dim, inner, state, kernel, rank):
        super().__init__()
        self.inner, self.state, self.kernel, self.rank = inner, state, kernel, rank
        self.enter, self.leave = nn.Linear(dim, 2 * inner, bias=False), nn.Linear(inner, dim, bias=False)
        self.conv = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        self.select, self.step_size = nn.Linear(inner, rank + 2 * state, bias=False), nn.Linear(rank, inner)
        self.log_a = nn.Parameter(torch.log(torch.arange(1, state + 1).float()).repeat(inner, 1))
        self.skip = nn.Parameter(torch.rand(inner))

    def selected(self, x):
        dt, b, c = torch.split(self.select(x), [self.rank, self.state, self.state], dim=-1)
        return F.softplus(self.step_size(dt)), b, c

    def forward(self, x):
        n = x.shape[1]
        x, gate = self.enter(x).chunk(2, dim=-1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., :n]).transpose(1, 2)
        dt, b, c = self.selected(x)
        decay = torch.exp(dt.unsqueeze(-1) * -torch.exp(self.log_a))
        grow = dt.unsqueeze(-1) * b.unsqueeze(2) * x.unsqueeze(-1)
        h, ys = torch.zeros(x.shape[0], self.inner, self.state), []
        for t in range(n):
            h = decay[:, t] * h + grow[:, t]
            ys.append((h * c[:, t].unsqueeze(1)).sum(-1))
        y = torch.stack(ys, dim=1) + self.skip * x
        return self.leave(y * F.silu(gate)), h

    def step(self, x, seen, h):
        x, gate = self.enter(x).chunk(2, dim=-1)
        seen = torch.roll(seen, shifts=-1, dims=-1)
        seen[:, :, -1] = x
        x = F.silu(torch.sum(seen * self.conv.weight.squeeze(1), dim=-1) + self.conv.bias)
        dt, b, c = self.selected(x)
        h = h * torch.exp(dt.unsqueeze(-1) * -torch.exp(self.log_a)) + dt.unsqueeze(-1) * b.unsqueeze(1) * x.unsqueeze(-1)
        y = torch.einsum("bdn,bn->bd", h, c) + self.skip * x
        return self.leave(y * F.silu(gate)), seen, h


class RWKV(nn.Module):
    """Receptance, weight, key, value: a running weighted mean kept with its largest exponent, a token at a time."""

    def __init__(self, dim):
        super().__init__()
        self.mixes = nn.Parameter(torch.rand(5, dim))
        self.decay, self.first = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(dim))
        self.k, self.v, self.r, self.o = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.up, self.down, self.gate = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(3 * dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        for name, value in (("last1", torch.zeros(1, dim)), ("last2", torch.zeros(1, dim)), ("above", torch.zeros(1, dim)), ("below", torch.zeros(1, dim)),
                            ("most", torch.full((1, dim), -1e30))):
            self.register_buffer(name, value)
        settle(self)

    def forward(self, x):
        y = self.norm1(x)
        k, v, r = (torch.lerp(self.last1, y, self.mixes[i]) for i in range(3))
        self.last1.copy_(y)
        k, v, r = self.k(k), self.v(v), torch.sigmoid(self.r(r))
        most = torch.maximum(self.most, self.first + k)
        a, b = torch.exp(self.most - most), torch.exp(self.first + k - most)
        found = (a * self.above + b * v) / (a * self.below + b)
        decay = -torch.exp(self.decay)
        most = torch.maximum(self.most + decay, k)
        a, b = torch.exp(self.most + decay - most), torch.exp(k - most)
        self.above.copy_(a * self.above + b * v)
        self.below.copy_(a * self.below + b)
        self.most.copy_(most)
        x = x + self.o(r * found)
        y = self.norm2(x)
        k, r = torch.lerp(self.last2, y, self.mixes[3]), torch.lerp(self.last2, y, self.mixes[4])
        self.last2.copy_(y)
        return x + torch.sigmoid(self.gate(r)) * self.down(torch.square(torch.relu(self.up(k))))
