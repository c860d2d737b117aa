"""noise: its equation, its width, and what it does in a run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from stylegan_plugins.plugins import noise as plugin
from training_ext.noise import add, width


@pytest.mark.unit
def test_the_width_falls_to_0_linearly_and_stays_without_kimg():
    assert [width(0.2, nimg, 10.0) for nimg in (0, 5000, 10000, 20000)] == [0.2, 0.1, 0.0, 0.0]
    assert width(0.2, 10**9, None) == 0.2


@pytest.mark.unit
def test_the_noise_is_normal_and_drawn_for_each_pixel():
    session = SimpleNamespace(nimg=500, report=lambda name, value: None)
    method = plugin.setup(session=session, options=plugin.NoiseOptions(sigma=0.4, kimg=1.0))
    (augmentation,) = method.augmentations
    images = torch.rand([40, 3, 16, 16])
    omega = augmentation.sample(images)
    change = augmentation.apply(images, omega) - images
    torch.testing.assert_close(add(images, omega["noise"], 0.2), images + change)
    # 30720 numbers: the mean is within 5 / sqrt(30720) = 0.03 of 0, in units of the width.
    assert abs(change.mean()) < 0.03 * 0.2 and change.std().item() == pytest.approx(0.2, rel=0.03)
    assert augmentation.where("real", "Dmain")
    session.nimg = 1000
    assert not augmentation.where("real", "Dmain")


@pytest.mark.host
def test_it_is_in_all_that_D_sees_and_off_when_it_is_off(fetched):
    found = report_of(fetched[ADA], "regularizers.py", "noise", "{}", json.dumps({"sigma": 0}))
    assert found["off"] == ""
    assert found["trained"] == {"Gmain": ["G"], "Greg": [], "Dmain": ["D"], "Dreg": ["D"]}
    assert all(with_it == without for with_it, without in found["passes"].values())
