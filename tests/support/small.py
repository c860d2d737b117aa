"""A method of a built-in plug-in on a small D in double precision, without a host."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from stylegan_plugins import Images, Pass, Source, Step, Term
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run.checks import check_terms, check_value
from stylegan_plugins.run.method import Method
from training_ext.gan_losses import GAN_LOSSES
from training_ext.parts import HOST_CRITIC
from training_ext.passes import make_pass

N, SIDE, WIDTH = 8, 8, 6


class OfAnyType(torch.nn.Linear):
    """Terms read layers as float32."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs.to(self.weight.dtype))


class SmallD(torch.nn.Module):
    """D(x) = v tanh(W x), with the names that the hosts give to the last layers of D."""

    c_dim = 0

    def __init__(self) -> None:
        super().__init__()
        self.b4 = torch.nn.Module()
        self.b4.fc = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, WIDTH), torch.nn.Tanh())
        self.b4.out = OfAnyType(WIDTH, 1)
        self.double()

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.b4.out(self.b4.fc(images))


class SmallSynthesis(torch.nn.Module):
    """Images [N, 3, SIDE, SIDE] of w [N, 1, 4], with the name that the hosts give to the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.b4 = torch.nn.Module()
        self.b4.conv1, self.last = torch.nn.Linear(4, WIDTH), torch.nn.Linear(WIDTH, 3 * SIDE * SIDE)
        self.double()

    def forward(self, ws: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.last(torch.tanh(self.b4.conv1(ws[:, 0])))).unflatten(1, [3, SIDE, SIDE])


class Small:
    """A method that is set up on a small D, with what it reported."""

    def __init__(self, plugin: str, rounds: int = 1, **values: Any) -> None:
        self.D, self.G, self.reported = SmallD(), torch.nn.Module(), {}
        self.G.synthesis = SmallSynthesis()
        self.session = SimpleNamespace(
            **{
                "D": self.D,
                "G": self.G,
                "see": self.see_again,
                "sample_weights": lambda step: None,
                "device": torch.device("cpu"),
                "rounds": rounds,
                "round": 0,
                "num_gpus": 1,
            },
            **{"average": lambda values: values.detach().mean(), "report": self.reported.__setitem__},
            **{"layer_shape": lambda layer: (WIDTH,), "augmentations": [], "augment_pipe": None},
            **{"critic": HOST_CRITIC, "loss": SimpleNamespace(gan_loss=GAN_LOSSES["nonsaturating"])},
        )
        module = catalogue().load(plugin)
        self.made = module.setup(session=self.session, options=module.OPTIONS(**values))
        self.method = Method(plugin, self.made)
        check_terms(self.method, self.D, self.G.synthesis)

    def see_again(self, images: Images) -> Pass:
        """See images again as the session does it, without augmentations."""
        images = replace(images, clean=images.raw, shown=images.raw)
        return make_pass(self.D, HOST_CRITIC, images, (), (), {}, contextlib.nullcontext)[0]

    def terms(self, network: str, source: str) -> list[Term]:
        return [term for term in self.method.terms if term.network == network and term.reads(source)]

    def see(
        self, source: Source, shown: torch.Tensor, network: str = "D", raw: torch.Tensor | None = None, **more: Any
    ) -> Pass:
        """Return the pass of images of one source, with the gradients and views that terms read. more: fields of the
        images"""
        raw = shown if raw is None else raw
        images = Images(source, f"{network}main", raw, shown, shown, shown.new_zeros([len(shown), 0]), **more)
        terms = self.terms(network, source)
        gradients = {name for term in terms for name in term.gradients}
        made, views = make_pass(self.D, HOST_CRITIC, images, terms, gradients, {}, contextlib.nullcontext)
        return replace(made, views={view.name: passed for view, passed in views.items()})

    def loss(self, network: str = "D", **passes: Pass) -> Any:
        """Return the weighted sum of the means of all terms on these passes; 0 if there are none."""
        step, total = Step(f"{network}main", 0, self.session.round, **passes), 0
        for term in self.method.terms:
            fits = set(passes) == {"real", "generated"} if term.on == "both" else len(passes) == 1
            if term.network == network and fits and all(term.reads(source) for source in passes):
                value = term.compute(step)
                sizes = {len(made.labels) for seen in passes.values() for made in (seen, *seen.views.values())}
                check_value(self.method, term, value, sizes)
                total = total + term.weight * value.mean()
        return total


def pictures(count: int = N) -> torch.Tensor:
    return torch.rand([count, 3, SIDE, SIDE], dtype=torch.float64) * 2 - 1


def assert_same(loss: Any, expected: Any, inputs: list[torch.Tensor], **tolerance: float) -> None:
    """Assert that two losses are equal, and so are their gradients, of which some are not 0."""
    torch.testing.assert_close(loss.double(), expected, **tolerance)
    gradients = [torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True) for value in (loss, expected)]
    assert any(gradient is not None and gradient.any() for gradient in gradients[1])
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, **tolerance)
