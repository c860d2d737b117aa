"""A violation of the contract of a method ends in one line that names plug-in and part, the expected and the given
value."""

from __future__ import annotations

import re
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stylegan_plugins import Augmentation, Average, Batch, Critic, Head, Images, Pass, Step, Term, View, hookimpl
from stylegan_plugins.errors import PluginError
from stylegan_plugins.run.checks import (
    check_gradients,
    check_names,
    check_settings,
    check_terms,
    check_value,
    check_views,
    passes_named,
    refuse_readers,
)
from stylegan_plugins.run.method import HOOKS, Method
from training_ext.parts import HOST_CRITIC, ContractError
from training_ext.passes import augmented, for_term, make_pass

pytestmark = pytest.mark.unit


def value(step: Step) -> torch.Tensor:
    return step.one.logits.squeeze(1)


def refused(**attributes) -> str:
    """Return the message for a method with these attributes."""
    with pytest.raises(PluginError) as error:
        Method("mine", SimpleNamespace(**attributes))
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("--plugin=mine: ")


# Set-up. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"terms": Term("a", "D", value)}, "terms is Term; expected a list of Term"),
        ({"terms": [Head("a", None)]}, "terms is a list of Head; expected a list of Term"),
        ({"heads": {"a": 1}}, "heads is dict; expected a list of Head"),
        ({"critic": [Critic("a", value)]}, "critic is a list of Critic; expected one Critic or None"),
        ({"term": Term("a", "D", value)}, "term holds Term; parts stand under augmentations, heads, averages, terms"),
        ({"parts": {"a": Term("a", "D", value)}}, "parts holds dict; parts stand under"),
        ({"all": [Head("a", None)]}, "all holds a list of Head; parts stand under"),
        ({"terms": [Term("a", "d", value)]}, "network of a is 'd'; expected one of 'D', 'G'"),
        ({"terms": [Term("a", "D", value, on="fake")]}, "on of a is 'fake'; expected one of 'each', 'real'"),
        ({"terms": [Term("a", "D", value, when="lazy")]}, "when of a is 'lazy'; expected one of 'main', 'reg'"),
        ({"terms": [Term("a", "D", value, layers="b4.fc")]}, "layers of a is str; expected a list of str"),
        ({"terms": [Term("a", "D", value, views=View("v", value))]}, "views of a is View; expected a list of View"),
        (
            {"terms": [Term("a", "D", value, views=[View("v", value, groups="mine")])]},
            "groups of v is 'mine'; expected one of 'own', 'shared', 'none'",
        ),
        (
            {"terms": [Term("a", "D", value, views=[View("v", value, on="real")])]},
            "a is on 'each', its view v on 'real' alone",
        ),
        ({"critic": Critic("a", value, r1="clean")}, "r1 of a is 'clean'; expected one of 'raw', 'shown', None"),
        ({"heads": [Head("a", None, network="E")]}, "network of a is 'E'"),
        (
            {"heads": [Head("a", [torch.nn.Identity()])]},
            "module of a is a list of Identity; expected a torch.nn.Module",
        ),
        (
            {"heads": [Head("a", torch.nn.Identity(), settings=None)]},
            "settings of a is NoneType; expected a dictionary",
        ),
        ({"terms": [Term("a", "D", value, weight=float("nan"))]}, "weight of a is nan; expected a finite number"),
        ({"terms": [Term("a", "D", value, weight="0.5")]}, "weight of a is '0.5'; expected a finite number"),
        (
            {"terms": [Term("a", "D", value, on="both", views=[View("v", value, on="both")])]},
            "on of v is 'both'; expected one of 'each', 'real', 'generated'",
        ),
        ({"state_dict": dict}, "it has one of state_dict() and load_state_dict(); give both or neither"),
    ],
)
def test_a_part_that_is_none_is_refused(attributes, message):
    assert refused(**attributes).startswith(message)


@pytest.mark.parametrize("made", [[Term("a", "D", value)], {"terms": []}, Term("a", "D", value), "augself"])
def test_setup_has_to_return_an_object_that_holds_the_parts(made):
    with pytest.raises(PluginError, match=r"--plugin=mine: setup\(\) returned .*; expected an object"):
        Method("mine", made)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"mean": np.zeros(3)}, "state_dict()['mean'] is a numpy.ndarray, which cannot be saved"),
        ({"deep": [{"f": len}]}, "state_dict()['deep'][0]['f'] is a builtins.builtin_function_or_method"),
        ({(1, 2): 3}, "state_dict() has the key (1, 2)"),
        ({"x": np.float64(3)}, "state_dict()['x'] is a numpy.float64"),
    ],
)
def test_a_state_that_cannot_be_saved_is_found_at_set_up(state, message):
    assert refused(state_dict=lambda: state, load_state_dict=lambda state: None).startswith(message)


def test_a_state_of_plain_things_is_taken_and_comes_back_on_the_devices_of_its_counterparts():
    kept = {"a": torch.zeros([2]), "b": [1, "two", None, {"c": torch.ones([1])}]}
    seen = []
    method = Method("mine", SimpleNamespace(state_dict=lambda: kept, load_state_dict=seen.append))
    method.load_state_dict({"a": torch.ones([2]), "b": [3, "four", None, {"c": torch.zeros([1])}]}, torch.device("cpu"))
    assert method.has_state and torch.equal(seen[0]["a"], torch.ones([2])) and seen[0]["b"][1] == "four"


class Hooked:
    def __init__(self, log):
        self.log = log

    @hookimpl
    def batch_end(self, nimg):
        self.log.append(nimg)


def test_hooks_are_bound_methods_that_take_the_arguments_that_they_name():
    log: list[int] = []
    hooks = Method("mine", Hooked(log)).hooks
    assert list(hooks) == ["batch_end"]
    hooks["batch_end"](nimg=8, batch_idx=1)
    assert log == [8]


def test_a_property_of_a_method_is_not_asked_for():
    class Costly:
        @property
        def images(self):
            raise AssertionError("reads the data set")

    Method("mine", Costly())


def test_hooks_without_a_mark_with_a_wrong_name_or_argument_are_refused():
    class Unmarked:
        def batch_end(self, nimg):
            pass

    class Misspelt:
        @hookimpl
        def batch_edn(self, nimg):
            pass

    class Greedy:
        @hookimpl
        def tick(self, colour):
            pass

    for made, message in (
        (Unmarked(), r"batch_end\(\) has the name of a hook and no mark. Put @hookimpl above it"),
        (Misspelt(), r"batch_edn\(\) is not a hook of a method. Known: attached, trains"),
        (Greedy(), r"tick\(\) has the argument 'colour'; it may take nimg"),
    ):
        with pytest.raises(PluginError, match=message):
            Method("mine", made)
    assert {"observe", "real_images", "sample_weights", "step_end", "snapshot", "statistics"} < HOOKS.keys()


def test_layers_that_a_network_has_not_are_refused_with_those_it_has():
    D = torch.nn.Sequential(torch.nn.Linear(2, 2))
    for part in ({"terms": [Term("a", "D", value, layers=["b4.cf"])]}, {"critic": Critic("a", value, ["b4.cf"])}):
        with pytest.raises(PluginError, match=r"--plugin=mine: a reads the layer 'b4.cf', which D has not. It has: 0"):
            check_terms(Method("mine", SimpleNamespace(**part)), D, D)
    of_G = {"terms": [Term("a", "G", value, on="generated", generator_layers=["b8"])]}
    with pytest.raises(PluginError, match="which G.synthesis has not"):
        check_terms(Method("mine", SimpleNamespace(**of_G)), D, D)


def test_a_term_of_g_on_real_images_and_two_views_of_one_name_are_refused():
    D = torch.nn.Linear(2, 2)
    with pytest.raises(PluginError, match="is on real images, which G does not make"):
        check_terms(Method("mine", SimpleNamespace(terms=[Term("a", "G", value, on="real")])), D, D)
    views = [View("v", lambda images: images.raw), View("v", lambda images: images.clean)]
    with pytest.raises(PluginError, match="two views of one name: v, v"):
        check_terms(Method("mine", SimpleNamespace(terms=[Term("a", "D", value, views=views)])), D, D)


def method(name, **parts):
    return Method(name, SimpleNamespace(**parts))


def test_two_parts_of_one_name_are_refused_with_their_plugins():
    term = lambda: Term("a", "D", value)
    with pytest.raises(PluginError, match=r"--plugin=mine: two terms of D are named 'a': rename one\."):
        check_names([method("mine", terms=[term(), term()]), method("other")])
    with pytest.raises(PluginError, match=r"--plugin=mine,other: two terms of D are .*: leave one of the plug-ins out"):
        check_names([method("mine", terms=[term()]), method("other", terms=[term()])])


@pytest.mark.parametrize("how", [{"judged": True}, {"gradient": True}])
def test_a_view_that_d_does_not_see_has_no_logits_of_d(how):
    view = View("v", lambda images: images.clean, groups="none", **how)
    mine = method("mine", terms=[Term("a", "D", value, views=[view])])
    for critic in (HOST_CRITIC, Critic("c", value, ["b4.fc"])):
        with pytest.raises(PluginError, match=r"--plugin=mine: D does not see the view v of a \(groups='none'\), so"):
            check_views([mine], critic)
    check_views([mine], Critic("own", value, runs_D=False))


def test_settings_that_an_optimiser_has_not_are_refused():
    check_settings("a", {"lr": 1, "betas": (0, 0.9)}, torch.optim.Adam)
    with pytest.raises(PluginError, match="the head a has the setting 'learning_rate'; Adam has lr, betas, "):
        check_settings("a", {"learning_rate": 1}, torch.optim.Adam)


@pytest.mark.parametrize(
    ("source", "decay", "message"),
    [
        (torch.nn.Identity(), 1.5, "has the decay 1.5; expected a number in [0, 1]"),
        (torch.nn.Identity(), float("nan"), "has the decay nan; expected a number in [0, 1]"),
        (torch.nn.Identity(), "0.9", "has the decay '0.9'; expected a number in [0, 1]"),
        (3, 0.9, "is of a int; expected a module"),
    ],
)
def test_an_average_of_no_module_or_with_another_decay_is_refused(source, decay, message):
    with pytest.raises(ContractError, match=re.escape(f"the average 'a' {message}")):
        Average("a", source, decay)


# Values. ------------------------------------------------------------------------------------------


def test_a_gradient_that_is_not_finite_names_the_terms_unless_half_precision_may_overflow():
    network = torch.nn.Linear(2, 1)
    network(torch.ones([1, 2])).square().sqrt().sum().backward()
    check_gradients(network, "Dmain", {"a": "mine"}, 500)
    network.zero_grad()
    (network(torch.ones([1, 2])) * 0).square().sqrt().sum().backward()
    check_gradients(network, "Dmain", {}, 500)
    message = r"--plugin=mine,other: the gradient of weight in Dmain is not finite at 0.5 kimg, .*: a, b, c\."
    with pytest.raises(PluginError, match=message):
        check_gradients(network, "Dmain", {"a": "mine", "b": "mine", "c": "other"}, 500)
    network.use_fp16 = True
    check_gradients(network, "Dmain", {"a": "mine"}, 500)


def test_a_term_that_reads_the_pass_that_it_has_not_is_told_so():
    term = Term("a", "D", lambda step: step.real.logits, on="generated")
    mine = method("mine", terms=[term])
    message = (
        r"--plugin=mine: compute of the term a: 'NoneType' .*'logits'\. A term on 'generated' has no step.real here"
    )
    with pytest.raises(PluginError, match=message), passes_named(mine, term, Step("Dmain", 0, 0, None, object())):
        term.compute(Step("Dmain", 0, 0, None, object()))
    with pytest.raises(AttributeError), passes_named(mine, term, Step("Dmain", 0, 0, object(), object())):
        None.logits  # noqa: B018


@pytest.mark.parametrize("came", [torch.zeros([4, 1]), torch.zeros([3]), torch.zeros([]), 0.5, None])
def test_a_term_that_is_neither_n_nor_m_is_refused(came):
    term = Term("a", "D", value)
    method = Method("mine", SimpleNamespace(terms=[term]))
    check_value(method, term, torch.zeros([4]), {4, 8})
    check_value(method, term, torch.zeros([8]), {4, 8})
    with pytest.raises(PluginError, match=r"--plugin=mine: compute of the term a returned .*; expected \[4\] or \[8\]"):
        check_value(method, term, came, {4, 8})


class D(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.b4 = torch.nn.Module()
        self.b4.conv, self.b4.fc = torch.nn.Identity(), torch.nn.Linear(3 * 4 * 4, 2)
        self.b4.mbstd = SimpleNamespace(group_size=4)

    def forward(self, images, labels):
        return self.b4.fc(self.b4.conv(images).flatten(1)).sum(dim=1, keepdim=True)


def seen(*terms: Term, n: int = 4, critic: Critic = HOST_CRITIC, gradients=()) -> tuple[Pass, dict[View, Pass]]:
    x = torch.rand([n, 3, 4, 4]).requires_grad_(True)
    images = Images("real", "Dmain", x, x, x, torch.zeros([n, 0]))
    return make_pass(D(), critic, images, terms, gradients, {}, nullcontext)


def test_what_is_read_and_not_declared_says_what_to_declare():
    view = View("v", lambda images: images.clean)
    term = Term("a", "D", value, views=[view], layers=["b4.fc"])
    of_all = seen(term, Term("other", "D", value, layers=["b4.conv"]), gradients=["shown"])
    made = for_term(term, of_all)
    for read, message in (
        (
            lambda: made.layers["b4.conv"],
            "'b4.conv' is read and not declared; name it in `layers`, which has 'b4.fc'",
        ),
        (lambda: made.views["v"].layers["b4.conv"], "name it in `layers`"),
        (lambda: made.gradients["shown"], "'shown' is read and not declared; name it in `gradients`"),
        (lambda: made.views["v"].gradients["batch"], "this pass has none: the view is made without gradient=True"),
        (lambda: made.images.generator_layers["b16"], "name it in `generator_layers`"),
        (lambda: made.views["v"].logits, "the view 'v' has no logits; make it with judged=True"),
        (lambda: Step("Dmain", 0, 0, made, made).one, "has no one pass; read step.real and step.generated"),
    ):
        with pytest.raises(ContractError) as error:
            read()
        assert message in str(error.value)


def test_two_methods_may_have_a_view_of_one_name():
    first, second = View("clean", lambda images: images.clean), View("clean", lambda images: images.clean * 2)
    terms = [Term("a", "D", value, views=[first]), Term("b", "D", value, views=[second])]
    made = seen(*terms)
    one, other = (for_term(term, made).views["clean"] for term in terms)
    assert torch.equal(one.batch * 2, other.batch)
    with pytest.raises(ContractError, match="name it in `views`"):
        for_term(Term("c", "D", value), made).views["clean"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda images: Batch(images.raw[:2]), "made 2 images with 4 labels; give labels in a Batch"),
        (lambda images: (images.raw, images.labels), "made a tuple; expected images"),
        (
            lambda images: Batch(images.raw.repeat(2, 1, 1, 1)[:6], torch.zeros([6, 0])),
            "'v' has 6 items; D takes groups of 4",
        ),
    ],
)
def test_a_view_that_d_cannot_take_is_told(make, message):
    with pytest.raises(ContractError, match=message):
        seen(Term("a", "D", value, views=[View("v", make)]))


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (lambda seen: seen.layers["b4.conv"], "'b4.conv' is read and not declared; name it in `layers`"),
        (lambda seen: seen.host_logits.squeeze(1), r"logits returned a value of shape \[4\]; expected \[4, K\]"),
        (lambda seen: None, r"logits returned a value NoneType; expected \[4, K\]"),
    ],
)
def test_a_critic_that_breaks_the_contract_is_told(logits, message):
    critic = Critic("c", logits)
    with pytest.raises(ContractError, match=message) as error:
        seen(Term("other", "D", value, layers=["b4.conv"]), critic=critic)
    assert error.value.part is critic


def test_without_logits_d_does_not_run_and_what_reads_them_is_told():
    critic = Critic("c", None)
    made, _ = seen(Term("a", "G", value, on="both"), critic=critic)
    assert made.host_logits is None and made.judged is None
    with pytest.raises(ContractError, match="logits are read, and the critic has none"):
        assert made.logits is None
    assert seen(Term("a", "G", value, on="both", layers=["b4.fc"]), critic=critic)[0].host_logits is not None


@pytest.mark.parametrize(
    ("attributes", "who"),
    [
        ({"terms": [Term("a", "D", value)]}, "a"),
        ({"terms": [Term("a", "G", value, layers=["b4.fc"])]}, "a"),
        ({"terms": [Term("a", "G", value, views=[View("v", value)])]}, "a"),
        ({"terms": [Term("a", "G", value, gradients=["raw"])]}, "a"),
        ({"heads": [Head("h", torch.nn.Identity())]}, "h"),
        ({"real_images": hookimpl(lambda images, labels: (images, labels))}, r"real_images\(\)"),
        ({"sample_weights": hookimpl(lambda step: None)}, r"sample_weights\(\)"),
        ({"terms": [Term("a", "D", value, 0), Term("b", "G", value, views=[View("v", value, groups="none")])]}, None),
        (
            {"heads": [Head("h", torch.nn.Identity(), "G")], "paired_latents": hookimpl(lambda z, labels: (z, labels))},
            None,
        ),
    ],
)
def test_what_needs_d_is_refused_beside_a_critic_without_logits(attributes, who):
    owner, other = Method("free", SimpleNamespace()), Method("mine", SimpleNamespace(**attributes))
    if who is None:
        return refuse_readers(owner, [owner, other], "free")
    with pytest.raises(PluginError, match=rf"--plugin: mine needs D \({who}\), and free trains without D: leave one"):
        refuse_readers(owner, [owner, other], "free")
    with pytest.raises(PluginError, match="free: its critic has no logits.*give the plug-in trains_D = False"):
        refuse_readers(owner, [owner], None)


def test_a_draw_of_an_augmentation_can_be_used_again():
    shift = Augmentation("shift", lambda x: {"o": torch.rand([len(x), 1])}, lambda x, omega: x + omega["o"])
    images, omega = augmented([shift], torch.zeros([4, 1]), "real", "Gmain")
    again, used = augmented([shift], torch.ones([4, 1]), "generated", "Gmain", omega)
    assert torch.equal(again, images + 1) and used == omega


def test_an_average_is_a_copy_without_gradients():
    module = torch.nn.Linear(2, 2)
    average = Average("a", module, 0.9)
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    assert average.module.weight is not module.weight and torch.equal(average.module.weight, module.weight)
