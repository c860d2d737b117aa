"""Networks that timm does not have, in plain torch: Swin for dense prediction, an anti-aliased VGG16, face parsing.

They have the part of timm's interface that `stylegan_plugins.vision.networks` uses. Parameters have the names of the
authors' own checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from training_ext.blurpool import BlurPool


class MapNetwork(torch.nn.Module):
    """A network whose features are maps [N, C, h, w] at several scales, from fine to coarse."""

    feature_info: list[dict[str, Any]]
    num_classes = 0

    def maps(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the maps of images [N, 3, H, W], normalised as the network expects them."""
        raise NotImplementedError

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        *_, last = self.maps(x)
        return last

    def forward_head(self, x: torch.Tensor, pre_logits: bool = True) -> torch.Tensor:
        """Average a map over its pixels, [N, C], without a classifier."""
        return x.mean(dim=[2, 3])

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: Sequence[int] | None = None,
        intermediates_only: bool = True,
        output_fmt: str = "NCHW",
    ) -> list[torch.Tensor]:
        levels = list(self.maps(x))
        return levels if indices is None else [levels[index] for index in indices]


class WindowAttention(torch.nn.Module):
    """Self-attention within windows of side w with a relative position bias (Liu et al. 2021, equation 4).

    Windows [B, w * w, C] -> the same shape. Bias table [(2w - 1)^2, heads]."""

    index: torch.Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = torch.nn.Linear(channels, 3 * channels)
        self.proj = torch.nn.Linear(channels, channels)
        self.relative_position_bias_table = torch.nn.Parameter(torch.zeros([(2 * window - 1) ** 2, heads]))
        place = torch.arange(window)
        rows, columns = (axis.flatten() for axis in torch.meshgrid(place, place, indexing="ij"))
        apart = [axis[:, None] - axis[None, :] + window - 1 for axis in (rows, columns)]
        self.register_buffer("index", apart[0] * (2 * window - 1) + apart[1], persistent=False)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """mask: [windows of an image, w * w, w * w], added to the attention's logits."""
        shape = x.shape
        q, k, v = self.qkv(x).reshape(*shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each [B, heads, w * w, c]
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(len(x) // len(mask), 1, 1, 1)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(attended.transpose(1, 2).reshape(shape))


class Mlp(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(channels, 4 * channels), torch.nn.Linear(4 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class SwinBlock(torch.nn.Module):
    """A block, x [N, H, W, C] -> the same shape. shift: of the windows, in pixels, 0 for none."""

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = torch.nn.LayerNorm(channels), torch.nn.LayerNorm(channels)
        self.attn, self.mlp = WindowAttention(channels, heads, window), Mlp(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Pad to whole windows, shift, attend, shift back and crop. (timm shifts before it pads.)"""
        n, height, width, channels = x.shape
        w = self.window
        x = functional.pad(x, [0, 0, 0, -width % w, 0, -height % w])
        rows, columns = x.shape[1] // w, x.shape[2] // w
        x = x.roll([-self.shift, -self.shift], dims=[1, 2])
        x = x.view(n, rows, w, columns, w, channels).transpose(2, 3).reshape(-1, w * w, channels)
        x = self.attn(x, self.mask(rows, columns, x.device) if self.shift else None)
        x = x.view(n, rows, columns, w, w, channels).transpose(2, 3).reshape(n, rows * w, columns * w, channels)
        return x.roll([self.shift, self.shift], dims=[1, 2])[:, :height, :width]

    def mask(self, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        """Return -100 for pairs of pixels of a window that are not neighbours in the image, because the shift moved
        them there, and 0 for others."""
        w = self.window

        def part(count: int) -> torch.Tensor:  # 0, 1 or 2 for each place along an axis
            place = torch.arange(count * w, device=device)
            return (place >= count * w - w).long() + (place >= count * w - self.shift).long()

        region = 3 * part(rows)[:, None] + part(columns)
        region = region.view(rows, w, columns, w).transpose(1, 2).reshape(-1, w * w)
        return -100.0 * (region[:, :, None] != region[:, None, :])


class PatchMerging(torch.nn.Module):
    """A layer [N, H, W, C] -> [N, H/2, W/2, 2C], rounded up. Order of the four pixels: by columns, from the top."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(4 * channels)
        self.reduction = torch.nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.pad(x, [0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2])
        x = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=3)
        return self.reduction(self.norm(x))


class PatchEmbed(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = torch.nn.Conv2d(3, channels, kernel_size=4, stride=4)
        self.norm = torch.nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class SwinStage(torch.nn.Module):
    """Blocks, every second one with shifted windows, then a layer that merges patches (None in the last stage)."""

    def __init__(self, channels: int, depth: int, heads: int, window: int, last: bool) -> None:
        super().__init__()
        self.blocks = torch.nn.Sequential(
            *(SwinBlock(channels, heads, window, window // 2 * (block % 2)) for block in range(depth))
        )
        self.downsample = None if last else PatchMerging(channels)


class DenseSwin(MapNetwork):
    """Swin Transformer for detection and segmentation: for any image size, with a normalised map of each stage.

    Liu et al. 2021 (arXiv:2103.14030). The defaults are Swin-T's, with maps of 96, 192, 384 and 768 channels at 1/4,
    1/8, 1/16 and 1/32 of the image's side. channels: of the first stage; depths, heads: of each stage."""

    def __init__(
        self,
        channels: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(channels)
        self.layers = torch.nn.ModuleList()
        self.feature_info = []
        for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            width = channels * 2**stage
            self.layers.append(SwinStage(width, depth, count, window, last=stage + 1 == len(depths)))
            self.add_module(f"norm{stage}", torch.nn.LayerNorm(width))
            self.feature_info.append({"num_chs": width, "reduction": 4 * 2**stage})

    def maps(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        x = self.patch_embed(x)
        for stage in range(len(self.layers)):
            x = self.get_submodule(f"layers.{stage}.blocks")(x)
            yield self.get_submodule(f"norm{stage}")(x).permute(0, 3, 1, 2)
            if stage + 1 < len(self.layers):
                x = self.get_submodule(f"layers.{stage}.downsample")(x)


class AntialiasedVGG16(MapNetwork):
    """Convolutions of VGG16, whose max pooling has stride 1 and is followed by a low-pass filter with stride 2.

    Zhang 2019, Making Convolutional Networks Shift-Invariant Again (arXiv:1904.11486), with 4 taps. widths: channels of
    the convolutions in each of the blocks."""

    def __init__(
        self, widths: Sequence[Sequence[int]] = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    ) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        self.feature_info = []
        self.ends: list[int] = []  # the last layer of each block, and of the network
        channels = 3
        for block, of_block in enumerate(widths):
            for width in of_block:
                layers += [torch.nn.Conv2d(channels, width, kernel_size=3, padding=1), torch.nn.ReLU()]
                channels = width
            self.ends.append(len(layers) - 1)
            self.feature_info.append({"num_chs": channels, "reduction": 2**block})
            layers.append(torch.nn.MaxPool2d(kernel_size=2, stride=1))
            layers.append(BlurPool(channels, padding=(1, 2, 1, 2), mode="reflect", stride=2, persistent=True))
        self.ends.append(len(layers) - 1)
        self.feature_info.append({"num_chs": channels, "reduction": 2 ** len(widths)})
        self.features = torch.nn.Sequential(*layers)

    def maps(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.ends:
                yield x


class FaceParsing(MapNetwork):
    """The contracting half of the U-Net that parses faces into the 19 classes of CelebAMask-HQ, up to its middle.

    Lee et al. 2020, MaskGAN (arXiv:1907.11922). The last map is the middle's, averaged over 2x2 pixels as the
    vision-aided discriminator reads it: [N, 256, 8, 8] of 256 pixels. widths: channels of each level."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128, 256)) -> None:
        super().__init__()
        self.names = [*(f"conv{level + 1}" for level in range(len(widths) - 1)), "center"]
        self.feature_info = [{"num_chs": width, "reduction": 2**level} for level, width in enumerate(widths)]
        channels = 3
        for name, width in zip(self.names, widths, strict=True):
            level = torch.nn.Module()
            for part, before in (("conv1", channels), ("conv2", width)):
                convolution = torch.nn.Conv2d(before, width, kernel_size=3, padding=1)
                level.add_module(part, torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(width), torch.nn.ReLU()))
            self.add_module(name, level)
            channels = width
        self.feature_info.append({"num_chs": channels, "reduction": 2 ** len(widths)})

    def maps(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        for name in self.names:
            x = self.get_submodule(f"{name}.conv1")(x)
            x = self.get_submodule(f"{name}.conv2")(x)
            yield x
            if name != "center":
                x = functional.max_pool2d(x, kernel_size=2)
        yield functional.avg_pool2d(x, kernel_size=2)
