"""Run in a host's folder: decoders and losses of vision-aided on the inputs of tests/golden/vision_aided.npz.

Prints a JSON line: quantity -> largest difference from the authors' result, relative to its largest value
(or, for products of gradients with a direction, to the product of both lengths)."""

import json
import sys
import zlib

import numpy as np
import torch

sys.path.insert(0, ".")
from training_ext.gan_losses import GAN_LOSSES
from training_ext.vision_aided import Decoder
from training_ext.vision_losses import over_levels, sigmoid

torch.set_num_threads(1)
golden = np.load(sys.argv[1], allow_pickle=False)
N = 8
SHAPES = {
    "clip": [(5, 7, 7), (5, 7, 7), (6,)],
    "dino": [(5, 14, 14), (5, 14, 14), (6,)],
    "conv7": [(5, 7, 7)],
    "conv8": [(5, 8, 8)],
}
LOSSES = {"sigmoid": sigmoid(1.0), "sigmoid_s": sigmoid(0.8), "hinge": GAN_LOSSES["hinge"]}


def drawn(name, shape):
    return torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)).float()


def theirs(name, levels):
    """Return the authors' name of our parameter."""
    part, _, rest = name.partition(".")
    if part == "maps":
        return f"decoder.{rest}"
    if levels == 1:
        return f"decoder.3.{rest}" if part == "out" else f"decoder.{rest}"
    return f"decoder.{levels - 1}.{'1.' + rest if part == 'out' else rest}"


apart = {}


def compare(key, ours, scale=None):
    expected = torch.from_numpy(golden[key]).double()
    scale = expected.abs().max().item() if scale is None else scale
    apart[key] = (ours.detach().double().reshape(expected.shape) - expected).abs().max().item() / scale


for case, shapes in SHAPES.items():
    decoder = Decoder(shapes)
    parameters = {theirs(name, len(shapes)): value for name, value in decoder.named_parameters()}
    for name, value in parameters.items():
        scale = 0.1 if name.endswith("bias") else 1.0
        value.data = scale * drawn(f"{case}/{name}", value.shape)
    levels = [drawn(f"{case}/level{k}", [N, *shape]).requires_grad_(True) for k, shape in enumerate(shapes)]
    logits = decoder(levels, torch.zeros([N, 0]))
    for k, value in enumerate(logits):
        compare(f"{case}/logits{k}", value)
    for short, gan in LOSSES.items():
        name = short if len(shapes) == 1 else f"multilevel_{short}"
        for side in ("real", "generated", "generator"):
            key = f"{case}/{name}/{side}"
            loss = over_levels(getattr(gan, side), logits).mean()
            compare(key, loss)
            gradients = torch.autograd.grad(loss, [*levels, *parameters.values()], retain_graph=True)
            names = [*(f"level{k}" for k in range(len(levels))), *parameters]
            for part, gradient in zip(names, gradients, strict=True):
                probe = drawn(f"{case}/{part}/probe", gradient.shape).double()
                length = (gradient.double().norm() * probe.norm()).item()
                compare(f"{key}/grad/{part}", (gradient.double() * probe).sum(), length)
assert set(apart) == {key for key in golden if "/" in key}, "not all that was recorded was compared"
print(json.dumps(apart))
