"""Run in an ada host's folder: check the held-out sets of data sets of any size, by the host's own choice of images.
Prints a JSON line: the number of cases."""

import json
import sys
import types

import numpy as np

sys.path.insert(0, ".")
from hypothesis import given, settings
from hypothesis import strategies as st

from stylegan_plugins.host.modules import construct, host_module, raw_indices
from stylegan_plugins.plugins import diagnostics

Dataset = host_module("training.dataset").Dataset


class Numbers(Dataset):
    """Images [1, 1, 1] whose pixel is their number; labels are the number modulo 3."""

    def __init__(self, path, **kwargs):
        self.count = int(path)
        super().__init__(name="numbers", raw_shape=[self.count, 1, 1, 1], **kwargs)

    def _load_raw_image(self, raw_idx):
        return np.full([1, 1, 1], raw_idx, np.uint8)

    def _load_raw_labels(self):
        return np.arange(self.count) % 3


sys.modules["numbers_of_a_test"] = types.ModuleType("numbers_of_a_test")
sys.modules["numbers_of_a_test"].Numbers = Numbers
cases = 0


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.data())
def split(data):
    global cases
    total = data.draw(st.integers(2, 200), label="total")
    holdout = data.draw(st.integers(1, total - 1), label="holdout")
    subset = data.draw(st.none() | st.integers(1, total), label="subset")
    kwargs = {
        "class_name": "numbers_of_a_test.Numbers",
        "path": str(total),
        "max_size": total if subset is None else subset,
        "xflip": data.draw(st.booleans(), label="mirror"),
        "use_labels": data.draw(st.booleans(), label="cond"),
    }
    seed = data.draw(st.integers(0, 2**31), label="seed")
    if subset is not None and subset < total:  # the host notes the seed only then
        kwargs["random_seed"] = seed
    args = {"training_set_kwargs": kwargs, "random_seed": seed, "D_kwargs": {}, "batch_gpu": 4}
    before = raw_indices(kwargs, kwargs["max_size"])
    diagnostics.keep_out(args, holdout)
    training = construct(kwargs)
    shown = [int(training[index][0].item()) for index in range(len(training))]
    out = diagnostics.held_out(kwargs, holdout)
    assert len(out) == holdout and len(set(out.tolist())) == holdout
    assert not set(out.tolist()) & set(shown)
    size = min(total if subset is None else subset, total - holdout)
    assert len(set(shown)) == size and len(shown) == size * (2 if kwargs["xflip"] else 1)
    if subset is not None and subset < total:
        assert set(shown) <= set(before.tolist())  # of the subset that the host would have taken
    else:  # held-out images are the same, whatever the subset
        smaller = {**kwargs, "max_size": max(1, size // 2)}
        assert np.array_equal(diagnostics.held_out(smaller, holdout), out)
    cases += 1


split()
print(json.dumps({"cases": cases}))
