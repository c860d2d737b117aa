"""The runs of `stylegan-plugins compare`, and the identity of each run.

Runs are combinations of plug-ins, varied options, shares of the data, and seeds."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import stylegan_plugins
from stylegan_plugins import options as plugin_options
from stylegan_plugins.analysis import records
from stylegan_plugins.errors import OptionError
from stylegan_plugins.files import datasets
from stylegan_plugins.files.checksums import digest_of
from stylegan_plugins.manager import catalogue, split_names

LIBRARIES = ("torch", "numpy", "timm")  # their versions may change the results of a run
ROW_FORM = 'give plug-ins, joined by +, and options as --name=value: --row="augself --augself-preset=plus".'
HOST_FOLDERS = ("training", "torch_utils", "dnnlib")
OWN = {  # options of train.py that compare sets itself, and the option of compare for each
    **{"outdir": "--outdir", "data": "--data", "kimg": "--kimg", "seed": "--seeds", "subset": "--fraction"},
    **{"plugin": "--plugins", "resume-run": None, "dry-run": None},
}
Varied = tuple[tuple[str, str], ...]  # names and values of options of train.py: of the row, then varied ones
Row = tuple[str, Varied]  # of the table: plug-ins, joined by commas, or `none`; and options


@dataclass(frozen=True)
class Cell:
    """One run.

    plugins    names joined by commas, or `none`
    fraction   share of the data set, in (0, 1]; above 1, a number of images
    varied     options of this row alone, then the varied options that its plug-ins have"""

    plugins: str
    fraction: float
    seed: int
    varied: Varied = ()

    @property
    def row(self) -> Row:
        """Return the row of the table: runs of one row differ only in data and seed."""
        return self.plugins, self.varied

    def folder(self, identity: Mapping[str, Any]) -> str:
        """Return the name of the run's folder, which ends in a hash of its identity."""
        words = [self.plugins.replace(",", "+"), *(name + value for name, value in self.varied)]
        names = re.sub(r"[^\w.+-]", "_", "-".join(words))[:100]
        digest = records.short_hash(json.dumps(identity, sort_keys=True).encode(), 8)
        return f"{names}-{self.fraction:g}-seed{self.seed}-{digest}"


def combinations_of(text: str) -> list[str]:
    """Read `none,diffaugment,diffaugment+freezed` as combinations, each with its plug-ins joined by commas. Raises
    OptionError."""
    found = list(
        dict.fromkeys(",".join(split_names(part.split("+"))) or "none" for part in text.split(",") if part.strip())
    )
    if not found:
        raise OptionError(f"--plugins={text}: nothing to compare. Give, for example, none,diffaugment,augself.")
    return found


def row_of(text: str) -> Row:
    """Read `diffaugment+freezed --gamma=1` as a row: plug-ins, and options of train.py for it alone. Raises
    OptionError."""
    try:
        names, *words = shlex.split(text)
        (plugins,) = combinations_of(names)
    except (ValueError, OptionError) as error:
        raise OptionError(f"--row={text}: {ROW_FORM}") from error
    pairs = [re.fullmatch(r"--([A-Za-z][\w-]*)=(.*)", word, re.DOTALL) for word in words]
    own = tuple((pair[1], pair[2]) for pair in pairs if pair is not None)
    if None in pairs or len(dict(own)) < len(own):
        raise OptionError(f"--row={text}: {ROW_FORM}")
    return plugins, own


def share_name(share: float) -> str:
    """Return a table's name for a share of the data."""
    return f"{share:g} images" if share > 1 else f"{100 * share:g}% of the data"


def fractions_of(text: str) -> list[float]:
    """Read `1.0,0.2,1000` as shares of the data and numbers of images. Raises OptionError."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"--fraction={text}: numbers, with commas.") from error
    if not all(0 < part <= 1 or (part > 1 and part.is_integer()) for part in found):
        raise OptionError(f"--fraction={text}: shares of the data, above 0 and at most 1, or numbers of images.")
    return list(dict.fromkeys(found))


def variations_of(texts: Iterable[str]) -> dict[str, list[str]]:
    """Read `gamma=0.1,1,10` and others as values by option of train.py. If a value has commas, `;` separates values:
    `diffaugment-policy=color;color,translation`. Raises OptionError."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, given = text.partition("=")
        name = name.strip().removeprefix("--")
        values = list(dict.fromkeys(map(str.strip, given.split(";" if ";" in given else ","))))
        if not re.fullmatch(r"[A-Za-z][\w-]*", name) or "" in values:
            raise OptionError(f"--vary={text}: give an option of train.py and its values, such as gamma=0.1,1,10.")
        if name in found:
            raise OptionError(f"--vary={text}: {name} is varied twice. Give all of its values in one --vary.")
        found[name] = values
    return found


def cells_of(
    rows: Sequence[Row], variations: Mapping[str, Sequence[str]], shares: Sequence[float], seeds: int
) -> list[Cell]:
    """Return all runs, in the order of share, row and seed. An option of a plug-in varies only in combinations that
    have the plug-in; any other combination is one row."""
    found: dict[Cell, None] = {}
    for names, own in rows:
        mine = [
            [(name, value) for value in values]
            for name, values in variations.items()
            if arguments_for(split_names([names]), [f"--{name}={values[0]}"])
        ]
        found |= dict.fromkeys(Cell(names, 1.0, 0, (*own, *chosen)) for chosen in itertools.product(*mine))
    return [replace(row, fraction=share, seed=seed) for share in shares for row in found for seed in range(seeds)]


def arguments_for(plugins: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return the arguments of train.py without options of inactive plug-ins, which train.py would refuse."""
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


def check_arguments(rows: Sequence[Row], arguments: Sequence[str], variations: Mapping[str, Sequence[str]]) -> None:
    """Raise OptionError for an option that compare sets itself, that has no effect, or that is given twice.

    An option has no effect if its plug-in is in no row, or not in the row of the option. It is given twice if two of
    `rows`, `arguments` and `variations` have it."""
    given = {argument.partition("=")[0][2:] for argument in arguments if argument.startswith("--")}
    own = {name for _, options in rows for name, _ in options}
    for name in [*given, *variations, *own]:
        if name in OWN:
            advice = f"Use {OWN[name]} of compare." if OWN[name] else "Leave it out."
            raise OptionError(f"--{name}: compare gives this option to train.py itself. {advice}")
    for name in sorted(given & variations.keys()):
        raise OptionError(f"--vary={name}: --{name} is among the other arguments of train.py, too. Leave one out.")
    for name in sorted(own & (given | variations.keys())):
        raise OptionError(f"--row: --{name} is given for all rows, or varied, too. Leave one out.")
    for names, options in rows:
        written = [f"--{name}={value}" for name, value in options]
        for argument in written:
            if argument not in arguments_for(split_names([names]), written):
                raise OptionError(
                    f"--row: {argument} has no effect: {names} lacks its plug-in. Name it, or leave it out."
                )
    more = [*arguments, *(f"--{name}={values[0]}" for name, values in variations.items())]
    kept = {argument for names, _ in rows for argument in arguments_for(split_names([names]), more)}
    for argument in more:
        if argument not in kept:
            raise OptionError(
                f"{argument} has no effect: its plug-in is in no combination of --plugins. Name it there, or leave the "
                "option out."
            )


def command(cell: Cell, host: Path, data: str, images: int, kimg: int, outdir: Path, more: Sequence[str]) -> list[str]:
    """Return the command line of one run, which works in any current folder. host: an absolute path."""
    found = [sys.executable, str(host / "train.py")]
    found += [f"--outdir={outdir}", f"--data={data}", f"--kimg={kimg}", f"--seed={cell.seed}"]
    if cell.plugins != "none":
        found.append(f"--plugin={cell.plugins}")
    if cell.fraction != 1:
        found.append(f"--subset={subset_of(cell.fraction, images)}")
    varied = [f"--{name}={value}" for name, value in cell.varied]
    return [*found, *arguments_for(split_names([cell.plugins]), more), *varied]


def subset_of(share: float, images: int) -> int:
    """Return the number of images in a share of the data. Raises OptionError if the data set has fewer."""
    if share > images:
        raise OptionError(f"--fraction={share:g}: --data has {images} images.")
    return int(share) if share > 1 else max(round(share * images), 1)


def identity_of(cell: Cell, arguments: Sequence[str], host: Path, data: str) -> dict[str, Any]:
    """Return the identity of a run, as JSON. If any part of it differs, it is another run. Relative paths in arguments
    start at the current folder, as in train.py.

    arguments   of train.py, without the output folder
    data        path of a folder or zip"""
    parts = {part for argument in arguments for part in re.split("[=,]", argument)}
    files = {part: digest_of(part) for part in sorted(parts) if part != data and os.path.isfile(part)}
    return {
        "arguments": list(arguments),
        "data": {"images": datasets.fingerprint(data), "labels": datasets.labels_fingerprint(data)},
        "files": files,
        "versions": {"stylegan_plugins": stylegan_plugins.__version__, "host": code_of(host), **versions_of(cell)},
    }


@functools.cache
def code_of(host: Path) -> str:
    """Return a hash of the host's source files that training uses."""
    files = [*host.glob("*.py"), *(file for top in HOST_FOLDERS for file in (host / top).rglob("*") if file.is_file())]
    code = {file.relative_to(host).as_posix(): file for file in files if file.suffix in (".py", ".cu", ".cpp", ".h")}
    digest = hashlib.sha256()
    for name in sorted(code):
        digest.update(f"{name}\0{digest_of(code[name])}\0".encode())
    return digest.hexdigest()[:16]


def versions_of(cell: Cell) -> dict[str, str]:
    """Return versions by name: of libraries, and of the packages of a cell's plug-ins."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES if importlib.util.find_spec(name)}
    for name in catalogue().activate(split_names([cell.plugins]), {}).names:
        source = catalogue().sources.get(name)
        if isinstance(source, importlib.metadata.EntryPoint) and source.dist is not None:
            found[source.dist.name] = source.dist.version
    return found
