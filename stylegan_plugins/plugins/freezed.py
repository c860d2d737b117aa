"""FreezeD: fine-tune a pretrained GAN with the first layers of D kept as they are.

Mo, Cho, Shin: Freeze the Discriminator (CVPR Workshop 2020, arXiv:2002.10964). The loss is the host's, and so is the
freezing (its own --freezed): frozen weights are buffers of D. This plug-in counts the layers, prints their names, and
refuses to freeze a D that was never trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_plugins import OptionError, Preset, Session, hookimpl, option
from stylegan_plugins.host.networks import layers_above

PAPER = "Mo, Cho, Shin 2020, Freeze the Discriminator, arXiv:2002.10964"
KEPT_SIDE = 16  # blocks of more pixels than this are frozen: the authors keep the last three of seven blocks at 256
PRESETS = {
    "paper": Preset(
        {"layers": 13},
        "authors' StyleGAN code at 256x256, feature_loc 3; they train with --batch=8 --gamma=10 --mirror=1, R1 in each "
        "step, lr 0.002 and a hundredth of it for the mapping network, 50,000 iterations",
    )
}


@dataclass(frozen=True)
class FreezeDOptions:
    layers: int | None = option(
        None,
        "layers of D to freeze, as the host counts; none: all blocks above 16x16, the authors' choice for StyleGAN",
        minimum=1,
    )


OPTIONS = FreezeDOptions


@hookimpl
def configure(args: Any, options: FreezeDOptions, explicit: frozenset[str]) -> FreezeDOptions:
    if not args.get("resume_pkl"):
        raise OptionError("--plugin=freezed: nothing pretrained is being frozen. Give --resume=PKL.")
    if "freezed" in explicit:
        raise OptionError("--freezed and --plugin=freezed: give one of them; --freezed-layers sets the number.")
    side = args["training_set_kwargs"]["resolution"]
    architecture = args["D_kwargs"].get("architecture", "resnet")
    most = layers_above(4, side, architecture)
    layers = options.layers or layers_above(KEPT_SIDE, side, architecture)
    if not 1 <= layers <= most:
        what = f"--freezed-layers={layers}" if options.layers else f"--plugin=freezed freezes nothing at {side}x{side}"
        raise OptionError(
            f"{what}: a discriminator of {side}x{side} has {most} layers before its last block. Give --freezed-layers, "
            f"a number from 1 to {most}."
        )
    args["D_kwargs"].setdefault("block_kwargs", {})["freeze_layers"] = layers
    return replace(options, layers=layers)


@hookimpl
def setup(session: Session) -> None:
    """Print the frozen layers, now that D exists. Adds no parts."""
    if session.rank == 0:
        names = frozen_tensors(session.D)
        print(f"freezed: {len(names)} tensors of D stay as they are: {', '.join(names)}")


def frozen_tensors(D: torch.nn.Module) -> list[str]:
    """Return the weights and biases that are buffers of D."""
    return [name for name, _ in D.named_buffers() if name.endswith((".weight", ".bias"))]
