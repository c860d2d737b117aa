"""Edits that several files share."""

from __future__ import annotations

from stylegan_plugins.host.edits import Call, Edit, Imports


def bridge_import(file: str) -> Edit:
    return Edit(
        file=file,
        before=Imports(),
        code="from stylegan_plugins import bridge",
        reason="the other edits of this file call it; importing it repairs the host's modules for current PyTorch",
    )


def pin_memory(file: str, optional: bool = False) -> Edit:
    return Edit(
        file=file,
        replace=Call(".pin_memory"),
        every=True,
        optional=optional,
        code="bridge.pin_memory({receiver})",
        reason="pinning raises an error on a machine without a GPU",
    )


def process_group(file: str, function: str | None = None) -> list[Edit]:
    init = "torch.distributed.init_process_group"
    return [
        Edit(
            file=file,
            function=function,
            argument=Call(init, containing="nccl"),
            code="backend=bridge.backend()",
            reason="NCCL needs GPUs; on a CPU gloo does the same",
        ),
        Edit(
            file=file,
            function=function,
            argument=Call(init),
            every=True,
            code="timeout=bridge.TIMEOUT",
            reason="the first process may work alone for longer than NCCL's ten minutes",
        ),
    ]
