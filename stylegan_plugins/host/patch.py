"""Patch a host, undo it, and show the changes."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from stylegan_plugins.errors import HostError, PatchError
from stylegan_plugins.host import manifest
from stylegan_plugins.host.recognise import recognise
from stylegan_plugins.patches import edits_for, optional_files


@dataclass(frozen=True)
class Plan:
    """A plan of patching: new contents by file, and the reasons why scripts are left unchanged."""

    patched: dict[str, bytes]
    left: dict[str, str]


def plan(directory: Path) -> Plan:
    """Compute the patched files of a host, from its originals if it is patched already; reads only.

    Raises PatchError if a training file lacks an anchor. A metric or a script beside train.py that lacks one, or does
    not exist, is left unchanged: training does not need it."""
    from stylegan_plugins.host.patcher import apply_edits  # libcst is slow to import

    host = recognise(directory)
    optional = optional_files(host.family)
    patched, left = {}, {}
    for file, edits in edits_for(host.family).items():
        data = manifest.original(directory, file)
        if data is None:
            if file not in optional:
                raise PatchError(f"{file} is missing in {directory}; nothing was written.")
            continue
        try:
            patched[file] = apply_edits(data, edits, file)
        except PatchError as error:
            if file not in optional:
                raise PatchError(
                    f"{error}; nothing was written. See docs/reference/hosts.md for the edits and what each is for."
                ) from error
            left[file] = str(error)
    return Plan(patched, left)


def patch(directory: Path, dry_run: bool = False) -> Plan | None:
    """Patch a host in place, and return the plan; None if the host was patched before. A dry run writes nothing."""
    changed = manifest.changed_since(directory)
    if changed:
        raise PatchError(
            f"{', '.join(changed)} in {directory} changed after patching; nothing was written. Undo the change, "
            f"or, if patching was interrupted, run: stylegan-plugins unpatch {directory}."
        )
    result = plan(directory)
    digest = _digest_of_edits(recognise(directory).family)
    if manifest.is_patched(directory):
        if all((directory / file).read_bytes() == data for file, data in result.patched.items()):
            if not dry_run and manifest.edits(directory) != digest:
                manifest.write_edits(directory, digest)
            return None
        if not dry_run:  # another version patched it with other edits
            manifest.restore(directory)
    if not dry_run:
        manifest.write(directory, result.patched, digest)
    return result


def check_edits(directory: Path) -> None:
    """Raise HostError if a host was patched by a version with other edits than this one's."""
    host = recognise(directory)
    if host.patched and manifest.edits(directory) != _digest_of_edits(host.family):
        raise HostError(
            f"{directory} was patched by another version of stylegan-plugins. Run: stylegan-plugins patch {directory}"
        )


def _digest_of_edits(family: str) -> str:
    edits = {file: [replace(edit, reason="") for edit in made] for file, made in edits_for(family).items()}
    return hashlib.sha256(repr(edits).encode()).hexdigest()


def unpatch(directory: Path) -> list[str]:
    """Restore every patched file byte for byte. Returns their names; empty if the host was not patched."""
    recognise(directory)
    return manifest.restore(directory) if manifest.is_patched(directory) else []


def diff(directory: Path, planned: Plan) -> str:
    """Return a plan as a unified diff for reading, without carriage returns and byte-order marks."""
    lines: list[str] = []
    for file, data in planned.patched.items():
        contents = ((directory / file).read_bytes(), data)
        before, after = (content.decode("utf-8-sig", errors="replace").splitlines() for content in contents)
        lines += difflib.unified_diff(before, after, f"a/{file}", f"b/{file}", n=1, lineterm="")
    return "".join(line + "\n" for line in lines)


def state(directory: Path, file: str) -> str:
    """Describe whether one file of a host is patched."""
    if file not in manifest.files(directory):
        return "not patched"
    return "changed after patching" if file in manifest.changed_since(directory) else "patched"
