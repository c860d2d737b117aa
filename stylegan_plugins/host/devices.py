"""The device of a run, and replacements on a CPU for CUDA-only calls of the hosts."""

from __future__ import annotations

import os
import time

import torch

from stylegan_plugins.errors import OptionError

VARIABLE = "STYLEGAN_PLUGINS_DEVICE"
CHOICES = ("auto", "cpu", "cuda")
# Variables that torchrun sets for its processes: the rank, the number of processes, and the meeting point.
OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def choose(name: str) -> None:
    """Set the device of this process and of its child processes. Raises OptionError if there is no such device."""
    if name == "cuda" and not torch.cuda.is_available():
        why = "this PyTorch was built without CUDA" if torch.version.cuda is None else "PyTorch finds no GPU"
        raise OptionError(f"--device=cuda: {why}. Use --device=cpu, or run: stylegan-plugins doctor")
    os.environ[VARIABLE] = name


def device(rank: int = 0) -> torch.device:
    """Return the device of a process: its GPU, or the CPU."""
    name = os.environ.get(VARIABLE, "auto")
    on_gpu = name == "cuda" or (name != "cpu" and torch.cuda.is_available())
    return torch.device("cuda", local_rank(rank)) if on_gpu else torch.device("cpu")


def by_torchrun() -> bool:
    """Return whether torchrun, or a program that sets the same variables, has started this process."""
    return all(name in os.environ for name in OF_TORCHRUN)


def local_rank(rank: int = 0) -> int:
    """Return the rank of a process on its machine. Without torchrun all processes are on one machine."""
    return int(os.environ["LOCAL_RANK"]) if by_torchrun() else rank


def local_processes(count: int) -> int:
    """Return how many of the `count` processes of a run are on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if by_torchrun() else count


def backend() -> str:
    """Return torch.distributed's backend: NCCL among GPUs where PyTorch has it, else gloo."""
    return "nccl" if device().type == "cuda" and torch.distributed.is_nccl_available() else "gloo"


class CpuEvent:
    """A point in time, with the methods of torch.cuda.Event that the hosts use."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def record(self, stream: None = None) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: CpuEvent) -> float:
        """Return the milliseconds until another event."""
        return (end.seconds - self.seconds) * 1000


def event(device: torch.device) -> torch.cuda.Event | CpuEvent:
    return torch.cuda.Event(enable_timing=True) if device.type == "cuda" else CpuEvent()


def stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.current_stream(device) if device.type == "cuda" else None


def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.pin_memory() if device().type == "cuda" else tensor


def peak_memory(device: torch.device) -> int:
    """Return the peak bytes of tensors on a GPU; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def peak_memory_reserved(device: torch.device) -> int:
    """Return the peak bytes that the allocator reserved on a GPU; 0 on a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
