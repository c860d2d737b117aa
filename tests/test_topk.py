"""topk: its schedule, StudioGAN's code, and what it does in a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.hosts import ADA
from support.scripts import report_of

from stylegan_plugins import Images, Pass, Step
from stylegan_plugins.plugins import topk as plugin
from training_ext.topk import kept, kept_in_round, largest

GOLDEN = Path(__file__).parent / "golden/topk.npz"


@pytest.mark.unit
@pytest.mark.parametrize("batch, nu", [(8, 0.5), (32, 0.3), (3, 0.1)])
def test_k_falls_from_the_batch_to_its_share_and_is_never_0(batch, nu):
    ks = [kept(batch, epoch, 0.9, nu) for epoch in range(60)]
    assert ks[0] == batch and ks[-1] == max(math.floor(nu * batch), 1) and ks == sorted(ks, reverse=True)
    assert [kept(batch, epoch, 1.0, nu) for epoch in range(60)] == [batch] * 60
    assert kept(batch, 60, 0.9, 1.0) == batch


@pytest.mark.unit
@given(st.integers(0, 64), st.integers(1, 16))
def test_shares_of_rounds_add_up_to_k_and_differ_by_one_at_most(k, rounds):
    shares = [kept_in_round(k, round, rounds) for round in range(rounds)]
    assert sum(shares) == k and max(shares) - min(shares) <= 1


@pytest.mark.unit
def test_k_losses_and_gradients_equal_studiogans_947b35e():
    with np.load(GOLDEN) as file:
        golden = {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind in "fi"}
    batch = golden["logits"].shape[1]
    for epoch, row in enumerate(golden["logits"]):
        k = kept(batch, epoch, golden["gamma"].item(), golden["nu"].item())
        assert k == golden["k"][epoch]
        row = row.clone().requires_grad_(True)
        weights = batch / k * largest(row.detach(), k)
        loss = (weights * torch.nn.functional.softplus(-row)).mean()
        # Double precision: sums in another order.
        torch.testing.assert_close(loss.detach(), golden["loss"][epoch], rtol=1e-12, atol=0)
        torch.testing.assert_close(torch.autograd.grad(loss, [row])[0], golden["grad"][epoch], rtol=1e-12, atol=0)


@pytest.mark.unit
def test_rounds_share_the_k_of_the_batch_and_weigh_as_one_round():
    session = SimpleNamespace(num_gpus=1, rank=0, rounds=3, nimg=2500, report=lambda name, value: None)
    options = plugin.TopKOptions(gamma=0.75, nu=0.1, epoch_kimg=1.0)
    method = plugin.setup(session=session, options=options)
    total = torch.zeros([])
    for round in range(3):
        logits = torch.randn([4, 2])
        raw = torch.zeros([4, 3, 2, 2])
        images = Images("generated", "Gmain", raw, raw, raw, raw.new_zeros([4, 0]))
        seen = Pass(images, None, raw, images.labels, judged=logits)
        weights = method.sample_weights(Step("Gmain", 2500, round, generated=seen))
        assert weights[logits.mean(1).argsort()].tolist() == sorted(weights.tolist())  # the largest count
        total += weights.sum()
    assert kept(12, 2, 0.75, 0.1) == 6 and total == 12  # a mean of 1
    session.nimg = 999  # of the first epoch
    assert method.sample_weights(Step("Gmain", 999, 0, generated=seen)) is None


@pytest.mark.unit
def test_an_epoch_is_the_data_set_unless_it_is_given():
    args = {"training_set_kwargs": {"max_size": 160}}
    assert plugin.configure(args=args, options=plugin.TopKOptions()).epoch_kimg == 0.16
    assert plugin.configure(args=args, options=plugin.TopKOptions(epoch_kimg=50.0)).epoch_kimg == 50


@pytest.mark.host
def test_it_changes_the_loss_of_G_alone_and_k_spans_processes(fetched):
    on, off = {"gamma": 0.6, "nu": 0.1, "epoch_kimg": 1}, {"nu": 1, "epoch_kimg": 1}
    found = report_of(fetched[ADA], "regularizers.py", "topk", json.dumps(on), json.dumps(off), "ranks")
    assert found["off"] == ""
    assert found["trained"] == {"Gmain": ["G"], "Greg": [], "Dmain": [], "Dreg": []}
    assert all(with_it == without for with_it, without in found["passes"].values())
    assert max(found["ranks"].values()) < 1e-6
