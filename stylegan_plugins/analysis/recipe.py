"""Recipes of `stylegan-plugins compare`: tables of papers as data, in files of `recipes/` and in files of a user.

A recipe has the rows, data and settings of a table, its source, and the published figures. Options on the command line
override it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from stylegan_plugins.analysis import cells, evaluate
from stylegan_plugins.analysis.comparison import Published
from stylegan_plugins.errors import OptionError, tell
from stylegan_plugins.files import downloads

FOLDER = Path(__file__).with_name("recipes")
SCALES = ("published", "small")
# Defaults of recipes at --scale=small, for some hours on two CPU cores. At 16 pixels and 85 images a second a run of 96
# kimg takes 20 minutes, and over-fits 100 images.
SMALL: dict[str, Any] = {
    **{"kimg": 96, "seeds": 3, "features": "efficientnet_lite0", "samples": 1000},
    "metric": "kid,best_kid,pr_precision,pr_recall,distinct,distance,variety",
    "arguments": "--batch=16 --cbase=512 --cmax=32 --gamma=0.02 --glr=0.006 --dlr=0.006 --pl-weight=0 "
    "--no-noise-inputs --mirror=1 --metrics=none --tick=4 --snap=6",
}


DEFAULTS = {"seeds": 1, "fractions": "1.0", "metric": "fid", "features": "inception"}  # without a recipe
Count = Annotated[int, msgspec.Meta(ge=1)]


class RecipeRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of a table.

    plugins     names joined by +, or none
    arguments   options of train.py for this row alone, as --name=value
    name        the publication's name of the row
    published   published figures, by column"""

    plugins: str
    arguments: str = ""
    name: str = ""
    published: dict[str, float] = {}

    @property
    def text(self) -> str:
        """Return the row as `--row` takes it."""
        return f"{self.plugins} {self.arguments}".strip()


class RecipeData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A data set of a table.

    name        a name that `--data` downloads, or a word for data that a user gives
    columns     columns of the published table for this data set
    supply      where to get it, if its name cannot be downloaded
    reference   images that the published figures compare with; empty: the data set itself
    images      number of images
    kimg, arguments     `kimg` replaces the scale's, `arguments` are added to the scale's"""

    name: str
    columns: list[str] = []
    supply: str = ""
    reference: str = ""
    images: Count | None = None
    kimg: Count | None = None
    arguments: str = ""

    def __post_init__(self) -> None:
        shlex.split(self.arguments)  # raises a ValueError, to which msgspec adds the place


class Scale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings, named as the options of compare. vary: each as `--vary` takes it; needs: by option of train.py that a
    user has to give, the reason."""

    kimg: Count
    metric: str
    seeds: Count = 1
    fraction: str = "1.0"
    features: str = "inception"
    samples: Count | None = None
    arguments: str = ""
    vary: list[str] = []
    needs: dict[str, str] = {}

    def __post_init__(self) -> None:
        shlex.split(self.arguments)


class TableRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table.

    about, source   a line each: the comparison, and its publication
    notes           sentences on differences from the publication
    small           settings at --scale=small that differ from SMALL
    after           commands for each run when all are done, with RUN for its folder"""

    about: str
    source: str
    rows: Annotated[list[RecipeRow], msgspec.Meta(min_length=1)]
    data: list[RecipeData] = []
    published: Scale | None = None
    small: dict[str, Any] = {}
    notes: list[str] = []
    after: list[str] = []

    def scale(self, name: str) -> Scale:
        """Return the settings of a scale. Raises OptionError if the recipe has none."""
        if name == "small":
            return msgspec.convert({**SMALL, **self.small}, Scale)
        if self.published is None:
            raise OptionError("--scale=published: this recipe has no published settings. Use --scale=small.")
        return self.published

    def published_for(self, columns: Sequence[str]) -> Published | None:
        """Return figures of some columns; None if there are none."""
        rows = {cells.row_of(row.text): (row.name, row.published) for row in self.rows}
        heads = [name for name in columns if any(name in row.published for row in self.rows)]
        return Published(heads, rows, " ".join([self.source, *self.notes])) if heads else None


def names() -> list[str]:
    """Return the names of the installed recipes."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def read(name: str) -> TableRecipe:
    """Read an installed recipe, or a file of a user. Raises OptionError if it is missing or not valid."""
    file = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if file.parent == FOLDER and name not in names():
        raise OptionError(
            f"--recipe={name}: there is no such recipe. Give one of {', '.join(names())}, or a file ./NAME.toml."
        )
    try:
        found = msgspec.toml.decode(file.read_bytes(), type=TableRecipe)
        found.scale("small")
        columns = {column for data in found.data for column in data.columns}
        for row in found.rows:
            cells.row_of(row.text)
            if unknown := row.published.keys() - columns:
                raise ValueError(f"no data set has the column {sorted(unknown)[0]!r}")
    except OSError as error:
        raise OptionError(f"--recipe={name}: it cannot be read ({error.strerror or error}).") from error
    except ValueError as error:  # errors of TOML, types and rows
        raise OptionError(f"--recipe={name}: {error}. docs/reference/compare.md has the form of a recipe.") from error
    return found


def listed() -> list[str]:
    """Return a line for each installed recipe."""
    width = max(map(len, names()))
    found = {name: read(name) for name in names()}
    small = lambda recipe: "" if recipe.published is not None else " (small)"
    return [f"{name:{width}}  {recipe.about}{small(recipe)}" for name, recipe in found.items()]


def tables_of(
    name: str | None, scale: Literal["published", "small"], given: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a folder and the settings of `compare.run` for each table: the table of the options, or the tables of a
    recipe.

    Raises OptionError as `settings_of` does, and without a recipe for missing options."""
    if name is not None:
        yield from settings_of(name, scale, given)
        return
    if scale != SCALES[0]:
        raise OptionError(f"--scale={scale} has no effect without --recipe. Leave the option out.")
    if not (given["plugins"] or given["rows"]) or given["data"] is None or given["kimg"] is None:
        raise OptionError("compare: give --plugins or --row, --data and --kimg; or --recipe=NAME.")
    yield "", {**given, **{key: value for key, value in DEFAULTS.items() if given[key] is None}}


def settings_of(
    name: str, scale: Literal["published", "small"], given: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a folder, and the settings of `compare.run`, for each data set of a recipe.

    given       options of the command, None where they were not given; they override the recipe's

    Raises OptionError for given rows, and for missing data or arguments."""
    recipe = read(name)
    if given["plugins"] or given["rows"]:
        raise OptionError(f"--recipe={name} has its own rows. Leave out --plugins and --row, or write a recipe.")
    chosen = recipe.scale(scale)
    given = {**given, "more": _joined(given["more"])}
    for option, why in chosen.needs.items():
        if not any(argument.partition("=")[0] == f"--{option}" for argument in given["more"]):
            raise OptionError(f"--recipe={name} needs {why}. Add -- --{option}=... at the end.")
    sets = _data_of(recipe, name, scale, given)
    for data in sets:
        if scale == "published" and data.reference and not given["reference"] and not given["dry_run"]:
            raise OptionError(f"--recipe={name}: figures are of {data.reference}. Give them with --reference.")
        yield (
            (re.sub(r"[^\w.-]", "_", data.name) if len(sets) > 1 else ""),
            _settings(recipe, name, chosen, data, given),
        )


def _data_of(recipe: TableRecipe, name: str, scale: str, given: Mapping[str, Any]) -> list[RecipeData]:
    """Return the data set of --data, or the data sets of the recipe."""
    wanted, known = given["data"], recipe.data
    if scale == "published" and wanted is None:
        missing = next((data for data in known if data.supply), None)
        if (missing or not known) and not given["dry_run"]:
            supply = f"{missing.name} is not downloaded: {missing.supply}" if missing else "it names no data set"
            raise OptionError(f"--recipe={name}: {supply}. Give it with --data.")
        return known
    columns = [column for data in known for column in data.columns]
    if wanted is None:
        raise OptionError(f"--recipe={name} --scale=small: give --data, pictures of your own or {downloads.NAMED[-1]}.")
    same = [data for data in known if wanted == data.name or len(known) == 1] if scale == "published" else []
    return [msgspec.structs.replace(data, name=wanted) for data in same] or [RecipeData(wanted, columns)]


def _settings(
    recipe: TableRecipe, name: str, scale: Scale, data: RecipeData, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of `compare.run` for one data set."""
    own: dict[str, Any] = {
        **dict(kimg=data.kimg or scale.kimg, seeds=scale.seeds, fractions=scale.fraction, metric=scale.metric),
        **dict(features=scale.features, samples=scale.samples),
    }
    if given["reference"] is None and given["metric"] is None:
        own["metric"] = _without_held_out(own["metric"])
    theirs = {_flag(argument): argument for argument in given["more"] if "=" in argument}
    replaced_by_theirs = {*theirs, *(f"--{option}" for option in cells.variations_of(given["vary"]))}
    is_ours = lambda argument: _flag(argument) not in replaced_by_theirs
    more = list(filter(is_ours, shlex.split(f"{scale.arguments} {data.arguments}")))
    vary = [text for text in scale.vary if is_ours(f"--{text.removeprefix('--')}")]
    # In rows that have the option, the user's value replaces the row's value.
    in_rows = {_flag(word) for row in recipe.rows for word in shlex.split(row.arguments)}
    replaced = lambda words: shlex.join(theirs.get(_flag(word), word) for word in shlex.split(words))
    rows = [msgspec.structs.replace(row, arguments=replaced(row.arguments)) for row in recipe.rows]
    recipe = msgspec.structs.replace(recipe, rows=rows)
    more += [argument for argument in given["more"] if _flag(argument) not in in_rows]
    lines = [f"{name}: {recipe.about}", f"Source: {recipe.source}", *recipe.notes]
    is_absent = given["dry_run"] and given["data"] is None and not _is_here(data.name)
    return {
        **given,
        **{key: value if given[key] is None else given[key] for key, value in own.items()},
        **dict(data=data.name, rows=[row.text for row in recipe.rows], plugins=None, vary=[*vary, *given["vary"]]),
        **dict(more=tuple(more), published=recipe.published_for(data.columns), about=lines),
        **dict(after=recipe.after, absent=data.images if is_absent else None),
    }


def _joined(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return arguments with each value joined to its option: `--gamma`, `7` become `--gamma=7`."""
    found: list[str] = []
    for argument in arguments:
        if found and re.fullmatch(r"--[^=]+", found[-1]) and not argument.startswith("-"):
            argument = f"{found.pop()}={argument}"
        found.append(argument)
    return tuple(found)


def _flag(argument: str) -> str:
    """Return the option of an argument, without its value."""
    return argument.partition("=")[0]


def _is_here(name: str) -> bool:
    """Return whether a data set is on this machine: it need not be downloaded or given."""
    address = downloads.address_of(name)
    kept = downloads.cache_directory() / "data"
    return os.path.exists(name if address is None else downloads.place_of(address, kept, ".zip"))


def _without_held_out(metric: str) -> str:
    """Return the metrics that need no held-out images, and print which ones are left out."""
    figures = evaluate.figures_of(metric, "--metric")
    known = evaluate.metrics.known()
    kept = [name for name, figure in figures.items() if not known[figure.metric].held_out]
    if len(kept) < len(figures):
        left = ", ".join(name for name in figures if name not in kept)
        tell(f"Without --reference, held-out images, {left} is left out.", err=True)
    return ",".join(kept)
