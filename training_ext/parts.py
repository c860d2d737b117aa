"""The contract of a method: the parts that it contributes to a run, and the arguments of their functions.

This is plain data, independent of the plug-in system. It does not import torch at run time, so that the import is fast
for an author's module and for the command line.

Shapes: N images of this process in one round, C channels, H = W pixels, c_dim the width of a label, M items of a view
with another number of items. Pixel values are in [-1, 1] before augmentations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from training_ext.gan_losses import GanLoss

Source = Literal["real", "generated"]
Network = Literal["D", "G"]


class ContractError(ValueError):
    """A part breaks the contract. The session adds the plug-in's name.

    part: the view or the critic at fault; None: the parts that are running"""

    def __init__(self, message: str, part: View | Critic | None = None) -> None:
        super().__init__(message)
        self.part = part


class Declared(dict):
    """The values that a part declared, by name. Reading another value raises an error that says how to declare it.

    what: the argument for the declaration; absent: declared names without a value"""

    def __init__(self, what: str, values: Mapping[str, Any], absent: Iterable[str] = ()) -> None:
        super().__init__(values)
        self.what, self.absent = what, tuple(absent)

    def __missing__(self, name: str) -> Any:
        if name in self.absent:
            raise ContractError(f"{name!r} of `{self.what}` is read, and this pass has none: {WITHOUT[self.what]}")
        known = ", ".join(map(repr, [*self, *self.absent])) or "none"
        raise ContractError(f"{name!r} is read and not declared; name it in `{self.what}`, which has {known}")

    @classmethod
    def of(cls, what: str, names: Iterable[str], values: Mapping[str, Any]) -> Declared:
        """Return the values of these names that exist."""
        names = list(names)
        absent = [name for name in names if name not in values]
        return cls(what, {name: values[name] for name in names if name in values}, absent)


WITHOUT = {  # why a pass lacks values, by the argument for their declaration
    "layers": "D has not seen its images",
    "generator_layers": "its images are real",
    "gradients": "the pass was made without it",
    "gradient": "the view is made without gradient=True",
    "views": "the view is of the other source",
}


def always(*_: Any) -> bool:
    return True


def unmoved(maps: torch.Tensor) -> torch.Tensor:
    return maps


# Arguments of a method's functions. -----------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """The images of one source in one step, drawn once, before D has seen them.

    source            'real' or 'generated'
    phase             the phase of the host: Gmain, Greg, Dmain, Dreg, or Gboth, Dboth without lazy regularisation
    raw               [N, C, H, W] from the data set or G; in a phase of D, a leaf of the graph if a part declares a
                      gradient by `raw`
    clean             [N, C, H, W] after the host's blur and ADA
    shown             [N, C, H, W] after the augmentations, as the critic judges them
    labels            [N, c_dim]
    omega             draws of the augmentations, by augmentation and group
    z                 [N, z_dim] of generated images, else None
    w                 [N, num_ws, w_dim] of generated images, else None
    index             [N] of real images: their places in the host's data set, else None; also None in a loop that does
                      not take its indices from our sampler
    generator_layers  outputs of the layers of G.synthesis that a term declares, by name, float32
    moved             maps [N, C, h, w] of the raw images -> the same, moved as ADA moved the images: the same draw of
                      its geometric transformations, in relative coordinates"""

    source: Source
    phase: str
    raw: torch.Tensor
    clean: torch.Tensor
    shown: torch.Tensor
    labels: torch.Tensor
    omega: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    z: torch.Tensor | None = None
    w: torch.Tensor | None = None
    index: torch.Tensor | None = None
    generator_layers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    moved: Callable[[torch.Tensor], torch.Tensor] = unmoved


@dataclass(frozen=True)
class Pass:
    """The outputs of D and the critic for one batch: the shown images of a source, or a view.

    images       the images of the source; for a view, the images that it was made from
    view         the name of the view, None for the shown images
    batch        [N, C, H, W] or, of a view, [M, C, H, W]: the input of D
    labels       [N, c_dim] or [M, c_dim]
    targets      targets of the view, else None
    host_logits  [N, 1] of the host's D, None if D did not run
    layers       outputs of the layers of D that a part declares, by name, float32, unchanged
    logits       [N, K] of the critic, [N, 1] of the host's; for a view, only with `judged` or `gradient`
    gradients    of the sum of `logits`, by the images that a term or R1 declares: 'raw' or 'shown', for a view 'batch';
                 in the shape of the images, with a graph
    views        passes of the views that the term declares, by name"""

    images: Images
    view: str | None
    batch: torch.Tensor
    labels: torch.Tensor
    targets: Any = None
    host_logits: Any = None  # a tensor if D ran
    layers: Mapping[str, torch.Tensor] = field(default_factory=dict)
    judged: torch.Tensor | None = None  # the value of `logits`
    gradients: Mapping[str, torch.Tensor] = field(default_factory=dict)
    views: Mapping[str, Pass] = field(default_factory=dict)

    @property
    def logits(self) -> torch.Tensor:
        if self.judged is None and self.view is None:
            raise ContractError("logits are read, and the critic has none")
        if self.judged is None:
            raise ContractError(f"the view {self.view!r} has no logits; make it with judged=True")
        return self.judged


@dataclass(frozen=True)
class Step:
    """One round of one phase, with only the passes that a term declared.

    phase      as in `Images`
    nimg       real images shown before this iteration
    round      number of the round of gradient accumulation, 0, 1, ... in one optimiser step
    real       the pass of the real images, or None
    generated  the pass of the generated images, or None"""

    phase: str
    nimg: int
    round: int
    real: Any = None  # Pass | None; Any, since a term knows which of them it declared
    generated: Any = None

    @property
    def one(self) -> Pass:
        """The pass of a term on one source or on 'each' source, which has only one."""
        if self.real is not None and self.generated is not None:
            raise ContractError("a step of a term on 'both' has no one pass; read step.real and step.generated")
        return self.real if self.generated is None else self.generated

    @property
    def source(self) -> Source:
        """The source of the only pass."""
        return "real" if self.generated is None else "generated"


@dataclass(frozen=True)
class Batch:
    """A view with its own labels or targets, or with another number of items than the shown images.

    images   [M, C, H, W]
    labels   [M, c_dim]; None: the labels of the source
    targets  any value for its term"""

    images: torch.Tensor
    labels: torch.Tensor | None = None
    targets: Any = None


# Parts. -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """A differentiable transformation of all images that D sees, in two steps, so that a draw can be used again.

    name    key in `Images.omega`
    sample  images [N, C, H, W] -> omega by group: all random values; [N, k] in [0, 1] for terms that learn it
    apply   (images, omega) -> images; differentiable, twice where R1 passes through it
    where   (source, phase) -> whether images of that source are transformed in that phase"""

    name: str
    sample: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
    apply: Callable[[torch.Tensor, Any], torch.Tensor]
    where: Callable[[Source, str], bool] = always


@dataclass(frozen=True)
class View:
    """A further batch for the terms that name it. Two terms with the same object share it.

    name      of the pass in `Pass.views`; terms of other methods may have a view of the same name
    make      Images -> [N, C, H, W], or a `Batch`; if D sees it, M is a multiple of D's minibatch-stddev group
    on        the source of its images, or 'each'
    groups    minibatch-stddev groups: 'own', apart from the shown images; 'shared', across both; 'none': D does not
              see the view
    judged    whether the critic also judges it, so that its pass has logits
    gradient  whether its pass has logits and their gradient by its images; the images are detached, so that G gets no
              gradient"""

    name: str
    make: Callable[[Images], torch.Tensor | Batch]
    on: Literal["real", "generated", "each"] = "each"
    groups: Literal["own", "shared", "none"] = "own"
    judged: bool = False
    gradient: bool = False


@dataclass(frozen=True)
class Term:
    """A term of the loss of D or G.

    name              reported before weighting as Loss/<network>/<name>
    network           'D' or 'G'
    compute           Step -> [N], or [M] for a view of M items, of which the mean counts; [1] for a term on 'nothing',
                      whose step has no pass; called in each round of gradient accumulation
    weight            factor of the term; a term with weight 0 is not computed
    on                the passes that it reads: 'real' or 'generated' images; 'each' in turn, generated images first;
                      'both' at once, which keeps both graphs for one backward pass; or 'nothing'. On 'each', a term of
                      G reads generated images only
    when              the phase: 'main', or 'reg', for which the host multiplies gradients by the interval
    layers            names of submodules of D whose outputs it reads, for example 'b4.fc'
    generator_layers  names of submodules of G.synthesis, for example 'b16'
    views             further batches that it reads
    gradients         'raw' and 'shown': gradients of the critic's logits that it reads
    active            phase -> whether it is computed now"""

    name: str
    network: Network
    compute: Callable[[Step], torch.Tensor]
    weight: float = 1.0
    on: Literal["real", "generated", "each", "both", "nothing"] = "each"
    when: Literal["main", "reg"] = "main"
    layers: Sequence[str] = ()
    generator_layers: Sequence[str] = ()
    views: Sequence[View] = ()
    gradients: Sequence[Literal["raw", "shown"]] = ()
    active: Callable[[str], bool] = always

    def reads(self, source: str) -> bool:
        """Return whether the term reads the pass of this source."""
        return self.on in (source, "each", "both")


@dataclass(frozen=True)
class Critic:
    """A replacement for the host's logits, which trains D and G; R1, ADA and statistics also use its logits.

    name     for errors
    logits   Pass -> [N, K]; the loss is averaged over K. None: no adversarial loss; D does not run for it, and parts
             that need D or its logits are refused
    layers   names of submodules of D that it reads
    runs_D   False for a critic with its own network: D then runs only for terms that read it
    loss     its GAN loss; None: the loss of --gan-loss
    weight   factor of the adversarial losses of D; 0 switches these losses and R1 off
    r1       the images for the gradient of R1: 'raw', as in the hosts, or 'shown'; None: no R1
    joint    whether D's main step has real images, views with shared groups, and generated images in one batch, with
             minibatch-stddev groups across them"""

    name: str
    logits: Any  # Callable[[Pass], torch.Tensor] | None; Any, since parts that need it are refused without it
    layers: Sequence[str] = ()
    runs_D: bool = True
    loss: GanLoss | None = None
    weight: float = 1.0
    r1: Literal["raw", "shown"] | None = "raw"
    joint: bool = False


HOST_CRITIC = Critic("host", lambda seen: seen.host_logits)


@dataclass(frozen=True)
class Head:
    """A module that is trained with D or with G, but is part of neither. It is always float32.

    name      key in the training state, without dots
    module    made in `setup`
    network   'D' or 'G': the phases of this network train it
    settings  arguments of its optimiser; the others are the same as in the network's optimiser"""

    name: str
    module: torch.nn.Module
    network: Network = "D"
    settings: Mapping[str, Any] = field(default_factory=dict)


class Average:
    """A moving average of a module: k <- decay k + (1 - decay) p after each main step of D, buffers copied.

    name    key in the training state
    source  the module p
    decay   in [0, 1]
    module  an attribute, not an argument: the copy, without gradients"""

    def __init__(self, name: str, source: torch.nn.Module, decay: float) -> None:
        if not hasattr(source, "named_parameters"):
            raise ContractError(f"the average {name!r} is of a {type(source).__name__}; expected a module")
        if not isinstance(decay, int | float) or not 0 <= decay <= 1:
            raise ContractError(f"the average {name!r} has the decay {decay!r}; expected a number in [0, 1]")
        self.name, self.source, self.decay = name, source, decay
        self.module = copy.deepcopy(source).requires_grad_(False)


PARTS = {"augmentations": Augmentation, "heads": Head, "averages": Average, "terms": Term, "critic": Critic}
"""The attributes of a method that hold its parts: lists, but for the one critic."""
