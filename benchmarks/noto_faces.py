"""Portraits of Noto Color Emoji as a data set: aligned, colored faces with labels.

    python benchmarks/noto_faces.py NotoColorEmoji.ttf faces.zip [--side 64] [--gray] [--heldout heldout.zip]

The font comes with Debian's fonts-noto-color-emoji (image sources under the Apache License 2.0, the font under the SIL
Open Font License 1.1). 564 pictures: people of several ages, hair styles and professions in six skin colors, on white.
With --heldout every fourth picture goes there instead: a held-out set. Labels are the skin colors, in the order of
Unicode's modifiers after the yellow default."""

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


def faces() -> list[tuple[str, int]]:
    """Return each emoji with the index of its skin color."""
    return [
        (person + skin + rest, index)
        for people, endings in PEOPLE
        for person in people
        for index, skin in enumerate(SKINS)
        for rest in endings
    ]


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


@click.command()
@click.argument("font", type=click.Path(path_type=Path, exists=True))
@click.argument("outfile", type=click.Path(path_type=Path))
@click.option("--side", default=64, show_default=True)
@click.option("--gray", is_flag=True, help="In one channel")
@click.option("--heldout", type=click.Path(path_type=Path), help="Zip that every fourth picture goes to")
def main(font: Path, outfile: Path, side: int, gray: bool, heldout: Path | None) -> None:
    loaded = ImageFont.truetype(str(font), STRIKE)
    pictures = [(draw(loaded, emoji, side), label) for emoji, label in faces()]
    if gray:
        pictures = [(image.convert("L"), label) for image, label in pictures]
    kept = [one for index, one in enumerate(pictures) if heldout is None or index % 4]
    write(outfile, kept)
    if heldout is not None:
        write(heldout, pictures[::4])
    print(f"{outfile}: {len(kept)} of {len(pictures)} pictures, {side}x{side}")


if __name__ == "__main__":
    main()
