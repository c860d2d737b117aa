"""Run in a patched host's folder: begin a run as train.py does, for a fraction of a kimg.

    begin_run.py ARGS.json RUN_DIR

The arguments are as in training_options.json. With num_gpus above 1, the ranks are forks of this process, which saves
their imports; train.py starts a new Python for each. Without image_snapshot_ticks the first sheets have 4 images. With
state_minutes they have 1024, since train.py may resume the run and expects a sheet of full size."""

import json
import os
import sys

from sheets import small_sheets

sys.path.insert(0, ".")


def process(rank, args, temporary):
    import train  # the host's: sets up the log, torch.distributed and the statistics

    train.subprocess_fn(rank, args, temporary)


if __name__ == "__main__":
    import tempfile

    import torch

    from stylegan_plugins.host import devices
    from stylegan_plugins.run import resume

    with open(sys.argv[1]) as file:
        args = json.load(file)
    args["run_dir"] = sys.argv[2]
    devices.choose(args["device"])
    if args["image_snapshot_ticks"] is None and "state_minutes" not in args:
        small_sheets()
    os.makedirs(sys.argv[2])
    with open(os.path.join(sys.argv[2], "training_options.json"), "w") as file:
        json.dump(args, file)
    with tempfile.TemporaryDirectory() as temporary:
        if args["num_gpus"] == 1:
            process(0, resume._easy(args), temporary)
        else:
            ranks = {"nprocs": args["num_gpus"], "start_method": "fork"}
            torch.multiprocessing.start_processes(process, (resume._easy(args), temporary), **ranks)
