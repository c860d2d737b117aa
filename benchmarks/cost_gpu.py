"""Measure time and memory of plug-ins on a GPU in a 16-iteration cycle of lazy regularisation.

    python benchmarks/cost_gpu.py --host HOST [--side 256] [--batch 16] [--rounds 4] [CONTESTANT...]

A contestant is a list of plug-ins with commas, then options: vision-aided:models=dino:precision=float16. The
host's own loss always takes part, as `host`. All take turns in one process, in an order that rotates. The figure is the
median over rounds of (seconds / the host's in that round), with its range. Memory is PyTorch's peak in a cycle, beyond
the host's own. Networks are ada's --cfg=auto for the side, with half precision. Backbones have random weights, which do
not change the cost. Without a GPU, the script tries itself out on small networks with one thread."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parent))
from cost import CONFIGURED

CYCLE = 16
PRIOR = 1280  # width of EfficientNet-Lite0's features
BACKBONES = ("clip", "dino", "dinov2", "vgg16", "swin", "efficientnet_lite0")
DEFAULT = (
    *("diffaugment", "augself", "contrad", "disp"),
    *(f"vision-aided:models={name}:precision={kind}" for name in BACKBONES for kind in ("float32", "float16")),
)


class Trainer:
    """All phases with their optimizers, for one loss; as in cost.py."""

    def __init__(self, contestant: str, device: Any, side: int, batch: int, **loss: Any) -> None:
        """loss: arguments of the loss, beside the host's."""
        import torch

        from stylegan_plugins import manager
        from stylegan_plugins.host.modules import host_module
        from stylegan_plugins.run.session import Session
        from training_ext.loss import PluginLoss

        names, *given = contestant.split(":")
        plugins = [] if names == "host" else list(manager.catalogue().activate(names.split(","), {}).names)
        networks = host_module("training.networks")
        gpu = device.type == "cuda"
        self.device, self.side, self.batch = device, side, batch
        self.labels = PRIOR if "disp" in plugins else 0
        torch.manual_seed(0)
        widths = dict(channel_base=16384 if gpu else 512, channel_max=512 if gpu else 32)
        widths |= dict(num_fp16_res=4 if gpu else 0, conv_clamp=256 if gpu else None)
        common = dict(img_resolution=side, img_channels=3)
        mapping = dict(z_dim=512, w_dim=512, c_dim=self.labels, mapping_kwargs=dict(num_layers=2))
        self.G = networks.Generator(synthesis_kwargs=widths, **mapping, **common).to(device)
        self.D = networks.Discriminator(c_dim=0, epilogue_kwargs=dict(mbstd_group_size=4), **widths, **common).to(
            device
        )
        for net in (self.G, self.D):
            net.train().requires_grad_(False)
        make = PluginLoss if plugins else host_module("training.loss").StyleGAN2Loss
        self.loss = make(device, self.G.mapping, self.G.synthesis, self.D, **{"r1_gamma": 1, **loss})
        self.phases = []
        for name, net, interval in (("G", self.G, 4), ("D", self.D, 16)):
            opt = torch.optim.Adam(net.parameters(), lr=0.0025, betas=(0.0, 0.99))
            for part, every in (("main", 1), ("reg", interval)):
                self.phases.append(SimpleNamespace(name=name + part, module=net, opt=opt, interval=every))
        self.session = None
        if plugins:
            options: dict[str, Any] = {"vision-aided": {"warmup_kimg": 0.0}} if "vision-aided" in plugins else {}
            options |= {name: dict(values) for name, values in CONFIGURED.items() if name in plugins}
            options.setdefault(plugins[-1], {}).update(part.split("=", 1) for part in given)
            self.session = Session(manager.catalogue().activate(plugins, options), total_nimg=1000000)
            self.session.attach(self.G, self.D, self.G, None, self.loss, self.phases)

    def cycle(self, iterations: int = CYCLE) -> tuple[float, float]:
        """Return seconds and, on a GPU, MiB at the peak."""
        import torch

        gpu = self.device.type == "cuda"
        if gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        start = time.perf_counter()
        labels = torch.randn([self.batch, self.labels], device=self.device)
        for index in range(iterations):
            real = torch.rand([self.batch, 3, self.side, self.side], device=self.device) * 2 - 1
            for phase in self.phases:
                if index % phase.interval:
                    continue
                phase.opt.zero_grad(set_to_none=True)
                phase.module.requires_grad_(True)
                z = torch.randn([self.batch, 512], device=self.device)
                self.loss.accumulate_gradients(
                    phase.name, real_img=real, real_c=labels, gen_z=z, gen_c=labels, gain=phase.interval, sync=True
                )
                phase.module.requires_grad_(False)
                phase.opt.step()
                if self.session is not None:
                    self.session.step_end(phase)
            if self.session is not None:
                self.session.batch_end((index + 1) * self.batch, index + 1)
        if gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        return seconds, (torch.cuda.max_memory_allocated() - before) / 2**20 if gpu else 0.0


@click.command()
@click.option("--host", type=click.Path(path_type=Path, exists=True), required=True, help="An ada host")
@click.option("--side", default=256, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--rounds", default=4, show_default=True)
@click.argument("contestants", nargs=-1)
def main(host: Path, side: int, batch: int, rounds: int, contestants: tuple[str, ...]) -> None:
    from stylegan_plugins.host.modules import host_module, use_host

    use_host(host)
    import torch

    from stylegan_plugins.vision import backbones

    backbones._fill = lambda *_: None  # type: ignore[assignment]  # random weights
    backbones._weights_file = lambda *_: Path()  # type: ignore[assignment]
    torch.backends.cudnn.benchmark = True
    for op in ("conv2d_gradfix", "grid_sample_gradfix"):
        host_module(f"torch_utils.ops.{op}").enabled = True  # as the training loop has it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "one CPU thread"
    print(f"{name}, torch {torch.__version__}; {side}x{side}, batch {batch}, {rounds} rounds\n")
    names = ["host", *(contestants or DEFAULT)]
    trainers, memory = {}, {}
    for key in names:  # alone at first: everything is compiled and tuned, and memory is its own
        held = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        trainers[key] = Trainer(key, device, side, batch)
        trainers[key].cycle()
        own = (torch.cuda.memory_allocated() - held) / 2**20 if device.type == "cuda" else 0.0
        memory[key] = own + trainers[key].cycle()[1]
    seconds: dict[str, list[float]] = {key: [] for key in names}
    for turn in range(rounds):
        shift = turn * len(names) // rounds
        for key in names[shift:] + names[:shift]:
            seconds[key].append(trainers[key].cycle()[0])
            print(f"round {turn}: {key} {seconds[key][-1]:.3f} s, {memory[key]:.0f} MiB", file=sys.stderr, flush=True)
    print("| contestant | time / host's own | range | memory beyond the host's |\n| --- | --- | --- | --- |")
    for key in names[1:]:
        ratios = [mine / theirs for mine, theirs in zip(seconds[key], seconds["host"], strict=True)]
        more = f"{memory[key] - memory['host']:.0f} MiB" if device.type == "cuda" else "-"
        print(f"| {key} | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} | {more} |")
    each = statistics.median(seconds["host"])
    print(f"\nhost: {each:.2f} s a cycle, {each / CYCLE / batch * 1000:.1f} s per kimg, {memory['host']:.0f} MiB")


if __name__ == "__main__":
    main()
