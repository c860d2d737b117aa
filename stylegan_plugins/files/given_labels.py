"""Labels that come with pictures: NVIDIA's dataset.json, a labels.csv, or a folder for each class."""

from __future__ import annotations

import csv
import difflib
import itertools
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from stylegan_plugins.errors import DataError
from stylegan_plugins.files.datasets import BROKEN
from stylegan_plugins.files.sources import Source

JSON, CSV = "dataset.json", "labels.csv"  # file names
BOM = b"\xef\xbb\xbf"  # Windows' editors put it before UTF-8
CLASSES = 1 << 16  # the most classes; a larger number is a date or an identity
Label = int | list[float]


@dataclass(frozen=True)
class GivenLabels:
    """The labels of pictures.

    of       label of each picture, by name: a class number, or a list of numbers
    classes  names of the classes in the order of their numbers; () if they have none
    source   a description of their source"""

    of: Mapping[str, Label]
    classes: Sequence[str] = ()
    source: str = ""

    def counts(self) -> list[int]:
        """Return the number of pictures in each class; [] if labels are lists of numbers."""
        numbers = Counter(label for label in self.of.values() if isinstance(label, int))
        return [numbers[k] for k in range(max(numbers) + 1)] if numbers else []

    def check(self, allow_empty: bool) -> None:
        """Raise DataError if a class has no picture, unless the user allows it."""
        counts = self.counts()
        empty = [number for number, count in enumerate(counts) if not count]
        if empty and not allow_empty:
            shown = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
            raise DataError(
                f"--data: {self.source} has pictures in {len(counts) - len(empty)} of {len(counts)} classes, none in "
                f"{shown}. Number the classes 0, 1, 2, ... without gaps, or give --allow-empty-classes."
            )

    def summary(self) -> str:
        """Return one line with the number of pictures in each class."""
        counts = self.counts()
        if not counts:
            width = len(next(iter(self.of.values())))  # type: ignore[arg-type]
            return f"GivenLabels of {self.source}: {width} numbers for each picture."
        names = [f"{k} {self.classes[k]}" if self.classes else str(k) for k in range(len(counts))]
        shown = [f"{name}: {count}" for name, count in zip(names, counts, strict=True)]
        if len(shown) > 20:
            shown = [*shown[:10], f"... ({min(counts)} to {max(counts)} pictures in each)", shown[-1]]
        return f"{len(counts)} classes of {self.source}, with so many pictures: {', '.join(shown)}."


def read(source: Source, pictures: Sequence[str]) -> GivenLabels | None:
    """Return the labels of pictures, None if there are none. dataset.json has priority over labels.csv, and this over
    folders. Both files may lie in a folder of the source, and then apply to the pictures in that folder.

    Raises DataError, naming the first label that is wrong."""
    for name, rows_of in ((JSON, _rows_of_json), (CSV, _rows_of_csv)):
        files = [file for file in source.files if PurePosixPath(file).name.lower() == name]
        if len(files) > 1:
            two = f"{files[0]} and {files[1]}"
            raise DataError(f"--data: {source.path} has {len(files)} files of labels: {two}. Keep one.")
        rows, classes = rows_of(source, files[0]) if files else ([], [])
        if rows:
            where = f"{files[0]} in {source.path}"
            left_out = {*source.files, *source.clutter} - set(pictures)
            matched = _matched(rows, str(PurePosixPath(files[0]).parent), pictures, left_out, where)
            found = _from_rows(matched, where)
            named = len(classes) >= len(found.counts()) > 0
            return replace(found, classes=classes) if named and not found.classes else found
    return _from_folders(source, pictures)


def _content(source: Source, file: str) -> bytes:
    try:
        with source.open(file) as opened:
            return opened.read()
    except BROKEN as error:
        why = " ".join(str(error).split())
        raise DataError(f"--data: {file} in {source.path} cannot be read ({why:.200}). Replace it.") from error


Rows = list[tuple[str, Any]]  # (name of a picture, label)


def _rows_of_json(source: Source, file: str) -> tuple[Rows, list[str]]:
    """Return rows, and the names of classes that a dataset.json of this package has."""
    where = f"{file} in {source.path}"
    data = _content(source, file)
    try:
        found = json.loads(data.removeprefix(BOM))
        labels = found["labels"] or []
        rows = [(name, label) for name, label in (labels.items() if isinstance(labels, dict) else labels)]
        classes = found.get("classes")
    except UnicodeDecodeError as error:
        raise DataError(f"--data: {where} is not in UTF-8 (byte {error.start}). Save it in UTF-8.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"--data: {where} is not JSON (line {error.lineno}: {error.msg}). Write it again.") from None
    except (ValueError, TypeError, LookupError, RecursionError):
        raise DataError(f'--data: {where} is not {{"labels": [[file, label], ...]}}. Write it so.') from None
    wrong = next((name for name, _ in rows if not isinstance(name, str)), None)
    if wrong is not None:
        raise DataError(f"--data: {where} has {_short(wrong)} for the name of a picture. Names are text.")
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return rows, classes if named else []


def _rows_of_csv(source: Source, file: str) -> tuple[Rows, list[str]]:
    where = f"{file} in {source.path}"
    data = _content(source, file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"--data: {where} is not in UTF-8 (byte {error.start}). Save it in UTF-8.") from None
    separator = max(",;\t", key=text.partition("\n")[0].count)
    try:
        lines = [(number, line) for number, line in enumerate(csv.reader(text.splitlines(), delimiter=separator), 1)]
    except csv.Error as error:
        raise DataError(f"--data: {where} is not CSV ({error}). Write it again.") from None
    lines = [(number, [cell.strip() for cell in line]) for number, line in lines if any(line)]
    if lines and lines[0][1][1:] and lines[0][1][1].lower() in ("class", "label"):
        del lines[0]
    wrong = next(((number, line) for number, line in lines if len(line) != 2 or "" in line), None)
    if wrong is not None:
        line = f"line {wrong[0]} of {where}"
        raise DataError(f"--data: {line} is {_short(wrong[1])}; expected the name and class of a picture.")
    return [(line[0], line[1]) for _, line in lines], []


def _from_folders(source: Source, pictures: Sequence[str]) -> GivenLabels | None:
    """Return labels from folders: the first level of folders in which pictures differ is their class."""
    parts = [PurePosixPath(name).parts[:-1] for name in pictures]
    shared = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False)))
    if not parts or any(len(part) == shared for part in parts):  # some are not in a folder
        return None
    folders = [part[shared] for part in parts]
    classes = sorted(set(folders))
    # The hosts' dataset_tool.py makes folders that are not classes.
    if all(name.isdecimal() and len(name) == 5 for name in classes) and all(
        PurePosixPath(name).name.startswith("img0") for name in pictures
    ):
        return None
    numbers = {name: number for number, name in enumerate(classes)}
    of = {name: numbers[folder] for name, folder in zip(pictures, folders, strict=True)}
    return GivenLabels(of, classes, f"the folders in {source.path}")


# Three ways to compare names, each less strict than the one before.
def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", str(PurePosixPath(name.replace("\\", "/").strip().lstrip("/"))))


def _caseless(name: str) -> str:
    return _plain(name).casefold()


def _stem(name: str) -> str:
    return str(PurePosixPath(_caseless(name)).with_suffix("")) if _plain(name) != "." else ""


def _base(name: str) -> str:
    return PurePosixPath(_stem(name)).name


def _matched(rows: Rows, folder: str, pictures: Sequence[str], left_out: Iterable[str], where: str) -> dict[str, Any]:
    """Return the label of each picture. Names in rows are paths in the source, or in the folder of their file. If they
    do not fit, letter case is ignored, then endings, then folders. A row of a file that is left out labels no other."""
    inside = lambda name: _plain(name).removeprefix("" if folder == "." else f"{folder}/")
    in_folder = {name: inside(name) for name in pictures}
    others = {shown for name in left_out for shown in (_plain(name), inside(name))}
    for key in (_plain, _caseless, _stem, _base):
        if key is _caseless:
            rows = [(name, label) for name, label in rows if _plain(name) not in others]
        by_key: dict[str, tuple[str, Any]] = {}
        clash = None
        for name, label in rows:
            of = key(name)
            known = by_key.setdefault(of, (name, label))
            if known[1] != label and not (known[1] != known[1] and label != label):
                clash = clash or (name, known[1], label)
        if clash and key is _plain:
            raise DataError(
                f"--data: {where} has two labels for {clash[0]}: {_short(clash[1])} and {_short(clash[2])}. Keep one."
            )
        keys = {name: (key(name), key(inner)) for name, inner in in_folder.items()}
        unique = len({first for first, _ in keys.values()}) == len(keys)
        found = {name: by_key.get(a) or by_key.get(b) for name, (a, b) in keys.items()}
        if None not in found.values() and (key is _plain or (unique and not clash)):
            return {name: label for name, (_, label) in found.items()}  # type: ignore[misc]
        if key is _plain:
            missing = [name for name, label in found.items() if label is None]
    near = difflib.get_close_matches(missing[0], [name for name, _ in rows[:2000]], 1, 0.3)
    hint = f"; it names {near[0]}" if near else ""
    raise DataError(
        f"--data: {where} has no label for {missing[0]} ({len(missing)} of {len(pictures)} are missing{hint}). Add "
        "them, or take the pictures out."
    )


def _from_rows(found: Mapping[str, Any], where: str) -> GivenLabels:
    kinds = {name: _kind(label) for name, label in found.items()}
    usual = Counter(kind for kind in kinds.values() if kind[0] != "wrong").most_common(1)
    kind = usual[0][0] if usual else ("class number", 0)
    wrong = next((name for name in found if kinds[name] != kind), None)
    if wrong is not None:
        what = {"class number": "class numbers 0, 1, 2, ...", "name": "names of classes"}.get(
            kind[0], f"lists of {kind[1]} finite numbers"
        )
        others = "its other labels are" if usual else "expected"
        raise DataError(f"--data: {where} has {_short(found[wrong])} for {wrong}; {others} {what}. Correct it.")
    if kind[0] == "name":
        number = all(str(label).isdecimal() for label in found.values())
        order: Callable[[str], Any] = int if number else str
        classes = sorted(set(found.values()), key=order)
        numbers = {name: index for index, name in enumerate(classes)}
        return GivenLabels({name: numbers[label] for name, label in found.items()}, classes, where)
    if kind[0] == "class number":
        return GivenLabels({name: int(label) for name, label in found.items()}, source=where)
    return GivenLabels({name: [float(number) for number in label] for name, label in found.items()}, source=where)


def _kind(label: Any) -> tuple[str, int]:
    if isinstance(label, str):
        return "name", 0
    if _is_number(label):
        good = label == int(label) and 0 <= label < CLASSES
        return ("class number" if good else "wrong", 0)
    if isinstance(label, list) and label and all(map(_is_number, label)):
        return "numbers", len(label)
    return "wrong", 0


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number in the range of float32."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 3e38


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
