"""DISP's equations, and what it samples from, against plain re-computations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training_ext import disp

pytestmark = pytest.mark.unit

PROPERTY = settings(max_examples=40, deadline=None)


@PROPERTY
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**31))
def test_the_projection_satisfies_its_equation(n, width, seed):
    features, embedded = torch.randn([2, n, width], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = [
        [math.fsum(a * b for a, b in zip(x, y)) / math.sqrt(width)]
        for x, y in zip(features.tolist(), embedded.tolist())
    ]
    torch.testing.assert_close(
        disp.projection(features, embedded), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )
    assert not disp.projection(features, embedded * 0).any()


@PROPERTY
@given(st.integers(2, 20), st.integers(1, 6), st.floats(0.1, 100), st.integers(0, 2**31))
def test_priors_get_mean_0_and_mean_square_1(m, width, scale, seed):
    features = np.random.RandomState(seed).randn(m, width) * scale + 3 * scale
    values = disp.Standard.of(features)(features)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
    assert np.square(values).mean() == pytest.approx(1, rel=1e-4)


def test_equal_features_are_no_division_by_zero():
    assert not disp.Standard.of(np.ones([4, 3]))(np.ones([4, 3])).any()


@PROPERTY
@given(st.integers(1, 6), st.integers(0, 2**31))
def test_mixup_lies_between_two_priors(m, seed):
    priors = np.random.RandomState(0).randn(m, 4).astype(np.float32)
    mixed = disp.mixup(priors, np.random.RandomState(seed))
    distances = [
        np.linalg.norm(mixed - a) + np.linalg.norm(mixed - b) - np.linalg.norm(a - b) for a in priors for b in priors
    ]
    assert min(distances) < 1e-4
    assert np.array_equal(mixed, disp.mixup(priors, np.random.RandomState(seed)))


def test_a_mixture_draws_what_it_was_fitted_to():
    random = np.random.RandomState(0)
    centres = np.array([[0.0, 5.0, 0.0], [4.0, 0.0, -4.0]])
    sample = np.concatenate([centres[0] + 0.1 * random.randn(300, 3), centres[1] + 0.3 * random.randn(100, 3)])
    mixture = disp.Mixture.fit(sample, 2)
    drawn = np.stack([mixture.draw(np.random.RandomState([seed, 1])) for seed in range(6000)])
    nearest = np.linalg.norm(drawn[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == 0).mean() == pytest.approx(0.75, abs=0.02)
    for k, deviation in enumerate((0.1, 0.3)):
        of_k = drawn[nearest == k]
        np.testing.assert_allclose(of_k.mean(axis=0), centres[k], atol=0.08)
        np.testing.assert_allclose(of_k.std(axis=0), deviation, rtol=0.25)
