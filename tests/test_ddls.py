"""Langevin dynamics in latent space: the authors' steps, the energy by hand, and the distribution that it samples."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.images import color_crops, write_zip
from support.scripts import report_of
from torch.nn.functional import leaky_relu, linear

from stylegan_plugins.analysis import latent_sampling
from stylegan_plugins.errors import DataError
from training_ext.ddls import Langevin
from training_ext.linear_evaluation import Protocol

GOLDEN = Path(__file__).parent / "golden" / "contrad.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {key[6:]: torch.from_numpy(file[key]) for key in file if key.startswith("cddls/")}


@pytest.mark.unit
@pytest.mark.parametrize("steps", [1, 7])
def test_images_after_given_draws_equal_the_authors_4ac8ce5(golden, steps):
    """Theirs: images in [0, 1], eps times the noise of pixels added, z clamped and without a prior."""
    of = lambda x, name: linear(x, golden[f"{name}.weight"], golden[f"{name}.bias"])
    how = Langevin(steps=steps, eps=0.05, sigma=0.1, prior="uniform")
    shown = lambda z, u: torch.sigmoid(linear(z, golden["G/weight"], golden["G/bias"])) + how.eps * u

    def score(z, u):
        phi = torch.tanh(of(shown(z, u), "D/encoder"))
        logit = of(leaky_relu(of(phi, "D/linear.l1"), 0.1), "D/linear.l2")
        return logit[:, 0] + 0.7 * of(phi, "D/classifier")[:, 2]

    numbers = iter(range(1, 2 * steps + 1))
    draw = lambda like: golden[f"{steps}/noise{next(numbers)}"]
    z, u = how.sample(score, golden[f"{steps}/z"], golden[f"{steps}/noise0"], draw)
    assert next(numbers, None) is None
    torch.testing.assert_close(shown(z, u).clamp(0, 1), golden[f"{steps}/images"], rtol=0, atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_a_step_follows_the_gradient_of_the_energy(prior):
    torch.manual_seed(0)
    how = Langevin(eps=0.1, sigma=0.3, prior=prior)
    a, z, u = torch.randn([3], dtype=torch.float64), *torch.randn([2, 4, 3], dtype=torch.float64)
    noise = torch.randn([2, 4, 3], dtype=torch.float64)
    score = lambda z, u: (a * z).sum(dim=1) + 2 * (u**2).sum(dim=1)
    rest = iter(noise)
    found = how.step(score, z, u, lambda _: next(rest))
    of_z = -a + (z if prior == "normal" else 0)
    new_z = z - 0.05 * of_z + 0.3 * math.sqrt(0.1) * noise[0]
    new_u = u - 0.05 * (-4 * u + u) + 0.3 * math.sqrt(0.1) * noise[1]
    torch.testing.assert_close(found[0], new_z.clamp(-1, 1) if prior == "uniform" else new_z)
    torch.testing.assert_close(found[1], new_u)
    value = -score(z, u) + u.square().sum(dim=1) / 2 + (z.square().sum(dim=1) / 2 if prior == "normal" else 0)
    torch.testing.assert_close(how.energy(score(z, u), z, u), value)


@pytest.mark.unit
def test_with_full_noise_the_normal_prior_gives_the_posterior_of_a_linear_score():
    """exp(-E) of the score a z is N(a, 1). 2000 chains: the mean is known to 0.02, the deviation to 0.016; four times
    that."""
    torch.manual_seed(0)
    how = Langevin(steps=150, eps=0.1, sigma=1.0)
    z, u = how.sample(lambda z, u: 1.5 * z[:, 0], torch.zeros([2000, 1]), torch.zeros([2000, 1]), torch.randn_like)
    assert z.mean().item() == pytest.approx(1.5, abs=0.09) and z.std().item() == pytest.approx(1, abs=0.09)
    assert u.mean().item() == pytest.approx(0, abs=0.09) and u.std().item() == pytest.approx(1, abs=0.09)


@pytest.mark.host
def test_samples_and_features_of_a_run_are_those_of_its_networks(fetched, tmp_path):
    data = write_zip(tmp_path / "data.zip", color_crops(40, side=16), [index % 3 for index in range(40)])
    truths = report_of(fetched[ADA], "contrad_sampling.py", str(tmp_path), str(data))
    assert len(truths) > 14 and [name for name, holds in truths.items() if not holds] == []


@pytest.mark.unit
def test_a_class_that_the_images_lack_is_told_before_anything_is_trained(monkeypatch):
    images = ("data.zip", SimpleNamespace(label_dim=3))
    monkeypatch.setattr(latent_sampling.find, "open_dataset", lambda data, pickle: images)
    monkeypatch.setattr(latent_sampling.probe, "load_images", lambda *_: pytest.fail("images were read"))
    with pytest.raises(DataError, match="--class=3: the images have 3 classes, from 0"):
        latent_sampling.classifier_of(Path("a.pkl"), None, None, Protocol(), 10, 3)
