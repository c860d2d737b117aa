"""Edits of metrics/*.py: what cannot run without a GPU."""

from __future__ import annotations

from stylegan_plugins.patches.common import bridge_import, pin_memory

from stylegan_plugins.host.edits import Edit
from stylegan_plugins.host.families import Family


def edits(family: Family) -> list[Edit]:
    return [edit for file in family.pinning for edit in (bridge_import(file), pin_memory(file, optional=True))]
