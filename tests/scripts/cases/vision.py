"""Networks for images: small ones as fixtures, some of the sizes used in earnest on demand."""
import torch
from torch.export import Dim

from architectures import vision
from case import call, model

MOBILE = [(8, 8, 3, 1, 4, False), (16, 8, 5, 1, None, True)]
LARGE_MOBILE = [(16, 16, 3, 1, None, False), (64, 24, 3, 2, None, False), (72, 24, 3, 1, None, False), (72, 40, 5, 2, 24, False), (120, 40, 5, 1, 32, False),
                (120, 40, 5, 1, 32, False), (240, 80, 3, 2, None, True), (200, 80, 3, 1, None, True), (184, 80, 3, 1, None, True), (184, 80, 3, 1, None, True),
                (480, 112, 3, 1, 120, True), (672, 112, 3, 1, 168, True), (672, 160, 5, 2, 168, True), (960, 160, 5, 1, 240, True), (960, 160, 5, 1, 240, True)]
TIGHT = dict(rtol=1e-4, atol=1e-5)


def image(side=16, n=1, dtype=torch.float32):
    return lambda: [call(torch.randn(n, 3, side, side, dtype=dtype))]


def batches(side=16):
    return lambda: [call(torch.randn(n, 3, side, side)) for n in (2, 1)]


def any_batch():
    return ({0: Dim("n", min=1, max=8)},)


def any_size():
    # Multiples, so that every stride divides.
    return ({2: 8 * Dim("h", min=2, max=16), 3: 8 * Dim("w", min=2, max=16)},)


model("resnet_basic", lambda: vision.ResNet((8, 10), (1, 1), False, 5), batches(), dynamic=any_batch, **TIGHT)
model("resnet_any_size", lambda: vision.ResNet((6, 8), (1, 1), False, 5), lambda: [call(torch.randn(1, 3, h, w)) for h, w in ((24, 32), (16, 16))],
      dynamic=any_size, **TIGHT)
model("resnet_bf16", lambda: vision.ResNet((8,), (1,), False, 5), image(dtype=torch.bfloat16), dtype=torch.bfloat16, functional=True, rtol=2e-2, atol=2e-2)
model("regnet", lambda: vision.ResNet((8, 16), (1, 1), True, 5, groups=4, excite=True), image(), **TIGHT)
model("mobilenet_v3", lambda: vision.MobileNetV3(8, MOBILE, 16, 12, 5), batches(), dynamic=any_batch, **TIGHT)
model("efficientnet", lambda: vision.EfficientNet(6, [(1, 6, 3, 1, 1), (3, 8, 5, 2, 1)], 16, 5), image(), **TIGHT)
model("vit", lambda: vision.ViT(16, 8, 16, 2, 32, 1, 5), batches(), dynamic=any_batch, **TIGHT)
model("vit_f16", lambda: vision.ViT(16, 8, 16, 2, 32, 1, 5), image(dtype=torch.float16), dtype=torch.float16, rtol=5e-3, atol=5e-3)
model("swin", lambda: vision.Swin(16, 2, 8, (2,), 4, (2,), 5), batches(), dynamic=any_batch, **TIGHT)
model("convnext", lambda: vision.ConvNeXt((8, 12), (1, 1), 5), batches(), dynamic=any_batch, keep_reference=True, **TIGHT)
model("unet", lambda: vision.UNet((8, 12), 4), lambda: [call(torch.randn(n, 3, 8, 8), torch.tensor([7] * n)) for n in (2, 1)],
      dynamic=lambda: ({0: Dim("n", min=1, max=4)}, {0: Dim("n", min=1, max=4)}), **TIGHT)
model("deeplab_any_size", lambda: vision.DeepLab(4, (2,), 3), lambda: [call(torch.randn(1, 3, h, w)) for h, w in ((24, 32), (16, 16))],
      dynamic=any_size, **TIGHT)
model("detector", lambda: vision.Detector((6, 6, 8), 8, 2, 3, 16, 6), batches(), dynamic=any_batch, keep_reference=True, **TIGHT)
model("densenet", lambda: vision.DenseNet(8, 4, (2, 1), 5), batches(), dynamic=any_batch, **TIGHT)
model("shufflenet", lambda: vision.ShuffleNet(8, (12,), (2,), 16, 5), batches(), dynamic=any_batch, **TIGHT)
model("squeezenet", lambda: vision.SqueezeNet(6, ((3, 4), (4, 6)), 5), image(19), keep_reference=True, **TIGHT)
model("ssd", lambda: vision.SSD((6, 8, 8), 2, 3), image(10), **TIGHT)
model("vae_decoder", lambda: vision.Decoder(4, (8, 8), 4), lambda: [call(torch.randn(1, 4, 6, 6))], **TIGHT)
model("yolo", lambda: vision.YOLO(4, 3, 4), batches(32), dynamic=any_batch, **TIGHT)
model("windowed_vit", lambda: vision.WindowedViT(12, 2, 12, 2, 4, 2, 8), image(12), **TIGHT)

LARGE = dict(large=True, rtol=1e-3, atol=1e-4)
model("resnet18", lambda: vision.ResNet((64, 128, 256, 512), (2, 2, 2, 2), False, 1000), image(64), **LARGE)
model("resnet50", lambda: vision.ResNet((256, 512, 1024, 2048), (3, 4, 6, 3), True, 1000, stem=64), image(64), **LARGE)
model("mobilenet_v3_large", lambda: vision.MobileNetV3(16, LARGE_MOBILE, 960, 1280, 1000), image(64), **LARGE)
model("efficientnet_b0", lambda: vision.EfficientNet(32, [(1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2), (6, 80, 3, 2, 3), (6, 112, 5, 1, 3), (6, 192, 5, 2, 4),
                                                          (6, 320, 3, 1, 1)], 1280, 1000), image(64), **LARGE)
model("vit_b16", lambda: vision.ViT(64, 16, 768, 12, 3072, 12, 1000), image(64), **LARGE)
model("swin_t", lambda: vision.Swin(112, 4, 96, (3, 6, 12), 7, (2, 2, 6), 1000), image(112), **LARGE)
model("convnext_tiny", lambda: vision.ConvNeXt((96, 192, 384, 768), (3, 3, 9, 3), 1000), image(64), **LARGE)
model("densenet121", lambda: vision.DenseNet(64, 32, (6, 12, 24, 16), 1000), image(64), **LARGE)
model("unet_wide", lambda: vision.UNet((128, 256, 512), 32), lambda: [call(torch.randn(1, 3, 16, 16), torch.tensor([500]))], **LARGE)
model("deeplab_resnet50", lambda: vision.DeepLab(256, (12, 24, 36), 21, vision.dilated_resnet((256, 512, 1024, 2048), (3, 4, 6, 3), (1, 1, 2, 4), 64)), image(64), **LARGE)
