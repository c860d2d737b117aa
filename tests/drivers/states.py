"""Differences of two runs that should have ended alike. Imported by tests and benchmarks; needs no host."""

import json
from pathlib import Path

import torch

from stylegan_plugins.files.states import read_state, states_of

CLOCKS = ("Timing/", "Resources/", "timestamp")  # no part of the state
UNSEEDED = "python"  # NVIDIA's loops do not seed Python's own random numbers: two runs differ in them from the start


def differences(run: Path, other: Path) -> list[str]:
    """Return the places where the newest states, the statistics or the images of two runs differ."""
    found = list(_compare(read_state(states_of(run)[0]), read_state(states_of(other)[0]), ()))
    if statistics(run) != statistics(other):
        found.append("stats.jsonl")
    pictures = [sorted(path.name for path in folder.glob("*.png")) for folder in (run, other)]
    if pictures[0] != pictures[1]:
        found.append(f"pictures: {pictures}")
    found += [name for name in pictures[0] if (run / name).read_bytes() != (other / name).read_bytes()]
    return found


def statistics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith(CLOCKS)} for line in lines]


def _compare(a, b, path):
    if path[:1] == ("lengths",) or path[2:] == (UNSEEDED,) or any(part.startswith(CLOCKS) for part in path):
        return
    where = "/".join(path)
    if isinstance(a, dict):
        if [k for k in a if not str(k).startswith(CLOCKS)] != [k for k in b if not str(k).startswith(CLOCKS)]:
            yield f"{where}: keys {sorted(map(str, set(a) ^ set(b)))}"
        for key in a.keys() & b.keys():
            yield from _compare(a[key], b[key], (*path, str(key)))
    elif isinstance(a, (list, tuple)):
        if len(a) != len(b):
            yield f"{where}: {len(a)} and {len(b)} items"
        for index, (x, y) in enumerate(zip(a, b)):
            yield from _compare(x, y, (*path, str(index)))
    elif isinstance(a, torch.Tensor):
        if a.dtype != b.dtype or not torch.equal(a, b):
            yield f"{where}: tensors"
    elif a != b and not (a != a and b != b):
        yield f"{where}: {a} and {b}"
