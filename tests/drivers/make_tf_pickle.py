"""Run in an ada host's folder: turns a pickle of torch networks into one as StyleGAN2's TensorFlow code wrote it.

    make_tf_pickle.py SOURCE.pkl OUT.pkl

A stand-in: real ones are not available without a network. Variables have the names and layouts that the host's
converter reads. Convolutions that up-sample are stored flipped, and modulation biases without the 1."""

import pickle
import re
import sys
import types

import numpy as np

from stylegan_plugins.files.pickles import read_pickle

LAYERS = [  # (name in torch, name in TensorFlow); {} is a resolution
    (r"mapping\.fc(\d+)\.(weight|bias)", r"mapping/Dense\1/\2"),
    (r"synthesis\.b4\.const", "synthesis/4x4/Const/const"),
    (r"synthesis\.b4\.conv1\.", "synthesis/4x4/Conv/"),
    (r"synthesis\.b(\d+)\.conv0\.", r"synthesis/\1x\1/Conv0_up/"),
    (r"synthesis\.b(\d+)\.conv1\.", r"synthesis/\1x\1/Conv1/"),
    (r"synthesis\.b(\d+)\.torgb\.", r"synthesis/\1x\1/ToRGB/"),
    (r"b4\.conv\.", "4x4/Conv/"),
    (r"b4\.fc\.", "4x4/Dense0/"),
    (r"b4\.out\.", "Output/"),
    (r"b(\d+)\.fromrgb\.", r"\1x\1/FromRGB/"),
    (r"b(\d+)\.conv0\.", r"\1x\1/Conv0/"),
    (r"b(\d+)\.conv1\.", r"\1x\1/Conv1_down/"),
    (r"b(\d+)\.skip\.", r"\1x\1/Skip/"),
]


class Network:
    pass


Network.__module__ = "dnnlib.tflib.network"
for module in ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network"):
    sys.modules[module] = types.ModuleType(module)
sys.modules["dnnlib.tflib.network"].Network = Network


def variable(name, value):
    """Return (name, value) in TensorFlow, of a torch tensor."""
    noise = re.fullmatch(r"synthesis\.b(\d+)\.conv(\d)\.noise_const", name)
    if noise:
        level = int(np.log2(int(noise[1]))) * 2 - 5 + int(noise[2])
        return f"synthesis/noise{level}", value[None, None]
    if name == "mapping.w_avg":
        return "dlatent_avg", value
    for pattern, replacement in LAYERS:
        if re.match(pattern, name):
            tf_name = re.sub("^" + pattern, replacement, name).replace("affine.", "mod_")
            break
    else:
        raise ValueError(name)
    if name.endswith("const"):
        return tf_name, value[None]
    if name.endswith("affine.bias"):
        return tf_name, value - 1
    if value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)
        return tf_name, value[::-1, ::-1] if "Conv0_up" in tf_name else value
    return tf_name, value.T if value.ndim == 2 else value


def network(source, static):
    found = [variable(n, t.numpy()) for n, t in source.tensors.items() if not n.endswith("resample_filter")]
    mapping = Network()
    prefix = "mapping/"
    inner = [(n.removeprefix(prefix), v) for n, v in found if n.startswith(prefix)]
    mapping.__dict__ = dict(version=4, name="mapping", static_kwargs={}, components={}, variables=inner)
    result = Network()
    result.__dict__ = dict(
        version=4,
        name="G",
        static_kwargs=static,
        components={"mapping": mapping},
        variables=[(n, v) for n, v in found if not n.startswith(prefix)],
        build_module_src="raise RuntimeError('source code of a pickle was executed')",
    )
    return result


snapshot = read_pickle(sys.argv[1])
common = dict(num_channels=3, resolution=32, label_size=0, fmap_base=128, fmap_max=16)
G = dict(common, latent_size=64, dlatent_size=64, mapping_layers=2)
D = dict(common, mbstd_group_size=4)
networks = tuple(network(snapshot.network(key), G if key != "D" else D) for key in ("G", "D", "G_ema"))
with open(sys.argv[2], "wb") as file:
    pickle.dump(networks, file, protocol=2)
