"""What a plug-in contributes to a session, and what its loss terms see: plain data, no plug-in system in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

Source = Literal["real", "generated"]
Layer = Literal["conv", "fc"]
LAYERS: dict[str, str] = {"conv": "b4.conv", "fc": "b4.fc"}
"""Where D's features are read: `conv` is the flattened output of the last convolution, `fc` that of the last hidden
layer."""


@dataclass
class Pass:
    """One evaluation of D. Terms read it; they never change it.

    raw             the images as the data set or G gave them, before ADA
    images          what D saw: after ADA and all augmentations, [N, C, H, W], pixel values in [-1, 1] if not augmented
    clean           the same images after ADA, before the augmentations
    labels          [N, c_dim]
    omega           parameters of the augmentations, by augmentation and group, each [N, k] in [0, 1]
    logits          [N, 1]
    features        of `images`, by layer, [N, F] float32: those that a term asked for
    clean_features  of `clean`, likewise
    views           features of each view, of which `images` is the first: one, unless an adversarial term wants more
    report          takes a statistic's name and its values"""

    source: Source
    phase: str
    raw: torch.Tensor
    images: torch.Tensor
    clean: torch.Tensor
    labels: torch.Tensor
    omega: Mapping[str, Mapping[str, torch.Tensor]]
    logits: torch.Tensor
    features: Mapping[str, torch.Tensor]
    clean_features: Mapping[str, torch.Tensor]
    views: Sequence[Mapping[str, torch.Tensor]]
    report: Callable[[str, object], object]


@dataclass(frozen=True)
class Augmentation:
    """A differentiable transformation of D's input.

    transform   images [N, C, H, W] -> (transformed images, omega by group: [N, k] in [0, 1])
    applies     (source, phase) -> whether images of that source are transformed in that phase"""

    name: str
    transform: Callable[[torch.Tensor], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
    applies: Callable[[Source, str], bool] = lambda source, phase: True


@dataclass(frozen=True)
class Head:
    """A module that is trained with D. `module` is made where the host's random numbers do not see it."""

    name: str
    module: Callable[[], torch.nn.Module]


@dataclass(frozen=True)
class LossTerm:
    """A term of D's or G's loss, computed for each pass of that network's main phase.

    network         'D': for generated and for real images; 'G': for generated ones
    compute         Pass -> [N], not reduced, not weighted
    weight          0 switches the term off: it is not computed
    active          whether the term is computed now: asked in each pass
    features        layers whose features it reads; clean_features: the same for images without augmentation"""

    name: str
    network: Literal["D", "G"]
    compute: Callable[[Pass], torch.Tensor]
    weight: float = 1.0
    features: frozenset[str] = frozenset()
    clean_features: frozenset[str] = frozenset()
    active: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class AdversarialTerm:
    """Takes the place of the host's adversarial term.

    logits          Pass -> [N, 1]: the logits that D and G are trained by, that R1 is computed on, and that ADA and
                    the statistics see. Default: those of the host's D. R1 always has a pass of its own, `Dreg`
    joint           (generated, real) -> [N]: a term of D that needs both passes; their graphs are kept for it
    weight          factor of D's adversarial loss; 0 switches it off, and R1 with it
    views           how often real images are augmented in D's main phase; views_mixed: whether minibatch-stddev groups
                    may hold views of both kinds, as in one batch of all views, or are those of passes of their own
    r1              the images whose gradient R1 takes: `clean`, as the hosts do, or `augmented`"""

    name: str
    logits: Callable[[Pass], torch.Tensor] = lambda evaluated: evaluated.logits
    joint: Callable[[Pass, Pass], torch.Tensor] | None = None
    weight: float = 1.0
    features: frozenset[str] = frozenset()
    views: int = 1
    views_mixed: bool = True
    r1: Literal["clean", "augmented"] = "clean"


@dataclass
class Parts:
    """All parts of a session, as the loss uses them."""

    augmentations: list[Augmentation] = field(default_factory=list)
    terms: list[LossTerm] = field(default_factory=list)
    adversarial: AdversarialTerm | None = None

    def terms_of(self, network: str) -> list[LossTerm]:
        """The active terms of a network, by name: the order of plug-ins never decides a sum."""
        active = (term for term in self.terms if term.network == network and term.weight != 0 and term.active())
        return sorted(active, key=lambda term: term.name)
