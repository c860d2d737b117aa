"""The files that `pip install .` installs, and the options that run.sh accepts."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripts import run_script

from stylegan_plugins import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package, installed into a separate folder from the wheel that the source archive makes."""
    top = tmp_path_factory.mktemp("install")
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "hosts", "runs", "data", "build", "site", "*.egg-info", "__pycache__"
    )
    shutil.copytree(ROOT, top / "source", ignore=ignored)
    build = "from setuptools import build_meta; build_meta.build_sdist('..')"
    subprocess.run([sys.executable, "-c", build], cwd=top / "source", check=True, capture_output=True)
    (archive,) = top.glob("stylegan_plugins-*.tar.gz")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(top / "site"), str(archive)], check=True, capture_output=True)
    return top / "site"


@pytest.mark.host
def test_the_metadata_has_the_version_the_license_and_what_a_registry_shows(installed):
    (folder,) = installed.glob("stylegan_plugins-*.dist-info")
    about = importlib.metadata.PathDistribution(folder)
    assert about.version == __version__ and "MIT" in (about.metadata["License-Expression"], about.metadata["License"])
    assert about.metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    classifiers = about.metadata.get_all("Classifier")
    assert "Typing :: Typed" in classifiers and "Programming Language :: Python :: 3.13" in classifiers
    assert [point.name for point in about.entry_points] == ["stylegan-plugins"]
    for package in ("stylegan_plugins", "training_ext"):
        assert (installed / package / "py.typed").is_file()
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", about.metadata.get_payload() or about.metadata["Description"])
    assert links == []  # they lead nowhere on the page of a registry


@pytest.mark.host
def test_only_our_two_packages_land_in_site_packages(installed):
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names - {"bin"} == {"stylegan_plugins", "training_ext"}


@pytest.mark.host
def test_templates_and_other_files_that_modules_read_are_installed(installed):
    package = ROOT / "stylegan_plugins"
    files = [
        file
        for file in package.rglob("*")
        if file.suffix in (".jinja", ".js", ".json", ".toml", ".txt", ".webp", ".md", ".safetensors", ".typed")
    ]
    missing = [file for file in files if not (installed / "stylegan_plugins" / file.relative_to(package)).is_file()]
    assert files and missing == []


@pytest.mark.host
def test_patches_and_scripts_of_the_assembled_host_are_installed(installed):
    scripts = sorted(
        str(path.relative_to(installed)) for path in (installed / "stylegan_plugins/host/files").rglob("*.py")
    )
    assert len(scripts) == 3
    code = "import stylegan_plugins.patches as p; print(p.__file__, len(p.edits_for(p.FAMILIES[0])))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    file, count = done.stdout.split()
    assert Path(file).is_relative_to(installed) and int(count) >= 6


@pytest.mark.unit
def test_run_sh_explains_itself_when_it_does_not_know_a_command():
    done = subprocess.run(["bash", str(ROOT / "run.sh"), "tset"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "./run.sh test" in done.stdout and "./run.sh train ARGS" in done.stdout


@pytest.mark.host
@pytest.mark.parametrize("demo, expected", [("demo", '"channel_base": 512'), ("photos", '"freeze_layers": 4')])
def test_the_options_of_both_demos_are_understood_by_the_host(ada_host, gray_zip, tmp_path, demo, expected):
    text = (ROOT / "run.sh").read_text()
    words = lambda part: re.findall(r"--[\w-]+(?:=[\w.,]+)?(?=[ )\n])", part)
    array = lambda name, part: words("".join(re.findall(rf"{name}=(\(.*?\))", part)))
    case = re.search(rf"\n  {demo}\)\n(.*?);;", text, re.DOTALL).group(1)
    for_both = [
        *array("flags", text),
        *words(re.search(r"train_both((?:.*\\\n)?.*\n)", case).group(1)),
        *array("small", case),
    ]
    assert len(for_both) > 9
    for name in ("one", "other"):
        own = array(name, case)
        arguments = [f"--data={gray_zip}", f"--outdir={tmp_path}", "--dry-run", *for_both, *own]
        printed = run_script(ada_host, "train.py", *arguments).stdout
        assert own and '"total_kimg": ' in printed
        assert (expected in printed) == (name == "one" or demo == "demo")
