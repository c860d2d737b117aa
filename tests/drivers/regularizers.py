"""Run in a host's folder: one method in the test kit. Prints a JSON line of measurements.

    regularizers.py METHOD OPTIONS OFF [ranks] [GOLDEN.npz]

OPTIONS and OFF are JSON: options with which the method works, and with which it is off.

off         differences of a run that is off: none
trained     phase -> the networks whose gradients the method changes
passes      phase -> batches that go through D and through G, with the method and without
With `ranks`:
ranks       relative differences of figures and gradients: two processes with half of the images, and one
rounds      the same of two rounds, and one
With a file of apa:
golden      relative differences of gradients: the authors', and ours"""

import json
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import torch

sys.path.insert(0, ".")
from stylegan_plugins.testing import TinyRun, assert_off_is_off
from training_ext.distributed import average_gradients

torch.set_num_threads(1)
PHASES = ("Gmain", "Greg", "Dmain", "Dreg")
IMAGES, NIMG = 8, 1000  # of the batch, and before it


def difference(actual, expected):
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-12))


def seen(name, options):
    """Return gradients by phase, and the sizes of batches that went through D and G in it."""
    run, gradients, passes = TinyRun(name, {name: options}), {}, {}
    run.session.nimg = NIMG
    for phase in PHASES:
        sizes = {"D": [], "G": []}
        hooks = [
            module.register_forward_pre_hook(lambda module, inputs, to=sizes[key]: to.append(len(inputs[0])))
            for key, module in (("D", run.D), ("G", run.G.synthesis))
        ]
        gradients[phase], passes[phase] = run.gradients(phase), sizes
        for hook in hooks:
            hook.remove()
    return gradients, passes


def compared(name, on, off):
    """Return the networks that the method trains, and the passes that it makes."""
    (with_it, passes), (without, stock) = seen(name, on), seen(name, off)
    trained = {phase: set() for phase in PHASES}
    for phase in PHASES:
        for key, value in with_it[phase].items():
            other = without[phase].get(key)
            # Batches that are joined change the order of sums.
            if other is None or not torch.allclose(value, other, rtol=1e-4, atol=1e-6):
                trained[phase].add(key.partition(".")[0])
    return {phase: sorted(kinds) for phase, kinds in trained.items()}, {
        phase: [passes[phase], stock[phase]] for phase in PHASES
    }


def one_step(name, options, ranks=1, rounds=1, rank=0):
    """Return averaged gradients of a Gmain and a Dmain, and the state of the method. D has no minibatch-stddev, and
    each division into ranks and rounds has the same images."""
    how = dict(loss={"style_mixing_prob": 0}, D={"epilogue_kwargs": {"mbstd_num_channels": 0}})
    run = TinyRun(name, {name: options}, batch=IMAGES // ranks, rounds=rounds, **how)
    session = run.session
    session.num_gpus, session.rank, session.nimg = ranks, rank, NIMG
    torch.manual_seed(5)
    real, z, c = torch.rand([IMAGES, 3, 16, 16]) * 2 - 1, torch.randn([IMAGES, 8]), torch.zeros([IMAGES, 0])
    found = {}
    for phase, module in (("Gmain", run.G), ("Dmain", run.D)):
        module.requires_grad_(True)
        for batch in torch.arange(IMAGES).chunk(rounds):
            mine = batch.chunk(ranks)[rank]
            values = dict(real_img=real[mine], real_c=c[mine], gen_z=z[mine], gen_c=c[mine], gain=1, sync=True)
            run.loss.accumulate_gradients(phase, **values)
        average_gradients(module, ranks)
        module.requires_grad_(False)
        # The noise is 0 at first, but its strength has a gradient, which goes with the draws.
        kept = [p.grad.flatten() for key, p in module.named_parameters() if "noise_strength" not in key]
        found[phase] = torch.cat(kept) / rounds
        session.step_end(SimpleNamespace(name=phase))
    session.batch_end(NIMG + IMAGES, 1)
    state = run.method(name).state_dict() if hasattr(run.method(name), "state_dict") else {}
    return found | {key: value for key, value in flat(state).items() if "pseudo" not in key}


def flat(state, where=""):
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{where}{key}.").items()}
    return {where[:-1]: torch.as_tensor(state, dtype=torch.float64).flatten()}


def of_rank(rank, name, options, top):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{top}/meet", rank=rank, world_size=2)
    torch.save(one_step(name, options, ranks=2, rank=rank), f"{top}/{rank}.pt")
    torch.distributed.destroy_process_group()


def shared_out(name, options):
    torch.randn_like = lambda z: z.flip(-1)  # draws that do not depend on how the batch is shared out
    expected = one_step(name, options)
    with tempfile.TemporaryDirectory() as top:
        torch.multiprocessing.start_processes(of_rank, (name, options, top), nprocs=2, start_method="fork")
        ranks = [torch.load(f"{top}/{rank}.pt") for rank in (0, 1)]
    rounds = one_step(name, options, rounds=2)
    return (
        {key: max(difference(of_one[key], expected[key]) for of_one in ranks) for key in expected},
        {key: difference(rounds[key], expected[key]) for key in expected},
    )


def golden(file):
    """Run Dmain and Dreg of APA on the recorded images and weights, from the recorded seeds."""
    recorded = np.load(file)
    values = {key: torch.from_numpy(recorded[key]) for key in recorded.files if recorded[key].dtype.kind != "U"}
    options = {"mode": "fixed", "p": float(values["p"]), "kimg": 500.0}
    run = TinyRun("apa", {"apa": options}, loss={"r1_gamma": float(values["r1_gamma"])})
    for name, parameter in run.D.named_parameters():
        parameter.data.copy_(values[f"D/{name}"])
    images, found = values["input/pseudo"], {}
    run.loss.run_G_reading = lambda z, *args: (images, None, {})
    replace = run.session.real_images
    n = len(images)
    for phase in ("Gmain", "Dmain", "Dreg"):

        def real_images(*args, phase=phase):
            torch.manual_seed(int(values[f"{phase}/seed"]))
            return replace(*args)

        run.session.real_images = real_images
        run.D.zero_grad(set_to_none=True)
        run.D.requires_grad_(phase[0] == "D")
        given = dict(real_img=values["input/real"], real_c=torch.zeros([n, 0]), gen_z=torch.zeros([n, 8]), gain=1)
        if phase == "Gmain":
            images.requires_grad_(True)
        run.loss.accumulate_gradients(phase, gen_c=given["real_c"], sync=True, **given)
        run.session.round = 0
        for name, parameter in run.D.named_parameters() if phase[0] == "D" else ():
            theirs = values[f"{phase}/grad/{name}"]
            size = torch.cat([v.flatten() for k, v in values.items() if k.startswith(f"{phase}/grad")]).norm()
            found[f"{phase}/{name}"] = float((parameter.grad - theirs).norm() / size)
        images = values["input/generated"]
    return found


if __name__ == "__main__":
    name, on, off = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    report = {"off": ""}
    try:
        assert_off_is_off(name, {name: off})
    except AssertionError as error:
        report["off"] = str(error)
    report["trained"], report["passes"] = compared(name, on, off)
    for what in sys.argv[4:]:
        if what == "ranks":
            report["ranks"], report["rounds"] = shared_out(name, on)
        else:
            report["golden"] = golden(what)
    print(json.dumps(report))
