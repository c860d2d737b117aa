"""Run in an ada host's folder: compute the diagnostics of a run's last tick from its last snapshot, its data set and
the equations alone. The run has no labels. Prints a JSON line.

diagnostics_again.py RUN_DIR HOLDOUT"""

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import torch

sys.path.insert(0, ".")
from stylegan_plugins import bridge  # noqa: F401  (repairs the host's modules)

torch.set_num_threads(1)
run_dir, holdout = Path(sys.argv[1]), int(sys.argv[2])
args = json.loads((run_dir / "training_options.json").read_text())
with open(max(run_dir.glob("network-snapshot-*.pkl")), "rb") as file:
    networks = pickle.load(file)
with zipfile.ZipFile(args["training_set_kwargs"]["path"]) as archive:
    names = sorted(name for name in archive.namelist() if name.endswith(".png"))
    images = np.stack([np.asarray(PIL.Image.open(io.BytesIO(archive.read(name)))) for name in names])
images = images.transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
order = np.arange(len(images))
np.random.RandomState(args["random_seed"]).shuffle(order)  # the host's own way to choose
train, held_out = np.sort(order[:-holdout]), np.sort(order[-holdout:])


@torch.no_grad()
def logits(x):
    """Return logits of x, in batches of the size of training; x holds a whole number of them."""
    batches = torch.from_numpy(x).float().split(args["batch_gpu"])
    return torch.cat([networks["D"](batch, torch.zeros([len(batch), 0])) for batch in batches]).double().numpy()


def nearest(x):
    """Return the distance of each image to the nearest training image or its horizontal flip."""
    those = np.concatenate([images[train], images[train][..., ::-1]])
    return np.array([min(np.sqrt(((one - other) ** 2).mean()) for other in those) for one in x])


z = torch.from_numpy(np.random.RandomState(0).randn(64, networks["G_ema"].z_dim))
with torch.no_grad():
    parts = [networks["G_ema"](z=one, c=None, noise_mode="const") for one in z.split(8)]
samples = torch.cat(parts).numpy()
d_train, d_held_out, d_generated = (
    logits(images[np.random.RandomState(0).permutation(raw)]) if raw is not None else logits(samples)
    for raw in (train, held_out, None)
)
print(
    json.dumps(
        {
            "kimg": args["total_kimg"],
            "scores": {"train": d_train.mean(), "held_out": d_held_out.mean(), "generated": d_generated.mean()},
            "r_t": np.sign(d_train).mean(),
            "r_v": (d_train.mean() - d_held_out.mean()) / (d_train.mean() - d_generated.mean()),
            "accuracy": {
                "train": (d_train > 0).mean(),
                "held_out": (d_held_out > 0).mean(),
                "generated": (d_generated < 0).mean(),
            },
            "nearest": {
                "samples": nearest(np.clip(samples, -1, 1).astype(np.float64)).mean(),
                "held_out": nearest(images[held_out]).mean(),
            },
        }
    )
)
