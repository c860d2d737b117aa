"""Edits of the scripts beside train.py: they run on any device, with --device."""

from stylegan_plugins.patches.common import bridge_import

from stylegan_plugins.host.patcher import Call, Command, Edit

SCRIPTS = {
    "stylegan2-ada-pytorch": ("generate.py", "style_mixing.py", "projector.py"),
    "stylegan3": ("gen_images.py", "gen_video.py"),
}


def edits(family: str) -> list[Edit]:
    result = []
    for file in SCRIPTS[family]:
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
    if family == "stylegan3":
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
    result += _calc_metrics()
    return result


def _device_option(file: str, function: str | None = None) -> Edit:
    return Edit(
        file=file, decorate=Command(function), code="bridge.device_option", reason="adds --device=auto, cpu or cuda"
    )


def _calc_metrics() -> list[Edit]:
    file = "calc_metrics.py"
    return [
        bridge_import(file),
        _device_option(file),
        Edit(
            file=file,
            argument=Call("torch.distributed.init_process_group", containing="nccl"),
            code="backend=bridge.backend()",
            reason="NCCL needs GPUs; on a CPU gloo does the same",
        ),
        Edit(
            file=file,
            function="subprocess_fn",
            # The other one, sync_device, is put right where it is used (compat).
            replace=Call("torch.device", assigned_to="device"),
            code="bridge.device(rank)",
            reason="hard-wired to CUDA; --device decides",
        ),
    ]
