"""Plug-ins for NVIDIA's StyleGAN2-ADA and StyleGAN3 training code. A plug-in imports `hookimpl` from here."""

import pluggy

__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("stylegan_plugins")
"""Marks a function of a plug-in as the implementation of a hook of the same name (see hookspecs.py)."""
