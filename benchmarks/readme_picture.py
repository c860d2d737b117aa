"""The README's picture: photographs and samples of a run side by side, unpicked.

python benchmarks/readme_picture.py RUN_DIR docs/demo.png"""

import sys
from pathlib import Path

import PIL.Image

SIDE, COLUMNS, ROWS, GAP, ZOOM = 32, 8, 6, 16, 2

run = Path(sys.argv[1])
canvas = PIL.Image.new("RGB", ((2 * COLUMNS * SIDE + GAP), ROWS * SIDE), "white")
for index, file in enumerate((run / "reals.png", max(run.glob("fakes0*.png")))):
    crop = PIL.Image.open(file).convert("RGB").crop((0, 0, COLUMNS * SIDE, ROWS * SIDE))
    canvas.paste(crop, (index * (COLUMNS * SIDE + GAP), 0))
canvas.resize((canvas.width * ZOOM, canvas.height * ZOOM), PIL.Image.Resampling.NEAREST).save(sys.argv[2])
