"""Pickles that ask for the machine: small files, limits of time and memory, and one line for each."""

from __future__ import annotations

import dataclasses
import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.children import outcome
from support.hosts import ADA
from support.scripts import invoke, run_script

from stylegan_plugins.errors import DataError, printable
from stylegan_plugins.files.pickles import Network, Snapshot, UntrustedPickle, read_pickle
from stylegan_plugins.files.unpickling import MOST_STEPS
from stylegan_plugins.host import limits

LINEAR = b"ctorch.nn.modules.linear\nLinear\n"
NETWORK = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
STORAGE = b"ctorch.storage\n_load_from_bytes\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def entry(value: bytes, key: str = "x") -> bytes:
    """Return a pickle of a dictionary with one entry."""
    return b"\x80\x04}" + text(key) + value + b"s."


def doubled(start: bytes, step: bytes, times: int = 40) -> bytes:
    """Return a pickle in which each step puts the last step's object twice into another one."""
    value = start
    for number in range(times):
        value += b"q" + bytes([number]) + b"0" + step.replace(b"?", b"h" + bytes([number]))
    return value


def zipped(length: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        torch_file = io.BytesIO()
        torch.save(torch.zeros([4]).untyped_storage(), torch_file)
        with zipfile.ZipFile(torch_file) as source:
            for name in source.namelist():
                archive.writestr(name, bytes(length) if name.endswith("data/0") else source.read(name))
    return out.getvalue()


def in_storage(content: bytes) -> bytes:
    return STORAGE + b"B" + struct.pack("<I", len(content)) + content + b"\x85R"


def tensor(size: bytes, stride: bytes) -> bytes:
    """Return four zeros."""
    dumped = pickletools.genops(pickle.dumps(torch.zeros([4])))
    (numbers,) = (argument for _, argument, _ in dumped if isinstance(argument, bytes))
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + in_storage(numbers)
    return call + b"K\x00(" + size + b"t(" + stride + b"t\x89}tR"


BIG = b"J" + struct.pack("<i", 1 << 20)
MODULE = LINEAR + b")\x81}" + text("_modules") + b"}" + text("a") + b"?s" + text("b") + b"?ssb"
GREEDY = {
    "an index of 2^27": b"\x80\x02Nr\x00\x00\x00\x08.",
    "an index of 2^32": entry(b"Nr\xff\xff\xff\xff"),
    "a bytearray of 1.5e9": entry(b"cbuiltins\nbytearray\n(J" + struct.pack("<i", 1_500_000_000) + b"tR"),
    "a bytearray of 2^40": entry(b"\x96" + struct.pack("<Q", 1 << 40)),
    "bytes of 2^40": entry(b"\x8e" + struct.pack("<Q", 1 << 40)),
    "text of 2^31": entry(b"X\xff\xff\xff\x7f"),
    "a number of 2^30 bytes": entry(b"\x8b\xff\xff\xff\x3f"),
    "a frame of 2^60": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"}.",
    "lists doubled": entry(doubled(b"]", b"](??e")),
    "dictionaries doubled": entry(doubled(b"}", b"}" + text("a") + b"?s" + text("b") + b"?s")),
    "tuples doubled": entry(doubled(b")", b"??\x86")),
    "a set of tuples doubled": entry(b"\x8f(" + doubled(b")", b"??\x86") + b"\x90"),
    "frozensets doubled": entry(doubled(b"(\x91", b"(??\x91")),
    "modules doubled": entry(doubled(LINEAR + b")\x81", MODULE), "G"),
    "a key of tuples doubled": b"\x80\x04}" + doubled(b")", b"??\x86") + b"K\x01s.",
    "a device of tuples doubled": entry(b"ctorch\ndevice\n" + doubled(b")", b"??\x86") + b"R"),
    "a class name of tuples doubled": entry(NETWORK + b"}" + text("class_name") + doubled(b")", b"??\x86") + b"s\x85R"),
    "source of tuples doubled": entry(
        NETWORK + b"}" + text("class_name") + text("G") + b"s" + text("module_src") + doubled(b")", b"??\x86")
        + b"s\x85R", "G"
    ),
    "an id of tuples doubled": entry(doubled(b")", b"??\x86") + b"Q"),
    "tuples nested": entry(b")" + b"\x85" * 250_000),
    "tuples nested further": entry(b")" + b"\x85" * (2 * MOST_STEPS)),
    "lists nested": entry(b"]" * 120_000 + b"a" * 119_999),
    "frozensets nested": entry(b"(" * 90_000 + b"\x91" * 90_000),
    "slices nested": entry(b"cbuiltins\nslice\nq\x000" + b"h\x00" * 90_000 + b"N" + b"\x85R" * 90_000),
    "modules nested": entry(
        LINEAR + b"q\x000" + (b"h\x00)\x81}" + text("_modules") + b"}" + text("a")) * 25_000 + b"N" + b"ssb" * 25_000,
        "G",
    ),
    "a set made of a list often": entry(
        b"](" + b"K\x01" * 60_000 + b"eq\x000cbuiltins\nset\nq\x010(" + b"h\x01h\x00\x85R" * 60_000 + b"l"
    ),
    "bytes made of text often": entry(
        text("a" * 1_000_000) + b"q\x000c_codecs\nencode\nq\x010(" + b"h\x01h\x00\x85R" * 60_000 + b"l"
    ),
    "a storage read often": entry(
        b"B" + struct.pack("<I", 4_000_000) + bytes(4_000_000) + b"q\x000" + STORAGE + b"q\x010("
        + b"h\x01h\x00\x85R" * 60_000 + b"l"
    ),
    "a call of many arguments": entry(
        b"(" + b"N" * 90_000 + b"tq\x000ctorch\nTensor\nq\x010(" + b"h\x01h\x00R" * 60_000 + b"l"
    ),
    "a tensor without end": entry(tensor(BIG * 2, b"K\x00K\x00")),
    "a tensor of a million axes": entry(tensor(b"K\x01" * 90_000, b"K\x01" * 90_000)),
    "an array of a million axes": entry(
        b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01(" + b"K\x01" * 90_000 + b"tcnumpy\ndtype\n("
        + text("f4") + b"tR\x89C\x04\0\0\0\0tb"
    ),
    "a number of 5000 digits": entry(b"I" + b"9" * 5000 + b"\n"),
    "a number of 4000 digits": entry(b"I" + b"9" * 4000 + b"\n"),
    "a number of 16000 bits": entry(b"\x8b" + struct.pack("<i", 2000) + b"\x7f" * 2000),
}  # fmt: skip


# --- Files of torch.save. ---


def torch_zip(
    method: int = zipfile.ZIP_STORED, change: Callable[[zipfile.ZipInfo], None] = lambda info: None, **members: bytes
) -> bytes:
    """Return a file of torch.save of four numbers with other members, whose entries in its directory are changed."""
    source, out = io.BytesIO(), io.BytesIO()
    torch.save({"x": torch.zeros([4])}, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w", method) as new:
        contents = {name: old.read(name) for name in old.namelist()}
        for name, content in (contents | {f"archive/{name}": content for name, content in members.items()}).items():
            new.writestr(name, content)
        for info in new.filelist:
            change(info)
    return out.getvalue()


def declared(member: str = "data/0", **fields: int) -> Callable[[zipfile.ZipInfo], None]:
    """Change what the directory says of a member."""

    def change(info: zipfile.ZipInfo) -> None:
        if info.filename.endswith(member):
            for name, value in fields.items():
                setattr(info, name, value)

    return change


def inflating(mib: int, start: bytes = b"") -> bytes:
    """Return bytes that inflate to these, and zeros."""
    deflate = zlib.compressobj(wbits=-15)
    return (
        deflate.compress(start)
        + deflate.flush(zlib.Z_FULL_FLUSH)
        + (deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)) * mib
    )


def referring(count: int, keys: bytes = b"X\x01\x00\x00\x000") -> bytes:
    """Return the pickle of a tensor of four numbers in a storage of `count`."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + keys + text("cpu") + pickle.dumps(count, 2)[2:-1]
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQK\x00(K\x04t(K\x01t\x89}tR"
    return b"\x80\x02}" + text("x") + call + b"s."


def many_members(count: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(count):
            archive.writestr(f"archive/{number}", b"")
    return out.getvalue()


def legacy(data: bytes, keys: list[str], *storages: bytes) -> bytes:
    start = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {}))
    return start + data + pickle.dumps(keys, 2) + b"".join(storages)


GIB = 1 << 30
GREEDY |= {
    "a storage that inflates to 2 GiB": torch_zip(
        change=declared(compress_type=zipfile.ZIP_DEFLATED, file_size=2 * GIB),
        **{"data/0": inflating(2048), "data.pkl": referring(GIB // 2)},
    ),
    "a storage that inflates to 2 GiB and is declared to have 16 bytes": torch_zip(
        change=declared(compress_type=zipfile.ZIP_DEFLATED, file_size=16), **{"data/0": inflating(2048)}
    ),
    "a pickle that inflates to 2 GiB": torch_zip(
        change=declared("data.pkl", compress_type=zipfile.ZIP_DEFLATED, file_size=2 * GIB),
        **{"data.pkl": inflating(2048)},
    ),
    "a text in a pickle that inflates to 2 GiB and is declared to have 1000 bytes": torch_zip(
        change=declared("data.pkl", compress_type=zipfile.ZIP_DEFLATED, file_size=1000),
        **{"data.pkl": inflating(2048, b"\x80\x02X\xff\xff\xff\x7f")},
    ),
    "a storage of 2 GiB that is declared to have 16 bytes": torch_zip(
        change=declared(compress_type=zipfile.ZIP_DEFLATED, file_size=16),
        **{"data/0": inflating(2048), "data.pkl": referring(GIB // 2)},
    ),
    "a storage declared to have 2^40 bytes": torch_zip(
        change=declared(file_size=1 << 40, compress_size=1 << 40), **{"data.pkl": referring(1 << 38)}),
    "a pickle declared to have 2^40 bytes": torch_zip(change=declared("data.pkl", file_size=1 << 40)),
    "a storage of 2^47 numbers": torch_zip(**{"data.pkl": referring(1 << 47)}),
    "a storage of 2^2000 numbers": torch_zip(**{"data.pkl": referring(1 << 2000)}),
    "one member under many keys": torch_zip(**{"data.pkl": b"\x80\x02}" + text("x") + b"]("
        + b"".join(referring(4, text("0"))[9:-2] for _ in range(30_000)) + b"es."}),
    "a directory of 80,000 members": many_members(80_000),
    "before 1.6: a storage of 2^47 numbers": legacy(referring(1 << 47), ["0"], struct.pack("<q", 1 << 47)),
    "before 1.6: a count that is another": legacy(referring(4), ["0"], struct.pack("<q", 1 << 60), bytes(16)),
    "before 1.6: a list of keys without end": legacy(referring(4), ["0"] * 100_000, struct.pack("<q", 4), bytes(16)),
    "safetensors: a header of 2^60 bytes": struct.pack("<Q", 1 << 60) + b"{}",
    "safetensors: a tensor of 2^60 bytes": struct.pack("<Q", 72)
    + b'{"x":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}' + bytes(4),
    "a zip of names with prefixes": torch_zip(**{"data.pkl": b"\x80\x02}(" + b"".join(
        text(f"{number}.b4.out.weight") + b"]" for number in range(50_000)) + b"u."}),
    "names with prefixes": b"\x80\x04}(" + text("a.b4.out.weight") + tensor(b"K\x04", b"K\x01") + b"q\x01" + b"".join(
        text(f"{number}.b4.out.weight") + b"h\x01" for number in range(40_000)) + b"u.",
}  # fmt: skip

HARMLESS = {"one member under many keys", "a zip of names with prefixes", "an index of 2^32", "a frame of 2^60"}


@pytest.mark.host
@pytest.mark.parametrize("name", GREEDY)
def test_a_pickle_that_asks_for_the_machine_is_one_line(name, tmp_path):
    path = tmp_path / "greedy.pkl"
    path.write_bytes(GREEDY[name])
    how, said = outcome(lambda: read_pickle(path))
    assert how == "one line" or (how == "success" and name in HARMLESS), (how, said[-500:])


@pytest.mark.host
def test_the_state_that_a_pickle_gives_a_tensor_is_refused(tmp_path):
    """On a tensor BUILD would reach set_(), which takes any offset and size."""
    path = tmp_path / "x.pkl"
    path.write_bytes(entry(tensor(b"K\x04", b"K\x01")))
    assert read_pickle(path).data["x"].tolist() == [0, 0, 0, 0]
    path.write_bytes(entry(tensor(b"K\x04", b"K\x01") + b"(NK\x00(J\xff\xff\x00\x00t(K\x01ttb"))
    with pytest.raises(DataError, match="a state for a TensorRecord"):
        read_pickle(path)


@pytest.mark.unit
def test_files_of_torch_in_a_pickle_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_args, **_kwargs: pytest.fail("torch.load was called"))
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"x": torch.arange(6.0).reshape(2, 3)}))
    assert read_pickle(path).data["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    path.write_bytes(entry(in_storage(zipped(16))))
    with pytest.raises(UntrustedPickle, match="hides a file"):
        read_pickle(path)


# --- Networks that are built. ---

ARGUMENTS = [
    *({"z_dim": 1 << 20}, {"mapping_kwargs": {"num_layers": 10**7}}, {"img_resolution": 1 << 20}, {"x": 1 << 21}),
    *({"img_resolution": torch.tensor(32)}, {"img_resolution": np.array([32, 32])}, {"img_resolution": "32"}),
    *({"synthesis_kwargs": [1, 2]}, {"mapping_kwargs": "x"}, {"w_dim": float("nan")}, {"lr_multiplier": float("inf")}),
    *({"w_dim": 10**600}, {"z_dim": True}, {"z_dim": [1 << 20]}, {"synthesis_kwargs": {1: 2}}, {"c_dim": b"1"}),
]


@pytest.mark.unit
@pytest.mark.parametrize("kwargs", ARGUMENTS, ids=lambda kwargs: repr(kwargs)[:40])
def test_arguments_that_no_network_has_are_refused_before_it_is_built(kwargs):
    good = {"z_dim": 512, "img_resolution": 32, "mapping_kwargs": {"num_layers": 8}, "resample_filter": [1, 3, 3, 1]}
    network = Network("Generator", (), good, {}, frozenset())
    limits.check_arguments(Snapshot("x.pkl", {"G": network}, {}))
    for bad in (
        Snapshot("x.pkl", {"G": dataclasses.replace(network, init_kwargs=good | kwargs)}, {}),
        Snapshot("x.pkl", {}, {}, ({"components": {"mapping": {"static_kwargs": kwargs}}}, {}, {})),
    ):
        with pytest.raises(DataError, match="G of x.pkl was made with") as told:
            limits.check_arguments(bad)
        assert len(str(told.value)) < 300


LARGE = """
import dataclasses, resource, sys; sys.path.insert(0, ".")
from stylegan_plugins.errors import HostError
from stylegan_plugins.files.pickles import read_pickle
from stylegan_plugins.host import networks
network = read_pickle(sys.argv[1]).network("G")
networks.build(network)
size = int(open("/proc/self/statm").read().split()[0]) * 4096 + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (size, size))
large = dict(channel_base=1 << 20, channel_max=8192)
for more in (dict(z_dim=8192, w_dim=8192), dict(synthesis_kwargs=large), large, dict(img_resolution=4096, **large)):
    try:
        networks.build(dataclasses.replace(network, init_kwargs=network.init_kwargs | more))
    except HostError as error:
        assert "cannot be made" in str(error), error
    else:
        raise SystemExit(str(more))
"""


@pytest.mark.host
def test_a_network_takes_no_more_memory_than_its_weights_need(family, fetched, pickles):
    run_script(fetched[family], "-c", LARGE, str(pickles[family]))


# --- Weights that are not finite, and invalid names. ---

BROKEN = """
import pickle, sys; sys.path.insert(0, '.')
from stylegan_plugins.host.modules import host_module
data = host_module('legacy').load_network_pkl(open(sys.argv[1], 'rb'))
for key in ("G_ema", "D"):
    for number, parameter in enumerate(data[key].parameters()):
        parameter.data.view(-1)[0] = float("inf" if number else "nan")
pickle.dump(data, open(sys.argv[2], 'wb'))
"""


@pytest.mark.host
def test_weights_that_are_not_finite_are_told_with_their_names(fetched, pickles, color_zip, tmp_path):
    host, path = fetched[ADA], tmp_path / "broken.pkl"
    run_script(host, "-c", BROKEN, str(pickles[ADA]), str(path))
    names = list(read_pickle(path).network("G_ema").tensors)
    shown = invoke(host, "inspect", str(path))
    assert shown.returncode == 0 and f"NOT FINITE: {names[0]}, " in shown.stdout and " more;" in shown.stdout
    data = [f"--data={color_zip}"]
    for command, *more in (
        *(["sample"], ["sheet"], ["interpolate"], ["probe", *data]),
        ["evaluate", *data, "--features=efficientnet_lite0", "--max-images=8"],
    ):
        network = "D" if command == "probe" else "G_ema"
        done = invoke(host, command, str(path), f"--outdir={tmp_path / command}", "--device=cpu", *more)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert f"{network} of {path} has " in done.stderr.splitlines()[-1] and "not finite" in done.stderr
    assert "FINITE" not in invoke(host, "inspect", str(pickles[ADA])).stdout


@pytest.mark.unit
def test_control_characters_of_a_stranger_reach_no_terminal(tmp_path):
    from click.testing import CliRunner

    from stylegan_plugins.cli import cli

    evil = "\x1b[2J\x07\r\x9b31m\u202e\ud800\nplug-ins: none"
    path = tmp_path / "x.pkl"
    meta = {"class_name": evil, "state": {"_init_kwargs": {evil: evil, "long": "a" * 100_000}}}
    content = pickle.dumps({evil: evil, "G": meta}, protocol=4)
    path.write_bytes(content)
    shown = CliRunner().invoke(cli, ["inspect", str(path)]).output
    network = entry(NETWORK + pickle.dumps(meta, protocol=4)[2:-1].replace(b"\x95", b"\x95", 1) + b"\x85R", "G")
    path.write_bytes(network)
    shown += CliRunner().invoke(cli, ["inspect", str(path)]).output
    path.write_bytes(entry(b"c\x1b[2J\nsystem\n"))
    told = CliRunner().invoke(cli, ["inspect", str(path)])
    assert told.exit_code == 2
    for line in (shown + told.output).splitlines():
        assert line.isprintable() and len(line) < 3000
    assert "\\x1b[2J\\x07" in shown and "\\x1b[2J.system" in told.output
    assert printable(evil).splitlines()[1] == "plug-ins: none" and "\\u202e" in printable(evil)
