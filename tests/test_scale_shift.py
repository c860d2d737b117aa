"""scale-shift: its losses, the authors' code, what it trains, and what is refused beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from stylegan_plugins import OptionError
from stylegan_plugins.plugins import scale_shift as plugin
from training_ext import scale_shift as ss

GOLDEN = Path(__file__).parent / "golden/scale_shift.npz"
CASES = {"l1": ("l1", "none"), "l2": ("l2", "none"), "relative": ("l1", "perceptual"), "both": ("l2", "both")}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.unit
def test_losses_are_their_equations():
    a, b, z, t = draw(3, 2, 4, 4), draw(3, 2, 4, 4), draw(3, 5), draw(30, 5)
    for n in range(3):
        pairs = list(zip(a[n].flatten().tolist(), b[n].flatten().tolist()))
        assert ss.distance(a, b)[n].item() == pytest.approx(sum(abs(x - y) for x, y in pairs) / 32, rel=1e-12)
        assert ss.distance(a, b, "l2")[n].item() == pytest.approx(sum((x - y) ** 2 for x, y in pairs) / 32, rel=1e-12)
    assert ss.relative(ss.distance(a, b)).mean().item() == pytest.approx(1, rel=1e-12)
    assert torch.equal(ss.relative(torch.zeros(3)), torch.zeros(3))
    squared = [[sum((x - y) ** 2 for x, y in zip(i, j)) for j in t.tolist()] for i in z.tolist()]
    expected = sum(map(min, squared)) / 3 + sum(map(min, zip(*squared))) / 30
    assert ss.earth_mover(z, t).item() == pytest.approx(expected, rel=1e-12)
    change = ss.deviation([torch.ones(4), torch.zeros(2)], [torch.zeros(4), torch.tensor([0.0, 2.0])])
    assert change.item() == 1 + 2


@pytest.mark.unit
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_equal_the_authors_d4a5de2(case):
    kind, relative = CASES[case]
    with np.load(GOLDEN) as file:
        g = {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind != "U"}
    z, gamma, beta = (g[f"{case}/{name}"].requires_grad_(True) for name in ("z", "gamma", "beta"))
    seen, targets = z[g["perm"]], g["target"][g["perm"]]
    images = (((seen + g[f"{case}/eps"]) @ g["G/in"]).tanh() * gamma + beta) @ g["G/out"]
    images = images.tanh().reshape(targets.shape)

    def levels(x: torch.Tensor) -> list[torch.Tensor]:
        mean = torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64)[:, None, None]
        first = torch.conv2d((x + 1) * 127.5 - mean, g["vgg/first"]).relu()
        return [first, torch.conv2d(first, g["vgg/second"]).relu()]

    weight = 0.001 if relative == "none" else 0.1
    scaled = {True: ss.relative, False: lambda values: values}
    losses = {"l1": scaled[relative == "both"](ss.distance(images, targets)).mean()}
    for name, *pair in zip(("first", "second"), levels(images), levels(targets)):
        losses[name] = weight * scaled[relative != "none"](ss.distance(*pair, kind)).mean()
    losses["emd"] = 0.1 * ss.earth_mover(seen, g[f"{case}/t"])
    losses["reg"] = 0.02 * ss.deviation([gamma, beta], [torch.ones(5).double(), torch.zeros(5).double()])
    for name, loss in losses.items():
        torch.testing.assert_close(loss.detach(), g[f"{case}/{name}"], rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(sum(losses.values()), [z, gamma, beta])
    for name, gradient in zip(("z", "gamma", "beta"), gradients):
        # Double precision: sums in another order.
        torch.testing.assert_close(gradient, g[f"{case}/grad/{name}"], rtol=1e-10, atol=1e-13)


@pytest.mark.unit
def test_learning_rates_fall_as_the_authors_do_it():
    """Their updater multiplies them when (iteration + 1) % 3000 == 0, before it updates."""
    alpha, batch = 0.03, 25
    for iteration in range(9001):
        if (iteration + 1) % 3000 == 0:
            alpha *= 0.2
        if iteration % 3000 in (0, 1, 2998, 2999):
            assert ss.decayed(0.03, 0.2, iteration * batch, batch, 3000 * batch) == pytest.approx(alpha, rel=1e-12)
    assert ss.decayed(0.03, 0.2, 10**9, batch, 0) == 0.03


@pytest.mark.unit
def test_every_bias_of_the_synthesis_network_is_a_scale_or_a_shift_and_nothing_else_is():
    trained = ["G.synthesis.b4.conv1.affine.bias", "G.synthesis.b8.conv0.bias", "G.synthesis.L3_52_16.affine.bias"]
    frozen = ["G.mapping.fc0.bias", "G.synthesis.b4.const", "G.synthesis.b8.conv0.affine.weight", "D.b4.fc.bias"]
    frozen += ["G.synthesis.b8.conv0.noise_strength", "G.synthesis.input.affine.bias"]
    assert all(map(ss.is_scale_or_shift, trained)) and not any(map(ss.is_scale_or_shift, frozen))


@pytest.mark.unit
def test_levels_of_vgg16_are_the_authors_ten():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):  # shapes alone
        features = timm.create_model("vgg16").features
        found = ss.vgg_levels(features, torch.empty([1, 3, 32, 32]))
    widths = [(64, 32), (64, 32), (128, 16), (128, 16), *[(256, 8)] * 3, *[(512, 4)] * 3]
    assert [(level.shape[1], level.shape[2]) for level in found] == widths
    assert all(isinstance(features[index], torch.nn.ReLU) for index in ss.VGG16)


def arguments(**more: object) -> dict:
    given = {"resume_pkl": "x.pkl", "G_opt_kwargs": {"lr": 0.0025, "betas": [0, 0.99]}, "batch_size": 20}
    given |= {"G_reg_interval": 4, "D_reg_interval": 16, "total_kimg": 25000, "loss_kwargs": {"blur_init_sigma": 10}}
    return given | {"training_set_kwargs": {"resolution": 16}} | more


@pytest.mark.unit
def test_configure_gives_a_run_the_authors_optimiser_and_length_and_refuses_what_has_no_effect():
    options = plugin.OPTIONS(perceptual_weight=0)
    args = arguments()
    filled = plugin.configure(args=args, options=options, explicit=frozenset())
    assert filled.decay_kimg == 60 and args["total_kimg"] == 200
    assert args["G_opt_kwargs"] == {"lr": 0.03, "betas": [0.9, 0.999]}
    assert args["G_reg_interval"] is args["D_reg_interval"] is None and args["loss_kwargs"] == {"blur_init_sigma": 0}
    plugin.configure(args=(args := arguments()), options=options, explicit=frozenset({"kimg"}))
    assert args["total_kimg"] == 25000
    for explicit, changed, message in (
        ([], {"resume_pkl": None}, "no pretrained generator to adapt. Give --resume=PKL"),
        (["glr"], {}, "the learning rates of scale-shift are --scale-shift-lr and --scale-shift-z-lr"),
        (["gan_loss"], {}, "--gan-loss: scale-shift trains without D. Leave the option out."),
    ):
        with pytest.raises(OptionError, match=message):
            plugin.configure(args=arguments(**changed), options=options, explicit=frozenset(explicit))
    with pytest.raises(OptionError, match="--scale-shift-perceptual=clip,dino: give one network"):
        plugin.model_of(plugin.OPTIONS(perceptual="clip,dino"))


@pytest.mark.host
def test_scales_shifts_and_latents_alone_are_trained_without_d_and_snapshots_have_a_temperature(fetched):
    found = report_of(fetched[ADA], "scale_shift_run.py")
    assert all(found.values()) and len(found) == 10, found
