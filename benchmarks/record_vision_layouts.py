"""Record names, shapes and features of published image networks, as tests/golden/vision_layouts.npz.

    python benchmarks/record_vision_layouts.py --vision-aided DIR --transformer-ssl DIR --swin DIR --antialiased DIR \
        --mmdetection DIR --out tests/golden

The directories are checkouts of nupurkmr9/vision-aided-gan, SwinTransformer/Transformer-SSL, microsoft/Swin-Transformer
and adobe/antialiased-cnns at the commits below, and a folder of mmdet 3.3.0, mmengine, mmcv-lite and what these import:

    pip install --no-deps --target DIR mmdet==3.3.0 mmengine==0.10.7 mmcv-lite==2.2.0 addict opencv-python-headless \
        termcolor rich markdown-it-py mdurl pygments

As in record_golden.py, the authors' code runs where it lies and only names, shapes and numbers are written. Weights are
not in the file: they are drawn by numpy's RandomState of the CRC-32 of their names."""

import argparse
import importlib
import importlib.util
import json
import math
import pathlib
import sys
import types
import zlib

import numpy as np
import torch
from record_golden import check_checkout, save

COMMITS = {
    "vision_aided": ("95fc55beefad3e868783beab421108c5baf583aa", "nupurkmr9/vision-aided-gan"),
    "transformer_ssl": ("4510de1f21ee6f9810a74494c254081dd8f2c383", "SwinTransformer/Transformer-SSL"),
    "swin": ("f82860bfb5225915aca09c3227159ee9e1df874d", "microsoft/Swin-Transformer"),
    "antialiased": ("b27a34a26f3ab039113d44d83c54d0428598ac9c", "adobe/antialiased-cnns"),
}
FILES = {
    "vision_aided": [f"vision_aided_loss/{name}.py" for name in ("swintaskspecific", "face_parsing", "face_normals")],
    "transformer_ssl": ["models/swin_transformer.py"],
    "swin": ["models/swin_transformer.py"],
    "antialiased": ["antialiased_cnns/vgg.py", "antialiased_cnns/blurpool.py"],
}
BUFFERS = ("relative_position_index", "attn_mask", "filt", "num_batches_tracked")
SMALL = dict(depths=[2, 2, 2, 2], num_heads=[1, 2, 3, 4])


def drawn(name, shape):
    """Return numbers of about the size that weights of this name and shape have, float64."""
    values = torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).randn(*shape))
    if name.endswith("running_var"):
        return 0.5 + values.abs()
    if name.endswith("weight") and len(shape) > 1:
        return values / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


def module(name, path=None, **attributes):
    made = types.ModuleType(name)
    made.__dict__.update(attributes)
    if path is not None:
        made.__path__ = [str(path)]
    sys.modules[name] = made
    return made


def load_file(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def mmdetection_swin(folder):
    """Return mmdetection's class, without its compiled operators and the packages that only its configurations need."""
    sys.path.append(str(folder))
    for name in ("yapf", "yapf.yapflib"):
        module(name)
    module("yapf.yapflib.yapf_api", FormatCode=None)
    for name in ("mmdet", "mmdet.models", "mmdet.models.backbones", "mmdet.models.layers"):
        module(name, folder / name.replace(".", "/"))
    module("mmdet.models.layers.transformer", folder / "mmdet/models/layers/transformer")
    module("mmdet.utils", **dict.fromkeys(("OptConfigType", "ConfigType", "OptMultiConfig", "MultiConfig"), object))
    layers = importlib.import_module("mmdet.models.layers.transformer.utils")
    sys.modules["mmdet.models.layers"].__dict__.update(PatchEmbed=layers.PatchEmbed, PatchMerging=layers.PatchMerging)
    return importlib.import_module("mmdet.models.backbones.swin").SwinTransformer


def record_layout(layout, full, small, features, side):
    """Record names and shapes of a network at its full size, and features of a small one with drawn weights."""
    small.double().eval()
    known = set()
    for name, value in small.state_dict().items():
        if not name.endswith(BUFFERS) and value.data_ptr() not in known:  # the first name of a shared weight counts
            known.add(value.data_ptr())
            value.copy_(drawn(name, value.shape))
    image = drawn(f"{layout}/image", [1, 3, side, side]) * 10
    with torch.no_grad():
        output = features(small, image)
    shapes = lambda network: json.dumps({name: list(value.shape) for name, value in network.state_dict().items()})
    return {
        f"{layout}/names": shapes(full),
        f"{layout}/small/names": shapes(small),
        f"{layout}/side": side,
        **{f"{layout}/features{k}": value for k, value in enumerate(output)},
    }


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/vision_layouts.npz from published code.")
    for name in (*COMMITS, "mmdetection", "out"):
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="DIR", type=pathlib.Path, required=True)
    args = parser.parse_args()
    for name, (commit, _) in COMMITS.items():
        check_checkout(getattr(args, name), commit, FILES[name])
    torch.set_num_threads(1)
    module("gdown")
    module("vision_aided_loss", args.vision_aided / "vision_aided_loss")
    dense = importlib.import_module("vision_aided_loss.swintaskspecific").SwinTransformer
    faces = importlib.import_module("vision_aided_loss.face_parsing")
    normals = importlib.import_module("vision_aided_loss.face_normals")
    resnet18 = importlib.import_module("vision_aided_loss.resnet").resnet18
    normals.resnet18 = lambda pretrained: resnet18(pretrained=False)  # which would be downloaded
    mm = mmdetection_swin(args.mmdetection)
    moby = load_file("moby_swin", args.transformer_ssl / "models/swin_transformer.py").SwinTransformer
    swin = load_file("original_swin", args.swin / "models/swin_transformer.py").SwinTransformer
    sys.path.append(str(args.antialiased))
    vgg = importlib.import_module("antialiased_cnns.vgg")

    def of_classifier(network, x):
        x = network.patch_embed(x)
        for layer in network.layers:
            x = layer(x)
        return [network.norm(x).transpose(1, 2).unflatten(2, (7, 7))]

    blocks = [4, 4, "M", 8, 8, "M", 12, "M", 16, "M", 16, "M"]
    small_vgg = vgg.VGG(vgg.make_layers(blocks, filter_size=4), num_classes=2)
    middle = lambda network, x: [torch.nn.functional.avg_pool2d(network(x, get_feat=True), 2)]
    record = {
        **{f"{name}_commit": commit for name, (commit, _) in COMMITS.items()},
        **record_layout("dense", dense(), dense(embed_dim=12, **SMALL), lambda network, x: network(x), 64),
        **record_layout("openmmlab", mm(), mm(embed_dims=12, **SMALL), lambda network, x: network(x), 64),
        **record_layout("moby", moby(num_classes=0), moby(embed_dim=12, num_classes=0, **SMALL), of_classifier, 224),
        **record_layout("swin", swin(), swin(embed_dim=12, **SMALL), of_classifier, 224),
        **record_layout("antialiased", vgg.vgg16(), small_vgg, lambda network, x: [network.features(x)], 64),
        **record_layout("face_seg", faces.unet(), faces.unet(feature_scale=16), middle, 64),
    }
    encoder = normals.ResNetUNet(3)
    record |= record_layout(
        "face_normals", encoder, encoder, lambda network, x: [network(x, get_feat=True)[:, ::8]], 64
    )
    save(args.out / "vision_layouts.npz", record)


if __name__ == "__main__":
    main()
