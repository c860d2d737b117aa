"""What D sees: ADA, then the augmentations of the plug-ins, in as many versions as the terms of a phase read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from training_ext.batches import can_join, join, split
from training_ext.parts import Parts, Source

Output = dict[str, torch.Tensor]  # of one pass of D: logits [n, 1] as 'logits', and features by layer


class InputPipe:
    """Stands where the host's ADA pipe stands in run_D, and hands over the first of the batches that D is to see, or
    all of them as one batch whose minibatch-stddev groups are those of passes of their own.

    Batches of one pass: the views, each augmented by draws of its own (one batch of all of them if views_mixed), then
    the clean images, if a term reads their features.

    ada: the host's pipe or None; group_size: as `training_ext.features.minibatch_std_group` gives it."""

    def __init__(self, ada: Any, parts: Parts, group_size: int | None) -> None:
        self.ada = ada
        self.parts = parts
        self.group_size = group_size

    def prepare(self, source: Source, phase: str, n: int, *, views: int, clean: bool, leaf: bool) -> None:
        """Before a pass of n images. leaf: the first view is to be a leaf of the graph, whose gradient R1 takes."""
        self._source, self._phase, self._views, self._leaf = source, phase, views, leaf
        self._mixed = views > 1 and self.parts.adversarial is not None and self.parts.adversarial.views_mixed
        self.sizes = ([views * n] if self._mixed else [n] * views) + [n] * clean
        self.joined = len(self.sizes) > 1 and can_join(self.sizes, self.group_size)
        self.called = False

    def release(self) -> None:
        """Forget the images, and the graph behind them, of the last pass."""
        del self.images, self.clean, self.omega, self.batches

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.called = True
        self.clean = images if self.ada is None else self.ada(images)
        drawn = [self._augment(self.clean) for _ in range(self._views)]
        views = [view for view, _ in drawn]
        if self._leaf:
            views[0] = views[0].detach().requires_grad_(True)
        self.images, self.omega = views[0], drawn[0][1]
        batches = [torch.cat(views)] if self._mixed else views
        self.batches = [*batches, self.clean][: len(self.sizes)]
        return join(self.batches, self.group_size) if self.joined else self.batches[0]

    def labels(self, labels: torch.Tensor) -> list[torch.Tensor]:
        """Labels [n, c_dim] of the images -> those of each pass of D."""
        repeated = [labels.repeat(size // len(labels), 1) for size in self.sizes]
        return [join(repeated, self.group_size)] if self.joined else repeated

    def split(self, output: Output) -> list[Output]:
        """What D gave in the first pass -> what it gave for each of its batches."""
        if not self.joined:
            return [output]
        parts = {name: split(value, self.sizes, self.group_size) for name, value in output.items()}
        return [{name: values[k] for name, values in parts.items()} for k in range(len(self.sizes))]

    def by_view(self, outputs: list[Output]) -> list[Output]:
        """What D gave for each batch -> for each view, and then for the clean images if it saw them."""
        if not self._mixed:
            return outputs
        views = {name: value.chunk(self._views) for name, value in outputs[0].items()}
        return [*({name: value[k] for name, value in views.items()} for k in range(self._views)), *outputs[1:]]

    def _augment(self, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, Mapping[str, torch.Tensor]]]:
        omega: dict[str, Mapping[str, torch.Tensor]] = {}
        for augmentation in self.parts.augmentations:
            if augmentation.applies(self._source, self._phase):
                images, omega[augmentation.name] = augmentation.transform(images)
        return images, omega
