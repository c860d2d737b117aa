"""Run in a host's folder: each method in two processes (gloo), whose networks, heads and averages must stay equal.
Prints a JSON line: method -> its difference, empty if all agree.

two_ranks.py suite     two iterations
two_ranks.py all       three iterations of two rounds, with ADA"""

import json
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, ".")
sys.path.insert(0, str(Path(__file__).parent))
from combine import LOGGERS, OF_DATA, how_of, options

from stylegan_plugins.manager import builtin
from stylegan_plugins.testing import TinyRun, differences
from training_ext.distributed import gather_objects

RANKS = 2


def difference(name: str, chosen: dict, rank: int, long: bool) -> list[str]:
    """Return the places where the processes differ after some iterations."""
    how = dict(batch=8, rounds=2, ada=True) if long else dict()
    how |= how_of(name) | dict(rank=rank, num_gpus=RANKS)
    run = TinyRun(name, {name: chosen[name]} if name in chosen else {}, **how)
    run.train(3 if long else 2)
    session = run.session
    mine = {
        "G": run.G.state_dict(),
        "D": run.D.state_dict(),
        "heads": session.heads.state_dict(),
        "averages": {average.name: average.module.state_dict() for average in session.averages},
    }
    mine["G"].pop("mapping.w_avg")  # of each process's own latents, as in the hosts
    one, other = gather_objects(mine, RANKS, torch.device("cpu"))
    return differences(one, other)


def work(rank: int, long: bool, top: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{top}/meet", rank=rank, world_size=RANKS)
    chosen = gather_objects(options(Path(top)) if rank == 0 else None, RANKS, torch.device("cpu"))[0]
    names = [name for name in builtin() if name not in LOGGERS | OF_DATA]
    found = {name: difference(name, chosen, rank, long) for name in names}
    if rank == 0:
        print(json.dumps({name: ", ".join(places[:5]) for name, places in found.items()}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (sys.argv[1] == "all", folder), nprocs=RANKS)
