"""Run in an ada host's folder: contrad on one process with 16 images, and on two gloo processes with 8 of them each.

    contrad_ranks.py OUT.pt [RANK PORT]

Without RANK, it computes features and gradients of one process, starts two processes, and prints one JSON line of
relative differences. These are of the losses and gradients of given features, and of the gradients of D and of the
heads after a whole Dmain. The images and draws are the same, and D has no minibatch-stddev."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import torch

sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run.session import Session
from training_ext.contrad import nt_xent, supcon_generated
from training_ext.distributed import average_gradients, gather
from training_ext.loss import PluginLoss

networks = host_module("training.networks")
torch.set_num_threads(1)
ALL, RANKS, SIDE = 16, 2, 32


def own(values, rank, ranks):
    n = len(values) // ranks
    return values[rank * n : (rank + 1) * n]


def losses(rank, ranks):
    """Return the mean loss of this process's images, and gradients of given vectors, which averaging divides."""
    torch.manual_seed(3)
    vectors = torch.nn.functional.normalize(torch.randn([ALL, 3, 8], dtype=torch.float64), dim=2)
    vectors = own(vectors, rank, ranks).clone().requires_grad_(True)
    together = gather(vectors, ranks)
    first, second, generated = together.unbind(dim=1)
    loss = own(nt_xent(first, second, 0.1) + supcon_generated(first, second, generated, 0.1), rank, ranks).mean()
    loss.backward()
    return {"loss": loss.detach(), "vectors": vectors.grad / ranks}


def step(rank, ranks):
    """Return averaged gradients of one Dmain."""
    torch.manual_seed(0)
    channels = dict(channel_base=256, channel_max=16)
    common = dict(c_dim=0, img_resolution=SIDE, img_channels=3)
    G = networks.Generator(z_dim=16, w_dim=16, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=channels, **common)
    D = networks.Discriminator(epilogue_kwargs=dict(mbstd_num_channels=0), **channels, **common)
    G.train().requires_grad_(False), D.train().requires_grad_(False)
    loss = PluginLoss(torch.device("cpu"), G.mapping, G.synthesis, D, style_mixing_prob=0)
    opt = torch.optim.Adam(D.parameters(), lr=0.002, betas=(0.0, 0.99))
    session = Session(catalogue().activate(["contrad"], {}), rank=rank, num_gpus=ranks)
    phases = [SimpleNamespace(name="Dmain", module=D, opt=opt)]
    session.attach(G, D, G, None, loss, phases)
    torch.manual_seed(1)
    real, z, c = torch.rand([ALL, 3, SIDE, SIDE]) * 2 - 1, torch.randn([ALL, 16]), torch.zeros([ALL, 0])
    (augmentation,) = session.augmentations
    drawn = [augmentation.sample(real) for _ in range(3)]  # generated, first view, second view
    draws = iter(drawn)
    sample = lambda images: {group: own(values, rank, ranks) for group, values in next(draws).items()}
    session.augmentations = [replace(augmentation, sample=sample)]
    D.requires_grad_(True)
    real, z, c = (own(values, rank, ranks) for values in (real, z, c))
    loss.accumulate_gradients("Dmain", real_img=real, real_c=c, gen_z=z, gen_c=c, gain=1, sync=True)
    result = {}
    for name, module in (("D", D), ("heads", session.heads)):
        average_gradients(module, ranks)
        result[name] = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    return result


def difference(actual, expected):
    return float((actual - expected).norm() / expected.norm())


if __name__ == "__main__":
    out = sys.argv[1]
    if len(sys.argv) > 2:
        rank, port = int(sys.argv[2]), sys.argv[3]
        torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
        torch.save({**losses(rank, RANKS), **step(rank, RANKS)}, f"{out}.{rank}")
        torch.distributed.destroy_process_group()
        sys.exit()
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = [subprocess.Popen([sys.executable, __file__, out, str(rank), port]) for rank in range(RANKS)]
    assert [process.wait(timeout=200) for process in running] == [0] * RANKS
    one = {**losses(0, 1), **step(0, 1)}
    two = [torch.load(f"{out}.{rank}") for rank in range(RANKS)]
    print(
        json.dumps(
            {
                "loss": difference(sum(part["loss"] for part in two) / RANKS, one["loss"]),
                "vectors": difference(torch.cat([part["vectors"] for part in two]), one["vectors"]),
                "D": difference(two[0]["D"], one["D"]),
                "heads": difference(two[0]["heads"], one["heads"]),
                "ranks": difference(two[0]["D"], two[1]["D"]),
            }
        )
    )
