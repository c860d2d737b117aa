"""Plug-ins for NVIDIA's StyleGAN2-ADA and StyleGAN3 training code. The whole contract for authors of plug-ins is here:
`from stylegan_plugins import Head, Term, hookimpl, option`. For notebooks and scripts there are `load`, `train`,
`evaluate` and `compare`. Importing the package does not import torch."""

# ruff: noqa: F401  # the imports are the contract
import importlib
from typing import TYPE_CHECKING, Any

import pluggy

from stylegan_plugins.errors import DataError, OptionError, PluginError, UserError
from stylegan_plugins.options import CountsWith, Preset, option
from training_ext.parts import Augmentation, Average, Batch, Critic, Head, Images, Pass, Source, Step, Term, View

if TYPE_CHECKING:
    from stylegan_plugins.analysis.loading import LoadedGenerator, load
    from stylegan_plugins.analysis.metrics import Metric
    from stylegan_plugins.analysis.sample import Sampler
    from stylegan_plugins.api import Advice, Evaluation, advise, compare, evaluate, train
    from stylegan_plugins.run.session import Session
    from stylegan_plugins.vision.backbones import Recipe
    from stylegan_plugins.vision.run_features import RunFeatures
    from training_ext.ada import AdaptiveProbability
    from training_ext.gan_losses import GanLoss
    from training_ext.heads import EqualizedLinear
    from training_ext.labels import Labels
    from training_ext.passes import read

__version__ = "0.2.0"

hookimpl = pluggy.HookimplMarker("stylegan_plugins")
"""Marks the implementation of a hook: a function of a plug-in, or a method of the object that its `setup` returns. The
name of the function is the name of the hook (see hookspecs.py)."""

# Names that need torch or NumPy are imported at their first use.
_LATER = {
    "AdaptiveProbability": "training_ext.ada",
    "EqualizedLinear": "training_ext.heads",
    "GanLoss": "training_ext.gan_losses",
    "Labels": "training_ext.labels",
    "Metric": "stylegan_plugins.analysis.metrics",
    "Recipe": "stylegan_plugins.vision.backbones",
    "RunFeatures": "stylegan_plugins.vision.run_features",
    "Sampler": "stylegan_plugins.analysis.sample",
    "Session": "stylegan_plugins.run.session",
    "read": "training_ext.passes",
    **dict.fromkeys(("Advice", "Evaluation", "LoadedGenerator", "advise", "compare"), "stylegan_plugins.api"),
    **dict.fromkeys(("evaluate", "load", "train"), "stylegan_plugins.api"),
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'stylegan_plugins' has no attribute {name!r}")
