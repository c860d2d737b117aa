"""GenCo: bands and similarity of weights recomputed, the authors' gradients, passes of each discriminator."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from stylegan_plugins import OptionError
from stylegan_plugins.manager import catalogue
from training_ext import genco

GOLDEN = Path(__file__).parent / "golden" / "genco.npz"


def rings(height: int, width: int, bands: int) -> np.ndarray:
    """Return the first band whose square corners hold each frequency, or `bands` if none does."""
    found = np.full([height, width], bands)
    for band in reversed(range(bands)):
        rows, columns = (math.floor(side * (band + 1) / bands / 2) for side in (height, width))
        near = lambda count, side: [i for i in range(side) if i < count or i >= side - count]
        found[np.ix_(near(rows, height), near(columns, width))] = band
    return found


@pytest.mark.unit
@pytest.mark.parametrize("shape", [(32, 32), (16, 8), (9, 12)])
@pytest.mark.parametrize("bands", [64, 5])
def test_images_keep_the_bands_of_the_full_transform(shape, bands):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn([3, 2, *shape], generator=generator, dtype=torch.float64)
    m = torch.rand([3, bands], generator=generator) < 0.6
    stays = np.concatenate([m.numpy(), np.zeros([3, 1])], axis=1)[:, rings(*shape, bands)]
    expected = np.fft.ifft2(np.fft.fft2(images.numpy()) * stays[:, None]).real
    np.testing.assert_allclose(genco.keep_bands(images, m).numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.unit
def test_all_bands_give_the_image_back_and_gradients_are_those_of_a_linear_map():
    images = torch.randn([2, 3, 8, 8], dtype=torch.float64, requires_grad=True)
    m = torch.ones([2, 64], dtype=torch.bool)
    torch.testing.assert_close(genco.keep_bands(images, m), images)
    m[:, ::3] = False
    assert torch.autograd.gradcheck(lambda x: genco.keep_bands(x, m), images)
    assert torch.autograd.gradgradcheck(lambda x: genco.keep_bands(x, m).pow(3).sum(), images)


@pytest.mark.unit
def test_as_many_bands_are_kept_as_asked_for_and_none_of_the_lowest():
    torch.manual_seed(0)
    m = genco.sample_bands(500, 64, 8, 44)
    assert not m[:, :8].any() and (m.sum(dim=1) == 44).all()
    assert (m[:, 8:].float().mean(dim=0) - 44 / 56).abs().max() < 0.08  # 4 deviations of a mean of 500


@pytest.mark.unit
def test_similarity_is_the_cosine_of_all_common_weights_and_moves_the_other_alone():
    torch.manual_seed(0)
    D, other = (torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).double() for _ in range(2))
    del D[1].bias  # frozen: a buffer
    D[1].register_buffer("bias", torch.zeros(2))
    vectors = [torch.cat([net[0].weight.flatten(), net[0].bias, net[1].weight.flatten()]) for net in (D, other)]
    actual = genco.weight_similarity(D, other)
    torch.testing.assert_close(actual, torch.nn.functional.cosine_similarity(*vectors, dim=0).reshape(1) + 1)
    actual.backward()
    assert all(parameter.grad is None for parameter in D.parameters())
    assert other[0].weight.grad is not None and other[1].bias.grad is None


@pytest.mark.host
def test_gradients_equal_the_authors_f8f6dfb(fetched):
    differences = report_of(fetched[ADA], "genco_step.py", str(GOLDEN))
    assert len(differences) == 6
    assert {name: value for name, value in differences.items() if value > 2e-6} == {}


@pytest.mark.host
def test_each_phase_costs_three_discriminators_and_trains_what_it_should(fetched):
    found = report_of(fetched[ADA], "genco_step.py")
    # The similarity of weights keeps its part of the gradient: differences of float32 gradients, not more exact.
    assert found.pop("rounds") < 1e-4
    every = ["D", "weco", "daco"]
    once, twice = ({name: [4] * count for name in every} for count in (1, 2))
    assert found == {
        "Gmain": {"seen": once, "trained": ["G"]},
        "Dmain": {"seen": twice, "trained": every},
        "Dreg": {"seen": once, "trained": every},
        "Dboth": {"seen": twice, "trained": every},
        "no R1": {"seen": {name: [] for name in every}, "trained": []},
        "relativistic": {"seen": twice, "trained": every},
    }


@pytest.mark.unit
def test_similarity_leaves_the_mapping_of_labels_out():
    """Its weights are 100 times as large as others, as its learning rate is 1/100."""

    def network() -> torch.nn.Module:
        made = torch.nn.Module()
        made.mapping, made.b4 = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        return made

    D, other = network(), network()
    before = genco.weight_similarity(D, other)
    with torch.no_grad():
        other.mapping.weight.mul_(100)
    assert torch.equal(genco.weight_similarity(D, other), before)


@pytest.mark.unit
@pytest.mark.parametrize(
    "given, flag",
    [
        ({"r2_gamma": 1.0}, "--r2"),
        ({"gradient_penalty": 10.0}, "--gradient-penalty"),
        ({"d_spectral_norm": True}, "--d-spectral-norm"),
        ({"gan_loss": "wgan", "r1_gamma": 0.0}, "--gan-loss=wgan"),
    ],
)
def test_what_would_leave_its_discriminators_unbounded_is_refused_in_one_line(given, flag):
    plugins = catalogue().activate(["genco"], {})
    call = lambda **loss: plugins.call(
        "genco", "configure", args={"loss_kwargs": {"r1_gamma": 1.0, **loss}}, explicit=()
    )
    with pytest.raises(OptionError, match=f"^{flag}: [^\n]*$"):
        call(**given)
    call(gan_loss="wgan")
    call(gan_loss="hinge", r1_gamma=0.0)
