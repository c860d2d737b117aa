"""Hosts: recognition of a folder, and output and exit codes of the commands that take one.

Tests of NVIDIA's own checkouts are skipped unless STYLEGAN_HOST and STYLEGAN3_HOST name them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from stylegan_plugins.patches import FAMILIES, edits_for
from support.hosts import CHECKOUTS, copy_host

from stylegan_plugins.cli import cli
from stylegan_plugins.errors import HostError
from stylegan_plugins.host import patch as host_patch
from stylegan_plugins.host.families import HOSTS
from stylegan_plugins.host.recognise import recognise

ADA, STYLEGAN3 = FAMILIES
LOOP = "training/training_loop.py"
DOCS = Path(__file__).parent.parent / "docs/reference/hosts.md"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def assert_refused(result: Result, message: str) -> None:
    """Exit code 2 and one line, which holds the message."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


# --- What a folder is. ---------------------------------------------------------------------------------------------


@pytest.mark.host
@pytest.mark.parametrize("pristine", CHECKOUTS, indirect=True)
def test_nvidias_checkout_is_pristine_patched_or_not_and_with_any_line_ends(pristine, tmp_path):
    host = copy_host(pristine, tmp_path / "host")
    found = recognise(host)
    assert (found.kind, found.patched, found.changed) == ("pristine", False, ())
    assert str(found) == f"pristine {found.family}, not patched"
    for file in HOSTS[found.family].pristine:
        data = (host / file).read_bytes().removeprefix(b"\xef\xbb\xbf")
        (host / file).write_bytes(data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert recognise(host).kind == "pristine"
    host_patch.patch(host)
    found = recognise(host)
    assert (found.kind, found.patched, found.changed) == ("pristine", True, ())


@pytest.mark.host
@pytest.mark.parametrize("pristine", CHECKOUTS, indirect=True)
def test_a_checkout_with_one_changed_file_is_a_fork_and_the_file_is_named(pristine, tmp_path):
    host = copy_host(pristine, tmp_path / "host")
    with (host / LOOP).open("ab") as file:
        file.write(b"# mine\n")
    found = recognise(host)
    assert (found.kind, found.changed) == ("fork", (LOOP,))
    assert str(found) == f"a fork of {found.family} (differs in {LOOP}), not patched"


@pytest.mark.host
def test_an_assembled_host_says_so_and_has_its_family(host, family):
    found = recognise(host)
    assert (found.family, found.kind, found.patched) == (family, "assembled", False)
    assert str(found) == f"{family}, assembled from the package index, not patched"


@pytest.mark.host
def test_an_assembled_host_without_its_record_is_a_fork(host, family):
    (host / ".stylegan-plugins-host.json").unlink()
    assert (recognise(host).family, recognise(host).kind) == (family, "fork")


@pytest.mark.host
def test_a_damaged_record_makes_no_traceback(host):
    (host / ".stylegan-plugins-host.json").write_text("{")
    assert recognise(host).kind == "fork"


@pytest.mark.host
def test_patching_changes_nothing_of_what_a_host_is_but_patched(fetched, patched, family):
    before, after = recognise(fetched[family]), recognise(patched[family])
    assert (after.family, after.kind, after.changed) == (before.family, before.kind, before.changed)
    assert (before.patched, after.patched) == (False, True)


@pytest.mark.host
@pytest.mark.parametrize("missing", ["train.py", LOOP, "training/loss.py"])
def test_a_folder_without_a_needed_file_is_no_host_and_the_file_is_named(host, missing):
    (host / missing).unlink()
    with pytest.raises(HostError, match=f"it lacks {missing}. Name the folder that holds train.py"):
        recognise(host)


@pytest.mark.host
def test_a_code_base_with_another_loss_is_refused(host):
    loss = host / "training/loss.py"
    loss.write_text(loss.read_text(encoding="utf-8-sig").replace("StyleGAN2Loss", "ProjectedGANLoss"))
    with pytest.raises(HostError, match="has no StyleGAN2Loss: this code base is not supported"):
        recognise(host)


# --- What the commands say. ----------------------------------------------------------------------------------------

NO_HOST = ["patch", "unpatch", "status", "doctor"]


@pytest.mark.unit
@pytest.mark.parametrize("command", NO_HOST)
def test_commands_refuse_a_folder_that_is_no_host(command, tmp_path):
    result = run(command, tmp_path)
    assert result.exit_code == 2
    errors = result.stderr.splitlines()
    assert [line for line in errors if line.startswith("Error: ")] == errors[-1:]
    assert "is not a StyleGAN2-ADA or StyleGAN3 checkout: it lacks train.py" in errors[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.unit
@pytest.mark.parametrize("command", NO_HOST)
def test_commands_refuse_a_folder_that_does_not_exist_and_say_how_to_fetch_one(command, tmp_path):
    result = run(command, tmp_path / "nowhere")
    assert result.exit_code == 2
    assert f"Fetch a host with: stylegan-plugins host fetch {tmp_path / 'nowhere'}" in result.stderr


@pytest.mark.unit
def test_fetching_into_a_folder_that_is_not_empty_is_refused_and_the_folder_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert_refused(run("host", "fetch", tmp_path), f"{tmp_path} is not empty; name a folder that does not exist yet")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.unit
def test_fetching_an_unknown_family_lists_the_known_ones(tmp_path):
    result = run("host", "fetch", tmp_path / "host", "--family=stylegan4")
    assert result.exit_code == 2
    assert all(family in result.stderr for family in FAMILIES)


@pytest.mark.host
def test_patch_status_and_unpatch_name_every_patched_file(host, family):
    files = list(host_patch.plan(host).patched)
    result = run("patch", host)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Patched {', '.join(files)} in {host}.\n")

    again = run("patch", host)
    assert (again.exit_code, again.stdout) == (0, f"{host} is patched already; nothing was changed.\n")

    status = run("status", host)
    assert status.stdout.startswith(f"{recognise(host)}\n")
    assert re.findall(r"^(\S+): patched$", status.stdout, re.MULTILINE) == files
    for file in files:
        for edit in edits_for(family)[file]:
            assert f"because: {edit.reason}" in status.stdout

    assert run("unpatch", host).stdout == f"Restored {', '.join(files)}.\n"
    assert run("unpatch", host).stdout == f"{host} is not patched; nothing was changed.\n"
    assert re.findall(r"^(\S+): not patched$", run("status", host).stdout, re.MULTILINE) == files


@pytest.mark.host
def test_a_dry_run_prints_a_diff_and_writes_nothing(host):
    before = {path: path.read_bytes() for path in host.rglob("*") if path.is_file()}
    result = run("patch", "--dry-run", host)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"--- a/{LOOP}\n+++ b/{LOOP}\n" in result.stdout
    assert "+    bridge.run(training_loop.training_loop, rank=rank, **" in result.stdout
    assert all(line[:1] in "-+@ " for line in result.stdout.splitlines())
    assert {path: path.read_bytes() for path in host.rglob("*") if path.is_file()} == before


@pytest.mark.host
def test_a_dry_run_on_a_patched_host_shows_no_second_patch(patched, family):
    result = run("patch", "--dry-run", patched[family])
    assert (result.exit_code, result.stdout) == (0, f"{patched[family]} is patched already; nothing was changed.\n")


@pytest.mark.host
def test_a_training_file_without_an_anchor_is_one_line(host):
    data = (host / LOOP).read_bytes()
    (host / LOOP).write_bytes(data.replace(b"stats_collector", b"my_collector"))
    for arguments in (["patch"], ["patch", "--dry-run"]):
        assert_refused(run(*arguments, host), f"{LOOP} lacks an assignment to stats_collector of training_loop()")


@pytest.mark.host
@pytest.mark.parametrize("family", [ADA])
def test_a_script_that_is_left_as_it_is_is_named(host):
    (host / "generate.py").write_text("print('mine')\n")
    result = run("patch", host)
    assert result.exit_code == 0
    assert "Left as it is: generate.py lacks an import; a click command; the call torch.device(" in result.stdout
    assert "generate.py: not patched\n" in run("status", host).stdout


@pytest.mark.host
@pytest.mark.parametrize("family", [ADA])
def test_patching_a_fork_with_a_loss_of_its_own_says_what_plugins_leave_out(host):
    (host / ".stylegan-plugins-host.json").unlink()
    with (host / "training/loss.py").open("ab") as file:
        file.write(b"# mine\n")
    result = run("patch", host)
    assert result.exit_code == 0
    assert "training/loss.py of this fork is not NVIDIA's" in result.stdout


@pytest.mark.host
def test_unpatch_refuses_a_changed_file_in_one_line(host):
    run("patch", host)
    with (host / LOOP).open("ab") as file:
        file.write(b"# mine\n")
    assert_refused(run("unpatch", host), f"{LOOP} in {host} changed after patching; nothing was restored")
    assert f"{LOOP}: changed after patching\n" in run("status", host).stdout


@pytest.mark.unit
def test_doctor_without_a_folder_describes_python_torch_and_device():
    result = run("doctor")
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        "python",
        "torch",
        "device",
        "compiler",
        "host",
    ]


@pytest.mark.host
def test_doctor_describes_a_host_and_each_of_its_custom_ops(fetched, family, monkeypatch):
    # Without a GPU or an architecture to build for, nothing is compiled.
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = run("doctor", fetched[family])
    assert result.exit_code == 0
    assert f"host: {recognise(fetched[family])}\n" in result.stdout
    ops = re.findall(r"^custom op (\w+): not built: ", result.stdout, re.MULTILINE)
    assert ops == ["bias_act", "upfirdn2d"] + ["filtered_lrelu"] * (family == STYLEGAN3)


# --- What the page says. -------------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize("which", FAMILIES)
def test_every_edit_is_in_the_docs_with_its_file_code_and_reason(which):
    text = DOCS.read_text(encoding="utf-8")
    for file, edits in edits_for(which).items():
        for edit in edits:
            row = [line for line in text.splitlines() if f"`{edit.code}`" in line and edit.reason in line]
            assert row, f"docs/reference/hosts.md lacks the edit {edit.code!r} of {file}"
            assert any(f"`{file}`" in line for line in row), f"{file}: {row}"
