"""Draw the figures of docs/pictures/, or compare them with `--check`.

    python docs/make_pictures.py

iteration.svg  the data flow of one training iteration, with the places of parts and hooks
methods.svg    the same flow with the plug-ins that have something at each place
claims.svg     the claims of docs/inside/results.md, as intervals

A test compares: draw again when a plug-in gets a new part or hook, or when benchmarks/claims.toml or its results
change."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "benchmarks"))  # for claims.py

from drawing.claims import claims_picture  # noqa: E402
from drawing.iteration import iteration  # noqa: E402
from drawing.methods import methods  # noqa: E402

FOLDER = HERE / "pictures"
PICTURES = {"iteration.svg": iteration, "methods.svg": methods, "claims.svg": claims_picture}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        file, svg = FOLDER / name, draw()
        if sys.argv[1:] == ["--check"]:
            if not file.exists() or file.read_text(encoding="utf-8") != svg:
                sys.exit(f"docs/pictures/{name} is not what the code says; run: python docs/make_pictures.py")
        else:
            file.write_text(svg, encoding="utf-8", newline="\n")
