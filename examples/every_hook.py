"""A plug-in that implements every hook once, beside docs/reference/hooks.md. It guesses how bright an image was made.

The tests train it, so what stands here works: `train.py --plugin=examples/every_hook.py`.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch

from stylegan_plugins import (
    Augmentation,
    Head,
    Labels,
    Metric,
    OptionError,
    Preset,
    Recipe,
    RunFeatures,
    Sampler,
    Term,
    hookimpl,
    option,
)
from stylegan_plugins.files.datasets import read_images
from stylegan_plugins.files.run_folders import newest_pickle

PAPER = "none: an example"
PRESETS = {"dark": Preset({"shift": 0.5}, "none: an example")}


@dataclass(frozen=True)
class EveryHookOptions:
    weight: float = option(1.0, "factor on the term; 0 = off", minimum=0)
    shift: float = option(0.2, "largest change of brightness, in pixel values; 0 = off", minimum=0, maximum=2)
    labels: bool = option(False, "the brightness of each image as its label")
    frozen_kimg: float = option(0.0, "kimg in which G's mapping network is not trained", minimum=0)


OPTIONS = EveryHookOptions


@hookimpl
def configure(args, options, explicit):
    if options.shift == 0 and options.weight > 0:
        raise OptionError("--every-hook-shift=0 leaves nothing to guess: give --every-hook-weight=0, too.")
    if "snap" not in explicit:
        args["network_snapshot_ticks"] = 10
    return replace(options, frozen_kimg=min(options.frozen_kimg, args["total_kimg"]))


@hookimpl
def register_labels(args, options):
    if options.labels:
        _, images = read_images(args["training_set_kwargs"]["path"])
        return Labels(np.array([[image.mean() / 127.5 - 1] for image in images], dtype=np.float32))


@hookimpl
def register_generator_module(G):
    layer = torch.nn.Linear(G.z_dim, G.z_dim)
    torch.nn.init.eye_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return layer


@hookimpl
def register_temperature():
    return 0.9


@hookimpl
def register_backbones():
    return {"resnet18": Recipe("resnet18.a1_in1k")}


@hookimpl
def register_features(run):
    mean_color = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return RunFeatures(newest_pickle(run), lambda: mean_color)


@hookimpl
def register_metrics():
    mean = lambda features: features.mean(dim=0)
    return {"centers": Metric(lambda real, made: {"": (mean(real.features) - mean(made)).norm().item()})}


@hookimpl
def register_sampler(run_dir, options):
    if not options.labels:
        return None
    embedded = lambda G, brightness: G.mapping.embed(brightness.reshape(1, 1))[0]
    draw = lambda G, random: embedded(G, torch.tensor(random.uniform(-1, 1), dtype=torch.float32))
    return Sampler("brightness", draw, like=lambda G, image: embedded(G, image.mean()))


@hookimpl
def register_commands(cli):
    @cli.command("every-hook")
    @click.argument("run_dir", type=click.Path(exists=True, path_type=Path))
    def show(run_dir):
        """Show the notes of a run."""
        click.echo((run_dir / "every-hook.txt").read_text(), nl=False)


@hookimpl
def setup(session, options):
    return EveryHook(session, options)


class EveryHook:
    """The method in one run: its parts, its hooks, and what it remembers."""

    def __init__(self, session, options):
        self.session, self.options, self.images = session, options, 0
        self.head = torch.nn.Linear(*session.layer_shape("b4.fc"), 1)
        self.heads = [Head("every-hook", self.head)]
        self.augmentations = [Augmentation("every-hook", self.draw, self.brighten)]
        self.terms = [Term("every-hook", "D", self.guess, options.weight, layers=["b4.fc"])]

    def draw(self, images):
        return {"shift": torch.rand([len(images), 1], device=images.device)}

    def brighten(self, images, omega):
        return images + (2 * omega["shift"][:, :, None, None] - 1) * self.options.shift

    def guess(self, step):
        omega = step.one.images.omega["every-hook"]["shift"]
        return (self.head(step.one.layers["b4.fc"]) - omega).square().mean(1)

    @hookimpl
    def attached(self):
        self.note(f"{len(self.session.optimizers)} optimisers")

    @hookimpl
    def trains(self, name, nimg):
        return nimg >= self.options.frozen_kimg * 1000 or not name.startswith("G.mapping.")

    @hookimpl
    def real_images(self, images, labels, phase):
        return images.clamp(-1, 1), labels

    @hookimpl
    def paired_latents(self, z, labels):
        return z.clamp(-3, 3), labels

    @hookimpl
    def sample_weights(self, step):
        return torch.ones([len(step.generated.labels)], device=step.generated.labels.device)

    @hookimpl
    def observe(self, step):
        if step.real is not None:
            self.session.report("EveryHook/brightness", step.real.images.raw.mean(dim=[1, 2, 3]))

    @hookimpl
    def step_end(self, phase):
        if phase == "Dmain":
            self.note("step")

    @hookimpl
    def batch_end(self, nimg, batch_idx):
        self.images = nimg
        self.note(f"batch {batch_idx}: {nimg} images")

    @hookimpl
    def statistics(self, nimg):
        self.session.report("EveryHook/images", self.images)

    @hookimpl
    def tick(self, nimg):
        self.note(f"tick after {nimg} images")

    @hookimpl
    def snapshot(self, path, nimg):
        self.note(f"snapshot {Path(path).name}")

    def state_dict(self):
        return {"images": self.images}

    def load_state_dict(self, state):
        self.images = state["images"]

    def note(self, line):
        if self.session.rank == 0:
            with open(self.session.run_dir / "every-hook.txt", "a") as file:
                file.write(line + "\n")
