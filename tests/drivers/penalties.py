"""Run in a host's folder: penalties and spectral normalisation of PluginLoss. Prints a JSON line: claim -> its
fault, empty if it holds."""

import json
import sys
from collections.abc import Callable

import torch

sys.path.insert(0, ".")
import training_ext.loss
from stylegan_plugins.testing import TinyRun, assert_resumes_exactly
from training_ext import spectral_norm

torch.set_num_threads(1)
claims: dict[str, str] = {}
N = 4


def claim(name: str, check: Callable[[], object]) -> None:
    try:
        check()
        claims[name] = ""
    except AssertionError as error:
        claims[name] = str(error) or "no"


def penalised(run: TinyRun, phase: str) -> tuple[dict[str, torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return the gradients of a phase, and each batch that D has seen with its labels."""
    seen = []
    hook = run.D.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(x.detach() for x in inputs[:2])))
    gradients = run.gradients(phase)
    hook.remove()
    return gradients, seen


def expected(run: TinyRun, images: torch.Tensor, labels: torch.Tensor, penalty: Callable) -> dict[str, torch.Tensor]:
    """Return gradients of a penalty's mean over a batch, by plain autograd."""
    leaf = images.clone().requires_grad_(True)
    run.D.requires_grad_(True)
    (gradient,) = torch.autograd.grad(run.D(leaf, labels).sum(), [leaf], create_graph=True)
    names, parameters = zip(*run.D.named_parameters(), strict=True)
    values = torch.autograd.grad(penalty(gradient).mean(), parameters, allow_unused=True)
    run.D.requires_grad_(False)
    return {f"D.{name}": value for name, value in zip(names, values, strict=True) if value is not None}


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() >= theirs.keys() and theirs
    for name, value in ours.items():  # gradients that R1's trick of ada makes are 0
        torch.testing.assert_close(value, theirs.get(name, torch.zeros_like(value)), rtol=1e-4, atol=1e-6, msg=name)


def r2() -> None:
    run = TinyRun(labels=3, loss=dict(r1_gamma=0, r2_gamma=3))
    gradients, seen = penalised(run, "Dreg")
    ((images, labels),) = seen
    equal(gradients, expected(run, images, labels, lambda g: 1.5 * g.square().sum([1, 2, 3])))
    assert not any(name.startswith("G.") for name in gradients)


def r1_and_r2() -> None:
    run = TinyRun(labels=3, loss=dict(r1_gamma=2, r2_gamma=2))
    gradients, seen = penalised(run, "Dreg")
    assert len(seen) == 2
    of_both = [expected(run, *one, lambda g: g.square().sum([1, 2, 3])) for one in seen]
    equal(gradients, {name: value + of_both[1][name] for name, value in of_both[0].items()})


def line() -> None:
    """Check the penalty of Gulrajani et al., at points between a real image and a generated one of its label."""
    run = TinyRun(labels=3, loss=dict(r1_gamma=0, gradient_penalty=10))
    ends: list[torch.Tensor] = []
    generate = run.session.generate

    def noting(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        ends.append(generate(z, c))
        labels_of_G.append(c)
        return ends[-1].clone()

    labels_of_G: list[torch.Tensor] = []
    run.session.generate = noting
    real: list[torch.Tensor] = []
    real_images = run.session.real_images
    run.session.real_images = lambda images, labels, phase: real.append(images) or real_images(images, labels, phase)
    gradients, seen = penalised(run, "Dreg")
    ((images, labels),) = seen
    equal(gradients, expected(run, images, labels, lambda g: 10 * (g.square().sum([1, 2, 3]).sqrt() - 1).square()))
    assert torch.equal(labels, labels_of_G[0])
    share = (images - ends[0]) / (real[-1] - ends[0])
    places = (real[-1] - ends[0]).abs() > 0.1  # elsewhere the quotient is mostly rounding
    for one, where in zip(share, places, strict=True):
        assert one[where].std() < 1e-4 and 0 <= one[where].mean() <= 1
    assert share.flatten(1).median(dim=1).values.std() > 0, "all pairs have the same place on their line"


def one_draw() -> None:
    """Check that with DiffAugment D sees points of the line between T(x) and T(G(z)), for one omega."""
    run = TinyRun(["diffaugment"], loss=dict(r1_gamma=0, gradient_penalty=10))
    T = run.session.augmentations[0]
    raw, drawn = [], []
    augmented = training_ext.loss.augmented

    def noting(augmentations: list, images: torch.Tensor, *args: object):
        shown, omega = augmented(augmentations, images, *args)
        raw.append(images), drawn.append(omega["diffaugment"])
        return shown, omega

    training_ext.loss.augmented = noting
    ends: list[torch.Tensor] = []
    generate = run.session.generate
    run.session.generate = lambda z, c: ends.append(generate(z, c)) or ends[-1].clone()
    _, seen = penalised(run, "Dreg")
    training_ext.loss.augmented = augmented
    ((images, _),) = seen
    generated = T.apply(ends[0], drawn[-1])
    # The other end: twice the step from the generated image.
    real = T.apply(2 * raw[-1] - ends[0], drawn[-1])
    torch.testing.assert_close(images, (generated + real) / 2, rtol=1e-4, atol=1e-5)


def without_lazy() -> None:
    """Check that each penalty adds the same gradients to Dboth and to Dreg."""
    plain = TinyRun(loss=dict(r1_gamma=0)).gradients("Dboth")
    for penalty in (dict(r1_gamma=1), dict(r2_gamma=1), dict(gradient_penalty=1)):
        loss = dict(r1_gamma=0) | penalty
        run = TinyRun(loss=loss)
        both, seen = penalised(run, "Dboth")
        assert {name.split(".")[0] for name in both} == {"D"}
        where = {"r1_gamma": 1, "r2_gamma": 0, "gradient_penalty": -1}[next(iter(penalty))]  # generated, real, line
        of_penalty = lambda g, line="gradient_penalty" in penalty: (
            (g.square().sum([1, 2, 3]).sqrt() - 1).square() if line else g.square().sum([1, 2, 3]) / 2
        )
        added = expected(run, *seen[where], of_penalty)
        equal({name: both[name] - plain[name] for name in plain}, added)


def every_third_iteration() -> None:
    """Check that only every k-th iteration trains G and its regularisation, with gradients of the same size."""
    run, moved, regularised = TinyRun("ssgan", loss=dict(g_interval=3)), [], []
    accumulate = run.accumulate
    run.accumulate = lambda phase, gain: (
        (phase == "Greg" and regularised.append(run.session.batch_idx)) or accumulate(phase, gain=gain)
    )
    for _ in range(8):
        before = [[p.clone() for p in network.parameters()] for network in (run.G, run.D)]
        run.train(1)
        same = [all(map(torch.equal, b, n.parameters())) for b, n in zip(before, (run.G, run.D), strict=True)]
        moved.append(not same[0])
        assert not same[1]
    assert moved == [index % 3 == 0 for index in range(8)] and regularised == [0, 6]
    for phase, gain in (("Gmain", 1), ("Greg", 2), ("Gboth", 1)):
        found = []
        for k in (1, 3):
            run = TinyRun(loss=dict(g_interval=k))
            torch.manual_seed(1)
            run.accumulate(phase, gain=gain * k)
            found.append({name: p.grad for name, p in run.G.named_parameters() if p.grad is not None})
        assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][n], found[1][n]) for n in found[0])


def weight_0_is_off() -> None:
    off = TinyRun(loss=dict(r2_gamma=0, gradient_penalty=0, d_spectral_norm=False)).train(3)
    plain = TinyRun().train(3)
    assert all(map(torch.equal, off.D.parameters(), plain.D.parameters()))


def largest_value_is_1() -> None:
    run = TinyRun(labels=3, loss=dict(d_spectral_norm=True))
    norm = run.loss.spectral_norm
    norm.update(300)
    names = dict(run.D.named_parameters()).keys()
    kept = run.D.b4.fc.weight
    with run.loss.normalised_D():
        assert dict(run.D.named_parameters()).keys() == names
        for name, layer in norm.layers.items():
            value = torch.linalg.matrix_norm((layer.weight * layer.weight_gain).flatten(1), ord=2)
            assert abs(value - 1) < 1e-3, f"{name}: {value}"
    assert run.D.b4.fc.weight is kept and len(norm.layers) > 8


def torchs_gradients() -> None:
    """Check that gradients of R1 and of the loss equal torch's own spectral normalisation, with the same u and v."""
    run = TinyRun(labels=3, loss=dict(d_spectral_norm=True, r1_gamma=2))
    gradients, seen = penalised(run, "Dreg")
    ((images, labels),) = seen
    before = {name: layer.weight.detach().clone() for name, layer in run.loss.spectral_norm.layers.items()}
    for name, layer in run.loss.spectral_norm.layers.items():
        torch.nn.utils.parametrizations.spectral_norm(layer, n_power_iterations=1)
        of_torch = layer.parametrizations.weight[0]
        of_torch.eval()  # it keeps u and v
        of_torch._u.copy_(run.loss.spectral_norm.u[name]), of_torch._v.copy_(run.loss.spectral_norm.v[name])
        gain = layer.weight_gain
        layer.weight_gain = 1.0
        assert torch.equal(layer.parametrizations.weight.original, before[name]) and gain > 0
    theirs = expected(run, images, labels, lambda g: g.square().sum([1, 2, 3]))
    renamed = {name.replace(".parametrizations.weight.original", ".weight"): value for name, value in theirs.items()}
    equal(gradients, renamed)


def folded() -> None:
    run = TinyRun(labels=3, loss=dict(d_spectral_norm=True))
    run.loss.spectral_norm.update(300)
    images, labels = torch.randn([N, 3, 16, 16]), torch.randn([N, 3])
    with torch.no_grad():
        with run.loss.normalised_D():
            trained = run.D(images, labels)
        first = run.D(images, labels)
        spectral_norm.fold(run.D)
        assert not torch.allclose(first, trained)
        torch.testing.assert_close(run.D(images, labels), trained, rtol=1e-2, atol=1e-3)


def everything_resumes() -> None:
    loss = dict(gan_loss="relativistic", r2_gamma=1.0, gradient_penalty=1.0, d_spectral_norm=True, g_interval=3)
    assert_resumes_exactly(["diffaugment"], None, 4, 2, loss=loss, labels=3, ada=True, rounds=2, batch=8)
    assert_resumes_exactly((), None, 4, 2, loss=loss, lazy=False)


def averages_follow_what_is_trained() -> None:
    """Check that an average of D with decay 0 is D with normalised weights, as terms see it."""
    run = TinyRun(
        "insgen",
        dict(insgen=dict(momentum=0.0, real_queue=8, generated_queue=8)),
        loss=dict(d_spectral_norm=True),
        lazy=False,
    )
    key, norm = run.method("insgen").key_D, run.loss.spectral_norm
    for _ in range(2):  # at set-up and after steps
        with run.loss.normalised_D():
            for name, layer in norm.layers.items():
                torch.testing.assert_close(key.get_submodule(name).weight, layer.weight, rtol=1e-4, atol=1e-6, msg=name)
        run.train(1)


def lines_are_no_real_images() -> None:
    run = TinyRun(loss=dict(gradient_penalty=1))
    silences = []
    generate = run.session.generate
    run.session.generate = lambda z, c: silences.append(run.session._silent) or generate(z, c)
    hook = run.D.register_forward_pre_hook(lambda module, inputs: silences.append(run.session._silent))
    run.gradients("Dreg")
    hook.remove()
    assert silences == [False, False, True], silences  # R1's pass, G, the line's pass


claim("averages follow normalised weights", averages_follow_what_is_trained)
claim("points of a line are not reported as real", lines_are_no_real_images)
claim("R2 is the penalty of generated images", r2)
claim("R1 and R2 add up", r1_and_r2)
claim("the gradient penalty is at points of a line", line)
claim("both ends of the line have one draw of T", one_draw)
claim("without lazy regularisation all are in Dboth", without_lazy)
claim("weights of 0 change nothing", weight_0_is_off)
claim("layers have the largest singular value 1, and their names", largest_value_is_1)
claim("gradients are those of torch's spectral normalisation", torchs_gradients)
claim("folded weights make the D that was trained", folded)
claim("G is trained in every k-th iteration", every_third_iteration)
claim("all of them resume exactly", everything_resumes)
print(json.dumps(claims))
