"""The pages in docs/reference/errors have every error that a user can see, and no removed one.

A new error fails here until a page has a row for it: the message as the user sees it, with words in CAPITALS (and N)
for variable parts, and `...` for omitted parts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stylegan_plugins import errors

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs/reference/errors").glob("*.md"))
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
CLASSES = {"ClickException", "UntrustedPickle", "ContractError", "fault"}  # fault() of run/method.py; all of errors.py
CLASSES |= {name for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, errors.UserError)}
Text = list[str]  # the fixed parts of a message or a row, in order

FILES = sorted(file for top in ("stylegan_plugins", "training_ext", "patches") for file in (ROOT / top).rglob("*.py"))
TREES = {str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}


def fixed(node: ast.expr) -> Text:
    """Return the fixed parts of an expression that makes a string; any other expression has none."""
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values for part in fixed(value)]
    if isinstance(node, ast.BinOp):
        return [*fixed(node.left), *fixed(node.right)]
    return [" ".join(node.value.split())] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def raised() -> Iterator[tuple[str, Text]]:
    """Yield the place of each error that a user sees, file:line, and its message."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Raise | ast.Call):
                continue
            call = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(call, ast.Call) or not call.args:
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in CLASSES if isinstance(node, ast.Raise) else name == "fail" and fixed(call.args[0]):
                yield f"{file}:{node.lineno}", fixed(call.args[0])


def pieces(row: str) -> Text:
    """Return the fixed parts of a row's text that have words."""
    return [part.strip() for part in re.split(r"\b[A-Z]{2,}\b|\bN\b|\.\.\.", row) if re.search(r"\w", part)]


def fits(row: Text, message: Text) -> bool:
    """Return whether all fixed parts of a row stand in a message, in order, and are half of it or more."""
    rest = "\0".join(message)
    for part in row:
        _, found, rest = rest.partition(part)
        if not found:
            return False
    return letters(row) >= max(letters(message) / 2, 1)


def letters(text: Text) -> int:
    return len(re.findall(r"\w", "".join(text)))


MESSAGES = dict(raised())
SILENT = {place for place, message in MESSAGES.items() if not letters(message)}
TABLES = re.findall(r"^\| error \| cure \|\n\| --- \| --- \|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
CELLS = [re.split(r"(?<!\\)\|", line)[1].replace(r"\|", "|") for table in TABLES for line in table.splitlines()]
ROWS = {row: pieces(row) for cell in CELLS for row in re.findall(r"`([^`]+)`", cell)}
STRINGS = ast.JoinedStr | ast.BinOp | ast.Constant
EVERY_STRING = [fixed(node) for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, STRINGS)]
EVERY_STRING += [[line] for line in (ROOT / "run.sh").read_text(encoding="utf-8").splitlines()]
EVERY_STRING = [list(text) for text in {tuple(text) for text in EVERY_STRING if letters(text)}]


@pytest.mark.parametrize("place", sorted(MESSAGES.keys() - SILENT))
def test_every_error_is_on_a_page(place: str) -> None:
    assert any(fits(row, MESSAGES[place]) for row in ROWS.values()), f"docs/reference/errors lacks {MESSAGES[place]}"


def test_errors_without_words_of_their_own_are_these() -> None:
    """click's words on an option, what git and pip say, and an error of train.py in a job."""
    files = sorted(place.partition(":")[0] for place in SILENT)
    assert files == [f"stylegan_plugins/{name}.py" for name in ("analysis/cluster", "host/fetch", "options")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[:60])
def test_every_row_is_an_error_that_exists(row: str) -> None:
    assert any(fits(ROWS[row], text) for text in EVERY_STRING), "no message of the code has these words in this order"


@pytest.mark.parametrize("made_up", [["--data: ", " has been painted blue."], [" lacks ", " of its charm"], ["moon"]])
def test_an_error_that_the_pages_lack_is_noticed(made_up: Text) -> None:
    assert not any(fits(row, made_up) for row in ROWS.values())


def test_a_row_of_words_that_no_message_has_is_noticed() -> None:
    assert not any(fits(pieces("FILE has been painted NAME."), text) for text in EVERY_STRING)
