"""Text that an encoding lacks: names of folders, of classes and of plug-ins, half characters among them, are written as
escapes by commands, by train.py and by the hosts' scripts. None ends a program."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA
from support.runs import TINY
from support.scripts import environment, run_script

from stylegan_plugins.errors import DataError, OptionError, escape_unencodable, fail
from stylegan_plugins.files import run_folders

ODD = "d\xe4t\xe4 \u2603 \u65e5\u672c"
BYTES = os.fsdecode(b"b\xff")  # a half character, where paths are UTF-8
ENCODINGS = ("ascii", "cp1252", "utf-8")
COMMANDS = """
import json, sys
from stylegan_plugins.cli import main
for arguments in json.load(sys.stdin):
    sys.argv = ["stylegan-plugins", *arguments]
    try:
        main()
    except SystemExit as end:
        print(f"\\n=== {end.code or 0}", flush=True)
"""
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)  # with half characters


@pytest.mark.unit
@settings(max_examples=100, deadline=None)
@given(ANY_TEXT, st.sampled_from(["ascii", "cp1252", "cp437", "shift_jis", "utf-8"]))
def test_any_text_can_be_printed_in_any_encoding(text, encoding):
    with pytest.MonkeyPatch.context() as patch:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        escape_unencodable()
        print(text)
        with pytest.raises(SystemExit):
            fail(OptionError(text))
        assert out.buffer.getvalue() and err.buffer.getvalue().startswith(b"Error: ")


@pytest.mark.unit
def test_what_the_user_chose_for_unencodable_text_stays(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    escape_unencodable()
    print("\u2603")
    assert stream.buffer.getvalue() == b"?\n"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    escape_unencodable()  # a stream without an encoding is left alone


def results(encoding: str, folder: Path, commands: list[list[str]]) -> list[tuple[int, str]]:
    """Exit code and output of each command of `stylegan-plugins` in a folder, on a terminal of this encoding."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        **dict(input=json.dumps(commands).encode(), env=environment(PYTHONIOENCODING=encoding), timeout=60),
        **dict(cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT),
    )
    output = done.stdout.decode("utf-8", "replace")
    assert "Traceback" not in output, output
    *outputs, end = re.split(r"\n=== (\d)\n", output)
    assert (done.returncode, end) == (0, "")
    return [(int(code), text) for text, code in zip(outputs[::2], outputs[1::2], strict=True)]


@pytest.mark.host
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_commands_take_names_of_any_characters_on_terminals_of_any_encoding(encoding, tmp_path):
    for name in (ODD, BYTES):
        folder = tmp_path / name
        folder.mkdir()
        source = f"{json.dumps(ODD, ensure_ascii=False)}\nPAPER = 'by \\u017belechowski \\udcff'\n"
        (folder / "mine.py").write_text(source, encoding="utf-8")
        lines = (["info", str(folder / "mine.py")], ["new", f"p{name}"], ["patch", str(folder / name)])
        if name == BYTES:  # it imports torch
            lines = (*lines, ["report", str(folder / "none")])
        (code, info), *others = results(encoding, folder, list(lines))
        assert code == 0 and "mine: d" in info and "\\udcff" in info
        assert {code for code, _ in others} == {2}
    assert "is not a folder" in others[-1][1]


@pytest.mark.unit
def test_a_run_is_not_written_where_tensorboard_cannot(tmp_path):
    run_folders.check_name(tmp_path / ODD, "--outdir")
    with pytest.raises(DataError, match="--outdir: .* is not text in the encoding of this system"):
        run_folders.check_name(tmp_path / BYTES, "--outdir")


@pytest.mark.run
def test_train_and_scripts_print_names_that_the_terminal_lacks(patched, color_zip, tmp_path):
    data = tmp_path / f"{BYTES}.zip"
    data.write_bytes(color_zip.read_bytes())
    flags = [f"--data={data}", f"--outdir={tmp_path / ODD}", "--dry-run", "--device=cpu", *TINY[ADA]]
    done = run_script(patched[ADA], "train.py", *flags, fresh=True, PYTHONIOENCODING="ascii:strict")
    assert "\\u2603" in done.stdout and "00000-b_-" in done.stdout
    done = run_script(patched[ADA], "train.py", f"--data={color_zip}", f"--outdir={data.parent / BYTES}", check=False)
    assert done.returncode == 2 and "is not text in the encoding of this system" in done.stderr


LOG = """
import sys
from stylegan_plugins import bridge
import dnnlib
with dnnlib.util.Logger(file_name="log.txt", file_mode="a"):
    print("\\u2603 \\udcff")
"""


@pytest.mark.host
def test_log_txt_is_utf_8_whatever_the_locale(patched, family, tmp_path):
    code = f"import os, sys; sys.path.insert(0, {str(patched[family])!r})\n{LOG}"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run_script(tmp_path, "-c", code, fresh=True, **locale)
    assert done.stdout == "\\u2603 \\udcff\n"
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "\u2603 \\udcff\n"
