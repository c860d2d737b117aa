"""Functions that a CPU computes in fewer operations equal the host's own (stylegan_plugins/host/quicker.py)."""

from __future__ import annotations

import pytest
from support.hosts import ADA, STYLEGAN3
from support.scripts import DRIVERS, run_script

pytestmark = pytest.mark.host


@pytest.mark.parametrize("family", [ADA, STYLEGAN3])
def test_they_equal_the_hosts_own_with_first_and_second_derivatives_and_leave_forks_alone(training_hosts, family):
    done = run_script(training_hosts[family], str(DRIVERS / "reference_ops.py"), family)
    assert done.stdout.endswith("equal\n")
