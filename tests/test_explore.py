"""`explore`: the functions behind its controls, and the served page by Gradio's own client.

A real browser clicks through all controls in benchmarks/explore_click.py, which needs a Chromium."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.images import color_crops, write_zip
from support.scripts import free_port

from stylegan_plugins.analysis import explore_page, pictures
from stylegan_plugins.analysis.explorer import DIRECTIONS, Explorer
from stylegan_plugins.analysis.loading import LoadedGenerator
from stylegan_plugins.analysis.sample import Sampler
from stylegan_plugins.errors import OptionError, UserError

SIDE, WS, WIDTH = 16, 6, 8


class Mapping(torch.nn.Module):
    """w is z, stretched most along axis 2, then along axis 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([2.0, 0.5, 4.0, 0.1, 0.2, 0.3, 0.4, 0.05]), requires_grad=False)
        self.embed = torch.nn.Linear(3, WIDTH)

    def forward(self, z, c, truncation_psi=1.0):
        shift = self.embed(c.float()) if c.shape[1] else 0
        return ((z.float() * self.scale + shift) * truncation_psi)[:, None].repeat(1, WS, 1)


class Synthesis(torch.nn.Module):
    def forward(self, ws, noise_mode="random"):
        assert noise_mode == "const"
        rows = torch.tanh(ws[:, :, :3]).repeat_interleave(4, 1)[:, :SIDE]  # [N, 16, 3]
        return rows.permute(0, 2, 1)[:, :, :, None].expand(-1, -1, -1, SIDE)


class Plain(torch.nn.Module):
    z_dim = w_dim = WIDTH
    num_ws, img_resolution, img_channels = WS, SIDE, 3

    def __init__(self, c_dim: int = 0) -> None:
        super().__init__()
        self.c_dim, self.mapping, self.synthesis = c_dim, Mapping(), Synthesis()


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    data = write_zip(tmp_path_factory.mktemp("explore") / "crops.zip", color_crops(9, side=SIDE))
    return pictures.Neighbours(str(data), pictures.pixels, "")


def explorer(near=None, c_dim: int = 0, **how) -> Explorer:
    return Explorer(LoadedGenerator(Plain(c_dim), how.pop("sampler", None), Path("run/g.pkl"), **how), near)


@pytest.mark.unit
def test_directions_are_principal_components_of_w():
    components, deviations = explorer().directions()
    assert components[0].argmax() == 2 and components[1].argmax() == 0 and len(components) == DIRECTIONS
    torch.testing.assert_close(components @ components.T, torch.eye(DIRECTIONS), atol=1e-5, rtol=0)
    assert deviations[:2].tolist() == pytest.approx([4, 2], rel=0.1)  # of 2048 draws: 1.6% each
    assert torch.equal(explorer().directions()[0], components)


@pytest.mark.unit
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-3, 3), max_size=DIRECTIONS),
    st.tuples(st.integers(0, WS - 1), st.integers(0, WS - 1)),
    st.integers(0, 2**32 - 1),
)
def test_a_move_adds_directions_in_its_layers_alone(amounts, layers, seed):
    one = explorer()
    w = one.latent(seed, 1.0)
    moved = one.latent(seed, 1.0, None, None, amounts, layers)
    components, deviations = one.directions()
    step = sum((a * d * c for a, d, c in zip(amounts, deviations, components)), torch.zeros(WIDTH))
    for layer in range(WS):
        expected = step if min(layers) <= layer <= max(layers) else torch.zeros(WIDTH)
        torch.testing.assert_close(moved[0, layer] - w[0, layer], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.unit
def test_nearest_images_come_with_distances_nearest_first(near):
    _, images = pictures.datasets.read_images(near.data)
    image = list(images)[4].transpose(1, 2, 0)
    found = explorer(near).nearest(PIL.Image.fromarray(image))
    assert np.array_equal(np.asarray(found[0][0]), image) and found[0][1] < 1e-3
    distances = [distance for _, distance in found]
    assert distances == sorted(distances) and len(found) == 4
    with pytest.raises(OptionError, match="Start explore with --data"):
        explorer().nearest(PIL.Image.fromarray(image))


@pytest.mark.unit
def test_a_walk_of_one_sample_is_refused_and_one_of_two_is_written():
    one = explorer()
    ws = [one.latent(seed, 0.7) for seed in (1, 2)]
    with pytest.raises(OptionError, match="Keep 2 or more"):
        one.walk(ws[:1], 4, True)
    files = {file.suffix: file for file in one.walk(ws, 4, loop=False)}
    assert set(files) == {".png", ".gif", ".mp4"}
    with PIL.Image.open(files[".gif"]) as gif:
        assert gif.n_frames == 5 and "loop" not in gif.info
    with PIL.Image.open(explore_page._enlarged(files[".gif"])) as large:
        assert large.size == (256, 256) and large.n_frames == 5


@pytest.mark.unit
@settings(deadline=None, max_examples=30)
@given(st.none() | st.floats(allow_nan=False) | st.integers(), st.floats(0, 2), st.none() | st.text(max_size=3))
@example(float("inf"), 0.7, None)
def test_any_values_of_controls_are_drawn_or_refused_in_one_line(seed, psi, label):
    actions = explore_page.Actions(explorer(c_dim=3, names=("cat", "cup", "rose")))
    try:
        image, w, file = actions.show(seed, psi, label, None, *[0] * DIRECTIONS, 0, WS - 1)
    except UserError:
        pass
    else:
        assert image.width >= 256 and w.shape == (1, WS, WIDTH) and Path(file).is_file()


@contextlib.contextmanager
def served(one: Explorer):
    """Serve the page on a free port; yield its address and Gradio's client."""
    import gradio_client

    port = free_port()
    page, url = explore_page.serve(one, "127.0.0.1", port)
    try:
        assert url == f"http://127.0.0.1:{port}/" and not page.share and not page.analytics_enabled
        yield gradio_client.Client(url, verbose=False), port
    finally:
        page.close()


@pytest.mark.host
def test_the_served_page_does_what_its_controls_say(near, monkeypatch):
    drawn = []

    def draw(G, random):
        drawn.append(random)
        return torch.zeros(WIDTH)

    monkeypatch.setenv("GRADIO_SHARE", "True")
    sampler = Sampler("mixup", draw, lambda G, image: image.mean().expand(WIDTH))
    with served(explorer(near, 3, sampler=sampler)) as (client, port):
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        still = [0] * DIRECTIONS
        first = client.predict(3, 0.7, None, None, *still, 0, WS - 1, api_name="/show")
        other = client.predict(3, 0.7, None, None, 2, *still[1:], 0, WS - 1, api_name="/show")
        read = lambda shown: np.asarray(PIL.Image.open(shown if isinstance(shown, str) else shown["path"]))
        assert read(first).shape == (384, 384, 3) and not np.array_equal(read(first), read(other))
        client.predict(api_name="/keep")
        client.predict(4, 0.7, None, None, *still, 0, WS - 1, api_name="/show")
        assert len(client.predict(api_name="/keep")) == 2
        animation, files = client.predict(4, True, api_name="/walk")
        assert [Path(file).suffix for file in files] == [".gif", ".mp4"] and read(animation) is not None
        assert len(client.predict(api_name="/nearest")) == 4
        client.predict(api_name="/clear")
        with pytest.raises(Exception, match="Keep 2 or more samples first"):
            client.predict(4, True, api_name="/walk")
        assert drawn
        with pytest.raises(OptionError, match=f"--port={port}: cannot be used"):
            explore_page.serve(explorer(), "127.0.0.1", port)
        import requests

        text = requests.get(f"http://127.0.0.1:{port}/", timeout=20).text
        assert "fonts.googleapis" not in text
