"""AugSelf: D predicts the parameters of the augmentation, real images with sign +, generated ones with sign -.

Hou, Cao, Yuan, Zhao, Ma, Pan, Wan, Wang, Shen, Cheng: Augmentation-Aware Self-Supervision for Data-Efficient GAN
Training (NeurIPS 2023, arXiv:2205.15677). omega_hat = head(phi(T(x; omega)) - phi(x)), phi = D's last hidden layer:

    L_D += d_weight * (|omega_hat - omega|^2 on real images + |omega_hat + omega|^2 on generated ones)
    L_G += g_weight * (|omega_hat - omega|^2 - |omega_hat + omega|^2 on generated images)

with means over the components of a group and sums over groups, as in the authors' code (training_ext.augself).
"""

from dataclasses import dataclass

from stylegan_plugins import hookimpl
from stylegan_plugins.errors import OptionError
from stylegan_plugins.options import Preset, option
from training_ext import augself
from training_ext.augment import GROUPS
from training_ext.heads import OmegaHead
from training_ext.parts import Head, LossTerm, Pass

PAPER = "Hou et al. 2023, Augmentation-Aware Self-Supervision for Data-Efficient GAN Training, arXiv:2205.15677"

brings = ("diffaugment",)

_LOW_SHOT = "authors' README, low-shot commands; they train with batch 8, lr 0.002, R1 gamma 10, 5000 kimg"
PRESETS = {
    "ffhq": Preset({"d_weight": 1.0, "g_weight": 0.2}, "authors' README, FFHQ commands, with --cfg=auto --mirror=1"),
    "lsun-cat": Preset({"d_weight": 1.0, "g_weight": 0.2}, "authors' README, LSUN-Cat commands, as ffhq"),
    "100-shot-obama": Preset({"d_weight": 1.0, "g_weight": 1.0, "predict": "color"}, _LOW_SHOT),
    "100-shot-grumpy_cat": Preset({"d_weight": 0.1, "g_weight": 0.1, "predict": "color"}, _LOW_SHOT),
    "100-shot-panda": Preset({"d_weight": 1.0, "g_weight": 1.0, "predict": "color"}, _LOW_SHOT),
    "AnimalFace-cat": Preset({"d_weight": 0.1, "g_weight": 0.1, "predict": "color"}, _LOW_SHOT),
    "AnimalFace-dog": Preset({"d_weight": 1.0, "g_weight": 1.0, "predict": "color"}, _LOW_SHOT),
    "plus": Preset(
        {"d_weight": 1.0, "g_weight": 0.2},
        "the '+' variant: strengths of the authors' BigGAN scripts, StyleGAN2 has none; weights of ffhq",
        others={"diffaugment": {"translation": 0.25, "cutout": 0.75}},
    ),
}


@dataclass(frozen=True)
class AugSelfOptions:
    d_weight: float = option(1.0, "factor of D's term, 0 = off", minimum=0)
    g_weight: float = option(0.2, "factor of G's term, 0 = off", minimum=0)
    policy: str | None = option(None, "transformations, as --diffaugment-policy; none: those of diffaugment")
    predict: str | None = option(None, "groups that the head predicts, with commas; none: all that are applied")
    reduction: str = option(
        "mean",
        "over the components of a group: mean, the authors' code; sum, the paper",
        choices=tuple(augself.REDUCTIONS),
    )
    preset: str | None = option(
        None, "published settings; options that are given win over them", choices=tuple(PRESETS)
    )

    def __post_init__(self) -> None:
        unknown = [name for name in self.predicted or () if name not in GROUPS]
        if unknown or self.predicted == ():
            raise OptionError(
                f"--augself-predict: {self.predict!r} is not a list of groups. Known: {', '.join(GROUPS)}; separate "
                "several with commas."
            )

    @property
    def predicted(self) -> tuple[str, ...] | None:
        return None if self.predict is None else tuple(n.strip() for n in self.predict.split(",") if n.strip())


@hookimpl
def options():
    return AugSelfOptions


@hookimpl
def presets(options, given):
    values = {} if options.preset is None else PRESETS[options.preset].values_for("augself")
    policy = given.get("augself", {}).get("policy")
    if policy is not None:
        other = given.get("diffaugment", {}).get("policy", policy)
        if other != policy:
            raise OptionError(f"--augself-policy={policy} and --diffaugment-policy={other} differ: give one of them.")
        values.setdefault("diffaugment", {})["policy"] = policy
    return values


@hookimpl
def configure(args, options):
    diffaugment = args["plugins"]["options"]["diffaugment"]
    applied = [name.strip() for name in diffaugment["policy"].split(",") if name.strip()]
    absent = [name for name in options.predicted or applied if name not in applied]
    if absent or not applied:
        raise OptionError(
            f"--augself-predict: {', '.join(absent) or 'nothing'} can be predicted from --diffaugment-policy="
            f"{diffaugment['policy']}: the head can only learn transformations that are applied."
        )
    if diffaugment["where"] != "all":
        raise OptionError(
            f"--diffaugment-where={diffaugment['where']}: augself needs omega of real and generated images in both "
            "steps; leave the option out."
        )


@hookimpl
def register_heads(session):
    predicted = groups(session)
    return [Head("augself", lambda: OmegaHead(session.feature_size("fc"), {name: GROUPS[name] for name in predicted}))]


@hookimpl
def register_loss_terms(session):
    chosen = session.options("augself")
    head = session.heads["augself"]
    fc = frozenset({"fc"})

    def discriminator(evaluated: Pass):
        sign = +1 if evaluated.source == "real" else -1
        preds, omegas = predict(head, evaluated)
        for group, pred in preds.items():
            error = augself.augself_loss(pred, omegas[group], sign)
            evaluated.report(f"AugSelf/error/{group}/{evaluated.source}", error)
        if evaluated.source == "generated":
            evaluated.report("AugSelf/ahm", augself.ahm_divergence(preds, omegas))
        return augself.discriminator_term(preds, omegas, sign, chosen.reduction)

    def generator(evaluated: Pass):
        preds, omegas = predict(head, evaluated)
        return augself.generator_term(preds, omegas, chosen.reduction)

    return [
        LossTerm("augself", "D", discriminator, chosen.d_weight, features=fc, clean_features=fc),
        LossTerm("augself", "G", generator, chosen.g_weight, features=fc, clean_features=fc),
    ]


def groups(session) -> tuple[str, ...]:
    """The groups that the head predicts."""
    return session.options("augself").predicted or session.options("diffaugment").groups


def predict(head: OmegaHead, evaluated: Pass):
    """Predictions and drawn parameters of one pass, both {group: [N, K]}."""
    preds = head(evaluated.features["fc"], evaluated.clean_features["fc"])
    return preds, {group: evaluated.omega["diffaugment"][group] for group in preds}
