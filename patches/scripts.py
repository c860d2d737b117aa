"""Edits of metrics/*.py and of the scripts beside train.py: they run on any device, with --device."""

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
        ]
    return [
        *result,
        bridge_import("calc_metrics.py"),
        _device_option("calc_metrics.py"),
        *process_group("calc_metrics.py"),
        Edit(
            file="calc_metrics.py",
            function="subprocess_fn",
            # The other one, sync_device, is put right where it is used (compat).
            replace=Call("torch.device", assigned_to="device"),
            code="bridge.device(rank)",
            reason="hard-wired to CUDA; --device decides",
        ),
    ]


def _device_option(file: str, command: str = "") -> Edit:
    return Edit(
        file=file, decorate=Command(command), code="bridge.device_option", reason="adds --device=auto, cpu or cuda"
    )
