"""Batches that share a pass of D keep the minibatch-stddev groups that separate passes have."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training_ext.batches import can_join, join, split

pytestmark = pytest.mark.unit

PROPERTY = settings(max_examples=50, deadline=None)


def batch_deviation(x, group_size):
    """Return the minibatch standard deviation in a layer of D, [N] -> [N]: one number per group, image by image."""
    n = len(x)
    size = n if group_size is None else min(group_size, n)
    stride = n // size
    result = []
    for index in range(n):
        members = [x[index % stride + k * stride] for k in range(size)]
        mean = math.fsum(members) / size
        result.append(math.sqrt(math.fsum((value - mean) ** 2 for value in members) / size + 1e-8))
    return result


@st.composite
def joinable(draw):
    """Draw (sizes of one to four batches, a group size that divides them all)."""
    group_size = draw(st.integers(1, 6))
    return [group_size * n for n in draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))], group_size


@PROPERTY
@given(joinable(), st.integers(0, 2**31))
def test_a_joined_batch_gives_each_batch_the_statistics_of_a_pass_of_its_own(case, seed):
    sizes, group_size = case
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn([n], generator=generator, dtype=torch.float64) for n in sizes]
    assert can_join(sizes, group_size)
    joined = join(batches, group_size)
    statistics = torch.tensor(batch_deviation(joined.tolist(), group_size), dtype=torch.float64)
    for batch, values in zip(batches, split(statistics, sizes, group_size)):
        assert values.tolist() == batch_deviation(batch.tolist(), group_size)


@PROPERTY
@given(joinable(), st.sampled_from([(), (3,), (2, 4, 4), (0,)]))
def test_split_undoes_join_for_any_shape_and_passes_gradients_on(case, trailing):
    sizes, group_size = case
    batches = [torch.randn([n, *trailing], requires_grad=True) for n in sizes]
    joined = join(batches, group_size)
    assert joined.shape == (sum(sizes), *trailing)
    parts = split(joined, sizes, group_size)
    assert all(torch.equal(part, batch) for part, batch in zip(parts, batches))
    sum(part.sum() * index for index, part in enumerate(parts)).backward()
    assert all((batch.grad == index).all() for index, batch in enumerate(batches))


@pytest.mark.parametrize("sizes, group_size", [([4, 2], 4), ([6], 4), ([0], 4)])
def test_batches_that_cannot_share_a_pass_are_told_so(sizes, group_size):
    assert not can_join(sizes, group_size)
