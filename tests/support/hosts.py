"""Host families, copies of hosts, and one-file plug-ins that a host can find."""

from __future__ import annotations

import shutil
from pathlib import Path

from stylegan_plugins.patches import FAMILIES

ADA, STYLEGAN3 = FAMILIES
CHECKOUTS = {ADA: "STYLEGAN_HOST", STYLEGAN3: "STYLEGAN3_HOST"}


def copy_host(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".git"))
    return target


def install_plugin(directory: Path, name: str, source: str) -> str:
    """Install a one-file plug-in of a test as a package with an entry point would be. Returns the PYTHONPATH for it."""
    module = name.replace("-", "_")
    info = directory / f"{module}-0.dist-info"
    info.mkdir(parents=True)
    (directory / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[stylegan_plugins]\n{name} = {module}\n")
    return str(directory)
