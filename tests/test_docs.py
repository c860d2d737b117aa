"""Documentation that a program can check: hooks and options are all there, examples are tested code, links lead
somewhere."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stylegan_plugins import Average, Batch, Images, Pass, Step, View, hookspecs, manager
from stylegan_plugins import options as plugin_options
from training_ext.parts import PARTS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
)
PARTS_PAGE = (ROOT / "docs/reference/parts.md").read_text(encoding="utf-8")
HOOKS_PAGE = (ROOT / "docs/reference/hooks.md").read_text(encoding="utf-8")
SPECS = {**vars(hookspecs), **vars(hookspecs.MethodHooks)}
HOOKS = [name for name, value in SPECS.items() if hasattr(value, "stylegan_plugins_spec")]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_generated_pages_and_tables_are_made_from_the_code():
    """Hooks, parts, session, commands, options and the tables of rules on the pages equal the code's."""
    command = [sys.executable, ROOT / "docs/make_reference.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cls", [*PARTS.values(), View, Images, Pass, Step, Batch], ids=lambda cls: cls.__name__)
def test_every_field_of_the_contract_is_documented_and_no_other(cls):
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    fields = {"logits" if name == "judged" and cls is Pass else name for name in fields}
    fields |= {"name", "source", "module", "decay"} if cls is Average else set()
    section = PARTS_PAGE.partition(f"## {cls.__name__}\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == fields


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_text_and_its_place_in_the_order_of_calls(hook):
    assert len(SPECS[hook].__doc__) > 50
    assert f"`{hook}`" in HOOKS_PAGE.split("\n## ")[0]


@pytest.mark.parametrize("name", manager.builtin())
def test_every_plugin_has_a_page_that_mentions_every_option(name):
    page = ROOT / f"docs/methods/{name.replace('-', '_')}.md"
    assert page.is_file(), f"{page} is missing"
    text = page.read_text(encoding="utf-8")
    cls = manager.catalogue().options_class(name)
    for field in dataclasses.fields(cls) if cls else ():
        assert f"{plugin_options.flag(name, field.name)}`" in text.replace("=", "`"), field.name


@PAGE
def test_every_example_on_a_page_is_a_piece_of_a_tested_file(page):
    """Python and TOML on a page stand in the examples, in a plug-in, in the tests or in the notebook that they execute,
    to the letter."""
    files = [*ROOT.glob("examples/**/*"), *ROOT.glob("stylegan_plugins/plugins/*.py"), *ROOT.glob("tests/*.py")]
    sources = [file.read_text(encoding="utf-8") for file in files if file.suffix in (".py", ".toml")]
    notebook = json.loads((ROOT / "docs/reference/notebook.ipynb").read_text(encoding="utf-8"))
    sources += ["".join(cell["source"]) + "\n" for cell in notebook["cells"]]
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in ("python", "toml"):
            assert any(block in source for source in sources), f"in no tested file:\n{block}"


@PAGE
def test_every_link_to_a_file_or_a_heading_leads_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{target} does not exist"
        assert ROOT in linked.parents, f"{target} leaves the repository"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@PAGE
def test_no_page_names_a_folder_of_somebodys_machine(page):
    assert not re.search(r"(?<![\w.])/(home|work|tmp|Users|root)/", page.read_text(encoding="utf-8"))
