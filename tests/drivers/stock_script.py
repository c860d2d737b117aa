"""Run in an unpatched host's folder: one of its scripts, on a CPU, without this package.

stock_script.py SCRIPT ARGS...       `torch.device('cuda')`, which the scripts ask for, is the CPU here"""

import runpy
import sys
import types

import torch

sys.path.insert(0, ".")
sys.modules["stylegan_plugins"] = sys.modules["training_ext"] = None
sys.modules.setdefault("pkg_resources", types.SimpleNamespace(parse_version=lambda text: (1, 0)))
RealDevice = torch.device


class AnyDevice(type):
    def __instancecheck__(cls, value):
        return isinstance(value, RealDevice)


class Device(metaclass=AnyDevice):
    def __new__(cls, *args, **kwargs):
        return RealDevice("cpu")


torch.device = Device
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
