"""The perceptual decoder of vision-aided: the authors' numbers, its stages, and what it reads and trains."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, conv2d, leaky_relu

from stylegan_plugins.errors import OptionError
from stylegan_plugins.vision import backbones
from stylegan_plugins.vision.networks import Backbone, Levels
from training_ext.perceptual_decoder import PerceptualDecoder

GOLDEN = Path(__file__).parent / "golden" / "perceptual_decoder.npz"
SHAPES = [(3, 256, 256), (4, 128, 128), (5, 64, 64), (6, 32, 32), (7, 16, 16)]


def drawn(name: str, shape) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).randn(*shape))


def theirs(name: str) -> str:
    """Return the authors' name of our parameter."""
    part, _, rest = name.partition(".")
    place, _, kind = rest.partition(".")
    numbers = {"enter": {"128": 0, "64": 1, "32": 2, "16": 3}, "out": {"8": 0, "4": 1}}
    if part == "down":
        return f"blocks.{place}.0.{kind}"
    if part == "enter":
        return f"input_blocks.{numbers[part][place]}.0.{kind}"
    return f"output_blocks.2.{rest}" if part == "whole" else f"output_blocks.{numbers[part][place]}.{kind}"


@pytest.mark.unit
def test_logits_and_gradients_equal_the_authors_8aee660():
    """With equalised learning rate, weights are theirs divided by a gain, and gradients theirs times it."""
    golden = np.load(GOLDEN, allow_pickle=False)
    decoder = PerceptualDecoder(SHAPES).double()
    gains = {}
    for name, parameter in decoder.named_parameters():
        values = drawn(theirs(name), parameter.shape) / parameter[0].numel() ** 0.5
        gains[name] = decoder.get_submodule(name.rpartition(".")[0]).gain if name.endswith("weight") else 1.0
        parameter.data = values / gains[name]
    levels = [drawn(f"level{k}", [2, *shape]).requires_grad_(True) for k, shape in enumerate(SHAPES)]
    logits = decoder(levels, torch.zeros([2, 0]))
    assert [tuple(value.shape) for value in logits] == [(2, 8, 8), (2, 4, 4), (2, 1)]
    for k, value in enumerate(logits):
        torch.testing.assert_close(
            value, torch.from_numpy(golden[f"logits{k}"]).reshape(value.shape), rtol=1e-9, atol=1e-9
        )
    loss = sum(binary_cross_entropy_with_logits(value, torch.ones_like(value)) for value in logits)
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-9)
    names = [*(f"level{k}" for k in range(len(levels))), *gains]
    gradients = torch.autograd.grad(loss, [*levels, *decoder.parameters()])
    for name, gradient in zip(names, gradients, strict=True):
        key = name if name.startswith("level") else theirs(name)
        probe = drawn(f"{key}/probe", gradient.shape)
        actual = (gradient / gains.get(name, 1.0) * probe).sum().item()
        assert actual == pytest.approx(float(golden[f"grad/{key}"]), rel=1e-6), name
    assert {key for key in golden if key.startswith("grad/")} == {
        f"grad/{name if name.startswith('level') else theirs(name)}" for name in names
    }


@pytest.mark.unit
def test_stages_end_below_eight_pixels_and_labels_are_projected():
    """Maps of 14 and 7 pixels, recomputed from the equations."""
    torch.manual_seed(0)
    decoder = PerceptualDecoder([(2, 14, 14), (3, 7, 7)], labels=4).double()
    levels = [torch.randn([2, 2, 14, 14]).double(), torch.randn([2, 3, 7, 7]).double()]
    labels = torch.eye(4)[:2].double()

    def convolved(layer, x, gain, **how):
        return conv2d(x, layer.weight * gain / layer.weight[0].numel() ** 0.5, layer.bias, **how)

    first = leaky_relu(convolved(decoder.down[0], levels[0], 2**0.5, stride=2, padding=1), 0.2)
    entered = leaky_relu(convolved(decoder.enter["7"], levels[1], 2**0.5, padding=1), 0.2)
    hidden = torch.cat([first, entered], dim=1)
    embedded = labels @ decoder.embed.weight[:, :, 0, 0].T / 2 + decoder.embed.bias
    embedded = embedded / embedded.square().mean(dim=1, keepdim=True).sqrt()
    projected = (hidden.mean(dim=[2, 3]) * embedded).sum(dim=1, keepdim=True) / 128**0.5
    expected = [
        convolved(decoder.out["7"], hidden, 1, padding=1)[:, 0],
        convolved(decoder.whole, hidden, 1).flatten(1) + projected,
    ]
    for ours, theirs in zip(decoder(levels, labels), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.host
@pytest.mark.parametrize(
    "name, shapes",
    [
        ("vgg16", [(64, 224), (128, 112), (256, 56), (512, 28), (512, 14)]),
        ("vgg16_antialiased", [(64, 224), (128, 112), (256, 56), (512, 28), (512, 14)]),
        ("efficientnet_lite0", [(16, 112), (24, 56), (40, 28), (112, 14), (320, 7)]),
        ("swin", [(96, 56), (192, 28), (384, 14), (768, 7)]),
        ("det_coco", [(96, 64), (192, 32), (384, 16), (768, 8)]),
        ("face_seg", [(16, 256), (32, 128), (64, 64), (128, 32), (256, 16)]),
        ("face_normals", [(64, 128), (64, 64), (128, 32), (256, 16), (512, 8)]),
    ],
)
def test_maps_of_every_scale_enter(name, shapes):
    recipe = backbones.BACKBONES[name]
    with torch.device("meta"):
        levels = backbones.levels_of(backbones.create(recipe), recipe, scales=True)
        assert levels.shapes == [(channels, side, side) for channels, side in shapes]
        decoder = PerceptualDecoder(levels.shapes, labels=3)
        logits = decoder(levels(torch.zeros([2, 3, 32, 32])), torch.zeros([2, 3]))
    assert len(decoder.enter) == len(shapes) - 1 and logits[-1].shape == (2, 1)


@pytest.mark.host
def test_a_transformer_of_one_scale_is_refused():
    with pytest.raises(OptionError, match="VisionTransformer has no maps at several scales"):
        Levels(Backbone(timm.create_model("test_vit"), (0.5,) * 3, (0.5,) * 3, 160), scales=True)
