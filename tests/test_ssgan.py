"""SSGAN: its equation, its batch of rotated images, and what it does in a host."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of
from support.small import N, Small, assert_same, pictures

from stylegan_plugins import Images
from training_ext import ssgan


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.unit
@pytest.mark.parametrize("network, source, weight", [("D", "real", 1.0), ("G", "generated", 0.2)])
@pytest.mark.parametrize("share, n", [(0.25, 2), (0.0, 1), (1.0, N)])
def test_the_term_is_its_equation(network, source, weight, share, n):
    small = Small("ssgan", share=share)
    raw = pictures().requires_grad_(True)
    loss, head = small.loss(network, **{source: small.see(source, pictures(), network, raw)}), small.made.head
    matrix = (head.weight / math.sqrt(head.weight.shape[1])).double()
    expected: Any = 0
    for image in raw[-n:]:
        for quarters in range(4):
            rotated = image
            for _ in range(quarters):
                rotated = rotated.transpose(1, 2).flip(1)  # by 90 degrees
            scores = matrix @ small.D.b4.fc(rotated[None])[0] + head.bias
            expected = expected + weight * (scores.exp().sum().log() - scores[quarters]) / (4 * n)
    # Layers and heads are float32: some 1e-7 for each operation.
    inputs = [raw, *small.D.b4.fc.parameters(), *head.parameters()]
    assert_same(loss, expected, inputs, rtol=1e-5, atol=1e-7)
    accuracy = small.reported[f"SSGAN/accuracy/{source}"]
    assert accuracy.shape == (4 * n,) and set(accuracy.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.unit
def test_D_learns_from_real_images_alone_and_labels_go_with_their_images():
    small = Small("ssgan")
    assert small.terms("D", "generated") == []
    batch = small.made.rotated(Images("real", "Dmain", pictures(), pictures(), pictures(), torch.eye(N)))
    assert torch.equal(batch.labels, torch.cat(4 * [torch.eye(N)[-2:]]))
    assert batch.targets.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.unit
def test_the_four_angles_of_an_image_are_one_group_of_the_minibatch_standard_deviation():
    rotated, quarters = ssgan.rotations(pictures(), 3)
    groups = rotated.unflatten(0, (4, 3)).transpose(0, 1)  # as D's layer makes groups of 4
    for group in groups:
        assert torch.equal(group[1], group[0].rot90(1, (1, 2))) and torch.equal(group[3], group[0].rot90(3, (1, 2)))
    assert quarters.unflatten(0, (4, 3)).T.tolist() == 3 * [[0, 1, 2, 3]]


@pytest.mark.host
def test_in_a_host_it_is_off_when_off_and_trains_D_its_head_and_G_in_the_main_phases(fetched):
    claims = report_of(fetched[ADA], "heads.py", "ssgan")
    assert claims and {claim: wrong for claim, wrong in claims.items() if wrong} == {}
