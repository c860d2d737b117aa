"""What a directory is: which family of host, pristine or not, patched or not."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from stylegan_plugins.errors import HostError
from stylegan_plugins.host import manifest

ORIGIN_FILE = ".stylegan-plugins-host.json"
NEEDED = ("train.py", "training/training_loop.py", "training/loss.py", "dnnlib", "torch_utils")

# sha256 of files that every change of the training code touches, line ends and byte-order mark removed, at the
# pinned commits of NVIDIA's repositories.
PRISTINE = {
    "stylegan2-ada-pytorch": {
        "train.py": "269f2073481ab269560ff76d4a866ac98656a494884c3ad0edcf8cc99d9e4c24",
        "training/training_loop.py": "267af6305216137b99f082abbeabc624c7654217d0e37b78fdfe7b8263d16948",
        "training/loss.py": "e0653e15178603df5e29e831ad67706f495d4170c18b8a13b4ba8aa5fc0d5185",
        "training/networks.py": "53b4e1ec457171d4e2c1454d48013765ab626141c35cdd383b020950effe11a5",
    },
    "stylegan3": {
        "train.py": "bc3e0854d1788a6c907015c8d9513d97975a38370e0631ab885e6a83ab23910f",
        "training/training_loop.py": "85dc3b5b84f8dc6a17fab7f7ca3e155648b5097808630a11ca8b43f355eb2e48",
        "training/loss.py": "95cd1d2fb2db27b0c501d4913429ecc1bb21e50c090bab02044aa35c090a64ee",
        "training/networks_stylegan2.py": "b6f14e8fa2a95de4d38218fef31380c6a70de770f585107e209ff83075c307ef",
        "training/networks_stylegan3.py": "06082fb3e8929e477f58fb8bc78e7ecb9a9209eb01444272d1d153c85a6a89f7",
    },
}


@dataclass(frozen=True)
class Host:
    """A recognised host. kind: 'pristine', 'assembled' (from the package index) or 'fork', patched or not."""

    directory: Path
    family: str
    kind: str
    patched: bool
    changed: tuple[str, ...]  # files that differ from the pinned commit, of those that are compared

    def __str__(self) -> str:
        origin = {
            "pristine": f"pristine {self.family}",
            "assembled": f"{self.family}, assembled from the package index",
            "fork": f"a fork of {self.family} (differs in {', '.join(self.changed)})",
        }[self.kind]
        return f"{origin}, {'patched' if self.patched else 'not patched'}"


def recognise(directory: Path) -> Host:
    """Describe a host directory. Raises HostError, saying what is missing, if it is none."""
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
    changed = []
    for file, expected in PRISTINE[family].items():
        data = manifest.original(directory, file)
        if data is None or digest(data) != expected:
            changed.append(file)
    kind = "pristine" if not changed else "assembled" if _assembled(directory) else "fork"
    return Host(directory, family, kind, manifest.is_patched(directory), tuple(changed))


def _family(directory: Path) -> str:
    """By the loss: ada's takes the mapping and synthesis networks apart, stylegan3's takes G whole."""
    loss = (directory / "training/loss.py").read_text(encoding="utf-8-sig", errors="replace")
    if "class StyleGAN2Loss" not in loss:
        raise HostError(
            f"{directory / 'training/loss.py'} has no StyleGAN2Loss: this code base is not supported. Fetch NVIDIA's: "
            "stylegan-plugins host fetch DIRECTORY."
        )
    signature = re.search(r"class StyleGAN2Loss.*?def __init__\((.*?)\)\s*:", loss, re.DOTALL)
    arguments = signature.group(1) if signature else ""
    return "stylegan2-ada-pytorch" if re.search(r"\bG_mapping\b", arguments) else "stylegan3"


def _assembled(directory: Path) -> bool:
    file = directory / ORIGIN_FILE
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("source") == "pypi"
    except (OSError, ValueError):
        return False  # no record, or one that cannot be read: then the files decide


def digest(data: bytes) -> str:
    """sha256 without a byte-order mark and with LF line ends: a checkout on Windows is pristine, too."""
    return hashlib.sha256(data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")).hexdigest()
