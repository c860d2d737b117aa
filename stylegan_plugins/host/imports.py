"""Python's garbage collector waits while a host's script imports torch and this package. It would search all modules
again and again, and take a seventh of that time. Importing this module stops the collector, unless torch is there."""

import gc
import sys

_waits = gc.isenabled() and "torch" not in sys.modules
if _waits:
    gc.disable()


def end() -> None:
    """Let the collector work again, on objects that are made from now on."""
    if _waits:
        gc.freeze()
        gc.enable()
