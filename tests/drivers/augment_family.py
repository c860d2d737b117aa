"""Run in a host's folder: AugSelf on all groups of DiffAugment. Prints a JSON line: the widths of its heads, and
whether everything is finite."""

import json
import sys

import torch

sys.path.insert(0, ".")
from stylegan_plugins.testing import TinyRun
from training_ext.augment_family import WIDTHS

torch.set_num_threads(1)
run = TinyRun(["augself"], {"diffaugment": {"policy": ",".join(WIDTHS)}}, side=32).train(2)
heads = {group: len(head.weight) for group, head in run.method("augself").head.groups.items()}
moved = [*run.D.parameters(), *run.G.parameters(), *run.session.heads.parameters()]
print(json.dumps({"heads": heads, "finite": all(bool(parameter.isfinite().all()) for parameter in moved)}))
