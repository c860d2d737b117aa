"""Run in a host's folder: the training loop with arguments from a JSON file, for a fraction of a kimg.

    train_loop.py ARGS.json RUN_DIR ITERATIONS [--stock]

--stock is for an unpatched host: nothing but compat repairs it, and the calls in its loop that need CUDA are answered
here. Without it the loop runs as train.py runs it in a patched host."""

import json
import os
import sys

import torch
from sheets import small_sheets

sys.path.insert(0, ".")
from stylegan_plugins import bridge
from stylegan_plugins.host import devices
from stylegan_plugins.run import arguments

os.environ[devices.VARIABLE] = "cpu"
import dnnlib


class CpuTorch:
    """torch, for a loop that only knows CUDA."""

    class cuda:
        Event = staticmethod(lambda enable_timing: devices.CpuEvent())
        current_stream = staticmethod(lambda device: None)
        max_memory_allocated = staticmethod(lambda device: 0)
        max_memory_reserved = staticmethod(lambda device: 0)
        reset_peak_memory_stats = staticmethod(lambda: None)

    device = staticmethod(lambda *args: torch.device("cpu"))

    def __getattr__(self, name):
        return getattr(torch, name)


def easy(value):
    if isinstance(value, dict):
        return dnnlib.EasyDict({key: easy(item) for key, item in value.items()})
    return value


if __name__ == "__main__":
    torch.set_num_threads(1)
    with open(sys.argv[1]) as file:
        args = easy(json.load(file))
    args.run_dir = sys.argv[2]
    args.total_kimg = int(sys.argv[3]) * args.batch_size / 1000
    os.makedirs(args.run_dir)
    from training import training_loop

    small_sheets()
    if "--stock" in sys.argv:
        torch.Tensor.pin_memory = lambda tensor: tensor
        training_loop.torch = CpuTorch()
        del args["host"]  # of ours
        arguments.adapt(args, torch.device("cpu"))
        training_loop.training_loop(rank=0, **args)
    else:
        bridge.run(training_loop.training_loop, rank=0, **args)
