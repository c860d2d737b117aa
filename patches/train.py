"""Edits of train.py: options, configuration, and the call of the training loop."""

from __future__ import annotations

from functools import partial

from stylegan_plugins.patches.common import bridge_import, process_group

from stylegan_plugins.host.edits import Call, Command, Edit
from stylegan_plugins.host.families import ADA, Family

FILE = "train.py"


def edits(family: Family) -> list[Edit]:
    configured = partial(
        Edit,
        file=FILE,
        function="main",
        reason="the arguments are complete: plug-ins may now change them, before the run directory is named",
    )
    return [
        bridge_import(FILE),
        Edit(
            file=FILE,
            decorate=Command(),
            code="bridge.options",
            reason="--plugin, the options of every installed plug-in, --device, and what the other family has",
        ),
        configured(replace=Call("setup_training_loop_kwargs"), code="bridge.configure(*{function}({arguments}))")
        if family is ADA
        else configured(before=Call("launch_training"), code="desc, c = bridge.configure(desc, c)"),
        *process_group(FILE, function="subprocess_fn"),
        Edit(
            file=FILE,
            function="subprocess_fn",
            replace=Call("training_loop.training_loop"),
            code="bridge.run({function}, {arguments})",
            reason="the session of the active plug-ins is made here, in each process",
        ),
    ]
