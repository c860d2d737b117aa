"""Run in a host's folder: writes a network pickle as the host's training loop does, of small networks at their start.

make_pickle.py OUT [KEY=NUMBER ...]      keys: c_dim, img_resolution, img_channels, num_layers, seed, protocol, nan"""

import copy
import pickle
import sys

sys.path.insert(0, ".")
import torch

from stylegan_plugins.host.modules import host_module

dnnlib = host_module("dnnlib")

settings = dict(
    c_dim=0, img_resolution=32, img_channels=3, num_layers=2, seed=0, protocol=pickle.DEFAULT_PROTOCOL, nan=0
)
settings |= {key: int(value) for key, value in (item.split("=") for item in sys.argv[2:])}
try:
    networks = host_module("training.networks")
    synthesis = dict(synthesis_kwargs=dnnlib.EasyDict(channel_base=256, channel_max=16))
except ModuleNotFoundError:  # stylegan3
    networks = host_module("training.networks_stylegan2")
    synthesis = dict(channel_base=256, channel_max=16)
torch.manual_seed(settings["seed"])
common = {key: settings[key] for key in ("c_dim", "img_resolution", "img_channels")}
mapping = dnnlib.EasyDict(num_layers=settings["num_layers"])
G = networks.Generator(z_dim=64, w_dim=64, mapping_kwargs=mapping, **synthesis, **common)
D = networks.Discriminator(
    channel_base=256, channel_max=16, epilogue_kwargs=dnnlib.EasyDict(mbstd_group_size=4), **common
)
torch.nn.init.normal_(G.mapping.w_avg)
if settings["nan"]:
    torch.nn.init.constant_(G.mapping.fc0.weight, float("nan"))
data = dict(training_set_kwargs=dnnlib.EasyDict(class_name="training.dataset.ImageFolderDataset", path="x.zip"))
data |= dict(G=G, D=D, G_ema=copy.deepcopy(G), augment_pipe=None)
for name in ("G", "D", "G_ema"):
    data[name] = data[name].eval().requires_grad_(False)
with open(sys.argv[1], "wb") as file:
    pickle.dump(data, file, protocol=settings["protocol"])
