"""The page of `stylegan-plugins explore`: controls of Gradio. explorer.py does the work behind them."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from stylegan_plugins.analysis.explorer import DIRECTIONS, FARTHEST, Explorer
from stylegan_plugins.analysis.sample import TRUNCATION
from stylegan_plugins.errors import OptionError, UserError, require

MOST_SEED = 2**32 - 1
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "generator"}
CSS = ".gradio-container {max-width: 1200px !important} footer {display: none !important}"


def serve(explorer: Explorer, address: str, port: int) -> tuple[Any, str]:
    """Start the page and return it with its address. It sends nothing elsewhere. Raises DataError without Gradio,
    OptionError for a port that is not available."""
    require("gradio", "explore")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    import gradio

    page = build(explorer)
    try:
        _, url, _ = page.launch(
            server_name=address,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            # The default fonts are Google's: a browser would download them.
            theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=CSS,
        )
    except OSError as error:
        raise OptionError(
            f"--port={port}: cannot be used ({' '.join(str(error).split())[:100]}). Give another."
        ) from error
    return page, url


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show an error of this package on the page, as the line that a command would print."""

    @functools.wraps(function)
    def wrapped(*values: Any) -> Any:
        import gradio

        try:
            return function(*values)
        except UserError as error:
            raise gradio.Error(error.format_message(), print_exception=False) from error

    return wrapped


class Actions:
    """Actions of the controls. Kept samples are a list of (w as array, image, caption)."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer

    def show(
        self, seed: float | None, psi: float, label: str | None, like: PIL.Image.Image | None, *rest: float
    ) -> tuple[Any, ...]:
        """Return the image for the page, w, and the file to download. rest: amounts, first and last layer."""
        *amounts, first, last = rest
        if not 0 <= (seed or 0) <= MOST_SEED:  # infinity has no integer, either
            raise OptionError(f"Seed {seed}: expected 0 to {MOST_SEED}.")
        number = int(seed or 0)
        w = self.explorer.latent(number, psi, label or None, like, amounts, (int(first), int(last)))
        image = self.explorer.picture(w)
        moved = "".join(f"_{k}{amount:+g}" for k, amount in enumerate(amounts, 1) if amount)
        file = self.explorer.folder / f"seed{number}_psi{psi:g}{moved}.png"
        image.save(file)
        return self.explorer.shown(image), w.cpu().numpy(), str(file)

    def keep(self, kept: list[Any], w: np.ndarray | None, file: str | None) -> tuple[Any, ...]:
        """Return the kept samples with one more, and their gallery."""
        if w is None or file is None:
            return kept, _gallery(kept)
        with PIL.Image.open(file) as image:
            one = (w, self.explorer.shown(image.copy()), f"{len(kept) + 1}: {Path(file).stem.replace('_', ' ')}")
        return [*kept, one], _gallery([*kept, one])

    def walk(self, kept: list[Any], frames: float, loop: bool) -> tuple[Any, ...]:
        """Return the GIF of a walk through the kept samples, and all of its files."""
        device = next(self.explorer.generator.network.parameters()).device
        ws = [torch.from_numpy(w).to(device) for w, _, _ in kept]
        files = self.explorer.walk(ws, int(frames), loop)
        gif = next(file for file in files if file.suffix == ".gif")
        with PIL.Image.open(gif) as small:
            shown = gif if small.width >= 256 else _enlarged(gif)
        return str(shown), [str(file) for file in files if file.suffix != ".png"]

    def nearest(self, file: str | None) -> list[tuple[Any, str]]:
        """Return the nearest training images, with captions."""
        if file is None:
            return []
        with PIL.Image.open(file) as image:
            found = self.explorer.nearest(image.copy())
        return [(self.explorer.shown(other), f"{distance:.3g}") for other, distance in found]


def _gallery(kept: list[Any]) -> list[tuple[Any, str]]:
    return [(image, caption) for _, image, caption in kept]


def _enlarged(gif: Path) -> Path:
    """Write a GIF of small images again, in a size that suits a page."""
    with PIL.Image.open(gif) as opened:
        times, pause = -(-256 // opened.width), opened.info.get("duration", 40)
        size = (opened.width * times, opened.height * times)
        frames = []
        for k in range(getattr(opened, "n_frames", 1)):
            opened.seek(k)
            frames.append(opened.convert("RGB").resize(size, PIL.Image.Resampling.BICUBIC))
        loops = "loop" in opened.info
    file = gif.with_name("interpolation-large.gif")
    repeats: dict[str, Any] = {"loop": 0} if loops else {}
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=pause, **repeats)
    return file


def build(explorer: Explorer) -> Any:
    """Return the page as Gradio's Blocks."""
    import gradio as gr

    actions, G = Actions(explorer), explorer.generator
    color = "gray" if G.channels == 1 else "color"
    title = f"{G.file.parent.name}/{G.file.name}, {G.resolution}x{G.resolution} {color}"
    conditioned = G.sampler is not None and bool(G.network.c_dim)
    with gr.Blocks(title="stylegan-plugins explore", analytics_enabled=False) as page:
        w, kept, file = gr.State(None), gr.State([]), gr.State(None)
        gr.Markdown(f"### {title}")
        with gr.Row():
            with gr.Column(min_width=300):
                image = gr.Image(label="Sample", interactive=False, buttons=["fullscreen"], elem_id="sample")
                with gr.Row():
                    keep = gr.Button("Keep", variant="primary", elem_id="keep", min_width=90)
                    download = gr.DownloadButton("Download PNG", elem_id="download", min_width=90)
            with gr.Column(min_width=300):
                with gr.Row():
                    seed = gr.Number(
                        0, label="Seed", precision=0, minimum=0, maximum=MOST_SEED, elem_id="seed", min_width=90
                    )
                    again = gr.Button("Random seed", elem_id="random", min_width=90)
                psi = gr.Slider(0, 1.5, TRUNCATION, step=0.05, label="Truncation psi (1 is none)", elem_id="psi")
                names = list(G.classes)
                label = gr.Dropdown(
                    names, value=names[0] if names else None, label="Class", visible=bool(names), elem_id="class"
                )
                like = gr.Image(
                    type="pil",
                    label="Like this picture (high-level content)",
                    sources=["upload"],
                    visible=conditioned,
                    elem_id="like",
                    height=200,
                )
                with gr.Accordion("Directions: a PCA of w, in standard deviations", open=True):
                    numbers, of = range(1, DIRECTIONS + 1), dict[str, Any](step=0.1, min_width=200)
                    with gr.Row():
                        sliders = [
                            gr.Slider(-FARTHEST, FARTHEST, 0, label=f"Direction {k}", elem_id=f"direction{k}", **of)
                            for k in numbers
                        ]
                    last_layer = G.network.num_ws - 1
                    with gr.Row():
                        first = gr.Slider(0, last_layer, 0, step=1, label="First layer", elem_id="first", min_width=120)
                        last = gr.Slider(
                            0, last_layer, last_layer, step=1, label="Last layer", elem_id="last", min_width=120
                        )
                    reset = gr.Button("Reset directions", elem_id="reset", size="sm")
        with gr.Row():
            with gr.Column(min_width=300):
                gr.Markdown("#### Kept samples and the walk between them")
                gallery = gr.Gallery(label="Kept", columns=3, height=240, elem_id="kept", buttons=[])
                with gr.Row():
                    frames = gr.Slider(
                        2, 96, 24, step=1, label="Frames from one to the next", elem_id="frames", min_width=150
                    )
                    loop = gr.Checkbox(True, label="Back to the first", elem_id="loop", min_width=90)
                with gr.Row():
                    walk = gr.Button("Interpolate", elem_id="walk", min_width=90)
                    clear = gr.Button("Remove all", elem_id="clear", min_width=90)
                animation = gr.Image(
                    label="Interpolation", interactive=False, buttons=[], elem_id="animation", type="filepath"
                )
                files = gr.File(label="Download", interactive=False, elem_id="files", file_count="multiple")
            with gr.Column(min_width=300):
                gr.Markdown("#### Nearest training images")
                look = gr.Button("Find nearest", elem_id="look", interactive=explorer.near is not None)
                near = gr.Gallery(label="Nearest, with distances", columns=2, height=600, elem_id="nearest", buttons=[])

        inputs = [seed, psi, label, like, *sliders, first, last]
        outputs = [image, w, file]
        draw = functools.partial(gr.on, fn=_told(actions.show), inputs=inputs, outputs=outputs, show_progress="hidden")
        triggers = [page.load, *(control.change for control in inputs)]  # type: ignore[attr-defined]
        drawn = draw(triggers=triggers, trigger_mode="always_last", api_name="show", **ONE_AT_A_TIME)
        drawn.then(lambda path: path, file, download, api_visibility="private")
        again.click(lambda: random.randrange(1 << 31), None, seed, api_name="random")
        reset.click(lambda: [0] * DIRECTIONS, None, sliders, api_name="reset")
        keep.click(_told(actions.keep), [kept, w, file], [kept, gallery], api_name="keep", **ONE_AT_A_TIME)
        clear.click(lambda: ([], []), None, [kept, gallery], api_name="clear")
        walk.click(_told(actions.walk), [kept, frames, loop], [animation, files], api_name="walk", **ONE_AT_A_TIME)
        look.click(_told(actions.nearest), file, near, api_name="nearest", **ONE_AT_A_TIME)
    return page
