"""session.variant: images of other latents, with all other random draws of a pass."""

from __future__ import annotations

import pytest
from support.hosts import FAMILIES
from support.scripts import report_of

pytestmark = pytest.mark.host


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_the_same_latents_are_the_same_with_the_draws_of_their_pass(family, fetched):
    found = report_of(fetched[family], "variants.py")
    assert found and all(found.values()), found
