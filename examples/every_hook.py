"""A plug-in that implements every hook once, to be read beside docs/hooks.md. It guesses how bright an image was made.

The tests train it, so what stands here works. Install it as a package does, with an entry point named `every-hook`.
"""

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

from stylegan_plugins import hookimpl
from stylegan_plugins.analysis.metrics import Metric
from stylegan_plugins.analysis.sample import Sampler
from stylegan_plugins.errors import OptionError
from stylegan_plugins.files.datasets import read_images
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.options import option
from stylegan_plugins.vision.backbones import Recipe
from training_ext.labels import Labels
from training_ext.parts import Augmentation, Head, LossTerm

PAPER = "none: an example"
seen = {"images": 0}


@dataclass(frozen=True)
class EveryHookOptions:
    weight: float = option(1.0, "factor on the term; 0 = off", minimum=0)
    shift: float = option(0.2, "largest change of brightness, in pixel values; 0 = off", minimum=0, maximum=2)
    labels: bool = option(False, "the brightness of each image as its label")


@hookimpl
def options():
    return EveryHookOptions


@hookimpl
def presets(options, given):
    if options.weight == 0:
        return {"every-hook": {"shift": 0.0}}  # nothing to guess, so nothing to change; --every-hook-shift wins


@hookimpl
def configure(args, options, given):
    if options.shift == 0 and options.weight > 0:
        raise OptionError("--every-hook-shift=0 leaves nothing to guess: give --every-hook-weight=0, too.")
    if "snap" not in given:
        args["network_snapshot_ticks"] = 10


@hookimpl
def register_dataset(args, options):
    if options.labels:
        _, images = read_images(args["training_set_kwargs"]["path"])
        return Labels(np.array([[image.mean() / 127.5 - 1] for image in images], dtype=np.float32))


@hookimpl
def register_backbones():
    return {"resnet18": Recipe("resnet18.a1_in1k")}


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
def register_augmentations(session):
    largest = session.options("every-hook").shift

    def brighten(images):
        omega = torch.rand([len(images), 1, 1, 1], device=images.device)
        return images + (2 * omega - 1) * largest, {"shift": omega.reshape(-1, 1)}

    return [Augmentation("every-hook", brighten)]


@hookimpl
def register_heads(session):
    width = session.feature_size("fc")
    return [Head("every-hook", lambda: torch.nn.Linear(width, 1))]


@hookimpl
def register_loss_terms(session):
    head = session.heads["every-hook"]

    def guess(evaluated):
        omega = evaluated.omega["every-hook"]["shift"]
        return (head(evaluated.features["fc"]) - omega).square().mean(1)

    weight = session.options("every-hook").weight
    return [LossTerm("every-hook", "D", guess, weight, features=frozenset({"fc"}))]


@hookimpl
def step_end(session, phase):
    if phase == "Dmain":
        note(session, "step")


@hookimpl
def batch_end(session, cur_nimg, batch_idx):
    seen["images"] = cur_nimg
    note(session, f"batch {batch_idx}: {cur_nimg} images")


@hookimpl
def statistics(session, cur_nimg):
    host_module("torch_utils.training_stats").report0("EveryHook/images", seen["images"])


@hookimpl
def tick(session, cur_nimg):
    note(session, f"tick after {cur_nimg} images")


@hookimpl
def snapshot(session, path, cur_nimg):
    note(session, f"snapshot {Path(path).name}")


@hookimpl
def state_dict(session):
    return {"images": seen["images"]}


@hookimpl
def load_state_dict(session, state):
    seen["images"] = state["images"]


@hookimpl
def register_commands(cli):
    @cli.command("every-hook")
    @click.argument("run_dir", type=click.Path(exists=True, path_type=Path))
    def show(run_dir):
        """Show the notes of a run."""
        click.echo((run_dir / "every-hook.txt").read_text(), nl=False)


def note(session, line):
    if session.rank == 0:
        with open(Path(session.run_dir) / "every-hook.txt", "a") as file:
            file.write(line + "\n")
