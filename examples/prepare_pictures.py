"""Pictures as they come from cameras and scanners, made ready for the hosts' dataset_tool.py: upright, RGB, opaque.

    python prepare_pictures.py PICTURES READY [--smallest=256] [--classes]

All pictures under PICTURES are written to READY as PNG. --smallest leaves out those with a shorter side, in pixels,
which would be enlarged. --classes writes a dataset.json in which the folders in PICTURES are classes, in the order of
their names."""

import argparse
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")  # not those for which Pillow starts programs, as PostScript
# What Pillow raises on broken files: it has no base class for it.
BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError, OverflowError, struct.error),
    *(zlib.error, PIL.Image.DecompressionBombError),
)


def ready(path: Path) -> PIL.Image.Image:
    """A picture the right way up, in RGB, what is transparent on white. Raises one of BROKEN if it is none."""
    with PIL.Image.open(path, formats=FORMATS) as opened:
        image = PIL.ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits; Pillow itself would cut all above 255
            image = PIL.Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("its values are fractions, of which nothing says what is white")
        image = image.convert("RGBA")
    white = PIL.Image.new("RGBA", image.size, "white")
    return PIL.Image.alpha_composite(white, image).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("ready", type=Path)
    parser.add_argument("--smallest", type=int, default=0, metavar="PIXELS")
    parser.add_argument("--classes", action="store_true")
    options = parser.parse_args()
    if not options.pictures.is_dir():
        parser.error(f"{options.pictures} is no folder")
    if options.ready.exists():
        parser.error(f"{options.ready} is there already; give a folder that does not exist yet")
    files = sorted(path for path in options.pictures.rglob("*") if path.is_file())
    loose = [path for path in files if path.parent == options.pictures]
    if options.classes and loose:
        parser.error(f"--classes: {loose[0]} is in no folder of {options.pictures}, so that it has no class")
    written = []
    for path in files:
        try:
            image = ready(path)
        except BROKEN as error:
            print(f"Left out: {path} ({error})", file=sys.stderr)
            continue
        if min(image.size) < options.smallest:
            print(f"Left out: {path} has {image.width}x{image.height} pixels", file=sys.stderr)
            continue
        name = path.relative_to(options.pictures).as_posix() + ".png"
        (options.ready / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(options.ready / name)
        written.append(name)
    if not written:
        parser.error(f"there are no pictures in {options.pictures} that can be used; nothing was written")
    if options.classes:
        folders = sorted({name.partition("/")[0] for name in written})
        labels = [[name, folders.index(name.partition("/")[0])] for name in written]
        (options.ready / "dataset.json").write_text(json.dumps({"labels": labels}))
        print("Classes:", ", ".join(f"{index} {name}" for index, name in enumerate(folders)))
    print(f"{len(written)} pictures: {options.ready}")


if __name__ == "__main__":
    main()
