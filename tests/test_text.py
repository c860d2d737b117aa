"""Pages, help texts, messages, docstrings and comments are plain English: short pages, short sentences, no phrase of
docs/words.toml, and no misspelt word."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
WORDS = tomllib.loads((ROOT / "docs/words.toml").read_text(encoding="utf-8"))
BANNED = [(re.compile(entry["pattern"], re.IGNORECASE), entry["instead"]) for entry in WORDS["banned"]]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
NVIDIAS = ROOT / "stylegan_plugins/host/files"  # these files follow NVIDIA's text
FOLDERS = ("stylegan_plugins", "training_ext", "patches", "tests", "benchmarks", "docs", "examples")
FILES = [ROOT / "setup.py", *(file for top in FOLDERS for file in sorted((ROOT / top).rglob("*.py")))]
FILES = [file for file in FILES if not file.is_relative_to(NVIDIAS)]
MODULES = [file for file in FILES if file.relative_to(ROOT).parts[0] != "tests"]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
MODULE = pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
FILE = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
LONGEST_PAGE, LONGEST_SENTENCE = 250, 40


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(text: str) -> Iterator[str]:
    """Yield the paragraphs, list items and table cells of a page, without code, headings and addresses of links."""
    text = re.sub(r"^```.*?^```$|<!--.*?-->|^#+ [^\n]*$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(?:(?<=\n\n)|\A)(?:(?: {4}|\t).*\n|\n)+", "\n", text)  # indented code
    text = re.sub(r"`[^`]*`", "CODE", text)
    text = re.sub(r"\]\([^)\s]*\)", "]", text)
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=\|)", text):
        cells = re.split(r"(?<!\\)\|", paragraph) if paragraph.startswith("|") else [paragraph]
        yield from (" ".join(cell.split()) for cell in cells if re.search(r"\w", cell))


def sentences(paragraph: str) -> list[str]:
    return re.split(r"(?<=[.!?])[\"')*\]]*\s+", paragraph)


def too_long(paragraph: str) -> list[str]:
    """Return the sentences of a paragraph that have too many words."""
    count = lambda sentence: len([word for word in sentence.split() if re.search(r"\w", word)])
    return [sentence for sentence in sentences(paragraph) if count(sentence) > LONGEST_SENTENCE]


def banned(text: str) -> list[str]:
    """Return what is wrong with the words of a text."""
    found = ((match, instead) for pattern, instead in BANNED for match in pattern.finditer(text))
    return [
        f"{match[0].strip()!r} ({instead}): ...{text[max(match.start() - 40, 0) : match.end() + 40]}..."
        for match, instead in found
    ]


def strings(module: Path) -> Iterator[str]:
    """Yield the help texts and messages of a module: strings of two words and more, and docstrings of commands."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    others = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED) and not _is_command(node)]
    docstrings = {id(node.body[0].value) for node in others if ast.get_docstring(node) is not None}
    pieces = {id(piece) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for piece in node.values}
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(piece.value) if isinstance(piece, ast.Constant) else "X" for piece in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | pieces:
            text = node.value
        if " " in text.strip():
            yield _in_one_line(text)


def docstrings(source: str) -> Iterator[str]:
    """Yield the docstrings of a Python file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield _in_one_line(text)


def comments(source: str) -> Iterator[str]:
    """Yield the comments of a Python file. A comment that continues in the next lines is one text."""
    lines: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            if lines and (row > last + 1 or token.line[:column].strip()):
                yield _in_one_line("\n".join(lines))
                lines = []
            lines.append(token.string.lstrip("#"))
            last = row
    if lines:
        yield _in_one_line("\n".join(lines))


def _in_one_line(text: str) -> str:
    return re.sub(r"`[^`]*`", "CODE", " ".join(text.split()))


def _is_command(node: Any) -> bool:
    return any("command" in ast.unparse(decorator) for decorator in getattr(node, "decorator_list", ()))


@PAGE
def test_no_page_is_too_long(page: Path) -> None:
    lines = len(page.read_text(encoding="utf-8").splitlines())
    assert page.name == "CHANGELOG.md" or lines <= LONGEST_PAGE


@PAGE
def test_no_sentence_of_a_page_is_too_long(page: Path) -> None:
    assert not [sentence for paragraph in prose(text_of(page)) for sentence in too_long(paragraph)]


@PAGE
def test_no_page_has_a_banned_word(page: Path) -> None:
    assert not [fault for paragraph in prose(text_of(page)) for fault in banned(paragraph)]


@MODULE
def test_no_help_text_or_message_has_a_banned_word(module: Path) -> None:
    assert not [fault for text in strings(module) for fault in banned(text)]


@FILE
def test_no_docstring_or_comment_has_a_banned_word(file: Path) -> None:
    source = text_of(file)
    assert not [fault for text in (*docstrings(source), *comments(source)) for fault in banned(text)]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_every_tracked_python_file_is_checked() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {ROOT / name for name in listed.splitlines()}
    assert not [file for file in tracked - {*FILES} if file.is_file() and not file.is_relative_to(NVIDIAS)]


def codespell(*files: Path, text: str | None = None) -> Any:
    ignored = ",".join(WORDS["spelling"]["ignore"])
    command = [sys.executable, "-m", "codespell_lib", f"--ignore-words-list={ignored}", *map(str, files)]
    return subprocess.run([*command, *(["-"] if text else [])], input=text, capture_output=True, text=True)


def test_every_word_is_spelt_as_in_a_dictionary() -> None:
    pytest.importorskip("codespell_lib", reason="pip install -e '.[docs]'")
    done = codespell(*PAGES, *MODULES)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "text", ["A state cannot be had.", "A pickle is no text.", "It goes on exactly.", "Done. What is kept is small."]
)
def test_a_banned_word_is_noticed(text: str) -> None:
    assert banned(text) and not banned("A snapshot is not a training state. There is no GPU.")


@pytest.mark.parametrize(
    "source",
    [
        '"""What is kept."""',
        'class A:\n    """A state.\n\n    It cannot be\n    had."""',
        'async def f():\n    """Return the state. It goes on\n    exactly."""',
        "# A pickle is\n# no text.\nx = 1",
        "x = 1  # a state\ny = 2  # what is kept",
        "def f():\n    x = 1  # it goes on\n    # exactly\n    return x",
    ],
)
def test_a_banned_word_of_a_docstring_or_comment_is_noticed(source: str) -> None:
    assert [fault for text in (*docstrings(source), *comments(source)) for fault in banned(text)]


def test_code_strings_and_separate_comments_are_not_noticed() -> None:
    source = 'x = "It cannot be had."  # a pickle is\n\n# no text\ny = 1  # not `what is kept`\n'
    assert [*comments(source)] == ["a pickle is", "no text", "not CODE"] and not [*docstrings(source)]
    assert not [fault for text in comments(source) for fault in banned(text)]


def test_a_long_sentence_is_noticed_and_code_tables_and_lists_are_not_one() -> None:
    words = " ".join(["word"] * 41)
    assert too_long(f"Short. {words}.") == [f"{words}."]
    code = f"# {words}\n\n    {words}\n\n```\n{words}\n```\n\n"
    page = f"{code}- {words[:100]}\n- {words[:100]}\n\n| {words[:50]} | {words} |\n"
    assert [text for paragraph in prose(page) for text in too_long(paragraph)] == [words]


def test_a_misspelt_word_is_noticed() -> None:
    pytest.importorskip("codespell_lib", reason="pip install -e '.[docs]'")
    assert codespell(text="The seperate file.").returncode != 0
