"""Run in a host's folder: its data loader with images from memory, against its data set as it is, on DATA SUBSET.

Prints what --cache says, and as JSON how many items of two workers are equal, and how many of them are flips."""

import json
import pickle
import sys

import numpy as np
import torch

sys.path.insert(0, ".")
from torch_utils.misc import InfiniteSampler
from training.dataset import ImageFolderDataset

from stylegan_plugins import bridge  # noqa: F401  repairs the host's sampler
from stylegan_plugins.files import decoded

BATCHES, BATCH = 12, 4
kwargs = dict(path=sys.argv[1], use_labels=True, xflip=True, max_size=int(sys.argv[2]), random_seed=1)
stock, cached = ImageFolderDataset(**kwargs), ImageFolderDataset(**kwargs)
decoded.use(cached, "ram", shown=0)
cached = pickle.loads(pickle.dumps(cached))  # as a worker gets it: hosts spawn theirs, here they are forks
order = lambda: InfiniteSampler(cached, rank=1, num_replicas=2, seed=3)
expected = [stock[index] for index, _ in zip(order(), range(BATCHES * BATCH))]
flips = [bool(stock._xflip[index]) for index, _ in zip(order(), range(BATCHES * BATCH))]

decoded.decode = None  # from here on an image that is not in memory is an error
loader = torch.utils.data.DataLoader(cached, BATCH, sampler=order(), num_workers=2, multiprocessing_context="fork")
found = [item for _, (images, labels) in zip(range(BATCHES), loader) for item in zip(images.numpy(), labels.numpy())]
equal = [all(map(np.array_equal, one, other)) for one, other in zip(found, expected, strict=True)]
print(json.dumps([sum(equal), sum(flips)]))
