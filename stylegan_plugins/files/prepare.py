"""Any folder or zip of pictures as a data set of the hosts: square, of one size, gray or RGB, PNG or JPEG in a zip.

A data set in this form is used as it is. Other pictures are converted once, into a zip in the cache; pictures that need
no change keep their bytes."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import click
import msgspec
import numpy as np
import PIL.Image
import PIL.ImageOps

from stylegan_plugins.cache import cache_directory
from stylegan_plugins.errors import DataError, OptionError, printable, tell
from stylegan_plugins.files import datasets, given_labels, run_folders
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.files.conversion import DEEP, GRAY, Form, Made, Seen, convert, look, reason
from stylegan_plugins.files.datasets import BROKEN
from stylegan_plugins.files.downloads import local_data
from stylegan_plugins.files.given_labels import GivenLabels
from stylegan_plugins.files.sources import Source, opened

RULES = 1  # version of the conversion; another number invalidates the cache
SIDES = tuple(2**power for power in range(3, 11))
AUTO = 256  # the largest side that is chosen automatically
SHARE = 0.9  # of pictures must reach that side
FEW = 20
CROPS = ("center", "fit", "pad")
COLORS = ("auto", "rgb", "gray")
RECORDED = ("size", "crop", "colors", "stretch")  # fields of How that change the pictures' appearance
# Options of commands that make a data set of pictures, with click's arguments.
OPTIONS: dict[str, dict[str, Any]] = {
    "--size": dict(
        type=click.Choice(["auto", *map(str, SIDES)]),
        help=f"Side of the pictures; auto: the largest that most of them reach, up to {AUTO}  [default: auto]",
    ),
    "--crop": dict(
        type=click.Choice(CROPS),
        help="Of pictures that are not square: the middle, all of it stretched, all of it on white  [default: center]",
    ),
    "--colors": dict(type=click.Choice(COLORS), help="auto: gray if all pictures are gray  [default: auto]"),
    "--stretch": dict(
        is_flag=True, default=None, help="Map what 16-bit pictures use of their range to black and white"
    ),
}
UNREADABLE = "pictures that cannot be read, left out"
LINES_SECONDS = 10.0  # between two lines of progress, without a bar
ALIKE = 2  # largest number of the 64 bits in which perceptual hashes of near-duplicates differ


@dataclass(frozen=True)
class How:
    """The settings of converting pictures to a data set.

    size     side in pixels, a power of two; None: the largest that most pictures reach, up to AUTO
    crop     center: the middle square; fit: the whole picture, stretched; pad: the whole picture, on white
    colors   rgb, gray, or auto: gray if all pictures are
    stretch  map the values that 16-bit pictures of the set use to the full range
    limit    largest side if size is None; None: AUTO, and data sets of any size are used as they are
    cond     whether labels are needed; wrong labels are then an error, otherwise a message
    allow_empty_classes  whether needed labels may have classes without pictures"""

    size: Literal[SIDES] | None = None  # type: ignore[valid-type]
    crop: Literal[CROPS] = "center"  # type: ignore[valid-type]
    colors: Literal[COLORS] = "auto"  # type: ignore[valid-type]
    stretch: bool = False
    limit: int | None = None
    cond: bool = False
    allow_empty_classes: bool = False

    @classmethod
    def take(cls, values: dict[str, Any], cond: bool = False) -> How:
        """Remove the values of `OPTIONS` from a command's values. Raises OptionError for an option without effect."""
        given = {name: values.pop(name, None) for name in (*RECORDED, "allow_empty_classes")}
        if given["allow_empty_classes"] and not cond:
            raise OptionError("--allow-empty-classes: classes are not used. Give --cond=1, or leave it out.")
        size = given.pop("size") or "auto"
        kept = {name: value for name, value in given.items() if value is not None}
        return cls(size=None if size == "auto" else int(size), cond=cond, **kept)

    @classmethod
    def of_run(cls, folder: Path) -> How:
        """Return the settings with which the pictures of a run were converted, as far as its folder records them.

        Raises DataError if its training_options.json cannot be read."""
        options = run_folders.read_options(folder) or {}
        data, recorded = options.get("training_set_kwargs"), options.get("pictures")
        given = {name: recorded[name] for name in RECORDED if name in recorded} if isinstance(recorded, dict) else {}
        if isinstance(data, dict) and data.get("resolution") in SIDES:
            given["size"] = data["resolution"]
        try:
            return msgspec.convert(given, cls)
        except msgspec.ValidationError as error:
            raise DataError(f"{folder / run_folders.OPTIONS}: pictures: {error}.") from error

    def record(self, source: Path) -> dict[str, Any]:
        """Return the record of the settings in training_options.json, for the pictures in a folder or zip."""
        return {"source": os.path.abspath(source), **{name: getattr(self, name) for name in RECORDED}}

    def asks_for(self, side: int, channels: int) -> bool:
        """Return whether a data set of this side and channels needs a conversion."""
        too_large = self.size is None and self.limit is not None and side > self.limit
        return (
            too_large
            or self.size not in (None, side)
            or self.colors not in ("auto", "gray" if channels == 1 else "rgb")
        )


@dataclass
class Notes:
    """Messages about pictures: their names by the change that was made to them."""

    of: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, name: str) -> None:
        self.of.setdefault(what, []).append(name)

    def lines(self) -> Iterator[str]:
        for what, names in self.of.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield f"  {what}: {len(names)} ({', '.join(names[:3])}{more})"


@dataclass(frozen=True)
class HostData:
    """A data set of the hosts.

    path         absolute
    pictures     the settings of its conversion, from `How.record`; empty if the given data are used as they are
    class_names  in the order of class numbers, if labels are needed and have names"""

    path: str
    pictures: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)


def usable(data: str, how: How = How()) -> str:
    """Return the path of `prepared`."""
    return prepared(data, how).path


def prepared(data: str, how: How = How()) -> HostData:
    """Return a data set of the hosts with the pictures in `data`, a folder, zip, address or name.

    Raises DataError or OptionError if there are no pictures, or if labels are needed and are not valid."""
    path = Path(local_data(data))
    try:
        _, side, channels = datasets.check_dataset(path)
    except DataError:
        pass
    else:
        labelled = not how.cond or datasets.labels_fingerprint(path)  # the hosts only read labels from dataset.json
        if labelled and not how.asks_for(side, channels):
            return HostData(os.path.abspath(path), class_names=_check_labels(path, how, path))
    with opened(path) as source:
        pictures = datasets.image_names(source.files)
        if not pictures:
            raise DataError(f"--data: there are no pictures in {path}{_instead(source)}.")
        file = _cached(source, pictures, how)
        if not file.exists():
            _prepare(source, pictures, how, file)
        images, side, _ = datasets.check_dataset(file)
        tell(f"--data={data}: {images} pictures of {side}x{side}, prepared in {file}")
        if how.cond and not datasets.labels_fingerprint(file):
            given_labels.read(source, pictures)  # raises an error for wrong labels
    return HostData(str(file), how.record(path), _check_labels(file, how, path))


def _check_labels(path: Path, how: How, given: Path) -> list[str]:
    """Print a summary of labels, if they are needed, and return the names of classes. Raises DataError for invalid
    labels."""
    if not how.cond:
        return []
    with opened(path) as source:
        found = given_labels.read(source, datasets.image_names(source.files))
    if found is None:
        raise DataError(
            f"--cond=1: {given} has no labels. Put the pictures of each class into its own folder, or add "
            "labels.csv or dataset.json."
        )
    found.check(how.allow_empty_classes)
    tell(found.summary())
    return list(found.classes)


def _instead(source: Source) -> str:
    """Describe the files of a source without pictures."""
    others = sorted({PurePosixPath(name).suffix for name in source.files} - {""})
    if others:
        return f", but files that end in {', '.join(others[:5])}. Pictures are PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF"
    return f", but {len(source.clutter)} hidden, empty or system files" if source.clutter else ""


def _cached(source: Source, pictures: Sequence[str], how: How) -> Path:
    """Return the path of the converted pictures, which need not exist yet."""
    of_labels = filter(_has_labels, source.files)
    files = [(name, source.sizes[name], source.identity[name]) for name in (*pictures, *of_labels)]
    settings = {key: value for key, value in asdict(how).items() if key not in ("cond", "allow_empty_classes")}
    identity = repr((RULES, PIL.__version__, os.path.abspath(source.path), settings, files))
    digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:16]
    name = source.path.resolve().name if source.archive is None else source.path.stem
    return cache_directory() / "prepared" / digest / f"{printable(name) or 'pictures'}.zip"


def _has_labels(name: str) -> bool:
    return PurePosixPath(name).name.lower() in (given_labels.JSON, given_labels.CSV)


def _prepare(source: Source, pictures: Sequence[str], how: How, file: Path) -> None:
    notes = Notes()
    for name in source.clutter:
        notes.add("hidden, empty and system files, left out", name)
    for name in sorted(source.files.keys() - set(pictures)):
        if not _has_labels(name):
            notes.add("files that are not pictures, left out", name)
    seen: dict[str, Seen] = {}
    for name in _shown(pictures, "Looking at pictures", len(pictures)):
        try:
            with source.open(name) as picture:
                seen[name] = look(picture)
        except BROKEN as error:
            notes.add(UNREADABLE, f"{name} ({reason(error)})")
    form = _form(source, seen, how, notes) if seen else None
    names: dict[str, str] = {}  # in the data set, by name in the source
    digests: dict[str, np.ndarray] = {}
    with whole(file) as out, zipfile.ZipFile(out, "w") as archive:  # PNG is compressed already
        taken: set[str] = set()
        for name, made in _shown(_made(source, seen, form), "Preparing pictures", len(seen)) if form else ():
            if made.digest is None:
                notes.add(UNREADABLE, f"{name} ({made.failed})")
                continue
            for what in made.notes:
                notes.add(f"pictures {what}", name)
            names[name] = _free(name, made.suffix, taken)
            archive.writestr(zipfile.ZipInfo(names[name]), made.data)
            digests[name] = made.digest
        if not names:
            raise DataError(
                f"--data: none of {len(pictures)} pictures in {source.path} can be read; the first: "
                f"{notes.of[UNREADABLE][0]}."
            )
        found = labels_of(source, list(names), how)
        if found is not None:
            rows = [[names[name], found.of[name]] for name in names]
            data = {"labels": rows, "classes": list(found.classes) or None}
            archive.writestr(zipfile.ZipInfo(given_labels.JSON), json.dumps(data))
    for one, other in alike(digests):
        notes.add("pictures that look like another one", f"{one} (like {other})")
    for line in notes.lines():
        tell(line)
    if len(names) < FEW:
        tell(f"  {len(names)} pictures are few: samples may be copies of them.")


def _free(name: str, suffix: str, taken: set[str]) -> str:
    """Return a name in the data set that no other picture has."""
    stem = str(PurePosixPath(printable(name)).with_suffix(""))
    number = 1
    while (free := f"{stem}{f'-{number}' if number > 1 else ''}{suffix}") in taken:
        number += 1
    taken.add(free)
    return free


def labels_of(source: Source, made: Sequence[str], how: How) -> GivenLabels | None:
    """Return the labels of pictures, None without any. Invalid labels give a message, or an error if labels are
    needed."""
    try:
        return given_labels.read(source, made)
    except DataError as error:
        if how.cond:
            raise
        tell(f"Without labels: {error}")
        return None


def _form(source: Source, seen: dict[str, Seen], how: How, notes: Notes) -> Form:
    sides = sorted((one.side for one in seen.values()), reverse=True)
    reached = sides[int(np.ceil(SHARE * len(sides))) - 1]
    if reached < SIDES[0]:
        raise DataError(
            f"--data: pictures in {source.path} are too small: {reached} pixels. Hosts train on {SIDES[0]} or more."
        )
    side = how.size or max(side for side in SIDES if side <= min(reached, how.limit or AUTO))
    gray = [name for name, one in seen.items() if one.mode in GRAY]
    if gray and len(gray) < len(seen):
        for name in gray:
            notes.add("gray pictures among colored ones", name)
    for name, one in seen.items():
        if one.side < side:
            notes.add(f"pictures that are smaller than {side}, enlarged", name)
    ranges = _ranges(source, seen, how)
    return Form(side, how.colors == "gray" or (how.colors == "auto" and len(gray) == len(seen)), how.crop, ranges)


def _ranges(source: Source, seen: dict[str, Seen], how: How) -> dict[str, tuple[float, float]]:
    """Return the values of deep pictures that become 0 and 255. Raises DataError for values that would wrap."""
    ranges: dict[str, tuple[float, float]] = {}
    for mode in sorted({one.mode for one in seen.values() if one.deep}):
        of = {name: one for name, one in seen.items() if one.deep and one.mode == mode}
        low, high = min(one.low for one in of.values()), max(one.high for one in of.values())
        name = max(of, key=lambda name: of[name].high)
        if mode not in DEEP:  # Pillow keeps the upper eight bits of each color
            if high < 64:
                raise DataError(
                    f"--data: 16-bit pictures in {source.path} use a small part of their range: {name} goes to "
                    f"{high / 255:.0%}. Convert them to 8 bits first, with the range stretched."
                )
            continue
        full = DEEP[mode]
        if not how.stretch and (low < 0 or high > full):
            raise DataError(
                f"--data: {name} in {source.path} has values from {low:g} to {high:g}, and {full} is white. Give "
                "--stretch, or convert the pictures."
            )
        used = f"{len(of)} pictures of more than 8 bits use {low:g} to {high:g}"
        if how.stretch:
            ranges[mode] = (low, high if high > low else low + 1)
            tell(f"--stretch: {used}; these become black and white.")
        else:
            ranges[mode] = (0, full)
            more = "" if high > full / 2 else " --stretch maps what is used to black and white."
            tell(f"{used} of 0 to {full}, where {full} is white.{more}")
    return ranges


def _made(source: Source, names: Iterable[str], form: Form) -> Iterator[tuple[str, Made]]:
    """Yield the converted pictures in order. Several are converted at a time."""

    def one(name: str) -> Made:
        try:
            with source.open(name) as file:
                return convert(file.read(), form)
        except BROKEN as error:
            return Made(failed=reason(error))

    workers = os.cpu_count() or 1
    waiting: deque[tuple[str, Future[Made]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for name in names:
            waiting.append((name, pool.submit(one, name)))
            if len(waiting) > 2 * workers:
                first, made = waiting.popleft()
                yield first, made.result()
        for name, made in waiting:
            yield name, made.result()


def alike(digests: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Return pairs of similar pictures, each picture with the first similar one."""
    names, bits = list(digests), np.packbits(np.stack(list(digests.values())), axis=1)
    found = []
    for index in range(1, len(names)):
        distances = np.bitwise_count(bits[:index] ^ bits[index]).sum(1)
        if distances.min() <= ALIKE:
            found.append((names[index], names[int(distances.argmin())]))
    return found


def _shown(items: Iterable[Any], label: str, length: int) -> Iterator[Any]:
    """Yield items with a progress bar, or with occasional lines if standard error is not a terminal."""
    if not sys.stderr.isatty():
        told = time.monotonic()
        for done, item in enumerate(items):
            if time.monotonic() - told >= LINES_SECONDS:
                told = time.monotonic()
                tell(f"{label}: {done} of {length}", err=True)
            yield item
        return
    with click.progressbar(items, length, label, file=sys.stderr) as bar:
        yield from bar
