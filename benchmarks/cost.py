"""What plug-ins cost: the 16-iteration cycle of lazy regularisation, the host's own loss and ours alternating.

    python benchmarks/cost.py --host HOST [--plugin diffaugment] [--pairs 12] [--markdown FILE]

One process, 32x32 images, batch 16. The printed ratio is the median over pairs of (ours / stock), with its 95% interval
by bootstrap. Cycles alternate, and so does which of the two comes first in a pair, so that a slow minute of the machine
hits both."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import click
import numpy as np
import torch

SIDE, BATCH, CYCLE = 32, 16, 16


class Trainer:
    """The part of the training loop that plug-ins touch: all phases with their optimisers, for one loss."""

    def __init__(self, plugins: list[str] | None, cbase: int, cmax: int) -> None:
        from stylegan_plugins import manager
        from stylegan_plugins.host.modules import host_module
        from stylegan_plugins.session import Session

        torch.manual_seed(0)
        networks = host_module("training.networks")
        common = dict(c_dim=0, img_resolution=SIDE, img_channels=3)
        channels = dict(channel_base=cbase, channel_max=cmax)
        self.G = networks.Generator(
            z_dim=512, w_dim=512, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=channels, **common
        )
        self.D = networks.Discriminator(epilogue_kwargs=dict(mbstd_group_size=4), **channels, **common)
        for network in (self.G, self.D):
            network.train().requires_grad_(False)
        arguments = (torch.device("cpu"), self.G.mapping, self.G.synthesis, self.D)
        self.session = Session(manager.expand(plugins or []), {})
        if plugins is None:
            self.loss = host_module("training.loss").StyleGAN2Loss(*arguments, r1_gamma=0.1)
        else:
            self.loss = host_module("training_ext.loss").PluginLoss(*arguments, r1_gamma=0.1)
        self.phases = []
        for name, network, interval in (("G", self.G, 4), ("D", self.D, 16)):
            opt = torch.optim.Adam(network.parameters(), lr=0.002, betas=(0.0, 0.99))
            self.phases += [Phase(name + "main", network, opt, 1), Phase(name + "reg", network, opt, interval)]
        if plugins is not None:
            self.session.attach(self.G, self.D, self.G, None, self.loss, self.phases)
        self.ours = plugins is not None

    def cycle(self) -> float:
        """Seconds of 16 iterations."""
        label = torch.zeros([BATCH, 0])
        start = time.perf_counter()
        for index in range(CYCLE):
            real = torch.rand([BATCH, 3, SIDE, SIDE]) * 2 - 1
            for phase in self.phases:
                if index % phase.interval:
                    continue
                phase.opt.zero_grad(set_to_none=True)
                phase.module.requires_grad_(True)
                z = torch.randn([BATCH, 512])
                self.loss.accumulate_gradients(
                    phase=phase.name, real_img=real, real_c=label, gen_z=z, gen_c=label, sync=True, gain=phase.interval
                )
                phase.module.requires_grad_(False)
                phase.opt.step()
                if self.ours:
                    self.session.step_end(phase)
            if self.ours:
                self.session.batch_end(index * BATCH, index)
        return time.perf_counter() - start


class Phase:
    def __init__(self, name: str, module: torch.nn.Module, opt: torch.optim.Optimizer, interval: int) -> None:
        self.name, self.module, self.opt, self.interval = name, module, opt, interval


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Median and the 95% interval of the median, by bootstrap."""
    draws = np.random.RandomState(0).choice(ratios, [10000, len(ratios)])
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


@click.command()
@click.option("--host", required=True, help="An unpatched or patched stylegan2-ada-pytorch host")
@click.option(
    "--plugin", "plugins", multiple=True, help="Plug-ins to measure, each a row; 'none': the loss without parts"
)
@click.option("--pairs", type=int, default=12, show_default=True)
@click.option("--cbase", type=int, default=1024, show_default=True)
@click.option("--cmax", type=int, default=32, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--markdown", help="Write the table there")
def main(
    host: str, plugins: tuple[str, ...], pairs: int, cbase: int, cmax: int, threads: int, markdown: str | None
) -> None:
    from stylegan_plugins.host.modules import use_host

    os.environ["STYLEGAN_PLUGINS_DEVICE"] = "cpu"
    use_host(Path(host))
    torch.set_num_threads(threads)
    rows = []
    for name in plugins or ("none", "diffaugment"):
        stock = Trainer(None, cbase, cmax)
        ours = Trainer([] if name == "none" else name.split(","), cbase, cmax)
        stock.cycle(), ours.cycle()
        ratios = []
        for pair in range(pairs):
            first, second = (stock, ours) if pair % 2 == 0 else (ours, stock)
            seconds = {first: first.cycle(), second: second.cycle()}
            ratios.append(seconds[ours] / seconds[stock])
            print(f"{name}: pair {pair + 1}/{pairs}: stock {seconds[stock]:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
        rows.append((name, *interval(np.array(ratios)), pairs))
    table = ["| plug-ins | median of ours / stock | 95% interval | pairs |", "| --- | --- | --- | --- |"]
    table += [f"| {name} | {median:.3f} | {low:.3f} to {high:.3f} | {n} |" for name, median, low, high, n in rows]
    setting = (
        f"{SIDE}x{SIDE}, batch {BATCH}, cbase {cbase}, cmax {cmax}, {CYCLE} iterations a cycle, "
        f"torch {torch.__version__}, {threads} CPU threads, Python {platform.python_version()}"
    )
    text = "\n".join([*table, "", f"Setting: {setting}."])
    print("\n" + text)
    if markdown:
        Path(markdown).write_text(text + "\n")


if __name__ == "__main__":
    main()
