"""Measure the seconds that a training state of a published configuration takes to write, as a share of the time between
two states.

    python benchmarks/state_cost.py --host HOST [--resolution 256] [--work DIR]

Networks and optimizers have the sizes of stylegan2-ada-pytorch's `--cfg=auto`; Adam has made a step, so that its
moments exist. Five states are written to `--work`, flushed to the disk."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import click


@click.command()
@click.option("--host", required=True, help="A stylegan2-ada-pytorch host")
@click.option("--resolution", type=int, default=256, show_default=True)
@click.option("--minutes", type=float, default=10, show_default=True, help="Between two states")
@click.option("--work", help="Where states go  [default: a temporary folder]")
def main(host: str, resolution: int, minutes: float, work: str | None) -> None:
    import torch

    from stylegan_plugins.host.modules import host_module, use_host
    from stylegan_plugins.manager import Plugins
    from stylegan_plugins.run.checkpoints import Checkpoints
    from stylegan_plugins.run.session import Session

    os.environ["STYLEGAN_PLUGINS_DEVICE"] = "cpu"
    use_host(Path(host))
    networks, easy = host_module("training.networks"), host_module("dnnlib").EasyDict
    channels = dict(channel_base=32768 if resolution >= 512 else 16384, channel_max=512)
    common = dict(c_dim=0, img_resolution=resolution, img_channels=3)
    G = networks.Generator(z_dim=512, w_dim=512, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=channels, **common)
    D = networks.Discriminator(**channels, **common)
    phases = []
    for name, network in (("Gmain", G), ("Dmain", D)):
        opt = torch.optim.Adam(network.parameters(), lr=0, betas=(0.0, 0.99))
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        opt.step()
        opt.zero_grad(set_to_none=True)
        phases.append(easy(name=name, module=network, opt=opt))
    with tempfile.TemporaryDirectory(dir=work) as folder:
        session = Session(Plugins(), run_dir=Path(folder))
        session.attach(G, D, G, None, easy(pl_mean=torch.zeros([])), phases)
        checkpoints = Checkpoints(session, minutes=1e-9)
        collector = host_module("torch_utils.training_stats").Collector(regex=".*")
        seconds = []
        for index in range(6):
            position = dict(cur_nimg=index, cur_tick=0, tick_start_nimg=0, batch_idx=index)
            start = time.perf_counter()
            loop = dict(position, total_kimg=1000, kimg_per_tick=4, stats_collector=collector)
            checkpoints.next_batch(loop)
            seconds.append(time.perf_counter() - start)
        size = max(path.stat().st_size for path in Path(folder).glob("*.pt")) / 2**20
    weights = sum(p.numel() for network in (G, D) for p in network.parameters())
    median = statistics.median(seconds[1:])
    print(f"{resolution}x{resolution}, {weights / 1e6:.1f} million weights: {size:.0f} MiB, {median:.2f} s ", end="")
    print(f"({min(seconds[1:]):.2f} to {max(seconds[1:]):.2f}), {median / minutes / 0.6:.2f}% of {minutes:g} minutes")


if __name__ == "__main__":
    main()
