"""Weights in the layouts in which the authors of frozen networks publish them: names, shapes and features."""

from __future__ import annotations

import argparse
import json
import math
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer

from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.run import host_metrics
from stylegan_plugins.vision import backbones, extractors, layouts
from stylegan_plugins.vision.architectures import AntialiasedVGG16, DenseSwin, FaceParsing

pytestmark = pytest.mark.host

GOLDEN = np.load(Path(__file__).parent / "golden" / "vision_layouts.npz", allow_pickle=False)
BUFFERS = ("relative_position_index", "attn_mask", "num_batches_tracked")
WIDTHS = ((4, 4), (8, 8), (12,), (16,), (16,))  # of the small VGG
# layout -> backbones that read it, prefix of its names in a checkpoint, a network of the small size, rows of features
CASES = {
    "dense": (["det_coco", "seg_ade", "swin"], "backbone.", lambda: DenseSwin(12, (2,) * 4, (1, 2, 3, 4))),
    "openmmlab": (["det_coco", "seg_ade", "swin"], "backbone.", lambda: DenseSwin(12, (2,) * 4, (1, 2, 3, 4))),
    "moby": (["swin"], "encoder.", lambda: small_classifier()),
    "swin": (["swin"], "", lambda: small_classifier()),
    "antialiased": (["vgg16_antialiased"], "", lambda: AntialiasedVGG16(WIDTHS)),
    "face_seg": (["face_seg"], "", lambda: FaceParsing((4, 8, 16, 32, 64))),
    "face_normals": (["face_normals"], "", lambda: timm.create_model("resnet18")),
}


def small_classifier() -> SwinTransformer:
    network = SwinTransformer(embed_dim=12, depths=(2,) * 4, num_heads=(1, 2, 3, 4))
    network.pretrained_cfg = {"classifier": "head.fc"}
    return network


def drawn(name: str, shape: list[int]) -> torch.Tensor:
    """Draw weights as benchmarks/record_vision_layouts.py does."""
    values = torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).randn(*shape))
    if name.endswith("running_var"):
        return 0.5 + values.abs()
    if name.endswith("weight") and len(shape) > 1:
        return values / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


def names_of(layout: str, kind: str = "names") -> dict[str, list[int]]:
    """Return names and shapes as the authors' class has them; the part that is read, where the rest is large."""
    names = json.loads(str(GOLDEN[f"{layout}/{kind}"]))
    part = {"face_normals": "base_model.", "antialiased": "features."}.get(layout, "")
    return {name: shape for name, shape in names.items() if name.startswith(part)}


def small_state(layout: str) -> dict[str, torch.Tensor]:
    names = names_of(layout, "small/names")
    state = {
        name: torch.zeros(shape) if name.endswith(BUFFERS) else drawn(name, shape) for name, shape in names.items()
    }
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    filters = {name: (taps[:, None] * taps).expand(names[name]) for name in names if name.endswith("filt")}
    return {**state, **filters}


@pytest.mark.parametrize("layout, name", [(layout, name) for layout, (names, *_) in CASES.items() for name in names])
def test_published_names_and_shapes_fill_every_weight(layout, name):
    """At full size, on the device `meta`; with the prefix of a checkpoint, and of several processes."""
    recipe = backbones.BACKBONES[name]
    with torch.device("meta"):
        expected = backbones.create(recipe).model.state_dict()
        prefix = "module." + CASES[layout][1]
        state = {f"{prefix}{key}": torch.zeros(shape) for key, shape in names_of(layout).items()}
        state |= {f"encoder_k.{key}": torch.zeros(1) for key in expected} | {"queue1": torch.zeros(1)}
        found = layouts.fitted(state, expected)
    lacking = {key for key in expected if key not in found}
    assert {key for key in lacking if not key.startswith("head.fc.")} == set()
    assert layout in ("dense", "openmmlab", "moby") or not lacking
    assert [key for key in expected if key in found and found[key].shape != expected[key].shape] == []


@pytest.mark.parametrize("layout", CASES)
def test_features_equal_those_of_the_authors_class(layout, monkeypatch, tmp_path):
    names, prefix, network = CASES[layout]
    state = {f"{prefix}{name}": value for name, value in small_state(layout).items()}
    nested = "model" if layout in ("moby", "swin") else "state_dict"
    torch.save({nested: {**state, "decode_head.bias": torch.zeros(2)}, "meta": {"epoch": 12}}, tmp_path / "w.pth")
    side = int(GOLDEN[f"{layout}/side"])
    recipe = backbones.Recipe("", size=side, network=lambda: network().double())
    monkeypatch.setitem(backbones.BACKBONES, names[0], recipe)
    model = backbones.load(names[0], tmp_path / "w.pth").model
    image = drawn(f"{layout}/image", [1, 3, side, side]) * 10
    with torch.no_grad():
        last = model.forward_features(image)
        last = last.permute(0, 3, 1, 2) if layout in ("moby", "swin") else last
        last = last[:, ::8] if layout == "face_normals" else last
        expected = [torch.from_numpy(GOLDEN[key]) for key in GOLDEN.files if key.startswith(f"{layout}/features")]
        torch.testing.assert_close(last, expected[-1], rtol=0, atol=1e-9 * expected[-1].abs().max().item())
        if len(expected) > 1:  # a normalised map of each stage
            for ours, theirs in zip(model.forward_intermediates(image, range(4)), expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * theirs.abs().max().item())


def test_vgg_of_torchvision_becomes_timms():
    """Whose classifier is made of convolutions: the same sums."""
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        theirs, ours = torchvision.models.vgg16().state_dict(), timm.create_model("vgg16").state_dict()
    found = layouts.fitted(theirs, ours)
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in ours.items()}
    weight, x = torch.randn([3, 512 * 7 * 7]), torch.randn([2, 512, 7, 7])
    as_convolution = layouts.fitted({"classifier.0.weight": weight}, ["pre_logits.fc1.weight"])["pre_logits.fc1.weight"]
    expected = torch.nn.functional.linear(x.flatten(1), weight)
    actual = torch.nn.functional.conv2d(x, as_convolution).flatten(1)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", [name for name, recipe in backbones.BACKBONES.items() if recipe.source])
def test_a_network_that_only_a_file_can_fill_says_where_it_is_published(name):
    with pytest.raises(DataError, match=f"{name} needs a file of its weights, published at https://.*{name}=FILE"):
        backbones.load(name)
    assert name not in backbones.at_hand() and not any(name in label for label in host_metrics.named())


def test_a_network_without_a_classifier_gives_features_and_no_logits(monkeypatch, tmp_path):
    monkeypatch.setitem(backbones.BACKBONES, "det_coco", backbones.Recipe("", size=64, network=CASES["dense"][2]))
    torch.save({name: value.float() for name, value in small_state("dense").items()}, tmp_path / "w.pth")
    text, device = f"det_coco={tmp_path / 'w.pth'}", torch.device("cpu")
    images = torch.zeros([2, 1, 16, 16], dtype=torch.uint8)
    assert extractors.load(text, ["features"], device)(images)["features"].shape == (2, 96)
    with pytest.raises(OptionError, match="a network that names classes"):
        extractors.load(text, ["features", "logits"], device)


@pytest.mark.parametrize(
    "content, message",
    [
        (lambda state: {"state_dict": state, "meta": argparse.Namespace(a=1)}, r"holds objects beside .*Namespace"),
        (
            lambda state: {"model": {k: v for k, v in state.items() if "norm3" not in k}},
            "lacks norm3.weight and 1 more",
        ),
        (lambda state: {"epoch": 3, "optimizer": {}}, "holds no tensors by name. It holds epoch, optimizer"),
        (lambda state: {**state, "norm3.bias": torch.zeros(5)}, "another network: norm3.bias differs"),
    ],
)
def test_what_a_file_lacks_is_one_line(content, message, monkeypatch, tmp_path):
    monkeypatch.setitem(
        backbones.BACKBONES, "det_coco", backbones.Recipe("", size=64, network=CASES["dense"][2], source="x")
    )
    torch.save(content(small_state("dense")), tmp_path / "w.pth")
    with pytest.raises(DataError, match=message) as error:
        backbones.load("det_coco", tmp_path / "w.pth")
    assert "\n" not in str(error.value)


def test_a_filter_of_another_length_is_refused(monkeypatch, tmp_path):
    """The authors also publish VGG16 with 2, 3 and 5 taps."""
    monkeypatch.setitem(
        backbones.BACKBONES, "vgg16_antialiased", backbones.Recipe("", size=64, network=CASES["antialiased"][2])
    )
    state = small_state("antialiased")
    name = next(name for name in state if name.endswith("filt"))
    torch.save({"state_dict": {**state, name: torch.zeros(len(state[name]), 1, 3, 3)}}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=re.escape(f"{name} differs")):
        backbones.load("vgg16_antialiased", tmp_path / "w.pth")
