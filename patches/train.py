"""Edits of train.py: options, configuration, and the call of the training loop."""

from stylegan_plugins.patches.common import bridge_import

from stylegan_plugins.host.patcher import Call, Command, Edit

FILE = "train.py"


def edits(family: str) -> list[Edit]:
    configured = {
        "stylegan2-ada-pytorch": Edit(
            file=FILE,
            function="main",
            replace=Call("setup_training_loop_kwargs"),
            code="bridge.configure(*{function}({arguments}))",
            reason="the arguments are complete: plug-ins may now change them, before the run directory is named",
        ),
        "stylegan3": Edit(
            file=FILE,
            function="main",
            before=Call("launch_training"),
            code="desc, c = bridge.configure(desc, c)",
            reason="the arguments are complete: plug-ins may now change them, before the run directory is named",
        ),
    }
    return [
        bridge_import(FILE),
        Edit(
            file=FILE,
            decorate=Command(),
            code="bridge.options",
            reason="--plugin, the options of every installed plug-in, --device, and what the other family has",
        ),
        configured[family],
        Edit(
            file=FILE,
            function="subprocess_fn",
            argument=Call("torch.distributed.init_process_group", containing="nccl"),
            code="backend=bridge.backend()",
            reason="NCCL needs GPUs; on a CPU gloo does the same",
        ),
        Edit(
            file=FILE,
            function="subprocess_fn",
            replace=Call("training_loop.training_loop"),
            code="bridge.run({function}, {arguments})",
            reason="the session of the active plug-ins is made here, in each process",
        ),
    ]
