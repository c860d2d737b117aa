"""Run in a patched host's folder: train.py with its arguments, as a user runs it, in less time.

    quick_train.py --option=value ...

Processes of several ranks, and workers of data loaders, are forks of this process, which saves each of them the import
of torch."""

import runpy
import sys

import torch.multiprocessing

sys.path.insert(0, ".")


def fork(fn, args=(), nprocs=1, join=True, daemon=False, start_method="spawn"):
    torch.multiprocessing.start_processes(fn, args, nprocs, join, daemon, "fork")


if __name__ == "__main__":
    torch.multiprocessing.spawn = fork
    torch.multiprocessing.set_start_method = lambda method: None
    sys.argv[0] = "train.py"
    runpy.run_path("train.py", run_name="__main__")
