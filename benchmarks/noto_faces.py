"""Faces of Noto Color Emoji as a data set: aligned, colored, with labels.

    python benchmarks/noto_faces.py NotoColorEmoji.ttf faces.zip [--kind=people] [--side 64] [--gray] [--heldout=H.zip]
    python benchmarks/noto_faces.py NotoColorEmoji.ttf stylegan_plugins/files/faces.webp

The font comes with Debian's fonts-noto-color-emoji (image sources under the Apache License 2.0, the font under the SIL
Open Font License 1.1). `people`: 564 pictures of several ages, hair styles and professions in six skin colors, which
are the labels, in the order of Unicode's modifiers after the yellow default; 106 `smileys` and 35 `animals`, one label.
With --heldout every fourth picture goes there instead: a held-out set.

A .webp is the sheet of all kinds that the package has as its sample data: 32x32 each, 32 in a row, in the order of
KINDS, lossless."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import click
from PIL import Image, ImageDraw, ImageFont

STRIKE = 109  # the only size of the bitmaps in the font, in pixels
CELL = (136, 128)
SKINS = ("", *(chr(code) for code in range(0x1F3FB, 0x1F400)))
JOIN = "\u200d"
HAIR = tuple(JOIN + chr(code) for code in range(0x1F9B0, 0x1F9B4))
JOBS = tuple(JOIN + job for job in ("⚕️", *"🌾🍳🎓🎤🏫🏭💻💼🔧🔬🎨🚒", "✈️", "🚀", "⚖️"))
GENDERS = (JOIN + "♂️", JOIN + "♀️")
PEOPLE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("👦👧👨👩🧑👴👵🧓👱🧔👳👲🧕👮👷👸🤴👶🧒💂", ("",)),
    ("👨👩🧑", HAIR + JOBS),
    ("👱🧔👳👮👷🕵💂", GENDERS),
)

SMILEYS = (
    *(chr(code) for first, last in ((0x1F600, 0x1F637), (0x1F641, 0x1F644)) for code in range(first, last + 1)),
    *(chr(code) for first, last in ((0x1F910, 0x1F917), (0x1F920, 0x1F925)) for code in range(first, last + 1)),
    *(chr(code) for first, last in ((0x1F927, 0x1F92F), (0x1F970, 0x1F976)) for code in range(first, last + 1)),
    *"🥸🥹🥺☹☺👿👹👺👽🤖🎃💀👻🌚🌝🌞",
)
ANIMALS = tuple("🐶🐱🐭🐹🐰🦊🐻🐼🐨🐯🦁🐮🐷🐸🐵🐔🐴🦄🐲🐺🦝🦒🐗😺😸😹😻😼😽🙀😿😾🙈🙉🙊")


def people() -> list[tuple[str, int]]:
    """Return each emoji with the index of its skin color."""
    return [
        (person + skin + rest, index)
        for persons, endings in PEOPLE
        for person in persons
        for index, skin in enumerate(SKINS)
        for rest in endings
    ]


KINDS = {"smileys": [(one, 0) for one in SMILEYS], "animals": [(one, 0) for one in ANIMALS], "people": people()}


def draw(font: ImageFont.FreeTypeFont, emoji: str, side: int) -> Image.Image:
    image = Image.new("RGB", CELL, "white")
    ImageDraw.Draw(image).text((0, 0), emoji, font=font, embedded_color=True)
    edge = (CELL[0] - CELL[1]) // 2
    return image.crop((edge, 0, edge + CELL[1], CELL[1])).resize((side, side), Image.Resampling.LANCZOS)


def write(path: Path, pictures: list[tuple[Image.Image, int]]) -> None:
    """Write a data set in NVIDIA's layout."""
    labels = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index, (image, label) in enumerate(pictures):
            data, name = io.BytesIO(), f"img{index:08d}.png"
            image.save(data, format="png", optimize=True)
            archive.writestr(name, data.getvalue())
            labels.append([name, label])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))


def write_sheet(path: Path, images: list[Image.Image], columns: int = 32) -> None:
    """Write all images on one sheet, row by row, without loss."""
    side = images[0].width
    canvas = Image.new("RGB", (columns * side, -(-len(images) // columns) * side), "white")
    for index, image in enumerate(images):
        canvas.paste(image, (index % columns * side, index // columns * side))
    canvas.save(path, lossless=True, quality=100, method=6)


@click.command()
@click.argument("font", type=click.Path(path_type=Path, exists=True))
@click.argument("outfile", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(list(KINDS)), default="people", show_default=True)
@click.option("--side", default=64, show_default=True)
@click.option("--gray", is_flag=True, help="In one channel")
@click.option("--heldout", type=click.Path(path_type=Path), help="Zip that every fourth picture goes to")
def main(font: Path, outfile: Path, kind: str, side: int, gray: bool, heldout: Path | None) -> None:
    loaded = ImageFont.truetype(str(font), STRIKE)
    if outfile.suffix == ".webp":
        images = [draw(loaded, emoji, 32) for faces in KINDS.values() for emoji, _ in faces]
        write_sheet(outfile, images)
        print(f"{outfile}: " + ", ".join(f"{len(faces)} {name}" for name, faces in KINDS.items()))
        return
    pictures = [(draw(loaded, emoji, side), label) for emoji, label in KINDS[kind]]
    if gray:
        pictures = [(image.convert("L"), label) for image, label in pictures]
    kept = [one for index, one in enumerate(pictures) if heldout is None or index % 4]
    write(outfile, kept)
    if heldout is not None:
        write(heldout, pictures[::4])
    print(f"{outfile}: {len(kept)} of {len(pictures)} pictures, {side}x{side}")


if __name__ == "__main__":
    main()
