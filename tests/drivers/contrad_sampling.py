"""Run in an ada host's folder: sampler and features of a small ContraD run. Prints one JSON line of named truths.

contrad_sampling.py FOLDER LABELLED.zip"""

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, ".")
from stylegan_plugins.analysis import latent_sampling, probe
from stylegan_plugins.errors import DataError
from stylegan_plugins.files import datasets
from stylegan_plugins.files.states import Info, state_path, write_state
from stylegan_plugins.plugins import contrad
from stylegan_plugins.testing import TinyRun, use_host
from stylegan_plugins.vision import priors
from training_ext.ddls import Langevin
from training_ext.linear_evaluation import Protocol

folder, data = Path(sys.argv[1]), sys.argv[2]
os.environ["STYLEGAN_PLUGINS_CACHE"] = str(folder / "cache")
torch.set_num_threads(1)
use_host(Path())
truth = {}


def refused(function, *args):
    try:
        return str(function(*args)) and ""
    except DataError as error:
        return str(error)


# A run directory with a snapshot at 1 kimg, and a state of the iteration before.
run = TinyRun(["contrad"], side=16).train(1)
run_dir = folder / "run"
run_dir.mkdir()
record = {"plugins": run.session.plugins.record(), "batch_size": 8, "training_set_kwargs": {"path": data}}
(run_dir / "training_options.json").write_text(json.dumps(record))
snapshot = run_dir / "network-snapshot-000001.pkl"
networks = {"G": run.G, "D": run.D, "G_ema": run.G_ema, "augment_pipe": None, "training_set_kwargs": {}}
snapshot.write_bytes(pickle.dumps(networks))
write_state(state_path(run_dir, 500), run.state(), Info(500, 1), 9)
message = refused(contrad.heads_of, snapshot)
truth["heads of another time are refused"] = "there: 0.5 kimg" in message and "\n" not in message
write_state(state_path(run_dir, 992), run.state(), Info(992, 1), 9)
heads = contrad.heads_of(snapshot)
truth["a snapshot of no ContraD run is refused"] = "--plugin=contrad" in refused(contrad.heads_of, folder / "x.pkl")

# Logits.
D = probe.trained_discriminator(snapshot)
G = contrad.load_network(snapshot, "G")
encoder = probe.encoder_of(D)
images = torch.rand([8, 3, 16, 16]) * 2 - 1
logits = heads["logits"](encoder(images))
truth["logits are those of the run"] = torch.allclose(logits, run.session.judge(images, torch.zeros([8, 0])), atol=1e-5)

# Langevin dynamics.
known = latent_sampling.classifier_of(snapshot, D, data, Protocol(epochs=2), 40, 0)
again = latent_sampling.classifier_of(snapshot, D, data, Protocol(epochs=2), 40, 0)
truth["the classifier is kept"] = torch.equal(known.weight, again.weight) and len(list(run_dir.glob("linear-*"))) == 1
of_class = lambda phi: heads["logits"](phi)[:, 0] + 3 * known(phi)[:, 1]
sample = lambda seeds, **how: list(latent_sampling.images(G, encoder, of_class, seeds, Langevin(**how)))
climbed = sample([0, 1, 2, 3], steps=10, eps=0.05, sigma=0)
same = sample([0, 1, 2, 3], steps=10, eps=0.05, sigma=0)
truth["the same seeds give the same images"] = np.array_equal(climbed, same)
value = lambda column: of_class(encoder(torch.from_numpy(np.stack(column)).permute(0, 3, 1, 2) / 127.5 - 1)).mean()
before, after = map(value, zip(*climbed))
truth["without noise the score rises"] = bool(after > before)
noisy = sample([0, 1, 2, 3], steps=2, eps=0.05, sigma=1.0)
truth["noise changes the images"] = not np.array_equal(np.array(noisy)[:, 1], np.array(climbed)[:, 1])
start = np.array(sample([2], steps=0))[0, 0]
z = torch.from_numpy(np.random.RandomState(2).randn(1, G.z_dim))
shown = (G(z, torch.zeros([1, 0]), noise_mode="const")[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).to(torch.uint8)
truth["a seed starts where sample has it"] = np.array_equal(start, shown.numpy())

# Features.
one = contrad.RunEncoder(snapshot)
features = one(images)
truth["features are of their image alone"] = torch.allclose(
    features, torch.cat([one(x[None]) for x in images]), atol=1e-5
)
truth["any size and color"] = one(torch.zeros([3, 1, 20, 20])).shape == (3, features.shape[1])
with_groups = encoder(images)
truth["but for the groups they are D's"] = bool(0 < (with_groups - features).norm() / features.norm() < 0.5)
name = f"contrad:{run_dir}"
file = Path(priors.file_for(data, name, weights=None, flips=True))
stamp = file.stat().st_mtime_ns
found = priors.load(file)
first = torch.from_numpy(np.stack(list(datasets.read_images(data)[1])[:3])).float() / 127.5 - 1
truth["priors are features of each image and of its flip"] = np.allclose(
    found.features[:3], one(first), atol=1e-4
) and np.allclose(found.flipped[:3], one(first.flip(3)), atol=1e-4)
kept = Path(priors.file_for(data, f"contrad:{snapshot}", weights=None, flips=True))
truth["they are kept, under any name of the snapshot"] = kept == file and file.stat().st_mtime_ns == stamp
loaded = priors.load_network(found.backbone, found.weights, "--like")
truth["the file of priors knows its network"] = torch.equal(loaded(images), features)
with torch.no_grad():
    run.D.b4.conv.weight.mul_(1.1)
snapshot.write_bytes(pickle.dumps(networks))
other = priors.file_for(data, name, weights=None, flips=True)
truth["another snapshot has other features"] = Path(other) != file
print(json.dumps({key: bool(value) for key, value in truth.items()}))
