"""Networks of other programs: read or converted if they are the hosts', named in one line if they are not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA, STYLEGAN3
from support.mutants import Mutator
from support.runs import arguments, run_to_its_end, still
from support.scripts import invoke, report_of, run_script

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import trees
from stylegan_plugins.files.pickles import UntrustedPickle, read_pickle
from stylegan_plugins.host import limits

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.host
def test_converted_networks_make_the_pictures_of_their_authors_code(family, fetched, tmp_path):
    found = report_of(fetched[family], "foreign_networks.py", "authors", str(GOLDEN), str(tmp_path))
    assert found.pop("w_avg") < 0.1  # means of 10,000 random w
    # Sums in another order. Images and logits are of size 1.
    assert found.keys() == {"G", "G_ema", "D", "truncated", "projected-gan"} and max(found.values()) < 1e-4, found


@pytest.mark.host
def test_state_dicts_of_the_hosts_networks_are_read_in_each_way_that_they_are_saved(family, fetched, tmp_path):
    found = report_of(fetched[family], "foreign_networks.py", "state-dicts", str(GOLDEN), str(tmp_path))
    assert max(found.values()) == 0, found


# --- What files are. ---

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def zip_of(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


KINDS = {
    "empty": (b"", "is an empty file"),
    "html": (b"\n<!DOCTYPE html><html>", "is a web page"),
    "xml": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "is a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "gzip": (gzip.compress(b"x"), "gzip -dc"),
    "bzip2": (bz2.compress(b"x"), "is compressed"),
    "xz": (lzma.compress(b"x"), "is compressed"),
    "tar": (bytes(257) + b"ustar\x0000" + bytes(700), "is a tar archive"),
    "png": (PNG, "--data"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "--data"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x051.9.0", "ONNX or TensorFlow"),
    "saved model": (b"\x08\x01\x12\xe0\x0a\n\xff", "ONNX or TensorFlow"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "is an HDF5 file"),
    "npy": (b"\x93NUMPY\x01\0v\0", "an array of NumPy"),
    "json": (b'{"z_dim": 512}', "is text (JSON)"),
    "text": (b"404: Not Found", "is text, not a network"),
    "zip of a network": (zip_of(**{"a/ffhq.pkl": b"x"}), "Unpack it, and give the network in it, a/ffhq.pkl"),
    "zip of pictures": (zip_of(**{"00000/img.png": PNG}), "--data"),
    "zip": (zip_of(**{"x.txt": b"x"}), "a zip that torch.save has not written"),
    "training state": (trees.to_bytes({"x": torch.zeros([2])}), "--resume-run"),
}


@pytest.mark.unit
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_told_with_what_helps(kind, tmp_path):
    content, words = KINDS[kind]
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError) as told:
        read_pickle(path)
    message = str(told.value)
    assert message.startswith(f"{path} is ") and words in message
    assert "\n" not in message and "--trust-pickle" not in message


def numbers() -> dict[str, torch.Tensor]:
    base = torch.randn([4, 6])
    return {
        **{"part": base[1:3, ::2], "transposed": base.t(), "empty": torch.zeros([0, 3]), "scalar": torch.tensor(2.5)},
        **{
            "half": torch.randn([3]).half(),
            "bfloat16": torch.randn([3]).bfloat16(),
            "bool": torch.tensor([True, False]),
        },
        **{"int": torch.arange(5), "parameter": torch.nn.Parameter(torch.randn([2]))},
    }


def saved(value: object, **how: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **how)
    return out.getvalue()


def packed(content: bytes, method: int = zipfile.ZIP_DEFLATED, **changed: bytes) -> bytes:
    """Pack a zip of torch.save again, with other contents of members, by their names after its folder."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w", method) as archive:
        for name in source.namelist():
            archive.writestr(name, changed.get(name.partition("/")[2], source.read(name)))
    return out.getvalue()


CONTAINERS = {
    "zip": saved,
    "deflated zip": lambda value: packed(saved(value)),
    "before 1.6": lambda value: saved(value, _use_new_zipfile_serialization=False),
    "safetensors": lambda value: safetensors.torch.save({k: v.detach().contiguous() for k, v in value.items()}),
}


@pytest.mark.unit
@pytest.mark.parametrize("container", CONTAINERS)
def test_tensors_of_other_files_come_out_bit_for_bit_without_torch_load(container, tmp_path, monkeypatch):
    expected, path = numbers(), tmp_path / "x.pt"
    path.write_bytes(CONTAINERS[container](expected))
    monkeypatch.setattr(torch, "load", lambda *_args, **_kwargs: pytest.fail("torch.load was called"))
    found = read_pickle(path).data
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value.detach()) and found[name].dtype == value.dtype, name


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.unit
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_code_in_a_file_of_torch_save_is_refused_and_not_run(new, tmp_path):
    target, path = tmp_path / "was-run", tmp_path / "x.pt"
    torch.save({"g_ema": {}, "args": Evil(target)}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(UntrustedPickle, match="system, which a network does not need. In the program that wrote it"):
        read_pickle(path)
    assert not target.exists()


@pytest.mark.unit
def test_a_part_of_an_unpacked_file_is_told_and_packing_it_again_helps(tmp_path):
    torch.save({"x": torch.arange(3)}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as archive:
        archive.extractall(tmp_path)
    with pytest.raises(DataError, match="is a part of an unpacked file") as told:
        read_pickle(tmp_path / "whole" / "data.pkl")
    command = re.search(r"python (-m zipfile -c) NETWORK.pt FOLDER", str(told.value))[1].split()
    subprocess.run([sys.executable, *command, "again.pt", "whole"], cwd=tmp_path, check=True)
    assert read_pickle(tmp_path / "again.pt").data["x"].tolist() == [0, 1, 2]


@pytest.mark.unit
def test_a_torchscript_program_is_told_and_saving_its_weights_helps(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.pt")
        with pytest.raises(DataError, match=r"TorchScript.*torch.save\(torch.jit.load\(FILE\).state_dict\(\), OUT\)"):
            read_pickle(tmp_path / "x.pt")
        torch.save(torch.jit.load(tmp_path / "x.pt").state_dict(), tmp_path / "y.pt")
    assert list(read_pickle(tmp_path / "y.pt").data) == ["weight", "bias"]


# --- Whose they are. ---


@pytest.mark.unit
def test_a_network_that_no_host_can_be_is_refused_by_its_programs_name():
    with pytest.raises(DataError, match="lucidrains' .*, whose architecture the hosts lack: it has two modulated"):
        read_pickle(GOLDEN / "foreign_lucidrains.pt")


@pytest.mark.unit
def test_networks_of_unknown_classes_are_left_out_and_told():
    snapshot = read_pickle(GOLDEN / "foreign_projected_gan.pkl")
    assert list(snapshot.networks) == ["G", "G_ema"]
    (note,) = snapshot.notes
    assert "D refers to pg_modules.discriminator.ProjectedDiscriminator, which no host has; it is left out." in note
    with pytest.raises(DataError, match="has no network D; it has: G, G_ema"):
        snapshot.network("D")


@pytest.mark.unit
def test_names_without_a_network_are_told_by_their_keys(tmp_path):
    torch.save({"features": {"0.weight": torch.zeros([2])}, "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(DataError, match="has no network of a known kind; it has: features, epoch"):
        read_pickle(tmp_path / "x.pt").network("G_ema")


@pytest.mark.unit
def test_a_foreign_file_whose_only_networks_are_of_unknown_classes_is_refused(tmp_path):
    content = b"\x80\x02}X\x01\x00\x00\x00Gcpg_modules.networks_fastgan\nGenerator\n)\x81}bs."
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(UntrustedPickle, match="G refers to pg_modules.networks_fastgan.Generator. In the program"):
        read_pickle(tmp_path / "x.pkl")


@pytest.mark.unit
def test_rosinalitys_truncation_latent_becomes_w_avg_and_its_name_is_told(tmp_path):
    data = read_pickle(GOLDEN / "foreign_rosinality.pt").data
    torch.save({"g_ema": data["g_ema"], "latent_avg": torch.arange(16.0)}, tmp_path / "x.pt")
    snapshot = read_pickle(tmp_path / "x.pt")
    assert snapshot.network("G_ema").tensors["mapping.w_avg"].tolist() == list(range(16))
    assert snapshot.notes == (f"{tmp_path / 'x.pt'}: g_ema: converted from rosinality's stylegan2-pytorch.",)


@pytest.mark.unit
@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_changed_state_dict_is_one_line_or_a_network(tmp_path_factory, data):
    """Tensors are left out, or have other axes; names have other numbers."""
    state = dict(read_pickle(GOLDEN / "foreign_rosinality.pt").data[data.draw(st.sampled_from(["g", "d"]))])
    for name in data.draw(st.lists(st.sampled_from(sorted(state)), min_size=1, max_size=4, unique=True)):
        value = state.pop(name)
        how = data.draw(st.sampled_from(["left out", "axes", "empty", "number", "scalar"]))
        if how == "number":
            state[re.sub(r"\d+", str(data.draw(st.integers(0, 10**30))), name)] = value
        elif how != "left out":
            state[name] = {"axes": value[None], "empty": value.new_zeros([0]), "scalar": value.sum()}[how]
    path = tmp_path_factory.getbasetemp() / "changed.pt"
    torch.save(state, path)
    one_line_or_a_network(path)


def one_line_or_a_network(path: Path) -> None:
    try:
        snapshot = read_pickle(path)
        limits.check_arguments(snapshot)
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000


@pytest.mark.unit
@pytest.mark.parametrize("container", ["zip", "before 1.6", "safetensors"])
@given(st.data())
@settings(deadline=None, max_examples=60)
def test_truncated_and_mutated_files_are_one_line_or_a_network(container, tmp_path_factory, data):
    content = bytearray(CONTAINERS[container](numbers()))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.pt"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    one_line_or_a_network(path)


@pytest.mark.unit
def test_mutants_of_the_pickle_in_a_file_of_torch_save_are_one_line_or_a_network(tmp_path):
    content, path = (GOLDEN / "foreign_rosinality.pt").read_bytes(), tmp_path / "mutant.pt"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        mutator = Mutator(archive.read(name))
    for seed in range(60):
        path.write_bytes(packed(content, zipfile.ZIP_STORED, **{"data.pkl": mutator.mutant(random.Random(seed))}))
        one_line_or_a_network(path)


# --- In commands and runs. ---


@pytest.mark.host
def test_commands_take_networks_of_other_programs_and_say_what_was_done(ada_host, color_zip, tmp_path):
    rosinality, projected = GOLDEN / "foreign_rosinality.pt", GOLDEN / "foreign_projected_gan.pkl"
    for path, words in (
        (rosinality, "g, d, g_ema: converted from rosinality's"),
        (projected, "D refers to pg_modules."),
    ):
        shown = invoke(ada_host, "inspect", str(path))
        assert shown.returncode == 0 and words in shown.stdout and "32x32, 3 channels" in shown.stdout
        done = invoke(ada_host, "sample", str(path), f"--outdir={tmp_path / path.stem}", "--seeds=0-1", "--device=cpu")
        assert done.returncode == 0 and done.stderr.count(words) == 1, done.stderr
        assert PIL.Image.open(tmp_path / path.stem / "seed0001.png").size == (32, 32)
    exported = tmp_path / "exported.pkl"
    assert invoke(ada_host, "export", str(rosinality), f"--out={exported}").returncode == 0
    stock = [
        "--trunc=0.7",
        "--seeds=0-1",
        "--noise-mode=const",
        f"--outdir={tmp_path / 'stock'}",
        f"--network={exported}",
    ]
    run_script(ada_host, "generate.py", *stock)
    truncated = ["--trunc=0.7", "--seeds=0-1", f"--outdir={tmp_path / 'ours'}", "--device=cpu"]
    assert invoke(ada_host, "sample", str(rosinality), *truncated).returncode == 0
    pictures = [np.array(PIL.Image.open(tmp_path / folder / "seed0001.png")) for folder in ("stock", "ours")]
    assert np.array_equal(*pictures)
    (tmp_path / "page.pkl").write_bytes(b"<!doctype html>")
    for path, words in (
        (tmp_path / "page.pkl", "is a web page"),
        (GOLDEN / "foreign_lucidrains.pt", "whose architecture the hosts lack"),
    ):
        for command in (["inspect"], ["sample", f"--outdir={tmp_path / 'no'}"], ["export", f"--out={tmp_path / 'no'}"]):
            done = invoke(ada_host, command[0], str(path), *command[1:])
            assert done.returncode == 2 and words in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    done = invoke(ada_host, "probe", str(projected), f"--data={color_zip}", f"--outdir={tmp_path}", "--device=cpu")
    assert done.returncode == 2 and "has no network D; it has: G, G_ema" in done.stderr.splitlines()[-1]


UNKNOWN_D = """
import sys; sys.path.insert(0, ".")
from stylegan_plugins.files.snapshots import Network, Snapshot
from stylegan_plugins.run import finetune
strange, known = (Network(name, (), {}, {}, frozenset()) for name in ("ProjectedDiscriminator", "Discriminator"))
assert finetune.network_for(Snapshot("x", {"D": strange}, {}), "D") is None
assert finetune.network_for(Snapshot("x", {"D": known}, {}), "D") is known
"""


@pytest.mark.host
def test_a_persistent_network_of_a_class_that_the_host_has_not_starts_no_run(ada_host):
    run_script(ada_host, "-c", UNKNOWN_D)


@pytest.mark.run
def test_a_run_starts_from_networks_of_other_programs(family, training_hosts, color_zip, tmp_path):
    name, d = {
        ADA: ("foreign_rosinality.pt", "0 at random"),
        STYLEGAN3: ("foreign_projected_gan.pkl", "0 tensors copied"),
    }[family]
    args = arguments(training_hosts[family], family, color_zip, tmp_path, f"--resume={GOLDEN / name}")
    output = run_to_its_end(training_hosts[family], still(args), tmp_path / "run").splitlines()
    (line,) = (line for line in output if line.startswith("  D "))
    assert d in line
    expected, found = read_pickle(GOLDEN / name), read_pickle(tmp_path / "run" / "network-snapshot-000000.pkl")
    for parameter in found.network("G").parameters:  # G_ema moves towards G
        assert torch.equal(found.network("G").tensors[parameter], expected.network("G").tensors[parameter]), parameter
    if family == ADA:  # the file has no w_avg; a run begins at zeros, and moves by 0.5% in a step
        assert found.network("G_ema").tensors["mapping.w_avg"].abs().max() > 0.05
