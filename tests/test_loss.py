"""PluginLoss is the host's loss where no part is active, and what its docstring says where parts are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.hosts import ADA, CHECKOUTS, STYLEGAN3
from support.scripts import DRIVERS, run_script

from training_ext.gan_losses import GAN_LOSSES


def driver(host: Path, name: str, *args: object, **options) -> dict:
    """Run a driver in a host's folder; its last line is JSON."""
    return json.loads(run_script(host, str(DRIVERS / name), *map(str, args), **options).stdout.splitlines()[-1])


@pytest.mark.host
@pytest.mark.parametrize("family", [ADA, STYLEGAN3])
def test_without_parts_gradients_are_those_of_the_host_bit_for_bit(fetched, family):
    differences = driver(fetched[family], "loss_equality.py", family)
    assert len(differences) == 2 * 6 * 3  # with and without ADA, phases, variants
    assert {case: names for case, names in differences.items() if names} == {}


@pytest.mark.host
@pytest.mark.parametrize("pristine", [ADA, STYLEGAN3], indirect=True, ids=[ADA, STYLEGAN3])
def test_in_nvidias_checkout_gradients_are_those_of_the_host_bit_for_bit(pristine, request):
    family = request.node.callspec.params["pristine"]
    assert family in CHECKOUTS
    differences = driver(pristine, "loss_equality.py", family)
    assert {case: names for case, names in differences.items() if names} == {}


@pytest.mark.unit
def test_gan_losses_equal_their_equations():
    logits = torch.linspace(-3, 3, 13, dtype=torch.float64).reshape(-1, 1)
    one = torch.ones_like(logits)
    log_sigmoid = lambda x: -(1 / (1 + (-x).exp())).log()
    expected = {
        "nonsaturating": (log_sigmoid(logits), log_sigmoid(-logits), log_sigmoid(logits)),
        "minimax": (log_sigmoid(logits), log_sigmoid(-logits), -log_sigmoid(-logits)),
        "hinge": (torch.maximum(0 * one, one - logits), torch.maximum(0 * one, one + logits), -logits),
        "lsgan": ((logits - 1) ** 2 / 2, logits**2 / 2, (logits - 1) ** 2 / 2),
        "wgan": (-logits, logits, -logits),
    }
    assert GAN_LOSSES.keys() == {*expected, "relativistic"}
    for name, (real, generated, generator) in expected.items():
        loss = GAN_LOSSES[name]
        torch.testing.assert_close(loss.real(logits), real)
        torch.testing.assert_close(loss.generated(logits), generated)
        torch.testing.assert_close(loss.generator(logits), generator)
        assert not loss.paired
    paired, others = GAN_LOSSES["relativistic"], logits.flip(0) + 0.5
    assert paired.paired
    torch.testing.assert_close(paired.real(logits, others), log_sigmoid(logits - others))  # D: real above generated
    torch.testing.assert_close(paired.generator(others, logits), log_sigmoid(others - logits))


@pytest.mark.host
def test_parts_reach_the_passes_that_they_are_for(fetched):
    result = driver(fetched[ADA], "loss_parts.py")
    assert result == {name: True for name in result} and len(result) >= 8
