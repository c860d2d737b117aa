"""Run in a host's folder: methods in the test kit, off, resumed and against the contract. Prints a JSON line: claim ->
its fault, empty if it holds."""

import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, ".")
sys.path.insert(0, str(Path(__file__).parent))
from combine import OF_DATA, how_of, options

from stylegan_plugins import Average, Critic, Head, PluginError, Term, View, hookimpl
from stylegan_plugins.host.families import FAMILIES
from stylegan_plugins.manager import builtin
from stylegan_plugins.testing import TinyRun, assert_off_is_off, assert_resumes_exactly

torch.set_num_threads(1)
claims: dict[str, str] = {}
STYLEGAN3 = FAMILIES[1]


def claim(name: str, check: Callable[[], object]) -> None:
    try:
        check()
        claims[name] = ""
    except AssertionError as error:
        claims[name] = str(error) or "no"


def method(name: str, **attributes: object) -> ModuleType:
    """Return a plug-in whose method has these attributes; functions among them get the session."""

    @hookimpl
    def setup(session):
        made = {key: value(session) if callable(value) else value for key, value in attributes.items()}
        return SimpleNamespace(**made)

    module = ModuleType(name)
    module.setup = setup
    return module


def refused(name: str, message: str, **attributes: object) -> None:
    def check() -> None:
        try:
            TinyRun(method(name, **attributes)).train(1)
        except PluginError as error:
            assert message in str(error), str(error)
        else:
            raise AssertionError("it was taken")

    claim(f"{name} is refused", check)


class Asked(TorchDispatchMode):
    """A list of places where our code reads a value of a tensor: .item(), bool(t), nonzero, a mask as index. Each read
    waits for a GPU. Copies (.cpu(), .tolist()) cannot be seen on a CPU. The hosts' reads are not listed: the place of
    style mixing, and in ADA the margins of a batch."""

    WAIT = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "allclose")
    MASKS = ("index", "index_put_", "index_put")

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in self.MASKS and any(index is not None and index.dtype == torch.bool for index in args[1])
        if name in self.WAIT or masks:
            torch_itself = str(Path(torch.__file__).parent)
            frames = [frame for frame in traceback.extract_stack()[:-1] if torch_itself not in frame.filename]
            if not Path(frames[-1].filename).is_relative_to(Path.cwd()):
                self.places.append(f"{Path(frames[-1].filename).name}:{frames[-1].lineno}")
        return func(*args, **(kwargs or {}))


def places_that_ask(plugin: str | ModuleType, chosen: dict, how: dict) -> list[str]:
    """Return these places in two iterations, which have all phases. Between iterations a method may read values."""
    run, asked = TinyRun(plugin, chosen, **how), Asked()
    accumulate = run.loss.accumulate_gradients

    def watched(*args, **kwargs):
        with asked:
            return accumulate(*args, **kwargs)

    run.loss.accumulate_gradients = watched
    run.train(2)
    return sorted(set(asked.places))


def assert_asks_for_nothing(plugin: str, chosen: dict, how: dict) -> None:
    places = places_that_ask(plugin, chosen, how)
    assert not places, f"a value is asked for at {', '.join(places)}"


with tempfile.TemporaryDirectory() as folder:
    given = options(Path(folder))
    off = {
        "diffaugment": {"policy": ""},
        "lecam": {"weight": 0},
        "bcr": {"real_weight": 0, "generated_weight": 0},
    }
    for name, values in off.items():
        claim(f"{name}: off is off", lambda n=name, v=values: assert_off_is_off(n, {n: v}))
    # Methods see no more of a host than the session, so one family tries them all.
    some = ("augself", "contrad", "lecam") if sys.argv[1] == STYLEGAN3 else sorted({*builtin()} - OF_DATA)
    for name in some:
        how = how_of(name)
        chosen = {name: given[name]} if name in given else {}
        resumes = lambda n=name, c=chosen, h=how: assert_resumes_exactly(n, c, 4, 2, **h)
        claim(f"{name}: a resumed run is exact", resumes)
        claim(f"{name}: nothing is waited for", lambda n=name, c=chosen, h=how: assert_asks_for_nothing(n, c, h))
    hard = dict(lazy=False, ada=True, rounds=2, batch=8)
    for name in ("augself", "contrad", "apa") if sys.argv[1] != STYLEGAN3 else ("augself",):
        chosen = {name: given[name]} if name in given else {}
        resumes = lambda n=name, c=chosen: assert_resumes_exactly(n, c, 4, 2, **hard)
        claim(f"{name}: a resumed run is exact, with rounds, ADA and without lazy regularisation", resumes)

zeros = lambda step: step.one.logits.squeeze(1) * 0
asks = method("asks", terms=[Term("asks", "D", lambda step: zeros(step) + float(step.one.logits.sum()) * 0)])
claims["asking is noticed"] = "" if [place[:3] for place in places_that_ask(asks, {}, {})] == ["kit"] else "it is not"
refused("nan", "the term nan was not finite", terms=[Term("nan", "D", lambda step: zeros(step) + float("nan"))])
refused(
    "shape",
    "compute of the term shape returned a value of shape [4, 1]",
    terms=[Term("shape", "D", lambda s: s.one.logits)],
)
refused(
    "layer",
    "reads the layer 'b5.fc', which D has not. It has: b16",
    terms=[Term("layer", "D", zeros, layers=["b5.fc"])],
)
refused("undeclared", "name it in `layers`", terms=[Term("undeclared", "D", lambda step: step.one.layers["b4.fc"])])


def reads_x(step):
    return step.one.layers["x"]


two = [
    Term("two", "D", zeros),
    Term("viewed", "D", zeros, views=[View("v", lambda images: images.raw.sum())]),
]
refused("blamed", "--plugin=blamed: viewed: the view 'v' made", terms=two)
refused("critic", "--plugin=critic: c: logits returned", critic=Critic("c", lambda seen: seen.host_logits[0]))
refused("named", "a head is named 'a.b'", heads=lambda session: [Head("a.b", torch.nn.Linear(1, 1))])
refused(
    "typo",
    "setup() breaks the contract: layer_shape reads the layer 'b4.typo'",
    heads=lambda session: session.layer_shape("b4.typo"),
)
refused(
    "weights",
    "sample_weights() returned [4, 1]; expected [4]",
    sample_weights=lambda session: hookimpl(lambda step: step.one.logits),
)
refused(
    "seen", "observe() breaks the contract: 'x' is read and not declared", observe=lambda session: hookimpl(reads_x)
)
refused("owner", "contains parameters of G or D", heads=lambda session: [Head("owner", session.D.b4.fc)])


def two_critics() -> None:
    critic = lambda name: method(name, critic=Critic(name, lambda seen: seen.host_logits))
    try:
        TinyRun([critic("one"), critic("two")])
    except PluginError as error:
        assert "one and two both replace the adversarial loss" in str(error)
    else:
        raise AssertionError("both were taken")


def of_no_pass() -> None:
    weights = {"G": lambda owner: owner.G.mapping.fc0.weight, "D": lambda owner: owner.D.b4.out.weight}
    for network, weight in weights.items():
        compute = lambda session, weight=weight: lambda step: weight(session).square().sum()[None]
        terms = lambda session, c=compute, n=network: [Term("decay", n, c(session), on="nothing")]
        run, plain = TinyRun(method(f"decay{network}", terms=terms)), TinyRun()
        gradients, expected = run.gradients(f"{network}main"), plain.gradients(f"{network}main")
        (name,) = [f"{network}.{n}" for n, p in getattr(run, network).named_parameters() if p is weight(run)]
        torch.testing.assert_close(gradients[name], expected[name] + 2 * weight(run))


def nothing_trained() -> None:
    frozen = ModuleType("frozen")

    class Frozen:
        @hookimpl
        def trains(self, name):
            return not name.startswith("G.")

    @hookimpl
    def setup():
        return Frozen()

    frozen.setup = setup
    run = TinyRun(frozen)
    before = [parameter.detach().clone() for parameter in run.G.parameters()]
    run.train(2)
    assert all(map(torch.equal, before, run.G.parameters())), "G has moved"
    assert run.session.begin("Dmain") and not run.session.begin("Gmain") and not run.session.regularises_G()


def frozen_head() -> None:
    class Projected(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fixed = torch.nn.Linear(4, 4).requires_grad_(False)
            self.learned = torch.nn.Linear(4, 1)

        def forward(self, images):
            return self.learned(self.fixed(images[:, 0, :2, :2].flatten(1)))[:, 0]

    module = Projected()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    term = lambda session: [Term("t", "D", lambda step: module(step.one.images.raw))]
    TinyRun(method("fixed", heads=lambda session: [Head("projected", module)], terms=term)).train(1)
    changed = [not torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True)]
    assert changed == [False, False, True, True], changed


def without_D() -> None:
    """Check that a critic without logits and a term of G on pairs are enough."""
    near = lambda step: (step.generated.images.shown - step.real.images.shown).abs().flatten(1).mean(dim=1)
    made = method("pairs", critic=Critic("pairs", None), terms=lambda session: [Term("near", "G", near, on="both")])
    try:
        TinyRun(made)
        raise AssertionError("nothing was raised without trains_D")
    except PluginError as error:
        assert "give the plug-in trains_D = False" in str(error), error
    made.trains_D = False
    run = TinyRun(made)
    before = {kind: [p.clone() for p in network.parameters()] for kind, network in (("G", run.G), ("D", run.D))}
    run.train(2)
    moved = {
        kind: [not torch.equal(*pair) for pair in zip(before[kind], getattr(run, kind).parameters())] for kind in before
    }
    assert any(moved["G"]) and not any(moved["D"])


def averages() -> None:
    average = lambda session: [Average("ema", session.D, 0.9)]
    run = TinyRun(method("averaged", averages=average), lazy=False)
    (kept,) = run.session.averages
    before, parameter = kept.module.b4.fc.weight.clone(), run.D.b4.fc.weight
    run.train(1)
    torch.testing.assert_close(kept.module.b4.fc.weight, 0.9 * before + 0.1 * parameter)
    again = TinyRun("averaged", lazy=False).load(run.state())
    assert torch.equal(again.session.averages[0].module.b4.fc.weight, kept.module.b4.fc.weight)


class Images(SimpleNamespace):
    """A data set of eight images."""

    def __len__(self) -> int:
        return 8


def relabelled() -> None:
    run = TinyRun((), labels=3)
    session = run.session
    session.dataset = Images(get_label=lambda index: None)
    session.drawn.extend([5, 2, 7, 0, 1, 1])
    labels = torch.randn([8, 3])
    session.relabel(labels)
    assert torch.equal(session.labels(torch.zeros([2, 3])), labels[[5, 2]]) and torch.equal(
        session.index(2), torch.tensor([5, 2])
    )
    session.round = 1
    assert torch.equal(session.index(2), torch.tensor([7, 0]))
    assert torch.equal(torch.from_numpy(session.dataset.get_label(6)), labels[6])
    session.batch_end(4, 1)
    session.round = 0
    assert torch.equal(session.index(2), torch.tensor([1, 1])) and session.index(3) is None
    saved = run.state()
    other = TinyRun((), labels=3)
    other.session.dataset = Images(get_label=None)
    assert torch.equal(other.load(saved).session._labels, labels)


def generated() -> None:
    run = TinyRun()
    before = run.G.mapping.w_avg.clone()
    z, c = torch.randn([3, 8]), torch.zeros([3, 0])
    images = run.session.generate(z, c, mixing=False)
    assert list(images.shape) == [3, 3, 16, 16] and torch.equal(before, run.G.mapping.w_avg)
    assert images.isfinite().all()


claim("a term on nothing has no pass and one value", of_no_pass)
claim("two critics are refused", two_critics)
claim("frozen parameters of a head stay frozen", frozen_head)
claim("a phase in which nothing is trained is skipped", nothing_trained)
claim("a critic without logits trains G alone", without_D)
claim("an average follows its module and is saved", averages)
claim("labels that change are looked up by index", relabelled)
claim("a further batch of G leaves its averages alone", generated)
print(json.dumps(claims))
