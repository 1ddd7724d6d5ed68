"""Networks for sound: small ones as fixtures, some of the sizes used in earnest on demand."""
import torch
from torch.export import Dim

from architectures import audio
from case import call, model

TIGHT = dict(rtol=1e-4, atol=1e-5)
LARGE = dict(large=True, rtol=1e-3, atol=1e-4)


def frames():
    return [call(torch.randn(n, t, 15), torch.tensor([t] + [t - 7] * (n - 1))) for n, t in ((2, 31), (1, 39))]


def any_frames():
    n, t = Dim("n", min=1, max=4), Dim("t", min=4, max=32)
    return ({0: n, 1: 4 * t + 3}, {0: n})


def segments(layers, dim, segment, right, left, memories, count):
    def steps():
        states = lambda t: torch.randn(layers, t, 1, dim)
        return [call(torch.randn(1, segment + right, dim), states(memories), states(left), states(left), torch.tensor(past)) for past in range(0, count * segment, segment)]

    return steps


model("conformer", lambda: audio.Conformer(15, 12, 2, 24, 7, 1, 6), frames, dynamic=any_frames, **TIGHT)
model("wav2vec2", lambda: audio.Wav2Vec2([8, 8, 8], [10, 3, 2], [5, 2, 2], 12, 2, 24, 1, 8, 4, 6), lambda: [call(torch.randn(1, 400))], **TIGHT)
model("wav2vec2_any_length", lambda: audio.Wav2Vec2([8, 8], [10, 3], [5, 2], 12, 2, 24, 1, 8, 4, 6), lambda: [call(torch.randn(1, n)) for n in (400, 200, 330)],
      dynamic=lambda: ({1: 10 * Dim("n", min=8, max=64)},), **TIGHT)
model("emformer", lambda: audio.Emformer(12, 2, 16, 1, 4, 6, 1, 2), segments(1, 12, 4, 1, 6, 2, 3), **TIGHT)
model("tacotron", lambda: audio.Tacotron(20, 12, 6, 10, 5, 4, 2), lambda: [call(torch.randint(0, 20, (2, 6)), torch.tensor([6, 4]))], **TIGHT)
model("crnn", lambda: audio.CRNN((6, 8), 8, 7, 8), lambda: [call(torch.randn(2, 1, 8, 16))], **TIGHT)
model("vocoder", lambda: audio.Vocoder(6, 8, (4, 2), (3,), (1, 3)), lambda: [call(torch.randn(1, 6, 9))], **TIGHT)
model("vocoder_any_length", lambda: audio.Vocoder(6, 8, (4,), (3,), (1,)), lambda: [call(torch.randn(1, 6, n)) for n in (9, 4, 17)],
      dynamic=lambda: ({2: Dim("n", min=2, max=32)},), functional=True, **TIGHT)
model("demucs", lambda: audio.Demucs(4, 2, 2), lambda: [call(torch.randn(1, 1, 200))], **TIGHT)
model("front_end", lambda: audio.FrontEnd(16, 3, 8, 5), lambda: [call(torch.randn(n)) for n in (100, 64, 121)],
      dynamic=lambda: ({0: Dim("n", min=64, max=128)},), rtol=1e-4, atol=1e-4, keep_reference=True)

model("conformer_large", lambda: audio.Conformer(79, 256, 4, 1024, 31, 12, 128), lambda: [call(torch.randn(1, 127, 79), torch.tensor([127]))], **LARGE)
model("wav2vec2_base", lambda: audio.Wav2Vec2([512] * 7, [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2], 768, 12, 3072, 12, 128, 16, 32),
      lambda: [call(torch.randn(1, 4000))], **LARGE)
model("vocoder_v1", lambda: audio.Vocoder(80, 512, (8, 8, 2, 2), (3, 7, 11), (1, 3, 5)), lambda: [call(torch.randn(1, 80, 6))], **LARGE)
model("front_end_80", lambda: audio.FrontEnd(400, 160, 80, 40), lambda: [call(torch.randn(40000)) for _ in range(2)], **LARGE)
model("emformer_rnnt", lambda: audio.Emformer(512, 8, 2048, 20, 16, 30, 4, 4), segments(20, 512, 16, 4, 30, 4, 3), **LARGE)
model("tacotron2", lambda: audio.Tacotron(148, 512, 80, 1024, 31, 32, 20), lambda: [call(torch.randint(0, 148, (2, 24)), torch.tensor([24, 17]))], **LARGE)
