"""Measure the time of plug-ins in a 16-iteration cycle of lazy regularisation, against the host's own loss.

    python benchmarks/cost.py --host HOST [--plugin diffaugment] [--authors DIR] [--pairs 12] [--markdown FILE]
    python benchmarks/cost.py --host HOST --plugin contrad --plugin contrad:mbstd=joint

Images of 32x32, batch 16. Each contestant has its own process, since the authors' modules have the host's names; one
works while the others wait. Prints for each contestant the median over rounds of (its seconds / stock's) with the 95%
interval by bootstrap, and its operations relative to stock's. Operations are convolutions and matrix products, forward
and backward, as torch counts them. The order within a round rotates, so that a slow minute of the machine hits all.

--authors DIR is a checkout of liang-hou/augself-gan. Its augself-stylegan2 joins and predicts all three groups."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

SIDE, BATCH, CYCLE = 32, 16, 16
PRIOR = 1280  # width of EfficientNet-Lite0's features
GROUPS = "color,translation,cutout"
# Options that `configure` fills in; there is no command line here.
CONFIGURED: dict[str, dict[str, Any]] = {
    "apa": {"kimg": 500.0},
    "topk": {"epoch_kimg": 1.0},
    "insgen": {"real_queue": 256, "generated_queue": 256},
    "projected": {"backbone": "efficientnet_lite0@128"},
}


class Phase:
    def __init__(self, name: str, module: Any, opt: Any, interval: int) -> None:
        self.name, self.module, self.opt, self.interval = name, module, opt, interval


class Trainer:
    """The part of the training loop that plug-ins touch: all phases with their optimisers, for one loss.

    `networks` and `loss` are the modules of a host or of the authors; `plugins` None leaves sessions out."""

    def __init__(
        self,
        networks: Any,
        make_loss: Any,
        plugins: list[str] | None,
        channels: dict[str, int],
        d_kwargs: dict[str, Any],
        loss_kwargs: dict[str, Any],
        labels: int = 0,
    ) -> None:
        import torch

        torch.manual_seed(0)
        common = dict(img_resolution=SIDE, img_channels=3)
        self.labels = labels
        mapping = dict(z_dim=512, w_dim=512, c_dim=labels, mapping_kwargs=dict(num_layers=2))
        self.G = networks.Generator(synthesis_kwargs=channels, **mapping, **common)
        epilogue = dict(mbstd_group_size=4)
        self.D = networks.Discriminator(c_dim=0, epilogue_kwargs=epilogue, **channels, **common, **d_kwargs)
        for network in (self.G, self.D):
            network.train().requires_grad_(False)
        self.loss = make_loss(
            torch.device("cpu"), self.G.mapping, self.G.synthesis, self.D, r1_gamma=0.1, **loss_kwargs
        )
        self.phases = []
        for name, network, interval in (("G", self.G, 4), ("D", self.D, 16)):
            opt = torch.optim.Adam(network.parameters(), lr=0.002, betas=(0.0, 0.99))
            self.phases += [Phase(name + "main", network, opt, 1), Phase(name + "reg", network, opt, interval)]
        self.session: Any = None
        if plugins is not None:
            from stylegan_plugins import options as plugin_options
            from stylegan_plugins.manager import catalogue
            from stylegan_plugins.run.session import Session

            found = catalogue()
            given = {}
            for spec in plugins:
                name, *fields = spec.split(":")
                values = (field.split("=") for field in fields)
                cls = found.options_class(name)
                given[name] = {field: plugin_options.from_anywhere(cls, field, value) for field, value in values}
                given[name] |= CONFIGURED.get(name, {})
            self.session = Session(found.activate(list(given), given), total_nimg=1000000)
            self.session.attach(self.G, self.D, self.G, None, self.loss, self.phases)

    def cycle(self) -> float:
        """Return seconds of 16 iterations."""
        import torch

        label = torch.randn([BATCH, self.labels])
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
                if self.session is not None:
                    self.session.step_end(phase)
            if self.session is not None:
                self.session.batch_end(index * BATCH, index)
        return time.perf_counter() - start

    def operations(self) -> int:
        """Return the floating-point operations of a cycle."""
        with Counter() as counter:
            self.cycle()
        return counter.total


class Counter(TorchDispatchMode):
    """Counts floating-point operations. (FlopCounterMode has hooks that R1's autograd.grad refuses.)"""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function._overloadpacket in flop_registry:
            self.total += flop_registry[function._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def host_trainer(host: str, plugins: list[str] | None, channels: dict[str, int]) -> Trainer:
    from stylegan_plugins.host.modules import host_module, use_host

    os.environ["STYLEGAN_PLUGINS_DEVICE"] = "cpu"
    use_host(Path(host))
    networks, stock = host_module("training.networks"), host_module("training.loss").StyleGAN2Loss
    make_loss = stock if plugins is None else host_module("training_ext.loss").PluginLoss
    labels = PRIOR if plugins and "disp" in plugins else 0
    return Trainer(networks, make_loss, plugins, channels, {}, {}, labels)


def authors_trainer(checkout: str, channels: dict[str, int]) -> Trainer:
    """Return the authors' loss as in their train.py. Their modules run unchanged on a CPU with current PyTorch."""
    sys.path.insert(0, str(Path(checkout, "augself-stylegan2")))
    from training import loss, networks  # type: ignore[import-not-found]

    assert "diffaugment" in inspect.signature(loss.StyleGAN2Loss).parameters, loss.__file__
    weights = dict(D_augself=1, G_augself=0.2)
    return Trainer(
        networks, loss.StyleGAN2Loss, None, channels, dict(augself=GROUPS), dict(diffaugment=GROUPS, **weights)
    )


def serve(make: Any, arguments: tuple, threads: int, pipe: Any) -> None:
    """Serve a contestant's process: answer 'cycle' and 'operations' with a number."""
    import torch

    from stylegan_plugins.run.memory import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()  # in all processes, as train.py does it
    trainer = make(*arguments)
    pipe.send(trainer.cycle())  # warm
    while True:
        pipe.send(getattr(trainer, pipe.recv())())


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Return the median and the 95% interval of the median, by bootstrap."""
    draws = np.random.RandomState(0).choice(ratios, [10000, len(ratios)])
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


@click.command()
@click.option("--host", required=True, help="An unpatched or patched stylegan2-ada-pytorch host")
@click.option(
    "--plugin", "plugins", multiple=True, help="Plug-ins with their options, each a row; 'none': the loss without parts"
)
@click.option("--authors", help="A checkout of liang-hou/augself-gan that joins")
@click.option("--pairs", type=int, default=12, show_default=True, help="Rounds")
@click.option("--cbase", type=int, default=1024, show_default=True)
@click.option("--cmax", type=int, default=32, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--markdown", help="Write the table there")
def main(
    host: str,
    plugins: tuple[str, ...],
    authors: str | None,
    pairs: int,
    cbase: int,
    cmax: int,
    threads: int,
    markdown: str | None,
) -> None:
    channels = dict(channel_base=cbase, channel_max=cmax)
    contestants: dict[str, tuple[Any, tuple]] = {"stock": (host_trainer, (host, None, channels))}
    for name in plugins or ("none", "diffaugment"):
        contestants[name] = (host_trainer, (host, [] if name == "none" else name.split(","), channels))
    if authors:
        contestants["authors' augself"] = (authors_trainer, (authors, channels))
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name, (make, arguments) in contestants.items():
        pipes[name], theirs = spawn.Pipe()
        processes.append(spawn.Process(target=serve, args=(make, arguments, threads, theirs), daemon=True))
        processes[-1].start()
        theirs.close()  # or one that fails would be waited for
        pipes[name].recv()  # one after the other: processes that work at once would crawl

    def ask(name: str, what: str) -> float:
        pipes[name].send(what)
        return pipes[name].recv()

    names = list(contestants)
    operations = {name: ask(name, "operations") for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(pairs):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds[name].append(ask(name, "cycle"))
        line = "  ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
        print(f"round {number + 1}/{pairs}: {line}", flush=True)
    for process in processes:
        process.terminate()

    def row(name: str, base: str) -> str:
        median, low, high = interval(np.array(seconds[name]) / np.array(seconds[base]))
        work = operations[name] / operations[base]
        return f"| {name} / {base} | {median:.3f} | {low:.3f} to {high:.3f} | {work:.3f} | {pairs} |"

    import torch

    table = ["| ratio | median time | 95% interval | operations | rounds |", "| --- | --- | --- | --- | --- |"]
    table += [row(name, "stock") for name in names[1:]]
    if authors:
        table += [row(name, "authors' augself") for name in names if "augself" in name.split(",")]
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
