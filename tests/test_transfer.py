"""Fine-tuning pickles: --resume, freezed, transfergan, and the way from one data set to another and back to NVIDIA."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from support.hosts import ADA, STYLEGAN3, copy_host
from support.images import color_crops, write_zip
from support.pickles import make_pickle, make_pickles
from support.runs import arguments, flags, loop, run_to_its_end, still
from support.scripts import DRIVERS, invoke, run_script

from stylegan_plugins.cli import cli
from stylegan_plugins.errors import DataError
from stylegan_plugins.files import demo, states
from stylegan_plugins.files.checksums import check_checksum, record_checksum
from stylegan_plugins.files.pickles import Network, read_pickle
from stylegan_plugins.host import patch as host_patch
from stylegan_plugins.plugins import transfergan
from stylegan_plugins.plugins.freezed import layers_above
from stylegan_plugins.run import finetune


@pytest.fixture(scope="module")
def sources(shared, fetched):
    """Pickles of networks that TINY does not name: 8 mapping layers, written by unpatched hosts."""
    return make_pickles(shared, "sources", fetched, num_layers=8)


def repickle(host: Path, source: Path, out: str, change: str) -> None:
    """Write a pickle again after a statement that changes its `data`."""
    code = (
        "import functools, pickle, sys; sys.path.insert(0, '.')\n"
        "from stylegan_plugins.host.modules import host_module\n"
        "data = host_module('legacy').load_network_pkl(open(sys.argv[1], 'rb'))\n"
        f"{change}\n"
        "pickle.dump(data, open(sys.argv[2], 'wb'))\n"
    )
    run_script(host, "-c", code, str(source), out)


def assert_starts_from(host: Path, family: str, source: Path, data: Path, tmp_path: Path) -> None:
    args = arguments(host, family, data, tmp_path, f"--resume={source}", "--plugin=diffaugment")
    assert args["G_kwargs"]["mapping_kwargs"]["num_layers"] == 8
    output = run_to_its_end(host, still(args), tmp_path / "run")
    expected, found = read_pickle(source), read_pickle(tmp_path / "run" / "network-snapshot-000000.pkl")
    for name in ("G", "D", "G_ema"):
        assert f"  {name:<6} " in output and " tensors copied, 0 at random" in output
        assert found.networks[name].parameters == expected.networks[name].parameters
        for key in expected.networks[name].parameters:
            assert torch.equal(found.networks[name].tensors[key], expected.networks[name].tensors[key]), key


@pytest.mark.run
def test_a_run_starts_from_all_weights_of_a_pickle_without_a_flag(family, training_hosts, sources, color_zip, tmp_path):
    assert_starts_from(training_hosts[family], family, sources[family], color_zip, tmp_path)


@pytest.mark.run
@pytest.mark.parametrize("pristine", [ADA, STYLEGAN3], indirect=True, ids=[ADA, STYLEGAN3])
def test_nvidias_pickles_start_runs_in_our_hosts(pristine, request, training_hosts, color_zip, tmp_path):
    family = request.node.callspec.params["pristine"]
    source = make_pickle(pristine, tmp_path / "source.pkl", num_layers=8)
    assert_starts_from(training_hosts[family], family, source, color_zip, tmp_path)


@pytest.mark.run
def test_our_snapshots_start_runs_in_an_unpatched_host(family, fetched, training_hosts, sources, color_zip, tmp_path):
    args = arguments(
        training_hosts[family], family, color_zip, tmp_path, f"--resume={sources[family]}", "--plugin=augself"
    )
    run_to_its_end(training_hosts[family], args | {"total_kimg": 0.032}, tmp_path / "ours")
    ours = max((tmp_path / "ours").glob("network-snapshot-*.pkl"))
    args = arguments(training_hosts[family], family, color_zip, tmp_path, f"--resume={ours}")
    args.pop("device")  # which an unpatched loop does not know
    theirs = loop(fetched[family], still(args), tmp_path / "theirs", 1, "--stock")
    for name in ("G", "D"):  # G_ema moves towards G
        expected, found = read_pickle(ours).network(name), read_pickle(theirs).network(name)
        for key in expected.parameters:
            assert torch.equal(found.tensors[key], expected.tensors[key]), key


@pytest.mark.run
def test_a_pickle_of_ada_starts_a_run_of_stylegan3_and_the_other_way_round(
    training_hosts, sources, color_zip, tmp_path
):
    for family, other in ((STYLEGAN3, ADA), (ADA, STYLEGAN3)):
        folder = tmp_path / family
        folder.mkdir()
        args = arguments(training_hosts[family], family, color_zip, folder, f"--resume={sources[other]}")
        run_to_its_end(training_hosts[family], still(args), folder / "run")
        found = read_pickle(folder / "run" / "network-snapshot-000000.pkl").network("G")
        for key, value in read_pickle(sources[other]).network("G").tensors.items():
            if key in found.parameters:
                assert torch.equal(found.tensors[key], value), key


@pytest.mark.run
def test_runs_start_from_networks_without_code(family, training_hosts, sources, color_zip, gray_zip, tmp_path):
    """From the network of the package, and from a pickle that `export` has converted."""
    host = training_hosts[family]
    written = tmp_path / "both.safetensors"
    assert invoke(host, "export", str(sources[family]), f"--out={written}").returncode == 0
    for address, file, data in (("people32", demo.NETWORKS["people32"], gray_zip), (written, written, color_zip)):
        expected = read_pickle(file)
        assert expected.networks.keys() == {"G_ema", "D"} and not any(n.source for n in expected.networks.values())
        args = arguments(host, family, data, tmp_path, f"--resume={address}", "--plugin=freezed,diffaugment")
        run = tmp_path / file.stem
        assert " 0 at random" in run_to_its_end(host, still(args), run)
        found = read_pickle(run / "network-snapshot-000000.pkl")
        for name, source in {"G": "G_ema", "D": "D", "G_ema": "G_ema"}.items():
            for key in expected.networks[source].parameters:
                assert torch.equal(found.networks[name].tensors[key], expected.networks[source].tensors[key]), key


@pytest.mark.run
def test_the_whole_way_from_one_data_set_to_another_and_to_an_unpatched_host(
    family, fetched, training_hosts, sources, tmp_path
):
    """A source, fine-tuned with FreezeD and AugSelf on other images, makes pictures in a host that lacks us."""
    data = write_zip(tmp_path / "target.zip", color_crops(40, seed=7))
    more = [f"--resume={sources[family]}", "--plugin=freezed,augself", "--mirror=1"]
    args = arguments(training_hosts[family], family, data, tmp_path, *more)
    assert args["D_kwargs"]["block_kwargs"]["freeze_layers"] == 4
    run_dir = tmp_path / "run"
    output = run_to_its_end(training_hosts[family], args | {"total_kimg": 0.064, "kimg_per_tick": 1}, run_dir)
    names = [f"b32.{layer}.weight" for layer in ("fromrgb", "conv0", "conv1", "skip")]
    names += [f"b32.{layer}.bias" for layer in ("fromrgb", "conv0", "conv1")]
    line = next(line for line in output.splitlines() if line.startswith("freezed: 7 tensors of D stay as they are: "))
    assert all(name in line for name in names)
    before = read_pickle(sources[family])
    after = read_pickle(max(run_dir.glob("network-snapshot-*.pkl")))
    for name in before.network("D").parameters:
        same = torch.equal(before.network("D").tensors[name], after.network("D").tensors[name])
        assert same == (name in names), name
    assert not any(
        torch.equal(before.network("G").tensors[n], after.network("G").tensors[n]) for n in ("mapping.fc0.weight",)
    )
    heads = states.read_state(states.states_of(run_dir)[0])["session"]
    assert all(
        int(item["step"]) == 8 for item in heads["optimizers"]["augself"]["state"].values()
    )  # frozen D or not, they learn
    assert_stock_script_makes_images(fetched[family], family, max(run_dir.glob("*.pkl")), tmp_path / "pictures")


def assert_stock_script_makes_images(host: Path, family: str, network: Path, outdir: Path) -> None:
    script = {ADA: "generate.py", STYLEGAN3: "gen_images.py"}[family]
    run_script(
        host,
        str(DRIVERS / "stock_script.py"),
        *[script, f"--network={network}", "--seeds=0,1", f"--outdir={outdir}", "--noise-mode=const"],
    )
    pictures = [np.asarray(PIL.Image.open(outdir / f"seed{seed:04d}.png")) for seed in (0, 1)]
    assert pictures[0].shape == (32, 32, 3) and not np.array_equal(*pictures) and pictures[0].std() > 1


@pytest.mark.run
@pytest.mark.parametrize("pristine", [ADA, STYLEGAN3], indirect=True, ids=[ADA, STYLEGAN3])
def test_the_whole_way_in_nvidias_checkouts(pristine, request, sources, tmp_path):
    family = request.node.callspec.params["pristine"]
    patched = copy_host(pristine, tmp_path / "host")
    host_patch.patch(patched)
    source = make_pickle(pristine, tmp_path / "source.pkl", num_layers=8)
    data = write_zip(tmp_path / "target.zip", color_crops(40, seed=7))
    args = arguments(patched, family, data, tmp_path, f"--resume={source}", "--plugin=freezed,augself")
    run_to_its_end(patched, args | {"total_kimg": 0.032, "kimg_per_tick": 1}, tmp_path / "run")
    assert_stock_script_makes_images(pristine, family, max((tmp_path / "run").glob("*.pkl")), tmp_path / "pictures")


@pytest.mark.run
def test_the_hosts_own_freezed_works_and_what_it_froze_can_be_fine_tuned(ada_host, sources, color_zip, tmp_path):
    args = arguments(ada_host, ADA, color_zip, tmp_path, f"--resume={sources[ADA]}", "--freezed=4")
    run_to_its_end(ada_host, still(args), tmp_path / "frozen")
    frozen = tmp_path / "frozen" / "network-snapshot-000000.pkl"
    args = arguments(ada_host, ADA, color_zip, tmp_path, f"--resume={frozen}")
    assert "tensors copied, 0 at random" in run_to_its_end(ada_host, still(args), tmp_path / "again")
    again = read_pickle(tmp_path / "again" / "network-snapshot-000000.pkl").network("D")
    assert again.parameters == read_pickle(sources[ADA]).network("D").parameters


# --- What does not fit. ---


def refused(host: Path, family: str, data: Path, tmp_path: Path, *more: str) -> str:
    done = run_script(
        host, "train.py", f"--data={data}", f"--outdir={tmp_path / 'runs'}", *flags(family, *more), check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert not (tmp_path / "runs").exists()
    return done.stderr.splitlines()[-1]


@pytest.mark.host
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cbase=512"], "--cbase=512: the pickle of --resume has 256. Leave the option out"),
        (["--cmax=8"], "--cmax=8: the pickle of --resume has 16"),
        (["--plugin=freezed", "--freezed-layers=99"], "--freezed-layers=99: a discriminator of 32x32 has 10 layers"),
        (
            ["--freezed=99"],
            "--freezed=99: a discriminator of 32x32 has 10 layers before its last block. Give 10 or less",
        ),
        (["--plugin=freezed", "--freezed=3"], "--freezed and --plugin=freezed: give one of them"),
    ],
)
def test_a_flag_that_contradicts_the_pickle_is_refused(more, message, ada_host, sources, color_zip, tmp_path):
    assert message in refused(ada_host, ADA, color_zip, tmp_path, f"--resume={sources[ADA]}", *more)


@pytest.mark.host
def test_stylegan3_refuses_another_depth_and_another_generator(stylegan3_host, sources, color_zip, tmp_path):
    resume = f"--resume={sources[STYLEGAN3]}"
    assert "--map-depth=4: the pickle of --resume has 8" in refused(
        stylegan3_host, STYLEGAN3, color_zip, tmp_path, resume, "--map-depth=4"
    )
    assert "G of stylegan3.pkl is not a training.networks_stylegan3.Generator" in refused(
        stylegan3_host, STYLEGAN3, color_zip, tmp_path, resume, "--cfg=stylegan3-t"
    )


@pytest.mark.host
@pytest.mark.parametrize("plugin", ["freezed", "transfergan"])
def test_transfer_without_a_source_is_refused(plugin, ada_host, color_zip, tmp_path):
    assert "Give --resume=PKL." in refused(ada_host, ADA, color_zip, tmp_path, f"--plugin={plugin}")


@pytest.mark.host
def test_pictures_become_those_that_the_pickle_makes(family, training_hosts, sources, fetched, tmp_path):
    write_zip(tmp_path / "large.zip", [crop[:, :, :1].repeat(3, 2) for crop in color_crops(4, side=64)])
    data, resume = tmp_path / "large.zip", f"--resume={sources[family]}"
    args = arguments(training_hosts[family], family, data, tmp_path, resume)
    assert args["training_set_kwargs"]["resolution"] == 32
    assert (args["pictures"]["size"], args["pictures"]["colors"]) == (32, "rgb")
    gray = make_pickle(fetched[family], tmp_path / "gray.pkl", img_resolution=16, img_channels=1)
    args = arguments(training_hosts[family], family, data, tmp_path, f"--resume={gray}", "--size=auto", "--crop=fit")
    assert args["training_set_kwargs"]["resolution"] == 16
    assert args["pictures"].items() >= {"size": 16, "colors": "gray", "crop": "fit"}.items()


@pytest.mark.host
def test_data_that_the_pickle_does_not_fit_are_refused(fetched, ada_host, sources, color_zip, labelled_zip, tmp_path):
    resume = f"--resume={sources[ADA]}"
    assert "makes images of 32x32, the images of --data are 64x64. Give --size=32" in (
        refused(ada_host, ADA, color_zip, tmp_path, resume, "--size=64")
    )
    assert "makes RGB images, the images of --data are gray" in (
        refused(ada_host, ADA, color_zip, tmp_path, resume, "--colors=gray")
    )
    assert "was trained with no labels, this run has labels of width 3. Train with --cond=0" in refused(
        ada_host, ADA, labelled_zip, tmp_path, resume, "--cond=1"
    )
    conditional = make_pickle(fetched[ADA], tmp_path / "conditional.pkl", c_dim=3)
    assert "was trained with labels of width 3" in refused(
        ada_host, ADA, labelled_zip, tmp_path, f"--resume={conditional}"
    )


@pytest.mark.host
def test_a_source_that_cannot_be_had_is_one_line(ada_host, color_zip, tmp_path):
    assert "--resume: nothing.pkl does not exist" in refused(ada_host, ADA, color_zip, tmp_path, "--resume=nothing.pkl")
    told = refused(ada_host, ADA, color_zip, tmp_path, "--resume=http://127.0.0.1:9/x.pkl")
    assert "--resume: http://127.0.0.1:9/x.pkl is not available (ConnectionError)" in told


@pytest.mark.run
def test_a_pickle_that_would_run_something_is_refused_unless_it_is_trusted(ada_host, sources, color_zip, tmp_path):
    repickle(ada_host, sources[ADA], str(tmp_path / "extra.pkl"), "data['extra'] = functools.partial(int, 1)")
    resume = f"--resume={tmp_path / 'extra.pkl'}"
    told = refused(ada_host, ADA, color_zip, tmp_path, resume)
    assert "refers to functools.partial, which a network does not need. If you trust its origin, --trust-pickle" in told
    args = arguments(ada_host, ADA, color_zip, tmp_path, resume, "--trust-pickle")
    output = run_to_its_end(ada_host, still(args), tmp_path / "run")
    assert "tensors copied, 0 at random" in output


# --- Pieces. ---


@pytest.mark.unit
def test_tensors_of_another_shape_are_not_broadcast():
    module = torch.nn.Linear(3, 3)
    before = module.weight.clone()
    network = Network("Linear", (), {}, {"weight": torch.ones([1, 3]), "bias": torch.ones([3])}, frozenset())
    left = finetune.copy_tensors(network, module)
    assert left == {"weight": "[3, 3], pickle [1, 3]"}
    assert torch.equal(module.weight, before) and torch.equal(module.bias, torch.ones([3]))
    assert finetune.copy_tensors(None, module) == dict.fromkeys(("weight", "bias"), "not in the pickle")
    shown = finetune.table("D", module, left)
    assert "D         1 tensors copied, 1 at random" in shown and "at random: weight ([3, 3], pickle [1, 3])" in shown


@pytest.mark.host
@pytest.mark.parametrize("place", ["front", "middle", "weights"])
def test_a_flipped_bit_in_a_snapshot_is_told(place, pickles, tmp_path):
    path = tmp_path / "network-snapshot-000001.pkl"
    shutil.copy(pickles[ADA], path)
    record_checksum(path)
    check_checksum(path)
    content = bytearray(path.read_bytes())
    content[{"front": 100, "middle": len(content) // 2, "weights": len(content) - 5000}[place]] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="network-snapshot-000001.pkl is truncated or damaged: its SHA-256"):
        finetune.open_pickle(path)


@pytest.mark.unit
def test_a_snapshot_that_was_written_anew_counts_as_the_last_one(tmp_path):
    path = tmp_path / "network-snapshot-000001.pkl"
    for content in (b"one", b"two"):
        path.write_bytes(content)
        record_checksum(path)
    check_checksum(path)


COUNT = """
import sys; sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.plugins.freezed import frozen_tensors, layers_above
networks = host_module("training.networks")
for architecture in ("resnet", "orig", "skip"):
    for side in (32, 64, 128):
        kwargs = dict(c_dim=0, img_resolution=side, img_channels=3, architecture=architecture, channel_max=8)
        for kept in (4, 8, 16):
            layers = layers_above(kept, side, architecture)
            D = networks.Discriminator(block_kwargs=dict(freeze_layers=layers), **kwargs)
            frozen = {name.split(".")[0] for name in frozen_tensors(D)}
            trained = {name.split(".")[0] for name, _ in D.named_parameters()}
            blocks = [f"b{2 ** k}" for k in range(2, 8) if 2 ** k <= side]
            assert frozen == {b for b in blocks if int(b[1:]) > kept}, (architecture, side, kept, frozen)
            assert trained == {b for b in blocks if int(b[1:]) <= kept}, (architecture, side, kept, trained)
"""


@pytest.mark.host
def test_layers_are_counted_as_the_host_counts_them(ada_host):
    run_script(ada_host, "-c", COUNT)
    assert layers_above(16, 256, "resnet") == 13  # the authors': four of seven blocks


@pytest.mark.host
def test_transfergan_has_the_published_settings_as_a_preset(ada_host, sources, color_zip, tmp_path):
    resume = f"--resume={sources[ADA]}"
    plain = arguments(ada_host, ADA, color_zip, tmp_path, resume)
    args = arguments(ada_host, ADA, color_zip, tmp_path, resume, "--plugin=transfergan")
    assert args["G_opt_kwargs"] == plain["G_opt_kwargs"] and "freeze_layers" not in str(args)
    args = arguments(ada_host, ADA, color_zip, tmp_path, resume, "--plugin=transfergan", "--transfergan-preset=paper")
    for name in ("G_opt_kwargs", "D_opt_kwargs"):
        assert args[name]["lr"] == 1e-5 and args[name]["betas"] == [0, 0.9]


def transferred(*explicit: str, **loss: object) -> dict:
    """Return arguments of a run with the authors' WGAN-GP."""
    args = {
        "resume_pkl": "x.pkl",
        "num_gpus": 1,
        "batch_size": 32,
        "batch_gpu": 32,
        "ema_kimg": 10,
        "total_kimg": 25000,
    }
    args |= {"G_reg_interval": 4, "D_reg_interval": 16, "augment_kwargs": {}, "ada_target": 0.6}
    args |= {f"{network}_opt_kwargs": {"lr": 0.002, "betas": [0, 0.99]} for network in "GD"}
    args["loss_kwargs"] = {"r1_gamma": 10, "pl_weight": 2, **loss}
    options = transfergan.OPTIONS(**transfergan.PRESETS["paper"].values)
    transfergan.configure(args=args, options=options, explicit=frozenset(explicit))
    return args


@pytest.mark.unit
def test_the_authors_wgan_gp_is_a_preset_and_options_that_are_given_win():
    args = transferred()
    wgan_gp = {"gan_loss": "wgan", "gradient_penalty": 10, "r1_gamma": 0, "g_interval": 5, "pl_weight": 0}
    assert args["loss_kwargs"] == wgan_gp and args["G_reg_interval"] is args["D_reg_interval"] is None
    assert (args["batch_size"], args["batch_gpu"], args["ema_kimg"]) == (16, 16, 5)
    assert args["total_kimg"] == 25009 * 5 * 16 / 1000 and "augment_kwargs" not in args
    for network in "GD":
        assert args[f"{network}_opt_kwargs"] == {"lr": 1e-5, "betas": [0, 0.9]}
    given = dict(gan_loss="hinge", gradient_penalty=1, r1_gamma=2, g_interval=2)
    args = transferred(
        "gan_loss", "gradient_penalty", "gamma", "g_interval", "batch", "kimg", "d_reg_interval", **given
    )
    assert args["loss_kwargs"] == given | {"pl_weight": 0} and "augment_kwargs" in args
    assert (args["batch_size"], args["total_kimg"], args["D_reg_interval"]) == (32, 25000, 16)
    assert "augment_kwargs" in transferred("aug")


@pytest.mark.host
def test_inspect_prints_what_is_inside_and_runs_nothing(family, sources, tmp_path):
    from click.testing import CliRunner

    shown = CliRunner().invoke(cli, ["inspect", str(sources[family])])
    assert shown.exit_code == 0
    assert "G: Generator, 32x32, 3 channels, c_dim 0" in shown.output and "num_layers=8" in shown.output
    assert "plug-ins: not recorded" in shown.output
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps({"G": print}))
    done = subprocess.run(
        [sys.executable, "-c", "from stylegan_plugins.cli import main; main()", "inspect", str(evil)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "refers to builtins.print" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.run
def test_an_average_that_is_not_in_the_pickle_starts_from_g_and_that_is_said(ada_host, sources, color_zip, tmp_path):
    repickle(ada_host, sources[ADA], str(tmp_path / "g.pkl"), "data.pop('G_ema')")
    args = arguments(ada_host, ADA, color_zip, tmp_path, f"--resume={tmp_path / 'g.pkl'}")
    run_to_its_end(ada_host, still(args), tmp_path / "run")
    expected = read_pickle(sources[ADA]).network("G").tensors
    found = read_pickle(tmp_path / "run" / "network-snapshot-000000.pkl").network("G_ema")
    for key in found.parameters:
        assert torch.equal(found.tensors[key], expected[key]), key
    done = run_script(
        ada_host,
        "train.py",
        *[f"--data={color_zip}", f"--outdir={tmp_path / 'x'}", f"--resume={tmp_path / 'g.pkl'}", "--dry-run"],
        *flags(ADA),
    )
    assert "--resume: g.pkl has no G_ema; it starts from G." in done.stdout


@pytest.mark.host
def test_a_pickle_of_weights_that_are_not_finite_starts_no_run(ada_host, sources, color_zip, tmp_path):
    change = "import torch; torch.nn.init.constant_(data['D'].b4.out.bias, float('nan'))"
    repickle(ada_host, sources[ADA], str(tmp_path / "nan.pkl"), change)
    told = refused(ada_host, ADA, color_zip, tmp_path, f"--resume={tmp_path / 'nan.pkl'}")
    assert "nan.pkl has b4.out.bias that are not finite: training had failed." in told


@pytest.mark.run
def test_layers_of_a_discriminator_that_is_not_in_the_pickle_are_not_frozen(ada_host, sources, color_zip, tmp_path):
    repickle(ada_host, sources[ADA], str(tmp_path / "alone.pkl"), "data = {'G_ema': data['G_ema']}")
    resume = f"--resume={tmp_path / 'alone.pkl'}"
    told = refused(ada_host, ADA, color_zip, tmp_path, resume, "--plugin=freezed")
    assert "4 layers of D are to be frozen, but the pickle of --resume has no trained D" in told
    small = ["--cbase=256", "--cmax=16"]  # the host's D would have 512 channels
    args = arguments(ada_host, ADA, color_zip, tmp_path, resume, *small)
    output = run_to_its_end(ada_host, still(args), tmp_path / "run")
    assert output.count(" tensors copied, 0 at random") == 2 and "not in the pickle" in output
