"""The augself plug-in in a host: numbers of the authors, options, presets, and a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from support.hosts import ADA, STYLEGAN3
from support.runs import TINY, last_run, loop, options, snapshot
from support.scripts import DRIVERS, run_script

from stylegan_plugins.errors import OptionError
from stylegan_plugins.manager import catalogue
from stylegan_plugins.plugins.augself import PRESETS, AugSelfOptions
from stylegan_plugins.run import arguments

GOLDEN = Path(__file__).parent / "golden" / "augself.npz"


def resolved(names: list[str], given: dict | None = None) -> dict:
    """Return options objects of active plug-ins, presets applied."""
    return dict(catalogue().activate(names, given or {}).options)


def assert_equals_the_authors(host: Path) -> None:
    done = run_script(host, str(DRIVERS / "augself_golden.py"), str(GOLDEN))
    differences = json.loads(done.stdout.splitlines()[-1])
    # G, D on generated and on real images: clean and augmented ones in one batch of 16. R1: 8 images, no clean ones.
    assert differences.pop("forward passes of D") == [16, 16, 16, 8]
    assert len(differences) == 4
    # Sums of float32 in another order: a batch of 16 instead of two of 8.
    assert {name: value for name, value in differences.items() if value > 2e-6} == {}


@pytest.mark.host
def test_gradients_equal_the_authors_bb0760e(fetched):
    assert_equals_the_authors(fetched[ADA])


@pytest.mark.host
@pytest.mark.parametrize("pristine", [ADA], indirect=True)
def test_in_nvidias_checkout_gradients_equal_the_authors_bb0760e(pristine):
    assert_equals_the_authors(pristine)


@pytest.mark.unit
def test_augself_brings_diffaugment_along_once():
    for names in (["augself"], ["diffaugment", "augself"], ["augself", "diffaugment"]):
        assert catalogue().activate(names, {}).names == ("diffaugment", "augself")


@pytest.mark.unit
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_takes_the_place_of_defaults_and_what_is_given_wins(name):
    options = resolved(["augself"], {"augself": {"preset": name}})
    for plugin, fields in PRESETS[name].values_for("augself").items():
        for field, value in fields.items():
            assert getattr(options[plugin], field) == value
    mine = resolved(["augself"], {"augself": {"preset": name, "g_weight": 0.7}})
    assert mine["augself"].g_weight == 0.7 and mine["augself"].d_weight == options["augself"].d_weight
    assert PRESETS[name].source


@pytest.mark.unit
def test_the_plus_preset_strengthens_what_diffaugment_applies():
    options = resolved(["augself"], {"augself": {"preset": "plus"}, "diffaugment": {"cutout": 0.6}})
    assert options["diffaugment"].translation == 0.25 and options["diffaugment"].cutout == 0.6
    assert resolved(["augself"])["diffaugment"].translation == 0.125


@pytest.mark.unit
@pytest.mark.parametrize("predict", ["", "hue", "color,hue"])
def test_groups_that_do_not_exist_cannot_be_predicted(predict):
    with pytest.raises(OptionError, match="--augself-predict"):
        AugSelfOptions(predict=predict)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"diffaugment": {"policy": "color"}, "augself": {"predict": "cutout"}},
            "--augself-predict: cutout cannot be predicted, since --diffaugment-policy=color applies color",
        ),
        ({"diffaugment": {"policy": ""}}, "--augself-predict: there is nothing to predict"),
        ({"diffaugment": {"where": "d"}}, "--diffaugment-where=d"),
    ],
)
def test_what_the_head_could_not_learn_is_refused(given, message):
    request = arguments.Request(plugins=catalogue().activate(["augself"], given), dry_run=True)
    args = {"loss_kwargs": {"class_name": arguments.HOST_LOSS}}
    with pytest.raises(OptionError, match=message):
        arguments.configure("run", args, request)


@pytest.mark.run
@pytest.mark.parametrize("family", [ADA, STYLEGAN3])
def test_a_run_reports_what_shows_that_it_works(fetched, training_hosts, family, small_zip, tmp_path):
    run_script(
        training_hosts[family],
        "train.py",
        *[f"--data={small_zip}", f"--outdir={tmp_path}", *TINY[family], "--batch=64", "--plugin=augself"],
        "--augself-predict=color,translation",
    )
    run_dir = last_run(tmp_path)
    assert run_dir.name.endswith("-diffaugment-augself")
    options = json.loads((run_dir / "training_options.json").read_text())["plugins"]["options"]
    assert options["augself"]["predict"] == "color,translation" and options["diffaugment"]["cutout"] == 0.5
    last = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()][-1]
    for name in ("Loss/D/augself", "Loss/G/augself", "AugSelf/ahm", "AugSelf/error/color/real"):
        assert math.isfinite(last[name]["mean"]) and last[name]["num"] > 0
    assert last["AugSelf/error/translation/generated"]["mean"] > 0
    assert not any("cutout" in name for name in last)
    assert snapshot(fetched[family], max(run_dir.glob("network-snapshot-*.pkl")), "--stock")["finite"]


@pytest.mark.run
def test_weights_of_0_leave_diffaugment_alone(ada_host, small_zip, tmp_path):
    alone = options(ada_host, ADA, small_zip, tmp_path, "--plugin=diffaugment")
    off = options(
        ada_host, ADA, small_zip, tmp_path, "--plugin=augself", "--augself-d-weight=0", "--augself-g-weight=0"
    )
    assert off["plugins"]["options"]["augself"]["d_weight"] == 0
    networks = [
        snapshot(ada_host, loop(ada_host, args, tmp_path / name, 3)) for name, args in (("a", alone), ("b", off))
    ]
    assert networks[0] == networks[1]
