"""The edits that turn a host into a host for plug-ins, with reasons: one module for each edited upstream file.

Installed as `stylegan_plugins.patches`. The patch engine calls `edits_for(family)`."""

from __future__ import annotations

from stylegan_plugins.patches import scripts, train, training_loop

from stylegan_plugins.host.edits import Edit
from stylegan_plugins.host.families import FAMILIES, HOSTS

__all__ = ["FAMILIES", "edits_for", "optional_files"]


def edits_for(family: str) -> dict[str, list[Edit]]:
    """Return the edits of one family by host file, in the order in which they are applied."""
    edits: dict[str, list[Edit]] = {}
    for module in (train, training_loop, scripts):
        for edit in module.edits(HOSTS[family]):
            edits.setdefault(edit.file, []).append(edit)
    return edits


def optional_files(family: str) -> frozenset[str]:
    """Return the files that a fork may lack. They are patched if they exist."""
    return frozenset(edit.file for edit in scripts.edits(HOSTS[family]))
