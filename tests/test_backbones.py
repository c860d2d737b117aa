"""Frozen networks: real pretrained weights where the package index has them, and clear errors where nothing has."""

from __future__ import annotations

import time

import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch

from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.vision import backbones
from stylegan_plugins.vision.networks import Backbone

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def lite0():
    return backbones.load("efficientnet_lite0")


def photograph(name: str) -> torch.Tensor:
    """Return the middle square, [1, 3, 224, 224] in [-1, 1]."""
    image = PIL.Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.resize((224, 224), PIL.Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize("name, words", [("chelsea", ["cat"]), ("coffee", ["espresso", "cup"]), ("camera", ["tripod"])])
def test_pretrained_lite0_knows_what_photographs_show(lite0, name, words):
    import timm

    names = timm.data.ImageNetInfo()
    with torch.no_grad():
        logits = lite0.model(lite0.prepare(photograph(name)))
    best = names.index_to_description(int(logits.argmax())).split(",")[0].lower()
    assert any(word in best for word in words), best


def test_features_are_what_the_classifier_reads(lite0):
    image = photograph("coffee")
    with torch.no_grad():
        features = lite0(image)
        assert features.shape == (1, 1280)
        torch.testing.assert_close(lite0.model.classifier(features), lite0.model(lite0.prepare(image)))


def test_images_of_any_size_and_color_are_taken(lite0):
    with torch.no_grad():
        assert lite0(torch.zeros([2, 1, 32, 32])).shape == (2, 1280)
        gray = torch.rand([1, 1, 64, 64]) * 2 - 1
        torch.testing.assert_close(lite0(gray), lite0(gray.expand(-1, 3, -1, -1)))


def test_a_backbone_is_frozen_and_stays_in_evaluation_mode(lite0):
    assert not any(parameter.requires_grad for parameter in lite0.parameters())
    lite0.train()
    assert not any(module.training for module in lite0.modules())
    x = torch.rand([1, 3, 32, 32], requires_grad=True)
    lite0(x).sum().backward()
    assert x.grad.any()


@pytest.mark.parametrize("name", sorted(name for name, recipe in backbones.BACKBONES.items() if not recipe.source))
def test_every_backbones_architecture_makes_features(name):
    """timm knows the model's name, and its features are vectors, on random weights and small images."""
    import timm

    architecture = backbones.BACKBONES[name].timm.split(".")[0]
    arguments = {"num_classes": 0, "img_size": 56, "depth": 2} if "vit" in architecture else {}
    side = 224 if "swin" in architecture else 56
    model = timm.create_model(architecture, pretrained=False, **arguments)
    backbone = Backbone(model, (0.5,) * 3, (0.5,) * 3, side)
    with torch.no_grad():
        features = backbone(torch.zeros([2, 3, 32, 32]))
    assert features.ndim == 2 and len(features) == 2 and torch.isfinite(features).all()
    assert timm.models.get_pretrained_cfg(backbones.BACKBONES[name].timm) is not None


def test_weights_for_larger_images_are_taken(monkeypatch, tmp_path):
    """DINOv2 was trained with 518 pixels; it sees 224 here. A small one of the family."""
    import timm

    name = "vit_small_patch14_dinov2"
    model = timm.create_model(name, pretrained=False, num_classes=0)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    monkeypatch.setitem(backbones.BACKBONES, "dinov2", backbones.Recipe(f"{name}.lvd142m", size=224))
    backbone = backbones.load("dinov2", tmp_path / "weights.pth")
    with torch.no_grad():
        assert backbone(torch.zeros([1, 3, 32, 32])).shape == (1, 384) and backbone.size == 224
    assert torch.equal(backbone.model.pos_embed, model.pos_embed)


def test_random_numbers_are_left_as_they_were():
    torch.manual_seed(0)
    expected = torch.rand([3])
    torch.manual_seed(0)
    backbones.load("efficientnet_lite0")
    assert torch.equal(torch.rand([3]), expected)


def test_missing_weights_without_a_network_are_one_error_soon(monkeypatch, tmp_path):
    monkeypatch.setattr(backbones, "HUB", "http://127.0.0.1:9")
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path))
    begin = time.monotonic()
    with pytest.raises(DataError) as error:
        backbones.load("vgg16", flag="--disp-features")
    assert time.monotonic() - begin < 10
    message = str(error.value)
    assert "--disp-features=vgg16" in message and str(tmp_path / "backbones" / "vgg16.tv_in1k.safetensors") in message
    assert "http://127.0.0.1:9/timm/vgg16.tv_in1k/resolve/main/model.safetensors" in message and "\n" not in message


def test_weights_are_taken_from_where_the_error_says(monkeypatch, tmp_path):
    import safetensors.torch
    import timm

    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path))
    file = tmp_path / "backbones" / "tf_efficientnet_lite0.in1k.safetensors"
    file.parent.mkdir()
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    safetensors.torch.save_file(model.state_dict(), file)
    monkeypatch.setitem(backbones.BACKBONES, "efficientnet_lite0", backbones.Recipe("tf_efficientnet_lite0.in1k"))
    loaded = backbones.load("efficientnet_lite0")
    assert torch.equal(loaded.model.conv_stem.weight, model.conv_stem.weight)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot be read as weights"),
        (b"not weights at all", "cannot be read as weights"),
        ({"a": torch.zeros(2)}, "another network: it lacks conv_stem.weight and"),
        ([1, 2], "no tensors by name"),
    ],
)
def test_damaged_and_foreign_weights_are_refused(content, message, tmp_path):
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(DataError, match=message):
        backbones.load("efficientnet_lite0", file)
    broken = tmp_path / "weights.safetensors"
    broken.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{broken")
    with pytest.raises(DataError, match="cannot be read as weights"):
        backbones.load("efficientnet_lite0", broken)


def test_an_unknown_backbone_is_told_with_the_known_ones():
    with pytest.raises(OptionError, match="--features=resnet.*vgg16"):
        backbones.load("resnet")


def test_a_side_may_be_named(lite0):
    (model,) = backbones.models_of("efficientnet_lite0@96", "--features")
    levels = model.load("--features", resize="bilinear")
    assert model.key == "efficientnet_lite0_96" and levels.shapes == [(1280, 3, 3)]
    images = photograph("chelsea")
    (seen,) = levels(images)
    with torch.no_grad():
        small = torch.nn.functional.interpolate(images, size=96, mode="bilinear", align_corners=False, antialias=True)
        expected = lite0.model.forward_features(small)  # its normalisation is that of [-1, 1]
    assert torch.allclose(seen, expected, atol=1e-4)
    for name, message in (("swin@128", "one size"), ("clip@x", "number of pixels"), ("clip@8", "32 or more")):
        with pytest.raises(OptionError, match=message):
            backbones.recipe_of(name, "--features")
