"""mode-seeking: its equation, the authors' code, and what it does in a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from training_ext.mode_seeking import distances, mode_seeking_loss

GOLDEN = Path(__file__).parent / "golden/mode_seeking.npz"


@pytest.mark.unit
def test_the_loss_is_its_equation():
    images, z = torch.randn([2, 3, 2, 4, 4], dtype=torch.float64), torch.randn([2, 3, 5], dtype=torch.float64)
    mean = lambda values: sum(values) / len(values)
    d_images, d_z = (mean([abs(b - a) for a, b in zip(*(v.flatten().tolist() for v in x))]) for x in (images, z))
    loss = mode_seeking_loss(distances(images[0], images[1]), distances(z[0], z[1]))
    assert loss.item() == pytest.approx(1 / (d_images / d_z + 1e-5), rel=1e-12)
    assert mode_seeking_loss(torch.zeros(3), torch.ones(3)).item() == pytest.approx(1e5)  # images that are all alike


@pytest.mark.unit
def test_loss_and_gradients_equal_the_authors_e386c25():
    with np.load(GOLDEN) as file:
        golden = {key: torch.from_numpy(file[key]) for key in ("images", "z", "loss", "grad")}
    images = golden["images"].requires_grad_(True)
    loss = mode_seeking_loss(distances(images[0], images[1]), distances(*golden["z"]))
    # Double precision: sums in another order.
    torch.testing.assert_close(loss.detach(), golden["loss"], rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, [images])[0], golden["grad"], rtol=1e-12, atol=0)


@pytest.mark.host
def test_it_trains_G_alone_with_two_passes_of_G_and_its_means_span_processes(fetched):
    args = ("regularizers.py", "mode-seeking", "{}", json.dumps({"weight": 0}), "ranks")
    found = report_of(fetched[ADA], *args)
    assert found["off"] == ""
    assert found["trained"] == {"Gmain": ["G"], "Greg": [], "Dmain": [], "Dreg": []}
    passes = {phase: mine for phase, (mine, stock) in found["passes"].items() if mine != stock}
    assert passes == {"Gmain": {"D": [4], "G": [4, 4, 4]}}
    assert max(found["ranks"].values()) < 1e-6  # without style mixing, where the images of the step are the first ones
