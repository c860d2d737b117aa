"""Recognise a host: its family, whether it is pristine, and whether it is patched."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from stylegan_plugins.errors import HostError
from stylegan_plugins.host import manifest
from stylegan_plugins.host.families import ADA, HOSTS, STYLEGAN3

ORIGIN_FILE = ".stylegan-plugins-host.json"  # in the host's folder: its origin
NEEDED = ("train.py", "training/training_loop.py", "training/loss.py", "dnnlib", "torch_utils")


@dataclass(frozen=True)
class Host:
    """A recognised host. kind: 'pristine', 'assembled' (from the package index) or 'fork', patched or not."""

    family: str
    kind: str
    patched: bool
    changed: tuple[str, ...]  # compared files that differ from the pinned commit

    def __str__(self) -> str:
        origin = {
            "pristine": f"pristine {self.family}",
            "assembled": f"{self.family}, assembled from the package index",
            "fork": f"a fork of {self.family} (differs in {', '.join(self.changed)})",
        }[self.kind]
        return f"{origin}, {'patched' if self.patched else 'not patched'}"


def recognise(directory: Path) -> Host:
    """Describe a host directory. Raises HostError, naming the missing file, if it is not a host."""
    directory = Path(directory)
    if not directory.is_dir():
        raise HostError(f"{directory} is not a directory. Fetch a host with: stylegan-plugins host fetch {directory}")
    missing = [name for name in NEEDED if not (directory / name).exists()]
    if missing:
        raise HostError(
            f"{directory} is not a StyleGAN2-ADA or StyleGAN3 checkout: it lacks {', '.join(missing)}. "
            "Name the folder that holds train.py."
        )
    family = _family(directory)
    pristine = HOSTS[family].pristine
    changed = [file for file in pristine if _digest(manifest.original(directory, file) or b"") != pristine[file]]
    kind = "pristine" if not changed else "assembled" if _assembled(directory) else "fork"
    return Host(family, kind, manifest.is_patched(directory), tuple(changed))


def _family(directory: Path) -> str:
    """Return the family by its loss: ada's takes mapping and synthesis networks separately, stylegan3's takes G."""
    loss = (directory / "training/loss.py").read_text(encoding="utf-8-sig", errors="replace")
    if "class StyleGAN2Loss" not in loss:
        raise HostError(
            f"{directory / 'training/loss.py'} has no StyleGAN2Loss: this code base is not supported. Fetch NVIDIA's: "
            "stylegan-plugins host fetch DIRECTORY."
        )
    signature = re.search(r"class StyleGAN2Loss.*?def __init__\((.*?)\)\s*:", loss, re.DOTALL)
    arguments = signature.group(1) if signature else ""
    return ADA.name if re.search(r"\bG_mapping\b", arguments) else STYLEGAN3.name


def _assembled(directory: Path) -> bool:
    file = directory / ORIGIN_FILE
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("source") == "pypi"
    except (OSError, ValueError):
        return False  # no readable record: the files decide


def _digest(data: bytes) -> str:
    """Return the sha256 without a byte-order mark and with LF line ends, so that a checkout on Windows is pristine."""
    return hashlib.sha256(data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")).hexdigest()
