"""Run in a patched host's folder: begin a run as train.py does, for a fraction of a kimg.

begin_run.py ARGS.json RUN_DIR       the arguments, as in training_options.json, with num_gpus processes"""

import json
import os
import sys

sys.path.insert(0, ".")


def process(rank, args, temporary):
    import train  # the host's: sets up the log, torch.distributed and the statistics

    train.subprocess_fn(rank, args, temporary)


if __name__ == "__main__":
    import tempfile

    import torch

    from stylegan_plugins import bridge, devices, resume  # noqa: F401  (repairs the host's modules)

    with open(sys.argv[1]) as file:
        args = json.load(file)
    args["run_dir"] = sys.argv[2]
    devices.choose(args["device"])
    os.makedirs(sys.argv[2])
    with open(os.path.join(sys.argv[2], "training_options.json"), "w") as file:
        json.dump(args, file)
    with tempfile.TemporaryDirectory() as temporary:
        if args["num_gpus"] == 1:
            process(0, resume._easy(args), temporary)
        else:
            torch.multiprocessing.set_start_method("spawn")
            torch.multiprocessing.spawn(process, (resume._easy(args), temporary), nprocs=args["num_gpus"])
