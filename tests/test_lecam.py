"""lecam: its equation, the authors' code, and what it does in a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from training_ext.lecam import DebiasedAverage, penalty

GOLDEN = Path(__file__).parent / "golden/lecam.npz"
EXACT = {"rtol": 1e-12, "atol": 1e-14}  # double precision: sums in another order


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind == "f"}


@pytest.mark.unit
def test_the_penalty_is_its_equation_for_critics_of_several_logits():
    real, generated = torch.randn([2, 5, 3], dtype=torch.float64).unbind()
    actual = penalty(real, generated, torch.tensor(0.3), torch.tensor(-0.2))
    alpha_real, alpha_generated = torch.tensor(0.3).item(), torch.tensor(-0.2).item()
    for n in range(5):
        squares = [max(0, d - alpha_generated) ** 2 for d in real[n].tolist()]
        squares += [max(0, alpha_real - d) ** 2 for d in generated[n].tolist()]
        assert actual[n].item() == pytest.approx(sum(squares) / 3, rel=1e-12)


@pytest.mark.unit
@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_the_average_weighs_batches_by_their_age_however_they_come_in_rounds(rounds):
    average, batches = DebiasedAverage(0.9, torch.device("cpu")), torch.randn([6, 4], dtype=torch.float64)
    for t, batch in enumerate(batches):
        for round, part in enumerate(batch.chunk(rounds)):
            average.add(part.mean(), round)
        weights = [0.9 ** (t - k) for k in range(t + 1)]
        expected = sum(w * b.mean().item() for w, b in zip(weights, batches)) / sum(weights)
        assert average.alpha.item() == pytest.approx(expected, rel=1e-12)
    other = DebiasedAverage(0.9, torch.device("cpu"))
    other.load_state_dict(average.state_dict())
    for each in (average, other):
        each.add(torch.tensor(2.0, dtype=torch.float64), 0)
    assert average.alpha == other.alpha


@pytest.mark.unit
def test_losses_and_gradients_equal_the_authors_f9af948_for_stylegan2(golden):
    averages = [DebiasedAverage(0.99, torch.device("cpu")) for _ in range(2)]  # of real and generated images
    for step in range(5):
        logits = golden[f"stylegan2/{step}/logits"].requires_grad_(True)
        for average, of_source in zip(averages, logits):
            average.add(of_source.detach().mean(), 0)
        loss = penalty(logits[0], logits[1], averages[0].alpha, averages[1].alpha).mean()
        torch.testing.assert_close(loss.detach(), golden[f"stylegan2/{step}/loss"], **EXACT)
        (gradient,) = torch.autograd.grad(loss, [logits])
        torch.testing.assert_close(gradient, golden[f"stylegan2/{step}/grad"], **EXACT)


@pytest.mark.unit
def test_losses_and_gradients_equal_the_authors_f9af948_for_biggan(golden):
    logits = golden["biggan/logits"].requires_grad_(True)
    loss = penalty(logits[0], logits[1], golden["biggan/alpha_real"], golden["biggan/alpha_generated"]).mean()
    torch.testing.assert_close(loss.detach(), golden["biggan/loss"], **EXACT)
    torch.testing.assert_close(torch.autograd.grad(loss, [logits])[0], golden["biggan/grad"], **EXACT)


@pytest.mark.host
def test_it_trains_D_alone_without_a_pass_of_its_own_and_its_averages_span_processes_and_rounds(fetched):
    options, off = json.dumps({"weight": 1}), json.dumps({"weight": 0})
    found = report_of(fetched[ADA], "regularizers.py", "lecam", options, off, "ranks")
    assert found["off"] == ""
    assert found["trained"] == {"Gmain": [], "Greg": [], "Dmain": ["D"], "Dreg": []}
    assert all(with_it == without for with_it, without in found["passes"].values())
    assert max(found["ranks"].values()) < 1e-6
    # Averages after two rounds equal one round's. The penalty differs: the second round's averages have seen more.
    averages = {key: value for key, value in found["rounds"].items() if "main" not in key}
    assert len(averages) == 4 and max(averages.values()) < 1e-6 and found["rounds"]["Dmain"] > 1e-4
