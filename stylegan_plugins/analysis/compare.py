"""`stylegan-plugins compare`: combinations of plug-ins, trained in turn with the same budget, and a table of a metric.

Its form is that of the papers' tables: a row for each combination, a column for each share of the data, with mean and
deviation over seeds. A run is used again only if arguments, contents of data and files, and versions are the same."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import stylegan_plugins
from stylegan_plugins import options as plugin_options
from stylegan_plugins.analysis import evaluate, markdown, programs, records
from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import datasets, json_lines, prepare, states
from stylegan_plugins.files.atomic import whole, write_json
from stylegan_plugins.files.checksums import digest_of
from stylegan_plugins.manager import catalogue, split_names
from stylegan_plugins.vision import extractors

LOG = "train.log"
CELL = "cell.json"  # beside the run of a cell: its identity
LIBRARIES = ("torch", "numpy", "timm")  # whose versions may change what a run computes
HOST_FOLDERS = ("training", "torch_utils", "dnnlib")


@dataclass(frozen=True)
class Cell:
    """One run. plugins: with commas, or `none`; fraction: of the data set, in (0, 1]."""

    plugins: str
    fraction: float
    seed: int

    def folder(self, identity: Mapping[str, Any]) -> str:
        """Return the name of its folder, which ends in a hash of its identity."""
        names = re.sub(r"[^\w.+-]", "_", self.plugins.replace(",", "+"))[:100]
        digest = records.short_hash(json.dumps(identity, sort_keys=True).encode(), 8)
        return f"{names}-{self.fraction:g}-seed{self.seed}-{digest}"


def combinations_of(text: str) -> list[str]:
    """Read `none,diffaugment,diffaugment+freezed` as combinations, whose plug-ins are joined by commas. Raises
    OptionError."""
    found = list(
        dict.fromkeys(",".join(split_names(part.split("+"))) or "none" for part in text.split(",") if part.strip())
    )
    if not found:
        raise OptionError(f"--plugins={text}: nothing to compare. Give, for example, none,diffaugment,augself.")
    return found


def fractions_of(text: str) -> list[float]:
    """Read `1.0,0.2` as shares of the data. Raises OptionError."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"--fraction={text}: numbers, with commas.") from error
    if not all(0 < part <= 1 for part in found):
        raise OptionError(f"--fraction={text}: shares of the data, above 0 and at most 1.")
    return list(dict.fromkeys(found))


def arguments_for(plugins: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return the arguments of train.py without options of plug-ins that are not active, which it would refuse."""
    found_plugins = catalogue()
    active = found_plugins.activate(plugins, {}).names
    others = {
        plugin_options.flag(name, field_name)
        for name, field_name in found_plugins.parameters().values()
        if name not in active
    }
    found: list[str] = []
    left_out = False
    for argument in arguments:
        is_flag = argument.startswith("--")
        if is_flag:
            left_out = argument.partition("=")[0] in others
        if not left_out:
            found.append(argument)
        left_out = left_out and is_flag and "=" not in argument  # its value comes next
    return found


def check_arguments(combinations: Sequence[str], arguments: Sequence[str]) -> None:
    """Raise OptionError for an option of a plug-in that is in no combination."""
    kept = {argument for names in combinations for argument in arguments_for(split_names([names]), arguments)}
    for argument in arguments:
        if argument not in kept:
            raise OptionError(
                f"{argument} has no effect: its plug-in is in no combination of --plugins. Name it there, or leave the "
                "option out."
            )


def command(cell: Cell, data: str, images: int, kimg: int, outdir: Path, more: Sequence[str]) -> list[str]:
    """Return the command line of one run, for the host's folder."""
    found = [sys.executable, "train.py"]
    found += [f"--outdir={outdir}", f"--data={data}", f"--kimg={kimg}", f"--seed={cell.seed}"]
    if cell.plugins != "none":
        found.append(f"--plugin={cell.plugins}")
    if cell.fraction < 1:
        found.append(f"--subset={max(round(cell.fraction * images), 1)}")
    return [*found, *arguments_for(split_names([cell.plugins]), more)]


def identity_of(cell: Cell, arguments: Sequence[str], host: Path, data: str) -> dict[str, Any]:
    """Return the identity of a run, JSON. It is another run if anything here differs.

    arguments   of train.py, without its output folder
    data        path of a folder or zip"""
    parts = {part for argument in arguments for part in re.split("[=,]", argument)}
    files = {part: digest_of(host / part) for part in sorted(parts) if part != data and os.path.isfile(host / part)}
    return {
        "arguments": list(arguments),
        "data": {"images": datasets.fingerprint(data), "labels": datasets.labels_fingerprint(data)},
        "files": files,
        "versions": {"stylegan_plugins": stylegan_plugins.__version__, "host": code_of(host), **versions_of(cell)},
    }


@functools.cache
def code_of(host: Path) -> str:
    """Return a hash of the source files by which a host trains."""
    files = [*host.glob("*.py"), *(file for top in HOST_FOLDERS for file in (host / top).rglob("*") if file.is_file())]
    code = {file.relative_to(host).as_posix(): file for file in files if file.suffix in (".py", ".cu", ".cpp", ".h")}
    digest = hashlib.sha256()
    for name in sorted(code):
        digest.update(f"{name}\0{digest_of(code[name])}\0".encode())
    return digest.hexdigest()[:16]


def versions_of(cell: Cell) -> dict[str, str]:
    """Return versions by name, of libraries and of the packages that a cell's plug-ins come from."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES if importlib.util.find_spec(name)}
    for name in catalogue().activate(split_names([cell.plugins]), {}).names:
        source = catalogue().sources.get(name)
        if isinstance(source, importlib.metadata.EntryPoint) and source.dist is not None:
            found[source.dist.name] = source.dist.version
    return found


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write the identity of a cell into its folder, before it is trained. Raises DataError if the folder is there, with
    another identity or none."""
    file = folder / CELL
    if not folder.exists():
        write_json(file, identity)
    try:
        known = json_lines.parse(file.read_text(errors="replace"))
    except (OSError, ValueError):
        known = {}
    if known != identity:
        raise DataError(
            f"{file} is missing, or is not of the runs in {folder}. Move this folder away, and start again."
        )


def progress_of(folder: Path) -> tuple[Path | None, int]:
    """Return the run directory in a cell's folder that got farthest and has a state, and the images it has seen."""
    newest = [known[0] for run_dir in folder.glob("*") if run_dir.is_dir() and (known := states.states_of(run_dir))]
    found = [(int(state.stem.split("-")[-1]), state.parent) for state in newest]
    seen, run_dir = max(found, default=(0, None))
    return run_dir, seen


def call(arguments: Sequence[str], host: Path, log: Path, advice: str) -> None:
    """Run train.py, its output to a file. Ctrl-C and SIGTERM end it with its state written, and then this process.

    Raises DataError, with train.py's own error, and what to do, if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out:
        begin = out.seek(0, os.SEEK_END)
        code = programs.run(arguments, cwd=host, stdout=out, stderr=subprocess.STDOUT)
    if code:
        output = log.read_bytes()[begin:].decode(errors="replace")
        why = programs.error_in(output.splitlines()) or f"it ended with {code}"
        raise DataError(f"train.py {' '.join(arguments[2:])}: {why} ({log}). {advice}")


def run(
    host: Path,
    outdir: Path,
    *,
    plugins: str,
    data: str,
    kimg: int,
    seeds: int,
    fractions: str,
    metric: str,
    features: str,
    samples: int | None,
    pictures: prepare.How,
    more: Sequence[str],
    device: torch.device,
    report: Callable[[str], None],
) -> str:
    """Train and evaluate what is not done yet. Return the table, also written to `outdir` as compare.md and .json.

    The reference of metrics is the whole data set, whatever share a run trains on. Raises OptionError or DataError."""
    combinations, shares = combinations_of(plugins), fractions_of(fractions)
    chosen = evaluate.metrics_of(metric, "--metric")
    if len(chosen) > 1:
        raise OptionError(f"--metric={metric}: one metric at a time makes a table.")
    check_arguments(combinations, more)
    evaluate.require_libraries()
    extractors.load(features, {found.reads for found in chosen.values()}, device)  # or it would fail after training
    path = str(Path(prepare.usable(data, pictures)).resolve())
    images, _, _ = datasets.check_dataset(path)
    evaluate.check_numbers(chosen, "--metric", images, samples or evaluate.default_samples(images))
    datasets.check_output(outdir)
    outdir = outdir.resolve()
    cells = [Cell(names, share, seed) for share in shares for names in combinations for seed in range(seeds)]
    identities: dict[Cell, dict[str, Any]] = {}
    for cell in cells:
        plain = [part for part in command(cell, path, images, kimg, outdir, more)[2:] if part != f"--outdir={outdir}"]
        identities[cell] = identity_of(cell, plain, host, path)
    folders = {cell: cell.folder(identity) for cell, identity in identities.items()}
    missing = {(cell.plugins, cell.fraction): cell for cell in cells if not (outdir / folders[cell] / CELL).exists()}
    for cell in missing.values():  # before hours of training
        tried = [*command(cell, path, images, kimg, outdir, more), "--dry-run"]
        call(tried, host, outdir / "dry-run.log", "Nothing was trained.")
    values: dict[Cell, float] = {}
    for number, cell in enumerate(cells, 1):
        folder = outdir / folders[cell]
        claim(folder, identities[cell])
        run_dir, seen = progress_of(folder)
        if seen < kimg * 1000:
            report(f"{number} of {len(cells)}: {folder.name}, from {seen / 1000:g} of {kimg} kimg")
            arguments = command(cell, path, images, kimg, folder, more)
            if run_dir is not None:
                arguments = [*arguments[:2], f"--resume-run={run_dir}"]
            call(arguments, host, folder / LOG, "The same command goes on from here.")
            run_dir, seen = progress_of(folder)
        if run_dir is None:
            raise DataError(f"{folder}: the run has left no state. Look at {folder / LOG}.")
        last = run_dir / f"network-snapshot-{seen // 1000:06d}.pkl"
        if not last.is_file():  # an older one is of a shorter run
            raise DataError(f"{last} is missing, the snapshot at the end of the run. Remove {folder}, and start again.")
        values[cell] = evaluate.value_of(
            last, path, metric=metric, features=features, samples=samples, device=device, report=report
        )
    made = as_markdown(combinations, shares, values)
    record = {"metric": metric, "features": features, "kimg": kimg, "data": data, "arguments": list(more)}
    record["cells"] = [{**asdict(cell), "folder": folders[cell], "value": value} for cell, value in values.items()]
    with whole(outdir / "compare.md") as out:
        out.write(f"{made}\n".encode(errors="backslashreplace"))
    write_json(outdir / "compare.json", record)
    return f"{made}\n\n{outdir / 'compare.md'}"


def as_markdown(combinations: Sequence[str], shares: Sequence[float], values: dict[Cell, float]) -> str:
    """Return a table of mean ± standard deviation (of a sample) over seeds; one seed has no deviation."""

    def cell_of(names: str, share: float) -> str:
        found = [value for cell, value in values.items() if (cell.plugins, cell.fraction) == (names, share)]
        spread = f" ± {statistics.stdev(found):.3g}" if len(found) > 1 else ""
        return f"{statistics.fmean(found):.4g}{spread}"

    head = ["plug-ins", *(f"{share:.0%} of the data" for share in shares)]
    rows = ([names.replace(",", " + "), *(cell_of(names, share) for share in shares)] for names in combinations)
    return markdown.table(head, rows)
