"""Edits of metrics/*.py: what cannot run without a GPU."""

from stylegan_plugins.patches.common import bridge_import, pin_memory

from stylegan_plugins.host.patcher import Edit


def edits(family: str) -> list[Edit]:
    files = ["metrics/metric_utils.py"]
    if family == "stylegan2-ada-pytorch":
        files.append("metrics/perceptual_path_length.py")
    return [edit for file in files for edit in (bridge_import(file), pin_memory(file, optional=True))]
