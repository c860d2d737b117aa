"""Edits of metrics/*.py and of the scripts beside train.py, so that they run on any device, with --device."""

from __future__ import annotations

from stylegan_plugins.patches.common import bridge_import, pin_memory, process_group

from stylegan_plugins.host.edits import Call, Command, Edit
from stylegan_plugins.host.families import STYLEGAN3, Family


def edits(family: Family) -> list[Edit]:
    result = [edit for file in family.pinning for edit in (bridge_import(file), pin_memory(file, optional=True))]
    for file in family.scripts:
        result += [
            bridge_import(file),
            _device_option(file),
            Edit(
                file=file,
                replace=Call("torch.device", containing="'cuda'"),
                every=file != "gen_video.py",
                function="generate_images" if file == "gen_video.py" else None,
                code="bridge.device()",
                reason="hard-wired to CUDA; --device decides",
            ),
        ]
        result += _drawing(file)
    if family is STYLEGAN3:
        result += [
            Edit(
                file="gen_video.py",
                argument=Call("gen_interp_video"),
                code="device=device",
                reason="its default is a CUDA device",
            ),
            bridge_import("avg_spectra.py"),
            _device_option("avg_spectra.py", "stats"),
            _device_option("avg_spectra.py", "calc"),
            *(
                Edit(
                    file="avg_spectra.py",
                    decorate=Command(command),
                    optional=True,
                    code="bridge.checked",
                    reason="a file that is not there is one line",
                )
                for command in ("heatmap", "slices")
            ),
            _load("avg_spectra.py"),
        ]
    return [
        *result,
        bridge_import("calc_metrics.py"),
        _device_option("calc_metrics.py"),
        _load("calc_metrics.py"),
        *process_group("calc_metrics.py"),
        Edit(
            file="calc_metrics.py",
            function="subprocess_fn",
            # host/compat.py corrects the other one, sync_device, where it is used.
            replace=Call("torch.device", assigned_to="device"),
            code="bridge.device(rank)",
            reason="hard-wired to CUDA; --device decides",
        ),
    ]


def _drawing(file: str) -> list[Edit]:
    """Return edits for networks with one color channel, and for networks with classes."""
    projector = file == "projector.py"
    images = Edit(
        file=file,
        replace=Call("PIL.Image.fromarray", containing="'RGB'"),
        every=True,
        optional=True,
        code="bridge.picture({arguments})",
        reason="images of gray networks have one channel",
    )
    target = Edit(
        file=file,
        replace=Call(".convert", containing="target_fname"),
        optional=True,
        code="bridge.target({receiver})",
        reason="the target of a gray network is gray; VGG takes three channels",
    )
    load = _load(file, ", colors=True" if projector else "")
    return [load] if file == "gen_video.py" else [load, target if projector else images]


def _load(file: str, more: str = "") -> Edit:
    return Edit(
        file=file,
        replace=Call("legacy.load_network_pkl"),
        every=True,
        optional=True,
        code="bridge.load_networks({function}, {arguments}" + more + ")",
        reason="classes and layers are known now: an error in an option, or in the pickle, is one line",
    )


def _device_option(file: str, command: str = "") -> Edit:
    return Edit(
        file=file,
        decorate=Command(command),
        code="bridge.device_option",
        reason="adds --device=auto, cpu or cuda, and --class where it lacks; wrong values are one line",
    )
