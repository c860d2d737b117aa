"""Run in a host's folder: the architecture of every known backbone at its real size, and a decoder on it. Prints a JSON
line: name -> shapes of the levels and of the logits, and whether the image gets a gradient (on `meta`: has a graph).

All but the smallest are on the device `meta`, which has shapes and graphs and no values: their weights would be random
anyway."""

import json
import sys

import torch

sys.path.insert(0, ".")
from stylegan_plugins.vision import backbones
from training_ext.vision_aided import Decoder

torch.set_num_threads(1)
torch.manual_seed(0)
found = {}
for name, recipe in backbones.BACKBONES.items():
    real = name == "efficientnet_lite0"
    device = torch.device("cpu" if real else "meta")
    with device:
        image = (torch.rand([1, 3, 32, 32]) * 2 - 1).requires_grad_(True)
        levels = backbones.levels_of(backbones.create(recipe), recipe)
    features = levels(image)
    logits = Decoder(levels.shapes).to(device)(features, torch.zeros([1, 0], device=device))
    gradient = torch.autograd.grad(sum(value.sum() for value in logits), [image])[0] if real else None
    found[name] = {
        "blocks": levels.blocks if levels.has_tokens else None,
        "levels": levels.shapes,
        "read": [list(level.shape[1:]) for level in features],
        "logits": [list(value.shape[1:]) for value in logits],
        "gradient": bool(gradient.isfinite().all() and gradient.any())
        if real
        else all(level.requires_grad for level in features),
    }
print(json.dumps(found))
