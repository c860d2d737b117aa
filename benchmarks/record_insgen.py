"""Record results of the authors' InsGen as tests/golden/insgen.npz.

    python benchmarks/record_insgen.py --repo DIR --out tests/golden

The directory is a checkout of genforce/insgen at the commit below. As in record_golden.py, their code runs where it
lies and only numbers are written. Their head needs a process group even in one process; here it is one of gloo. G is a
linear layer and ADA's pipe the identity, so that all images are given; `.cuda()` is replaced in memory."""

import argparse
import copy
import importlib
import pathlib
import sys
import tempfile
import types

import torch
from record_golden import check_checkout, patched, save

COMMIT = "52bda7cfe59094fbb2f533a0355fff1392b0d380"
FILES = (
    *("training/contrastive_head.py", "training/contrastive_loss.py", "training/networks.py"),
    *("torch_utils/misc.py", "torch_utils/persistence.py", "torch_utils/ops/bias_act.py"),
    *("torch_utils/ops/upfirdn2d.py", "torch_utils/ops/conv2d_resample.py", "torch_utils/ops/conv2d_gradfix.py"),
)
N, WIDTH, QUEUE, CALLS = 3, 8, 7, 4
BATCH, SIDE, Z, CHANNELS, LONG_QUEUE = 8, 16, 4, 8, 12


def record_head(head_module):
    """Record some calls of their head, with weights that change between them: losses, gradients, the queue."""
    torch.manual_seed(0)
    head = head_module.CLHead(inplanes=WIDTH, queue_size=QUEUE)
    record = {f"head/{name}": value.clone() for name, value in head.mlp.named_parameters()}
    record["head/queue"] = head.queue.T.clone()
    for call in range(CALLS):
        query = torch.randn([N, WIDTH, 4, 4], requires_grad=True)
        key = torch.randn([N, WIDTH, 4, 4])
        own, only = call == 1, call == 2  # the queue takes the query's; the loss alone
        loss = head(query, key, loss_only=only, update_q=own)
        gradients = torch.autograd.grad(loss, [query, *head.mlp.parameters()])
        record |= {f"head/{call}/query": query, f"head/{call}/key": key, f"head/{call}/loss": loss}
        record |= {f"head/{call}/grad/query": gradients[0], f"head/{call}/queue": head.queue.T.clone()}
        for (name, weight), gradient in zip(head.mlp.named_parameters(), gradients[1:], strict=True):
            record[f"head/{call}/grad/{name}"] = gradient
            weight.data -= 0.5 * gradient
    return record


class LinearG(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn([Z, 3 * SIDE * SIDE]) / 2)

    def forward(self, ws, **_unused):
        return (ws[:, 0] @ self.weight).reshape(-1, 3, SIDE, SIDE)


class FirstW(torch.nn.Module):
    def forward(self, z, c, **_unused):
        self.z = z
        return z.unsqueeze(1)


def record_step(head_module):
    """Record one Gmain and one Dmain of their loss: gradients of G, D and both heads."""
    networks, loss_module = (importlib.import_module(f"training.{name}") for name in ("networks", "contrastive_loss"))
    torch.manual_seed(1)
    config = dict(c_dim=0, img_resolution=SIDE, img_channels=3, channel_base=128, channel_max=CHANNELS)
    D = networks.Discriminator(**config)
    D_ema, G = copy.deepcopy(D), LinearG()
    heads = {name: head_module.CLHead(inplanes=CHANNELS, queue_size=LONG_QUEUE) for name in ("D", "G")}
    z, real = torch.randn([BATCH, Z]), torch.rand([BATCH, 3, SIDE, SIDE]) * 2 - 1
    record = {f"config/{name}": value for name, value in config.items()}
    record |= {"z": z, "real": real, "G/weight": G.weight.detach().clone()}
    record |= {f"D/{name}": value.clone() for name, value in D.state_dict().items() if "resample" not in name}
    record |= {f"{k}/mlp/{n}": value.clone() for k, head in heads.items() for n, value in head.mlp.named_parameters()}
    record |= {f"{k}/queue": head.queue.T.clone() for k, head in heads.items()}
    still = types.SimpleNamespace(zero_grad=lambda **_unused: None, step=lambda: None)
    phases = {f"{k}Headmain": types.SimpleNamespace(module=head, opt=still) for k, head in heads.items()}
    how = dict(style_mixing_prob=0, pl_weight=0, augment_pipe=lambda images: images)
    mapping = FirstW()
    loss = loss_module.StyleGAN2LossCL(torch.device("cpu"), mapping, G, D, **how)
    c = torch.zeros([BATCH, 0])
    for phase, module in (("Gmain", G), ("Dmain", D)):
        for network in (G, D):
            network.requires_grad_(network is module).zero_grad()
        given = dict(cl_phases=phases, D_ema=D_ema, lw_real_cl=1.0, lw_fake_cl=1.0, lw_fake_cl_on_g=0.1, g_fake_cl=True)
        loss.accumulate_gradients(phase, real, c, z, c, True, 1, **given)
        record |= {f"{phase}/grad/{name}": value.grad.clone() for name, value in module.named_parameters()}
    record["near"] = mapping.z
    for k, head in heads.items():
        record |= {f"Dmain/grad/{k}/{name}": value.grad.clone() for name, value in head.mlp.named_parameters()}
        record[f"Dmain/{k}/queue"] = head.queue.T.clone()
    return record


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/insgen.npz.")
    parser.add_argument("--repo", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, FILES)
    sys.path.insert(0, str(args.repo))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group("gloo", f"file://{folder}/group", rank=0, world_size=1)
        with patched(torch.Tensor, "cuda", lambda original: lambda self, device=None: self):
            head_module = importlib.import_module("training.contrastive_head")
            record = {"commit": COMMIT} | record_head(head_module) | record_step(head_module)
        torch.distributed.destroy_process_group()
    save(args.out / "insgen.npz", record)


if __name__ == "__main__":
    main()
