"""Run in a host's folder: the architecture of every known backbone at its real size, with random weights, and a decoder
on it. Prints a JSON line: name -> shapes of the levels and of the logits, and whether the image got a gradient."""

import json
import sys

import torch

sys.path.insert(0, ".")
from stylegan_plugins.vision import backbones
from stylegan_plugins.vision.networks import Levels
from training_ext.vision_aided import Decoder

torch.set_num_threads(1)
torch.manual_seed(0)
image = (torch.rand([1, 3, 32, 32]) * 2 - 1).requires_grad_(True)
found = {}
for name, recipe in backbones.BACKBONES.items():
    levels = Levels(
        backbones.create(recipe), blocks=recipe.blocks, normalised=recipe.normalised, projected=recipe.projected
    )
    features = levels(image)
    logits = Decoder(levels.shapes)(features, torch.zeros([1, 0]))
    (gradient,) = torch.autograd.grad(sum(value.sum() for value in logits), [image])
    found[name] = {
        "blocks": levels.blocks if levels.has_tokens else None,
        "levels": levels.shapes,
        "read": [list(level.shape[1:]) for level in features],
        "logits": [list(value.shape[1:]) for value in logits],
        "gradient": bool(torch.isfinite(gradient).all() and gradient.any()),
    }
print(json.dumps(found))
