"""`interpolate` and `sheet`: walks in w, nearest images, sheets, and what they refuse."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA, STYLEGAN3
from support.images import color_crops, write_zip
from support.pickles import make_pickle
from support.scripts import invoke

from stylegan_plugins.analysis import pictures, sample
from stylegan_plugins.errors import DataError, OptionError


@pytest.mark.unit
@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(1, 7), st.booleans())
def test_a_walk_goes_evenly_through_all_seeds(count, steps, closed):
    ws = [torch.randn([1, 3, 4], dtype=torch.float64) for _ in range(count)]
    path = pictures.between(ws, steps, closed)
    assert len(path) == (count * steps if closed else (count - 1) * steps + 1)
    for index, w in enumerate(ws):
        assert torch.equal(path[index * steps], w)
    ends = [*ws, ws[0]] if closed else ws
    for index, w in enumerate(path[: len(path) if closed else -1]):
        start, part = divmod(index, steps)
        expected = ends[start] + (ends[start + 1] - ends[start]) * part / steps
        torch.testing.assert_close(w, expected, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    images = color_crops(9)
    return images, str(write_zip(tmp_path_factory.mktemp("near") / "crops.zip", images))


@pytest.mark.unit
@pytest.mark.parametrize("features", ["pixels", "efficientnet_lite0"])
def test_an_image_of_the_data_set_is_its_own_nearest(crops, features):
    images, data = crops
    near = pictures.Neighbours(data, pictures.features_by(features, torch.device("cpu")), "")
    order = [4, 0, 7]
    found, distances = near.nearest([images[k] for k in order])
    assert all(np.array_equal(image, images[k]) for image, k in zip(found, order, strict=True))
    assert distances.max() < 1e-3 * float(torch.cdist(near.known, near.known).max())


@pytest.mark.unit
def test_distances_of_pixels_are_root_mean_squares(crops):
    images, data = crops
    near = pictures.Neighbours(data, pictures.pixels, "")
    other = np.clip(images[3].astype(int) + 9, 0, 255).astype(np.uint8)
    _, (distance,) = near.nearest([other])
    every = [np.sqrt(np.mean((image / 127.5 - other / 127.5) ** 2)) for image in images]
    assert distance == pytest.approx(min(every), rel=1e-3)


def picture(path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.array(image)


def read_video(file) -> tuple[dict, list[np.ndarray]]:
    """What a video says of itself, and its frames, uint8 [H, W, 3]."""
    import imageio_ffmpeg

    assert b"moov" in file.read_bytes()[:200]  # the index is in front, so that browsers play it while they load it
    reader = imageio_ffmpeg.read_frames(str(file))
    video = next(reader)
    width, height = video["source_size"]
    return video, [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


@pytest.mark.unit
@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([8, 32, 256, 1024]),
    st.integers(2, 9),
    st.integers(1, 120),
    st.none() | st.floats(0.01, 100),
    st.booleans(),
    st.none() | st.integers(16, 4096),
)
def test_any_settings_of_a_video_are_even_and_as_long_as_asked_or_refused(side, seeds, fps, seconds, loop, size):
    how = dict(fps=fps, frames=24, seconds=seconds, loop=loop, size=size)
    if size is not None and size % 2:
        with pytest.raises(OptionError, match=f"--size={size}: H.264 needs an even number"):
            pictures.Video.of(side, seeds, **how)
        return
    video = pictures.Video.of(side, seeds, **how)
    assert video.side % 2 == 0 and video.side >= (size or max(side, 256)) and video.frames >= 1
    if seconds is not None:
        parts = seeds if loop else seeds - 1
        assert abs(video.frames * parts - seconds * fps) <= parts / 2 + 1e-6 or video.frames == 1


@pytest.mark.unit
def test_a_video_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    video = pictures.Video(24, 2, True, 64)
    with pytest.raises(DataError, match="cannot be written"):
        pictures.write_video([PIL.Image.new("L", (16, 16))], tmp_path / "file" / "x.mp4", video)
    pictures.write_video([PIL.Image.new("L", (16, 16))] * 3, tmp_path / "x.mp4", video)
    assert len(read_video(tmp_path / "x.mp4")[1]) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "x.mp4"]


@pytest.mark.run
@pytest.mark.parametrize("family", [ADA, STYLEGAN3])
def test_pictures_of_a_pickle(fetched, pickles, crops, tmp_path, family):
    common = [str(pickles[family]), f"--data={crops[1]}", f"--outdir={tmp_path}"]
    done = invoke(fetched[family], "interpolate", *common, "--seeds=3,5,8", "--frames=4", "--columns=5", "--trunc=1")
    assert done.returncode == 0, done.stderr
    strip = picture(tmp_path / "interpolation.png")
    assert strip.shape == (64, 160, 3)
    rows = [strip[32:, 32 * k : 32 * (k + 1)] for k in range(5)]
    assert all(any(np.array_equal(row, image) for image in crops[0]) for row in rows)
    with PIL.Image.open(tmp_path / "interpolation.gif") as animation:
        assert animation.n_frames == 12 and animation.size == (32, 32)
    video, frames = read_video(tmp_path / "interpolation.mp4")
    assert video["codec"] == "h264" and video["pix_fmt"].startswith("yuv420p") and video["source_size"] == (256, 256)
    assert len(frames) == 12 and video["fps"] == 24
    shown = np.asarray(PIL.Image.fromarray(strip[:32, :32]).resize((256, 256), PIL.Image.Resampling.BICUBIC))
    assert np.abs(frames[0].astype(int) - shown).mean() < 8  # compressed, colors at half the resolution
    done = invoke(fetched[family], "sheet", *common, "--seeds=3,5,8,9", "--trunc=0.5", "--pairs=2")
    assert done.returncode == 0, done.stderr
    assert "median" in done.stdout and "(seed " in done.stdout
    full = picture(tmp_path / "sheet-full.png")
    assert np.array_equal(full[:32, :32], strip[:32, :32])  # seed 3 is the strip's first frame
    assert not np.array_equal(full, picture(tmp_path / "sheet-trunc0.5.png"))
    worst, nearest = (picture(tmp_path / f"sheet-{name}.png") for name in ("worst", "nearest"))
    assert worst.shape == nearest.shape == (64, 64, 3)
    distance = lambda pair: float(np.mean((pair[:32].astype(float) - pair[32:]) ** 2))
    assert distance(worst[:, :32]) >= distance(worst[:, 32:]) >= distance(nearest[:, 32:]) >= distance(nearest[:, :32])


@pytest.mark.run
def test_pictures_without_the_data_set_have_no_nearest_images(fetched, tmp_path):
    pickle = make_pickle(fetched[ADA], tmp_path / "g.pkl")
    done = invoke(fetched[ADA], "sheet", str(pickle), f"--outdir={tmp_path / 'out'}", "--seeds=0-3")
    assert done.returncode == 0 and "name one with --data" in done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["sheet-full.png", "sheet-trunc0.7.png"]


@pytest.mark.host
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["interpolate", "--seeds=1"], "--seeds=1: 2 or more"),
        (["interpolate", "--seconds=2", "--frames=3"], "--frames=3 has no effect with --seconds"),
        (["interpolate", "--size=301"], "--size=301: H.264 needs an even number"),
        (["interpolate", "--class=0"], "--class=0: this generator has no classes"),
        (["sheet", "--features=nosuch"], "--features=nosuch: there is no such backbone"),
        (["sheet", "--data={small}"], "have 16 pixels and 3 channels"),
    ],
)
def test_what_cannot_be_shown_is_one_line(fetched, pickles, crops, small_zip, tmp_path, arguments, message):
    command, *flags = [argument.format(small=small_zip) for argument in arguments]
    common = [str(pickles[ADA]), f"--data={crops[1]}", f"--outdir={tmp_path / 'out'}"]
    done = invoke(fetched[ADA], command, *common, *flags)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.unit
def test_too_few_seeds():
    with pytest.raises(OptionError, match="--seeds=4-5: 3 or more"):
        sample.seeds_of("4-5", 3)
