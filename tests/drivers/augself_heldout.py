"""Run in an ada host's folder, with an .npz of images (train, held_out: [M, R, R, 3] uint8) and a number of steps.

Trains D, its omega head and G with augself, and in another arm the head alone, on a D that stays at its random start.
Prints one JSON line: the head's error on held-out images, real ones, by arm, at the start and at the end."""

import json
import sys

import numpy as np
import torch

sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import catalogue
from stylegan_plugins.run.session import Session
from training_ext.augself import augself_loss
from training_ext.loss import PluginLoss
from training_ext.passes import read

torch.set_num_threads(1)
BATCH = 16
data = np.load(sys.argv[1])
images = {name: torch.from_numpy(data[name]).permute(0, 3, 1, 2).float() / 127.5 - 1 for name in data.files}
networks = host_module("training.networks")


class Phase:
    def __init__(self, name, module):
        self.name, self.module = name, module
        self.opt = torch.optim.Adam(module.parameters(), lr=0.0025, betas=(0.0, 0.99))


def held_out_error(session):
    """Return the mean over groups of the head's mean squared error, always with the same omega."""
    real = images["held_out"]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        changed, omega = session.options("diffaugment").transform()(real)
        phi = [read(session.D, ["b4.fc"], images, None)[1]["b4.fc"] for images in (changed, real)]
        predicted = session.heads["augself"](*phi)
        return float(np.mean([augself_loss(predicted[group], omega[group], +1).mean() for group in predicted]))


def arm(trained, iterations):
    torch.manual_seed(0)
    common = dict(c_dim=0, img_resolution=images["train"].shape[-1], img_channels=3)
    channels = dict(channel_base=256, channel_max=16)
    G = networks.Generator(z_dim=64, w_dim=64, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=channels, **common)
    D = networks.Discriminator(epilogue_kwargs=dict(mbstd_group_size=4), **channels, **common)
    for network in (G, D):
        network.train().requires_grad_(False)
    loss = PluginLoss(torch.device("cpu"), G.mapping, G.synthesis, D, r1_gamma=0.1, pl_weight=0)
    session = Session(catalogue().activate(["augself"], {}))
    phases = [Phase("Gmain", G), Phase("Dmain", D)]
    session.attach(G, D, G, None, loss, phases)
    result = [held_out_error(session)]
    for _ in range(iterations):
        real = images["train"][torch.randint(len(images["train"]), [BATCH])]
        for phase in phases if trained else phases[1:]:
            phase.module.requires_grad_(trained)
            z, c = torch.randn([BATCH, 64]), torch.zeros([BATCH, 0])
            loss.accumulate_gradients(phase.name, real_img=real, real_c=c, gen_z=z, gen_c=c, sync=True, gain=1)
            phase.module.requires_grad_(False)
            if trained:
                phase.opt.step()
            phase.opt.zero_grad(set_to_none=True)
            session.step_end(phase)
    return [*result, held_out_error(session)]


count = int(sys.argv[2])
print(json.dumps({"trained": arm(True, count), "frozen": arm(False, count)}))
