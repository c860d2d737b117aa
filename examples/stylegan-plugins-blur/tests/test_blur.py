"""How to test a plug-in: that it is installed, off, in closed form, against a reference, and in a run.

Tests of a run need a host, patched or not, and skip without one:

    stylegan-plugins host fetch host
    STYLEGAN_HOST=host python -m pytest
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.ndimage
import stylegan_plugins_blur
import torch
from click.testing import CliRunner

from stylegan_plugins import OptionError, options
from stylegan_plugins.cli import cli
from stylegan_plugins.manager import catalogue
from stylegan_plugins.testing import TinyRun, assert_off_is_off, assert_resumes_exactly, use_host


@pytest.fixture
def host():
    """Make the modules of a host importable."""
    directory = os.environ.get("STYLEGAN_HOST")
    if not directory:
        pytest.skip("STYLEGAN_HOST names no host; fetch one with: stylegan-plugins host fetch host")
    use_host(Path(directory))


def test_blur_is_installed():
    assert catalogue().load("blur") is stylegan_plugins_blur
    assert "--blur-sigma (default 1.0)" in CliRunner().invoke(cli, ["info", "blur"]).output


def test_blur_of_width_zero_returns_the_same_images():
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(stylegan_plugins_blur.blur(images, torch.zeros(4)), images)


def test_blur_that_is_switched_off_adds_nothing():
    assert stylegan_plugins_blur.setup(stylegan_plugins_blur.BlurOptions(sigma=0)) is None


def test_blur_keeps_an_image_of_one_color():
    images = torch.full([2, 1, 16, 16], 0.3, dtype=torch.float64)
    # Weights sum to 1 up to rounding of a dozen float64 numbers.
    torch.testing.assert_close(stylegan_plugins_blur.blur(images, torch.tensor([0.5, 3.0])), images, rtol=1e-6, atol=0)


def test_omega_is_the_width_in_units_of_the_largest_one():
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32)
    method = stylegan_plugins_blur.Blur(largest=2.0, weight=1)
    omega = method.draw(images)
    assert omega["sigma"].shape == (4, 1) and omega["sigma"].min() >= 0 and omega["sigma"].max() <= 1
    expected = stylegan_plugins_blur.blur(images, omega["sigma"].squeeze(1) * 2.0)
    assert torch.equal(method.blur(images, omega), expected)


def test_consistency_is_zero_when_features_agree_and_one_when_they_differ_by_one():
    features = torch.randn(4, 8)
    sharp = SimpleNamespace(layers={"b4.fc": features})
    seen = lambda blurred: SimpleNamespace(one=SimpleNamespace(layers={"b4.fc": blurred}, views={"sharp": sharp}))
    assert torch.equal(stylegan_plugins_blur.consistency(seen(features)), torch.zeros(4))
    torch.testing.assert_close(stylegan_plugins_blur.consistency(seen(features + 1)), torch.ones(4))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_blur_equals_scipys_gaussian_filter(sigma):
    image = np.random.RandomState(0).randn(24, 24)
    share, total = (scipy.ndimage.gaussian_filter(x, sigma, mode="constant", radius=23) for x in (image, image * 0 + 1))
    expected = share / total
    actual = stylegan_plugins_blur.blur(torch.from_numpy(image)[None, None], torch.tensor([sigma], dtype=torch.float64))
    # The same sums in float64, in another order.
    np.testing.assert_allclose(actual[0, 0].numpy(), expected, rtol=0, atol=1e-12)


def test_blur_has_second_derivatives_as_r1_needs_them():
    images = torch.randn(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.7, 1.3], dtype=torch.float64)
    assert torch.autograd.gradgradcheck(
        lambda x: stylegan_plugins_blur.blur(x, sigma).square(), [images], fast_mode=True
    )


def test_a_negative_width_is_refused_by_its_option():
    with pytest.raises(OptionError, match="--blur-sigma"):
        options.build("blur", stylegan_plugins_blur.BlurOptions, {"sigma": -1})
    chosen = options.build("blur", stylegan_plugins_blur.BlurOptions, {"weight": 0.5})
    assert json.loads(json.dumps(options.as_dict(chosen))) == {"sigma": 1.0, "weight": 0.5}


def test_blur_that_is_switched_off_changes_no_bit_of_a_run(host):
    assert_off_is_off("blur", {"blur": {"sigma": 0}})


def test_a_run_with_blur_resumes_exactly(host):
    assert_resumes_exactly("blur")


def test_the_term_trains_every_layer_of_d_but_the_last(host):
    without, with_term = (TinyRun("blur", {"blur": {"weight": weight}}).gradients("Dmain") for weight in (0, 1))
    # With the view, D sees a larger batch: sums of float32 numbers in another order.
    same = [name for name in without if torch.allclose(without[name], with_term[name], rtol=1e-4, atol=1e-6)]
    assert same == ["D.b4.out.weight", "D.b4.out.bias"]
