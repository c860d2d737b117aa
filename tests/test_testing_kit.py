"""The public test kit, on every built-in method and on the examples in one family of hosts, on some in the other."""

from __future__ import annotations

import pytest
from support.hosts import ADA, FAMILIES
from support.scripts import report_of

pytestmark = pytest.mark.run


def test_each_method_agrees_on_two_ranks(fetched):
    differences = report_of(fetched[ADA], "two_ranks.py", "suite")
    assert len(differences) > 20 and {method: places for method, places in differences.items() if places} == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_methods_are_off_when_off_resume_exactly_ask_for_no_value_and_keep_the_contract(fetched, family):
    claims = report_of(fetched[family], "kit.py", family)
    assert len(claims) > 20 and {claim: wrong for claim, wrong in claims.items() if wrong} == {}
