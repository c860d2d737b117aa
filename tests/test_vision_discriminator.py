"""The vision-aided discriminator for any training loop: the package's numbers, what is frozen, the page's example."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_plugins.errors import OptionError
from stylegan_plugins.vision import Discriminator, backbones
from training_ext.gan_losses import GAN_LOSSES
from training_ext.spectral_decoder import SpectralDecoder
from training_ext.vision_losses import over_levels, sigmoid

ROOT = Path(__file__).parents[1]
GOLDEN = np.load(ROOT / "tests/golden/spectral_decoder.npz", allow_pickle=False)
N, CLASSES = 4, 3
LEVELS = {
    "clip": [(5, 7, 7), (5, 7, 7), (6,)],
    "dino": [(5, 14, 14), (5, 14, 14), (6,)],
    "conv7": [(5, 7, 7)],
    "conv8": [(5, 8, 8)],
    "vector": [(6,)],
}
LITE0 = "efficientnet_lite0"
# Of docs/reference/vision_discriminator.md.
EXAMPLE = """\
import torch
from stylegan_plugins.vision import Discriminator

device = "cuda" if torch.cuda.is_available() else "cpu"
layers = torch.nn.Linear(8, 3 * 16 * 16), torch.nn.Tanh(), torch.nn.Unflatten(1, (3, 16, 16))
generator = torch.nn.Sequential(*layers).to(device)
discriminator = Discriminator("efficientnet_lite0", device=device)
g_optimizer = torch.optim.Adam(generator.parameters(), lr=0.002, betas=(0.0, 0.99))
d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.002, betas=(0.0, 0.99))

for step in range(2):
    real = torch.rand([4, 3, 16, 16], device=device) * 2 - 1  # your images, in [-1, 1]
    fake = generator(torch.randn([4, 8], device=device))

    d_loss = discriminator(real, for_real=True) + discriminator(fake, for_real=False)
    d_optimizer.zero_grad()
    d_loss.backward()
    d_optimizer.step()

    g_loss = discriminator(fake, for_G=True)
    g_optimizer.zero_grad()
    g_loss.backward()
    g_optimizer.step()
"""


def drawn(name: str, shape) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)).float()


def theirs(name: str, levels: int) -> str:
    """Return the package's name of our weight."""
    part, _, rest = name.partition(".")
    if part == "maps":
        return f"decoder.{rest}"
    last = f"decoder.{levels - 1}" if levels > 1 else "decoder"
    return f"{last}.{rest}" if part == "last" else name


@pytest.mark.unit
@pytest.mark.parametrize("case", LEVELS)
def test_logits_losses_and_gradients_equal_the_packages_95fc55b(case):
    """Two passes in training mode, so two power iterations. Differences are relative to the largest value, if it is
    above 1, or, for gradients times a direction, to the product of both lengths."""
    shapes = LEVELS[case]
    decoder = SpectralDecoder(shapes, CLASSES).train()
    for name, value in decoder.state_dict().items():
        new = drawn(f"{case}/{theirs(name, len(shapes))}", value.shape)
        value.copy_(new / new.norm() if name.endswith(("_u", "_v")) else new * 0.1)
    levels = [drawn(f"{case}/level{k}", [N, *shape]).requires_grad_(True) for k, shape in enumerate(shapes)]
    compared = set()

    def compare(key: str, actual: torch.Tensor, scale: float | None = None) -> None:
        expected = torch.from_numpy(GOLDEN[key])
        compared.add(key)
        # Logits and losses are sums of numbers of order one, whose rounding differs between processors.
        scale = max(1.0, expected.abs().max().item()) if scale is None else scale
        assert (actual.detach().reshape(expected.shape) - expected).abs().max().item() < 1e-6 * scale, key

    for short, gan in (("sigmoid_s", sigmoid(0.8)), ("hinge", GAN_LOSSES["hinge"])):
        logits = decoder(levels, torch.arange(N) % CLASSES)
        for k, value in enumerate(logits):
            compare(f"{case}/{short}/logits{k}", value)
        parameters = {theirs(name, len(shapes)): value for name, value in decoder.named_parameters()}
        for side in ("real", "generated", "generator"):
            loss = over_levels(getattr(gan, side), logits).mean()
            compare(f"{case}/{short}/{side}", loss)
            inputs = {**{f"level{k}": level for k, level in enumerate(levels)}, **parameters}
            gradients = torch.autograd.grad(loss, list(inputs.values()), retain_graph=True)
            for part, gradient in zip(inputs, gradients, strict=True):
                direction = drawn(f"{case}/{part}/probe", gradient.shape).double()
                length = (gradient.double().norm() * direction.norm()).item()
                compare(f"{case}/{short}/{side}/grad/{part}", (gradient.double() * direction).sum(), length + 1e-12)
    assert compared == {key for key in GOLDEN if key.startswith(f"{case}/")}


@pytest.mark.host
def test_it_imports_no_torch_until_it_is_asked_for_and_runs_without_a_host(tmp_path):
    script = (
        "import sys, stylegan_plugins.vision as vision\n"
        "assert 'torch' not in sys.modules\n"
        "import torch\n"
        "D = vision.Discriminator('efficientnet_lite0')\n"
        "assert D(torch.zeros([2, 3, 16, 16]), for_G=True, reduction='none').shape == (2,)\n"
        "assert not {'training', 'dnnlib', 'torch_utils'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def discriminator():
    torch.manual_seed(0)
    return Discriminator(LITE0, num_classes=CLASSES, augment="none")


@pytest.mark.host
def test_backbones_stay_frozen_whatever_the_loop_calls(discriminator):
    (levels,) = discriminator._frozen.values()
    before = {name: value.clone() for name, value in levels.state_dict().items()}
    discriminator.train().requires_grad_(True).to("cpu").float()
    assert not any(parameter.requires_grad for parameter in levels.parameters())
    assert not any(module.training for module in levels.modules())
    names = {name.split(".")[2] for name in discriminator.state_dict()}
    assert names == {"last", "out", "embed"} == {name.split(".")[2] for name, _ in discriminator.named_parameters()}
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    discriminator(torch.rand([2, 3, 16, 16]), torch.tensor([0, 2])).backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in levels.state_dict().items())


@pytest.mark.host
def test_losses_of_d_train_the_decoders_and_that_of_g_the_images(discriminator):
    discriminator.zero_grad(set_to_none=True)
    labels = torch.tensor([0, 2])
    images = (torch.rand([2, 3, 16, 16]) * 2 - 1).requires_grad_(True)
    discriminator(images, labels, for_G=True).backward()
    assert images.grad.any() and all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
    images.grad = None
    (discriminator(images, labels) + discriminator(images, labels, for_real=False)).backward()
    assert images.grad is None and all(parameter.grad.any() for parameter in discriminator.parameters())


@pytest.mark.host
def test_losses_are_those_of_the_logits(discriminator):
    discriminator.eval()  # no power iteration between two passes
    images, labels = torch.rand([2, 3, 16, 16]) * 2 - 1, torch.tensor([1, 2])
    (logits,) = discriminator.logits(images, labels)
    expected = torch.nn.functional.softplus(logits[0][:, 0]) - 0.8 * logits[0][:, 0]
    each = discriminator(images, labels, reduction="none")
    torch.testing.assert_close(each, expected)
    torch.testing.assert_close(discriminator(images, labels), each.mean())
    fake = discriminator(images, labels, for_real=False, reduction="none")
    torch.testing.assert_close(fake, torch.nn.functional.softplus(logits[0][:, 0]))
    discriminator.train()


@pytest.mark.host
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda D: Discriminator(LITE0, loss="wgan"), "loss=wgan: use one of sigmoid, hinge"),
        (lambda D: Discriminator(LITE0, output="all"), "output=all: use one of multilevel, last"),
        (lambda D: Discriminator("nosuch"), "models=nosuch: there is no such backbone"),
        (lambda D: D(torch.zeros([1, 3, 8, 8])), "labels: with num_classes=3, give the classes"),
        (lambda D: D(torch.zeros([1, 3, 8, 8]), torch.tensor([0]), reduction="sum"), "reduction=sum"),
    ],
)
def test_what_cannot_be_used_is_one_line(discriminator, call, message):
    with pytest.raises(OptionError, match=message):
        call(discriminator)


@pytest.mark.host
def test_levels_of_a_transformer_are_all_read_or_the_last_alone(monkeypatch):
    recipe = backbones.Recipe("test_vit")
    monkeypatch.setattr(backbones, "load", lambda *_: backbones.create(recipe))
    monkeypatch.setitem(backbones.BACKBONES, "test_vit", recipe)
    images = torch.rand([2, 1, 16, 16])
    many, last = (Discriminator(f"test_vit,{LITE0}", output=output).logits(images) for output in ("multilevel", "last"))
    assert [len(of_model) for of_model in many] == [3, 3] and [len(of_model) for of_model in last] == [1, 1]


@pytest.mark.host
def test_the_example_of_the_page_trains():
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(EXAMPLE, "vision_discriminator.md", "exec"), names)
    assert torch.isfinite(names["g_loss"]) and torch.isfinite(names["d_loss"])
