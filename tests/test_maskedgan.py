"""MaskedGAN's masks: recomputed patch by patch and band by band, their shares, gradients, and off."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from training_ext.genco import band_of
from training_ext.maskedgan import ImageMask, band_probabilities


def images_of(n: int = 3, channels: int = 2, height: int = 16, width: int = 12) -> torch.Tensor:
    return torch.randn([n, channels, height, width], generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rings(height: int, width: int, bands: int) -> np.ndarray:
    return np.maximum(band_of(height, bands).numpy()[:, None], band_of(width, bands).numpy()[None])


@pytest.mark.unit
@pytest.mark.parametrize("grid", [4, 5, 20])
def test_images_satisfy_the_equations_pixel_by_pixel(grid):
    torch.manual_seed(0)
    images = images_of()
    T = ImageMask(0.4, grid, 3.0, 10)
    actual, omega = T(images)
    stays = np.concatenate([1 - omega["bands"].numpy(), np.zeros([3, 1])], axis=1)[:, rings(16, 12, 10)]
    expected = np.fft.ifft2(np.fft.fft2(images.numpy()) * stays[:, None]).real
    for n in range(3):
        masked = omega["patches"][n].reshape(grid, grid)
        starts = [math.floor(shift * side / grid) for shift, side in zip(omega["shift"][n].tolist(), (16, 12))]
        for i in range(16):
            for j in range(12):
                row, column = (
                    (place + start) % side * grid // side
                    for place, start, side in ((i, starts[0], 16), (j, starts[1], 12))
                )
                if masked[row, column]:
                    expected[n, :, i, j] = 0
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.unit
def test_bands_are_masked_as_likely_as_their_share_of_amplitude():
    images = images_of()
    actual = band_probabilities(images, 10, 2.0)
    amplitude = np.abs(np.fft.fft2(images.numpy())).sum(axis=1)
    content = np.stack([amplitude[:, rings(16, 12, 10) == band].sum(axis=1) for band in range(10)], axis=1)
    np.testing.assert_allclose(
        actual.numpy(), np.minimum(2 * content / content.sum(axis=1, keepdims=True), 1), rtol=1e-5
    )
    assert (band_probabilities(images, 64, 1.0) == 0).any()  # bands without frequencies, at this size
    assert torch.equal(band_probabilities(torch.zeros_like(images), 10, 2.0), torch.zeros(3, 10))


@pytest.mark.unit
def test_as_many_patches_and_bands_are_masked_as_asked_for():
    torch.manual_seed(0)
    omega = ImageMask(0.25, 8, 2.0, 10).draw(images_of(1).expand(2000, -1, -1, -1))
    assert (omega["patches"].sum(dim=1) == 16).all()
    assert (omega["patches"].mean(dim=0) - 0.25).abs().max() < 0.05  # 5 deviations of a mean of 2000
    assert abs(omega["bands"].sum(dim=1).mean() - 2) < 0.15
    assert all(((value >= 0) & (value <= 1)).all() and value.dtype == torch.float32 for value in omega.values())


@pytest.mark.unit
def test_every_pixel_is_masked_as_often_and_edges_of_patches_lie_anywhere():
    torch.manual_seed(0)
    masked = ImageMask(0.25, 4, 0.0)(torch.ones([4000, 1, 16, 16]))[0] == 0
    assert (masked.float().mean(dim=0) - 0.25).abs().max() < 0.04
    edges = (masked[:, 0, 1:] != masked[:, 0, :-1]).float().mean(dim=(0, 2))
    assert edges.min() > 0.05  # without the shift, three in four would be 0


@pytest.mark.unit
def test_first_and_second_derivatives_agree_with_finite_differences():
    torch.manual_seed(0)
    images = images_of(2, 1, 6, 5).requires_grad_()
    T = ImageMask(0.3, 3, 2.0, 6)
    omega = T.draw(images)
    assert not any(value.requires_grad for value in omega.values())
    assert torch.autograd.gradcheck(lambda x: T.apply(x, omega), images)
    assert torch.autograd.gradgradcheck(lambda x: T.apply(x, omega).pow(3).sum(dim=[1, 2, 3]), images)


@pytest.mark.unit
def test_strengths_of_0_return_the_same_tensor_and_draw_nothing():
    images, before = images_of(), torch.get_rng_state()
    actual, omega = ImageMask(0.0, 16, 0.0)(images)
    assert actual is images and omega == {} and torch.equal(torch.get_rng_state(), before)


@pytest.mark.host
def test_off_is_off(fetched):
    assert report_of(fetched[ADA], "off_is_off.py", "maskedgan", '{"patches": 0.0, "masked_bands": 0.0}') == {
        "fault": ""
    }
