"""Run in a host's folder: off_is_off.py NAME OPTIONS, the latter as JSON. Prints a JSON line: the fault, or nothing."""

import json
import sys

import torch

sys.path.insert(0, ".")
from stylegan_plugins.testing import assert_off_is_off

torch.set_num_threads(1)
name, options = sys.argv[1], json.loads(sys.argv[2])
fault = ""
try:
    assert_off_is_off(name, {name: options})
except AssertionError as error:
    fault = str(error)
print(json.dumps({"fault": fault}))
