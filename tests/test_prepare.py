"""Pictures as people have them become a data set of the hosts: each row of "What data can look like" in
docs/start/images.md, and random folders."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import datasets, prepare, sources
from stylegan_plugins.files.prepare import How, usable

pytestmark = pytest.mark.unit

CAT = PIL.Image.fromarray(skimage.data.chelsea()).resize((90, 60))
GRAY = CAT.convert("L")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def bytes_of(image: PIL.Image.Image, kind: str = "PNG", **how) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def folder(top: Path, files: dict[str, bytes | PIL.Image.Image]) -> Path:
    """Write a folder of files by name."""
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content if isinstance(content, bytes) else bytes_of(content))
    return top


def as_zip(source: Path, names=lambda name: name, **how) -> Path:
    path = source.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", **how) as archive:
        for file in sorted(source.rglob("*")):
            if file.is_file():
                archive.writestr(names(file.relative_to(source).as_posix()), file.read_bytes())
    return path


def made(path: str) -> tuple[dict[str, np.ndarray], dict]:
    """Return pixels by name [H, W, C] and dataset.json of a prepared data set."""
    names, images = datasets.read_images(path)
    pixels = {name: image.transpose(1, 2, 0) for name, image in zip(names, images, strict=True)}
    with zipfile.ZipFile(path) as archive:
        labels = json.loads(archive.read("dataset.json")) if "dataset.json" in archive.namelist() else {}
    return pixels, labels


def near(pixels: np.ndarray, image: PIL.Image.Image, how=PIL.ImageOps.fit) -> float:
    expected = np.asarray(how(image, pixels.shape[:2], PIL.Image.Resampling.LANCZOS).convert("RGB"))
    return float(np.abs(pixels.astype(float) - expected).mean())


# --- Pictures. ---


def test_what_is_a_data_set_is_used_as_it_is(tmp_path, capsys):
    path = folder(tmp_path / "set", {f"{i}.png": CAT.resize((16, 16)) for i in range(2)} | {"notes.txt": b"x"})
    assert usable(str(path)) == str(path) and usable(str(as_zip(path))) == str(as_zip(path))
    assert capsys.readouterr().out == ""


ORIENTATION = PIL.Image.Exif()
ORIENTATION[0x0112] = 6  # to be turned clockwise
GLASS = CAT.convert("RGBA")
GLASS.putalpha(0)
DEEP = PIL.Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257)
KINDS = {
    "turned.jpg": (bytes_of(CAT.rotate(90, expand=True), "JPEG", exif=ORIENTATION, quality=95), CAT),
    "palette.gif": (bytes_of(CAT.quantize(256), "GIF"), CAT),
    "print.jpg": (bytes_of(CAT.convert("CMYK"), "JPEG", quality=95), CAT),
    "paper.tif": (bytes_of(CAT.convert("CMYK"), "TIFF"), CAT),
    "web.webp": (bytes_of(CAT, "WEBP", lossless=True), CAT),
    "new.avif": (bytes_of(CAT, "AVIF", quality=95), CAT),
    "bits.bmp": (bytes_of(CAT, "BMP"), CAT),
    "phone.heic": (bytes_of(CAT, "HEIF", quality=95), CAT),  # prepare has registered it
    "film.jp2": (bytes_of(CAT, "JPEG2000"), CAT),
    "plain.ppm": (bytes_of(CAT, "PPM"), CAT),
    "game.tga": (bytes_of(CAT, "TGA"), CAT),
    "glass.png": (bytes_of(GLASS), PIL.Image.new("RGB", CAT.size, "white")),
    "gray.png": (bytes_of(GRAY), GRAY),
    "scan.png": (bytes_of(DEEP), GRAY),
    "fractions.tif": (bytes_of(PIL.Image.fromarray(np.asarray(GRAY, np.float32) / 255), "TIFF"), GRAY),
    "upper.JPG": (bytes_of(CAT, "JPEG", quality=95), CAT),
    "frames.gif": (bytes_of(CAT.quantize(256), "GIF", save_all=True, append_images=[GRAY]), CAT),
}


def test_pictures_of_every_kind_become_what_they_show(tmp_path, capsys):
    path = folder(tmp_path / "photos", {name: data for name, (data, _) in KINDS.items()} | {"straight.png": CAT})
    pixels, _ = made(usable(str(path)))
    assert len(pixels) == len(KINDS) + 1
    for name, (_, shown) in KINDS.items():
        found = pixels[str(Path(name).with_suffix(".png"))]
        assert found.shape == (32, 32, 3) and near(found, shown) < 5, name
    said = capsys.readouterr().out
    for line in (
        "turned as their EXIF data say: 1 (turned.jpg)",
        "now on white: 1 (glass.png)",
        "among colored ones: 3",
    ):
        assert line in said
    assert "with several frames or pages, of which the first is taken: 1 (frames.gif)" in said


def test_gray_pictures_stay_gray_and_small_sets_are_told(tmp_path, capsys):
    path = folder(tmp_path / "scans", {"a.png": GRAY, "b.png": DEEP, "c.png": GRAY.convert("1")})
    pixels, _ = made(usable(str(path)))
    assert {image.shape for image in pixels.values()} == {(32, 32, 1)}
    assert "3 pictures are few" in capsys.readouterr().out
    assert made(usable(str(path), How(colors="rgb")))[0]["a.png"].shape == (32, 32, 3)
    assert made(usable(str(folder(tmp_path / "c", {"a.png": CAT})), How(colors="gray")))[0]["a.png"].shape == (
        32,
        32,
        1,
    )


def test_twelve_bits_are_told_and_stretched_over_the_set(tmp_path, capsys):
    ramp = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    path = folder(tmp_path / "xray", {"a.png": PIL.Image.fromarray(ramp), "b.png": PIL.Image.fromarray(ramp // 2)})
    assert made(usable(str(path)))[0]["a.png"].max() == 16
    said = capsys.readouterr().out
    assert "2 pictures of more than 8 bits use 0 to 4095 of 0 to 65535" in said and "--stretch maps" in said
    pixels, _ = made(usable(str(path), How(stretch=True)))
    assert pixels["a.png"].max() == 255 and pixels["b.png"].max() in (127, 128)  # of the set, not of each picture
    assert np.abs(pixels["a.png"][..., 0] - ramp * (255 / 4095)).max() <= 0.5


def test_values_that_would_wrap_are_refused(tmp_path):
    for name, values in (
        ("over.tif", np.full((16, 16), 70_000, np.int32)),
        ("below.tif", np.full((16, 16), -1.0, "f4")),
    ):
        path = folder(tmp_path / name[:4], {name: bytes_of(PIL.Image.fromarray(values), "TIFF"), "a.png": GRAY})
        with pytest.raises(DataError, match=f"{name} in .* has values from .* is white. Give --stretch"):
            usable(str(path))
        assert len(made(usable(str(path), How(stretch=True)))[0]) == 2
    nothing = np.full((16, 16), np.nan, np.float32)
    path = folder(tmp_path / "nan", {"n.tif": bytes_of(PIL.Image.fromarray(nothing), "TIFF")})
    with pytest.raises(DataError, match="none of 1 pictures .* n.tif .it has values that are not numbers"):
        usable(str(path))


def test_dark_sixteen_bit_colors_are_refused(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = (np.asarray(CAT).astype(np.uint16) << 4).astype(">u2").reshape(60, -1)  # 12 bits
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 90, 60, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="16-bit pictures in .* a.png goes to .*%. Convert them to 8 bits first"):
        usable(str(folder(tmp_path / "photos", {"a.png": png})))


def test_square_jpegs_that_lie_on_their_side_are_turned(tmp_path):
    square = CAT.resize((16, 16))
    sideways = bytes_of(square.rotate(90), "JPEG", exif=ORIENTATION, quality=95)
    path = folder(tmp_path / "set", {"a.jpg": sideways, "b.jpg": bytes_of(square, "JPEG")})
    assert near(made(usable(str(path)))[0]["a.png"], square) < 6
    with pytest.raises(DataError, match="a.jpg in .*it lies on its side, as its EXIF data say"):
        datasets.check_dataset(path)


def test_size_crop_and_pad(tmp_path, capsys):
    path = str(folder(tmp_path / "photos", {f"{i}.png": CAT for i in range(9)} | {"small.png": CAT.resize((20, 20))}))
    assert made(usable(path))[0]["0.png"].shape[:2] == (32, 32)  # nine of ten reach 32
    assert "pictures that are smaller than 32, enlarged: 1 (small.png)" in capsys.readouterr().out
    pixels = made(usable(path, How(size=64, crop="pad")))[0]["0.png"]
    assert pixels.shape[:2] == (64, 64) and pixels[:8].min() == 255 and pixels[30].min() < 255
    assert near(made(usable(path, How(crop="fit")))[0]["0.png"], CAT, lambda image, size, _: image.resize(size)) < 5
    with pytest.raises(DataError, match="too small: 7 pixels"):
        usable(str(folder(tmp_path / "icons", {"a.png": CAT.resize((7, 7))})))


def test_pictures_that_fit_keep_their_bytes(tmp_path):
    right = bytes_of(CAT.resize((64, 64)), "JPEG")
    path = usable(str(folder(tmp_path / "photos", {"right.jpg": right, "wrong.png": CAT.resize((70, 64))})))
    with zipfile.ZipFile(path) as archive:
        assert archive.read("right.jpg") == right


# --- Files of operating systems, and files that are not pictures. ---


CLUTTER = {
    ".ipynb_checkpoints/cat-checkpoint.png": bytes_of(CAT),
    "__MACOSX/cats/._a.png": b"\0\5\26\7",
    "cats/._a.png": b"\0\5\26\7",
    "cats/.DS_Store": b"x",
    "Thumbs.db": b"x",
    "desktop.ini": b"x",
    "@eaDir/a.jpg": bytes_of(CAT),
    "cats/empty.png": b"",
}


@pytest.mark.parametrize("packed", [False, True])
def test_clutter_is_left_out_and_told_once_and_is_no_class(packed, tmp_path, capsys):
    path = folder(
        tmp_path / "photos", {"cats/a.png": CAT, "dogs/b.png": GRAY.convert("RGB"), "read me.txt": b"x"} | CLUTTER
    )
    path = as_zip(path) if packed else path
    pixels, labels = made(usable(str(path), How(cond=True)))
    assert list(pixels) == ["cats/a.png", "dogs/b.png"] and labels["classes"] == ["cats", "dogs"]
    said = capsys.readouterr().out
    assert said.count(f"hidden, empty and system files, left out: {len(CLUTTER)} (") == 1
    assert "files that are not pictures, left out: 1 (read me.txt)" in said
    assert "2 classes of" in said and "0 cats: 1, 1 dogs: 1" in said


def test_a_data_set_with_clutter_in_it_is_cleaned(tmp_path):
    path = folder(tmp_path / "set", {"a.png": CAT.resize((16, 16)), ".ipynb_checkpoints/a.png": CAT.resize((16, 16))})
    assert list(made(usable(str(path)))[0]) == ["a.png"]


def test_what_cannot_be_read_is_named_and_left_out(tmp_path, capsys):
    jpeg = bytes_of(CAT, "JPEG")
    files = {"a.png": CAT, "cut.jpg": jpeg[:900], "text.png": b"<html>", "bomb.png": bytes_of(CAT)[:16] + b"\xff" * 200}
    assert list(made(usable(str(folder(tmp_path / "photos", files))))[0]) == ["a.png"]
    assert "that cannot be read, left out: 3 (bomb.png (" in capsys.readouterr().out
    with pytest.raises(
        DataError, match="none of 1 pictures in .* can be read; the first: text.png .it is not a picture"
    ):
        usable(str(folder(tmp_path / "none", {"text.png": b"<html>"})))
    assert not list((tmp_path / "cache").rglob("*.tmp")) and not list((tmp_path / "cache").rglob("none.zip"))


def test_near_duplicates_are_told(tmp_path, capsys):
    rocket = PIL.Image.fromarray(skimage.data.rocket())
    usable(
        str(folder(tmp_path / "photos", {"a.png": CAT, "b.jpg": bytes_of(CAT, "JPEG", quality=60), "c.png": rocket}))
    )
    assert "that look like another one: 1 (b.jpg (like a.png))" in capsys.readouterr().out


def test_progress_is_told_in_lines_where_there_is_no_terminal(tmp_path, monkeypatch, capsys):
    pictures = folder(tmp_path / "photos", {f"{index}.png": PIL.Image.new("RGB", (9, 9)) for index in range(3)})
    monkeypatch.setattr(prepare, "LINES_SECONDS", 0, raising=False)
    usable(str(pictures))
    lines = [f"{label}: {done} of 3" for label in ("Looking at pictures", "Preparing pictures") for done in range(3)]
    assert capsys.readouterr().err.splitlines() == lines


def test_links_to_folders_are_followed_once(tmp_path):
    folder(tmp_path / "elsewhere", {"a.png": CAT, "b.png": CAT})
    for name in ("photos", "set"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cats").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/again").symlink_to(tmp_path / "photos")
    assert len(made(usable(str(tmp_path / "photos")))[0]) == 2
    folder(tmp_path / "set", {"c.png": CAT})
    assert len(made(usable(str(tmp_path / "set")))[0]) == 3


# --- What is given in place of pictures. ---


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.zip", b"", "an empty file. Give a folder or zip"),
        ("x.zip", b"words", "neither a folder nor a zip"),
        ("x.zip", b"PK\3\4 cut", "cannot be read as a zip .*truncated. Copy or download it again"),
        ("x.7z", b"7z\xbc\xaf\x27\x1c", "a 7z archive. Unpack it, and give the folder"),
        ("x.rar", b"Rar!\x1a\7", "a RAR archive. Unpack it"),
        ("x.zip", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("x.zip", b"<!DOCTYPE html>", "a web page"),
        ("x.tar", b"\0" * 257 + b"ustar\0", "a tar archive. Unpack it"),
    ],
)
def test_other_files_are_named_for_what_they_are(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"--data: .*{name} (is )?{message}") as error:
        usable(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_archives_that_python_cannot_read_are_named(tmp_path):
    whole = as_zip(folder(tmp_path / "photos", {"a.png": CAT})).read_bytes()
    for number, message in ((9, "Deflate64, as Windows' Explorer does"), (93, "method 93"), (-1, "is encrypted")):
        data = bytearray(whole)
        for at in (whole.index(b"PK\3\4"), whole.index(b"PK\1\2") + 2):
            if number < 0:
                data[at + 6] |= 1
            else:
                data[at + 8 : at + 10] = struct.pack("<H", number)
        (tmp_path / "x.zip").write_bytes(data)
        with pytest.raises(DataError, match=f"x.zip .*{message}.* Unpack it, and give the folder."):
            usable(str(tmp_path / "x.zip"))


def test_a_folder_without_pictures_says_what_is_there(tmp_path):
    with pytest.raises(DataError, match="no pictures in .*raw, but files that end in .cr2"):
        usable(str(folder(tmp_path / "raw", {"a.cr2": b"x", "b.cr2": b"x"})))
    with pytest.raises(DataError, match="hidden, empty or system files"):
        usable(str(folder(tmp_path / "empty", {"a.png": b""})))


# --- Labels. ---

TWO = {"a.png": CAT, "b/c.jpg": bytes_of(GRAY, "JPEG")}
ROWS = {
    "backslashes": [["a.png", 0], ["b\\c.jpg", 1]],
    "dots": [["./a.png", 0], ["./b/c.jpg", 1]],
    "another ending": [["a.jpeg", 0], ["b/c.PNG", 1]],
    "no ending": [["a", 0], ["b/c", 1]],
    "letter case": [["A.PNG", 0], ["B/C.JPG", 1]],
    "no folder": [["a.png", 0], ["c.jpg", 1]],
    "fractions that are none": [["a.png", 0.0], ["b/c.jpg", 1.0]],
    "a dictionary": {"a.png": 0, "b/c.jpg": 1},
    "the same twice": [["a.png", 0], ["b/c.jpg", 1], ["a.png", 0]],
    "further ones": [["a.png", 0], ["b/c.jpg", 1], ["gone.png", 5]],
    "names": [["a.png", "ant"], ["b/c.jpg", "bee"]],
}


def labelled(top: Path, rows, files=TWO, name="dataset.json") -> Path:
    return folder(top, files | {name: json.dumps({"labels": rows}).encode()})


@pytest.mark.parametrize("what", ROWS)
@pytest.mark.parametrize("packed", [False, True])
def test_labels_are_found_however_names_are_written(what, packed, tmp_path):
    path = labelled(tmp_path / "photos", ROWS[what])
    _, labels = made(usable(str(as_zip(path) if packed else path), How(cond=True)))
    assert labels["labels"] == [["a.png", 0], ["b/c.png", 1]]
    assert labels["classes"] == (["ant", "bee"] if what == "names" else None)


def test_lists_of_numbers_are_labels(tmp_path, capsys):
    _, labels = made(usable(str(labelled(tmp_path / "p", [["a.png", [0.5, 1]], ["b/c.jpg", [0, 2]]])), How(cond=True)))
    assert labels["labels"] == [["a.png", [0.5, 1.0]], ["b/c.png", [0.0, 2.0]]]
    assert "2 numbers for each picture" in capsys.readouterr().out


def test_a_zip_with_everything_in_a_folder_is_read(tmp_path):
    path = labelled(tmp_path / "p", [["a.png", 0], ["b/c.jpg", 1]])
    packed = as_zip(path, lambda name: f"my data/{name}")
    assert made(usable(str(packed), How(cond=True)))[1]["labels"] == [["my data/a.png", 0], ["my data/b/c.png", 1]]
    classes = as_zip(folder(tmp_path / "q", {"cat/1.png": CAT, "dog/x/2.png": CAT}), lambda name: f"q/{name}")
    assert made(usable(str(classes), How(cond=True)))[1]["classes"] == ["cat", "dog"]
    backslashes = as_zip(tmp_path / "q", lambda name: name.replace("/", "\\"))
    assert made(usable(str(backslashes), How(cond=True)))[1]["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["", "name{}class\n"])
def test_a_table_of_names_and_classes_is_read(separator, head, tmp_path):
    text = head + "a.png{}1999\nb/c.jpg{}2020\n"
    files = TWO | {"labels.csv": ("\ufeff" + text.replace("{}", separator)).encode()}
    _, labels = made(usable(str(folder(tmp_path / "p", files)), How(cond=True)))
    assert (labels["labels"], labels["classes"]) == ([["a.png", 0], ["b/c.png", 1]], ["1999", "2020"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["a.png", 1], ["b/c.jpg", 2]], "pictures in 2 of 3 classes, none in 0. Number .* --allow-empty-classes"),
        ([["a.png", 1999], ["b/c.jpg", 2020]], r"in 2 of 2021 classes, none in 0, 1, 2, 3, 4, \.\.\."),
        ([["a.png", 0], ["b/c.jpg", 1], ["a.png", 1]], "two labels for a.png: 0 and 1. Keep one"),
        ([["a.png", 0], ["./a.png", 1], ["b/c.jpg", 1]], "two labels for ./a.png: 0 and 1"),
        ([["a.png", float("nan")], ["b/c.jpg", 1]], "NaN for a.png; its other labels are class numbers"),
        ([["a.png", [0, float("inf")]], ["b/c.jpg", [0, 1]]], r"\[0, Infinity\] for a.png; .* lists of 2 finite"),
        ([["a.png", 0], ["b/c.jpg", None]], "null for b/c.jpg; its other labels are class numbers"),
        ([["a.png", 0], ["b/c.jpg", 0.5]], "0.5 for b/c.jpg"),
        ([["a.png", True], ["b/c.jpg", 1]], "true for a.png"),
        ([["a.png", -1], ["b/c.jpg", 1]], "-1 for a.png"),
        ([["a.png", 10**400], ["b/c.jpg", 1]], r"10000.*\.\.\. for a.png"),
        ([["a.png", 2**40], ["b/c.jpg", 1]], "1099511627776 for a.png"),
        ([["a.png", None], ["b/c.jpg", None]], "null for a.png; expected class numbers"),
        ([["a.png", 0]], "no label for b/c.jpg .1 of 2 are missing"),
        ([["a.png", 0], ["b/cc.jpg", 1]], "no label for b/c.jpg .*it names b/cc.jpg"),
        ([[3, 0], ["b/c.jpg", 1]], "3 for the name of a picture"),
        ([["a.png", 0, 1]], 'is not {"labels"'),
        (3, 'is not {"labels"'),
    ],
)
def test_labels_that_cannot_be_meant_are_refused_and_named(rows, message, tmp_path, capsys):
    path = labelled(tmp_path / "photos", rows)
    for data in (str(path), str(as_zip(path))):
        with pytest.raises(DataError, match=message) as error:
            usable(data, How(cond=True))
        assert "\n" not in str(error.value) and len(str(error.value)) < 600
        usable(data)  # they are not needed
    assert "empty" in message or "classes, none" in message or "Without labels" in capsys.readouterr().out


def test_labels_of_a_data_set_are_looked_at_too(tmp_path):
    files = {f"{i}.png": CAT.resize((16, 16)) for i in range(2)}
    path = labelled(tmp_path / "set", [["0.png", 1], ["1.png", 2]], files)
    assert usable(str(path)) == str(path)
    with pytest.raises(DataError, match="none in 0"):
        usable(str(path), How(cond=True))
    assert usable(str(path), How(cond=True, allow_empty_classes=True)) == str(path)
    with pytest.raises(DataError, match="two labels for 0.png"):
        usable(str(labelled(tmp_path / "set", [["0.png", 1], ["1.png", 0], ["0.png", 0]], files)), How(cond=True))


def test_files_of_labels_that_cannot_be_read_are_one_line(tmp_path):
    packed = as_zip(labelled(tmp_path / "packed", [["a.png", 0], ["b/c.jpg", 1]]))
    data = packed.read_bytes()
    packed.write_bytes(data.replace(b'{"labels"', b'{"lAbels"', 1))
    with pytest.raises(DataError, match="dataset.json in .* cannot be read .Bad CRC-32"):
        usable(str(packed), How(cond=True))
    bad = {
        '{"labels": [["caf\u00e9.png", 0]]}'.encode("latin-1") * 4000: "dataset.json in .* is not in UTF-8 .byte",
        b'{"labels": [': "dataset.json in .* is not JSON",
        b"[" * 100_000: "dataset.json in .* is (not|no JSON)",
    }
    for content, message in bad.items():
        path = folder(tmp_path / "photos", TWO | {"dataset.json": content})
        with pytest.raises(DataError, match=message) as error:
            usable(str(path), How(cond=True))
        assert len(str(error.value)) < 400
    table = folder(tmp_path / "other", TWO | {"labels.csv": b"name,class\na.png,1\nb/c.jpg\n"})
    with pytest.raises(DataError, match='line 3 of labels.csv in .* is ."b/c.jpg".'):
        usable(str(table), How(cond=True))
    two = folder(tmp_path / "two", TWO | {"dataset.json": b"{}", "b/dataset.json": b"{}"})
    with pytest.raises(DataError, match="2 files of labels: .*Keep one"):
        usable(str(two), How(cond=True))


def test_without_labels_classes_cannot_be_trained(tmp_path):
    for files in ({"a.png": CAT}, {"00000/img00000000.png": CAT, "00001/img00001000.png": CAT}):
        path = folder(tmp_path / str(len(files)), files)
        with pytest.raises(DataError, match="--cond=1: .* has no labels. Put the pictures of each class into its own"):
            usable(str(path), How(cond=True))
    with pytest.raises(OptionError, match="--allow-empty-classes: classes are not used"):
        How.take({"allow_empty_classes": True})


# --- The cache. ---


def test_pictures_are_prepared_once_until_they_change(tmp_path, monkeypatch, cache):
    path = folder(tmp_path / "photos", {"a.png": CAT, "b.png": CAT.rotate(90)})
    first = usable(str(path))
    content = Path(first).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_prepare", None)
        assert usable(str(path)) == first == usable(os.path.relpath(path))
    folder(path, {"c.png": CAT.rotate(180)})
    assert usable(str(path)) != first
    (path / "c.png").unlink()
    shutil.rmtree(cache)
    assert usable(str(path)) == first and Path(first).read_bytes() == content


def test_a_run_tells_others_how_its_pictures_were_prepared(tmp_path):
    how = How(size=16, crop="pad", colors="gray")
    pictures = how.record(tmp_path / "photos")
    record = {"training_set_kwargs": {"resolution": 16}, "pictures": pictures}
    (tmp_path / "training_options.json").write_text(json.dumps(record))
    assert How.of_run(tmp_path) == how and record["pictures"]["source"] == str(tmp_path / "photos")
    for wrong in ({"crop": "x"}, {"stretch": 3}, {"size": "x"}):
        (tmp_path / "training_options.json").write_text(json.dumps({"pictures": wrong}))
        with pytest.raises(DataError, match="pictures: "):
            How.of_run(tmp_path)
    (tmp_path / "training_options.json").unlink()
    assert How.of_run(tmp_path) == How()


@pytest.mark.unit
def test_a_data_set_of_the_hosts_in_folders_of_classes_gets_their_labels(tmp_path, monkeypatch):
    """The hosts read no labels but dataset.json, which it lacks."""
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "ready.zip", "w") as archive:
        for index in range(24):
            pixels = io.BytesIO()
            PIL.Image.fromarray(np.full([16, 16, 3], index, np.uint8)).save(pixels, format="png")
            archive.writestr(f"{'cat' if index % 2 else 'dog'}/{index:02}.png", pixels.getvalue())
    data = str(tmp_path / "ready.zip")
    assert usable(data) == data
    found = prepare.prepared(data, How(cond=True))
    assert found.path != data and datasets.labels_fingerprint(found.path) and found.class_names == ["cat", "dog"]


@pytest.mark.parametrize("label", [0, "cat"])
def test_the_label_of_a_picture_that_is_left_out_goes_to_no_other(tmp_path, label):
    picture = bytes_of(CAT, "PNG")
    labels = {"dataset.json": json.dumps({"labels": [["cat/a.png", label], ["b.png", label]]}).encode()}
    for name, content in (("empty", b""), ("broken", picture[:50])):
        path = folder(tmp_path / name, {"a.png": picture, "b.png": picture, "cat/a.png": content, **labels})
        with pytest.raises(DataError, match=r"has no label for a.png \(1 of 2 are missing"):
            usable(str(path), How(cond=True))


# --- Random folders. ---

MODES = st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
NAMES = st.sampled_from(
    ["a", "b", "cat/a", "cat/b", "dog/c", "dog/deep/d", "._x", "cat/.y", "__MACOSX/z", "\u00e9", "k\\m"]
)
LABELS = st.sampled_from([0, 1, 2, 7, None, 0.5, float("nan"), "cat", [1, 0], [0.5], True, -3])


@st.composite
def pictures(draw):
    """Return files by name, and the class of each that has one."""
    files: dict[str, bytes] = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=6, unique=True)):
        if draw(st.integers(0, 5)) == 0:
            files[f"{name}.png"] = draw(st.binary(max_size=40))
            continue
        mode, size = draw(MODES), draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
        image = CAT.resize(size)
        if mode == "I;16":
            image = PIL.Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * draw(st.integers(1, 257)))
        else:
            image = image.convert(mode)
        kind = {"CMYK": "TIFF", "F": "TIFF"}.get(mode, "PNG")
        files[f"{name}.{kind.lower()}"] = bytes_of(image, kind)
    form = draw(st.sampled_from(["none", "json", "csv", "noise"]))
    rows = [[name, draw(LABELS)] for name in files if draw(st.integers(0, 6))]
    if form == "json":
        files["dataset.json"] = json.dumps({"labels": rows}).encode()
    elif form == "csv":
        files["labels.csv"] = "".join(f"{name},{label}\n" for name, label in rows).encode()
    elif form == "noise":
        files["dataset.json"] = draw(st.binary(max_size=60))
    return files, form, {name: label for name, label in rows}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pictures(), st.booleans(), st.booleans(), st.booleans())
def test_random_folders_are_right_or_one_line(tmp_path_factory, found, packed, cond, stretch):
    files, form, given_labels = found
    path = folder(tmp_path_factory.mktemp("random") / "photos", files)
    try:
        data = usable(str(as_zip(path) if packed else path), How(cond=cond, stretch=stretch))
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 700
        return
    pixels, labels = made(data)
    count, side, channels = datasets.check_dataset(data)
    assert count == len(pixels) and {image.shape for image in pixels.values()} == {(side, side, channels)}
    assert not any(sources.is_clutter(name) for name in pixels)
    if not cond:
        return
    classes = dict(labels["labels"])
    assert set(classes) == set(pixels)
    for name in files:
        stem = str(Path(name.replace("\\", "/")).with_suffix(".png"))
        if stem not in classes or name.endswith((".json", ".csv")):
            continue
        if form == "json" and not isinstance(given_labels[name], str):
            assert classes[stem] == given_labels[name]
        elif form in ("json", "csv"):
            assert labels["classes"][classes[stem]] == str(given_labels[name])
        else:
            assert labels["classes"][classes[stem]] in stem
