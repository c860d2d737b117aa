"""SSGAN: D tells by which angle an image was rotated, and G makes images on which it can.

Chen, Zhai, Ritter, Lucic, Houlsby: Self-Supervised GANs via Auxiliary Rotation Loss (CVPR 2019, arXiv:1811.11212).
Equations: docs/methods/ssgan.md; their functions: training_ext.ssgan."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_plugins import Batch, EqualizedLinear, Head, Images, Session, Step, Term, View, hookimpl, option
from training_ext import ssgan

PAPER = "Chen et al. 2019, Self-Supervised GANs via Auxiliary Rotation Loss, arXiv:1811.11212"
ada = "off"
PHI = "b4.fc"  # the layer of D that Q_D reads: the last hidden one


@dataclass(frozen=True)
class SSGANOptions:
    d_weight: float = option(1.0, "weight of D's term, on real images, 0 = off", minimum=0)
    g_weight: float = option(0.2, "weight of G's term, on generated images, 0 = off", minimum=0)
    share: float = option(0.25, "share of a batch that is rotated, one image or more", minimum=0, maximum=1)


OPTIONS = SSGANOptions


@hookimpl
def setup(session: Session, options: SSGANOptions) -> Method:
    return Method(session, options)


class Method:
    def __init__(self, session: Session, options: SSGANOptions) -> None:
        self.report = session.report
        self.share = options.share
        self.head = EqualizedLinear(session.layer_shape(PHI)[0], ssgan.ANGLES)
        self.heads = [Head("ssgan", self.head)]
        view = View("rotated", self.rotated)
        self.terms = [
            Term("ssgan", "D", self.rotation, options.d_weight, on="real", layers=[PHI], views=[view]),
            Term("ssgan", "G", self.rotation, options.g_weight, on="generated", layers=[PHI], views=[view]),
        ]

    def rotated(self, images: Images) -> Batch:
        """Return the last images of a batch at all angles, with their labels, and the angles as targets."""
        n = ssgan.rotated_count(self.share, len(images.raw))
        rotated, quarters = ssgan.rotations(images.raw, n)
        return Batch(rotated, images.labels[-n:].repeat(ssgan.ANGLES, 1), quarters)

    def rotation(self, step: Step) -> torch.Tensor:
        """Return -log Q_D(r | x^r), [M]."""
        seen = step.one.views["rotated"]
        logits = self.head(seen.layers[PHI])
        self.report(f"SSGAN/accuracy/{step.source}", (logits.argmax(dim=1) == seen.targets).float())
        return ssgan.rotation_loss(logits, seen.targets)
