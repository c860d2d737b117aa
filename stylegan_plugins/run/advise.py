"""`stylegan-plugins advise`: a command to start with, for given pictures, pickle and machine, by rules.py."""

from __future__ import annotations

import ast
import itertools
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
import PIL.Image
import torch

from stylegan_plugins.analysis import programs
from stylegan_plugins.errors import DataError, HostError, RunError, tell
from stylegan_plugins.files import datasets, demo, prepare, run_folders, sources
from stylegan_plugins.files.given_labels import GivenLabels
from stylegan_plugins.files.snapshots import Network
from stylegan_plugins.host import devices, networks, patch
from stylegan_plugins.manager import without_D
from stylegan_plugins.run import defaults, finetune
from stylegan_plugins.run.rules import ADDITIONS, METHODS, Facts, Rule

COMPARED = 2000  # pictures compared with each other, at most
OUTDIR = "runs"
COLORS = {1: "gray", 3: "rgb"}  # by channels


@dataclass(frozen=True)
class Advice:
    """A command to start with.

    command   words of the command line
    seen      lines on pictures, pickle and machine
    why       sentences on the choice
    evidence  figures with their sources
    then      a next comparison"""

    command: tuple[str, ...]
    seen: tuple[str, ...]
    why: tuple[str, ...]
    evidence: tuple[str, ...]
    then: str

    def __str__(self) -> str:
        blocks = [
            "\n".join(self.seen),
            shlex.join(self.command),
            "\n".join(self.why),
            "\n".join(["Known figures:", *(f"- {line}" for line in self.evidence)]),
            f"Then compare with: {self.then}. docs/methods/which_method.md has all rules.",
        ]
        return "\n\n".join(blocks)


def chosen(facts: Facts) -> list[Rule]:
    """Return the rules for a case: the first of METHODS that fits, and all of ADDITIONS that fit."""
    return [next(rule for rule in METHODS if rule.fits(facts)), *(rule for rule in ADDITIONS if rule.fits(facts))]


def options_of(rules: list[Rule]) -> list[str]:
    """Return the options of train.py that rules give, each once."""
    found = dict(itertools.chain.from_iterable(rule.options.items() for rule in rules))
    return [f"--{name}={value}" for name, value in found.items()]


def run(data: str, resume: str | None, fixed: bool, device: str, host: Path) -> Advice:
    """Return the command to start with for pictures, a pickle and this machine. It is tried with --dry-run.

    data, resume  as for train.py
    fixed         pictures must not be mirrored, moved or recolored
    device        as for train.py
    host          a patched host that is in use

    Raises DataError for unusable pictures or an unusable pickle, HostError for a host that is not patched, RunError if
    train.py refuses the command."""
    if patch.state(host, "train.py") != "patched":
        raise HostError(f"{host} is not patched, so its train.py knows no plug-ins. Run: stylegan-plugins patch {host}")
    start = None if resume is None else _Start.of(_address(host, resume))
    on_cpu = devices.device().type == "cpu"
    how = prepare.How(limit=defaults.CPU_SIDE if on_cpu else None) if start is None else start.how
    path = Path(prepare.usable(data, how))
    images, side, channels = datasets.check_dataset(path)
    counts, labels = _classes(path, how)
    gpu = None if on_cpu else torch.cuda.get_device_properties(devices.device())
    facts = Facts(
        images=images,
        side=side,
        classes=len(counts),
        per_class=min(counts, default=0),
        fixed=fixed,
        pickle=start is not None,
        trained_D=start is not None and start.without_D is None,
        pickle_classes=0 if start is None else start.classes,
        gpu=0.0 if gpu is None else gpu.total_memory / 2**30,
    )
    rules = chosen(facts)
    words = [_python(), str(host / "train.py"), *options_of(rules), f"--data={data}", f"--outdir={OUTDIR}"]
    if start is not None:
        words += [f"--resume={resume}", f"--size={side}", f"--colors={COLORS[channels]}"]
    words += [] if device == "auto" else [f"--device={device}"]
    _try(words)
    seen = [
        f"Pictures: {images} of {side}x{side}, {'gray' if channels == 1 else 'RGB'}, {labels}; {_alike(path)}",
        *([] if start is None else [str(start)]),
        f"Machine: {f'no GPU, {os.cpu_count()} CPU cores' if gpu is None else f'{gpu.name}, {facts.gpu:.0f} GiB'}",
    ]
    evidence = dict.fromkeys(str(item) for rule in rules for item in rule.evidence)
    return Advice(tuple(words), tuple(seen), tuple(rule.why for rule in rules), tuple(evidence), rules[0].then)


@dataclass(frozen=True)
class _Start:
    """A pickle to start from.

    without_D  reason why it has no trained D; None if it has one"""

    name: str
    side: int
    channels: int
    classes: int
    without_D: str | None

    @classmethod
    def of(cls, address: str) -> _Start:
        """Read a pickle, and run nothing in it. Raises DataError for a pickle that the rules do not cover."""
        path = finetune.local_pickle(address)
        snapshot = networks.open_pickle(path)
        G = finetune.network_for(snapshot, "G") or snapshot.network("G")
        side, channels = (_number(G, name) for name in ("img_resolution", "img_channels"))
        if side not in prepare.SIDES or channels not in COLORS or "synthesis.b4.const" not in G.tensors:
            what = f"{side}x{side} with {channels} channels, by a {G.class_name}"
            raise DataError(
                f"--resume: {path.name} makes images of {what}; advise is for generators of StyleGAN2, of "
                f"{prepare.SIDES[0]} to {prepare.SIDES[-1]} pixels, gray or RGB. "
                "docs/methods/transfer.md says how to start."
            )
        plugin = without_D(run_folders.read_options(path.parent))
        lacking = None if finetune.network_for(snapshot, "D") else "without a D of a known kind"
        untrained = f"D was not trained, as its run had --plugin={plugin}" if plugin else None
        return cls(path.name, side, channels, _number(G, "c_dim"), lacking or untrained)

    @property
    def how(self) -> prepare.How:
        """Settings that make pictures like the images of the pickle."""
        return prepare.How(size=self.side, colors="gray" if self.channels == 1 else "rgb")  # type: ignore[arg-type]

    def __str__(self) -> str:
        labels = f"{self.classes} classes" if self.classes else "no classes"
        kind = f"StyleGAN2, {self.side}x{self.side}, {'gray' if self.channels == 1 else 'RGB'}, {labels}"
        return f"Pickle: {self.name}, {kind}, {self.without_D or 'with a trained D'}"


def _number(network: Network, name: str) -> int:
    value = network.init_kwargs.get(name, 0)
    return value if isinstance(value, int) else 0


def _address(host: Path, resume: str) -> str:
    """Return the file or address of a name, ours or the host's (`people32`, `ffhq256`). Return other text as it is."""
    resume = demo.network_of(resume)
    for node in ast.walk(ast.parse((host / "train.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "resume_specs":
            return ast.literal_eval(node.value).get(resume, resume)
    return resume


def _classes(path: Path, how: prepare.How) -> tuple[list[int], str]:
    """Return the number of pictures in each class, and a description."""
    with sources.opened(path) as source:
        found: GivenLabels | None = prepare.labels_of(source, datasets.image_names(source.files), how)
    counts = [] if found is None else found.counts()
    if len(counts) > 1:
        return counts, f"{len(counts)} classes of {min(counts)} to {max(counts)}"
    return [], "no classes" if found is None or counts else "with labels that are not classes"


def _alike(path: Path) -> str:
    """Return a phrase on the number of pictures that are near-duplicates of others, by perceptual hashes."""
    names, pixels = datasets.read_images(path)
    digests: dict[str, np.ndarray] = {}
    for name, image in itertools.islice(zip(names, pixels, strict=True), COMPARED):
        picture = PIL.Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        digests[name] = imagehash.phash(picture).hash.reshape(-1)
    count, among = len(prepare.alike(digests)), f" among the first {COMPARED}" if len(names) > COMPARED else ""
    if not count:
        return f"no near-duplicates{among}"
    return f"{count} look like another one{among}; take out duplicates, if they are some"


def _python() -> str:
    """Return the name of this process's Python on the command line."""
    found = shutil.which("python")
    return "python" if found and Path(found).parent == Path(sys.executable).parent else sys.executable


def _try(words: list[str]) -> None:
    """Run a command of train.py with --dry-run. Raises RunError if train.py refuses it."""
    lines: list[str] = []
    environment = {name: value for name, value in os.environ.items() if name != devices.VARIABLE}
    tell("Trying the command with --dry-run.", err=True)
    code = programs.run([*words, "--dry-run"], show=lines.append, env=environment)
    if code:
        why = programs.error_in(lines) or (lines[-1] if lines else f"it ended with {code}")
        raise RunError(f"advise: train.py refuses the command of the rules: {why}")
