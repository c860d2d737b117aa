"""Python's garbage collector waits while a host's script imports torch and this package. It would search all modules
again and again, and take a seventh of that time. Importing this module stops the collector."""

import gc

_waits = gc.isenabled()
gc.disable()


def end() -> None:
    """Let the collector work again, on objects that are made from now on."""
    if _waits:
        gc.freeze()
        gc.enable()
