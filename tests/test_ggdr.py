"""GGDR: its equation and decoder, options, the authors' numbers, and what it does in a host."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from stylegan_plugins import OptionError, PluginError
from stylegan_plugins.plugins import ggdr as plugin
from training_ext import ggdr

GOLDEN = Path(__file__).parent / "golden" / "ggdr.npz"


def enlarged(image: np.ndarray) -> np.ndarray:
    """Return U of a map [h, w]: a zero after each value, then [1, 3, 3, 1] / 4 along both axes, zeros beyond edges."""
    for _ in range(2):
        line = np.zeros([2 * image.shape[0] + 3, image.shape[1]])
        line[2 : 2 + 2 * image.shape[0] : 2] = image
        image = sum(w / 4 * line[k : k + 2 * image.shape[0]] for k, w in enumerate((1, 3, 3, 1))).T
    return image


@pytest.mark.unit
def test_maps_are_doubled_by_the_filter_of_the_hosts():
    maps = torch.randn([2, 3, 4, 5], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for n in range(2):
        for c in range(3):
            np.testing.assert_allclose(ggdr.doubled(maps)[n, c].numpy(), enlarged(maps[n, c].numpy()), atol=1e-14)


@pytest.mark.unit
def test_loss_and_decoder_are_their_equations():
    torch.manual_seed(0)
    decoder = ggdr.FeatureDecoder({4: 3, 8: 2}, channels=5, resolution=16).double()
    shapes = {name: list(layer.weight.shape[:2]) for name, layer in decoder.layers.items()}
    assert shapes == {"8": [2, 3], "16": [5, 4]}  # of f_4; of y_8 and f_8
    maps = {r: torch.randn([2, c, r, r], dtype=torch.float64) for r, c in ((4, 3), (8, 2))}
    features = torch.randn([2, 5, 16, 16], dtype=torch.float64)
    result = maps[4]
    for name, other in (("8", maps[8]), ("16", None)):
        layer = decoder.layers[name]
        mixed = torch.einsum("kc,nchw->nkhw", layer.weight[:, :, 0, 0] / result.shape[1] ** 0.5, result)
        made = torch.tensor([[enlarged(m.detach().numpy()).tolist() for m in image] for image in mixed])
        result = made + layer.bias.reshape(-1, 1, 1)
        result = result if other is None else torch.cat([result, other], dim=1)
    torch.testing.assert_close(decoder(maps), result)
    length = lambda maps: maps.square().sum(dim=1).sqrt()
    cosine = (result * features).sum(dim=1) / (length(result) * length(features))
    torch.testing.assert_close(ggdr.guidance_loss(result, features), 1 - cosine.flatten(1).mean(dim=1))


@pytest.mark.unit
def test_decoder_loss_and_gradients_equal_the_authors_7071792():
    golden = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN).items() if v.dtype.kind == "f"}
    maps = {r: golden[f"map/{r}"].requires_grad_(True) for r in (4, 8)}
    channels = {r: value.shape[1] for r, value in maps.items()}
    decoder = ggdr.FeatureDecoder(channels, golden["target"].shape[1], 16)
    names = {f"b{r}_dec.{part}": getattr(decoder.layers[r], part) for r in ("8", "16") for part in ("weight", "bias")}
    for name, value in names.items():
        value.data.copy_(golden[f"decoder/{name}"])
    predicted = decoder(maps)
    loss = plugin.GGDROptions().weight * ggdr.guidance_loss(predicted, golden["target"]).mean()
    # float32: some 1e-7 for each operation, in another order.
    torch.testing.assert_close(predicted, golden["predicted"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss, golden["loss"], rtol=1e-6, atol=0)
    keys = [*(f"map/{r}" for r in maps), *(f"decoder/{name}" for name in names)]
    for key, gradient in zip(keys, torch.autograd.grad(loss, [*maps.values(), *names.values()])):
        assert (gradient - golden[f"grad/{key}"]).norm() <= 1e-6 * golden[f"grad/{key}"].norm(), key


@pytest.mark.unit
def test_the_resolution_follows_the_size_of_the_images_and_must_be_one_of_theirs():
    assert [ggdr.default_resolution(side) for side in (16, 32, 64, 128, 256, 1024)] == [8, 8, 16, 32, 64, 64]
    args = {"training_set_kwargs": {"resolution": 32}}
    assert plugin.configure(args=args, options=plugin.GGDROptions()).resolution == 8
    assert plugin.configure(args=args, options=plugin.GGDROptions(resolution=32)).resolution == 32
    for wrong in (12, 64):
        with pytest.raises(
            OptionError, match=f"^--ggdr-resolution={wrong}: images of 32 pixels .* one of 8, 16, 32, or"
        ):
            plugin.configure(args=args, options=plugin.GGDROptions(resolution=wrong))


@pytest.mark.unit
def test_a_G_without_such_maps_is_refused_and_a_weight_of_0_adds_nothing():
    session = SimpleNamespace(G=SimpleNamespace(img_resolution=32, synthesis=torch.nn.Module()))
    with pytest.raises(PluginError, match="^--plugin=ggdr: G.synthesis has no layer b8; .* Use --cfg=stylegan2.$"):
        plugin.setup(session=session, options=plugin.GGDROptions())
    assert plugin.setup(session=session, options=plugin.GGDROptions(weight=0)) is None


@pytest.mark.host
def test_in_a_host_maps_of_G_are_moved_as_ADA_moves_images_and_D_runs_no_further_time(fetched):
    claims = report_of(fetched[ADA], "heads.py", "ggdr", str(GOLDEN))
    assert len(claims) > 12 and {claim: wrong for claim, wrong in claims.items() if wrong} == {}
