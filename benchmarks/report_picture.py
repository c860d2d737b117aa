"""Take a screenshot of a report: docs/pictures/report.png.

    python benchmarks/report_picture.py RUNS OUT      # needs a Chromium, and pip install -e '.[report]'

RUNS is a folder of finished runs with two configurations: here `none --aug=noaug` and `diffaugment` of the comparison
`where-t` in claims.sh. The picture is shorter than the page: it has a few sections without paths, no tables, and only
the first runs, samples and metrics."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np
from PIL import Image

from stylegan_plugins.report import page

WIDTH, HEIGHT, MARGIN = 900, 4000, 16  # of the window, in pixels; the empty space below is cut off
SHOWN = "#verdict, #samples, #metrics, #group2"  # the last one: Scores of D
SHORTER = f"""<style>
main > section:not({SHOWN}), footer, details, .stage:nth-of-type(n+2), .picture:nth-of-type(n+3),
#metrics .cards > div:nth-child(n+3), #metrics .scroll, #metrics .scroll + p, #group2 .cards + p {{ display: none }}
</style></head>"""
COLORS = 128  # of the palette


def screenshot(html: Path, out: Path) -> None:
    """Let Chromium write a PNG of a page. Raises ClickException if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        raise click.ClickException(f"no Chromium: none of {', '.join(names)} is installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
    subprocess.run([browser, *flags, f"--screenshot={out}", html.as_uri()], check=True, capture_output=True)


def without_empty_end(picture: Image.Image) -> Image.Image:
    """Return a picture without the rows of one color below its last content."""
    pixels = np.asarray(picture)
    content = np.flatnonzero((pixels != pixels[-1, -1]).any(axis=(1, 2)))
    return picture.crop((0, 0, picture.width, min(picture.height, int(content[-1]) + 1 + MARGIN)))


@click.command(help=__doc__)
@click.argument("runs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(runs: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        html, shot = Path(folder) / "report.html", Path(folder) / "report.png"
        page.write([runs], html)
        text = html.read_text(encoding="utf-8")
        html.write_text(text.replace("</head>", SHORTER, 1), encoding="utf-8")
        screenshot(html, shot)
        with Image.open(shot) as picture:
            shown = without_empty_end(picture.convert("RGB"))
    shown.quantize(COLORS, dither=Image.Dither.NONE).save(out, optimize=True)
    click.echo(f"{out}: {shown.width}x{shown.height}, {out.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
