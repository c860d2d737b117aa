"""Frozen image networks: their weights, features, priors and ranking. `Discriminator`: a vision-aided discriminator for
any training loop. Importing the package does not import torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylegan_plugins.vision.discriminator import Discriminator

__all__ = ["Discriminator"]


def __getattr__(name: str) -> Any:
    if name == "Discriminator":
        return importlib.import_module("stylegan_plugins.vision.discriminator").Discriminator
    raise AttributeError(f"module 'stylegan_plugins.vision' has no attribute {name!r}")
