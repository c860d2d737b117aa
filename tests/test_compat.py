"""Repairs of host modules: each breakage occurs on an unchanged host, and is gone after the repair by compat.

A process per host runs every probe of `PROBES` twice, before and after `compat.install()`. A probe is a function whose
return value, or error, is compared here. To cover another breakage, add a probe and a test of its value."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from support.hosts import ADA, CHECKOUTS, STYLEGAN3, copy_host

from stylegan_plugins.host import compat
from stylegan_plugins.run import arguments

PROBES = '''
import copy, io, itertools, json, pickle, sys, tempfile, warnings
import numpy as np, torch
from stylegan_plugins.host import compat

sys.path.insert(0, sys.argv[1])
stylegan3 = sys.argv[2] == "stylegan3"
with compat._stand_ins():  # what a Python with both modules would have
    import dnnlib, legacy
    from torch_utils import custom_ops, misc, persistence, training_stats
    from torch_utils.ops import bias_act, conv2d_gradfix, grid_sample_gradfix
    from training import augment

NETWORKS = "training.networks_stylegan2" if stylegan3 else "training.networks"


def generator(layers=2, fp16=0):
    size = dict(channel_base=256, channel_max=16, num_fp16_res=fp16)
    size = size if stylegan3 else dict(synthesis_kwargs=size)
    latent = dict(z_dim=16, w_dim=16, c_dim=0, mapping_kwargs=dict(num_layers=layers))
    torch.manual_seed(0)
    return dnnlib.util.construct_class_by_name(
        class_name=NETWORKS + ".Generator", img_resolution=16, img_channels=3, **latent, **size
    )


def sampler():
    return [int(i) for i in itertools.islice(iter(misc.InfiniteSampler(list(range(4)), seed=0)), 8)]


def summary_moves_w_avg():
    G = generator().train()
    before = G.mapping.w_avg.clone()
    misc.print_module_summary(G, [torch.full([2, 16], 3.0), torch.zeros([2, 0])])
    return not torch.equal(before, G.mapping.w_avg)


def deep_mapping_into_shallow():
    misc.copy_params_and_buffers(generator(layers=4), generator(layers=2).requires_grad_(False))


def broadcast_copy():
    misc.copy_params_and_buffers(torch.nn.Linear(3, 1), torch.nn.Linear(3, 3).requires_grad_(False))


def copy_that_fits():
    source, target = generator(), generator().requires_grad_(False)
    for parameter in source.parameters():
        parameter.data += 1
    misc.copy_params_and_buffers(source, target, require_all=True)
    return all(torch.equal(a, b) for a, b in zip(misc.params_and_buffers(source), misc.params_and_buffers(target)))


def copy_of_less():  # a pickle without some of the tensors: stays possible, the host says so with require_all
    target = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).requires_grad_(False)
    source = torch.nn.Sequential(torch.nn.Linear(2, 2))
    misc.copy_params_and_buffers(source, target)
    return torch.equal(source[0].weight, target[0].weight)


def statistics_under_gloo():
    training_stats._sync_called = False
    training_stats._counters.clear(), training_stats._cumulative.clear()
    training_stats.init_multiprocessing(rank=0, sync_device=torch.device("cuda", 0))
    collector = training_stats.Collector()
    training_stats.report("probe", torch.tensor([1.0, 3.0]))
    collector.update()
    return collector.mean("probe")


def half_precision_blocks_of_a_pickle():
    data = pickle.dumps(generator(fp16=2))
    return sum(bool(getattr(module, "use_fp16", False)) for module in pickle.loads(data).modules())


class OnGpu(torch.Tensor):
    device = property(lambda self: torch.device("cuda"))


def warnings_of_gradient_fixes():
    conv2d_gradfix.enabled = grid_sample_gradfix.enabled = True
    image = torch.zeros([1, 1, 4, 4])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            custom = conv2d_gradfix._should_use_custom_op(image.as_subclass(OnGpu))
            conv2d_gradfix.conv2d(image, torch.ones([1, 1, 3, 3]))
            conv2d_gradfix.conv_transpose2d(image, torch.ones([1, 1, 3, 3]))
            grid_sample_gradfix.grid_sample(image, torch.zeros([1, 2, 2, 2]))
    assert not custom
    return len(caught)


def without_weight_gradients():
    seen = []
    for arguments, keywords in [((), {}), ((True,), {}), ((False,), {}), ((), dict(disable=False))]:
        with conv2d_gradfix.no_weight_gradients(*arguments, **keywords):
            seen.append(conv2d_gradfix.weight_gradients_disabled)
    return seen


def r1_through_ada(enabled=True):
    grid_sample_gradfix.enabled = enabled
    pipe = augment.AugmentPipe(xflip=1, rotate90=1, scale=1, rotate=1, aniso=1, xfrac=1, brightness=1, hue=1)
    pipe.train().requires_grad_(False).p.fill_(1)
    torch.manual_seed(1)
    image = torch.randn([2, 3, 8, 8], dtype=torch.float32, requires_grad=True)
    weight = torch.randn([3, 1], requires_grad=True)
    logits = (pipe(image).square().mean(dim=[2, 3]) @ weight).square()
    gradient = torch.autograd.grad(logits.sum(), image, create_graph=True)[0]
    gradient.square().sum().backward()
    return [float(weight.grad.norm()), float(image.grad.norm())]


class GridSampleOnce(torch.autograd.Function):
    """torch's, in versions without second derivative."""

    @staticmethod
    def forward(ctx, input, grid):
        ctx.save_for_backward(input, grid)
        return native(input, grid, align_corners=False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return *torch.ops.aten.grid_sampler_2d_backward(gradient, *ctx.saved_tensors, 0, 0, False, [True, True]),


native = torch.nn.functional.grid_sample


def r1_where_torch_lacks_the_second_derivative():
    found = grid_sample_gradfix.grid_sample
    torch.nn.functional.grid_sample = lambda input, grid, **_: GridSampleOnce.apply(input, grid)
    try:
        if repaired:  # anew: it asks torch what it can do
            compat._repair_grid_sample_gradfix(grid_sample_gradfix)
        return r1_through_ada(enabled=not repaired)  # only the hosts' loop sets it
    finally:
        torch.nn.functional.grid_sample = native
        grid_sample_gradfix.grid_sample = found


def op_that_cannot_be_built():
    bias_act._inited = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return [bias_act._init(), len(caught)]


def torch_attributes():
    places = [torch, torch.nn, torch.nn.functional, torch.utils.data, torch.optim, torch.autograd, torch.cuda]
    places += [torch.utils.data.Sampler, torch.Tensor, torch.nn.Module, torch.distributed, np]
    return {(place.__name__, name): id(value) for place in places for name, value in dict(vars(place)).items()
            if callable(value)}


probes = [sampler, summary_moves_w_avg, deep_mapping_into_shallow, broadcast_copy, copy_that_fits, copy_of_less,
          statistics_under_gloo, half_precision_blocks_of_a_pickle, warnings_of_gradient_fixes,
          without_weight_gradients, r1_through_ada, r1_where_torch_lacks_the_second_derivative,
          op_that_cannot_be_built]


def run(probe):
    try:
        return probe()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


torch.distributed.init_process_group("gloo", init_method=f"file://{tempfile.mktemp()}", rank=0, world_size=1)
repaired = False
report = {"before": {probe.__name__: run(probe) for probe in probes}}
parts = torch_attributes()
report["installed"] = compat.install()
hooks = len(persistence._import_hooks)
state = [misc.print_module_summary, misc.copy_params_and_buffers, grid_sample_gradfix.grid_sample, bias_act._init]
report["again"] = compat.install()
report["idempotent"] = hooks == len(persistence._import_hooks) and state == [
    misc.print_module_summary, misc.copy_params_and_buffers, grid_sample_gradfix.grid_sample, bias_act._init]
repaired = True
now = torch_attributes()
report["changed"] = [".".join(key) for key, value in parts.items() if now.get(key) != value]
report["after"] = {probe.__name__: run(probe) for probe in probes}
print(json.dumps(report))
'''

WITHOUT = """
import importlib.abc, sys, types
sys.path.insert(0, sys.argv[1])

class Missing(importlib.abc.MetaPathFinder):
    # A Python of 3.12 or later with a setuptools of today.
    def find_spec(self, name, path=None, target=None):
        if path is None and name in ("pkg_resources", "distutils"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in [name for name in sys.modules if name.split(".")[0] in ("pkg_resources", "distutils")]:
    del sys.modules[name]
sys.meta_path.insert(0, Missing())
if sys.argv[3] == "without distutils":  # what torch needs of setuptools, and no more
    for name in ("setuptools", "setuptools.command", "setuptools.command.build_ext"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules[name].build_ext = sys.modules["setuptools"].Extension = sys.modules["setuptools"].Command = object
if sys.argv[2] == "repaired":
    from stylegan_plugins.host import compat
    compat.install()
    left = [sys.modules.get(name) for name in ("pkg_resources", "distutils", "distutils.util")]
    assert not [module for module in left if module and not module.__file__], "nobody else may see stand-ins"
    import dnnlib
    assert dnnlib.util.strtobool("yes") == 1
import dnnlib, legacy
from torch_utils.ops import conv2d_gradfix, grid_sample_gradfix
import training.augment, training.loss, training.dataset, metrics.metric_main
print("imported")
"""


def _python(code: str, *args: str, **env: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1", **env}
    environment.pop("TORCH_CUDA_ARCH_LIST", None)
    return subprocess.run(
        [sys.executable, "-c", code, *args], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module", params=[ADA, STYLEGAN3, f"{ADA} pristine", f"{STYLEGAN3} pristine"])
def host(request, fetched):
    """An unpatched host and its family: assembled, and NVIDIA's own checkout where one is named."""
    family, _, pristine = request.param.partition(" ")
    if not pristine:
        return fetched[family], family
    if not os.environ.get(CHECKOUTS[family]):
        pytest.skip(f"{CHECKOUTS[family]} names no checkout of {family}")
    return os.environ[CHECKOUTS[family]], family


@pytest.fixture(scope="module")
def report(host):
    done = _python(PROBES, str(host[0]), host[1])
    assert done.returncode == 0, done.stderr[-4000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "family": host[1], "stderr": done.stderr}


# --- each breakage, and its repair -----------------------------------------------------------------------------------


@pytest.mark.host
def test_the_infinite_sampler_dies_at_once_and_is_repaired(report):
    assert report["before"]["sampler"].startswith("TypeError")
    drawn = report["after"]["sampler"]
    assert len(drawn) == 8 and set(drawn) <= {0, 1, 2, 3}


@pytest.mark.host
def test_the_module_summary_moves_w_avg_and_is_kept_from_it(report):
    # stylegan3 moves it only when its training loop says so.
    assert report["before"]["summary_moves_w_avg"] is (report["family"] == ADA)
    assert report["after"]["summary_moves_w_avg"] is False


@pytest.mark.host
def test_a_deeper_mapping_loads_into_a_shallower_one_without_a_word_and_is_refused(report):
    assert report["before"]["deep_mapping_into_shallow"] is None
    refusal = report["after"]["deep_mapping_into_shallow"]
    assert refusal.startswith("UserError") and "mapping.fc2.weight has no place here" in refusal


@pytest.mark.host
def test_tensors_of_another_shape_are_broadcast_and_are_refused(report):
    assert report["before"]["broadcast_copy"] is None
    refusal = report["after"]["broadcast_copy"]
    assert refusal.startswith("UserError") and "weight is [1, 3] in the pickle and [3, 3] here" in refusal


@pytest.mark.host
def test_what_fits_is_copied_as_before(report):
    for moment in ("before", "after"):
        assert report[moment]["copy_that_fits"] is True
        assert report[moment]["copy_of_less"] is True


@pytest.mark.host
def test_statistics_are_exchanged_over_a_gpu_that_is_not_there_and_go_over_the_cpu(report):
    assert isinstance(report["before"]["statistics_under_gloo"], str)
    assert report["after"]["statistics_under_gloo"] == 2.0


@pytest.mark.host
def test_pickles_of_half_precision_run_in_float32_without_a_gpu(report):
    assert report["before"]["half_precision_blocks_of_a_pickle"] > 0
    assert report["after"]["half_precision_blocks_of_a_pickle"] == 0


@pytest.mark.host
def test_gradient_fixes_warn_on_no_call(report):
    # stylegan3 knows torch 1.11 and is silent already.
    assert (report["before"]["warnings_of_gradient_fixes"] == 0) == (report["family"] == STYLEGAN3)
    assert report["after"]["warnings_of_gradient_fixes"] == 0


@pytest.mark.host
def test_no_weight_gradients_takes_both_signatures(report):
    if report["family"] == ADA:
        assert report["before"]["without_weight_gradients"].startswith("TypeError")
    assert report["after"]["without_weight_gradients"] == [True, True, False, False]


@pytest.mark.host
def test_r1_through_the_ada_pipe_works_where_torch_has_no_second_derivative_of_grid_sample(report):
    if report["family"] == ADA:  # stylegan3 brings its own second derivative
        assert "differentiate twice" in report["before"]["r1_where_torch_lacks_the_second_derivative"]
    expected = report["after"]["r1_through_ada"]
    # The same sums in float32, in another order.
    assert report["after"]["r1_where_torch_lacks_the_second_derivative"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.host
def test_repairs_leave_the_numbers_of_r1_through_the_ada_pipe_alone(report):
    if compat.grid_sample_has_second_derivative():  # upfirdn2d sums in another order
        assert report["after"]["r1_through_ada"] == pytest.approx(report["before"]["r1_through_ada"], rel=1e-5)


@pytest.mark.host
def test_an_op_that_cannot_be_built_falls_back_with_one_report(report):
    # Before: ada warns, stylegan3 dies for want of a GPU.
    before = report["before"]["op_that_cannot_be_built"]
    assert before == [False, 1] if report["family"] == ADA else isinstance(before, str)
    assert report["after"]["op_that_cannot_be_built"] == [False, 0]
    assert report["stderr"].count("custom CUDA op bias_act_plugin cannot be built: ") == 1


@pytest.mark.host
@pytest.mark.parametrize("setuptools", ["with distutils", "without distutils"])
def test_hosts_import_without_modules_that_newer_pythons_lack(host, setuptools):
    unrepaired = _python(WITHOUT, str(host[0]), "as it comes", setuptools)
    assert unrepaired.returncode == 1
    assert "No module named 'distutils" in unrepaired.stderr  # the first of the two that is imported
    repaired = _python(WITHOUT, str(host[0]), "repaired", setuptools)
    assert repaired.returncode == 0 and repaired.stdout.endswith("imported\n"), repaired.stderr
    assert "istutils" not in repaired.stderr  # no warning about it either


@pytest.mark.unit
def test_adam_refuses_an_int_beta_which_lazy_regularisation_off_leaves():
    parameter = torch.nn.Parameter(torch.zeros(1))
    args = {"G_opt_kwargs": {"betas": [0, 0.99]}, "D_opt_kwargs": {"lr": 0.1}, "G_kwargs": {}, "D_kwargs": {}}
    arguments.adapt(args, torch.device("cpu"))
    assert [type(beta) for beta in args["G_opt_kwargs"]["betas"]] == [float, float]
    assert args["D_opt_kwargs"] == {"lr": 0.1}
    optimizer = torch.optim.Adam([parameter], **args["G_opt_kwargs"])
    parameter.grad = torch.ones(1)
    optimizer.step()
    with pytest.raises((TypeError, ValueError)):
        torch.optim.Adam([parameter], betas=[0, 0.99])


# --- install() -------------------------------------------------------------------------------------------------------


@pytest.mark.host
def test_all_modules_with_a_repair_are_repaired_and_only_once(report):
    others = {"torch_utils.ops.filtered_lrelu", "training.networks_stylegan2"}
    known = set(compat._REPAIRS) - (others if report["family"] == ADA else {"training.networks"})
    assert set(report["installed"]) == set(report["again"]) == known
    assert report["idempotent"] is True


@pytest.mark.host
def test_nothing_of_torch_changes(report):
    assert report["changed"] == []


@pytest.mark.host
def test_networks_that_need_a_missing_package_do_not_stop_the_repairs(fetched, tmp_path):
    host = copy_host(fetched[ADA], tmp_path / "host")
    with open(host / "training/networks.py", "a") as networks:
        networks.write("\nimport some_missing_package\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from stylegan_plugins.host import compat; print(compat.install())"
    )
    done = _python(code, str(host))
    assert done.returncode == 0 and "torch_utils.ops.upfirdn2d" in done.stdout, done.stderr
    assert "training.networks" not in done.stdout


@pytest.mark.host
def test_without_a_host_there_is_nothing_to_repair(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from stylegan_plugins.host import compat; print(compat.install())"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


# --- stand-ins and GridSample by themselves --------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize(
    "older, newer", [("1.9.1", "1.11.0a"), ("1.9", "1.10"), ("2.9.1+cu128", "2.14.1+cpu"), ("1.11.0", "2.0")]
)
def test_versions_compare_by_number_not_by_letter(older, newer):
    assert compat.TorchVersion(older) < compat.TorchVersion(newer)


@pytest.mark.unit
def test_truth_values_are_read_as_distutils_read_them():
    assert [compat._strtobool(text) for text in ("Yes", "on", "1", "no", "False", "0")] == [1, 1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="maybe"):
        compat._strtobool("maybe")


def _batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    image = torch.randn([2, 3, 4, 5], dtype=dtype, generator=random, requires_grad=True)
    # Beyond the border, too, where zeros are read.
    grid = torch.rand([2, 6, 3, 2], dtype=dtype, generator=random) * 3 - 1.5
    return image, grid


@pytest.mark.unit
def test_grid_sample_has_the_derivatives_of_first_and_second_order_that_differences_show():
    image, grid = _batch()
    assert torch.autograd.gradcheck(lambda x: compat.GridSample.apply(x, grid), image)
    assert torch.autograd.gradgradcheck(lambda x: compat.GridSample.apply(x, grid).square(), image)


@pytest.mark.unit
@pytest.mark.skipif(not compat.grid_sample_has_second_derivative(), reason="this torch has none to compare with")
def test_grid_sample_equals_torchs_own():
    image, grid = _batch()
    results = []
    for sample in (compat.GridSample.apply, compat._grid_sample):
        output = sample(image, grid)
        gradient = torch.autograd.grad(output.square().sum(), image, create_graph=True)[0]
        second = torch.autograd.grad(gradient.square().sum(), image)[0]
        results.append((output, gradient, second))
    for ours, torchs in zip(*results):
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-12)


@pytest.mark.unit
def test_asking_torch_for_a_second_derivative_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compat.grid_sample_has_second_derivative() in (True, False)
