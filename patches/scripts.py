"""Edits of the scripts beside train.py: they run on any device, with --device."""

from __future__ import annotations

from stylegan_plugins.patches.common import bridge_import, process_group_backend

from stylegan_plugins.host.edits import Call, Command, Edit
from stylegan_plugins.host.families import STYLEGAN3, Family


def edits(family: Family) -> list[Edit]:
    result = []
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
        result.append(
            Edit(
                file="gen_video.py",
                argument=Call("gen_interp_video"),
                code="device=device",
                reason="its default is a CUDA device",
            )
        )
        result.append(bridge_import("avg_spectra.py"))
        result += [_device_option("avg_spectra.py", function) for function in ("stats", "calc")]
    return result + _calc_metrics("calc_metrics.py")


def _device_option(file: str, function: str | None = None) -> Edit:
    return Edit(
        file=file, decorate=Command(function), code="bridge.device_option", reason="adds --device=auto, cpu or cuda"
    )


def _calc_metrics(file: str) -> list[Edit]:
    return [
        bridge_import(file),
        _device_option(file),
        process_group_backend(file),
        Edit(
            file=file,
            function="subprocess_fn",
            # The other one, sync_device, is put right where it is used (compat).
            replace=Call("torch.device", assigned_to="device"),
            code="bridge.device(rank)",
            reason="hard-wired to CUDA; --device decides",
        ),
    ]
