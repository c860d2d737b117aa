"""Projected GAN: its equations, the authors' numbers, backbones, options, and what it does in a host."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from stylegan_plugins import OptionError
from stylegan_plugins.manager import catalogue, without_D
from stylegan_plugins.plugins import projected as plugin
from stylegan_plugins.vision import backbones
from stylegan_plugins.vision.pyramid import Pyramid
from training_ext import projected
from training_ext.diffaugment import DiffAugment
from training_ext.gan_losses import GAN_LOSSES

GOLDEN = Path(__file__).parent / "golden" / "projected.npz"
CPU = torch.device("cpu")
HINGE = GAN_LOSSES["hinge"]


def doubled(x: torch.Tensor) -> torch.Tensor:
    """Enlarge a map bilinearly, corners aligned: [N, C, h, w] -> [N, C, 2h, 2w], by one matrix along each axis."""
    for axis in (2, 3):
        side = x.shape[axis]
        place = torch.arange(2 * side, dtype=x.dtype) * (side - 1) / (2 * side - 1)
        weights = (1 - (place[:, None] - torch.arange(side, dtype=x.dtype)).abs()).clamp(min=0)
        x = torch.tensordot(x, weights, dims=([axis], [1])).movedim(-1, axis)
    return x


@pytest.mark.unit
def test_mixing_is_its_equations():
    torch.manual_seed(0)
    mixing = projected.Mixing([2, 3, 4, 5]).double()
    levels = [
        torch.randn([2, width, side, side], dtype=torch.float64)
        for width, side in zip((2, 3, 4, 5), (16, 8, 4, 2), strict=True)
    ]
    conv = lambda layer, x: torch.einsum("kc,nchw->nkhw", layer.weight[:, :, 0, 0], x) + layer.bias[:, None, None]
    c = [conv(layer, level) for layer, level in zip(mixing.ccm, levels, strict=True)]
    expected = [conv(mixing.csm[3], doubled(c[3]))]
    for level in (2, 1, 0):
        expected.insert(0, conv(mixing.csm[level], doubled(expected[0] + c[level])))
    for actual, wanted in zip(mixing(levels), expected, strict=True):
        torch.testing.assert_close(actual, wanted)
    assert [wanted.shape[1] for wanted in expected] == list(projected.MIXED)
    assert not any(parameter.requires_grad for parameter in mixing.parameters())


@pytest.mark.unit
def test_a_discriminator_is_its_equations_and_a_pass_that_judges_changes_no_state():
    torch.manual_seed(0)
    D = projected.LevelDiscriminator(6, 16, separable=True, labels=3).double()
    x, labels = torch.randn([4, 6, 10, 10], dtype=torch.float64), torch.eye(4, 3, dtype=torch.float64)
    u = {name: value.clone() for name, value in D.named_buffers()}

    def normalised(layer):
        W, start = layer.weight.flatten(1), u[f"{next(n for n, m in D.named_modules() if m is layer)}.u"]
        v = W.T @ start / (W.T @ start).norm()
        return layer.weight / (W @ v).norm()

    depthwise, pointwise, norm = D.blocks[0][:3]
    h = torch.nn.functional.conv2d(x, normalised(depthwise), padding=1, groups=6)
    h = torch.einsum("kc,nchw->nkhw", normalised(pointwise)[:, :, 0, 0], h)
    mean, variance = h.mean(dim=[0, 2, 3], keepdim=True), h.var(dim=[0, 2, 3], keepdim=True, unbiased=False)
    h = (h - mean) / (variance + norm.eps).sqrt()
    h = torch.where(h > 0, h, 0.2 * h).reshape(4, 512, 5, 2, 5, 2).mean(dim=[3, 5])
    out = torch.nn.functional.conv2d(h, normalised(D.out))
    wanted = D.project[0](labels @ D.embed.weight.T)
    wanted = torch.where(wanted > 0, wanted, 0.2 * wanted)
    expected = torch.einsum("nkhw,nk->nhw", out, wanted).flatten(1) / 8
    with torch.no_grad():
        torch.testing.assert_close(D(x, labels), expected)
    assert all(torch.equal(value, u[name]) for name, value in D.named_buffers())
    torch.testing.assert_close(D(x, labels), expected)
    assert not any(torch.equal(value, u[name]) for name, value in D.named_buffers())
    layer = projected.SpectralConv(3, 4, kernel_size=1)
    for _ in range(200):
        layer(torch.zeros([1, 3, 1, 1]))
    largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    torch.testing.assert_close((layer.weight.flatten(1).T @ layer.u).norm(), largest)


# The authors' numbers. ----------------------------------------------------------------------------


def theirs(name: str, separable: bool) -> str:
    """Return the authors' name of our tensor."""
    kind, *path = name.split(".")
    if kind == "mixing":
        mix, level, what = path
        return f"feature_network.scratch.layer{level}_{mix}{'.out_conv' if mix == 'csm' else ''}.{what}"
    level, part, *rest = path
    start, what = f"discriminator.mini_discs.{level}", rest[-1]
    if part == "embed":
        return f"{start}.embed.weight"
    if part == "project":
        return f"{start}.embed_proj.{'.'.join(rest)}"
    what = {"weight": "weight_orig", "u": "weight_u"}.get(what, what)
    if part == "out":
        last = f"main.{4 - int(level)}" if separable else "cls"
        return f"{start}.{last}.{what}"
    block, index = map(int, rest[:2])
    if index == (2 if separable else 1):
        return f"{start}.main.{block}.main.1.{rest[-1]}"
    return f"{start}.main.{block}.main.0{('.depthwise', '.pointwise')[index] if separable else ''}.{what}"


def drawn(name: str, shape: torch.Size) -> torch.Tensor:
    """Return a weight of the recordings, by the rule of benchmarks/record_projected.py."""
    values = np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)
    if len(shape) > 1:
        values = values / np.sqrt(np.prod(shape[1:]))
    else:
        values = values / np.linalg.norm(values) if name.endswith("_u") else 0.1 * values + (".main.1.weight" in name)
    return torch.from_numpy(values)


def some(values: torch.Tensor) -> torch.Tensor:
    flat = values.detach().flatten()
    return flat[:: max(1, len(flat) // 50)][:50]


@pytest.mark.host
def test_losses_and_gradients_equal_the_authors_e1c246b():
    with np.load(GOLDEN) as arrays:
        golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files if arrays[name].ndim}
    side, labels = 128, golden["labels"]
    size = [len(labels), 3, side, side]
    real, generated = (4 * drawn(name, torch.Size([np.prod(size)])).reshape(size) for name in ("real", "generated"))
    _, levels = plugin.pyramid("efficientnet_lite0", side, CPU)
    levels.backbone.size = side  # the recording enlarges nothing
    levels.backbone.double()
    images = generated.requires_grad_(True)
    of_generated, of_real, losses = levels(images), levels(real), []
    for config in ("stylegan2", "fastgan"):
        separable = config == "stylegan2"
        D = projected.ProjectedDiscriminator(levels.channels, separable, 0 if separable else labels.shape[1]).double()
        tensors = dict([*D.named_parameters(), *D.named_buffers()])
        names = {name: theirs(name, separable) for name in tensors}
        with torch.no_grad():
            for name, value in tensors.items():
                if name.endswith("embed.weight"):  # theirs has a row for each class
                    value.copy_(drawn(names[name], value.T.shape).T)
                else:
                    value.copy_(drawn(names[name], value.shape))

        def close(actual, name, config=config):
            # The same sums in float64, in another order: CSM's convolutions come before its resizing.
            expected = golden[f"{config}/{name}"]
            assert (actual - expected).norm() <= 1e-9 * expected.norm(), name

        detached = [level.detach() for level in of_generated]
        for level, features in enumerate(D.mixing(detached)):
            close(some(features), f"features/{level}")
        judged = D(detached, labels), D(of_real, labels)
        for k, logits in enumerate(judged):
            close(logits, f"logits/{k}")
        (HINGE.generated(judged[0]).mean() + HINGE.real(judged[1]).mean()).backward()
        trained = dict(D.discriminators.named_parameters())
        assert len(trained) == sum(name.startswith(f"{config}/gradient/") for name in golden) - 1
        for name, parameter in trained.items():
            gradient = parameter.grad.T if name.endswith("embed.weight") else parameter.grad
            # The bias of a convolution before batch norm has no effect: rounding is all that is left.
            if not separable and name.endswith("0.bias") and "blocks" in name:
                assert gradient.norm() < 1e-12
            else:
                close(some(gradient), f"gradient/{names[f'discriminators.{name}']}")
        losses.append(HINGE.generator(D.requires_grad_(False)(of_generated, labels)).mean())
        for name, value in D.named_buffers():
            close(some(value), f"after/{names[name]}")
    sum(losses).backward()  # once through the network for both
    expected = golden["stylegan2/gradient/G"] + golden["fastgan/gradient/G"]
    assert (some(images.grad) - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.host
@pytest.mark.parametrize(("name", "channels"), [("test_resnet", [32, 48, 192, 96]), ("test_vit", [64] * 4)])
def test_levels_of_any_network_halve_and_small_images_are_enlarged(name, channels):
    network = backbones.create(backbones.Recipe(name))
    levels = Pyramid(network, 24)
    images = torch.rand([2, 1, 24, 24]) * 2 - 1
    found = levels(images)
    assert [list(level.shape[1:]) for level in found] == [
        [width, side, side] for width, side in zip(channels, (40, 20, 10, 5), strict=True)
    ]
    large = torch.nn.functional.interpolate(images, 160, mode="bilinear", align_corners=False)
    seen = large.expand(-1, 3, -1, -1)
    expected = network.model.forward_intermediates(((seen + 1) / 2 - network.mean) / network.std)[1]
    assert any(torch.allclose(found[2], other, atol=1e-4) for other in expected if other.shape == found[2].shape)


@pytest.mark.host
def test_networks_without_four_levels_are_refused(monkeypatch):
    monkeypatch.setattr(backbones, "load", lambda *_: backbones.create(backbones.Recipe("levit_128s")))
    with pytest.raises(OptionError, match="^--projected-backbone=levit_128s: it has no features to project: it has"):
        plugin.pyramid("levit_128s", 16, CPU)
    with pytest.raises(OptionError, match="^--projected-backbone=vgg,dino: give one"):
        plugin.pyramid("vgg,dino", 16, CPU)


# Options. -----------------------------------------------------------------------------------------


def configured(monkeypatch, explicit=(), given=None, **changes):
    """Return the arguments and options after `configure`, of a run of stylegan3's."""
    monkeypatch.setattr(plugin, "pyramid", lambda text, side, device: (text, None))
    args = {
        "training_set_kwargs": {"resolution": 16},
        "G_kwargs": {"z_dim": 512, "w_dim": 512, "mapping_kwargs": {}},
        "D_kwargs": {},
        "G_opt_kwargs": {"lr": 0.0025},
        "D_opt_kwargs": {"lr": 0.001},
        "loss_kwargs": {"pl_weight": 2, "style_mixing_prob": 0.9},
        "batch_size": 64,
        "G_reg_interval": 4,
        "ema_kimg": 10,
    } | changes
    options = catalogue().activate(["projected"], {"projected": given or {}}).options["projected"]
    return args, plugin.configure(args=args, options=options, explicit=frozenset(explicit))


@pytest.mark.unit
def test_a_run_is_the_authors_unless_options_keep_what_the_host_does(monkeypatch):
    args, _ = configured(monkeypatch, given={"preset": "stylegan2"})
    assert args["loss_kwargs"] == {"pl_weight": 0, "style_mixing_prob": 0, "gan_loss": "hinge"}
    assert args["G_reg_interval"] is None and args["ema_kimg"] == 64 * 10 / 32  # batch * 10 / 32, the authors'
    assert args["G_kwargs"] == {"z_dim": 64, "w_dim": 128, "mapping_kwargs": {"num_layers": 2}}
    assert args["G_opt_kwargs"]["lr"] == args["D_opt_kwargs"]["lr"] == 0.002
    kept = {"path_length": True, "style_mixing": True, "r1": True}
    args, options = configured(monkeypatch, {"dlr"}, kept, loss_kwargs={"gan_loss": "wgan", "r2_gamma": 1})
    assert args["loss_kwargs"] == {"gan_loss": "wgan", "r2_gamma": 1} and args["G_reg_interval"] == 4
    assert options.lr == args["D_opt_kwargs"]["lr"] == 0.001 and args["G_opt_kwargs"]["lr"] == 0.0025


@pytest.mark.unit
@pytest.mark.parametrize(
    ("message", "given", "changes"),
    [
        ("--freezed: with projected the host's D", {}, {"D_kwargs": {"block_kwargs": {"freeze_layers": 3}}}),
        ("--d-spectral-norm: with projected", {}, {"loss_kwargs": {"d_spectral_norm": True}}),
        ("--r2: projected has no penalties", {}, {"loss_kwargs": {"r2_gamma": 1}}),
        ("--gradient-penalty: projected has no penalties", {}, {"loss_kwargs": {"gradient_penalty": 10}}),
    ],
)
def test_what_has_no_effect_or_contradicts_is_refused(monkeypatch, message, given, changes):
    with pytest.raises(OptionError, match=f"^{message}"):
        configured(monkeypatch, given=given, **changes)


@pytest.mark.unit
def test_the_architecture_of_a_pickle_wins_over_a_preset_and_not_over_an_option(monkeypatch):
    args, options = configured(monkeypatch, given={"preset": "stylegan2"}, resume_pkl="a.pkl")
    assert args["G_kwargs"]["z_dim"] == options.z == 512
    with pytest.raises(OptionError, match="^--projected-z=64: the architecture comes from the pickle"):
        configured(monkeypatch, {"projected_z"}, {"z": 64}, resume_pkl="a.pkl")


@pytest.mark.unit
def test_diffaugment_is_brought_with_the_authors_holes_and_what_is_given_wins():
    cutout = lambda given: catalogue().activate(["diffaugment", "projected"], given).options["diffaugment"].cutout
    assert cutout({}) == 0.2 and cutout({"diffaugment": {"cutout": 0.5}}) == 0.5
    assert catalogue().activate(["diffaugment"], {}).options["diffaugment"].cutout == 0.5


@pytest.mark.unit
def test_a_record_tells_that_d_was_not_trained():
    assert without_D({"plugins": {"active": ["diffaugment", "projected"]}}) == "projected"
    for other in ({"active": ["diffaugment", "no-such-plugin", 3]}, {"active": 7}, "text", None):
        assert without_D({"plugins": other}) is None
    assert without_D(None) is None


@pytest.mark.host
def test_in_a_host_d_rests_and_the_discriminators_are_trained_and_saved(fetched):
    claims = report_of(fetched[ADA], "projected_step.py")
    assert len(claims) > 10 and {claim: wrong for claim, wrong in claims.items() if wrong} == {}


@pytest.mark.unit
def test_what_discriminators_see_equals_the_authors_augmentation():
    options = catalogue().activate(["projected"], {}).options["diffaugment"]
    transform = DiffAugment(options.groups, cutout=options.cutout)
    with np.load(GOLDEN) as arrays:
        images, expected = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["shown"])
    torch.manual_seed(1)
    torch.testing.assert_close(transform(images)[0], expected, rtol=1e-6, atol=1e-6)
