"""minegan: its equation, the authors' code, exact resumption, its two stages, and its snapshots in stock tools."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from drivers.states import differences
from support.hosts import ADA
from support.pickles import make_pickle
from support.runs import arguments, killed_and_resumed, run_to_its_end
from support.scripts import DRIVERS, invoke, run_script

import training_ext.minegan
from stylegan_plugins import DataError, OptionError, PluginError
from stylegan_plugins.files.pickles import read_pickle
from stylegan_plugins.files.snapshots import Network
from stylegan_plugins.files.states import read_state
from stylegan_plugins.host import generators
from stylegan_plugins.manager import catalogue
from stylegan_plugins.plugins import minegan as plugin
from stylegan_plugins.run import finetune

GOLDEN = Path(__file__).parent / "golden/minegan.npz"
N = 8


@pytest.mark.unit
def test_the_miner_equals_its_equation():
    miner = training_ext.minegan.miner(5).double()
    u = torch.randn([N, 5], dtype=torch.float64)
    (w1, b1, w2, b2) = [parameter.detach().numpy() for parameter in miner.parameters()]
    expected = np.maximum(u.numpy() @ w1.T + b1, 0) @ w2.T + b2
    torch.testing.assert_close(miner(u).detach(), torch.from_numpy(expected))
    assert expected.shape == (N, 5)


@pytest.mark.unit
def test_the_miner_and_its_gradients_equal_the_authors_a810f2d():
    with np.load(GOLDEN) as file:
        g = {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind != "U"}
    miner, u = training_ext.minegan.miner(6).double(), g["u"].requires_grad_(True)
    miner.load_state_dict({name: g[f"M/{name}"] for name in miner.state_dict()})
    z = miner(u)
    z.square().sum().backward()
    assert torch.equal(z.detach(), g["z"]) and torch.equal(u.grad, g["grad/u"])
    assert all(torch.equal(value.grad, g[f"grad/{name}"]) for name, value in miner.named_parameters())


@pytest.mark.unit
def test_minegan_trains_miner_and_D_in_stage_1_and_everything_in_stage_2():
    method = plugin.Method(plugin.OPTIONS(stage1_kimg=2))
    names = ["G.mapping.before.0.weight", "G.mapping.fc0.weight", "G.synthesis.b4.const", "D.b4.out.bias"]
    assert [method.trains(name, 1999) for name in names] == [True, False, False, True]
    assert all(method.trains(name, 2000) for name in names)
    assert all(plugin.Method(plugin.OPTIONS(stage1_kimg=0)).trains(name, 0) for name in names)
    method = plugin.Method(plugin.OPTIONS(stage1_kimg=2, constant=True))
    assert [method.trains(name, 1999) for name in names] == [True, False, True, True]


@pytest.mark.unit
def test_minegan_needs_a_pickle_and_has_a_stage_of_1000_iterations():
    configure = partial(plugin.configure, explicit=frozenset())
    with pytest.raises(OptionError, match="Give --resume=PKL."):
        configure(args={"batch_size": 16}, options=plugin.OPTIONS())
    args = {"batch_size": 16, "resume_pkl": "x.pkl", "G_opt_kwargs": {"lr": 1.0}, "D_opt_kwargs": {"lr": 1.0}}
    args["plugins"] = {"options": {}}
    assert configure(args=args, options=plugin.OPTIONS()).stage1_kimg == 16 and args["G_opt_kwargs"]["lr"] == 1
    configure(args=args, options=plugin.OPTIONS(lr=0.001))
    assert args["G_opt_kwargs"]["lr"] == args["D_opt_kwargs"]["lr"] == 0.001
    with pytest.raises(OptionError, match="--minegan-lr and --transfergan-lr: give one of them"):
        other = {"options": {"transfergan": {"lr": 1e-5}}}
        configure(args=args | {"plugins": other}, options=plugin.OPTIONS(lr=0.001))
    with pytest.raises(OptionError, match="--minegan-lr and --glr or --dlr: give one of them"):
        plugin.configure(args=args, options=plugin.OPTIONS(lr=0.001), explicit=frozenset({"glr"}))
    stylegan3 = SimpleNamespace(G=torch.nn.Linear(1, 1))
    with pytest.raises(PluginError, match="--minegan-constant=true: this G has no 4x4 constant"):
        plugin.setup(session=stylegan3, options=plugin.OPTIONS(constant=True))


@pytest.mark.unit
def test_a_snapshot_with_a_miner_is_fine_tuned_with_its_plugin_alone():
    network = Network("Generator", (), {}, {"mapping.before.0.weight": torch.zeros(1)}, frozenset())
    for active in ([], ["augself"], ["scale-shift"]):
        with pytest.raises(DataError, match="before its mapping network. Add that --plugin, or start from another"):
            finetune._check_fit(Path("a.pkl"), "G", {}, network, catalogue().activate(active, {}))
    assert all(generators.have_module(catalogue().activate([with_it], {})) for with_it in ("minegan", "scale-shift"))


@pytest.mark.unit
def test_a_run_keeps_its_own_temperature():
    G = torch.nn.Module()
    G.mapping = torch.nn.Linear(1, 1)
    G.mapping.register_buffer("temperature", torch.tensor(0.5))
    tensors = {
        "mapping.weight": torch.ones(1, 1),
        "mapping.bias": torch.ones(1),
        "mapping.temperature": torch.tensor(0.3),
    }
    assert finetune.copy_tensors(Network("Generator", (), {}, tensors, frozenset()), G) == {}
    assert G.mapping.temperature == 0.5 and G.mapping.weight == 1


# Whole runs. --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(shared, fetched):
    """A pickle of 16x16 to fine-tune."""
    return shared("mined", lambda top: make_pickle(fetched[ADA], top / "source.pkl", img_resolution=16)) / "source.pkl"


def settings(host: Path, data: Path, source: Path, outdir: Path) -> dict:
    """Return the arguments of 20 iterations."""
    args = arguments(host, ADA, data, outdir, "--plugin=minegan", f"--resume={source}", "--minegan-stage1-kimg=0.08")
    return args | {"total_kimg": 0.16, "kimg_per_tick": 0.08, "image_snapshot_ticks": 50}


@pytest.fixture(scope="module")
def trained(ada_host, small_zip, source, tmp_path_factory):
    """Arguments and directory of an uninterrupted run, with the state of each iteration."""
    top = tmp_path_factory.mktemp("minegan")
    args = settings(ada_host, small_zip, source, top)
    run_to_its_end(ada_host, args | {"state_minutes": 1e-6, "keep_states": 100}, top / "run")
    return args, top / "run"


@pytest.mark.run
def test_a_run_that_is_killed_and_resumed_ends_as_an_uninterrupted_run(ada_host, trained, tmp_path):
    args, expected = trained
    assert args["plugins"]["active"] == ["minegan"]
    killed_and_resumed(ada_host, args, tmp_path / "run", beyond=48)
    assert differences(tmp_path / "run", expected) == []


def networks_at(run: Path, nimg: int) -> dict:
    return read_state(run / f"training-state-{nimg:09d}.pt")["networks"]


@pytest.mark.run
def test_stage_1_of_minegan_moves_miner_and_D_and_stage_2_everything(trained, source):
    _, run = trained
    of_pickle = read_pickle(source)
    first, stage1, end = networks_at(run, 8), networks_at(run, 80), networks_at(run, 160)
    miner = [name for name in end["G"] if name.startswith("mapping.before.")]
    host_G, host_D = of_pickle.network("G").parameters, of_pickle.network("D").parameters
    assert len(miner) == 4 and len(host_G) > 10
    for network in ("G", "G_ema"):
        for name in host_G:
            before = of_pickle.network("G").tensors[name]
            assert torch.equal(stage1[network][name], before), f"{network}: stage 1 changed {name}"
            assert not torch.equal(end[network][name], before), f"{network}: stage 2 did not train {name}"
        for name in miner:
            assert not torch.equal(stage1[network][name], first[network][name]), name
            assert not torch.equal(end[network][name], stage1[network][name]), name
    for name in host_D:
        assert not torch.equal(stage1["D"][name], of_pickle.network("D").tensors[name]), name
        assert not torch.equal(end["D"][name], stage1["D"][name]), name


IMAGES = """
import sys; sys.path.insert(0, ".")
import numpy, torch
if {stock}:
    import legacy
    G = legacy.load_network_pkl(open(sys.argv[1], "rb"))["G_ema"].eval()
else:
    from pathlib import Path
    from stylegan_plugins.host import find, networks
    find.choose_host(None)
    G = networks.load_network(Path(sys.argv[1]), "G_ema")
torch.manual_seed(0)
z = torch.randn([4, G.z_dim])
made = dict(images=G(z, torch.zeros([4, 0]), noise_mode="const"), mined=G.mapping.before(z))
numpy.savez(sys.argv[2], ours=any(name.startswith("stylegan_plugins.") for name in sys.modules),
            **{{name: value.detach().numpy() for name, value in made.items()}})
"""


@pytest.mark.run
def test_a_snapshot_of_minegan_makes_the_same_images_in_an_unpatched_host(trained, fetched, ada_host, tmp_path):
    _, run = trained
    pickle = max(run.glob("network-snapshot-*.pkl"))
    for name, stock in (("stock", True), ("ours", False)):
        (tmp_path / f"{name}.py").write_text(IMAGES.format(stock=stock))
    script = [str(DRIVERS / "stock_script.py"), str(tmp_path / "stock.py"), str(pickle), str(tmp_path / "stock.npz")]
    run_script(fetched[ADA], *script)
    run_script(ada_host, str(tmp_path / "ours.py"), str(pickle), str(tmp_path / "ours.npz"))
    stock, ours = (np.load(tmp_path / f"{name}.npz") for name in ("stock", "ours"))
    assert ours["ours"] and not stock["ours"]
    np.testing.assert_allclose(ours["images"], stock["images"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours["mined"], stock["mined"], rtol=0, atol=1e-5)
    assert ours["images"].std() > 0.01


@pytest.fixture(scope="module")
def stock_pictures(trained, fetched, tmp_path_factory):
    """The folder of images that the stock generate.py makes of a minegan snapshot: seeds 0 to 2, no truncation."""
    _, run = trained
    pickle, top = max(run.glob("network-snapshot-*.pkl")), tmp_path_factory.mktemp("stock")
    script = ["generate.py", f"--network={pickle}", "--seeds=0-2", "--trunc=1", f"--outdir={top}"]
    run_script(fetched[ADA], str(DRIVERS / "stock_script.py"), *script)
    return top


@pytest.mark.run
def test_the_stock_script_gives_the_miner_latents_in_double_precision_and_makes_images(stock_pictures):
    made = [np.asarray(PIL.Image.open(path)) for path in sorted(stock_pictures.glob("seed*.png"))]
    assert len(made) == 3 and all(image.shape == (16, 16, 3) and image.std() > 1 for image in made)


@pytest.mark.run
def test_sample_rebuilds_the_miner_with_the_plugin_of_the_run(trained, stock_pictures, ada_host, tmp_path):
    _, run = trained
    done = invoke(ada_host, "sample", str(run), "--seeds=0-2", "--trunc=1", f"--outdir={tmp_path / 'ours'}")
    assert done.returncode == 0, done.stderr
    for stock in stock_pictures.glob("seed*.png"):
        pictures = [np.asarray(PIL.Image.open(path)).astype(int) for path in (tmp_path / "ours" / stock.name, stock)]
        assert abs(pictures[0] - pictures[1]).max() <= 1  # rounding


@pytest.mark.run
def test_a_miner_whose_plugin_is_not_recorded_beside_the_pickle_is_refused_in_one_line(trained, ada_host, tmp_path):
    _, run = trained
    alone = shutil.copy(max(run.glob("network-snapshot-*.pkl")), tmp_path)
    record = json.loads((run / "training_options.json").read_text())
    for plugins in (None, {}, {"active": ["diffaugment"], "options": {}}):
        if plugins is not None:
            (tmp_path / "training_options.json").write_text(json.dumps(record | {"plugins": plugins}))
        done = invoke(ada_host, "sample", alone, "--seeds=0", f"--outdir={tmp_path / 'none'}")
        assert done.returncode == 2 and not (tmp_path / "none").exists()
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert "a module of a plug-in before its mapping network" in line
        assert "no training_options.json beside it says which" in line and "Traceback" not in done.stderr
