"""SSGAN: D tells by which angle an image was rotated, and G makes images on which it can.

Chen, Zhai, Ritter, Lucic, Houlsby: Self-Supervised GANs via Auxiliary Rotation Loss (CVPR 2019, arXiv:1811.11212).
x^r is x rotated by r in {0, 90, 180, 270} degrees, Q_D a linear layer and a softmax on D's last hidden layer:

    L_D += d_weight E_(x, r) -log Q_D(r | x^r),    L_G += g_weight E_(z, r) -log Q_D(r | G(z)^r)

D learns it on real images alone, with weight 1, G has weight 0.2; the GAN loss is of upright images. As in the authors'
code (compare_gan), the last images of a batch are shown at all four angles; their number has no default there. The
images rotated are raw, since ADA may rotate them itself. A rotated image has the label of the upright one; in the
authors' code, rotated generated images have labels of real ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_plugins import Batch, EqualizedLinear, Head, Images, Session, Step, Term, View, hookimpl, option

PAPER = "Chen et al. 2019, Self-Supervised GANs via Auxiliary Rotation Loss, arXiv:1811.11212"
ada = "off"
PHI = "b4.fc"  # the layer of D that Q_D reads: the last hidden one
ANGLES = 4


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
        self.head = EqualizedLinear(session.layer_shape(PHI)[0], ANGLES)
        self.heads = [Head("ssgan", self.head)]
        view = View("rotated", self.rotated)
        self.terms = [
            Term("ssgan", "D", self.rotation, options.d_weight, on="real", layers=[PHI], views=[view]),
            Term("ssgan", "G", self.rotation, options.g_weight, on="generated", layers=[PHI], views=[view]),
        ]

    def rotated(self, images: Images) -> Batch:
        """Return the last n images at all angles, and the angles as classes; M = 4 n.

        The four of an image are n apart, so that they are one minibatch-stddev group of 4: the standard deviation is
        the same for all angles."""
        n = max(round(self.share * len(images.raw)), 1)
        rotated = [images.raw[-n:].rot90(quarters, dims=(2, 3)) for quarters in range(ANGLES)]
        quarters = torch.arange(ANGLES, device=images.raw.device).repeat_interleave(n)
        return Batch(torch.cat(rotated), images.labels[-n:].repeat(ANGLES, 1), quarters)

    def rotation(self, step: Step) -> torch.Tensor:
        """Return -log Q_D(r | x^r), [M]."""
        seen = step.one.views["rotated"]
        logits = self.head(seen.layers[PHI])
        self.report(f"SSGAN/accuracy/{step.source}", (logits.argmax(dim=1) == seen.targets).float())
        return torch.nn.functional.cross_entropy(logits, seen.targets, reduction="none")
