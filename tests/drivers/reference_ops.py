"""Run in a host's folder: functions that a CPU computes in fewer operations against the host's own, with first and
second derivatives, in single and in double precision. Fails with the smallest example that differs."""

import sys
from types import ModuleType, SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, ".")
from stylegan_plugins.host import quicker, reference_ops
from stylegan_plugins.host.families import FAMILIES
from stylegan_plugins.host.modules import host_module

torch.set_num_threads(1)
STYLEGAN3 = sys.argv[1] == FAMILIES[1]
NETWORKS = host_module("training.networks_stylegan2" if STYLEGAN3 else "training.networks")
UPFIRDN2D, BIAS_ACT, GRADFIX = (
    host_module(f"torch_utils.ops.{name}") for name in ("upfirdn2d", "bias_act", "conv2d_gradfix")
)
DTYPES = st.sampled_from([torch.float32, torch.float64])
checked = settings(deadline=None, max_examples=150, database=None, derandomize=True)


def same(ours, theirs, *inputs):
    """Assert that two functions have the same values, gradients, and gradients of gradients.

    In single precision derivatives of a demodulation by a small norm have few digits, in both; double has them all."""
    found = []
    for function in (ours, theirs):
        leaves = [value.clone().requires_grad_() for value in inputs]
        out = function(*leaves)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
        first = torch.autograd.grad((out * out * weights + out).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(value.square().sum() for value in first), leaves)
        found.append([out, *first, *second])
    for index, (mine, other) in enumerate(zip(*found, strict=True)):
        assert mine.shape == other.shape and mine.dtype == other.dtype
        tolerance = 1e-10 if mine.dtype == torch.float64 else 1e-3 if index else 1e-6
        difference = (mine - other).abs().max().item()
        assert difference <= tolerance * max(1.0, other.abs().max().item()), (index, difference)


def numbers(shape, dtype, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@checked
@given(
    size=st.tuples(*[st.integers(1, 20)] * 2),
    maps=st.tuples(st.integers(1, 3), st.integers(1, 40)),
    taps=st.sampled_from([(1, 3, 3, 1), (1, 2, 1), (1, 1), tuple(range(1, 13)), ((1, 2, 5), (0, 3, 1), (4, 1, 7))]),
    up=st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 2), st.integers(1, 2))),
    down=st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 2), st.integers(1, 2))),
    padding=st.one_of(st.integers(0, 4), st.tuples(*[st.integers(-1, 4)] * 2), st.tuples(*[st.integers(-2, 12)] * 4)),
    flip=st.booleans(),
    gain=st.sampled_from([1, 4, 0.5]),
    dtype=DTYPES,
)
def upfirdn2d(size, maps, taps, up, down, padding, flip, gain, dtype):
    f = UPFIRDN2D.setup_filter(taps)
    how = dict(f=f, up=up, down=down, padding=padding, flip_filter=flip, gain=gain)
    upx, upy = UPFIRDN2D._parse_scaling(up)
    x0, x1, y0, y1 = UPFIRDN2D._parse_padding(padding)
    if min(size[1] * upx + x0 + x1 - f.shape[-1], size[0] * upy + y0 + y1 - f.shape[0]) < 0:
        return  # nothing comes out
    ours = UPFIRDN2D._upfirdn2d_ref
    same(lambda x: ours(x, **how), lambda x: ours.__wrapped__(x, **how), numbers([*maps, *size], dtype))


@checked
@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    with_bias=st.booleans(),
    act=st.sampled_from(sorted(BIAS_ACT.activation_funcs)),
    alpha=st.none() | st.floats(0, 1),
    gain=st.none() | st.sampled_from([0, 1, 0.3, -2]),
    clamp=st.none() | st.sampled_from([0, 0.5, 256]),
    dtype=DTYPES,
)
def bias_act(shape, with_bias, act, alpha, gain, clamp, dtype):
    how = dict(act=act, alpha=alpha, gain=gain, clamp=clamp)
    inputs = [numbers(shape, dtype), *([numbers(shape[1:2], dtype, 1)] if with_bias else [])]
    ours = BIAS_ACT._bias_act_ref
    same(lambda x, b=None: ours(x, b, **how), lambda x, b=None: ours.__wrapped__(x, b, **how), *inputs)


@checked
@given(
    features=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    batch=st.integers(1, 50),
    how=st.fixed_dictionaries(
        dict(
            bias=st.booleans(),
            activation=st.sampled_from(["linear", "lrelu", "tanh"]),
            lr_multiplier=st.sampled_from([1, 0.01]),
            bias_init=st.sampled_from([0, 1]),
        )
    ),
    dtype=DTYPES,
)
def fully_connected(features, batch, how, dtype):
    layer = NETWORKS.FullyConnectedLayer(*features, **how).to(dtype)
    ours = type(layer).forward
    same(lambda x: ours(layer, x), lambda x: ours.__wrapped__(layer, x), numbers([batch, features[0]], dtype))


@checked
@given(
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    batch=st.integers(1, 4),
    size=st.integers(1, 9),
    kernel=st.sampled_from([1, 3]),
    up=st.sampled_from([1, 2]),
    noisy=st.booleans(),
    how=st.fixed_dictionaries(dict(demodulate=st.booleans(), fused_modconv=st.booleans(), flip_weight=st.booleans())),
    dtype=DTYPES,
)
def modulated_conv2d(channels, batch, size, kernel, up, noisy, how, dtype):
    how |= dict(up=up, padding=kernel // 2, resample_filter=UPFIRDN2D.setup_filter([1, 3, 3, 1]))
    inputs = [numbers(shape, dtype) for shape in ([batch, channels[0], size, size], [*channels[::-1], kernel, kernel])]
    inputs += [numbers([batch, channels[0]], dtype)]
    if noisy:
        inputs += [numbers([batch, 1, size * up, size * up], dtype, 1)]
    ours = NETWORKS.modulated_conv2d
    same(lambda *given: ours(*given, **how), lambda *given: ours.__wrapped__(*given, **how), *inputs)


@checked
@given(
    channels=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    batch=st.integers(1, 5),
    size=st.tuples(*[st.integers(1, 9)] * 2),
    kernel=st.sampled_from([1, 1, 3]),
    how=st.fixed_dictionaries(dict(stride=st.sampled_from([1, 1, 2]), padding=st.sampled_from([0, (0, 0), 1]))),
    dtype=DTYPES,
)
def conv2d(channels, batch, size, kernel, how, dtype):
    if kernel > min(size):
        return
    inputs = [numbers([batch, channels[0], *size], dtype), numbers([*channels[::-1], kernel, kernel], dtype, 1)]
    ours = GRADFIX.conv2d
    same(lambda *given: ours(*given, **how), lambda *given: ours.__wrapped__(*given, **how), *inputs)


def functions_of_a_fork_stay():
    """Check functions that differ, fail, or take other arguments, and a module without functions."""

    def fails(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None):
        raise RuntimeError("not here")

    def louder(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None):
        return x * 2

    def of_other_shape(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None):
        return x.sum()

    def with_noise(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, noise=None):
        return BIAS_ACT._bias_act_ref.__wrapped__(x, b, dim, act, alpha, gain, clamp)

    hidden = host_module("torch_utils.misc").profiled_function(with_noise)
    for function in (fails, louder, of_other_shape, with_noise, hidden):
        module = SimpleNamespace(_bias_act_ref=function, activation_funcs=BIAS_ACT.activation_funcs)
        quicker.bias_act(module)
        assert module._bias_act_ref is function, function
        quicker.bias_act(SimpleNamespace(_bias_act_ref=function))
    without_dilation = lambda input, weight, bias=None, stride=1, padding=0, groups=1: GRADFIX.conv2d(input, weight)
    module = SimpleNamespace(conv2d=without_dilation)
    quicker.conv2d(module)
    assert module.conv2d is without_dilation
    quicker.bias_act(ModuleType("empty"))
    quicker.networks(ModuleType("empty"))


def constants_do_not_depend_on_modes_of_their_first_use():
    for number, mode in enumerate(
        (torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"))
    ):
        for size in (4, 40):  # a matrix, a convolution
            x = torch.randn([1, 3, size + number, size], device="cpu", requires_grad=True)
            how = dict(f=UPFIRDN2D.setup_filter([1, 2, 3 + number]), padding=1)
            with mode:
                UPFIRDN2D._upfirdn2d_ref(x, **how)
            ours, theirs = (f(x, **how) for f in (UPFIRDN2D._upfirdn2d_ref, UPFIRDN2D._upfirdn2d_ref.__wrapped__))
            ours.sum().backward()
            assert torch.allclose(ours, theirs, atol=1e-5)


def an_export_takes_any_batch():
    layer = NETWORKS.FullyConnectedLayer(6, 4, activation="lrelu")
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(layer, (torch.ones(2, 6),), dynamic_shapes=shapes).module()
    for batch in (2, 7, 30):
        x = numbers([batch, 6], torch.float32)
        assert torch.allclose(exported(x), layer(x), atol=1e-5)


def short_cuts_are_taken():
    assert reference_ops._MATRICES and reference_ops._weight.cache_info().hits


def draws_nothing():
    """Check that trying networks does not draw from the random numbers of the run."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    quicker.networks(NETWORKS)
    assert torch.equal(before, torch.get_rng_state())


PROPERTIES = (upfirdn2d, bias_act, fully_connected, modulated_conv2d, conv2d)
EXAMPLES = (
    functions_of_a_fork_stay,
    constants_do_not_depend_on_modes_of_their_first_use,
    an_export_takes_any_batch,
    short_cuts_are_taken,
    draws_nothing,
)
for check in (*PROPERTIES, *EXAMPLES):
    check()
print("equal")
