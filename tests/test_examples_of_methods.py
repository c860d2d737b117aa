"""SSGAN, an example in a single file: its equation, and a run that is killed and resumed.

The equation is recomputed in double precision, on a discriminator of two layers that needs no host."""

from __future__ import annotations

import ast
import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from drivers.states import differences
from support.hosts import ADA
from support.runs import killed_and_resumed, options, run_to_its_end, stats

from stylegan_plugins import Images, Pass, Source, Step, Term
from stylegan_plugins.files.states import read_state, states_of
from stylegan_plugins.manager import Catalogue
from stylegan_plugins.run.method import Method, check_terms, check_value
from training_ext.parts import HOST_CRITIC
from training_ext.passes import make_pass

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNS = {  # options of a run, and the statistics that must be finite and move
    "ssgan": ([], ["Loss/D/ssgan", "Loss/G/ssgan", "SSGAN/accuracy/real"]),
}
NAMES = tuple(RUNS)
N, SIDE = 8, 8


# Equations. ---------------------------------------------------------------------------------------


class Discriminator(torch.nn.Module):
    """D(x) = v tanh(W x), in double precision, with the names that the host gives to its last layers."""

    def __init__(self) -> None:
        super().__init__()
        self.b4 = torch.nn.Module()
        self.b4.fc = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 6), torch.nn.Tanh())
        self.b4.fc.weight = self.b4.fc[1].weight
        self.b4.out = torch.nn.Linear(6, 1)
        self.double()

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.b4.out(self.b4.fc(images))


class Example:
    """A method of examples/, set up on a small D, with what it reported."""

    def __init__(self, name: str, rounds: int = 1, **values: float) -> None:
        catalogue = Catalogue()
        self.module = catalogue.load(catalogue.add_file(EXAMPLES / f"{name}.py"))
        self.D, self.reported = Discriminator(), {}
        session = SimpleNamespace(
            **{"D": self.D, "device": torch.device("cpu"), "rounds": rounds},
            **{"average": lambda values: values.detach().mean(), "report": self.reported.__setitem__},
            layer_shape=lambda layer: (6,),
        )
        self.made = self.module.setup(session=session, options=self.module.OPTIONS(**values))
        self.method = Method(name, self.made)
        check_terms(self.method, self.D, torch.nn.Module())

    def terms(self, network: str, source: str) -> list[Term]:
        return [term for term in self.method.terms if term.network == network and term.reads(source)]

    def see(self, source: Source, shown: torch.Tensor, network: str = "D", raw: torch.Tensor | None = None) -> Pass:
        """The pass of images of one source, with the views of the terms on it."""
        raw = shown if raw is None else raw
        images = Images(source, f"{network}main", raw, shown, shown, torch.zeros([len(shown), 0]))
        terms = self.terms(network, source)
        made, views = make_pass(self.D, HOST_CRITIC, images, terms, (), {}, contextlib.nullcontext)
        return replace(made, views={view.name: passed for view, passed in views.items()})

    def loss(self, source: Source, seen: Pass, network: str = "D") -> Any:
        """The weighted sum of the means of all terms on a source; 0 if there are none."""
        step, total = Step(f"{network}main", 0, 0, **{source: seen}), 0
        for term in self.terms(network, source):
            value = term.compute(step)
            check_value(self.method, term, value, {len(made.labels) for made in (seen, *seen.views.values())})
            total = total + term.weight * value.mean()
        return total


def pictures(count: int = N) -> torch.Tensor:
    return torch.rand([count, 3, SIDE, SIDE], dtype=torch.float64) * 2 - 1


def assert_same(loss: Any, expected: Any, inputs: list[torch.Tensor], **tolerance: float) -> None:
    """Two losses are equal, and so are their gradients."""
    torch.testing.assert_close(loss.double(), expected, **tolerance)
    gradients = [torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True) for value in (loss, expected)]
    assert any(gradient is not None and gradient.any() for gradient in gradients[1])
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.unit
@pytest.mark.parametrize("network, source, weight", [("D", "real", 1.0), ("G", "generated", 0.2)])
@pytest.mark.parametrize("share, n", [(0.25, 2), (0.0, 1), (1.0, N)])
def test_ssgan_is_its_equation(network, source, weight, share, n):
    example = Example("ssgan", share=share)
    raw, shown = pictures().requires_grad_(True), pictures()
    seen = example.see(source, shown, network, raw)
    loss, head = example.loss(source, seen, network), example.made.head
    matrix = (head.weight / math.sqrt(head.weight.shape[1])).double()
    expected: Any = 0
    for image in raw[-n:]:
        for quarters in range(4):
            rotated = image
            for _ in range(quarters):
                rotated = rotated.transpose(1, 2).flip(1)  # by 90 degrees
            scores = matrix @ example.D.b4.fc(rotated[None])[0] + head.bias
            expected = expected + weight * (scores.exp().sum().log() - scores[quarters]) / (4 * n)
    # Layers and heads are float32: some 1e-7 for each operation.
    inputs = [raw, *example.D.parameters(), *head.parameters()]
    assert_same(loss, expected, inputs, rtol=1e-5, atol=1e-7)
    accuracy = example.reported[f"SSGAN/accuracy/{source}"]
    assert accuracy.shape == (4 * n,) and set(accuracy.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.unit
def test_ssgan_trains_D_on_real_images_alone_and_rotates_labels_along():
    example = Example("ssgan")
    assert example.terms("D", "generated") == []
    labels = torch.eye(N)
    images = Images("real", "Dmain", pictures(), pictures(), pictures(), labels)
    batch = example.made.rotated(images)
    assert torch.equal(batch.labels, torch.cat(4 * [labels[-2:]]))
    assert batch.targets.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


# The files. ---------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize("name", NAMES)
def test_an_example_imports_nothing_of_ours_but_the_public_package(name):
    modules = set()
    for node in ast.walk(ast.parse((EXAMPLES / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    assert {module for module in modules if module not in sys.stdlib_module_names | {"collections.abc"}} <= {
        "stylegan_plugins",
        "torch",
    }


# Runs. --------------------------------------------------------------------------------------------


@pytest.mark.run
@pytest.mark.parametrize("name", NAMES)
def test_an_example_that_is_killed_ends_as_one_that_was_not(name, ada_host, small_zip, tmp_path):
    flags, statistics = RUNS[name]
    args = options(ada_host, ADA, small_zip, tmp_path, f"--plugin={EXAMPLES / name}.py", *flags, "--device=cpu")
    args |= {"total_kimg": 0.128, "kimg_per_tick": 0.064, "image_snapshot_ticks": 9, "state_minutes": 10.0}
    run_to_its_end(ada_host, args, tmp_path / "whole")
    killed_and_resumed(ada_host, args, tmp_path / "killed", 40)
    assert differences(tmp_path / "killed", tmp_path / "whole") == []
    assert_finite_and_moving(tmp_path / "whole", statistics)


@pytest.mark.run
def test_an_example_trains_with_lecam_and_bcr_in_two_processes_that_agree_on_the_averages(
    ada_host, small_zip, tmp_path
):
    plugins = [f"--plugin=lecam,bcr,{EXAMPLES / 'ssgan'}.py", "--lecam-weight=0.1", "--bcr-flip=true"]
    flags = ["--gpus=2", "--batch=16", "--batch-gpu=4", "--device=cpu"]
    args = options(ada_host, ADA, small_zip, tmp_path, *plugins, *flags)
    args |= {"total_kimg": 0.064, "kimg_per_tick": 9, "image_snapshot_ticks": None, "state_minutes": 10.0}
    run_to_its_end(ada_host, args, tmp_path / "run")
    others = ["Loss/D/lecam", "LeCam/alpha/real", "LeCam/alpha/generated", "Loss/D/bcr_real", "Loss/D/bcr_generated"]
    assert_finite_and_moving(tmp_path / "run", [*others, *RUNS["ssgan"][1]])
    ranks = [rank["session"]["methods"]["lecam"] for rank in read_state(states_of(tmp_path / "run")[0])["ranks"]]
    assert ranks[0]["real"]["batches"] == ranks[0]["generated"]["batches"] == 4  # iterations of 2 rounds
    assert ranks[0]["real"]["a"].isfinite() and ranks[0]["real"]["a"] != ranks[0]["generated"]["a"]
    assert ranks[0] == ranks[1]


def assert_finite_and_moving(run_dir: Path, statistics: list[str]) -> None:
    for name in statistics:
        values = [line[name]["mean"] for line in stats(run_dir) if line[name]["num"]]
        assert len(set(values)) > 1 and all(math.isfinite(value) for value in values), (name, values)
