"""`interpolate` and `sheet`: walks in w, nearest images, sheets, and what they refuse."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from types import SimpleNamespace

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

from stylegan_plugins.analysis import captioned, pictures, sample, streamed
from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.vision import perceptual
from stylegan_plugins.vision.networks import from_uint8
from training_ext.resize import area

CPU = torch.device("cpu")


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


@pytest.fixture(scope="session")
def trunk(shared):
    """Random weights of AlexNet, as torchvision names them; the package's own measure with the same weights."""
    lpips, torchvision = pytest.importorskip("lpips"), pytest.importorskip("torchvision")

    def fill(top: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.save(torchvision.models.alexnet(weights=None).features.state_dict(), top / "alexnet.pth")

    file = shared("alexnet", fill) / "alexnet.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision
        package = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = torch.load(file, weights_only=True)
    parts = [part for piece in package.net.children() for part in piece.children()]
    torch.nn.Sequential(*parts).load_state_dict(state)
    named = file.with_name("named.pth")  # torchvision's file has a classifier, too
    torch.save(
        {f"features.{name}": value for name, value in state.items()} | {"classifier.1.bias": parts[0].bias}, named
    )
    return named, package


def noise(count: int, channels: int, side: int) -> torch.Tensor:
    return torch.randint(0, 256, [count, channels, side, side], dtype=torch.uint8)


@pytest.mark.unit
@pytest.mark.parametrize("channels, side, seen", [(3, 16, 32), (1, 32, 32), (3, 80, 80), (3, 256, 256), (3, 512, 256)])
def test_lpips_of_features_is_the_packages_own(trunk, channels, side, seen):
    file, package = trunk
    network = perceptual.Perceptual(str(file), CPU)
    one, other = noise(2, channels, side), noise(3, channels, side)
    with torch.no_grad():
        found = streamed.squared(network(one), network(other))
        resized = [from_uint8(images, CPU).expand(-1, 3, -1, -1) for images in (one, other)]
        if seen < side:
            resized = [area(images, seen) for images in resized]
        elif seen > side:
            resized = [torch.nn.functional.interpolate(x, (seen, seen), mode="bilinear") for x in resized]
        pairs = [package(a[None], b[None]) for a in resized[0] for b in resized[1]]
    expected = torch.stack(pairs).reshape(2, 3)
    # Sums of up to 640,000 products, in another order, of values of about 0.1.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert streamed.squared(network(one), network(one)).diagonal().max() == 0


@pytest.mark.unit
def test_nearest_images_by_l1_and_lpips_are_those_of_all_pairs(trunk, crops, monkeypatch):
    images, data = crops
    file, package = trunk
    rng = np.random.default_rng(0)
    samples = [np.clip(images[k] + rng.integers(-20, 20, images[k].shape), 0, 255).astype(np.uint8) for k in (4, 0, 7)]
    samples.append(images[5])
    tensors = [from_uint8(torch.from_numpy(np.stack(these)).permute(0, 3, 1, 2), CPU) for these in (samples, images)]
    l1 = lambda a, b: (a - b).abs().mean()
    for name, measure in (("l1", l1), (f"lpips={file}", lambda a, b: package(a[None], b[None]).squeeze())):
        with torch.no_grad():
            table = torch.stack([torch.stack([measure(a, b) for b in tensors[1]]) for a in tensors[0]])
        near = streamed.StreamedNeighbours(data, *streamed.by_name(name, CPU), "")
        found, distances = near.nearest(samples)
        best = table.argmin(dim=1)
        assert all(np.array_equal(image, images[k]) for image, k in zip(found, best, strict=True))
        np.testing.assert_allclose(distances, table.amin(dim=1), rtol=0, atol=1e-5)
        assert distances[3] == 0
        ranked = near.closest(samples[0], 3)
        order = table[0].argsort(stable=True)[:3]
        assert all(np.array_equal(shown, images[k]) for (shown, _), k in zip(ranked, order, strict=True))
        np.testing.assert_allclose([distance for _, distance in ranked], table[0][order], rtol=0, atol=1e-5)
        monkeypatch.setattr(streamed, "MEMORY", 1)  # one sample at a time
        again, same = near.nearest(samples)
        monkeypatch.undo()
        assert all(map(np.array_equal, again, found)) and np.allclose(same, distances, rtol=0, atol=1e-6)


@pytest.mark.unit
@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 40), st.integers(1, 9))
def test_distances_in_pieces_are_those_of_whole_vectors(count, others, width, piece):
    one, other = torch.rand([count, width]), torch.rand([others, width])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed, "PIECE", piece)
        difference = one[:, None] - other
        torch.testing.assert_close(streamed.absolute(one, other), difference.abs().mean(dim=2))
        torch.testing.assert_close(streamed.squared(one, other), difference.square().sum(dim=2))


@pytest.mark.unit
def test_weights_of_lpips_that_cannot_be_used_are_one_line(trunk, tmp_path, monkeypatch):
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(2)}, other)
    (tmp_path / "text.pth").write_text("no weights")
    for text, error, message in (
        ("lpips=", OptionError, "--features=lpips=: give l1, lpips, or lpips=FILE"),
        ("l1=x", OptionError, "--features=l1=x: give l1"),
        (f"lpips={tmp_path / 'no.pth'}", DataError, "there is no file of weights"),
        (f"lpips={other}", DataError, "has the weights of another network: features.0.weight differs"),
        (f"lpips={tmp_path / 'text.pth'}", DataError, "cannot be read as weights"),
    ):
        with pytest.raises(error, match=message):
            streamed.by_name(text, CPU)
    assert streamed.by_name("pixels", CPU) is None
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(perceptual, "TRUNK", "http://127.0.0.1:9/alexnet-owt-7be5be79.pth")
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        streamed.by_name("lpips", CPU)
    assert time.monotonic() - began < 10 and "or give a file of them: --features=lpips=FILE." in str(caught.value)
    for folder in ("torch/hub/checkpoints", "cache/backbones"):  # of torch, and ours
        monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / folder.partition("/")[0]))
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "alexnet-owt-7be5be79.pth").write_bytes(trunk[0].read_bytes())
        assert streamed.by_name("lpips", CPU) is not None


def picture(path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.array(image)


def read_video(file) -> tuple[dict, list[np.ndarray]]:
    """Return the metadata of a video, and its frames, uint8 [H, W, 3]."""
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


@pytest.mark.unit
def test_captions_are_plug_ins_and_fit_above_their_sheet(tmp_path):
    (tmp_path / "training_options.json").write_text('{"plugins": {"active": ["augself", "freezed"]}}')
    assert captioned.caption_of(tmp_path) == "augself, freezed"
    (tmp_path / "training_options.json").write_text("{}")
    assert captioned.caption_of(tmp_path) == "no plug-in" and captioned.caption_of(tmp_path / "a.pkl") == "a.pkl"
    images = [np.zeros([16, 16, 1], np.uint8)]
    shown = captioned.side_by_side([("M" * 100, images), ("", images)], 1)
    assert shown.width == 2 * 64 + captioned.GAP
    assert np.asarray(shown)[: captioned.TEXT, 64:].min() == 255 > np.asarray(shown)[: captioned.TEXT, :64].min()


@pytest.mark.unit
@pytest.mark.parametrize("class_, labels", [(None, [None] * 3 + [4, 5, 4]), ("5", [None] * 3 + ["5"] * 3)])
def test_networks_with_and_without_classes_stand_on_one_picture(class_, labels):
    asked = []

    def network(classes):
        draw = lambda seed, truncation, class_, as_: asked.append(class_) or np.full([16, 16, 3], seed, np.uint8)
        return SimpleNamespace(classes=classes, sample=draw)

    shown = captioned.of_networks([("a", network([])), ("b", network([4, 5]))], None, [0, 7, 9], 3, class_)
    assert asked == labels and shown.width == 2 * 3 * 64 + captioned.GAP


@pytest.mark.run
@pytest.mark.parametrize("family, features", [(ADA, "pixels"), (STYLEGAN3, "l1")])
def test_pictures_of_a_pickle(fetched, pickles, crops, tmp_path, family, features):
    common = [str(pickles[family]), f"--data={crops[1]}", f"--outdir={tmp_path}"]
    done = invoke(fetched[family], "interpolate", *common, "--seeds=3,5,8", "--frames=4", "--columns=5", "--trunc=1")
    assert done.returncode == 0, done.stderr
    shown = picture(tmp_path / "interpolation.png")
    strip = shown[::2, ::2]
    assert np.array_equal(shown, strip.repeat(2, 0).repeat(2, 1))  # enlarged to 64 pixels
    assert strip.shape == (64, 160, 3)
    rows = [strip[32:, 32 * k : 32 * (k + 1)] for k in range(5)]
    assert all(any(np.array_equal(row, image) for image in crops[0]) for row in rows)
    with PIL.Image.open(tmp_path / "interpolation.gif") as animation:
        assert animation.n_frames == 12 and animation.size == (32, 32)
    more = ["--trunc=0.5", "--pairs=2", f"--features={features}", f"--beside={pickles[family]}"]
    done = invoke(fetched[family], "sheet", *common, "--seeds=3,5,8,9", *more)
    assert done.returncode == 0, done.stderr
    assert f"nearest training image, {features}: median" in done.stdout
    assert "median" in done.stdout and "(seed " in done.stdout
    full = picture(tmp_path / "sheet-full.png")[::2, ::2]
    assert np.array_equal(full[:32, :32], strip[:32, :32])  # seed 3 is the strip's first frame
    assert not np.array_equal(full, picture(tmp_path / "sheet-trunc0.5.png")[::2, ::2])
    beside = picture(tmp_path / "sheet-beside.png")[-128:]  # below the captions: crops, and the same network twice
    given, first, second = (beside[::2, 144 * k : 144 * k + 128 : 2] for k in range(3))
    assert np.array_equal(given[:32, :32], crops[0][0]) and np.array_equal(given[32:, 32:], crops[0][3])
    assert np.array_equal(first, second) and np.array_equal(first[:32, :32], strip[:32, :32])
    worst, nearest = (picture(tmp_path / f"sheet-{name}.png")[::2, ::2] for name in ("worst", "nearest"))
    assert worst.shape == nearest.shape == (64, 64, 3)
    power = 1 if features == "l1" else 2
    distance = lambda pair: float(np.mean(np.abs(pair[:32].astype(float) - pair[32:]) ** power))
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
