"""Changes of training arguments that several plug-ins make."""

from __future__ import annotations

from typing import Any


def no_ada_unless_given(plugin: str, args: dict[str, Any], given: frozenset[str]) -> None:
    """Switch the hosts' default ADA off, as the authors do, unless the user asked for ADA: with --aug, or with an
    option that means something with it alone."""
    if given & {"aug", "target", "augpipe"} or "augment_kwargs" not in args:
        return
    for name in ("augment_kwargs", "ada_target", "augment_p"):
        args.pop(name, None)
    print(f"{plugin}: --aug=noaug, the authors' setting; give --aug=ada to train with ADA in front of it.")
