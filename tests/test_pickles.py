"""Reading network pickles: tensors of valid ones are exact, and nothing in a malicious one runs."""

from __future__ import annotations

import builtins
import collections
import functools
import io
import operator
import os
import pickle
import pickletools
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA, STYLEGAN3
from support.mutants import Mutator
from support.pickles import make_pickle
from support.scripts import run_script

from stylegan_plugins.errors import DataError
from stylegan_plugins.files.pickles import UntrustedPickle, read_pickle
from stylegan_plugins.host import limits

# --- Honest pickles. ---

READ = """
import json, pickle, sys
sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
host_module("dnnlib")
import torch
from stylegan_plugins.host import networks
from stylegan_plugins.files.pickles import read_pickle
snapshot = read_pickle(sys.argv[1])
theirs = pickle.load(open(sys.argv[1], "rb"))
state = torch.get_rng_state()
made = {key: networks.build(network) for key, network in snapshot.networks.items()}
assert torch.equal(state, torch.get_rng_state())
for key, network in made.items():
    expected = theirs[key].state_dict()
    assert list(network.state_dict()) == list(expected) == list(network.state_dict())
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert {n for n, _ in network.named_parameters()} == snapshot.networks[key].parameters
    assert not network.training and not any(p.requires_grad for p in network.parameters())
z = torch.randn([2, 64])
same = torch.equal(made["G_ema"](z, None, noise_mode="const"), theirs["G_ema"](z, None, noise_mode="const"))
print(json.dumps([same, sorted(made), snapshot.data]))
"""


@pytest.mark.host
def test_networks_of_a_pickle_equal_what_the_host_loads(family, fetched, pickles):
    import json

    done = run_script(fetched[family], "-c", READ, str(pickles[family]))
    same, networks, data = json.loads(done.stdout.splitlines()[-1])
    assert same and networks == ["D", "G", "G_ema"]
    assert data["training_set_kwargs"]["path"] == "x.zip" and data["augment_pipe"] is None


@pytest.mark.host
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(protocol, fetched, tmp_path):
    snapshot = read_pickle(make_pickle(fetched[ADA], tmp_path / "p.pkl", protocol=protocol))
    assert snapshot.network("G").init_kwargs["mapping_kwargs"] == {"num_layers": 2}


@pytest.mark.host
@pytest.mark.parametrize("pristine", [ADA, STYLEGAN3], indirect=True, ids=[ADA, STYLEGAN3])
def test_pickles_of_nvidias_checkout_are_read(pristine, tmp_path):
    done = run_script(pristine, "-c", READ, str(make_pickle(pristine, tmp_path / "p.pkl")))
    assert done.stdout.splitlines()[-1].startswith('[true, ["D", "G", "G_ema"]')


def dumped(tmp_path, value) -> str:
    path = tmp_path / "x.pkl"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value))
    return str(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.unit
@given(st.dictionaries(st.text(), VALUES, max_size=4), st.sampled_from([2, 3, 4, 5]))
@settings(deadline=None)
def test_plain_data_comes_out_as_it_went_in(tmp_path_factory, data, protocol):
    path = tmp_path_factory.getbasetemp() / "plain.pkl"
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    assert read_pickle(path).data == data


@pytest.mark.unit
@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6).reshape(2, 3),
        torch.randn([3, 4]).t(),
        torch.randn([5])[2:],
        torch.zeros([0, 3]),
        torch.randn([2, 2], dtype=torch.float16),
        torch.randn([2, 2]).to(torch.bfloat16),
        torch.tensor(True),
        torch.nn.Parameter(torch.randn([2])),
    ],
    ids=["contiguous", "transposed", "a part", "empty", "half", "bfloat16", "a truth value", "parameter"],
)
def test_tensors_come_out_bit_for_bit(tensor, tmp_path):
    found = read_pickle(dumped(tmp_path, {"x": tensor})).data["x"]
    assert torch.equal(found, tensor.detach()) and found.dtype == tensor.dtype


@pytest.mark.unit
@pytest.mark.parametrize(
    "value",
    [
        *(np.arange(3.0), np.float32(0.5), np.int64(7), np.array([["a"]]), np.dtype("<f8"), np.array(True)),
        *(np.arange(6, dtype=">f8").reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.zeros([0, 2])),
    ],
    ids=repr,
)
def test_numbers_of_numpy_come_out(value, tmp_path):
    found = read_pickle(dumped(tmp_path, {"x": value})).data["x"]
    assert np.array_equal(found, value) and type(found) is type(value)


# --- Malicious ones. ---


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call

    def __call__(self):
        """Never called here; pickle insists that what is reduced to can be."""


def hidden_in_storage(payload: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


class Named:
    """A function that pickles under any name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class NamedPickler(pickle._Pickler):
    def save(self, value, save_persistent_id=True):
        if isinstance(value, Named):
            self.write(b"c" + value.module.encode() + b"\n" + value.name.encode() + b"\n")
            self.memo[id(value)] = len(self.memo), value
            self.write(pickle.PUT + repr(self.memo[id(value)][0]).encode() + b"\n")
            return
        super().save(value, save_persistent_id)

    def save_reduce(self, func, args, *rest, obj=None):
        if isinstance(func, Named):
            self.save(func)
            self.save(args)
            self.write(pickle.REDUCE)
            return
        super().save_reduce(func, args, *rest, obj=obj)


def named(value: object) -> bytes:
    out = io.BytesIO()
    NamedPickler(out, protocol=2).dump(value)
    return out.getvalue()


def persistent(source: str, state: object) -> Calls:
    """Return an object as the hosts write it, with its own source code."""
    meta = dict(type="class", version=6, module_src=source, class_name="G", state=state)
    return Calls(Named("torch_utils.persistence", "_reconstruct_persistent_obj"), meta)


TOUCH = "open({path!r}, 'w').close()"


def malicious(path: str) -> dict[str, object]:
    """Return objects by name whose pickle would make the file `path` if it were loaded as pickles are."""
    code, shell = TOUCH.format(path=path), f"touch {path}"
    evil = Calls(exec, code)
    return {
        "os.system": Calls(os.system, shell),
        "posix.system": Calls(Named("posix", "system"), shell),
        "nt.system": Calls(Named("nt", "system"), shell),
        "subprocess": Calls(subprocess.call, ["touch", path]),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "compile": Calls(builtins.compile, code, "x", "exec"),
        "import": Calls(__import__, "this"),
        "getattr chain": Calls(Calls(getattr, Calls(__import__, "os"), "system"), shell),
        "dotted name": Calls(Named("collections", "sys.modules"), shell),
        "functools.partial": Calls(functools.partial, exec, code),
        "operator": Calls(operator.methodcaller, "system", shell),
        "a class of the standard library": Calls(collections.deque, [1]),
        "pickle.loads": Calls(pickle.loads, pickle.dumps(evil)),
        "numpy load": Calls(Named("numpy", "load"), path),
        "numpy internals": Calls(Named("numpy.testing._private.utils", "runstring"), code, {}),
        "array of objects": np.array([evil], dtype=object),
        "torch.load": Calls(torch.load, io.BytesIO(hidden_in_storage(evil))),
        "torch internals": Calls(Named("torch._dynamo.guards", "exec"), code),
        "torch.hub": Calls(Named("torch.hub", "load"), "x", "y"),
        "torch.jit": Calls(Named("torch.jit", "load"), path),
        "a storage that is a pickle": Calls(torch.storage._load_from_bytes, pickle.dumps(evil)),
        "a storage that is a file of torch": Calls(torch.storage._load_from_bytes, hidden_in_storage(evil)),
        "a nested storage": {"a": [torch.zeros([2]), Calls(torch.storage._load_from_bytes, hidden_in_storage([evil]))]},
        "in the arguments of a network": persistent("", {"_init_kwargs": {"x": evil}}),
        "in the tensors of a network": persistent("", {"_parameters": {"x": evil}}),
        "a module's name as a way in": Calls(Named("torch.nn.modules.os", "system.__call__"), shell),
        "another persistent loader": Calls(Named("torch_utils.persistence", "_src_to_module"), code),
        "a host's own function": Calls(Named("dnnlib.util", "call_func_by_name"), shell),
    }


NAMES = list(malicious("x"))


@pytest.mark.unit
@pytest.mark.parametrize("name", NAMES)
def test_a_malicious_pickle_is_refused_by_name_and_nothing_runs(name, tmp_path):
    target = tmp_path / "was-run"
    payload = malicious(str(target))[name]
    path = dumped(tmp_path, named({"G": payload, "training_set_kwargs": None}))
    with pytest.raises(DataError) as told:
        read_pickle(path)
    assert not target.exists()
    assert "\n" not in str(told.value)
    if name not in ("array of objects", "a storage that is a pickle"):
        assert isinstance(told.value, UntrustedPickle) and "--trust-pickle" in str(told.value)


@pytest.mark.host
@pytest.mark.parametrize("name", ["os.system", "exec", "a storage that is a file of torch"])
def test_such_a_pickle_would_run_if_it_were_loaded(name, tmp_path):
    target = tmp_path / "was-run"
    path = dumped(tmp_path, named({"G": malicious(str(target))[name]}))
    code = "import pickle, sys, torch; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run([sys.executable, "-c", code, path], check=True)
    assert target.exists()


@pytest.mark.unit
def test_source_code_in_a_network_is_kept_as_text_and_not_run(tmp_path):
    target = tmp_path / "was-run"
    code = TOUCH.format(path=str(target))
    snapshot = read_pickle(dumped(tmp_path, named({"G": persistent(code, {"_init_args": (), "_init_kwargs": {}})})))
    assert snapshot.network("G").source == code and not target.exists()


@pytest.mark.unit
def test_attributes_put_on_what_a_pickle_may_call_are_gone_with_it(tmp_path):
    ours = b"cnumpy.core.multiarray\nscalar\n"
    # BUILD with (None, {...}) sets attributes of any object.
    path = dumped(tmp_path, b"\x80\x02}X\x01\x00\x00\x00a" + ours + b"N}X\x09\x00\x00\x00_functionK\x07s\x86bs.")
    with pytest.raises(DataError, match="a state for a Global"):
        read_pickle(path)
    assert read_pickle(dumped(tmp_path, {"x": np.float32(2)})).data["x"] == 2


@pytest.mark.unit
@pytest.mark.parametrize(
    "bad", [dict(size=(9,)), dict(stride=(-1,)), dict(offset=-1), dict(offset=3), dict(size=(2, 2))]
)
def test_a_tensor_beyond_its_storage_is_refused(bad, tmp_path):
    shape = dict(offset=0, size=(4,), stride=(1,)) | bad
    storage = Calls(torch.storage._load_from_bytes, _legacy_storage(4))
    call = Calls(torch._utils._rebuild_tensor_v2, storage, *shape.values(), False, collections.OrderedDict())
    with pytest.raises(DataError, match="damaged"):
        read_pickle(dumped(tmp_path, {"x": call}))


def _legacy_storage(count: int) -> bytes:
    """Return the bytes within the pickle of a float tensor."""
    found = [
        arg
        for opcode, arg, _ in pickletools.genops(pickle.dumps(torch.zeros([count])))
        if isinstance(arg, bytes) and opcode.name in ("BINBYTES", "SHORT_BINBYTES")
    ]
    return found[0]


# --- Damaged ones. ---


@pytest.mark.host
@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_truncated_pickle_is_reported_as_that(pickles, tmp_path_factory, data):
    whole = pickles[ADA].read_bytes()
    path = tmp_path_factory.getbasetemp() / "cut.pkl"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match="truncated"):
        read_pickle(path)


@pytest.mark.unit
@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_an_error_of_one_line_or_plain_data(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(content)
    try:
        read_pickle(path)
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.host
@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_flipped_bit_never_ends_in_anything_but_an_error_of_one_line(pickles, tmp_path_factory, data):
    changed = bytearray(pickles[ADA].read_bytes())
    place = data.draw(st.integers(0, 3000) | st.integers(0, len(changed) - 1))
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.pkl"
    path.write_bytes(changed)
    try:
        read_pickle(path)
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.unit
@pytest.mark.parametrize("value", [[1, 2], 3, "text", {1: 2}])
def test_what_is_no_network_pickle_is_told(value, tmp_path):
    with pytest.raises(DataError, match="is not a network pickle"):
        read_pickle(dumped(tmp_path, value))


@pytest.mark.host
def test_a_missing_network_is_told_with_those_that_are_there(pickles):
    with pytest.raises(DataError, match="has no network E; it has: G, D, G_ema"):
        read_pickle(pickles[ADA]).network("E")


# --- Mutants. ---


@pytest.mark.unit
def test_mutants_of_a_snapshot_end_in_one_line_or_are_read(tmp_path):
    """benchmarks/mutants_of_pickles.py has more, of whole networks."""
    layers = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    kwargs = {"z_dim": 4, "img_resolution": 32, "mapping_kwargs": {"num_layers": 2}, "lr_multiplier": 0.01}
    state = {"_init_args": (), "_init_kwargs": kwargs, "_parameters": {}, "_buffers": {}, "_modules": {"m": layers}}
    content = named({"G": persistent("class G: pass", state), "training_set_kwargs": {"path": "x.zip"}})
    mutator, path = Mutator(content), tmp_path / "mutant.pkl"
    ends = set()
    for seed in range(60):
        path.write_bytes(mutator.mutant(random.Random(seed)))
        try:
            snapshot = read_pickle(path)
            limits.check_arguments(snapshot)
            for key, network in snapshot.networks.items():
                limits.check_finite(network, key)
            ends.add("read")
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, seed
            ends.add("one line")
    assert ends == {"read", "one line"}


# --- Of TensorFlow. ---

CONVERT = """
import sys; sys.path.insert(0, ".")
from stylegan_plugins.host.modules import host_module
host_module("dnnlib")
import torch
from stylegan_plugins.host import networks
from stylegan_plugins.files.pickles import read_pickle
found, expected = networks.converted(read_pickle(sys.argv[1])), read_pickle(sys.argv[2])
for key in ("G", "D", "G_ema"):
    for name in expected.network(key).parameters | {"mapping.w_avg"} - ({"mapping.w_avg"} if key == "D" else set()):
        torch.testing.assert_close(found.network(key).tensors[name], expected.network(key).tensors[name])
    networks.build(found.network(key))
"""


@pytest.mark.host
def test_a_pickle_of_tensorflow_is_converted_by_the_host(family, fetched, pickles, tmp_path):
    from pathlib import Path

    driver = Path(__file__).parent / "drivers" / "make_tf_pickle.py"
    out = tmp_path / "tf.pkl"
    run_script(fetched[ADA], str(driver), str(pickles[ADA]), str(out))
    run_script(fetched[family], "-c", CONVERT, str(out), str(pickles[ADA]))


# --- What a review found. ---


def build(module: str, name: str, args: object, state: object) -> bytes:
    """Return the pickle of an object that is called with `args` and then given `state`, in a dictionary."""
    out = io.BytesIO()
    pickler = NamedPickler(out, protocol=2)
    out.write(b"\x80\x02}X\x01\x00\x00\x00x")
    for value, after in ((Named(module, name), b""), (args, pickle.REDUCE), (state, pickle.BUILD)):
        pickler.memo.clear()
        pickler.save(value)
        out.write(after)
    return out.getvalue() + b"s."


@pytest.mark.unit
@pytest.mark.parametrize(
    "state",
    [
        (3, "|", None, ("a",), {"a": (b"A" * 400, 0)}, 16, 1, 63),
        (3, "|", None, ("a",), {"a": (1, 10**9)}, 16, 1, 63),
        (3, "<", ("f8", (10**9,)), None, None, -1, -1, 0),
        "nonsense",
    ],
    ids=["fields that are bytes", "a field far away", "a large subarray", "text"],
)
def test_a_type_of_numbers_is_no_way_into_numpys_memory(state, tmp_path):
    with pytest.raises(DataError):
        read_pickle(dumped(tmp_path, build("numpy", "dtype", ("V16", False, True), state)))
    with pytest.raises(DataError):
        read_pickle(dumped(tmp_path, build("numpy", "dtype", ("f8", False, True), state)))


@pytest.mark.unit
def test_a_network_whose_parts_are_no_dictionary_is_an_error_of_one_line(tmp_path):
    with pytest.raises(DataError, match="_modules of a G is not a dictionary"):
        read_pickle(dumped(tmp_path, named({"G": persistent("", {"_modules": 5})})))


BUILD = """
import sys; sys.path.insert(0, ".")
from stylegan_plugins.errors import HostError
from stylegan_plugins.host import networks
from stylegan_plugins.files.pickles import Network
for name in ("normalize_2nd_moment", "np", "modulated_conv2d", "persistence"):
    try:
        networks.build(Network(name, (), {}, {}, frozenset()))
    except HostError as error:
        assert "has no class" in str(error), error
    else:
        raise SystemExit(name)
"""


@pytest.mark.host
def test_only_networks_of_the_host_are_made(ada_host):
    run_script(ada_host, "-c", BUILD)
