"""The plan of `stylegan-plugins compare`: its runs, and an estimate of their time from a short trial of each row."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from stylegan_plugins.analysis import programs, records
from stylegan_plugins.analysis.cells import Cell, Row, share_name
from stylegan_plugins.analysis.comparison import Published
from stylegan_plugins.files import json_lines
from stylegan_plugins.files.atomic import write_json

SPEED = re.compile(rb"progress: [^\r\n]*? ([\d.]+) images/s")
SPEEDS = "speeds.json"  # speeds of trials, by the arguments of train.py
OF_ONE_RUN = ("--seed=", "--kimg=", "--outdir=", "--subset=")  # arguments that do not change the speed
TRIAL_KIMG = 1  # length of a trial, unless it prints its speed twice before, which it does every half minute


def speed_of(arguments: Sequence[str], outdir: Path) -> float | str:
    """Train in a temporary folder until the run has printed its speed twice: the first iterations are slow. Return the
    speed in images a second, or the reason why there is none. arguments: of train.py."""
    with tempfile.TemporaryDirectory(dir=outdir, prefix="trial-") as folder:
        log = Path(folder) / "train.log"
        others = [part for part in arguments if not part.startswith(("--outdir=", "--kimg="))]
        trial = [*others, f"--outdir={folder}", f"--kimg={TRIAL_KIMG}", "--metrics=none"]
        told = lambda: len(SPEED.findall(log.read_bytes())) > 1
        with open(log, "wb") as out:
            code = programs.run(trial, told, stdout=out, stderr=subprocess.STDOUT)
        output = log.read_bytes()
    if found := SPEED.findall(output):
        return float(found[-1])
    return programs.error_in(output.decode(errors="replace").splitlines()) or f"train.py ended with {code}"


def speeds_of(
    left: Mapping[Cell, float], command: Callable[[Cell], list[str]], outdir: Path, report: Callable[[str], None]
) -> dict[Row, float | str]:
    """Return, as `speed_of` does, the speed of each row that has runs left. A file in `outdir` keeps the speeds, so
    that the same command does not measure them again."""
    first: dict[Row, Cell] = {}
    for cell in left:
        first.setdefault(cell.row, cell)
    kept = _kept(outdir / SPEEDS)
    found: dict[Row, float | str] = {}
    for number, (row, cell) in enumerate(first.items(), 1):
        arguments = command(cell)
        alike = [part for part in arguments if not part.startswith(OF_ONE_RUN)]
        key = records.short_hash(json.dumps(alike).encode())
        if key not in kept:
            report(f"Measuring the speed, {number} of {len(first)}: {named(row)}")
            kept[key] = speed_of(arguments, outdir)
            write_json(outdir / SPEEDS, kept)
        found[row] = kept[key]
    return found


def _kept(file: Path) -> dict[str, float | str]:
    """Return the speeds in a file. Failed measurements and a damaged file are left out: they are measured again."""
    try:
        found = json_lines.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: speed for key, speed in found.items() if isinstance(speed, float) and speed > 0}


def named(row: Row) -> str:
    """Return the plan's name for a row."""
    return " ".join([row[0].replace(",", "+"), *(f"--{name}={value}" for name, value in row[1])])


def estimate(
    left: Mapping[Cell, float], speeds: Mapping[Row, float | str], format_time: Callable[[float], str]
) -> list[str]:
    """Return lines about the training time that is left: for each row, and in all. left: kimg of each run."""
    lines, total = [], 0.0
    for row, speed in speeds.items():
        kimg = sum(part for cell, part in left.items() if cell.row == row)
        if isinstance(speed, str):
            lines.append(f"{named(row)}: no estimate ({speed})")
        elif not speed:
            lines.append(f"{named(row)}: no estimate (its speed was too low to measure)")
        else:
            total += kimg * 1000 / speed
            lines.append(f"{named(row)}: {kimg:g} kimg at {speed:.4g} images/s, {format_time(kimg * 1000 / speed)}")
    if total:
        lines.append(f"About {format_time(total)} of training in all, one run after the other; metrics come on top.")
    return lines


def described(
    about: Iterable[str],
    planned: Sequence[Cell],
    command: Callable[[Cell], list[str]],
    published: Published | None,
    settings: str,
) -> str:
    """Return a plan: its description, and each row with published figures and a command for each share of the data."""
    seeds = len({cell.seed for cell in planned})
    lines = [*about, f"{len(planned)} runs: {settings}", ""]
    rows: dict[Row, list[Cell]] = {}
    for cell in planned:
        if cell.seed == min(other.seed for other in planned):
            rows.setdefault(cell.row, []).append(cell)
    for row, cells in rows.items():
        name, *figures = published.of(row) if published else ["–"]
        heads = published.heads if published else ()
        quoted = ", ".join(f"{head} {figure}" for head, figure in zip(heads, figures, strict=True) if figure != "–")
        known = f"; published as {name}: {quoted}" if quoted else ""
        lines.append(f"{named(row)}{known}")
        for cell in cells:
            more = f"  (--seed=0 to {seeds - 1})" if seeds > 1 else ""
            lines.append(f"    {share_name(cell.fraction)}: {shlex.join(command(cell))}{more}")
    return "\n".join(lines)
