"""Run in a host's folder: exports a run, loads what was written in each form, and prints JSON: largest differences from
images of the run, what the model card says, and what a failing export leaves.

share.py RUN OUTDIR"""

import inspect
import json
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, ".")
import numpy as np
import torch

from stylegan_plugins.analysis import loading, onnx_networks, share
from stylegan_plugins.errors import DataError
from stylegan_plugins.host.modules import host_module

run, outdir = Path(sys.argv[1]), Path(sys.argv[2])
lines = []
share.write_folder(run, outdir, 3, 0, lines.append)

G = loading.load(run, host=Path())
drawn = G.sampler is not None
label_of = lambda other, seed: seed % len(other.classes) if other.classes else None
found = {
    "lines": lines,
    "files": sorted(file.name for file in outdir.iterdir()),
    "card": (outdir / "README.md").read_text(),
}
for name in ("", "network.pkl", "G_ema.safetensors", "G_ema.onnx"):
    other = loading.load(outdir / name, host=Path())
    pixels, values = [], []
    for seed in range(3):
        label = label_of(other, seed)
        mine, theirs = (
            made.sample(seed, class_=None if drawn and made is G else label, as_="array").astype(int)
            for made in (G, other)
        )
        pixels.append(int(np.abs(mine - theirs).max()))
        w = next(iter(G.latents(seed, class_=None if drawn else label)))
        values.append(float((G.synthesis(w) - other.synthesis(w)).abs().max()))
    z = torch.randn(5, G.z_dim)
    c = label_of(other, 1)
    batch = other(z, c)
    alone = torch.cat([other(row[None], c) for row in z])
    found[name] = {
        "classes": other.classes,
        "pixels": max(pixels),
        "values": max(values),
        "batch": float((batch - alone).abs().max()),
        "spread": float(batch.std()),
    }

content = (outdir / "G_ema.onnx").read_bytes()
with mock.patch.object(onnx_networks, "write", lambda *given: content), mock.patch.object(share, "TOLERANCE", -1):
    try:
        share.write_folder(run, outdir.with_name("failed"), 3, 0, lines.append)
    except DataError as error:
        found["refused"] = error.message
found["left"] = sorted(file.name for file in outdir.parent.iterdir() if file.name.startswith("failed"))

if "stylegan3" in str(inspect.getfile(host_module("training.training_loop"))):
    theirs = host_module("training.networks_stylegan3").modulated_conv2d
    x, w, s = (torch.randn(size, dtype=torch.float64) for size in ([4, 5, 9, 9], [6, 5, 3, 3], [4, 5]))
    given = [dict(), dict(demodulate=False), dict(padding=2, input_gain=torch.tensor(0.7)), dict(padding=[1, 2])]
    differences = [theirs(x, w, s, **how) - onnx_networks.modulated(x, w, s, **how) for how in given]
    found["modulated"] = max(float(difference.abs().max()) for difference in differences)
print(json.dumps(found))
