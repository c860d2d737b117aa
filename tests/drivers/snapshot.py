"""Run in a host's folder: load a snapshot as the host's own tools do. Prints a JSON line with a digest of each network,
some pixels of images of seed 0, and the classes that were unpickled."""

import hashlib
import json
import sys

import torch

sys.path.insert(0, ".")
if "--stock" in sys.argv:  # nothing of ours may be needed; old names of setuptools and Python excepted
    sys.modules["stylegan_plugins"] = None
    sys.modules["training_ext"] = None
    try:
        import pkg_resources  # noqa: F401
    except ImportError:
        import types

        sys.modules["pkg_resources"] = types.SimpleNamespace(
            parse_version=lambda text: (
                tuple(int(n) for n in text.split("+")[0].split(".")[:2]) if "a" not in text else (1, 0)
            )
        )
else:
    from stylegan_plugins.host import compat

    compat.install()
import legacy


def digest(tensors):
    hasher = hashlib.sha256()
    for tensor in tensors:
        hasher.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


torch.set_num_threads(1)
with open(sys.argv[1], "rb") as file:
    data = legacy.load_network_pkl(file)
G = data["G_ema"]
torch.manual_seed(0)
image = G(torch.randn([2, G.z_dim]), torch.zeros([2, G.c_dim]), truncation_psi=0.7, noise_mode="const")
result = {
    name: digest(list(data[name].parameters()) + [b for n, b in data[name].named_buffers() if not n.endswith("w_avg")])
    for name in ("G", "D", "G_ema")
}
result["w_avg"] = digest([b for n, b in G.named_buffers() if n.endswith("w_avg")])
result["pixels"] = image.flatten()[::97].tolist()
result["finite"] = bool(image.isfinite().all())
result["modules"] = sorted({type(m).__module__.split(".")[0] for n in ("G", "D", "G_ema") for m in data[n].modules()})
result["keys"] = sorted(data)
print(json.dumps(result))
