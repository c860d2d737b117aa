"""InsGen: its equation, queues, options, the authors' numbers, and what it does in a host."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from stylegan_plugins import OptionError
from stylegan_plugins.plugins import insgen as plugin
from training_ext import insgen
from training_ext.heads import update_average
from training_ext.parts import Average

GOLDEN = Path(__file__).parent / "golden" / "insgen.npz"
ROOT = {"first": "0", "last": "2"}  # layers of the authors' heads


@pytest.fixture(scope="module")
def golden():
    return {k: torch.from_numpy(v) for k, v in np.load(GOLDEN).items() if v.dtype.kind == "f"}


@pytest.mark.unit
@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_loss_and_keys_are_their_equations(temperature):
    generator = torch.Generator().manual_seed(0)
    head = insgen.InstanceHead(5, width=4).double()
    maps = torch.randn([3, 5, 4, 4], generator=generator, dtype=torch.float64)
    (W, b), (V, c) = [(layer.weight.detach(), layer.bias.detach()) for layer in (head.first, head.last)]
    out = [V @ torch.relu(W @ image.flatten(1).mean(1) + b) + c for image in maps]
    query = head(maps).detach()
    torch.testing.assert_close(query, torch.stack([value / value.square().sum().sqrt() for value in out]))
    key, queue = (torch.randn([n, 4], generator=generator, dtype=torch.float64) for n in (3, 6))
    loss = insgen.instance_loss(insgen.instance_logits(query, key, queue, temperature))
    for q, k, value in zip(query, key, loss):
        scores = [math.exp(float(q @ u) / temperature) for u in (k, *queue)]
        assert value.item() == pytest.approx(-math.log(scores[0] / math.fsum(scores)), rel=1e-10)


@pytest.mark.unit
def test_the_queue_keeps_the_newest_keys_in_their_order():
    queue = torch.arange(5.0).unsqueeze(1)
    assert insgen.enqueued(queue, torch.tensor([[5.0], [6.0]])).flatten().tolist() == [2, 3, 4, 5, 6]
    assert insgen.enqueued(queue, torch.arange(10.0, 17).unsqueeze(1)).flatten().tolist() == [12, 13, 14, 15, 16]
    torch.testing.assert_close(insgen.first_queue(4).norm(dim=1), torch.ones(4))


@pytest.mark.unit
def test_heads_losses_and_queues_equal_the_authors_52bda7c(golden):
    head = insgen.InstanceHead(8)
    parts = [(layer, part) for layer in ROOT for part in ("weight", "bias")]
    names = {f"{ROOT[layer]}.{part}": getattr(getattr(head, layer), part) for layer, part in parts}
    for name, weight in names.items():
        weight.data.copy_(golden[f"head/{name}"])
    average, queue = Average("key", head, 0.999), golden["head/queue"]
    in_any_order = lambda queue: sorted(queue.tolist())
    for call in range(4):
        given = {name: golden[f"head/{call}/{name}"] for name in ("query", "key")}
        features = given["query"].requires_grad_(True)
        update_average(average)  # theirs is updated when it is called
        with torch.no_grad():
            key, own = average.module(given["key"]), average.module(features)
        loss = insgen.instance_loss(insgen.instance_logits(head(features), key, queue, 0.2)).mean()
        # float32: some 1e-7 for each operation, in another order.
        torch.testing.assert_close(loss, golden[f"head/{call}/loss"], rtol=1e-6, atol=1e-6)
        gradients = torch.autograd.grad(loss, [features, *names.values()])
        for name, gradient in zip(["query", *names], gradients, strict=True):
            expected = golden[f"head/{call}/grad/{name}"]
            assert (gradient - expected).norm() <= 1e-6 * expected.norm(), name
            if name in names:
                names[name].data -= 0.5 * gradient
        if call != 2:  # G's: the loss alone
            queue = insgen.enqueued(queue, own if call == 1 else key)
        theirs = torch.tensor(in_any_order(golden[f"head/{call}/queue"]))
        torch.testing.assert_close(torch.tensor(in_any_order(queue)), theirs, rtol=0, atol=1e-6)


@pytest.mark.unit
def test_queues_are_of_5_percent_of_the_images_as_the_authors_count_them():
    args = {"training_set_kwargs": {"max_size": 2000}}
    filled = plugin.configure(args=args, options=plugin.InsGenOptions())
    assert (filled.real_queue, filled.generated_queue) == (100, 100)
    args["training_set_kwargs"]["xflip"] = True
    filled = plugin.configure(args=args, options=plugin.InsGenOptions(generated_queue=7))
    assert (filled.real_queue, filled.generated_queue) == (200, 7)


@pytest.mark.unit
def test_a_linear_p_takes_the_place_of_adas_own_control_and_needs_ada():
    args = {"training_set_kwargs": {"max_size": 100}, "augment_kwargs": {}, "ada_target": 0.6}
    linear = plugin.InsGenOptions(ada_linear=0.5)
    without = copy.deepcopy(args) | {"ada_target": None}
    plugin.configure(args=args, options=linear)
    assert "ada_target" not in args and args["augment_p"] == 0.5
    with pytest.raises(OptionError, match="^--insgen-ada-linear=0.5: ADA does not control p"):
        plugin.configure(args=without, options=linear)


@pytest.mark.host
def test_in_a_host_steps_equal_the_authors_and_state_spans_rounds_and_processes(fetched):
    claims = report_of(fetched[ADA], "heads.py", "insgen", str(GOLDEN))
    assert len(claims) > 8 and {claim: wrong for claim, wrong in claims.items() if wrong} == {}
