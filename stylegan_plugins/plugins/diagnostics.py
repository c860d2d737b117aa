"""Diagnostics: does D memorise its training images, and does G copy them? Training itself stays as it is.

r_t and r_v are defined in Karras et al. 2020, Training Generative Adversarial Networks with Limited Data
(arXiv:2006.06676), equation 1. Zhao et al. 2020, Differentiable Augmentation for Data-Efficient GAN Training
(arXiv:2006.10738), measure over-fitting by D's accuracy on training against held-out images. The functions are in
training_ext.diagnostics."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from stylegan_plugins import CountsWith, DataError, OptionError, Session, hookimpl, option
from stylegan_plugins.files import run_folders
from stylegan_plugins.host.modules import construct, raw_indices
from stylegan_plugins.vision import backbones
from stylegan_plugins.vision.networks import from_uint8
from training_ext import diagnostics
from training_ext.distributed import gather_objects, merged
from training_ext.passes import minibatch_std_group

changes_data = True
PAPER = "Karras et al. 2020, Training Generative Adversarial Networks with Limited Data, arXiv:2006.06676, equation 1"
LOG = "diagnostics.jsonl"  # in the run directory, a line for each tick
FLAG = "--diagnostics-nearest"
CPU = torch.device("cpu")
SEED = 0  # for the choice of images, and for the samples


@dataclass(frozen=True)
class DiagnosticsOptions:
    holdout: int = option(0, "images that are kept out of training, for D to be scored on, 0 = none", minimum=0)
    images: int = option(256, "most images of a kind that D is scored on in each tick", minimum=1)
    nearest: str = option(
        "pixels",
        f"space of distances to training images: pixels, features of {', '.join(backbones.BACKBONES)}, or none",
        metavar="pixels|NAME|none",
    )
    nearest_images: int = option(
        5000,
        "most training images among which the nearest are looked for",
        minimum=1,
        counts=(CountsWith("nearest", lambda name: name != "none", "pixels"),),
    )
    weights: str = option(
        "published",
        "weights of the backbone: the published ones, or a file",
        metavar="FILE",
        counts=(CountsWith("nearest", lambda name: name not in ("pixels", "none"), "dino"),),
    )

    @property
    def weights_file(self) -> str | None:
        return None if self.weights == "published" else self.weights

    @property
    def backbone(self) -> str | None:
        return None if self.nearest in ("pixels", "none") else self.nearest


OPTIONS = DiagnosticsOptions


@hookimpl
def configure(args: Any, options: DiagnosticsOptions) -> DiagnosticsOptions:
    if options.holdout:
        keep_out(args, options.holdout)
    if options.weights_file is not None:
        if not Path(options.weights_file).is_file():
            raise DataError(f"--diagnostics-weights: there is no file {options.weights_file}.")
        options = replace(options, weights=str(Path(options.weights_file).absolute()))
    if options.backbone is not None:
        backbones.load(options.backbone, options.weights_file, FLAG)
    return options


def keep_out(args: Any, holdout: int) -> None:
    """Change the training loop's arguments so that `holdout` images are not trained on. Raises OptionError."""
    data = args["training_set_kwargs"]
    # The host's seed for --subset, so that the same images are held out of all subsets.
    data.setdefault("random_seed", args["random_seed"])
    total = len(all_images(data))
    if holdout >= total:
        raise OptionError(
            f"--diagnostics-holdout={holdout}: {data['path']} has {total} images, so none would be left to train on. "
            "Give less, a tenth of them, for example."
        )
    group = min(args["D_kwargs"].get("epilogue_kwargs", {}).get("mbstd_group_size") or 1, args["batch_gpu"])
    if holdout < group:
        raise OptionError(
            f"--diagnostics-holdout={holdout}: D looks at images in groups of {group} (minibatch standard deviation). "
            f"Give {group} or more."
        )
    left = total - holdout
    if data.get("max_size") is None or data["max_size"] > left:
        data["max_size"] = left
    print(f"diagnostics: {holdout} of {total} images are held out; {data['max_size']} are trained on.")


def all_images(kwargs: Mapping[str, Any]) -> Any:
    """Return the data set with all images, in their own order, without horizontal flips."""
    return construct(kwargs, max_size=None, xflip=False)


def held_out(kwargs: Mapping[str, Any], holdout: int) -> np.ndarray:
    """Return the indices of held-out images among all: the images that the host drops from a data set with `holdout`
    fewer images. A smaller data set, as with --subset, is a part of that one."""
    total = len(all_images(kwargs))
    return np.setdiff1d(np.arange(total), raw_indices(kwargs, total - holdout))


def read(dataset: Any, indices: np.ndarray) -> TensorDataset:
    """Return images of a host's data set, uint8 [M, C, H, W], and their labels [M, c_dim]."""
    items = [dataset[int(index)] for index in indices]
    return TensorDataset(*(torch.from_numpy(np.stack(part)) for part in zip(*items, strict=True)))


@hookimpl
def setup(session: Session, options: DiagnosticsOptions) -> Method:
    return Method(session, options)


class Method:
    """The measurement of a run on a fixed choice of images, by the first process."""

    def __init__(self, session: Session, options: DiagnosticsOptions) -> None:
        self.session, self.options = session, options
        self.log = session.log(LOG)

    @functools.cached_property
    def recorded(self) -> dict[str, Any]:
        return run_folders.read_options(self.session.run_dir) or {}

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        """Return the arguments of the run's data set."""
        return self.recorded["training_set_kwargs"]

    @functools.cached_property
    def all(self) -> Any:
        """Return the data set with all images."""
        return all_images(self.data)

    @functools.cached_property
    def real(self) -> dict[str, TensorDataset]:
        """Return training images and held-out images without horizontal flips, in random order, because D sees them in
        groups, and neighbours in a data set are often alike."""
        chosen = {"train": raw_indices(self.data, self.data.get("max_size"))}
        if self.options.holdout:
            chosen["held_out"] = held_out(self.data, self.options.holdout)
        most = self.options.images
        shuffled = {kind: np.random.RandomState(SEED).permutation(raw)[:most] for kind, raw in chosen.items()}
        return {kind: read(self.all, raw) for kind, raw in shuffled.items()}

    @functools.cached_property
    def latents(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z and labels of the samples. Labels are drawn from the training images, as in the host's training."""
        training = construct(self.data)
        random = np.random.RandomState(SEED)
        z = random.randn(self.options.images, self.session.G_ema.z_dim)
        labels = [training.get_label(int(index)) for index in random.randint(len(training), size=len(z))]
        return torch.from_numpy(z), torch.from_numpy(np.stack(labels))

    @functools.cached_property
    def features(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function from images [n, C, H, W] in [-1, 1] to features [n, F], for distances."""
        if self.options.backbone is None:
            return diagnostics.shrunk
        backbone = backbones.load(self.options.backbone, self.options.weights_file, FLAG).to(self.session.device)
        return lambda images: backbone(images).float()

    @functools.cached_property
    def among(self) -> torch.Tensor:
        """Return features [M, F] of training images on the CPU, on the first process, with horizontal flips if the run
        trains on them. All processes must call this together, and share the reading."""
        session = self.session
        training = construct(self.data)
        flips = 2 if self.data.get("xflip") else 1  # the host appends flips of all images
        count = len(training) // flips
        index = np.random.RandomState(SEED).permutation(count)[: self.options.nearest_images]
        index = np.concatenate([index + count * flip for flip in range(flips)])
        if session.rank == 0:
            print(f"diagnostics: reading {len(index)} training images, to find the nearest among.", flush=True)
        parts = np.array_split(index, range(self.recorded["batch_gpu"], len(index), self.recorded["batch_gpu"]))
        mine = [self._features_of(*read(training, part)[:]).cpu() for part in parts[session.rank :: session.num_gpus]]
        shares = gather_objects(mine, session.num_gpus, session.device)
        return merged(shares) if session.rank == 0 else torch.empty(0)

    @functools.cached_property
    def held_out_nearest(self) -> torch.Tensor:
        """Return distances of held-out images to the nearest training image, [N]."""
        images = self.real["held_out"]
        parts = torch.arange(len(images)).split(self.recorded["batch_gpu"])
        features = torch.cat([self._features_of(*images[part]) for part in parts])
        return diagnostics.nearest(features, self.among)[0].cpu()

    def _features_of(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.features(from_uint8(pixels, CPU).to(self.session.device))

    def measure(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return D's logits [N] by source, and distances [N] of samples and held-out images to the nearest training
        image."""
        session, device, most = self.session, self.session.device, self.recorded["batch_gpu"]
        group = min(minibatch_std_group(session.D) or most, most)
        z, labels = self.latents
        features = []

        def judged(images: TensorDataset, index: torch.Tensor) -> torch.Tensor:
            pixels, c = images[index]
            return session.judge(from_uint8(pixels, CPU).to(device), c.to(device))

        def judged_samples(index: torch.Tensor) -> torch.Tensor:
            c = labels[index].to(device)
            images = session.G_ema(z=z[index].to(device), c=c, noise_mode="const")
            if self.options.nearest != "none":
                features.append(self.features(images.clamp(-1, 1)))
            return session.judge(images, c, "generated")

        scores = {}
        with diagnostics.evaluating(session.D, session.G_ema, session.heads):
            for kind, images in self.real.items():
                scores[kind] = diagnostics.scored(functools.partial(judged, images), len(images), most, group)
            scores["generated"] = diagnostics.scored(judged_samples, len(z), most, group)
        distances = {}
        if features:
            distances["samples"] = diagnostics.nearest(torch.cat(features)[: len(z)], self.among)[0].cpu()
            if "held_out" in scores:
                distances["held_out"] = self.held_out_nearest
        return scores, distances

    @hookimpl
    def statistics(self, nimg: int) -> None:
        """Measure and report on the first process. The others report the same names without values, which
        training_stats requires."""
        options = self.options
        kinds = ("train", "held_out", "generated") if options.holdout else ("train", "generated")
        spaces = ("samples", "held_out", "ratio") if options.holdout else ("samples",)
        names = [f"{group}/{kind}" for group in ("scores", "accuracy") for kind in kinds]
        names += ["r_t", *(["r_v"] if options.holdout else [])]
        names += [f"nearest/{space}" for space in spaces if options.nearest != "none"]
        if options.nearest != "none":
            _ = self.among  # on all processes
        found = self._figures(nimg) if self.session.rank == 0 else {}
        for name in names:
            self.session.report(f"Diagnostics/{name}", found.get(name, []))

    def _figures(self, nimg: int) -> dict[str, Any]:
        """Measure, add a line to the log, and return the values to report."""
        scores, distances = self.measure()
        record = diagnostics.summary(scores)
        record["nearest"] = {
            space: diagnostics.number(distances[space].mean()) if space in distances else None
            for space in ("samples", "held_out")
        }
        with open(self.log, "a") as log:
            log.write(json.dumps({"kimg": nimg / 1000, **record}) + "\n")
        found: dict[str, Any] = {f"accuracy/{kind}": diagnostics.correct(value, kind) for kind, value in scores.items()}
        found |= {f"scores/{kind}": value for kind, value in scores.items()}
        found |= {f"nearest/{space}": value for space, value in distances.items()}
        found |= {name: record[name] for name in ("r_t", "r_v") if record[name] is not None}
        if len(distances) == 2 and distances["held_out"].mean() > 0:
            found["nearest/ratio"] = distances["samples"].mean() / distances["held_out"].mean()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the choice of images, for a check. With other images in the data set, the host would train on others,
        including held-out ones."""
        return {"images": len(self.all)} if self.options.holdout and self.session.rank == 0 else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "images" in state and len(self.all) != state["images"]:
            raise DataError(
                f"--resume-run: {self.data['path']} has {len(self.all)} images, the run began with {state['images']}: "
                "held-out images would be trained on. Put it back as it was."
            )
