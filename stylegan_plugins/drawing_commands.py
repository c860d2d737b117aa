"""Commands of `stylegan-plugins` that draw with a trained generator: samples, sheets, walks, a folder to share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from stylegan_plugins.analysis import captioned, explore_page, loading, pictures
from stylegan_plugins.analysis import sample as sampling
from stylegan_plugins.analysis import share as sharing
from stylegan_plugins.analysis.explorer import Explorer
from stylegan_plugins.analysis.loading import LoadedGenerator
from stylegan_plugins.errors import OptionError, require, tell
from stylegan_plugins.files import datasets
from stylegan_plugins.host import devices, find
from stylegan_plugins.host.find import data_option, host_option, on_host
from stylegan_plugins.options import refuse_given

Directory = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)
default_option = partial(click.option, show_default=True)
outdir_option = partial(click.option, "--outdir", type=Directory)
WITHOUT_IMAGES = "without images to look for nearest ones among"
NEAR = "Distance to training images: pixels, l1, lpips, or a backbone, such as efficientnet_lite0, clip or dinov2"
to_stderr = partial(tell, err=True)
seeds_option = partial(default_option, "--seeds")
trunc_option = partial(default_option, "--trunc", type=click.FloatRange(min=0), default=sampling.TRUNCATION)
on_host_or_onnx = partial(on_host, takes_onnx=True)
run_argument = click.argument("run_or_pkl", type=Directory)
label_option = click.option(
    "--class", "label", metavar="INT|NAME", help="The class, for labelled data: its number, or its name in the run"
)


def _load(run_or_pkl: Path, outdir: Path, seeds: str, fewest: int = 1) -> tuple[list[int], LoadedGenerator]:
    """Return seeds and the generator. Seeds and the output folder are checked before anything is loaded."""
    datasets.check_output(outdir)
    numbers = sampling.seeds_of(seeds, fewest)
    return numbers, loading.loaded(run_or_pkl)


@click.command()
@run_argument
@seeds_option(default="0-15", help="Numbers and ranges, as 0-15,20; one image each")
@trunc_option(help="Truncation psi; 1 is none")
@click.option("--like", type=Directory, metavar="IMAGE", help="Variants of a picture: of its high-level content")
@label_option
@outdir_option(help="Where the images go", required=True)
@on_host_or_onnx
def sample(run_or_pkl: Path, seeds: str, trunc: float, like: Path | None, label: str | None, outdir: Path) -> None:
    """Make images with the generator of RUN_OR_PKL, and a sheet of them. No data set is needed."""
    numbers, G = _load(run_or_pkl, outdir, seeds)
    ws = list(G.latents(numbers, truncation=trunc, class_=label, like=like))
    with click.progressbar(ws, label="Images", file=sys.stderr) as bar:
        made = [sampling.render(G.network, w) for w in bar]
    outdir.mkdir(parents=True, exist_ok=True)
    for seed, image in zip(numbers, made, strict=True):
        sampling.picture_of(image).save(outdir / f"seed{seed:04d}.png")
    sampling.sheet(made).save(outdir / "sheet.png")
    tell(outdir / "sheet.png")


def pictures_options(command: Callable) -> Callable:
    """Add the options that `interpolate` and `sheet` share."""
    command = outdir_option(help="Where the pictures go", required=True)(on_host_or_onnx(command))
    command = label_option(command)
    command = default_option("--features", default="pixels", metavar="NAME", help=NEAR)(command)
    command = data_option(help="Images to find nearest ones in  [default: the run's own]")(command)
    return run_argument(command)


@click.command()
@seeds_option(default="0-5", help="Numbers and ranges, as 0-5,20")
@default_option("--frames", type=COUNT, default=24, help="From one seed to the next")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    help="Length of video and GIF  [default: as --frames and --fps give]",
)
@default_option("--fps", type=click.IntRange(min=1, max=120), default=24, help="Frames in a second")
@default_option("--loop/--no-loop", default=True, help="Back to the first seed at the end")
@click.option(
    "--size",
    type=click.IntRange(min=16, max=4096),
    help="Side of the video in pixels, even  [default: that of the images, enlarged to 256 or more]",
)
@default_option("--columns", type=click.IntRange(min=2), default=12, help="Frames in the strip")
@trunc_option(help="Truncation psi; 1 is none")
@click.option("--labels-only", is_flag=True, help="With disp: z of the first seed; labels alone change")
@click.option(
    "--like", type=Directory, multiple=True, metavar="IMAGE", help="With disp: labels of pictures, given twice or more"
)
@pictures_options
def interpolate(
    run_or_pkl: Path,
    outdir: Path,
    seeds: str,
    columns: int,
    trunc: float,
    label: str | None,
    labels_only: bool,
    like: tuple[Path, ...],
    data: str | None,
    features: str,
    **video: Any,
) -> None:
    """Walk from seed to seed in w: a video (MP4 and GIF), and a strip with the nearest training image under each frame.

    With --labels-only or --like the walk goes from the labels of one image to the labels of the next. If frames jump
    from one training image to the next, the generator has memorised them."""
    if video["seconds"] is not None:
        refuse_given("frames", "with --seconds")
    if len(like) == 1:
        raise OptionError(f"--like={like[0]}: give it twice or more, for the pictures to walk between.")
    numbers, G = _load(run_or_pkl, outdir, seeds, fewest=1 if like else 2)
    if label is not None and (labels_only or like):
        raise OptionError(
            f"--class={label}: with {'--like' if like else '--labels-only'}, labels change. Leave it out."
        )
    movie = pictures.Video.of(G.resolution, len(like) or len(numbers), **video)
    known = pictures.neighbours(G.file.parent, G.network, devices.device(), data, features)
    if known is None:
        refuse_given("features", WITHOUT_IMAGES)
    ends, draw = G.walk(numbers, trunc, label, labels_only, like)
    for file in pictures.interpolation(draw, ends, outdir, video=movie, columns=columns, near=known):
        tell(file)


@click.command()
@seeds_option(default="0-63", help="Numbers and ranges, as 0-63; one sample each")
@trunc_option(help="psi of the second sheet")
@default_option("--pairs", type=COUNT, default=16, help="Samples on a ranked sheet")
@click.option(
    "--beside", type=Directory, multiple=True, metavar="RUN", help="Another run or pickle on one picture; repeated"
)
@pictures_options
def sheet(
    run_or_pkl: Path,
    outdir: Path,
    seeds: str,
    trunc: float,
    pairs: int,
    beside: tuple[Path, ...],
    label: str | None,
    **near: str,
) -> None:
    """Sample sheets: without truncation, with it, and, beside their nearest training images, the worst samples first.

    The worst are those farthest from any training image; sheet-nearest.png has those nearest to one. With --beside
    sheet-beside.png has training images and samples of all these networks, of the same seeds, without truncation."""
    numbers, G = _load(run_or_pkl, outdir, seeds)
    compared = [(captioned.caption_of(path), loading.loaded(path)) for path in beside]
    known = pictures.neighbours(G.file.parent, G.network, devices.device(), **near)
    if known is None:
        refuse_given("features", WITHOUT_IMAGES)
        refuse_given("pairs", WITHOUT_IMAGES)
    made = {
        name: G.sample(numbers, truncation=psi, class_=label, as_="array")
        for name, psi in (("full", 1.0), (f"trunc{trunc:g}", trunc))
    }
    sheet_beside = None
    if compared:
        networks = [(captioned.caption_of(run_or_pkl), G), *compared]
        data = None if known is None else known.data
        sheet_beside = captioned.of_networks(networks, data, numbers, round(len(numbers) ** 0.5), label)
    files, distances = pictures.sheets(made, outdir, near=known, pairs=pairs)
    if sheet_beside is not None:
        files.append(outdir / "sheet-beside.png")
        sheet_beside.save(files[-1])
    for file in files:
        tell(file)
    if distances is not None:
        tell(
            f"Distance to the nearest training image, {near['features']}: median {np.median(distances):.4g}, "
            f"{distances.min():.4g} (seed {numbers[distances.argmin()]}) to "
            f"{distances.max():.4g} (seed {numbers[distances.argmax()]})."
        )


@click.command()
@run_argument
@default_option("--classes", type=COUNT, default=64, help="Number of drawn labels, of a run that a plug-in conditions")
@default_option("--seed", type=click.IntRange(min=0), default=0, help="Class k is `sample` of SEED + k")
@outdir_option(help="Folder to share: pickle, safetensors, ONNX, samples and a model card")
@click.option("--out", type=Directory, metavar="FILE", help="One file instead: .safetensors, or .pkl")
@host_option
def export(run_or_pkl: Path, classes: int, seed: int, outdir: Path | None, out: Path | None, host: Path | None) -> None:
    """Write a generator for others, to a folder or as one file.

    --out=FILE.safetensors has G_ema and D and no code; fine-tuning starts from it. --out=FILE.pkl is for the host's own
    scripts: of a run that a plug-in conditions, whose classes are drawn labels, or of networks of another program.
    Others are such pickles already."""
    if (outdir is None) == (out is None):
        raise OptionError("export: give --outdir=FOLDER, or --out=FILE for one file alone.")
    devices.choose("cpu")
    find.choose_host(host, run_or_pkl)
    if outdir is not None:
        sharing.write_folder(run_or_pkl, outdir, classes, seed, to_stderr)
    elif out is not None:
        sharing.write_file(run_or_pkl, out, classes, seed)
    tell(outdir or out)


@click.command()
@run_argument
@default_option("--port", type=click.IntRange(1, 65535), default=7860)
@default_option("--address", default="127.0.0.1", help="Who may open the page: 127.0.0.1 this machine, 0.0.0.0 all")
@default_option("--features", default="pixels", metavar="NAME", help=NEAR)
@data_option(help="Images to find nearest ones in  [default: the run's own]")
@on_host_or_onnx
def explore(run_or_pkl: Path, port: int, address: str, data: str | None, features: str) -> None:
    """Open a web page to look around in the latent space of RUN_OR_PKL: seeds, truncation, directions, walks, nearest
    training images.

    It runs on this machine, sends nothing elsewhere, and ends with Ctrl-C."""
    require("gradio", "explore")
    G = loading.loaded(run_or_pkl)
    near = pictures.neighbours(G.file.parent, G.network, devices.device(), data, features)
    page, url = explore_page.serve(Explorer(G, near), address, port)
    tell(f"{url} (Ctrl-C ends it)")
    page.block_thread()
