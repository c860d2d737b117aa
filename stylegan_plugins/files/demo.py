"""Sample data in the hosts' layout: faces of Noto Color Emoji, which come with the package, and photographs. Also a
small pretrained network."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan_plugins.errors import DataError
from stylegan_plugins.files.atomic import whole

if TYPE_CHECKING:
    import PIL.Image

# benchmarks/noto_faces.py made faces.webp: 32x32 pixels each, 32 in a row, the kinds one after the other. Image sources
# of Noto Emoji are under the Apache License 2.0, the font under the SIL Open Font License 1.1.
SHEET = Path(__file__).with_name("faces.webp")
KINDS = {"smileys": 106, "animals": 35, "people": 564}
PHOTOGRAPHS = "photographs"
PHOTOGRAPHED_FACES = 100  # the first 100 of the 200 images of lfw_subset are faces, the others are not
SIDE = 32
# Names that --resume takes. people32: gray portraits of 32x32, trained on `people`; its model card is people32.md.
NETWORKS = {"people32": Path(__file__).with_name("people32.safetensors")}


def network_of(address: str) -> str:
    """Return the file that a name of NETWORKS stands for, or else the given address. An existing file of that name
    wins."""
    return address if Path(address).is_file() else str(NETWORKS.get(address, address))


def write_faces(path: Path, kinds: Sequence[str] = ("smileys",), side: int = SIDE) -> int:
    """Write faces of `kinds`, each a class, as RGB of side x side pixels, at most 32, and return their number.

    `photographs` are the 100 gray faces of 25x25 of skimage.data.lfw_subset. Raises DataError if scikit-image, which
    has them, is not installed."""
    from PIL.Image import Resampling  # not at the top, since `stylegan-plugins list` imports this module

    images = {kind: _photographs() if kind == PHOTOGRAPHS else _emoji(kind) for kind in kinds}
    labels: list[tuple[str, int]] = []
    with whole(path) as file, zipfile.ZipFile(file, "w") as archive:
        for label, faces in enumerate(images.values()):
            for face in faces:
                name, data = f"00000/img{len(labels):08d}.png", io.BytesIO()
                if face.size != (side, side):
                    face = face.resize((side, side), Resampling.LANCZOS)
                face.convert("RGB").save(data, "png")
                archive.writestr(name, data.getvalue())
                labels.append((name, label))
        if len(images) > 1:
            archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return len(labels)


def _emoji(kind: str) -> list[PIL.Image.Image]:
    import PIL.Image

    with PIL.Image.open(SHEET) as sheet:
        columns = sheet.width // SIDE
        first = sum(list(KINDS.values())[: list(KINDS).index(kind)])
        places = [divmod(index, columns) for index in range(first, first + KINDS[kind])]
        return [sheet.crop((x * SIDE, y * SIDE, (x + 1) * SIDE, (y + 1) * SIDE)) for y, x in places]


def _photographs() -> list[PIL.Image.Image]:
    import numpy as np
    import PIL.Image

    try:
        import skimage.data
    except ModuleNotFoundError as error:
        raise DataError("The photographs need scikit-image: pip install 'stylegan-plugins[demo]'.") from error
    faces = skimage.data.lfw_subset()[:PHOTOGRAPHED_FACES]
    return [PIL.Image.fromarray(np.rint(face * 255).astype(np.uint8)) for face in faces]
