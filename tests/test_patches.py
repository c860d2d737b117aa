"""Patching: differences that a host may have, the result, and the files that a failure leaves.

Every host here is a copy. Hosts assembled from the package index stand for both families; where STYLEGAN_HOST and
STYLEGAN3_HOST name NVIDIA's own checkouts, those are patched and restored, too."""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from stylegan_plugins.patches import FAMILIES, edits_for, optional_files
from support.hosts import CHECKOUTS, copy_host

from stylegan_plugins.errors import HostError, PatchError
from stylegan_plugins.host import manifest, patcher
from stylegan_plugins.host import patch as host_patch
from stylegan_plugins.host.patcher import (
    BOM,
    Assignment,
    Call,
    Command,
    Deletion,
    Edit,
    Imports,
    Increment,
    apply_edits,
)

ADA, STYLEGAN3 = FAMILIES
LOOP = "training/training_loop.py"


@pytest.fixture(autouse=True)
def each_file_is_edited_once(monkeypatch):
    """Editing the files of a host takes seconds, and most tests patch the same ones: the same bytes are edited once."""
    monkeypatch.setattr(patcher, "apply_edits", lambda data, edits, file: _edited(data, tuple(edits), file))


@functools.lru_cache
def _edited(data: bytes, edits: tuple[Edit, ...], file: str) -> bytes:
    return apply_edits(data, list(edits), file)


@pytest.fixture
def plans(fetched):
    """The edits that patching makes in the unchanged hosts, by family."""
    return {family: host_patch.plan(directory) for family, directory in fetched.items()}


def tree(directory: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return everything in a folder: mode and content by path."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in directory.rglob("*")
    }


def rewrite(host: Path, family: str, change) -> None:
    """Apply a change of bytes to every file of a host that has edits."""
    for file in edits_for(family):
        path = host / file
        path.write_bytes(change(path.read_bytes()))


# --- Patch and unpatch. --------------------------------------------------------------------------------------------


@pytest.mark.host
def test_unpatch_restores_every_file_byte_for_byte(host):
    before = tree(host)
    host_patch.patch(host)
    assert tree(host) != before
    host_patch.unpatch(host)
    assert tree(host) == before


@pytest.mark.host
@pytest.mark.parametrize("pristine", CHECKOUTS, indirect=True)
def test_unpatch_restores_nvidias_own_checkout_byte_for_byte(pristine, tmp_path):
    host = copy_host(pristine, tmp_path / "host")
    before = tree(host)
    done = host_patch.patch(host)
    assert not done.left
    host_patch.unpatch(host)
    assert tree(host) == before


@pytest.mark.host
def test_patching_twice_changes_nothing(host):
    host_patch.patch(host)
    before = tree(host)
    assert host_patch.patch(host) is None
    assert tree(host) == before


@pytest.mark.host
def test_every_script_and_metric_of_an_assembled_host_that_exists_is_patched(plans, fetched, family):
    existing = {file for file in edits_for(family) if (fetched[family] / file).is_file()}
    assert set(plans[family].patched) == existing
    assert plans[family].left == {}


@pytest.mark.host
def test_a_host_that_another_version_patched_is_said_when_it_trains(host, monkeypatch):
    host_patch.check_edits(host)  # not patched: the host's own business
    host_patch.patch(host)
    host_patch.check_edits(host)
    ours = host_patch.edits_for
    other = lambda family: {name: edits[:-1] for name, edits in ours(family).items()}
    with monkeypatch.context() as patched:
        patched.setattr(host_patch, "edits_for", other)
        with pytest.raises(HostError, match="patched by another version of stylegan-plugins. Run: stylegan-plugins"):
            host_patch.check_edits(host)
        host_patch.patch(host)
        host_patch.check_edits(host)
    done = subprocess.run(
        [sys.executable, "train.py", "--outdir=x", "--data=x"], cwd=host, capture_output=True, text=True
    )
    assert done.returncode == 2 and "was patched by another version" in done.stderr and "Traceback" not in done.stderr
    (host / manifest.FOLDER / manifest.EDITS).unlink()  # as versions before this check left it
    with pytest.raises(HostError, match="another version"):
        host_patch.check_edits(host)
    host_patch.patch(host)
    host_patch.check_edits(host)


@pytest.mark.host
def test_unpatching_a_host_that_is_not_patched_changes_nothing(host):
    before = tree(host)
    assert host_patch.unpatch(host) == []
    assert tree(host) == before


@pytest.mark.unit
def test_a_folder_that_is_no_host_is_refused(tmp_path):
    for action in (host_patch.patch, host_patch.unpatch):
        with pytest.raises(HostError, match="not a StyleGAN2-ADA or StyleGAN3 checkout: it lacks train.py"):
            action(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.host
def test_file_modes_are_kept_by_patch_and_unpatch(host):
    (host / "train.py").chmod(0o755)
    (host / LOOP).chmod(0o640)
    host_patch.patch(host)
    assert stat.S_IMODE((host / "train.py").stat().st_mode) == 0o755
    assert stat.S_IMODE((host / LOOP).stat().st_mode) == 0o640
    host_patch.unpatch(host)
    assert stat.S_IMODE((host / "train.py").stat().st_mode) == 0o755
    assert stat.S_IMODE((host / LOOP).stat().st_mode) == 0o640


@pytest.mark.host
def test_a_host_behind_a_symbolic_link_is_patched_and_restored(host, tmp_path):
    before = tree(host)
    link = tmp_path / "link"
    link.symlink_to(host, target_is_directory=True)
    host_patch.patch(link)
    assert manifest.is_patched(host)
    host_patch.unpatch(link)
    assert tree(host) == before


# --- Hosts that look different. ------------------------------------------------------------------------------------


def meaning(data: bytes) -> str:
    """Return the syntax tree without docstrings, whose blanks formatters change."""
    module = ast.parse(data)
    for node in ast.walk(module):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value.value = ""
    return ast.dump(module)


def formatted(data: bytes) -> bytes:
    """Return the source formatted by ruff with short lines, so that nearly every call is broken."""
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--no-cache", "--line-length=50", "-"]
    text = data.removeprefix(BOM).replace(b"\r\n", b"\n")
    return subprocess.run(command, input=text, capture_output=True, check=True).stdout


LOOKS = {
    "CRLF": lambda data: data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    "LF": lambda data: data.replace(b"\r\n", b"\n"),
    "byte-order mark": lambda data: BOM + data.removeprefix(BOM),
    "CRLF and byte-order mark": lambda data: BOM + LOOKS["CRLF"](data.removeprefix(BOM)),
    "tabs": lambda data: data.replace(b"    ", b"\t"),
    "no newline at the end": lambda data: data.rstrip(),
    "ruff": formatted,
    "ast.unparse": lambda data: ast.unparse(ast.parse(data)).encode(),
}


@pytest.mark.host
@pytest.mark.parametrize("look", LOOKS)
def test_a_host_that_looks_different_is_patched_to_the_same_meaning(fetched, plans, family, look):
    # Two files hold every kind of edit; a whole host in every look would take minutes.
    for file in ("train.py", LOOP):
        data = LOOKS[look]((fetched[family] / file).read_bytes())
        patched = apply_edits(data, edits_for(family)[file], file)
        compile(patched, file, "exec")
        assert meaning(patched) == meaning(plans[family].patched[file]), file


@pytest.mark.host
@pytest.mark.parametrize("family", [STYLEGAN3])
def test_scripts_that_ruff_reformatted_are_patched_to_the_same_meaning(fetched, plans, family):
    for file in plans[family].patched:
        if file in optional_files(family):
            patched = apply_edits(formatted((fetched[family] / file).read_bytes()), edits_for(family)[file], file)
            assert meaning(patched) == meaning(plans[family].patched[file]), file


@pytest.mark.host
def test_line_ends_and_byte_order_mark_are_kept(fetched, family):
    for file in ("train.py", LOOP):
        data = LOOKS["CRLF and byte-order mark"]((fetched[family] / file).read_bytes())
        patched = apply_edits(data, edits_for(family)[file], file)
        assert patched.startswith(BOM) and patched.count(BOM) == 1
        assert patched.count(b"\n") == patched.count(b"\r\n")
        plain = apply_edits(LOOKS["LF"](data.removeprefix(BOM)), edits_for(family)[file], file)
        assert patched == LOOKS["CRLF and byte-order mark"](plain)


@pytest.mark.host
def test_a_host_with_crlf_and_byte_order_marks_is_restored_byte_for_byte(host, family):
    rewrite(host, family, LOOKS["CRLF and byte-order mark"])
    before = tree(host)
    host_patch.patch(host)
    host_patch.unpatch(host)
    assert tree(host) == before


@pytest.mark.host
def test_local_edits_of_a_host_are_kept(host, plans, family):
    note = "# Größe geändert by me\n"
    for file in ("train.py", LOOP):
        text = (host / file).read_text(encoding="utf-8-sig")
        text = note + text.replace("    # Initialize.\n", "    # Initialize.\n    seen_by_me = 0\n")
        (host / file).write_text(text, encoding="utf-8")
    done = host_patch.patch(host)
    ours = done.patched[LOOP].decode()
    assert ours.startswith(note) and "    seen_by_me = 0\n" in ours
    assert ours.replace(note, "").replace("    seen_by_me = 0\n", "") == plans[family].patched[LOOP].decode("utf-8-sig")


# --- Hosts that cannot be patched. ---------------------------------------------------------------------------------

ANCHORS = [
    ("train.py", "@click.command()", "@click.group()", "a click command"),
    ("train.py", "training_loop.training_loop(", "training_loop.mine(", "the call training_loop.training_loop(...)"),
    (LOOP, "stats_collector = ", "my_collector = ", "an assignment to stats_collector of training_loop()"),
    (LOOP, "phase.opt.step()", "my_step(phase)", "the call phase.opt.step(...) of training_loop()"),
    (LOOP, "batch_idx += 1", "batch_idx = batch_idx + 1", "batch_idx += ... of training_loop()"),
    (LOOP, "del snapshot_data", "snapshot_data = None", "del snapshot_data of training_loop()"),
    (LOOP, "def training_loop(", "def my_loop(", "the call torch.device(...cuda...) of training_loop()"),
]


@pytest.mark.host
@pytest.mark.parametrize(("file", "old", "new", "anchor"), ANCHORS)
def test_a_training_file_without_an_anchor_is_named_and_nothing_is_written(host, file, old, new, anchor):
    data = (host / file).read_bytes()
    assert old.encode() in data
    (host / file).write_bytes(data.replace(old.encode(), new.encode()))
    before = tree(host)
    with pytest.raises(PatchError) as caught:
        host_patch.patch(host)
    assert str(caught.value).startswith(f"{file} lacks ") and anchor in str(caught.value)
    assert "nothing was written" in str(caught.value) and "\n" not in str(caught.value)
    assert tree(host) == before


@pytest.mark.host
def test_a_training_file_that_is_no_python_is_named_and_nothing_is_written(host):
    (host / LOOP).write_bytes(b"def training_loop(:\n")
    before = tree(host)
    with pytest.raises(PatchError, match=f"{LOOP} is not Python that can be read .*nothing was written"):
        host_patch.patch(host)
    assert tree(host) == before


@pytest.mark.host
def test_a_script_without_an_anchor_is_left_as_it_is_and_named(host, family):
    script = "projector.py" if family == ADA else "gen_images.py"
    (host / script).write_text("print('mine')\n")
    done = host_patch.patch(host)
    assert (host / script).read_text() == "print('mine')\n"
    assert list(done.left) == [script]
    assert done.left[script].startswith(f"{script} lacks ") and "a click command" in done.left[script]
    assert "train.py" in done.patched and host_patch.state(host, script) == "not patched"


@pytest.mark.host
def test_a_script_that_loads_and_writes_in_its_own_way_gets_the_other_edits(fetched, family):
    script = "style_mixing.py" if family == ADA else "gen_images.py"
    data = (fetched[family] / script).read_bytes()
    other = data.replace(b"legacy.load_network_pkl", b"mine.load").replace(b"PIL.Image.fromarray", b"mine.write")
    patched = apply_edits(other, edits_for(family)[script], script)
    assert b"bridge.device_option" in patched and b"bridge.device()" in patched
    assert b"load_networks" not in patched and b"bridge.picture" not in patched


@pytest.mark.host
def test_a_host_without_scripts_is_patched(host, family):
    for file in optional_files(family):
        (host / file).unlink(missing_ok=True)
    assert set(host_patch.patch(host).patched) == {"train.py", LOOP}


@pytest.mark.host
def test_a_patched_file_whose_originals_were_removed_is_not_patched_again(host):
    host_patch.patch(host)
    for path in sorted((host / manifest.FOLDER).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (host / manifest.FOLDER).rmdir()
    before = tree(host)
    with pytest.raises(PatchError, match="train.py has been patched, but what restores it was removed"):
        host_patch.patch(host)
    assert tree(host) == before


@pytest.mark.host
def test_a_file_that_changed_after_patching_is_named_and_nothing_is_restored(host):
    host_patch.patch(host)
    with (host / LOOP).open("ab") as file:
        file.write(b"# mine\n")
    before = tree(host)
    for action in (host_patch.unpatch, host_patch.patch):
        with pytest.raises(PatchError, match=f"^{LOOP} in .* changed after patching"):
            action(host)
    assert tree(host) == before
    assert host_patch.state(host, LOOP) == "changed after patching"
    assert host_patch.state(host, "train.py") == "patched"


@pytest.mark.host
def test_a_file_that_was_restored_by_other_means_does_not_stop_unpatch(host):
    before = tree(host)
    host_patch.patch(host)
    (host / LOOP).write_bytes(before[LOOP][1])  # as `git checkout` does
    host_patch.unpatch(host)
    assert tree(host) == before


@pytest.mark.host
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "patched.json").write_text("{"), "patched.json cannot be read"),
        (lambda folder: (folder / "originals/train.py").unlink(), "lacks train.py: nothing was restored"),
    ],
)
def test_damaged_records_are_one_line_and_nothing_is_restored(host, damage, message):
    host_patch.patch(host)
    damage(host / manifest.FOLDER)
    before = tree(host)
    with pytest.raises(PatchError, match=message):
        host_patch.unpatch(host)
    assert tree(host) == before


# --- Crashes. ------------------------------------------------------------------------------------------------------


class Interrupt:
    """os.replace that ends with an error at its k-th call, and works before and after."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.error, self.calls, self.replace = at, error, 0, os.replace

    def __call__(self, *args):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return self.replace(*args)


@pytest.mark.host
@pytest.mark.parametrize(
    ("error", "seen"), [(OSError("disk full"), PatchError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_an_error_at_any_step_of_writing_leaves_the_host_as_it_was(host, plans, family, monkeypatch, error, seen):
    before = tree(host)
    steps = len(plans[family].patched) + 1  # each file, and the folder of originals
    for at in range(1, steps + 1):
        interrupt = Interrupt(at, error)
        monkeypatch.setattr(os, "replace", interrupt)
        with pytest.raises(seen):
            manifest.write(host, plans[family].patched, "0" * 64)
        assert interrupt.calls >= at
        assert tree(host) == before, f"after an error at step {at} of {steps}"
    monkeypatch.setattr(os, "replace", Interrupt(steps + 1, error))
    manifest.write(host, plans[family].patched, "0" * 64)


@pytest.mark.host
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("family", [ADA])
def test_a_process_killed_at_any_step_leaves_a_host_that_unpatch_restores(host, plans, family, monkeypatch):
    before = tree(host)
    for at in range(2, len(plans[family].patched) + 3):
        child = os.fork()
        if not child:
            monkeypatch.setattr(os, "replace", lambda *args, at=at: _exit_at(at, *args))
            manifest.write(host, plans[family].patched, "0" * 64)
            os._exit(1)
        os.waitpid(child, 0)
        _calls.clear()
        if at <= len(plans[family].patched) + 1:
            with pytest.raises(PatchError, match="if patching was interrupted, run: stylegan-plugins unpatch"):
                host_patch.patch(host)
        host_patch.unpatch(host)
        assert tree(host) == before, f"after a kill at step {at}"


_calls: list[int] = []
_replace = os.replace


def _exit_at(at: int, *args) -> None:
    _calls.append(1)
    if len(_calls) == at:
        os._exit(0)
    _replace(*args)


@pytest.mark.host
def test_a_host_that_cannot_be_written_is_one_line(host, monkeypatch):
    before = tree(host)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(host))

    # Root may write into any folder, so the refusal is simulated.
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(PatchError, match=f"^{host} cannot be written: .*Permission denied") as caught:
        host_patch.patch(host)
    assert "\n" not in str(caught.value)
    assert tree(host) == before


@pytest.mark.host
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_host_is_refused_and_left_as_it_was(host):
    before = tree(host)
    host.chmod(0o555)
    try:
        with pytest.raises(PatchError, match="cannot be written"):
            host_patch.patch(host)
    finally:
        host.chmod(0o755)
    assert tree(host) == before


# --- The edits themselves. -----------------------------------------------------------------------------------------


def changed_lines(before: bytes, after: bytes) -> int:
    """Return lines that were inserted or changed, as a diff counts them."""
    texts = [data.decode("utf-8-sig").splitlines() for data in (before, after)]
    return sum(line.startswith("+ ") for line in difflib.ndiff(*texts))


@pytest.mark.host
def test_at_most_40_lines_of_the_training_files_and_6_of_each_script_change(fetched, plans, family):
    counts = {
        file: changed_lines((fetched[family] / file).read_bytes(), data) for file, data in plans[family].patched.items()
    }
    training = {file: count for file, count in counts.items() if file not in optional_files(family)}
    assert set(training) == {"train.py", LOOP}
    assert sum(training.values()) <= 40
    assert {file: count for file, count in counts.items() if file not in training and count > 6} == {}


@pytest.mark.host
def test_nothing_but_the_edited_lines_changes(fetched, plans, family):
    for file, data in plans[family].patched.items():
        before, after = ((d.decode("utf-8-sig").splitlines()) for d in ((fetched[family] / file).read_bytes(), data))
        for line in difflib.ndiff(before, after):
            assert not line.startswith("+ ") or "bridge" in line or "device=device" in line, f"{file}: {line}"


@pytest.mark.host
def test_every_edit_says_why_and_has_one_anchor(family):
    for file, edits in edits_for(family).items():
        for edit in edits:
            actions = [edit.before, edit.after, edit.replace, edit.argument, edit.decorate]
            assert len([action for action in actions if action is not None]) == 1, f"{file}: {edit}"
            assert len(edit.reason) > 10, f"{file}: {edit}"
            assert edit.file == file


@pytest.mark.host
def test_every_call_of_the_bridge_in_an_edit_exists(family):
    from stylegan_plugins import bridge

    for edits in edits_for(family).values():
        for edit in edits:
            for name in (part.split("(")[0].split(".")[0].strip() for part in edit.code.split("bridge.")[1:]):
                assert hasattr(bridge, name.rstrip(")")), edit.code


@pytest.mark.host
def test_patched_files_import_nothing_of_ours_but_the_bridge(plans, family):
    for file, data in plans[family].patched.items():
        imports = [node for node in ast.walk(ast.parse(data)) if isinstance(node, ast.ImportFrom)]
        ours = [node for node in imports if node.module == "stylegan_plugins"]
        assert [alias.name for node in ours for alias in node.names] == ["bridge"], file


# --- The engine, on generated files. -------------------------------------------------------------------------------

SOURCE = """\
'''A small host.'''
from __future__ import annotations
import os
import click
def helper(rank):
    return torch.device('cuda', rank)
def training_loop(rank=0, *, size=[1, 2], **rest):
    device = torch.device('cuda', rank)
    other = torch.device('cpu')
    values = {'a': torch.zeros([1]).pin_memory().to(device), 'b': (x.pin_memory())}
    stats_collector = make(values, "größer")
    while True:
        for phase in phases:
            if phase.start is not None: pass
            phase.opt.step()
        batch_idx += 1
        snapshot_data = None
        del snapshot_data
@click.command()
@click.option('--size', default="1,2")
def main(**kwargs):
    run(1, device=None, **kwargs)
    return launch_training(kwargs)
"""
EDITS = [
    Edit("x.py", "from ours import bridge", "r", before=Imports()),
    Edit("x.py", "bridge.device({arguments})", "r", "training_loop", replace=Call("torch.device", containing="'cuda'")),
    Edit("x.py", "bridge.pin({receiver})", "r", replace=Call(".pin_memory"), every=True),
    Edit("x.py", "attach(stats=1)", "r", "training_loop", before=Assignment("stats_collector")),
    Edit("x.py", "step_end(phase)", "r", after=Call("phase.opt.step")),
    Edit("x.py", "batch_end(batch_idx)", "r", after=Increment("batch_idx")),
    Edit("x.py", "snapshot(1)", "r", before=Deletion("snapshot_data")),
    Edit("x.py", "bridge.options", "r", decorate=Command("main")),
    Edit("x.py", "device=bridge.device()", "r", "main", argument=Call("run")),
    Edit("x.py", "kwargs = change(kwargs)", "r", "main", before=Call("launch_training")),
]


def reflow(draw, source: str) -> str:
    """Return the same program with blanks, comments, empty lines and, within brackets, line breaks where allowed."""
    comments = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=8).map(lambda t: f"#{t}\n")
    blanks = st.sampled_from(["", "", " ", "   "])
    breaks = st.one_of(blanks, st.just("\n"), comments.map(lambda comment: "  " + comment))
    indentation = draw(st.sampled_from(["  ", "    ", "\t"]))
    result, depth, level, start, previous = [], 0, 0, True, None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.INDENT:
            level += 1
        elif token.type == tokenize.DEDENT:
            level -= 1
        elif token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
            result.append(draw(st.one_of(st.just("\n"), comments)) if token.type == tokenize.NEWLINE else "")
            start, previous = True, None
        elif token.type != tokenize.NL:
            if start:
                result.append(draw(st.one_of(st.just(""), comments, st.just("\n"))) + indentation * level)
            else:
                words = all(t.type in (tokenize.NAME, tokenize.NUMBER, tokenize.STRING) for t in (previous, token))
                result.append((" " if words else "") + draw(breaks if depth else blanks))
            depth += (token.string in "([{") - (token.string in ")]}")
            result.append(token.string)
            start, previous = False, token
    return "".join(result)


@st.composite
def looks(draw) -> bytes:
    text = reflow(draw, SOURCE)
    if draw(st.booleans()):
        text = text.rstrip("\n")
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    return draw(st.sampled_from([b"", BOM])) + text.replace("\n", newline).encode()


@pytest.mark.unit
def test_the_edits_of_the_small_host_do_what_they_say():
    assert apply_edits(SOURCE.encode(), EDITS, "x.py").decode().splitlines() == [
        "'''A small host.'''",
        "from __future__ import annotations",
        "from ours import bridge",
        "import os",
        "import click",
        "def helper(rank):",
        "    return torch.device('cuda', rank)",
        "def training_loop(rank=0, *, size=[1, 2], **rest):",
        "    device = bridge.device('cuda', rank)",
        "    other = torch.device('cpu')",
        "    values = {'a': bridge.pin(torch.zeros([1])).to(device), 'b': (bridge.pin(x))}",
        "    attach(stats=1)",
        '    stats_collector = make(values, "größer")',
        "    while True:",
        "        for phase in phases:",
        "            if phase.start is not None: pass",
        "            phase.opt.step()",
        "            step_end(phase)",
        "        batch_idx += 1",
        "        batch_end(batch_idx)",
        "        snapshot_data = None",
        "        snapshot(1)",
        "        del snapshot_data",
        "@bridge.options",
        "@click.command()",
        """@click.option('--size', default="1,2")""",
        "def main(**kwargs):",
        "    run(1, device=bridge.device(), **kwargs)",
        "    kwargs = change(kwargs)",
        "    return launch_training(kwargs)",
    ]


@pytest.mark.unit
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(looks())
def test_blanks_comments_and_line_breaks_never_change_what_an_edit_means(data):
    plain = apply_edits(SOURCE.encode(), EDITS, "x.py")
    assert ast.dump(ast.parse(data)) == ast.dump(ast.parse(SOURCE))
    patched = apply_edits(data, EDITS, "x.py")
    assert ast.dump(ast.parse(patched)) == ast.dump(ast.parse(plain))
    assert patched.startswith(BOM) == data.startswith(BOM)
    if b"\r\n" in data:
        assert patched.count(b"\n") == patched.count(b"\r\n")
    comments = [[t.string for t in _tokens(d) if t.type == tokenize.COMMENT] for d in (data, patched)]
    kept = [comment for comment in comments[0] if comment in comments[1]]
    assert len(kept) >= len(comments[0]) - _comments_inside_replaced_calls(data)


def _tokens(data: bytes) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(data.decode("utf-8-sig"), newline=None).readline))


def _comments_inside_replaced_calls(data: bytes) -> int:
    """A comment between the brackets of a replaced call may be lost."""
    depth = count = 0
    for token in _tokens(data):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
        count += token.type == tokenize.COMMENT and depth > 0
    return count


@pytest.mark.unit
@settings(max_examples=100, deadline=None)
@example(b"# -*- coding: no-such-thing -*-\n")
@example(b"# -*- coding: latin-1 -*-\nname = '\xe4'\n")
@example(b"\x00")
@example(b"\xff\xfe")
@example(BOM)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))))
def test_whatever_a_file_holds_it_is_patched_or_refused_by_name(data):
    try:
        patched = apply_edits(data, [Edit("x.py", "a()", "r", before=Imports(), optional=True)], "x.py")
    except PatchError as error:
        assert str(error).startswith("x.py ")
    else:
        assert patched == data  # there is no import in it


@pytest.mark.host
def test_the_list_of_patched_files_holds_their_checksums(host):
    done = host_patch.patch(host)
    listed = json.loads((host / manifest.FOLDER / manifest.LIST).read_text())
    assert listed == {file: hashlib.sha256((host / file).read_bytes()).hexdigest() for file in done.patched}


@pytest.mark.host
def test_a_host_that_another_version_patched_is_patched_anew(fetched, tmp_path, monkeypatch):
    host = copy_host(fetched[FAMILIES[0]], tmp_path / "host")
    edits = host_patch.edits_for(FAMILIES[0])
    older = {file: [edit for edit in of_file if "batch_end" not in edit.code] for file, of_file in edits.items()}
    with monkeypatch.context() as patch:
        patch.setattr(host_patch, "edits_for", lambda family: older)
        host_patch.patch(host)
    assert b"batch_end" not in (host / LOOP).read_bytes()
    assert host_patch.patch(host) is not None
    assert (host / LOOP).read_bytes().count(b"batch_end") == 1
    assert host_patch.patch(host) is None
    host_patch.unpatch(host)
    assert (host / LOOP).read_bytes() == (fetched[FAMILIES[0]] / LOOP).read_bytes()
