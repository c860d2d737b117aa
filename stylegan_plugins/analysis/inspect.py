"""`stylegan-plugins inspect`: the contents of a pickle or a training state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stylegan_plugins.errors import DataError
from stylegan_plugins.files.checksums import check_checksum
from stylegan_plugins.files.pickles import Network, read_pickle
from stylegan_plugins.files.run_folders import newest_pickle, read_options
from stylegan_plugins.files.states import PATTERN, read_state
from stylegan_plugins.host import limits

LONGEST = 2000  # characters of a line


def describe(path: Path) -> Iterator[str]:
    """Yield lines on a network pickle, a training state, or the newest pickle of a run directory."""
    is_state = PATTERN.fullmatch(path.name) is not None
    if not is_state:
        path = newest_pickle(path)
        check_checksum(path)
    for line in (*(_state(path) if is_state else _pickle(path)), *_plugins(path.parent)):
        line = line.replace("\n", "\\n")  # text of a stranger must not look like a line of this command
        yield line if len(line) <= LONGEST else f"{line[:LONGEST]}... ({len(line)} letters)"


def _pickle(path: Path) -> Iterator[str]:
    snapshot = read_pickle(path)
    yield f"{path}: networks, {path.stat().st_size / 2**20:.1f} MiB"
    yield from snapshot.notes
    if snapshot.tensorflow:
        yield "  written by the TensorFlow code; a host converts it when it is used"
        for key, state in zip(("G", "D", "G_ema"), snapshot.tensorflow, strict=True):
            yield f"  {key}: version {state.get('version')}"
            yield from _arguments(state.get("static_kwargs", {}))
    for key, network in snapshot.networks.items():
        yield f"  {key}: {_network(network)}"
        yield from _arguments(network.init_kwargs)
        if names := limits.not_finite(network):
            yield f"      NOT FINITE: {limits.some(names)}; commands refuse it"
    for key, value in snapshot.data.items():
        if value is not None:
            yield f"  {key}: {value}"


def _network(network: Network) -> str:
    made = network.init_kwargs
    parts = [network.class_name]
    if "img_resolution" in made:
        side = made["img_resolution"]
        parts.append(f"{side}x{side}, {made.get('img_channels')} channels, c_dim {made.get('c_dim', 0)}")
    weights = sum(network.tensors[name].numel() for name in network.parameters)
    parts.append(f"{weights:,} weights in {len(network.parameters)} tensors")
    trained_or_frozen = {name for name in network.tensors if name.endswith((".weight", ".bias"))}
    if frozen := trained_or_frozen - set(network.parameters):
        parts.append(f"{len(frozen)} frozen")
    return ", ".join(parts)


def _arguments(kwargs: Any) -> Iterator[str]:
    for name, value in kwargs.items() if isinstance(kwargs, Mapping) else ():
        if isinstance(value, Mapping):
            if value:
                yield f"      {name}: {_written(value)}"
        else:
            yield f"      {name}={value}"


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _state(path: Path) -> Iterator[str]:
    state = read_state(path)
    position = state["position"]
    yield f"{path}: training state, {path.stat().st_size / 2**20:.1f} MiB, written with torch {state['torch']}"
    yield f"  at {position['cur_nimg'] / 1000:g} kimg, tick {position['cur_tick']}, iteration {position['batch_idx']}"
    yield f"  processes: {len(state['ranks'])}"
    for name, tensors in state["networks"].items():
        yield f"  {name}: {sum(value.numel() for value in tensors.values()):,} numbers in {len(tensors)} tensors"
    heads = state["session"]["heads"]
    if heads:
        yield f"  heads: {', '.join(f'{name} {list(value.shape)}' for name, value in heads.items())}"


def _plugins(run_dir: Path) -> Iterator[str]:
    """Yield lines on the plug-ins of a run. The file beside a snapshot names them, the snapshot does not."""
    try:
        args = read_options(run_dir)
    except DataError:
        args = None
    if args is None:
        yield "  plug-ins: not recorded (there is no training_options.json beside it)"
        return
    plugins = args.get("plugins", {})
    yield f"  plug-ins: {', '.join(plugins.get('active', [])) or 'none'}"
    for name, options in plugins.get("options", {}).items():
        if options:
            yield f"      {name}: {_written(options)}"
