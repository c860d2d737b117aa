"""Sample data: 100 real photographs of faces, in the zip layout of the hosts' data sets."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image

from stylegan_plugins.errors import DataError
from stylegan_plugins.files.atomic import whole

FACES = 100  # of the 200 images of lfw_subset, the first hundred are faces, the others are not
SIDE = 32


def write_faces(path: Path) -> int:
    """Write the faces of skimage.data.lfw_subset, 25x25 gray, as RGB of 32x32. Returns their number.

    Raises DataError if scikit-image is not installed."""
    try:
        import skimage.data
    except ModuleNotFoundError as error:
        raise DataError("The sample data needs scikit-image: pip install 'stylegan-plugins[demo]'.") from error
    with whole(path) as file, zipfile.ZipFile(file, "w") as archive:
        for index, face in enumerate(skimage.data.lfw_subset()[:FACES]):
            image = PIL.Image.fromarray(np.rint(face * 255).astype(np.uint8))
            data = io.BytesIO()
            image.resize((SIDE, SIDE), PIL.Image.Resampling.LANCZOS).convert("RGB").save(data, "png")
            archive.writestr(f"00000/img{index:08d}.png", data.getvalue())
    return FACES
