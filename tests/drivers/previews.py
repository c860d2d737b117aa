"""Run in a host's folder: draw previews of a run on real networks. Prints a JSON line of figures and truths."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, ".")
from stylegan_plugins.run import estimate
from stylegan_plugins.run.previews import Previews
from stylegan_plugins.testing import TinyRun, differences

torch.set_num_threads(1)
run = TinyRun(labels=2)
run.session.run_dir = Path(sys.argv[1])
before = run.state()
random = torch.get_rng_state(), np.random.get_state()[1].tolist()
seconds = estimate.seconds_per_image(run.G_ema, run.D, 4)
work = estimate.multiplications(run.G_ema)
previews = Previews(run.session, clock=lambda: 10_000.0, minutes=1, pages=False)
previews._drawn = 0.0
grid_z = torch.linspace(-1, 1, 4 * run.G.z_dim).reshape(4, -1).split(2)
loop = dict(grid_z=grid_z, grid_c=torch.eye(2)[[0, 1, 0, 1]].split(2), grid_size=(2, 2), cur_nimg=3456)
previews.next_batch(loop)
with torch.no_grad():
    expected = torch.cat([run.G_ema(z, c, noise_mode="const") for z, c in zip(grid_z, loop["grid_c"], strict=True)])
np.save(run.session.run_dir / "expected.npy", expected.numpy())
convolutions = [
    (module.weight.numel(), int(name.split(".")[0].removeprefix("b")))  # b16.conv0
    for name, module in run.G_ema.synthesis.named_modules()
    if isinstance(getattr(module, "weight", None), torch.Tensor) and module.weight.ndim == 4
]
print(
    json.dumps(
        {
            "seconds": seconds,
            "work": work,
            "convolutions": convolutions,
            "changed": differences(before, run.state()),
            "random": torch.equal(random[0], torch.get_rng_state()) and random[1] == np.random.get_state()[1].tolist(),
            "graphs": any(
                p.requires_grad or p.grad is not None for p in [*run.G_ema.parameters(), *run.D.parameters()]
            ),
        }
    )
)
