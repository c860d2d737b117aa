"""Assemble a host from two wheels that redistribute its code, where GitHub cannot be reached.

`slideflow-noncommercial` has both families as sub-packages, with additions for its own data sets; `draggan` has the
parts of stylegan2-ada-pytorch that it uses, unchanged. A host is a plain directory of top-level packages. So files are
picked from the two (`WheelParts` of the family), and slideflow's files are changed: imports become absolute, and code
that only serves slideflow is removed. The wheels are known by their checksums, so the patterns need to fit these files
alone. Neither package is imported or run.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path, PurePath

from stylegan_plugins.host.families import HOSTS

OWN_FILES = Path(__file__).parent / "files"
DRAGGAN = "draggan/stylegan2"


def _outdented(match: re.Match[str]) -> str:
    return re.sub(r"^    ", "", match["kept"], flags=re.MULTILINE)


# Remove slideflow's additions for its own data sets, which do not work with NVIDIA's modules. Its calc_metrics reads
# `args.slideflow_kwargs`, which our runs do not set, and replaces the user's --data by the run's. Its loop passes
# `lazy` to a function that has this argument in slideflow's copy alone. Its metrics import a progress bar that they do
# not use, and that may not be installed.
CHANGES = (
    (r"^ *(self\.slideflow_kwargs|slideflow_kwargs|is_slideflow_model) +=.*\n", ""),
    (r"^ *sys\.modules\['slideflow.*\n", ""),
    (r"^@click\.option\('--(slideflow|subfolder-labels)'.*\n", ""),
    (r",\n    slideflow: bool,\n    subfolder_labels: bool\n", "\n"),
    (r",\s*slideflow_kwargs=(\{\}|[\w.]+)", ""),
    (r", lazy=lazy_resume", ""),
    (r"^from tqdm import tqdm\n(?![\s\S]*tqdm)", ""),
    # The options of the run beside the pickle.
    (r"^( *)with open\(train_opt, .*\n(\1 .*\n)+\1if is_slideflow_model:\n(\1 .*\n)+", ""),
    (r"^    if .* and is_slideflow_model:\n(     .*\n)+    elif ", "    if "),
    # slideflow's dataset_tool reads `dataset_attrs` of the first image before anything is in it: an error at once.
    (r"^(?=    if slideflow:\n)", "    dataset_attrs = None\n"),
    (r"^( *)elif 'slideflow' in .*\n(\1 .*\n)+", ""),
    (r"^( *)if ('slideflow' in .*|slideflow):\n(\1 .*\n)+\1else:\n(?P<kept>(\1    .*\n|\n)+)", _outdented),
    # Two imports that are equal after both became absolute.
    (r"^try:\n(?P<kept>(    .*import.*\n)+)except .*\n(    #.*\n)?(?P=kept)", _outdented),
)


def assemble(family: str, wheels: Path, target: Path) -> None:
    """Write the host of `family` into the empty directory `target`; `wheels` holds both wheels, unpacked."""
    parts = HOSTS[family].wheels
    scripts = wheels / parts.slideflow
    package = scripts / parts.package
    folders = [source for folder in parts.folders for source in (package / folder).rglob("*.py")]
    sources = {source.relative_to(package): source for source in [*folders, *map(package.joinpath, parts.modules)]}
    sources |= {Path(name): scripts / name for name in parts.scripts}
    for path, source in sources.items():
        if path.as_posix() not in parts.left_out:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(rewrite_source(source.read_bytes(), path, parts.package))
    for name in parts.draggan:
        _copy(wheels / DRAGGAN / name, target / name)
    _copy(OWN_FILES / family, target)


def rewrite_source(code: bytes, path: PurePath, package: str) -> bytes:
    """Return the host's version of a source file of slideflow.

    `path` is the file's path in the host: as many dots as it has parts lead to top-level packages of the host, fewer
    stay inside one. `package` is the name under which scripts import the host's packages."""
    text = code.decode()
    top = rf"^( *)from ({re.escape('.' * len(path.parts))}|{package}\b\.?)"
    for pattern, replacement in ((rf"{top} +import ", r"\1import "), (rf"{top}(?=\w)", r"\1from "), *CHANGES):
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text.encode()


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder over an existing one."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
