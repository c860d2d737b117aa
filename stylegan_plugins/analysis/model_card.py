"""README.md of a shared generator: a description, its training, and the use of each file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan_plugins.analysis import markdown, records
from stylegan_plugins.analysis.loading import LoadedGenerator
from stylegan_plugins.analysis.sample import TRUNCATION
from stylegan_plugins.files import run_folders
from stylegan_plugins.files.portable import Description
from stylegan_plugins.host.families import HOSTS, STYLEGAN3

MOST_CLASSES = 50  # listed by name


def text(file: Path, generator: LoadedGenerator, about: Description, drawn: bool, left_out: Mapping[str, str]) -> str:
    """Return the card as Markdown.

    file       the snapshot, in the directory of its run
    drawn      its classes are drawn labels of a plug-in
    left_out   reasons why files are missing, by name"""
    side, color = generator.resolution, "gray" if generator.channels == 1 else "color"
    run = run_folders.read_options(file.parent) or {}
    kind = "StyleGAN3" if hasattr(generator.network.synthesis, "input") else "StyleGAN2"
    sections = [
        f"# {kind} generator of {side}x{side} {color} images",
        f"![Samples of seeds 0 to 31, truncation {TRUNCATION}](samples.png)",
        "## Training",
        markdown.table(["", ""], [[name, value] for name, value in _facts(file, run, about).items()]),
        *_classes(generator, drawn),
        *_metrics(file),
        "## How to use it",
        *(_usage(name, about, bool(generator.classes)) for name in run_folders.SHARED if name not in left_out),
        *(f"{name} is not here: {reason}." for name, reason in left_out.items()),
        "## Licenses",
        _licenses(about),
    ]
    return "\n\n".join(sections) + "\n"


def _facts(file: Path, run: Mapping[str, Any], about: Description) -> dict[str, str]:
    """Return known facts about the training by name. Folders are left out: they belong to somebody's machine."""
    of = lambda *keys: _value(run, *keys)
    plugins = of("plugins", "options") if isinstance(of("plugins", "options"), dict) else {}
    match = run_folders.SNAPSHOT.fullmatch(file.name)
    found = {
        "pictures": of("training_set_kwargs", "max_size"),
        "horizontal flips": {True: "yes", False: "no"}.get(of("training_set_kwargs", "xflip")),
        "length": None if match is None else f"{int(match[1])} kimg (thousands of images shown to the discriminator)",
        "host": about.family,
        "plug-ins": ", ".join(map(str, plugins)) or ("none" if run else None),
        **{
            name: ", ".join(f"{key}={value}" for key, value in options.items() if "/" not in str(value))
            for name, options in plugins.items()
            if isinstance(options, dict)
        },
        "batch": of("batch_size"),
        "R1 gamma": of("loss_kwargs", "r1_gamma"),
        "learning rate of G, of D": _pair(of("G_opt_kwargs", "lr"), of("D_opt_kwargs", "lr")),
        "ADA": "on" if isinstance(of("augment_kwargs"), dict) else "off" if run else None,
        "fine-tuned from another network": "yes" if of("resume_pkl") else None,
        "random seed": of("random_seed"),
    }
    return {name: _cell(value) for name, value in found.items() if value not in (None, "")}


def _value(record: Any, *keys: str) -> Any:
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def _pair(first: Any, second: Any) -> str | None:
    return None if first is None else f"{first}, {second}"


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())[:500]


def _classes(generator: LoadedGenerator, drawn: bool) -> list[str]:
    names = generator.classes
    if drawn:
        return [f"It has {len(names)} classes, which are drawn labels of a plug-in: one look each."]
    shown = ", ".join(f"{k} {_cell(name)}" if str(k) != name else name for k, name in enumerate(names[:MOST_CLASSES]))
    return [f"Classes: {shown}{' and more' if len(names) > MOST_CLASSES else ''}."] if names else []


def _metrics(file: Path) -> list[str]:
    """Return a table of this snapshot's metrics, with the newest value of each figure."""
    rows: dict[str, list[str]] = {}
    for lines in sorted(file.parent.glob("metric-*.jsonl")):
        for line in records.read_lines(lines):
            if line.get("snapshot_pkl") == file.name:
                rows |= {
                    name: [_cell(name), f"{value:.5g}", _cell(records.described(line))]
                    for name, value in line["results"].items()
                    if records.is_finite(value)
                }
    return ["## Metrics", markdown.table(["metric", "value", "of"], rows.values())] if rows else []


def _usage(name: str, about: Description, classes: bool) -> str:
    pickle, safetensors, onnx = run_folders.SHARED
    family = HOSTS.get(about.family)
    label = " --class=0" if classes else ""
    script = "gen_images.py" if family is STYLEGAN3 else "generate.py"
    host = f"stylegan-plugins host fetch host --family={about.family}"
    sample = f"stylegan-plugins sample {name} --seeds=0-15 --trunc={TRUNCATION}{label} --outdir=samples"
    c = ', "c": numpy.eye(CLASSES, dtype="float32")[[0]]' if classes else ""
    commands, says = {
        pickle: (
            [
                f"git clone {family.repository if family else 'HOST'} host",
                "cd host",
                f"python {script} --network=../{name} --seeds=0-15 --trunc={TRUNCATION}{label} --outdir=samples",
            ],
            "a network pickle for NVIDIA's own scripts; G, D and the average of G. Loading it with them executes code "
            "in it; `stylegan-plugins` executes none",
        ),
        safetensors: (
            ["pip install path/to/stylegan-plugins", host, f"{sample} --host=host"],
            "the generator alone, in a format that holds no code. `stylegan_plugins.load` reads it in Python",
        ),
        onnx: (
            ["pip install 'path/to/stylegan-plugins[share]'", sample],
            "the generator alone, for onnxruntime. Noise is constant, weights are in single precision",
        ),
    }[name]
    alone = [
        "Without `stylegan-plugins`, in Python:",
        *("", "    import numpy, onnxruntime", f'    network = onnxruntime.InferenceSession("{name}")'),
        '    z = numpy.random.randn(1, network.get_inputs()[0].shape[1]).astype("float32")',
        f'    inputs = {{"z": z, "truncation": numpy.float32([{TRUNCATION}]).reshape(()){c}}}',
        '    image = network.run(["image"], inputs)[0]  # [N, C, H, W] in [-1, 1]',
    ]
    lines = [f"### {name}", "", f"This is {says}.", "", *(f"    {command}" for command in commands)]
    return "\n".join([*lines, *(["", *alone] if name == onnx else [])])


def _licenses(about: Description) -> str:
    family = HOSTS.get(about.family)
    address = f" ({family.license})" if family else ""
    return "\n".join(
        [
            f"- Code of NVIDIA's host, which {run_folders.SHARED[0]} has parts of: NVIDIA's license{address}, for "
            "non-commercial use. NVIDIA's licenses also speak of networks that are derived from its own.",
            "- stylegan-plugins: MIT.",
            "- The pictures that it was trained on: TO BE FILLED IN: who made them, and under which license.",
            "- These weights: TO BE FILLED IN.",
        ]
    )
